"""Steps of the Trainer, plan and tape on a compiled program, against PyTorch's (data/make_torch_steps.py)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import model, node
from numpy.typing import NDArray
from onnx import numpy_helper

import pcmc
from pcmc.runtime.export import trained_model
from pcmc.runtime.trainer.trainer import Trainer

DATA = Path(__file__).parent / "data" / "torch_steps.npz"
RATE, DECAY, STEPS = 0.2, 0.5, 3


@functools.cache
def stored() -> dict[str, NDArray[Any]]:
    with np.load(DATA, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def under(prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in stored().items() if name.startswith(prefix)}


def network() -> Any:
    return model(
        [
            node("Conv", ["x", "k1", "b1"], ["a0"], name="first", pads=[1, 1, 1, 1]),
            node("Relu", ["a0"], ["a"]),
            node("Conv", ["a", "k2"], ["b0"], name="second", pads=[2, 2, 2, 2], dilations=[2, 2]),
            node("Add", ["a", "b0"], ["b1s"]),
            node("Relu", ["b1s"], ["b"]),
            node("Conv", ["b", "k3", "b3"], ["c0"], name="third", strides=[2, 3], pads=[1, 0, 1, 0]),
            node("Tanh", ["c0"], ["c"]),
            node("MaxPool", ["c"], ["d"], kernel_shape=[2, 1], strides=[2, 2]),
            node("Flatten", ["d"], ["f"]),
            node("Gemm", ["f", "w1", "c1"], ["e0"], name="fourth"),
            node("Sigmoid", ["e0"], ["e"]),
            node("Gemm", ["e", "w2", "c2"], ["y"], name="fifth"),
        ],
        {"x": ["N", 2, 9, 12]},
        {"y": ["N", 4]},
        under("start/"),
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_in_ideal_mode_are_those_of_pytorch(momentum: float) -> None:
    x, y = stored()["x"], stored()["y"]
    settings: dict[str, Any] = {"lr": RATE, "decay": DECAY, "batch": len(x), "momentum": momentum}
    trainer = Trainer(pcmc.compile(network()), physics="ideal", **settings)
    history = trainer.fit(x, y, epochs=STEPS)
    expected = under(f"momentum {momentum}/")
    losses = expected.pop("losses")
    np.testing.assert_allclose([epoch.loss for epoch in history.epochs], losses, rtol=1e-5)
    graph = trained_model(trainer.program).graph
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, array in expected.items():
        moved = np.abs(array - stored()[f"start/{name}"]).max()
        assert moved > 1e-3, name
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4 * moved + 2e-7, err_msg=name)


def test_the_stored_steps_say_where_they_come_from() -> None:
    assert "make_torch_steps.py, PyTorch" in str(stored()["provenance"])
