import io
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import DIM, LAYERS, sentences, tiny_encoder
from matplotlib import pyplot as plt

from twodmse import Encoder
from twodmse.data.sets import TextSet
from twodmse.encoder.storage import Layout
from twodmse.evaluation.grid import pairs_grid
from twodmse.widgets import (
    BringYourOwn,
    Grid,
    Ranking,
    Replay,
    Scatter,
    SideBySide,
    TextMap,
    TwoSentences,
    WhyFlip,
    cells,
    drawing,
    link_cells,
    static,
    timeline,
)

matplotlib.use("Agg")
FIRST, SECOND = "a man plays in the park", "two big dog runs"
# Two layers and two dims: at cell (2, 2) the order is b, a, c; at cell (1, 1) it is a, c, b.
BY_HAND = np.zeros((3, 3, 2))
BY_HAND[2, :, 1] = 0.5, 0.9, 0.1
BY_HAND[1, :, 0] = 0.8, -0.2, 0.3


@pytest.fixture
def models():
    return {"before": tiny_encoder(), "after": tiny_encoder("mpnet")}


@pytest.fixture
def passes(monkeypatch):
    """The texts of every encoding pass."""
    found, states = [], Encoder.states

    def counted(self, texts, *rest, **options):
        found.append(list(texts))
        return states(self, texts, *rest, **options)

    monkeypatch.setattr(Encoder, "states", counted)
    return found


def parts(html: str, name: str) -> list[ET.Element]:
    """The elements of a class in a widget's HTML."""
    root = ET.fromstring(html.replace("&ensp;", " "))
    return [e for e in root.iter() if name in e.get("class", "").split()]


def words(html: str, name: str) -> list[str]:
    return ["".join(e.itertext()) for e in parts(html, name)]


def cosine(encoder, texts, layer, dim):
    first, second = encoder.encode(texts, layer, dim).astype(np.float64)
    return float(first @ second)


# --- the numbers


def test_texts_are_encoded_once_a_model_and_keep_their_order(models, passes):
    states_of = cells.StatesOf(models)
    first = states_of(["a man", "a dog", "a man"])
    again = states_of(["a dog", "red house", "a man"])
    assert passes == [["a man", "a dog"]] * 2 + [["red house"]] * 2
    assert first["before"].shape == (LAYERS + 1, 3, DIM)
    np.testing.assert_array_equal(first["after"][:, 0], again["after"][:, 2])
    np.testing.assert_array_equal(first["after"][:, 1], again["after"][:, 0])
    np.testing.assert_allclose(again["before"], models["before"].states(["a dog", "red house", "a man"]), atol=1e-5)


def test_models_of_different_shape_are_refused(models):
    with pytest.raises(ValueError, match="after: 3 layers x 32 dims"):
        cells.StatesOf({"before": tiny_encoder(), "after": tiny_encoder(layers=3)})
    with pytest.raises(ValueError, match="got none"):
        cells.StatesOf({})


def test_all_cosines_are_those_of_every_cell(encoder, texts):
    states = encoder.states(texts)
    found = cells.all_cosines(states, [0, 2], [1, 3])
    assert found.shape == (LAYERS + 1, 2, DIM)
    for layer in range(1, LAYERS + 1):
        for dim in (1, 2, 7, DIM):
            vectors = encoder.encode(texts, layer, dim)
            wanted = [vectors[0] @ vectors[1], vectors[2] @ vectors[3]]
            np.testing.assert_allclose(found[layer, :, dim - 1], wanted, atol=1e-5)
            np.testing.assert_allclose(cells.cosines_at(states, [0, 2], [1, 3], layer, dim), wanted, atol=1e-5)


def test_places_give_equal_cosines_in_their_order():
    assert cells.places(np.array([0.2, 0.9, 0.2, 0.5])).tolist() == [3, 1, 4, 2]


def test_ranking_by_hand():
    table = cells.ranking(BY_HAND, ["a", "b", "c"], layer=1, dim=1)
    assert table["sentence"].tolist() == ["a", "c", "b"]
    assert table["place"].tolist() == [1, 2, 3]
    assert table["change"].tolist() == [1, 1, -2]  # a was second, c third, b first
    assert table["cosine"].tolist() == [0.8, 0.3, -0.2]
    assert cells.ranking(BY_HAND, ["a", "b", "c"], layer=2, dim=2)["change"].tolist() == [0, 0, 0]


def test_spearman_by_hand():
    assert cells.spearman(np.array([0.1, 0.4, 0.2]), np.array([0, 5, 1])) == pytest.approx(100)
    assert cells.spearman(np.array([0.1, 0.4, 0.2]), np.array([5, 0, 1])) == pytest.approx(-100)
    assert cells.spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 4, 3])) == pytest.approx(80)  # 1 - 6*2/60


def test_the_dim_axis_gives_each_doubling_the_same_width():
    edges = cells.log_edges(64)
    middles = (edges[1:] + edges[:-1]) / 2
    assert edges.shape == (65,)
    assert edges[0] == 0
    assert (np.diff(edges) > 0).all()
    assert edges[8] - edges[7] == pytest.approx(np.log2(np.sqrt(8 * 9) / np.sqrt(7 * 8)))
    assert middles[63] - middles[31] == pytest.approx(1, abs=1e-3)
    assert [cells.marked_dims(d) for d in (1, 3, 32, 384)] == [
        [1], [1, 3], [1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32, 64, 128, 384],
    ]  # fmt: skip


# --- the drawings


def test_heatmap_rows_are_covered_by_their_colours():
    cosines = np.vstack([np.zeros(8), np.linspace(-1, 1, 8), np.full(8, 0.5)])  # layers 0, 1, 2
    root = ET.fromstring(f"<svg>{drawing.heat_base(cosines)}</svg>")
    rows = {}
    for path in root.iter("path"):
        for run in path.get("d").split("M")[1:]:
            start, y, end = run.replace("H", " ").split()
            rows.setdefault(float(y), []).append((float(start), float(end), path.get("stroke")))
    rows = {y: sorted(runs) for y, runs in rows.items()}
    low, high = rows[drawing.row_middle(2, 1)], rows[drawing.row_middle(2, 2)]
    assert [a[1] for a in low[:-1]] == [b[0] for b in low[1:]]  # no gap
    assert (low[0][0], low[-1][1]) == (high[0][0], high[-1][1])
    assert len(high) == 1  # one value, one run
    assert low[0][2] == matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](0.0))
    assert low[-1][2] == matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](1.0))
    assert drawing.row_middle(2, 2) < drawing.row_middle(2, 1)  # the deepest layer is on top


def test_shades_are_clipped_at_the_ends_of_the_scale():
    assert drawing.shade(np.array([-3, 0, 0.5, 1, 7]), 0, 1).tolist() == [0, 0, 32, 63, 63]


def test_numbers_on_colours_are_legible():
    colours, inks = drawing.palette()
    assert inks[0] == "#fff"
    assert inks[-1] == "#000"
    for colour, ink in zip(colours, inks, strict=True):
        light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (
            [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in matplotlib.colors.to_rgb(c)]
            for c in (colour, ink)
        )]  # fmt: skip
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 4.5  # WCAG's contrast for small text


def test_arrows_say_how_far_in_words_too():
    assert "▲ 3" in drawing.arrow(3)
    assert "up 3" in drawing.arrow(3)
    assert "▼ 2" in drawing.arrow(-2)
    assert "down 2" in drawing.arrow(-2)
    assert "same place" in drawing.arrow(0)


def test_nice_tops():
    assert [timeline.nice_top(v) for v in (5.2, 0.9, 1.0, 33, 900, 0)] == [6, 1, 1, 40, 1000, 1]


# --- the widgets


def test_two_sentences_show_the_chosen_cell_of_both_models_without_a_model_call(models, passes):
    view = TwoSentences(models, FIRST, SECOND, layer=1, dim=3)
    assert passes == [[FIRST, SECOND]] * 2
    for layer, dim in ((1, 3), (2, 3), (2, 4), (LAYERS, DIM), (3, 1)):
        view.layer.value, view.dim.value = layer, dim
        wanted = [f"{cosine(encoder, [FIRST, SECOND], layer, dim):.3f}" for encoder in models.values()]
        marks = parts(view.picture.value, "twodmse-mark")
        assert words(view.picture.value, "twodmse-number") == wanted
        assert [m.attrib["data-cosine"] for m in marks] == wanted
        assert {(m.get("data-layer"), m.get("data-dim")) for m in marks} == {(str(layer), str(dim))}
    assert len(passes) == 2


def test_the_mark_lies_on_its_cell(models):
    view = TwoSentences(models, FIRST, SECOND, layer=2, dim=8)
    box = parts(view.picture.value, "twodmse-mark")[0].find("rect")
    edges = drawing.LEFT + drawing.OCTAVE * cells.log_edges(DIM)
    middle = float(box.get("x")) + float(box.get("width")) / 2
    assert edges[7] <= middle <= edges[8]
    assert abs(float(box.get("y")) + float(box.get("height")) / 2 - drawing.row_middle(LAYERS, 2)) < 1


def test_typing_encodes_the_new_text_once(models, passes):
    view = TwoSentences(models, FIRST, SECOND)
    view.first.value = "three small cat"
    assert passes[2:] == [["three small cat"]] * 2
    wanted = [f"{cosine(encoder, ['three small cat', SECOND], None, None):.3f}" for encoder in models.values()]
    assert words(view.picture.value, "twodmse-number") == wanted
    view.first.value = FIRST
    assert len(passes) == 4


def test_an_empty_text_keeps_the_picture_and_says_so(models):
    view = TwoSentences(models, FIRST, SECOND)
    before = view.picture.value
    view.second.value = "  "
    assert view.picture.value == before
    assert "at least one word" in view.message.value
    assert "  " not in view.static().get_suptitle()
    view.second.value = "a cat"
    assert view.message.value == ""
    assert view.picture.value != before


def test_the_ranking_follows_the_sliders(models, passes):
    listed = sentences(8, seed=5)
    view = Ranking(models, FIRST, listed, layer=LAYERS, dim=DIM)
    assert passes == [[FIRST, *listed]] * 2
    assert {row.get("data-change") for row in parts(view.picture.value, "twodmse-row")} == {"0"}
    view.layer.value, view.dim.value = 1, 5
    shown = words(view.picture.value, "twodmse-sentence")
    changes = [int(row.get("data-change")) for row in parts(view.picture.value, "twodmse-row")]
    wanted, moved = [], []
    for encoder in models.values():
        orders = []
        for cell in ((1, 5), (LAYERS, DIM)):
            vectors = encoder.encode([FIRST, *listed], *cell)
            orders.append([listed[i] for i in np.argsort(-(vectors[1:] @ vectors[0]))])
        wanted += orders[0]
        moved += [orders[1].index(s) - i for i, s in enumerate(orders[0])]
    assert shown == wanted
    assert changes == moved
    assert any(moved)
    told = words(view.picture.value, "twodmse-moved")
    assert told[0].startswith(f"{sum(m != 0 for m in moved[:8])} of 8 moved")
    assert len(passes) == 2


def test_the_ranking_says_where_the_first_went():
    html = drawing.ranking_table(cells.ranking(BY_HAND, ["a", "b", "c"], 1, 1))
    assert "3 of 3 moved; the first at full size is at place 3 here" in html


def test_sentences_are_text_not_markup(models):
    view = Ranking(models, "a man", ["<b>dog</b> & cat", "red"])
    assert "<b>dog</b> & cat" in words(view.picture.value, "twodmse-sentence")


def test_the_scatter_gives_the_spearman_of_the_grid(models, pairs):
    view = Scatter(models, pairs, layer=2, dim=16)
    wanted = []
    for encoder in models.values():
        grid = pairs_grid(encoder, pairs, [16, DIM], [2, LAYERS], 0).set_index(["layer", "dim"])["spearman"]
        wanted.append(f"{grid[2, 16]:.2f}")
        assert f"(full size: {grid[LAYERS, DIM]:.2f})" in view.picture.value
    assert words(view.picture.value, "twodmse-number") == wanted
    points = parts(view.picture.value, "twodmse-points")
    assert [p.get("d").count("M") for p in points] == [len(pairs), len(pairs)]


def test_a_scatter_needs_scores(models, triplets):
    with pytest.raises(ValueError, match="tiny has no scores"):
        Scatter(models, triplets)


def test_sliders_cover_every_cell_and_are_named(models):
    view = TwoSentences(models, FIRST, SECOND)
    assert (view.layer.min, view.layer.max, view.layer.step, view.layer.description) == (1, LAYERS, 1, "layer")
    assert (view.dim.min, view.dim.max, view.dim.step, view.dim_slider.description) == (1, DIM, 1, "dim")
    assert view.cell == (LAYERS, DIM)
    assert "twodmse-layer" in view.layer._dom_classes
    assert "twodmse-twosentences" in view.box._dom_classes
    with pytest.raises(ValueError, match="dim 33 is out of range"):
        TwoSentences(models, FIRST, SECOND, dim=DIM + 1)


GRIDS = pd.DataFrame(
    [(step, task, n, d, value + 2 * (task == "b"))
     for task in "ab" for step, value in ((0, 10.0), (2, 20.0), (4, 40.0)) for n in (1, 2) for d in (8, 16)],
    columns=["step", "task", "layer", "dim", "spearman"],
)  # fmt: skip
HISTORY = pd.DataFrame({"step": [1, 2, 3, 4], "loss": 0.0, "lr": 0.1, "layer": 1, "dim": 8, "pull": [4.0, 2, 1, 3]})


def test_the_replay_by_hand():
    view = Replay(GRIDS, HISTORY, smooth=2)
    assert view.step.options == (0, 2, 4)
    assert words(view.picture.value, "twodmse-number") == ["41.0"]  # mean of tasks a and b
    assert "(+30.0 since step 0)" in view.picture.value
    assert words(view.picture.value, "twodmse-term") == ["2.000"]  # mean of steps 3 and 4
    view.step.value = 2
    assert words(view.picture.value, "twodmse-number") == ["21.0"]
    assert words(view.picture.value, "twodmse-term") == ["3.000"]
    assert [e.get("data-step") for e in parts(view.picture.value, "twodmse-grid")] == ["2"]
    view.step.value = 0
    assert words(view.picture.value, "twodmse-term") == ["–"]


def test_tables_that_cannot_be_replayed_are_refused():
    with pytest.raises(ValueError, match="missing spearman"):
        Replay(GRIDS.drop(columns="spearman"), HISTORY)
    with pytest.raises(ValueError, match="no rows"):
        Replay(GRIDS.iloc[:0], HISTORY)
    with pytest.raises(ValueError, match="step 4 lacks cells of layer 2"):
        Replay(GRIDS[~((GRIDS["step"] == 4) & (GRIDS["layer"] == 2) & (GRIDS["dim"] == 16))], HISTORY)
    with pytest.raises(ValueError, match="one column a loss term"):
        Replay(GRIDS, HISTORY.drop(columns="pull"))
    with pytest.raises(ValueError, match="its column 'note' holds no numbers, leave it out"):
        Replay(GRIDS, HISTORY.assign(note="warm"))


# --- the same as figures


def texts_of(figure) -> str:
    axes = [t.get_text() for ax in figure.get_axes() for t in [ax.title, *ax.texts]]
    return "\n".join([figure.get_suptitle(), *axes])


def test_static_figures_hold_the_same_numbers_and_leave_nothing_open(models, pairs):
    before = dict(plt.rcParams)
    pair = TwoSentences(models, FIRST, SECOND, layer=2, dim=8)
    rank = Ranking(models, FIRST, sentences(5, seed=3), layer=1, dim=3)
    cloud = Scatter(models, pairs, layer=1, dim=4)
    film = Replay(GRIDS, HISTORY)
    for view in (pair, rank, cloud, film):
        shown = texts_of(view.static())
        assert all(number in shown for number in words(view.picture.value, "twodmse-number"))
    shown = texts_of(rank.static())
    assert all(f"{c:.3f}" in shown for table in rank.rankings().values() for c in table["cosine"])
    assert FIRST in shown
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


PATH = "/home/lecturer/courses/2026/embedding-models/notebooks/runs/quickstart-with-a-long-name/2dmse/model"
WIDE_TEXTS = [" ".join(sentences(12, seed=3)), "日本語の文章はここにあります。" * 9, "W" * 300, PATH * 3]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 2])
def test_titles_of_static_figures_stay_inside_and_boxes_are_drawn_without_a_warning(count):
    models = {PATH + str(i): tiny_encoder() for i in range(count)}
    pairs = TextSet(PATH * 2, scored_pairs().columns, scored_pairs().gold)
    figures = [Scatter(models, pairs).static()]
    figures += [TwoSentences(models, text, text + " a").static() for text in WIDE_TEXTS]
    figures += [Ranking(models, text, [*WIDE_TEXTS, "🦜🎉 a dog"]).static() for text in WIDE_TEXTS]
    for figure in figures:
        figure.savefig(io.BytesIO())
        figure.savefig(io.BytesIO(), bbox_inches="tight")  # as a notebook does
        for made in [*figure.texts, *(text for ax in figure.axes for text in [ax.title, *ax.texts])]:
            box = made.get_window_extent()
            assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, made.get_text()
        assert "…" in figure.get_suptitle()


def test_a_name_or_text_that_fits_is_whole_and_one_without_spaces_is_cut_not_dropped():
    figure = TwoSentences({"a" * 20: tiny_encoder()}, FIRST, "b" * 200).static()
    assert figure.get_suptitle().startswith(f"“{FIRST}”\n“bbbbbbbbbb")
    assert figure.axes[0].get_title().startswith("a" * 20 + "\n")
    broken = static.fitted("one two three four five", static.width_of("one two three"), 2)
    assert broken == "one two three\nfour five"


def test_letters_that_the_usual_font_lacks_are_taken_from_an_installed_one_that_has_them():
    brace = "\u23de"  # of STIX, which comes with matplotlib, and not of DejaVu Sans
    shown = Ranking(tiny_encoder(), FIRST, [f"a {brace}", "b"]).static().findobj(matplotlib.text.Text)
    (families,) = {tuple(text.get_fontfamily()) for text in shown}
    assert (len(families), families[0]) == (2, "sans-serif")
    assert ord(brace) in static.letters(static.findfont(families[1]))
    plain = TwoSentences(tiny_encoder(), FIRST, SECOND).static().findobj(matplotlib.text.Text)
    assert {tuple(text.get_fontfamily()) for text in plain} == {("sans-serif",)}


# --- the scale of colours and of dims


def test_the_scale_of_cosines_tells_minus_one_from_zero_and_rises():
    shares = drawing.cosine_share(np.linspace(-1, 1, 41))
    assert (np.diff(shares) > 0).all()
    assert drawing.cosine_share(np.array([-1, 0, 1])).tolist() == [0, 0.25, 1]
    colours = drawing.palette()[0]
    assert len({colours[k] for k in drawing.cosine_shade(np.array([-1, -0.5, 0, 0.5, 1]))}) == 5
    assert drawing.signed_bar(-0.5) != drawing.signed_bar(0.0) != drawing.signed_bar(0.5)
    html = drawing.heat_base(np.tile([-1.0, 0.0, 1.0, 0.5], (3, 1)))
    assert "−1" in html
    assert "≤" not in html


def test_the_dim_slider_gives_each_doubling_the_same_way_and_every_dim_can_be_had(models):
    view = TwoSentences(models, FIRST, SECOND, dim=4)
    handle = view.dim_slider
    assert (handle.base, handle.min, handle.max, handle.step) == (2, 0, np.log2(DIM), 0.125)
    assert handle.value == pytest.approx(4)
    handle.value = 16.4  # dragged
    assert view.dim.value == 16
    for dim in range(1, DIM + 1):
        view.dim.value = dim  # typed
        assert view.cell == (LAYERS, dim)
        assert round(handle.value) == dim
    view.dim.value = 30
    handle.value = 2**4.875  # where the browser puts the handle: the nearest eighth
    assert view.dim.value == 30
    for dim, echo in ((16, 2 ** (4 + 1e-9)), (30, 2**4.875)):  # what the browser says as a widget is first drawn
        fresh = TwoSentences(models, FIRST, SECOND, dim=dim)
        fresh.dim_slider.value = echo
        assert fresh.dim.value == dim
    view.dim.value = 1
    reached = []
    for _ in range(40):  # an arrow key goes to the next eighth of a doubling from the nearest one
        handle.value = min(2 ** (round(np.log2(handle.value) * 8) / 8 + 1 / 8), DIM)
        reached.append(view.dim.value)
    assert reached[:8] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert reached[-1] == DIM
    assert all(b > a for a, b in pairwise(reached) if a < DIM)


def test_texts_without_a_known_word_are_named(models):
    view = TwoSentences(models, FIRST, "😀")
    assert "“😀” holds no word that the vocabulary of before and after knows" in view.message.value
    view.second.value = SECOND
    assert view.message.value == ""
    assert "[UNK]" in Ranking(models, "<🎉>", [FIRST, SECOND, "a <b"]).message.value
    assert "&lt;🎉&gt;" in Ranking(models, "<🎉>", [FIRST, SECOND]).message.value


def test_texts_that_are_cut_are_named_with_the_tokens_that_are_read(models):
    whole, cut, other = "a man " * 15, "a man " * 15 + "runs", "a man " * 15 + "eats"  # 32, 33 and 33 tokens
    view = TwoSentences(models, whole, SECOND)
    assert view.message.value == ""
    view.first.value = cut
    told = f"“{cut[:60]} …” is longer than the 32 tokens that before and after read: the rest has no part"
    assert told in view.message.value
    both = f"“{cut[:60]} …” and “{other[:60]} …” are longer than the 32 tokens that before and after read"
    pairs = TextSet("cut", ((cut, "a", "a man"), (other, "the", "big")), np.array([1.0, 2, 3]))
    for made in (
        TwoSentences(models, cut, other),
        WhyFlip(models, cut, other),
        Ranking(models, FIRST, [cut, whole, other]),
        TextMap(models, [FIRST, cut, other]),
        Scatter(models, pairs),
        Grid(models, pairs),
    ):
        assert both in made.message.value, type(made)
    long = {"long": Encoder(tiny_encoder().backbone.model, tiny_encoder().tokenizer, Layout("mean", 48))}
    assert "the 32 tokens that after reads" in TwoSentences(long | {"after": models["after"]}, cut, FIRST).message.value
    assert "the 32 tokens that after reads" in SideBySide(long | {"after": models["after"]}, cut, other).message.value
    many = Ranking(models, FIRST, [cut + f" {word}" for word in ["big", "red", "blue", "house", "park"]])
    assert "and 2 more are longer than" in many.message.value


# --- the grid that can be clicked, and the views that follow


def test_a_click_moves_the_grid_and_every_view_tied_to_it(models, pairs):
    grid = Grid(models, pairs, dims=[2, 16, DIM])
    other = TwoSentences(models, FIRST, SECOND)
    link_cells(grid, other)
    scores = {name: pairs_grid(e, pairs, [2, 16, DIM], range(1, LAYERS + 1), 0) for name, e in models.items()}
    for name, made in grid.buttons.items():
        assert len(made.buttons) == 3 * LAYERS
        for layer, dim, value in scores[name][["layer", "dim", "spearman"]].itertuples(index=False):
            assert made.buttons[layer, dim].description == f"{value:.1f}"
        assert made.marked is made.buttons[LAYERS, DIM]
    grid.buttons["after"].buttons[2, 16].click()
    assert grid.cell == other.cell == (2, 16)
    assert {(m.get("data-layer"), m.get("data-dim")) for m in parts(other.picture.value, "twodmse-mark")} == {
        ("2", "16")
    }
    assert all(made.marked is made.buttons[2, 16] for made in grid.buttons.values())
    assert "twodmse-chosen" not in grid.buttons["after"].buttons[LAYERS, DIM]._dom_classes
    wanted = [f"{s.set_index(['layer', 'dim'])['spearman'][2, 16]:.2f}" for s in scores.values()]
    assert words(grid.picture.value, "twodmse-number") == wanted
    assert "64 bytes a vector (all dims: 128)" in words(grid.picture.value, "twodmse-cost")[0]
    assert len(parts(grid.picture.value, "twodmse-worst")) == 10
    other.dim.value = 7
    assert grid.cell == (2, 7)
    assert all(made.marked is None for made in grid.buttons.values())
    with pytest.raises(ValueError, match="3 layers x 32 dims"):
        link_cells(grid, TwoSentences({"short": tiny_encoder(layers=3)}, FIRST, SECOND))


def test_a_cell_whose_cosines_are_all_one_is_a_dash_and_scores_that_are_all_one_are_refused(encoder):
    pairs = TextSet("three", (tuple(sentences(3, seed=2)), tuple(sentences(3, seed=3))), np.array([1.0, 2, 3]))
    made = Grid({"tiny": encoder}, pairs, dims=[1, 2, DIM])
    grid = pairs_grid(encoder, pairs, [1, 2, DIM], range(1, LAYERS + 1), 0)
    assert grid["spearman"].isna().sum() == 3
    for layer, dim, value in grid[["layer", "dim", "spearman"]].itertuples(index=False):
        button = made.buttons["tiny"].buttons[layer, dim]
        assert button.description == ("–" if np.isnan(value) else f"{value:.1f}")
        assert (button.style.button_color is None) == np.isnan(value)
    colours = {b.style.button_color for b in made.buttons["tiny"].buttons.values()}
    assert {drawing.palette()[0][0], drawing.palette()[0][-1]} < colours  # the scale spans the scores that there are
    with pytest.raises(ValueError, match="its 3 scores are all 1, for which spearman is not defined"):
        Scatter({"tiny": encoder}, TextSet("flat", pairs.columns, np.ones(3)))


def test_worst_pairs_by_hand():
    pairs = TextSet("four", (("a", "b", "c", "d"), ("e", "f", "g", "h")), np.array([0.0, 1, 2, 3]))
    table = cells.worst_pairs(pairs, np.array([0.9, 0.1, 0.2, 0.3]), 2)
    assert table["first"].tolist() == ["a", "b"]
    assert table["off"].tolist() == [3, -1]  # the pair of the lowest score has the highest cosine


def test_times_are_of_every_layer(encoder):
    times = cells.layer_times(encoder, [FIRST, SECOND])
    assert list(times) == [1, 2, 3, 4]
    assert all(0 < t < 10_000 for t in times.values())


# --- why a cosine changes


def test_shares_of_both_cells_add_up_to_their_cosines(models):
    view = WhyFlip(models, FIRST, SECOND, layer=2, dim=8, other_layer=4, other_dim=16)
    for name, encoder in models.items():
        sums = np.nansum(view.coordinates(name), axis=1)
        wanted = [cosine(encoder, [FIRST, SECOND], *cell) for cell in ((2, 8), (4, 16))]
        np.testing.assert_allclose(sums, wanted, atol=1e-5)
        assert np.isnan(view.coordinates(name)[0, 8:]).all()
    shown = words(view.picture.value, "twodmse-number")
    assert shown == [f"{cosine(e, [FIRST, SECOND], 2, 8):.3f}" for e in models.values()]
    rows = ["".join(e.itertext()) for e in parts(view.picture.value, "twodmse-share")]
    numbers = [[float(n) for n in re.findall(r"[+-]\d\.\d{3}", row)] for row in rows[: len(rows) // 2]]
    listed = rows[:9]
    assert [bool(re.match(r"coordinate \d+|the other 24", row)) for row in listed] == [True] * 9
    for row, shown_shares in zip(listed[:8], numbers, strict=False):  # coordinates are counted from 0
        shares = view.coordinates(next(iter(models)))[:, int(re.match(r"coordinate (\d+)", row)[1])]
        assert shown_shares == pytest.approx(list(shares[~np.isnan(shares)]), abs=6e-4)
    for table, count in ((numbers[9:17], 8), (numbers[17:], 6)):  # the tokens of either sentence
        assert len(table) == count
        assert sum(n[0] for n in table) == pytest.approx(float(shown[0]), abs=0.005)
    view.other_dim.value = 4
    assert "beside layer 4, dim 4" in view.picture.value
    assert "not kept" in view.picture.value


# --- the map


def test_the_map_follows_the_cell_and_shows_every_text(models, passes):
    texts = sentences(9, seed=4)
    view = TextMap(models, texts, groups=list("aabbccddd"))
    assert len(passes) == 2
    before = [(p.get("data-x"), p.get("data-y")) for p in parts(view.picture.value, "twodmse-point")]
    assert len(before) == 18
    full = view.references["before"]
    assert before[0][0] == f"{full.points[0, 0] / full.spread:.4f}"
    view.layer.value = 2
    after = [(p.get("data-x"), p.get("data-y")) for p in parts(view.picture.value, "twodmse-point")]
    assert before != after
    assert len(passes) == 2
    with pytest.raises(ValueError, match="2 groups for 9 texts"):
        TextMap(models, texts, groups=["a", "b"])


# --- models of unlike shape


def test_unlike_models_stand_at_the_same_share(pairs):
    models = {"four": tiny_encoder(), "two": tiny_encoder("mpnet", layers=2)}
    view = SideBySide(models, FIRST, SECOND, pairs, depth=0.5, width=0.25)
    assert view.cells == {"four": (2, 8), "two": (1, 8)}
    wanted = [cosine(models["four"], [FIRST, SECOND], 2, 8), cosine(models["two"], [FIRST, SECOND], 1, 8)]
    assert words(view.picture.value, "twodmse-number")[::2] == [f"{value:.3f}" for value in wanted]
    grid = pairs_grid(models["two"], pairs, [8], [1], 0)
    assert words(view.picture.value, "twodmse-number")[3] == f"{grid['spearman'][0]:.2f}"
    view.depth.value, view.width.value = 1, 1
    assert view.cells == {"four": (4, 32), "two": (2, 32)}
    view.first.value = "three small cat"
    assert (
        words(view.picture.value, "twodmse-number")[0]
        == f"{cosine(models['four'], ['three small cat', SECOND], 4, 32):.3f}"
    )
    assert "🎉" in SideBySide(models, FIRST, "🎉").message.value
    with pytest.raises(ValueError, match="depth is 0"):
        SideBySide(models, FIRST, SECOND, depth=0)


# --- bring your own


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_encoder().save(tmp_path / "mine")
    return BringYourOwn("mine", sentences(6, seed=9), out="cut")


def test_own_sentences_are_scored_by_agreement_with_the_full_size(own):
    assert len(own.pairs) == 15
    table = own.grid.grids["mine"].stack()
    assert table[LAYERS, DIM] == pytest.approx(100)
    assert table.min() < 100
    left, right = own.pairs.columns
    vectors = own.encoder.encode(list(left)), own.encoder.encode(list(right))
    np.testing.assert_allclose(own.pairs.gold, (vectors[0] * vectors[1]).sum(axis=1), atol=1e-5)
    assert words(own.grid.picture.value, "twodmse-right") == [
        "no pair is out of place: the cosines rank them all as the full-size cosine does"
    ]
    assert "gold" not in own.grid.picture.value
    own.grid.choose(1, 8)
    heads = ["".join(e.itertext()) for e in ET.fromstring(own.grid.picture.value.replace("&ensp;", " ")).iter("th")]
    assert heads == ["worst pairs", "full-size cosine", "cosine", "texts"]
    assert "full-size cosine (0 to 1)" in own.grid.picture.value
    assert own.grid.static().axes[0].get_xlabel() == "full-size cosine (0 to 1)"
    assert not words(own.grid.picture.value, "twodmse-right")


def test_own_budget_gives_a_cell_and_the_cut_is_saved(own):
    own.max_bytes.value = 64
    own.find.click()
    layer, dim = own.grid.cell
    assert dim <= 16
    assert f"layer {layer}, dim {dim}" in own.best.value
    own.save.click()
    saved = Encoder.load("cut")
    assert (saved.num_layers, saved.dim) == (layer, dim)
    np.testing.assert_allclose(saved.encode([FIRST]), own.encoder.encode([FIRST], layer, dim), atol=1e-5)
    own.save.click()
    assert "cut" in own.message.value
    assert "exist" in own.message.value
    own.max_bytes.value = 1
    own.find.click()
    assert "no cell" in own.message.value


def test_what_cannot_be_loaded_leaves_no_grid_of_another_model_to_pick_from_or_save(own, tmp_path):
    tiny_encoder("mpnet", layers=2).save(tmp_path / "short")
    own.find.click()
    assert "Best within the budget" in own.best.value
    own.model.value, own.pasted.value = "short", "one sentence"
    own.score.click()
    assert own.place.children == ()
    assert own.best.value == ""
    for button in (own.find, own.save):
        own.message.value = ""
        button.click()
        assert "nothing is loaded yet" in own.message.value
    assert not (tmp_path / "cut").exists()
    own.pasted.value = "\n".join(sentences(6, seed=9))
    own.score.click()
    own.find.click()
    own.max_bytes.value = 1
    own.find.click()
    assert "no cell" in own.message.value
    assert own.best.value == ""


def test_a_model_that_was_replaced_under_its_name_is_loaded_anew(own, tmp_path):
    other = tiny_encoder("mpnet", layers=2)
    other.save(tmp_path / "mine", overwrite=True)
    own.score.click()
    assert own.encoder.num_layers == 2
    np.testing.assert_allclose(own.encoder.encode([FIRST]), other.encode([FIRST]), atol=1e-6)


def upload(own, name, rows):
    """Choose a file, as the browser does."""
    content, when = memoryview(rows.encode()), datetime(2024, 1, 1, tzinfo=UTC)
    own.file.value = ({"name": name, "type": "", "size": len(rows), "content": content, "last_modified": when},)


ROWS = "sentence1,sentence2,score\na man,a dog,1\na cat,a cat runs,4\nred house,blue park,2\n"


def test_what_was_given_last_is_scored_and_said(own):
    assert "the <b>6 lines</b> of the text box" in own.source.value
    assert own.remove.layout.display == "none"
    upload(own, "semi.csv", ROWS.replace(",", ";"))
    assert "the file <b>semi.csv</b>, not the text box" in own.source.value
    assert own.remove.layout.display is None
    own.score.click()
    assert own.message.value.startswith("<b>semi.csv, line 1: its columns are not delimited by")
    own.pasted.value += "\na dog"
    assert own.file.value == ()
    assert "the <b>7 lines</b> of the text box" in own.source.value
    own.score.click()
    assert "agreement with the full size: 21 pairs" in own.message.value
    upload(own, "my.csv", ROWS)
    own.score.click()
    assert "my.csv: 3 pairs" in own.message.value
    own.remove.click()
    own.score.click()
    assert "agreement with the full size: 21 pairs" in own.message.value
    own.pasted.value = ""
    assert own.source.value == ""
    upload(own, "my.csv", ROWS)
    own.pasted.value = "  "  # nothing is typed: the file stays
    assert "the file <b>my.csv</b>" in own.source.value
    for name, rows in (("a.txt", ROWS), ("b.csv", ""), ("c.jsonl", "{"), ("d.csv", "sentence1,sentence2\na,b\n")):
        upload(own, name, rows)
        own.score.click()
        assert own.message.value.startswith(f"<b>{name}")
        assert "/" not in own.message.value.replace("</b>", "")


def test_own_file_and_pasted_pairs_are_read(own):
    upload(own, "my.csv", ROWS)
    own.score.click()
    assert "my.csv: 3 pairs" in own.message.value
    assert own.pairs.gold.tolist() == [1, 4, 2]
    own.file.value = ()
    own.pasted.value = "a man\ta dog\t1\na cat\ta cat runs\t4.5\nred house\tblue park\t2"
    own.score.click()
    assert own.pairs.gold.tolist() == [1, 4.5, 2]
    for wrong, told in (
        ("a man\ta dog\tmuch\n" * 3, "line 1 is"),
        ("a man\ta dog\t1", "there are 1 pairs"),
        ("a man\na dog", "there are 2 different sentences"),
        ("", "there are no texts yet"),
        ("a man\ta dog\t1\n" * 3, "its 3 scores are all 1"),
    ):
        own.pasted.value = wrong
        own.score.click()
        assert told in own.message.value
    own.model.value = "nowhere"
    own.score.click()
    assert "no model" in own.message.value


def test_a_replay_is_saved_as_a_gif_of_one_frame_a_step(tmp_path):
    from PIL import Image

    Replay(GRIDS, HISTORY, smooth=2).save(tmp_path / "replay.gif", seconds=0.5)
    with pytest.raises(FileExistsError, match=r"replay\.gif exists"):
        Replay(GRIDS, HISTORY, smooth=2).save(tmp_path / "replay.gif")
    with pytest.raises(ValueError, match=r"ends in \.gif, not .*replay\.mp4"):
        Replay(GRIDS, HISTORY, smooth=2).save(tmp_path / "replay.mp4")
    with Image.open(tmp_path / "replay.gif") as film:
        assert film.n_frames == 3
        assert film.info["duration"] == 500


# ---------------------------------------------------------------- what a reader may give instead


def scored_pairs():
    return TextSet("few", (tuple(sentences(6)), tuple(sentences(6, seed=1))), np.arange(6.0))


@pytest.mark.parametrize("models", [["a"], "bundled", None, {"a": "bundled"}, pd.DataFrame({"a": [1]})])
def test_what_are_no_encoders_by_name_is_refused(models):
    for view in (
        lambda: TwoSentences(models, "a man", "a dog"),
        lambda: Grid(models, scored_pairs()),
        lambda: SideBySide(models, "a man", "a dog"),
    ):
        with pytest.raises(ValueError, match="give a dictionary of encoders by name, or one encoder"):
            view()


def test_one_encoder_alone_and_pairs_of_any_kind_are_taken():
    encoder, pairs = tiny_encoder(), scored_pairs()
    table = pd.DataFrame({"sentence1": pairs.columns[0], "sentence2": pairs.columns[1], "score": pairs.gold})
    assert list(Scatter(encoder, table).points(2, 8)) == ["model"]
    np.testing.assert_array_equal(
        Scatter(encoder, table).points(2, 8)["model"], Scatter({"a": encoder}, pairs).points(2, 8)["a"]
    )


def test_texts_and_numbers_that_are_none_are_refused():
    models = {"a": tiny_encoder()}
    with pytest.raises(ValueError, match="texts must be a list of texts, not one text"):
        Ranking(models, "a man", "a dog")
    with pytest.raises(ValueError, match="texts is empty"):
        Ranking(models, "a man", [])
    with pytest.raises(ValueError, match="texts must be a list"):
        TextMap(models, "abc")
    for count in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=f"worst is {count}: give a whole number from 1 up"):
            Grid(models, scored_pairs(), worst=count)
        with pytest.raises(ValueError, match=f"count is {count}: give a whole number from 1 up"):
            WhyFlip(models, "a man", "a dog", count=count)
    with pytest.raises(ValueError, match="smooth is 0: give a whole number from 1 up"):
        cells.smoothed_terms(pd.DataFrame({"step": [1], "base": [2.0]}), 0)
    grid = Grid(models, scored_pairs())
    with pytest.raises(ValueError, match="layer 9 is out of range"):
        grid.choose(9, 8)


def test_groups_of_a_map_may_be_numbers():
    view = TextMap({"a": tiny_encoder()}, ["a man", "a dog", "red house", "blue park"], [1, 1, 2, 2])
    assert view.groups == ["1", "1", "2", "2"]


def test_what_is_no_list_of_sentences_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_encoder().save("mine")
    with pytest.raises(ValueError, match="texts is a table"):
        BringYourOwn("mine", pd.DataFrame({"sentence1": ["a"], "sentence2": ["b"], "score": [1.0]}))
    with pytest.raises(ValueError, match=r"a sentence is 'a\\nman': write it without line breaks and tabs"):
        BringYourOwn("mine", ["a\nman", "two", "three"])
    listed = [*sentences(4, seed=9), "a man\u2028runs"]
    assert BringYourOwn(tmp_path / "mine", listed).pairs.columns[1][-1] == listed[-1]


def test_settings_of_views_are_checked(models):
    texts = sentences(4)
    with pytest.raises(ValueError, match="groups is 3: give a list"):
        TextMap(models, texts, 3)
    with pytest.raises(ValueError, match="sentence 1 is 3: give a text"):
        TwoSentences(models, 3, SECOND)
    with pytest.raises(ValueError, match="groups is 'abcd': give a list"):
        TextMap(models, texts, "abcd")
    view = TextMap(models, texts)
    for given in ((view,), ([view, view],), (view, "view")):
        with pytest.raises(ValueError, match="give two or more views, one after the other"):
            link_cells(*given)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_step_of_a_film_takes_time(tmp_path, seconds):
    with pytest.raises(ValueError, match=r"seconds is .*: a step must stay for a time above 0"):
        Replay(GRIDS, HISTORY).save(tmp_path / "replay.gif", seconds=seconds)
    assert not any(tmp_path.iterdir())


def test_scores_below_0_lie_inside_the_scatter():
    assert drawing.gold_axis(np.array([0.0, 4.2])) == (0, 5)
    assert drawing.gold_axis(np.array([-0.5, 0.9])) == (-1, 1)
    page = drawing.scatter(np.array([-0.5, 0.9]), np.array([0.1, 0.2]), "label")
    assert "gold score (-1 to 1)" in page
    assert all(46 <= int(x) <= 446 for x in re.findall(r"M(-?\d+) -?\d+h0", page))
