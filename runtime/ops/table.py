"""The table of operators: one row for each that training knows, forward and backward.

A row whose backward is None is an operator that no gradient passes (Shape, ArgMax, comparisons): the row says
so. An operator without a row can't lie on a path that is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pcmc.runtime.ops import (
    activations,
    arithmetic,
    casting,
    constants,
    convolution,
    dropout,
    indexing,
    normalization,
    pooling,
    products,
    reductions,
    resizing,
    shapes,
    softmax,
)
from pcmc.runtime.ops.node import Array, Context, Node, fail
from pcmc.runtime.ops.rule import Domain, Rule, Values, computed

__all__ = ["RULES", "Domain", "Rule", "backward", "forward", "rule"]

#: Operators of the default domain, by name.
RULES: Mapping[str, Rule] = MappingProxyType(
    dict(
        sorted(
            {
                **casting.ROWS,
                **constants.ROWS,
                **computed(
                    {
                        **activations.ROWS,
                        **arithmetic.ROWS,
                        **convolution.ROWS,
                        **dropout.ROWS,
                        **indexing.ROWS,
                        **normalization.ROWS,
                        **pooling.ROWS,
                        **products.ROWS,
                        **reductions.ROWS,
                        **resizing.ROWS,
                        **shapes.ROWS,
                        **softmax.ROWS,
                    }
                ),
            }.items()
        )
    )
)


def rule(node: Node) -> Rule:
    """The row of the node's operator. Raises ModelError, which names the node, if there is none."""
    if node.domain not in ("", "ai.onnx"):
        fail(node, f"operators of the domain {node.domain} have no training rule; only ONNX's own have")
    row = RULES.get(node.op_type)
    if row is None:
        fail(
            node,
            f"{node.op_type} has no training rule, so no gradient passes this node; train only what comes "
            "after it, or express it by other operators",
        )
    return row


def forward(node: Node, inputs: Values, context: Context) -> tuple[Array, ...]:
    """All outputs of the node. Raises ModelError, which names it, if its operator has no rule."""
    return rule(node).forward(node, inputs, context)


def backward(
    node: Node, inputs: Values, outputs: Values, grads: Values, context: Context
) -> tuple[Array | None, ...]:
    """The gradient by each input, None where it is zero; `grads` is that by each output, None where zero.

    Raises ModelError, which names the node, if its operator has no rule.
    """
    row = rule(node)
    if row.backward is None or all(grad is None for grad in grads):
        return (None,) * len(inputs)
    found = row.backward(node, inputs, outputs, grads, context)
    return tuple(
        grad if value is not None and value.dtype.kind == "f" else None
        for grad, value in zip(found, inputs, strict=True)
    )
