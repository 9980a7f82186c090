"""Noise from read to read, measured through `Session`: of devices, of drivers, of converters.

Results are held against plain numpy on what the devices hold; nothing of the read-out is called.
"""

from __future__ import annotations

import math

import numpy as np
from effects_cells import sigma_read
from effects_measures import (
    SEED,
    UNIT,
    Array,
    Row,
    Statistic,
    chip,
    deviation,
    exact,
    held,
    in_codes,
    inputs,
    ks,
    numbers,
    outputs,
    product,
    session,
    uniform,
    weights,
)
from scipy import integrate, stats

import pcmc
from pcmc.runtime.wander import bands

BOLTZMANN = 1.380649e-23


def variances(one: pcmc.Session, shape: tuple[int, int], t: float = 20.0) -> Array:
    """Of weights by read noise, `[rows, cols]`, of a chip in one block."""
    both = [np.where(g > 0, np.square(sigma_read(np.maximum(g, 1e-9), t)), 0.0) for g in held(one)]
    return (both[0] + both[1]).reshape(shape) / UNIT**2


# Random numbers


def random_numbers() -> list[Statistic]:
    z, u = numbers("normal").normal(2_000_000), numbers("uniform").uniform(2_000_000)
    return [
        ks("KS normal", z),
        ks("KS uniform", u, uniform),
        product("correlation of neighbours", z[:-1], z[1:], 0.0),
    ]


# Noise from read to read


def fast_noise() -> list[Statistic]:
    rows, cols, vectors = 40, 50, 20_000
    w, (x,) = weights(rows, cols), inputs(1, rows)
    one = session(w, chip(rows, cols), "read_noise=fast")
    many = np.repeat(x[None], vectors, axis=0)
    sigma = np.sqrt(np.square(x.astype(np.float64)) @ variances(one, w.shape))
    first, again = ((outputs(one, many) - x.astype(np.float64) @ w) / sigma for _ in range(2))
    return [
        ks("KS", first),
        deviation("sd", first),
        product("correlation of reads", first, again, 0.0),
        product("of columns", first[:, :-1], first[:, 1:], 0.0),
        product("of vectors", first[:-1], first[1:], 0.0),
    ]


def frozen_noise() -> list[Statistic]:
    rows, cols = 40, 60_000
    w, x = weights(rows, cols), inputs(2, rows)
    spec = chip(rows, cols)
    one = session(w, spec, "read_noise=frozen")
    double = x.astype(np.float64)
    error, variance = outputs(one, x) - double @ w, variances(one, w.shape)
    again = outputs(one, x) - double @ w
    z = error / np.sqrt(np.square(double) @ variance)
    covariance = (double[0] * double[1]) @ variance
    rho = covariance / np.sqrt(np.prod(np.square(double) @ variance, axis=0))
    return [
        ks("KS", z[0]),
        deviation("sd", z[0]),
        product("correlation of two inputs", z[0], z[1], rho),
        exact("new at another read", again, error),
    ]


def split_noise() -> list[Statistic]:
    rows, cols, blocks = 20, 10, 500
    w, (x,) = weights(rows, cols * blocks), inputs(1, rows)
    one = session(w, chip(rows, cols), "read_noise=split")
    ideal = x.astype(np.float64) @ w
    whole = math.log((20 + 250e-9) / 500e-9)
    slow = math.log((20 + 250e-9) / 1e-3) / whole
    sigma = np.sqrt(np.square(x.astype(np.float64)) @ shaped(one, w))
    z = [(outputs(one, x[None])[0] - ideal) / sigma for _ in range(2)]
    found = [
        ks("KS", z[0]),
        product("share that two reads have in common", z[0], z[1], slow),
    ]
    waited, far = 0.0, []
    for dt in (3e-3, 0.1, 2.0):
        one.wait(dt - waited)
        waited = dt
        later = (outputs(one, x[None])[0] - ideal) / sigma
        # Devices of a block are other values at the same moments: blocks count.
        per_block = (z[0] * later).reshape(blocks, cols).mean(axis=1)
        wanted = slow * lorentzians(dt, 1e-3, 20.0)
        spread = float(per_block.std()) / math.sqrt(blocks)
        far.append((abs(float(per_block.mean()) - wanted), 4 * spread))
    off, allowed = max(far, key=lambda pair: pair[0] / pair[1])
    found.append(Statistic("correlation after 3, 100, 2000 ms, the worst", off, allowed, n=blocks))
    gap = max(
        abs(lorentzians(dt, 1e-3, 20.0) - one_over_f(dt, 1e-3, 20.0))
        for dt in np.logspace(-4, 2, 61).tolist()
    )
    # A midpoint rule with steps of h in ln tau errs by h^2 / 24 of the second derivative of exp(-dt / tau),
    # which is at most 0.309.
    listed = (
        sum(weight * math.exp(-dt / tau) for tau, weight in bands(1e-3, 20.0)) for dt in (1e-3, 0.03, 1.0)
    )
    mine = [lorentzians(dt, 1e-3, 20.0) for dt in (1e-3, 0.03, 1.0)]
    off = max(abs(a - b) for a, b in zip(listed, mine, strict=True))
    found.append(Statistic("bands that the code has", off, 64 * 2.0**-52, True))
    found.append(Statistic("Lorentzians from 1/f", gap, math.log(10) ** 2 / 4 / 24 * 0.309))
    return found


def shaped(one: pcmc.Session, w: Array) -> Array:
    """Variances `[rows, cols]` of weights cut into tiles."""
    (bank,) = one.program.banks.values()
    both = np.zeros(w.shape)
    plus, minus = held(one)
    for part in bank.table:
        cells = slice(int(part["offset"]), int(part["offset"] + part["rows"] * part["cols"]))
        g = np.maximum(plus[cells], minus[cells]).reshape(int(part["rows"]), int(part["cols"]))
        rows = slice(int(part["row0"]), int(part["row0"] + part["rows"]))
        both[rows, int(part["col0"]) : int(part["col0"] + part["cols"])] = np.square(sigma_read(g, 20.0))
    return both / UNIT**2


def lorentzians(dt: float, shortest: float, longest: float) -> float:
    """The autocorrelation of two Lorentzians a decade, each with its share of ln(longest / shortest)."""
    edges = np.append(np.arange(math.log10(shortest), math.log10(longest) - 1e-9, 0.5), math.log10(longest))
    share = np.diff(edges) / (edges[-1] - edges[0])
    return float(share @ np.exp(-dt / 10 ** (edges[:-1] + 0.25)))


def one_over_f(dt: float, shortest: float, longest: float) -> float:
    """The same with time constants spread evenly over the logarithm: 1/f in between."""
    area = integrate.quad(lambda u: math.exp(-dt * math.exp(-u)), math.log(shortest), math.log(longest))[0]
    return float(area) / math.log(longest / shortest)


def noise_of_drivers() -> list[Statistic]:
    rows, cols, vectors = 20, 50, 10_000
    w, (x,) = weights(rows, cols), inputs(1, rows)
    many, codes = np.repeat(x[None], vectors, axis=0), in_codes(x[None], 15)[0]
    digits = [(np.abs(codes).astype(int) >> shift & 3) / 3 for shift in (0, 2)]
    powers = {
        "voltage": np.square(codes / 15),
        "pulse": np.abs(codes / 15),
        "bits": np.square(3 / 15 * digits[0]) + np.square(12 / 15 * digits[1]),
    }
    found = []
    for kind, sample in (("voltage", "slice"), ("pulse", "slice"), ("bits", "slice"), ("bits", "sum")):
        dac = {"bits": 5, "input": kind, "slice_bits": 2 if kind == "bits" else 1}
        one = session(w, chip(rows, cols, dac=dac, adc={"sample": sample}), "dac,read_noise=fast")
        z = (outputs(one, many) - codes / 15 @ w) / np.sqrt(powers[kind] @ variances(one, w.shape))
        found.append(ks(f"KS {kind}{' summed' if sample == 'sum' else ''}", z))
    return found


def thermal_noise() -> list[Statistic]:
    rows, cols, vectors = 20, 50, 20_000
    w, (x,) = weights(rows, cols), inputs(1, rows)
    x[1], x[3:] = 1.0, 0.0
    many = np.repeat(x[None], vectors, axis=0)
    per_us = 4 * BOLTZMANN * 350.0 / (2 * 40e-9) / 0.05**2 * 1e6
    found = []
    for kind in ("voltage", "pulse"):
        cell = {"read_voltage_v": 0.05, "temperature_k": 350.0}
        one = session(w, chip(rows, cols, cell, dac={"input": kind}), "thermal_noise")
        g = (held(one)[0] + held(one)[1]).reshape(w.shape)
        on = np.ones(rows) if kind == "voltage" else np.abs(x.astype(np.float64))
        z = (outputs(one, many) - x.astype(np.float64) @ w) / np.sqrt(on @ g * per_us) * UNIT
        found += [ks(f"KS {kind}", z), deviation(f"sd {kind}", z)]
    return found


def readout_noise() -> list[Statistic]:
    rows, cols, vectors = 20, 50, 20_000
    w, (x,) = weights(rows, cols), inputs(1, rows)
    adc = {"bits": 10, "range_cells": 20.0, "noise_lsb": 1.5}
    one = session(w, chip(rows, cols, adc=adc), "adc,readout_noise")
    lsb = 20.0 / 511
    centers = x.astype(np.float64) @ w / lsb
    codes = [np.rint(outputs(one, np.repeat(x[None], vectors, axis=0)) / lsb) for _ in range(2)]
    # Codes are whole: a number from below to above the step that a code stands for is uniform.
    below, above = (stats.norm.cdf((codes[0] + end - centers) / 1.5) for end in (-0.5, 0.5))
    u = below + (above - below) * np.random.default_rng(SEED).random(below.shape)
    spread = math.sqrt(1.5**2 + 1 / 12)
    return [
        ks("KS", u, uniform),
        product("correlation of reads", (codes[0] - centers) / spread, (codes[1] - centers) / spread, 0.0),
    ]


PHYSICS = "accel/physics.py, runtime/reads.py"
CONVERTERS = "accel/reference.py"
DRIVERS = "accel/periphery.py"
READS = "tests/runtime/test_reads.py::"
DEVICES = "tests/accel/test_noise_against_devices.py::"

ROWS = [
    Row(
        "random numbers",
        (),
        "standard normal; uniform from 0 to 1; independent",
        "Threefry and Philox, Salmon et al., SC 2011; accel/random.py",
        "KS, n = 2,000,000 each; correlation of neighbours",
        "tests/accel/test_gaussian.py::test_numbers_are_normally_distributed",
        random_numbers,
    ),
    Row(
        "read noise, fast",
        ("read_noise", "fast"),
        "y - x W is N(0, sum_i x_i^2 s_i^2): one number a conversion for all devices; independent between "
        "reads, vectors, columns",
        "sum of independent normal numbers; design of accel/tile.py; s as above",
        "KS and sd of 20,000 vectors x 50 columns; correlations",
        DEVICES + "test_vectors_have_the_moments_and_the_distribution_of_devices",
        fast_noise,
    ),
    Row(
        "read noise, frozen",
        ("read_noise", "frozen"),
        "y_a - x_a W has the covariance sum_i x_ai x_bi s_i^2 between inputs a, b, and is the same at each "
        "read",
        "as aihwkit draws it, once for all reads; runtime/reads.py",
        "KS, sd, correlation of two inputs, 60,000 columns; values that change from read to read",
        DEVICES + "test_vectors_have_the_moments_and_the_distribution_of_devices",
        frozen_noise,
    ),
    Row(
        "read noise, split, in time",
        ("read_noise", "split"),
        "reads at once share the slow part, ln((t + t_read) / split) of ln((t + t_read) / 2 t_read); after "
        "dt it is correlated by sum_k w_k exp(-dt / tau_k), two tau a decade from split to t",
        "1/f as a sum of Lorentzians; runtime/wander.py",
        "KS and share, 5,000 columns; correlation over Session.wait, 500 blocks; the sum with the bands of "
        "the code; distance of the sum from an even spread over ln tau, 0.1 ms to 100 s",
        "tests/runtime/test_wander.py::test_two_times_are_correlated_as_the_lorentzians_between_them",
        split_noise,
    ),
    Row(
        "read noise by kind of input",
        ("read_noise", "fast", "dac"),
        "variance sum_i p_i s_i^2: voltage p = x^2, pulse p = |x|, bits p = sum_k (B^k (B - 1) / L)^2 (d_k "
        "/ (B - 1))^2",
        "white currents over a pulse, one number for each digit; accel/periphery.py",
        "KS of 10,000 vectors x 50 columns each; digits converted each and summed",
        DEVICES + "test_vectors_have_the_moments_and_the_distribution_of_devices",
        noise_of_drivers,
    ),
    Row(
        "thermal noise",
        ("thermal_noise",),
        "voltage: sum_i 4 k T (G+ + G-) F^2 / (2 t) / V^2 whatever the inputs; pulse: times |x_i|",
        "Johnson 1928; " + PHYSICS,
        "KS and sd of 20,000 vectors x 50 columns each, 17 of 20 inputs 0",
        READS + "test_thermal_noise_is_that_of_the_conductances_and_blind_to_the_inputs",
        thermal_noise,
    ),
    Row(
        "read-out noise",
        ("readout_noise",),
        "code = rint(sum / LSB + noise_lsb N(0, 1)), new at each conversion",
        "chip file; runtime/banks.py",
        "KS of codes, smoothed, 1.5 LSB, 20,000 vectors x 50 columns; correlation of two reads",
        READS + "test_read_out_noise_has_its_variance_and_is_new_at_each_conversion",
        readout_noise,
    ),
]
