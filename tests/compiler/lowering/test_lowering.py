"""Every constant matrix is found and placed once, or refused by name; never lost."""

import builders
import numpy as np
import pytest
from builders import node, weights
from onnx import TensorProto, helper

import pcmc
from pcmc.errors import ModelError


def refused(proto, *parts, **options):
    """Compiling raises a ModelError that says all `parts`."""
    with pytest.raises(ModelError) as error:
        pcmc.compile(proto, **options)
    for part in parts:
        assert part in str(error.value)


def after_gemm(nodes, outputs, constants, *, inputs=None, opset=builders.OPSET, domains=None):
    """A Gemm named `mapped` from x [N, 8] to h [N, 8], then the given nodes."""
    first = node("Gemm", ["x", "w"], ["h"], name="mapped")
    return builders.model(
        [first, *nodes],
        inputs or {"x": ["N", 8]},
        outputs,
        {"w": weights(8, 8), **constants},
        opset=opset,
        domains=domains,
    )


# --- shared weights


def test_weights_used_twice_are_placed_once():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="one"),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w"], ["y"], name="two"),
    ]
    program = builders.compiled_like_onnxruntime(
        builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, {"w": weights(6, 6)})
    )
    assert len(program.banks) == 1
    assert [step.bank for step in program.steps if step.kind == "read"] == ["one", "one"]


@pytest.mark.parametrize(
    ("first", "second", "banks"),
    [
        (("MatMul", {}), ("Gemm", {}), 1),
        (("MatMul", {}), ("Gemm", {"transB": 1}), 2),
        (("Gemm", {"transB": 1}), ("Gemm", {"transB": 1}), 1),
        (("Gemm", {"alpha": 2.0}), ("Gemm", {"alpha": 2.0}), 1),
        (("Gemm", {"alpha": 2.0}), ("Gemm", {"alpha": 0.5}), 2),
        (("Gemm", {"alpha": 0.12345671}), ("Gemm", {"alpha": 0.12345678}), 2),
    ],
)
def test_only_equal_matrices_are_shared(first, second, banks):
    nodes = [
        node(first[0], ["x", "w"], ["a"], name="one", **first[1]),
        node("Relu", ["a"], ["b"]),
        node(second[0], ["b", "w"], ["y"], name="two", **second[1]),
    ]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, {"w": weights(6, 6)})
    assert len(builders.compiled_like_onnxruntime(proto, tolerance=1e-6).banks) == banks


def test_one_set_of_weights_with_two_biases_makes_two_banks():
    nodes = [
        node("Gemm", ["x", "w", "b"], ["a"], name="one"),
        node("Gemm", ["a", "w", "c"], ["y"], name="two"),
    ]
    constants = {"w": weights(6, 6), "b": weights(6, seed=1), "c": weights(6, seed=2)}
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, constants)
    assert len(builders.compiled_like_onnxruntime(proto).banks) == 2


def test_filters_shared_by_convolutions_of_different_strides_are_placed_once():
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="one", strides=[2, 2]),
        node("Conv", ["x", "w"], ["b"], name="two"),
    ]
    proto = builders.model(
        nodes,
        {"x": ["N", 2, 6, 6]},
        {"a": ["N", 3, None, None], "b": ["N", 3, None, None]},
        {"w": weights(3, 2, 3, 3)},
    )
    assert len(builders.compiled_like_onnxruntime(proto).banks) == 1


def test_equal_constants_under_two_names_stay_two():
    """Each initializer is a matrix of its own: training may part them."""
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "v"], ["y"])]
    proto = builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, {"w": weights(6, 6), "v": weights(6, 6)})
    assert len(builders.compiled_like_onnxruntime(proto).banks) == 2


# --- where weights come from


def test_weights_behind_constant_operations_are_found_and_traced_to_the_initializer():
    nodes = [
        node("Transpose", ["raw"], ["t"], perm=[1, 0]),
        node("Reshape", ["t", "shape"], ["w"]),
        node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    proto = builders.model(
        nodes, {"x": ["N", 6]}, {"y": ["N", 4]}, {"raw": weights(4, 6), "shape": np.array([6, 4])}
    )
    (bank,) = builders.compiled_like_onnxruntime(proto).banks.values()
    assert "raw" in bank.computed_from
    np.testing.assert_array_equal(bank.matrix()[0], weights(4, 6).T)


def test_quantized_weights_are_placed_as_the_floats_that_they_stand_for():
    levels = builders.rng(1).integers(-128, 128, (6, 4)).astype(np.int8)
    constants = {"q": levels, "scale": np.float32(0.02), "zero": np.int8(0)}
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], ["w"], name="dequantize"),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    (bank,) = builders.compiled_like_onnxruntime(
        builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 4]}, constants)
    ).banks.values()
    np.testing.assert_allclose(bank.matrix()[0], levels * np.float32(0.02), rtol=1e-6)
    assert "q" in bank.computed_from


# --- nothing to map, or nothing that can be


def test_a_model_without_a_matrix_is_refused():
    refused(
        builders.model([node("Relu", ["x"], ["y"])], {"x": ["N", 6]}, {"y": ["N", 6]}),
        "net: has no constant matrix",
    )


def test_a_product_of_two_activations_is_not_a_matrix():
    refused(
        builders.model([node("MatMul", ["x", "z"], ["y"])], {"x": [4, 6], "z": [6, 5]}, {"y": [4, 5]}),
        "has no constant matrix",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["weights", "bias"])
@pytest.mark.parametrize("op_type", ["Gemm", "Conv"])
def test_weights_that_are_no_numbers_are_refused(op_type, where, value):
    w = weights(*((6, 4) if op_type == "Gemm" else (4, 3, 2, 2)))
    b = weights(4)
    (w if where == "weights" else b).flat[1] = value
    x = ["N", 6] if op_type == "Gemm" else ["N", 3, 5, 5]
    proto = builders.model(
        [node(op_type, ["x", "w0", "b0"], ["y"], name="bad")],
        {"x": x},
        {"y": [None] * len(x)},
        {"w0": w, "b0": b},
    )
    refused(
        proto,
        f"node 'bad' ({op_type})",
        f"1 of the {(w if where == 'weights' else b).size} {where} in 'w0'",
        "NaN or infinite",
    )


def recurrent(op_type, gates):
    w, r = weights(1, gates * 4, 8), weights(1, gates * 4, 4)
    return (
        [node(op_type, ["s", "W", "R"], ["y"], name="bad", hidden_size=4)],
        {"W": w, "R": r},
        {"y": [None] * 4},
    )


def refused_cases():
    int8 = {"q": np.ones((8, 4), np.int8), "s1": np.float32(0.1), "z": np.int8(0)}
    yield (
        "ConvTranspose",
        [node("ConvTranspose", ["m", "v"], ["y"], name="bad")],
        {"v": weights(8, 3, 2, 2)},
        "v",
    )
    yield "Conv", [node("Conv", ["m5", "v"], ["y"], name="bad")], {"v": weights(3, 8, 1, 1, 1)}, "v"
    yield (
        "Einsum",
        [node("Einsum", ["h", "v"], ["y"], name="bad", equation="ij,jk->ik")],
        {"v": weights(8, 3)},
        "v",
    )
    yield "MatMulInteger", [node("MatMulInteger", ["i", "q"], ["y"], name="bad")], {"q": int8["q"]}, "q"
    yield (
        "ConvInteger",
        [node("ConvInteger", ["im", "v"], ["y"], name="bad")],
        {"v": np.ones((3, 8, 1, 1), np.uint8)},
        "v",
    )
    yield (
        "QLinearMatMul",
        [node("QLinearMatMul", ["i8", "s1", "z", "q", "s1", "z", "s1", "z"], ["y"], name="bad")],
        int8,
        "q",
    )
    yield (
        "QLinearConv",
        [node("QLinearConv", ["im8", "s1", "z", "v", "s1", "z", "s1", "z"], ["y"], name="bad")],
        {"s1": int8["s1"], "z": int8["z"], "v": np.ones((3, 8, 1, 1), np.int8)},
        "v",
    )
    for op_type, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        nodes, constants, _ = recurrent(op_type, gates)
        yield op_type, nodes, constants, "W"


SHAPES = {
    "m": np.array([-1, 8, 1, 1]),
    "m5": np.array([-1, 8, 1, 1, 1]),
    "s": np.array([-1, 1, 8]),
}


@pytest.mark.parametrize(
    ("op_type", "nodes", "constants", "named"),
    list(refused_cases()),
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_operator_that_is_not_mapped_is_refused_with_node_operator_and_weights(
    op_type, nodes, constants, named
):
    makers = [node("Reshape", ["h", f"shape_{name}"], [name]) for name in SHAPES]
    makers += [
        node("Cast", ["h"], ["i"], to=TensorProto.UINT8),
        node("Cast", ["h"], ["i8"], to=TensorProto.INT8),
        node("Reshape", ["i", "shape_m"], ["im"]),
        node("Reshape", ["i8", "shape_m"], ["im8"]),
    ]
    used = {name for one in nodes for name in one.input}
    needed = used | ({"i"} if "im" in used else set()) | ({"i8"} if "im8" in used else set())
    makers = [one for one in makers if one.output[0] in needed]
    shapes = {f"shape_{name}": shape for name, shape in SHAPES.items()}
    kind = {"MatMulInteger": TensorProto.INT32, "ConvInteger": TensorProto.INT32}.get(
        op_type, TensorProto.FLOAT
    )
    kind = TensorProto.INT8 if op_type.startswith("QLinear") else kind
    proto = after_gemm([*makers, *nodes], {"y": (None, kind)}, {**shapes, **constants})
    refused(proto, f"node 'bad' ({op_type})", f"its constant weights '{named}'", "can't be put on tiles")


def test_a_contrib_operator_with_weights_is_refused_with_its_domain():
    bad = node("FusedMatMul", ["h", "v"], ["y"], name="bad", domain="com.microsoft")
    proto = after_gemm([bad], {"y": ["N", 3]}, {"v": weights(8, 3)}, domains={"com.microsoft": 1})
    refused(proto, "node 'bad' (com.microsoft:FusedMatMul)", "'v' [8, 3]")


def test_a_domain_that_nobody_knows_is_refused():
    proto = after_gemm(
        [node("Magic", ["h"], ["y"], name="bad", domain="org.example")],
        {"y": ["N", 8]},
        {},
        domains={"org.example": 1},
    )
    refused(proto, "node 'bad' (org.example:Magic)", "'org.example' is not one that onnxruntime knows")


def test_a_vector_times_a_vector_is_not_worth_a_refusal():
    """Einsum with a vector of weights has no matrix: it stays digital and runs."""
    proto = after_gemm(
        [node("Einsum", ["h", "v"], ["y"], name="dot", equation="ij,j->i")], {"y": ["N"]}, {"v": weights(8)}
    )
    assert "dot" in builders.compiled_like_onnxruntime(proto).digital


# --- control flow


def branches(then_nodes, then_constants=None):
    """If: `then_nodes` make `t` of h [N, 8]; otherwise h as it is."""
    return node(
        "If",
        ["flag"],
        ["y"],
        name="if",
        then_branch=builders.body(then_nodes, {"t": ["N", 8]}, constants=then_constants, name="then"),
        else_branch=builders.body(
            [node("Identity", ["h"], ["e"], name="same")], {"e": ["N", 8]}, name="else"
        ),
    )


FLAGGED = {"x": ["N", 8], "flag": ([], TensorProto.BOOL)}


@pytest.mark.parametrize("flag", [False, True])
def test_if_without_a_matrix_stays_digital_and_runs(flag):
    proto = after_gemm(
        [branches([node("Neg", ["h"], ["t"], name="minus")])], {"y": ["N", 8]}, {}, inputs=FLAGGED
    )
    inputs = builders.feeds(proto) | {"flag": np.array(flag)}
    program = builders.compiled_like_onnxruntime(proto, inputs=inputs)
    assert "control flow without a constant matrix" in program.digital["if"]


def loop():
    """Three times h := h + h."""
    inner = builders.body(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["v", "v"], ["v_out"])],
        {"go_on": ([], TensorProto.BOOL), "v_out": ["N", 8]},
        {"i": ([], TensorProto.INT64), "go": ([], TensorProto.BOOL), "v": ["N", 8]},
    )
    return node("Loop", ["trips", "", "h"], ["y"], name="loop", body=inner)


def scan(nodes, constants=None):
    """Over the rows of h [6, 8]: `nodes` make `row_out` [8] and `state_out` [8] of `row` and `state`."""
    inner = builders.body(nodes, {"state_out": [8], "row_out": [8]}, {"state": [8], "row": [8]}, constants)
    return node("Scan", ["start", "h"], ["last", "y"], name="scan", body=inner, num_scan_inputs=1)


def test_loop_without_a_matrix_stays_digital_and_runs():
    proto = after_gemm([loop()], {"y": ["N", 8]}, {"trips": np.array(3)})
    assert "loop" in builders.compiled_like_onnxruntime(proto).digital


def test_scan_without_a_matrix_stays_digital_and_runs():
    nodes = [node("Add", ["state", "row"], ["state_out"]), node("Identity", ["state_out"], ["row_out"])]
    proto = after_gemm([scan(nodes)], {"y": [6, 8]}, {"start": np.zeros(8, np.float32)}, inputs={"x": [6, 8]})
    assert "scan" in builders.compiled_like_onnxruntime(proto).digital


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("MatMul", ["h", "v"], ["t"], name="inner")], {"v": weights(8, 8)}),
        ([node("MatMul", ["h", "w"], ["t"], name="inner")], None),
        (
            [
                node("Constant", [], ["c"], value=helper.make_tensor("v", 1, [8, 8], weights(8, 8).ravel())),
                node("MatMul", ["h", "c"], ["t"], name="inner"),
            ],
            None,
        ),
        (
            [node("Transpose", ["w"], ["c"], name="turn"), node("MatMul", ["h", "c"], ["t"], name="inner")],
            None,
        ),
        (
            [
                node("Cast", ["v"], ["c"], name="cast", to=TensorProto.FLOAT),
                node("Gemm", ["h", "c"], ["t"], name="inner"),
            ],
            {"v": weights(8, 8, dtype=np.float16)},
        ),
    ],
    ids=["own", "outer", "constant", "transposed", "cast"],
)
def test_a_matrix_inside_of_a_branch_is_refused_by_its_own_name(nodes, constants):
    proto = after_gemm([branches(nodes, constants)], {"y": ["N", 8]}, {}, inputs=FLAGGED)
    refused(proto, "node 'inner'", "inside node 'if' (If)")


def test_a_matrix_inside_of_a_scan_is_refused_by_its_own_name():
    nodes = [
        node("MatMul", ["state", "v"], ["r"], name="inner"),
        node("Add", ["r", "row"], ["state_out"]),
        node("Identity", ["state_out"], ["row_out"]),
    ]
    proto = after_gemm(
        [scan(nodes, {"v": weights(8, 8)})],
        {"y": [6, 8]},
        {"start": np.zeros(8, np.float32)},
        inputs={"x": [6, 8]},
    )
    refused(proto, "node 'inner' (MatMul) inside node 'scan' (Scan)")


def test_a_matrix_two_bodies_deep_is_refused_by_its_own_name():
    inner = branches([node("MatMul", ["h", "v"], ["t"], name="deep")], {"v": weights(8, 8)})
    inner.output[0], inner.name = "t", "inner_if"
    refused(
        after_gemm([branches([inner])], {"y": ["N", 8]}, {}, inputs=FLAGGED), "node 'deep' (MatMul)", "inside"
    )
