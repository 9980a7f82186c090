"""Convolutions over any number of axes, with groups, dilations and every way to state the padding.

The windows are gathered into columns, for a few images at a time, so that the columns stay in the cache and
never fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Rule, Values, given
from pcmc.runtime.ops.windows import Windows, windows_of

#: Columns of at most this many values are held at a time. # assumed: some MB, about the second-level cache
COLUMN_VALUES = 1 << 20


def _conv(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """Takes x [n, channels, ...], weights [filters, channels / groups, ...], bias [filters] or none."""
    x, weights, bias = inputs[0], inputs[1], given(inputs, 2)
    groups, windows = _geometry(node, x, weights)
    matrix = weights.reshape(groups, weights.shape[0] // groups, -1)
    padded = windows.padded(x)
    y = np.empty((len(x), weights.shape[0], *windows.out), np.result_type(x, weights))
    for part in _parts(x, windows):
        columns = _columns(padded[part], windows, groups)
        y[part] = (matrix @ columns).reshape(y[part].shape)
    if bias is not None:
        y += bias.reshape(-1, *(1,) * len(windows.out))
    return (y,)


def _conv_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, weights, (grad,) = inputs[0], inputs[1], grads
    groups, windows = _geometry(node, x, weights)
    matrix = weights.reshape(groups, weights.shape[0] // groups, -1)
    want_x, want_weights = context.needs(node, 0), context.needs(node, 1)
    by_padded = windows.padded_like(x) if want_x else None
    by_matrix = np.zeros_like(matrix)
    padded = windows.padded(x) if want_weights else x
    for part in _parts(x, windows):
        rows = grad[part].reshape(len(x[part]), groups, matrix.shape[1], -1)
        if by_padded is not None:
            by_columns = np.swapaxes(matrix, 1, 2) @ rows
            _add_columns(by_padded[part], by_columns, windows)
        if want_weights:
            columns = _columns(padded[part], windows, groups)
            by_matrix += (rows @ np.swapaxes(columns, 2, 3)).sum(axis=0)
    by_x = None if by_padded is None else by_padded[windows.inner]
    by_weights = by_matrix.reshape(weights.shape) if want_weights else None
    if len(inputs) < 3:
        return by_x, by_weights
    by_bias = None if inputs[2] is None else grad.sum(axis=(0, *range(2, grad.ndim)))
    return by_x, by_weights, by_bias


def _geometry(node: Node, x: Array, weights: Array) -> tuple[int, Windows]:
    groups = int(node.get("group", 1))
    if x.ndim != weights.ndim or x.shape[1] != weights.shape[1] * groups or weights.shape[0] % groups:
        fail(
            node,
            f"weights {list(weights.shape)} in {groups} groups do not fit an input of {list(x.shape)}",
        )
    return groups, windows_of(node, x.shape[2:], weights.shape[2:])


def _parts(x: Array, windows: Windows) -> Iterator[slice]:
    """Slices of a few images each."""
    columns = x.shape[1] * int(np.prod(windows.kernel)) * int(np.prod(windows.out))
    step = max(COLUMN_VALUES // max(columns, 1), 1)
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def _columns(padded: Array, windows: Windows, groups: int) -> Array:
    """[images, groups, channels of a group * places of the kernel, outputs]."""
    images, channels = padded.shape[:2]
    places = int(np.prod(windows.kernel))
    found = np.empty((images, channels, places, *windows.out), padded.dtype)
    for place, cut in enumerate(windows.cuts()):
        found[:, :, place] = padded[cut]
    return found.reshape(images, groups, channels // groups * places, -1)


def _add_columns(by_padded: Array, by_columns: Array, windows: Windows) -> None:
    """Add the gradient by the columns to that by the padded images that they were gathered from."""
    images, channels = by_padded.shape[:2]
    spread = by_columns.reshape(images, channels, -1, *windows.out)
    for place, cut in enumerate(windows.cuts()):
        by_padded[cut] += spread[:, :, place]


ROWS: dict[str, Rule] = {"Conv": Rule(_conv, _conv_backward)}
