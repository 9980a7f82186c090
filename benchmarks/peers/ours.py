"""What pcmc computes, in the same terms as `aihwkit_tasks`."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
MOST_ROWS = 288
"""Inputs of a tile with converters: aihwkit cuts layers into equal parts, so 576 inputs are two of these."""
BATCH = 250


@dataclass(frozen=True, slots=True)
class Network:
    """A model file, and whether it is trained on x / 255 less the mean of each pixel, channels last, rather
    than normalized by ImageNet's mean and deviation.
    """

    name: str
    file: str
    centred: bool

    @property
    def path(self) -> Path | None:
        """Its file in the folder that PCMC_TEST_MODELS names, if it is there."""
        path = Path(os.environ.get("PCMC_TEST_MODELS", ""), self.file)
        return path if path.is_file() else None


RESNET32 = Network("ResNet-32", "cifar10_resnet32_akamaster_ts11.onnx", centred=False)
RESNET20 = Network("ResNet-20", "cifar10_resnet20_crosssim.onnx", centred=True)


def matched_chip(converters: bool = False) -> ChipSpec:
    """nature2018 with PCM up to 25 uS and without bias rows: biases are digital, as in aihwkit.

    With converters, layers are cut as aihwkit cuts them, between inputs; each tile has a scale of its own.
    """
    from pcmc.accel.chip import WeightSpec, load_chip

    chip = load_chip("nature2018")
    assert isinstance(chip.cell, PcmCellSpec)
    return dataclasses.replace(
        chip,
        cell=dataclasses.replace(chip.cell, g_max_us=G_MAX),
        tile=dataclasses.replace(chip.tile, rows=MOST_ROWS if converters else 512, cols=512, bias_row=False),
        weights=WeightSpec(scale="tile" if converters else "matrix"),
    )


def devices(targets_us: Sequence[float], times_s: Sequence[float], count: int, seed: int) -> Arrays:
    """Samples of single devices, named as `aihwkit_tasks.devices` names them."""
    from pcmc.accel.cells import make_cell, pcm
    from pcmc.accel.random import stream

    spec = matched_chip().cell
    assert isinstance(spec, PcmCellSpec)
    cell = make_cell(spec)
    found: Arrays = {}
    for i, target in enumerate(targets_us):
        targets = np.full((1, count), spec.significance * target, np.float32)
        pairs = cell.program(targets, stream(seed, (i,), "programming_error"))
        alone = dataclasses.replace(pairs, g_minus=np.zeros_like(pairs.g_minus))  # G+ is all that is read
        # After t0 e seconds the factor of drift is exp(-nu).
        x = np.full(count, target / G_MAX, np.float32)
        factor = pcm.drift_factor(x, spec, spec.t0_s * math.e, stream(seed, (i,), "exponents"))
        found |= {f"programmed_{i}": pairs.g_plus[0], f"nu_{i}": -np.log(factor)}
        for j, at_s in enumerate(times_s):
            for turn in range(2):
                noise, drift = stream(seed, (i, j), "read_noise", turn), stream(seed, (i,), "drift")
                read = cell.weights_us(cell.age(alone, at_s, noise, drift))[0]
                found[f"read_{i}_{j}_{turn}"] = read / np.float32(spec.significance)
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
    import pcmc

    return pcmc.compile(_single_layer(weights), matched_chip())


def _single_layer(weights: Floats, image: tuple[int, ...] = ()) -> Any:
    """A model of one layer: dense for weights [out, in]; for [out, in, k, k] a convolution of an `image` of
    this height and width, without padding.
    """
    import onnx
    from onnx import TensorProto, helper

    out, inputs, *kernel = weights.shape
    sizes = [size - side + 1 for size, side in zip(image, kernel, strict=True)]
    shapes = {"x": ["n", inputs, *image], "y": ["n", out, *sizes]}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    constant = weights if kernel else np.ascontiguousarray(weights.T)
    graph = helper.make_graph(
        [helper.make_node("Conv" if kernel else "MatMul", ["x", "w"], ["y"])],
        "layer",
        [x],
        [y],
        [onnx.numpy_helper.from_array(constant, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def converted_layer(weights: Floats, x: Floats) -> Floats:
    """Outputs of a layer with DAC and ADC and nothing else; weights [out, in] or [out, in, k, k]."""
    import pcmc
    from pcmc.accel.physics import Physics
    from pcmc.runtime.session import Session

    program = pcmc.compile(_single_layer(weights, x.shape[2:]), matched_chip(converters=True))
    found: Floats = Session(program, Physics(dac=True, adc=True), threads=1).run(None, {"x": x})[0]
    return found


def network_arrays(network: Network) -> Arrays:
    """Weights and biases of its convolutions, in order, and of its dense layer, for `aihwkit_networks`.

    What multiplies and adds behind a convolution (batch norm) is folded into it, in float64. A convolution
    of 1 x 1 is the shortcut of the block that begins with the other convolution of its input.
    """
    import onnx

    assert network.path is not None
    graph = onnx.load(network.path).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    main = [node for node in convolutions if values[node.input[1]].shape[2] > 1]
    firsts = {node.input[0]: i for i, node in enumerate(main)}
    found: Arrays = {}
    for node in convolutions:
        kind, i = ("conv", main.index(node)) if node in main else ("shortcut", firsts[node.input[0]])
        given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        weight, bias = (values[name].astype(np.float64) for name in node.input[1:3])
        for op, constant in _behind(node, graph, values):
            if op == "Mul":
                weight, bias = weight * constant[:, None, None, None], bias * constant
            else:
                bias = bias + constant
        found |= {
            f"{kind}_weight_{i}": weight.astype(np.float32),
            f"{kind}_bias_{i}": bias.astype(np.float32),
        }
        found |= {
            f"{kind}_stride_{i}": np.array(given["strides"][0]),
            f"{kind}_pads_{i}": np.array(given["pads"]),
        }
    return found | _dense_arrays(graph, values)


def _behind(node: Any, graph: Any, values: Arrays) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """The constants, one for each channel, that an output is multiplied by or added to, in order."""
    while True:
        users = [user for user in graph.node if node.output[0] in user.input]
        if len(users) != 1 or users[0].op_type not in ("Mul", "Add"):
            return
        (node,) = users
        constants = [values[name] for name in node.input if name in values]
        if not constants:
            return
        yield node.op_type, constants[0].astype(np.float64).ravel()


def _dense_arrays(graph: Any, values: Arrays) -> Arrays:
    (dense,) = (node for node in graph.node if node.op_type in ("Gemm", "MatMul"))
    weight = values[dense.input[1]]
    if dense.op_type == "Gemm":
        return {"dense_weight": weight, "dense_bias": values[dense.input[2]]}
    ((_, bias),) = _behind(dense, graph, values)
    return {"dense_weight": np.ascontiguousarray(weight.T), "dense_bias": bias.astype(np.float32)}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A network on the matched chip, and whether its DACs and ADCs are on."""

    network: Network
    converters: bool
    program: Program


def compiled(network: Network, converters: bool) -> Compiled:
    """Compile a network, whose file must be there, for the matched chip."""
    import pcmc

    assert network.path is not None
    return Compiled(network, converters, pcmc.compile(network.path, matched_chip(converters)))


def outputs(chip: Compiled, images: Floats, seed: int | None) -> Floats:
    """What a network gives for images [n, 3, 32, 32]: logits, or probabilities if the model ends so.

    With a seed there are programming error and frozen read noise, at the first read.
    """
    from pcmc.accel.physics import Physics
    from pcmc.runtime.session import Session

    on, noise = seed is not None, None if seed is None else "frozen"
    physics = Physics(dac=chip.converters, adc=chip.converters, programming_error=on, read_noise=noise)
    session = Session(chip.program, physics, seed=seed or 0, threads=1)
    name = chip.program.inputs[0].name
    parts = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    return np.concatenate([session.run(None, {name: model_input(chip.network, x)})[0] for x in parts])


def accuracies(chip: Compiled, images: Floats, labels: Labels, seeds: Sequence[int]) -> list[float]:
    """Percent right for each seed."""
    found = (outputs(chip, images, seed).argmax(axis=1) == labels for seed in seeds)
    return [100.0 * float(right.mean()) for right in found]


def model_input(network: Network, images: Floats) -> Floats:
    """Images [n, 3, 32, 32] as the model takes them."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if network.centred else images


def exact_outputs(network: Network, images: Floats) -> Floats:
    """What onnxruntime gives."""
    import onnxruntime

    session = onnxruntime.InferenceSession(network.path, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: model_input(network, images)}
    found: Floats = session.run(None, feed)[0]
    return found


def as_outputs(network: Network, logits: Floats) -> Floats:
    """Logits as the model gives them: probabilities, if that is how it ends."""
    if not network.centred:
        return logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Floats = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def cifar10(network: Network, count: int) -> tuple[Floats, Labels]:
    """The first test images of CIFAR-10, float32 [count, 3, 32, 32] as the network was trained on them."""
    from pcmc.models import datasets

    images, labels = datasets.load("cifar10")
    shares = images[:count].astype(np.float32) / np.float32(255)
    if network.centred:
        # Not every folder has all training images; with these the mean costs it 0.05 points.
        mean = datasets.load("cifar10", "train")[0][:20_000].mean(axis=0, dtype=np.float64) / 255
        return shares - mean.astype(np.float32), labels[:count]
    mean = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
    deviation = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
    normal: Floats = (shares - mean) / deviation
    return normal, labels[:count]
