"""The report: its parts add up, its pairs come from the same figures, and JSON holds it."""

import json
from dataclasses import replace

import builders
import pytest
from builders import node, weights
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmc
from pcmc.runtime.counts import count
from pcmc.runtime.report import report, step_events
from pcmc.runtime.timing import traffic

#: The keys that design and README promise.
PROMISED = (
    "chips",
    "tiles",
    "cells",
    "utilization",
    "matrices",
    "layers",
    "digital",
    "traffic_bytes",
    "latency_s",
    "interval_s",
    "energy_j",
    "area_mm2",
)
COMPONENTS = {"cells", "dac", "adc", "digital", "buffer", "link", "chip_link"}


def net():
    """A convolution with BatchNormalization, a depthwise one, a residual, and a dense layer."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c1", "s", "b1", "b1", "s"], ["n1"], name="bn"),
        node("Relu", ["n1"], ["r1"], name="relu"),
        node("Conv", ["r1", "w2"], ["c2"], name="depthwise", pads=[1, 1, 1, 1], group=4),
        node("Add", ["c2", "r1"], ["a"], name="add"),
        node("GlobalAveragePool", ["a"], ["g"], name="pool"),
        node("Flatten", ["g"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="dense"),
    ]
    arrays = {
        "w1": weights(4, 3, 3, 3),
        "b1": weights(4),
        "s": weights(4) ** 2 + 1,
        "w2": weights(4, 1, 3, 3),
        "w3": weights(4, 10),
        "b3": weights(10),
    }
    return builders.model(nodes, {"x": ["N", 3, "H", "W"]}, {"y": ["N", 10]}, arrays)


def program_of(spec=None, size=8):
    return pcmc.compile(net(), spec or builders.chip(), shapes={"x": (1, 3, size, size)}, check=True)


SPECS = st.builds(
    builders.chip,
    st.integers(5, 40),
    st.integers(2, 20),
    bias_row=st.booleans(),
    sharing=st.sampled_from(builders.SHARINGS),
    mesh=st.tuples(st.integers(1, 2), st.integers(1, 3)),
)


def test_the_promised_keys_are_there_and_json_holds_them_exactly():
    found = program_of().report()
    assert set(PROMISED) <= set(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@given(SPECS)
@settings(max_examples=10, deadline=None)
def test_energy_by_layer_and_by_component_add_up_to_the_same(spec):
    found = program_of(spec).report()
    energy = found["energy_j"]
    assert set(energy) == COMPONENTS | {"total"}
    for part in energy:
        assert energy[part] == pytest.approx(
            sum(layer["energy_j"][part] for layer in found["layers"]), rel=1e-12
        )
    assert energy["total"] == pytest.approx(sum(energy[part] for part in COMPONENTS), rel=1e-12)
    assert all(value >= 0 for value in energy.values())
    assert energy["total"] > 0


@given(SPECS)
@settings(max_examples=10, deadline=None)
def test_used_and_available_come_from_the_same_figures(spec):
    program = program_of(spec)
    found = program.report()
    cells = sum(int((bank.table["rows"] * bank.table["cols"]).sum()) for bank in program.banks.values())
    per_tile = spec.tile.rows * spec.tile.cols
    assert found["cells"] == cells
    assert found["utilization"] == {
        "cells": [cells, found["tiles"] * per_tile],
        "chip_cells": [cells, found["chips"] * spec.chip.tiles * per_tile],
        "tiles": [found["tiles"], found["chips"] * spec.chip.tiles],
        "chips": [found["chips"], found["chips"]],
    }
    assert all(used <= available for used, available in found["utilization"].values())
    assert found["weights"] == 4 * 27 + 4 * 9 + 4 * 10
    assert sum(one["weights"] for one in found["matrices"]) == found["weights"]
    assert sum(one["blocks"] for one in found["matrices"]) == found["blocks"]


@given(SPECS)
@settings(max_examples=10, deadline=None)
def test_times_are_consistent(spec):
    found = program_of(spec).report()
    assert found["latency_s"] == pytest.approx(found["cycles"]["latency"] * spec.tile.read_time_s)
    assert found["interval_s"] == pytest.approx(found["cycles"]["interval"] * spec.tile.read_time_s)
    assert found["cycles"]["latency"] == max(layer["end_cycle"] for layer in found["layers"])
    for layer in found["layers"]:
        taken = layer["end_cycle"] - layer["start_cycle"]
        assert taken >= layer["vectors"] * layer["phases"]
        assert found["cycles"]["interval"] >= taken


@given(SPECS)
@settings(max_examples=10, deadline=None)
def test_traffic_is_the_sum_of_its_kinds(spec):
    found = program_of(spec).report()
    moved = found["traffic_bytes"]
    assert moved["total"] == moved["activations"] + moved["partial_sums"]
    assert moved["chip_to_chip"] <= moved["byte_hops"]
    assert moved["fullest_link"] <= moved["total"]
    assert (moved["chip_to_chip"] > 0) == (found["energy_j"]["chip_link"] > 0)


def test_area_is_that_of_the_chips():
    one = program_of().report()["area_mm2"]
    assert one["total"] == pytest.approx(sum(value for key, value in one.items() if key != "total"))
    several = program_of(builders.chip(40, 20, mesh=(1, 1), sharing="exclusive")).report()
    assert several["chips"] > 1
    assert several["area_mm2"]["digital"] == pytest.approx(several["chips"] * one["digital"])


def test_other_shapes_scale_what_depends_on_them():
    """Twice the height and width: four times the windows of the convolutions, the same dense layer."""
    program = program_of()
    small, large = program.report(), report(pcmc.compile(net(), shapes={"x": (1, 3, 16, 16)}))
    vectors = [{layer["name"]: layer["vectors"] for layer in found["layers"]} for found in (small, large)]
    assert vectors[1]["conv"] == 4 * vectors[0]["conv"] == 4 * 64
    assert vectors[1]["dense"] == vectors[0]["dense"] == 1
    assert large["cells"] == small["cells"]
    assert large["energy_j"]["cells"] > 3 * small["energy_j"]["cells"]


def open_net():
    """The length of the sequence is open in the program: averaged before the matrix."""
    nodes = [
        node("Abs", ["x"], ["a"], name="abs"),
        node("ReduceMean", ["a"], ["m"], axes=[1], keepdims=0),
        node("MatMul", ["m", "w"], ["y"], name="product"),
    ]
    return builders.model(nodes, {"x": ["N", "length", 6]}, {"y": ["N", 5]}, {"w": weights(6, 5)})


def test_shapes_may_be_given_to_the_report():
    program = pcmc.compile(open_net())
    short, long = program.report(shapes={"x": (1, 10, 6)}), program.report({"x": (1, 1000, 6)})
    assert (short["shapes"], long["shapes"]) == ({"x": [1, 10, 6]}, {"x": [1, 1000, 6]})
    ops = [
        next(layer["digital_ops"] for layer in found["layers"] if "abs" in layer["operations"])
        for found in (short, long)
    ]
    assert ops == [2 * 10 * 6, 2 * 1000 * 6], "an absolute value and an addition for each element"
    assert long["energy_j"]["digital"] == pytest.approx(100 * short["energy_j"]["digital"])


def test_events_of_a_read_by_hand():
    """20 inputs and a bias x 6 outputs on tiles of 8 x 4: blocks of 8, 8, 5 rows by 4 and 2 columns."""
    program = pcmc.compile(builders.mlp([20, 6]), builders.chip(8, 4, sharing="exclusive", mesh=(1, 1)))
    counts = count(program)
    events = step_events(program, 0, counts, traffic(program, counts))
    assert events.cell_reads == 21 * 6
    assert events.dac_conversions == 2 * 21, "each of two column strips drives all rows, the bias row too"
    assert events.adc_conversions == 3 * 6
    assert events.digital_ops == 2 * 6
    assert events.buffer_bytes == 20 + 6


def test_energy_is_events_times_the_constants_of_the_chip():
    spec = builders.chip()
    dearer = replace(spec, costs=replace(spec.costs, adc_conversion_j=2 * spec.costs.adc_conversion_j))
    before, after = program_of(spec).report()["energy_j"], program_of(dearer).report()["energy_j"]
    assert after["adc"] == pytest.approx(2 * before["adc"])
    assert {part: after[part] for part in COMPONENTS - {"adc"}} == {
        part: before[part] for part in COMPONENTS - {"adc"}
    }


def test_a_matrix_says_where_it_comes_from_and_what_was_folded():
    found = {one["name"]: one for one in program_of().report()["matrices"]}
    assert found["conv"]["foldings"] == ["bn (BatchNormalization)"]
    assert (found["conv"]["rows"], found["conv"]["cols"], found["conv"]["initializer"]) == (27, 4, "w1")
    assert (found["depthwise"]["groups"], found["depthwise"]["weights"], found["depthwise"]["bias"]) == (
        4,
        36,
        "none",
    )
    assert found["dense"]["bias"] == "row"
    digital = program_of(builders.chip(bias_row=False)).report()["matrices"]
    assert {one["bias"] for one in digital} == {"digital", "none"}


def test_every_operation_of_the_model_is_in_one_layer():
    found = program_of().report()
    operations = [name for layer in found["layers"] for name in layer["operations"]]
    assert sorted(operations) == sorted(one.name for one in net().graph.node)
    assert set(found["digital"]) == {"relu", "add", "pool", "flatten"}


def test_a_board_says_how_many_chips_it_has():
    assert program_of(builders.chip(max_chips=7)).report()["utilization"]["chips"] == [1, 7]
