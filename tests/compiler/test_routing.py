"""Streams: what a tile needs comes in, what it makes goes out, nothing else moves."""

import builders
import numpy as np
import pytest
from builders import node, weights
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmc
from pcmc.accel.mesh import positions
from pcmc.compiler.tilegraph import _channels
from pcmc.runtime.counts import count
from pcmc.runtime.program import ACTIVATION, BLOCK, PARTIAL_SUM, POSITIONS, VECTORS
from pcmc.runtime.timing import traffic


def bytes_of(program):
    return traffic(program, count(program)).bytes


def tiles_of(program, name):
    table = program.banks[name].table
    return np.unique(np.stack([table["chip"], table["tile"]], axis=1), axis=0)


def test_a_vector_goes_to_every_tile_that_needs_it_and_sums_come_back():
    """1,100 inputs x 150 outputs, no bias: blocks of 513, 513, 74 rows by 100, 50 columns."""
    program = builders.compiled_like_onnxruntime(
        builders.mlp([1100, 150], bias=False), builders.chip(sharing="exclusive")
    )
    sizes, kind = bytes_of(program), program.flows["kind"]
    assert sizes[kind == ACTIVATION].sum() == 2 * 1100, (
        "each of two column strips takes all rows, a byte each"
    )
    assert sizes[kind == PARTIAL_SUM].sum() == 3 * 150 * 2, (
        "three partial sums a column, two bytes each (9-bit ADC)"
    )


def test_a_tile_gets_an_input_once_even_if_two_of_its_blocks_use_it():
    program = builders.compiled_like_onnxruntime(builders.mlp([10, 30], bias=False), builders.chip(20, 10))
    assert len(program.banks["dense0"].table) == 3
    assert program.tiles == 2
    kind = program.flows["kind"]
    assert sorted(bytes_of(program)[kind == ACTIVATION].tolist()) == [10, 10]


def test_a_map_goes_to_a_convolution_once_not_once_for_each_window():
    program = builders.compiled_like_onnxruntime(builders.conv((4, 3, 3, 3), (8, 7), pads=[1, 1, 1, 1]))
    sizes, flows = bytes_of(program), program.flows
    assert sizes[flows["kind"] == ACTIVATION].tolist() == [3 * 8 * 7]
    assert sizes[flows["kind"] == PARTIAL_SUM].tolist() == [4 * 8 * 7 * 2]
    assert sorted(flows[["kind", "per"]].tolist()) == [(ACTIVATION, POSITIONS), (PARTIAL_SUM, VECTORS)]


def test_groups_get_their_own_channels_only():
    program = builders.compiled_like_onnxruntime(
        builders.conv((6, 1, 3, 3), (5, 5), group=6), builders.chip(20, 20, sharing="exclusive")
    )
    sizes, kind = bytes_of(program), program.flows["kind"]
    assert program.tiles == 6
    assert sizes[kind == ACTIVATION].tolist() == [25] * 6


def test_a_block_of_the_bias_alone_takes_no_input():
    program = builders.compiled_like_onnxruntime(builders.mlp([513, 10]), builders.chip(sharing="exclusive"))
    kind = program.flows["kind"]
    assert program.tiles == 2
    assert bytes_of(program)[kind == ACTIVATION].tolist() == [513]
    assert bytes_of(program)[kind == PARTIAL_SUM].tolist() == [20, 20]


def test_streams_start_and_end_where_the_tiles_and_units_are():
    program = builders.compiled_like_onnxruntime(builders.mlp([1100, 350, 40]), builders.chip(mesh=(2, 1)))
    assert program.chips > 2
    for index, step in enumerate(program.steps):
        if step.bank is None:
            continue
        places = tiles_of(program, step.bank)
        where = {
            tuple(xy)
            for xy in positions(places[:, 0], places[:, 1], program.chips, program.chip.chip).tolist()
        }
        home = tuple(positions(step.unit, 0, program.chips, program.chip.chip).tolist())
        mine = program.flows[program.flows["step"] == index]
        sums = mine[mine["kind"] == PARTIAL_SUM]
        assert {(int(f["x0"]), int(f["y0"])) for f in sums} == where
        assert {(int(f["x1"]), int(f["y1"])) for f in sums} == {home}
        assert {
            (int(f["x1"]), int(f["y1"])) for f in mine[(mine["kind"] == ACTIVATION) & (mine["per"] < 2)]
        } <= where


def test_what_a_digital_region_takes_from_another_chip_travels_between_the_units():
    """Two wide layers on chips of their own, added at the end: one of the two results has to move."""
    nodes = [
        node("MatMul", ["x", "w0"], ["a"], name="left"),
        node("MatMul", ["x", "w1"], ["b"], name="right"),
        node("Add", ["a", "b"], ["y"], name="add"),
    ]
    proto = builders.model(
        nodes, {"x": ["N", 8]}, {"y": ["N", 6]}, {"w0": weights(8, 6), "w1": weights(8, 6, seed=1)}
    )
    program = builders.compiled_like_onnxruntime(proto, builders.chip(8, 6, mesh=(1, 1)))
    assert program.chips == 2
    (moved,) = [flow for flow in program.flows if flow["per"] == 2]
    assert program.flow_tensors[moved["tensor"]] in ("a", "b")
    assert bytes_of(program)[program.flows["per"] == 2].tolist() == [6]


def test_an_output_made_on_another_chip_leaves_at_chip_zero():
    program = builders.compiled_like_onnxruntime(
        builders.mlp([8, 6, 5], bias=False), builders.chip(8, 6, mesh=(1, 1))
    )
    last = program.flows[program.flows["step"] == len(program.steps) - 1]
    ends = [
        (int(f["x1"]), int(f["y1"]))
        for f in last
        if f["per"] == 2 and program.flow_tensors[f["tensor"]] == "y"
    ]
    assert ends == [(0, 0)]


def test_nothing_moves_between_chips_on_one_chip():
    program = builders.compiled_like_onnxruntime(builders.mlp([20, 10, 5]))
    assert program.chips == 1
    assert not (program.flows["per"] == 2).any()
    assert not traffic(program, count(program)).chip_hops.any()


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=6), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_channels_of_a_tile_are_counted_once(rows, elements):
    table = np.zeros(len(rows), BLOCK)
    table["row0"], table["rows"] = zip(*rows, strict=True)
    wanted = {row // elements for first, count_ in rows for row in range(first, first + count_)}
    assert _channels(table, elements) == len(wanted)


@pytest.mark.parametrize("sharing", builders.SHARINGS)
def test_traffic_is_conserved(sharing):
    """Sum of all link loads = sum of bytes times hops, on a board of several chips."""
    program = pcmc.compile(
        builders.mlp([300, 90, 40, 10]), builders.chip(64, 32, sharing=sharing, mesh=(2, 3)), check=True
    )
    flowing = traffic(program, count(program))
    assert program.chips > 1
    total = sum(float(load.sum()) for load in flowing.links.values())
    assert total == pytest.approx(float((flowing.bytes * (flowing.hops + flowing.chip_hops)).sum()))
    assert program.report()["traffic_bytes"]["byte_hops"] == pytest.approx(total)
