"""Matrices are cut so that every weight lies in one block and no block is larger than a tile."""

import csv
import math

import builders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real
from pcmc.compiler.graph import Matrix
from pcmc.compiler.partition import check_partition, partition


def matrix(rows, cols, *, bias=False, groups=1, name="m"):
    """A matrix of zeros that takes no memory: `rows` x `cols` in each group."""
    shape = (groups, rows, cols) if groups > 1 else (rows, cols)
    zeros = np.broadcast_to(np.zeros((), np.float32), shape)
    return Matrix(
        name, zeros, np.zeros(cols * groups, np.float32) if bias else None, name, (name,), "as it is", groups
    )


matrices = st.builds(
    matrix,
    st.integers(1, 60),
    st.integers(1, 40),
    bias=st.booleans(),
    groups=st.sampled_from((1, 1, 2, 3, 7)),
)
tiles = st.builds(
    lambda rows, cols, bias_row: builders.chip(rows, cols, bias_row=bias_row).tile,
    st.integers(2, 30),
    st.integers(1, 30),
    st.booleans(),
)


def covered(table, one):
    """How often each weight, and each bias, lies in a block."""
    weights, bias = np.zeros((one.rows, one.cols), int), np.zeros(one.cols, int)
    for block in table:
        cols = slice(block["col0"], block["col0"] + block["cols"])
        weights[block["row0"] : block["row0"] + block["rows"] - block["bias"], cols] += 1
        bias[cols] += block["bias"]
    return weights, bias


@given(matrices, tiles)
@settings(max_examples=60, deadline=None)
def test_every_weight_and_bias_lies_in_exactly_one_block(one, tile):
    (table,) = partition([one], tile)
    check_partition(table, one, tile)
    weights, bias = covered(table, one)
    inside = np.kron(
        np.eye(one.groups, dtype=int), np.ones((one.rows // one.groups, one.cols // one.groups), int)
    )
    np.testing.assert_array_equal(weights, inside)
    np.testing.assert_array_equal(bias, np.full(one.cols, int(one.bias is not None and tile.bias_row)))


@given(matrices, tiles)
@settings(max_examples=60, deadline=None)
def test_no_block_is_larger_than_a_tile_and_none_is_empty(one, tile):
    (table,) = partition([one], tile)
    assert np.all((table["rows"] >= 1) & (table["rows"] <= tile.rows))
    assert np.all((table["cols"] >= 1) & (table["cols"] <= tile.cols))
    assert np.all(table["rows"] >= table["bias"])


@given(matrices, tiles)
@settings(max_examples=60, deadline=None)
def test_there_are_no_more_blocks_than_needed(one, tile):
    (table,) = partition([one], tile)
    height = one.rows // one.groups + int(one.bias is not None and tile.bias_row)
    across = math.ceil(one.cols // one.groups / tile.cols)
    assert len(table) == one.groups * math.ceil(height / tile.rows) * across


@given(matrices, tiles)
@settings(max_examples=30, deadline=None)
def test_cells_follow_each_other_without_gaps(one, tile):
    (table,) = partition([one], tile)
    ends = np.cumsum(table["rows"] * table["cols"])
    np.testing.assert_array_equal(table["offset"], [0, *ends[:-1]])


@pytest.mark.parametrize(
    ("rows", "bias", "bias_row", "blocks"),
    [
        (512, True, True, 1),
        (513, True, True, 2),
        (513, False, True, 1),
        (513, True, False, 1),
        (1026, False, False, 2),
        (2048, True, True, 4),
    ],
)
def test_the_bias_is_one_more_row_where_the_tile_has_a_bias_row(rows, bias, bias_row, blocks):
    (table,) = partition([matrix(rows, 100, bias=bias)], builders.chip(bias_row=bias_row).tile)
    assert len(table) == blocks
    assert table["bias"].tolist() == [0] * (blocks - 1) + [int(bias and bias_row)]


@pytest.mark.parametrize(
    ("field", "change"),
    [("rows", 1), ("cols", 1), ("row0", 1), ("col0", 1), ("row0", -1), ("cols", -1), ("bias", 1)],
)
def test_the_check_finds_a_block_that_is_out_of_place(field, change):
    one, tile = matrix(20, 12, bias=True), builders.chip(8, 5).tile
    (table,) = partition([one], tile)
    for index in range(len(table)):
        broken = table.copy()
        broken[field][index] += change
        with pytest.raises(ValueError, match="'m'"):
            check_partition(broken, one, tile)


def test_the_check_finds_a_block_that_is_missing_or_there_twice():
    one, tile = matrix(20, 12), builders.chip(8, 5).tile
    (table,) = partition([one], tile)
    for broken in (table[1:], np.concatenate([table, table[:1]])):
        with pytest.raises(ValueError, match="'m'"):
            check_partition(broken, one, tile)


# --- counts that follow from the files of others


def network(name):
    """Rows and columns of each layer with weights of a network that lies beside the real models."""
    path = real.models_folder().parent / "networks" / f"{name}.csv"
    if not path.is_file():
        real.missing(f"the folder beside the real models has no {name}.csv")
    found = []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["operation"] not in ("conv", "fc"):
            continue
        kernel = int(row["kernel_h"] or 1) * int(row["kernel_w"] or 1)
        found.append((int(row["input_channel"]) * kernel, int(row["output_channel"])))
    return found


@pytest.mark.parametrize(
    ("name", "small", "large", "with_bias"),
    [
        ("squeezenet", 108, 44, 57),
        ("googlenet", 566, 212, 213),
        ("resnet18", 727, 201, 298),
        ("resnet34", 1349, 371, 554),
        ("alexnet", 3814, 968, 1231),
        ("vgg16", 8454, 2121, 2769),
    ],
)
def test_blocks_of_known_networks_are_those_that_others_count(name, small, large, with_bias):
    """Crossbars of PIMCOMP-NN's networks (commit 2ed10c88), grouped convolutions counted as dense ones."""
    layers = network(name)
    for rows, cols, bias, wanted in (
        (128, 128, False, small),
        (256, 256, False, large),
        (513, 100, True, with_bias),
    ):
        tile = builders.chip(rows, cols, bias_row=bias).tile
        tables = partition([matrix(*layer, bias=bias) for layer in layers], tile)
        assert sum(len(table) for table in tables) == wanted


@pytest.mark.parametrize("name", ["inception_v3", "resnet50", "mobilenetv2", "shufflenet"])
def test_blocks_of_further_networks(name):
    wanted = {"inception_v3": 1762, "resnet50": 1576, "mobilenetv2": 3006, "shufflenet": 1522}[name]
    tables = partition(
        [matrix(*layer) for layer in network(name)], builders.chip(128, 128, bias_row=False).tile
    )
    assert sum(len(table) for table in tables) == wanted
