"""Writes torch_gradients.npz beside itself: small networks, and PyTorch's gradients by all their parameters.

    python tests/runtime/ops/data/make_torch_gradients.py

Needs torch and numpy. Parameters and inputs are drawn in float32, so that they are exact in the file; PyTorch
computes in float64, and what it finds is stored in float32. The networks are written with PyTorch's own
functions here, with ONNX's operators in the test: no exporter is in between.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

Tensors = dict[str, torch.Tensor]

BATCH = 6


def mlp(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Two hidden layers, tanh and leaky ReLU."""
    hidden = torch.tanh(functional.linear(x, p["w1"], p["b1"]))
    hidden = functional.leaky_relu(functional.linear(hidden, p["w2"], p["b2"]), 0.1)
    return functional.linear(hidden, p["w3"], p["b3"])


def cnn(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    """Convolutions (one with groups), batch statistics, both pools, a residual sum."""
    y = functional.conv2d(x, p["w1"], p["b1"], stride=1, padding=1)
    y = functional.batch_norm(
        y, p["mean1"], p["var1"], p["scale1"], p["shift1"], training=True, momentum=0.1, eps=1e-5
    )
    y = functional.max_pool2d(functional.relu(y), 2)
    z = functional.conv2d(y, p["w2"], None, padding=2, dilation=2, groups=2)
    z = functional.batch_norm(z, p["mean2"], p["var2"], p["scale2"], p["shift2"], training=False, eps=1e-3)
    y = functional.avg_pool2d(functional.relu(y + z), 3, stride=2, padding=1, count_include_pad=False)
    return functional.linear(y.mean(dim=(2, 3)), p["w3"], p["b3"])


def attention(p: Tensors, x: torch.Tensor) -> torch.Tensor:
    """A transformer's block with two heads, normalized ahead of its parts; then a mean over the tokens."""
    n, tokens, width = x.shape
    y = functional.layer_norm(x, (width,), p["scale1"], p["shift1"], eps=1e-5)
    q, k, v = (
        torch.matmul(y, p[name]).reshape(n, tokens, 2, width // 2).transpose(1, 2)
        for name in ("wq", "wk", "wv")
    )
    scores = torch.softmax(torch.matmul(q, k.transpose(2, 3)) / (width // 2) ** 0.5, dim=-1)
    mixed = torch.matmul(scores, v).transpose(1, 2).reshape(n, tokens, width)
    x = x + torch.matmul(mixed, p["wo"])
    y = functional.layer_norm(x, (width,), p["scale2"], p["shift2"], eps=1e-5)
    x = x + torch.matmul(functional.gelu(torch.matmul(y, p["w1"]) + p["b1"]), p["w2"]) + p["b2"]
    return torch.matmul(x.mean(dim=1), p["w3"]) + p["b3"]


Network = Callable[[Tensors, torch.Tensor], torch.Tensor]

#: (network, seed, shape of the input, shapes of the parameters)
NETWORKS: dict[str, tuple[Network, int, tuple[int, ...], dict[str, tuple[int, ...]]]] = {
    "mlp": (
        mlp,
        11,
        (BATCH, 10),
        {"w1": (16, 10), "b1": (16,), "w2": (12, 16), "b2": (12,), "w3": (5, 12), "b3": (5,)},
    ),
    "cnn": (
        cnn,
        12,
        (BATCH, 2, 9, 8),
        {
            "w1": (4, 2, 3, 3),
            "b1": (4,),
            "w2": (4, 2, 3, 3),
            "w3": (5, 4),
            "b3": (5,),
            **{f"{name}{layer}": (4,) for layer in (1, 2) for name in ("scale", "shift", "mean", "var")},
        },
    ),
    "attention": (
        attention,
        13,
        (BATCH, 5, 8),
        {
            **dict.fromkeys(("wq", "wk", "wv", "wo"), (8, 8)),
            **{f"{name}{layer}": (8,) for layer in (1, 2) for name in ("scale", "shift")},
            "w1": (8, 12),
            "b1": (12,),
            "w2": (12, 8),
            "b2": (8,),
            "w3": (8, 5),
            "b3": (5,),
        },
    ),
}


def targets(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the losses compare with."""
    return {
        "labels": rng.integers(0, 5, BATCH),
        "values": rng.normal(size=(BATCH, 5)).astype(np.float32),
        "chances": rng.uniform(size=(BATCH, 5)).astype(np.float32),
    }


def loss_of(name: str, outputs: torch.Tensor, target: dict[str, np.ndarray]) -> torch.Tensor:
    """The mean loss of the batch."""
    if name == "cross_entropy":
        return functional.cross_entropy(outputs, torch.from_numpy(target["labels"]))
    if name == "mse":
        return functional.mse_loss(outputs, torch.from_numpy(target["values"]).double())
    return functional.binary_cross_entropy_with_logits(outputs, torch.from_numpy(target["chances"]).double())


def main() -> None:
    """Compute and write everything."""
    found: dict[str, np.ndarray] = {}
    for name, (network, seed, shape, shapes) in NETWORKS.items():
        rng = np.random.default_rng(seed)
        x = rng.normal(size=shape).astype(np.float32)
        drawn = {key: parameter(rng, key, size) for key, size in shapes.items()}
        target = targets(rng)
        found |= {f"{name}/x": x, **{f"{name}/parameter/{key}": array for key, array in drawn.items()}}
        found |= {f"{name}/target/{key}": array for key, array in target.items()}
        for loss in ("cross_entropy", "mse", "bce"):
            statistics = ("mean", "var")
            tensors = {
                key: torch.from_numpy(array).double().requires_grad_(not key.startswith(statistics))
                for key, array in drawn.items()
            }
            given = torch.from_numpy(x).double().requires_grad_(True)
            value = loss_of(loss, network(tensors, given), target)
            value.backward()
            found[f"{name}/{loss}/loss"] = np.array(value.item())
            grads = {
                key: tensor.grad for key, tensor in {**tensors, "x": given}.items() if tensor.requires_grad
            }
            if name == "cnn":  # functional.batch_norm has written them
                found |= {f"{name}/running/{key}": tensors[key].numpy().copy() for key in ("mean1", "var1")}
            found |= {f"{name}/{loss}/{key}": grad.numpy().astype(np.float32) for key, grad in grads.items()}
    found["provenance"] = np.array(
        f"make_torch_gradients.py, PyTorch {torch.__version__}, float64, seeds 11 to 13"
    )
    np.savez_compressed(Path(__file__).with_name("torch_gradients.npz"), allow_pickle=False, **found)


def parameter(rng: np.random.Generator, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of a usual size; scales and variances about 1."""
    if key.startswith(("scale", "var")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    fan_in = int(np.prod(shape[1:])) or 1
    return rng.normal(0, 1 / np.sqrt(fan_in), shape).astype(np.float32)


if __name__ == "__main__":
    main()
