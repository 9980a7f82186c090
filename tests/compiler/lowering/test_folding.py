"""What follows a matrix and is affine in its columns becomes part of it, is recorded, and can be undone."""

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights

import pcmc
from pcmc.compiler.frontend import load
from pcmc.compiler.graph import operations, unfolded
from pcmc.compiler.lowering import lower

# kind of product -> (weights, input, output, shape of a constant that has one value for each column)
PRODUCTS = {
    "dense": ((6, 5), ["N", 6], ["N", 5], (5,)),
    "dense3": ((6, 5), ["N", 3, 6], ["N", 3, 5], (1, 1, 5)),
    "columns": ((5, 6), ["N", 6, 4], ["N", 5, 4], (5, 1)),
    "conv1d": ((5, 3, 3), ["N", 3, 8], ["N", 5, 6], (5, 1)),
    "conv2d": ((5, 3, 3, 3), ["N", 3, 5, 6], ["N", 5, 3, 4], (1, 5, 1, 1)),
    "grouped": ((4, 2, 3, 3), ["N", 4, 5, 6], ["N", 4, 3, 4], (4, 1, 1)),
}


def follow(kind, followers, constants, *, bias=False, outputs=(), opset=builders.OPSET, dtype=np.float32):
    """A product of PRODUCTS named `product`, making `p`, then the given nodes, of which one makes `y`."""
    shape, x, out, _ = PRODUCTS[kind]
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = {"w": weights(*shape, dtype=dtype), **constants}
    if kind.startswith("dense"):
        first = node("MatMul", ["x", "w"], ["p"], name="product")
    elif kind == "columns":
        first = node("MatMul", ["w", "x"], ["p"], name="product")
    else:
        operands = ["x", "w", *(["bias"] if bias else [])]
        first = node("Conv", operands, ["p"], name="product", group=2 if kind == "grouped" else 1)
        if bias:
            tensors["bias"] = weights(shape[0], seed=9, dtype=dtype)
    results = {"y": (out, element), **dict.fromkeys(outputs, (out, element))}
    return builders.model([first, *followers], {"x": (x, element)}, results, tensors, opset=opset)


def matrix_of(proto):
    """The lowered matrix of the operation `product`."""
    clean = load(proto)
    graph = lower(clean.graph, clean.computed_from, clean.origin)
    return next(op.matrix for op in operations(graph) if op.name == "product")


def positive(*shape, seed=3):
    return builders.rng(seed).uniform(0.5, 2.0, shape).astype(np.float32)


def chain(shape):
    """Mul, Add, Div, Sub, Sub from a constant, and their constants."""
    constants = {
        "mul": -positive(*shape, seed=1),
        "add": weights(*shape, seed=2),
        "div": positive(*shape, seed=3),
        "sub": weights(*shape, seed=4),
        "rsub": weights(*shape, seed=5),
    }
    nodes = [
        node("Mul", ["mul", "p"], ["q1"], name="n1"),
        node("Add", ["q1", "add"], ["q2"], name="n2"),
        node("Div", ["q2", "div"], ["q3"], name="n3"),
        node("Sub", ["q3", "sub"], ["q4"], name="n4"),
        node("Sub", ["rsub", "q4"], ["y"], name="n5"),
    ]
    return nodes, constants


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_chain_of_arithmetic_is_folded_recorded_and_undone(kind):
    proto = follow(kind, *chain(PRODUCTS[kind][3]))
    program = builders.compiled_like_onnxruntime(proto)
    assert builders.placed_on_tiles(program) == {"product", "n1", "n2", "n3", "n4", "n5"}
    assert not program.digital
    (bank,) = program.banks.values()
    assert [folding.node for folding in bank.foldings] == ["n1", "n2", "n3", "n4", "n5"]
    assert [folding.op_type for folding in bank.foldings] == ["Mul", "Add", "Div", "Sub", "Sub"]
    weights_before, bias_before = unfolded(matrix_of(proto))
    original = matrix_of(follow(kind, [node("Relu", ["p"], ["y"])], {}))
    assert bias_before is None
    assert weights_before.shape == original.weights.shape
    np.testing.assert_allclose(weights_before, original.weights, rtol=1e-5)


@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "grouped"])
def test_undoing_gives_the_bias_back(kind):
    proto = follow(kind, *chain(PRODUCTS[kind][3]), bias=True)
    builders.compiled_like_onnxruntime(proto)
    matrix = matrix_of(proto)
    assert [folding.had_bias for folding in matrix.foldings] == [True] * 5
    np.testing.assert_allclose(
        unfolded(matrix)[1], weights(PRODUCTS[kind][0][0], seed=9), rtol=1e-4, atol=1e-5
    )


def test_without_foldings_undoing_changes_nothing():
    matrix = matrix_of(follow("conv2d", [node("Relu", ["p"], ["y"])], {}, bias=True))
    before, bias = unfolded(matrix)
    np.testing.assert_array_equal(before, matrix.weights)
    np.testing.assert_array_equal(bias, matrix.bias)


def normalization(cols, **attributes):
    constants = {
        "gamma": positive(cols, seed=1),
        "beta": weights(cols, seed=2),
        "mean": weights(cols, seed=3),
        "var": positive(cols, seed=4),
    }
    return [node("BatchNormalization", ["p", *constants], ["y"], name="bn", **attributes)], constants


@pytest.mark.parametrize("opset", [7, 9, 14, 15, 17])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["dense", "conv1d", "conv2d", "grouped"])
def test_batch_normalization_is_folded_and_undone(kind, bias, opset):
    proto = follow(kind, *normalization(PRODUCTS[kind][2][1], epsilon=1e-3), bias=bias, opset=opset)
    program = builders.compiled_like_onnxruntime(proto)
    assert builders.placed_on_tiles(program) == {"product", "bn"}
    matrix = matrix_of(proto)
    before, bias_before = unfolded(matrix)
    original = matrix_of(follow(kind, [node("Relu", ["p"], ["y"])], {}, bias=bias, opset=opset))
    np.testing.assert_allclose(before, original.weights, rtol=1e-5)
    if original.bias is None:
        assert bias_before is None
    else:
        np.testing.assert_allclose(bias_before, original.bias, rtol=1e-4, atol=1e-5)


def test_batch_normalization_of_a_sequence_is_over_the_rows_of_a_left_constant():
    """Channels of [N, 5, 4] are axis 1: the columns of a matrix on the left, not of one on the right."""
    builders.compiled_like_onnxruntime(follow("columns", *normalization(5)))
    proto = follow("dense3", *normalization(3))
    program = builders.compiled_like_onnxruntime(proto)
    assert "bn" in program.digital


@pytest.mark.parametrize(
    ("name", "followers", "constants", "options"),
    [
        (
            "a zero in a scale",
            [node("Mul", ["p", "c"], ["y"], name="f")],
            {"c": np.array([1, 0, 1, 1, 1], np.float32)},
            {},
        ),
        (
            "a scale too small to undo",
            [node("Mul", ["p", "c"], ["y"], name="f")],
            {"c": np.full(5, 1e-30, np.float32)},
            {},
        ),
        (
            "a division by zero",
            [node("Div", ["p", "c"], ["y"], name="f")],
            {"c": np.array([1, 1, 1, 1, 0], np.float32)},
            {},
        ),
        ("a constant divided by it", [node("Div", ["c", "p"], ["y"], name="f")], {"c": positive(5)}, {}),
        ("a constant for each row", [node("Add", ["p", "c"], ["y"], name="f")], {"c": weights(3, 1)}, {}),
        ("a constant for each element", [node("Add", ["p", "c"], ["y"], name="f")], {"c": weights(3, 5)}, {}),
        (
            "a result of more dimensions",
            [node("Add", ["p", "c"], ["q"], name="f"), node("Squeeze", ["q", "zero"], ["y"])],
            {"c": weights(1, 1, 5), "zero": np.array([0])},
            {},
        ),
        ("itself", [node("Add", ["p", "p"], ["y"], name="f")], {}, {}),
        ("an activation", [node("Relu", ["p"], ["y"], name="f")], {}, {}),
        ("a power", [node("Pow", ["p", "c"], ["y"], name="f")], {"c": np.array(2, np.float32)}, {}),
        (
            "the result is an output",
            [node("Add", ["p", "c"], ["y"], name="f")],
            {"c": weights(5)},
            {"outputs": ("p",)},
        ),
        (
            "used elsewhere",
            [node("Add", ["p", "c"], ["q"], name="f"), node("Mul", ["q", "p"], ["y"])],
            {"c": weights(5)},
            {},
        ),
    ],
)
def test_what_must_not_be_folded_stays_digital(name, followers, constants, options):
    proto = follow("dense", followers, constants, **options)
    inputs = builders.feeds(proto, batch=3)
    if name == "a division by zero":
        program = pcmc.compile(proto, check=True)
    else:
        program = builders.compiled_like_onnxruntime(proto, inputs=inputs)
    assert "f" in program.digital
    assert builders.placed_on_tiles(program) == {"product"}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("conv2d", (4,)),
        ("conv2d", (3, 1)),
        ("conv2d", (5, 3, 1)),
        ("columns", (4,)),
        ("dense3", (3, 1)),
        ("conv1d", (6,)),
    ],
)
def test_a_constant_along_another_axis_is_not_folded(kind, shape):
    program = builders.compiled_like_onnxruntime(
        follow(kind, [node("Mul", ["p", "c"], ["y"], name="f")], {"c": positive(*shape)})
    )
    assert "f" in program.digital


def test_a_scalar_scales_every_column():
    program = builders.compiled_like_onnxruntime(
        follow("conv2d", [node("Div", ["p", "c"], ["y"], name="f")], {"c": np.float32(3)})
    )
    (bank,) = program.banks.values()
    np.testing.assert_allclose(bank.foldings[0].scale, np.full(5, 1 / 3))


def test_a_vector_product_with_one_column_is_not_folded():
    """[N, 6] @ [6] drops the axis of the columns: what is added to [N] has a value for each row."""
    nodes = [node("MatMul", ["x", "w"], ["p"], name="product"), node("Add", ["p", "c"], ["y"], name="f")]
    proto = builders.model(nodes, {"x": [3, 6]}, {"y": [3]}, {"w": weights(6), "c": weights(3)})
    assert "f" in builders.compiled_like_onnxruntime(proto).digital


def test_shared_weights_are_not_folded_into():
    """Two products with one constant must stay equal: each keeps its own bias outside."""
    nodes = [
        node("MatMul", ["x", "w"], ["p"], name="first"),
        node("Add", ["p", "c"], ["q"], name="bias1"),
        node("MatMul", ["q", "w"], ["r"], name="second"),
        node("Add", ["r", "d"], ["y"], name="bias2"),
    ]
    constants = {"w": weights(6, 6), "c": weights(6, seed=1), "d": weights(6, seed=2)}
    program = builders.compiled_like_onnxruntime(
        builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, constants)
    )
    assert builders.placed_on_tiles(program) == {"first", "second"}
    assert len(program.banks) == 1
    assert not next(iter(program.banks.values())).foldings


def test_a_constant_that_is_used_digitally_too_is_not_folded_into():
    nodes = [
        node("MatMul", ["x", "w"], ["p"], name="product"),
        node("Add", ["p", "c"], ["q"], name="bias"),
        node("Add", ["q", "w"], ["y"], name="other"),
    ]
    proto = builders.model(nodes, {"x": [6, 6]}, {"y": [6, 6]}, {"w": weights(6, 6), "c": weights(6)})
    assert builders.placed_on_tiles(builders.compiled_like_onnxruntime(proto)) == {"product"}


def test_what_the_model_rounds_to_half_precision_is_not_folded():
    """Between two casts of its own a model rounds after every operation: one that is folded would not."""
    half = onnx.numpy_helper.from_array(weights(6, 5, dtype=np.float16), "w")
    shift = onnx.numpy_helper.from_array(weights(5, dtype=np.float16), "c")
    nodes = [
        node("Constant", [], ["w"], value=half),
        node("Constant", [], ["c"], value=shift),
        node("Cast", ["x"], ["a"], to=10),
        node("MatMul", ["a", "w"], ["p"], name="product"),
        node("Add", ["p", "c"], ["q"], name="f"),
        node("Cast", ["q"], ["y"], to=1),
    ]
    program = builders.compiled_like_onnxruntime(
        builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 5]}), tolerance=2e-3
    )
    assert "f" in program.digital


def test_batch_normalization_in_training_mode_stays_digital():
    nodes, constants = normalization(5, training_mode=1)
    nodes[0].output.extend(["running_mean", "running_var"])
    program = pcmc.compile(follow("dense", nodes, constants), check=True)
    assert "bn" in program.digital


def test_batch_normalization_with_a_scale_for_each_element_stays_digital():
    """Opset 7 knows `spatial = 0`: mean and variance of every element, not of every channel."""
    constants = {name: positive(5, 3, 4, seed=i) for i, name in enumerate(("gamma", "beta", "mean", "var"))}
    nodes = [node("BatchNormalization", ["p", *constants], ["y"], name="bn", spatial=0)]
    assert "bn" in pcmc.compile(follow("conv2d", nodes, constants, opset=7), check=True).digital


def test_a_dead_channel_of_a_trained_network_stays_digital():
    """Weight decay drives gammas to 1e-38 and below: folded into the weights they could not be got back."""
    nodes, constants = normalization(5)
    constants["gamma"][2] = 1e-38
    program = builders.compiled_like_onnxruntime(follow("conv2d", nodes, constants))
    assert "bn" in program.digital
