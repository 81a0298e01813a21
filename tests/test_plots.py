import itertools

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from seaborn.utils import relative_luminance

from twodmse import plots
from twodmse.plots import grids
from twodmse.plots.grids import interval
from twodmse.plots.palette import LABEL, model_style, term_style

matplotlib.use("Agg")
GRID = pd.DataFrame(
    [("a", n, d, 10.0 * n + d) for n in (1, 2, 3) for d in (8, 16)]
    + [("b", n, d, 10.0 * n + d + 2) for n in (1, 2, 3) for d in (8, 16)],
    columns=["task", "layer", "dim", "spearman"],
)


@pytest.fixture(autouse=True)
def _closed():
    before = dict(plt.rcParams)
    yield
    assert dict(plt.rcParams) == before, "a plot set a global style"
    plt.close("all")


def test_heatmap_shows_the_mean_over_tasks_with_the_deepest_layer_on_top():
    ax = plots.heatmap(GRID, plt.figure().add_subplot(), "title")
    assert [t.get_text() for t in ax.texts] == ["39.0", "47.0", "29.0", "37.0", "19.0", "27.0"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["3", "2", "1"]
    assert (ax.get_title(), ax.get_xlabel()) == ("title", "dim (coordinates kept)")


def test_heatmaps_share_one_scale():
    axes = plots.heatmaps({"one": GRID, "two": GRID.assign(spearman=GRID["spearman"] + 30)})
    limits = {ax.collections[0].get_clim() for ax in axes}
    assert limits == {(19.0, 77.0)}
    assert len(axes[0].figure.axes) == 3  # two grids and one colour bar


def test_terms_and_curves_draw_one_line_each():
    history = pd.DataFrame(
        {"step": [1, 2], "loss": [3.0, 2.0], "lr": [1, 1], "layer": [1, 2], "a": [1.0, 1], "b": [2.0, 1]}
    )
    assert len(plots.terms(history, plt.figure().add_subplot()).lines) == 2
    ax = plots.curves({"x": GRID, "y": GRID}, plt.figure().add_subplot(), over="layer", dims=[8])
    assert ax.lines[0].get_ydata().tolist() == [19.0, 29.0, 39.0]


def test_tables_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="missing spearman"):
        plots.heatmap(GRID.drop(columns="spearman"), plt.figure().add_subplot())
    with pytest.raises(ValueError, match="no rows"):
        plots.heatmap(GRID.iloc[:0], plt.figure().add_subplot())


def axes():
    return plt.figure().add_subplot()


def dots(ax):
    """The cells (layer, dim) that carry a dot, by the tick labels around it."""
    if len(ax.collections) < 2:
        return set()
    rows, columns = ([t.get_text() for t in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels()))
    return {(int(rows[int(y)]), int(columns[int(x)])) for x, y in ax.collections[-1].get_offsets()}


def test_trained_cells_get_a_dot_and_significant_ones_a_star():
    trained = [(3, 8), (1, 16), (0, 8), (3, 384)]  # two of them are not drawn
    ax = plots.heatmap(GRID, axes(), trained=trained, starred=[(2, 16)])
    assert dots(ax) == {(3, 8), (1, 16)}
    assert [t.get_text() for t in ax.texts] == ["39.0", "47.0", "29.0", "37.0*", "19.0", "27.0"]
    assert not dots(plots.heatmap(GRID, axes(), trained=[(9, 9)]))


def test_heatmaps_take_the_trained_cells_of_each_grid():
    drawn = plots.heatmaps({"one": GRID, "two": GRID}, "title", trained={"two": [(2, 8)]})
    assert [dots(ax) for ax in drawn] == [set(), {(2, 8)}]
    assert drawn[0].figure.get_suptitle() == "title   (corner: cell trained on)"
    assert plots.heatmaps({"one": GRID}, "title")[0].figure.get_suptitle() == "title"


def six_by_six(name="spearman"):
    dims = (16, 32, 64, 128, 256, 384)
    rows = [(n, d, n + d / 100) for n in range(1, 7) for d in dims]
    return pd.DataFrame(rows, columns=["layer", "dim", name])


def overlaps(figure):
    """Pairs of texts of a drawn figure that lie over each other, and texts that leave the figure."""
    figure.canvas.draw()
    texts = [t for t in figure.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text().strip()]
    for ax in figure.axes:  # labels of ticks beyond an axis' ends are there and not drawn
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden = [t for t in axis.get_major_ticks() if not low <= t.get_loc() <= high]
            texts = [t for t in texts if t not in {x for tick in hidden for x in (tick.label1, tick.label2)}]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    width, height = figure.canvas.get_width_height()
    out = [text for text, b in boxes if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1]
    pairs = [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[i + 1 :] if x.shrunk(0.9, 0.9).overlaps(y)]
    return pairs, out


@pytest.mark.parametrize("dims", [6, 1])
def test_three_grids_fit_the_width_of_a_page_with_numbers_that_do_not_touch(dims):
    grid = six_by_six()
    grid = grid[grid["dim"].isin(sorted(set(grid["dim"]))[:dims])].assign(spearman=lambda t: t["spearman"] + 90)
    drawn = plots.heatmaps({"untouched": grid, "full": grid, "2dmse": grid}, "Spearman x 100 on mini-sts (test)")
    assert drawn[0].figure.get_figwidth() <= 10
    assert overlaps(drawn[0].figure) == ([], [])
    table = grid.assign(first=grid["spearman"], second=grid["spearman"], difference=-88.8, significant=True)
    drawn = plots.comparison(table, "…/quickstart/2dmse/model", "…s/quickstart/full/model", "STS " * 30)
    assert drawn[0].figure.get_figwidth() <= 10.5
    assert overlaps(drawn[0].figure) == ([], [])


def test_a_grid_of_every_dim_is_colours_alone():
    wide = pd.DataFrame([(n, d, n * d) for n in (1, 2) for d in range(1, 101)], columns=["layer", "dim", "spearman"])
    ax = plots.heatmaps({"all": wide})[0]
    assert not ax.texts
    shown = [(x - 0.5, int(t.get_text())) for x, t in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)]
    assert all(column + 1 == dim for column, dim in shown)
    assert (shown[0][1], shown[-1][1]) == (1, 100)
    assert ax.figure.get_figwidth() < 10


DIFFERENCES = pd.DataFrame(
    {"layer": [1, 1, 2, 2], "dim": [8, 16, 8, 16], "first": [10.0, 20, 30, 40], "second": [14.0, 20.5, 28, 40.1],
     "difference": [4.0, 0.5, -2.0, 0.1], "significant": [True, False, True, False]}
)  # fmt: skip


def test_differences_are_centred_at_0_and_noise_is_grey():
    ax = plots.difference_heatmap(DIFFERENCES, axes(), "title")
    assert [t.get_text() for t in ax.texts] == ["-2.0", "+0.1", "+4.0", "+0.5"]
    assert ax.collections[0].get_clim() == (-4, 4)
    assert ax.collections[0].get_cmap().name == "PuOr"
    grey = ax.collections[1]
    assert np.ma.getmaskarray(grey.get_array()).tolist() == [[True, False], [True, False]]  # layer 2 on top
    assert [to_hex(t.get_color()) for t in ax.texts][1::2] == ["#666666"] * 2
    assert "#666666" not in [to_hex(t.get_color()) for t in ax.texts][::2]
    assert ax.get_title() == "title"
    plain = plots.difference_heatmap(DIFFERENCES.drop(columns="significant"), axes(), limit=10)
    assert len(plain.collections) == 1
    assert plain.collections[0].get_clim() == (-10, 10)
    same = plots.difference_heatmap(DIFFERENCES.assign(difference=0.0), axes())
    assert same.collections[0].get_clim() == (-1, 1)


def test_a_comparison_is_two_grids_of_one_scale_and_their_difference():
    first, second, middle = plots.comparison(DIFFERENCES, "a", "b", "tasks")
    assert first.collections[0].get_clim() == second.collections[0].get_clim() == (10, 40.1)
    assert [t.get_text() for t in first.texts] == ["30.0", "40.0", "10.0", "20.0"]
    assert [t.get_text() for t in second.texts] == ["28.0*", "40.1", "14.0*", "20.5"]
    assert [ax.get_title() for ax in (first, second, middle)] == ["a", "b", "second minus first"]
    assert middle.figure.get_suptitle() == "tasks   (*: differs significantly; grey: does not)"
    ours = DIFFERENCES.rename(columns={"first": "published", "second": "ours"}).drop(columns="significant")
    first, second, middle = plots.comparison(ours, "a", "b", "tasks")
    assert [t.get_text() for t in second.texts] == ["28.0", "40.1", "14.0", "20.5"]
    assert (middle.get_title(), middle.figure.get_suptitle()) == ("ours minus published", "tasks")


def test_tables_of_differences_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="layer 1, dim 8 has several rows: keep those of one task"):
        plots.difference_heatmap(pd.concat([DIFFERENCES, DIFFERENCES]), axes())
    with pytest.raises(ValueError, match="missing difference"):
        plots.difference_heatmap(GRID, axes())
    with pytest.raises(ValueError, match="missing first, second"):
        plots.comparison(DIFFERENCES[["layer", "dim", "difference"]], "a", "b")


def test_curves_have_bands_of_the_mean_over_dims_and_tasks():
    rows = [("a", 1, 8, 50.0, 46.0, 53.0), ("a", 1, 16, 60.0, 58.0, 61.0), ("b", 1, 8, 40.0, 36.0, 41.5)]
    rows += [("b", 1, 16, 40.0, 36.0, 41.5), ("a", 2, 8, 70.0, 69.0, 72.0), ("b", 2, 8, 80.0, 80.0, 80.0)]
    table = pd.DataFrame(rows, columns=["task", "layer", "dim", "spearman", "low", "high"])
    # layer 1: a is 55 with reach 3 down and 2 up, b is 40 with 4 and 1.5; two tasks: root of the squares' sum over 2
    ax = plots.curves({"x": table}, axes(), over="layer")
    assert ax.lines[0].get_ydata().tolist() == [47.5, 75.0]
    band = ax.collections[0].get_paths()[0].vertices
    ends = {(x, round(y, 6)) for x, y in band}
    assert {(0.0, 45.0), (0.0, 48.75), (1.0, 74.5), (1.0, 76.0)} <= ends
    assert not plots.curves({"x": GRID}, axes(), over="layer").collections  # no intervals, no band


def test_curves_of_grids_with_other_layers_stand_at_their_own_layers():
    ax = plots.curves({"x": GRID, "y": GRID[GRID["layer"] != 2]}, axes(), over="layer")
    assert ax.lines[1].get_xdata().tolist() == [0, 2]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "3"]
    with pytest.raises(ValueError, match="over is 'task': it must be layer or dim"):
        plots.curves({"x": GRID}, axes(), over="task")


def test_differences_are_hollow_where_the_interval_or_a_seed_says_otherwise():
    rows = [
        ("sure", 1.0, 0.5, 1.5, [0.8, 1.2]),
        ("a seed", 1.0, 0.5, 1.5, [-0.1, 2.1]),
        ("pairs", 0.1, -1.0, 1.2, [0.1]),
    ]
    table = pd.DataFrame(rows, columns=["label", "difference", "low", "high", "seeds"])
    ax = plots.difference_dots(table, axes())
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() for dot in dots] == ["#0072B2", "white", "white"]
    assert [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "|"] == [row[-1] for row in rows]
    without = plots.difference_dots(table.drop(columns="seeds"), axes())
    assert [d.get_markerfacecolor() for d in without.lines if d.get_marker() == "o"] == ["#0072B2", "#0072B2", "white"]


def test_a_model_and_a_term_look_the_same_under_all_their_names():
    for names in (["2dmse", "2dmse (3 seeds)", "after 45 steps of 2dmse", "2dmse, d = 64"], ["untouched", "before"]):
        assert len({tuple(model_style(name, place).values()) for place, name in enumerate(names)}) == 1
    assert len({model_style(name)["color"] for name in ("untouched", "full", "mrl", "2dmse", "grid", "st2d")}) == 6
    assert model_style("mine", 0) != model_style("yours", 1)
    dims = ["last_8", "last_64", "last_384"]
    assert term_style("last_384", dims) == term_style("last_full", ["last_full"])
    assert len({str(term_style(name, dims)["color"]) for name in dims}) == 3


def test_lines_carry_their_names_at_their_ends_apart_from_each_other():
    tables = {name: GRID.assign(spearman=GRID["spearman"] + i) for i, name in enumerate(("full", "mrl", "2dmse"))}
    ax = plots.curves(tables, axes())
    names = {text.get_text(): text for text in ax.texts}
    places = [names[name].get_position()[1] for name in tables]
    low, high = ax.get_ylim()
    assert ax.get_legend() is None
    assert all(b - a >= 0.99 * LABEL * (high - low) for a, b in itertools.pairwise(places))
    assert [names[name].get_color() for name in tables] == [line.get_color() for line in ax.get_lines()]
    same = plots.curves({"full": GRID, "mrl": GRID}, axes())
    names = [text.get_text() for text in same.get_legend().get_texts()]
    assert names == ["full", "mrl"]  # they meet: no room at their ends


def test_the_idea_marks_the_layers_that_run_and_the_coordinates_that_are_kept():
    ax = plots.idea(axes(), layers=4, dim=16, cell=(2, 4))
    boxes = [
        (patch.get_xy(), patch.get_width(), to_hex(patch.get_facecolor()))
        for patch in ax.patches
        if hasattr(patch, "get_xy")
    ]
    slices = [(place, width) for place, width, colour in boxes if colour == "#0072b2"]
    assert slices == [((3, 2), 6.0 * 4 / 16)]  # layer 2, to scale
    assert sum(colour == "#cfe3f1" for *_, colour in boxes) == 2
    with pytest.raises(ValueError, match="cell"):
        plots.idea(axes(), layers=4, dim=16, cell=(5, 4))


def test_rates_of_close_points_do_not_cover_each_other():
    rates = (1e-4, 2e-4, 4e-4, 8e-4)
    near = pd.DataFrame({"lr": rates, "seed": 0, "below": [72, 72.5, 72.5, 72.2], "full": [80.5, 80.5, 80.4, 80.3]})
    far = pd.DataFrame({"lr": [0.0], "seed": 0, "below": [53.0], "full": [74.0]})
    figure, ax = plt.subplots(figsize=(8.4, 5.0), layout="constrained")
    plots.tradeoff({"untouched": far, "grid": near}, ax)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert [text.get_text() for text in ax.texts] == ["0.0001", "0.0008"]  # the ends of the curve
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    plt.close(figure)


def test_what_steps_drew_is_no_loss_term():
    history = pd.DataFrame(
        {"step": [1, 2], "loss": [3.0, 2.0], "lr": 1e-4, "grad_norm": 1.0, "layer": [1, 3], "width": [8.0, np.nan],
         "last": [2.0, 1.5], "off": 0.0}
    )  # fmt: skip
    assert grids.loss_terms(history) == ["last", "off"]


def test_every_number_stands_out_from_the_colour_of_its_cell():
    def contrast(one, other):  # WCAG 2.2
        low, high = sorted((relative_luminance(one), relative_luminance(other)))
        return (high + 0.05) / (low + 0.05)

    rows = [(n, d, 10 * n + d / 8) for n in range(1, 7) for d in (8, 16, 24, 32)]
    ax = plots.heatmap(pd.DataFrame(rows, columns=["layer", "dim", "spearman"]), plt.figure().add_subplot())
    colours = ax.collections[0].get_facecolors()
    assert len(ax.texts) == len(colours) == 24
    assert all(contrast(colour, number.get_color()) > 4.5 for colour, number in zip(colours, ax.texts, strict=True))


def test_a_picture_names_every_metric_that_its_scores_are_of():
    grid = pd.DataFrame({"task": ["a", "b"], "layer": 1, "dim": 8, "spearman": [80.0, 20.0]})
    mixed, area = grid.assign(metric=["spearman", "ndcg_at_10"]), grid.assign(metric="auc")
    bars = {"auc x 100": [area, area], "ndcg_at_10, Spearman x 100": [mixed], "auc, Spearman x 100": [grid, area]}
    for label, tables in bars.items():
        axes = plots.heatmaps({str(i): table for i, table in enumerate(tables)})
        assert axes[0].figure.axes[-1].get_ylabel() == label
    assert plots.curves({"m": area}, plt.figure().add_subplot()).get_ylabel() == "auc x 100"


def test_a_mean_has_no_band_where_one_of_its_tasks_has_no_interval():
    grid = pd.DataFrame({"task": ["a", "b"], "layer": 1, "dim": 8, "spearman": [60.0, 40.0]})
    known = interval(grid.assign(low=[58.0, 38.0], high=[62.0, 42.0]), "layer").iloc[0]
    assert (known["low"], known["high"]) == pytest.approx((50 - 2**0.5, 50 + 2**0.5))
    half = interval(grid.assign(low=[58.0, np.nan], high=[62.0, np.nan]), "layer").iloc[0]
    assert half["spearman"] == 50
    assert np.isnan([half["low"], half["high"]]).all()
