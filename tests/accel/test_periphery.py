"""Reads through drivers and converters, against formulas written out in double precision, one by one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcmc.accel import periphery, tile
from pcmc.accel.periphery import PHASES, Drivers, Part
from pcmc.accel.random import gaussian_key
from pcmc.accel.tile import Columns, Converters, Noise, Window

WINDOW = Window((2, 3), (1, 2), pads=(1, 0, 0, 2))


def bank_of(rows, cols, *, tile_rows=7, tile_cols=4, bias=True, seed=0):
    """Partial sums over several row blocks; the last has a bias row."""
    table, offset = [], 0
    for row0 in range(0, rows, tile_rows):
        for col0 in range(0, cols, tile_cols):
            last = int(bias and row0 + tile_rows >= rows)
            height, width = min(tile_rows, rows - row0) + last, min(tile_cols, cols - col0)
            table.append((row0, col0, height, width, last, offset))
            offset += height * width
    cells = np.random.default_rng(seed).standard_normal(offset, np.float32)
    return tile.make_bank(cells, np.array(table, np.int64), rows, cols)


def adc_of(bank, levels=31, seed=0):
    """ADCs that differ, with offsets."""
    rng, n = np.random.default_rng(seed + 50), bank.conversions
    full = rng.uniform(2, 5, n).astype(np.float32)
    offset, shift = (rng.uniform(-span, span, n).astype(np.float32) for span in (2, 0.1))
    columns = Columns(levels / full, offset, full / levels * np.float32(1.1), shift)
    return Converters(adc_levels=levels, adc_full=5.0, columns=columns)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def patches_of(x, window):
    """[images, positions, rows] of images, [vectors, 1, rows] of vectors; double precision."""
    x = x.astype(float)
    if window is None:
        return x[:, None, :]
    (kh, kw), (sy, sx), pads = window.kernel, window.strides, window.pads
    padded = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    height, width = window.output_size(*x.shape[2:])
    at = [(oy * sy, ox * sx) for oy in range(height) for ox in range(width)]
    return np.stack([padded[:, :, y : y + kh, w : w + kw].reshape(len(x), -1) for y, w in at], axis=1)


def phases_of(code, drivers, sample):
    """The conversions that one code takes part in: [(weight, [(weight in the sum, input from -1 to 1)])]."""
    levels = drivers.levels
    found = []
    for sign in (None,) if drivers.signed else (1, -1):
        here = code if sign is None else max(sign * code, 0)
        outer = sign or 1
        if drivers.kind != "bits" or not levels:
            found.append((outer, [(1.0, here / (levels or 1))]))
            continue
        base, digits, rest = 2**drivers.slice_bits, [], abs(int(here))
        for k in range(-(-levels.bit_length() // drivers.slice_bits)):
            rest, digit = divmod(rest, base)
            digits.append((base**k * (base - 1) / levels, np.sign(here) * digit / (base - 1)))
        if sample == "sum":
            found.append((outer, digits))
        else:
            found += [(outer * weight, [(1.0, u)]) for weight, u in digits]
    return found


def current(u, drivers):
    one_height = drivers.kind == "pulse" or (drivers.kind == "bits" and drivers.slice_bits == 1)
    cubic = 0.0 if (one_height and drivers.levels) or drivers.kind == "pulse" else drivers.cubic
    return u * (1 + cubic * u * u) * (1 - drivers.polarity_loss if u < 0 else 1)


def convert(sums, converters):
    """What ADCs make of sums for a range of 1, and which of them clipped."""
    if not converters.adc_levels:
        return sums, np.zeros(len(sums), bool)
    c, levels = converters.columns, converters.adc_levels
    codes = sums * c.gain.astype(float) + c.offset
    return np.clip(np.rint(codes), -levels, levels) * c.step.astype(float) + c.shift, abs(
        codes
    ) > levels + 0.5


def written_out(x, parts, drivers, bias_drive, sample, window):
    """Every item, position, phase, part and block by itself: the results, and clipped conversions by item."""
    inputs = patches_of(x, window)
    y = np.zeros((*inputs.shape[:2], max(part.bank.cols for part in parts)))
    clipped = np.zeros(len(x), np.int64)
    for item, image in enumerate(inputs):
        scale = drivers.full or max(np.abs(x[item]).max(), abs(bias_drive))
        levels = drivers.levels

        def code(value, scale=scale, levels=levels):
            return np.clip(np.rint(value / scale * levels), -levels, levels) if levels else value / scale

        drive = phases_of(code(bias_drive), drivers, sample)
        pixels = [phases_of(code(value), drivers, sample) for value in x[item].ravel()]
        for phase, (weight, bias_sum) in enumerate(drive):
            sent = any(u for _, u in bias_sum) or any(u for p in pixels for _, u in p[phase][1])
            if not sent and len(drive) > 1:
                continue
            b = sum(w * current(u, drivers) for w, u in bias_sum)
            for position, patch in enumerate(image):
                values = [phases_of(code(value), drivers, sample)[phase][1] for value in patch]
                u = np.array([sum(w * current(v, drivers) for w, v in value) for value in values])
                for part in parts:
                    sums = products(part.bank, u, b)
                    digital, over = convert(sums, part.converters)
                    clipped[item] += over.sum()
                    y[item, position] += scale * weight * part.factor * in_columns(part.bank, digital)
    if window is None:
        return y[:, 0], clipped
    return np.moveaxis(y, 2, 1).reshape(len(x), -1, *window.output_size(*x.shape[2:])), clipped


def products(bank, u, b):
    """The sum of each conversion."""
    sums = []
    for row0, _, rows, cols, bias, offset in bank.blocks.tolist():
        w = bank.cells[offset : offset + rows * cols].reshape(rows, cols).astype(float)
        sums.append(np.append(u[row0 : row0 + rows - bias], [b] * bias) @ w)
    return np.concatenate(sums)


def in_columns(bank, values):
    y, start = np.zeros(bank.cols), 0
    for _, col0, _, cols, *_ in bank.blocks.tolist():
        y[col0 : col0 + cols] += values[start : start + cols]
        start += cols
    return y


DRIVERS = {
    "voltage": Drivers(15),
    "exact voltage": Drivers(0, cubic=0.2),
    "voltage, fixed": Drivers(15, full=1.5),
    "voltage, two phases": Drivers(15, signed=False),
    "exact voltage, two phases": Drivers(0, signed=False),
    "voltage, two phases, fixed": Drivers(15, signed=False, full=1.5, cubic=0.1),
    "voltage, bent": Drivers(15, cubic=0.3, polarity_loss=0.2),
    "pulse, bent": Drivers(15, "pulse", cubic=0.3, polarity_loss=0.2),
    "pulse, two phases": Drivers(15, "pulse", signed=False, cubic=0.3, polarity_loss=0.2),
    "exact pulse, bent": Drivers(0, "pulse", polarity_loss=0.2),
    "bits": Drivers(15, "bits"),
    "bits, fixed": Drivers(15, "bits", full=1.5),
    "bits, bent": Drivers(15, "bits", cubic=0.3, polarity_loss=0.2),
    "bits by two, bent": Drivers(15, "bits", 2, cubic=0.3, polarity_loss=0.2),
    "bits by three, two phases": Drivers(15, "bits", 3, signed=False, cubic=0.3),
    "all bits at once": Drivers(15, "bits", 4, cubic=0.3),
    "no bits without a DAC": Drivers(0, "bits", 2, cubic=0.3),
}


@pytest.mark.parametrize("window", [None, WINDOW], ids=["dense", "conv"])
@pytest.mark.parametrize("sample", ["slice", "sum"])
@pytest.mark.parametrize("name", DRIVERS)
def test_a_read_is_what_the_formulas_say(name, sample, window):
    drivers = DRIVERS[name]
    x = normal(4, 18) if window is None else normal(4, 3, 5, 6)
    x[1], x[3] = np.abs(x[1]), 0  # an item of one sign, and one of nothing but the bias drive
    plus, minus, reference = bank_of(18, 6), bank_of(18, 6, seed=2), bank_of(18, 1, seed=3, tile_rows=30)
    parts = [Part(0.5, plus, adc_of(plus)), Part(-1, minus, adc_of(minus, seed=2)),
             Part(0.25, reference, adc_of(reference, seed=3))]  # fmt: skip
    counts = np.full(4, 1000, np.int64)
    y = periphery.read(x, parts, drivers, bias_drive=-0.8, sample=sample, window=window, saturated=counts)
    expected, clipped = written_out(x, parts, drivers, -0.8, sample, window)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(counts, 1000 + clipped)
    assert clipped.any()


@pytest.mark.parametrize("window", [None, WINDOW], ids=["dense", "conv"])
@pytest.mark.parametrize("name", DRIVERS)
def test_without_adcs_no_rounding_hides_a_wrong_formula(name, window):
    drivers, bank = DRIVERS[name], bank_of(18, 6)
    x = normal(3, 18) if window is None else normal(3, 3, 5, 6)
    parts = [Part(1.0, bank, tile.OFF)]
    y = periphery.read(x, parts, drivers, bias_drive=0.7, window=window)
    expected, _ = written_out(x, parts, drivers, 0.7, "slice", window)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("full", [None, 1.3])
@pytest.mark.parametrize("window", [None, WINDOW], ids=["dense", "conv"])
def test_the_plain_case_has_the_bits_of_tile_read(window, full):
    bank = bank_of(18, 6)
    x = normal(3, 18) if window is None else normal(3, 3, 5, 6)
    noise = Noise(bank.with_variances(np.full(bank.cells.size, 0.01, np.float32)), (5, 6))
    shape = periphery.read(x, [Part(1.0, bank, tile.OFF)], Drivers(), window=window).shape
    more = {"offset": normal(6), "addend": normal(*shape), "relu": True, "window": window, "bias_drive": 0.3}
    counts, direct_counts = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for given_levels in (0, 15):  # of the part's DAC: that of the drivers, or not said
        converters = replace(adc_of(bank), dac_levels=given_levels)
        y = periphery.read(
            x, [Part(1.0, bank, converters, noise)], Drivers(15, full=full), step=9, saturated=counts, **more
        )
        direct = tile.read(
            x, bank, converters=replace(converters, dac_levels=15), noise=replace(noise, step=9), scale=full,
            saturated=direct_counts, **more
        )  # fmt: skip
        np.testing.assert_array_equal(y, direct)
        np.testing.assert_array_equal(counts, direct_counts)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_with_ideal_adcs_all_drivers_give_the_same(data):
    """Digits, widths and phases are ways to send one number: they differ by float32 rounding only."""
    bits = data.draw(st.integers(2, 16))
    drivers = Drivers(
        data.draw(st.sampled_from([2 ** (bits - 1) - 1, 0])),
        data.draw(st.sampled_from(periphery.KINDS)),
        data.draw(st.integers(1, 16)),
        data.draw(st.booleans()),
        data.draw(st.sampled_from([None, 0.7])),
        polarity_loss=0.0,
    )
    rows, seed = data.draw(st.integers(1, 30)), data.draw(st.integers(0, 1000))
    window = data.draw(st.sampled_from([None, Window((1, 1))]))
    x = normal(3, rows, seed=seed) * np.float32(data.draw(st.sampled_from([1e-15, 1.0, 1e15])))
    bank = bank_of(rows, 5, bias=data.draw(st.booleans()), seed=seed)
    how = {"bias_drive": data.draw(st.floats(-3, 3, width=32)), "window": window}
    x = x if window is None else x.reshape(3, rows, 1, 1)
    sample = data.draw(st.sampled_from(periphery.SAMPLES))
    # Noise without variance takes the ways that noise takes.
    noise = Noise(bank.with_variances(np.zeros_like(bank.cells)), (1, 2))
    y = periphery.read(x, [Part(1.0, bank, tile.OFF, noise)], drivers, sample=sample, **how)
    voltage = Drivers(drivers.levels, full=drivers.full)
    expected = periphery.read(x, [Part(1.0, bank, tile.OFF)], voltage, **how)
    sizes = bank.with_cells(np.abs(bank.cells))
    bound = tile.read(np.abs(x), sizes, bias_drive=abs(how["bias_drive"]), window=window)
    largest = max(np.abs(x).max(), abs(how["bias_drive"]), drivers.full or 0) * np.abs(bank.cells).max()
    assert (np.abs(y - expected) <= 3e-6 * (bound + largest)).all()


def test_each_digit_has_the_error_of_its_own_conversion():
    """c = 3 of 7 by single bits: 1, 2 are sent. ADC lsb = 1 for a range of 1: 0.6 becomes 1, 3 times."""
    bank = tile.make_bank(np.array([0.6], np.float32), np.array([[0, 0, 1, 1, 0, 0]]), 1, 1)
    x, adc = np.array([[3.0], [7.0]], np.float32), Converters(adc_levels=4, adc_full=4.0)
    part = [Part(1.0, bank, adc)]
    bits = periphery.read(x, part, Drivers(7, "bits", full=7.0))
    np.testing.assert_allclose(bits, [[3.0], [7.0]], rtol=1e-6)  # exact: 1.8, 4.2
    summed = periphery.read(x, part, Drivers(7, "bits", full=7.0), sample="sum")
    np.testing.assert_allclose(summed, [[0.0], [7.0]], rtol=1e-6)  # 0.257 of 1 becomes 0; 0.6 becomes 1
    # By two bits: digit 3 of 3 alone, weight 3/7: 0.6 becomes 1. Of 7, digits 3 and 1 (of 3: 0.2 becomes 0).
    pairs = periphery.read(x, part, Drivers(7, "bits", 2, full=7.0))
    np.testing.assert_allclose(pairs, [[3.0], [3.0]], rtol=1e-6)


def test_a_phase_without_inputs_is_not_sent_and_has_no_error():
    """Each conversion adds the offset of its ADC, so results count conversions."""
    bank = tile.make_bank(np.zeros(2, np.float32), np.array([[0, 0, 2, 1, 0, 0]]), 2, 1)
    one = np.ones(1, np.float32)
    adc = Converters(adc_levels=7, columns=Columns(one, 0 * one, 0 * one, one))
    x = np.array([[7, 3], [-7, 3], [-7, -1], [0, 0], [7, 0]], np.float32)

    def sent(drivers, sample="slice"):
        y = periphery.read(x, [Part(1.0, bank, adc)], drivers, sample=sample)
        return (y[:, 0] / np.where(x.any(axis=1), 7, 1)).round(4).tolist()

    assert sent(Drivers(7)) == [1, 1, 1, 0, 1]
    assert sent(Drivers(7, signed=False)) == [1, 0, -1, 0, 1]  # two phases whose offsets cancel
    assert sent(Drivers(7, "bits")) == [1, 1, 1, 0, 1]  # (1 + 2 + 4) / 7
    whole = tile.make_bank(np.zeros(1, np.float32), np.array([[0, 0, 1, 1, 0, 0]]), 1, 1)
    four = periphery.read(np.full((1, 1), 4, np.float32), [Part(1.0, whole, adc)], Drivers(7, "bits", full=7))
    np.testing.assert_allclose(four, 4)  # only the digit of 4 is sent


@pytest.mark.parametrize("kind", ["voltage", "pulse", "bits"])
def test_unsigned_inputs_cost_no_second_phase_where_none_is_negative(kind):
    bank, x = bank_of(18, 6), np.abs(normal(5, 18))
    part = [Part(1.0, bank, adc_of(bank))]
    signed = periphery.read(x, part, Drivers(15, kind, cubic=0.1))
    unsigned = periphery.read(x, part, Drivers(15, kind, signed=False, cubic=0.1))
    np.testing.assert_allclose(unsigned, signed, rtol=1e-6)


def test_the_bias_row_is_driven_in_the_phase_of_its_sign():
    bank = tile.make_bank(np.array([1, 10], np.float32), np.array([[0, 0, 2, 1, 1, 0]]), 1, 1)
    adc = Converters(adc_levels=80, adc_full=8.0)  # clips what is beyond 8: 10 and 11
    x = np.array([[-1.0], [1.0]], np.float32)
    for drive in (1.0, -1.0):
        y = periphery.read(x, [Part(1.0, bank, adc)], Drivers(127, signed=False), bias_drive=drive)
        expected = [8 - 1, 8] if drive > 0 else [-8, 1 - 8]
        np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["voltage", "pulse", "bits"])
@pytest.mark.parametrize("window", [None, Window((2, 3))], ids=["dense", "conv"])
def test_the_result_of_an_item_does_not_depend_on_the_batch(kind, window):
    """Bits, noise, saturation: read at its place in the stream, an item alone gives the same bits."""
    bank = bank_of(18, 6)
    x = normal(5, 18) if window is None else normal(5, 3, 4, 5)
    x[2], x[3] = np.abs(x[2]), 0
    noise = Noise(bank.with_variances(np.full(bank.cells.size, 1e-2, np.float32)), (5, 6))
    for sample in periphery.SAMPLES:
        how = {"sample": sample, "window": window, "step": 3, "bias_drive": -0.6}
        drivers, counts = Drivers(15, kind, 2, signed=False), np.zeros(5, np.int64)
        y = periphery.read(x, [Part(1.0, bank, adc_of(bank), noise)], drivers, saturated=counts, **how)
        for item in range(5):
            part, own = Part(1.0, bank, adc_of(bank), replace(noise, first=item)), np.zeros(1, np.int64)
            alone = periphery.read(x[item : item + 1], [part], drivers, saturated=own, **how)
            np.testing.assert_array_equal(alone[0], y[item])
            assert own[0] == counts[item]


def test_each_phase_has_noise_of_its_own_step():
    bank, x = bank_of(18, 6, bias=False), np.array([[7, -3, 1] * 6], np.float32)
    noise = Noise(bank.with_variances(np.full(bank.cells.size, 1e-2, np.float32)), (5, 6),
                  floor=np.full(bank.conversions, 1e-3, np.float32))  # fmt: skip
    part = [Part(1.0, bank, tile.OFF, noise)]
    y = periphery.read(x, part, Drivers(7, "bits", signed=False, full=7.0), step=4)
    expected, place = np.zeros((1, 6)), 0
    for sign in (1, -1):
        for digit in range(3):
            u = (np.maximum(sign * x, 0).astype(int) >> digit & 1).astype(np.float32)
            if u.any():
                step = 4 * PHASES + place
                expected += sign * 2**digit * tile.read(u, bank, noise=replace(noise, step=step), scale=1.0)
            place += 1
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_noise_of_pulses_goes_with_their_width():
    """sum = 0: what is left is one normal number times the deviation, which a known read tells."""
    n = 6
    bank = tile.make_bank(np.zeros(n, np.float32), np.array([[0, 0, n, 1, 0, 0]]), n, 1)
    variances = np.arange(1, n + 1, dtype=np.float32)
    noise = Noise(bank.with_variances(variances), (5, 6))  # its power is that of the drivers
    x = normal(3, n) * np.float32(40)
    x[:, 0] = 127.0
    number = tile.read(np.ones((3, n), np.float32), bank, noise=noise) / np.sqrt(variances.sum())
    pulses = periphery.read(x, [Part(1.0, bank, tile.OFF, noise)], Drivers(127, "pulse"))
    width = np.abs(np.rint(x)) / 127
    np.testing.assert_allclose(pulses, number * 127 * np.sqrt(width @ variances)[:, None], rtol=1e-5)
    volts = periphery.read(x, [Part(1.0, bank, tile.OFF, noise)], Drivers(127))
    np.testing.assert_allclose(volts, number * 127 * np.sqrt(width**2 @ variances)[:, None], rtol=1e-5)


def test_parts_are_added_with_their_factors_and_one_column_to_all():
    bank, one, x = bank_of(18, 6), bank_of(18, 1, seed=3), normal(4, 18)
    y = periphery.read(x, [Part(3.0, bank, tile.OFF), Part(-2.0, one, tile.OFF)], Drivers(), relu=True)
    expected = 3 * tile.read(x, bank) - 2 * tile.read(x, one)
    np.testing.assert_allclose(y, np.maximum(expected, 0), rtol=1e-5, atol=1e-5)
    z = periphery.read(
        x, [Part(3.0, bank, tile.OFF)], Drivers(), offset=normal(6), addend=normal(4, 6, seed=3)
    )
    np.testing.assert_allclose(z, 3 * tile.read(x, bank) + normal(6) + normal(4, 6, seed=3), rtol=1e-5)


def test_all_parts_have_the_range_that_the_rows_have():
    """A part without a bias row is driven by the same converters as its neighbour that has one."""
    biased, x = bank_of(4, 2), normal(3, 4) * np.float32(0.1)
    plain = bank_of(4, 2, bias=False)
    parts = [Part(0.0, biased, tile.OFF), Part(1.0, plain, tile.OFF)]
    y = periphery.read(x, parts, Drivers(7), bias_drive=1.0)
    np.testing.assert_array_equal(y, tile.read(x, plain, converters=Converters(7), scale=1.0))


EXTREMES = [0.0, 1e-45, 1e-40, 1e-38, 1.0, 1e38, 3.4e38, np.inf, -np.inf, np.nan]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_input_makes_a_nan(data):
    """With an ADC, whatever the drivers, the noise and the bias drive; and none comes into other vectors."""
    drivers = replace(
        DRIVERS[data.draw(st.sampled_from(sorted(DRIVERS)))],
        full=data.draw(st.sampled_from([None, 1e-6, 1e6])),
    )
    window = data.draw(st.sampled_from([None, Window((2, 3))]))
    bank = bank_of(18, 6)
    adc = data.draw(st.sampled_from([adc_of(bank), Converters(adc_levels=7, adc_full=3.0), tile.OFF]))
    values = [
        v * data.draw(st.sampled_from([1, -1]))
        for v in data.draw(st.lists(st.sampled_from(EXTREMES), min_size=1))
    ]
    shape = (3, 18) if window is None else (3, 3, 4, 5)
    x = np.resize(np.array(values, np.float32), shape)
    x[1] = 1.0
    noise = Noise(bank.with_variances(np.full(bank.cells.size, 1e-2, np.float32)), (5, 6),
                  floor=np.full(bank.conversions, 1e-3, np.float32))  # fmt: skip
    bias_drive, sample = (
        data.draw(st.sampled_from([0.0, -0.5, 1e-42, 1e38])),
        data.draw(st.sampled_from(periphery.SAMPLES)),
    )
    y = periphery.read(
        x, [Part(1.0, bank, adc, noise)], drivers, bias_drive=bias_drive, sample=sample, window=window,
        saturated=np.zeros(3, np.int64),
    )  # fmt: skip
    if bias_drive < 1e30:
        assert np.isfinite(y[1]).all()
    if adc.adc_levels:
        assert not np.isnan(y).any()
    if adc.adc_levels and not drivers.signed:  # else this is one tile read, and its blocks may add up to inf
        assert np.isfinite(y).all()


@pytest.mark.parametrize("shape", [(0, 18), (0, 3, 4, 5)])
@pytest.mark.parametrize("name", DRIVERS)
def test_no_items_give_no_results(name, shape):
    window = None if len(shape) == 2 else Window((2, 3))
    bank = bank_of(18, 6)
    noise = Noise(bank.with_variances(np.zeros_like(bank.cells)), (5, 6))
    y = periphery.read(
        np.zeros(shape, np.float32), [Part(2.0, bank, adc_of(bank), noise)], DRIVERS[name], window=window
    )
    assert y.shape == ((0, 6) if window is None else (0, 6, 3, 3))


def test_a_bank_without_blocks_gives_zeros():
    bank = tile.make_bank(np.zeros(0, np.float32), np.zeros((0, 6), np.int64), 18, 6)
    noise = Noise(bank.with_variances(bank.cells), (5, 6))
    for drivers in DRIVERS.values():
        for sample in periphery.SAMPLES:
            y = periphery.read(normal(3, 18), [Part(2.0, bank, tile.OFF, noise)], drivers, sample=sample)
            np.testing.assert_array_equal(y, np.zeros((3, 6)))


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    monkeypatch.setattr(tile, "WORTH_A_THREAD", 1)
    bank, x = bank_of(18, 6), normal(9, 3, 5, 6)
    noise = Noise(bank.with_variances(np.full(bank.cells.size, 1e-2, np.float32)), (5, 6))
    part = [Part(2.0, bank, adc_of(bank), noise)]
    for drivers in DRIVERS.values():
        for sample in periphery.SAMPLES:
            counts = np.zeros((2, 9), np.int64)
            one, two = (
                periphery.read(
                    x,
                    part,
                    drivers,
                    sample=sample,
                    window=WINDOW,
                    threads=threads,
                    saturated=counts[threads - 1],
                )
                for threads in (1, 2)
            )
            np.testing.assert_array_equal(one, two)
            np.testing.assert_array_equal(*counts)


def test_reads_change_no_argument():
    bank, x = bank_of(18, 6), normal(3, 18)
    before = x.copy()
    for drivers in DRIVERS.values():
        periphery.read(
            x, [Part(2.0, bank, adc_of(bank))], drivers, relu=True, addend=np.zeros((3, 6), np.float32)
        )
        np.testing.assert_array_equal(x, before)


def test_phases_are_counted():
    assert Drivers(127).phases() == 1
    assert Drivers(127, signed=False).phases() == 2
    assert Drivers(127, "bits").phases() == 7
    assert Drivers(127, "bits", 3, signed=False).phases() == 6
    assert Drivers(127, "bits", 3, signed=False).phases("sum") == 2
    assert Drivers(0, "bits").phases() == 1
    np.testing.assert_allclose(Drivers(127, "bits", 3).weights, [7 / 127, 56 / 127, 448 / 127])


def test_arguments_that_do_not_fit_are_refused():
    bank, x = bank_of(18, 6), normal(3, 18)
    part = Part(1.0, bank, tile.OFF)
    two = Drivers(15, signed=False)
    for wrong, says in (
        ({"kind": "bit"}, "kind of drivers is 'bit'"), ({"levels": -1}, "levels of drivers are -1"),
        ({"slice_bits": 0}, "slice_bits"), ({"kind": "bits", "levels": 12}, r"2\^n - 1"),
        ({"full": 0.0}, "full of drivers"), ({"full": np.inf}, "full of drivers"),
        ({"cubic": np.nan}, "cubic"), ({"polarity_loss": np.inf}, "polarity_loss"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=says):
            Drivers(**wrong)
    with pytest.raises(ValueError, match="sample is 'both'"):
        periphery.read(x, [part], two, sample="both")
    with pytest.raises(ValueError, match="one part at least"):
        periphery.read(x, [], two)
    with pytest.raises(ValueError, match="7 levels of the DAC, but the drivers 15"):
        periphery.read(x, [replace(part, converters=Converters(7))], two)
    noisy = replace(
        part, noise=Noise(None, gaussian_key(1, (), "noise"), floor=np.zeros(bank.conversions, np.float32))
    )
    with pytest.raises(ValueError, match="the same key"):
        periphery.read(x, [noisy, noisy], two)
    with pytest.raises(ValueError, match="17 x 1 and 6 columns do not fit a bank of 18 x 6"):
        periphery.read(x[:, :17], [part], two)
    with pytest.raises(ValueError, match="do not fit a bank of 18 x 4"):
        periphery.read(x, [part, Part(1.0, bank_of(18, 4), tile.OFF)], two)
    with pytest.raises(ValueError, match="float64"):
        periphery.read(x.astype(float), [part], two)
    with pytest.raises(ValueError, match="an offset has the shape"):
        periphery.read(x, [part], two, offset=normal(5))
    with pytest.raises(ValueError, match="an addend is float32"):
        periphery.read(x, [part], two, addend=normal(3, 5))
    with pytest.raises(ValueError, match="saturated is int64"):
        periphery.read(x, [replace(part, converters=adc_of(bank))], two, saturated=np.zeros(2, np.int64))
