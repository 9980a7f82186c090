"""The capacitor cells of training, device by device: steps, bounds, leak and reset voltage.

One pulse changes g of a device by nearly the same everywhere, with a straight line for what is not the same
(aihwkit's LinearStep device with additive noise; rpu_linearstep_device.cpp). With N standard normal numbers,
drawn once per device, and s = (g_high - g_low) / steps the mean step, h half of the range:

    b       = up_down_mismatch N
    up      = s (1 + b + step_spread N)              down      = s (1 - b + step_spread N)
    slope_k = |nonlinearity + nonlinearity_spread N| k / h     for k = up, down
    low_max = middle + h (1 + range_spread N)        low_min   = middle - h (1 + range_spread N)

The spreads are those of aihwkit's CapacitorPresetDevice, a fit to Li et al. (VLSI 2018). What is added here:
the time constant of each device's leak, tau (1 + leak_spread N), and r = reset_spread_us N, by which its g is
off its reference's after a reset, since the thresholds of the transistors that read them differ. r is no
charge, so it neither leaks nor is pulsed away: W = F (G+ - G-) + s (low + r), where `low` is what pulses and
leak change, 0 after a reset.

Parameters are kept as bfloat16, 8 bits of them: rounding is less than a tenth of their spread.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.random import stream
from pcmc.accel.training.bank import LEAK_EVERY, PulseLaw
from pcmc.accel.training.bfloat16 import Halves, narrowed, widened
from pcmc.accel.training.layout import Layout
from pcmc.accel.training_spec import LinearPulseSpec

Float32 = NDArray[np.float32]
Place = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CapacitorRange:
    """The range of g of a kind of capacitor cell, in uS, relative to its reference."""

    low_us: float
    high_us: float
    reference_us: float
    steps: int
    tau_s: float

    @property
    def middle_us(self) -> float:
        """The middle of the range, from the reference."""
        return (self.low_us + self.high_us) / 2 - self.reference_us

    @property
    def half_us(self) -> float:
        """Half of the range."""
        return (self.high_us - self.low_us) / 2

    @property
    def step_us(self) -> float:
        """The mean step."""
        return (self.high_us - self.low_us) / self.steps


@dataclass(frozen=True, slots=True, eq=False)
class CapacitorDevices:
    """What differs between the capacitor cells of a block or a bank; bfloat16, in units of `unit_us`.

    `steps` are up and down, `slopes` those of both, `bounds` low_min and low_max, [cells, 2], others [cells].
    `leak` is the share that is gone in LEAK_EVERY examples; None: `leak_mean` for all. `reset` is r; None: 0
    for all. `step` is the mean step.
    """

    steps: Halves
    slopes: Halves
    bounds: Halves
    leak: Halves | None
    reset: Halves | None
    step: float
    middle: float
    leak_mean: float

    @property
    def up(self) -> Halves:
        """Steps up [cells]."""
        return self.steps[:, 0]

    @property
    def down(self) -> Halves:
        """Steps down [cells]."""
        return self.steps[:, 1]

    @property
    def slope_up(self) -> Halves:
        """Slopes of steps up [cells]."""
        return self.slopes[:, 0]

    @property
    def slope_down(self) -> Halves:
        """Slopes of steps down [cells]."""
        return self.slopes[:, 1]

    @property
    def low_min(self) -> Halves:
        """Lower bounds [cells]."""
        return self.bounds[:, 0]

    @property
    def low_max(self) -> Halves:
        """Upper bounds [cells]."""
        return self.bounds[:, 1]


def draw_capacitors(
    layout: Layout, spec: LinearPulseSpec, of: CapacitorRange, unit_us: float
) -> CapacitorDevices:
    """Draw the devices of a bank, from streams that name each block's place.

    Args:
        layout: the bank; its physics says whether devices differ (`step_mismatch`) and leak (`leak`).
        spec: the spreads.
        of: the cells' mean range.
        unit_us: microsiemens of a weight of 1.
    """
    physics, example_time_s = layout.physics, layout.chip.training.example_time_s
    spreads = spec if physics.step_mismatch else _without_spreads(spec)
    arrays = {name: np.empty((layout.cells, 2), np.uint16) for name in _PARAMETERS}
    leak = np.empty(layout.cells, np.uint16) if physics.leak and spec.leak_spread else None
    reset = np.empty(layout.cells, np.uint16) if spreads.reset_spread_us else None
    for block in layout.parts:
        draw = _Draw(layout.seed, block.place, block.at.stop - block.at.start)
        for name, values in _parameters(spreads, of, unit_us, draw).items():
            arrays[name][block.at] = np.stack([narrowed(one) for one in values], axis=1)
        if leak is not None:
            leak[block.at] = narrowed(_leak(spec.leak_spread, LEAK_EVERY * example_time_s / of.tau_s, draw))
        if reset is not None:
            reset[block.at] = narrowed(draw.normal("reset_mismatch", spreads.reset_spread_us / unit_us))
    return CapacitorDevices(
        **arrays,
        leak=leak,
        reset=reset,
        # As the devices hold it, so that without mismatch all have the mean exactly.
        step=float(widened(narrowed(np.array([of.step_us / unit_us], np.float32)))[0]),
        middle=of.middle_us / unit_us,
        leak_mean=-math.expm1(-LEAK_EVERY * example_time_s / of.tau_s) if physics.leak else 0.0,
    )


def pulse_law(devices: CapacitorDevices, low: Float32, noise: float) -> PulseLaw:
    """What the kernels take of the devices, with what their low tiers hold and the noise of a pulse."""
    arrays = {name: getattr(devices, name) for name in (*_PARAMETERS, "leak")}
    return PulseLaw(
        low=low,
        **arrays,
        low_mid=devices.middle,
        noise=noise,
        step=devices.step,
        leak_mean=devices.leak_mean,
    )


_PARAMETERS = ("steps", "slopes", "bounds")


def _without_spreads(spec: LinearPulseSpec) -> LinearPulseSpec:
    return LinearPulseSpec(kind="linear", nonlinearity=spec.nonlinearity, leak_to_us=spec.leak_to_us)


@dataclass(frozen=True, slots=True)
class _Draw:
    """Gives n numbers of the streams of a place."""

    seed: int
    place: Place
    n: int

    def normal(self, name: str, spread: float) -> Float32:
        """Normal numbers of the standard deviation `spread`; none are drawn for 0."""
        if not spread:
            return np.zeros(self.n, np.float32)
        numbers = stream(self.seed, self.place, name).normal(self.n)
        numbers *= np.float32(spread)
        return numbers


def _parameters(
    spec: LinearPulseSpec, of: CapacitorRange, unit_us: float, draw: _Draw
) -> dict[str, tuple[Float32, Float32]]:
    """The parameters of some devices, in units of `unit_us`, two by two."""
    step, half = np.float32(of.step_us / unit_us), np.float32(of.half_us / unit_us)
    middle, one = np.float32(of.middle_us / unit_us), np.float32(1)
    tilt = draw.normal("up_down_mismatch", spec.up_down_mismatch)

    def steps(name: str, sign: np.float32) -> Float32:
        size: Float32 = step * (one + sign * tilt + draw.normal(f"step_{name}", spec.step_spread))
        np.maximum(size, np.float32(0), out=size)  # a pulse never acts the other way round
        return size

    def slopes(name: str, size: Float32) -> Float32:
        bend = draw.normal(f"slope_{name}", spec.nonlinearity_spread)
        found: Float32 = np.abs(np.float32(spec.nonlinearity) + bend) * size / half
        return found

    def bound(name: str, sign: np.float32) -> Float32:
        return middle + sign * half * (one + draw.normal(name, spec.range_spread))

    up, down = steps("up", one), steps("down", -one)
    return {
        "steps": (up, down),
        "slopes": (slopes("up", up), slopes("down", down)),
        "bounds": (bound("low_min", -one), bound("low_max", one)),
    }


def _leak(spread: float, interval: float, draw: _Draw) -> Float32:
    """1 - exp(-t / tau) of each device; `interval` is t over the mean tau."""
    tau = np.float32(1) + draw.normal("leak", spread)
    share: Float32 = -np.expm1(np.float32(-interval) / np.maximum(tau, np.float32(0.1)))
    return share
