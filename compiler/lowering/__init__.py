"""Lowering: find the constant matrices of a model and make each an operation that reads tiles; the rest stays
digital.

Each rule is a function `rule(op, graph) -> (Matrix, Read, input name) | None`; `RULES` is the table of them.
None means that the operation has no constant matrix and stays digital. What has one that can't be put on
tiles is refused, never lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from pcmc.compiler.graph import Matrix, Op, operations, replace_ops, walk
from pcmc.compiler.lowering.convolution import lower_conv
from pcmc.compiler.lowering.dense import lower_gemm, lower_matmul
from pcmc.compiler.lowering.folding import fold_followers
from pcmc.compiler.lowering.weights import constant_shape
from pcmc.errors import ModelError
from pcmc.runtime.program import Read

RULES = {"Gemm": lower_gemm, "MatMul": lower_matmul, "Conv": lower_conv}

#: Operators that multiply a constant matrix in a way that is not mapped: (domain, operator) -> inputs that
#: may hold weights.
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


def lower(
    graph: nx.MultiDiGraph, computed_from: Mapping[str, tuple[str, ...]], origin: str
) -> nx.MultiDiGraph:
    """Turn operations with a constant matrix into matrix operations, with what follows them folded in.

    Args:
        graph: the clean model's OpGraph; left as it is.
        computed_from: original initializers of each computed constant.
        origin: the model's name in messages.

    Returns:
        an OpGraph in which `op.matrix` is set where a bank will be read. Operations that use the same
        constant in the same way share one Matrix (equal `matrix.name`).

    Raises:
        ModelError: a constant matrix that is not mapped (its node is named), NaN or infinite weights, or no
            matrix at all.
    """
    ops = operations(graph)
    uses = Counter(name for op in walk(graph) for name in set(op.inputs) if name in graph.graph["constants"])
    lowered: dict[str, Op] = {}
    for op in ops:
        found = _found(op, graph, origin)
        if found is None:
            _refuse_unmapped(op, graph, origin)
            continue
        matrix, read, source = found
        matrix = replace(matrix, computed_from=computed_from.get(matrix.initializer, (matrix.initializer,)))
        _check_finite(matrix, op, origin)
        lowered[op.name] = replace(op, matrix=matrix, read=read, inputs=(source,))
    if not lowered:
        raise ModelError(
            f"{origin}: has no constant matrix (Gemm, MatMul or Conv with constant weights): nothing "
            "for the tiles"
        )
    ops = fold_followers([lowered.get(op.name, op) for op in ops], graph, uses)
    return replace_ops(graph, _share(ops))


def _found(op: Op, graph: nx.MultiDiGraph, origin: str) -> tuple[Matrix, Read, str] | None:
    if op.op_type not in RULES or op.domain:
        return None
    try:
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # infinite and NaN weights are refused by _check_finite
            found = RULES[op.op_type](op, graph)
        if found is not None:
            _check_fit(found[0])
        return found
    except (ValueError, IndexError, ZeroDivisionError) as error:  # onnx's checker lets such models pass
        raise ModelError(
            f"{origin}: {op.label}: its attributes and constants do not fit each other: {error}"
        ) from error


def _check_fit(matrix: Matrix) -> None:
    if matrix.weights.ndim != (3 if matrix.groups > 1 else 2):
        raise ValueError(f"weights of shape {list(matrix.weights.shape)} are no matrix")
    if matrix.bias is not None and matrix.bias.shape != (matrix.cols,):
        raise ValueError(f"a bias of {matrix.bias.size} numbers for {matrix.cols} outputs")


def _refuse_unmapped(op: Op, graph: nx.MultiDiGraph, origin: str) -> None:
    """Refuse an operation, or one in its bodies, whose constant weights can't be mapped."""
    for inner, constants in _with_bodies(op, graph.graph["constants"]):
        for index in REFUSED.get((inner.domain, inner.op_type), ()):
            name = inner.inputs[index] if index < len(inner.inputs) else ""
            tensor = constants.get(name)
            name, shape = (tensor.name if tensor is not None else "") or name, constant_shape(tensor)
            if shape is not None and sum(size > 1 for size in shape) >= 2:
                inside = f" inside {op.label}" if inner is not op else ""
                raise ModelError(
                    f"{origin}: {inner.label}{inside}: its constant weights '{name}' {list(shape)} "
                    "can't be put on tiles: mapped are "
                    "Gemm, MatMul with a constant matrix of two dimensions, and Conv (1-D and 2-D)"
                )


def _with_bodies(op: Op, constants: Mapping[str, Any]) -> list[tuple[Op, Mapping[str, Any]]]:
    """An operation and all that its bodies hold, each with the constants that it can see.

    What a body makes of constants alone (a transpose, a cast, dequantized weights) counts as the largest of
    them.
    """
    found = [(op, constants)]
    for body in op.bodies.values():
        visible = {**constants, **body.graph["constants"]}
        for inner in operations(body):
            found.extend(_with_bodies(inner, visible))
            made_of = [visible[name] for name in inner.inputs if name in visible]
            if inner.op_type == "Constant" and "value" in inner.attributes:
                visible[inner.outputs[0]] = inner.attributes["value"]
            elif made_of and len(made_of) == sum(map(bool, inner.inputs)):
                visible[inner.outputs[0]] = max(made_of, key=lambda tensor: math.prod(tensor.dims))
    return found


def _check_finite(matrix: Matrix, op: Op, origin: str) -> None:
    for what, array in (("weights", matrix.weights), ("bias", matrix.bias)):
        if array is not None and not np.isfinite(array).all():
            count = int(np.size(array) - np.isfinite(array).sum())
            raise ModelError(
                f"{origin}: {op.label}: {count} of the {np.size(array)} {what} in "
                f"'{matrix.initializer}' are NaN or infinite: "
                "cells hold finite weights only"
            )


def _share(ops: list[Op]) -> list[Op]:
    """Give each different matrix a name of its own; operations with the same weights in the same form
    share one.
    """
    names: dict[tuple[Any, ...], Matrix] = {}
    taken: set[str] = set()
    shared = []
    for op in ops:
        if op.matrix is not None:
            matrix = op.matrix
            bias = None if matrix.bias is None else matrix.bias.tobytes()
            key = (matrix.initializer, matrix.transform, matrix.groups, matrix.foldings and op.name, bias)
            if key not in names:
                names[key] = replace(matrix, name=_free_name(op.name, taken))
            op = replace(op, matrix=names[key])
        shared.append(op)
    return shared


def _free_name(name: str, taken: set[str]) -> str:
    count, free = 1, name
    while free in taken:
        free, count = f"{name}_{count}", count + 1
    taken.add(free)
    return free
