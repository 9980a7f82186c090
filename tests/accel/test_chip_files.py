"""Chip files: what may be read, what a file may extend, and that every shipped number has a source."""

import dataclasses
import os
import re
import tomllib
from pathlib import Path

import pytest

import pcmc.accel.chips
from pcmc.accel.chip import (
    MAX_FILE_BYTES,
    IdealCellSpec,
    WeightSpec,
    chip_from_dict,
    chip_names,
    chip_to_dict,
    load_chip,
)
from pcmc.accel.wires import Wires
from pcmc.errors import ChipError

CHIPS = Path(pcmc.accel.chips.__file__).parent
TAG = re.compile(r"#\s*(published|derived|assumed|measured): \S")


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


def test_a_file_may_add_sections_that_the_extended_chip_leaves_out(tmp_path):
    path = write(
        tmp_path,
        'extends = "nature2018"\nname = "wired"\n[weights]\nscale = "column"\n[wires]\nrow_ohm = 2\n'
        "[cell]\nlow_steps = 100\n[adc]\nnoise_lsb = 0.5\n[effects]\nir_drop = true\nreadout_noise = true\n",
    )
    base, wired = load_chip("nature2018"), load_chip(path)
    assert wired == dataclasses.replace(
        base,
        name="wired",
        weights=WeightSpec(scale="column"),
        wires=Wires(row_ohm=2.0, column_ohm=0.35),
        cell=dataclasses.replace(base.cell, low_steps=100),
        adc=dataclasses.replace(base.adc, noise_lsb=0.5),
        effects=dataclasses.replace(base.effects, ir_drop=True, readout_noise=True),
    )


def test_a_section_of_defaults_keeps_the_fields_that_the_extended_file_gives(tmp_path):
    write(
        tmp_path,
        'extends = "nature2018"\nname = "a"\n[wires]\nrow_ohm = 2\ncolumn_ohm = 3\n'
        "[effects]\nir_drop = true\n",
        "a.toml",
    )
    path = write(tmp_path, 'extends = "a.toml"\nname = "b"\n[wires]\nrow_ohm = 0\n')
    assert load_chip(path).wires == Wires(column_ohm=3.0)
    assert load_chip(path).effects.ir_drop
    path = write(tmp_path, 'extends = "a.toml"\nname = "c"\n[wires]\nrow_ohm = 0\ncolumn_ohm = 0\n')
    assert refusal(path).startswith(f"{path}: [effects] ir_drop = true: must be false: it takes [wires]")


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
        '[effects]\nprogramming_error = false\nread_noise = "off"\ndrift = false\n',
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
        chip_from_dict({**chip_to_dict(load_chip("nature2018")), "extends": "nature2018"}, "program.json")


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
