"""How a constant computation is stored back: for each operator that only moves or converts weights, what its
input must be for its result to be a given value.

The rows of `STORING` work element by element, so that the mark of what changed travels with the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.runtime.shapes import Shape, is_static

Array = npt.NDArray[Any]
Type = tuple[int, Shape | None]  # element type and shape of a tensor
ConstantOf = Callable[[str], Array | None]


#: Smallest and largest value of each element type that weights are stored in, by its number in
#: onnx.TensorProto.DataType.
LIMITS: Mapping[int, tuple[float, float]] = {
    1: (-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max)),
    2: (0, 2**8 - 1),  # UINT8
    3: (-(2**7), 2**7 - 1),  # INT8
    4: (0, 2**16 - 1),  # UINT16
    5: (-(2**15), 2**15 - 1),  # INT16
    6: (-(2**31), 2**31 - 1),  # INT32
    10: (-65504.0, 65504.0),  # FLOAT16
    11: (-float(np.finfo(np.float64).max), float(np.finfo(np.float64).max)),
    16: (-(2.0**128 - 2.0**120), 2.0**128 - 2.0**120),  # BFLOAT16
    21: (0, 15),  # UINT4
    22: (-8, 7),  # INT4
}
FLOATS = frozenset({1, 10, 11, 16})


@dataclass(frozen=True, slots=True)
class Stored:
    """Values of a tensor, and which of its elements are not what they were."""

    value: Array
    changed: npt.NDArray[np.bool_]


def _as_it_is(node: Any, stored: Stored, before: Type, constant: ConstantOf) -> Stored | None:
    return stored


def _cast(node: Any, stored: Stored, before: Type, constant: ConstantOf) -> Stored | None:
    """Between floats: whoever writes the value rounds it."""
    return stored if before[0] in FLOATS else None


def _transposed(node: Any, stored: Stored, before: Type, constant: ConstantOf) -> Stored | None:
    order = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
    axes = list(reversed(range(stored.value.ndim))) if order is None else order
    back = np.argsort(axes)
    return Stored(stored.value.transpose(back), stored.changed.transpose(back))


def _reshaped(node: Any, stored: Stored, before: Type, constant: ConstantOf) -> Stored | None:
    shape = before[1]
    if shape is None or not is_static(shape):
        return None
    sizes = tuple(int(size) for size in shape)
    if int(np.prod(sizes)) != stored.value.size:
        return None
    return Stored(stored.value.reshape(sizes), stored.changed.reshape(sizes))


def _quantized(node: Any, stored: Stored, before: Type, constant: ConstantOf) -> Stored | None:
    """What DequantizeLinear starts from: `round(value / scale) + zero point`, halves to even as
    QuantizeLinear has it. Whoever writes it clips it to the range of its type.
    """
    scale, zero = _scale_and_zero(node, stored.value, constant)
    if scale is None or (scale == 0).any() or before[0] not in LIMITS or before[0] in FLOATS:
        return None
    return Stored(np.rint(stored.value.astype(np.float64) / scale) + zero, stored.changed)


def _dequantized(node: Any, stored: Stored, before: Type, constant: ConstantOf) -> Stored | None:
    """What QuantizeLinear starts from: the middle of the step that it rounds to."""
    scale, zero = _scale_and_zero(node, stored.value, constant)
    if scale is None or before[0] not in FLOATS:
        return None
    return Stored((stored.value.astype(np.float64) - zero) * scale, stored.changed)


def _scale_and_zero(node: Any, value: Array, constant: ConstantOf) -> tuple[Array | None, Array]:
    """Scale and zero point of a (de)quantization, each as an array that broadcasts to the values."""
    attributes: Mapping[str, int] = {a.name: a.i for a in node.attribute}
    scale = constant(node.input[1])
    zero = constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
    if scale is None or zero is None or scale.dtype.kind not in "f":
        return None, np.zeros(())
    return _spread(scale, value, attributes), _spread(zero, value, attributes)


def _spread(array: Array, value: Array, attributes: Mapping[str, int]) -> Array:
    wide = array.astype(np.float64)
    axis, block = min(attributes.get("axis", 1), value.ndim - 1), attributes.get("block_size", 0)
    if block and wide.ndim == value.ndim:
        return np.repeat(wide, block, axis).take(range(value.shape[axis]), axis)
    if wide.size == 1:
        return wide.reshape(())
    shape = [1] * value.ndim
    shape[axis] = -1
    return wide.reshape(shape)


#: operator -> function (node, its result, element type and shape of its input, constants by name) -> its
#: input; None where that can't be said.
STORING: Mapping[str, Callable[[Any, Stored, Type, ConstantOf], Stored | None]] = {
    "Identity": _as_it_is,
    "Cast": _cast,
    "Transpose": _transposed,
    "Reshape": _reshaped,
    "Flatten": _reshaped,
    "Squeeze": _reshaped,
    "Unsqueeze": _reshaped,
    "DequantizeLinear": _quantized,
    "QuantizeLinear": _dequantized,
}
