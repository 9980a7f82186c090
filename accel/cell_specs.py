"""The `[cell]` section of a chip file: one dataclass for each kind of cell, and what each kind is capable of.

A field with a default may be left out of a file. docs/chips.md explains every field, docs/cells.md
the physics.
"""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pcmc.accel.fields import Choice, Flag, Real, Reals, Whole, shown
from pcmc.errors import ChipError

_SECONDS = Real(1e-12, 1.0, "s")
_MICROSIEMENS = Real(0.01, 10_000.0, "uS")
_FACTOR = Real(0.01, 1000.0)
_SHARE = Real(0.0, 1.0)
_LOG_LAW = Reals(-10.0, 10.0, 0, 4)  # slope, offset, low, high; or none
_LAW_ABOVE = Reals(-10.0, 10.0, 0, 9)  # x from which it holds, powers of x; or none


@dataclass(frozen=True, slots=True, kw_only=True)
class PcmCellSpec:
    """Kind "2pcm": pairs of PCM devices, `pairs` of them for one weight, each programmed to the same target.

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
    read_noise_law: Annotated[tuple[float, ...], _LOG_LAW] = ()
    read_noise_law_above: Annotated[tuple[float, ...], _LAW_ABOVE] = ()
    read_noise_split_s: Annotated[float, Real(1e-9, 1e6, "s")] = 1e-3
    drift_mean: Annotated[tuple[float, ...], _LOG_LAW] = ()
    drift_mean_above: Annotated[tuple[float, ...], _LAW_ABOVE] = ()
    drift_deviation: Annotated[tuple[float, ...], _LOG_LAW] = ()
    drift_deviation_above: Annotated[tuple[float, ...], _LAW_ABOVE] = ()
    stuck_low_fraction: Annotated[float, _SHARE] = 0.0
    stuck_high_fraction: Annotated[float, _SHARE] = 0.0
    pairs: Annotated[int, Whole(1, 16)] = 1

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects of physics that cells of this description can have."""
        laws = {
            "programming_error": True,
            "read_noise": bool(self.read_noise_law) or self.read_noise_scale > 0,
            "drift": bool(self.drift_mean),
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
        _check_deviation("programming_error_us", self.programming_error_us, self.g_max_us, self.g_max_fit_us)
        for name in ("read_noise_law", "drift_mean", "drift_deviation"):
            _check_law(name, getattr(self, name), getattr(self, name + "_above"))
        if self.read_noise_law and self.read_noise_scale:
            raise ChipError(
                f"read_noise_law = {shown(self.read_noise_law)}: must be left out where read_noise_scale is "
                f"a law already, {self.read_noise_scale:g}"
            )
        if bool(self.drift_mean) != bool(self.drift_deviation):
            absent = "drift_deviation" if self.drift_mean else "drift_mean"
            raise ChipError(f"{absent} = []: must be given too: drift has a mean and a deviation")
        _check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTierCellSpec(PcmCellSpec):
    """Kind "2pcm+3t1c": a pair of PCM devices worth `significance` times, and a capacitor cell worth 1."""

    kind: Annotated[str, Choice(("2pcm+3t1c",))]
    read_noise_scale: Annotated[float, Real(0.0, 10.0)]
    read_noise_exponent: Annotated[float, Real(-0.99, 0.0)]
    read_noise_max: Annotated[float, Real(0.0, 10.0)]
    low_tier_in_inference: Annotated[bool, Flag()]

    def check(self) -> None:
        """As for PCM pairs; and the low tier can't be read in inference."""
        super(TwoTierCellSpec, self).check()
        if self.low_tier_in_inference:
            raise ChipError(
                "low_tier_in_inference = true: must be false; a network that was programmed and then only "
                "runs is read from its PCM pairs"
            )
        if self.pairs != 1:
            raise ChipError(f'pairs = {self.pairs}: must be 1 in a cell of kind "2pcm+3t1c"')


@dataclass(frozen=True, slots=True, kw_only=True)
class FourPcmCellSpec(PcmCellSpec):
    """Kind "4pcm": a high pair worth `significance` times, and a low pair worth 1 that corrects its error."""

    kind: Annotated[str, Choice(("4pcm",))]

    def check(self) -> None:
        """As for PCM pairs; and there are two of them, never more."""
        super(FourPcmCellSpec, self).check()
        if self.pairs != 1:
            raise ChipError(f'pairs = {self.pairs}: must be 1 in a cell of kind "4pcm", which has two tiers')


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacitorCellSpec:
    """Kind "3t1c": a capacitor whose voltage sets a conductance g, read against a reference; it leaks."""

    kind: Annotated[str, Choice(("3t1c",))]
    g_low_us: Annotated[float, Real(0.0, 10_000.0, "uS")]
    g_high_us: Annotated[float, _MICROSIEMENS]
    g_reference_us: Annotated[float, _MICROSIEMENS]
    steps: Annotated[int, Whole(2, 1_000_000)]
    leak_tau_s: Annotated[float, Real(1e-9, 1e9, "s")]
    stuck_low_fraction: Annotated[float, _SHARE] = 0.0
    stuck_high_fraction: Annotated[float, _SHARE] = 0.0

    @property
    def significance(self) -> float:
        """1: there is one tier."""
        return 1.0

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
        _check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class RramCellSpec:
    """Kind "rram": a pair of filamentary devices, whose error is a polynomial in the conductance in uS."""

    kind: Annotated[str, Choice(("rram",))]
    g_min_us: Annotated[float, Real(0.0, 10_000.0, "uS")]
    g_max_us: Annotated[float, _MICROSIEMENS]
    g_max_fit_us: Annotated[float, _MICROSIEMENS]
    programming_error_us: Annotated[tuple[float, ...], Reals(-1e4, 1e4, 1, 8, "uS")]
    stuck_low_fraction: Annotated[float, _SHARE] = 0.0
    stuck_high_fraction: Annotated[float, _SHARE] = 0.0

    @property
    def significance(self) -> float:
        """1: there is one tier."""
        return 1.0

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects of physics that cells of this description can have."""
        stuck = self.stuck_low_fraction + self.stuck_high_fraction > 0
        return ("programming_error", "stuck") if stuck else ("programming_error",)

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
        _check_deviation("programming_error_us", self.programming_error_us, self.g_max_us, 1.0)
        _check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelCellSpec:
    """Kinds "sram" and "levels": weights on 2^bits - 1 equal levels, held exactly.

    "sram" keeps them in bits of memory, "levels" in devices that are trusted to hold their levels.
    """

    kind: Annotated[str, Choice(("sram", "levels"))]
    bits: Annotated[int, Whole(2, 24)]
    stuck_low_fraction: Annotated[float, _SHARE] = 0.0
    stuck_high_fraction: Annotated[float, _SHARE] = 0.0

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
        _check_stuck(self.stuck_low_fraction, self.stuck_high_fraction)


@dataclass(frozen=True, slots=True)
class IdealCellSpec:
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
    | CapacitorCellSpec
    | RramCellSpec
    | LevelCellSpec
    | IdealCellSpec
)
"""The parameters of a cell; which ones there are depends on its `kind`."""

CELL_KINDS: dict[str, type[CellSpec]] = {
    "2pcm+3t1c": TwoTierCellSpec,
    "2pcm": PcmCellSpec,
    "4pcm": FourPcmCellSpec,
    "3t1c": CapacitorCellSpec,
    "rram": RramCellSpec,
    "sram": LevelCellSpec,
    "levels": LevelCellSpec,
    "ideal": IdealCellSpec,
}


def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """c0 + c1 x + c2 x^2 + ..."""
    value = 0.0
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def _check_deviation(name: str, coefficients: tuple[float, ...], g_max_us: float, unit_us: float) -> None:
    """ChipError if a polynomial in G / unit_us is negative somewhere from 0 to g_max_us."""
    for percent in range(101):
        g = percent / 100 * g_max_us
        if polynomial(coefficients, g / unit_us) < 0:
            raise ChipError(
                f"{name} = {shown(coefficients)}: must not give a negative standard deviation, as it does at "
                f"{g:g} uS"
            )


def _check_law(name: str, law: tuple[float, ...], above: tuple[float, ...]) -> None:
    """ChipError if a law of `pcmc.accel.cells.pcm.law_of` lacks numbers or gives a negative value."""
    if law and (len(law) != 4 or not 0 <= law[2] <= law[3]):
        raise ChipError(
            f"{name} = {shown(law)}: must be [] or slope, offset, low and high with 0 <= low <= high"
        )
    if above and not law:
        raise ChipError(f"{name}_above = {shown(above)}: must be left out where {name} is")
    if above and (len(above) < 2 or not 0 < above[0] <= 1):
        raise ChipError(f"{name}_above = {shown(above)}: must be [] or an x in (0, 1] and then powers of x")
    for percent in range(101) if above else ():
        x = above[0] + (1 - above[0]) * percent / 100
        if polynomial(above[1:], x) < 0:
            raise ChipError(f"{name}_above = {shown(above)}: must not be negative, as it is at x = {x:g}")


def _check_stuck(low: float, high: float) -> None:
    """ChipError if more than all devices are stuck."""
    if low + high > 1:
        raise ChipError(
            f"stuck_high_fraction = {high:g}: must be at most 1 - stuck_low_fraction = {1 - low:g}"
        )
