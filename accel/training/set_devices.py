"""Pairs of PCM devices in training: raised by SET pulses, emptied by RESET, and programmed.

The law of a pulse is aihwkit's PCMPresetDevice (an ExpStep device; after Nandakumar et al., Frontiers in
Neuroscience 14, 406, 2020), here relative to the range of conductances, g = G / g_max from 0 to 1, where
theirs is w = 2 g from 0 to 2. With N standard normal numbers, drawn once per device:

    step_i  = step (1 + up_down_mismatch N + step_spread N')
    top_i   = 1 + range_spread N
    reset_i = max(0, reset_level + reset_spread N)                 what RESET leaves

A pulse adds step_i (1 + growth exp(-decay g / top_i)), and noise: `pcmc.accel.training.set_law`.

*Programming* a pair to a difference d: RESET of both devices; then the closed loop of the cell raises the
one that has to go up, G+ to d + reset of G- or G- to reset of G+ - d, at most to g_max and its own top,
with the cell's statistics: sigma_prog of its target, and what is frozen of the read noise. The other device
stays at its reset level. Rewriting could take open-loop SET pulses as well; the closed loop is taken
because its error is published.

*Occasional RESET* (Burr et al., IEDM 2014): a pair with one device above `reset_above` and the other above
`reset_other_above` of g_max (thresholds of aihwkit's OneSidedUnitCell) is programmed again to the
difference that it has, as an exact read finds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.cell_specs import PcmCellSpec
from pcmc.accel.cells import pcm
from pcmc.accel.cells.cell import make_stuck
from pcmc.accel.chip import ChipSpec
from pcmc.accel.random import Stream, stream
from pcmc.accel.training.bank import PulseLaw
from pcmc.accel.training.bfloat16 import narrowed, paired, widened
from pcmc.accel.training.layout import Block, Float32, Layout
from pcmc.accel.training.set_law import SetLaw, mean_step
from pcmc.accel.training_spec import SetPulseSpec
from pcmc.errors import ChipError

Halves = NDArray[np.uint16]
Ints = NDArray[np.int64]
_SIDES = ("plus", "minus")
_SIGN_BIT = np.uint16(0x8000)  # of a bfloat16


@dataclass(slots=True)
class RewriteCounts:
    """What RESETs have done, all of them together; `squared_error` of the weights, in their unit."""

    transfers: int = 0
    checks: int = 0
    rewritten: int = 0
    cells: int = 0
    out_of_reach: int = 0
    clipped_low: int = 0
    clipped_high: int = 0
    pcm_resets: int = 0
    squared_error: float = 0.0

    def as_counters(self) -> dict[str, int | float]:
        """By name, with `weight_error`, the root of the mean square error of a cell that was written."""
        found: dict[str, int | float] = {field.name: getattr(self, field.name) for field in fields(self)}
        found["weight_error"] = math.sqrt(found.pop("squared_error") / max(1, found.pop("cells")))
        return found

    def as_array(self) -> NDArray[np.float64]:
        """All counts, for `restore`."""
        return np.array([float(getattr(self, field.name)) for field in fields(self)], np.float64)

    def restore(self, values: NDArray[np.float64]) -> None:
        """Undo `as_array`."""
        for field, value in zip(fields(self), values.tolist(), strict=True):
            setattr(self, field.name, float(value) if field.name == "squared_error" else int(value))


def check_set_training(chip: ChipSpec) -> None:
    """ChipError if the chip asks for what its PCM pairs can't do in training."""
    training, cell = chip.training, chip.cell
    assert isinstance(cell, PcmCellSpec)
    assert isinstance(chip.pulses, SetPulseSpec)
    every = chip.pulses.reset_every
    if training.transfer != "array":
        raise ChipError(
            f'chip {chip.name} can\'t be trained: [training] transfer = "{training.transfer}": must be '
            f'"array" for {cell.kind} cells'
        )
    if cell.kind == "4pcm" and training.transfer_every % every:
        raise ChipError(
            f"chip {chip.name} can't be trained: [training] transfer_every = {training.transfer_every}: must "
            f"be a multiple of [pulses] reset_every = {every}, or 0"
        )
    if cell.slices > 1:
        raise ChipError(
            f"chip {chip.name} can't be trained: [cell] slices = {cell.slices}: must be 1: an "
            "update does not carry from slice to slice"
        )


class SetPairs:
    """The pairs of a bank: what each device holds, in units of the weight, [pairs, cells] flattened.

    Args:
        layout: the bank.
        spec: the statistics of programming.
        pulses: those of pulses.
        full: the weight that g_max of one device stands for.
        pairs: how many pairs a weight has.
    """

    def __init__(
        self, layout: Layout, spec: PcmCellSpec, pulses: SetPulseSpec, full: float, pairs: int = 1
    ) -> None:
        self.layout, self._spec, self._pulses, self.full, self.pairs = layout, spec, pulses, full, pairs
        self._unit = spec.g_max_us / full
        size = pairs * layout.cells
        self.held = {side: np.zeros(size, np.float32) for side in _SIDES}
        self._step, self._top, self._reset = (
            {side: np.zeros(size, np.uint16) for side in _SIDES} for _ in range(3)
        )
        self.writes = np.zeros(layout.cells, np.uint32)
        self.count = RewriteCounts()
        self.low = np.zeros(layout.cells, np.float32) if layout.pulses() is None else None
        for block in layout.parts:
            for side in _SIDES:
                self._draw(block, side)

    def law(self) -> SetLaw | PulseLaw:
        """What the kernels take; without pulses the difference is changed exactly, from -`full` to `full`."""
        pulses, full = self._pulses, np.float32(self.full)
        if self.low is not None:
            end = narrowed(np.full(self.layout.cells, full * np.float32(self.pairs), np.float32))
            none = np.zeros((end.size, 2), np.uint16)  # no pulses, so that steps are of no matter
            return PulseLaw(self.low, none, none, paired(end | _SIGN_BIT, end), None, 0.0, 0.0, float(full))
        return SetLaw(
            self.held["plus"],
            self.held["minus"],
            self._step["plus"],
            self._step["minus"],
            self._top["plus"],
            self._top["minus"],
            growth=pulses.growth,
            decay=pulses.decay,
            noise=pulses.noise if self.layout.physics.pulse_noise else 0.0,
            noise_offset=pulses.noise_offset * self.full,
            noise_slope=pulses.noise_slope,
            step=mean_step(pulses.step, pulses.growth, pulses.decay, pulses.reset_above) * self.full,
            pairs=self.pairs,
        )

    def of_block(self, block: Block) -> Ints:
        """The indices [pairs, cells of the block] of a block's devices."""
        cells = np.arange(block.at.start, block.at.stop)
        return cells + self.layout.cells * np.arange(self.pairs)[:, None]

    def differences(self, at: Any) -> Float32:
        """G+ - G- of each."""
        found: Float32 = self.held["plus"][at] - self.held["minus"][at]
        return found

    def write(self, block: Block, at: Ints, wanted: Float32, step: int) -> None:
        """Program pairs of a block, `at` of any shape, to differences; streams are those of number `step`."""
        at, wanted = at.ravel(), wanted.ravel()
        seed, place, physics = self.layout.seed, block.place, self.layout.physics
        limit = np.float32(self.full * (1 + 2**-22))
        self.count.clipped_high += int(np.count_nonzero(wanted > limit))
        self.count.clipped_low += int(np.count_nonzero(wanted < -limit))
        error = stream(seed, place, "set_programming", step) if physics.programming_error else None
        noise = stream(seed, place, "set_read_noise", step) if physics.frozen_part is not None else None
        levels = {side: widened(self._reset[side][at]) for side in _SIDES}
        raised = wanted > levels["plus"] - levels["minus"]
        for side, other, goal, there in (
            ("plus", "minus", wanted, raised), ("minus", "plus", -wanted, ~raised),
        ):  # fmt: skip
            g = levels[side].copy()
            g[there] = self._programmed(goal[there] + levels[other][there], error)
            if noise is not None:
                g = self._aged(g, noise)
            np.minimum(g, widened(self._top[side][at]), out=g)
            live = self._step[side][at] != 0
            self.held[side][at[live]] = g[live]
        np.add.at(self.writes, at % self.layout.cells, 1)
        self.count.pcm_resets += 2 * len(at)
        if self.low is not None:
            cells = np.unique(at % self.layout.cells)
            each = cells + self.layout.cells * np.arange(self.pairs)[:, None]
            self.low[cells] = self.differences(each).sum(axis=0)

    def note_error(self, error: Float32) -> None:
        """Count what a writing of some weights left them off what they were."""
        self.count.cells += len(error)
        self.count.squared_error += float(np.dot(error, error))

    def refresh(self, block: Block, step: int) -> tuple[Ints, Float32]:
        """Program pairs again that are near their end: their cells, and what each pair changed by."""
        above, other = (
            np.float32(share * self.full)
            for share in (self._pulses.reset_above, self._pulses.reset_other_above)
        )
        found = []
        for pair in range(self.pairs):
            here = slice(pair * self.layout.cells + block.at.start, pair * self.layout.cells + block.at.stop)
            plus, minus = self.held["plus"][here], self.held["minus"][here]
            near = np.flatnonzero(np.minimum(plus, minus) > other)
            near = near[np.maximum(plus[near], minus[near]) > above]
            found.append(near + here.start)
        at = np.concatenate(found)
        if not at.size:
            return at, np.zeros(0, np.float32)
        before = self.differences(at)
        self.write(block, at, before, step)
        change = self.differences(at) - before
        self.count.rewritten += len(at)
        self.note_error(change)
        return at % self.layout.cells, change

    def variances(self, block: Block) -> Float32:
        """The variance of the fast read noise of a block's cells, [cells]; physics must have some."""
        part = self.layout.physics.fast_part
        assert part is not None
        total = np.zeros(block.at.stop - block.at.start, np.float32)
        for held in self.held.values():
            for devices in held[self.of_block(block)]:
                g = devices * np.float32(self._unit)
                total += pcm.noise_variance(g, self._spec, self._spec.t0_s, part)
        total *= np.float32(1 / self._unit**2)
        return total

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has changed since the start; what was drawn once is drawn again."""
        found: dict[str, NDArray[Any]] = {f"set_{side}": held.copy() for side, held in self.held.items()}
        found |= {"writes": self.writes.copy(), "rewrites": self.count.as_array()}
        if self.low is not None:
            found["low"] = self.low.copy()
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo `arrays`."""
        for side, held in self.held.items():
            held[:] = arrays[f"set_{side}"]
        self.writes[:] = arrays["writes"]
        self.count.restore(arrays["rewrites"])
        if self.low is not None:
            self.low[:] = arrays["low"]

    def _draw(self, block: Block, side: str) -> None:
        """The parameters of a block's devices; one that is stuck has a step of 0, and holds its level."""
        pulses, layout = self._pulses, self.layout
        spread = layout.physics.step_mismatch
        full, one = np.float32(self.full), np.float32(1)

        def normal(name: str, deviation: float) -> Any:
            if not (spread and deviation):
                return np.float32(0)
            return stream(layout.seed, block.place, f"{name}_{side}").normal(n) * np.float32(deviation)

        at = self.of_block(block).ravel()
        n = len(at)
        step = one + normal("set_up_down", pulses.up_down_mismatch) + normal("set_step", pulses.step_spread)
        step = np.maximum(step, np.float32(0.01)) * (np.float32(pulses.step) * full)  # a SET never lowers
        top = np.maximum(one + normal("set_top", pulses.range_spread), np.float32(0.1)) * full
        level = np.float32(pulses.reset_level) + normal("set_reset", pulses.reset_spread)
        for found, values in (
            (self._step, step), (self._top, top), (self._reset, np.maximum(level, np.float32(0)) * full),
        ):  # fmt: skip
            found[side][at] = narrowed(np.broadcast_to(values, n).astype(np.float32))
        if layout.physics.stuck:
            levels = np.full(n, -1, np.float32)
            shares = self._spec.stuck_low_fraction, self._spec.stuck_high_fraction
            make_stuck(
                levels,
                *shares,
                0.0,
                self._spec.g_max_us,
                stream(layout.seed, block.place, f"set_stuck_{side}"),
            )
            stuck = levels >= 0
            self._step[side][at[stuck]] = 0
            self.held[side][at[stuck]] = levels[stuck] / np.float32(self._unit)

    def _programmed(self, goal: Float32, error: Stream | None) -> Float32:
        """Devices that were programmed from RESET to conductances."""
        g: Float32 = np.minimum(goal * np.float32(self._unit), np.float32(self._spec.g_max_us))
        if error is not None:
            pcm.add_programming_error(g, self._spec, error)
        return g * np.float32(1 / self._unit)

    def _aged(self, g: Float32, noise: Stream) -> Float32:
        """With the frozen part of the read noise."""
        part = self.layout.physics.frozen_part
        assert part is not None
        g = g * np.float32(self._unit)
        pcm.age(g, self._spec, self._spec.t0_s, noise, None, part)
        g *= np.float32(1 / self._unit)
        return g
