"""The ideal cell: a weight that stays what it is."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cells.cell import Devices, Float32
from pcmc.accel.chip import IdealCellSpec


@dataclass(frozen=True, slots=True)
class IdealCell:
    """W = the weight, exactly: no range, no error, no noise. Nothing is copied; no random number is drawn."""

    spec: IdealCellSpec

    @property
    def g_max(self) -> float:
        """1: an ideal cell has no conductance, and a full scale of one unit."""
        return self.spec.g_max_us

    def program(self, weights: Float32, unit_us: float, rng: np.random.Generator | None) -> Devices:
        """Devices whose `g_plus` is a read-only view of `weights` [n]; `unit_us` and `rng` are not used.

        Raises:
            TypeError: `weights` is not a one-dimensional float32 array.
        """
        if weights.dtype != np.float32 or weights.ndim != 1:
            raise TypeError(f"weights must be float32 [n], not {weights.dtype} {list(weights.shape)}")
        return Devices(weights, np.empty(0, np.float32))

    def read(
        self, devices: Devices, unit_us: float, rng: np.random.Generator | None, at_s: float = 20.0
    ) -> Float32:
        """The weights, as the read-only view that `devices` holds; the other arguments are not used."""
        return devices.g_plus
