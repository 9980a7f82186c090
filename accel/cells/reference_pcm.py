"""The cell "1pcm": one PCM device a weight, against the reference device of its row."""

from dataclasses import dataclass

import numpy as np

from pcmc.accel.cells import pcm
from pcmc.accel.cells.cell import Devices, Float32, NoisePart, check_targets, make_stuck
from pcmc.accel.cells.pcm_pair import PcmPairCell
from pcmc.accel.random import Normals, Stream


@dataclass(frozen=True, slots=True)
class ReferencePcmCell(PcmPairCell):
    """W = 2 F (G - G_ref), G from 0 to g_max and G_ref at g_max / 2: offset instead of difference.

    Half of the devices and of the range. Without a reference column (`[adc] subtract = "digital"`) the
    digital unit takes the offset away, which it knows: 2 F g_max / 2 times the sum of the inputs. With one,
    each row of a block has one reference device that all its columns share: what it errs, drifts and is
    noisy by comes into all outputs alike, x_i e_i. Fast noise of the reference counts in the variance of each
    column, but its columns draw it apart.

    Devices hold G as `g_plus` and the row's reference, once for each column, as `g_minus`.
    """

    @property
    def gains(self) -> tuple[float, ...]:
        """2 F: the whole range of a device is the range from -W to W."""
        return (2.0 * self.spec.significance,)

    def program(self, target_us: Float32, rng: Stream | None, stuck: Stream | None = None) -> Devices:
        """Program G to g_max / 2 + target / 2 F, then the references; see `Cell`."""
        check_targets(target_us)
        spec = self.spec
        middle = np.float32(spec.g_max_us / 2)
        g = np.ascontiguousarray(target_us / np.float32(self.gains[0]) + middle)
        reference = np.full((len(g), 1), middle, np.float32)
        np.clip(g, np.float32(0.0), np.float32(spec.g_max_us), out=g)
        for devices in (g, reference):
            if rng is not None:
                pcm.add_programming_error(devices.reshape(-1), spec, rng)
            if stuck is not None:
                low, high = spec.stuck_low_fraction, spec.stuck_high_fraction
                make_stuck(devices, low, high, 0.0, spec.g_max_us, stuck)
        return Devices(g, np.repeat(reference, g.shape[1], axis=1))

    def age(
        self,
        devices: Devices,
        at_s: float | None = None,
        noise: Normals | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> Devices:
        """As in `PcmPairCell`, each reference once for its row."""
        once = _references_once(devices)
        aged = PcmPairCell.age(self, once, at_s, noise, drift, part)
        if aged is once:
            return devices
        return Devices(aged.g_plus, np.repeat(aged.g_minus, aged.g_plus.shape[1], axis=1))

    def device_variances(
        self,
        devices: Devices,
        at_s: float | None = None,
        drift: Stream | None = None,
        part: NoisePart = "all",
    ) -> tuple[Float32, Float32]:
        """sigma_read^2 of each G, and of the reference of each, in uS^2; as `noise_variance`."""
        g, reference = PcmPairCell.device_variances(self, _references_once(devices), at_s, drift, part)
        return g, np.repeat(reference, g.shape[1], axis=1)


def _references_once(devices: Devices) -> Devices:
    """The devices with the reference of a row as one device, `[rows, 1]`, rather than for each column."""
    return Devices(devices.g_plus, devices.g_minus[:, :1])
