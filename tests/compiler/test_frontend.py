"""The clean model: named, inlined, folded, with the shapes and values given; the original stays as it was."""

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights
from onnx import TensorProto, helper

import pcmc
from pcmc.compiler.frontend import load
from pcmc.compiler.graph import operations
from pcmc.errors import ModelError


def names(clean):
    return [op.name for op in operations(clean.graph)]


def constants(clean):
    return {tensor.name for tensor in clean.model.graph.initializer}


# --- names, inputs, functions


def test_every_node_gets_a_name_of_its_own():
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"], name="same"),
        node("Neg", ["b"], ["y"], name="same"),
    ]
    clean = load(builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, {"w": weights(6, 5)}))
    assert names(clean) == ["MatMul_a", "same", "same_1"]


def test_initializers_that_are_inputs_are_constants():
    """IR version 3 lists initializers among the inputs."""
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    proto = builders.model(
        nodes,
        {"x": ["N", 6]},
        {"y": ["N", 5]},
        {"w": weights(6, 5)},
        opset=8,
        ir_version=3,
        constants_are_inputs=True,
    )
    assert len(proto.graph.input) == 2
    program = builders.compiled_like_onnxruntime(proto)
    assert [info.name for info in program.inputs] == ["x"]


def test_functions_are_inlined():
    inner = helper.make_function(
        "local",
        "Layer",
        ["a", "b"],
        ["c"],
        [node("MatMul", ["a", "b"], ["d"]), node("Relu", ["d"], ["c"])],
        [helper.make_opsetid("", builders.OPSET)],
    )
    nodes = [
        node("Layer", ["x", "w"], ["h"], domain="local"),
        node("Layer", ["h", "v"], ["y"], domain="local"),
    ]
    proto = builders.model(
        nodes,
        {"x": ["N", 6]},
        {"y": ["N", 4]},
        {"w": weights(6, 5), "v": weights(5, 4)},
        domains={"local": 1},
    )
    proto.functions.append(inner)
    program = builders.compiled_like_onnxruntime(proto)
    assert len(program.banks) == 2
    assert len(program.model.functions) == 1, "the program keeps the user's graph"


def test_a_node_may_go_by_the_name_of_an_input_or_output_of_the_graph():
    nodes = [
        node("Relu", ["x"], ["a"], name="input:x"),
        node("MatMul", ["a", "w"], ["y"], name="output:y"),
    ]
    builders.compiled_like_onnxruntime(
        builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, {"w": weights(6, 5)})
    )


# --- constants


@pytest.mark.parametrize("indices", [np.array([0, 5, 9]), np.array([[0, 0], [1, 1], [2, 1]])])
def test_sparse_weights_are_placed_as_dense_ones(indices):
    values = onnx.numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(indices, "at"), [6, 4])
    proto = builders.model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 6]}, {"y": ["N", 4]})
    proto.graph.sparse_initializer.append(sparse)
    program = builders.compiled_like_onnxruntime(proto)
    (bank,) = program.banks.values()
    assert np.flatnonzero(bank.matrix()[0]).tolist() == [0, 5, 9]


def test_a_sparse_tensor_that_would_be_huge_is_refused():
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    sparse = helper.make_sparse_tensor(
        values, onnx.numpy_helper.from_array(np.array([3]), "at"), [10**6, 10**6]
    )
    proto = builders.model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 10**6]}, {"y": ["N", 10**6]})
    proto.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match=r"sparse tensor 'w' .* too large made dense"):
        pcmc.compile(proto)


def test_constants_may_pass_through_types_that_numpy_lacks():
    nodes = [
        node("Cast", ["raw"], ["b"], to=TensorProto.BFLOAT16),
        node("Cast", ["b"], ["w"], to=TensorProto.FLOAT),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 4]}, {"raw": weights(6, 4)})
    builders.compiled_like_onnxruntime(proto)


def test_constant_nodes_and_what_is_made_of_them_become_initializers():
    value = helper.make_tensor("v", 1, [5, 6], weights(5, 6).ravel())
    nodes = [
        node("Constant", [], ["raw"], value=value),
        node("Transpose", ["raw"], ["w"]),
        node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    clean = load(builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}))
    assert names(clean) == ["product"]
    assert constants(clean) == {"w"}


def test_where_a_computed_constant_comes_from_is_recorded():
    nodes = [
        node("Mul", ["raw", "scale"], ["m"]),
        node("Add", ["m", "shift"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    arrays = {"raw": weights(6, 5), "scale": np.float32(2), "shift": np.float32(1)}
    clean = load(builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, arrays))
    assert clean.computed_from["w"] == ("raw", "scale", "shift")


def test_shapes_of_known_tensors_are_constants():
    """The export of `x.view(x.shape[1], -1)`: Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "one"], ["c"]),
        node("Unsqueeze", ["c", "zero"], ["u"]),
        node("Concat", ["u", "minus"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]),
        node("MatMul", ["r", "w"], ["y"], name="product"),
    ]
    arrays = {"one": np.array(1), "zero": np.array([0]), "minus": np.array([-1]), "w": weights(8, 5)}
    proto = builders.model(nodes, {"x": [2, 3, 4]}, {"y": [3, 5]}, arrays)
    clean = load(proto)
    assert names(clean) == ["Reshape_r", "product"]
    builders.compiled_like_onnxruntime(proto)


@pytest.mark.parametrize(
    ("start", "end", "wanted"), [(None, None, [2, 3, 4]), (1, None, [3, 4]), (-1, None, [4]), (0, -1, [2, 3])]
)
def test_a_part_of_a_shape_is_the_part_that_onnx_means(start, end, wanted):
    ends = {key: value for key, value in (("start", start), ("end", end)) if value is not None}
    nodes = [node("Shape", ["x"], ["s"], **ends), node("MatMul", ["x", "w"], ["y"])]
    proto = builders.model(
        nodes,
        {"x": [2, 3, 4]},
        {"y": [2, 3, 5], "s": ([len(wanted)], TensorProto.INT64)},
        {"w": weights(4, 5)},
    )
    program = builders.compiled_like_onnxruntime(proto)
    assert builders.run(program, builders.feeds(proto))[1].tolist() == wanted


def test_the_shape_of_an_open_tensor_is_not_a_constant():
    nodes = [node("Shape", ["x"], ["s"]), node("MatMul", ["x", "w"], ["y"])]
    proto = builders.model(
        nodes, {"x": ["N", 4]}, {"y": ["N", 5], "s": ([2], TensorProto.INT64)}, {"w": weights(4, 5)}
    )
    program = builders.compiled_like_onnxruntime(proto)
    for batch in (1, 7):
        builders.assert_close(
            builders.run(program, builders.feeds(proto, batch=batch)),
            builders.reference(proto, builders.feeds(proto, batch=batch)),
        )


def test_random_operators_are_not_folded():
    nodes = [
        node("RandomNormal", [], ["r"], name="random", shape=[1, 5]),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "r"], ["y"]),
    ]
    clean = load(builders.model(nodes, {"x": ["N", 4]}, {"y": ["N", 5]}, {"w": weights(4, 5)}))
    assert "random" in names(clean)


def test_a_constant_that_would_be_huge_is_not_computed():
    """A file of a few bytes may ask for 40 GB of zeros."""
    nodes = [
        node("ConstantOfShape", ["size"], ["zeros"], name="zeros"),
        node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "sum"], ["y"]),
    ]
    proto = builders.model(
        nodes, {"x": ["N", 4]}, {"y": ["N", 5]}, {"w": weights(4, 5), "size": np.array([100_000, 100_000])}
    )
    assert "zeros" in names(load(proto))


def test_constants_that_can_not_be_computed_are_one_clear_error():
    nodes = [node("Reshape", ["w", "shape"], ["v"]), node("MatMul", ["x", "v"], ["y"])]
    proto = builders.model(
        nodes, {"x": ["N", 4]}, {"y": ["N", 5]}, {"w": weights(4, 5), "shape": np.array([3, 7])}
    )
    with pytest.raises(ModelError, match="net: its constants can't be computed"):
        pcmc.compile(proto)


def test_a_constant_sequence_stays_digital():
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("SequenceConstruct", ["a", "b"], ["s"], name="sequence"),
        node("SequenceAt", ["s", "i"], ["c"]),
        node("Add", ["h", "c"], ["y"]),
    ]
    proto = builders.model(
        nodes,
        {"x": ["N", 4], "i": ([], TensorProto.INT64)},
        {"y": ["N", 5]},
        {"w": weights(4, 5), "a": weights(5), "b": weights(5, seed=1)},
    )
    for index in (0, 1):
        builders.compiled_like_onnxruntime(proto, inputs=builders.feeds(proto) | {"i": np.array(index)})


def test_constants_that_are_outputs_are_made_by_nodes():
    """An initializer, a computed constant and a constant that is a weight too."""
    nodes = [
        node("Transpose", ["raw"], ["w"], name="turn"),
        node("MatMul", ["x", "w"], ["y"], name="product"),
        node("Neg", ["c"], ["d"]),
    ]
    proto = builders.model(
        nodes,
        {"x": ["N", 4]},
        {"y": ["N", 5], "w": [4, 5], "c": [2], "d": [2]},
        {"raw": weights(5, 4), "c": weights(2)},
    )
    program = builders.compiled_like_onnxruntime(proto)
    assert builders.placed_on_tiles(program) == {"product"}


def test_the_type_of_a_cast_is_enough():
    """CastLike needs the type of its second input, not its value: what hangs on it can be constant."""
    nodes = [node("CastLike", ["raw", "x"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    proto = builders.model(nodes, {"x": ["N", 4]}, {"y": ["N", 5]}, {"raw": weights(4, 5).astype(np.float64)})
    builders.compiled_like_onnxruntime(proto)


def test_an_if_with_a_constant_condition_of_constants_is_computed():
    branch = node(
        "If",
        ["flag"],
        ["w"],
        name="if",
        then_branch=builders.body([node("Identity", ["a"], ["t"])], {"t": [4, 5]}, name="then"),
        else_branch=builders.body([node("Neg", ["a"], ["e"])], {"e": [4, 5]}, name="else"),
    )
    proto = builders.model(
        [branch, node("MatMul", ["x", "w"], ["y"])],
        {"x": ["N", 4]},
        {"y": ["N", 5]},
        {"flag": np.array(False), "a": weights(4, 5)},
    )
    (bank,) = builders.compiled_like_onnxruntime(proto).banks.values()
    np.testing.assert_array_equal(bank.matrix()[0], -weights(4, 5))


# --- frozen inputs


def frozen_model():
    """y = (x @ w) * s, where s is an input."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Mul", ["h", "s"], ["y"])]
    return builders.model(nodes, {"x": ["N", 4], "s": [5]}, {"y": ["N", 5]}, {"w": weights(4, 5)})


def test_a_frozen_input_is_a_constant_and_no_longer_an_input():
    value = weights(5, seed=3)
    program = pcmc.compile(frozen_model(), freeze={"s": value}, check=True)
    assert [info.name for info in program.inputs] == ["x"]
    inputs = builders.feeds(frozen_model())
    inputs["s"] = value
    wanted = builders.reference(frozen_model(), inputs)
    builders.assert_close(builders.run(program, {"x": inputs["x"]}), wanted)


def test_a_frozen_input_can_be_the_weights():
    proto = builders.model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4], "w": [4, 5]}, {"y": ["N", 5]})
    (bank,) = pcmc.compile(proto, freeze={"w": weights(4, 5)}).banks.values()
    np.testing.assert_array_equal(bank.matrix()[0], weights(4, 5))


def test_a_frozen_number_takes_the_type_of_the_input():
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Slice", ["h", "zero", "n"], ["y"])]
    proto = builders.model(
        nodes,
        {"x": ["N", 4], "n": ([1], TensorProto.INT64)},
        {"y": ["M", 5]},
        {"w": weights(4, 5), "zero": np.array([0])},
    )
    program = pcmc.compile(proto, freeze={"n": [2]})
    assert builders.run(program, {"x": np.ones((6, 4), np.float32)})[0].shape == (2, 5)


@pytest.mark.parametrize(
    ("freeze", "part"),
    [
        ({"t": 1.0}, "--freeze t: there is no such input; it has x, s"),
        ({"s": [1.0, 2.0]}, "--freeze s: the value has shape [2], the input [5]"),
        ({"s": 1.0}, "--freeze s: the value has shape [], the input [5]"),
        ({"s": "abc"}, "is not a value of the input's type"),
        ({"s": [[1.0] * 5]}, "the value has shape [1, 5]"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(freeze, part):
    with pytest.raises(ModelError) as error:
        pcmc.compile(frozen_model(), freeze=freeze)
    assert part in str(error.value)


def test_freezing_leaves_the_users_model_alone():
    proto = frozen_model()
    program = pcmc.compile(proto, freeze={"s": weights(5)})
    assert [value.name for value in proto.graph.input] == ["x", "s"]
    assert [value.name for value in program.model.graph.input] == ["x", "s"]


def test_the_clean_model_is_valid():
    clean = load(builders.mlp([6, 5, 4]))
    onnx.checker.check_model(clean.model, full_check=True)
