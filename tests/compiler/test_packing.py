"""Blocks go into tiles without overlap, as the chip's sharing allows, and take turns where they clash."""

import builders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcmc.compiler.graph import Matrix
from pcmc.compiler.packing import check_packing, pack
from pcmc.compiler.partition import partition


def matrix(rows, cols, *, bias=False, groups=1):
    shape = (groups, rows, cols) if groups > 1 else (rows, cols)
    zeros = np.broadcast_to(np.zeros((), np.float32), shape)
    return Matrix(
        "m", zeros, np.zeros(cols * groups, np.float32) if bias else None, "m", ("m",), "as it is", groups
    )


def packed(matrices, tile):
    return pack(partition(matrices, tile), [one.groups for one in matrices], tile)


networks = st.lists(
    st.builds(
        matrix,
        st.integers(1, 50),
        st.integers(1, 40),
        bias=st.booleans(),
        groups=st.sampled_from((1, 1, 1, 2, 5)),
    ),
    min_size=1,
    max_size=6,
)
tiles = st.builds(
    lambda rows, cols, bias_row, sharing: builders.chip(rows, cols, bias_row=bias_row, sharing=sharing).tile,
    st.integers(2, 30),
    st.integers(1, 30),
    st.booleans(),
    st.sampled_from(builders.SHARINGS),
)


def pictures(tables, tile):
    """Each tile as an array of how many blocks cover each of its cells."""
    found = {}
    for table in tables:
        for block in table:
            picture = found.setdefault(int(block["tile"]), np.zeros((tile.rows, tile.cols), int))
            x, y = int(block["x"]), int(block["y"])
            assert y + block["rows"] <= tile.rows
            assert x + block["cols"] <= tile.cols
            picture[y : y + block["rows"], x : x + block["cols"]] += 1
    return found


@given(networks, tiles)
@settings(max_examples=15, deadline=None)
def test_every_block_has_cells_of_its_own_inside_of_one_tile(matrices, tile):
    tables = packed(matrices, tile)
    check_packing(tables, tile)
    assert all(picture.max() == 1 for picture in pictures(tables, tile).values())


@given(networks, tiles)
@settings(max_examples=15, deadline=None)
def test_packing_changes_no_block(matrices, tile):
    before = partition(matrices, tile)
    for table, ours in zip(before, packed(matrices, tile), strict=True):
        for name in ("row0", "col0", "rows", "cols", "bias", "offset"):
            np.testing.assert_array_equal(table[name], ours[name])


@given(networks, tiles)
@settings(max_examples=15, deadline=None)
def test_tiles_are_numbered_from_zero_without_gaps_in_the_order_of_the_model(matrices, tile):
    tables = packed(matrices, tile)
    firsts = {}
    for bank, table in enumerate(tables):
        for number in table["tile"].tolist():
            firsts.setdefault(number, bank)
    assert sorted(firsts) == list(range(len(firsts)))
    assert [firsts[number] for number in sorted(firsts)] == sorted(firsts.values())


def clash(a, b):
    """Whether two blocks share a row or a column of one tile."""
    if a["tile"] != b["tile"]:
        return False
    return (a["x"] < b["x"] + b["cols"] and b["x"] < a["x"] + a["cols"]) or (
        a["y"] < b["y"] + b["rows"] and b["y"] < a["y"] + a["rows"]
    )


@given(networks, tiles)
@settings(max_examples=15, deadline=None)
def test_sharing_is_obeyed_and_clashing_blocks_of_a_bank_take_turns(matrices, tile):
    tables = packed(matrices, tile)
    blocks = np.concatenate(tables)
    if tile.sharing == "exclusive":
        assert len(np.unique(blocks["tile"])) == len(blocks)
    if tile.sharing == "diagonal":
        assert not any(clash(a, b) for i, a in enumerate(blocks) for b in blocks[:i])
    for table in tables:
        assert not any(
            clash(a, b) and a["phase"] == b["phase"] for i, a in enumerate(table) for b in table[:i]
        )
        assert set(table["phase"].tolist()) == set(range(int(table["phase"].max()) + 1)), (
            "no turn is left out"
        )
        if tile.sharing != "stacked":
            assert not table["phase"].any()


@given(networks)
@settings(max_examples=15, deadline=None)
def test_freer_sharing_never_takes_more_tiles(matrices):
    used = {}
    for sharing in builders.SHARINGS:
        tables = packed(matrices, builders.chip(20, 15, sharing=sharing).tile)
        used[sharing] = len(np.unique(np.concatenate(tables)["tile"]))
    assert used["stacked"] <= used["exclusive"]
    assert used["diagonal"] <= used["exclusive"]


@pytest.mark.parametrize(
    ("sharing", "tiles", "phases"), [("exclusive", 12, 1), ("diagonal", 3, 1), ("stacked", 1, 3)]
)
def test_groups_lie_along_a_diagonal_so_that_one_read_serves_them(sharing, tiles, phases):
    """Blocks of 10 x 1 on tiles of 40 x 40: four along a diagonal; three diagonals in one tile take turns."""
    (table,) = packed([matrix(9, 1, bias=True, groups=12)], builders.chip(40, 40, sharing=sharing).tile)
    assert len(np.unique(table["tile"])) == tiles
    assert len(np.unique(table["phase"])) == phases


def test_the_network_of_the_2018_paper_fits_on_one_chip():
    """528-250-125-10 with bias rows: 164,885 synapses on four tiles of 513 x 100 (Ambrogio et al. 2018)."""
    program = builders.compiled_like_onnxruntime(builders.mlp([528, 250, 125, 10]))
    report = program.report()
    assert (report["chips"], report["tiles"], report["cells"]) == (1, 4, 164_885)
    assert report["utilization"]["cells"] == [164_885, 205_200]
    assert all(one["bias"] == "row" for one in report["matrices"])


def test_the_largest_network_of_the_2018_paper_fills_one_chip():
    """2,048 features to 100 classes with a bias row: 204,900 synapses of 205,200."""
    report = builders.compiled_like_onnxruntime(builders.mlp([2048, 100])).report()
    assert (report["chips"], report["tiles"], report["cells"], report["weights"]) == (1, 4, 204_900, 204_800)
    assert report["utilization"]["chip_cells"] == [204_900, 205_200]


def test_the_same_network_with_a_tile_each_takes_more_tiles():
    program = builders.compiled_like_onnxruntime(
        builders.mlp([528, 250, 125, 10]), builders.chip(sharing="exclusive")
    )
    assert program.tiles == 2 * 3 + 2 + 1


def test_the_check_finds_a_block_that_sticks_out():
    tile = builders.chip(8, 5).tile
    tables = packed([matrix(8, 5)], tile)
    tables[0]["x"] += 1
    with pytest.raises(ValueError, match="leaves its tile of 8 x 5"):
        check_packing(tables, tile)


@pytest.mark.parametrize(
    ("sharing", "second", "broken"),
    [
        ("exclusive", (4, 4), True),
        ("diagonal", (4, 4), False),
        ("diagonal", (4, 0), True),
        ("diagonal", (0, 4), True),
        ("diagonal", (2, 2), True),
        ("stacked", (4, 0), False),
        ("stacked", (0, 4), False),
        ("stacked", (2, 2), True),
        ("stacked", (0, 0), True),
    ],
)
def test_the_check_knows_each_sharing(sharing, second, broken):
    tile = builders.chip(8, 8, sharing=sharing).tile
    tables = partition([matrix(4, 4), matrix(4, 4)], tile)
    tables[1]["x"], tables[1]["y"] = second
    if not broken:
        check_packing(tables, tile)
        return
    with pytest.raises(ValueError, match=f"breaks the sharing '{sharing}'"):
        check_packing(tables, tile)
