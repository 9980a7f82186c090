"""What aihwkit trains. Runs in its own environment, one measurement a process, without pcmc; prints JSON:

python -m benchmarks.peers.aihwkit_training train CONFIG data.npz RATE EXAMPLES SECONDS THREADS
python -m benchmarks.peers.aihwkit_training memory CONFIG SIDE
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aihwkit.nn import AnalogLinear  # type: ignore[import-not-found]
from aihwkit.nn.conversion import convert_to_analog  # type: ignore[import-not-found]
from aihwkit.optim import AnalogSGD  # type: ignore[import-not-found]
from aihwkit.simulator.configs import (  # type: ignore[import-not-found]
    FloatingPointRPUConfig,
    TransferCompound,
    UnitCellRPUConfig,
)
from aihwkit.simulator.presets import (  # type: ignore[import-not-found]
    CapacitorPreset,
    CapacitorPresetDevice,
    PCMPreset,
    PCMPresetUnitCell,
    PresetIOParameters,
    PresetUpdateParameters,
    TikiTakaCapacitorPreset,
)
from torch import nn

Row = dict[str, Any]
GAIN = 1.0
"""What a unit of the PCM pair is worth beside one of the capacitor. pcmc's F = 3 would be worse here: single
pulses change a pair by up to 0.3, and pcmc programs it in a closed loop.
"""
INTERVAL, COLUMNS = 8000, 529
"""Examples between transfers of the same column; columns, in aihwkit's terms, of the largest layer."""
PROBE = 100
"""Examples before the clock starts, which also say how many can be trained in the time given."""


def compound(refresh_every: int) -> Any:
    """A capacitor that takes the updates and a pair of PCM devices that takes its transfers, read together.

    A column at a time is read, added to the pair at 1/GAIN of its value, and reset, each once in INTERVAL
    examples of the first layer. Converters, noise and pulses as in the presets.
    """
    made = UnitCellRPUConfig()
    made.device = TransferCompound(
        unit_cell_devices=[CapacitorPresetDevice(), PCMPresetUnitCell(refresh_every=refresh_every)],
        gamma_vec=[1.0, GAIN],
        transfer_forward=PresetIOParameters(), transfer_update=PresetUpdateParameters(), units_in_mbatch=True,
        transfer_every=INTERVAL // COLUMNS, with_reset_prob=1.0,
        transfer_lr=1 / GAIN, scale_transfer_lr=False,
    )  # fmt: skip
    made.forward, made.backward = PresetIOParameters(), PresetIOParameters()
    made.update = PresetUpdateParameters()
    return made


def pcm_pair(refresh_every: int) -> Any:
    made = PCMPreset()
    made.device.refresh_every = refresh_every
    return made


CONFIGS: dict[str, tuple[Callable[[], Any], float]] = {
    "floating point": (FloatingPointRPUConfig, 0.0),
    "capacitor": (CapacitorPreset, 0.0),
    "Tiki-Taka, capacitors": (TikiTakaCapacitorPreset, 0.0),
    "PCM pair, refresh at each update": (PCMPreset, 1.0),
    "PCM pair, refresh every 100": (lambda: pcm_pair(100), 1.0),
    "capacitor + PCM, refresh at each update": (lambda: compound(1), 0.6),
    "capacitor + PCM, refresh every 8,000": (lambda: compound(INTERVAL), 0.6),
}
"""Configurations, and what of a device's range a layer's largest weight gets (0: weights as they are)."""


def configured(name: str) -> Any:
    """A configuration with biases on the array, and layers that are not cut: quicker for aihwkit."""
    make, share = CONFIGS[name]
    made = make()
    made.mapping.digital_bias = False
    made.mapping.max_input_size = made.mapping.max_output_size = 0
    made.mapping.weight_scaling_omega = share
    return made


def network(weights: list[Any], name: str) -> Any:
    """Layers of [rows + 1, cols], biases last, with tanh between them; "PyTorch" is the network as it is."""
    layers: list[nn.Module] = []
    for values in map(torch.from_numpy, weights):
        linear = nn.Linear(values.shape[0] - 1, values.shape[1])
        linear.weight.data.copy_(values[:-1].T)
        linear.bias.data.copy_(values[-1])
        layers += [linear, nn.Tanh()]
    plain = nn.Sequential(*layers[:-1])
    return plain if name == "PyTorch" else convert_to_analog(plain, configured(name))


def train(name: str, file: Path, rate: float, examples: int, seconds: float, threads: int) -> Row:
    """Train one example at a time: at most `examples`, no more than fit in `seconds`, in the order of `file`.

    Its arrays: x, labels, test_x, test_labels, and weights_0, weights_1 and so on.
    Keys of the answer: examples, examples_s, accuracy (percent of the test).
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with np.load(file) as given:
        arrays = {key: given[key] for key in given.files}
    net = network([arrays[key] for key in sorted(arrays) if key.startswith("weights")], name)
    x, labels = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["labels"])
    if name == "PyTorch":
        optimizer: Any = torch.optim.SGD(net.parameters(), lr=rate)
    else:
        optimizer = AnalogSGD(net.parameters(), lr=rate)
        optimizer.regroup_param_groups(net)
    loss = nn.CrossEntropyLoss()

    def steps(first: int, last: int) -> float:
        start = time.perf_counter()
        for i in range(first, last):
            optimizer.zero_grad()
            loss(net(x[i : i + 1]), labels[i : i + 1]).backward()
            optimizer.step()
        return (time.perf_counter() - start) / max(last - first, 1)

    steps(0, PROBE // 2)
    fitting = int(seconds / steps(PROBE // 2, PROBE))
    count = min(examples, len(x), max(2 * PROBE, fitting))
    taken = steps(PROBE, count)
    right = 0
    with torch.no_grad():
        net.eval()
        test_x, test_labels = torch.from_numpy(arrays["test_x"]), torch.from_numpy(arrays["test_labels"])
        for part, truth in zip(test_x.split(500), test_labels.split(500), strict=True):
            right += int((net(part).argmax(1) == truth).sum())
    return {"examples": count, "examples_s": 1 / taken, "accuracy": 100 * right / len(test_x)}


def memory(name: str, side: int) -> Row:
    """Bytes for each weight of a layer of `side` x `side`, once it has been trained on an example."""
    torch.set_num_threads(1)
    config = configured(name)
    _step(AnalogLinear(8, 8, bias=False, rpu_config=config))  # what the library allocates once
    gc.collect()
    before = resident()
    layer = AnalogLinear(side, side, bias=False, rpu_config=config)
    _step(layer)
    gc.collect()
    return {"bytes": (resident() - before) / side**2}


def _step(layer: Any) -> None:
    optimizer = AnalogSGD(layer.parameters(), lr=0.01)
    optimizer.regroup_param_groups(layer)
    optimizer.zero_grad()
    layer(torch.rand(1, layer.in_features)).square().sum().backward()
    optimizer.step()


def resident() -> int:
    """Bytes of this process in memory, from Linux's /proc."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmRSS")


def main(what: str, name: str, *rest: str) -> None:
    if what == "memory":
        print(json.dumps(memory(name, int(rest[0]))))
        return
    file, rate, examples, seconds, threads = rest
    print(json.dumps(train(name, Path(file), float(rate), int(examples), float(seconds), int(threads))))


if __name__ == "__main__":
    main(*sys.argv[1:])
