"""The tables of recipes say what the papers and their code do, and follow the recipes when those change."""

import functools

import pytest
from conftest import run_app

from twodmse.objectives import summary as describe
from twodmse.objectives.plan import Cell, Plan, RecipeSpec
from twodmse.objectives.recipes import RECIPES, Recipe
from twodmse.objectives.summary import alignment_table, difference, recipe_difference, recipe_table

COLUMNS = [
    "recipe", "sampled_layers", "sampled_dims", "cells", "layers", "dims", "weight", "alignment", "direction",
    "distance", "align_dims", "temperature", "align_weight", "detached", "first_step", "summary", "source",
    "departs",
]  # fmt: skip


@pytest.fixture(scope="module")
def table():
    return recipe_table(12, 768).set_index("recipe", drop=False)


def test_one_row_a_recipe_and_one_more_for_the_teacher(table):
    assert list(table["recipe"]) == [*RECIPES, "grid+teacher", "cascade+teacher"]
    assert list(table.columns) == COLUMNS
    assert all(isinstance(value, str) for value in table.to_numpy().flat)


# What a reader of the papers and of their code expects for 12 layers and a width of 768.
@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("full", {"sampled_layers": "none", "cells": "1", "layers": "12", "dims": "768", "alignment": "none"}),
        ("mrl", {"cells": "8", "layers": "12", "dims": "8..512 768", "weight": "1", "detached": "none"}),
        (
            "2dmse",
            {
                "sampled_layers": "1..11", "sampled_dims": "8..512", "cells": "4", "layers": "1..12", "weight": "1",
                "dims": "8..512 768", "alignment": "coordinates", "direction": "layer 12 -> 1..11",
                "temperature": "1", "align_weight": "1", "align_dims": "768", "detached": "no",
            },
        ),
        ("cascade", {"alignment": "scores", "direction": "layers 2..12 -> 1..12"}),
        ("cascade+teacher", {"direction": "teacher and layers 2..12 -> 1..12", "detached": "yes"}),
        ("2dmse-weighted", {"weight": "1..0.0909, layer 12: 1", "align_weight": "1.1..2.56"}),
        (
            "ese",
            {
                "sampled_layers": "none", "cells": "13", "layers": "0..10 12", "dims": "128, layer 12: 128 768",
                "weight": "0.0909..0.0268, layer 12: 1", "alignment": "compress", "align_dims": "128",
                "direction": "own compression -> 0..10 12", "detached": "yes",
            },
        ),
        (
            "st2d",
            {
                "sampled_layers": "0..11", "sampled_dims": "dim: 8..512 768, last_dim: 8..512 768", "cells": "2",
                "layers": "0..12", "temperature": "0.3", "align_weight": "0.3", "detached": "yes",
            },
        ),
        (
            "starbucks",
            {
                "layers": "2 4 6 8 10 12", "dims": "32..512, layer 12: 768", "direction": "layer 12 -> 2 4 6 8 10",
                "align_dims": "32..512", "temperature": "1", "align_weight": "0.3", "detached": "no",
                "first_step": "(2,32) (4,64) (6,128) (8,256) (10,512) (12,768)",
            },
        ),
        (
            "grid",
            {
                "cells": "96", "layers": "1..12", "alignment": "scores", "temperature": "0.05",
                "align_dims": "8..512 768, layer 12: 8..512",  # all cells but (12, 768), the target
            },
        ),
        ("grid+teacher", {"cells": "1", "layers": "12", "alignment": "scores + pairs + vectors"}),
    ],
)  # fmt: skip
def test_rows_say_what_the_sources_say(table, recipe, expected):
    assert dict(table.loc[recipe, list(expected)]) == expected


def test_summary_and_source_are_those_of_the_recipe(table):
    assert table.loc["mrl", "summary"] == "The last layer at every dim, equal weights"
    assert table.loc["mrl", "source"] == "MRL (Kusupati et al., 2205.13147v4), eq. 1 with c_m = 1"
    assert table.loc["ese", "source"] == "2402.14776v2; AnglE HEAD AngleESETrainer"
    assert table.loc["ese", "departs"].startswith("exact SVD with fixed signs")
    assert table.loc["st2d", "departs"] == ""
    assert table.loc["st2d", "distance"].startswith("KL(teacher || student) of the softmax over coordinates")


def test_kinds_of_alignment_are_all_explained():
    assert list(alignment_table()["kind"]) == ["coordinates", "scores", "pairs", "vectors", "compress"]
    assert alignment_table()["distance"].str.len().min() > 20


def test_the_table_follows_the_recipes(monkeypatch):
    def newcomer(draw):
        """A recipe nobody published.

        And nobody will.
        """
        return Plan([Cell(1, 8, 0.5, "x"), Cell(3, 24, 0.25, "y")], [], {})

    monkeypatch.setitem(RECIPES, "newcomer", RecipeSpec(newcomer, source="nowhere"))
    row = describe.describe(Recipe("newcomer", 3, 24))
    assert (row["layers"], row["dims"], row["weight"]) == ("1 3", "8, layer 3: 24", "0.5, layer 3: 0.25")
    assert (row["cells"], row["first_step"], row["source"]) == ("2", "(1,8) (3,24)", "nowhere")
    assert row["summary"] == "A recipe nobody published"


def test_sizes_are_those_asked_for():
    small = recipe_table(3, 24).set_index("recipe")
    assert small.loc["2dmse", ["sampled_layers", "sampled_dims"]].tolist() == ["1 2", "8 16"]
    assert small.loc["ese", "layers"] == "0 1 3"
    assert small.loc["mrl", "dims"] == "8 16 24"
    with pytest.raises(ValueError, match="needs at least 2 layers"):
        recipe_table(1, 24)


def test_too_few_layers_are_counted(monkeypatch):
    monkeypatch.setitem(RECIPES, "deep", RecipeSpec(lambda draw: None, source="nowhere", min_layers=4))
    with pytest.raises(ValueError, match="recipe 'deep' needs at least 4 layers, this backbone has 3"):
        Recipe("deep", 3, 24)


def test_every_draw_of_a_deep_and_wide_encoder_is_found():
    deep = recipe_table(48, 4096).set_index("recipe")
    assert deep.loc["st2d", "sampled_layers"] == "0..47"
    assert deep.loc["2dmse", "sampled_dims"] == "8..2048"


def test_two_recipes_differ_only_in_what_differs():
    table = recipe_difference("2dmse", "2dmse-weighted", 12, 768)
    assert list(table.columns) == ["property", "2dmse", "2dmse-weighted"]
    assert table["property"].tolist() == ["weight", "align_weight", "summary", "source", "departs"]
    assert table.iloc[0].tolist() == ["weight", "1", "1..0.0909, layer 12: 1"]
    assert recipe_difference("st2d", "st2d", 12, 768).empty
    with pytest.raises(ValueError, match="unknown recipe 'esse': choose one of full, mrl"):
        recipe_difference("2dmse", "esse", 12, 768)


def test_a_switch_shows_as_a_difference():
    plain, without = Recipe("2dmse", 12, 768), Recipe("2dmse", 12, 768, last_layer=False)
    assert difference(plain, without)["property"].tolist() == ["cells", "layers", "first_step"]
    cooler = difference(plain, Recipe("2dmse", 12, 768, temperature=0.5)).set_index("property")
    assert cooler.loc["align_weight"].tolist() == ["1", "0.25"]
    assert cooler.loc["temperature"].tolist() == ["1", "0.5"]


run = functools.partial(run_app, "recipes")


def test_the_command_prints_every_recipe_in_each_part():
    result = run("--layers", "6", "--dim", "384")
    assert result.exit_code == 0, result.output
    for name, spec in RECIPES.items():
        parts = 3 + bool(spec.departs)
        assert sum(line.split()[:1] == [name] for line in result.output.splitlines()) == parts
    rows = [" ".join(line.split()) for line in result.output.splitlines() if line.startswith("2dmse-weighted ")]
    assert rows == [
        "2dmse-weighted 1..5 8..256 4 1..6 8..256 384 1..0.2, layer 6: 1",
        "2dmse-weighted coordinates layer 6 -> 1..5 1 1.1..1.95 no",
        "2dmse-weighted AnglE 347bbb6",
        "2dmse-weighted the packages 0.3.8 to 0.3.10 weigh the KL T, not T ln(2+s)",
    ]


def test_the_command_prints_only_what_differs_between_two():
    result = run("2dmse", "st2d")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[lines.index("temperature") + 1 :][:2] == ["  2dmse  1", "  st2d   0.3"]
    assert "weight" not in lines  # 1 in both
    assert run("mrl", "mrl").output == "mrl and mrl train the same\n"


def test_the_command_refuses_what_it_cannot_show():
    one = run("2dmse")
    assert (one.exit_code, one.output.count("\n")) == (1, 1)
    assert "give two to compare" in one.output
    unknown = run("2dmse", "esse")
    assert (unknown.exit_code, unknown.output.count("\n")) == (1, 1)
    assert "unknown recipe 'esse': choose one of full, mrl" in unknown.output
    assert run("--layers", "1").exit_code == 2
    assert "grid+teacher" in run("--help").output
