"""Ideal cells in training: float SGD, to the bit, whatever the chip's cells are."""

import numpy as np
import pytest
from trained_cells import NATURE, RANGE, make, spread_weights

from pcmc.accel.chip import load_chip

X = np.linspace(-1, 1, 3 * 12, dtype=np.float32).reshape(3, 12)
D = np.linspace(-0.5, 1, 3 * 20, dtype=np.float32).reshape(3, 20)


def test_an_update_is_the_outer_product_exactly():
    weights = spread_weights(12, 20)
    bank = make(weights, "ideal")
    bank.bank.update(X, D, 0.1)
    wanted = weights.copy()
    for x, d in zip(X, D, strict=True):
        wanted -= np.float32(0.1) * np.outer(x, d)
    np.testing.assert_allclose(bank.read_out().reshape(12, 20), wanted, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(bank.read_out(), bank.pair_only())


def test_nothing_leaks_is_transferred_or_clipped():
    weights = spread_weights(12, 20, 100.0)  # far beyond the range
    bank = make(weights, "ideal")
    assert (bank.transfer_every, bank.pull, bank.leak_factor) == (0, 0.0, 1.0)
    bank.leak(80)
    bank.transfer(8000)
    np.testing.assert_array_equal(bank.read_out(), weights.ravel())


def test_without_effects_of_cells_converters_alone_round():
    weights = spread_weights(12, 20)
    ideal, rounded = make(weights, "ideal"), make(weights, "dac,adc")
    assert rounded.bank.law is None
    exact, codes = ideal.bank.forward(X), rounded.bank.forward(X)
    lsb = 20 * RANGE / 255 * np.abs(X).max(axis=1, keepdims=True)  # inputs have a range of their own
    assert 0 < np.abs(codes - exact).max() < lsb.max()
    np.testing.assert_allclose(codes / lsb, np.rint(codes / lsb), atol=1e-4)
    np.testing.assert_allclose(exact, X @ weights, atol=1e-6)


@pytest.mark.parametrize("name", ["isaac", "hermes64", "neurram", "puma"])
def test_chips_without_a_law_of_pulses_train_exactly_behind_their_converters(name):
    chip = load_chip(name)
    bank = make(spread_weights(12, 20), "dac,adc", chip)
    bank.bank.update(X, D, 0.1)
    assert bank.bank.forward(X).shape == (3, 20)


def test_a_bank_goes_on_from_its_arrays():
    first, second = make(spread_weights(12, 20), "ideal"), make(np.zeros((12, 20), np.float32), "ideal")
    first.bank.update(X, D, 0.1)
    second.restore(first.arrays())
    np.testing.assert_array_equal(first.read_out(), second.read_out())
    assert first.counters() == second.counters()


def test_the_weights_that_were_given_are_not_changed():
    weights = spread_weights(12, 20)
    before = weights.copy()
    for physics in ("ideal", "full"):
        make(weights, physics, NATURE).bank.update(X, D, 0.1)
    np.testing.assert_array_equal(weights, before)
