"""Cycles: a step waits for what it needs and for its tiles, the pipeline for its busiest part."""

import math
from dataclasses import replace

import builders
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
