"""Pairs of PCM devices alone in training: SET pulses for updates, and RESET of pairs that are near their end.

    W = (F / n) sum over k of (G+_k - G-_k)            n pairs a weight, by default 1

One pair is the cell of Burr et al. (IEDM 2014). Of several, a counter says which one the next update pulses
(Boybat et al., Nature Communications 9, 2514, 2018); a pulse then changes W by one n-th as much.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.cell_specs import PcmCellSpec
from pcmc.accel.training.bfloat16 import narrowed
from pcmc.accel.training.layout import Float32, Layout, restore_bank, state_arrays
from pcmc.accel.training.set_devices import SetPairs, check_set_training
from pcmc.accel.training_spec import SetPulseSpec


class PcmPairCells:
    """A bank of PCM pairs; see `pcmc.accel.training.arrays.TrainedBank`.

    What is called a transfer is the check for pairs to be rewritten, every `reset_every` examples: see
    `pcmc.accel.training.set_devices`. Reads have the fast part of the read noise with the variances of the
    last check; its frozen part is drawn at each programming, and pulses add to it. PCM does not leak.
    """

    pull = 0.0
    leak_factor = 1.0

    def __init__(self, layout: Layout, weights: Float32, trainable: bool) -> None:
        spec, pulses = layout.chip.cell, layout.chip.pulses
        assert isinstance(spec, PcmCellSpec)
        assert isinstance(pulses, SetPulseSpec)
        check_set_training(layout.chip)
        self.trainable, self.layout = trainable, layout
        self.transfer_every = pulses.reset_every if trainable and layout.physics.pulses else 0
        self._devices = SetPairs(layout, spec, pulses, layout.weight_range / spec.pairs, spec.pairs)
        self._steps = 0
        noisy = layout.physics.fast_part is not None
        variances = np.zeros(layout.cells, np.uint16) if noisy else None
        self.bank = layout.make_bank(
            np.array(weights, np.float32).ravel(), self._devices.law() if trainable else None, variances
        )
        self._program()

    def leak(self, examples: int) -> None:
        """PCM keeps what it holds; its drift within milliseconds is not modelled."""

    def transfer(self, example: int, part: slice | None = None) -> None:
        """Program pairs again that are near their end."""
        for block in self.layout.parts:
            cells, change = self._devices.refresh(block, self._steps)
            np.add.at(self.bank.weights, cells, change)
        self._steps += 1
        self._devices.count.checks += 1
        self._take_variances()

    def read_out(self) -> Float32:
        """W of each cell [cells], as reads without noise and converters find it."""
        return self.bank.weights.copy()

    def pair_only(self) -> Float32:
        """W of each cell [cells]: nothing of it leaks away."""
        return self.bank.weights.copy()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has changed since the start; what was drawn once is drawn again."""
        found = state_arrays(self.bank) | self._devices.arrays()
        if self.bank.variances is not None:
            found["variances"] = self.bank.variances.copy()
        return found | {"steps": np.array(self._steps, np.int64)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo `arrays`, for a bank that was made with the same arguments."""
        restore_bank(self.bank, arrays)
        self._devices.restore(arrays)
        if "variances" in arrays:
            self.bank.variances = arrays["variances"].copy()
        self._steps = int(arrays["steps"])

    def counters(self) -> dict[str, int | float]:
        """Events of the kernel and of rewriting; programmings of the weight most and least written."""
        writes = self._devices.writes
        return {
            **self.bank.counters,
            **self._devices.count.as_counters(),
            "writes_max": int(writes.max(initial=0)),
            "writes_mean": float(writes.mean()) if writes.size else 0.0,
        }

    def _program(self) -> None:
        """Program all pairs to the weights, each of a weight to the same part of it."""
        devices, bank = self._devices, self.bank
        for block in self.layout.parts:
            at = devices.of_block(block)
            wanted = bank.weights[block.at] / np.float32(devices.pairs)
            devices.write(block, at, np.broadcast_to(wanted, at.shape), self._steps)
            found = devices.differences(at).sum(axis=0)
            devices.note_error(found - bank.weights[block.at])
            bank.weights[block.at] = found
        self._steps += 1
        self._take_variances()

    def _take_variances(self) -> None:
        """The kernel's variances are those of what the devices hold now."""
        if self.bank.variances is not None:
            parts = [self._devices.variances(block) for block in self.layout.parts]
            self.bank.variances = narrowed(np.concatenate(parts))
