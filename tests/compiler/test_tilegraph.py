"""The TileGraph: banks and digital units as nodes, traffic as edges, blocks in tables."""

import builders
import networkx as nx
import numpy as np
import pytest

from pcmc.compiler.tilegraph import build_tilegraph, tile_graph, tiles
from pcmc.runtime.counts import count
from pcmc.runtime.program import ACTIVATION, PARTIAL_SUM
from pcmc.runtime.timing import traffic


def test_nodes_are_banks_with_their_tables_and_the_digital_units_of_chips():
    program = builders.compiled_like_onnxruntime(builders.mlp([1100, 350, 40]), builders.chip(mesh=(2, 1)))
    graph = tile_graph(program)
    assert isinstance(graph, nx.DiGraph)
    banks = {data["bank"] for _, data in graph.nodes(data=True) if "bank" in data}
    assert banks == set(program.banks)
    for name, bank in program.banks.items():
        np.testing.assert_array_equal(graph.nodes[f"bank:{name}"]["table"], bank.table)
    units = {data["chip"] for _, data in graph.nodes(data=True) if "chip" in data}
    assert units == {step.unit for step in program.steps} | {0}


def test_edges_carry_all_traffic_and_no_other():
    program = builders.compiled_like_onnxruntime(builders.mlp([1100, 350, 40]), builders.chip(mesh=(2, 1)))
    graph, flowing = tile_graph(program), traffic(program, count(program))
    assert program.chips > 1
    edges = [data for _, _, data in graph.edges(data=True)]
    assert sum(edge["bytes"] for edge in edges) == pytest.approx(flowing.bytes.sum())
    for kind in (ACTIVATION, PARTIAL_SUM):
        expected = flowing.bytes[program.flows["kind"] == kind].sum()
        assert sum(edge["bytes"] for edge in edges if edge["kind"] == kind) == pytest.approx(expected)
    for source, target, edge in graph.edges(data=True):
        assert edge["kind"] == (PARTIAL_SUM if source.startswith("bank:") else ACTIVATION)
        assert not (source.startswith("bank:") and target.startswith("bank:"))


def test_a_network_on_one_chip_has_no_edge_between_units():
    graph = tile_graph(builders.compiled_like_onnxruntime(builders.mlp([20, 10, 5])))
    assert sorted(graph) == ["bank:dense0", "bank:dense1", "unit:0"]
    assert set(graph.edges) == {
        ("unit:0", "bank:dense0"),
        ("bank:dense0", "unit:0"),
        ("unit:0", "bank:dense1"),
        ("bank:dense1", "unit:0"),
    }


def test_building_twice_gives_the_same_order_of_edges():
    program = builders.compiled_like_onnxruntime(builders.mlp([1100, 350, 40]), builders.chip(mesh=(2, 1)))
    tables = {name: bank.table for name, bank in program.banks.items()}
    outputs = [info.name for info in program.outputs]
    first, second = (build_tilegraph(program.steps, tables, outputs) for _ in range(2))
    assert list(first.edges) == list(second.edges)


def test_tiles_are_listed_on_demand_with_every_block_once():
    program = builders.compiled_like_onnxruntime(builders.mlp([600, 150, 40]), builders.chip())
    listed = list(tiles(program))
    assert len(listed) == program.tiles
    held = [block for tile in listed for block in tile["blocks"]]
    every = [(name, number) for name, bank in program.banks.items() for number in range(len(bank.table))]
    assert sorted(held) == sorted(every)
    for tile in listed:
        for name, number in tile["blocks"]:
            block = program.banks[name].table[number]
            assert (block["chip"], block["tile"]) == (tile["chip"], tile["tile"])
