"""The path of a training plan, forward and backward: operations by their rules, reads by the tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.training.arrays import TrainedBank
from pcmc.errors import DataError
from pcmc.runtime.ops import table
from pcmc.runtime.ops.node import Context
from pcmc.runtime.trainer.plan import PathNode, ReadNode, TrainingPlan
from pcmc.runtime.trainer.vectors import (
    from_vectors,
    outputs_as_vectors,
    to_vectors,
    vectors_as_outputs,
)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OuterProduct:
    """What a read contributes to the update of its bank: -rate * sum over vectors of x d^T.

    `x` is float32 `[vectors, rows]`, `d` float32 `[vectors, cols]`, sample after sample.
    """

    bank: str
    x: Floats
    d: Floats


@dataclass(frozen=True, slots=True)
class Tape:
    """The values of one forward pass, by name of the tensor, and the vectors that went through banks."""

    values: Mapping[str, Array]
    vectors: Mapping[int, Floats]


def forward(
    plan: TrainingPlan,
    banks: Mapping[str, TrainedBank],
    biases: Mapping[str, Floats],
    feeds: Mapping[str, Array],
    context: Context,
) -> Tape:
    """Compute the path.

    Args:
        plan: the path.
        banks: its banks, by name.
        biases: what the digital unit adds to the columns of a bank, by name; `[cols]`.
        feeds: the boundary.
        context: training or not, and its random streams.

    Raises:
        DataError: an operation can't take the shape of its input.
    """
    values: dict[str, Array] = {**plan.constants, **feeds}
    vectors: dict[int, Floats] = {}
    for index, node in enumerate(plan.path):
        if isinstance(node, ReadNode):
            x = values[node.inputs[0]]
            bank = banks[node.bank].bank
            try:
                shape = node.how.output_shape(x.shape, bank.cols)
                vectors[index] = to_vectors(x, node.how, bank.rows)
            except (ValueError, IndexError) as error:
                raise DataError(
                    f"step '{node.step.name}': can't read '{node.bank}' for an input of shape "
                    f"{list(x.shape)}: {error}"
                ) from None
            y = bank.forward(vectors[index], evaluating=not context.training)
            if node.bank in biases:
                y += biases[node.bank]
            values[node.outputs[0]] = vectors_as_outputs(y, shape, node.how).astype(x.dtype, copy=False)
            continue
        inputs = [values[name] if name else None for name in node.inputs]
        results = table.forward(node, inputs, context)
        values.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name)
    return Tape(values, vectors)


def backward(
    plan: TrainingPlan,
    banks: Mapping[str, TrainedBank],
    tape: Tape,
    gradient: Array,
    context: Context,
) -> list[OuterProduct]:
    """Send the gradient of the logits back along the path.

    Args:
        plan: the path.
        banks: its banks.
        tape: the forward pass.
        gradient: shaped as the logits.
        context: as in the forward pass.

    Returns:
        an outer product for each read of a trained bank, in the order of the path.
    """
    gradients: dict[str, Array] = {plan.logits: gradient}
    products: list[OuterProduct] = []
    for index in range(len(plan.path) - 1, -1, -1):
        node = plan.path[index]
        incoming = [gradients.pop(name, None) for name in node.outputs]
        if all(part is None for part in incoming):
            continue
        if isinstance(node, ReadNode):
            arrived = incoming[0]
            assert arrived is not None
            back = _read_backward(plan, banks[node.bank], node, index, tape, arrived, products)
            _collect(gradients, plan, node, (back,))
            continue
        inputs = [tape.values[name] if name else None for name in node.inputs]
        outputs = [tape.values[name] if name else np.empty(0, np.float32) for name in node.outputs]
        _collect(gradients, plan, node, table.backward(node, inputs, outputs, incoming, context))
    products.reverse()
    return products


def _read_backward(
    plan: TrainingPlan,
    bank: TrainedBank,
    node: ReadNode,
    index: int,
    tape: Tape,
    gradient: Array,
    products: list[OuterProduct],
) -> Array | None:
    """The gradient of a read's input, None where nobody wants it; notes its outer product."""
    d = outputs_as_vectors(gradient, node.how, bank.bank.cols)
    if node.bank in plan.trained:
        products.append(OuterProduct(node.bank, tape.vectors[index], d))
    if node.inputs[0] not in plan.needed:
        return None
    x = tape.values[node.inputs[0]]
    back: Array = from_vectors(bank.bank.backward(d), x.shape, node.how)
    return back.astype(x.dtype, copy=False)


def _collect(
    gradients: dict[str, Array], plan: TrainingPlan, node: PathNode, parts: tuple[Array | None, ...]
) -> None:
    """Add the gradients of a node's inputs to what has arrived there from other nodes."""
    for name, part in zip(node.inputs, parts, strict=False):
        if part is None or name not in plan.needed:
            continue
        gradients[name] = gradients[name] + part if name in gradients else part
