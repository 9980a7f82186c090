"""The compiled training kernels and their numpy twins: equal pulses to the bit, reads but for rounding."""

import numpy as np
import pytest
from instruction_sets import SETS, check_again
from training_banks import STEP, bank, sparse

from pcmc.accel.training import bank as front
from pcmc.accel.training import chain, reference

_training = pytest.importorskip("pcmc.accel._training", reason="no compiled kernels to compare with")

# None, one, odd, whole vectors and one less and more, the edges of tiles (60 x 37) and beyond.
SHAPES = [(0, 0), (1, 1), (5, 7), (17, 16), (33, 15), (60, 37), (61, 38), (130, 101), (250, 10)]
VECTORS = [0, 1, 4]


def pair(monkeypatch, *shape, **options):
    """The same bank twice: with compiled kernels, with the twin."""
    compiled = bank(*shape, **options)
    monkeypatch.setattr(front, "kernels", lambda: reference)
    return compiled, bank(*shape, **options)


def assert_equal_states(compiled, twin):
    assert compiled.counters == twin.counters
    np.testing.assert_array_equal(compiled.weights, twin.weights)
    if compiled.law is not None:
        np.testing.assert_array_equal(compiled.law.low, twin.law.low)


@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_ideal_reads_agree(monkeypatch, shape, vectors):
    compiled, twin = pair(monkeypatch, *shape)
    x, d = sparse(vectors, shape[0]), sparse(vectors, shape[1])
    # Sums of up to 131 products around 1 / sqrt(rows).
    np.testing.assert_allclose(compiled.forward(x), twin.forward(x), rtol=0, atol=2e-5)
    np.testing.assert_allclose(compiled.backward(d), twin.backward(d), rtol=0, atol=2e-5)
    assert compiled.counters == twin.counters


@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_reads_with_converters_and_noise_agree_but_for_a_code_at_a_tie(monkeypatch, shape, vectors):
    compiled, twin = pair(monkeypatch, *shape, physics=True)
    x, d = sparse(vectors, shape[0], size=3.0), sparse(vectors, shape[1])
    for evaluating in (False, True, False):
        check_codes(
            compiled.forward(x, evaluating=evaluating), twin.forward(x, evaluating=evaluating), x, 8 / 255
        )
    check_codes(compiled.backward(d), twin.backward(d), d, 6 / 127)
    assert {k: v for k, v in compiled.counters.items() if "clipped" not in k} == {
        k: v for k, v in twin.counters.items() if "clipped" not in k
    }


def check_codes(got, expected, x, lsb):
    error = np.abs(got - expected)
    limit = lsb * np.maximum(np.abs(x).max(axis=1, initial=0.7), 0.7)[:, None]
    assert (error <= 1.001 * limit + 1e-5).all()
    assert np.mean(error > 0.5 * limit) <= 0.01 if error.size else True


UPDATES = {
    "exact weights": {"with_law": False},
    "exact low tier": {"pulses": None},
    "pulses": {},
    "quiet pulses": {"noise": 0.0},
    "few slots": {"most": 3},
    "deterministic": {"pulses": "deterministic"},
    "deterministic, 7 slots": {"pulses": "deterministic", "most": 7},
    "no bias rows": {"bias": False},
    "steep slopes": {"slope": 20.0},
}


@pytest.mark.parametrize("lr", [0.0, 1e-6, 0.3 * STEP, 5 * STEP, 100 * STEP])
@pytest.mark.parametrize("kind", UPDATES)
@pytest.mark.parametrize("shape", [(1, 1), (17, 16), (61, 38), (130, 5)])
def test_updates_agree_to_the_bit(monkeypatch, shape, kind, lr):
    compiled, twin = pair(monkeypatch, *shape, **UPDATES[kind])
    for step, sign in enumerate((1, -1, 1)):
        x, d = sparse(2, shape[0], seed=step), sparse(2, shape[1], seed=step + 9)
        for one in (compiled, twin):
            one.sign = sign
            one.update(x, d, lr)
    assert_equal_states(compiled, twin)


@pytest.mark.parametrize("shape", SHAPES)
def test_updates_of_any_shape_agree_to_the_bit(monkeypatch, shape):
    compiled, twin = pair(monkeypatch, *shape)
    for vectors in VECTORS:
        x, d = sparse(vectors, shape[0]), sparse(vectors, shape[1])
        compiled.update(x, d, 2 * STEP)
        twin.update(x, d, 2 * STEP)
    assert_equal_states(compiled, twin)


def test_updates_with_values_that_are_no_numbers_agree_and_harm_nothing(monkeypatch):
    compiled, twin = pair(monkeypatch, 17, 16)
    for value in (np.nan, np.inf, -np.inf, 1e-45, 3e38):
        x, d = sparse(1, 17), sparse(1, 16)
        x[0, 3] = d[0, 5] = value
        compiled.update(x, d, STEP)
        twin.update(x, d, STEP)
    assert_equal_states(compiled, twin)
    assert np.isfinite(compiled.weights).all()


def test_the_low_tier_at_its_bounds_agrees_and_is_counted(monkeypatch):
    compiled, twin = pair(monkeypatch, 17, 16)
    x, d = np.ones((40, 17), np.float32), np.ones((40, 16), np.float32)
    for one in (compiled, twin):
        one.update(x, d, 31 * STEP)
    assert_equal_states(compiled, twin)
    assert compiled.counters["pulses_limited"] > 1000


@pytest.mark.parametrize("leak", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_leaks_agree_to_the_bit(monkeypatch, shape, leak):
    compiled, twin = pair(monkeypatch, *shape, leak=leak)
    for one in (compiled, twin):
        for sign, examples in ((1, 80), (-1, 80), (1, 33)):
            one.sign = sign
            one.leak(examples, -0.1)
    assert_equal_states(compiled, twin)


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000])
@pytest.mark.parametrize("kind", chain.ACTIVATIONS)
def test_activations_agree(n, kind):
    x = np.linspace(-20, 20, n, dtype=np.float32) if n != 1000 else sparse(1, n, size=3)[0]
    dy, got, expected = x[::-1].copy(), np.empty_like(x), np.empty_like(x)
    _training.activate(kind, x, got)
    reference.activate(kind, x, expected)
    np.testing.assert_allclose(got, expected, rtol=4e-7, atol=1e-37)
    _training.activate_backward(kind, expected, dy, got)
    reference.activate_backward(kind, expected, dy, expected)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("cols", [1, 2, 10, 37])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("kind", chain.LOSSES)
def test_losses_agree(monkeypatch, kind, labelled, cols):
    rng = np.random.default_rng(cols)
    z = (5 * rng.standard_normal((6, cols))).astype(np.float32)
    labels = rng.integers(0, max(cols, 2), 6) if labelled else np.zeros(0, np.int64)
    wanted = np.zeros((0, 0), np.float32) if labelled else rng.random((6, cols)).astype(np.float32)
    found = []
    for kernels in (_training, reference):
        loss, grad = np.empty(6, np.float32), np.empty_like(z)
        right = kernels.loss_and_grad(kind, z, labels, wanted, loss, grad)
        found.append((right, loss, grad))
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("simd", SETS)
def test_every_instruction_set_agrees_with_the_twin(simd):
    check_again(__file__, "agree", simd)
