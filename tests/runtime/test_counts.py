"""Counts of a sample, against sums by hand."""

import builders
import numpy as np
import pytest
from builders import node, weights

import pcmc
from pcmc.errors import DataError
from pcmc.runtime.counts import count, operations_of, sample_inputs, vectors_of
from pcmc.runtime.program import Read, Step


def by_name(program, shapes=None):
    counts = count(program, shapes)
    return {step.name: one for step, one in zip(program.steps, counts.steps, strict=True)}


def small_net():
    """Conv 3 -> 4 (3 x 3, padded, stride 2) on 8 x 6, Relu, MaxPool 2 x 2, Flatten, Gemm 8 -> 5, Softmax."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("MaxPool", ["r"], ["m"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["m"], ["f"], name="flatten"),
        node("Gemm", ["f", "v", "d"], ["g"], name="dense"),
        node("Softmax", ["g"], ["y"], name="softmax"),
    ]
    arrays = {"w": weights(4, 3, 3, 3), "b": weights(4), "v": weights(8, 5), "d": weights(5)}
    return builders.model(nodes, {"x": ["N", 3, 8, 6]}, {"y": ["N", 5]}, arrays)


def test_counts_of_a_small_net_by_hand():
    """The convolution makes 4 maps of 4 x 3, the pool 4 maps of 2 x 1."""
    program = builders.compiled_like_onnxruntime(small_net())
    found = by_name(program)
    conv, dense = found["conv"], found["dense"]
    assert (conv.vectors, conv.positions, conv.values_in, conv.values_out) == (12, 48, 144, 48)
    assert (dense.vectors, dense.values_in, dense.values_out) == (1, 8, 5)
    between, last = (found[step.name] for step in program.steps if step.bank is None)
    assert between.digital_ops == 48 + 8 * 4, "a Relu for each value, four comparisons for each of the pool"
    assert last.digital_ops == 5 * 4
    assert (between.values_in, between.values_out) == (48, 8)
    assert conv.digital_ops == dense.digital_ops == 0, "whole columns in one block, biases in the tile"


def test_partial_sums_and_a_digital_bias_are_additions():
    """20 inputs on tiles of 8 rows: three blocks deep, two additions an output; the bias is one more."""
    proto = builders.mlp([20, 6])
    with_row = pcmc.compile(proto, builders.chip(8, 4))
    without = pcmc.compile(proto, builders.chip(8, 4, bias_row=False))
    assert by_name(with_row)["dense0"].digital_ops == 2 * 6
    assert by_name(without)["dense0"].digital_ops == 2 * 6 + 6


def test_a_given_size_scales_the_counts():
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), node("Relu", ["c"], ["y"], name="relu")]
    proto = builders.model(
        nodes, {"x": ["N", 3, "H", "W"]}, {"y": ["N", 4, None, None]}, {"w": weights(4, 3, 1, 1)}
    )
    program = pcmc.compile(proto, shapes={"x": (1, 3, 8, 8)})
    assert by_name(program)["conv"].vectors == 64


def test_counts_are_for_one_sample_whatever_the_batch():
    program = pcmc.compile(builders.mlp([6, 5]))
    assert by_name(program, {"x": (32, 6)})["dense0"].vectors == 1


def test_a_fixed_batch_is_the_sample():
    nodes = [node("MatMul", ["x", "w"], ["y"], name="product")]
    program = pcmc.compile(builders.model(nodes, {"x": [4, 6]}, {"y": [4, 5]}, {"w": weights(6, 5)}))
    assert by_name(program)["product"].vectors == 4


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        ({"z": (1, 6)}, "no input 'z'; the model has x"),
        ({"x": (1, 7)}, r"\['N', 6\] in the model, \[1, 7\] does not fit"),
        ({"x": (6,)}, "does not fit"),
        ({"x": (0, 6)}, "has a size below 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, part):
    program = pcmc.compile(builders.mlp([6, 5]))
    with pytest.raises(DataError, match=part):
        count(program, shapes)
    with pytest.raises(DataError, match=part):
        program.report(shapes)


def test_sample_inputs_keep_what_is_not_given():
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "z"], ["y"])]
    program = pcmc.compile(
        builders.model(nodes, {"x": ["N", 6], "z": [5]}, {"y": ["N", 5]}, {"w": weights(6, 5)})
    )
    assert sample_inputs(program, {"x": (3, 6)}) == {"x": (1, 6), "z": (5,)}


def step(read):
    return Step("s", "read", ("x",), ("y",), ("s",), (), 0, "s", read)


@pytest.mark.parametrize(
    ("kind", "shape", "vectors"),
    [
        ("dense", (6,), 1),
        ("dense", (3, 6), 3),
        ("dense", (2, 3, 6), 6),
        ("columns", (6, 4), 4),
        ("columns", (2, 3, 6, 4), 24),
    ],
)
def test_vectors_of_a_product(kind, shape, vectors):
    assert vectors_of(step(Read(kind)), shape) == (vectors, vectors)


@pytest.mark.parametrize(
    ("op_type", "inputs", "outputs", "attributes", "wanted"),
    [
        ("Relu", [(2, 3)], [(2, 3)], {}, 6),
        ("Sigmoid", [(2, 3)], [(2, 3)], {}, 24),
        ("Add", [(2, 3), (3,)], [(2, 3)], {}, 6),
        ("Reshape", [(2, 3), (1,)], [(6,)], {}, 0),
        ("Concat", [(2, 3), (2, 3)], [(4, 3)], {}, 0),
        ("Transpose", [(2, 3)], [(3, 2)], {}, 0),
        ("MatMul", [(4, 6), (6, 5)], [(4, 5)], {}, 2 * 20 * 6),
        ("MatMul", [(2, 4, 6), (2, 6, 5)], [(2, 4, 5)], {}, 2 * 40 * 6),
        ("Gemm", [(4, 6), (6, 5)], [(4, 5)], {}, 2 * 20 * 6),
        ("Gemm", [(6, 4), (6, 5)], [(4, 5)], {"transA": 1}, 2 * 20 * 6),
        ("Conv", [(1, 3, 5, 5), (4, 3, 2, 2)], [(1, 4, 4, 4)], {}, 2 * 64 * 12),
        ("ConvTranspose", [(1, 3, 5, 5), (3, 4, 2, 2)], [(1, 4, 6, 6)], {}, 2 * 75 * 16),
        ("Einsum", [(2, 4, 6), (2, 5, 6)], [(2, 4, 5)], {"equation": "bik, bjk -> bij"}, 2 * 40 * 6),
        ("QLinearConv", [(1, 3, 5, 5), (), (), (4, 3, 2, 2)], [(1, 4, 4, 4)], {}, 2 * 64 * 12),
        ("QLinearMatMul", [(4, 6), (), (), (6, 5)], [(4, 5)], {}, 2 * 20 * 6),
        ("LSTM", [(7, 2, 3), (1, 20, 3), (1, 20, 5)], [(7, 1, 2, 5)], {}, 2 * 14 * (60 + 100)),
        ("GRU", [(7, 2, 3), (2, 15, 3), (2, 15, 5)], [(7, 2, 2, 5)], {}, 2 * 14 * (90 + 150)),
        ("AveragePool", [(1, 2, 4, 4)], [(1, 2, 2, 2)], {"kernel_shape": [3, 3]}, 8 * 9),
        ("GlobalAveragePool", [(1, 2, 4, 4)], [(1, 2, 1, 1)], {}, 32),
        ("ReduceMean", [(2, 3, 4)], [(2, 3)], {}, 24),
        ("ArgMax", [(2, 3)], [(2, 1)], {}, 6),
        ("Softmax", [(2, 3)], [(2, 3)], {}, 24),
        ("BatchNormalization", [(2, 3)], [(2, 3)], {}, 12),
    ],
)
def test_operations_of_a_node_by_hand(op_type, inputs, outputs, attributes, wanted):
    names = [f"i{index}" for index in range(len(inputs))]
    results = [f"o{index}" for index in range(len(outputs))]
    shapes = dict(zip([*names, *results], [*inputs, *outputs], strict=True))
    assert operations_of(node(op_type, names, results, **attributes), shapes) == wanted


def test_an_unknown_shape_counts_nothing():
    assert operations_of(node("Relu", ["a"], ["b"]), {}) == 0


def test_shapes_that_are_computed_from_values_are_found_by_running_the_model():
    """The second matrix stands behind a reshape whose target comes from the input's own shape."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"], name="one"),
        node("Shape", ["h"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "first"], ["u"]),
        node("Concat", ["u", "rest"], ["t"], axis=0),
        node("Reshape", ["h", "t"], ["r"]),
        node("MatMul", ["r", "v"], ["y"], name="two"),
    ]
    arrays = {
        "w": weights(6, 8),
        "v": weights(4, 5),
        "zero": np.array(0),
        "first": np.array([0]),
        "rest": np.array([2, 4]),
    }
    program = builders.compiled_like_onnxruntime(
        builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 2, 5]}, arrays)
    )
    assert by_name(program)["two"].vectors == 2
