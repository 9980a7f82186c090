"""The ideal cell: a weight that stays what it is."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import IdealCellSpec
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, check_weights
from pcmc.accel.cells.untimed import no_noise


@dataclass(frozen=True, slots=True)
class IdealCell:
    """W = the weight, exactly: no range, no error, no noise. Nothing is copied; no random number is drawn."""

    spec: IdealCellSpec

    @property
    def g_max(self) -> float:
        """1: an ideal cell has no conductance, and a full scale of one unit."""
        return self.spec.g_max_us

    @property
    def t0_s(self) -> float:
        """0: an ideal cell knows no time."""
        return 0.0

    def program(
        self,
        weights: Float32,
        unit_us: float,
        rng: np.random.Generator | None,
        stuck: np.random.Generator | None = None,
    ) -> Devices:
        """Devices whose `g_plus` is a read-only view of `weights` [n]; the other arguments are not used.

        Raises:
            TypeError: `weights` is not a one-dimensional float32 array.
        """
        check_weights(weights)
        return Devices(weights, np.empty(0, np.float32))

    def read(
        self,
        devices: Devices,
        unit_us: float,
        rng: np.random.Generator | None,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """The weights, as the read-only view that `devices` holds; the other arguments are not used."""
        return devices.g_plus

    def noise_variance(
        self,
        devices: Devices,
        unit_us: float,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Zeros [n]: an ideal cell has no noise."""
        return no_noise(devices)

    def clipped(self, weights: Float32, unit_us: float) -> int:
        """0: an ideal cell has no range."""
        return 0
