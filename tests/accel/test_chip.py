"""Chip descriptions: every field is checked, every mistake is named, every shipped number has a source."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import pytest
from chip_tables import tables

from pcmc.accel.chip import (
    CELL_KINDS,
    ChipSpec,
    WeightSpec,
    chip_from_dict,
    chip_to_dict,
    load_chip,
)
from pcmc.accel.fields import Choice, Flag, Real, Reals, Text, Whole, optional, rules, shown, take_section
from pcmc.accel.measured_spec import Table
from pcmc.accel.training_spec import PULSE_KINDS, BackwardSpec, TrainingSpec
from pcmc.accel.wires import LEAST_OHM, MOST_OHM, Resistance, Wires
from pcmc.errors import ChipError

ROOT = Path(__file__).parents[2]


def every_field():
    """(kind of cell, section or None, field, rule) for each field of ChipSpec and of all that it holds."""
    for name, rule in rules(ChipSpec).items():
        if hasattr(rule, "take"):
            yield "2pcm+3t1c", None, name, rule
        elif name == "pulses":
            for section in PULSE_KINDS.values():
                kind = section.cells[0]
                yield from ((kind, name, field, inner) for field, inner in rules(section).items())
        elif name == "cell":
            for kind, section in CELL_KINDS.items():
                yield from ((kind, name, field, inner) for field, inner in rules(section).items())
        else:
            yield from (("2pcm+3t1c", name, field, inner) for field, inner in rules(rule).items())


FIELDS = [pytest.param(*field, id="-".join(str(part) for part in field[:3])) for field in every_field()]


def wrong_values(rule):
    """Values of wrong types and out of range; a rule that is new must be added here."""
    never = [None, {}, {"value": 1}, b"x"]
    if isinstance(rule, Whole):
        return [*never, True, 3.0, "3", math.nan, rule.low - 1, rule.high + 1, 10**5000, -(10**5000), [3]]
    if isinstance(rule, Real):
        far = [
            rule.low - abs(rule.low) - 1.0,
            rule.high + abs(rule.high) / 1000 + 1e-9,
            10**5000,
            -(10**5000),
        ]
        return [*never, True, "3", math.nan, math.inf, -math.inf, *far, [3.0]]
    if isinstance(rule, Reals):
        long = [0.0] * (rule.longest + 1)
        short = [[0.0] * (rule.shortest - 1)] if rule.shortest else []
        never += [3.0, "3", *short, long]
        return [*never, ["1"], [True], [math.nan], [math.inf], [rule.high * 2], [[1.0]]]
    if isinstance(rule, Resistance):
        far = [LEAST_OHM / 2, MOST_OHM * 2, -1.0, 10**5000, -(10**5000)]
        return [*never, True, "3", math.nan, math.inf, -math.inf, *far, [3.0]]
    if isinstance(rule, Table):
        low, high = [[1.0, rule.low], [1.0, rule.high]], [[1.0, rule.low], [2.0, rule.high * 2]]
        flat = [[1.0, rule.low, 2.0], [2.0, rule.low]]
        long = [[float(i), rule.low] for i in range(rule.longest + 1)]
        return [*never, 3.0, "3", [1.0, 2.0], [[1.0, rule.low]], low, high, flat, long, [[True, True]] * 2]
    if isinstance(rule, Flag):
        return [*never, 0, 1, 1.0, "true", [True]]
    if isinstance(rule, Choice):
        return [*never, "nonsense", rule.words[0].upper() + " ", 3, "", [rule.words[0]]]
    if isinstance(rule, Text):
        return [*never, 3, True, "", "two\nlines", "\x1b[31mred", "x" * (rule.longest + 1), ["x"]]
    raise AssertionError(f"no wrong values for {rule!r}")


def place(section, field):
    return f"[{section}] {field}" if section else field


# --- every field ---


@pytest.mark.parametrize(("kind", "section", "field", "rule"), FIELDS)
def test_a_missing_field_is_named_or_takes_its_default(kind, section, field, rule):
    wrong = tables(kind)
    (wrong[section] if section else wrong).pop(field, None)
    pulses = tables(kind).get("pulses", {"kind": "linear"})["kind"]
    sections = rules(ChipSpec) | {"cell": CELL_KINDS[kind], "pulses": PULSE_KINDS[pulses]}
    owner = sections.get(section, ChipSpec)
    if field in optional(owner):
        defaults = {one.name: one.default for one in dataclasses.fields(owner)}
        assert getattr(take_section(owner, section, wrong[section], "mine.toml"), field) == defaults[field]
        return
    with pytest.raises(ChipError) as error:
        chip_from_dict(wrong, "mine.toml")
    assert str(error.value).startswith(f"mine.toml: {place(section, field)}: missing; must be ")


@pytest.mark.parametrize(("kind", "section", "field", "rule"), FIELDS)
def test_a_wrong_type_or_a_value_out_of_range_is_named_and_the_right_range_stated(kind, section, field, rule):
    for value in wrong_values(rule):
        wrong = tables(kind)
        (wrong[section] if section else wrong)[field] = value
        with pytest.raises(ChipError) as error:
            chip_from_dict(wrong, "mine.toml")
        message = str(error.value)
        assert message.startswith(f"mine.toml: {place(section, field)} = "), value
        known = Choice(tuple(CELL_KINDS if section == "cell" else PULSE_KINDS)) if field == "kind" else rule
        assert message.endswith(f": must be {known}"), value
        assert message.isprintable()
        assert len(message) < 400


@pytest.mark.parametrize(("kind", "section", "field", "rule"), FIELDS)
def test_a_misspelt_field_is_named_with_the_right_spelling(kind, section, field, rule):
    wrong = tables(kind)
    table = wrong[section] if section else wrong
    if field == "kind":
        table["kinds"] = "x"
        misspelt = "kinds"
    else:
        misspelt = field + "x"
        table[misspelt] = table.pop(field, 0.0)
    with pytest.raises(ChipError) as error:
        chip_from_dict(wrong, "mine.toml")
    assert str(error.value) == (
        f"mine.toml: {place(section, misspelt)}: unknown field; did you mean {field}?"
    )


@pytest.mark.parametrize(("kind", "section", "field", "rule"), FIELDS)
def test_the_ends_of_a_range_are_inside_it(kind, section, field, rule):
    if isinstance(rule, Whole | Real):
        assert rule.take(rule.low) == rule.low
        assert rule.take(rule.high) == rule.high
    elif isinstance(rule, Choice):
        assert [rule.take(word) for word in rule.words] == list(rule.words)
    elif isinstance(rule, Resistance):
        assert [rule.take(value) for value in (0, LEAST_OHM, MOST_OHM)] == [0.0, LEAST_OHM, MOST_OHM]
    elif isinstance(rule, Table):
        ends = ((0.0, rule.low), (10_000.0, rule.high))
        assert rule.take([list(point) for point in ends]) == ends
        assert rule.take([]) == ()
    elif isinstance(rule, Text):
        assert rule.take("x" * rule.longest) == "x" * rule.longest
    elif isinstance(rule, Reals):
        assert rule.take([rule.low] * rule.shortest) == (rule.low,) * rule.shortest
        assert rule.take([rule.high] * rule.longest) == (rule.high,) * rule.longest
    else:
        assert (rule.take(True), rule.take(False)) == (True, False)


SECTIONS = [name for name, rule in rules(ChipSpec).items() if not hasattr(rule, "take")]
OPTIONAL = {
    "weights": WeightSpec(),
    "wires": Wires(),
    "pulses": None,
    "training": TrainingSpec(),
    "backward": BackwardSpec(),
}


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in OPTIONAL])
def test_a_missing_section_is_named(section):
    wrong = tables()
    del wrong[section]
    with pytest.raises(
        ChipError, match=rf"^mine.toml: {section}: missing; must be a section, \[{section}\]$"
    ):
        chip_from_dict(wrong, "mine.toml")


@pytest.mark.parametrize("section", OPTIONAL)
def test_a_section_of_defaults_may_be_left_out_or_empty(section):
    absent, empty = tables(), {**tables(), section: {}}
    del absent[section]
    for right in (absent, empty) if section != "pulses" else (absent,):  # a kind has to be named
        assert getattr(chip_from_dict(right, "mine.toml"), section) == OPTIONAL[section]
    assert optional(ChipSpec) == set(OPTIONAL)


@pytest.mark.parametrize(
    ("section", "part", "whole"),
    [
        ("weights", {"scale": "column"}, WeightSpec("column", 100.0)),
        ("weights", {"percentile": 99}, WeightSpec("matrix", 99.0)),
        ("wires", {"row_ohm": 2}, Wires(row_ohm=2.0)),
        ("wires", {"drive": "two", "sense_ohm": 50.0}, Wires(drive="two", sense_ohm=50.0)),
    ],
)
def test_a_section_of_defaults_may_be_given_in_part(section, part, whole):
    spec = chip_from_dict({**tables(), section: part}, "mine.toml")
    assert getattr(spec, section) == whole


def test_new_fields_are_off_or_plain_unless_a_file_says_otherwise():
    spec = load_chip("nature2018")
    assert (spec.dac.input, spec.dac.slice_bits, spec.dac.signed) == ("voltage", 1, True)
    assert (spec.dac.range, spec.dac.full) == ("vector", 1.0)
    assert (spec.adc.range, spec.adc.percentile, spec.adc.sample) == ("fixed", 100.0, "slice")
    assert (spec.adc.subtract, spec.adc.corrected) == ("analog", False)
    assert (spec.adc.noise_lsb, spec.adc.offset_lsb, spec.adc.gain_error) == (0.0, 0.0, 0.0)
    assert spec.weights == WeightSpec("matrix", 100.0)
    assert spec.wires == Wires(row_ohm=0.35, column_ohm=0.35)
    assert spec.available_effects == ("programming_error", "read_noise", "drift", "ir_drop")
    assert not spec.effects.ir_drop
    assert load_chip("hermes64").wires.is_ideal


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("value", [3, None, [], "x", True])
def test_a_section_that_is_a_value_is_named(section, value):
    with pytest.raises(ChipError, match=rf"^mine.toml: {section} = .*: must be a section, \[{section}\]$"):
        chip_from_dict({**tables(), section: value}, "mine.toml")


def test_an_unknown_section_is_named_with_the_closest_one():
    with pytest.raises(ChipError, match=r"^mine.toml: tiles: unknown section; did you mean tile\?$"):
        chip_from_dict({**tables(), "tiles": {}}, "mine.toml")


def test_an_unknown_name_that_resembles_nothing_gets_the_list_of_known_ones():
    with pytest.raises(
        ChipError, match=r"zzz: unknown field; known are name, description, source, cell, tile"
    ):
        chip_from_dict({**tables(), "zzz": 1}, "mine.toml")


@pytest.mark.parametrize("key", ["\x1b[31m", 3, None, "k" * 1000, ("a", "b")])
def test_a_hostile_name_is_refused_in_printable_words(key):
    with pytest.raises(ChipError) as error:
        chip_from_dict({**tables(), key: 1}, "program.json")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("value", [None, [], "nature2018", 3])
def test_a_description_that_is_no_table_is_refused(value):
    with pytest.raises(ChipError, match=r"^program.json: must be a table of sections, not "):
        chip_from_dict(value, "program.json")


# --- round trip ---


@pytest.mark.parametrize("kind", CELL_KINDS)
def test_a_description_survives_json_exactly(kind):
    spec = chip_from_dict(tables(kind), "mine.toml")
    again = chip_from_dict(json.loads(json.dumps(chip_to_dict(spec), allow_nan=False)), "program.json")
    assert again == spec
    assert hash(again) == hash(spec)


def test_a_description_with_every_new_field_survives_json_exactly():
    right = tables("2pcm")
    right["weights"] = {"scale": "tile", "percentile": 99.5}
    right["wires"] = {"row_ohm": 1.5, "drive": "two", "word_segments": 4, "differential": "apart"}
    right["cell"] |= {
        "read_voltage_v": 0.2,
        "temperature_k": 350.0,
        "current_cubic": 0.1,
        "polarity_loss": 0.02,
    }
    right["dac"] |= {"input": "bits", "slice_bits": 2, "signed": False, "range": "fixed", "full": 3.5}
    right["adc"] |= {
        "range": "column", "percentile": 99.9, "sample": "sum", "subtract": "digital", "slices": "analog",
        "noise_lsb": 0.3, "offset_lsb": 0.5, "gain_error": 0.01, "corrected": True,
    }  # fmt: skip
    right["effects"] |= dict.fromkeys(EFFECTS, True)
    spec = chip_from_dict(right, "mine.toml")
    assert chip_from_dict(json.loads(json.dumps(chip_to_dict(spec), allow_nan=False)), "program.json") == spec
    for section in ("weights", "wires", "cell", "dac", "adc", "effects"):
        held = getattr(spec, section)
        assert all(getattr(held, key) == value for key, value in right[section].items() if key in NEW), (
            section
        )


EFFECTS = ("ir_drop", "thermal_noise", "nonlinearity", "readout_noise", "mismatch")
NEW = {
    "scale", "percentile", "row_ohm", "drive", "word_segments", "differential", "read_voltage_v",
    "temperature_k", "current_cubic", "polarity_loss", "input", "slice_bits", "signed", "range", "full",
    "sample", "subtract", "slices", "noise_lsb", "offset_lsb", "gain_error", "corrected", *EFFECTS,
}  # fmt: skip


def test_reading_a_description_leaves_the_dictionary_as_it_was():
    right = tables()
    before = copy.deepcopy(right)
    chip_from_dict(right, "mine.toml")
    assert right == before


def test_whole_numbers_are_taken_where_fractions_may_stand_and_become_floats():
    right = tables()
    right["cell"]["significance"] = 3
    spec = chip_from_dict(right, "mine.toml")
    assert type(spec.cell.significance) is float


def test_a_description_can_not_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_chip("nature2018").tile.rows = 3


def test_every_field_is_explained_in_the_documentation():
    text = (ROOT / "docs" / "chips.md").read_text(encoding="utf-8")
    # A user's own cell has a page of its own.
    own = ROOT / "docs" / "own-cell.md"
    text += own.read_text(encoding="utf-8") if own.exists() else ""
    names = {field for _, _, field, _ in every_field()}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_long_and_odd_values_are_shown_shortly():
    assert shown(10**5000) == "an integer of 16,610 bits"
    assert shown([1, [2], {}, "x"]) == '[1, [...], a section, "x"]'
    assert shown(list(range(20))) == "[0, 1, 2, 3, 4, 5, 6, 7, ...]"
    assert len(shown("x" * 10_000)) == 100
