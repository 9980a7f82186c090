"""Training side by side: pcmc on its simulated chip and aihwkit with its presets, the same network and data.

    python -m benchmarks.peers.training      # prints rows, writes benchmarks/results/peers-training.json

528-250-125-10 (`benchmarks/training_baseline.py`), one example at a time, the same start and order of
examples on both sides. Each side trains one epoch, or as much of it
as fits in LONGEST_S. Accuracy is that of one seed. Before each of aihwkit's turns pcmc has one, so that
whatever else the machine does slows both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import ROOT
from benchmarks import environment as measured_environment
from benchmarks.peers.environment import python, require, thread_variables

if TYPE_CHECKING:
    from benchmarks.training_baseline import Data, Integers

Row = dict[str, Any]
LATEST = ROOT / "benchmarks" / "results" / "peers-training.json"
LONGEST_S = 180.0
"""Of an epoch on one thread; what takes longer gets as many examples as fit."""
SPEED_S, SPEED_EXAMPLES = 10.0, 10_000
"""On two threads, where only speed is measured: accuracy does not depend on threads."""
SIDE = 3000
"""Of the layer whose memory is measured: each float32 array of it is more than the 32 MB from which on glibc
gives freed memory back at once. What is measured is then what is held, and not some of the scratch as well.
"""


RATES = {
    "floating point": 0.01,
    "capacitor": 0.003,
    "Tiki-Taka, capacitors": 0.03,
    "PCM pair, refresh at each update": 0.001,
    "PCM pair, refresh every 100": 0.001,
    "capacitor + PCM, refresh at each update": 0.01,
    "capacitor + PCM, refresh every 8,000": 0.01,
}
"""The learning rate of each configuration of `aihwkit_training.CONFIGS`: the best of 0.003, 0.01, 0.03 and
0.1 (for PCM pairs also 0.0003 and 0.001) after the first 5,000 examples, tested on the last 5,000 training
images; but for floating point, which has pcmc's.
"""
FLOAT, FULL = "ideal", "full,read_noise=fast"
OURS = {FLOAT: "pcmc, ideal", FULL: "pcmc, two-tier, full physics"}


def rows() -> Iterator[Row]:
    """Keys: what, threads, data, rate, examples, examples_s; ratio: the speed of pcmc's full physics just
    before (of its ideal mode for floating point) over this; on one thread accuracy (percent) and bytes
    (for each weight).
    """
    from benchmarks import training_baseline as baseline

    data = baseline.load()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "data.npz")
        write_data(file, data, baseline.shuffled(len(data.x)))
        for threads in (1, 2):
            for row in _one_count(file, threads, len(data.x)):
                yield {"what": row.pop("what"), "threads": threads, "data": data.name} | row


def _one_count(file: Path, threads: int, whole: int) -> Iterator[Row]:
    limits = (whole, LONGEST_S) if threads == 1 else (SPEED_EXAMPLES, SPEED_S)
    for physics, name in OURS.items():
        found = ours("train", physics, str(threads), threads=threads)
        yield _complete(name, threads, found, ours("memory", physics))
    for name, rate in RATES.items():
        physics = FLOAT if name == "floating point" else FULL
        reference = ours("train", physics, str(threads), threads=threads)["examples_s"]
        request = ["train", name, str(file), str(rate), *map(str, limits), str(threads)]
        found = answer(request, threads) | {"rate": rate}
        found["ratio"] = reference / found["examples_s"]
        yield _complete(f"aihwkit, {name}", threads, found, answer(["memory", name, str(SIDE)]))


def _complete(what: str, threads: int, row: Row, memory: Row) -> Row:
    """A row; what does not depend on threads is said once."""
    row = {"what": what} | row
    return row | memory if threads == 1 else {key: row[key] for key in row if key != "accuracy"}


def text(row: Row) -> str:
    """A row as a line."""
    times = f"{row['ratio']:8.1f} x" if "ratio" in row else 10 * " "
    line = f"{row['what']:50}{row['threads']} threads  {row['examples_s']:9,.0f} examples/s {times}"
    if "accuracy" not in row:
        return line.rstrip()
    return f"{line}  {row['accuracy']:6.2f} % after {row['examples']:6,}  {row['bytes']:4.0f} bytes a weight"


def write_data(file: Path, data: Data, order: Integers) -> None:
    """What `aihwkit_training.train` reads."""
    from benchmarks.training_baseline import start

    arrays: dict[str, Any] = {"x": data.x[order], "labels": data.labels[order]}
    arrays |= {"test_x": data.test_x, "test_labels": data.test_labels}
    arrays |= {f"weights_{i}": values for i, values in enumerate(start())}
    np.savez(file, **arrays)


def answer(arguments: Sequence[str], threads: int = 1) -> Row:
    """What `aihwkit_training` measures in a process of its own.

    Raises:
        RuntimeError: it failed; with the last line of its standard error.
    """
    return _run(str(python()), "benchmarks.peers.aihwkit_training", arguments, threads)


def ours(*arguments: str, threads: int = 1) -> Row:
    """What this module measures of pcmc in a process of its own."""
    return _run(sys.executable, "benchmarks.peers.training", arguments, threads)


def _run(interpreter: str, module: str, arguments: Sequence[str], threads: int) -> Row:
    env = measured_environment() | thread_variables(threads)
    run = subprocess.run(
        [interpreter, "-m", module, *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        lines = run.stderr.strip().splitlines()
        raise RuntimeError(f"{module} {' '.join(arguments[:2])}: {lines[-1] if lines else run.returncode}")
    found: Row = json.loads(run.stdout.splitlines()[-1])
    return found


def train(physics: str, threads: int) -> Row:
    """An epoch of pcmc, as `aihwkit_training.train` answers."""
    import time

    from benchmarks import bench_train
    from benchmarks import training_baseline as baseline

    data = baseline.load()
    trainer = bench_train.trainer_of(bench_train.pcmc_program(), physics, threads=threads)
    start = time.perf_counter()
    trainer.fit(data.x, data.labels)
    speed = len(data.x) / (time.perf_counter() - start)
    accuracy = 100 * trainer.evaluate(data.test_x, data.test_labels).accuracy
    return {"rate": baseline.RATE, "examples": len(data.x), "examples_s": speed, "accuracy": accuracy}


def memory(physics: str) -> Row:
    """Bytes for each weight of a layer in training, beyond those of its Program."""
    import gc

    import onnx

    import pcmc
    from benchmarks import bench_train

    def program_of(side: int) -> Any:
        weights = np.random.default_rng(0).uniform(-0.05, 0.05, (side, side)).astype(np.float32)
        graph = onnx.parser.parse_graph(
            f"g (float[N,{side}] x) => (float[N,{side}] y) {{ y = MatMul(x, w) }}"
        )
        graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
        return pcmc.compile(onnx.helper.make_model(graph))

    def trained(program: Any, side: int) -> Any:
        trainer = bench_train.trainer_of(program, physics, loss="mse")
        x = np.random.default_rng(1).random((1, side), np.float32)
        trainer.fit(x, np.zeros((1, side), np.float32))
        return trainer

    trained(program_of(8), 8)  # what libraries allocate once
    program = program_of(SIDE)
    gc.collect()
    before = _resident()
    trainer = trained(program, SIDE)
    gc.collect()
    after = _resident()
    del trainer
    return {"bytes": (after - before) / SIDE**2}


def _resident() -> int:
    """Bytes of this process in memory, from Linux's /proc."""
    pages = Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def report() -> None:
    """All rows, printed as they are measured and written as JSON."""
    from benchmarks.__main__ import machine

    require()
    result: Row = {"machine": machine(), "sections": {"training": []}}
    LATEST.parent.mkdir(parents=True, exist_ok=True)
    for row in rows():
        result["sections"]["training"].append(row)
        print(text(row), flush=True)
        LATEST.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main(*arguments: str) -> None:
    if not arguments:
        report()
        return
    what, physics, *rest = arguments
    print(json.dumps(memory(physics) if what == "memory" else train(physics, int(rest[0]))))


if __name__ == "__main__":
    main(*sys.argv[1:])
