"""What a bank of tiles does: `read` and, backwards, `read_transposed`, with or without converters.

    bank = make_bank(cells, blocks, rows, cols)                  # checked once, then read often
    y = read(x, bank)                                            # [vectors, rows] -> [vectors, cols]
    w = Window((3, 3), pads=(1, 1, 1, 1))
    y = read(x, bank, window=w)                                  # [n, channels, h, w] -> [n, cols, oh, ow]
    y = read(x, bank, converters=Converters(127, 255, adc_full=12.0), bias_drive=1.0, threads=2)
    d = read_transposed(dy, bank)                                # [vectors, cols] -> [vectors, rows]
    d = read_transposed(dy, bank, window=w, image=(32, 32))      # [n, cols, oh, ow] -> [n, channels, 32, 32]
    bank = bank.with_cells(noisy)                                # same blocks, other weights
    noise = Noise(bank.with_variances(variances), key=gaussian_key(seed, (0,), "fast_noise"))
    y = read(x, bank, noise=replace(noise, step=1))              # a normal number in each ADC conversion
    y = read(x, bank, converters=c, saturated=counts)            # counts += conversions that were clipped

`cells` is float32 [n]: the blocks one after the other, each row-major. `blocks` is int64 [blocks, 6] with
the columns row0, col0, rows, cols, bias, offset. A block is the part of the matrix [rows, cols] from (row0,
col0) on; with bias = 1 its last row is no row of the matrix but the bias row, driven by `bias_drive`.
Blocks that share columns are partial sums: each is digitized by itself, then they are added. Cells outside
of all blocks are zero, so a grouped convolution is a table with blocks along the diagonal. A convolution's
matrix has the rows (channel * kh + ky) * kw + kx.

The compiled kernels release the GIL; their numpy twins (`pcmc.accel.reference`, which has the formulas of
the converters) take over where no C compiler was at hand, or with PCMC_KERNELS=numpy in the environment.
Compiled results have the same bits whatever the number of threads and however vectors are batched, on one
instruction set; PCMC_SIMD=plain|avx2|avx512 caps that. The normal numbers have the same bits everywhere.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel import reference

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Halves = NDArray[np.uint16]

# Cells and variances behind the last ones that the kernels may read (and never use): PCMC_CELL_PADDING in
# _tile_read.h.
CELL_PADDING = 64
# Variances that are rounded at once, while they are in cache.
ROUNDED_AT_ONCE = 1 << 15
# Multiplications that are worth a thread: waking one takes as long as a million or two of them. A value that
# goes in or out counts as MOVE.
WORTH_A_THREAD = 1 << 21
MOVE = 16
# A converter's levels are rounded in float32, exact up to here.
MOST_LEVELS = 1 << 21
# Kernel sizes, strides, dilations and paddings beyond this are no convolution.
MOST_PIXELS = 1 << 24

_LARGEST = float(np.finfo(np.float32).max)

# Vectors and images in one stream of noise: their index has 32 bits.
MOST_ITEMS = 1 << 32
_WORD = (1 << 64) - 1

_NONE = np.zeros(0, np.float32)
_QUIET = (np.zeros(0, np.uint16), _NONE, np.zeros(4, np.uint64))
_ALIKE = np.zeros((4, 0), np.float32)
_UNCOUNTED = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """ADCs that differ: what turns the sum of each conversion into a code, and the code into a value.

    There is an entry for each conversion of a read, block after block of the table, in a block column after
    column. With s the input range and L the levels of the ADC,

        code = clip(rint(sum / s * gain + offset), -L, L)        value = (code * step + shift) * s

    so gain is in codes per (weight x input range), offset in codes, step in (weight x input range) per code
    and shift in (weight x input range). All are finite float32 [conversions], and copied.
    """

    gain: Floats
    offset: Floats
    step: Floats
    shift: Floats
    packed: Floats = field(init=False, repr=False)  # the four, [4, conversions]; largest |step|, |shift|:
    largest: tuple[float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = ("gain", "offset", "step", "shift")
        packed = np.empty((4, self.gain.size), np.float32)
        for row, name in zip(packed, names, strict=True):
            values = getattr(self, name)
            if values.dtype != np.float32 or values.shape != row.shape:
                raise ValueError(
                    f"{name} of columns is {values.dtype} {values.shape}, should be float32 {row.shape}"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"{name} of columns is not finite everywhere")
            row[:] = values
        packed.flags.writeable = False
        for row, name in zip(packed, names, strict=True):
            object.__setattr__(self, name, row)
        object.__setattr__(self, "packed", packed)
        largest = np.abs(packed[2:]).max(axis=1, initial=0.0)
        object.__setattr__(self, "largest", tuple(largest.tolist()))


@dataclass(frozen=True, slots=True)
class Converters:
    """The converters around a tile; levels L = 2^(bits - 1) - 1, and 0 switches one off.

    `adc_full` is the ADC's full scale in units of (weight x input range): range_cells * w_max. With `columns`
    it is not used: each conversion has numbers of its own.
    """

    dac_levels: int = 0
    adc_levels: int = 0
    adc_full: float = 0.0
    columns: Columns | None = None

    def __post_init__(self) -> None:
        for name in ("dac_levels", "adc_levels"):
            if not 0 <= getattr(self, name) <= MOST_LEVELS:
                raise ValueError(f"{name} is {getattr(self, name)}, should be 0 (off) to {MOST_LEVELS}")
        if self.columns is not None:
            if not self.adc_levels:
                raise ValueError("converters have columns, but no ADC")
            if not self.reach < _LARGEST:
                raise ValueError(f"columns give values up to {self.reach:g}, beyond float32")
        elif self.adc_levels and not 0 < self.adc_full < np.inf:
            raise ValueError(f"adc_full is {self.adc_full}, should be positive and finite with an ADC")

    @property
    def reach(self) -> float:
        """At least the largest value that a conversion can give, in (weight x input range): where this times
        an input range is no float, the kernels give 0.
        """
        if self.columns is None:
            return self.adc_full
        step, shift = self.columns.largest
        return (self.adc_levels * step + shift) * (1 + 2.0**-20)  # code * step + shift is rounded twice

    def packed(self, bank: Bank) -> tuple[int, int, float, Floats]:
        """As the kernels take them; ValueError if columns are not made for this bank."""
        table = _ALIKE if self.columns is None else self.columns.packed
        if self.columns is not None and table.shape[1] != bank.conversions:
            raise ValueError(f"columns are {table.shape[1]}, but the bank has {bank.conversions} conversions")
        return self.dac_levels, self.adc_levels, self.reach, table

    @property
    def on(self) -> bool:
        """Whether either converter is on."""
        return bool(self.dac_levels or self.adc_levels)


OFF = Converters()


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a convolution, (y, x) of each; pads are (top, left, bottom, right). 1-D: kernel 1 x k."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("strides", 1), ("dilations", 1), ("pads", 0)):
            values = getattr(self, name)
            if not all(least <= value <= MOST_PIXELS for value in values):
                raise ValueError(f"{name} of a window are {values}, should be {least} to {MOST_PIXELS}")

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the output for an image of height x width; ValueError if it is too small."""
        sizes = []
        for axis, size in enumerate((height, width)):
            span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
            room = size + self.pads[axis] + self.pads[axis + 2] - span
            if room < 0 or size < 1:
                raise ValueError(f"{self} does not fit an image of {height} x {width}")
            sizes.append(room // self.strides[axis] + 1)
        return sizes[0], sizes[1]

    def packed(self) -> Ints:
        """As the kernels take it: kernel, strides, dilations, top and left padding, int64 [8]."""
        return np.array((*self.kernel, *self.strides, *self.dilations, *self.pads[:2]), np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """The blocks of a matrix [rows, cols], checked and ready to be read; made by `make_bank`, see there."""

    cells: Floats  # followed in memory by CELL_PADDING zeros
    blocks: Ints
    rows: int
    cols: int
    has_bias: bool
    conversions: int  # columns of all blocks together

    def with_variances(self, variances: Floats) -> Variances:
        """The variances of these cells, float32 [n], for a `Noise`, rounded as `Variances` says.

        ValueError if n differs, or one is negative or NaN.
        """
        self._check_size(variances)
        if not (variances >= 0).all():
            raise ValueError("variances of a noise are negative or NaN")
        return Variances(_rounded(variances), self.blocks)

    def with_cells(self, cells: Floats) -> Bank:
        """The same blocks with other weights, float32 [n] as in `make_bank`; ValueError if n differs."""
        self._check_size(cells)
        return Bank(_padded(cells), self.blocks, self.rows, self.cols, self.has_bias, self.conversions)

    def _check_size(self, cells: Floats) -> None:
        if cells.dtype != np.float32 or cells.shape != self.cells.shape:
            raise ValueError(
                f"cells are {cells.dtype} {cells.shape}, should be float32 {self.cells.shape} as in the bank"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Variances:
    """What a `Noise` knows of the cells of a bank; made by `Bank.with_variances`.

    They are kept as bfloat16, half of what a read would otherwise wait for from memory: float32 rounded to 8
    significant bits, to the nearest, ties to even. So a variance is off by 2^-8 of itself at most (0.4 %), a
    standard deviation by 2^-9 (0.2 %). Where variances differ, errors have a mean of 0: the deviation of n
    devices together is off by some 0.1 % / sqrt(n). 0 and powers of two are exact.
    """

    halves: Halves  # uint16 [n], followed in memory by CELL_PADDING zeros
    blocks: Ints

    @property
    def values(self) -> Floats:
        """The variances as reads take them, float32 [n]."""
        return reference.widen(self.halves)


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Fast noise: new at each ADC conversion, independent between devices, Gaussian.

    The sum of such noise over a column is one Gaussian with the variance `|x|^power @ variances`, so one
    number is drawn for each conversion, of each block by itself, and none for a device. x is what the DAC
    gives out; the bias drive counts as an input. Power 2 is noise of conductances, variances in (weight)^2,
    read with voltages (exact whatever its spectrum); power 1 is white noise of currents integrated over
    pulses whose width is |x|, variances in (weight)^2 x (input range of 1). Noise that stays
    the same from vector to vector is something else: it belongs into the cells.

    `variances` has the blocks of the bank that is read (`bank.with_variances(values)`, which rounds them);
    None: devices are quiet. `floor` is what the read-out adds, float32 [bank.conversions], counted as
    `Columns` are: a variance in (weight x input range)^2, so `floor * scale^2` is added to that of the
    devices. The number for item i (vector, image) of a call depends on `key`, `step`, i + `first`, its
    block, column and position: not on threads or the other items. Equal step, equal noise; calls that go on
    where others ended count `first` on, all others take a new step. Another place in a batch is another
    number.
    """

    variances: Variances | None
    key: tuple[int, int]
    step: int = 0
    power: int = 2
    first: int = 0
    floor: Floats | None = None

    def __post_init__(self) -> None:
        floor = self.floor
        if floor is not None and (floor.dtype != np.float32 or floor.ndim != 1):
            raise ValueError(
                f"a floor of noise is {floor.dtype} {floor.shape}, should be float32 [conversions]"
            )
        # Without a number in it both are that of no variance; a NaN fails the comparison.
        if floor is not None and not (floor.min(initial=0) >= 0 and floor.max(initial=0) < np.inf):
            raise ValueError("a floor of noise is negative, infinite or NaN")
        if self.power not in (1, 2):
            raise ValueError(f"power of a noise is {self.power}, should be 1 (pulse width) or 2 (voltage)")
        if not (0 <= self.key[0] <= _WORD and 0 <= self.key[1] <= _WORD and 0 <= self.step <= _WORD):
            raise ValueError(f"key {self.key} and step {self.step} of a noise should have 64 bits each")

    def packed(self, bank: Bank, items: int) -> tuple[Halves, Floats, Words]:
        """As the kernels take it; ValueError if it is not made for this bank, or items run out."""
        ours = bank.blocks if self.variances is None else self.variances.blocks
        if ours is not bank.blocks and not np.array_equal(ours, bank.blocks):
            raise ValueError("the variances of a noise are of another bank: their blocks differ")
        floor = _NONE if self.floor is None else np.ascontiguousarray(self.floor)
        if self.floor is not None and floor.size != bank.conversions:
            raise ValueError(
                f"a floor of noise has {floor.size} entries, the bank {bank.conversions} conversions"
            )
        if not 0 <= self.first <= MOST_ITEMS - items:
            raise ValueError(f"items {self.first} and {items} more of a noise are not within {MOST_ITEMS}")
        words = (self.key[0], self.key[1] ^ self.step, self.first, self.power)
        variances = _QUIET[0] if self.variances is None else self.variances.halves
        return variances, floor, np.array(words, np.uint64)


def make_bank(cells: Floats, blocks: Ints, rows: int, cols: int) -> Bank:
    """Check the table of blocks against the matrix [rows, cols] and the cells, and copy both.

    Nothing outside of them can be touched later, whatever file the table came from. Raises ValueError that
    names the first bad block.
    """
    blocks = np.array(blocks, np.int64, order="C", ndmin=2)
    if blocks.size == 0:
        blocks = blocks.reshape(0, 6)
    if blocks.shape[1:] != (6,):
        raise ValueError(f"a table of blocks has the shape {blocks.shape}, should have 6 columns")
    if rows < 0 or cols < 0:
        raise ValueError(f"a matrix of {rows} x {cols} can't be")
    padded = _padded(cells)
    _check_blocks(blocks, rows, cols, padded.size)
    blocks.flags.writeable = False
    return Bank(padded, blocks, rows, cols, bool(blocks[:, 4].any()), int(blocks[:, 3].sum()))


def read(
    x: Floats,
    bank: Bank,
    *,
    bias_drive: float = 1.0,
    converters: Converters = OFF,
    noise: Noise | None = None,
    window: Window | None = None,
    offset: Floats | None = None,
    addend: Floats | None = None,
    relu: bool = False,
    scale: Floats | float | None = None,
    saturated: Ints | None = None,
    threads: int = 1,
) -> Floats:
    """Read all blocks of a bank for the input vectors x.

    x is float32 [vectors, bank.rows], the result [vectors, bank.cols]; with a window x is [n, channels, h,
    w], where bank.rows = channels * kh * kw, and the result [n, bank.cols, out_h, out_w]. Noise comes to each
    block's sum, with or without an ADC behind it.

    The range of the converters is that of each vector (image) by itself, see `input_range`, or `scale`: one
    for all or float32 [items], finite, not negative. What is beyond it, the bias drive too, clips at the DAC;
    without a DAC it is taken as it is. A range of 0 gives 0. `saturated`, int64 [items], is increased for
    each item by the number of its ADC conversions that clipped: |code| > L + 1/2 before rounding, or NaN.

    Digital arithmetic that follows on each value is cheapest here, while it is in cache: `offset` [bank.cols]
    is added to each column, then `addend`, float32 and shaped as the result, then with `relu` what is below 0
    becomes 0. The bits are those of the same steps in numpy, one after the other. Raises ValueError if the
    shapes do not fit, and MemoryError.
    """
    x = _check_input(x, 2 if window is None else 4)
    levels = converters.packed(bank)
    stream = _QUIET if noise is None else noise.packed(bank, len(x))
    ranged = converters.on or (noise is not None and noise.floor is not None)
    ranges = _ranges(x, abs(bias_drive) if bank.has_bias else 0.0, ranged, scale, threads)
    if saturated is not None:
        _check_counts(saturated, len(x))
    kernel, vectors, chunks = kernels().dense_read, len(x), 1
    form: tuple[Any, ...] = ()
    if window is None:
        if x.shape[1] != bank.rows:
            raise ValueError(f"vectors have {x.shape[1]} values, but the bank {bank.rows} rows")
        out = np.empty((len(x), bank.cols), np.float32)
    else:
        _check_channels(bank, window, x.shape[1])
        out_size = window.output_size(*x.shape[2:])
        out = np.empty((len(x), bank.cols, *out_size), np.float32)
        # Few images: cut each into bands of output rows, so that all threads have something to do.
        enough = len(x) >= 4 * threads or len(x) % threads == 0
        chunks = 1 if enough else min(threads, out_size[0])
        form = (window.packed(), chunks)
        kernel, vectors = kernels().conv_read, len(x) * out_size[0] * out_size[1]
    counts = _UNCOUNTED if saturated is None else np.zeros(len(x) * chunks, np.int64)
    args: tuple[Any, ...] = (x, bank.cells, bank.blocks, out, ranges, bias_drive, *levels, *stream)
    args += (*_finish(out, offset, addend), relu, counts, *form)
    _run(kernel, args, len(x) * chunks, _work(x, out, vectors, bank), threads)
    if saturated is not None:
        saturated += counts.reshape(len(x), chunks).sum(axis=1)
    return out


def read_transposed(
    d: Floats,
    bank: Bank,
    *,
    converters: Converters = OFF,
    window: Window | None = None,
    image: tuple[int, int] | None = None,
    threads: int = 1,
) -> Floats:
    """Read a bank backwards, rows for columns: what errors d at its outputs are at its inputs.

    d is shaped as the result of `read`, the result as its input; with a window, `image` gives height and
    width of the input, and every [row, position] value is digitized before it is added where its input came
    from. Bias rows take no part. Raises ValueError if the shapes do not fit or the converters have columns,
    which belong to forward reads, and MemoryError. One vector alone costs as much as ten or so together:
    backward reads are made for batches.
    """
    d = _check_input(d, 2 if window is None else 4)
    if d.shape[1] != bank.cols:
        raise ValueError(f"errors have {d.shape[1]} {'values' if window is None else 'channels'}, "
                         f"but the bank {bank.cols} columns")  # fmt: skip
    if converters.columns is not None:
        raise ValueError("converters of a backward read have columns, which belong to forward reads")
    scale = _ranges(d, 0.0, converters.on, None, threads)
    levels = (converters.dac_levels, converters.adc_levels, converters.adc_full)
    if window is None:
        out = np.empty((len(d), bank.rows), np.float32)
        args: tuple[Any, ...] = (d, bank.cells, bank.blocks, out, scale, *levels)
        _run(kernels().dense_read_transposed, args, len(d), _work(d, out, len(d), bank), threads)
        return out
    if image is None or window.output_size(*image) != d.shape[2:]:
        raise ValueError(f"errors of {d.shape[2:]} don't come from {window} on an image of {image}")
    channels = bank.rows // (window.kernel[0] * window.kernel[1])
    _check_channels(bank, window, channels)
    out = np.empty((len(d), channels, *image), np.float32)
    args = (d, bank.cells, bank.blocks, out, scale, *levels, window.packed())
    work = _work(d, out, len(d) * d.shape[2] * d.shape[3], bank)
    _run(kernels().conv_read_transposed, args, len(d), work, threads)
    return out


def input_range(x: Floats, floor: float = 0.0, threads: int = 1) -> Floats:
    """Input range of each vector or image: max |x[i]|, NaN left out, at least `floor`; float32 [len(x)]."""
    flat = np.ascontiguousarray(x, np.float32).reshape(len(x), x.size // max(1, len(x)))
    scale = np.empty(len(x), np.float32)
    _run(kernels().input_range, (flat, floor, scale), len(x), flat.size * MOVE // 4, threads)
    return scale


@functools.cache
def kernels() -> ModuleType:
    """The module with the kernels: the compiled ones, or else the numpy twins, with a warning."""
    if os.environ.get("PCMC_KERNELS", "") == "numpy":
        return reference
    try:
        return importlib.import_module("pcmc.accel._kernels")
    except ImportError as error:
        warnings.warn(
            f"the compiled kernels of pcmc are missing ({error}); tile reads run on numpy, and are slow. "
            "Install a C compiler and then pcmc again (pip install --force-reinstall --no-deps pcmc).",
            RuntimeWarning,
            stacklevel=3,
        )
        return reference


def _run(kernel: Callable[..., None], args: tuple[Any, ...], items: int, work: int, threads: int) -> None:
    """Run a kernel over all items, in as many threads as are given and worth it; the twins have one."""
    threads = min(threads, items, work // WORTH_A_THREAD)
    if threads <= 1 or kernels() is reference:
        kernel(*args, 0, items)
    else:
        kernel(*args, 0, items, threads)


def fill_gaussian(out: Floats, key: tuple[int, int], counter0: int = 0, threads: int = 1) -> None:
    """Set out[i], float32 [n], to number counter0 + i of the stream `key`, standard normal.

    The stream has 2^64 numbers with the same bits on every machine, so it may be cut in any way over calls
    and threads. Numbers come from 31 bits: the largest are +-6.7. Raises ValueError for another type or shape
    of `out`, and for numbers beyond the stream.
    """
    if out.dtype != np.float32 or out.ndim != 1 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"out is {out.dtype} {out.shape}, should be float32, one-dimensional, writeable and in one piece"
        )
    if not 0 <= counter0 <= _WORD + 1 - out.size:
        raise ValueError(f"numbers {counter0} and {out.size} more are not within a stream of 2^64")
    words = np.array(key, np.uint64)
    _run(kernels().fill_gaussian, (out, words, counter0), out.size, out.size * MOVE, threads)


def _work(x: Floats, out: Floats, vectors: int, bank: Bank) -> int:
    """Size of a read in multiplications."""
    return vectors * bank.cells.size + MOVE * (x.size + out.size)


def _ranges(x: Floats, floor: float, used: bool, given: Floats | float | None, threads: int) -> Floats:
    """The input range of each item, found or given; nothing if it is not used."""
    if given is None:
        return input_range(x, floor, threads) if used else _NONE
    if isinstance(given, np.ndarray) and (given.dtype != np.float32 or given.shape != x.shape[:1]):
        raise ValueError(
            f"a scale is {given.dtype} {given.shape}, should be one number or float32 ({len(x)},)"
        )
    ranges = np.full(len(x), given, np.float32)
    if not (ranges.min(initial=0) >= 0 and ranges.max(initial=0) < np.inf):
        raise ValueError("a scale is negative, infinite or NaN")
    return ranges if used else _NONE


def _check_counts(saturated: Ints, items: int) -> None:
    if saturated.dtype != np.int64 or saturated.shape != (items,) or not saturated.flags.writeable:
        raise ValueError(
            f"saturated is {saturated.dtype} {saturated.shape}, should be int64 ({items},), writeable"
        )


def _finish(out: Floats, offset: Floats | None, addend: Floats | None) -> tuple[Floats, Floats]:
    """What is added to a result, as the kernels take it."""
    offset = _NONE if offset is None else np.ascontiguousarray(offset, np.float32)
    if offset is not _NONE and offset.shape != out.shape[1:2]:
        raise ValueError(f"an offset has the shape {offset.shape}, should have {out.shape[1:2]}")
    if addend is None:
        return offset, _NONE
    if addend.dtype != np.float32 or addend.shape != out.shape:
        raise ValueError(f"an addend is {addend.dtype} {addend.shape}, should be float32 {out.shape}")
    return offset, np.ascontiguousarray(addend).reshape(-1)


def _padded(cells: Floats) -> Floats:
    """A read-only copy of the cells, with what the kernels may read behind them."""
    if cells.dtype != np.float32 or cells.ndim != 1:
        raise ValueError(f"cells are {cells.dtype} {cells.shape}, should be float32 and one-dimensional")
    padded = _with_padding(cells.size, np.float32)
    padded[:] = cells
    padded.flags.writeable = False
    return padded


def _rounded(variances: Floats) -> Halves:
    """The nearest bfloat16, ties to even, read-only, with what the kernels may read behind them; no NaN."""
    halves = _with_padding(variances.size, np.uint16)
    whole = np.ascontiguousarray(variances).view(np.uint32)
    for start in range(0, whole.size, ROUNDED_AT_ONCE):
        bits = whole[start : start + ROUNDED_AT_ONCE]
        kept = bits >> np.uint32(16)
        # Half of the last bit that is kept, or a little less where that bit is even, carries into it.
        kept &= np.uint32(1)
        kept += np.uint32(0x7FFF)
        kept += bits
        kept >>= np.uint32(16)
        halves[start : start + ROUNDED_AT_ONCE] = kept
    halves.flags.writeable = False
    return halves


def _with_padding(size: int, dtype: Any) -> NDArray[Any]:
    """Room for so many cells from a cache line on, and zeros behind: a load across two lines costs twice."""
    width = np.dtype(dtype).itemsize
    whole = np.empty(size + CELL_PADDING + 64 // width, dtype)
    start = -whole.ctypes.data % 64 // width
    whole[start + size :] = 0
    return whole[start : start + size]


def _check_blocks(blocks: Ints, rows: int, cols: int, cells: int) -> None:
    """Every block inside of the matrix and of the cells; no sum here can overflow before it is refused."""
    row0, col0, height, width, bias, offset = blocks.T
    bad = (blocks < 0).any(axis=1) | (bias > 1) | (height < 1) | (width < 1)
    bad |= (row0 > rows) | (height > rows + 1) | (col0 > cols) | (width > cols) | (offset > cells)
    bad |= np.where(bad, False, (row0 + height - bias > rows) | (col0 + width > cols))
    bad |= np.where(bad, False, height > (cells - offset) // np.maximum(width, 1))
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"block {at} (row0, col0, rows, cols, bias, offset = {blocks[at].tolist()}) lies outside of the "
            f"matrix of {rows} x {cols} or of its {cells} cells"
        )


def _check_input(x: Floats, dimensions: int) -> Floats:
    if x.dtype != np.float32 or x.ndim != dimensions:
        raise ValueError(
            f"an input is {x.dtype} with {x.ndim} dimensions, should be float32 with {dimensions}"
        )
    return np.ascontiguousarray(x)


def _check_channels(bank: Bank, window: Window, channels: int) -> None:
    kh, kw = window.kernel
    if channels * kh * kw != bank.rows:
        raise ValueError(f"{channels} channels of {kh} x {kw} windows are {channels * kh * kw} values, "
                         f"but the bank has {bank.rows} rows")  # fmt: skip
