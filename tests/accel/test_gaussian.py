"""Counter-based Gaussians, and the noise that reads make of them, against their formulas."""

import math

import numpy as np
import pytest
from scipy import stats

from pcmc.accel import reference, tile
from pcmc.accel.random import gaussian_key
from pcmc.accel.tile import Converters, Noise, Window

FIRST_BITS = [1064009915, 1032119547, 1066522013, 1055921919]
KEY = gaussian_key(0, (0,), "test")

# Random123 (Salmon et al. 2011), tests/kat_vectors: rounds, counter, key, result.
PI = "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0 082efa98 ec4e6c89"
ZEROS, ONES = " ".join(["00000000"] * 4), " ".join(["ffffffff"] * 4)
KNOWN_ANSWERS = [
    (13, ZEROS, ZEROS, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
    (13, ONES, ONES, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
    (13, *PI, "4aa71d8f 734738c2 431fc6a8 ae6debf1"),
    (20, ZEROS, ZEROS, "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
    (20, ONES, ONES, "2a881696 57012287 f6c7446e a16a6732"),
    (20, *PI, "59cd1dbb b8879579 86b5d00c ac8b6d84"),
    (72, *PI, "09930adf 7f27bd55 9ed68ce1 97f803f6"),
]


def gaussians(n, key=KEY, counter0=0, threads=1):
    out = np.full(n, np.nan, np.float32)
    tile.fill_gaussian(out, key, counter0, threads)
    return out


def twins(n, key=KEY, counter0=0):
    out = np.full(n, np.nan, np.float32)
    reference.fill_gaussian(out, np.array(key, np.uint64), counter0, 0, n)
    return out


@pytest.fixture(scope="module")
def million():
    return gaussians(1 << 20, key=(1, 2)).astype(float)


@pytest.mark.parametrize(("rounds", "counter", "key", "expected"), KNOWN_ANSWERS)
def test_threefry_gives_the_published_answers(rounds, counter, key, expected):
    k = [int(word, 16) for word in key.split()]
    words = np.array([k[0] | k[1] << 32, k[2] | k[3] << 32], np.uint64)
    found = reference.threefry(words, tuple(np.uint32(int(word, 16)) for word in counter.split()), rounds)
    assert " ".join(f"{int(word[0]):08x}" for word in found) == expected


@pytest.mark.parametrize("counter0", [0, 1, 63, 100, (1 << 34) - 130, (1 << 38) - 33, (1 << 64) - 1000])
def test_the_twin_gives_the_same_bits(counter0):
    pytest.importorskip("pcmc.accel._kernels")
    for n in (1, 64, 1000):
        got, expected = gaussians(n, counter0=counter0), twins(n, counter0=counter0)
        np.testing.assert_array_equal(got.view(np.int32), expected.view(np.int32))


def test_numbers_are_the_same_on_every_machine_and_in_every_release():
    # Made by this function when it was written: a change here changes every seeded result of every user.
    bits = gaussians(4, key=(1, 2), counter0=5).view(np.uint32)
    assert [int(word) for word in bits] == FIRST_BITS


@pytest.mark.parametrize("word", [0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0xB504F333, 0xFFFFFFFE, 0xFFFFFFFF])
def test_logarithm_and_circle_keep_their_stated_errors_at_the_edges(word):
    _check_errors(np.array([word], np.uint32))


def test_logarithm_and_circle_keep_their_stated_errors():
    _check_errors(np.random.default_rng(0).integers(0, 1 << 32, 1 << 18, np.uint32))
    _check_errors((1 << np.arange(32)).astype(np.uint32))


def _check_errors(words):
    u = (words // 2 + 0.5) / 2**31
    got = reference._minus_two_log(words).astype(float)
    # u is rounded to a float first: 2^-25 of it, which is an absolute error of the logarithm.
    np.testing.assert_allclose(got, -2 * np.log(u), rtol=4e-7, atol=1.3e-7)
    assert (got >= 0).all()
    cosine, sine = reference._circle(words)
    angle = words.view(np.int32) * (math.pi / 2**32)
    np.testing.assert_allclose(sine, np.sin(angle), rtol=0, atol=3e-7)
    np.testing.assert_allclose(cosine, np.where(words & 1, -1, 1) * np.cos(angle), rtol=0, atol=3e-7)


def test_any_split_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr(tile, "WORTH_A_THREAD", 1)
    whole = gaussians(10_000, counter0=17)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(gaussians(10_000, counter0=17, threads=threads), whole)
    for start in (1, 15, 16, 64, 777):
        np.testing.assert_array_equal(gaussians(500, counter0=17 + start), whole[start : start + 500])
    for at in (0, 63, 64, 9_999):
        assert gaussians(1, counter0=17 + at)[0] == whole[at]


def test_numbers_are_normally_distributed(million):
    assert stats.kstest(million, "norm").pvalue > 1e-3
    for word in range(4):  # cosines and sines, first and second pair
        part = million.reshape(-1, 4, 16)[: 1 << 12, word].ravel()
        assert stats.kstest(part, "norm").pvalue > 1e-3


def test_moments_up_to_the_fourth_are_those_of_the_normal_distribution(million):
    n = million.size
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert np.mean(million**power) == pytest.approx(moment, abs=4 * math.sqrt(variance / n))


@pytest.mark.slow
def test_many_numbers_fill_bins_and_tails_at_the_right_rate():
    """2^25 of them: 1024 bins of equal probability, and what lies far out, which is rare."""
    edges = stats.norm.ppf(np.arange(1, 1024) / 1024)
    limits = (3.0, 4.0, 4.5, 5.0)
    bins, beyond, pieces = np.zeros(1024), np.zeros((len(limits), 2)), 32
    for piece in range(pieces):
        z = gaussians(1 << 20, counter0=piece << 20)
        bins += np.bincount(np.searchsorted(edges, z), minlength=1024)
        beyond += [[(z > limit).sum(), (z < -limit).sum()] for limit in limits]
    assert stats.chisquare(bins).pvalue > 1e-3
    expected = stats.norm.sf(limits)[:, None] * (pieces << 20)
    assert (np.abs(beyond - expected) < 4 * np.sqrt(expected) + 1).all()


def test_nothing_is_left_out_of_the_tails(million):
    for limit in (3.0, 4.0):
        expected = million.size * stats.norm.sf(limit)
        for side in ((million > limit).sum(), (million < -limit).sum()):
            assert abs(side - expected) < 4 * math.sqrt(expected) + 1


def test_neighbours_are_uncorrelated(million):
    n = million.size
    for values in (million, million**2, np.abs(million) > 2):
        v = (values - values.mean()) / values.std()
        for lag in (1, 2, 4, 15, 16, 17, 32, 48, 64, 1024):
            assert abs(np.dot(v[:-lag], v[lag:])) / n < 4.5 / math.sqrt(n)


def test_streams_of_neighbouring_keys_are_uncorrelated():
    n = 1 << 17
    keys = [(0, 0), (1, 0), (2, 0), (3, 0), (1 << 32, 0), (0, 1), (0, 2), (0, 1 << 63)]
    rows = np.stack([gaussians(n, key=key) for key in keys])
    for values in (rows, rows**2):
        correlation = np.corrcoef(values)[np.triu_indices(len(rows), 1)]
        assert np.abs(correlation).max() < 4.5 / math.sqrt(n)


def test_what_is_no_room_for_gaussians_is_refused():
    with pytest.raises(ValueError, match="float64"):
        tile.fill_gaussian(np.zeros(4), KEY)
    with pytest.raises(ValueError, match="in one piece"):
        tile.fill_gaussian(np.zeros(8, np.float32)[::2], KEY)
    with pytest.raises(ValueError, match="not within a stream"):
        tile.fill_gaussian(np.zeros(4, np.float32), KEY, (1 << 64) - 3)


# ---- noise in reads --------------------------------------------------------------------------------------

WINDOW = Window((3, 3), pads=(1, 1, 1, 1))


def dense_noise(vectors, power=2, **options):
    """(noise that a read adds, its standard deviation by the formula): two blocks by two, bias row in the
    first.
    """
    rng = np.random.default_rng(1)
    blocks = np.array(
        [[0, 0, 21, 30, 1, 0], [20, 0, 20, 30, 0, 630], [0, 30, 21, 7, 1, 1230], [20, 30, 20, 7, 0, 1377]]
    )
    bank = tile.make_bank(np.zeros(1517, np.float32), blocks, 40, 37)
    variances = rng.random(1517, np.float32)
    noise = Noise(bank.with_variances(variances), KEY, power=power, **options)
    x = rng.standard_normal((1, 40), np.float32).repeat(vectors, axis=0)
    sizes = np.abs(x[0].astype(float)) ** power
    expected = np.zeros(37)
    for row0, col0, rows, cols, bias, offset in blocks:
        v = variances[offset : offset + rows * cols].reshape(rows, cols)
        drive = np.abs(1.5) ** power if bias else 0.0
        expected[col0 : col0 + cols] += sizes[row0 : row0 + rows - bias] @ v[: rows - bias] + drive * v[-1]
    return tile.read(x, bank, noise=noise, bias_drive=1.5), np.sqrt(expected)


def conv_noise(images, power=2, **options):
    """The same for a convolution; a constant image, so all positions inside have one deviation."""
    rng = np.random.default_rng(2)
    blocks = np.array([[0, 0, 28, 11, 1, 0], [27, 0, 9, 11, 0, 308]])
    bank = tile.make_bank(np.zeros(407, np.float32), blocks, 36, 11)
    variances = rng.random(407, np.float32)
    noise = Noise(bank.with_variances(variances), KEY, power=power, **options)
    x = np.full((images, 4, 10, 9), -0.7, np.float32)
    v = variances.reshape(37, 11)
    expected = 0.7**power * (v.sum(axis=0) - v[27]) + 1.5**power * v[27]
    y = tile.read(x, bank, noise=noise, bias_drive=1.5, window=WINDOW)
    return y[:, :, 1:-1, 1:-1], np.sqrt(expected)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_noise_has_mean_variance_and_distribution_of_its_formula(kind, power):
    if kind == "dense":
        y, sigma = dense_noise(4000, power)
        z = (y / sigma).T
    else:
        y, sigma = conv_noise(70, power)
        z = np.moveaxis(y / sigma[:, None, None], 1, 0).reshape(11, -1)
    n = z.shape[1]
    assert np.abs(z.mean(axis=1)).max() < 4.5 / math.sqrt(n)
    assert np.abs(z.var(axis=1) - 1).max() < 4.5 * math.sqrt(2 / n)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    # Columns: no covariance.
    correlation = np.corrcoef(z)[np.triu_indices(len(z), 1)]
    assert np.abs(correlation).max() < 4.5 / math.sqrt(n)


def test_noise_of_vectors_images_positions_and_steps_is_uncorrelated():
    y, sigma = dense_noise(4000)
    z = y / sigma
    images, deviation = conv_noise(70)
    w = images / deviation[:, None, None]
    others, _ = dense_noise(4000, step=1)
    pairs = [(z[:-lag], z[lag:]) for lag in (1, 2, 3, 4, 8)]
    pairs += [(z, others / sigma), (w[1:], w[:-1]), (w[4:], w[:-4])]
    pairs += [(w[..., 1:], w[..., :-1]), (w[..., 1:, :], w[..., :-1, :]), (w[:, 1:], w[:, :-1])]
    for one, other in pairs:
        a, b = one.ravel().astype(float), other.ravel().astype(float)
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / math.sqrt(a.size)
        assert abs(np.corrcoef(a * a, b * b)[0, 1]) < 4.5 / math.sqrt(a.size)


def test_noise_of_partial_sums_is_independent():
    """Blocks that share columns and inputs of one size: what each adds to the same column."""
    halves = []
    for half in (0, 1):
        blocks = np.array([[0, 0, 4, 9, 0, 0], [4, 0, 4, 9, 0, 36]])
        variances = np.zeros((2, 36), np.float32)
        variances[half] = 1
        bank = tile.make_bank(np.zeros(72, np.float32), blocks, 8, 9)
        noise = Noise(bank.with_variances(variances.ravel()), KEY)
        halves.append(tile.read(np.ones((5000, 8), np.float32), bank, noise=noise).ravel())
    assert abs(np.corrcoef(*halves)[0, 1]) < 4.5 / math.sqrt(halves[0].size)
    assert np.std(halves[0]) == pytest.approx(2, rel=0.03)


def test_equal_steps_repeat_the_noise_and_other_steps_do_not():
    y, _ = dense_noise(50)
    np.testing.assert_array_equal(dense_noise(50)[0], y)
    assert not np.isclose(dense_noise(50, step=1)[0], y).any()
    assert not np.isclose(dense_noise(50, first=50)[0], y).any()


def test_no_variance_is_no_noise():
    rng = np.random.default_rng(3)
    bank = tile.make_bank(rng.integers(-3, 4, 33).astype(np.float32), np.array([[0, 0, 11, 3, 1, 0]]), 10, 3)
    x = rng.integers(-3, 4, (9, 10)).astype(np.float32)
    noise = Noise(bank.with_variances(np.zeros(33, np.float32)), KEY)
    for converters in (Converters(), Converters(7, 127, adc_full=20.0)):
        quiet = tile.read(x, bank, converters=converters)
        np.testing.assert_array_equal(tile.read(x, bank, converters=converters, noise=noise), quiet)


def test_noise_comes_before_the_adc_and_behind_the_dac():
    """Inputs below half a DAC step make none; sums of 0 leave the ADC as codes, spread by the noise, and
    clip.
    """
    bank = tile.make_bank(np.zeros(2, np.float32), np.array([[0, 0, 2, 1, 0, 0]]), 2, 1)
    noise = Noise(bank.with_variances(np.array([0, 1], np.float32)), KEY)
    x = np.array([[7.0, 0.4], [7.0, 2.0]], np.float32).repeat(2000, axis=0)
    y = tile.read(x, bank, converters=Converters(7, 3, adc_full=3 / 7), noise=noise)[
        :, 0
    ]  # lsb 1, full scale 3
    assert not y[:2000].any()
    codes, counts = np.unique(y[2000:], return_counts=True)
    np.testing.assert_array_equal(codes, np.arange(-3, 4))
    edges = np.array([-np.inf, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, np.inf])
    expected = 2000 * np.diff(stats.norm.cdf(edges / 2))
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_noise_of_the_rank_one_formula_is_that_of_every_device_drawn_by_itself():
    """Brute force: new numbers for each device at each read give column sums of the same distribution."""
    rng = np.random.default_rng(4)
    sigma, x = rng.random((12, 5)) * 0.3, rng.standard_normal(12).astype(np.float32)
    brute = np.einsum("i,vij->vj", x, rng.standard_normal((4000, 12, 5)) * sigma)
    bank = tile.make_bank(np.zeros(60, np.float32), np.array([[0, 0, 12, 5, 0, 0]]), 12, 5)
    noise = Noise(bank.with_variances((sigma**2).astype(np.float32).ravel()), KEY)
    fast = tile.read(x[None].repeat(4000, axis=0), bank, noise=noise)
    for one, other in zip(brute.T, fast.T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3
    # Each entry of the covariance errs by about sigma_j sigma_k sqrt(2 / n) in both.
    spread = np.sqrt(np.outer(brute.var(axis=0), brute.var(axis=0)) / 4000)
    assert (np.abs(np.cov(brute.T) - np.cov(fast.T)) < 4.5 * 2 * spread).all()
