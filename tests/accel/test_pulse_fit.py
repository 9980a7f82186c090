"""The fit of pulses finds the law that devices were drawn from; the reader takes tables and nothing else.

Drawn devices have a law that is known (`drawn_pulses`), so that every figure of a fit can be held against it.
Intervals hold 95 %: over many draws as many contain the truth, which the binomial distribution bounds.
"""

import dataclasses
import math

import numpy as np
import pytest
from drawn_pulses import EXACT, Truth, Way, as_csv, drawn, write_csv
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pcmc.accel import pulses
from pcmc.accel.pulse_fit import fit_pulses
from pcmc.accel.pulses import Sweep, read_pulses
from pcmc.errors import DataError

HEADER = "device,direction,pulse,conductance_us\n"
GOOD = as_csv(drawn(EXACT, devices=1))


def way(fit, direction):
    return next(one for one in fit.directions if one.direction == direction)


def estimates(fit):
    """All figures of a fit that has both directions."""
    found = {
        "low": fit.g_min_us.mean,
        "high": fit.g_max_us.mean,
        "low_deviation": fit.g_min_us.deviation,
        "high_deviation": fit.g_max_us.deviation,
        "asymmetry": fit.asymmetry.mean,
        "asymmetry_deviation": fit.asymmetry.deviation,
        "read_noise": fit.read_noise_us,
    }
    for one in fit.directions:
        found |= {
            f"{one.direction} step": one.step_us.mean,
            f"{one.direction} step deviation": one.step_us.deviation,
            f"{one.direction} nonlinearity": one.nonlinearity.mean,
            f"{one.direction} nonlinearity deviation": one.nonlinearity.deviation,
            f"{one.direction} noise": one.step_noise_us,
            f"{one.direction} steps": one.steps,
        }
    return found


def truths(truth):
    """The same figures of the law itself."""
    up, down = truth.ways["up"], truth.ways["down"]
    # To first order 2 (u - d) / (u + d) varies with both steps, which are drawn apart.
    slope = 4 * up.step * down.step / (up.step + down.step) ** 2
    known = {
        "low": truth.low,
        "high": truth.high,
        "low_deviation": truth.low_deviation,
        "high_deviation": truth.high_deviation,
        "asymmetry": 2 * (up.step - down.step) / (up.step + down.step),
        "asymmetry_deviation": slope * math.hypot(up.step_deviation, down.step_deviation),
        "read_noise": truth.read_noise,
    }
    for direction, one in truth.ways.items():
        known |= {
            f"{direction} step": one.step,
            f"{direction} step deviation": one.step * one.step_deviation,
            f"{direction} nonlinearity": one.nonlinearity,
            f"{direction} nonlinearity deviation": one.nonlinearity_deviation,
            f"{direction} noise": one.noise,
            f"{direction} steps": (truth.high - truth.low) / one.step,
        }
    return known


# --- the fit ---


@pytest.mark.slow
@pytest.mark.parametrize("law", ["linear", "exponential"])
def test_intervals_hold_the_truth_as_often_as_they_say(law):
    truth, draws = Truth(law), 15
    known = truths(truth)
    held = dict.fromkeys(known, 0)
    for seed in range(draws):
        found = estimates(fit_pulses(drawn(truth, seed, devices=5)))
        assert found.keys() == known.keys()
        for name, one in found.items():
            assert one.low <= one.value <= one.high, name
            held[name] += one.low <= known[name] <= one.high
    # One figure in 15 draws: fewer than 11 once in 1,500 times at 95 %; all together at least 90 %.
    assert stats.binom.cdf(10, draws, 0.95) < 1 / 1500
    assert min(held.values()) >= 11, held
    assert sum(held.values()) >= 0.9 * draws * len(known), held


@pytest.mark.parametrize("law", ["linear", "exponential"])
def test_devices_without_noise_are_fitted_exactly(law):
    truth = dataclasses.replace(EXACT, law=law)
    sweeps = drawn(truth, devices=2)
    fit = fit_pulses(sweeps)
    assert fit.law == law
    # Whole pulses miss the ends by up to half a step, so mid range is not quite the law's.
    middle = (fit.g_min_us.mean.value + fit.g_max_us.mean.value) / 2
    assert abs(middle - 12.0) < 0.15
    for direction, one in truth.ways.items():
        found = way(fit, direction)
        step = truth.step(direction, one.step, one.nonlinearity, middle)
        assert found.step_us.mean.value == pytest.approx(step, rel=1e-4)
        assert found.step_us.deviation.value < 1e-4
        assert found.step_noise_us.value < 1e-4
    assert fit.read_noise_us.value < 1e-4
    for trace in fit.traces:
        assert trace.r2 == pytest.approx(1.0, abs=1e-6)
        for sweep, curve in zip(trace.sweeps, trace.curves, strict=True):
            np.testing.assert_allclose(curve, sweep.g_us, atol=2e-3)


def test_neurosims_curve_is_the_linear_law_and_its_a_is_found():
    """G = B (1 - exp(-P / A)) + G_min with B = (G_max - G_min) / (1 - exp(-P_max / A)), after NeuroSim."""
    a, pulse = 40.0, np.arange(101)
    g = 20.0 * (1 - np.exp(-pulse / a)) / (1 - math.exp(-100 / a)) + 1.0
    fit = fit_pulses([Sweep("x", "up", pulse, g)])
    assert fit.law == "linear"
    assert way(fit, "up").curve_pulses == pytest.approx(a, rel=1e-3)
    assert fit.g_min_us.mean.value == pytest.approx(1.0, abs=1e-6)
    assert fit.g_max_us.mean.value == pytest.approx(21.0, abs=1e-6)


def test_soft_bounds_are_a_nonlinearity_of_one():
    """aihwkit's SoftBoundsDevice: w <- w + dw_min (1 - w / w_max); n = 1 where the range ends at w_max."""
    w = [0.0]
    for _ in range(400):
        w.append(w[-1] + 0.3 * (1 - w[-1] / 20.0))
    fit = fit_pulses([Sweep("x", "up", np.arange(401), np.array(w))])
    assert fit.law == "linear"
    assert way(fit, "up").nonlinearity.mean.value == pytest.approx(1.0, abs=0.01)
    assert way(fit, "up").step_us.mean.value == pytest.approx(0.15, rel=0.01)


@pytest.mark.parametrize("law", ["linear", "exponential"])
def test_the_law_with_the_lower_criterion_is_taken(law):
    ways = {"up": Way(0.3, 0.8, 0.03, 0.1), "down": Way(0.3, 0.8, 0.03, 0.1)}
    fit = fit_pulses(drawn(Truth(law, read_noise=0.03, ways=ways), devices=3))
    assert fit.law == law
    assert fit.aic[law] == min(fit.aic.values()) < max(fit.aic.values()) - 10


def test_equal_steps_have_no_nonlinearity():
    fit = fit_pulses(drawn(Truth(ways={"up": Way(0.4, 0.0, 0.05)}), devices=4))
    one = way(fit, "up").nonlinearity.mean
    assert one.low < 0.0 < one.high
    assert abs(one.value) < 0.1


@pytest.mark.parametrize(("noise", "read_noise"), [(0.2, 0.02), (0.02, 0.2), (0.1, 0.1)])
def test_noise_of_steps_and_of_points_are_told_apart(noise, read_noise):
    truth = Truth(read_noise=read_noise, ways={"up": Way(0.4, 0.4, noise)})
    fit = fit_pulses(drawn(truth, seed=1, devices=8))
    found = way(fit, "up").step_noise_us
    assert found.low <= noise <= found.high
    assert fit.read_noise_us.low <= read_noise <= fit.read_noise_us.high
    assert found.value == pytest.approx(noise, abs=0.03)
    assert fit.read_noise_us.value == pytest.approx(read_noise, abs=0.03)


def test_points_after_every_third_pulse_give_the_same_step():
    truth = Truth(read_noise=0.05, ways={"up": Way(0.2, 0.5, 0.05, 0.1)})
    fine, coarse = (fit_pulses(drawn(truth, devices=5, every=every)) for every in (1, 3))
    for one in ("step_us", "nonlinearity"):
        a, b = getattr(way(fine, "up"), one).mean, getattr(way(coarse, "up"), one).mean
        assert a.value == pytest.approx(b.value, abs=0.2 * (b.high - b.low))
    noise = way(coarse, "up").step_noise_us
    assert noise.low <= 0.05 <= noise.high


def test_more_cycles_make_a_device_better_known():
    truth = dataclasses.replace(Truth(), low_deviation=0.0, high_deviation=0.0)
    once, often = (fit_pulses(drawn(truth, devices=1, cycles=cycles)) for cycles in (1, 4))
    for direction in ("up", "down"):
        widths = [way(fit, direction).step_us.mean for fit in (once, often)]
        assert widths[1].high - widths[1].low < 0.7 * (widths[0].high - widths[0].low)


def test_one_device_has_a_mean_and_says_nothing_of_a_spread():
    fit = fit_pulses(drawn(Truth(), devices=1))
    for one in (fit.g_min_us, fit.asymmetry, way(fit, "up").step_us, way(fit, "down").nonlinearity):
        assert one.mean.low < one.mean.value < one.mean.high
        assert all(math.isnan(x) for x in (one.deviation.value, one.deviation.low, one.deviation.high))


@pytest.mark.slow
def test_devices_that_are_alike_have_no_spread():
    ways = {"up": Way(0.3, 0.5, 0.05), "down": Way(0.3, 0.5, 0.05)}
    fit = fit_pulses(drawn(dataclasses.replace(EXACT, read_noise=0.05, ways=ways), devices=8))
    for one in fit.directions:
        assert one.step_us.deviation.low == 0.0
        assert one.step_us.deviation.value < 0.05 * one.step_us.mean.value


@pytest.mark.parametrize("direction", ["up", "down"])
def test_pulses_of_one_direction_are_enough(direction):
    fit = fit_pulses(drawn(Truth(ways={direction: Way(0.3, 0.5, 0.05, 0.1)}), devices=4))
    assert [one.direction for one in fit.directions] == [direction]
    assert fit.asymmetry is None
    step = way(fit, direction).step_us.mean
    assert step.low <= 0.3 <= step.high


def test_curves_explain_the_points():
    fit = fit_pulses(drawn(Truth(), devices=3))
    assert len(fit.traces) == 6
    for trace in fit.traces:
        assert 0.98 < trace.r2 < 1
        assert [len(curve) for curve in trace.curves] == [len(sweep.g_us) for sweep in trace.sweeps]
        grows = np.diff(trace.curves[0]) * (1 if trace.direction == "up" else -1)
        assert (grows > 0).all()


def test_sweeps_without_a_range_are_refused():
    level = Sweep("x", "up", np.arange(20), np.concatenate([[5.0], np.linspace(4, 6, 18), [5.0]]))
    with pytest.raises(DataError, match="no range"):
        fit_pulses([level])


# --- the reader ---


def table(rows, header=HEADER):
    return header + "\n".join(rows) + "\n"


def rising(n=12, device="a", direction="up"):
    return [f"{device},{direction},{i},{1 + i if direction == 'up' else 20 - i}" for i in range(n)]


def read(tmp_path, text):
    path = tmp_path / "pulses.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_pulses(path)


def test_what_was_written_is_read_back(tmp_path):
    sweeps = drawn(Truth(), devices=2, cycles=2)
    found = read_pulses(write_csv(tmp_path / "pulses.csv", sweeps))
    order = sorted(sweeps, key=lambda one: (one.device, one.direction == "down"))
    assert [(s.device, s.direction) for s in found] == [(s.device, s.direction) for s in order]
    for one, other in zip(found, order, strict=True):
        assert np.array_equal(one.pulse, other.pulse)
        assert np.array_equal(one.g_us, other.g_us)


def test_columns_may_come_in_any_order_with_others_between(tmp_path):
    rows = [f"{1 + i},x, {i} ,UP, a " for i in range(12)]
    (sweep,) = read(tmp_path, table(rows, "conductance_us,voltage,pulse,direction,device\n"))
    assert (sweep.device, sweep.direction) == ("a", "up")
    assert sweep.g_us.tolist() == [1 + i for i in range(12)]


def test_siemens_become_microsiemens(tmp_path):
    rows = [f"a,up,{i},{(1 + i) * 1e-6}" for i in range(12)]
    (sweep,) = read(tmp_path, table(rows, "device,direction,pulse,conductance_s\n"))
    np.testing.assert_allclose(sweep.g_us, 1.0 + np.arange(12), rtol=1e-12)


def test_comments_blank_lines_a_byte_order_mark_and_windows_line_ends_are_skipped(tmp_path):
    text = "\ufeff# by hand\r\n\r\n" + table(["# more", *rising(), "", ",,,"]).replace("\n", "\r\n")
    (sweep,) = read(tmp_path, text)
    assert len(sweep.pulse) == 12


def test_rows_of_several_devices_may_be_mixed(tmp_path):
    rows = [row for pair in zip(rising(device="a"), rising(device="b"), strict=True) for row in pair]
    assert [sweep.device for sweep in read(tmp_path, table(rows))] == ["a", "b"]


def test_a_pulse_number_that_does_not_grow_begins_a_sweep(tmp_path):
    sweeps = read(tmp_path, table(rising(8) + rising(8)))
    assert [len(sweep.pulse) for sweep in sweeps] == [8, 8]


REFUSED = {
    "": "empty; should begin with a header",
    "# nothing\n": "empty; should begin with a header",
    HEADER: "no rows",
    "device,direction,conductance_us\na,up,1\n": "line 1: column pulse missing; should be a header with",
    "a,b\n": "line 1: column device missing",
    "device,direction,pulse\n": "line 1: column conductance_us missing; .* .or conductance_s.",
    "device,direction,pulse,pulse,conductance_us\n": "line 1: column pulse more than once",
    "device,direction,pulse,conductance_us,conductance_s\n": "both conductance_us and conductance_s",
    table(["a,up,0,1", "a,up,1,nan"]): r'line 3, column conductance_us = "nan": should be a number',
    table(["a,up,0,inf"]): "line 2, column conductance_us",
    table(["a,up,0,1e9"]): "at most 10,000 uS",
    table(["a,up,0,"]): r'line 2, column conductance_us = "": should be a number',
    table(["a,up,0.5,1"]): r'line 2, column pulse = "0.5": should be a whole number from 0 to 10,000,000',
    table(["a,up,-1,1"]): "line 2, column pulse",
    table(["a,up,x,1"]): "line 2, column pulse",
    table(["a,left,0,1"]): r'line 2, column direction = "left": should be up or down',
    table([",up,0,1"]): "line 2, column device",
    table(["a,up,0"]): "line 2: 3 fields; should have 4, as the header has",
    table(["a,up,0,1,2"]): "line 2: 5 fields; should have 4",
    table(rising(10)): r'device "a", up: 9 steps in 1 sweeps; should be at least 10',
    table([f"a,up,1,{i}" for i in range(30)]): "0 steps in 30 sweeps",
    table([f"a,up,{200 * i},{i}" for i in range(12)]): "200 pulses between two points; should be at most 100",
    table([f"a,up,{i},5" for i in range(12)]): "the conductance does not change with the pulses",
    table([f"a,up,{i},{20 - i}" for i in range(12)]): "the conductance falls with the pulses; are",
    table([f"a,down,{i},{i}" for i in range(12)]): "the conductance rises with the pulses",
    table([*rising(), 'b,"up']): "line 14: .* fields|line 14: not CSV",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_a_bad_table_is_refused_in_one_line_that_says_where(tmp_path, text):
    with pytest.raises(DataError, match=REFUSED[text]) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "pulses.csv"))
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(DataError, match="byte 38 is not UTF-8"):
        read(tmp_path, HEADER.encode() + b"\xff")
    with pytest.raises(DataError):
        read(tmp_path, b"\0" * 100)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pulses, "MAX_FILE_BYTES", 100)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        read(tmp_path, GOOD)


@pytest.mark.parametrize(
    ("limit", "text", "message"),
    [("MAX_ROWS", GOOD, "more than 5 rows"), ("MAX_DEVICES", table(rising() * 6), None)],
)
def test_rows_are_counted(tmp_path, monkeypatch, limit, text, message):
    monkeypatch.setattr(pulses, limit, 5)
    if message is None:
        assert len(read(tmp_path, text)) == 6
    else:
        with pytest.raises(DataError, match=message):
            read(tmp_path, text)


def test_more_devices_than_can_be_fitted_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pulses, "MAX_DEVICES", 2)
    rows = [row for name in "abc" for row in rising(device=name)]
    with pytest.raises(DataError, match="3 devices; should be at most 2"):
        read(tmp_path, table(rows))


@pytest.mark.parametrize("name", ["missing.csv", ".", "with\0null"])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(DataError):
        read_pulses(f"{tmp_path}/{name}" if "\0" not in name else name)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "pulses.csv"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:  # random bytes are never a table with ten steps
        read_pulses(path)
    assert len(str(caught.value).splitlines()) == 1


FIELD = st.one_of(
    st.sampled_from(
        ["a", "b", "up", "down", "0", "1", "2.0", "-1", "1e308", "nan", "inf", "", '"', "1_0", "\0"]
    ),
    st.integers(-3, 300).map(str),
    st.floats().map(repr),
    st.text(max_size=4),
)


@pytest.mark.slow
@given(st.lists(st.lists(FIELD, min_size=3, max_size=5), max_size=40), st.booleans())
def test_no_table_breaks_the_reader(tmp_path_factory, rows, tail):
    path = tmp_path_factory.mktemp("fuzz") / "pulses.csv"
    lines = [",".join(row) for row in rows]
    path.write_text(table(rising() + lines if tail else lines), encoding="utf-8", errors="surrogatepass")
    try:
        sweeps = read_pulses(path)
    except DataError:
        return
    assert all(np.isfinite(sweep.g_us).all() and len(sweep.pulse) for sweep in sweeps)


@pytest.mark.slow
@given(
    st.lists(st.floats(-50, 50), min_size=11, max_size=30),
    st.sampled_from([1, 3]),
)
def test_whatever_is_read_is_fitted_or_refused_and_never_nan(tmp_path_factory, values, every):
    path = tmp_path_factory.mktemp("fuzz") / "pulses.csv"
    path.write_text(table([f"a,up,{every * i},{g!r}" for i, g in enumerate(values)]))
    try:
        fit = fit_pulses(read_pulses(path))
    except DataError:
        return
    step = way(fit, "up").step_us.mean
    assert math.isfinite(step.value)
    assert step.value > 0
    assert math.isfinite(way(fit, "up").nonlinearity.mean.value)
    assert math.isfinite(fit.read_noise_us.value)
