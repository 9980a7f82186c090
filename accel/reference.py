"""The numpy twins of the compiled tile reads: same names, same signatures, written from the formulas.

The kernels are tested against them, and they run where no C compiler was at hand. All arrays are float32:

* a *bank* is `cells` [n] and `blocks` int64 [n, 6], columns row0, col0, rows, cols, bias, offset. A block is
  row-major at `cells[offset:]`; with bias = 1 its last row is driven by `bias_drive` instead of an input;
* `scale` [items] is the input range of each vector (convolutions: of each image), unused with converters off;
* levels are L = 2^(bits - 1) - 1, and 0 switches a converter off;
* every function overwrites `out` for the items [first, last) only, and returns nothing.

With s the scale, and everything computed in float32:

    DAC   step = s / L             x becomes clip(rint(x / step), -L, L) * step, and so does the bias drive
    ADC   lsb = adc_full * s / L   a block's sum becomes clip(rint(sum / lsb), -L, L) * lsb

rint rounds ties to even. A step that is zero or not finite gives 0; a NaN in a converter gives full scale.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Overflow and NaN are results like others: the converters turn them into codes.
QUIET = np.errstate(all="ignore")


@QUIET
def dense_read(
    x: Floats, cells: Floats, blocks: Ints, out: Floats, scale: Floats, bias_drive: float,
    dac_levels: float, adc_levels: float, adc_full: float, first: int, last: int,
) -> None:  # fmt: skip
    """Products of x [vectors, rows] with the bank, out [vectors, cols]; an item is a vector."""
    here = slice(first, last)
    out[here] = 0
    dac, adc = _steps(scale[here, None], dac_levels, adc_levels, adc_full)
    inputs = _convert(x[here], dac, dac_levels)
    drive = _convert(np.full((len(inputs), 1), bias_drive, np.float32), dac, dac_levels)
    for rows, cols, weights, bias in _each_block(cells, blocks):
        sums = inputs[:, rows] @ weights
        if bias is not None:
            sums += drive * bias
        out[here, cols] += _convert(sums, adc, adc_levels)


@QUIET
def dense_read_transposed(
    d: Floats, cells: Floats, blocks: Ints, out: Floats, scale: Floats,
    dac_levels: float, adc_levels: float, adc_full: float, first: int, last: int,
) -> None:  # fmt: skip
    """Products of d [vectors, cols] with the transposed bank less its bias rows, out [vectors, rows]."""
    here = slice(first, last)
    out[here] = 0
    dac, adc = _steps(scale[here, None], dac_levels, adc_levels, adc_full)
    errors = _convert(d[here], dac, dac_levels)
    for rows, cols, weights, _ in _each_block(cells, blocks):
        out[here, rows] += _convert(errors[:, cols] @ weights.T, adc, adc_levels)


@QUIET
def conv_read(
    x: Floats, cells: Floats, blocks: Ints, out: Floats, scale: Floats, bias_drive: float,
    dac_levels: float, adc_levels: float, adc_full: float, window: Ints, chunks: int, first: int, last: int,
) -> None:  # fmt: skip
    """Convolution of x [n, channels, h, w] with the bank, out [n, cols, out_h, out_w].

    `window` is kernel, strides, dilations (y and x of each), top and left padding; the matrix has the rows
    (c * kh + ky) * kw + kx. Item i is band i % chunks of the output rows of image i // chunks.
    """
    out_height = out.shape[2]
    for item in range(first, last):
        image, chunk = divmod(item, chunks)
        band = slice(out_height * chunk // chunks, out_height * (chunk + 1) // chunks)
        out[image, :, band] = 0
        dac, adc = _steps(scale[image : image + 1], dac_levels, adc_levels, adc_full)
        padded = _pad(_convert(x[image], dac, dac_levels), window, out.shape[2:])
        taps = [padded[at][:, band] for at in _taps(window, out.shape[2:])]
        inputs = np.stack(taps, axis=1).reshape(len(padded) * len(taps), -1)
        drive = _convert(np.full(1, bias_drive, np.float32), dac, dac_levels)
        for rows, cols, weights, bias in _each_block(cells, blocks):
            sums = weights.T @ inputs[rows]
            if bias is not None:
                sums += (drive * bias)[:, None]
            out[image, cols, band] += _convert(sums, adc, adc_levels).reshape(len(sums), -1, out.shape[3])


@QUIET
def conv_read_transposed(
    d: Floats, cells: Floats, blocks: Ints, out: Floats, scale: Floats,
    dac_levels: float, adc_levels: float, adc_full: float, window: Ints, first: int, last: int,
) -> None:  # fmt: skip
    """Sends d [n, cols, out_h, out_w] back through the bank, out [n, channels, h, w]; an item is an image.

    Every value of a matrix row at an output position is digitized, then added at the input that it came from.
    Bias rows are left out.
    """
    _, channels, height, width = out.shape
    taps = _taps(window, d.shape[2:])
    for image in range(first, last):
        dac, adc = _steps(scale[image : image + 1], dac_levels, adc_levels, adc_full)
        errors = _convert(d[image], dac, dac_levels).reshape(d.shape[1], -1)
        values = np.zeros((channels * len(taps), errors.shape[1]), np.float32)
        for rows, cols, weights, _ in _each_block(cells, blocks):
            values[rows] += _convert(weights @ errors[cols], adc, adc_levels)
        out[image] = 0
        padded = np.zeros_like(_pad(out[image], window, d.shape[2:]))
        by_tap = np.moveaxis(values.reshape(channels, len(taps), *d.shape[2:]), 1, 0)
        for at, value in zip(taps, by_tap, strict=True):
            padded[at] += value
        top, left = int(window[6]), int(window[7])
        inside = padded[:, top : top + height, left : left + width]
        out[image, :, : inside.shape[1], : inside.shape[2]] += inside


def input_range(x: Floats, floor: float, scale: Floats, first: int, last: int) -> None:
    """Set scale[i] to max |x[i, :]|, at least `floor`, for the items [first, last); NaN is left out."""
    sizes = np.fmax(np.abs(x[first:last]), np.float32(floor))
    scale[first:last] = np.fmax.reduce(sizes, axis=1, initial=np.float32(floor))


def pairs() -> list[tuple[str, Callable[..., None], Callable[..., None]]]:
    """Every kernel as (name, compiled, twin); ImportError where the compiled ones are missing."""
    compiled = importlib.import_module("pcmc.accel._kernels")
    twins = (dense_read, dense_read_transposed, conv_read, conv_read_transposed, input_range)
    return [(twin.__name__, getattr(compiled, twin.__name__), twin) for twin in twins]


def _each_block(cells: Floats, blocks: Ints) -> Iterator[tuple[slice, slice, Floats, Floats | None]]:
    """For each block: its rows and columns of the matrix, its weights, and its bias row if it has one."""
    for row0, col0, rows, cols, bias, offset in blocks.tolist():
        block = cells[offset : offset + rows * cols].reshape(rows, cols)
        end = rows - bias
        yield slice(row0, row0 + end), slice(col0, col0 + cols), block[:end], block[-1] if bias else None


def _steps(scale: Floats, dac_levels: float, adc_levels: float, adc_full: float) -> tuple[Floats, Floats]:
    """Step of the DAC and lsb of the ADC for each scale; 1 where the converter is off."""
    one = np.ones((), np.float32)
    dac = scale / np.float32(dac_levels) if dac_levels else one
    adc = np.float32(adc_full) * scale / np.float32(adc_levels) if adc_levels else one
    return dac, adc


def _convert(values: Floats, step: Floats, levels: float) -> Floats:
    """`values` as the nearest codes of a converter; as they are if it is off."""
    if not levels:
        return values
    codes = np.rint(values / step)
    codes = np.clip(np.where(np.isnan(codes), np.inf, codes), -levels, levels).astype(np.float32)
    live: Any = np.isfinite(step) & (step > 0)
    return np.where(live, codes * step, np.float32(0))


def _pad(image: Floats, window: Ints, out_size: tuple[int, ...]) -> Floats:
    """[channels, h, w] with zeros around, large enough for every tap at every output."""
    kernel, strides, dilations, before = window.reshape(4, 2).tolist()
    around = [(0, 0)]
    for axis, size in enumerate(image.shape[1:]):
        needed = (out_size[axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        around.append((before[axis], max(0, needed - before[axis] - size)))
    return np.pad(image, around)


def _taps(window: Ints, out_size: tuple[int, ...]) -> list[tuple[slice, slice, slice]]:
    """For each tap (ky, kx), in order, the part of a padded image that it meets over all outputs."""
    kernel, strides, dilations, _ = window.reshape(4, 2).tolist()
    along = [
        [slice(k * d, k * d + (o - 1) * s + 1, s) for k in range(n)]
        for n, d, o, s in zip(kernel, dilations, out_size, strides, strict=True)
    ]
    return [(slice(None), y, x) for y in along[0] for x in along[1]]
