"""Reductions along axes: Reduce*, ArgMax and ArgMin, running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node
from pcmc.runtime.ops.rule import Domain, Rule, Values, given
from pcmc.runtime.ops.shapes import parameter

#: Of the array and its axes, the result with the axes kept.
Reduce = Callable[[Array, tuple[int, ...]], Array]
#: dy/dx of the array, the result with the axes kept, and the axes.
Slope = Callable[[Array, Array, tuple[int, ...]], Any]


def _axes(node: Node, inputs: Values) -> tuple[int, ...]:
    """The axes to reduce: attribute, or input since version 13 (ReduceSum) or 18; all if none are named."""
    axes = parameter(node, inputs, "axes", 1, since=13 if node.op_type == "ReduceSum" else 18)
    rank = inputs[0].ndim
    if not axes:
        return () if node.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(axis % rank for axis in axes)


def _row(function: Reduce, slope: Slope, domain: Domain | None = None) -> Rule:
    """A reduction and its slope."""

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        x, axes = inputs[0], _axes(node, inputs)
        y = np.asarray(function(x, axes), x.dtype)
        return (y if node.get("keepdims", 1) else np.squeeze(y, axis=axes),)

    def backward(
        node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
    ) -> tuple[Array | None, ...]:
        x, axes = inputs[0], _axes(node, inputs)
        kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        y, grad = outputs[0].reshape(kept), grads[0].reshape(kept)
        found = np.broadcast_to(grad * slope(x, y, axes), x.shape).astype(x.dtype)
        return (found, *(None,) * (len(inputs) - 1))

    return Rule(forward, backward, through=(0,), domains=(domain or Domain(),))


def _count(x: Array, axes: tuple[int, ...]) -> int:
    return int(np.prod([x.shape[axis] for axis in axes]))


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    found: Array = x.sum(axis=axes, keepdims=True)
    return found


def _extreme_slope(x: Array, y: Array, axes: tuple[int, ...]) -> Array:
    """The ones that tie share the gradient in equal parts, as in PyTorch's amax."""
    hits = (x == y).astype(x.dtype)
    found: Array = hits / np.maximum(hits.sum(axis=axes, keepdims=True), 1)
    return found


def _product_slope(x: Array, y: Array, axes: tuple[int, ...]) -> Array:
    """The product of all others, exact where values are zero: of those before times those after."""
    last = tuple(range(x.ndim - len(axes), x.ndim))
    moved = np.moveaxis(x, axes, last)
    rows = moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)
    ones = np.ones((*rows.shape[:-1], 1), x.dtype)
    before = np.cumprod(np.concatenate([ones, rows[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([ones, rows[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    return np.moveaxis((before * after).reshape(moved.shape), last, axes)


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Array:
    most = x.max(axis=axes, keepdims=True)
    most = np.where(np.isfinite(most), most, 0).astype(x.dtype, copy=False)
    found: Array = np.log(np.exp(x - most).sum(axis=axes, keepdims=True)) + most
    return found


def _norm(x: Array, axes: tuple[int, ...]) -> Array:
    found: Array = np.sqrt((x * x).sum(axis=axes, keepdims=True))
    return found


def _arg(function: Callable[..., Array]) -> Rule:
    """ArgMax and ArgMin: places, which no gradient passes."""

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        x, axis, keep = inputs[0], node.get("axis", 0), bool(node.get("keepdims", 1))
        if node.get("select_last_index", 0):
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=keep)
        else:
            found = function(x, axis=axis, keepdims=keep)
        return (np.asarray(found, np.int64),)

    return Rule(forward, None, through=())


def _cum_sum(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (_running_sum(node, inputs, inputs[0], bool(node.get("reverse", 0))),)


def _cum_sum_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """The running sum from the other end."""
    return _running_sum(node, inputs, grads[0], not node.get("reverse", 0)), None


def _running_sum(node: Node, inputs: Values, x: Array, reverse: bool) -> Array:
    axis = int(np.ravel(given(inputs, 1))[0])
    turned = np.flip(x, axis) if reverse else x
    found = np.cumsum(turned, axis=axis, dtype=x.dtype)
    if node.get("exclusive", 0):
        ahead = np.zeros_like(np.take(found, [0], axis=axis))
        found = np.concatenate([ahead, np.take(found, np.arange(x.shape[axis] - 1), axis=axis)], axis=axis)
    return np.flip(found, axis) if reverse else found


ROWS: dict[str, Rule] = {
    "ArgMax": _arg(np.argmax),
    "ArgMin": _arg(np.argmin),
    "CumSum": Rule(_cum_sum, _cum_sum_backward, through=(0,)),
    "ReduceL1": _row(
        lambda x, axes: np.abs(x).sum(axis=axes, keepdims=True),
        lambda x, y, axes: np.sign(x),
        Domain(kinks=(0.0,)),
    ),
    "ReduceL2": _row(_norm, lambda x, y, axes: x / np.where(y == 0, 1, y)),
    "ReduceLogSum": _row(
        lambda x, axes: np.log(_sum(x, axes)), lambda x, y, axes: np.exp(-y), Domain(0.2, 2)
    ),
    "ReduceLogSumExp": _row(_log_sum_exp, lambda x, y, axes: np.exp(x - y)),
    "ReduceMax": _row(lambda x, axes: x.max(axis=axes, keepdims=True), _extreme_slope),
    "ReduceMean": _row(
        lambda x, axes: x.mean(axis=axes, keepdims=True), lambda x, y, axes: 1 / _count(x, axes)
    ),
    "ReduceMin": _row(lambda x, axes: x.min(axis=axes, keepdims=True), _extreme_slope),
    "ReduceProd": _row(lambda x, axes: x.prod(axis=axes, keepdims=True), _product_slope),
    "ReduceSum": _row(_sum, lambda x, y, axes: 1),
    "ReduceSumSquare": _row(lambda x, axes: _sum(x * x, axes), lambda x, y, axes: 2 * x),
}
