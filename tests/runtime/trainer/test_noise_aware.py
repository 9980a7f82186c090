from __future__ import annotations

import numpy as np
import pytest

import pcmc
from pcmc.errors import DataError
from pcmc.runtime.trainer.noise_aware import NoiseAwareBank
from pcmc.runtime.trainer.trainer import Trainer

from .nets import dense_program, spread_classes


def _bank(**options):
    program = dense_program((40, 30))
    physics = pcmc.Physics(programming_error=True)
    return program.banks["dense0"], NoiseAwareBank(
        program.banks["dense0"], program.chip, physics, 0, True, **options
    )


def test_gaussian_noise_has_its_deviation_and_the_weights_come_back():
    compiled, bank = _bank(weight_noise=0.05)
    bank.perturb(1)
    noise = bank.read_out() - compiled.cells
    assert noise.std() == pytest.approx(0.05 * np.abs(compiled.cells).max(), rel=4 / np.sqrt(2 * noise.size))
    bank.calm()
    np.testing.assert_array_equal(bank.read_out(), compiled.cells)


def test_the_noise_is_what_programming_the_chip_anew_makes():
    compiled, bank = _bank()
    read = []
    for step in (1, 2):
        bank.perturb(step)
        read.append(bank.read_out() - compiled.cells)
        bank.calm()
    assert (read[0] != read[1]).mean() > 0.9
    # At least that of two devices at RESET, 0.263 uS each, of 20 uS for the largest weight; at most 1.06.
    scale = np.abs(compiled.cells).max() / 20.0
    assert 0.2 * scale < read[0].std() < 1.1 * scale


def test_noise_aware_training_makes_a_network_that_bears_noise_better():
    program, (x, y) = dense_program((12, 30, 4)), spread_classes(600, 12, 4)
    losses = {}
    for mode, physics, noise in (("on-chip", "ideal", None), ("noise-aware", "ideal", 0.15)):
        trainer = Trainer(program, lr=0.05, physics=physics, mode=mode, weight_noise=noise, batch=8)
        trainer.fit(x, y, epochs=8)
        trained = trainer.program
        rng = np.random.default_rng(0)
        found = []
        for _ in range(20):
            z = x
            for name, bank in trained.banks.items():
                w, b = bank.matrix()
                w = w + rng.standard_normal(w.shape) * 0.15 * np.abs(bank.cells).max()
                z = z @ w + b
                z = np.tanh(z) if name != "dense1" else z
            z = z - z.max(axis=1, keepdims=True)
            found.append(float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]).mean()))
        losses[mode] = np.mean(found)
    assert losses["noise-aware"] < 0.8 * losses["on-chip"]


def test_without_noise_it_is_float_sgd():
    program, (x, y) = dense_program(), spread_classes(64, 12, 4)
    plain, aware = (
        Trainer(program, lr=0.1, physics="ideal"),
        Trainer(program, lr=0.1, physics="ideal", mode="noise-aware"),
    )
    for trainer in (plain, aware):
        trainer.fit(x, y)
    for name in program.banks:
        np.testing.assert_array_equal(plain.program.banks[name].cells, aware.program.banks[name].cells)


def test_momentum_and_batches_are_allowed_and_chips_without_pulses_too():
    program, (x, y) = dense_program(chip="hermes64"), spread_classes(400, 12, 4)
    trainer = Trainer(program, lr=0.02, physics="full", mode="noise-aware", batch=16, momentum=0.9)
    trainer.fit(x, y, epochs=4)
    assert trainer.evaluate(x, y).accuracy > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "software"}, r"mode = 'software': must be one of on-chip, noise-aware"),
        ({"weight_noise": 0.1}, r"weight_noise = 0\.1: is of mode"),
        ({"weight_noise": float("nan"), "mode": "noise-aware"}, r"weight_noise = nan: must be from 0 to 1"),
    ],
)
def test_a_wrong_mode_is_named(options, message):
    with pytest.raises(DataError, match=message):
        Trainer(dense_program(), **options)
