"""The cells: how a weight becomes conductances, and what a read-out finds. One file a kind."""

from pcmc.accel.cell_specs import (
    CapacitorCellSpec,
    CellSpec,
    FourPcmCellSpec,
    IdealCellSpec,
    LevelCellSpec,
    RramCellSpec,
    TwoTierCellSpec,
)
from pcmc.accel.cells.capacitor import CapacitorCell
from pcmc.accel.cells.cell import Cell, Devices, NoisePart
from pcmc.accel.cells.four_pcm import FourPcmCell
from pcmc.accel.cells.ideal import IdealCell
from pcmc.accel.cells.levels import LevelCell
from pcmc.accel.cells.pcm_pair import PcmPairCell
from pcmc.accel.cells.rram import RramCell
from pcmc.accel.cells.two_tier import TwoTierCell

__all__ = [
    "CapacitorCell",
    "Cell",
    "Devices",
    "FourPcmCell",
    "IdealCell",
    "LevelCell",
    "NoisePart",
    "PcmPairCell",
    "RramCell",
    "TwoTierCell",
    "make_cell",
]


def make_cell(spec: CellSpec) -> Cell:
    """The cell that a chip's `[cell]` section describes."""
    if isinstance(spec, IdealCellSpec):
        return IdealCell(spec)
    if isinstance(spec, LevelCellSpec):
        return LevelCell(spec)
    if isinstance(spec, RramCellSpec):
        return RramCell(spec)
    if isinstance(spec, CapacitorCellSpec):
        return CapacitorCell(spec)
    if isinstance(spec, FourPcmCellSpec):
        return FourPcmCell(spec)
    if isinstance(spec, TwoTierCellSpec):
        return TwoTierCell(spec)
    return PcmPairCell(spec)
