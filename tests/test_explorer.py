"""The explorer page: its numbers by hand and against the library, and the page itself in a real browser, offline."""

import base64
import functools
import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import CHROMIUM, DIM, LAYERS, run_app, sentences, tiny_encoder

from twodmse.explorer import page as explorer
from twodmse.explorer import stories

run = functools.partial(run_app, "explore")


def table(texts):
    return pd.DataFrame({"text": texts, "theme": "", "set": 0, "role": ""})


def content(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(sentences(12)))
    return path


# ---- sentences -------------------------------------------------------------------------------------------------


def test_the_bundled_sentences_come_in_sets_of_four_by_theme():
    rows = explorer.read_sentences()
    assert len(rows) == rows["text"].nunique() == 120
    assert rows.groupby("theme").size().eq(12).all()
    sets = rows.groupby("set")
    assert sets.ngroups == 30
    assert sets["theme"].nunique().eq(1).all()
    assert sets["role"].apply(list).map(lambda roles: roles == ["sentence", "same", "opposite", "decoy"]).all()
    assert rows["text"].str.fullmatch(r"[A-Z].*[.?]").all()


def test_a_file_gives_its_distinct_lines_in_order(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffb dog\n\n  a cat \na cat\r\nÉté <b>\n".encode())
    rows = explorer.read_sentences(tmp_path / "list.txt")
    assert rows["text"].tolist() == ["b dog", "a cat", "Été <b>"]
    assert rows["theme"].eq("").all()


def test_sentences_are_dropped_by_whole_themes_until_the_page_fits():
    rows = explorer.read_sentences()
    assert len(explorer.fit_sentences(rows, 6, 384)) == 120
    # 12 layers x 768 dims: 49152 bytes a sentence for both models, so 98 fit in 5 MB less 0.15, and 96 are 8 themes
    kept = explorer.fit_sentences(rows, 12, 768)
    assert kept["theme"].nunique() == 8
    assert kept.equals(rows.head(96))
    with pytest.raises(ValueError, match=r"120 sentences .* at most 98"):
        explorer.fit_sentences(rows.assign(theme=""), 12, 768)


# ---- numbers ---------------------------------------------------------------------------------------------------


def test_half_states_keep_eleven_bits_of_every_number_beside_a_huge_one():
    states = np.random.default_rng(0).standard_normal((3, 4, 8)).astype(np.float32)
    states[..., 5] = 3000.0  # an outlier coordinate, thousands of times the others
    states[0, 1] *= 1e-9  # a vector of its own scale
    states[1, 2] = 0.0
    packed = explorer.half_states(states)
    assert packed.dtype == np.dtype("<f2")
    kept = packed.astype(np.float64)
    assert (kept[..., 5][states[..., 0] != 0] == 2**15).all()
    back = kept * np.abs(states).max(axis=-1, keepdims=True) / 2**15
    assert np.abs(back - states).max() > 0, "rounding must show in this test"
    np.testing.assert_allclose(back, states, rtol=2**-11)
    assert not kept[1, 2].any()


def test_largest_error_is_over_layers_from_1_dims_and_pairs():
    states = np.zeros((3, 2, 2), dtype=np.float32)
    states[...] = [[3, 4], [1, 0]]  # cosine 1 at dim 1, 3/5 at dim 2
    other = states.copy()
    assert explorer.largest_error(states, other) == 0
    other[0] = [[-3, 4], [1, 0]]  # layer 0 is not on the page
    assert explorer.largest_error(states, other) == 0
    other[2] = [[4, 3], [1, 0]]  # 4/5 instead of 3/5
    assert explorer.largest_error(states, other) == pytest.approx(0.2)
    other[1] = [[-3, 4], [1, 0]]  # -1 instead of 1 at dim 1
    assert explorer.largest_error(states, other) == pytest.approx(2)


@pytest.mark.parametrize(
    ("dim", "columns"),
    [
        (384, [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384]),
        (20, [1, 2, 3, 4, 6, 8, 12, 16, 20]),
        (1, [1]),
    ],
)
def test_shown_columns_double_and_end_with_the_full_width(dim, columns):
    assert explorer.shown_columns(dim) == columns


def test_similarities_are_those_of_encode(encoder, texts):
    dims = [1, 5, DIM]
    found = stories.similarities(encoder.states(texts), dims)
    assert found.shape == (LAYERS + 1, 3, 7, 7)
    for layer in (1, 3, LAYERS):
        for k, dim in enumerate(dims):
            vectors = encoder.encode(texts, layer, dim)
            np.testing.assert_allclose(found[layer, k], vectors @ vectors.T, atol=1e-5)


def test_places_of_the_sentence_that_is_first_at_full_size():
    full = np.array([[1, 0.9, 0.1, 0.3], [0.9, 1, 0.5, 0.2], [0.1, 0.5, 1, 0.4], [0.3, 0.2, 0.4, 1]])
    cell = np.array([[1, 0.2, 0.8, 0.7], [0.2, 1, 0.1, 0.6], [0.8, 0.1, 1, 0.9], [0.7, 0.6, 0.9, 1]])
    # nearest at full size: 1, 0, 1, 2; in the cell these are third, second, third, first
    found = stories.places(np.array([[cell, cell], [cell, full]]))
    assert found.shape == (2, 2, 4)
    assert found[1, 0].tolist() == [3, 2, 3, 1]
    assert found[1, 1].tolist() == [1, 1, 1, 1]


def same_everywhere(layers, columns, matrix):
    return np.tile(np.asarray(matrix, dtype=float), (layers + 1, columns, 1, 1))


def test_slip_finds_the_cell_and_pair_that_stray_before_but_not_after():
    matrix = [[1, 0.5, 0.2], [0.5, 1, 0.1], [0.2, 0.1, 1]]
    before, after = same_everywhere(2, 2, matrix), same_everywhere(2, 2, matrix)
    before[1, 0, 0, 1] = 0.8  # strays by 0.3
    before[1, 1, 0, 1], after[1, 1, 0, 1] = 1.0, 1.0  # strays by 0.5 in both: no difference
    before[1, 0, 1, 2], after[1, 0, 1, 2] = 0.7, 0.2  # strays by 0.6 before, 0.1 after
    before[0, 0, 0, 1] = -1.0  # layer 0 is not on the page
    found = stories.slip(before, after, [8, 16], np.arange(3))
    assert (found["view"], found["layer"], found["dim"], found["first"], found["second"]) == ("pair", 1, 8, 1, 2)
    assert "average 0.30 away" in found["text"]  # (0.3 + 0 + 0.6) / 3
    assert "and 0.03 after" in found["text"]  # (0 + 0 + 0.1) / 3
    assert "0.60 away before, 0.10 after" in found["text"]
    assert (
        "4 cells looked at (layers 1 to 2, 8 dims or more) 1 is better after in this respect, 0 are worse, 3 are the"
        in found["text"]
    )
    found = stories.slip(before, after, [8, 16], np.array([0, 1]))  # without the third sentence
    assert (found["layer"], found["dim"], found["first"], found["second"]) == (1, 8, 0, 1)


def test_meaning_finds_the_cell_and_set_where_words_won_before_and_meaning_after():
    # rows 0, 3: queries; 1, 4: the same meaning; 2, 5: shared words
    before, after = same_everywhere(2, 2, np.zeros((6, 6))), same_everywhere(2, 2, np.zeros((6, 6)))
    before[2, 0, 0, 1], before[2, 0, 0, 2] = 0.5, 0.6
    before[2, 0, 3, 4], before[2, 0, 3, 5] = -0.2, 0.9
    after[2, 0, 0, 1], after[2, 0, 0, 2] = 0.9, -0.9  # leads by more, but trailed by little
    after[2, 0, 3, 4], after[2, 0, 3, 5] = 0.8, 0.1
    before[1, 0, 0, 1], after[1, 0, 0, 1] = 0.9, 1.0  # won before already
    found = stories.meaning(before, after, [8, 16], *(np.array(rows) for rows in ([0, 3], [1, 4], [2, 5])))
    assert (found["view"], found["layer"], found["dim"], found["query"]) == ("ranking", 2, 8, 3)
    assert "0% of 2 sets before, and in 100% after" in found["text"]
    assert "partner −0.20 and decoy 0.90 before, 0.80 and 0.10 after" in found["text"]


def test_fall_finds_the_cell_and_query_that_lose_their_first_sentence_before():
    before, after = np.ones((3, 2, 4), dtype=int), np.ones((3, 2, 4), dtype=int)
    before[1, 1], after[1, 1] = [2, 9, 1, 1], [1, 2, 1, 1]  # of 1/place: (0.5 + 0.389) / 4
    before[2, 0], after[2, 0] = [90, 90, 1, 1], [50, 50, 1, 1]  # far down: counts little
    before[0, 0] = 99
    found = stories.fall(before, after, [8, 16], np.arange(4))
    assert (found["layer"], found["dim"], found["query"]) == (1, 16, 1)
    assert "for 50% of 4 queries before, and for 75% after" in found["text"]
    assert "place 9 before and 2 after" in found["text"]
    found = stories.fall(before, after, [8, 16], np.array([0, 2, 3]))  # the second query is not to be told of
    assert (found["layer"], found["dim"], found["query"]) == (1, 16, 0)
    assert "for 67% of 3 queries before, and for 100% after" in found["text"]


def test_hold_finds_the_smallest_cell_that_keeps_nine_in_ten():
    before, after = np.full((4, 3, 10), 9), np.full((4, 3, 10), 9)
    before[3, 2] = after[3, 2] = 1  # full size: 3 x 64
    before[3, 1] = 2  # 3 x 16 = 48
    after[2, 1] = [1, 3, 1, 1, 1, 1, 1, 1, 1, 4]  # 2 x 16 = 32, nine of ten
    before[2, 1, 1], before[2, 1, 9] = 20, 99  # the query with 99 is not kept after
    after[1, 1, :8] = 1  # 1 x 16, eight of ten only
    after[0] = 1
    found = stories.hold(before, after, [8, 16, 64], np.arange(10))
    assert (found["layer"], found["dim"], found["query"]) == (2, 16, 1)
    assert "layer 2 with 16 dims is the smallest" in found["text"]
    assert "among the first three for nine queries in ten; before, layer 3 with 16 dims" in found["text"]
    assert "place 20 before and 3 after" in found["text"]


@pytest.mark.parametrize(("count", "words"), [(5, "among the first two"), (4, "at full size first"), (2, None)])
def test_hold_asks_for_fewer_places_than_half_of_the_sentences(count, words):
    before, after = np.full((3, 2, count), 4), np.full((3, 2, count), 4)
    before[2, 1] = after[2, 1] = after[1, 1] = 1
    before[1, 1] = 3  # of four others all are among the first four: three of them would be nothing to keep
    found = stories.hold(before, after, [8, 16], np.arange(count))
    assert (found is None) == (words is None)
    if found:
        assert (found["layer"], found["dim"]) == (1, 16)
        assert words in found["text"]


def test_where_nothing_is_gained_no_story_is_told():
    rows = explorer.read_sentences()
    vectors, noise = np.random.default_rng(0).standard_normal((2, len(rows), 16))
    same, base = (np.flatnonzero(rows["role"] == role) for role in ("same", "sentence"))
    vectors[same] = vectors[base] + 0.01 * noise[same]
    states, lost = np.stack([vectors] * 3).astype("<f2"), np.stack([vectors, noise, vectors]).astype("<f2")
    for told in (rows, table(rows["text"])):
        assert stories.suggestions(states, states, [8, 16], told) == []
        assert stories.suggestions(states, lost, [8, 16], told) == []
        assert len(stories.suggestions(lost, states, [8, 16], told)) == 3


def test_stories_are_of_other_queries_where_one_or_its_nearest_is_unknown():
    vectors, noise = np.random.default_rng(0).standard_normal((2, 12, 16))
    states, lost = np.stack([vectors] * 3).astype("<f2"), np.stack([vectors, noise, vectors]).astype("<f2")
    nearest = stories.nearest(stories.similarities(states, [8, 16]))

    def queries(unknown):
        found = stories.suggestions(lost, states, [8, 16], table(sentences(12)), unknown)
        return {story["label"]: story["query"] for story in found if "query" in story}

    for label, query in queries([]).items():
        for unknown in (query, int(nearest[query])):
            assert queries([unknown])[label] not in (query, unknown)


def test_texts_that_a_vocabulary_does_not_know_are_in_no_story():
    texts = [*sentences(6), "🎉", "🦜🦜", "日"]
    one, other = tiny_encoder("bert"), tiny_encoder("roberta")
    for pair in ((one, other), (other, one)):
        data = content(explorer.explorer_page(*pair, table(texts), ("one", "two")))
        assert [model["unknown"] for model in data["models"]] == [[6, 7, 8]] * 2
        assert data["tries"], "these models differ"
        for found in data["tries"]:
            assert {found[name] for name in ("first", "second", "query") if name in found} <= set(range(6)), found


def test_texts_that_are_cut_are_named_with_the_tokens_that_are_read():
    texts = [*sentences(3), "a man " * 15, "a man " * 15 + "runs"]  # 32 and 33 tokens; 32 are read
    models = content(explorer.explorer_page(tiny_encoder(), tiny_encoder(), table(texts), ("one", "two")))["models"]
    assert [(model["cut"], model["max_length"]) for model in models] == [([4], 32)] * 2


# ---- page and command ------------------------------------------------------------------------------------------


def test_the_page_holds_vectors_whose_cosines_are_those_of_encode():
    texts = [*sentences(10), "</script><!--<script>"]
    models = tiny_encoder("bert"), tiny_encoder("roberta")
    page = explorer.explorer_page(*models, table(texts), ("one", "two"))
    assert page.count("<script") == 2, "a sentence must not open or close a script"
    data = content(page)
    assert (data["layers"], data["dim"]) == (LAYERS, DIM)
    assert [s["text"] for s in data["sentences"]] == texts
    assert 0 < data["error"] < 0.002
    for encoder, model in zip(models, data["models"], strict=True):
        states = np.frombuffer(base64.b64decode(model["packed"]), "<f2").reshape(LAYERS, len(texts), DIM)
        for layer, vectors in enumerate(states.astype(np.float64), start=1):
            for dim in (1, 2, 7, DIM):
                cut = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
                known = encoder.encode(texts, layer, dim)
                np.testing.assert_allclose(cut @ cut.T, known @ known.T, atol=data["error"] + 1e-5)


def test_the_page_names_no_address_and_allows_no_connection():
    page = explorer.explorer_page(tiny_encoder(), tiny_encoder(), table(sentences(4)), ("one", "two"))
    assert not re.search(r"https?:|//[a-z]|@import|url\(| src=|<link", page)
    assert "default-src 'none'" in page


def test_two_shapes_are_refused_and_so_is_a_page_too_large(monkeypatch):
    with pytest.raises(ValueError, match=r"4 layers x 32 dims before, 3 layers x 32 dims after"):
        explorer.explorer_page(tiny_encoder(), tiny_encoder(layers=3), table(sentences(4)), ("one", "two"))
    with pytest.raises(ValueError, match="a page of 1 sentences has nothing to compare: give two or more"):
        explorer.explorer_page(tiny_encoder(), tiny_encoder(), table(sentences(1)), ("one", "two"))
    rows = explorer.read_sentences()
    monkeypatch.setattr(explorer, "MOST_BYTES", explorer.OTHER_BYTES + 50_000)  # 682 bytes a sentence and its letters
    with pytest.raises(ValueError, match=r"120 sentences .* keep the first 60"):
        explorer.explorer_page(tiny_encoder(), tiny_encoder(), rows, ("one", "two"))


def test_command_writes_a_page_and_keeps_what_is_there(listed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, other = tiny_encoder().save(tmp_path / "model"), tiny_encoder("roberta").save(tmp_path / "other/model")
    out = tmp_path / "page.html"
    result = run(model, other, "--sentences", listed, "--out", out)
    assert result.exit_code == 0, result.output
    assert "12 sentences" in result.output
    data = content(out.read_text(encoding="utf-8"))
    assert [s["text"] for s in data["sentences"]] == sentences(12)
    assert [m["name"] for m in data["models"]] == [tmp_path.name, "other"], "no path of this machine"
    labels = [found["label"] for found in data["tries"]]
    assert "The ranking that falls apart" in labels, "these sentences come in no sets"
    assert "Same meaning or same words?" not in labels
    out.write_text("mine")
    again = run(model, model, "--sentences", listed, "--out", out)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert out.read_text() == "mine"
    assert run(model, model, "--sentences", listed, "--out", out, "--overwrite").exit_code == 0
    assert out.stat().st_size > 10_000
    tiny_encoder("roberta").save(tmp_path / "runs/quickstart/2dmse/model")  # the default AFTER
    assert run(model, "--out", out, "--overwrite").exit_code == 0
    data = content(out.read_text(encoding="utf-8"))
    assert data["models"][1]["name"] == "2dmse"
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert len(data["sentences"]) == 120
    assert "Same meaning or same words?" in [found["label"] for found in data["tries"]]


def test_command_says_which_bundled_sentences_it_keeps(tmp_path, monkeypatch):
    model = tiny_encoder().save(tmp_path / "model")
    monkeypatch.setattr(explorer, "MOST_BYTES", explorer.OTHER_BYTES + 50_000)
    result = run(model, model, "--out", tmp_path / "page.html")
    assert "kept the first 60 of 120 sentences" in result.output
    assert len(content((tmp_path / "page.html").read_text(encoding="utf-8"))["sentences"]) == 60


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["no trained model at runs/quickstart/2dmse/model", "twodmse quickstart"]),
        (["MODEL", "MODEL", "--sentences", "none.txt"], ["no file none.txt", "one sentence a line"]),
        (["MODEL", "MODEL", "--sentences", "two.txt"], ["two.txt holds 2 sentences", "3 to 300"]),
        (["MODEL", "MODEL", "--sentences", "latin.txt"], ["latin.txt is not UTF-8"]),
        (["MODEL", "SHORT"], ["4 layers x 32 dims before, 2 layers x 32 dims after"]),
        (["MODEL", "/nowhere"], ["no model '/nowhere'"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_page(args, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": tiny_encoder().save("model"), "SHORT": tiny_encoder(layers=2).save("short")}
    (tmp_path / "two.txt").write_text("one\ntwo\ntwo\n")
    (tmp_path / "latin.txt").write_bytes("été\nun\ndeux\n".encode("latin-1"))
    result = run(*[names.get(a, a) for a in args], "--out", "page.html")
    assert result.exit_code == 1
    assert result.stderr.startswith("twodmse: ")
    assert "\n" not in result.stderr.strip()
    assert all(word in result.stderr for word in words)
    assert not (tmp_path / "page.html").exists()


# ---- in a browser, from disk, with the network off -------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(bundled_and_shaken, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    size = explorer.write_explorer(*bundled_and_shaken, explorer.read_sentences(), ("bundled", "shaken"), path)
    assert size == path.stat().st_size < 5_000_000
    return path


SCREENS = [(1280, "light"), (1280, "dark"), (375, "light"), (375, "dark")]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)
    with sync_playwright() as p, p.chromium.launch(**CHROMIUM) as browser:
        yield browser


@pytest.fixture(params=SCREENS, ids=lambda s: f"{s[0]}-{s[1]}")
def page(request, browser, page_file):
    width, scheme = request.param
    page = browser.new_page(
        offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: requests.append(sent.url))
    page.goto(page_file.as_uri())
    yield page
    page.close()
    assert complaints == []
    assert requests == [page_file.as_uri()]


def number(text):
    return float(text.replace("−", "-"))


@pytest.fixture(scope="module")
def known(bundled_and_shaken):
    """The library's own cosines of the bundled sentences at a cell of model 0 or 1."""
    texts = explorer.read_sentences()["text"].tolist()

    @functools.cache
    def cosines(which, layer, dim):
        vectors = bundled_and_shaken[which].encode(texts, layer, dim)
        return vectors @ vectors.T

    return cosines


def to_cell(page, layer, dim):
    """Both sliders by keyboard alone: to an end, then one step an arrow."""
    for name, value in (("Depth", layer), ("Width", dim)):
        slider = page.get_by_role("slider", name=name)
        slider.focus()
        most = int(slider.get_attribute("aria-valuetext").split(" of ")[1].split()[0])
        page.keyboard.press("Home" if value <= most / 2 else "End")
        for _ in range(min(value - 1, most - value)):
            page.keyboard.press("ArrowRight" if value <= most / 2 else "ArrowLeft")
        assert chosen(page, name) == value


def chosen(page, name):
    """What a slider says it stands at."""
    return int(re.search(r"\d+", page.get_by_role("slider", name=name).get_attribute("aria-valuetext")).group())


def card_of(page, title):
    return page.get_by_role("region", name=re.compile(f"^{title}: "))


@pytest.mark.browser
def test_number_gauge_and_mark_follow_the_sliders(page, known):
    from playwright.sync_api import expect

    texts = explorer.read_sentences()["text"].tolist()
    page.get_by_label("First sentence").select_option(label=texts[40])
    page.get_by_label("Second sentence").select_option(label=texts[43])
    wide = page.viewport_size["width"] > 640
    for layer, dim in ((2, 13), (5, 384), (1, 1)):
        to_cell(page, layer, dim)
        for which, title in enumerate(("Before", "After")):
            card = card_of(page, title)
            cosine, full = known(which, layer, dim)[40, 43], known(which, 6, 384)[40, 43]
            assert number(card.locator(".number").inner_text()) == pytest.approx(cosine, abs=0.0055)
            assert number(card.locator(".beside").inner_text().split()[-1]) == pytest.approx(full, abs=0.0055)
            box = {part: card.locator(f".gauge{part}").bounding_box() for part in ("", " .fill", " .full")}
            track, ends = box[""], (box[" .fill"]["x"], box[" .fill"]["x"] + box[" .fill"]["width"])
            at = [2 * (x - track["x"]) / track["width"] - 1 for x in (*ends, box[" .full"]["x"] + 2)]
            assert at == pytest.approx([min(cosine, 0), max(cosine, 0), full], abs=0.02)
            marked = card.locator('[aria-selected="true"]')
            expect(marked).to_have_count(1)
            assert marked.get_attribute("aria-label").startswith(f"layer {layer}, {dim} dims: ")
            assert number(marked.inner_text()) == pytest.approx(cosine, abs=0.0105)
            assert card.locator("td").count() == 6 * (16 if wide else 4)
            assert card.locator("thead th.now").inner_text() == str(dim)
        numbers = [number(n) for n in page.locator("#pair .number").all_inner_texts()]
        words = f"Layer {layer}, {dim} dims: cosine {numbers[0]:.3f} before, {numbers[1]:.3f} after."
        expect(page.locator("#live")).to_have_text(words.replace("-", "−"))


@pytest.mark.browser
def test_heatmap_cells_and_keys(page, known):
    card = card_of(page, "Before")
    cells = card.locator("td").evaluate_all("cells => cells.map(c => c.getAttribute('aria-label'))")
    for layer, dim, value in (re.fullmatch(r"layer (\d), (\d+) dims: (.*)", c).groups() for c in cells[::13]):
        assert number(value) == pytest.approx(known(0, int(layer), int(dim))[0, 1], abs=0.0105)
    card.locator("td").nth(0).click()  # the top left one: layer 6, the narrowest
    dims = [int(d) for d in card.locator("thead th").all_inner_texts() if d]
    assert (chosen(page, "Depth"), chosen(page, "Width")) == (6, dims[0])
    card.locator('[aria-selected="true"]').press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert (chosen(page, "Depth"), chosen(page, "Width")) == (5, dims[1])
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(f"layer 5, {dims[1]} dims")
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # nothing is further right
    assert chosen(page, "Width") == 384


def places(cosines, value, slack):
    """The lowest and highest place, from 1, that one of the cosines may take when each is known to ``slack``."""
    return 1 + int((cosines > value + slack).sum()), int((cosines > value - slack).sum())


@pytest.mark.browser
def test_ranking_follows_the_sliders(page, known):
    from playwright.sync_api import expect

    texts, query = explorer.read_sentences()["text"].tolist(), 24
    page.get_by_role("tab", name="Two sentences").press("ArrowRight")
    page.get_by_label("Query sentence").select_option(label=texts[query])
    orders = []
    for layer, dim in ((6, 384), (3, 14)):
        to_cell(page, layer, dim)
        for which, title in enumerate(("Before", "After")):
            here, full = known(which, layer, dim)[query].copy(), known(which, 6, 384)[query].copy()
            here[query] = full[query] = -2
            items = (
                card_of(page, title)
                .locator("li")
                .evaluate_all("items => items.map(i => [...i.children].map(c => c.firstChild.textContent))")
            )
            assert [int(place) for place, *_ in items[:10]] == list(range(1, 11))
            orders.append([text for _, text, *_ in items])
            for place, text, cosine, moved in items:
                row, place = texts.index(text), int(place)
                low, high = places(here, here[row], 0.001)
                assert low <= place <= high
                assert number(cosine) == pytest.approx(here[row], abs=0.0055)
                up = 0 if moved == "=" else int(moved[2:]) * (1 if moved[0] == "▲" else -1)
                low, high = places(full, full[row], 0.001)
                assert low <= place + up <= high
            kept = set(np.argsort(-here)[:10]) & set(np.argsort(-full)[:10])
            assert card_of(page, title).locator(".kept").inner_text().startswith(f"{len(kept)} of the first 10")
    assert orders[0] != orders[2], "the order must differ between the two cells"
    assert len({tuple(order) for order in orders}) == 4
    tag = card_of(page, "Before").locator("li", has_text=texts[query + 1]).locator(".tag")
    expect(tag).to_have_text("same meaning")
    page.get_by_role("button", name="Show all 119").press("Enter")
    expect(page.locator("#ranking ol").first.locator("li")).to_have_count(119)
    expect(page.locator("#live")).to_contain_text("Layer 3, 14 dims: of the first 10 at full size")


@pytest.mark.browser
def test_suggestions_set_what_they_say(page, page_file):
    from playwright.sync_api import expect

    for found in content(page_file.read_text(encoding="utf-8"))["tries"]:
        page.get_by_role("button", name=found["label"]).press("Enter")
        expect(page.locator("#why")).to_have_text(found["text"])
        assert chosen(page, "Depth") == found["layer"]
        assert chosen(page, "Width") == found["dim"]
        expect(page.get_by_role("tabpanel")).to_have_id(found["view"])
        for card in page.locator(f"#{found['view']} .card").all():  # both models' results can be seen, on a phone too
            first = card.locator(".number, .kept").first.bounding_box()
            assert 0 <= first["y"] <= first["y"] + first["height"] <= page.viewport_size["height"]
        for name in ("first", "second", "query"):
            if name in found:
                assert page.locator(f"#{name}").input_value() == str(found[name])


@pytest.mark.browser
@pytest.mark.parametrize(
    ("count", "words"),
    [(7, "3 of the first 3 are among the first 3 at full size."), (3, "The first is the first at full size.")],
)
def test_of_few_sentences_fewer_places_are_compared_and_nothing_is_told_that_is_not_so(count, words, browser, tmp_path):
    from playwright.sync_api import expect

    model, texts = tiny_encoder(), [*sentences(count - 1), "a man " * 15 + "runs"]
    explorer.write_explorer(model, model, table(texts), ("one", "two"), tmp_path / "page.html")
    page = browser.new_page(offline=True)
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.locator(".lead")).to_contain_text("in two models, here called before (one) and after (two).")
    expect(page.locator("#why")).to_contain_text("No story is told here")
    expect(page.locator(".try")).to_be_hidden()
    to_cell(page, LAYERS, DIM)
    expect(page.locator("#cost")).to_have_text("Runs 100% of the layers; a vector takes 128 bytes.")
    page.get_by_role("tab", name="Ranking").click()
    expect(page.locator(".kept").first).to_have_text(words)
    assert page.locator("#ranking ol").first.locator("li").count() == count - 1
    expect(page.locator("#unknown")).to_contain_text("longer than the 32 tokens that are read (before)")
    expect(page.locator("#unknown")).to_contain_text("longer than the 32 tokens that are read (after)")
    kept = {words}
    for layer, dim in ((1, 1), (1, 2), (2, 1), (2, 3), (3, 1)):
        to_cell(page, layer, dim)
        expect(page.locator("#cost")).to_contain_text(f"a vector takes {4 * dim} bytes instead of 128.")
        kept.add(page.locator(".kept").first.inner_text())
    assert len(kept) > 1, "what is true of any cell says nothing"
    page.close()


# The contrast of every text on the page with the nearest background behind it: [contrast, text] pairs.
CONTRASTS = """() => {
  const rgb = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => rgb(c).slice(0, 3).reduce((sum, v, k) => sum + linear(v / 255) * [0.2126, 0.7152, 0.0722][k], 0);
  const clear = (e) => rgb(getComputedStyle(e).backgroundColor)[3] === 0;
  const written = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const shown = (e) => e.checkVisibility() && !["SCRIPT", "OPTION", "OPTGROUP"].includes(e.tagName);
  return [...document.querySelectorAll("body *")].filter((e) => shown(e) && written(e)).map((e) => {
    let behind = e;
    while (behind !== document.documentElement && clear(behind)) behind = behind.parentElement;
    const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(ink), light(getComputedStyle(behind).backgroundColor)].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)];
  });
}"""


@pytest.mark.browser
def test_readable_at_this_size_and_in_this_scheme(page):
    page.locator("summary").press("Enter")
    for tab, suggestion in (("Two sentences", 0), ("Ranking", 1)):
        page.get_by_role("tab", name=tab).click()
        page.locator(".try button").nth(suggestion).click()
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 60
        assert min(contrasts)[0] >= 4.5, min(contrasts)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        rights = page.evaluate("[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right)")
        assert max(rights) <= page.viewport_size["width"] + 1


@pytest.mark.browser
def test_tab_reaches_every_control_and_each_shows_its_focus(page):
    reached, told = [], page.locator(".try button").count()
    assert told
    for _ in range(8 + told):
        page.keyboard.press("Tab")
        kind, ring = page.evaluate("(e => [e.id || e.tagName, getComputedStyle(e).outline])(document.activeElement)")
        assert "solid 3px" in ring, kind
        reached.append(kind)
    assert reached == [
        "SUMMARY", *["BUTTON"] * told, "layer", "dim", "tab-pair", "first", "second", "TD", "TD"
    ]  # fmt: skip


def test_only_a_line_feed_ends_a_sentence(tmp_path):
    texts = ["a dog\u2028runs", "a\x0bcat", "two\x85birds"]
    (tmp_path / "list.txt").write_text("\r\n".join(texts), encoding="utf-8", newline="")
    assert explorer.read_sentences(tmp_path / "list.txt")["text"].tolist() == texts


@pytest.mark.parametrize("sentences", [["a", "b"], pd.DataFrame({"text": ["a", "b", "c"]})])
def test_what_is_no_table_of_sentences_is_refused(sentences):
    with pytest.raises(ValueError, match=r"sentences has no column '(text|theme)': give a table of them"):
        explorer.explorer_page(tiny_encoder(), tiny_encoder(), sentences, ("a", "b"))
