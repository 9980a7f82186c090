"""Layers that stay digital because the user asked: found by the names that `pcmc where` knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import networkx as nx

from pcmc.compiler.graph import Op
from pcmc.compiler.lowering.unmapped import unmapped_weights
from pcmc.errors import ModelError

#: A message lists at most so many names.
MOST_NAMES = 20


def keep_digital(
    folded: Sequence[Op],
    original: Sequence[Op],
    refused: Collection[str],
    graph: nx.MultiDiGraph,
    computed_from: Mapping[str, tuple[str, ...]],
    origin: str,
    names: Sequence[str],
) -> tuple[list[Op], set[str]]:
    """Take layers off the tiles again.

    Args:
        folded: operations after lowering and folding.
        original: the same before.
        refused: names of the operations that can't be put on tiles.
        graph: the clean model's OpGraph.
        computed_from: original initializers of each computed constant.
        origin: the model's name in messages.
        names: what to keep digital: an operation, one that its matrix absorbed, or an initializer. For a
            refused operation also what it holds in its bodies: all of it stays digital.

    Returns:
        the operations, where those that are kept, and what their matrices had absorbed, are as they were; and
        the names of those that are kept.

    Raises:
        ModelError: a name that is no layer; those that there are, are listed.
    """
    before = {op.name: op for op in original}
    layers = {op.name: _names_of_matrix(op) for op in folded if op.matrix is not None}
    layers |= {op.name: _names_of_refused(op, graph, computed_from) for op in original if op.name in refused}
    kept: set[str] = set()
    for name in names:
        found = [layer for layer, known in layers.items() if name in known]
        if not found:
            raise ModelError(f"{origin}: --digital {name}: {_why_unknown(name, before, layers)}")
        kept.update(found)
    result: list[Op] = []
    for op in folded:
        if op.name in kept:
            result.append(replace(before[op.name], on_request=True))
            result.extend(before[absorbed] for absorbed in op.absorbed)
        else:
            result.append(op)
    return result, kept


def _names_of_matrix(op: Op) -> set[str]:
    sources = () if op.matrix is None else (op.matrix.initializer, *op.matrix.computed_from)
    return {op.name, *op.absorbed, *sources}


def _names_of_refused(
    op: Op, graph: nx.MultiDiGraph, computed_from: Mapping[str, tuple[str, ...]]
) -> set[str]:
    """The operation, and what in it or in its bodies can't be mapped, with the names of the weights."""
    constants = graph.graph["constants"]
    weights = {name for name in op.inputs if name in constants and len(constants[name].dims) > 1}
    found = {op.name}
    for inner, name, _ in unmapped_weights(op, constants):
        found.add(inner.name)
        weights.add(name)
    return found | weights | {source for name in weights for source in computed_from.get(name, ())}


def _why_unknown(name: str, operations: Mapping[str, Op], layers: Iterable[str]) -> str:
    listed = list(layers)
    there_are = ", ".join(listed[:MOST_NAMES]) or "none"
    if len(listed) > MOST_NAMES:
        there_are += f" and {len(listed) - MOST_NAMES} more (see: pcmc show)"
    if name in operations:
        label = operations[name].label
        return f"{label} has no constant matrix and is digital as it is; layers are {there_are}"
    return f"there is no such layer; layers are {there_are}"
