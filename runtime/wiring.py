"""From the conductances of all banks to what reads find behind the wires of their tiles.

A tile's wires know nothing of banks: its array is put together from all blocks that lie in it, solved, and
each block's part cut out again. With idle rows at ground one solve serves all reads of a tile. Rows that are
cut or float change the circuit: then each set of blocks that is read at once is solved by itself, all other
rows cut off. `pcmc.accel.wires` has the circuit, docs/wires.md figures and limits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcmc.accel.random import stream
from pcmc.accel.wires import ApproximationError, Wires, noise_scale, pair_matrices, solve_active
from pcmc.runtime.program import Program

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
#: G+ and G- of each pair of a bank's cells.
Pairs = Sequence[tuple[Floats, Floats]]

# Arrays that are solved at once: with fewer, threads wait for each other; with more, each takes memory. So
# many numbers stay in cache.
LEAST_AT_ONCE, MOST_AT_ONCE, CACHED = 4, 8, 1 << 17
# Inputs that an approximation is measured with: each costs as much as a tile.
MOST_INPUTS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Wired:
    """What reads find behind wires, by bank; arrays are float32 `[cells]` in the order of `Bank.cells`.

    Attributes:
        weights: W in uS, with the wires.
        halves: what G+ and what G- count in W, in uS; W is the first less the second.
        noise_scale: factor of the standard deviation of each cell's noise, 0 to 1, alike in a block's column.
        largest_drop: the most that a column of a block loses of its current where all inputs are alike, 0 to
            1: 1 - the sum of M over that of G.
        solves: arrays that were solved.
        seconds: how long all took.
    """

    weights: dict[str, Floats]
    halves: dict[str, tuple[Floats, Floats]]
    noise_scale: dict[str, Floats]
    largest_drop: float
    solves: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Block:
    """A block: its cells in its bank, its rows and columns in the tile, its inputs, and its turn."""

    bank: str
    cells: slice
    rows: slice
    cols: slice
    inputs: slice
    turn: int


@dataclass(frozen=True, slots=True)
class _Read:
    """Blocks whose matrices come from one solve, and all that are in their tile (`place`: chip and tile)."""

    place: tuple[int, int]
    blocks: tuple[_Block, ...]
    tile: tuple[_Block, ...]

    def active(self, by_bank: Mapping[str, float] | None) -> float | None:
        """The part of rows that are driven at a time, if it is known: where that matters, all blocks are of
        one bank.
        """
        return (by_bank or {}).get(self.blocks[0].bank)

    def box(self) -> tuple[int, int, int, int]:
        """First row and column, and how many, from the first to the last of its rows with a cell."""
        row, col = min(b.rows.start for b in self.blocks), min(b.cols.start for b in self.tile)
        bottom, right = max(b.rows.stop for b in self.blocks), max(b.cols.stop for b in self.tile)
        return row, col, bottom - row, right - col


def wired_weights(
    program: Program,
    aged: Mapping[str, Pairs],
    gains: tuple[float, ...],
    wires: Wires,
    threads: int = 1,
    active: Mapping[str, float] | None = None,
) -> Wired:
    """What reads multiply with behind the wires of all tiles; the same bits for any number of threads.

    Each pair k of a cell lies in arrays of its own: W = sum_k gains[k] (M+_k - M-_k).

    Args:
        program: its tables say where blocks lie.
        aged: by bank, for each pair the conductances `(g_plus, g_minus)`, float32 `[cells]` in uS, as reads
            find them: after drift, with the frozen noise. Cells of banks that are missing here conduct
            nothing.
        gains: a factor for each pair.
        wires: wires and ports of a tile.
        threads: threads that solve tiles.
        active: by bank, the part of its rows that are driven at a time, as in
            `pcmc.accel.wires.transfer_matrix`; of a bank that is missing that of `wires`.

    Raises:
        ChipError: conductances out of range, or a tile too small for the segments of its lines.
        ValueError: arrays that do not fit `gains` or the bank, or a part of rows out of range.
    """
    start = time.perf_counter()
    _check(program, aged, gains)
    weights = {name: np.zeros_like(program.banks[name].cells) for name in aged}
    halves = {name: (np.zeros_like(held), np.zeros_like(held)) for name, held in weights.items()}
    scale = {name: np.ones_like(held) for name, held in weights.items()}
    cut = wires.idle_row != "grounded"

    def solve(group: Sequence[_Read]) -> None:
        # Blocks have cells of their own: threads do not meet.
        arrays = [_arrays(program, read, aged, cut) for read in group]
        all_plus, all_minus = np.concatenate(arrays, axis=1)
        found = pair_matrices(all_plus, all_minus, wires, group[0].active(active))
        solved = np.split(np.stack(found), len(group), axis=1)
        for read, g, m in zip(group, arrays, solved, strict=True):
            for block in read.blocks:
                part = (..., block.rows, block.cols)
                plus, minus = np.einsum("k,skij->sij", gains, m[part])
                weights[block.bank][block.cells] = (plus - minus).ravel()
                halves[block.bank][0][block.cells] = plus.ravel()
                halves[block.bank][1][block.cells] = minus.ravel()
                both = (np.einsum("k,skij->ij", np.abs(gains), a[part]) for a in (g, m))
                # Sneak paths may bring an almost empty column more than its own cells do.
                factor = np.minimum(noise_scale(*both), 1)
                scale[block.bank][block.cells] = np.broadcast_to(factor, plus.shape).ravel()

    reads = _reads(program, aged, apart=cut)
    groups = _groups(reads, len(gains), wires, threads, active)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(solve, groups))
    drop = 1 - min((float(factor.min(initial=1)) for factor in scale.values()), default=1.0)
    solves = len(reads) * len(gains) * (1 if wires.differential == "shared" else 2)
    return Wired(weights, halves, scale, drop, solves, time.perf_counter() - start)


def wires_error(
    program: Program,
    aged: Mapping[str, Pairs],
    gains: tuple[float, ...],
    wires: Wires,
    wired: Wired,
    threads: int = 1,
    active: Mapping[str, float] | None = None,
    inputs: Mapping[str, npt.ArrayLike] | None = None,
) -> ApproximationError | None:
    """Measure the weights behind wires against exact solves, where they are an approximation.

    They are one where rows are cut or float when idle, so that the circuit changes with the input; and where
    several blocks of a bank are read at once in a tile that has others as well, through which current may get
    from rows of the one to columns of the other. Of all such reads the one with the largest drop is measured.

    Args:
        program: as in `wired_weights`, like all others that are not explained.
        aged: likewise.
        gains: likewise.
        wires: likewise.
        wired: what `wired_weights` made of them.
        threads: threads that solve.
        active: likewise.
        inputs: by bank, `[n, rows]` vectors, of which the first 8 are taken; bias rows get the largest
            magnitude in each. Of a bank that is missing: 8 vectors of numbers from 0 to 1, each there with
            the probability that `active` or `wires` says, and else 0; where neither does, one half are.

    Returns:
        The errors of the currents; None where weights are exact.

    Raises:
        ChipError: as `wired_weights`.
        ValueError: likewise, or inputs that do not fit their bank.
    """
    _check(program, aged, gains)
    grounded = wires.idle_row == "grounded"
    reads = _reads(program, aged, apart=True)
    if grounded:
        reads = [read for read in reads if 1 < len(read.blocks) < len(read.tile)]
    if wires.is_ideal or not reads:
        return None
    left = [min(wired.noise_scale[b.bank][b.cells].min() for b in read.blocks) for read in reads]
    read = reads[int(np.argmin(left))]
    part = read.active(active)
    likely = (0.5 if wires.active_fraction == 1 else wires.active_fraction) if part is None else part
    vectors = _vectors(program, read, likely, inputs or {})
    plus, minus = _arrays(program, read, aged, cut=False)

    def currents(v: Doubles) -> Doubles:
        each = [solve_active(plus[k], v, wires, minus_us=minus[k]) for k in range(len(gains))]
        return np.asarray(np.einsum("k,kj->j", gains, each), np.float64)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        exact = np.stack(list(pool.map(currents, vectors)))
    found, columns = np.zeros_like(exact), np.zeros(exact.shape[1], np.bool_)
    for block in read.blocks:
        matrix = wired.weights[block.bank][block.cells].astype(np.float64)
        found[:, block.cols] = vectors[:, block.rows] @ matrix.reshape(plus[0, block.rows, block.cols].shape)
        columns[block.cols] = True
    return ApproximationError.of(
        found[:, columns], exact[:, columns], wires.active_fraction if part is None else part
    )


def _check(program: Program, aged: Mapping[str, Pairs], gains: tuple[float, ...]) -> None:
    """ValueError if conductances do not fit the pairs of a cell or the cells of a bank."""
    for name, pairs in aged.items():
        shapes = [np.shape(g) for pair in pairs for g in pair]
        wanted = program.banks[name].cells.shape
        if len(pairs) != len(gains) or any(shape != wanted for shape in shapes):
            found = f"{len(pairs)} of {sorted(set(shapes))}"
            raise ValueError(f"{name} must have {len(gains)} pairs of {wanted}, not {found}")


def _reads(program: Program, aged: Mapping[str, Pairs], apart: bool) -> list[_Read]:
    """All tiles with cells, by place; `apart`: each set of blocks that is read at once."""
    tiles: dict[tuple[int, int], list[_Block]] = {}
    for name in aged:
        for row in program.banks[name].table:
            rows, cols, x, y, first = (int(row[field]) for field in ("rows", "cols", "x", "y", "row0"))
            start = int(row["offset"])
            block = _Block(
                name,
                slice(start, start + rows * cols),
                slice(y, y + rows),
                slice(x, x + cols),
                slice(first, first + rows - int(row["bias"])),
                int(row["phase"]),
            )
            tiles.setdefault((int(row["chip"]), int(row["tile"])), []).append(block)
    reads = []
    for place, blocks in sorted(tiles.items()):
        turns: dict[object, list[_Block]] = {}
        for block in blocks:
            turns.setdefault((block.bank, block.turn) if apart else None, []).append(block)
        reads += [_Read(place, tuple(turn), tuple(blocks)) for turn in turns.values()]
    return reads


def _groups(
    reads: Sequence[_Read], pairs: int, wires: Wires, threads: int, active: Mapping[str, float] | None
) -> list[list[_Read]]:
    """Reads that are solved at once, those with most to do first. Only arrays of one size gain from it, and
    only those with one part of rows driven can be.
    """
    same: dict[tuple[tuple[int, int, int, int], float | None], list[_Read]] = {}
    for read in reads:
        same.setdefault((read.box(), read.active(active)), []).append(read)
    groups = []
    for ((_, _, rows, cols), _), alike in sorted(
        same.items(), key=lambda item: -item[0][0][2] * item[0][0][3]
    ):
        short, arrays = (cols, pairs) if wires.differential == "shared" else (min(rows, cols), 2 * pairs)
        most = min(MOST_AT_ONCE, CACHED // short**2) // arrays
        share = -(-len(alike) // max(1, threads))
        size = max(1, min(most, max(share, LEAST_AT_ONCE // arrays)))
        groups += [alike[i : i + size] for i in range(0, len(alike), size)]
    return groups


def _arrays(program: Program, read: _Read, aged: Mapping[str, Pairs], cut: bool) -> Doubles:
    """G+ and G- of a tile, `[2, pairs, rows, cols]` in uS; `cut`: without the rows that are not read."""
    tile, pairs = program.chip.tile, len(aged[read.tile[0].bank])
    g = np.zeros((2, pairs, tile.rows, tile.cols))
    for block in read.tile:
        for k, pair in enumerate(aged[block.bank]):
            for half, values in enumerate(pair):
                part = g[half, k, block.rows, block.cols]
                part[:] = values[block.cells].reshape(part.shape)
    if cut:
        idle = np.ones(tile.rows, np.bool_)
        for block in read.blocks:
            idle[block.rows] = False
        g[:, :, idle] = 0
    return g


def _vectors(program: Program, read: _Read, likely: float, inputs: Mapping[str, npt.ArrayLike]) -> Doubles:
    """What drives the rows of a tile, `[n, rows]`: given inputs, or random ones, not 0 with a probability of
    `likely`.
    """
    rows, bank = program.chip.tile.rows, read.blocks[0].bank
    if bank not in inputs:
        drawn = stream(0, read.place, "wires_error")
        size = MOST_INPUTS * rows
        each = drawn.uniform(size) * (drawn.uniform(size) < likely)
        given, driven = each.astype(np.float64).reshape(MOST_INPUTS, rows), None
    else:
        given = np.asarray(inputs[bank], np.float64)[:MOST_INPUTS]
        if given.ndim != 2 or given.shape[1] != program.banks[bank].rows:
            raise ValueError(f"inputs of {bank} must be [n, {program.banks[bank].rows}], not {given.shape}")
        driven = np.max(np.abs(given), axis=1, keepdims=True)
    vectors = np.zeros((len(given), rows))
    for block in read.blocks:
        if driven is None:
            vectors[:, block.rows] = given[:, block.rows]
        else:
            vectors[:, block.rows] = driven
            inner = slice(block.rows.start, block.rows.start + block.inputs.stop - block.inputs.start)
            vectors[:, inner] = given[:, block.inputs]
    return vectors
