"""The cell "2pcm": differential pairs of PCM devices, one pair a weight or several that are averaged."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import PcmCellSpec
from pcmc.accel.cells import pcm
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, beyond, check_laws, check_targets, make_stuck
from pcmc.accel.random import Normals, Stream


@dataclass(frozen=True, slots=True)
class PcmPairCell:
    """W = F (G+ - G-), or the mean of that over `pairs` pairs in parallel.

    The single-tier cell of Burr et al. (IEDM 2014) with one pair; with several, multi-device averaging: each
    pair is programmed to the same target, so that errors and noise, which are independent, fall with the
    square root of their number, and a coherent error (the mean drift, the positive mean of devices at RESET,
    which the pair itself cancels) does not.

    A positive weight goes into G+ and a negative one into G-, from full RESET; the other device of a pair
    stays at RESET, which is a target of 0. The statistics of the devices are those of `pcmc.accel.cells.pcm`;
    a stuck device conducts 0 or `g_max_us`, whatever its target, and drifts and errs like others. Streams are
    drawn for all G+ first, then for all G-; of several pairs, cell by cell.
    """

    spec: PcmCellSpec

    @property
    def full_us(self) -> float:
        """F g_max."""
        return self.spec.significance * self.spec.g_max_us

    @property
    def t0_s(self) -> float:
        """When the first read takes place, in seconds since programming."""
        return self.spec.t0_s

    @property
    def gains(self) -> tuple[float, ...]:
        """What a microsiemens of each pair counts in W."""
        return (self.spec.significance / self.spec.pairs,) * self.spec.pairs

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Program the pairs of each cell to |target| / F, at most `g_max_us`; see `Cell`."""
        check_targets(target_us)
        target = target_us / np.float32(self.spec.significance)
        if self.spec.pairs > 1:
            target = np.repeat(target[..., None], self.spec.pairs, axis=2)
        return Devices(*write_pair(target, self.spec, rng, stuck))

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """Conductances as reads at `at_s` find them; see `Cell`. At t0_s itself nothing has drifted, but for
        what the temperature does.

        Raises:
            ChipError: `at_s` is before t0_s, where the fits begin; or noise or drift that the cell lacks.
        """
        at_s = self._time(at_s, noise is not None, drift is not None)
        drift = drift if pcm.changes(self.spec, at_s) else None
        if noise is None and drift is None:
            return devices
        aged = [g.copy() for g in (devices.g_plus, devices.g_minus)]
        for g in aged:
            pcm.age(g.reshape(-1), self.spec, at_s, noise, drift, part)
        return Devices(aged[0], aged[1])

    def weights_us(self, devices: Devices) -> Float32:
        """F (G+ - G-) of each cell, in uS."""
        difference = devices.g_plus - devices.g_minus
        if difference.ndim == 2:
            difference *= np.float32(self.gains[0])
            return difference
        return difference @ np.array(self.gains, np.float32)

    def noise_variance(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Variance of W from read to read: the sum of sigma_read^2 of its devices, each times its gain^2.

        See `pcmc.accel.cells.pcm` for the parts. Arguments and errors as in `age`.
        """
        plus, minus = self.device_variances(devices, at_s, drift, part)
        plus += minus
        squares = np.square(np.array(self.gains, np.float32))
        of_w: Float32 = plus * squares[0] if plus.ndim == 2 else plus @ squares
        return of_w

    def device_variances(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> tuple[Float32, Float32]:
        """sigma_read^2 of each G+ and of each G-, in uS^2; as `noise_variance`."""
        at_s = self._time(at_s, True, drift is not None)
        drift = drift if pcm.changes(self.spec, at_s) else None
        plus, minus = (
            pcm.noise_variance(g.reshape(-1), self.spec, at_s, part, drift).reshape(g.shape)
            for g in (devices.g_plus, devices.g_minus)
        )
        return plus, minus

    def clipped(self, target_us: Float32) -> int:
        """How many of the targets ask for more than `g_max_us` of a device."""
        return beyond(target_us, self.full_us)

    def mean_drift(self, at_s: float, g_us: float | None = None) -> float:
        """The mean factor by which a device programmed to `g_us` (None: half of `g_max_us`) has changed."""
        return pcm.mean_drift(self.spec.g_max_us / 2 if g_us is None else g_us, self.spec, at_s)

    def _time(self, at_s: float | None, noise: bool, drift: bool) -> float:
        """The time of a read in seconds; ChipError if the cell has no law of what is asked."""
        at_s = self.t0_s if at_s is None else at_s
        pcm.check_read_time(self.spec, at_s)
        check_laws(self.spec, read_noise=noise, drift=drift)
        return at_s


def write_pair(
    target: Float32, spec: PcmCellSpec, rng: Stream | None, stuck: Stream | None
) -> tuple[Float32, Float32]:
    """Program one pair each to G+ - G- = `target`, an array of any shape in uS; G+ and G-, as they end up.

    Args:
        target: clipped at +-g_max_us. Not changed.
        spec: the statistics.
        rng: the stream of the programming error, first for all G+, then for all G-; None: exact targets.
        stuck: the stream of stuck devices, in the same order; None: none.
    """
    written = []
    target = np.ascontiguousarray(target)  # so that a reshaped half is a view of it, not a copy
    for g in (target.copy(), -target):
        np.clip(g, np.float32(0.0), np.float32(spec.g_max_us), out=g)
        if rng is not None:
            pcm.add_programming_error(g.reshape(-1), spec, rng)
        if stuck is not None:
            make_stuck(g, spec.stuck_low_fraction, spec.stuck_high_fraction, 0.0, spec.g_max_us, stuck)
        written.append(g)
    return written[0], written[1]
