"""A bank ready to be read: its cells as the physics leaves them, converters, noise, and what the digital
unit does after.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel import tile
from pcmc.accel.chip import ChipSpec
from pcmc.accel.physics import Physics
from pcmc.accel.random import gaussian_key
from pcmc.runtime.program import Bank, Read
from pcmc.runtime.state import BankState, read_cells, read_variances

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: What the digital unit can do about drift: nothing, or a factor for each matrix or each of its columns.
COMPENSATIONS = ("none", "global", "column")


@dataclass(frozen=True, slots=True)
class LoadedBank:
    """`gain` (`[1]` or `[cols]`) multiplies results, `bias` (`[cols]`) is added after: the digital unit's
    part.
    """

    cells: tile.Bank
    bias: Floats | None
    bias_drive: float = 1.0
    converters: tile.Converters = tile.OFF
    noise: tile.Noise | None = None
    gain: Floats | None = None


def ideal_bank(bank: Bank) -> LoadedBank:
    """A bank whose cells hold exactly what was compiled."""
    return LoadedBank(_tile_bank(bank, bank.cells), bank.bias)


def physical_bank(
    bank: Bank,
    state: BankState,
    chip: ChipSpec,
    physics: Physics,
    seed: int,
    at_s: float | None = None,
    compensation: str = "none",
    device_seed: int | None = None,
) -> LoadedBank:
    """A bank whose cells are read from devices, at a time, with the effects that are on.

    Args:
        bank: what was compiled.
        state: the devices.
        chip: the laws of its cells, and its converters.
        physics: which effects are on.
        seed: names the random streams.
        at_s: seconds since programming; None: the cell's first read.
        compensation: one of COMPENSATIONS.
        device_seed: the seed that the devices were programmed with; None: `seed`.
    """
    cells = read_cells(bank, state, chip, physics, seed, at_s, device_seed=device_seed)
    variances = read_variances(bank, state, chip, physics, seed, at_s, device_seed)
    loaded = _tile_bank(bank, cells)
    noise = None
    if variances is not None:
        first = bank.table[0]
        place = tuple(int(first[name]) for name in ("chip", "tile", "y", "x"))
        noise = tile.Noise(loaded.with_variances(variances), key=gaussian_key(seed, place, "fast_noise"))
    gain = None
    if compensation != "none" and physics.drift and at_s is not None:
        gain = _gain(bank, read_cells(bank, state, chip, physics, seed), cells, compensation)
    return LoadedBank(loaded, bank.bias, state.bias_drive, _converters(chip, physics, state), noise, gain)


def _tile_bank(bank: Bank, cells: Floats) -> tile.Bank:
    columns = ("row0", "col0", "rows", "cols", "bias", "offset")
    blocks = np.stack([bank.table[name] for name in columns], axis=1)
    return tile.make_bank(cells, blocks, bank.rows, bank.cols)


def _converters(chip: ChipSpec, physics: Physics, state: BankState) -> tile.Converters:
    return tile.Converters(
        dac_levels=2 ** (chip.dac.bits - 1) - 1 if physics.dac else 0,
        adc_levels=2 ** (chip.adc.bits - 1) - 1 if physics.adc else 0,
        adc_full=chip.adc.range_cells * state.w_max,
    )


def _gain(bank: Bank, before: Floats, now: Floats, compensation: str) -> Floats:
    """What undoes the mean drift: the sum of |weight|, as reference reads of one row after the other found it
    at the first read, over what they find now; of the matrix, or of each column. (aihwkit's global drift
    compensation is the former.)
    """
    column = np.zeros(bank.cells.size, np.int64)
    for block in bank.table:
        rows, cols = int(block["rows"]), int(block["cols"])
        columns = np.arange(block["col0"], block["col0"] + cols)
        column[block["offset"] : block["offset"] + rows * cols] = np.tile(columns, rows)
    sums = [np.bincount(column, np.abs(weights), bank.cols) for weights in (before, now)]
    if compensation == "global":
        sums = [total.sum(keepdims=True) for total in sums]
    gain = np.divide(sums[0], sums[1], out=np.ones_like(sums[0]), where=sums[1] > 0)
    return gain.astype(np.float32)


def read_bank(x: Array, bank: LoadedBank, how: Read, threads: int, step: int) -> Array:
    """Send a tensor through a bank, as its operation does; results have the type of `x`.

    Args:
        x: shaped as `how` says.
        bank: what is read.
        how: how the operation sends its input.
        threads: threads of the kernels.
        step: counts reads: each has fast noise of its own.

    Raises:
        ValueError: the shape does not fit.
    """
    dtype = x.dtype
    x = np.ascontiguousarray(x, np.float32)
    if how.kind == "dense":
        y = _read(x.reshape(-1, bank.cells.rows), bank, None, threads, step)
        shape = x.shape[:-1] if how.vector_output else (*x.shape[:-1], bank.cells.cols)
        return y.reshape(shape).astype(dtype, copy=False)
    if how.kind == "columns":
        y = _read(x.reshape(-1, x.shape[-2], 1, x.shape[-1]), bank, tile.Window((1, 1)), threads, step)
        return y.reshape(*x.shape[:-2], bank.cells.cols, x.shape[-1]).astype(dtype, copy=False)
    maps = x if x.ndim == 4 else x[:, :, None, :]
    y = _read(maps, bank, how.window_for(*maps.shape[2:]), threads, step)
    y = y if x.ndim == 4 else y[:, :, 0, :]
    return y.astype(dtype, copy=False)


def _read(x: Array, bank: LoadedBank, window: tile.Window | None, threads: int, step: int) -> Array:
    y = tile.read(
        x,
        bank.cells,
        bias_drive=bank.bias_drive,
        converters=bank.converters,
        window=window,
        noise=None if bank.noise is None else replace(bank.noise, step=step),
        threads=threads,
    )
    per_column = (-1,) if window is None else (-1, 1, 1)
    if bank.gain is not None:
        np.multiply(y, bank.gain.reshape(per_column), out=y)
    return y if bank.bias is None else np.add(y, bank.bias.reshape(per_column), out=y)
