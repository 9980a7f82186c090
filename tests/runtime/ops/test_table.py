"""Every row of the table: forward against onnxruntime, backward against the numerical gradient."""

import numpy as np
import onnx
import pytest
from operator_cases import CASES, Case, context_of, judged, node_of, values_of

from pcmc.errors import ModelError
from pcmc.runtime.ops import table
from pcmc.runtime.ops.node import Node

#: Step of the central differences. Their error is of the order of its square, and of 1e-16 over it: 1e-10.
STEP = 1e-5

#: What a network may need that is to be trained.
DIFFERENTIABLE = """
    Gemm MatMul Conv BatchNormalization LayerNormalization GroupNormalization InstanceNormalization
    MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool
    Relu LeakyRelu PRelu Elu Selu Celu Gelu Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign
    ThresholdedRelu Mish Clip Erf Shrink Swish Softmax LogSoftmax
    Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh Exp Log Sqrt Abs Neg Reciprocal Pow
    Add Sub Mul Div Max Min Mean Sum Where
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare
    Reshape Flatten Squeeze Unsqueeze Transpose Expand Tile Slice Concat Split Gather GatherElements GatherND
    Pad Resize Upsample DepthToSpace SpaceToDepth Dropout Identity Cast LRN LpNormalization
"""

NO_GRADIENT = """
    Shape Size Constant ConstantOfShape Equal Greater Less GreaterOrEqual LessOrEqual And Or Not Xor
    ArgMax ArgMin
    Floor Ceil Round Sign OneHot NonZero Range IsNaN IsInf Hardmax EyeLike
    QuantizeLinear DequantizeLinear
"""


def test_every_row_is_tried() -> None:
    assert {case.op for case in CASES} == set(table.RULES)


@pytest.mark.parametrize("op", DIFFERENTIABLE.split())
def test_differentiable_operators_have_a_backward_rule(op) -> None:
    assert table.RULES[op].backward is not None


@pytest.mark.parametrize("op", NO_GRADIENT.split())
def test_no_gradient_is_a_row(op) -> None:
    assert table.RULES[op].backward is None


def test_the_dead_ends_of_a_path_are_these() -> None:
    found = {op for op, row in table.RULES.items() if row.backward is None and row.through is None}
    assert found == {"Ceil", "DequantizeLinear", "Floor", "Hardmax", "QuantizeLinear", "Round", "Sign"}
    assert all(
        row.through == () for row in table.RULES.values() if row.backward is None and row.through is not None
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_forward_equals_onnxruntime(case) -> None:
    values = values_of(case, np.float32)
    found = table.forward(node_of(case), values, context_of(case))
    expected = judged(case, values)
    assert len(found) >= len(expected)
    for ours, theirs in zip(found, expected, strict=False):
        assert isinstance(ours, np.ndarray)
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def _is_smooth(case: Case) -> bool:
    """Whether a gradient passes the case: from floating inputs to a floating output, unrounded."""
    backward = table.RULES[case.op].backward
    rounded = case.op == "Cast" and case.attributes["to"] != onnx.TensorProto.DOUBLE
    floating = any(isinstance(x, tuple) or (x is not None and x.dtype.kind == "f") for x in case.inputs)
    return backward is not None and floating and not rounded


#: Only the first of their outputs has a gradient.
ONE_GRADIENT = {"TopK", "MaxPool", "BatchNormalization", "LayerNormalization", "Dropout"}

SMOOTH = [case for case in CASES if _is_smooth(case)]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.title)
def test_backward_is_the_numerical_gradient(case) -> None:
    node, row, values = node_of(case), table.RULES[case.op], values_of(case, np.float64)
    rng = np.random.default_rng(3)
    outputs = table.forward(node, values, context_of(case))
    count = 1 if case.op in ONE_GRADIENT else len(outputs)
    grads = [rng.normal(size=y.shape) if at < count else None for at, y in enumerate(outputs)]

    def loss(changed: list[object]) -> float:
        found = table.forward(node, changed, context_of(case))
        return sum(float((y * grad).sum()) for y, grad in zip(found, grads, strict=True) if grad is not None)

    found = table.backward(node, values, outputs, grads, context_of(case))
    assert len(found) == len(values)
    for index, (x, grad) in enumerate(zip(values, found, strict=True)):
        passes = row.through is None or index in row.through
        if x is None or x.dtype.kind != "f" or not passes:
            assert grad is None
            continue
        assert grad is not None
        assert grad.shape == x.shape
        assert grad.dtype == x.dtype
        for _ in range(2):
            direction = rng.normal(size=x.shape)
            ahead, behind = (
                loss([*values[:index], x + step * direction, *values[index + 1 :]]) for step in (STEP, -STEP)
            )
            scale = np.abs(grad * direction).sum() + 1e-6
            assert abs((ahead - behind) / (2 * STEP) - (grad * direction).sum()) < 2e-7 * scale


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.title)
def test_backward_in_float32_is_that_in_float64_rounded(case) -> None:
    node = node_of(case)
    found = []
    for dtype in (np.float32, np.float64):
        values = values_of(case, dtype)
        outputs = table.forward(node, values, context_of(case))
        first = np.cos(np.arange(outputs[0].size)).reshape(outputs[0].shape).astype(dtype)
        grads = [first, *[None] * (len(outputs) - 1)]
        found.append(table.backward(node, values, outputs, grads, context_of(case)))
    for single, double in zip(*found, strict=True):
        assert (single is None) == (double is None)
        if single is not None:
            assert single.dtype == np.float32
            scale = np.abs(double).max(initial=0) + 1e-3
            np.testing.assert_allclose(single, double, rtol=0, atol=2e-4 * scale)


@pytest.mark.parametrize("case", SMOOTH, ids=lambda case: case.title)
def test_rules_leave_their_inputs_alone(case) -> None:
    node, values = node_of(case), values_of(case, np.float32)
    kept = [None if x is None else x.copy() for x in values]
    outputs = table.forward(node, values, context_of(case))
    results = [y.copy() for y in outputs]
    grads = [np.ones_like(y) for y in outputs[:1]] + [None] * (len(outputs) - 1)
    table.backward(node, values, outputs, grads, context_of(case))
    for now, before in zip([*values, *outputs], [*kept, *results], strict=True):
        np.testing.assert_array_equal(now, before)
    assert grads[0] is not None
    np.testing.assert_array_equal(grads[0], np.ones_like(grads[0]))


@pytest.mark.parametrize(
    "op", ["Gemm", "Conv", "Softmax", "Tanh", "LayerNormalization", "ReduceSum", "Reshape"]
)
def test_half_precision_is_float32_rounded(op) -> None:
    case = next(case for case in CASES if case.op == op)
    node, half = node_of(case), values_of(case, np.float16)
    wide = [x.astype(np.float32) if x.dtype == np.float16 else x for x in half]
    outputs, expected = (table.forward(node, values, context_of(case)) for values in (half, wide))
    np.testing.assert_array_equal(outputs[0], expected[0].astype(np.float16))
    grads = [np.ones_like(expected[0])] + [None] * (len(expected) - 1)
    found = table.backward(node, half, [y.astype(np.float16) for y in expected], grads, context_of(case))
    reference = table.backward(node, wide, expected, grads, context_of(case))
    for ours, theirs in zip(found, reference, strict=True):
        if ours is not None and theirs is not None:
            assert ours.dtype == np.float16
            np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.02)


def test_an_operator_without_a_rule_is_named() -> None:
    node = Node("decoder.lstm", "LSTM", "", 14, {}, ("x",), ("y",))
    with pytest.raises(ModelError, match=r"decoder\.lstm \(LSTM\): LSTM has no training rule"):
        table.rule(node)


def test_an_operator_of_another_domain_is_named() -> None:
    node = Node("", "Relu", "my.company", 1, {}, ("x",), ("y",))
    with pytest.raises(ModelError, match=r"y \(Relu\).*my\.company"):
        table.rule(node)


def test_no_gradient_comes_back_where_none_arrives() -> None:
    node = Node("a", "Add", "", 21, {}, ("x", "z"), ("y",))
    x = np.ones(3, np.float32)
    assert table.backward(node, [x, x], [x], [None], context_of(CASES[0])) == (None, None)
