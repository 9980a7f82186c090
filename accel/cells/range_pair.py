"""What cells share that are one pair of devices, each somewhere between g_min and g_max."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pcmc.accel.cells.cell import Described, Devices, Float32, beyond


class Ranged(Described, Protocol):
    """A `[cell]` section with a range."""

    @property
    def g_min_us(self) -> float:
        """Conductance of an erased device."""

    @property
    def g_max_us(self) -> float:
        """The largest conductance that is programmed."""

    @property
    def t0_s(self) -> float:
        """The time of the first read."""


Spec = TypeVar("Spec", bound=Ranged, covariant=True)


@dataclass(frozen=True, slots=True)
class RangePairCell(Generic[Spec]):
    """W = G+ - G-, of which one is erased: so |W| goes up to g_max - g_min."""

    spec: Spec

    @property
    def full_us(self) -> float:
        """The difference of conductance of the largest weight, g_max_us - g_min_us."""
        return self.spec.g_max_us - self.spec.g_min_us

    @property
    def t0_s(self) -> float:
        """When the first read takes place, in seconds since programming; 0 where no law knows time."""
        return self.spec.t0_s

    @property
    def gains(self) -> tuple[float, ...]:
        """One pair."""
        return (1.0,)

    def weights_us(self, devices: Devices) -> Float32:
        """G+ - G- of each cell, in uS."""
        return devices.g_plus - devices.g_minus

    def clipped(self, target_us: Float32) -> int:
        """How many of the targets are beyond `full_us`."""
        return beyond(target_us, self.full_us)
