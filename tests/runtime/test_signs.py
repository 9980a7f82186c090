"""Tensors that can't be negative: what is said of them holds in onnxruntime, and is said where it should."""

import builders
import numpy as np
import onnx
import pytest
from builders import node

from pcmc.runtime.signs import non_negative

SHAPE = (1, 4, 6, 6)
PLUS, MINUS = np.full(SHAPE, 0.5, np.float32), np.full(SHAPE, -0.5, np.float32)
WINDOW = {"kernel_shape": [2, 2], "strides": [2, 2]}
#: An operation on `r`, which is not negative, and `x`, which may be; and whether its result can't be.
CASES = {
    "Relu": (node("Relu", ["x"], ["y"]), True),
    "Softmax": (node("Softmax", ["x"], ["y"]), True),
    "ReduceL2": (node("ReduceL2", ["x"], ["y"]), True),
    "MaxPool": (node("MaxPool", ["r"], ["y"], **WINDOW), True),
    "MaxPool of any": (node("MaxPool", ["x"], ["y"], **WINDOW), False),
    "AveragePool": (node("AveragePool", ["r"], ["y"], **WINDOW), True),
    "Flatten": (node("Flatten", ["r"], ["y"]), True),
    "Transpose of any": (node("Transpose", ["x"], ["y"]), False),
    "Add": (node("Add", ["r", "plus"], ["y"]), True),
    "Add of a negative": (node("Add", ["r", "minus"], ["y"]), False),
    "Mul of any": (node("Mul", ["r", "x"], ["y"]), False),
    "Sub": (node("Sub", ["r", "plus"], ["y"]), False),
    "Concat": (node("Concat", ["r", "plus"], ["y"], axis=1), True),
    "Concat with any": (node("Concat", ["r", "x"], ["y"], axis=1), False),
    "Clip from 0": (node("Clip", ["x", "zero"], ["y"]), True),
    "Clip below": (node("Clip", ["x", "", "zero"], ["y"]), False),
    "Pad": (node("Pad", ["r", "pads"], ["y"]), True),
    "Pad with a negative": (node("Pad", ["r", "pads", "less"], ["y"]), False),
    "Tanh": (node("Tanh", ["x"], ["y"]), False),
    "Where": (node("Where", ["on", "r", "plus"], ["y"]), True),
}
CONSTANTS = {
    "plus": PLUS,
    "minus": MINUS,
    "zero": np.float32(0),
    "less": np.float32(-1),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "on": np.arange(144).reshape(SHAPE) % 2 == 0,
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_said_holds_in_onnxruntime(case):
    import onnxruntime

    last, positive = CASES[case]
    used = {name: value for name, value in CONSTANTS.items() if name in last.input}
    model = builders.model([node("Abs", ["x"], ["r"]), last], {"x": list(SHAPE)}, {"y": None}, used)
    assert ("y" in non_negative(model)) == positive
    assert "r" in non_negative(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    results = [session.run(None, {"x": values})[0] for values in (x, -np.abs(x))]
    assert (min(float(y.min()) for y in results) >= 0) == positive


def test_inputs_of_an_unsigned_type_are_not_negative():
    kinds = onnx.TensorProto
    for kind, positive in (
        (kinds.UINT8, True),
        (kinds.BOOL, True),
        (kinds.INT8, False),
        (kinds.FLOAT, False),
    ):
        model = builders.model([node("Identity", ["x"], ["y"])], {"x": (["N"], kind)}, {"y": (["N"], kind)})
        assert ({"x", "y"} <= non_negative(model)) == positive


def test_a_constant_that_is_an_input_too_is_taken_for_what_it_is():
    model = builders.model(
        [node("Add", ["plus", "r"], ["y"]), node("Abs", ["y"], ["r2"])],
        {"r": (["N"], onnx.TensorProto.FLOAT)},
        {"r2": ["N"]},
        {"plus": np.ones(1, np.float32)},
        constants_are_inputs=True,
    )
    assert non_negative(model) == {"plus", "r2"}  # not `y`: `r` may be below -1
