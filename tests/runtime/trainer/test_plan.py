"""The path: what is trained, what comes before, which tensors need gradients, and what can't be trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from builders import model, node, weights

import pcmc
from pcmc.errors import DataError, ModelError
from pcmc.runtime.trainer.plan import ReadNode, plan_training

from .nets import convolutional, dense_program


def kinds(plan) -> list[str]:
    return [node.bank if isinstance(node, ReadNode) else node.op_type for node in plan.path]


def test_all_matrices_lie_on_the_path_by_default():
    plan = plan_training(pcmc.compile(convolutional()))
    assert kinds(plan) == ["conv", "Relu", "MaxPool", "Flatten", "dense"]
    assert plan.front is None
    assert plan.boundary == ("x",)
    assert plan.trained == plan.banks == ("conv", "dense")
    assert (plan.logits, plan.implied) == ("y", "cross_entropy")
    assert "x" not in plan.needed


def test_what_no_trained_weight_reaches_is_a_program_of_its_own():
    program = pcmc.compile(convolutional())
    plan = plan_training(program, ["dense"])
    assert kinds(plan) == ["dense"]
    assert plan.front is not None
    assert [info.name for info in plan.front.outputs] == list(plan.boundary) == ["f"]
    assert set(plan.front.banks) == {"conv"}
    x = np.random.default_rng(0).standard_normal((5, 1, 8, 8)).astype(np.float32)
    (features,) = pcmc.Session(plan.front).run(None, {"x": x})
    matrix, bias = program.banks["dense"].matrix()
    wanted = pcmc.Session(program).run(None, {"x": x})[0]
    np.testing.assert_allclose(features @ matrix + bias, wanted, atol=1e-5)


def test_frozen_matrices_behind_trained_ones_lie_on_the_path():
    plan = plan_training(dense_program((12, 9, 7, 4)), ["dense1"])
    assert kinds(plan) == ["dense1", "Tanh", "dense2"]
    assert plan.trained == ("dense1",)
    assert plan.banks == ("dense1", "dense2")


@pytest.mark.parametrize("name", ["dense1", "w1"])
def test_layers_are_named_by_operation_or_weights(name):
    assert plan_training(dense_program(), [name]).trained == ("dense1",)


@pytest.mark.parametrize(
    ("end", "implied"),
    [("Softmax", "cross_entropy"), ("LogSoftmax", "cross_entropy"), ("Sigmoid", "bce")],
)
def test_an_output_layer_is_taken_into_the_loss(end, implied):
    net = model(
        [node("MatMul", ["x", "w"], ["z"], name="dense"), node(end, ["z"], ["y"])],
        {"x": ["N", 6]},
        {"y": ["N", 3]},
        {"w": weights(6, 3)},
    )
    plan = plan_training(pcmc.compile(net))
    assert (plan.logits, plan.implied) == ("z", implied)
    assert kinds(plan) == ["dense"]


def test_an_output_layer_whose_input_is_used_elsewhere_stays():
    net = model(
        [
            node("MatMul", ["x", "w"], ["z"], name="dense"),
            node("Sigmoid", ["z"], ["s"]),
            node("Mul", ["z", "s"], ["y"]),
        ],
        {"x": ["N", 6]},
        {"y": ["N", 3]},
        {"w": weights(6, 3)},
    )
    plan = plan_training(pcmc.compile(net))
    assert plan.logits == "y"
    assert kinds(plan) == ["dense", "Sigmoid", "Mul"]


def test_branches_that_lead_nowhere_are_not_on_the_path():
    net = model(
        [
            node("MatMul", ["x", "w"], ["z"], name="dense"),
            node("MatMul", ["x", "v"], ["u"], name="aside"),
            node("Relu", ["u"], ["unused"]),
            node("Tanh", ["z"], ["y"]),
        ],
        {"x": ["N", 6]},
        {"y": ["N", 3]},
        {"w": weights(6, 3), "v": weights(6, 3)},
    )
    assert kinds(plan_training(pcmc.compile(net))) == ["dense", "Tanh"]


def test_models_with_two_outputs_or_no_matrix_say_so():
    two = model(
        [node("MatMul", ["x", "w"], ["y"], name="dense"), node("Relu", ["y"], ["z"])],
        {"x": ["N", 6]},
        {"y": ["N", 3], "z": ["N", 3]},
        {"w": weights(6, 3)},
    )
    with pytest.raises(ModelError, match=r"has 2 outputs \(y, z\); training takes a model with one"):
        plan_training(pcmc.compile(two))
    program = dataclasses.replace(dense_program(), banks={})
    with pytest.raises(ModelError, match="there is no matrix on the chip, so nothing can be trained"):
        plan_training(program)


def test_unknown_layers_are_named_with_what_there_is():
    with pytest.raises(DataError, match=r"no layer 'conv'.*there are 'dense0', 'dense1'"):
        plan_training(dense_program(), ["conv"])
