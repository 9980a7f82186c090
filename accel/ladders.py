"""Block elimination of a grid of resistors: word and bit lines of an array with a cell at each crossing.

A Schur complement for each line, from the far end of the lines to their ports. Strips are lines of one
direction (of the longer side of the array, where there is a choice), chains those of the other. A strip with
its port alone is a ladder: with T its wires (tridiagonal) and D = diag(g) its cells, it draws `S v` from the
chains, S = D - D (T + D)^-1 D, which `_Ladders` writes without a subtraction. Along the chains, r ohm a cell,

    Y_i = S_i + K_{i-1} Y_{i-1},   K_i = (1 + r Y_i)^-1

is the admittance of all strips up to i, and currents at the ports of strips are carried along by K. Chains
may be driven and strips sensed, or the reverse: a network of resistors is reciprocal. Time grows with
strips * chains^3, memory with chains^2 + strips * chains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
# Cells `[arrays, strips, chains]`, uS, that meet chains in the same nodes, each from strips of its own.
Layers = list[Floats]

# OpenBLAS multiplies up to here with one thread: SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD of its
# common.h and Makefile.rule. Threads that wait for each other cost far more than they gain in a sweep.
ONE_THREAD = 65_536 * 4
# Up to this size LAPACK inverts faster than products of halves.
SMALL = 32
# Elements of the matrices of strips that are worked out together.
TOGETHER = 1 << 17


@dataclass(frozen=True, slots=True)
class Line:
    """A kind of line: resistance per cell in megohm (1/uS), admittance in uS at its first and last cell, that
    of the port and the wire leading to it: 0 without a port, `inf` with nothing between cell and voltage.
    """

    mohm: float
    first: float
    last: float


def sweep(
    layers: Layers,
    strip: Line,
    chain: Line,
    portless: Bools | None = None,
    f: float = 1.0,
    loose: bool = False,
) -> list[Floats]:
    """Eliminate strip after strip along the chains, up to the chains' port after the last strip.

    Args:
        layers: conductances `[arrays, strips, chains]`.
        strip: the lines of the strips.
        chain: the lines of the chains; their `last` port is at the last strip, `first` may be a second one.
        portless: `[strips]`, those that are connected to nothing but their cells.
        f: the part of strips that draw from the chains; a strip's own current is that of one that does.
        loose: whether the others draw what portless ones do, or nothing.

    Returns:
        Of each layer `[arrays, strips, chains]`: the current in a chain's port for a volt at the ports of
        that layer's strip, and the reverse.
    """
    arrays, count, width = layers[0].shape
    ladders = [_Ladders.of(g, strip, portless) for g in layers]
    others = [_Ladders.of(g, strip, np.ones(count, np.bool_)) for g in layers] if loose and f < 1 else []
    # With v at the chains' ports and V at the strip in hand, that strip and all before it draw y V - far v
    # from the chains, and the ports of strips so far, layers of a strip side by side, get out V + ends v.
    y = np.zeros((arrays, width, width))
    _diagonal(y)[:] = chain.first
    out, spare = np.zeros((2, arrays, count * len(layers), width))
    far, ends = (y.copy(), np.zeros_like(out)) if chain.first else (None, None)
    together = max(1, TOGETHER // y.size)
    for i in range(count):
        if i % together == 0:
            strips = slice(i, i + together)
            drawn = f * np.sum([ladder.drawn(strips) for ladder in ladders], axis=0)
            if others:
                drawn += (1 - f) * np.sum([ladder.drawn(strips) for ladder in others], axis=0)
        y += drawn[i % together]
        done = max((i + 1) * len(layers), 2)  # not one row: see _product
        out[:, i * len(layers) : (i + 1) * len(layers)] = np.stack([a.to_port[:, i] for a in ladders], axis=1)
        mohm = chain.mohm if i < count - 1 else 1 / chain.last
        if mohm == 0:
            continue
        factor = mohm * y
        _diagonal(factor)[:] += 1
        k = _inverse(factor)
        _product(out[:, :done], k, spare[:, :done])
        out, spare = spare, out
        if far is not None and ends is not None:
            ends[:, :done] += mohm * _product(out[:, :done], far)
            far = _product(k, far)
        if i < count - 1:
            y = _product(k, y)
    result = out if ends is None else out + ends
    return [result[:, layer :: len(layers)] for layer in range(len(layers))]


def _diagonal(a: Floats) -> Floats:
    """The diagonals of matrices `[..., n, n]`, `[..., n]`; writing to it writes to them."""
    diagonals: Floats = np.einsum("...kk->...k", a)
    return diagonals


def _product(a: Floats, b: Floats, out: Floats | None = None) -> Floats:
    """`a @ b` `[arrays, rows, cols]`, in parts so small that BLAS keeps to this thread.

    `out` must not overlap `a` or `b`.
    """
    arrays, rows, inner = a.shape
    cols = b.shape[2]
    out = np.empty((arrays, rows, cols)) if out is None else out
    if rows * inner * cols <= ONE_THREAD:
        return np.matmul(a, b, out=out)
    # Parts of equal size that overlap where they do not fit: a single row or column would be left to another
    # routine of BLAS, which takes several threads sooner.
    width = -(-cols // -(-cols // max(1, math.isqrt(2 * ONE_THREAD // inner))))
    height = -(-rows // -(-rows // max(1, ONE_THREAD // (inner * width))))
    whole = rows - rows % height
    tall = a[:, :whole].reshape(arrays, -1, height, inner)
    for left in range(0, cols, width):
        part = slice(min(left, cols - width), min(left + width, cols))
        right = np.ascontiguousarray(b[:, :, part])
        np.matmul(tall, right[:, None], out=out[:, :whole, part].reshape(*tall.shape[:3], width))
        if whole < rows:
            np.matmul(a[:, rows - height :], right, out=out[:, rows - height :, part])
    return out


def _inverse(a: Floats) -> Floats:
    """Inverses of symmetric, positive definite matrices `[arrays, n, n]`, from halves: Schur complements."""
    if (size := a.shape[2]) <= SMALL:
        return np.asarray(np.linalg.inv(a), np.float64)
    half = size // 2
    first = _inverse(a[:, :half, :half])
    carried = _product(first, a[:, :half, half:])
    rest = _inverse(a[:, half:, half:] - _product(a[:, half:, :half], carried))
    back = _product(carried, rest)
    result = np.empty_like(a)
    np.add(first, _product(back, carried.transpose(0, 2, 1)), out=result[:, :half, :half])
    np.negative(back, out=result[:, :half, half:])
    np.negative(back.transpose(0, 2, 1), out=result[:, half:, :half])
    result[:, half:, half:] = rest
    return result


@dataclass(frozen=True, slots=True)
class _Ladders:
    """Each strip with its cells and ports alone, the chains being held at given voltages.

    Only sums, products and quotients of numbers >= 0: nothing cancels. `[arrays, strips, chains]` each:
        g: conductances of cells, uS.
        step: voltage of a node over that of the next, when only the next one or later ones are fed.
        node: resistance from a node to ground, 1/uS; 0 where nothing is connected.
        kept: current drawn from a chain per volt of its own, uS.
        to_port: current into the strip's ports per volt of a chain, uS.
    """

    g: Floats
    step: Floats
    node: Floats
    kept: Floats
    to_port: Floats

    @classmethod
    def of(cls, g: Floats, line: Line, portless: Bools | None) -> _Ladders:
        """Ladders of lines that have ports, but for those that are `portless`."""
        held = np.ones(g.shape[1], np.bool_) if portless is None else ~portless
        ports = held.astype(np.float64)
        # Lines without any resistance are at the voltage of their port: nothing but their own cell counts.
        ideal = math.inf in (line.first, line.last)
        first_port, last_port = (0.0, 0.0) if ideal else (line.first, line.last)
        before, step = _looking(g, line.mohm, first_port * ports)
        after, back = (a[..., ::-1] for a in _looking(g[..., ::-1], line.mohm, last_port * ports))
        total = g + before + after
        node = np.divide(1, total, out=np.zeros_like(g), where=total > 0)
        first = np.cumprod(step, axis=2) / step  # from each node to the first
        last = np.cumprod(back[..., ::-1], axis=2)[..., ::-1] / back
        kept = g * node * (before + after)
        to_port = g * node * (first_port * first + last_port * last) * ports[:, None]
        if ideal:
            node[:, held], kept[:, held], to_port[:, held] = 0, g[:, held], g[:, held]
        return cls(g, step, node, kept, to_port)

    def drawn(self, strips: slice) -> Floats:
        """`[strips, arrays, chains, chains]`: what each strip draws from the chains per volt on them, uS."""
        g, node, step, kept = (
            a[:, strips].transpose(1, 0, 2) for a in (self.g, self.node, self.step, self.kept)
        )
        width = g.shape[2]
        paths = np.zeros((*g.shape, width))
        if node.any():
            # Row k, left of the diagonal: voltages at the nodes before k for a volt at k, from the row above.
            _diagonal(paths)[:] = 1
            for k in range(1, width):
                np.multiply(paths[..., k - 1, :k], step[..., k - 1, None], out=paths[..., k, :k])
            paths *= (-g * node)[..., None]
            paths *= g[..., None, :]
            paths += paths.transpose(0, 1, 3, 2)
        _diagonal(paths)[:] = kept
        return paths


def _looking(g: Floats, mohm: float, port: Floats) -> tuple[Floats, Floats]:
    """What each node sees towards the first, where `port` is, in uS; and `step`. Both shaped like `g`."""
    seen, step = np.empty_like(g), np.empty_like(g)
    look: Floats = port
    for k in range(g.shape[2]):
        seen[..., k] = look
        step[..., k] = 1 / (1 + mohm * (g[..., k] + look))
        look = (g[..., k] + look) * step[..., k]
    return seen, step
