"""A progress bar for what takes more than a second; nothing at all for what does not, or where nobody
looks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # rich takes long to import: only where a bar is shown
    from rich.progress import Progress

T = TypeVar("T")
PATIENCE_S = 1.0


def progress(items: Sequence[T], label: str) -> Iterator[T]:
    """The items one by one; after a second a bar on the terminal's standard error says how far it is."""
    started = time.monotonic()
    bar = None
    try:
        for done, item in enumerate(items):
            if bar is None and sys.stderr.isatty() and time.monotonic() - started > PATIENCE_S:
                bar = _open_bar()
                task = bar.add_task(label, total=len(items), completed=done)
            elif bar is not None:
                bar.update(task, completed=done)
            yield item
    finally:
        if bar is not None:
            bar.stop()


def _open_bar() -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    bar.start()
    return bar
