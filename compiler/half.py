"""Half precision: a float16 model computes in float32 and rounds where it ends, as onnxruntime does on a CPU.

onnxruntime has few float16 kernels on a CPU: it runs such a model in float32 and drops the casts between, so
that only inputs, outputs and casts that the model itself asks for are rounded. (Seen with its optimizations
off: equal to the same model in float32, rounded once.) The tiles' sums are float32 too, so this is what comes
closest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pcmc.runtime.onnx_walk import bodies_of

HALF, FLOAT = 10, 1  # onnx.TensorProto.FLOAT16 and FLOAT


def widen_half(model: Any) -> None:
    """Make a float16 model, in place, one that computes in float32; its inputs and outputs stay float16.

    Args:
        model: an onnx.ModelProto that the caller owns, its nodes named.
    """
    renamed: dict[str, str] = {}
    before, after = [], []
    for value in model.graph.input:
        if value.type.tensor_type.elem_type == HALF:
            renamed[value.name] = f"{value.name}/float32"
            before.append(_cast(value.name, renamed[value.name], FLOAT))
    outputs = [value.name for value in model.graph.output if value.type.tensor_type.elem_type == HALF]
    if (
        not renamed
        and not outputs
        and not any(tensor.data_type == HALF for tensor in model.graph.initializer)
    ):
        return
    for name in outputs:
        if name in renamed:
            continue  # an input that is an output passes as it is
        renamed[name] = f"{name}/float32"
        after.append(_cast(renamed[name], name, HALF))
    _widen_graph(model.graph, renamed)
    nodes = [_copied(node) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*before, *nodes, *after])
    del model.graph.value_info[:]


def _cast(source: str, target: str, dtype: int) -> Any:
    import onnx

    return onnx.helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=dtype)


def _widen_graph(graph: Any, renamed: dict[str, str]) -> None:
    from onnx import numpy_helper

    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)  # a constant that is an output
        if tensor.data_type == HALF:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            )
    nodes: list[Any] = []
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        nodes.extend(_widen_node(node))
        for body in bodies_of(node).values():
            for value in [*body.input, *body.output, *body.value_info]:
                if value.type.tensor_type.elem_type == HALF:
                    value.type.tensor_type.elem_type = FLOAT
            _widen_graph(body, renamed)
    copies = [_copied(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _copied(node: Any) -> Any:
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _widen_node(node: Any) -> list[Any]:
    """The node in float32; a Cast to float16 that the model asks for rounds, and is widened again."""
    from onnx import numpy_helper

    for attribute in node.attribute:
        if attribute.HasField("t") and attribute.t.data_type == HALF:
            attribute.t.CopyFrom(
                numpy_helper.from_array(
                    numpy_helper.to_array(attribute.t).astype(np.float32), attribute.t.name
                )
            )
        if attribute.name in ("dtype", "to") and attribute.i == HALF and node.op_type != "Cast":
            attribute.i = FLOAT
    rounds = node.op_type == "Cast" and any(a.name == "to" and a.i == HALF for a in node.attribute)
    if not rounds:
        return [node]
    target, rounded = node.output[0], f"{node.output[0]}/float16"
    node.output[0] = rounded
    return [node, _cast(rounded, target, FLOAT)]
