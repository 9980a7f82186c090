"""Calibration of a chip: ranges against numpy, gains and shifts against the ideal run, and what it gains."""

import dataclasses
import json
from pathlib import Path

import builders
import numpy as np
import pytest
from scipy.stats import t

import pcmc
import real
from pcmc.accel.physics import Physics, resolve
from pcmc.errors import DataError, ProgramError
from pcmc.models import datasets, zoo
from pcmc.workflows.calibrate import applicable, calibrate_ranges


def chip(rows=513, cols=100, base=None, **sections):
    spec = base or builders.chip(rows, cols)
    return dataclasses.replace(
        spec,
        **{name: dataclasses.replace(getattr(spec, name), **fields) for name, fields in sections.items()},
    )


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def clipped(session):
    return sum(one.clipped for one in session.saturation.values())


def shapes(program):
    return {name: int(bank.table["cols"].sum()) for name, bank in program.banks.items()}


# ranges


@pytest.mark.parametrize("kind", ["fixed", "bank", "column"])
def test_ranges_are_those_of_the_sums_before_the_converters(kind):
    """Two layers: what comes to the second has gone through the converters of the first as calibrated."""
    spec = chip(20, 7, adc={"range": kind, "percentile": 100.0})
    program = pcmc.compile(builders.mlp([30, 12, 5], bias=False, activation="Tanh"), spec)
    x = normal(100, 30)
    found = pcmc.calibrate(program, x, physics="dac,adc", what="adc").banks
    hidden = pcmc.compile(builders.mlp([30, 12], bias=False), spec)
    first = {"dense0": found["dense0"]}
    h = np.tanh(pcmc.Session(hidden, "dac,adc", calibration=first).run(None, {"x": x})[0])
    for name, values in (("dense0", x), ("dense1", h)):
        bank = program.banks[name]
        scale = np.abs(values).max(axis=1, keepdims=True)
        driven = np.rint(values / (scale / np.float32(127))) / 127
        sums = []
        for b in bank.table:
            cells = bank.cells[b["offset"] : b["offset"] + b["rows"] * b["cols"]].reshape(
                b["rows"], b["cols"]
            )
            sums.append(np.abs(driven[:, b["row0"] : b["row0"] + b["rows"]] @ cells).max(axis=0))
        wanted = np.concatenate(sums)
        wanted = wanted if kind == "column" else np.full_like(wanted, wanted.max())
        assert name == "dense1" or len(bank.table) > 1
        np.testing.assert_allclose(found[name].adc_full, wanted, rtol=1e-5)


CHIPS = {
    "voltage": {},
    "columns": {"adc": {"range": "column"}},
    "bits": {"dac": {"input": "bits", "slice_bits": 2}},
    "unsigned": {"dac": {"signed": False}, "adc": {"range": "column"}},
    "summed bits": {"dac": {"input": "bits"}, "adc": {"sample": "sum", "range": "column"}},
    "fixed": {"dac": {"range": "fixed", "full": 0.1}},
}


@pytest.mark.parametrize("physics", ["dac,adc", "dac,adc,programming_error,read_noise=frozen"])
@pytest.mark.parametrize("kind", CHIPS)
def test_percentile_100_clips_nothing_of_the_calibration_data_and_no_range_could_be_smaller(kind, physics):
    spec = chip(20, 7, **CHIPS[kind])
    program = pcmc.compile(builders.mlp([30, 12, 5]), spec)
    x = normal(100, 30)
    found = pcmc.calibrate(program, x, physics=physics, what="adc,input", seed=3)
    session = pcmc.Session(program, physics, seed=3, calibration=found.banks)
    session.run(None, {"x": x})
    assert sum(one.conversions for one in session.saturation.values()) >= 2900
    assert clipped(session) == 0
    tight = {
        name: dataclasses.replace(bank, adc_full=bank.adc_full * np.float32(0.98))
        for name, bank in found.banks.items()
    }
    session = pcmc.Session(program, physics, seed=3, calibration=tight)
    session.run(None, {"x": x})
    assert session.saturation["dense0"].clipped > 0


@pytest.mark.parametrize("name", pcmc.chip_names())
def test_every_shipped_chip_can_be_calibrated(name):
    """With its own drivers, slices and references; only what is new at each read could clip afterwards."""
    spec = pcmc.load_chip(name)
    spec = dataclasses.replace(spec, adc=dataclasses.replace(spec.adc, percentile=100.0))
    program = pcmc.compile(builders.mlp([30, 12, 5]), spec)
    physics = resolve("full", spec)
    physics = dataclasses.replace(
        physics,
        adc=True,
        read_noise=physics.read_noise and "frozen",
        thermal_noise=False,
        readout_noise=False,
        mismatch=False,
    )
    x = normal(40, 30)
    found = pcmc.calibrate(program, x, physics=physics)
    session = pcmc.Session(program, physics, calibration=found.banks)
    session.run(None, {"x": x})
    assert sum(one.conversions for one in session.saturation.values()) > 100
    assert clipped(session) == 0


def test_a_lower_percentile_clips_its_share():
    spec = chip(adc={"range": "column", "percentile": 99.0})
    program = pcmc.compile(builders.mlp([60, 40], bias=False), spec)
    x = normal(400, 60)
    found = pcmc.calibrate(program, x, what="adc")
    session = pcmc.Session(program, "full", calibration=found.banks)
    session.run(None, {"x": x})
    assert 0.007 < clipped(session) / session.saturation["dense0"].conversions < 0.0101


def test_ranges_of_inputs_are_the_percentile_of_their_magnitudes_and_at_least_the_bias_drive():
    spec = chip(dac={"range": "fixed", "full": 0.1}, adc={"percentile": 90.0})
    x = normal(300, 30)
    for bias in (False, True):
        program = pcmc.compile(builders.mlp([30, 12], bias=bias), spec)
        found = pcmc.calibrate(program, x, what="input").banks["dense0"]
        exact = np.percentile(np.abs(x), 90)
        drive = pcmc.Session(program, "full").state.banks["dense0"].bias_drive if bias else 0.0
        least = max(exact, drive)
        assert least - 1e-5 <= found.input_full <= max(exact + np.abs(x).max() / 512 + 1e-5, drive)
        assert found.adc_full is None
    coarse = pcmc.Session(program, "dac").run(None, {"x": x})[0]
    fine = pcmc.Session(program, "dac", calibration={"dense0": found}).run(None, {"x": x})[0]
    ideal = pcmc.Session(program).run(None, {"x": x})[0]
    assert np.abs(fine - ideal).mean() < 0.3 * np.abs(coarse - ideal).mean()


@pytest.mark.parametrize("model", ["digits-mlp", "digits-cnn"])
def test_calibration_restores_what_bad_ranges_cost(model):
    x, y = zoo.test_data(model)
    for cells in (500.0, 0.5):
        program = pcmc.compile(model, chip(adc={"range_cells": cells}))
        found = pcmc.calibrate(program, x[:100], what="adc")
        scores = []
        for banks in (None, found.banks):
            session = pcmc.Session(program, "full", calibration=banks)
            scores.append(np.mean(session.run(None, {"x": x[250:]})[0].argmax(axis=1) == y[250:]))
        assert scores[0] < 0.92 or (model, cells) == ("digits-cnn", 0.5)  # whose sums are still in order
        assert scores[1] > max(0.96, scores[0] + 0.01)


def test_a_matrix_that_is_read_twice_has_the_wider_range():
    nodes = [
        builders.node("MatMul", ["x", "w"], ["a"], name="first"),
        builders.node("Mul", ["a", "ten"], ["b"]),
        builders.node("Concat", ["b", "x"], ["c"], axis=0),
        builders.node("MatMul", ["c", "w"], ["y"], name="second"),
    ]
    model = builders.model(
        nodes, {"x": ["N", 8]}, {"y": [None, 8]}, {"w": builders.weights(8, 8), "ten": np.float32(10)}
    )
    program = pcmc.compile(model)
    x = normal(60, 8)
    found = pcmc.calibrate(program, x, what="adc")
    session = pcmc.Session(program, "full", calibration=found.banks)
    session.run(None, {"x": x})
    assert clipped(session) == 0


# gains and shifts

FROZEN = Physics(dac=True, adc=True, programming_error=True, read_noise="frozen", drift=True)


def one_layer(kind):
    if kind == "dense":
        return builders.mlp([30, 12]), normal(100, 30)
    return builders.conv([6, 3, 3, 3], [8, 8]), normal(40, 3, 8, 8)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("at", [None, "1d"])
@pytest.mark.parametrize("compensation", ["none", "global", "column"])
def test_norm_brings_mean_and_deviation_of_each_column_back(kind, at, compensation):
    model, x = one_layer(kind)
    program = pcmc.compile(model)
    options = {"physics": FROZEN, "seed": 5, "at": at, "compensation": compensation}
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    ideal = pcmc.Session(program).run(None, {"x": x})[0]
    plain = pcmc.Session(program, **options).run(None, {"x": x})[0]
    results = {}
    for what in ("norm", "bias"):
        found = pcmc.calibrate(program, x, what=what, **options)
        results[what] = pcmc.Session(program, calibration=found.banks, **options).run(None, {"x": x})[0]
    size = np.abs(ideal).max()
    for y in results.values():
        np.testing.assert_allclose(y.mean(axis=axes), ideal.mean(axis=axes), atol=2e-6 * size)
    np.testing.assert_allclose(results["norm"].std(axis=axes), ideal.std(axis=axes), rtol=1e-5)
    np.testing.assert_allclose(results["bias"].std(axis=axes), plain.std(axis=axes), rtol=1e-5)
    assert np.abs(plain.std(axis=axes) / ideal.std(axis=axes) - 1).max() > 1e-3


@pytest.mark.parametrize("bias_row", [True, False])
def test_later_layers_are_fitted_to_inputs_that_are_corrected_already(bias_row):
    spec = builders.chip(40, 30, bias_row=bias_row)
    program = pcmc.compile(builders.mlp([30, 20, 12]), spec)
    x = normal(300, 30)
    found = pcmc.calibrate(program, x, physics=FROZEN, what="norm", seed=2)
    y = pcmc.Session(program, FROZEN, seed=2, calibration=found.banks).run(None, {"x": x})[0]
    ideal = pcmc.Session(program).run(None, {"x": x})[0]
    np.testing.assert_allclose(y.mean(axis=0), ideal.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(y.std(axis=0), ideal.std(axis=0), rtol=1e-4)


def test_a_column_that_never_varies_is_left_alone():
    model = builders.mlp([30, 12], bias=False)
    weights = builders.weights(30, 12)
    weights[:, 3] = 0
    model.graph.initializer[0].raw_data = weights.tobytes()
    program = pcmc.compile(model)
    found = pcmc.calibrate(program, normal(50, 30), what="norm").banks["dense0"]
    assert (found.gain[3], found.shift[3]) == (1, 0)
    assert (found.gain != 1).sum() == 11


def test_banks_without_physics_are_not_calibrated():
    program = pcmc.compile(builders.mlp([30, 20, 12]))
    x = normal(50, 30)
    found = pcmc.calibrate(program, x, only=["dense1"])
    assert list(found.banks) == ["dense1"]
    whole = pcmc.calibrate(program, x)
    assert list(whole.banks) == ["dense0", "dense1"]
    with pytest.raises(AssertionError):  # what came to it was not the same
        np.testing.assert_array_equal(found.banks["dense1"].shift, whole.banks["dense1"].shift)


# data


def test_one_seed_one_calibration_for_any_number_of_threads():
    program = pcmc.compile("digits-mlp")
    x = zoo.test_data("digits-mlp")[0][:100]
    one, two, other = (
        pcmc.calibrate(program, x, seed=seed, threads=threads) for seed, threads in ((1, 1), (1, 2), (2, 1))
    )
    assert (one.what, one.samples, one.seed) == (("adc", "norm"), 100, 1)
    assert one.physics == resolve("full", program.chip).names()
    for name, bank in one.banks.items():
        for key in ("adc_full", "gain", "shift"):
            np.testing.assert_array_equal(getattr(bank, key), getattr(two.banks[name], key))
            assert (getattr(bank, key) != getattr(other.banks[name], key)).any()
        assert bank.adc_full.shape == (shapes(program)[name],)


def test_at_most_so_many_samples_are_taken_evenly_and_labels_are_ignored():
    program = pcmc.compile("digits-mlp")
    x, y = zoo.test_data("digits-mlp")
    few = pcmc.calibrate(program, x, samples=90)
    assert few.samples == 90
    chosen = pcmc.calibrate(program, (x[np.linspace(0, 449, 90).astype(int)], y[:90]))
    named = pcmc.calibrate(program, {"x": x, "y": y, "other": "thing"}, samples=90)
    for name, bank in few.banks.items():
        np.testing.assert_array_equal(bank.shift, chosen.banks[name].shift)
        np.testing.assert_array_equal(bank.shift, named.banks[name].shift)
    assert pcmc.calibrate(program, x).samples == 450


def test_a_model_of_a_fixed_batch_takes_whole_batches():
    program = pcmc.compile(builders.conv([6, 3, 3, 3], [8, 8], batch=4))
    assert pcmc.calibrate(program, normal(40, 3, 8, 8), samples=30).samples == 28
    assert pcmc.calibrate(program, normal(40, 3, 8, 8), samples=1).samples == 4


def test_a_program_can_be_calibrated_from_an_npz_file(tmp_path):
    program = pcmc.compile(builders.mlp([30, 12]))
    np.savez(tmp_path / "d.npz", x=normal(20, 30), y=np.zeros(20))
    with np.load(tmp_path / "d.npz") as data:
        assert pcmc.calibrate(program, data).samples == 20


def test_half_precision_is_calibrated_in_single():
    model = builders.model(
        [builders.node("MatMul", ["x", "w"], ["y"], name="dense")],
        {"x": (["N", 6], 10)},
        {"y": (["N", 3], 10)},
        {"w": builders.weights(6, 3, dtype=np.float16)},
    )
    program = pcmc.compile(model)
    found = pcmc.calibrate(program, normal(200, 6).astype(np.float16)).banks["dense"]
    assert found.gain.dtype == found.adc_full.dtype == np.float32
    session = pcmc.Session(program, "full", calibration={"dense": found})
    assert session.run(None, {"x": normal(4, 6).astype(np.float16)})[0].dtype == np.float16


REFUSED = {
    "what": ({"what": "adc,all"}, "there is no 'all'; known are adc, input, active, bias, norm"),
    "nothing": ({"what": ""}, "there is no ''"),
    "no names": ({"what": ()}, "nothing to calibrate: no names"),
    "ideal": ({"physics": "ideal"}, "nothing to calibrate: the physics is ideal"),
    "no adc": ({"physics": "programming_error", "what": "adc"}, "the physics has no adc"),
    "vector": ({"what": "input"}, "nature2018 has a range for each input vector"),
    "samples": ({"samples": 0}, "samples = 0: at least one is needed"),
    "compensation": ({"compensation": "some"}, "compensation 'some'"),
    "at": ({"at": "soon"}, "time 'soon'"),
    "none": ({"data": None}, "it needs data"),
    "shape": ({"data": np.ones((4, 7), np.float32)}, "has shape"),
    "type": ({"data": np.ones((4, 30))}, "is float64"),
    "empty": ({"data": np.ones((0, 30), np.float32)}, "no samples"),
    "name": ({"data": {"z": np.ones((4, 30), np.float32)}}, "input 'x' is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_calibrated_is_refused(case):
    program = pcmc.compile(builders.mlp([30, 12]))
    options, message = REFUSED[case]
    options = {"data": normal(4, 30), **options}
    with pytest.raises(DataError, match=message):
        pcmc.calibrate(program, options.pop("data"), **options)


def test_what_a_chip_does_not_have_is_left_out():
    spec = builders.chip()
    full, quiet = Physics(dac=True, adc=True), Physics(programming_error=True)
    assert applicable("norm,adc,input", full, spec) == ("adc", "norm")
    assert applicable(("adc", "bias", "norm"), quiet, spec) == ("norm",)
    assert applicable("adc,input", full, chip(dac={"range": "fixed"})) == ("adc", "input")
    assert applicable("adc,bias", Physics(), spec) == ()


def test_a_compiler_calibrates_ranges_with_exact_devices_alone():
    program = pcmc.compile(builders.mlp([30, 12]))
    x = normal(40, 30)
    found = calibrate_ranges(program, x)
    exact = pcmc.calibrate(program, x, physics="dac,adc", what="adc")
    assert found.what == ("adc",)
    np.testing.assert_array_equal(found.banks["dense0"].adc_full, exact.banks["dense0"].adc_full)
    for what in ("norm", "adc,bias"):
        with pytest.raises(
            DataError, match=r"fitted to the devices of one chip.*can hold adc, input and active"
        ):
            calibrate_ranges(program, x, what)


# compare


def split(model="digits-mlp"):
    x, y = zoo.test_data(model)
    return x[:150], (x[150:], y[150:])


def test_compare_shows_the_gain_of_each_chip_calibrated_by_itself():
    program = pcmc.compile("digits-mlp", chip(adc={"range_cells": 500.0}))
    data, test = split()
    found = pcmc.compare(program, data=test, seeds=2, calibrate=data, calibrate_what="adc")
    gain = found.calibration
    assert (gain.what, gain.samples, gain.of_each_chip) == (("adc",), 150, True)
    for index, seed in enumerate((0, 1)):
        banks = pcmc.calibrate(program, data, what="adc", seed=seed).banks
        for values, calibration in ((gain.without, None), (gain.calibrated, banks)):
            session = pcmc.Session(program, "full", seed=seed, calibration=calibration)
            top = session.run(None, {"x": test[0]})[0].argmax(axis=1)
            assert values["accuracy"].values[index] == np.mean(top == test[1])
    difference = np.subtract(gain.calibrated["accuracy"].values, gain.without["accuracy"].values)
    assert gain.gain["accuracy"].values == pytest.approx(tuple(difference))
    assert gain.gain["accuracy"].mean > 0.03
    assert gain.gain["output_error"].mean > 0
    assert found.metrics["accuracy"]["physics"]["values"] == gain.calibrated["accuracy"].values
    assert found.saturation.keys() == gain.saturation.keys() == program.banks.keys()
    json.dumps(found.as_dict())


def test_compare_without_calibration_shows_none_and_counts_what_clipped():
    program = pcmc.compile("digits-mlp", chip(adc={"range_cells": 0.5}))
    test = split()[1]
    found = pcmc.compare(program, data=test, seeds=2)
    assert found.calibration is None
    per_run = {}
    for seed in (0, 1):
        session = pcmc.Session(program, "full", seed=seed)
        for start in range(0, len(test[0]), 64):
            session.run(None, {"x": test[0][start : start + 64]})
        for name, one in session.saturation.items():
            per_run.setdefault(name, []).append((one.conversions, one.clipped))
    for name, pairs in per_run.items():
        counted = found.saturation[name]
        assert (counted.conversions, counted.clipped) == tuple(np.sum(pairs, axis=0))
        assert counted.clipped > 0.5 * counted.conversions
    assert pcmc.compare(program, data=test, seeds=1, physics="programming_error").saturation == {}


def test_costs_are_those_of_chips_that_are_calibrated():
    program = pcmc.compile("digits-mlp", chip(adc={"range_cells": 500.0}))
    data, test = split()
    options = {"data": test, "seeds": 1, "physics": "adc,programming_error", "ablate": True, "by_layer": True}
    plain = pcmc.compare(program, **options)
    fitted = pcmc.compare(program, **options, calibrate=data, calibrate_what="adc")

    def adc(found):
        return next(one.cost["output_error"].mean for one in found.ablation if one.effect == "adc")

    assert adc(fitted) < 0.2 * adc(plain)
    assert all(one.cost["accuracy"].mean < 0.03 for one in fitted.layers)


def test_a_calibration_is_not_measured_on_its_own_data():
    data, test = split()
    with pytest.raises(DataError, match="these are the test data"):
        pcmc.compare("digits-mlp", data=test, seeds=1, calibrate=test[0])
    with pytest.raises(DataError, match="nothing to calibrate: the physics is ideal"):
        pcmc.compare("digits-mlp", data=test, physics="ideal", calibrate=data)


def test_gains_of_another_chip_are_not_used():
    program = pcmc.compile("digits-mlp")
    data, test = split()
    found = pcmc.calibrate(program, data, seed=3)
    one = pcmc.compare(program, data=test, seeds=[3], calibration=found)
    assert not one.calibration.of_each_chip
    for options in ({"seeds": 2}, {"seeds": [3], "physics": "programming_error"}):
        with pytest.raises(DataError, match="for the chip of seed 3 with dac, adc"):
            pcmc.compare(program, data=test, calibration=found, **options)
    ranges = pcmc.calibrate(program, data, seed=3, what="adc")
    assert pcmc.compare(program, data=test, seeds=2, calibration=ranges).calibration.what == ("adc",)


# the command line


@pytest.fixture
def files(tmp_chdir):
    data, test = split()
    np.savez("d.npz", x=data, y=np.zeros(len(data)))
    np.savez("test.npz", x=test[0], y=test[1])
    Path("bad.toml").write_text('extends = "nature2018"\nname = "bad"\n[adc]\nrange_cells = 500.0\n')


def test_compile_stores_ranges_that_run_and_compare_use(done, files):
    shown = done("compile", "digits-mlp", "--chip", "bad.toml", "--calibrate", "d.npz", "-o", "a.pcmc")
    assert "calibrated adc with 150 samples" in shown
    stored = pcmc.load_calibration("a.pcmc")
    program = pcmc.load("a.pcmc")
    shown = done("run", "a.pcmc", "--input", "test.npz", "--physics", "full", "-o", "out.npz")
    assert "calibrated adc with 150 samples" in shown
    assert "conversions clipped" in shown
    session = pcmc.Session(program, "full", calibration=stored.banks)
    with np.load("out.npz") as out, np.load("test.npz") as test:
        np.testing.assert_array_equal(out["logits"], session.run(None, {"x": test["x"]})[0])
    facts = json.loads(done("compare", "a.pcmc", "--data", "test.npz", "--seeds", "2", "--json"))
    assert facts["calibration"]["what"] == ["adc"]
    assert facts["calibration"]["of_each_chip"] is False
    assert facts["calibration"]["gain"]["accuracy"]["mean"] > 0.03
    assert "calibrated adc with 150 samples" in done("show", "a.pcmc")
    assert json.loads(done("show", "a.pcmc", "--json"))["calibration"]["samples"] == 150
    report = json.loads(
        done("compile", "digits-mlp", "--calibrate", "d.npz", "--calibrate-what", "adc", "--json")
    )
    assert report["calibration"] == {"what": ["adc"], "samples": 150, "seed": 0, "active": {}}


def test_run_and_compare_calibrate_themselves(done, files):
    words = ["digits-mlp", "--chip", "bad.toml", "--calibrate", "d.npz", "--calibrate-what", "adc,bias"]
    facts = json.loads(
        done(
            "run", *words, "--input", "test.npz", "--physics", "full", "--seed", "2", "-o", "o.npz", "--json"
        )
    )
    assert facts["calibration"] == {"what": ["adc", "bias"], "samples": 150, "seed": 2, "active": {}}
    program = pcmc.compile("digits-mlp", "bad.toml")
    data = np.load("d.npz")["x"]
    found = pcmc.calibrate(program, data, what="adc,bias", seed=2)
    session = pcmc.Session(program, "full", seed=2, calibration=found.banks)
    with np.load("o.npz") as out, np.load("test.npz") as test:
        np.testing.assert_array_equal(out["logits"], session.run(None, {"x": test["x"]})[0])
    for name, one in session.saturation.items():
        assert facts["saturation"][name] == {"conversions": one.conversions, "clipped": one.clipped}
    shown = done("compare", *words, "--data", "test.npz", "--seeds", "2")
    assert "calibrated adc, bias with 150 samples, each chip by itself" in shown
    table = shown.split("each chip by itself")[1].splitlines()
    assert table[1].split()[:4] == ["metric", "without", "calibrated", "gain"]
    assert [line.split()[0] for line in table[3:6]] == ["accuracy", "agreement", "output_error"]


def test_a_calibration_in_the_file_gives_way_to_one_that_is_asked_for(done, files):
    done("compile", "digits-mlp", "--chip", "bad.toml", "--calibrate", "d.npz", "-o", "a.pcmc")
    words = ["compare", "a.pcmc", "--data", "test.npz", "--seeds", "1", "--json"]
    facts = json.loads(done(*words, "--calibrate", "d.npz", "--calibrate-what", "norm"))
    assert facts["calibration"]["what"] == ["norm"]
    assert facts["calibration"]["of_each_chip"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compile", "digits-mlp", "--calibrate", "d.npz", "--calibrate-what", "norm"],
         "fitted to the devices"),
        (["compile", "digits-mlp", "--calibrate", "none.npz"], "none.npz: no such file"),
        (["compile", "digits-mlp", "--calibrate-what", "adc"], "--calibrate-what needs --calibrate"),
        (["run", "digits-mlp", "--input", "test.npz", "--calibrate", "d.npz"], "the physics is ideal"),
        (["run", "digits-mlp", "--input", "test.npz", "--calibrate-what", "adc"], "needs --calibrate"),
        (["run", "digits-mlp", "--input", "d.npz", "--calibrate", "d.npz", "--physics", "full",
          "--calibrate-what", "all"], "there is no 'all'"),
        (["compare", "digits-mlp", "--data", "test.npz", "--calibrate", "test.npz"],
         "these are the test data"),
        (["compare", "digits-mlp", "--calibrate-what", "adc"], "--calibrate-what needs --calibrate"),
    ],
)  # fmt: skip
def test_the_command_refuses_in_one_line(refused, files, words, message):
    assert message in refused(*words)
    assert not list(Path().glob("*.pcmc"))


def test_a_stored_calibration_of_another_chip_is_refused(refused, files):
    program = pcmc.compile("digits-mlp")
    pcmc.calibrate(program, np.load("d.npz")["x"], seed=3).save(program, "a.pcmc")
    message = refused("run", "a.pcmc", "--input", "test.npz", "--physics", "full", "--seed", "1")
    assert "for the chip of seed 3" in message
    with pytest.raises(ProgramError, match="the calibration of bank 'node_linear': adc_full has shape"):
        pcmc.calibrate(program, np.load("d.npz")["x"]).save(pcmc.compile("digits-cnn"), "b.pcmc")


# real models


@pytest.mark.slow
def test_a_real_resnet_gains_by_calibration():
    """ResNet-8 (MLPerf Tiny) on CIFAR-10, full physics: calibrated on training images, measured on others."""
    name = "cifar10_resnet8_mlperftiny.onnx"
    x, y = real.inputs(name, 1000)
    data = real.MODELS_WITH_DATA[name].prepare(
        datasets.load("cifar10", "train", str(real.data_folder()))[0][:512]
    )
    found = pcmc.compare(real.model_path(name), data=(x, y), seeds=3, calibrate=data)
    gain = found.calibration
    accuracy = gain.gain["accuracy"]
    print(
        f"accuracy of {len(x)} images: onnxruntime {found.metrics['accuracy']['onnxruntime']:.3f}, chips "
        f"{gain.without['accuracy'].values}, calibrated {gain.calibrated['accuracy'].values}"
    )
    standard_error = np.std(accuracy.values, ddof=1) / np.sqrt(3)
    assert accuracy.mean - t.ppf(0.995, 2) * standard_error > 0  # gained, at 0.5 % one-sided
    assert accuracy.mean > 0.15
