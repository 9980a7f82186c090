"""Pools, over windows or over whole images. Of values that tie for the largest the first takes the gradient,
as in PyTorch.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node
from pcmc.runtime.ops.rule import Domain, Rule, Values
from pcmc.runtime.ops.windows import Windows, windows_of


def _windows(node: Node, x: Array) -> Windows:
    return windows_of(node, x.shape[2:], tuple(int(size) for size in node.get("kernel_shape")))


# --- MaxPool ---


def _lowest(x: Array) -> float:
    return -np.inf if x.dtype.kind == "f" else float(np.iinfo(x.dtype).min)


def _max_pool(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """The largest of each window, and its place in the flattened input if the node asks for it."""
    x = inputs[0]
    windows = _windows(node, x)
    padded = windows.padded(x, _lowest(x))
    cuts = windows.cuts()
    y = padded[next(cuts)].copy()
    for cut in cuts:
        np.maximum(y, padded[cut], out=y)
    if len(node.outputs) > 1:
        return y, _places(node, x, y, padded, windows)
    return (y,)


def _places(node: Node, x: Array, y: Array, padded: Array, windows: Windows) -> Array:
    """Where the largest values are in the flattened input, int64; column by column with storage_order 1."""
    order = "F" if node.get("storage_order", 0) else "C"
    inside = np.arange(int(np.prod(x.shape[2:])), dtype=np.int64).reshape(x.shape[2:], order=order)  # type: ignore[call-overload]
    ahead = np.arange(x.shape[0] * x.shape[1], dtype=np.int64).reshape(*x.shape[:2], *(1,) * inside.ndim)
    numbered = windows.padded(ahead * inside.size + inside)
    found = np.zeros(y.shape, np.int64)
    free = np.ones(y.shape, bool)
    for cut in windows.cuts():
        hit = free & (padded[cut] == y)
        found[hit] = numbered[cut][hit]
        free &= ~hit
    return found


def _max_pool_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, y, grad = inputs[0], outputs[0], grads[0]
    if grad is None:
        return (None,)
    windows = _windows(node, x)
    padded, found = windows.padded(x, _lowest(x)), windows.padded_like(x)
    free = np.ones(y.shape, bool)
    for cut in windows.cuts():
        hit = free & (padded[cut] == y)
        found[cut] += grad * hit
        free &= ~hit
    return (found[windows.inner],)


def _unpool(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """Values written back to the places that a MaxPool gave; zero elsewhere."""
    x, places = inputs[0], inputs[1]
    if len(inputs) > 2 and inputs[2] is not None:
        shape = tuple(int(size) for size in inputs[2])
    else:
        kernel = node.get("kernel_shape")
        strides = node.get("strides") or (1,) * len(kernel)
        pads = node.get("pads") or (0,) * (2 * len(kernel))
        sizes = zip(x.shape[2:], strides, kernel, pads[: len(kernel)], pads[len(kernel) :], strict=True)
        shape = (*x.shape[:2], *((n - 1) * step + size - a - b for n, step, size, a, b in sizes))
    found = np.zeros(shape, x.dtype)
    found.reshape(-1)[places.reshape(-1)] = x.reshape(-1)
    return (found,)


def _unpool_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return (grads[0].reshape(-1)[inputs[1]], *(None,) * (len(inputs) - 1))


# --- AveragePool ---


@functools.lru_cache(maxsize=256)
def _counts(windows: Windows, dtype: np.dtype[Any], padding_counts: bool) -> Array:
    """How many values each window averages: those in the padding, too, if they count, never those that a
    rounded-up output size reaches beyond it. Shared, so read-only.
    """
    ones = np.ones((1, 1, *windows.size), dtype)
    inside = windows.padded(ones, float(padding_counts), beyond=0.0)
    found: Array = np.sum([inside[cut] for cut in windows.cuts()], axis=0, dtype=dtype)
    found.flags.writeable = False
    return found


def _counts_of(node: Node, x: Array, windows: Windows) -> Array:
    return _counts(windows, x.dtype, bool(node.get("count_include_pad", 0)))


def _average_pool(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x = inputs[0]
    windows = _windows(node, x)
    padded = windows.padded(x)
    cuts = windows.cuts()
    y = padded[next(cuts)].copy()
    for cut in cuts:
        y += padded[cut]
    return (y / _counts_of(node, x, windows),)


def _average_pool_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x = inputs[0]
    windows = _windows(node, x)
    share = grads[0] / _counts_of(node, x, windows)
    found = windows.padded_like(x)
    for cut in windows.cuts():
        found[cut] += share
    return (found[windows.inner],)


# --- LpPool ---


def _lp_pool(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """The p-norm of each window."""
    x, p = inputs[0], node.get("p", 2)
    windows = _windows(node, x)
    powers = windows.padded(np.abs(x) ** p)
    total = sum(powers[cut] for cut in windows.cuts())
    return (np.asarray(total ** (1 / p), x.dtype),)


def _lp_pool_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """dy/dx = sign(x) (|x| / y)^(p - 1); 0 where y is 0."""
    x, y, p = inputs[0], outputs[0], node.get("p", 2)
    windows = _windows(node, x)
    share = grads[0] * np.where(y == 0, 1, y) ** (1.0 - p)
    found = windows.padded_like(x)
    for cut in windows.cuts():
        found[cut] += share
    return (_lp_slope(x, p) * found[windows.inner],)


def _lp_slope(x: Array, p: int) -> Array:
    found: Array = np.sign(x) * np.abs(x) ** (p - 1)
    return found


# --- over whole images ---


def _whole(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _global_average(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (inputs[0].mean(axis=_whole(inputs[0]), keepdims=True),)


def _global_average_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x = inputs[0]
    return (np.broadcast_to(grads[0] / int(np.prod(x.shape[2:])), x.shape).astype(x.dtype),)


def _global_max(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (inputs[0].max(axis=_whole(inputs[0]), keepdims=True),)


def _global_max_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x = inputs[0]
    rows = x.reshape(*x.shape[:2], -1)
    found = np.zeros_like(rows)
    np.put_along_axis(found, rows.argmax(axis=2, keepdims=True), grads[0].reshape(*x.shape[:2], 1), axis=2)
    return (found.reshape(x.shape),)


def _global_lp(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, p = inputs[0], node.get("p", 2)
    total = (np.abs(x) ** p).sum(axis=_whole(x), keepdims=True)
    return (np.asarray(total ** (1 / p), x.dtype),)


def _global_lp_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, y, p = inputs[0], outputs[0], node.get("p", 2)
    return (_lp_slope(x, p) * grads[0] * np.where(y == 0, 1, y) ** (1.0 - p),)


_KINK = Domain(kinks=(0.0,))

ROWS: dict[str, Rule] = {
    "AveragePool": Rule(_average_pool, _average_pool_backward),
    "GlobalAveragePool": Rule(_global_average, _global_average_backward),
    "GlobalLpPool": Rule(_global_lp, _global_lp_backward, domains=(_KINK,)),
    "GlobalMaxPool": Rule(_global_max, _global_max_backward),
    "LpPool": Rule(_lp_pool, _lp_pool_backward, domains=(_KINK,)),
    "MaxPool": Rule(_max_pool, _max_pool_backward),
    "MaxUnpool": Rule(_unpool, _unpool_backward, through=(0,)),
}
