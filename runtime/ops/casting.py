"""Changes of type, to and from whole numbers with a scale among them."""

from __future__ import annotations

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Rule, Values, given


def _cast(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    import onnx

    return (inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(node.get("to"))),)


def _cast_like(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (inputs[0].astype(inputs[1].dtype),)


def _cast_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """Between floating types the gradient is cast back; through whole numbers none passes."""
    floats = outputs[0].dtype.kind == "f" and inputs[0].dtype.kind == "f"
    grad = grads[0].astype(inputs[0].dtype) if floats else None
    return (grad, *(None,) * (len(inputs) - 1))


def _dequantize(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """(x - zero point) * scale."""
    x, scale, zero = inputs[0], inputs[1], given(inputs, 2)
    steps = x.astype(np.int32) - (0 if zero is None else _spread(node, x, zero).astype(np.int32))
    return ((steps.astype(scale.dtype) * _spread(node, x, scale)).astype(scale.dtype, copy=False),)


def _quantize(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """round(x / scale) + zero point, held within the type of the zero point (uint8 without one)."""
    import onnx

    x, scale, zero = inputs[0], inputs[1], given(inputs, 2)
    asked = node.get("output_dtype", 0)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(asked) if asked else np.dtype(np.uint8)
    dtype = dtype if zero is None else zero.dtype
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        fail(node, f"quantizing to {dtype} has no rule; to whole numbers of 8, 16 or 32 bits there is one")
    steps = np.rint(x / _spread(node, x, scale)).astype(np.float64)
    steps += 0 if zero is None else _spread(node, x, zero)
    limits = np.iinfo(dtype)
    return (np.clip(steps, limits.min, limits.max).astype(dtype),)


def _spread(node: Node, x: Array, values: Array) -> Array:
    """One value for all, for each place along `axis`, or for each block along it, ready to broadcast."""
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    if block:
        return np.repeat(values, block, axis=axis).take(range(x.shape[axis]), axis=axis)
    if values.size == 1:
        return values.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)


ROWS: dict[str, Rule] = {
    "Cast": Rule(_cast, _cast_backward),
    "CastLike": Rule(_cast_like, _cast_backward, through=(0,)),
    "DequantizeLinear": Rule(_dequantize, None),
    "QuantizeLinear": Rule(_quantize, None),
}
