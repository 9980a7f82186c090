"""What pcmc computes, in the same terms as `aihwkit_tasks`."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.cell_specs import PcmCellSpec

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec
    from pcmc.runtime.program import Program

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]
G_MAX = 25.0
"""uS, both sides: the range of the published fit."""
MODEL = "cifar10_resnet32_akamaster_ts11"


def matched_chip() -> ChipSpec:
    """nature2018 with PCM up to 25 uS and without bias rows: biases are digital, as in aihwkit."""
    from pcmc.accel.chip import load_chip

    chip = load_chip("nature2018")
    assert isinstance(chip.cell, PcmCellSpec)
    return dataclasses.replace(
        chip,
        cell=dataclasses.replace(chip.cell, g_max_us=G_MAX),
        tile=dataclasses.replace(chip.tile, rows=512, bias_row=False),
    )


def devices(targets_us: Sequence[float], times_s: Sequence[float], count: int, seed: int) -> Arrays:
    """Samples of single devices, named as `aihwkit_tasks.devices` names them."""
    from pcmc.accel.cells import make_cell, pcm
    from pcmc.accel.random import stream

    spec = matched_chip().cell
    assert isinstance(spec, PcmCellSpec)
    cell = make_cell(spec)
    unit_us = spec.significance * G_MAX  # a weight of 1 is 25 uS
    found: Arrays = {}
    for i, target in enumerate(targets_us):
        weights = np.full(count, target / G_MAX, np.float32)
        pairs = cell.program(weights, unit_us, stream(seed, (i,), "programming_error"))
        alone = dataclasses.replace(pairs, g_minus=np.zeros(count, np.float32))  # G+ is all that is read
        # After t0 e seconds the factor of drift is exp(-nu).
        factor = pcm.drift_factor(weights, spec, spec.t0_s * math.e, stream(seed, (i,), "exponents"))
        found |= {f"programmed_{i}": pairs.g_plus, f"nu_{i}": -np.log(factor)}
        for j, at_s in enumerate(times_s):
            for turn in range(2):
                noise, drift = stream(seed, (i, j), "read_noise", turn), stream(seed, (i,), "drift")
                found[f"read_{i}_{j}_{turn}"] = cell.read(alone, unit_us, noise, at_s, drift) * G_MAX
    return found


def layer(weights: Floats, x: Floats, programmings: int, at_s: float, seed: int) -> Arrays:
    """Outputs [programmings, out] of weights [out, in] for x [2, in], through compile and Session,
    read at `at_s` seconds after programming.

    first and second: both inputs; again: the first with the read noise of another session on the same
    devices.
    """
    from pcmc.accel.physics import Physics
    from pcmc.runtime.session import Session

    program = _dense(weights)
    physics = Physics(programming_error=True, read_noise="frozen", drift=True)
    found: dict[str, list[Any]] = {name: [] for name in ("first", "second", "again")}
    for number in range(programmings):
        session = Session(program, physics, seed=seed + 2 * number, threads=1, at=at_s)
        first, second = session.run(None, {"x": x})[0]
        other = Session(program, physics, seed=seed + 2 * number + 1, threads=1, state=session.state, at=at_s)
        again = other.run(None, {"x": x})[0][0]
        for name, output in (("first", first), ("second", second), ("again", again)):
            found[name].append(output)
    return {name: np.array(outputs) for name, outputs in found.items()}


def _dense(weights: Floats) -> Program:
    import onnx
    from onnx import TensorProto, helper

    import pcmc

    out, inputs = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", out])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(weights.T), "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return pcmc.compile(helper.make_model(graph, opset_imports=opsets, ir_version=8), matched_chip())


def model_path() -> Path | None:
    """The ResNet-32 in the folder that PCMC_TEST_MODELS names, if it is there."""
    path = Path(os.environ.get("PCMC_TEST_MODELS", ""), f"{MODEL}.onnx")
    return path if path.is_file() else None


def network_arrays(path: Path) -> Arrays:
    """Weights and biases of its convolutions, in order, and of its dense layer, for `aihwkit_tasks`."""
    import onnx

    graph = onnx.load(path).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found: Arrays = {}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for i, node in enumerate(convolutions):
        found |= {f"conv_weight_{i}": values[node.input[1]], f"conv_bias_{i}": values[node.input[2]]}
    (dense,) = (node for node in graph.node if node.op_type == "Gemm")
    return found | {"dense_weight": values[dense.input[1]], "dense_bias": values[dense.input[2]]}


def accuracies(path: Path, images: Floats, labels: Labels, seeds: Sequence[int]) -> list[float]:
    """Percent right for each seed: programming error and frozen read noise, no converters."""
    import pcmc
    from pcmc.accel.physics import Physics
    from pcmc.runtime.session import Session

    program = pcmc.compile(path, matched_chip())
    physics = Physics(programming_error=True, read_noise="frozen")
    name = program.inputs[0].name
    found = []
    for seed in seeds:
        session = Session(program, physics, seed=seed)
        logits = np.concatenate(
            [session.run(None, {name: images[i : i + 250]})[0] for i in range(0, len(images), 250)]
        )
        found.append(100.0 * float((logits.argmax(axis=1) == labels).mean()))
    return found


def cifar10(count: int) -> tuple[Floats, Labels]:
    """The first test images of CIFAR-10, normalized by ImageNet's mean and deviation as the network wants."""
    from pcmc.models import datasets

    images, labels = datasets.load("cifar10")
    mean = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
    deviation = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
    normal: Floats = (images[:count].astype(np.float32) / np.float32(255) - mean) / deviation
    return normal, labels[:count]
