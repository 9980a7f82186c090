"""Activations and other functions of one value at a time.

At a kink the slope is PyTorch's: that of the flat side for Relu and its kin, 0 for Abs at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pcmc.accel.training.chain import activate, activate_backward
from pcmc.runtime.ops.node import Array, Context, Node
from pcmc.runtime.ops.rule import Domain, Rule, Values, given, summed_to

#: y of x, and dy/dx of x and y.
Function = Callable[[Node, Array], Array]
Slope = Callable[[Node, Array, Array], Array]

# --- the three that the fast path has, too: in float32 the same kernel computes them, to the same bits ---


def _is_compiled(x: Array) -> bool:
    """Whether the kernels take the array: they know float32 alone, and no single numbers."""
    return x.dtype == np.float32 and x.ndim > 0


def relu(x: Array) -> Array:
    """max(x, 0)."""
    if _is_compiled(x):
        return activate("relu", x).reshape(x.shape)
    found: Array = np.maximum(x, 0)
    return found


def relu_backward(grad: Array, y: Array) -> Array:
    """The gradient by x, of that by y = relu(x); 0 at x = 0."""
    if _is_compiled(grad) and _is_compiled(y):
        return activate_backward("relu", y, grad).reshape(y.shape)
    return grad * (y > 0)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    if _is_compiled(x):
        return activate("tanh", x).reshape(x.shape)
    found: Array = np.tanh(x)
    return found


def tanh_backward(grad: Array, y: Array) -> Array:
    """The gradient by x, of that by y = tanh(x)."""
    if _is_compiled(grad) and _is_compiled(y):
        return activate_backward("tanh", y, grad).reshape(y.shape)
    found: Array = grad * (1 - y * y)
    return found


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow for any x."""
    if _is_compiled(x):
        return activate("sigmoid", x).reshape(x.shape)
    small = np.exp(-np.abs(x))
    found: Array = np.where(x >= 0, 1, small) / (1 + small)
    return found


def sigmoid_backward(grad: Array, y: Array) -> Array:
    """The gradient by x, of that by y = sigmoid(x)."""
    if _is_compiled(grad) and _is_compiled(y):
        return activate_backward("sigmoid", y, grad).reshape(y.shape)
    found: Array = grad * (y * (1 - y))
    return found


# --- functions of more than a line ---


def erf(x: Array) -> Array:
    """The error function, in the type of x."""
    from scipy import special

    found: Array = np.asarray(special.erf(x)).astype(x.dtype, copy=False)
    return found


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    found: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return found


def _gelu(node: Node, x: Array) -> Array:
    """The value x Phi(x), or its approximation by a tanh (Hendrycks and Gimpel, arXiv:1606.08415)."""
    if node.get("approximate", "none") == "tanh":
        gate: Array = 1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        gate = 1 + erf(x / math.sqrt(2))
    return 0.5 * x * gate


def _gelu_slope(node: Node, x: Array, y: Array) -> Array:
    if node.get("approximate", "none") == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        inner_slope = (1 - inner * inner) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return 0.5 * (1 + inner) + 0.5 * x * inner_slope
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    found: Array = 0.5 * (1 + erf(x / math.sqrt(2))) + x * density
    return found


def _swish_slope(node: Node, x: Array, y: Array) -> Array:
    alpha = node.get("alpha", 1.0)
    gate = sigmoid(alpha * x)
    found: Array = gate + alpha * x * gate * (1 - gate)
    return found


def _mish_slope(node: Node, x: Array, y: Array) -> Array:
    inner = np.tanh(softplus(x))
    found: Array = inner + x * (1 - inner * inner) * sigmoid(x)
    return found


def _hard_sigmoid(node: Node, x: Array) -> Array:
    found: Array = np.clip(node.get("alpha", 0.2) * x + node.get("beta", 0.5), 0, 1)
    return found


def _hard_sigmoid_slope(node: Node, x: Array, y: Array) -> Array:
    found: Array = node.get("alpha", 0.2) * ((y > 0) & (y < 1)).astype(x.dtype)
    return found


def _hard_swish(node: Node, x: Array) -> Array:
    return x * np.clip(x / 6 + 0.5, 0, 1)


def _hard_swish_slope(node: Node, x: Array, y: Array) -> Array:
    found: Array = np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1)).astype(x.dtype, copy=False)
    return found


def _elu(node: Node, x: Array) -> Array:
    return _below(x, node.get("alpha", 1.0) * np.expm1(np.minimum(x, 0)))


def _elu_slope(node: Node, x: Array, y: Array) -> Array:
    alpha = node.get("alpha", 1.0)
    return _below(np.ones_like(x), alpha * np.exp(np.minimum(x, 0)), x)


#: The two constants of ONNX's Selu (Klambauer and others, arXiv:1706.02515, equation 14).
_SELU = {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}


def _selu(node: Node, x: Array) -> Array:
    alpha, gamma = (node.get(name, default) for name, default in _SELU.items())
    found: Array = gamma * _below(x, alpha * np.expm1(np.minimum(x, 0)))
    return found


def _selu_slope(node: Node, x: Array, y: Array) -> Array:
    alpha, gamma = (node.get(name, default) for name, default in _SELU.items())
    found: Array = gamma * _below(np.ones_like(x), alpha * np.exp(np.minimum(x, 0)), x)
    return found


def _celu(node: Node, x: Array) -> Array:
    alpha = node.get("alpha", 1.0)
    return _below(x, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _celu_slope(node: Node, x: Array, y: Array) -> Array:
    return _below(np.ones_like(x), np.exp(np.minimum(x, 0) / node.get("alpha", 1.0)), x)


def _leaky(node: Node, x: Array) -> Array:
    return _below(x, node.get("alpha", 0.01) * x)


def _leaky_slope(node: Node, x: Array, y: Array) -> Array:
    return _below(np.ones_like(x), np.full_like(x, node.get("alpha", 0.01)), x)


def _thresholded(node: Node, x: Array) -> Array:
    found: Array = x * (x > node.get("alpha", 1.0))
    return found


def _shrink(node: Node, x: Array) -> Array:
    bound, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    found: Array = np.where(x < -bound, x + bias, np.where(x > bound, x - bias, 0))
    return found.astype(x.dtype, copy=False)


def _below(above: Array, below: Array, x: Array | None = None) -> Array:
    """`above` where x > 0, else `below`; x is `above` itself if it is not given."""
    found: Array = np.where((above if x is None else x) > 0, above, below)
    return found


# --- rows with more than one input ---


def _prelu(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x, slope = inputs
    return (np.where(x > 0, x, x * _aligned(node, slope, x)),)


def _prelu_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    x, slope = inputs
    (grad,) = grads
    aligned = _aligned(node, slope, x)
    by_slope = summed_to(np.where(x > 0, 0, x) * grad, aligned.shape).reshape(slope.shape)
    return np.where(x > 0, grad, grad * aligned), by_slope


def _aligned(node: Node, slope: Array, x: Array) -> Array:
    """The slope, ready to broadcast. Since version 7 it does so by itself; one value a channel, [C], is read
    along axis 1 where it fits no other way, as exporters of older models mean it.
    """
    fits = slope.ndim != 1 or x.ndim < 3 or slope.size == 1 or slope.size == x.shape[-1]
    if fits or slope.size != x.shape[1]:
        return slope
    return slope.reshape(-1, *(1,) * (x.ndim - 2))


def _bounds(node: Node, inputs: Values) -> tuple[Any, Any]:
    """Lower and upper bound of a Clip: inputs since version 11, before that attributes."""
    if node.opset < 11:
        return node.get("min"), node.get("max")
    return given(inputs, 1), given(inputs, 2)


def _clip(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    x = inputs[0]
    low, high = _bounds(node, inputs)
    found = x if low is None else np.maximum(x, low)
    found = found if high is None else np.minimum(found, high)
    return (np.asarray(found, x.dtype),)


def _clip_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """At a bound the gradient passes, as in PyTorch; the bounds, if they are inputs, get what is cut off."""
    x = inputs[0]
    (grad,) = grads
    low, high = _bounds(node, inputs)
    below = np.zeros(x.shape, bool) if low is None else x < low
    above = np.zeros(x.shape, bool) if high is None else np.maximum(x, -np.inf if low is None else low) > high
    found: list[Array | None] = [np.where(below | above, 0, grad).astype(x.dtype, copy=False)]
    for bound, cut in zip(inputs[1:], (below & ~above, above), strict=False):
        found.append(None if bound is None else np.asarray((grad * cut).sum(), x.dtype).reshape(bound.shape))
    return tuple(found)


def _swiglu(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """A swish(A) gates B."""
    a, b = inputs
    return (a * sigmoid(node.get("alpha", 1.0) * a) * b,)


def _swiglu_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    a, b = inputs
    (grad,) = grads
    swish = a * sigmoid(node.get("alpha", 1.0) * a)
    by_a = grad * b * _swish_slope(node, a, swish)
    return summed_to(by_a, a.shape), summed_to(grad * swish, b.shape)


# --- the rows ---


def _row(function: Function, slope: Slope, domain: Domain | None = None) -> Rule:
    """A function of one value and its slope."""

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        return (np.asarray(function(node, inputs[0])),)

    def backward(
        node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
    ) -> tuple[Array | None, ...]:
        return (np.asarray(grads[0] * slope(node, inputs[0], outputs[0])),)

    return Rule(forward, backward, domains=(domain or Domain(),))


def _kernel(
    function: Callable[[Array], Array], back: Callable[[Array, Array], Array], domain: Domain
) -> Rule:
    """A function that a compiled kernel may take over: its backward takes the gradient and y."""

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        return (function(inputs[0]),)

    def backward(
        node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
    ) -> tuple[Array | None, ...]:
        return (back(grads[0], outputs[0]),)

    return Rule(forward, backward, domains=(domain,))


def _flat(function: Callable[[Array], Array]) -> Rule:
    """A function that is constant between its jumps: no gradient passes."""

    def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
        return (np.asarray(function(inputs[0])),)

    return Rule(forward, None)


_KINK = Domain(kinks=(0.0,))
_OPEN_UNIT = Domain(-0.9, 0.9)

ROWS: dict[str, Rule] = {
    "Abs": _row(lambda node, x: np.abs(x), lambda node, x, y: np.sign(x), _KINK),
    "Acos": _row(lambda node, x: np.arccos(x), lambda node, x, y: -1 / np.sqrt(1 - x * x), _OPEN_UNIT),
    "Acosh": _row(lambda node, x: np.arccosh(x), lambda node, x, y: 1 / np.sqrt(x * x - 1), Domain(1.2, 4)),
    "Asin": _row(lambda node, x: np.arcsin(x), lambda node, x, y: 1 / np.sqrt(1 - x * x), _OPEN_UNIT),
    "Asinh": _row(lambda node, x: np.arcsinh(x), lambda node, x, y: 1 / np.sqrt(x * x + 1)),
    "Atan": _row(lambda node, x: np.arctan(x), lambda node, x, y: 1 / (1 + x * x)),
    "Atanh": _row(lambda node, x: np.arctanh(x), lambda node, x, y: 1 / (1 - x * x), _OPEN_UNIT),
    "Ceil": _flat(np.ceil),
    "Celu": _row(_celu, _celu_slope, _KINK),
    "Clip": Rule(
        _clip, _clip_backward, domains=(Domain(-2, 2, (-0.7, 0.9)), Domain(-0.7, -0.7), Domain(0.9, 0.9))
    ),
    "Cos": _row(lambda node, x: np.cos(x), lambda node, x, y: -np.sin(x)),
    "Cosh": _row(lambda node, x: np.cosh(x), lambda node, x, y: np.sinh(x)),
    "Elu": _row(_elu, _elu_slope, _KINK),
    "Erf": _row(lambda node, x: erf(x), lambda node, x, y: 2 / math.sqrt(math.pi) * np.exp(-x * x)),
    "Exp": _row(lambda node, x: np.exp(x), lambda node, x, y: y),
    "Floor": _flat(np.floor),
    "Gelu": _row(_gelu, _gelu_slope),
    "HardSigmoid": _row(_hard_sigmoid, _hard_sigmoid_slope, Domain(-4, 4, (-2.5, 2.5))),
    "HardSwish": _row(_hard_swish, _hard_swish_slope, Domain(-4, 4, (-3.0, 3.0))),
    "LeakyRelu": _row(_leaky, _leaky_slope, _KINK),
    "Log": _row(lambda node, x: np.log(x), lambda node, x, y: 1 / x, Domain(0.2, 3)),
    "Mish": _row(lambda node, x: x * np.tanh(softplus(x)), _mish_slope),
    "Neg": _row(lambda node, x: -x, lambda node, x, y: -np.ones_like(x)),
    "PRelu": Rule(_prelu, _prelu_backward, domains=(_KINK, Domain())),
    "Reciprocal": _row(lambda node, x: 1 / x, lambda node, x, y: -y * y, Domain(0.3, 3)),
    "Relu": _kernel(relu, relu_backward, _KINK),
    "Round": _flat(np.rint),
    "Selu": _row(_selu, _selu_slope, _KINK),
    "Shrink": _row(
        _shrink,
        lambda node, x, y: (np.abs(x) > node.get("lambd", 0.5)).astype(x.dtype),
        Domain(kinks=(-0.5, 0.5)),
    ),
    "Sigmoid": _kernel(sigmoid, sigmoid_backward, Domain()),
    "Sign": _flat(np.sign),
    "Sin": _row(lambda node, x: np.sin(x), lambda node, x, y: np.cos(x)),
    "Sinh": _row(lambda node, x: np.sinh(x), lambda node, x, y: np.cosh(x)),
    "Softplus": _row(lambda node, x: softplus(x), lambda node, x, y: sigmoid(x)),
    "Softsign": _row(lambda node, x: x / (1 + np.abs(x)), lambda node, x, y: 1 / (1 + np.abs(x)) ** 2),
    "Sqrt": _row(lambda node, x: np.sqrt(x), lambda node, x, y: 0.5 / y, Domain(0.2, 3)),
    "SwiGLU": Rule(_swiglu, _swiglu_backward),
    "Swish": _row(lambda node, x: x * sigmoid(node.get("alpha", 1.0) * x), _swish_slope),
    "Tan": _row(lambda node, x: np.tan(x), lambda node, x, y: 1 + y * y, Domain(-1.2, 1.2)),
    "Tanh": _kernel(tanh, tanh_backward, Domain()),
    "ThresholdedRelu": _row(
        _thresholded, lambda node, x, y: (x > node.get("alpha", 1.0)).astype(x.dtype), Domain(kinks=(1.0,))
    ),
}
