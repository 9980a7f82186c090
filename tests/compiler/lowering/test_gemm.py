"""Every form of Gemm runs as onnxruntime runs it, and the user's own graph stays as it was."""

import itertools

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights

from pcmc.compiler.lowering.gemm import split_gemms

M, K, N = 4, 6, 5
C_SHAPES = {"scalar": (), "one": (1,), "row": (N,), "row2d": (1, N), "column": (M, 1), "full": (M, N)}
FORMS = [*itertools.product((0, 1), (0, 1), (1.0, -0.7), (1.0, 0.3), ("none", *C_SHAPES, "computed"))]


def gemm(*, a_constant=False, trans_a=0, trans_b=0, alpha=1.0, beta=1.0, c="row", dtype=np.float32):
    """A Gemm with a constant B (or A); `c` is a key of C_SHAPES, "none" or "computed"."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shape_a, shape_b = ((K, M) if trans_a else (M, K)), ((N, K) if trans_b else (K, N))
    constants = (
        {"a": weights(*shape_a, seed=1, dtype=dtype)}
        if a_constant
        else {"b": weights(*shape_b, seed=1, dtype=dtype)}
    )
    inputs = {"b": (shape_b, kind)} if a_constant else {"a": (shape_a, kind)}
    nodes = []
    if c == "computed":
        inputs["c0"] = ([M, N], kind)
        nodes.append(node("Abs", ["c0"], ["c"], name="abs"))
    elif c != "none":
        constants["c"] = weights(*C_SHAPES[c], seed=2, dtype=dtype)
    operands = ["a", "b", *([] if c == "none" else ["c"])]
    nodes.append(
        node("Gemm", operands, ["y"], name="gemm", transA=trans_a, transB=trans_b, alpha=alpha, beta=beta)
    )
    return builders.model(nodes, inputs, {"y": ([M, N], kind)}, constants)


@pytest.mark.parametrize(("trans_a", "trans_b", "alpha", "beta", "c"), FORMS)
def test_every_form_with_constant_b_equals_onnxruntime(trans_a, trans_b, alpha, beta, c):
    proto = gemm(trans_a=trans_a, trans_b=trans_b, alpha=alpha, beta=beta, c=c)
    program = builders.compiled_like_onnxruntime(proto)
    assert "gemm" in builders.placed_on_tiles(program)


@pytest.mark.parametrize(("trans_a", "trans_b", "alpha", "beta", "c"), FORMS[::2] + FORMS[1::6])
def test_every_form_with_constant_a_equals_onnxruntime(trans_a, trans_b, alpha, beta, c):
    proto = gemm(a_constant=True, trans_a=trans_a, trans_b=trans_b, alpha=alpha, beta=beta, c=c)
    program = builders.compiled_like_onnxruntime(proto)
    assert "gemm" in builders.placed_on_tiles(program)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
@pytest.mark.parametrize("c", ["row", "full", "computed"])
def test_other_float_types_keep_their_type(dtype, c):
    proto = gemm(dtype=dtype, alpha=0.5, beta=0.25, c=c)
    builders.compiled_like_onnxruntime(proto, tolerance=1e-5 if dtype == np.float64 else 1e-3)


def test_a_simple_gemm_is_left_as_it_is():
    proto = gemm(trans_b=1, alpha=0.5, beta=0.5)
    before = proto.SerializeToString()
    split_gemms(proto, {})
    assert proto.SerializeToString() == before


def test_a_split_gemm_keeps_its_name_and_says_where_its_weights_come_from():
    proto = gemm(trans_a=1, trans_b=1, alpha=0.5, beta=0.5, c="full")
    origins = {"b": ("raw",)}
    split_gemms(proto, origins)
    product = next(one for one in proto.graph.node if one.op_type == "MatMul")
    assert product.name == "gemm"
    assert origins[product.input[1]] == ("raw",)
    assert [one.op_type for one in proto.graph.node] == ["Transpose", "MatMul", "Mul", "Add"]
    onnx.checker.check_model(proto, full_check=True)


def test_the_program_keeps_the_users_gemm():
    proto = gemm(trans_a=1, c="full")
    program = builders.compiled_like_onnxruntime(proto)
    assert [one.op_type for one in program.model.graph.node] == ["Gemm"]


def test_a_row_addend_is_a_bias_and_takes_no_operation():
    program = builders.compiled_like_onnxruntime(gemm(c="row", beta=0.3))
    assert [step.kind for step in program.steps] == ["read"]
    (bank,) = program.banks.values()
    np.testing.assert_allclose(bank.matrix()[1], 0.3 * weights(N, seed=2), rtol=1e-6)


def test_alpha_and_transposition_go_into_the_weights():
    program = builders.compiled_like_onnxruntime(gemm(trans_b=1, alpha=-0.7, c="none"))
    (bank,) = program.banks.values()
    np.testing.assert_allclose(bank.matrix()[0], -0.7 * weights(N, K, seed=1).T, rtol=1e-6)
    assert bank.initializer == "b"


def test_product_of_two_activations_stays_digital():
    nodes = [
        node("Gemm", ["x", "w"], ["h"], name="mapped"),
        node("Gemm", ["h", "x"], ["y"], name="digital", transB=1),
    ]
    proto = builders.model(nodes, {"x": [4, 6]}, {"y": [4, 4]}, {"w": weights(6, 6)})
    program = builders.compiled_like_onnxruntime(proto)
    assert builders.placed_on_tiles(program) == {"mapped"}
    assert "product of two activations" in program.digital["digital"]
