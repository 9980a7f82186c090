"""Binary synapses with axon types: which weights they hold, with which bits, and what a stuck bit does."""

import dataclasses

import numpy as np
import pytest
from chip_tables import tables

from pcmc.accel.cell_specs import CELL_KINDS, AxonCellSpec
from pcmc.accel.cells import AxonCell, make_cell
from pcmc.accel.chip import chip_from_dict, load_chip
from pcmc.accel.random import stream
from pcmc.errors import ChipError

WAYS = range(2, 9)


def cell_of(axons, **fields):
    cell = make_cell(AxonCellSpec(kind="axon", axons=axons, **fields))
    assert isinstance(cell, AxonCell)
    return cell


def levels(axons):
    largest = 1 if axons == 2 else 2 ** (axons - 1) - 1
    return np.arange(-largest, largest + 1, dtype=np.float32)[None, :]


def test_two_axons_are_plus_and_minus_one_and_more_are_twos_complement():
    assert cell_of(2).spec.type_weights == (1, -1)
    assert cell_of(3).spec.type_weights == (-4, 2, 1)
    assert cell_of(4).spec.type_weights == (-8, 4, 2, 1)
    assert cell_of(8).spec.type_weights == (-128, 64, 32, 16, 8, 4, 2, 1)


@pytest.mark.parametrize("axons", WAYS)
def test_weights_of_all_types_fit_in_the_nine_bits_of_a_truenorth_neuron(axons):
    assert all(-255 <= weight <= 255 for weight in cell_of(axons).spec.type_weights)


@pytest.mark.parametrize("axons", WAYS)
def test_the_bits_of_every_level_times_the_weights_of_the_types_are_the_level(axons):
    cell, held = cell_of(axons), levels(axons)
    bits = cell.bits(held)
    assert bits.shape == (*held.shape, axons)
    assert bits.dtype == np.bool_
    assert ((bits * np.array(cell.spec.type_weights)).sum(axis=2) == held).all()


@pytest.mark.parametrize("axons", WAYS)
def test_targets_are_rounded_to_the_nearest_level_and_held_as_whole_numbers(axons):
    cell = cell_of(axons)
    target = (np.random.default_rng(axons).random((40, 50), np.float32) * 2 - 1) * np.float32(cell.full_us)
    kept = target.copy()
    held = cell.program(target, stream(0, (), "p")).g_plus
    nearest = levels(axons)[0][np.abs(target[..., None] - levels(axons)[0]).argmin(axis=2)]
    assert (held == nearest).all()
    assert (target == kept).all()


@pytest.mark.parametrize("axons", WAYS)
def test_both_signs_have_the_same_range_and_what_is_beyond_is_clipped_and_counted(axons):
    cell = cell_of(axons)
    full = cell.full_us
    target = np.array([[-9, -1.01, -1, 1, 1.01, 9]], np.float32) * np.float32(full)
    assert cell.program(target, None).g_plus.tolist() == [[-full] * 3 + [full] * 3]
    assert cell.clipped(target) == 4


def test_bits_are_exact_at_all_times_and_have_no_noise_and_no_wires():
    cell = cell_of(4)
    target = np.random.default_rng(0).random((9, 8), np.float32) * 7
    devices = cell.program(target, stream(0, (), "p"))
    assert cell.age(devices, 1e9) is devices
    assert (cell.weights_us(devices) == np.rint(target)).all()
    assert not cell.noise_variance(devices).any()
    assert cell.gains == ()


@pytest.mark.parametrize("effect", ["noise", "drift"])
def test_noise_and_drift_of_bits_are_refused(effect):
    cell = cell_of(2)
    devices = cell.program(np.zeros((2, 2), np.float32), None)
    with pytest.raises(ChipError, match=r"of kind axon gives no law of it"):
        cell.age(devices, 1.0, **{effect: stream(0, (), "x")})


@pytest.mark.parametrize("axons", [2, 4, 8])
def test_a_share_of_bits_is_stuck_at_zero_and_another_at_one(axons):
    low, high, shape = 0.2, 0.1, (200, 250)
    cell = cell_of(axons, stuck_low_fraction=low, stuck_high_fraction=high)
    on = np.full(shape, cell.full_us, np.float32)  # two's complement of it: sign bit off, all others on
    held = cell.program(on, None, stream(0, (), "stuck")).g_plus
    stuck = np.array(cell.spec.type_weights)
    share = np.where(stuck < 0, high, 1 - low)  # of cells whose bit of that type is on
    expected = float((stuck * share).sum())
    deviation = np.sqrt((stuck**2 * share * (1 - share)).sum() / on.size)
    assert held.mean() == pytest.approx(expected, abs=5 * deviation)
    again = cell.program(on, None, stream(0, (), "stuck")).g_plus
    assert (held == again).all()


def test_stuck_bits_reach_the_level_that_weights_do_not_use():
    cell = cell_of(3, stuck_high_fraction=0.5)
    held = cell.program(np.zeros((100, 100), np.float32), None, stream(0, (), "stuck")).g_plus
    assert set(np.unique(held)) == set(range(-4, 4))


@pytest.mark.parametrize("kind", [kind for kind in CELL_KINDS if kind != "2pcm+3t1c"])
def test_only_binary_synapses_and_cells_without_steps_can_not_be_trained_and_say_why(kind):
    why = chip_from_dict(tables(kind), "mine.toml").cell.untrainable
    assert bool(why) == (kind in ("axon", "measured"))
    if kind == "axon":
        assert "off-line" in why
        assert "spikes" in why


def test_chips_of_binary_synapses_say_that_they_are_not_trained():
    for name in ("truenorth", "synapse2011"):
        assert load_chip(name).cell.untrainable
    assert not load_chip("nature2018").cell.untrainable


def test_more_bits_stuck_than_there_are_is_refused():
    spec = AxonCellSpec(kind="axon", axons=2, stuck_low_fraction=0.6)
    with pytest.raises(ChipError, match=r"stuck_high_fraction = 0\.5: must be at most"):
        dataclasses.replace(spec, stuck_high_fraction=0.5).check()
