"""SET pulses on PCM pairs and occasional RESET, measured as in `effects_training` on the cells of pcm2014."""

from __future__ import annotations

import math

import numpy as np
from effects_cells import sigma_prog
from effects_measures import (
    SEED,
    Array,
    Row,
    Statistic,
    clipped_normal,
    deviation,
    exact,
    ks,
    rounding,
    share,
    uniform,
)
from effects_training import FEW, SHAPE, halves, pulse, spread_out
from scipy import stats
from trained_cells import RANGE, make

import pcmc
from pcmc.accel.training.arrays import TrainedBank

GROWTH = 27.235
ALIKE = float(halves(0.005 * RANGE))
"""The step of a device far up its range."""
LEVEL = float(halves(0.005 * RANGE))
"""What RESET leaves."""


def pairs(shape: tuple[int, int], physics: str, difference: float = 0.0) -> TrainedBank:
    """Pairs of weights that are all the same, over g_max."""
    return make(np.full(shape, difference * RANGE, np.float32), physics, pcmc.load_chip("pcm2014"), seed=SEED)


def set_to(bank: TrainedBank, plus: Array | float, minus: Array | float = 0.0) -> None:
    """What devices hold, over g_max; weights are set to 0, so that a change is exact."""
    law = bank.bank.law
    law.plus[:], law.minus[:] = np.asarray(plus) * RANGE, np.asarray(minus) * RANGE  # type: ignore[union-attr]
    bank.bank.weights[:] = 0


def steps() -> list[Statistic]:
    bank, g = pairs(FEW, "pulses"), np.linspace(0, 0.95, 600)
    set_to(bank, g)
    curve = ALIKE / RANGE * (1 + GROWTH * np.exp(-5 * g))
    found = [rounding("steps", pulse(bank) / RANGE, curve, 64)]
    noisy, of_noise = pairs(SHAPE, "pulses,pulse_noise"), []
    for up in (True, False):
        set_to(noisy, 0.3, 0.3)
        change = pulse(noisy, up) / RANGE * (1 if up else -1)
        step = ALIKE / RANGE * (1 + GROWTH * math.exp(-1.5))
        of_noise.append((change - step) / (0.6 * (step + 0.021 + 0.108 * 0.3)))
    z = np.concatenate(of_noise)
    return [*found, ks("KS of noise", z), deviation("sd of noise", z)]


def mismatch() -> list[Statistic]:
    bank, of_step = pairs(SHAPE, "pulses,step_mismatch", 0.3), []
    levels = bank.bank.law.minus / RANGE  # type: ignore[union-attr]
    for up in (True, False):
        set_to(bank, 0.0, 0.0)
        change = np.abs(pulse(bank, up)) / RANGE / (1 + GROWTH)
        of_step.append((spread_out(halves(change), up) / 0.005 - 1) / math.hypot(0.05, 0.20))
    set_to(bank, 1.6)  # beyond its end: it is clipped there
    tops = spread_out(halves(1.6 + pulse(bank) / RANGE), 2)
    u = clipped_normal(spread_out(levels[levels > 0], 3), 0.005, 0.01)
    return [
        ks("KS of steps", np.concatenate(of_step)),
        ks("KS of ends", (tops - 1) / 0.10),
        ks("KS of levels after RESET", u, uniform),
        share("of those at 0", levels == 0, float(stats.norm.cdf(-0.5))),
    ]


def occasional_reset() -> list[Statistic]:
    rng = np.random.default_rng(SEED)
    bank, (plus, minus) = pairs(SHAPE, "pulses"), rng.random((2, SHAPE[0] * SHAPE[1]))
    set_to(bank, plus, minus)
    bank.transfer(100)
    law = bank.bank.law
    full = (np.maximum(plus, minus) > 0.75) & (np.minimum(plus, minus) > 0.25)
    emptied = np.minimum(law.plus, law.minus) < 0.01 * RANGE  # type: ignore[union-attr]
    clear = np.minimum(plus, minus) > 0.01
    bank = pairs(SHAPE, "pulses,programming_error")
    set_to(bank, 0.8, 0.3)
    bank.transfer(100)
    g = 0.5 * 20 + LEVEL / RANGE * 20
    held = bank.bank.law.plus.astype(np.float64) / RANGE * 20  # type: ignore[union-attr]
    return [
        exact("pairs that others are programmed again", emptied[clear], full[clear]),
        ks("KS of G+ that is", (held - g) / float(sigma_prog(g))),
    ]


AIHWKIT = "aihwkit, PCMPresetDevice, after Nandakumar et al. 2020"
LAW = f"{AIHWKIT}; accel/training/set_law.py"
DEVICES = f"{AIHWKIT}; accel/training/set_devices.py"

ROWS = [
    Row(
        "SET pulses",
        ("pulses", "pulse_noise", "2pcm", "4pcm", "set"),
        "g += step + 0.6 (step + 0.021 + 0.108 g) N, step = 0.005 (1 + 27.235 exp(-5 g)), g = G / g_max",
        LAW,
        "steps of 600 devices that are alike, g = 0 to 0.95; KS and sd of noise at g = 0.3, n = 200,000, "
        "each device of a pair",
        "",
        steps,
    ),
    Row(
        "mismatch of SET pulses",
        ("step_mismatch", "2pcm", "4pcm", "set"),
        "step times 1 + 0.05 N + 0.20 N', the end of the range 1 + 0.10 N, RESET leaves max(0, 0.005 + "
        "0.01 N)",
        DEVICES,
        "KS, n = 200,000 pairs; share of devices at 0 after RESET",
        "",
        mismatch,
    ),
    Row(
        "occasional RESET",
        ("programming_error", "2pcm", "set"),
        "where one of a pair is above 0.75 and the other above 0.25 of g_max, both get RESET, and one is "
        "programmed to the difference, with s(g)",
        "Burr et al., IEDM 2014; thresholds: aihwkit, OneSidedUnitCell; accel/training/set_devices.py",
        "pairs that it is wrong about, of 200,000 anywhere in the range; KS of G+ of those at 0.8 and 0.3",
        "",
        occasional_reset,
    ),
]
