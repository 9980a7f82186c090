"""Routing: every edge of the TileGraph becomes streams of bytes over the mesh, each with its XY route."""

from __future__ import annotations

import networkx as nx
import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import ChipSpec
from pcmc.accel.mesh import positions
from pcmc.compiler.tilegraph import Stream
from pcmc.runtime.program import ELEMENTS, FLOW, PARTIAL_SUM


def route(graph: nx.DiGraph, chip: ChipSpec, chips: int) -> tuple[npt.NDArray[np.void], tuple[str, ...]]:
    """End points of all streams, in the order of the graph's edges; between them they go XY (`accel.mesh`).

    Args:
        graph: the TileGraph.
        chip: its converters give the bytes of a value, its mesh the coordinates.
        chips: chips in use.

    Returns:
        a FLOW table, and the tensors that its `tensor` column numbers.
    """
    numbers: dict[str, int] = {}
    parts = [
        _flows(graph, source, target, edge["kind"], stream, numbers, chip, chips)
        for source, target, edge in graph.edges(data=True)
        for stream in edge["streams"]
    ]
    return np.concatenate([np.zeros(0, FLOW), *parts]), tuple(numbers)


def _flows(
    graph: nx.DiGraph,
    source: str,
    target: str,
    kind: int,
    stream: Stream,
    numbers: dict[str, int],
    chip: ChipSpec,
    chips: int,
) -> npt.NDArray[np.void]:
    flows = np.zeros(stream.scale.size, FLOW)
    tiles = positions(stream.tiles[:, 0], stream.tiles[:, 1], chips, chip.chip)
    for node, x, y in ((source, "x0", "y0"), (target, "x1", "y1")):
        unit = graph.nodes[node].get("chip")
        where = tiles if unit is None else positions(unit, 0, chips, chip.chip)
        flows[x], flows[y] = where[..., 0], where[..., 1]
    flows["kind"], flows["step"], flows["per"], flows["scale"] = kind, stream.step, stream.per, stream.scale
    if stream.per == ELEMENTS:
        flows["tensor"] = numbers.setdefault(stream.tensor, len(numbers))
        flows["width"] = chip.digital.bytes_per_value
    else:
        flows["width"] = -(-(chip.adc.bits if kind == PARTIAL_SUM else chip.dac.bits) // 8)
    return flows


def check_routing(graph: nx.DiGraph, flows: npt.NDArray[np.void]) -> None:
    """Raise ValueError unless every edge has its streams and every bank takes vectors and gives sums back."""
    wanted = sum(stream.scale.size for _, _, edge in graph.edges(data=True) for stream in edge["streams"])
    if wanted != len(flows):
        raise ValueError(f"the TileGraph has {wanted} streams, {len(flows)} are routed")
    for node, data in graph.nodes(data=True):
        if "bank" in data and (not graph.out_degree(node) or not graph.in_degree(node)):
            raise ValueError(f"'{node}' takes nothing in or gives nothing back")
