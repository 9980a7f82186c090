"""How long wires take: their solution for arrays of a tile, and reads behind them beside reads without.

    python -m benchmarks wires

Solutions are those of one array; G+ and G- of a tile take two. Reads are `Session.run` of one matrix of a
tile with DAC, ADC and programming errors; `x plain` is the time with `ir_drop` over that without, in turns:
the solution itself is not in it.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import in_process

ARRAYS = ((512, 100), (256, 256))
SOLVE_BAR_S, READ_BAR = 3.0, 1.1
SOLVES, TURNS, CALLS = 3, 25, 8
VECTORS = (1, 256)
PHYSICS = "dac,adc,programming_error"


def rows() -> Iterator[dict[str, Any]]:
    """Keys: name, threads, ms or ratio, bar and met; on one thread."""
    yield from in_process("bench_wires", "--measure")


def measure() -> list[dict[str, Any]]:
    """All rows."""
    return [*(_solve(*shape) for shape in ARRAYS), *(_read(vectors) for vectors in VECTORS)]


def _solve(height: int, width: int) -> dict[str, Any]:
    import numpy as np

    from pcmc.accel.wires import Wires, transfer_matrix

    g_us = np.random.default_rng(0).uniform(0.0, 20.0, (height, width))
    wires = Wires(row_ohm=0.35, column_ohm=0.35)
    seconds = statistics.median(_seconds(lambda: transfer_matrix(g_us, wires)) for _ in range(SOLVES))
    row = {"name": f"solve {height} x {width} cells", "threads": 1, "ms": 1e3 * seconds}
    return row | ({"bar": 1e3 * SOLVE_BAR_S, "met": seconds <= SOLVE_BAR_S} if width == 100 else {})


def _read(vectors: int) -> dict[str, Any]:
    import numpy as np
    import onnx

    import pcmc

    weights = np.random.default_rng(0).standard_normal((512, 100), np.float32)
    graph = onnx.parser.parse_graph("g (float[N,512] x) => (float[N,100] y) { y = MatMul(x, w) }")
    graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    program = pcmc.compile(onnx.helper.make_model(graph))
    sessions = [pcmc.Session(program, PHYSICS + wires, threads=1) for wires in (",ir_drop", "")]
    x = {"x": np.random.default_rng(1).standard_normal((vectors, 512), np.float32)}

    def turn(session: Any) -> float:
        session.run(None, x)
        return _seconds(lambda: [session.run(None, x) for _ in range(CALLS)]) / CALLS

    taken = [[turn(session) for session in sessions] for _ in range(TURNS)]
    wired, plain = (statistics.median(column) for column in zip(*taken, strict=True))
    ratio = wired / plain
    name = f"read 512 x 100 behind wires, {vectors} vector{'s' * (vectors > 1)}"
    return {
        "name": name,
        "threads": 1,
        "ms": 1e3 * wired,
        "ratio": ratio,
        "bar": READ_BAR,
        "met": ratio <= READ_BAR,
    }


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
