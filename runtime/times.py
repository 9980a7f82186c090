"""Times as people write them: "20s", "1h", "1.5 d"."""

from __future__ import annotations

import math
import re

from pcmc.errors import DataError

#: Seconds of each unit.
UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
    "y": 31_557_600.0,
}


def seconds(time: float | str) -> float:
    """A time in seconds: a number is one already, a text is a number with one of the units in `UNITS`.

    Raises:
        DataError: neither, negative, or not finite.
    """
    if isinstance(time, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", time)
        unit = match[2] or "s" if match else ""
        try:
            value = float(match[1]) * UNITS[unit] if match else math.nan
        except (ValueError, KeyError):
            value = math.nan
    else:
        try:
            value = float(time)
        except (TypeError, ValueError):
            value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataError(
            f"time {time!r}: should be a number with a unit of {', '.join(UNITS)}, as 20s, 1h or 1d"
        )
    return value
