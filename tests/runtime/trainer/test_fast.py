"""Which networks are chains that a kernel trains by itself, and which data it takes."""

from __future__ import annotations

import numpy as np
import pytest
from builders import chip, mlp, model, node, weights

import pcmc
from pcmc.runtime.trainer.trainer import Trainer

from .nets import convolutional, dense_program, spread_classes


def is_fast(net, **settings) -> bool:
    return Trainer(pcmc.compile(net), physics="ideal", **settings).is_fast


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid"])
def test_chains_of_matrices_and_their_activations_are_fast(activation):
    assert is_fast(mlp((6, 5, 4, 3), activation=activation))
    assert is_fast(mlp((6, 5, 4, 3), activation=activation, bias=False))


def test_other_networks_and_settings_take_the_general_path():
    assert not is_fast(convolutional())
    assert not is_fast(mlp((6, 5, 3), activation="LeakyRelu"))
    assert not is_fast(mlp((6, 5, 3)), batch=2)
    assert not is_fast(mlp((6, 5, 3)), momentum=0.9)
    assert not is_fast(mlp((6, 5, 3)), fast=False)
    digital_bias = pcmc.compile(mlp((6, 5, 3)), chip(513, 100, bias_row=False))
    assert not Trainer(digital_bias, physics="ideal").is_fast


def test_a_matrix_that_is_used_twice_is_no_chain():
    net = model(
        [
            node("MatMul", ["x", "w"], ["a"], name="first"),
            node("Tanh", ["a"], ["b"]),
            node("MatMul", ["b", "w"], ["y"], name="second"),
        ],
        {"x": ["N", 4]},
        {"y": ["N", 4]},
        {"w": weights(4, 4)},
    )
    assert not is_fast(net)


def test_two_activations_or_a_skipped_layer_are_no_chain():
    both = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Tanh", ["a"], ["b"]),
        node("Relu", ["b"], ["c"]),
        node("MatMul", ["c", "v"], ["y"], name="second"),
    ]
    skipped = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Tanh", ["a"], ["b"]),
        node("MatMul", ["b", "v"], ["c"], name="second"),
        node("Add", ["b", "c"], ["y"]),
    ]
    for nodes in (both, skipped):
        constants = {"w": weights(4, 4), "v": weights(4, 4)}
        assert not is_fast(model(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, constants))


def test_a_head_behind_a_frozen_front_is_fast():
    trainer = Trainer(pcmc.compile(convolutional()), physics="ideal", layers=["dense"])
    assert trainer.is_fast
    x = np.random.default_rng(0).standard_normal((30, 1, 8, 8)).astype(np.float32)
    y = np.arange(30) % 3
    slow = Trainer(pcmc.compile(convolutional()), physics="ideal", layers=["dense"], fast=False)
    for one in (trainer, slow):
        one.fit(x, y, epochs=2)
    np.testing.assert_array_equal(*(one.program.banks["dense"].cells for one in (trainer, slow)))


def test_targets_that_the_kernel_does_not_know_take_the_general_path():
    program, (x, y) = dense_program(), spread_classes(40, 12, 4)
    chances = np.eye(4, dtype=np.float32)[y] * 0.8 + 0.05
    soft = Trainer(program, physics="ideal", lr=0.1)
    before = soft.evaluate(x, chances).loss
    soft.fit(x, chances, epochs=3)
    assert soft.evaluate(x, chances).loss < before
