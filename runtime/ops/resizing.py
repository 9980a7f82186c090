"""Resize and Upsample: along each axis the output is a matrix times the input, the gradient its transpose.

One matrix an axis holds every mode (nearest, linear, cubic, with or without antialiasing) and every way to
place the output's points on the input, as ONNX's definition of Resize gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Rule, Values, given

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis that changes: `matrix` [out, in] makes the output of the input; `outside` [out] says which
    points take the extrapolation value instead.
    """

    axis: int
    matrix: Doubles
    outside: npt.NDArray[np.bool_]


def _resize(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    y = x = inputs[0]
    axes = _axes(node, inputs)
    for part in axes:
        if _mode(node) == "nearest":
            y = np.take(y, part.matrix.argmax(axis=1), axis=part.axis)
        else:
            y = _along(part.matrix, y, part.axis)
    for part in axes:
        if part.outside.any():
            cut = [slice(None)] * y.ndim
            cut[part.axis] = part.outside  # type: ignore[call-overload]
            y[tuple(cut)] = node.get("extrapolation_value", 0.0)
    return (y.astype(x.dtype, copy=True) if y is x else y.astype(x.dtype, copy=False),)


def _resize_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    grad = grads[0]
    for part in reversed(_axes(node, inputs)):
        inner = np.where(part.outside[:, None], 0, part.matrix)
        grad = _along(inner.T, grad, part.axis)
    return (grad, *(None,) * (len(inputs) - 1))


def _along(matrix: Array, x: Array, axis: int) -> Array:
    found: Array = np.moveaxis(np.tensordot(matrix.astype(x.dtype), x, axes=(1, axis)), 0, axis)
    return found


def _mode(node: Node) -> str:
    mode = node.get("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear", "cubic"):
        fail(node, f"mode {mode} is unknown; ONNX has nearest, linear and cubic")
    return "linear" if mode == "bilinear" else str(mode)


def _axes(node: Node, inputs: Values) -> list[Axis]:
    """The axes that change, each with its matrix."""
    x = inputs[0]
    axes = [axis % x.ndim for axis in node.get("axes", range(x.ndim))]
    region = given(inputs, 1) if _is_crop(node) else None
    found = []
    for place, (axis, (scale, out)) in enumerate(zip(axes, _sizes(node, inputs, axes), strict=True)):
        if scale == 1 and out == x.shape[axis] and region is None:
            continue
        ends = (0.0, 1.0) if region is None else (float(region[place]), float(region[place + len(axes)]))
        points = _points(node, x.shape[axis], out, scale, ends)
        outside = (points < 0) | (points > x.shape[axis] - 1) if _is_crop(node) else np.zeros(out, bool)
        found.append(Axis(axis, _matrix(node, x.shape[axis], points, scale), outside))
    return found


def _is_crop(node: Node) -> bool:
    return bool(node.get("coordinate_transformation_mode") == "tf_crop_and_resize")


def _sizes(node: Node, inputs: Values, axes: list[int]) -> list[tuple[float, int]]:
    """(scale, output size) of each axis."""
    shape = [inputs[0].shape[axis] for axis in axes]
    scales, sizes = _stated(node, inputs)
    if scales is not None:
        return [
            (float(scale), int(np.floor(size * scale))) for scale, size in zip(scales, shape, strict=True)
        ]
    if sizes is None:
        fail(node, "neither scales nor sizes are given")
    wanted = [int(size) for size in sizes]
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    ratios = [want / size for want, size in zip(wanted, shape, strict=True)]
    if policy == "stretch":
        return list(zip(ratios, wanted, strict=True))
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [(scale, int(np.floor(size * scale + 0.5))) for size in shape]


def _stated(node: Node, inputs: Values) -> tuple[Any, Any]:
    """The scales or the sizes; an empty array stands for one that is left out."""
    if node.op_type == "Upsample" or node.opset < 11:
        scales = node.get("scales") if node.opset < 9 else inputs[1]
        return scales, None
    found = [given(inputs, index) for index in (2, 3)]
    scales, sizes = (None if value is None or not value.size else value for value in found)
    return scales, sizes


def _points(node: Node, size: int, out: int, scale: float, ends: tuple[float, float]) -> Doubles:
    """Where each point of the output lies on the input, in steps of the input."""
    old = node.op_type == "Upsample" or node.opset < 11
    how = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    at = np.arange(out, dtype=np.float64)
    centred: Doubles = (at + 0.5) / scale - 0.5
    if how == "half_pixel":
        return centred
    if how == "pytorch_half_pixel":
        return centred if out > 1 else np.zeros(out)
    if how == "half_pixel_symmetric":
        return centred + size / 2 * (1 - out / (scale * size))
    if how == "asymmetric":
        return at / scale
    if how == "align_corners":
        return at * (size - 1) / (out - 1) if out > 1 else np.zeros(out)
    if how == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if how == "tf_crop_and_resize":
        start, end = ends
        if out > 1:
            return start * (size - 1) + at * (end - start) * (size - 1) / (out - 1)
        return np.full(out, 0.5 * (start + end) * (size - 1))
    return fail(node, f"coordinate_transformation_mode {how} is unknown")


def _matrix(node: Node, size: int, points: Doubles, scale: float) -> Doubles:
    """[out, in]: what each input gives to each output."""
    mode = _mode(node)
    if mode == "nearest":
        return np.eye(size)[np.clip(_nearest(node, points, scale), 0, size - 1)]
    # antialiasing widens the filter by as much as the output has fewer points
    width = max(1 / scale, 1.0) if node.get("antialias", 0) else 1.0
    reach = int(np.ceil((1 if mode == "linear" else 2) * width))
    taps = np.floor(points)[:, None] + np.arange(-reach + 1, reach + 1)
    distance = (taps - points[:, None]) / width
    weights = _cubic(node, distance) if mode == "cubic" else np.maximum(1 - np.abs(distance), 0)
    if node.get("exclude_outside", 0) and (mode == "cubic" or width > 1):
        weights = weights * ((taps >= 0) & (taps < size))
    weights = weights / weights.sum(axis=1, keepdims=True)
    found = np.zeros((len(points), size))
    rows = np.broadcast_to(np.arange(len(points))[:, None], taps.shape)
    np.add.at(found, (rows, np.clip(taps, 0, size - 1).astype(np.int64)), weights)
    return found


def _nearest(node: Node, points: Doubles, scale: float) -> npt.NDArray[np.int64]:
    how = node.get("nearest_mode", "round_prefer_floor")
    if node.op_type == "Upsample" or node.opset < 11:
        how = "floor" if scale >= 1 else "ceil"
    ways = {
        "round_prefer_floor": lambda: np.ceil(points - 0.5),
        "round_prefer_ceil": lambda: np.floor(points + 0.5),
        "floor": lambda: np.floor(points),
        "ceil": lambda: np.ceil(points),
    }
    if how not in ways:
        fail(node, f"nearest_mode {how} is unknown; ONNX has {', '.join(ways)}")
    return ways[how]().astype(np.int64)


def _cubic(node: Node, distance: Doubles) -> Doubles:
    """The cubic convolution kernel (Keys 1981, doi:10.1109/TASSP.1981.1163711), with ONNX's coefficient."""
    a, s = node.get("cubic_coeff_a", -0.75), np.abs(distance)
    near = ((a + 2) * s - (a + 3)) * s * s + 1
    far = ((a * s - 5 * a) * s + 8 * a) * s - 4 * a
    found: Doubles = np.where(s <= 1, near, np.where(s < 2, far, 0))
    return found


ROWS: dict[str, Rule] = {
    "Resize": Rule(_resize, _resize_backward, through=(0,)),
    "Upsample": Rule(_resize, _resize_backward, through=(0,)),
}
