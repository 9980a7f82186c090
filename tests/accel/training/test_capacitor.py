"""The capacitor cell alone in training: it takes pulses, and loses what it holds."""

import math

import numpy as np
from effects_measures import ks, uniform
from trained_cells import RANGE, capacitor_chip, make, spread_weights

from pcmc.accel.training.bfloat16 import widened

UNIT = 8.0 / RANGE  # the range that both signs have, 4 to 20 uS about 12
CHIP = capacitor_chip()
ALIKE = capacitor_chip(leak_spread=0.0)


def test_cells_are_tuned_to_their_weights_by_steps_of_their_own():
    weights = spread_weights(200, 100, 0.3)
    bank = make(weights, "pulses,step_mismatch,programming_error", CHIP)
    low, reset = bank.arrays()["low"], widened(bank._devices.reset)
    np.testing.assert_allclose(bank.read_out(), low + reset, atol=1e-7)
    step = np.where(low > 0, widened(bank._devices.up), widened(bank._devices.down))
    found = ks("uniform", (bank.read_out() - weights.ravel()) / step + 0.5, uniform)
    assert found.deviation < found.allowed + 2e-3


def test_exact_cells_hold_their_weights_and_all_of_them_leak_away():
    weights = spread_weights(20, 10, 0.3)
    bank = make(weights, "pulses,leak", ALIKE)
    np.testing.assert_allclose(bank.read_out(), weights.ravel(), atol=1e-7)
    for _ in range(100):
        bank.leak(80)
    left = weights.ravel() * math.exp(-1.92 / 5.16)
    np.testing.assert_allclose(bank.read_out(), left, rtol=1e-4, atol=1e-8)
    assert not bank.pair_only().any()
    assert bank.transfer_every == 0
    bank.transfer(8000)
    np.testing.assert_allclose(bank.read_out(), left, rtol=1e-4, atol=1e-8)


def test_weights_beyond_the_range_are_clipped_and_counted():
    weights = np.array([[0.6, -0.7, -0.9, 0.2]], np.float32)
    bank = make(weights, "pulses", CHIP)
    np.testing.assert_allclose(bank.read_out(), [0.5, -0.5, -0.5, 0.2], rtol=2**-8)
    counts = bank.counters()
    assert (counts["clipped_low"], counts["clipped_high"]) == (2, 1)


def test_an_update_is_pulses_of_a_step():
    bank = make(np.zeros((4, 6), np.float32), "pulses", capacitor_chip(nonlinearity=0.0))
    step = bank.bank.law.step
    assert abs(step * UNIT / 0.04 - 1) < 2**-8
    bank.bank.update(np.ones((3, 4), np.float32), np.ones((3, 6), np.float32), step)
    np.testing.assert_allclose(bank.read_out(), -3 * step, rtol=1e-5)
    assert bank.counters()["pulses_down"] == 72


def test_cells_that_are_not_trained_are_renewed_and_do_not_leak():
    bank = make(spread_weights(5, 4, 0.3), "full", CHIP, trainable=False)
    before = bank.read_out()
    bank.leak(80)
    np.testing.assert_array_equal(bank.read_out(), before)
    assert (bank.pull, bank.leak_factor) == (0.0, 1.0)


def test_a_bank_goes_on_from_its_arrays_to_the_bit():
    def go_on(bank):
        bank.bank.update(np.ones((3, 5), np.float32), np.eye(3, 4, dtype=np.float32), 0.01)
        bank.leak(80)
        return bank.arrays()

    weights = spread_weights(5, 4, 0.3)
    first = make(weights, "full", CHIP)
    go_on(first)
    second = make(weights * 0, "full", CHIP)
    second.restore(first.arrays())
    wanted, found = go_on(first), go_on(second)
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
