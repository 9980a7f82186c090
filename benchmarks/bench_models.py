"""Models from end to end: what it takes to compile them, and how fast they run beside onnxruntime.

`python -m benchmarks` calls `python -m benchmarks.bench_models compile|run FILE` once for each model.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import in_process

if TYPE_CHECKING:
    from pcmc.runtime.program import Program

BATCH = 64
TURNS = 9
# A turn calls each side for this long, and all turns of a row together take about as long as LONGEST_S.
LEAST_S = 0.02
LONGEST_S = 4.0
# onnxruntime's idle threads go on spinning for a while and would take a processor from who comes next.
PAUSE_S = 0.02
COMPILES = 5
# Times of ideal mode and of full physics over onnxruntime's, by model and batch.
BARS = {("cifar10_resnet32_akamaster_ts11", BATCH): (2.0, 3.0)}


def models(wanted: Sequence[str] = ()) -> list[Path]:
    """The files of PCMC_TEST_MODELS, or those shipped; those whose names contain one of `wanted`."""
    folder = os.environ.get("PCMC_TEST_MODELS")
    if folder:
        paths = sorted(Path(folder).glob("*.onnx"))
    else:
        from pcmc.models import zoo

        paths = [zoo.path(name) for name in zoo.names()]
    return [path for path in paths if not wanted or any(text in path.stem for text in wanted)]


def compile_rows(wanted: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Keys: model, file_mb, first_s, s, peak_mb, tiles; or model and note where it does not compile."""
    return _rows("compile", wanted)


def run_rows(wanted: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """One row for each model, batch and number of threads.

    Keys: model, batch, threads, onnxruntime_ms, ideal_ms, full_ms, ideal_ratio and full_ratio (time over
    onnxruntime's), bar and full_bar of these, and met, whether both are (None without bars); or model, batch
    and note where nothing was measured.
    """
    return _rows("run", wanted)


def _rows(what: str, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    for path in models(wanted):
        try:
            yield from in_process("bench_models", what, str(path))
        except RuntimeError as error:
            yield {"model": path.stem, "note": str(error)}


def measure_compile(path: Path) -> list[dict[str, Any]]:
    """The first compilation of this process, which loads libraries, and the median of some more."""
    import pcmc

    taken = []
    program, peak = None, 0.0
    for turn in range(1 + COMPILES):
        start = time.perf_counter()
        program = pcmc.compile(path)
        taken.append(time.perf_counter() - start)
        peak = peak if turn else _peak_mb()
    assert program is not None
    files = [path, *path.parent.glob(f"{path.name}.*")]  # external data lies beside its model
    size = sum(file.stat().st_size for file in files) / 1e6
    seconds = {"first_s": taken[0], "s": statistics.median(taken[1:])}
    return [{"model": path.stem, "file_mb": size, **seconds, "peak_mb": peak, "tiles": program.tiles}]


def measure_run(path: Path) -> list[dict[str, Any]]:
    """All batches and numbers of threads of one model."""
    import pcmc

    program = pcmc.compile(path)
    first = [info.shape[0] for info in program.inputs if info.shape]
    fixed = [size for size in first if isinstance(size, int)]
    batches = (fixed[0],) if fixed else (1, BATCH) if first else (1,)
    found = []
    for threads in (1, 2) if (os.cpu_count() or 1) > 1 else (1,):
        sessions = _sessions(program, threads)
        for batch in batches:
            row = {"model": path.stem, "batch": batch, "threads": threads}
            try:
                found.append(row | _compared(sessions, program, batch, BARS.get((path.stem, batch))))
            except Exception as error:  # a model may refuse this batch; the others are still worth measuring
                found.append(row | {"note": f"{type(error).__name__}: {error}".splitlines()[0]})
    return found


def _sessions(program: Program, threads: int) -> dict[str, Any]:
    import onnxruntime

    import pcmc

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    model = program.model.SerializeToString()
    return {
        "onnxruntime": onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]),
        "ideal": pcmc.Session(program, threads=threads),
        "full": pcmc.Session(program, "full", threads=threads),
    }


def _compared(
    sessions: dict[str, Any], program: Program, batch: int, bars: tuple[float, float] | None
) -> dict[str, Any]:
    from pcmc.workflows.samples import random_inputs

    feeds = random_inputs(program, batch, seed=0)
    calls = [lambda session=session: session.run(None, feeds) for session in sessions.values()]
    reference, ideal, full = alternate(calls)
    return {
        "onnxruntime_ms": reference * 1e3,
        "ideal_ms": ideal * 1e3,
        "full_ms": full * 1e3,
        "ideal_ratio": ideal / reference,
        "full_ratio": full / reference,
        "bar": bars and bars[0],
        "full_bar": bars and bars[1],
        "met": bars and (ideal <= bars[0] * reference and full <= bars[1] * reference),
    }


def alternate(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """Median seconds of each call, taken in turns: fewer turns, but at least three, where calls are slow."""
    repeats, once = [], 0.0
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        seconds = max(time.perf_counter() - start, 1e-7)
        repeats.append(max(1, int(LEAST_S / seconds)))
        once += seconds * (repeats[-1] + 1)
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(min(TURNS, max(3, int(LONGEST_S / once)))):
        for call, repeat, times in zip(calls, repeats, taken, strict=True):
            time.sleep(PAUSE_S)
            call()  # wakes threads and fills caches
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            times.append((time.perf_counter() - start) / repeat)
    return [statistics.median(times) for times in taken]


def _peak_mb() -> float:
    """The most memory that this process ever had, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main(what: str, path: Path) -> None:
    from pcmc.errors import PcmcError

    try:
        found = {"compile": measure_compile, "run": measure_run}[what](path)
    except PcmcError as error:
        found = [{"model": path.stem, "note": str(error).removeprefix(f"{path.name}: ")}]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
