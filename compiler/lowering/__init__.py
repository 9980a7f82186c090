"""Lowering: find the constant matrices of a model and make each an operation that reads tiles; the rest stays
digital.

Each rule is a function `rule(op, graph) -> (Matrix, Read, input name) | None`; `RULES` is the table of them.
None means that the operation has no constant matrix and stays digital. What has one that can't be put on
tiles is refused, never lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from pcmc.compiler.graph import Matrix, Op, operations, replace_ops, walk
from pcmc.compiler.lowering.convolution import lower_conv
from pcmc.compiler.lowering.dense import lower_gemm, lower_matmul
from pcmc.compiler.lowering.digital import keep_digital
from pcmc.compiler.lowering.folding import fold_followers
from pcmc.compiler.lowering.unmapped import unmapped_weights
from pcmc.errors import ModelError
from pcmc.runtime.program import Read

RULES = {"Gemm": lower_gemm, "MatMul": lower_matmul, "Conv": lower_conv}


def lower(
    graph: nx.MultiDiGraph,
    computed_from: Mapping[str, tuple[str, ...]],
    origin: str,
    digital: Sequence[str] = (),
) -> nx.MultiDiGraph:
    """Turn operations with a constant matrix into matrix operations, with what follows them folded in.

    Args:
        graph: the clean model's OpGraph; left as it is.
        computed_from: original initializers of each computed constant.
        origin: the model's name in messages.
        digital: layers that stay off the tiles, each named by an operation, one that its matrix would absorb,
            or an initializer of its weights. An operation that is refused, or one that holds such in its
            bodies, may be named too.

    Returns:
        an OpGraph in which `op.matrix` is set where a bank will be read. Operations that use the same
        constant in the same way share one Matrix (equal `matrix.name`).

    Raises:
        ModelError: a constant matrix that is not mapped (its node is named), NaN or infinite weights, no
            matrix at all, or a name in `digital` that is no layer.
    """
    ops = operations(graph)
    uses = Counter(name for op in walk(graph) for name in set(op.inputs) if name in graph.graph["constants"])
    lowered: dict[str, Op] = {}
    refused: dict[str, ModelError] = {}
    for op in ops:
        try:
            found = _lowered(op, graph, computed_from, origin)
        except ModelError as error:
            if not digital:
                raise
            refused[op.name] = error
            continue
        if found is not None:
            lowered[op.name] = found
    folded = fold_followers([lowered.get(op.name, op) for op in ops], graph, uses)
    if digital:
        folded, kept = keep_digital(folded, ops, refused, graph, computed_from, origin, digital)
        for name, refusal in refused.items():
            if name not in kept:
                raise refusal
    if not any(op.matrix is not None for op in folded):
        left = " beside those that stay digital on request" if digital else ""
        raise ModelError(
            f"{origin}: has no constant matrix{left} (Gemm, MatMul or Conv with constant weights): nothing "
            "for the tiles"
        )
    return replace_ops(graph, _share(folded))


def _lowered(
    op: Op, graph: nx.MultiDiGraph, computed_from: Mapping[str, tuple[str, ...]], origin: str
) -> Op | None:
    """The operation with its matrix; None where it has none."""
    found = _found(op, graph, origin)
    if found is None:
        _refuse_unmapped(op, graph, origin)
        return None
    matrix, read, source = found
    matrix = replace(matrix, computed_from=computed_from.get(matrix.initializer, (matrix.initializer,)))
    _check_finite(matrix, op, origin)
    return replace(op, matrix=matrix, read=read, inputs=(source,))


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
    for inner, name, shape in unmapped_weights(op, graph.graph["constants"]):
        inside = f" inside {op.label}" if inner is not op else ""
        raise ModelError(
            f"{origin}: {inner.label}{inside}: its constant weights '{name}' {list(shape)} "
            "can't be put on tiles: mapped are Gemm, MatMul with a constant matrix of two dimensions, and "
            f"Conv (1-D and 2-D); or leave it digital with --digital {inner.name}"
        )


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
