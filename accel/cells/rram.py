"""The cell "rram": a differential pair of filamentary resistive devices."""

import math
from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import RramCellSpec
from pcmc.accel.cells.cell import (
    Devices,
    Float32,
    NoisePart,
    check_laws,
    check_targets,
    make_stuck,
    read_time,
)
from pcmc.accel.cells.pcm import add_noise, noise_spectrum, polynomial
from pcmc.accel.cells.range_pair import RangePairCell
from pcmc.accel.random import Normals, Stream
from pcmc.errors import ChipError


@dataclass(frozen=True, slots=True)
class RramCell(RangePairCell[RramCellSpec]):
    """W = G+ - G-, both devices between g_min and g_max; the erased one stays at g_min. G in uS, t in s.

    The error of closed-loop writing is Gaussian, with a polynomial in the target G:

        sigma(G) = c0 + c1 G + c2 G^2 + c3 G^3

    neurram has c = 1.053, 0.2374, -1.167e-2, 1.536e-4, fitted up to 39.26 uS: CrossSim's model of the devices
    of Wan et al., Nature 608 (2022). At g_min = 1 uS that is 1.28 uS.

    **In time**, two laws have been published; both are the effect "drift", and begin with the first read at
    t0. Either the whole error at some times t_k, the one of programming included, as polynomials in x = G /
    g_max_fit (Wan et al., as fitted in aihwkit, inference/noise/reram.py):

        G(t) = target + sigma_t(x) N(0, 1),   sigma_t(x) = c0 + c1 x + c2 x^2 + ...

    where coefficients are interpolated linearly in ln t between the times (assumed; aihwkit has the times
    alone), and other times are refused. Such a cell has no other programming error. Or a relaxation that does
    not depend on G, on top of the programming error (Falcone et al., CMO/HfOx, in the same file):

        G(t) = G + m0 + m1 ln t + (s0 + s1 ln t) N(0, 1)

    The normal number is a device's own, and the same at all times: aihwkit draws another one for each time.
    It is drawn again for each read, and stored nowhere.

    **Read noise** (same file, CMO/HfOx), 1/f as in `pcmc.accel.cells.pcm`, with its slow and fast part:

        sigma_read = K log10(G(t) / uS) sqrt(ln((t + t_read) / (2 t_read))),   0 below 1 uS

    Conductances are clipped at 0, or in reads to [g_min, g_max] where `stays_in_range` is set. A stuck device
    is written to g_min or g_max whatever its target, and relaxes as others do. Streams are drawn for all G+
    first, then for all G-.
    """

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Program pairs, one device to g_min + |target|, the other to g_min; see `Cell`.

        Raises:
            ChipError: `rng` is given, and the error of programming is part of that at the first read.
        """
        check_targets(target_us)
        spec, written = self.spec, []
        check_laws(spec, programming_error=rng is not None)
        for g in (target_us.copy(), -target_us):
            np.clip(g, np.float32(0.0), np.float32(self.full_us), out=g)
            g += np.float32(spec.g_min_us)
            if rng is not None:
                add_noise(g, polynomial(spec.programming_error_us, g), rng)
            if stuck is not None:
                low, high = spec.stuck_low_fraction, spec.stuck_high_fraction
                make_stuck(g, low, high, spec.g_min_us, spec.g_max_us, stuck)
            written.append(g)
        return Devices(written[0], written[1])

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """Conductances as reads at `at_s` find them; see `Cell`. There is drift at t0_s already.

        Raises:
            ChipError: `at_s` is before t0_s, or not between the times of a table; or noise or drift that the
                cell has no law of.
        """
        at_s = self._time(at_s, noise, drift)
        if noise is None and drift is None:
            return devices
        aged = []
        for programmed in (devices.g_plus, devices.g_minus):
            g = self._relaxed(programmed, at_s, drift)
            if noise is not None:
                sigma = self._noise_amplitude(g)
                sigma *= np.float32(math.sqrt(noise_spectrum(self.spec, at_s, part)))
                add_noise(g, sigma, noise)
            if self.spec.stays_in_range:
                np.clip(g, np.float32(self.spec.g_min_us), np.float32(self.spec.g_max_us), out=g)
            aged.append(g)
        return Devices(aged[0], aged[1])

    def noise_variance(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Variance of W from read to read in uS^2, that of both devices; zeros without a law. As `age`."""
        if not self.spec.read_noise_log_us:
            return np.zeros(devices.g_plus.shape, np.float32)
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
        at_s = self._time(at_s, None, drift)
        spectrum = (
            np.float32(noise_spectrum(self.spec, at_s, part)) if self.spec.t_read_s else np.float32(0.0)
        )
        found = []
        for programmed in (devices.g_plus, devices.g_minus):
            variance = np.square(self._noise_amplitude(self._relaxed(programmed, at_s, drift)))
            variance *= spectrum
            found.append(variance)
        return found[0], found[1]

    def _relaxed(self, programmed: Float32, at_s: float, drift: Stream | None) -> Float32:
        """A copy of programmed conductances, as time has changed them; clipped at 0."""
        spec, g = self.spec, programmed.copy()
        if drift is None:
            return g
        if spec.error_times_s:
            sigma = polynomial(self._error_at(at_s), g / np.float32(spec.g_max_fit_us))
        else:
            (offset, slope), ln_t = spec.relaxation_deviation_us, math.log(at_s)
            sigma = np.full_like(g, offset + slope * ln_t)
            g += np.float32(spec.relaxation_mean_us[0] + spec.relaxation_mean_us[1] * ln_t)
        add_noise(g, sigma, drift)
        return g

    def _error_at(self, at_s: float) -> tuple[float, ...]:
        """The coefficients of sigma at a time."""
        times = np.log(self.spec.error_times_s)
        return tuple(
            float(np.interp(math.log(at_s), times, powers))
            for powers in zip(*self.spec.error_table_us, strict=True)
        )

    def _noise_amplitude(self, g: Float32) -> Float32:
        """K log10 G in uS, of conductances as they are now."""
        amplitude = np.log10(np.maximum(g, np.float32(1.0)))
        amplitude *= np.float32(self.spec.read_noise_log_us)
        return amplitude

    def _time(self, at_s: float | None, noise: Normals | None, drift: Stream | None) -> float:
        """The time of a read in seconds; ChipError if no law covers it, or there is none of what is asked."""
        check_laws(self.spec, read_noise=noise is not None, drift=drift is not None)
        at_s = read_time(at_s, self.t0_s)
        times = self.spec.error_times_s
        if drift is not None and times and at_s > times[-1]:
            raise ChipError(
                f"read at {at_s:g} s after programming: must be at most {times[-1]:g} s, the last of "
                "error_times_s; nothing published covers what these devices do after that"
            )
        return at_s
