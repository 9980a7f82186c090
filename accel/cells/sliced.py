"""The cell "2pcm" in bit slices: a weight's digits in several pairs, each worth a power of the base."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cells.cell import Devices, Float32, check_targets
from pcmc.accel.cells.pcm_pair import PcmPairCell, write_pair
from pcmc.accel.random import Stream


@dataclass(frozen=True, slots=True)
class SlicedPcmCell(PcmPairCell):
    """W = F sum over k of gain_k (G+_k - G-_k), one pair for each of N slices of b bits, base B = 2^b.

    The magnitude of a weight is rounded to the nearest of B^N equal levels from 0 to the largest, and each
    digit d_k of that number, the most significant first, programmed as d_k / (B - 1) of the range:

        |W| = m F g_max / (B^N - 1),  m = sum over k of d_k B^(N-1-k),  gain_k = (B - 1) B^(N-1-k) / (B^N - 1)

    A device has to tell B levels apart rather than B^N, so that errors count less, but for those of the first
    slices. Each slice has columns of its own; whether they are converted each, or added before, is the
    chip's (`[adc] slices`). Slices of a weight are one cell here: `tile.cols` counts weights. (After Shafiee
    et al., ISAAC, ISCA 2016.)
    """

    @property
    def gains(self) -> tuple[float, ...]:
        """What a microsiemens of each slice counts in W, the most significant first."""
        spec, base = self.spec, 2**self.spec.slice_bits
        unit = spec.significance * (base - 1) / (base**spec.slices - 1)
        return tuple(unit * base ** (spec.slices - 1 - k) for k in range(spec.slices))

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Program the digits of each target: Devices of [rows, cols, slices]; see `Cell`."""
        check_targets(target_us)
        spec, base = self.spec, 2**self.spec.slice_bits
        most = base**spec.slices - 1
        number = np.rint(np.minimum(np.abs(target_us) * np.float32(most / self.full_us), np.float32(most)))
        whole = number.astype(np.int64)
        digits = np.stack(
            [whole // base ** (spec.slices - 1 - k) % base for k in range(spec.slices)], axis=2
        ).astype(np.float32)
        digits *= np.float32(spec.g_max_us / (base - 1))
        digits *= np.sign(target_us)[..., None]
        return Devices(*write_pair(digits, spec, rng, stuck))
