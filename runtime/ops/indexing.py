"""Operators that read or write values at given places. Negative places count from the end."""

from __future__ import annotations

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Rule, Values

Places = tuple[Array, ...]


def _gather(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, indices = inputs
    return (np.take(x, indices, axis=node.get("axis", 0)),)


def _gather_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """A place that is read twice gets both gradients."""
    x, indices = inputs
    axis = node.get("axis", 0) % x.ndim
    found = np.zeros_like(x)
    rows = np.moveaxis(grads[0], range(axis, axis + indices.ndim), range(indices.ndim))
    np.add.at(np.moveaxis(found, axis, 0), indices, rows)
    return found, None


def _along(indices: Array, axis: int) -> Places:
    """The places that element-wise indices along an axis name, in every axis."""
    grids: list[Array] = list(np.indices(indices.shape, sparse=True))
    grids[axis] = indices
    return tuple(grids)


def _gather_elements(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, indices = inputs
    return (x[_along(indices, node.get("axis", 0))],)


def _gather_elements_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, indices = inputs
    found = np.zeros_like(x)
    np.add.at(found, _along(indices, node.get("axis", 0)), grads[0])
    return found, None


def _tuples(indices: Array, batch_dims: int = 0) -> Places:
    """The places that the last axis of the indices names, the batch axes ahead of them."""
    batch = np.indices(indices.shape[:-1], sparse=True)[:batch_dims]
    return (*batch, *np.moveaxis(indices, -1, 0))


def _gather_nd(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, indices = inputs
    return (np.asarray(x[_tuples(indices, node.get("batch_dims", 0))]),)


def _gather_nd_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, indices = inputs
    found = np.zeros_like(x)
    np.add.at(found, _tuples(indices, node.get("batch_dims", 0)), grads[0])
    return found, None


def _scatter(node: Node, inputs: Values, places: Places) -> tuple[Array, ...]:
    """A copy with the updates written, or added, at the places."""
    x, _, updates = inputs
    found = x.copy()
    if _adds(node):
        np.add.at(found, places, updates)
    else:
        found[places] = updates
    return (found,)


def _scatter_backward(node: Node, inputs: Values, grad: Array, places: Places) -> tuple[Array | None, ...]:
    """Of a place that is written twice the order is not defined in ONNX, nor is then its gradient."""
    by_x = grad
    if not _adds(node):
        by_x = grad.copy()
        by_x[places] = 0
    return by_x, None, grad[places]


def _adds(node: Node) -> bool:
    reduction = node.get("reduction", "none")
    if reduction not in ("none", "add"):
        fail(node, f"reduction {reduction} has no rule; 'none' and 'add' have")
    return bool(reduction == "add")


def _scatter_elements(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return _scatter(node, inputs, _along(inputs[1], node.get("axis", 0)))


def _scatter_elements_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return _scatter_backward(node, inputs, grads[0], _along(inputs[1], node.get("axis", 0)))


def _scatter_nd(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return _scatter(node, inputs, _tuples(inputs[1]))


def _scatter_nd_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return _scatter_backward(node, inputs, grads[0], _tuples(inputs[1]))


def _top_k(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """The k largest (or smallest) values in order, and where they are; of equal ones the first."""
    x, axis = inputs[0], node.get("axis", -1)
    k = int(node.get("k")) if node.opset < 10 else int(np.ravel(inputs[1])[0])
    ascending = x if not node.get("largest", 1) else -x
    indices = np.take(np.argsort(ascending, axis=axis, kind="stable"), np.arange(k), axis=axis)
    return np.take_along_axis(x, indices, axis=axis), indices.astype(np.int64)


def _top_k_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    if grads[0] is None:
        return (None,) * len(inputs)
    indices = _top_k(node, inputs, context)[1]
    found = np.zeros_like(inputs[0])
    np.put_along_axis(found, indices, grads[0], axis=node.get("axis", -1))
    return (found, *(None,) * (len(inputs) - 1))


ROWS: dict[str, Rule] = {
    "Gather": Rule(_gather, _gather_backward, through=(0,)),
    "GatherElements": Rule(_gather_elements, _gather_elements_backward, through=(0,)),
    "GatherND": Rule(_gather_nd, _gather_nd_backward, through=(0,)),
    "Scatter": Rule(_scatter_elements, _scatter_elements_backward, through=(0, 2)),
    "ScatterElements": Rule(_scatter_elements, _scatter_elements_backward, through=(0, 2)),
    "ScatterND": Rule(_scatter_nd, _scatter_nd_backward, through=(0, 2)),
    "TopK": Rule(_top_k, _top_k_backward, through=(0,)),
}
