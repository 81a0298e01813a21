"""Plans of the study: which runs there are, as data."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from twodmse.config import PRESETS

# In the order they are run: a study that is stopped early has the runs that say most.
REPEATED = ("grid", "2dmse", "full", "mrl")  # recipes with three seeds
STUDIED = (*REPEATED, "st2d", "2dmse-weighted", "ese", "starbucks")
ABLATIONS = {
    "2dmse, no last layer": {"last_layer": False},
    "2dmse, no alignment": {"alignment": False},
    "2dmse, no cut dims": {"matryoshka": False},
}
GRID_PRESET = {"grid": {k: v for k, v in PRESETS["grid"].items() if k not in ("data", "steps", "lr")}}
FLOAT32 = "2dmse, float32"  # what mixed precision changes
ANGLE = "AnglE"  # in the name of a model that has its base loss
TALL = "sentence-transformers/all-mpnet-base-v2"  # 12 x 768
INDEPENDENT = "independent"  # models of their own depth, each cut first and then trained with mrl


@dataclass(frozen=True)
class Trial:
    """One training run."""

    model: str  # what the tables call it
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)  # of TrainConfig, before the plan's; none: untouched
    layers: int | None = None  # depth it is cut to before training; None keeps all
    rate_of: str | None = None  # whose learning rate of the sweep it takes
    sweep: bool = False  # a short run at one learning rate, to choose among them
    curve: bool = False  # one point of a curve: a run at the rate of its settings, or at both that its sweep picks
    taught_by: "Trial | None" = None  # the run whose model is its teacher; it is made first, where there is none

    @property
    def name(self) -> str:
        """A name that is a file name too."""
        model = self.model.replace(",", "").replace(" ", "-")
        if self.curve:
            return f"{model}-lr{self.settings['lr']:g}-s{self.seed}"
        return f"sweep-{model}-lr{self.settings['lr']:g}" if self.sweep else f"{model}-s{self.seed}"

    def with_settings(self, **changes: Any) -> "Trial":
        """The same trial with other settings."""
        return dataclasses.replace(self, settings={**self.settings, **changes})

    def switches(self) -> str:
        """The settings that tell it from its recipe's default, as text."""
        shown = {k: v for k, v in self.settings.items() if k not in ("recipe", "lr")}
        shown |= {"teacher": self.taught_by.name} if self.taught_by else {}
        return " ".join(f"{k}={str(v).lower()}" for k, v in shown.items())


@dataclass(frozen=True)
class StudyPlan:
    """The runs of a study and everything they share."""

    backbone: str
    data: str
    steps: int
    batch_size: int
    trials: tuple[Trial, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    sweep_steps: int = 0
    validation: str = "stsb-validation"
    tasks: tuple[str, ...] = ("paper",)
    dims: tuple[int, ...] = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384)
    mean_dims: tuple[int, ...] = (16, 32, 64, 128, 256, 384)  # of every mean over cells
    repeated: tuple[str, ...] = ()  # models of curves that get more seeds at the two rates validation picks

    def whole_curves(self, summary: pd.DataFrame) -> dict[str, list[Trial]]:
        """The points of each model whose curve over the learning rate is run whole, by model."""
        curves: dict[str, list[Trial]] = {}
        for trial in self.trials:
            curves.setdefault(trial.model, []).append(trial)
        had = set(summary["run"])
        return {model: curve for model, curve in curves.items() if {trial.name for trial in curve} <= had}

    def repeats(self, summary: pd.DataFrame) -> list[Trial]:
        """Two more seeds of each repeated model whose curve is whole, at the rates that `chosen_rates` picks.

        Those that are stored already under another name, at the same rate, are taken over.
        """
        found, had = [], set(zip(summary["model"], summary["seed"], summary["lr"], strict=True))
        for model, curve in self.whole_curves(summary).items():
            if model in self.repeated:
                rates = set(chosen_rates(summary, model).values())
                chosen = [trial for trial in curve if trial.settings["lr"] in rates]
                found += [
                    dataclasses.replace(trial, seed=seed)
                    for seed in (1, 2)
                    for trial in chosen
                    if (model, seed, trial.settings["lr"]) not in had
                ]
        return found

    def sweep_of(self, model: str) -> list[Trial]:
        """The short runs that choose a model's learning rate: its first trial's settings, at every rate."""
        first = next(trial for trial in self.trials if trial.rate_of == model)
        short = dataclasses.replace(first, model=model, seed=0, rate_of=None, sweep=True, curve=False)
        return [short.with_settings(lr=rate) for rate in self.rates]

    def points(self, trial: Trial, sweep: pd.DataFrame | None) -> list[Trial]:
        """A model's runs at the rates that `chosen_rates` picks from its sweep; none before the sweep is whole."""
        if sweep is None or not {run.name for run in self.sweep_of(trial.model)} <= set(sweep["run"]):
            return []
        rates = chosen_rates(sweep, trial.model)
        return [dataclasses.replace(trial, rate_of=None).with_settings(lr=rate) for rate in sorted(set(rates.values()))]

    def queue(self, sweep: pd.DataFrame | None = None) -> list[Trial]:
        """Every run in order; before the first one of a model whose learning rate is swept, its sweep.

        Args:
            sweep: the sweeps done so far, one row each: it decides which points of curves there are.
        """
        ordered: dict[str, Trial] = {}
        for trial in self.trials:
            before = self.sweep_of(trial.rate_of) if trial.rate_of else []
            for run in (*before, *(self.points(trial, sweep) if trial.curve and trial.rate_of else [trial])):
                ordered.setdefault(run.name, run)
        return list(ordered.values())


def chosen_rates(summary: pd.DataFrame, model: str) -> dict[str, float]:
    """The learning rates of a model's curve that validation picks, by the same rule for every model.

    ``full`` is the rate with the best cell (N, D) on the validation pairs, ``below`` the one with the best mean over
    the layers below the last; both among the runs of seed 0. ``summary`` has the columns run, model, seed, lr, split,
    below and full, one row a run and split: runs to the full length, or short ones of a sweep.
    """
    rows = summary[(summary["model"] == model) & (summary["split"] == "validation") & (summary["seed"] == 0)]
    return {
        place: float(rows.loc[rows[place].idxmax(), "lr"]) for place in ("full", "below") if rows[place].notna().any()
    }


def curves() -> tuple[Trial, ...]:
    """Every recipe at five learning rates to the full length; those that say most come first, then curve by curve."""
    main, rest = ("2dmse", "full", "grid", "st2d", "mrl"), ("starbucks", "2dmse-weighted", "ese")
    edges, others = (1e-4, 8e-4), (2e-4, 4e-4, 5e-5)  # the study's own runs at 4e-4 had no validation scores

    def point(model: str, rate: float, layers: int | None = None) -> Trial:
        recipe = "mrl" if layers else model
        return Trial(model, 0, {"recipe": recipe} | GRID_PRESET.get(recipe, {}) | {"lr": rate}, layers, curve=True)

    made = [point(model, rate) for rate in edges for model in main[:4]]
    made += [point(model, rate) for model in main[:4] for rate in others]
    made += [point(model, rate) for model in (*main[4:], *rest) for rate in (*edges, *others)]
    made += [point(f"{INDEPENDENT} {n}", rate, n) for n in (3, 1, 2, 4, 5) for rate in (*edges, *others)]
    return tuple(made)


def angle_mix() -> tuple[Trial, ...]:
    """The recipes of the paper with its base loss, AnglE's mix as the preset ``paper`` weighs it: their own curves."""
    mix = {name: PRESETS["paper"][name] for name in ("loss", "mix", "angle_scale")}
    return tuple(
        Trial(f"{recipe}, {ANGLE}", seed, {"recipe": recipe} | mix | {"lr": rate}, curve=True)
        for rate in (2e-4, 1e-4, 4e-4, 5e-5, 8e-4)
        for seed in (0, 1)
        for recipe in ("2dmse", "full", "mrl")
    )


def twelve_layers() -> tuple[Trial, ...]:
    """The runs of the second backbone, each model at the rates that are best in its own sweep, at the top and below."""
    recipes = ("2dmse", "grid", "full", "st2d")
    made = [Trial(r, 0, {"recipe": r} | GRID_PRESET.get(r, {}), rate_of=r, curve=True) for r in recipes]
    depths = {f"{INDEPENDENT} {n}": n for n in (6, 3)}
    own = [Trial(name, 0, {"recipe": "mrl"}, n, rate_of=name, curve=True) for name, n in depths.items()]
    return Trial("untouched"), *made, *own


def further() -> tuple[Trial, ...]:
    """What might lift `grid` at both places: another teacher, and a run twice as long.

    The tuned teacher is the run of the plan ``curves`` with the best full cell on the validation pairs, among those
    that keep the backbone's order of coordinates: every layer is held to the direction that a teacher as wide gives.
    """
    tuned = next(t for t in curves() if t.model == "starbucks" and t.settings["lr"] == 5e-5)
    tries: dict[str, tuple[dict[str, Any], Trial | None]] = {
        "grid, 12 x 768 teacher": ({"teacher": TALL}, None),
        "grid, tuned teacher": ({}, tuned),
        "grid, twice as long": ({"steps": 2 * 517}, None),
    }
    return tuple(
        Trial(name, 0, {"recipe": "grid"} | GRID_PRESET["grid"] | changed | {"lr": rate}, curve=True, taught_by=teacher)
        for rate in (4e-4, 2e-4)
        for name, (changed, teacher) in tries.items()
    )


def trials(depths: tuple[int, ...], swept: bool, seeds: tuple[int, int] = (3, 2)) -> tuple[Trial, ...]:
    """The runs of the study: every recipe, the ablations of 2dmse, and models trained at their own depth.

    Args:
        depths: of the independently trained models, the one that the sweep takes first.
        swept: whether learning rates come from a sweep.
        seeds: how many for the `REPEATED` recipes, and for ablations and independent models.
    """

    def rate(model: str) -> str | None:
        return model if swept else None

    many, few = seeds
    made = [Trial("untouched")]
    for seed in range(many):
        chosen = REPEATED if seed else STUDIED
        recipes = [Trial(r, seed, {"recipe": r} | GRID_PRESET.get(r, {}), rate_of=rate(r)) for r in chosen]
        ablations, independent = [], []
        if seed < few:
            ablations = [Trial(m, seed, {"recipe": "2dmse"} | s, rate_of=rate("2dmse")) for m, s in ABLATIONS.items()]
            own = {"recipe": "mrl"}
            independent = [Trial(f"{INDEPENDENT} {n}", seed, own, n, rate_of=rate(INDEPENDENT)) for n in depths]
        made += [*recipes[: len(REPEATED) + 1], *independent, *ablations, *recipes[len(REPEATED) + 1 :]]
    return tuple(made)


def two_passes(made: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """The trials, those of 2dmse with the second forward pass of the preset `paper`: the other recipes have one."""
    passes = {"two_passes": PRESETS["paper"]["two_passes"]}
    return tuple(t.with_settings(**passes) if t.settings.get("recipe") == "2dmse" else t for t in made)


PLANS = {
    "minilm": StudyPlan(
        backbone="bundled",
        data="all-nli",
        steps=517,
        batch_size=64,
        trials=(
            *trials(depths=(3, 1, 2, 4, 5), swept=True),
            Trial(FLOAT32, settings={"recipe": "2dmse", "precision": "fp32"}, rate_of="2dmse"),
            Trial("st2d-2024", settings={"recipe": "st2d-2024"}, rate_of="st2d-2024"),  # that of the published grids
        ),
        settings={"save_every": 200},
        rates=(5e-5, 1.5e-4, 4e-4),
        sweep_steps=60,
    ),
    "curves": StudyPlan(
        backbone="bundled",
        data="all-nli",
        steps=517,
        batch_size=64,
        trials=curves(),
        settings={"save_every": 200},
        repeated=("full", "mrl", "2dmse", "st2d", "grid", *(f"{INDEPENDENT} {n}" for n in range(1, 6))),
    ),
    "angle": StudyPlan(
        backbone="bundled", data="all-nli", steps=517, batch_size=64, trials=angle_mix(), settings={"save_every": 200}
    ),
    "further": StudyPlan(
        backbone="bundled", data="all-nli", steps=517, batch_size=64, trials=further(), settings={"save_every": 200}
    ),
    "mpnet": StudyPlan(
        backbone=TALL,
        data="all-nli",
        steps=250,
        batch_size=64,
        trials=twelve_layers(),
        settings={"save_every": 50},
        rates=(5e-5, 1e-4, 2e-4),
        sweep_steps=30,
        dims=(16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768),
        mean_dims=(16, 32, 64, 128, 256, 512, 768),
    ),
    "paper": StudyPlan(
        backbone=PRESETS["paper"]["backbone"],
        data="all-nli",
        steps=PRESETS["paper"]["steps"],
        batch_size=PRESETS["paper"]["batch_size"],
        trials=two_passes(trials(depths=(2, 4, 6, 8, 10), swept=False)),
        settings={
            k: v
            for k, v in PRESETS["paper"].items()
            if k not in ("recipe", "data", "backbone", "steps", "batch_size", "two_passes", "seed")
        },
        dims=(8, 16, 32, 64, 128, 256, 512, 768),
        mean_dims=(16, 32, 64, 128, 256, 512, 768),
    ),
}
