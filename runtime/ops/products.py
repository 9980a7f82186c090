"""Products of matrices: Gemm, MatMul, Einsum. Either factor may be a constant or come from the network."""

from __future__ import annotations

import numpy as np

from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Rule, Values, given, summed_to


def _gemm(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """The value alpha A B + beta C, either factor transposed if the attributes say so."""
    a, b = _gemm_factors(node, inputs)
    y = a @ b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    y = y if alpha == 1 else alpha * y
    c = given(inputs, 2)
    if c is not None:
        y = y + (c if beta == 1 else beta * c)
    return (y.astype(inputs[0].dtype, copy=False),)


def _gemm_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    a, b = _gemm_factors(node, inputs)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    (grad,) = grads
    scaled = grad if alpha == 1 else alpha * grad
    by_a = by_b = None
    if context.needs(node, 0):
        by_a = (scaled @ b.T).T if node.get("transA", 0) else scaled @ b.T
    if context.needs(node, 1):
        by_b = (a.T @ scaled).T if node.get("transB", 0) else a.T @ scaled
    if len(inputs) < 3:
        return by_a, by_b
    c = inputs[2]
    return by_a, by_b, None if c is None else beta * summed_to(grad, c.shape)


def _gemm_factors(node: Node, inputs: Values) -> tuple[Array, Array]:
    a, b = inputs[0], inputs[1]
    return a.T if node.get("transA", 0) else a, b.T if node.get("transB", 0) else b


def _matmul(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    return (np.asarray(inputs[0] @ inputs[1]),)


def _matmul_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """Vectors become matrices of one row or column first; axes ahead of the last two are broadcast."""
    a, b = inputs
    (grad,) = grads
    rows = a[None, :] if a.ndim == 1 else a
    cols = b[:, None] if b.ndim == 1 else b
    if b.ndim == 1:
        grad = grad[..., None]
    if a.ndim == 1:
        grad = grad[..., None, :]
    by_a = by_b = None
    if context.needs(node, 0):
        by_a = summed_to(grad @ np.swapaxes(cols, -1, -2), rows.shape).reshape(a.shape)
    if context.needs(node, 1):
        by_b = _by_right(rows, cols, grad).reshape(b.shape)
    return by_a, by_b


def _by_right(rows: Array, cols: Array, grad: Array) -> Array:
    """The gradient by the right factor; one matrix for all examples is a single product."""
    if cols.ndim == 2:
        found: Array = rows.reshape(-1, rows.shape[-1]).T @ grad.reshape(-1, grad.shape[-1])
        return found
    return summed_to(np.swapaxes(rows, -1, -2) @ grad, cols.shape)


def _einsum(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    terms, out = _terms(node, inputs)
    return (np.einsum(f"{','.join(terms)}->{out}", *inputs, optimize=True),)


def _einsum_backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """The gradient by one factor is the product of all others and the gradient, summed to its letters; a
    letter that is in no other term is repeated.
    """
    terms, out = _terms(node, inputs)
    found: list[Array | None] = []
    for index, (term, x) in enumerate(zip(terms, inputs, strict=True)):
        if len(set(term)) != len(term):
            fail(node, f"the term {term} takes a diagonal; no gradient rule is known for that")
        if not context.needs(node, index):
            found.append(None)
            continue
        others = [*terms[:index], *terms[index + 1 :], out]
        arrays = [*inputs[:index], *inputs[index + 1 :], grads[0]]
        known = "".join(letter for letter in term if any(letter in other for other in others))
        grad = np.einsum(f"{','.join(others)}->{known}", *arrays, optimize=True)
        shape = [grad.shape[known.index(letter)] if letter in known else 1 for letter in term]
        repeated = np.broadcast_to(grad.reshape(shape), np.broadcast_shapes(tuple(shape), x.shape))
        found.append(summed_to(repeated, x.shape))
    return tuple(found)


def _terms(node: Node, inputs: Values) -> tuple[list[str], str]:
    """The letters of each factor and of the result, an ellipsis written out in letters of its own."""
    equation = str(node.get("equation", "")).replace(" ", "")
    left, arrow, out = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(inputs):
        fail(node, f"the equation {equation} has {len(terms)} factors, the node {len(inputs)} inputs")
    free = [
        letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" if letter not in equation
    ]
    spans = [x.ndim - len(term.replace("...", "")) for term, x in zip(terms, inputs, strict=True)]
    most = max([span for term, span in zip(terms, spans, strict=True) if "..." in term], default=0)
    dots = "".join(free[:most])
    terms = [
        term.replace("...", dots[most - span :] if span else "")
        for term, span in zip(terms, spans, strict=True)
    ]
    if not arrow:
        letters = sorted(set("".join(terms)) - set(dots))
        once = [letter for letter in letters if "".join(terms).count(letter) == 1]
        return terms, dots + "".join(once)
    return terms, out.replace("...", dots)


ROWS: dict[str, Rule] = {
    "Einsum": Rule(_einsum, _einsum_backward),
    "Gemm": Rule(_gemm, _gemm_backward),
    "MatMul": Rule(_matmul, _matmul_backward),
}
