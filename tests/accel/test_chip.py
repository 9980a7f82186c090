"""Chip descriptions: every field is checked, every mistake is named, every shipped number has a source."""

import copy
import dataclasses
import json
import math
import os
import re
import tomllib
from pathlib import Path

import pytest

import pcmc.accel.chips
from pcmc.accel.chip import (
    CELL_KINDS,
    MAX_FILE_BYTES,
    ChipSpec,
    IdealCellSpec,
    chip_from_dict,
    chip_names,
    chip_to_dict,
    load_chip,
)
from pcmc.accel.fields import Choice, Flag, Real, Reals, Text, Whole, optional, rules, shown, take_section
from pcmc.errors import ChipError

ROOT = Path(__file__).parents[2]
CHIPS = Path(pcmc.accel.chips.__file__).parent
TAG = re.compile(r"#\s*(published|derived|assumed|measured): \S")


PCM = {key: value for key, value in chip_to_dict(load_chip("nature2018"))["cell"].items() if key != "kind"}
del PCM["low_tier_in_inference"]
CELLS = {
    "2pcm": PCM,
    "4pcm": PCM,
    "3t1c": {"g_low_us": 4.0, "g_high_us": 20.0, "g_reference_us": 12.0, "steps": 400, "leak_tau_s": 5.16e-3},
    "rram": {
        "g_min_us": 1.0,
        "g_max_us": 39.0,
        "g_max_fit_us": 39.26,
        "programming_error_us": [1.053, 0.2374, -1.167e-2, 1.536e-4],
    },
    "sram": {"bits": 8},
    "levels": {"bits": 16},
    "ideal": {},
}
"""A right [cell] of each kind, beside that of nature2018; fields that have a default may be absent."""


def tables(kind="2pcm+3t1c"):
    """A right description, as fresh dictionaries, with a cell of the kind asked for and its effects off."""
    right = chip_to_dict(load_chip("nature2018"))
    if kind != "2pcm+3t1c":
        right["cell"] = {"kind": kind, **copy.deepcopy(CELLS[kind])}
        right["effects"] = {"programming_error": False, "read_noise": "off"}
    assert right["cell"]["kind"] == kind
    return right


def every_field():
    """(kind of cell, section or None, field, rule) for each field of ChipSpec and of all that it holds."""
    for name, rule in rules(ChipSpec).items():
        if hasattr(rule, "take"):
            yield "2pcm+3t1c", None, name, rule
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
    owner = CELL_KINDS[kind] if section == "cell" else rules(ChipSpec).get(section, ChipSpec)
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
        known = Choice(tuple(CELL_KINDS)) if field == "kind" else rule
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
    elif isinstance(rule, Text):
        assert rule.take("x" * rule.longest) == "x" * rule.longest
    elif isinstance(rule, Reals):
        assert rule.take([rule.low] * rule.shortest) == (rule.low,) * rule.shortest
        assert rule.take([rule.high] * rule.longest) == (rule.high,) * rule.longest
    else:
        assert (rule.take(True), rule.take(False)) == (True, False)


SECTIONS = [name for name, rule in rules(ChipSpec).items() if not hasattr(rule, "take")]


@pytest.mark.parametrize("section", SECTIONS)
def test_a_missing_section_is_named(section):
    wrong = tables()
    del wrong[section]
    with pytest.raises(
        ChipError, match=rf"^mine.toml: {section}: missing; must be a section, \[{section}\]$"
    ):
        chip_from_dict(wrong, "mine.toml")


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


# --- contradictions ---


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("2pcm+3t1c", {"tile": {"rows": 1}}, "[tile] rows = 1: must be at least 2 where bias_row = true"),
        (
            "2pcm+3t1c",
            {"cell": {"g_max_us": 25.1}},
            "[cell] g_max_us = 25.1: must be at most g_max_fit_us = 25",
        ),
        ("2pcm+3t1c", {"cell": {"t0_s": 1e-7}}, "[cell] t_read_s = 2.5e-07: must be at most t0_s = 1e-07 s"),
        (
            "2pcm+3t1c",
            {"cell": {"programming_error_us": [0.1, -1.0]}},
            "[cell] programming_error_us = [0.1, -1.0]: must not give a negative standard deviation",
        ),
        (
            "2pcm+3t1c",
            {"cell": {"low_tier_in_inference": True}},
            "[cell] low_tier_in_inference = true: must be false",
        ),
        (
            "ideal",
            {"effects": {"programming_error": True}},
            "[effects] programming_error = true: must be false",
        ),
        ("ideal", {"effects": {"read_noise": "frozen"}}, '[effects] read_noise = "frozen": must be "off"'),
        ("ideal", {"cell": {"g_max_us": 20.0}}, "[cell] g_max_us: unknown field; known are kind"),
        ("ideal", {"effects": {"drift": True}}, "[effects] drift = true: must be false with ideal cells"),
        ("2pcm+3t1c", {"cell": {"pairs": 2}}, '[cell] pairs = 2: must be 1 in a cell of kind "2pcm+3t1c"'),
        ("4pcm", {"cell": {"pairs": 2}}, '[cell] pairs = 2: must be 1 in a cell of kind "4pcm"'),
        ("2pcm", {"cell": {"g_max_us": 26.0}}, "[cell] g_max_us = 26: must be at most g_max_fit_us = 25 uS"),
        ("2pcm", {"cell": {"drift_mean": []}}, "[cell] drift_mean = []: must be given too"),
        ("2pcm", {"cell": {"drift_deviation": []}}, "[cell] drift_deviation = []: must be given too"),
        ("2pcm", {"cell": {"drift_mean": [1.0, 2.0]}}, "[cell] drift_mean = [1.0, 2.0]: must be [] or slope"),
        ("2pcm", {"cell": {"drift_mean": [0.0, 0.0, 0.2, 0.1]}}, "[cell] drift_mean = [0.0, 0.0, 0.2, 0.1]"),
        (
            "2pcm",
            {"cell": {"drift_mean": [0.0, 0.0, -0.2, 0.1]}},
            "[cell] drift_mean = [0.0, 0.0, -0.2, 0.1]",
        ),
        (
            "2pcm",
            {"cell": {"drift_mean_above": [0.5]}},
            "[cell] drift_mean_above = [0.5]: must be [] or an x",
        ),
        ("2pcm", {"cell": {"drift_mean_above": [1.5, 1.0]}}, "[cell] drift_mean_above = [1.5, 1.0]: must be"),
        (
            "2pcm",
            {"cell": {"drift_deviation_above": [0.5, 1.0, -1.5]}},
            "[cell] drift_deviation_above = [0.5, 1.0, -1.5]: must not be negative, as it is at x = 0.67",
        ),
        (
            "2pcm",
            {"cell": {"read_noise_law": [0.0, 0.1, 0.1, 0.1]}},
            "[cell] read_noise_law = [0.0, 0.1, 0.1, 0.1]: must be left out where read_noise_scale is a law",
        ),
        (
            "4pcm",
            {"cell": {"read_noise_law_above": [0.5, 1.0]}},
            "[cell] read_noise_law_above = [0.5, 1.0]: must be left out where read_noise_law is",
        ),
        (
            "2pcm",
            {"cell": {"stuck_low_fraction": 0.75, "stuck_high_fraction": 0.5}},
            "[cell] stuck_high_fraction = 0.5: must be at most 1 - stuck_low_fraction = 0.25",
        ),
        ("2pcm", {"effects": {"stuck": True}}, "[effects] stuck = true: must be false with 2pcm cells whose"),
        (
            "2pcm",
            {"cell": {"read_noise_scale": 0.0}, "effects": {"read_noise": "split"}},
            '[effects] read_noise = "split": must be "off" with 2pcm cells whose [cell] gives no law of it',
        ),
        (
            "3t1c",
            {"cell": {"g_reference_us": 20.0}},
            "[cell] g_reference_us = 20: must lie between g_low_us = 4 and g_high_us = 20 uS",
        ),
        (
            "3t1c",
            {"effects": {"read_noise": "fast"}},
            '[effects] read_noise = "fast": must be "off" with 3t1c',
        ),
        ("rram", {"cell": {"g_min_us": 39.0}}, "[cell] g_min_us = 39: must be less than g_max_us = 39 uS"),
        (
            "rram",
            {"cell": {"g_max_us": 40.0}},
            "[cell] g_max_us = 40: must be at most g_max_fit_us = 39.26 uS",
        ),
        (
            "rram",
            {"cell": {"programming_error_us": [1.0, -0.1]}},
            "[cell] programming_error_us = [1.0, -0.1]: must not give a negative standard deviation",
        ),
        ("rram", {"effects": {"drift": True}}, "[effects] drift = true: must be false with rram cells"),
        (
            "sram",
            {"effects": {"programming_error": True}},
            "[effects] programming_error = true: must be false",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_named(kind, changes, message):
    wrong = tables(kind)
    for section, values in changes.items():
        wrong[section].update(values)
    with pytest.raises(ChipError) as error:
        chip_from_dict(wrong, "mine.toml")
    assert str(error.value).startswith("mine.toml: " + message)


def test_a_tile_of_one_row_is_right_without_a_bias_row():
    right = tables()
    right["tile"].update(rows=1, bias_row=False)
    assert chip_from_dict(right, "mine.toml").tile.rows == 1


# --- round trip ---


@pytest.mark.parametrize("kind", CELL_KINDS)
def test_a_description_survives_json_exactly(kind):
    spec = chip_from_dict(tables(kind), "mine.toml")
    again = chip_from_dict(json.loads(json.dumps(chip_to_dict(spec), allow_nan=False)), "program.json")
    assert again == spec
    assert hash(again) == hash(spec)


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


# --- files ---


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path):
    with pytest.raises(ChipError) as error:
        load_chip(path)
    return str(error.value)


def test_a_copied_and_changed_chip_file_loads_from_its_path(tmp_path):
    text = (CHIPS / "nature2018.toml").read_text(encoding="utf-8").replace("rows = 513", "rows = 257")
    path = write(tmp_path, text)
    for form in (path, str(path), os.fsencode(path)):
        assert load_chip(form).tile.rows == 257


def test_the_issue_example_reads_as_promised(tmp_path):
    text = (CHIPS / "nature2018.toml").read_text(encoding="utf-8").replace("rows = 513", "rows = -3")
    path = write(tmp_path, text)
    assert refusal(path) == f"{path}: [tile] rows = -3: must be a whole number from 1 to 65,536"


def test_a_missing_file_lists_the_shipped_chips(tmp_path):
    assert "no such file, and no chip of that name (shipped chips: " + ", ".join(chip_names()) in refusal(
        tmp_path / "no.toml"
    )


def test_a_misspelt_chip_name_gets_the_right_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal("natur2018").startswith(
        "natur2018: no such file, and no chip of that name; did you mean nature2018?"
    )


def test_toml_that_does_not_parse_is_refused_with_its_line(tmp_path):
    path = write(tmp_path, 'name = "x"\n[tile\nrows = 3\n')
    assert re.fullmatch(rf"{re.escape(str(path))}: not valid TOML: .*line 2.*", refusal(path))


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 100_000, "x = " + "9" * 10_000, "a = 1\na = 2", "x = nan1", "[a]\n[a]", "\x00"]
)
def test_odd_toml_is_refused_as_toml(tmp_path, text):
    assert "not valid TOML" in refusal(write(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"name = '\xff\xfe'")
    assert "byte 8 is not UTF-8 text" in refusal(path)


def test_a_huge_file_is_refused_without_reading_it_whole(tmp_path):
    path = write(tmp_path, "#" * (MAX_FILE_BYTES + 1))
    assert "larger than 1,000,000 bytes" in refusal(path)
    sparse = tmp_path / "sparse.toml"
    with open(sparse, "wb") as file:
        file.truncate(1 << 40)
    assert "larger than 1,000,000 bytes" in refusal(sparse)


def test_a_folder_a_pipe_and_an_impossible_path_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path)
    assert "not a regular file" in refusal(tmp_path / "pipe")
    assert "can't be read" in refusal("nul\0l")
    assert "can't be read" in refusal("x" * 5000)
    assert "not a regular file" in refusal("")


@pytest.mark.parametrize("value", [3, None, True, ["nature2018"], 1.5])
def test_what_is_neither_name_nor_path_is_refused(value):
    assert "must be a chip's name or a file's path" in refusal(value)


# --- extends ---


def test_a_file_may_extend_a_shipped_chip_and_say_only_what_differs(tmp_path):
    path = write(tmp_path, 'extends = "nature2018"\nname = "tall"\n[tile]\nrows = 1025\n')
    base, tall = load_chip("nature2018"), load_chip(path)
    assert tall == dataclasses.replace(base, name="tall", tile=dataclasses.replace(base.tile, rows=1025))


def test_a_file_may_extend_another_beside_it(tmp_path, monkeypatch):
    write(tmp_path, 'extends = "nature2018"\nname = "tall"\n[tile]\nrows = 1025\n', "tall.toml")
    path = write(tmp_path, 'extends = "tall.toml"\nname = "wide"\n[tile]\ncols = 7\n')
    monkeypatch.chdir("/")  # "beside" is beside the file, not in the current folder
    wide = load_chip(path)
    assert (wide.name, wide.tile.rows, wide.tile.cols) == ("wide", 1025, 7)


def test_a_changed_chip_needs_a_name_of_its_own(tmp_path):
    path = write(tmp_path, 'extends = "nature2018"\n[tile]\nrows = 1025\n')
    assert refusal(path).startswith(f"{path}: name: missing; must be one line of text")


def test_a_cell_of_another_kind_replaces_the_old_cell_whole(tmp_path):
    path = write(
        tmp_path,
        'extends = "nature2018"\nname = "exact"\n[cell]\nkind = "ideal"\n'
        '[effects]\nprogramming_error = false\nread_noise = "off"\n',
    )
    assert load_chip(path).cell == IdealCellSpec("ideal")


def test_a_mistake_is_blamed_on_the_file_that_has_it(tmp_path):
    base = write(tmp_path, 'extends = "nature2018"\nname = "b"\n[dac]\nbits = 99\n', "base.toml")
    path = write(tmp_path, 'extends = "base.toml"\nname = "m"\n[adc]\nbits = 99\n')
    assert refusal(path).startswith(f"{base}: [dac] bits = 99")
    write(tmp_path, 'extends = "nature2018"\nname = "b"\n', "base.toml")
    assert refusal(path).startswith(f"{path}: [adc] bits = 99")


def test_a_section_that_the_extending_file_gives_as_a_value_is_refused(tmp_path):
    path = write(tmp_path, 'extends = "nature2018"\nname = "m"\ncell = 3\n')
    assert refusal(path) == f"{path}: cell = 3: must be a section, [cell]"


def test_files_that_extend_each_other_are_refused(tmp_path):
    a = write(tmp_path, 'extends = "b.toml"\nname = "a"\n', "a.toml")
    b = write(tmp_path, 'extends = "a.toml"\nname = "b"\n', "b.toml")
    assert refusal(a) == f"{a}: extends goes in a circle: {a} -> {b} -> {a}"
    own = write(tmp_path, 'extends = "own.toml"\nname = "o"\n', "own.toml")
    assert "extends goes in a circle" in refusal(own)


@pytest.mark.parametrize(
    "parent", ['"../x.toml"', '"/etc/passwd"', '"sub/x.toml"', '"."', '".."', '""', "3", "[]", "true"]
)
def test_a_file_may_extend_nothing_outside_its_folder(tmp_path, parent):
    path = write(tmp_path, f'extends = {parent}\nname = "m"\n')
    assert "must be a shipped chip or a file beside it" in refusal(path)


def test_extends_has_no_meaning_in_a_program_file():
    with pytest.raises(ChipError, match="extends: unknown field"):
        chip_from_dict({**tables(), "extends": "nature2018"}, "program.json")


# --- the shipped files ---


def test_nature2018_is_shipped_and_named_like_its_file():
    assert "nature2018" in chip_names()
    assert chip_names() == sorted(path.stem for path in CHIPS.glob("*.toml"))
    assert all(load_chip(name).name == name for name in chip_names())


def test_nature2018_holds_the_networks_of_its_paper():
    chip = load_chip("nature2018")
    cells = chip.chip.tiles * chip.tile.rows * chip.tile.cols
    assert cells == 205_200 >= 204_900  # 2,048 features and a bias to 100 classes: Nature 2018, abstract


@pytest.mark.parametrize("name", chip_names())
def test_every_number_in_a_shipped_file_says_where_it_comes_from(name):
    lines = (CHIPS / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    fields = [line for line in lines if re.match(r"\w+ = [-+\[\d.]", line)]
    assert [line for line in fields if not TAG.search(line)] == []
    # No number in a form that the pattern above overlooks:
    numbers = [
        value
        for section in tomllib.loads("\n".join(lines)).values()
        if isinstance(section, dict)
        for value in section.values()
        if isinstance(value, list | int | float) and not isinstance(value, bool)
    ]
    assert len(fields) == len(numbers)


def test_every_field_is_explained_in_the_documentation():
    text = (ROOT / "docs" / "chips.md").read_text(encoding="utf-8")
    names = {field for _, _, field, _ in every_field()}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_long_and_odd_values_are_shown_shortly():
    assert shown(10**5000) == "an integer of 16,610 bits"
    assert shown([1, [2], {}, "x"]) == '[1, [...], a section, "x"]'
    assert shown(list(range(20))) == "[0, 1, 2, 3, 4, 5, 6, 7, ...]"
    assert len(shown("x" * 10_000)) == 100
