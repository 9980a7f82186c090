"""The fast path: a chain of matrices and element-wise operations is trained in one call of a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.training.arrays import TrainedBank
from pcmc.accel.training.chain import LOSSES, Chain
from pcmc.runtime.ops.node import Node
from pcmc.runtime.trainer.clock import Clock
from pcmc.runtime.trainer.plan import ReadNode, TrainingPlan
from pcmc.runtime.trainer.targets import Targets

Array = npt.NDArray[Any]

#: Operators that the kernel computes between two banks.
_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}


@dataclass(frozen=True, slots=True)
class FastPath:
    """A chain, and the boundary tensor that goes into it."""

    chain: Chain
    banks: tuple[TrainedBank, ...]
    boundary: str

    def fits(self, kept: Mapping[str, Array], targets: Targets) -> bool:
        """Whether the data are vectors in float32, and targets are what the kernel takes."""
        x = kept.get(self.boundary)
        rows = self.banks[0].bank.rows
        return x is not None and x.dtype == np.float32 and x.shape[1:] == (rows,) and targets.by_kernel

    def train(
        self,
        kept: Mapping[str, Array],
        targets: Targets,
        order: npt.NDArray[np.int64],
        rate: float,
        clock: Clock,
    ) -> tuple[float, int]:
        """Train on some examples one after the other; the sum of their losses, and how many were right."""
        x = np.ascontiguousarray(kept[self.boundary])
        pulls = [(bank.pull, bank.leak_factor) for bank in self.banks]
        loss, right = self.chain.train(
            x, targets.values, np.ascontiguousarray(order), rate, clock.examples, pulls
        )
        clock.leaked(len(order))
        return loss, right if targets.has_classes else 0


def find_chain(plan: TrainingPlan, banks: Mapping[str, TrainedBank], loss: str) -> FastPath | None:
    """The plan as a chain, if it is one.

    Each node takes the result of the one before it alone: reads of vectors, each of a bank of its own, with
    at most one activation behind each.
    """
    if len(plan.boundary) != 1 or loss not in LOSSES:
        return None
    names: list[str] = []
    activations: list[str] = []
    tensor = plan.boundary[0]
    for node in plan.path:
        if tuple(name for name in node.inputs if name and name not in plan.constants) != (tensor,):
            return None
        if isinstance(node, ReadNode):
            if node.how.kind != "dense" or node.how.vector_output or node.bank in names:
                return None
            names.append(node.bank)
            activations.append("none")
        elif not _follows(node, activations):
            return None
        tensor = node.outputs[0]
    if tensor != plan.logits or not names:
        return None
    chained = tuple(banks[name] for name in names)
    chain = Chain(
        [bank.bank for bank in chained],
        activations,
        loss,
        trainable=[bank.trainable for bank in chained],
    )
    return FastPath(chain, chained, plan.boundary[0])


def _follows(node: Node, activations: list[str]) -> bool:
    """Whether the kernel can do a node after the last bank; notes its activation."""
    if node.domain or not activations:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type not in _ACTIVATIONS or activations[-1] != "none":
        return False
    activations[-1] = _ACTIVATIONS[node.op_type]
    return True
