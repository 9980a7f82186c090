"""Energy and area are counts times constants; those of nature2018 meet what they were calibrated to."""

import dataclasses
import random

import pytest

from pcmc.accel.chip import load_chip
from pcmc.accel.costs import Events, area_mm2, energy_j

CHIP = load_chip("nature2018")
FIELDS = [field.name for field in dataclasses.fields(Events)]

# The event whose energy each component is, and the constant that prices it.
PRICES = {
    "cells": ("cell_reads", "cell_read_j"),
    "dac": ("dac_conversions", "dac_conversion_j"),
    "adc": ("adc_conversions", "adc_conversion_j"),
    "digital": ("digital_ops", "digital_op_j"),
    "buffer": ("buffer_bytes", "buffer_byte_j"),
    "link": ("link_byte_hops", "link_byte_hop_j"),
    "chip_link": ("chip_link_bytes", "chip_link_byte_j"),
}


def test_events_add_field_by_field_and_sum_from_nothing():
    one = Events(*range(1, 8))
    ten = Events(*(10 * i for i in range(1, 8)))
    assert one + ten == Events(*(11 * i for i in range(1, 8)))
    assert sum([one, one, one], Events()) == 3 * one


def test_events_scale_field_by_field_from_both_sides():
    one = Events(*range(1, 8))
    assert one * 2.5 == 2.5 * one == Events(*(2.5 * i for i in range(1, 8)))


def test_events_refuse_to_be_added_to_a_number_or_multiplied_by_events():
    with pytest.raises(TypeError):
        Events() + 1
    with pytest.raises(TypeError):
        Events() * Events()


def test_every_event_has_one_component_with_its_own_price():
    assert sorted(event for event, _ in PRICES.values()) == sorted(FIELDS)
    for component, (event, price) in PRICES.items():
        energy = energy_j(Events(**{event: 1000.0}), CHIP)
        assert energy.keys() == PRICES.keys()
        assert energy.pop(component) == pytest.approx(1000.0 * getattr(CHIP.costs, price), rel=1e-12, abs=0)
        assert set(energy.values()) == {0.0}


def test_energy_of_a_sum_is_the_sum_of_the_energies():
    rng = random.Random(3)
    a, b = (Events(*(rng.uniform(0, 1e6) for _ in FIELDS)) for _ in range(2))
    both, of_a, of_b = energy_j(a + b, CHIP), energy_j(a, CHIP), energy_j(b, CHIP)
    for component, energy in both.items():
        assert energy == pytest.approx(of_a[component] + of_b[component], rel=1e-12, abs=0)


def test_area_counts_converters_by_rows_and_columns_and_one_digital_unit_a_chip():
    area = area_mm2(CHIP, 3)
    assert area == {
        "cells": pytest.approx(3 * 4 * 513 * 100 * CHIP.costs.cell_um2 * 1e-6),
        "dac": pytest.approx(3 * 4 * 513 * CHIP.costs.dac_um2 * 1e-6),
        "adc": pytest.approx(3 * 4 * 100 * CHIP.costs.adc_um2 * 1e-6),
        "digital": pytest.approx(3 * CHIP.costs.digital_unit_mm2),
        "router": pytest.approx(3 * 4 * CHIP.costs.router_mm2),
    }


def test_no_chips_have_no_area():
    assert set(area_mm2(CHIP, 0).values()) == {0.0}


def full_tile_read() -> Events:
    """One read of a full tile, counted as in docs/chips.md; its 100 outputs cross one link."""
    return Events(51_300, 513, 100, 100, 512 + 100, 100)


def test_nature2018_meets_the_energy_it_was_calibrated_to():
    # Ambrogio 2018, abstract: 28,065 GOP/s/W; a multiply-accumulate is two operations.
    # (abs=0: pytest.approx otherwise takes any two energies below 1e-12 J as equal.)
    published_j = 2 / 28_065e9
    ours_j = sum(energy_j(full_tile_read(), CHIP).values()) / 51_300
    assert published_j == pytest.approx(71.3e-15, rel=1e-3, abs=0)
    assert ours_j == pytest.approx(published_j, rel=5e-3, abs=0)


def test_nature2018_meets_the_area_it_was_calibrated_to():
    # Ambrogio 2018, abstract: 3.6 TOP/s/mm2, at six operations a synapse in 240 ns (our reading).
    published_um2 = 6 / 240e-9 / 3.6e12 * 1e6
    ours_um2 = sum(area_mm2(CHIP, 1).values()) * 1e6 / 205_200
    assert ours_um2 == pytest.approx(published_um2, rel=5e-3)


def test_nature2018_cell_energy_is_a_plausible_read_voltage():
    # E = G V^2 t at 10 uS and 40 ns; aihwkit's IR-drop model reads at 0.4 V.
    volts = (CHIP.costs.cell_read_j / (10e-6 * 40e-9)) ** 0.5
    assert 0.2 < volts < 0.4
