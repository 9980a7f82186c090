"""What training says of itself: while it runs, after each epoch, and in the end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from pcmc.errors import OutputError

Ended: TypeAlias = Literal["done", "no progress", "interrupted", "diverged"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean loss over some examples, and the share of right answers (None where there are no classes)."""

    loss: float
    accuracy: float | None
    examples: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is: `examples` of `of` in the epoch, mean loss and accuracy of the epoch so far, and
    the time in s since the start and till the end of all epochs.
    """

    epoch: int
    epochs: int
    examples: int
    of: int
    loss: float
    accuracy: float | None
    seconds: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that is over. Losses and accuracies of training are those met on the way, each example before
    its update; those of validation are of the weights at the end.
    """

    epoch: int
    rate: float
    loss: float
    accuracy: float | None
    validation: Evaluation | None
    seconds: float
    counters: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as a line of the log has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class History:
    """The epochs of a training; `stopped` says why it ended before all of them, "" if it did not, and `ended`
    says the same in a word.
    """

    epochs: tuple[Epoch, ...]
    stopped: str = ""
    ended: Ended = "done"

    @property
    def last(self) -> Epoch | None:
        """The last epoch that was finished."""
        return self.epochs[-1] if self.epochs else None


def append_line(path: str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
    """Add a line of JSON to a log; numbers that are not finite become null.

    Raises:
        OutputError: the file can't be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(dict(facts)), allow_nan=False) + "\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{os.fspath(path)}: the log can't be written: {reason}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
