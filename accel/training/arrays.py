"""What a trainer holds of each matrix: cells that are read, updated, left to leak, and transferred.

`trained_bank` makes them for any kind of cell that training in place can update. All values are in units of
the weight; `pcmc.accel.training.bank` reads and updates.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.chip import ChipSpec
from pcmc.accel.physics import Physics
from pcmc.accel.training.bank import TrainingBank
from pcmc.accel.training.capacitor import CapacitorCells
from pcmc.accel.training.columns import TwoTierColumns
from pcmc.accel.training.exact import ExactCells
from pcmc.accel.training.four_pcm import FourPcmCells
from pcmc.accel.training.layout import Float32, Ints, Layout, Place, weight_range
from pcmc.accel.training.pcm_pair import PcmPairCells
from pcmc.accel.training.two_tier import TwoTierCells
from pcmc.errors import ChipError

__all__ = ["TrainedBank", "trained_bank", "weight_range"]


class TrainedBank(Protocol):
    """The cells of a matrix in training.

    Attributes:
        bank: reads and updates them.
        trainable: whether they are updated; else they are read only, and neither leak nor are transferred.
        transfer_every: examples from one transfer to the next; 0: never.
        pull: how far the references lie above what all capacitors leak to, now, as `TrainingBank.leak` takes
            it; whoever lets the bank itself leak sets it afterwards.
        leak_factor: what is left of `pull` after LEAK_EVERY examples.
    """

    bank: TrainingBank
    trainable: bool
    transfer_every: int
    pull: float
    leak_factor: float

    def leak(self, examples: int) -> None:
        """Let the cells leak for the time of so many examples, at most about LEAK_EVERY."""

    def transfer(self, example: int, part: slice | None = None) -> None:
        """Move what is in the low tier to the high one. Leak up to now comes first, and is the caller's.

        Args:
            example: how many examples have been trained on.
            part: the columns of each tile that are transferred, counted from the tile's first; None: all.
        """

    def read_out(self) -> Float32:
        """The weights [cells], as reads without noise and converters find them."""

    def pair_only(self) -> Float32:
        """The weights [cells] that are left some milliseconds later, when capacitors have leaked."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that has changed since the bank was made, as arrays by name; for `restore`."""

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `arrays`, in a bank that was made with the same arguments."""

    def counters(self) -> dict[str, int | float]:
        """What has happened so far: pulses, transfers, writes, clipped and missed targets."""


def _two_tier(layout: Layout, weights: Float32, trainable: bool) -> TrainedBank:
    columns = trainable and layout.chip.training.transfer == "columns"
    return (TwoTierColumns if columns else TwoTierCells)(layout, weights, trainable)


_KINDS: dict[str, Callable[[Layout, Float32, bool], TrainedBank]] = {
    "2pcm+3t1c": _two_tier,
    "3t1c": CapacitorCells,
    "2pcm": PcmPairCells,
    "4pcm": FourPcmCells,
}


def trained_bank(
    chip: ChipSpec,
    physics: Physics,
    blocks: Ints,
    places: Sequence[Place],
    rows: int,
    cols: int,
    weights: Float32,
    *,
    bias_drive: float,
    weight_range: float | None,
    seed: int,
    trainable: bool = True,
) -> TrainedBank:
    """Program a matrix into cells that can be trained.

    Args:
        chip: the chip; its [cell], [pulses] and [training] say what cells do.
        physics: of `pcmc.accel.physics.resolve` with `training`. Without any effect of cells their weights
            are changed exactly, whatever the kind.
        blocks: int64 [blocks, 6], columns row0, col0, rows, cols, bias, offset.
        places: chip, tile, first row y and first column x of each block.
        rows: inputs of the matrix.
        cols: outputs of the matrix.
        weights: float32 [cells], what cells are to hold: bias rows bias / bias_drive. Not changed.
        bias_drive: input of the bias rows.
        weight_range: the weight that the full range of a cell stands for; None: that of the chip file or, if
            it gives none, of `layout.weight_range`. One for the matrix, whatever `[weights] scale` is.
        seed: names the streams.
        trainable: whether the cells will be updated.

    Raises:
        ChipError: cells that can't be trained, or of which there is no law of updates.
    """
    _check_trainable(chip, physics)
    layout = Layout(
        chip,
        physics,
        np.ascontiguousarray(blocks, np.int64),
        tuple(tuple(int(one) for one in place) for place in places),  # type: ignore[misc]
        rows,
        cols,
        bias_drive,
        _range(chip, weights, rows, weight_range),
        seed,
    )
    make = _KINDS[chip.cell.kind] if physics.of_cells else ExactCells
    return make(layout, weights, trainable)


def _range(chip: ChipSpec, weights: Float32, rows: int, given: float | None) -> float:
    if given is not None:
        return given
    return chip.training.weight_range or weight_range(weights, rows)


def _check_trainable(chip: ChipSpec, physics: Physics) -> None:
    """ChipError if the cells can't be trained on the chip with these effects."""
    kind = chip.cell.kind
    untrainable = getattr(chip.cell, "untrainable", "")
    if untrainable:
        raise ChipError(f"chip {chip.name} can't be trained: its {kind} cells: {untrainable}")
    if physics.of_cells and (kind not in _KINDS or chip.pulses is None):
        can = ", ".join(f'"{one}"' for one in _KINDS)
        raise ChipError(
            f"chip {chip.name} can't be trained with physics {','.join(physics.of_cells)}: no law says what "
            f"an update does to its {kind} cells; it takes [pulses] and a [cell] of kind {can}. Train with "
            'physics "ideal" or "dac,adc"'
        )
