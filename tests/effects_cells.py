"""What cells do, measured: programming, noise, drift, leak. Formulas are written here as they were published.

Nothing here is taken from the code that is measured: constants of laws are typed once more.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from effects_measures import (
    Array,
    Row,
    Statistic,
    block,
    cell_of,
    cell_of_chip,
    clipped_normal,
    deviation,
    exact,
    ks,
    mean,
    numbers,
    product,
    rounding,
    share,
    uniform,
)
from scipy import integrate, stats

from pcmc.accel.cells import Devices

PCM = "Nandakumar et al. 2019/2020; aihwkit inference/noise/pcm.py; accel/cells/pcm.py"
HERMES = "aihwkit inference/noise/hermes.py; accel/chips/hermes64.toml"
DAY, YEAR = 86_400.0, 31_557_600.0
RESET = 0.26348  # uS, sigma of a device at a target of 0
RESET_MEAN = RESET / math.sqrt(2 * math.pi)
RESET_VARIANCE = RESET**2 * (0.5 - 0.5 / math.pi)


def sigma_prog(g: Array | float) -> Array:
    x = np.asarray(g, np.float64) / 25
    return np.asarray(0.26348 + 1.9650 * x - 1.1731 * x * x)


def sigma_read(g: Array | float, t: float) -> Array:
    x = np.asarray(g, np.float64) / 25
    q = np.minimum(0.0088 * x**-0.65, 0.2)
    return np.asarray(25 * x * q * math.sqrt(math.log((t + 250e-9) / (2 * 250e-9))))


def nu_law(g: float) -> tuple[float, float]:
    log_x = math.log(g / 25)
    return float(np.clip(-0.0155 * log_x + 0.0244, 0.049, 0.1)), float(
        np.clip(-0.0125 * log_x - 0.0059, 0.008, 0.045)
    )


def folded(nu: Array, mu: float, sd: float) -> Array:
    """The distribution function of |N(mu, sd)|."""
    return np.asarray(stats.foldnorm.cdf(nu, mu / sd, scale=sd))


def exactly(kind: str, g: float, rows: int = 200, cols: int = 500) -> tuple[Any, Devices]:
    """A cell, and a block of it whose G+ (of the high pair) was programmed to `g` uS without error."""
    cell = cell_of(kind)
    significance = cell.spec.significance
    w = 2 * significance * (g - 10) if kind == "1pcm" else significance * g
    return cell, cell.program(block(w, rows, cols), None)


def plus(devices: Devices) -> Array:
    """G+, of the high pair if there are two."""
    g = devices.g_plus.astype(np.float64)
    return g[..., 0] if g.ndim == 3 else g


# Programming


def programming_error() -> list[Statistic]:
    u, zeros = [], []
    for kind, place in (("2pcm+3t1c", 1), ("2pcm", 2)):
        cell = cell_of(kind)
        for g in (1.0, 5.0, 10.0, 20.0):
            target = block(g * cell.full_us / 20)
            held = cell.program(target, numbers("programming_error", 10 * place + int(g)))
            u.append(clipped_normal(held.g_plus, g, sigma_prog(g)))
            if g == 1.0:
                zeros.append(held.g_plus.ravel() == 0)
    zero = float(stats.norm.cdf(-1.0 / sigma_prog(1.0)))
    return [ks("KS", np.concatenate(u), uniform), share("share at 0", np.concatenate(zeros), zero)]


def reset() -> list[Statistic]:
    g = cell_of("2pcm").program(block(10.0), numbers("programming_error", 3)).g_minus.ravel()
    return [
        ks("KS", clipped_normal(g, 0.0, RESET), uniform),
        share("share at 0", g == 0, 0.5),
        mean("mean", g, RESET_MEAN, math.sqrt(RESET_VARIANCE)),
    ]


def hermes_programming() -> list[Statistic]:
    cell, u = cell_of_chip("hermes64"), []
    for g in (2.0, 10.0, 20.0):
        x = g / 20.7
        sigma = 0.16603222 + 4.71806468 * x - 8.48101252 * x**2 + 4.68961419 * x**3
        held = cell.program(block(g), numbers("programming_error", 30 + int(g)))
        u.append(clipped_normal(held.g_plus, g, sigma))
    return [ks("KS", np.concatenate(u), uniform)]


def averaged() -> list[Statistic]:
    cell = cell_of("2pcm", pairs=4)
    w = cell.weights_us(cell.program(block(10.0), numbers("programming_error", 4))).ravel() - 10.0
    sigma = math.sqrt((float(sigma_prog(10.0)) ** 2 + RESET_VARIANCE) / 4)
    return [mean("mean", w, -RESET_MEAN, sigma), deviation("sd", (w + RESET_MEAN) / sigma)]


def four() -> list[Statistic]:
    found = []
    for significance in (1.0, 3.0):
        cell = cell_of("4pcm", significance=significance)
        target = block(10.0 * significance)
        held = cell.program(target, numbers("programming_error", 50 + int(significance)))
        high = held.g_plus[..., 0].astype(np.float64) - held.g_minus[..., 0]
        missed = np.clip(target - significance * high, -20, 20)
        for g, low in ((held.g_plus, missed.clip(0)), (held.g_minus, (-missed).clip(0))):
            found.append(clipped_normal(g[..., 1], low, sigma_prog(low)))
            found.append(clipped_normal(g[..., 0], 0.0, RESET) if g is held.g_minus else np.empty(0))
    return [ks("KS", np.concatenate(found), uniform)]


def slices() -> list[Statistic]:
    cell = cell_of("2pcm", slices=4, slice_bits=2)
    target = np.linspace(-20, 20, 8001, dtype=np.float32)[None]
    level = np.rint(np.abs(target.astype(np.float64)) / 20 * 255)
    written = cell.weights_us(cell.program(target, None))
    gains, digits = np.array([192, 48, 12, 3]) / 255, np.array([3, 1, 2, 1])  # 217 = 3 1 2 1 in base 4
    one = block(217 / 255 * 20)
    held = cell.weights_us(cell.program(one, numbers("programming_error", 6)))
    error = held.astype(np.float64) - 217 / 255 * 20 + gains.sum() * RESET_MEAN
    sigma = math.sqrt(float(gains**2 @ (sigma_prog(digits * 20 / 3) ** 2 + RESET_VARIANCE)))
    return [
        rounding("levels", written, np.sign(target) * level * 20 / 255, 8),
        deviation("sd", error / sigma),
    ]


def reference_device() -> list[Statistic]:
    cell = cell_of("1pcm")
    held = cell.program(block(0.0, 100_000, 2), numbers("programming_error", 7))
    w = cell.weights_us(held).astype(np.float64)
    sigma = 2 * math.sqrt(2) * float(sigma_prog(10.0))
    return [
        ks("KS", w[:, 0] / sigma, stats.norm.cdf),
        product("correlation of two columns", w[:, 0] / sigma, w[:, 1] / sigma, 0.5),
    ]


def capacitor() -> list[Statistic]:
    cell, step = cell_of("3t1c"), 16 / 400
    held = cell.weights_us(cell.program(block(2.0), numbers("programming_error", 8)))
    return [ks("KS", (held.astype(np.float64) - 2.0) / step + 0.5, uniform)]


def low_tier() -> list[Statistic]:
    cell, step = cell_of_chip("nature2018"), 16 / 400
    target = block(30.0)
    pairs = cell.program(target, numbers("programming_error", 9))
    tuned = cell.tune_low(pairs, target, numbers("low_tier", 9))
    error = cell.weights_us(tuned).astype(np.float64) - 30.0
    missed = 30.0 - 3 * (pairs.g_plus.astype(np.float64) - pairs.g_minus)
    inside = (missed > -4 + step) & (missed < 12 - step)
    ends = tuned.low[(missed < -4 - step) | (missed > 12 + step)]
    wanted = np.where(missed < 0, -4, 12)[(missed < -4 - step) | (missed > 12 + step)]
    return [ks("KS", error[inside] / step + 0.5, uniform), exact("at the ends", ends, wanted)]


def levels() -> list[Statistic]:
    target = np.linspace(-1, 1, 100_001)[None]
    found = []
    for kind, bits in (("sram", 8), ("levels", 16)):
        cell, most = cell_of(kind), 2 ** (bits - 1) - 1
        scaled = (target * most).astype(np.float32)
        held = cell.weights_us(cell.program(scaled, numbers("programming_error")))
        found.append(exact(f"{bits} bits", held, np.rint(scaled.astype(np.float64))))
    return found


def ideal() -> list[Statistic]:
    w = np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)
    cell = cell_of("ideal")
    held = cell.age(cell.program(w, numbers("programming_error")), None, numbers("noise"), numbers("drift"))
    return [exact("differ", cell.weights_us(held), w)]


STUCK = {"stuck_low_fraction": 0.02, "stuck_high_fraction": 0.03}


def stuck() -> list[Statistic]:
    found, same = [], 0.0
    ends = dict.fromkeys(("2pcm", "2pcm+3t1c", "4pcm", "1pcm"), (0, 20))
    ends |= {"rram": (1, 39), "3t1c": (-8, 8), "sram": (-127, 127), "levels": (-32767, 32767)}
    low, high = np.empty(0, bool), np.empty(0, bool)
    for place, (kind, (bottom, top)) in enumerate(ends.items()):
        cell = cell_of(kind, **STUCK)
        target = block(0.4 * cell.full_us)
        first, again = (cell.program(target, None, numbers("stuck", place)) for _ in range(2))
        low = np.append(low, plus(first) == bottom)
        high = np.append(high, plus(first) == top)
        same += float((first.g_plus != again.g_plus).sum())
    found += [share("share low", low, 0.02), share("share high", high, 0.03)]
    return [*found, Statistic("another time elsewhere", same, 0.0, True)]


# Read noise of PCM


def read_noise() -> list[Statistic]:
    u = []
    for place, t in enumerate((20.0, 3600.0, YEAR)):
        for kind, g in (("2pcm", 0.2), ("1pcm", 1.0), ("4pcm", 5.0), ("2pcm+3t1c", 20.0)):
            cell, held = exactly(kind, g)
            then = cell.age(held, t, numbers("read_noise", 100 * place + int(5 * g)))
            u.append(clipped_normal(plus(then), g, sigma_read(g, t)))
    return [ks("KS", np.concatenate(u), uniform)]


def hermes_noise() -> list[Statistic]:
    cell, found, wanted = cell_of_chip("hermes64"), [], []
    for t in (300.0, DAY, YEAR):
        spectrum = math.log((t + 512e-9) / (2 * 512e-9))
        for g in (0.1, 1.0, 3.0, 3.4, 10.0, 20.0):
            x = g / 20.7
            q = min(max(-0.0117 * math.log(x) - 0.0069, 0.015), 0.04)
            q = q if x < 0.16 else 0.0123 + 0.0211 * x - 0.0280 * x**2 + 0.0069 * x**3
            held = cell.program(block(g, 1, 1), None)
            found.append(cell.noise_variance(held, t)[0, 0] / (g * q) ** 2 / spectrum)
            wanted.append(1.0)
    return [rounding("variance", np.array(found), np.array(wanted), 64)]


def parts() -> list[Statistic]:
    cell, found, wanted, drifted = cell_of("2pcm"), [], [], []
    held = cell.program(np.array([[0.3, 1.0, 5.0, 20.0]], np.float32), None)
    g = held.g_plus.astype(np.float64)
    for t in (20.0, DAY, YEAR):
        unit = np.square(sigma_read(g, t)) / math.log((t + 250e-9) / 500e-9)
        ends = {"all": (t + 250e-9, 500e-9), "slow": (t + 250e-9, 1e-3), "fast": (1e-3, 500e-9)}
        for part, (longest, shortest) in ends.items():
            found.append(cell.noise_variance(held, t, part=part) / unit)
            wanted.append(np.full_like(unit, math.log(longest / shortest)))
        then = cell.age(held, t, drift=numbers("drift", 1)).g_plus / g
        noisy = cell.noise_variance(held, t, numbers("drift", 1)) / unit / np.square(then)
        drifted.append(noisy / math.log((t + 250e-9) / 500e-9) - 1)
    off = float(np.abs(np.array(drifted)).max())
    return [
        rounding("variances", np.array(found), np.array(wanted), 64),
        Statistic("on G(t)", off, 64 * 2**-24, True),
    ]


# Time


def drift() -> list[Statistic]:
    u = []
    times = (25.0, 3600.0, YEAR)
    for kind, g in (("2pcm", 0.5), ("1pcm", 2.0), ("4pcm", 5.0), ("2pcm+3t1c", 20.0)):
        cell, held = exactly(kind, g)
        place, nu = int(10 * g), []
        for t in times:
            then = plus(cell.age(held, t, drift=numbers("drift", place)))
            nu.append(-np.log(then / plus(held)) / math.log(t / 20))
        u.append(folded(nu[-1], *nu_law(g)))
    same = float(np.abs(nu[1] - nu[2]).max())
    # nu at 1 h comes from a ratio that is rounded four times, over ln(180) = 5.2
    return [
        ks("KS", np.concatenate(u), uniform),
        Statistic("nu at two times", same, 8 * 2**-24 / math.log(180), True),
    ]


def mean_drift() -> list[Statistic]:
    cell, sampled, closed = cell_of("2pcm"), [], []
    for g in (2.0, 10.0, 20.0):
        mu, sd = nu_law(g)
        held = cell.program(block(g, 200, 500), None)
        for t in (25.0, 3600.0, DAY, YEAR):

            def fallen(nu: float, power: int, t: float = t, mu: float = mu, sd: float = sd) -> float:
                density = float(stats.foldnorm.pdf(nu, mu / sd, scale=sd))
                return math.pow(t / 20, -power * nu) * density

            m, square = (
                integrate.quad(fallen, 0, mu + 12 * sd, (power,), points=[mu])[0] for power in (1, 2)
            )
            factor = cell.age(held, t, drift=numbers("drift", int(g) + int(t))).g_plus / np.float64(g)
            sampled.append((factor - m) / math.sqrt(square - m * m))
            closed.append(cell.mean_drift(t, g) / m - 1)
    worst = max((mean("", values) for values in sampled), key=lambda one: one.deviation)
    return [
        replace(worst, name="mean, the worst of 12"),
        Statistic("closed form", float(np.abs(closed).max()), 16 * 2**-24, True),
    ]


def hermes_drift() -> list[Statistic]:
    cell, u = cell_of_chip("hermes64"), []
    for g in (0.3, 1.5, 5.0, 10.0, 20.0):
        x = g / 20.7
        mu = float(np.clip(-0.0387 * math.log(x) - 0.0182, 0.0720, 0.13))
        sd = float(np.clip(-0.0117 * math.log(x) - 0.0057, 0.0091, 0.04))
        mu = mu if x < 0.0945 else 0.0736 - 0.0126 * x - 0.0436 * x**2
        sd = sd if x < 0.3055 else 0.0073 + 0.0093 * x - 0.0118 * x**2
        held = cell.program(block(g, 200, 500), None)
        then = cell.age(held, YEAR, drift=numbers("drift", 60 + int(10 * g))).g_plus / np.float64(
            np.float32(g)
        )
        u.append(folded(-np.log(then) / math.log(YEAR / 300), mu, sd))
    return [ks("KS", np.concatenate(u), uniform)]


def leak() -> list[Statistic]:
    times = (0.0, 1e-4, 2e-3, 2e-2)
    capacitor, tiers = cell_of("3t1c"), cell_of_chip("nature2018")
    held = capacitor.program(block(7.0, 1, 50), numbers("programming_error"))
    target = block(30.0, 1, 50)
    tuned = tiers.tune_low(tiers.program(target, numbers("programming_error", 1)), target, None)
    found, wanted = [], []
    for t in times:
        fallen = math.exp(-t / 5.16e-3)
        found += [capacitor.age(held, t, drift=numbers("drift")).g_plus]
        found += [tiers.age(tuned, t, drift=numbers("drift")).low]
        wanted += [held.g_plus.astype(np.float64) * fallen, tuned.low.astype(np.float64) * fallen]
    return [rounding("values", np.array(found), np.array(wanted), 2)]


def temperature() -> list[Statistic]:
    kelvin, ev = 8.617333262e-5, {"activation_reset_ev": 0.25, "activation_set_ev": 0.05}
    found, wanted = [], []
    held = cell_of("2pcm").program(np.array([[0.5, 5.0, 12.5, 20.0]], np.float32), None)
    g = held.g_plus.astype(np.float64)
    for t_k in (250.0, 300.0, 350.0):
        cell = cell_of("2pcm", temperature_k=t_k, **ev)
        cold = cell_of("2pcm").age(held, 3600.0, drift=numbers("drift")).g_plus
        found.append(cell.age(held, 3600.0, drift=numbers("drift")).g_plus / cold)
        barrier = 0.25 + (0.05 - 0.25) * g / 25
        wanted.append(np.exp(-barrier / kelvin * (1 / t_k - 1 / 300)))
        slow = cell_of("3t1c", leak_ev=0.4, temperature_k=t_k)
        left = slow.age(slow.program(block(7.0, 1, 4), None), 1e-3, drift=numbers("drift")).g_plus / 7
        tau = 5.16e-3 * math.exp(0.4 / kelvin * (1 / t_k - 1 / 300))
        found.append(left)
        wanted.append(np.full((1, 4), math.exp(-1e-3 / tau)))
    return [rounding("factors", np.array(found), np.array(wanted), 32)]


ROWS = [
    Row(
        "programming error of PCM",
        ("programming_error", "2pcm", "2pcm+3t1c"),
        "G = max(0, N(g, s(g))), s = 0.26348 + 1.9650 x - 1.1731 x^2 uS, x = g / 25 uS",
        PCM,
        "KS of G > 0 at g = 1, 5, 10, 20 uS, two kinds, n = 200,000 each; share at 0 of g = 1 uS, n = "
        "400,000",
        "tests/accel/test_cells.py::test_programming_error_is_gaussian_with_the_published_deviation",
        programming_error,
    ),
    Row(
        "error of a device that stays at RESET",
        ("programming_error", "2pcm"),
        "G = max(0, N(0, s0)), s0 = 0.26348 uS: half of them at 0, mean s0 / sqrt(2 pi)",
        PCM,
        "KS of G > 0, share at 0, mean in standard deviations, n = 200,000",
        "tests/accel/test_cells.py::test_device_at_reset_errs_with_the_mean_that_its_docstring_states",
        reset,
    ),
    Row(
        "programming error of HERMES's devices",
        ("programming_error", "2pcm"),
        "s = 0.16603 + 4.71806 x - 8.48101 x^2 + 4.68961 x^3 uS, x = g / 20.7 uS",
        HERMES,
        "KS of G > 0 at g = 2, 10, 20 uS, n = 200,000 each",
        "",
        hermes_programming,
    ),
    Row(
        "several pairs",
        ("programming_error", "2pcm"),
        "var W = F^2 (s(g)^2 + var RESET) / N; the mean, -F s0 / sqrt(2 pi), stays",
        "independent errors of N pairs; accel/cells/pcm_pair.py",
        "mean and sd of W at 10 uS, N = 4, n = 200,000",
        "tests/accel/test_cells_kinds.py::test_error_and_noise_of_a_weight_fall_with_the_root_of_the_number_of_pairs",
        averaged,
    ),
    Row(
        "programming error of 4pcm",
        ("programming_error", "4pcm"),
        "g+ - g- aims at W - F (G+ - G-) as written, each device with s(its target)",
        "Ambrogio et al., Nature 620 (2023); order assumed; accel/cells/four_pcm.py",
        "KS of low devices > 0 about what the high pair missed, and of high ones at RESET, F = 1 and 3, n "
        "= 200,000 cells each",
        "tests/accel/test_cells_kinds.py::test_the_low_pair_leaves_the_error_that_its_own_small_target_has",
        four,
    ),
    Row(
        "bit slices",
        ("programming_error", "2pcm"),
        "|W| = m F g_max / (B^N - 1), m whole; error sum_k gain_k^2 (s(d_k)^2 + var RESET), gain_k = (B - "
        "1) B^(N-1-k) / (B^N - 1)",
        "after Shafiee et al., ISCA 2016; accel/cells/sliced.py",
        "values of 8,001 exact targets, N = 4, B = 4; sd of W at m = 217, n = 200,000",
        "tests/accel/test_cells_kinds.py::test_the_error_of_a_sliced_weight_is_that_of_its_digits_each_times_its_gain",
        slices,
    ),
    Row(
        "shared reference device",
        ("programming_error", "1pcm"),
        "W = 2 F (G - G_ref), one G_ref a row: at W = 0 sd 2 F sqrt(2) s(g_max / 2), columns correlated by "
        "1/2",
        "two independent devices; accel/cells/reference_pcm.py",
        "KS, correlation of two columns, n = 100,000 rows",
        "tests/accel/test_cells_kinds.py::test_what_a_reference_errs_by_comes_into_all_columns_alike",
        reference_device,
    ),
    Row(
        "programming error of a capacitor",
        ("programming_error", "3t1c"),
        "g - g_ref = target + U(-1/2, 1/2) (20 - 4) uS / 400",
        "range: NeuroSim; 400 steps: aihwkit; accel/cells/capacitor.py",
        "KS, n = 200,000",
        "tests/accel/test_cells_kinds.py::test_a_capacitor_misses_its_target_by_up_to_half_a_step",
        capacitor,
    ),
    Row(
        "both tiers right after programming",
        ("programming_error", "2pcm+3t1c"),
        "W = target + U(-1/2, 1/2) step where the pair missed by less than the low tier's range, else its "
        "end",
        "Ambrogio et al., Nature 558 (2018), Extended Data Fig. 9; accel/cells/two_tier.py",
        "KS of the first at 30 of 60 uS, n = 200,000 cells; how many of the others are elsewhere",
        "tests/accel/test_two_tier.py::test_the_error_of_a_weight_is_uniform_over_one_step",
        low_tier,
    ),
    Row(
        "levels",
        ("sram", "levels"),
        "W = k w_max / L, k the nearest whole number, L = 2^(bits - 1) - 1",
        "as ISAAC and PUMA assume; accel/cells/levels.py",
        "values that differ, of 100,001, 8 and 16 bits",
        "tests/accel/test_cells_kinds.py::test_levels_are_the_nearest_of_an_odd_number_of_equal_steps_and_exact",
        levels,
    ),
    Row(
        "ideal cells",
        ("ideal",),
        "W is the weight, whatever is on",
        "definition; accel/cells/ideal.py",
        "values that differ, of 10,000",
        "tests/accel/test_cells.py::test_an_ideal_cell_holds_any_weight_exactly_without_copying_it",
        ideal,
    ),
    Row(
        "stuck devices",
        ("stuck", "2pcm", "2pcm+3t1c", "4pcm", "1pcm", "rram", "3t1c", "sram", "levels"),
        "a share p_low of devices at the lowest, p_high at the highest level, the same ones each time",
        "chip file; accel/cells/cell.py, make_stuck",
        "shares at p_low = 0.02, p_high = 0.03, eight kinds, n = 200,000 each; devices that change",
        "tests/accel/test_cells_kinds.py::test_as_many_devices_are_stuck_at_each_level_as_the_file_says",
        stuck,
    ),
    Row(
        "read noise of PCM, frozen",
        ("read_noise", "2pcm", "2pcm+3t1c", "4pcm", "1pcm"),
        "G' = max(0, N(G, G Q sqrt(ln((t + t_read) / 2 t_read)))), Q = min(0.0088 x^-0.65, 0.2)",
        PCM,
        "KS of G' > 0 at 0.2, 1, 5, 20 uS, a kind each, and 20 s, 1 h, 1 year, n = 100,000 each",
        "tests/accel/test_cells.py::test_read_noise_is_gaussian_with_the_published_deviation",
        read_noise,
    ),
    Row(
        "read noise of HERMES's devices",
        ("read_noise", "2pcm"),
        "Q = clip(-0.0117 ln x - 0.0069, 0.015, 0.04), from x = 0.16 on 0.0123 + 0.0211 x - 0.0280 x^2 + "
        "0.0069 x^3",
        HERMES,
        "variance at six conductances and three times",
        "tests/accel/test_cells_time.py::test_a_law_of_two_branches_is_a_clipped_logarithm_and_a_polynomial_above",
        hermes_noise,
    ),
    Row(
        "slow and fast parts of read noise",
        ("read_noise", "2pcm"),
        "1/f power: slow (G(t) Q)^2 ln((t + t_read) / split), fast (G(t) Q)^2 ln(split / 2 t_read), "
        "together all",
        "integral of 1/f; split = 1 ms assumed; accel/cells/pcm.py",
        "variances of four conductances at 20 s, 1 day, 1 year; ratio to G(t)^2 with drift",
        "tests/accel/test_cells_time.py::test_the_shares_of_slow_and_fast_noise_are_the_integrals_of_one_over_f",
        parts,
    ),
    Row(
        "drift of PCM",
        ("drift", "2pcm", "2pcm+3t1c", "4pcm", "1pcm"),
        "G(t) = G (t / 20 s)^-nu, nu = |N(mu, sd)|, mu = clip(-0.0155 ln x + 0.0244, 0.049, 0.1), sd = "
        "clip(-0.0125 ln x - 0.0059, 0.008, 0.045)",
        PCM,
        "KS of nu at 0.5, 2, 5, 20 uS, a kind each, after 1 year, n = 100,000 each; nu of a device at 1 h "
        "less that at 1 year",
        "tests/accel/test_cells_time.py::test_drift_exponents_are_folded_normal_numbers_with_the_published_mean_and_deviation",
        drift,
    ),
    Row(
        "mean drift",
        ("drift", "2pcm"),
        "E (t / t0)^-nu over |N(mu, sd)|, L = ln(t / t0): exp(L^2 sd^2 / 2) (exp(-L mu) Phi(mu / sd - L "
        "sd) + exp(L mu) Phi(-mu / sd - L sd))",
        "integral of the law of nu, here by quadrature; accel/cells/pcm.py",
        "mean of n = 100,000 at 2, 10, 20 uS and 25 s, 1 h, 1 day, 1 year, in standard deviations; closed "
        "form, relative",
        "tests/accel/test_cells_time.py::test_mean_drift_is_the_integral_over_the_law_of_nu",
        mean_drift,
    ),
    Row(
        "drift of HERMES's devices",
        ("drift", "2pcm"),
        "mu = clip(-0.0387 ln x - 0.0182, 0.072, 0.13), from x = 0.0945 on 0.0736 - 0.0126 x - 0.0436 x^2; "
        "sd = clip(-0.0117 ln x - 0.0057, 0.0091, 0.04), from x = 0.3055 on 0.0073 + 0.0093 x - 0.0118 x^2",
        HERMES,
        "KS of nu at 0.3, 1.5, 5, 10, 20 uS, n = 100,000 each",
        "tests/accel/test_cells_time.py::test_a_law_of_two_branches_is_a_clipped_logarithm_and_a_polynomial_above",
        hermes_drift,
    ),
    Row(
        "leak of capacitors",
        ("drift", "3t1c", "2pcm+3t1c"),
        "(g - g_ref)(t) = (g - g_ref)(0) exp(-t / 5.16 ms)",
        "Ambrogio et al., Nature 558 (2018), Extended Data Fig. 1; accel/cells/capacitor.py",
        "values of 100 devices at 0, 0.1, 2, 20 ms",
        "tests/accel/test_cells_kinds.py::test_a_capacitor_leaks_towards_its_reference_with_its_time_constant",
        leak,
    ),
    Row(
        "temperature",
        ("drift", "2pcm", "3t1c"),
        "exp(-(Ea / k) (1 / T - 1 / 300 K)): times G, Ea from RESET's to SET's linear in x; over tau of a "
        "leak",
        "Arrhenius, after Khan et al.; linear in x assumed; accel/cells/pcm.py, accel/cell_specs.py",
        "factors of four conductances and of a leak at 250, 300, 350 K",
        "",
        temperature,
    ),
]
