"""Training in place, measured as in `effects_training`: leak, transfers, and what they leave."""

from __future__ import annotations

import math

import numpy as np
from effects_cells import RESET, RESET_MEAN, RESET_VARIANCE, sigma_prog
from effects_measures import (
    ROUNDING,
    SEED,
    Row,
    Statistic,
    clipped_normal,
    deviation,
    ks,
    mean,
    rounding,
    share,
    uniform,
)
from effects_training import (
    FEW,
    SHAPE,
    STEP,
    STRAIGHT,
    empty,
    halves,
    hold,
    own_range,
    own_steps,
    pulse,
    spread_out,
)
from scipy import integrate, stats
from trained_cells import UNIT, changed, make, spread_weights

from pcmc.accel.training.arrays import TrainedBank

OFFSET = 2.0  # uS
SIGNIFICANCE = 3.0
INTERVAL, TAU = 1.92e-3, 5.16e-3  # s
LEFT = math.exp(-INTERVAL / TAU)
AWAY = (8.0 - 15.2) / UNIT  # of the reference, after a reset, from what all leak to


def leak() -> list[Statistic]:
    """8,000 examples, 80 at a time: 300 operations of float32."""
    alike = empty(FEW, "pulses,leak", leak_spread=0.0)
    hold(alike, 3.0 / UNIT)
    wait(alike, 100)
    volts = 0.8 + alike.pull * UNIT / (15.2 - 8.0) * 0.3
    return [
        rounding("0.593 V", volts, 0.8 - 0.3 * LEFT, 100),
        rounding("0.689 of a signal", alike.read_out() * UNIT / 3, LEFT, 300),
    ]


def leak_spread() -> list[Statistic]:
    bank = empty(SHAPE, "leak")
    wait(bank, 1)
    alike = -math.expm1(-INTERVAL / 100 / TAU)
    # Of the share that is gone in 80 examples, 8 bits are kept.
    shares = halves(alike - bank.read_out().astype(np.float64) / AWAY)
    tau, exactly = (-INTERVAL / 100 / np.log1p(-one) for one in (spread_out(shares), shares))
    wait(bank, 99)
    wanted = AWAY * (np.exp(-INTERVAL / exactly) - LEFT)
    # Each leak adds what the reference is off, and takes it away again: 6 operations on as much.
    operations = 600 * abs(AWAY) / np.abs(wanted).max()
    return [
        ks("KS of tau", (tau / TAU - 1) / 0.10),
        rounding("g - g_ref", bank.read_out(), wanted, operations),
    ]


def wait(bank: TrainedBank, leaks: int) -> None:
    """Let 80 examples pass, so many times."""
    for _ in range(leaks):
        bank.leak(80)


def written(g: float) -> TrainedBank:
    """Cells of weights whose pairs are to be programmed to g in one device, their offset of 2 uS apart."""
    weights = np.full(SHAPE, (SIGNIFICANCE * g + OFFSET) / UNIT, np.float32)
    return make(weights, "pulses,programming_error", seed=SEED + int(g))


def programming() -> list[Statistic]:
    u, every = [], []
    for g in (5.0, 10.0, 15.0):
        held = written(g).arrays()
        plus, minus = (held[name].astype(np.float64) for name in ("g_plus", "g_minus"))
        u += [clipped_normal(plus, g, sigma_prog(g)), clipped_normal(minus, 0.0, RESET)]
        sigma = math.sqrt(float(sigma_prog(g)) ** 2 + RESET_VARIANCE)
        every.append((plus - minus - g + RESET_MEAN) / sigma)
    z = np.concatenate(every)
    return [ks("KS", np.concatenate(u), uniform), mean("mean of pairs", z), deviation("sd of pairs", z)]


def overshoot() -> list[Statistic]:
    """How many devices end 2 uS of W and more too high, and how many cells the low tier can't reach."""
    found = []
    low, high = (float(halves(end / UNIT)) * UNIT for end in (-4.0, 12.0))
    for g, said in ((5.0, 14), (10.0, 22), (15.0, 26)):
        bank, sigma = written(g), SIGNIFICANCE * float(sigma_prog(g))
        over = (bank.arrays()["g_plus"] - g) * SIGNIFICANCE > OFFSET
        found.append(share(f"{said} %", over, float(stats.norm.sf(OFFSET / sigma))))
        beyond = np.arange(SHAPE[0] * SHAPE[1]) < bank.counters()["out_of_reach"]
        found.append(share("out of reach", beyond, out_of_reach(sigma, low, high)))
    return found


def out_of_reach(sigma: float, low: float, high: float) -> float:
    """P(OFFSET - error of the pair outside of the range), the other device at RESET, half of those at 0."""

    def given(minus: float) -> float:
        error = -SIGNIFICANCE * minus
        return float(
            stats.norm.sf((OFFSET - low - error) / sigma) + stats.norm.cdf((OFFSET - high - error) / sigma)
        )

    above = integrate.quad(lambda g: given(g) * stats.norm.pdf(g, 0, RESET), 0, 8 * RESET)[0]
    return 0.5 * given(0.0) + float(above)


def tuning() -> list[Statistic]:
    """Of cells that the low tier reaches, by more than a step of any."""
    weights = spread_weights(*SHAPE)
    bank = make(weights, "pulses,step_mismatch,programming_error", changed(pulses=STRAIGHT), seed=SEED)
    w, found = weights.ravel().astype(np.float64), bank.read_out().astype(np.float64)
    low = bank.arrays()["low"]
    (up, down), (low_min, low_max) = own_steps(bank), own_range(bank)
    step = np.where(low > 0, up, down)
    rest = low - (found - w)  # what tuning was to reach
    inside = (rest > low_min + 2 * STEP) & (rest < low_max - 2 * STEP) & (np.abs(rest) > 2 * STEP)
    missed = ((found - w) / step)[inside]
    clear = (rest > low_max + 2 * STEP) | (rest < low_min - 2 * STEP)
    end = np.where(rest > 0, low_max, low_min)
    return [ks("KS", missed + 0.5, uniform), rounding("low tier at its end", low[clear], end[clear], 1)]


def targets() -> list[Statistic]:
    """What devices that err in nothing are programmed to, three times."""
    weights = spread_weights(*SHAPE, 0.35)
    bank, w = make(weights, "pulses", seed=SEED), weights.ravel().astype(np.float64) * UNIT
    pairs, wanted, kept = [], [], []
    for turn in range(3):
        s = (-1) ** turn
        target = w - s * OFFSET
        target = np.where((s * target > 0) & (s * target < OFFSET), 0.0, target)
        near = np.abs(np.abs(s * target - OFFSET)) < 1e-4
        pairs.append(np.where(near, 0, bank.pair_only() * UNIT))
        wanted.append(np.where(near, 0, target))
        kept.append(bank.read_out() * UNIT)
        bank.transfer(8000 * (turn + 1))
    return [
        rounding("F (G+ - G-)", np.array(pairs), np.array(wanted), 16),
        rounding("W", np.array(kept), np.array([w] * 3), 16),
    ]


def inversion() -> list[Statistic]:
    """Pulses up and down, as many, for two intervals: up - down each."""
    found, pairs = [], 25
    for name, inverted in (("with inversion", True), ("without", False)):
        chip = changed(pulses=STRAIGHT, training={"inversion": inverted})
        bank = make(spread_weights(20, 500, 0.3), "pulses,step_mismatch", chip, seed=SEED)
        start = bank.read_out().astype(np.float64)
        up, down = own_steps(make(spread_weights(20, 500, 0.3), "pulses,step_mismatch", chip, seed=SEED))
        bias = 2 * pairs * (up - down)
        for interval in (1, 2):
            for _ in range(pairs):
                pulse(bank)
                pulse(bank, up=False)
            bank.transfer(8000 * interval)
        change = (bank.read_out() - start) / np.abs(bias).max()
        # Each of the pulses rounds a weight of up to 0.32.
        operations = (4 * pairs + 20) * 0.32 / np.abs(bias).max()
        wanted = np.zeros_like(bias) if inverted else bias / np.abs(bias).max()
        off = float(np.abs(change - wanted).max())
        found.append(Statistic(name, off, operations * ROUNDING, True))
    return found


ED1, ED9 = (f"Ambrogio et al., Nature 558 (2018), Extended Data Fig. {number}" for number in (1, 9))
CELL = "accel/training/two_tier.py"
TESTS = "tests/accel/training/test_two_tier.py::"

ROWS = [
    Row(
        "leak in training",
        ("leak", "linear"),
        "V = 0.8 V - 0.3 V exp(-t / 5.16 ms) where nobody pulses, and so the reference: 0.5 V to 0.593 V "
        "in 1.92 ms; g - g_ref falls to exp(-1.92 / 5.16) = 0.689, 31.1 % are lost",
        f"{ED1} and 9; accel/training/bank.py",
        "after 8,000 examples, 80 at a time: the reference, and g - g_ref of 600 cells",
        f"{TESTS}test_the_reference_goes_from_half_a_volt_to_0_593_in_an_interval",
        leak,
    ),
    Row(
        "time constants of the leak",
        ("leak", "linear"),
        "tau_i = 5.16 ms (1 + 0.10 N): g - g_ref gets (8 - 15.2) uS (exp(-t / tau_i) - exp(-t / tau)) "
        "from nothing",
        "spread and 15.2 uS assumed; accel/training/devices.py",
        "KS of tau, n = 200,000; g - g_ref after 1.92 ms by the tau of each",
        f"{TESTS}test_a_cell_of_another_time_constant_drifts_off_its_reference",
        leak_spread,
    ),
    Row(
        "transfer",
        ("2pcm+3t1c", "linear"),
        "F (G+ - G-) = W - s 2 uS, or 0 where that is from 0 to 2 uS times s; the low tier takes the rest",
        f"{ED9}; {CELL}",
        "pairs and weights of 200,000 exact cells at three transfers, s = 1, -1, 1",
        f"{TESTS}test_a_transfer_moves_the_low_tier_to_the_pair_and_keeps_the_weight",
        targets,
    ),
    Row(
        "programming error of a transfer",
        ("programming_error", "2pcm+3t1c", "linear"),
        "G+ = max(0, N(g, s(g))), G- = max(0, N(0, s0)): the pair is off by -s0 / sqrt(2 pi) in the mean, "
        "its sd is sqrt(s(g)^2 + var RESET)",
        f"Nandakumar et al. 2019/2020; {CELL}; s as above",
        "KS of G > 0, mean and sd of pairs at 5, 10, 15 uS, n = 200,000 each",
        f"{TESTS}test_pairs_are_programmed_to_what_is_left_of_the_weight_with_the_error_of_the_cell",
        programming,
    ),
    Row(
        "tuning of the low tier",
        ("programming_error", "2pcm+3t1c", "linear"),
        "W = target + U(-1/2, 1/2) step, the step up or down of that device; an end of its range, where "
        "the target is beyond",
        f"{ED9}; {CELL}",
        "KS of cells that the low tier reaches, of 200,000; g of those that it does not",
        f"{TESTS}test_tuning_ends_anywhere_in_a_step_of_the_cells_own",
        tuning,
    ),
    Row(
        "overshoot of a transfer",
        ("programming_error", "2pcm+3t1c", "linear"),
        "P(F (G+ - g) > 2 uS) = Phi(-2 uS / (F s(g))): 14, 22, 26 % at 5, 10, 15 uS; out of reach is F "
        "(G+ - g - G-) beyond 6 uS, or below -10 uS",
        f"normal errors; offset: {ED9}; {CELL}",
        "shares of 200,000 devices each; of cells, by quadrature over G-",
        f"{TESTS}test_a_device_overshoots_the_offset_as_often_as_its_statistics_say",
        overshoot,
    ),
    Row(
        "polarity inversion",
        ("step_mismatch", "2pcm+3t1c", "linear"),
        "n pulses up and n down add s n (up - down), s the polarity: 0 over two intervals; without "
        "inversion 2 n (up - down)",
        f"US patents 11,074,499 and 11,915,132; {CELL}",
        "change of W of 10,000 exact cells, n = 25, over the largest bias",
        f"{TESTS}test_what_mismatch_adds_in_each_interval_cancels_over_two_only_with_inversion",
        inversion,
    ),
]
