"""Walks over ONNX protobufs: every node and every tensor, those of nested graphs too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: Operator domains that onnxruntime implements.
KNOWN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.training",
        "ai.onnx.preview.training",
        "com.microsoft",
        "com.microsoft.nchwc",
    }
)


def tensors_of(part: Any) -> Iterator[Any]:
    """Every TensorProto of a graph or function: initializers and attributes, those of nested graphs too."""
    sparse = list(getattr(part, "sparse_initializer", ()))
    yield from getattr(part, "initializer", ())
    attributes = list(getattr(part, "attribute_proto", ()))  # defaults of a function's attributes
    for attribute in (*attributes, *(attribute for node in part.node for attribute in node.attribute)):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        sparse += attribute.sparse_tensors
        for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from tensors_of(body)
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices


def nodes_of(part: Any) -> Iterator[Any]:
    """Every node of a graph or function, those of nested graphs too."""
    for node in part.node:
        yield node
        for attribute in node.attribute:
            for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from nodes_of(body)


def bodies_of(node: Any) -> dict[str, Any]:
    """The graphs that a node holds (If, Loop, Scan), by attribute name."""
    return {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def tensors_used(node: Any) -> list[str]:
    """Tensors that a node uses, once for each use, those of its bodies too."""
    names = [tensor for tensor in node.input if tensor]
    for body in bodies_of(node).values():
        names += [value.name for value in body.output]
        for inner in body.node:
            names += tensors_used(inner)
    return names
