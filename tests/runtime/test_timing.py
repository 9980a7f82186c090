"""Cycles: a step waits for what it needs and for its tiles, the pipeline for its busiest part."""

import math
from dataclasses import replace

import builders
import pytest
from builders import node, weights
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmc
from pcmc.runtime.counts import count
from pcmc.runtime.timing import timing, traffic


def timed(program, shapes=None):
    counts = count(program, shapes)
    return timing(program, counts, traffic(program, counts))


def fast(spec):
    """The chip with a digital unit and links that take no time."""
    return replace(
        spec,
        digital=replace(spec.digital, ops_per_cycle=1e12),
        link=replace(spec.link, bytes_per_cycle=1e12, chip_bytes_per_cycle=1e12),
    )


def conv_net():
    """Two padded convolutions of 6 x 5 positions, a Relu between."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], name="one", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Conv", ["r", "v", "b"], ["y"], name="two", pads=[1, 1, 1, 1]),
    ]
    arrays = {"w": weights(4, 3, 3, 3), "v": weights(4, 4, 3, 3), "b": weights(4)}
    return builders.model(nodes, {"x": ["N", 3, 6, 5]}, {"y": ["N", 4, 6, 5]}, arrays)


def test_a_read_takes_a_cycle_for_each_vector_and_phase():
    program = pcmc.compile(conv_net(), fast(builders.chip(sharing="exclusive")))
    found = timed(program)
    assert [(a, b) for a, b in zip(found.start, found.end, strict=True)] == [(0, 30), (30, 31), (31, 61)]
    assert (found.latency_cycles, found.interval_cycles) == (61, 30)
    assert found.bottleneck.startswith("tile")


def test_phases_multiply_the_cycles():
    """27 + 1 rows on tiles of 14 x 8: two blocks of 14 x 4, side by side in one tile: two turns."""
    program = pcmc.compile(builders.conv((4, 3, 3, 3), (8, 7)), fast(builders.chip(14, 8)))
    (bank,) = program.banks.values()
    assert (len(bank.table), program.tiles, bank.phases) == (2, 1, 2)
    assert timed(program).latency_cycles == 6 * 5 * 2


def test_tiles_that_are_shared_make_the_pipeline_wait():
    """Two banks in one tile: the interval is the sum of their reads."""
    alone = timed(pcmc.compile(conv_net(), fast(builders.chip(sharing="exclusive"))))
    shared = timed(pcmc.compile(conv_net(), fast(builders.chip(sharing="stacked"))))
    assert (alone.interval_cycles, shared.interval_cycles) == (30, 60)
    assert alone.latency_cycles == shared.latency_cycles


def branches():
    """Two independent reads of 30 vectors each, added."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="left"),
        node("Conv", ["x", "v"], ["b"], name="right"),
        node("Add", ["a", "b"], ["y"]),
    ]
    arrays = {"w": weights(4, 3, 1, 1), "v": weights(4, 3, 1, 1, seed=1)}
    return builders.model(nodes, {"x": ["N", 3, 6, 5]}, {"y": ["N", 4, 6, 5]}, arrays)


def test_independent_reads_go_at_the_same_time_on_tiles_of_their_own():
    found = timed(pcmc.compile(branches(), fast(builders.chip(sharing="exclusive"))))
    assert found.start == (0, 0, 30)
    assert found.latency_cycles == 31


def test_independent_reads_of_one_tile_go_one_after_the_other():
    found = timed(pcmc.compile(branches(), fast(builders.chip(sharing="stacked"))))
    assert found.start == (0, 30, 60)


def test_weights_that_are_read_twice_make_their_tile_busy_twice():
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="one"),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w"], ["y"], name="two"),
    ]
    proto = builders.model(nodes, {"x": ["N", 3, 6, 5]}, {"y": ["N", 3, 6, 5]}, {"w": weights(3, 3, 1, 1)})
    found = timed(pcmc.compile(proto, fast(builders.chip(sharing="exclusive"))))
    assert (found.latency_cycles, found.interval_cycles) == (61, 60)


def test_a_digital_step_takes_its_operations_over_the_rate():
    """1,000 Sigmoids of four operations each at 1,280 a cycle."""
    nodes = [node("MatMul", ["x", "w"], ["h"], name="product"), node("Sigmoid", ["h"], ["y"], name="sigmoid")]
    proto = builders.model(nodes, {"x": ["N", 10]}, {"y": ["N", 1000]}, {"w": weights(10, 1000)})
    spec = builders.chip(16, 1000)
    spec = replace(spec, link=replace(spec.link, bytes_per_cycle=1e12))
    found = timed(pcmc.compile(proto, spec))
    assert found.end[1] - found.start[1] == math.ceil(4000 / 1280)


def test_a_read_waits_for_the_bytes_through_its_port():
    """1,000 sums of two bytes at 160 bytes a cycle take longer than the read of one vector."""
    program = pcmc.compile(builders.mlp([10, 1000], bias=False), builders.chip(16, 1000))
    assert timed(program).latency_cycles == math.ceil(2000 / 160)


def test_the_bottleneck_can_be_a_link():
    spec = fast(builders.chip(sharing="exclusive"))
    slow = replace(spec, link=replace(spec.link, chip_bytes_per_cycle=0.5))
    program = pcmc.compile(
        builders.mlp([600, 300, 200]), replace(slow, chip=replace(slow.chip, mesh_x=1, mesh_y=1))
    )
    found = timed(program)
    assert "chip link" in found.bottleneck
    assert found.interval_cycles > max(b - a for a, b in zip(found.start, found.end, strict=True))


@given(st.integers(1, 3), st.sampled_from(builders.SHARINGS), st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_every_step_starts_after_all_that_it_needs_and_no_tile_does_two_things_at_once(layers, sharing, mesh):
    program = pcmc.compile(
        builders.mlp([40, 30, 20, 10][: layers + 1]),
        builders.chip(16, 12, sharing=sharing, mesh=(mesh, 2)),
        check=True,
    )
    found = timed(program)
    busy = {}
    for index, step in enumerate(program.steps):
        assert found.end[index] > found.start[index]
        assert all(found.start[index] >= found.end[need] for need in step.needs)
        table = program.banks[step.bank].table if step.bank else None
        places = {("unit", step.unit)} if table is None else {(int(b["chip"]), int(b["tile"])) for b in table}
        for place in places:
            for start, end in busy.get(place, []):
                assert found.start[index] >= end or found.end[index] <= start
            busy.setdefault(place, []).append((found.start[index], found.end[index]))
    most = max(sum(end - start for start, end in spans) for spans in busy.values())
    assert found.interval_cycles >= most
    assert found.latency_cycles == max(found.end)
    assert found.latency_cycles >= most, "steps of one resource follow each other"


# --- chips whose drivers have no sign, and whose neurons work by the tick ---


def two_layers(between="Relu"):
    """A product, an operation on its 300 values, a product."""
    chain = [
        node("MatMul", ["x", "w"], ["a"], name="one"),
        node(between, ["a"], ["b"], name="between"),
        node("MatMul", ["b", "v"], ["y"], name="two"),
    ]
    arrays = {"w": weights(100, 300), "v": weights(300, 10)}
    return builders.model(chain, {"x": ["N", 100]}, {"y": ["N", 10]}, arrays)


def test_a_window_on_truenorth_is_the_ticks_of_its_largest_count_and_neurons_add_none():
    """First principles: a spike a tick, so n levels take n ticks; positive and negative inputs a window each;
    ReLU and threshold belong to the tick that a spike comes in.
    """
    chip = pcmc.load_chip("truenorth")
    tick, levels = 1e-3, chip.dac.levels
    report = pcmc.compile(two_layers(), chip).report()
    windows = 2 + 1  # the input may be negative, what a ReLU leaves can't
    assert report["latency_s"] == pytest.approx(windows * levels * tick)
    assert report["interval_s"] == pytest.approx(2 * levels * tick)  # the first layer's tiles are busiest
    spans = {layer["kind"]: (layer["start_cycle"], layer["end_cycle"]) for layer in report["layers"]}
    assert spans["digital"] == (2, 2)


def test_negative_values_take_a_second_window_wherever_the_model_does_not_rule_them_out():
    chip = pcmc.load_chip("truenorth")
    windows = {name: timed(pcmc.compile(two_layers(name), chip)).latency_cycles for name in SIGNS}
    assert windows == {name: 2 + (1 if positive else 2) for name, positive in SIGNS.items()}


SIGNS = {"Relu": True, "Sigmoid": True, "Abs": True, "Tanh": False, "Neg": False, "Identity": False}


def test_drivers_with_a_sign_send_each_vector_once_and_their_digital_steps_take_a_cycle():
    signed = timed(pcmc.compile(two_layers(), fast(builders.chip(128, 128, sharing="exclusive"))))
    assert signed.latency_cycles == 3
    spec = fast(builders.chip(128, 128, sharing="exclusive"))
    spec = replace(spec, dac=replace(spec.dac, signed=False))
    assert timed(pcmc.compile(two_layers(), spec)).latency_cycles == 2 + 1 + 1


def test_more_than_neurons_can_do_in_a_window_takes_windows_of_its_own():
    """300 values at 100 operations a window: three windows, of which the first is that of the read."""
    chip = pcmc.load_chip("truenorth")
    slow = replace(chip, digital=replace(chip.digital, ops_per_cycle=100.0))
    program = pcmc.compile(two_layers(), slow)
    found = timed(program)
    (digital,) = [index for index, step in enumerate(program.steps) if step.bank is None]
    assert found.end[digital] - found.start[digital] == 2
