"""`twodmse study`."""

from pathlib import Path
from typing import Annotated

import typer

from twodmse.commands import one_line_errors


@one_line_errors
def study(
    plan: Annotated[
        str, typer.Option(help="Which runs: minilm, curves, angle, further, mpnet (hours on 2 cores), paper (one GPU).")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the tables.")] = Path("figures/data"),
    work: Annotated[Path, typer.Option(help="Folder of the models.")] = Path("runs/study"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs and say which are done.")] = False,
) -> None:
    """Train and score every run of the study that its tables do not hold yet.

    Each run is written down when it ends, so the command can be stopped and started again, or started in several
    processes at once. Pictures and claims come from the tables: make figures.

    Example: twodmse study --plan minilm
    """
    from twodmse.study.plans import PLANS
    from twodmse.study.run import overview, run_study

    if plan not in PLANS:
        raise ValueError(f"unknown plan {plan!r}: choose one of {', '.join(PLANS)}")
    if dry_run:
        typer.echo(overview(PLANS[plan], out).to_string(index=False))
        return
    run_study(PLANS[plan], out, work, typer.echo)
