"""A half-precision model computes in float32 and rounds where it ends, and where it says so itself."""

import builders
import numpy as np
import onnx
from builders import node, weights
from onnx import TensorProto

from pcmc.compiler.half import widen_half

HALF = TensorProto.FLOAT16


def half(*shape, seed=0):
    return weights(*shape, seed=seed, dtype=np.float16)


def test_a_network_keeps_its_half_precision_inputs_and_outputs():
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"]),
        node("BatchNormalization", ["c", "s", "b", "b", "s"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("GlobalAveragePool", ["r"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "v"], ["y"]),
    ]
    arrays = {"w": half(4, 3, 3, 3), "b": half(4), "s": np.full(4, 1.5, np.float16), "v": half(4, 5)}
    proto = builders.model(nodes, {"x": (["N", 3, 6, 6], HALF)}, {"y": (["N", 5], HALF)}, arrays)
    program = builders.compiled_like_onnxruntime(proto, tolerance=2e-3)
    assert [info.dtype for info in (*program.inputs, *program.outputs)] == [HALF, HALF]


def test_a_cast_that_the_model_asks_for_rounds():
    """x to half precision and back, then a product: the result shows the rounding of x."""
    nodes = [
        node("Cast", ["x"], ["h"], to=HALF),
        node("Cast", ["h"], ["f"], to=1),
        node("MatMul", ["f", "w"], ["y"]),
        node("Mul", ["x16", "c"], ["z"]),
    ]
    proto = builders.model(
        nodes,
        {"x": ["N", 6], "x16": ([2], HALF)},
        {"y": ["N", 5], "z": ([2], HALF)},
        {"w": weights(6, 5), "c": half(1)},
    )
    program = builders.compiled_like_onnxruntime(proto)
    inputs = builders.feeds(proto)
    unrounded = inputs["x"] @ weights(6, 5)
    assert np.abs(builders.run(program, inputs)[0] - unrounded).max() > 1e-5


def test_bodies_are_widened_too():
    branch = node(
        "If",
        ["flag"],
        ["y"],
        name="if",
        then_branch=builders.body(
            [node("Mul", ["h", "c"], ["t"])], {"t": (["N", 5], HALF)}, constants={"c": half(5)}, name="then"
        ),
        else_branch=builders.body([node("Identity", ["h"], ["e"])], {"e": (["N", 5], HALF)}, name="else"),
    )
    proto = builders.model(
        [node("MatMul", ["x", "w"], ["h"]), branch],
        {"x": (["N", 6], HALF), "flag": ([], TensorProto.BOOL)},
        {"y": (["N", 5], HALF)},
        {"w": half(6, 5)},
    )
    for flag in (False, True):
        builders.compiled_like_onnxruntime(
            proto, inputs=builders.feeds(proto) | {"flag": np.array(flag)}, tolerance=2e-3
        )


def test_an_input_that_is_an_output_and_a_constant_that_is_one():
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    results = {"y": (["N", 6], HALF), "x": (["N", 6], HALF), "w": ([6, 6], HALF)}
    proto = builders.model(nodes, {"x": (["N", 6], HALF)}, results, {"w": half(6, 6)})
    builders.compiled_like_onnxruntime(proto, tolerance=1e-3)


def test_a_single_precision_model_is_left_as_it_is():
    proto = builders.mlp([6, 5, 4])
    before = proto.SerializeToString()
    widen_half(proto)
    assert proto.SerializeToString() == before


def test_the_widened_model_is_valid():
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Cast", ["a"], ["b"], to=HALF),
        node("Relu", ["b"], ["y"]),
    ]
    proto = builders.model(nodes, {"x": (["N", 6], HALF)}, {"y": (["N", 5], HALF)}, {"w": half(6, 5)})
    for index, one in enumerate(proto.graph.node):
        one.name = f"n{index}"
    widen_half(proto)
    onnx.checker.check_model(proto, full_check=True)
    assert [tensor.data_type for tensor in proto.graph.initializer] == [TensorProto.FLOAT]
