"""Statistics of PCM devices, programmed by closed-loop writing and read some seconds later or much later.

Source: Nandakumar et al. 2019/2020, as published in aihwkit, inference/noise/pcm.py. G is the programmed
conductance in uS, x = G / g_max_fit, t seconds since programming (the first read is at t0):

    sigma_prog(G)    = c0 + c1 x + c2 x^2                                       in uS; G the target
    nu               = |N(mu(x), sd(x))|                                        once per programming
    G(t)             = G (t / t0)^-nu                                           in uS
    sigma_read(G, t) = G(t) Q(x) sqrt(ln((t + t_read) / (2 t_read)))            in uS

all Gaussian, and conductances clipped at 0. nature2018 has c = 0.26348, 1.9650, -1.1731; mu = clip(-0.0155
ln x + 0.0244, 0.049, 0.1); sd = clip(-0.0125 ln x - 0.0059, 0.008, 0.045); Q = min(0.0088 x^-0.65, 0.2);
g_max_fit = 25 uS; t0 = 20 s; t_read = 250 ns. A formula that counts time from the first read has t + t0 in
place of t. mu, sd and Q may follow another law above some x (`law_of`).

Read noise is 1/f: its power per frequency f is G(t)^2 Q^2 / f between 1 / (t + t_read) and 1 / (2 t_read),
whose integral is the logarithm above. Cut at the frequency 1 / split, it has two parts, which add up to it:

    slow: G(t)^2 Q^2 ln((t + t_read) / split)         the same for all reads of a batch
    fast: G(t)^2 Q^2 ln(split / (2 t_read))           another one at each read

Conduction is thermally activated. At a temperature T other than that of the fits, T0 = 300 K (assumed: the
source states none), what is read is multiplied, after drift, by

    exp(-(Ea(x) / k) (1 / T - 1 / T0)),   Ea(x) = Ea_reset + (Ea_set - Ea_reset) min(x, 1)

and 1/f noise, being proportional to G(t), with it. Ea is 0 unless a chip file gives it; nu stays as it is
(Khan et al.: 0.07 to 0.11 from 125 to 300 K). That Ea falls linearly in G is assumed.

nu and Q belong to the programmed value, as here, or (nu in aihwkit) to the target: the two differ by
sigma_prog, over which mu changes by less than 0.003 above 5 uS. nu is not stored: its stream draws it again.

What is left out: anything earlier than t0. A read-out some seconds after programming already
holds some slow noise, so programming error and read noise together count a part of it twice, as the peers do.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from pcmc.accel.cell_rules import FIT_TEMPERATURE_K
from pcmc.accel.cell_specs import BOLTZMANN_EV_PER_K, PcmCellSpec
from pcmc.accel.cells.cell import Float32, NoisePart
from pcmc.accel.random import Normals, Stream
from pcmc.errors import ChipError

_CHUNK = 16_384
"""Devices handled at a time, so that temporary arrays stay in the cache whatever the size of the network."""

_LEAST_X = np.float32(1e-30)
"""Stands in for x = 0, whose logarithm is none; all laws are long at their limits there."""


class OneOverF(Protocol):
    """What the spectrum of 1/f noise depends on."""

    @property
    def t_read_s(self) -> float:
        """Integration time of the read."""

    @property
    def read_noise_split_s(self) -> float:
        """Where the slow part of the noise ends and the fast one begins."""


def add_programming_error(g: Float32, spec: PcmCellSpec, rng: Stream) -> None:
    """Turn targets into programmed conductances, in place: g + sigma_prog(g) N(0, 1), clipped at 0.

    A target of 0, a device left at RESET, errs as any other with sigma_prog(0). Such errors are half clipped
    away, and so have a positive mean of sigma_prog(0) / sqrt(2 pi). The peers do the same.

    Args:
        g: [n] targets in uS; overwritten.
        spec: the coefficients.
        rng: one normal number is drawn per device, in order.
    """
    for part in chunks(g, _CHUNK):
        x = part / np.float32(spec.g_max_fit_us)
        add_noise(part, polynomial(spec.programming_error_us, x), rng)


def age(
    g: Float32,
    spec: PcmCellSpec,
    at_s: float,
    noise: Normals | None,
    drift: Stream | None,
    part: NoisePart = "all",
) -> None:
    """Turn programmed conductances into those that a read at `at_s` finds, in place, clipped at 0.

    Args:
        g: [n] conductances in uS as programmed; overwritten.
        spec: the coefficients.
        at_s: seconds since programming; see `check_read_time`.
        noise: the stream of the read noise, one normal number per device, in order; None: no noise.
        drift: the stream of nu, likewise; None: no drift.
        part: which part of the read noise is drawn.
    """
    spread = np.float32(math.sqrt(noise_spectrum(spec, at_s, part)))
    for devices in chunks(g, _CHUNK):
        x, log_x = _relative(devices, spec)
        sigma = None if noise is None else _noise_amplitude(devices, x, log_x, spec)
        if drift is not None:
            factor = drift_factor(x, spec, at_s, drift, log_x)
            devices *= factor
            if sigma is not None:
                sigma *= factor
        if sigma is not None and noise is not None:
            sigma *= spread
            add_noise(devices, sigma, noise)


def noise_variance(
    g: Float32,
    spec: PcmCellSpec,
    at_s: float,
    part: NoisePart = "all",
    drift: Stream | None = None,
) -> Float32:
    """Variance of the read noise of each device in uS^2, [n]: sigma_read^2, or the slow or fast part of it.

    Clipping at 0 plays no part in it: it is what a sum of many devices needs.

    Args:
        g: [n] conductances in uS as programmed. Not changed.
        spec: the coefficients.
        at_s: seconds since programming; see `check_read_time`.
        part: which part of the noise.
        drift: the stream of nu, one normal number per device, in order; None: no drift.
    """
    variance = np.empty_like(g)
    spectrum = np.float32(noise_spectrum(spec, at_s, part))
    for devices, out in zip(chunks(g, _CHUNK), chunks(variance, _CHUNK), strict=True):
        x, log_x = _relative(devices, spec)
        sigma = _noise_amplitude(devices, x, log_x, spec)
        if drift is not None:
            sigma *= drift_factor(x, spec, at_s, drift, log_x)
        np.square(sigma, out=out)
        out *= spectrum
    return variance


def noise_spectrum(spec: OneOverF, at_s: float, part: NoisePart) -> float:
    """The integral of 1/f over the frequencies of a part of the noise, which multiplies (G(t) Q)^2.

    "slow" runs from 1 / (t + t_read) to 1 / split, "fast" from there to 1 / (2 t_read), "all" from end to
    end; split is `read_noise_split_s`, brought between the two ends.
    """
    longest, shortest = at_s + spec.t_read_s, 2.0 * spec.t_read_s
    split = min(max(spec.read_noise_split_s, shortest), longest)
    ends = {"all": (longest, shortest), "slow": (longest, split), "fast": (split, shortest)}
    upper, lower = ends[part]
    return math.log(upper / lower)


def changes(spec: PcmCellSpec, at_s: float) -> bool:
    """Whether devices with drift conduct otherwise at `at_s` than as programmed: after t0, or off 300 K."""
    return at_s > spec.t0_s or _is_activated(spec)


def drift_factor(
    x: Float32, spec: PcmCellSpec, at_s: float, rng: Stream, log_x: Float32 | None = None
) -> Float32:
    """(t / t0)^-nu of each device, [n], with nu drawn from its law at x = G / g_max_fit; times the factor of
    the temperature.

    Args:
        x: [n] programmed conductances, relative to `g_max_fit_us`. Not changed.
        spec: the coefficients; it must have a law of drift, or activation energies.
        at_s: seconds since programming.
        rng: one normal number is drawn per device, in order, where there is a law of drift.
        log_x: ln x, where the caller has it already. Not changed.
    """
    if not spec.drift_mean:
        exponent = np.zeros_like(x)
    else:
        if log_x is None:
            log_x = np.log(np.maximum(x, _LEAST_X))
        exponent = rng.normal(len(x))
        exponent *= law_of(x, spec.drift_deviation, spec.drift_deviation_above, log_x)
        exponent += law_of(x, spec.drift_mean, spec.drift_mean_above, log_x)
        np.abs(exponent, out=exponent)
        exponent *= np.float32(-math.log(at_s / spec.t0_s))
    if _is_activated(spec):
        exponent += thermal_exponent(x, spec)
    return np.exp(exponent, out=exponent)


def thermal_exponent(x: Float32, spec: PcmCellSpec) -> Float32:
    """-(Ea(x) / k) (1 / T - 1 / T0) of each device, [n], at x = G / g_max_fit; held at -80 as all is 0 there.

    Args:
        x: [n] programmed conductances, relative to `g_max_fit_us`. Not changed.
        spec: the activation energies and the temperature.
    """
    per_ev = -(1 / spec.temperature_k - 1 / FIT_TEMPERATURE_K) / BOLTZMANN_EV_PER_K
    exponent = np.minimum(x, np.float32(1.0))
    exponent *= np.float32((spec.activation_set_ev - spec.activation_reset_ev) * per_ev)
    exponent += np.float32(spec.activation_reset_ev * per_ev)
    return np.maximum(exponent, np.float32(-80.0), out=exponent)


def mean_drift(g_us: float, spec: PcmCellSpec, at_s: float) -> float:
    """The mean of (t / t0)^-nu over devices programmed to `g_us`, exactly, times the factor of temperature.

    With L = ln(t / t0) and nu = |N(m, s)|, the mean of exp(-L nu) is

        exp(L^2 s^2 / 2) (exp(-L m) Phi(m / s - L s) + exp(L m) Phi(-m / s - L s)),  Phi the normal CDF.

    Raises:
        ChipError: the cell has no law of drift, or the time is before the first read.
    """
    check_read_time(spec, at_s)
    if not spec.drift_mean:
        raise ChipError("drift: the chip's [cell] gives no law of it, drift_mean and drift_deviation")
    x = np.array([g_us / spec.g_max_fit_us], np.float32)
    m = float(law_of(x, spec.drift_mean, spec.drift_mean_above)[0])
    s = float(law_of(x, spec.drift_deviation, spec.drift_deviation_above)[0])
    span = math.log(at_s / spec.t0_s)
    warm = math.exp(float(thermal_exponent(x, spec)[0]))
    if s == 0.0:
        return warm * math.exp(-span * m)
    below = math.exp(-span * m) * _normal_cdf(m / s - span * s)
    above = math.exp(span * m) * _normal_cdf(-m / s - span * s)
    return warm * math.exp(span**2 * s**2 / 2) * (below + above)


def law_of(
    x: Float32, law: tuple[float, ...], above: tuple[float, ...], log_x: Float32 | None = None
) -> Float32:
    """clip(slope ln x + offset, low, high) and, from the first number of `above` on, a polynomial in x.

    The polynomial is held at x = 1 beyond it, where nothing was fitted.

    Args:
        x: [n] conductances relative to the fit's largest. Not changed.
        law: slope, offset, low, high.
        above: the x from which the polynomial holds, then its coefficients; empty: nowhere.
        log_x: ln x, where the caller has it already. Not changed.
    """
    slope, offset, low, high = law
    value: Float32 = (np.log(np.maximum(x, _LEAST_X)) if log_x is None else log_x) * np.float32(slope)
    value += np.float32(offset)
    np.clip(value, np.float32(low), np.float32(high), out=value)
    if above:
        high_x = x >= np.float32(above[0])
        value[high_x] = polynomial(above[1:], np.minimum(x[high_x], np.float32(1.0)))
    return value


def polynomial(coefficients: tuple[float, ...], x: Float32) -> Float32:
    """c0 + c1 x + c2 x^2 + ... for each x, by Horner's rule; there is one coefficient at least."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value *= x
        value += np.float32(coefficient)
    return value


def add_noise(g: Float32, sigma: Float32, rng: Normals) -> None:
    """Make g + sigma N(0, 1), clipped at 0, of `g` in place; `sigma` is overwritten too. Any shape."""
    sigma *= rng.normal(g.size).reshape(g.shape)
    g += sigma
    np.maximum(g, np.float32(0.0), out=g)


def chunks(g: Float32, size: int) -> Iterator[Float32]:
    """Views of `size` devices, but for the last, that together are all of `g` [n], in order."""
    for start in range(0, len(g), size):
        yield g[start : start + size]


def check_read_time(spec: PcmCellSpec, at_s: float) -> None:
    """ChipError if `at_s`, in seconds since programming, is no time or before the fitted range begins."""
    if not (math.isfinite(at_s) and at_s >= spec.t0_s):
        raise ChipError(
            f"read at {at_s:g} s after programming: must be at least {spec.t0_s:g} s; nothing published "
            "covers the noise of these devices before that"
        )


def _relative(g: Float32, spec: PcmCellSpec) -> tuple[Float32, Float32]:
    """Relative conductance x = G / g_max_fit, and ln x, [n]."""
    x = g / np.float32(spec.g_max_fit_us)
    log_x = np.maximum(x, _LEAST_X)
    return x, np.log(log_x, out=log_x)


def _is_activated(spec: PcmCellSpec) -> bool:
    return spec.temperature_k != FIT_TEMPERATURE_K and spec.activation_reset_ev + spec.activation_set_ev > 0


def _noise_amplitude(g: Float32, x: Float32, log_x: Float32, spec: PcmCellSpec) -> Float32:
    """G Q(x) in uS, [n]; `x` is G / g_max_fit."""
    if spec.read_noise_law:
        amplitude = law_of(x, spec.read_noise_law, spec.read_noise_law_above, log_x)
        amplitude *= g
        return amplitude
    # G x^b is written as g_max_fit x^(1 + b): the smaller of it and G q is 0 at G = 0, as it should be. By
    # exp and ln, which numpy does in half the time of a power.
    sigma = log_x * np.float32(1.0 + spec.read_noise_exponent)
    np.exp(sigma, out=sigma)
    sigma *= np.float32(spec.read_noise_scale * spec.g_max_fit_us)
    np.minimum(sigma, g * np.float32(spec.read_noise_max), out=sigma)
    return sigma


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))
