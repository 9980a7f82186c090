"""Banks of any shape, with mismatch of every kind, for the tests of training."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.training.bank import OFF, Port, PulseLaw, Pulses, TrainingBank

STEP = 1e-3


def narrowed(values: Any) -> NDArray[np.uint16]:
    """bfloat16 of float32, cut off."""
    found: NDArray[np.uint16] = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return found


def table(
    rows: int, cols: int, *, tile_rows: int = 60, tile_cols: int = 37, bias: bool = True
) -> tuple[NDArray[np.int64], int]:
    """Blocks that cover a matrix, with partial sums, bias rows in the first ones; and how many cells."""
    found, offset = [], 0
    for row0 in range(0, rows, tile_rows):
        for col0 in range(0, cols, tile_cols):
            here = int(bias and row0 == 0)
            height, width = min(tile_rows, rows - row0) + here, min(tile_cols, cols - col0)
            found.append((row0, col0, height, width, here, offset))
            offset += height * width
    return np.array(found, np.int64).reshape(-1, 6), offset


def law(
    cells: int,
    *,
    spread: float = 0.1,
    noise: float = 0.3,
    leak: bool = True,
    seed: int = 0,
    step: float = STEP,
    slope: float = 0.05,
) -> PulseLaw:
    """Steps, slopes, bounds and leaks that differ between devices."""
    normal = np.random.default_rng(seed).standard_normal
    half = 200 * step
    up, down = step * (1 + spread * normal(cells)), step * (1 + spread * normal(cells))
    return PulseLaw(
        low=(0.1 * half * normal(cells)).astype(np.float32) if spread else np.zeros(cells, np.float32),
        steps=narrowed(np.stack([up, down], axis=1)),
        slopes=narrowed(slope / half * np.stack([up, down], axis=1)),
        bounds=narrowed(np.array([-half, half]) * (1 + 0.7 * spread * normal((cells, 2)))),
        leak=narrowed(0.0037 * (1 + spread * normal(cells))) if leak else None,
        low_mid=0.0,
        noise=noise,
        step=step,
        leak_mean=0.0037,
    )


def bank(
    rows: int,
    cols: int,
    *,
    with_law: bool = True,
    pulses: str | None = "stochastic",
    most: int = 31,
    physics: bool = False,
    bias: bool = True,
    **options: Any,
) -> TrainingBank:
    """A bank with random weights, of `rows` x `cols`; with `physics` both ports convert and are noisy."""
    blocks, cells = table(rows, cols, bias=bias)
    rng = np.random.default_rng(rows * 1000 + cols)
    forward = backward = OFF
    if physics:
        offsets = rng.standard_normal(int(blocks[:, 3].sum())).astype(np.float32)
        forward, backward = Port(127, 255, 8.0, offsets), Port(127, 127, 6.0)
    return TrainingBank(
        blocks,
        rows,
        cols,
        (rng.standard_normal(cells) / np.sqrt(max(rows, 1))).astype(np.float32),
        bias_drive=0.7,
        law=law(cells, **options) if with_law else None,
        pulses=Pulses(pulses, most) if pulses and with_law else None,
        forward=forward,
        backward=backward,
        variances=narrowed(rng.random(cells) * 1e-3) if physics else None,
        seed=3,
        place=(1, 2),
    )


def sparse(
    rows: int, cols: int, *, share: float = 0.5, seed: int = 0, size: float = 1.0
) -> NDArray[np.float32]:
    """Normal numbers [rows, cols] of which only a share is not 0."""
    rng = np.random.default_rng(seed + rows * 7 + cols)
    kept = rng.random((rows, cols)) < share
    found: NDArray[np.float32] = (rng.standard_normal((rows, cols)) * kept * size).astype(np.float32)
    return found
