"""How often recipes train each cell, drawn: shares worked out by hand."""

import matplotlib
import pandas as pd
import pytest
import test_plots
from matplotlib import pyplot as plt

from twodmse import Recipe, plots

matplotlib.use("Agg")
_closed = test_plots._closed
COLUMNS = ["recipe", "step", "layer", "dim"]
# Four steps: (2, 8) at all of them, (1, 8) at one, (1, 4) at two (named twice at step 0), (2, 4) never.
BY_HAND = pd.DataFrame(
    [("one", step, 2, 8) for step in range(4)]
    + [("one", 3, 1, 8), ("one", 0, 1, 4), ("one", 0, 1, 4), ("one", 2, 1, 4)]
    + [("two", 0, 2, 8), ("two", 1, 3, 8)],
    columns=COLUMNS,
)
ALIGNED = pd.DataFrame([("one", 0, 1, 8), ("one", 1, 1, 8), ("two", 0, 0, 8)], columns=COLUMNS)


def written(ax):
    """The numbers of a picture by cell (layer, dim)."""
    rows, columns = ([int(t.get_text()) for t in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels()))
    return {(rows[int(y)], columns[int(x)]): t.get_text() for t in ax.texts for x, y in [t.get_position()]}


def dots(ax):
    rows, columns = ([int(t.get_text()) for t in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels()))
    places = [place for drawn in ax.collections[1:] for place in drawn.get_offsets()]
    return {(rows[int(y)], columns[int(x)]) for x, y in places}


def test_a_cell_shows_its_share_of_the_steps_and_an_untrained_one_nothing():
    one = BY_HAND[BY_HAND["recipe"] == "one"]
    ax = plots.trained_cells(one, plt.figure().add_subplot(), "title", aligned=[(1, 8)])
    assert written(ax) == {(2, 8): "100", (1, 8): "25", (1, 4): "50"}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["2", "1"]
    assert ax.collections[0].get_clim() == (1, 100)
    assert dots(ax) == {(1, 8)}
    assert ax.get_title() == "title"


def test_rows_and_columns_can_be_wider_than_the_table():
    one = BY_HAND[BY_HAND["recipe"] == "one"]
    ax = plots.trained_cells(one, plt.figure().add_subplot(), layers=[0, 1, 2], dims=[2, 4, 8])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["2", "1", "0"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2", "4", "8"]
    assert written(ax) == {(2, 8): "100", (1, 8): "25", (1, 4): "50"}


def test_recipes_share_layers_and_dims_and_each_has_its_own_steps_and_dots():
    axes = plots.trained_by_recipe(BY_HAND, ALIGNED, "all", across=1)
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    assert written(axes[0]) == {(2, 8): "100", (1, 8): "25", (1, 4): "50"}
    assert written(axes[1]) == {(2, 8): "50", (3, 8): "50"}  # of two steps
    assert {tuple(t.get_text() for t in ax.get_yticklabels()) for ax in axes} == {("3", "2", "1", "0")}
    assert [dots(ax) for ax in axes] == [{(1, 8)}, {(0, 8)}]
    assert " ".join(axes[0].figure.get_suptitle().split()) == "all (corner: cell that is aligned)"


def test_without_alignments_there_is_no_dot_and_spare_panels_are_hidden():
    three = pd.concat([BY_HAND, BY_HAND[BY_HAND["recipe"] == "two"].assign(recipe="three")])
    axes = plots.trained_by_recipe(three, title="all", across=2)
    assert [dots(ax) for ax in axes] == [set()] * 3
    figure = axes[0].figure
    assert figure.get_suptitle() == "all"
    assert [ax.axison for ax in figure.axes] == [True, True, True, False, True]  # the last is the colour bar


def test_full_trains_one_cell_and_mrl_one_row():
    rows = [
        (name, step, *cell) for name in ("full", "mrl") for step in (0, 1) for cell in Recipe(name, 3, 32).cells(step)
    ]
    full, mrl = plots.trained_by_recipe(pd.DataFrame(rows, columns=COLUMNS))
    assert written(full) == {(3, 32): "100"}
    assert written(mrl) == {(3, 8): "100", (3, 16): "100", (3, 32): "100"}


def test_tables_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="missing step"):
        plots.trained_cells(BY_HAND.drop(columns="step"), plt.figure().add_subplot())
    with pytest.raises(ValueError, match="missing recipe"):
        plots.trained_by_recipe(BY_HAND.drop(columns="recipe"))
    with pytest.raises(ValueError, match="no rows"):
        plots.trained_by_recipe(BY_HAND.iloc[:0])
