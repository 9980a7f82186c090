"""The ideal cell: a weight that stays what it is."""

from dataclasses import dataclass

from pcmc.accel.cell_specs import IdealCellSpec
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, check_targets
from pcmc.accel.cells.quiet import QuietCell
from pcmc.accel.random import Normals, Stream


@dataclass(frozen=True, slots=True)
class IdealCell(QuietCell[IdealCellSpec]):
    """W = the weight, exactly: no range, no error, no noise. Nothing is copied; no random number is drawn."""

    @property
    def full_us(self) -> float:
        """1: an ideal cell has no conductance, and a full scale of one unit."""
        return 1.0

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

    def clipped(self, target_us: Float32) -> int:
        """0: an ideal cell has no range."""
        return 0
