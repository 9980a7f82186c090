"""What comes before the trained path: computed once where that is the same, checked as data of a user are."""

from __future__ import annotations

import numpy as np
import pytest
from builders import conv, model, node, weights

import pcmc
from pcmc.accel.physics import resolve
from pcmc.errors import DataError, ModelError
from pcmc.runtime.trainer import front as fronts
from pcmc.runtime.trainer.front import Front
from pcmc.runtime.trainer.plan import plan_training
from pcmc.runtime.trainer.trainer import Trainer

from .nets import convolutional


def head_front(physics: str = "ideal") -> Front:
    program = pcmc.compile(convolutional())
    return Front(program, plan_training(program, ["dense"]), resolve(physics, program.chip), 0, 1)


def images(n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 1, 8, 8)).astype(np.float32)


def test_features_are_kept_and_are_those_of_a_session():
    front, x = head_front(), images()
    kept = front.kept({"x": x})
    assert kept is not None
    batch = front.batch({"x": x}, kept, np.array([4, 1]))
    again = front.batch({"x": x}, None, np.array([4, 1]))
    assert kept["f"].shape == (6, 64)
    np.testing.assert_allclose(batch["f"], again["f"], atol=1e-6)


def test_features_that_are_too_large_or_noisy_are_computed_anew(monkeypatch):
    assert head_front("read_noise=fast").kept({"x": images()}) is None
    assert head_front("programming_error").kept({"x": images()}) is not None
    monkeypatch.setattr(fronts, "KEPT_BYTES", 6 * 64 * 4 - 1)
    assert head_front().kept({"x": images()}) is None


def test_training_is_the_same_whether_features_are_kept_or_not(monkeypatch):
    program, x, y = pcmc.compile(convolutional()), images(20), np.arange(20) % 3
    cells = []
    for kept in (fronts.KEPT_BYTES, 0):
        monkeypatch.setattr(fronts, "KEPT_BYTES", kept)
        trainer = Trainer(program, physics="ideal", layers=["dense"], lr=0.05)
        trainer.fit(x, y)
        cells.append(trainer.program.banks["dense"].cells)
    np.testing.assert_allclose(*cells, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"x": images(), "z": images()}, "there is no input 'z'; the model has x"),
        (images(0), "input 'x' is empty: there are no examples to train on"),
        (np.full((2, 1, 8, 8), np.inf, np.float32), "has values that are not finite"),
        (images()[:, 0], "'x' has shape"),
        (images().astype(np.float64), "float64"),
        ({}, "x"),
    ],
)
def test_data_that_do_not_fit_are_named(x, message):
    with pytest.raises(DataError, match=message):
        head_front().checked(x)


def two_inputs() -> object:
    net = model(
        [node("MatMul", ["a", "w"], ["p"], name="dense"), node("Add", ["p", "b"], ["y"])],
        {"a": ["N", 5], "b": ["N", 3]},
        {"y": ["N", 3]},
        {"w": weights(5, 3)},
    )
    return pcmc.compile(net)


def test_models_with_two_inputs_take_a_dict_with_as_many_examples_in_each():
    trainer = Trainer(two_inputs(), physics="ideal", lr=0.1)
    a, b = np.ones((4, 5), np.float32), np.zeros((4, 3), np.float32)
    trainer.fit({"a": a, "b": b}, np.arange(4) % 3)
    with pytest.raises(DataError, match=r"the model has 2 inputs \(a, b\): give a dict by name"):
        trainer.fit(a, np.arange(4) % 3)
    with pytest.raises(DataError, match="inputs have different numbers of examples: 'a' 4, 'b' 3"):
        trainer.fit({"a": a, "b": b[:3]}, np.arange(4) % 3)


def test_a_fixed_batch_other_than_one_is_refused():
    with pytest.raises(ModelError, match="has a fixed batch of 4: export the model with an open batch"):
        Trainer(pcmc.compile(conv((2, 1, 3, 3), (6, 6), batch=4)), physics="ideal")
