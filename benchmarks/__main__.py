"""The command `python -m benchmarks`: measure, print tables, write JSON."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import (
    ROOT,
    bench_cells,
    bench_kernels,
    bench_models,
    bench_start,
    bench_train,
    bench_wires,
    environment,
)

LATEST = Path(os.path.relpath(ROOT / "benchmarks" / "results" / "latest.json"))
LIBRARIES = ("pcmc", "numpy", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the key of its values, its heading, its width and the format of its values."""

    key: str
    heading: str
    width: int
    form: str = ""

    def text(self, row: dict[str, Any]) -> str:
        """The value of a row; nothing where it has none."""
        value = row.get(self.key)
        if value is None:
            return " " * abs(self.width)
        if isinstance(value, bool):
            value = "yes" if value else "NO"
        return self.aligned(format(value, self.form) if not isinstance(value, str) else value)

    def aligned(self, text: str) -> str:
        """A negative width puts the text on the left."""
        return text.ljust(-self.width) if self.width < 0 else text.rjust(self.width)


@dataclass(frozen=True, slots=True)
class Section:
    """What is measured together; `rows` takes the names of the models that are asked for, all if none."""

    title: str
    rows: Callable[[Sequence[str]], Iterable[dict[str, Any]]]
    columns: tuple[Column, ...]


MODEL = Column("model", "model", -48)
BAR = (Column("bar", "bar", 5, ".1f"), Column("met", "met", 4))
# fmt: off
SECTIONS = {
    "start": Section("Start-up, wall time", lambda _: bench_start.rows(),
                     (Column("name", "process", -25), Column("s", "s", 6, ".3f"), *BAR)),
    "kernels": Section("Tile reads; x numpy: time over its float32 product", lambda _: bench_kernels.rows(),
                       (Column("name", "read", -42), Column("threads", "threads", 7),
                        Column("converters", "converters", 14), Column("ms", "ms", 9, ".3f"),
                        Column("gflops", "GFLOP/s", 7, ".1f"), Column("ratio", "x numpy", 7, ".2f"))),
    "cells": Section("Devices programmed, and drifted", lambda _: bench_cells.rows(),
                     (Column("name", "devices", -36), Column("weights", "weights", 10, ","),
                      Column("threads", "threads", 7), Column("s", "s", 6, ".2f"),
                      Column("first_s", "first s", 7, ".2f"), *BAR)),
    "wires": Section("Wires solved, and reads behind them", lambda _: bench_wires.rows(),
                     (Column("name", "what", -42), Column("threads", "threads", 7),
                      Column("ms", "ms", 9, ".3f"), Column("ratio", "x plain", 7, ".2f"), *BAR)),
    "train": Section("A first epoch at batch 1; x C: time over that of float32 SGD in plain C",
                     lambda _: bench_train.rows(),
                     (Column("name", "side", -66), Column("examples", "examples", 9, ","),
                      Column("us", "us each", 8, ".2f"), Column("examples_s", "1/s", 8, ",.0f"),
                      Column("s", "s", 6, ".1f"), Column("ratio", "x C", 6, ".2f"), *BAR,
                      Column("accuracy", "test %", 6, ".2f"))),
    "compile": Section("Compilation", bench_models.compile_rows,
                       (MODEL, Column("file_mb", "file MB", 8, ".2f"), Column("first_s", "first s", 8, ".2f"),
                        Column("s", "s", 7, ".3f"), Column("peak_mb", "peak MB", 8, ".0f"),
                        Column("tiles", "tiles", 6))),
    "run": Section("Session.run; x: time over that of onnxruntime", bench_models.run_rows,
                   (MODEL, Column("batch", "batch", 5), Column("threads", "threads", 7),
                    Column("onnxruntime_ms", "onnxruntime ms", 14, ".2f"),
                    Column("ideal_ms", "ideal ms", 9, ".2f"), Column("full_ms", "full ms", 9, ".2f"),
                    Column("ideal_ratio", "ideal x", 7, ".2f"),
                    Column("full_ratio", "full x", 7, ".2f"), *BAR)),
}
# fmt: on


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure how fast pcmc is.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all")
    parser.add_argument(
        "-o", "--output", type=Path, default=LATEST, metavar="FILE", help="JSON; default: %(default)s"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="TEXT", help="only models so named; repeatable"
    )
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"there is no section '{name}'; there are {', '.join(SECTIONS)}")
    result: dict[str, Any] = {"machine": machine(), "sections": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in options.sections or SECTIONS:
        result["sections"][name] = _print(SECTIONS[name], options.model)
        result["machine"]["load after"] = _load()
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    rows = [row for section in result["sections"].values() for row in section]
    bars = [row["met"] for row in rows if row.get("met") is not None]
    print(f"\n{sum(bars)} of {len(bars)} bars met")


def _print(section: Section, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Print a section row by row as it is measured; returns the rows."""
    print(f"\n{section.title}\n")
    print("  ".join(column.aligned(column.heading) for column in section.columns).rstrip(), flush=True)
    found = []
    for row in section.rows(wanted):
        found.append(row)
        note = f"  {row['note']:.120}" if "note" in row else ""
        columns = [column for column in section.columns if not note or column.key in row]
        print("  ".join(column.text(row) for column in columns).rstrip() + note, flush=True)
    return found


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names this computer or its folders."""
    question = "from pcmc.accel import tile; print(getattr(tile.kernels(), 'SIMD', 'numpy'))"
    command = [sys.executable, "-c", question]
    kernels = subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "kernels": kernels.stdout.strip(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
        "load before": _load(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _load() -> float | None:
    """Processes that wanted a processor during the last minute: above 0.5 or so, others were running."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    main()
