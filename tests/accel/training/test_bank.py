"""A bank: pulses have the mean and the variance of their formula, and follow the law of a device."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from training_banks import STEP, bank, law, narrowed, sparse, table

from pcmc.accel.training.bank import Port, PulseLaw, Pulses, TrainingBank


def plain(
    rows, cols, *, step=2.0**-10, noise=0.0, most=31, kind="stochastic", half=1000.0, low=0.0, **law_options
):
    """One block without a bias row, all devices alike: steps of exactly `step`, room of `half`."""
    cells = rows * cols
    full = {
        "up": step, "down": step, "slope_up": 0.0, "slope_down": 0.0, "low_min": -half, "low_max": half,
    } | law_options  # fmt: skip
    pairs = {"steps": ("up", "down"), "slopes": ("slope_up", "slope_down"), "bounds": ("low_min", "low_max")}
    arrays = {
        name: narrowed(np.tile([full[one], full[other]], (cells, 1))) for name, (one, other) in pairs.items()
    }
    made = PulseLaw(
        np.full(cells, low, np.float32),
        **arrays,
        leak=None,
        low_mid=0.0,
        noise=noise,
        step=step,
        leak_mean=0.0,
    )
    blocks = np.array([[0, 0, rows, cols, 0, 0]])
    return TrainingBank(blocks, rows, cols, np.zeros(cells, np.float32), law=made, pulses=Pulses(kind, most))


def test_without_a_law_an_update_is_float_sgd_to_the_bit():
    one = bank(130, 101, with_law=False)
    x, d, lr = sparse(3, 130), sparse(3, 101), np.float32(0.01)
    blocks, _ = table(130, 101)
    expected = one.weights.copy()
    for v in range(3):
        for row0, col0, rows, cols, bias, offset in blocks.tolist():
            part = expected[offset : offset + rows * cols].reshape(rows, cols)
            drive = np.append(x[v, row0 : row0 + rows - bias], np.full(bias, 1 / np.float32(0.7)))
            part -= lr * (drive[:, None] * d[v, col0 : col0 + cols])
    one.update(x, d, 0.01)
    np.testing.assert_array_equal(one.weights, expected)


@pytest.mark.parametrize("kind", ["exact weights", "exact low tier", "stochastic", "deterministic"])
@pytest.mark.parametrize("drive", [0.5, 8.0])
def test_a_bias_changes_as_in_sgd_whatever_its_row_is_driven_with(kind, drive):
    step, n, d = 2.0**-10, 400, np.array([1.0, -0.5, 0.0], np.float32)
    blocks, weights = np.array([[0, 0, 1, 3, 1, 0]]), np.zeros(6, np.float32)
    device = None if kind == "exact weights" else plain(2, 3, step=step).law
    pulses = Pulses(kind) if kind in ("stochastic", "deterministic") else None
    one = TrainingBank(blocks, 1, 3, weights, bias_drive=drive, law=device, pulses=pulses)
    x, lr = np.full((1, 1), 1 / drive, np.float32), 4 * step * drive
    for _ in range(n):
        one.update(x, d[None], lr)
    bias = one.forward(np.zeros((1, 1), np.float32))[0]
    # Both lines at least at half of full scale: a binomial number of pulses, at most 31 a time.
    spread = 5 * np.sqrt(4 * n) * step * drive if kind == "stochastic" else 1e-3 * n * lr
    rounded = n * drive * step if kind == "deterministic" else 0
    np.testing.assert_allclose(bias, -n * lr * d, rtol=0, atol=spread + rounded)


def test_reads_are_the_products_with_the_matrix_that_the_blocks_make():
    one = bank(130, 101)
    matrix, bias = np.zeros((130, 101)), np.zeros(101)
    for row0, col0, rows, cols, biased, offset in table(130, 101)[0].tolist():
        part = one.weights[offset : offset + rows * cols].reshape(rows, cols)
        matrix[row0 : row0 + rows - biased, col0 : col0 + cols] = part[: rows - biased]
        bias[col0 : col0 + cols] += part[-1] * biased
    x, d = sparse(5, 130), sparse(5, 101)
    np.testing.assert_allclose(one.forward(x), x @ matrix + 0.7 * bias, rtol=0, atol=1e-5)
    np.testing.assert_allclose(one.backward(d), d @ matrix.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1e-4, 3e-3, 1.0])
def test_the_mean_of_pulses_is_the_wanted_change_also_for_tiny_gradients(size):
    """Lines far below the largest: 16-bit chances must not make them dead, or twice what they are."""
    step, lr, n = 2.0**-10, 2.0**-10, 40_000
    one = plain(40, 40, step=step)
    x, d = np.full((1, 40), size, np.float32), np.full((1, 40), 1.0, np.float32)
    x[0, 0] = 1.0
    one.update(np.repeat(x, n, axis=0), np.repeat(d, n, axis=0), lr)
    pulses = -one.weights.reshape(40, 40) / step
    np.testing.assert_allclose(pulses[0], n, rtol=0)  # both lines at 1: always
    mean, expected = pulses[1:].mean(), n * size
    # Lines are shared: 39 rows, each fires with p = size, and all columns always do.
    assert mean == pytest.approx(expected, abs=4 * np.sqrt(expected * max(1 - size, 0) / 39) + 1e-9)
    assert one.counters["coincidences"] == pulses.sum()


def test_the_number_of_pulses_has_the_mean_and_variance_of_the_formula():
    """Slots are independent: a binomial number of BL slots with probability p q in each."""
    step, n = 2.0**-10, 20_000
    one = plain(2, 2, step=step)
    x, d = np.array([[1.0, 0.3]], np.float32), np.array([[0.2, -1.0]], np.float32)
    lr, slots, counts = 4.5 * step, 5, np.empty((n, 2, 2))
    before = np.zeros((2, 2))
    for i in range(n):
        one.update(x, d, lr)
        now = one.weights.reshape(2, 2) / step
        counts[i], before = now - before, now
    wanted = -(lr / step) * x.T * d
    p, q = np.abs(x[0]) * np.sqrt(4.5 / slots), np.abs(d[0]) * np.sqrt(4.5 / slots)
    both = np.outer(p, q)
    variance = slots * both * (1 - both)
    assert (np.sign(counts.mean(axis=0)) == np.sign(wanted)).all()
    assert (np.abs(counts.mean(axis=0) - wanted) < 4.5 * np.sqrt(variance / n)).all()
    fourth = 3 * variance**2 + variance
    assert (np.abs(counts.var(axis=0) - variance) < 4.5 * np.sqrt(fourth / n)).all()
    binomial = stats.binom.pmf(np.arange(6), slots, both[1, 0])
    found = np.bincount(np.abs(counts[:, 1, 0]).astype(int), minlength=6)
    keep = n * binomial > 5
    assert (
        stats.chisquare(
            found[keep], n * binomial[keep] * found[keep].sum() / (n * binomial[keep].sum())
        ).pvalue
        > 1e-3
    )


def test_each_update_draws_new_pulses_and_a_restored_state_repeats_them():
    one = bank(61, 38)
    x, d = sparse(1, 61), sparse(1, 38)
    state, weights, low = one.state(), one.weights.copy(), one.law.low.copy()
    changes = []
    for _ in range(2):
        before = one.weights.copy()
        one.update(x, d, STEP)
        changes.append(one.weights - before)
    assert not np.array_equal(changes[0] != 0, changes[1] != 0)
    after = one.weights.copy()
    one.weights[:], one.law.low[:] = weights, low
    one.restore(state)
    for _ in range(2):
        one.update(x, d, STEP)
    np.testing.assert_array_equal(one.weights, after)


@pytest.mark.parametrize("rising", [True, False])
def test_pulses_of_one_direction_follow_the_closed_form(rising):
    """Steps that shrink by a share k of the distance: low(n) = s / k (1 - (1 - k)^n)."""
    step, k, n = 2.0**-10, 2.0**-9, 500
    one = plain(3, 21, step=step, slope_up=k, slope_down=k)
    x, d = np.ones((n, 3), np.float32), np.full((n, 21), -1.0 if rising else 1.0, np.float32)
    one.update(x, d, step)
    expected = step / k * (1 - (1 - k) ** n) * (1 if rising else -1)
    np.testing.assert_allclose(one.law.low, expected, rtol=1e-4)
    np.testing.assert_allclose(one.weights, expected, rtol=1e-4)
    assert one.counters["pulses_up" if rising else "pulses_down"] == n * 63


@pytest.mark.parametrize("k", [2.0**-12, 2.0**-6, 0.25])
def test_pulses_of_one_update_have_the_law_of_pulses_one_after_the_other(k):
    """With a share k lost of the distance: mean s / k (1 - (1 - k)^n), and the sum of n variances."""
    step, n, noise, cells = 2.0**-10, 20, 0.3, 100 * 100
    one = plain(100, 100, step=step, noise=noise, slope_up=k, slope_down=k)
    one.update(np.ones((1, 100), np.float32), -np.ones((1, 100), np.float32), n * step)
    assert one.counters["pulses_up"] == n * cells
    powers = (1 - k) ** np.arange(n)
    mean, deviation = step * powers.sum(), noise * step * np.sqrt((powers**2).sum())
    assert one.law.low.mean() == pytest.approx(mean, abs=4.5 * deviation / np.sqrt(cells) + 2e-4 * mean)
    share = 1 - min(n * k, 3.0) ** 2 / 24  # of the deviation, as `reference` says, up to where all is lost
    tolerance = 4.5 / np.sqrt(2 * cells) + (0.2 if n * k > 1 else 0.0)
    assert one.law.low.std() / deviation == pytest.approx(share, abs=tolerance)


def test_noise_of_pulses_has_the_stated_deviation_and_is_gaussian():
    step, n = 2.0**-10, 25
    one = plain(100, 100, step=step, noise=0.3)
    one.update(np.ones((n, 100), np.float32), -np.ones((n, 100), np.float32), step)
    z = (one.law.low.astype(float) / step - n) / (0.3 * np.sqrt(n))
    assert abs(z.mean()) < 4.5 / 100
    assert abs(z.var() - 1) < 4.5 * np.sqrt(2) / 100
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert one.counters["pulse_noise"] == n * 10_000


def test_up_and_down_have_steps_of_their_own_and_polarity_turns_the_weight():
    step = 2.0**-10
    for sign in (1, -1):
        one = plain(1, 2, step=step, up=2 * step, down=step)
        one.sign = sign
        one.update(np.ones((1, 1), np.float32), np.array([[1.0, -1.0]], np.float32), step)
        ways = np.array([-1, 2]) if sign > 0 else np.array([2, -1])  # of the low tier
        np.testing.assert_array_equal(one.law.low, ways * step)
        np.testing.assert_array_equal(one.weights, sign * ways * step)


def test_what_the_lines_cannot_do_is_clipped_and_counted():
    one = plain(4, 5, step=2.0**-10, most=10)
    x, d = np.ones((1, 4), np.float32), np.ones((1, 5), np.float32)
    one.update(x, d, 40 * 2.0**-10)
    np.testing.assert_array_equal(one.weights, -10 * 2.0**-10)
    assert one.counters["lines_clipped"] == 9
    one.update(x, d, 10 * 2.0**-10)
    assert one.counters["lines_clipped"] == 9


def test_bounds_stop_the_low_tier_and_cells_that_they_stop_are_counted():
    step = 2.0**-10
    for kind in ("stochastic", None):
        one = plain(1, 3, step=step, half=4 * step)
        if kind is None:
            one = TrainingBank(np.array([[0, 0, 1, 3, 0, 0]]), 1, 3, np.zeros(3, np.float32), law=one.law)
        one.update(np.ones((1, 1), np.float32), np.array([[1, -1, 0]], np.float32), 6 * step)
        np.testing.assert_array_equal(one.law.low, np.array([-4, 4, 0]) * step)
        assert one.counters["pulses_limited"] == 2


def test_deterministic_pulses_are_the_products_of_counts_spread_evenly():
    step, most = 2.0**-10, 31
    one = plain(4, 4, step=step, kind="deterministic")
    x = np.array([[1.0, 0.5, 0.25, 0.01]], np.float32)
    one.update(x, -x, most * step)
    found = one.law.low.reshape(4, 4) / step
    counts = np.rint(x[0] * most)
    np.testing.assert_array_equal(found[0], counts)
    np.testing.assert_array_equal(found[:, 0], counts)
    assert np.abs(found - np.outer(counts, counts) / most).max() <= 2
    assert not found[3].any()  # below half a slot: lost, as its description says
    assert one.counters["rows_fired"] == 3


def test_the_leak_is_that_of_each_device_and_equal_ones_leave_no_pull():
    one = bank(17, 16, spread=0.1)
    low, weights = one.law.low.astype(float), one.weights.astype(float)
    leak = (one.law.leak.astype(np.uint32) << 16).view(np.float32).astype(float)
    one.sign = -1
    one.leak(80, -0.2)
    expected = (low - 0.2) * (1 - leak) + 0.2 * (1 - 0.0037)
    np.testing.assert_allclose(one.law.low, expected, rtol=0, atol=1e-7)
    np.testing.assert_allclose(one.weights, weights - (expected - low), rtol=0, atol=1e-6)
    alike = bank(17, 16, leak=False)
    low = alike.law.low.copy()
    alike.leak(40, -0.2)
    np.testing.assert_allclose(alike.law.low, low * (1 - 0.5 * 0.0037), rtol=1e-6)


def test_fast_noise_has_the_variance_of_its_formula_both_ways():
    blocks, cells = table(40, 45)
    variances = narrowed(np.random.default_rng(0).random(cells))
    one = TrainingBank(blocks, 40, 45, np.zeros(cells, np.float32), bias_drive=0.5, variances=variances)
    wide = (one.variances.astype(np.uint32) << 16).view(np.float32)
    x, d, forward, backward, n = sparse(1, 40)[0], sparse(1, 45)[0], np.zeros(45), np.zeros(40), 4000
    for row0, col0, rows, cols, bias, offset in blocks.tolist():
        v = wide[offset : offset + rows * cols].reshape(rows, cols)
        drive = np.append(x[row0 : row0 + rows - bias], [0.5] * bias)
        forward[col0 : col0 + cols] += drive**2 @ v
        backward[row0 : row0 + rows - bias] += v[: rows - bias] @ d[col0 : col0 + cols] ** 2
    for got, variance in (
        (one.forward(np.tile(x, (n, 1))), forward), (one.backward(np.tile(d, (n, 1))), backward),
    ):  # fmt: skip
        z = got / np.sqrt(variance)
        assert np.abs(z.var(axis=0) - 1).max() < 5 * np.sqrt(2 / n)
        assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
        assert np.abs(np.corrcoef(z.T)[np.triu_indices(z.shape[1], 1)]).max() < 5 / np.sqrt(n)


def test_a_fixed_offset_of_each_converter_is_added_in_lsb_and_clipping_is_counted():
    offset = np.array([0.0, 1.0, -2.0, 0.0], np.float32)
    blocks = np.array([[0, 0, 1, 4, 0, 0]])
    weights = np.array([0.5, 0.5, 0.5, 5.0], np.float32)
    one = TrainingBank(blocks, 1, 4, weights, forward=Port(0, 4, 1.0, offset))
    np.testing.assert_array_equal(one.forward(np.array([[2.0]], np.float32)), [[1.0, 1.5, 0.0, 2.0]])
    assert one.counters["clipped_forward"] == 1
    assert not one.forward(np.zeros((1, 1), np.float32)).any()


@pytest.mark.parametrize("physics", [False, True])
def test_vectors_one_by_one_and_in_a_batch_are_the_same_bits(physics):
    one, many = bank(130, 101, physics=physics), bank(130, 101, physics=physics)
    x, d = sparse(7, 130), sparse(7, 101)
    y, e = many.forward(x), many.backward(d)
    many.update(x, d, STEP)
    for v in range(7):
        part = slice(v, v + 1)
        np.testing.assert_array_equal(one.forward(x[part])[0], y[v])
        np.testing.assert_array_equal(one.backward(d[part])[0], e[v])
    for v in range(7):
        one.update(x[v : v + 1], d[v : v + 1], STEP)
    np.testing.assert_array_equal(one.weights, many.weights)
    assert one.state() == many.state()


def test_reads_of_an_evaluation_leave_training_as_it_was():
    one, other = bank(61, 38, physics=True), bank(61, 38, physics=True)
    x = sparse(4, 61)
    evaluated = one.forward(x, evaluating=True)
    np.testing.assert_array_equal(one.forward(x), other.forward(x))
    assert not np.array_equal(evaluated, one.forward(x, evaluating=True))


CHILD = """
import sys, zlib
sys.path.insert(0, {folder!r})
from training_banks import bank, sparse, STEP
one = bank(130, 101, physics=True)
x, d = sparse(20, 130), sparse(20, 101)
one.update(x, d, STEP)
print(zlib.crc32(one.weights.tobytes()), zlib.crc32(one.law.low.tobytes()), one.counters["coincidences"])
"""


@pytest.mark.slow
def test_every_process_and_instruction_set_gives_the_same_pulses():
    folder = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    environments = [os.environ | {"PCMC_SIMD": simd} for simd in ("plain", "avx2", "avx512", "avx512")]
    environments.append(os.environ | {"PCMC_KERNELS": "numpy"})
    running = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD.format(folder=folder)], env=env, stdout=subprocess.PIPE, text=True
        )
        for env in environments
    ]
    found = [one.communicate()[0] for one in running]
    assert len(found[0].split()) == 3
    assert found == [found[0]] * 5


def test_what_does_not_fit_is_refused():
    one = bank(17, 16)
    x, d = sparse(2, 17), sparse(2, 16)
    with pytest.raises(ValueError, match="should be float32 \\[vectors, 17\\]"):
        one.forward(d)
    with pytest.raises(ValueError, match="2 inputs and 1 errors"):
        one.update(x, d[:1], 0.1)
    with pytest.raises(ValueError, match="learning rate is nan"):
        one.update(x, d, float("nan"))
    with pytest.raises(ValueError, match="polarity is 0"):
        one.sign = 0
    with pytest.raises(ValueError, match="variances is float32"):
        one.variances = np.zeros(one.weights.size, np.float32)
    with pytest.raises(ValueError, match="a state has the entries"):
        one.restore({"reads": 1})
    with pytest.raises(ValueError, match="'analog'"):
        Pulses("analog")
    with pytest.raises(ValueError, match="most pulses are 32"):
        Pulses(most=32)
    blocks, cells = table(17, 16)
    with pytest.raises(ValueError, match="low is float32"):
        TrainingBank(blocks, 17, 16, np.zeros(cells, np.float32), law=law(cells + 1))
    with pytest.raises(ValueError, match="adc_full of the forward port"):
        TrainingBank(blocks, 17, 16, np.zeros(cells, np.float32), forward=Port(7, 7))
    with pytest.raises(ValueError, match="outside of the matrix"):
        TrainingBank(blocks, 16, 16, np.zeros(cells, np.float32))
