"""Random streams that have names instead of an order of drawing.

Each effect on each tile asks for its own stream. One more tile, one more effect or another number of threads
therefore leaves the random numbers of all the others alone.
"""

import hashlib
import operator
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pcmc.accel import tile

Float32 = NDArray[np.float32]


class Stream:
    """Random numbers one after the other, from a place in a counted sequence: nothing else is kept.

    Normal numbers are those of `pcmc.accel.tile.fill_gaussian`, uniform ones come from Philox-4x64-10
    (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), counted from zero, under the same
    128-bit key: the two are different functions of it, and a stream may give both. NumPy's global generator
    is neither read nor changed.
    """

    __slots__ = ("_drawn", "_key", "_uniform")

    def __init__(self, key: tuple[int, int]) -> None:
        self._key = key
        self._drawn = 0
        self._uniform: np.random.Generator | None = None

    def normal(self, n: int) -> Float32:
        """The next n standard normal numbers, float32 [n]; the largest that there are is 6.7."""
        numbers = np.empty(n, np.float32)
        tile.fill_gaussian(numbers, self._key, self._drawn)
        self._drawn += n
        return numbers

    def uniform(self, n: int) -> Float32:
        """The next n numbers that are equally likely anywhere from 0 to below 1, float32 [n]."""
        if self._uniform is None:
            low, high = self._key
            self._uniform = np.random.Generator(np.random.Philox(key=low | high << 64))
        return self._uniform.random(n, dtype=np.float32)


class Blend:
    """Normal numbers that are a weighted sum of those of several streams: still standard normal, and
    correlated with another blend of which some streams are the same.

    `weights` are variances, and add up to 1.
    """

    __slots__ = ("_parts",)

    def __init__(self, streams: Sequence[Stream], weights: Sequence[float]) -> None:
        self._parts = [
            (part, np.float32(np.sqrt(weight))) for part, weight in zip(streams, weights, strict=True)
        ]

    def normal(self, n: int) -> Float32:
        """The next n standard normal numbers, float32 [n]."""
        total = np.zeros(n, np.float32)
        for part, factor in self._parts:
            total += part.normal(n) * factor
        return total


class Normals(Protocol):
    """What gives normal numbers: a `Stream`, or a `Blend` of some."""

    def normal(self, n: int) -> Float32:
        """The next n standard normal numbers, float32 [n]."""


def stream(seed: int, place: tuple[int, ...], effect: str, step: int = 0) -> Stream:
    """The random stream named (seed, place, effect, step): equal names give equal numbers, on every machine.

    Args:
        seed: any whole number, negative ones included.
        place: whole numbers that name the place, for example (bank, block); a tuple of any length.
        effect: the name of the effect, for example "programming_error".
        step: counts repeated draws of the same effect at the same place.

    Raises:
        TypeError: `seed`, `step` or an entry of `place` is not a whole number.
    """
    return Stream(gaussian_key(seed, place, effect, step))


def generator(seed: int, place: tuple[int, ...], effect: str, step: int = 0) -> np.random.Generator:
    """NumPy's generator with the key of this name, for numbers of other laws; as `stream`."""
    low, high = gaussian_key(seed, place, effect, step)
    return np.random.Generator(np.random.Philox(key=low | high << 64))


def gaussian_key(seed: int, place: tuple[int, ...], effect: str, step: int = 0) -> tuple[int, int]:
    """The key, two words of 64 bits, of a stream of Gaussians (`pcmc.accel.tile.fill_gaussian`, `Noise`).

    Named as `stream`, same arguments and errors.
    """
    # operator.index makes numpy's integers name the same stream as Python's, and refuses fractions.
    name = (
        operator.index(seed),
        tuple(operator.index(part) for part in place),
        str(effect),
        operator.index(step),
    )
    digest = hashlib.blake2b(repr(name).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
