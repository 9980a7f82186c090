"""`pcmc fit-cell`: from a CSV file of pulses to a chip file that compiles networks, tables and a picture."""

import dataclasses
import json
import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from drawn_pulses import EXACT, Truth, Way, drawn, write_csv

import pcmc
from pcmc.accel.cells import make_cell
from pcmc.accel.cells.measured import MeasuredCell
from pcmc.accel.chip import load_chip
from pcmc.accel.pulses import Sweep
from pcmc.accel.random import stream
from pcmc.commands.fit_text import fit_tables
from pcmc.errors import DataError, OutputError
from pcmc.workflows.fit_cell import fit_cell

TRUTH = Truth(read_noise=0.05)


@pytest.fixture
def pulses(tmp_chdir):
    return write_csv(tmp_chdir / "pulses.csv", drawn(TRUTH, seed=3, devices=4))


# --- the chip file ---


def test_the_chip_file_is_a_chip_with_the_fitted_cell(pulses, tmp_chdir):
    found = fit_cell(pulses, tmp_chdir / "mine.toml")
    chip = load_chip(tmp_chdir / "mine.toml")
    assert chip.name == "mine"
    assert chip.cell == found.cell
    assert chip.tile == load_chip("nature2018").tile
    assert isinstance(make_cell(chip.cell), MeasuredCell)
    fit = found.fit
    assert chip.cell.g_max_us == pytest.approx(fit.g_max_us.mean.value, rel=1e-4)
    for one in fit.directions:
        assert getattr(chip.cell, f"step_{one.direction}_us") == pytest.approx(
            one.step_us.mean.value, rel=1e-4
        )
        assert getattr(chip.cell, f"step_{one.direction}_deviation") == pytest.approx(
            one.step_us.deviation.value / one.step_us.mean.value, rel=1e-3
        )


def test_each_number_of_the_cell_says_where_it_comes_from(pulses, tmp_chdir):
    fit_cell(pulses, "mine.toml")
    text = (tmp_chdir / "mine.toml").read_text()
    section = text.split("\n[cell]\n")[1].split("\n[effects]\n")[0]
    numbers = [line for line in section.splitlines() if re.match(r"\w+ = [-0-9]", line)]
    assert len(numbers) == 14
    for line in numbers:
        assert re.search(r"  # measured: pulses\.csv: fit, .*95 % [-0-9.e]+ to [-0-9.e]+$", line), line


def test_the_fitted_step_is_that_of_the_drawn_devices(pulses):
    cell = fit_cell(pulses).cell
    for direction, one in TRUTH.ways.items():
        step = getattr(cell, f"step_{direction}_us")
        assert step == pytest.approx(one.step, abs=4 * one.step * one.step_deviation / 2)  # of four devices
    assert cell.g_max_us - cell.g_min_us == pytest.approx(20.0, abs=2.0)


def test_the_file_is_named_like_the_pulses_unless_it_is_told(pulses, tmp_chdir):
    assert str(fit_cell(pulses).output) == "pulses.toml"
    assert load_chip("pulses.toml").name == "pulses"
    assert {path.name for path in tmp_chdir.iterdir()} == {"pulses.csv", "pulses.toml"}


def test_a_chip_never_goes_by_a_shipped_ones_name(pulses, tmp_chdir):
    fit_cell(pulses, "nature2018.toml")
    assert load_chip(tmp_chdir / "nature2018.toml").name == "nature2018-measured"


@pytest.mark.parametrize("name", ['a"b.csv', "a\nb.csv", "a\\b.csv", "ünï.csv", "#.csv", "a]\x7f.csv"])
def test_no_name_of_a_file_breaks_the_chip_file(pulses, tmp_chdir, name):
    pulses.rename(tmp_chdir / name)
    found = fit_cell(tmp_chdir / name)
    chip = load_chip(tmp_chdir / found.output)
    assert chip.cell == found.cell
    assert re.fullmatch(r"[\w.-]+", chip.name, re.ASCII)
    assert chip.source.startswith("measured: ")


def test_the_chip_file_of_the_documentation_is_one(tmp_chdir):
    page = (Path(__file__).resolve().parents[2] / "docs" / "own-cell.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, flags=re.S)
    (tmp_chdir / "mine.toml").write_text(example)
    chip = load_chip("mine.toml")
    assert chip.cell.effects == ("programming_error", "read_noise", "drift")
    fields = {field.name for field in dataclasses.fields(chip.cell)} - {"kind"}
    said = set(re.findall(r"`(\w+)`", page))
    for name in fields - said:  # of the pulses' fields one direction stands for both
        assert name.replace("down", "up") in said, name


def test_one_device_gives_a_cell_without_spread(tmp_chdir):
    write_csv(tmp_chdir / "one.csv", drawn(TRUTH, devices=1))
    cell = fit_cell("one.csv").cell
    assert cell.step_up_deviation == cell.g_min_deviation_us == cell.nonlinearity_down_deviation == 0.0
    assert "unknown: one device" in (tmp_chdir / "one.toml").read_text()
    assert load_chip("one.toml").cell == cell


@pytest.mark.parametrize("direction", ["up", "down"])
def test_pulses_of_one_direction_give_a_unidirectional_cell(tmp_chdir, direction):
    sweeps = drawn(Truth(ways={direction: Way(0.4, 0.3, 0.05, 0.1)}), devices=3)
    found = fit_cell(write_csv(tmp_chdir / "one-way.csv", sweeps))
    other = "down" if direction == "up" else "up"
    assert getattr(found.cell, f"step_{other}_us") == 0.0
    assert f"pulses {direction} only: unidirectional" in fit_tables(found.as_dict())
    cell = make_cell(load_chip("one-way.toml").cell)
    written = cell.program(np.full((50, 60), 8.0, np.float32), stream(0, (0,), "x"))
    assert cell.weights_us(written).mean() == pytest.approx(8.0, abs=0.1)


def test_an_old_file_is_left_alone_where_the_new_one_fails(pulses, tmp_chdir):
    (tmp_chdir / "mine.toml").write_text("old")
    (tmp_chdir / "bad.csv").write_text("device,direction,pulse,conductance_us\n")
    with pytest.raises(DataError, match=r"bad\.csv: no rows"):
        fit_cell("bad.csv", "mine.toml")
    assert (tmp_chdir / "mine.toml").read_text() == "old"


@pytest.mark.slow
def test_a_network_runs_on_the_fitted_chip(pulses):
    fit_cell(pulses, "mine.toml")
    program = pcmc.compile("digits-mlp", chip="mine.toml")
    exact = pcmc.Session(program).run(None, {program.inputs[0].name: images()})[0]
    errors = []
    for seed in (0, 1):
        session = pcmc.Session(program, physics="programming_error", seed=seed)
        found = session.run(None, {program.inputs[0].name: images()})[0]
        assert np.isfinite(found).all()
        errors.append(np.std(found - exact) / np.std(exact))
        assert np.mean(found.argmax(1) == exact.argmax(1)) > 0.9
    assert errors[0] != errors[1]
    assert 0.0005 < min(errors) < max(errors) < 0.2


def images():
    from pcmc.models import zoo

    return zoo.test_data("digits-mlp")[0][:100]


def test_coarser_steps_make_worse_weights(tmp_chdir):
    spread = []
    for step in (0.2, 2.0):
        truth = Truth(low_deviation=0.0, high_deviation=0.0, ways={"up": Way(step, 0.3, step / 10)})
        fit_cell(write_csv(tmp_chdir / "x.csv", drawn(truth, devices=3)))
        cell = make_cell(load_chip("x.toml").cell)
        written = cell.program(np.full((50, 60), 9.0, np.float32), stream(0, (0,), "x"))
        spread.append(float(np.std(written.g_plus)))
    assert 5 < spread[1] / spread[0] < 15


# --- what is printed ---


def test_the_facts_are_json_and_hold_every_device(pulses):
    facts = fit_cell(pulses).as_dict()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["law"] in facts["aic"]
    assert facts["devices"] == 4
    assert [(one["device"], one["direction"]) for one in facts["traces"]] == [
        (f"d{device}", way) for device in range(4) for way in ("up", "down")
    ]
    assert sum(one["points"] for one in facts["traces"]) == facts["points"]


def test_the_tables_have_every_figure_with_its_interval(pulses):
    facts = fit_cell(pulses).as_dict()
    text = fit_tables(facts)
    for name in (
        "step up at mid range, uS",
        "step down",
        "nonlinearity up",
        "asymmetry",
        "steps over the range",
    ):
        assert re.search(rf"{name}.* [-0-9.]+ to [-0-9.]+", text), name
    assert f"{facts['directions'][0]['step_us']['mean']['value']:.4g}" in text
    assert all(f"d{device}" in text for device in range(4))
    assert text.endswith("chip file written to pulses.toml")
    assert max(len(line) for line in text.splitlines()[1:]) < 110


def test_a_long_table_of_devices_is_cut_and_says_so(tmp_chdir):
    facts = fit_cell(write_csv(tmp_chdir / "x.csv", drawn(EXACT, devices=1))).as_dict()
    many = facts | {"traces": facts["traces"] * 30}
    assert "... and 20 more; --json has all" in fit_tables(many)


# --- the picture ---

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_shows_points_and_curves_of_each_device(pulses, tmp_chdir):
    found = fit_cell(pulses, picture="fit.svg")
    root = ET.fromstring((tmp_chdir / "fit.svg").read_text())
    panels = root.findall(f"{SVG}g")
    assert len(panels) == 4
    low, high = found.fit.g_min_us.mean.value - 3, found.fit.g_max_us.mean.value + 3
    assert low < high
    for panel in panels:
        lines = panel.findall(f"{SVG}polyline")
        points = panel.findall(f"{SVG}circle")
        assert len(lines) == 2
        assert len(points) > 100
        for line in lines:  # each curve runs through the points of its direction
            way = line.get("class").removeprefix("curve ")
            drawn_points = {float(p.get("cx")): float(p.get("cy")) for p in points if p.get("class") == way}
            curve = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
            assert all(abs(drawn_points[x] - y) < 12 for x, y in curve)
    assert len((tmp_chdir / "fit.svg").read_text()) < 200_000
    assert f"picture written to {found.picture}" in fit_tables(found.as_dict())


def test_the_picture_escapes_names_and_leaves_many_devices_out(tmp_chdir):
    rising = np.linspace(1.0, 9.0, 12)
    sweeps = [Sweep(f"<d&{i}>", "up", np.arange(12), rising + i / 100) for i in range(26)]
    fit_cell(write_csv(tmp_chdir / "a&b.csv", sweeps), picture="fit.svg")
    text = (tmp_chdir / "fit.svg").read_text()
    root = ET.fromstring(text)
    assert len(root.findall(f"{SVG}g")) == 24
    assert "the first 24 of 26 devices" in text
    assert "a&amp;b.csv" in text


def test_a_picture_of_another_format_is_refused_before_anything_is_written(pulses, tmp_chdir):
    with pytest.raises(DataError, match=r"picture fit\.png: the name should end in \.svg"):
        fit_cell(pulses, "mine.toml", "fit.png")
    assert not (tmp_chdir / "mine.toml").exists()


def test_an_output_that_is_no_toml_is_refused(pulses):
    with pytest.raises(DataError, match=r"output pulses\.csv: the name should end in \.toml"):
        fit_cell(pulses, "pulses.csv")
    pulses.rename("pulses.toml")
    with pytest.raises(DataError, match=r"pulses\.toml: would take the place of the pulses"):
        fit_cell("pulses.toml")
    Path("pulses.toml").rename(pulses)
    with pytest.raises(OutputError, match="can't be written"):
        fit_cell(pulses, "missing/mine.toml")


def test_points_without_a_cell_are_refused_by_the_name_of_the_file(tmp_chdir):
    rows = [f"a,up,{i},{5 + (i % 7) * 0.1 + (0 if i in (0, 11) else i)}" for i in range(12)]
    (tmp_chdir / "x.csv").write_text("device,direction,pulse,conductance_us\n" + "\n".join(rows))
    with pytest.raises(DataError, match=r"x\.csv: no cell can be made of it: "):
        fit_cell("x.csv")


# --- the command ---


@pytest.mark.slow
def test_the_command_writes_chip_and_picture_and_prints_the_fit(done, pulses, tmp_chdir):
    text = done("fit-cell", "pulses.csv", "-o", "mine.toml", "--picture", "fit.svg")
    assert "law: " in text
    assert "chip file written to mine.toml" in text
    assert "on mine: 3 matrices" in done("compile", "digits-mlp", "--chip", "mine.toml")
    assert (tmp_chdir / "fit.svg").read_text().startswith("<svg")
    assert tomllib.loads((tmp_chdir / "mine.toml").read_text())["extends"] == "nature2018"


def test_the_command_prints_json(done, pulses):
    facts = json.loads(done("fit-cell", "pulses.csv", "--json"))
    assert facts["output"] == "pulses.toml"
    assert facts["picture"] is None
    assert facts["asymmetry"]["mean"]["low"] < facts["asymmetry"]["mean"]["high"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing.csv",), "missing.csv: no such file"),
        (("pulses.csv", "--picture", "x.png"), "picture x.png: the name should end in .svg"),
        (("bad.csv",), "bad.csv: line 2, column conductance_us"),
    ],
)
def test_the_command_refuses_in_one_line(refused, pulses, tmp_chdir, words, message):
    (tmp_chdir / "bad.csv").write_text("device,direction,pulse,conductance_us\na,up,0,nan\n")
    assert message in refused("fit-cell", *words)
