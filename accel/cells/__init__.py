"""The cells: how a weight becomes conductances, and what a read-out finds. One file a kind."""

from pcmc.accel.cell_specs import (
    AxonCellSpec,
    CapacitorCellSpec,
    CellSpec,
    FourPcmCellSpec,
    IdealCellSpec,
    LevelCellSpec,
    ReferencePcmCellSpec,
    RramCellSpec,
    TwoTierCellSpec,
)
from pcmc.accel.cells.axon import AxonCell
from pcmc.accel.cells.capacitor import CapacitorCell
from pcmc.accel.cells.cell import Cell, Devices, NoisePart, PairCell
from pcmc.accel.cells.four_pcm import FourPcmCell
from pcmc.accel.cells.ideal import IdealCell
from pcmc.accel.cells.levels import LevelCell
from pcmc.accel.cells.measured import MeasuredCell
from pcmc.accel.cells.pcm_pair import PcmPairCell
from pcmc.accel.cells.reference_pcm import ReferencePcmCell
from pcmc.accel.cells.rram import RramCell
from pcmc.accel.cells.sliced import SlicedPcmCell
from pcmc.accel.cells.two_tier import TwoTierCell
from pcmc.accel.measured_spec import MeasuredCellSpec

__all__ = [
    "AxonCell",
    "CapacitorCell",
    "Cell",
    "Devices",
    "FourPcmCell",
    "IdealCell",
    "LevelCell",
    "MeasuredCell",
    "NoisePart",
    "PairCell",
    "PcmPairCell",
    "ReferencePcmCell",
    "RramCell",
    "SlicedPcmCell",
    "TwoTierCell",
    "make_cell",
]


def make_cell(spec: CellSpec) -> Cell:
    """The cell that a chip's `[cell]` section describes."""
    if isinstance(spec, IdealCellSpec):
        return IdealCell(spec)
    if isinstance(spec, LevelCellSpec):
        return LevelCell(spec)
    if isinstance(spec, AxonCellSpec):
        return AxonCell(spec)
    if isinstance(spec, MeasuredCellSpec):
        return MeasuredCell(spec)
    if isinstance(spec, RramCellSpec):
        return RramCell(spec)
    if isinstance(spec, CapacitorCellSpec):
        return CapacitorCell(spec)
    if isinstance(spec, FourPcmCellSpec):
        return FourPcmCell(spec)
    if isinstance(spec, ReferencePcmCellSpec):
        return ReferencePcmCell(spec)
    if isinstance(spec, TwoTierCellSpec):
        return TwoTierCell(spec)
    return SlicedPcmCell(spec) if spec.slices > 1 else PcmPairCell(spec)
