"""A bank ready to be read: its cells as the physics leaves them, drivers, converters, noise, and what the
digital unit does after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel import periphery, reference, tile
from pcmc.accel.cells import make_cell
from pcmc.accel.chip import ChipSpec
from pcmc.accel.periphery import Drivers, Part
from pcmc.accel.physics import Physics
from pcmc.accel.random import gaussian_key, stream
from pcmc.errors import DataError
from pcmc.runtime.calibration import BankCalibration, as_driven
from pcmc.runtime.program import Bank, Program, Read, Step
from pcmc.runtime.reads import Found, Reading, read_chip
from pcmc.runtime.state import BankState, ChipState, blocks_of, place

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

# The largest full scale of a converter, well within float32 and so that it times an input range is, mostly.
MOST_FULL = 1e30

#: Inputs as they are.
EXACT = Drivers()

#: What the digital unit can do about drift: nothing, or a factor for each matrix or each of its columns.
COMPENSATIONS = ("none", "global", "column")


def check_compensation(name: str) -> None:
    """DataError if there is no compensation of this name."""
    if name not in COMPENSATIONS:
        raise DataError(f"compensation {name!r}: should be one of {', '.join(COMPENSATIONS)}")


def unreadable(step: Step, x: Array, error: Exception) -> DataError:
    """What to raise where a read did not take its input: open dimensions that do not fit the model."""
    return DataError(
        f"step '{step.name}': can't read '{step.bank}' for an input of shape {list(np.shape(x))}: {error}"
    )


@dataclass(frozen=True, slots=True)
class LoadedBank:
    """`parts` are read one after the other and added, all driven alike; `gain` (`[1]` or `[cols]`) multiplies
    results, `bias` (`[cols]`) is added after: the digital unit's part. `physical`: cells are devices.
    """

    parts: tuple[Part, ...]
    rows: int
    cols: int
    bias: Floats | None
    drivers: Drivers = EXACT
    bias_drive: float = 1.0
    sample: str = "slice"
    gain: Floats | None = None
    physical: bool = False

    @property
    def conversions(self) -> int:
        """Conversions that one vector takes, at most."""
        converted = (part for part in self.parts if part.converters.adc_levels)
        columns = sum(part.bank.conversions for part in converted)
        return columns * self.drivers.phases(self.sample)

    @property
    def is_plain(self) -> bool:
        """Whether a read is one tile read that finishes its results, too: nothing is done between."""
        part, drivers = self.parts[0], self.drivers
        sent_whole = drivers.kind == "voltage" and drivers.signed and drivers.bent == (0.0, 0.0)
        return len(self.parts) == 1 and part.factor == 1 and sent_whole and self.gain is None


@dataclass(slots=True)
class Saturation:
    """How many conversions of a bank there were, and how many of them were clipped; counts go on."""

    conversions: int = 0
    clipped: int = 0


def ideal_bank(bank: Bank) -> LoadedBank:
    """A bank whose cells hold exactly what was compiled."""
    part = Part(1.0, tile_bank(bank, bank.cells), tile.OFF)
    return LoadedBank((part,), bank.rows, bank.cols, bank.bias)


def physical_bank(
    bank: Bank,
    state: BankState,
    found: Found,
    chip: ChipSpec,
    reading: Reading,
    *,
    drift_gain: Floats | None = None,
    calibration: BankCalibration | None = None,
) -> LoadedBank:
    """A bank as the chip reads it.

    Args:
        bank: what was compiled.
        state: the devices.
        found: what reads find in them.
        chip: its drivers and converters.
        reading: which effects are on, and the seeds.
        drift_gain: the digital unit's factors against drift, `[1]` or `[cols]`; None: 1.
        calibration: ranges, gains and shifts from calibration data; None: those of the chip file.
    """
    physics = reading.physics
    full = np.minimum(state.w_max, np.float32(MOST_FULL / chip.adc.range_cells)) * np.float32(
        chip.adc.range_cells
    )
    if calibration is not None and calibration.adc_full is not None:
        full = calibration.adc_full
    readout = None
    if physics.readout_noise:
        readout = np.square(full * np.float32(chip.adc.noise_lsb / chip.adc.levels))
    gain, bias = _digital(bank, drift_gain, calibration)
    return LoadedBank(
        _parts(bank, found, readout, _converters(bank, full, chip, reading), reading.seed),
        bank.rows,
        bank.cols,
        bias,
        drivers_of(chip, physics, calibration),
        state.bias_drive,
        chip.adc.sample,
        gain,
        physical=True,
    )


def tile_bank(bank: Bank, cells: Floats) -> tile.Bank:
    """A bank's table and these cells, as tile reads take them."""
    return tile.make_bank(cells, bank.blocks(), bank.rows, bank.cols)


def _parts(
    bank: Bank, found: Found, readout: Floats | None, converters: tile.Converters, seed: int
) -> tuple[Part, ...]:
    """The columns that are converted apart, with their noise; `readout` is the variance of a conversion."""
    parts = []
    for index, column in enumerate(found.columns):
        cells = tile_bank(bank, column.weights)
        floor = column.floor if readout is None else readout + (0 if column.floor is None else column.floor)
        noise = None
        if column.variances is not None or floor is not None:
            variances = None if column.variances is None else cells.with_variances(column.variances)
            key = gaussian_key(seed, (*place(bank.table[0]), index), "fast_noise")
            noise = tile.Noise(variances, key=key, floor=floor)
        parts.append(Part(column.factor, cells, converters, noise))
    if found.offset:
        parts.append(Part(-found.offset, _sum_of_inputs(bank), tile.OFF))
    return tuple(parts)


def _sum_of_inputs(bank: Bank) -> tile.Bank:
    """A bank of one column that adds up all inputs, bias rows counted."""
    table = bank.table[bank.table["col0"] == bank.table["col0"][0]]
    rows = [int(block["rows"]) for block in table]
    starts = np.cumsum([0, *rows[:-1]])
    blocks = [
        (int(block["row0"]), 0, height, 1, int(block["bias"]), int(start))
        for block, height, start in zip(table, rows, starts, strict=True)
    ]
    return tile.make_bank(np.ones(sum(rows), np.float32), np.array(blocks, np.int64), bank.rows, 1)


def drivers_of(chip: ChipSpec, physics: Physics, calibration: BankCalibration | None) -> Drivers:
    """How the chip drives its rows, with the effects that are on."""
    dac, cell = chip.dac, chip.cell
    full = None
    if dac.range == "fixed":
        full = dac.full if calibration is None or calibration.input_full is None else calibration.input_full
    bent = physics.nonlinearity
    return Drivers(
        levels=dac.levels if physics.dac else 0,
        kind=dac.input,
        slice_bits=dac.slice_bits,
        signed=dac.signed,
        full=full,
        cubic=getattr(cell, "current_cubic", 0.0) if bent else 0.0,
        polarity_loss=getattr(cell, "polarity_loss", 0.0) if bent else 0.0,
    )


def _converters(bank: Bank, full: Floats, chip: ChipSpec, reading: Reading) -> tile.Converters:
    """The output converters, one for all conversions where all are alike; `full` is the full scale of each.

    What drives the rows is not theirs: `drivers_of`.
    """
    physics, adc = reading.physics, chip.adc
    if not physics.adc:
        return tile.OFF
    levels = adc.levels
    if not physics.mismatch and (full == full[0]).all():
        return tile.Converters(adc_levels=levels, adc_full=float(full[0]))
    gain, step = np.float32(levels) / full, full / np.float32(levels)
    offset, shift = np.zeros_like(full), np.zeros_like(full)
    if physics.mismatch:
        factors, offset = _mismatch(bank, chip, reading.device_seed)
        gain *= factors
        if adc.corrected:
            step /= factors
            shift = -offset * step
    columns = tile.Columns(gain, offset, step, shift)
    return tile.Converters(adc_levels=levels, adc_full=float(full.max()), columns=columns)


def _mismatch(bank: Bank, chip: ChipSpec, seed: int) -> tuple[Floats, Floats]:
    """Gain factors, and offsets in LSB, of each conversion: those of the converter of a tile's column, which
    blocks that share the column share.
    """
    factors, offsets = [], []
    for block in blocks_of(bank):
        where = (int(block.row["chip"]), int(block.row["tile"]))
        draws = stream(seed, where, "mismatch").normal(2 * chip.tile.cols).reshape(2, -1)
        here = slice(int(block.row["x"]), int(block.row["x"]) + block.shape[1])
        factors.append(np.float32(1.0) + draws[0, here] * np.float32(chip.adc.gain_error))
        offsets.append(draws[1, here] * np.float32(chip.adc.offset_lsb))
    return np.maximum(np.concatenate(factors), np.float32(0.01)), np.concatenate(offsets)


def _digital(
    bank: Bank, drift_gain: Floats | None, calibration: BankCalibration | None
) -> tuple[Floats | None, Floats | None]:
    """The factors and the bias of the digital unit: those against drift, then those of a calibration."""
    gain, bias = drift_gain, bank.bias
    if calibration is None or calibration.gain is None or calibration.shift is None:
        return gain, bias
    gain = calibration.gain if gain is None else gain * calibration.gain
    bias = calibration.shift if bias is None else bias * calibration.gain + calibration.shift
    return gain, bias


def drift_gains(
    program: Program, state: ChipState, reading: Reading, found: Mapping[str, Found], compensation: str
) -> dict[str, Floats]:
    """What undoes the mean drift of each bank, `[1]` or `[cols]`; none without drift, or a compensation.

    It is the sum of |weight|, as reference reads of one row after the other found it at the first read, over
    what they find now; of the matrix ("global": aihwkit's global drift compensation), or of each column.

    Args:
        program: says where each cell lies.
        state: the devices.
        reading: the reads to come.
        found: what they find.
        compensation: one of COMPENSATIONS.
    """
    if compensation == "none" or not reading.physics.drift or reading.at_s is None:
        return {}
    if reading.at_s <= make_cell(program.chip.cell).t0_s:  # nothing has drifted, and both tiers may count
        return {}
    first = read_chip(program, state, replace(reading, at_s=None, step=0, clock_s=0.0))
    return {
        name: _drift_gain(program.banks[name], first[name].weights, now.weights, compensation)
        for name, now in found.items()
    }


def _drift_gain(bank: Bank, before: Floats, now: Floats, compensation: str) -> Floats:
    column = np.empty(bank.cells.size, np.int64)
    for block in blocks_of(bank):
        rows, cols = block.shape
        column[block.cells] = np.tile(np.arange(block.row["col0"], block.row["col0"] + cols), rows)
    sums = [np.bincount(column, np.abs(weights), bank.cols) for weights in (before, now)]
    if compensation == "global":
        sums = [total.sum(keepdims=True) for total in sums]
    gain = np.divide(sums[0], sums[1], out=np.ones_like(sums[0]), where=sums[1] > 0)
    return gain.astype(np.float32)


@reference.QUIET
def read_bank(
    x: Array,
    bank: LoadedBank,
    how: Read,
    threads: int,
    step: int,
    saturated: Saturation | None = None,
    *,
    addend: Array | None = None,
    relu: bool = False,
) -> Array:
    """Send a tensor through a bank, as its operation does; results have the type of `x`.

    Args:
        x: shaped as `how` says.
        bank: what is read.
        how: how the operation sends its input.
        threads: threads of the kernels.
        step: counts reads: each has fast noise of its own.
        saturated: is told how many conversions there were, and how many of them were clipped; None: not.
        addend: float32, shaped as the result: added to it; None: nothing.
        relu: whether what is below 0 becomes 0 in the end.

    Raises:
        ValueError: a shape does not fit, or there is more to do for a bank with a gain.
    """
    shape = how.output_shape(x.shape, bank.cols)
    vectors, window = as_driven(x, bank.rows, how)
    if addend is not None:
        if addend.shape != shape:
            raise ValueError(f"what is added has the shape {list(addend.shape)}, the result {list(shape)}")
        size = () if window is None else window.output_size(*vectors.shape[2:])
        addend = addend.reshape(len(vectors), bank.cols, *size)
    if bank.gain is not None and (relu or addend is not None):
        raise ValueError("a bank with a gain can neither add nor rectify: its gain comes first")
    counts = None if saturated is None else np.zeros(len(vectors), np.int64)
    y = periphery.read(
        vectors,
        bank.parts,
        bank.drivers,
        bias_drive=bank.bias_drive,
        sample=bank.sample,
        window=window,
        step=step,
        threads=threads,
        saturated=counts,
        offset=bank.bias if bank.gain is None else None,
        addend=addend,
        relu=relu,
    )
    if saturated is not None and counts is not None:
        saturated.clipped += int(counts.sum())
        saturated.conversions += y.size // max(1, bank.cols) * bank.conversions
    if bank.gain is not None:
        per_column = (-1,) if window is None else (-1, 1, 1)
        np.multiply(y, bank.gain.reshape(per_column), out=y)
        if bank.bias is not None:
            np.add(y, bank.bias.reshape(per_column), out=y)
    if bank.physical and not np.isfinite(y.sum()) and (addend is None or np.isfinite(addend).all()):
        # Sums beyond float32, of opposite signs: a machine has no NaN.
        np.nan_to_num(y, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
    return y.reshape(shape).astype(x.dtype, copy=False)
