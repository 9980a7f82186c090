"""Shown to be equal, or not: intervals that must lie within stated limits.

A test that merely finds no difference passes when the sample is small. Here it is the other way round: two
samples agree only if the whole 90 % interval of their difference lies within the limit, which is two
one-sided tests at 5 % each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

NORMAL_90 = 1.6449
"""Half-width of a 90 % interval, in standard errors."""
KOLMOGOROV_90 = 1.2239
"""Samples of one distribution are closer than this times sqrt(1/n + 1/m) in 90 % of cases."""
MEAN_LIMIT = 0.02
"""In standard deviations."""
RATIO_LIMITS = (0.98, 1.02)
"""Of variances and covariances."""
KS_LIMIT = 0.01
ACCURACY_LIMIT = 0.5
"""In percentage points."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An interval, the limits that it must lie within, and whether it does."""

    quantity: str
    value: float
    low: float
    high: float
    limits: tuple[float, float]

    @property
    def agrees(self) -> bool:
        """Whether the whole interval lies within the limits."""
        return self.limits[0] <= self.low and self.high <= self.limits[1]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"agrees": self.agrees}


def same_distribution(ours: Floats, peers: Floats) -> list[Verdict]:
    """Mean, variance and KS distance of two samples of independent values."""
    return [same_mean(ours, peers), same_variance(ours, peers), same_shape(ours, peers)]


def same_mean(ours: Floats, peers: Floats) -> Verdict:
    """Difference of the means, in standard deviations of both samples together."""
    a, b = (np.asarray(sample, np.float64) for sample in (ours, peers))
    spread = math.sqrt((a.var() + b.var()) / 2)
    if spread == 0:
        raise ValueError("both samples are constant: nothing to measure their means by")
    difference = float(a.mean() - b.mean()) / spread
    half = NORMAL_90 * math.sqrt(a.var() / len(a) + b.var() / len(b)) / spread
    return Verdict("mean", difference, difference - half, difference + half, (-MEAN_LIMIT, MEAN_LIMIT))


def same_variance(ours: Floats, peers: Floats) -> Verdict:
    """Ratio of the variances; kurtosis of the samples themselves gives the interval's width."""
    return _ratio("variance", _centred_product(ours, ours), _centred_product(peers, peers))


def same_covariance(ours: tuple[Floats, Floats], peers: tuple[Floats, Floats]) -> Verdict:
    """Ratio of the covariances of two samples of pairs."""
    return _ratio("covariance", _centred_product(*ours), _centred_product(*peers))


def same_shape(ours: Floats, peers: Floats) -> Verdict:
    """Largest distance of the two empirical distribution functions; values may occur many times."""
    a, b = np.sort(ours), np.sort(peers)
    points = np.concatenate([a, b])
    gap = np.searchsorted(a, points, "right") / len(a) - np.searchsorted(b, points, "right") / len(b)
    distance = float(np.abs(gap).max())
    margin = KOLMOGOROV_90 * math.sqrt(1 / len(a) + 1 / len(b))
    return Verdict("ks", distance, max(0.0, distance - margin), distance + margin, (0.0, KS_LIMIT))


def same_accuracy(ours: Sequence[float], peers: Sequence[float]) -> Verdict:
    """Difference of mean accuracies over seeds in percentage points, by Welch's t."""
    from scipy import stats

    interval = stats.ttest_ind(ours, peers, equal_var=False).confidence_interval(0.90)
    difference = float(np.mean(ours) - np.mean(peers))
    limits = (-ACCURACY_LIMIT, ACCURACY_LIMIT)
    return Verdict("accuracy", difference, float(interval.low), float(interval.high), limits)


def _centred_product(x: Floats, y: Floats) -> Floats:
    """Products of deviations from the mean, whose own mean is the covariance."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    product: Floats = (a - a.mean()) * (b - b.mean())
    return product


def _ratio(quantity: str, ours: Floats, peers: Floats) -> Verdict:
    """Ratio of two means of products, with the interval of its logarithm from their standard errors."""
    a, b = float(ours.mean()), float(peers.mean())
    ratio = a / b
    error = math.sqrt(ours.var() / len(ours) / a**2 + peers.var() / len(peers) / b**2)
    low, high = sorted((ratio * math.exp(-NORMAL_90 * error), ratio * math.exp(NORMAL_90 * error)))
    return Verdict(quantity, ratio, low, high, RATIO_LIMITS)
