"""The switches of the physics, and what "ideal", "full" and lists of names mean on a chip."""

import dataclasses
from pathlib import Path

import pytest

import pcmc.accel.physics
from pcmc.accel.chip import EffectsSpec, IdealCellSpec, chip_from_dict, chip_to_dict, load_chip
from pcmc.accel.physics import EFFECTS, RUN_AND_TRAINING, TRAINING_EFFECTS, Physics, resolve
from pcmc.errors import ChipError

ROOT = Path(__file__).parents[2]
CHIP = load_chip("nature2018")
FULL = Physics(dac=True, adc=True, programming_error=True, read_noise="frozen", drift=True)
ALL_ON = Physics(True, True, True, "frozen", *[True] * (len(EFFECTS) - 4))
CONVERTERS = ("readout_noise", "mismatch")

LAWS = {
    "stuck": {"cell": {"stuck_low_fraction": 0.01}},
    "ir_drop": {"wires": {"row_ohm": 1.0}},
    "thermal_noise": {"cell": {"read_voltage_v": 0.2}},
    "nonlinearity": {"cell": {"current_cubic": 0.05}},
    "readout_noise": {"adc": {"noise_lsb": 0.5}},
    "mismatch": {"adc": {"gain_error": 0.01}},
    "reference_error": {
        "cell": {
            "kind": "3t1c",
            "g_low_us": 4.0,
            "g_high_us": 20.0,
            "g_reference_us": 12.0,
            "steps": 400,
            "leak_tau_s": 5.16e-3,
            "reference_error_us": 0.1,
        }
    },
}
"""What gives a chip the law of an effect that nature2018 has none of."""


def lawful(*effects, **switches):
    """nature2018 with the laws of some effects, and what its file says is on."""
    tables = chip_to_dict(CHIP)
    for effect in effects:
        for section, fields in LAWS[effect].items():
            if "kind" in fields:
                tables[section] = {}
                tables["effects"] |= {"read_noise": "off"}
            tables[section] = tables[section] | fields
    tables["effects"] |= switches
    return chip_from_dict(tables, "mine.toml")


def chip_with(**effects):
    return dataclasses.replace(CHIP, effects=dataclasses.replace(CHIP.effects, **effects))


def test_all_switches_are_off_unless_asked_for():
    assert Physics().is_ideal
    assert Physics().names() == ()


def test_names_lists_exactly_the_effects_that_are_on():
    assert ALL_ON.names() == EFFECTS
    assert EFFECTS[:6] == ("dac", "adc", "programming_error", "read_noise", "drift", "stuck")
    assert EFFECTS[2:] == tuple(field.name for field in dataclasses.fields(EffectsSpec))
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
        {"ir_drop": 1.0},
        {"thermal_noise": "on"},
        {"nonlinearity": 0},
        {"reference_error": ()},
        {"readout_noise": "frozen"},
        {"mismatch": 1},
        {"pulses": 1},
        {"step_mismatch": "on"},
        {"pulse_noise": None},
        {"leak": 0.1},
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
    assert resolve("full", chip_with(programming_error=False)).names() == (
        "dac",
        "adc",
        "read_noise",
        "drift",
    )
    assert resolve("full", chip_with(read_noise="off")).names() == (
        "dac",
        "adc",
        "programming_error",
        "drift",
    )
    without_dac = dataclasses.replace(CHIP, dac=dataclasses.replace(CHIP.dac, on=False))
    assert resolve("full", without_dac).names() == ("adc", "programming_error", "read_noise", "drift")
    without_adc = dataclasses.replace(CHIP, adc=dataclasses.replace(CHIP.adc, on=False))
    assert resolve("full", without_adc).names() == ("dac", "programming_error", "read_noise", "drift")


def test_drift_and_stuck_devices_are_on_where_the_chip_file_states_them_on():
    assert resolve("full", chip_with(drift=False)) == dataclasses.replace(FULL, drift=False)
    chip = lawful("stuck", drift=True, stuck=True)
    assert resolve("full", chip) == Physics(True, True, True, "frozen", True, True)
    assert resolve("stuck", chip).names() == ("stuck",)


@pytest.mark.parametrize("effect", LAWS)
def test_a_law_is_on_in_full_physics_where_the_chip_file_states_it_on(effect):
    on, off = lawful(effect, **{effect: True}), lawful(effect)
    assert effect in on.available_effects
    assert effect not in resolve("full", off).names()
    assert set(resolve("full", on).names()) == {*resolve("full", off).names(), effect}


def test_full_physics_of_a_chip_with_all_laws_is_everything():
    effects = [name for name in LAWS if name != "reference_error"]  # of cells that share a reference
    chip = lawful(*effects, drift=True, **dict.fromkeys(effects, True))
    assert resolve("full", chip) == dataclasses.replace(ALL_ON, reference_error=False)


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
    ("name", "effect", "why"),
    [
        ("nature2018", "stuck", r"the \[cell\] of kind 2pcm\+3t1c gives no law of it"),
        ("isaac", "drift", r"the \[cell\] of kind levels gives no law of it"),
        ("neurram", "read_noise", r"the \[cell\] of kind rram gives no law of it"),
        ("hermes64", "ir_drop", r"it takes \[wires\] with resistances, and cells that are pairs"),
        ("nature2018", "thermal_noise", r"it takes \[cell\] read_voltage_v"),
        ("nature2018", "nonlinearity", r"it takes \[cell\] current_cubic or polarity_loss"),
        ("nature2018", "reference_error", r"it takes \[cell\] reference_error_us"),
        ("nature2018", "readout_noise", r"it takes \[adc\] noise_lsb"),
        ("nature2018", "mismatch", r"it takes \[adc\] offset_lsb or gain_error"),
    ],
)
def test_an_effect_that_a_chip_has_no_law_of_is_refused_and_the_law_named(name, effect, why):
    chip = load_chip(name)
    for choice in (
        effect,
        f"dac,adc,{effect}",
        Physics(**{effect: "fast" if effect == "read_noise" else True}),
    ):
        with pytest.raises(
            ChipError, match=f"^physics {effect}: chip {name} can't have it: {why}.*; leave it out$"
        ):
            resolve(choice, chip)


@pytest.mark.parametrize("effect", ["ir_drop", "thermal_noise", "nonlinearity"])
def test_effects_of_currents_are_refused_where_cells_conduct_none(effect):
    chip = dataclasses.replace(load_chip("isaac"), wires=lawful("ir_drop").wires)
    with pytest.raises(ChipError, match=f"^physics {effect}: chip isaac can't have it: it takes "):
        resolve(effect, chip)


@pytest.mark.parametrize("name", [name for name in EFFECTS if name not in CONVERTERS])
def test_each_effect_can_be_switched_on_alone_by_its_name(name):
    chip = lawful(name) if name in LAWS else CHIP
    assert resolve(name, chip).names() == (name,)


@pytest.mark.parametrize("name", CONVERTERS)
def test_effects_of_the_output_converters_need_them_to_be_on(name):
    chip = lawful(name)
    assert resolve(f"{name},adc", chip).names() == ("adc", name)
    for choice in (name, f"dac,{name}", Physics(dac=True, **{name: True})):
        with pytest.raises(
            ChipError, match=f"^physics {name}: it is one of the output converters; switch adc on, too$"
        ):
            resolve(choice, chip)


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


@pytest.mark.parametrize(("choice", "where"), [("ideal,dac", "alone"), ("adc,full", "first")])
def test_ideal_stands_alone_and_full_first(choice, where):
    with pytest.raises(ChipError, match=f"must stand {where}"):
        resolve(choice, CHIP)


def test_effects_after_full_are_switched_on_or_off():
    full = resolve("full", CHIP)
    assert resolve("full,-adc", CHIP) == dataclasses.replace(full, adc=False)
    assert resolve("full, -read_noise, ir_drop", CHIP) == dataclasses.replace(
        full, read_noise=None, ir_drop=True
    )
    assert resolve("full,read_noise=fast,-dac", CHIP) == dataclasses.replace(
        full, read_noise="fast", dac=False
    )
    for choice in ("full,-nothing", "full,nothing", "full,ideal"):
        with pytest.raises(ChipError, match="known are ideal, full"):
            resolve(choice, CHIP)


@pytest.mark.parametrize("choice", ["programming_error", "dac,read_noise", Physics(read_noise="frozen")])
def test_an_ideal_cell_has_no_noise_to_switch_on(choice):
    effects = dataclasses.replace(CHIP.effects, programming_error=False, read_noise="off", drift=False)
    chip = dataclasses.replace(CHIP, cell=IdealCellSpec("ideal"), effects=effects)
    assert resolve("full", chip).names() == ("dac", "adc")
    with pytest.raises(ChipError, match="chip nature2018 can't have it: ideal cells have none"):
        resolve(choice, chip)


# --- training in place ---


def test_full_physics_of_training_is_what_the_file_states_on_and_all_of_the_pulses():
    assert resolve("full", CHIP, training=True).names() == (
        "dac", "adc", "programming_error", "read_noise", "pulses", "step_mismatch", "pulse_noise", "leak",
    )  # fmt: skip
    stuck = lawful("stuck", "readout_noise", stuck=True, readout_noise=True)
    assert resolve("full", stuck, training=True).names() == (*RUN_AND_TRAINING, *TRAINING_EFFECTS)
    assert resolve("full", chip_with(read_noise="split"), training=True).read_noise == "split"


def test_full_physics_of_training_without_pulses_is_that_of_a_run_as_far_as_there_is_one():
    assert resolve("full", load_chip("ibm2023"), training=True).names() == RUN_AND_TRAINING[:4]
    assert resolve("full", load_chip("pcm2014"), training=True).names() == (
        *RUN_AND_TRAINING[:4], "pulses", "step_mismatch", "pulse_noise",
    )  # fmt: skip
    assert resolve("full", load_chip("isaac"), training=True).names() == ("dac", "adc")


def test_effects_of_training_are_switched_on_and_off_by_name():
    assert resolve("pulses,leak", CHIP, training=True).names() == ("pulses", "leak")
    full = resolve("full", CHIP, training=True)
    assert resolve("full,-leak,-dac", CHIP, training=True) == dataclasses.replace(full, leak=False, dac=False)
    assert resolve("full,-drift", CHIP, training=True) == full  # which is without it
    assert resolve("ideal", CHIP, training=True) == Physics()
    assert resolve(full, CHIP, training=True) is full


@pytest.mark.parametrize("name", TRAINING_EFFECTS)
def test_a_run_has_no_effects_of_training(name):
    for choice in (name, f"full,{name}", Physics(**{name: True})):
        with pytest.raises(
            ChipError, match=f"^physics {name}: it is one of training in place, not of a run; leave it out$"
        ):
            resolve(choice, CHIP)
    assert not set(resolve("full", CHIP).names()) & set(TRAINING_EFFECTS)


@pytest.mark.parametrize("name", [name for name in EFFECTS if name not in RUN_AND_TRAINING])
def test_training_is_without_some_effects_of_a_run(name):
    for choice in (name, f"full,{name}", Physics(adc=True, **{name: True})):
        with pytest.raises(
            ChipError, match=f"^physics {name}: training in place is without it: .*; leave it out$"
        ):
            resolve(choice, lawful(name) if name in LAWS else CHIP, training=True)


@pytest.mark.parametrize("name", TRAINING_EFFECTS)
def test_effects_of_training_need_pulses_in_the_chip_file(name):
    with pytest.raises(
        ChipError, match=rf"^physics {name}: chip ibm2023 can't have it: it takes \[pulses\] of a kind"
    ):
        resolve(name, load_chip("ibm2023"), training=True)


def test_noise_of_pulses_needs_pulses():
    assert resolve("pulses,pulse_noise", CHIP, training=True).names() == ("pulses", "pulse_noise")
    with pytest.raises(
        ChipError, match=r"^physics pulse_noise: it is noise of single pulses; switch pulses on, too$"
    ):
        resolve("pulse_noise", CHIP, training=True)


def test_known_names_are_those_of_training_where_a_choice_is_unknown():
    with pytest.raises(
        ChipError, match=r"some of dac, adc, programming_error, read_noise, stuck, pulses, step"
    ):
        resolve("puls", CHIP, training=True)
    with pytest.raises(
        ChipError, match=r"some of dac, adc, programming_error, read_noise, drift, stuck, ir_drop"
    ):
        resolve("puls", CHIP)


def test_a_run_after_training_has_what_is_left_without_its_effects():
    full = resolve("full", CHIP, training=True)
    assert full.in_inference == Physics(dac=True, adc=True, programming_error=True, read_noise="frozen")
    assert full.of_cells == ("programming_error", "read_noise", *TRAINING_EFFECTS)
    assert Physics(dac=True, adc=True).of_cells == ()
    assert Physics().in_inference == Physics()


def test_every_effect_is_explained_where_users_and_programmers_look():
    text = (ROOT / "docs" / "chips.md").read_text(encoding="utf-8")
    for names in (EFFECTS, TRAINING_EFFECTS):
        assert [name for name in names if f"| `{name}` |" not in text] == []
        assert [name for name in names if f"\n| {name} " not in pcmc.accel.physics.__doc__] == []
