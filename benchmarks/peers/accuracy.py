"""Accuracy of ResNet-32 on CIFAR-10 under programming error and frozen read noise, on both sides.

The same images for every seed of both sides, so that seeds are all that a difference of means has to
overcome. A pilot says how many: with a deviation s between seeds, n seeds a side give a 90 % interval of
about +-1.64 s sqrt(2 / n), which has to fit into 0.5 points with room for the difference itself.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import ours
from benchmarks.peers.environment import ask
from benchmarks.peers.equivalence import ACCURACY_LIMIT, NORMAL_90, same_accuracy

Row = dict[str, Any]
IMAGES = 1000
PILOT = 8
MOST_SEEDS = 100
AT_S = 20.0
ROOM = 0.25
"""Points that the interval leaves for the difference itself."""


def rows(path: Path, most: int = MOST_SEEDS) -> Iterator[Row]:
    """Keys: what, mean, deviation, seeds, verdict (against pcmc's; None for pcmc's own), must, agrees."""
    images, labels = ours.cifar10(IMAGES)
    given = ours.network_arrays(path) | {"images": images, "labels": labels, "at_s": AT_S}
    mine = ours.accuracies(path, images, labels, range(PILOT))
    seeds = needed_seeds(statistics.stdev(mine), most)
    mine += ours.accuracies(path, images, labels, range(PILOT, seeds))
    yield {"what": "pcmc", "pilot": statistics.stdev(mine[:PILOT]), **_summary(mine)}
    for what, kept in (("aihwkit, pairs kept apart", True), ("aihwkit as shipped", False)):
        answer = ask("accuracy", given | {"seeds": np.arange(seeds), "pairs_kept": kept})
        verdict = same_accuracy(mine, answer["accuracy"].tolist())
        row = {"what": what, **_summary(answer["accuracy"].tolist())}
        row["analog_gap"] = float(answer["analog_gap"])
        row["network_gap"] = _network_gap(path, images[:8], answer["logits"])
        yield row | {"verdict": verdict.as_dict(), "must": True if kept else None, "agrees": verdict.agrees}


def needed_seeds(deviation: float, most: int = MOST_SEEDS) -> int:
    """Seeds a side, even, by the formula above."""
    wanted = 2 * (NORMAL_90 * deviation / (ACCURACY_LIMIT - ROOM)) ** 2
    return min(most, max(PILOT, 2 * math.ceil(wanted / 2)))


def _summary(accuracies: list[float]) -> Row:
    return {
        "mean": statistics.fmean(accuracies),
        "deviation": statistics.stdev(accuracies),
        "seeds": len(accuracies),
        "images": IMAGES,
    }


def _network_gap(path: Path, images: ours.Floats, logits: Any) -> float:
    """Largest difference of the rebuilt network's logits to onnxruntime's: the two run the same network."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: images})[0]
    return float(np.abs(np.asarray(wanted) - logits).max())
