"""The cell "2pcm": differential pairs of PCM devices, one pair a weight or several that are averaged."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pcmc.accel.cell_specs import PcmCellSpec
from pcmc.accel.cells import pcm
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, beyond, check_weights, make_stuck
from pcmc.errors import ChipError

Spec = TypeVar("Spec", bound=PcmCellSpec)


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
    def g_max(self) -> float:
        """Largest conductance that is programmed, in uS."""
        return self.spec.g_max_us

    @property
    def t0_s(self) -> float:
        """When the first read takes place, in seconds since programming."""
        return self.spec.t0_s

    @property
    def gains(self) -> tuple[float, ...]:
        """What a microsiemens of each pair counts in W."""
        return (self.spec.significance / self.spec.pairs,) * self.spec.pairs

    def program(
        self,
        weights: Float32,
        unit_us: float,
        rng: np.random.Generator | None,
        stuck: np.random.Generator | None = None,
    ) -> Devices:
        """Program the pairs of n cells to |weight| * unit_us / F, at most `g_max`.

        Args:
            weights: [n], float32. Not changed.
            unit_us: microsiemens of F (G+ - G-) that stand for a weight of 1: F * g_max / w_max.
            rng: the stream of the programming error; None: exact targets.
            stuck: the stream that says which devices are stuck; None: none are.

        Raises:
            TypeError: `weights` is not a one-dimensional float32 array.
        """
        check_weights(weights)
        target = weights * np.float32(unit_us / self.spec.significance)
        if self.spec.pairs > 1:
            target = np.repeat(target, self.spec.pairs)
        g_plus, g_minus = write_pair(target, self.spec, rng, stuck)
        if self.spec.pairs == 1:
            return Devices(g_plus, g_minus)
        shape = (len(weights), self.spec.pairs)
        return Devices(g_plus.reshape(shape), g_minus.reshape(shape))

    def read(
        self,
        devices: Devices,
        unit_us: float,
        rng: np.random.Generator | None,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """The weights that a read-out finds, [n] float32.

        Args:
            devices: n programmed cells. Not changed.
            unit_us: as in `program`.
            rng: the stream of the frozen read noise; None: no noise.
            at_s: seconds since programming; None: t0_s. At t0_s itself nothing has drifted.
            drift: the stream of the devices' nu, the same at each read of a programming; None: no drift.
            part: which part of the read noise `rng` draws.

        Raises:
            ChipError: `at_s` is before t0_s, where the fits begin; or noise or drift that the cell lacks.
        """
        at_s = self._time(at_s, rng is not None, drift is not None)
        g_plus, g_minus = devices.g_plus, devices.g_minus
        drift = drift if at_s > self.t0_s else None
        if rng is not None or drift is not None:
            g_plus, g_minus = g_plus.copy(), g_minus.copy()
            for g in (g_plus, g_minus):
                pcm.age(g.reshape(-1), self.spec, at_s, rng, drift, part)
        difference = g_plus - g_minus
        if difference.ndim == 1:
            difference /= np.float32(unit_us / self.gains[0])
            return difference
        return difference @ np.array([gain / unit_us for gain in self.gains], np.float32)

    def noise_variance(
        self,
        devices: Devices,
        unit_us: float,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Variance of each weight from read to read, [n] float32: the sum of sigma_read^2 of its devices.

        Each device counts with the square of its pair's gain / unit_us; see `pcmc.accel.cells.pcm` for the
        parts. Arguments and errors as in `read`.
        """
        at_s = self._time(at_s, True, drift is not None)
        drift = drift if at_s > self.t0_s else None
        variance: Float32 = np.zeros(devices.g_plus.size, np.float32)
        for g in (devices.g_plus, devices.g_minus):
            variance += pcm.noise_variance(g.reshape(-1), self.spec, at_s, part, drift)
        variance = variance.reshape(devices.g_plus.shape)
        squares = np.array([(gain / unit_us) ** 2 for gain in self.gains], np.float32)
        weight_variance: Float32 = variance * squares[0] if variance.ndim == 1 else variance @ squares
        return weight_variance

    def clipped(self, weights: Float32, unit_us: float) -> int:
        """How many of the weights [n] ask for more than `g_max` of a device."""
        return beyond(weights, self.spec.significance * self.g_max / unit_us)

    def mean_drift(self, at_s: float, g_us: float | None = None) -> float:
        """The mean factor by which a device programmed to `g_us` (None: half of `g_max`) has changed."""
        return pcm.mean_drift(self.g_max / 2 if g_us is None else g_us, self.spec, at_s)

    def _time(self, at_s: float | None, noise: bool, drift: bool) -> float:
        """The time of a read in seconds; ChipError if the cell has no law of what is asked."""
        at_s = self.t0_s if at_s is None else at_s
        pcm.check_read_time(self.spec, at_s)
        for name, asked in (("read_noise", noise), ("drift", drift)):
            if asked and name not in self.spec.effects:
                raise ChipError(f"{name}: the chip's [cell] gives no law of it")
        return at_s


def write_pair(
    target: Float32, spec: PcmCellSpec, rng: np.random.Generator | None, stuck: np.random.Generator | None
) -> tuple[Float32, Float32]:
    """Program one pair each to G+ - G- = `target` [n], in uS; G+ and G-, as they end up.

    Args:
        target: clipped at +-g_max_us. Not changed.
        spec: the statistics.
        rng: the stream of the programming error, first for all G+, then for all G-; None: exact targets.
        stuck: the stream of stuck devices, in the same order; None: none.
    """
    written = []
    for g in (target.copy(), -target):
        np.clip(g, np.float32(0.0), np.float32(spec.g_max_us), out=g)
        if rng is not None:
            pcm.add_programming_error(g, spec, rng)
        if stuck is not None:
            make_stuck(g, spec.stuck_low_fraction, spec.stuck_high_fraction, 0.0, spec.g_max_us, stuck)
        written.append(g)
    return written[0], written[1]
