"""The switches of the physics, and what "ideal", "full" and lists of names mean on a chip."""

import dataclasses

import pytest

from pcmc.accel.chip import IdealCellSpec, load_chip
from pcmc.accel.physics import EFFECTS, Physics, resolve
from pcmc.errors import ChipError

CHIP = load_chip("nature2018")
ALL_ON = Physics(dac=True, adc=True, programming_error=True, read_noise="frozen")


def chip_with(**effects):
    return dataclasses.replace(CHIP, effects=dataclasses.replace(CHIP.effects, **effects))


def test_all_switches_are_off_unless_asked_for():
    assert Physics().is_ideal
    assert Physics().names() == ()


def test_names_lists_exactly_the_effects_that_are_on():
    assert ALL_ON.names() == EFFECTS == ("dac", "adc", "programming_error", "read_noise")
    assert Physics(adc=True).names() == ("adc",)
    assert not Physics(read_noise="frozen").is_ideal


@pytest.mark.parametrize(
    "bad", [{"dac": 1}, {"adc": "yes"}, {"programming_error": None}, {"read_noise": "fast"}]
)
def test_a_wrong_switch_is_refused_by_name(bad):
    with pytest.raises(ChipError, match=next(iter(bad))):
        Physics(**bad)


def test_read_noise_true_is_refused_since_it_does_not_say_which_noise():
    with pytest.raises(ChipError, match=r'read_noise = True: must be None or one of "frozen"'):
        Physics(read_noise=True)


def test_ideal_is_no_effect_on_any_chip():
    assert resolve("ideal", CHIP) == Physics()


def test_full_on_nature2018_is_every_effect():
    assert resolve("full", CHIP) == ALL_ON


def test_full_leaves_off_what_the_chip_file_states_off():
    assert resolve("full", chip_with(programming_error=False)).names() == ("dac", "adc", "read_noise")
    assert resolve("full", chip_with(read_noise="off")).names() == ("dac", "adc", "programming_error")
    without_dac = dataclasses.replace(CHIP, dac=dataclasses.replace(CHIP.dac, on=False))
    assert resolve("full", without_dac).names() == ("adc", "programming_error", "read_noise")
    without_adc = dataclasses.replace(CHIP, adc=dataclasses.replace(CHIP.adc, on=False))
    assert resolve("full", without_adc).names() == ("dac", "programming_error", "read_noise")


@pytest.mark.parametrize("name", EFFECTS)
def test_each_effect_can_be_switched_on_alone_by_its_name(name):
    assert resolve(name, CHIP).names() == (name,)


def test_names_may_be_combined_with_commas_and_spaces_in_any_order():
    assert resolve(" adc, dac ", CHIP).names() == ("dac", "adc")


def test_a_name_switches_on_what_the_chip_file_states_off():
    assert resolve("read_noise", chip_with(read_noise="off")).read_noise == "frozen"


def test_a_physics_is_taken_as_it_is():
    assert resolve(ALL_ON, CHIP) is ALL_ON


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
