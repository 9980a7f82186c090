"""What cells share that are no pairs of conductors and have no law of read noise."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from pcmc.accel.cells.cell import Described, Devices, Float32, NoisePart, check_laws
from pcmc.accel.random import Normals, Stream

Spec = TypeVar("Spec", bound=Described, covariant=True)


@dataclass(frozen=True, slots=True)
class QuietCell(Generic[Spec]):
    """Devices hold W itself as `g_plus`; it can be read at once, and each read finds the same."""

    spec: Spec

    @property
    def t0_s(self) -> float:
        """0: there is nothing to wait for."""
        return 0.0

    @property
    def gains(self) -> tuple[float, ...]:
        """(): no pairs of conductors, and so no wires."""
        return ()

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """`devices`: nothing changes. ChipError if noise or drift is asked for."""
        check_laws(self.spec, read_noise=noise is not None, drift=drift is not None)
        return devices

    def weights_us(self, devices: Devices) -> Float32:
        """What each cell holds, as the read-only view that `devices` has."""
        return devices.g_plus

    def noise_variance(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Zeros: there is no law of read noise."""
        return np.zeros(devices.g_plus.shape, np.float32)
