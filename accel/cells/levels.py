"""The cells "sram" and "levels": weights on equal levels, held exactly."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import LevelCellSpec
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, beyond, check_weights, make_stuck
from pcmc.accel.cells.untimed import no_noise, refuse_generators


@dataclass(frozen=True, slots=True)
class LevelCell:
    """W = k w_max / L with the nearest whole number k from -L to L = 2^(bits - 1) - 1, ties to even.

    For weights in bits of SRAM, and for memristors that are trusted to hold their levels, as ISAAC and PUMA
    assume: bits in slices over several columns (16 bits as eight times two) are one cell here, and a chip's
    `tile.cols` counts weights. There is no error, noise or drift. A stuck cell is at -L or L.
    """

    spec: LevelCellSpec

    @property
    def g_max(self) -> float:
        """The largest level, L; a level takes the place of a microsiemens."""
        return self.spec.g_max_us

    @property
    def t0_s(self) -> float:
        """0: levels know no time."""
        return 0.0

    def program(
        self,
        weights: Float32,
        unit_us: float,
        rng: np.random.Generator | None,
        stuck: np.random.Generator | None = None,
    ) -> Devices:
        """Round n weights to their levels; Devices hold them as `g_plus`.

        Args:
            weights: [n], float32. Not changed.
            unit_us: levels that stand for a weight of 1: L / w_max.
            rng: not used: levels are exact.
            stuck: the stream of stuck cells; None: none.

        Raises:
            TypeError: `weights` is not a one-dimensional float32 array.
        """
        check_weights(weights)
        level = np.rint(weights * np.float32(unit_us))
        np.clip(level, np.float32(-self.g_max), np.float32(self.g_max), out=level)
        if stuck is not None:
            spec = self.spec
            low, high = spec.stuck_low_fraction, spec.stuck_high_fraction
            make_stuck(level, low, high, -self.g_max, self.g_max, stuck)
        return Devices(level, np.empty(0, np.float32))

    def read(
        self,
        devices: Devices,
        unit_us: float,
        rng: np.random.Generator | None,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """The weights level / unit_us, [n] float32; `at_s` and `part` make no difference.

        Raises:
            ChipError: noise or drift is asked for: there is none here.
        """
        refuse_generators(self.spec.kind, rng, drift)
        return devices.g_plus / np.float32(unit_us)

    def noise_variance(
        self,
        devices: Devices,
        unit_us: float,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Zeros [n]: there is no read noise here."""
        return no_noise(devices)

    def clipped(self, weights: Float32, unit_us: float) -> int:
        """How many of the weights [n] are beyond the largest level."""
        return beyond(weights, self.g_max / unit_us)
