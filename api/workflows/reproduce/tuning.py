"""Tuning: the same number of trials in every arm, one setting after the other.

In each of four stages one setting is tried at other values with the best of the rest so far; the run that
does best on the held-out examples is kept, the earlier one if two are equal. What is left over where a
setting means nothing to an arm (float weights have no range) goes to others: all arms have `TRIALS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pcmc.workflows.reproduce.arms import Settings

RATES = (0.25, 0.5, 2.0, 4.0)
DECAYS = (0.8, 0.95)
STARTS = (0.5, 2.0)
#: The first stage: weight ranges, on which rates depend, or that which is found for each matrix (None), but
#: not the one that tuning has come with; or finer rates; or sizes of batches with momenta.
RANGES = (0.3, 0.5, 1.0)
FINER_RATES = (0.6, 0.8, 1.3)
BATCHES = ((4, 0.9), (64, 0.9), (16, 0.0))

STAGES = ("own", "rate", "decay", "start")
#: The starting point, and what each stage adds.
TRIALS = 1 + len(RATES) + len(DECAYS) + len(STARTS) + len(RANGES)


def candidates(stage: str, best: Settings, own: str) -> list[Settings]:
    """What a stage tries, beside `best`, which has been tried.

    Args:
        stage: one of `STAGES`.
        best: the settings that have done best so far.
        own: what the stage "own" of this arm is about: "range", "rate" or "batch".
    """
    if stage == "rate":
        return [replace(best, rate=best.rate * factor) for factor in RATES]
    if stage == "decay":
        return [replace(best, decay=decay) for decay in DECAYS]
    if stage == "start":
        return [replace(best, start=start) for start in STARTS]
    if own == "rate":
        return [replace(best, rate=best.rate * factor) for factor in FINER_RATES]
    if own == "batch":
        return [replace(best, batch=batch, momentum=momentum) for batch, momentum in BATCHES]
    return [replace(best, weight_range=one) for one in (None, *RANGES) if one != best.weight_range]


def best_of(tried: Sequence[Settings], scores: Mapping[Settings, float]) -> Settings:
    """The settings with the highest score, the earliest among equals."""
    return max(tried, key=lambda settings: scores[settings])
