"""`ChipState`: what the devices of a chip hold after a Program was written into them.

Random numbers come from named streams: (seed, place, effect, step), where the place is chip, tile and corner
of a block, so that one more matrix leaves the noise of all others alone, and the number of threads changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pcmc.accel.cells import Cell, Devices, IdealCell, TwoTierCell, make_cell
from pcmc.accel.chip import ChipSpec
from pcmc.accel.physics import Physics
from pcmc.accel.random import Stream, stream
from pcmc.runtime.program import Bank, Program

Floats = npt.NDArray[np.float32]
T = TypeVar("T")

_WORTH_A_THREAD = 1 << 16  # cells
# Weights that are as good as none: the microsiemens of a weight of 1 would be beyond float32.
_LEAST_SCALE = 1e-28


@dataclass(frozen=True, slots=True)
class BankState:
    """The devices of one bank, in the order of its cells.

    `w_max`, float32 `[conversions]`, is the weight that the full range of a cell stands for, in each column
    of each block, block after block. `bias_drive` is the input level of the bias rows, whose cells hold bias
    / bias_drive so that biases and weights share one range. `polarity` is the sign s of the low tier.
    `writes` counts how often the whole bank was programmed.
    """

    devices: Devices
    w_max: Floats
    bias_drive: float
    polarity: int = 1
    writes: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class WiredBank:
    """What the wires of its tiles leave of a bank: the weights of each of its columns that are converted
    apart, float32 `[columns, cells]`, and by how much they damp noise, float32 `[conversions]`.
    """

    weights: Floats
    damping: Floats


@dataclass(frozen=True, slots=True)
class WiredChip:
    """Solved wires of a state, for the reading that `key` names: another reading solves them again.

    `largest_drop` is the most that a column loses of its current where all inputs are alike, `error` how far
    reads may be from an exact solve of their own (rms over rms; None: they are exact), `solves` and `seconds`
    what it took.
    """

    key: str
    banks: Mapping[str, WiredBank]
    largest_drop: float
    solves: int
    seconds: float
    error: float | None = None

    def facts(self) -> dict[str, float | int | None]:
        """What the solution says of itself, as plain data."""
        return {name: getattr(self, name) for name in ("largest_drop", "solves", "seconds", "error")}


@dataclass(frozen=True, slots=True)
class ChipState:
    """All banks, the clock since programming in s, how far each random stream has been used (by effect), and
    the wires where they have been solved.
    """

    seed: int
    banks: Mapping[str, BankState]
    clock_s: float = 0.0
    steps: Mapping[str, int] = field(default_factory=dict)
    wired: WiredChip | None = None


@dataclass(frozen=True, slots=True)
class BlockView:
    """A block of a bank: its row of the table, its cells, and its conversions, one a column."""

    row: np.void
    cells: slice
    conversions: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, the bias row counted."""
        return int(self.row["rows"]), int(self.row["cols"])

    def stream(self, seed: int, effect: str, step: int = 0) -> Stream:
        """The random stream of this block: named by where it lies."""
        return stream(seed, place(self.row), effect, step)

    def devices(self, devices: Devices) -> Devices:
        """Its part of a bank's devices, `[rows, cols]` or `[rows, cols, pairs]`."""
        parts = (
            array[self.cells].reshape(*self.shape, *array.shape[1:]) if array.size else array
            for array in (devices.g_plus, devices.g_minus, devices.low)
        )
        return Devices(*parts)


def place(block: np.void) -> tuple[int, int, int, int]:
    """Where a block lies, as streams are named: chip, tile, first row and first column."""
    return int(block["chip"]), int(block["tile"]), int(block["y"]), int(block["x"])


def blocks_of(bank: Bank) -> Iterator[BlockView]:
    """The blocks of a bank in the order of its table."""
    column = 0
    for row in bank.table:
        cells = int(row["rows"] * row["cols"])
        start, columns = int(row["offset"]), slice(column, column + int(row["cols"]))
        yield BlockView(row, slice(start, start + cells), columns)
        column = columns.stop


def program_chip(
    program: Program,
    physics: Physics,
    seed: int,
    only: Collection[str] | None = None,
    at_s: float | None = None,
    threads: int = 1,
    writes: int = 1,
) -> ChipState:
    """Write a Program into the devices of a chip.

    The largest weight of what has one scale (`[weights] scale` of the chip file) uses the full range of a
    cell.

    Args:
        program: what to write.
        physics: with `programming_error` the devices miss their targets as the cell's statistics say, with
            `stuck` some hold one level whatever is written.
        seed: names the streams.
        only: names of the banks to write; None: all.
        at_s: the time of the reads to come, in s: before the first that the pairs' statistics cover, cells
            with a low tier have it tuned.
        threads: threads that work on blocks.
        writes: how often the chip was written, this time counted: each has errors of its own.
    """
    banks = {
        name: program_bank(bank, program.chip, physics, seed, at_s, threads, writes)
        for name, bank in program.banks.items()
        if only is None or name in only
    }
    return ChipState(seed, banks, steps={"programming_error": writes})


def program_bank(
    bank: Bank, chip: ChipSpec, physics: Physics, seed: int, at_s: float | None, threads: int, writes: int
) -> BankState:
    """The devices of one bank after it was written; arguments as of `program_chip`."""
    cell = make_cell(chip.cell)
    w_max, drive = scales(bank, chip)
    noisy, step = physics.programming_error, writes - 1

    def write(block: BlockView) -> Devices:
        targets = bank.cells[block.cells].reshape(block.shape) * unit_us(cell, w_max[block.conversions])
        if block.row["bias"]:
            targets[-1] /= np.float32(drive)
        devices = cell.program(
            targets,
            block.stream(seed, "programming_error", step) if noisy else None,
            block.stream(seed, "stuck") if physics.stuck else None,
        )
        if isinstance(cell, TwoTierCell) and cell.low_tier_counts(at_s):
            devices = cell.tune_low(devices, targets, block.stream(seed, "low_tier", step) if noisy else None)
        return devices

    parts = each_block(write, bank, threads)
    return BankState(_joined(parts), w_max, drive, writes=writes)


def each_block(work: Callable[[BlockView], T], bank: Bank, threads: int) -> list[T]:
    """What `work` makes of each block of a bank, in order, in as many threads as are worth it."""
    blocks = list(blocks_of(bank))
    threads = min(threads, len(blocks), bank.cells.size // _WORTH_A_THREAD)
    if threads <= 1:
        return [work(block) for block in blocks]
    with ThreadPoolExecutor(threads, thread_name_prefix="pcmc-cells") as pool:
        return list(pool.map(work, blocks))


def unit_us(cell: Cell, w_max: Floats) -> Floats:
    """Microsiemens of W that stand for a weight of 1, for each w_max; 1 where cells hold weights as such."""
    if isinstance(cell, IdealCell):
        return np.ones_like(w_max)
    return np.float32(cell.full_us) / w_max


def scales(bank: Bank, chip: ChipSpec) -> tuple[Floats, float]:
    """w_max of each conversion, float32 `[conversions]`, and the drive of the bias rows.

    The drive is the largest bias over the largest weight of the matrix, so that one drive serves all columns
    whatever their scale; a column whose bias is still too large for its weights takes its scale from it.
    """
    scale, percentile = chip.weights.scale, chip.weights.percentile
    weights, biases = zip(*(_magnitudes(bank, block) for block in blocks_of(bank)), strict=True)
    largest = max(float(block.max(initial=0.0)) for block in weights)
    bias_max = max(float(block.max(initial=0.0)) for block in biases)
    whole = _largest(np.concatenate([block.ravel() for block in weights]), percentile)
    whole = next((one for one in (whole, largest, bias_max) if one > _LEAST_SCALE), 1.0)
    drive = bias_max / whole if bias_max else 1.0
    if scale == "matrix":
        return np.full(sum(block.shape[1] for block in weights), whole, np.float32), drive
    found = []
    for magnitudes, bias in zip(weights, biases, strict=True):
        if scale == "column":
            w_max = np.percentile(magnitudes, percentile, axis=0) if len(magnitudes) else np.zeros_like(bias)
        else:
            w_max = np.full(magnitudes.shape[1], _largest(magnitudes, percentile))
            bias = np.full_like(bias, bias.max(initial=0.0))
        w_max = np.maximum(w_max, bias / np.float32(drive))
        found.append(np.where(w_max > _LEAST_SCALE, w_max, whole).astype(np.float32))
    return np.concatenate(found), drive


def _magnitudes(bank: Bank, block: BlockView) -> tuple[Floats, Floats]:
    """Magnitudes of a block's weights `[rows, cols]`, and of its biases `[cols]`, zeros where it has none."""
    magnitudes = np.abs(bank.cells[block.cells].reshape(block.shape))
    if block.row["bias"]:
        return magnitudes[:-1], magnitudes[-1]
    return magnitudes, np.zeros(block.shape[1], np.float32)


def _largest(magnitudes: Floats, percentile: float) -> float:
    """The weight that has the full range."""
    if percentile == 100 or not magnitudes.size:
        return float(magnitudes.max(initial=0.0))
    return float(np.percentile(magnitudes, percentile))


def _joined(parts: list[Devices]) -> Devices:
    """The devices of all blocks one after the other, flat."""

    def joined(name: str) -> Floats:
        arrays = [getattr(part, name) for part in parts]
        flat = [array.reshape(-1, *array.shape[2:]) if array.ndim > 1 else array for array in arrays]
        return flat[0] if len(flat) == 1 else np.concatenate(flat)

    return Devices(joined("g_plus"), joined("g_minus"), joined("low"))
