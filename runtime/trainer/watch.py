"""What goes on beside the steps of a training: it tells where it is, keeps its state, and notices Ctrl-C."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError
from pcmc.runtime.trainer.progress import Progress

Array = npt.NDArray[Any]


class Watch:
    """Asked between two parts of an epoch.

    Args:
        interrupted: says whether the training should end.
        save: writes the state; None: nobody keeps it.
        every: seconds from one writing to the next within an epoch.
        on_progress: is told where training is; None: nobody is.
    """

    def __init__(
        self,
        interrupted: Callable[[], bool],
        save: Callable[[], None] | None = None,
        every: float = 60.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.interrupted = interrupted
        self.on_progress = on_progress
        self._save, self._every = save, every
        self._saved = time.monotonic()

    def keep(self) -> None:
        """Write the state, if it is kept."""
        if self._save is not None:
            self._save()
            self._saved = time.monotonic()

    def keep_if_due(self) -> None:
        """Write the state if that was long ago."""
        if time.monotonic() - self._saved >= self._every:
            self.keep()


def data_hash(feeds: Mapping[str, Array], targets: Array) -> str:
    """SHA-256 of a data set: names, types, shapes and values of its arrays."""
    digest = hashlib.sha256()
    for name, array in (*sorted(feeds.items()), ("", targets)):
        digest.update(repr((name, array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).data)
    return digest.hexdigest()


def check_same_data(resumed: str, found: str) -> None:
    """DataError if a training would go on with other data than those of its checkpoint ("": it kept none)."""
    if resumed and resumed != found:
        raise DataError(
            "these are other training examples than those of the checkpoint: give the same, in the same order"
        )
