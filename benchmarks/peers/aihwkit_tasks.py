"""What aihwkit computes. Runs in its own environment, one task a process, without pcmc:

python -m benchmarks.peers.aihwkit_tasks TASK input.npz output.npz
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from aihwkit.inference.noise.pcm import PCMLikeNoiseModel  # type: ignore[import-not-found]
from aihwkit.nn.conversion import convert_to_analog  # type: ignore[import-not-found]
from aihwkit.simulator.configs import (  # type: ignore[import-not-found]
    InferenceRPUConfig,
    TorchInferenceRPUConfig,
)
from aihwkit.simulator.parameters import (  # type: ignore[import-not-found]
    IOParameters,
    MappingParameter,
    WeightModifierParameter,
)
from aihwkit.simulator.parameters.enums import (  # type: ignore[import-not-found]
    BoundManagementType,
    NoiseManagementType,
)
from aihwkit.simulator.presets import StandardHWATrainingPreset  # type: ignore[import-not-found]
from torch import nn

from benchmarks.peers.aihwkit_networks import (
    ADC_CELLS,
    ADC_LEVELS,
    DAC_LEVELS,
    ROWS,
    Digitized,
    Ranged,
    ResNet,
)

Arrays = dict[str, Any]
G_MAX = 25.0
"""uS, both sides: the range of the published fit."""
FIRST_READ_S = 20.0
"""aihwkit's clock, t_inference, starts here: this long after programming."""


class PairsKept(PCMLikeNoiseModel):  # type: ignore[misc]
    """PCMLikeNoiseModel that keeps both devices of a pair.

    As shipped, tiles keep only the programmed weight G+ - G-, and split it again at each time: the device
    that should be at RESET is then exactly 0, and conductances are rescaled so that the largest programmed
    one is g_max. Here every device keeps what was programmed into it, and nu belongs to that, not to the
    target. The laws are the same.
    """

    def apply_programming_noise(self, weights: Any) -> tuple[Any, list[Any]]:
        """Programmed weights, and for each device of the pair (conductance, nu, scale)."""
        targets, scale = self.g_converter.convert_to_conductances(weights)
        programmed = [self.apply_programming_noise_to_conductance(target) for target in targets]
        nu = [self.generate_drift_coefficients(g) for g in programmed]
        kept = [(g, exponent, scale) for g, exponent in zip(programmed, nu, strict=True)]
        return self.g_converter.convert_back_to_weights(programmed, scale), kept

    def apply_drift_noise(self, weights: Any, kept: list[Any], t_inference: float) -> Any:
        """Weights at a time, from what `apply_programming_noise` kept."""
        found = [self.apply_drift_noise_to_conductance(g, nu, t_inference) for g, nu, _ in kept]
        return self.g_converter.convert_back_to_weights(found, kept[0][2])


def config(
    noise_model: Any,
    *,
    converters: bool = False,
    base: Any = InferenceRPUConfig,
    rows: int = 512,
    scaled: bool = True,
    adc_cells: float = ADC_CELLS,
) -> Any:
    """One scale for each tile, no compensation, no noise beside `noise_model`, bias outside of the array.

    With converters: 8 bits in, `scaled` by the largest input of each vector or with the range 1; 9 bits out,
    full scale `adc_cells`. Layers are then cut into tiles of at most `rows` inputs; without converters cuts
    change nothing, and there are none.
    """
    made = base()
    made.noise_model = noise_model
    made.drift_compensation = None
    size = rows if converters else 0
    made.mapping = MappingParameter(
        weight_scaling_omega=1.0, weight_scaling_columnwise=False, digital_bias=True,
        learn_out_scaling=False, max_input_size=size, max_output_size=0,
    )  # fmt: skip
    made.forward = IOParameters(is_perfect=True)
    if converters:
        made.forward = IOParameters(
            inp_res=1 / (2 * DAC_LEVELS), inp_bound=1.0, out_res=1 / (2 * ADC_LEVELS), out_bound=adc_cells,
            inp_noise=0.0, out_noise=0.0, w_noise=0.0, bound_management=BoundManagementType.NONE,
            noise_management=NoiseManagementType.ABS_MAX if scaled else NoiseManagementType.NONE,
        )  # fmt: skip
    return made


def devices(given: Arrays) -> Arrays:
    """Samples of single devices.

    Given: targets_us [k], times_s [t] since programming, count, seed; nu_of "target" (as tiles do) or
    "programmed" (what nu belongs to); nu_scale and clock_s for negative controls (1 and 0). Returns float32
    arrays [count]: programmed_I, nu_I at the target itself, and two reads of the same devices read_I_J_0 and
    read_I_J_1, for target I and time J.
    """
    torch.manual_seed(int(given["seed"]))
    model = PCMLikeNoiseModel(g_max=G_MAX, drift_scale=float(given["nu_scale"]))
    found: Arrays = {}
    for i, target in enumerate(given["targets_us"]):
        targets = torch.full((int(given["count"]),), float(target))
        programmed = model.apply_programming_noise_to_conductance(targets)
        nu = model.generate_drift_coefficients(targets)
        found |= {f"programmed_{i}": programmed.numpy(), f"nu_{i}": nu.numpy()}
        if given["nu_of"] == "programmed":
            nu = model.generate_drift_coefficients(programmed)
        for j, at_s in enumerate(given["times_s"]):
            t_inference = float(at_s) - FIRST_READ_S + float(given["clock_s"])
            for turn in range(2):
                read = model.apply_drift_noise_to_conductance(programmed, nu, t_inference)
                found[f"read_{i}_{j}_{turn}"] = read.numpy()
    return found


def layer(given: Arrays) -> Arrays:
    """Outputs of a dense layer over many programmings, read at `at_s`.

    Given: weights [out, in], x [2, in], programmings, at_s, seed, pairs_kept. Returns float32 [programmings,
    out]: first and second input, the first again with new read noise (again), the second too (redrawn).
    """
    torch.manual_seed(int(given["seed"]))
    model = (PairsKept if given["pairs_kept"] else PCMLikeNoiseModel)(g_max=G_MAX)
    weights = torch.from_numpy(given["weights"])
    linear = nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    linear.weight.data.copy_(weights)
    analog = convert_to_analog(nn.Sequential(linear), config(model)).eval()
    x = torch.from_numpy(given["x"])
    found: dict[str, list[Any]] = {name: [] for name in ("first", "second", "again", "redrawn")}
    t_inference = float(given["at_s"]) - FIRST_READ_S
    with torch.no_grad():
        for _ in range(int(given["programmings"])):
            analog.program_analog_weights()
            for names in (("first", "second"), ("again", "redrawn")):
                analog.drift_analog_weights(t_inference)
                for name, output in zip(names, analog(x).numpy(), strict=True):
                    found[name].append(output)
    return {name: np.array(outputs) for name, outputs in found.items()}


def accuracy(given: Arrays) -> Arrays:
    """Accuracy on images, once for each seed.

    Given: the network's arrays, images, labels, seeds, at_s, pairs_kept, converters. The weights that
    aihwkit's layers hold after programming and reading go into PyTorch's own products, with converters
    into `Digitized`; `analog_gap` is the largest difference to aihwkit's own layers for 8 images, and
    `logits` are those of the network as it was given. Returns percent [seeds].
    """
    converters = bool(given["converters"])
    net, copy = ResNet(given).eval(), ResNet(given).eval()
    model = (PairsKept if given["pairs_kept"] else PCMLikeNoiseModel)(g_max=G_MAX)
    images, labels = torch.from_numpy(given["images"]), torch.from_numpy(given["labels"])
    found: list[float] = []
    gap = 0.0
    with torch.no_grad():
        logits = copy(images[:8])
        if converters:
            net.replace_layers(Ranged)
            copy.replace_layers(Digitized)
        chosen = config(model, converters=converters, rows=ROWS, scaled=False)
        analog = convert_to_analog(net, chosen).eval()
        for seed in given["seeds"]:
            torch.manual_seed(int(seed))
            analog.program_analog_weights()
            analog.drift_analog_weights(float(given["at_s"]) - FIRST_READ_S)
            _copy_weights(analog, copy)
            if not found:
                gap = float((analog(images[:8]) - copy(images[:8])).abs().max())
            right = sum(
                int((copy(part).argmax(1) == truth).sum())
                for part, truth in zip(images.split(250), labels.split(250), strict=True)
            )
            found.append(100.0 * right / len(labels))
    return {"accuracy": np.array(found), "analog_gap": np.array(gap), "logits": logits.numpy()}


def _copy_weights(analog: ResNet, plain: ResNet) -> None:
    """Put the weights that analog layers hold into the same layers of a plain network."""
    for source, target in zip(analog.layers(), plain.layers(), strict=True):
        weight, _ = getattr(source, "inner", source).get_weights()
        if isinstance(target, Digitized):
            target.set_weights(weight)
        else:
            target.weight.data.copy_(weight.reshape(target.weight.shape))


def converted_layer(given: Arrays) -> Arrays:
    """Outputs of a layer with DAC and ADC and nothing else.

    Given: weights [out, in] or [out, in, k, k] (no padding, stride 1), x, adc_cells, and image_ranges:
    whether inputs are scaled by the largest of each image rather than by aihwkit, for each vector of a tile.
    """
    weights, x = torch.from_numpy(given["weights"]), torch.from_numpy(given["x"])
    if weights.ndim == 2:
        layer: Any = nn.Linear(weights.shape[1], weights.shape[0])
    else:
        layer = nn.Conv2d(weights.shape[1], weights.shape[0], weights.shape[2])
    layer.weight.data.copy_(weights)
    layer.bias.data.zero_()
    ranged = bool(given["image_ranges"])
    net = nn.Sequential(Ranged(layer) if ranged else layer)
    chosen = config(None, converters=True, rows=ROWS, scaled=not ranged, adc_cells=float(given["adc_cells"]))
    with torch.no_grad():
        return {"outputs": convert_to_analog(net, chosen).eval()(x).numpy()}


def converted_network(given: Arrays) -> Arrays:
    """Logits of a network with DAC and ADC and nothing else: aihwkit's own layers with the range of each
    image (`ranged`) and of each patch (`shipped`), and of `Digitized` (`products`).

    Given: the network's arrays and images.
    """
    images = torch.from_numpy(given["images"])
    found = {}
    with torch.no_grad():
        for name, ranged in (("ranged", True), ("shipped", False)):
            net = ResNet(given).eval()
            net = net.replace_layers(Ranged) if ranged else net
            chosen = config(None, converters=True, rows=ROWS, scaled=not ranged)
            analog = convert_to_analog(net, chosen).eval()
            found[name] = torch.cat([analog(part) for part in images.split(50)]).numpy()
        copy = ResNet(given).eval().replace_layers(Digitized)
        found["products"] = torch.cat([copy(part) for part in images.split(50)]).numpy()
    return found


CONFIGS: dict[str, Callable[[], Any]] = {
    "converters alone": lambda: config(PCMLikeNoiseModel(g_max=G_MAX), converters=True),
    "converters alone, torch tiles": lambda: config(
        PCMLikeNoiseModel(g_max=G_MAX), converters=True, base=TorchInferenceRPUConfig
    ),
    "InferenceRPUConfig": InferenceRPUConfig,
    "StandardHWATrainingPreset": StandardHWATrainingPreset,
}
"""What is timed: DAC and ADC as pcmc's, with frozen noise; and aihwkit's own, which draw at each read."""


def model_speed(given: Arrays) -> Arrays:
    """Seconds for a batch: given the network's arrays, images [batch], threads, turns, at_s and `config`.

    Without a name of CONFIGS ("torch"), the network as it is.
    """
    _use_threads(given)
    net = ResNet(given).eval()
    name = str(given["config"])
    if name != "torch":
        net = convert_to_analog(net, CONFIGS[name]()).eval()
        net.drift_analog_weights(float(given["at_s"]) - FIRST_READ_S)
    images = torch.from_numpy(given["images"])
    return {"seconds": np.array(list(_timed(lambda: net(images), int(given["turns"]))))}


def tile_speed(given: Arrays) -> Arrays:
    """As `model_speed` for one dense layer: given weights [out, in] and x [vectors, in]."""
    _use_threads(given)
    weights = torch.from_numpy(given["weights"])
    net = nn.Sequential(nn.Linear(weights.shape[1], weights.shape[0], bias=False)).eval()
    net[0].weight.data.copy_(weights)
    name = str(given["config"])
    if name != "torch":
        net = convert_to_analog(net, CONFIGS[name]()).eval()
        net.drift_analog_weights(float(given["at_s"]) - FIRST_READ_S)
    x = torch.from_numpy(given["x"])
    return {"seconds": np.array(list(_timed(lambda: net(x), int(given["turns"]))))}


def about(given: Arrays) -> Arrays:
    """Versions, and the default polynomial of noise-aware training."""
    import aihwkit  # type: ignore[import-not-found]

    return {
        "aihwkit": np.array(aihwkit.__version__),
        "torch": np.array(torch.__version__),
        "aware_coefficients": np.array(WeightModifierParameter().coeffs),
        "published_coefficients": np.array(PCMLikeNoiseModel(g_max=G_MAX).prog_coeff) / G_MAX,
    }


def _use_threads(given: Arrays) -> None:
    torch.set_num_threads(int(given["threads"]))
    torch.manual_seed(0)


def _timed(call: Callable[[], Any], turns: int) -> Iterator[float]:
    """Seconds of a call, `turns` times, each the mean over as many calls as fill a hundredth of a second."""
    with torch.no_grad():
        call()
        start = time.perf_counter()
        call()
        calls = max(1, math.ceil(0.01 / (time.perf_counter() - start)))
        for _ in range(turns):
            start = time.perf_counter()
            for _ in range(calls):
                call()
            yield (time.perf_counter() - start) / calls


TASKS: dict[str, Callable[[Arrays], Arrays]] = {
    task.__name__: task
    for task in (
        devices,
        layer,
        accuracy,
        converted_layer,
        converted_network,
        model_speed,
        tile_speed,
        about,
    )
}


def main(task: str, source: str, target: str) -> None:
    with np.load(source, allow_pickle=False) as given:
        arrays = {name: given[name] for name in given.files}
    np.savez(target, **TASKS[task](arrays))


if __name__ == "__main__":
    main(*sys.argv[1:])
