"""Curves of training as an SVG picture: errors met in each epoch, mean and range of the runs of an arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from pcmc.workflows.reproduce.summary import Row

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 250, 40, 40
# Okabe and Ito's colours, which most people can tell apart, and two greys.
_COLOURS = ("#000000", "#777777", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#aaaaaa")
_STYLE = "text{font:11px sans-serif;fill:#222}.axis{stroke:#888;fill:none}.grid{stroke:#ddd}"
_LEAST = 0.01  # percent: an error of none has no logarithm


def drawing(title: str, rows: Sequence[Row]) -> str:
    """An SVG document: errors in percent, on a logarithmic scale, over epochs; "" where there are none.

    The errors are those met while training, of each example before it was learnt from: the test set is not
    looked at until the end.
    """
    rows = [row for row in rows if any(row.curve)]
    if not rows:
        return ""
    errors = {row.arm: _errors(row) for row in rows}
    everything = [value for runs in errors.values() for run in runs for value in run]
    epochs = max(len(run) for runs in errors.values() for run in runs)
    low, high = _decades(min(everything), max(everything))
    place = _Place(epochs, low, high)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="20">{escape(title)}: errors met in training, %</text>',
        *_axes(place),
    ]
    for index, row in enumerate(rows):
        colour = _COLOURS[index % len(_COLOURS)]
        parts += _curve(errors[row.arm], place, colour)
        y = _TOP + 14 + 18 * index
        x = _WIDTH - _RIGHT + 12
        parts.append(
            f'<line x1="{x}" x2="{x + 18}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2"/>'
            f'<text x="{x + 24}" y="{y}">{escape(row.title)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


class _Place:
    """Where an epoch and an error are in the picture."""

    def __init__(self, epochs: int, low: int, high: int) -> None:
        self.epochs, self.low, self.high = epochs, low, high

    def x(self, epoch: float) -> float:
        """Of an epoch, counted from 1."""
        inner = _WIDTH - _LEFT - _RIGHT
        return round(_LEFT + (epoch - 1) / max(1, self.epochs - 1) * inner, 1)

    def y(self, percent: float) -> float:
        """Of an error."""
        inner = _HEIGHT - _TOP - _BOTTOM
        return round(_TOP + (self.high - math.log10(percent)) / (self.high - self.low) * inner, 1)


def _errors(row: Row) -> list[list[float]]:
    return [[max(_LEAST, 100.0 - accuracy) for accuracy in run] for run in row.curve if run]


def _decades(least: float, largest: float) -> tuple[int, int]:
    low = math.floor(math.log10(least))
    return low, max(low + 1, math.ceil(math.log10(largest)))


def _axes(place: _Place) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT},{_TOP}V{bottom}H{right}"/>']
    for decade in range(place.low, place.high + 1):
        y = place.y(10.0**decade)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{10.0**decade:g}</text>'
        )
    step = max(1, round(place.epochs / 10))
    parts += [
        f'<text x="{place.x(epoch)}" y="{bottom + 16}" text-anchor="middle">{epoch}</text>'
        for epoch in range(1, place.epochs + 1, step)
    ]
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{bottom + 32}" text-anchor="middle">epoch</text>')
    return parts


def _curve(runs: Sequence[Sequence[float]], place: _Place, colour: str) -> list[str]:
    """The mean of the runs, and the area between their least and largest."""
    shortest = min(len(run) for run in runs)
    columns = [[run[epoch] for run in runs] for epoch in range(shortest)]
    numbered = list(enumerate(columns, 1))
    upper = [f"{place.x(epoch)},{place.y(max(column))}" for epoch, column in numbered]
    lower = [f"{place.x(epoch)},{place.y(min(column))}" for epoch, column in numbered]
    mean = [f"{place.x(epoch)},{place.y(sum(column) / len(column))}" for epoch, column in numbered]
    area = " ".join([*upper, *reversed(lower)])
    return [
        f'<polygon points="{area}" fill="{colour}" fill-opacity="0.12"/>',
        f'<polyline points="{" ".join(mean)}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
    ]
