"""The capacitor cell alone in training: W = low + r, pulsed and leaking, and never transferred anywhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.cell_specs import CapacitorCellSpec
from pcmc.accel.random import stream
from pcmc.accel.training.bank import LEAK_EVERY
from pcmc.accel.training.bfloat16 import widened
from pcmc.accel.training.devices import CapacitorRange, draw_capacitors, pulse_law
from pcmc.accel.training.layout import Float32, Layout, restore_bank, state_arrays
from pcmc.accel.training_spec import LinearPulseSpec


class CapacitorCells:
    """A bank of capacitor cells; see `pcmc.accel.training.arrays.TrainedBank`.

    Devices are those of `pcmc.accel.training.devices`. A weight that is not renewed by updates leaks away
    with the time constant of its cell. At the start each cell is tuned to its weight by steps of its own, as
    far as its range goes. A bank that is not trained is taken as renewed all the time: it does not leak.
    """

    transfer_every = 0

    def __init__(self, layout: Layout, weights: Float32, trainable: bool) -> None:
        spec, pulses = layout.chip.cell, layout.chip.pulses
        assert isinstance(spec, CapacitorCellSpec)
        assert isinstance(pulses, LinearPulseSpec)
        self.trainable = trainable
        self.layout = layout
        unit = spec.g_max_us / layout.weight_range
        range_us = CapacitorRange(
            spec.g_low_us, spec.g_high_us, spec.g_reference_us, spec.steps, spec.leak_tau_now_s
        )
        self._devices = draw_capacitors(layout, pulses, range_us, unit)
        self._clipped = {"clipped_low": 0, "clipped_high": 0}
        self._low = self._programmed(np.array(weights, np.float32).ravel())
        law = pulse_law(self._devices, self._low, pulses.noise if layout.physics.pulse_noise else 0.0)
        self.bank = layout.make_bank(self._low + self._reset(), law)
        leaks = trainable and layout.physics.leak
        self.pull = (spec.g_reference_us - pulses.leak_to_us) / unit if leaks else 0.0
        self.leak_factor = 1.0 - self._devices.leak_mean if leaks else 1.0

    def leak(self, examples: int) -> None:
        """Let cells and references leak for the time of so many examples."""
        if self.trainable:
            self.bank.leak(examples, self.pull)
            self.pull *= 1.0 - (1.0 - self.leak_factor) * examples / LEAK_EVERY

    def transfer(self, example: int, part: slice | None = None) -> None:
        """There is no second tier."""

    def read_out(self) -> Float32:
        """W of each cell [cells], as reads without converters find it."""
        return self.bank.weights.copy()

    def pair_only(self) -> Float32:
        """Zeros [cells]: nothing is left of capacitors."""
        return np.zeros_like(self.bank.weights)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has changed since the start; what was drawn once is drawn again."""
        return state_arrays(self.bank) | {"low": self._low.copy(), "pull": np.array(self.pull)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo `arrays`, for a bank that was made with the same arguments."""
        restore_bank(self.bank, arrays)
        self._low[:] = arrays["low"]
        self.pull = float(arrays["pull"])

    def counters(self) -> dict[str, int | float]:
        """Events of the kernel, and weights that were beyond the range at the start."""
        return {**self.bank.counters, **self._clipped}

    def _reset(self) -> Any:
        return np.float32(0) if self._devices.reset is None else widened(self._devices.reset)

    def _programmed(self, weights: Float32) -> Float32:
        """The low tier of cells that are tuned to their weights [cells]."""
        devices = self._devices
        low = weights - self._reset()
        low_min, low_max = widened(devices.low_min), widened(devices.low_max)
        self._clipped["clipped_low"] = int(np.count_nonzero(low < low_min))
        self._clipped["clipped_high"] = int(np.count_nonzero(low > low_max))
        if self.layout.physics.programming_error:
            step = np.where(low > 0, widened(devices.up), widened(devices.down))
            for block in self.layout.parts:
                missed = stream(self.layout.seed, block.place, "low_tier").uniform(
                    block.at.stop - block.at.start
                )
                low[block.at] += (missed - np.float32(0.5)) * step[block.at]
        clipped: Float32 = np.clip(low, low_min, low_max)
        return clipped
