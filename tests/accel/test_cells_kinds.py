"""Cells beside the default one: several pairs, two tiers, capacitor, RRAM, levels; and stuck devices in all.

Tolerances are five standard errors at the sample size used; distributions a Kolmogorov-Smirnov p-value of
1e-3. The seeds are fixed.
"""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from pcmc.accel.cell_specs import (
    CapacitorCellSpec,
    FourPcmCellSpec,
    IdealCellSpec,
    LevelCellSpec,
    PcmCellSpec,
    RramCellSpec,
)
from pcmc.accel.cells import (
    CapacitorCell,
    FourPcmCell,
    IdealCell,
    LevelCell,
    PcmPairCell,
    RramCell,
    TwoTierCell,
    make_cell,
)
from pcmc.accel.chip import load_chip
from pcmc.accel.random import stream
from pcmc.errors import ChipError

TWO_TIER = load_chip("nature2018").cell
SHARED = {
    field.name: getattr(TWO_TIER, field.name)
    for field in dataclasses.fields(PcmCellSpec)
    if field.name != "kind"
}
PAIR = PcmCellSpec(kind="2pcm", **SHARED)
FOUR = FourPcmCellSpec(kind="4pcm", **{**SHARED, "significance": 1.0})
CAPACITOR = CapacitorCellSpec(
    kind="3t1c", g_low_us=4.0, g_high_us=20.0, g_reference_us=12.0, steps=400, leak_tau_s=5.16e-3
)
RRAM = RramCellSpec(
    kind="rram",
    g_min_us=1.0,
    g_max_us=39.0,
    g_max_fit_us=39.26,
    programming_error_us=(1.053, 0.2374, -1.167e-2, 1.536e-4),
)
LEVELS = LevelCellSpec(kind="sram", bits=8)
IDEAL = IdealCellSpec("ideal")
SPECS = [TWO_TIER, PAIR, dataclasses.replace(PAIR, pairs=3), FOUR, CAPACITOR, RRAM, LEVELS, IDEAL]
KINDS = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{getattr(spec, 'pairs', 1)}")
N = 100_000


def rng(step=0):
    return stream(0, (0,), "kinds", step)


def unit(spec):
    """As runtime does it: a weight of 1 uses the full range."""
    return spec.significance * make_cell(spec).g_max


def sigma_prog(g):
    x = g / 25.0
    return 0.26348 + 1.9650 * x - 1.1731 * x**2


def clipped_normal(mean, sigma):
    """Mean and variance of max(0, N(mean, sigma))."""
    z = mean / sigma
    first = mean * stats.norm.cdf(z) + sigma * stats.norm.pdf(z)
    second = (mean**2 + sigma**2) * stats.norm.cdf(z) + mean * sigma * stats.norm.pdf(z)
    return first, second - first**2


def weights_as_found(spec, weight, n=N):
    cell = make_cell(spec)
    devices = cell.program(np.full(n, weight, np.float32), unit(spec), rng())
    return cell.read(devices, unit(spec), None).astype(np.float64)


# --- every kind ---


@KINDS
def test_weights_written_without_error_are_read_as_they_were(spec):
    cell = make_cell(spec)
    weights = np.round(rng().uniform(-1, 1, 1000) * 127).astype(np.float32) / np.float32(
        127
    )  # on 8-bit levels
    weights.flags.writeable = False
    devices = cell.program(weights, unit(spec), None)
    np.testing.assert_allclose(cell.read(devices, unit(spec), None), weights, rtol=2**-20, atol=2**-22)
    assert not devices.g_plus.flags.writeable
    assert devices.g_plus.dtype == devices.g_minus.dtype == np.float32


@KINDS
@pytest.mark.parametrize("n", [0, 1, 65_537])
def test_any_number_of_cells_gives_one_weight_and_one_variance_each(spec, n):
    cell = make_cell(spec)
    devices = cell.program(np.full(n, 0.5, np.float32), unit(spec), rng(), rng(1))
    for found in (cell.read(devices, unit(spec), None), cell.noise_variance(devices, unit(spec))):
        assert found.shape == (n,)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
    assert len(devices.g_plus) == n  # cells are rows, so that programs can cut and join them
    assert len(devices.g_minus) in (0, n)


@KINDS
@pytest.mark.parametrize("weights", [np.zeros(3), np.zeros((2, 2), np.float32), np.zeros((), np.float32)])
def test_other_arrays_than_float32_vectors_are_refused(spec, weights):
    with pytest.raises(TypeError, match="float32"):
        make_cell(spec).program(weights, 1.0, None)


@KINDS
def test_cells_programmed_together_or_in_pieces_are_cells_alike(spec):
    cell = make_cell(spec)
    weights = np.linspace(-1, 1, 100, dtype=np.float32)
    whole = cell.program(weights, unit(spec), None)
    parts = [cell.program(part, unit(spec), None) for part in (weights[:30], weights[30:])]
    assert np.array_equal(whole.g_plus, np.concatenate([part.g_plus for part in parts]))
    assert np.array_equal(whole.g_minus, np.concatenate([part.g_minus for part in parts]))


@KINDS
def test_weights_beyond_the_range_are_counted_and_end_at_its_end(spec):
    cell = make_cell(spec)
    weights = np.array([0.0, 1.0, -1.0, 2.5, -7.0, 1e30], np.float32)
    read = cell.read(cell.program(weights, unit(spec), None), unit(spec), None)
    if spec.kind == "ideal":
        assert cell.clipped(weights, unit(spec)) == 0
        return
    assert cell.clipped(weights, unit(spec)) == 3
    assert cell.clipped(weights[:3], unit(spec)) == 0
    reach = 2.0 if spec.kind == "4pcm" else 1.0  # of two tiers of equal significance
    np.testing.assert_allclose(read, [0, 1, -1, reach, -reach, reach], atol=1e-6)


@KINDS
def test_an_effect_that_a_cell_has_no_law_of_is_refused_when_read(spec):
    cell = make_cell(spec)
    devices = cell.program(np.zeros(3, np.float32), unit(spec), None)
    if spec.kind == "ideal":
        return
    if "read_noise" not in spec.effects:
        with pytest.raises(ChipError, match=r"read_noise: .* no law of it"):
            cell.read(devices, unit(spec), rng())
        assert not cell.noise_variance(devices, unit(spec)).any()
    if "drift" not in spec.effects:
        with pytest.raises(ChipError, match=r"drift: .* no law of it"):
            cell.read(devices, unit(spec), None, 1e3, rng())


# --- stuck devices ---


def stuck_spec(spec, low=0.0, high=0.0):
    return dataclasses.replace(spec, stuck_low_fraction=low, stuck_high_fraction=high)


@pytest.mark.parametrize("spec", [TWO_TIER, PAIR, RRAM, CAPACITOR, LEVELS], ids=lambda spec: spec.kind)
def test_as_many_devices_are_stuck_at_each_level_as_the_file_says(spec):
    spec = stuck_spec(spec, 0.02, 0.05)
    devices = make_cell(spec).program(np.full(N, 0.5, np.float32), unit(spec), None, rng())
    g = devices.g_plus
    levels = {"rram": (1.0, 39.0), "3t1c": (-8.0, 8.0), "sram": (-127.0, 127.0)}.get(spec.kind, (0.0, 20.0))
    for level, share in zip(levels, (0.02, 0.05), strict=True):
        found = np.mean(g == np.float32(level))
        assert found == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / N))
    others = g[(g != np.float32(levels[0])) & (g != np.float32(levels[1]))]
    assert len(np.unique(others)) == 1


def test_both_devices_of_a_pair_can_be_stuck_each_by_itself():
    spec = stuck_spec(PAIR, high=0.1)
    devices = PcmPairCell(spec).program(np.zeros(N, np.float32), unit(spec), None, rng())
    plus, minus = devices.g_plus == 20.0, devices.g_minus == 20.0
    assert np.mean(plus & minus) == pytest.approx(0.01, abs=5 * math.sqrt(0.01 * 0.99 / N))


def test_the_same_devices_are_stuck_at_each_programming():
    spec = stuck_spec(PAIR, low=0.3)
    first, second = (
        PcmPairCell(spec).program(np.full(1000, weight, np.float32), unit(spec), rng(step), rng(9))
        for step, weight in ((0, 0.5), (1, 0.8))
    )
    assert np.array_equal(first.g_plus == 0.0, second.g_plus == 0.0)
    assert 200 < np.count_nonzero(first.g_plus == 0.0) < 400


@pytest.mark.parametrize("spec", [PAIR, RRAM, CAPACITOR, LEVELS], ids=lambda spec: spec.kind)
def test_all_devices_may_be_stuck_or_none(spec):
    weights = np.linspace(-1, 1, 1000, dtype=np.float32)
    for low, high in ((1.0, 0.0), (0.0, 1.0)):
        stuck = stuck_spec(spec, low, high)
        devices = make_cell(stuck).program(weights, unit(spec), None, rng())
        assert len(np.unique(devices.g_plus)) == 1
    cell = make_cell(spec)
    assert np.array_equal(
        cell.program(weights, unit(spec), None, rng()).g_plus, cell.program(weights, unit(spec), None).g_plus
    )


def test_the_low_pair_makes_up_for_a_high_device_that_is_stuck():
    spec = stuck_spec(FOUR, low=0.01)
    cell = FourPcmCell(spec)
    devices = cell.program(np.full(N, 0.5, np.float32), unit(spec), None, rng())
    high_lost = devices.g_plus[:, 0] == 0.0
    low_works = devices.g_plus[:, 1] > 0.0
    read = cell.read(devices, unit(spec), None)
    assert np.count_nonzero(high_lost & low_works) > 500
    np.testing.assert_allclose(read[high_lost & low_works], 0.5, rtol=1e-6)


# --- several pairs ---


@pytest.mark.parametrize("pairs", [2, 4, 9])
def test_error_and_noise_of_a_weight_fall_with_the_root_of_the_number_of_pairs(pairs):
    one, many = PAIR, dataclasses.replace(PAIR, pairs=pairs)
    single, averaged = weights_as_found(one, 0.5), weights_as_found(many, 0.5)
    assert averaged.mean() == pytest.approx(single.mean(), abs=5 * single.std() * math.sqrt(2 / N))
    assert pairs * averaged.var() / single.var() == pytest.approx(1, abs=5 * math.sqrt(4 / N))
    cells = make_cell(one), make_cell(many)
    devices = [cell.program(np.full(1, 0.5, np.float32), unit(one), None) for cell in cells]
    noise = [
        float(cell.noise_variance(held, unit(one))[0]) for cell, held in zip(cells, devices, strict=True)
    ]
    assert pairs * noise[1] == pytest.approx(noise[0], rel=1e-5)


def test_drift_that_all_pairs_have_in_common_is_not_averaged_away():
    many = dataclasses.replace(PAIR, pairs=16)
    cell = make_cell(many)
    devices = cell.program(np.full(20_000, 0.5, np.float32), unit(many), None)
    found = cell.read(devices, unit(many), None, 86_400.0, rng())
    assert found.mean(dtype=np.float64) == pytest.approx(
        0.5 * cell.mean_drift(86_400.0, 10.0), abs=5 * float(found.std()) / math.sqrt(20_000)
    )


@pytest.mark.parametrize("spec", [dataclasses.replace(PAIR, pairs=3), FOUR], ids=lambda spec: spec.kind)
def test_the_variance_of_several_pairs_is_that_of_reads_with_noise_and_drift(spec):
    cell = make_cell(spec)
    devices = cell.program(np.full(N, 0.6, np.float32), unit(spec), rng())
    clean = cell.read(devices, unit(spec), None, 3600.0, rng(1))
    noisy = cell.read(devices, unit(spec), rng(2), 3600.0, rng(1))
    variance = cell.noise_variance(devices, unit(spec), 3600.0, rng(1))
    ratio = (noisy - clean).var(dtype=np.float64) / variance.mean(dtype=np.float64)
    # Small conductances are clipped at 0 in the draw and not in the variance.
    assert 0.97 < ratio < 1 + 5 * math.sqrt(2 / N)


# --- two tiers ---


def expected_residual(weight_us, significance):
    """Mean and variance in uS of the error that a low pair leaves, from the moments of clipped normals.

    The high pair errs by F (N(0, sigma(G)) - max(0, N(0, sigma(0)))); the low pair has that as its target.
    """
    g = weight_us / significance
    quantiles = (np.arange(400) + 0.5) / 400
    error = sigma_prog(g) * stats.norm.ppf(quantiles)[:, None]
    other = np.maximum(0, sigma_prog(0.0) * stats.norm.ppf(quantiles))[None, :]
    residual = (-significance * (error - other)).ravel()
    size, sign = np.abs(residual), np.sign(residual)
    main, main_variance = clipped_normal(size, sigma_prog(size))
    rest, rest_variance = clipped_normal(0.0, sigma_prog(0.0))
    mean = sign * (main - size - rest)
    return mean.mean(), (main_variance + rest_variance).mean() + mean.var()


@pytest.mark.parametrize("significance", [1.0, 3.0])
def test_the_low_pair_leaves_the_error_that_its_own_small_target_has(significance):
    spec = dataclasses.replace(FOUR, significance=significance)
    found = weights_as_found(spec, 0.5)
    mean, variance = expected_residual(10.0 * significance, significance)
    error_us = (found - 0.5) * unit(spec)
    # The quantiles of the expectation are exact to about a thousandth.
    assert error_us.mean() == pytest.approx(mean, abs=5 * math.sqrt(variance / N) + 1e-3)
    assert error_us.var() / variance == pytest.approx(1, abs=5 * math.sqrt(4 / N) + 5e-3)


@pytest.mark.parametrize("significance", [1.0, 3.0])
def test_two_tiers_err_less_than_one_by_the_expected_factor(significance):
    one = weights_as_found(dataclasses.replace(PAIR, significance=significance), 0.5)
    two = weights_as_found(dataclasses.replace(FOUR, significance=significance), 0.5)
    pair_variance = significance**2 * (sigma_prog(10.0) ** 2 + clipped_normal(0.0, sigma_prog(0.0))[1])
    residual_variance = expected_residual(10.0 * significance, significance)[1]
    expected = math.sqrt(pair_variance / residual_variance)
    assert expected == pytest.approx({1.0: 2.50, 3.0: 5.67}[significance], abs=0.01)
    assert one.std() / two.std() == pytest.approx(expected, rel=5 * math.sqrt(2 / N) + 3e-3)


def test_all_four_devices_drift_and_err():
    devices = FourPcmCell(FOUR).program(np.full(1000, -0.5, np.float32), unit(FOUR), rng())
    assert devices.g_plus.shape == devices.g_minus.shape == (1000, 2)
    flat = np.concatenate([devices.g_plus.ravel(), devices.g_minus.ravel()])
    assert len(np.unique(flat[flat > 0])) > 0.99 * np.count_nonzero(flat)


# --- capacitor ---


def test_a_capacitor_misses_its_target_by_up_to_half_a_step():
    error_us = (weights_as_found(CAPACITOR, 0.25) - 0.25) * 8.0
    step = 16.0 / 400
    assert stats.kstest(error_us[:20_000], stats.uniform(-step / 2, step).cdf).pvalue > 1e-3
    assert error_us.var() / (step**2 / 12) == pytest.approx(1, abs=5 * math.sqrt(0.8 / N))  # kurtosis 1.8


@pytest.mark.parametrize("at_s", [0.0, 1.92e-3, 5.16e-3, 0.1])
def test_a_capacitor_leaks_towards_its_reference_with_its_time_constant(at_s):
    cell = CapacitorCell(CAPACITOR)
    weights = np.array([0.5, -1.0, 0.0], np.float32)
    devices = cell.program(weights, unit(CAPACITOR), None)
    leaked = cell.read(devices, unit(CAPACITOR), None, at_s, rng())
    np.testing.assert_allclose(leaked, weights * math.exp(-at_s / 5.16e-3), rtol=1e-6)
    np.testing.assert_allclose(cell.read(devices, unit(CAPACITOR), None, at_s), weights, rtol=1e-6)


def test_a_third_of_a_capacitors_weight_is_gone_after_a_transfer_interval_and_all_at_inference():
    # 31.1 % in 1.92 ms: Nature 2018, ED1, and the arithmetic of the time constant.
    cell = CapacitorCell(CAPACITOR)
    devices = cell.program(np.ones(1, np.float32), unit(CAPACITOR), None)
    assert cell.read(devices, unit(CAPACITOR), None, 1.92e-3, rng())[0] == pytest.approx(1 - 0.311, abs=1e-3)
    assert cell.read(devices, unit(CAPACITOR), None, 20.0, rng())[0] == 0.0


def test_a_reference_off_the_middle_leaves_more_room_on_one_side():
    cell = CapacitorCell(dataclasses.replace(CAPACITOR, g_reference_us=6.0))
    assert cell.g_max == 2.0
    weights = np.array([-1.5, 1.5, 7.5], np.float32)
    read = cell.read(cell.program(weights, 2.0, None), 2.0, None)
    np.testing.assert_allclose(read, [-1.0, 1.5, 7.0])
    assert cell.clipped(weights, 2.0) == 2


@pytest.mark.parametrize("at_s", [-1.0, math.nan, math.inf])
def test_a_capacitor_refuses_what_is_no_time(at_s):
    cell = CapacitorCell(CAPACITOR)
    with pytest.raises(ChipError, match="must be at least 0 s"):
        cell.read(cell.program(np.ones(1, np.float32), 1.0, None), 1.0, None, at_s, rng())


# --- RRAM ---


@pytest.mark.parametrize("g", [10.0, 20.0, 39.0])
def test_rram_errs_with_the_published_polynomial(g):
    sigma = 1.053 + 0.2374 * g - 1.167e-2 * g**2 + 1.536e-4 * g**3  # CrossSim's fit
    devices = RramCell(RRAM).program(np.full(N, (g - 1) / 38, np.float32), unit(RRAM), rng())
    sample = devices.g_plus.astype(np.float64)
    assert sigma < g / 4  # clipping at 0 plays no part
    assert sample.mean() == pytest.approx(g, abs=5 * sigma / math.sqrt(N) + 1e-5)
    assert sample.var() / sigma**2 == pytest.approx(1, abs=5 * math.sqrt(2 / N))
    assert stats.kstest(sample[:20_000], stats.norm(g, sigma).cdf).pvalue > 1e-3


def test_the_erased_rram_device_errs_too_and_is_clipped_at_zero():
    devices = RramCell(RRAM).program(np.full(N, 0.5, np.float32), unit(RRAM), rng())
    sigma = 1.053 + 0.2374 - 1.167e-2 + 1.536e-4
    mean, variance = clipped_normal(1.0, sigma)
    assert devices.g_minus.min() == 0.0
    assert devices.g_minus.mean(dtype=np.float64) == pytest.approx(mean, abs=5 * math.sqrt(variance / N))


# --- levels ---


def test_levels_are_the_nearest_of_an_odd_number_of_equal_steps_and_exact():
    cell = LevelCell(dataclasses.replace(LEVELS, bits=4))
    weights = np.linspace(-1, 1, 1001, dtype=np.float32)
    read = cell.read(cell.program(weights, 7.0, rng()), 7.0, None)
    assert len(np.unique(read)) == 15
    assert np.abs(read - weights).max() <= 0.5 / 7 + 1e-6
    np.testing.assert_array_equal(np.unique(read), np.arange(-7, 8, dtype=np.float32) / np.float32(7))


def test_make_cell_gives_the_class_of_each_kind():
    classes = [
        TwoTierCell,
        PcmPairCell,
        PcmPairCell,
        FourPcmCell,
        CapacitorCell,
        RramCell,
        LevelCell,
        IdealCell,
    ]
    assert [type(make_cell(spec)) for spec in SPECS] == classes
    assert type(make_cell(LevelCellSpec(kind="levels", bits=16))) is LevelCell
