"""The two-tier cell in training: what a transfer does, in its order, with the statistics of its devices."""

import math
import tracemalloc

import numpy as np
import pytest
from effects_measures import BEYOND, ks, uniform
from scipy import integrate, stats
from trained_cells import NATURE, RANGE, UNIT, changed, make, spread_weights, two_blocks

from pcmc.accel.cells import TwoTierCell
from pcmc.accel.training.bfloat16 import widened

OFFSET = 2.0 / UNIT
STEP = 0.04 / UNIT
QUIET = "pulses,step_mismatch,pulse_noise,leak"
"""All of training, and PCM that is programmed and read exactly."""
WRITES = f"{QUIET},programming_error"
EXACT = "pulses,leak"


def flat(weights):
    return weights.ravel()


def sigma_prog(g):
    x = g / 25.0
    return 0.26348 + 1.9650 * x - 1.1731 * x * x


def low_tier(bank):
    """What the capacitors hold, in units of the weight."""
    return bank.arrays()["low"]


def add_to_low(bank, amount):
    """Let pulses have added so much to the low tier, in units of the weight."""
    bank.bank.law.low[:] += np.float32(amount)
    bank.bank.weights[:] += np.float32(bank.bank.sign * amount)


def wait(bank, examples=8000):
    for _ in range(examples // 80):
        bank.leak(80)


# --- programming ---


def test_exact_devices_hold_the_weights_and_the_offset_in_the_low_tier():
    weights = spread_weights(40, 30)
    bank = make(weights, EXACT)
    np.testing.assert_allclose(bank.read_out(), flat(weights), atol=1e-7)
    target = flat(weights) - OFFSET
    alone = (target > 0) & (target < OFFSET)  # weights of 2 to 4 uS: the low tier has them alone
    assert 5 < alone.sum() < 60
    wanted = np.where(alone, 0.0, target)
    np.testing.assert_allclose(bank.pair_only(), wanted, atol=1e-7)
    np.testing.assert_allclose(low_tier(bank), flat(weights) - wanted, atol=1e-7)
    held = bank.arrays()
    assert not held["g_plus"][alone].any()
    assert not held["g_minus"][alone].any()
    assert not (held["g_plus"] * held["g_minus"]).any()  # one of a pair is always at RESET


def test_tuning_ends_anywhere_in_a_step_of_the_cells_own():
    weights = spread_weights(200, 100)
    bank = make(weights, f"{WRITES}")
    devices = bank._devices
    low = low_tier(bank)
    inside = (low > widened(devices.low_min)) & (low < widened(devices.low_max))
    step = np.where(low > 0, widened(devices.up), widened(devices.down))
    missed = (bank.read_out() - flat(weights))[inside] / step[inside]
    assert inside.mean() > 0.98
    found = ks("uniform", missed.astype(np.float64) + 0.5, uniform)
    assert found.deviation < found.allowed + 2e-3  # float32 of weights: 3e-8 of 3e-4


def test_pairs_are_programmed_to_what_is_left_of_the_weight_with_the_error_of_the_cell():
    bank = make(spread_weights(200, 100), WRITES)
    reset = widened(bank._devices.reset).astype(np.float64)
    target_us = (flat(spread_weights(200, 100)) - OFFSET - reset) * UNIT / 3
    g = bank.arrays()["g_plus"]
    far = target_us > 4  # clipping at 0 plays no part
    assert ks("z", (g[far] - target_us[far]) / sigma_prog(target_us[far])).deviation < ks("z", g[far]).allowed
    other = bank.arrays()["g_minus"][far]  # at RESET: sigma_prog(0), half of it clipped away
    assert abs((other == 0).mean() - 0.5) < BEYOND * 0.5 / math.sqrt(far.sum())
    assert ks("half", stats.halfnorm.cdf(other[other > 0] / 0.26348), uniform).deviation < 0.03


@pytest.mark.parametrize(("g", "share"), [(5, 0.14), (10, 0.22), (15, 0.26)])
def test_a_device_overshoots_the_offset_as_often_as_its_statistics_say(g, share):
    """F sigma_prog against 2 uS: what low can't go down by from its middle of the road."""
    n = 40_000
    weights = np.full((n // 100, 100), (3 * g + 2) / UNIT, np.float32)
    bank = make(weights, "pulses,leak,programming_error")
    over = (bank.arrays()["g_plus"] - g) * 3 > 2.0
    wanted = stats.norm.sf(2.0 / (3 * sigma_prog(g)))
    assert abs(over.mean() - wanted) < BEYOND * math.sqrt(wanted / n)
    assert round(wanted, 2) == share
    # What matters is the pair: the other device, at RESET, takes some of it away.
    down = low_tier(bank) < -STEP

    def given(minus):
        return stats.norm.sf((2.0 + 3 * minus + 0.04) / (3 * sigma_prog(g))) * stats.norm.pdf(
            minus, 0, 0.26348
        )

    pair = integrate.quad(given, 0, 3)[0] + 0.5 * stats.norm.sf((2.0 + 0.04) / (3 * sigma_prog(g)))
    assert abs(down.mean() - pair) < BEYOND * math.sqrt(pair / n) + 0.003  # half a step of tuning
    assert pair < wanted


def test_what_is_beyond_the_range_of_a_pair_is_clipped_and_counted():
    weights = np.array([[0.7, 0.53, 0.1, -0.7, -0.48, -0.6]], np.float32)
    bank = make(weights, EXACT)
    counts = bank.counters()
    assert (counts["clipped_high"], counts["clipped_low"]) == (2, 2)  # targets are 2 uS, 0.017, lower
    np.testing.assert_allclose(bank.pair_only()[[0, 1, 3]], [0.5, 0.5, -0.5], atol=1e-7)
    high, low = 12.0 / UNIT, -4.0 / UNIT  # all that the low tier reaches
    np.testing.assert_allclose(bank.read_out()[[0, 3]], [0.5 + high, -0.5 + low], rtol=2**-8)
    assert counts["out_of_reach"] == 3  # 0.53 is reached, -0.6 and +-0.7 are not
    assert counts["weight_error"] == pytest.approx(
        math.sqrt(float(((bank.read_out() - flat(weights)) ** 2).mean())), rel=1e-5
    )


def test_out_of_reach_are_the_cells_that_missed_by_more_than_a_step():
    weights = spread_weights(300, 100)
    bank = make(weights, WRITES)
    missed = np.abs(bank.read_out() - flat(weights)) > 0.75 * STEP
    count = bank.counters()["out_of_reach"]
    assert count > 30
    assert missed.sum() == pytest.approx(count, rel=0.15)


# --- what the low tier does between transfers ---


def test_the_reference_goes_from_half_a_volt_to_0_593_in_an_interval():
    bank = make(spread_weights(4, 3), EXACT)
    per_volt = (15.2 - 8.0) / 0.3 / UNIT
    assert 0.8 + bank.pull / per_volt == pytest.approx(0.5, abs=1e-9)
    wait(bank)
    assert 0.8 + bank.pull / per_volt == pytest.approx(0.593, abs=5e-4)
    assert 0.8 + bank.pull / per_volt == pytest.approx(0.8 - 0.3 * math.exp(-1.92 / 5.16), abs=1e-6)


def test_what_the_low_tier_holds_decays_with_the_references_where_all_leak_alike():
    bank = make(spread_weights(20, 30), EXACT, changed(pulses={"leak_spread": 0.0}))
    before, pair = low_tier(bank), bank.pair_only()
    wait(bank)
    np.testing.assert_allclose(low_tier(bank), before * math.exp(-1.92 / 5.16), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(bank.read_out(), pair + low_tier(bank), atol=1e-6)


def test_a_cell_of_another_time_constant_drifts_off_its_reference():
    bank = make(np.zeros((200, 100), np.float32), "pulses,leak", changed(training={"offset_us": 0.0}))
    assert not low_tier(bank).any()
    wait(bank)
    interval = 80 * 240e-9
    tau = -interval / np.log1p(-widened(bank._devices.leak).astype(np.float64))
    gap = (8.0 - 15.2) / UNIT  # g = g(0.8 V) + gap exp(-t / tau): g - g_ref is the difference of two of these
    wanted = gap * (np.exp(-1.92e-3 / tau) - math.exp(-1.92 / 5.16))
    np.testing.assert_allclose(low_tier(bank), wanted, atol=2e-4 * abs(gap))
    assert wanted.std() > 4 * STEP


def test_the_threshold_of_a_read_transistor_does_not_leak():
    chip = changed(pulses={"leak_spread": 0.0}, training={"offset_us": 0.0})
    bank = make(np.zeros((30, 30), np.float32), "step_mismatch,leak", chip)
    reset = widened(bank._devices.reset)
    inside = np.abs(reset) * UNIT < 1
    np.testing.assert_allclose((low_tier(bank) + reset + bank.pair_only())[inside], 0, atol=1e-7)
    wait(bank)
    left = low_tier(bank) + reset + bank.pair_only()
    np.testing.assert_allclose(bank.read_out(), left, atol=1e-6)


# --- transfers ---


def test_a_transfer_moves_the_low_tier_to_the_pair_and_keeps_the_weight():
    weights = spread_weights(40, 50, 0.3)
    bank = make(weights, EXACT)
    add_to_low(bank, 5.0 / UNIT)
    before = bank.read_out()
    bank.transfer(8000)
    np.testing.assert_allclose(bank.read_out(), before, atol=1e-7)
    np.testing.assert_allclose(bank.pair_only() + bank.bank.sign * low_tier(bank), before, atol=1e-7)
    assert bank.bank.sign == -1
    usual = np.abs(bank.pair_only()) > 0
    np.testing.assert_allclose(low_tier(bank)[usual], OFFSET, atol=1e-6)  # up, whatever the polarity
    bank.transfer(16000)
    assert bank.bank.sign == 1
    np.testing.assert_allclose(bank.read_out(), before, atol=1e-7)


def test_the_error_of_the_pair_is_hidden_by_the_low_tier_until_that_leaks():
    weights = spread_weights(200, 100)
    bank = make(weights, "pulses,programming_error,leak", changed(pulses={"leak_spread": 0.0}))
    hidden, low = bank.read_out() - flat(weights), low_tier(bank)
    reached = np.abs(hidden) < STEP
    assert reached.mean() > 0.98
    lost = 1 - math.exp(-1.92 / 5.16)
    assert (lost * low)[reached].std() > 10 * STEP
    wait(bank)
    back = bank.read_out() - flat(weights)
    np.testing.assert_allclose(back[reached], hidden[reached] - lost * low[reached], atol=1e-5)


@pytest.mark.parametrize("inversion", [True, False])
def test_what_mismatch_adds_in_each_interval_cancels_over_two_only_with_inversion(inversion):
    """One pulse up and one down on each cell, over and over: nothing was wanted, and b adds 2 b steps."""
    chip = changed(
        pulses={"up_down_mismatch": 0.2, "step_spread": 0.0, "nonlinearity": 0.0, "nonlinearity_spread": 0.0},
        training={"inversion": inversion},
    )
    weights = spread_weights(3, 60, 0.3)
    bank = make(weights, "pulses,step_mismatch", chip)
    up, down = widened(bank._devices.up), widened(bank._devices.down)
    x, d = np.ones((2, 3), np.float32), np.ones((2, 60), np.float32)
    d[1] = -1
    start, pairs = bank.read_out(), 25
    for interval in (1, 2):
        for _ in range(pairs):
            bank.bank.update(x, d, bank.bank.law.step)  # a probability of 1 on both lines: one pulse each
        bank.transfer(interval * 8000)
    found = bank.read_out() - start
    bias = 2 * pairs * (up - down)
    np.testing.assert_allclose(found, 0 if inversion else bias, atol=1e-6 + 2 * STEP * 2**-8 * pairs)
    assert bias.std() > 10 * STEP
    counts = bank.counters()
    assert counts["pulses_up"] == counts["pulses_down"] == 2 * pairs * 180


def test_fast_noise_of_reads_comes_into_the_weight_with_each_transfer():
    weights = spread_weights(200, 100, 0.45)
    chip = changed(effects={"read_noise": "fast"}, pulses={"range_spread": 0.0})
    bank = make(weights, "pulses,read_noise", chip)
    before, first = widened(bank.bank.variances), bank.read_out()
    bank.transfer(8000)
    after = widened(bank.bank.variances)
    low = low_tier(bank) * UNIT
    inside = (low > -4) & (low < 12)
    z = (bank.read_out() - first)[inside] / np.sqrt((before + after)[inside])
    good = z[(before + after)[inside] > 0]
    assert abs(good.std() - 1) < BEYOND / math.sqrt(2 * good.size) + 0.01


def test_variances_are_those_of_the_devices_as_the_cell_gives_them():
    bank = make(spread_weights(50, 40), "full,read_noise=split")
    cell, held = TwoTierCell(NATURE.cell), bank.arrays()
    from pcmc.accel.cells import Devices

    devices = Devices(held["g_plus"].reshape(50, 40), held["g_minus"].reshape(50, 40))
    wanted = cell.noise_variance(devices, part="fast").ravel() / UNIT**2
    np.testing.assert_allclose(widened(bank.bank.variances), wanted, rtol=2**-8)
    assert make(spread_weights(5, 4), "full").bank.variances is None  # frozen: nothing is new at each read


def test_frozen_noise_is_drawn_once_a_programming_and_tuned_away_with_the_rest():
    weights = spread_weights(100, 100, 0.3)
    quiet, noisy = make(weights, "pulses,leak"), make(weights, "pulses,leak,read_noise")
    difference = noisy.pair_only() - quiet.pair_only()
    assert difference.std() > 3 * STEP
    assert np.median(np.abs(noisy.read_out() - flat(weights))) < 1e-6
    before = noisy.pair_only()
    noisy.transfer(8000)
    noisy.transfer(16000)  # the same targets again
    assert (noisy.pair_only() != before).mean() > 0.9


def test_stuck_devices_stay_where_they_are():
    chip = changed(cell={"stuck_low_fraction": 0.02, "stuck_high_fraction": 0.01})
    bank = make(spread_weights(200, 100, 0.3), "pulses,stuck", chip)
    high = bank.arrays()["g_plus"] == 20
    assert abs(high.mean() - 0.01) < BEYOND * math.sqrt(0.01 / 20_000)
    for transfer in range(3):
        bank.transfer(8000 * (transfer + 1))
        np.testing.assert_array_equal(bank.arrays()["g_plus"] == 20, high)


# --- options ---


def test_more_iterations_bring_pairs_within_what_is_verified_and_are_counted():
    plain = changed(training={"program_iterations": 1000, "verify_us": 0.5, "offset_us": 0.0})
    bank = make(spread_weights(40, 30, 0.4), "pulses,programming_error", plain)
    missed = (bank.pair_only() - flat(spread_weights(40, 30, 0.4))) * UNIT / 3
    assert np.abs(missed).max() <= 0.5001
    counts = bank.counters()
    assert counts["writes_max"] > 3
    assert counts["pcm_resets"] == round(2 * counts["writes_mean"] * 1200)
    few = changed(training={"program_iterations": 2, "verify_us": 0.5, "offset_us": 0.0})
    bank = make(spread_weights(40, 30, 0.4), "pulses,programming_error", few)
    assert bank.counters()["writes_max"] == 2
    assert 1.2 < bank.counters()["writes_mean"] < 1.8


def test_verified_devices_can_be_stuck_too():
    chip = changed(cell={"stuck_high_fraction": 0.05}, training={"program_iterations": 3, "verify_us": 0.5})
    once = changed(cell={"stuck_high_fraction": 0.05})
    verified, plain = (make(spread_weights(40, 30), "programming_error,stuck", one) for one in (chip, once))
    for name in ("g_plus", "g_minus"):
        stuck = verified.arrays()[name] == 20
        assert 20 < stuck.sum() < 110
        np.testing.assert_array_equal(stuck, plain.arrays()[name] == 20)


def test_an_offset_that_grows_with_sigma_makes_overshoots_rarer():
    weights = np.full((100, 100), 30 / UNIT, np.float32)
    shares = []
    for sigmas in (0.0, 2.0):
        bank = make(weights, "pulses,programming_error", changed(training={"offset_sigmas": sigmas}))
        shares.append(float((low_tier(bank) < -STEP).mean()))
    assert shares[0] > 0.15
    assert shares[1] < 0.02


def test_without_a_transfer_interval_there_is_none():
    assert make(spread_weights(3, 2), EXACT).transfer_every == 8000
    assert make(spread_weights(3, 2), EXACT, changed(training={"transfer_every": 0})).transfer_every == 0


def test_cells_that_are_not_trained_hold_their_weight_in_the_pair_alone():
    weights = spread_weights(40, 30)
    bank = make(weights, "full,-read_noise", trainable=False)
    assert (bank.trainable, bank.transfer_every, bank.bank.law) == (False, 0, None)
    np.testing.assert_array_equal(bank.read_out(), bank.pair_only())
    assert 0.5 < (bank.read_out() - flat(weights)).std() * UNIT / 3 < 1.1  # sigma_prog
    before = bank.read_out()
    bank.leak(80)
    np.testing.assert_array_equal(bank.read_out(), before)


# --- state ---


def test_a_bank_goes_on_from_its_arrays_to_the_bit():
    def go_on(bank):
        x, d = np.ones((3, 12), np.float32), np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 20)
        bank.bank.update(x, d, 0.01)
        bank.leak(80)
        bank.transfer(16000)
        return bank.arrays()

    weights = spread_weights(12, 20, 0.3)
    first = make(weights, "full,read_noise=split")
    first.bank.update(np.ones((1, 12), np.float32), np.ones((1, 20), np.float32), 0.01)
    first.leak(80)
    first.transfer(8000)
    held = first.arrays()
    second = make(np.zeros_like(weights), "full,read_noise=split")
    second.restore(held)
    wanted, found = go_on(first), go_on(second)
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert second.counters() == first.counters()


def test_one_more_block_leaves_the_others_alone_at_each_transfer():
    alone = make(spread_weights(12, 20, 0.3), WRITES)
    weights = np.concatenate([spread_weights(12, 20, 0.3).ravel(), np.zeros(60, np.float32)])
    both = make(weights, WRITES, blocks=two_blocks(12, 20, 5), places=((0, 0, 0, 0), (0, 1, 0, 0)))
    for example in (8000, 16000):
        alone.transfer(example)
        both.transfer(example)
    np.testing.assert_array_equal(both.read_out()[:240], alone.read_out())
    np.testing.assert_array_equal(both.pair_only()[:240], alone.pair_only())


def test_each_programming_errs_anew_and_a_seed_repeats_it():
    weights = spread_weights(20, 20, 0.3)
    one, same, other = (make(weights, WRITES, seed=seed) for seed in (3, 3, 4))
    first = one.pair_only()
    np.testing.assert_array_equal(first, same.pair_only())
    assert (first != other.pair_only()).mean() > 0.9
    one.transfer(1)
    one.transfer(2)
    assert (first != one.pair_only()).mean() > 0.9


def test_a_weight_takes_at_most_40_bytes():
    weights = spread_weights(513, 100)
    make(weights[:2], "full,read_noise=split")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    bank = make(weights, "full,read_noise=split")
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert held / bank.bank.weights.size < 40


def test_a_range_is_one_for_the_matrix():
    assert RANGE == 0.5
    bank = make(spread_weights(10, 10), EXACT, weight_range=2.0)
    np.testing.assert_allclose(bank.arrays()["g_plus"].max(), (0.4 - 2 / 30) / 2 * 20, rtol=1e-3)
