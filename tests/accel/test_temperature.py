"""Temperature: conduction is activated, 1/f noise goes with it, the capacitor's leak too; off by default."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from pcmc.accel.cell_specs import CapacitorCellSpec, TwoTierCellSpec, arrhenius
from pcmc.accel.cells import make_cell
from pcmc.accel.cells.pcm import mean_drift
from pcmc.accel.chip import chip_names, load_chip
from pcmc.accel.random import stream
from pcmc.errors import ChipError

K_EV = 8.617333262e-5  # Boltzmann's constant, CODATA 2018
HOUR = 3600.0
SHAPE = (250, 400)
COLD_SPEC = load_chip("nature2018").cell
assert isinstance(COLD_SPEC, TwoTierCellSpec)
RESET_EV, SET_EV = 0.25, 0.05
WARM_SPEC = dataclasses.replace(
    COLD_SPEC, temperature_k=358.15, activation_reset_ev=RESET_EV, activation_set_ev=SET_EV
)
COLD, WARM = make_cell(COLD_SPEC), make_cell(WARM_SPEC)
CAPACITOR = CapacitorCellSpec(
    kind="3t1c", g_low_us=4.0, g_high_us=20.0, g_reference_us=12.0, steps=400, leak_tau_s=5.16e-3
)


def rng(effect):
    return stream(0, (0,), effect)


def programmed(cell, g):
    """Pairs whose G+ is exactly `g`, in uS."""
    return cell.program(np.full(SHAPE, g * cell.spec.significance, np.float32), None)


def factor(g, temperature_k=358.15):
    """exp(-(Ea/k)(1/T - 1/T0)), Ea linear from RESET to SET."""
    activation = RESET_EV + (SET_EV - RESET_EV) * min(g / 25.0, 1.0)
    return math.exp(-activation / K_EV * (1 / temperature_k - 1 / 300.0))


def test_from_25_to_85_degrees_an_activated_conductance_grows_as_calculated_by_hand():
    # 2.7, 3.7 and 5.1 times at 0.15, 0.20 and 0.25 eV.
    for activation, times in ((0.15, 2.7), (0.20, 3.7), (0.25, 5.1)):
        warm, cold = arrhenius(activation, 358.15), arrhenius(activation, 298.15)
        assert warm / cold == pytest.approx(times, abs=0.05)


@pytest.mark.parametrize("g", [0.5, 5.0, 20.0])
@pytest.mark.parametrize("temperature_k", [250.0, 300.0, 358.15])
def test_conductances_are_multiplied_by_their_activation_at_the_first_read(g, temperature_k):
    cell = make_cell(dataclasses.replace(WARM_SPEC, temperature_k=temperature_k))
    found = cell.age(programmed(cell, g), 20.0, None, rng("d")).g_plus
    np.testing.assert_allclose(found, g * factor(g, temperature_k), rtol=1e-5)


def test_drift_goes_on_unchanged_beside_the_temperature():
    cold, warm = (cell.age(programmed(cell, 10.0), HOUR, None, rng("d")).g_plus for cell in (COLD, WARM))
    np.testing.assert_allclose(warm, cold * np.float32(factor(10.0)), rtol=1e-5)


def test_read_noise_is_proportional_to_the_conductance_at_that_temperature():
    devices = programmed(WARM, 10.0)
    plus, _ = WARM.device_variances(devices, HOUR, rng("d"))
    cold, _ = COLD.device_variances(devices, HOUR, rng("d"))
    np.testing.assert_allclose(plus, cold * factor(10.0) ** 2, rtol=1e-4)
    relative = 0.0088 * (10.0 / 25.0) ** -0.65 * math.sqrt(math.log((20.0 + 250e-9) / 500e-9))
    sigma = 10.0 * factor(10.0) * relative
    found = WARM.age(devices, 20.0, rng("n"), rng("d")).g_plus.astype(np.float64).ravel()
    assert found.std() == pytest.approx(sigma, rel=5 / math.sqrt(2 * found.size))
    assert stats.kstest(found, stats.norm(10.0 * factor(10.0), sigma).cdf).pvalue > 1e-3


def test_a_device_at_reset_stays_at_zero_when_warm():
    assert not WARM.age(programmed(WARM, 10.0), HOUR, None, rng("d")).g_minus.any()


def test_the_temperature_is_part_of_drift_and_off_without_it():
    devices = programmed(WARM, 10.0)
    assert WARM.age(devices, HOUR) is devices
    assert (WARM.noise_variance(devices, HOUR) == COLD.noise_variance(devices, HOUR)).all()


def test_a_cell_without_a_law_of_nu_can_still_be_activated():
    still = dataclasses.replace(WARM_SPEC, drift_mean=(), drift_deviation=())
    cell = make_cell(still)
    assert "drift" in still.effects
    found = cell.age(programmed(cell, 10.0), HOUR, None, rng("d")).g_plus
    np.testing.assert_allclose(found, 10.0 * factor(10.0), rtol=1e-5)


def test_the_mean_drift_has_the_factor_of_temperature():
    cold, warm = mean_drift(10.0, COLD_SPEC, HOUR), mean_drift(10.0, WARM_SPEC, HOUR)
    assert warm == pytest.approx(cold * factor(10.0), rel=1e-6)


def test_at_300_kelvin_activation_changes_no_bit():
    cell = make_cell(dataclasses.replace(WARM_SPEC, temperature_k=300.0))
    devices = programmed(cell, 10.0)
    assert (
        cell.age(devices, HOUR, rng("n"), rng("d")).g_plus
        == COLD.age(devices, HOUR, rng("n"), rng("d")).g_plus
    ).all()


@pytest.mark.parametrize("temperature_k", [1.0, 1000.0])
def test_extreme_temperatures_give_finite_numbers(temperature_k):
    spec = dataclasses.replace(
        COLD_SPEC, temperature_k=temperature_k, activation_reset_ev=1.0, activation_set_ev=1.0, leak_ev=1.0
    )
    cell = make_cell(spec)
    aged = cell.age(programmed(cell, 20.0), HOUR, rng("n"), rng("d"))
    assert np.isfinite(aged.g_plus).all()
    assert np.isfinite(cell.noise_variance(aged, HOUR, rng("d"))).all()
    assert 0 < spec.leak_tau_now_s < math.inf


@pytest.mark.parametrize("temperature_k", [280.0, 300.0, 310.0])
def test_the_leak_of_a_capacitor_is_activated(temperature_k):
    cell = make_cell(dataclasses.replace(CAPACITOR, leak_ev=0.56, temperature_k=temperature_k))
    tau = 5.16e-3 * math.exp(0.56 / K_EV * (1 / temperature_k - 1 / 300.0))
    devices = cell.program(np.full(SHAPE, 4.0, np.float32), None)
    found = cell.age(devices, 2e-3, None, rng("d")).g_plus
    np.testing.assert_allclose(found, 4.0 * math.exp(-2e-3 / tau), rtol=1e-5)


def test_a_leak_with_half_the_gap_of_silicon_is_twice_as_fast_ten_kelvin_warmer():
    cold, warm = (
        dataclasses.replace(CAPACITOR, leak_ev=0.56, temperature_k=t).leak_tau_now_s for t in (300.0, 310.0)
    )
    assert cold / warm == pytest.approx(2.0, abs=0.05)


def test_the_low_tier_leaks_at_its_temperature_and_is_gone_after_ten_of_its_time_constants():
    cell = make_cell(dataclasses.replace(WARM_SPEC, leak_ev=0.56))
    tau = 5.16e-3 * math.exp(0.56 / K_EV * (1 / 358.15 - 1 / 300.0))
    target = np.full(SHAPE, 10.0, np.float32)
    devices = cell.tune_low(cell.program(target * np.float32(0.9), None), target, None)
    found = cell.age(devices, tau, None, rng("d")).low
    np.testing.assert_allclose(found, math.exp(-1.0), rtol=1e-4)
    assert cell.low_tier_counts(9.9 * tau)
    assert not cell.low_tier_counts(10.1 * tau)
    with pytest.raises(ChipError, match=r"must be at least 20 s"):
        cell.age(devices, 11 * tau, None, rng("d"))


def test_no_shipped_chip_has_an_activation_energy_since_no_source_gives_one_of_its_devices():
    for name in chip_names():
        cell = load_chip(name).cell
        for field in ("activation_reset_ev", "activation_set_ev", "leak_ev"):
            assert getattr(cell, field, 0.0) == 0.0
        assert getattr(cell, "temperature_k", 300.0) == 300.0
