"""`OpGraph`: what the model computes. (`TileGraph`, where it computes it, is in `compiler.tilegraph`.)

It is a plain networkx graph with frozen payloads, so that a stage may copy a graph and share its payloads.

`OpGraph` is an `nx.MultiDiGraph`. A node is an operation (attribute `op`, an `Op`) or a graph input or output
(attribute `op` is None); an edge is a tensor (attribute `tensor`). The bodies of If, Loop and Scan are
OpGraphs inside their `Op`; whatever walks a graph goes down into `Op.bodies`, where the outer scope's tensors
are visible by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from pcmc.runtime.program import Folding, Read

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value that flows along an edge: open dimensions stay symbols, an unknown shape is None."""

    name: str
    shape: tuple[int | str, ...] | None
    dtype: int  # the number of onnx.TensorProto.DataType, 0 where unknown


@dataclass(frozen=True, slots=True)
class Matrix:
    """A constant weight that multiplies an activation, as `[rows, cols]` = `[inputs, outputs]`, and where it
    came from.

    `weights` and `bias` are what the tiles get: after `foldings`, which are recorded in the order in which
    they were applied and can be undone (`unfolded`). A matrix of a grouped convolution is block-diagonal with
    `groups` equal blocks; its `weights` are then `[groups, rows / groups, cols / groups]`.
    """

    name: str
    weights: Floats
    bias: Floats | None
    initializer: str
    computed_from: tuple[str, ...]
    transform: str
    groups: int = 1
    foldings: tuple[Folding, ...] = ()

    @property
    def rows(self) -> int:
        """Inputs of the whole matrix, without a bias row."""
        return int(self.weights.shape[-2]) * self.groups

    @property
    def cols(self) -> int:
        """Outputs of the whole matrix."""
        return int(self.weights.shape[-1]) * self.groups


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of the model; `inputs` includes the outer tensors that its bodies use."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    node: onnx.NodeProto
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bodies: Mapping[str, nx.MultiDiGraph] = field(default_factory=dict)
    matrix: Matrix | None = None
    read: Read | None = None
    absorbed: tuple[str, ...] = ()  # names of the operations that were folded into the matrix
    on_request: bool = False  # has a constant matrix and stays digital all the same: the user asked for it

    @property
    def label(self) -> str:
        """Name and operator, as messages quote them."""
        domain = f"{self.domain}:" if self.domain else ""
        return f"node '{self.name}' ({domain}{self.op_type})"


def build_opgraph(
    ops: Iterable[Op],
    inputs: Iterable[str],
    outputs: Iterable[str],
    tensors: Mapping[str, Tensor],
    constants: Mapping[str, onnx.TensorProto],
    name: str = "",
) -> nx.MultiDiGraph:
    """Connect operations by the tensors that they name.

    Args:
        ops: operations in any order; their outputs are distinct.
        inputs: names of the graph's inputs. A tensor that is neither made here, nor an input, nor a constant
            belongs to an outer scope and gets no edge.
        outputs: names of the graph's outputs.
        tensors: type and shape by tensor name.
        constants: initializers by name.
        name: the graph's name.

    Returns:
        an OpGraph; `graph["inputs"]`, `["outputs"]`, `["tensors"]` and `["constants"]` hold what the
        arguments say.
    """
    graph = nx.MultiDiGraph(
        name=name,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        tensors=dict(tensors),
        constants=dict(constants),
    )
    source: dict[str, str] = {}
    for tensor in graph.graph["inputs"]:
        graph.add_node(f"input:{tensor}", op=None)
        source[tensor] = f"input:{tensor}"
    ops = list(ops)
    for op in ops:
        graph.add_node(op.name, op=op)
        source.update((out, op.name) for out in op.outputs if out)
    for op in ops:
        for tensor in dict.fromkeys(op.inputs):
            if tensor in source:
                graph.add_edge(source[tensor], op.name, tensor=tensors.get(tensor, Tensor(tensor, None, 0)))
    for tensor in graph.graph["outputs"]:
        graph.add_node(f"output:{tensor}", op=None)
        if tensor in source:
            graph.add_edge(
                source[tensor], f"output:{tensor}", tensor=tensors.get(tensor, Tensor(tensor, None, 0))
            )
    return graph


def operations(graph: nx.MultiDiGraph) -> list[Op]:
    """Operations of one graph (not of its bodies) in a topological order that follows the model's own
    where it can.
    """
    position = {node: index for index, node in enumerate(graph)}
    order = nx.lexicographical_topological_sort(graph, key=position.__getitem__)
    return [graph.nodes[node]["op"] for node in order if graph.nodes[node]["op"] is not None]


def walk(graph: nx.MultiDiGraph) -> Iterator[Op]:
    """Every operation of a graph and, after each, those of its bodies."""
    for op in operations(graph):
        yield op
        for body in op.bodies.values():
            yield from walk(body)


def consumers(graph: nx.MultiDiGraph, tensor: str) -> list[str]:
    """Nodes (operations and graph outputs) that use a tensor."""
    return [
        target
        for node, data in graph.nodes(data=True)
        if (data["op"] is not None and tensor in data["op"].outputs) or node == f"input:{tensor}"
        for _, target, edge in graph.out_edges(node, data=True)
        if edge["tensor"].name == tensor
    ]


def replace_ops(graph: nx.MultiDiGraph, ops: Iterable[Op]) -> nx.MultiDiGraph:
    """The same graph with other operations; inputs, outputs, tensors and constants stay."""
    info = graph.graph
    return build_opgraph(
        ops, info["inputs"], info["outputs"], info["tensors"], info["constants"], info["name"]
    )


def opgraph_as_dict(graph: nx.MultiDiGraph) -> dict[str, Any]:
    """An OpGraph as plain data for JSON: operations with their tensors, matrices by shape and source,
    bodies nested.
    """
    tensors: Mapping[str, Tensor] = graph.graph["tensors"]
    return {
        "name": graph.graph["name"],
        "inputs": [_tensor_as_dict(tensors, name) for name in graph.graph["inputs"]],
        "outputs": [_tensor_as_dict(tensors, name) for name in graph.graph["outputs"]],
        "operations": [_op_as_dict(op, tensors) for op in operations(graph)],
    }


def _tensor_as_dict(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    tensor = tensors.get(name, Tensor(name, None, 0))
    return {
        "name": name,
        "shape": None if tensor.shape is None else list(tensor.shape),
        "dtype": tensor.dtype,
    }


def _op_as_dict(op: Op, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": op.name,
        "op_type": op.op_type,
        "domain": op.domain,
        "inputs": list(op.inputs),
        "outputs": [_tensor_as_dict(tensors, name) for name in op.outputs if name],
    }
    if op.matrix is not None:
        data["matrix"] = {
            "name": op.matrix.name,
            "rows": op.matrix.rows,
            "cols": op.matrix.cols,
            "groups": op.matrix.groups,
            "initializer": op.matrix.initializer,
            "computed_from": list(op.matrix.computed_from),
            "transform": op.matrix.transform,
            "bias": op.matrix.bias is not None,
            "foldings": [folding.node for folding in op.matrix.foldings],
        }
        data["absorbed"] = list(op.absorbed)
    if op.bodies:
        data["bodies"] = {name: opgraph_as_dict(body) for name, body in op.bodies.items()}
    return data


def opgraph_as_dot(graph: nx.MultiDiGraph) -> str:
    """An OpGraph in Graphviz's language: matrices as boxes, digital operations as ellipses, bodies as
    clusters.
    """
    lines = ["digraph model {", "  rankdir=TB; node [fontname=Helvetica];"]
    _dot_body(graph, "", lines)
    return "\n".join([*lines, "}", ""])


def _dot_body(graph: nx.MultiDiGraph, prefix: str, lines: list[str]) -> None:
    for node, data in graph.nodes(data=True):
        op: Op | None = data["op"]
        if op is None:
            label, style = node, "shape=plaintext"
        elif op.matrix is None:
            label, style = f"{op.name}\n{op.op_type}", "shape=ellipse"
        else:
            label, style = (
                f"{op.name}\n{op.op_type} {op.matrix.rows} x {op.matrix.cols}",
                "shape=box, style=filled",
            )
        lines.append(f"  {_quoted(prefix + node)} [label={_quoted(label)}, {style}];")
        if op is not None:
            for name, body in op.bodies.items():
                lines.append(
                    f"  subgraph {_quoted(f'cluster_{prefix}{node}/{name}')} {{ label={_quoted(name)};"
                )
                _dot_body(body, f"{prefix}{node}/{name}/", lines)
                lines.append("  }")
    for start, end, data in graph.edges(data=True):
        tensor: Tensor = data["tensor"]
        shape = "" if tensor.shape is None else "x".join(str(dim) for dim in tensor.shape)
        lines.append(f"  {_quoted(prefix + start)} -> {_quoted(prefix + end)} [label={_quoted(shape)}];")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def unfolded(matrix: Matrix) -> tuple[Floats, Floats | None]:
    """Weights and bias as they were before the foldings: the last one is undone first.

    Returns:
        weights in the shape of `matrix.weights`, and the bias (None where the matrix had none before its
        foldings).
    """
    weights = matrix.weights.astype(np.float64)
    bias = np.zeros(matrix.cols) if matrix.bias is None else matrix.bias.astype(np.float64)
    per_group = (matrix.groups, 1, -1) if matrix.groups > 1 else (1, -1)
    for folding in reversed(matrix.foldings):
        weights = weights / folding.scale.reshape(per_group)
        bias = (bias - folding.shift) / folding.scale
    had_bias = matrix.foldings[0].had_bias if matrix.foldings else matrix.bias is not None
    return weights.astype(np.float32), bias.astype(np.float32) if had_bias else None


def check_opgraph(graph: nx.MultiDiGraph) -> None:
    """Raise ValueError where an OpGraph is broken: a cycle, a tensor made twice, or one that nobody makes."""
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError(f"graph '{graph.graph['name']}' has a cycle: {nx.find_cycle(graph)}")
    made: dict[str, str] = {}
    for op in operations(graph):
        for tensor in filter(None, op.outputs):
            if tensor in made:
                raise ValueError(f"tensor '{tensor}' is made by '{made[tensor]}' and by '{op.name}'")
            made[tensor] = op.name
    known = made.keys() | set(graph.graph["inputs"]) | graph.graph["constants"].keys()
    missing = [tensor for tensor in graph.graph["outputs"] if tensor not in known]
    if missing:
        raise ValueError(f"nobody makes the output '{missing[0]}'")
