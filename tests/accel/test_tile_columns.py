"""ADCs that differ by column, given ranges, read-out noise and counts of clipped conversions."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from instruction_sets import SETS, check_again
from scipy import stats

from pcmc.accel import reference, tile
from pcmc.accel.random import gaussian_key
from pcmc.accel.tile import Columns, Converters, Noise, Window

compiled = pytest.importorskip("pcmc.accel._kernels", reason="no compiled kernels to compare with")

KEY = gaussian_key(0, (7,), "readout_noise")
# Powers of two and whole numbers all the way: whatever the order of sums, every step is exact.
RANGE, DAC, ADC = 1024.0, 8, 127
SQUARE = (1, 1, 1, 1)
# (vectors, inputs, outputs): none, one, odd, the edge of a tile, one column, one row, rows wide and more so.
DENSE = [
    (0, 5, 7),
    (1, 1, 1),
    (1, 513, 100),
    (3, 512, 99),
    (33, 129, 257),
    (50, 40, 1),
    (9, 1, 40),
    (40, 33, 1030),
    (1, 70, 1030),
    (70, 300, 1030),
]
# (images, channels, columns, height, width, window, groups)
CONVOLUTIONS = [
    (0, 2, 3, 5, 5, Window((3, 3)), 1),
    (1, 1, 1, 1, 1, Window((1, 1)), 1),
    (3, 5, 17, 9, 13, Window((3, 3), pads=SQUARE), 1),
    (2, 3, 9, 12, 7, Window((2, 4), (3, 2), pads=(0, 3, 2, 1)), 1),
    (2, 40, 40, 6, 5, Window((3, 3), (1, 2), pads=SQUARE), 40),
    (1, 24, 24, 21, 19, Window((3, 3), (2, 2), pads=SQUARE), 24),
    (2, 6, 8, 7, 9, Window((3, 3), pads=SQUARE), 2),
]  # fmt: skip
CASES = [("dense_read", case) for case in DENSE] + [("conv_read", case) for case in CONVOLUTIONS]


def seeded(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def blocks_of(rows, cols, groups=1):
    """A table of blocks with partial sums and bias rows, and how many cells it has."""
    tile_rows, tile_cols = 60, 1030 if cols == 1030 else 37
    height, width, table, offset = rows // groups, cols // groups, [], 0
    for group in range(groups):
        for row0 in range(0, height, tile_rows):
            for col0 in range(0, width, tile_cols):
                h = min(tile_rows, height - row0) + (row0 == 0)
                w = min(tile_cols, width - col0)
                table.append((group * height + row0, group * width + col0, h, w, int(row0 == 0), offset))
                offset += h * w
    return np.array(table, np.int64), offset


def case_of(name, case):
    """(x, bank, window) of whole numbers: inputs are multiples of the DAC's step, the largest is RANGE."""
    rng = seeded(name, case)
    if name == "dense_read":
        shape, cols, window, groups = case[:2], case[2], None, 1
        rows = case[1]
    else:
        (*shape, window), cols, groups = (case[0], case[1], case[3], case[4], case[5]), case[2], case[6]
        rows = case[1] * window.kernel[0] * window.kernel[1]
    table, size = blocks_of(rows, cols, groups)
    bank = tile.make_bank(rng.integers(-3, 4, size).astype(np.float32), table, rows, cols)
    x = (rng.integers(-3, 4, shape) * 128).astype(np.float32)
    if x.size:
        x.reshape(len(x), -1)[:, 0] = RANGE
    return x, bank, window


def columns_for(bank, seed):
    """Columns of which some clip, some don't."""
    rng, n = seeded("columns", seed), bank.conversions
    return Columns(
        gain=(2.0 ** rng.integers(2, 6, n)).astype(np.float32),
        offset=(rng.integers(-20, 20, n) / 4).astype(np.float32),
        step=rng.integers(1, 4, n).astype(np.float32),
        shift=rng.integers(-3, 4, n).astype(np.float32),
    )


def noise_for(bank, seed, *, devices, floor):
    rng = seeded("noise", seed)
    cells = rng.integers(0, 2, bank.cells.size).astype(np.float32)
    return Noise(
        bank.with_variances(cells) if devices else None,
        KEY,
        step=int(floor),  # odd steps are read the other way round
        first=3,
        floor=rng.integers(0, 3, bank.conversions).astype(np.float32) if floor else None,
    )


def by(kernels, monkeypatch, x, bank, **options):
    """(result, counts of clipped conversions) of compiled kernels or twins."""
    monkeypatch.setattr(tile, "kernels", lambda: kernels)
    saturated = np.full(len(x), 100, np.int64)
    y = tile.read(x, bank, bias_drive=256.0, saturated=saturated, **options)
    return y, saturated - 100


def test_every_forward_read_has_cases():
    forward = {name for name, *_ in reference.pairs() if name.endswith("_read")}
    assert forward == {name for name, _ in CASES}


@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize("devices", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("scale", [None, 512.0, "each"])
@pytest.mark.parametrize(("name", "case"), CASES)
def test_kernels_agree_with_their_twins_exactly(monkeypatch, name, case, scale, columns, devices, floor):
    monkeypatch.setattr(tile, "WORTH_A_THREAD", 1)
    x, bank, window = case_of(name, case)
    converters = Converters(DAC, ADC, 127 / 64, columns_for(bank, case) if columns else None)
    if scale == "each":
        scale = np.array([1024.0, 256.0, 0.0], np.float32)[np.arange(len(x)) % 3]
    noise = noise_for(bank, case, devices=devices, floor=floor) if devices or floor else None
    options = {"converters": converters, "window": window, "scale": scale, "noise": noise}
    expected, clipped = by(reference, monkeypatch, x, bank, **options)
    for threads in (1, 2, 3):
        got, counted = by(compiled, monkeypatch, x, bank, threads=threads, **options)
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(counted, clipped)
    if expected.size > 1000:
        conversions = sum(clipped) / (bank.conversions * expected[:, 0].size)
        assert 0 < conversions < 0.9, "a case that tests nothing"
        assert np.unique(expected).size > 10


@pytest.mark.parametrize("converters", [Converters(), Converters(dac_levels=DAC)])
@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_floor_without_an_adc_agrees_with_the_twin_exactly(monkeypatch, name, case, converters):
    x, bank, window = case_of(name, case)
    noise = noise_for(bank, case, devices=True, floor=True)
    options = {"converters": converters, "window": window, "noise": noise}
    expected, clipped = by(reference, monkeypatch, x, bank, **options)
    got, counted = by(compiled, monkeypatch, x, bank, **options)
    np.testing.assert_array_equal(got, expected)
    assert not clipped.any()
    assert not counted.any()


@pytest.mark.parametrize(("name", "case"), CASES)
def test_floats_agree_with_the_twin_but_for_a_code_at_a_tie(monkeypatch, name, case):
    x, bank, window = case_of(name, case)
    rng = seeded("floats", name, case)
    x = rng.standard_normal(x.shape, np.float32)
    bank = bank.with_cells(rng.standard_normal(bank.cells.size, np.float32))
    n = bank.conversions
    gain, offset = rng.uniform(8, 12, n).astype(np.float32), rng.normal(0, 3, n).astype(np.float32)
    columns = Columns(gain, offset, 1 / gain, -offset / gain)
    options = {"converters": Converters(127, ADC, columns=columns), "window": window}
    expected, clipped = by(reference, monkeypatch, x, bank, **options)
    got, counted = by(compiled, monkeypatch, x, bank, **options)
    scale = tile.input_range(x, 256.0).reshape(-1, *[1] * (x.ndim - 1))
    error = np.abs(got - expected)
    assert (error <= 1.001 * scale / 8 + 1e-3).all()
    assert np.mean(error > 0.06 * scale) <= 0.002 if error.size else True
    assert (np.abs(counted - clipped) <= 0.001 * expected[:1].size + 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("simd", SETS)
def test_every_instruction_set_agrees_with_the_twin(simd):
    check_again(__file__, "agree", simd)


def both_kinds():
    """A dense read and a convolution of normal numbers: (x, bank, window)."""
    rng = seeded("kinds")
    for shape, rows, cols, window in (
        ((40, 130), 130, 45, None),
        ((3, 4, 9, 8), 36, 20, Window((3, 3), pads=SQUARE)),
    ):
        table, size = blocks_of(rows, cols)
        bank = tile.make_bank(rng.standard_normal(size, np.float32), table, rows, cols)
        yield rng.standard_normal(shape, np.float32), bank, window


@pytest.fixture(params=["compiled", "numpy"])
def kernels(request, monkeypatch):
    """Both, one after the other."""
    if request.param == "numpy":
        monkeypatch.setattr(tile, "kernels", lambda: reference)


@pytest.mark.usefixtures("kernels")
def test_columns_that_are_all_alike_give_what_converters_without_them_give():
    for x, bank, window in both_kinds():
        ones = np.ones(bank.conversions, np.float32)
        columns = Columns(ones * 255 / 40, ones * 0, ones * 40 / 255, ones * 0)
        counts = np.zeros((2, len(x)), np.int64)
        one = tile.read(x, bank, converters=Converters(127, 255, 40.0), window=window, saturated=counts[0])
        two = tile.read(
            x, bank, converters=Converters(127, 255, columns=columns), window=window, saturated=counts[1]
        )
        lsb = 40 * tile.input_range(x, 1.0).reshape(-1, *[1] * (x.ndim - 1)) / 255
        error = np.abs(one - two) / lsb
        assert np.mean(error > 0.5) < 0.001  # a code at a tie
        np.testing.assert_array_equal(*counts)


@pytest.mark.usefixtures("kernels")
def test_an_offset_and_a_gain_that_are_corrected_give_back_the_sum_within_half_a_step():
    """Each block by itself: every conversion errs by half of its own step at most, and they do err."""
    for x, bank, window in both_kinds():
        rng, n = seeded("mismatch"), bank.conversions
        gain = rng.uniform(0.8, 1.2, n).astype(np.float32)  # of each ADC, and its offset in codes
        offset = rng.normal(0, 20, n).astype(np.float32)
        full = 200.0
        columns = Columns(gain * 2047 / full, offset, full / 2047 / gain, -offset * full / 2047 / gain)
        counts = np.zeros(len(x), np.int64)
        exact = tile.read(x, bank, window=window, bias_drive=0.5)
        options = {"bias_drive": 0.5, "window": window, "saturated": counts}
        got = tile.read(x, bank, converters=Converters(0, 2047, columns=columns), **options)
        assert not counts.any()
        # The steps of all blocks that share a column add up.
        bound = np.zeros(bank.cols)
        at = 0
        for _, col0, _, cols, *_ in bank.blocks.tolist():
            bound[col0 : col0 + cols] += 0.5 * columns.step[at : at + cols]
            at += cols
        scale = tile.input_range(x, 0.5).reshape(-1, *[1] * (x.ndim - 1))
        error = np.abs(got - exact) / scale / bound.reshape(-1, *[1] * (x.ndim - 2))
        assert error.max() < 1.001 + 1e-3
        assert error.max() > 0.7
        raw = replace(columns, step=np.full(n, full / 2047, np.float32), shift=np.zeros(n, np.float32))
        uncorrected = tile.read(x, bank, converters=Converters(0, 2047, columns=raw), **options)
        assert np.abs(uncorrected - exact).max() > 5 * np.abs(got - exact).max()


@pytest.mark.usefixtures("kernels")
def test_each_column_has_a_range_of_its_own_and_clips_by_itself():
    """By hand: sums 1.0, 2.5 and -4 at levels 2 and ranges 2, 4, 2; then a range of 2 given from outside."""
    table = np.array([[0, 0, 1, 3, 0, 0]])
    bank = tile.make_bank(np.array([1.0, 2.5, -4.0], np.float32), table, 1, 3)
    full = np.array([2, 4, 2], np.float32)
    zero = np.zeros(3, np.float32)
    converters = Converters(0, 2, columns=Columns(2 / full, zero, full / 2, zero))
    counts = np.array([5, 0])
    x = np.array([[1.0], [-0.2]], np.float32)
    got = tile.read(x, bank, converters=converters, saturated=counts)
    # 1 of 1; 1.25 -> 1 of 2; -4 clips at -2 of 1. The second vector is the first, less 5 times and turned.
    np.testing.assert_allclose(got, [[1, 2, -2], [-0.2, -0.4, 0.4]], rtol=1e-6)
    assert counts.tolist() == [6, 1]
    # Half of the codes: 0.5 -> 0 (tie to even), 0.625 -> 1, -2 at the edge, in steps of 2, 4, 2.
    counts[:] = 0
    got = tile.read(x[:1], bank, converters=converters, saturated=counts[:1], scale=2.0)
    np.testing.assert_array_equal(got, [[0, 4, -4]])
    assert counts.tolist() == [0, 0]


@pytest.mark.usefixtures("kernels")
def test_clipped_conversions_are_counted_beyond_half_a_code_of_the_last():
    """Levels 3, lsb 1: 3.5 is the edge, which is not beyond; in blocks that share a column each counts."""
    table = np.array([[0, 0, 1, 2, 0, 0], [1, 0, 1, 2, 0, 2]])
    bank = tile.make_bank(np.array([1, -1, 1, 0], np.float32), table, 2, 2)
    x = np.array([[3.5, 3.5], [3.6, 3.4], [9, -9], [0, 3.6]], np.float32)
    counts = np.zeros(4, np.int64)
    tile.read(x, bank, converters=Converters(0, 3, 3.0), scale=1.0, saturated=counts)
    assert counts.tolist() == [0, 2, 3, 1]
    image = x.T.reshape(1, 2, 2, 2)  # the four vectors as positions
    total = np.zeros(1, np.int64)
    tile.read(
        image, bank, converters=Converters(0, 3, 3.0), window=Window((1, 1)), scale=1.0, saturated=total
    )
    assert total.tolist() == [6]


@pytest.mark.usefixtures("kernels")
def test_a_given_scale_clips_at_the_dac_and_without_one_takes_inputs_as_they_are():
    bank = tile.make_bank(np.array([1, 1], np.float32), np.array([[0, 0, 2, 1, 1, 0]]), 1, 1)
    x = np.array([[5.0], [0.9], [-1.6]], np.float32)
    for scale in (2.0, np.full(3, 2, np.float32)):
        got = tile.read(x, bank, converters=Converters(dac_levels=2), scale=scale, bias_drive=7.0)
        np.testing.assert_array_equal(got[:, 0], [4, 3, 0])
        got = tile.read(
            x, bank, converters=Converters(adc_levels=8, adc_full=16.0), scale=scale, bias_drive=7.0
        )
        np.testing.assert_array_equal(got[:, 0], [12, 8, 4])  # lsb 4
    assert not tile.read(x, bank, converters=Converters(2, 8, 8.0), scale=0.0).any()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("devices", [False, True])
def test_a_floor_is_gaussian_with_the_variance_of_its_formula(devices):
    """Mean, variance and distribution of what is added; also where devices are noisy, too."""
    rng = seeded("floor")
    bank = tile.make_bank(
        np.zeros(30, np.float32), np.array([[0, 0, 3, 6, 1, 0], [0, 6, 2, 6, 0, 18]]), 2, 12
    )
    floor, spread = rng.uniform(0.5, 4, 12).astype(np.float32), rng.random(30, np.float32)
    noise = Noise(bank.with_variances(spread) if devices else None, KEY, floor=floor)
    x = np.array([[0.5, -3.0]], np.float32).repeat(4000, axis=0)
    y = tile.read(x, bank, noise=noise, bias_drive=2.0)
    variance = floor.astype(float) * 9
    if devices:
        sizes = np.array([0.25, 9, 4])
        variance += np.concatenate([sizes @ spread[:18].reshape(3, 6), sizes[:2] @ spread[18:].reshape(2, 6)])
    z = y / np.sqrt(variance)
    n = len(z)
    assert np.abs(z.mean(axis=0)).max() < 4.5 / np.sqrt(n)
    assert np.abs(z.var(axis=0) - 1).max() < 4.5 * np.sqrt(2 / n)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(z.T)[np.triu_indices(12, 1)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(n)
    # Twice the range, twice the deviation of the floor: of the same numbers.
    if not devices:
        np.testing.assert_allclose(tile.read(x, bank, noise=noise, scale=6.0), 2 * y, rtol=1e-5)


@pytest.mark.usefixtures("kernels")
def test_a_floor_of_a_convolution_has_the_variance_of_each_column():
    bank = tile.make_bank(np.zeros(36, np.float32), np.array([[0, 0, 9, 3, 0, 0], [0, 3, 9, 1, 0, 27]]), 9, 4)
    floor = np.array([1, 4, 0, 0.25], np.float32)
    x = np.full((30, 1, 12, 11), 2, np.float32)
    y = tile.read(x, bank, window=Window((3, 3), pads=SQUARE), noise=Noise(None, KEY, floor=floor))
    assert not y[:, 2].any()
    z = y[:, [0, 1, 3]] / (2 * np.sqrt(floor[[0, 1, 3]])[:, None, None])
    z = np.moveaxis(z, 1, 0).reshape(3, -1)
    n = z.shape[1]
    assert np.abs(z.mean(axis=1)).max() < 4.5 / np.sqrt(n)
    assert np.abs(z.var(axis=1) - 1).max() < 4.5 * np.sqrt(2 / n)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3


EXTREMES = [0.0, 1e-45, 1e-38, 1e20, 3e38, np.inf, -np.inf, np.nan]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("value", EXTREMES)
def test_no_nan_leaves_a_read_with_columns(value):
    for x, bank, window in both_kinds():
        n = bank.conversions
        x = np.full(x.shape, value, np.float32)
        x[1].flat[::2] = 1.0
        largest = np.finfo(np.float32).max
        for gain, step, shift in (
            (10.0, 0.1, 1.0),
            (largest, 1e30, -1e38),
            (0.0, largest / 300, largest / 300),
        ):
            columns = Columns(*(np.full(n, v, np.float32) for v in (gain, -gain, step, shift)))
            converters = Converters(127, 255, columns=columns)
            noise = noise_for(bank, 1, devices=True, floor=True)
            for given in (None, 1.0, 3e38, 1e-45):
                for extra in (None, noise):
                    y = tile.read(x, bank, converters=converters, window=window, scale=given, noise=extra)
                    assert not np.isnan(y).any()


def test_what_a_dead_range_gives_has_not_clipped():
    for x, bank, window in both_kinds():
        columns = columns_for(bank, 1)
        counts = np.zeros(len(x), np.int64)
        options = {"window": window, "saturated": counts}
        for converters in (Converters(0, ADC, 1e-3), Converters(0, ADC, columns=columns)):
            assert not tile.read(x, bank, converters=converters, scale=0.0, **options).any()
            assert not counts.any()


@pytest.mark.parametrize("name", ["gain", "offset", "step", "shift"])
def test_columns_that_are_no_numbers_are_refused(name):
    good = {key: np.ones(4, np.float32) for key in ("gain", "offset", "step", "shift")}
    assert Columns(**good).packed.shape == (4, 4)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=f"{name} of columns is not finite"):
            Columns(**good | {name: np.array([1, 1, bad, 1], np.float32)})
    with pytest.raises(ValueError, match=r"of columns is float64 \(4,\), should be float32"):
        Columns(**good | {name: np.ones(4)})
    with pytest.raises(ValueError, match=r"of columns is float32"):
        Columns(**good | {name: np.ones(5, np.float32)})


def test_columns_do_not_change_when_the_arrays_that_made_them_do():
    arrays = [np.ones(3, np.float32) for _ in range(4)]
    columns = Columns(*arrays)
    arrays[2][:] = np.nan
    assert columns.step.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        columns.step[0] = 2


def test_arguments_that_do_not_fit_are_refused():
    x, bank, _ = next(both_kinds())
    columns = columns_for(bank, 1)
    ones = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="columns are 4, but the bank has 135 conversions"):
        tile.read(x, bank, converters=Converters(0, 7, columns=Columns(ones, ones, ones, ones)))
    with pytest.raises(ValueError, match="have columns, but no ADC"):
        Converters(7, 0, columns=columns)
    with pytest.raises(ValueError, match="beyond float32"):
        Converters(0, 7, columns=Columns(ones, ones, ones * np.float32(1e38), ones))
    with pytest.raises(ValueError, match="belong to forward reads"):
        tile.read_transposed(
            np.zeros((2, 45), np.float32), bank, converters=Converters(0, 7, columns=columns)
        )
    for bad in (-1.0, np.nan, np.inf, np.full(40, -1, np.float32)):
        with pytest.raises(ValueError, match="a scale is negative, infinite or NaN"):
            tile.read(x, bank, scale=bad)
    for bad in (np.ones(39, np.float32), np.ones(40)):
        with pytest.raises(ValueError, match=r"a scale is float.*should be one number or float32"):
            tile.read(x, bank, scale=bad)
    locked = np.zeros(40, np.int64)
    locked.flags.writeable = False
    for bad in (np.zeros(39, np.int64), np.zeros(40, np.int32), locked):
        with pytest.raises(ValueError, match="saturated is int"):
            tile.read(x, bank, saturated=bad)
    for bad in (-1e-9, np.nan, np.inf):
        with pytest.raises(ValueError, match="a floor of noise is negative, infinite or NaN"):
            Noise(None, KEY, floor=np.array([1, bad], np.float32))
    with pytest.raises(ValueError, match=r"a floor of noise is float64"):
        Noise(None, KEY, floor=np.ones(2))
    with pytest.raises(ValueError, match="has 2 entries, the bank 135 conversions"):
        tile.read(x, bank, noise=Noise(None, KEY, floor=np.ones(2, np.float32)))
