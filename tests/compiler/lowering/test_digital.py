"""Layers that the user keeps off the tiles run in onnxruntime; everything else is placed as it was."""

import builders
import numpy as np
import pytest
from builders import node, weights
from onnx import TensorProto, numpy_helper

import pcmc
import real
from pcmc.errors import ModelError
from pcmc.workflows.runs import reference_session
from pcmc.workflows.samples import random_inputs

ON_REQUEST = "kept digital on request"


def kept(program):
    """Names of the operations that the report says were kept digital on request."""
    return {name for name, why in program.report()["digital"].items() if why.endswith(ON_REQUEST)}


def normalized():
    """Conv `conv` with BatchNormalization `norm` behind it, Relu `act`, and a second Conv `last` of `v`."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="conv"),
        node("BatchNormalization", ["a", "gamma", "beta", "mean", "variance"], ["b"], name="norm"),
        node("Relu", ["b"], ["c"], name="act"),
        node("Conv", ["c", "v"], ["y"], name="last"),
    ]
    constants = {"w": weights(4, 2, 3, 3), "v": weights(3, 4, 1, 1, seed=1)}
    constants |= {name: 1 + np.abs(weights(4, seed=i)) for i, name in enumerate(("gamma", "variance"))}
    constants |= {name: weights(4, seed=i + 5) for i, name in enumerate(("beta", "mean"))}
    return builders.model(nodes, {"x": ["N", 2, 6, 6]}, {"y": ["N", 3, 4, 4]}, constants)


@pytest.mark.parametrize("name", ["conv", "norm", "w"])
def test_a_layer_is_named_by_operation_absorbed_operation_or_initializer(name):
    assert builders.placed_on_tiles(pcmc.compile(normalized())) == {"conv", "norm", "last"}
    program = builders.compiled_like_onnxruntime(normalized(), digital=[name])
    assert builders.placed_on_tiles(program) == {"last"}
    assert set(program.banks) == {"last"}
    assert kept(program) == {"conv"}
    assert program.digital["conv"] == f"Conv: {ON_REQUEST}"
    assert "norm" in program.digital


def test_a_layer_that_is_kept_is_exact_and_the_others_have_all_their_physics():
    proto = builders.mlp([6, 5, 4])
    proto.graph.output.append(builders.value_info("h0", ["N", 5]))
    inputs = builders.feeds(proto)
    y, hidden = pcmc.Session(pcmc.compile(proto, digital=["dense1"]), "full").run(None, inputs)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    np.testing.assert_allclose(y, hidden @ constants["w1"] + constants["b1"], rtol=1e-5, atol=1e-6)
    assert np.abs(hidden - builders.reference(proto, inputs)[1]).max() > 1e-4


def test_several_layers_may_be_kept_and_one_name_is_no_list_of_letters():
    proto = builders.mlp([6, 5, 4, 3])
    assert set(builders.compiled_like_onnxruntime(proto, digital=("dense0", "w2")).banks) == {"dense1"}
    program = pcmc.compile(proto, digital="dense0")
    assert set(program.banks) == {"dense1", "dense2"}
    assert program.options["digital"] == ["dense0"]


def test_weights_that_two_operations_share_are_kept_by_their_own_name_only():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="one"),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w"], ["c"], name="two"),
        node("MatMul", ["c", "v"], ["y"], name="three"),
    ]
    constants = {"w": weights(6, 6), "v": weights(6, 6, seed=1)}
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, constants)
    one = builders.compiled_like_onnxruntime(proto, digital=["one"])
    assert builders.placed_on_tiles(one) == {"two", "three"}
    both = builders.compiled_like_onnxruntime(proto, digital=["w"])
    assert builders.placed_on_tiles(both) == {"three"}
    assert kept(both) == {"one", "two"}


def test_the_initializer_behind_computed_weights_names_the_layer():
    nodes = [
        node("Transpose", ["raw"], ["w"], perm=[1, 0], name="turn"),
        node("MatMul", ["x", "w"], ["a"], name="one"),
        node("MatMul", ["a", "v"], ["y"], name="two"),
    ]
    constants = {"raw": weights(4, 6), "v": weights(4, 4, seed=1)}
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 4]}, constants)
    assert kept(builders.compiled_like_onnxruntime(proto, digital=["raw"])) == {"one"}


def test_a_gemm_that_is_split_is_kept_by_its_name():
    nodes = [
        node("Gemm", ["x", "w", "c"], ["a"], name="gemm", beta=0.5),
        node("MatMul", ["a", "v"], ["y"], name="last"),
    ]
    constants = {"w": weights(6, 4), "v": weights(4, 2, seed=1), "c": weights(3, 4, seed=2)}
    proto = builders.model(nodes, {"x": [3, 6]}, {"y": [3, 2]}, constants)
    program = builders.compiled_like_onnxruntime(proto, digital=["gemm"])
    assert set(program.banks) == {"last"}
    assert kept(program) == {"gemm"}


# --- names that are wrong


def refused(proto, digital, *parts):
    """Compiling raises a ModelError that says all `parts`; its text."""
    with pytest.raises(ModelError) as error:
        pcmc.compile(proto, digital=digital)
    for part in parts:
        assert part in str(error.value)
    return str(error.value)


def test_an_unknown_name_is_refused_with_the_names_that_there_are():
    message = refused(normalized(), ["conv", "cnov"], "--digital cnov: there is no such layer")
    assert message.endswith("layers are conv, last")


def test_what_is_digital_anyway_is_refused_with_the_reason():
    refused(normalized(), ["act"], "node 'act' (Relu) has no constant matrix and is digital as it is")


def test_a_long_list_of_layers_is_cut():
    message = refused(builders.mlp([2] * 40), ["nope"], "dense19 and 19 more")
    assert "dense20" not in message


def test_a_model_with_all_its_layers_kept_is_refused_as_one_without_a_matrix():
    refused(normalized(), ["conv", "last"], "net: has no constant matrix", "stay digital on request")


# --- operators that are refused


def upsampled(*, second=False):
    """Conv `mapped`, ConvTranspose `up` of `v` behind it, and another, `up2`, if wanted."""
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="mapped"),
        node("ConvTranspose", ["a", "v"], ["b" if second else "y"], name="up", strides=[2, 2]),
    ]
    constants = {"w": weights(4, 2, 1, 1), "v": weights(4, 3, 2, 2, seed=1)}
    if second:
        nodes.append(node("ConvTranspose", ["b", "u"], ["y"], name="up2"))
        constants["u"] = weights(3, 2, 2, 2, seed=2)
    return builders.model(nodes, {"x": ["N", 2, 3, 3]}, {"y": [None] * 4}, constants)


@pytest.mark.parametrize("name", ["up", "v"])
def test_a_refused_operator_may_stay_digital(name):
    refused(upsampled(), [], "node 'up' (ConvTranspose)", "or leave it digital with --digital up")
    program = builders.compiled_like_onnxruntime(upsampled(), digital=[name])
    assert set(program.banks) == {"mapped"}
    assert kept(program) == {"up"}


def test_each_refused_operator_must_be_named():
    refused(upsampled(second=True), ["up"], "node 'up2' (ConvTranspose)", "--digital up2")
    refused(upsampled(second=True), ["up2"], "node 'up' (ConvTranspose)", "--digital up")
    program = builders.compiled_like_onnxruntime(upsampled(second=True), digital=["up", "up2"])
    assert kept(program) == {"up", "up2"}


def test_a_refused_operator_is_among_the_layers_that_a_message_lists():
    refused(upsampled(), ["nope"], "layers are mapped, up")


def test_weights_that_no_cell_can_hold_may_stay_digital():
    proto = builders.mlp([6, 5, 4], bias=False)
    w = weights(6, 5)
    w[0, 0] = np.inf
    proto.graph.initializer[0].raw_data = w.tobytes()
    refused(proto, [], "NaN or infinite")
    for name in ("dense0", "w0"):
        assert set(pcmc.compile(proto, digital=[name]).banks) == {"dense1"}


def test_a_quantized_operator_may_stay_digital():
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantize"),
        node(
            "QLinearMatMul",
            ["q", "scale", "zero", "codes", "scale", "zero", "scale", "zero"],
            ["p"],
            name="bad",
        ),
        node("DequantizeLinear", ["p", "scale", "zero"], ["d"], name="dequantize"),
        node("MatMul", ["d", "w"], ["y"], name="good"),
    ]
    constants = {
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "codes": builders.rng(1).integers(-20, 20, (6, 4)).astype(np.int8),
        "w": weights(4, 3),
    }
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 3]}, constants)
    refused(proto, [], "--digital bad")
    assert kept(builders.compiled_like_onnxruntime(proto, digital=["bad"])) == {"bad"}


def branching(*, deep=False):
    """Gemm `mapped`, then If `if` with MatMul `inner` of `v` inside; `deep`: in an If `nested` there."""
    nodes = [node("MatMul", ["h", "v"], ["t"], name="inner")]
    other = [node("Identity", ["h"], ["e"], name="same")]
    constants = {"v": weights(8, 8, seed=3)}
    if deep:
        within = builders.body(nodes, {"t": ["N", 8]}, constants=constants, name="within")
        beside = builders.body([node("Neg", ["h"], ["m"])], {"m": ["N", 8]}, name="beside")
        nodes = [node("If", ["flag"], ["t2"], name="nested", then_branch=within, else_branch=beside)]
        then = builders.body(nodes, {"t2": ["N", 8]}, name="then")
    else:
        then = builders.body(nodes, {"t": ["N", 8]}, constants=constants, name="then")
    outer = node(
        "If",
        ["flag"],
        ["y"],
        name="if",
        then_branch=then,
        else_branch=builders.body(other, {"e": ["N", 8]}, name="else"),
    )
    first = node("Gemm", ["x", "w"], ["h"], name="mapped")
    inputs = {"x": ["N", 8], "flag": ([], TensorProto.BOOL)}
    return builders.model([first, outer], inputs, {"y": ["N", 8]}, {"w": weights(8, 8)})


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", ["if", "inner", "v"])
@pytest.mark.parametrize("flag", [False, True])
def test_control_flow_with_a_matrix_inside_stays_digital_whole(name, flag, deep):
    proto = branching(deep=deep)
    refused(proto, [], "node 'inner' (MatMul) inside node 'if' (If)", "--digital inner")
    inputs = builders.feeds(proto) | {"flag": np.array(flag)}
    program = builders.compiled_like_onnxruntime(proto, inputs=inputs, digital=[name])
    assert set(program.banks) == {"mapped"}
    assert kept(program) == {"if"}


def test_what_stays_digital_survives_the_file(tmp_path):
    program = pcmc.compile(upsampled(), digital=["up"])
    program.save(tmp_path / "up.pcmc")
    loaded = pcmc.load(tmp_path / "up.pcmc")
    assert loaded.options["digital"] == ["up"]
    assert kept(loaded) == {"up"}
    inputs = builders.feeds(upsampled())
    np.testing.assert_array_equal(builders.run(loaded, inputs)[0], builders.run(program, inputs)[0])


# --- real models

REAL = {
    "cgan_32_1.onnx": ([f"ConvTranspose_{number}" for number in (4, 7, 10, 13)], 6),
    "dtln_model_1.onnx": (["lstm_4", "lstm_5"], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("filename", REAL)
def test_a_real_model_with_its_refused_nodes_kept_digital_equals_onnxruntime(filename):
    digital, banks = REAL[filename]
    path = real.model_path(filename)
    with pytest.raises(ModelError, match=f"--digital {digital[0]}"):
        pcmc.compile(path)
    program = pcmc.compile(path, digital=digital, check=True)
    assert kept(program) == set(digital)
    assert len(program.banks) == banks
    names = [info.name for info in program.outputs]
    feeds = random_inputs(program, 4, seed=1)
    wanted = reference_session(program, 2).run(names, feeds)
    assert all(np.any(output) for output in wanted)
    builders.assert_close(pcmc.Session(program, threads=2).run(names, feeds), wanted, 1e-4)


@pytest.mark.slow
def test_a_real_model_that_is_all_control_flow_leaves_nothing_for_the_tiles():
    path = real.model_path("silero_vad_if.onnx")
    with pytest.raises(ModelError, match=r"inside node '(If_\w+)' \(If\)") as error:
        pcmc.compile(path)
    outer = str(error.value).split("inside node '")[1].split("'")[0]
    inner = str(error.value).rsplit("--digital ", 1)[1]
    for name in (outer, inner):
        refused(path, [name], "has no constant matrix beside those that stay digital on request")
