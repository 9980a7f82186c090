"""Losses: the value for each example, and the gradient of each example's own loss by the model's output.

An example is one entry along the first axis. What an example has besides its classes (the pixels of a
segmentation, the values of a regression) is averaged, so that the mean of the losses over a batch is what
PyTorch's `reduction="mean"` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pcmc.errors import DataError
from pcmc.runtime.ops.activations import sigmoid
from pcmc.runtime.ops.node import Array

#: Probabilities below this count as this: a loss stays finite. (PyTorch clips the logarithm at -100, which no
#: float32 probability reaches; the smallest normal float32 is what this is.)
SMALLEST = float(np.finfo(np.float32).tiny)

LossOf = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss under its name.

    `of(outputs, targets)` takes arrays that were checked; call `value_and_grad`.
    """

    name: str
    of: LossOf
    classes: (
        bool  # targets are class labels (or probabilities of the classes), not values of the output's shape
    )
    probabilities: bool  # targets lie in [0, 1]

    def value_and_grad(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """The loss of each example [n], and the gradient of each example's own loss [n, ...].

        `outputs` is [n, ...], float32 or float64 (float16 is computed in float32); for class losses
        [n, classes, ...]. `targets` has the shape of the outputs, or for class losses is whole-number labels
        [n, ...] without the axis of classes. Neither result is divided by n. Raises DataError for targets of
        the wrong shape or type, labels out of range, and values that are not finite.
        """
        outputs = np.asarray(outputs)
        wide = outputs.astype(np.float32) if outputs.dtype == np.float16 else outputs
        if wide.dtype.kind != "f":
            raise DataError(f"{self.name}: the model's output is {wide.dtype}; a loss needs floating point")
        if wide.ndim == 0:
            raise DataError(f"{self.name}: the model's output is one number, without an axis of examples")
        if not np.isfinite(wide).all():
            raise DataError(
                f"{self.name}: the model's output has values that are not finite (NaN or infinity)"
            )
        checked = self._class_targets(wide, targets) if self.classes else self._values(wide, targets)
        losses, grad = self.of(wide, checked)
        return losses, grad.astype(outputs.dtype, copy=False)

    def _class_targets(self, outputs: Array, targets: Array) -> Array:
        """Probabilities of the classes, of the outputs' shape; labels become one-hot."""
        if outputs.ndim < 2:
            raise DataError(f"{self.name}: the output needs [n, classes, ...], it is {list(outputs.shape)}")
        targets = np.asarray(targets)
        labels_shape = (outputs.shape[0], *outputs.shape[2:])
        if targets.dtype.kind in "iu" and targets.shape == labels_shape:
            return _one_hot(self.name, targets, outputs)
        if targets.dtype.kind == "f" and targets.shape == outputs.shape:
            return self._values(outputs, targets)
        if targets.dtype.kind in "iub" and targets.shape == outputs.shape:
            return self._values(outputs, targets.astype(outputs.dtype))
        raise DataError(
            f"{self.name}: targets are {targets.dtype} {list(targets.shape)}; for an output of "
            f"{list(outputs.shape)} give whole-number labels {list(labels_shape)} or probabilities "
            f"{list(outputs.shape)}"
        )

    def _values(self, outputs: Array, targets: Array) -> Array:
        """Targets in the outputs' type and shape; [n] stands for [n, 1]."""
        targets = np.asarray(targets)
        if targets.dtype.kind not in "fiub":
            raise DataError(f"{self.name}: targets are {targets.dtype}; numbers are needed")
        if targets.shape != outputs.shape:
            column = outputs.shape == (*targets.shape, 1)
            if not column:
                raise DataError(
                    f"{self.name}: targets have shape {list(targets.shape)}, the output {list(outputs.shape)}"
                )
            targets = targets.reshape(outputs.shape)
        found = targets.astype(outputs.dtype)
        if not np.isfinite(found).all():
            raise DataError(f"{self.name}: targets have values that are not finite (NaN or infinity)")
        if self.probabilities and found.size and (found.min() < 0 or found.max() > 1):
            raise DataError(
                f"{self.name}: targets go from {found.min():g} to {found.max():g}; "
                "probabilities lie in [0, 1]"
            )
        return found


def _one_hot(name: str, labels: Array, outputs: Array) -> Array:
    classes = outputs.shape[1]
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = int(labels[(labels < 0) | (labels >= classes)].flat[0])
        raise DataError(f"{name}: label {wrong} is out of range; the output has classes 0 to {classes - 1}")
    target = np.zeros_like(outputs)
    np.put_along_axis(target, np.expand_dims(labels.astype(np.int64), 1), 1, axis=1)
    return target


def _per_example(values: Array) -> tuple[Array, int]:
    """The mean of everything that an example has, and how much that is."""
    count = int(np.prod(values.shape[1:]))
    mean: Array = values.reshape(values.shape[0], count).sum(axis=1) / count
    return mean.astype(values.dtype, copy=False), count


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def _cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """-sum(target * log softmax(logits)); gradient softmax * sum(target) - target."""
    log_p = _log_softmax(logits)
    losses, count = _per_example(-(target * log_p).sum(axis=1))
    return losses, (np.exp(log_p) * target.sum(axis=1, keepdims=True) - target) / count


def _nll(probabilities: Array, target: Array) -> tuple[Array, Array]:
    """-sum(target * log p), of outputs that are probabilities; below SMALLEST it is flat in value, and the
    gradient is that at SMALLEST, so that a class given up for certain can come back.
    """
    clipped = np.maximum(probabilities, SMALLEST)
    losses, count = _per_example(-(target * np.log(clipped)).sum(axis=1))
    return losses, -target / clipped / count


def _nll_log(log_p: Array, target: Array) -> tuple[Array, Array]:
    """-sum(target * log_p), of outputs that are log-probabilities."""
    losses, count = _per_example(-(target * log_p).sum(axis=1))
    return losses, -target / count


def _mse(outputs: Array, target: Array) -> tuple[Array, Array]:
    difference = outputs - target
    losses, count = _per_example(difference * difference)
    return losses, 2 * difference / count


def _bce(logits: Array, target: Array) -> tuple[Array, Array]:
    """-(t log s(x) + (1 - t) log(1 - s(x))), written so that no large logit overflows."""
    terms = np.maximum(logits, 0) - logits * target + np.log1p(np.exp(-np.abs(logits)))
    losses, count = _per_example(terms)
    return losses, (sigmoid(logits) - target) / count


def _bce_probabilities(p: Array, target: Array) -> tuple[Array, Array]:
    yes, no = np.maximum(p, SMALLEST), np.maximum(1 - p, SMALLEST)
    losses, count = _per_example(-(target * np.log(yes) + (1 - target) * np.log(no)))
    return losses, ((1 - target) / no - target / yes) / count


#: By name: on logits, "cross_entropy" and "bce"; on what a final Softmax, LogSoftmax or Sigmoid gives, "nll",
#: "nll_log" and "bce_probabilities"; "mse".
LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            Loss("cross_entropy", _cross_entropy, classes=True, probabilities=True),
            Loss("nll", _nll, classes=True, probabilities=True),
            Loss("nll_log", _nll_log, classes=True, probabilities=True),
            Loss("mse", _mse, classes=False, probabilities=False),
            Loss("bce", _bce, classes=False, probabilities=True),
            Loss("bce_probabilities", _bce_probabilities, classes=False, probabilities=True),
        )
    }
)
