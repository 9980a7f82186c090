"""Facts as text for a person: tables in plain characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError
from pcmc.workflows.metrics import OUTPUT_ERROR

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec
    from pcmc.runtime.calibration import Calibration
    from pcmc.runtime.program import Program

Facts = Mapping[str, Any]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns of text: numbers to the right, words to the left."""
    cells = [[*map(str, header)], *([*map(_cell, row)] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [
        all(isinstance(row[c], int | float) for row in rows) and bool(rows) for c in range(len(header))
    ]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        )
        for row in cells
    ]
    return "\n".join(
        line.rstrip() for line in [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def quantity(value: float, unit: str) -> str:
    """A value with the SI prefix that suits it: 2.4e-05 s is 24.0 us."""
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value / 1e-15:.3g} f{unit}" if value else f"0 {unit}"


def share(pair: Sequence[int]) -> str:
    """(used, available) as text."""
    used, available = pair
    return f"{used:,} of {available:,} ({used / available:.1%})" if available else f"{used:,}"


def summary(report: Facts) -> str:
    """A program in a few lines."""
    used = report["utilization"]
    return "\n".join(
        [
            f"{report['model']} on {report['chip']}: {len(report['matrices']):,} matrices, "
            f"{report['weights']:,} weights, "
            f"{report['blocks']:,} blocks in {report['tiles']:,} tiles of {report['chips']:,} "
            f"chip{'s' * (report['chips'] != 1)}",
            f"  cells    {share(used['cells'])} of the used tiles, "
            f"{used['cells'][0] / used['chip_cells'][1]:.1%} of the chips",
            f"  latency  {quantity(report['latency_s'], 's')} a sample, one every "
            f"{quantity(report['interval_s'], 's')} in a full pipeline",
            f"  energy   {quantity(report['energy_j']['total'], 'J')} a sample",
            f"  area     {report['area_mm2']['total']:.3g} mm2",
            f"  digital  {len(report['digital']):,} operations",
            *([f"  calibrated {_fitted(report['calibration'])}"] if "calibration" in report else []),
        ]
    )


def calibration_facts(found: Calibration) -> dict[str, Any]:
    """What was calibrated, as plain data."""
    from pcmc.runtime.calibration import active_fractions

    return {
        "what": list(found.what),
        "samples": found.samples,
        "seed": found.seed,
        "active": active_fractions(found.banks),
    }


def _fitted(facts: Facts) -> str:
    """What was calibrated, with how much, and how many rows of matrices were found to be driven at a time."""
    line, parts = f"{', '.join(facts['what'])} with {facts['samples']:,} samples", facts["active"]
    if not parts:
        return line
    ordered = sorted(parts, key=lambda name: parts[name])
    ends = dict.fromkeys((ordered[0], ordered[-1]))
    return f"{line}; driven at a time: {' to '.join(f'{parts[n]:.2g} of the rows of {n}' for n in ends)}"


def clipped(saturation: Facts) -> str:
    """Which share of all conversions clipped, and where most did."""
    total = sum(one["conversions"] for one in saturation.values())
    beyond = sum(one["clipped"] for one in saturation.values())
    if not beyond:
        return f"none of {total:,} conversions clipped"
    shares = {n: one["clipped"] / one["conversions"] for n, one in saturation.items() if one["conversions"]}
    worst = max(shares, key=lambda name: shares[name])
    return f"{beyond / total:.2g} of {total:,} conversions clipped; most in {worst}: {shares[worst]:.2g}"


def report(facts: Facts) -> str:
    """The whole report."""
    used, cycles, traffic = facts["utilization"], facts["cycles"], facts["traffic_bytes"]
    matrices = [
        [
            m["name"],
            f"{m['rows']} x {m['cols']}" + (f" / {m['groups']}" if m["groups"] > 1 else ""),
            m["weights"],
            m["bias"],
            m["blocks"],
            m["tiles"],
            m["phases"],
            ", ".join(m["foldings"]) or "-",
        ]
        for m in facts["matrices"]
    ]
    layers = [
        [
            layer["name"],
            layer["kind"],
            int(layer["vectors"]),
            int(layer["digital_ops"]),
            layer["start_cycle"],
            layer["end_cycle"],
            quantity(layer["energy_j"]["total"], "J"),
        ]
        for layer in facts["layers"]
    ]
    parts = [
        [name, quantity(value, "J"), f"{facts['area_mm2'].get(name, 0.0):.3g}"]
        for name, value in facts["energy_j"].items()
    ]
    parts += [
        [name, "", f"{value:.3g}"]
        for name, value in facts["area_mm2"].items()
        if name not in facts["energy_j"]
    ]
    return "\n\n".join(
        [
            summary(facts),
            f"  tiles {share(used['tiles'])}   chips {share(used['chips'])}   cells of the chips "
            f"{share(used['chip_cells'])}\n"
            f"  cycles {cycles['latency']:,} a sample, {cycles['interval']:,} between samples; the "
            f"pipeline waits for {facts['bottleneck']}\n"
            f"  traffic {traffic['total']:,.0f} bytes a sample: activations "
            f"{traffic['activations']:,.0f}, partial sums "
            f"{traffic['partial_sums']:,.0f}; over chip links {traffic['chip_to_chip']:,.0f}; fullest "
            f"link {traffic['fullest_link']:,.0f}",
            "Matrices\n"
            + table(
                ["name", "rows x cols", "weights", "bias", "blocks", "tiles", "phases", "folded in"], matrices
            ),
            "Steps of one sample\n"
            + table(["step", "kind", "vectors", "digital ops", "start", "end", "energy"], layers),
            "Components\n" + table(["component", "energy a sample", "area mm2"], parts),
            "Digital operations\n"
            + table(["operation", "why"], [[name, why] for name, why in facts["digital"].items()]),
        ]
    )


def comparison(facts: Facts) -> str:
    """What compare found."""
    seeds = len(facts["seeds"])
    columns = ["output", "largest error", "mean error", "largest value", "relative"]
    parts = [
        f"{facts['model']} on {facts['chip']}: {facts['samples']:,} "
        f"{'random ' * (facts['data'] == 'random')}samples against onnxruntime",
        "ideal\n" + table(columns, [_error_row(error) for error in facts["ideal"]]),
    ]
    if seeds:
        parts.append(
            f"with {', '.join(facts['physics'])}; {seeds} seed{'s' * (seeds != 1)}\n"
            + table(columns, [_error_row(error) for error in facts["with_physics"]])
        )
    rows = [
        [name, _plain(m["onnxruntime"]), _plain(m["ideal"]), _interval(m["physics"])]
        for name, m in facts["metrics"].items()
    ]
    parts.append(table(["metric", "onnxruntime", "ideal", "physics (95 % interval over seeds)"], rows))
    if facts["saturation"]:
        parts.append(clipped(facts["saturation"]))
    if facts["wires"]:
        parts.append(wires(facts["wires"]))
    if facts["calibration"]:
        parts.append(_calibration(facts["calibration"]))
    if facts["ablation"]:
        parts.append(_ablation(facts["ablation"]))
    if facts["layers"]:
        parts.append(_layers(facts["layers"]))
    return "\n\n".join(parts)


def wires(facts: Facts) -> str:
    """What the wires take away, and how exactly that is known."""
    how = "exact" if facts["error"] is None else f"within {facts['error']:.2g} (rms) of exact solves"
    solved = f"{facts['solves']} solved in {facts['seconds']:.2g} s"
    return f"wires: a column loses {facts['largest_drop']:.2g} of its current at most; {solved}, {how}"


def _calibration(facts: Facts) -> str:
    """The metrics without a calibration and with it."""
    rows = [
        [name, _interval(facts["without"][name]), _interval(facts["calibrated"][name]), _difference(gain)]
        for name, gain in facts["gain"].items()
    ]
    of_each = "each chip by itself" if facts["of_each_chip"] else "the program, for all chips"
    return (
        f"calibrated {_fitted(facts)}, {of_each}; all else here is with the calibration\n"
        + table(["metric", "without", "calibrated", "gain (95 % interval, paired seeds)"], rows)
        + (f"\nwithout: {clipped(facts['saturation'])}" if facts["saturation"] else "")
    )


def _ablation(effects: Sequence[Facts]) -> str:
    """What each effect costs in the first metric and in output error."""
    metric = next(iter(effects[0]["cost"]))
    rows = [
        [
            one["effect"],
            _plain(one["without"][metric]["mean"]),
            _difference(one["cost"][metric]),
            _difference(one["cost_alone"][metric]),
            f"{one['without'][OUTPUT_ERROR]['mean']:.3g}",
            f"{one['alone'][OUTPUT_ERROR]['mean']:.3g}",
        ]
        for one in effects
    ]
    columns = ["effect", f"{metric} without", "cost", "cost alone", "error without", "error alone"]
    first = effects[0]
    error = first["without"][OUTPUT_ERROR]["mean"] + first["cost"][OUTPUT_ERROR]["mean"]
    return (
        "what each effect costs: loss by having it, and by having it alone (95 % interval, paired seeds);\n"
        f"relative error without it, and with it alone; with all it is {error:.3g}\n" + table(columns, rows)
    )


def _layers(layers: Sequence[Facts]) -> str:
    """What each matrix costs in the first metric and in output error."""
    metric = next(iter(layers[0]["cost"]))
    rows = [
        [
            one["layer"],
            f"{one['rows']} x {one['cols']}",
            _plain(one["alone"][metric]["mean"]),
            _difference(one["cost"][metric]),
            f"{one['alone'][OUTPUT_ERROR]['mean']:.3g}",
            f"{one['share']:.1%}",
        ]
        for one in layers
    ]
    columns = ["matrix", "rows x cols", metric, "cost", "error", "part"]
    return (
        "what each matrix costs: loss by its physics with all others ideal (95 % interval, paired seeds),\n"
        "relative error, and its part in the squared error\n" + table(columns, rows)
    )


def _error_row(error: Facts) -> list[Any]:
    relative = error["largest"] / error["scale"] if error["scale"] else error["largest"]
    return [
        error["output"],
        *(f"{error[key]:.3g}" for key in ("largest", "mean", "scale")),
        f"{relative:.2g}",
    ]


def _plain(value: float) -> str:
    return f"{value:.4f}"


def _difference(facts: Facts) -> str:
    if facts["low"] is None:
        return signed(facts["mean"])
    return f"{signed(facts['mean'])} [{signed(facts['low'])}, {signed(facts['high'])}]"


def signed(value: float) -> str:
    """A difference with its sign, to four places; never minus zero."""
    return f"{round(value, 4) + 0.0:+.4f}"


def _interval(facts: Facts | None) -> str:
    if facts is None:
        return "-"
    if facts["low"] is None:
        return _plain(facts["mean"])
    return f"{facts['mean']:.4f} [{facts['low']:.4f}, {facts['high']:.4f}]"


def array_facts(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Shape, type and range of an array."""
    numbers = array.astype(np.float64) if array.dtype.kind in "fiub" and array.size else np.zeros(1)
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "min": float(numbers.min()),
        "max": float(numbers.max()),
    }


def run_summary(facts: Facts, target: Path | None) -> str:
    """What run made."""
    rows = [[name, str(f["shape"]), f["dtype"], f["min"], f["max"]] for name, f in facts["outputs"].items()]
    effects = ", ".join(facts["physics"]) or "ideal"
    lines = [
        f"physics: {effects}; seed {facts['seed']}",
        *([f"calibrated {_fitted(facts['calibration'])}"] if facts["calibration"] else []),
        *([clipped(facts["saturation"])] if facts["saturation"] else []),
        *([wires(facts["wires"])] if facts["wires"] else []),
        table(["output", "shape", "type", "smallest", "largest"], rows),
    ]
    return "\n".join([*lines, f"written to {target}"] if target else lines)


def program_facts(program: Program, calibration: Calibration | None = None) -> dict[str, Any]:
    """What a program and the calibration in its file hold, as plain data."""
    return {
        "model": program.name,
        "chip": program.chip.name,
        "chips": program.chips,
        "tiles": program.tiles,
        "inputs": [{"name": i.name, "shape": list(i.shape or ()), "dtype": i.dtype} for i in program.inputs],
        "outputs": [
            {"name": i.name, "shape": list(i.shape or ()), "dtype": i.dtype} for i in program.outputs
        ],
        "steps": [
            {
                "name": s.name,
                "kind": s.kind,
                "inputs": list(s.inputs),
                "outputs": list(s.outputs),
                "bank": s.bank,
                "operations": list(s.layers),
            }
            for s in program.steps
        ],
        "banks": [
            {
                "name": b.name,
                "rows": b.rows,
                "cols": b.cols,
                "groups": b.groups,
                "cells": int(b.cells.size),
                "blocks": blocks(program, b.name),
            }
            for b in program.banks.values()
        ],
        "options": dict(program.options),
        "calibration": None if calibration is None else calibration_facts(calibration),
    }


def program_table(facts: Facts) -> str:
    """What a program holds, for a person."""
    ends = [
        [kind, i["name"], " x ".join(map(str, i["shape"]))]
        for kind in ("inputs", "outputs")
        for i in facts[kind]
    ]
    banks = [[b["name"], b["rows"], b["cols"], b["cells"], len(b["blocks"])] for b in facts["banks"]]
    steps = [
        [i, s["kind"], s["name"], len(s["operations"]), ", ".join(s["outputs"])]
        for i, s in enumerate(facts["steps"])
    ]
    return "\n\n".join(
        [
            f"{facts['model']} on {facts['chip']}: {facts['tiles']:,} tiles of {facts['chips']:,} chips"
            + (f"\ncalibrated {_fitted(facts['calibration'])}" if facts["calibration"] else ""),
            table(["", "name", "shape"], ends),
            table(["bank", "rows", "cols", "cells", "blocks"], banks),
            table(["step", "kind", "name", "operations", "makes"], steps),
        ]
    )


def blocks(program: Program, bank: str) -> list[dict[str, int]]:
    """The blocks of a bank as plain data: part of the matrix, place on the board."""
    found = program.banks[bank].table
    return [
        {name: int(block[name]) for name in found.dtype.names or () if name != "offset"} for block in found
    ]


def where(program: Program, layer: str) -> dict[str, Any]:
    """The blocks of a layer, named by its matrix, an operation that the matrix stands for, or its
    initializer.
    """
    for step in program.steps:
        bank = program.banks.get(step.bank or "")
        names = {step.name, *step.layers} | (
            {bank.name, bank.initializer, *bank.computed_from} if bank else set()
        )
        if layer not in names:
            continue
        if bank is None:
            reason = program.digital.get(layer, "a digital region")
            return {"layer": layer, "step": step.name, "digital": reason, "unit": step.unit, "blocks": []}
        return {
            "layer": layer,
            "step": step.name,
            "bank": bank.name,
            "rows": bank.rows,
            "cols": bank.cols,
            "unit": step.unit,
            "operations": list(step.layers),
            "initializer": bank.initializer,
            "blocks": blocks(program, bank.name),
        }
    banks = ", ".join(program.banks)
    raise DataError(f"there is no layer '{layer}' in {program.name}; its matrices are {banks}")


def where_table(facts: Facts) -> str:
    """Where a layer went, for a person."""
    if not facts["blocks"]:
        return (
            f"{facts['layer']} stays digital, in step {facts['step']} on the digital unit of chip "
            f"{facts['unit']}: {facts['digital']}"
        )
    rows = [
        [
            f"{b['row0']}..{b['row0'] + b['rows'] - b['bias'] - 1}" + (" + bias" if b["bias"] else ""),
            f"{b['col0']}..{b['col0'] + b['cols'] - 1}",
            b["chip"],
            b["tile"],
            f"{b['y']}..{b['y'] + b['rows'] - 1}",
            f"{b['x']}..{b['x'] + b['cols'] - 1}",
            b["phase"],
        ]
        for b in facts["blocks"]
    ]
    title = (
        f"{facts['layer']}: matrix {facts['rows']:,} x {facts['cols']:,} from "
        f"'{facts['initializer']}', {len(rows):,} blocks"
    )
    return (
        title
        + "\n"
        + table(["matrix rows", "matrix cols", "chip", "tile", "tile rows", "tile cols", "phase"], rows)
    )


def chips(specs: Sequence[ChipSpec]) -> str:
    """A line for each chip."""
    rows = [
        [
            s.name,
            f"{s.chip.mesh_x * s.chip.mesh_y} x {s.tile.rows} x {s.tile.cols}",
            s.chip.mesh_x * s.chip.mesh_y * s.tile.rows * s.tile.cols,
            s.cell.kind,
            s.tile.sharing,
            s.description,
        ]
        for s in specs
    ]
    return table(["chip", "tiles x rows x cols", "cells", "cell", "sharing", "what it is"], rows)


def chip(document: Facts, untrainable: str) -> str:
    """A chip whole: every field, and why it can't be trained, where it can't."""
    lines = [f"{key}: {value}" for key, value in document.items() if not isinstance(value, dict)]
    if untrainable:
        lines.append(f"training: refused; {untrainable}")
    for section, fields in document.items():
        if isinstance(fields, dict):
            lines += ["", f"[{section}]", *(f"{key} = {value}" for key, value in fields.items())]
    return "\n".join(lines)


def models(facts: Sequence[Facts]) -> str:
    """A line for each shipped model."""
    rows = [[m["name"], m["inputs"], m["parameters"], f"{m['accuracy']} %", m["description"]] for m in facts]
    return table(["model", "input", "weights", "accuracy", "what it is"], rows)
