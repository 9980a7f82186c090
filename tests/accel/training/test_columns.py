"""Two-tier cells that are transferred column by column do what whole arrays do, each column in its time."""

import numpy as np
import pytest
from effects_measures import BEYOND
from trained_cells import UNIT, changed, make, spread_weights, two_blocks

from pcmc.accel.training.bfloat16 import widened
from pcmc.accel.training.columns import TwoTierColumns

STEP = 0.04 / UNIT
COLUMNS = {"transfer": "columns"}
NO_COLUMN = slice(1000, 1001)


def low_tier(bank):
    return bank.arrays()["low"]


def test_columns_are_transferred_one_by_one_by_where_they_lie_in_their_tile():
    places = ((0, 0, 0, 10), (0, 1, 0, 0))
    weights = spread_weights(8, 7, 0.3).ravel()
    bank = make(weights, "pulses", changed(training=COLUMNS), blocks=two_blocks(8, 4, 3), places=places)
    assert isinstance(bank, TwoTierColumns)
    bank.bank.law.low[:] += np.float32(3 / UNIT)
    bank.bank.weights[:] += np.float32(3 / UNIT)
    before, low = bank.read_out(), low_tier(bank)
    bank.transfer(80, slice(11, 12))  # column 1 of the first block, and none of the second
    moved = (low_tier(bank) != low)[:32].reshape(8, 4)
    np.testing.assert_array_equal(moved.all(axis=0), [False, True, False, False])
    np.testing.assert_array_equal(low_tier(bank)[32:], low[32:])
    bank.transfer(160, slice(2, 3))
    assert not (low_tier(bank) != low)[32:].reshape(8, 3)[:, :2].any()
    np.testing.assert_allclose(bank.read_out(), before, atol=1e-7)
    np.testing.assert_array_equal(bank.arrays()["writes"][:32].reshape(8, 4)[0], [1, 2, 1, 1])
    np.testing.assert_array_equal(bank.arrays()["polarity"], [1, -1, 1, 1, 1, 1, -1])
    assert bank.counters()["transfers"] == 0
    bank.transfer(8000, slice(99, 100))
    assert bank.counters()["transfers"] == 1


@pytest.mark.parametrize("inversion", [True, False])
def test_columns_that_are_transferred_together_do_what_a_whole_array_does(inversion):
    weights, rng = spread_weights(20, 30, 0.3), np.random.default_rng(5)
    physics = "step_mismatch,leak"
    whole = make(weights, physics, changed(training={"inversion": inversion}))
    columns = make(weights, physics, changed(training=COLUMNS | {"inversion": inversion}))
    np.testing.assert_allclose(columns.read_out(), whole.read_out(), atol=1e-6)
    for example in range(80, 3 * 1600 + 1, 80):
        x, d = (rng.standard_normal((1, n)).astype(np.float32) for n in (20, 30))
        for bank in (whole, columns):
            bank.bank.update(x, d, 5e-4)
            bank.leak(80)
        last = example % 1600 == 0
        columns.transfer(example, None if last else NO_COLUMN)  # which lets columns leak to here
        if last:
            whole.transfer(example)
        np.testing.assert_allclose(columns.read_out(), whole.read_out(), atol=3e-6)
    assert np.abs(whole.read_out() - weights.ravel()).max() > 1e-3
    np.testing.assert_allclose(columns.pair_only(), whole.pair_only(), atol=3e-6)


@pytest.mark.parametrize("polarity", [1, -1])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_pulse_does_in_each_polarity_what_it_does_in_a_whole_array(polarity, direction):
    weights = spread_weights(20, 30, 0.3)
    physics = "pulses,step_mismatch"
    banks = [make(weights, physics), make(weights, physics, changed(training=COLUMNS))]
    changes = []
    for bank in banks:
        if polarity < 0:
            bank.transfer(8000)
        before = bank.read_out()
        step = bank.bank.law.step
        bank.bank.update(np.ones((1, 20), np.float32), np.full((1, 30), -direction, np.float32), step)
        changes.append(bank.read_out() - before)
    np.testing.assert_allclose(changes[1], changes[0], atol=2**-7 * STEP + 1e-7)
    assert (changes[0] * direction > 0).all()


def test_what_mismatch_adds_cancels_in_each_column_over_two_of_its_intervals():
    chip = changed(
        pulses={"up_down_mismatch": 0.2, "step_spread": 0.0, "nonlinearity": 0.0, "nonlinearity_spread": 0.0},
        training=COLUMNS,
    )
    bank = make(spread_weights(3, 4, 0.3), "pulses,step_mismatch", chip)
    bias = widened(bank._devices.up).astype(float) - widened(bank._devices.down)
    x, d = np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)
    d[1] = -1
    start = bank.read_out()
    for turn in range(8):  # columns 0, 1, 2, 3, 0, 1, 2, 3, each after 10 pairs of pulses
        for _ in range(10):
            bank.bank.update(x, d, bank.bank.law.step)
        bank.transfer(80 * (turn + 1), slice(turn % 4, turn % 4 + 1))
    # Column c had 10 (c + 1) pairs, then 40 reflected ones, then 10 (3 - c) again.
    found = (bank.read_out() - start).reshape(3, 4)
    np.testing.assert_allclose(found, 0, atol=1e-6 + 80 * STEP * 2**-8)
    assert np.abs(40 * bias).mean() > 10 * STEP * BEYOND / 10


def test_a_bank_goes_on_from_its_arrays_to_the_bit():
    def go_on(bank, first):
        for example in range(first, first + 400, 80):
            bank.bank.update(
                np.ones((2, 12), np.float32), np.linspace(-1, 1, 40).reshape(2, 20).astype("f4"), 0.01
            )
            bank.leak(80)
            bank.transfer(example, slice(example // 80 % 20, example // 80 % 20 + 1))
        return bank.arrays()

    weights, chip = spread_weights(12, 20, 0.3), changed(training=COLUMNS)
    first = make(weights, "full,read_noise=split", chip)
    go_on(first, 80)
    second = make(np.zeros_like(weights), "full,read_noise=split", chip)
    second.restore(first.arrays())
    wanted, found = go_on(first, 480), go_on(second, 480)
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert first.counters() == second.counters()


def test_stuck_devices_stay_where_they_are():
    chip = changed(cell={"stuck_high_fraction": 0.05}, training=COLUMNS)
    bank = make(spread_weights(40, 10, 0.3), "pulses,stuck", chip)
    stuck = bank.arrays()["g_plus"] == 20
    assert 4 < stuck.sum() < 50
    for col in range(10):
        bank.transfer(80 * (col + 1), slice(col, col + 1))
    np.testing.assert_array_equal(bank.arrays()["g_plus"] == 20, stuck)


def test_cells_that_are_not_trained_have_no_columns():
    bank = make(spread_weights(4, 5), "full", changed(training=COLUMNS), trainable=False)
    assert not isinstance(bank, TwoTierColumns)
