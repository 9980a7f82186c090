"""The cell "rram": a differential pair of filamentary resistive devices."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import RramCellSpec
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, beyond, check_weights, make_stuck
from pcmc.accel.cells.untimed import no_noise, refuse_generators


@dataclass(frozen=True, slots=True)
class RramCell:
    """W = G+ - G-, both devices between g_min and g_max; the erased one stays at g_min.

    The error of closed-loop writing is Gaussian, with a polynomial in the target G in uS:

        sigma(G) = c0 + c1 G + c2 G^2 + c3 G^3

    and conductances are clipped at 0. neurram has c = 1.053, 0.2374, -1.167e-2, 1.536e-4, fitted up to 39.26
    uS: CrossSim's model of the devices of Wan et al., Nature 608 (2022). At g_min = 1 uS that is 1.28 uS.

    What is left out, since no fit of it was at hand: read noise, and change in time after programming (what
    there is of it, is in the fit). A stuck device conducts g_min or g_max.
    """

    spec: RramCellSpec

    @property
    def g_max(self) -> float:
        """The difference of conductance of the largest weight, g_max_us - g_min_us."""
        return self.spec.g_max_us - self.spec.g_min_us

    @property
    def t0_s(self) -> float:
        """0: these statistics know no time."""
        return 0.0

    def program(
        self,
        weights: Float32,
        unit_us: float,
        rng: np.random.Generator | None,
        stuck: np.random.Generator | None = None,
    ) -> Devices:
        """Program n pairs, one device to g_min + |weight| * unit_us, the other to g_min.

        Args:
            weights: [n], float32. Not changed.
            unit_us: microsiemens of G+ - G- that stand for a weight of 1.
            rng: the stream of the programming error, first for all G+, then for all G-; None: exact targets.
            stuck: the stream of stuck devices, in the same order; None: none.

        Raises:
            TypeError: `weights` is not a one-dimensional float32 array.
        """
        check_weights(weights)
        spec, written = self.spec, []
        target = weights * np.float32(unit_us)
        for g in (target, -target):
            np.clip(g, np.float32(0.0), np.float32(self.g_max), out=g)
            g += np.float32(spec.g_min_us)
            if rng is not None:
                sigma = np.polynomial.polynomial.polyval(
                    g, np.array(spec.programming_error_us, np.float32)
                ).astype(np.float32, copy=False)
                g += sigma * rng.standard_normal(len(g), dtype=np.float32)
                np.maximum(g, np.float32(0.0), out=g)
            if stuck is not None:
                low, high = spec.stuck_low_fraction, spec.stuck_high_fraction
                make_stuck(g, low, high, spec.g_min_us, spec.g_max_us, stuck)
            written.append(g)
        return Devices(written[0], written[1])

    def read(
        self,
        devices: Devices,
        unit_us: float,
        rng: np.random.Generator | None,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """The weights (G+ - G-) / unit_us, [n] float32; `at_s` and `part` make no difference.

        Raises:
            ChipError: noise or drift is asked for: there is no law of them here.
        """
        refuse_generators(self.spec.kind, rng, drift)
        weights = devices.g_plus - devices.g_minus
        weights /= np.float32(unit_us)
        return weights

    def noise_variance(
        self,
        devices: Devices,
        unit_us: float,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Zeros [n]: there is no read noise here."""
        return no_noise(devices)

    def clipped(self, weights: Float32, unit_us: float) -> int:
        """How many of the weights [n] ask for more than `g_max`."""
        return beyond(weights, self.g_max / unit_us)
