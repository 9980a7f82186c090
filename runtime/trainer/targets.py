"""What a network should answer: labels or values, checked once against what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.training.chain import LOSSES, loss_and_grad
from pcmc.errors import DataError
from pcmc.runtime.ops.losses import Loss

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets of a data set: `values` are int64 labels `[n]`, or values shaped as the outputs."""

    values: Array
    loss: Loss
    has_classes: bool
    by_kernel: bool

    def __len__(self) -> int:
        return len(self.values)

    def of(self, indices: npt.NDArray[np.int64]) -> Array:
        """Those of some examples."""
        found: Array = self.values[indices]
        return found

    def loss_and_grad(self, logits: Array, wanted: Array) -> tuple[Array, Array]:
        """The loss of each example, and the gradient of each one's own."""
        if self.by_kernel:
            return loss_and_grad(self.loss.name, np.ascontiguousarray(logits), wanted)
        return self.loss.value_and_grad(logits, wanted)

    def right(self, logits: Array, wanted: Array) -> int:
        """How many answers are right: the largest output is the label's; 0 where there are no classes."""
        if not self.has_classes:
            return 0
        labels = wanted if wanted.dtype.kind in "iu" else wanted.argmax(axis=1)
        return int(np.count_nonzero(logits.argmax(axis=1) == labels))


def check_targets(y: Array, n: int, logits: Array, loss: Loss) -> Targets:
    """The targets of `n` examples.

    Args:
        y: labels `[n]` or values, as the loss takes them.
        n: how many examples there are.
        logits: what the network gives for the first of them, `[1, ...]`.
        loss: which loss.

    Raises:
        DataError: another number of targets, or targets that do not fit the network's output; the message
            names the first that is wrong.
    """
    y = np.asarray(y)
    if y.ndim == 0 or len(y) != n:
        raise DataError(
            f"there are {n:,} examples, but targets of shape {list(y.shape)}: one for each is needed"
        )
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    if loss.classes and y.dtype.kind == "f" and y.ndim == 1 and (y == np.floor(y)).all():
        y = y.astype(np.int64)  # labels that some tool wrote as floats
    if loss.classes and y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind in "iu":
        y = y[:, 0]
    if loss.classes and y.dtype.kind in "iu" and y.ndim == 1 and logits.ndim == 2:
        _check_labels(y, logits.shape[1])
        values: Array = y.astype(np.int64)
    else:
        same = np.broadcast_to(logits, (n, *logits.shape[1:]))
        loss.value_and_grad(same, y)
        values = y if y.dtype.kind in "iu" and loss.classes and y.shape != same.shape else _shaped(y, same)
    labels = values.dtype.kind in "iu"
    by_kernel = (
        loss.name in LOSSES  # of the kernels, for [n, cols] in float32: as on the fast path
        and logits.dtype == np.float32
        and logits.ndim == 2
        and labels == (loss.name == "cross_entropy")
    )
    return Targets(values, loss, loss.classes and logits.ndim == 2, by_kernel)


def _shaped(y: Array, like: Array) -> Array:
    return np.ascontiguousarray(y, np.float32).reshape(like.shape)


def _check_labels(labels: Array, classes: int) -> None:
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(
            f"label {int(labels[wrong[0]])} of example {int(wrong[0]):,} is out of range: the model has "
            f"{classes} classes, 0 to {classes - 1}"
        )
