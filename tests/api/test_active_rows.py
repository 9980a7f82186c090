"""How many rows of a matrix are driven at a time: counted at its inputs, kept, printed, and used by wires."""

import dataclasses

import builders
import numpy as np
import pytest

import pcmc
from pcmc.accel.wires import Wires, solve_active
from pcmc.commands import text
from pcmc.errors import DataError
from pcmc.workflows.calibrate import calibrate_ranges

WIRES = Wires(row_ohm=5.0, column_ohm=5.0, driver_ohm=100.0, sense_ohm=50.0, idle_row="cut")


def sparse(rows, vectors, part, seed=1):
    """Inputs that are not 0 with this probability, above rounding to 0 by any converter."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(0.3, 1, (vectors, rows)) * (rng.random((vectors, rows)) < part)
    return drawn.astype(np.float32)


def of_rows(on):
    """The part of rows that a driven row sees driven, from whether each is `[reads, rows]`."""
    count = on.sum(axis=1)
    return (count**2).sum() / (count.sum() * on.shape[1])


def wired(spec, **fields):
    return dataclasses.replace(spec, wires=dataclasses.replace(WIRES, **fields))


@pytest.mark.parametrize("bias", [False, True])
def test_driven_rows_are_counted_as_they_come_to_each_matrix(bias):
    program = pcmc.compile(
        builders.mlp([40, 30, 5], bias=bias, activation="Relu"), wired(builders.chip(60, 40))
    )
    x = sparse(40, 50, 0.3)
    found = pcmc.calibrate(program, x, physics="ir_drop", what="active")
    assert found.what == ("active",)
    session, seen = pcmc.Session(program, "ir_drop"), {}
    session.watch = lambda step, values: seen.update({step.bank: values != 0})
    session.run(None, {"x": x})
    for name, on in seen.items():
        if bias:
            on = np.concatenate([on, np.ones((len(on), 1), bool)], axis=1)
        assert found.banks[name].active_fraction == pytest.approx(of_rows(on), abs=0.02)
    assert found.banks["dense0"].active_fraction == pytest.approx(0.3, abs=0.05)
    assert 0.35 < found.banks["dense1"].active_fraction < 0.65  # after a ReLU


def test_padding_is_idle_and_each_position_a_read_of_its_own():
    program = pcmc.compile(
        builders.conv((2, 3, 3, 3), (4, 4), bias=False, pads=[1, 1, 1, 1]), wired(builders.chip(60, 40))
    )
    found = pcmc.calibrate(program, np.ones((3, 3, 4, 4), np.float32), physics="ir_drop", what="active")
    rows = np.pad(np.ones((4, 4)), 1)
    counts = np.array(
        [[rows[i : i + 3, j : j + 3].sum() for j in range(4)] for i in range(4)]
    )  # of a channel
    (bank,) = found.banks.values()
    assert bank.active_fraction == pytest.approx((counts**2).sum() / (9 * counts.sum()))


def test_of_bits_those_that_are_sent_count_with_their_weight():
    """Codes 1 and 4 of 7: bits 1 and 4 are sent each to one of two rows, bit 2 to none."""
    spec = wired(builders.chip(60, 40))
    spec = dataclasses.replace(spec, dac=dataclasses.replace(spec.dac, bits=4, input="bits", slice_bits=1))
    program = pcmc.compile(builders.mlp([3, 4], bias=False), spec)
    x = np.array([[1, 4, 7]], np.float32)
    (bank,) = pcmc.calibrate(program, x, physics="dac,ir_drop", what="active").banks.values()
    squared, driven = 1 * 2**2 + 2 * 1**2 + 4 * 2**2, 1 * 2 + 2 * 1 + 4 * 2
    assert bank.active_fraction == pytest.approx(squared / (3 * driven))


@pytest.mark.parametrize("idle_row", ["cut", "floating"])
def test_a_calibrated_chip_is_solved_for_the_rows_that_are_driven(idle_row):
    """What a run gives is nearer to exact solves of each input, and what the session says of that holds."""
    program = pcmc.compile(
        builders.mlp([120, 60], bias=False), wired(builders.chip(128, 64), idle_row=idle_row)
    )
    x = sparse(120, 60, 0.3)
    found = pcmc.calibrate(program, x[:50], physics="ir_drop", what="active")
    sessions = [pcmc.Session(program, "ir_drop", calibration=banks) for banks in (None, found.banks)]
    before, after = (session.wires.error for session in sessions)
    assert before > 0.02
    assert after < 0.7 * before
    (held,) = sessions[0].state.banks.values()
    plus, minus = (g.reshape(120, 60) for g in (held.devices.g_plus, held.devices.g_minus))
    wires = program.chip.wires
    exact = np.array([solve_active(plus, v, wires, minus_us=minus) for v in x[50:]]) * held.w_max / 20.0
    errors = [np.sqrt(np.mean((s.run(None, {"x": x[50:]})[0] - exact) ** 2)) for s in sessions]
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] / np.sqrt(np.mean(exact**2)) == pytest.approx(after, rel=0.5)


def test_a_program_keeps_how_many_of_its_rows_are_driven(tmp_path):
    program = pcmc.compile(builders.mlp([120, 60], bias=False), wired(builders.chip(128, 64)))
    found = calibrate_ranges(program, sparse(120, 50, 0.3))
    assert found.what == ("adc", "active")
    found.save(program, tmp_path / "a.pcmc")
    stored = pcmc.load_calibration(tmp_path / "a.pcmc")
    part = found.banks["dense0"].active_fraction
    assert stored.banks["dense0"].active_fraction == part == pytest.approx(0.3, abs=0.05)
    session = pcmc.Session(program, "ir_drop", calibration=stored.banks)
    again = pcmc.Session(program, "ir_drop", calibration=found.banks)
    np.testing.assert_array_equal(session.wires.banks["dense0"].weights, again.wires.banks["dense0"].weights)
    facts = text.calibration_facts(stored)
    assert facts["active"] == {"dense0": part}
    report = {**program.report(), "calibration": facts}
    assert f"driven at a time: {part:.2g} of the rows of dense0" in text.summary(report)


def test_the_chip_file_says_how_many_rows_are_driven_where_nothing_was_measured():
    model, x = builders.mlp([120, 60], bias=False), sparse(120, 8, 0.3)
    said = pcmc.Session(pcmc.compile(model, wired(builders.chip(128, 64), active_fraction=0.3)), "ir_drop")
    every = pcmc.Session(pcmc.compile(model, wired(builders.chip(128, 64))), "ir_drop")
    assert said.wires.error < 0.7 * every.wires.error
    assert (said.run(None, {"x": x})[0] != every.run(None, {"x": x})[0]).any()


def test_grounded_rows_and_ideal_wires_have_nothing_to_measure():
    x = sparse(30, 8, 0.3)
    for fields, reason in (
        ({"idle_row": "grounded"}, "idle rows of .* are grounded"),
        ({}, "the physics has no ir_drop"),
    ):
        program = pcmc.compile(builders.mlp([30, 12]), wired(builders.chip(), **fields))
        physics = "dac,adc" if not fields else "ir_drop"
        with pytest.raises(DataError, match=f"nothing to calibrate: {reason}"):
            pcmc.calibrate(program, x, physics=physics, what="active")


def test_a_matrix_that_nothing_drives_says_nothing():
    program = pcmc.compile(builders.mlp([30, 12], bias=False), wired(builders.chip()))
    found = pcmc.calibrate(program, np.zeros((4, 30), np.float32), physics="ir_drop", what="active")
    assert found.banks["dense0"].active_fraction is None
