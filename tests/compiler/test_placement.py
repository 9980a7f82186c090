"""Chips are filled in order, each tile gets a place of its own, and too small a board is refused."""

import builders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmc
from pcmc.accel.mesh import positions
from pcmc.compiler.placement import place
from pcmc.errors import ChipError
from pcmc.runtime.program import BLOCK


def tables_of(tiles, banks=1):
    """Blocks that fill `tiles` tiles, spread over some banks, one block to a tile."""
    numbers = np.arange(tiles)
    tables = []
    for part in np.array_split(numbers, banks):
        table = np.zeros(len(part), BLOCK)
        table["tile"], table["rows"], table["cols"] = part, 1, 1
        tables.append(table)
    return tables


meshes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(st.integers(1, 60), st.integers(1, 4), meshes)
@settings(max_examples=60, deadline=None)
def test_chips_are_filled_in_order_and_no_place_is_given_twice(tiles, banks, mesh):
    spec = builders.chip(mesh=mesh)
    placed = np.concatenate(place(tables_of(tiles, banks), spec))
    per_chip = mesh[0] * mesh[1]
    np.testing.assert_array_equal(placed["chip"], np.arange(tiles) // per_chip)
    assert placed["tile"].max() < per_chip
    assert len(np.unique(placed[["chip", "tile"]])) == tiles


@given(st.integers(2, 25), meshes)
@settings(max_examples=60, deadline=None)
def test_successive_tiles_of_a_chip_are_neighbours(tiles, mesh):
    spec = builders.chip(mesh=mesh)
    placed = np.concatenate(place(tables_of(tiles), spec))
    where = positions(placed["chip"], placed["tile"], int(placed["chip"].max()) + 1, spec.chip)
    same_chip = placed["chip"][1:] == placed["chip"][:-1]
    np.testing.assert_array_equal(np.abs(np.diff(where, axis=0)).sum(axis=1)[same_chip], 1)


def test_blocks_of_one_tile_stay_together():
    (table,) = tables_of(9)
    table["tile"] //= 3
    (placed,) = place([table], builders.chip(mesh=(2, 1)))
    assert placed["chip"].tolist() == [0] * 6 + [1] * 3
    assert placed["tile"].tolist() == [0] * 3 + [1] * 3 + [0] * 3


def test_a_board_that_is_just_large_enough_is_taken():
    place(tables_of(8), builders.chip(max_chips=2))


def test_a_board_that_is_too_small_is_refused_with_the_number_needed():
    with pytest.raises(
        ChipError,
        match=r"needs 3 chips of nature2018 \(9 tiles, 4 on a chip\).*has 2: raise \[board\] max_chips",
    ):
        place(tables_of(9), builders.chip(max_chips=2))


def test_compiling_for_a_board_that_is_too_small_is_refused():
    proto = builders.mlp([2049, 101])
    with pytest.raises(ChipError, match=r"needs 2 chips of nature2018"):
        pcmc.compile(proto, builders.chip(max_chips=1))
    assert pcmc.compile(proto, builders.chip(max_chips=2), check=True).chips == 2
