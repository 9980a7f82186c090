"""What cells without read noise or drift answer when they are asked for it."""

import numpy as np

from pcmc.accel.cells.cell import Devices, Float32
from pcmc.errors import ChipError


def refuse_streams(kind: str, noise: object, drift: object) -> None:
    """ChipError if a stream of read noise or drift is given to a kind of cell that has no law of it."""
    for name, rng in (("read_noise", noise), ("drift", drift)):
        if rng is not None:
            raise ChipError(f"{name}: {kind} cells have no law of it")


def no_noise(devices: Devices) -> Float32:
    """The variance of n cells that read the same each time: zeros."""
    return np.zeros(devices.g_plus.shape, np.float32)
