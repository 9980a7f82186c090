"""Schedule: the model as steps in an order that can run: banks that are read, and digital regions between
them.

A digital region is as large as it can be: all digital operations that stand after the same number of reads on
their longest way from an input. Cycles follow from shapes, so `pcmc.runtime.timing` gives them, for any
shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import numpy as np
import numpy.typing as npt

from pcmc.compiler.graph import Op, operations
from pcmc.runtime.program import Step

Table = npt.NDArray[np.void]


def schedule(
    graph: nx.MultiDiGraph, tables: Mapping[str, Table]
) -> tuple[tuple[Step, ...], dict[str, list[Op]]]:
    """Order the operations of a lowered OpGraph into steps.

    Args:
        graph: lowered OpGraph.
        tables: placed blocks by matrix name: the chip of a bank's first block is the one whose digital unit
            collects it.

    Returns:
        the steps, each after all that it needs, and the operations of each digital step by step name.
    """
    level = _levels(graph)
    prefix = _free_prefix("digital_", [op.name for op in operations(graph)])
    regions: dict[str, list[Op]] = {}
    members: list[tuple[int, str, list[Op]]] = []  # level, step name, operations
    for op in operations(graph):
        if op.matrix is not None:
            members.append((2 * level[op.name] + 1, op.name, [op]))
            continue
        name = f"{prefix}{level[op.name]}"
        if name not in regions:
            regions[name] = []
            members.append((2 * level[op.name], name, regions[name]))
        regions[name].append(op)
    members.sort(key=lambda member: member[0])
    return _steps(members, graph, tables), regions


def _free_prefix(prefix: str, names: list[str]) -> str:
    """The prefix, longer where a name of the model begins with it: no region may go by the name of a bank."""
    while any(name.startswith(prefix) for name in names):
        prefix = f"_{prefix}"
    return prefix


def _levels(graph: nx.MultiDiGraph) -> dict[str, int]:
    """Reads on the longest way to each operation: a read counts for what comes after it."""
    level: dict[str, int] = {}
    for op in operations(graph):
        before = [
            level[source] + (graph.nodes[source]["op"].matrix is not None)
            for source in graph.predecessors(op.name)
            if graph.nodes[source]["op"] is not None
        ]
        level[op.name] = max(before, default=0)
    return level


def _steps(
    members: list[tuple[int, str, list[Op]]], graph: nx.MultiDiGraph, tables: Mapping[str, Table]
) -> tuple[Step, ...]:
    maker = {
        tensor: index
        for index, (_, _, ops) in enumerate(members)
        for op in ops
        for tensor in op.outputs
        if tensor
    }
    constants, tensors = graph.graph["constants"], graph.graph["tensors"]
    wanted = {tensor for _, _, ops in members for op in ops for tensor in op.inputs} | set(
        graph.graph["outputs"]
    )
    steps: list[Step] = []
    for index, (_, name, ops) in enumerate(members):
        used = dict.fromkeys(
            tensor for op in ops for tensor in op.inputs if tensor and tensor not in constants
        )
        inputs = tuple(tensor for tensor in used if maker.get(tensor) != index)
        needs = tuple(dict.fromkeys(maker[tensor] for tensor in inputs if tensor in maker))
        first = ops[0]
        if first.matrix is not None:
            info = tensors.get(first.outputs[0])
            steps.append(
                Step(
                    name,
                    "read",
                    inputs,
                    first.outputs[:1],
                    (first.name, *first.absorbed),
                    needs,
                    int(tables[first.matrix.name]["chip"][0]),
                    first.matrix.name,
                    first.read,
                    info.dtype if info else 1,
                )
            )
            continue
        outputs = tuple(
            tensor
            for op in ops
            for tensor in op.outputs
            if tensor in wanted and (_leaves(graph, op, tensor, {inner.name for inner in ops}))
        )
        unit = steps[needs[0]].unit if needs else 0
        steps.append(Step(name, "digital", inputs, outputs, tuple(op.name for op in ops), needs, unit))
    return tuple(steps)


def _leaves(graph: nx.MultiDiGraph, op: Op, tensor: str, inside: set[str]) -> bool:
    """Whether a tensor is used outside of the region that makes it."""
    return any(
        target not in inside
        for _, target, edge in graph.out_edges(op.name, data=True)
        if edge["tensor"].name == tensor
    )


def check_schedule(steps: tuple[Step, ...]) -> None:
    """Raise ValueError unless every step comes after those that it needs."""
    for index, step in enumerate(steps):
        late = [need for need in step.needs if need >= index]
        if late:
            raise ValueError(f"step '{step.name}' needs '{steps[late[0]].name}', which comes after it")
