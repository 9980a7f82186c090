"""TileGraph: banks and digital units, and what flows between them.

An `nx.DiGraph`. Node `bank:NAME` (attributes `bank`, `table`) is all blocks of one copy of a matrix, node
`unit:CHIP` (attribute `chip`) the digital unit of a chip. An edge has a `kind` (ACTIVATION or PARTIAL_SUM)
and `streams`, a tuple of `Stream`: which tensor of which step goes to, or comes from, which tiles. Bytes
depend on shapes: `edge_bytes` puts them on the edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from pcmc.runtime.program import ACTIVATION, ELEMENTS, PARTIAL_SUM, POSITIONS, VECTORS, Program, Step
from pcmc.runtime.timing import Traffic

Table = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Stream:
    """One tensor on one edge: values per unit of count (`per`: vectors or positions of the step, or elements
    of `tensor`).

    `tiles` is `[n, 2]` (chip, tile) of the bank's tiles that take part and `scale` `[n]` their values per
    unit; both are of length 1 for a stream between digital units, where `tiles` says nothing.
    """

    step: int
    tensor: str
    per: int
    tiles: npt.NDArray[np.int64]
    scale: npt.NDArray[np.float64]


def build_tilegraph(steps: Sequence[Step], tables: Mapping[str, Table], outputs: Sequence[str]) -> nx.DiGraph:
    """Connect banks and digital units by what the steps send.

    A tensor is sent from the unit that made it to each tile that holds rows for it (a map of a convolution
    once, not once for each window), partial sums from each tile to the unit that adds them, and a tensor that
    a digital region takes from another chip from unit to unit. Inputs enter and outputs leave the board at
    the unit of chip 0.

    Args:
        steps: the schedule.
        tables: placed blocks by bank.
        outputs: names of the graph's outputs.
    """
    graph = nx.DiGraph()
    for name, table in tables.items():
        graph.add_node(f"bank:{name}", bank=name, table=table)
    unit_of = {tensor: step.unit for step in steps for tensor in step.outputs}
    for index, step in enumerate(steps):
        home = _unit(graph, step.unit)
        if step.bank is not None:
            source = _unit(graph, unit_of.get(step.inputs[0], 0))
            taken, summed = _bank_streams(index, step, tables[step.bank])
            _send(graph, source, f"bank:{step.bank}", ACTIVATION, taken)
            _send(graph, f"bank:{step.bank}", home, PARTIAL_SUM, summed)
            continue
        for tensor in step.inputs:
            _send(
                graph, _unit(graph, unit_of.get(tensor, 0)), home, ACTIVATION, _between_units(index, tensor)
            )
    for tensor in outputs:
        _send(
            graph,
            _unit(graph, unit_of.get(tensor, 0)),
            _unit(graph, 0),
            ACTIVATION,
            _between_units(len(steps) - 1, tensor),
        )
    return graph


def _unit(graph: nx.DiGraph, chip: int) -> str:
    name = f"unit:{chip}"
    graph.add_node(name, chip=chip)
    return name


def _send(graph: nx.DiGraph, source: str, target: str, kind: int, stream: Stream) -> None:
    if source == target or not stream.scale.size:
        return
    streams = graph.edges[source, target]["streams"] if graph.has_edge(source, target) else ()
    graph.add_edge(source, target, kind=kind, streams=(*streams, stream))


def _between_units(step: int, tensor: str) -> Stream:
    return Stream(step, tensor, ELEMENTS, np.zeros((1, 2), np.int64), np.ones(1))


def _bank_streams(index: int, step: Step, table: Table) -> tuple[Stream, Stream]:
    """What a bank takes in and gives back, tile by tile."""
    window = step.read.window if step.read is not None else None
    elements = 1 if window is None else window.kernel[0] * window.kernel[1]
    tiles = np.unique(np.stack([table["chip"], table["tile"]], axis=1), axis=0)
    inputs, sums = np.zeros(len(tiles)), np.zeros(len(tiles))
    for number, (chip, tile) in enumerate(tiles):
        blocks = table[(table["chip"] == chip) & (table["tile"] == tile)]
        inputs[number] = _channels(blocks, elements)
        sums[number] = blocks["cols"].sum()
    takes = inputs > 0  # a tile may hold nothing but a bias row
    per = VECTORS if window is None else POSITIONS
    return (
        Stream(index, step.inputs[0], per, tiles[takes], inputs[takes]),
        Stream(index, step.outputs[0], VECTORS, tiles, sums),
    )


def _channels(blocks: Table, elements: int) -> int:
    """Different inputs (of a convolution: channels) that the blocks of one tile take."""
    first = blocks["row0"] // elements
    last = -(-(blocks["row0"] + blocks["rows"] - blocks["bias"]) // elements)
    covered, reach = 0, -1
    for start, stop in sorted(set(zip(first.tolist(), last.tolist(), strict=True))):
        covered += max(0, stop - max(start, reach))
        reach = max(reach, stop)
    return covered


def tile_graph(program: Program) -> nx.DiGraph:
    """The TileGraph of a program, its edges with `bytes` per sample at the compiled shapes."""
    from pcmc.runtime.counts import count
    from pcmc.runtime.timing import traffic

    tables = {name: bank.table for name, bank in program.banks.items()}
    graph = build_tilegraph(program.steps, tables, [info.name for info in program.outputs])
    return with_bytes(graph, program, traffic(program, count(program)))


def with_bytes(graph: nx.DiGraph, program: Program, flowing: Traffic) -> nx.DiGraph:
    """A copy of a program's TileGraph whose edges say their `bytes` per sample."""
    copy = graph.copy()
    # routing lists the flows in the order of the graph's edges
    row = 0
    for _, _, edge in copy.edges(data=True):
        flows = sum(stream.scale.size for stream in edge["streams"])
        edge["bytes"] = float(flowing.bytes[row : row + flows].sum())
        row += flows
    return copy


def tiles(program: Program) -> Iterator[dict[str, Any]]:
    """Every used tile with its blocks, one after the other: chip, tile, and (bank, block number) pairs."""
    held: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for name, bank in program.banks.items():
        for number, (chip, tile) in enumerate(
            zip(bank.table["chip"].tolist(), bank.table["tile"].tolist(), strict=True)
        ):
            held.setdefault((chip, tile), []).append((name, number))
    for (chip, tile), blocks in sorted(held.items()):
        yield {"chip": chip, "tile": tile, "blocks": blocks}
