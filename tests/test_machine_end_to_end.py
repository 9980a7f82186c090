"""The machine as a user meets it: a model, a chip file, physics, and what must hold whatever is on."""

import dataclasses
from pathlib import Path

import builders
import numpy as np
import pytest

import pcmc
from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_to_dict, load_chip

SIZES = (40, 12)

#: Inputs that no converter should make a NaN of.
EXTREMES = {
    "zero": 0.0,
    "huge": 1e38,
    "infinite": np.inf,
    "negative": -np.inf,
    "not a number": np.nan,
    "denormal": 1e-40,
}

#: Changes of pcm2014 that give all that a chip of pairs can have, in tiles that cut the matrix both ways.
DRIVERS = {
    "voltage": {},
    "pulse": {"input": "pulse", "signed": False},
    "bits": {"input": "bits", "slice_bits": 2, "signed": False},
    "fixed": {"range": "fixed", "full": 6.0},
}
EVERY_EFFECT = (
    "dac,adc,programming_error,read_noise=split,drift,stuck,ir_drop,thermal_noise,nonlinearity,"
    "readout_noise,mismatch"
)


def everything(driver: str, bias_row: bool, subtract: str) -> ChipSpec:
    """A chip that has a law of every effect of pairs of PCM devices."""
    tables = chip_to_dict(load_chip("pcm2014"))
    tables["name"] = "everything"
    tables["tile"] |= {"rows": 17, "cols": 5, "bias_row": bias_row}
    tables["cell"] |= {
        "read_voltage_v": 0.2,
        "current_cubic": 0.1,
        "polarity_loss": 0.05,
        "stuck_low_fraction": 0.01,
    }
    tables["dac"] |= DRIVERS[driver]
    tables["adc"] |= {"noise_lsb": 0.5, "offset_lsb": 0.5, "gain_error": 0.02, "subtract": subtract}
    tables["wires"] |= {"row_ohm": 0.35, "column_ohm": 0.35}
    return chip_from_dict(tables, "everything")


def inputs(vectors: int = 4) -> np.ndarray:
    return builders.rng(3).standard_normal((vectors, SIZES[0])).astype(np.float32)


@pytest.mark.parametrize("subtract", ["analog", "digital"])
@pytest.mark.parametrize("bias_row", [True, False])
@pytest.mark.parametrize("driver", list(DRIVERS))
def test_with_all_effects_on_no_input_gives_a_nan_and_threads_change_no_bit(
    driver: str, bias_row: bool, subtract: str
) -> None:
    program = pcmc.compile(builders.mlp(SIZES), everything(driver, bias_row, subtract))
    one, two = (pcmc.Session(program, EVERY_EFFECT, seed=5, threads=threads, at="1h") for threads in (1, 2))
    x = inputs()
    for name, value in EXTREMES.items():
        extreme = np.where(x > 0.7, np.float32(value), x)
        (first,), (second,) = one.run(None, {"x": extreme}), two.run(None, {"x": extreme})
        assert np.isfinite(first).all(), name
        assert np.array_equal(first, second), name
    assert one.run(None, {"x": x[:0]})[0].shape == (0, SIZES[1])


@pytest.mark.parametrize("name", pcmc.chip_names())
def test_each_shipped_chip_runs_a_model_with_its_full_physics_near_onnxruntime(name: str) -> None:
    proto = builders.mlp(SIZES)
    program, x = pcmc.compile(proto, name), inputs(64)
    (wanted,) = builders.reference(proto, {"x": x})
    (ideal,) = pcmc.Session(program).run(None, {"x": x})
    (got,) = pcmc.Session(program, "full", seed=1).run(None, {"x": x})
    assert np.abs(ideal - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert 0 < np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)) < 0.6


@pytest.mark.parametrize("driver", list(DRIVERS))
@pytest.mark.parametrize("cell", ["2pcm", "4pcm", "1pcm"])
def test_fine_converters_come_near_ideal_mode_however_inputs_are_sent(cell: str, driver: str) -> None:
    chip = everything(driver, True, "analog")
    chip = dataclasses.replace(
        chip,
        cell=load_chip("ibm2023").cell if cell == "4pcm" else chip.cell,
        dac=dataclasses.replace(chip.dac, bits=16),
        adc=dataclasses.replace(chip.adc, bits=16, range_cells=34.0, corrected=True),
    )
    if cell == "1pcm":
        tables = chip_to_dict(chip)
        tables["cell"]["kind"] = "1pcm"
        del tables["pulses"]
        chip = chip_from_dict(tables, "1pcm")
    program, x = pcmc.compile(builders.mlp(SIZES), chip), inputs()
    (ideal,) = pcmc.Session(program).run(None, {"x": x})
    (got,) = pcmc.Session(program, "dac,adc,mismatch").run(None, {"x": x})
    assert np.abs(got - ideal).max() <= 5e-3 * np.abs(ideal).max()


def test_waiting_finds_what_a_session_of_that_time_finds_where_nothing_is_drawn_anew() -> None:
    program, x = pcmc.compile(builders.mlp(SIZES)), inputs()
    waited = pcmc.Session(program, "full,-read_noise", at=0)
    waited.wait("20s")
    waited.wait("3580s")
    later = pcmc.Session(program, "full,-read_noise", at="1h")
    assert np.array_equal(waited.run(None, {"x": x})[0], later.run(None, {"x": x})[0])


@pytest.mark.parametrize("physics", ["full", "full,read_noise=split", "full,ir_drop"])
def test_devices_that_were_saved_drift_on_as_if_never_saved(physics: str, tmp_path: Path) -> None:
    program, x = pcmc.compile(builders.mlp(SIZES)), inputs()
    pcmc.Session(program, physics, seed=7).save(tmp_path / "state.pcmc")
    held = pcmc.load_state(tmp_path / "state.pcmc")
    for at in (None, "1h", "1y"):
        kept = pcmc.Session(program, physics, seed=7, state=held, at=at)
        fresh = pcmc.Session(program, physics, seed=7, at=at)
        assert np.array_equal(kept.run(None, {"x": x})[0], fresh.run(None, {"x": x})[0])


@pytest.mark.parametrize("base", ["nature2018", "pcm2014", "cmo-hfox", "isaac", "truenorth"])
def test_a_wrong_value_of_any_field_is_one_line_that_names_it(base: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for section, fields in chip_to_dict(load_chip(base)).items():
        if not isinstance(fields, dict):
            continue
        for key in fields:
            path.write_text(f'extends = "{base}"\nname = "mine"\n[{section}]\n{key} = 1979-05-27\n')
            with pytest.raises(pcmc.ChipError) as caught:
                load_chip(path)
            message = str(caught.value)
            assert f"[{section}] {key}" in message
            assert "\n" not in message
