"""Banks of cells in training, on nature2018 with some fields changed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_to_dict, load_chip
from pcmc.accel.physics import resolve
from pcmc.accel.training.arrays import TrainedBank, trained_bank
from pcmc.accel.training.layout import Layout

NATURE = load_chip("nature2018")
RANGE = 0.5
"""The weight that the full range stands for."""
UNIT = 60.0 / RANGE
"""uS of a weight of 1 in nature2018's cells."""


def changed(**sections: dict[str, Any]) -> ChipSpec:
    """nature2018 with some fields of some sections changed."""
    tables = chip_to_dict(NATURE)
    for name, fields in sections.items():
        tables[name] = tables[name] | fields
    return chip_from_dict(tables, "test")


def capacitor_chip(**fields: Any) -> ChipSpec:
    """nature2018 with the capacitor cell alone."""
    tables = chip_to_dict(NATURE)
    tables["cell"] = {
        "kind": "3t1c", "g_low_us": 4.0, "g_high_us": 20.0, "g_reference_us": 12.0, "steps": 400,
        "leak_tau_s": 5.16e-3,
    }  # fmt: skip
    tables["effects"] = {"programming_error": True, "read_noise": "off"}
    tables["pulses"] |= fields
    return chip_from_dict(tables, "test")


def one_block(rows: int, cols: int) -> NDArray[np.int64]:
    """The table of a matrix in one block."""
    return np.array([[0, 0, rows, cols, 0, 0]], np.int64)


def two_blocks(rows: int, cols: int, more: int) -> NDArray[np.int64]:
    """The table of a matrix in two blocks side by side."""
    return np.array([[0, 0, rows, cols, 0, 0], [0, cols, rows, more, 0, rows * cols]], np.int64)


def layout(chip: ChipSpec, physics: str, rows: int, cols: int, seed: int = 0) -> Layout:
    """A matrix in one block."""
    effects = resolve(physics, chip, training=True)
    return Layout(chip, effects, one_block(rows, cols), ((0, 0, 0, 0),), rows, cols, 1.0, RANGE, seed)


def make(
    weights: NDArray[np.float32],
    physics: str = "full",
    chip: ChipSpec = NATURE,
    *,
    blocks: NDArray[np.int64] | None = None,
    places: Sequence[tuple[int, int, int, int]] = ((0, 0, 0, 0),),
    **options: Any,
) -> TrainedBank:
    """A bank of the weights [rows, cols] in one block at the corner of a tile; or [cells], in `blocks`."""
    if blocks is None:
        blocks = one_block(*weights.shape)
    rows, cols = (int((blocks[:, at] + blocks[:, at + 2]).max()) for at in (0, 1))
    given: dict[str, Any] = {"bias_drive": 1.0, "weight_range": RANGE, "seed": 0} | options
    effects = resolve(physics, chip, training=True)
    return trained_bank(
        chip, effects, blocks, places, rows, cols, np.ascontiguousarray(weights.ravel()), **given
    )


def spread_weights(rows: int, cols: int, largest: float = 0.4) -> NDArray[np.float32]:
    """Weights [rows, cols] that fill a range evenly."""
    grid = np.linspace(-largest, largest, rows * cols, dtype=np.float32)
    return np.random.default_rng(0).permutation(grid).reshape(rows, cols)
