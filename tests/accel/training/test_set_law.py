"""SET pulses: their mean curve, the law of their noise, the counter of pairs; kernels and twin to the bit."""

import itertools

import numpy as np
import pytest
from effects_measures import deviation, ks, mean
from instruction_sets import SETS, check_again
from training_banks import narrowed, sparse, table

from pcmc.accel.training import bank as front
from pcmc.accel.training import reference
from pcmc.accel.training.bank import Pulses, TrainingBank
from pcmc.accel.training.chain import Chain, activate, activate_backward, loss_and_grad
from pcmc.accel.training.set_law import SetLaw, exponential, mean_curve, mean_step

STEP, GROWTH, DECAY = 0.005, 27.235, 5.0  # of aihwkit's PCMPresetDevice, relative to the range
UNIT = 0.02  # mean step of the test's banks
SHAPES = [(0, 0), (1, 1), (5, 7), (17, 16), (61, 38)]  # tiles are 60 x 37


def law(cells, pairs=1, *, noise=0.6, spread=0.2, start=0.5, stuck=0.0, seed=0):
    """Devices of a range of about 1, from 0 to `start` up in it."""
    rng = np.random.default_rng(seed)
    size = pairs * cells

    def spread_about(value, share):
        return narrowed(value * np.maximum(1 + share * rng.standard_normal(size), 0.05))

    def steps():
        found = spread_about(STEP, spread)
        found[rng.random(size) < stuck] = 0
        return found

    return SetLaw(
        plus=(start * rng.random(size)).astype(np.float32),
        minus=(start * rng.random(size)).astype(np.float32),
        step_plus=steps(),
        step_minus=steps(),
        top_plus=spread_about(1.0, spread / 2),
        top_minus=spread_about(1.0, spread / 2),
        growth=GROWTH,
        decay=DECAY,
        noise=noise,
        noise_offset=0.021,
        noise_slope=0.108,
        step=UNIT,
        pairs=pairs,
    )


def bank(rows, cols, pairs=1, *, pulses="stochastic", most=31, bias=True, **options):
    """A bank of `rows` x `cols`, in blocks."""
    blocks, cells = table(rows, cols, bias=bias)
    devices = law(cells, pairs, **options)
    weights = (devices.plus - devices.minus).reshape(pairs, cells).sum(axis=0)
    return TrainingBank(
        blocks, rows, cols, weights.astype(np.float32), bias_drive=0.7, law=devices,
        pulses=Pulses(pulses, most), seed=3, place=(1, 2),
    )  # fmt: skip


def pulse(one, ups=True, times=1):
    """One pulse on each cell of a bank without bias rows, so many times."""
    rows, cols = one.rows, one.cols
    x, d = np.ones((times, rows), np.float32), np.full((times, cols), -1.0 if ups else 1.0, np.float32)
    one.update(x, d, one.law.step)


# --- the curve ---


def test_the_mean_curve_is_that_of_the_published_preset():
    table_of = {1: 0.14, 2: 0.21, 3: 0.27, 5: 0.34, 10: 0.46, 20: 0.61, 50: 0.87, 100: 1.0}
    curve = mean_curve(STEP, GROWTH, DECAY, 100)
    for pulses, wanted in table_of.items():
        assert curve[pulses] == pytest.approx(wanted, abs=0.0052), pulses
    w = 0.0  # the preset's own words: w from 0 to 2
    for k in range(1, 50):
        w = min(w + 0.01 * max(1 + 27.235 * np.exp(-2.5 * w), 0), 2.0)
        assert curve[k] == pytest.approx(w / 2)


def test_pulses_without_noise_follow_the_mean_curve():
    one = bank(12, 9, noise=0.0, spread=0.0, start=0.0, bias=False)
    top, step = float(2**-7 * 128), narrowed(STEP)
    step = float((step.astype(np.uint32) << 16).view(np.float32))
    curve = mean_curve(step, GROWTH, DECAY, 100)
    for k in range(1, 101):
        pulse(one)
        np.testing.assert_allclose(one.law.plus, top * curve[k], rtol=2e-6)
    assert not one.law.minus.any()
    np.testing.assert_allclose(one.weights, one.law.plus, rtol=1e-5)
    assert one.counters["pulses_up"] == 100 * 108
    assert one.counters["pulses_limited"] > 0


def test_the_mean_step_leads_up_to_its_end():
    curve = mean_curve(STEP, GROWTH, DECAY, 100)
    pulses = np.flatnonzero(curve > 0.75)[0]
    assert 0.75 / pulses <= mean_step(STEP, GROWTH, DECAY, 0.75) <= 0.75 / (pulses - 1)
    assert mean_step(0.1, 0.0, 5.0, 0.75) == pytest.approx(0.1)
    assert mean_step(0.1, 1.0, 5.0, 0.0) == pytest.approx(0.2)


def test_the_exponential_is_one():
    x = np.linspace(-50, 0, 100_001, dtype=np.float32)
    np.testing.assert_allclose(exponential(x), np.exp(x.astype(np.float64)), rtol=3e-7)


# --- noise ---


@pytest.mark.parametrize("level", [0.25, 0.5])
def test_the_noise_of_a_pulse_grows_with_the_step_and_the_conductance(level):
    one = bank(300, 100, spread=0.0, bias=False)
    one.law.plus[:] = level
    pulse(one)
    step = float((narrowed(STEP).astype(np.uint32) << 16).view(np.float32)) * (
        1 + GROWTH * np.exp(-DECAY * level)
    )
    sigma = 0.6 * (step + 0.021 + 0.108 * level)
    found = (one.law.plus.astype(np.float64) - level - step) / sigma
    for statistic in (ks("normal", found), mean("mean", found), deviation("deviation", found)):
        assert statistic.deviation < statistic.allowed + 1e-3
    assert one.counters["pulse_noise"] == 30_000


def test_conductances_stay_between_nothing_and_the_end_of_their_range():
    one = bank(40, 30, bias=False)
    for k in range(60):
        pulse(one, ups=k % 2 == 0)
    for held, top in ((one.law.plus, one.law.top_plus), (one.law.minus, one.law.top_minus)):
        assert (held >= 0).all()
        assert (held <= (top.astype(np.uint32) << np.uint32(16)).view(np.float32)).all()
    np.testing.assert_allclose(one.weights, one.law.plus - one.law.minus, atol=1e-5)


# --- which device is pulsed ---


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("ups", [True, False])
def test_a_pulse_raises_one_device_of_the_pair_and_the_weight_follows_the_polarity(sign, ups):
    one = bank(5, 7, noise=0.0, start=0.2, bias=False)
    one.sign = sign
    before = one.law.plus.copy(), one.law.minus.copy(), one.weights.copy()
    pulse(one, ups)
    plus, minus = one.law.plus - before[0], one.law.minus - before[1]
    raised, other = (plus, minus) if ups == (sign > 0) else (minus, plus)
    assert (raised > 0).all()
    assert not other.any()
    assert ((one.weights > before[2]) == ups).all()


def test_a_counter_says_which_pair_the_next_update_pulses():
    one = bank(4, 6, 3, noise=0.0, start=0.0, bias=False)
    for update in range(7):
        before = one.law.plus.reshape(3, -1).copy()
        pulse(one)
        moved = (one.law.plus.reshape(3, -1) != before).any(axis=1)
        assert moved.tolist() == [pair == update % 3 for pair in range(3)]


def test_a_stuck_device_takes_pulses_and_holds_what_it_held():
    one = bank(30, 20, stuck=0.3, bias=False)
    plus, stuck = one.law.plus.copy(), one.law.step_plus == 0
    pulse(one, times=3)
    np.testing.assert_array_equal(one.law.plus[stuck], plus[stuck])
    assert (one.law.plus != plus).mean() > 0.6
    assert one.counters["pulses_up"] == 3 * 600


def test_pairs_do_not_leak_and_need_pulses():
    one = bank(5, 4)
    before = one.weights.copy()
    one.leak(80, -0.1)
    np.testing.assert_array_equal(one.weights, before)
    blocks, cells = table(5, 4)
    with pytest.raises(ValueError, match="a law of SET pulses takes pulses"):
        TrainingBank(blocks, 5, 4, before, law=law(cells))


def test_a_law_that_does_not_fit_the_cells_is_refused():
    blocks, cells = table(5, 4)
    weights = np.zeros(cells, np.float32)
    with pytest.raises(
        ValueError, match=rf"^plus is float32 \({cells + 1},\), should be float32 \({cells},\)"
    ):
        TrainingBank(blocks, 5, 4, weights, law=law(cells + 1), pulses=Pulses())


# --- kernels, twin, chain ---


def pair_of(monkeypatch, *shape, **options):
    """The same bank twice: with compiled kernels, with the twin."""
    pytest.importorskip("pcmc.accel._training", reason="no compiled kernels to compare with")
    compiled = bank(*shape, **options)
    monkeypatch.setattr(front, "kernels", lambda: reference)
    return compiled, bank(*shape, **options)


def assert_equal_states(one, other):
    assert one.counters == other.counters
    np.testing.assert_array_equal(one.weights, other.weights)
    for name in ("plus", "minus"):
        np.testing.assert_array_equal(getattr(one.law, name), getattr(other.law, name))


OPTIONS = {
    "pulses": {},
    "quiet pulses": {"noise": 0.0},
    "few slots": {"most": 3},
    "deterministic": {"pulses": "deterministic"},
    "no bias rows": {"bias": False},
    "stuck": {"stuck": 0.3},
    "near the end": {"start": 1.0},
}


@pytest.mark.parametrize("lr", [0.3 * UNIT, 4 * UNIT])
@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_updates_agree_to_the_bit(monkeypatch, shape, kind, pairs, lr):
    compiled, twin = pair_of(monkeypatch, *shape, pairs, **OPTIONS[kind])
    for step, sign in enumerate((1, -1, 1)):
        x, d = sparse(1, shape[0], seed=step), sparse(1, shape[1], seed=step + 9)
        for one in (compiled, twin):
            one.sign = sign
            one.update(x, d, lr)
    assert_equal_states(compiled, twin)


def test_updates_with_values_that_are_no_numbers_agree_and_harm_nothing(monkeypatch):
    compiled, twin = pair_of(monkeypatch, 17, 16)
    for value in (np.nan, np.inf, -np.inf, 1e-45, 3e38):
        x, d = sparse(1, 17), sparse(1, 16)
        x[0, 3] = d[0, 5] = value
        compiled.update(x, d, UNIT)
        twin.update(x, d, UNIT)
    assert_equal_states(compiled, twin)
    assert np.isfinite(compiled.weights).all()


@pytest.mark.parametrize("pairs", [1, 3])
def test_a_chain_does_what_its_banks_do_one_by_one_to_the_bit(pairs):
    sizes = (61, 38, 17, 5)
    x, labels = sparse(90, 61), np.random.default_rng(1).integers(0, 5, 90)
    chains = []
    for _ in range(2):
        banks = [bank(rows, cols, pairs, seed=rows) for rows, cols in itertools.pairwise(sizes)]
        chains.append(Chain(banks, ("tanh", "tanh", "none"), "cross_entropy"))
    fast, slow = chains
    loss, _ = fast.train(x, labels, np.arange(90), 0.01)
    total = 0.0
    for i in range(90):
        values = [x[i : i + 1]]
        for one, kind in zip(slow.banks, slow.activations, strict=True):
            values.append(activate(kind, one.forward(values[-1])))
        error, d = loss_and_grad("cross_entropy", values[-1], labels[i : i + 1])
        total += float(error[0])
        errors = []
        for k in (2, 1, 0):
            errors.append(activate_backward(slow.activations[k], values[k + 1], d))
            d = slow.banks[k].backward(errors[-1]) if k else d
        for one, before, back in zip(slow.banks, values, reversed(errors), strict=False):
            one.update(before, back, 0.01)
    assert loss == pytest.approx(total, rel=1e-12)
    for one, other in zip(fast.banks, slow.banks, strict=True):
        assert one.counters["coincidences"] > 100
        assert_equal_states(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("simd", SETS)
def test_every_instruction_set_agrees_with_the_twin(simd):
    check_again(__file__, "agree", simd)
