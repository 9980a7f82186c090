"""The two-tier cell in training: capacitors take the pulses, PCM pairs what is transferred to them.

    W = F (G+ - G-) + s (low + r)         s the polarity, r what reset leaves: `pcmc.accel.training.devices`

A transfer (Ambrogio et al. 2018, Extended Data Fig. 9; polarity inversion: US patent 11,074,499) moves what
the low tier has gathered to the pair, in this order:

    read W;  s' = -s                                (s' = s without inversion)
    target = W - s' (offset + r)                    so that low will have to go up, where it has room
    RESET both devices; program |target| / F into G+ or G-; if 0 < s' target < offset leave both at RESET
    low = 0;  s = s'
    read back; tune low by pulses of its own step until the total is W, as far as its range goes

Programming is that of the cell in a run, with its statistics; a tuned cell ends anywhere in a step of its
own. Reads have the fast part of the read noise, one reading of each cell before and one after, and no
converters. What tuning can't reach stays as an error of the weight. The first programming is the same, with
s' = +1.

Read noise of PCM is that at t0, the first time that its fits cover. Reads of training come sooner, and would
see less of it if the 1/f law went on down to them: its spectrum has ln(t / 2 t_read) in it, 17.5 at t0 = 20 s
and 8.3 at 2 ms. The frozen part is drawn anew at each programming.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.cell_specs import TwoTierCellSpec
from pcmc.accel.cells import pcm
from pcmc.accel.cells.cell import Devices, make_stuck
from pcmc.accel.cells.pcm_pair import PcmPairCell, write_pair
from pcmc.accel.cells.two_tier import TwoTierCell
from pcmc.accel.random import Stream, stream
from pcmc.accel.training.bank import LEAK_EVERY
from pcmc.accel.training.bfloat16 import narrowed, widened
from pcmc.accel.training.devices import CapacitorDevices, CapacitorRange, draw_capacitors, pulse_law
from pcmc.accel.training.layout import Block, Float32, Layout, restore_bank, state_arrays
from pcmc.accel.training_spec import LinearPulseSpec


@dataclass(slots=True)
class TransferCounts:
    """What transfers have done, all of them together; `squared_error` of the weights, in their unit."""

    transfers: int = 0
    cells: int = 0
    out_of_reach: int = 0
    clipped_low: int = 0
    clipped_high: int = 0
    pcm_resets: int = 0
    tuning_pulses: float = 0.0
    squared_error: float = 0.0


class TwoTierCells:
    """A bank of two-tier cells; see `pcmc.accel.training.arrays.TrainedBank`.

    A bank that is not trained is programmed as for a run, without a low tier, which would leak away.
    """

    def __init__(self, layout: Layout, weights: Float32, trainable: bool) -> None:
        spec = layout.chip.cell
        pulses = layout.chip.pulses
        assert isinstance(spec, TwoTierCellSpec)
        assert isinstance(pulses, LinearPulseSpec)
        self.trainable = trainable
        self.layout, self._spec, self._cell = layout, spec, TwoTierCell(spec)
        self._unit = self._cell.full_us / layout.weight_range
        self._training = layout.chip.training
        self.transfer_every = self._training.transfer_every if trainable else 0
        self._g_plus, self._g_minus = (np.zeros(layout.cells, np.float32) for _ in range(2))
        self._writes = np.zeros(layout.cells, np.uint32)
        self._low = np.zeros(layout.cells, np.float32)
        self._count = TransferCounts()
        self._steps = 0
        noisy = layout.physics.fast_part is not None
        variances = np.zeros(layout.cells, np.uint16) if noisy else None
        range_us = CapacitorRange(
            spec.low_g_low_us, spec.low_g_high_us, spec.low_reference_us, spec.low_steps, spec.leak_tau_now_s
        )
        self._devices = self._drawn(draw_capacitors(layout, pulses, range_us, self._unit))
        law = None
        if trainable:
            law = pulse_law(self._devices, self._low, pulses.noise if layout.physics.pulse_noise else 0.0)
        self.bank = layout.make_bank(np.array(weights, np.float32).ravel(), law, variances)
        leaks = trainable and layout.physics.leak
        self._first_pull = (spec.low_reference_us - pulses.leak_to_us) / self._unit if leaks else 0.0
        self.leak_factor = 1.0 - self._devices.leak_mean if leaks else 1.0
        self.pull = self._first_pull
        self._write(1)

    def _drawn(self, devices: CapacitorDevices) -> CapacitorDevices:
        """The devices as the kernels take them."""
        return devices

    def leak(self, examples: int) -> None:
        """Let the low tiers and their references leak for the time of so many examples."""
        self.bank.leak(examples, self.pull)
        self.pull *= 1.0 - (1.0 - self.leak_factor) * examples / LEAK_EVERY

    def transfer(self, example: int, part: slice | None = None) -> None:
        """Move what the low tiers hold to the pairs, of all columns."""
        if part is not None:
            raise ValueError('columns are transferred one by one where [training] transfer = "columns"')
        self._write(-self.bank.sign if self._training.inversion else self.bank.sign)
        self._count.transfers += 1

    def read_out(self) -> Float32:
        """W of each cell [cells], as reads without noise and converters find it."""
        return self.bank.weights.copy()

    def pair_only(self) -> Float32:
        """F (G+ - G-) of each cell [cells]: what is left when the low tiers are switched off."""
        return self._of_pairs(Devices(self._g_plus, self._g_minus))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has changed since the start; what was drawn once is drawn again."""
        found = state_arrays(self.bank)
        for name in ("g_plus", "g_minus", "writes", "low"):
            found[name] = getattr(self, f"_{name}").copy()
        if self.bank.variances is not None:
            found["variances"] = self.bank.variances.copy()
        counts = [float(getattr(self._count, field.name)) for field in fields(TransferCounts)]
        found["transfer"] = np.array([self.bank.sign, self._steps, self.pull, *counts], np.float64)
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo `arrays`, for a bank that was made with the same arguments."""
        restore_bank(self.bank, arrays)
        for name in ("g_plus", "g_minus", "writes", "low"):
            getattr(self, f"_{name}")[:] = arrays[name]
        if "variances" in arrays:
            self.bank.variances = arrays["variances"].copy()
        sign, steps, self.pull, *counts = (float(value) for value in arrays["transfer"])
        self.bank.sign, self._steps = int(sign), int(steps)
        for field, value in zip(fields(TransferCounts), counts, strict=True):
            setattr(self._count, field.name, value if field.type is float else int(value))

    def counters(self) -> dict[str, int | float]:
        """Events of the kernel and of transfers; writes of the pair most and least written."""
        count = self._count
        found: dict[str, int | float] = dict(self.bank.counters)
        found |= {field.name: getattr(count, field.name) for field in fields(TransferCounts)}
        found["tuning_pulses"] = round(found["tuning_pulses"])
        found["weight_error"] = math.sqrt(found.pop("squared_error") / max(1, found.pop("cells")))
        found["writes_max"] = int(self._writes.max(initial=0))
        found["writes_mean"] = float(self._writes.mean()) if self._writes.size else 0.0
        return found

    def _write(self, sign: int) -> None:
        """Program all cells to the weights that they have now."""
        for block in self.layout.parts:
            self._write_block(block, sign)
        self._steps += 1
        self.bank.sign = sign
        self.pull = self._first_pull

    def _write_block(self, block: Block, sign: int, frame: int = 1) -> None:
        """Transfer the cells of a block or a column; all in units of the weight.

        `sign` is their polarity from now on, and `low` is kept as `frame` times what it is.
        """
        bank, at, s = self.bank, block.at, np.float32(sign)
        wanted = self._read(block, bank.weights[at], "transfer_read")
        if not self.trainable:
            bank.weights[at] = self._program(block, wanted)
            return
        reset = np.float32(0) if self._devices.reset is None else widened(self._devices.reset[at])
        pair = self._program(block, self._target(wanted, reset, s))
        rest = (wanted - self._read(block, pair, "tuning_read")) * s - reset
        low = self._tuned(block, rest * np.float32(frame))
        self._low[at] = low
        found = s * (low * np.float32(frame) + reset) + pair
        self._count.cells += len(found)
        missed = found - bank.weights[at]
        self._count.squared_error += float(np.dot(missed, missed))
        bank.weights[at] = found

    def _target(self, wanted: Float32, reset: Any, s: np.float32) -> Float32:
        """What is programmed into the pairs, and what of it is beyond their range."""
        offset: Any = np.float32(self._training.offset_us / self._unit)
        if self._training.offset_sigmas and self.layout.physics.programming_error:
            x = np.abs(wanted) * np.float32(self._unit / self._spec.significance / self._spec.g_max_fit_us)
            np.minimum(x, np.float32(self._spec.g_max_us / self._spec.g_max_fit_us), out=x)
            sigma = pcm.polynomial(self._spec.programming_error_us, x)
            sigma *= np.float32(self._training.offset_sigmas * self._spec.significance / self._unit)
            offset = offset + sigma
        target: Float32 = wanted - s * (offset + reset)
        own = s * target
        target[(own > 0) & (own < offset)] = 0
        limit = np.float32(self.layout.weight_range * (1 + 2**-22))
        self._count.clipped_high += int(np.count_nonzero(target > limit))
        self._count.clipped_low += int(np.count_nonzero(target < -limit))
        return target

    def _program(self, block: Block, target: Float32) -> Float32:
        """Program pairs [cells] from RESET; F (G+ - G-) as reads find it, [cells]."""
        physics, at = self.layout.physics, block.at
        devices = self._written(block, target.reshape(block.rows, block.cols) * np.float32(self._unit))
        if physics.frozen_part is not None:
            noise = stream(self.layout.seed, block.place, "read_noise", self._steps)
            devices = PcmPairCell.age(self._cell, devices, None, noise, None, physics.frozen_part)
        self._g_plus[at], self._g_minus[at] = devices.g_plus.ravel(), devices.g_minus.ravel()
        if physics.fast_part is not None and self.bank.variances is not None:
            variance = PcmPairCell.noise_variance(self._cell, devices, part=physics.fast_part).ravel()
            self.bank.variances[at] = narrowed(variance * np.float32(1 / self._unit**2))
        return self._of_pairs(devices)

    def _of_pairs(self, devices: Devices) -> Float32:
        """F (G+ - G-) in units of the weight, [cells]."""
        pair: Float32 = (devices.g_plus - devices.g_minus).ravel()
        pair *= np.float32(self._spec.significance)
        pair *= np.float32(1 / self._unit)
        return pair

    def _written(self, block: Block, target_us: Float32) -> Devices:
        """The devices right after programming; those beyond `verify_us` again, so many iterations."""
        physics, seed, step = self.layout.physics, self.layout.seed, self._steps
        errors = stream(seed, block.place, "programming_error", step) if physics.programming_error else None
        stuck = stream(seed, block.place, "stuck") if physics.stuck else None
        writes = np.ones(target_us.size, np.uint32)
        if self._training.program_iterations == 1 or errors is None:
            devices = self._cell.program(target_us, errors, stuck)
        else:
            devices = self._verified(target_us, errors, stuck, writes)
        self._writes[block.at] += writes
        self._count.pcm_resets += 2 * int(writes.sum())
        return devices

    def _verified(
        self, target_us: Float32, errors: Stream, stuck: Stream | None, writes: NDArray[np.uint32]
    ) -> Devices:
        """Program, read, and program again from RESET what missed; counts writes [cells]."""
        spec, training = self._spec, self._training
        wanted = np.clip(target_us / np.float32(spec.significance), -spec.g_max_us, spec.g_max_us)
        plus, minus = (g.ravel().copy() for g in write_pair(wanted, spec, errors, None))
        goal = wanted.ravel()
        for _ in range(training.program_iterations - 1):
            again = np.flatnonzero(np.abs(plus - minus - goal) > np.float32(training.verify_us))
            if not len(again):
                break
            plus[again], minus[again] = write_pair(goal[again], spec, errors, None)
            writes[again] += 1
        if stuck is not None:
            for g in (plus, minus):
                shares = spec.stuck_low_fraction, spec.stuck_high_fraction
                make_stuck(g, *shares, 0.0, spec.g_max_us, stuck)
        return Devices(plus.reshape(target_us.shape), minus.reshape(target_us.shape))

    def _read(self, block: Block, weights: Float32, name: str) -> Float32:
        """Weights [cells] as one reading of each cell finds them."""
        if self.bank.variances is None:
            return weights
        noise = stream(self.layout.seed, block.place, name, self._steps).normal(len(weights))
        noise *= np.sqrt(widened(self.bank.variances[block.at]))
        noise += weights
        return noise

    def _tuned(self, block: Block, rest: Float32) -> Float32:
        """The low tier after tuning towards `rest` [cells], by steps of its own and within its range."""
        devices, at = self._devices, block.at
        step = np.where(rest > 0, widened(devices.up[at]), widened(devices.down[at]))
        low_min, low_max = widened(devices.low_min[at]), widened(devices.low_max[at])
        self._count.out_of_reach += int(np.count_nonzero((rest < low_min) | (rest > low_max)))
        low = rest
        if self.layout.physics.programming_error:
            missed = stream(self.layout.seed, block.place, "low_tier", self._steps).uniform(len(rest))
            missed -= np.float32(0.5)
            missed *= step
            low = rest + missed
        low = np.clip(low, low_min, low_max)
        pulses = np.abs(low) / np.maximum(step, np.float32(self._devices.step * 0.01))
        self._count.tuning_pulses += float(pulses.sum(dtype=np.float64))
        return low
