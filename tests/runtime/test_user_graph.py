"""Where the user's graph keeps weights, whatever way it came by them, is where they go back to."""

from typing import Any

import builders
import exporting
import numpy as np
import onnx
import pytest
from builders import node, weights
from exporting import constants, exports_what_it_computes, retrained
from onnx import TensorProto, helper, numpy_helper

import pcmc
from pcmc.runtime.export import Export, exported, trained_model, with_weights


def dense(
    made: list[onnx.NodeProto], arrays: dict[str, Any], *, matrix: str = "m", opset: int = 21
) -> onnx.ModelProto:
    """`y = x m` with a matrix `m [20, 9]` that the given nodes make of constants."""
    nodes = [*made, node("MatMul", ["x", matrix], ["y"], name="product")]
    return builders.model(nodes, {"x": ["N", 20]}, {"y": ["N", 9]}, arrays, opset=opset, ir_version=10)


def value_of(model: onnx.ModelProto, tensor: str) -> Any:
    """What onnxruntime makes of a tensor of a model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return builders.reference(copy, builders.feeds(model))[0]


def matrix_of(program: pcmc.Program, bank: str = "product") -> Any:
    return program.banks[bank].matrix()[0]


# Weights that several nodes read.


def test_a_matrix_that_two_nodes_read_is_one_for_both():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="act"),
        node("MatMul", ["b", "w"], ["y"], name="second"),
    ]
    arrays = {"w": weights(9, 9)}
    result = exports_what_it_computes(builders.model(nodes, {"x": ["N", 9]}, {"y": ["N", 9]}, arrays))
    assert result.changed == ("w",)


def test_a_matrix_that_is_read_transposed_elsewhere_becomes_two():
    nodes = [
        node("Gemm", ["x", "w"], ["a"], name="first"),
        node("Gemm", ["a", "w"], ["y"], name="second", transB=1),
    ]
    proto = builders.model(nodes, {"x": ["N", 20]}, {"y": ["N", 20]}, {"w": weights(20, 9)})
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert (result.changed, result.added) == (("w",), ("w/trained",))


def test_a_table_that_is_looked_up_keeps_its_values_where_the_matrix_changes():
    nodes = [
        node("Gather", ["w", "x"], ["a"], name="embed"),
        node("Transpose", ["w"], ["t"], name="turn"),
        node("MatMul", ["a", "t"], ["y"], name="product"),
    ]
    numbers = (["N"], TensorProto.INT64)
    proto = builders.model(nodes, {"x": numbers}, {"y": ["N", 20]}, {"w": weights(20, 9)})
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert result.added == ("w/trained",)
    np.testing.assert_array_equal(constants(result.model)["w"], constants(proto)["w"])
    assert result.model.graph.node[1].input[0] == "w/trained"


def test_a_matrix_that_is_an_output_stays_what_it_was_there():
    proto = dense([], {"m": weights(20, 9)})
    proto.graph.output.append(builders.value_info("m", [20, 9]))
    program = pcmc.compile(proto, builders.chip(24, 7))
    result = exported(retrained(program))
    assert result.added == ("m/trained",)
    np.testing.assert_array_equal(value_of(result.model, "m"), constants(proto)["m"])


def test_a_bias_that_layers_share_is_its_own_for_each_that_differs():
    arrays = {"v": weights(20, 20), "w": weights(20, 20, seed=1), "b": np.zeros(20, np.float32)}
    nodes = [
        node("Gemm", ["x", "v", "b"], ["a"], name="first"),
        node("Gemm", ["a", "w", "b"], ["y"], name="second"),
    ]
    proto = builders.model(nodes, {"x": ["N", 20]}, {"y": ["N", 20]}, arrays)
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert set(result.changed) == {"v", "w", "b"}
    assert result.added == ("b/trained",)


def test_statistics_that_layers_share_are_its_own_for_each_that_differs():
    shared = {key: np.abs(weights(6, seed=seed)) + 0.5 for seed, key in enumerate(("g", "b", "m", "v"))}
    arrays = {"w": weights(6, 6, 3, 3), "u": weights(6, 6, 1, 1, seed=9), **shared}
    nodes = [
        node("Conv", ["x", "w"], ["c0"], name="conv0"),
        node("BatchNormalization", ["c0", *shared], ["n0"], name="norm0"),
        node("Relu", ["n0"], ["r0"], name="relu0"),
        node("Conv", ["r0", "u"], ["c1"], name="conv1"),
        node("BatchNormalization", ["c1", *shared], ["y"], name="norm1"),
    ]
    proto = builders.model(nodes, {"x": ["N", 6, 5, 5]}, {"y": [None] * 4}, arrays)
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert result.added == ("b/trained",)
    np.testing.assert_array_equal(constants(result.model)["m"], shared["m"])


def test_weights_that_a_body_reads_too_keep_their_values_there():
    branch = builders.body([node("ReduceSum", ["m"], ["s"], keepdims=0)], {"s": []})
    other = builders.body([node("Identity", ["zero"], ["z"])], {"z": []})
    nodes = [
        node("MatMul", ["x", "m"], ["p"], name="product"),
        node("If", ["yes"], ["c"], name="choice", then_branch=branch, else_branch=other),
        node("Add", ["p", "c"], ["y"], name="sum"),
    ]
    arrays = {"m": weights(20, 9), "zero": np.float32(0)}
    proto = builders.model(nodes, {"x": ["N", 20], "yes": ([], TensorProto.BOOL)}, {"y": ["N", 9]}, arrays)
    feeds = {"x": builders.feeds(proto)["x"], "yes": np.array(True)}
    result = exports_what_it_computes(proto, keeps_graph=False, feeds=feeds)
    np.testing.assert_array_equal(constants(result.model)["m"], arrays["m"])
    assert result.added == ("m/trained",)


# Ways to hold a constant.


def test_initializers_that_are_inputs_stay_inputs():
    proto = builders.mlp([20, 9, 4])
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, 1, list(tensor.dims)))
    exports_what_it_computes(proto)


def test_a_new_initializer_is_an_input_where_the_format_demands_it():
    nodes = [
        node("Gemm", ["x", "w", "c"], ["a"], name="first"),
        node("Gemm", ["a", "w", "c"], ["y"], name="second", transB=1),
    ]
    arrays = {"w": weights(9, 9), "c": weights(9)}
    proto = builders.model(
        nodes, {"x": ["N", 9]}, {"y": ["N", 9]}, arrays, opset=8, ir_version=3, constants_are_inputs=True
    )
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert {"w/trained", "c/trained"} == set(result.added)
    assert {"w/trained", "c/trained"} < {value.name for value in result.model.graph.input}


def test_a_constant_node_gets_other_values():
    made = node("Constant", [], ["m"], name="weights", value=numpy_helper.from_array(weights(20, 9), "kept"))
    result = exports_what_it_computes(dense([made], {}))
    assert result.model.graph.node[0].attribute[0].t.name == "kept"


def test_a_constant_node_of_a_list_of_numbers_becomes_one_of_a_tensor():
    nodes = [
        node("Constant", [], ["b"], name="bias", value_floats=[0.5, 1.0, -1.0, 2.0]),
        node("Gemm", ["x", "w", "b"], ["y"], name="fc"),
    ]
    proto = builders.model(nodes, {"x": ["N", 20]}, {"y": ["N", 4]}, {"w": weights(20, 4)})
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert set(result.changed) == {"b", "w"}
    assert [attribute.name for attribute in result.model.graph.node[0].attribute] == ["value"]


def test_a_sparse_initializer_becomes_a_dense_one_of_its_name():
    proto = dense([], {})
    places = np.array([3, 50, 170], np.int64)
    values = numpy_helper.from_array(np.ones(3, np.float32), "m")
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(places, "at"), [20, 9])
    )
    program = pcmc.compile(proto, builders.chip(24, 7))
    assert exported(program).model.SerializeToString() == proto.SerializeToString()
    trained = retrained(program)
    result = exported(trained)
    assert result.changed == ("m",)
    assert not result.model.graph.sparse_initializer
    np.testing.assert_array_equal(constants(result.model)["m"], matrix_of(trained))


# Constants that are computed.


MADE: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "transposed": ([node("Transpose", ["w"], ["m"])], {"w": weights(9, 20)}),
    "permuted": (
        [node("Transpose", ["w"], ["t"], perm=[2, 0, 1]), node("Reshape", ["t", "to"], ["m"])],
        {"w": weights(4, 9, 5), "to": np.array([20, 9])},
    ),
    "reshaped": ([node("Reshape", ["w", "to"], ["m"])], {"w": weights(180), "to": np.array([20, 9])}),
    "flattened": ([node("Flatten", ["w"], ["m"])], {"w": weights(20, 3, 3)}),
    "squeezed": ([node("Squeeze", ["w"], ["m"])], {"w": weights(1, 20, 9)}),
    "unsqueezed": (
        [node("Unsqueeze", ["w", "at"], ["u"]), node("Squeeze", ["u"], ["m"])],
        {"w": weights(20, 9), "at": np.array([1])},
    ),
    "passed": ([node("Identity", ["w"], ["i"]), node("Identity", ["i"], ["m"])], {"w": weights(20, 9)}),
}


@pytest.mark.parametrize("way", MADE)
def test_weights_that_are_only_moved_go_back_to_where_they_started(way):
    made, arrays = MADE[way]
    proto = dense(made, arrays)
    result = exports_what_it_computes(proto)
    assert result.changed == ("w",)


@pytest.mark.parametrize(("stored", "used"), [(np.float16, 1), (np.float64, 1)])
def test_weights_of_another_type_are_rounded_to_it(stored, used):
    proto = dense([node("Cast", ["w"], ["m"], to=used)], {"w": weights(20, 9, dtype=stored)})
    result = exports_what_it_computes(proto, tolerance=1e-3 if stored == np.float16 else 3e-6)
    assert constants(result.model)["w"].dtype == stored


def test_weights_that_are_computed_otherwise_become_an_initializer_of_their_own():
    made = [node("Mul", ["w", "s"], ["m"], name="scale")]
    result = exports_what_it_computes(dense(made, {"w": weights(20, 9), "s": weights(9)}), keeps_graph=False)
    assert result.added == ("m/trained",)
    assert constants(result.model).keys() == {"m/trained"}  # what made the old one is gone
    assert [made.op_type for made in result.model.graph.node] == ["MatMul"]


def test_what_made_old_weights_stays_where_somebody_reads_it():
    made = [node("Mul", ["w", "s"], ["m"], name="scale"), node("Add", ["m", "s"], ["z"], name="other")]
    proto = dense(made, {"w": weights(20, 9), "s": weights(9)})
    proto.graph.output.append(builders.value_info("z", [20, 9]))
    result = exported(retrained(pcmc.compile(proto, builders.chip(24, 7))))
    assert [made.name for made in result.model.graph.node] == ["scale", "other", "product"]
    np.testing.assert_array_equal(value_of(result.model, "z"), value_of(proto, "z"))


def test_whole_numbers_that_become_weights_are_not_rounded_again():
    made = [node("Cast", ["w"], ["m"], to=1)]
    result = exports_what_it_computes(dense(made, {"w": np.arange(180).reshape(20, 9)}), keeps_graph=False)
    assert result.added == ("m/trained",)


def test_weights_inside_of_a_function_come_back_inlined():
    function = helper.make_function(
        "local",
        "layer",
        ["a", "w"],
        ["b"],
        [node("Transpose", ["w"], ["t"]), node("MatMul", ["a", "t"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        node("layer", ["x", "v"], ["h"], name="first", domain="local"),
        node("layer", ["h", "w"], ["y"], name="second", domain="local"),
    ]
    arrays = {"v": weights(9, 20), "w": weights(4, 9, seed=1)}
    proto = builders.model(nodes, {"x": ["N", 20]}, {"y": ["N", 4]}, arrays, domains={"local": 1})
    proto.functions.append(function)
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert set(result.changed) == {"v", "w"}
    assert not result.model.functions


def test_a_frozen_input_of_weights_becomes_an_initializer():
    nodes = [node("Transpose", ["w"], ["m"]), node("MatMul", ["x", "m"], ["y"], name="product")]
    proto = builders.model(nodes, {"x": ["N", 20], "w": [9, 20]}, {"y": ["N", 9]})
    program = pcmc.compile(proto, builders.chip(24, 7), freeze={"w": weights(9, 20)})
    trained = retrained(program)
    result = exported(trained)
    assert result.added == ("w/trained",)
    inputs = builders.feeds(proto)
    wanted = builders.run(trained, {"x": inputs["x"]})
    builders.assert_close(builders.reference(result.model, inputs), wanted, 3e-6)


# Narrow types.


def test_a_float16_model_gets_its_weights_rounded_to_float16():
    arrays = {"w": weights(20, 9, dtype=np.float16), "b": weights(9, seed=1, dtype=np.float16)}
    half = TensorProto.FLOAT16
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], name="fc")]
    proto = builders.model(nodes, {"x": (["N", 20], half)}, {"y": (["N", 9], half)}, arrays)
    result = exports_what_it_computes(proto, tolerance=4e-3)
    program = retrained(pcmc.compile(proto, builders.chip(24, 7)))
    np.testing.assert_array_equal(constants(result.model)["w"], matrix_of(program, "fc").astype(np.float16))


def test_what_float16_can_not_hold_is_clipped_and_counted():
    proto = dense([node("Cast", ["w"], ["m"], to=1)], {"w": weights(20, 9, dtype=np.float16)})
    program = pcmc.compile(proto, builders.chip(24, 7))
    matrix = matrix_of(program)
    matrix[2, 3], matrix[4, 5] = 1e6, -1e6
    result = exported(with_weights(program, {"product": (matrix, None)}))
    stored = constants(result.model)["w"]
    assert (stored[2, 3], stored[4, 5]) == (65504, -65504)
    assert result.clipped == {"w": 2}


def quantized(
    kind: Any, *, scale: Any, zero: Any = None, axis: int = 1, seed: int = 0, **attributes: int
) -> onnx.ModelProto:
    """Weights [20, 9] in whole numbers behind a DequantizeLinear."""
    middle = 0 if zero is None else int(np.max(zero))
    numbers = (middle + np.random.default_rng(seed).integers(-4, 5, (20, 9))).astype(kind)
    arrays = {"w": numbers, "scale": np.asarray(scale, np.float32)}
    arrays |= {} if zero is None else {"zero": np.asarray(zero).astype(kind)}
    made = node("DequantizeLinear", [*arrays], ["m"], axis=axis, **attributes)
    return dense([made], arrays)


STEPS = np.linspace(0.01, 0.03, 9)
QUANTIZED = {
    "int8": quantized(np.int8, scale=0.02, zero=0),
    "int8 without a zero point": quantized(np.int8, scale=0.02),
    "uint8": quantized(np.uint8, scale=0.02, zero=128),
    "int8 by column": quantized(np.int8, scale=STEPS, zero=np.zeros(9)),
    "uint8 by row": quantized(np.uint8, scale=np.linspace(0.01, 0.03, 20), zero=np.full(20, 9), axis=0),
    "int16": quantized(np.int16, scale=0.001, zero=5),
    "int8 by blocks": quantized(
        np.int8, scale=np.full((4, 9), STEPS), zero=np.zeros((4, 9)), axis=0, block_size=5
    ),
    "int4": quantized(helper.tensor_dtype_to_np_dtype(TensorProto.INT4), scale=0.1, zero=0),
}


@pytest.mark.parametrize("case", QUANTIZED)
def test_quantized_weights_are_within_half_a_step(case):
    """With the scale and zero point of the model, which stay as they are."""
    proto = QUANTIZED[case]
    program = pcmc.compile(proto, builders.chip(24, 7))
    assert exported(program).model.SerializeToString() == proto.SerializeToString()
    trained = retrained(program, noise=0.3)
    result = exported(trained)
    assert exporting.skeleton(result.model) == exporting.skeleton(proto)
    assert result.changed == ("w",)
    assert not result.clipped
    scale = constants(proto)["scale"]
    step = np.repeat(scale, 5, axis=0) if scale.ndim == 2 else scale
    step = np.broadcast_to(step[:, None] if scale.shape == (20,) else step, (20, 9))
    error = np.abs(value_of(result.model, "m").astype(np.float64) - matrix_of(trained))
    assert (error <= 0.5001 * step).all()
    assert error.max() > 0.25 * step.max()


def test_quantized_weights_out_of_range_are_clipped_and_counted():
    program = pcmc.compile(QUANTIZED["uint8"], builders.chip(24, 7))
    matrix = matrix_of(program)
    matrix[:, 4] = 1000.0
    result = exported(with_weights(program, {"product": (matrix, None)}))
    assert (constants(result.model)["w"][:, 4] == 255).all()
    assert result.clipped == {"w": 20}
    np.testing.assert_array_equal(
        np.delete(constants(result.model)["w"], 4, axis=1),
        np.delete(constants(QUANTIZED["uint8"])["w"], 4, axis=1),
    )


def test_weights_that_the_model_quantizes_itself_start_from_the_middle_of_a_step():
    made = [
        node("QuantizeLinear", ["w", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["m"]),
    ]
    arrays = {"w": weights(20, 9), "scale": np.float32(0.05), "zero": np.int8(3)}
    program = pcmc.compile(dense(made, arrays), builders.chip(24, 7))
    trained = retrained(program, noise=0.3)
    result = exported(trained)
    assert (result.changed, result.added) == (("w",), ())
    assert np.abs(value_of(result.model, "m") - matrix_of(trained)).max() <= 0.0251


def test_a_quantized_bias_is_rounded_to_its_own_step():
    arrays = {
        "w": weights(20, 9),
        "c": np.arange(9, dtype=np.int32) * 100,
        "scale": np.float32(0.001),
        "zero": np.int32(0),
    }
    nodes = [
        node("DequantizeLinear", ["c", "scale", "zero"], ["b"]),
        node("Gemm", ["x", "w", "b"], ["y"], name="fc"),
    ]
    proto = builders.model(nodes, {"x": ["N", 20]}, {"y": ["N", 9]}, arrays)
    trained = retrained(pcmc.compile(proto, builders.chip(24, 7)))
    error = value_of(trained_model(trained), "b") - trained.banks["fc"].matrix()[1]
    assert np.abs(error).max() <= 0.000501


def test_names_that_are_taken_are_not_given_again():
    made = [node("Mul", ["w", "s"], ["m"], name="m/trained")]
    result: Export = exports_what_it_computes(
        dense(made, {"w": weights(20, 9), "s": weights(9)}), keeps_graph=False
    )
    assert result.added == ("m/trained_1",)
