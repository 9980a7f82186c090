"""A random number for each device for each read: what fast, frozen and split noise are held against.

Everything in plain numpy, one read of one vector after the other in principle; nothing of pcmc is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def patches(image: Floats, kernel: tuple[int, int], strides: tuple[int, int], pad: int) -> Floats:
    """The vectors [positions, channels * kh * kw] that a convolution sends for an image [channels, h, w]."""
    padded = np.pad(image, [(0, 0), (pad, pad), (pad, pad)])
    (kh, kw), (sy, sx) = kernel, strides
    height, width = padded.shape[1:]
    tops, lefts = range(0, height - kh + 1, sy), range(0, width - kw + 1, sx)
    return np.stack([padded[:, y : y + kh, x : x + kw].ravel() for y in tops for x in lefts])


def read(
    x: Floats,
    weights: Floats,
    sigma: Floats,
    rng: np.random.Generator,
    *,
    scale: float,
    levels: int,
    kind: str = "voltage",
    slice_bits: int = 1,
    signed: bool = True,
    sample: str = "slice",
    blocks: Sequence[slice] = (slice(None),),
    adc: tuple[int, float] | None = None,
) -> Floats:
    """Reads of the vectors x [reads, rows]: the results [reads, cols].

    Args:
        x: one vector for each read, the drive of a bias row among its values.
        weights: [rows, cols], or [reads, rows, cols], those of each read.
        sigma: [rows, cols], deviation of each device in a read with full input, new each time.
        rng: one normal number is drawn from it per device and read, and phase of a read; for a pulse, one for
            each step of its width, in which a device that is on adds as much white noise as in all others.
        scale: input of full voltage, or of full width.
        levels: of the DAC.
        kind: "voltage", "pulse" or "bits".
        slice_bits: of a digit.
        signed: whether a read has both signs at once.
        sample: whether "slice" or "sum" of digits is converted.
        blocks: rows that are converted together.
        adc: levels, and full scale in weights; None: ideal.
    """
    codes = np.clip(np.rint(x / scale * levels), -levels, levels).astype(int)
    y = np.zeros((len(x), weights.shape[-1]))
    for rows in blocks:
        for sign in (0,) if signed else (1, -1):
            here = np.maximum(sign * codes[:, rows], 0) if sign else codes[:, rows]
            w, s = weights[..., rows, :], sigma[rows]
            if kind == "bits":
                sums = _digits(here, w, s, rng, levels, slice_bits)
            else:
                currents = _pulses if kind == "pulse" else _voltages
                sums = [(1.0, currents(here / levels, w, s, rng, levels))]
            if sample == "sum":
                sums = [(1.0, np.sum([weight * current for weight, current in sums], axis=0))]
            for weight, current in sums:
                y += (-1 if sign < 0 else 1) * weight * scale * _convert(current, adc)
    return y


def _voltages(u: Floats, w: Floats, s: Floats, rng: np.random.Generator, levels: int) -> Floats:
    g = w + s * rng.standard_normal((len(u), *s.shape), np.float32)
    return np.asarray((u[:, None, :] @ g)[:, 0])


def _pulses(u: Floats, w: Floats, s: Floats, rng: np.random.Generator, levels: int) -> Floats:
    """The current of each step of time, integrated: noise is white, so each step has a number of its own."""
    total = np.zeros((len(u), s.shape[1]))
    for step in range(levels):
        on = np.where(np.abs(u) * levels > step + 0.5, np.sign(u), 0)
        total += _voltages(on, w, s * np.sqrt(levels), rng, levels) / levels
    return total


def _digits(
    codes: npt.NDArray[np.int_], w: Floats, s: Floats, rng: np.random.Generator, levels: int, slice_bits: int
) -> list[tuple[float, Floats]]:
    """What each digit counts, and its current."""
    top, sums = 2**slice_bits - 1, []
    for shift in range(0, levels.bit_length(), slice_bits):
        digit = np.sign(codes) * (np.abs(codes) >> shift & top)
        weight = 2.0**shift * top / levels
        sums.append((weight, _voltages(digit / top, w, s, rng, levels)))
    return sums


def _convert(sums: Floats, adc: tuple[int, float] | None) -> Floats:
    if adc is None:
        return sums
    levels, full = adc
    return np.asarray(np.clip(np.rint(sums / full * levels), -levels, levels) * full / levels)
