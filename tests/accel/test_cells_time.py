"""Time: drift and the growth of read noise obey their laws, and slow and fast noise add up to all of it.

Tolerances are five standard errors at the sample size used; distributions a Kolmogorov-Smirnov p-value of
1e-3. The seeds are fixed. Laws are written again here, from aihwkit's inference/noise/pcm.py and hermes.py.
"""

import dataclasses
import math

import numpy as np
import pytest
from scipy import integrate, stats

from pcmc.accel.cells import Devices, make_cell
from pcmc.accel.cells.pcm import drift_factor, law_of, mean_drift, noise_spectrum
from pcmc.accel.chip import load_chip
from pcmc.accel.random import stream
from pcmc.errors import ChipError

SPEC = load_chip("nature2018").cell
CELL = make_cell(SPEC)
SHAPE = (250, 400)
N = SHAPE[0] * SHAPE[1]
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
TIMES = [25.0, HOUR, DAY, 365 * DAY]


def rng(step=0):
    return stream(0, (0,), "time", step)


def law_of_nu(g):
    x = g / 25.0
    mean = min(max(-0.0155 * math.log(x) + 0.0244, 0.049), 0.1)
    return mean, min(max(-0.0125 * math.log(x) - 0.0059, 0.008), 0.045)


def pair(plus, minus=0.0, shape=SHAPE):
    return Devices(np.full(shape, plus, np.float32), np.full(shape, minus, np.float32))


def ramp(shape=(20, 50)):
    """Pairs programmed to everything from -60 to 60 uS."""
    return CELL.program(np.linspace(-60, 60, math.prod(shape), dtype=np.float32).reshape(shape), rng(1))


def conductance(devices):
    """G+ - G- that a read of aged devices finds, in uS, as one row."""
    return CELL.weights_us(devices).astype(np.float64).ravel() / SPEC.significance


def nu_of(g, at_s=DAY, n=N):
    factor = drift_factor(np.full(n, g / 25.0, np.float32), SPEC, at_s, rng())
    return -np.log(factor.astype(np.float64)) / math.log(at_s / 20.0)


# --- drift ---


@pytest.mark.parametrize("g", [0.05, 1.0, 3.0, 10.0, 20.0])
def test_drift_exponents_are_folded_normal_numbers_with_the_published_mean_and_deviation(g):
    mean, deviation = law_of_nu(g)
    nu = nu_of(g)
    law = stats.foldnorm(mean / deviation, scale=deviation)
    assert nu.mean() == pytest.approx(law.mean(), abs=5 * law.std() / math.sqrt(N))
    assert nu.var() / law.var() == pytest.approx(1, abs=5 * math.sqrt((law.stats("k") + 2) / N))
    assert stats.kstest(nu[:20_000], law.cdf).pvalue > 1e-3


def test_a_law_ten_per_cent_off_would_be_found():
    mean, deviation = law_of_nu(10.0)
    wrong = stats.foldnorm(1.1 * mean / deviation, scale=deviation)
    assert stats.kstest(nu_of(10.0)[:20_000], wrong.cdf).pvalue < 1e-9


@pytest.mark.parametrize("at_s", TIMES)
@pytest.mark.parametrize("g", [5.0, 10.0, 20.0])
def test_conductance_falls_by_the_power_law(g, at_s):
    mean, deviation = law_of_nu(g)
    found = conductance(CELL.age(pair(g), at_s, None, rng()))
    nu = -np.log(found / g) / math.log(at_s / 20.0)
    law = stats.foldnorm(mean / deviation, scale=deviation)
    # float32 rounds G(t) / G, which is close to 1 at 25 s, to 6e-8.
    rounding = 2e-7 / math.log(at_s / 20.0)
    assert nu.mean() == pytest.approx(law.mean(), abs=5 * law.std() / math.sqrt(N) + rounding)
    assert found.mean() == pytest.approx(g * CELL.mean_drift(at_s, g), abs=5 * found.std() / math.sqrt(N))


@pytest.mark.parametrize("at_s", TIMES)
@pytest.mark.parametrize("g", [0.05, 5.0, 20.0])
def test_mean_drift_is_the_integral_over_the_law_of_nu(g, at_s):
    mean, deviation = law_of_nu(g)
    span = math.log(at_s / 20.0)

    def integrand(nu):
        return math.exp(-span * abs(nu)) * stats.norm.pdf(nu, mean, deviation)

    ends = (mean - 12 * deviation, mean + 12 * deviation)
    integral = integrate.quad(integrand, *ends, points=[0.0, mean], epsabs=1e-12)[0]
    # The law is evaluated in float32, and its error multiplied by the span.
    assert mean_drift(g, SPEC, at_s) == pytest.approx(integral, rel=1e-7 * max(1.0, span))


def test_the_same_device_has_the_same_exponent_at_all_times():
    devices = ramp()
    there = devices.g_plus > 0
    exponents = [
        np.log(CELL.age(devices, at_s, None, rng()).g_plus[there] / devices.g_plus[there])
        / math.log(at_s / 20.0)
        for at_s in (HOUR, 365 * DAY)
    ]
    np.testing.assert_allclose(*exponents, rtol=1e-4, atol=1e-6)
    assert len(np.unique(exponents[0].round(6))) > 400


def test_both_devices_of_a_pair_drift_by_themselves():
    found = conductance(CELL.age(pair(10.0, 10.0), DAY, None, rng()))
    one = conductance(CELL.age(pair(10.0), DAY, None, rng()))
    assert abs(found.mean()) < 5 * found.std() / math.sqrt(N)
    assert found.var() / (2 * one.var()) == pytest.approx(1, abs=5 * math.sqrt(8 / N))


def test_nothing_has_drifted_at_the_first_read():
    devices = ramp()
    plain, drifted = CELL.age(devices, noise=rng(2)), CELL.age(devices, 20.0, rng(2), rng(3))
    assert np.array_equal(plain.g_plus, drifted.g_plus)
    assert np.array_equal(plain.g_minus, drifted.g_minus)
    assert np.array_equal(CELL.noise_variance(devices, 20.0), CELL.noise_variance(devices, 20.0, rng(3)))


def test_a_device_of_no_conductance_has_nothing_to_lose():
    aged = CELL.age(pair(0.0), 365 * DAY, rng(), rng(1))
    assert not aged.g_plus.any()
    assert not aged.g_minus.any()


def test_drift_without_a_law_is_refused():
    bare = make_cell(dataclasses.replace(SPEC, drift_mean=(), drift_deviation=()))
    with pytest.raises(ChipError, match=r"drift: the \[cell\] of kind 2pcm\+3t1c gives no law of it"):
        bare.age(pair(1.0, shape=(1, 3)), DAY, None, rng())
    with pytest.raises(ChipError, match=r"drift: the \[cell\] of kind 2pcm\+3t1c gives no law of it"):
        bare.noise_variance(pair(1.0, shape=(1, 3)), DAY, rng())
    with pytest.raises(ChipError, match="gives no law of it, drift_mean and drift_deviation"):
        bare.mean_drift(DAY)
    bare.age(pair(1.0, shape=(1, 3)), DAY)  # without drift it can be read


def test_read_noise_without_a_law_is_refused():
    quiet = make_cell(dataclasses.replace(SPEC, read_noise_scale=0.0))
    for act in (quiet.age, quiet.noise_variance):
        with pytest.raises(ChipError, match=r"read_noise: the \[cell\] of kind .* gives no law of it"):
            act(pair(1.0, shape=(1, 3)), DAY, rng())


@pytest.mark.parametrize("at_s", [19.9, 0.0, -5.0, math.nan, math.inf])
def test_times_outside_the_fit_are_refused_everywhere(at_s):
    for act in (
        lambda: CELL.age(pair(1.0, shape=(1, 3)), at_s, None, rng()),
        lambda: CELL.noise_variance(pair(1.0, shape=(1, 3)), at_s),
        lambda: CELL.mean_drift(at_s),
    ):
        with pytest.raises(ChipError, match="must be at least 20 s"):
            act()


# --- read noise in time ---


def sigma_read(g, at_s, lost=1.0):
    """aihwkit's: on the drifted conductance, with Q of the programmed one."""
    q = min(0.0088 / (g / 25.0) ** 0.65, 0.2)
    return g * lost * q * math.sqrt(math.log((at_s + 250e-9) / 500e-9))


@pytest.mark.parametrize("at_s", TIMES)
@pytest.mark.parametrize("g", [5.0, 20.0])
def test_read_noise_grows_with_time_on_the_drifted_conductance(g, at_s):
    clean = conductance(CELL.age(pair(g), at_s, None, rng()))
    noisy = conductance(CELL.age(pair(g), at_s, rng(1), rng()))
    unit_noise = (noisy - clean) / sigma_read(g, at_s, clean / g)
    assert unit_noise.mean() == pytest.approx(0.0, abs=5 / math.sqrt(N))
    assert unit_noise.var() == pytest.approx(1.0, abs=5 * math.sqrt(2 / N))
    assert stats.kstest(unit_noise[:20_000], stats.norm.cdf).pvalue > 1e-3


def test_noise_relative_to_the_conductance_grows_by_the_root_of_the_logarithm_of_time():
    relative = [
        math.sqrt(float(CELL.noise_variance(pair(10.0, shape=(1, 1)), at_s)[0, 0]))
        / (10.0 * SPEC.significance)
        for at_s in (20.0, 365 * DAY)
    ]
    expected = math.sqrt(math.log(365 * DAY / 500e-9) / math.log(20.0 / 500e-9))
    assert relative[1] / relative[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("drifting", [False, True])
@pytest.mark.parametrize("at_s", [20.0, HOUR])
@pytest.mark.parametrize(("plus", "minus"), [(10.0, 0.0), (0.1, 0.0), (12.0, 5.0)])
def test_the_variance_of_fast_noise_is_that_of_the_frozen_draw(plus, minus, at_s, drifting):
    devices = pair(plus, minus)
    clean = CELL.weights_us(CELL.age(devices, at_s, None, rng() if drifting else None))
    noisy = CELL.weights_us(CELL.age(devices, at_s, rng(1), rng() if drifting else None))
    variance = CELL.noise_variance(devices, at_s, rng() if drifting else None)
    if plus == 0.1:  # clipped at 0 in the draw, not in the variance
        assert variance.mean(dtype=np.float64) > (noisy - clean).var(dtype=np.float64)
        return
    unit_noise = (noisy - clean) / np.sqrt(variance)
    assert unit_noise.mean(dtype=np.float64) == pytest.approx(0.0, abs=5 / math.sqrt(N))
    assert unit_noise.var(dtype=np.float64) == pytest.approx(1.0, abs=5 * math.sqrt(2 / N))


@pytest.mark.parametrize("at_s", TIMES)
@pytest.mark.parametrize("split_s", [1e-9, 1e-6, 1e-3, 10.0, 1e6])
def test_slow_and_fast_noise_add_up_to_all_of_it(at_s, split_s):
    cell = make_cell(dataclasses.replace(SPEC, read_noise_split_s=split_s))
    devices = ramp((1, 101))
    everything, slow, fast = (
        cell.noise_variance(devices, at_s, rng(1), part) for part in ("all", "slow", "fast")
    )
    np.testing.assert_allclose(slow + fast, everything, rtol=1e-6)
    assert (slow >= 0).all()
    assert (fast >= 0).all()


def test_the_shares_of_slow_and_fast_noise_are_the_integrals_of_one_over_f():
    slow = integrate.quad(lambda u: 1.0, math.log(1 / (HOUR + 250e-9)), math.log(1 / 1e-3))[0]
    fast = integrate.quad(lambda f: 1 / f, 1e3, 1 / 500e-9, limit=200)[0]  # between the batch and the read
    assert noise_spectrum(SPEC, HOUR, "slow") == pytest.approx(slow, rel=1e-9)
    assert noise_spectrum(SPEC, HOUR, "fast") == pytest.approx(fast, rel=1e-6)
    assert noise_spectrum(SPEC, HOUR, "all") == pytest.approx(slow + fast, rel=1e-6)


def test_a_batch_longer_than_all_time_or_shorter_than_a_read_leaves_one_part_empty():
    long = dataclasses.replace(SPEC, read_noise_split_s=1e6)
    short = dataclasses.replace(SPEC, read_noise_split_s=1e-9)
    assert noise_spectrum(long, 20.0, "slow") == 0.0
    assert noise_spectrum(long, 20.0, "fast") == noise_spectrum(long, 20.0, "all")
    assert noise_spectrum(short, 20.0, "fast") == 0.0
    assert noise_spectrum(short, 20.0, "slow") == noise_spectrum(short, 20.0, "all")


def test_the_slow_part_is_drawn_with_the_slow_variance():
    read = CELL.weights_us(CELL.age(pair(10.0), HOUR, rng(), None, "slow")).astype(np.float64).ravel()
    variance = float(CELL.noise_variance(pair(10.0, shape=(1, 1)), HOUR, None, "slow")[0, 0])
    assert read.var() / variance == pytest.approx(1.0, abs=5 * math.sqrt(2 / N))
    assert stats.kstest(read[:20_000], stats.norm(30.0, math.sqrt(variance)).cdf).pvalue > 1e-3


# --- laws of two branches ---


def test_a_law_of_two_branches_is_a_clipped_logarithm_and_a_polynomial_above():
    x = np.array([0.0, 1e-9, 0.05, 0.0944, 0.0945, 0.5, 1.0, 1.3], np.float32)
    found = law_of(x, (-0.0387, -0.0182, 0.072, 0.13), (0.0945, 0.0736, -0.0126, -0.0436))

    def hermes(x):  # aihwkit, hermes.py, mean of nu
        if x < 0.0945:
            return min(max(-0.0387 * math.log(max(x, 1e-30)) - 0.0182, 0.072), 0.13)
        x = min(x, 1.0)
        return -0.0436 * x**2 - 0.0126 * x + 0.0736

    np.testing.assert_allclose(
        found, [hermes(value) for value in (0.0, 1e-9, 0.05, 0.0944, 0.0945, 0.5, 1.0, 1.3)], rtol=1e-5
    )
    assert np.isfinite(found).all()
