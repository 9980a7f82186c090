"""Training in place, measured on banks of cells: pulses, the devices that they change, and reads both ways.

Formulas and constants of laws are typed once more here. What a device is like is found by what updates do to
the weights; of a bank nothing is called but that it is updated, leaks, is transferred and read.
"""

from __future__ import annotations

import math

import numpy as np
from effects_cells import sigma_read
from effects_measures import (
    ROUNDING,
    SEED,
    Array,
    Row,
    Statistic,
    deviation,
    exact,
    in_codes,
    inputs,
    ks,
    mean,
    product,
    rounding,
    uniform,
)
from effects_reads import bounded
from scipy import stats
from trained_cells import RANGE, UNIT, capacitor_chip, changed, make

from pcmc.accel.training.arrays import TrainedBank

SHAPE, FEW = (400, 500), (20, 30)
HALF, MIDDLE = 8.0 / UNIT, 4.0 / UNIT  # 4 to 20 uS, seen from a reference of 8 uS
SLOTS = 31
STRAIGHT = {"nonlinearity": 0.0, "nonlinearity_spread": 0.0}


def halves(values: Array | float) -> Array:
    """The nearest numbers of 8 significant bits, as parameters of devices are kept."""
    mantissa, exponent = np.frexp(np.asarray(values, np.float64))
    return np.asarray(np.ldexp(np.rint(mantissa * 2.0**8), exponent - 8))


def spread_out(values: Array, place: int = 0) -> Array:
    """Numbers of 8 significant bits, each anywhere among those that are rounded to it."""
    values = np.asarray(values, np.float64)
    mantissa, exponent = np.frexp(values)
    above = np.ldexp(0.5, exponent - 8)
    below = np.where(np.abs(mantissa) == 0.5, above / 2, above)  # the steps below a power of 2 are finer
    u = np.random.default_rng((SEED, place)).random(values.shape)
    return np.asarray(values + np.sign(values) * (u * (above + below) - below))


STEP = float(halves(0.04 / UNIT))  # of 16 uS in 400 steps


def empty(shape: tuple[int, int], physics: str, seed: int = SEED, /, **pulses: float) -> TrainedBank:
    """Cells whose weights, and low tiers, are 0."""
    chip = changed(pulses=pulses, training={"offset_us": 0.0})
    return make(np.zeros(shape, np.float32), physics, chip, seed=seed)


def pulse(bank: TrainedBank, up: bool = True, count: int = 1, at_once: int = 1) -> Array:
    """What `count` updates of so many pulses on each cell do to the weights, `[cells]`; all slots fire."""
    before = bank.read_out().astype(np.float64)
    x = np.ones((count, bank.bank.rows), np.float32)
    d = np.full((count, bank.bank.cols), -1.0 if up else 1.0, np.float32)
    bank.bank.update(x, d, at_once * bank.bank.law.step)  # type: ignore[union-attr]
    return np.asarray(bank.read_out() - before)


def hold(bank: TrainedBank, low: float) -> None:
    """Set all low tiers of an empty bank, and its weights, to a value."""
    bank.bank.law.low[:] = low  # type: ignore[union-attr]
    bank.bank.weights[:] = low


def own_steps(bank: TrainedBank) -> tuple[Array, Array]:
    """The steps up and down of each device that is not nonlinear; what the bank held is lost."""
    found = []
    for up in (True, False):
        hold(bank, 0.0)
        found.append(halves(np.abs(pulse(bank, up))))
    return found[0], found[1]


def own_range(bank: TrainedBank) -> tuple[Array, Array]:
    """Where the range of each device begins and ends: a pulse takes it there from beyond."""
    found = []
    for beyond in (-1.0, 1.0):
        hold(bank, beyond)
        pulse(bank, beyond < 0)
        found.append(halves(bank.read_out()))
    return found[0], found[1]


# Pulses


def stochastic() -> list[Statistic]:
    """Cells on a diagonal have no line in common, so that all counts are independent."""
    lines, updates = 25, 1000
    rng = np.random.default_rng(SEED)
    x, d = (rng.uniform(0.1, 1.0, lines) * rng.choice([-1, 1], lines) for _ in range(2))
    x[0], d[0] = 1.0, -1.0
    x, d = x.astype(np.float32), d.astype(np.float32)
    z, u, kurtosis, clipped = [], [], [], []
    for rate in (4.5, 40.0):
        slots = min(math.ceil(rate), SLOTS)
        p, q = (np.minimum(np.abs(a.astype(np.float64)) * math.sqrt(rate / slots), 1) for a in (x, d))
        chance = p * q
        if rate < SLOTS:
            assert np.allclose(slots * chance, rate * np.abs(x.astype(np.float64) * d))  # lr |x d| / s
        count, wrong = drawn(x, d, rate, updates)
        clipped.append(wrong)
        law = stats.binom(slots, chance)
        live = chance < 1
        v = rng.random(count.shape)
        u.append((law.cdf(count - 1) + v * law.pmf(count))[:, live].ravel())
        z.append(((count - law.mean()) / np.where(live, law.std(), 1))[:, live].ravel())
        kurtosis.append(np.mean(3 + (1 / law.var()[live] - 6 / slots)))
        clipped.append(count[:, ~live] != slots)
    every = np.concatenate(z)
    return [
        ks("KS", np.concatenate(u), uniform),
        mean("mean", every),
        deviation("sd", every, kurtosis=float(np.mean(kurtosis))),
        exact("wrong way, or not in all slots", np.concatenate([a.ravel() for a in clipped]), 0),
    ]


def drawn(x: Array, d: Array, rate: float, updates: int) -> tuple[Array, Array]:
    """Pulses on the cells of the diagonal, `[updates, lines]`, and which of them went the wrong way."""
    bank = empty((x.size, d.size), "pulses", SEED + int(rate), **STRAIGHT)
    low, weights = bank.bank.law.low, bank.bank.weights  # type: ignore[union-attr]
    found = np.empty((updates, x.size))
    for update in range(updates):
        low[:] = weights[:] = 0
        bank.bank.update(x[None], d[None], rate * STEP)
        found[update] = weights[:: d.size + 1] / STEP
    return np.abs(np.rint(found)), found * np.sign(x * d) > 0.5


def deterministic() -> list[Statistic]:
    lines = 40
    rng = np.random.default_rng(SEED)
    chip = changed(pulses=STRAIGHT, training={"offset_us": 0.0, "train": "deterministic"})
    order = sorted(range(SLOTS), key=lambda slot: int(f"{slot:05b}"[::-1], 2))  # bits reversed
    found, wanted = [], []
    for rate in (3.0, 31.0, 50.0):
        x, d = (rng.uniform(-1, 1, lines).astype(np.float32) for _ in range(2))
        x[0], d[0] = 1.0, 1.0
        bank = make(np.zeros((lines, lines), np.float32), "pulses", chip, seed=SEED)
        bank.bank.update(x[None], d[None], rate * STEP)
        found.append(np.rint(bank.read_out().reshape(lines, lines) / STEP))
        fire = [
            np.rint(np.minimum(np.abs(a.astype(np.float64)) * math.sqrt(rate / SLOTS), 1) * SLOTS).astype(int)
            for a in (x, d)
        ]
        both = [[len(set(range(m)) & set(order[:k])) for k in fire[1]] for m in fire[0]]
        wanted.append(-np.sign(x)[:, None] * np.sign(d) * both)
    return [exact("differ", np.array(found), np.array(wanted))]


# Devices


def step_mismatch() -> list[Statistic]:
    bank = empty(SHAPE, "pulses,step_mismatch", **STRAIGHT, reset_spread_us=0.0)
    steps = own_steps(bank)
    up, down = spread_out(steps[0]), spread_out(steps[1], 1)
    sigma, mean_step = math.hypot(0.10, 0.06), 0.04 / UNIT
    z = [(steps / mean_step - 1) / sigma for steps in (up, down)]
    bias = (up - down) / mean_step / math.hypot(math.sqrt(2) * 0.10, 2 * 0.06)
    return [
        ks("KS up", z[0]),
        ks("KS down", z[1]),
        ks("KS of up - down", bias),
        product("correlation of up and down", z[0], z[1], -(0.06**2) / sigma**2),
        exact("devices alike that differ", pulse(empty(FEW, "pulses", **STRAIGHT)), STEP),
    ]


def range_ends() -> list[Statistic]:
    z = []
    for up in (True, False):
        bank = empty(SHAPE, "step_mismatch", **STRAIGHT, reset_spread_us=0.0)
        x, d = np.ones((1, SHAPE[0]), np.float32), np.full((1, SHAPE[1]), -1.0 if up else 1.0, np.float32)
        bank.bank.update(x, d, 1.0)  # exact, and as far as it goes
        off = spread_out(bank.read_out()) - MIDDLE
        z.append((off / HALF - 1 if up else -off / HALF - 1) / 0.07)
    return [ks("KS high end", z[0]), ks("KS low end", z[1]), product("correlation", z[0], z[1], 0.0)]


def pulse_noise() -> list[Statistic]:
    bank = empty(SHAPE, "pulses,pulse_noise", **STRAIGHT)
    first, again = ((pulse(bank) / STEP - 1) / 0.30 for _ in range(2))
    alone = make(np.zeros(SHAPE, np.float32), "pulses,pulse_noise", capacitor_chip(**STRAIGHT), seed=SEED)
    hold(bank, 0.0)
    together = (pulse(bank, at_once=25) / STEP - 25) / (0.30 * 5)
    many = (pulse(alone, count=25) / float(halves(0.04 * RANGE / 8)) - 25) / (0.30 * 5)
    return [
        ks("KS", first),
        deviation("sd", first),
        product("correlation of two pulses", first, again, 0.0),
        ks("KS of 25 updates, 3t1c", many),
        ks("KS of 25 pulses at once", together),
        deviation("sd of those", together),
    ]


def nonlinearity() -> list[Statistic]:
    """Slopes of devices, from their steps at two places; and many pulses up, then down, of one like all."""
    bank = empty(SHAPE, "pulses,step_mismatch", reset_spread_us=0.0, range_spread=0.0)
    hold(bank, MIDDLE)
    middle = pulse(bank)
    hold(bank, MIDDLE + HALF / 2)
    # Float32 of the weights is finer than the 8 bits of a slope.
    slope = spread_out(halves((middle - pulse(bank)) / (HALF / 2)))
    alike, k = empty(FEW, "pulses"), float(halves(0.05 * STEP / HALF))
    low, found, wanted = -MIDDLE, [], []
    for up, count in ((True, 250), (False, 200)):
        pulse(alike, up, count)
        end = STEP / k if up else -STEP / k
        low = end + (low - end) * (1 - k) ** count
        wanted.append(MIDDLE + low)
        found.append(alike.read_out())
    hold(alike, MIDDLE - HALF / 2)
    jump = pulse(alike, at_once=30) / (STEP / k + HALF / 2) / (1 - (1 - k) ** 30)
    # Their sum is taken to the second order in k: of the third, the share (30 k)^2 / 6 is left out.
    left_out = (30 * k) ** 2 / 6 / ROUNDING
    return [
        ks("KS of k h / step", (slope * HALF / middle - 0.05) / 0.01),
        rounding("g after 250 up and 200 down", np.array(found), np.array(wanted)[:, None], 4 * 450),
        rounding("30 pulses at once", jump, 1.0, 64 + left_out),
    ]


# Reads


def reads() -> list[Statistic]:
    """What is between the weights and the results, of reads of both directions."""
    rows, cols, vectors = 60, 50, 4000
    rng = np.random.default_rng(SEED)
    w = rng.uniform(-0.4, 0.4, (rows, cols)).astype(np.float32)
    quiet = make(w, "leak", seed=SEED)
    x, d = inputs(200, rows), inputs(200, cols)
    held = quiet.read_out().reshape(rows, cols).astype(np.float64)
    found = [rounding("forward", quiet.bank.forward(x), x.astype(np.float64) @ held, rows)]
    found.append(rounding("backward", quiet.bank.backward(d), d.astype(np.float64) @ held.T, cols))
    noisy = make(w, "read_noise=fast", seed=SEED)
    held = noisy.read_out().reshape(rows, cols).astype(np.float64)
    devices = [noisy.arrays()[name].astype(np.float64).reshape(rows, cols) for name in ("g_plus", "g_minus")]
    variance = sum(
        np.where(g > 0, np.square(3 * sigma_read(np.maximum(g, 1e-9), 20.0)), 0) for g in devices
    ) / UNIT**2  # fmt: skip
    z = {}
    for name, one, product_, power in (
        ("forward", x[0], x[0].astype(np.float64) @ held, np.square(x[0].astype(np.float64)) @ variance),
        ("backward", d[0], held @ d[0].astype(np.float64), variance @ np.square(d[0].astype(np.float64))),
    ):
        got = getattr(noisy.bank, name)(np.repeat(one[None], vectors, axis=0))
        z[name] = (got - product_) / np.sqrt(power)
        found += [ks(f"KS of noise {name}", z[name]), deviation(f"sd {name}", z[name])]
    found.append(product("correlation of the two", z["forward"], z["backward"][:, :cols], 0.0))
    return found


def converters() -> list[Statistic]:
    """Codes of inputs and outputs of the backward read, and the fixed offsets of its rows."""
    rows, cols, spread = 60, 50, 1.5
    w = np.random.default_rng(SEED).uniform(-0.4, 0.4, (rows, cols)).astype(np.float32)
    chip = changed(backward={"dac_bits": 6, "adc_bits": 10, "adc_range_cells": 12.0})
    bank, d = make(w, "dac,adc", chip, seed=SEED), inputs(200, cols)
    largest = np.abs(d).max(axis=1, keepdims=True).astype(np.float64)
    sums = in_codes(d, 31) * largest / 31 @ w.astype(np.float64).T
    lsb = 12.0 * RANGE * largest / 511
    off = np.abs(bank.bank.backward(d) - sums) / lsb
    chip, none = changed(backward={"adc_offset_lsb": spread}), np.zeros((60_000, 2), np.float32)
    bank = make(none, "adc", chip, seed=SEED)
    d = np.array([[1.0, 0.5], [0.3, -2.0]], np.float32)
    codes = bank.bank.backward(d) / (20.0 * RANGE * np.abs(d).max(axis=1, keepdims=True) / 255)
    below, above = (stats.norm.cdf((np.rint(codes[0]) + end) / spread) for end in (-0.5, 0.5))
    u = below + (above - below) * np.random.default_rng(SEED).random(len(none))
    in_lsb = float((np.abs(sums) / lsb).max())
    return [
        bounded(off / 0.5, 2 * cols * in_lsb),
        ks("KS of offsets", u, uniform),
        exact("offsets that another read has not", np.rint(codes[0]), np.rint(codes[1])),
    ]


AIHWKIT = "aihwkit, CapacitorPresetDevice, a fit to Li et al., VLSI 2018"
LAW = f"{AIHWKIT}; accel/training/devices.py"
TRAINS = "Gokmen and Vlasov 2016; aihwkit, STOCHASTIC_COMPRESSED; accel/training/reference.py"
BANKS = "tests/accel/training/test_bank.py::"
DEVICES = "tests/accel/training/test_devices.py::"

ROWS = [
    Row(
        "stochastic pulses",
        ("pulses", "linear"),
        "W falls by s per pulse, Binomial(BL, p_i q_j) of them, BL = min(ceil(lr dx dd / s), 31), p_i = "
        "|x_i| sqrt(lr dd / (s BL dx)), q_j = |d_j| sqrt(lr dx / (s BL dd)), at most 1: mean lr |x_i "
        "d_j|, variance that times s (1 - p_i q_j)",
        TRAINS,
        "KS of counts, smoothed, their mean and sd: lr dx dd = 4.5 and 40 s, 1,000 updates of 25 cells "
        "without a line in common; counts of the wrong sign, or other than BL where p = q = 1",
        f"{BANKS}test_the_number_of_pulses_has_the_mean_and_variance_of_the_formula",
        stochastic,
    ),
    Row(
        "deterministic pulses",
        ("pulses", "linear"),
        "row i fires in the first rint(p_i BL) slots, column j in rint(q_j BL) of them in the order of their "
        "reversed bits, BL = 31",
        "van der Corput's sequence; design of accel/training/reference.py",
        "pulses that differ, 40 x 40 cells, lr dx dd = 3, 31 and 50 s",
        f"{BANKS}test_deterministic_pulses_are_the_products_of_counts_spread_evenly",
        deterministic,
    ),
    Row(
        "step mismatch",
        ("step_mismatch", "linear"),
        "up = s (1 + b + 0.10 N), down = s (1 - b + 0.10 N'), b = 0.06 N'', s = 16 uS / 400; up - down "
        "has sd s sqrt(2 x 0.10^2 + 4 x 0.06^2)",
        LAW,
        "KS of what a pulse up and one down change W by, of the difference, n = 200,000; without mismatch "
        "all are alike",
        f"{DEVICES}test_what_up_has_more_of_a_device_down_has_less",
        step_mismatch,
    ),
    Row(
        "ends of the range",
        ("step_mismatch", "linear"),
        "middle +- 8 uS (1 + 0.07 N)",
        LAW,
        "KS of where W ends, n = 200,000; correlation of the two ends",
        f"{DEVICES}test_the_range_of_each_device_ends_where_its_spread_says",
        range_ends,
    ),
    Row(
        "pulse noise",
        ("pulse_noise", "2pcm+3t1c", "3t1c", "linear"),
        "a pulse is step (1 + 0.30 N), N new each time",
        LAW,
        "KS and sd of one pulse, correlation of two, KS of the sum of 25, one an update or all in one, n "
        "= 200,000",
        f"{BANKS}test_noise_of_pulses_has_the_stated_deviation_and_is_gaussian",
        pulse_noise,
    ),
    Row(
        "nonlinearity of pulses",
        ("pulses", "step_mismatch", "linear"),
        "g += up - k (g - middle), g -= down + k (g - middle), k = |0.05 + 0.01 N| step / 8 uS: n pulses "
        "take it to middle +- step / k with (1 - k)^n left of the way",
        LAW,
        "KS of k, from steps at two conductances, n = 200,000; g of 600 cells that are alike, a pulse an "
        "update, and 30 in one",
        f"{BANKS}test_pulses_of_one_direction_follow_the_closed_form",
        nonlinearity,
    ),
    Row(
        "reads of training",
        ("read_noise", "2pcm+3t1c"),
        "y = x W, e = d W^T of the same cells; noise of variance sum_i x_i^2 s_ij^2 and sum_j d_j^2 "
        "s_ij^2, new at each read",
        "sum of independent normal numbers; accel/training/reference.py; s as above",
        "results of 200 vectors; KS and sd of 4,000 reads of 60 x 50 cells",
        f"{BANKS}test_fast_noise_has_the_variance_of_its_formula_both_ways",
        reads,
    ),
    Row(
        "converters of backward reads",
        ("dac", "adc"),
        "e = clip(rint(sum / LSB + o_i), -L, L) LSB, sum of d' W, d' the codes of d; o_i normal, once for "
        "each row",
        "chip file; accel/training/reference.py",
        "error over half an LSB, 200 vectors, 6 and 10 bits; KS of codes of 60,000 rows of weights of 0, "
        "smoothed, o of 1.5 LSB; offsets at another read",
        "tests/accel/training/test_arrays.py::"
        "test_an_offset_of_the_rows_converters_is_fixed_and_the_same_for_all_blocks_of_a_row",
        converters,
    ),
]
