"""The ideal cell: a weight that stays what it is."""

from dataclasses import dataclass

from pcmc.accel.cell_specs import IdealCellSpec
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, check_targets
from pcmc.accel.cells.untimed import no_noise
from pcmc.accel.random import Normals, Stream


@dataclass(frozen=True, slots=True)
class IdealCell:
    """W = the weight, exactly: no range, no error, no noise. Nothing is copied; no random number is drawn."""

    spec: IdealCellSpec

    @property
    def full_us(self) -> float:
        """1: an ideal cell has no conductance, and a full scale of one unit."""
        return 1.0

    @property
    def t0_s(self) -> float:
        """0: an ideal cell knows no time."""
        return 0.0

    @property
    def gains(self) -> tuple[float, ...]:
        """(): no conductors, and so no wires."""
        return ()

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Devices whose `g_plus` is a read-only view of the targets; the other arguments are not used."""
        check_targets(target_us)
        return Devices(target_us)

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """`devices`; the other arguments are not used."""
        return devices

    def weights_us(self, devices: Devices) -> Float32:
        """The weights, as the read-only view that `devices` holds."""
        return devices.g_plus

    def noise_variance(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Zeros: an ideal cell has no noise."""
        return no_noise(devices)

    def clipped(self, target_us: Float32) -> int:
        """0: an ideal cell has no range."""
        return 0
