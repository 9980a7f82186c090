"""From measured pulses to a chip file: `fit_cell`."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcmc.errors import ChipError, DataError

if TYPE_CHECKING:
    from pcmc.accel.measured_spec import MeasuredCellSpec
    from pcmc.accel.pulse_fit import Estimate, PulseFit

_BASE = "nature2018"
_DIGITS = 5  # significant ones in a chip file: more than any interval deserves


@dataclass(frozen=True, slots=True, eq=False)
class CellFit:
    """What `fit_cell` found: the fit, the cell that it makes, and the files that were written."""

    source: str
    fit: PulseFit
    cell: MeasuredCellSpec
    output: Path
    picture: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the law, each quantity with its interval, and what each device gave."""
        fit = self.fit
        traces = [
            {
                "device": trace.device,
                "direction": trace.direction,
                "points": sum(len(sweep.pulse) for sweep in trace.sweeps),
                "step_us": trace.step_us,
                "nonlinearity": trace.nonlinearity,
                "r2": trace.r2,
            }
            for trace in fit.traces
        ]
        return {
            "source": self.source,
            "law": fit.law,
            "aic": dict(fit.aic),
            "devices": len(fit.devices),
            "points": fit.points,
            "g_min_us": dataclasses.asdict(fit.g_min_us),
            "g_max_us": dataclasses.asdict(fit.g_max_us),
            "directions": [dataclasses.asdict(one) for one in fit.directions],
            "asymmetry": None if fit.asymmetry is None else dataclasses.asdict(fit.asymmetry),
            "read_noise_us": dataclasses.asdict(fit.read_noise_us),
            "traces": traces,
            "output": str(self.output),
            "picture": None if self.picture is None else str(self.picture),
        }


def fit_cell(
    pulses: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    picture: str | os.PathLike[str] | None = None,
) -> CellFit:
    """Fit steps, nonlinearity, asymmetry and their spread to measured pulses, and write a chip file.

    The chip is nature2018 with the fitted cell, kind "measured"; `pcmc.load_chip` and `--chip` take it.

    Args:
        pulses: a CSV file with the columns device, direction (up or down), pulse and conductance_us (or
            conductance_s); see `pcmc.accel.pulses`.
        output: where the chip file goes; None: in the current folder, named like `pulses`.
        picture: where an SVG picture of points and fitted curves goes; None: nowhere.

    Raises:
        DataError: a file that is no such table, or points that no law can be fitted to; the message names
            file, line and column, or the device.
        OutputError: a file can't be written.
    """
    from pcmc.accel.pulse_fit import fit_pulses
    from pcmc.accel.pulses import read_pulses, shown_path
    from pcmc.runtime.files import replacing
    from pcmc.workflows.fit_picture import drawing

    origin, name = shown_path(pulses), shown_path(os.path.basename(os.fspath(pulses)))
    if picture is not None and Path(picture).suffix != ".svg":
        raise DataError(f"picture {shown_path(picture)}: the name should end in .svg")
    target = Path(Path(pulses).with_suffix(".toml").name) if output is None else Path(output)
    if target.suffix != ".toml":
        raise DataError(f"output {shown_path(target)}: the name should end in .toml")
    sweeps = read_pulses(pulses)
    if target.exists() and target.samefile(pulses):
        raise DataError(f"output {shown_path(target)}: would take the place of the pulses themselves")
    try:
        fit = fit_pulses(sweeps)
        cell = fitted_cell(fit)
    except (DataError, ChipError) as error:
        raise DataError(f"{origin}: no cell can be made of it: {error}") from None
    text = chip_text(fit, cell, target.stem, name)
    with replacing(target) as file:
        file.write(text.encode())
    if picture is not None:
        with replacing(picture) as file:
            file.write(drawing(fit, name).encode())
    return CellFit(origin, fit, cell, target, None if picture is None else Path(picture))


def fitted_cell(fit: PulseFit) -> MeasuredCellSpec:
    """The cell that a fit describes, its numbers rounded to five significant digits.

    Raises:
        ChipError: the fit gives numbers that no cell can have, for example a step larger than the range.
    """
    from pcmc.accel.fields import take_section
    from pcmc.accel.measured_spec import MeasuredCellSpec

    fields: dict[str, Any] = {
        "kind": "measured",
        "g_min_us": max(_rounded(fit.g_min_us.mean.value), 0.0),
        "g_max_us": _rounded(fit.g_max_us.mean.value),
        "g_min_deviation_us": _rounded(fit.g_min_us.deviation.value),
        "g_max_deviation_us": _rounded(fit.g_max_us.deviation.value),
        "pulse_law": fit.law,
    }
    for one in fit.directions:
        way, step = one.direction, one.step_us
        fields |= {
            f"step_{way}_us": _rounded(step.mean.value),
            f"step_{way}_deviation": _rounded(step.deviation.value / step.mean.value),
            f"step_{way}_noise_us": _rounded(one.step_noise_us.value),
            f"nonlinearity_{way}": _rounded(one.nonlinearity.mean.value),
            f"nonlinearity_{way}_deviation": _rounded(one.nonlinearity.deviation.value),
        }
    cell: MeasuredCellSpec = take_section(MeasuredCellSpec, "cell", fields, "fit")
    cell.check()
    return cell


def chip_text(fit: PulseFit, cell: MeasuredCellSpec, stem: str, name: str) -> str:
    """A chip file in TOML: nature2018 with `cell`, each number with its source and interval.

    Args:
        fit: what the numbers come from.
        cell: as `fitted_cell` makes it.
        stem: of the chip file; the chip is called like it.
        name: of the file with the pulses, on one line.
    """
    from pcmc.accel.chip import chip_names

    label = "".join(one if one.isascii() and (one.isalnum() or one in "-_.") else "_" for one in stem)[:80]
    label = label or "measured"
    count = f"{len(fit.devices):,} device{'' if len(fit.devices) == 1 else 's'}"
    r2 = [trace.r2 for trace in fit.traces]
    other = next(law for law in fit.aic if law != fit.law)
    lines = [
        "# A cell fitted to measured pulses by pcmc fit-cell. docs/own-cell.md explains law and fields.",
        f"# {name}: {count}, {fit.points:,} points.",
        f'# Law "{fit.law}": AIC {fit.aic[fit.law]:.1f}, of "{other}" {fit.aic[other]:.1f}. R2 of the curves '
        f"from {min(r2):.4f} to {max(r2):.4f}.",
        f"# All but [cell] and [effects], energy and area above all, is {_BASE}'s, and says nothing of them.",
        "",
        f'extends = "{_BASE}"',
        f'name = "{label + "-measured" if label in chip_names() else label}"',
        f"description = {_string(f'{_BASE} with cells fitted to the pulses of {count}')}",
        f"source = {_string(f'measured: {name}')}",
        "",
        "[cell]",
        'kind = "measured"',
    ]
    notes = _notes(fit)
    for field in dataclasses.fields(cell):
        value = getattr(cell, field.name)
        if field.name == "pulse_law":
            lines.append(f'pulse_law = "{value}"')
        elif field.name in notes:
            lines.append(f"{field.name} = {value!r}  # measured: {name}: {notes[field.name]}")
    noise = fit.read_noise_us
    lines += [
        "# What the points err by, the instrument included; take it in for read noise, or your devices' own:",
        f"# read_noise_points_us = [[{cell.g_min_us!r}, {_rounded(noise.value)!r}], "
        f"[{cell.g_max_us!r}, {_rounded(noise.value)!r}]]  # measured: {name}: {_interval(noise)}",
        "",
        "[effects]",
        "programming_error = true",
        'read_noise = "off"  # or "fast", with read_noise_points_us',
        "drift = false",
        "stuck = false",
        "thermal_noise = false",
        "nonlinearity = false",
        "reference_error = false",
        "",
    ]
    return "\n".join(lines)


def _notes(fit: PulseFit) -> dict[str, str]:
    """For each fitted field of the cell what it is and its interval."""
    notes = {
        "g_min_us": f"fit, mean of the low ends, {_interval(fit.g_min_us.mean)}",
        "g_max_us": f"fit, mean of the high ends, {_interval(fit.g_max_us.mean)}",
        "g_min_deviation_us": f"fit, between devices, {_interval(fit.g_min_us.deviation)}",
        "g_max_deviation_us": f"fit, between devices, {_interval(fit.g_max_us.deviation)}",
    }
    for one in fit.directions:
        way, step = one.direction, one.step_us
        notes |= {
            f"step_{way}_us": f"fit, at mid range, {_interval(step.mean)}",
            f"step_{way}_deviation": "fit, between devices, relative, "
            + _interval(step.deviation, step.mean.value),
            f"step_{way}_noise_us": f"fit, from pulse to pulse, {_interval(one.step_noise_us)}",
            f"nonlinearity_{way}": f"fit, {_interval(one.nonlinearity.mean)}",
            f"nonlinearity_{way}_deviation": "fit, between devices, " + _interval(one.nonlinearity.deviation),
        }
    return notes


def _interval(one: Estimate, unit: float = 1.0) -> str:
    if math.isnan(one.value):
        return "unknown: one device"
    return f"95 % {one.low / unit:.3g} to {one.high / unit:.3g}"


def _rounded(value: float) -> float:
    """Five significant digits; 0 for what is not known."""
    return 0.0 if math.isnan(value) else float(f"{value:.{_DIGITS}g}")


def _string(text: str) -> str:
    """A text as TOML writes it; JSON's escapes are TOML's."""
    return json.dumps(text[:900], ensure_ascii=False)
