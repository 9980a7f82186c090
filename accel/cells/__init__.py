"""The cells: how a weight becomes conductances, and what a read-out finds. One file a kind."""

from pcmc.accel.cells.cell import Cell, Devices
from pcmc.accel.cells.ideal import IdealCell
from pcmc.accel.cells.two_tier import TwoTierCell
from pcmc.accel.chip import CellSpec, IdealCellSpec

__all__ = ["Cell", "Devices", "IdealCell", "TwoTierCell", "make_cell"]


def make_cell(spec: CellSpec) -> Cell:
    """The cell that a chip's `[cell]` section describes."""
    if isinstance(spec, IdealCellSpec):
        return IdealCell(spec)
    return TwoTierCell(spec)
