"""What every cell can do, and what its devices hold."""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.random import Normals, Stream
from pcmc.errors import ChipError

Float32 = NDArray[np.float32]

NoisePart: TypeAlias = Literal["all", "slow", "fast"]
"""Read noise: all of it, what is slower than a batch of reads, or what is faster."""


def _nothing() -> Float32:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Devices:
    """What the devices of a block hold, as read-only float32 arrays [rows, cols] or [rows, cols, pairs].

    For conductive cells `g_plus` and `g_minus` are the conductances of each pair in uS; a cell of several
    pairs has a row of them. For cells that are not pairs (ideal, levels, capacitors) `g_plus` is what they
    hold, and `g_minus` is empty. `low` is what a capacitor beside a pair holds, (g - g_ref) in uS, right
    after programming; it is empty where there is none.
    """

    g_plus: Float32
    g_minus: Float32 = field(default_factory=_nothing)
    low: Float32 = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        for name in ("g_plus", "g_minus", "low"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)


class Cell(Protocol):
    """One kind of cell; it keeps parameters, never state, so one object serves all cells of a chip.

    Cells know no weights: a target is W in uS, what the read-out of a cell counts as one conductance, for
    example F (G+ - G-). Whoever calls multiplies weights by the microsiemens that stand for a weight of 1
    before `program`, and divides by them afterwards. The cells of one call are a block of a tile.
    """

    @property
    def full_us(self) -> float:
        """W of the largest weight, in uS: F g_max for pairs of conductors."""

    @property
    def t0_s(self) -> float:
        """When the first read takes place, in seconds since programming."""

    @property
    def gains(self) -> tuple[float, ...]:
        """W = sum over k of gains[k] (g_plus[..., k] - g_minus[..., k]); () for cells that are no pairs."""

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Program a block of cells from their erased state.

        Args:
            target_us: [rows, cols], float32: W of each cell. Not changed.
            rng: the stream of the programming error; None programs the targets exactly.
            stuck: the stream that says which devices are stuck, the same at each programming of a chip; None:
                none are.

        Returns:
            Devices [rows, cols], or [rows, cols, pairs].

        Raises:
            TypeError: `target_us` is not a two-dimensional float32 array.
        """

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """The devices as reads at a time find them; `devices` itself where nothing changes.

        Args:
            devices: programmed cells. Not changed.
            at_s: seconds since programming; None: t0_s.
            noise: the stream of the frozen read noise, one draw per device; None: no noise.
            drift: the stream of the devices' drift, the same at each read of a programming; None: no drift.
            part: which part of the noise is frozen: "all", or "slow" where the rest is added at each read.

        Raises:
            ChipError: a time that no law covers, or noise or drift that the cell has no law of.
        """

    def weights_us(self, devices: Devices) -> Float32:
        """W of each cell in uS, [rows, cols] float32; possibly a read-only view of `devices`."""

    def noise_variance(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Variance of W from read to read in uS^2, [rows, cols] float32, of a part of the noise.

        The variances of "slow" and "fast" add up to that of "all". Arguments as in `age`, `devices` as they
        were programmed, with the same stream of drift.
        """

    def clipped(self, target_us: Float32) -> int:
        """How many of the targets are beyond the range of a cell, and are programmed to its end."""


@runtime_checkable
class PairCell(Cell, Protocol):
    """A cell of pairs of conductors, which knows the noise of each."""

    def device_variances(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> tuple[Float32, Float32]:
        """sigma_read^2 of each G+ and of each G-, in uS^2; as `noise_variance`."""


class Described(Protocol):
    """What a `[cell]` section says of itself."""

    @property
    def kind(self) -> str:
        """The kind of cell."""

    @property
    def effects(self) -> tuple[str, ...]:
        """The effects that there is a law of."""


def check_laws(spec: Described, **asked: bool) -> None:
    """ChipError if an effect is asked for that the cell has no law of.

    Args:
        spec: the cell's.
        asked: by the name of each effect, whether it is asked for.
    """
    for effect, wanted in asked.items():
        if wanted and effect not in spec.effects:
            raise ChipError(f"{effect}: the [cell] of kind {spec.kind} gives no law of it")


def read_time(at_s: float | None, t0_s: float) -> float:
    """The time of a read in s, None being `t0_s`; ChipError if it is no time, or before that."""
    at_s = t0_s if at_s is None else at_s
    if not (math.isfinite(at_s) and at_s >= t0_s):
        first = f"{t0_s:g} s, t0_s of the chip's [cell]" if t0_s else "0 s"
        raise ChipError(f"read at {at_s:g} s after programming: must be at least {first}")
    return at_s


def check_targets(target_us: Float32) -> None:
    """TypeError if `target_us` is not a two-dimensional float32 array."""
    if target_us.dtype != np.float32 or target_us.ndim != 2:
        raise TypeError(
            f"targets must be float32 [rows, cols], not {target_us.dtype} {list(target_us.shape)}"
        )


def beyond(target_us: Float32, limit: float) -> int:
    """How many targets are larger than `limit` in magnitude, by more than rounding."""
    return int(np.count_nonzero(np.abs(target_us) > np.float32(limit * (1 + 2**-22))))


def make_stuck(g: Float32, low: float, high: float, g_low_us: float, g_high_us: float, rng: Stream) -> None:
    """Put the stuck devices of an array to their levels, in place.

    Args:
        g: programmed conductances; overwritten where a device is stuck.
        low: the share of devices stuck at `g_low_us`.
        high: the share of devices stuck at `g_high_us`.
        g_low_us: the lower level.
        g_high_us: the upper level.
        rng: one uniform number is drawn per device, in order.
    """
    u = rng.uniform(g.size).reshape(g.shape)
    g[u < np.float32(low)] = np.float32(g_low_us)
    g[u >= np.float32(1.0 - high)] = np.float32(g_high_us)
