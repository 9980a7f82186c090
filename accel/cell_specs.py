"""The `[cell]` section of a chip file: one dataclass for each kind of cell, and what each kind is capable of.

A field with a default may be left out of a file. docs/chips.md explains every field, docs/cells.md
the physics.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, TypeAlias

from pcmc.accel.cell_rules import (
    CUBIC,
    FIT_TEMPERATURE_K,
    KELVIN,
    LOG_LAW,
    LOSS,
    SHARE,
    SPLIT,
    VOLTAGE,
    check_deviation,
    check_drift,
    check_law,
    check_stuck,
)
from pcmc.accel.fields import Choice, Flag, Real, Reals, Whole, shown
from pcmc.accel.measured_spec import MeasuredCellSpec
from pcmc.errors import ChipError

_SECONDS = Real(1e-12, 1.0, "s")
_MICROSIEMENS = Real(0.01, 10_000.0, "uS")
_FACTOR = Real(0.01, 1000.0)
_LAW_ABOVE = Reals(-10.0, 10.0, 0, 9)  # x from which it holds, powers of x; or none
_ACTIVATION = Real(0.0, 1.0, "eV")
_LN_TIME_LAW = Reals(-1000.0, 1000.0, 0, 2, "uS")  # offset, slope over ln t; or none

MOST_US = 1e6  # a conductance of 1 S: what the wires of an array take
BOLTZMANN_EV_PER_K = 8.617333262e-5
"""Boltzmann's constant, eV/K (CODATA 2018)."""


class _Trainable:
    """What cells share that training on the chip can update."""

    __slots__ = ()

    @property
    def untrainable(self) -> str:
        """Why the cells can't be trained on the chip; empty: they can."""
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcmCellSpec(_Trainable):
    """Kind "2pcm": pairs of PCM devices, `pairs` of them for one weight, each programmed to the same target;
    or `slices` of them, each programmed to `slice_bits` of the weight's bits.

    The statistics of the devices are functions of x = G / g_max_fit_us: see `pcmc.accel.cells.pcm`.
    """

    kind: Annotated[str, Choice(("2pcm",))]
    significance: Annotated[float, _FACTOR]
    g_max_us: Annotated[float, _MICROSIEMENS]
    g_max_fit_us: Annotated[float, _MICROSIEMENS]
    programming_error_us: Annotated[tuple[float, ...], Reals(-1e4, 1e4, 1, 8, "uS")]
    read_noise_scale: Annotated[float, Real(0.0, 10.0)] = 0.0
    read_noise_exponent: Annotated[float, Real(-0.99, 0.0)] = 0.0
    read_noise_max: Annotated[float, Real(0.0, 10.0)] = 0.0
    t0_s: Annotated[float, Real(1e-9, 1e9, "s")]
    t_read_s: Annotated[float, _SECONDS]
    read_noise_law: Annotated[tuple[float, ...], LOG_LAW] = ()
    read_noise_law_above: Annotated[tuple[float, ...], _LAW_ABOVE] = ()
    read_noise_split_s: Annotated[float, SPLIT] = 1e-3
    drift_mean: Annotated[tuple[float, ...], LOG_LAW] = ()
    drift_mean_above: Annotated[tuple[float, ...], _LAW_ABOVE] = ()
    drift_deviation: Annotated[tuple[float, ...], LOG_LAW] = ()
    drift_deviation_above: Annotated[tuple[float, ...], _LAW_ABOVE] = ()
    stuck_low_fraction: Annotated[float, SHARE] = 0.0
    stuck_high_fraction: Annotated[float, SHARE] = 0.0
    pairs: Annotated[int, Whole(1, 16)] = 1
    slices: Annotated[int, Whole(1, 16)] = 1
    slice_bits: Annotated[int, Whole(1, 8)] = 1
    read_voltage_v: Annotated[float, VOLTAGE] = 0.0
    temperature_k: Annotated[float, KELVIN] = FIT_TEMPERATURE_K
    activation_reset_ev: Annotated[float, _ACTIVATION] = 0.0
    activation_set_ev: Annotated[float, _ACTIVATION] = 0.0
    current_cubic: Annotated[float, CUBIC] = 0.0
    polarity_loss: Annotated[float, LOSS] = 0.0

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects of physics that cells of this description can have."""
        laws = {
            "programming_error": True,
            "read_noise": bool(self.read_noise_law) or self.read_noise_scale > 0,
            "drift": bool(self.drift_mean) or self.activation_reset_ev + self.activation_set_ev > 0,
            "stuck": self.stuck_low_fraction + self.stuck_high_fraction > 0,
        }
        return tuple(name for name, there in laws.items() if there)

    def check(self) -> None:
        """ChipError, beginning with the field, if two fields contradict each other."""
        if self.g_max_us > self.g_max_fit_us:
            raise ChipError(
                f"g_max_us = {self.g_max_us:g}: must be at most g_max_fit_us = {self.g_max_fit_us:g} uS, up "
                "to which the statistics were fitted"
            )
        if self.t_read_s > self.t0_s:
            raise ChipError(
                f"t_read_s = {self.t_read_s:g}: must be at most t0_s = {self.t0_s:g} s, the time of the "
                "first read"
            )
        check_deviation("programming_error_us", self.programming_error_us, self.g_max_us, self.g_max_fit_us)
        for name in ("read_noise_law", "drift_mean", "drift_deviation"):
            check_law(name, getattr(self, name), getattr(self, name + "_above"))
        if self.read_noise_law and self.read_noise_scale:
            raise ChipError(
                f"read_noise_law = {shown(self.read_noise_law)}: must be left out where read_noise_scale is "
                f"a law already, {self.read_noise_scale:g}"
            )
        if self.slices > 1 and self.pairs > 1:
            raise ChipError(f"pairs = {self.pairs}: must be 1 where slices = {self.slices}")
        if self.slices * self.slice_bits > 23:
            raise ChipError(
                f"slice_bits = {self.slice_bits}: must be at most {23 // self.slices} with {self.slices} "
                "slices, 23 bits together"
            )
        check_drift(self.drift_mean, self.drift_deviation)
        check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)
        for name in ("activation_reset_ev", "activation_set_ev"):
            factor = arrhenius(getattr(self, name), self.temperature_k)
            if factor * self.g_max_us > MOST_US:
                raise ChipError(
                    f"{name} = {getattr(self, name):g}: must not let a device conduct more than {MOST_US:g} "
                    f"uS, as it does {factor:.3g} times better at temperature_k = {self.temperature_k:g}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTierCellSpec(PcmCellSpec):
    """Kind "2pcm+3t1c": a pair of PCM devices worth `significance` times, and a capacitor cell worth 1."""

    kind: Annotated[str, Choice(("2pcm+3t1c",))]
    read_noise_scale: Annotated[float, Real(0.0, 10.0)]
    read_noise_exponent: Annotated[float, Real(-0.99, 0.0)]
    read_noise_max: Annotated[float, Real(0.0, 10.0)]
    low_tier_in_inference: Annotated[bool, Flag()]
    low_g_low_us: Annotated[float, Real(0.0, 10_000.0, "uS")]
    low_g_high_us: Annotated[float, _MICROSIEMENS]
    low_reference_us: Annotated[float, _MICROSIEMENS]
    low_steps: Annotated[int, Whole(2, 1_000_000)]
    leak_tau_s: Annotated[float, Real(1e-9, 1e9, "s")]
    leak_ev: Annotated[float, _ACTIVATION] = 0.0

    @property
    def leak_tau_now_s(self) -> float:
        """The time constant of the leak at `temperature_k`."""
        return self.leak_tau_s / arrhenius(self.leak_ev, self.temperature_k)

    def check(self) -> None:
        """As for PCM pairs; and the low tier can't be read in inference."""
        super(TwoTierCellSpec, self).check()
        if not self.low_g_low_us < self.low_reference_us < self.low_g_high_us:
            raise ChipError(
                f"low_reference_us = {self.low_reference_us:g}: must lie between low_g_low_us = "
                f"{self.low_g_low_us:g} and low_g_high_us = {self.low_g_high_us:g} uS"
            )
        if self.low_tier_in_inference:
            raise ChipError(
                "low_tier_in_inference = true: must be false; a network that was programmed and then only "
                "runs is read from its PCM pairs from t0_s on, and from both tiers before"
            )
        _check_undivided(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FourPcmCellSpec(PcmCellSpec):
    """Kind "4pcm": a high pair worth `significance` times, and a low pair worth 1 that corrects its error."""

    kind: Annotated[str, Choice(("4pcm",))]

    def check(self) -> None:
        """As for PCM pairs; and there are two of them, never more."""
        super(FourPcmCellSpec, self).check()
        _check_undivided(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePcmCellSpec(PcmCellSpec):
    """Kind "1pcm": one PCM device a weight, against a reference at half of the range."""

    kind: Annotated[str, Choice(("1pcm",))]

    def check(self) -> None:
        """As for PCM pairs; and there is one device."""
        super(ReferencePcmCellSpec, self).check()
        _check_undivided(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacitorCellSpec(_Trainable):
    """Kind "3t1c": a capacitor whose voltage sets a conductance g, read against a reference; it leaks."""

    kind: Annotated[str, Choice(("3t1c",))]
    g_low_us: Annotated[float, Real(0.0, 10_000.0, "uS")]
    g_high_us: Annotated[float, _MICROSIEMENS]
    g_reference_us: Annotated[float, _MICROSIEMENS]
    steps: Annotated[int, Whole(2, 1_000_000)]
    leak_tau_s: Annotated[float, Real(1e-9, 1e9, "s")]
    leak_ev: Annotated[float, _ACTIVATION] = 0.0
    temperature_k: Annotated[float, KELVIN] = FIT_TEMPERATURE_K
    reference_error_us: Annotated[float, Real(0.0, 10_000.0, "uS")] = 0.0
    stuck_low_fraction: Annotated[float, SHARE] = 0.0
    stuck_high_fraction: Annotated[float, SHARE] = 0.0

    @property
    def significance(self) -> float:
        """1: there is one tier."""
        return 1.0

    @property
    def leak_tau_now_s(self) -> float:
        """The time constant of the leak at `temperature_k`."""
        return self.leak_tau_s / arrhenius(self.leak_ev, self.temperature_k)

    @property
    def g_max_us(self) -> float:
        """The largest difference from the reference that both signs of a weight can have."""
        return min(self.g_high_us - self.g_reference_us, self.g_reference_us - self.g_low_us)

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects of physics that cells of this description can have; drift is the leak."""
        stuck = self.stuck_low_fraction + self.stuck_high_fraction > 0
        return ("programming_error", "drift", "stuck") if stuck else ("programming_error", "drift")

    def check(self) -> None:
        """ChipError, beginning with the field, if two fields contradict each other."""
        if not self.g_low_us < self.g_reference_us < self.g_high_us:
            raise ChipError(
                f"g_reference_us = {self.g_reference_us:g}: must lie between g_low_us = {self.g_low_us:g} "
                f"and g_high_us = {self.g_high_us:g} uS"
            )
        check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class RramCellSpec(_Trainable):
    """Kind "rram": a pair of filamentary devices, whose error is a polynomial in the conductance in uS.

    What time does to them, where it is given, is either a table of the whole error at some times, or a
    relaxation that is linear in ln t: see `pcmc.accel.cells.rram`.
    """

    kind: Annotated[str, Choice(("rram",))]
    g_min_us: Annotated[float, Real(0.0, 10_000.0, "uS")]
    g_max_us: Annotated[float, _MICROSIEMENS]
    g_max_fit_us: Annotated[float, _MICROSIEMENS]
    programming_error_us: Annotated[tuple[float, ...], Reals(-1e4, 1e4, 0, 8, "uS")]
    t0_s: Annotated[float, Real(0.0, 1e9, "s")] = 0.0
    error_times_s: Annotated[tuple[float, ...], Reals(1e-9, 1e12, 0, 16, "s")] = ()
    error_at_times_us: Annotated[tuple[float, ...], Reals(-1e4, 1e4, 0, 128, "uS")] = ()
    relaxation_mean_us: Annotated[tuple[float, ...], _LN_TIME_LAW] = ()
    relaxation_deviation_us: Annotated[tuple[float, ...], _LN_TIME_LAW] = ()
    read_noise_log_us: Annotated[float, Real(0.0, 1000.0, "uS")] = 0.0
    t_read_s: Annotated[float, Real(0.0, 1.0, "s")] = 0.0
    read_noise_split_s: Annotated[float, SPLIT] = 1e-3
    stays_in_range: Annotated[bool, Flag()] = False
    stuck_low_fraction: Annotated[float, SHARE] = 0.0
    stuck_high_fraction: Annotated[float, SHARE] = 0.0
    read_voltage_v: Annotated[float, VOLTAGE] = 0.0
    temperature_k: Annotated[float, KELVIN] = FIT_TEMPERATURE_K
    current_cubic: Annotated[float, CUBIC] = 0.0
    polarity_loss: Annotated[float, LOSS] = 0.0

    @property
    def significance(self) -> float:
        """1: there is one tier."""
        return 1.0

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects of physics that cells of this description can have."""
        laws = {
            "programming_error": bool(self.programming_error_us),
            "read_noise": self.read_noise_log_us > 0,
            "drift": bool(self.error_times_s or self.relaxation_deviation_us),
            "stuck": self.stuck_low_fraction + self.stuck_high_fraction > 0,
        }
        return tuple(name for name, there in laws.items() if there)

    @property
    def error_table_us(self) -> tuple[tuple[float, ...], ...]:
        """The coefficients of `error_at_times_us`, those of each time together."""
        count = len(self.error_at_times_us) // max(1, len(self.error_times_s))
        starts = range(0, len(self.error_at_times_us), max(1, count))
        return tuple(self.error_at_times_us[start : start + count] for start in starts)

    def check(self) -> None:
        """ChipError, beginning with the field, if two fields contradict each other."""
        if self.g_max_us > self.g_max_fit_us:
            raise ChipError(
                f"g_max_us = {self.g_max_us:g}: must be at most g_max_fit_us = {self.g_max_fit_us:g} uS, up "
                "to which the error was fitted"
            )
        if self.g_min_us >= self.g_max_us:
            raise ChipError(
                f"g_min_us = {self.g_min_us:g}: must be less than g_max_us = {self.g_max_us:g} uS"
            )
        if bool(self.programming_error_us) == bool(self.error_times_s):
            raise ChipError(
                f"programming_error_us = {shown(self.programming_error_us)}: must be given, or else "
                "error_times_s, whose errors hold the one of programming"
            )
        check_deviation("programming_error_us", self.programming_error_us, self.g_max_us)
        _check_error_table(self)
        _check_relaxation(self)
        if self.read_noise_log_us and not 0 < self.t_read_s <= self.t0_s:
            raise ChipError(
                f"t_read_s = {self.t_read_s:g}: must be more than 0 and at most t0_s = {self.t0_s:g} s where "
                "read_noise_log_us is given: its noise is 1/f, between the two times"
            )
        check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelCellSpec(_Trainable):
    """Kinds "sram" and "levels": weights on 2^bits - 1 equal levels, held exactly.

    "sram" keeps them in bits of memory, "levels" in devices that are trusted to hold their levels.
    """

    kind: Annotated[str, Choice(("sram", "levels"))]
    bits: Annotated[int, Whole(2, 24)]
    stuck_low_fraction: Annotated[float, SHARE] = 0.0
    stuck_high_fraction: Annotated[float, SHARE] = 0.0

    @property
    def significance(self) -> float:
        """1: there is one tier."""
        return 1.0

    @property
    def g_max_us(self) -> float:
        """The largest level, 2^(bits - 1) - 1; a level takes the place of a microsiemens."""
        return float(2 ** (self.bits - 1) - 1)

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects of physics that cells of this description can have."""
        return ("stuck",) if self.stuck_low_fraction + self.stuck_high_fraction > 0 else ()

    def check(self) -> None:
        """ChipError, beginning with the field, if two fields contradict each other."""
        check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class AxonCellSpec:
    """Kind "axon": binary synapses; an input drives `axons` axons, and each type of them has one weight.

    See `pcmc.accel.cells.axon`.
    """

    kind: Annotated[str, Choice(("axon",))]
    axons: Annotated[int, Whole(2, 8)]
    stuck_low_fraction: Annotated[float, SHARE] = 0.0
    stuck_high_fraction: Annotated[float, SHARE] = 0.0

    @property
    def significance(self) -> float:
        """1: there is one tier."""
        return 1.0

    @property
    def g_max_us(self) -> float:
        """The largest level, 2^(axons - 1) - 1; a level takes the place of a microsiemens."""
        return float(2 ** (self.axons - 1) - 1)

    @property
    def type_weights(self) -> tuple[int, ...]:
        """What a spike on an axon of each type adds where the synapse is on, in units of a neuron's scale."""
        if self.axons == 2:
            return (1, -1)
        return (-(2 ** (self.axons - 1)), *(2 ** (self.axons - 2 - t) for t in range(self.axons - 1)))

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects of physics that cells of this description can have."""
        return ("stuck",) if self.stuck_low_fraction + self.stuck_high_fraction > 0 else ()

    @property
    def untrainable(self) -> str:
        """Why there is no training on such a chip."""
        return (
            "weights are binary synapses, trained off-line and then loaded; the cores take and give spikes "
            "only, and nothing on the chip updates a synapse"
        )

    def check(self) -> None:
        """ChipError, beginning with the field, if two fields contradict each other."""
        check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


@dataclass(frozen=True, slots=True)
class IdealCellSpec(_Trainable):
    """Kind "ideal": a cell that holds any weight exactly. It has no conductances; both properties are 1."""

    kind: Annotated[str, Choice(("ideal",))]

    @property
    def g_max_us(self) -> float:
        """1, so that `significance * g_max_us / w_max` is defined for every kind."""
        return 1.0

    @property
    def significance(self) -> float:
        """1; see `g_max_us`."""
        return 1.0

    @property
    def effects(self) -> tuple[str, ...]:
        """None: an ideal cell has no physics."""
        return ()

    def check(self) -> None:
        """Nothing can contradict anything."""


CellSpec: TypeAlias = (
    PcmCellSpec
    | TwoTierCellSpec
    | FourPcmCellSpec
    | ReferencePcmCellSpec
    | CapacitorCellSpec
    | RramCellSpec
    | LevelCellSpec
    | AxonCellSpec
    | MeasuredCellSpec
    | IdealCellSpec
)
"""The parameters of a cell; which ones there are depends on its `kind`."""

CELL_KINDS: dict[str, type[CellSpec]] = {
    "2pcm+3t1c": TwoTierCellSpec,
    "2pcm": PcmCellSpec,
    "4pcm": FourPcmCellSpec,
    "1pcm": ReferencePcmCellSpec,
    "3t1c": CapacitorCellSpec,
    "rram": RramCellSpec,
    "sram": LevelCellSpec,
    "levels": LevelCellSpec,
    "axon": AxonCellSpec,
    "measured": MeasuredCellSpec,
    "ideal": IdealCellSpec,
}

CONDUCTIVE_KINDS = frozenset(("2pcm+3t1c", "2pcm", "4pcm", "rram", "measured"))
"""The kinds whose weights are pairs of conductors on wires."""


def arrhenius(activation_ev: float, temperature_k: float) -> float:
    """exp(-(Ea / k) (1 / T - 1 / T0)): how much faster what is activated goes than at FIT_TEMPERATURE_K.

    Held at e^-80, where nothing moves any more.
    """
    exponent = -activation_ev / BOLTZMANN_EV_PER_K * (1 / temperature_k - 1 / FIT_TEMPERATURE_K)
    return math.exp(max(exponent, -80.0))


def _check_undivided(spec: PcmCellSpec) -> None:
    """ChipError if a cell of another kind than "2pcm" has several pairs, or slices."""
    for name in ("pairs", "slices"):
        if getattr(spec, name) != 1:
            raise ChipError(f'{name} = {getattr(spec, name)}: must be 1 in a cell of kind "{spec.kind}"')


def _check_error_table(spec: RramCellSpec) -> None:
    """ChipError if the errors at some times are no table, negative, or do not cover the first read."""
    times, table = spec.error_times_s, spec.error_table_us
    if any(late <= early for early, late in pairwise(times)):
        raise ChipError(f"error_times_s = {shown(times)}: must ascend")
    if len(table) != len(times) or len({len(row) for row in table}) > 1:
        raise ChipError(
            f"error_at_times_us = {shown(spec.error_at_times_us)}: must be as many coefficients for each of "
            f"the {len(times)} times of error_times_s, one time after the other"
        )
    for row in table:
        check_deviation("error_at_times_us", row, spec.g_max_us, spec.g_max_fit_us)
    if times and not times[0] <= spec.t0_s <= times[-1]:
        raise ChipError(f"t0_s = {spec.t0_s:g}: must be one of error_times_s or between them")


def _check_relaxation(spec: RramCellSpec) -> None:
    """ChipError if the relaxation lacks numbers, or stands beside a table, or its deviation gets negative."""
    mean, deviation = spec.relaxation_mean_us, spec.relaxation_deviation_us
    for name, law in (("relaxation_mean_us", mean), ("relaxation_deviation_us", deviation)):
        if len(law) != (2 if mean or deviation else 0):
            raise ChipError(
                f"{name} = {shown(law)}: must be offset and slope over ln t, as the other's, or []"
            )
        if law and spec.error_times_s:
            raise ChipError(f"{name} = {shown(law)}: must be left out where error_times_s is given")
    if deviation and spec.t0_s <= 0:
        raise ChipError(f"t0_s = {spec.t0_s:g}: must be more than 0, the time of the first read, in s")
    if deviation and (deviation[1] < 0 or deviation[0] + deviation[1] * math.log(spec.t0_s) < 0):
        raise ChipError(
            f"relaxation_deviation_us = {shown(deviation)}: must not be negative from t0_s = {spec.t0_s:g} s "
            "on"
        )
