"""Normalizations: batch (frozen or with running statistics), layer, group, instance, RMS, Lp, and by
neighbouring channels.
"""

from __future__ import annotations

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Domain, Rule, Values, given, summed_to

Axes = tuple[int, ...]


def standardized(x: Array, axes: Axes, epsilon: float) -> tuple[Array, Array, Array]:
    """(x - mean) / sqrt(var + epsilon), the mean, and 1 / sqrt(var + epsilon), over the axes.

    The variance is that of the values themselves (divided by their number), as in ONNX.
    """
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    inverse = 1 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


def standardized_backward(grad: Array, y: Array, inverse: Array, axes: Axes) -> Array:
    """The gradient by x, of that by y = standardized(x)."""
    along = (grad * y).mean(axis=axes, keepdims=True)
    found: Array = inverse * (grad - grad.mean(axis=axes, keepdims=True) - y * along)
    return found


def _channels(values: Array, x: Array) -> Array:
    """One value a channel, [C], or one a place, [C, ...] (before version 9), ready for [n, C, ...]."""
    return values.reshape(1, *values.shape, *(1,) * (x.ndim - 1 - values.ndim))


def _all_but(x: Array, values: Array) -> Axes:
    """The axes of x that `values`, one a channel, does not have."""
    return (0, *range(1 + values.ndim, x.ndim))


# --- BatchNormalization ---


def writes_statistics(node: Node) -> bool:
    """Whether a BatchNormalization uses the statistics of the batch in training, and keeps running ones: if
    the graph says so, by `training_mode` or, before version 14, by naming the outputs that only training has.
    """
    return bool(node.get("training_mode", 0)) if node.opset >= 14 else len(node.outputs) > 1


def _batch_norm(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, scale, bias, mean, variance = inputs
    epsilon = node.get("epsilon", 1e-5)
    if not (context.training and writes_statistics(node)):
        factor = scale / np.sqrt(variance + epsilon)
        y = x * _channels(factor, x) + _channels(bias - mean * factor, x)
        return (y.astype(x.dtype, copy=False), mean, variance)[: len(node.outputs)]
    axes = _all_but(x, scale)
    y, batch_mean, _ = standardized(x, axes, epsilon)
    batch_variance = x.var(axis=axes).reshape(variance.shape)
    momentum = node.get("momentum", 0.9)
    running = [
        (old * momentum + new * (1 - momentum)).astype(old.dtype)
        for old, new in ((mean, batch_mean.reshape(mean.shape)), (variance, batch_variance))
    ]
    context.updates[node.inputs[3]], context.updates[node.inputs[4]] = running
    y = y * _channels(scale, x) + _channels(bias, x)
    saved = [batch_mean.reshape(mean.shape), batch_variance]
    return (y.astype(x.dtype, copy=False), *running, *saved)[: len(node.outputs)]


def _batch_norm_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, scale, bias, mean, variance = inputs
    grad = _only_first(node, grads)
    axes, epsilon = _all_but(x, scale), node.get("epsilon", 1e-5)
    if context.training and writes_statistics(node):
        y, _, inverse = standardized(x, axes, epsilon)
        by_x = standardized_backward(grad * _channels(scale, x), y, inverse, axes)
    else:
        inverse = _channels(1 / np.sqrt(variance + epsilon), x)
        y = (x - _channels(mean, x)) * inverse
        by_x = grad * (inverse * _channels(scale, x))
    by_scale = (grad * y).sum(axis=axes).reshape(scale.shape)
    return by_x, by_scale, grad.sum(axis=axes).reshape(bias.shape), None, None


def _only_first(node: Node, grads: Values) -> Array:
    """The gradient by the first output; ModelError if a path leads through the statistics."""
    if any(grad is not None for grad in grads[1:]):
        fail(
            node, "the loss depends on the statistics that it puts out; only its first output has a gradient"
        )
    found: Array = grads[0]
    return found


# --- over the axes of one example ---


def _last_axes(node: Node, x: Array) -> Axes:
    return tuple(range(node.get("axis", -1) % x.ndim, x.ndim))


def _layer_norm(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, scale, bias = inputs[0], inputs[1], given(inputs, 2)
    y, mean, inverse = standardized(x, _last_axes(node, x), node.get("epsilon", 1e-5))
    y = y * scale
    return (y if bias is None else y + bias, mean, inverse)[: len(node.outputs)]


def _layer_norm_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, scale = inputs[0], inputs[1]
    grad = _only_first(node, grads)
    axes = _last_axes(node, x)
    y, _, inverse = standardized(x, axes, node.get("epsilon", 1e-5))
    by_x = standardized_backward(grad * scale, y, inverse, axes)
    by_bias = [None if bias is None else summed_to(grad, bias.shape) for bias in inputs[2:]]
    return (by_x, summed_to(grad * y, scale.shape), *by_bias)


def _rms_norm(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """The value x / sqrt(mean(x^2) + epsilon), times the scale."""
    x, scale = inputs
    return (x * _inverse_rms(node, x) * scale,)


def _inverse_rms(node: Node, x: Array) -> Array:
    mean_square = (x * x).mean(axis=_last_axes(node, x), keepdims=True)
    found: Array = 1 / np.sqrt(mean_square + node.get("epsilon", 1e-5))
    return found


def _rms_norm_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, scale = inputs
    inverse = _inverse_rms(node, x)
    y, grad = x * inverse, grads[0] * scale
    along = (grad * y).mean(axis=_last_axes(node, x), keepdims=True)
    return inverse * (grad - y * along), summed_to(grads[0] * y, scale.shape)


def _instance_norm(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, scale, bias = inputs
    y, _, _ = standardized(x, _all_but(x, scale)[1:], node.get("epsilon", 1e-5))
    return (y * _channels(scale, x) + _channels(bias, x),)


def _instance_norm_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, scale, _ = inputs
    (grad,) = grads
    every = _all_but(x, scale)
    y, _, inverse = standardized(x, every[1:], node.get("epsilon", 1e-5))
    by_x = standardized_backward(grad * _channels(scale, x), y, inverse, every[1:])
    return by_x, (grad * y).sum(axis=every), grad.sum(axis=every)


def _grouped(node: Node, x: Array) -> Array:
    """[n, groups, channels of a group, ...]."""
    groups = int(node.get("num_groups"))
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _group_scale(node: Node, x: Array, values: Array) -> Array:
    """One value a channel, [C]; before version 21 there is one a group, which its channels share."""
    return np.repeat(values, x.shape[1] // len(values)) if node.opset < 21 else values


def _group_norm(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, scale, bias = inputs
    grouped = _grouped(node, x)
    y, _, _ = standardized(grouped, tuple(range(2, grouped.ndim)), node.get("epsilon", 1e-5))
    scale, bias = (_channels(_group_scale(node, x, values), x) for values in (scale, bias))
    return (y.reshape(x.shape) * scale + bias,)


def _group_norm_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, scale, bias = inputs
    (grad,) = grads
    grouped = _grouped(node, x)
    axes = tuple(range(2, grouped.ndim))
    y, _, inverse = standardized(grouped, axes, node.get("epsilon", 1e-5))
    wide = _channels(_group_scale(node, x, scale), x)
    by_x = standardized_backward((grad * wide).reshape(grouped.shape), y, inverse, axes).reshape(x.shape)
    every = (0, *range(2, x.ndim))
    by_scale, by_bias = (grad * y.reshape(x.shape)).sum(axis=every), grad.sum(axis=every)
    return by_x, by_scale.reshape(len(scale), -1).sum(axis=1), by_bias.reshape(len(bias), -1).sum(axis=1)


#: What MeanVarianceNormalization adds to the standard deviation, by its definition in ONNX.
_MVN_EPSILON = 1e-9


def _mean_variance(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (standardized(inputs[0], tuple(node.get("axes", (0, 2, 3))), _MVN_EPSILON**2)[0],)


def _mean_variance_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    axes = tuple(node.get("axes", (0, 2, 3)))
    y, _, inverse = standardized(inputs[0], axes, _MVN_EPSILON**2)
    return (standardized_backward(grads[0], y, inverse, axes),)


# --- by a norm, and by neighbouring channels ---


def _lp_size(node: Node, x: Array) -> Array:
    """The p-norm along the axis, for p = 1 or 2; 1 where it is 0."""
    axis, p = node.get("axis", -1), node.get("p", 2)
    if p not in (1, 2):
        fail(node, f"p is {p}; ONNX has 1 and 2")
    total = (
        np.abs(x).sum(axis=axis, keepdims=True) if p == 1 else np.sqrt((x * x).sum(axis=axis, keepdims=True))
    )
    found: Array = np.where(total == 0, 1, total).astype(x.dtype, copy=False)
    return found


def _lp_norm(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (inputs[0] / _lp_size(node, inputs[0]),)


def _lp_norm_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, y, (grad,) = inputs[0], outputs[0], grads
    along = (grad * y).sum(axis=node.get("axis", -1), keepdims=True)
    direction = y if node.get("p", 2) == 2 else np.sign(x)
    return ((grad - direction * along) / _lp_size(node, x),)


def _neighbours(node: Node, values: Array, mirrored: bool = False) -> Array:
    """The sum over `size` neighbours of each channel; mirrored: over those whose sum has this one."""
    size = int(node.get("size"))
    ahead, behind = (size - 1) // 2, size - 1 - (size - 1) // 2
    if mirrored:
        ahead, behind = behind, ahead
    padded = np.pad(values, [(0, 0), (ahead, behind), *[(0, 0)] * (values.ndim - 2)])
    found: Array = np.sum(
        [padded[:, at : at + values.shape[1]] for at in range(size)], axis=0, dtype=values.dtype
    )
    return found


def _local_base(node: Node, x: Array) -> Array:
    share = node.get("alpha", 1e-4) / int(node.get("size"))
    found: Array = node.get("bias", 1.0) + share * _neighbours(node, x * x)
    return found


def _local_response(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """The value x / (bias + alpha / size * sum of the neighbours' squares)^beta."""
    x = inputs[0]
    return (x * _local_base(node, x) ** -node.get("beta", 0.75),)


def _local_response_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, y, (grad,) = inputs[0], outputs[0], grads
    base, beta = _local_base(node, x), node.get("beta", 0.75)
    share = 2 * beta * node.get("alpha", 1e-4) / int(node.get("size"))
    return (grad * base**-beta - share * x * _neighbours(node, grad * y / base, mirrored=True),)


ROWS: dict[str, Rule] = {
    "BatchNormalization": Rule(
        _batch_norm,
        _batch_norm_backward,
        through=(0, 1, 2),
        domains=(Domain(), Domain(), Domain(), Domain(), Domain(0.3, 2)),
    ),
    "GroupNormalization": Rule(_group_norm, _group_norm_backward),
    "InstanceNormalization": Rule(_instance_norm, _instance_norm_backward),
    "LRN": Rule(_local_response, _local_response_backward),
    "LayerNormalization": Rule(_layer_norm, _layer_norm_backward),
    "LpNormalization": Rule(_lp_norm, _lp_norm_backward, domains=(Domain(kinks=(0.0,)),)),
    "MeanVarianceNormalization": Rule(_mean_variance, _mean_variance_backward),
    "RMSNormalization": Rule(_rms_norm, _rms_norm_backward),
}
