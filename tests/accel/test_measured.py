"""A user's own cell obeys the laws that its file gives: targets, errors, pulses, noise, drift; or is refused.

Tolerances are five standard errors at the sample size used; distributions a Kolmogorov-Smirnov p-value of
1e-3. The seeds are fixed.
"""

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy import stats

from pcmc.accel.cells.measured import MeasuredCell
from pcmc.accel.fields import take_section
from pcmc.accel.measured_spec import MeasuredCellSpec
from pcmc.accel.random import stream
from pcmc.errors import ChipError

SHAPE = (200, 250)
N = SHAPE[0] * SHAPE[1]

PLAIN = {"kind": "measured", "g_min_us": 1.0, "g_max_us": 21.0}
PULSES = PLAIN | {"step_up_us": 0.5, "nonlinearity_up": 0.4, "step_up_noise_us": 0.1}
SPREAD = PULSES | {"step_up_deviation": 0.2, "nonlinearity_up_deviation": 0.1}
NOISE = {"read_noise_scale": 0.01, "read_noise_exponent": -0.5, "t0_s": 10.0, "t_read_s": 1e-6}
DRIFT = {"drift_mean_points": [[0, 0.02], [30, 0.05]], "t0_s": 10.0}
TABLE = {"read_noise_points_us": [[0, 0.1], [10, 0.3], [30, 0.3]]}


def spec(**fields):
    """A checked description, as from a chip file."""
    found = take_section(MeasuredCellSpec, "cell", PLAIN | fields, "mine.toml")
    found.check()
    return found


def cell(**fields):
    return MeasuredCell(spec(**fields))


def rng(step=0):
    return stream(0, (0,), "measured", step)


def block(value, shape=SHAPE):
    return np.full(shape, value, np.float32)


def devices(one, value):
    """Cells programmed exactly to W = `value`."""
    return one.program(block(value), None)


def assert_moments(sample, mean, variance):
    sample = np.asarray(sample, np.float64).ravel()
    assert abs(sample.mean() - mean) < 5 * math.sqrt(variance / len(sample))
    spread = np.var((sample - mean) ** 2)  # of squares, whatever the distribution
    assert abs(np.mean((sample - mean) ** 2) - variance) < 5 * math.sqrt(spread / len(sample))


# --- targets ---


@pytest.mark.parametrize("fields", [{}, {"step_up_us": 0.5}, {"step_down_us": 0.5}, TABLE])
def test_weights_written_without_error_are_read_as_they_were(fields):
    one = cell(**fields)
    target = np.linspace(-20, 20, N, dtype=np.float32).reshape(SHAPE)
    target.flags.writeable = False
    found = one.program(target, None)
    np.testing.assert_allclose(one.weights_us(found), target, atol=2e-5)
    assert one.gains == (1.0,)
    assert one.full_us == 20.0
    for g in (found.g_plus, found.g_minus):
        assert g.dtype == np.float32
        assert not g.flags.writeable
        assert g.min() >= 1.0
        assert g.max() <= 21.0


def test_devices_with_pulses_down_only_are_erased_at_the_top():
    found = cell(step_down_us=0.5).program(np.array([[5.0, -5.0, 0.0]], np.float32), None)
    assert found.g_plus.tolist() == [[21.0, 16.0, 21.0]]
    assert found.g_minus.tolist() == [[16.0, 21.0, 21.0]]


def test_a_weight_goes_to_the_nearest_level():
    one = cell(levels_us=[1, 2, 5, 21])
    target = np.array([[0.0, 0.4, 0.6, 2.4, 2.6, 11.9, 12.1, 20.0, -0.6]], np.float32)
    found = one.weights_us(one.program(target, None))
    assert found.tolist() == [[0, 0, 1, 1, 4, 4, 20, 20, -1]]


def test_errors_are_about_the_level():
    one = cell(levels_us=[1, 11, 21], programming_error_us=[0.2])
    found = one.program(block(8.0), rng())
    assert_moments(found.g_plus, 11.0, 0.04)


def test_weights_beyond_the_range_are_counted_and_end_at_its_end():
    one = cell()
    target = np.array([[0.0, 20.0, -20.0, 25.0, -1e30]], np.float32)
    assert one.clipped(target) == 2
    assert one.weights_us(one.program(target, None)).tolist() == [[0, 20, -20, 20, -20]]


@pytest.mark.parametrize(
    "target", [np.zeros((2, 2)), np.zeros(3, np.float32), np.zeros((1, 1, 1), np.float32)]
)
def test_other_arrays_than_float32_blocks_are_refused(target):
    with pytest.raises(TypeError, match="float32"):
        cell().program(target, None)


@pytest.mark.parametrize("fields", [SPREAD, {"programming_error_us": [0.3]}, {}])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (1, 65_537)])
def test_any_block_gives_finite_conductances_of_its_shape(fields, shape):
    one = cell(**fields)
    found = one.program(block(7.0, shape), rng(), rng(1))
    assert found.g_plus.shape == found.g_minus.shape == one.weights_us(found).shape == shape
    assert np.isfinite(one.weights_us(found)).all()


def test_stuck_devices_are_at_the_ends_of_the_range():
    one = cell(stuck_low_fraction=0.1, stuck_high_fraction=0.05)
    g = one.program(block(8.0), None, rng()).g_plus
    for level, share in ((1.0, 0.1), (21.0, 0.05)):
        assert abs(np.mean(g == level) - share) < 5 * math.sqrt(share * (1 - share) / N)


# --- closed-loop writing ---


@pytest.mark.parametrize(
    ("fields", "sigma"),
    [
        ({"programming_error_us": [0.2, 0.05, -0.001]}, lambda g: 0.2 + 0.05 * g - 0.001 * g**2),
        (
            {"programming_error_points_us": [[1, 0.2], [11, 0.8], [21, 0.4]]},
            lambda g: np.interp(g, [1, 11, 21], [0.2, 0.8, 0.4]),
        ),
    ],
)
@pytest.mark.parametrize("g", [6.0, 13.0])
def test_closed_loop_errors_are_gaussian_with_the_files_deviation(fields, sigma, g):
    found = cell(**fields).program(block(g - 1.0), rng()).g_plus.ravel().astype(np.float64)
    assert_moments(found, g, sigma(g) ** 2)
    assert stats.kstest(found[:20_000], stats.norm(g, sigma(g)).cdf).pvalue > 1e-3


def test_no_conductance_is_below_zero():
    found = cell(g_min_us=0.0, programming_error_us=[1.0]).program(block(0.0), rng())
    assert found.g_plus.min() == found.g_minus.min() == 0.0
    assert abs(np.mean(found.g_plus == 0) - 0.5) < 5 * 0.5 / math.sqrt(N)


def test_the_erased_device_errs_as_the_other_does():
    found = cell(programming_error_us=[0.1, 0.01]).program(block(8.0), rng())
    assert_moments(found.g_minus, 1.0, 0.11**2)


# --- writing by pulses ---


def law(name, n, z):
    return 1 - n * z if name == "linear" else math.exp(-n * z)


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("name", ["linear", "exponential"])
@pytest.mark.parametrize("w", [4.0, 10.0, 17.0])
def test_a_write_by_pulses_misses_by_half_a_step_and_the_noise_of_one(direction, name, w):
    fields = {
        "pulse_law": name,
        f"step_{direction}_us": 0.5,
        f"nonlinearity_{direction}": 0.4,
        f"step_{direction}_noise_us": 0.1,
    }
    found = cell(**fields).program(block(w if direction == "up" else -w), rng()).g_plus
    target = 1.0 + w if direction == "up" else 21.0 - w
    step = 0.5 * law(name, 0.4, 2 * w / 20 - 1)
    error = found.ravel().astype(np.float64) - target
    assert_moments(error, 0.0, step**2 / 12 + 0.1**2)

    def cdf(x):  # of a uniform and a normal number together
        up, down = (x + step / 2) / 0.1, (x - step / 2) / 0.1
        return (
            0.1
            / step
            * (
                up * stats.norm.cdf(up)
                + stats.norm.pdf(up)
                - down * stats.norm.cdf(down)
                - stats.norm.pdf(down)
            )
        )

    assert stats.kstest(error[:20_000], cdf).pvalue > 1e-3
    assert stats.kstest(error[:20_000] * 1.1, cdf).pvalue < 1e-3  # a law 10 % off would be found


def test_devices_differ_in_step_and_nonlinearity():
    w, z = 17.0, 0.7
    found = cell(**SPREAD).program(block(w), rng()).g_plus
    variance = 0.5**2 * (1 + 0.2**2) * ((1 - 0.4 * z) ** 2 + (0.1 * z) ** 2) / 12 + 0.1**2
    assert_moments(found, 1.0 + w, variance)


def test_a_device_whose_target_is_less_than_half_a_step_away_gets_no_pulse():
    one = cell(**PULSES)
    step = 0.5 * law("linear", 0.4, -1)
    found = one.program(np.array([[0.0, step * 0.4]], np.float32).repeat(100, 0), rng())
    assert (found.g_plus == 1.0).all()
    assert (found.g_minus == 1.0).all()
    assert (one.program(block(step * 0.6), rng()).g_plus != 1.0).all()


def test_ends_of_the_range_differ_from_device_to_device():
    one = cell(**PULSES, g_min_deviation_us=0.2, g_max_deviation_us=1.0)
    found = one.program(block(20.0), rng())
    assert_moments(found.g_minus, 1.0, 0.2**2)
    # The ends are N(21, 1); a device gets to its own or, if that is higher, to about its target.
    g = found.g_plus.ravel().astype(np.float64)
    below = g < 20.5  # out of reach of the error about the target
    assert abs(below.mean() - stats.norm.cdf(-0.5)) < 5 * math.sqrt(0.3 * 0.7 / N)
    assert (
        stats.kstest(g[below][:20_000], lambda x: stats.norm.cdf(x - 21) / stats.norm.cdf(-0.5)).pvalue > 1e-3
    )
    assert g.max() < 21.0 + 0.3 + 0.6


def test_steps_never_have_the_other_sign():
    one = cell(step_up_us=1.0, nonlinearity_up=5.0)  # 1 - n z is negative above z = 0.2
    error = one.program(block(18.0), rng()).g_plus - 19.0
    assert (error == 0).all()


def test_extreme_laws_stay_finite():
    fields = {"step_up_deviation": 10.0, "nonlinearity_up_deviation": 5.0, "step_up_noise_us": 1e4}
    one = cell(
        g_min_us=0.0, g_max_us=1e4, pulse_law="exponential", step_up_us=1e4, nonlinearity_up=-10.0, **fields
    )
    for w in (0.0, 5e3, 1e4):
        assert np.isfinite(one.weights_us(one.program(block(w), rng()))).all()


# --- read noise ---


def relative_sigma(g, at_s):
    x = g / 21.0
    return g * 0.01 * x**-0.5 * math.sqrt(math.log((at_s + 1e-6) / 2e-6))


@pytest.mark.parametrize("at_s", [10.0, 3600.0])
def test_relative_read_noise_is_the_files_law(at_s):
    one = cell(**NOISE)
    written = devices(one, 9.0)
    found = one.age(written, at_s, rng()).g_plus.ravel().astype(np.float64)
    assert_moments(found, 10.0, relative_sigma(10.0, at_s) ** 2)
    assert stats.kstest(found[:20_000], stats.norm(10.0, relative_sigma(10.0, at_s)).cdf).pvalue > 1e-3
    both = relative_sigma(10.0, at_s) ** 2 + relative_sigma(1.0, at_s) ** 2
    np.testing.assert_allclose(one.noise_variance(written, at_s), both, rtol=1e-4)


def test_relative_read_noise_is_bounded_and_nothing_at_nothing():
    one = cell(g_min_us=0.0, **NOISE, read_noise_max=0.02)
    variance = one.noise_variance(devices(one, 1.0))
    np.testing.assert_allclose(variance, (0.02 * math.sqrt(math.log((10 + 1e-6) / 2e-6))) ** 2, rtol=1e-4)


def test_slow_and_fast_noise_add_up():
    one = cell(**NOISE)
    written = devices(one, 9.0)
    slow, fast, both = (one.noise_variance(written, 100.0, part=part) for part in ("slow", "fast", "all"))
    np.testing.assert_allclose(slow + fast, both, rtol=1e-6)
    np.testing.assert_allclose(slow / both, math.log(100 / 1e-3) / math.log(100 / 2e-6), rtol=1e-4)


def test_read_noise_of_a_table_follows_its_points_and_is_all_fast():
    one = cell(**TABLE)
    written = devices(one, 4.0)  # at 5 and 1 uS: 0.2 and 0.12
    np.testing.assert_allclose(one.noise_variance(written), 0.2**2 + 0.12**2, rtol=1e-5)
    np.testing.assert_allclose(one.noise_variance(written, part="fast"), 0.2**2 + 0.12**2, rtol=1e-5)
    assert (one.noise_variance(written, part="slow") == 0).all()
    assert one.age(written, None, rng(), part="slow") is written
    found = one.age(written, None, rng())
    assert_moments(found.g_plus, 5.0, 0.2**2)
    assert_moments(found.g_minus, 1.0, 0.12**2)


# --- drift ---


def test_drift_of_a_table_has_the_mean_and_deviation_of_its_points():
    one = cell(**DRIFT, drift_deviation_points=[[1, 0.01], [21, 0.01]])
    found = one.age(devices(one, 9.0), 1000.0, drift=rng()).g_plus
    nu = -np.log(found.astype(np.float64) / 10.0) / math.log(100.0)
    assert_moments(nu, 0.03, 0.01**2)
    assert stats.kstest(nu.ravel()[:20_000], stats.norm(0.03, 0.01).cdf).pvalue > 1e-3


def test_drift_may_go_up_but_not_beyond_the_range():
    one = cell(t0_s=1.0, drift_mean_points=[[0, -0.1], [30, -0.1]])
    for w, found in ((4.0, 5.0 * 1e5**0.1), (19.0, 21.0)):
        np.testing.assert_allclose(one.age(devices(one, w), 1e5, drift=rng()).g_plus, found, rtol=1e-5)


def test_drift_by_a_log_law_is_that_of_pcm():
    one = cell(t0_s=20.0, drift_mean=[-0.0155, 0.0244, 0.049, 0.1], drift_deviation=[0, 0, 0.02, 0.02])
    found = one.age(devices(one, 9.0), 2e4, drift=rng()).g_plus
    nu = -np.log(found.astype(np.float64) / 10.0) / math.log(1000.0)
    folded = stats.foldnorm(0.049 / 0.02, scale=0.02)
    assert_moments(nu, folded.mean(), folded.var())
    assert nu.min() >= 0


def test_at_the_first_read_nothing_has_drifted():
    one = cell(**DRIFT)
    written = devices(one, 9.0)
    assert one.age(written, 10.0, drift=rng()) is written
    assert one.age(written, None, drift=rng()) is written


def test_noise_belongs_to_what_has_become_of_a_device():
    one = cell(**(DRIFT | NOISE))
    written = devices(one, 9.0)
    now = one.age(written, 1e5, drift=rng(1))
    found = one.noise_variance(written, 1e5, rng(1))
    scale = math.log((1e5 + 1e-6) / 2e-6) * 0.01**2 * 21
    wanted = scale * (now.g_plus.astype(np.float64) ** 2 / 10 + now.g_minus.astype(np.float64) ** 2 / 1)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize(("fields", "at_s"), [(NOISE, 9.0), (NOISE, math.nan), ({}, -1.0), ({}, math.inf)])
def test_a_time_before_the_first_read_is_refused(fields, at_s):
    one = cell(**fields)
    with pytest.raises(ChipError, match=r"read at .* must be at least"):
        one.age(devices(one, 1.0), at_s)


def test_an_effect_without_a_law_is_refused():
    one = cell()
    written = devices(one, 1.0)
    with pytest.raises(ChipError, match=r"read_noise: the .cell. of kind measured gives no law"):
        one.age(written, noise=rng())
    with pytest.raises(ChipError, match=r"drift: the .cell. of kind measured gives no law"):
        one.age(written, drift=rng())
    assert one.age(written, 1e9) is written


@pytest.mark.parametrize(
    ("fields", "effects"),
    [
        ({}, ()),
        ({"levels_us": [1, 21]}, ()),
        ({"programming_error_us": [0.1]}, ("programming_error",)),
        ({"step_down_us": 0.1}, ("programming_error",)),
        (NOISE | DRIFT, ("read_noise", "drift")),
        (TABLE | {"stuck_low_fraction": 0.1}, ("read_noise", "stuck")),
    ],
)
def test_the_effects_are_those_that_have_a_law(fields, effects):
    assert spec(**fields).effects == effects


# --- what is refused ---

REFUSED = [
    ({"g_min_us": 21.0}, "g_min_us = 21: must be less than g_max_us = 21 uS"),
    ({"g_max_fit_us": 20.0}, "g_max_us = 21: must be at most g_max_fit_us = 20 uS"),
    (
        {"levels_us": [1, 5, 4, 21]},
        "levels_us = [1.0, 5.0, 4.0, 21.0]: must rise from g_min_us = 1 to g_max_us = 21",
    ),
    ({"levels_us": [1, 20]}, "levels_us = [1.0, 20.0]: must rise from g_min_us = 1"),
    ({"levels_us": [1, -2]}, "[cell] levels_us = [1, -2]: must be a list of 0 to 4096 numbers from 0"),
    (
        {"programming_error_us": [0.1], "programming_error_points_us": [[0, 1], [30, 1]]},
        "programming_error_points_us = [[...], [...]]: must be left out where programming_error_us is given",
    ),
    (
        {"programming_error_us": [0.1, -0.01]},
        "must not give a negative standard deviation, as it does at 10.2 uS",
    ),
    (
        {"programming_error_us": [0.1], "step_up_us": 0.5},
        "programming_error_us = [0.1]: must be left out where a step",
    ),
    ({"programming_error_points_us": [[2, 1], [30, 1]]}, "must reach from g_min_us = 1 to g_max_us = 21 uS"),
    ({"programming_error_points_us": [[0, 1], [20, 1]]}, "and not from 0 to 20"),
    (
        {"programming_error_points_us": [[0, 1]]},
        "must be a list of 2 to 1,000 pairs [G, value], G in uS and rising",
    ),
    ({"programming_error_points_us": [[0, 1], [0, 2]]}, "must be a list of 2 to 1,000 pairs"),
    ({"programming_error_points_us": [[0, 1], [30, -1]]}, "the value from 0 to 10,000"),
    ({"programming_error_points_us": [[0, 1], [30]]}, "must be a list of 2 to 1,000 pairs"),
    ({"programming_error_points_us": [0, 1, 2]}, "must be a list of 2 to 1,000 pairs"),
    ({"read_noise_points_us": "loud"}, "must be a list of 2 to 1,000 pairs"),
    (
        NOISE | TABLE,
        "read_noise_points_us = [[...], [...], [...]]: must be left out where read_noise_scale is given",
    ),
    (NOISE | {"t_read_s": 0.0}, "t_read_s = 0: must be more than 0 and at most t0_s = 10 s"),
    (NOISE | {"t0_s": 1e-7}, "t_read_s = 1e-06: must be more than 0 and at most t0_s = 1e-07 s"),
    (DRIFT | {"t0_s": 0.0}, "t0_s = 0: must be more where there is drift"),
    ({"drift_mean": [0, 0, 0.1, 0.1], "t0_s": 1.0}, "drift_deviation = []: must be given too"),
    ({"drift_deviation": [0, 0, 0.1, 0.1], "t0_s": 1.0}, "drift_mean = []: must be given too"),
    (
        DRIFT | {"drift_mean": [0, 0, 0.1, 0.1]},
        "drift_mean_points = [[...], [...]]: must be left out where drift_mean",
    ),
    ({"drift_deviation_points": [[0, 0.1], [30, 0.1]]}, "drift_mean_points = []: must be given too"),
    (
        {"drift_mean": [0, 0, 0.2, 0.1], "drift_deviation": [0, 0, 0, 0], "t0_s": 1.0},
        "drift_mean = [0.0, 0.0, 0.2, 0.1]: must be [] or slope, offset, low and high",
    ),
    ({"step_up_us": 20.5}, "step_up_us = 20.5: must be at most g_max_us - g_min_us = 20 uS"),
    (
        {"step_up_us": 0.5, "nonlinearity_down": 0.1},
        "nonlinearity_down = 0.1: must be left out where step_down_us is",
    ),
    ({"step_up_noise_us": 0.1}, "step_up_noise_us = 0.1: must be left out where step_up_us is"),
    ({"g_max_deviation_us": 0.1}, "g_max_deviation_us = 0.1: must be left out where no step is given"),
    ({"pulse_law": "cubic"}, '[cell] pulse_law = "cubic": must be one of "linear", "exponential"'),
    (
        {"stuck_low_fraction": 0.7, "stuck_high_fraction": 0.6},
        "stuck_high_fraction = 0.6: must be at most 1 -",
    ),
    ({"colour": 1}, "mine.toml: [cell] colour: unknown field"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_a_contradiction_is_refused_by_the_name_of_its_field(fields, message):
    with pytest.raises(ChipError, match=re.escape(message)) as caught:
        spec(**fields)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "field",
    [one for one in dataclasses.fields(MeasuredCellSpec) if one.name != "kind"],
    ids=lambda one: one.name,
)
@pytest.mark.parametrize("value", [-1e9, math.nan, "x", True, {}, [math.nan, 1.0]])
def test_a_value_out_of_range_or_of_another_type_is_refused(field, value):
    with pytest.raises(ChipError, match=rf"mine.toml: \[cell\] {field.name} = .*: must be"):
        spec(**{field.name: value})
