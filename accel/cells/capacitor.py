"""The cell "3t1c": a capacitor that sets the conductance of a transistor, against a shared reference."""

import math
from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import CapacitorCellSpec
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, beyond, check_weights, make_stuck
from pcmc.accel.cells.untimed import no_noise, refuse_generators
from pcmc.errors import ChipError


@dataclass(frozen=True, slots=True)
class CapacitorCell:
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

    What is left out: that g is not linear in the voltage, differences in tau, read noise (no fit at hand). A
    stuck cell conducts g_low or g_high.
    """

    spec: CapacitorCellSpec

    @property
    def g_max(self) -> float:
        """The largest difference from the reference that both signs of a weight can have, in uS."""
        return self.spec.g_max_us

    @property
    def t0_s(self) -> float:
        """0: a capacitor can be read at once."""
        return 0.0

    def program(
        self,
        weights: Float32,
        unit_us: float,
        rng: np.random.Generator | None,
        stuck: np.random.Generator | None = None,
    ) -> Devices:
        """Program n cells to g - g_ref = weight * unit_us; Devices hold that difference as `g_plus`.

        Args:
            weights: [n], float32. Not changed.
            unit_us: microsiemens of g - g_ref that stand for a weight of 1.
            rng: the stream of the programming error, one uniform number per cell; None: exact targets.
            stuck: the stream of stuck cells; None: none.

        Raises:
            TypeError: `weights` is not a one-dimensional float32 array.
        """
        check_weights(weights)
        spec = self.spec
        low, high = spec.g_low_us - spec.g_reference_us, spec.g_high_us - spec.g_reference_us
        g = weights * np.float32(unit_us)
        if rng is not None:
            g += (rng.random(len(g), dtype=np.float32) - np.float32(0.5)) * np.float32(
                (high - low) / spec.steps
            )
        np.clip(g, np.float32(low), np.float32(high), out=g)
        if stuck is not None:
            make_stuck(g, spec.stuck_low_fraction, spec.stuck_high_fraction, low, high, stuck)
        return Devices(g, np.empty(0, np.float32))

    def read(
        self,
        devices: Devices,
        unit_us: float,
        rng: np.random.Generator | None,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """The weights (g - g_ref) / unit_us after `at_s` seconds of leak, [n] float32.

        Args:
            devices: n programmed cells. Not changed.
            unit_us: as in `program`.
            rng: must be None: there is no law of read noise here.
            at_s: seconds since programming; None: 0.
            drift: any generator switches the leak on; nothing is drawn from it. None: no leak.
            part: no difference.

        Raises:
            ChipError: `rng` is given, or `at_s` is no time.
        """
        refuse_generators(self.spec.kind, rng, None)
        at_s = 0.0 if at_s is None else at_s
        if not (math.isfinite(at_s) and at_s >= 0.0):
            raise ChipError(f"read at {at_s:g} s after programming: must be at least 0 s")
        left = 1.0 if drift is None else math.exp(-at_s / self.spec.leak_tau_s)
        return devices.g_plus * np.float32(left / unit_us)

    def noise_variance(
        self,
        devices: Devices,
        unit_us: float,
        at_s: float | None = None,
        drift: np.random.Generator | None = None,
        part: NoisePart = "all",
    ) -> Float32:
        """Zeros [n]: there is no law of read noise here."""
        return no_noise(devices)

    def clipped(self, weights: Float32, unit_us: float) -> int:
        """How many of the weights [n] are beyond the end of the range on their side."""
        spec = self.spec
        up = (spec.g_high_us - spec.g_reference_us) / unit_us
        down = (spec.g_reference_us - spec.g_low_us) / unit_us
        return beyond(np.maximum(weights, np.float32(0.0)), up) + beyond(
            np.minimum(weights, np.float32(0.0)), down
        )
