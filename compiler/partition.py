"""Partition: cut each matrix into blocks that fit a tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import TileSpec
from pcmc.compiler.graph import Matrix
from pcmc.runtime.program import BLOCK


def partition(matrices: Sequence[Matrix], tile: TileSpec) -> list[npt.NDArray[np.void]]:
    """Cut matrices into blocks of at most `tile.rows x tile.cols` cells, from the first row and column on.

    A bias is one more row at the end of the matrix where the tile has a bias row. Groups of a grouped convolution are cut
    each by itself, with a bias row of its own, since they share neither inputs nor outputs.

    Returns:
        for each matrix a BLOCK table in the order of rows, then columns, with nothing placed yet; `offset` is set.
    """
    return [_blocks(matrix, tile) for matrix in matrices]


def _blocks(matrix: Matrix, tile: TileSpec) -> npt.NDArray[np.void]:
    bias = int(matrix.bias is not None and tile.bias_row)
    inputs, cols = matrix.rows // matrix.groups, matrix.cols // matrix.groups
    total = inputs + bias
    rows_from = np.arange(0, total, tile.rows)
    cols_from = np.arange(0, cols, tile.cols)
    group, row, col = (axis.ravel() for axis in np.meshgrid(np.arange(matrix.groups), rows_from, cols_from, indexing="ij"))
    table = np.zeros(group.size, BLOCK)
    table["rows"] = np.minimum(tile.rows, total - row)
    table["cols"] = np.minimum(tile.cols, cols - col)
    table["bias"] = (row + table["rows"] == total) & bool(bias)
    table["row0"] = group * inputs + row
    table["col0"] = group * cols + col
    table["offset"] = np.concatenate([[0], np.cumsum(table["rows"] * table["cols"])[:-1]])
    return table


def check_partition(table: npt.NDArray[np.void], matrix: Matrix, tile: TileSpec) -> None:
    """Raise ValueError unless the blocks cover every weight and bias once and none is larger than a tile."""
    if np.any(table["rows"] > tile.rows) or np.any(table["cols"] > tile.cols):
        raise ValueError(f"a block of '{matrix.name}' is larger than a tile of {tile.rows} x {tile.cols}")
    cells = int(np.sum(table["rows"] * table["cols"]))
    bias = matrix.cols if matrix.bias is not None and tile.bias_row else 0
    if cells != matrix.weights.size + bias or int(np.sum(table["cols"][table["bias"] == 1])) != bias:
        raise ValueError(f"the blocks of '{matrix.name}' hold {cells} cells, it has {matrix.weights.size} weights and {bias} biases")
    order = np.lexsort((table["col0"], table["row0"]))
    corners = table[order][["row0", "col0"]]
    if len(np.unique(corners)) != len(table):
        raise ValueError(f"two blocks of '{matrix.name}' begin at the same weight")
