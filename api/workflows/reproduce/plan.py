"""The plan of a reproduction: data sets, how much of them, and each run with all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pcmc.accel.chip import chip_to_dict
from pcmc.errors import DataError
from pcmc.workflows.reproduce.arms import ARMS, REFERENCE, SENSITIVITIES, Arm, Settings

#: Of 12 training examples, those that settings are chosen by: 5,000 of MNIST's 60,000.
HELD_OUT = 12
#: The seed that settings are chosen with; no final run has it.
TUNING_SEED = 1000
_MNIST = (528, 250, 125, 10)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A data set with the network for it; `margin` is how far, in points, equivalent arms may be apart."""

    name: str
    title: str
    sizes: tuple[int, ...]
    margin: float

    @property
    def has_features(self) -> bool:
        """Whether the inputs are features of another network."""
        return self.name.startswith("cifar")


EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        Experiment("mnist", "MNIST", _MNIST, 0.3),
        Experiment("mnist-backrand", "MNIST with random backgrounds, made from MNIST", _MNIST, 0.5),
        Experiment("cifar10", "CIFAR-10 features (a check, not transfer)", (2048, 10), 0.5),
        Experiment("cifar100", "CIFAR-100 by transfer of CIFAR-10 features", (2048, 100), 1.0),
    )
}
"""All data sets by name."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done: seeds and epochs of each arm, examples at most (0: all), whether settings are tuned,
    the arms (those of `ARMS`, () for all), and the data sets. `decay` is that of all arms, so that a short
    training ends with as low a rate as a long one; 0: that of their settings.
    """

    seeds: int = 10
    epochs: int = 20
    most_train: int = 0
    most_test: int = 0
    tuned: bool = True
    decay: float = 0.0
    arms: tuple[str, ...] = ()
    experiments: tuple[str, ...] = tuple(EXPERIMENTS)


FULL = Extent()
QUICK = Extent(
    seeds=3,
    epochs=4,
    most_train=8_000,
    most_test=5_000,
    tuned=False,
    decay=0.6,
    arms=tuple(name for name in ARMS if name not in SENSITIVITIES),
    experiments=("mnist",),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One training, and all that its result depends on but the data themselves, for which `source` stands.

    `role` is "tune" (on 11 of 12 training examples, measured with the rest) or "final" (on all, measured with
    the test set). `train` and `test` limit the examples, 0 for no limit.
    """

    experiment: str
    arm: str
    role: str
    seed: int
    epochs: int
    settings: Settings
    sizes: tuple[int, ...]
    train: int = 0
    test: int = 0
    source: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @property
    def key(self) -> str:
        """A name of the run that changes with all that its result depends on, constants of the chip too."""
        arm = ARMS[self.arm]
        facts = self.as_dict() | {"chip": chip_to_dict(arm.chip), "physics": arm.physics, "first": arm.first}
        text = json.dumps(facts, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def arms_of(experiment: Experiment, extent: Extent) -> list[Arm]:
    """The arms of a data set, the reference first."""
    wanted = extent.arms or tuple(ARMS)
    chosen = [
        arm for arm in ARMS.values() if arm.name in wanted and (not arm.sets or experiment.name in arm.sets)
    ]
    return sorted(chosen, key=lambda arm: arm.name != REFERENCE)


def final_runs(
    experiment: Experiment, arm: Arm, extent: Extent, settings: Settings, source: str
) -> list[Run]:
    """The runs of an arm: seed k of one arm is paired with seed k of the others."""
    return [
        Run(
            experiment.name,
            arm.name,
            "final",
            seed,
            extent.epochs,
            settings,
            experiment.sizes,
            extent.most_train,
            extent.most_test,
            source,
        )
        for seed in range(extent.seeds)
    ]


def check_names(names: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """The names, or DataError for one that is unknown, or none at all."""
    for name in names:
        if name not in known:
            raise DataError(f"{what} {name!r}: must be one of {', '.join(known)}")
    if not names:
        raise DataError(f"{what}: names none; there are {', '.join(known)}")
    return tuple(dict.fromkeys(names))
