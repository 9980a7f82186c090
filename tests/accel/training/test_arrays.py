"""Which cells a chip gives a trainer, behind which converters, and what it refuses."""

import math

import numpy as np
import pytest
from effects_measures import BEYOND
from trained_cells import NATURE, RANGE, capacitor_chip, changed, layout, make, spread_weights, two_blocks

from pcmc.accel.chip import load_chip
from pcmc.accel.physics import Physics, resolve
from pcmc.accel.training.arrays import TrainedBank, trained_bank
from pcmc.accel.training.bank import Pulses
from pcmc.accel.training.capacitor import CapacitorCells
from pcmc.accel.training.exact import ExactCells
from pcmc.accel.training.layout import weight_range
from pcmc.accel.training.two_tier import TwoTierCells
from pcmc.errors import ChipError

WEIGHTS = spread_weights(6, 5)


@pytest.mark.parametrize(
    ("chip", "physics", "kind"),
    [
        (NATURE, "full", TwoTierCells),
        (NATURE, "leak", TwoTierCells),
        (NATURE, "programming_error", TwoTierCells),
        (NATURE, "ideal", ExactCells),
        (NATURE, "dac,adc", ExactCells),
        (capacitor_chip(), "full", CapacitorCells),
        (capacitor_chip(), "ideal", ExactCells),
        (load_chip("pcm2014"), "ideal", ExactCells),
    ],
)
def test_cells_are_those_of_the_chip_unless_all_of_their_effects_are_off(chip, physics, kind):
    assert type(make(WEIGHTS, physics, chip)) is kind


def test_cells_that_are_never_trained_on_a_chip_are_refused_with_the_reason():
    with pytest.raises(
        ChipError, match=r"^chip truenorth can't be trained: its axon cells: weights are binary"
    ):
        make(WEIGHTS, "ideal", load_chip("truenorth"))


@pytest.mark.parametrize("name", ["isaac", "neurram", "hermes64"])
def test_cells_without_a_law_of_updates_are_refused_and_what_can_be_done_is_said(name):
    chip = load_chip(name)
    physics = Physics(programming_error=True)
    with pytest.raises(
        ChipError, match=rf"^chip {name} can't be trained with physics programming_error: no law says what"
    ):
        trained_bank(
            chip, physics, layout(NATURE, "ideal", 6, 5).blocks, [(0, 0, 0, 0)], 6, 5, WEIGHTS.ravel(),
            bias_drive=1.0, weight_range=None, seed=0,
        )  # fmt: skip


def test_two_tier_cells_without_pulses_take_any_change_as_far_as_their_range_goes():
    bank = make(np.zeros((3, 4), np.float32), "leak", changed(training={"offset_us": 0.0}))
    x, d = np.ones((1, 3), np.float32), np.full((1, 4), -1.0, np.float32)
    bank.bank.update(x, d, 0.0123456)
    np.testing.assert_allclose(bank.read_out(), 0.0123456, rtol=1e-6)
    bank.bank.update(x, d, 1.0)
    np.testing.assert_allclose(bank.read_out(), 12.0 / 120, rtol=2**-8)


# --- converters ---


def test_ports_are_the_converters_that_are_on():
    for port in layout(NATURE, "full", 6, 5).ports():
        assert (port.dac_levels, port.adc_levels, port.adc_full) == (127, 255, 20 * RANGE)
        assert port.offset is None
    for physics, levels in (("ideal", (0, 0)), ("dac", (127, 0)), ("adc", (0, 255))):
        for port in layout(NATURE, physics, 6, 5).ports():
            assert (port.dac_levels, port.adc_levels) == levels


def test_backward_reads_have_converters_of_their_own_where_the_file_says_so():
    chip = changed(backward={"dac_bits": 5, "adc_bits": 6, "adc_range_cells": 3.0})
    forward, backward = layout(chip, "full", 6, 5).ports()
    assert (forward.dac_levels, forward.adc_levels, forward.adc_full) == (127, 255, 20 * RANGE)
    assert (backward.dac_levels, backward.adc_levels, backward.adc_full) == (15, 31, 3 * RANGE)
    bank = make(spread_weights(6, 5), "dac,adc", chip)
    codes = bank.bank.backward(np.ones((1, 5), np.float32)) / (3 * RANGE / 31)
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-4)


def test_an_offset_of_the_rows_converters_is_fixed_and_the_same_for_all_blocks_of_a_row():
    chip = changed(backward={"adc_offset_lsb": 0.7})
    blocks = two_blocks(400, 4, 3)
    bank = make(np.zeros(2800, np.float32), "adc", chip, blocks=blocks, places=((0, 0, 0, 0), (0, 0, 0, 4)))
    found = bank.bank.backward(np.ones((2, 7), np.float32))
    np.testing.assert_array_equal(found[0], found[1])
    codes = np.rint(found[0] / (20 * RANGE / 255))
    assert not (codes % 2).any()  # two blocks with the same offset each
    wanted = math.hypot(0.7, 1 / math.sqrt(12))
    assert abs((codes / 2).std() - wanted) < BEYOND * wanted / math.sqrt(2 * 400) + 0.02
    without = make(np.zeros(2800, np.float32), "adc", blocks=blocks, places=((0, 0, 0, 0), (0, 0, 0, 4)))
    assert not without.bank.backward(np.ones((1, 7), np.float32)).any()


def test_bias_rows_have_no_converter_backward():
    chip = changed(backward={"adc_offset_lsb": 1.0})
    blocks = np.array([[0, 0, 7, 5, 1, 0]], np.int64)  # 6 inputs and the bias row
    effects = resolve("adc", chip, training=True)
    bank = trained_bank(
        chip, effects, blocks, [(0, 0, 0, 0)], 6, 5, spread_weights(7, 5).ravel(),
        bias_drive=1.0, weight_range=RANGE, seed=0,
    )  # fmt: skip
    assert bank.bank.backward(np.ones((1, 5), np.float32)).shape == (1, 6)


def test_pulses_are_those_of_the_chip_file():
    assert layout(NATURE, "full", 6, 5).pulses() == Pulses("stochastic", 31)
    assert layout(NATURE, "leak", 6, 5).pulses() is None
    chip = changed(training={"train": "deterministic", "most_pulses": 7})
    assert layout(chip, "full", 6, 5).pulses() == Pulses("deterministic", 7)


# --- the range of weights ---


def test_the_range_is_the_largest_weight_or_room_for_training():
    assert weight_range(np.array([0.1, -0.9], np.float32), 400) == pytest.approx(0.9)
    assert weight_range(np.array([0.1, -0.2], np.float32), 400) == pytest.approx(6 / 20)
    assert weight_range(np.zeros(0, np.float32), 0) == 6.0


@pytest.mark.parametrize(
    ("given", "of_chip", "wanted"), [(0.7, 0.9, 0.7), (None, 0.9, 0.9), (None, 0.0, 6 / 6**0.5)]
)
def test_a_range_that_is_given_comes_before_that_of_the_chip_and_that_of_the_weights(given, of_chip, wanted):
    chip = changed(training={"weight_range": of_chip})
    bank = make(WEIGHTS, "full", chip, weight_range=given)
    assert bank.layout.weight_range == pytest.approx(wanted)
    assert bank.bank.law.step == pytest.approx(0.04 / 60 * wanted, rel=2**-8)


def test_every_kind_keeps_the_protocol():
    names = [name for name in dir(TrainedBank) if not name.startswith("_")] + list(
        TrainedBank.__annotations__
    )
    for chip, physics in ((NATURE, "full"), (NATURE, "ideal"), (capacitor_chip(), "full")):
        bank = make(WEIGHTS, physics, chip)
        assert [name for name in names if not hasattr(bank, name)] == []
        assert all(isinstance(value, int | float) for value in bank.counters().values())
        assert all(isinstance(array, np.ndarray) for array in bank.arrays().values())
