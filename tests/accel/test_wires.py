"""IR drop: matrices of wired arrays agree with nodal analysis, with closed forms and with ngspice.

The reference (tests/nodal.py) draws the circuit resistor by resistor and solves it by Kirchhoff's current
law. The same netlist goes to ngspice.
"""

import dataclasses
import doctest
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from nodal import deviation, netlist, nodal, reference

from pcmc.accel.fields import take_section
from pcmc.accel.wires import (
    Wires,
    approximation_error,
    backward_matrix,
    noise_scale,
    pair_matrix,
    solve_active,
    transfer_matrix,
)
from pcmc.errors import ChipError

TYPICAL = Wires(row_ohm=1.0, column_ohm=2.0, driver_ohm=100.0, sense_ohm=50.0)
CASES = {
    "typical": TYPICAL,
    "two-sided": dataclasses.replace(TYPICAL, drive="two"),
    "no ports": Wires(row_ohm=3.0, column_ohm=5.0),
    "two-sided, no ports": Wires(row_ohm=3.0, column_ohm=5.0, drive="two"),
    "rows only": Wires(row_ohm=40.0),
    "columns only": Wires(column_ohm=40.0),
    "drivers only": Wires(driver_ohm=1000.0),
    "two drivers only": Wires(driver_ohm=1000.0, drive="two"),
    "sense only": Wires(sense_ohm=1000.0),
    "huge": Wires(row_ohm=1e6, column_ohm=3e6, driver_ohm=1e5, sense_ohm=1e5),
    "huge, two-sided": Wires(row_ohm=1e6, column_ohm=3e6, driver_ohm=1e5, sense_ohm=1e5, drive="two"),
    "tiny": Wires(row_ohm=1e-6, column_ohm=1e-5, driver_ohm=1e-3, sense_ohm=1e-4),
    "tiny rows, huge columns": Wires(row_ohm=1e-3, column_ohm=1e6),
    "huge rows, tiny columns": Wires(row_ohm=1e6, column_ohm=1e-3, drive="two"),
    "huge ports": Wires(row_ohm=0.1, column_ohm=0.1, driver_ohm=1e7, sense_ohm=1e7),
}
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 2), (5, 9), (9, 5), (16, 12), (12, 16)]


def array(seed, rows, cols, zeros=0.2):
    """Random conductances of 0 to 25 uS, some of them 0."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 25, (rows, cols)) * (rng.random((rows, cols)) >= zeros)


# --- agreement ---


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("case", CASES)
def test_the_matrix_agrees_with_nodal_analysis(case, shape):
    g = array(1, *shape)
    assert deviation(transfer_matrix(g, CASES[case]), reference([g], CASES[case])) < 1e-12


@pytest.mark.parametrize("shape", [(1, 5), (6, 4), (4, 6)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("case", CASES)
def test_pairs_on_one_bit_line_agree_with_nodal_analysis(case, shape):
    wires = dataclasses.replace(CASES[case], differential="shared")
    plus, minus = array(2, *shape), array(3, *shape)
    matrix = pair_matrix(plus, minus, wires)
    assert deviation(matrix, reference([plus, minus], wires)) < 1e-12
    apart = pair_matrix(plus, minus, CASES[case])
    np.testing.assert_array_equal(
        apart, transfer_matrix(plus, CASES[case]) - transfer_matrix(minus, CASES[case])
    )
    if case == "typical" and shape[0] > 1:
        assert deviation(matrix, apart) > 1e-4  # the choice does matter


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("drive", ["one", "two"])
def test_backward_reads_agree_with_nodal_analysis(drive, shape):
    wires = Wires(1.0, 2.0, 100.0, 50.0, "two", backward_driver_ohm=300.0, backward_sense_ohm=20.0)
    wires = dataclasses.replace(wires, backward_drive=drive)
    g = array(4, *shape)
    resistors = netlist([g], wires, backward=True)
    rows, cols = shape
    expected = nodal(resistors, [("out", j) for j in range(cols)], [("in", 0, i) for i in range(rows)]).T
    assert deviation(backward_matrix(g, wires), expected) < 1e-12


@pytest.mark.parametrize("idle_row", ["grounded", "cut", "floating"])
@pytest.mark.parametrize("case", ["typical", "two-sided", "rows only", "columns only", "no ports", "huge"])
@pytest.mark.parametrize("shape", [(7, 4), (4, 7)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_a_read_with_idle_rows_agrees_with_nodal_analysis(idle_row, case, shape):
    wires = dataclasses.replace(CASES[case], idle_row=idle_row)
    plus, minus = array(5, *shape, zeros=0), array(6, *shape, zeros=0)
    v = np.random.default_rng(7).uniform(-0.3, 0.3, shape[0])
    v[[0, 2]] = 0
    exact = v @ reference([plus], wires, v != 0)
    np.testing.assert_allclose(solve_active(plus, v, wires), exact, rtol=1e-11, atol=1e-12 * abs(exact).max())
    shared = dataclasses.replace(wires, differential="shared")
    exact = v @ reference([plus, minus], shared, v != 0)
    found = solve_active(plus, v, shared, minus_us=minus)
    np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-12 * abs(exact).max())
    apart = solve_active(plus, v, wires) - solve_active(minus, v, wires)
    np.testing.assert_array_equal(solve_active(plus, v, wires, minus_us=minus), apart)


def test_a_floating_row_without_cells_is_as_good_as_cut():
    g, v = array(8, 5, 3, zeros=0), np.array([0.1, 0, 0.2, 0, 0.3])
    g[[1, 3]] = 0
    each = [solve_active(g, v, dataclasses.replace(TYPICAL, idle_row=w)) for w in ("floating", "cut")]
    np.testing.assert_allclose(*each, rtol=1e-13)


def test_a_driven_row_at_zero_volt_is_not_idle():
    wires = dataclasses.replace(TYPICAL, idle_row="cut")
    g, v = array(9, 4, 3), np.array([0.2, 0.0, 0.1, 0.0])
    expected = v @ transfer_matrix(g, TYPICAL)
    np.testing.assert_allclose(solve_active(g, v, wires, np.ones(4, bool)), expected, rtol=1e-13)
    assert np.all(solve_active(g, v, wires) > expected)


@pytest.mark.parametrize("case", ["typical", "two-sided", "huge"])
def test_segments_are_arrays_of_their_own(case):
    g = array(10, 10, 7)
    wires = dataclasses.replace(CASES[case], bit_segments=3, word_segments=2)
    matrix, back = transfer_matrix(g, wires), backward_matrix(g, wires)
    for rows in (slice(0, 4), slice(4, 7), slice(7, 10)):
        for cols in (slice(0, 4), slice(4, 7)):
            np.testing.assert_array_equal(matrix[rows, cols], transfer_matrix(g[rows, cols], CASES[case]))
            np.testing.assert_array_equal(back[rows, cols], backward_matrix(g[rows, cols], CASES[case]))
    v = np.random.default_rng(11).uniform(0.1, 0.2, 10)
    np.testing.assert_allclose(solve_active(g, v, wires), v @ matrix, rtol=1e-13)


@pytest.mark.slow
def test_a_whole_tile_agrees_with_nodal_analysis():
    g = array(12, 128, 100)
    driven = [("in", 0, i) for i in (0, 1, 63, 127)]
    expected = nodal(netlist([g], TYPICAL), driven, [("out", j) for j in range(100)])
    assert deviation(transfer_matrix(g, TYPICAL)[[0, 1, 63, 127]], expected) < 1e-12


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
@pytest.mark.parametrize("case", ["typical", "two-sided"])
def test_currents_agree_with_ngspice(case, tmp_path):
    wires, g = CASES[case], array(13, 24, 16)
    v = np.random.default_rng(14).uniform(-0.3, 0.3, 24)
    names = {}
    lines = ["* crossbar"]
    for k, (a, b, ohm) in enumerate(netlist([g], wires)):
        a, b = (names.setdefault(node, f"n{len(names)}") for node in (a, b))
        lines.append(f"R{k} {a} {b} {float(ohm)!r}")
    lines += [f"Vin{i} {names[('in', 0, i)]} 0 {volt!r}" for i, volt in enumerate(v.tolist())]
    lines += [f"Vout{j} {names[('out', j)]} 0 0" for j in range(16)]
    prints = [f"print i(vout{j})" for j in range(16)]
    lines += [".control", "set numdgt=15", "op", *prints, "quit", ".endc", ".end"]
    (tmp_path / "array.cir").write_text("\n".join(lines) + "\n")
    run = subprocess.run(
        ["ngspice", "-b", "array.cir"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    currents = [float(i) for i in re.findall(r"^i\(vout\d+\) = (\S+)", run.stdout, re.MULTILINE)]
    assert len(currents) == 16, run.stdout + run.stderr
    assert deviation(np.array(currents) * 1e6, v @ transfer_matrix(g, wires)) < 1e-9


# --- closed forms ---


@pytest.mark.parametrize("case", [Wires(), Wires(drive="two"), Wires(idle_row="cut", backward_drive="two")])
def test_wires_without_resistance_leave_the_conductances_as_they_are(case):
    for g in (array(15, 6, 4), array(16, 4, 6)):
        np.testing.assert_array_equal(transfer_matrix(g, case), g)
        np.testing.assert_array_equal(transfer_matrix(g, case, 0.3), g)
        np.testing.assert_array_equal(backward_matrix(g, case), g)
        shared = dataclasses.replace(case, differential="shared")
        np.testing.assert_array_equal(pair_matrix(g, g[::-1], shared), g - g[::-1])
    assert case.is_ideal
    assert not TYPICAL.is_ideal


def test_one_cell_is_in_series_with_its_wires_and_ports():
    wires = Wires(row_ohm=10, column_ohm=20, driver_ohm=300, sense_ohm=4000)
    ohms = 1e6 / 25 + 10 + 20 + 300 + 4000
    np.testing.assert_allclose(transfer_matrix([[25.0]], wires), 1e6 / ohms, rtol=1e-15)
    two = dataclasses.replace(wires, drive="two")
    np.testing.assert_allclose(transfer_matrix([[25.0]], two), 1e6 / (ohms - 310 / 2), rtol=1e-15)


def test_a_word_line_is_a_ladder():
    n, g, ohm = 12, 25.0, 900.0
    theta = np.arccosh(1 + ohm * g * 1e-6 / 2)
    volts = np.cosh((n - 0.5 - np.arange(n)) * theta) / np.cosh((n + 0.5) * theta)
    matrix = transfer_matrix(np.full((1, n), g), Wires(row_ohm=ohm))
    np.testing.assert_allclose(matrix[0], g * volts, rtol=1e-14)


def test_a_bit_line_is_a_ladder():
    n, g, ohm = 12, 25.0, 900.0
    theta = np.arccosh(1 + ohm * g * 1e-6 / 2)
    share = np.cosh((np.arange(n) + 0.5) * theta) / np.cosh((n + 0.5) * theta)
    matrix = transfer_matrix(np.full((n, 1), g), Wires(column_ohm=ohm))
    np.testing.assert_allclose(matrix[:, 0], g * share, rtol=1e-14)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6)])
def test_drive_from_both_ends_is_symmetric(shape):
    matrix = transfer_matrix(np.full(shape, 20.0), CASES["two-sided"])
    np.testing.assert_allclose(matrix, matrix[:, ::-1], rtol=1e-13)
    one = transfer_matrix(np.full(shape, 20.0), CASES["typical"])
    assert np.all(one[:, 0] > one[:, -1])
    assert np.all(matrix.sum(axis=0) > one.sum(axis=0))


def test_equal_pairs_cancel():
    g = array(17, 5, 4)
    for differential in ("apart", "shared"):
        wires = dataclasses.replace(TYPICAL, differential=differential)
        assert np.abs(pair_matrix(g, g, wires)).max() < 1e-13


# --- properties ---

ohms = st.sampled_from([0.0, 1e-3, 1.0, 100.0, 1e5])
circuits = st.builds(Wires, ohms, ohms, ohms, ohms, st.sampled_from(["one", "two"]))
sides, zeros = st.integers(1, 8), st.sampled_from([0, 0.5, 1])
arrays = st.builds(array, st.integers(0, 999), sides, sides, zeros)


@given(arrays, circuits)
@settings(max_examples=60, deadline=None)
def test_wires_lose_current_and_never_turn_it(g, wires):
    matrix = transfer_matrix(g, wires)
    assert matrix.min() >= 0
    assert np.all(matrix.sum(axis=0) <= g.sum(axis=0) * (1 + 1e-13))
    assert np.all(matrix.sum(axis=1) <= g.sum(axis=1) * (1 + 1e-13))


@given(arrays, circuits, st.sampled_from(["row_ohm", "column_ohm", "driver_ohm", "sense_ohm"]))
@settings(max_examples=60, deadline=None)
def test_more_resistance_never_lets_more_current_through(g, wires, name):
    more = dataclasses.replace(wires, **{name: 2 * getattr(wires, name) + 1})
    assert transfer_matrix(g, more).sum() <= transfer_matrix(g, wires).sum() * (1 + 1e-13)


@given(arrays, circuits)
@settings(max_examples=60, deadline=None)
def test_with_equal_ports_backward_reads_are_the_forward_ones(g, wires):
    wires = dataclasses.replace(
        wires, drive="one", backward_driver_ohm=wires.sense_ohm, backward_sense_ohm=wires.driver_ohm
    )
    np.testing.assert_allclose(backward_matrix(g, wires), transfer_matrix(g, wires), rtol=1e-12, atol=1e-12)


# --- what reads use where rows are cut or float ---


def test_the_matrix_of_grounded_rows_is_exact():
    g = array(18, 20, 10)
    rng = np.random.default_rng(19)
    v = rng.uniform(-0.3, 0.3, (4, 20)) * (rng.random((4, 20)) < 0.5)
    error = approximation_error(g, v, TYPICAL)
    assert 0 < error.active_fraction < 1
    assert max(error.largest, error.rms) < 1e-13


@pytest.mark.parametrize("differential", ["apart", "shared"])
def test_with_all_rows_active_idle_rows_do_not_matter(differential):
    grounded = dataclasses.replace(TYPICAL, differential=differential)
    cut = dataclasses.replace(grounded, idle_row="cut")
    plus, minus = array(21, 6, 4), array(22, 6, 4)
    np.testing.assert_array_equal(pair_matrix(plus, minus, cut), pair_matrix(plus, minus, grounded))
    np.testing.assert_array_equal(pair_matrix(plus, minus, grounded, 0.2), pair_matrix(plus, minus, grounded))


@pytest.mark.parametrize("differential", ["apart", "shared"])
def test_with_few_rows_active_each_is_as_if_alone(differential):
    wires = Wires(column_ohm=200.0, sense_ohm=1000.0, idle_row="cut", differential=differential)
    plus, minus = array(21, 6, 4), array(22, 6, 4)
    single = np.array([solve_active(plus, v, wires, minus_us=minus) for v in np.eye(6)])
    assert deviation(pair_matrix(plus, minus, wires, 1e-6), single) < 1e-5
    assert deviation(pair_matrix(plus, minus, wires), single) > 0.01


@pytest.mark.parametrize("differential", ["apart", "shared"])
@pytest.mark.parametrize("idle_row", ["cut", "floating"])
def test_the_mean_field_is_near_the_mean_over_all_sets_of_rows(idle_row, differential):
    """By nodal analysis of each set: rows beside the one that is read are active with probability f."""
    wires = Wires(100.0, 200.0, 100.0, 2000.0, idle_row=idle_row, differential=differential)
    layers, f = [array(25, 5, 3), array(26, 5, 3)][: 1 if differential == "apart" else 2], 0.3
    mean = np.zeros((5, 3))
    for bits in range(32):
        active = np.array([bits >> k & 1 for k in range(5)], bool)
        weight = np.prod(np.where(active, f, 1 - f))
        mean[active] += weight / f * reference(layers, wires, active)[active]
    found, every = (
        transfer_matrix(layers[0], wires, part) if len(layers) == 1 else pair_matrix(*layers, wires, part)
        for part in (f, 1.0)
    )
    assert deviation(found, mean) < 0.4 * deviation(every, mean)
    assert deviation(found, mean) < 0.02


@pytest.mark.parametrize("idle_row", ["cut", "floating"])
def test_what_is_not_said_of_a_read_is_what_the_wires_say(idle_row):
    g, wires = array(27, 8, 6), dataclasses.replace(TYPICAL, idle_row=idle_row)
    said = dataclasses.replace(wires, active_fraction=0.25)
    np.testing.assert_array_equal(transfer_matrix(g, said), transfer_matrix(g, wires, 0.25))
    np.testing.assert_array_equal(transfer_matrix(g, said, 0.5), transfer_matrix(g, wires, 0.5))
    assert np.abs(transfer_matrix(g, said) - transfer_matrix(g, wires)).max() > 1e-3
    for part in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match="active_fraction must be above 0 and at most 1"):
            transfer_matrix(g, wires, part)
        with pytest.raises(ChipError, match="wires: active_fraction"):
            dataclasses.replace(wires, active_fraction=part)


@pytest.mark.parametrize("idle_row", ["cut", "floating"])
def test_the_mean_field_errs_less_than_the_matrix_of_all_rows(idle_row):
    wires = Wires(2.0, 2.0, 100.0, 50.0, idle_row=idle_row)
    rng = np.random.default_rng(23)
    g = array(24, 48, 24)
    v = rng.uniform(0.05, 0.3, (4, 48)) * (rng.random((4, 48)) < 0.5)
    mean, every = approximation_error(g, v, wires), approximation_error(g, v, wires, 1.0)
    assert mean.rms < 0.5 * every.rms
    assert mean.largest < 0.02
    assert approximation_error(g, np.zeros((2, 48)), wires).largest == 0


@pytest.mark.slow
@pytest.mark.parametrize("idle_row", ["cut", "floating"])
@pytest.mark.parametrize("ohm", [0.1, 1.0, 5.0])
def test_the_documented_errors_of_the_mean_field_hold(idle_row, ohm):
    wires = Wires(ohm, ohm, 100.0, 50.0, idle_row=idle_row)
    g, inputs = example()
    error = approximation_error(g, inputs, wires)
    exact = np.array([solve_active(g, v, wires) for v in inputs])
    others = [inputs @ matrix - exact for matrix in (transfer_matrix(g, wires), g)]
    found = [error.largest, error.rms, *(np.sqrt(np.mean(e**2) / np.mean(exact**2)) for e in others)]
    assert tuple(round(100 * float(x), 1) for x in found) == documented(f"{idle_row} {ohm:g}")


def documented(first):
    """The numbers of the row of docs/wires.md whose first cell is `first`."""
    text = (Path(__file__).parents[2] / "docs" / "wires.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return tuple(float(cell) for cell in row.split("|")[2:-1])


def example():
    """256 x 100 cells of 0 to 20 uS, 8 inputs of 0 to 0.3 V of which half are 0."""
    rng = np.random.default_rng(2018)
    return rng.uniform(0, 20, (256, 100)), rng.uniform(0, 0.3, (8, 256)) * (rng.random((8, 256)) < 0.5)


# --- noise of devices behind wires ---


def device_noise(g, wires, variance, v):
    """Variances `[cols]` of currents by first order in each device: from voltages and adjoint voltages."""
    rows, cols = g.shape
    word = np.arange(rows * cols).reshape(rows, cols)
    bit = word + rows * cols
    a = np.concatenate([word.ravel(), word[:, :-1].ravel(), bit[:-1].ravel()])
    b = np.concatenate([bit.ravel(), word[:, 1:].ravel(), bit[1:].ravel()])
    wire = np.full(rows * (cols - 1), 1e6 / wires.row_ohm), np.full((rows - 1) * cols, 1e6 / wires.column_ohm)
    y = np.concatenate([g.ravel(), *wire])
    driver, sense = 1e6 / (wires.row_ohm + wires.driver_ohm), 1e6 / (wires.column_ohm + wires.sense_ohm)
    ground = np.zeros(2 * rows * cols)
    ground[word[:, 0]], ground[bit[-1]] = driver, sense
    at = np.concatenate([a, b, a, b]), np.concatenate([a, b, b, a])
    matrix = sparse.coo_array((np.concatenate([y, y, -y, -y]), at)) + sparse.diags_array(ground)
    lu = scipy.sparse.linalg.splu(matrix.tocsc())

    def across(fed):
        volts = lu.solve(fed)
        return volts[word] - volts[bit]

    fed = np.zeros(2 * rows * cols)
    fed[word[:, 0]] = driver * v
    drop, found = across(fed), np.empty(cols)
    for j in range(cols):
        fed = np.zeros(2 * rows * cols)
        fed[bit[-1, j]] = sense
        found[j] = np.sum((drop * across(fed)) ** 2 * variance)
    return found


def read_variance(g):
    """Read noise of PCM up to a factor, uS^2: sigma ~ G^0.35."""
    return 0.01 * g**0.7


def test_the_noise_of_each_device_passes_on_as_the_matrix_changes_with_it():
    g, v = array(25, 5, 4, zeros=0), np.array([0.1, 0.2, 0, -0.1, 0.3])
    expected, step = np.zeros(4), 1e-3
    for cell in np.ndindex(5, 4):
        up, down = g.copy(), g.copy()
        up[cell] += step
        down[cell] -= step
        slope = v @ (transfer_matrix(up, TYPICAL) - transfer_matrix(down, TYPICAL)) / (2 * step)
        expected += slope**2 * read_variance(g)[cell]
    np.testing.assert_allclose(device_noise(g, TYPICAL, read_variance(g), v), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("ohm", [0.1, 1.0, 5.0])
def test_the_documented_errors_of_noise_without_its_own_wires_hold(ohm):
    g, inputs = example()
    wires = Wires(ohm, ohm, 100.0, 50.0)
    exact = np.sqrt(device_noise(g, wires, read_variance(g), inputs[0]))
    variance, matrix = read_variance(g), transfer_matrix(g, wires)
    scaled = [variance, variance * noise_scale(g, matrix) ** 2, variance * (matrix / g) ** 2]
    errors = [100 * (np.sqrt(inputs[0] ** 2 @ each) / exact - 1) for each in scaled]
    found = tuple(round(float(limit), 1) for error in errors for limit in (error.min(), error.max()))
    assert found == documented(f"noise {ohm:g}")


def test_columns_without_conductance_have_no_noise_to_scale():
    g = np.array([[0.0, 2.0], [0.0, 4.0]])
    np.testing.assert_array_equal(noise_scale(g, g / 2), [1.0, 0.5])


# --- the promises of docs/wires.md that are not in a table ---


def test_the_example_of_the_page_is_true():
    page = Path(__file__).parents[2] / "docs" / "wires.md"
    failed, attempted = doctest.testfile(str(page), module_relative=False)
    assert (failed, attempted) == (0, 3)


@pytest.mark.slow
def test_solving_a_tile_takes_less_than_ten_megabytes():
    g = array(26, 512, 100)
    transfer_matrix(g[:8], TYPICAL)  # loads scipy
    tracemalloc.start()
    transfer_matrix(g, TYPICAL)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


# --- borders without cells, several arrays, one thread ---

BORDERS = [(0, 0, 0, 0), (2, 0, 0, 0), (0, 3, 0, 0), (0, 0, 2, 0), (0, 0, 0, 2), (1, 2, 3, 1)]


@pytest.mark.parametrize("borders", BORDERS, ids=str)
@pytest.mark.parametrize("case", ["typical", "two-sided", "no ports", "huge, two-sided", "columns only"])
def test_borders_without_cells_are_only_wire(case, borders):
    top, bottom, left, right = borders
    g = np.pad(array(30, 5, 3, zeros=0), ((top, bottom), (left, right)))
    wires = dataclasses.replace(CASES[case], backward_driver_ohm=10.0, backward_sense_ohm=20.0)
    rows, cols = g.shape
    matrix = transfer_matrix(g, wires)
    assert deviation(matrix, reference([g], wires)) < 1e-12
    assert np.count_nonzero(matrix) == 15
    driven, read = [("out", j) for j in range(cols)], [("in", 0, i) for i in range(rows)]
    back = nodal(netlist([g], wires, backward=True), driven, read).T
    assert deviation(backward_matrix(g, wires), back) < 1e-12
    v = np.random.default_rng(31).uniform(0.1, 0.3, rows) * (np.arange(rows) % 3 > 0)
    for idle_row in ("cut", "floating"):
        some = dataclasses.replace(wires, idle_row=idle_row)
        exact = v @ reference([g], some, v != 0)
        np.testing.assert_allclose(solve_active(g, v, some), exact, rtol=1e-10, atol=1e-12)


def test_an_array_without_cells_conducts_nothing():
    for wires in (TYPICAL, Wires()):
        np.testing.assert_array_equal(transfer_matrix(np.zeros((3, 2)), wires), np.zeros((3, 2)))


@pytest.mark.parametrize("case", ["typical", "two-sided"])
@pytest.mark.parametrize("differential", ["apart", "shared"])
@pytest.mark.parametrize("shape", [(3, 40, 24), (3, 24, 40)], ids=str)
def test_several_arrays_at_once_have_the_bits_of_each_alone(case, differential, shape):
    plus, minus = (array(seed, 3 * shape[1], shape[2]).reshape(shape) for seed in (32, 33))
    plus[1, :5], minus[1, :5] = 0, 0  # an array with another border
    wires = dataclasses.replace(CASES[case], differential=differential, idle_row="cut", bit_segments=2)
    for use in (lambda *g: pair_matrix(*g, wires, 0.4), lambda g, _: transfer_matrix(g, wires)):
        together = use(plus, minus)
        np.testing.assert_array_equal(together, [use(p, m) for p, m in zip(plus, minus, strict=True)])
    np.testing.assert_array_equal(backward_matrix(plus, wires), [backward_matrix(p, wires) for p in plus])


@pytest.mark.slow
def test_settings_of_blas_change_no_bit():
    code = (
        "import hashlib, numpy as np; from pcmc.accel.wires import *;"
        "g = np.random.default_rng(37).uniform(0, 25, (150, 140));"
        "print(hashlib.sha256(transfer_matrix(g, Wires(1.0, 2.0, 100.0, 50.0)).tobytes()).hexdigest())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        for threads in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout


# --- the section of a chip file ---


def test_the_section_of_a_chip_file_is_checked_field_by_field():
    table = {"row_ohm": 1, "idle_row": "cut", "word_segments": 2}
    assert take_section(Wires, "wires", table, "my.toml") == Wires(
        row_ohm=1.0, idle_row="cut", word_segments=2
    )
    assert take_section(Wires, "wires", {}, "my.toml") == Wires()
    for table, says in [
        ({"row_ohm": 1e-13}, "row_ohm = 1e-13: must be 0 or a number from 1e-12 to 1e+12 ohm"),
        ({"drive": "both"}, 'drive = "both": must be one of "one", "two"'),
        ({"bit_segments": 0}, "bit_segments = 0: must be a whole number from 1 to 65,536"),
        ({"row_ohms": 1.0}, "row_ohms: unknown field; did you mean row_ohm?"),
    ]:
        with pytest.raises(ChipError, match=re.escape(f"my.toml: [wires] {says}")):
            take_section(Wires, "wires", table, "my.toml")


def test_numbers_are_kept_as_floats():
    assert isinstance(Wires(row_ohm=1).row_ohm, float)


# --- bad input ---


@pytest.mark.parametrize("name", ["row_ohm", "column_ohm", "driver_ohm", "sense_ohm", "backward_sense_ohm"])
@pytest.mark.parametrize("ohm", [-1.0, float("nan"), float("inf"), 1e-13, 1e13, "1", True, None])
def test_a_resistance_out_of_range_is_refused_by_name(name, ohm):
    with pytest.raises(ChipError, match=f"wires: {name} = .*: must be 0 or a number from 1e-12 to 1e.12 ohm"):
        Wires(**{name: ohm})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("drive", "both", "drive = .*: must be one of .one., .two."),
        ("backward_drive", 2, "backward_drive = .*: must be one of .one., .two."),
        ("idle_row", "open", "idle_row = .*: must be one of .grounded., .cut., .floating."),
        ("differential", ["apart"], "differential = .*: must be one of .apart., .shared."),
        ("word_segments", 0, "word_segments = .*: must be a whole number from 1"),
        ("bit_segments", 2.0, "bit_segments = .*: must be a whole number from 1"),
        ("bit_segments", True, "bit_segments = .*: must be a whole number from 1"),
    ],
)
def test_a_wrong_choice_is_refused_by_name(name, value, says):
    with pytest.raises(ChipError, match=f"wires: {says}"):
        Wires(**{name: value})


@pytest.mark.parametrize(
    ("g", "wires", "says"),
    [
        (np.ones(3), Wires(), "a cell or more"),
        (np.ones((0, 3)), Wires(), "a cell or more"),
        ([[1.0, -1.0]], Wires(), "must be from 0 to 1e.06 uS"),
        ([[1.0, np.nan]], Wires(), "must be from 0 to 1e.06 uS"),
        ([[1.0, np.inf]], Wires(), "must be from 0 to 1e.06 uS"),
        (np.ones((3, 2)), Wires(bit_segments=4), "bit_segments is 4, but the array has 3 rows"),
        (np.ones((3, 2)), Wires(word_segments=3), "word_segments is 3, but the array has 2 columns"),
    ],
)
def test_arrays_that_wires_cannot_join_are_refused(g, wires, says):
    for use in (transfer_matrix, backward_matrix):
        with pytest.raises(ChipError, match=says):
            use(g, wires)
    with pytest.raises(ChipError, match=says):
        pair_matrix(g, g, wires)


def test_pairs_of_different_shapes_are_refused():
    with pytest.raises(ChipError, match=r"G\+ is \[2, 2\] and G- \[2, 3\]"):
        pair_matrix(np.ones((2, 2)), np.ones((2, 3)), TYPICAL)


def test_inputs_that_do_not_fit_are_refused():
    g = np.ones((3, 2))
    for v, active in [(np.ones(2), None), (np.ones(3), np.ones(2, bool)), (np.ones((1, 3)), None)]:
        with pytest.raises(ValueError, match="3 values"):
            solve_active(g, v, TYPICAL, active)
    for v in ([1.0, 0.0, 1.0], [np.nan, 1.0, 0.0]):
        with pytest.raises(ValueError, match="finite, and 0 on rows that are not active"):
            solve_active(g, v, TYPICAL, np.array([True, True, False]))
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="active_fraction"):
            transfer_matrix(g, TYPICAL, fraction)


@pytest.mark.parametrize("g_us", [1e-30, 1e-3, 1e6])
@pytest.mark.parametrize("ohm", [1e-12, 1e12])
def test_extreme_circuits_give_finite_numbers(g_us, ohm):
    for shape in [(6, 4), (4, 6)]:
        for wires in (Wires(ohm, ohm, ohm, ohm, "two"), Wires(ohm, 0, 0, ohm), Wires(0, ohm, ohm, 0)):
            matrix = transfer_matrix(np.full(shape, g_us), wires)
            assert np.all(np.isfinite(matrix))
            assert matrix.min() >= 0
