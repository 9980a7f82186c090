"""Operators whose outputs carry no gradient: constants, shapes, comparisons, truth values.

Each has its row all the same, so that "no gradient" is said and not left open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Rule, Values


def _row(function: Callable[[Node, Values], Any]) -> Rule:
    """An operator with one output, that no gradient passes."""

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        return (np.asarray(function(node, inputs)),)

    return Rule(forward, None, through=())


def _of_arrays(function: Callable[..., Any]) -> Rule:
    """A function of all inputs, the attributes without a part in it."""
    return _row(lambda node, inputs: function(*inputs))


#: The attributes of Constant that hold its value, and the type that each gives.
_CONSTANTS: dict[str, Any] = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": np.object_,
    "value_strings": np.object_,
}


def _constant(node: Node, inputs: Values) -> Any:
    for name, dtype in _CONSTANTS.items():
        if name in node.attributes:
            return np.asarray(node.attributes[name], dtype)
    return fail(node, f"a constant needs one of {', '.join(_CONSTANTS)}")


def _constant_of_shape(node: Node, inputs: Values) -> Array:
    value = np.ravel(node.get("value", np.zeros(1, np.float32)))
    return np.full(tuple(int(size) for size in inputs[0]), value[0], value.dtype)


def _shape(node: Node, inputs: Values) -> Array:
    return np.asarray(inputs[0].shape[slice(node.get("start", 0), node.get("end"))], np.int64)


def _one_hot(node: Node, inputs: Values) -> Array:
    """`values` is (off, on); an index out of range gives a row of off."""
    indices, depth, values = inputs
    depth = int(np.ravel(depth)[0])
    axis = node.get("axis", -1)
    whole = indices.astype(np.int64)
    wrapped = np.where((whole >= -depth) & (whole < 0), whole + depth, whole)
    hot = np.arange(depth) == wrapped[..., None]
    found: Array = np.moveaxis(np.where(hot, values[1], values[0]).astype(values.dtype), -1, axis)
    return found


def _range(node: Node, inputs: Values) -> Array:
    start, limit, delta = (np.ravel(value)[0] for value in inputs)
    count = max(int(np.ceil((limit - start) / delta)), 0)
    found: Array = (start + np.arange(count) * delta).astype(inputs[0].dtype)
    return found


def _eye_like(node: Node, inputs: Values) -> Array:
    import onnx

    to = node.get("dtype")
    dtype = inputs[0].dtype if to is None else onnx.helper.tensor_dtype_to_np_dtype(to)
    rows, cols = inputs[0].shape
    return np.eye(rows, cols, node.get("k", 0), dtype)


def _is_inf(node: Node, inputs: Values) -> Array:
    x = inputs[0]
    up, down = bool(node.get("detect_positive", 1)), bool(node.get("detect_negative", 1))
    return np.asarray((np.isposinf(x) & up) | (np.isneginf(x) & down))


ROWS: dict[str, Rule] = {
    "And": _of_arrays(np.logical_and),
    "Constant": _row(_constant),
    "ConstantOfShape": _row(_constant_of_shape),
    "Equal": _of_arrays(np.equal),
    "EyeLike": _row(_eye_like),
    "Greater": _of_arrays(np.greater),
    "GreaterOrEqual": _of_arrays(np.greater_equal),
    "IsInf": _row(_is_inf),
    "IsNaN": _of_arrays(np.isnan),
    "Less": _of_arrays(np.less),
    "LessOrEqual": _of_arrays(np.less_equal),
    "NonZero": _of_arrays(lambda x: np.asarray(np.nonzero(np.atleast_1d(x)), np.int64)),
    "Not": _of_arrays(np.logical_not),
    "OneHot": _row(_one_hot),
    "Or": _of_arrays(np.logical_or),
    "Range": _row(_range),
    "Shape": _row(_shape),
    "Size": _of_arrays(lambda x: np.asarray(x.size, np.int64)),
    "Xor": _of_arrays(np.logical_xor),
}
