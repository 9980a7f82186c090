"""A new head on a stock network: what is before the cut stays as it was, what is behind is gone."""

import os
from pathlib import Path

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights
from onnx import TensorProto, helper, numpy_helper

import pcmc
import real
from pcmc.compiler.head import with_head
from pcmc.errors import DataError, ModelError

# Real models that get no head by themselves, and why.
HEADLESS = {
    "espcn_superres_quant_brevitas.onnx": "operator domain 'onnx.brevitas'",
    "mnist_cnn6_crosssim_qoperator.onnx": "its values are of type uint8",
    "ppocr_mobile_det_paddle.onnx": "the number of features is open",
    "silero_vad_if.onnx": "outside of its If, Loop and Scan nodes",
    "snips_bidi_lstm.onnx": "the number of features is open",
}
# Real models that hold, before the head, matrices of a kind that is not mapped.
UNMAPPED = ("carvana_unet_upsample.onnx", "cgan_32_1.onnx", "dtln_model_1.onnx")
NARROW = (TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def op_types(model):
    return [one.op_type for one in model.graph.node]


def head_of(model):
    """The last node of a model, and its weights and bias."""
    head = model.graph.node[-1]
    assert head.op_type == "Gemm"
    return head, *(constants(model)[name] for name in head.input[1:])


def cut_tensor(model):
    """The tensor that the nodes of a new head start from."""
    added = [one for one in model.graph.node if one.name.startswith("head")]
    return added[0].input[0]


def ending_with(model, *tensors):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return copy


def output_shape(model):
    (output,) = model.graph.output
    return [dim.dim_value or dim.dim_param for dim in output.type.tensor_type.shape.dim]


def cnn():
    """Conv, Relu, pool, Flatten, Gemm, Softmax."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"], name="relu"),
        node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "v", "b"], ["z"], name="fc"),
        node("Softmax", ["z"], ["y"], name="softmax"),
    ]
    given = {"w": weights(4, 1, 3, 3), "v": weights(64, 10), "b": weights(10)}
    return builders.model(nodes, {"x": ["N", 1, 8, 8]}, {"y": ["N", 10]}, given)


# --- the cut


def test_the_classifier_gives_way_to_a_new_one():
    model = with_head(cnn(), 5)
    onnx.checker.check_model(model, full_check=True)
    assert op_types(model) == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm"]
    head, matrix, bias = head_of(model)
    assert (head.name, list(head.input), list(head.output)) == (
        "head",
        ["f", "head.weight", "head.bias"],
        ["logits"],
    )
    assert (matrix.shape, bias.shape) == ((64, 5), (5,))
    assert not bias.any()
    assert set(constants(model)) == {"w", "head.weight", "head.bias"}
    assert [value.name for value in model.graph.output] == ["logits"]
    assert output_shape(model) == ["N", 5]


def test_the_head_computes_features_times_its_weights():
    original, model = cnn(), with_head(cnn(), 5)
    inputs = builders.feeds(original)
    (features,) = builders.reference(ending_with(original, "f"), inputs)
    _, matrix, _ = head_of(model)
    builders.assert_close(builders.reference(model, inputs), [features @ matrix])
    builders.compiled_like_onnxruntime(model)


def test_a_tensor_of_maps_is_flattened():
    model = with_head(cnn(), 3, after="r")
    assert op_types(model) == ["Conv", "Relu", "Flatten", "Gemm"]
    assert head_of(model)[1].shape == (4 * 8 * 8, 3)
    builders.compiled_like_onnxruntime(model)


def test_a_head_may_stand_on_the_input_itself():
    model = with_head(cnn(), 3, after="x")
    assert op_types(model) == ["Flatten", "Gemm"]
    assert head_of(model)[1].shape == (64, 3)
    builders.compiled_like_onnxruntime(model)


def test_the_model_that_was_given_stays_as_it_was():
    original = cnn()
    before = original.SerializeToString()
    with_head(original, 5)
    assert original.SerializeToString() == before


@pytest.mark.parametrize("source", ["path", "text", "bytes"])
def test_a_file_is_as_good_as_a_model(tmp_path, source):
    path = tmp_path / "cnn.onnx"
    onnx.save(cnn(), path)
    given = {"path": path, "text": str(path), "bytes": path.read_bytes()}[source]
    assert with_head(given, 5).SerializeToString() == with_head(cnn(), 5).SerializeToString()


def test_a_constant_on_the_left_of_a_product_is_a_matrix_too():
    nodes = [node("Relu", ["x"], ["r"]), node("MatMul", ["w", "r"], ["y"])]
    proto = builders.model(nodes, {"x": ["N", 6, 2]}, {"y": ["N", 5, 2]}, {"w": weights(5, 6)})
    model = with_head(proto, 3)
    assert op_types(model) == ["Relu", "Flatten", "Gemm"]
    assert head_of(model)[1].shape == (12, 3)


def test_weights_that_are_computed_from_constants_are_a_matrix():
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Transpose", ["w"], ["t"]),
        node("MatMul", ["r", "t"], ["m"]),
        node("MatMul", ["m", "m"], ["y"]),
    ]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, {"w": weights(5, 6)})
    assert op_types(with_head(proto, 3)) == ["Relu", "Gemm"]


def test_a_head_gives_way_to_another_head():
    model = with_head(with_head(cnn(), 5), 7)
    assert [one.name for one in model.graph.node] == ["conv", "relu", "pool", "flatten", "head"]
    assert head_of(model)[1].shape == (64, 7)


# --- what is kept, and what goes


def test_inputs_constants_and_outputs_of_what_is_behind_go():
    nodes = [
        node("Gemm", ["x", "w"], ["h"], name="first"),
        node("Relu", ["h"], ["r"], name="relu"),
        node("Gemm", ["r", "v"], ["z"], name="second"),
        node("Add", ["z", "late"], ["y"], name="add"),
        node("Neg", ["h"], ["side"], name="side"),
    ]
    proto = builders.model(
        nodes,
        {"x": ["N", 6], "late": ["N", 4]},
        {"y": ["N", 4], "side": ["N", 5]},
        {"w": weights(6, 5), "v": weights(5, 4)},
    )
    proto.graph.value_info.extend(builders.value_info(name, ["N", 5]) for name in ("h", "side"))
    proto.graph.quantization_annotation.add(tensor_name="h")
    proto.graph.quantization_annotation.add(tensor_name="z")
    model = with_head(proto, 3)
    assert [one.name for one in model.graph.node] == ["first", "relu", "head"]
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.value_info] == ["h"]
    assert [note.tensor_name for note in model.graph.quantization_annotation] == ["h"]
    assert set(constants(model)) == {"w", "head.weight", "head.bias"}


def test_opset_metadata_and_texts_stay():
    proto = cnn()
    helper.set_model_props(proto, {"author": "someone"})
    proto.doc_string, proto.producer_name, proto.model_version = "a network", "exporter", 7
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    proto.graph.node[0].doc_string = "first"
    model = with_head(proto, 3)
    assert model.opset_import == proto.opset_import
    assert model.metadata_props == proto.metadata_props
    assert (model.doc_string, model.producer_name, model.model_version) == ("a network", "exporter", 7)
    assert list(model.graph.node)[:4] == list(proto.graph.node)[:4]


def test_what_a_body_takes_from_outside_is_kept():
    then = builders.body([node("Mul", ["h", "two"], ["t"])], {"t": ["N", 5]})
    other = builders.body([node("Add", ["h", "shift"], ["o"])], {"o": ["N", 5]})
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("If", ["flag"], ["r"], then_branch=then, else_branch=other, name="if"),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    given = {"w": weights(6, 5), "v": weights(5, 4), "two": np.float32(2), "shift": weights(5)}
    proto = builders.model(nodes, {"x": ["N", 6], "flag": ([], TensorProto.BOOL)}, {"y": ["N", 4]}, given)
    model = with_head(proto, 3)
    onnx.checker.check_model(model)
    assert op_types(model) == ["MatMul", "If", "Gemm"]
    assert set(constants(model)) == {"w", "two", "shift", "head.weight", "head.bias"}
    inputs = {"x": weights(2, 6), "flag": np.array(False)}
    (features,) = builders.reference(ending_with(proto, "r"), inputs)
    builders.assert_close(builders.reference(model, inputs), [features @ head_of(model)[1]])


def test_sparse_constants_are_kept_or_go():
    def sparse(name):
        values = numpy_helper.from_array(np.array([1, 2], np.float32), name)
        places = numpy_helper.from_array(np.array([0, 7], np.int64), f"{name}_at")
        return helper.make_sparse_tensor(values, places, [6, 5])

    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["g", "v"], ["y"])]
    nodes.insert(1, node("MatMul", ["h", "u"], ["g"]))
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, {"u": weights(5, 6)})
    proto.graph.sparse_initializer.extend([sparse("w"), sparse("v")])
    model = with_head(proto, 3)
    assert [constant.values.name for constant in model.graph.sparse_initializer] == ["w"]
    assert cut_tensor(model) == "g"
    assert op_types(with_head(proto, 3, after="h")) == ["MatMul", "Gemm"]


def with_functions(inner_nodes, inputs, output):
    """A model of one function, called twice: `first` with w, `second` with v."""
    function = helper.make_function(
        "local", "Layer", inputs, [output], inner_nodes, [helper.make_opsetid("", builders.OPSET)]
    )
    nodes = [
        node("Layer", ["x", "w"], ["h"], domain="local", name="first"),
        node("Layer", ["h", "v"], ["y"], domain="local", name="second"),
    ]
    given = {"w": weights(6, 6), "v": weights(6, 6, seed=1)}
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, given, domains={"local": 1})
    proto.functions.append(function)
    return proto


def test_functions_stay_functions():
    proto = with_functions([node("MatMul", ["a", "b"], ["d"]), node("Relu", ["d"], ["c"])], ["a", "b"], "c")
    model = with_head(proto, 3)
    assert [one.op_type for one in model.graph.node] == ["Layer", "Gemm"]
    assert model.functions == proto.functions
    assert cut_tensor(model) == "h"
    builders.compiled_like_onnxruntime(model)


def test_a_cut_within_a_function_inlines_it():
    proto = with_functions([node("Relu", ["a"], ["d"]), node("MatMul", ["d", "b"], ["c"])], ["a", "b"], "c")
    model = with_head(proto, 3)
    assert op_types(model) == ["Relu", "MatMul", "Relu", "Gemm"]
    assert not model.functions
    inputs = builders.feeds(proto)
    (before,) = builders.reference(ending_with(proto, "h"), inputs)
    builders.assert_close(builders.reference(model, inputs), [np.maximum(before, 0) @ head_of(model)[1]])


def test_external_data_come_along(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(cnn(), path, save_as_external_data=True, location="net.data", size_threshold=0)
    model = with_head(path, 3)
    np.testing.assert_array_equal(constants(model)["w"], weights(4, 1, 3, 3))
    builders.compiled_like_onnxruntime(model)


def test_before_ir_version_4_the_new_constants_are_inputs_too():
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
    proto = builders.model(
        nodes,
        {"x": ["N", 6]},
        {"y": ["N", 4]},
        {"w": weights(6, 5), "v": weights(5, 4)},
        opset=8,
        ir_version=3,
        constants_are_inputs=True,
    )
    model = with_head(proto, 3)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x", "w", "head.weight", "head.bias"]
    builders.compiled_like_onnxruntime(model)


@pytest.mark.parametrize(("opset", "attributes"), [(6, {"broadcast": 1}), (7, {})])
def test_the_bias_is_broadcast_in_old_opsets_too(opset, attributes):
    nodes = [node("Relu", ["x"], ["r"]), node("MatMul", ["r", "w"], ["y"])]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, {"w": weights(6, 5)}, opset=opset)
    model = with_head(proto, 3)
    onnx.checker.check_model(model, full_check=True)
    assert {one.name: one.i for one in model.graph.node[-1].attribute} == attributes


def test_names_that_are_taken_get_a_number():
    nodes = [
        node("MatMul", ["x", "head.weight"], ["logits"], name="head"),
        node("Relu", ["logits"], ["logits_1"], name="head/Flatten"),
        node("Reshape", ["logits_1", "shape"], ["head/features"], name="reshape"),
    ]
    given = {"head.weight": weights(6, 8), "shape": np.array([-1, 2, 2, 2], np.int64)}
    proto = builders.model(nodes, {"x": ["N", 6]}, {"head/features": ["N", 2, 2, 2]}, given)
    model = with_head(proto, 3, after="head/features")
    onnx.checker.check_model(model, full_check=True)
    assert [one.name for one in model.graph.node] == [
        "head",
        "head/Flatten",
        "reshape",
        "head/Flatten_1",
        "head_1",
    ]
    assert list(model.graph.node[-1].input) == ["head/features_1", "head.weight_1", "head.bias"]
    assert [value.name for value in model.graph.output] == ["logits_2"]
    builders.compiled_like_onnxruntime(model)


def test_half_precision_ends_before_the_head():
    half = np.float16
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    given = {"w": weights(6, 5, dtype=half), "v": weights(5, 4, dtype=half)}
    proto = builders.model(
        nodes, {"x": (["N", 6], TensorProto.FLOAT16)}, {"y": (["N", 4], TensorProto.FLOAT16)}, given
    )
    model = with_head(proto, 3)
    onnx.checker.check_model(model, full_check=True)
    assert op_types(model) == ["MatMul", "Relu", "Cast", "Gemm"]
    assert head_of(model)[1].dtype == np.float32
    builders.compiled_like_onnxruntime(model, tolerance=2e-3)


# --- initial weights


def test_initial_weights_have_glorots_law():
    _, matrix, _ = head_of(with_head(cnn(), 1000))
    bound = np.sqrt(6 / 1064)
    assert np.abs(matrix).max() <= bound
    # A uniform law of n = 64,000: the variance bound^2 / 3 has a relative deviation of sqrt(0.8 / n).
    n = matrix.size
    assert abs(matrix.mean()) < 5 * bound / np.sqrt(3 * n)
    assert matrix.var() == pytest.approx(bound**2 / 3, rel=5 * np.sqrt(0.8 / n))


def test_equal_seeds_give_equal_weights_and_others_do_not():
    one, same, other = (with_head(cnn(), 5, seed=seed) for seed in (1, 1, 2))
    assert one.SerializeToString() == same.SerializeToString()
    assert not np.array_equal(head_of(one)[1], head_of(other)[1])


# --- shapes


def reshaped(sizes):
    """x [N, ?, 4] -> its own shape, computed inside the graph, with the last axes merged -> r -> Gemm."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Concat", ["n", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["r"]),
        node("Gemm", ["r", "w"], ["y"]),
    ]
    given = {"zero": np.array([0]), "rest": np.array([-1]), "w": weights(12, 5)}
    return builders.model(nodes, {"x": sizes}, {"y": ["N", 5]}, given)


def test_a_shape_that_is_computed_in_the_graph_is_found_by_running_it():
    model = with_head(reshaped(["N", 3, 4]), 2)
    assert head_of(model)[1].shape == (12, 2)
    assert output_shape(model) == ["N", 2]
    builders.compiled_like_onnxruntime(model)


def test_an_open_number_of_features_is_refused():
    with pytest.raises(ModelError, match=r"'r': its shape is \[.*\], so the number of features is open"):
        with_head(reshaped(["N", "length", 4]), 2)


def test_no_features_are_refused():
    nodes = [node("Slice", ["x", "start", "end"], ["r"]), node("MatMul", ["r", "w"], ["y"])]
    given = {"start": np.array([0, 0]), "end": np.array([2, 0]), "w": np.zeros((0, 5), np.float32)}
    proto = builders.model(nodes, {"x": [2, 6]}, {"y": [2, 5]}, given)
    with pytest.raises(ModelError, match=r"'r': its shape is \[2, 0\]: there are no features"):
        with_head(proto, 2)


def test_a_tensor_without_a_batch_axis_is_refused():
    nodes = [node("ReduceMean", ["x"], ["r"], axes=[0], keepdims=0), node("MatMul", ["r", "w"], ["y"])]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": [5]}, {"w": weights(6, 5)})
    with pytest.raises(ModelError, match=r"'r': its shape is \[6\]; it should be \[N, features\]"):
        with_head(proto, 2)


def test_a_tensor_of_integers_is_refused():
    nodes = [node("Cast", ["x"], ["i"], to=TensorProto.INT32), node("Cast", ["i"], ["y"], to=1)]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]})
    with pytest.raises(ModelError, match="after tensor 'i': its values are of type int32; cut at"):
        with_head(proto, 2, after="i")


def test_a_tensor_that_nothing_tells_the_shape_of_is_refused():
    nodes = [node("SequenceConstruct", ["x", "x"], ["s"]), node("SequenceAt", ["s", "zero"], ["y"])]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, {"zero": np.array(0)})
    with pytest.raises(ModelError, match="after tensor 's': its type and shape are unknown"):
        with_head(proto, 2, after="s")


def test_a_head_too_large_for_any_file_is_refused():
    with pytest.raises(
        ModelError, match=r"a head of 100,000,000 classes .* would have 6,400,000,000 weights"
    ):
        with_head(cnn(), 100_000_000)


# --- what the user names


def test_an_unknown_tensor_is_answered_with_names_that_are_close():
    proto = builders.mlp([6, 5, 4])
    with pytest.raises(ModelError, match=r"net: has no tensor 'h00'; among its tensors are 'h0'"):
        with_head(proto, 2, after="h00")
    with pytest.raises(ModelError, match=r"has no tensor '\?'; among its tensors are 'a0', 'h0', 'y'"):
        with_head(proto, 2, after="?")


def test_a_node_is_answered_with_its_tensor():
    with pytest.raises(ModelError, match=r"a node of that name \(Relu\), which makes the tensor 'r'"):
        with_head(cnn(), 2, after="relu")


def test_a_constant_tensor_is_refused():
    nodes = [node("Neg", ["w"], ["v"]), node("MatMul", ["x", "v"], ["y"])]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, {"w": weights(6, 5)})
    for name in ("w", "v"):
        with pytest.raises(ModelError, match=f"tensor '{name}' is a constant"):
            with_head(proto, 2, after=name)


def in_a_body():
    """All matrices lie in the branches of an If, one of them in an If within."""
    deep = builders.body([node("MatMul", ["t", "v"], ["deep"])], {"deep": ["N", 5]})
    flat = builders.body([node("Identity", ["t"], ["flat"])], {"flat": ["N", 5]})
    then = builders.body(
        [
            node("MatMul", ["x", "w"], ["t"]),
            node("If", ["flag"], ["u"], then_branch=deep, else_branch=flat),
        ],
        {"u": ["N", 5]},
    )
    other = builders.body([node("MatMul", ["x", "w"], ["o"])], {"o": ["N", 5]})
    nodes = [node("If", ["flag"], ["y"], then_branch=then, else_branch=other, name="choice")]
    inputs = {"x": ["N", 6], "flag": ([], TensorProto.BOOL)}
    return builders.model(nodes, inputs, {"y": ["N", 5]}, {"w": weights(6, 5), "v": weights(5, 5)})


@pytest.mark.parametrize("name", ["t", "deep"])
def test_a_tensor_inside_a_body_is_answered_with_its_node(name):
    with pytest.raises(ModelError, match=rf"'{name}' lies inside node 'choice' \(If\): .* its output 'y'"):
        with_head(in_a_body(), 2, after=name)


def test_a_model_without_a_matrix_wants_a_tensor():
    proto = builders.model([node("Relu", ["x"], ["y"])], {"x": ["N", 6]}, {"y": ["N", 6]})
    with pytest.raises(ModelError, match=r"has no constant matrix .*: name the tensor"):
        with_head(proto, 2)
    assert op_types(with_head(proto, 2, after="y")) == ["Relu", "Gemm"]
    with pytest.raises(ModelError, match="outside of its If, Loop and Scan nodes: name the tensor"):
        with_head(in_a_body(), 2)


@pytest.mark.parametrize("classes", [1, 0, -3, 2.5, "ten", None])
def test_fewer_than_two_classes_are_refused(classes):
    with pytest.raises(DataError, match=f"a head of {classes} classes: should be a whole number from 2 on"):
        with_head(cnn(), classes)


# --- real models


def filenames():
    """Names of the real models; one entry that asks for the folder where it is missing."""
    folder = Path(os.environ.get("PCMC_TEST_MODELS", "no such folder"))
    return sorted(path.name for path in folder.glob("*.onnx")) or ["the folder of real models"]


@pytest.mark.slow
@pytest.mark.parametrize("filename", filenames())
def test_features_of_a_real_model_are_those_of_the_original(filename):
    path = real.model_path(filename)
    if filename in HEADLESS:
        with pytest.raises(ModelError, match=HEADLESS[filename]):
            with_head(path, 7)
        return
    model = with_head(path, 7)
    onnx.checker.check_model(model, full_check=True)
    tensor, original = cut_tensor(model), onnx.load(path)
    inputs = builders.feeds(model, batch=2)
    all_inputs = builders.feeds(original, batch=2)
    (want,) = builders.reference(ending_with(original, tensor), all_inputs | inputs)
    got, logits = builders.reference(ending_with(model, tensor, model.graph.output[0].name), inputs)
    np.testing.assert_array_equal(got, want)
    assert np.any(want)
    _, matrix, bias = head_of(model)
    builders.assert_close([logits], [want.reshape(len(want), -1).astype(np.float32) @ matrix + bias])
    if filename in UNMAPPED:
        with pytest.raises(ModelError, match="can't be put on tiles"):
            pcmc.compile(model)
        return
    program = pcmc.compile(model)
    assert "head" in builders.placed_on_tiles(program)
    narrow = any(tensor.data_type in NARROW for tensor in original.graph.initializer)
    builders.assert_close(builders.run(program, inputs), [logits], 2e-3 if narrow else 1e-4)
