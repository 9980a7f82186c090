"""The `[cell]` section of kind "measured": a user's own cell, as numbers, laws and tables of points.

It stands beside `pcmc.accel.cell_specs`, which lists it under its kind. docs/own-cell.md explains the fields,
`pcmc.accel.cells.measured` the physics.
"""

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
from pcmc.accel.fields import Choice, Real, Reals, shown
from pcmc.errors import ChipError

Points: TypeAlias = tuple[tuple[float, float], ...]
"""Pairs (G in uS, value), G rising."""

PULSE_LAWS = ("linear", "exponential")
"""How a step depends on the conductance that it starts from; see `pcmc.accel.pulse_fit`."""


@dataclass(frozen=True, slots=True)
class Table:
    """A list of 2 to `longest` pairs: a conductance in uS, rising, and a value from `low` to `high`; or none.

    Kept as a tuple of pairs of floats.
    """

    low: float
    high: float
    longest: int = 1000

    def __str__(self) -> str:
        return (
            f"a list of 2 to {self.longest:,} pairs [G, value], G in uS and rising, the value from "
            f"{self.low:g} to {self.high:,g}"
        )

    def take(self, value: object) -> Points:
        """`value` as a tuple of pairs; ValueError if one of them may not stand here."""
        if not isinstance(value, list | tuple) or len(value) == 1 or len(value) > self.longest:
            raise ValueError
        g, y = Real(0.0, 10_000.0), Real(self.low, self.high)
        points = []
        for pair in value:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ValueError
            points.append((g.take(pair[0]), y.take(pair[1])))
            if len(points) > 1 and points[-1][0] <= points[-2][0]:
                raise ValueError
        return tuple(points)


_MICROSIEMENS = Real(0.0, 10_000.0, "uS")
_SHAPE = Real(-10.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCellSpec:
    """Kind "measured": a pair of devices whose laws a user gives; whatever is left out, does not happen."""

    kind: Annotated[str, Choice(("measured",))]
    g_min_us: Annotated[float, _MICROSIEMENS] = 0.0
    g_max_us: Annotated[float, Real(0.01, 10_000.0, "uS")]
    g_max_fit_us: Annotated[float, _MICROSIEMENS] = 0.0
    levels_us: Annotated[tuple[float, ...], Reals(0.0, 10_000.0, 0, 4096, "uS")] = ()
    programming_error_us: Annotated[tuple[float, ...], Reals(-1e4, 1e4, 0, 8, "uS")] = ()
    programming_error_points_us: Annotated[Points, Table(0.0, 1e4)] = ()
    read_noise_scale: Annotated[float, Real(0.0, 10.0)] = 0.0
    read_noise_exponent: Annotated[float, Real(-0.99, 0.0)] = 0.0
    read_noise_max: Annotated[float, Real(0.0, 10.0)] = 10.0
    read_noise_split_s: Annotated[float, SPLIT] = 1e-3
    read_noise_points_us: Annotated[Points, Table(0.0, 1e4)] = ()
    t0_s: Annotated[float, Real(0.0, 1e9, "s")] = 0.0
    t_read_s: Annotated[float, Real(0.0, 1.0, "s")] = 0.0
    drift_mean: Annotated[tuple[float, ...], LOG_LAW] = ()
    drift_deviation: Annotated[tuple[float, ...], LOG_LAW] = ()
    drift_mean_points: Annotated[Points, Table(-1.0, 1.0)] = ()
    drift_deviation_points: Annotated[Points, Table(0.0, 1.0)] = ()
    stuck_low_fraction: Annotated[float, SHARE] = 0.0
    stuck_high_fraction: Annotated[float, SHARE] = 0.0
    pulse_law: Annotated[str, Choice(PULSE_LAWS)] = "linear"
    step_up_us: Annotated[float, _MICROSIEMENS] = 0.0
    step_up_deviation: Annotated[float, Real(0.0, 10.0)] = 0.0
    step_up_noise_us: Annotated[float, _MICROSIEMENS] = 0.0
    nonlinearity_up: Annotated[float, _SHAPE] = 0.0
    nonlinearity_up_deviation: Annotated[float, Real(0.0, 5.0)] = 0.0
    step_down_us: Annotated[float, _MICROSIEMENS] = 0.0
    step_down_deviation: Annotated[float, Real(0.0, 10.0)] = 0.0
    step_down_noise_us: Annotated[float, _MICROSIEMENS] = 0.0
    nonlinearity_down: Annotated[float, _SHAPE] = 0.0
    nonlinearity_down_deviation: Annotated[float, Real(0.0, 5.0)] = 0.0
    g_min_deviation_us: Annotated[float, _MICROSIEMENS] = 0.0
    g_max_deviation_us: Annotated[float, _MICROSIEMENS] = 0.0
    read_voltage_v: Annotated[float, VOLTAGE] = 0.0
    temperature_k: Annotated[float, KELVIN] = FIT_TEMPERATURE_K
    current_cubic: Annotated[float, CUBIC] = 0.0
    polarity_loss: Annotated[float, LOSS] = 0.0

    @property
    def untrainable(self) -> str:
        """Why the cells can't be trained on the chip; empty: they can."""
        return "" if self.has_pulses else "there is no law of its steps: fit one to measured pulses"

    @property
    def significance(self) -> float:
        """1: there is one tier."""
        return 1.0

    @property
    def fit_us(self) -> float:
        """The conductance that x of the laws is relative to: g_max_fit_us, or g_max_us where it is 0."""
        return self.g_max_fit_us or self.g_max_us

    @property
    def has_pulses(self) -> bool:
        """Whether there is a law of steps, by which devices are written pulse by pulse."""
        return self.step_up_us > 0 or self.step_down_us > 0

    @property
    def has_drift(self) -> bool:
        """Whether there is a law of drift."""
        return bool(self.drift_mean or self.drift_mean_points)

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects of physics that cells of this description can have."""
        error = self.programming_error_us or self.programming_error_points_us or self.has_pulses
        laws = {
            "programming_error": bool(error),
            "read_noise": bool(self.read_noise_points_us) or self.read_noise_scale > 0,
            "drift": self.has_drift,
            "stuck": self.stuck_low_fraction + self.stuck_high_fraction > 0,
        }
        return tuple(name for name, there in laws.items() if there)

    def check(self) -> None:
        """ChipError, beginning with the field, if two fields contradict each other."""
        _check_range(self)
        _check_alternatives(self)
        _check_values(self)
        _check_time(self)
        _check_pulses(self)
        check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


def _check_range(spec: MeasuredCellSpec) -> None:
    """ChipError if range and levels contradict each other."""
    if spec.g_min_us >= spec.g_max_us:
        raise ChipError(f"g_min_us = {spec.g_min_us:g}: must be less than g_max_us = {spec.g_max_us:g} uS")
    if spec.g_max_us > spec.fit_us:
        raise ChipError(
            f"g_max_us = {spec.g_max_us:g}: must be at most g_max_fit_us = {spec.fit_us:g} uS, up to which "
            "the laws were fitted"
        )
    levels = spec.levels_us
    ends = (spec.g_min_us, spec.g_max_us)
    rising = all(low < high for low, high in pairwise(levels))
    if levels and not (rising and (levels[0], levels[-1]) == ends):
        raise ChipError(
            f"levels_us = {shown(levels)}: must rise from g_min_us = {ends[0]:g} to g_max_us = {ends[1]:g} uS"
        )


def _check_alternatives(spec: MeasuredCellSpec) -> None:
    """ChipError if one thing is given two laws."""
    alternatives = (
        ("programming_error_points_us", "programming_error_us"),
        ("drift_mean_points", "drift_mean"),
        ("drift_deviation_points", "drift_deviation"),
        ("read_noise_points_us", "read_noise_scale"),
    )
    for points, law in alternatives:
        if getattr(spec, points) and getattr(spec, law):
            raise ChipError(
                f"{points} = {shown(getattr(spec, points))}: must be left out where {law} is given"
            )
    check_drift(spec.drift_mean, spec.drift_deviation)
    if spec.drift_deviation_points and not spec.drift_mean_points:
        raise ChipError("drift_mean_points = []: must be given too where drift_deviation_points is")
    for law in ("programming_error_us", "programming_error_points_us"):
        if spec.has_pulses and getattr(spec, law):
            raise ChipError(
                f"{law} = {shown(getattr(spec, law))}: must be left out where a step is given: the error of "
                "a write is then that of the last pulse"
            )


def _check_values(spec: MeasuredCellSpec) -> None:
    """ChipError if a law is negative where it may not be, or a table does not reach over the range."""
    error = spec.programming_error_us
    check_deviation("programming_error_us", error, spec.g_max_us, g_min_us=spec.g_min_us)
    for name in ("drift_mean", "drift_deviation"):
        check_law(name, getattr(spec, name))
    tables = (
        "programming_error_points_us",
        "read_noise_points_us",
        "drift_mean_points",
        "drift_deviation_points",
    )
    for name in tables:
        points = getattr(spec, name)
        if points and not points[0][0] <= spec.g_min_us < spec.g_max_us <= points[-1][0]:
            raise ChipError(
                f"{name} = {shown(points)}: must reach from g_min_us = {spec.g_min_us:g} to g_max_us = "
                f"{spec.g_max_us:g} uS, and not from {points[0][0]:g} to {points[-1][0]:g}"
            )


def _check_time(spec: MeasuredCellSpec) -> None:
    """ChipError if a law of time lacks the time that it counts from."""
    if spec.has_drift and spec.t0_s == 0:
        raise ChipError("t0_s = 0: must be more where there is drift: the time of the first read, in s")
    if spec.read_noise_scale and not 0 < spec.t_read_s <= spec.t0_s:
        raise ChipError(
            f"t_read_s = {spec.t_read_s:g}: must be more than 0 and at most t0_s = {spec.t0_s:g} s where "
            "read_noise_scale is given: its noise is 1/f, between the two times"
        )


def _check_pulses(spec: MeasuredCellSpec) -> None:
    """ChipError if a step is larger than the range, or what belongs to a step stands without it."""
    for way in ("up", "down"):
        step = getattr(spec, f"step_{way}_us")
        if step > spec.g_max_us - spec.g_min_us:
            raise ChipError(
                f"step_{way}_us = {step:g}: must be at most g_max_us - g_min_us = "
                f"{spec.g_max_us - spec.g_min_us:g} uS"
            )
        names = (f"step_{way}_deviation", f"step_{way}_noise_us", f"nonlinearity_{way}")
        for name in (*names, f"nonlinearity_{way}_deviation"):
            if getattr(spec, name) and not step:
                raise ChipError(f"{name} = {getattr(spec, name):g}: must be left out where step_{way}_us is")
    for name in ("g_min_deviation_us", "g_max_deviation_us"):
        if getattr(spec, name) and not spec.has_pulses:
            raise ChipError(
                f"{name} = {getattr(spec, name):g}: must be left out where no step is given: closed-loop "
                "writing reaches its targets"
            )
