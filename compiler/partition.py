"""Partition: cut each matrix into blocks that fit a tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import TileSpec
from pcmc.compiler.graph import Matrix
from pcmc.runtime.program import BLOCK

Ints = npt.NDArray[np.int64]


def partition(matrices: Sequence[Matrix], tile: TileSpec) -> list[npt.NDArray[np.void]]:
    """Cut matrices into blocks of at most `tile.rows x tile.cols` cells, from the first row and column on.

    A bias is one more row at the end of the matrix where the tile has a bias row. Groups of a grouped
    convolution are cut each by itself, with a bias row of its own, since they share neither inputs nor
    outputs.

    Returns:
        for each matrix a BLOCK table in the order of rows, then columns, with nothing placed yet; `offset` is
        set.
    """
    return [_blocks(matrix, tile) for matrix in matrices]


def _blocks(matrix: Matrix, tile: TileSpec) -> npt.NDArray[np.void]:
    bias = int(matrix.bias is not None and tile.bias_row)
    inputs, cols = matrix.rows // matrix.groups, matrix.cols // matrix.groups
    total = inputs + bias
    rows_from = np.arange(0, total, tile.rows)
    cols_from = np.arange(0, cols, tile.cols)
    group, row, col = (
        axis.ravel() for axis in np.meshgrid(np.arange(matrix.groups), rows_from, cols_from, indexing="ij")
    )
    table = np.zeros(group.size, BLOCK)
    table["rows"] = np.minimum(tile.rows, total - row)
    table["cols"] = np.minimum(tile.cols, cols - col)
    table["bias"] = (row + table["rows"] == total) & bool(bias)
    table["row0"] = group * inputs + row
    table["col0"] = group * cols + col
    table["offset"] = np.concatenate([[0], np.cumsum(table["rows"] * table["cols"])[:-1]])
    return table


def check_partition(table: npt.NDArray[np.void], matrix: Matrix, tile: TileSpec) -> None:
    """Raise ValueError unless the blocks cover every weight and bias exactly once and none is larger than
    a tile.
    """
    if np.any(table["rows"] > tile.rows) or np.any(table["cols"] > tile.cols):
        raise ValueError(f"a block of '{matrix.name}' is larger than a tile of {tile.rows} x {tile.cols}")
    bias = int(matrix.bias is not None and tile.bias_row)
    cols = matrix.cols // matrix.groups
    height = matrix.rows // matrix.groups + bias  # rows of one group, its bias row included
    group = table["col0"] // cols
    row, col = table["row0"] - group * (height - bias), table["col0"] - group * cols
    row_end, col_end = row + table["rows"], col + table["cols"]
    inside = (group >= 0) & (group < matrix.groups) & (row >= 0) & (row_end <= height) & (col_end <= cols)
    if not np.all(inside & (table["rows"] > 0) & (table["cols"] > 0)):
        raise ValueError(f"a block of '{matrix.name}' lies outside of its weights, or is empty")
    if np.any(table["bias"] != bias * (row_end == height)):
        raise ValueError(f"the bias of '{matrix.name}' must be in the last row of each group, and only there")
    cells, wanted = int(np.sum(table["rows"] * table["cols"])), height * matrix.cols
    if cells != wanted or _overlap(group * height + row, table["rows"], table["col0"], table["cols"]):
        raise ValueError(
            f"the blocks of '{matrix.name}' hold {cells} cells, some perhaps twice; it has {wanted}, to "
            "be held once"
        )


def _overlap(row: Ints, rows: Ints, col: Ints, cols: Ints) -> bool:
    """Whether any two rectangles overlap: counted on the grid that all their edges make."""
    row_edges, col_edges = np.unique([row, row + rows]), np.unique([col, col + cols])
    counts = np.zeros((len(row_edges), len(col_edges)), np.int64)
    top, bottom = np.searchsorted(row_edges, row), np.searchsorted(row_edges, row + rows)
    left, right = np.searchsorted(col_edges, col), np.searchsorted(col_edges, col + cols)
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(counts, (y, x), sign)
    return bool(np.any(counts.cumsum(axis=0).cumsum(axis=1) > 1))
