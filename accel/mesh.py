"""The mesh: where tiles lie on a chip and chips on the board, and the links between them.

Coordinates count tiles over the whole board: chip (cx, cy) covers x from `cx * mesh_x` and y from `cy *
mesh_y`. A link joins neighbours; one that leaves a chip is a chip-to-chip link. The digital unit of a chip
hangs on the router of its tile 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import LayoutSpec

Ints = npt.NDArray[np.int64]


def board_side(chips: int) -> int:
    """Chips in a row of the board: the smallest square that holds them all."""
    return max(1, math.isqrt(max(chips, 1) - 1) + 1)


def positions(chip: npt.ArrayLike, tile: npt.ArrayLike, chips: int, layout: LayoutSpec) -> Ints:
    """Board coordinates `[..., 2]` (x, y) of tiles: chips row by row on the board, tiles row by row on a
    chip.
    """
    chip, tile = np.asarray(chip, np.int64), np.asarray(tile, np.int64)
    side = board_side(chips)
    x = chip % side * layout.mesh_x + tile % layout.mesh_x
    y = chip // side * layout.mesh_y + tile // layout.mesh_x
    return np.stack([x, y], axis=-1)


def crossings(start: Ints, end: Ints, layout: LayoutSpec) -> tuple[Ints, Ints]:
    """Hops of XY routes from `start` to `end` (`[n, 2]`): those within chips, and those from chip to chip."""
    hops = np.abs(end - start).sum(axis=-1)
    size = np.array([layout.mesh_x, layout.mesh_y])
    between = np.abs(end // size - start // size).sum(axis=-1)
    return hops - between, between


def xy_path(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The routers that an XY route passes, both ends included: along x first, then along y."""
    (x0, y0), (x1, y1) = start, end
    step_x, step_y = (1 if x1 >= x0 else -1), (1 if y1 >= y0 else -1)
    along_x = [(x, y0) for x in range(x0, x1, step_x)]
    return [*along_x, *((x1, y) for y in range(y0, y1, step_y)), (x1, y1)]


def link_loads(
    start: Ints, end: Ints, amount: npt.NDArray[np.float64], chips: int, layout: LayoutSpec
) -> dict[str, npt.NDArray[np.float64]]:
    """What each link carries when every stream takes its XY route.

    Args:
        start: `[n, 2]` coordinates of the sources.
        end: `[n, 2]` coordinates of the targets.
        amount: `[n]` bytes of each stream.
        chips: chips in use; they span the mesh.
        layout: tiles on a chip.

    Returns:
        `east, west`: `[height, width - 1]`, the link between x and x + 1 in each direction; `south, north`:
        `[height - 1, width]`, between y and y + 1 (south is towards larger y).
    """
    side = board_side(chips)
    width, height = side * layout.mesh_x, -(-max(chips, 1) // side) * layout.mesh_y
    return {
        "east": _spans(start[:, 0], end[:, 0], start[:, 1], amount, (height, width), axis=1),
        "west": _spans(end[:, 0], start[:, 0], start[:, 1], amount, (height, width), axis=1),
        "south": _spans(start[:, 1], end[:, 1], end[:, 0], amount, (height, width), axis=0),
        "north": _spans(end[:, 1], start[:, 1], end[:, 0], amount, (height, width), axis=0),
    }


def _spans(
    low: Ints, high: Ints, other: Ints, amount: npt.NDArray[np.float64], shape: tuple[int, int], axis: int
) -> npt.NDArray[np.float64]:
    """Sum over streams with low < high of `amount` on each link from low to high, by differences and one
    running sum.
    """
    steps = np.zeros(shape)
    take = high > low
    for end, sign in ((low[take], 1.0), (high[take], -1.0)):
        where = (other[take], end) if axis == 1 else (end, other[take])
        np.add.at(steps, where, sign * amount[take])
    loads = np.cumsum(steps, axis=axis)
    return loads[:, :-1] if axis == 1 else loads[:-1]


def chip_links(shape: tuple[int, int], axis: int, layout: LayoutSpec) -> npt.NDArray[np.bool_]:
    """Which links of an array of `link_loads` join two chips; axis 1 for east and west, 0 for south and
    north.
    """
    period = layout.mesh_x if axis == 1 else layout.mesh_y
    leaves = (np.arange(shape[axis]) + 1) % period == 0
    return np.broadcast_to(leaves if axis == 1 else leaves[:, None], shape)
