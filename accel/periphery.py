"""How a bank is read through real drivers and converters: `read`, on top of `pcmc.accel.tile.read`.

    y = read(x, [Part(1.0, bank, converters, noise)], Drivers(levels=127))          # is tile.read, same bits
    y = read(x, parts, Drivers(levels=127, kind="bits", slice_bits=2), sample="sum")
    y = read(x, parts, Drivers(levels=127, signed=False), window=window)            # two phases

A read is a sum over phases, each of which drives all rows at once, and over parts, the columns that are
converted by themselves. With s the range of a vector (image), L the levels of the DAC, B = 2^slice_bits:

    code     c = clip(rint(x / (s / L)), -L, L), and likewise for the bias drive; with L = 0, c / L is x / s
    phase    u = c / L; of kind "bits" sign(c) d / (B - 1) for each digit d of |c| in base B;
             with signed = False max(u, 0), and another phase with max(-u, 0)
    current  f(u) = u (1 + cubic u^2), times 1 - polarity_loss where u < 0
    y        s * sum over phases and parts of weight * factor * (what tile.read gives for f(u), range 1)
    weight   1, for digit k B^k (B - 1) / L; negative for the second phases

The rows of a phase whose codes are all 0, the bias row's too, are not driven and nothing is converted: such
a phase has no noise, no offset and no error, for each vector (image) by itself. Only where a read has just
one phase it is always sent. A range that is 0 or infinite, or that makes results no floats, gives 0.

Noise of the devices goes with |f(u)|^power; pulses have power 1. Each phase draws numbers of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pcmc.accel import reference, tile

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

#: Phase p of a read counts as step * PHASES + p of the noise, if the read has more than one.
PHASES = 1024

_ALL = np.ones(1, np.bool_)
# Conversions that are done as one block where sums are converted: one or two vectors of the processor.
_TOGETHER = 16

KINDS = ("voltage", "pulse", "bits")
SAMPLES = ("slice", "sum")


@dataclass(frozen=True, slots=True)
class Drivers:
    """How rows are driven.

    `levels` of the DAC are 2^(bits - 1) - 1; 0 switches it off, and then nothing is rounded. Inputs are sent
    as a "voltage", as the width of a "pulse", or as "bits": `slice_bits` of the magnitude at a time, from the
    least on, as voltages; without a DAC there are no bits, and those drivers send one exact voltage. With
    `signed` = False positive and negative inputs go out in two phases, both as positive voltages. `full` is a
    fixed full scale; None: the largest |x| of each vector (image), at least |bias_drive| if there is a bias
    row.

    Devices may be not quite ohmic: I = G V (1 + `cubic` (V / V_full)^2), and negative voltages draw
    1 - `polarity_loss` of that. Where all voltages are 0 or full (pulses; bits one at a time) the cubic term
    is one factor for all currents, which the calibration of the chip's scale takes out: it is left out there.

    Raises:
        ValueError: a value that is out of range, or `levels` that are no 2^n - 1 with "bits".
    """

    levels: int = 0
    kind: str = "voltage"
    slice_bits: int = 1
    signed: bool = True
    full: float | None = None
    cubic: float = 0.0
    polarity_loss: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind of drivers is {self.kind!r}, should be one of {', '.join(KINDS)}")
        if not 0 <= self.levels <= tile.MOST_LEVELS:
            raise ValueError(f"levels of drivers are {self.levels}, should be 0 (off) to {tile.MOST_LEVELS}")
        if self.slice_bits < 1:
            raise ValueError(f"slice_bits of drivers are {self.slice_bits}, should be 1 or more")
        if self.kind == "bits" and self.levels & (self.levels + 1):
            raise ValueError(f"levels of drivers are {self.levels}, should be 2^n - 1 to be sent as bits")
        if self.full is not None and not 0 < self.full < np.inf:
            raise ValueError(f"full of drivers is {self.full}, should be positive and finite")
        for name in ("cubic", "polarity_loss"):
            if not np.isfinite(getattr(self, name)):
                raise ValueError(f"{name} of drivers is {getattr(self, name)}, should be finite")

    @property
    def weights(self) -> tuple[float, ...]:
        """What the digits of an input count, from the least on, for a digit of full voltage and a range of 1;
        (1.0,) where inputs are sent whole.
        """
        digits = -(-self.levels.bit_length() // self.slice_bits) if self.kind == "bits" else 1
        if digits <= 1:
            return (1.0,)
        base = 1 << self.slice_bits
        return tuple(base**k * (base - 1) / self.levels for k in range(digits))

    @property
    def bent(self) -> tuple[float, float]:
        """The cubic term and the loss of negative voltages, as far as they change anything."""
        one_height = self.kind == "pulse" or (
            self.kind == "bits" and self.levels > 0 and self.slice_bits == 1
        )
        return 0.0 if one_height else self.cubic, self.polarity_loss if self.signed else 0.0

    def phases(self, sample: str = "slice") -> int:
        """Conversions of one column in a read, at most: phases, or with `sample` = "sum" groups of them."""
        return (1 if self.signed else 2) * (len(self.weights) if sample == "slice" else 1)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Columns that are converted by themselves; what they give is multiplied by `factor` and added.

    The parts of a read share their rows, for example as G+, G- and a reference. A bank with one column is
    added to all columns. `converters` has the ADC; the DAC is that of the drivers, so its `dac_levels` are 0,
    or the drivers'. Noises of parts have keys that differ; their `step` is not used.
    """

    factor: float
    bank: tile.Bank
    converters: tile.Converters
    noise: tile.Noise | None = None


class _How(NamedTuple):
    """What all tile reads of a call share."""

    window: tile.Window | None
    threads: int
    saturated: Ints | None


class _Phase(NamedTuple):
    """One conversion: its place in the order, its sign (0: inputs of both), its weight, its digits."""

    place: int
    sign: int
    weight: float
    digits: tuple[int, ...]  # more than one: summed before the conversion; none: inputs are sent whole


class _Driven(NamedTuple):
    """What rows are driven with: inputs [items, ...], and the bias row of each item, [items]."""

    inputs: Floats
    bias: Floats


class _Codes(NamedTuple):
    """What the DAC makes of inputs [items, ...] and of the bias drive of each item, [items].

    Where there are fewer codes than inputs, `table` has them all, and `inputs` are places in it.
    """

    inputs: NDArray[Any]
    bias: Floats
    table: Floats | None


class _Reading(NamedTuple):
    """A part in one phase; `sent` [items] is 1 where the phase is sent, else 0: the range of a tile read."""

    bank: tile.Bank
    converters: tile.Converters
    noise: tile.Noise | None
    sent: Floats


def read(
    x: Floats,
    parts: Sequence[Part],
    drivers: Drivers,
    *,
    bias_drive: float = 1.0,
    sample: str = "slice",
    window: tile.Window | None = None,
    step: int = 0,
    threads: int = 1,
    saturated: Ints | None = None,
    offset: Floats | None = None,
    addend: Floats | None = None,
    relu: bool = False,
) -> Floats:
    """Read parts of a tile for the input vectors or images x, as the module's formulas say.

    Args:
        x: float32 [vectors, rows], or with a window [images, channels, height, width].
        parts: what is read; one part at least.
        drivers: how.
        bias_drive: the input of bias rows, sent as the others are.
        sample: of bit-serial inputs "slice" converts the sum of each phase and adds digitally; "sum" adds
            the phases of a sign before one conversion, with the noise of all of them; the `floor` of a noise
            then comes once.
        window: of a convolution.
        step: counts reads: each has noise of its own. It is the step of the noise where there is one phase,
            else phase p has step * PHASES + p.
        threads: of the kernels.
        saturated: int64 [items], increased by the conversions of each item that clipped, over all phases and
            parts; None: not counted.
        offset: added to each column, [columns]; None: nothing.
        addend: added after, shaped as the result; None: nothing.
        relu: whether what is below 0 becomes 0 in the end.

    Returns:
        float32 [vectors, columns], or [images, columns, out_height, out_width].

    Raises:
        ValueError: shapes, types or converters that do not fit, parts whose noises have one key, an unknown
            `sample`.
        MemoryError: out of memory.
    """
    _check(parts, drivers, sample)
    how = _How(window, threads, saturated)
    if not _is_cut(parts, drivers, sample):
        part = parts[0]
        if len(parts) == 1 and part.factor == 1 and drivers.signed:
            return tile.read(
                x,
                part.bank,
                bias_drive=bias_drive,
                converters=_converters(part, drivers.levels),
                noise=_noise(part, drivers, step),
                window=window,
                offset=offset,
                addend=addend,
                relu=relu,
                scale=drivers.full,
                saturated=saturated,
                threads=threads,
            )
        y = _read_whole(x, parts, drivers, bias_drive, step, how)
    else:
        y = _read_cut(x, parts, drivers, bias_drive, sample, step, how)
    return _finished(y, offset, addend, relu)


def _check(parts: Sequence[Part], drivers: Drivers, sample: str) -> None:
    if sample not in SAMPLES:
        raise ValueError(f"sample is {sample!r}, should be one of {', '.join(SAMPLES)}")
    if not parts:
        raise ValueError("a read takes one part at least")
    for part in parts:
        if part.converters.dac_levels not in (0, drivers.levels):
            raise ValueError(
                f"converters of a part have {part.converters.dac_levels} levels of the DAC, but the drivers "
                f"{drivers.levels}"
            )
    if len(parts) > 1:
        keys = [part.noise.key for part in parts if part.noise is not None]
        if len(set(keys)) < len(keys):
            raise ValueError("noises of two parts have the same key: they would be the same numbers")


def _is_cut(parts: Sequence[Part], drivers: Drivers, sample: str) -> bool:
    """Whether inputs must be worked out before they go to tile reads, whose DAC can't do it."""
    noises = [part.noise for part in parts if part.noise is not None and part.noise.variances is not None]
    serial = len(drivers.weights) > 1 and (sample == "slice" or bool(noises))
    widths = any(drivers.kind == "pulse" or noise.power == 1 for noise in noises)
    return serial or widths or drivers.bent != (0.0, 0.0)


def _converters(part: Part, dac_levels: int) -> tile.Converters:
    same = part.converters.dac_levels == dac_levels
    return part.converters if same else replace(part.converters, dac_levels=dac_levels)


def _noise(part: Part, drivers: Drivers, step: int) -> tile.Noise | None:
    if part.noise is None:
        return None
    return replace(part.noise, step=step, power=1 if drivers.kind == "pulse" else part.noise.power)


def _step(step: int, phases: int, index: int) -> int:
    return step if phases == 1 else step * PHASES + index


def _ranges(
    x: Floats, parts: Sequence[Part], drivers: Drivers, bias_drive: float, how: _How
) -> tuple[tuple[int, ...], Floats]:
    """The shape of the result, ValueError if there is none, and the range of each item; 0: of no use, since
    what ADCs give would add up to no floats.
    """
    dimensions = 2 if how.window is None else 4
    if x.dtype != np.float32 or x.ndim != dimensions:
        raise ValueError(f"an input is {x.dtype} {x.shape}, should be float32 with {dimensions} dimensions")
    taps = 1 if how.window is None else how.window.kernel[0] * how.window.kernel[1]
    cols = max(part.bank.cols for part in parts)
    for part in parts:
        if part.bank.rows != x.shape[1] * taps or part.bank.cols not in (1, cols):
            raise ValueError(
                f"inputs of {x.shape[1]} x {taps} and {cols} columns do not fit a bank of {part.bank.rows} x "
                f"{part.bank.cols}"
            )
    shape = (len(x), cols) if how.window is None else (len(x), cols, *how.window.output_size(*x.shape[2:]))
    if drivers.full is None:
        floor = abs(bias_drive) if any(part.bank.has_bias for part in parts) else 0.0
        ranges = tile.input_range(x, floor, how.threads)
    else:
        ranges = np.full(len(x), drivers.full, np.float32)
    most = (
        2
        * sum(drivers.weights)
        * sum(
            abs(part.factor) * part.converters.reach * len(part.bank.blocks)
            for part in parts
            if part.converters.adc_levels
        )
    )
    return shape, np.where(np.isfinite(ranges * np.float32(max(1.0, most))), ranges, np.float32(0))


def _add(y: Floats, values: Floats, weight: float, sent: NDArray[Any]) -> None:
    """Add weight * values to y; values are used up. One column is added to all; items not sent give 0."""
    if weight != 1.0:
        np.multiply(values, np.float32(weight), out=values)
    if not sent.all():
        values[sent == 0] = 0
    np.add(y, values, out=y)


@reference.QUIET
def _read_whole(
    x: Floats, parts: Sequence[Part], drivers: Drivers, bias_drive: float, step: int, how: _How
) -> Floats:
    """Inputs sent whole, through the DAC of tile reads: one phase, or two."""
    shape, ranges = _ranges(x, parts, drivers, bias_drive, how)
    y = np.zeros(shape, np.float32)
    phases = drivers.phases("sum")
    for place, sign in enumerate((1, -1)[:phases]):
        inputs, drive, sent = x, bias_drive, ranges
        if phases > 1:
            # A NaN is positive full scale for a DAC.
            inputs, drive = np.maximum(x, 0) if sign > 0 else np.fmax(-x, 0), max(sign * bias_drive, 0.0)
            floor = drive if any(part.bank.has_bias for part in parts) else 0.0
            codes = tile.input_range(inputs, floor, how.threads)
            if drivers.levels:
                codes = np.rint(codes / (ranges / np.float32(drivers.levels)))
            sent = np.where(codes > 0, ranges, np.float32(0))
            if not sent.any():
                continue
        for part in parts:
            noise = _noise(part, drivers, _step(step, phases, place))
            reading = _Reading(part.bank, _converters(part, drivers.levels), noise, sent)
            values = _tile_read(inputs, drive, reading, how)
            _add(y, values, sign * part.factor, sent if phases > 1 else _ALL)
    return y


@reference.QUIET
def _read_cut(
    x: Floats, parts: Sequence[Part], drivers: Drivers, bias_drive: float, sample: str, step: int, how: _How
) -> Floats:
    """Inputs that are worked out here, for an input range of 1, and read phase by phase."""
    shape, ranges = _ranges(x, parts, drivers, bias_drive, how)
    steps = ranges / np.float32(max(1, drivers.levels))
    alive = steps > 0
    codes = _codes(x, bias_drive, steps, alive, drivers.levels)
    biased = any(part.bank.has_bias for part in parts)
    powers = {part.noise.power for part in parts if part.noise and part.noise.variances}
    y = np.zeros(shape, np.float32)
    for phase in _phases(drivers, sample):
        driven = _driven(codes, drivers, phase)
        sent = alive
        if drivers.phases(sample) > 1:
            sent = tile.input_range(driven.inputs, 0.0, how.threads) > 0
            sent |= biased & (driven.bias != 0)
        if not sent.any():
            continue
        # What the variances of phases that are summed go with; else tile reads raise inputs themselves.
        summed = powers if len(phase.digits) > 1 else ()
        raised = {power: _driven(codes, drivers, phase, power) for power in summed}
        for part in parts:
            noise = _noise(part, drivers, _step(step, drivers.phases(sample), phase.place))
            reading = _Reading(part.bank, _converters(part, 0), noise, sent.astype(np.float32))
            if raised and noise and noise.variances and part.bank.conversions:
                values = _read_summed(driven, raised[noise.power], reading, noise, noise.variances, how)
            else:
                values = _read_driven(driven, reading, how, drivers.full is not None)
            _add(y, values, phase.weight * part.factor, sent)
    y *= np.where(alive, ranges, np.float32(0)).reshape(-1, *[1] * (y.ndim - 1))
    return y


def _phases(drivers: Drivers, sample: str) -> Iterator[_Phase]:
    """All conversions of a read, in order."""
    weights = drivers.weights
    digits = tuple(range(len(weights))) if len(weights) > 1 else ()
    groups = [(digit,) for digit in digits] if digits and sample == "slice" else [digits]
    for turn, sign in enumerate((0,) if drivers.signed else (1, -1)):
        for index, group in enumerate(groups):
            weight = weights[group[0]] if len(group) == 1 else 1.0
            yield _Phase(turn * len(groups) + index, sign, -weight if sign < 0 else weight, group)


def _codes(x: Floats, bias_drive: float, steps: Floats, alive: NDArray[np.bool_], levels: int) -> _Codes:
    inputs = _code(x, steps, alive, levels)
    bias = _code(np.full(len(x), bias_drive, np.float32), steps, alive, levels)
    if not 0 < 2 * levels < inputs.size:
        return _Codes(inputs, bias, None)
    inputs += levels
    return _Codes(inputs.astype(np.intp), bias, np.arange(-levels, levels + 1, dtype=np.float32))


def _code(values: Floats, steps: Floats, alive: NDArray[np.bool_], levels: int) -> Floats:
    """The DAC's codes of values [items, ...], or without levels values over their range; 0 if not alive."""
    codes = values / steps.reshape(-1, *[1] * (values.ndim - 1))
    if levels:
        np.rint(codes, out=codes)
        codes[np.isnan(codes)] = levels
        np.clip(codes, -levels, levels, out=codes)
    if not alive.all():
        codes[~alive] = 0
    return codes


def _driven(codes: _Codes, drivers: Drivers, phase: _Phase, power: int = 0) -> _Driven:
    if codes.table is None:
        inputs = _currents(codes.inputs, drivers, phase, power)
    else:
        inputs = _currents(codes.table, drivers, phase, power)[codes.inputs]
    return _Driven(inputs, _currents(codes.bias, drivers, phase, power))


def _currents(codes: Floats, drivers: Drivers, phase: _Phase, power: int) -> Floats:
    """What ohmic devices would be driven with in a phase to draw the same currents, range 1: f(u).

    Of digits that are summed, sum_k w_k f(u_k); with a power p, sum_k w_k^2 |f(u_k)|^p.
    """
    if phase.sign:
        codes = np.maximum(codes * np.float32(phase.sign), 0)
    if not phase.digits:
        return _bend(codes / np.float32(max(1, drivers.levels)), drivers)
    mask = (1 << drivers.slice_bits) - 1
    magnitudes, total = np.abs(codes).astype(np.int32), np.zeros_like(codes)
    for digit in phase.digits:
        u = (magnitudes >> digit * drivers.slice_bits & mask).astype(np.float32)
        u /= np.float32(mask)
        u = _bend(np.copysign(u, codes, out=u), drivers)
        if len(phase.digits) == 1:
            return u
        weight = np.float32(drivers.weights[digit])
        total += weight * weight * np.abs(u) ** power if power else weight * u
    return total


def _bend(u: Floats, drivers: Drivers) -> Floats:
    cubic, loss = drivers.bent
    if cubic:
        u = u * (1 + np.float32(cubic) * u * u)
    if loss:
        u = np.where(u < 0, u * np.float32(1 - loss), u)
    return u


def _read_driven(driven: _Driven, part: _Reading, how: _How, alike: bool) -> Floats:
    """A tile read in which each item has a bias drive of its own, or `alike`, the same for all.

    Which way is taken does not depend on the numbers: the result of an item is the same in any batch.
    """
    if alike or not part.bank.has_bias:
        return _tile_read(driven.inputs, float(driven.bias[0]), part, how)
    if how.window is None:
        inputs, part = _with_bias_inputs(driven, part)
        return _tile_read(inputs, 0.0, part, how)
    # Images one after the other that have the same bias drive; each keeps its place in the noise.
    bounds = [0, *(np.flatnonzero(np.diff(driven.bias)) + 1).tolist(), len(driven.bias)]
    pieces = []
    for first, last in itertools.pairwise(bounds):
        here = slice(first, last)
        noise = part.noise and replace(part.noise, first=part.noise.first + first)
        piece = part._replace(noise=noise, sent=part.sent[here])
        counts = None if how.saturated is None else how.saturated[here]
        drive = float(driven.bias[first])
        pieces.append(_tile_read(driven.inputs[here], drive, piece, how._replace(saturated=counts)))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _tile_read(inputs: Floats, bias_drive: float, part: _Reading, how: _How) -> Floats:
    return tile.read(
        inputs,
        part.bank,
        bias_drive=bias_drive,
        converters=part.converters,
        noise=part.noise,
        window=how.window,
        scale=part.sent,
        saturated=how.saturated,
        threads=how.threads,
    )


def _with_bias_inputs(driven: _Driven, part: _Reading) -> tuple[Floats, _Reading]:
    """Vectors in which the bias drive follows the inputs of each range of rows, and the part that takes them:
    the same cells, with rows in place of bias rows.
    """
    starts: dict[tuple[int, int, int], int] = {}
    blocks, rows = part.bank.blocks.copy(), 0
    for block in blocks:
        span = int(block[0]), int(block[2]), int(block[4])
        if span not in starts:
            starts[span] = rows
            rows += span[1]
        block[0], block[4] = starts[span], 0
    wide = np.empty((len(driven.inputs), rows), np.float32)
    for (row0, height, bias), start in starts.items():
        end = start + height - bias
        wide[:, start:end] = driven.inputs[:, row0 : row0 + height - bias]
        wide[:, end : start + height] = driven.bias[:, None]
    noise, bank = part.noise, replace(part.bank, blocks=blocks, rows=rows, has_bias=False)
    if noise is not None and noise.variances is not None:
        noise = replace(noise, variances=replace(noise.variances, blocks=blocks))
    return wide, part._replace(bank=bank, noise=noise)


def _read_summed(
    driven: _Driven, raised: _Driven, part: _Reading, noise: tile.Noise, variances: tile.Variances, how: _How
) -> Floats:
    """Phases that are summed before the conversion, with one Gaussian that has the variance of all.

    The sums of all blocks and the roots of their variances are worked out side by side. A third read, with
    two cells for each conversion, adds noise and converts: sum * 1, and root^2 * 1 for its variance.
    """
    blocks, conversions = part.bank.blocks.copy(), part.bank.conversions
    blocks[:, 1] = np.cumsum(blocks[:, 3]) - blocks[:, 3]
    apart = replace(part.bank, blocks=blocks, cols=conversions)
    quiet, free = _Reading(apart, tile.OFF, None, part.sent), how._replace(saturated=None)
    sums = _read_driven(driven, quiet, free, False)
    squares = _read_driven(raised, quiet._replace(bank=apart.with_cells(variances.values)), free, False)
    both = np.empty((len(sums), 2 * conversions, *sums.shape[2:]), np.float32)
    both[:, 0::2] = sums
    np.sqrt(squares, out=both[:, 1::2])
    converting, ones = _sums_and_roots(part.bank)
    last = _Reading(converting, part.converters, replace(noise, variances=ones, power=2), part.sent)
    window = None if how.window is None else tile.Window((1, 1))
    return _tile_read(both, 0.0, last, how._replace(window=window))


def _sums_and_roots(bank: tile.Bank) -> tuple[tile.Bank, tile.Variances]:
    """A bank that takes the sum of each conversion of `bank` and, after it, the root of its variance, and the
    variances for a noise of power 2. It has the same conversions in the same order, some in a block.
    """
    table: list[tuple[int, ...]] = []
    offsets: dict[int, int] = {}
    size = first = 0
    for _, col0, _, cols, _, _ in bank.blocks.tolist():
        for start in range(0, cols, _TOGETHER):
            width = min(_TOGETHER, cols - start)
            if width not in offsets:
                offsets[width] = size
                size += 2 * width * width
            table.append((2 * (first + start), col0 + start, 2 * width, width, 0, offsets[width]))
        first += cols
    cells, variances = (
        np.concatenate([np.kron(np.eye(width, dtype=np.float32), pair).ravel() for width in offsets])
        for pair in (np.array([[1], [0]], np.float32), np.array([[0], [1]], np.float32))
    )
    converting = tile.make_bank(cells, np.array(table, np.int64), 2 * bank.conversions, bank.cols)
    return converting, converting.with_variances(variances)


def _finished(y: Floats, offset: Floats | None, addend: Floats | None, relu: bool) -> Floats:
    """What is done to results in the end, in place, with the bits of `tile.read`."""
    if offset is not None:
        if offset.shape != y.shape[1:2]:
            raise ValueError(f"an offset has the shape {offset.shape}, should have {y.shape[1:2]}")
        y += offset.astype(np.float32, copy=False).reshape(-1, *[1] * (y.ndim - 2))
    if addend is not None:
        if addend.dtype != np.float32 or addend.shape != y.shape:
            raise ValueError(f"an addend is {addend.dtype} {addend.shape}, should be float32 {y.shape}")
        y += addend
    if relu:
        y[y < 0] = 0
    return y
