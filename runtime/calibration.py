"""What calibration data say about a program: ranges of converters, and gains and shifts of columns.

    range   the p-th percentile of |sum| / s over conversions, of |x| for inputs; p is [adc] percentile
    active  sum n^2 / (R sum n) over reads, with n of R rows driven: the part of rows that a driven row sees
            driven beside it
    norm    y' = gain y + shift, gain = sigma_ideal / sigma, shift = mu_ideal - gain mu, of each column
    bias    the same with gain = 1

mu and sigma are mean and standard deviation of what a column gives over the calibration data. Batch
normalization before or after a matrix is folded into it, so `norm` fits its statistics to the chip again.
docs/calibration.md says when to use which.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel import periphery, tile
from pcmc.accel.periphery import Drivers, Part
from pcmc.errors import ProgramError

if TYPE_CHECKING:
    from pcmc.runtime.banks import LoadedBank
    from pcmc.runtime.program import Program, Read

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

#: What there is to calibrate: ranges of output and of input converters; the part of rows that are driven;
#: shifts, or gains and shifts.
KINDS = ("adc", "input", "active", "bias", "norm")

#: Bins from 0 to the largest magnitude, in which a percentile is looked up.
BINS = 512
#: Sums that are held at once, as numbers of float32.
MOST_SUMS = 1 << 22
#: A column whose standard deviation is below this part of the bank's largest says nothing about a gain.
LEAST_DEVIATION = 1e-6
#: The least full scale of a conversion, as a part of the bank's largest.
LEAST_RANGE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class BankCalibration:
    """Of one bank; None is what the chip file says, or nothing.

    `adc_full`, float32 `[conversions]`: full scale of each conversion in units of weight * input range.
    `input_full`: full scale of fixed-range inputs. `gain` and `shift`, float32 `[cols]`: what the digital
    unit multiplies a column with, and adds after. `active_fraction`: the part of rows that are driven at a
    time.
    """

    adc_full: Floats | None = None
    input_full: float | None = None
    gain: Floats | None = None
    shift: Floats | None = None
    active_fraction: float | None = None


def active_fractions(banks: Mapping[str, BankCalibration]) -> dict[str, float]:
    """The part of the rows of each bank that are driven at a time, where it was measured."""
    found = {name: bank.active_fraction for name, bank in banks.items()}
    return {name: part for name, part in found.items() if part is not None}


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What `pcmc.calibrate` found: `Session(program, ..., calibration=found.banks)`.

    `what` are some of `KINDS`, `samples` how many there were, `physics` the names of the effects that were on
    and `seed` the chip: gains and shifts are of that chip alone. `banks` are by name.
    """

    what: tuple[str, ...]
    samples: int
    physics: tuple[str, ...]
    seed: int
    banks: Mapping[str, BankCalibration]

    def save(self, program: Program, path: str | os.PathLike[str]) -> None:
        """Write the program file with this calibration in it; `pcmc.load_calibration(path)` reads it.

        Raises:
            ProgramError: it is not a calibration of this program.
            OutputError: the path can't be written.
        """
        from pcmc.runtime.program_file import save

        check_calibration(self, program)
        save(program, path, calibration=self)


# Ranges


def as_driven(x: npt.NDArray[Any], rows: int, how: Read) -> tuple[Floats, tile.Window | None]:
    """An input of an operation as tiles take it, `[vectors, rows]` or with a window `[images, ...]`.

    Raises:
        ValueError: the shape does not fit.
    """
    x = np.ascontiguousarray(x, np.float32)
    if how.kind == "dense":
        return x.reshape(-1, rows), None
    if how.kind == "columns":
        return x.reshape(-1, x.shape[-2], 1, x.shape[-1]), tile.Window((1, 1))
    maps = x if x.ndim == 4 else x[:, :, None, :]
    return maps, how.window_for(*maps.shape[2:])


def full_scales(pieces: Callable[[], Iterable[Floats]], percentile: float, apart: bool) -> Doubles:
    """The percentile of magnitudes, of each column or of all together.

    100 is the largest, exactly. Otherwise magnitudes are counted in `BINS` bins from 0 to the largest, and
    the upper edge of the bin with the percentile is taken: the memory does not grow with the data, and the
    range is too wide by at most 1 / `BINS` of the largest.

    Args:
        pieces: gives the magnitudes, float32 `[items, columns, positions]`, in pieces; called twice.
        percentile: 50 to 100.
        apart: each column by itself.

    Returns:
        `[columns]`, or `[1]`; 0 where there are no magnitudes, or only zeros.
    """
    tops = [piece.max(axis=(0, 2), initial=0.0) for piece in pieces()]
    if not tops:
        return np.zeros(1)
    top: Doubles = np.max(tops, axis=0).astype(np.float64)
    if not apart:
        top = top.max(initial=0.0, keepdims=True)
    if percentile == 100 or not top.any():
        return top
    counts = np.zeros((len(top), BINS + 1), np.int64)
    unit = np.divide(BINS, top, out=np.zeros_like(top), where=top > 0)
    for piece in pieces():
        bins = np.ceil(piece * unit.reshape(1, -1, 1)).astype(np.int64).clip(0, BINS)
        bins += (BINS + 1) * np.arange(len(top)).reshape(1, -1, 1)
        counts += np.bincount(bins.ravel(), minlength=counts.size).reshape(counts.shape)
    below = np.cumsum(counts, axis=1)
    edge = np.argmax(below >= below[:, -1:] * (percentile / 100), axis=1)
    found: Doubles = top * np.maximum(edge, 1) / BINS
    return found


def conversion_sums(
    x: Floats, bank: LoadedBank, window: tile.Window | None, step: int = 0, threads: int = 1
) -> Iterator[Floats]:
    """What the output converters of a bank are given.

    Inputs are driven as `pcmc.accel.periphery` drives them, phase by phase, with the noise of the devices;
    that of the bias rows' own devices is left out. A phase in which the rows of an item are not driven has
    no conversion, and is left out, too.

    Args:
        x: float32 `[vectors, rows]`, or with a window `[images, channels, height, width]`.
        bank: what is read. Its output converters take no part; parts without any are left out.
        window: of a convolution.
        step: counts reads: each has fast noise of its own.
        threads: of the kernels.

    Yields:
        |sum| over the range of its item and phase, float32 `[items, conversions, positions]`, where positions
        are those of a window's output; in pieces of about `MOST_SUMS` numbers, or of one item.
    """
    positions = 1 if window is None else int(np.prod(window.output_size(*x.shape[2:])))
    size = max(1, MOST_SUMS // max(1, bank.parts[0].bank.conversions * positions, x[:1].size))
    converted = [part for part in bank.parts if part.converters.adc_levels]
    parts = [(_apart(part), _bias_rows(part)) for part in converted]
    drivers = replace(bank.drivers, full=1.0, signed=True)
    for start in range(0, len(x), size):
        for inputs, drive, weight in _phases(x[start : start + size], bank):
            for part, bias in parts:
                sums = periphery.read(
                    inputs, [part], drivers, sample=bank.sample, window=window, step=step, threads=threads
                ).reshape(len(inputs), part.bank.cols, -1)
                if bias is not None:
                    sums += periphery.read(drive, [bias], drivers, sample=bank.sample)[:, :, None]
                np.abs(sums, out=sums)
                sums /= np.float32(weight)
                yield sums


def _apart(part: Part) -> Part:
    """The same blocks without bias rows and converters, each conversion a column of its own."""
    blocks = part.bank.blocks.copy()
    blocks[:, 1] = np.cumsum(blocks[:, 3]) - blocks[:, 3]
    blocks[:, 2] -= blocks[:, 4]
    blocks[:, 4] = 0
    blocks = blocks[blocks[:, 2] > 0]
    bank = tile.make_bank(part.bank.cells, blocks, part.bank.rows, part.bank.conversions)
    noise = part.noise
    if noise is not None and noise.variances is not None:
        noise = replace(noise, variances=replace(noise.variances, blocks=bank.blocks))
    if noise is not None and bank.conversions != part.bank.conversions:  # blocks of a bias row alone
        noise = None
    return Part(1.0, bank, tile.OFF, noise)


def _bias_rows(part: Part) -> Part | None:
    """The bias rows as a matrix `[1, conversions]`, zero where a block has none; None without bias rows."""
    if not part.bank.has_bias:
        return None
    rows = []
    for _, _, height, width, bias, offset in part.bank.blocks.tolist():
        last = offset + (height - 1) * width
        rows.append(part.bank.cells[last : last + width] if bias else np.zeros(width, np.float32))
    cells = np.concatenate(rows)
    table = np.array([[0, 0, 1, cells.size, 0, 0]], np.int64)
    return Part(1.0, tile.make_bank(cells, table, 1, cells.size), tile.OFF)


def _phases(x: Floats, bank: LoadedBank) -> Iterator[tuple[Floats, Floats, float]]:
    """The inputs of each phase for an input range of 1, those of bias rows `[items, 1]`, and what the result
    of a read is multiplied with; items that are driven.
    """
    drivers = bank.drivers
    has_bias = any(part.bank.has_bias for part in bank.parts)
    if drivers.full is None:
        ranges = tile.input_range(x, abs(bank.bias_drive) if has_bias else 0.0)
    else:
        ranges = np.full(len(x), drivers.full, np.float32)
    alive = np.isfinite(ranges) & (ranges / np.float32(max(1, drivers.levels)) > 0)
    if not alive.any():
        return
    x, ranges = x[alive], ranges[alive]
    drive = np.full((len(x), 1), bank.bias_drive if has_bias else 0.0, np.float32)
    codes = [_codes(values, ranges, drivers.levels) for values in (x, drive)]
    for sign in (0,) if drivers.signed else (1, -1):
        halves = [np.maximum(code * np.float32(sign), 0) if sign else code for code in codes]
        for mask, weight in _digits(drivers, bank.sample):
            inputs, bias = (_masked(half, mask) / np.float32(max(1, drivers.levels)) for half in halves)
            driven = (bias[:, 0] != 0) | inputs.reshape(len(inputs), -1).any(axis=1)
            if driven.any():
                yield inputs[driven], bias[driven], weight


def _digits(drivers: Drivers, sample: str) -> list[tuple[int, float]]:
    """The bits of |code| that are sent in one phase, and what they count; 0: all, as they are."""
    if len(drivers.weights) == 1 or sample == "sum":
        return [(0, 1.0)]
    mask = (1 << drivers.slice_bits) - 1
    return [(mask << k * drivers.slice_bits, weight) for k, weight in enumerate(drivers.weights)]


def _codes(values: Floats, ranges: Floats, levels: int) -> Floats:
    """The codes of the input converters; without them, values over their range."""
    codes = values / (ranges / np.float32(max(1, levels))).reshape(-1, *[1] * (values.ndim - 1))
    if not levels:
        return np.nan_to_num(codes, copy=False, nan=1.0)
    np.rint(codes, out=codes)
    codes[np.isnan(codes)] = levels
    return np.clip(codes, -levels, levels, out=codes)


def _masked(codes: Floats, mask: int) -> Floats:
    if not mask:
        return codes
    return np.copysign((np.abs(codes).astype(np.int32) & mask).astype(np.float32), codes)


# Rows that are driven


@dataclass(frozen=True, slots=True)
class Activity:
    """How many rows of a bank are driven at a time, over reads: sums of their number, and of its square."""

    driven: float = 0.0
    squared: float = 0.0

    def with_reads(self, other: Activity) -> Activity:
        """Those of the reads of both."""
        return Activity(self.driven + other.driven, self.squared + other.squared)

    def fraction(self, rows: int) -> float | None:
        """The part of `rows` that a driven row sees driven, itself counted; None where none ever was.

        Reads with more rows driven carry more current: each counts with the number of its rows.
        """
        return min(1.0, self.squared / (self.driven * rows)) if self.driven else None


def row_activity(x: Floats, bank: LoadedBank, window: tile.Window | None, threads: int = 1) -> Activity:
    """How many rows, bias rows counted, are driven at a time for these inputs.

    A row is driven if its code is not 0; of bit-serial inputs the bits that are sent, each phase weighed with
    what it counts. A pulse counts alike whatever its width. Padding of a convolution is not driven.

    Args:
        x: as in `conversion_sums`.
        bank: what is read.
        window: of a convolution.
        threads: of the kernels.
    """
    rows = bank.rows
    counter = tile.make_bank(np.ones(rows, np.float32), np.array([[0, 0, rows, 1, 0, 0]], np.int64), rows, 1)
    biases, found = bias_rows(bank), Activity()
    positions = 1 if window is None else int(np.prod(window.output_size(*x.shape[2:])))
    size = max(1, MOST_SUMS // max(1, positions, x[:1].size))
    in_phases = replace(bank, sample="slice")  # the sum of phases is sent in phases, too
    for start in range(0, len(x), size):
        for inputs, drive, weight in _phases(x[start : start + size], in_phases):
            on = (inputs != 0).astype(np.float32)
            driven = tile.read(on, counter, window=window, threads=threads).reshape(len(on), -1)
            counts = driven.astype(np.float64) + biases * (drive != 0)
            found = found.with_reads(
                Activity(weight * float(counts.sum()), weight * float(np.square(counts).sum()))
            )
    return found


def bias_rows(bank: LoadedBank) -> int:
    """How many rows of a bank hold biases: one for each range of rows with blocks that have one."""
    blocks = bank.parts[0].bank.blocks
    return len(np.unique(blocks[blocks[:, 4] > 0, 0]))


def bank_ranges(found: Doubles, otherwise: Floats) -> Floats:
    """Full scales `[conversions]` from those of all conversions, or from one for all.

    Args:
        found: as `full_scales` gives them.
        otherwise: what a conversion without a sum takes, `[conversions]`.
    """
    full = np.broadcast_to(found, otherwise.shape)
    full = np.where(full > 0, np.maximum(full, LEAST_RANGE * full.max(initial=0.0)), otherwise)
    return full.astype(np.float32)


# Gains and shifts


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """How many values the columns of an output have, their means and their summed squared distances from
    those, float64 `[cols]`.
    """

    count: int
    mean: Doubles
    squares: Doubles

    @property
    def deviation(self) -> Doubles:
        """The standard deviation of each column."""
        found: Doubles = np.sqrt(self.squares / max(1, self.count))
        return found

    def with_values(self, other: Moments) -> Moments:
        """Those of the values of both (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        if not count:
            return self
        distance = other.mean - self.mean
        mean = self.mean + distance * (other.count / count)
        squares = self.squares + other.squares + distance**2 * (self.count * other.count / count)
        return Moments(count, mean, squares)


def moments(y: npt.NDArray[Any], cols: int, kind: str) -> Moments:
    """Of an output of a bank, as `Read.kind` shapes it: columns on the last axis ("dense"), on the last but
    one ("columns") or on the second ("window").
    """
    if kind == "dense":
        values = y.reshape(-1, cols)
    elif kind == "columns":
        values = np.moveaxis(y, -2, -1).reshape(-1, cols)
    else:
        values = np.moveaxis(y, 1, -1).reshape(-1, cols)
    exact = values.astype(np.float64)
    if not len(exact):
        return Moments(0, np.zeros(cols), np.zeros(cols))
    mean = exact.mean(axis=0)
    return Moments(len(exact), mean, np.square(exact - mean).sum(axis=0))


def fitted(ideal: Moments, chip: Moments, gains: bool) -> tuple[Floats, Floats]:
    """Gain and shift of each column, float32 `[cols]`, with which the chip's have the moments of the ideal.

    A column that does not vary in one of them, or has no finite moments, is left alone: gain 1, shift 0.

    Args:
        ideal: of the ideal run.
        chip: of the chip.
        gains: False: all gains are 1, and only means are brought back.
    """
    wanted, found = ideal.deviation, chip.deviation
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        varies = [one > LEAST_DEVIATION * np.nanmax(one, initial=0.0) for one in (wanted, found)]
        usable = varies[0] & varies[1] & np.isfinite(wanted + found + ideal.mean + chip.mean)
        gain = np.where(usable, wanted / found, 1.0) if gains else np.ones_like(wanted)
        shift = np.where(usable, ideal.mean - gain * chip.mean, 0.0)
    return gain.astype(np.float32), shift.astype(np.float32)


def check_calibration(calibration: Calibration, program: Program) -> None:
    """Check that a calibration is one of a program.

    Raises:
        ProgramError: naming the bank, and what of it does not fit.
    """
    unknown = [kind for kind in calibration.what if kind not in KINDS]
    if unknown or calibration.samples < 1:
        raise ProgramError(f"{program.name}: the calibration is of an unknown kind, or of no samples")
    for name, bank in calibration.banks.items():
        if name not in program.banks:
            raise ProgramError(f"{program.name}: the calibration has a bank '{name}', the program has none")
        of_program = program.banks[name]
        conversions = int(of_program.table["cols"].sum())
        full = None if bank.input_full is None else np.array(bank.input_full)
        active = None if bank.active_fraction is None else np.array(bank.active_fraction)
        checked = (
            ("adc_full", bank.adc_full, (conversions,), True),
            ("input_full", full, (), True),
            ("active_fraction", active, (), True),
            ("gain", bank.gain, (of_program.cols,), False),
            ("shift", bank.shift, (of_program.cols,), False),
        )
        where = f"{program.name}: the calibration of bank '{name}'"
        for what, values, shape, positive in checked:
            if values is None:
                continue
            if values.shape != shape:
                raise ProgramError(f"{where}: {what} has shape {list(values.shape)}, should be {list(shape)}")
            if not np.isfinite(values).all() or (positive and not (values > 0).all()):
                raise ProgramError(f"{where}: {what} is not {'positive and ' * positive}finite everywhere")
        if active is not None and active > 1:
            raise ProgramError(f"{where}: active_fraction is {active:g}, more than 1")
        if (bank.gain is None) != (bank.shift is None):
            raise ProgramError(f"{where}: has a gain without a shift, or a shift without a gain")
