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
    AxonCellSpec,
    CapacitorCellSpec,
    FourPcmCellSpec,
    IdealCellSpec,
    LevelCellSpec,
    PcmCellSpec,
    ReferencePcmCellSpec,
    RramCellSpec,
)
from pcmc.accel.cells import (
    AxonCell,
    CapacitorCell,
    FourPcmCell,
    IdealCell,
    LevelCell,
    MeasuredCell,
    PcmPairCell,
    ReferencePcmCell,
    RramCell,
    SlicedPcmCell,
    TwoTierCell,
    make_cell,
)
from pcmc.accel.chip import load_chip
from pcmc.accel.measured_spec import MeasuredCellSpec
from pcmc.accel.random import stream
from pcmc.errors import ChipError

TWO_TIER = load_chip("nature2018").cell
SHARED = {
    field.name: getattr(TWO_TIER, field.name)
    for field in dataclasses.fields(PcmCellSpec)
    if field.name != "kind"
}
PAIR = PcmCellSpec(kind="2pcm", **SHARED)
SLICED = dataclasses.replace(PAIR, slices=7)
ONE = ReferencePcmCellSpec(kind="1pcm", **SHARED)
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
AXONS = AxonCellSpec(kind="axon", axons=8)
MEASURED = MeasuredCellSpec(
    kind="measured",
    g_min_us=1.0,
    g_max_us=39.0,
    programming_error_points_us=((1.0, 0.5), (39.0, 2.0)),
    read_noise_points_us=((0.0, 0.1), (39.0, 0.4)),
)
IDEAL = IdealCellSpec("ideal")
SPECS = [
    TWO_TIER, PAIR, dataclasses.replace(PAIR, pairs=3), SLICED, ONE, FOUR, CAPACITOR, RRAM, MEASURED, LEVELS,
    AXONS, IDEAL,
]  # fmt: skip


def name_of(spec):
    return f"{spec.kind}-{getattr(spec, 'pairs', 1)}-{getattr(spec, 'slices', 1)}"


KINDS = pytest.mark.parametrize("spec", SPECS, ids=name_of)
ENDS = {"rram": (1.0, 39.0), "measured": (1.0, 39.0), "3t1c": (-8.0, 8.0), "sram": (-127.0, 127.0)}
SHAPE = (250, 400)
N = SHAPE[0] * SHAPE[1]


def rng(step=0):
    return stream(0, (0,), "kinds", step)


def targets(spec, weights, shape=None):
    """Targets of weights, of which 1 uses the full range; as one row, unless a shape is given."""
    us = np.asarray(weights, np.float32) * np.float32(make_cell(spec).full_us)
    return np.atleast_2d(us) if shape is None else np.broadcast_to(us, shape)


def weights(spec, devices):
    """What a read finds, relative to the full range."""
    cell = make_cell(spec)
    return cell.weights_us(devices) / np.float32(cell.full_us)


def sigma_prog(g):
    x = g / 25.0
    return 0.26348 + 1.9650 * x - 1.1731 * x**2


def clipped_normal(mean, sigma):
    """Mean and variance of max(0, N(mean, sigma))."""
    z = mean / sigma
    first = mean * stats.norm.cdf(z) + sigma * stats.norm.pdf(z)
    second = (mean**2 + sigma**2) * stats.norm.cdf(z) + mean * sigma * stats.norm.pdf(z)
    return first, second - first**2


def weights_as_found(spec, weight):
    devices = make_cell(spec).program(targets(spec, weight, SHAPE), rng())
    return weights(spec, devices).ravel().astype(np.float64)


# --- every kind ---


@KINDS
def test_weights_written_without_error_are_read_as_they_were(spec):
    cell = make_cell(spec)
    written = np.round((rng().uniform(1000) * 2 - 1) * 127).reshape(20, 50) / np.float32(127)  # 8-bit levels
    held = targets(spec, written)
    held.flags.writeable = False
    devices = cell.program(held, None)
    np.testing.assert_allclose(weights(spec, devices), written, rtol=2**-20, atol=2**-22)
    assert cell.age(devices) is devices
    assert not devices.g_plus.flags.writeable
    assert devices.g_plus.dtype == devices.g_minus.dtype == np.float32


@KINDS
@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (1, 1), (65_537, 1)])
def test_any_number_of_cells_gives_one_weight_and_one_variance_each(spec, shape):
    cell = make_cell(spec)
    devices = cell.program(targets(spec, 0.5, shape), rng(), rng(1))
    for found in (cell.weights_us(devices), cell.noise_variance(devices)):
        assert found.shape == shape
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
    assert devices.g_plus.shape[:2] == shape  # so that programs can cut and join them
    assert devices.g_minus.shape[:2] in (shape, (0,))


@KINDS
@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2)), np.zeros(3, np.float32), np.zeros((2, 2, 2), np.float32), np.zeros((), np.float32)],
)
def test_other_arrays_than_float32_blocks_are_refused(spec, wrong):
    with pytest.raises(TypeError, match="float32"):
        make_cell(spec).program(wrong, None)


@KINDS
def test_cells_programmed_together_or_in_pieces_are_cells_alike(spec):
    cell = make_cell(spec)
    block = targets(spec, np.linspace(-1, 1, 100).reshape(10, 10))
    whole = cell.program(block, None)
    parts = [cell.program(part, None) for part in (block[:3], block[3:])]
    assert np.array_equal(whole.g_plus, np.concatenate([part.g_plus for part in parts]))
    assert np.array_equal(whole.g_minus, np.concatenate([part.g_minus for part in parts]))


@KINDS
def test_the_layout_of_targets_in_memory_changes_nothing(spec):
    spec = spec if spec.kind == "ideal" else stuck_spec(spec, 0.1, 0.1)
    cell = make_cell(spec)
    block = targets(spec, np.linspace(-1, 1, 600).reshape(20, 30))
    plain = cell.program(block, rng(), rng(1))
    for other in (np.asfortranarray(block), np.repeat(block, 2, axis=1)[:, ::2]):
        devices = cell.program(other, rng(), rng(1))
        assert np.array_equal(devices.g_plus, plain.g_plus)
        assert np.array_equal(devices.g_minus, plain.g_minus)


@KINDS
def test_targets_are_left_as_they_are(spec):
    block = targets(spec, np.linspace(-1.5, 1.5, 600).reshape(20, 30))
    before = block.copy()
    make_cell(spec if spec.kind == "ideal" else stuck_spec(spec, 0.1, 0.1)).program(block, rng(), rng(1))
    assert np.array_equal(block, before)


@KINDS
def test_a_weight_is_the_sum_of_its_pairs_each_times_its_gain(spec):
    cell = make_cell(spec)
    devices = cell.program(targets(spec, np.linspace(-1, 1, 600).reshape(20, 30)), rng())
    if spec.kind in ("3t1c", "sram", "axon", "ideal"):  # no pairs of conductors, no wires
        assert cell.gains == ()
        return
    pairs = [devices.g_plus - devices.g_minus] if devices.g_plus.ndim == 2 else None
    pairs = pairs or list(np.moveaxis(devices.g_plus - devices.g_minus, 2, 0))
    assert len(cell.gains) == len(pairs)
    expected = sum(gain * pair.astype(float) for gain, pair in zip(cell.gains, pairs, strict=True))
    np.testing.assert_allclose(cell.weights_us(devices), expected, rtol=1e-5, atol=1e-5)


@KINDS
def test_weights_beyond_the_range_are_counted_and_end_at_its_end(spec):
    cell = make_cell(spec)
    block = targets(spec, [[0.0, 1.0, -1.0], [2.5, -7.0, 1e30]])
    if spec.kind == "ideal":
        assert cell.clipped(block) == 0
        return
    assert cell.clipped(block) == 3
    assert cell.clipped(block[:1]) == 0
    reach = 2.0 if spec.kind == "4pcm" else 1.0  # of two tiers of equal significance
    found = weights(spec, cell.program(block, None))
    np.testing.assert_allclose(found, [[0, 1, -1], [reach, -reach, reach]], atol=1e-6)


@KINDS
def test_an_effect_that_a_cell_has_no_law_of_is_refused_when_read(spec):
    cell = make_cell(spec)
    devices = cell.program(targets(spec, np.zeros(3)), None)
    if spec.kind == "ideal":
        return
    if "read_noise" not in spec.effects:
        with pytest.raises(ChipError, match=r"read_noise: .* no law of it"):
            cell.age(devices, noise=rng())
        assert not cell.noise_variance(devices).any()
    if "drift" not in spec.effects:
        with pytest.raises(ChipError, match=r"drift: .* no law of it"):
            cell.age(devices, 1e3, None, rng())


# --- stuck devices ---


def stuck_spec(spec, low=0.0, high=0.0):
    return dataclasses.replace(spec, stuck_low_fraction=low, stuck_high_fraction=high)


@pytest.mark.parametrize("spec", [TWO_TIER, PAIR, ONE, RRAM, MEASURED, CAPACITOR, LEVELS], ids=name_of)
def test_as_many_devices_are_stuck_at_each_level_as_the_file_says(spec):
    spec = stuck_spec(spec, 0.02, 0.05)
    devices = make_cell(spec).program(targets(spec, 0.5, SHAPE), None, rng())
    g = devices.g_plus
    levels = ENDS.get(spec.kind, (0.0, 20.0))
    for level, share in zip(levels, (0.02, 0.05), strict=True):
        found = np.mean(g == np.float32(level))
        assert found == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / N))
    others = g[(g != np.float32(levels[0])) & (g != np.float32(levels[1]))]
    assert len(np.unique(others)) == 1


def test_both_devices_of_a_pair_can_be_stuck_each_by_itself():
    spec = stuck_spec(PAIR, high=0.1)
    devices = PcmPairCell(spec).program(np.zeros(SHAPE, np.float32), None, rng())
    plus, minus = devices.g_plus == 20.0, devices.g_minus == 20.0
    assert np.mean(plus & minus) == pytest.approx(0.01, abs=5 * math.sqrt(0.01 * 0.99 / N))


def test_the_same_devices_are_stuck_at_each_programming():
    spec = stuck_spec(PAIR, low=0.3)
    first, second = (
        PcmPairCell(spec).program(targets(spec, weight, (20, 50)), rng(step), rng(9))
        for step, weight in ((0, 0.5), (1, 0.8))
    )
    assert np.array_equal(first.g_plus == 0.0, second.g_plus == 0.0)
    assert 200 < np.count_nonzero(first.g_plus == 0.0) < 400


@pytest.mark.parametrize("spec", [PAIR, ONE, RRAM, MEASURED, CAPACITOR, LEVELS, AXONS], ids=name_of)
def test_all_devices_may_be_stuck_or_none(spec):
    block = targets(spec, np.linspace(-1, 1, 1000).reshape(20, 50))
    for low, high in ((1.0, 0.0), (0.0, 1.0)):
        stuck = stuck_spec(spec, low, high)
        devices = make_cell(stuck).program(block, None, rng())
        assert len(np.unique(devices.g_plus)) == 1
    cell = make_cell(spec)
    assert np.array_equal(cell.program(block, None, rng()).g_plus, cell.program(block, None).g_plus)


def test_the_low_pair_makes_up_for_a_high_device_that_is_stuck():
    spec = stuck_spec(FOUR, low=0.01)
    cell = FourPcmCell(spec)
    devices = cell.program(targets(spec, 0.5, SHAPE), None, rng())
    high_lost = devices.g_plus[..., 0] == 0.0
    low_works = devices.g_plus[..., 1] > 0.0
    read = weights(spec, devices)
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
    devices = [cell.program(targets(one, [0.5]), None) for cell in cells]
    noise = [float(cell.noise_variance(held)[0, 0]) for cell, held in zip(cells, devices, strict=True)]
    assert pairs * noise[1] == pytest.approx(noise[0], rel=1e-5)


def test_drift_that_all_pairs_have_in_common_is_not_averaged_away():
    many = dataclasses.replace(PAIR, pairs=16)
    cell = make_cell(many)
    devices = cell.program(targets(many, 0.5, (100, 200)), None)
    found = weights(many, cell.age(devices, 86_400.0, None, rng()))
    assert found.mean(dtype=np.float64) == pytest.approx(
        0.5 * cell.mean_drift(86_400.0, 10.0), abs=5 * float(found.std()) / math.sqrt(20_000)
    )


@pytest.mark.parametrize(
    "spec",
    [dataclasses.replace(PAIR, pairs=3), dataclasses.replace(PAIR, slices=2, slice_bits=2), FOUR],
    ids=name_of,
)
def test_the_variance_of_several_pairs_is_that_of_reads_with_noise_and_drift(spec):
    cell = make_cell(spec)
    devices = cell.program(targets(spec, 0.6, SHAPE), rng())
    clean = cell.weights_us(cell.age(devices, 3600.0, None, rng(1)))
    noisy = cell.weights_us(cell.age(devices, 3600.0, rng(2), rng(1)))
    variance = cell.noise_variance(devices, 3600.0, rng(1))
    ratio = (noisy - clean).var(dtype=np.float64) / variance.mean(dtype=np.float64)
    # Small conductances are clipped at 0 in the draw and not in the variance.
    assert 0.97 < ratio < 1 + 5 * math.sqrt(2 / N)


# --- slices ---


@pytest.mark.parametrize(("slices", "bits"), [(2, 1), (2, 2), (4, 2), (3, 3)])
def test_slices_hold_the_digits_of_the_nearest_level_the_most_significant_first(slices, bits):
    spec = dataclasses.replace(PAIR, slices=slices, slice_bits=bits)
    cell, base = make_cell(spec), 2**bits
    most = base**slices - 1
    written = np.linspace(-1.1, 1.1, 1001, dtype=np.float32)
    devices = cell.program(targets(spec, written), None)
    levels = np.clip(np.rint(written.astype(float) * most), -most, most)
    near = np.abs(written.astype(float) * most % 1 - 0.5) > 1e-3  # not a tie of two levels
    digits = np.rint((devices.g_plus - devices.g_minus)[0] / 20.0 * (base - 1))
    np.testing.assert_allclose(devices.g_plus * (base - 1) / 20.0 % 1, 0, atol=1e-5)
    found = sum(digits[:, k] * base ** (slices - 1 - k) for k in range(slices))
    np.testing.assert_array_equal(found[near], levels[near])
    np.testing.assert_allclose(weights(spec, devices)[0][near], levels[near] / most, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, -0.2])
def test_the_error_of_a_sliced_weight_is_that_of_its_digits_each_times_its_gain(weight):
    spec = dataclasses.replace(PAIR, slices=2, slice_bits=2)  # 1 is the digits 3 3, 0.2 is 0 3, of 15 levels
    gains = make_cell(spec).gains
    np.testing.assert_allclose(gains, [3 * 0.8, 3 * 0.2])
    erased = clipped_normal(0.0, sigma_prog(0.0))
    held = [clipped_normal(g, sigma_prog(g)) for g in ((20.0, 20.0) if weight == 1.0 else (0.0, 20.0))]
    mean = sum(gain * (digit[0] - erased[0]) for gain, digit in zip(gains, held, strict=True)) / 60.0
    variance = (
        sum(gain**2 * (digit[1] + erased[1]) for gain, digit in zip(gains, held, strict=True)) / 60.0**2
    )
    found = weights_as_found(spec, weight)
    assert found.mean() == pytest.approx(math.copysign(mean, weight), abs=5 * math.sqrt(variance / N))
    assert found.var() / variance == pytest.approx(1, abs=5 * math.sqrt(4 / N))


# --- one device against a reference ---


def test_one_device_holds_a_weight_as_an_offset_from_the_middle_of_its_range():
    cell = make_cell(ONE)
    devices = cell.program(np.array([[0.0, 60.0, -60.0], [30.0, -30.0, 90.0]], np.float32), None)
    np.testing.assert_allclose(devices.g_plus, [[10.0, 20.0, 0.0], [15.0, 5.0, 20.0]])
    assert (devices.g_minus == 10.0).all()
    assert cell.gains == (6.0,)


def test_the_columns_of_a_row_share_one_reference_and_rows_do_not():
    cell = make_cell(stuck_spec(ONE, 0.1, 0.1))
    devices = cell.program(np.zeros((1000, 5), np.float32), rng(), rng(1))
    for held in (devices, cell.age(devices, 3600.0, rng(2), rng(3))):
        assert (held.g_minus == held.g_minus[:, :1]).all()
        assert len(np.unique(held.g_minus[:, 0])) > 700  # those that are stuck are alike
        assert len(np.unique(held.g_plus)) > 3500
    _, variances = cell.device_variances(devices, 3600.0, rng(3))
    assert (variances == variances[:, :1]).all()
    assert variances.shape == (1000, 5)


def test_what_a_reference_errs_by_comes_into_all_columns_alike():
    rows, cols = 50_000, 4
    error = (
        make_cell(ONE)
        .weights_us(make_cell(ONE).program(np.full((rows, cols), 30.0, np.float32), rng()))
        .astype(float)
        - 30.0
    )
    own, shared = (6.0 * sigma_prog(15.0)) ** 2, (6.0 * sigma_prog(10.0)) ** 2
    assert error[:, 0].var() == pytest.approx(own + shared, rel=5 * math.sqrt(2 / rows))
    covariance = np.cov(error.T)[np.triu_indices(cols, 1)]
    np.testing.assert_allclose(covariance, shared, atol=5 * (own + shared) / math.sqrt(rows))
    between_rows = np.corrcoef(error[:-1, 0], error[1:, 0])[0, 1]
    assert abs(between_rows) < 5 / math.sqrt(rows)


def test_noise_of_one_device_and_its_reference_adds_up_with_the_square_of_its_gain():
    cell = make_cell(ONE)
    devices = cell.program(np.full((200, 500), 30.0, np.float32), None)
    clean, noisy = (cell.weights_us(cell.age(devices, 3600.0, noise, rng(1))) for noise in (None, rng(2)))
    variance = cell.noise_variance(devices, 3600.0, rng(1))
    alone = sum(cell.device_variances(devices, 3600.0, rng(1)))
    np.testing.assert_allclose(variance, 36.0 * alone, rtol=1e-5)
    # 200 references, 100,000 devices: the variance of each row and of the means of rows.
    own, shared = (36.0 * part.mean() for part in cell.device_variances(devices, 3600.0, rng(1)))
    noise = (noisy - clean).astype(float)
    assert noise.var(axis=1).mean() == pytest.approx(own, rel=5 * math.sqrt(2 / N) + 0.01)
    assert noise.mean(axis=1).var() == pytest.approx(shared + own / 500, rel=5 * math.sqrt(2 / 200))


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
    error_us = (found - 0.5) * make_cell(spec).full_us
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
    devices = FourPcmCell(FOUR).program(targets(FOUR, -0.5, (20, 50)), rng())
    assert devices.g_plus.shape == devices.g_minus.shape == (20, 50, 2)
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
    written = np.array([[0.5, -1.0, 0.0]], np.float32)
    devices = cell.program(targets(CAPACITOR, written), None)
    leaked = weights(CAPACITOR, cell.age(devices, at_s, None, rng()))
    np.testing.assert_allclose(leaked, written * math.exp(-at_s / 5.16e-3), rtol=1e-6)
    np.testing.assert_allclose(weights(CAPACITOR, cell.age(devices, at_s)), written, rtol=1e-6)


def test_a_third_of_a_capacitors_weight_is_gone_after_a_transfer_interval_and_all_at_inference():
    # 31.1 % in 1.92 ms: Nature 2018, ED1, and the arithmetic of the time constant.
    cell = CapacitorCell(CAPACITOR)
    devices = cell.program(targets(CAPACITOR, [1.0]), None)
    left = weights(CAPACITOR, cell.age(devices, 1.92e-3, None, rng()))
    assert left[0, 0] == pytest.approx(1 - 0.311, abs=1e-3)
    assert weights(CAPACITOR, cell.age(devices, 20.0, None, rng()))[0, 0] == 0.0


def test_a_reference_off_the_middle_leaves_more_room_on_one_side():
    cell = CapacitorCell(dataclasses.replace(CAPACITOR, g_reference_us=6.0))
    assert cell.full_us == 2.0
    block = np.array([[-3.0, 3.0, 15.0]], np.float32)
    np.testing.assert_allclose(cell.weights_us(cell.program(block, None)), [[-2.0, 3.0, 14.0]])
    assert cell.clipped(block) == 2


@pytest.mark.parametrize("at_s", [-1.0, math.nan, math.inf])
def test_a_capacitor_refuses_what_is_no_time(at_s):
    cell = CapacitorCell(CAPACITOR)
    with pytest.raises(ChipError, match="must be at least 0 s"):
        cell.age(cell.program(np.ones((1, 1), np.float32), None), at_s, None, rng())


# --- RRAM ---


@pytest.mark.parametrize("g", [10.0, 20.0, 39.0])
def test_rram_errs_with_the_published_polynomial(g):
    sigma = 1.053 + 0.2374 * g - 1.167e-2 * g**2 + 1.536e-4 * g**3  # CrossSim's fit
    devices = RramCell(RRAM).program(np.full(SHAPE, g - 1, np.float32), rng())
    sample = devices.g_plus.ravel().astype(np.float64)
    assert sigma < g / 4  # clipping at 0 plays no part
    assert sample.mean() == pytest.approx(g, abs=5 * sigma / math.sqrt(N) + 1e-5)
    assert sample.var() / sigma**2 == pytest.approx(1, abs=5 * math.sqrt(2 / N))
    assert stats.kstest(sample[:20_000], stats.norm(g, sigma).cdf).pvalue > 1e-3


def test_the_erased_rram_device_errs_too_and_is_clipped_at_zero():
    devices = RramCell(RRAM).program(targets(RRAM, 0.5, SHAPE), rng())
    sigma = 1.053 + 0.2374 - 1.167e-2 + 1.536e-4
    mean, variance = clipped_normal(1.0, sigma)
    assert devices.g_minus.min() == 0.0
    assert devices.g_minus.mean(dtype=np.float64) == pytest.approx(mean, abs=5 * math.sqrt(variance / N))


# --- levels ---


def test_levels_are_the_nearest_of_an_odd_number_of_equal_steps_and_exact():
    cell = LevelCell(dataclasses.replace(LEVELS, bits=4))
    block = np.linspace(-7, 7, 1001, dtype=np.float32).reshape(7, 143)
    read = cell.weights_us(cell.program(block, rng()))
    assert cell.full_us == 7.0
    assert np.abs(read - block).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(np.unique(read), np.arange(-7, 8, dtype=np.float32))


def test_make_cell_gives_the_class_of_each_kind():
    classes = [
        TwoTierCell,
        PcmPairCell,
        PcmPairCell,
        SlicedPcmCell,
        ReferencePcmCell,
        FourPcmCell,
        CapacitorCell,
        RramCell,
        MeasuredCell,
        LevelCell,
        AxonCell,
        IdealCell,
    ]
    assert [type(make_cell(spec)) for spec in SPECS] == classes
    assert type(make_cell(LevelCellSpec(kind="levels", bits=16))) is LevelCell
