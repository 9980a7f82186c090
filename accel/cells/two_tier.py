"""The two-tier cell "2pcm+3t1c" of Ambrogio et al., Nature 558, 60-67 (2018)."""

from dataclasses import dataclass

from pcmc.accel.cell_specs import TwoTierCellSpec
from pcmc.accel.cells.pcm_pair import PcmPairCell


@dataclass(frozen=True, slots=True)
class TwoTierCell(PcmPairCell):
    """W = F (G+ - G-) + s (g - g_ref): a pair of PCM devices, and a capacitor cell against a reference.

    A network that was programmed and then only runs is read from the PCM pair alone, the low tier switched
    off: W = F (G+ - G-), as in `PcmPairCell`. Seconds after programming the capacitor, which leaks with a
    time constant of 5.16 ms, would hold nothing anyway.
    """

    spec: TwoTierCellSpec
