import dataclasses
import functools
import itertools
import json
import math
import re
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import test_plots
import torch
from conftest import LAYERS, run_app, sentences, tiny_encoder
from matplotlib import pyplot as plt
from scipy.stats import spearmanr

from twodmse import Encoder, plots
from twodmse.efficiency import costs as efficiency
from twodmse.efficiency import timing as measure
from twodmse.efficiency.costs import (
    best_cell,
    cell_costs,
    cut_view,
    dim_costs,
    layer_costs,
    pareto_front,
    quantised_grid,
)
from twodmse.efficiency.timing import half_range, peak_memory, take_turns
from twodmse.encoder.encoder import normalise
from twodmse.evaluation.grid import sts_grid
from twodmse.evaluation.quantise import precision_scores, quantise, vector_bytes

matplotlib.use("Agg")
MIB = 2**20
_closed = test_plots._closed


@pytest.fixture
def clock(monkeypatch):
    """A clock that only what is timed moves: ``clock.now``."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def tick(clock, seconds):
    """A hook that takes so many seconds."""

    def hook(*_):
        clock.now += seconds

    return hook


@pytest.fixture
def timed(encoder, clock):
    """An encoder whose embedding layer takes 1 second and whose layers take 2 each, per forward pass."""
    encoder.backbone.model.embeddings.register_forward_hook(tick(clock, 1))
    for layer in encoder.backbone.layers:
        layer.register_forward_hook(tick(clock, 2))
    return encoder


def test_contenders_take_turns_and_warm_rounds_do_not_count(clock):
    order = []

    def work(name, seconds):
        def run(number):
            order.append((number, name))
            clock.now += 100 if number == 0 else seconds * number

        return run

    table = take_turns({"a": work("a", 1), "b": work("b", 3), "c": work("c", 5)}, rounds=3)
    assert table.to_numpy().tolist() == [[1, 3, 5], [2, 6, 10], [3, 9, 15]]
    assert list(table.columns) == ["a", "b", "c"]
    assert [name for _, name in order] == ["a", "b", "c", "b", "c", "a", "c", "a", "b", "a", "b", "c"]
    assert [number for number, _ in order] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert len(take_turns({"a": lambda _: None}, rounds=2, warm=0)) == 2
    with pytest.raises(ValueError, match="rounds is 0"):
        take_turns({"a": lambda _: None}, rounds=0)


def test_half_range_is_half_the_middle_half():
    assert half_range(pd.Series([5.0, 1, 2, 3, 400])) == 1.5  # quartiles 2 and 5


HELD = """
import json
import numpy as np
from twodmse.efficiency.timing import peak_memory
def work(*sizes):
    for size in sizes:
        np.ones(size * 2**20, dtype=np.uint8).sum()  # ones touches every page
def many_small():
    return [bytearray(b"x" * 50_000) for _ in range(2000)]
work(200)  # an earlier and higher peak
peaks = [peak_memory(lambda: work(64)), peak_memory(lambda: work(64, 96, 32)), peak_memory(lambda: None)]
freed = many_small()
above = freed[1500:]  # what lies above freed memory keeps the C library from giving it back by itself
del freed
print(json.dumps([*peaks, peak_memory(many_small)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's counters")
def test_peak_memory_counts_what_is_held_at_once_and_nothing_earlier():
    # in a process of its own: what other tests left in pieces is used again, and not counted
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    one, largest, nothing, small = json.loads(done.stdout)
    assert one == pytest.approx(64 * MIB, abs=4 * MIB)
    assert largest == pytest.approx(96 * MIB, abs=4 * MIB)
    assert nothing <= 4 * MIB
    assert small == pytest.approx(2000 * 50_000, rel=0.1)


def test_peak_memory_is_unknown_where_no_counter_is(monkeypatch):
    ran = []

    def refuse(_):
        raise FileNotFoundError

    monkeypatch.setattr(measure, "Path", lambda _: SimpleNamespace(write_text=refuse))
    assert math.isnan(peak_memory(lambda: ran.append(1)))
    assert ran == [1]


def test_layer_costs_time_n_layers_and_nothing_else(timed, texts):
    costs = layer_costs(timed, texts, rounds=4, batch_size=3)
    assert list(costs.columns) == [
        "layer", "one_text_ms", "one_text_spread", "texts_per_second", "spread", "ratio", "peak_bytes", "parameters",
        "bytes_on_disk",
    ]  # fmt: skip
    assert costs["layer"].tolist() == [1, 2, 3, 4]
    assert costs["one_text_ms"].tolist() == [3000, 5000, 7000, 9000]  # 1 + 2 n seconds
    assert costs["texts_per_second"].tolist() == [3 / 3, 3 / 5, 3 / 7, 3 / 9]  # one pass for a batch of 3
    assert costs["ratio"].tolist() == [3 / 9, 5 / 9, 7 / 9, 1]
    assert costs[["one_text_spread", "spread"]].to_numpy().tolist() == [[0, 0]] * 4


def test_layer_costs_know_the_size_of_each_cut_model(encoder, texts, tmp_path):
    costs = layer_costs(encoder, texts, rounds=1)
    for row in costs.itertuples():
        small = encoder.submodel(row.layer)
        assert row.parameters == sum(p.numel() for p in small.backbone.model.parameters())
        folder = small.save(tmp_path / str(row.layer))
        assert row.bytes_on_disk == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert costs["bytes_on_disk"].is_monotonic_increasing
    if sys.platform == "linux":
        assert (costs["peak_bytes"] >= 0).all()


def test_each_round_encodes_other_texts_and_a_text_once(encoder, monkeypatch):
    seen = []
    real = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, texts, **o: (seen.append(tuple(texts)), real(self, texts, **o)))
    words = sentences(5)
    layer_costs(encoder, [*words, *words], rounds=2, batch_size=3)
    assert [t[0] for t in seen[: 3 * LAYERS]] == [w for w in words[:3] for _ in range(LAYERS)]  # warm, 2 rounds
    assert seen[3 * LAYERS] == tuple(words[:3])
    assert seen[4 * LAYERS] == (words[3], words[4], words[0])


def test_layer_costs_refuse_what_cannot_be_timed(encoder, texts):
    with pytest.raises(ValueError, match="texts is empty"):
        layer_costs(encoder, [])
    with pytest.raises(ValueError, match="rounds is 0"):
        layer_costs(encoder, texts, rounds=0)


def test_bytes_of_a_vector(encoder):
    assert [vector_bytes(13, p) for p in ("float32", "int8", "binary")] == [52, 13, 2]
    table = dim_costs(encoder, [32, 4])
    assert table.to_numpy().tolist() == [
        [4, "float32", 16], [4, "int8", 4], [4, "binary", 1], [32, "float32", 128], [32, "int8", 32], [32, "binary", 4],
    ]  # fmt: skip
    assert table["dim"].dtype.kind == "i"
    with pytest.raises(ValueError, match="dim 99 is out of range"):
        dim_costs(encoder, [99])


def test_codes_worked_out_by_hand():
    vectors = np.array([[0, 7, -255], [255, 7, 0], [127.5, 7, 255]], dtype=np.float32)
    # steps of 1, of 0 (a constant coordinate), of 2: the 0 there is at 127.5 steps, half of one is dropped
    assert quantise(vectors, "int8").tolist() == [[-128, -128, -128], [127, -128, -1], [-1, -128, 127]]
    # the second range ends below every value, the third begins above one: clipped to the last and first code
    ranges = np.array([[-255, 0, 0], [255, 5, 255]])
    assert quantise(vectors, "int8", ranges).tolist() == [[-1, 127, -128], [127, 127, -128], [63, 127, 127]]
    assert quantise(vectors, "binary").tolist() == [[0b01000000], [0b11000000], [0b11100000]]
    assert quantise(vectors, "float32").tolist() == vectors.tolist()
    assert quantise(np.ones((2, 9), np.float32), "binary").shape == (2, 2)
    with pytest.raises(ValueError, match="unknown precision 'int4'"):
        quantise(vectors, "int4")
    with pytest.raises(ValueError, match="at least two vectors"):
        quantise(vectors[:1], "int8")
    for precision in ("int8", "binary"):
        with pytest.raises(ValueError, match=r"shape \(3,\): give an array"):
            quantise(vectors[0], precision)
    with pytest.raises(ValueError, match=r"ranges have shape \(2, 2\): it must be \(2, 3\)"):
        quantise(vectors, "int8", ranges[:, :2])


def test_similarities_of_codes_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(12, 10)) + 1).astype(np.float32)
    left, right = rng.integers(12, size=20), rng.integers(12, size=20)
    for k, d in enumerate((1, 3, 10)):
        codes = quantise(normalise(vectors[:, :d]), "int8").astype(float)
        expected = [
            a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(codes[left], codes[right], strict=True)
        ]
        np.testing.assert_allclose(precision_scores(vectors, left, right, [1, 3, 10], "int8")[:, k], expected)
        bits = quantise(vectors[:, :d], "binary")
        hamming = np.array([int.from_bytes(a ^ b).bit_count() for a, b in zip(bits[left], bits[right], strict=True)])
        expected = 1 - hamming / d
        np.testing.assert_allclose(precision_scores(vectors, left, right, [1, 3, 10], "binary")[:, k], expected)


def test_quantised_grid_scores_every_cell_in_every_precision(encoder, pairs, scored):
    grid = quantised_grid(encoder, [scored], dims=[16, 5], layers=[2, 4])
    keys = list(itertools.product([2, 4], [5, 16], ["float32", "int8", "binary"]))
    assert list(zip(grid["layer"], grid["dim"], grid["precision"], strict=True)) == keys
    assert list(grid.columns) == ["task", "layer", "dim", "precision", "bytes", "spearman"]
    assert grid["bytes"].tolist()[:6] == [20, 5, 1, 64, 16, 2]
    every = list(dict.fromkeys(pairs.columns[0] + pairs.columns[1]))
    for row in grid.itertuples():
        codes = quantise(encoder.encode(every, row.layer, row.dim), row.precision)
        if row.precision == "binary":
            codes = 2.0 * np.unpackbits(codes, axis=1, count=row.dim) - 1  # the cosine of signs orders as Hamming does
        unit = dict(zip(every, normalise(codes.astype(np.float64)), strict=True))
        scores = [round(float(unit[a] @ unit[b]), 9) for a, b in zip(*pairs.columns, strict=True)]
        assert row.spearman == pytest.approx(100 * spearmanr(scores, pairs.gold).statistic, abs=0.3)


def test_quantised_grid_refuses_bad_cells_before_encoding(encoder, monkeypatch):
    monkeypatch.setattr(encoder, "states", lambda *_: pytest.fail("encoded before checking"))
    with pytest.raises(ValueError, match="layer 9 is out of range"):
        quantised_grid(encoder, ["mini-sts"], layers=[9])
    with pytest.raises(ValueError, match="unknown data set 'sts99'"):
        quantised_grid(encoder, ["mini-sts", "sts99"])


COSTS = pd.DataFrame({"layer": [1, 2], "one_text_ms": [2.0, 8.0], "one_text_spread": [0.1, 0.2], "ratio": [0.25, 1.0]})
CELLS = [
    (1, 8, "float32", 32, 40.0), (1, 8, "binary", 1, 20.0), (1, 64, "float32", 256, 50.001),
    (2, 8, "float32", 32, 50.004), (2, 8, "int8", 8, 50.0), (2, 64, "float32", 256, 80.0), (2, 64, "int8", 64, 79.0),
]  # fmt: skip
GRID = pd.DataFrame(CELLS, columns=["layer", "dim", "precision", "bytes", "spearman"]).assign(task="a")


def test_cells_get_their_costs_and_the_mean_over_tasks():
    both = pd.concat([GRID, GRID.assign(task="b", spearman=GRID["spearman"] + 10)])
    cells = cell_costs(both, COSTS)
    assert list(cells.columns) == ["layer", "dim", "precision", "ms", "speed_up", "bytes", "spearman"]
    assert cells["spearman"].tolist() == pytest.approx([c[4] + 5 for c in CELLS])
    assert cells[["ms", "speed_up"]].drop_duplicates().to_numpy().tolist() == [[2, 4], [8, 1]]
    plain = pd.DataFrame({"task": "a", "layer": [0, 1], "dim": [8, 8], "spearman": [1.0, 2.0]})  # as sts_grid
    assert cell_costs(plain, COSTS).to_numpy().tolist() == [[1, 8, "float32", 2, 4, 32, 2]]
    with pytest.raises(ValueError, match="lack layer 3"):
        cell_costs(plain.assign(layer=3), COSTS)
    with pytest.raises(ValueError, match="no cell of layer 1 or above"):
        cell_costs(plain.assign(layer=0), COSTS)


def test_front_keeps_what_nothing_beats():
    table = pd.DataFrame({"ms": [3, 1, 2, 2, 3, 1], "bytes": [1, 9, 5, 5, 9, 9], "value": [5.0, 1, 4, 4, 5, 0]})
    # row 4 costs more bytes than row 0 for the same value; row 5 is worth less than row 1; rows 2 and 3 are equal
    front = pareto_front(table, ["ms", "bytes"], "value")
    assert front.to_numpy().tolist() == [[1, 9, 1], [2, 5, 4], [2, 5, 4], [3, 1, 5]]
    assert pareto_front(table, ["bytes"], "value").to_numpy().tolist() == [[3, 1, 5]]
    for bad, word in ((table, "no column"), (table.assign(spearman=np.nan), "NaN")):
        with pytest.raises(ValueError, match=f"'spearman' is {word}"):
            pareto_front(bad, ["ms"])


def test_best_cell_within_limits():
    assert best_cell(GRID, COSTS) == (2, 64, "float32", 8.0, 256, 80.0)
    assert best_cell(GRID, COSTS, max_bytes=64)[:3] == (2, 64, "int8")
    assert best_cell(GRID, COSTS, max_ms=8, max_bytes=255, min_spearman=79)[:3] == (2, 64, "int8")
    assert best_cell(GRID, COSTS, max_ms=7.9, min_spearman=50)[:3] == (1, 64, "float32")
    assert best_cell(GRID, COSTS, max_ms=7.9, max_bytes=32)[:3] == (1, 8, "float32")


def test_of_equal_cells_the_cheaper_is_taken():
    equal = GRID[GRID["spearman"].round(2) == 50]  # in order: fast and large, slow and small twice
    assert best_cell(equal, COSTS)[:3] == (1, 64, "float32")
    assert best_cell(equal.iloc[::-1], COSTS)[:3] == (1, 64, "float32")
    assert best_cell(equal, COSTS, max_bytes=100)[:3] == (2, 8, "int8")
    assert best_cell(equal.assign(spearman=49.996), COSTS, min_spearman=50).dim == 64  # to two decimals it is 50


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_ms": 1}, ["no cell keeps to max_ms=1", "layer 1, dim 64, float32", "2.00 ms", "50.00"]),
        ({"max_bytes": 0.5}, ["no cell keeps to max_bytes=0.5", "layer 1, dim 8, binary", "1 bytes"]),
        ({"min_spearman": 90}, ["no cell keeps to min_spearman=90", "layer 2, dim 64, float32", "80.00"]),
        (
            {"max_ms": 5, "max_bytes": 32, "min_spearman": 70},
            ["no cell within max_ms=5 and max_bytes=32 keeps to min_spearman=70", "layer 1, dim 8, float32", "40.00"],
        ),
        ({"max_ms": 0}, ["max_ms is 0: it must be above 0"]),
        ({"max_bytes": math.nan}, ["max_bytes is nan: it must be above 0"]),
        ({"min_spearman": 700}, ["min_spearman is 700", "between -100 and 100"]),
    ],
)
def test_limits_that_cannot_be_met_are_named_with_what_comes_nearest(limits, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as error:
        best_cell(GRID, COSTS, **limits)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("cost", ["ms", "bytes"])
@pytest.mark.parametrize("size", [(6, 4.5), (3, 2.5)])
def test_names_on_the_front_overlap_nothing(cost, size):
    rng = np.random.default_rng(3)
    rows = [
        (n, d, p, vector_bytes(d, p), 10 * n + 4 * math.log2(d) + rng.normal())
        for n in (1, 2) for d in (8, 16, 20, 24, 32, 40, 64) for p in ("float32", "int8", "binary")
    ]  # fmt: skip
    cells = cell_costs(pd.DataFrame(rows, columns=["layer", "dim", "precision", "bytes", "spearman"]), COSTS)
    best = pareto_front(cells, [cost])
    ax = plt.figure(figsize=size, layout="constrained").add_subplot()
    assert plots.front(cells, best, ax, cost) is ax
    ax.figure.draw_without_rendering()
    names = [t for t in ax.texts if t.get_text()]
    wanted = {f"({row.layer}, {row.dim}) {row.precision}" for row in best.itertuples()}
    assert {t.get_text() for t in names} <= wanted
    assert len(names) >= 2
    if size == (6, 4.5):
        assert len(names) == len(wanted)
    boxes = [t.get_window_extent() for t in names] + [ax.get_legend().get_window_extent()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(ax.get_window_extent().padded(1).count_contains(box.corners()) == 4 for box in boxes)


def test_latency_and_speed_up_draw_the_table():
    ax = plots.latency(COSTS, plt.figure().add_subplot())
    assert ax.lines[0].get_ydata().tolist() == [2, 8]
    assert ax.lines[1].get_ydata().tolist() == [4, 8]  # n/N of layer 2's
    low, high = ax.collections[0].get_paths()[0].get_extents().get_points()[:, 1]
    assert (low, high) == pytest.approx((1.9, 8.2))
    ax = plots.speed_up(cell_costs(GRID, COSTS), plt.figure().add_subplot())
    assert [line.get_label() for line in ax.lines] == ["64", "8"]
    assert ax.lines[0].get_xydata().tolist() == [[1, 80], [4, 50.001]]
    assert [t.get_text() for t in ax.child_axes[0].get_xticklabels()] == ["2", "1"]
    assert len(plots.speed_up(cell_costs(GRID, COSTS), plt.figure().add_subplot(), dims=[8]).lines) == 1


def test_layers_too_near_each_other_are_not_all_named():
    ax = plt.figure().add_subplot()
    near = pd.DataFrame({"layer": [1, 2, 3], "dim": 8, "precision": "float32", "speed_up": [4, 1.01, 1], "spearman": 1})
    plots.speed_up(near, ax)
    assert [t.get_text() for t in ax.child_axes[0].get_xticklabels()] == ["3", "1"]


def test_costs_that_cannot_be_drawn_are_refused():
    ax = plt.figure().add_subplot()
    cells = cell_costs(GRID, COSTS)
    with pytest.raises(ValueError, match="cost is 'euros': choose one of ms, bytes"):
        plots.front(cells, cells, ax, "euros")
    with pytest.raises(ValueError, match="missing ms"):
        plots.front(cells.drop(columns="ms"), cells, ax, "ms")
    with pytest.raises(ValueError, match="missing one_text_ms"):
        plots.latency(COSTS.drop(columns="one_text_ms"), ax)
    with pytest.raises(ValueError, match="no rows"):
        plots.speed_up(cells, ax, dims=[7])


pick = functools.partial(run_app, "pick")


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(efficiency.layer_costs, "__defaults__", (sentences(5), 1, 5))  # one short round
    return tiny_encoder().save(tmp_path / "model")


@pytest.mark.parametrize(("most", "precision"), [(4, "int8|binary"), (1, "binary")])
def test_pick_prints_a_cell_and_the_python_that_uses_it(model, scored, tmp_path, most, precision):
    result = pick(model, "--max-bytes", most, "--tasks", scored, "--picture", tmp_path / "p.png")
    assert result.exit_code == 0, result.output
    line = rf"layer (\d), dim (\d+), ({precision})\n[\d.]+ ms .* (\d+) bytes .* ([-\d.]+) \("
    layer, dim, kind, size, spearman = re.search(line, result.output).groups()
    assert int(size) == vector_bytes(int(dim), kind) <= most
    grid = quantised_grid(Encoder.load(model), [scored])
    fits = grid[grid["bytes"] <= most]
    assert float(spearman) == round(fits["spearman"].max(), 2)
    names = {"texts": sentences(3)}
    exec(result.output.strip().splitlines()[-1], names)  # the printed line
    expected = quantise(Encoder.load(model).encode(sentences(3), int(layer), int(dim)), kind)
    np.testing.assert_array_equal(names["codes"], expected)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "--overwrite" in pick(model, "--picture", tmp_path / "p.png").stderr


def test_pick_among_given_dims(model, scored):
    result = pick(model, "--tasks", scored, "--dims", "5")
    assert result.exit_code == 0, result.output
    assert ", dim 5, " in result.output


def test_pick_in_float32_prints_a_line_that_runs():
    from twodmse.commands.costs import usage

    line = usage("bundled", 3, 64, "float32")
    assert line == "from twodmse import Encoder; vectors = Encoder.load('bundled').encode(texts, layer=3, dim=64)"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["/nowhere"], ["no model '/nowhere'"]),
        (["MODEL", "--max-ms", "-1"], ["max_ms is -1: it must be above 0"]),
        (["MODEL", "--min-spearman", "101"], ["min_spearman is 101"]),
        (["MODEL", "--tasks", "SCORED", "--max-bytes", "0.1"], ["no cell keeps to max_bytes=0.1", "1 bytes"]),
        (["MODEL", "--tasks", "sts99"], ["unknown data set 'sts99'"]),
        (["MODEL", "--tasks", ","], ["no tasks"]),
    ],
)
def test_pick_says_what_is_wrong_in_one_line(args, words, model, scored):
    result = pick(*[{"MODEL": model, "SCORED": scored}.get(a, a) for a in args])
    assert result.exit_code == 1
    message = [line for line in result.stderr.splitlines() if line.startswith("twodmse: ")]
    assert len(message) == 1
    assert all(word in message[0] for word in words)


@pytest.mark.slow
def test_codes_are_those_of_sentence_transformers():
    from sentence_transformers.util import quantize_embeddings

    vectors = normalise(np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32))
    np.testing.assert_array_equal(quantise(vectors, "int8"), quantize_embeddings(vectors, "int8"))
    np.testing.assert_array_equal(quantise(vectors, "binary"), quantize_embeddings(vectors, "ubinary"))
    ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)]) / 2
    expected = quantize_embeddings(vectors[:5], "int8", ranges=ranges)
    np.testing.assert_array_equal(quantise(vectors[:5], "int8", ranges), expected)


@pytest.mark.slow
def test_int8_scores_are_those_of_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    from twodmse.data.sets import load_pairs

    pairs = load_pairs("mini-sts")
    encoder = Encoder.load("bundled")
    grid = quantised_grid(encoder, ["mini-sts"], dims=[64], layers=[6]).set_index("precision")["spearman"]
    folder = encoder.save(tmp_path / "whole")
    peer = SentenceTransformer(str(folder), device="cpu")
    for precision in ("float32", "int8"):
        evaluator = EmbeddingSimilarityEvaluator(
            list(pairs.columns[0]), list(pairs.columns[1]), pairs.gold.tolist(), truncate_dim=64, write_csv=False,
            precision=precision, similarity_fn_names=["cosine"],
        )  # fmt: skip
        assert grid[precision] == pytest.approx(100 * evaluator(peer)["spearman_cosine"], abs=0.05)


def test_pairs_of_equal_texts_are_tied_in_every_precision():
    vectors = np.random.default_rng(0).normal(size=(50, 24)).astype(np.float32)
    rows = np.arange(50)
    for precision in ("float32", "int8", "binary"):
        assert (precision_scores(vectors, rows, rows, [5, 24], precision) == 1).all(), precision


def test_scores_that_are_all_one_have_no_best_cell(encoder):
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": [3, 3]}
    with pytest.raises(ValueError, match="spearman is not defined"):
        quantised_grid(encoder, [rows])


def test_a_view_computes_as_the_encoder_that_it_is_of(tmp_path):
    encoder = Encoder.load(tiny_encoder().save(tmp_path / "model"), dtype=torch.float32)
    assert cut_view(encoder, 2).dtype == torch.float32


def test_a_least_spearman_of_another_metric_is_refused(encoder, pairs):
    labelled = dataclasses.replace(pairs, gold=(pairs.gold > np.median(pairs.gold)).astype(float))
    grid, costs = sts_grid(encoder, [labelled], [8], metric="auc"), layer_costs(encoder, sentences(4), rounds=1)
    assert set(cell_costs(grid, costs)["metric"]) == {"auc"}
    mixed = pd.concat([grid, grid.assign(task="other", metric="spearman")])
    assert set(cell_costs(mixed, costs)["metric"]) == {"auc, spearman"}
    assert best_cell(grid, costs).spearman > 0
    with pytest.raises(ValueError, match="min_spearman is 60, and the grid holds auc: give a grid of Spearman"):
        best_cell(grid, costs, min_spearman=60)
