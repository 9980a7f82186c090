"""Writes torch_steps.npz: a small residual network before and after steps of PyTorch's SGD.

    build/peers-venv/bin/python tests/runtime/trainer/data/make_torch_steps.py

The test beside it (test_torch_steps.py) trains the same network, as an ONNX model compiled onto the chip, by
the same steps: three of the same batch, the rate halved after each, without and with momentum. Everything in
float64, stored as float32.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

BATCH, CLASSES, STEPS, RATE, DECAY = 6, 4, 3, 0.2, 0.5


def parameters(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    sizes = {
        "k1": (6, 2, 3, 3), "b1": (6,), "k2": (6, 6, 3, 3), "k3": (8, 6, 3, 1), "b3": (8,),
        "w1": (32, 10), "c1": (10,), "w2": (10, CLASSES), "c2": (CLASSES,),
    }  # fmt: skip
    drawn = {}
    for name, size in sizes.items():
        inputs = max(1, int(np.prod(size[1:])) if name.startswith("k") else size[0])
        values = (rng.standard_normal(size) / np.sqrt(inputs)).astype(np.float32)
        drawn[name] = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    return drawn


def network(x: torch.Tensor, p: dict[str, torch.Tensor]) -> torch.Tensor:
    a = functional.relu(functional.conv2d(x, p["k1"], p["b1"], padding=1))
    b = functional.relu(a + functional.conv2d(a, p["k2"], padding=2, dilation=2))
    c = torch.tanh(functional.conv2d(b, p["k3"], p["b3"], stride=(2, 3), padding=(1, 0)))
    d = functional.max_pool2d(c, (2, 1), stride=(2, 2))
    e = torch.sigmoid(d.flatten(1) @ p["w1"] + p["c1"])
    return e @ p["w2"] + p["c2"]


def steps(
    start: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, momentum: float
) -> dict[str, np.ndarray]:
    p = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.SGD(p.values(), lr=RATE, momentum=momentum)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(x, p), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for group in optimizer.param_groups:
            group["lr"] *= DECAY
    return {"losses": np.array(losses)} | {
        name: value.detach().numpy().astype(np.float32) for name, value in p.items()
    }


def main() -> None:
    rng = np.random.default_rng(7)
    start = parameters(rng)
    x = rng.standard_normal((BATCH, 2, 9, 12)).astype(np.float32)
    y = rng.integers(0, CLASSES, BATCH)
    arrays: dict[str, Any] = {
        "x": x,
        "y": y,
        "provenance": np.array(f"make_torch_steps.py, PyTorch {torch.__version__}, seed 7"),
    }
    arrays |= {f"start/{name}": value.detach().numpy().astype(np.float32) for name, value in start.items()}
    for momentum in (0.0, 0.9):
        found = steps(start, torch.tensor(x, dtype=torch.float64), torch.tensor(y), momentum)
        arrays |= {f"momentum {momentum}/{name}": value for name, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("torch_steps.npz"), **arrays)


if __name__ == "__main__":
    main()
