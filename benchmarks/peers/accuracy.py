"""Accuracy of networks on CIFAR-10 under programming error and frozen read noise, on both sides.

The same images for every seed of both sides, so that seeds are all that a difference of means has to
overcome. A pilot says how many: with a deviation s between seeds, n seeds a side give a 90 % interval of
about +-1.64 s sqrt(2 / n), which has to fit into 0.5 points with room for the difference itself.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers import ours
from benchmarks.peers.environment import ask
from benchmarks.peers.equivalence import ACCURACY_LIMIT, NORMAL_90, same_accuracy

Row = dict[str, Any]
IMAGES = 500
"""Half of 1,000 takes half the time a seed and adds a quarter to the deviation: as good, and more seeds."""
PILOT = 16
MOST_SEEDS = 160
AT_S = 20.0
ROOM = 0.25
"""Points that the interval leaves for the difference itself."""


def rows(network: ours.Network, *, converters: bool, shipped: bool, most: int = MOST_SEEDS) -> Iterator[Row]:
    """Keys: what, mean, deviation, seeds, verdict (against pcmc's; None for pcmc's own), must, agrees.

    Args:
        network: the model.
        converters: whether DAC and ADC are on.
        shipped: whether aihwkit runs as it is, too, beside the one that keeps pairs apart.
        most: seeds a side, at most.
    """
    name = f"{network.name}, DAC and ADC" if converters else network.name
    images, labels = ours.cifar10(network, IMAGES)
    given = ours.network_arrays(network) | {"images": images, "labels": labels, "at_s": AT_S}
    chip = ours.compiled(network, converters)
    mine = ours.accuracies(chip, images, labels, range(PILOT))
    seeds = needed_seeds(statistics.stdev(mine), most)
    mine += ours.accuracies(chip, images, labels, range(PILOT, seeds))
    yield {"what": f"{name}, pcmc", "pilot": statistics.stdev(mine[:PILOT]), **_summary(mine)}
    sides = [("aihwkit, pairs kept apart", True)] + [("aihwkit as shipped", False)] * shipped
    for what, kept in sides:
        wanted = {"seeds": np.arange(seeds), "pairs_kept": kept, "converters": converters}
        answer = ask("accuracy", given | wanted)
        theirs = answer["accuracy"].tolist()
        verdict = same_accuracy(mine, theirs)
        row = {"what": f"{name}, {what}", **_summary(theirs), "analog_gap": float(answer["analog_gap"])}
        given_outputs = ours.as_outputs(network, answer["logits"])
        row["network_gap"] = float(np.abs(ours.exact_outputs(network, images[:8]) - given_outputs).max())
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
