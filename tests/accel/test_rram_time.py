"""RRAM in time: both published laws hold in mean, variance and distribution, at the times of their sources.

Coefficients are written again, as aihwkit 1.2 prints them in inference/noise/reram.py. Tolerances of means
and variances are five standard errors; of distributions, a Kolmogorov-Smirnov p-value of 1e-3. Seeds are
fixed.
"""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from pcmc.accel.cell_specs import RramCellSpec
from pcmc.accel.cells import make_cell
from pcmc.accel.chip import load_chip
from pcmc.accel.random import stream
from pcmc.errors import ChipError

DAY = 86_400.0
SHAPE = (250, 400)
N = SHAPE[0] * SHAPE[1]

WAN_SPEC = load_chip("neurram-aged").cell
assert isinstance(WAN_SPEC, RramCellSpec)
WAN = make_cell(WAN_SPEC)
#: ReRamWan2022NoiseModel's coeff_dic, powers of G / 40 uS, the highest first.
WAN_COEFFICIENTS = {
    1.0: [-16.815, 45.393, -43.853, 16.030, 0.348],
    DAY: [-16.458, 47.095, -50.773, 22.086, 0.701],
    2 * DAY: [-11.934, 37.062, -43.507, 20.274, 0.782],
}

CMO_SPEC = load_chip("cmo-hfox").cell
assert isinstance(CMO_SPEC, RramCellSpec)
CMO = make_cell(CMO_SPEC)
FREE = make_cell(dataclasses.replace(CMO_SPEC, stays_in_range=False))


def rng(effect="d", step=0):
    return stream(0, (0,), effect, step)


def programmed(cell, g):
    """Pairs whose G+ is exactly `g`, in uS."""
    return cell.program(np.full(SHAPE, g - cell.spec.g_min_us, np.float32), None)


def sigma_wan(g, at_s):
    return float(np.polyval(WAN_COEFFICIENTS[at_s], g / 40))


def expect_normal(found, mean, sigma):
    found = found.astype(np.float64).ravel()
    assert found.mean() == pytest.approx(mean, abs=5 * sigma / math.sqrt(N))
    assert found.var() == pytest.approx(sigma**2, rel=5 * math.sqrt(2 / N))
    assert stats.kstest(found, stats.norm(mean, sigma).cdf).pvalue > 1e-3


@pytest.mark.parametrize("at_s", WAN_COEFFICIENTS)
@pytest.mark.parametrize("g", [12.0, 20.0, 40.0])
def test_a_table_of_errors_holds_at_its_times(g, at_s):
    found = WAN.age(programmed(WAN, g), at_s, None, rng()).g_plus
    expect_normal(found, g, sigma_wan(g, at_s))


@pytest.mark.parametrize("at_s", WAN_COEFFICIENTS)
def test_the_error_of_an_erased_device_is_clipped_at_zero(at_s):
    found = WAN.age(programmed(WAN, 20.0), at_s, None, rng()).g_minus.astype(np.float64)
    sigma = sigma_wan(1.0, at_s)
    below = stats.norm.cdf(0, 1.0, sigma)
    assert np.mean(found == 0) == pytest.approx(below, abs=5 * math.sqrt(below / N))
    mean = 1.0 * (1 - below) + sigma * stats.norm.pdf(1.0 / sigma)
    assert found.mean() == pytest.approx(mean, abs=5 * sigma / math.sqrt(N))


def test_the_first_read_has_the_error_of_the_first_time():
    devices = programmed(WAN, 20.0)
    assert WAN.t0_s == 1.0
    first = WAN.age(devices, None, None, rng()).g_plus
    assert (first == WAN.age(devices, 1.0, None, rng()).g_plus).all()
    expect_normal(first, 20.0, sigma_wan(20.0, 1.0))


def test_between_the_times_of_a_table_the_deviation_is_linear_in_the_logarithm_of_time():
    at_s = 600.0
    weight = math.log(at_s) / math.log(DAY)
    sigma = (1 - weight) * sigma_wan(20.0, 1.0) + weight * sigma_wan(20.0, DAY)
    expect_normal(WAN.age(programmed(WAN, 20.0), at_s, None, rng()).g_plus, 20.0, sigma)


def test_a_device_keeps_its_own_number_at_all_times():
    devices = programmed(WAN, 20.0)
    early, late = (WAN.age(devices, at_s, None, rng()).g_plus - 20 for at_s in (1.0, DAY))
    assert np.allclose(late, early * sigma_wan(20.0, DAY) / sigma_wan(20.0, 1.0), atol=1e-4)


@pytest.mark.parametrize("at_s", [0.0, 0.99, 2 * DAY + 1, math.inf, math.nan])
def test_times_that_a_table_does_not_cover_are_refused(at_s):
    with pytest.raises(ChipError, match=r"read at .* s after programming: must be at (least|most)"):
        WAN.age(programmed(WAN, 20.0), at_s, None, rng())


def test_a_table_of_errors_is_not_added_to_another_error_of_programming():
    assert WAN_SPEC.effects == ("drift",)
    with pytest.raises(ChipError, match=r"programming_error: the \[cell\] of kind rram gives no law of it"):
        WAN.program(np.zeros((2, 2), np.float32), rng())


def test_without_drift_nothing_changes():
    devices = programmed(CMO, 40.0)
    assert CMO.age(devices, DAY) is devices


@pytest.mark.parametrize("g", [9.0, 40.0, 88.2])
def test_programming_of_cmo_devices_misses_by_the_published_line(g):
    found = CMO.program(np.full(SHAPE, g - 9.0, np.float32), rng("p")).g_plus
    expect_normal(found, g, 0.0112185391 + 0.01129027418 * g)


@pytest.mark.parametrize("at_s", [1.0, 3600.0, DAY, 365 * DAY])
@pytest.mark.parametrize("g", [20.0, 60.0])
def test_cmo_devices_relax_as_published_whatever_they_conduct(g, at_s):
    found = FREE.age(programmed(FREE, g), at_s, None, rng()).g_plus
    expect_normal(found, g - 0.08900206 * math.log(at_s), 0.04201137 * math.log(at_s) + 0.41183342)


@pytest.mark.parametrize("at_s", [1.0, DAY])
@pytest.mark.parametrize("g", [20.0, 88.2])
def test_read_noise_of_cmo_devices_is_the_published_law(g, at_s):
    sigma = 0.0277316483 * math.log10(g) * math.sqrt(math.log((at_s + 1e-6) / 2e-6))
    devices = programmed(FREE, g)
    expect_normal(FREE.age(devices, at_s, rng("n")).g_plus, g, sigma)
    plus, _ = FREE.device_variances(devices, at_s)
    np.testing.assert_allclose(plus, sigma**2, rtol=1e-5)


def test_read_noise_follows_the_relaxed_conductance():
    devices = programmed(FREE, 30.0)
    relaxed = FREE.age(devices, DAY, None, rng())
    now, _ = FREE.device_variances(relaxed, DAY)
    then, _ = FREE.device_variances(devices, DAY, rng())
    np.testing.assert_allclose(then, now, rtol=1e-5)


def test_slow_and_fast_noise_of_cmo_devices_add_up_to_all_of_it():
    devices = programmed(CMO, 30.0)
    slow, fast, whole = (CMO.noise_variance(devices, DAY, None, part) for part in ("slow", "fast", "all"))
    assert slow.min() > 0
    assert fast.min() > 0
    np.testing.assert_allclose(slow + fast, whole, rtol=1e-5)


def test_the_variance_of_a_weight_is_that_of_both_of_its_devices():
    devices = programmed(CMO, 30.0)
    np.testing.assert_allclose(
        CMO.noise_variance(devices, DAY), sum(CMO.device_variances(devices, DAY)), rtol=1e-6
    )


def test_devices_below_a_microsiemens_have_no_read_noise_by_this_law():
    cell = make_cell(dataclasses.replace(CMO_SPEC, g_min_us=0.0, stays_in_range=False))
    devices = cell.program(np.full(SHAPE, 0.5, np.float32), None)
    assert (cell.age(devices, DAY, rng("n")).g_plus == np.float32(0.5)).all()


@pytest.mark.parametrize("at_s", [1.0, DAY])
def test_cmo_devices_stay_in_their_range(at_s):
    found = CMO.age(programmed(CMO, 88.2), at_s, rng("n"), rng())
    for g in (found.g_plus, found.g_minus):
        assert g.min() >= np.float32(9.0)
        assert g.max() <= np.float32(88.2)
    assert np.mean(found.g_plus == np.float32(88.2)) > 0.05


@pytest.mark.parametrize("at_s", [0.0, 0.5, -1.0, math.inf, math.nan])
def test_nothing_is_said_of_cmo_devices_before_the_first_read(at_s):
    with pytest.raises(ChipError, match=r"must be at least 1 s"):
        CMO.age(programmed(CMO, 40.0), at_s, None, rng())


def test_neurram_itself_has_no_law_of_time():
    cell = make_cell(load_chip("neurram").cell)
    devices = programmed(cell, 20.0)
    assert cell.age(devices, DAY) is devices
    with pytest.raises(ChipError, match=r"drift: the \[cell\] of kind rram gives no law of it"):
        cell.age(devices, DAY, None, rng())
    assert not cell.noise_variance(devices, DAY).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"programming_error_us": (1.0,)}, r"programming_error_us = \[1\.0\]: must be given, or else"),
        ({"error_times_s": ()}, r"programming_error_us = \[\]: must be given, or else"),
        ({"error_times_s": (1.0, 5.0, 5.0)}, r"error_times_s = .*: must ascend"),
        ({"error_at_times_us": (0.3, 0.4)}, r"error_at_times_us = .*: must be as many coefficients"),
        ({"error_at_times_us": (0.3, -0.4, 0.5)}, r"error_at_times_us = \[-0\.4\]: must not give a negative"),
        ({"t0_s": 0.5}, r"t0_s = 0\.5: must be one of error_times_s or between them"),
        (
            {"relaxation_mean_us": (0.0, 0.0), "relaxation_deviation_us": (0.1, 0.0)},
            r"relaxation_mean_us = .*: must be left out where error_times_s is given",
        ),
    ],
)
def test_a_table_that_contradicts_something_is_refused_by_name(change, message):
    with pytest.raises(ChipError, match=message):
        dataclasses.replace(WAN_SPEC, **change).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relaxation_mean_us": ()}, r"relaxation_mean_us = \[\]: must be offset and slope"),
        (
            {"relaxation_deviation_us": (0.1,)},
            r"relaxation_deviation_us = \[0\.1\]: must be offset and slope",
        ),
        ({"relaxation_deviation_us": (-0.1, 0.1)}, r"relaxation_deviation_us = .*: must not be negative"),
        ({"relaxation_deviation_us": (0.1, -0.1)}, r"relaxation_deviation_us = .*: must not be negative"),
        ({"t0_s": 0.0}, r"t0_s = 0: must be more than 0"),
        ({"t_read_s": 0.0}, r"t_read_s = 0: must be more than 0 and at most t0_s"),
    ],
)
def test_a_relaxation_that_contradicts_something_is_refused_by_name(change, message):
    with pytest.raises(ChipError, match=message):
        dataclasses.replace(CMO_SPEC, **change).check()
