"""Operators that move values without computing: reshaping, transposing, slicing, joining, padding.

Where an operator's parameters moved from attributes to inputs with a version, both are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Rule, Values, given, single, summed_to


def parameter(node: Node, inputs: Values, name: str, index: int, since: int) -> tuple[int, ...] | None:
    """Whole numbers that are an attribute before version `since`, an input from then on; None if absent."""
    value = given(inputs, index) if node.opset >= since else node.get(name)
    return None if value is None else tuple(int(item) for item in np.ravel(value))


def _reshaping(function: Callable[[Node, Values], Array]) -> Rule:
    """An operator that only changes the shape of its first input."""

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        return (function(node, inputs),)

    def backward(
        node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
    ) -> tuple[Array | None, ...]:
        return (grads[0].reshape(inputs[0].shape), *(None,) * (len(inputs) - 1))

    return Rule(forward, backward, through=(0,))


def _reshape(node: Node, inputs: Values) -> Array:
    """-1 is what is left over, 0 the size that the input has there (unless `allowzero`)."""
    x, shape = inputs[0], [int(size) for size in inputs[1]]
    if not node.get("allowzero", 0):
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    found: Array = x.reshape(shape)
    return found


def _flatten(node: Node, inputs: Values) -> Array:
    x, axis = inputs[0], int(node.get("axis", 1))
    axis += x.ndim if axis < 0 else 0
    rows = int(np.prod(x.shape[:axis]))
    found: Array = x.reshape(rows, int(np.prod(x.shape[axis:])))
    return found


def _squeeze(node: Node, inputs: Values) -> Array:
    found: Array = np.squeeze(inputs[0], axis=parameter(node, inputs, "axes", 1, since=13))
    return found


def _unsqueeze(node: Node, inputs: Values) -> Array:
    axes = parameter(node, inputs, "axes", 1, since=13)
    if axes is None:
        fail(node, "the axes to insert are missing")
    return np.expand_dims(inputs[0], axes)


def _transpose(node: Node, x: Array) -> Array:
    return x.transpose(node.get("perm"))


def _transpose_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    perm = node.get("perm")
    return (grads[0].transpose(None if perm is None else np.argsort(perm)),)


def _expand(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, shape = inputs[0], tuple(int(size) for size in inputs[1])
    return (np.broadcast_to(x, np.broadcast_shapes(x.shape, shape)).copy(),)


def _expand_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return summed_to(grads[0], inputs[0].shape), None


def _tile(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (np.tile(inputs[0], tuple(int(count) for count in inputs[1])),)


def _tile_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """Each axis is split into (repeat, size), and summed over the repeats."""
    x, repeats = inputs[0], [int(count) for count in inputs[1]]
    split = [size for pair in zip(repeats, x.shape, strict=True) for size in pair]
    return grads[0].reshape(split).sum(axis=tuple(range(0, 2 * x.ndim, 2))).reshape(x.shape), None


def _concat(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (np.concatenate(inputs, axis=node.get("axis", 1)),)


def _concat_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    axis = node.get("axis", 1)
    ends = np.cumsum([x.shape[axis] for x in inputs])[:-1]
    return tuple(np.split(grads[0], ends, axis=axis))


def _split(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return tuple(_parts(node, inputs))


def _parts(node: Node, inputs: Values) -> list[Array]:
    x, axis = inputs[0], node.get("axis", 0)
    sizes = parameter(node, inputs, "split", 1, since=13)
    if sizes is None:  # equal parts; the last one is smaller if it must be
        parts = int(node.get("num_outputs", len(node.outputs)))
        step = -(-x.shape[axis] // parts)
        ends = np.minimum(np.arange(1, parts) * step, x.shape[axis])
    else:
        ends = np.cumsum(sizes)[:-1]
    return np.split(x, ends, axis=axis)


def _split_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    parts = [
        np.zeros_like(part) if grad is None else grad
        for part, grad in zip(_parts(node, inputs), grads, strict=True)
    ]
    return (np.concatenate(parts, axis=node.get("axis", 0)), *(None,) * (len(inputs) - 1))


def _slices(node: Node, inputs: Values) -> tuple[slice, ...]:
    """Python's slices say the same as ONNX's, out-of-range ends included."""
    starts = parameter(node, inputs, "starts", 1, since=10) or ()
    ends = parameter(node, inputs, "ends", 2, since=10) or ()
    axes = parameter(node, inputs, "axes", 3, since=10)
    steps = parameter(node, inputs, "steps", 4, since=10) or (1,) * len(starts)
    found = [slice(None)] * inputs[0].ndim
    for axis, *cut in zip(range(len(starts)) if axes is None else axes, starts, ends, steps, strict=True):
        found[axis] = slice(*cut)
    return tuple(found)


def _slice(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (inputs[0][_slices(node, inputs)],)


def _slice_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    found = np.zeros_like(inputs[0])
    found[_slices(node, inputs)] = grads[0]
    return (found, *(None,) * (len(inputs) - 1))


def _pads(node: Node, inputs: Values) -> tuple[list[tuple[int, int]], Any]:
    """(before, after) for every axis, and the constant. Negative ones crop."""
    rank = inputs[0].ndim
    sizes = parameter(node, inputs, "pads", 1, since=11) or (0,) * (2 * rank)
    axes = parameter(node, inputs, "axes", 3, since=11) or tuple(range(len(sizes) // 2))
    pads = [(0, 0)] * rank
    for axis, before, after in zip(axes, sizes[: len(axes)], sizes[len(axes) :], strict=True):
        pads[axis] = (before, after)
    constant = node.get("value", 0.0) if node.opset < 11 else given(inputs, 2)
    return pads, 0 if constant is None else np.ravel(constant)[0]


#: numpy's name of each mode of Pad.
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _pad(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    pads, constant = _pads(node, inputs)
    mode = _pad_mode(node)
    cropped = inputs[0][_crop(pads)]
    grow = [(max(before, 0), max(after, 0)) for before, after in pads]
    if mode == "constant":
        return (np.pad(cropped, grow, constant_values=constant),)
    return (np.pad(cropped, grow, mode=mode),)  # type: ignore[call-overload]


def _pad_mode(node: Node) -> str:
    mode = node.get("mode", "constant")
    if mode not in _PAD_MODES:
        fail(node, f"mode {mode} is unknown; ONNX has {', '.join(_PAD_MODES)}")
    return _PAD_MODES[mode]


def _crop(pads: list[tuple[int, int]]) -> tuple[slice, ...]:
    return tuple(slice(max(-before, 0), min(after, 0) or None) for before, after in pads)


def _pad_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """What a value was copied to comes back to it; the constant, if it is an input, gets the rest."""
    x, (grad,) = inputs[0], grads
    pads, _ = _pads(node, inputs)
    mode = _pad_mode(node)
    found = np.zeros_like(x)
    inner: Array = found[_crop(pads)]
    if mode == "constant":
        kept = tuple(slice(max(b, 0), max(b, 0) + n) for (b, _), n in zip(pads, inner.shape, strict=True))
        inner[...] = grad[kept]
    else:
        inner[...] = _folded(grad, inner.shape, pads, mode)
    others: list[Array | None] = [None] * (len(inputs) - 1)
    if mode == "constant" and given(inputs, 2) is not None and inputs[2].dtype.kind == "f":
        others[1] = np.asarray(grad.sum() - inner.sum(), inputs[2].dtype).reshape(inputs[2].shape)
    return (found, *others)


def _folded(grad: Array, shape: tuple[int, ...], pads: list[tuple[int, int]], mode: str) -> Array:
    """The gradient of a padding that copies, added up axis by axis where it was copied from."""
    for axis, (before, after) in enumerate(pads):
        if max(before, after) <= 0:
            continue
        source = np.pad(np.arange(shape[axis]), (max(before, 0), max(after, 0)), mode=mode)  # type: ignore[call-overload]
        ahead = np.moveaxis(grad, axis, 0)
        summed = np.zeros((shape[axis], *ahead.shape[1:]), grad.dtype)
        np.add.at(summed, source, ahead)
        grad = np.moveaxis(summed, 0, axis)
    return grad


def _depth_to_space(node: Node, x: Array) -> Array:
    n, channels, height, width = x.shape
    block = int(node.get("blocksize"))
    kept = channels // block**2
    if node.get("mode", "DCR") == "DCR":
        split = x.reshape(n, block, block, kept, height, width).transpose(0, 3, 4, 1, 5, 2)
    else:
        split = x.reshape(n, kept, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    return split.reshape(n, kept, height * block, width * block)


def _depth_to_space_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return (_space_to_depth(node, grads[0]),)


def _space_to_depth(node: Node, x: Array) -> Array:
    """The inverse of DepthToSpace in the same mode; the operator itself has DCR only before version 28."""
    n, channels, height, width = x.shape
    block = int(node.get("blocksize"))
    split = x.reshape(n, channels, height // block, block, width // block, block)
    if node.get("mode", "DCR") == "DCR":
        split = split.transpose(0, 3, 5, 1, 2, 4)
    else:
        split = split.transpose(0, 1, 3, 5, 2, 4)
    return split.reshape(n, channels * block**2, height // block, width // block)


def _space_to_depth_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return (_depth_to_space(node, grads[0]),)


def _trilu(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (_triangle(node, inputs, inputs[0]),)


def _trilu_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return (_triangle(node, inputs, grads[0]), *(None,) * (len(inputs) - 1))


def _triangle(node: Node, inputs: Values, x: Array) -> Array:
    diagonal = given(inputs, 1)
    k = 0 if diagonal is None else int(np.ravel(diagonal)[0])
    return np.triu(x, k) if node.get("upper", 1) else np.tril(x, k)


def _identity(node: Node, x: Array) -> Array:
    return x


def _identity_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return (grads[0],)


ROWS: dict[str, Rule] = {
    "Concat": Rule(_concat, _concat_backward),
    "DepthToSpace": Rule(single(_depth_to_space), _depth_to_space_backward),
    "Expand": Rule(_expand, _expand_backward, through=(0,)),
    "Flatten": _reshaping(_flatten),
    "Identity": Rule(single(_identity), _identity_backward),
    "Pad": Rule(_pad, _pad_backward, through=(0, 2)),
    "Reshape": _reshaping(_reshape),
    "Slice": Rule(_slice, _slice_backward, through=(0,)),
    "SpaceToDepth": Rule(single(_space_to_depth), _space_to_depth_backward),
    "Split": Rule(_split, _split_backward, through=(0,)),
    "Squeeze": _reshaping(_squeeze),
    "Tile": Rule(_tile, _tile_backward, through=(0,)),
    "Transpose": Rule(single(_transpose), _transpose_backward),
    "Trilu": Rule(_trilu, _trilu_backward, through=(0,)),
    "Unsqueeze": _reshaping(_unsqueeze),
}
