"""The front of a network in training: what no trained weight reaches, run as in a `Session`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.physics import Physics
from pcmc.errors import DataError, ModelError
from pcmc.runtime.program import Program
from pcmc.runtime.session import Session, check_input
from pcmc.runtime.trainer.plan import TrainingPlan

Array = npt.NDArray[Any]

#: Features of all examples are kept where they need no more than this; else they are computed anew each time.
KEPT_BYTES = 2 << 30
_CHUNK = 256


class Front:
    """Gives the boundary tensors of a plan for any examples of a data set.

    What the front gives for an example does not change while the path behind is trained, so it is computed
    once where memory allows and where no noise is new at each read.

    Args:
        program: the whole program.
        plan: its plan.
        physics: effects of the front's reads.
        seed: names their random streams.
        threads: of its kernels.

    Raises:
        ModelError: a batch dimension that is fixed, and not at 1.
    """

    def __init__(
        self, program: Program, plan: TrainingPlan, physics: Physics, seed: int, threads: int
    ) -> None:
        self.boundary = plan.boundary
        self.fixed = _fixed_batch(program)
        self._inputs = program.inputs
        self._noisy = physics.fast_part is not None and bool(plan.front and plan.front.banks)
        self._session = None
        if plan.front is not None:
            self._session = Session(plan.front, physics, seed=seed, threads=threads)
        self._made = () if plan.front is None else tuple(info.name for info in plan.front.outputs)
        # Boundary tensors that depend on the size of the batch alone, by that size.
        self._shared: dict[int, dict[str, Array]] = {}

    def checked(self, x: Array | Mapping[str, Array]) -> dict[str, Array]:
        """The inputs of a data set by name, as many examples in each.

        Raises:
            DataError: a missing or unknown input, a wrong type or shape, no examples, or values that are not
                finite.
        """
        names = [info.name for info in self._inputs]
        if not isinstance(x, Mapping):
            if len(names) != 1:
                raise DataError(
                    f"the model has {len(names)} inputs ({', '.join(names)}): give a dict by name"
                )
            x = {names[0]: x}
        unknown = sorted(set(x) - set(names))
        if unknown:
            raise DataError(f"there is no input '{unknown[0]}'; the model has {', '.join(names)}")
        feeds = {name: np.asarray(array) for name, array in x.items()}
        for info in self._inputs:
            array = feeds.get(info.name)
            if array is not None and array.ndim and not len(array):
                raise DataError(f"input '{info.name}' is empty: there are no examples to train on")
            sample = feeds if array is None or not self.fixed or not array.ndim else {info.name: array[:1]}
            check_input(info, sample)
            if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"input '{info.name}' has values that are not finite (NaN or infinite)")
        if len({len(array) for array in feeds.values()}) > 1:
            sizes = ", ".join(f"'{name}' {len(array):,}" for name, array in feeds.items())
            raise DataError(f"inputs have different numbers of examples: {sizes}")
        return feeds

    def kept(self, feeds: Mapping[str, Array]) -> dict[str, Array] | None:
        """Per-example boundary tensors of all examples, `[n, ...]` each; None where they are not kept."""
        if self._session is None:
            return {name: feeds[name] for name in self.boundary}
        if self._noisy:
            return None
        n = len(next(iter(feeds.values())))
        probe = 1 if self.fixed else min(2, n)
        first = self._run(feeds, np.arange(probe))
        mine = [name for name in self.boundary if name not in self.shared(feeds, 1)]
        size = sum(first[name].nbytes for name in mine) / probe * n
        if size > KEPT_BYTES:
            return None
        step = 1 if self.fixed else _CHUNK
        parts = [self._run(feeds, np.arange(i, min(n, i + step))) for i in range(0, n, step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in mine}

    def shared(self, feeds: Mapping[str, Array], size: int) -> dict[str, Array]:
        """Boundary tensors that are the same for all batches of a size: shapes, for example."""
        if self._session is None:
            return {}
        if size not in self._shared:
            n = len(next(iter(feeds.values())))
            found = self._run(feeds, np.arange(size) % n)
            single = found if size == 1 else self._run(feeds, np.zeros(1, np.int64))
            self._shared[size] = {
                name: value for name, value in found.items() if _is_shared(value, single[name], size)
            }
        return self._shared[size]

    def batch(
        self, feeds: Mapping[str, Array], kept: Mapping[str, Array] | None, indices: npt.NDArray[np.int64]
    ) -> dict[str, Array]:
        """The boundary tensors of some examples, together one batch."""
        if kept is None:
            return self._run(feeds, indices)
        values = {name: array[indices] for name, array in kept.items()}
        return values | self.shared(feeds, len(indices))

    def _run(self, feeds: Mapping[str, Array], indices: Sequence[int] | npt.NDArray[Any]) -> dict[str, Array]:
        batch = {name: array[indices] for name, array in feeds.items()}
        if self._session is None:
            return {name: batch[name] for name in self.boundary}
        made = dict(zip(self._made, self._session.run(None, batch), strict=True))
        return {name: made[name] if name in made else batch[name] for name in self.boundary}


def _is_shared(value: Array, single: Array, size: int) -> bool:
    """Whether a tensor belongs to a batch and not to its examples: whole numbers without an axis of them."""
    if value.dtype.kind == "f":
        return False
    per_example = value.ndim > 0 and len(value) == size and value.shape[1:] == single.shape[1:]
    return not per_example or value.ndim <= 1


def _fixed_batch(program: Program) -> bool:
    """Whether the model takes one example at a time."""
    for info in program.inputs:
        if info.shape and isinstance(info.shape[0], int):
            if info.shape[0] != 1:
                raise ModelError(
                    f"{program.name}: input '{info.name}' has a fixed batch of {info.shape[0]}: export the "
                    "model with an open batch dimension, or with a batch of 1"
                )
            return True
    return False
