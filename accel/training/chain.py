"""Banks one after the other with activations between, trained with one example at a time in one call.

    chain = Chain(banks, ("tanh", "tanh", "none"), "cross_entropy")
    loss, right = chain.train(x, labels, order, lr=0.01)
    y = chain.predict(x)

A chain does what these functions do bank by bank, to the bit: forward through all banks, `activate` behind
each; `loss_and_grad`; from the last bank down `activate_backward`, then `backward`, as far as there is a
trainable bank before; then the update of all trainable banks, from the first on; a leak at each multiple of
LEAK_EVERY examples. Definitions, z being the last output, the loss of one vector:

    cross_entropy   -sum_j t_j log softmax(z)_j
    mse             mean_j (z_j - t_j)^2
    bce             mean_j log(1 + exp(z_j)) - t_j z_j       z are logits: the last activation is "none"
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.training.bank import Floats, Ints, TrainingBank, kernels

ACTIVATIONS = ("none", "relu", "tanh", "sigmoid")
LOSSES = ("cross_entropy", "mse", "bce")

_NO_INTS = np.zeros(0, np.int64)
_NO_TARGETS = np.zeros((0, 0), np.float32)


def activate(kind: str, x: Floats) -> Floats:
    """f(x), float32 of any shape; f is one of ACTIVATIONS."""
    _one_of("an activation", kind, ACTIVATIONS)
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty_like(x)
    kernels().activate(kind, x.reshape(-1), out.reshape(-1))
    return out


def activate_backward(kind: str, y: Floats, dy: Floats) -> Floats:
    """Derivatives dy * f'(x), float32 of any shape, given y = f(x)."""
    _one_of("an activation", kind, ACTIVATIONS)
    y, dy = np.ascontiguousarray(y, np.float32), np.ascontiguousarray(dy, np.float32)
    if y.shape != dy.shape:
        raise ValueError(f"outputs are {y.shape}, their derivatives {dy.shape}")
    out = np.empty_like(y)
    kernels().activate_backward(kind, y.reshape(-1), dy.reshape(-1), out.reshape(-1))
    return out


def loss_and_grad(kind: str, z: Floats, targets: Floats | Ints) -> tuple[Floats, Floats]:
    """Loss of each vector, float32 [vectors], and its derivative by z, float32 [vectors, cols].

    Args:
        kind: one of LOSSES; the module says what they are.
        z: float32 [vectors, cols].
        targets: float32 [vectors, cols], or class numbers, int64 [vectors]; with one column these are 0 or 1.
    """
    _one_of("a loss", kind, LOSSES)
    z = np.ascontiguousarray(z, np.float32)
    labels, wanted = _targets(targets, len(z), z.shape[1])
    loss, grad = np.empty(len(z), np.float32), np.empty_like(z)
    kernels().loss_and_grad(kind, z, labels, wanted, loss, grad)
    return loss, grad


class Chain:
    """Banks that feed each other.

    Args:
        banks: each has as many rows as the one before has columns.
        activations: one of ACTIVATIONS behind each bank.
        loss: one of LOSSES.
        trainable: False for a bank that is read both ways, but not updated and does not leak; None: all are
            trainable.

    Raises:
        ValueError: banks, activations and flags do not fit together.
    """

    __slots__ = ("activations", "banks", "loss", "trainable")

    def __init__(
        self,
        banks: Sequence[TrainingBank],
        activations: Sequence[str],
        loss: str,
        trainable: Sequence[bool] | None = None,
    ) -> None:
        self.banks, self.activations, self.loss = tuple(banks), tuple(activations), loss
        self.trainable = (True,) * len(banks) if trainable is None else tuple(bool(one) for one in trainable)
        if not banks or not len(banks) == len(self.activations) == len(self.trainable):
            raise ValueError(
                f"a chain of {len(banks)} banks has {len(self.activations)} activations and "
                f"{len(self.trainable)} flags"
            )
        for before, after in zip(self.banks[:-1], self.banks[1:], strict=True):
            if before.cols != after.rows:
                raise ValueError(f"a bank of {before.cols} columns feeds one of {after.rows} rows")
        for kind in self.activations:
            _one_of("an activation", kind, ACTIVATIONS)
        _one_of("a loss", loss, LOSSES)

    def train(
        self,
        x: Floats,
        targets: Floats | Ints,
        order: Ints,
        lr: float,
        first_example: int = 0,
        pulls: Sequence[tuple[float, float]] | None = None,
    ) -> tuple[float, int]:
        """Train with x[i] for each i of `order`, one at a time.

        Args:
            x: float32 [examples, rows of the first bank].
            targets: float32 [examples, cols of the last bank], or class numbers, int64 [examples].
            order: int64 [n], indices of examples.
            lr: learning rate.
            first_example: how many examples came before; the leak is applied where the count becomes a
                multiple of LEAK_EVERY.
            pulls: for each bank the `pull` of its first leak here, and what it is multiplied with after each
                leak (in float64); None: no pull.

        Returns:
            Sum of the losses, each before its update, and how many examples were right: the largest output
            where the largest target is (with one column: on the same side of 1/2, of 0 for logits).
        """
        x = _rows(x, self.banks[0].rows)
        labels, wanted = _targets(targets, len(x), self.banks[-1].cols)
        order = np.ascontiguousarray(order, np.int64)
        if order.ndim != 1 or (order.size and not 0 <= order.min() <= order.max() < len(x)):
            raise ValueError(f"an order of examples should be of one dimension and within {len(x)} examples")
        if not 0 <= lr < np.inf:
            raise ValueError(f"a learning rate is {lr}, should be finite and not negative")
        table: NDArray[np.float64] = np.array(pulls or [(0.0, 1.0)] * len(self.banks), np.float64)
        if table.shape != (len(self.banks), 2):
            raise ValueError(f"pulls have the shape {table.shape}, should have {(len(self.banks), 2)}")
        loss, right = kernels().train(
            [bank.kernel for bank in self.banks], self.activations, self.loss, self.trainable, x, labels,
            wanted, order, float(lr), int(first_example), table,
        )  # fmt: skip
        return float(loss), int(right)

    def predict(self, x: Floats) -> Floats:
        """Outputs for x, float32 [examples, rows of the first bank]; training goes on as if it was not."""
        for bank, kind in zip(self.banks, self.activations, strict=True):
            x = activate(kind, bank.forward(x, evaluating=True))
        return x


def _rows(x: Floats, width: int) -> Floats:
    if x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"an input is {x.dtype} {x.shape}, should be float32 [examples, {width}]")
    return np.ascontiguousarray(x)


def _targets(targets: Floats | Ints, vectors: int, cols: int) -> tuple[Ints, Floats]:
    """Labels or wanted outputs as the kernels take them; the other is empty."""
    if targets.dtype.kind in "iu" and targets.shape == (vectors,):
        labels = np.ascontiguousarray(targets, np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < max(cols, 2):
            raise ValueError(
                f"labels are {labels.min()} to {labels.max()}, should be 0 to {max(cols, 2) - 1}"
            )
        return labels, _NO_TARGETS
    if targets.dtype != np.float32 or targets.shape != (vectors, cols):
        raise ValueError(
            f"targets are {targets.dtype} {targets.shape}, should be int64 ({vectors},) or float32 "
            f"{(vectors, cols)}"
        )
    return _NO_INTS, np.ascontiguousarray(targets)


def _one_of(what: str, kind: str, kinds: tuple[str, ...]) -> None:
    if kind not in kinds:
        raise ValueError(f"{what} is {kind!r}, should be one of {', '.join(kinds)}")
