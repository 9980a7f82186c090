"""Operators that multiply a constant matrix in a way that is not mapped: what holds such weights is refused,
or stays digital where the user says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pcmc.compiler.graph import Op, operations
from pcmc.compiler.lowering.weights import constant_shape

#: (domain, operator) -> inputs that may hold weights.
REFUSED: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("", "ConvTranspose"): (1,),
    ("", "DeformConv"): (1,),
    ("", "Einsum"): (0, 1),
    ("", "LSTM"): (1, 2),
    ("", "GRU"): (1, 2),
    ("", "RNN"): (1, 2),
    ("", "QLinearConv"): (3,),
    ("", "QLinearMatMul"): (0, 3),
    ("", "ConvInteger"): (1,),
    ("", "MatMulInteger"): (0, 1),
    ("", "Conv"): (1,),
    ("", "MatMul"): (0, 1),
    ("", "Gemm"): (0, 1),
    ("com.microsoft", "QGemm"): (3,),
    ("com.microsoft", "FusedConv"): (1,),
    ("com.microsoft", "FusedMatMul"): (0, 1),
    ("com.microsoft", "FusedGemm"): (0, 1),
    ("com.microsoft", "TransposeMatMul"): (0, 1),
    ("com.microsoft", "MatMulNBits"): (1,),
    ("com.microsoft", "MatMulInteger16"): (0, 1),
    ("com.microsoft", "MatMulFpQ4"): (1,),
    ("com.microsoft", "MatMulBnb4"): (1,),
    ("com.microsoft", "MatMulIntegerToFloat"): (0, 1),
    ("com.microsoft", "DynamicQuantizeMatMul"): (1,),
    ("com.microsoft", "Attention"): (1,),
    ("com.microsoft", "QAttention"): (1,),
    ("com.microsoft", "QLinearConv"): (3,),
    ("com.microsoft", "DynamicQuantizeLSTM"): (1, 2),
    ("com.microsoft", "ConvTransposeWithDynamicPads"): (1,),
    ("com.microsoft", "NhwcFusedConv"): (1,),
    ("com.microsoft.nchwc", "Conv"): (1,),
}


def unmapped_weights(op: Op, constants: Mapping[str, Any]) -> Iterator[tuple[Op, str, tuple[int, ...]]]:
    """Operations with constant weights that can't be mapped: `op` itself, or any in its bodies.

    Args:
        op: an operation to which no rule of the lowering applies.
        constants: initializers that it can see, by name.

    Yields:
        the operation, and name and shape of its weights. A vector of weights is not worth a tile.
    """
    for inner, visible in _with_bodies(op, constants):
        for index in REFUSED.get((inner.domain, inner.op_type), ()):
            name = inner.inputs[index] if index < len(inner.inputs) else ""
            tensor = visible.get(name)
            shape = constant_shape(tensor)
            if tensor is not None and shape is not None and sum(size > 1 for size in shape) >= 2:
                yield inner, tensor.name or name, shape


def _with_bodies(op: Op, constants: Mapping[str, Any]) -> Iterator[tuple[Op, Mapping[str, Any]]]:
    """An operation and all that its bodies hold, each with the constants that it can see.

    What a body makes of constants alone (a transpose, a cast, dequantized weights) counts as the largest of
    them.
    """
    yield op, constants
    for body in op.bodies.values():
        visible = {**constants, **body.graph["constants"]}
        for inner in operations(body):
            yield from _with_bodies(inner, visible)
            made_of = [visible[name] for name in inner.inputs if name in visible]
            if inner.op_type == "Constant" and "value" in inner.attributes:
                visible[inner.outputs[0]] = inner.attributes["value"]
            elif made_of and len(made_of) == sum(map(bool, inner.inputs)):
                visible[inner.outputs[0]] = max(made_of, key=lambda tensor: math.prod(tensor.dims))
