"""The two-tier cell where columns are transferred one by one: each has a polarity and an age of its own.

The kernels know one polarity and one age for a bank, so the low tier of a column whose polarity is -1 is kept
reflected: low* = -low, its steps up and down, their slopes and its bounds exchanged, and W = F (G+ - G-) +
low* + s r. For that, steps are counted from 0 instead of the middle of the range m, which is the same law:

    up (1 + noise N) - slope (low - m) = (up + slope m) (1 + noise' N) - slope low

with noise' = noise up / (up + slope m), for which noise is taken; they differ by 2.5 % on nature2018.

What leak does to a cell of another time constant than its reference's, low' = low (1 - l_i) + P (l - l_i),
has the reference's distance P to what all leak to in it, one for each age. The kernels do the first part, and
this module the second, at each transfer of a column: every 80 examples on nature2018, which are those of the
leak.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.training.bank import LEAK_EVERY
from pcmc.accel.training.bfloat16 import narrowed, paired, widened
from pcmc.accel.training.devices import CapacitorDevices, Float32
from pcmc.accel.training.layout import Block, Layout
from pcmc.accel.training.two_tier import TwoTierCells

_SIGN_BIT = np.uint16(0x8000)  # of a bfloat16


class TwoTierColumns(TwoTierCells):
    """A bank of two-tier cells that is transferred column by column; see `TwoTierCells`."""

    def __init__(self, layout: Layout, weights: Float32, trainable: bool) -> None:
        self._columns = [column for block in layout.parts for column in _columns_of(block)]
        self._polarity = np.ones(len(self._columns), np.int8)
        self._written_at = np.zeros(len(self._columns), np.int64)
        self._leaked_at = 0
        super().__init__(layout, weights, trainable)
        self._factor, self.leak_factor, self.pull = self.leak_factor, 1.0, 0.0

    def transfer(self, example: int, part: slice | None = None) -> None:
        """Move what the low tiers hold to the pairs; `part` are columns of each tile, None: all."""
        self._drift_apart(example)
        for index, column in enumerate(self._columns):
            if part is None or part.start <= column.place[3] < part.stop:
                self._transfer_column(index, example)
        self._steps += 1
        self._count.transfers += part is None or part.stop >= self.layout.chip.tile.cols

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has changed since the start; what was drawn once is drawn again."""
        found = super().arrays()
        found["polarity"], found["written_at"] = self._polarity.copy(), self._written_at.copy()
        found["leaked_at"] = np.array(self._leaked_at, np.int64)
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo `arrays`, for a bank that was made with the same arguments."""
        super().restore(arrays)
        for index in np.flatnonzero(self._polarity != arrays["polarity"]):
            self._reflect(int(index))
        self._written_at[:] = arrays["written_at"]
        self._leaked_at = int(arrays["leaked_at"])

    def _drawn(self, devices: CapacitorDevices) -> CapacitorDevices:
        """Steps are counted from 0."""
        middle = np.float32(devices.middle)
        slope_up, slope_down = widened(devices.slopes).T
        up, down = widened(devices.up) + slope_up * middle, widened(devices.down) - slope_down * middle
        return replace(devices, steps=paired(narrowed(up), narrowed(down)), middle=0.0)

    def _write(self, sign: int) -> None:
        """Program all columns for the first time."""
        for column in self._columns:
            self._write_block(column, sign)
        self._steps += 1

    def _transfer_column(self, index: int, example: int) -> None:
        if self._training.inversion:
            self._reflect(index)
        sign = int(self._polarity[index])
        self._write_block(self._columns[index], sign, frame=sign)
        self._written_at[index] = example

    def _reflect(self, index: int) -> None:
        """Turn a column's polarity, and keep its devices reflected."""
        self._polarity[index] *= -1
        devices, at = self._devices, self._columns[index].at
        for pairs in (devices.steps, devices.slopes, devices.bounds):
            pairs[at] = pairs[at, ::-1].copy()
        devices.bounds[at] ^= _SIGN_BIT

    def _drift_apart(self, example: int) -> None:
        """What leaks up to now have done to cells of other time constants than their references'."""
        first, last = self._leaked_at // LEAK_EVERY, example // LEAK_EVERY
        self._leaked_at = example
        if self._devices.leak is None or not self._first_pull:
            return
        for leaks in range(first, last):
            ages = leaks - self._written_at // LEAK_EVERY
            pulls = (self._polarity * self._first_pull * self._factor**ages).astype(np.float32)
            done = 0
            for block in self.layout.parts:
                share = np.float32(self._devices.leak_mean) - widened(self._devices.leak[block.at])
                moved = share.reshape(block.rows, block.cols) * pulls[done : done + block.cols]
                self._low[block.at] += moved.ravel()
                self.bank.weights[block.at] += moved.ravel()
                done += block.cols


def _columns_of(block: Block) -> list[Block]:
    """The columns of a block, each a block of its own."""
    chip, tile, y, x = block.place
    return [
        Block(slice(block.at.start + col, block.at.stop, block.cols), block.rows, 1, (chip, tile, y, x + col))
        for col in range(block.cols)
    ]
