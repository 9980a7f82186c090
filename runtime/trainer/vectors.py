"""What a read sends through its bank, as vectors; and gradients of vectors back as gradients of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.tile import Window
from pcmc.runtime.program import Read

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def to_vectors(x: Array, how: Read, rows: int) -> Floats:
    """The vectors of a tensor, float32 `[vectors, rows]`, sample after sample; a window of a convolution is
    one, its rows in the order (channel, ky, kx).

    Raises:
        ValueError: the tensor does not fit the read.
    """
    if how.kind == "dense":
        if x.shape[-1] != rows:
            raise ValueError(f"its last axis is {x.shape[-1]}, should be {rows}")
        return np.ascontiguousarray(x, np.float32).reshape(-1, rows)
    if how.kind == "columns":
        return np.ascontiguousarray(np.moveaxis(x, -2, -1), np.float32).reshape(-1, rows)
    images = x if x.ndim == 4 else x[:, :, None]
    window = how.window_for(*images.shape[2:])
    taps = _windows(_padded(images, window), window)
    n, channels, height, width = taps.shape[:4]
    vectors = taps.transpose(0, 2, 3, 1, 4, 5).reshape(
        n * height * width, channels * int(np.prod(window.kernel))
    )
    if vectors.shape[1] != rows:
        raise ValueError(f"its windows have {vectors.shape[1]} values, should be {rows}")
    return np.ascontiguousarray(vectors, np.float32)


def from_vectors(d: Floats, shape: tuple[int, ...], how: Read) -> Floats:
    """The gradient of the tensor `[shape]` from those of its vectors: what windows share is added up."""
    if how.kind == "dense":
        return d.reshape(shape)
    if how.kind == "columns":
        return np.moveaxis(d.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2)
    size = shape if len(shape) == 4 else (shape[0], shape[1], 1, shape[2])
    window = how.window_for(size[2], size[3])
    top, left, bottom, right = window.pads
    padded = np.zeros((size[0], size[1], size[2] + top + bottom, size[3] + left + right), np.float32)
    height, width = window.output_size(size[2], size[3])
    taps = d.reshape(size[0], height, width, size[1], *window.kernel)
    (step_y, step_x), (gap_y, gap_x) = window.strides, window.dilations
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            y, x = ky * gap_y, kx * gap_x
            target = padded[:, :, y : y + height * step_y : step_y, x : x + width * step_x : step_x]
            target += taps[:, :, :, :, ky, kx].transpose(0, 3, 1, 2)
    return padded[:, :, top : top + size[2], left : left + size[3]].reshape(shape)


def outputs_as_vectors(d: Array, how: Read, cols: int) -> Floats:
    """The gradient of a read's output as vectors `[vectors, cols]`, in the order of `to_vectors`."""
    if how.kind == "dense":
        return np.ascontiguousarray(d, np.float32).reshape(-1, cols)
    axis = -2 if how.kind == "columns" else 1
    return np.ascontiguousarray(np.moveaxis(d, axis, -1), np.float32).reshape(-1, cols)


def vectors_as_outputs(y: Floats, shape: tuple[int, ...], how: Read) -> Floats:
    """The results `[vectors, cols]` as the read's output of this shape."""
    if how.kind == "dense":
        return y.reshape(shape)
    axis = -2 if how.kind == "columns" else 1
    moved = list(shape)
    moved.append(moved.pop(axis if axis >= 0 else len(shape) + axis))
    return np.ascontiguousarray(np.moveaxis(y.reshape(moved), -1, axis))


def _padded(images: Array, window: Window) -> Array:
    top, left, bottom, right = window.pads
    if not any(window.pads):
        return images
    n, channels, height, width = images.shape
    padded = np.zeros((n, channels, top + height + bottom, left + width + right), images.dtype)
    padded[:, :, top : top + height, left : left + width] = images
    return padded


def _windows(images: Array, window: Window) -> Array:
    """A view of all windows, `[n, channels, out_height, out_width, kernel_y, kernel_x]`."""
    extent = [(k - 1) * gap + 1 for k, gap in zip(window.kernel, window.dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(images, extent, axis=(2, 3))
    (step_y, step_x), (gap_y, gap_x) = window.strides, window.dilations
    return views[:, :, ::step_y, ::step_x, ::gap_y, ::gap_x]
