"""Noise-aware training in software, for chips that only run what was trained elsewhere.

The weights are floats and are updated as such. Each batch goes forward through what the chip would make of
them: programmed anew with its own errors, read with its own noise and converters (or, as peers do it, with
Gaussian noise in proportion to the largest weight: Joshi et al., Nature Communications 11, 2473 (2020)).
Gradients go back through the same noisy weights, but past converters as if they were not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import ChipSpec
from pcmc.accel.physics import Physics
from pcmc.accel.random import stream
from pcmc.accel.training.bank import OFF, Port, TrainingBank
from pcmc.runtime.program import Bank
from pcmc.runtime.reads import Reading, read_bank_cells
from pcmc.runtime.state import place, program_bank
from pcmc.runtime.trainer.banks import range_of, scale_bias_rows

Floats = npt.NDArray[np.float32]


class NoiseAwareBank:
    """A bank of float weights that are read as a chip would read them; see `TrainedBank`.

    Args:
        bank: what was compiled.
        chip: whose errors, noise and converters are met.
        physics: the effects that are on.
        seed: names the streams.
        trainable: whether its weights are updated.
        weight_noise: standard deviation of a Gaussian over the largest weight of the matrix, in place of the
            errors and noise of the chip's cells; None: those.
    """

    transfer_every = 0
    pull = 0.0
    leak_factor = 1.0

    def __init__(
        self,
        bank: Bank,
        chip: ChipSpec,
        physics: Physics,
        seed: int,
        trainable: bool,
        weight_noise: float | None = None,
    ) -> None:
        self.trainable = trainable
        self._compiled, self._chip, self._seed, self._noise = bank, chip, seed, weight_noise
        self._physics = replace(physics, dac=False, adc=False, readout_noise=False, mismatch=False)
        forward = Port(
            chip.dac.levels * physics.dac,
            chip.adc.levels * physics.adc,
            chip.adc.range_cells * range_of(bank),
        )
        self.bank = TrainingBank(
            bank.blocks(),
            bank.rows,
            bank.cols,
            bank.cells,
            forward=forward,
            backward=OFF,
            seed=seed,
            place=place(bank.table[0]),
        )
        self._held: Floats | None = None

    def perturb(self, step: int) -> None:
        """From now on reads find what the chip makes of the weights; `step` names the streams."""
        held = self.bank.weights[: self._compiled.cells.size].copy()
        self._held = held
        if self._noise is not None:
            numbers = stream(self._seed, place(self._compiled.table[0]), "weight_noise", step).normal(
                held.size
            )
            largest = float(np.abs(held).max(initial=0.0))
            self.bank.weights[: held.size] = held + numbers * np.float32(self._noise * largest)
            return
        if not self._physics.is_ideal:
            self.bank.weights[: held.size] = self._on_chip(held, step)

    def calm(self) -> None:
        """Reads find the weights themselves again, and updates go to them."""
        if self._held is not None:
            self.bank.weights[: self._held.size] = self._held
            self._held = None

    def leak(self, examples: int) -> None:
        """Nothing leaks in software."""

    def transfer(self, example: int, part: slice | None = None) -> None:
        """There is no second tier."""

    def read_out(self) -> Floats:
        """The weights [cells]."""
        return self.bank.weights[: self._compiled.cells.size].copy()

    def pair_only(self) -> Floats:
        """The weights [cells]: they are all that there is."""
        return self.read_out()

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What has changed since the start."""
        return {"weights": self.read_out()}

    def restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Undo `arrays`."""
        self.bank.weights[: self._compiled.cells.size] = arrays["weights"]

    def counters(self) -> dict[str, int | float]:
        """Events of the kernel."""
        return dict(self.bank.counters)

    def _on_chip(self, held: Floats, step: int) -> Floats:
        """The weights as reads find them after they were programmed once more."""
        held.flags.writeable = False
        bank = replace(self._compiled, cells=held)
        state = program_bank(bank, self._chip, self._physics, self._seed, None, 1, step + 1)
        found = read_bank_cells(
            bank, state, self._chip, Reading(self._physics, self._seed, self._seed, step=step)
        ).weights.copy()
        scale_bias_rows(bank, found, state.bias_drive)  # their cells hold bias / drive
        return found
