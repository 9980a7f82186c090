"""The cell "axon": binary synapses, and axons whose type gives a neuron's weight for them."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import AxonCellSpec
from pcmc.accel.cells.cell import Devices, Float32, beyond, check_targets, make_stuck
from pcmc.accel.cells.quiet import QuietCell
from pcmc.accel.random import Stream


@dataclass(frozen=True, slots=True)
class AxonCell(QuietCell[AxonCellSpec]):
    """w_ij = scale_j sum over t of b_ijt S_t: bits b of memory, and one signed weight S for each axon type.

    The weight rule of the digital neurosynaptic cores (Merolla et al., CICC 2011 and Science 2014: synapse
    bit times the weight of neuron j for the type of axon i). One input drives `axons` axons, one of each
    type, and these weights are the same for all neurons but for a scale:

        axons = 2:  S = +1, -1                          -1, 0 or 1 times scale, as in Eedn (Esser et al. 2016)
        axons = k:  S = -2^(k-1), 2^(k-2), ..., 2, 1    two's complement of k bits

    Weights are rounded to the nearest level, ties to even, from -(2^(k-1) - 1) to 2^(k-1) - 1: the range that
    both signs have, so that the largest weight uses all of it. -2^(k-1), which the bits could hold, is not
    used. A level takes the place of a microsiemens; the axons of an input are one cell here, and a chip's
    `tile.rows` counts inputs. Bits are exact: no error, noise or drift. A stuck bit is 0 or 1 whatever is
    loaded.

    A spike on an axon adds S_t to the membrane potential of each neuron whose bit is set. An input of n
    spikes in a window adds n times as much, so that a potential is the exact product of counts and weights.
    """

    @property
    def full_us(self) -> float:
        """The largest level."""
        return self.spec.g_max_us

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Round targets to their levels; Devices hold them as `g_plus`. `rng` is not used."""
        check_targets(target_us)
        level = np.rint(target_us)
        np.clip(level, np.float32(-self.full_us), np.float32(self.full_us), out=level)
        if stuck is None:
            return Devices(level)
        bits = self.bits(level).astype(np.float32)
        make_stuck(bits, self.spec.stuck_low_fraction, self.spec.stuck_high_fraction, 0.0, 1.0, stuck)
        return Devices(bits @ np.array(self.spec.type_weights, np.float32))

    def bits(self, level: Float32) -> np.ndarray:
        """The synapses b of each cell, bool [rows, cols, axons], in the order of the types' weights.

        Args:
            level: [rows, cols], whole numbers within the range.
        """
        if self.spec.axons == 2:
            return np.stack([level > 0, level < 0], axis=2)
        whole = level.astype(np.int64)
        places = range(self.spec.axons - 1, -1, -1)  # the sign first: Python's numbers are two's complement
        return np.stack([(whole >> place & 1).astype(bool) for place in places], axis=2)

    def clipped(self, target_us: Float32) -> int:
        """How many of the targets are beyond the largest level."""
        return beyond(target_us, self.full_us)
