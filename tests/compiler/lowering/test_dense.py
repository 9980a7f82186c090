"""MatMul with a constant on either side runs as onnxruntime runs it, whatever stands before its last axes."""

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights

import pcmc
from pcmc.errors import ModelError


def matmul(left, right, out, constants):
    """`left` and `right` are shapes; the one in `constants` ("left" or "right") is constant."""
    inputs = {"right": right} if constants == "left" else {"left": left}
    shape = left if constants == "left" else right
    nodes = [node("MatMul", ["left", "right"], ["y"], name="product")]
    return builders.model(nodes, inputs, {"y": out}, {constants: weights(*shape)})


@pytest.mark.parametrize(
    ("left", "right", "out"),
    [
        (["N", 6], (6, 5), ["N", 5]),
        ([6], (6, 5), [5]),
        (["N", 3, 6], (6, 5), ["N", 3, 5]),
        (["N", 2, 3, 6], (6, 5), ["N", 2, 3, 5]),
        (["N", 6], (6,), ["N"]),
        (["N", 3, 6], (6,), ["N", 3]),
        ([6], (6,), []),
        (["N", 3, 6], (1, 6, 5), ["N", 3, 5]),
        (["N", 2, 3, 6], (1, 6, 5), ["N", 2, 3, 5]),
        (["N", 2, 3, 6], (1, 1, 6, 5), ["N", 2, 3, 5]),
        (["N", 1], (1, 5), ["N", 5]),
        (["N", 6], (6, 1), ["N", 1]),
    ],
)
def test_constant_on_the_right(left, right, out):
    program = builders.compiled_like_onnxruntime(matmul(left, right, out, "right"))
    assert builders.placed_on_tiles(program) == {"product"}
    (bank,) = program.banks.values()
    assert (bank.rows, bank.cols) == (
        right[-2] if len(right) > 1 else right[0],
        right[-1] if len(right) > 1 else 1,
    )


@pytest.mark.parametrize(
    ("left", "right", "out"),
    [
        ((5, 6), [6, 4], [5, 4]),
        ((5, 6), ["N", 6, 4], ["N", 5, 4]),
        ((5, 6), ["N", 2, 6, 4], ["N", 2, 5, 4]),
        ((1, 6), ["N", 6, 4], ["N", 1, 4]),
        ((5, 1), ["N", 1, 4], ["N", 5, 4]),
    ],
)
def test_constant_on_the_left(left, right, out):
    program = builders.compiled_like_onnxruntime(matmul(left, right, out, "left"))
    assert builders.placed_on_tiles(program) == {"product"}
    (bank,) = program.banks.values()
    assert (bank.rows, bank.cols) == (left[1], left[0])


@pytest.mark.parametrize("bias_first", [False, True])
@pytest.mark.parametrize(
    ("side", "bias"),
    [("right", (5,)), ("right", (1, 5)), ("right", ()), ("left", (5, 1)), ("left", (1, 5, 1))],
)
def test_an_added_bias_in_either_order_becomes_part_of_the_matrix(side, bias, bias_first):
    shape, x, out = (
        ((6, 5), ["N", 3, 6], ["N", 3, 5]) if side == "right" else ((5, 6), ["N", 6, 4], ["N", 5, 4])
    )
    operands = ["x", "w"] if side == "right" else ["w", "x"]
    addends = ["b", "p"] if bias_first else ["p", "b"]
    nodes = [node("MatMul", operands, ["p"], name="product"), node("Add", addends, ["y"], name="bias")]
    proto = builders.model(nodes, {"x": x}, {"y": out}, {"w": weights(*shape), "b": weights(*bias, seed=1)})
    program = builders.compiled_like_onnxruntime(proto)
    assert builders.placed_on_tiles(program) == {"product", "bias"}
    assert not program.digital


@pytest.mark.parametrize("rows", [512, 513, 514, 700])
def test_a_bias_just_beyond_the_tile_is_not_lost(rows):
    """513 rows and a bias leave one row for the last block: the bias alone."""
    nodes = [node("Gemm", ["x", "w", "b"], ["y"])]
    constants = {"w": weights(rows, 7), "b": weights(7, seed=1)}
    builders.compiled_like_onnxruntime(builders.model(nodes, {"x": ["N", rows]}, {"y": ["N", 7]}, constants))


@pytest.mark.parametrize("sharing", builders.SHARINGS)
@pytest.mark.parametrize(
    ("rows", "cols", "bias_row"),
    [(1, 1, False), (2, 1, True), (2, 3, True), (2, 3, False), (5, 4, True), (5, 4, False), (64, 64, True)],
)
def test_the_result_does_not_depend_on_how_the_matrix_is_cut(rows, cols, bias_row, sharing):
    spec = builders.chip(rows, cols, sharing=sharing, bias_row=bias_row)
    builders.compiled_like_onnxruntime(builders.mlp([9, 7, 5]), spec)


def test_an_empty_batch_gives_an_empty_result():
    proto = builders.mlp([6, 5])
    inputs = builders.feeds(proto, batch=0)
    builders.compiled_like_onnxruntime(proto, inputs=inputs)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, 1e-3), (np.float64, 1e-5)])
def test_other_float_types(dtype, tolerance):
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [node("MatMul", ["x", "w"], ["p"], name="product"), node("Relu", ["p"], ["y"])]
    proto = builders.model(
        nodes, {"x": (["N", 6], kind)}, {"y": (["N", 5], kind)}, {"w": weights(6, 5, dtype=dtype)}
    )
    program = builders.compiled_like_onnxruntime(proto, tolerance=tolerance)
    assert "product" in builders.placed_on_tiles(program)


def test_a_batch_of_constant_matrices_is_refused_by_name():
    proto = matmul(["N", 2, 3, 6], (2, 6, 5), ["N", 2, 3, 5], "right")
    with pytest.raises(
        ModelError, match=r"node 'product' \(MatMul\): its constant weights 'right' \[2, 6, 5\]"
    ):
        pcmc.compile(proto)
