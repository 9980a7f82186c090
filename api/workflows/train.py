"""Train a model on the chip: from an .onnx file and data to a trained .onnx file, and what it came to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError, OutputError

if TYPE_CHECKING:
    from pcmc.runtime.program import Program
    from pcmc.runtime.trainer.progress import Epoch, History, Progress
    from pcmc.runtime.trainer.trainer import Trainer

Array = npt.NDArray[Any]
Data = tuple[Any, Array]
HEAD = "head"
_BATCH = 256


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training came to.

    `history` has the epochs. Of the test data, or the training data where there are none: `on_chip`, the
    accuracy of the weights as the chip reads them in training; `exported`, that of the weights as they are
    read out, in onnxruntime; `pair_alone`, of the pairs of PCM devices without the low tier (None: the cells
    have one tier); each None where there are no classes. `counters` are by bank.
    """

    history: History
    samples: int
    on_chip: float | None
    exported: float | None
    pair_alone: float | None
    counters: Mapping[str, Mapping[str, float]]
    examples: int
    fast: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain data, what `--json` prints."""
        return {
            "epochs": [epoch.as_dict() for epoch in self.history.epochs],
            "stopped": self.history.stopped,
            "ended": self.history.ended,
            "samples": self.samples,
            "accuracy_on_chip": self.on_chip,
            "accuracy_exported": self.exported,
            "accuracy_pair_alone": self.pair_alone,
            "counters": {name: dict(counts) for name, counts in self.counters.items()},
            "examples": self.examples,
            "fast_path": self.fast,
        }


def model_with_head(
    source: Path, classes: int | None, after: str | None, seed: int, folder: str | os.PathLike[str]
) -> Path:
    """The model file, or one in `folder` with a new head of so many classes.

    Raises:
        DataError: a place for a head, but no head.
    """
    if classes is None:
        if after is not None:
            raise DataError(f"--head-after {after}: needs --head N, the number of classes of the new head")
        return source
    from pcmc.compiler.head import with_head
    from pcmc.runtime.export import write_model

    path = Path(folder) / source.name
    write_model(with_head(source, classes, after, seed), path)
    return path


def check_target(target: Path) -> None:
    """OutputError if a file could not be written in the end: found out before hours of training."""
    if target.is_dir():
        raise OutputError(f"{target}: is a folder: give the name of a file")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise OutputError(f"{target}: can't be written: {error.strerror or error}") from None


def run_training(
    trainer: Trainer,
    train: Data,
    test: Data | None,
    epochs: int,
    *,
    patience: int = 10,
    log: Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 60.0,
    on_progress: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainingResult:
    """Train, then measure what came of it; arguments as of `Trainer.fit`.

    Raises:
        DataError: the loss was not finite any more, so that there is nothing to measure.
    """
    history = trainer.fit(
        *train,
        epochs=epochs,
        validation=test,
        patience=patience,
        log=log,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        on_progress=on_progress,
        on_epoch=on_epoch,
    )
    if history.ended == "diverged":
        kept = checkpoint is not None and checkpoint.exists()
        raise DataError(f"{history.stopped}; no model is written" + f", {checkpoint} is as before" * kept)
    x, y = test or train
    measured = trainer.evaluate(x, y)
    exported = pair = None
    if measured.accuracy is not None:
        exported = _accuracy(trainer.program, x, y)
        alone = trainer.pair_program()
        pair = None if alone is None else _accuracy(alone, x, y)
    return TrainingResult(
        history,
        measured.examples,
        measured.accuracy,
        exported,
        pair,
        trainer.counters(),
        trainer.examples,
        trainer.is_fast,
    )


def _accuracy(program: Program, x: Any, y: Array) -> float:
    """The share of right answers of a program's weights, exported and run in onnxruntime."""
    import onnxruntime

    from pcmc.runtime.export import trained_model

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        trained_model(program).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = x if isinstance(x, Mapping) else {program.inputs[0].name: x}
    first = program.inputs[0].shape
    step = 1 if first and isinstance(first[0], int) else _BATCH
    labels = np.asarray(y)
    labels = labels.argmax(axis=1) if labels.ndim > 1 and labels.shape[1] > 1 else labels.reshape(len(y))
    right = 0
    for start in range(0, len(labels), step):
        batch = {name: array[start : start + step] for name, array in feeds.items()}
        found = session.run(None, batch)[0]
        right += int(np.count_nonzero(found.argmax(axis=1) == labels[start : start + step]))
    return right / len(labels)
