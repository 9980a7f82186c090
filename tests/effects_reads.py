"""What reads do, measured through `Session`: converters, drivers, wires, scales, the digital unit.

Results are held against plain numpy on what the devices hold; nothing of the read-out is called.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import builders
import nodal
import numpy as np
from effects_measures import (
    ROUNDING,
    SEED,
    UNIT,
    Array,
    Row,
    Statistic,
    chip,
    chip_of,
    compiled,
    deviation,
    exact,
    held,
    in_codes,
    inputs,
    ks,
    outputs,
    rounding,
    session,
    tiles,
    uniform,
    weights,
)
from onnx import numpy_helper

import pcmc
from pcmc.accel.wires import Wires, backward_matrix, pair_matrix, solve_active, transfer_matrix

BOLTZMANN = 1.380649e-23


# Converters and drivers


def dac() -> list[Statistic]:
    w, x = weights(60, 80), inputs(200, 60) * np.logspace(-3, 3, 200, dtype=np.float32)[:, None]
    scale = np.abs(x.astype(np.float64)).max(axis=1, keepdims=True)
    found = outputs(session(w, chip(60, 80, dac={"bits": 7}), "dac"), x) / scale
    vector = rounding("range of a vector", found, in_codes(x, 63) / 63 @ w, 60)
    fixed = {"bits": 7, "range": "fixed", "full": 0.6}
    x = inputs(200, 60)
    codes = np.clip(np.rint(x.astype(np.float64) / 0.6 * 63), -63, 63)
    return [
        vector,
        rounding(
            "fixed range",
            outputs(session(w, chip(60, 80, dac=fixed), "dac"), x),
            codes * 0.6 / 63 @ w,
            60,
        ),
    ]


def bounded(of_bound: Array, operations: float) -> Statistic:
    """The largest of values in parts of their bound, which is 1 but for rounding."""
    return Statistic("error over its bound", float(np.max(of_bound)), 1 + operations * ROUNDING)


def adc() -> list[Statistic]:
    w, x = weights(60, 80), inputs(2000, 60)
    sums = x.astype(np.float64) @ w
    one = session(w, chip(60, 80, adc={"bits": 8, "range_cells": 30.0}), "adc")
    step = (outputs(one, x) - sums) / (30.0 / 127)
    narrow = session(w, chip(60, 80, adc={"bits": 8, "range_cells": 4.0}), "adc")
    lsb = 4.0 / 127
    y = outputs(narrow, x) / lsb
    sure = np.abs(np.abs(sums / lsb) - 127.5) > 2e-4
    clipped = np.abs(sums / lsb) > 127.5
    return [
        ks("KS of the error in LSB", step + 0.5, uniform),
        bounded(np.abs(step) / 0.5, 2 * 127 * 60),
        exact("not at the end where clipped", np.abs(np.rint(y[clipped & sure])), 127),
        Statistic(
            "conversions clipped, counted wrongly",
            abs(narrow.saturation["w"].clipped - int(clipped.sum())),
            float((~sure).sum()),
            False,
        ),
    ]


def adc_ranges() -> list[Statistic]:
    w, x = weights(60, 80), inputs(500, 60)
    sums = np.abs(x.astype(np.float64) @ w)
    found = []
    for what, percentile in (("bank", 100.0), ("column", 100.0), ("column", 99.0)):
        adc = {"bits": 8, "range": what, "percentile": percentile}
        program = compiled(w, chip(60, 80, adc=adc))
        calibrated = pcmc.calibrate(program, {"x": x}, physics="adc", what="adc", seed=SEED, threads=1)
        (bank,) = calibrated.banks.values()
        assert bank.adc_full is not None
        largest = sums.max(axis=0) if what == "column" else np.full(80, sums.max())
        if percentile == 100:
            found.append(rounding(f"{what}, 100", bank.adc_full, largest, 60))
        else:
            beyond = (sums > bank.adc_full * (1 + 1e-6)).mean(axis=0)
            found.append(
                Statistic("share beyond a column's 99", max(float(beyond.max()) - 0.01, 0.0), 0.0, False)
            )
            # The upper edge of a bin of 1/512 of the largest.
            tight = np.quantile(sums, 0.99, axis=0, method="inverted_cdf")
            wide = float(((bank.adc_full - tight) / largest).max())
            found.append(Statistic("too wide, of the largest", wide, 1 / 512 + 60 * ROUNDING))
    return found


def drivers() -> list[Statistic]:
    w, x = weights(60, 80), inputs(200, 60)
    wanted, found = in_codes(x, 31) / 31 @ w, []
    ways: list[dict[str, Any]] = [{"input": "pulse"}, {"signed": False}, {"input": "pulse", "signed": False}]
    ways += [
        {"input": "bits", "slice_bits": bits, "signed": sign} for bits in (1, 2, 5) for sign in (True, False)
    ]
    for way in ways:
        for sample in ("slice", "sum"):
            spec = chip(60, 80, dac={"bits": 6} | way, adc={"sample": sample})
            found.append(outputs(session(w, spec, "dac"), x))
    # Bits that are converted each: half an LSB for each, times what it counts.
    fine = {"bits": 14, "range_cells": 60.0}
    bits = outputs(session(w, chip(60, 80, dac={"bits": 6, "input": "bits"}, adc=fine), "dac,adc"), x)
    lsb = 60.0 / 8191
    bound = 0.5 * lsb * sum(2.0**k / 31 for k in range(5))
    return [
        rounding("results", np.array(found), np.array([wanted] * len(found)), 5 * 60),
        bounded(np.abs(bits - wanted) / bound, 2 * 8191 * 60),
    ]


def nonlinearity() -> list[Statistic]:
    w, x = weights(60, 80), inputs(200, 60)
    u = x.astype(np.float64)
    found = []
    for cubic, loss in ((0.2, 0.0), (0.0, 0.1), (0.3, 0.05)):
        spec = chip(60, 80, {"current_cubic": cubic, "polarity_loss": loss})
        bent = u * (1 + cubic * u * u) * np.where(u < 0, 1 - loss, 1)
        found.append(
            rounding(f"a {cubic}, loss {loss}", outputs(session(w, spec, "nonlinearity"), x), bent @ w, 60)
        )
    # Pulses are all of one height.
    pulse = chip(60, 80, {"current_cubic": 0.3, "polarity_loss": 0.05}, dac={"input": "pulse"})
    bent = u * np.where(u < 0, 0.95, 1)
    return [*found, rounding("pulses", outputs(session(w, pulse, "nonlinearity"), x), bent @ w, 60)]


def mismatch() -> list[Statistic]:
    w, x = weights(20, 60_000), inputs(1, 20)
    errors = {"bits": 16, "range_cells": 40.0, "offset_lsb": 400.0, "gain_error": 0.05}
    one = session(w, chip(20, 60_000, adc=errors), "adc,mismatch")
    plus, minus, again = (outputs(one, sign * x)[0] for sign in (1, -1, 1))
    lsb = 40.0 / 32767
    offset = (plus + minus) / 2 / lsb / 400
    sums = x[0].astype(np.float64) @ w
    large = np.abs(sums) > 1
    gain = ((plus - minus) / 2 / np.where(large, sums, 1) - 1)[large] / 0.05
    corrected = session(w, chip(20, 60_000, adc=errors | {"corrected": True}), "adc,mismatch")
    # Half of a step, and a step is the larger the smaller the gain.
    left = np.abs(outputs(corrected, x)[0] - sums) / lsb * np.where(large, 1 + 0.05 * gain_of(gain, large), 1)
    return [
        ks("KS offset", offset),
        ks("KS gain", gain),
        deviation("sd offset", offset),
        deviation("sd gain", gain),
        exact("changed at another read", again, plus),
        bounded(left[large] / 0.5, 2 * 32767 * 20),
    ]


def gain_of(gain: Array, large: Array) -> Array:
    """The gains of columns, 0 where their sums are too small to tell."""
    found = np.zeros(large.shape)
    found[large] = gain
    return found


def reference_error() -> list[Statistic]:
    w, x = weights(20, 60_000), inputs(2, 20)
    spec = tiles(chip_of("3t1c", {"reference_error_us": 0.3}), 20, 60_000)
    one = session(w, spec, "reference_error")
    total = x.astype(np.float64).sum(axis=1)
    # The largest weight takes 8 of 16 uS: the reference is in the middle.
    error = (x.astype(np.float64) @ w - outputs(one, x)) / total[:, None] * 8.0
    return [
        ks("KS", error[0] / 0.3),
        deviation("sd", error[0] / 0.3),
        rounding("errors found with another input", error[1], error[0], 8 * 20 * 20),
    ]


# Wires

WIRES: dict[str, Any] = {"row_ohm": 3.0, "column_ohm": 2.0, "driver_ohm": 150.0, "sense_ohm": 80.0}


def ir_drop() -> list[Statistic]:
    rng, found = np.random.default_rng(SEED), []
    g = rng.uniform(0, 25, (14, 9)) * (rng.random((14, 9)) > 0.2)
    for drive, (row, column) in itertools.product(("one", "two"), ((1e-3, 1e-3), (3.0, 2.0), (4e3, 1e3))):
        wires = Wires(row_ohm=row, column_ohm=column, driver_ohm=150.0, sense_ohm=80.0, drive=drive)
        found.append(nodal.deviation(transfer_matrix(g, wires), nodal.reference([g], wires)))
    shared = Wires(**WIRES, differential="shared")
    pairs = nodal.deviation(pair_matrix(g, g[::-1], shared), nodal.reference([g, g[::-1]], shared))
    back = Wires(row_ohm=3.0, column_ohm=2.0, backward_driver_ohm=90.0, backward_sense_ohm=40.0)
    resistors = nodal.netlist([g], back, backward=True)
    ports = [("in", 0, i) for i in range(14)]
    turned = nodal.nodal(resistors, [("out", j) for j in range(9)], ports).T
    active = rng.random(14) > 0.4
    v = rng.uniform(-0.3, 0.3, 14) * active
    cut = []
    for idle in ("cut", "floating"):
        wires = Wires(**WIRES, idle_row=idle)
        wanted = v @ nodal.reference([g], wires, active)
        cut.append(nodal.deviation(solve_active(g, v, wires), wanted))
    # Float64: 126 cells, each eliminated once.
    return [
        Statistic(name, off, 126 * 2.0**-52, True)
        for name, off in (
            ("forward", max(found)),
            ("shared pairs", pairs),
            ("backward", nodal.deviation(backward_matrix(g, back), turned)),
            ("idle rows", max(cut)),
        )
    ]


def ir_drop_of_a_session() -> list[Statistic]:
    w = weights(16, 12)
    one = session(w, chip(16, 12, wires=WIRES), "programming_error,ir_drop")
    wires = one.program.chip.wires
    plus, minus = (nodal.reference([g.reshape(w.shape)], wires) for g in held(one))
    x = inputs(50, 16)
    return [rounding("results", outputs(one, x), x.astype(np.float64) @ ((plus - minus) / UNIT), 32)]


# Scales, subtraction, the digital unit


def scales() -> list[Statistic]:
    w = weights(32, 24, 0.0) * np.logspace(0, -2, 24, dtype=np.float32)
    found, results, x = [], [], inputs(100, 32)
    for scale in ("matrix", "tile", "column"):
        one = session(w, chip(16, 8, weights={"scale": scale}), "drift")  # nothing has drifted at t0
        (bank,) = one.program.banks.values()
        plus, minus = held(one)
        off = []
        for part in bank.table:
            rows, cols = (
                slice(int(part[start]), int(part[start] + part[size]))
                for start, size in (("row0", "rows"), ("col0", "cols"))
            )
            here = w[rows, cols].astype(np.float64)
            cells = slice(int(part["offset"]), int(part["offset"]) + here.size)
            largest = {"matrix": 1.0, "tile": np.abs(here).max(), "column": np.abs(here).max(axis=0)}[scale]
            off.append(np.abs((plus - minus)[cells].reshape(here.shape) - here / largest * 20.0).max())
        found.append(float(max(off)) / 20)
        results.append(outputs(one, x))
    wanted = x.astype(np.float64) @ w
    return [
        Statistic("conductances", max(found), 4 * ROUNDING, True),
        rounding("results", np.array(results), np.array([wanted] * 3), 64),
    ]


def percentile() -> list[Statistic]:
    w = np.random.default_rng(SEED).standard_normal((60, 50)).astype(np.float32)
    one = session(w, chip(60, 50, weights={"percentile": 95.0}), "drift")
    largest = float(np.percentile(np.abs(w.astype(np.float64)), 95))
    wanted = np.clip(w.astype(np.float64), -largest, largest)
    plus, minus = held(one)
    x = inputs(100, 60)
    return [
        rounding("conductances", (plus - minus).reshape(w.shape), wanted / largest * 20, 8),
        rounding("results", outputs(one, x), x.astype(np.float64) @ wanted, 60),
    ]


def subtraction() -> list[Statistic]:
    w, x = weights(60, 80), inputs(200, 60)
    wanted, found = x.astype(np.float64) @ w, []
    for kind, subtract, conversions in (
        ("2pcm", "digital", 2),
        ("1pcm", "digital", 1),
        ("1pcm", "analog", 1),
    ):
        adc = {"bits": 12, "range_cells": 60.0, "subtract": subtract}
        one = session(w, tiles(chip_of(kind, adc=adc), 60, 80), "adc")
        found.append(np.abs(outputs(one, x) - wanted) / (60.0 / 2047 * conversions / 2))
    # Four slices of two bits, converted each: their gains add up to 1.
    spec = chip(60, 80, {"slices": 4, "slice_bits": 2}, adc={"bits": 12, "range_cells": 60.0})
    digits = np.sign(w) * np.rint(np.abs(w.astype(np.float64)) * 255) / 255
    off = np.abs(outputs(session(w, spec, "adc"), x) - x.astype(np.float64) @ digits)
    found.append(off / (60.0 / 2047 / 2))
    return [bounded(np.array(found), 2 * 2047 * 4 * 60)]


def compensation() -> list[Statistic]:
    w = weights(40, 30)
    spec = chip(40, 30)
    unit = np.eye(40, dtype=np.float32)
    first = outputs(session(w, spec, "programming_error,drift"), unit)
    now = outputs(session(w, spec, "programming_error,drift", at="1d"), unit)
    x, found, wanted = inputs(50, 40), [], []
    for how, axis in (("global", None), ("column", 0)):
        gain = np.abs(first).sum(axis=axis) / np.abs(now).sum(axis=axis)
        one = session(w, spec, "programming_error,drift", at="1d", compensation=how)
        found.append(outputs(one, x))
        wanted.append(x.astype(np.float64) @ now * gain)
    return [rounding("results", np.array(found), np.array(wanted), 64)]


def norm() -> list[Statistic]:
    w, x = weights(40, 30), inputs(400, 40)
    program = compiled(w, chip(40, 30))
    options: dict[str, Any] = {"seed": SEED, "threads": 1, "at": "1d"}
    ideal, physics = x.astype(np.float64) @ w, "programming_error,drift"
    raw = outputs(pcmc.Session(program, physics, **options), x)
    found = []
    for what in ("norm", "bias"):
        fitted = pcmc.calibrate(program, {"x": x}, physics=physics, what=what, **options)
        y = outputs(pcmc.Session(program, physics, calibration=fitted.banks, **options), x)
        gain = ideal.std(axis=0) / raw.std(axis=0) if what == "norm" else 1.0
        found.append(rounding(what, y, gain * (raw - raw.mean(axis=0)) + ideal.mean(axis=0), 40 * 20))
    return found


def biases() -> list[Statistic]:
    proto = builders.mlp([60, 40])
    spec = replace(chip(61, 40), tile=replace(chip(61, 40).tile, bias_row=True))
    w, b = (numpy_helper.to_array(one).astype(np.float64) for one in proto.graph.initializer)
    x = inputs(100, 60)
    y = outputs(pcmc.Session(pcmc.compile(proto, spec), "drift", threads=1), x)
    return [rounding("results", y, x.astype(np.float64) @ w + b, 61)]


PHYSICS = "accel/physics.py, runtime/reads.py"
CONVERTERS = "accel/reference.py"
DRIVERS = "accel/periphery.py"
READS = "tests/runtime/test_reads.py::"
DEVICES = "tests/accel/test_noise_against_devices.py::"

ROWS = [
    Row(
        "input converters",
        ("dac",),
        "x' = clip(rint(x / s L), -L, L) s / L, s the largest |x| of the vector, or fixed",
        CONVERTERS,
        "results of 200 vectors over six decades, 7 bits; at a fixed range of 0.6",
        "tests/accel/test_kernels.py::test_converters_do_what_their_formulas_say",
        dac,
    ),
    Row(
        "output converters",
        ("adc",),
        "y = clip(rint(sum / LSB), -L, L) LSB, LSB = range_cells w_max s / L",
        CONVERTERS,
        "KS of y - sum against U(-1/2, 1/2) LSB; its largest over half an LSB; at a narrow range, what is "
        "not at the end, and the count",
        "tests/accel/test_kernels.py::test_converters_do_what_their_formulas_say",
        adc,
    ),
    Row(
        "ranges of output converters",
        ("adc", "calibration"),
        "full scale = percentile of |sum| over calibration data, of a matrix or of each column; up to a "
        "bin more",
        "runtime/calibration.py",
        "full scales of 500 vectors; at 99 the share beyond, and how much too wide (bins are 1/512)",
        "tests/runtime/test_calibration.py::test_a_full_scale_is_the_percentile_and_at_most_a_bin_more",
        adc_ranges,
    ),
    Row(
        "pulses, bits, two phases",
        ("dac", "pulse", "bits", "signed"),
        "code c = sign(c) sum_k B^k d_k: results are those of codes sent at once; each digit's conversion "
        "counts B^k (B - 1) / L half LSB",
        DRIVERS,
        "results of 18 ways to send 200 vectors; errors with 14 bits, bit by bit, over that sum of half LSB",
        READS + "test_however_inputs_are_sent_the_result_is_that_of_their_codes",
        drivers,
    ),
    Row(
        "currents that are not ohmic",
        ("nonlinearity",),
        "I = G V (1 + a (V / V_full)^2), times 1 - loss where V < 0; of pulses the loss alone",
        "chip file; " + DRIVERS,
        "results of 200 vectors",
        READS + "test_currents_that_are_not_ohmic_bend_inputs_and_differ_with_their_sign",
        nonlinearity,
    ),
    Row(
        "mismatch of output converters",
        ("mismatch",),
        "code = rint(sum / LSB (1 + e_j) + o_j), e, o normal, once per chip; corrected: (code - o_j) LSB / "
        "(1 + e_j)",
        "chip file; runtime/banks.py",
        "KS and sd of offsets and gains of 60,000 columns; values that change; corrected, error over half "
        "a step of the column",
        READS + "test_mismatch_is_that_of_the_columns_of_a_tile_and_fixed",
        mismatch,
    ),
    Row(
        "error of a shared reference",
        ("reference_error", "3t1c"),
        "g - (g_ref + e_j), e_j normal, once per column: y_j errs by -e_j sum_i x_i",
        "chip file; runtime/reads.py",
        "KS and sd of e_j of 60,000 columns; e_j from another input, relative",
        READS + "test_a_reference_that_is_off_errs_alike_in_all_rows_of_its_column",
        reference_error,
    ),
    Row(
        "IR drop",
        ("ir_drop",),
        "Kirchhoff's current law at each node: I = M^T v",
        "nodal analysis, sparse, refined (tests/nodal.py); accel/wires.py",
        "M over its largest, 14 x 9 cells, 1 mohm to 4 kohm, one- and two-sided; shared pairs; backward; "
        "idle rows cut and floating",
        "tests/accel/test_wires.py::test_the_matrix_agrees_with_nodal_analysis",
        ir_drop,
    ),
    Row(
        "IR drop of a session",
        ("ir_drop", "2pcm", "programming_error"),
        "y = x (M(G+) - M(G-)) w_max / (F g_max)",
        "nodal analysis of the devices as programmed; runtime/wiring.py",
        "results of 50 vectors, 16 x 12 weights",
        "tests/runtime/test_wiring.py::test_weights_behind_wires_agree_with_nodal_analysis_of_each_tile",
        ir_drop_of_a_session,
    ),
    Row(
        "scales of weights",
        ("scale",),
        "G+ - G- = W g_max / w_max, w_max the largest of the matrix, the block, or its column",
        "chip file; runtime/state.py",
        "conductances and results, 32 x 24 weights in tiles of 16 x 8",
        READS + "test_what_has_a_scale_of_its_own_uses_the_whole_range",
        scales,
    ),
    Row(
        "percentile clipping",
        ("percentile",),
        "w_max is the percentile of |W|, and W beyond it is clipped there",
        "chip file; runtime/state.py",
        "conductances and results at 95, 60 x 50 weights",
        READS + "test_weights_beyond_the_percentile_are_clipped_to_the_end_of_the_range",
        percentile,
    ),
    Row(
        "columns converted apart",
        ("adc", "subtract", "slices", "1pcm", "2pcm"),
        "G+ and G-, or each slice, converted, weighed and added digitally; G - G_ref: 2 F (G - g_max / 2)",
        DRIVERS + ", runtime/reads.py",
        "error over half an LSB for each conversion, times what it counts; 200 vectors x 80 columns, 12 bits",
        READS + "test_columns_of_g_plus_and_g_minus_that_are_converted_apart_are_subtracted",
        subtraction,
    ),
    Row(
        "biases",
        ("bias",),
        "b / bias_drive in a row that is driven by bias_drive, the largest |b| over the largest |W|",
        "runtime/state.py",
        "results of 100 vectors",
        READS + "test_one_drive_serves_bias_rows_whatever_the_scales",
        biases,
    ),
    Row(
        "compensation of drift",
        ("drift", "compensation"),
        "y times sum |W(t0)| / sum |W(t)|, over the matrix or each column",
        "global drift compensation, Joshi et al., Nature Communications 11 (2020); aihwkit; runtime/banks.py",
        "results of 50 vectors after 1 day, W read by unit inputs",
        "tests/runtime/test_banks.py::test_compensation_brings_the_mean_drift_back",
        compensation,
    ),
    Row(
        "calibration of columns",
        ("calibration",),
        "norm: y' = sd_ideal / sd (y - mean) + mean_ideal of each column; bias: the same with a factor of 1",
        "runtime/calibration.py",
        "results of 400 vectors after 1 day",
        "tests/runtime/test_calibration.py::test_gain_and_shift_bring_mean_and_deviation_back",
        norm,
    ),
]
