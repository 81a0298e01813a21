"""Every number in the project's prose comes from a stored table, and every picture from one too."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import run_app

from twodmse.quickstart import LEARNING_RATES, RATES, settings
from twodmse.study.beyond.backbone import backbone, backbone_claims
from twodmse.study.figures import draw_figures
from twodmse.study.report import fill, loose_numbers
from twodmse.study.tables import markdown

ROOT = Path(__file__).parents[1]
DATA = ROOT / "figures" / "data"
MEASURED = ["README.md", "figures/CLAIMS.md"]
PAGES = [*MEASURED, "twodmse/resources/corpus/DATA_CARD.md"]  # whose other numbers are rules: see test_corpus.py


@pytest.mark.parametrize("page", PAGES)
def test_blocks_say_what_the_tables_say(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("<!-- /") >= 1
    assert fill(text, DATA) == text, f"{page} is not up to date: run `make figures`"


@pytest.mark.parametrize("page", MEASURED)
def test_no_number_stands_outside_the_blocks(page):
    assert loose_numbers((ROOT / page).read_text(encoding="utf-8")) == []


def test_the_bundled_corpus_trains_each_recipe_at_the_rate_that_validation_picks():
    table = pd.read_csv(DATA / "quickstart_sweep.csv")
    assert all(set(rows["lr"]) == set(RATES) for _, rows in table.groupby("recipe"))
    best = table.loc[table.groupby("recipe")["spearman"].idxmax()].set_index("recipe")["lr"].to_dict()
    assert {recipe: settings(recipe)["lr"] for recipe in best} == best == LEARNING_RATES


def test_pictures_are_those_of_the_tables(tmp_path):
    first = draw_figures(tmp_path, DATA)
    before = {path.name: path.read_bytes() for path in first}
    assert {path.name: path.read_bytes() for path in draw_figures(tmp_path, DATA)} == before
    stored = {path.name for path in (ROOT / "figures").iterdir() if path.is_file()} - {"CLAIMS.md"}
    assert stored == set(before), "run `make figures`"


def test_the_second_backbone_stands_beside_the_first_at_the_same_share_of_its_layers(tmp_path):
    cells = pd.read_csv(DATA / "mpnet" / "study_cells.csv.gz").query("model == 'untouched' and layer == 6")
    dims = cells["dim"].isin([16, 32, 64, 128, 256, 512, 768])
    scores = cells.query("dim == 768")["spearman"].mean(), cells[dims]["spearman"].mean()
    row = next(line for line in backbone(DATA).splitlines() if line.startswith("| 3 of 6, 6 of 12"))
    assert row.endswith(f"| {scores[0]:.2f} | {scores[1]:.2f} |")
    assert backbone(tmp_path) == "No run on all-mpnet-base-v2 is stored: not tested here."


def test_claims_on_the_second_backbone_are_at_the_rates_of_its_own_sweep(tmp_path):
    shutil.copytree(DATA / "mpnet", tmp_path / "mpnet")
    for path in (tmp_path / "mpnet").iterdir():
        rows = pd.read_csv(path)
        rows[rows["run"] == "untouched-s0"].to_csv(path, index=False) if "run" in rows else None
    assert backbone_claims(tmp_path) == "No training on all-mpnet-base-v2 is stored: not tested here."
    sweep = [("2dmse", 5e-5, 60, 80), ("2dmse", 1e-4, 62, 79), ("2dmse", 2e-4, 61, 78), ("full", 5e-5, 70, 90)]
    sweep = pd.DataFrame(sweep, columns=["model", "lr", "below", "full"]).assign(seed=0, split="validation")
    sweep["run"] = [f"sweep-{row.model}-lr{row.lr:g}" for row in sweep.itertuples()]
    sweep.to_csv(tmp_path / "mpnet" / "study_sweep.csv", index=False)
    for rate, gain in ((5e-5, 2.0), (1e-4, 5.0), (2e-4, 99.0)):
        for path in (tmp_path / "mpnet").iterdir():
            if path.name == "study_sweep.csv":
                continue
            rows = pd.read_csv(path)
            more = rows[rows["run"] == "untouched-s0"].assign(run=f"2dmse-lr{rate:g}-s0", model="2dmse", steps=250)
            more = more.assign(lr=rate) if "lr" in more else more
            for name in more.columns[more.columns.str.match("draw_|spearman|below|full")]:
                more[name] += gain
            pd.concat([rows, more]).to_csv(path, index=False)
    text = backbone_claims(tmp_path)
    lifted = next(line for line in text.splitlines() if line.startswith("| 2DMSE lifts the layers below"))
    assert lifted.endswith("| +2.00 (+2.00 to +2.00) holds | +5.00 (+5.00 to +5.00) holds |")
    assert "| ... further than fine-tuning the last layer does | layers 1 to 11, mean of the dims | not tested" in text
    assert "Rates picked by sweeps of 30 steps" in text
    assert "5e-05, 0.0001, 0.0002: `2dmse` 5e-05* (1 seed) and 0.0001 (1 seed)." in text
    untouched = pd.read_csv(DATA / "mpnet" / "study_summary.csv").query("run == 'untouched-s0' and split == 'test'")
    assert f"| `2dmse`, 0.0001 | {untouched['below'].item() + 5:.2f} | {untouched['full'].item() + 5:.2f} |" in text
    for path in (tmp_path / "mpnet").iterdir():
        rows = pd.read_csv(path)
        rows[rows["run"] != "2dmse-lr5e-05-s0"].to_csv(path, index=False)
    assert "0.0002: `2dmse` 5e-05* (not run) and 0.0001 (1 seed)." in backbone_claims(tmp_path)


def test_the_command_draws_and_names_a_missing_table(tmp_path):
    (tmp_path / "data").mkdir()
    nothing = run_app("figures", "--out", tmp_path)
    assert nothing.exit_code == 1
    assert "no stored tables" in nothing.output
    table = pd.read_csv(DATA / "quickstart.csv")
    table.to_csv(tmp_path / "data" / "quickstart.csv", index=False)
    done = run_app("figures", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "quickstart.pdf").read_bytes().startswith(b"%PDF")


def test_fill_writes_a_block_anew_and_leaves_the_rest(tmp_path):
    pd.DataFrame({"baseline": ["jaccard", "minilm 6 384", "minilm 1 384"], "spearman": [1.234, 56.7, -8.0]}).to_csv(
        tmp_path / "corpus.csv", index=False
    )
    text = fill("before 1.5\n<!-- corpus -->\nold\n<!-- /corpus -->\nafter", tmp_path)
    assert text.startswith("before 1.5\n<!-- corpus -->\n")
    assert text.endswith("<!-- /corpus -->\nafter")
    assert "1.23;" in text
    assert "56.70" in text
    assert "-8.00" in text
    assert "old" not in text
    with pytest.raises(ValueError, match="unknown block 'nothing'"):
        fill("<!-- nothing -->\n<!-- /nothing -->", tmp_path)
    with pytest.raises(FileNotFoundError, match="quickstart"):
        fill("<!-- quickstart -->\n<!-- /quickstart -->", tmp_path)


def test_loose_numbers_by_hand():
    text = "it is 3.5 here, `4.5` there, [5.5](x/6.5.html), Python 3.11\n```\n7.5\n```\n<!-- a -->8.5<!-- /a -->"
    assert loose_numbers(text) == ["3.5", "5.5"]


def test_markdown_by_hand():
    table = pd.DataFrame({"a": [1, 2], "b": [0.123, 4.0]}, index=pd.Index(["x", "y"], name="n"))
    assert markdown(table) == "| n | a | b |\n| --- | ---: | ---: |\n| x | 1 | 0.12 |\n| y | 2 | 4.00 |"
