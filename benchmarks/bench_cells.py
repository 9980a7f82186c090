"""How fast devices are programmed, and drift to another time: millions of two-tier cells in blocks of a tile.

    python -m benchmarks.bench_cells            # a table
    python -m benchmarks.bench_cells --json

Programming is `runtime.state.program_chip` with programming errors, from weights to devices; drift is
`runtime.reads.read_chip`, from devices to the weights that a read finds an hour later. Medians of turns, the
first, which asks for fresh memory, apart. Each number of threads runs in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from benchmarks import in_process

WEIGHTS = 25_000_000
TURNS = 5
THREADS = (1, 2)
PROGRAM_BAR_S, DRIFT_BAR_S = 2.0, 1.0  # at two threads


def rows() -> Iterator[dict[str, Any]]:
    """Keys: name, weights, threads, s, first_s, and at two threads bar (s) and met."""
    for threads in THREADS:
        yield from in_process("bench_cells", "--measure", str(threads))


def measure(threads: int, weights: int = WEIGHTS) -> list[dict[str, Any]]:
    """The rows of one number of threads."""
    from pcmc.accel.chip import load_chip
    from pcmc.accel.physics import resolve
    from pcmc.runtime import reads, state

    chip = load_chip("nature2018")
    program: Any = SimpleNamespace(
        banks={"matrix": _bank(chip.tile.rows, chip.tile.cols, weights)}, chip=chip
    )
    noisy = replace(resolve("full", chip), drift=True)
    silent = replace(noisy, read_noise=None)
    held = state.program_chip(program, noisy, 0, threads=threads)
    calls = {
        "program": (lambda: state.program_chip(program, noisy, 0, threads=threads), PROGRAM_BAR_S),
        "drift to 1 h": (lambda: _read(reads, program, held, silent, threads), DRIFT_BAR_S),
        "drift to 1 h and frozen read noise": (
            lambda: _read(reads, program, held, noisy, threads),
            DRIFT_BAR_S,
        ),
    }
    found = []
    for name, (call, bar) in calls.items():
        taken = [_seconds(call) for _ in range(TURNS + 1)]
        row: dict[str, Any] = {"name": name, "weights": weights, "threads": threads, "first_s": taken[0]}
        row["s"] = statistics.median(taken[1:])
        if threads == 2:
            row |= {"bar": bar, "met": max(row["s"], row["first_s"]) <= bar}
        found.append(row)
    return found


def _bank(rows: int, cols: int, weights: int) -> Any:
    """One tall matrix of full blocks, with Gaussian weights."""
    import numpy as np

    from pcmc.runtime.program import BLOCK, Bank

    count = -(-weights // (rows * cols))
    table = np.zeros(count, BLOCK)
    table["rows"], table["cols"], table["bias"] = rows, cols, 1
    table["offset"] = np.arange(count) * rows * cols
    table["row0"] = np.arange(count) * (rows - 1)
    table["tile"] = np.arange(count)
    cells = np.random.default_rng(0).standard_normal(count * rows * cols, np.float32)
    return Bank("matrix", count * (rows - 1), cols, table, cells, None, "w", (), "", 1, ())


def _read(reads: Any, program: Any, held: Any, physics: Any, threads: int) -> Any:
    return reads.read_chip(program, held, reads.Reading(physics, 1, 0, 3600.0, threads=threads))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    found = list(rows())
    if "--json" in sys.argv:
        print(json.dumps(found, indent=1))
        return
    print(f"{'devices':36} {'weights':>12} threads       s  first s")
    for row in found:
        times = f"{row['s']:7.2f} {row['first_s']:8.2f}"
        print(f"{row['name']:36} {row['weights']:12,} {row['threads']:7} {times}")


if __name__ == "__main__":
    main()
