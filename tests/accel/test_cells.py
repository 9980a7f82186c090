"""The cells obey their published laws: mean, variance, distribution, and a second lab's fit.

Tolerances of means, variances and shares are five standard errors at the sample size used, so a right program
fails once in some millions of seeds; of distributions, a Kolmogorov-Smirnov p-value of 1e-3. The seeds are
fixed.
"""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from pcmc.accel.cells import Devices, IdealCell, TwoTierCell, make_cell
from pcmc.accel.cells.pcm import add_programming_error, age
from pcmc.accel.chip import IdealCellSpec, load_chip
from pcmc.accel.random import stream
from pcmc.errors import ChipError

SPEC = load_chip("nature2018").cell
CELL = make_cell(SPEC)
SHAPE = (250, 400)
N = SHAPE[0] * SHAPE[1]


def rng(step=0):
    return stream(0, (0,), "test", step)


def block(value, shape=SHAPE):
    """Targets of one value each."""
    return np.full(shape, value, np.float32)


def sigma_prog(g):
    """The published polynomial, written again: Nandakumar 2020 as in aihwkit."""
    x = g / 25.0
    return 0.26348 + 1.9650 * x - 1.1731 * x**2


def sigma_read(g, at_s):
    """The published law, written again: t0 is part of at_s."""
    if g == 0:
        return 0.0
    return g * min(0.0088 / (g / 25.0) ** 0.65, 0.2) * math.sqrt(math.log((at_s + 250e-9) / (2 * 250e-9)))


def programmed(g):
    target = np.full(N, g, np.float32)
    add_programming_error(target, SPEC, rng())
    return target


def found(g, at_s=20.0):
    conductance = np.full(N, g, np.float32)
    age(conductance, SPEC, at_s, rng(), None)
    return conductance


def assert_gaussian(sample, mean, sigma):
    """Mean, variance and shape of an unclipped sample."""
    sample = sample.ravel()
    assert abs(sample.mean(dtype=np.float64) - mean) < 5 * sigma / math.sqrt(len(sample))
    assert sample.var(dtype=np.float64) / sigma**2 == pytest.approx(1.0, abs=5 * math.sqrt(2 / len(sample)))
    assert stats.kstest(sample[:20_000].astype(np.float64), stats.norm(mean, sigma).cdf).pvalue > 1e-3


# --- programming ---


@pytest.mark.parametrize("g", [5.0, 10.0, 15.0, 20.0])
def test_programming_error_is_gaussian_with_the_published_deviation(g):
    assert sigma_prog(g) < g / 6  # so that clipping at 0 plays no part
    assert_gaussian(programmed(g), g, sigma_prog(g))


@pytest.mark.parametrize("g", [0.0, 0.1, 0.5])
def test_programming_error_near_zero_is_clipped_at_zero(g):
    sample, sigma = programmed(g).astype(np.float64), sigma_prog(g)
    assert sample.min() == 0.0
    clipped = stats.norm.cdf(-g / sigma)
    assert np.mean(sample == 0.0) == pytest.approx(clipped, abs=5 * math.sqrt(clipped * (1 - clipped) / N))
    mean = g * (1 - clipped) + sigma * stats.norm.pdf(g / sigma)  # of max(0, N(g, sigma))
    assert sample.mean() == pytest.approx(mean, abs=5 * sigma / math.sqrt(N))


def test_device_at_reset_errs_with_the_mean_that_its_docstring_states():
    assert programmed(0.0).mean() == pytest.approx(
        0.26348 / math.sqrt(2 * math.pi), abs=5 * 0.27 / math.sqrt(N)
    )


def test_deviation_agrees_with_the_second_published_fit():
    # CrossSim, devices/custom/PCM_Joshi.py (Joshi 2020, same lab): G in uS, fitted from 0.25 to 25 uS.
    for g in np.linspace(0.0, 25.0, 26):
        joshi = -0.00178767 * g**2 + 0.07585724 * g + 0.28638599
        sample = np.full(1, g, np.float32)
        add_programming_error(sample, SPEC, FixedNormal(1.0))  # one standard deviation up, whatever that is
        ours = float(sample[0]) - g
        assert ours == pytest.approx(joshi, rel=0.012 if g >= 10 else 0.10), g


class FixedNormal:
    """A generator whose every normal number is the same: turns noise into its standard deviation."""

    def __init__(self, value):
        self.value = value

    def normal(self, n):
        return np.full(n, self.value, np.float32)


def test_programming_error_of_different_devices_is_independent():
    devices = CELL.program(block(30.0), rng())
    plus, minus = devices.g_plus.ravel(), devices.g_minus.ravel()
    same_cell = np.corrcoef(plus, minus)[0, 1]
    neighbours = np.corrcoef(plus[:-1], plus[1:])[0, 1]
    rows = np.corrcoef(devices.g_plus[:-1].ravel(), devices.g_plus[1:].ravel())[0, 1]
    assert abs(same_cell) < 5 / math.sqrt(N)
    assert abs(neighbours) < 5 / math.sqrt(N)
    assert abs(rows) < 5 / math.sqrt(N)


def test_exact_targets_put_each_sign_into_its_own_device():
    devices = CELL.program(np.array([[0.0, 30.0, -15.0], [60.0, -60.0, 3.0]], np.float32), None)
    assert devices.g_plus.tolist() == [[0.0, 10.0, 0.0], [20.0, 0.0, 1.0]]
    assert devices.g_minus.tolist() == [[0.0, 0.0, 5.0], [0.0, 20.0, 0.0]]


def test_targets_beyond_the_range_are_programmed_to_its_end():
    devices = CELL.program(np.array([[420.0, -60.06]], np.float32), None)
    assert devices.g_plus.tolist() == [[20.0, 0.0]]
    assert devices.g_minus.tolist() == [[0.0, 20.0]]


def test_the_device_that_stays_at_reset_errs_too():
    devices = CELL.program(block(30.0), rng())
    assert devices.g_minus.mean() == pytest.approx(
        0.26348 / math.sqrt(2 * math.pi), abs=5 * 0.27 / math.sqrt(N)
    )


# --- reading ---


@pytest.mark.parametrize("at_s", [20.0, 3600.0, 86_400.0 * 365])
@pytest.mark.parametrize("g", [5.0, 10.0, 20.0])
def test_read_noise_is_gaussian_with_the_published_deviation(g, at_s):
    sigma = sigma_read(g, at_s)
    assert sigma < g / 6  # so that clipping at 0 plays no part
    assert_gaussian(found(g, at_s), g, sigma)


@pytest.mark.parametrize("g", [0.01, 0.1, 0.2])
def test_read_noise_of_small_conductances_is_a_fifth_of_them_times_the_spectrum(g):
    sample = np.full(1, g, np.float32)
    age(sample, SPEC, 20.0, FixedNormal(1.0), None)
    assert float(sample[0]) == pytest.approx(g * (1 + 0.2 * math.sqrt(math.log(4e7 + 0.5))), rel=1e-5)


@pytest.mark.parametrize("g", [0.3, 1.0, 5.0, 12.5, 25.0])
def test_read_noise_follows_the_power_law_above(g):
    sample = np.full(1, g, np.float32)
    age(sample, SPEC, 20.0, FixedNormal(1.0), None)
    assert float(sample[0]) - g == pytest.approx(sigma_read(g, 20.0), rel=1e-4)


def test_a_device_of_no_conductance_has_no_read_noise():
    assert not found(0.0).any()


def test_read_conductances_are_clipped_at_zero_as_often_as_the_law_says():
    sample = found(0.2)
    assert sample.min() == 0.0
    clipped = stats.norm.cdf(-0.2 / sigma_read(0.2, 20.0))
    assert np.mean(sample == 0.0) == pytest.approx(clipped, abs=5 * math.sqrt(clipped * (1 - clipped) / N))


def test_a_read_without_noise_finds_the_programmed_targets_to_rounding():
    targets = ((rng().uniform(10_000) * 2 - 1) * 60).reshape(100, 100)
    devices = CELL.program(targets, None)
    read = CELL.weights_us(CELL.age(devices))
    assert read.dtype == np.float32
    # One rounding each in the division and the multiplication by F: two units in the last place.
    np.testing.assert_allclose(read, targets, rtol=2**-22, atol=0)


@pytest.mark.parametrize(("plus", "minus"), [(10.0, 0.0), (0.0, 10.0), (15.0, 6.0), (8.0, 8.0)])
def test_a_noisy_read_has_the_noise_of_both_devices_added_as_variances(plus, minus):
    devices = Devices(block(plus), block(minus))
    read = CELL.weights_us(CELL.age(devices, noise=rng()))
    sigma_us = math.hypot(sigma_read(plus, 20.0), sigma_read(minus, 20.0))
    assert_gaussian(read, (plus - minus) * SPEC.significance, sigma_us * SPEC.significance)


@pytest.mark.parametrize("significance", [1.0, 4.0])
def test_significance_scales_the_conductances_but_not_the_targets(significance):
    cell = TwoTierCell(dataclasses.replace(SPEC, significance=significance))
    devices = cell.program(block(6.0, (1, 1)), None)
    assert devices.g_plus[0, 0] == pytest.approx(6.0 / significance)
    assert cell.weights_us(devices)[0, 0] == pytest.approx(6.0, rel=1e-6)


def test_reading_leaves_the_devices_as_they_are_and_repeats_for_a_stream():
    devices = CELL.program(np.linspace(-60, 60, 1000, dtype=np.float32).reshape(20, 50), rng())
    before = devices.g_plus.copy(), devices.g_minus.copy()
    first, again, other = (CELL.weights_us(CELL.age(devices, noise=rng(step))) for step in (1, 1, 2))
    assert np.array_equal(before, (devices.g_plus, devices.g_minus))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_devices_that_nothing_changes_are_not_copied():
    devices = CELL.program(block(30.0, (3, 4)), rng())
    assert CELL.age(devices).g_plus is devices.g_plus
    assert CELL.age(devices, 3600.0).g_plus is devices.g_plus
    assert CELL.age(devices, 20.0, None, rng(1)).g_plus is devices.g_plus  # drift begins there


@pytest.mark.parametrize("at_s", [19.99, 0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_read_outside_the_fitted_times_is_refused(at_s, noisy):
    devices = CELL.program(block(0.0, (1, 3)), None)
    with pytest.raises(ChipError, match=r"must be at least 20 s"):
        CELL.age(devices, at_s, rng() if noisy else None)


# --- arrays ---


def test_noise_does_not_depend_on_how_large_networks_are_cut_into_pieces(monkeypatch):
    def run():
        devices = CELL.program(np.linspace(-60, 60, 1001, dtype=np.float32).reshape(7, 143), rng())
        return CELL.weights_us(CELL.age(devices, 3600.0, rng(1), rng(2)))

    whole = run()
    monkeypatch.setattr("pcmc.accel.cells.pcm._CHUNK", 10)
    np.testing.assert_allclose(run(), whole, rtol=1e-5, atol=1e-6 * 60)


@pytest.mark.parametrize("cell", [CELL, IdealCell(IdealCellSpec("ideal"))])
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (256, 256), (65_537, 1)])
def test_any_number_of_cells_and_read_only_targets_are_taken(cell, shape):
    targets = block(30.0, shape)
    targets.flags.writeable = False
    devices = cell.program(targets, rng())
    read = cell.weights_us(cell.age(devices, 20.0, rng(1)))
    assert read.shape == shape
    assert read.dtype == np.float32
    assert (targets == 30.0).all()


def test_devices_can_not_be_changed():
    mine = np.ones((1, 3), np.float32)
    devices = Devices(mine, mine, mine)
    for held in (devices.g_plus, devices.g_minus, devices.low):
        with pytest.raises(ValueError, match="read-only"):
            held[0, 0] = 2.0
    mine[0, 0] = 5.0  # the owner's array stays the owner's


def test_an_ideal_cell_holds_any_weight_exactly_without_copying_it():
    cell = make_cell(IdealCellSpec("ideal"))
    weights = np.array([[0.1, -3e38, 1e-45, 0.0, -0.0]], np.float32)
    devices = cell.program(weights, rng())
    read = cell.weights_us(cell.age(devices, 0.0, rng(), rng()))
    assert read.tobytes() == weights.tobytes()
    assert np.shares_memory(read, weights)
    assert not read.flags.writeable


def test_make_cell_gives_the_kind_that_the_chip_names():
    assert isinstance(CELL, TwoTierCell)
    assert (CELL.full_us, CELL.t0_s) == (60.0, 20.0)
    assert isinstance(make_cell(IdealCellSpec("ideal")), IdealCell)
    assert make_cell(IdealCellSpec("ideal")).full_us == 1.0
