"""The widgets of the other notebooks as their reader sees them, on small random models: clicked, typed into, moved."""

import re

import numpy as np
import pytest
from conftest import DIM, LAYERS, sentences, tiny_encoder
from lab import cosine_of, expect, go_to, numbers, press, typed
from nbformat.v4 import new_code_cell, new_notebook
from scipy.stats import rankdata

from twodmse import Encoder, load_pairs
from twodmse.evaluation.grid import default_dims, pairs_grid
from twodmse.probes.maps import reference_map, text_map
from twodmse.probes.shares import token_shares, token_vectors
from twodmse.study.notebooks import clean, write

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]  # one server for all of them

FIRST, SECOND = "a man plays in the park", "two big dog runs"
TEXTS, GROUPS = sentences(9, seed=4), list("aabbccddd")
DIMS = [2, 12, DIM]  # the slider's steps are eighths of a doubling: 12 lies on none
CELLS = [
    "from twodmse import Encoder, load_pairs\n"
    "from twodmse.widgets import BringYourOwn, Grid, SideBySide, TextMap, WhyFlip, link_cells\n"
    "models = {name: Encoder.load(name) for name in ('before', 'after')}\n"
    "pairs = load_pairs('pairs.csv')",
    f"grid = Grid(models, pairs, dims={DIMS})\ngrid",
    f"texts = TextMap(models, {TEXTS}, {GROUPS})\nlink_cells(grid, texts)\ntexts",
    f"WhyFlip(models, '{FIRST}', '{SECOND}')",
    "unlike = {'before': models['before'], 'short': Encoder.load('short')}\n"
    f"SideBySide(unlike, '{FIRST}', '{SECOND}', pairs)",
    "BringYourOwn('before', out='cut')",
]


@pytest.fixture(scope="module")
def models(lab):
    made = {"before": tiny_encoder(), "after": tiny_encoder("mpnet"), "short": tiny_encoder("mpnet", layers=2)}
    for name, encoder in made.items():
        encoder.save(lab.home / name)
    return made


@pytest.fixture(scope="module")
def scored(lab):
    column = sentences(80, seed=2)
    rows = [f"{a},{b},{i / 8}" for i, (a, b) in enumerate(zip(column[:40], column[40:], strict=True))]
    (lab.home / "pairs.csv").write_text("\n".join(["sentence1,sentence2,score", *rows]))
    return load_pairs(str(lab.home / "pairs.csv"))


@pytest.fixture(scope="module")
def page(lab, models, scored):
    """All of the widgets in one notebook, after "run all"."""
    write(clean(new_notebook(cells=[new_code_cell(cell) for cell in CELLS])), lab.home / "views.ipynb")
    return lab.run_all("views.ipynb")


def button(view, model, layer, dim):
    return view.locator(".twodmse-buttons").nth(model).get_by_title(f"layer {layer}, dim {dim}:")


def framed(view):
    """The cells whose buttons are drawn with a frame, once for each heatmap."""
    script = "all => all.filter(e => parseFloat(getComputedStyle(e).borderTopWidth) > 0).map(e => e.title)"
    return [title.split(":")[0] for title in view.locator(".twodmse-cell").evaluate_all(script)]


def number_heights(view):
    """How far below the middle of their row, in whole px, the numbers of the buttons stand."""
    script = """all => all.map(e => {
      const words = document.createRange(), middle = r => (r.top + r.bottom) / 2;
      words.selectNodeContents(e);
      return Math.round(middle(words.getBoundingClientRect()) - middle(e.getBoundingClientRect()));
    })"""
    return set(view.locator(".twodmse-cell").evaluate_all(script))


def test_a_click_on_the_heatmap_moves_score_pairs_worst_pairs_cost_and_every_linked_view(page, models, scored):
    view, linked = page.locator(".twodmse-grid"), page.locator(".twodmse-textmap")
    encoders = [models["before"], models["after"]]
    grids = [pairs_grid(e, scored, DIMS, range(1, LAYERS + 1), 0).set_index(["layer", "dim"]) for e in encoders]
    for i, grid in enumerate(grids):
        for layer, dim in grid.index:
            expect(button(view, i, layer, dim)).to_have_text(f"{grid['spearman'][layer, dim]:.1f}")
    for model, layer, dim in ((1, 2, 12), (0, LAYERS, 2)):
        button(view, model, layer, dim).click()
        expect(view).to_contain_text(f"40 pairs at layer {layer}, dim {dim}")
        expect(linked).to_contain_text(f"9 texts at layer {layer}, dim {dim};")
        assert numbers(view) == pytest.approx([grid["spearman"][layer, dim] for grid in grids], abs=0.006)
        for i in (0, 1):
            expect(button(view, i, layer, dim)).to_have_css("border-top-width", "3px")
            expect(button(view, i, layer, dim)).to_have_css("margin-top", "-3px")  # the frame's last setting
        assert framed(view) == [f"layer {layer}, dim {dim}"] * 2
        assert number_heights(view) == {0}
        for heatmap in view.locator(".twodmse-buttons").all():  # a frame in the top row is not cut off
            top = heatmap.bounding_box()["y"]
            assert min(cell.bounding_box()["y"] for cell in heatmap.locator(".twodmse-cell").all()) >= top
        for i, encoder in enumerate(encoders):
            left, right = (encoder.encode(list(column), layer, dim) for column in scored.columns)
            cosines = (left * right).sum(axis=1)
            drawn = view.locator(".twodmse-points").nth(i).get_attribute("d")
            x, y = np.array(re.findall(r"M(\d+) (\d+)h0", drawn), dtype=float).T  # px: down is more
            assert np.corrcoef(x, scored.gold)[0, 1] > 0.999
            assert np.corrcoef(-y, cosines)[0, 1] > 0.999
            off = rankdata(cosines) - rankdata(scored.gold)
            worst = np.argsort(-np.abs(off), kind="stable")[:5]
            rows = view.locator(".twodmse-panel").nth(i).locator(".twodmse-worst").all_inner_texts()
            told = [f"too {'high' if off[k] > 0 else 'low'} by {abs(off[k]):.0f}" for k in worst]
            assert [row.split("\t")[0] for row in rows] == told
            assert all(scored.columns[0][k] in row for k, row in zip(worst, rows, strict=True))
        cost = view.locator(".twodmse-cost").first.inner_text()
        assert f"{4 * dim} bytes a vector (all dims: {4 * DIM})" in cost
        here, all_layers = (float(part.split()[0]) for part in (cost, cost.split("all layers: ")[1].replace(")", " ")))
        assert 0 < here < 10_000
        assert layer < LAYERS or here == all_layers
    button(view, 0, 3, 12).press("Enter")  # the keyboard's click
    expect(linked).to_contain_text("layer 3, dim 12;")
    expect(view.locator(".twodmse-dim-box input")).to_have_value("12")
    view.locator(".twodmse-dim .noUi-handle").press("ArrowRight")
    expect(linked).to_contain_text("layer 3, dim 13;")  # the next dim from the one clicked: no press is lost
    expect(view.locator(".twodmse-chosen")).to_have_count(0)  # the heatmap does not show that dim
    assert framed(view) == []


def test_the_map_moves_its_points_and_keeps_their_numbers_and_colours(page, models):
    view = page.locator(".twodmse-textmap")
    go_to(view, 2, 5)
    expect(view).to_contain_text("layer 2, dim 5;")
    expect(page.locator(".twodmse-grid")).to_contain_text("at layer 2, dim 5")
    for i, name in enumerate(("before", "after")):
        states = models[name].states(TEXTS, progress=False)
        wanted = text_map(states, 2, 5, reference_map(states))
        points = view.locator(".twodmse-panel").nth(i).locator(".twodmse-point")
        expect(points).to_have_count(9)
        assert points.locator("text").all_text_contents() == [str(k) for k in range(1, 10)]
        assert [title.text_content() for title in points.locator("title").all()] == TEXTS
        boxes = [circle.bounding_box() for circle in points.locator("circle").all()]
        drawn = np.array([(box["x"], -box["y"]) for box in boxes])  # px: up is more
        for axis in (0, 1):  # places on the screen are the library's points, but for one scale and one shift
            assert np.corrcoef(drawn[:, axis], wanted.points[:, axis])[0, 1] > 0.9999
        slopes = [np.polyfit(wanted.points[:, axis], drawn[:, axis], 1)[0] for axis in (0, 1)]
        assert slopes[0] == pytest.approx(slopes[1], rel=0.01)
        told = view.locator(".twodmse-shown").nth(i).inner_text()
        assert f"show {wanted.shown:.0%} of the variance" in told
        assert f"spread of the texts {wanted.spread:.2f}" in told
        fills = [circle.get_attribute("fill") for circle in points.locator("circle").all()]
        assert len(set(zip(fills, GROUPS, strict=True))) == len(set(fills)) == len(set(GROUPS))


def test_the_shares_of_both_cells_follow_their_sliders_and_add_up(page, models):
    view = page.locator(".twodmse-whyflip")
    go_to(view, 3, 8)
    go_to(view, 2, 17, "other-")
    expect(view).to_contain_text("beside layer 2, dim 17")  # until then the slider's handle is where it was
    press(view, "other-layer", "ArrowLeft")
    press(view, "layer", "ArrowLeft")
    view.locator(".twodmse-other-dim .noUi-handle").press("ArrowLeft")
    expect(view).to_contain_text("at layer 2, dim 8, beside layer 1, dim 16")
    box = view.locator(".twodmse-sentence-2 input")
    box.fill("three red house")
    box.press("Enter")
    expect(view.locator(".twodmse-panel").first).to_contain_text("house")
    texts, both = [FIRST, "three red house"], ((2, 8), (1, 16))
    for name, encoder in list(models.items())[:2]:
        panel = view.locator(".twodmse-panel", has_text=name)
        here, there = (cosine_of(encoder, texts, *cell) for cell in both)
        assert numbers(panel) == pytest.approx([here], abs=6e-4)
        expect(panel).to_contain_text(f"at the other cell: {there:.3f}")
        coordinates, *sides = (
            [[cell.inner_text() for cell in row.locator("td").all()] for row in table.locator(".twodmse-share").all()]
            for table in panel.locator("table").all()
        )
        products = [np.prod(encoder.encode(texts, *cell).astype(float), axis=0) for cell in both]
        assert len(coordinates) == 9
        for name, *shares in coordinates[:8]:
            k = int(name.removeprefix("coordinate "))
            for told, product in zip(shares, products, strict=True):
                assert told == "not kept" if k >= len(product) else float(told) == pytest.approx(product[k], abs=6e-4)
        assert "not kept" in [row[1] for row in coordinates]
        tokens = [token_vectors(encoder, text) for text in texts]
        for i, (side, text) in enumerate(zip(sides, texts, strict=True)):
            assert [row[0] for row in side] == ["[CLS]", *text.split(), "[SEP]"]
            shown = np.array([row[1:] for row in side], dtype=float)  # (T, 2)
            assert shown.sum(axis=0) == pytest.approx([here, there], abs=0.005)
            for told, cell in zip(shown.T, both, strict=True):
                assert told == pytest.approx(token_shares(*tokens, *cell).sum(axis=1 - i), abs=6e-4)


def test_models_of_unlike_shape_move_to_the_same_shares(page, models, scored):
    view = page.locator(".twodmse-sidebyside")
    depth, width = (view.locator(".noUi-handle").nth(i) for i in (0, 1))
    texts = [FIRST, "a small blue cat sees the house"]
    box = view.locator(".twodmse-sentence-2 input")
    box.fill(texts[1])
    box.press("Enter")
    expect(view.locator(".twodmse-number").first).to_have_text(f"{cosine_of(models['before'], texts, LAYERS, DIM):.3f}")
    depth.press("Home")
    expect(view).to_contain_text("25% of the layers, 100.0% of the dims")
    depth.press("ArrowRight")
    for _ in range(16):
        width.press("ArrowLeft")
    expect(view).to_contain_text("50% of the layers, 25.0% of the dims")
    for i, (name, layer, layers) in enumerate((("before", 2, 4), ("short", 1, 2))):
        panel = view.locator(".twodmse-panel").nth(i)
        expect(panel).to_contain_text(f"cosine at layer {layer} of {layers}, dim 8 of {DIM}")
        wanted = cosine_of(models[name], texts, layer, 8), pairs_grid(models[name], scored, [8], [layer], 0)
        expect(panel.locator(".twodmse-number").first).to_have_text(f"{wanted[0]:.3f}")
        expect(panel.locator(".twodmse-number").last).to_have_text(f"{wanted[1]['spearman'].item():.2f}")
        expect(panel.locator(".twodmse-mark")).to_have_attribute("data-cosine", f"{wanted[0]:.3f}")
    box.fill(" ")
    box.press("Enter")
    expect(view).to_contain_text("Type at least one word in every box")
    expect(view.locator(".twodmse-number").first).to_have_text(f"{cosine_of(models['before'], texts, 2, 8):.3f}")


def test_own_file_is_scored_the_best_cell_found_and_saved(page, lab, models, scored):
    view = page.locator(".twodmse-bringyourown")
    view.locator(".twodmse-score").click()
    expect(view).to_contain_text("there are no texts yet")
    (lab.home / "semi.csv").write_text((lab.home / "pairs.csv").read_text().replace(",", ";"))
    for name in ("semi.csv", "pairs.csv"):
        with page.expect_file_chooser() as chooser:
            view.get_by_role("button", name="scored pairs").click()
        chooser.value.set_files(lab.home / name)
        expect(view.locator(".twodmse-source")).to_contain_text(f"To be scored: the file {name}")
        view.locator(".twodmse-score").click()
        if name == "semi.csv":
            expect(view).to_contain_text("semi.csv, line 1: its columns are not delimited")
            view.locator(".twodmse-pasted textarea").fill("\n".join(TEXTS))  # the file is let go of
            expect(view.locator(".twodmse-source")).to_have_text("To be scored: the 9 lines of the text box")
            expect(view.locator(".twodmse-remove")).to_be_hidden()
            view.locator(".twodmse-score").click()
            expect(view).to_contain_text("agreement with the full size: 36 pairs")
            expect(view).to_contain_text("no pair is out of place")
    expect(view).to_contain_text("pairs.csv: 40 pairs")
    dims = default_dims(DIM)
    grid = pairs_grid(models["before"], scored, dims, range(1, LAYERS + 1), 0).set_index(["layer", "dim"])["spearman"]
    for layer, dim in grid.index:
        expect(button(view, 0, layer, dim)).to_have_text(f"{grid[layer, dim]:.1f}")
    limit = view.get_by_label("at most bytes")
    limit.fill("32")
    limit.press("Enter")
    view.locator(".twodmse-find").click()
    layer, dim = grid[grid.index.get_level_values("dim") <= 8].idxmax()
    assert grid.idxmax() != (layer, dim)
    expect(view).to_contain_text(f"layer {layer}, dim {dim}: {grid[layer, dim]:.2f}")
    assert framed(view) == [f"layer {layer}, dim {dim}"]
    view.locator(".twodmse-save").click()
    expect(view).to_contain_text(f"saved layer {layer}, dim {dim}")
    np.testing.assert_allclose(
        Encoder.load(lab.home / "cut").encode(TEXTS), models["before"].encode(TEXTS, layer, dim), atol=1e-5
    )
    assert typed(view, "save-to") == "cut"
    view.locator(".twodmse-save").click()
    expect(view).to_contain_text("exists")
