"""Packing: put blocks into tiles, as the chip's `sharing` allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import TileSpec
from pcmc.runtime.program import BLOCK

Table = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Piece:
    """What is placed as one: a block, or the blocks of several groups of one matrix along a diagonal."""

    bank: int
    blocks: range
    rows: int
    cols: int


def pack(tables: Sequence[Table], groups: Sequence[int], tile: TileSpec) -> list[Table]:
    """Give every block its tile, its corner in the tile and its phase.

    Pieces go largest first into the first tile with room (first fit, decreasing). Tiles are then numbered
    from 0 in the order of the model. Groups of a grouped convolution are put along a diagonal, as many as a
    tile takes: one read serves them all.

    Args:
        tables: blocks of each matrix, as partition made them.
        groups: groups of each matrix.
        tile: `tile.sharing` says whether a tile takes one piece (`exclusive`), pieces without a common row or
            column (`diagonal`), or any that do not overlap (`stacked`).
    """
    pieces = [
        piece for bank, table in enumerate(tables) for piece in _pieces(bank, table, groups[bank], tile)
    ]
    fitter = {"exclusive": _exclusive, "diagonal": _diagonal, "stacked": _stacked}[tile.sharing]
    places = fitter(
        sorted(pieces, key=lambda piece: (-piece.rows * piece.cols, piece.bank, piece.blocks.start)), tile
    )
    number = _numbers([(piece.bank, tile) for piece, tile, _, _ in places])
    packed = [table.copy() for table in tables]
    for piece, index, x, y in places:
        _put(packed[piece.bank], piece, number[index], x, y)
    for table in packed:
        table["phase"] = _phases(table)
    return packed


def _pieces(bank: int, table: Table, groups: int, tile: TileSpec) -> list[Piece]:
    rows, cols = int(table["rows"].max()), int(table["cols"].max())
    fit = min(tile.rows // rows, tile.cols // cols)
    if groups == 1 or len(table) != groups or fit < 2 or tile.sharing == "exclusive":
        return [Piece(bank, range(i, i + 1), int(b["rows"]), int(b["cols"])) for i, b in enumerate(table)]
    pieces = []
    for start in range(0, groups, fit):
        blocks = range(start, min(start + fit, groups))
        pieces.append(Piece(bank, blocks, rows * len(blocks), cols * len(blocks)))
    return pieces


Place = tuple[Piece, int, int, int]


def _exclusive(pieces: Sequence[Piece], tile: TileSpec) -> list[Place]:
    return [(piece, index, 0, 0) for index, piece in enumerate(pieces)]


def _diagonal(pieces: Sequence[Piece], tile: TileSpec) -> list[Place]:
    used: list[tuple[int, int]] = []
    places = []
    for piece in pieces:
        index = next(
            (
                i
                for i, (y, x) in enumerate(used)
                if y + piece.rows <= tile.rows and x + piece.cols <= tile.cols
            ),
            len(used),
        )
        if index == len(used):
            used.append((0, 0))
        y, x = used[index]
        places.append((piece, index, x, y))
        used[index] = (y + piece.rows, x + piece.cols)
    return places


Rectangle = tuple[int, int, int, int]  # x, y, cols, rows


def _stacked(pieces: Sequence[Piece], tile: TileSpec) -> list[Place]:
    """Guillotine packing: each tile keeps a list of free rectangles; the tightest one is cut in two by
    what goes in.
    """
    free: list[list[Rectangle]] = []
    roomy: list[int] = []  # tiles with any free cell
    places = []
    for piece in pieces:
        found = next(((i, spot) for i in roomy if (spot := _tightest(free[i], piece)) is not None), None)
        if found is None:
            free.append([(0, 0, tile.cols, tile.rows)])
            roomy.append(len(free) - 1)
            found = len(free) - 1, 0
        index, spot = found
        x, y, cols, rows = free[index].pop(spot)
        free[index].extend(_cut(x, y, cols, rows, piece))
        places.append((piece, index, x, y))
        if not free[index]:
            roomy.remove(index)
    return places


def _tightest(spots: list[Rectangle], piece: Piece) -> int | None:
    """The free rectangle that leaves least over, of those that take the piece."""
    fitting = [
        (cols * rows, index)
        for index, (_, _, cols, rows) in enumerate(spots)
        if piece.cols <= cols and piece.rows <= rows
    ]
    return min(fitting)[1] if fitting else None


def _cut(x: int, y: int, cols: int, rows: int, piece: Piece) -> list[Rectangle]:
    """What is left of a rectangle: cut so that the larger of the two rests stays whole."""
    right_cols, below_rows = cols - piece.cols, rows - piece.rows
    if right_cols * rows >= below_rows * cols:
        rests = [(x + piece.cols, y, right_cols, rows), (x, y + piece.rows, piece.cols, below_rows)]
    else:
        rests = [(x + piece.cols, y, right_cols, piece.rows), (x, y + piece.rows, cols, below_rows)]
    return [rest for rest in rests if rest[2] > 0 and rest[3] > 0]


def _numbers(used: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Tile numbers in the order of the first bank that each holds, so that neighbours in the model are
    neighbours in place.
    """
    first: dict[int, int] = {}
    for bank, tile in used:
        first[tile] = min(bank, first.get(tile, bank))
    return {tile: number for number, tile in enumerate(sorted(first, key=lambda tile: (first[tile], tile)))}


def _put(table: Table, piece: Piece, tile: int, x: int, y: int) -> None:
    for index in piece.blocks:
        block = table[index]
        block["tile"], block["x"], block["y"] = tile, x, y
        x, y = x + int(block["cols"]), y + int(block["rows"])


def _phases(table: Table) -> npt.NDArray[np.int64]:
    """Blocks of one bank that share rows or columns of a tile are read in turns: the first turn that is
    free for each.
    """
    phases = np.zeros(len(table), np.int64)
    for tile in np.unique(table["tile"]):
        mine = np.flatnonzero(table["tile"] == tile)
        for index, block in enumerate(mine):
            earlier = mine[:index]
            clash = earlier[
                _overlap(table, int(block), earlier, "x", "cols")
                | _overlap(table, int(block), earlier, "y", "rows")
            ]
            taken = set(phases[clash].tolist())
            phases[block] = next(turn for turn in range(len(taken) + 1) if turn not in taken)
    return phases


def _overlap(
    table: Table, one: int, others: npt.NDArray[np.int64], start: str, size: str
) -> npt.NDArray[np.bool_]:
    low, high = table[start][one], table[start][one] + table[size][one]
    return np.asarray((table[start][others] < high) & (table[start][others] + table[size][others] > low))


def check_packing(tables: Sequence[Table], tile: TileSpec) -> None:
    """Raise ValueError where a block leaves its tile, two overlap, or the sharing is broken."""
    blocks = np.concatenate([*tables, np.zeros(0, BLOCK)])
    if np.any(blocks["x"] + blocks["cols"] > tile.cols) or np.any(blocks["y"] + blocks["rows"] > tile.rows):
        raise ValueError(f"a block leaves its tile of {tile.rows} x {tile.cols}")
    for chip, number in np.unique(np.stack([blocks["chip"], blocks["tile"]], axis=1), axis=0):
        mine = blocks[(blocks["chip"] == chip) & (blocks["tile"] == number)]
        for index in range(len(mine)):
            others = np.arange(index)
            same_cols, same_rows = (
                _overlap(mine, index, others, "x", "cols"),
                _overlap(mine, index, others, "y", "rows"),
            )
            broken = {
                "exclusive": np.ones(len(others), bool),
                "diagonal": same_cols | same_rows,
                "stacked": same_cols & same_rows,
            }[tile.sharing]
            if np.any(broken):
                raise ValueError(f"tile {number} of chip {chip} breaks the sharing '{tile.sharing}'")
