"""Statistics of paired runs: what two arms differ by, and whether that is less than a margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Two one-sided tests at this level go with an interval of 1 - 2 * LEVEL.
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation (nan for one value), least and largest of some values."""

    mean: float
    deviation: float
    least: float
    largest: float
    count: int


@dataclass(frozen=True, slots=True)
class Paired:
    """The differences of pairs of runs: their spread, the 90 % interval of the mean, and `p_equivalent`, of
    two one-sided tests that the mean lies within `margin` of 0; nan where there is one pair.
    """

    mean: float
    deviation: float
    low: float
    high: float
    margin: float
    p_equivalent: float
    count: int

    @property
    def equivalent(self) -> bool:
        """Whether both tests reject at 5 %: the interval lies within the margin."""
        return self.p_equivalent < LEVEL


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of one or more values."""
    array = np.asarray(values, np.float64)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else math.nan
    return Spread(float(array.mean()), deviation, float(array.min()), float(array.max()), len(array))


def paired(differences: Sequence[float], margin: float) -> Paired:
    """Two one-sided t tests of paired differences (D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15, 657-680,
    1987), and the interval that belongs to them.

    With n differences of mean m and deviation s, t = (m +- margin) / (s / sqrt(n)) has n - 1 degrees of
    freedom; the p value is the larger of the two.

    Args:
        differences: one or more, each of two runs with the same seed.
        margin: what a difference of the means may amount to, in the same unit, more than 0.
    """
    from scipy.stats import t as student

    found = spread(differences)
    n, mean = found.count, found.mean
    if n < 2:
        return Paired(mean, math.nan, math.nan, math.nan, margin, math.nan, n)
    error = found.deviation / math.sqrt(n)
    if error == 0.0:
        return Paired(mean, 0.0, mean, mean, margin, 0.0 if abs(mean) < margin else 1.0, n)
    above = float(student.sf((mean + margin) / error, n - 1))
    below = float(student.cdf((mean - margin) / error, n - 1))
    half = float(student.ppf(1 - LEVEL, n - 1)) * error
    return Paired(mean, found.deviation, mean - half, mean + half, margin, max(above, below), n)
