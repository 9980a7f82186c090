"""Every effect that pcmc models, held against its formula: the table of docs/effects.md, and what it says.

    python tests/effects.py        # measures all rows and writes the table of docs/effects.md again

`tests/test_effects.py` measures each row, too, and fails where a deviation is larger than the size of the
sample or rounding allows, or than the page says.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import effects_cells
import effects_noise
import effects_other_cells
import effects_reads
import effects_set_pulses
import effects_training
import effects_transfers
from effects_measures import Row, Statistic

PAGE = Path(__file__).resolve().parent.parent / "docs" / "effects.md"
HEADS = ("effect", "formula", "source", "how measured", "largest deviation", "allowed", "tested in, too")
DEVIATION = HEADS.index("largest deviation")

_MEASURES = (
    effects_cells,
    effects_other_cells,
    effects_noise,
    effects_reads,
    effects_training,
    effects_transfers,
    effects_set_pulses,
)
ROWS: list[Row] = [row for measures in _MEASURES for row in measures.ROWS]


@functools.cache
def measured(effect: str) -> tuple[Statistic, ...]:
    """The statistics of a row, measured once."""
    (row,) = (row for row in ROWS if row.effect == effect)
    return tuple(row.measure())


def stated(one: Statistic) -> float:
    """What the page says of a deviation, rounded up. That of rounding depends on the processor: half as much
    again; of a sample by a value in a thousand.
    """
    return upwards(min((1.5 if one.rounded else 1.001) * one.deviation, one.allowed))


def upwards(value: float) -> float:
    """The next number with two digits."""
    near = float(f"{value:.1e}")
    return near if near >= value else float(f"{near + 10.0 ** (math.floor(math.log10(value)) - 1):.1e}")


def size(n: int) -> str:
    """The size of a sample, three digits of it."""
    return f", n = {float(f'{n:.3g}'):,.0f}" if n else ""


def cells(row: Row) -> tuple[str, ...]:
    """The row of the page."""
    found = measured(row.effect)
    file, _, name = row.test.partition("::")
    return tuple(
        text.replace("|", "\\|")
        for text in (
            row.effect,
            row.formula,
            row.source,
            row.how,
            "; ".join(f"{one.name} {stated(one):.2g}" for one in found),
            "; ".join(f"{upwards(one.allowed):.2g}{size(one.n)}" for one in found),
            f"`{Path(file).name}::{name}`" if name else "",
        )
    )


def line(parts: Sequence[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(parts) + " |"


def table() -> list[str]:
    """The lines of the table, head first."""
    return [line(HEADS), line(["---"] * len(HEADS)), *(line(cells(row)) for row in ROWS)]


def page_lines(page: str) -> tuple[int, int]:
    """Where the table of the page begins and ends."""
    lines = page.splitlines()
    first = lines.index(line(HEADS))
    last = first
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    return first, last


def rewrite() -> None:
    """Write the table of the page again."""
    page = PAGE.read_text()
    lines = page.splitlines()
    first, last = page_lines(page)
    PAGE.write_text("\n".join([*lines[:first], *table(), *lines[last:]]) + "\n")


if __name__ == "__main__":
    rewrite()
    worst = max(
        (one.deviation / one.allowed, row.effect, one.name)
        for row in ROWS
        for one in measured(row.effect)
        if one.allowed > 0
    )
    sys.stdout.write(
        f"{len(ROWS)} rows; nearest to what is allowed: {worst[0]:.2f}, {worst[1]}: {worst[2]}\n"
    )
