"""Placement: give every tile its chip and its place on the chip's mesh."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import ChipSpec
from pcmc.errors import ChipError

Table = npt.NDArray[np.void]


def place(tables: Sequence[Table], chip: ChipSpec) -> list[Table]:
    """Fill chips in the order of the tile numbers, on each chip row by row and back again, so that successors
    are neighbours.

    Args:
        tables: packed blocks; `tile` numbers the tiles of the whole program.
        chip: mesh of tiles, and how many chips the board has.

    Returns:
        the tables with `chip`, and with `tile` the place on that chip.

    Raises:
        ChipError: the board has fewer chips than the tiles need.
    """
    tiles = max((int(table["tile"].max()) + 1 for table in tables if len(table)), default=0)
    chips = -(-tiles // chip.chip.tiles)
    if chip.board.max_chips and chips > chip.board.max_chips:
        # Cores of spikes have no network beyond the board.
        more = "" if chip.cell.kind == "axon" else "raise [board] max_chips, or "
        raise ChipError(
            f"the model needs {chips:,} chips of {chip.name} ({tiles:,} tiles, {chip.chip.tiles:,} on a "
            f"chip); the board has {chip.board.max_chips:,}: {more}take a chip with more or larger tiles"
        )
    slots = _snake(chip.chip.mesh_x, chip.chip.mesh_y)
    placed = [table.copy() for table in tables]
    for table in placed:
        number = table["tile"].copy()
        table["chip"] = number // chip.chip.tiles
        table["tile"] = slots[number % chip.chip.tiles]
    return placed


def _snake(mesh_x: int, mesh_y: int) -> npt.NDArray[np.int64]:
    grid = np.arange(mesh_x * mesh_y).reshape(mesh_y, mesh_x)
    grid[1::2] = grid[1::2, ::-1].copy()
    return grid.ravel()
