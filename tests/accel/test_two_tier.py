"""Both tiers right after programming: the low one holds what the pair has missed, within a step, and leaks.

Tolerances are five standard errors at the sample size used; distributions a Kolmogorov-Smirnov p-value of
1e-3. The seeds are fixed.
"""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from pcmc.accel.cells import TwoTierCell, make_cell
from pcmc.accel.chip import load_chip
from pcmc.accel.random import stream
from pcmc.errors import ChipError

SPEC = load_chip("nature2018").cell
CELL = make_cell(SPEC)
SHAPE = (250, 400)
N = SHAPE[0] * SHAPE[1]
STEP = 16.0 / 400  # uS: 4 to 20 uS in 400 steps
DOWN, UP = np.float32(-4.0), np.float32(12.0)  # g - g_ref at the ends, the reference being 8 uS
TAU = 5.16e-3


def rng(step=0):
    return stream(0, (0,), "two_tier", step)


def block(value, shape=SHAPE):
    return np.full(shape, value, np.float32)


def tuned(target, exact=False):
    """Pairs with their errors, and the low tier tuned with or without the error of a step."""
    return CELL.tune_low(CELL.program(target, rng()), target, None if exact else rng(1))


def pair_us(devices):
    return SPEC.significance * (devices.g_plus - devices.g_minus)


def inside(devices):
    """Where the low tier is not at an end of its range."""
    return (devices.low > DOWN) & (devices.low < UP)


# --- right after programming ---


def test_a_low_tier_tuned_exactly_makes_up_for_all_that_the_pair_missed():
    target = np.linspace(-60, 60, N, dtype=np.float32).reshape(SHAPE)
    devices = tuned(target, exact=True)
    error = CELL.weights_us(devices) - target
    assert np.count_nonzero(inside(devices)) > 0.8 * N
    assert np.abs(error[inside(devices)]).max() < 2e-5  # rounding of 60 uS
    assert np.abs(pair_us(devices) - target).std() > 1.0  # there was something to make up for


@pytest.mark.parametrize("target", [30.0, -15.0, 0.0])
def test_the_error_of_a_weight_is_uniform_over_one_step(target):
    devices = tuned(block(target))
    error = (CELL.weights_us(devices) - np.float32(target))[inside(devices)].astype(float)
    assert np.abs(error).max() <= STEP / 2 + 1e-5
    assert error.mean() == pytest.approx(0.0, abs=5 * STEP / math.sqrt(12 * len(error)))
    assert error.var() / (STEP**2 / 12) == pytest.approx(1, abs=5 * math.sqrt(0.8 / N))  # kurtosis 1.8
    assert stats.kstest(error[:20_000], stats.uniform(-STEP / 2, STEP).cdf).pvalue > 1e-3


def test_the_error_is_much_smaller_than_that_of_the_pair_alone():
    # sigma_prog(10 uS) is 0.86 uS and counts three times; the erased device adds to it.
    devices = tuned(block(15.0))
    held = inside(devices)
    both, alone = (CELL.weights_us(devices) - 15.0)[held], (pair_us(devices) - 15.0)[held]
    assert alone.std() / both.std() > 100


@pytest.mark.parametrize("target", [30.0, -30.0])
def test_what_is_beyond_the_range_of_the_low_tier_stays_at_its_end_as_often_as_the_law_says(target):
    devices = tuned(block(target))
    low = devices.low
    assert low.min() == DOWN
    assert low.max() <= UP
    missed = target - pair_us(devices)
    far = missed < DOWN - STEP / 2
    assert (low[far] == DOWN).all()
    assert (low[(missed > DOWN + STEP / 2) & (missed < UP - STEP / 2)] > DOWN).all()
    error = CELL.weights_us(devices) - np.float32(target)
    # Up to the half step of tuning, the whole rest of the miss is in the weight.
    np.testing.assert_allclose(error[far], (float(DOWN) - missed)[far], atol=2e-5)
    share = beyond_share(abs(target) / 3, -4.0 if target > 0 else 4.0)
    assert share > 0.03
    assert np.mean(low == DOWN) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / N) + 2e-4)


def beyond_share(g, end):
    """How often F times the error of a pair at (g, 0), from quantiles of both devices, is beyond `end`."""
    quantiles = (np.arange(600) + 0.5) / 600
    x = g / 25.0
    error = (0.26348 + 1.9650 * x - 1.1731 * x**2) * stats.norm.ppf(quantiles)[:, None]
    other = np.maximum(0, 0.26348 * stats.norm.ppf(quantiles))[None, :]
    wanted = -3.0 * (error - other)
    # A step of 0.04 uS moves the border by at most 0.02 uS, to both sides alike.
    return float(np.mean(wanted < end if end < 0 else wanted > end))


def test_the_low_tier_reaches_beyond_the_range_of_the_pair():
    target = np.array([[66.0, -63.0, 80.0, -80.0]], np.float32)
    devices = CELL.tune_low(CELL.program(target, None), target, None)
    np.testing.assert_allclose(CELL.weights_us(devices), [[66.0, -63.0, 72.0, -64.0]])


def test_stuck_devices_of_the_pair_are_made_up_for_within_the_range():
    spec = dataclasses.replace(SPEC, stuck_low_fraction=0.2)
    cell = TwoTierCell(spec)
    target = block(9.0)
    devices = cell.program(target, None, rng(2))
    lost = devices.g_plus == 0.0
    assert 0.15 * N < np.count_nonzero(lost) < 0.25 * N
    found = cell.weights_us(cell.tune_low(devices, target, None))
    np.testing.assert_allclose(found, target, rtol=1e-6)


def test_tuning_leaves_pairs_and_targets_as_they_are_and_repeats_for_a_stream():
    target = block(30.0, (20, 50))
    pair = CELL.program(target, rng())
    before = pair.g_plus.copy(), pair.g_minus.copy()
    first, again, other = (CELL.tune_low(pair, target, rng(step)) for step in (1, 1, 2))
    assert np.array_equal(first.low, again.low)
    assert not np.array_equal(first.low, other.low)
    assert np.array_equal(before, (pair.g_plus, pair.g_minus))
    assert pair.low.size == 0
    assert first.low.shape == (20, 50)
    assert first.low.dtype == np.float32
    assert (target == 30.0).all()


# --- leak ---


@pytest.mark.parametrize("at_s", [0.0, 1e-6, 1.92e-3, TAU, 10 * TAU])
def test_the_low_tier_leaks_with_its_time_constant_where_drift_is_on(at_s):
    devices = tuned(np.linspace(-60, 60, 1000, dtype=np.float32).reshape(20, 50))
    aged = CELL.age(devices, at_s, None, rng(3))
    np.testing.assert_allclose(aged.low, devices.low * math.exp(-at_s / TAU), rtol=1e-6)
    expected = pair_us(devices) + devices.low * math.exp(-at_s / TAU)
    np.testing.assert_allclose(CELL.weights_us(aged), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("at_s", [0.0, TAU])
def test_without_drift_the_low_tier_keeps_what_it_holds(at_s):
    devices = tuned(block(30.0, (20, 50)))
    assert CELL.age(devices, at_s) is devices


def test_a_third_of_the_low_tier_is_gone_after_a_transfer_interval():
    # 31.1 % in 1.92 ms: Nature 2018, ED1, and the arithmetic of the time constant.
    devices = tuned(block(30.0, (20, 50)))
    aged = CELL.age(devices, 1.92e-3, None, rng(3))
    np.testing.assert_allclose(aged.low / devices.low, 1 - 0.311, atol=1e-3)


@pytest.mark.parametrize("at_s", [0.0, 1e-3])
def test_before_the_first_read_nothing_is_known_of_the_pair_so_nothing_happens_to_it(at_s):
    devices = tuned(block(30.0, (20, 50)))
    aged = CELL.age(devices, at_s, rng(2), rng(3))
    assert np.array_equal(aged.g_plus, devices.g_plus)
    assert np.array_equal(aged.g_minus, devices.g_minus)
    variance = CELL.noise_variance(devices, at_s, rng(3))
    for half in CELL.device_variances(devices, at_s, rng(3)):
        assert half.shape == devices.g_plus.shape
        assert not half.any()
    assert variance.shape == (20, 50)
    assert variance.dtype == np.float32
    assert not variance.any()


# --- later ---


@pytest.mark.parametrize("at_s", [None, 20.0, 3600.0])
@pytest.mark.parametrize("noisy", [False, True])
def test_from_the_first_read_on_the_pair_is_alone(at_s, noisy):
    pair = CELL.program(block(30.0, (20, 50)), rng())
    both = CELL.tune_low(pair, block(30.0, (20, 50)), rng(1))
    found, expected = (
        CELL.age(devices, at_s, rng(2) if noisy else None, rng(3) if noisy else None)
        for devices in (both, pair)
    )
    assert found.low.size == 0
    assert np.array_equal(CELL.weights_us(found), CELL.weights_us(expected))
    assert np.array_equal(CELL.noise_variance(both, at_s, rng(3)), CELL.noise_variance(pair, at_s, rng(3)))


@pytest.mark.parametrize("at_s", [10.001 * TAU, 1.0, 19.99, -1e-9, -1.0, math.nan, math.inf])
def test_between_the_leak_and_the_first_read_and_at_no_time_reads_are_refused(at_s):
    devices = tuned(block(30.0, (1, 3)))
    assert not CELL.low_tier_counts(at_s)
    for act in (lambda: CELL.age(devices, at_s, None, rng(3)), lambda: CELL.noise_variance(devices, at_s)):
        with pytest.raises(ChipError, match="must be at least 20 s"):
            act()


@pytest.mark.parametrize("at_s", [0.0, 1e-3, 10 * TAU])
def test_an_early_read_without_a_tuned_low_tier_is_refused(at_s):
    pair = CELL.program(block(30.0, (1, 3)), rng())
    assert CELL.low_tier_counts(at_s)
    for act in (lambda: CELL.age(pair, at_s, None, rng(3)), lambda: CELL.noise_variance(pair, at_s)):
        with pytest.raises(ChipError, match="must be at least 20 s"):
            act()


def test_the_first_read_unless_a_time_is_given_is_that_of_the_pair():
    assert CELL.t0_s == 20.0
    assert not CELL.low_tier_counts(None)
