"""The cells: how a weight becomes conductances, and what a read-out finds. One file a kind."""

from collections.abc import Callable
from typing import Any

from pcmc.accel.cell_specs import (
    AxonCellSpec,
    CapacitorCellSpec,
    CellSpec,
    FourPcmCellSpec,
    IdealCellSpec,
    LevelCellSpec,
    PcmCellSpec,
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


_CLASSES: dict[type[CellSpec], Callable[[Any], Cell]] = {
    IdealCellSpec: IdealCell,
    LevelCellSpec: LevelCell,
    AxonCellSpec: AxonCell,
    MeasuredCellSpec: MeasuredCell,
    RramCellSpec: RramCell,
    CapacitorCellSpec: CapacitorCell,
    PcmCellSpec: PcmPairCell,
    FourPcmCellSpec: FourPcmCell,
    ReferencePcmCellSpec: ReferencePcmCell,
    TwoTierCellSpec: TwoTierCell,
}


def make_cell(spec: CellSpec) -> Cell:
    """The cell that a chip's `[cell]` section describes."""
    if isinstance(spec, PcmCellSpec) and spec.slices > 1:
        return SlicedPcmCell(spec)
    return _CLASSES[type(spec)](spec)
