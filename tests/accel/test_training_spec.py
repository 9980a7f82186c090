"""The sections of training in a chip file: what they default to, contradict, and inherit."""

import dataclasses
import re
from pathlib import Path

import chip_tables
import pytest

from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_names, chip_to_dict, load_chip
from pcmc.accel.physics import resolve
from pcmc.accel.training_spec import BackwardSpec, LinearPulseSpec, TrainingSpec
from pcmc.errors import ChipError


def refusal(**sections) -> str:
    with pytest.raises(ChipError) as error:
        chip_from_dict({**chip_tables.tables(), **sections}, "mine.toml")
    return str(error.value)


def test_nature2018_states_what_is_published_of_it():
    spec = load_chip("nature2018")
    assert spec.training == TrainingSpec()
    assert (spec.training.example_time_s, spec.training.transfer_every) == (240e-9, 8000)
    assert spec.training.transfer_every * spec.training.example_time_s == pytest.approx(1.92e-3)
    assert (spec.training.offset_us, spec.training.inversion) == (2.0, True)
    pulses = spec.pulses
    assert isinstance(pulses, LinearPulseSpec)
    assert (pulses.step_spread, pulses.up_down_mismatch, pulses.noise) == (0.10, 0.06, 0.30)
    assert (pulses.nonlinearity, pulses.nonlinearity_spread, pulses.range_spread) == (0.05, 0.01, 0.07)


def test_a_chip_without_pulses_has_no_effect_of_training():
    for name in chip_names():
        spec = load_chip(name)
        assert spec.training_effects == (() if spec.pulses is None else spec.pulses.effects)
    assert load_chip("nature2018").training_effects == ("pulses", "step_mismatch", "pulse_noise", "leak")
    assert load_chip("isaac").training_effects == ()


def test_pulses_of_a_kind_name_it():
    assert refusal(pulses={"leak_to_us": 15.0}) == (
        'mine.toml: [pulses] kind: missing; must be one of "linear", "set"'
    )
    assert refusal(pulses={"kind": "linear"}).startswith("mine.toml: [pulses] leak_to_us: missing; must be ")
    assert refusal(pulses={"kind": "cubic", "leak_to_us": 1.0}).startswith(
        'mine.toml: [pulses] kind = "cubic"'
    )


def test_pulses_go_with_cells_that_take_them():
    linear = {"kind": "linear", "leak_to_us": 15.0}
    assert chip_from_dict({**chip_tables.tables("3t1c"), "pulses": linear}, "mine.toml").pulses is not None
    with pytest.raises(ChipError) as error:
        chip_from_dict({**chip_tables.tables("2pcm"), "pulses": linear}, "mine.toml")
    assert str(error.value) == (
        'mine.toml: [pulses] kind = "linear": must be left out, or go with cells of kind "2pcm+3t1c", '
        '"3t1c"; [cell] kind is "2pcm"'
    )


@pytest.mark.parametrize("field", ["dac_bits", "adc_bits"])
def test_a_converter_of_one_bit_is_none(field):
    assert refusal(backward={field: 1}) == (
        f"mine.toml: [backward] {field} = 1: must be 0 or at least 2, sign included"
    )
    assert getattr(chip_from_dict({**chip_tables.tables(), "backward": {field: 2}}, "m").backward, field) == 2


def test_a_chip_of_other_cells_does_not_inherit_pulses(tmp_path):
    path = tmp_path / "other.toml"
    path.write_text('extends = "nature2018"\nname = "other"\n[cell]\nkind = "ideal"\n'
                    '[effects]\nprogramming_error = false\nread_noise = "off"\ndrift = false\n')  # fmt: skip
    assert load_chip(path).pulses is None
    path.write_text(
        'extends = "nature2018"\nname = "other"\n[pulses]\nnoise = 0.1\n[cell]\nsignificance = 2\n'
    )
    spec = load_chip(path)
    assert spec.pulses == dataclasses.replace(load_chip("nature2018").pulses, noise=0.1)


def test_descriptions_with_and_without_pulses_go_through_dictionaries():
    for name in ("nature2018", "isaac"):
        spec = load_chip(name)
        tables = chip_to_dict(spec)
        assert ("pulses" in tables) == (spec.pulses is not None)
        assert chip_from_dict(tables, "again") == spec


def test_program_files_from_before_training_are_read():
    tables = chip_to_dict(load_chip("nature2018"))
    for section in ("pulses", "training", "backward"):
        del tables[section]
    spec = chip_from_dict(tables, "old.pcmc: chip")
    assert isinstance(spec, ChipSpec)
    assert (spec.pulses, spec.training, spec.backward) == (None, TrainingSpec(), BackwardSpec())


def test_the_chip_in_the_documentation_is_a_right_one(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "training.md"
    text = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)[0]
    path = tmp_path / "capacitors.toml"
    path.write_text(text)
    spec = load_chip(path)
    assert (spec.cell.kind, spec.training_effects) == ("3t1c", LinearPulseSpec.effects)
    assert resolve("full", spec, training=True).names() == (
        "dac", "adc", "programming_error", *spec.training_effects,
    )  # fmt: skip
