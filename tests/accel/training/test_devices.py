"""Capacitor cells in training: each parameter has the law that the chip file gives, and its own stream."""

import dataclasses
import math

import numpy as np
import pytest
from effects_measures import BEYOND, ks
from scipy import stats
from trained_cells import NATURE, UNIT, changed, layout

from pcmc.accel.training.bank import LEAK_EVERY
from pcmc.accel.training.bfloat16 import narrowed, widened
from pcmc.accel.training.devices import CapacitorRange, draw_capacitors, pulse_law

RANGE = CapacitorRange(4.0, 20.0, 8.0, 400, 5.16e-3)
STEP, HALF, MIDDLE = 0.04 / UNIT, 8.0 / UNIT, 4.0 / UNIT
ROWS, COLS = 513, 100
N = ROWS * COLS
ROUNDED = 2.0**-8
"""The largest relative error of a bfloat16, which has 8 bits."""


def drawn(physics="full", chip=NATURE, **options):
    return draw_capacitors(layout(chip, physics, ROWS, COLS, **options), chip.pulses, RANGE, UNIT)


DEVICES = drawn()


def has_law(values, mean, sigma):
    """Whether a sample is normal with this mean and deviation, but for rounding to bfloat16."""
    z = (np.asarray(values, np.float64) - mean) / sigma
    shifted = ROUNDED * (abs(mean) / sigma + BEYOND)  # by how much rounding moves a value, in deviations
    assert abs(z.mean()) < BEYOND / math.sqrt(z.size) + ROUNDED * abs(mean) / sigma / 8
    assert abs(z.std() - 1) < BEYOND / math.sqrt(2 * z.size) + shifted**2
    found = ks("law", z)
    assert found.deviation < found.allowed + stats.norm.pdf(0) * shifted


@pytest.mark.parametrize("name", ["up", "down"])
def test_steps_differ_by_their_spread_and_the_mismatch_of_up_and_down(name):
    has_law(widened(getattr(DEVICES, name)), STEP, STEP * math.hypot(0.10, 0.06))


def test_what_up_has_more_of_a_device_down_has_less():
    up, down = (widened(steps).astype(float) / STEP - 1 for steps in (DEVICES.up, DEVICES.down))
    covariance, wanted = float((up * down).mean()), -(0.06**2)
    assert abs(covariance - wanted) < BEYOND * (0.10**2 + 0.06**2) / math.sqrt(N)
    has_law(up - down, 0.0, math.hypot(math.sqrt(2) * 0.10, 2 * 0.06))


@pytest.mark.parametrize("name", ["up", "down"])
def test_slopes_are_the_nonlinearity_of_each_devices_own_step(name):
    slope, step = (widened(getattr(DEVICES, field)) for field in (f"slope_{name}", name))
    has_law(slope / step * HALF, 0.05, 0.01)


@pytest.mark.parametrize(("name", "end"), [("low_min", MIDDLE - HALF), ("low_max", MIDDLE + HALF)])
def test_the_range_of_each_device_ends_where_its_spread_says(name, end):
    has_law(widened(getattr(DEVICES, name)), end, 0.07 * HALF)


def test_voltages_after_a_reset_differ_by_their_spread():
    has_law(widened(DEVICES.reset), 0.0, 0.5 / UNIT)


def test_time_constants_of_the_leak_differ_by_their_spread():
    interval = LEAK_EVERY * 240e-9
    tau = -interval / np.log1p(-widened(DEVICES.leak).astype(float))
    has_law(tau, 5.16e-3, 0.10 * 5.16e-3)
    assert DEVICES.leak_mean == pytest.approx(1 - math.exp(-interval / 5.16e-3), rel=1e-12)


def test_parameters_of_a_device_are_independent_but_for_up_and_down():
    names = ("up", "slope_up", "slope_down", "low_min", "low_max", "leak", "reset")
    values = np.array([widened(getattr(DEVICES, name)) for name in names], np.float64)
    values[1] /= values[0]  # a slope belongs to its step
    values[2] /= widened(DEVICES.down)
    correlation = np.corrcoef(values) - np.eye(len(names))
    assert np.abs(correlation).max() < (BEYOND + 0.5) / math.sqrt(N)  # the largest of 21


def test_without_mismatch_all_devices_are_the_mean_and_up_is_down():
    plain = drawn("full,-step_mismatch")
    for name in ("up", "down"):
        assert set(widened(getattr(plain, name)).tolist()) == {plain.step}
    assert plain.step == pytest.approx(STEP, rel=ROUNDED)
    for name, wanted in (
        ("slope_up", 0.05 * STEP / HALF),
        ("low_min", MIDDLE - HALF),
        ("low_max", MIDDLE + HALF),
    ):
        (value,) = set(widened(getattr(plain, name)).tolist())
        assert value == pytest.approx(wanted, rel=ROUNDED)
    assert plain.reset is None
    assert plain.leak is not None  # its spread belongs to the leak


def test_without_leak_nothing_leaks_and_without_its_spread_all_leak_alike():
    dry = drawn("full,-leak")
    assert (dry.leak, dry.leak_mean) == (None, 0.0)
    alike = drawn(chip=changed(pulses={"leak_spread": 0.0}))
    assert alike.leak is None
    assert alike.leak_mean == DEVICES.leak_mean


def test_a_step_is_never_negative():
    wild = drawn(chip=changed(pulses={"step_spread": 1.0}))
    steps = widened(wild.up)
    assert steps.min() == 0
    assert abs(
        float((steps == 0).mean()) - stats.norm.sf(1 / math.hypot(1.0, 0.06))
    ) < BEYOND * 0.37 / math.sqrt(N)


def test_one_more_block_leaves_the_devices_of_the_others_alone():
    one = layout(NATURE, "full", 40, 30)
    blocks = np.array([[0, 0, 40, 30, 0, 0], [0, 30, 40, 7, 0, 1200]], np.int64)
    two = dataclasses.replace(one, blocks=blocks, places=((0, 0, 0, 0), (0, 1, 0, 0)), cols=37)
    alone, both = (draw_capacitors(of, NATURE.pulses, RANGE, UNIT) for of in (one, two))
    for field in ("up", "down", "slope_up", "slope_down", "low_min", "low_max", "leak", "reset"):
        np.testing.assert_array_equal(getattr(both, field)[:1200], getattr(alone, field))
        assert np.unique(getattr(both, field)[1200:]).size > 30  # a sign, an exponent and 7 bits


def test_another_seed_gives_other_devices_and_the_same_seed_the_same():
    again, other = drawn(), drawn(seed=1)
    np.testing.assert_array_equal(again.up, DEVICES.up)
    assert (other.up != DEVICES.up).mean() > 0.9


def test_the_law_of_the_kernels_is_that_of_the_devices():
    low = np.zeros(N, np.float32)
    law = pulse_law(DEVICES, low, 0.3)
    assert law.low is low
    assert (law.low_mid, law.noise, law.step, law.leak_mean) == (MIDDLE, 0.3, DEVICES.step, DEVICES.leak_mean)
    assert all(getattr(law, name) is getattr(DEVICES, name) for name in ("steps", "slopes", "bounds", "leak"))


def test_narrowing_rounds_to_the_nearest_and_ties_to_even():
    exact = np.array([0.0, -0.0, 1.0, -2.5, 3.0e38, 1e-30], np.float32)
    kept = widened(narrowed(exact))
    np.testing.assert_array_equal(kept[:4], exact[:4])
    np.testing.assert_allclose(kept, exact, rtol=2**-8)
    step = np.float32(2.0**-7)  # of bfloat16 from 1 to 2
    values = np.float32(1) + step * np.array([0.49, 0.5, 0.51, 1.5, 2.5], np.float32)
    np.testing.assert_array_equal(
        widened(narrowed(values)), np.float32(1) + step * np.float32([0, 0, 1, 2, 2])
    )
