"""What the resistance of the wires makes of an array: the matrix that its reads really multiply with.

Word line i enters at column 0, where its driver sits, and crosses the bit lines; bit line j is sensed at the
last row. Each piece of wire from one cell to the next has `row_ohm` or `column_ohm`, and so has the piece
between a line's port and its first cell; the port adds its own resistance. Cells are ohmic and the sense ends
are virtual grounds, so the circuit is linear in the voltages of the drivers: `I = M^T v`, with `M` depending
only on conductances and wires. `M` is worked out once per programmed state, and reads use it in place of G.

The method is block elimination (a Schur complement for each line), from the far end of the lines to their
ports. Strips are the lines of the longer side of the array, chains those of the shorter. A strip with its
port alone is a ladder: with T its wires (tridiagonal) and D = diag(g) its cells, it draws `S v` from the
chains, S = D - D (T + D)^-1 D, which `ladder` writes without a subtraction. Along the chains, r ohm a cell,

    Y_i = S_i + K_{i-1} Y_{i-1},   K_i = (1 + r Y_i)^-1

is the admittance of all strips up to i, and currents at the ports of strips are carried along by K. Chains
may be driven and strips sensed, or the reverse: a network of resistors is reciprocal, M is the same. Time
grows with long * short^3, memory with short^2 + long * short. `docs/wires.md` has figures.

A solve keeps to the thread that it is called in, whatever the settings of BLAS, and gives the same bits;
it leaves the interpreter to others meanwhile, so that several arrays can be solved at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt

from pcmc.accel.fields import Choice, Real, Whole, rules, take
from pcmc.errors import ChipError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
# Cells `[arrays, rows, cols]`, uS, that meet bit lines in the same nodes, each from word lines of its own.
Layers = list[Floats]

LEAST_OHM, MOST_OHM = 1e-12, 1e12
MOST_US = 1e6
# OpenBLAS multiplies up to here with one thread: SMP_THRESHOLD_MIN * GEMM_MULTITHREAD_THRESHOLD of its
# common.h and Makefile.rule. Threads that wait for each other cost far more than they gain in a sweep.
ONE_THREAD = 65_536 * 4
# Up to this size LAPACK inverts faster than products of halves.
SMALL = 32
# Elements of the matrices of strips that are worked out together.
TOGETHER = 1 << 17


@dataclass(frozen=True, slots=True)
class Resistance:
    """The rule of a field: 0, or a number that neither overflows nor vanishes; kept as a float."""

    def __str__(self) -> str:
        return f"0 or a number from {LEAST_OHM:g} to {MOST_OHM:g} ohm"

    def take(self, value: object) -> float:
        """`value` as a float; ValueError if it is of another type or out of range."""
        ohm = Real(0.0, MOST_OHM).take(value)
        if 0 < ohm < LEAST_OHM:
            raise ValueError
        return ohm


_OHM = Resistance()
_ENDS = Choice(("one", "two"))
_PARTS = Whole(1, 65_536)


@dataclass(frozen=True, slots=True)
class Wires:
    """Wires and ports of a tile, the section `[wires]` of a chip file; by default without resistance.

    Attributes:
        row_ohm: a word line's resistance from one cell to the next, and from its port to the first cell.
        column_ohm: the same of a bit line.
        driver_ohm: each driver's output resistance.
        sense_ohm: each read-out's input resistance; behind it is a virtual ground.
        drive: word lines driven at column 0 only (`"one"`) or at both ends (`"two"`), each driver with
            `driver_ohm`.
        word_segments: parts into which each word line is broken, as equal as can be, each with its driver.
        bit_segments: the same of bit lines, each part with its read-out; their currents are added.
        idle_row: what holds a row whose input is 0: its driver at 0 V (`"grounded"`); nothing, and the same
            input switches its cells off (`"cut"`); nothing, and its cells still connect (`"floating"`).
        differential: G+ and G- in arrays of their own (`"apart"`), or both cells of a pair at the same place
            of one bit line, from two word lines driven with opposite voltages (`"shared"`).
        backward_driver_ohm: the same of a backward read's drivers, at the sense ends of bit lines.
        backward_sense_ohm: the same of its read-outs, at column 0 of word lines.
        backward_drive: as `drive`, of bit lines in backward reads.

    Raises:
        ChipError: a value out of its range; the message names the field.
    """

    row_ohm: Annotated[float, _OHM] = 0.0
    column_ohm: Annotated[float, _OHM] = 0.0
    driver_ohm: Annotated[float, _OHM] = 0.0
    sense_ohm: Annotated[float, _OHM] = 0.0
    drive: Annotated[str, _ENDS] = "one"
    word_segments: Annotated[int, _PARTS] = 1
    bit_segments: Annotated[int, _PARTS] = 1
    idle_row: Annotated[str, Choice(("grounded", "cut", "floating"))] = "grounded"
    differential: Annotated[str, Choice(("apart", "shared"))] = "apart"
    backward_driver_ohm: Annotated[float, _OHM] = 0.0
    backward_sense_ohm: Annotated[float, _OHM] = 0.0
    backward_drive: Annotated[str, _ENDS] = "one"

    def __post_init__(self) -> None:
        for name, rule in rules(Wires).items():
            object.__setattr__(self, name, take(rule, getattr(self, name), f"wires: {name}"))

    @property
    def is_ideal(self) -> bool:
        """Whether forward reads see no resistance at all."""
        return self.row_ohm == self.column_ohm == self.driver_ohm == self.sense_ohm == 0


@dataclass(frozen=True, slots=True)
class _Line:
    """A kind of line: resistance per cell in megohm (1/uS), admittance in uS at its first and last cell, that
    of the port and the wire leading to it: 0 without a port, `inf` with nothing between cell and voltage.
    """

    mohm: float
    first: float
    last: float


def transfer_matrix(g_us: npt.ArrayLike, wires: Wires, active_fraction: float = 1.0) -> Floats:
    """The effective conductances M of a wired array: `I = M^T v` at the sense ends.

    Exact for idle rows that are grounded, and where all rows are active. Else (`idle_row` cut or floating) M
    depends on which rows are active. This is then a mean field of rows that are active with probability f,
    each cell replaced by its mean, `M(f G; row_ohm / f, driver_ohm / f) / f`, corrected for what a cell's own
    current drops in its bit line; floating rows are taken as cut. `approximation_error` measures it.

    Args:
        g_us: `[rows, cols]` conductances of cells in uS, not negative; or `[arrays, rows, cols]`, several
            arrays at once, faster where they are small.
        wires: wires and ports.
        active_fraction: f, the part of rows that are active at a time, above 0 and at most 1.

    Returns:
        Float64 in uS, shaped like `g_us`, with the same bits for an array whatever is solved beside it. None
        is negative, and no row or column sums to more than in `g_us`; a single one may exceed its cell, and
        is positive even at a cell of 0: sneak paths lead around it.

    Raises:
        ChipError: `g_us` is no matrix of values from 0 to 1 S, or too small for the segments.
        ValueError: `active_fraction` is out of range.
    """
    found = _matrices([_conductances(g_us, wires)], wires, active_fraction)[0]
    return found.reshape(np.shape(g_us))


def pair_matrices(
    plus_us: npt.ArrayLike, minus_us: npt.ArrayLike, wires: Wires, active_fraction: float = 1.0
) -> tuple[Floats, Floats]:
    """The effective G+ and G- of differential cells, for both choices of `wires.differential`.

    Apart: two arrays with the same inputs, `M(G+)` and `M(G-)`. Shared: word lines i+ at `+v_i` and i- at
    `-v_i` cross a bit line at the same node, as in CrossSim's interleaved arrays; the bit line carries only
    the difference of their currents, and `column_ohm` is its wire from one pair to the next.

    Args:
        plus_us: `[rows, cols]` G+ in uS, or `[arrays, rows, cols]`.
        minus_us: G- in uS, shaped alike.
        wires: wires and ports.
        active_fraction: as in `transfer_matrix`.

    Returns:
        Two float64 in uS, shaped like G+ and G-, none negative: what the inputs are multiplied with is the
        first less the second.

    Raises:
        ChipError: as `transfer_matrix`, or the two differ in shape.
        ValueError: `active_fraction` is out of range.
    """
    layers = _layers(plus_us, minus_us, wires)
    plus, minus = np.split(np.concatenate(_matrices(layers, wires, active_fraction)), 2)
    return plus.reshape(np.shape(plus_us)), minus.reshape(np.shape(plus_us))


def pair_matrix(
    plus_us: npt.ArrayLike, minus_us: npt.ArrayLike, wires: Wires, active_fraction: float = 1.0
) -> Floats:
    """The effective `G+ - G-` of differential cells, of either sign: the first of `pair_matrices` less the
    second; same arguments and errors.
    """
    plus, minus = pair_matrices(plus_us, minus_us, wires, active_fraction)
    return plus - minus


def backward_matrix(g_us: npt.ArrayLike, wires: Wires) -> Floats:
    """The effective conductances B of a backward read: bit lines driven, word lines sensed, `I = B v`.

    The backward drivers sit at the sense ends of bit lines and its read-outs at column 0 of word lines; the
    forward ports are disconnected meanwhile. With equal port resistances and drive on one side, B is the M of
    forward reads: a network of resistors is reciprocal. Pairs: arrays apart, B(G+) - B(G-).

    Args:
        g_us: `[rows, cols]` conductances in uS, or `[arrays, rows, cols]`.
        wires: wires and ports; idle bit lines are taken as grounded.

    Returns:
        Float64 in uS, shaped like `g_us`.

    Raises:
        ChipError: as `transfer_matrix`.
    """
    g = _conductances(g_us, wires)
    turned = Wires(
        row_ohm=wires.column_ohm,
        column_ohm=wires.row_ohm,
        driver_ohm=wires.backward_driver_ohm,
        sense_ohm=wires.backward_sense_ohm,
        drive=wires.backward_drive,
    )
    result = np.zeros_like(g)
    for part in _segments(g, wires):
        solved = _solve([g[part][:, ::-1, ::-1].transpose(0, 2, 1)], turned)[0]
        result[part] = solved[:, ::-1, ::-1].transpose(0, 2, 1)
    return result.reshape(np.shape(g_us))


def solve_active(
    g_us: npt.ArrayLike,
    v: npt.ArrayLike,
    wires: Wires,
    active: Bools | None = None,
    *,
    minus_us: npt.ArrayLike | None = None,
) -> Floats:
    """Currents of one read, exact for its own set of active rows; as costly as a transfer matrix.

    Args:
        g_us: `[rows, cols]` conductances in uS.
        v: `[rows]` voltages of the drivers (V).
        wires: wires and ports; `idle_row` says what holds the rows that are not active.
        active: `[rows]`, the rows that are driven; by default those with `v` not 0.
        minus_us: `[rows, cols]` G- of differential cells, `g_us` being their G+.

    Returns:
        `[cols]` currents in uA.

    Raises:
        ChipError: as `transfer_matrix`.
        ValueError: shapes that do not fit, or a voltage on a row that is not active.
    """
    layers = _layers(g_us, minus_us, wires)
    rows, cols = np.shape(g_us)
    volts = np.asarray(v, np.float64)
    on = volts != 0 if active is None else np.asarray(active, np.bool_)
    if volts.shape != (rows,) or on.shape != (rows,):
        raise ValueError(f"v and active must have {rows} values, not {volts.shape} and {on.shape}")
    if np.any(volts[~on]) or not np.all(np.isfinite(volts)):
        raise ValueError("voltages must be finite, and 0 on rows that are not active")
    currents = np.zeros((1 if minus_us is None else 2, cols))
    for part in _segments(layers[0], wires):
        matrices = np.concatenate(_solve([g[part] for g in layers], wires, active=on[part[1]]))
        currents[:, part[2]] += volts[part[1]] @ matrices
    result: Floats = currents[0] if minus_us is None else currents[0] - currents[1]
    return result


def noise_scale(g_us: npt.ArrayLike, matrix_us: npt.ArrayLike) -> Floats:
    """By how much wires damp the noise of devices, by column: the sum of M over that of G.

    A factor of devices' standard deviations, with which noise is overstated a little (docs/wires.md), without
    it by much. Cell by cell `M / G` is no measure: a cell of 0 has an M.

    Args:
        g_us: `[rows, cols]` conductances in uS of one array, not a difference.
        matrix_us: `[rows, cols]` its M.

    Returns:
        `[cols]` from 0 to 1; 1 where a column has no conductance.
    """
    g, matrix = np.sum(g_us, axis=0, dtype=np.float64), np.sum(matrix_us, axis=0, dtype=np.float64)
    return np.divide(matrix, g, out=np.ones_like(g), where=g > 0)


@dataclass(frozen=True, slots=True)
class ApproximationError:
    """How far currents from the matrix that reads use are from exact ones.

    Attributes:
        largest: the largest error of a current, over the largest exact current of these inputs.
        rms: the root mean square error over the root mean square of exact currents.
        active_fraction: the f of that matrix.
    """

    largest: float
    rms: float
    active_fraction: float

    @classmethod
    def of(cls, found: Floats, exact: Floats, active_fraction: float) -> ApproximationError:
        """The errors of currents `found`; 0 where no current flows."""
        error, most = np.abs(found - exact), float(np.max(np.abs(exact)))
        largest = float(np.max(error)) / most if most else 0.0
        rms = math.sqrt(np.mean(error**2) / np.mean(exact**2)) if most else 0.0
        return cls(largest, rms, active_fraction)


def approximation_error(
    g_us: npt.ArrayLike,
    v: npt.ArrayLike,
    wires: Wires,
    active_fraction: float | None = None,
    *,
    minus_us: npt.ArrayLike | None = None,
) -> ApproximationError:
    """Measure the matrix that reads use against one exact solve for each input.

    Args:
        g_us: `[rows, cols]` conductances in uS.
        v: `[n, rows]` voltages of n reads (V); rows at 0 are idle.
        wires: wires and ports.
        active_fraction: f of the matrix; by default the part of `v` that is not 0.
        minus_us: as in `solve_active`.

    Returns:
        The errors; those of rounding where idle rows are grounded.

    Raises:
        ChipError, ValueError: as `transfer_matrix` and `solve_active`.
    """
    inputs = np.atleast_2d(np.asarray(v, np.float64))
    fraction = float(np.mean(inputs != 0)) or 1.0 if active_fraction is None else active_fraction
    exact = np.array([solve_active(g_us, one, wires, minus_us=minus_us) for one in inputs])
    found = np.concatenate(_matrices(_layers(g_us, minus_us, wires), wires, fraction))
    used = found[0] if minus_us is None else found[0] - found[1]
    return ApproximationError.of(inputs @ used, exact, fraction)


def _conductances(g_us: npt.ArrayLike, wires: Wires) -> Floats:
    """`g_us` as float64 `[arrays, rows, cols]`; ChipError if `wires` can't join it."""
    g = np.asarray(g_us, np.float64)
    if g.ndim not in (2, 3) or 0 in g.shape:
        raise ChipError(f"wires: conductances must be [rows, cols] with a cell or more, not {list(g.shape)}")
    if not (g.min() >= 0 and g.max() <= MOST_US):
        raise ChipError(f"wires: conductances must be from 0 to {MOST_US:g} uS, not {g.min()} to {g.max()}")
    rows, cols = g.shape[-2:]
    if wires.bit_segments > rows:
        raise ChipError(f"wires: bit_segments is {wires.bit_segments}, but the array has {rows} rows")
    if wires.word_segments > cols:
        raise ChipError(f"wires: word_segments is {wires.word_segments}, but the array has {cols} columns")
    return g.reshape(-1, rows, cols)


def _layers(plus_us: npt.ArrayLike, minus_us: npt.ArrayLike | None, wires: Wires) -> Layers:
    """What is solved: all G+ and then all G-, as arrays of one layer or, on shared bit lines, of two."""
    plus = _conductances(plus_us, wires)
    if minus_us is None:
        return [plus]
    minus = _conductances(minus_us, wires)
    if np.shape(plus_us) != np.shape(minus_us):
        shapes = f"G+ is {list(np.shape(plus_us))} and G- {list(np.shape(minus_us))}"
        raise ChipError(f"wires: {shapes}; they must be alike")
    return [plus, minus] if wires.differential == "shared" else [np.concatenate([plus, minus])]


def _segments(g: Floats, wires: Wires) -> list[tuple[slice, slice, slice]]:
    """The parts of `[arrays, rows, cols]` that share no line."""
    rows, cols = (
        [slice(int(part[0]), int(part[-1]) + 1) for part in np.array_split(np.arange(size), count)]
        for size, count in zip(g.shape[1:], (wires.bit_segments, wires.word_segments), strict=True)
    )
    return [(slice(None), row, col) for row in rows for col in cols]


def _lines(wires: Wires, f: float, before: int, after: int, below: int) -> tuple[_Line, _Line]:
    """Word lines, their resistances divided by f, and bit lines. `before` and `after` are columns without a
    cell at the ends of word lines, `below` rows at the sense end: just wire, which counts to the port.
    """
    first_ohm = (wires.row_ohm * (before + 1) + wires.driver_ohm) / f
    last_ohm = (wires.row_ohm * (after + 1) + wires.driver_ohm) / f
    sense_ohm = wires.column_ohm * (below + 1) + wires.sense_ohm
    driver = 1e6 / first_ohm if first_ohm else math.inf
    sense = 1e6 / sense_ohm if sense_ohm else math.inf
    # A second driver adds nothing to a word line without any resistance.
    second = 1e6 / last_ohm if wires.drive == "two" and last_ohm else 0.0
    row_ohm = wires.row_ohm / f
    return _Line(row_ohm * 1e-6, driver, second), _Line(wires.column_ohm * 1e-6, 0.0, sense)


def _matrices(layers: Layers, wires: Wires, active_fraction: float) -> list[Floats]:
    """The matrices that reads use, layer by layer, segment by segment; see `transfer_matrix`."""
    if not 0 < active_fraction <= 1:
        raise ValueError(f"active_fraction must be above 0 and at most 1, not {active_fraction!r}")
    f = 1.0 if wires.idle_row == "grounded" or wires.is_ideal else float(active_fraction)
    results = [np.zeros_like(g) for g in layers]
    for part in _segments(layers[0], wires):
        # A bit line meets a cell with probability f: f g in its place. An active word line meets all of its
        # own; over f times the resistance, f g loads it as much. Only a cell's load on itself is sure.
        solved = _solve([f * g[part] for g in layers], wires, f)
        own = np.sum([g[part] for g in layers], axis=0)
        ohm = wires.sense_ohm + wires.column_ohm * np.arange(own.shape[1], 0, -1)[:, None]
        whole = (1 + 1e-6 * ohm * f * own) / (1 + 1e-6 * ohm * own) / f
        for result, matrix in zip(results, solved, strict=True):
            result[part] = matrix if f == 1 else matrix * whole
    return results


def _solve(layers: Layers, wires: Wires, f: float = 1.0, active: Bools | None = None) -> list[Floats]:
    """M `[arrays, rows, cols]` of each layer, without segments; `wires.idle_row` holds rows not `active`."""
    idle = None
    if active is not None and wires.idle_row == "cut":
        layers = [g * active[:, None] for g in layers]
    elif active is not None and wires.idle_row == "floating":
        idle = ~active
    results = [np.zeros_like(g) for g in layers]
    # Lines without a cell at the borders carry nothing; what current has to cross there is just wire.
    for (top, bottom, left, right), arrays in _spans(np.any([g > 0 for g in layers], axis=0)).items():
        word, bit = _lines(wires, f, left, layers[0].shape[2] - right, layers[0].shape[1] - bottom)
        parts = [g[arrays, top:bottom, left:right] for g in layers]
        if right - left <= bottom - top or len(layers) > 1 or idle is not None:
            solved = _sweep(parts, word, bit, None if idle is None else idle[top:bottom])
        else:
            # Bit lines as strips, from the last column on, so that the word lines' port comes last here too.
            turned = [g.transpose(0, 2, 1)[:, ::-1] for g in parts]
            solved = _sweep(turned, bit, _Line(word.mohm, word.last, word.first))
            solved = [matrix[:, ::-1].transpose(0, 2, 1) for matrix in solved]
        for result, matrix in zip(results, solved, strict=True):
            result[arrays, top:bottom, left:right] = matrix
    return results


def _spans(cells: Bools) -> dict[tuple[int, int, int, int], list[int]]:
    """Arrays by where their first and last row and column with a cell are; those without any are left out."""
    found: dict[tuple[int, int, int, int], list[int]] = {}
    for index, one in enumerate(cells):
        rows, cols = (np.flatnonzero(one.any(axis=axis)).tolist() for axis in (1, 0))
        if rows:
            found.setdefault((rows[0], rows[-1] + 1, cols[0], cols[-1] + 1), []).append(index)
    return found


def _sweep(layers: Layers, strip: _Line, chain: _Line, portless: Bools | None = None) -> list[Floats]:
    """Eliminate strip after strip along the chains, up to the chains' port after the last strip.

    Args:
        layers: conductances `[arrays, strips, chains]`.
        strip: the lines of the strips.
        chain: the lines of the chains; their `last` port is at the last strip, `first` may be a second one.
        portless: `[strips]`, those that are connected to nothing but their cells.

    Returns:
        Of each layer `[arrays, strips, chains]`: the current in a chain's port for a volt at the ports of
        that layer's strip, and the reverse.
    """
    arrays, count, width = layers[0].shape
    ladders = [_Ladders.of(g, strip, portless) for g in layers]
    # With v at the chains' ports and V at the strip in hand, that strip and all before it draw y V - far v
    # from the chains, and the ports of strips so far, layers of a strip side by side, get out V + ends v.
    y = np.zeros((arrays, width, width))
    _diagonal(y)[:] = chain.first
    out, spare = np.zeros((2, arrays, count * len(layers), width))
    far, ends = (y.copy(), np.zeros_like(out)) if chain.first else (None, None)
    together = max(1, TOGETHER // y.size)
    for i in range(count):
        if i % together == 0:
            drawn = np.sum([ladder.drawn(slice(i, i + together)) for ladder in ladders], axis=0)
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
    def of(cls, g: Floats, line: _Line, portless: Bools | None) -> _Ladders:
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
