"""Wires of whole tiles: what reads find in banks that share them agrees with nodal analysis of each tile."""

import dataclasses

import builders
import numpy as np
import pytest
from nodal import reference

import pcmc
from pcmc.accel.wires import Wires, pair_matrix, solve_active
from pcmc.errors import ChipError
from pcmc.runtime.program import BLOCK
from pcmc.runtime.wiring import wired_weights, wires_error

WIRES = Wires(row_ohm=20.0, column_ohm=30.0, driver_ohm=200.0, sense_ohm=100.0)
GAINS = (1.5, 0.25)


def compiled(sharing="stacked", rows=12, cols=9, sizes=(5, 4, 6, 3)):
    """Dense layers with bias rows, in tiles that hold several of their blocks."""
    return pcmc.compile(builders.mlp(sizes), builders.chip(rows, cols, sharing=sharing))


def placed(*tables):
    """A bank for each table, in one tile of 6 x 6: its blocks' row0, col0, rows, cols, x and y."""
    program = compiled(rows=6, cols=6, sizes=(4, 4, 2))
    banks = {}
    for bank, blocks in zip(program.banks.values(), tables, strict=True):
        table, offset = np.zeros(len(blocks), BLOCK), 0
        for one, values in zip(table, blocks, strict=True):
            for field, value in zip(("row0", "col0", "rows", "cols", "x", "y"), values, strict=True):
                one[field] = value
            one["offset"], offset = offset, offset + int(one["rows"] * one["cols"])
        cells = np.zeros(offset, np.float32)
        banks[bank.name] = dataclasses.replace(bank, table=table, cells=cells, rows=4)
    return dataclasses.replace(program, banks=banks)


def conductances(program, pairs=2, seed=0):
    """For each bank and pair random G+ and G-, of which one is 0, of 0 to 25 uS."""
    rng, aged = np.random.default_rng(seed), {}
    for name, bank in program.banks.items():
        size = bank.cells.size
        on = rng.random((pairs, size)) < 0.5
        drawn = rng.uniform(0, 25, (2, pairs, size)) * [on, ~on]
        aged[name] = [(drawn[0, k].astype(np.float32), drawn[1, k].astype(np.float32)) for k in range(pairs)]
    return aged


def blocks(program):
    """Each block with its bank's name, its tile, its cells there and its slice of the bank."""
    for name, bank in program.banks.items():
        for one in bank.table:
            rows, cols = slice(one["y"], one["y"] + one["rows"]), slice(one["x"], one["x"] + one["cols"])
            cells = slice(one["offset"], one["offset"] + one["rows"] * one["cols"])
            yield name, one, (int(one["chip"]), int(one["tile"])), (rows, cols), cells


def tiles(program, aged, k, half):
    """The arrays of all tiles, `[rows, cols]`, cell by cell."""
    found, tile = {}, program.chip.tile
    for name, one, place, _, cells in blocks(program):
        g, values = found.setdefault(place, np.zeros((tile.rows, tile.cols))), aged[name][k][half][cells]
        for index, value in enumerate(values):
            row, col = divmod(index, int(one["cols"]))
            assert g[one["y"] + row, one["x"] + col] == 0
            g[one["y"] + row, one["x"] + col] = value
    return found


def by_nodal_analysis(program, aged, wires, gains=GAINS):
    """W of each bank, from all rows of a tile driven one by one."""
    weights = {name: np.zeros(bank.cells.size) for name, bank in program.banks.items()}
    for k, gain in enumerate(gains):
        plus, minus = tiles(program, aged, k, 0), tiles(program, aged, k, 1)
        for place in plus:
            layers = [plus[place], minus[place]]
            if wires.differential == "shared":
                matrix = reference(layers, wires)
            else:
                matrix = reference(layers[:1], wires) - reference(layers[1:], wires)
            for name, _, where, part, cells in blocks(program):
                if where == place:
                    weights[name][cells] += gain * matrix[part].ravel()
    return weights


def assert_near(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


def shared_tiles(program):
    """How many tiles hold blocks of more than one bank."""
    banks = {}
    for name, _, place, _, _ in blocks(program):
        banks.setdefault(place, set()).add(name)
    return sum(len(names) > 1 for names in banks.values())


# --- agreement ---


@pytest.mark.parametrize("sharing", builders.SHARINGS)
@pytest.mark.parametrize("drive", ["one", "two"])
@pytest.mark.parametrize("differential", ["apart", "shared"])
def test_weights_behind_wires_agree_with_nodal_analysis_of_each_tile(sharing, drive, differential):
    program = compiled(sharing)
    assert bool(shared_tiles(program)) == (sharing != "exclusive")
    assert any(bank.table["bias"].any() for bank in program.banks.values())
    wires = dataclasses.replace(WIRES, drive=drive, differential=differential)
    aged = conductances(program)
    wired = wired_weights(program, aged, GAINS, wires)
    assert_near(wired.weights, by_nodal_analysis(program, aged, wires))
    for name, (plus, minus) in wired.halves.items():
        np.testing.assert_allclose(wired.weights[name], plus - minus, atol=1e-5)
        assert min(plus.min(), minus.min()) >= 0


def test_a_matrix_over_many_tiles_agrees_with_nodal_analysis():
    program = compiled(rows=6, cols=5, sizes=(14, 12, 7))
    aged = conductances(program, pairs=1)
    wired = wired_weights(program, aged, (1.0,), WIRES)
    assert_near(wired.weights, by_nodal_analysis(program, aged, WIRES, (1.0,)))
    assert wired.solves == 2 * program.tiles > 10


def test_without_resistance_weights_are_those_of_the_devices():
    program = compiled()
    aged = conductances(program)
    wired = wired_weights(program, aged, GAINS, Wires())
    for name, pairs in aged.items():
        exact = sum(gain * (p.astype(float) - m) for gain, (p, m) in zip(GAINS, pairs, strict=True))
        np.testing.assert_array_equal(wired.weights[name], exact.astype(np.float32))
        np.testing.assert_array_equal(wired.noise_scale[name], 1)
    assert wired.largest_drop == 0


@pytest.mark.parametrize("sharing", ["diagonal", "stacked"])
def test_banks_of_one_tile_feel_each_other(sharing):
    program = compiled(sharing, rows=40, cols=40)
    assert program.tiles == 1
    aged = conductances(program, pairs=1)
    first, *others = aged
    more = {**aged, **{name: [(p + 1, m) for p, m in aged[name]] for name in others}}
    before, after = (wired_weights(program, g, (1.0,), WIRES).weights[first] for g in (aged, more))
    if sharing == "stacked":
        assert np.abs(after - before).max() > 1e-3
    else:  # neither rows nor columns in common
        np.testing.assert_allclose(after, before, rtol=1e-6)


def test_cells_of_banks_that_are_missing_conduct_nothing():
    program = compiled(rows=40, cols=40)
    aged = conductances(program)
    name, *others = aged
    alone = wired_weights(program, {name: aged[name]}, GAINS, WIRES)
    none = {other: [(np.zeros_like(p), np.zeros_like(m)) for p, m in aged[other]] for other in others}
    beside = wired_weights(program, {name: aged[name], **none}, GAINS, WIRES)
    assert alone.weights.keys() == {name}
    np.testing.assert_array_equal(alone.weights[name], beside.weights[name])
    assert np.abs(alone.weights[name] - wired_weights(program, aged, GAINS, WIRES).weights[name]).max() > 1e-3
    nothing = wired_weights(program, {}, GAINS, WIRES)
    assert (nothing.weights, nothing.solves, nothing.largest_drop) == ({}, 0, 0)


@pytest.mark.parametrize("idle_row", ["grounded", "cut"])
def test_threads_change_no_bit(idle_row):
    program = compiled(rows=20, cols=16, sizes=(70, 60, 30, 10))
    assert program.tiles > 10
    wires = dataclasses.replace(WIRES, idle_row=idle_row)
    aged = conductances(program)
    one, two, three = (
        wired_weights(program, aged, GAINS, wires, threads, dict.fromkeys(aged, 0.5)) for threads in (1, 2, 3)
    )
    for other in (two, three):
        for name in aged:
            np.testing.assert_array_equal(one.weights[name], other.weights[name])
            np.testing.assert_array_equal(one.halves[name], other.halves[name])
            np.testing.assert_array_equal(one.noise_scale[name], other.noise_scale[name])
        assert (one.largest_drop, one.solves) == (other.largest_drop, other.solves)


# --- noise and drop ---


def test_noise_and_drop_follow_the_sums_of_columns():
    program = compiled()
    aged = conductances(program)
    wired = wired_weights(program, aged, GAINS, WIRES)
    least = 1.0
    for name, one, _, _, cells in blocks(program):
        shape = int(one["rows"]), int(one["cols"])
        g = sum(gain * (p[cells] + m[cells]) for gain, (p, m) in zip(GAINS, aged[name], strict=True))
        m = sum(half[cells] for half in wired.halves[name])
        ratio = m.reshape(shape).sum(axis=0) / g.reshape(shape).sum(axis=0)
        found = wired.noise_scale[name][cells].reshape(shape)
        np.testing.assert_allclose(found, np.broadcast_to(ratio, shape), rtol=1e-5)
        least = min(least, ratio.min())
    assert 0 < least < 0.99
    assert wired.largest_drop == pytest.approx(1 - least, rel=1e-5)


def test_noise_is_never_scaled_up_where_sneak_paths_bring_more_than_a_column_has():
    # Current gets from rows of the almost empty bank through the first block of the other to the second one.
    program = placed([(0, 0, 2, 2, 0, 0)], [(0, 0, 4, 2, 2, 0), (0, 2, 2, 2, 0, 2)])
    aged = conductances(program, pairs=1)
    name, other = aged
    aged[name] = [(np.full_like(p, 1e-6), np.full_like(m, 1e-6)) for p, m in aged[name]]
    aged[other] = [(p + 5, m + 5) for p, m in aged[other]]
    wired = wired_weights(program, aged, (1.0,), WIRES)
    assert sum(half.sum() for half in wired.halves[name]) > 10 * sum(g.sum() for g in aged[name][0])
    assert wired.noise_scale[name].max() == 1


# --- rows that are cut or float when idle ---


@pytest.mark.parametrize("idle_row", ["cut", "floating"])
@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_with_idle_rows_cut_only_the_rows_of_a_read_conduct(idle_row, fraction):
    program = compiled(rows=16, cols=12)
    wires = dataclasses.replace(WIRES, idle_row=idle_row)
    aged = conductances(program, pairs=1)
    wired = wired_weights(program, aged, (1.0,), wires, active=dict.fromkeys(aged, fraction))
    plus, minus = (tiles(program, aged, 0, half) for half in (0, 1))
    for name, _, place, part, cells in blocks(program):
        read = np.zeros((16, 1))
        read[part[0]] = 1  # each bank has one block here
        matrix = pair_matrix(plus[place] * read, minus[place] * read, wires, fraction)
        np.testing.assert_allclose(wired.weights[name][cells], matrix[part].ravel(), rtol=1e-5, atol=1e-6)
        if fraction == 1:
            active = read[:, 0] > 0
            exact = reference([plus[place]], dataclasses.replace(wires, idle_row="cut"), active)
            exact = exact - reference([minus[place]], dataclasses.replace(wires, idle_row="cut"), active)
            np.testing.assert_allclose(wired.weights[name][cells], exact[part].ravel(), rtol=1e-5, atol=1e-6)
    assert wired.solves == 2 * len(aged)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("idle_row", ["cut", "floating"])
def test_the_error_is_that_of_currents_of_one_read(idle_row, given):
    program = compiled(rows=40, cols=40)
    wires = dataclasses.replace(WIRES, idle_row=idle_row)
    aged = conductances(program)
    inputs = {
        name: np.random.default_rng(1).uniform(-1, 1, (9, bank.rows)) * (np.arange(bank.rows) % 2)
        for name, bank in program.banks.items()
    }
    active = dict.fromkeys(aged, 0.5)
    wired = wired_weights(program, aged, GAINS, wires, active=active)
    found = wires_error(program, aged, GAINS, wires, wired, active=active, inputs=inputs if given else None)
    assert found.active_fraction == 0.5
    assert 1e-4 < found.rms <= found.largest * 2
    assert found.largest < 0.2
    again = wires_error(program, aged, GAINS, wires, wired, 2, active, inputs if given else None)
    assert again == found
    if not given:
        return
    worst = min(aged, key=lambda name: wired.noise_scale[name].min())
    (name, _, place, part, cells) = next(block for block in blocks(program) if block[0] == worst)
    errors, currents = [], []
    for x in inputs[name][:8]:
        v = np.zeros(40)
        v[part[0]] = [*x, np.abs(x).max()]
        exact = sum(
            gain
            * solve_active(
                tiles(program, aged, k, 0)[place], v, wires, minus_us=tiles(program, aged, k, 1)[place]
            )
            for k, gain in enumerate(GAINS)
        )[part[1]]
        shape = len(v[part[0]]), len(exact)
        errors.append(v[part[0]] @ wired.weights[name][cells].reshape(shape) - exact)
        currents.append(exact)
    assert found.largest == pytest.approx(np.abs(errors).max() / np.abs(currents).max(), rel=1e-9)
    assert found.rms == pytest.approx(np.sqrt(np.mean(np.square(errors)) / np.mean(np.square(currents))))


def test_with_all_rows_of_a_read_active_there_is_no_error():
    program = compiled(rows=40, cols=40)
    wires = dataclasses.replace(WIRES, idle_row="cut")
    aged = conductances(program)
    inputs = {name: np.ones((2, bank.rows)) for name, bank in program.banks.items()}
    wired = wired_weights(program, aged, GAINS, wires)
    assert wires_error(program, aged, GAINS, wires, wired, inputs=inputs).largest < 1e-6
    assert wires_error(program, aged, GAINS, wires, wired).largest > 1e-3  # half of them are


def test_currents_from_one_block_to_another_of_the_same_read_are_an_error_that_is_measured():
    # The block of the other bank touches the lines of both.
    program = placed([(0, 0, 2, 2, 0, 0), (2, 2, 2, 2, 2, 2)], [(0, 0, 4, 2, 4, 0)])
    aged = conductances(program, pairs=1)
    wired = wired_weights(program, aged, (1.0,), WIRES)
    assert_near(wired.weights, by_nodal_analysis(program, aged, WIRES, (1.0,)))
    error = wires_error(program, aged, (1.0,), WIRES, wired)
    assert 1e-7 < error.largest < 1e-3


def test_where_weights_are_exact_there_is_no_error_to_measure():
    for wires in (WIRES, Wires(), Wires(idle_row="cut")):
        program = compiled()
        aged = conductances(program)
        wired = wired_weights(program, aged, GAINS, wires)
        assert wires_error(program, aged, GAINS, wires, wired) is None


# --- bad input ---


def test_conductances_that_do_not_fit_are_refused():
    program = compiled()
    aged = conductances(program)
    name = next(iter(aged))
    for pairs in (aged[name][:1], [(p[:-1], m) for p, m in aged[name]], []):
        with pytest.raises(ValueError, match=f"{name} must have 2 pairs of"):
            wired_weights(program, {**aged, name: pairs}, GAINS, WIRES)
    negative = [(p - 30, m) for p, m in aged[name]]
    with pytest.raises(ChipError, match="conductances must be from 0"):
        wired_weights(program, {**aged, name: negative}, GAINS, WIRES, threads=2)
    with pytest.raises(ChipError, match="bit_segments is 13, but the array has 12 rows"):
        wired_weights(program, aged, GAINS, dataclasses.replace(WIRES, bit_segments=13))


def test_inputs_that_do_not_fit_are_refused():
    program = compiled(rows=40, cols=40)
    wires = dataclasses.replace(WIRES, idle_row="cut")
    aged = conductances(program)
    wired = wired_weights(program, aged, GAINS, wires)
    inputs = {name: np.ones((2, bank.rows + 1)) for name, bank in program.banks.items()}
    with pytest.raises(ValueError, match=r"inputs of .* must be"):
        wires_error(program, aged, GAINS, wires, wired, inputs=inputs)
