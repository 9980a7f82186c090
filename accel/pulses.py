"""Measured pulses: conductance against pulse number, read from a CSV file.

The file has a header with the columns `device`, `direction` (up or down), `pulse` (a whole number) and
`conductance_us` or `conductance_s`; others are ignored, and so are blank lines and lines that begin with "#".
Rows of one device and direction belong together in the order of the file; where the pulse number does not
grow, another sweep begins. What comes in is a user's file: nothing in it is taken on trust.
"""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.fields import shown
from pcmc.accel.text_files import UnreadableTextError, read_text
from pcmc.errors import DataError

Float64 = NDArray[np.float64]
Direction = Literal["up", "down"]
DIRECTIONS: tuple[Direction, ...] = ("up", "down")

MAX_FILE_BYTES = 20_000_000
MAX_ROWS = 200_000
MAX_DEVICES = 500
MAX_PULSE = 10_000_000
MAX_GAP = 100
"""The most pulses between two points of a sweep."""

MIN_STEPS = 10
"""The fewest steps (from one point of a sweep to the next) of a device and direction that a fit takes."""

_LARGEST_US = 10_000.0
_UNITS = {"conductance_us": 1.0, "conductance_s": 1e6}


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """One run of pulses in one direction: conductances in uS, float64 [n], after `pulse` [n] pulses."""

    device: str
    direction: Direction
    pulse: NDArray[np.int64]
    g_us: Float64


def read_pulses(path: str | os.PathLike[str]) -> tuple[Sweep, ...]:
    """The sweeps of a CSV file, device by device in the order in which they first occur, up before down.

    Raises:
        DataError: no such file, not such a table, or values that no fit can take; the message names the file
            and, where it is one place, line and column.
    """
    origin = shown_path(path)
    rows = _rows(_text(path, origin), origin)
    points: dict[tuple[str, Direction], list[tuple[int, float]]] = {}
    for device, direction, pulse, g in rows:
        points.setdefault((device, direction), []).append((pulse, g))
    devices = list(dict.fromkeys(device for device, _ in points))
    if not devices:
        raise DataError(
            f"{origin}: no rows; should have one for each point: device, direction, pulse, conductance"
        )
    if len(devices) > MAX_DEVICES:
        raise DataError(f"{origin}: {len(devices):,} devices; should be at most {MAX_DEVICES:,}")
    sweeps: list[Sweep] = []
    for device in devices:
        for direction in DIRECTIONS:
            found = _sweeps(device, direction, points.get((device, direction), []))
            _check(found, f"{origin}: device {shown(device)}, {direction}")
            sweeps += found
    return tuple(sweeps)


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path for a message, on one line."""
    text = os.fsdecode(path)
    return text if text.isprintable() else shown(text)


def _text(path: str | os.PathLike[str], origin: str) -> str:
    """The text of a file; DataError if it is missing, not a regular file, too large or not UTF-8."""
    try:
        return read_text(path, MAX_FILE_BYTES, "utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{origin}: no such file") from None
    except UnreadableTextError as error:
        raise DataError(f"{origin}: {error}; should be a CSV file of measured pulses") from None


def _rows(text: str, origin: str) -> Iterator[tuple[str, Direction, int, float]]:
    """The checked rows of a table: device, direction, pulse, conductance in uS."""
    lines = csv.reader(io.StringIO(text, newline=""))
    header: list[str] = []
    count = 0
    try:
        for row in lines:
            if not any(field.strip() for field in row) or row[0].lstrip().startswith("#"):
                continue
            fields = [field.strip() for field in row]
            place = f"{origin}: line {lines.line_num:,}"
            if not header:
                header = fields
                columns = _columns(header, place)
                continue
            count += 1
            if count > MAX_ROWS:
                raise DataError(
                    f"{place}: more than {MAX_ROWS:,} rows; measure fewer devices or thin them out"
                )
            if len(fields) != len(header):
                raise DataError(
                    f"{place}: {len(fields):,} fields; should have {len(header):,}, as the header has"
                )
            yield _row({name: fields[column] for name, column in columns.items()}, place)
    except csv.Error as error:
        raise DataError(f"{origin}: line {lines.line_num:,}: not CSV: {error}") from None
    if not header:
        raise DataError(f"{origin}: empty; should begin with a header: device,direction,pulse,conductance_us")


def _columns(header: list[str], place: str) -> dict[str, int]:
    """Where each column that is read stands."""
    units = [name for name in _UNITS if name in header]
    if len(units) > 1:
        raise DataError(f"{place}: both {units[0]} and {units[1]}; should have one of the two columns")
    wanted = ("device", "direction", "pulse", *(units or ["conductance_us"]))
    for name in wanted:
        if header.count(name) != 1:
            what = f"column {name} missing" if name not in header else f"column {name} more than once"
            also = " (or conductance_s)" if name == "conductance_us" else ""
            raise DataError(f"{place}: {what}; should be a header with {', '.join(wanted)}{also}")
    return {name: header.index(name) for name in wanted}


def _row(fields: dict[str, str], place: str) -> tuple[str, Direction, int, float]:
    device, direction = fields["device"], fields["direction"].lower()
    if not 1 <= len(device) <= 100 or not device.isprintable():
        raise DataError(f"{place}, column device = {shown(device)}: should be a name of 1 to 100 characters")
    if direction not in ("up", "down"):
        raise DataError(f"{place}, column direction = {shown(fields['direction'])}: should be up or down")
    pulse = _number(fields["pulse"])
    if not (0 <= pulse <= MAX_PULSE and pulse.is_integer()):
        raise DataError(
            f"{place}, column pulse = {shown(fields['pulse'])}: should be a whole number from 0 to "
            f"{MAX_PULSE:,}"
        )
    unit = next(name for name in _UNITS if name in fields)
    g = _number(fields[unit]) * _UNITS[unit]
    if not abs(g) <= _LARGEST_US:
        raise DataError(
            f"{place}, column {unit} = {shown(fields[unit])}: should be a number, at most {_LARGEST_US:,g} uS"
        )
    return device, direction, int(pulse), g  # type: ignore[return-value]  # mypy does not narrow str by `in`


def _number(text: str) -> float:
    """A text as a number; NaN, which no range allows, if it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _sweeps(device: str, direction: Direction, points: list[tuple[int, float]]) -> list[Sweep]:
    """Points in the order of the file, cut where the pulse number does not grow."""
    if not points:
        return []
    pulse = np.array([one for one, _ in points], np.int64)
    g = np.array([one for _, one in points], np.float64)
    cuts = np.flatnonzero(np.diff(pulse) <= 0) + 1
    parts = zip(np.split(pulse, cuts), np.split(g, cuts), strict=True)
    return [Sweep(device, direction, numbers, values) for numbers, values in parts]


def _check(sweeps: list[Sweep], place: str) -> None:
    """DataError if the sweeps of a device in one direction are none that a law can be fitted to."""
    if not sweeps:
        return
    steps = sum(len(sweep.pulse) - 1 for sweep in sweeps)
    if steps < MIN_STEPS:
        raise DataError(
            f"{place}: {steps:,} steps in {len(sweeps):,} sweeps; should be at least {MIN_STEPS}, each from "
            "one pulse number to a higher one on the next row"
        )
    gap = max(int(np.diff(sweep.pulse).max(initial=0)) for sweep in sweeps)
    if gap > MAX_GAP:
        raise DataError(f"{place}: {gap:,} pulses between two points; should be at most {MAX_GAP:,}")
    trend = sum(_covariance(sweep.pulse, sweep.g_us) for sweep in sweeps)
    if trend * (1 if sweeps[0].direction == "up" else -1) <= 0:
        what = "does not change" if trend == 0 else "falls" if trend < 0 else "rises"
        raise DataError(f"{place}: the conductance {what} with the pulses; are the directions right?")


def _covariance(pulse: NDArray[np.int64], g: Float64) -> float:
    return float(np.sum((pulse - pulse.mean()) * (g - g.mean())))
