"""Softmax and its kin. Before version 13 the axes from `axis` on are taken as one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node
from pcmc.runtime.ops.rule import Rule, Values


def _rows(node: Node, x: Array) -> tuple[Array, int]:
    """The array in the shape that is normalized along the returned axis."""
    if node.opset >= 13:
        return x, int(node.get("axis", -1))
    axis = int(node.get("axis", 1))
    axis += x.ndim if axis < 0 else 0
    return x.reshape(int(np.prod(x.shape[:axis])), -1), 1


def softmax(x: Array, axis: int) -> Array:
    """exp(x) / sum exp(x) along the axis."""
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    found: Array = powers / powers.sum(axis=axis, keepdims=True)
    return found


def log_softmax(x: Array, axis: int) -> Array:
    """The logarithm of softmax, exact also where that underflows."""
    shifted = x - x.max(axis=axis, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return found


def _hardmax(x: Array, axis: int) -> Array:
    """1 at the first largest value, 0 elsewhere."""
    found = np.zeros_like(x)
    np.put_along_axis(found, x.argmax(axis=axis, keepdims=True), 1, axis=axis)
    return found


def _softmax_grad(y: Array, grad: Array, axis: int) -> Array:
    weighted = y * grad
    found: Array = weighted - y * weighted.sum(axis=axis, keepdims=True)
    return found


def _log_softmax_grad(y: Array, grad: Array, axis: int) -> Array:
    found: Array = grad - np.exp(y) * grad.sum(axis=axis, keepdims=True)
    return found


def _row(function: Callable[[Array, int], Array], slope: Callable[[Array, Array, int], Array] | None) -> Rule:
    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        rows, axis = _rows(node, inputs[0])
        return (function(rows, axis).reshape(inputs[0].shape),)

    if slope is None:
        return Rule(forward, None)
    chain = slope

    def backward(
        node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
    ) -> tuple[Array | None, ...]:
        y, axis = _rows(node, outputs[0])
        return (chain(y, grads[0].reshape(y.shape), axis).reshape(inputs[0].shape),)

    return Rule(forward, backward)


ROWS: dict[str, Rule] = {
    "Hardmax": _row(_hardmax, None),
    "LogSoftmax": _row(log_softmax, _log_softmax_grad),
    "Softmax": _row(softmax, _softmax_grad),
}
