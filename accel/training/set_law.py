"""What SET pulses do to pairs of PCM devices, and the numpy twin of the kernel that fires them.

A pair counts plus - minus; a pulse up raises `plus`, one down `minus`. With g what the device holds, all in
units of the weight, N standard normal, new at each pulse, a pulse does

    step = step_i (1 + growth exp(-decay g / top_i))
    g   += step + noise (step + noise_offset + noise_slope g) N,         clipped to [0, top_i]

which is aihwkit's ExpStep device with the noise of its PCM preset (rpu_expstep_device.cpp). A device whose
step is 0 is stuck: it takes pulses, and holds what it held.

Of several pairs for one weight all cells pulse the same one: number (updates so far) mod pairs, a counter
for the whole bank (Boybat et al., Nature Communications 9, 2514, 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.training.bfloat16 import widened

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Ints = NDArray[np.int64]

# Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
_ROUNDER = np.float32(12582912.0)
_ONE = np.float32(1)


@dataclass(frozen=True, slots=True, eq=False)
class SetLaw:
    """The devices that SET pulses change; arrays are [pairs, cells] flattened, uint16 ones bfloat16.

    Args:
        plus, minus: float32, what the devices hold; changed in place.
        step_plus, step_minus: uint16, size of a step far up the range; 0: the device is stuck.
        top_plus, top_minus: uint16, ends of their ranges, positive.
        growth, decay: a step is 1 + growth exp(-decay g / top) times that size.
        noise, noise_offset, noise_slope: standard deviation of a step, noise (step + offset + slope g).
        step: the mean change that the length of pulse trains counts on.
        pairs: how many pairs a weight has.
    """

    plus: Floats
    minus: Floats
    step_plus: Halves
    step_minus: Halves
    top_plus: Halves
    top_minus: Halves
    growth: float
    decay: float
    noise: float
    noise_offset: float
    noise_slope: float
    step: float
    pairs: int = 1

    def packed(self, cells: int) -> tuple[Any, ...]:
        """As the kernels take it; ValueError if an array does not fit so many cells, or a number is none."""
        for name, kind in zip(_ARRAYS, (np.float32, np.float32, *[np.uint16] * 4), strict=True):
            values = getattr(self, name)
            if values.dtype != kind or values.shape != (self.pairs * cells,) or not values.flags.c_contiguous:
                raise ValueError(
                    f"{name} is {values.dtype} {values.shape}, should be {np.dtype(kind)} "
                    f"({self.pairs * cells},) in one piece"
                )
        if not 0 < self.step < np.inf or not 0 <= self.noise < np.inf:
            raise ValueError(
                f"a law has the step {self.step} and noise {self.noise}: one is not positive, or not finite"
            )
        return (
            *(getattr(self, name) for name in _ARRAYS), self.growth, self.decay, self.noise,
            self.noise_offset, self.noise_slope, self.step, self.pairs,
        )  # fmt: skip


_ARRAYS = ("plus", "minus", "step_plus", "step_minus", "top_plus", "top_minus")


def mean_curve(step: float, growth: float, decay: float, pulses: int) -> NDArray[np.float64]:
    """Conductance over its range after 0 to `pulses` pulses without noise from 0: float64 [pulses + 1]."""
    g = np.zeros(pulses + 1)
    for k in range(pulses):
        g[k + 1] = min(g[k] + step * (1.0 + growth * math.exp(-decay * g[k])), 1.0)
    return g


def mean_step(step: float, growth: float, decay: float, up_to: float) -> float:
    """The mean of the steps that lead from 0 up to a conductance, both relative to the range.

    It is the mean over pulses, not over conductances: that end over the number of pulses to it, the last one
    in part.
    """
    g, pulses = 0.0, 0.0
    while g < up_to:
        size = step * (1.0 + growth * math.exp(-decay * g))
        pulses += min(1.0, (up_to - g) / size)
        g += size
    return up_to / pulses if pulses else step * (1.0 + growth)


def fire(
    law: tuple[Any, ...],
    devices: tuple[Ints, NDArray[np.bool_]],
    times: Ints,
    numbers: Floats,
) -> tuple[Floats, int]:
    """The numpy twin: so many pulses on each of some devices.

    Args:
        law: `SetLaw.packed`.
        devices: indices [n] into its arrays, and for each whether it is a `plus`.
        times: pulses of each, [n].
        numbers: a normal number for each pulse, device after device.

    Returns:
        what plus - minus of each changed by, and how many pulses were clipped.
    """
    at, up = devices
    plus, minus, step_plus, step_minus, top_plus, top_minus = law[:6]
    growth, decay, noise, offset, slope = (np.float32(value) for value in law[6:11])
    before = np.where(up, plus[at], minus[at])
    unit = widened(np.where(up, step_plus[at], step_minus[at]))
    top = widened(np.where(up, top_plus[at], top_minus[at]))
    now = before.copy()
    first = np.cumsum(times) - times
    limited = 0
    for k in range(int(times.max(initial=0))):
        on = (times > k) & (unit > 0)
        g = now[on]
        size = unit[on] * (_ONE + growth * exponential(-decay * (g / top[on])))
        moved = g + (size + noise * (size + offset + slope * g) * numbers[first[on] + k])
        now[on] = np.minimum(np.maximum(moved, np.float32(0)), top[on])
        limited += int((now[on] != moved).sum())
    plus[at[up]], minus[at[~up]] = now[up], now[~up]
    return np.where(up, now - before, before - now), limited


def exponential(x: Floats) -> Floats:
    """e^x for -87 <= x <= 87, to the bit as the kernels have it: Moshier's Cephes library, single/expf.c."""
    shifted = x * np.float32(1.44269504088896341) + _ROUNDER
    n = shifted - _ROUNDER
    x = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
    p = np.full_like(x, np.float32(1.9875691500e-4))
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * x + np.float32(coefficient)
    p = p * (x * x) + x + _ONE
    found: Floats = np.ldexp(p, n.astype(np.int32))
    return found
