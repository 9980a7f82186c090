"""The experiment from plan to tables: data, tuning, runs, statistics, and the files that it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pcmc.errors import DataError, ModelError
from pcmc.workflows.reproduce import curves, data, table, tuning
from pcmc.workflows.reproduce.arms import ARMS, REFERENCE, SENSITIVITIES, Arm, Settings
from pcmc.workflows.reproduce.plan import (
    EXPERIMENTS,
    TUNING_SEED,
    Experiment,
    Extent,
    Run,
    arms_of,
    final_runs,
)
from pcmc.workflows.reproduce.pool import Workers
from pcmc.workflows.reproduce.results import Results
from pcmc.workflows.reproduce.summary import Row, make_row

Say = Callable[[str], None]


@dataclass(slots=True)
class Reproduction:
    """What a reproduction has come to: rows by data set, notes, and what was left out, with the reasons."""

    heading: str
    extent: Extent
    rows: dict[str, list[Row]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    trials: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)

    def text(self) -> str:
        """All tables, in Markdown."""
        parts = [f"# {self.heading}"]
        parts += [
            table.experiment_text(EXPERIMENTS[name], self.notes[name], rows)
            for name, rows in self.rows.items()
        ]
        parts += [f"Left out: {one}" for one in self.left_out]
        return "\n\n".join(parts) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, what results.json holds."""
        return {
            "heading": self.heading,
            "extent": asdict(self.extent),
            "data": {
                name: {
                    "title": EXPERIMENTS[name].title,
                    "note": self.notes[name],
                    "margin": EXPERIMENTS[name].margin,
                    "rows": [row.as_dict() for row in rows],
                    "trials": self.trials.get(name, {}),
                }
                for name, rows in self.rows.items()
            },
            "left_out": self.left_out,
        }


def reproduce(
    folder: Path,
    extent: Extent,
    heading: str,
    *,
    features_model: Path | None = None,
    jobs: int = 1,
    say: Say = lambda line: None,
    make: Callable[[Experiment], data.Arrays] | None = None,
) -> Reproduction:
    """Do all runs that the folder does not hold yet, and write tables, numbers and curves into it.

    Args:
        folder: for everything: finished runs, arrays, features, results.
        extent: how much is done.
        heading: of the tables.
        features_model: the network whose maps CIFAR features are; None: those data sets are left out.
        jobs: processes.
        say: is told how it goes, in lines.
        make: makes the arrays of a data set; None: those published, from their files.

    Raises:
        DataError: no data set is there.
        OutputError: the folder can't be written.
    """
    results = Results(folder)
    found = Reproduction(heading, extent)
    arrays = folder / "data"
    with Workers(jobs, arrays, results, _telling(say, results)) as workers:
        for name in extent.experiments:
            experiment = EXPERIMENTS[name]
            if experiment.has_features and features_model is None and make is None:
                found.left_out.append(
                    f"{experiment.title}: needs --features-model FILE, the network that makes features"
                )
                continue
            try:
                made = (make or _maker(features_model, folder, jobs))(experiment)
            except (DataError, ModelError) as error:
                found.left_out.append(f"{experiment.title}: {error}")
                continue
            found.notes[name] = _note(experiment, made, extent)
            say(found.notes[name])
            source = data.store(experiment, made, arrays)
            del made
            _experiment(experiment, source, found, workers, results)
            write(found, folder)
    if not found.rows:
        raise DataError(f"nothing to reproduce: {'; '.join(found.left_out)}")
    write(found, folder)
    return found


def write(found: Reproduction, folder: Path) -> None:
    """Write table.md, results.json and curves-NAME.svg.

    Raises:
        OutputError: the folder can't be written.
    """
    from pcmc.runtime.files import replacing

    texts = {
        "table.md": found.text(),
        "results.json": json.dumps(found.as_dict(), indent=1, allow_nan=False) + "\n",
    }
    for name, rows in found.rows.items():
        shown = [row for row in rows if row.arm not in SENSITIVITIES and ARMS[row.arm].first is None]
        texts[f"curves-{name}.svg"] = curves.drawing(EXPERIMENTS[name].title, shown)
    for name, text in texts.items():
        if text:
            with replacing(folder / name) as file:
                file.write(text.encode())


def _experiment(
    experiment: Experiment, source: str, found: Reproduction, workers: Workers, results: Results
) -> None:
    """Tune, run and sum up one data set."""
    extent = found.extent
    arms = arms_of(experiment, extent)
    tuned = _tuned(experiment, arms, source, found, workers, results)
    plans = {arm.name: final_runs(experiment, arm, extent, tuned[arm.tuning], source) for arm in arms}
    # seed by seed, so that an interrupted reproduction has whole pairs
    workers.finish([runs[seed] for seed in range(extent.seeds) for runs in plans.values()])
    done = {name: [results.facts(run) for run in runs] for name, runs in plans.items()}
    found.rows[experiment.name] = [
        make_row(
            experiment,
            arm,
            tuned[arm.tuning],
            tuning.TRIALS if extent.tuned else 0,
            done[arm.name],
            None if arm.name == REFERENCE or arm.first is not None else done.get(REFERENCE),
        )
        for arm in arms
    ]


def _tuned(
    experiment: Experiment,
    arms: Sequence[Arm],
    source: str,
    found: Reproduction,
    workers: Workers,
    results: Results,
) -> dict[str, Settings]:
    """The best settings of each arm that is tuned, by its name."""
    names = list(dict.fromkeys(arm.tuning for arm in arms))
    best = {name: ARMS[name].settings for name in names}
    if found.extent.decay:
        best = {name: replace(settings, decay=found.extent.decay) for name, settings in best.items()}
    if not found.extent.tuned:
        return best
    tried = {name: [best[name]] for name in names}

    def run(name: str, settings: Settings) -> Run:
        (one,) = final_runs(experiment, ARMS[name], replace(found.extent, seeds=1), settings, source)
        return replace(one, role="tune", seed=TUNING_SEED)

    for stage in tuning.STAGES:
        for name in names:
            tried[name] += tuning.candidates(stage, best[name], ARMS[name].own)
        workers.finish([run(name, settings) for name in names for settings in tried[name]])
        for name in names:
            scores = {settings: _score(results.facts(run(name, settings))) for settings in tried[name]}
            best[name] = tuning.best_of(tried[name], scores)
    found.trials[experiment.name] = {
        name: [
            {"settings": asdict(settings), "accuracy": _score(results.facts(run(name, settings)))}
            for settings in tried[name]
        ]
        for name in names
    }
    return best


def _score(facts: Mapping[str, Any]) -> float:
    """The accuracy on held-out examples; a training that broke down has none."""
    return 0.0 if facts["stopped"] else float(facts["test"]["on_chip"])


def _maker(features_model: Path | None, folder: Path, jobs: int) -> Callable[[Experiment], data.Arrays]:
    return lambda experiment: data.make(experiment, features_model, folder / "features", jobs)


def _note(experiment: Experiment, made: data.Arrays, extent: Extent) -> str:
    counts = [
        f"{min(most or len(labels), len(labels)):,} {kind}"
        for labels, most, kind in (
            (made.y_train, extent.most_train, "training"),
            (made.y_test, extent.most_test, "test"),
        )
    ]
    net = "-".join(map(str, experiment.sizes))
    return (
        f"{experiment.title}: {' and '.join(counts)} examples, network {net}, {extent.seeds} "
        f"seed{'s' * (extent.seeds != 1)} x {extent.epochs} epoch{'s' * (extent.epochs != 1)}, settings "
        + ("chosen on training examples held out" if extent.tuned else "not tuned")
    )


def _telling(say: Say, results: Results) -> Callable[[Run, Mapping[str, Any]], None]:
    def tell(run: Run, facts: Mapping[str, Any]) -> None:
        accuracy, seconds = facts["test"]["on_chip"], facts["seconds"]
        role = f"trial, rate {run.settings.rate:.3g}" if run.role == "tune" else f"seed {run.seed}"
        say(f"{len(results):>5} runs  {run.experiment}  {run.arm}  {role}  {accuracy:.2%}  {seconds:.0f} s")

    return tell
