"""The numpy twins of the compiled tile reads: same names, same signatures, written from the formulas.

The kernels are tested against them, and they run where no C compiler was at hand. All arrays are float32:

* a *bank* is `cells` [n] and `blocks` int64 [n, 6], columns row0, col0, rows, cols, bias, offset. A block is
  row-major at `cells[offset:]`; with bias = 1 its last row is driven by `bias_drive` instead of an input;
* `scale` [items] is the input range of each vector (convolutions: of each image), unused with converters off;
* levels are L = 2^(bits - 1) - 1, and 0 switches a converter off;
* a *conversion* is a column of a block, counted block after block, in a block column after column. `columns`
  [4, conversions] are gain, offset, step and shift of each, or it is [4, 0]: all ADCs alike;
* `variances` is packed as the cells, but bfloat16 in uint16 (`widen`), or empty: devices are quiet. `floor`
  [conversions] is the variance that the read-out adds, or empty. If both are empty, there is no noise.
  `noise` is uint64 [4]: the key (two words), the index of the first item in its stream, and the power p, 1
  or 2;
* `saturated` int64 [items] (a convolution's items, see there) is increased by the ADC conversions of each
  item that clipped, or empty: not counted;
* what a read gives is finished with `offset` [cols] and `addend` (as `out`, but one-dimensional), which are
  added if they are not empty, then with `relu`: below 0 becomes 0;
* every function overwrites `out` for the items [first, last) only, and returns nothing.

With s the scale, and everything computed in float32:

    DAC   step = s / L             x becomes clip(rint(x / step), -L, L) * step, and so does the bias drive
    ADC   lsb = adc_full * s / L   a block's sum becomes clip(rint(sum / lsb), -L, L) * lsb; with columns
                                   (clip(rint(sum / s * gain + offset), -L, L) * step + shift) * s

A conversion clipped if its code was beyond +-(L + 1/2) or NaN before rounding.

Noise goes to a block's sum before the ADC: sqrt(|x|^p @ variances + floor * s^2) times a normal number of
its own, x being the inputs and the bias drive behind the DAC. The number has the counter {lane, item,
row // 4, block}, block being the block's index in the table, and of the four numbers of this counter it is
number row % 4:

    dense  row = index of the vector, lane = column in the block, item = 0
    conv   row = column in the block, item = index of the image,
           lane = oy * (out_w + (kw - 1) * dilation // stride) + ox for the output position (oy, ox)

rint rounds ties to even. A step or lsb that is zero or not finite gives 0, and then nothing clipped; with
columns `adc_full` is a bound of |code * step + shift|, only used for this. A NaN in a converter gives full
scale.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Halves = NDArray[np.uint16]
Bits = Any  # uint32, an array or one of them

# Of Threefry-4x32, for each round of eight; and least-max-error polynomials, highest power first, of
# -2 ln(1 + y) / y for 1 + y in [sqrt(1/2), sqrt(2)], and of cos and sin(pi/2 f) / f in f^2 for f in [-1, 1].
ROTATIONS = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
LOG = (
    0.20213778, -0.32445169, 0.34501666, -0.39800331, 0.49939817, -0.66670120, 1.00000727, -1.99999988,
)  # fmt: skip
COSINE = (0.00085819064, -0.020810628, 0.25365075, -1.23369825, 0.99999994)
SINE = (0.00015082262, -0.0046722330, 0.079688482, -0.64596337, 1.57079625)

# Overflow and NaN are results like others: the converters turn them into codes.
QUIET = np.errstate(all="ignore")


@QUIET
def dense_read(
    x: Floats, cells: Floats, blocks: Ints, out: Floats, scale: Floats, bias_drive: float,
    dac_levels: float, adc_levels: float, adc_full: float, columns: Floats,
    variances: Halves, floor: Floats, noise: Words,
    offset: Floats, addend: Floats, relu: bool, saturated: Ints, first: int, last: int,
) -> None:  # fmt: skip
    """Products of x [vectors, rows] with the bank, out [vectors, cols]; an item is a vector."""
    here = slice(first, last)
    out[here] = 0
    ranges = scale[here, None]
    dac, adc = _steps(ranges, dac_levels, adc_levels, adc_full)
    inputs = _convert(x[here], dac, dac_levels)
    drive = _convert(np.full((len(inputs), 1), bias_drive, np.float32), dac, dac_levels)
    raised, raised_drive = _raise(inputs, noise), _raise(drive, noise)
    vectors = int(noise[2]) + np.arange(first, last)[:, None]
    spreads = _each_block(widen(variances), blocks) if variances.size else None
    stop = 0
    for index, (rows, cols, weights, bias) in enumerate(_each_block(cells, blocks)):
        stop, start = stop + weights.shape[1], stop
        sums = inputs[:, rows] @ weights
        if bias is not None:
            sums += drive * bias
        variance = np.zeros_like(sums)
        if spreads is not None:
            *_, spread, bias_spread = next(spreads)
            variance += raised[:, rows] @ spread
            if bias_spread is not None:
                variance += raised_drive * bias_spread
        if floor.size:
            variance += floor[start:stop] * (ranges * ranges)
        if spreads is not None or floor.size:
            sums += _noise(variance, noise, np.arange(sums.shape[1]), 0, vectors, index)
        values, clipped = _digitize(sums, ranges, adc, adc_levels, columns[:, None, start:stop])
        out[here, cols] += values
        if saturated.size:
            saturated[here] += clipped.sum(axis=1)
    _finish(out, here, offset, addend, relu)


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
    dac_levels: float, adc_levels: float, adc_full: float, columns: Floats,
    variances: Halves, floor: Floats, noise: Words,
    offset: Floats, addend: Floats, relu: bool, saturated: Ints, window: Ints, chunks: int,
    first: int, last: int,
) -> None:  # fmt: skip
    """Convolution of x [n, channels, h, w] with the bank, out [n, cols, out_h, out_w].

    `window` is kernel, strides, dilations (y and x of each), top and left padding; the matrix has the rows
    (c * kh + ky) * kw + kx. Item i is band i % chunks of the output rows of image i // chunks; `scale` has an
    entry for each image, `saturated` for each item.
    """
    out_height, wide = out.shape[2], widen(variances)
    for item in range(first, last):
        image, chunk = divmod(item, chunks)
        band = slice(out_height * chunk // chunks, out_height * (chunk + 1) // chunks)
        out[image, :, band] = 0
        ranges = scale[image : image + 1]
        dac, adc = _steps(ranges, dac_levels, adc_levels, adc_full)
        padded = _pad(_convert(x[image], dac, dac_levels), window, out.shape[2:])
        taps = [padded[at][:, band] for at in _taps(window, out.shape[2:])]
        inputs = np.stack(taps, axis=1).reshape(len(padded) * len(taps), -1)
        drive = _convert(np.full(1, bias_drive, np.float32), dac, dac_levels)
        spreads = _each_block(wide, blocks) if wide.size else None
        raised, raised_drive = _raise(inputs, noise), _raise(drive, noise)
        lanes = _positions(window, out.shape[2:])[band].ravel()
        stop = 0
        for index, (rows, cols, weights, bias) in enumerate(_each_block(cells, blocks)):
            stop, start = stop + weights.shape[1], stop
            sums = weights.T @ inputs[rows]
            if bias is not None:
                sums += (drive * bias)[:, None]
            variance = np.zeros_like(sums)
            if spreads is not None:
                *_, spread, bias_spread = next(spreads)
                variance += spread.T @ raised[rows]
                if bias_spread is not None:
                    variance += (raised_drive * bias_spread)[:, None]
            if floor.size:
                variance += floor[start:stop, None] * (ranges * ranges)
            if spreads is not None or floor.size:
                in_block = np.arange(len(sums))[:, None]
                sums += _noise(variance, noise, lanes, int(noise[2]) + image, in_block, index)
            values, clipped = _digitize(sums, ranges, adc, adc_levels, columns[:, start:stop, None])
            out[image, cols, band] += values.reshape(len(sums), -1, out.shape[3])
            if saturated.size:
                saturated[item] += clipped.sum()
        _finish(out, (image, slice(None), band), offset[:, None, None], addend, relu)


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


def fill_gaussian(out: Floats, key: Words, counter0: int, first: int, last: int) -> None:
    """Set out[i] to number counter0 + i of the stream `key`, uint64 [2], for i in [first, last).

    Numbers 64 g to 64 g + 63 come from the counters 16 g to 16 g + 15: of them,
    number 16 k + l is the k-th of counter l.
    """
    start, stop = counter0 + first, counter0 + last
    groups = np.arange(start // 64, -(-stop // 64), dtype=np.uint64)
    counters: Any = groups[:, None] * np.uint64(16) + np.arange(16, dtype=np.uint64)
    low, high = counters.astype(np.uint32), (counters >> np.uint64(32)).astype(np.uint32)
    logs, turns = _quartet(key, low, high, np.uint32(0), np.uint32(0))
    numbers = np.stack([np.sqrt(logs[k // 2]) * turns[k] for k in range(4)], axis=1).ravel()
    out[first:last] = numbers[start % 64 :][: stop - start]


def widen(halves: Halves) -> Floats:
    """The float32 of which these are the upper 16 bits, the others being 0: bfloat16."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def threefry(key: Words, counter: tuple[Bits, ...], rounds: int = 12) -> list[Bits]:
    """Threefry-4x32 (Salmon et al., SC 2011): four random words from a key, uint64 [2], and four counters."""
    words = [np.uint32(int(key[i // 2]) >> 32 * (i % 2) & 0xFFFFFFFF) for i in range(4)]
    keys = [*words, np.bitwise_xor.reduce(np.array(words)) ^ np.uint32(0x1BD11BDA)]
    x = [word + np.atleast_1d(counter_word) for word, counter_word in zip(words, counter, strict=True)]
    for turn in range(rounds):
        for first, second, distance in zip(
            (0, 2), (3, 1) if turn % 2 else (1, 3), ROTATIONS[turn % 8], strict=True
        ):
            x[first] = x[first] + x[second]
            x[second] = (x[second] << np.uint32(distance) | x[second] >> np.uint32(32 - distance)) ^ x[first]
        if turn % 4 == 3:
            group = turn // 4 + 1
            x = [word + keys[(group + i) % 5] for i, word in enumerate(x)]
            x[3] = x[3] + np.uint32(group)
    return x


def pairs() -> list[tuple[str, Callable[..., None], Callable[..., None]]]:
    """Every kernel as (name, compiled, twin); ImportError where the compiled ones are missing."""
    compiled = importlib.import_module("pcmc.accel._kernels")
    twins = (dense_read, dense_read_transposed, conv_read, conv_read_transposed, input_range, fill_gaussian)
    return [(twin.__name__, getattr(compiled, twin.__name__), twin) for twin in twins]


def _each_block(cells: Floats, blocks: Ints) -> Iterator[tuple[slice, slice, Floats, Floats | None]]:
    """For each block: its rows and columns of the matrix, its weights, and its bias row if it has one."""
    for row0, col0, rows, cols, bias, offset in blocks.tolist():
        block = cells[offset : offset + rows * cols].reshape(rows, cols)
        end = rows - bias
        yield slice(row0, row0 + end), slice(col0, col0 + cols), block[:end], block[-1] if bias else None


def _finish(out: Floats, at: Any, offset: Floats, addend: Floats, relu: bool) -> None:
    """What is done to sums over all blocks, here to a part of them."""
    if offset.size:
        out[at] += offset
    if addend.size:
        out[at] += addend.reshape(out.shape)[at]
    if relu:
        out[at] = np.where(out[at] < 0, np.float32(0), out[at])


def _raise(x: Floats, noise: Words) -> Floats:
    """What variances go with: |x|^p."""
    return np.abs(x) if int(noise[3]) == 1 else x * x


def _positions(window: Ints, out_size: tuple[int, ...]) -> Ints:
    """Number of each output position [oy, ox] of an image, as the counters of noise have it."""
    kernel, strides, dilations, _ = window.reshape(4, 2).tolist()
    width = out_size[1] + (kernel[1] - 1) * dilations[1] // strides[1]
    return np.arange(out_size[0])[:, None] * width + np.arange(out_size[1])


def _noise(variance: Floats, noise: Words, lanes: Ints, item: int, rows: Ints, block: int) -> Floats:
    """Noise [rows, lanes] of this variance, for lanes [n], rows [m, 1]."""
    fours, inverse = np.unique(rows // 4, return_inverse=True)
    counter = (lanes.astype(np.uint32), np.uint32(item), fours.astype(np.uint32)[:, None], np.uint32(block))
    logs, turns = _quartet(noise, *np.broadcast_arrays(*counter))
    at, word = inverse.ravel(), rows.ravel() % 4
    log, turn = np.stack(logs)[word // 2, at], np.stack(turns)[word, at]
    result: Floats = np.sqrt(log * variance) * turn
    return result


def _quartet(key: Words, *counter: Bits) -> tuple[list[Floats], list[Floats]]:
    """Two L and four t: sqrt(L[k // 2]) * t[k] are normal numbers (Box and Muller 1958)."""
    x = threefry(key, counter)
    turns = [turn for word in (x[1], x[3]) for turn in _circle(word)]
    return [_minus_two_log(x[0]), _minus_two_log(x[2])], turns


def _minus_two_log(word: Bits) -> Floats:
    """-2 ln(u) of u = (word // 2 + 1/2) / 2^31, float32; relative error < 4e-7."""
    u = (word >> np.uint32(1)).astype(np.float32) * np.float32(2.0**-31) + np.float32(2.0**-32)
    bits = u.view(np.int32)
    exponent = (bits - np.int32(0x3F3504F3)) >> np.int32(23)
    y = (bits - (exponent << np.int32(23))).view(np.float32) - np.float32(1)
    result: Floats = exponent.astype(np.float32) * np.float32(-1.38629436) + y * _horner(LOG, y)
    return result


def _circle(word: Bits) -> tuple[Floats, Floats]:
    """Cosine and sine of an angle anywhere on the circle, float32; absolute error < 3e-7."""
    f = word.view(np.int32).astype(np.float32) * np.float32(2.0**-31)
    t = f * f
    cosine = _horner(COSINE, t).view(np.uint32) ^ word << np.uint32(31)
    return cosine.view(np.float32), _horner(SINE, t) * f


def _horner(coefficients: tuple[float, ...], x: Floats) -> Floats:
    """The polynomial in float32, highest power first."""
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + np.float32(coefficient)
    return value


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


def _digitize(
    sums: Floats, scale: Floats, lsb: Floats, levels: float, columns: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """What an ADC makes of sums, and which of them clipped; `columns` are [4, ...] as the sums are."""
    if not levels:
        return sums, np.zeros(sums.shape, np.bool_)
    live: Any = np.isfinite(lsb) & (lsb > 0)
    if not columns.size:
        return _convert(sums, lsb, levels), live & ~(np.abs(sums / lsb) <= np.float32(levels + 0.5))
    gain, offset, step, shift = columns
    codes = sums / scale * gain + offset
    clipped = live & ~(np.abs(codes) <= np.float32(levels + 0.5))
    rounded = np.clip(np.where(np.isnan(codes), np.inf, np.rint(codes)), -levels, levels).astype(np.float32)
    return np.where(live, (rounded * step + shift) * scale, np.float32(0)), clipped


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
