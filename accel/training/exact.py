"""Cells that hold any weight and take any change exactly: float SGD."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.training.layout import Float32, Layout, restore_bank, state_arrays


class ExactCells:
    """A bank of ideal cells: w -= lr x d, exactly. Only the converters can have effects.

    See `pcmc.accel.training.arrays.TrainedBank`.
    """

    transfer_every = 0
    pull = 0.0
    leak_factor = 1.0

    def __init__(self, layout: Layout, weights: Float32, trainable: bool) -> None:
        self.trainable = trainable
        self.bank = layout.make_bank(np.array(weights, np.float32).ravel(), None)

    def leak(self, examples: int) -> None:
        """Nothing leaks."""

    def transfer(self, example: int, part: slice | None = None) -> None:
        """There is no second tier."""

    def read_out(self) -> Float32:
        """The weights [cells]."""
        return self.bank.weights.copy()

    def pair_only(self) -> Float32:
        """The weights [cells]: they are all that there is."""
        return self.bank.weights.copy()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What has changed since the start."""
        return state_arrays(self.bank)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo `arrays`."""
        restore_bank(self.bank, arrays)

    def counters(self) -> dict[str, int | float]:
        """Events of the kernel."""
        return dict(self.bank.counters)
