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
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcmc.errors import ChipError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
# Conductances [rows, cols] in uS, each with the sign with which its word lines are driven; word lines of all
# layers meet the bit lines in the same nodes.
Layers = list[tuple[Floats, float]]

OHMS = ("row_ohm", "column_ohm", "driver_ohm", "sense_ohm", "backward_driver_ohm", "backward_sense_ohm")
CHOICES = {
    "drive": ("one", "two"),
    "backward_drive": ("one", "two"),
    "idle_row": ("grounded", "cut", "floating"),
    "differential": ("apart", "shared"),
}
LEAST_OHM, MOST_OHM = 1e-12, 1e12
MOST_US = 1e6


@dataclass(frozen=True, slots=True)
class Wires:
    """Wires and ports of a tile; the defaults are wires without resistance.

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

    row_ohm: float = 0.0
    column_ohm: float = 0.0
    driver_ohm: float = 0.0
    sense_ohm: float = 0.0
    drive: str = "one"
    word_segments: int = 1
    bit_segments: int = 1
    idle_row: str = "grounded"
    differential: str = "apart"
    backward_driver_ohm: float = 0.0
    backward_sense_ohm: float = 0.0
    backward_drive: str = "one"

    def __post_init__(self) -> None:
        for name in OHMS:
            ohm = getattr(self, name)
            number = isinstance(ohm, (int, float)) and not isinstance(ohm, bool)
            if not number or not (ohm == 0 or LEAST_OHM <= ohm <= MOST_OHM):
                limits = f"0 or from {LEAST_OHM:g} to {MOST_OHM:g} ohm"
                raise ChipError(f"wires: {name} must be {limits}, not {ohm!r}")
        for name in ("word_segments", "bit_segments"):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ChipError(f"wires: {name} must be an integer of at least 1, not {count!r}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(choices)
                raise ChipError(f"wires: {name} must be one of {known}, not {getattr(self, name)!r}")

    @property
    def is_ideal(self) -> bool:
        """Whether forward reads see no resistance at all."""
        return self.row_ohm == self.column_ohm == self.driver_ohm == self.sense_ohm == 0


@dataclass(frozen=True, slots=True)
class _Line:
    """A kind of line: resistance per cell in megohm (1/uS), admittance in uS at its first and last cell.

    An admittance is that of the port and the wire leading to it: 0 where there is no port, `inf` where
    nothing lies between the cell and the voltage of the port.
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
        g_us: `[rows, cols]` conductances of cells in uS, not negative.
        wires: wires and ports.
        active_fraction: f, the part of rows that are active at a time, above 0 and at most 1.

    Returns:
        `[rows, cols]` float64 in uS. None is negative, and no row or column sums to more than that of `g_us`;
        a single one may exceed its cell, and is positive even at a cell of 0: sneak paths lead around it.

    Raises:
        ChipError: `g_us` is no matrix of values from 0 to 1 S, or too small for the segments.
        ValueError: `active_fraction` is out of range.
    """
    return _matrix([(_conductances(g_us, wires), 1.0)], wires, active_fraction)


def pair_matrix(
    plus_us: npt.ArrayLike, minus_us: npt.ArrayLike, wires: Wires, active_fraction: float = 1.0
) -> Floats:
    """The effective `G+ - G-` of differential cells, for both choices of `wires.differential`.

    Apart: two arrays with the same inputs, `M(G+) - M(G-)`. Shared: word lines i+ at `+v_i` and i- at `-v_i`
    cross a bit line at the same node, as in CrossSim's interleaved arrays; the bit line carries only the
    difference of their currents, and `column_ohm` is its wire from one pair to the next.

    Args:
        plus_us: `[rows, cols]` G+ in uS.
        minus_us: `[rows, cols]` G- in uS.
        wires: wires and ports.
        active_fraction: as in `transfer_matrix`.

    Returns:
        `[rows, cols]` float64 in uS, of either sign.

    Raises:
        ChipError: as `transfer_matrix`, or the two differ in shape.
        ValueError: `active_fraction` is out of range.
    """
    groups = _groups(plus_us, minus_us, wires)
    result = np.zeros_like(groups[0][0][0])
    for layers in groups:
        result += _matrix(layers, wires, active_fraction)
    return result


def backward_matrix(g_us: npt.ArrayLike, wires: Wires) -> Floats:
    """The effective conductances B of a backward read: bit lines driven, word lines sensed, `I = B v`.

    The backward drivers sit at the sense ends of bit lines and its read-outs at column 0 of word lines; the
    forward ports are disconnected meanwhile. With equal port resistances and drive on one side, B is the M of
    forward reads: a network of resistors is reciprocal. Pairs: arrays apart, B(G+) - B(G-).

    Args:
        g_us: `[rows, cols]` conductances in uS.
        wires: wires and ports; idle bit lines are taken as grounded.

    Returns:
        `[rows, cols]` float64 in uS.

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
        result[part] = _solve([(g[part][::-1, ::-1].T, 1.0)], turned)[::-1, ::-1].T
    return result


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
    groups = _groups(g_us, minus_us, wires)
    rows, cols = groups[0][0][0].shape
    volts = np.asarray(v, np.float64)
    on = volts != 0 if active is None else np.asarray(active, np.bool_)
    if volts.shape != (rows,) or on.shape != (rows,):
        raise ValueError(f"v and active must have {rows} values, not {volts.shape} and {on.shape}")
    if np.any(volts[~on]) or not np.all(np.isfinite(volts)):
        raise ValueError("voltages must be finite, and 0 on rows that are not active")
    currents = np.zeros(cols)
    for layers in groups:
        for part in _segments(layers[0][0], wires):
            matrix = _solve([(g[part], sign) for g, sign in layers], wires, active=on[part[0]])
            currents[part[1]] += volts[part[0]] @ matrix
    return currents


def noise_scale(g_us: npt.ArrayLike, matrix_us: npt.ArrayLike) -> Floats:
    """By how much wires damp the noise of devices, by column: the sum of M over that of G.

    Times the standard deviation of each device of a column, the noise of its current is overstated a little
    (docs/wires.md); without it, by much. Cell by cell `M / G` is no measure: a cell of 0 has an M.

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
    fraction = float(np.mean(inputs != 0)) if active_fraction is None else active_fraction
    exact = np.array([solve_active(g_us, one, wires, minus_us=minus_us) for one in inputs])
    rms = math.sqrt(np.mean(exact**2))
    if rms == 0:
        return ApproximationError(0.0, 0.0, fraction)
    groups = _groups(g_us, minus_us, wires)
    error = sum(inputs @ _matrix(layers, wires, fraction) for layers in groups) - exact
    largest = np.max(np.abs(error)) / np.max(np.abs(exact))
    return ApproximationError(float(largest), math.sqrt(np.mean(error**2)) / rms, fraction)


def _conductances(g_us: npt.ArrayLike, wires: Wires) -> Floats:
    """`g_us` as a float64 matrix; ChipError if it is none that `wires` can join."""
    g = np.asarray(g_us, np.float64)
    if g.ndim != 2 or 0 in g.shape:
        raise ChipError(f"wires: conductances must be [rows, cols] with a cell or more, not {list(g.shape)}")
    if not (g.min() >= 0 and g.max() <= MOST_US):
        raise ChipError(f"wires: conductances must be from 0 to {MOST_US:g} uS, not {g.min()} to {g.max()}")
    rows, cols = g.shape
    if wires.bit_segments > rows:
        raise ChipError(f"wires: bit_segments is {wires.bit_segments}, but the array has {rows} rows")
    if wires.word_segments > cols:
        raise ChipError(f"wires: word_segments is {wires.word_segments}, but the array has {cols} columns")
    return g


def _groups(g_us: npt.ArrayLike, minus_us: npt.ArrayLike | None, wires: Wires) -> list[Layers]:
    """What is solved each by itself and then added: one array or, with a G-, two or the two as one."""
    plus = _conductances(g_us, wires)
    if minus_us is None:
        return [[(plus, 1.0)]]
    minus = _conductances(minus_us, wires)
    if plus.shape != minus.shape:
        raise ChipError(f"wires: G+ is {list(plus.shape)} and G- {list(minus.shape)}; they must be alike")
    if wires.differential == "shared":
        return [[(plus, 1.0), (minus, -1.0)]]
    return [[(plus, 1.0)], [(minus, -1.0)]]


def _segments(g: Floats, wires: Wires) -> list[tuple[slice, slice]]:
    """The parts of the array that share no line: rows and columns of each."""
    rows, cols = (
        [slice(int(part[0]), int(part[-1]) + 1) for part in np.array_split(np.arange(size), count)]
        for size, count in zip(g.shape, (wires.bit_segments, wires.word_segments), strict=True)
    )
    return [(row, col) for row in rows for col in cols]


def _lines(wires: Wires, f: float) -> tuple[_Line, _Line]:
    """Word lines, their resistances divided by f, and bit lines."""
    row_ohm, driver_ohm = wires.row_ohm / f, (wires.row_ohm + wires.driver_ohm) / f
    sense_ohm = wires.column_ohm + wires.sense_ohm
    driver = 1e6 / driver_ohm if driver_ohm else math.inf
    sense = 1e6 / sense_ohm if sense_ohm else math.inf
    # A second driver adds nothing to a word line without any resistance.
    second = driver if wires.drive == "two" and driver_ohm else 0.0
    return _Line(row_ohm * 1e-6, driver, second), _Line(wires.column_ohm * 1e-6, 0.0, sense)


def _matrix(layers: Layers, wires: Wires, active_fraction: float) -> Floats:
    """The matrix that reads use, segment by segment; see `transfer_matrix`."""
    if not 0 < active_fraction <= 1:
        raise ValueError(f"active_fraction must be above 0 and at most 1, not {active_fraction!r}")
    f = 1.0 if wires.idle_row == "grounded" or wires.is_ideal else float(active_fraction)
    result = np.zeros_like(layers[0][0])
    for part in _segments(result, wires):
        if f == 1:
            result[part] = _solve([(g[part], sign) for g, sign in layers], wires)
            continue
        # A bit line meets a cell with probability f: f g in its place. An active word line meets all of its
        # own; over f times the resistance, f g loads it as much. Only a cell's load on itself is sure.
        result[part] = _solve([(f * g[part], sign) for g, sign in layers], wires, f) / f
        own = np.sum([g[part] for g, _ in layers], axis=0)
        ohm = wires.sense_ohm + wires.column_ohm * np.arange(len(own), 0, -1)[:, None]
        result[part] *= (1 + 1e-6 * ohm * f * own) / (1 + 1e-6 * ohm * own)
    return result


def _solve(layers: Layers, wires: Wires, f: float = 1.0, active: Bools | None = None) -> Floats:
    """M `[rows, cols]` without segments; rows not `active` are held as `wires.idle_row` says; f: `_lines`."""
    word, bit = _lines(wires, f)
    idle = None
    if active is not None and wires.idle_row == "cut":
        layers = [(g * active[:, None], sign) for g, sign in layers]
    elif active is not None and wires.idle_row == "floating":
        idle = ~active
    rows, cols = layers[0][0].shape
    if cols <= rows or len(layers) > 1 or idle is not None:
        return _sweep(layers, word, bit, idle)
    # Bit lines as strips, from the last column on, so that the port of the word lines comes last here too.
    turned = [(g.T[::-1], sign) for g, sign in layers]
    return _sweep(turned, bit, _Line(word.mohm, word.last, word.first))[::-1].T


def _sweep(layers: Layers, strip: _Line, chain: _Line, portless: Bools | None = None) -> Floats:
    """Eliminate strip after strip along the chains, up to the chains' port after the last strip.

    Args:
        layers: conductances `[strips, chains]`.
        strip: the lines of the strips.
        chain: the lines of the chains; their `last` port is at the last strip, `first` may be a second one.
        portless: `[strips]`, those that are connected to nothing but their cells.

    Returns:
        `[strips, chains]`: the current in a chain's port for a volt at the strip's ports, and the reverse.
    """
    from scipy.linalg import blas, lapack

    count, width = layers[0][0].shape
    ladders = [(_Ladders.of(g, strip, portless), sign) for g, sign in layers]
    # With v at the chains' ports and V at the strip in hand, that strip and all before it draw y V - far v
    # from the chains, and the ports of strips so far get out^T V + ends^T v.
    y = np.asfortranarray(np.diag(np.full(width, chain.first)))
    out = np.zeros((width, count), order="F")
    far, ends = (y.copy(), np.zeros((width, count))) if chain.first else (None, None)
    for i in range(count):
        for ladder, sign in ladders:
            y += ladder.drawn(i)
            out[:, i] += sign * ladder.to_port[i]
        mohm = chain.mohm if i < count - 1 else 1 / chain.last
        if mohm == 0:
            continue
        factor = mohm * y
        np.fill_diagonal(factor, factor.diagonal() + 1)
        # An inverse (its lower triangle) and products take half the time of solving.
        factor, _ = lapack.dpotrf(factor, lower=1, overwrite_a=1)
        k, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        out[:, : i + 1] = blas.dsymm(1.0, k, out[:, : i + 1], lower=1)
        if far is not None and ends is not None:
            ends[:, : i + 1] += mohm * (far.T @ out[:, : i + 1])
            far = blas.dsymm(1.0, k, far, lower=1)
        if i < count - 1:
            y = blas.dsymm(1.0, k, y, lower=1)
    return (out if ends is None else out + ends).T


@dataclass(frozen=True, slots=True)
class _Ladders:
    """Each strip with its cells and ports alone, the chains being held at given voltages.

    Only sums, products and quotients of numbers >= 0: nothing cancels. All arrays are `[strips, chains]`.

    Attributes:
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
        held = np.ones(len(g), np.bool_) if portless is None else ~portless
        ports = held.astype(np.float64)
        # Lines without any resistance are at the voltage of their port: nothing but their own cell counts.
        ideal = math.inf in (line.first, line.last)
        first_port, last_port = (0.0, 0.0) if ideal else (line.first, line.last)
        before, step = _looking(g, line.mohm, first_port * ports)
        after, back = (a[:, ::-1] for a in _looking(g[:, ::-1], line.mohm, last_port * ports))
        total = g + before + after
        node = np.divide(1, total, out=np.zeros_like(g), where=total > 0)
        first = np.cumprod(step, axis=1) / step  # from each node to the first
        last = np.cumprod(back[:, ::-1], axis=1)[:, ::-1] / back
        kept = g * node * (before + after)
        to_port = g * node * (first_port * first + last_port * last) * ports[:, None]
        if ideal:
            node[held], kept[held], to_port[held] = 0, g[held], g[held]
        return cls(g, step, node, kept, to_port)

    def drawn(self, i: int) -> Floats:
        """`[chains, chains]`: currents that strip i draws from the chains per volt on each of them, uS."""
        g = self.g[i]
        if not self.node[i].any():
            return np.diag(self.kept[i])
        # Row k, left of the diagonal: voltages at the nodes before k for a volt at k, from the row above.
        paths = np.zeros((len(g), len(g)))
        for k in range(1, len(g)):
            np.multiply(paths[k - 1, :k], self.step[i, k - 1], out=paths[k, :k])
            paths[k, k - 1] = self.step[i, k - 1]
        paths *= (-g * self.node[i])[:, None]
        paths *= g
        paths += paths.T
        np.fill_diagonal(paths, self.kept[i])
        return paths.T


def _looking(g: Floats, mohm: float, port: Floats) -> tuple[Floats, Floats]:
    """What each node sees towards the first, where `port` is, in uS; and `step`. Both `[strips, chains]`."""
    seen, step = np.empty_like(g), np.empty_like(g)
    look = port
    for k in range(g.shape[1]):
        seen[:, k] = look
        step[:, k] = 1 / (1 + mohm * (g[:, k] + look))
        look = (g[:, k] + look) * step[:, k]
    return seen, step
