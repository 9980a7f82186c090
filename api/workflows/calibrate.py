"""`pcmc.calibrate`: ranges of converters, active rows, gains and shifts of columns, from sample inputs.

The program is walked step by step with all samples at hand: a bank is calibrated on what comes to it, and its
results go on to the next, so that each bank sees inputs that are calibrated already.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.physics import Physics, resolve
from pcmc.errors import DataError
from pcmc.progress import progress
from pcmc.runtime.banks import (
    LoadedBank,
    check_compensation,
    drift_gains,
    drivers_of,
    ideal_bank,
    physical_bank,
    read_bank,
    unreadable,
)
from pcmc.runtime.calibration import (
    KINDS,
    Activity,
    BankCalibration,
    Calibration,
    Moments,
    as_driven,
    bank_ranges,
    bias_rows,
    conversion_sums,
    fitted,
    full_scales,
    moments,
    row_activity,
)
from pcmc.runtime.program import Program, Read, Step
from pcmc.runtime.reads import Found, Reading, read_chip, solve_wires
from pcmc.runtime.regions import open_region, run_region
from pcmc.runtime.session import check_input
from pcmc.runtime.state import BankState, ChipState, program_chip
from pcmc.runtime.times import seconds
from pcmc.workflows.samples import batches, inputs_and_labels, sample_count

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: What is calibrated where nothing is said, as far as the chip has it.
DEFAULT = ("adc", "input", "active", "norm")
#: What needs no devices of a certain chip, and can be found when a program is compiled.
RANGES = ("adc", "input", "active")
MOST_SAMPLES = 512
#: Reads of a calibration count from here: their fast noise is not that of later runs.
FIRST_READ = 1 << 32


def calibrate(
    program: Program,
    data: Any,
    *,
    physics: str | Physics = "full",
    what: str | Sequence[str] = DEFAULT,
    seed: int = 0,
    threads: int = 0,
    at: float | str | None = None,
    compensation: str = "none",
    only: Collection[str] | None = None,
    samples: int = MOST_SAMPLES,
) -> Calibration:
    """Fit the converters and the digital unit of a chip to data: `Session(..., calibration=found.banks)`.

    Args:
        program: what runs on the chip.
        data: an array, a dict of arrays by input name or an open .npz file, in which labels are ignored;
            other data than those that results are measured on.
        physics: as in Session.
        what: names with commas between, or some of "adc" and "input", full scales of output converters and of
            fixed-range inputs; "active", the part of rows that are driven at a time, with `ir_drop` where
            idle rows are cut or float; "norm", gain and shift of each column, and "bias", the shift alone.
            What the chip or the physics does not have is left out.
        seed: of the chip, as in Session: gains and shifts suit that chip alone.
        threads: as in Session.
        at: time since programming, as in Session.
        compensation: of drift, as in Session.
        only: names of the banks that the physics applies to, as in Session.
        samples: at most so many, spread over the data evenly. The tensors between two steps are held for all.

    Raises:
        DataError: data that does not fit, an unknown name in `what`, or nothing to calibrate.
        ChipError: an effect that the chip does not have.
    """
    effects = resolve(physics, program.chip)
    kinds = checked_kinds(what, effects, program.chip)
    feeds = _batches(program, data, samples)
    at_s = None if at is None else seconds(at)
    check_compensation(compensation)
    bench = _Bench.of(program, feeds, threads)
    chip = _Chip.of(program, effects, seed, bench.threads, at_s, compensation, only)
    return _calibrated(bench, chip, kinds)


def _calibrated(bench: _Bench, chip: _Chip, kinds: tuple[str, ...]) -> Calibration:
    """Walk through the program and fit what `kinds` name."""
    if "active" not in kinds or not chip.reading.physics.ir_drop:
        chip.read(chip.state.banks)  # else each bank where its inputs come: they say what its wires are
    ideal = _ideal_moments(bench, chip.state.banks) if {"norm", "bias"} & set(kinds) else {}
    fits = {name: _Fit() for name in chip.state.banks}
    _walk(bench, bench.feeds, _chip_reader(bench, chip, kinds, ideal, fits), "calibration")
    count = sum(sample_count(batch, bench.program) for batch in bench.feeds)
    found = {name: fit.calibration for name, fit in fits.items()}
    return Calibration(kinds, count, chip.reading.physics.names(), chip.reading.seed, found)


def calibrate_ranges(
    program: Program, data: Any, what: str | Sequence[str] = RANGES, *, threads: int = 0
) -> Calibration:
    """Ranges that every chip can use, found with devices that hold exactly what was compiled.

    Raises:
        DataError: as in `calibrate`; or `what` names "bias" or "norm", which are fitted to a certain chip.
    """
    for kind in _kinds(what):
        if kind not in RANGES:
            raise DataError(
                f"calibrate: '{kind}' is fitted to the devices of one chip, which a compiler does not know: "
                f"calibrate '{kind}' with run or compare; a program can hold {', '.join(RANGES[:-1])} and "
                f"{RANGES[-1]}"
            )
    converters = Physics(dac=True, adc=True)
    known = replace(converters, ir_drop="ir_drop" in program.chip.available_effects)
    kinds = checked_kinds(what, known, program.chip)
    bench = _Bench.of(program, _batches(program, data, MOST_SAMPLES), threads)
    return _calibrated(bench, _Chip.of(program, converters, 0, bench.threads, None, "none", None), kinds)


def _kinds(what: str | Sequence[str]) -> tuple[str, ...]:
    names = [name.strip() for name in what.split(",")] if isinstance(what, str) else list(what)
    for name in names:
        if name not in KINDS:
            raise DataError(f"calibrate: there is no '{name}'; known are {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in names and not (kind == "bias" and "norm" in names))


def _missing(kind: str, physics: Physics, chip: ChipSpec) -> str:
    """Why calibrating this would change nothing; empty where it would."""
    if physics.is_ideal:
        return "the physics is ideal"
    if kind == "adc" and not physics.adc:
        return "the physics has no adc"
    if kind == "input" and chip.dac.range != "fixed":
        return f"{chip.name} has a range for each input vector"
    if kind == "active" and not physics.ir_drop:
        return "the physics has no ir_drop"
    if kind == "active" and not chip.wires.depends_on_activity:
        return f"idle rows of {chip.name} are grounded"
    return ""


def applicable(what: str | Sequence[str], physics: Physics, chip: ChipSpec) -> tuple[str, ...]:
    """What of `what` changes anything with this physics on this chip, in the order of `KINDS`.

    Raises:
        DataError: an unknown name.
    """
    return tuple(kind for kind in _kinds(what) if not _missing(kind, physics, chip))


def checked_kinds(what: str | Sequence[str], physics: Physics, chip: ChipSpec) -> tuple[str, ...]:
    """As `applicable`.

    Raises:
        DataError: an unknown name, or nothing of `what` is applicable.
    """
    kinds = applicable(what, physics, chip)
    if not kinds:
        reasons = dict.fromkeys(_missing(kind, physics, chip) for kind in _kinds(what))
        raise DataError(f"calibrate: there is nothing to calibrate: {'; '.join(reasons) or 'no names'}")
    return kinds


def checked_chip(
    calibration: Calibration | None, physics: Physics, seeds: Sequence[int]
) -> Calibration | None:
    """The calibration, if its gains and shifts are for the chips that they are used with.

    Raises:
        DataError: they were fitted to the chip of another seed, or with other effects.
    """
    if calibration is None or physics.is_ideal or not {"bias", "norm"} & set(calibration.what):
        return calibration
    if set(seeds) != {calibration.seed} or physics.names() != calibration.physics:
        raise DataError(
            f"the program's calibration has gains and shifts for the chip of seed {calibration.seed} with "
            f"{', '.join(calibration.physics)}: use those, or calibrate again"
        )
    return calibration


def _batches(program: Program, data: Any, samples: int) -> list[dict[str, Array]]:
    """The samples in pieces that the model takes, each checked against its inputs."""
    if samples < 1:
        raise DataError(f"calibrate: samples = {samples}: at least one is needed")
    if data is None:
        raise DataError("calibrate: it needs data")
    inputs = data[0] if isinstance(data, tuple) and len(data) == 2 else data
    feeds, _ = inputs_and_labels(program, inputs, samples, 0)
    pieces = batches(feeds, program)
    total = sample_count(feeds, program)
    if len(pieces) > 1 and total > samples:
        size = sample_count(pieces[0], program)
        fixed = isinstance((program.inputs[0].shape or ("",))[0], int)
        count = max(1, samples // size) * size if fixed else samples
        chosen = np.linspace(0, total - 1, min(count, total)).astype(np.int64)
        pieces = batches({name: array[chosen] for name, array in feeds.items()}, program)
    for piece in pieces:
        for info in program.inputs:
            check_input(info, piece)
    return pieces


# A chip


@dataclass(frozen=True, slots=True)
class _Chip:
    """A chip as it is read: its devices, and of banks that have been read what reads find, and factors
    against drift.
    """

    program: Program
    state: ChipState
    reading: Reading
    compensation: str
    found: dict[str, Found] = field(default_factory=dict)
    gains: dict[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        program: Program,
        physics: Physics,
        seed: int,
        threads: int,
        at_s: float | None,
        compensation: str,
        only: Collection[str] | None,
    ) -> _Chip:
        """The chip that a Session of the same arguments has, not read yet."""
        state = program_chip(program, physics, seed, only, at_s, threads)
        return cls(program, state, Reading(physics, seed, state.seed, at_s, 0, threads), compensation)

    def read(self, banks: Mapping[str, BankState], active: float | None = None) -> None:
        """Read some banks, with the part of their rows that are driven at a time where it is known."""
        state = replace(self.state, banks=banks)
        reading = replace(self.reading, active={} if active is None else dict.fromkeys(banks, active))
        if reading.physics.ir_drop:
            state = replace(state, wired=solve_wires(self.program, state, reading, with_error=False))
        found = read_chip(self.program, state, reading)
        self.found.update(found)
        self.gains.update(drift_gains(self.program, state, reading, found, self.compensation))


def _bank(chip: _Chip, name: str, calibration: BankCalibration, quiet: bool = False) -> LoadedBank:
    """A bank with this calibration; `quiet`: without what the output converters add of themselves."""
    reading = chip.reading
    if quiet:
        reading = replace(reading, physics=replace(reading.physics, readout_noise=False, mismatch=False))
    return physical_bank(
        chip.program.banks[name],
        chip.state.banks[name],
        chip.found[name],
        chip.program.chip,
        reading,
        drift_gain=chip.gains.get(name),
        calibration=calibration,
    )


# Walking through the program

Reader = Callable[[Step, Read, Sequence[Array]], list[Array]]


@dataclass(frozen=True, slots=True)
class _Bench:
    """A program with its samples in batches and its digital regions opened."""

    program: Program
    feeds: Sequence[Mapping[str, Array]]
    regions: Mapping[str, Any]
    threads: int

    @classmethod
    def of(cls, program: Program, feeds: Sequence[Mapping[str, Array]], threads: int) -> _Bench:
        """Open the regions; 0 threads are those of all processors."""
        threads = threads or os.cpu_count() or 1
        regions = {name: open_region(model, name, threads) for name, model in program.regions.items()}
        return cls(program, feeds, regions, threads)


@dataclass(slots=True)
class _Fit:
    """What is known of a bank so far, over all steps that read it."""

    calibration: BankCalibration = field(default_factory=BankCalibration)
    activity: Activity = field(default_factory=Activity)
    wanted: Moments | None = None
    given: Moments | None = None


def _walk(bench: _Bench, feeds: Sequence[Mapping[str, Array]], read: Reader, label: str = "") -> None:
    """All steps up to the last read, each for all batches before the next; `read` does those of banks."""
    program = bench.program
    last = max((index for index, step in enumerate(program.steps) if step.bank is not None), default=-1)
    steps = list(enumerate(program.steps[: last + 1]))
    values = [dict(batch) for batch in feeds]
    for index, step in progress(steps, label) if label else steps:
        if step.bank is not None and step.read is not None:
            outputs = read(step, step.read, [batch[step.inputs[0]] for batch in values])
            for batch, output in zip(values, outputs, strict=True):
                batch[step.outputs[0]] = output
        else:
            for batch in values:
                inputs = {name: batch[name] for name in step.inputs}
                results = run_region(bench.regions[step.name], step.name, step.outputs, inputs)
                batch.update(zip(step.outputs, results, strict=True))
        needed = {name for _, later in steps[index + 1 :] for name in later.inputs}
        for batch in values:
            for name in batch.keys() - needed:
                del batch[name]


def _ideal_moments(bench: _Bench, names: Collection[str]) -> dict[str, Moments]:
    """The moments of what the named banks give without physics, by name of the tensor."""
    exact = {name: ideal_bank(bank) for name, bank in bench.program.banks.items()}
    found: dict[str, Moments] = {}

    def read(step: Step, how: Read, inputs: Sequence[Array]) -> list[Array]:
        bank = exact[step.bank or ""]
        outputs = [_read(step, how, x, bank, bench.threads, 0) for x in inputs]
        if step.bank in names:
            new = _pooled(moments(y, bank.cols, how.kind) for y in outputs)
            found[step.outputs[0]] = _pooled(m for m in (found.get(step.outputs[0]), new) if m is not None)
        return outputs

    for batch in bench.feeds:  # one after the other: memory for one
        _walk(bench, [batch], read)
    return found


def _chip_reader(
    bench: _Bench, chip: _Chip, kinds: Collection[str], ideal: Mapping[str, Moments], fits: dict[str, _Fit]
) -> Reader:
    """Calibrates each bank where the samples come to it, in `fits`, and reads it so."""
    program = bench.program
    exact = {name: ideal_bank(bank) for name, bank in program.banks.items() if name not in fits}
    steps = itertools.count(FIRST_READ)

    def read(step: Step, how: Read, inputs: Sequence[Array]) -> list[Array]:
        name = step.bank or ""
        if name not in fits:
            return [_read(step, how, x, exact[name], bench.threads, 0) for x in inputs]
        fit, cols = fits[name], program.banks[name].cols
        ranges = replace(fit.calibration, gain=None, shift=None)
        if "input" in kinds:
            ranges = replace(ranges, input_full=_input_full(chip, name, inputs, ranges))
        if "active" in kinds:
            part = _active_fraction(chip, name, how, inputs, ranges, fit)
            ranges = replace(ranges, active_fraction=part)
        if name not in chip.found or "active" in kinds:
            chip.read({name: chip.state.banks[name]}, ranges.active_fraction)
        if "adc" in kinds:
            ranges = replace(ranges, adc_full=_output_fulls(chip, name, how, inputs, ranges))
        loaded = _bank(chip, name, ranges)
        outputs = [_read(step, how, x, loaded, bench.threads, next(steps)) for x in inputs]
        fit.calibration = ranges
        if not ideal:
            return outputs
        given = [fit.given, *(moments(y, cols, how.kind) for y in outputs)]
        fit.given = _pooled(one for one in given if one is not None)
        fit.wanted = _pooled(one for one in (fit.wanted, ideal[step.outputs[0]]) if one is not None)
        gain, shift = fitted(fit.wanted, fit.given, "norm" in kinds)
        fit.calibration = replace(ranges, gain=gain, shift=shift)
        return [_corrected(y, gain, shift, how.kind) for y in outputs]

    return read


def _input_full(chip: _Chip, name: str, inputs: Sequence[Array], so_far: BankCalibration) -> float | None:
    """The full scale of a bank's inputs, and at least that so far."""
    finite = [np.abs(x[np.isfinite(x)]).astype(np.float32).reshape(1, 1, -1) for x in inputs]
    full = float(full_scales(lambda: finite, chip.program.chip.adc.percentile, False)[0])
    if chip.program.banks[name].table["bias"].any():
        full = max(full, abs(chip.state.banks[name].bias_drive))
    full = max(full, so_far.input_full or 0.0)
    return full if 0 < full < np.inf else None


def _active_fraction(
    chip: _Chip, name: str, how: Read, inputs: Sequence[Array], so_far: BankCalibration, fit: _Fit
) -> float | None:
    """The part of a bank's rows that are driven at a time, over all inputs so far."""
    bank = chip.program.banks[name]
    driven = replace(
        ideal_bank(bank),
        drivers=drivers_of(chip.program.chip, chip.reading.physics, so_far),
        bias_drive=chip.state.banks[name].bias_drive,
    )
    for x in inputs:
        vectors, window = as_driven(x, bank.rows, how)
        fit.activity = fit.activity.with_reads(row_activity(vectors, driven, window, chip.reading.threads))
    return fit.activity.fraction(bank.rows + bias_rows(driven))


def _output_fulls(
    chip: _Chip, name: str, how: Read, inputs: Sequence[Array], so_far: BankCalibration
) -> Floats:
    """Full scales of a bank's conversions that these inputs ask for, and at least those so far."""
    adc, bank = chip.program.chip.adc, chip.program.banks[name]
    loaded = _bank(chip, name, so_far, quiet=True)

    def sums() -> Iterator[Floats]:
        for number, x in enumerate(inputs):
            vectors, window = as_driven(x, bank.rows, how)
            yield from conversion_sums(vectors, loaded, window, FIRST_READ + number, chip.reading.threads)

    largest = full_scales(sums, adc.percentile, adc.range == "column")
    full = bank_ranges(largest, chip.state.banks[name].w_max * np.float32(adc.range_cells))
    return full if so_far.adc_full is None else np.maximum(full, so_far.adc_full)


def _read(step: Step, how: Read, x: Array, bank: LoadedBank, threads: int, number: int) -> Array:
    try:
        return read_bank(x, bank, how, threads, number)
    except (ValueError, IndexError, TypeError) as error:
        raise unreadable(step, x, error) from error


def _pooled(parts: Iterable[Moments]) -> Moments:
    return functools.reduce(Moments.with_values, parts)


def _corrected(y: Array, gain: Floats, shift: Floats, kind: str) -> Array:
    """What the digital unit makes of a bank's output with these gains and shifts."""
    after = {"dense": 0, "columns": 1, "window": y.ndim - 2}[kind]
    each = (-1, *[1] * after)
    return (y * gain.reshape(each) + shift.reshape(each)).astype(y.dtype).reshape(y.shape)
