"""The two-tier cell "2pcm+3t1c" of Ambrogio et al., Nature 558, 60-67 (2018)."""

import math
from dataclasses import dataclass, replace

import numpy as np

from pcmc.accel.cell_specs import TwoTierCellSpec
from pcmc.accel.cells.cell import Devices, Float32, NoisePart
from pcmc.accel.cells.pcm_pair import PcmPairCell
from pcmc.accel.random import Normals, Stream


@dataclass(frozen=True, slots=True)
class TwoTierCell(PcmPairCell):
    """W = F (G+ - G-) + s (g - g_ref): a pair of PCM devices, and a capacitor cell against a reference.

    A network that was programmed and then only runs is read from the PCM pair alone, the low tier switched
    off: W = F (G+ - G-), as in `PcmPairCell`. Seconds after programming the capacitor, which leaks with a
    time constant of 5.16 ms, would hold nothing anyway.

    Right after programming both tiers count. The low one has been tuned to what the pair missed (Ambrogio et
    al., Extended Data Fig. 9), with steps of (g_high - g_low) / steps, and within its range; then it leaks:

        g - g_ref  <-  W - F (G+ - G-) + U(-1/2, 1/2) step,   (g - g_ref)(t) = (g - g_ref)(0) exp(-t / tau)

    At another temperature tau is that of `CapacitorCell`. Drift and noise of PCM before t0 are unknown, not
    small: such reads leave them out. Between the time when the capacitor has relaxed (10 tau) and t0 nothing
    can be said, and reads are refused.
    """

    spec: TwoTierCellSpec

    def low_tier_counts(self, at_s: float | None) -> bool:
        """Whether a read at this time, in s, finds both tiers."""
        return at_s is not None and 0 <= at_s <= 10 * self.spec.leak_tau_now_s

    def tune_low(self, devices: Devices, target_us: Float32, rng: Stream | None) -> Devices:
        """The devices with the low tier tuned to the rest of the targets.

        Args:
            devices: programmed pairs [rows, cols]. Not changed.
            target_us: [rows, cols], as in `program`.
            rng: the stream of where in a step tuning ends, one uniform number per cell; None: exactly.
        """
        spec = self.spec
        low = target_us - PcmPairCell.weights_us(self, devices)
        if rng is not None:
            step = (spec.low_g_high_us - spec.low_g_low_us) / spec.low_steps
            low += (rng.uniform(low.size).reshape(low.shape) - np.float32(0.5)) * np.float32(step)
        ends = (spec.low_g_low_us - spec.low_reference_us, spec.low_g_high_us - spec.low_reference_us)
        np.clip(low, np.float32(ends[0]), np.float32(ends[1]), out=low)
        return replace(devices, low=low)

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """As in `PcmPairCell` from t0 on, without the low tier; within 10 tau both tiers: with `drift` the
        low one leaks, and of PCM nothing is known.

        Raises:
            ChipError: `at_s` is no time, before t0 but beyond 10 tau, or without a low tier that was tuned.
        """
        if at_s is None or not self.low_tier_counts(at_s) or not devices.low.size:
            pair = replace(devices, low=devices.low[:0]) if devices.low.size else devices
            return PcmPairCell.age(self, pair, at_s, noise, drift, part)
        if drift is None or at_s == 0:
            return devices
        return replace(devices, low=devices.low * np.float32(math.exp(-at_s / self.spec.leak_tau_now_s)))

    def weights_us(self, devices: Devices) -> Float32:
        """F (G+ - G-), and (g - g_ref) where the low tier is on, of each cell, in uS."""
        w = PcmPairCell.weights_us(self, devices)
        if devices.low.size:
            w += devices.low
        return w

    def device_variances(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> tuple[Float32, Float32]:
        """As in `PcmPairCell`; zeros before t0, where nothing is known."""
        if self.low_tier_counts(at_s) and devices.low.size:
            zeros = np.zeros_like(devices.g_plus)
            return zeros, zeros.copy()
        return PcmPairCell.device_variances(self, devices, at_s, drift, part)
