"""What every cell can do, and what its devices hold."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

NoisePart: TypeAlias = Literal["all", "slow", "fast"]
"""Read noise: all of it, what is slower than a batch of reads, or what is faster."""


@dataclass(frozen=True, slots=True, eq=False)
class Devices:
    """What the devices of n cells hold after programming, as read-only float32 arrays [n] or [n, pairs].

    For conductive cells `g_plus` and `g_minus` are the conductances of each pair in uS; a cell of several
    pairs has a row of them. For cells that are not pairs (ideal, levels, capacitors) `g_plus` is what they
    hold, and `g_minus` is empty.
    """

    g_plus: Float32
    g_minus: Float32

    def __post_init__(self) -> None:
        for name in ("g_plus", "g_minus"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)


class Cell(Protocol):
    """One kind of cell; it keeps parameters, never state, so one object serves all cells of a chip."""

    @property
    def g_max(self) -> float:
        """Conductance of the largest weight in uS, so that significance * g_max / w_max is the scale."""

    @property
    def t0_s(self) -> float:
        """When the first read takes place, in seconds since programming; no read is earlier."""

    def program(
        self,
        weights: Float32,
        unit_us: float,
        rng: np.random.Generator | None,
        stuck: np.random.Generator | None = None,
    ) -> Devices:
        """Program n cells from their erased state.

        Args:
            weights: [n], float32. Not changed.
            unit_us: microsiemens of W = F (G+ - G-) that stand for a weight of 1: F * g_max / w_max.
            rng: the stream of the programming error; None programs the targets exactly.
            stuck: the stream that says which devices are stuck, the same at each programming of a chip; None:
                none are.
        """

    def read(
        self,
        devices: Devices,
        unit_us: float,
        rng: np.random.Generator | None,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """The weights that a read-out finds, [n] float32; possibly a read-only view of `devices`.

        Args:
            devices: n programmed cells.
            unit_us: as in `program`.
            rng: the stream of the frozen read noise, one draw per device; None reads without noise.
            at_s: seconds since programming; None: t0_s.
            drift: the stream of the devices' drift, the same at each read of a programming; None: no drift.
            part: which part of the noise is frozen: "all", or "slow" where the rest is added at each read.
        """

    def noise_variance(
        self,
        devices: Devices,
        unit_us: float,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Variance of each weight from read to read, [n] float32: of all noise, or of the slow or fast part.

        The variances of "slow" and "fast" add up to that of "all". Arguments as in `read`, with the same
        stream of drift.
        """

    def clipped(self, weights: Float32, unit_us: float) -> int:
        """How many of the weights [n] are beyond the range of a cell, and are programmed to its end."""


def check_weights(weights: Float32) -> None:
    """TypeError if `weights` is not a one-dimensional float32 array."""
    if weights.dtype != np.float32 or weights.ndim != 1:
        raise TypeError(f"weights must be float32 [n], not {weights.dtype} {list(weights.shape)}")


def beyond(weights: Float32, limit: float) -> int:
    """How many weights are larger than `limit` in magnitude, by more than rounding."""
    return int(np.count_nonzero(np.abs(weights) > np.float32(limit * (1 + 2**-22))))


def make_stuck(
    g: Float32, low: float, high: float, g_low_us: float, g_high_us: float, rng: np.random.Generator
) -> None:
    """Put the stuck devices of an array to their levels, in place.

    Args:
        g: [n] programmed conductances; overwritten where a device is stuck.
        low: the share of devices stuck at `g_low_us`.
        high: the share of devices stuck at `g_high_us`.
        g_low_us: the lower level.
        g_high_us: the upper level.
        rng: one uniform number is drawn per device, in order.
    """
    u = rng.random(len(g), dtype=np.float32)
    g[u < np.float32(low)] = np.float32(g_low_us)
    g[u >= np.float32(1.0 - high)] = np.float32(g_high_us)
