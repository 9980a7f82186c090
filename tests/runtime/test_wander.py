"""Slow noise as time goes on: standard normal at each time, correlated between times as Lorentzians are."""

import math

import builders
import numpy as np
import pytest
from scipy import stats

import pcmc
from pcmc.accel.physics import Physics
from pcmc.runtime.wander import bands, slow_noise

N = 40


def numbers(places: int, clock_s: float, longest: float = 20.0) -> np.ndarray:
    """`[places, N]`: each place has moments of its own."""
    return np.stack([slow_noise(1, (p,), 1e-3, longest, clock_s).normal(N) for p in range(places)])


@pytest.mark.parametrize("clock_s", [0.0, 0.37, 1e6])
def test_at_each_time_it_is_standard_normal_and_independent_between_devices(clock_s):
    found = numbers(200, clock_s)
    assert stats.kstest(found.ravel(), "norm").pvalue > 1e-3
    correlations = np.corrcoef(found.T)[np.triu_indices(N, 1)]
    assert np.abs(correlations).max() < 5 / math.sqrt(200)


@pytest.mark.parametrize("dt", [1e-4, 3e-3, 0.1, 2.0, 100.0])
def test_two_times_are_correlated_as_the_lorentzians_between_them(dt):
    """corr(t, t + dt) = sum of w_k exp(-dt / tau_k); the moments of a place are shared, so places count."""
    places = 1500
    first, second = numbers(places, 5.0), numbers(places, 5.0 + dt)
    per_place = np.mean(first * second, axis=1)
    wanted = sum(weight * math.exp(-dt / tau) for tau, weight in bands(1e-3, 20.0))
    assert abs(per_place.mean() - wanted) < 4 * per_place.std() / math.sqrt(places) + 1e-9


def test_bands_cover_the_time_two_a_decade_and_stand_still_as_it_grows():
    taus, weights = zip(*bands(1e-3, 20.0), strict=True)
    assert len(taus) == math.ceil(2 * math.log10(20.0 / 1e-3))
    assert sum(weights) == pytest.approx(1.0)
    later, _ = zip(*bands(1e-3, 2e6), strict=True)
    assert later[: len(taus)] == taus
    # a sum of Lorentzians, two a decade, is 1/f: its spectrum times f is flat to 10 % within the range
    f = np.logspace(math.log10(1 / (2 * math.pi * 3)), math.log10(1 / (2 * math.pi * 6e-3)), 50)
    spectrum = sum(w * 2 * tau / (1 + (2 * math.pi * f * tau) ** 2) for tau, w in bands(1e-3, 20.0))
    assert np.ptp(f * spectrum) / np.mean(f * spectrum) < 0.15


def session(kind: str, interval: float | str = 0.0) -> pcmc.Session:
    program = pcmc.compile(builders.mlp([60, 40], bias=False))
    return pcmc.Session(program, Physics(read_noise=kind), seed=2, interval=interval)


def read(one: pcmc.Session) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((4, 60)).astype(np.float32)
    return np.asarray(one.run(None, {"x": x})[0], np.float64)


def test_slow_noise_wanders_from_batch_to_batch_and_frozen_noise_is_drawn_anew():
    """Between times the slow part keeps what its Lorentzians keep; a long time leaves nothing."""
    ideal = read(pcmc.Session(pcmc.compile(builders.mlp([60, 40], bias=False))))
    one = session("split")
    # the fast part is averaged away over many reads at each time
    at = {}
    for name, wait in (("start", 0.0), ("soon", 1e-5), ("late", 1e6)):
        one.wait(wait)
        at[name] = np.mean([read(one) for _ in range(200)], axis=0) - ideal
    same = np.corrcoef(at["start"].ravel(), at["soon"].ravel())[0, 1]
    other = np.corrcoef(at["start"].ravel(), at["late"].ravel())[0, 1]
    assert same > 0.9
    assert abs(other) < 0.5
    frozen = session("frozen")
    first = read(frozen)
    np.testing.assert_array_equal(read(frozen), first)
    frozen.wait("1h")
    assert np.abs(read(frozen) - first).max() > 0


def test_an_interval_between_runs_is_the_same_as_waiting():
    waiting, timed = session("split"), session("split", interval="50ms")
    read(waiting)
    read(timed)
    waiting.wait(0.05)
    np.testing.assert_array_equal(read(waiting), read(timed))
    assert timed.at_s == pytest.approx(20.05)


def test_reprogramming_misses_the_targets_in_another_way_and_starts_time_again():
    program = pcmc.compile(builders.mlp([60, 40], bias=False))
    one = pcmc.Session(program, Physics(programming_error=True, drift=True), seed=2, at="1h")
    first, held = read(one), one.state
    one.wait("1d")
    drifted = read(one)
    one.reprogram()
    again = read(one)
    assert one.at_s == 3600.0
    assert np.abs(drifted).sum() < np.abs(again).sum()
    assert np.abs(again - first).max() > 1e-3
    assert one.state.banks["dense0"].writes == 2
    assert not np.array_equal(one.state.banks["dense0"].devices.g_plus, held.banks["dense0"].devices.g_plus)


def test_a_session_makes_its_devices_again_rather_than_keep_them():
    one = session("frozen")
    np.testing.assert_array_equal(
        one.state.banks["dense0"].devices.g_plus, one.state.banks["dense0"].devices.g_plus
    )
    assert not any(isinstance(value, pcmc.runtime.state.ChipState) for value in vars(one).values())
