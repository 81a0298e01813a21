"""The explorer notebook as its reader sees it: a real JupyterLab in a real browser, moved by keyboard."""

import os
import statistics
from pathlib import Path

import numpy as np
import pytest
from lab import cosine_of, expect, go_to, numbers, press, typed

from twodmse import Encoder

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]  # one server for all of them

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06_explorer.ipynb"
# Presses one arrow key n times, with a look at each picture, and measures from press to new picture, in milliseconds.
PRESS_AND_MEASURE = """async ([root, count]) => {
  const handle = document.querySelector(`${root} .twodmse-dim .noUi-handle`), times = [];
  for (let i = 0; i < count; i++) {
    const seen = new Promise(done => {
      const observer = new MutationObserver(() => { observer.disconnect(); requestAnimationFrame(done); });
      observer.observe(document.querySelector(`${root} .twodmse`).parentElement, {childList: true});
    });
    const start = performance.now();
    handle.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
    await seen;
    times.push(performance.now() - start);
    await new Promise(rested => setTimeout(rested, 150));  // the picture is painted, the kernel at rest
  }
  return times;
}"""


@pytest.fixture(scope="module")
def page(lab):
    """The notebook after "run all", with a short training."""
    source = NOTEBOOK.read_text()
    assert "steps = 40  # @param" in source
    (lab.home / NOTEBOOK.name).write_text(source.replace("steps = 40  # @param", "steps = 2  # @param"))
    page = lab.run_all(NOTEBOOK.name)
    yield page
    if "SHOTS" in os.environ:  # a folder for pictures of the whole notebook in both themes
        take_pictures(page, Path(os.environ["SHOTS"]))


@pytest.fixture(scope="module")
def models(page, lab):
    """The untouched model, and the one that the notebook trained."""
    (trained,) = (lab.home / "tmp").glob("twodmse-*/run/model")
    return [Encoder.load("bundled"), Encoder.load(trained)]


def take_pictures(page, folder):
    height = page.locator(".jp-WindowedPanel-inner").first.evaluate("e => e.scrollHeight")
    page.set_viewport_size({"width": 1200, "height": height + 200})
    page.locator(".jp-WindowedPanel-outer").first.evaluate("e => e.scrollTo(0, 0)")
    for theme in ("Light", "Dark"):
        change = f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})"
        page.evaluate(change)
        page.wait_for_timeout(3000)
        page.screenshot(path=folder / f"{theme.lower()}.png")


def at_cell(view, layer, dim):
    """Wait until both panels show the cell."""
    marks = view.locator(".twodmse-mark")
    for i in (0, 1):
        expect(marks.nth(i)).to_have_attribute("data-layer", str(layer))
        expect(marks.nth(i)).to_have_attribute("data-dim", str(dim))
    return [float(marks.nth(i).get_attribute("data-cosine")) for i in (0, 1)]


def test_both_sliders_move_number_and_mark_to_the_values_of_the_library(page, models):
    view = page.locator(".twodmse-twosentences")
    texts = [typed(view, "sentence-1"), typed(view, "sentence-2")]
    layer, dim = 3, 32
    go_to(view, layer, dim)
    at_cell(view, layer, dim)
    seen = []
    for slider, key, change in (
        ("layer", "ArrowLeft", (-1, 0)),
        ("dim", "ArrowRight", (0, 1)),
        ("layer", "End", (4, 0)),
    ):
        press(view, slider, key)
        layer, dim = layer + change[0], dim + change[1]
        marked = at_cell(view, layer, dim)
        wanted = [cosine_of(encoder, texts, layer, dim) for encoder in models]
        assert numbers(view) == pytest.approx(wanted, abs=1e-3)
        assert marked == pytest.approx(wanted, abs=1e-3)
        expect(view.locator(".twodmse-layer .widget-readout")).to_have_text(str(layer))
        seen.append(tuple(marked))
    assert len(set(seen)) == 3


def test_the_dim_slider_is_logarithmic_and_its_box_exact(page):
    view = page.locator(".twodmse-scatter")
    handle, box = view.locator(".twodmse-dim .noUi-handle"), view.locator(".twodmse-dim-box input")
    track = view.locator(".twodmse-dim .noUi-base").bounding_box()
    places = []
    for dim in (2, 4, 64, 128):
        box.fill(str(dim))
        box.press("Enter")
        expect(view).to_contain_text(f"dim {dim}")
        page.wait_for_timeout(500)  # the handle glides
        found = handle.bounding_box()
        places.append((found["x"] + found["width"] / 2 - track["x"]) / track["width"])
    assert places[1] - places[0] == pytest.approx(1 / np.log2(384), abs=0.01)
    assert places[3] - places[2] == pytest.approx(1 / np.log2(384), abs=0.01)
    handle.press("ArrowRight")
    expect(box).to_have_value("140")  # an eighth of a doubling on
    handle.press("End")
    expect(box).to_have_value("384")
    box.fill("37")
    box.press("Enter")
    expect(view).to_contain_text("dim 37")


def test_text_typed_in_is_encoded(page, models):
    view = page.locator(".twodmse-twosentences")
    go_to(view, 6, 33)
    at_cell(view, 6, 33)
    box = view.locator(".twodmse-sentence-1 input")
    box.fill("")
    box.press("Enter")
    expect(view).to_contain_text("Type at least one word")
    box.fill("A dog & a <b>cat</b> sleep.")
    box.press("Enter")
    expect(view).not_to_contain_text("Type at least one word")
    texts = ["A dog & a <b>cat</b> sleep.", typed(view, "sentence-2")]
    wanted = [cosine_of(encoder, texts, 6, 33) for encoder in models]
    expect(view.locator(".twodmse-number").first).to_have_text(f"{wanted[0]:.3f}")
    assert numbers(view) == pytest.approx(wanted, abs=1e-3)


def test_sliders_reorder_the_ranking(page, models):
    view = page.locator(".twodmse-ranking")
    go_to(view, 4, 64)
    expect(view).to_contain_text("Ranking at layer 4, dim 64;")
    press(view, "layer", "ArrowLeft", 2)
    press(view, "dim", "ArrowLeft", 3)
    expect(view).to_contain_text("Ranking at layer 2, dim 61;")
    query = typed(view, "query")
    orders = []
    for i, encoder in enumerate(models):
        panel = view.locator(".twodmse-panel").nth(i)
        shown = panel.locator(".twodmse-sentence").all_inner_texts()
        moved = [int(row.get_attribute("data-change")) for row in panel.locator(".twodmse-row").all()]
        places = []
        for layer, dim in ((2, 61), (6, 384)):
            vectors = encoder.encode([query, *sorted(shown)], layer, dim)
            nearest = np.argsort(-(vectors[1:] @ vectors[0]), kind="stable")
            places.append([sorted(shown)[k] for k in nearest])
        assert shown == places[0]
        assert moved == [places[1].index(sentence) - k for k, sentence in enumerate(shown)]
        orders.append(shown)
    assert any(moved)
    assert len(orders[0]) == 10


def test_the_replay_moves_grid_and_terms(page):
    view = page.locator(".twodmse-replay")
    view.locator(".twodmse-step-slider .noUi-handle").press("End")
    expect(view.locator(".twodmse-grid")).to_have_attribute("data-step", "2")
    before = view.locator(".twodmse-grid").inner_html(), view.locator(".twodmse-term").all_inner_texts()
    view.locator(".twodmse-step-slider .noUi-handle").press("ArrowLeft")
    expect(view.locator(".twodmse-grid")).to_have_attribute("data-step", "1")
    expect(view.locator(".twodmse-step")).to_have_attribute("data-step", "1")
    after = view.locator(".twodmse-grid").inner_html(), view.locator(".twodmse-term").all_inner_texts()
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_nothing_scrolls_sideways(page):
    wide = """() => [...document.querySelectorAll('.jp-OutputArea-output, .jp-RenderedMarkdown, .twodmse')]
        .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 80))"""
    assert page.evaluate(wide) == []


@pytest.mark.parametrize("view", ["twosentences", "ranking", "scatter"])
def test_redraw_is_measured(page, view, record_property):
    page.locator(f".twodmse-{view} .twodmse-dim .noUi-handle").press("Home")
    expect(page.locator(f".twodmse-{view} .twodmse-dim-box input")).to_have_value("1")
    page.wait_for_timeout(1000)
    times = page.evaluate(PRESS_AND_MEASURE, [f".twodmse-{view}", 30])
    record_property("median_ms", statistics.median(times))
    middle, best = statistics.median(times), min(times)
    print(f"\n{view}: from key press to redraw {middle:.1f} ms at the median, {best:.1f} at best")  # noqa: T201
    assert len(times) == 30  # every press was answered; how fast depends on the machine
