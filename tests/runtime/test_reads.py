"""What reads find: scales of weights, mismatch and its correction, noise of converters and devices."""

import dataclasses

import builders
import numpy as np
import pytest
from scipy import stats

import pcmc
from pcmc.accel.physics import Physics
from pcmc.accel.random import stream
from pcmc.accel.wires import Wires
from pcmc.errors import ChipError
from pcmc.runtime import reads
from pcmc.runtime.state import blocks_of, program_chip, scales

NATURE = pcmc.load_chip("nature2018")


def chip(rows=16, cols=12, base=None, **sections):
    """A small chip with other fields: `chip(adc={"noise_lsb": 1.0})`."""
    spec = builders.chip(rows, cols) if base is None else base
    for section, fields in sections.items():
        spec = dataclasses.replace(spec, **{section: dataclasses.replace(getattr(spec, section), **fields)})
    return spec


def program(spec, rows=40, cols=30, bias=True):
    return pcmc.compile(builders.mlp([rows, cols], bias=bias), spec)


def x(count=64, rows=40):
    return np.random.default_rng(5).standard_normal((count, rows)).astype(np.float32)


def read(one, physics, seed=0, inputs=None, **options):
    inputs = x(rows=one.banks["dense0"].rows) if inputs is None else inputs
    return pcmc.Session(one, physics, seed=seed, **options).run(None, {"x": inputs})[0].astype(np.float64)


# Scales.


@pytest.mark.parametrize("scale", ["matrix", "tile", "column"])
def test_what_has_a_scale_of_its_own_uses_the_whole_range(scale):
    spec = chip(weights={"scale": scale})
    one = program(spec)
    (bank,) = one.banks.values()
    held = program_chip(one, Physics(), 0).banks[bank.name]
    largest = []
    for block in blocks_of(bank):
        g = np.maximum(*(getattr(block.devices(held.devices), name) for name in ("g_plus", "g_minus")))
        largest.append(g.max(axis=0))
    if scale == "column":
        assert np.allclose(np.concatenate(largest), 20.0, rtol=1e-5)
    if scale == "tile":
        assert np.allclose([block.max() for block in largest], 20.0, rtol=1e-5)
    assert max(block.max() for block in largest) == pytest.approx(20.0)
    assert np.allclose(read(one, Physics(dac=False)), read(one, "ideal"), atol=1e-5)


@pytest.mark.parametrize("scale", ["tile", "column"])
def test_results_are_those_of_the_weights_whatever_has_a_scale(scale):
    """Stuck off, errors off: devices on target give the ideal result to float32 rounding."""
    one = program(chip(weights={"scale": scale}))
    state = program_chip(one, Physics(programming_error=True), 0)
    exact = program_chip(one, Physics(), 0)
    ideal = read(one, "ideal")
    assert np.allclose(read(one, Physics(), state=exact), ideal, atol=1e-5 * np.abs(ideal).max())
    assert not np.allclose(read(one, Physics(), state=state), ideal, atol=1e-3 * np.abs(ideal).max())


def test_a_scale_of_each_column_divides_the_error_of_small_columns():
    """Programming errors are in uS: with one scale a column of small weights drowns in them."""
    model = builders.mlp([60, 8], bias=False)
    weights = builders.weights(60, 8, seed=1) * np.logspace(0, -3, 8).astype(np.float32)
    model.graph.initializer[0].raw_data = weights.astype(np.float32).tobytes()
    error = {}
    for scale in ("matrix", "column"):
        one = pcmc.compile(model, chip(base=NATURE, weights={"scale": scale}))
        wrong = read(one, "programming_error", inputs=x(rows=60)) - read(one, "ideal", inputs=x(rows=60))
        error[scale] = np.sqrt(np.mean(wrong**2, axis=0)) / np.std(
            read(one, "ideal", inputs=x(rows=60)), axis=0
        )
    assert error["column"][-1] < 0.02 * error["matrix"][-1]
    assert np.ptp(error["column"]) < error["column"].mean()


def test_weights_beyond_the_percentile_are_clipped_to_the_end_of_the_range():
    one = program(chip(base=NATURE, weights={"percentile": 90.0}), rows=200, cols=50, bias=False)
    (bank,) = one.banks.values()
    w_max, _ = scales(bank, one.chip)
    assert w_max[0] == pytest.approx(np.percentile(np.abs(bank.cells), 90.0), rel=1e-6)
    held = program_chip(one, Physics(), 0).banks[bank.name]
    g = np.maximum(held.devices.g_plus, held.devices.g_minus)
    assert np.mean(g == np.float32(20.0)) == pytest.approx(0.1, abs=0.002)


def test_one_drive_serves_bias_rows_whatever_the_scales():
    one = program(chip(weights={"scale": "column"}))
    (bank,) = one.banks.values()
    _, bias = bank.matrix()
    weights, _ = bank.matrix()
    _, drive = scales(bank, one.chip)
    assert drive == pytest.approx(np.abs(bias).max() / np.abs(weights).max())


# Converters.

ADC = {"noise_lsb": 2.0, "offset_lsb": 5.0, "gain_error": 0.1, "bits": 12}


def test_mismatch_is_that_of_the_columns_of_a_tile_and_fixed():
    """y = (1 + e_j) sum + o_j lsb, the draws named by the tile and the seed."""
    one = program(chip(32, 12, adc=ADC | {"range_cells": 10.0}), rows=31, cols=12)
    (bank,) = one.banks.values()
    (block,) = blocks_of(bank)
    inputs = x(200, 31)
    wrong = read(one, "adc,mismatch", seed=3, inputs=inputs)
    draws = stream(3, (int(block.row["chip"]), int(block.row["tile"])), "mismatch").normal(24).reshape(2, 12)
    w_max, drive = scales(bank, one.chip)
    scale = np.maximum(np.abs(inputs).max(axis=1), drive)[:, None]
    lsb = 10.0 * w_max * scale / 2047
    wanted = read(one, "ideal", inputs=inputs) * (1 + 0.1 * draws[0]) + 5.0 * draws[1] * lsb
    assert np.abs(wrong - wanted).max() < 0.51 * lsb.max()
    np.testing.assert_array_equal(wrong, read(one, "adc,mismatch", seed=3, inputs=inputs))


def test_corrected_mismatch_leaves_half_a_step_and_what_was_clipped():
    plain = chip(32, 12, adc=ADC | {"corrected": True, "range_cells": 10.0})
    one = program(plain, rows=31, cols=12)
    error = np.abs(read(one, "adc,mismatch") - read(one, "ideal"))
    (bank,) = one.banks.values()
    w_max, drive = scales(bank, plain)
    inputs = x(rows=31)
    lsb = 10.0 * w_max * np.maximum(np.abs(inputs).max(axis=1), drive)[:, None] / 2047
    assert (error < 0.5 * 1.6 * lsb + 1e-6).all()  # a step is wider where the gain is less
    assert error.max() > 0.2 * lsb.min()


def test_read_out_noise_has_its_variance_and_is_new_at_each_conversion():
    one = program(chip(64, 12, adc=ADC | {"range_cells": 10.0}), rows=60, cols=12)
    session = pcmc.Session(one, "adc,readout_noise", seed=4)
    inputs = x(20, 60)
    reads = np.stack([session.run(None, {"x": inputs})[0] for _ in range(300)]).astype(np.float64)
    (bank,) = one.banks.values()
    w_max, drive = scales(bank, one.chip)
    lsb = 10.0 * w_max * np.maximum(np.abs(inputs).max(axis=1), drive)[:, None] / 2047
    score = (reads - read(one, "ideal", inputs=inputs)) / lsb
    assert np.var(score) == pytest.approx(2.0**2 + 1 / 12, rel=5 * np.sqrt(2 / score.size))
    correlations = np.corrcoef(score[:, 0].T)[np.triu_indices(12, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(300)


def test_columns_of_g_plus_and_g_minus_that_are_converted_apart_are_subtracted():
    fields = {"subtract": "digital", "bits": 14, "range_cells": 20.0}
    apart, together = (
        program(chip(base=NATURE, adc=fields | {"subtract": choice})) for choice in ("digital", "analog")
    )
    ideal = read(together, "ideal")
    physics = "adc,programming_error"
    first, second = (read(one, physics, seed=1) for one in (apart, together))
    error = np.abs(second - ideal).max()
    assert np.abs(first - second).max() < 0.05 * error  # the same devices, two conversions more
    assert np.abs(first - second).max() > 0
    # a range that the difference fits and the single columns do not: they saturate, the difference does not
    narrow = [
        pcmc.Session(program(chip(base=NATURE, adc=fields | {"subtract": choice, "range_cells": 1.0})), "adc")
        for choice in ("digital", "analog")
    ]
    for one in narrow:
        one.run(None, {"x": np.abs(x())})
    clipped = [one.saturation["dense0"].clipped for one in narrow]
    assert clipped[0] > 2 * clipped[1]
    assert narrow[0].saturation["dense0"].conversions == 2 * narrow[1].saturation["dense0"].conversions


# Devices.


def test_thermal_noise_is_that_of_the_conductances_and_blind_to_the_inputs():
    """4 k T G / (2 t V^2) of every device of a column, at the full scale of the inputs."""
    spec = chip(base=NATURE, cell={"read_voltage_v": 0.002})  # a tiny voltage, so that it is seen
    one = program(spec, rows=60, cols=12, bias=False)
    session = pcmc.Session(one, "thermal_noise", seed=4)
    inputs = x(20, 60)
    reads = np.stack([session.run(None, {"x": inputs})[0] for _ in range(300)]).astype(np.float64)
    (bank,) = one.banks.values()
    held = program_chip(one, Physics(), 0).banks[bank.name]
    g = (held.devices.g_plus + held.devices.g_minus).reshape(60, 12).sum(axis=0, dtype=np.float64) * 1e-6
    sigma_s = np.sqrt(4 * 1.380649e-23 * 300.0 * g / (2 * 40e-9)) / 0.002
    per_weight = 20e-6 / held.w_max  # siemens of one device that stand for a weight of 1
    wanted = sigma_s / per_weight * np.abs(inputs).max(axis=1)[:, None]
    score = (reads - read(one, "ideal", inputs=inputs)) / wanted
    assert np.var(score) == pytest.approx(1.0, rel=5 * np.sqrt(2 / score.size))
    assert stats.kstest(score.ravel()[::7], "norm").pvalue > 1e-3
    silent = np.zeros_like(inputs)
    silent[:, 0] = np.abs(inputs).max(axis=1)  # one input alone: the others' devices are as noisy
    quiet = np.stack([session.run(None, {"x": silent})[0] for _ in range(100)]).astype(np.float64)
    assert np.var((quiet - quiet.mean(axis=0)) / wanted) == pytest.approx(1.0, rel=0.05)


def test_a_reference_that_is_off_errs_alike_in_all_rows_of_its_column():
    """s error_j sum_i x_i: a rank-one term."""
    cell = pcmc.accel.cell_specs.CapacitorCellSpec(
        kind="3t1c", g_low_us=4.0, g_high_us=20.0, g_reference_us=12.0, steps=400, leak_tau_s=5.16e-3,
        reference_error_us=0.5,
    )  # fmt: skip
    effects = {"read_noise": "off", "programming_error": False}
    spec = chip(base=dataclasses.replace(NATURE, cell=cell), effects=effects)
    one = program(spec, rows=100, cols=80, bias=False)
    inputs = x(50, 100)
    wrong = read(one, "reference_error", inputs=inputs) - read(one, "ideal", inputs=inputs)
    (bank,) = one.banks.values()
    w_max, _ = scales(bank, spec)
    error = wrong / inputs.sum(axis=1, dtype=np.float64)[:, None] / w_max * 8.0
    assert np.allclose(error, error[0], atol=1e-3)
    assert np.std(error[0]) == pytest.approx(0.5, rel=5 / np.sqrt(2 * 80))


def test_the_number_of_threads_changes_nothing():
    one = program(NATURE, rows=1200, cols=300)
    physics = Physics(programming_error=True, read_noise="split", drift=True, adc=True, dac=True)
    first, second = (read(one, physics, seed=2, at="1h", threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(first, second)


# Wires.

WIRES = {"row_ohm": 2.0, "column_ohm": 2.0, "driver_ohm": 100.0, "sense_ohm": 50.0}


def test_reads_behind_wires_multiply_with_the_matrix_of_the_wired_tile():
    """Against one exact solve for each input of the whole tile, its bias row, and both arrays."""
    from pcmc.accel.wires import solve_active

    spec = chip(64, 12, base=NATURE, wires=WIRES)
    spec = dataclasses.replace(spec, tile=dataclasses.replace(spec.tile, rows=64, cols=12))
    one = program(spec, rows=63, cols=12)
    (bank,) = one.banks.values()
    state = program_chip(one, Physics(programming_error=True), 2).banks[bank.name]
    inputs = x(5, 63)
    found = read(one, "programming_error,ir_drop", seed=2, inputs=inputs)
    plus, minus = (g.reshape(64, 12) for g in (state.devices.g_plus, state.devices.g_minus))
    for vector, result in zip(inputs, found, strict=True):
        v = np.append(vector, state.bias_drive)
        exact = solve_active(plus, v, spec.wires, minus_us=minus) * state.w_max / 20.0
        assert np.allclose(result, exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())
    still = read(one, "programming_error", seed=2, inputs=inputs)
    assert np.abs(found - still).max() > 0.02 * np.abs(still).max()


@pytest.mark.parametrize("subtract", ["analog", "digital"])
def test_wires_without_resistance_to_speak_of_change_nothing(subtract):
    spec = chip(base=NATURE, wires={"row_ohm": 1e-9, "column_ohm": 0.0}, adc={"subtract": subtract})
    one = program(spec, rows=60, cols=20)
    physics = Physics(programming_error=True, read_noise="split", drift=True, adc=True, ir_drop=True)
    with_wires, without = (
        read(one, dataclasses.replace(physics, ir_drop=on), seed=1, at="1d") for on in (True, False)
    )
    lsb = 20.0 * np.abs(one.banks["dense0"].cells).max() * 3.5 / 255
    assert np.abs(with_wires - without).max() <= 2 * lsb
    assert np.mean(with_wires != without) < 0.01


def test_both_tiers_are_read_right_after_programming_wires_or_not():
    one = program(chip(base=NATURE, wires=WIRES), rows=60, cols=20, bias=False)
    ideal = read(one, "ideal")
    error = {at: np.std(read(one, "programming_error", seed=1, at=at) - ideal) for at in (0.0, None)}
    # what the low tier leaves: half a step of 0.04 uS, and overshoots of more than the 4 uS that it goes down
    assert error[0.0] < 0.15 * error[None]
    leaked = np.std(read(one, "programming_error,drift", seed=1, at="5.16ms") - ideal)
    assert leaked == pytest.approx((1 - np.exp(-1)) * error[None], rel=0.15)
    dropped = read(one, "programming_error,ir_drop", seed=1, at=0.0) - ideal
    assert np.std(dropped) > 2 * error[0.0]


# Slices.


@pytest.mark.parametrize("how", ["analog", "digital"])
def test_slices_are_digits_and_together_the_rounded_weight(how):
    cell = {"slices": 3, "slice_bits": 2, "pairs": 1}
    spec = chip(
        base=pcmc.load_chip("pcm2014"), cell=cell, adc={"slices": how, "bits": 16, "range_cells": 40.0}
    )
    one = program(spec, rows=60, cols=20, bias=False)
    (bank,) = one.banks.values()
    weights, _ = bank.matrix()
    w_max = np.abs(weights).max()
    rounded = np.rint(weights / w_max * 63) * w_max / 63
    inputs = x(20, 60)
    wanted = inputs.astype(np.float64) @ rounded
    exact = program_chip(one, Physics(), 0)
    assert np.allclose(
        read(one, Physics(), inputs=inputs, state=exact), wanted, atol=1e-4 * np.abs(wanted).max()
    )
    lsb = 40.0 * w_max * np.abs(inputs).max() / 32767
    assert np.abs(read(one, "adc", inputs=inputs) - wanted).max() < 2 * lsb
    session = pcmc.Session(one, "adc")
    session.run(None, {"x": inputs})
    assert session.saturation["dense0"].conversions == 20 * 20 * (3 if how == "digital" else 1)
    held = exact.banks[bank.name].devices
    assert held.g_plus.shape == (1200, 3)
    levels = np.unique(np.round(held.g_plus / spec.cell.g_max_us * 3, 4))
    assert set(levels) <= {0.0, 1.0, 2.0, 3.0}


def test_errors_of_a_slice_count_as_much_as_its_digit():
    """Var W = sum_k gain_k^2 (var G+_k + var G-_k), for errors and for noise that is new at each read."""
    base = pcmc.load_chip("pcm2014")
    spec = chip(base=base, cell={"slices": 2, "slice_bits": 3, "pairs": 1})
    one = program(spec, rows=60, cols=20, bias=False)
    inputs = x(2, 60)
    ideal = read(one, Physics(), inputs=inputs, state=program_chip(one, Physics(), 0))
    (bank,) = one.banks.values()
    gains = np.array([7 * 8 / 63, 7 / 63])
    state = program_chip(one, Physics(programming_error=True), 0).banks[bank.name]
    exact = program_chip(one, Physics(), 0).banks[bank.name]
    per_device = (state.devices.g_plus - exact.devices.g_plus) - (
        state.devices.g_minus - exact.devices.g_minus
    )
    wrong = (per_device @ gains / spec.cell.g_max_us * state.w_max[0]).reshape(60, 20)
    assert np.allclose(
        read(one, "programming_error", inputs=inputs) - ideal, inputs @ wrong, atol=1e-4 * np.abs(ideal).max()
    )


# One device a weight, against a reference.


def single(subtract="analog", **adc):
    nature = dataclasses.asdict(NATURE.cell)
    nature.pop("kind")
    fields = {name: nature[name] for name in nature if name in PCM_FIELDS}
    cell = pcmc.accel.cell_specs.ReferencePcmCellSpec(kind="1pcm", **fields)
    base = dataclasses.replace(NATURE, cell=cell)
    return chip(base=base, adc={"subtract": subtract, "bits": 16, "range_cells": 60.0} | adc)


PCM_FIELDS = {field.name for field in dataclasses.fields(pcmc.accel.cell_specs.PcmCellSpec)} - {"kind"}


@pytest.mark.parametrize("subtract", ["analog", "digital"])
def test_an_offset_is_subtracted_by_a_reference_column_or_digitally(subtract):
    one = program(single(subtract), rows=60, cols=120)
    ideal = read(one, "ideal")
    exact = program_chip(one, Physics(), 0)
    found = read(one, "adc", state=exact)
    assert np.abs(found - ideal).max() < 60.0 / 32767 * np.abs(ideal).max() * 3
    held = exact.banks["dense0"].devices
    assert held.g_plus.min() >= 0
    assert (held.g_minus == 10.0).all()


def test_a_shared_reference_errs_alike_in_all_columns_of_its_row():
    """y_j - ideal_j of two columns share sum_i x_i e_i: covariance sigma(g_max / 2)^2 |x|^2."""
    one = program(single(), rows=60, cols=90, bias=False)
    inputs = x(1, 60)
    wrong = [read(one, "programming_error", seed=seed, inputs=inputs) - read(one, "ideal", inputs=inputs)
             for seed in range(60)]  # fmt: skip
    common = np.var([errors.mean() for errors in wrong], ddof=1)
    w_max, _ = scales(one.banks["dense0"], one.chip)
    c0, c1, c2 = NATURE.cell.programming_error_us
    sigma = c0 + c1 * 0.4 + c2 * 0.16
    shared = (inputs.astype(np.float64) ** 2).sum() * (2 * 3 * sigma * w_max[0] / 60.0) ** 2
    alone = np.mean([errors.var() for errors in wrong])
    assert common == pytest.approx(shared + alone / 90, rel=4 * np.sqrt(2 / 60))
    digital = program(single("digital"), rows=60, cols=90, bias=False)
    free = [read(digital, "programming_error,adc", seed=seed, inputs=inputs) for seed in range(60)]
    spread = np.var([(y - read(digital, "ideal", inputs=inputs)).mean() for y in free], ddof=1)
    assert spread < 0.2 * common


# Drivers.


def test_currents_that_are_not_ohmic_bend_inputs_and_differ_with_their_sign():
    spec = chip(base=NATURE, cell={"current_cubic": 0.2, "polarity_loss": 0.1})
    one = program(spec, rows=60, cols=20, bias=False)
    inputs = x(10, 60)
    scale = np.abs(inputs).max(axis=1, keepdims=True).astype(np.float64)
    u = inputs / scale
    bent = scale * u * (1 + 0.2 * u**2) * np.where(u < 0, 0.9, 1.0)
    weights, _ = one.banks["dense0"].matrix()
    assert np.allclose(read(one, "nonlinearity", inputs=inputs), bent @ weights, atol=1e-4)


@pytest.mark.parametrize("dac", [{"input": "bits", "slice_bits": 2}, {"input": "pulse"}, {"signed": False}])
def test_however_inputs_are_sent_the_result_is_that_of_their_codes(dac):
    plain, other = (program(chip(base=NATURE, dac=fields), rows=60, cols=20) for fields in ({}, dac))
    first, second = (read(one, "dac,programming_error", seed=1) for one in (plain, other))
    assert np.allclose(first, second, atol=1e-5 * np.abs(first).max())


def test_bits_are_converted_each_or_their_sum():
    fields = {"input": "bits", "slice_bits": 1}
    each, together = (
        program(chip(base=NATURE, dac=fields, adc={"sample": sample}), rows=60, cols=20)
        for sample in ("slice", "sum")
    )
    plain = program(NATURE, rows=60, cols=20)
    assert np.allclose(read(together, "dac,adc"), read(plain, "dac,adc"), atol=1e-5)
    sessions = [pcmc.Session(one, "dac,adc") for one in (each, together)]
    for session in sessions:
        session.run(None, {"x": x(rows=60)})
    counts = [session.saturation["dense0"].conversions for session in sessions]
    assert counts[0] == 7 * counts[1]


def test_a_fixed_range_clips_larger_inputs():
    one = program(chip(base=NATURE, dac={"range": "fixed", "full": 1.5}), rows=60, cols=20, bias=False)
    weights, _ = one.banks["dense0"].matrix()
    inputs = x(10, 60)
    wanted = np.clip(inputs, -1.5, 1.5).astype(np.float64) @ weights
    step = 1.5 / 127
    assert (
        np.abs(read(one, "dac", inputs=inputs) - wanted).max() < step / 2 * np.abs(weights).sum(axis=0).max()
    )
    assert np.abs(wanted - read(one, "ideal", inputs=inputs)).max() > 0.5


def test_solved_wires_are_stored_with_the_state_and_used_again(tmp_path, monkeypatch):
    from pcmc.runtime import reads
    from pcmc.runtime.program_file import load, load_state, save

    one = program(chip(base=NATURE, wires=WIRES), rows=60, cols=20)
    options = {"seed": 3, "at": "1h"}
    session = pcmc.Session(one, "programming_error,drift,ir_drop", **options)
    (first,) = session.run(None, {"x": x(rows=60)})
    assert session.state.wired.solves >= 1
    assert 0 < session.state.wired.largest_drop < 0.5
    assert session.state.wired.error is None  # idle rows at ground: exact
    save(one, tmp_path / "a.pcmc", session.state)
    state = load_state(tmp_path / "a.pcmc")

    def refuse(*_args, **_options):
        raise AssertionError("wires were solved again")

    monkeypatch.setattr(reads, "wired_weights", refuse)
    again = pcmc.Session(load(tmp_path / "a.pcmc"), "programming_error,drift,ir_drop", state=state, **options)
    np.testing.assert_array_equal(again.run(None, {"x": x(rows=60)})[0], first)
    with pytest.raises(AssertionError, match="solved again"):
        pcmc.Session(one, "programming_error,drift,ir_drop", state=state, seed=3, at="2h")


@pytest.mark.parametrize("field", ["weights", "damping"])
def test_solved_wires_that_do_not_fit_are_refused(field):
    one = program(chip(base=NATURE, wires=WIRES), rows=60, cols=20)
    state = pcmc.Session(one, "ir_drop").state
    good = state.wired.banks["dense0"]
    for wrong in (getattr(good, field)[..., :-1], getattr(good, field) * np.float32(np.nan)):
        bank = dataclasses.replace(good, **{field: wrong})
        bad = dataclasses.replace(state, wired=dataclasses.replace(state.wired, banks={"dense0": bank}))
        with pytest.raises(pcmc.ProgramError, match="solved wires of bank 'dense0'"):
            pcmc.Session(one, "ir_drop", state=bad)


@pytest.mark.parametrize("wires", [False, True])
@pytest.mark.parametrize("physics", ["ideal", "programming_error,drift"])
def test_devices_without_a_low_tier_are_not_read_right_after_programming(physics, wires):
    spec = builders.chip()
    if wires:
        spec = dataclasses.replace(spec, wires=Wires(row_ohm=1.0))
        physics = f"{physics},ir_drop" if physics != "ideal" else "ir_drop"
    program = pcmc.compile(builders.mlp([12, 5]), spec)
    later = pcmc.Session(program, "programming_error", at="20s").state
    with pytest.raises(
        ChipError, match=r"read at 0 s after programming: takes both tiers, but the devices of 'dense0'"
    ):
        pcmc.Session(program, physics, state=later, at=0)
    tuned = pcmc.Session(program, "programming_error", at=0).state
    assert pcmc.Session(program, physics, state=tuned, at=0).run(None, {"x": np.ones((1, 12), np.float32)})


def test_devices_behind_wires_age_once(monkeypatch):
    program = pcmc.compile(
        builders.mlp([12, 5]), dataclasses.replace(builders.chip(), wires=Wires(row_ohm=1.0))
    )
    aged, age = [], reads._aged

    def counted(*args):
        aged.append(args[-1].row["offset"])
        return age(*args)

    monkeypatch.setattr(reads, "_aged", counted)
    pcmc.Session(program, "programming_error,read_noise=fast,drift,ir_drop", at="1h")
    assert len(aged) == sum(len(bank.table) for bank in program.banks.values())
