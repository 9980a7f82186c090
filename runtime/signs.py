"""Which tensors of a model can't be negative, whatever its inputs are.

Chips whose inputs have no sign send negative ones in a second turn. What the operators say is enough to know
where there are none: a ReLU before, and what keeps the sign in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

#: Operators whose results are never negative.
NEVER = frozenset(
    {
        "Abs",
        "Exp",
        "HardSigmoid",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "Relu",
        "Sigmoid",
        "Softmax",
        "Softplus",
        "Sqrt",
    }
)
#: Operators whose results are not negative where their first input is not: what moves, picks or averages.
FIRST = frozenset(
    {
        "AveragePool",
        "Cast",
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
#: Operators whose results are not negative where none of their inputs is.
ALL = frozenset({"Add", "Concat", "Div", "Max", "Mean", "Min", "Mul", "Sum"})


def non_negative(model: Any) -> frozenset[str]:
    """Names of the tensors of a model's graph that can't be negative; those of bodies are not looked at."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    known: dict[str, bool] = {value.name: _is_unsigned(value) for value in graph.input}

    def never(name: str) -> bool:
        if name in constants:
            known[name] = _least(constants.pop(name)) >= 0
        return known.get(name, False)

    for node in graph.node:
        found = _never_negative(node, never, constants)
        known.update(dict.fromkeys(node.output, found))
    return frozenset(name for name, found in known.items() if found)


def _never_negative(node: Any, never: Callable[[str], bool], constants: Mapping[str, Any]) -> bool:
    kind = node.op_type
    if kind in NEVER:
        return True
    if kind in FIRST:
        return never(node.input[0])
    if kind in ALL:
        return all(never(name) for name in node.input)
    if kind == "Where":
        return all(never(name) for name in node.input[1:])
    if kind == "Pad":
        return never(node.input[0]) and (len(node.input) < 3 or not node.input[2] or never(node.input[2]))
    if kind == "Clip":
        return len(node.input) > 1 and bool(node.input[1]) and never(node.input[1])
    return False


def _is_unsigned(value: Any) -> bool:
    import onnx

    kind = onnx.TensorProto
    unsigned = (kind.BOOL, kind.UINT8, kind.UINT16, kind.UINT32, kind.UINT64)
    return value.type.tensor_type.elem_type in unsigned


def _least(tensor: Any) -> float:
    """The least value of a constant; 0 if it has none."""
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    return float(np.min(values, initial=0.0)) if values.dtype.kind in "fiu" else 0.0
