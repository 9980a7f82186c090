"""Random streams that have names instead of an order of drawing.

Each effect on each tile asks for its own stream. One more tile, one more effect or another number of threads
therefore leaves the random numbers of all the others alone.
"""

import hashlib
import operator

import numpy as np


def stream(seed: int, tile: tuple[int, ...], effect: str, step: int = 0) -> np.random.Generator:
    """The random stream named (seed, tile, effect, step): equal names give equal numbers, on every machine.

    The generator is Philox-4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
    counted from zero, under a 128-bit key that is the BLAKE2b hash of the name. NumPy's global generator is
    neither read nor changed.

    Args:
        seed: any whole number, negative ones included.
        tile: whole numbers that name the place, for example (bank, block); a tuple of any length.
        effect: the name of the effect, for example "programming_error".
        step: counts repeated draws of the same effect at the same place.

    Raises:
        TypeError: `seed`, `step` or an entry of `tile` is not a whole number.
    """
    key = int.from_bytes(_digest(seed, tile, effect, step), "little")
    return np.random.Generator(np.random.Philox(key=key))


def gaussian_key(seed: int, tile: tuple[int, ...], effect: str, step: int = 0) -> tuple[int, int]:
    """The key, two words of 64 bits, of a stream of Gaussians (`pcmc.accel.tile.fill_gaussian`, `Noise`).

    Named as `stream`, same arguments and errors. The same 128 bits: a name belongs to one of the two
    generators.
    """
    digest = _digest(seed, tile, effect, step)
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _digest(seed: int, tile: tuple[int, ...], effect: str, step: int) -> bytes:
    """The BLAKE2b hash of a name, 128 bits."""
    # operator.index makes numpy's integers name the same stream as Python's, and refuses fractions.
    name = (
        operator.index(seed),
        tuple(operator.index(part) for part in tile),
        str(effect),
        operator.index(step),
    )
    return hashlib.blake2b(repr(name).encode(), digest_size=16).digest()
