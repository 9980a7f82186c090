"""DAC and ADC on, and nothing else: both sides then give the same numbers, which are compared one by one.

Matched: levels, full scales, rounding (to even), how layers are cut into tiles, the scale of each tile, and
the range of inputs: aihwkit's own for vectors; for images and for vectors that are cut, both have the range
of the whole image or vector, as pcmc has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers import ours
from benchmarks.peers.environment import ask

Row = dict[str, Any]
LEVELS = 255
CELLS = 20.0
VECTORS = 256
IMAGES = 16
NETWORK_IMAGES = 100
SAME = 0.01
"""Steps of the ADC: what differs by less has the same code, and differs by float32's rounding."""
MOST_STEPS = 1.01
"""Float32 sums in another order may lie on the other side of half a step: then codes differ by one."""
MOST_OTHER = 1e-3
"""Share of outputs with another code."""


def rows() -> Iterator[Row]:
    """Layers. Keys: what, outputs (how many), clipped and other (shares: at full scale, with another code),
    steps (largest difference in ADC steps), must, agrees.
    """
    rng = np.random.default_rng(11)
    weights = rng.standard_normal((512, 128), np.float32)
    x = rng.standard_normal((VECTORS, 128), np.float32)
    yield _row("dense, 128 inputs", weights, x)
    mostly = rng.uniform(-0.35, 1, (512, 128)).astype(np.float32)
    positive = rng.uniform(0, 1, (VECTORS, 128)).astype(np.float32)
    yield _row("dense, 128 inputs, most outputs clipped", mostly, positive)
    wide = rng.standard_normal((64, 576), np.float32)
    vectors = rng.standard_normal((VECTORS, 576), np.float32)
    yield _row("dense, 576 inputs in two tiles, one range", wide, vectors, image_ranges=True)
    kernel = rng.standard_normal((16, 16, 3, 3), np.float32)
    images = np.maximum(rng.standard_normal((IMAGES, 16, 34, 34), np.float32), 0)
    yield _row("convolution, range of the image", kernel, images, image_ranges=True)
    yield _row("convolution, aihwkit's range of each patch", kernel, images, must=None)
    yield _row("dense, aihwkit's range of each tile", wide, vectors, must=None)
    yield _row("CONTROL dense, full scale 10 % off", weights, x, adc_cells=1.1 * CELLS, must=False)


def _row(
    what: str,
    weights: ours.Floats,
    x: ours.Floats,
    *,
    image_ranges: bool = False,
    adc_cells: float = CELLS,
    must: bool | None = True,
) -> Row:
    given = {"weights": weights, "x": x, "image_ranges": image_ranges, "adc_cells": adc_cells}
    theirs = ask("converted_layer", given)["outputs"]
    mine = ours.converted_layer(weights, x)
    ranges = np.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True)
    tiles = np.split(weights, -(-weights[0].size // ours.MOST_ROWS), axis=1)
    full = CELLS * max(float(np.abs(tile).max()) for tile in tiles) * ranges
    steps = np.abs(mine - theirs) / (full / LEVELS)
    other = float((steps > SAME).mean())
    agrees = bool(steps.max() <= MOST_STEPS and other <= MOST_OTHER)
    clipped = float((np.abs(mine) > full * (1 - 0.1 / LEVELS)).mean())
    found = {"outputs": mine.size, "clipped": clipped, "other": other, "steps": float(steps.max())}
    return {"what": what, **found, "must": must, "agrees": agrees}


def network_rows(network: ours.Network) -> Iterator[Row]:
    """A whole network: largest and typical difference of outputs, and how often the two choose alike.

    Keys: what, images, largest, typical (root of the mean square), alike (percent of images of one class) and
    accuracies (percent, of both sides). `effect` is what the converters do to the outputs of pcmc (typical).
    Even where all layers agree, a sum that rounding puts on the other side of half a step grows on its way
    through the network; how far, shows the row that has aihwkit on both sides.
    """
    images, labels = ours.cifar10(network, NETWORK_IMAGES)
    answer = ask("converted_network", ours.network_arrays(network) | {"images": images})
    mine = ours.outputs(ours.compiled(network, converters=True), images, None)
    effect = _typical(mine - ours.exact_outputs(network, images))
    outputs = {name: ours.as_outputs(network, answer[name]) for name in ("ranged", "products", "shipped")}
    pairs = {
        "aihwkit's layers": (mine, outputs["ranged"]),
        "aihwkit's formulas of PyTorch's products": (mine, outputs["products"]),
        "the two of aihwkit": (outputs["products"], outputs["ranged"]),
        "aihwkit, range of each patch": (mine, outputs["shipped"]),
    }
    for what, (one, other) in pairs.items():
        classes = one.argmax(axis=1), other.argmax(axis=1)
        yield {
            "what": f"{network.name}, {what}",
            "images": len(images),
            "largest": float(np.abs(one - other).max()),
            "typical": _typical(one - other),
            "effect": effect,
            "alike": 100 * float((classes[0] == classes[1]).mean()),
            "accuracies": [100 * float((found == labels).mean()) for found in classes],
        }


def _typical(differences: ours.Floats) -> float:
    return float(np.sqrt(np.square(differences, dtype=np.float64).mean()))
