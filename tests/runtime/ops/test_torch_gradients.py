"""Whole networks by the rules, against gradients that PyTorch found (data/make_torch_gradients.py)."""

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
import rule_chain
from onnx import TensorProto, helper, numpy_helper

from pcmc.runtime.ops.losses import LOSSES
from pcmc.runtime.ops.node import Context

DATA = Path(__file__).parent / "data" / "torch_gradients.npz"
TARGETS = {"cross_entropy": "labels", "mse": "values", "bce": "chances"}
OPSET = 21
node = helper.make_node


def mlp() -> list[onnx.NodeProto]:
    return [
        node("Gemm", ["x", "w1", "b1"], ["a"], transB=1),
        node("Tanh", ["a"], ["b"]),
        node("Gemm", ["b", "w2", "b2"], ["c"], transB=1),
        node("LeakyRelu", ["c"], ["d"], alpha=0.1),
        node("Gemm", ["d", "w3", "b3"], ["y"], transB=1),
    ]


def cnn() -> list[onnx.NodeProto]:
    first, second = (["scale1", "shift1", "mean1", "var1"], ["scale2", "shift2", "mean2", "var2"])
    return [
        node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", *first], ["b", "mean1_new", "var1_new"], training_mode=1),
        node("Relu", ["b"], ["c"]),
        node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["d", "w2"], ["e"], pads=[2, 2, 2, 2], dilations=[2, 2], group=2),
        node("BatchNormalization", ["e", *second], ["f"], epsilon=1e-3),
        node("Add", ["d", "f"], ["g"]),
        node("Relu", ["g"], ["h"]),
        node("AveragePool", ["h"], ["i"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["i"], ["j"]),
        node("Flatten", ["j"], ["k"]),
        node("Gemm", ["k", "w3", "b3"], ["y"], transB=1),
    ]


def attention() -> list[onnx.NodeProto]:
    heads = []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        heads += [
            node("MatMul", ["a", f"w{name}"], [f"{name}1"]),
            node("Reshape", [f"{name}1", "in_heads"], [f"{name}2"]),
            node("Transpose", [f"{name}2"], [name], perm=perm),
        ]
    return [
        node("LayerNormalization", ["x", "scale1", "shift1"], ["a"]),
        *heads,
        node("MatMul", ["q", "k"], ["s1"]),
        node("Div", ["s1", "root"], ["s2"]),
        node("Softmax", ["s2"], ["s3"]),
        node("MatMul", ["s3", "v"], ["m1"]),
        node("Transpose", ["m1"], ["m2"], perm=[0, 2, 1, 3]),
        node("Reshape", ["m2", "joined"], ["m3"]),
        node("MatMul", ["m3", "wo"], ["m4"]),
        node("Add", ["x", "m4"], ["b"]),
        node("LayerNormalization", ["b", "scale2", "shift2"], ["c"]),
        node("MatMul", ["c", "w1"], ["d1"]),
        node("Add", ["d1", "b1"], ["d2"]),
        node("Gelu", ["d2"], ["d3"]),
        node("MatMul", ["d3", "w2"], ["d4"]),
        node("Add", ["b", "d4"], ["d5"]),
        node("Add", ["d5", "b2"], ["e"]),
        node("ReduceMean", ["e", "tokens"], ["f"], keepdims=0),
        node("Gemm", ["f", "w3", "b3"], ["y"]),
    ]


NETWORKS = {"mlp": mlp, "cnn": cnn, "attention": attention}
CONSTANTS = {
    "in_heads": np.array([0, 0, 2, 4], np.int64),
    "joined": np.array([0, 0, 8], np.int64),
    "tokens": np.array([1], np.int64),
    "root": np.array(2.0, np.float32),
}


@functools.cache
def stored() -> dict[str, np.ndarray]:
    with np.load(DATA, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def under(prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in stored().items() if name.startswith(prefix)}


def model_of(name: str) -> onnx.ModelProto:
    arrays = {**CONSTANTS, **under(f"{name}/parameter/")}
    graph = helper.make_graph(
        NETWORKS[name](),
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, stored()[f"{name}/x"].shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, key) for key, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def training() -> Context:
    return Context(training=True, stream=lambda name: np.random.default_rng(0))


def largest(grads: dict[str, np.ndarray]) -> float:
    """A bias ahead of batch statistics has the gradient 0; what rounding leaves of it is measured by this."""
    return max(float(np.abs(grad).max()) for grad in grads.values())


def gradients(name: str, loss: str, dtype: type) -> tuple[float, dict[str, np.ndarray]]:
    """The mean loss of the batch and its gradients, by the rules."""
    model = model_of(name)
    nodes = rule_chain.nodes_of(model)
    given = {**rule_chain.parameters_of(model), "x": stored()[f"{name}/x"]}
    given = {key: array.astype(dtype) if array.dtype.kind == "f" else array for key, array in given.items()}
    values = rule_chain.forward(nodes, given, training())
    target = stored()[f"{name}/target/{TARGETS[loss]}"]
    losses, grad = LOSSES[loss].value_and_grad(values["y"], target)
    return float(losses.mean()), rule_chain.backward(nodes, values, {"y": grad / len(losses)}, training())


@pytest.mark.parametrize("loss", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_pytorch(name, loss) -> None:
    value, found = gradients(name, loss, np.float64)
    expected = under(f"{name}/{loss}/")
    parameters = {key for key in under(f"{name}/parameter/") if not key.startswith(("mean", "var"))}
    assert abs(value - expected.pop("loss")) < 1e-7 * value
    assert set(expected) - {"x"} == parameters
    for key, theirs in expected.items():
        assert found[key].shape == theirs.shape
        np.testing.assert_allclose(found[key], theirs, rtol=1e-6, atol=1e-7 * largest(expected))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_in_float32_are_those_of_pytorch(name) -> None:
    _, found = gradients(name, "cross_entropy", np.float32)
    expected = under(f"{name}/cross_entropy/")
    del expected["loss"]
    for key, theirs in expected.items():
        assert found[key].dtype == np.float32
        np.testing.assert_allclose(found[key], theirs, rtol=0, atol=1e-5 * largest(expected))


def test_running_statistics_are_those_of_pytorch() -> None:
    """PyTorch divides the variance that it keeps by n - 1, ONNX by n; both the one that they normalize by."""
    context = training()
    model = model_of("cnn")
    given = {**rule_chain.parameters_of(model), "x": stored()["cnn/x"]}
    rule_chain.forward(rule_chain.nodes_of(model), given, context)
    assert set(context.updates) == {"mean1", "var1"}
    np.testing.assert_allclose(context.updates["mean1"], stored()["cnn/running/mean1"], rtol=1e-5)
    old, theirs, n = given["var1"], stored()["cnn/running/var1"], 6 * 9 * 8
    expected = 0.9 * old + (theirs - 0.9 * old) * (n - 1) / n
    np.testing.assert_allclose(context.updates["var1"], expected, rtol=1e-5)


def test_the_stored_gradients_say_where_they_come_from() -> None:
    assert "make_torch_gradients.py, PyTorch" in str(stored()["provenance"])
