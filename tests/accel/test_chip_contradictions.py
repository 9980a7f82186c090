"""Fields of a chip file, each right by itself, that contradict each other are one line that names them."""

import pytest
from chip_tables import tables

from pcmc.accel.chip import chip_from_dict
from pcmc.errors import ChipError

LAWS = {
    "ir_drop": "[wires] with resistances",
    "thermal_noise": "[cell] read_voltage_v",
    "nonlinearity": "[cell] current_cubic or polarity_loss",
    "reference_error": "[cell] reference_error_us",
    "readout_noise": "[adc] noise_lsb",
    "mismatch": "[adc] offset_lsb or gain_error",
}


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
        (
            "ideal",
            {"effects": {"drift": True}},
            "[effects] drift = true: must be false: ideal cells have none",
        ),
        ("2pcm+3t1c", {"cell": {"pairs": 2}}, '[cell] pairs = 2: must be 1 in a cell of kind "2pcm+3t1c"'),
        ("1pcm", {"cell": {"pairs": 2}}, '[cell] pairs = 2: must be 1 in a cell of kind "1pcm"'),
        ("1pcm", {"cell": {"slices": 2}}, '[cell] slices = 2: must be 1 in a cell of kind "1pcm"'),
        ("4pcm", {"cell": {"slices": 2}}, '[cell] slices = 2: must be 1 in a cell of kind "4pcm"'),
        ("2pcm+3t1c", {"cell": {"slices": 2}}, '[cell] slices = 2: must be 1 in a cell of kind "2pcm+3t1c"'),
        ("2pcm", {"cell": {"slices": 2, "pairs": 2}}, "[cell] pairs = 2: must be 1 where slices = 2"),
        (
            "2pcm",
            {"cell": {"slices": 6, "slice_bits": 4}},
            "[cell] slice_bits = 4: must be at most 3 with 6 slices, 23 bits together",
        ),
        (
            "1pcm",
            {"adc": {"subtract": "digital"}, "weights": {"scale": "column"}},
            '[adc] subtract = "digital": must be "analog" with 1pcm cells, or [weights] scale "matrix"',
        ),
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
        (
            "2pcm",
            {"effects": {"stuck": True}},
            "[effects] stuck = true: must be false: the [cell] of kind 2pcm gives no law of it",
        ),
        (
            "2pcm",
            {"cell": {"read_noise_scale": 0.0}, "effects": {"read_noise": "split"}},
            '[effects] read_noise = "split": must be "off": the [cell] of kind 2pcm gives no law of it',
        ),
        (
            "3t1c",
            {"cell": {"g_reference_us": 20.0}},
            "[cell] g_reference_us = 20: must lie between g_low_us = 4 and g_high_us = 20 uS",
        ),
        (
            "3t1c",
            {"effects": {"read_noise": "fast"}},
            '[effects] read_noise = "fast": must be "off": the [cell] of kind 3t1c gives no law of it',
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
        (
            "rram",
            {"effects": {"drift": True}},
            "[effects] drift = true: must be false: the [cell] of kind rram gives no law of it",
        ),
        (
            "sram",
            {"effects": {"programming_error": True}},
            "[effects] programming_error = true: must be false",
        ),
        *(
            (
                "2pcm+3t1c",
                {"cell": {"low_reference_us": reference}},
                f"[cell] low_reference_us = {reference:g}: must lie between low_g_low_us = 4",
            )
            for reference in (3.0, 4.0, 20.0, 21.0)
        ),
        (
            "2pcm+3t1c",
            {"dac": {"bits": 8, "input": "bits", "slice_bits": 8}},
            "[dac] slice_bits = 8: must be less than bits = 8",
        ),
        (
            "2pcm+3t1c",
            {"dac": {"bits": 4, "input": "bits", "slice_bits": 15}},
            "[dac] slice_bits = 15: must be less than bits = 4",
        ),
        *(
            (
                kind,
                {"adc": {"subtract": "digital"}},
                f'[adc] subtract = "digital": must be "analog" with {kind} cells, which are no pairs',
            )
            for kind in ("3t1c", "sram", "levels", "ideal")
        ),
        *(
            (kind, {"effects": {effect: True}}, f"[effects] {effect} = true: must be false: it takes {law}")
            for kind in ("2pcm+3t1c", "rram", "3t1c", "levels", "ideal")
            for effect, law in LAWS.items()
        ),
        *(
            (
                kind,
                {"wires": {"row_ohm": 1.0}, "effects": {"ir_drop": True}},
                "[effects] ir_drop = true: must be false: it takes [wires] with resistances, and cells",
            )
            for kind in ("3t1c", "sram", "levels", "ideal")
        ),
        (
            "2pcm",
            {"wires": {"backward_sense_ohm": 1.0}, "effects": {"ir_drop": True}},
            "[effects] ir_drop = true: must be false: it takes [wires] with resistances",
        ),
        *(
            (
                "2pcm",
                {"adc": {"on": False, "noise_lsb": 1.0, "offset_lsb": 1.0}, "effects": {effect: True}},
                f"[effects] {effect} = true: must be false where [adc] on = false",
            )
            for effect in ("readout_noise", "mismatch")
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
    assert str(error.value).isprintable()  # one line


@pytest.mark.parametrize(
    ("kind", "effect", "law"),
    [
        ("2pcm", "ir_drop", {"wires": {"sense_ohm": 50.0}}),
        ("rram", "ir_drop", {"wires": {"column_ohm": 0.5}}),
        ("4pcm", "thermal_noise", {"cell": {"read_voltage_v": 0.2}}),
        ("rram", "nonlinearity", {"cell": {"current_cubic": -0.1}}),
        ("2pcm+3t1c", "nonlinearity", {"cell": {"polarity_loss": -0.1}}),
        ("3t1c", "reference_error", {"cell": {"reference_error_us": 0.05}}),
        ("levels", "readout_noise", {"adc": {"noise_lsb": 0.4}}),
        ("ideal", "mismatch", {"adc": {"offset_lsb": 0.4}}),
        ("2pcm", "mismatch", {"adc": {"gain_error": 0.02}}),
    ],
)
def test_an_effect_whose_law_is_given_can_be_stated_on(kind, effect, law):
    right = tables(kind)
    for section, values in law.items():
        right[section].update(values)
    assert effect in chip_from_dict(right, "mine.toml").available_effects
    right["effects"][effect] = True
    assert getattr(chip_from_dict(right, "mine.toml").effects, effect)


def test_slices_of_bits_matter_only_where_inputs_are_sent_in_bits():
    right = tables()
    right["dac"].update(bits=4, slice_bits=15)
    assert chip_from_dict(right, "mine.toml").dac.slice_bits == 15
    right["dac"].update(input="bits", slice_bits=3)
    assert chip_from_dict(right, "mine.toml").dac.input == "bits"


def test_a_tile_of_one_row_is_right_without_a_bias_row():
    right = tables()
    right["tile"].update(rows=1, bias_row=False)
    assert chip_from_dict(right, "mine.toml").tile.rows == 1


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"wires": {"word_segments": 101}}, "[wires] word_segments = 101: must be at most 100"),
        ({"wires": {"bit_segments": 514}}, "[wires] bit_segments = 514: must be at most 513"),
        ({"wires": {"active_fraction": 0.5}}, "[wires] active_fraction = 0.5: must be 1 where idle_row"),
        (
            {"wires": {"differential": "shared"}, "adc": {"subtract": "digital"}},
            '[adc] subtract = "digital": must be "analog" where [wires] differential = "shared"',
        ),
        (
            {"cell": {"temperature_k": 1000.0, "activation_reset_ev": 1.0}},
            "[cell] activation_reset_ev = 1: must not let a device conduct more than 1e+06 uS",
        ),
    ],
)
def test_wires_and_energies_that_a_tile_can_not_have_are_named(changes, start):
    with pytest.raises(ChipError) as refusal:
        chip_from_dict({**tables(), **{k: {**tables()[k], **v} for k, v in changes.items()}}, "mine.toml")
    assert str(refusal.value).startswith(f"mine.toml: {start}")
