"""A matrix on a chip in training: where its blocks lie, what its weights stand for, what its cells share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.chip import ChipSpec
from pcmc.accel.physics import Physics
from pcmc.accel.random import stream
from pcmc.accel.training.bank import Port, PulseLaw, Pulses, TrainingBank
from pcmc.accel.training.set_law import SetLaw

Float32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Place = tuple[int, int, int, int]

LEAST_RANGE = 1e-20
"""Weights that are all smaller have this range: microsiemens of a weight of 1 stay within float32."""

_ROOM = 6.0


@dataclass(frozen=True, slots=True)
class Block:
    """A block's part of the cells, its rows and columns, and where it lies: chip, tile, row y, column x."""

    at: slice
    rows: int
    cols: int
    place: Place


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What the cells of one matrix have in common.

    Attributes:
        blocks: int64 [blocks, 6], columns row0, col0, rows, cols, bias, offset.
        places: chip, tile, y and x of each block; they name its random streams.
        rows, cols: of the matrix.
        bias_drive: input of the bias rows.
        weight_range: the weight that the full range of a cell stands for.
        seed: names the streams.
    """

    chip: ChipSpec
    physics: Physics
    blocks: Ints
    places: tuple[Place, ...]
    rows: int
    cols: int
    bias_drive: float
    weight_range: float
    seed: int

    @property
    def parts(self) -> list[Block]:
        """The blocks, in the order of their cells."""
        return [
            Block(slice(int(row[5]), int(row[5] + row[2] * row[3])), int(row[2]), int(row[3]), place)
            for row, place in zip(self.blocks, self.places, strict=True)
        ]

    @property
    def cells(self) -> int:
        """All cells of all blocks."""
        return int((self.blocks[:, 2] * self.blocks[:, 3]).sum())

    def ports(self) -> tuple[Port, Port]:
        """The converters of forward and of backward reads; those that physics leaves off have no levels."""
        chip, on = self.chip, self.physics
        back = chip.backward
        dac, adc = (
            _levels(bits) if bits else spec.levels
            for bits, spec in ((back.dac_bits, chip.dac), (back.adc_bits, chip.adc))
        )
        full = chip.adc.range_cells * self.weight_range
        full_back = (back.adc_range_cells or chip.adc.range_cells) * self.weight_range
        offset = self._row_offsets() if on.adc and back.adc_offset_lsb else None
        return (
            Port(chip.dac.levels * on.dac, chip.adc.levels * on.adc, full, None),
            Port(dac * on.dac, adc * on.adc, full_back, offset),
        )

    def _row_offsets(self) -> Float32:
        """The offset of each row's converter, in LSB: the same for all blocks in the same rows of a tile."""
        spread = np.float32(self.chip.backward.adc_offset_lsb)
        parts = []
        for row, (chip, tile, y, _) in zip(self.blocks, self.places, strict=True):
            numbers = stream(self.seed, (chip, tile), "row_offsets").normal(y + int(row[2]))
            parts.append(numbers[y : y + int(row[2] - row[4])] * spread)
        return np.concatenate(parts)

    def pulses(self) -> Pulses | None:
        """The trains of pulses of updates; None: each change is made exactly."""
        training = self.chip.training
        return Pulses(training.train, training.most_pulses) if self.physics.pulses else None

    def make_bank(
        self, weights: Float32, law: PulseLaw | SetLaw | None, variances: NDArray[np.uint16] | None = None
    ) -> TrainingBank:
        """The bank that reads and updates `weights`, which it owns."""
        forward, backward = self.ports()
        return TrainingBank(
            self.blocks,
            self.rows,
            self.cols,
            weights,
            bias_drive=self.bias_drive,
            law=law,
            pulses=self.pulses() if law is not None else None,
            forward=forward,
            backward=backward,
            variances=variances,
            seed=self.seed,
            place=self.places[0],
        )


def weight_range(weights: Float32, rows: int) -> float:
    """The weight that the full range stands for: the largest, but with room for training to make it larger.

    6 / sqrt(rows) is six times a usual deviation of initial weights. That it is enough is assumed: what is
    beyond the range is clipped, and counted.
    """
    largest = float(np.abs(weights).max(initial=0.0))
    return max(largest, _ROOM / math.sqrt(max(rows, 1)), LEAST_RANGE)


def state_arrays(bank: TrainingBank) -> dict[str, NDArray[Any]]:
    """The weights of a bank, and where its random streams and its counts of events are, by name."""
    counts = {f"kernel_{name}": np.array(value, np.int64) for name, value in bank.state().items()}
    return {"weights": bank.weights.copy(), **counts}


def restore_bank(bank: TrainingBank, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Undo `state_arrays`."""
    bank.weights[:] = arrays["weights"]
    bank.restore({name: int(arrays[f"kernel_{name}"]) for name in bank.state()})


def _levels(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)
