"""A bank as the physics leaves it: drift with time, its compensation, and physics on some banks only."""

import dataclasses

import builders
import numpy as np
import pytest

import pcmc
from pcmc.accel.cell_specs import FourPcmCellSpec
from pcmc.accel.cells import make_cell
from pcmc.accel.physics import Physics
from pcmc.errors import ChipError, DataError
from pcmc.runtime.reads import Reading, read_bank_cells
from pcmc.runtime.state import blocks_of, program_chip

CHIP = pcmc.load_chip("nature2018")


def dense_program(rows=300, cols=40, bias=False):
    return builders.compiled_like_onnxruntime(builders.mlp([rows, cols], bias=bias), CHIP)


def inputs(program, vectors=8):
    name = program.inputs[0].name
    shape = (vectors, *program.sample_shapes[name][1:])
    return {name: np.random.default_rng(1).standard_normal(shape).astype(np.float32)}


def outputs(program, **options):
    return pcmc.Session(program, **options).run(None, inputs(program))[0]


def test_drift_alone_multiplies_each_device_by_its_own_power_of_time():
    """Without errors a cell holds one device's conductance: W(t) / W(t0) = (t / t0)^-nu."""
    program = dense_program()
    (bank,) = program.banks.values()
    physics = Physics(drift=True)
    state = program_chip(program, physics, seed=3).banks[bank.name]
    before, after = (
        read_bank_cells(bank, state, CHIP, Reading(physics, 3, 3, at_s)).weights for at_s in (None, 2000.0)
    )
    large = np.abs(before) > 0.3 * np.abs(before).max()  # away from where nu is clipped by |N|
    nu = -np.log(after[large] / before[large]) / np.log(2000.0 / CHIP.cell.t0_s)
    x = np.abs(before[large]) / state.w_max[0] * CHIP.cell.g_max_us / CHIP.cell.g_max_fit_us
    mean = np.clip(-0.0155 * np.log(x) + 0.0244, 0.049, 0.1)
    deviation = np.clip(-0.0125 * np.log(x) - 0.0059, 0.008, 0.045)
    score = (nu - mean) / deviation
    assert nu.size > 2000
    assert abs(score.mean()) < 5 / np.sqrt(nu.size)
    assert abs(score.std() - 1) < 5 / np.sqrt(2 * nu.size)


def test_at_the_first_read_nothing_has_drifted():
    program = dense_program()
    still = outputs(program, physics="programming_error", seed=2)
    for at in (None, CHIP.cell.t0_s, "20s"):
        np.testing.assert_array_equal(
            outputs(program, physics="programming_error,drift", seed=2, at=at), still
        )


def test_the_same_devices_drift_the_same_way_at_each_time():
    program = dense_program()
    hour, again = (outputs(program, physics="drift", seed=2, at="1h") for _ in range(2))
    np.testing.assert_array_equal(hour, again)
    first, day = outputs(program, physics="drift", seed=2), outputs(program, physics="drift", seed=2, at="1d")
    share = (
        np.sum((first - day) * (first - hour)) / np.linalg.norm(first - day) / np.linalg.norm(first - hour)
    )
    assert share > 0.99


@pytest.mark.parametrize("compensation", ["global", "column"])
def test_compensation_brings_the_mean_drift_back(compensation):
    program = dense_program(bias=True)
    ideal = outputs(program)
    drifted, mended = (
        outputs(program, physics="drift", seed=1, at="1d", compensation=choice)
        for choice in ("none", compensation)
    )

    def slope(y):
        return float(np.sum(y * ideal) / np.sum(ideal * ideal))

    assert slope(drifted) < 0.75
    assert slope(mended) == pytest.approx(1.0, abs=0.03)
    # what is left is the spread of nu between devices: about 0.02 ln(86,400 / 20) = 17 % of each weight
    assert np.linalg.norm(mended - ideal) < 0.5 * np.linalg.norm(drifted - ideal)


def test_compensation_changes_nothing_where_nothing_drifts():
    program = dense_program()
    for options in ({"physics": "programming_error", "at": "1d"}, {"physics": "programming_error,drift"}):
        plain, mended = (
            outputs(program, seed=1, compensation=choice, **options) for choice in ("none", "global")
        )
        np.testing.assert_array_equal(plain, mended)


def test_physics_on_some_banks_leaves_the_others_ideal_and_keeps_their_noise():
    program = builders.compiled_like_onnxruntime(builders.mlp([60, 40, 20]), CHIP)
    first, second = program.banks
    ideal, full = outputs(program), outputs(program, physics="programming_error", seed=4)
    alone = {
        name: outputs(program, physics="programming_error", seed=4, only=[name]) for name in (first, second)
    }
    for name in (first, second):
        assert np.abs(alone[name] - ideal).max() > 1e-3
        assert np.abs(alone[name] - full).max() > 1e-3
    np.testing.assert_array_equal(
        outputs(program, physics="programming_error", seed=4, only=[first, second]), full
    )
    np.testing.assert_array_equal(outputs(program, physics="programming_error", seed=4, only=[]), ideal)


def test_wrong_times_compensations_and_banks_are_refused():
    program = dense_program()
    for options, error, message in (
        ({"at": "soon"}, DataError, "time 'soon'"),
        ({"at": 1.0, "physics": "drift"}, ChipError, "read at 1 s after programming: must be at least 20 s"),
        ({"compensation": "some"}, DataError, "compensation 'some': should be one of none, global, column"),
        ({"only": ["nothing"]}, DataError, "only: there is no bank 'nothing'"),
    ):
        with pytest.raises(error, match=message):
            pcmc.Session(program, **options)


def test_stuck_devices_are_those_of_the_chip_whatever_is_written():
    """Where the chip says that devices are stuck, each is at its level; the others hold their targets."""
    cell = {"stuck_low_fraction": 0.1, "stuck_high_fraction": 0.05}
    tables = pcmc.accel.chip.chip_to_dict(CHIP)
    tables["cell"].update(cell)
    program = builders.compiled_like_onnxruntime(
        builders.mlp([300, 90], bias=False), pcmc.accel.chip.chip_from_dict(tables, "test")
    )
    (bank,) = program.banks.values()
    state = program_chip(program, Physics(stuck=True), seed=5).banks[bank.name]
    g_max = program.chip.cell.g_max_us
    exact = program_chip(program, Physics(), seed=5).banks[bank.name].devices.g_plus
    plus = state.devices.g_plus
    changed = plus != exact
    assert set(np.unique(plus[changed])) <= {np.float32(0), np.float32(g_max)}
    n = plus.size
    assert abs(np.mean(plus == g_max) - 0.05) < 5 * np.sqrt(0.05 / n)
    assert abs(np.mean((plus == 0) & (exact > 0)) / np.mean(exact > 0) - 0.1) < 5 * np.sqrt(0.1 / (n / 2))


def reads(program, session, times=400):
    """The same inputs read again and again: `[times, vectors, cols]`."""
    feed = inputs(program)
    return np.stack([session.run(None, feed)[0] for _ in range(times)])


def test_fast_noise_is_new_at_each_read_and_has_the_variance_of_the_devices():
    """The variance over reads of each output is sum_i x_i^2 sigma_ij^2 of the programmed devices."""
    program = dense_program(rows=60, cols=12)
    (bank,) = program.banks.values()
    session = pcmc.Session(program, physics=Physics(read_noise="fast"), seed=6)
    found = reads(program, session)
    state = session.state.banks[bank.name]
    (block,) = blocks_of(bank)
    cell = make_cell(CHIP.cell)
    variance = cell.noise_variance(block.devices(state.devices)) / (cell.full_us / state.w_max) ** 2
    (x,) = inputs(program).values()
    ratio = found.var(axis=0, ddof=1) / ((x * x) @ variance)
    assert abs(ratio.mean() - 1) < 5 * np.sqrt(2 / (len(found) * ratio.size))
    assert np.abs(ratio - 1).max() < 6 * np.sqrt(2 / len(found))
    # outputs do not know of each other: the largest of 8 x 66 correlations stays near 1 / sqrt(reads)
    correlations = np.corrcoef(found[:, 0].T)[np.triu_indices(12, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(len(found))


def test_frozen_noise_stays_and_split_noise_has_a_part_of_each():
    program = dense_program(rows=60, cols=12)
    kinds = {
        kind: pcmc.Session(program, physics=Physics(read_noise=kind), seed=6)
        for kind in ("frozen", "fast", "split")
    }
    spread = {kind: reads(program, session, 200).var(axis=0).mean() for kind, session in kinds.items()}
    assert np.ptp(reads(program, kinds["frozen"], 20), axis=0).max() == 0
    ideal = outputs(program)
    offset = {
        kind: np.mean((reads(program, session, 50).mean(axis=0) - ideal) ** 2)
        for kind, session in kinds.items()
    }
    assert 0 < spread["split"] < spread["fast"]
    assert offset["fast"] < 0.1 * offset["split"] < offset["frozen"]


def test_fast_noise_has_the_same_bits_for_any_number_of_threads():
    program = builders.compiled_like_onnxruntime(builders.conv((8, 4, 3, 3), (9, 9), pads=[1, 1, 1, 1]), CHIP)
    feed = inputs(program, 1)
    one, two = (
        pcmc.Session(program, physics="dac,adc,read_noise=fast", seed=1, threads=threads).run(None, feed)[0]
        for threads in (1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - pcmc.Session(program, physics="dac,adc").run(None, feed)[0]).max() > 0


def test_the_state_of_a_cell_with_several_pairs_is_saved_and_read_again(tmp_path):
    from pcmc.runtime.program_file import load, load_state, save

    tables = pcmc.accel.chip.chip_to_dict(CHIP)
    del tables["pulses"]
    fields = {field.name for field in dataclasses.fields(FourPcmCellSpec)}
    tables["cell"] = {name: value for name, value in tables["cell"].items() if name in fields} | {
        "kind": "4pcm"
    }
    program = builders.compiled_like_onnxruntime(
        builders.mlp([50, 20], bias=False), pcmc.accel.chip.chip_from_dict(tables, "test")
    )
    session = pcmc.Session(program, physics="programming_error", seed=8)
    (held,) = session.state.banks.values()
    assert held.devices.g_plus.shape == (1000, 2)
    save(program, tmp_path / "p.pcmc", session.state)
    again = pcmc.Session(
        load(tmp_path / "p.pcmc"), physics="programming_error", seed=8, state=load_state(tmp_path / "p.pcmc")
    )
    for ours, theirs in zip(
        again.run(None, inputs(program)), session.run(None, inputs(program)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_devices_drift_as_they_were_made_whoever_reads_them():
    """A session with another seed draws other read noise, not another drift."""
    program = dense_program()
    maker = pcmc.Session(program, physics="drift", seed=8, at="1d")
    reader = pcmc.Session(program, physics="drift", seed=9, at="1d", state=maker.state)
    np.testing.assert_array_equal(*(session.run(None, inputs(program))[0] for session in (maker, reader)))
    assert (
        np.abs(outputs(program, physics="drift", seed=9, at="1d") - maker.run(None, inputs(program))[0]).max()
        > 0
    )
