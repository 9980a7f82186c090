"""Lowering of Gemm and MatMul."""

from __future__ import annotations

import networkx as nx
import numpy as np

from pcmc.compiler.graph import Matrix, Op
from pcmc.compiler.lowering.weights import float_constant
from pcmc.runtime.program import Read

Found = tuple[Matrix, Read, str]


def lower_gemm(op: Op, graph: nx.MultiDiGraph) -> Found | None:
    """Y = alpha A' B' + beta C with a constant B and, where there is one, a constant C that is the same for
    all rows.

    A' and B' are A and B, transposed where transA and transB say so; alpha and beta go into the weights and
    the bias.
    """
    source, weights_name = op.inputs[0], op.inputs[1]
    weights = float_constant(graph, weights_name)
    if weights is None or source in graph.graph["constants"] or op.attributes.get("transA", 0):
        return None
    transposed = bool(op.attributes.get("transB", 0))
    alpha, beta = float(op.attributes.get("alpha", 1.0)), float(op.attributes.get("beta", 1.0))
    matrix = (weights.T if transposed else weights) * alpha
    bias = None
    if len(op.inputs) > 2 and op.inputs[2]:
        addend = float_constant(graph, op.inputs[2])
        if addend is None or (addend.ndim == 2 and addend.shape[0] > 1):
            return None
        bias = np.broadcast_to(addend.reshape(-1) * beta, (matrix.shape[1],)).astype(np.float32)
    transform = ("transposed" if transposed else "as it is") + (f", times {alpha!r}" if alpha != 1.0 else "")
    return _matrix(op, weights_name, matrix, bias, transform), Read("dense"), source


def lower_matmul(op: Op, graph: nx.MultiDiGraph) -> Found | None:
    """Y = A B with a constant matrix or vector on the right, or a constant matrix on the left."""
    left, right = op.inputs
    weights = float_constant(graph, right)
    if weights is not None and left not in graph.graph["constants"]:
        if (
            weights.ndim > 2
            and all(size == 1 for size in weights.shape[:-2])
            and weights.ndim <= _rank(graph, left)
        ):
            weights = weights.reshape(weights.shape[-2:])
        if weights.ndim > 2 or 0 in weights.shape:
            return None
        vector = weights.ndim == 1
        matrix = weights.reshape(-1, 1) if vector else weights
        return _matrix(op, right, matrix, None, "as it is"), Read("dense", vector_output=vector), left
    weights = float_constant(graph, left)
    if (
        weights is None
        or weights.ndim != 2
        or 0 in weights.shape
        or right in graph.graph["constants"]
        or _rank(graph, right) < 2
    ):
        return None
    return _matrix(op, left, weights.T, None, "transposed"), Read("columns"), right


def _rank(graph: nx.MultiDiGraph, tensor: str) -> int:
    info = graph.graph["tensors"].get(tensor)
    return 0 if info is None or info.shape is None else len(info.shape)


def _matrix(op: Op, initializer: str, weights: np.ndarray, bias: np.ndarray | None, transform: str) -> Matrix:
    contiguous = np.ascontiguousarray(weights, dtype=np.float32)
    return Matrix(op.name, contiguous, bias, initializer, (initializer,), transform)
