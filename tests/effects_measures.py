"""What `effects` is made of: rows of the table, statistics, and the devices that they are taken of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import builders
import chip_tables
import numpy as np
from numpy.typing import NDArray
from scipy import stats

import pcmc
from pcmc.accel.cells import Cell, make_cell
from pcmc.accel.chip import ChipSpec, chip_from_dict
from pcmc.accel.random import Stream, stream

Array = NDArray[Any]

SEED = 2018
UNIT = 20.0
"""uS of a weight of 1: the largest of `weights`, in a pair with F = 1."""
BEYOND = 4.0
"""Standard deviations that are allowed: right code goes beyond them once in 16,000 times."""
CHANCE = 2 * stats.norm.sf(BEYOND)
ROUNDING = 2.0**-24
"""Largest relative error of one operation in float32."""


@dataclass(frozen=True)
class Statistic:
    """A deviation from a formula, and how large it may be: as the size `n` of the sample says, or rounding if
    it is `rounded`, or else a bound.
    """

    name: str
    deviation: float
    allowed: float
    rounded: bool = False
    n: int = 0


@dataclass(frozen=True)
class Row:
    """A row of the table. `of` are effects, kinds of cells and settings that it speaks of; `test` is another
    test of the same, "file::test".
    """

    effect: str
    of: tuple[str, ...]
    formula: str
    source: str
    how: str
    test: str
    measure: Callable[[], list[Statistic]]


def ks(name: str, values: Array, cdf: Callable[[Array], Array] = stats.norm.cdf) -> Statistic:
    """The largest difference between a sample's distribution and the one it should have."""
    found = np.sort(cdf(np.asarray(values, np.float64).ravel()))
    n = found.size
    steps = np.arange(n + 1) / n
    distance = max((steps[1:] - found).max(), (found - steps[:-1]).max())
    return Statistic(name, float(distance), float(stats.kstwobign.isf(CHANCE)) / math.sqrt(n), n=n)


def uniform(u: Array) -> Array:
    """The distribution function of numbers from 0 to 1, for `ks`."""
    return np.clip(u, 0.0, 1.0)


def mean(name: str, values: Array, wanted: float = 0.0, sigma: float = 1.0) -> Statistic:
    """The difference of means in standard deviations of one value."""
    values = np.asarray(values, np.float64)
    off, n = abs(float(values.mean()) - wanted) / sigma, values.size
    return Statistic(name, off, BEYOND / math.sqrt(n), n=n)


def deviation(name: str, values: Array, wanted: float = 1.0, kurtosis: float = 3.0) -> Statistic:
    """The relative difference of a root mean square; `kurtosis` of what it should be distributed as."""
    values = np.asarray(values, np.float64)
    found, n = math.sqrt(float(np.mean(values**2))), values.size
    return Statistic(name, abs(found / wanted - 1), BEYOND * math.sqrt((kurtosis - 1) / 4 / n), n=n)


def product(name: str, one: Array, other: Array, wanted: Array | float) -> Statistic:
    """The difference of a correlation of standard normal numbers from what it should be."""
    one, other = (np.asarray(values, np.float64).ravel() for values in (one, other))
    rho = np.broadcast_to(np.asarray(wanted, np.float64).ravel(), one.shape)
    spread = math.sqrt(float(np.mean(1 + rho**2)) / one.size)
    return Statistic(name, abs(float(np.mean(one * other - rho))), BEYOND * spread, n=one.size)


def share(name: str, events: Array, wanted: float) -> Statistic:
    """The difference of a share from a probability."""
    events = np.asarray(events)
    spread = math.sqrt(wanted * (1 - wanted) / events.size)
    return Statistic(name, abs(float(np.mean(events)) - wanted), BEYOND * spread, n=events.size)


def rounding(name: str, found: Array | float, wanted: Array | float, operations: float) -> Statistic:
    """The largest difference over the largest value; `operations` of float32 may err the same way."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    largest = float(np.abs(wanted).max())
    off = float(np.abs(found - wanted).max())
    return Statistic(name, off / largest, operations * ROUNDING, rounded=True)


def exact(name: str, found: Array, wanted: Array | float) -> Statistic:
    """How many values differ: none may."""
    return Statistic(name, float(np.sum(np.asarray(found) != np.asarray(wanted))), 0.0, rounded=True)


def clipped_normal(g: Array, center: Array | float, sigma: Array | float) -> Array:
    """Of max(0, N(center, sigma)): where the values above 0 lie among those, from 0 to 1."""
    g, center, sigma = (
        np.asarray(a, np.float64).ravel() for a in np.broadcast_arrays(np.asarray(g), center, sigma)
    )
    at_zero = stats.norm.cdf(-center / sigma)
    u = (stats.norm.cdf((g - center) / sigma) - at_zero) / (1 - at_zero)
    return u[g > 0]


def numbers(effect: str, place: int = 0) -> Stream:
    """The stream of an effect."""
    return stream(SEED, (place,), effect)


def block(value: float, rows: int = 200, cols: int = 1000) -> Array:
    """Cells that are all to hold the same, in uS."""
    return np.full((rows, cols), value, np.float32)


def chip_of(kind: str, cell: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]) -> ChipSpec:
    """A chip with cells of a kind, whose fields may be others; and those of other sections."""
    table = chip_tables.tables(kind)
    table["cell"].update(cell or {})
    for section, fields in sections.items():
        table.setdefault(section, {}).update(fields)
    return chip_from_dict(table, "effects")


def cell_of(kind: str, **fields: Any) -> Any:
    """The cell of `chip_of`."""
    found: Cell = make_cell(chip_of(kind, fields).cell)
    return found


def cell_of_chip(name: str) -> Any:
    """The cell of a shipped chip."""
    found: Cell = make_cell(pcmc.load_chip(name).cell)
    return found


def tiles(spec: ChipSpec, rows: int, cols: int) -> ChipSpec:
    """The chip with tiles of `rows` inputs, without bias row."""
    return replace(spec, tile=replace(spec.tile, rows=rows, cols=cols, bias_row=False))


def weights(rows: int, cols: int, least: float = 0.3) -> Array:
    """Weights of both signs, from `least` to 1 in magnitude; the largest is 1."""
    rng = np.random.default_rng(SEED)
    w = rng.uniform(least, 1.0, (rows, cols)) * rng.choice([-1.0, 1.0], (rows, cols))
    w[0, 0] = 1.0
    return np.asarray(w, np.float32)


def inputs(count: int, rows: int) -> Array:
    """Input vectors of both signs, the largest value of each is 1 or -1."""
    x = np.random.default_rng(SEED + 1).uniform(-1.0, 1.0, (count, rows))
    return np.asarray(x / np.abs(x).max(axis=1, keepdims=True), np.float32)


def compiled(w: Array, spec: ChipSpec) -> pcmc.Program:
    """A program that multiplies with `w`."""
    node = builders.node("MatMul", ["x", "w"], ["y"], name="w")
    rows, cols = w.shape
    return pcmc.compile(builders.model([node], {"x": ["N", rows]}, {"y": ["N", cols]}, {"w": w}), spec)


def session(w: Array, spec: ChipSpec, physics: str, **options: Any) -> pcmc.Session:
    """A chip that multiplies with `w`."""
    return pcmc.Session(compiled(w, spec), physics, **({"seed": SEED, "threads": 1} | options))


def outputs(one: pcmc.Session, x: Array) -> Array:
    """What a session gives, in float64."""
    return np.asarray(one.run(None, {"x": x})[0], np.float64)


def chip(rows: int, cols: int, cell: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]) -> Any:
    """PCM pairs in tiles of this size."""
    return tiles(chip_of("2pcm", cell, **sections), rows, cols)


def held(one: pcmc.Session) -> tuple[Array, Array]:
    """G+ and G- of the first bank, `[cells]` in uS, float64."""
    assert one.state is not None
    (bank,) = one.state.banks.values()
    return bank.devices.g_plus.astype(np.float64), bank.devices.g_minus.astype(np.float64)


def in_codes(x: Array, levels: int) -> Array:
    """What a DAC of so many levels makes of inputs, in codes of the largest of each vector."""
    x = np.asarray(x, np.float64)
    return np.asarray(np.rint(x / np.abs(x).max(axis=1, keepdims=True) * levels))
