"""Fold what follows a matrix and is affine in each of its columns into its weights and bias: a bias that is
added, a BatchNormalization, a constant scale. Each folding is recorded in the Matrix and can be undone
(`compiler.graph.unfolded`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import networkx as nx
import numpy as np
import numpy.typing as npt

from pcmc.compiler.graph import Matrix, Op
from pcmc.compiler.lowering.weights import float_constant, single_precision
from pcmc.runtime.program import Folding

#: A scale outside of this range counts as zero or infinite: single precision could not be undone.
SMALLEST_SCALE, LARGEST_SCALE = 1e-20, 1e20

Affine = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def fold_followers(ops: list[Op], graph: nx.MultiDiGraph, uses: Counter[str]) -> list[Op]:
    """Fold chains of affine operations into the matrix operation before them.

    An operation is folded where it is the only user of the matrix's result, that result is not an output of
    the graph, its type is float32 or wider, no scale is zero or nearly so (that could not be undone), and the
    constant matrix serves no other operation.
    """
    users: dict[str, list[Op]] = {}
    for op in ops:
        for tensor in set(op.inputs):
            users.setdefault(tensor, []).append(op)
    outputs = set(graph.graph["outputs"])
    folded: dict[str, Op] = {}
    gone: set[str] = set()
    for op in ops:
        if op.matrix is None or uses[op.matrix.initializer] > 1:
            continue
        while True:
            followers = users.get(op.outputs[0], [])
            if len(followers) != 1 or op.outputs[0] in outputs or not single_precision(graph, op.outputs[0]):
                break
            affine = _affine(followers[0], op, graph)
            if affine is None:
                break
            with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: left as it is
                candidate = _with_follower(op, followers[0], affine)
            if not _is_finite(candidate):
                break
            op = candidate
            gone.add(followers[0].name)
        folded[op.name] = op
    return [folded.get(op.name, op) for op in ops if op.name not in gone]


def _with_follower(op: Op, follower: Op, affine: Affine) -> Op:
    matrix = op.matrix
    if matrix is None:
        raise ValueError(f"{op.label} has no matrix")
    scale, shift = affine
    folding = Folding(follower.name, follower.op_type, scale, shift, matrix.bias is not None)
    bias = np.zeros(matrix.cols) if matrix.bias is None else matrix.bias.astype(np.float64)
    return replace(
        op,
        outputs=(follower.outputs[0],),
        absorbed=(*op.absorbed, follower.name),
        matrix=replace(
            matrix,
            weights=_scaled(matrix, scale),
            bias=(bias * scale + shift).astype(np.float32),
            foldings=(*matrix.foldings, folding),
        ),
    )


def _is_finite(op: Op) -> bool:
    arrays = (op.matrix.weights, op.matrix.bias) if op.matrix is not None else ()
    return all(array is None or bool(np.isfinite(array).all()) for array in arrays)


def _scaled(matrix: Matrix, scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    per_group = (matrix.groups, 1, -1) if matrix.groups > 1 else (1, -1)
    return (matrix.weights.astype(np.float64) * scale.reshape(per_group)).astype(np.float32)


def _affine(follower: Op, op: Op, graph: nx.MultiDiGraph) -> Affine | None:
    """Scale and shift for each column of `op`'s result that `follower` applies, None where it does
    something else.
    """
    if follower.domain or op.matrix is None or op.read is None or op.read.vector_output:
        return None
    cols, tensor = op.matrix.cols, op.outputs[0]
    info = graph.graph["tensors"].get(tensor)
    if info is None or info.shape is None:
        return None
    rank = len(info.shape)
    axis = {"dense": rank - 1, "columns": rank - 2, "window": 1}[op.read.kind]
    if follower.op_type == "BatchNormalization" and axis == 1:
        return _batch_normalization(follower, tensor, cols, graph)
    if follower.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    first, second = (
        follower.inputs[:2] if len(follower.inputs) > 1 else (follower.inputs[0], follower.inputs[0])
    )
    constant = second if first == tensor else first
    value = None if constant == tensor else _per_column(float_constant(graph, constant), rank, axis, cols)
    if value is None:
        return None
    return _arithmetic(follower.op_type, value, constant_is_second=constant == second)


def _arithmetic(op_type: str, value: npt.NDArray[np.float64], constant_is_second: bool) -> Affine | None:
    ones, zeros = np.ones_like(value), np.zeros_like(value)
    if op_type == "Add":
        return ones, value
    if op_type == "Sub":
        return (ones, -value) if constant_is_second else (-ones, value)
    if not _can_be_undone(value) or (op_type == "Div" and not constant_is_second):
        return None
    return (value if op_type == "Mul" else 1.0 / value), zeros


def _per_column(
    value: npt.NDArray[np.float64] | None, rank: int, axis: int, cols: int
) -> npt.NDArray[np.float64] | None:
    """A constant as one number for each column, where it broadcasts over all other axes; else None."""
    if value is None or value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    if any(size != 1 for index, size in enumerate(shape) if index != axis) or shape[axis] not in (1, cols):
        return None
    return np.broadcast_to(value.reshape(-1), (cols,)).copy()


def _batch_normalization(follower: Op, tensor: str, cols: int, graph: nx.MultiDiGraph) -> Affine | None:
    """Y = (x - mean) / sqrt(var + epsilon) * gamma + beta, in inference."""
    if (
        follower.inputs[0] != tensor
        or follower.attributes.get("training_mode", 0)
        or len(list(filter(None, follower.outputs))) > 1
    ):
        return None
    values = [float_constant(graph, name) for name in follower.inputs[1:5]]
    gamma, beta, mean, variance = values
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    if any(value.shape != (cols,) for value in (gamma, beta, mean, variance)):
        return None  # before opset 9 there could be a scale for each element
    with np.errstate(
        invalid="ignore", divide="ignore"
    ):  # a negative or zero variance: can't be undone, see below
        scale = gamma / np.sqrt(variance + follower.attributes.get("epsilon", 1e-5))
    if not _can_be_undone(scale):
        return None
    return scale, beta - mean * scale


def _can_be_undone(scale: npt.NDArray[np.float64]) -> bool:
    size = np.abs(scale)
    return bool(np.all((size >= SMALLEST_SCALE) & (size <= LARGEST_SCALE)))
