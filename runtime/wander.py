"""Slow read noise as time goes on: which of its random numbers two times share.

1/f noise that is slower than a batch of reads is the sum of Lorentzians, two a decade of time constants: of
each the devices hold one value, which is another, independent one at random moments, tau apart on average.
Such a value has the autocorrelation exp(-|dt| / tau) exactly, and a Lorentzian for a spectrum. Nothing is
stored: moments and values come from streams named by the Lorentzian and by when the value came about.

The moments are the same for all devices of a block. That changes neither the distribution of a device's
noise nor its autocorrelation, nor that devices are uncorrelated.
"""

from __future__ import annotations

import math

import numpy as np

from pcmc.accel.random import Blend, Stream, stream

BANDS_PER_DECADE = 2


def slow_noise(
    seed: int, place: tuple[int, ...], shortest_s: float, longest_s: float, clock_s: float
) -> Blend:
    """The normal numbers of the slow noise of a block at a time.

    Args:
        seed: names the streams, with `place`.
        place: where the block lies.
        shortest_s: the shortest time constant: noise faster than that is no part of this.
        longest_s: the longest, the time since programming.
        clock_s: the time at which the block is read, counted from any fixed moment, at least 0.

    Returns:
        Standard normal numbers. Those of two times t1, t2 of one seed and place have the correlation sum_k
        w_k exp(-|t1 - t2| / tau_k), w_k the share of ln(longest / shortest) that falls to band k.
    """
    parts = bands(shortest_s, longest_s)
    streams = [
        stream(seed, (*place, k, *_value_at(seed, place, k, tau, clock_s)), "slow_noise")
        for k, (tau, _) in enumerate(parts)
    ]
    return Blend(streams, [weight for _, weight in parts])


def bands(shortest_s: float, longest_s: float) -> list[tuple[float, float]]:
    """Time constant and weight of each Lorentzian; the weights add up to 1.

    The time constants stand still when `longest_s` grows with the time since programming: more bands come
    in at the slow end.
    """
    decades = max(math.log10(longest_s / shortest_s), 1e-9)
    found = []
    for k in range(math.ceil(decades * BANDS_PER_DECADE - 1e-9) or 1):
        low, high = k / BANDS_PER_DECADE, min((k + 1) / BANDS_PER_DECADE, decades)
        found.append((shortest_s * 10 ** ((k + 0.5) / BANDS_PER_DECADE), (high - low) / decades))
    return found


def _value_at(seed: int, place: tuple[int, ...], k: int, tau: float, clock_s: float) -> tuple[int, int]:
    """Names the value that Lorentzian k holds: the span of time, tau long, in which it came about, and the
    number of the moment in that span. Before the first span there is a value, too.
    """
    span = int(clock_s / tau)
    within = clock_s / tau - span
    while span >= 0:
        moments = _moments(stream(seed, (*place, k, span), "slow_noise_moments"))
        moments = moments[moments <= within]
        if len(moments):
            return span, len(moments)
        span, within = span - 1, 1.0
    return 0, 0


def _moments(draws: Stream) -> np.ndarray:
    """The moments of a Poisson process of rate 1 from 0 to 1, ascending."""
    gaps = -np.log(1.0 - draws.uniform(16).astype(np.float64))  # more than 16 in one span: 1 in 10^15
    moments: np.ndarray = np.cumsum(gaps)
    return moments[moments <= 1.0]
