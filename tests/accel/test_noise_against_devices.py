"""Fast, frozen and split noise, against reads that draw a number for each device (`brute_force`).

An experiment is done many times: two vectors (or one image) are read, and then again. Each number that comes
out of it, for each read, vector or patch, and column, is a feature. Mean, variance and covariance of all
features are compared between pcmc and the devices, and with the formula. `deviation` is the largest
difference in units of its tolerance, Z standard deviations, as fourth moments and sizes of the samples say.
"""

from dataclasses import replace

import brute_force
import builders
import numpy as np
import pytest
from onnx import helper
from scipy import stats

import pcmc
from pcmc.accel import periphery, tile
from pcmc.accel.periphery import Drivers, Part
from pcmc.accel.physics import Physics
from pcmc.accel.tile import Converters, Noise, Window

pytestmark = pytest.mark.slow

# Some 10^4 comparisons; that one of them is beyond 5.5 by chance has a probability of 4e-4.
Z = 5.5
VECTORS, IMAGES, SESSIONS = 20_000, 8_000, 10_000  # times that each is done
READS = 2

LEVELS = 7
ROWS, COLS = 8, 2
BLOCKS = (slice(0, 4), slice(4, 9))  # the second has the bias row
BIAS_DRIVE = -0.6
# Signs that agree and that differ, and few codes of the DAC; the largest is 1, the range.
INPUTS = np.array(
    [[1.0, -0.62, 0.31, 0.11, -0.8, 0.02, 0.44, 0.9], [0.55, 0.9, -0.2, -1.0, -0.33, 0.71, 0.0, 0.2]],
    np.float32,
)
WINDOW = Window((2, 2), (1, 2), pads=(1, 1, 1, 1))
IMAGE = np.random.default_rng(3).uniform(-1, 1, (2, 3, 3)).astype(np.float32)
IMAGE[0, 0, 0] = 1.0

WAYS = {
    "voltage": {"kind": "voltage"},
    "voltage in two phases": {"kind": "voltage", "signed": False},
    "pulse": {"kind": "pulse"},
    "pulse in two phases": {"kind": "pulse", "signed": False},
    "bits": {"kind": "bits"},
    "bits by two": {"kind": "bits", "slice_bits": 2},
    "bits, summed": {"kind": "bits", "sample": "sum"},
    "bits in two phases, summed": {"kind": "bits", "sample": "sum", "signed": False},
}
# Of the variance: what is frozen, what is new at each read.
SHARES = {"fast": (0.0, 1.0), "frozen": (1.0, 0.0), "split": (0.6, 0.4)}
ADC = (15, 4.0)

_rng = np.random.default_rng(7)
WEIGHTS = _rng.normal(size=(ROWS + 1, COLS)).astype(np.float32)
SIGMA = _rng.uniform(0.02, 0.3, (ROWS + 1, COLS)).astype(np.float32)


def drivers_of(way):
    return Drivers(LEVELS, **{name: value for name, value in way.items() if name != "sample"})


def count(window):
    return VECTORS if window is None else IMAGES


def vectors_of(window):
    """What a read sends, [vectors or patches, rows and bias row]."""
    vectors = INPUTS if window is None else brute_force.patches(IMAGE, (2, 2), (1, 2), 1)
    return np.hstack([vectors, np.full((len(vectors), 1), BIAS_DRIVE, np.float32)])


def bank_of(weights):
    """Two blocks that are converted by themselves."""
    cols, cells = weights.shape[1], np.concatenate([weights[rows].ravel() for rows in BLOCKS])
    table = [(0, 0, 4, cols, 0, 0), (4, 0, 5, cols, 1, 4 * cols)]
    return tile.make_bank(cells.astype(np.float32), np.array(table, np.int64), ROWS, cols)


def converters_of(adc):
    return tile.OFF if adc is None else Converters(adc_levels=adc[0], adc_full=adc[1])


def by_pcmc(way, kind, window=None, adc=None, wrong=None):
    """Features [n, reads, vectors, columns] that pcmc gives; `wrong`: other fields of the drivers.

    Frozen noise lies in the cells: n groups of columns are n experiments. Otherwise they follow in one batch.
    """
    n = count(window)
    frozen, fresh = SHARES[kind]
    weights, sigma = (np.tile(a, n if frozen else 1) for a in (WEIGHTS, SIGMA))
    if frozen:
        numbers = np.random.default_rng(21).standard_normal(weights.shape, np.float32)
        weights = weights + np.float32(np.sqrt(frozen)) * sigma * numbers
    bank, noise = bank_of(weights), None
    if fresh:
        noise = Noise(bank.with_variances(bank_of(fresh * sigma * sigma).cells), (3, 4))
    x = INPUTS if window is None else IMAGE[None]
    x = np.tile(x, (1 if frozen else n, *[1] * (x.ndim - 1)))
    reads = [
        periphery.read(
            x, [Part(1.0, bank, converters_of(adc), noise)], replace(drivers_of(way), **(wrong or {})),
            bias_drive=BIAS_DRIVE, sample=way.get("sample", "slice"), window=window, step=step,
        )
        for step in range(READS)
    ]  # fmt: skip
    y = np.stack(reads)
    if window is not None:
        y = np.moveaxis(y.reshape(*y.shape[:3], -1), 2, 3)  # [reads, images, positions, columns]
    if frozen:
        return np.moveaxis(y.reshape(READS, -1, n, COLS), 2, 0)
    return np.moveaxis(y.reshape(READS, n, -1, COLS), 1, 0)


def by_devices(way, kind, window=None, adc=None, sigma=SIGMA):
    """The same features, each device by itself."""
    frozen, fresh = SHARES[kind]
    rng, n = np.random.default_rng(2), count(window)
    weights = WEIGHTS
    if frozen:
        numbers = rng.standard_normal((n, *WEIGHTS.shape), np.float32)
        weights = WEIGHTS + np.float32(np.sqrt(frozen)) * sigma * numbers
    y = [
        [
            brute_force.read(
                np.broadcast_to(vector, (n, len(vector))), weights, np.float32(np.sqrt(fresh)) * sigma, rng,
                scale=1.0, levels=LEVELS, blocks=BLOCKS, adc=adc, **way,
            )
            for vector in vectors_of(window)
        ]
        for _ in range(READS)
    ]  # fmt: skip
    return np.moveaxis(np.array(y), 2, 0)


def formula(codes, way, weights, sigma, frozen, fresh, levels=LEVELS):
    """Mean [features] and covariance of reads of vectors with these codes, [vectors, rows].

    x = code / levels. Frozen noise: x1^T Sigma x2 for all reads; fresh: x^2 sigma^2 of each alone, of pulses
    |x| sigma^2, of bits the sum over digits of (weight x digit)^2 sigma^2.
    """
    x = codes / levels
    if way["kind"] == "pulse":
        power = np.abs(x)
    elif way["kind"] == "bits":
        bits, rest, power = way.get("slice_bits", 1), np.abs(codes).astype(int), np.zeros_like(x)
        for shift in range(0, levels.bit_length(), bits):
            power += (((rest >> shift) & (2**bits - 1)) * 2.0**shift / levels) ** 2
    else:
        power = x * x
    one = np.einsum("ar,br,rc,cd->acbd", x, x, frozen * sigma**2, np.eye(sigma.shape[1]))
    alone = np.einsum("ar,rc,ab,cd->acbd", power, fresh * sigma**2, np.eye(len(x)), np.eye(sigma.shape[1]))
    size = len(x) * sigma.shape[1]
    one, alone = one.reshape(size, size), alone.reshape(size, size)
    return np.tile((x @ weights).ravel(), READS), np.kron(np.ones((READS, READS)), one) + np.kron(
        np.eye(READS), alone
    )


def of_the_formula(way, kind, window):
    codes = np.rint(vectors_of(window).astype(float) * LEVELS)
    return formula(codes, way, WEIGHTS.astype(float), SIGMA.astype(float), *SHARES[kind])


def deviation(sample, other=None, exact=None):
    """The largest difference of means and covariances over its tolerance: of samples, or one and `exact`."""
    found = [_moments(one) for one in (sample, other) if one is not None]
    errors = [sum(one[i] for one in found) for i in (2, 3)]
    mean, covariance = exact or found[1][:2]
    ratios = [
        np.abs(a - b) / (Z * np.sqrt(error) + 1e-5)  # 1e-5: rounding, of what has no noise
        for a, b, error in zip(found[0][:2], (mean, covariance), errors, strict=True)
    ]
    return max(ratio.max() for ratio in ratios)


def _moments(sample):
    """Mean and covariance of the features, and the variances of both estimates."""
    flat = sample.reshape(len(sample), -1).astype(float)
    mean = flat.mean(axis=0)
    flat = flat - mean
    covariance = flat.T @ flat / len(flat)
    fourth = (flat**2).T @ flat**2 / len(flat) - covariance**2
    return mean, covariance, np.diag(covariance) / len(flat), np.maximum(fourth, 0) / len(flat)


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("name", WAYS)
def test_vectors_have_the_moments_and_the_distribution_of_devices(name, kind):
    way = WAYS[name]
    ours, devices, (mean, covariance) = (
        by_pcmc(way, kind),
        by_devices(way, kind),
        of_the_formula(way, kind, None),
    )
    assert deviation(ours, devices) < 1
    assert deviation(ours, exact=(mean, covariance)) < 1
    assert deviation(devices, exact=(mean, covariance)) < 1
    spread = np.sqrt(np.diag(covariance))
    for feature in range(len(mean)):
        z, theirs = (
            (a.reshape(VECTORS, -1)[:, feature] - mean[feature]) / spread[feature] for a in (ours, devices)
        )
        assert stats.kstest(z, "norm", method="asymp").pvalue > 1e-4
        assert stats.ks_2samp(z, theirs, method="asymp").pvalue > 1e-4


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("name", ["voltage", "pulse", "bits by two", "bits in two phases, summed"])
def test_patches_of_an_image_have_the_moments_of_devices(name, kind):
    way = WAYS[name]
    ours = by_pcmc(way, kind, WINDOW)
    assert ours.shape == (IMAGES, READS, 8, COLS)
    assert deviation(ours, exact=of_the_formula(way, kind, WINDOW)) < 1
    assert deviation(ours, by_devices(way, kind, WINDOW)) < 1


@pytest.mark.parametrize("name", WAYS)
def test_noise_comes_before_the_converter_of_each_phase_and_block(name):
    """With coarse ADCs that clip: a conversion too many or too few, or noise after it, would show."""
    way = WAYS[name]
    assert deviation(by_pcmc(way, "split", adc=ADC), by_devices(way, "split", adc=ADC)) < 1


def test_successive_reads_share_frozen_noise_to_the_last_bit_and_fast_noise_never():
    first, second = np.moveaxis(by_pcmc(WAYS["voltage"], "frozen"), 1, 0)
    np.testing.assert_array_equal(first, second)
    first, second = np.moveaxis(by_pcmc(WAYS["voltage"], "fast"), 1, 0)
    assert (first != second).mean() > 0.999


def test_the_tolerances_would_show_a_mistake():
    fast = by_devices(WAYS["voltage"], "fast")
    assert deviation(by_pcmc(WAYS["voltage"], "frozen"), fast) > 5
    assert deviation(by_pcmc(WAYS["voltage"], "split"), fast) > 5
    still = by_pcmc(WAYS["voltage"], "fast")
    still[:, 1] = still[:, 0]  # as if two reads had one step
    assert deviation(still, fast) > 5
    assert (
        deviation(by_pcmc(WAYS["voltage"], "fast"), by_devices(WAYS["voltage"], "fast", sigma=SIGMA * 1.05))
        > 1
    )
    pulses = by_devices(WAYS["pulse"], "fast")
    assert deviation(by_pcmc(WAYS["pulse"], "fast", wrong={"kind": "voltage"}), pulses) > 5
    assert (
        deviation(by_pcmc(WAYS["bits"], "fast", wrong={"slice_bits": 2}), by_devices(WAYS["bits"], "fast"))
        > 1
    )
    summed = by_devices(WAYS["bits, summed"], "fast", adc=ADC)
    assert deviation(by_pcmc(WAYS["bits"], "fast", adc=ADC), summed) > 1


# The whole way, through a session: the devices of one row are programmed alike, so columns are experiments.

FULL_LEVELS = 127


def session_weights(rows):
    """Large ones, whose devices are far from 0, where their noise would be cut off; [rows]."""
    drawn = np.random.default_rng(11).uniform(0.5, 1.0, rows) * np.resize([1, -1, 1], rows)
    drawn[0] = 1.0
    return drawn.astype(np.float32)


def session_sigma(weights, chip, kind):
    """Read noise of weights [rows] whose largest is 1, by the published law; and the shares (frozen, new)."""
    cell = chip.cell
    x = np.abs(weights) * cell.g_max_us / cell.g_max_fit_us
    q = np.minimum(cell.read_noise_scale * x**cell.read_noise_exponent, cell.read_noise_max)
    octaves = np.log((cell.t0_s + cell.t_read_s) / (2 * cell.t_read_s))
    slow = np.log((cell.t0_s + cell.t_read_s) / cell.read_noise_split_s) / octaves
    shares = {"fast": (0, 1), "frozen": (1, 0), "split": (slow, 1 - slow)}
    return np.abs(weights) * q * np.sqrt(octaves), shares[kind]


@pytest.mark.parametrize("kind", SHARES)
@pytest.mark.parametrize("name", ["voltage", "pulse", "bits"])
def test_sessions_have_the_moments_of_devices(name, kind):
    chip = pcmc.load_chip("nature2018")
    chip = replace(chip, tile=replace(chip.tile, cols=1000), dac=replace(chip.dac, input=name))
    w = session_weights(ROWS)
    gemm = helper.make_node("Gemm", ["x", "w"], ["y"])
    model = builders.model(
        [gemm], {"x": [2, ROWS]}, {"y": [2, SESSIONS]}, {"w": np.tile(w[:, None], SESSIONS)}
    )
    session = pcmc.Session(pcmc.compile(model, chip), Physics(dac=True, read_noise=kind), seed=5)
    y = np.stack([session.run(None, {"x": INPUTS})[0] for _ in range(READS)])
    sigma, shares = session_sigma(w.astype(float), chip, kind)
    codes = np.rint(INPUTS.astype(float) * FULL_LEVELS)
    exact = formula(codes, {"kind": name}, w[:, None].astype(float), sigma[:, None], *shares, FULL_LEVELS)
    assert deviation(np.moveaxis(y, 2, 0), exact=exact) < 1


@pytest.mark.parametrize("kind", SHARES)
def test_sessions_have_the_covariances_of_patches(kind):
    chip = pcmc.load_chip("nature2018")
    chip = replace(chip, tile=replace(chip.tile, cols=1000))
    w = session_weights(ROWS)
    conv = helper.make_node("Conv", ["x", "w"], ["y"], strides=[1, 2], pads=[1, 1, 1, 1])
    kernels = np.tile(w.reshape(1, 2, 2, 2), (SESSIONS, 1, 1, 1))
    model = builders.model([conv], {"x": [1, 2, 3, 3]}, {"y": [1, SESSIONS, 4, 2]}, {"w": kernels})
    session = pcmc.Session(pcmc.compile(model, chip), Physics(read_noise=kind), seed=6)
    y = np.stack([session.run(None, {"x": IMAGE[None]})[0][0] for _ in range(READS)])
    sigma, shares = session_sigma(w.astype(float), chip, kind)
    patches = vectors_of(WINDOW)[:, :ROWS].astype(float)
    exact = formula(patches, {"kind": "voltage"}, w[:, None].astype(float), sigma[:, None], *shares, 1)
    assert deviation(np.moveaxis(y, 1, 0), exact=exact) < 1
