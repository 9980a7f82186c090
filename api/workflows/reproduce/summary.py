"""Rows of the result: for each arm what its runs came to, and how far it is from the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pcmc.workflows.reproduce.arms import Arm, Settings
from pcmc.workflows.reproduce.measure import MEASURED
from pcmc.workflows.reproduce.plan import Experiment
from pcmc.workflows.reproduce.statistics import Paired, Spread, paired, spread

Facts = Mapping[str, Any]
#: Means over the runs of these, from `measure.device_facts`.
DEVICES = (
    "synapses",
    "transfers",
    "pulses",
    "weight_error",
    "out_of_reach",
    "beyond_range",
    "writes_mean",
    "writes_max",
)


@dataclass(frozen=True, slots=True)
class Row:
    """An arm with its runs. `train` and `test` are accuracies in percent, read as in training, `tests`
    those of each seed; `difference` is the test accuracy less that of the reference, in points (None: it is
    the reference, or has other examples); `worst_seed` the one with the lowest test accuracy; `trials` those
    that its settings took; `measured` and `devices` means over the runs (None where the cells have no such
    thing), accuracies and shares in percent; `curve` of each run the accuracies met in each epoch.
    """

    arm: str
    title: str
    settings: Settings
    trials: int
    train: Spread
    test: Spread
    tests: tuple[float, ...]
    difference: Paired | None
    worst_seed: int
    measured: Mapping[str, float | None]
    devices: Mapping[str, float | None]
    clipped_low: float | None
    seconds: float
    stopped: tuple[str, ...]
    curve: tuple[tuple[float, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, numbers that are not finite as None."""
        facts: dict[str, Any] = _plain(asdict(self))
        if self.difference is not None:
            facts["difference"]["equivalent"] = self.difference.equivalent
        return facts


def make_row(
    experiment: Experiment,
    arm: Arm,
    settings: Settings,
    trials: int,
    runs: Sequence[Facts],
    reference: Sequence[Facts] | None,
) -> Row:
    """The row of an arm.

    Args:
        experiment: gives the margin.
        arm: which.
        settings: of its runs.
        trials: runs that these took.
        runs: what `work.execute` gave, in the order of seeds 0, 1, ...
        reference: the same of the arm that it is compared with; None: with none.
    """
    tests = [_percent(one["test"]["on_chip"]) for one in runs]
    difference = None
    if reference is not None:
        others = [_percent(one["test"]["on_chip"]) for one in reference]
        difference = paired([a - b for a, b in zip(tests, others, strict=True)], experiment.margin)
    shares = ("weight_error", "out_of_reach", "beyond_range")
    return Row(
        arm.name,
        arm.title,
        settings,
        trials,
        spread([_percent(one["train"]["on_chip"]) for one in runs]),
        spread(tests),
        tuple(tests),
        difference,
        min(range(len(tests)), key=lambda seed: tests[seed]),
        {name: _mean([one["test"].get(name) for one in runs], 100.0) for name in MEASURED},
        {
            name: _mean([one["devices"].get(name) for one in runs], 100.0 if name in shares else 1.0)
            for name in DEVICES
        },
        _mean([one["clipped_low"] for one in runs], 100.0),
        sum(one["seconds"] for one in runs) / len(runs),
        tuple(dict.fromkeys(one["stopped"] for one in runs if one["stopped"])),
        tuple(tuple(_percent(epoch["accuracy"]) for epoch in one["curve"]) for one in runs),
    )


def _percent(share: float) -> float:
    return 100.0 * share


def _mean(values: Sequence[float | None], factor: float) -> float | None:
    there = [value for value in values if value is not None]
    return factor * sum(there) / len(there) if there else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
