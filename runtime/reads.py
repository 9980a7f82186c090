"""What reads find in the devices of a chip: weights, and their noise from read to read, at a time.

programmed devices -> drift, frozen read noise -> wires -> weights
                   -> variances of fast read noise and of thermal noise
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.cells import Cell, Devices, PairCell, ReferencePcmCell, TwoTierCell, make_cell
from pcmc.accel.chip import CellSpec, ChipSpec
from pcmc.accel.periphery import Drivers
from pcmc.accel.physics import Physics
from pcmc.accel.random import Normals, Stream
from pcmc.errors import ChipError
from pcmc.runtime.program import Bank, Program
from pcmc.runtime.state import (
    BankState,
    BlockView,
    ChipState,
    WiredBank,
    WiredChip,
    blocks_of,
    each_block,
    place,
    unit_us,
)
from pcmc.runtime.wander import slow_noise
from pcmc.runtime.wiring import wired_weights, wires_error

Floats = npt.NDArray[np.float32]

BOLTZMANN_J_PER_K = 1.380649e-23


@dataclass(frozen=True, slots=True)
class Reading:
    """How a chip is read.

    `seed` names the streams of this reading, `device_seed` those of what belongs to the devices; `at_s` is
    the time since programming, None the cell's first read; `step` counts readings of one state, each of which
    has a frozen noise of its own. `clock_s` is the time since the first reading, over which slow noise
    wanders. `active` is, by bank, the part of its rows that are driven at a time, where that is known: it
    matters behind wires whose idle rows are cut off or float.
    """

    physics: Physics
    seed: int
    device_seed: int
    at_s: float | None = None
    step: int = 0
    threads: int = 1
    clock_s: float = 0.0
    active: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """What one conversion reads of each cell of a bank.

    `weights`, `[cells]` in the order of `Bank.cells`, have the range of the matrix's; `factor` times their
    results is their part of the result. `variances` are those of the weights from read to read, likewise, or
    None; `floor`, `[conversions]`, is a variance that the sum of a column has whatever the inputs, for an
    input range of 1, or None.
    """

    factor: float
    weights: Floats
    variances: Floats | None = None
    floor: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What reads find in a bank: one column for each weight, or several that are converted apart.

    `offset` times the sum of the inputs, bias rows counted, is what the digital unit takes off each result.
    """

    columns: tuple[Column, ...]
    offset: float = 0.0

    @property
    def weights(self) -> Floats:
        """All columns together: the weights that the chip computes with, `[cells]`."""
        first = self.columns[0]
        if len(self.columns) == 1 and first.factor == 1 and not self.offset:
            return first.weights
        total = first.weights * np.float32(first.factor) - np.float32(self.offset)
        for column in self.columns[1:]:
            total += column.weights * np.float32(column.factor)
        return total


@dataclass(frozen=True, slots=True)
class _Share:
    """The devices of a cell that one conversion reads: what a microsiemens of each pair counts, and of which
    side (0: both, their difference; 1: G+; -1: G-). `factor` as in `Column`.
    """

    factor: float
    gains: tuple[float, ...]
    side: int = 0


def read_chip(program: Program, state: ChipState, reading: Reading) -> dict[str, Found]:
    """What reads find in all banks of a state, by name.

    With `ir_drop`, the wires of each tile are worked out for all that lies in it.

    Raises:
        ChipError: no law covers the time of the reading; or it takes a low tier that the devices do not hold.
    """
    _check_low_tier(program.chip, state, reading)
    if reading.physics.ir_drop:
        return _behind_wires(program, state, reading)
    return {
        name: read_bank_cells(program.banks[name], held, program.chip, reading)
        for name, held in state.banks.items()
    }


def _check_low_tier(chip: ChipSpec, state: ChipState, reading: Reading) -> None:
    """ChipError if the time of a reading takes both tiers and devices hold the upper one only."""
    cell = make_cell(chip.cell)
    if not isinstance(cell, TwoTierCell) or not cell.low_tier_counts(reading.at_s):
        return
    for name, held in state.banks.items():
        if not held.devices.low.size:
            raise ChipError(
                f"read at {reading.at_s:g} s after programming: takes both tiers, but the devices of "
                f"'{name}' were programmed for reads from {cell.t0_s:g} s on, without the low tier; program "
                f"them for such a read, or read them from {cell.t0_s:g} s on"
            )


def read_bank_cells(bank: Bank, state: BankState, chip: ChipSpec, reading: Reading) -> Found:
    """What reads find in one bank whose wires have no resistance."""
    cell = make_cell(chip.cell)

    def find(block: BlockView) -> list[Column]:
        unit = unit_us(cell, state.w_max[block.conversions])
        aged = _aged(cell, chip.cell, state, reading, block)
        if reading.physics.reference_error:
            aged = _off_reference(aged, chip.cell, block, reading.device_seed)
        return [
            Column(
                share.factor,
                _weights_us(cell, aged, share) / unit,
                *_noise(cell, chip, block, state, share, reading),
            )
            for share in _shares(cell, chip, reading.physics)
        ]

    found = _whole(each_block(find, bank, reading.threads))
    if isinstance(cell, ReferencePcmCell) and chip.adc.subtract == "digital" and reading.physics.adc:
        offset = cell.gains[0] * cell.spec.g_max_us / 2 / float(unit_us(cell, state.w_max[:1])[0])
        return replace(found, offset=offset)
    return found


def _shares(cell: Cell, chip: ChipSpec, physics: Physics) -> list[_Share]:
    """What is converted apart."""
    shares = [_Share(1.0, cell.gains)]
    if not physics.adc:
        return shares
    if getattr(chip.cell, "slices", 1) > 1 and chip.adc.slices == "digital":
        full = cell.full_us / chip.cell.g_max_us  # so that each slice has the range of a weight
        shares = [
            _Share(gain / full, tuple(full if k == at else 0.0 for k in range(len(cell.gains))))
            for at, gain in enumerate(cell.gains)
        ]
    if chip.adc.subtract == "digital" and isinstance(cell, ReferencePcmCell):
        return [_Share(1.0, cell.gains, 1)]  # and what `Found.offset` says
    if chip.adc.subtract == "digital":
        shares = [_Share(side * share.factor, share.gains, side) for share in shares for side in (1, -1)]
    return shares


def _aged(cell: Cell, spec: CellSpec, state: BankState, reading: Reading, block: BlockView) -> Devices:
    """The devices of a block at the time of the reading."""
    return cell.age(
        block.devices(state.devices),
        reading.at_s,
        _held_noise(cell, spec, block, reading),
        _drift(block, state, reading),
        reading.physics.frozen_part or "all",
    )


def _held_noise(cell: Cell, spec: CellSpec, block: BlockView, reading: Reading) -> Normals | None:
    """The normal numbers of the read noise that is the same for all reads of a batch."""
    if reading.physics.frozen_part is None:
        return None
    if reading.physics.frozen_part == "all":
        return block.stream(reading.seed, "read_noise", reading.step)
    shortest = getattr(spec, "read_noise_split_s", 1e-3)
    since = cell.t0_s if reading.at_s is None else reading.at_s
    return slow_noise(reading.seed, place(block.row), shortest, max(since, shortest), reading.clock_s)


def _drift(block: BlockView, state: BankState, reading: Reading) -> Stream | None:
    """The stream of the devices' drift, another one for each programming."""
    return block.stream(reading.device_seed, "drift", state.writes - 1) if reading.physics.drift else None


def _off_reference(devices: Devices, spec: CellSpec, block: BlockView, seed: int) -> Devices:
    """Capacitors against the reference of their column, which is off: -error_j in all rows."""
    error = block.stream(seed, "reference_error").normal(block.shape[1])
    error *= np.float32(getattr(spec, "reference_error_us", 0.0))
    return Devices(devices.g_plus - error)


def _weights_us(cell: Cell, devices: Devices, share: _Share) -> Floats:
    """W of a share in uS, `[rows, cols]`."""
    if share.side == 0 and share.gains == cell.gains:
        return cell.weights_us(devices)
    pairs = (devices.g_plus, -devices.g_minus)
    if share.side:
        pairs = (devices.g_plus if share.side == 1 else devices.g_minus,) * 2
    weights = _weighed(pairs[0], share.gains) + (0 if share.side else _weighed(pairs[1], share.gains))
    if share.side == 1 and devices.low.size:
        weights += devices.low
    return weights


def _weighed(devices: Floats, gains: tuple[float, ...], power: int = 1) -> Floats:
    """The sum over pairs of gain^power times each, `[rows, cols]`."""
    factors = np.power(np.array(gains, np.float32), power)
    weighed: Floats = devices * factors[0] if devices.ndim == 2 else devices @ factors
    return weighed


def _noise(
    cell: Cell, chip: ChipSpec, block: BlockView, state: BankState, share: _Share, reading: Reading
) -> tuple[Floats | None, Floats | None]:
    """Variance of each weight of a share from read to read, and of the sums of its columns whatever the
    inputs; None where there is none.

    Johnson noise of a conductance G has the current variance 4 k T G / (2 t) over a read of t seconds, that
    of a conductance at the read voltage V after division by V^2. Voltages leave devices connected whatever
    the input is, pulses connect them for their width.
    """
    physics, devices = reading.physics, block.devices(state.devices)
    variances, floor = None, None
    if physics.fast_part is not None:
        args = (devices, reading.at_s, _drift(block, state, reading), physics.fast_part)
        if share.gains == cell.gains and share.side == 0:
            variances = cell.noise_variance(*args)
        elif isinstance(cell, PairCell):
            variances = _of_side(cell.device_variances(*args), share)
    if physics.thermal_noise:
        spec: Any = chip.cell
        conductance = _of_side((devices.g_plus, devices.g_minus), share)
        per_us = 4 * BOLTZMANN_J_PER_K * spec.temperature_k / (2 * chip.tile.read_time_s) * 1e6
        thermal = conductance * np.float32(per_us / spec.read_voltage_v**2)
        if chip.dac.input == "pulse":
            variances = thermal if variances is None else variances + thermal
        else:
            floor = thermal.sum(axis=0, dtype=np.float32) * np.float32(_phases_summed(chip, physics))
    unit = unit_us(cell, state.w_max[block.conversions])
    square = unit * unit
    return None if variances is None else variances / square, None if floor is None else floor / square


def _phases_summed(chip: ChipSpec, physics: Physics) -> float:
    """By how much noise that is there in each phase counts in one conversion: with bit-serial inputs that are
    summed before it, each phase with the square of its weight.
    """
    dac = chip.dac
    if not (physics.dac and dac.input == "bits" and chip.adc.sample == "sum"):
        return 1.0
    drivers = Drivers(levels=dac.levels, kind="bits", slice_bits=dac.slice_bits)
    return sum(weight * weight for weight in drivers.weights)


def _of_side(pairs: tuple[Floats, Floats], share: _Share) -> Floats:
    """What adds in quadrature over the devices of a share: the sum of gain^2 times each."""
    plus, minus = pairs
    both = plus + minus if share.side == 0 else plus if share.side == 1 else minus
    return _weighed(both, share.gains, 2)


def _whole(blocks: list[list[Column]]) -> Found:
    """The columns of a bank from those of its blocks."""
    return Found(
        tuple(
            Column(
                parts[0].factor,
                _joined([part.weights for part in parts]),
                None if parts[0].variances is None else _joined([part.variances for part in parts]),
                None if parts[0].floor is None else _joined([part.floor for part in parts]),
            )
            for parts in zip(*blocks, strict=True)
        )
    )


def _joined(parts: list[Floats] | list[Floats | None]) -> Floats:
    """Arrays of all blocks one after the other, flat."""
    flat = [part.ravel() for part in parts if part is not None]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def _behind_wires(program: Program, state: ChipState, reading: Reading) -> dict[str, Found]:
    """What reads find in all banks behind their wires, for which the devices have aged already.

    Fast noise is damped as the mean current of its column is (`pcmc.accel.wires.noise_scale`).
    """
    wired, chip, cell = solve_wires(program, state, reading), program.chip, make_cell(program.chip.cell)
    shares = _shares(cell, chip, reading.physics)
    found = {}
    for name, held in state.banks.items():
        behind = wired.banks[name]

        def find(block: BlockView, held: BankState = held, behind: WiredBank = behind) -> list[Column]:
            columns = []
            for share, weights in zip(shares, behind.weights, strict=True):
                variances, floor = _noise(cell, chip, block, held, share, reading)
                if variances is not None:
                    variances = variances * np.square(behind.damping[block.conversions])
                columns.append(Column(share.factor, weights[block.cells], variances, floor))
            return columns

        found[name] = _whole(each_block(find, program.banks[name], reading.threads))
    return found


def solve_wires(
    program: Program, state: ChipState, reading: Reading, *, with_error: bool = True
) -> WiredChip:
    """The wires of all tiles, solved for what reads find in the devices; those that the state has, if they
    are of the same reading.

    Args:
        program: says where each cell lies.
        state: the devices.
        reading: how they are read.
        with_error: whether to measure by how much the solution errs, where it is an approximation.

    Raises:
        ChipError: as `read_chip`, or a tile too small for the segments of its lines.
    """
    _check_low_tier(program.chip, state, reading)
    chip, cell = program.chip, make_cell(program.chip.cell)
    shares = _shares(cell, chip, reading.physics)
    known = sorted(reading.active.items()) if chip.wires.depends_on_activity else ()
    active = {name: part for name, part in known if name in state.banks}
    key = repr((chip.wires, replace(reading, threads=1, active=active), shares, sorted(state.banks)))
    if state.wired is not None and state.wired.key == key:
        return state.wired
    aged, low = {}, {}
    for name, held in state.banks.items():
        bank = program.banks[name]
        devices = each_block(partial(_aged, cell, chip.cell, held, reading), bank, reading.threads)
        aged[name] = _pairs(devices)
        low[name] = _joined([block.low for block in devices])  # capacitors have other wires
    weights: dict[str, list[Floats]] = {name: [] for name in aged}
    damping: dict[str, Floats] = {}
    solved, errors = [], []
    for gains in dict.fromkeys(share.gains for share in shares):
        used = {name: [pairs[k] for k, gain in enumerate(gains) if gain] for name, pairs in aged.items()}
        args = (program, used, tuple(gain for gain in gains if gain), chip.wires)
        wired = wired_weights(*args, reading.threads, active)
        solved.append(wired)
        if with_error:
            errors.append(wires_error(*args, wired, reading.threads, active))
        for share in (share for share in shares if share.gains == gains):
            for name in aged:
                w_us = wired.halves[name][0 if share.side == 1 else 1] if share.side else wired.weights[name]
                if share.side >= 0 and low[name].size:
                    w_us = w_us + low[name]
                weights[name].append(w_us / _units(program.banks[name], state.banks[name], cell))
        for name in aged:
            blocks = blocks_of(program.banks[name])
            firsts = [wired.noise_scale[name][block.cells][: block.shape[1]] for block in blocks]
            damping.setdefault(name, np.concatenate(firsts))
    measured = [error.rms for error in errors if error is not None]
    return WiredChip(
        key,
        {name: WiredBank(np.stack(weights[name]), damping[name]) for name in aged},
        max(wired.largest_drop for wired in solved),
        sum(wired.solves for wired in solved),
        sum(wired.seconds for wired in solved),
        max(measured) if measured else None,
    )


def _pairs(blocks: list[Devices]) -> list[tuple[Floats, Floats]]:
    """G+ and G- of each pair of a bank, flat, from those of its blocks."""
    count = 1 if blocks[0].g_plus.ndim == 2 else blocks[0].g_plus.shape[2]

    def flat(name: str, k: int) -> Floats:
        arrays = [getattr(block, name).reshape(-1, count)[:, k] for block in blocks]
        return np.ascontiguousarray(np.concatenate(arrays))

    return [(flat("g_plus", k), flat("g_minus", k)) for k in range(count)]


def _units(bank: Bank, state: BankState, cell: Cell) -> Floats:
    """Microsiemens of a weight of 1, of each cell."""
    rows = [
        np.tile(unit_us(cell, state.w_max[block.conversions]), block.shape[0]) for block in blocks_of(bank)
    ]
    return np.concatenate(rows)
