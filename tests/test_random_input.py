"""Commands, settings and damaged folders drawn at random: each must be refused in one line, and nothing be lost.

Every input is damaged in a way that must matter. TWODMSE_INPUTS says how many are drawn, TWODMSE_SEED from where.
"""

import json
import os
from collections import Counter

import numpy as np
import pytest
from conftest import DIM, LAYERS, run_app, sentences, tiny_encoder
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.slow
INPUTS, SEED = (int(os.environ.get(f"TWODMSE_{name}", least)) for name, least in (("INPUTS", 150), ("SEED", 0)))
WRONG = {
    "lr": ["0", "-1", "nan", "1e300", "fast", "[1]"],
    "dims": ["16", "null", "[0]", "[1.5]", "[[8]]", f"[{DIM + 1}]"],
    "steps": ["0", "-3", "1.5", "many", "true"],
    "batch_size": ["1", "0", "9999", "null"],
    "recipe": ["2dmes", "[1]", "7", '""'],
    "temperature": ["0", "-1", "inf", '"hot"'],
    "seed": ["-1", "4294967296", "0.5"],
    "loss": ["cosin", "1"],
    "stepss": ["3"], "bacth_size": ["8"], "pooling": ["max", "3"], "data": ["5", "nowhere.csv", '["t.csv"]'],
    "teacher": ["./nowhere", "3"], "noise": ["2", "-1"], "log_every": ["5000"], "max_length": ["1", "-4", "1.5"],
}  # fmt: skip
FILES = {
    "twodmse.json": ["", "[]", "null", '{"pooling": "max", "max_length": 32, "dim": 32}', "{}"],
    "config.json": ["", "[]", "{", '{"model_type": "nothing"}'],
    "modules.json": ["", "null", "[1]", '[{"type": 3}]', "[]"],
    "1_Pooling/config.json": ["", "[]", '{"pooling_mode": "median"}', '{"pooling_mode_max_tokens": true}'],
    "sentence_bert_config.json": ["[]", '{"max_seq_length": -1}', '{"max_seq_length": "long"}'],
    "tokenizer.json": ["", "{}", "[]", "null"],
    "model.safetensors": ["", "{}", "0123456789"],
}
TABLE = "sentence1,sentence2,score\n"
TABLES = [
    "", TABLE, TABLE + "a,b,1\na,c,1\na,d,1\n", TABLE + "a,b,x\na,c,2\n", TABLE + "a,,1\na,c,2\na,d,3\n",
    TABLE + "a,b,nan\na,c,2\na,d,3\n", "one,two,score\na,b,1\na,c,2\n", TABLE + 'a,"b,1\na,c,2\n', TABLE + "a,b,1,9\n",
    TABLE + "a,b\nc,d\n", "sentence1,sentence1,score\na,b,1\na,c,2\n", "\x00\x01\x02",
]  # fmt: skip


def broken_weights(folder, rng):
    """NaN, an infinity, a layer of zeros, whole numbers, another shape, or one tensor too few."""
    tensors, kind = load_file(folder / "model.safetensors"), int(rng.integers(5))
    names = sorted(name for name in tensors if name.endswith("dense.weight") and "layer" in name)
    name = names[rng.integers(len(names))]
    if kind < 2:
        tensors[name][0, 0] = (np.nan, np.inf)[kind]
    elif kind == 2:
        tensors[name] = tensors[name].astype(np.int32)
    elif kind == 3:
        tensors[name] = tensors[name][:-1]
    else:
        del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def damaged_model(folder, rng):
    kind = int(rng.integers(4))
    if kind == 0:
        broken_weights(folder, rng)
    elif kind == 1:
        config = json.loads((folder / "config.json").read_text())
        key, value = [("num_hidden_layers", LAYERS + 1), ("hidden_size", 16), ("intermediate_size", 7)][rng.integers(3)]
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
    else:
        name = sorted(FILES)[rng.integers(len(FILES))]
        (folder / name).write_text(FILES[name][rng.integers(len(FILES[name]))])


def drawn(rng, here):
    """A command with something wrong in it."""
    kind, model, pairs = int(rng.integers(4)), here / "m", here / "p.csv"
    if kind == 0:
        key = sorted(WRONG)[rng.integers(len(WRONG))]
        value = WRONG[key][rng.integers(len(WRONG[key]))]
        common = ["train", "--backbone", model, "--data", here / "t.csv", "--batch-size", 4, "--steps", 2]
        return [*common, "--precision", "fp32", "--out", here / "run", "--set", f"{key}={value}"]
    if kind == 1:
        damaged_model(model, rng)
    elif kind == 2:
        pairs.write_text(TABLES[rng.integers(len(TABLES))])
        return ["grid", model, "--tasks", pairs, "--dims", 8, "--out", here / "g.csv"]
    wrong = [] if kind == 1 else [["--layer", LAYERS + 1], ["--dim", 0], ["--dim", "x"], ["--lay", 2]][rng.integers(4)]
    commands = [
        ["encode", model, here / "s.txt", "--out", here / "v.npy"],
        ["export", model, "--out", here / "new", "--overwrite"],
    ]
    return [*commands[rng.integers(2)], *wrong]


def test_random_inputs_are_clear(tmp_path):
    rng, counts, wrong = np.random.default_rng(SEED), Counter(), []
    encoder, texts = tiny_encoder(), sentences(24)
    for number in range(INPUTS):
        here = tmp_path / str(number)
        here.mkdir()
        encoder.save(here / "m")
        rows = [f"{a},{b},{i}" for i, (a, b) in enumerate(zip(texts[:12], texts[12:], strict=True))]
        (here / "p.csv").write_text(TABLE + "\n".join(rows))
        (here / "t.csv").write_text("anchor,positive\n" + "\n".join(row.rpartition(",")[0] for row in rows))
        (here / "s.txt").write_text("\n".join(texts))
        (here / "cell").mkdir()
        (here / "cell" / "thesis.txt").write_text("mine")
        command = drawn(rng, here)
        before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
        result = run_app(*command)
        after = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
        kind = "clear"
        if before.items() - after.items():
            kind = "lost"
        elif result.exit_code == 0:
            kind = "silent"
        elif not isinstance(result.exception, SystemExit):
            kind = "traceback"
        elif result.exit_code == 1 and result.stderr.count("twodmse: ") != 1:
            kind = "unclear"
        counts[kind] += 1
        if kind != "clear":
            wrong.append(
                (kind, " ".join(str(part) for part in command[:1] + command[-4:]), str(result.exception)[:200])
            )
    print(dict(counts))  # noqa: T201
    assert not wrong, "\n".join(map(str, wrong))
