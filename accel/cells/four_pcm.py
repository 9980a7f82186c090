"""The cell "4pcm": two pairs of PCM devices, the low one programmed to what the high one missed."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cell_specs import FourPcmCellSpec
from pcmc.accel.cells.cell import Devices, Float32, beyond, check_targets
from pcmc.accel.cells.pcm_pair import PcmPairCell, write_pair
from pcmc.accel.random import Stream


@dataclass(frozen=True, slots=True)
class FourPcmCell(PcmPairCell):
    """W = F (G+ - G-) + (g+ - g-): a high pair worth F, and a low pair worth 1.

    The unit cell of Ambrogio et al., Nature 620 (2023), Fig. 1g: four PCM devices, G+ and g+ adding charge,
    G- and g- subtracting it, with a significance F that is 1 in that paper. That the low pair is programmed
    after the high one, to the error that a read-out of the high pair finds (closed-loop multi-device
    programming), is our reading: assumed, as are the details:

        G+ - G-  <-  W / F                        clipped at g_max, errs with sigma_prog of its target
        g+ - g-  <-  W - F (G+ - G-) as written   clipped at g_max, errs with sigma_prog of its target

    The weight's error is then that of the low pair alone, whose targets are small: sigma_prog of a few tenths
    of a microsiemens, where it is 0.7 to 1 in a pair that holds the weight, and F times that for F > 1. What
    the low pair cannot reach (and what is stuck in it) remains. The read-out is taken as exact: the published
    sigma_prog holds its noise already. All four devices drift and are noisy, as in `PcmPairCell`.

    Streams are drawn for all G+, all G-, all g+, all g- in programming; in reads for the high and the low
    device of each cell, first all G+ and g+, then all G- and g-.
    """

    spec: FourPcmCellSpec

    @property
    def gains(self) -> tuple[float, ...]:
        """What a microsiemens of the high and of the low pair counts in W: F and 1."""
        return (self.spec.significance, 1.0)

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Program the high pairs, then the low ones, as the class says: Devices of [rows, cols, 2]."""
        check_targets(target_us)
        significance = np.float32(self.spec.significance)
        high_plus, high_minus = write_pair(target_us / significance, self.spec, rng, stuck)
        low_plus, low_minus = write_pair(
            target_us - significance * (high_plus - high_minus), self.spec, rng, stuck
        )
        return Devices(np.stack([high_plus, low_plus], axis=2), np.stack([high_minus, low_minus], axis=2))

    def clipped(self, target_us: Float32) -> int:
        """How many of the targets are beyond what high and low pair reach together."""
        return beyond(target_us, (self.spec.significance + 1.0) * self.spec.g_max_us)
