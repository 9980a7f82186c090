"""What RRAM, axon and measured cells do, measured as in `effects_cells`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from effects_measures import (
    Row,
    Statistic,
    block,
    cell_of,
    cell_of_chip,
    clipped_normal,
    deviation,
    exact,
    ks,
    numbers,
    rounding,
    share,
    uniform,
)
from scipy import stats

from pcmc.accel.cells.measured import MeasuredCell
from pcmc.accel.measured_spec import MeasuredCellSpec

DAY = 86_400.0


def rram_programming() -> list[Statistic]:
    cell, u = cell_of("rram"), []
    for g in (1.0, 5.0, 15.0, 35.0):
        sigma = 1.053 + 0.2374 * g - 1.167e-2 * g**2 + 1.536e-4 * g**3
        written = cell.program(block(g - 1), numbers("programming_error", 200 + int(g)))
        u.append(clipped_normal(written.g_plus, g, sigma))
        u.append(clipped_normal(written.g_minus, 1.0, 1.053 + 0.2374 - 1.167e-2 + 1.536e-4))
    return [ks("KS", np.concatenate(u), uniform)]


def cmo_programming() -> list[Statistic]:
    cell, z = cell_of_chip("cmo-hfox"), []
    for g in (15.0, 40.0, 80.0):
        written = cell.program(block(g - 9), numbers("programming_error", 250 + int(g)))
        z.append((written.g_plus.astype(np.float64) - g) / (0.0112185391 + 0.01129027418 * g))
    return [ks("KS", np.concatenate(z))]


def rram_table() -> list[Statistic]:
    table: dict[float, tuple[float, ...]] = {
        1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
        DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
        2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
    }
    table[100.0] = between(table[1.0], table[DAY], math.log(100) / math.log(DAY))
    cell, u = cell_of_chip("neurram-aged"), []
    for t, powers in table.items():
        for g in (5.0, 20.0, 35.0):
            sigma = sum(c * (g / 40) ** k for k, c in enumerate(powers))
            exactly = cell.program(block(g - 1), None)
            then = cell.age(exactly, t, drift=numbers("drift", int(10 * g + t)))
            u.append(clipped_normal(then.g_plus, g, sigma))
    return [ks("KS", np.concatenate(u), uniform)]


def between(first: Sequence[float], last: Sequence[float], late: float) -> tuple[float, ...]:
    """Numbers on the way from one time to the next."""
    return tuple(a + late * (b - a) for a, b in zip(first, last, strict=True))


def rram_relaxation() -> list[Statistic]:
    cell, z = cell_of_chip("cmo-hfox"), []
    times = (1.0, 3600.0, 1e7)
    for g in (25.0, 60.0):
        held, of_time = cell.program(block(g - 9), None), []
        for t in times:
            then = cell.age(held, t, drift=numbers("drift", int(g))).g_plus.astype(np.float64)
            log = math.log(t)
            of_time.append((then - g + 0.08900206 * log) / (0.41183342 + 0.04201137 * log))
        z.append(of_time[-1])
    same = float(np.abs(of_time[0] - of_time[-1]).max())
    erased = cell.age(cell.program(block(0.0), None), 1e7, drift=numbers("drift", 9)).g_plus
    at_end = float(stats.norm.cdf(0.08900206 * math.log(1e7) / (0.41183342 + 0.04201137 * math.log(1e7))))
    # 60 uS is rounded to 2^-19 uS, a few times.
    return [
        ks("KS", np.concatenate(z)),
        Statistic("normal number at two times", same, 8 * 2**-19 / 0.4, True),
        share("share at g_min of an erased device", erased == 9, at_end),
    ]


def rram_noise() -> list[Statistic]:
    cell, z, found, wanted = cell_of_chip("cmo-hfox"), [], [], []
    for t in (1.0, DAY):
        spectrum = math.log((t + 1e-6) / 2e-6)
        for g in (15.0, 60.0):
            held, k = cell.program(block(g - 9), None), 0.0277316483 * math.log10(g)
            then = cell.age(held, t, numbers("read_noise", int(g + t))).g_plus
            z.append((then.astype(np.float64) - g) / (k * math.sqrt(spectrum)))
            erased = 0.0277316483 * math.log10(9)
            for part, ratio in (("slow", (t + 1e-6) / 1e-3), ("fast", 1e-3 / 2e-6)):
                found.append(cell.noise_variance(held, t, part=part)[0, 0])
                wanted.append((k**2 + erased**2) * math.log(ratio))
    return [
        ks("KS", np.concatenate(z)),
        rounding("slow and fast", np.array(found), np.array(wanted), 64),
    ]


def axon() -> list[Statistic]:
    differ, sums = 0.0, 0.0
    for axons in (2, 4, 8):
        cell, most = cell_of("axon", axons=axons), 2 ** (axons - 1) - 1
        target = (np.linspace(-1, 1, 10_001)[None] * most).astype(np.float32)
        level = np.rint(target.astype(np.float64))
        held = cell.weights_us(cell.program(target, None))
        differ += float((held != level).sum())
        kinds = [1, -1] if axons == 2 else [-(2 ** (axons - 1)), *(2**k for k in range(axons - 2, -1, -1))]
        sums += float((cell.bits(level.astype(np.float32)) @ np.array(kinds) != level).sum())
    return [Statistic("levels", differ, 0.0, True), Statistic("sums of bits", sums, 0.0, True)]


def axon_stuck() -> list[Statistic]:
    cell = cell_of("axon", axons=2, stuck_low_fraction=0.02, stuck_high_fraction=0.03)
    held = cell.weights_us(cell.program(block(1.0), None, numbers("stuck")))
    # Bits 1 and 0: the first is lost with 2 %, the second set with 3 %, each by itself.
    return [
        share("share at 1", held == 1, 0.98 * 0.97),
        share("share at 0", held == 0, 0.02 * 0.97 + 0.98 * 0.03),
        share("share at -1", held == -1, 0.02 * 0.03),
    ]


# Cells that a user measured


def measured(**fields: Any) -> Any:
    """A measured cell from 1 to 21 uS."""
    return MeasuredCell(MeasuredCellSpec(kind="measured", g_min_us=1.0, g_max_us=21.0, **fields))


def measured_writing() -> list[Statistic]:
    laws: tuple[tuple[dict[str, Any], Callable[[float], Any]], ...] = (
        ({"programming_error_us": [0.3, 0.02, -0.0005]}, lambda g: 0.3 + 0.02 * g - 0.0005 * g * g),
        (
            {"programming_error_points_us": [[1.0, 0.2], [10.0, 0.8], [21.0, 0.4]]},
            lambda g: np.interp(g, [1.0, 10.0, 21.0], [0.2, 0.8, 0.4]),
        ),
    )
    z = []
    for place, (fields, sigma) in enumerate(laws):
        cell = measured(**fields)
        for g in (6.0, 12.0, 20.0):
            held = cell.program(block(g - 1), numbers("programming_error", 300 + 10 * place + int(g)))
            z.append((held.g_plus.astype(np.float64) - g) / sigma(g))
    return [ks("KS", np.concatenate(z))]


def measured_pulses() -> list[Statistic]:
    u, spreads = [], []
    for law, n in (("linear", 0.5), ("exponential", 0.8)):
        for way, sign in (("up", 1), ("down", -1)):
            fields = {
                "pulse_law": law,
                f"step_{way}_us": 0.4,
                f"nonlinearity_{way}": n,
                f"step_{way}_noise_us": 0.15,
            }
            cell = measured(**fields)
            for w in (5.0, 12.0):
                held = cell.program(block(w), numbers("programming_error", 400 + int(w) + sign))
                error = (
                    (held.g_plus if way == "up" else held.g_minus).astype(np.float64) - 11 - sign * (w - 10)
                )
                z = w / 10 - 1
                step = 0.4 * (1 - n * z if law == "linear" else math.exp(-n * z))
                # U(-1/2, 1/2) step + 0.15 N: the mean of a normal distribution function over the step.
                ends = ((error + side * step / 2) / 0.15 for side in (1, -1))
                upper, lower = (end * stats.norm.cdf(end) + stats.norm.pdf(end) for end in ends)
                u.append((upper - lower) * 0.15 / step)
                spreads.append(error / math.sqrt(step**2 / 12 + 0.15**2))
    return [ks("KS", np.concatenate(u), uniform), deviation("sd", np.concatenate(spreads))]


def measured_time() -> list[Statistic]:
    points = {
        "t0_s": 10.0,
        "drift_mean_points": [[1.0, -0.01], [21.0, 0.05]],
        "drift_deviation_points": [[1.0, 0.002], [21.0, 0.012]],
        "read_noise_points_us": [[1.0, 0.05], [21.0, 0.25]],
    }
    cell, nu, noise = measured(**points), [], []
    for g in (6.0, 11.0, 16.0):
        held, share = cell.program(block(g - 1), None), (g - 1) / 20
        then = cell.age(held, DAY, drift=numbers("drift", int(g))).g_plus.astype(np.float64)
        nu.append((-np.log(then / g) / math.log(DAY / 10) + 0.01 - 0.06 * share) / (0.002 + 0.01 * share))
        read = cell.age(held, DAY, numbers("read_noise", int(g))).g_plus.astype(np.float64)
        noise.append((read - g) / (0.05 + 0.2 * share))
    law = measured(
        read_noise_scale=0.01, read_noise_exponent=-0.5, read_noise_max=0.3, t0_s=10.0, t_read_s=1e-6
    )
    held = law.program(np.array([[0.0, 4.0, 20.0]], np.float32), None)
    at = np.array([[1.0, 5.0, 21.0]])
    sigma = np.square(at * 0.01 * (at / 21) ** -0.5)
    erased = np.square(0.01 * 21**0.5)
    wanted = (sigma + erased) * math.log((DAY + 1e-6) / 2e-6)
    return [
        ks("KS nu", np.concatenate(nu)),
        ks("KS noise", np.concatenate(noise)),
        rounding("1/f variance", law.noise_variance(held, DAY), wanted, 64),
    ]


def measured_levels() -> list[Statistic]:
    levels = np.array([1.0, 2.5, 4.0, 9.0, 15.0, 21.0])
    target = np.linspace(0.0, 20.0, 20_001, dtype=np.float32)[None]
    held = measured(levels_us=levels.tolist()).program(target, None).g_plus[0]
    away = np.abs(1 + target.astype(np.float64).T - levels)
    near = levels[np.argmin(away, axis=1)]
    tie = np.sort(away, axis=1)[:, 1] - away.min(axis=1) < 1e-4
    return [exact("differ", held[~tie], near[~tie])]


ROWS = [
    Row(
        "programming error of RRAM",
        ("programming_error", "rram"),
        "G = max(0, N(g, s(g))), s = 1.053 + 0.2374 g - 1.167e-2 g^2 + 1.536e-4 g^3 uS",
        "Wan et al., Nature 608 (2022), as fitted in CrossSim; accel/cells/rram.py",
        "KS of G > 0 at g = 1, 5, 15, 35 uS and of the erased device, n = 200,000 each",
        "tests/accel/test_cells_kinds.py::test_rram_errs_with_the_published_polynomial",
        rram_programming,
    ),
    Row(
        "programming error of CMO/HfOx",
        ("programming_error", "rram"),
        "N(g, s(g)), s = 0.0112185391 + 0.01129027418 g uS",
        "Falcone et al.; aihwkit inference/noise/reram.py; accel/chips/cmo-hfox.toml",
        "KS at 15, 40, 80 uS, n = 200,000 each",
        "",
        cmo_programming,
    ),
    Row(
        "RRAM in time, by a table",
        ("drift", "rram"),
        "G(t) = max(0, N(g, s_t(x))), s_t of degree 4 in x = g / 40 uS at 1 s, 1 day, 2 days; coefficients "
        "linear in ln t between",
        "Wan et al., Nature 608 (2022); aihwkit inference/noise/reram.py; in between assumed; "
        "accel/cells/rram.py",
        "KS of G > 0 at 5, 20, 35 uS at the three times and at 100 s, n = 200,000 each",
        "",
        rram_table,
    ),
    Row(
        "RRAM in time, relaxation",
        ("drift", "rram"),
        "G(t) = G - 0.08900206 ln t + (0.41183342 + 0.04201137 ln t) z, clipped to [9, 88.2] uS, z a "
        "device's own",
        "Falcone et al.; aihwkit inference/noise/reram.py; one z for all times assumed; accel/cells/rram.py",
        "KS of z at 25, 60 uS, 1e7 s, n = 200,000 each; z at 1 s less that at 1e7 s; share",
        "",
        rram_relaxation,
    ),
    Row(
        "read noise of RRAM",
        ("read_noise", "rram"),
        "sd K log10(G / uS) sqrt(ln((t + t_read) / 2 t_read)), K = 0.0277316483, t_read = 1 us; slow and "
        "fast as for PCM",
        "Falcone et al., Lombardo et al.; aihwkit inference/noise/reram.py; accel/cells/rram.py",
        "KS at 15, 60 uS and 1 s, 1 day, n = 200,000 each; variances of parts",
        "",
        rram_noise,
    ),
    Row(
        "axon cells",
        ("axon",),
        "W = sum over axon types of bit x S, S = 1, -1 or two's complement, of the nearest whole number",
        "Merolla et al., CICC 2011, Science 2014; Esser et al. 2016; accel/cells/axon.py",
        "levels and sums of bits that differ, of 10,001, 2, 4 and 8 axons",
        "",
        axon,
    ),
    Row(
        "stuck bits of axon cells",
        ("stuck", "axon"),
        "each bit by itself is 0 with p_low and 1 with p_high",
        "chip file; accel/cells/axon.py",
        "shares of weights 1, 0, -1 at a target of 1, n = 200,000",
        "",
        axon_stuck,
    ),
    Row(
        "measured cells, closed-loop writing",
        ("programming_error", "measured"),
        "N(g, s(g)), s a polynomial in g or straight lines between points",
        "the user's; accel/cells/measured.py",
        "KS at 6, 12, 20 uS, both laws, n = 200,000 each",
        "tests/accel/test_measured.py::test_closed_loop_errors_are_gaussian_with_the_files_deviation",
        measured_writing,
    ),
    Row(
        "measured cells, writing by pulses",
        ("programming_error", "measured"),
        "g + U(-1/2, 1/2) s(g) + c N(0, 1), s = step (1 - n z) or step exp(-n z), z from -1 to 1 over the "
        "range",
        "the user's; accel/cells/measured.py",
        "KS and sd at 6 and 13 uS, both laws, up and down, n = 200,000 each",
        "tests/accel/test_measured.py::test_a_write_by_pulses_misses_by_half_a_step_and_the_noise_of_one",
        measured_pulses,
    ),
    Row(
        "measured cells, drift and read noise",
        ("drift", "read_noise", "measured"),
        "(t / t0)^-nu, nu normal, and read noise, by straight lines between points; or noise G a x^b, 1/f",
        "the user's; accel/cells/measured.py",
        "KS of nu and of noise at 6, 11, 16 uS after 1 day, n = 200,000 each; variance of 1/f at three",
        "tests/accel/test_measured.py::test_drift_of_a_table_has_the_mean_and_deviation_of_its_points",
        measured_time,
    ),
    Row(
        "measured cells, levels",
        ("measured",),
        "the level nearest to the target",
        "the user's; accel/cells/measured.py",
        "devices that differ, of 20,001",
        "tests/accel/test_measured.py::test_a_weight_goes_to_the_nearest_level",
        measured_levels,
    ),
]
