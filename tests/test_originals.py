"""Ours beside the authors' own packages, each run in a process of its own: the same values and gradients, to 1e-5.

The packages are installed without what they depend on, one folder each, into ``.venv-originals`` beside this checkout;
`original_code` runs their losses and steps on the tensors and the small model that are given to it. What differs is
named where it is tested: the weight of the KL in AnglE's packages 0.3.8 to 0.3.10, the randomised decomposition of ESE,
the weights of sentence-transformers 5.2 to 5.6, and graded pairs under the in-batch term.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DIM, LAYERS, sentences, tiny_encoder
from filelock import FileLock
from torch.testing import assert_close

from twodmse.data.sets import TextSet
from twodmse.files import atomic_folder
from twodmse.objectives.objective import BaseLoss, objective
from twodmse.objectives.recipes import Recipe
from twodmse.training.batches import Collator

pytestmark = [pytest.mark.originals, pytest.mark.xdist_group("originals")]

HERE = Path(__file__).parent
HOME = HERE.parent / ".venv-originals"
PACKAGES = {
    "angle-first": ("angle-emb", "0.3.7"),  # February 2024: 2DMSE as in AnglE 74e5ba2
    "angle-weighted": ("angle-emb", "0.3.10"),  # March 2024: weights by depth
    "angle-today": ("angle-emb", "0.6.1"),  # ESE, and hard negatives apart
    "st-2024": ("sentence-transformers", "5.1.2"),  # the loss of 2024, layers 1..N-1
    "st-linear": ("sentence-transformers", "5.6.1"),  # the last before layers got equal weights
}
ROWS = 6
LABELS = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
FIRST = BaseLoss(1.0, 1.0, 1.0, 20.0, angle_scale=1.0)  # the defaults of AnglE 74e5ba2
README = BaseLoss(20.0, 1.0, 1.0, 20.0)  # its README_2DMSE
NLI = BaseLoss(30.0, 0.0, 1.0, 20.0)  # its examples/NLI
TODAY = BaseLoss(1.0, 0.0, 0.02, 20.0, hard=1.0)  # the defaults of 0.6.1
BASES = {
    "ranking": BaseLoss(),
    "cosent": BaseLoss(0.0, 1.0),
    "angle": BaseLoss(0.0, 0.0, 1.0),
    "angle, scale 1": BaseLoss(0.0, 0.0, 1.0, angle_scale=1.0),
    "first": FIRST,
    "readme": README,
    "nli": NLI,
}
KINDS = ("pairs", "triplets", "unlabelled")
DIMS = (4, 8, 16, 24, DIM)


# ---------------------------------------------------------------- their side


def installed(package, version):
    """The folder that holds one version of a package, alone; installed once."""
    folder = HOME / f"{package}-{version}"
    HOME.mkdir(exist_ok=True)
    with FileLock(HOME / ".lock"):  # another run of the tests may be installing it
        if folder.is_dir():
            return folder
        wanted = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target"]
        with atomic_folder(folder) as work:
            command = [sys.executable, "-m", "pip", "install", *wanted, str(work), f"{package}=={version}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode:
                pytest.skip(f"{package} {version} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def weights_of(base, name):
    """The arguments of AngleLoss in that package for a base loss of ours."""
    old = name != "angle-today"
    cosine, ranking, angle = ("w1", "w2", "w3") if old else ("cosine_w", "ibn_w", "angle_w")
    weights = {cosine: base.cosent, ranking: base.contrastive, angle: base.angle}
    if not old:
        weights["cln_w"] = base.hard or 0.0
    own = base.scale if base.angle_scale is None else base.angle_scale
    return weights | {"cosine_tau": base.scale, "ibn_tau": base.scale, "angle_tau": own}


def format_of(kind, name):
    """The letter of a layout of rows; triplets and unlabelled pairs changed places."""
    letters = ("A", "C", "B") if name == "angle-today" else ("A", "B", "C")
    return dict(zip(KINDS, letters, strict=True))[kind]


def loss_cases(name):
    """Every base loss on pairs, triplets and unlabelled pairs, at two widths."""
    bases = BASES | ({"today": TODAY, "hard alone": BaseLoss(0.0, hard=1.0)} if name == "angle-today" else {})
    cases = {}
    for kind in KINDS:
        for word, base in bases.items():
            if kind == "unlabelled" and word != "ranking":  # they leave all weights out
                continue
            if kind == "triplets" and name == "angle-today" and base.hard is None:
                continue  # tested with hard negatives apart
            if kind == "pairs" and word == "hard alone":
                continue  # nothing is left of it
            for d in (8, 16):
                cases[f"{word} {kind} {d}"] = (kind, base, d)
    return cases


def vectors(kind):
    generator = torch.Generator().manual_seed(3)
    count = 3 if kind == "triplets" else 2
    return [torch.randn(ROWS, 16, generator=generator) for _ in range(count)], LABELS if kind == "pairs" else None


STEPS = {  # recipe, options, base loss, kind of rows; which package has it is told by the first word
    "angle-first 2dmse": ("2dmse", {}, FIRST, "triplets"),
    "angle-first 2dmse pairs": ("2dmse", {}, FIRST, "pairs"),
    "angle-first 2dmse readme": ("2dmse", {}, README, "triplets"),
    "angle-first 2dmse cooler": ("2dmse", {"temperature": 0.5}, FIRST, "triplets"),
    "angle-first 2dmse half": ("2dmse", {"shallow_weight": 0.5}, FIRST, "triplets"),
    "angle-first 2dmse none": ("2dmse", {"shallow_weight": 0.0}, FIRST, "triplets"),
    "angle-first 2dmse unaligned": ("2dmse", {"alignment": False}, FIRST, "triplets"),
    "angle-weighted 2dmse-weighted": ("2dmse-weighted", {}, FIRST, "triplets"),
    "angle-weighted 2dmse-weighted pairs": ("2dmse-weighted", {}, FIRST, "pairs"),
    "angle-weighted 2dmse-weighted cooler": ("2dmse-weighted", {"temperature": 0.5}, NLI, "triplets"),
    "angle-today ese": ("ese", {"compress_dim": 8}, TODAY, "triplets"),
    "angle-today ese pairs": ("ese", {"compress_dim": 8}, NLI, "pairs"),
    "angle-today ese randomised": ("ese", {"compress_dim": 8}, TODAY, "triplets"),
    "st-2024 st2d-2024": ("st2d-2024", {"dims": DIMS}, BaseLoss(), "triplets"),
    "st-linear st2d": ("st2d", {"dims": DIMS}, BaseLoss(), "triplets"),
}


def draws_of(recipe):
    """For each layer that the recipe draws, and each dim, the first step that draws them; step 0 if none is drawn."""
    found = {}
    for step in range(200):
        drawn = recipe.plan(step).sampled
        found.setdefault((drawn.get("layer"), drawn.get("dim", 0) < drawn.get("last_dim", 9)), step)
    return sorted(found.values())


def numbered(name):
    """The steps of one entry of `STEPS`: which numbers of its recipe."""
    recipe, options, _, _ = STEPS[name]
    return draws_of(Recipe(recipe, LAYERS, DIM, **options))


def every_step():
    return [(name, step) for name in STEPS for step in numbered(name)]


def rows_of(kind):
    """Six rows of texts, and their labels if they are pairs."""
    count = 3 if kind == "triplets" else 2
    column = sentences(ROWS * count, seed=4)
    columns = tuple(tuple(column[ROWS * i : ROWS * (i + 1)]) for i in range(count))
    return TextSet("rows", columns, LABELS.numpy().astype(np.float64) if kind == "pairs" else None)


def step_case(name, step, encoder, folder):
    """What the package is asked about one step."""
    recipe, options, base, kind = STEPS[name]
    package = name.split()[0]
    texts, drawn = rows_of(kind), Recipe(recipe, LAYERS, DIM, **options).plan(step).sampled
    if package.startswith("st-"):
        draws = [drawn["last_dim"], drawn["layer"] - (package == "st-2024"), drawn["dim"]]  # a place among the layers
        return {"kind": "matryoshka_2d", "model": folder, "dims": DIMS, "draws": draws, "texts": texts.columns}
    in_turn = [text for row in zip(*texts.columns, strict=True) for text in row]
    padded = encoder.tokenizer.pad(encoder.tokenise(in_turn), return_tensors="pt")
    case = {"kind": "step", "model": folder, "columns": len(texts.columns), "format": format_of(kind, package)}
    case |= {"inputs": {word: padded[word] for word in ("input_ids", "attention_mask")}}
    case |= {"gold": LABELS if kind == "pairs" else None, "weights": weights_of(base, package)}
    if recipe == "ese":
        own = {"ese_kl_temperature": 1.0, "ese_compression_size": 8, "apply_ese_pca": True}
        attributes = {"teacher_name_or_path": None} | own
        exact = {"exact_svd": not name.endswith("randomised")}
        return case | exact | {"trainer": "AngleESETrainer", "attributes": attributes, "draws": ()}
    attributes = {
        "fixed_teacher_name_or_path": None,
        "alignment_pooling_strategy": "cls",
        "tdmse_kl_temperature": options.get("temperature", 1.0),
        "tdmse_teacher_lambda": 1.0,
        "tdmse_student_lambda": options.get("shallow_weight", 1.0),
        "apply_tdmse_kl": options.get("alignment", True),
        "tdmse_hidden_sizes": [8, 16],
    }
    draws = (drawn["layer"], drawn["dim"])
    return case | {"trainer": "AngleTDMSETrainer", "attributes": attributes, "draws": draws}


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(pooling="cls")  # the one pooling that all their versions have alike


@pytest.fixture(scope="module")
def ask(encoder, tmp_path_factory):
    """A package's answers to all that it is asked here, from one process."""
    work = tmp_path_factory.mktemp("originals")
    folder, known = str(encoder.save(work / "model")), {}

    def answers(name):
        if name not in known:
            home = installed(*PACKAGES[name])
            cases = {f"{n} {s}": step_case(n, s, encoder, folder) for n, s in every_step() if n.split()[0] == name}
            if name.startswith("angle"):
                for word, (kind, base, d) in loss_cases(name).items():
                    columns, gold = vectors(kind)
                    case = {"kind": "loss", "columns": [column[:, :d] for column in columns], "gold": gold}
                    cases[word] = case | {"format": format_of(kind, name), "weights": weights_of(base, name)}
                graded = {"gold": torch.tensor([5.0, 0.0, 5.0, 3.0, 0.0, 1.0]), "weights": weights_of(BaseLoss(), name)}
                cases["graded"] = cases["ranking pairs 16"] | graded
            torch.save(cases, work / f"{name}.pt")
            command = [sys.executable, HERE / "original_code.py", work / f"{name}.pt", work / f"{name}-answers.pt"]
            environment = os.environ | {"PYTHONPATH": str(home), "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-3000:]
            known[name] = torch.load(work / f"{name}-answers.pt")
        return known[name]

    return answers


# ---------------------------------------------------------------- the comparison


def same(own, theirs, gradients, their_gradients):
    assert_close(own, theirs, atol=1e-5, rtol=1e-5)
    assert set(gradients) == set(their_gradients)
    largest = max(gradient.abs().max() for gradient in gradients.values())
    assert largest > 1e-3
    for at, gradient in gradients.items():
        theirs_at = their_gradients[at]
        assert_close(gradient / largest, theirs_at / largest, atol=1e-5, rtol=0, msg=lambda m, at=at: f"{at}: {m}")


@pytest.mark.parametrize("name", [name for name in PACKAGES if name.startswith("angle")])
def test_base_losses_are_angles(name, ask):
    answers = ask(name)
    for word, (kind, base, d) in loss_cases(name).items():
        columns, gold = vectors(kind)
        columns = [column.requires_grad_() for column in columns]
        (value,) = base(columns, gold, [d])
        value.backward()
        ours = {str(i): column.grad[:, :d] for i, column in enumerate(columns)}
        theirs = {str(i): gradient for i, gradient in enumerate(answers[word]["gradients"])}
        same(value.detach(), answers[word]["value"], ours, theirs)


@pytest.mark.parametrize("name", [name for name in PACKAGES if name.startswith("angle")])
def test_the_in_batch_term_refuses_the_graded_pairs_that_angle_takes_for_positives(name, ask):
    answers, (columns, gold) = ask(name), vectors("pairs")
    taken = answers["graded"]["value"]
    assert taken > answers["ranking pairs 16"]["value"]  # pairs of 5, 3 and 1 are positives, some with more targets
    with pytest.raises(ValueError, match="a score is 5"):
        BaseLoss()(columns, torch.tensor([5.0, 0.0, 5.0, 3.0, 0.0, 1.0]), [16])
    BaseLoss().check_labels(gold)


def as_published(name, plan):
    """The plan as the package has it, where that is not the recipe's: what departs, and only that, is put back."""
    if name.startswith("angle-weighted"):  # the KL is weighted T, not T ln(2 + s) as in the commit of 29 February 2024
        weights = [a.weight / math.log(2 + plan.sampled["layer"]) for a in plan.alignments]
        return plan._replace(alignments=[a._replace(weight=w) for a, w in zip(plan.alignments, weights, strict=True)])
    if name.startswith("st-linear"):  # 5.2 to 5.6: layers from 0 as today, weights and target as in 2024
        last, below = plan.cells
        lower = below._replace(weight=1 / (1 + below.layer))
        return plan._replace(cells=[last, lower], alignments=[a._replace(detached=False) for a in plan.alignments])
    return plan


def our_step(name, step, encoder, published=True):
    """Value and gradients of one step of ours."""
    recipe, options, base, kind = STEPS[name]
    texts = rows_of(kind)
    batch = Collator(encoder, chunks=2)([texts[i] for i in range(ROWS)])
    plan = Recipe(recipe, LAYERS, DIM, **options).plan(step)
    encoder.backbone.zero_grad()
    states = encoder.backbone(batch["chunks"])[:, batch["order"]]
    terms = objective(
        states, as_published(name, plan) if published else plan, base, batch["columns"], batch.get("gold")
    )
    value = torch.stack(list(terms.values())).sum()
    value.backward()
    return value.detach(), {n: p.grad for n, p in encoder.backbone.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", [name for name in STEPS if not name.endswith("randomised")])
def test_whole_steps_are_theirs(name, ask, encoder):
    answers = ask(name.split()[0])
    for step in numbered(name):
        answer = answers[f"{name} {step}"]
        value, gradients = our_step(name, step, encoder)
        same(value, answer["value"], gradients, answer["gradients"])


def test_the_compared_steps_draw_what_theirs_draw(ask):
    """Every layer comes up, and each of their draws was among the same layers and dims as ours."""
    asked = {name: ask(name) for name in PACKAGES}
    first = [asked["angle-first"][f"angle-first 2dmse {step}"]["asked"] for step in numbered("angle-first 2dmse")]
    assert first == [[(1, LAYERS - 1), (8, 16)]] * len(first)
    places = tuple(range(len(DIMS)))
    for name, layers in {"st-2024 st2d-2024": range(LAYERS - 1), "st-linear st2d": range(LAYERS)}.items():
        for step in numbered(name):
            assert asked[name.split()[0]][f"{name} {step}"]["asked"] == [places, tuple(layers), places]
    for name, lowest in {"angle-first 2dmse": 1, "st-2024 st2d-2024": 1, "st-linear st2d": 0}.items():
        recipe, options, _, _ = STEPS[name]
        drawn = {Recipe(recipe, LAYERS, DIM, **options).plan(step).sampled["layer"] for step in numbered(name)}
        assert drawn == set(range(lowest, LAYERS))


@pytest.mark.parametrize("name", ["angle-weighted 2dmse-weighted", "st-linear st2d"])
def test_what_is_named_as_departing_departs(name, ask, encoder):
    step = numbered(name)[-1]
    answer = ask(name.split()[0])[f"{name} {step}"]
    assert abs(our_step(name, step, encoder, published=False)[0] / answer["value"] - 1) > 1e-3


def test_the_randomised_decomposition_of_ese_is_near_the_exact_one(ask, encoder):
    name = "angle-today ese randomised"
    own, theirs = our_step(name, 0, encoder)[0], ask("angle-today")[f"{name} 0"]["value"]
    assert abs(own / theirs - 1) < 0.05
