"""Losses: known values, numerical gradients, and what they refuse."""

import numpy as np
import pytest

from pcmc.errors import DataError
from pcmc.runtime.ops.losses import LOSSES

N, C = 4, 3
LABELS = np.array([0, 2, 1, 2])


def logits(*more: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(N, C, *more))


def chances(*more: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(0.1, 0.9, (N, C, *more))


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


CASES = {
    "cross_entropy": ("cross_entropy", logits(), LABELS),
    "cross_entropy of probabilities": ("cross_entropy", logits(), softmax(logits() + 1)),
    "cross_entropy of pixels": ("cross_entropy", logits(2), np.array([[0, 1], [2, 2], [1, 0], [0, 0]])),
    "nll": ("nll", softmax(logits()), LABELS),
    "nll_log": ("nll_log", np.log(softmax(logits())), LABELS),
    "mse": ("mse", logits(), chances()),
    "mse of maps": ("mse", logits(2, 2), chances(2, 2)),
    "bce": ("bce", logits(), chances()),
    "bce_probabilities": ("bce_probabilities", chances(), np.eye(C)[LABELS]),
}


def test_the_losses_are_these() -> None:
    assert set(LOSSES) == {"cross_entropy", "nll", "nll_log", "mse", "bce", "bce_probabilities"}
    assert {name for name, _, _ in CASES.values()} == set(LOSSES)
    assert all(name == loss.name for name, loss in LOSSES.items())


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_each_example_is_that_of_its_own_loss(case) -> None:
    name, outputs, targets = CASES[case]
    losses, grad = LOSSES[name].value_and_grad(outputs, targets)
    assert losses.shape == (N,)
    assert grad.shape == outputs.shape
    for index in np.ndindex(outputs.shape):
        step = np.zeros_like(outputs)
        step[index] = 1e-6
        ahead, behind = (LOSSES[name].value_and_grad(outputs + s, targets)[0] for s in (step, -step))
        slopes = (ahead - behind) / 2e-6
        assert abs(slopes[index[0]] - grad[index]) < 1e-7 * (1 + abs(grad[index]))
        assert not np.delete(slopes, index[0]).any()


@pytest.mark.parametrize("case", CASES)
def test_float32_stays_float32(case) -> None:
    name, outputs, targets = CASES[case]
    losses, grad = LOSSES[name].value_and_grad(outputs.astype(np.float32), targets)
    assert losses.dtype == grad.dtype == np.float32
    exact, exact_grad = LOSSES[name].value_and_grad(outputs, targets)
    np.testing.assert_allclose(losses, exact, rtol=1e-5)
    np.testing.assert_allclose(grad, exact_grad, rtol=1e-4, atol=1e-6)


def test_half_precision_is_computed_in_single() -> None:
    outputs = logits().astype(np.float16)
    losses, grad = LOSSES["cross_entropy"].value_and_grad(outputs, LABELS)
    assert losses.dtype == np.float32
    assert grad.dtype == np.float16


def test_values_are_those_of_the_formulas() -> None:
    p = softmax(logits())
    expected = -np.log(p[np.arange(N), LABELS])
    for name, outputs in (("cross_entropy", logits()), ("nll", p), ("nll_log", np.log(p))):
        losses, _ = LOSSES[name].value_and_grad(outputs, LABELS)
        np.testing.assert_allclose(losses, expected)
    losses, _ = LOSSES["mse"].value_and_grad(
        np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[3.0, 2.0], [1.0, 1.0]])
    )
    np.testing.assert_array_equal(losses, [2, 1])
    x, t = logits(), chances()
    s = 1 / (1 + np.exp(-x))
    losses, _ = LOSSES["bce"].value_and_grad(x, t)
    np.testing.assert_allclose(losses, -(t * np.log(s) + (1 - t) * np.log(1 - s)).mean(axis=1))
    np.testing.assert_allclose(losses, LOSSES["bce_probabilities"].value_and_grad(s, t)[0])


@pytest.mark.parametrize("name", ["cross_entropy", "nll", "nll_log"])
def test_labels_and_one_hot_targets_are_the_same(name) -> None:
    outputs = chances()
    found = [
        LOSSES[name].value_and_grad(outputs, target)
        for target in (LABELS, np.eye(C)[LABELS], np.eye(C, dtype=int)[LABELS])
    ]
    for losses, grad in found[1:]:
        np.testing.assert_array_equal(losses, found[0][0])
        np.testing.assert_array_equal(grad, found[0][1])


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_huge_logits_give_finite_losses(name) -> None:
    outputs = np.array([[1e4, -1e4, 0]], np.float32)
    for label in range(3):
        target = np.array([label]) if name == "cross_entropy" else np.eye(3, dtype=np.float32)[[label]]
        losses, grad = LOSSES[name].value_and_grad(outputs, target)
        assert np.isfinite(losses).all()
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("name", ["nll", "bce_probabilities"])
def test_a_probability_of_zero_gives_a_finite_loss_that_pulls_it_up(name) -> None:
    outputs = np.array([[0.0, 1.0]], np.float32)
    losses, grad = LOSSES[name].value_and_grad(outputs, np.array([[1.0, 0.0]], np.float32))
    assert np.isfinite(losses).all()
    assert losses[0] > 40
    assert np.isfinite(grad).all()
    assert grad[0, 0] < 0


def test_no_examples_give_no_losses() -> None:
    losses, grad = LOSSES["mse"].value_and_grad(np.zeros((0, 3), np.float32), np.zeros((0, 3)))
    assert losses.shape == (0,)
    assert grad.shape == (0, 3)


def test_a_column_of_outputs_takes_a_row_of_targets() -> None:
    losses, grad = LOSSES["mse"].value_and_grad(np.zeros((3, 1)), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(losses, [1, 4, 9])
    assert grad.shape == (3, 1)


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "text"),
    [
        (
            "cross_entropy",
            logits(),
            np.array([0, 3, 1, 1]),
            "label 3 is out of range; the output has classes 0 to 2",
        ),
        ("cross_entropy", logits(), np.array([0, -1, 1, 1]), "label -1 is out of range"),
        ("cross_entropy", logits(), np.array([0, 1]), r"targets are int64 \[2\]"),
        ("cross_entropy", logits(), np.array([0.0, 1.0, 2.0, 0.0]), r"targets are float64 \[4\]"),
        ("cross_entropy", logits(), 2 * np.eye(C)[LABELS], r"targets go from 0 to 2"),
        ("cross_entropy", np.zeros(4), LABELS, r"needs \[n, classes, \.\.\.\]"),
        ("mse", logits(), np.zeros((C, N)), r"targets have shape \[3, 4\], the output \[4, 3\]"),
        ("mse", np.zeros((3, 3)), np.zeros(3), r"targets have shape \[3\]"),
        ("mse", logits(), np.full((N, C), np.nan), "targets have values that are not finite"),
        ("mse", np.full((N, C), np.inf), logits(), "output has values that are not finite"),
        ("mse", logits(), np.full((N, C), "a"), "numbers are needed"),
        ("mse", np.zeros((2, 2), np.int64), np.zeros((2, 2)), "a loss needs floating point"),
        ("mse", np.array(1.0), np.array(1.0), "without an axis of examples"),
        ("bce", logits(), logits(), "probabilities lie in"),
        ("nll", np.full((1, 2), np.nan), np.array([0]), "not finite"),
    ],
)
def test_wrong_targets_are_named(name, outputs, targets, text) -> None:
    with pytest.raises(DataError, match=f"{name}: .*{text}"):
        LOSSES[name].value_and_grad(outputs, targets)
