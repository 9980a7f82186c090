"""The cells "sram" and "levels": weights on equal levels, held exactly."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import LevelCellSpec
from pcmc.accel.cells.cell import Devices, Float32, beyond, check_targets, make_stuck
from pcmc.accel.cells.quiet import QuietCell
from pcmc.accel.random import Stream


@dataclass(frozen=True, slots=True)
class LevelCell(QuietCell[LevelCellSpec]):
    """W = k w_max / L with the nearest whole number k from -L to L = 2^(bits - 1) - 1, ties to even.

    For weights in bits of SRAM, and for memristors that are trusted to hold their levels, as ISAAC and PUMA
    assume: bits in slices over several columns (16 bits as eight times two) are one cell here, and a chip's
    `tile.cols` counts weights. A level takes the place of a microsiemens. There is no error, noise or drift.
    A stuck cell is at -L or L.
    """

    @property
    def full_us(self) -> float:
        """The largest level, L."""
        return self.spec.g_max_us

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Round targets to their levels; Devices hold them as `g_plus`. `rng` is not used."""
        check_targets(target_us)
        level = np.rint(target_us)
        np.clip(level, np.float32(-self.full_us), np.float32(self.full_us), out=level)
        if stuck is not None:
            spec = self.spec
            low, high = spec.stuck_low_fraction, spec.stuck_high_fraction
            make_stuck(level, low, high, -self.full_us, self.full_us, stuck)
        return Devices(level)

    def clipped(self, target_us: Float32) -> int:
        """How many of the targets are beyond the largest level."""
        return beyond(target_us, self.full_us)
