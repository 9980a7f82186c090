"""The switches of the physics, and what "ideal", "full" and lists of names mean on a chip."""

import dataclasses

import pytest

from pcmc.accel.chip import IdealCellSpec, load_chip
from pcmc.accel.physics import EFFECTS, Physics, resolve
from pcmc.errors import ChipError

CHIP = load_chip("nature2018")
FULL = Physics(dac=True, adc=True, programming_error=True, read_noise="frozen")
ALL_ON = Physics(True, True, True, "frozen", True, True)


def chip_with(**effects):
    return dataclasses.replace(CHIP, effects=dataclasses.replace(CHIP.effects, **effects))


def test_all_switches_are_off_unless_asked_for():
    assert Physics().is_ideal
    assert Physics().names() == ()


def test_names_lists_exactly_the_effects_that_are_on():
    assert ALL_ON.names() == EFFECTS == ("dac", "adc", "programming_error", "read_noise", "drift", "stuck")
    assert Physics(adc=True).names() == ("adc",)
    assert not Physics(read_noise="frozen").is_ideal


@pytest.mark.parametrize(
    "bad",
    [
        {"dac": 1},
        {"adc": "yes"},
        {"programming_error": None},
        {"read_noise": "slow"},
        {"drift": 1},
        {"stuck": None},
    ],
)
def test_a_wrong_switch_is_refused_by_name(bad):
    with pytest.raises(ChipError, match=next(iter(bad))):
        Physics(**bad)


def test_read_noise_true_is_refused_since_it_does_not_say_which_noise():
    with pytest.raises(ChipError, match=r'read_noise = True: must be None or one of "frozen"'):
        Physics(read_noise=True)


def test_ideal_is_no_effect_on_any_chip():
    assert resolve("ideal", CHIP) == Physics()


def test_full_on_nature2018_is_what_its_file_states_on():
    assert resolve("full", CHIP) == FULL


def test_full_leaves_off_what_the_chip_file_states_off():
    assert resolve("full", chip_with(programming_error=False)).names() == ("dac", "adc", "read_noise")
    assert resolve("full", chip_with(read_noise="off")).names() == ("dac", "adc", "programming_error")
    without_dac = dataclasses.replace(CHIP, dac=dataclasses.replace(CHIP.dac, on=False))
    assert resolve("full", without_dac).names() == ("adc", "programming_error", "read_noise")
    without_adc = dataclasses.replace(CHIP, adc=dataclasses.replace(CHIP.adc, on=False))
    assert resolve("full", without_adc).names() == ("dac", "programming_error", "read_noise")


def test_drift_and_stuck_devices_are_on_where_the_chip_file_states_them_on():
    assert resolve("full", chip_with(drift=True)).names() == (*FULL.names(), "drift")
    cell = dataclasses.replace(CHIP.cell, stuck_low_fraction=0.01)
    chip = dataclasses.replace(chip_with(drift=True, stuck=True), cell=cell)
    assert resolve("full", chip) == ALL_ON
    assert resolve("stuck", chip).names() == ("stuck",)


def test_read_noise_is_of_the_kind_that_the_file_or_the_user_names():
    assert resolve("full", chip_with(read_noise="split")).read_noise == "split"
    assert resolve("dac,read_noise", chip_with(read_noise="fast")).read_noise == "fast"
    assert resolve("read_noise=fast, dac", CHIP) == Physics(dac=True, read_noise="fast")
    assert resolve("read_noise = split", chip_with(read_noise="off")).read_noise == "split"


@pytest.mark.parametrize(
    ("kind", "frozen", "fast"),
    [(None, None, None), ("frozen", "all", None), ("split", "slow", "fast"), ("fast", None, "all")],
)
def test_the_two_parts_of_each_kind_are_all_of_the_noise(kind, frozen, fast):
    physics = Physics(read_noise=kind)
    assert (physics.frozen_part, physics.fast_part) == (frozen, fast)


@pytest.mark.parametrize("choice", ["read_noise=slow", "read_noise="])
def test_a_kind_of_noise_that_there_is_not_is_refused(choice):
    with pytest.raises(ChipError, match='must be None or one of "frozen", "fast", "split"'):
        resolve(choice, CHIP)


def test_only_read_noise_has_kinds():
    with pytest.raises(ChipError, match=r"no effect of the name 'dac=8'"):
        resolve("dac=8", CHIP)


@pytest.mark.parametrize(
    ("name", "effect"), [("nature2018", "stuck"), ("isaac", "drift"), ("neurram", "read_noise")]
)
def test_an_effect_that_a_chips_cells_have_no_law_of_is_refused(name, effect):
    chip = load_chip(name)
    with pytest.raises(ChipError, match=f"physics {effect}: chip {name} has .* no law of {effect}; leave"):
        resolve(effect, chip)


@pytest.mark.parametrize("name", [name for name in EFFECTS if name != "stuck"])
def test_each_effect_can_be_switched_on_alone_by_its_name(name):
    assert resolve(name, CHIP).names() == (name,)


def test_names_may_be_combined_with_commas_and_spaces_in_any_order():
    assert resolve(" adc, dac ", CHIP).names() == ("dac", "adc")


def test_a_name_switches_on_what_the_chip_file_states_off():
    assert resolve("read_noise", chip_with(read_noise="off")).read_noise == "frozen"


def test_a_physics_is_taken_as_it_is():
    assert resolve(FULL, CHIP) is FULL


@pytest.mark.parametrize(
    "choice", ["fulll", "", "dac,", "dac;adc", "Full", "dac,noise", None, 3, True, ["dac"]]
)
def test_an_unknown_choice_is_refused_and_the_known_names_listed(choice):
    with pytest.raises(ChipError, match=r"ideal, full, or some of dac, adc, programming_error, read_noise"):
        resolve(choice, CHIP)


@pytest.mark.parametrize("choice", ["ideal,dac", "adc,full"])
def test_ideal_and_full_stand_alone(choice):
    with pytest.raises(ChipError, match="must stand alone"):
        resolve(choice, CHIP)


@pytest.mark.parametrize("choice", ["programming_error", "dac,read_noise", Physics(read_noise="frozen")])
def test_an_ideal_cell_has_no_noise_to_switch_on(choice):
    effects = dataclasses.replace(CHIP.effects, programming_error=False, read_noise="off")
    chip = dataclasses.replace(CHIP, cell=IdealCellSpec("ideal"), effects=effects)
    assert resolve("full", chip).names() == ("dac", "adc")
    with pytest.raises(ChipError, match="nature2018 has ideal cells"):
        resolve(choice, chip)
