"""`ChipState`: what the devices of a chip hold after a Program was written into them.

Random numbers come from named streams: (seed, place, effect, step), where the place is chip, tile and corner
of a block, so that one more matrix leaves the noise of all others alone, and the number of threads changes
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pcmc.accel.cells import Devices, make_cell
from pcmc.accel.chip import ChipSpec
from pcmc.accel.physics import Physics
from pcmc.accel.random import stream
from pcmc.runtime.program import Bank, Program

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BankState:
    """The devices of one bank.

    `w_max` is the weight that the full conductance range stands for and `unit_us` the microsiemens of a
    weight of 1; `bias_drive` is the input level of the bias rows, whose cells hold bias / bias_drive so that
    biases and weights share one range. `polarity` is the sign s of the low tier. `writes` counts how often
    the whole bank was programmed.
    """

    devices: Devices
    w_max: float
    unit_us: float
    bias_drive: float
    polarity: int = 1
    writes: int = 1


@dataclass(frozen=True, slots=True)
class ChipState:
    """All banks, the clock since programming in s, and how far each random stream has been used (by
    effect).
    """

    seed: int
    banks: Mapping[str, BankState]
    clock_s: float = 0.0
    steps: Mapping[str, int] = field(default_factory=dict)


def program_chip(
    program: Program, physics: Physics, seed: int, only: Collection[str] | None = None
) -> ChipState:
    """Write a Program into the devices of a chip.

    One scale for each matrix: its largest weight uses the full range of a cell.

    Args:
        program: what to write.
        physics: with `programming_error` the devices miss their targets as the cell's statistics say, with
            `stuck` some hold one level whatever is written.
        seed: names the streams.
        only: names of the banks to write; None: all.
    """
    banks = {
        name: _program_bank(bank, program.chip, physics, seed)
        for name, bank in program.banks.items()
        if only is None or name in only
    }
    return ChipState(seed, banks, steps={"programming_error": 1})


def _program_bank(bank: Bank, chip: ChipSpec, physics: Physics, seed: int) -> BankState:
    cell = make_cell(chip.cell)
    targets, w_max, drive = _targets(bank)
    unit_us = chip.cell.significance * cell.g_max / w_max
    noisy = physics.programming_error
    parts = [
        cell.program(
            targets[block["offset"] : block["offset"] + block["rows"] * block["cols"]],
            unit_us,
            block_stream(block, seed, "programming_error") if noisy else None,
            stuck=block_stream(block, seed, "stuck") if physics.stuck else None,
        )
        for block in bank.table
    ]
    return BankState(_joined(parts), w_max, unit_us, drive)


def _targets(bank: Bank) -> tuple[Floats, float, float]:
    """Cells to program, the largest weight, and the drive of the bias rows, which brings their cells into
    its range.
    """
    is_bias = np.zeros(bank.cells.size, bool)
    for block in bank.table[bank.table["bias"] == 1]:
        end = int(block["offset"] + block["rows"] * block["cols"])
        is_bias[end - int(block["cols"]) : end] = True
    magnitudes = np.abs(bank.cells)
    w_max = float(magnitudes.max(where=~is_bias, initial=0.0))
    bias_max = float(magnitudes.max(where=is_bias, initial=0.0))
    w_max = w_max or bias_max or 1.0
    drive = bias_max / w_max if bias_max else 1.0
    targets = bank.cells.copy()
    targets[is_bias] = targets[is_bias].astype(np.float64) / drive
    return targets, w_max, drive


def _joined(parts: list[Devices]) -> Devices:
    if len(parts) == 1:
        return parts[0]
    return Devices(
        np.concatenate([part.g_plus for part in parts]), np.concatenate([part.g_minus for part in parts])
    )


def read_cells(
    bank: Bank,
    state: BankState,
    chip: ChipSpec,
    physics: Physics,
    seed: int,
    at_s: float | None = None,
    step: int = 0,
    device_seed: int | None = None,
) -> Floats:
    """The weights that reads of a bank find, `[cells]` in the order of `bank.cells`, with drift and with the
    frozen part of the read noise.

    Args:
        bank: its table says where each block lies.
        state: its devices.
        chip: its cell gives the laws.
        physics: which effects are on.
        seed: names the streams.
        at_s: seconds since programming; None: the cell's first read.
        step: counts sessions on one state: each has a frozen noise of its own.
        device_seed: names the streams of what belongs to the devices, their drift; None: `seed`.
    """
    device_seed = seed if device_seed is None else device_seed
    cell = make_cell(chip.cell)
    frozen = physics.frozen_part
    cells = np.empty(bank.cells.size, np.float32)
    for block, part, devices in _block_devices(bank, state):
        cells[part] = cell.read(
            devices,
            state.unit_us,
            None if frozen is None else block_stream(block, seed, "read_noise", step),
            at_s,
            block_stream(block, device_seed, "drift") if physics.drift else None,
            frozen or "all",
        )
    return cells


def read_variances(
    bank: Bank,
    state: BankState,
    chip: ChipSpec,
    physics: Physics,
    seed: int,
    at_s: float | None = None,
    device_seed: int | None = None,
) -> Floats | None:
    """Variance of each weight from read to read, `[cells]`, of the fast part of the read noise; None without
    one. Arguments as in `read_cells`.
    """
    device_seed = seed if device_seed is None else device_seed
    fast = physics.fast_part
    if fast is None:
        return None
    cell = make_cell(chip.cell)
    variances = np.empty(bank.cells.size, np.float32)
    for block, part, devices in _block_devices(bank, state):
        drift = block_stream(block, device_seed, "drift") if physics.drift else None
        variances[part] = cell.noise_variance(devices, state.unit_us, at_s, drift, fast)
    return variances


def _block_devices(bank: Bank, state: BankState) -> Iterator[tuple[np.void, slice, Devices]]:
    """Each block of a bank with its part of the cells and the devices there."""
    for block in bank.table:
        part = slice(int(block["offset"]), int(block["offset"] + block["rows"] * block["cols"]))
        yield block, part, Devices(state.devices.g_plus[part], state.devices.g_minus[part])


def block_stream(block: np.void, seed: int, effect: str, step: int = 0) -> np.random.Generator:
    """The random stream of one block: named by where it lies."""
    return stream(
        seed, (int(block["chip"]), int(block["tile"]), int(block["y"]), int(block["x"])), effect, step
    )
