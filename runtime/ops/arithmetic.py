"""Arithmetic between arrays that broadcast: the gradient of what was repeated is summed back."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node
from pcmc.runtime.ops.rule import Domain, Rule, Values, summed_to

#: The gradients by a and b, before they are summed back: of a, b, y, and the gradient by y.
Slopes = Callable[[Array, Array, Array, Array], tuple[Array, Array]]


def _pair(function: Callable[[Array, Array], Array], slopes: Slopes, *domains: Domain) -> Rule:
    """An operator of two arrays."""

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        a, b = inputs
        return (np.asarray(function(a, b)),)

    def backward(
        node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
    ) -> tuple[Array | None, ...]:
        a, b = inputs
        by_a, by_b = slopes(a, b, outputs[0], grads[0])
        return summed_to(by_a, a.shape), summed_to(by_b, b.shape)

    return Rule(forward, backward, domains=domains or (Domain(),))


def _divide(a: Array, b: Array) -> Array:
    """The quotient; whole numbers are truncated toward zero, as in C."""
    if a.dtype.kind == "f":
        found: Array = a / b
        return found
    quotient = np.abs(a) // np.abs(b)
    truncated: Array = (np.sign(a) * np.sign(b) * quotient).astype(a.dtype)
    return truncated


def _power(a: Array, b: Array) -> Array:
    """The power in the type of a."""
    found: Array = np.power(a, b).astype(a.dtype, copy=False)
    return found


def _power_slopes(a: Array, b: Array, y: Array, grad: Array) -> tuple[Array, Array]:
    """Slopes b a^(b-1) and a^b log a; the second is not wanted, and 0, for a <= 0."""
    exponent = b.astype(a.dtype, copy=False)
    by_a = np.where(exponent == 0, 0, exponent * np.power(a, np.where(exponent == 0, 1, exponent - 1)))
    by_b = y * np.log(np.where(a > 0, a, 1))
    return grad * by_a, grad * by_b


def _mod(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """The remainder with the sign of the divisor, or of the dividend with `fmod`."""
    a, b = inputs
    return (np.asarray(np.fmod(a, b) if node.get("fmod", 0) else np.mod(a, b)),)


def _mod_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """1 by the dividend, minus the whole quotient by the divisor."""
    a, b = inputs
    whole = np.trunc(a / b) if node.get("fmod", 0) else np.floor(a / b)
    return summed_to(grads[0] + np.zeros_like(whole), a.shape), summed_to(-grads[0] * whole, b.shape)


def _sum(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (np.asarray(functools.reduce(np.add, inputs)),)


def _sum_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    return tuple(summed_to(grads[0], x.shape) for x in inputs)


def _mean(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (np.asarray(functools.reduce(np.add, inputs) / len(inputs)),)


def _mean_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    share = grads[0] / len(inputs)
    return tuple(summed_to(share, x.shape) for x in inputs)


def _extreme(function: Callable[[Array, Array], Array]) -> Rule:
    """Max and Min of any number of arrays. The ones that tie share the gradient in equal parts (PyTorch's
    maximum of two: a half each).
    """

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        return (np.asarray(functools.reduce(function, inputs)),)

    def backward(
        node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
    ) -> tuple[Array | None, ...]:
        hits = [x == outputs[0] for x in inputs]
        share = grads[0] / np.maximum(np.sum(hits, axis=0), 1).astype(grads[0].dtype)
        return tuple(summed_to(share * hit, x.shape) for x, hit in zip(inputs, hits, strict=True))

    return Rule(forward, backward)


def _where(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    condition, a, b = inputs
    return (np.asarray(np.where(condition, a, b)),)


def _where_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    condition, a, b = inputs
    (grad,) = grads
    chosen = np.broadcast_to(condition, grad.shape)
    return None, summed_to(grad * chosen, a.shape), summed_to(grad * ~chosen, b.shape)


ROWS: dict[str, Rule] = {
    "Add": _pair(np.add, lambda a, b, y, grad: (grad, grad)),
    "Div": _pair(_divide, lambda a, b, y, grad: (grad / b, -grad * y / b), Domain(), Domain(0.5, 2)),
    "Max": _extreme(np.maximum),
    "Mean": Rule(_mean, _mean_backward),
    "Min": _extreme(np.minimum),
    "Mod": Rule(_mod, _mod_backward, domains=(Domain(0.1, 0.4), Domain(0.5, 0.9))),
    "Mul": _pair(np.multiply, lambda a, b, y, grad: (grad * b, grad * a)),
    "Pow": _pair(_power, _power_slopes, Domain(0.3, 2), Domain(-2, 2)),
    "Sub": _pair(np.subtract, lambda a, b, y, grad: (grad, -grad)),
    "Sum": Rule(_sum, _sum_backward),
    "Where": Rule(_where, _where_backward, through=(1, 2)),
}
