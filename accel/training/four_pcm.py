"""Two tiers of PCM in training: SET pulses on a low pair, and transfers of what it holds to a high one.

    W = F (G+ - G-) + s (g+ - g-)                      s the polarity

The low pair is what the capacitor is in `pcmc.accel.training.two_tier`: it takes the pulses. A transfer does

    read W;  s' = -s                                   (s' = s without inversion)
    RESET all four devices; program W / F into G+ or G- in the closed loop of the cell
    read back; program s' (W - F (G+ - G-)) into g+ or g-, as far as the pair's range goes
    s = s'

without the offset of the capacitor's transfer, which is there for a low tier that has more room on one side:
a pair has as much on both. In between, pairs of the low tier that are near their end are programmed again to
what they hold, like those of a single tier (`pcmc.accel.training.set_devices`). The cell of four devices is
that of Ambrogio et al. (Nature 620, 2023), where it only runs; training it like this follows Cristiano et al.
(J. Appl. Phys. 124, 2018), who study devices that saturate in either tier.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.cell_specs import FourPcmCellSpec
from pcmc.accel.cells import pcm
from pcmc.accel.cells.pcm_pair import write_pair
from pcmc.accel.random import stream
from pcmc.accel.training.bfloat16 import narrowed, widened
from pcmc.accel.training.layout import Block, Float32, Layout, restore_bank, state_arrays
from pcmc.accel.training.set_devices import SetPairs, check_set_training
from pcmc.accel.training_spec import SetPulseSpec


class FourPcmCells:
    """A bank of cells with two tiers of PCM; see `pcmc.accel.training.arrays.TrainedBank`.

    `transfer` is due every `reset_every` examples, to program low pairs that are near their end; at each
    multiple of the chip's `transfer_every` it is one of all cells. A bank that is not trained is programmed
    once, both tiers.
    """

    pull = 0.0
    leak_factor = 1.0

    def __init__(self, layout: Layout, weights: Float32, trainable: bool) -> None:
        spec, pulses = layout.chip.cell, layout.chip.pulses
        assert isinstance(spec, FourPcmCellSpec)
        assert isinstance(pulses, SetPulseSpec)
        check_set_training(layout.chip)
        self.trainable, self.layout, self._spec = trainable, layout, spec
        self._training = layout.chip.training
        every = pulses.reset_every if layout.physics.pulses else self._training.transfer_every
        self.transfer_every = every if trainable else 0
        self._unit = spec.significance * spec.g_max_us / layout.weight_range
        self._low = SetPairs(layout, spec, pulses, layout.weight_range / spec.significance)
        self._g_plus, self._g_minus = (np.zeros(layout.cells, np.float32) for _ in range(2))
        self._steps = self._transferred = 0
        noisy = layout.physics.fast_part is not None
        variances = np.zeros(layout.cells, np.uint16) if noisy else None
        self._high_variances = np.zeros(layout.cells if noisy else 0, np.uint16)
        self.bank = layout.make_bank(
            np.array(weights, np.float32).ravel(), self._low.law() if trainable else None, variances
        )
        self._write(1)

    def leak(self, examples: int) -> None:
        """PCM keeps what it holds; its drift within milliseconds is not modelled."""

    def transfer(self, example: int, part: slice | None = None) -> None:
        """Program low pairs again that are near their end; when it is time, transfer all to the high ones."""
        every = self._training.transfer_every
        if every and example // every > self._transferred // every:
            self._write(-self.bank.sign if self._training.inversion else self.bank.sign)
            self._low.count.transfers += 1
            self._transferred = example
            return
        for block in self.layout.parts:
            cells, change = self._low.refresh(block, self._steps)
            self.bank.weights[cells] += np.float32(self.bank.sign) * change
        self._steps += 1
        self._low.count.checks += 1
        self._take_variances()

    def read_out(self) -> Float32:
        """W of each cell [cells], as reads without noise and converters find it."""
        return self.bank.weights.copy()

    def pair_only(self) -> Float32:
        """W of each cell [cells]: nothing of it leaks away."""
        return self.bank.weights.copy()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has changed since the start; what was drawn once is drawn again."""
        found = state_arrays(self.bank) | self._low.arrays()
        found |= {"g_plus": self._g_plus.copy(), "g_minus": self._g_minus.copy()}
        if self.bank.variances is not None:
            found["variances"] = self.bank.variances.copy()
            found["high_variances"] = self._high_variances.copy()
        return found | {"transfer": np.array([self.bank.sign, self._steps, self._transferred], np.int64)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo `arrays`, for a bank that was made with the same arguments."""
        restore_bank(self.bank, arrays)
        self._low.restore(arrays)
        self._g_plus[:], self._g_minus[:] = arrays["g_plus"], arrays["g_minus"]
        if "variances" in arrays:
            self.bank.variances = arrays["variances"].copy()
            self._high_variances[:] = arrays["high_variances"]
        self.bank.sign, self._steps, self._transferred = arrays["transfer"].tolist()

    def counters(self) -> dict[str, int | float]:
        """Events of the kernel, of transfers and of rewriting; how often low pairs were programmed."""
        writes = self._low.writes
        return {
            **self.bank.counters,
            **self._low.count.as_counters(),
            "writes_max": int(writes.max(initial=0)),
            "writes_mean": float(writes.mean()) if writes.size else 0.0,
        }

    def _write(self, sign: int) -> None:
        """Program all cells to the weights that they have now."""
        for block in self.layout.parts:
            self._write_block(block, np.float32(sign))
        self._steps += 1
        self.bank.sign = sign
        self._take_variances()

    def _write_block(self, block: Block, sign: np.float32) -> None:
        bank, at, low = self.bank, block.at, self._low
        wanted = self._read(block, bank.weights[at], bank.variances, "transfer_read")
        pair = self._program(block, wanted)
        rest = sign * (wanted - self._read(block, pair, self._high_variances, "tuning_read"))
        low.count.out_of_reach += int(np.count_nonzero(np.abs(rest) > np.float32(low.full)))
        devices = low.of_block(block)
        low.write(block, devices, np.clip(rest, -low.full, low.full), self._steps)
        found = pair + sign * low.differences(devices[0])
        low.note_error(found - bank.weights[at])
        bank.weights[at] = found

    def _program(self, block: Block, target: Float32) -> Float32:
        """Program high pairs [cells] from RESET; F (G+ - G-) as reads find it, in units of the weight."""
        physics, spec, seed, at = self.layout.physics, self._spec, self.layout.seed, block.at
        low = self._low
        limit = np.float32(self.layout.weight_range * (1 + 2**-22))
        low.count.clipped_high += int(np.count_nonzero(target > limit))
        low.count.clipped_low += int(np.count_nonzero(target < -limit))
        low.count.pcm_resets += 2 * len(target)
        errors = (
            stream(seed, block.place, "programming_error", self._steps) if physics.programming_error else None
        )
        stuck = stream(seed, block.place, "stuck") if physics.stuck else None
        pair = write_pair(target * np.float32(self._unit / spec.significance), spec, errors, stuck)
        if physics.frozen_part is not None:
            noise = stream(seed, block.place, "read_noise", self._steps)
            for g in pair:
                pcm.age(g, spec, spec.t0_s, noise, None, physics.frozen_part)
        self._g_plus[at], self._g_minus[at] = pair
        if physics.fast_part is not None:
            plus, minus = (pcm.noise_variance(g, spec, spec.t0_s, physics.fast_part) for g in pair)
            variance = plus + minus
            self._high_variances[at] = narrowed(variance * np.float32((spec.significance / self._unit) ** 2))
        found: Float32 = (pair[0] - pair[1]) * np.float32(spec.significance / self._unit)
        return found

    def _read(
        self, block: Block, weights: Float32, variances: NDArray[np.uint16] | None, name: str
    ) -> Float32:
        """Weights [cells] as one reading of each cell finds them."""
        if self.bank.variances is None or variances is None:
            return weights
        noise = stream(self.layout.seed, block.place, name, self._steps).normal(len(weights))
        noise *= np.sqrt(widened(variances[block.at]))
        noise += weights
        return noise

    def _take_variances(self) -> None:
        """The kernel's variances are those of what the devices hold now."""
        if self.bank.variances is not None:
            parts = [
                self._low.variances(block) + widened(self._high_variances[block.at])
                for block in self.layout.parts
            ]
            self.bank.variances = narrowed(np.concatenate(parts))
