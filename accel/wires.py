"""What the resistance of the wires makes of an array: the matrix that its reads really multiply with.

Word line i enters at column 0, where its driver sits, and crosses the bit lines; bit line j is sensed at the
last row. Each piece of wire from one cell to the next has `row_ohm` or `column_ohm`, and so has the piece
between a line's port and its first cell; the port adds its own resistance. Cells are ohmic and the sense ends
are virtual grounds, so the circuit is linear in the voltages of the drivers: `I = M^T v`, with `M` depending
only on conductances and wires. `M` is worked out once per programmed state, and reads use it in place of G.

`pcmc.accel.ladders` has the method: time grows with long * short^3, the sides of the array. docs/wires.md
has figures.

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
from pcmc.accel.ladders import Floats, Layers, Line, sweep
from pcmc.errors import ChipError

Bools = npt.NDArray[np.bool_]

LEAST_OHM, MOST_OHM = 1e-12, 1e12
MOST_US = 1e6


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
LEAST_ACTIVE = 1e-6


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
        active_fraction: the part of rows that are driven at a time, where rows are cut or float when idle
            and nothing is known of the inputs; 1: all.
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
    active_fraction: Annotated[float, Real(LEAST_ACTIVE, 1.0)] = 1.0
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

    @property
    def depends_on_activity(self) -> bool:
        """Whether what a read finds depends on which rows are driven beside each other."""
        return self.idle_row != "grounded" and not self.is_ideal


def transfer_matrix(g_us: npt.ArrayLike, wires: Wires, active_fraction: float | None = None) -> Floats:
    """The effective conductances M of a wired array: `I = M^T v` at the sense ends.

    Exact for idle rows that are grounded, and where all rows are active. Else (`idle_row` cut or floating) M
    depends on which rows are active. This is then a mean field of rows that are active with probability f:
    bit lines meet of each row f times what it draws when driven and 1 - f times what it draws when idle
    (nothing where it is cut, the load of its cells where it floats), corrected for what a cell's own current
    drops in its bit line. `approximation_error` measures it.

    Args:
        g_us: `[rows, cols]` conductances of cells in uS, not negative; or `[arrays, rows, cols]`, several
            arrays at once, faster where they are small.
        wires: wires and ports.
        active_fraction: f, the part of rows that are active at a time, above 0 and at most 1; None: that of
            `wires`.

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
    plus_us: npt.ArrayLike, minus_us: npt.ArrayLike, wires: Wires, active_fraction: float | None = None
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
    plus_us: npt.ArrayLike, minus_us: npt.ArrayLike, wires: Wires, active_fraction: float | None = None
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


def _lines(wires: Wires, before: int, after: int, below: int) -> tuple[Line, Line]:
    """Word lines and bit lines. `before` and `after` are columns without a cell at the ends of word lines,
    `below` rows at the sense end: just wire, which counts to the port.
    """
    first_ohm = wires.row_ohm * (before + 1) + wires.driver_ohm
    last_ohm = wires.row_ohm * (after + 1) + wires.driver_ohm
    sense_ohm = wires.column_ohm * (below + 1) + wires.sense_ohm
    driver = 1e6 / first_ohm if first_ohm else math.inf
    sense = 1e6 / sense_ohm if sense_ohm else math.inf
    # A second driver adds nothing to a word line without any resistance.
    second = 1e6 / last_ohm if wires.drive == "two" and last_ohm else 0.0
    return Line(wires.row_ohm * 1e-6, driver, second), Line(wires.column_ohm * 1e-6, 0.0, sense)


def _matrices(layers: Layers, wires: Wires, active_fraction: float | None) -> list[Floats]:
    """The matrices that reads use, layer by layer, segment by segment; see `transfer_matrix`."""
    fraction = wires.active_fraction if active_fraction is None else float(active_fraction)
    if not 0 < fraction <= 1:
        raise ValueError(f"active_fraction must be above 0 and at most 1, not {active_fraction!r}")
    f = fraction if wires.depends_on_activity else 1.0
    results = [np.zeros_like(g) for g in layers]
    for part in _segments(layers[0], wires):
        parts = [g[part] for g in layers]
        whole = 1.0 if f == 1 else _own_load(parts, wires, f)
        for result, matrix in zip(results, _solve(parts, wires, f), strict=True):
            result[part] = matrix * whole
    return results


def _own_load(layers: Layers, wires: Wires, f: float) -> Floats:
    """What a mean field leaves out: a cell that is read is surely active, and loads its bit line whole.

    A factor of M `[arrays, rows, cols]`, with the bit line's resistance from a cell to ground and, of a row
    that floats, what its cells let through to each other where its wire has no resistance.
    """
    own = np.sum(layers, axis=0)
    mean = f * own
    if wires.idle_row == "floating":
        for g in layers:
            row = np.sum(g, axis=2, keepdims=True)
            mean += (1 - f) * g * (1 - np.divide(g, row, out=np.zeros_like(g), where=row > 0))
    ohm = wires.sense_ohm + wires.column_ohm * np.arange(own.shape[1], 0, -1)[:, None]
    factor: Floats = (1 + 1e-6 * ohm * mean) / (1 + 1e-6 * ohm * own)
    return factor


def _solve(layers: Layers, wires: Wires, f: float = 1.0, active: Bools | None = None) -> list[Floats]:
    """M `[arrays, rows, cols]` of each layer, without segments.

    `wires.idle_row` holds rows not `active`; None: the mean field of rows that are active with probability f.
    """
    idle = None
    if active is not None and wires.idle_row == "cut":
        layers = [g * active[:, None] for g in layers]
    elif active is not None and wires.idle_row == "floating":
        idle = ~active
    results = [np.zeros_like(g) for g in layers]
    # Lines without a cell at the borders carry nothing; what current has to cross there is just wire.
    for (top, bottom, left, right), arrays in _spans(np.any([g > 0 for g in layers], axis=0)).items():
        word, bit = _lines(wires, left, layers[0].shape[2] - right, layers[0].shape[1] - bottom)
        parts = [g[arrays, top:bottom, left:right] for g in layers]
        if right - left <= bottom - top or len(layers) > 1 or idle is not None or f < 1:
            loose = wires.idle_row == "floating"
            solved = sweep(parts, word, bit, None if idle is None else idle[top:bottom], f, loose)
        else:
            # Bit lines as strips, from the last column on, so that the word lines' port comes last here too.
            turned = [g.transpose(0, 2, 1)[:, ::-1] for g in parts]
            solved = sweep(turned, bit, Line(word.mohm, word.last, word.first))
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
