"""Calibration: the arithmetic of ranges, gains and shifts, against numpy; and its place in a program file."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import zipfile

import builders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcmc
from pcmc.accel import tile
from pcmc.accel.physics import Physics
from pcmc.errors import ProgramError
from pcmc.runtime import program_file
from pcmc.runtime.banks import LoadedBank, physical_bank
from pcmc.runtime.calibration import (
    BINS,
    BankCalibration,
    Calibration,
    Moments,
    as_driven,
    bank_ranges,
    check_calibration,
    conversion_sums,
    fitted,
    full_scales,
    moments,
)
from pcmc.runtime.program import Read
from pcmc.runtime.reads import Reading, read_chip
from pcmc.runtime.state import program_chip

CONVERTERS = Physics(dac=True, adc=True)


def chip_with(rows=40, cols=30, dac=None, adc=None):
    spec = builders.chip(rows, cols)
    return dataclasses.replace(
        spec,
        dac=dataclasses.replace(spec.dac, **dac or {}),
        adc=dataclasses.replace(spec.adc, **adc or {}),
    )


def loaded(program, physics=CONVERTERS, seed=0) -> LoadedBank:
    """The first bank of a program as a chip reads it."""
    state = program_chip(program, physics, seed)
    reading = Reading(physics, seed, seed)
    (name, bank), *_ = program.banks.items()
    found = read_chip(program, state, reading)
    return physical_bank(bank, state.banks[name], found[name], program.chip, reading)


# ranges


@given(st.integers(0, 2**32 - 1), st.floats(50, 100), st.booleans(), st.integers(1, 5))
def test_a_full_scale_is_the_percentile_and_at_most_a_bin_more(seed, percentile, apart, pieces):
    rng = np.random.default_rng(seed)
    values = np.abs(rng.standard_normal((60, 4, 3)) * rng.uniform(0.01, 10, (1, 4, 1))).astype(np.float32)
    parts = np.array_split(values, pieces)
    found = full_scales(lambda: parts, percentile, apart)
    columns = np.moveaxis(values, 1, 0).reshape(4, -1) if apart else values.reshape(1, -1)
    exact = np.percentile(columns, percentile, axis=1, method="inverted_cdf")
    assert found.shape == exact.shape
    assert (found >= exact * (1 - 1e-6)).all()
    assert (found <= exact + columns.max(axis=1) / BINS * (1 + 1e-6)).all()


def test_the_full_scale_of_percentile_100_is_the_largest_to_the_bit():
    values = np.abs(np.random.default_rng(0).standard_normal((50, 4, 3))).astype(np.float32)
    np.testing.assert_array_equal(full_scales(lambda: [values], 100, True), values.max(axis=(0, 2)))
    np.testing.assert_array_equal(full_scales(lambda: [values[:7], values[7:]], 100, False), [values.max()])


def test_columns_without_a_sum_keep_the_range_of_the_chip_file():
    otherwise = np.full(3, 20, np.float32)
    assert full_scales(list, 99, True).tolist() == [0]
    assert full_scales(lambda: [np.zeros((2, 3, 1), np.float32)], 99, True).tolist() == [0, 0, 0]
    np.testing.assert_array_equal(bank_ranges(np.zeros(1), otherwise), otherwise)
    found = bank_ranges(np.array([4.0, 0.0, 1e-12]), otherwise)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [4, 20, 4e-6])


def brute_force(x, bank, drivers, sample, bias_drive, window=None):
    """|sum| of every conversion that there is, a list, straight from the definition of drivers."""
    sums = []
    levels = drivers.levels
    for item in x:
        if window is None:
            vectors = [item]
        else:  # the windows of an image, one after the other
            kh, kw = window.kernel
            vectors = [
                item[:, y : y + kh, at : at + kw].reshape(-1)
                for y in range(item.shape[1] - kh + 1)
                for at in range(item.shape[2] - kw + 1)
            ]
        floor = abs(bias_drive) if (bank.blocks[:, 4] == 1).any() else 0.0
        scale = np.float32(drivers.full or max(np.abs(item).max(), np.float32(floor)))

        def code(values, scale=scale):
            if not levels:
                return np.asarray(values, np.float32) / scale
            return np.clip(
                np.rint(np.asarray(values, np.float32) / (scale / np.float32(levels))), -levels, levels
            )

        for sign in (None,) if drivers.signed else (1, -1):
            bits = range(0, levels.bit_length(), drivers.slice_bits)
            sliced = drivers.kind == "bits" and levels and sample == "slice"
            for bit in bits if sliced else (None,):

                def drive(values, sign=sign, bit=bit):
                    c = code(values)
                    if sign is not None:
                        c = np.maximum(sign * c, 0)
                    if bit is None:
                        return c / max(1, levels)
                    top = 2**drivers.slice_bits - 1
                    return np.sign(c) * (np.abs(c).astype(int) >> bit & top) / top

                if not drive(item).any() and not (floor and drive(bias_drive)):
                    continue  # nothing is driven, nothing converted
                for vector in vectors:
                    u = drive(vector).astype(np.float64)
                    for row0, _, rows, cols, bias, offset in bank.blocks:
                        w = bank.cells[offset : offset + rows * cols].reshape(rows, cols).astype(np.float64)
                        total = u[row0 : row0 + rows - bias] @ w[: rows - bias]
                        sums.append(np.abs(total + (drive(bias_drive) * w[-1] if bias else 0)))
    return np.sort(np.concatenate(sums))


DRIVERS = {
    "voltage": {},
    "pulse": {"input": "pulse"},
    "one bit at a time": {"input": "bits", "slice_bits": 1},
    "two bits at a time": {"input": "bits", "slice_bits": 2},
    "three bits, unsigned": {"input": "bits", "slice_bits": 3, "signed": False},
    "unsigned": {"signed": False},
    "fixed": {"range": "fixed", "full": 1.5},
    "fixed bits": {"range": "fixed", "full": 1.5, "input": "bits"},
}


@pytest.mark.parametrize("sample", ["slice", "sum"])
@pytest.mark.parametrize("kind", DRIVERS)
def test_the_sums_are_those_of_a_brute_force(kind, sample):
    chip = chip_with(20, 7, dac=DRIVERS[kind], adc={"sample": sample})
    program = pcmc.compile(builders.mlp([50, 10]), chip)
    bank = loaded(program)
    x = np.random.default_rng(1).standard_normal((6, 50)).astype(np.float32)
    x[2] = 0
    found = np.sort(np.concatenate([s.ravel() for s in conversion_sums(x, bank, None)]))
    wanted = brute_force(x, bank.parts[0].bank, bank.drivers, sample, bank.bias_drive)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=2e-5 * wanted.max())


@pytest.mark.parametrize("kind", ["voltage", "two bits at a time", "unsigned"])
@pytest.mark.parametrize("dac", [True, False])
def test_the_sums_of_a_convolution_are_those_of_a_brute_force(kind, dac):
    chip = chip_with(20, 7, dac=DRIVERS[kind])
    program = pcmc.compile(builders.conv([5, 4, 3, 2], [6, 5]), chip)
    bank = loaded(program, Physics(dac=dac, adc=True))
    x = np.random.default_rng(1).standard_normal((3, 4, 6, 5)).astype(np.float32)
    window = program.steps[0].read.window
    found = np.sort(np.concatenate([s.ravel() for s in conversion_sums(x, bank, window)]))
    wanted = brute_force(x, bank.parts[0].bank, bank.drivers, "slice", bank.bias_drive, window)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=2e-5 * wanted.max())


def test_the_sums_come_in_pieces_of_bounded_size(monkeypatch):
    program = pcmc.compile(builders.mlp([50, 10]), chip_with(20, 7))
    bank = loaded(program)
    x = np.random.default_rng(1).standard_normal((64, 50)).astype(np.float32)
    (whole,) = conversion_sums(x, bank, None)
    monkeypatch.setattr("pcmc.runtime.calibration.MOST_SUMS", 500)
    pieces = list(conversion_sums(x, bank, None))
    assert len(pieces) > 3
    assert max(piece.size for piece in pieces) <= 500
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-5)


def test_inputs_that_are_no_numbers_make_no_sums_that_are_none():
    bank = loaded(pcmc.compile(builders.mlp([50, 10]), chip_with(20, 7)))
    x = np.ones((4, 50), np.float32)
    x[1, 3], x[2, 4], x[3] = np.nan, np.inf, 3e38
    for sums in conversion_sums(x, bank, None):
        assert np.isfinite(sums).all()


def test_inputs_are_driven_as_their_operation_sends_them():
    x = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    vectors, window = as_driven(x, 4, Read("dense"))
    assert (vectors.dtype, vectors.shape, window) == (np.float32, (6, 4), None)
    maps, window = as_driven(x, 3, Read("columns"))
    assert (maps.shape, window) == ((2, 3, 1, 4), tile.Window((1, 1)))
    maps, window = as_driven(x, 6, Read("window", tile.Window((1, 2))))
    assert (maps.shape, window) == ((2, 3, 1, 4), tile.Window((1, 2)))


# gains and shifts


def test_moments_are_numpys_however_the_values_are_cut():
    rng = np.random.default_rng(0)
    y = rng.standard_normal((40, 3)) * [1, 5, 1e-3] + [100, 0, 1]
    whole = moments(y, 3, "dense")
    cut = (
        moments(y[:7], 3, "dense")
        .with_values(moments(y[7:7], 3, "dense"))
        .with_values(moments(y[7:], 3, "dense"))
    )
    for found in (whole, cut):
        assert found.count == 40
        np.testing.assert_allclose(found.mean, y.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(found.deviation, y.std(axis=0), rtol=1e-11)


def test_columns_are_on_the_axis_where_the_operation_has_them():
    y = np.random.default_rng(0).standard_normal((2, 3, 4, 5)) * np.arange(1, 6)
    for kind, axes, cols in (("dense", (0, 1, 2), 5), ("columns", (0, 1, 3), 4), ("window", (0, 2, 3), 3)):
        found = moments(y, cols, kind)
        np.testing.assert_allclose(found.mean, y.mean(axis=axes))
        np.testing.assert_allclose(found.deviation, y.std(axis=axes))
    assert moments(y[0, 0, 0], 1, "dense").count == 5  # a matrix of one column whose axis is dropped


def test_gain_and_shift_bring_mean_and_deviation_back():
    rng = np.random.default_rng(0)
    ideal = rng.standard_normal((500, 4)) * [1, 2, 3, 4] + [0, 5, -5, 1]
    chip = ideal * [0.5, 1.2, -1, 1] + rng.standard_normal((500, 4)) * 0.1 + 0.3
    gain, shift = fitted(moments(ideal, 4, "dense"), moments(chip, 4, "dense"), True)
    after = chip * gain + shift
    np.testing.assert_allclose(after.mean(axis=0), ideal.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(after.std(axis=0), ideal.std(axis=0), rtol=1e-6)
    gain, shift = fitted(moments(ideal, 4, "dense"), moments(chip, 4, "dense"), False)
    assert (gain == 1).all()
    np.testing.assert_allclose((chip + shift).mean(axis=0), ideal.mean(axis=0), atol=1e-6)


def test_columns_that_do_not_vary_or_are_no_numbers_are_left_alone():
    mean = np.array([0.0, 1, 2, np.nan, np.inf])
    some, none = (
        Moments(9, mean, np.array([9.0, 9, 0, 9, 9])),
        Moments(9, mean + 1, np.array([9.0, 0, 9, 9, 9])),
    )
    for gains in (True, False):
        gain, shift = fitted(some, none, gains)
        assert gain.tolist() == [1] * 5
        assert shift.tolist() == [-1, 0, 0, 0, 0]


# in a program file


@functools.cache
def small():
    return pcmc.compile(builders.mlp([6, 4, 3]), builders.chip(5, 3))


def calibration_of(program, **changes):
    banks = {
        name: BankCalibration(
            np.linspace(1, 2, int(bank.table["cols"].sum()), dtype=np.float32),
            1.5,
            np.linspace(0.5, 1.5, bank.cols, dtype=np.float32),
            np.linspace(-1, 1, bank.cols, dtype=np.float32),
        )
        for name, bank in program.banks.items()
    }
    return dataclasses.replace(Calibration(("adc", "norm"), 200, ("dac", "adc"), 3, banks), **changes)


def test_a_calibration_comes_back_from_a_program_file(tmp_path):
    program = small()
    calibration = calibration_of(program)
    calibration.save(program, tmp_path / "a.pcmc")
    for found in (
        pcmc.load_calibration(tmp_path / "a.pcmc"),
        pcmc.load_calibration(tmp_path / "a.pcmc", pcmc.load(tmp_path / "a.pcmc")),
    ):
        assert found is not None
        assert [getattr(found, key) for key in ("what", "samples", "physics", "seed")] == [
            ("adc", "norm"), 200, ("dac", "adc"), 3,
        ]  # fmt: skip
        assert found.banks.keys() == calibration.banks.keys()
        for name, bank in calibration.banks.items():
            for key in ("adc_full", "input_full", "gain", "shift"):
                np.testing.assert_array_equal(getattr(found.banks[name], key), getattr(bank, key))


def test_what_is_not_calibrated_comes_back_as_nothing(tmp_path):
    program = small()
    program.save(tmp_path / "plain.pcmc")
    assert pcmc.load_calibration(tmp_path / "plain.pcmc") is None
    calibration_of(program, banks={"dense1": BankCalibration()}).save(program, tmp_path / "a.pcmc")
    found = pcmc.load_calibration(tmp_path / "a.pcmc")
    assert [getattr(found.banks["dense1"], key) for key in ("adc_full", "input_full", "gain", "shift")] == [
        None
    ] * 4


WRONG = {
    "adc_full": (np.ones(1, np.float32), "adc_full has shape"),
    "adc_full 0": (np.zeros(3, np.float32), "adc_full is not positive and finite"),
    "adc_full -": (-np.ones(3, np.float32), "adc_full is not positive and finite"),
    "adc_full nan": (np.full(3, np.nan, np.float32), "adc_full is not positive and finite"),
    "input_full": (0.0, "input_full is not positive and finite"),
    "input_full inf": (float("inf"), "input_full is not positive and finite"),
    "gain": (np.ones(9, np.float32), "gain has shape"),
    "gain inf": (np.full(3, np.inf, np.float32), "gain is not finite"),
    "shift": (None, "a gain without a shift"),
    "shift nan": (np.full(3, np.nan, np.float32), "shift is not finite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_calibration_that_does_not_fit_is_refused(case):
    program, (value, message) = small(), WRONG[case]
    calibration = calibration_of(program)
    field = case.split()[0]
    if field == "adc_full" and isinstance(value, np.ndarray) and value.size == 3:
        value = np.resize(value, calibration.banks["dense1"].adc_full.size)
    broken = dataclasses.replace(calibration.banks["dense1"], **{field: value})
    banks = {**calibration.banks, "dense1": broken}
    with pytest.raises(ProgramError, match=f"the calibration of bank 'dense1'.*{message}"):
        check_calibration(dataclasses.replace(calibration, banks=banks), program)


def test_a_calibration_of_another_program_is_refused(tmp_path):
    other = calibration_of(small())
    with pytest.raises(ProgramError, match="the program has none"):
        other.save(pcmc.compile(builders.conv([5, 4, 3, 2], [6, 5])), tmp_path / "a.pcmc")
    for changes in ({"what": ("all",)}, {"samples": 0}):
        with pytest.raises(ProgramError, match="of an unknown kind, or of no samples"):
            check_calibration(calibration_of(small(), **changes), small())
    assert not list(tmp_path.iterdir())


def altered(path, change, member=None):
    """The file with its program.json changed, or a member, whose hash is made to fit."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["program.json"])
    if member is None:
        change(document["calibration"])
    else:
        members[member] = change(members[member])
        document["members"][member] = hashlib.sha256(members[member]).hexdigest()
    members["program.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=array.dtype == object)
    return buffer.getvalue()


CHANGES = [
    lambda d: d.clear(),
    lambda d: d.pop("banks"),
    lambda d: d.update(banks=[1]),
    lambda d: d.update(banks={"dense0": None}),
    lambda d: d.update(banks={"nowhere": d["banks"]["dense0"]}),
    lambda d: d.update(what="adc"),
    lambda d: d.update(what=["x" * 100_000]),
    lambda d: d.update(samples=-1),
    lambda d: d.update(samples="many"),
    lambda d: d.update(samples=None),
    lambda d: d.update(seed=[]),
    lambda d: d["banks"]["dense0"].pop("gain"),
    lambda d: d["banks"]["dense0"].update(gain=None),
    lambda d: d["banks"]["dense0"].update(gain="../../etc/passwd"),
    lambda d: d["banks"]["dense0"].update(gain="program.json"),
    lambda d: d["banks"]["dense0"].update(adc_full="banks/0/table.npy"),
    lambda d: d["banks"]["dense0"].update(adc_full=3),
    lambda d: d["banks"]["dense0"].update(input_full="wide"),
    lambda d: d["banks"]["dense0"].update(input_full=float("nan")),
    lambda d: d["banks"]["dense0"].update(input_full=-1),
    lambda d: d["banks"]["dense0"].update(input_full=[1]),
]
MEMBERS = [
    b"",
    b"\x93NUMPY",
    npy(np.zeros(0, np.float32)),
    npy(np.ones(4, np.float64)),
    npy(np.full(4, np.nan, np.float32)),
    npy(np.ones((4, 1), np.float32)),
    npy(np.array([None] * 4)),
]


def refusal(path):
    """The message with which a program file is refused: one line."""
    with pytest.raises(ProgramError) as caught:
        program_file.load_calibration(path)
    message = str(caught.value)
    assert message.startswith((path.name, "net"))
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("change", range(len(CHANGES)))
def test_altered_documents_are_refused_in_one_line(tmp_path, change):
    program = small()
    calibration_of(program).save(program, tmp_path / "a.pcmc")
    altered(tmp_path / "a.pcmc", CHANGES[change])
    refusal(tmp_path / "a.pcmc")
    pcmc.load(tmp_path / "a.pcmc")  # the program itself is whole


@pytest.mark.parametrize("content", range(len(MEMBERS)))
@pytest.mark.parametrize("key", ["adc_full", "gain", "shift"])
def test_altered_members_are_refused_in_one_line(tmp_path, content, key):
    program = small()
    calibration_of(program).save(program, tmp_path / "a.pcmc")
    altered(tmp_path / "a.pcmc", lambda _: MEMBERS[content], f"calibration/0/{key}.npy")
    refusal(tmp_path / "a.pcmc")


@settings(max_examples=30)
@given(st.data())
def test_an_altered_byte_of_a_calibration_is_refused_or_is_another_number(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a.pcmc"
    program = small()
    calibration_of(program).save(program, path)
    with zipfile.ZipFile(path) as archive:
        name = data.draw(st.sampled_from([n for n in archive.namelist() if n.startswith("calibration/")]))
        content = archive.read(name)
    at = data.draw(st.integers(0, len(content) - 1))
    byte = content[at] ^ data.draw(st.integers(1, 255))
    altered(path, lambda old: old[:at] + bytes([byte]) + old[at + 1 :], name)
    with contextlib.suppress(ProgramError):
        check_calibration(program_file.load_calibration(path), program)  # another number that may be
