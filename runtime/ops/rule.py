"""A row of the table of operators, and what every family of rows builds on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node

#: Arrays, and None in the place of an input that is left out or of a gradient that is zero.
Values = Sequence[Any]
Forward = Callable[[Node, Values, Context], tuple[Array, ...]]
Backward = Callable[[Node, Values, Values, Values, Context], tuple[Array | None, ...]]


@dataclass(frozen=True, slots=True)
class Domain:
    """Values of an input at which a rule is defined and smooth: [low, high], away from the kinks.

    Tests draw from it.
    """

    low: float = -2.0
    high: float = 2.0
    kinks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """How one ONNX operator runs forward and backward.

    `forward(node, inputs, context)` gives all outputs that the node names (a rule may give the operator's
    optional ones, too). `backward(node, inputs, outputs, grads, context)` takes the gradient of the loss by
    each output (None: zero) and gives that by each input, of the input's shape and type (None: zero). It is
    None for an operator that no gradient passes.

    `through` are the inputs whose values the outputs follow, None for all of them; a gradient passes to these
    alone. The others are parameters of the operation, such as a shape. So a row without a backward rule and
    with `through=()` (Shape, comparisons, ArgMax) is no part of a path: what it gives is a shape, a mask, an
    index. One with `through` not empty (Floor, QuantizeLinear) is a dead end of a path: values go on, and the
    gradient does not. `domains` has one Domain per input, the last one holds for the rest.
    """

    forward: Forward
    backward: Backward | None
    through: tuple[int, ...] | None = None
    domains: tuple[Domain, ...] = (Domain(),)


def computed(rows: Mapping[str, Rule]) -> dict[str, Rule]:
    """The rows, with what numpy does not do by itself: float16 is computed in float32 and rounded at the end,
    as in onnxruntime, and single numbers come out as arrays.
    """
    return {
        name: replace(row, forward=_wide_forward(row.forward), backward=_wide_backward(row.backward))
        for name, row in rows.items()
    }


def summed_to(grad: Array, shape: tuple[int, ...]) -> Array:
    """The gradient by an array of this shape that was broadcast to the shape of `grad`: its sum over what was
    repeated.
    """
    if grad.shape == shape:
        return grad
    ahead = grad.ndim - len(shape)
    axes = tuple(range(ahead)) + tuple(
        ahead + axis for axis, size in enumerate(shape) if size == 1 and grad.shape[ahead + axis] != 1
    )
    summed: Array = grad.sum(axis=axes).reshape(shape)
    return summed


def single(function: Callable[[Node, Array], Array]) -> Forward:
    """The forward rule of an operator with one output that depends on one input."""

    @functools.wraps(function)
    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        return (function(node, inputs[0]),)

    return forward


def given(inputs: Values, index: int) -> Any:
    """The input at this place, None if it is left out."""
    return inputs[index] if index < len(inputs) else None


def _wide(values: Values) -> list[Any]:
    return [
        value.astype(np.float32) if value is not None and value.dtype == np.float16 else value
        for value in values
    ]


def _has_half(values: Values) -> bool:
    return any(value is not None and value.dtype == np.float16 for value in values)


def _wide_forward(forward: Forward) -> Forward:
    @functools.wraps(forward)
    def wide(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        if not _has_half(inputs):
            return tuple(map(np.asarray, forward(node, inputs, context)))
        outputs = forward(node, _wide(inputs), context)
        return tuple(out.astype(np.float16) if out.dtype == np.float32 else out for out in outputs)

    return wide


def _wide_backward(backward: Backward | None) -> Backward | None:
    if backward is None:
        return None
    narrow = backward

    @functools.wraps(backward)
    def wide(
        node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
    ) -> tuple[Array | None, ...]:
        if not _has_half([*inputs, *grads]):
            found = narrow(node, inputs, outputs, grads, context)
            return tuple(None if grad is None else np.asarray(grad) for grad in found)
        found = narrow(node, _wide(inputs), _wide(outputs), _wide(grads), context)
        return tuple(
            None if grad is None else grad.astype(value.dtype, copy=False)
            for grad, value in zip(found, inputs, strict=True)
        )

    return wide
