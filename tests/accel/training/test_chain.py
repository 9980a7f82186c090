"""A chain trained in one call does what its banks do one by one, to the bit."""

import itertools

import numpy as np
import pytest
from training_banks import STEP, bank, sparse

from pcmc.accel.training import bank as front
from pcmc.accel.training import reference
from pcmc.accel.training.bank import LEAK_EVERY
from pcmc.accel.training.chain import Chain, activate, activate_backward, loss_and_grad

SIZES = (61, 38, 17, 5)
KINDS = {
    "exact": {"with_law": False},
    "pulses": {},
    "pulses and all physics": {"physics": True},
    "exact low tier": {"pulses": None},
}


def banks(**options):
    return [bank(rows, cols, **options) for rows, cols in itertools.pairwise(SIZES)]


def data(n=30, cols=5):
    x = sparse(n, SIZES[0])
    return x, np.random.default_rng(1).integers(0, cols, n)


def one_by_one(chain, x, targets, order, lr, first_example, pulls):
    """What `Chain.train` says that it does, in Python."""
    pulls = [list(pull) for pull in pulls]
    total, right = 0.0, 0
    first = chain.trainable.index(True)
    for count, i in enumerate(order, first_example + 1):
        values = [x[i : i + 1]]
        for one, kind in zip(chain.banks, chain.activations, strict=True):
            values.append(activate(kind, one.forward(values[-1])))
        loss, d = loss_and_grad(chain.loss, values[-1], targets[i : i + 1])
        total += float(loss[0])
        right += int(values[-1].argmax() == np.argmax(targets[i]) if targets.ndim > 1 else
                     values[-1].argmax() == targets[i])  # fmt: skip
        errors = {}
        for k in range(len(chain.banks) - 1, first - 1, -1):
            errors[k] = activate_backward(chain.activations[k], values[k + 1], d)
            d = chain.banks[k].backward(errors[k]) if k > first else d
        for k, one in enumerate(chain.banks):
            if chain.trainable[k]:
                one.update(values[k], errors[k], lr)
        for k, one in enumerate(chain.banks):
            if count % LEAK_EVERY == 0 and chain.trainable[k] and one.law is not None:
                one.leak(LEAK_EVERY, pulls[k][0])
                pulls[k][0] *= pulls[k][1]
    return total, right


@pytest.mark.parametrize("trainable", [(True, True, True), (False, True, False), (True, False, True)])
@pytest.mark.parametrize(
    ("activations", "loss"),
    [(("tanh", "tanh", "none"), "cross_entropy"), (("relu", "sigmoid", "none"), "mse"),
     (("none", "relu", "none"), "bce"), (("sigmoid", "relu", "tanh"), "mse")],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_one_call_and_bank_by_bank_are_the_same_bits(kind, activations, loss, trainable):
    x, labels = data()
    targets = labels if loss == "cross_entropy" else np.eye(5, dtype=np.float32)[labels]
    order = np.random.default_rng(2).permutation(30)
    pulls = [(-0.1, 0.99), (0.2, 0.98), (0.0, 1.0)]
    chains = [Chain(banks(**KINDS[kind]), activations, loss, trainable) for _ in range(2)]
    found = chains[0].train(x, targets, order, 2 * STEP, LEAK_EVERY - 7, pulls)
    expected = one_by_one(chains[1], x, targets, order, 2 * STEP, LEAK_EVERY - 7, pulls)
    assert found == expected
    for one, other in zip(chains[0].banks, chains[1].banks, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
        assert one.state() == other.state()
    changed = [one.counters["updates"] > 0 for one in chains[0].banks]
    assert changed == list(trainable)


@pytest.mark.parametrize("kind", KINDS)
def test_the_twin_trains_alike(monkeypatch, kind):
    x, labels = data(12)
    compiled = Chain(banks(**KINDS[kind]), ("tanh", "tanh", "none"), "cross_entropy")
    start = [one.weights.copy() for one in compiled.banks]
    losses = [compiled.train(x, labels, np.arange(12), 2 * STEP)[0]]
    monkeypatch.setattr(front, "kernels", lambda: reference)
    monkeypatch.setattr("pcmc.accel.training.chain.kernels", lambda: reference)
    twin = Chain(banks(**KINDS[kind]), ("tanh", "tanh", "none"), "cross_entropy")
    losses.append(twin.train(x, labels, np.arange(12), 2 * STEP)[0])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    for one, other, before in zip(compiled.banks, twin.banks, start, strict=True):
        # A last bit in a sum moves a threshold, rarely: nearly all pulses are the same.
        moved = np.linalg.norm(other.weights - before)
        assert np.linalg.norm(one.weights - other.weights) < (0.5 if "physics" in kind else 0.1) * moved


def test_examples_in_two_calls_are_those_of_one():
    x, labels = data(100)
    order, pulls = np.arange(100), [(-0.1, 0.9)] * 3
    one = Chain(banks(), ("tanh", "tanh", "none"), "cross_entropy")
    two = Chain(banks(), ("tanh", "tanh", "none"), "cross_entropy")
    one.train(x, labels, order, STEP, 0, pulls)
    two.train(x, labels, order[:33], STEP, 0, pulls)
    two.train(x, labels, order[33:], STEP, 33, pulls)
    for a, b in zip(one.banks, two.banks, strict=True):
        np.testing.assert_array_equal(a.weights, b.weights)


def test_predictions_in_between_change_nothing():
    x, labels = data()
    chains = [Chain(banks(physics=True), ("tanh", "tanh", "none"), "cross_entropy") for _ in range(2)]
    for turn, chain in enumerate(chains):
        for start in (0, 15):
            chain.train(x, labels, np.arange(start, start + 15), STEP, start)
            if turn:
                assert chain.predict(x).shape == (30, 5)
    np.testing.assert_array_equal(chains[0].banks[0].weights, chains[1].banks[0].weights)


def test_training_learns():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, SIZES[0]), np.float32)
    labels = (x @ rng.standard_normal((SIZES[0], 5))).argmax(axis=1)
    for options in KINDS.values():
        chain = Chain(banks(**options), ("tanh", "tanh", "none"), "cross_entropy")
        runs = [chain.train(x, labels, np.arange(400), 0.02, 400 * epoch) for epoch in range(6)]
        assert runs[-1][0] < 0.75 * runs[0][0]
        assert runs[-1][1] > runs[0][1] + 60


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_gradients_of_losses_and_activations_are_numerical_ones(loss):
    rng = np.random.default_rng(4)
    z, t = rng.standard_normal((3, 4)).astype(np.float32), rng.random((3, 4)).astype(np.float32)
    _, grad = loss_and_grad(loss, z, t)
    for j in range(4):
        h = np.zeros(4, np.float32)
        h[j] = 0.01
        slope = (loss_and_grad(loss, z + h, t)[0] - loss_and_grad(loss, z - h, t)[0]) / 0.02
        np.testing.assert_allclose(grad[:, j], slope, atol=1e-3)
    for kind in ("tanh", "sigmoid", "relu", "none"):
        slope = (activate(kind, z + np.float32(0.01)) - activate(kind, z - np.float32(0.01))) / 0.02
        far = np.abs(z) > 0.01 if kind == "relu" else np.ones_like(z, bool)
        got = activate_backward(kind, activate(kind, z), np.ones_like(z))
        np.testing.assert_allclose(got[far], slope[far], atol=1e-3)


def test_one_column_is_right_on_the_side_of_its_target():
    x = np.array([[-2.0], [0.2], [0.7]], np.float32)
    for loss, right in (("bce", 3), ("mse", 2)):
        one = front.TrainingBank(np.array([[0, 0, 1, 1, 0, 0]]), 1, 1, np.ones(1, np.float32))
        chain = Chain([one], ("none",), loss)
        assert chain.train(x, np.array([0, 1, 1]), np.arange(3), 0.0)[1] == right


def test_an_empty_order_does_nothing():
    x, labels = data()
    chain = Chain(banks(), ("tanh", "tanh", "none"), "cross_entropy")
    assert chain.train(x, labels, np.zeros(0, np.int64), 0.1) == (0.0, 0)


def test_what_does_not_fit_is_refused():
    x, labels = data()
    parts = banks()
    for bad in ([], parts[:2], [parts[0], parts[0], parts[2]]):
        with pytest.raises(ValueError, match=r"banks has|feeds one of"):
            Chain(bad, ("tanh", "tanh", "none"), "mse")
    with pytest.raises(ValueError, match="'elu', should be one of none, relu"):
        Chain(parts, ("elu", "tanh", "none"), "mse")
    with pytest.raises(ValueError, match="a loss is 'hinge'"):
        Chain(parts, ("tanh", "tanh", "none"), "hinge")
    chain = Chain(parts, ("tanh", "tanh", "none"), "cross_entropy")
    with pytest.raises(ValueError, match="labels are 0 to 5, should be 0 to 4"):
        chain.train(x, np.where(labels == labels[0], 5, 0), np.arange(3), 0.1)
    with pytest.raises(ValueError, match="within 30 examples"):
        chain.train(x, labels, np.array([30]), 0.1)
    with pytest.raises(ValueError, match=r"targets are float32 \(30, 4\)"):
        chain.train(x, np.zeros((30, 4), np.float32), np.arange(3), 0.1)
    with pytest.raises(ValueError, match=r"pulls have the shape \(2, 2\)"):
        chain.train(x, labels, np.arange(3), 0.1, 0, [(0.0, 1.0)] * 2)
