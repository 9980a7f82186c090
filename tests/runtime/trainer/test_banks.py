"""What is programmed to begin with, and what a read-out makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from builders import model, node, weights
from numpy.typing import NDArray
from onnx import numpy_helper

import pcmc
from pcmc.errors import ModelError
from pcmc.runtime.export import trained_model, with_weights
from pcmc.runtime.trainer.banks import range_of
from pcmc.runtime.trainer.trainer import Trainer

from .nets import dense_program

Array = NDArray[Any]


def normalized(statistics: str) -> onnx.ModelProto:
    """Conv, BatchNormalization with running statistics, Gemm; the statistics are initializers, Constants, or
    an Identity of other initializers.
    """
    arrays = {
        "k": weights(4, 1, 3, 3, seed=1),
        "scale": np.ones(4, np.float32),
        "shift": np.zeros(4, np.float32),
        "w": weights(64, 3, seed=3),
    }
    values = {"mean": np.zeros(4, np.float32), "var": np.ones(4, np.float32)}
    ahead = []
    for name, value in values.items():
        if statistics == "initializer":
            arrays[name] = value
        elif statistics == "Constant":
            ahead.append(node("Constant", [], [name], value=numpy_helper.from_array(value)))
        else:
            arrays[f"{name}/stored"] = value
            ahead.append(node("Identity", [f"{name}/stored"], [name]))
    return model(
        [
            *ahead,
            node("Conv", ["x", "k"], ["c"], name="conv", kernel_shape=[3, 3]),
            node(
                "BatchNormalization",
                ["c", "scale", "shift", "mean", "var"],
                ["n", "mean/new", "var/new"],
                name="norm",
                training_mode=1,
            ),
            node("Relu", ["n"], ["r"]),
            node("Flatten", ["r"], ["f"]),
            node("MatMul", ["f", "w"], ["y"], name="dense"),
        ],
        {"x": ["N", 1, 6, 6]},
        {"y": ["N", 3]},
        arrays,
    )


@pytest.mark.parametrize("statistics", ["initializer", "Constant", "Identity"])
def test_running_statistics_reach_the_exported_model_wherever_it_keeps_them(statistics):
    trainer = Trainer(pcmc.compile(normalized(statistics)), physics="ideal", batch=8, lr=0.01)
    x = np.random.default_rng(0).normal(2.0, 3.0, (32, 1, 6, 6)).astype(np.float32)
    trainer.fit(x, np.arange(32) % 3)
    found = trainer.state()[1]
    exported = trained_model(trainer.program)
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in exported.graph.initializer}
    for name, start in (("mean", 0.0), ("var", 1.0)):
        assert np.abs(found[f"statistics/{name}"] - start).max() > 0.1
        np.testing.assert_array_equal(kept[name], found[f"statistics/{name}"])
    onnx.checker.check_model(exported)
    next(n for n in exported.graph.node if n.op_type == "BatchNormalization").attribute[0].i = 0
    del next(n for n in exported.graph.node if n.op_type == "BatchNormalization").output[1:]
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], trainer.predict(x), rtol=1e-4, atol=1e-4)


def test_running_statistics_without_a_place_in_the_model_are_refused():
    net = normalized("initializer")
    for tensor in net.graph.initializer:
        if tensor.name == "mean":
            tensor.name = "moved"
    net.graph.node.insert(0, node("Split", ["moved"], ["mean/half", "mean/rest"], axis=0))
    net.graph.node.insert(1, node("Concat", ["mean/half", "mean/rest"], ["mean/joined"], axis=0))
    net.graph.node.insert(2, node("Identity", ["mean/joined"], ["mean"]))
    assert Trainer(pcmc.compile(net), physics="ideal", batch=8)  # made by a node: that becomes a number
    program = pcmc.compile(normalized("initializer"))
    for tensor in program.model.graph.initializer:
        if tensor.name == "mean":
            tensor.name = "elsewhere"
    with pytest.raises(
        ModelError, match=r"norm \(BatchNormalization\): its running statistics 'mean' are no "
    ):
        Trainer(program, physics="ideal", batch=8)


def scaled(factor: float) -> Any:
    program = dense_program((400, 9, 4))
    matrix, bias = program.banks["dense0"].matrix()
    return with_weights(program, {"dense0": (matrix * np.float32(factor), bias)}).banks["dense0"]


def test_the_range_leaves_room_for_small_random_weights():
    bank = scaled(1.0)
    matrix, _ = bank.matrix()
    largest = float(np.abs(matrix).max())
    assert range_of(bank) == pytest.approx(max(largest, 6 / 20))
    assert range_of(scaled(0.0)) == pytest.approx(6 / 20)
    assert range_of(scaled(100.0)) == pytest.approx(100 * largest)


def test_the_range_follows_weights_that_are_far_smaller():
    """Weights behind pixels of 0 to 255 would be lost in the error of cells that hold 100 times more."""
    small = scaled(1e-3)
    matrix, _ = small.matrix()
    rms = float(np.sqrt(np.square(matrix, dtype=np.float64).mean()))
    assert range_of(small) == pytest.approx(12 * rms, rel=1e-5)
    assert range_of(small) > np.abs(matrix).max()


@pytest.mark.parametrize("physics", ["programming_error", "adc"])
def test_a_network_for_raw_pixels_stands_the_errors_of_the_chip(physics):
    program = dense_program()
    matrix, bias = program.banks["dense0"].matrix()
    raw = with_weights(program, {"dense0": (matrix / 255, bias)})
    x = np.random.default_rng(0).integers(0, 256, (200, 12)).astype(np.float32)
    exact = Trainer(raw, physics="ideal").predict(x)
    found = Trainer(raw, physics=physics).predict(x)
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.99


def test_a_read_out_right_after_programming_without_errors_is_what_was_compiled():
    program = dense_program()
    trainer = Trainer(program, physics="dac,adc")
    for name, bank in program.banks.items():
        np.testing.assert_array_equal(trainer.program.banks[name].cells, bank.cells)
    assert trainer.pair_program() is None
