"""The two-tier cell "2pcm+3t1c" of Ambrogio et al., Nature 558, 60-67 (2018)."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cells.cell import Devices, Float32
from pcmc.accel.cells.pcm import add_programming_error, add_read_noise, check_read_time
from pcmc.accel.chip import TwoTierCellSpec


@dataclass(frozen=True, slots=True)
class TwoTierCell:
    """W = F (G+ - G-) + s (g - g_ref): a pair of PCM devices, and a capacitor cell against a reference.

    A network that was programmed and then only runs is read from the PCM pair alone, the low tier switched
    off: W = F (G+ - G-). A positive weight goes into G+ and a negative one into G-, from full RESET; the
    other device of the pair stays at RESET, which is a target of 0. The statistics of the devices are those
    of `pcmc.accel.cells.pcm`; the frozen read noise is drawn once for every device, as aihwkit does.
    """

    spec: TwoTierCellSpec

    @property
    def g_max(self) -> float:
        """Largest conductance that is programmed, in uS."""
        return self.spec.g_max_us

    def program(self, weights: Float32, unit_us: float, rng: np.random.Generator | None) -> Devices:
        """Program n pairs to |weight| * unit_us / F, at most `g_max`; with an error if `rng` is given.

        Args:
            weights: [n], float32. Not changed.
            unit_us: microsiemens of F (G+ - G-) that stand for a weight of 1: F * g_max / w_max.
            rng: the stream of the programming error, first for all G+, then for all G-; None: exact targets.

        Raises:
            TypeError: `weights` is not a one-dimensional float32 array.
        """
        if weights.dtype != np.float32 or weights.ndim != 1:
            raise TypeError(f"weights must be float32 [n], not {weights.dtype} {list(weights.shape)}")
        limit = np.float32(self.spec.g_max_us)
        g_plus = weights * np.float32(unit_us / self.spec.significance)
        g_minus = np.negative(g_plus)
        for g in (g_plus, g_minus):
            np.clip(g, np.float32(0.0), limit, out=g)
            if rng is not None:
                add_programming_error(g, self.spec, rng)
        return Devices(g_plus, g_minus)

    def read(
        self, devices: Devices, unit_us: float, rng: np.random.Generator | None, at_s: float = 20.0
    ) -> Float32:
        """The weights F (G+ - G-) / unit_us that a read-out finds, [n] float32.

        Args:
            devices: n programmed pairs. Not changed.
            unit_us: as in `program`.
            rng: the stream of the frozen read noise, first for all G+, then for all G-; None: no noise.
            at_s: seconds since programming. There is no drift here: time lets the noise grow, nothing else.

        Raises:
            ChipError: `at_s` is before t0_s, where the fit of the noise begins.
        """
        check_read_time(self.spec, at_s)
        if rng is None:
            weights = devices.g_plus - devices.g_minus
        else:
            weights = devices.g_plus.copy()
            g_minus = devices.g_minus.copy()
            add_read_noise(weights, self.spec, rng, at_s)
            add_read_noise(g_minus, self.spec, rng, at_s)
            weights -= g_minus
        weights /= np.float32(unit_us / self.spec.significance)
        return weights
