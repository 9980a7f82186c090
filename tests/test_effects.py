"""Every effect against its formula, and the page that says how near they are. See `effects`."""

import re
from pathlib import Path

import effects
import numpy as np
import pytest
from effects_measures import BEYOND, SEED, deviation, ks, mean, product, rounding, share

import pcmc
from pcmc.accel.cell_specs import CELL_KINDS
from pcmc.accel.physics import EFFECTS, READ_NOISE_KINDS, TRAINING_EFFECTS
from pcmc.accel.training_spec import PULSE_KINDS

ROOT = Path(__file__).resolve().parent.parent
NAMES = [row.effect for row in effects.ROWS]
SLOW = {
    "read noise, split, in time",
    "read noise, fast",
    "read noise, frozen",
    "programming error of PCM",
    "mean drift",
    "RRAM in time, by a table",
    "measured cells, writing by pulses",
    "random numbers",
}


def each(names):
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


def table_of_the_page():
    page = effects.PAGE.read_text()
    first, last = effects.page_lines(page)
    rows = [
        re.split(r"(?<!\\) ?\| ?", line.removeprefix("| ").removesuffix(" |"))
        for line in page.splitlines()[first + 2 : last]
    ]
    return {row[0]: row for row in rows}, [row[0] for row in rows]


@pytest.mark.parametrize("effect", each(NAMES))
def test_an_effect_deviates_from_its_formula_by_no_more_than_sampling_or_rounding(effect):
    found = effects.measured(effect)
    assert found
    for one in found:
        assert np.isfinite(one.deviation), one
        assert one.deviation <= one.allowed, one


@pytest.mark.parametrize("effect", each(NAMES))
def test_the_page_states_what_is_measured(effect):
    """All of a row but the deviation is as the list has it; that is not smaller than what is found."""
    rows, _ = table_of_the_page()
    (row,) = (row for row in effects.ROWS if row.effect == effect)
    said, found = rows[effect.replace("|", "\\|")], list(effects.cells(row))
    column = effects.DEVIATION
    assert said[:column] + said[column + 1 :] == found[:column] + found[column + 1 :]
    numbers = [part.rpartition(" ") for part in said[column].split("; ")]
    assert [name for name, _, _ in numbers] == [
        one.name.replace("|", "\\|") for one in effects.measured(effect)
    ]
    for (_, _, number), one in zip(numbers, effects.measured(effect), strict=True):
        assert one.deviation <= float(number) <= one.allowed * 1.1


def test_the_page_has_these_rows_and_no_others():
    _, said = table_of_the_page()
    assert said == NAMES
    assert len(set(NAMES)) == len(NAMES)


def test_every_effect_and_every_kind_of_cell_has_a_row():
    there = {name for row in effects.ROWS for name in row.of}
    assert set(EFFECTS) | set(TRAINING_EFFECTS) <= there
    assert set(READ_NOISE_KINDS) <= there
    assert set(CELL_KINDS) <= there


@pytest.mark.parametrize("chip", pcmc.chip_names())
def test_every_law_of_the_cells_of_a_shipped_chip_has_a_row(chip):
    cell = pcmc.load_chip(chip).cell
    for effect in cell.effects:
        assert any({cell.kind, effect} <= set(row.of) for row in effects.ROWS), (cell.kind, effect)


@pytest.mark.parametrize("kind", PULSE_KINDS)
def test_every_law_of_a_kind_of_pulses_has_a_row(kind):
    for effect in PULSE_KINDS[kind].effects:
        assert any({kind, effect} <= set(row.of) for row in effects.ROWS), effect
    for cell in PULSE_KINDS[kind].cells:
        assert any({kind, cell} <= set(row.of) for row in effects.ROWS), cell


def test_the_other_tests_that_are_named_exist():
    for row in effects.ROWS:
        if row.test:
            file, _, name = row.test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), row.test


def test_the_files_that_are_named_as_sources_exist():
    for row in effects.ROWS:
        for file in re.findall(r"(?:accel|runtime|tests)/\S*\.(?:py|toml)", row.source):
            assert (ROOT / file).is_file(), file


# The statistics would show a mistake, and let right numbers pass.

N = 100_000
RNG = np.random.default_rng(SEED)
Z, OTHER = RNG.standard_normal((2, N))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (ks("", Z), ks("", 1.03 * Z)),
        (ks("", Z), ks("", Z + 0.02)),
        (mean("", Z), mean("", Z + 0.03)),
        (deviation("", Z), deviation("", 1.02 * Z)),
        (product("", Z, OTHER, 0.0), product("", Z, (OTHER + 0.03 * Z), 0.0)),
        (share("", Z < 0, 0.5), share("", Z < 0.03, 0.5)),
        (rounding("", Z.astype(np.float32), Z, 2), rounding("", Z * (1 + 1e-6), Z, 2)),
    ],
)
def test_a_mistake_of_a_few_per_cent_would_show(right, wrong):
    assert right.deviation <= right.allowed
    assert wrong.deviation > wrong.allowed


def test_what_is_allowed_falls_with_the_root_of_the_size_of_the_sample():
    for statistic in (ks, mean, deviation):
        few, many = statistic("", Z[:1000]), statistic("", Z)
        assert few.allowed == pytest.approx(10 * many.allowed)
    assert mean("", Z).allowed == pytest.approx(BEYOND / N**0.5)


def test_numbers_of_the_page_are_rounded_up():
    assert [effects.upwards(x) for x in (0.0, 0.00123, 0.012, 9.99, 1e-7)] == [0.0, 0.0013, 0.012, 10.0, 1e-7]
