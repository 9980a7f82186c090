"""The mesh: XY routes connect, links carry what passes, the board is the smallest square that fits."""

import itertools

import builders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcmc.accel.mesh import board_side, chip_links, crossings, link_loads, positions, xy_path

layouts = st.builds(lambda x, y: builders.chip(mesh=(x, y)).chip, st.integers(1, 4), st.integers(1, 4))
points = st.tuples(st.integers(0, 9), st.integers(0, 9))


def board(chips, layout):
    """Width and height of the board in tiles."""
    side = board_side(chips)
    return side * layout.mesh_x, -(-chips // side) * layout.mesh_y


@pytest.mark.parametrize(
    ("chips", "side"),
    [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (1_000_000, 1000), (1_000_001, 1001)],
)
def test_the_board_is_the_smallest_square_that_holds_the_chips(chips, side):
    assert board_side(chips) == side


@given(st.integers(1, 30), layouts)
@settings(max_examples=30, deadline=None)
def test_every_tile_has_a_place_of_its_own_on_the_board(chips, layout):
    chip, tile = np.divmod(np.arange(chips * layout.tiles), layout.tiles)
    where = positions(chip, tile, chips, layout)
    width, height = board(chips, layout)
    assert len(np.unique(where, axis=0)) == len(where)
    assert where.min() >= 0
    assert np.all(where < [width, height])
    np.testing.assert_array_equal(
        where // [layout.mesh_x, layout.mesh_y],
        np.stack([chip % board_side(chips), chip // board_side(chips)], 1),
    )


def test_tiles_are_counted_row_by_row():
    layout = builders.chip(mesh=(3, 2)).chip
    assert positions([0, 0, 0, 0], [0, 2, 3, 5], 4, layout).tolist() == [[0, 0], [2, 0], [0, 1], [2, 1]]
    assert positions([1, 2, 3], [0, 0, 4], 4, layout).tolist() == [[3, 0], [0, 2], [4, 3]]


@given(points, points)
def test_a_route_connects_its_ends_with_neighbours_and_no_detour(start, end):
    path = xy_path(start, end)
    assert (path[0], path[-1]) == (start, end)
    assert len(path) == 1 + abs(end[0] - start[0]) + abs(end[1] - start[1])
    assert all(abs(ax - bx) + abs(ay - by) == 1 for (ax, ay), (bx, by) in itertools.pairwise(path))


@given(points, points)
def test_a_route_goes_along_x_first(start, end):
    turns = [a[0] == b[0] for a, b in zip(xy_path(start, end), xy_path(start, end)[1:], strict=False)]
    assert turns == sorted(turns)


def walked(start, end, amount, width, height):
    """Loads of all links, stream by stream and hop by hop."""
    loads = {
        "east": np.zeros((height, width - 1)),
        "west": np.zeros((height, width - 1)),
        "south": np.zeros((height - 1, width)),
        "north": np.zeros((height - 1, width)),
    }
    for a, b, load in zip(start.tolist(), end.tolist(), amount, strict=True):
        path = xy_path(tuple(a), tuple(b))
        for (x0, y0), (x1, y1) in itertools.pairwise(path):
            if x0 != x1:
                loads["east" if x1 > x0 else "west"][y0, min(x0, x1)] += load
            else:
                loads["south" if y1 > y0 else "north"][min(y0, y1), x0] += load
    return loads


def streams(data, chips, layout, most=12):
    width, height = board(chips, layout)
    point = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    drawn = data.draw(st.lists(st.tuples(point, point, st.integers(0, 1000)), max_size=most))
    start = np.array([one[0] for one in drawn], np.int64).reshape(-1, 2)
    end = np.array([one[1] for one in drawn], np.int64).reshape(-1, 2)
    return start, end, np.array([one[2] for one in drawn], np.float64)


@given(st.data(), st.integers(1, 7), layouts)
@settings(max_examples=50, deadline=None)
def test_link_loads_are_those_of_a_walk_along_every_route(data, chips, layout):
    start, end, amount = streams(data, chips, layout)
    loads = link_loads(start, end, amount, chips, layout)
    expected = walked(start, end, amount, *board(chips, layout))
    assert loads.keys() == expected.keys()
    for direction, wanted in expected.items():
        np.testing.assert_array_equal(loads[direction], wanted)


@given(st.data(), st.integers(1, 7), layouts)
@settings(max_examples=50, deadline=None)
def test_traffic_is_conserved_and_split_between_links_and_chip_links(data, chips, layout):
    start, end, amount = streams(data, chips, layout)
    within, between = crossings(start, end, layout)
    loads = link_loads(start, end, amount, chips, layout)
    on_chip = between_chips = 0.0
    for direction, load in loads.items():
        mask = chip_links(load.shape, 1 if direction in ("east", "west") else 0, layout)
        assert mask.shape == load.shape
        on_chip += load[~mask].sum()
        between_chips += load[mask].sum()
    assert on_chip == (amount * within).sum()
    assert between_chips == (amount * between).sum()
    np.testing.assert_array_equal(within + between, np.abs(end - start).sum(axis=1))


def test_a_single_tile_has_no_links():
    layout = builders.chip(mesh=(1, 1)).chip
    loads = link_loads(np.zeros((1, 2), np.int64), np.zeros((1, 2), np.int64), np.ones(1), 1, layout)
    assert [load.size for load in loads.values()] == [0, 0, 0, 0]
