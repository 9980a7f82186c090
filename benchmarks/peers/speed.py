"""How fast both are, in turns in one run, so that whatever else the machine does slows both.

What is compared, from the fairest on: frozen noise with DAC and ADC on both sides ("converters alone"; pcmc's
`physics="full"`), then aihwkit's own configurations, which draw noise anew at each read.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import ROOT, environment
from benchmarks.peers import ours
from benchmarks.peers.environment import CONFIGS, ask, thread_variables

Row = dict[str, Any]
BATCH = 64
VECTORS = (1, 32, 256)
SIDE = 512
ROUNDS = 3
BAR = 10.0
"""pcmc should be at least this many times as fast as aihwkit on ResNet-32."""
AT_S = 25.0


def model_rows(network: ours.Network) -> Iterator[Row]:
    """A network at batch 64. Keys: what, threads, images_s, times (ours over theirs), met."""
    arrays = ours.network_arrays(network)
    images = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32), np.float32)
    for threads in (1, 2):
        mine: dict[str, list[float]] = {"full": [], "onnxruntime": []}
        theirs: dict[str, list[float]] = {name: [] for name in ("torch", *CONFIGS)}
        for _ in range(ROUNDS):
            for side, seconds in _ours("model", threads, str(network.path)).items():
                mine[side] += seconds
            for name, taken in theirs.items():
                given = arrays | {"images": images, "config": name, "turns": 2, "at_s": AT_S}
                answer = ask("model_speed", given, threads)
                taken += answer["seconds"].tolist()
        reference = BATCH / statistics.median(mine["full"])
        runtime = BATCH / statistics.median(mine["onnxruntime"])
        yield {"what": "onnxruntime, no physics", "threads": threads, "images_s": runtime}
        yield {"what": 'pcmc, physics="full"', "threads": threads, "images_s": reference}
        for name, taken in theirs.items():
            speed = BATCH / statistics.median(taken)
            label = "PyTorch, no physics" if name == "torch" else f"aihwkit, {name}"
            row = {"what": label, "threads": threads, "images_s": speed, "times": reference / speed}
            yield row if name == "torch" else row | {"met": reference / speed >= BAR}


def tile_rows() -> Iterator[Row]:
    """A 512 x 512 tile. Keys: what, threads, vectors, ms, product (its float32 product), times."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(-1, 1, (SIDE, SIDE)).astype(np.float32)
    for threads in (1, 2):
        for vectors in VECTORS:
            given = {"weights": weights, "x": rng.standard_normal((vectors, SIDE), np.float32), "turns": 5}
            mine: list[float] = []
            theirs: dict[str, list[float]] = {name: [] for name in ("torch", *CONFIGS)}
            for name, taken in theirs.items():
                mine += _ours("tile", threads, str(vectors))["full"]
                answer = ask("tile_speed", given | {"config": name, "at_s": AT_S}, threads)
                taken += answer["seconds"].tolist()
            reference = statistics.median(mine)
            common = {"threads": threads, "vectors": vectors}
            yield common | {"what": "pcmc, DAC and ADC, frozen noise", "ms": 1e3 * reference}
            for name, taken in theirs.items():
                seconds = statistics.median(taken)
                label = "PyTorch, no physics" if name == "torch" else f"aihwkit, {name}"
                yield common | {"what": label, "ms": 1e3 * seconds, "times": seconds / reference}


def _ours(what: str, threads: int, argument: str) -> dict[str, list[float]]:
    """Seconds of pcmc's side, by name, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peers.speed", what, str(threads), argument]
    env = environment() | thread_variables(threads)
    run = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, list[float]] = json.loads(run.stdout)
    return found


def measure_model(threads: int, path: str) -> dict[str, list[float]]:
    """Seconds for a batch with full physics, and of onnxruntime."""
    import onnxruntime

    import pcmc
    from benchmarks.bench_models import alternate
    from pcmc.runtime.session import Session

    program = pcmc.compile(path)
    session = Session(program, "full", threads=threads)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    reference = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32), np.float32)
    feed = {program.inputs[0].name: images}
    full, runtime = alternate([lambda: session.run(None, feed), lambda: reference.run(None, feed)])
    return {"full": [full], "onnxruntime": [runtime]}


def measure_tile(threads: int, vectors: str) -> dict[str, list[float]]:
    """Seconds to read a 512 x 512 tile in one block with DAC and ADC."""
    from benchmarks.bench_models import alternate
    from pcmc.accel import tile

    rng = np.random.default_rng(0)
    weights = rng.uniform(-1, 1, SIDE * SIDE).astype(np.float32)
    bank = tile.make_bank(weights, np.array([[0, 0, SIDE, SIDE, 0, 0]]), SIDE, SIDE)
    x = rng.standard_normal((int(vectors), SIDE), np.float32)
    converters = tile.Converters(127, 255, adc_full=20.0)
    return {"full": alternate([lambda: tile.read(x, bank, converters=converters, threads=threads)])}


if __name__ == "__main__":
    measure = {"model": measure_model, "tile": measure_tile}[sys.argv[1]]
    print(json.dumps(measure(int(sys.argv[2]), sys.argv[3])))
