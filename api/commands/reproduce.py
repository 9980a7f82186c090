"""`pcmc reproduce`: a published experiment again, with its statistics."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pcmc.commands.options import AsJson, Output
from pcmc.errors import DataError

if TYPE_CHECKING:
    from pcmc.workflows.reproduce.plan import Extent

EXPERIMENT = "nature2018"

Experiment = Annotated[str, typer.Argument(metavar="EXPERIMENT", help=f"{EXPERIMENT} is the one there is.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="Fewer seeds, epochs and examples: under two minutes on two cores.")
]
Only = Annotated[
    str | None,
    typer.Option("--only", metavar="NAME,NAME", help="mnist, mnist-backrand, cifar10, cifar100 [all]."),
]
Arms = Annotated[
    str | None, typer.Option("--arms", metavar="NAME,NAME", help="A, B, C, two-tier, verify, ... [all].")
]
Seeds = Annotated[int | None, typer.Option("--seeds", metavar="N", min=1, help="Runs of each arm [10].")]
Epochs = Annotated[int | None, typer.Option("--epochs", metavar="N", min=1, help="[20].")]
Untuned = Annotated[bool, typer.Option("--untuned", help="Take the settings that tuning starts with.")]
Jobs = Annotated[int, typer.Option("--jobs", metavar="N", min=0, help="Processes; 0: all processors.")]
FeaturesModel = Annotated[
    Path | None,
    typer.Option(
        "--features-model", metavar="FILE.onnx", help="A network of CIFAR-10; its last maps are features."
    ),
]


def reproduce(
    experiment: Experiment = EXPERIMENT,
    quick: Quick = False,
    only: Only = None,
    arms: Arms = None,
    seeds: Seeds = None,
    epochs: Epochs = None,
    untuned: Untuned = False,
    features_model: FeaturesModel = None,
    jobs: Jobs = 0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Train the 2018 paper's networks on the simulated chip and in software, and compare them.

    Finished runs are kept in the folder given with -o: an interrupted reproduction goes on from there.
    """
    from pcmc.commands.inputs import json_text
    from pcmc.workflows.reproduce.workflow import reproduce as run

    if experiment != EXPERIMENT:
        raise DataError(f"no experiment is called '{experiment}'; there is {EXPERIMENT}")
    if features_model is not None and not features_model.is_file():
        raise DataError(f"--features-model {features_model}: no such file")
    extent = _extent(quick, only, arms, seeds, epochs, untuned)
    folder = output or Path(f"{EXPERIMENT}-quick" if quick else f"{EXPERIMENT}-results")
    try:
        found = run(
            folder,
            extent,
            heading(extent, quick),
            features_model=features_model,
            jobs=jobs or os.cpu_count() or 1,
            say=lambda line: typer.echo(line, err=True),
        )
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; {folder} has the runs that are finished: the same command goes on", err=True
        )
        raise typer.Exit(130) from None
    typer.echo(json_text(found.as_dict()) if as_json else found.text())
    typer.echo(f"written to {folder}: table.md, results.json, curves", err=True)


def heading(extent: Extent, quick: bool) -> str:
    """What the tables are headed with; whether this is the experiment or less of it."""
    from pcmc.workflows.reproduce.plan import FULL

    if quick:
        return (
            f"{EXPERIMENT}, quick: {extent.seeds} seeds, {extent.epochs} epochs of {extent.most_train:,} "
            "examples; a look at the experiment, not the experiment"
        )
    whole = extent.seeds >= FULL.seeds and extent.epochs >= FULL.epochs and extent.tuned
    return f"{EXPERIMENT}" if whole else f"{EXPERIMENT}, in part"


def _extent(
    quick: bool, only: str | None, arms: str | None, seeds: int | None, epochs: int | None, untuned: bool
) -> Extent:
    from pcmc.workflows.reproduce.arms import ARMS
    from pcmc.workflows.reproduce.plan import EXPERIMENTS, FULL, QUICK, check_names

    extent = QUICK if quick else FULL
    if only is not None:
        names = check_names(_split(only), tuple(EXPERIMENTS), "--only")
        extent = replace(extent, experiments=names)
    if arms is not None:
        extent = replace(extent, arms=check_names(_split(arms), tuple(ARMS), "--arms"))
    return replace(
        extent,
        seeds=seeds or extent.seeds,
        epochs=epochs or extent.epochs,
        tuned=extent.tuned and not untuned,
    )


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
