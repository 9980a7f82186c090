"""A whole ONNX model by the rules of pcmc.runtime.ops alone: its values, and the gradients by all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pcmc.runtime.ops import table
from pcmc.runtime.ops.node import Context, Node, node_from_onnx

Array = NDArray[Any]


def nodes_of(model: onnx.ModelProto) -> list[Node]:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return [node_from_onnx(node, opset) for node in model.graph.node]


def nodes_of_doubles(model: onnx.ModelProto) -> list[Node]:
    """The nodes in float64, so that central differences can judge: casts to float32 become casts to that."""
    return [
        dataclasses.replace(
            node, attributes={key: _in_double(key, value) for key, value in node.attributes.items()}
        )
        for node in nodes_of(model)
    ]


def _in_double(key: str, value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        return value.astype(np.float64)
    return onnx.TensorProto.DOUBLE if (key, value) == ("to", onnx.TensorProto.FLOAT) else value


def parameters_of(model: onnx.ModelProto) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def doubles(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in arrays.items()
    }


def forward(nodes: list[Node], values: Mapping[str, Array], context: Context) -> dict[str, Array]:
    """All values of the graph, from those of its inputs and initializers."""
    found = dict(values)
    for node in nodes:
        inputs = [found[name] if name else None for name in node.inputs]
        results = table.forward(node, inputs, context)
        found.update((name, y) for name, y in zip(node.outputs, results, strict=False) if name)
    return found


def backward(
    nodes: list[Node], values: Mapping[str, Array], grads: Mapping[str, Array], context: Context
) -> dict[str, Array]:
    """The gradient by every value that one reaches, from that by the outputs."""
    found = dict(grads)
    for node in reversed(nodes):
        arriving = [found.get(name) for name in node.outputs]
        inputs = [values[name] if name else None for name in node.inputs]
        outputs = [values[name] for name in node.outputs]
        if all(grad is None for grad in arriving):
            continue
        for name, grad in zip(
            node.inputs, table.backward(node, inputs, outputs, arriving, context), strict=True
        ):
            if grad is not None:
                found[name] = found[name] + grad if name in found else grad
    return found
