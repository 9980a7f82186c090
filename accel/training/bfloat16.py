"""bfloat16: the upper half of a float32, 8 bits of it, as uint16. Parameters of devices are kept so."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]


def narrowed(values: Floats) -> Halves:
    """float32 as bfloat16, the nearest, ties to even."""
    bits = values.view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    return (rounded >> np.uint32(16)).astype(np.uint16)


def widened(halves: Halves) -> Floats:
    """bfloat16 as float32, exactly."""
    found: Floats = (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return found


def paired(first: Halves, second: Halves) -> Halves:
    """Two parameters of each device side by side, [devices, 2], as the kernels take them."""
    return np.stack((first, second), axis=1)
