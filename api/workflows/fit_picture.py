"""A fit against its points, as an SVG picture: a panel for each device, up on the left, down on the right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import numpy as np

if TYPE_CHECKING:
    from pcmc.accel.pulse_fit import PulseFit, Trace
    from pcmc.accel.pulses import Float64

MOST_PANELS = 24
_MOST_POINTS = 120  # of one sweep: as many as a panel shows apart
_MOST_SWEEPS = 4  # of one device and direction

_WIDTH, _HEIGHT, _MARGIN, _TOP = 250, 170, 44, 46
_STYLE = (
    "text{font:11px sans-serif;fill:#222}path{stroke:#888;fill:none}"
    "circle{fill:none;stroke-width:.8}circle.up{stroke:#4a9be0}circle.down{stroke:#e8894f}"
    "polyline,line{fill:none;stroke-width:1.2}.curve.up{stroke:#0b3a66}.curve.down{stroke:#6e2b08}"
)


def drawing(fit: PulseFit, name: str) -> str:
    """An SVG document: points and fitted curves, conductance in uS against pulses.

    Devices beyond the first 24 are left out, and the title says so; of long sweeps some points are.

    Args:
        fit: what is drawn.
        name: of the file with the points, for the title.
    """
    shown = fit.devices[:MOST_PANELS]
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    width, height = columns * _WIDTH + 12, rows * _HEIGHT + _TOP
    low = min(float(sweep.g_us.min()) for trace in fit.traces for sweep in trace.sweeps)
    high = max(float(sweep.g_us.max()) for trace in fit.traces for sweep in trace.sweeps)
    of_all = (
        "" if len(shown) == len(fit.devices) else f", the first {len(shown)} of {len(fit.devices)} devices"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="18">{escape(name)}: law "{fit.law}"{of_all}</text>',
        *_legend([one.direction for one in fit.directions]),
    ]
    for index, device in enumerate(shown):
        x, y = index % columns * _WIDTH, index // columns * _HEIGHT + _TOP
        traces = [trace for trace in fit.traces if trace.device == device]
        parts += [f'<g transform="translate({x},{y})">', *_panel(device, traces, low, high), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _legend(directions: list[str]) -> list[str]:
    words = []
    for index, way in enumerate(directions):
        x = 14 + 150 * index
        words.append(
            f'<circle class="{way}" cx="{x}" cy="32" r="2"/>'
            f'<line class="curve {way}" x1="{x + 8}" x2="{x + 28}" y1="32" y2="32"/>'
            f'<text x="{x + 34}" y="36">{way}: points, fit</text>'
        )
    return words


def _panel(device: str, traces: list[Trace], low: float, high: float) -> list[str]:
    """One device: axes, and its sweeps, those of one direction beside those of the other."""
    inner_width, inner_height = _WIDTH - _MARGIN - 12, _HEIGHT - 52
    spans = [max(int(sweep.pulse[-1] - sweep.pulse[0]) for sweep in trace.sweeps) for trace in traces]
    whole = max(sum(spans), 1)

    def place(pulse: Float64, g: Float64) -> list[tuple[float, float]]:
        x = _MARGIN + pulse / whole * inner_width
        y = 16 + (high - g) / ((high - low) or 1.0) * inner_height
        return [(round(float(one), 1), round(float(other), 1)) for one, other in zip(x, y, strict=True)]

    bottom, right = 16 + inner_height, _MARGIN + inner_width
    title = ", ".join(f"{trace.direction} R² {trace.r2:.3f}" for trace in traces)
    parts = [
        f'<text x="{_MARGIN}" y="10">{escape(device[:16])}: {title}</text>',
        f'<path d="M{_MARGIN},16V{bottom}H{right}"/>',
        f'<text x="{_MARGIN - 4}" y="22" text-anchor="end">{high:.3g}</text>',
        f'<text x="{_MARGIN - 4}" y="{bottom}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{_MARGIN - 4}" y="{(22 + bottom) / 2}" text-anchor="end">uS</text>',
        f'<text x="{_MARGIN}" y="{bottom + 14}">0</text>',
        f'<text x="{right}" y="{bottom + 14}" text-anchor="end">{whole:,} pulses</text>',
    ]
    start = 0
    for trace, span in zip(traces, spans, strict=True):
        way = trace.direction
        for sweep, curve in list(zip(trace.sweeps, trace.curves, strict=True))[:_MOST_SWEEPS]:
            chosen = np.unique(np.linspace(0, len(curve) - 1, _MOST_POINTS).round().astype(int))
            pulse = (sweep.pulse[chosen] - sweep.pulse[0] + start).astype(np.float64)
            for x, y in place(pulse, sweep.g_us[chosen]):
                parts.append(f'<circle class="{way}" cx="{x}" cy="{y}" r="1.8"/>')
            line = " ".join(f"{x},{y}" for x, y in place(pulse, curve[chosen]))
            parts.append(f'<polyline class="curve {way}" points="{line}"/>')
        start += span
    return parts
