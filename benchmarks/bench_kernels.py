"""How fast tiles are read: dense reads against numpy's float32 product, convolutions in GFLOP/s; Gaussians.

    python benchmarks/bench_kernels.py            # a table
    python benchmarks/bench_kernels.py --json

Each thread count runs in a process of its own, because OpenBLAS reads its number of threads when numpy is
imported. Both sides of a ratio are timed in turns in one process, so that a busy machine slows both;
medians are given. After numpy's turn on several threads there is a pause, until OpenBLAS's sleep: else they
spin on a processor of whoever comes next. `ratio` is our time over numpy's: below 1 is faster than numpy,
which has no converters and one block. GFLOP/s count the product alone, with noise, too: its variance is a
second product. For Gaussians the ratio is to numpy's generator, and G/s are numbers.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

THREADS = (1, 2)
VECTORS = (1, 32, 256)
BATCH = 64
PAUSE = 0.05
# (name, channels, columns, height and width, kernel, stride)
CONVOLUTIONS = (
    ("16ch 32x32, 3x3", 16, 16, 32, 3, 1),
    ("32ch 16x16, 3x3", 32, 32, 16, 3, 1),
    ("64ch 8x8, 3x3", 64, 64, 8, 3, 1),
    ("16-32ch 32x32, 3x3 stride 2", 16, 32, 32, 3, 2),
    ("32-64ch 16x16, 3x3 stride 2", 32, 64, 16, 3, 2),
    ("16-32ch 32x32, 1x1 stride 2", 16, 32, 32, 1, 2),
    ("64-256ch 16x16, 1x1", 64, 256, 16, 1, 1),
)
DEPTHWISE = 256
# (converters, whether devices have fast noise)
KINDS = (("ideal", False), ("DAC+ADC", False), ("DAC+column ADC", False), ("DAC+ADC", True))
GAUSSIANS = 1 << 18


def rows() -> list[dict[str, Any]]:
    """All measurements; keys: name, threads, converters, ms, gflops, and for dense reads ratio."""
    found: list[dict[str, Any]] = []
    for threads in THREADS:
        env = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        env |= {"OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        env["OPENBLAS_THREAD_TIMEOUT"] = "4"  # its threads sleep soon after a product
        run = subprocess.run(
            [sys.executable, __file__, "--measure", str(threads)], env=env, check=True, stdout=subprocess.PIPE
        )
        found += json.loads(run.stdout)
    return found


def measure(threads: int) -> list[dict[str, Any]]:
    import numpy as np

    rng = np.random.default_rng(0)
    found = _gaussians(rng, threads)
    for kind, noisy in KINDS:
        for vectors in VECTORS:
            found += _dense(rng, vectors, kind, noisy, threads)
        for shape in CONVOLUTIONS:
            found += _convolution(rng, shape, kind, noisy, threads)
        found += _depthwise(rng, kind, noisy, threads)
    return found


def _converters(rng: Any, bank: Any, kind: str) -> Any:
    """Converters of this kind: none, all alike, or a gain and an offset for each column, corrected."""
    import numpy as np

    from pcmc.accel.tile import Columns, Converters

    if kind != "DAC+column ADC":
        return Converters(127, 255, adc_full=12.0) if kind == "DAC+ADC" else Converters()
    gain = rng.uniform(20, 22, bank.conversions).astype(np.float32)
    offset = rng.normal(0, 2, bank.conversions).astype(np.float32)
    return Converters(127, 255, columns=Columns(gain, offset, 1 / gain, -offset / gain))


def _gaussians(rng: Any, threads: int) -> list[dict[str, Any]]:
    """The kernels' Gaussians and numpy's, which has one thread."""
    import numpy as np

    from pcmc.accel import tile

    out = np.empty(GAUSSIANS, np.float32)
    mine, theirs = _seconds(
        lambda: tile.fill_gaussian(out, (1, 2), threads=threads),
        lambda: rng.standard_normal(out=out, dtype=np.float32),
    )
    return [_row("Gaussians", threads, "", mine, GAUSSIANS) | {"ratio": mine / theirs}]


def _noise(rng: Any, bank: Any, noisy: bool) -> Iterator[Any]:
    """The noise of each read: with two steps in turns, since equal steps would be equal noise."""
    import numpy as np

    from pcmc.accel import tile

    if not noisy:
        return itertools.repeat(None)
    variances = bank.with_variances(0.01 * rng.random(bank.cells.size, np.float32))
    return itertools.cycle([tile.Noise(variances, (1, 2), step=step) for step in (0, 1)])


def _dense(rng: Any, vectors: int, kind: str, noisy: bool, threads: int) -> list[dict[str, Any]]:
    """512 x 512 in one block, forward and, without noise and columns, transposed."""
    import numpy as np

    from pcmc.accel import tile

    weights = rng.standard_normal((512, 512), np.float32)
    x = rng.standard_normal((vectors, 512), np.float32)
    bank = tile.make_bank(weights.ravel(), np.array([[0, 0, 512, 512, 0, 0]]), 512, 512)
    flop = 2 * 512 * 512 * vectors
    options = {"converters": _converters(rng, bank, kind), "threads": threads}
    found = []
    noise = _noise(rng, bank, noisy)
    for name, ours, numpys in (
        ("dense 512x512", lambda: tile.read(x, bank, noise=next(noise), **options), lambda: x @ weights),
        ("transposed 512x512", lambda: tile.read_transposed(x, bank, **options), lambda: x @ weights.T),
    )[: 1 if noisy or options["converters"].columns else 2]:
        mine, theirs = _seconds(ours, numpys)
        row = _row(f"{name}, {vectors} vectors", threads, kind, mine, flop, noisy)
        found.append(row | {"ratio": mine / theirs})
    return found


def _convolution(
    rng: Any, shape: tuple[Any, ...], kind: str, noisy: bool, threads: int
) -> list[dict[str, Any]]:
    """A convolution in one block, forward and, without noise and columns, transposed."""
    import numpy as np

    from pcmc.accel import tile

    name, channels, cols, size, kernel, stride = shape
    window = tile.Window((kernel, kernel), (stride, stride), pads=(kernel // 2,) * 4)
    matrix = channels * kernel * kernel
    bank = tile.make_bank(
        rng.standard_normal(matrix * cols, np.float32), np.array([[0, 0, matrix, cols, 0, 0]]), matrix, cols
    )
    x = rng.standard_normal((BATCH, channels, size, size), np.float32)
    y = tile.read(x, bank, window=window)
    flop = 2 * matrix * y.size
    options = {"converters": _converters(rng, bank, kind), "window": window, "threads": threads}
    noise = _noise(rng, bank, noisy)
    (forward,) = _seconds(lambda: tile.read(x, bank, noise=next(noise), **options))
    if noisy or options["converters"].columns:
        return [_row(name, threads, kind, forward, flop, noisy)]
    (backward,) = _seconds(lambda: tile.read_transposed(y, bank, image=(size, size), **options))
    return [
        _row(name, threads, kind, forward, flop),
        _row(f"{name}, transposed", threads, kind, backward, flop),
    ]


def _depthwise(rng: Any, kind: str, noisy: bool, threads: int) -> list[dict[str, Any]]:
    """One block of 9 x 1 for each channel."""
    import numpy as np

    from pcmc.accel import tile

    window = tile.Window((3, 3), pads=(1, 1, 1, 1))
    blocks = [[9 * c, c, 9, 1, 0, 9 * c] for c in range(DEPTHWISE)]
    cells = rng.standard_normal(9 * DEPTHWISE, np.float32)
    bank = tile.make_bank(cells, np.array(blocks), 9 * DEPTHWISE, DEPTHWISE)
    x = rng.standard_normal((8, DEPTHWISE, 16, 16), np.float32)
    noise = _noise(rng, bank, noisy)
    options = {"converters": _converters(rng, bank, kind), "window": window, "threads": threads}
    (seconds,) = _seconds(lambda: tile.read(x, bank, noise=next(noise), **options))
    return [_row(f"{DEPTHWISE}ch 16x16, 3x3 depthwise", threads, kind, seconds, 2 * 9 * x.size, noisy)]


def _row(
    name: str, threads: int, kind: str, seconds: float, flop: float, noisy: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "threads": threads,
        "converters": f"{kind}+noise" if noisy else kind,
        "ms": seconds * 1e3,
        "gflops": flop / seconds / 1e9,
    }


def _seconds(*calls: Callable[[], Any], turns: int = 11, least: float = 0.02) -> list[float]:
    """Median seconds of each call, taken in turns, each turn at least `least` seconds long; the first calls
    of a turn, which find the cache as the others left it, are not counted.
    """
    repeats = []
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        repeats.append(max(1, int(least / max(time.perf_counter() - start, 1e-7))))
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(turns):
        for call, repeat, taken in zip(calls, repeats, times, strict=True):
            for _ in range(min(repeat, 5)):
                call()
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            taken.append((time.perf_counter() - start) / repeat)
        if len(calls) > 1 and os.environ.get("OPENBLAS_NUM_THREADS") != "1":
            time.sleep(PAUSE)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    found = rows()
    if "--json" in sys.argv:
        print(json.dumps(found, indent=1))
        return
    print(f"{'read':42} threads  converters           ms  GFLOP/s  time / numpy")
    for row in found:
        ratio = f"{row['ratio']:13.2f}" if "ratio" in row else ""
        speed = f"{row['ms']:8.3f} {row['gflops']:8.1f} {ratio}"
        print(f"{row['name']:42} {row['threads']:7}  {row['converters']:14} {speed}")


if __name__ == "__main__":
    main()
