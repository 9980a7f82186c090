"""What single rules promise beside their values: ties, statistics, random masks, what nobody needs."""

import numpy as np
import onnx
import pytest
from onnx import helper

from pcmc.errors import ModelError
from pcmc.runtime.ops import table
from pcmc.runtime.ops.convolution import COLUMN_VALUES
from pcmc.runtime.ops.node import Context, Node, node_from_onnx


def made(op, inputs, outputs=("y",), opset=21, **attributes) -> Node:
    return node_from_onnx(helper.make_node(op, inputs, list(outputs), name=f"the_{op}", **attributes), opset)


def step(training=True, needed=None, seed=1) -> Context:
    return Context(training, lambda name: np.random.default_rng([seed, *name.encode()]), needed=needed)


def back(node, inputs, grad, context=None):
    context = context or step()
    outputs = table.forward(node, inputs, context)
    grads = [np.asarray(grad, outputs[0].dtype), *[None] * (len(outputs) - 1)]
    return table.backward(node, inputs, outputs, grads, context)


# --- ties ---


def test_two_that_tie_for_the_maximum_share_the_gradient() -> None:
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 0.0])
    by_a, by_b = back(made("Max", ["a", "b"]), [a, b], [8, 8, 8])
    np.testing.assert_array_equal(by_a, [4, 0, 8])
    np.testing.assert_array_equal(by_b, [4, 8, 0])


def test_values_that_tie_in_a_reduction_share_the_gradient() -> None:
    (by_x,) = back(made("ReduceMax", ["x"]), [np.array([[2.0, 1.0, 2.0]])], [[6]])
    np.testing.assert_array_equal(by_x, [[3, 0, 3]])


@pytest.mark.parametrize("op", ["MaxPool", "GlobalMaxPool"])
def test_the_first_of_equal_values_in_a_window_takes_the_gradient(op) -> None:
    kernel = {"kernel_shape": [2, 2]} if op == "MaxPool" else {}
    x = np.array([[[[1.0, 3.0], [3.0, 3.0]]]])
    (by_x,) = back(made(op, ["x"], **kernel), [x], [[[[5.0]]]])
    np.testing.assert_array_equal(by_x, [[[[0, 5], [0, 0]]]])


def test_relu_has_no_slope_at_zero_and_clip_has_at_its_bounds() -> None:
    x = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(back(made("Relu", ["x"]), [x], [1, 1, 1])[0], [0, 0, 1])
    clip = made("Clip", ["x", "low", "high"])
    bounds = [np.array(-1.0), np.array(1.0)]
    np.testing.assert_array_equal(back(clip, [x, *bounds], [1, 1, 1])[0], [1, 1, 1])


# --- large values ---


@pytest.mark.parametrize(
    "op", ["Sigmoid", "Softplus", "Tanh", "Mish", "Swish", "Gelu", "Elu", "Selu", "Celu"]
)
def test_large_values_do_not_overflow(op) -> None:
    x = np.array([-1e4, -200, 200, 1e4], np.float32)
    node = made(op, ["x"], opset=24)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        (y,) = table.forward(node, [x], step())
        (by_x,) = table.backward(node, [x], [y], [np.ones_like(x)], step())
    assert by_x is not None
    assert np.isfinite(y).all()
    np.testing.assert_allclose(by_x[:2], 0, atol=1e-6)
    assert np.isfinite(by_x).all()


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_of_large_logits_is_finite(op) -> None:
    x = np.array([[1e4, -1e4, 0]], np.float32)
    (by_x,) = back(made(op, ["x"]), [x], [[1, 2, 3]])
    assert np.isfinite(by_x).all()


def test_a_norm_of_zeros_has_the_gradient_zero() -> None:
    zeros = np.zeros((2, 3))
    assert not back(made("ReduceL2", ["x"]), [zeros], [[1]])[0].any()
    assert np.isfinite(back(made("LpNormalization", ["x"]), [zeros], np.ones((2, 3)))[0]).all()


def test_a_product_with_zeros_has_the_product_of_the_others_as_slope() -> None:
    node = made("ReduceProd", ["x"])
    np.testing.assert_array_equal(back(node, [np.array([2.0, 0.0, 3.0])], [1])[0], [0, 6, 0])
    np.testing.assert_array_equal(back(node, [np.array([2.0, 0.0, 0.0])], [1])[0], [0, 0, 0])


# --- Dropout ---

DROPOUTS = {
    10: (made("Dropout", ["x"], opset=10, ratio=0.25), []),
    21: (made("Dropout", ["x", "ratio", "mode"]), [np.array(0.25, np.float32), np.array(True)]),
}


@pytest.mark.parametrize("opset", DROPOUTS)
def test_dropout_keeps_the_stated_share_and_scales_it(opset) -> None:
    node, rest = DROPOUTS[opset]
    (y, mask) = table.forward(node, [np.ones(40_000, np.float32), *rest], step())
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    np.testing.assert_array_equal(mask, y > 0)
    # five standard deviations of the mean of 40,000 draws of 0 or 1 with chance 3/4
    assert abs(mask.mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 40_000)


@pytest.mark.parametrize("opset", DROPOUTS)
def test_the_gradient_of_dropout_passes_the_mask_of_its_forward_rule(opset) -> None:
    node, rest = DROPOUTS[opset]
    x = np.ones((30, 20))
    (y, _) = table.forward(node, [x, *rest], step())
    by_x, *others = back(node, [x, *rest], x)
    np.testing.assert_array_equal(by_x, y)
    assert others == [None] * len(rest)


def test_dropout_is_the_identity_in_evaluation_and_where_its_own_mode_is_off() -> None:
    x = np.arange(20.0)
    node, rest = DROPOUTS[10]
    np.testing.assert_array_equal(table.forward(node, [x, *rest], step(training=False))[0], x)
    node, rest = DROPOUTS[21]
    np.testing.assert_array_equal(table.forward(node, [x, *rest], step(training=False))[0], x)
    np.testing.assert_array_equal(table.forward(node, [x, rest[0], np.array(False)], step())[0], x)


def test_dropout_of_everything_gives_zeros() -> None:
    node = made("Dropout", ["x"], opset=10, ratio=1.0)
    assert not table.forward(node, [np.ones(9, np.float32)], step())[0].any()


def test_two_dropouts_and_two_steps_draw_different_masks() -> None:
    x = np.ones(200, np.float32)
    first = made("Dropout", ["x"], opset=10)
    second = node_from_onnx(helper.make_node("Dropout", ["x"], ["y"], name="other"), 10)
    masks = [table.forward(n, [x], step(seed=seed))[1] for n, seed in ((first, 1), (second, 1), (first, 2))]
    assert (masks[0] != masks[1]).any()
    assert (masks[0] != masks[2]).any()
    np.testing.assert_array_equal(masks[0], table.forward(first, [x], step())[1])


# --- BatchNormalization ---


def statistics():
    rng = np.random.default_rng(4)
    return [rng.normal(size=(5, 3, 4)), *(rng.uniform(0.5, 2, 3) for _ in range(4))]


@pytest.mark.parametrize(("opset", "attributes"), [(9, {}), (14, {"training_mode": 1})])
def test_batch_statistics_are_used_and_written_in_training_alone(opset, attributes) -> None:
    outputs = ("y", "mean", "var", "saved_mean", "saved_var")[: 5 if opset < 14 else 3]
    node = made("BatchNormalization", list("xsbmv"), outputs, opset, momentum=0.8, **attributes)
    inputs = statistics()
    x = inputs[0]
    training, evaluation = step(), step(training=False)
    y = table.forward(node, inputs, training)[0]
    standard = (y - inputs[2][:, None]) / inputs[1][:, None]
    np.testing.assert_allclose(standard.mean(axis=(0, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(training.updates["m"], 0.8 * inputs[3] + 0.2 * x.mean(axis=(0, 2)))
    np.testing.assert_allclose(training.updates["v"], 0.8 * inputs[4] + 0.2 * x.var(axis=(0, 2)))
    assert not np.allclose(y, table.forward(node, inputs, evaluation)[0])
    assert not evaluation.updates


def test_a_frozen_batch_normalization_writes_nothing_and_is_affine() -> None:
    node, inputs, context = made("BatchNormalization", list("xsbmv")), statistics(), step()
    (by_x, *_, by_mean, by_variance) = back(node, inputs, np.ones((5, 3, 4)), context)
    slope = inputs[1] / np.sqrt(inputs[4] + 1e-5)
    np.testing.assert_allclose(by_x, np.broadcast_to(slope[:, None], by_x.shape))
    assert by_mean is None
    assert by_variance is None
    assert not context.updates


def test_a_loss_on_the_statistics_themselves_is_an_error_that_names_the_node() -> None:
    node = made("BatchNormalization", list("xsbmv"), ("y", "mean", "var"), training_mode=1)
    inputs = statistics()
    outputs = table.forward(node, inputs, step())
    with pytest.raises(ModelError, match=r"the_BatchNormalization \(BatchNormalization\).*statistics"):
        table.backward(node, inputs, outputs, [outputs[0], outputs[1], None], step())


# --- what nobody needs ---


@pytest.mark.parametrize(
    ("op", "shapes"),
    [("Gemm", [(3, 4), (4, 2)]), ("MatMul", [(3, 4), (4, 2)]), ("Conv", [(2, 3, 5, 5), (4, 3, 3, 3)])],
)
def test_gradients_that_nobody_needs_are_left_out_and_the_others_equal(op, shapes) -> None:
    rng = np.random.default_rng(6)
    inputs = [rng.normal(size=shape) for shape in shapes]
    node = made(op, ["x", "w"])
    grad = table.forward(node, inputs, step())[0]
    by_x, by_w = back(node, inputs, grad)
    only_x, no_w = back(node, inputs, grad, step(needed=frozenset({"x"})))
    no_x, only_w = back(node, inputs, grad, step(needed=frozenset({"w"})))
    assert no_w is None
    assert no_x is None
    np.testing.assert_array_equal(by_x, only_x)
    np.testing.assert_array_equal(by_w, only_w)


def test_a_convolution_in_parts_equals_that_of_each_image() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(9, 8, 70, 70)).astype(np.float32)
    w = rng.normal(size=(2, 8, 3, 3)).astype(np.float32)
    assert x.size * 9 > 2 * COLUMN_VALUES
    node = made("Conv", ["x", "w"], pads=[1, 1, 1, 1])
    (y,) = table.forward(node, [x, w], step())
    by_x, by_w = back(node, [x, w], y)
    parts = [back(node, [x[i : i + 1], w], y[i : i + 1]) for i in range(9)]
    np.testing.assert_array_equal(
        y, np.concatenate([table.forward(node, [x[i : i + 1], w], step())[0] for i in range(9)])
    )
    np.testing.assert_array_equal(by_x, np.concatenate([part[0] for part in parts]))
    np.testing.assert_allclose(by_w, sum(part[1] for part in parts), rtol=1e-3)


def test_an_output_of_a_split_without_a_gradient_counts_as_zero() -> None:
    node = made("Split", ["x"], ("a", ""), axis=0)
    x = np.arange(4.0)
    found = table.backward(node, [x], [x[:2], np.empty(0)], [np.ones(2), None], step())
    np.testing.assert_array_equal(found[0], [1, 1, 0, 0])


# --- errors ---


@pytest.mark.parametrize(
    ("node", "inputs", "text"),
    [
        (made("Conv", "xw", pads=[1]), [(1, 2, 4, 4), (2, 2, 3, 3)], "pads has 1 values"),
        (made("Conv", "xw"), [(1, 2, 4, 4), (2, 3, 3, 3)], r"weights \[2, 3, 3, 3\] in 1 groups"),
        (made("Conv", "xw"), [(1, 2, 2, 2), (2, 2, 3, 3)], "reaches over"),
        (made("Conv", "xw", auto_pad="SOME"), [(1, 2, 4, 4), (2, 2, 3, 3)], "auto_pad SOME is unknown"),
        (made("Resize", ["x", "", "", "n"], mode="lanczos"), [(2, 3), None, None, (2,)], "mode lanczos"),
        (made("Pad", "xp", mode="mirror"), [(2,), (2,)], "mode mirror is unknown"),
        (made("LpNormalization", "x", p=3), [(2, 2)], "p is 3"),
        (made("Einsum", "xw", equation="ij->ij"), [(2, 2), (2, 2)], "has 1 factors, the node 2 inputs"),
        (
            made("ScatterND", "xiu", reduction="mul"),
            [(2,), (1, 1), (1,)],
            "reduction mul has no rule",
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, Node) else None,
)
def test_what_a_rule_can_not_do_names_the_node(node, inputs, text) -> None:
    values = [None if shape is None else np.ones(shape) for shape in inputs]
    if node.op_type in ("Pad", "ScatterND", "Resize"):
        values = [x if index == 0 or x is None else x.astype(np.int64) for index, x in enumerate(values)]
    with pytest.raises(ModelError, match=f"the_{node.op_type} .*{text}"):
        table.forward(node, values, step())


def test_a_diagonal_in_einsum_has_no_gradient_rule() -> None:
    node = made("Einsum", ["x"], equation="ii->i")
    with pytest.raises(ModelError, match=r"the_Einsum .*takes a diagonal"):
        back(node, [np.ones((2, 2))], np.ones(2))


# --- nodes ---


def test_attributes_become_python_values() -> None:
    tensor = helper.make_tensor("t", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    made_node = helper.make_node(
        "Custom", ["a", "", "b"], ["y"], text="x", count=3, many=[1, 2], t=tensor, names=["p", "q"]
    )
    node = node_from_onnx(made_node, 9)
    assert (node.get("text"), node.get("count"), node.get("many")) == ("x", 3, (1, 2))
    assert node.get("names") == ("p", "q")
    np.testing.assert_array_equal(node.get("t"), [1, 2])
    assert node.get("missing", 7) == 7
    assert (node.inputs, node.outputs, node.opset) == (("a", "", "b"), ("y",), 9)


def test_the_onnx_domain_has_one_name() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")
    assert node_from_onnx(node, 9).domain == ""


def test_a_reference_to_an_attribute_of_a_function_is_an_error() -> None:
    node = helper.make_node("Elu", ["x"], ["y"], name="inner")
    attribute = node.attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    with pytest.raises(ModelError, match=r"inner \(Elu\): attribute alpha refers to"):
        node_from_onnx(node, 9)
