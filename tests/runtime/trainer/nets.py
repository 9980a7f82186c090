"""Small networks and data for tests of training; what they have to learn is learnable."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from builders import mlp, model, node, weights
from numpy.typing import NDArray

import pcmc
from pcmc.accel.training.arrays import TrainedBank
from pcmc.runtime.program import Program

Array = NDArray[Any]


def spread_classes(n: int, features: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    """Examples around a centre for each class, float32 [n, features], and labels int64 [n]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, features))
    labels = rng.integers(0, classes, n)
    x = centres[labels] + 0.5 * rng.standard_normal((n, features))
    return x.astype(np.float32), labels.astype(np.int64)


def dense_program(
    sizes: tuple[int, ...] = (12, 9, 4), activation: str = "Tanh", chip: Any = "nature2018"
) -> Program:
    return pcmc.compile(mlp(sizes, activation=activation), chip)


def convolutional() -> onnx.ModelProto:
    """Conv, ReLU, MaxPool, Flatten, Gemm: x [N, 1, 8, 8] -> y [N, 3]."""
    return model(
        [
            node("Conv", ["x", "k", "kb"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["r"], name="relu"),
            node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["p"], ["f"], name="flatten"),
            node("Gemm", ["f", "w", "b"], ["y"], name="dense"),
        ],
        {"x": ["N", 1, 8, 8]},
        {"y": ["N", 3]},
        {
            "k": weights(4, 1, 3, 3, seed=1),
            "kb": weights(4, seed=2),
            "w": weights(64, 3, seed=3),
            "b": weights(3, seed=4),
        },
    )


def matrix_of(program: Program, name: str) -> tuple[Array, Array | None]:
    return program.banks[name].matrix()


def total(banks: dict[str, TrainedBank], counter: str) -> float:
    return sum(bank.counters().get(counter, 0) for bank in banks.values())
