from collections import Counter

import pytest

from twodmse.objectives import recipes
from twodmse.objectives.plan import TEACHER, Cell, Plan
from twodmse.objectives.recipes import RECIPES, Recipe, doubling, register_recipe
from twodmse.objectives.summary import describe

N, D = 12, 768


def plan(name, step=0, **options):
    return Recipe(name, N, D, **options).plan(step)


def terms(p):
    return {cell.term: (cell.layer, cell.dim, cell.weight) for cell in p.cells}


def test_doubling_leaves_the_full_width_out():
    assert doubling(768) == (8, 16, 32, 64, 128, 256, 512)
    assert doubling(384) == (8, 16, 32, 64, 128, 256)


def test_full_and_mrl():
    assert terms(plan("full")) == {"last_full": (12, 768, 1.0)}
    assert Recipe("mrl", N, D).cells(0) == [(12, d) for d in (8, 16, 32, 64, 128, 256, 512, 768)]
    assert Recipe("mrl", N, D, dims=(64, 32)).cells(0) == [(12, 32), (12, 64)]


def test_2dmse_is_the_papers_step():
    p = plan("2dmse", step=3)
    s, d = p.sampled["layer"], p.sampled["dim"]
    assert terms(p) == {
        "last_full": (12, 768, 1.0),
        "last_cut": (12, d, 1.0),
        "shallow_full": (s, 768, 1.0),
        "shallow_cut": (s, d, 1.0),
    }
    (kl,) = p.alignments
    assert (kl.layer, kl.dim, kl.target, kl.weight, kl.kind, kl.temperature) == (s, 768, 12, 1.0, "coordinates", 1.0)
    assert not kl.detached


def test_2dmse_draws_layers_1_to_n_minus_1_and_all_dims_but_the_full_one():
    draws = [plan("2dmse", step).sampled for step in range(2000)]
    layers, dims = Counter(d["layer"] for d in draws), Counter(d["dim"] for d in draws)
    assert sorted(layers) == list(range(1, 12))
    assert sorted(dims) == [8, 16, 32, 64, 128, 256, 512]
    assert min(layers.values()) > 0.7 * 2000 / 11
    assert min(dims.values()) > 0.7 * 2000 / 7


def test_a_step_draws_the_same_in_every_process_and_after_a_resume():
    first = [Recipe("2dmse", N, D, seed=1).cells(step) for step in range(20)]
    assert [Recipe("2dmse", N, D, seed=1).cells(step) for step in reversed(range(20))] == first[::-1]
    assert [Recipe("2dmse", N, D, seed=2).cells(step) for step in range(20)] != first


def test_ablations_drop_their_terms():
    assert "last_full" not in terms(plan("2dmse", last_layer=False))
    assert "last_cut" not in terms(plan("2dmse", last_layer=False))
    assert plan("2dmse", last_layer=False).alignments
    assert not plan("2dmse", alignment=False).alignments
    assert set(terms(plan("2dmse", matryoshka=False))) == {"last_full", "shallow_full"}


@pytest.mark.parametrize(("name", "first"), [("st2d", 0), ("st2d-2024", 1)])
def test_st2d_draws_a_dim_for_each_layer_and_may_draw_the_embedding_output(name, first):
    plans = [plan(name, step) for step in range(500)]
    assert {p.sampled["layer"] for p in plans} == set(range(first, 12))
    assert any(p.sampled["dim"] != p.sampled["last_dim"] for p in plans)
    assert {p.sampled["dim"] for p in plans} == {8, 16, 32, 64, 128, 256, 512, 768}
    assert set(terms(plans[0])) == {"last_cut", "shallow_cut"}


def test_a_shallow_weight_of_0_leaves_the_sampled_layer_and_its_kl_out():
    for name in ("2dmse", "2dmse-weighted"):
        p = plan(name, shallow_weight=0.0)
        assert set(terms(p)) == {"last_full", "last_cut"}
        assert not p.alignments
        with pytest.raises(ValueError, match="no layer is left to train"):
            plan(name, shallow_weight=0.0, last_layer=False)


@pytest.mark.parametrize("teacher_dim", [None, D, 384])
def test_a_cascade_is_the_grid_with_each_layer_drawn_to_the_next_one_up(teacher_dim):
    options = {"teacher_dim": teacher_dim} | ({"pair_weight": 2.0} if teacher_dim else {})
    own, grid = plan("cascade", **options), plan("grid", **options)
    assert own.cells == grid.cells
    assert [a._replace(target=0) for a in own.alignments] == [a._replace(target=0) for a in grid.alignments]
    top = N if teacher_dim is None else TEACHER
    assert {(a.layer, a.target) for a in own.alignments} == {(n, n + 1) for n in range(1, N)} | {(N, top)}
    assert {a.target for a in grid.alignments} == {top}
    assert all(a.detached for a in own.alignments)


def test_starbucks_pairs():
    assert Recipe("starbucks", N, D).cells(0) == [(2, 32), (4, 64), (6, 128), (8, 256), (10, 512), (12, 768)]
    assert Recipe("starbucks", 6, 384).cells(0) == [(1, 16), (2, 32), (3, 64), (4, 128), (5, 256), (6, 384)]


def test_grid_with_a_teacher_ranks_the_pairs_of_every_cell_if_asked():
    plain, ranked = (Recipe("grid", 6, 384, teacher_dim=384, pair_weight=w).plan(0) for w in (0, 2.0))
    added = [a for a in ranked.alignments if a.kind == "pairs"]
    assert [a for a in ranked.alignments if a.kind != "pairs"] == plain.alignments
    assert {(a.layer, a.dim) for a in added} == {(n, d) for n in range(1, 7) for d in (8, 16, 32, 64, 128, 256, 384)}
    assert sum(a.weight for a in added) == pytest.approx(2.0)
    assert all(a.target == TEACHER and a.detached and a.term == f"pairs_{a.layer}" for a in added)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("layers", "dim"), [(2, 8), (3, 20), (6, 384), (24, 1024)])
def test_every_recipe_stays_inside_the_grid(name, layers, dim):
    recipe = Recipe(name, layers, dim)
    for step in range(50):
        p = recipe.plan(step)
        assert all(0 <= c.layer <= layers and 1 <= c.dim <= dim and c.weight > 0 for c in p.cells)
        assert all(0 <= a.layer <= layers and 1 <= a.dim <= dim for a in p.alignments)


OTHER = {
    "last_layer": False, "alignment": False, "matryoshka": False, "shallow_weight": 0.5, "temperature": 0.7,
    "align_weight": 3.0, "compress_dim": 64, "hold_weight": 0.2, "pair_weight": 1.5,
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_every_option_of_a_recipe_changes_its_plan(name):
    for teacher_dim, spec in ((None, RECIPES[name]), (D, RECIPES[name].with_teacher)):
        for option in spec.options if spec else ():
            plain, changed = (
                Recipe(name, N, D, teacher_dim=teacher_dim, **options).plan(0)
                for options in ({}, {option: OTHER[option]})
            )
            assert plain != changed, f"{name} does not look at {option}"


def test_what_a_recipe_does_not_use_is_refused():
    for name, spec in RECIPES.items():
        for option in OTHER.keys() - spec.options.keys():
            with pytest.raises(ValueError, match=f"unknown option of recipe '{name}' '{option}'"):
                Recipe(name, N, D, **{option: OTHER[option]})
        if not spec.with_teacher:
            with pytest.raises(ValueError, match=f"recipe '{name}' aligns to no teacher"):
                Recipe(name, N, D, teacher_dim=D)


def test_a_new_recipe_is_registered_once(monkeypatch):
    def corner(draw):
        """One cell."""
        return Plan([Cell(1, draw.options.width, 1.0, "corner")], [], {})

    monkeypatch.setattr("twodmse.objectives.recipes.RECIPES", dict(RECIPES))
    register_recipe("corner", corner, source="here", options={"width": 4})
    assert Recipe("corner", 3, 24).cells(0) == [(1, 4)]
    assert Recipe("corner", 3, 24, width=6).cells(0) == Recipe(corner, 3, 24, width=6).cells(5) == [(1, 6)]
    register_recipe("corner", corner, options={"width": 8})  # a plugin imported twice
    with pytest.raises(ValueError, match="there is a recipe '2dmse' already"):
        register_recipe("2dmse", corner)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "3dmse"}, "unknown recipe '3dmse': choose one of full, mrl"),
        ({"dims": (0, 8)}, "out of range"),
        ({"dims": (8, 999)}, "out of range"),
        ({"num_layers": 1}, "at least 2 layers"),
    ],
)
def test_bad_recipes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"name": "2dmse", "num_layers": N, "dim": D} | options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("starbucks", {"dims": (8,)}, "unknown option of recipe 'starbucks' 'dims'"),
        ("full", {"dims": (4,)}, "unknown option of recipe 'full' 'dims'"),
        ("2dmse", {"noise": 0.5}, "unknown option of recipe '2dmse' 'noise'"),
        ("2dmse", {"alignment": False, "temperature": 0.5}, "temperature is 0.5: without alignment it has no effect"),
        ("2dmse", {"matryoshka": False, "dims": (4,)}, r"dims is \(4,\): without matryoshka it has no effect"),
    ],
)
def test_options_without_effect_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(name, 4, 32, **options)


@pytest.mark.parametrize("name", ["", " ", "own:mine", "grid+teacher", 3])
def test_names_that_recipes_cannot_have_are_refused(name):
    with pytest.raises(ValueError, match="a recipe cannot be called"):
        register_recipe(name, lambda draw: None)


def test_tables_take_every_plan_that_can_be_trained(monkeypatch):
    monkeypatch.setattr(recipes, "RECIPES", dict(recipes.RECIPES))

    def one(draw):
        """A drawn layer, not in a list."""
        layer = draw.layer()
        return Plan(Cell(layer, 8, 1.0, "drawn"), [], {"layer": layer})

    register_recipe("one", one)
    assert describe(Recipe("one", 4, 32))["layers"] == "1..3"
