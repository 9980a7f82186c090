"""The cell "measured": a differential pair of devices whose laws a user gives, or has fitted to pulses."""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.cells.cell import (
    Devices,
    Float32,
    NoisePart,
    check_laws,
    check_targets,
    make_stuck,
    read_time,
)
from pcmc.accel.cells.pcm import chunks, law_of, noise_spectrum, polynomial
from pcmc.accel.cells.range_pair import RangePairCell
from pcmc.accel.measured_spec import MeasuredCellSpec, Points
from pcmc.accel.random import Normals, Stream

_CHUNK = 65_536
"""Devices handled at a time, so that temporary arrays stay in the cache."""

_LARGEST_LOG = 60.0
"""ln of the largest factor of drift, far beyond any device, so that float32 holds every product."""


@dataclass(frozen=True, slots=True)
class MeasuredCell(RangePairCell[MeasuredCellSpec]):
    """W = G+ - G-, both devices between g_min and g_max; every law is the chip file's. G in uS.

    **Target.** One device goes to g_min + |W|, the other stays erased, at g_min. Devices with pulses down
    only are erased at g_max: one stays there, the other goes to g_max - |W|. With `levels_us` a device holds
    the level nearest to its target.

    **Closed-loop writing** ends at G + sigma(G) N(0, 1): sigma = c0 + c1 G + c2 G^2 + ... or by straight
    lines between points (G, sigma).

    **Writing by pulses**, where a step is given: pulses of one direction (up, if there are any) lead from the
    erased state to the target, and the last is the one that is expected to end nearest to it. What is left is
    half a step either way, and what that last pulse adds by its own noise:

        G = target + U(-1/2, 1/2) s(target) + step_noise N(0, 1)
        s(G) = step (1 - n z)   "linear",    step exp(-n z)   "exponential",   never below 0

    where z runs from -1, the erased state, to 1, the other end of the range. Each device has its own step
    (step_deviation is relative), n, and ends of the range; one that is to stay erased, or whose target is
    less than half a step away, gets no pulse, and none gets beyond its end. All four are drawn with each
    programming.

    **Read noise.** 1/f as in `pcmc.accel.cells.pcm`: sigma = G(t) min(a x^b, q) sqrt(ln((t + t_read) /
    (2 t_read))), x = G / g_max_fit; or by straight lines between points (G(t), sigma), which then is the same
    at all times and new at each read: none of it is "slow".

    **Drift.** G(t) = G (t / t0)^-nu with nu normal, its mean and deviation by straight lines between points
    (G, nu), of either sign; or by the log laws of `pcmc.accel.cells.pcm`, and then its absolute value. A
    device that drifts upwards stops at g_max, or where it was programmed if that is higher.

    Conductances are clipped at 0. A stuck device conducts g_min or g_max. Streams are drawn for all G+ first,
    then for all G-. What is left out: pulses of the other direction in a write (their law is for training),
    and any dependence of one law on another.
    """

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Program pairs to a difference of `target_us`; see `Cell`. Levels also bind exact writing."""
        check_targets(target_us)
        return Devices(self._write(target_us, rng, stuck), self._write(-target_us, rng, stuck))

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """Conductances as reads at `at_s` find them; see `Cell`. At t0_s itself nothing has drifted.

        Raises:
            ChipError: `at_s` is before t0_s; or noise or drift that the cell has no law of.
        """
        at_s = self._time(at_s, noise is not None, drift is not None)
        drift = drift if at_s > self.t0_s else None
        noise = None if self.spec.read_noise_points_us and part == "slow" else noise
        if noise is None and drift is None:
            return devices
        aged = [g.copy() for g in (devices.g_plus, devices.g_minus)]
        for g in aged:
            for chunk in chunks(g.reshape(-1), _CHUNK):
                then = chunk if drift is None else self._drifted(chunk, at_s, drift)
                if noise is not None:
                    sigma = np.sqrt(self._variance(chunk, then, at_s, part))
                    sigma *= noise.normal(len(chunk))
                    then = np.maximum(then + sigma, np.float32(0.0))
                chunk[...] = then
        return Devices(aged[0], aged[1])

    def noise_variance(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Variance of W from read to read in uS^2, the sum of both devices'; see `Cell`. Errors: as `age`."""
        plus, minus = self.device_variances(devices, at_s, drift, part)
        plus += minus
        return plus

    def device_variances(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> tuple[Float32, Float32]:
        """sigma_read^2 of each G+ and of each G-, in uS^2; as `noise_variance`."""
        at_s = self._time(at_s, True, drift is not None)
        drift = drift if at_s > self.t0_s else None
        found = np.zeros(devices.g_plus.shape, np.float32), np.zeros(devices.g_plus.shape, np.float32)
        for g, variance in zip((devices.g_plus, devices.g_minus), found, strict=True):
            pieces = (chunks(one.reshape(-1), _CHUNK) for one in (g, variance))
            for chunk, out in zip(*pieces, strict=True):
                then = chunk if drift is None else self._drifted(chunk, at_s, drift)
                out += self._variance(chunk, then, at_s, part)
        return found

    def _write(self, target: Float32, rng: Stream | None, stuck: Stream | None) -> Float32:
        """The devices that carry the positive part of `target`, as they end up."""
        spec = self.spec
        target = np.ascontiguousarray(target)  # so that chunks are views of what is written, not of a copy
        down = not spec.step_up_us and spec.step_down_us > 0
        way = np.clip(-target if down else target, np.float32(0.0), np.float32(self.full_us))
        g: Float32 = np.float32(spec.g_max_us) - way if down else np.float32(spec.g_min_us) + way
        for chunk in chunks(g.reshape(-1), _CHUNK):
            if spec.levels_us:
                levels = np.array(spec.levels_us, np.float32)
                chunk[...] = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, chunk)]
            if rng is None:
                continue
            if spec.has_pulses:
                self._pulse(chunk, "down" if down else "up", rng)
            else:
                chunk += self._error(chunk) * rng.normal(len(chunk))
            np.maximum(chunk, np.float32(0.0), out=chunk)
        if stuck is not None:
            low, high = spec.stuck_low_fraction, spec.stuck_high_fraction
            make_stuck(g.reshape(-1), low, high, spec.g_min_us, spec.g_max_us, stuck)
        return g

    def _error(self, g: Float32) -> Float32:
        """The sigma of closed-loop writing at the targets `g`, [n] in uS; 0 where there is no law."""
        spec = self.spec
        if spec.programming_error_points_us:
            return _interpolated(g, spec.programming_error_points_us)
        return polynomial(spec.programming_error_us or (0.0,), g)

    def _pulse(self, g: Float32, direction: str, rng: Stream) -> None:
        """Write devices to targets `g` by pulses, in place.

        Five normal numbers a device, kind by kind (start, end, step, n, noise), then one uniform number.
        """
        spec, n = self.spec, len(g)
        if direction == "up":
            sign, erased = np.float32(1), np.float32(spec.g_min_us)
            deviations = (spec.g_min_deviation_us, spec.g_max_deviation_us)
        else:
            sign, erased = np.float32(-1), np.float32(spec.g_max_us)
            deviations = (spec.g_max_deviation_us, spec.g_min_deviation_us)
        way = (g - erased) * sign  # from the erased state, in the direction of travel
        start, end = (np.float32(deviation) * rng.normal(n) for deviation in deviations)
        end += np.float32(self.full_us)
        step, shape = getattr(spec, f"step_{direction}_us"), getattr(spec, f"nonlinearity_{direction}")
        steps = 1 + np.float32(getattr(spec, f"step_{direction}_deviation")) * rng.normal(n)
        shapes = np.float32(shape) + np.float32(
            getattr(spec, f"nonlinearity_{direction}_deviation")
        ) * rng.normal(n)
        steps *= np.float32(step) * step_shape(spec.pulse_law, shapes, way * np.float32(2 / self.full_us) - 1)
        np.maximum(steps, np.float32(0.0), out=steps)
        noise = np.float32(getattr(spec, f"step_{direction}_noise_us")) * rng.normal(n)
        written = way + (rng.uniform(n) - np.float32(0.5)) * steps + noise
        left = (way <= 0) | (way - start < steps / 2)
        written = np.where(left, start, np.minimum(written, np.maximum(end, start)))
        g[...] = erased + sign * written

    def _drifted(self, g: Float32, at_s: float, rng: Stream) -> Float32:
        """What devices programmed to `g` have become at `at_s`, [n] in uS, with one normal number each."""
        spec, nu = self.spec, rng.normal(len(g))
        if spec.drift_mean_points:
            nu *= _interpolated(g, spec.drift_deviation_points) if spec.drift_deviation_points else 0
            nu += _interpolated(g, spec.drift_mean_points)
        else:
            x = g / np.float32(spec.fit_us)
            nu *= law_of(x, spec.drift_deviation, ())
            nu += law_of(x, spec.drift_mean, ())
            np.abs(nu, out=nu)
        nu *= np.float32(-math.log(at_s / spec.t0_s))
        drifted = g * np.exp(np.minimum(nu, np.float32(_LARGEST_LOG)))
        return np.minimum(drifted, np.maximum(g, np.float32(spec.g_max_us)))

    def _variance(self, g: Float32, then: Float32, at_s: float, part: NoisePart) -> Float32:
        """Variance of the read noise of devices programmed to `g` that conduct `then` now, [n] in uS^2."""
        spec = self.spec
        if spec.read_noise_points_us:
            sigma = _interpolated(then, spec.read_noise_points_us)
            return np.square(sigma) * np.float32(part != "slow")
        # (G(t) / G) times G x^b, which is g_max_fit x^(1 + b): 0 at G = 0, as it should be.
        x = g / np.float32(spec.fit_us)
        sigma = np.power(x, np.float32(1 + spec.read_noise_exponent))
        sigma *= np.float32(spec.read_noise_scale * spec.fit_us)
        np.minimum(sigma, g * np.float32(spec.read_noise_max), out=sigma)
        sigma *= np.divide(then, g, out=np.zeros_like(g), where=g > 0)
        variance: Float32 = np.square(sigma) * np.float32(noise_spectrum(spec, at_s, part))
        return variance

    def _time(self, at_s: float | None, noise: bool, drift: bool) -> float:
        """The time of a read in seconds; ChipError if the cell has no law of what is asked."""
        at_s = read_time(at_s, self.t0_s)
        check_laws(self.spec, read_noise=noise, drift=drift)
        return at_s


Reals = TypeVar("Reals", Float32, NDArray[np.float64])


def step_shape(law: str, n: Reals | float, z: Reals) -> Reals:
    """The step at z relative to the one at z = 0: 1 - n z ("linear") or exp(-n z) ("exponential")."""
    shape: Reals = np.exp(-n * z) if law == "exponential" else 1 - n * z
    return shape


def _interpolated(g: Float32, points: Points) -> Float32:
    """Values by straight lines between points, at the ends held; [n]."""
    x, y = zip(*points, strict=True)
    values: Float32 = np.interp(g, x, y).astype(np.float32)
    return values
