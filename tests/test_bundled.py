"""The bundled model for real: cutting it, saving it for sentence-transformers, and a short quickstart."""

import numpy as np
import pandas as pd
import pytest

from twodmse import Encoder
from twodmse.encoder import hub as folders
from twodmse.quickstart import STEPS, quickstart, summary

pytestmark = pytest.mark.slow
TEXTS = ["A man plays the guitar.", "Nobody is playing anything.", "Shares fell by 3% on Monday, traders say", "Why?"]


@pytest.fixture(scope="module")
def minilm():
    return Encoder.load("bundled")


def test_slice_n_is_the_cut_model(minilm):
    assert (minilm.num_layers, minilm.dim) == (6, 384)
    states = minilm.states(TEXTS)
    for n in range(1, 7):
        assert abs(minilm.submodel(n).states(TEXTS)[-1] - states[n]).max() <= 1e-4


@pytest.mark.parametrize(("layer", "dim"), [(6, 384), (3, 64), (1, 16)])
def test_saved_cells_load_in_sentence_transformers_with_the_same_vectors(minilm, tmp_path, layer, dim):
    from sentence_transformers import SentenceTransformer

    folder = minilm.submodel(layer, dim).save(tmp_path / "cell")
    peer = SentenceTransformer(str(folder), device="cpu")
    expected = minilm.encode(TEXTS, layer, dim)
    np.testing.assert_allclose(peer.encode(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(Encoder.load(folder).encode(TEXTS), expected, atol=1e-6)


def test_weights_that_are_not_the_published_ones_are_refused(monkeypatch):
    monkeypatch.setattr(folders, "BUNDLED_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="have sha256 53aa51172d14"):
        Encoder.load("bundled")


def test_quickstart_shows_what_2dmse_lifts_and_what_the_top_pays(tmp_path):
    lines = []
    folder = quickstart(tmp_path / "quickstart", steps=STEPS // 3, say=lines.append)
    assert sorted(p.name for p in folder.iterdir()) == [
        "2dmse", "full", "grid", "grid.csv", "heatmaps.png", "history.csv", "timings.csv",
    ]  # fmt: skip
    grid = pd.read_csv(folder / "grid.csv")
    table = summary({name: part for name, part in grid.groupby("model")})
    lower = table.loc[2:5].mean()
    assert lower["2dmse"] >= lower["untouched"] + 20
    assert lower["2dmse"] > lower["full"] + 10
    assert any(line.startswith("full cell (6, 384): untouched") for line in lines)
    assert set(pd.read_csv(folder / "history.csv")["recipe"]) == {"full", "2dmse", "grid"}
    assert Encoder.load(folder / "2dmse" / "model").num_layers == 6
    second = quickstart(tmp_path / "quickstart", steps=1, say=lines.append)
    assert second.name == "quickstart-2"
    assert any(str(second) in line for line in lines)
