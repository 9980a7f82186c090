"""Rows of results as Markdown, which reads well in a terminal, too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pcmc.workflows.reproduce.arms import REFERENCE, SENSITIVITIES, Settings
from pcmc.workflows.reproduce.measure import MEASURED
from pcmc.workflows.reproduce.plan import Experiment
from pcmc.workflows.reproduce.statistics import Paired, Spread, paired
from pcmc.workflows.reproduce.summary import Row

_ACCURACY = (
    "arm",
    "train %",
    "test %",
    "difference to A, 90 % interval",
    "p of TOST",
    "worst seed",
    "exported %",
    "pair left, 20 s",
    "1 h",
    "1 h, scaled",
    "pair written, 20 s",
    "1 h",
    "1 h, scaled",
)
_DEVICES = (
    "arm",
    "settings",
    "trials",
    "weight error %",
    "g clipped %",
    "out of reach %",
    "beyond range %",
    "writes",
    "synapses",
    "transfers",
    "pulses",
    "s a run",
)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of one width: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {' | '.join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)])} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def experiment_text(experiment: Experiment, note: str, rows: Sequence[Row]) -> str:
    """All tables of a data set, with a heading."""
    main = [row for row in rows if row.arm not in SENSITIVITIES]
    varied = [row for row in rows if row.arm in SENSITIVITIES]
    parts = [
        f"## {experiment.title}",
        note,
        markdown(_ACCURACY, [_accuracy(row) for row in main]),
        markdown(_DEVICES, [_devices(row) for row in main]),
    ]
    base = next((row for row in main if row.arm == "two-tier"), None)
    if varied:
        header = ("constant of two-tier", "test %", "difference to two-tier, 90 % interval")
        parts.append(markdown(header, [_sensitivity(row, base, experiment.margin) for row in varied]))
    parts += [f"{row.title}: {one}" for row in rows for one in row.stopped]
    return "\n\n".join(parts)


def _accuracy(row: Row) -> tuple[str, ...]:
    return (
        row.title,
        _spread(row.train),
        _spread(row.test),
        "reference" if row.arm == REFERENCE else "-" if row.difference is None else _interval(row.difference),
        "-" if row.difference is None else _p(row.difference),
        f"{row.test.least:.2f} ({row.worst_seed})",
        *(_number(row.measured[name]) for name in MEASURED),
    )


def _devices(row: Row) -> tuple[str, ...]:
    of = row.devices
    writes = "-" if of["writes_mean"] is None else f"{of['writes_mean']:.0f}, most {of['writes_max']:.0f}"
    return (
        row.title,
        settings_text(row.settings),
        str(row.trials) if row.trials else "none",
        _number(of["weight_error"]),
        _number(row.clipped_low),
        _number(of["out_of_reach"]),
        _number(of["beyond_range"], 3),
        writes,
        _count(of["synapses"]),
        _count(of["transfers"]),
        _count(of["pulses"]),
        f"{row.seconds:.0f}",
    )


def _sensitivity(row: Row, base: Row | None, margin: float) -> tuple[str, ...]:
    difference = "-"
    if base is not None and base.test.count == row.test.count:
        gap = paired([a - b for a, b in zip(row.tests, base.tests, strict=True)], margin)
        difference = _interval(gap)
    return row.title.removeprefix("two-tier, "), _spread(row.test), difference


def settings_text(settings: Settings) -> str:
    """Settings in a few words."""
    words = [f"{settings.rate:.3g} x {settings.decay:g}^n"]
    if settings.start != 1.0:
        words.append(f"start x {settings.start:g}")
    if settings.weight_range is not None:
        words.append(f"range {settings.weight_range:g}")
    if settings.batch > 1:
        words.append(f"batch {settings.batch}")
    if settings.momentum:
        words.append(f"momentum {settings.momentum:g}")
    return ", ".join(words)


def _spread(found: Spread) -> str:
    return f"{found.mean:.2f}" if math.isnan(found.deviation) else f"{found.mean:.2f} ± {found.deviation:.2f}"


def _interval(found: Paired) -> str:
    if math.isnan(found.low):
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _p(found: Paired) -> str:
    if math.isnan(found.p_equivalent):
        return "one seed"
    value = "<0.001" if found.p_equivalent < 0.001 else f"{found.p_equivalent:.3f}"
    return f"{value} {'within' if found.equivalent else 'not within'} {found.margin:g}"


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _count(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.2e}"
