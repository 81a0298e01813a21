"""The site in which the models run in the reader's browser: its files, and its numbers in a real browser, offline."""

import os
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import CHROMIUM, DIM, LAYERS, run_app, tiny_encoder
from test_explorer import number

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from twodmse.explorer import live
from twodmse.export.onnx import QUANTISED, run_onnx

PATIENCE = 180_000  # milliseconds: two models are loaded and compiled


@pytest.fixture
def fake_runtime(tmp_path):
    folder = tmp_path / "node_modules"
    for name in (
        "@huggingface/transformers/dist/transformers.min.js",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.mjs",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm",
        "onnxruntime-web/dist/ort-wasm-simd-threaded.jsep.wasm",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_every_depth_is_a_graph_of_its_own_over_one_file_of_weights(tmp_path):
    encoder, folder = tiny_encoder(), tmp_path / "model"
    live.write_model(encoder, folder)
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    depths = {f"depth-{n}_quantized.onnx" for n in range(1, LAYERS + 1)}
    assert files == {*live.KEPT, "model_quantized.onnx", "weights.bin", *depths}
    texts = ["a man plays in the park", "two big dog runs"]
    states = run_onnx(folder, texts, "states", QUANTISED, batch_size=1)  # (N+1, 2, D)
    assert states.shape == (LAYERS + 1, 2, DIM)
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for n in range(1, LAYERS + 1):
        cut = onnxruntime.InferenceSession(str(folder / f"onnx/depth-{n}_quantized.onnx"))
        nodes = (folder / f"onnx/depth-{n}_quantized.onnx").read_bytes()
        assert (f"layer.{LAYERS - 1}/".encode() in nodes) == (n == LAYERS), "a cut graph must not run deeper layers"
        for i, text in enumerate(texts):
            tokens = tokenizer.encode(text)
            ids = np.array([tokens.ids]), np.array([tokens.attention_mask])
            (found,) = cut.run(None, dict(zip(("input_ids", "attention_mask"), ids, strict=True)))
            np.testing.assert_allclose(found[0, 0], states[n, i], atol=1e-4)  # one text of one layer


def test_command_writes_a_site_that_needs_nothing_from_outside(tmp_path, fake_runtime):
    model = tiny_encoder().save(tmp_path / "runs/mine/model")
    args = ["explore", model, model, "--live", "--out", tmp_path / "site", "--runtime", fake_runtime]
    result = run_app(*args)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|<link", page)
    assert str(tmp_path) not in page
    assert '"name": "mine"' in page
    assert page.count('"max_length": 32, "closing": 3') == 2  # each model's own
    assert sorted(path.name for path in (tmp_path / "site/runtime").iterdir()) == [
        "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm", "transformers.min.js",
    ]  # fmt: skip
    again = run_app(*args)
    assert again.exit_code == 1
    assert "ask to overwrite it" in again.stderr
    assert run_app(*args, "--overwrite").exit_code == 0
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/thesis.txt").write_text("mine")
    args[5] = tmp_path / "docs"
    assert "is not replaced" in run_app(*args, "--overwrite").stderr
    assert (tmp_path / "docs/thesis.txt").read_text() == "mine"


def test_without_a_copy_the_library_comes_from_its_cdn_alone(tmp_path):
    page = live.live_page(tiny_encoder(), [], local=False)
    assert {found.rstrip(".") for found in re.findall(r"https://[^/;<\"' ]+", page)} == {live.CDN}
    assert f"transformers@{live.VERSION}/" in page


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--runtime", "none"], "--runtime is for a live site"),
        (["--live", "--runtime", "none"], "does not hold transformers.js"),
        (["--live", "--sentences", "list.txt"], "typed"),
    ],
)
def test_bad_input_is_one_line(args, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_encoder().save("model")
    result = run_app("explore", "model", "model", *args, "--out", "site")
    assert result.exit_code == 1
    assert words in result.stderr
    assert not (tmp_path / "site").exists()


# ---- in a browser, with nothing but the site's own files --------------------------------------------------------


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """A copy of transformers.js: the folder that TRANSFORMERS_JS names, or fetched by npm."""
    if "TRANSFORMERS_JS" in os.environ:
        return Path(os.environ["TRANSFORMERS_JS"])
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: it fetches transformers.js")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        [*command, f"@huggingface/transformers@{live.VERSION}"], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"npm could not fetch transformers.js: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"


@pytest.fixture(scope="module")
def site(runtime, bundled_and_shaken, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "site"
    live.write_live(*bundled_and_shaken, ("bundled", "shaken"), folder, runtime)
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def page(site):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own, foreign, errors = f"http://127.0.0.1:{server.server_port}/", [], []

    def guard(route):
        if route.request.url.startswith((own, "blob:")):
            route.continue_()
        else:
            foreign.append(route.request.url)
            route.abort()

    with sync_playwright() as p, p.chromium.launch(**CHROMIUM) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(PATIENCE)
        page.route("**/*", guard)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(own)
        expect(page.locator("#measure")).to_be_enabled()
        yield page
        assert foreign == [], "the page must ask nobody else for anything"
        assert errors == []
    server.shutdown()


@pytest.fixture(scope="module")
def known(site):
    """Cosine of two texts at a cell of a model, by onnxruntime from the same 8-bit file."""

    def cosine(folder, first, second, layer, dim):
        a, b = (run_onnx(site / "models" / folder, [t], "states", QUANTISED)[layer, 0, :dim] for t in (first, second))
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    return cosine


def go(page, layer, dim):
    page.locator("#layer").fill(str(layer))
    page.locator("#dim").press("Home" if dim < 100 else "End")
    for _ in range(dim - 1 if dim < 100 else 384 - dim):
        page.locator("#dim").press("ArrowRight" if dim < 100 else "ArrowLeft")


@pytest.mark.browser
def test_typed_sentences_have_the_cosines_of_the_library_on_the_same_file(page, known):
    from playwright.sync_api import expect

    texts = "Nobody expected the long storm to pass.", "A storm ended & everyone <b>cheered</b>."
    page.locator("#first").fill(texts[0])
    page.locator("#second").fill(texts[1])
    page.wait_for_timeout(600)  # longer than the page waits for the hand to rest
    expect(page.locator("#told")).to_have_text("")
    for layer, dim in ((6, 384), (3, 24), (1, 5)):
        go(page, layer, dim)
        for which, folder in enumerate(("before", "after")):
            wanted = known(folder, *texts, layer, dim)
            shown = page.locator("#pair .number").nth(which)
            assert number(shown.inner_text()) == pytest.approx(wanted, abs=1.5e-3)  # 1e-3, and the rounding to 3 digits


@pytest.mark.browser
def test_typed_list_is_ranked_as_the_library_ranks_it(page, known):
    from playwright.sync_api import expect

    query, listed = (
        "Where is my order?",
        ["My parcel is late.", "I like tea.", "Orders must be obeyed.", "A dog barks."],
    )
    page.get_by_role("tab", name="Ranking").click()
    page.locator("#query").fill(query)
    page.locator("#list").fill("\n".join(listed))
    expect(page.locator("#ranking ol").first.locator("li")).to_have_count(4)
    go(page, 4, 64)
    for which, folder in enumerate(("before", "after")):
        rows = page.locator("#ranking ol").nth(which).locator("li")
        texts, cosines = (rows.locator(name).all_inner_texts() for name in (".text", ".cosine"))
        shown = {text.strip(): number(value) for text, value in zip(texts, cosines, strict=True)}
        wanted = {text: known(folder, query, text, 4, 64) for text in listed}
        assert shown == pytest.approx(wanted, abs=1.5e-3)
        assert list(shown.values()) == sorted(shown.values(), reverse=True)
    page.locator("#query").fill("😀🎉")
    expect(page.locator("#unknown")).to_contain_text("“😀🎉”")
    page.locator("#query").fill("the storm " * 200)
    expect(page.locator("#unknown")).to_contain_text("…” is longer than the 256 tokens that are read (before)")
    page.locator("#query").fill("  ")
    expect(page.locator("#told")).to_contain_text("at least one word")
    page.locator("#query").fill(query)
    expect(page.locator("#told")).to_have_text("")


@pytest.mark.browser
def test_cost_is_measured_in_this_browser(page):
    from playwright.sync_api import expect

    page.locator("#measure").click()
    expect(page.locator("#times")).to_contain_text("6 layers")
    times = [float(ms) for ms in re.findall(r"([\d.]+) ms", page.locator("#times").inner_text())]
    assert len(times) == 6
    assert 0 < times[0] < times[5]
    expect(page.locator("#cost")).to_contain_text("ms a text here")
    if "SHOTS" in os.environ:
        page.get_by_role("tab", name="Two sentences").click()
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 844})
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=Path(os.environ["SHOTS"]) / f"live-{width}-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in page.get_by_role("tab").all():
        tab.click()
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, tab.inner_text()
