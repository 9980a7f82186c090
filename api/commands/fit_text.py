"""A fit of measured pulses as tables in plain characters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pcmc.commands.text import table

MOST_TRACES = 40
"""Lines of the table of devices; the JSON has all."""


def fit_tables(facts: Mapping[str, Any]) -> str:
    """What `CellFit.as_dict` holds: the law, its numbers, and the fit of each device."""
    law, aic = facts["law"], facts["aic"]
    other = next(one for one in aic if one != law)
    ways = [one["direction"] for one in facts["directions"]]
    lines = [
        f"{facts['source']}: {facts['devices']:,} device{'' if facts['devices'] == 1 else 's'}, "
        f"{facts['points']:,} points, pulses "
        + (" and ".join(ways) if len(ways) > 1 else f"{ways[0]} only: unidirectional"),
        f"law: {law} (AIC {aic[law]:.1f}; {other} {aic[other]:.1f})",
        "",
        table(["", "mean", "95 % of it", "between devices", "95 % of it"], _quantities(facts)),
        "",
        _traces(facts),
        "",
        f"chip file written to {facts['output']}",
    ]
    if facts["picture"] is not None:
        lines.append(f"picture written to {facts['picture']}")
    return "\n".join(lines)


def _quantities(facts: Mapping[str, Any]) -> list[list[str]]:
    rows = [
        _row("lowest conductance, uS", facts["g_min_us"]),
        _row("highest conductance, uS", facts["g_max_us"]),
    ]
    for one in facts["directions"]:
        way = one["direction"]
        rows += [
            _row(f"step {way} at mid range, uS", one["step_us"]),
            _row(f"nonlinearity {way}", one["nonlinearity"]),
            [f"noise of a step {way}, uS", *_pair(one["step_noise_us"]), "", ""],
            [f"steps over the range, {way}", *_pair(one["steps"]), "", ""],
        ]
    if facts["asymmetry"] is not None:
        rows.append(_row("asymmetry of the step", facts["asymmetry"]))
    return [*rows, ["noise of a point, uS", *_pair(facts["read_noise_us"]), "", ""]]


def _row(name: str, quantity: Mapping[str, Any]) -> list[str]:
    return [name, *_pair(quantity["mean"]), *_pair(quantity["deviation"])]


def _pair(one: Mapping[str, float]) -> list[str]:
    """A number and its interval; dashes where one device says nothing."""
    if math.isnan(one["value"]):
        return ["-", "-"]
    return [f"{one['value']:.4g}", f"{one['low']:.3g} to {one['high']:.3g}"]


def _traces(facts: Mapping[str, Any]) -> str:
    traces = facts["traces"]
    names = ("device", "direction", "points", "step_us", "nonlinearity", "r2")
    text = table(
        ["device", "direction", "points", "step, uS", "nonlinearity", "R2"],
        [[trace[name] for name in names] for trace in traces[:MOST_TRACES]],
    )
    left = len(traces) - MOST_TRACES
    return text if left <= 0 else f"{text}\n... and {left:,} more; --json has all"
