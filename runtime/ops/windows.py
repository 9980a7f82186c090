"""Where the windows of a convolution or a pooling lie: kernel, strides, dilations, padding, output size."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from types import EllipsisType

import numpy as np

from pcmc.runtime.ops.node import Array, Node, fail

Sizes = tuple[int, ...]
#: What picks values of [n, channels, ...] along the axes from 2 on.
Cut = tuple[EllipsisType | slice, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows over the axes from 2 on, each tuple with one entry an axis.

    `ahead` and `behind` are the padding of the input; `beyond` is what the last windows reach past that when
    the output size is rounded up.
    """

    size: Sizes
    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    ahead: Sizes
    behind: Sizes
    beyond: Sizes
    out: Sizes

    def cuts(self) -> Iterator[Cut]:
        """For each place of the kernel, the slices of the padded input that it meets, one value an output."""
        return iter(_cuts(self.kernel, self.dilations, self.strides, self.out))

    @property
    def inner(self) -> Cut:
        """The slices of the padded input that hold the input itself."""
        return (..., *(slice(a, a + n) for a, n in zip(self.ahead, self.size, strict=True)))

    def padded(self, x: Array, value: float = 0.0, beyond: float | None = None) -> Array:
        """The input [n, channels, ...] with its padding, `beyond` past it (the same value if None); the input
        itself where there is no padding.
        """
        if not any((*self.ahead, *self.behind, *self.beyond)):
            return x
        sizes = [sum(parts) for parts in zip(self.size, self.ahead, self.behind, strict=True)]
        found = np.full((*x.shape[:2], *sizes), value, x.dtype)
        found[self.inner] = x
        if any(self.beyond):
            rest = [(0, 0), (0, 0), *((0, more) for more in self.beyond)]
            found = np.pad(found, rest, constant_values=value if beyond is None else beyond)
        return found

    def padded_like(self, x: Array) -> Array:
        """Zeros of the padded input's shape, to add gradients up in."""
        sizes = zip(self.size, self.ahead, self.behind, self.beyond, strict=True)
        return np.zeros((*x.shape[:2], *(sum(parts) for parts in sizes)), x.dtype)


@functools.lru_cache(maxsize=1024)  # a step of training asks for the same few again and again
def _cuts(kernel: Sizes, dilations: Sizes, strides: Sizes, out: Sizes) -> tuple[Cut, ...]:
    found: list[Cut] = []
    for place in itertools.product(*(range(size) for size in kernel)):
        steps = zip(place, dilations, strides, out, strict=True)
        cut = (slice(at * gap, at * gap + (count - 1) * step + 1, step) for at, gap, step, count in steps)
        found.append((..., *cut))
    return tuple(found)


def windows_of(node: Node, size: Sizes, kernel: Sizes) -> Windows:
    """The windows that the node's attributes describe over an input of this size (without n and channels).

    Raises ModelError if an attribute has the wrong length, or the kernel does not fit.
    """
    rank = len(size)
    strides = _each(node, "strides", rank)
    dilations = _each(node, "dilations", rank)
    reach = tuple((count - 1) * gap + 1 for count, gap in zip(kernel, dilations, strict=True))
    ahead, behind = _padding(node, size, reach, strides)
    total = [sum(parts) for parts in zip(size, ahead, behind, strict=True)]
    if any(have < want for have, want in zip(total, reach, strict=True)):
        fail(node, f"the kernel reaches over {list(reach)}, the padded input has only {total}")
    out = []
    for axis, (have, want, step) in enumerate(zip(total, reach, strides, strict=True)):
        count = (have - want) // step + 1
        if node.get("ceil_mode", 0) and (have - want) % step and count * step < size[axis] + ahead[axis]:
            count += 1  # a last window that would start in the padding behind is left out
        out.append(count)
    beyond = tuple(
        max((count - 1) * step + want - have, 0)
        for count, step, want, have in zip(out, strides, reach, total, strict=True)
    )
    return Windows(size, kernel, strides, dilations, ahead, behind, beyond, tuple(out))


def _each(node: Node, attribute: str, rank: int) -> Sizes:
    values = tuple(int(value) for value in node.get(attribute) or (1,) * rank)
    if len(values) != rank:
        fail(node, f"{attribute} has {len(values)} values, the input {rank} spatial axes")
    return values


def _padding(node: Node, size: Sizes, reach: Sizes, strides: Sizes) -> tuple[Sizes, Sizes]:
    """Padding ahead and behind: stated, or worked out from `auto_pad`."""
    rank = len(size)
    auto = node.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = tuple(int(pad) for pad in node.get("pads") or (0,) * (2 * rank))
        if len(pads) != 2 * rank:
            fail(node, f"pads has {len(pads)} values, {rank} spatial axes need {2 * rank}")
        return pads[:rank], pads[rank:]
    if auto == "VALID":
        return (0,) * rank, (0,) * rank
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        fail(node, f"auto_pad {auto} is unknown")
    totals = [
        max((-(-have // step) - 1) * step + want - have, 0)
        for have, want, step in zip(size, reach, strides, strict=True)
    ]
    small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (small, large) if auto == "SAME_UPPER" else (large, small)
