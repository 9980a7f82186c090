"""What `pcmc train` prints: progress while it runs, a line for each epoch, and a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcmc.runtime.trainer.progress import Epoch, Progress

_EVERY_S = 0.2


@contextmanager
def live() -> Iterator[Callable[[Progress], None]]:
    """Shows progress on the terminal's standard error, on one line; nothing where that is no terminal."""
    shown = 0.0
    is_terminal = sys.stderr.isatty()

    def show(progress: Progress) -> None:
        nonlocal shown
        now = time.monotonic()
        if is_terminal and now - shown > _EVERY_S:
            shown = now
            sys.stderr.write("\r\x1b[K" + progress_line(progress))
            sys.stderr.flush()

    try:
        yield show
    finally:
        if is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def progress_line(progress: Progress) -> str:
    """Epoch, examples, loss, accuracy and time left."""
    accuracy = "" if progress.accuracy is None else f"  accuracy {progress.accuracy:.2%}"
    return (
        f"epoch {progress.epoch + 1}/{progress.epochs}  {progress.examples:,} of {progress.of:,}  "
        f"loss {progress.loss:.4f}{accuracy}  {_duration(progress.seconds_left)} left"
    )


def epoch_line(epoch: Epoch) -> str:
    """A finished epoch."""
    parts = [f"epoch {epoch.epoch + 1:>3}  rate {epoch.rate:.4g}  loss {epoch.loss:.4f}"]
    if epoch.accuracy is not None:
        parts.append(f"accuracy {epoch.accuracy:.2%}")
    if epoch.validation is not None:
        parts.append(f"test loss {epoch.validation.loss:.4f}")
        if epoch.validation.accuracy is not None:
            parts.append(f"test accuracy {epoch.validation.accuracy:.2%}")
    parts.append(_duration(epoch.seconds))
    return "  ".join(parts)


def summary(facts: Mapping[str, Any]) -> str:
    """What a training came to; `facts` as `--json` prints them."""
    lines = []
    if facts["stopped"]:
        lines.append(f"stopped early: {facts['stopped']}")
    where = "test" if facts["tested"] else "training"
    if facts["accuracy_on_chip"] is not None:
        lines.append(f"{facts['samples']:,} {where} examples:")
        lines.append(f"  on the chip                      {facts['accuracy_on_chip']:.2%}")
        lines.append(f"  exported weights in onnxruntime  {facts['accuracy_exported']:.2%}")
        if facts["accuracy_pair_alone"] is not None:
            lines.append(f"  PCM pairs alone                  {facts['accuracy_pair_alone']:.2%}")
    lines.append(
        f"{facts['examples']:,} examples trained on, physics: {', '.join(facts['physics']) or 'ideal'}"
    )
    for name, counts in facts["counters"].items():
        shown = ", ".join(
            f"{key.replace('_', ' ')} {_number(value)}" for key, value in counts.items() if value
        )
        if shown:
            lines.append(f"  {name}: {shown}")
    if facts["output"]:
        lines.append(f"written to {facts['output']}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
