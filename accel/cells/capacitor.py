"""The cell "3t1c": a capacitor that sets the conductance of a transistor, against a shared reference."""

import math
from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import CapacitorCellSpec
from pcmc.accel.cells.cell import (
    Devices,
    Float32,
    NoisePart,
    beyond,
    check_laws,
    check_targets,
    make_stuck,
    read_time,
)
from pcmc.accel.cells.quiet import QuietCell
from pcmc.accel.random import Normals, Stream


@dataclass(frozen=True, slots=True)
class CapacitorCell(QuietCell[CapacitorCellSpec]):
    """W = g - g_ref: the low tier of the cell of Ambrogio et al. (Nature 558, 2018) as a cell of its own.

    The voltage of a capacitor, moved up and down by pulses, is the gate of a transistor whose conductance g
    is between g_low and g_high (4 to 20 uS: NeuroSim's model of this cell). A write pulses it to the step
    nearest to its target, of `steps` equal ones over the range; where steps lie is each device's own, so it
    misses by anything up to half a step:

        g = target + U(-1/2, 1/2) (g_high - g_low) / steps,  clipped to the range

    Capacitor and reference leak towards the same voltage with the time constant tau (5.16 ms: that paper,
    Extended Data Fig. 1), and so does what is between them, signal and all:

        (g - g_ref)(t) = (g - g_ref)(0) exp(-t / tau)

    A third of a weight is gone after 2 ms, and all of it after 100 ms: such a cell serves what is rewritten
    all the time, as in training. Inference with drift (here: the leak) on has to say when, `at_s` being
    milliseconds; without, a read finds the weight as written.

    At another temperature T than 300 K tau is tau exp((Ea / k) (1 / T - 1 / 300 K)), Ea = `leak_ev`, by
    default 0: no source gives it for this cell. (A leak by generation in depleted silicon, with about half
    the gap of 1.12 eV, halves tau every 10 K; recalled, assumed.)

    What is left out: that g is not linear in the voltage, differences in tau, read noise (no fit at hand). A
    stuck cell conducts g_low or g_high.
    """

    @property
    def full_us(self) -> float:
        """The largest difference from the reference that both signs of a weight can have, in uS."""
        return self.spec.g_max_us

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Program cells to g - g_ref = target; Devices hold that difference as `g_plus`.

        `rng` is the stream of the programming error, one uniform number per cell; see `Cell`.
        """
        check_targets(target_us)
        spec = self.spec
        low, high = spec.g_low_us - spec.g_reference_us, spec.g_high_us - spec.g_reference_us
        g = target_us.copy()
        if rng is not None:
            step = np.float32((high - low) / spec.steps)
            g += (rng.uniform(g.size).reshape(g.shape) - np.float32(0.5)) * step
        np.clip(g, np.float32(low), np.float32(high), out=g)
        if stuck is not None:
            make_stuck(g, spec.stuck_low_fraction, spec.stuck_high_fraction, low, high, stuck)
        return Devices(g)

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """The differences after `at_s` seconds (None: 0) of leak, which any stream of `drift` switches on.

        Raises:
            ChipError: `noise` is given, of which there is no law, or `at_s` is no time.
        """
        check_laws(self.spec, read_noise=noise is not None)
        at_s = read_time(at_s, self.t0_s)
        if drift is None:
            return devices
        return Devices(devices.g_plus * np.float32(math.exp(-at_s / self.spec.leak_tau_now_s)))

    def clipped(self, target_us: Float32) -> int:
        """How many of the targets are beyond the end of the range on their side."""
        spec = self.spec
        zero = np.float32(0.0)
        return beyond(np.maximum(target_us, zero), spec.g_high_us - spec.g_reference_us) + beyond(
            np.minimum(target_us, zero), spec.g_reference_us - spec.g_low_us
        )
