"""The arms of an experiment: one network, trained by different cells, or in software."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_to_dict, load_chip

Tables = dict[str, Any]

BASE = "nature2018"
#: Reads and writes of a pair until it is within half a microsiemens (both assumed; the paper writes once).
VERIFY_ITERATIONS, VERIFY_US = 10, 0.5
#: The arm that differences are taken to.
REFERENCE = "A"
#: What sensitivities multiply the constants with.
FACTORS = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is tuned in each arm: rate and its factor from epoch to epoch, scale of the initial weights, and
    the weight that the full range of a cell stands for (None: found for each matrix). Of float training also
    the size of a batch and momentum; a rate is of one example, so that a batch takes `step_rate`.
    """

    rate: float = 0.01
    decay: float = 0.9
    start: float = 1.0
    weight_range: float | None = None
    batch: int = 1
    momentum: float = 0.0

    @property
    def step_rate(self) -> float:
        """The learning rate of a step, whose gradient is the mean of a batch."""
        return self.rate * self.batch * (1.0 - self.momentum)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train.

    `change` makes the chip of that of nature2018, as nested tables; `physics` is as of `Trainer`. `settings`
    are where tuning starts, and `own` is its first stage. An arm with `tuned_as` has the settings of another
    one. `sets` are the data sets it is run on, () for all; `first` the training and test examples it has.
    """

    name: str
    title: str
    physics: str = "full"
    change: Callable[[Tables], Tables] = field(default=copy.deepcopy)
    settings: Settings = Settings()
    own: str = "range"
    tuned_as: str = ""
    sets: tuple[str, ...] = ()
    first: tuple[int, int] | None = None

    @property
    def chip(self) -> ChipSpec:
        """The chip of this arm."""
        return _chip(self.name)

    @property
    def tuning(self) -> str:
        """The name of the arm whose settings this one has."""
        return self.tuned_as or self.name


def _without_inversion(tables: Tables) -> Tables:
    tables["training"]["inversion"] = False
    return tables


def _verified(tables: Tables) -> Tables:
    tables["training"] |= {"program_iterations": VERIFY_ITERATIONS, "verify_us": VERIFY_US}
    return tables


def _capacitors(tables: Tables) -> Tables:
    """The capacitor of the two-tier cell by itself, its reference in the middle of the range."""
    low, high = tables["cell"]["low_g_low_us"], tables["cell"]["low_g_high_us"]
    tables["cell"] = {
        "kind": "3t1c",
        "g_low_us": low,
        "g_high_us": high,
        "g_reference_us": (low + high) / 2,
        "steps": tables["cell"]["low_steps"],
        "leak_tau_s": tables["cell"]["leak_tau_s"],
    }
    tables["effects"] |= {"read_noise": "off"}
    return tables


def _clipped(tables: Tables) -> Tables:
    """Capacitors that all are alike: with `step_mismatch` alone they clip weights, and do nothing else."""
    tables = _capacitors(tables)
    tables["pulses"] = {"kind": "linear", "leak_to_us": tables["cell"]["g_reference_us"]}
    return tables


def _pairs(tables: Tables) -> Tables:
    """A pair of PCM devices alone, as in the chip file pcm2014."""
    return chip_to_dict(load_chip("pcm2014"))


def _two_pairs(tables: Tables) -> Tables:
    """PCM in both tiers: the low tier a pair like that of `_pairs`, the high tier worth as in nature2018."""
    significance = tables["cell"]["significance"]
    tables = _pairs(tables)
    tables["cell"] |= {"kind": "4pcm", "significance": significance}
    return tables


def _scaled(section: str, name: str, factor: float) -> Callable[[Tables], Tables]:
    """Another value of one constant; of a list, of all its numbers."""

    def change(tables: Tables) -> Tables:
        old = tables[section][name]
        tables[section][name] = [one * factor for one in old] if isinstance(old, list) else old * factor
        return tables

    return change


def _sensitivities() -> Iterable[Arm]:
    """The two-tier arm with one constant halved or doubled, its settings as they were."""
    constants = (
        ("F", "cell", "significance"),
        ("mismatch", "pulses", "up_down_mismatch"),
        ("tau", "cell", "leak_tau_s"),
        ("programming error", "cell", "programming_error_us"),
    )
    for title, section, name in constants:
        for factor in FACTORS:
            yield Arm(
                f"{title} x{factor:g}",
                f"two-tier, {title} x {factor:g}",
                change=_scaled(section, name, factor),
                tuned_as="two-tier",
                sets=("mnist",),
            )


# Tuning starts at rates that did well in 8 epochs of MNIST's first 55,000 training examples, measured with
# the other 5,000; for PCM pairs in 20 epochs of the first 5,000. Others have the rate of arm A.
MINIBATCH = Settings(batch=16, momentum=0.9)

ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("A", "A: float, batch 1", "ideal", own="rate"),
        Arm("B", "B: float, minibatch and momentum", "ideal", settings=MINIBATCH, own="batch"),
        Arm(
            "C",
            "C: A with clipped weights and converters",
            "dac,adc,step_mismatch",
            _clipped,
            # at the range that is found for each matrix, outputs clip as weights grow
            Settings(weight_range=1.0),
        ),
        Arm("two-tier", "two-tier, inversion", settings=Settings(rate=0.02)),
        Arm(
            "no-inversion", "two-tier, no inversion", change=_without_inversion, settings=Settings(rate=0.005)
        ),
        Arm(
            "verify",
            "two-tier, inversion, program-and-verify",
            change=_verified,
            settings=Settings(rate=0.02),
        ),
        Arm("3t1c", "capacitor alone", change=_capacitors),
        Arm("4pcm", "PCM pairs in both tiers", change=_two_pairs),
        Arm("2pcm", "PCM pair alone", change=_pairs, settings=Settings(rate=0.001)),
        Arm(
            "2pcm-5000",
            "PCM pair alone, the first 5,000 examples",
            change=_pairs,
            settings=Settings(rate=0.001),
            sets=("mnist",),
            first=(5000, 5000),
        ),
        *_sensitivities(),
    )
}
"""All arms by name."""

SENSITIVITIES = tuple(arm.name for arm in _sensitivities())
"""The names of those that vary a constant."""


@cache
def _chip(name: str) -> ChipSpec:
    tables = ARMS[name].change(chip_to_dict(load_chip(BASE)))
    return chip_from_dict(tables, f"chip of arm {name}")
