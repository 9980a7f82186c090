"""How fast the simulated chip is trained: a first epoch of MNIST beside the same network's SGD in plain C.

    python -m benchmarks train

Network, data and software: `training_baseline`. Each row is a whole first epoch from the same weights, so
that pulses are as frequent as they get and transfers are in it; the median of turns in which all sides follow
each other. Times are the processor's for this process, which on one thread are those of an idle machine
(PyTorch's and those of the long run are the clock's). What is slow takes a part of an epoch. Accuracies are
those of the test after that epoch.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import in_process

if TYPE_CHECKING:
    from benchmarks.training_baseline import Data, Integers, PlainC
    from pcmc.runtime.program import Program

Row = dict[str, Any]
TURNS = 5
GENERAL, NUMPY, PYTORCH = 8_000, 8_000, 4_000
"""Examples of the slow ones."""
EPOCHS, EPOCHS_BAR_S = 20, 60.0
UPDATES = "pulses,step_mismatch,pulse_noise,leak,programming_error"
PULSES_BAR, FULL_BAR = 2.0, 4.0
TWO_TIER = "two-tier: pulses, mismatch, pulse noise, leak"
"""With transfers, whose writes have errors, and inversion."""
FULL = "two-tier full: DAC, ADC, read noise as well"
FULL_PHYSICS = "full,read_noise=fast"
"""With noise that is new at each read: the chip file's "frozen" draws none in training."""
C_SKIPPING, C_DENSE = "plain C, zeros passed over", "plain C, zeros multiplied"
C_WIDE, WIDE = "plain C, zeros passed over, 512-bit vectors", "-mprefer-vector-width=512"
"""By itself gcc takes 256 bits on processors that once slowed down with 512; for scale, not for the bars."""


@dataclass(frozen=True, slots=True)
class Side:
    """What is measured: `run` trains on the first so many of the epoch's examples, from the start, and
    returns the seconds that it took and the accuracy in the test, None if that was not asked for or is not
    known. `turns`: 0 for as many as the others.
    """

    run: Callable[[bool], tuple[float, float | None]]
    examples: int
    bar: float | None = None
    turns: int = TURNS


def rows() -> Iterator[Row]:
    """One thread. The first row says what the data are. Others:

    name, examples, us and examples_s (for an example), ratio (time over that of the faster plain C), accuracy
    in percent, and for some bar and met; the last has s, its bar is in seconds.
    """
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    saved = {key: os.environ.get(key) for key in threads}
    os.environ.update(threads)
    try:
        found = in_process("bench_train", "--measure")
    finally:
        for key, value in saved.items():
            os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)
    yield from found


def measure() -> list[Row]:
    """All rows."""
    from benchmarks import training_baseline as baseline

    data = baseline.load()
    program = pcmc_program()
    check_noise(program)
    how = baseline.PlainC().about
    about = {"name": "data", "note": f"{data.name}, {baseline.zero_share(data):.0%} zeros; {how}"}
    with tempfile.TemporaryDirectory() as folder:
        sides = software(data, Path(folder)) | chip(program, data)
        return [about, *compared(sides), long_run(program, data)]


def compared(sides: dict[str, Side]) -> Iterator[Row]:
    """A row for each side, measured in turns."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    accuracies: dict[str, float | None] = {}
    for turn in range(TURNS):
        for name, side in sides.items():
            if turn < side.turns:
                seconds, accuracy = side.run(not turn)
                taken[name].append(seconds / side.examples)
                accuracies.setdefault(name, accuracy)
    median = {name: statistics.median(times) for name, times in taken.items()}
    reference = min(median[C_SKIPPING], median[C_DENSE])
    for name, side in sides.items():
        each, ratio = median[name], median[name] / reference
        row = {
            "name": name,
            "examples": side.examples,
            "us": 1e6 * each,
            "examples_s": 1 / each,
            "ratio": ratio,
        }
        row |= {"accuracy": accuracies[name]}
        yield row if side.bar is None else row | {"bar": side.bar, "met": ratio <= side.bar}


def software(data: Data, folder: Path) -> dict[str, Side]:
    """Plain C, numpy, and PyTorch if the peer's environment is there."""
    from benchmarks import training_baseline as baseline

    order = baseline.shuffled(len(data.x))

    def in_c(plain: PlainC, skip: bool) -> Side:
        def run(tested: bool) -> tuple[float, float | None]:
            weights = baseline.start()
            start = time.process_time()
            plain.train(weights, data.x, data.labels, order, baseline.RATE, skip)
            seconds = time.process_time() - start
            return seconds, 100 * plain.accuracy(weights, data.test_x, data.test_labels) if tested else None

        return Side(run, len(data.x))

    def in_numpy(tested: bool) -> tuple[float, float | None]:
        weights = baseline.start()
        start = time.process_time()
        baseline.numpy_sgd(weights, data.x, data.labels, order[:NUMPY], baseline.RATE)
        return time.process_time() - start, None

    plain = baseline.PlainC()
    baseline.check(plain, data)
    sides = {C_SKIPPING: in_c(plain, True), C_DENSE: in_c(plain, False)}
    with contextlib.suppress(subprocess.CalledProcessError):  # a processor that is not an x86
        sides[C_WIDE] = in_c(baseline.PlainC([*baseline.OPTIONS, WIDE]), True)
    return sides | {"numpy": Side(in_numpy, NUMPY)} | _pytorch(data, order, folder)


def _pytorch(data: Data, order: Integers, folder: Path) -> dict[str, Side]:
    from benchmarks.peers import environment, training
    from benchmarks.training_baseline import RATE

    file = folder / "data.npz"

    def run(tested: bool) -> tuple[float, float | None]:
        found = training.answer(["train", "PyTorch", str(file), str(RATE), str(PYTORCH), "60", "1"])
        return PYTORCH / found["examples_s"], None

    if not environment.python().exists():
        return {}
    training.write_data(file, data, order[:PYTORCH])
    return {"PyTorch": Side(run, PYTORCH, turns=3)}


def chip(program: Program, data: Data) -> dict[str, Side]:
    """The simulated chip with more and more physics; and the general path, for networks of any form."""
    whole = len(data.x)

    def side(physics: str, examples: int, bar: float | None = None, **options: Any) -> Side:
        def run(tested: bool) -> tuple[float, float | None]:
            trainer = trainer_of(program, physics, **options)
            start = time.process_time()
            trainer.fit(data.x[:examples], data.labels[:examples])
            seconds = time.process_time() - start
            if not tested or examples < whole:
                return seconds, None
            return seconds, 100 * trainer.evaluate(data.test_x, data.test_labels).accuracy

        return Side(run, examples, bar)

    return {
        "pcmc, ideal": side("ideal", whole),
        f"pcmc, {TWO_TIER}": side(UPDATES, whole, PULSES_BAR),
        f"pcmc, {FULL}": side(FULL_PHYSICS, whole, FULL_BAR),
        "pcmc, ideal, general path": side("ideal", GENERAL, fast=False),
        f"pcmc, {FULL}, general path": side(FULL_PHYSICS, GENERAL, fast=False),
    }


def check_noise(program: Program) -> None:
    """Check that full physics has the noise that its row names, in the reads of training, both ways.

    Raises:
        AssertionError: two reads of the same inputs are equal.
    """
    import numpy as np

    for name, cells in trainer_of(program, FULL_PHYSICS).banks.items():
        bank = cells.bank
        for read, width in ((bank.forward, bank.rows), (bank.backward, bank.cols)):
            inputs = np.ones((16, width), np.float32)
            if np.array_equal(read(inputs), read(inputs)):
                raise AssertionError(
                    f"{FULL_PHYSICS}: {name}: two reads are equal, so there is no read noise"
                )


def long_run(program: Program, data: Data) -> Row:
    """All epochs with full physics, the rate falling, as the experiment took them."""
    trainer = trainer_of(program, FULL_PHYSICS, decay=0.9)
    start = time.perf_counter()
    trainer.fit(data.x, data.labels, EPOCHS, patience=0)
    seconds = time.perf_counter() - start
    examples = EPOCHS * len(data.x)
    return {
        "name": f"pcmc, {FULL}, {EPOCHS} epochs",
        "examples": examples,
        "us": 1e6 * seconds / examples,
        "examples_s": examples / seconds,
        "accuracy": 100 * trainer.evaluate(data.test_x, data.test_labels).accuracy,
        "s": seconds,
        "bar": EPOCHS_BAR_S,
        "met": seconds <= EPOCHS_BAR_S,
    }


def trainer_of(program: Program, physics: str, threads: int = 1, **options: Any) -> Any:
    """A Trainer at the rate that all sides have."""
    from benchmarks.training_baseline import RATE
    from pcmc.runtime.trainer.trainer import Trainer

    return Trainer(program, lr=RATE, seed=0, physics=physics, threads=threads, **options)


def pcmc_program() -> Program:
    """The network with its first weights, compiled for the default chip."""
    import onnx

    import pcmc
    from benchmarks.training_baseline import WIDTHS, start

    weights = start()
    nodes, initializers, tensor = [], [], "x"
    for layer, values in enumerate(weights):
        for name, array in ((f"w{layer}", values[:-1]), (f"b{layer}", values[-1])):
            initializers.append(onnx.numpy_helper.from_array(array, name))
        gemm, out = f"z{layer}", f"y{layer}"
        nodes.append(onnx.helper.make_node("Gemm", [tensor, f"w{layer}", f"b{layer}"], [gemm], gemm))
        last = layer == len(weights) - 1
        nodes.append(onnx.helper.make_node("Softmax" if last else "Tanh", [gemm], [out], out))
        tensor = out
    graph = onnx.helper.make_graph(
        nodes, "mnist", [_tensor("x", WIDTHS[0])], [_tensor(tensor, WIDTHS[-1])], initializers
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return pcmc.compile(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8))


def _tensor(name: str, width: int) -> Any:
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", width])


def main(arguments: Sequence[str]) -> None:
    if arguments == ["--measure"]:
        print(json.dumps(measure()))


if __name__ == "__main__":
    main(sys.argv[1:])
