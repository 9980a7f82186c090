"""Dropout: the only rule that draws random numbers."""

from __future__ import annotations

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node
from pcmc.runtime.ops.rule import Rule, Values, given


def _dropout(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """The kept values are divided by the chance to be kept. Identity unless training, and since version 12
    also unless the node's own training_mode is set.
    """
    x = inputs[0]
    kept = _kept(node, inputs, context)
    if kept is None:
        mask = np.full(x.shape, node.opset >= 12)  # what onnxruntime puts out
        return x, mask if node.opset >= 10 else mask.astype(x.dtype)
    return (x * _dropout_scale(node, inputs, kept), kept)


def _kept(node: Node, inputs: Values, context: Context) -> Array | None:
    """The mask of this step, the same in forward and backward; None where the node is the identity."""
    mode = given(inputs, 2)
    asked = node.opset < 12 or (mode is not None and bool(np.ravel(mode)[0]))
    if not (context.training and asked):
        return None
    drawn = context.stream(node.name).random(inputs[0].shape, dtype=np.float32)
    return np.asarray(drawn >= _ratio(node, inputs))


def _ratio(node: Node, inputs: Values) -> float:
    ratio = node.get("ratio") if node.opset < 12 else given(inputs, 1)
    return 0.5 if ratio is None else float(np.ravel(ratio)[0])


def _dropout_scale(node: Node, inputs: Values, kept: Array) -> Array:
    scale = 1 / (1 - _ratio(node, inputs)) if _ratio(node, inputs) < 1 else 0.0
    return (kept * scale).astype(inputs[0].dtype)


def _dropout_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    kept = _kept(node, inputs, context)
    grad = grads[0]
    if kept is not None and grad is not None:
        grad = grad * _dropout_scale(node, inputs, kept)
    return (grad, *(None,) * (len(inputs) - 1))


ROWS: dict[str, Rule] = {"Dropout": Rule(_dropout, _dropout_backward, through=(0,))}
