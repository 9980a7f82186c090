"""Statistics of one PCM device, programmed by closed-loop writing and read some seconds later.

Source: Nandakumar et al. 2020, as published in aihwkit, inference/noise/pcm.py. With G in uS,
x = G / g_max_fit, and t seconds since programming:

    sigma_prog(G)    = c0 + c1 x + c2 x^2                                       in uS; G the target
    sigma_read(G, t) = G min(a x^b, q) sqrt(ln((t + t_read) / (2 t_read)))      in uS; G as programmed

both Gaussian, and the conductance clipped at 0. nature2018 has c = 0.26348, 1.9650, -1.1731; a = 0.0088,
b = -0.65, q = 0.2; g_max_fit = 25 uS; t_read = 250 ns. The fit begins at t0 = 20 s, the first read after
programming: a formula that counts from there has t + t0 in place of t.

What is left out: drift of G; anything earlier than t0. A read-out some seconds after programming already
holds some slow noise, so programming error and read noise together count a part of it twice, as the peers do.
"""

import math
from collections.abc import Iterator

import numpy as np

from pcmc.accel.cells.cell import Float32
from pcmc.accel.chip import TwoTierCellSpec
from pcmc.errors import ChipError

_CHUNK = 65_536
"""Devices handled at a time, so that temporary arrays stay in the cache whatever the size of the network."""


def add_programming_error(g: Float32, spec: TwoTierCellSpec, rng: np.random.Generator) -> None:
    """Turn targets into programmed conductances, in place: g + sigma_prog(g) N(0, 1), clipped at 0.

    A target of 0, a device left at RESET, errs as any other with sigma_prog(0). Such errors are half clipped
    away, and so have a positive mean of sigma_prog(0) / sqrt(2 pi). The peers do the same.

    Args:
        g: [n] targets in uS; overwritten.
        spec: the coefficients.
        rng: one normal number is drawn per device, in order.
    """
    for part in _chunks(g):
        x = part / np.float32(spec.g_max_fit_us)
        sigma = np.full_like(part, spec.programming_error_us[-1])
        for coefficient in spec.programming_error_us[-2::-1]:
            sigma *= x
            sigma += np.float32(coefficient)
        _add_noise(part, sigma, rng)


def add_read_noise(g: Float32, spec: TwoTierCellSpec, rng: np.random.Generator, at_s: float) -> None:
    """Turn programmed conductances into those that a read at `at_s` finds, in place, clipped at 0.

    Args:
        g: [n] conductances in uS as programmed; overwritten.
        spec: the coefficients.
        rng: one normal number is drawn per device, in order.
        at_s: seconds since programming; see `check_read_time`.
    """
    spread = math.sqrt(math.log((at_s + spec.t_read_s) / (2.0 * spec.t_read_s)))
    fit = np.float32(spec.g_max_fit_us)
    exponent = np.float32(1.0 + spec.read_noise_exponent)
    for part in _chunks(g):
        # G x^b is written as g_max_fit x^(1 + b), which is 0 at G = 0 as it should be.
        sigma = part / fit
        np.power(sigma, exponent, out=sigma)
        sigma *= np.float32(spec.read_noise_scale * spec.g_max_fit_us)
        np.minimum(sigma, part * np.float32(spec.read_noise_max), out=sigma)
        sigma *= np.float32(spread)
        _add_noise(part, sigma, rng)


def check_read_time(spec: TwoTierCellSpec, at_s: float) -> None:
    """ChipError if `at_s`, in seconds since programming, is no time or before the fitted range begins."""
    if not (math.isfinite(at_s) and at_s >= spec.t0_s):
        raise ChipError(
            f"read at {at_s:g} s after programming: must be at least {spec.t0_s:g} s; nothing published "
            "covers the noise of these devices before that"
        )


def _add_noise(g: Float32, sigma: Float32, rng: np.random.Generator) -> None:
    """Make g + sigma N(0, 1), clipped at 0, of `g` in place; `sigma` is overwritten too."""
    sigma *= rng.standard_normal(len(g), dtype=np.float32)
    g += sigma
    np.maximum(g, np.float32(0.0), out=g)


def _chunks(g: Float32) -> Iterator[Float32]:
    """Views that together are all of `g`, in order."""
    for start in range(0, len(g), _CHUNK):
        yield g[start : start + _CHUNK]
