"""Tile reads: the compiled kernels against their numpy twins, and both against judges that neither knows."""

import itertools
import os
import subprocess
import sys
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
from instruction_sets import SETS, check_again
from scipy.signal import correlate2d

from pcmc.accel import reference, tile
from pcmc.accel.random import gaussian_key
from pcmc.accel.tile import Converters, Noise, Window

_kernels = pytest.importorskip("pcmc.accel._kernels", reason="no compiled kernels to compare with")

PAIRS = {name: (compiled, twin) for name, compiled, twin in reference.pairs()}

# Integers stay integers through all of these when the input range is RANGE: every step is a whole number.
RANGE = 889.0
CONVERTERS = {
    "ideal": Converters(),
    "dac": Converters(dac_levels=7),
    "adc": Converters(adc_levels=127, adc_full=20.0),
    "dac+adc": Converters(dac_levels=7, adc_levels=127, adc_full=20.0),
}

# (vectors, inputs, outputs): none, one, odd, the edge of a tile and beyond, one column, one row.
DENSE = [
    (0, 5, 7), (1, 1, 1), (1, 513, 100), (3, 512, 99), (33, 129, 257), (50, 40, 1), (9, 1, 40),
    (70, 514, 101), (40, 33, 1030), (1, 70, 1030), (70, 300, 1030),
]  # fmt: skip

SQUARE = (1, 1, 1, 1)
# (images, channels, columns, height, width, window, groups)
CONVOLUTIONS = [
    (0, 2, 3, 5, 5, Window((3, 3)), 1),
    (1, 1, 1, 1, 1, Window((1, 1)), 1),
    (3, 5, 17, 9, 13, Window((3, 3), pads=SQUARE), 1),
    (2, 3, 4, 11, 10, Window((3, 3), (2, 2), pads=SQUARE), 1),
    (2, 3, 9, 12, 7, Window((2, 4), (3, 2), pads=(0, 3, 2, 1)), 1),
    (2, 2, 5, 14, 13, Window((3, 2), (1, 1), (2, 3), (2, 0, 1, 5)), 1),
    (1, 2, 8, 19, 17, Window((3, 3), (2, 3), (3, 2), (4, 1, 0, 2)), 1),
    (2, 4, 6, 1, 50, Window((1, 5), (1, 2), (1, 2), (0, 4, 0, 3)), 1),
    (2, 8, 4, 8, 8, Window((1, 1), (2, 2)), 1),
    (2, 1, 3, 5, 4, Window((5, 4)), 1),
    (1, 3, 12, 16, 16, Window((8, 8), (8, 8)), 1),
    (2, 6, 8, 7, 9, Window((3, 3), pads=SQUARE), 2),
    (2, 40, 40, 6, 5, Window((3, 3), (1, 2), pads=SQUARE), 40),
    (1, 2, 2, 2, 2, Window((2, 2), pads=(3, 3, 3, 3)), 1),
]


def split(rows, cols, *, groups=1, bias=True):
    """A table of blocks that covers a matrix (or the diagonal of one), with partial sums, and its cells."""
    tile_rows, tile_cols = 60, 1030 if cols == 1030 else 37  # 1030: rows so wide that strips are copied
    table, offset = [], 0
    height, width = rows // groups, cols // groups
    for group in range(groups):
        for row0 in range(0, height, tile_rows):
            for col0 in range(0, width, tile_cols):
                here = int(bias and row0 == 0)
                h, w = min(tile_rows, height - row0) + here, min(tile_cols, width - col0)
                table.append((group * height + row0, group * width + col0, h, w, here, offset))
                offset += h * w
    return np.array(table, np.int64).reshape(-1, 6), offset


def seeded(*key):
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def integers(rng, shape, largest=3):
    return rng.integers(-largest, largest + 1, shape).astype(np.float32)


def in_range(values):
    """Integers whose largest size in each item is RANGE."""
    values = np.round(values * 200).astype(np.float32)
    if values.size:
        values.reshape(len(values), -1)[:, 0] = RANGE
    return values


def draw(key, shape, whole):
    rng = seeded("x", key)
    return in_range(integers(rng, shape)) if whole else rng.standard_normal(shape, np.float32)


def dense_case(name, case, whole):
    """Inputs of a dense kernel: (x, bank, shape of the result, further arguments)."""
    vectors, rows, cols = case
    table, size = split(rows, cols)
    rng = seeded("w", case)
    cells = integers(rng, size) if whole else rng.standard_normal(size, np.float32)
    bank = tile.make_bank(cells, table, rows, cols)
    n, m = (cols, rows) if name.endswith("transposed") else (rows, cols)
    return draw(case, (vectors, n), whole), bank, (vectors, m), ()


def conv_case(name, case, whole):
    images, channels, cols, height, width, window, groups = case
    rows = channels * window.kernel[0] * window.kernel[1]
    table, size = split(rows, cols, groups=groups)
    rng = seeded("w", case)
    cells = integers(rng, size) if whole else rng.standard_normal(size, np.float32)
    bank = tile.make_bank(cells, table, rows, cols)
    inner, outer = (images, channels, height, width), (images, cols, *window.output_size(height, width))
    if name.endswith("transposed"):
        return draw(case, outer, whole), bank, inner, (window.packed(),)
    return draw(case, inner, whole), bank, outer, (window.packed(), 1)


READS = [name for name in PAIRS if name.startswith(("dense", "conv"))]
CASES = [(name, case) for name in READS for case in (CONVOLUTIONS if name.startswith("conv") else DENSE)]


def both(name, case, converters, *, whole, power=None, finished=False):
    """(result of the kernel, of the twin, lsb of each item); with noise if `power` is given."""
    make = conv_case if name.startswith("conv") else dense_case
    x, bank, shape, more = make(name, case, whole)
    scale = reference_range(x, 1.0)
    drive = () if name.endswith("transposed") else (254.0 if whole else 1.0,)
    levels = (converters.dac_levels, converters.adc_levels, converters.adc_full)
    if not name.endswith("transposed"):
        noise = None if power is None else noise_for(bank, case, power=power, first=5)
        levels += (converters.packed(bank)[-1],)
        levels += tile._QUIET if noise is None else noise.packed(bank, len(x))
        offset, addend = integers(seeded("o", case), bank.cols), integers(seeded("a", case), shape)
        levels += (offset, addend.ravel(), True) if finished else (tile._NONE, tile._NONE, False)
        levels += (tile._UNCOUNTED,)
    results = []
    x.flags.writeable = False  # bank and table are read-only already
    for kernel in PAIRS[name]:
        out = np.full(shape, np.nan, np.float32)  # all of it must be overwritten
        kernel(x, bank.cells, bank.blocks, out, scale, *drive, *levels, *more, 0, len(x))
        results.append(out)
    lsb = converters.adc_full * scale / max(converters.adc_levels, 1)
    return *results, lsb.reshape(-1, *[1] * (len(shape) - 1))


def noise_for(bank, key, *, whole=True, **options):
    """Noise on a bank, with whole variances or any."""
    rng, n = seeded("v", key), bank.cells.size
    variances = (rng.integers(0, 2, n) if whole else rng.random(n)).astype(np.float32)
    return Noise(bank.with_variances(variances), gaussian_key(0, (3,), "fast_noise"), **options)


def reference_range(x, floor):
    return np.abs(x).reshape(len(x), -1 if x.size else 0).max(axis=1, initial=floor).astype(np.float32)


def test_the_padding_behind_cells_is_what_the_kernels_read():
    assert tile.CELL_PADDING == _kernels.CELL_PADDING


def test_every_kernel_has_cases():
    assert {name for name, _ in CASES} | {"input_range", "fill_gaussian"} == set(PAIRS)


@pytest.mark.parametrize("converters", CONVERTERS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_integers_agree_with_the_twin_exactly(name, case, converters):
    compiled, twin, _ = both(name, case, CONVERTERS[converters], whole=True)
    np.testing.assert_array_equal(compiled, twin)
    if twin.size > 100:
        assert np.unique(twin).size > 3, "a case that tests nothing"


@pytest.mark.parametrize("converters", ["ideal", "dac+adc"])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(("name", "case"), [(n, c) for n, c in CASES if not n.endswith("transposed")])
def test_integers_with_noise_agree_with_the_twin_exactly(name, case, converters, power):
    compiled, twin, _ = both(name, case, CONVERTERS[converters], whole=True, power=power)
    # Every variance is a whole number below 2^24, exact in whatever order it is summed.
    np.testing.assert_array_equal(compiled, twin)
    quiet, _, _ = both(name, case, CONVERTERS[converters], whole=True)
    if twin.size > 100:
        assert np.mean(quiet != compiled) > 0.1, "a case that tests nothing"


@pytest.mark.parametrize(("name", "case"), [(n, c) for n, c in CASES if not n.endswith("transposed")])
def test_finished_integers_agree_with_the_twin_exactly(name, case):
    compiled, twin, _ = both(name, case, Converters(), whole=True, finished=True)
    np.testing.assert_array_equal(compiled, twin)


@pytest.mark.parametrize("threads", [1, 2])
def test_finishing_a_read_has_the_bits_of_the_same_steps_in_numpy(monkeypatch, threads):
    monkeypatch.setattr(tile, "WORTH_A_THREAD", 1)
    dense, x = bank_of(70, 45), seeded(1).standard_normal((53, 70), np.float32)
    window, conv = Window((3, 3), pads=SQUARE), bank_of(27, 20)
    photos = seeded(2).standard_normal((3, 3, 12, 9), np.float32)
    photos[0, 0, 5, 5] = np.nan  # stays one
    for items, bank, more in ((x, dense, {}), (photos, conv, {"window": window})):
        plain = tile.read(items, bank, **more)
        offset = seeded(3).standard_normal(bank.cols, np.float32)
        addend = seeded(4).standard_normal(plain.shape, np.float32)
        got = tile.read(items, bank, offset=offset, addend=addend, relu=True, threads=threads, **more)
        summed = (plain + offset.reshape(-1, *[1] * (plain.ndim - 2))) + addend
        np.testing.assert_array_equal(got, np.maximum(summed, 0))
        assert 0.2 < np.mean(got == 0) < 0.8
        np.testing.assert_array_equal(tile.read(items, bank, relu=True, **more), np.maximum(plain, 0))
        for name, bad in (
            ("offset", offset[1:]),
            ("addend", addend[:, 1:]),
            ("addend", addend.astype(float)),
        ):
            with pytest.raises(ValueError, match=f"an {name} "):
                tile.read(items, bank, **{name: bad}, **more)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_floats_agree_with_the_twin_to_rounding(name, case):
    compiled, twin, _ = both(name, case, Converters(), whole=False)
    # Sums of up to 514 products of normal numbers: sqrt(514) * 514 * 2^-24 is 7e-4, the worst order of all.
    np.testing.assert_allclose(compiled, twin, rtol=0, atol=7e-4)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_converted_floats_agree_with_the_twin_but_for_a_code_at_a_tie(name, case):
    converters = Converters(dac_levels=127, adc_levels=255, adc_full=4.0)
    compiled, twin, lsb = both(name, case, converters, whole=False)
    error = np.abs(compiled - twin)
    assert (error <= 1.001 * lsb + 1e-4).all()
    assert np.mean(error > 0.5 * lsb) <= 0.002 if error.size else True


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 63), (4, 64), (5, 1000)])
def test_input_range_is_the_largest_size_nan_left_out(shape):
    x = seeded(shape).standard_normal(shape, np.float32)
    if x.size > 4:
        x[0, 0], x[-1, -1] = np.nan, -50.0
    expected = np.nanmax(np.abs(x), axis=1, initial=0.5)
    np.testing.assert_array_equal(tile.input_range(x, 0.5), expected)
    twin = np.empty(len(x), np.float32)
    reference.input_range(x, 0.5, twin, 0, len(x))
    np.testing.assert_array_equal(twin, expected)


def bank_of(rows, cols, *, groups=1, bias=True):
    table, size = split(rows, cols, groups=groups, bias=bias)
    return tile.make_bank(seeded(rows, cols).standard_normal(size, np.float32), table, rows, cols)


FULL = Converters(127, 255, adc_full=8.0)


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("converters", [Converters(), FULL])
def test_any_number_of_threads_gives_equal_bits(monkeypatch, threads, converters, noisy):
    monkeypatch.setattr(tile, "WORTH_A_THREAD", 1)
    dense, x = bank_of(70, 45), seeded(1).standard_normal((53, 70), np.float32)
    window, conv = Window((3, 3), (1, 2), pads=(1, 0, 1, 2)), bank_of(27, 20)
    noises = (noise_for(dense, 1), noise_for(conv, 2)) if noisy else (None, None)
    for images in (1, 3, 16):
        photos = seeded(2).standard_normal((images, 3, 12, 9), np.float32)
        runs = []
        for n in (1, threads):
            options = {"converters": converters, "threads": n}
            y = tile.read(x, dense, noise=noises[0], **options)
            z = tile.read(photos, conv, window=window, noise=noises[1], **options)
            back = tile.read_transposed(z, conv, window=window, image=(12, 9), **options)
            runs.append((y, tile.read_transposed(y, dense, **options), z, back))
        for one, many in zip(*runs, strict=True):
            np.testing.assert_array_equal(one.view(np.int32), many.view(np.int32))


def test_reads_of_several_threads_of_a_program_do_not_disturb_each_other(monkeypatch):
    monkeypatch.setattr(tile, "WORTH_A_THREAD", 1)
    bank, x = bank_of(70, 45), seeded(1).standard_normal((53, 70), np.float32)
    expected, wrong = tile.read(x, bank), []

    def many(seed):
        rng = np.random.default_rng(seed)
        for n, threads in zip(rng.integers(1, 54, 300), rng.integers(1, 5, 300), strict=True):
            wrong.extend(
                [n] * (not np.array_equal(tile.read(x[:n], bank, threads=int(threads)), expected[:n]))
            )

    callers = [threading.Thread(target=many, args=(seed,)) for seed in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.parametrize("converters", [Converters(), FULL])
def test_a_vector_reads_the_same_alone_and_in_a_batch(converters):
    dense, x = bank_of(130, 101), seeded(3).standard_normal((61, 130), np.float32)
    window, conv = Window((3, 3), pads=SQUARE), bank_of(36, 21)
    photos = seeded(4).standard_normal((5, 4, 10, 11), np.float32)
    options = {"converters": converters}
    y = tile.read(x, dense, **options)
    back = tile.read_transposed(y, dense, **options)
    z = tile.read(photos, conv, window=window, **options)
    scattered = tile.read_transposed(z, conv, window=window, image=(10, 11), **options)
    for i in range(len(x)):
        np.testing.assert_array_equal(tile.read(x[i : i + 1], dense, **options)[0], y[i])
        np.testing.assert_array_equal(tile.read_transposed(y[i : i + 1], dense, **options)[0], back[i])
    for i in range(len(photos)):
        one = slice(i, i + 1)
        np.testing.assert_array_equal(tile.read(photos[one], conv, window=window, **options)[0], z[i])
        again = tile.read_transposed(z[one], conv, window=window, image=(10, 11), **options)
        np.testing.assert_array_equal(again[0], scattered[i])


@pytest.mark.parametrize("cut", [1, 3, 8, 30])
def test_calls_that_count_on_give_the_noise_of_one(cut):
    dense, x = bank_of(130, 101), seeded(3).standard_normal((61, 130), np.float32)
    window, conv = Window((3, 3), pads=SQUARE), bank_of(36, 21)
    photos = seeded(4).standard_normal((61, 4, 3, 4), np.float32)
    wide = tile.make_bank(
        seeded(5).standard_normal(130 * 300, np.float32), np.array([[0, 0, 130, 300, 0, 0]]), 130, 300
    )
    cases = ((x, dense, {}), (x, wide, {}), (photos, conv, {"window": window}))
    for (items, bank, more), step in itertools.product(cases, (0, 1)):
        noise = noise_for(bank, 4, whole=False, first=7, step=step)
        whole = tile.read(items, bank, noise=noise, **more)
        parts = [
            tile.read(items[i : i + cut], bank, noise=replace(noise, first=7 + i), **more)
            for i in range(0, len(items), cut)
        ]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.slow
@pytest.mark.parametrize("simd", SETS)
def test_every_instruction_set_agrees_with_the_twin(simd):
    check_again(__file__, "agree or alone or threads or count_on", simd)


def test_a_convolution_is_what_scipy_says():
    rng = seeded(5)
    x, kernel = rng.standard_normal((2, 3, 9, 8), np.float32), rng.standard_normal((4, 3, 3, 2), np.float32)
    bank = tile.make_bank(kernel.reshape(4, -1).T.ravel(), np.array([[0, 0, 18, 4, 0, 0]]), 18, 4)
    window = Window((3, 2), (2, 1), pads=(1, 0, 2, 1))
    padded = np.pad(x, [(0, 0), (0, 0), (1, 2), (0, 1)])
    expected = np.zeros((2, 4, 5, 8))
    for n, o, c in np.ndindex(2, 4, 3):
        expected[n, o] += correlate2d(padded[n, c], kernel[o, c], "valid")[::2]
    np.testing.assert_allclose(tile.read(x, bank, window=window), expected, atol=1e-5)


@pytest.mark.parametrize("case", CONVOLUTIONS[1:])
def test_the_transposed_convolution_is_the_adjoint_of_the_read(case):
    """<d, A x> = <A^T d, x> for any x and d; without the bias row, which A^T leaves out."""
    images, channels, cols, height, width, window, groups = case
    bank = bank_of(channels * window.kernel[0] * window.kernel[1], cols, groups=groups, bias=False)
    x = seeded(6).standard_normal((images, channels, height, width), np.float32)
    y = tile.read(x, bank, window=window)
    d = seeded(7).standard_normal(y.shape, np.float32)
    back = tile.read_transposed(d, bank, window=window, image=(height, width))
    there, here = np.vdot(d.astype(float), y), np.vdot(back.astype(float), x)
    assert there == pytest.approx(here, rel=1e-4, abs=1e-3 * np.sqrt(d.size))


def test_converters_do_what_their_formulas_say():
    """By hand: levels 2, range 4, so inputs are multiples of 2; lsb = 3 * 4 / 4 = 3, full scale 12."""
    bank = tile.make_bank(
        np.array([1, 1, 1, 2, 1, -4], np.float32), np.array([[0, 0, 3, 2, 1, 0]]), rows=2, cols=2
    )
    x = np.array([[4.0, 1.0], [2.9, -4.0], [3.1, 4.0]], np.float32)
    got = tile.read(x, bank, bias_drive=3.1, converters=Converters(2, 4, adc_full=3.0))
    # [4, 0] (tie to even) and bias 4: 8, -12;  [2, -4] and 4: 2, -22 clips;  [4, 4] and 4: 12, -4
    np.testing.assert_array_equal(got, [[9, -12], [3, -12], [12, -3]])


def test_partial_sums_are_digitized_one_by_one_then_added():
    cells = np.array([0.4, 0.4], np.float32)
    one = tile.make_bank(cells, np.array([[0, 0, 2, 1, 0, 0]]), 2, 1)
    two = tile.make_bank(cells, np.array([[0, 0, 1, 1, 0, 0], [1, 0, 1, 1, 0, 1]]), 2, 1)
    x, converters = np.ones((1, 2), np.float32), Converters(0, 4, adc_full=4.0)  # lsb = 1
    assert tile.read(x, one, converters=converters).item() == 1.0
    assert tile.read(x, two, converters=converters).item() == 0.0


@pytest.mark.parametrize("kernels", ["compiled", "numpy"])
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 3e38, np.inf, -np.inf, np.nan])
def test_with_converters_on_the_result_is_always_finite(monkeypatch, value, kernels):
    if kernels == "numpy":
        monkeypatch.setattr(tile, "kernels", lambda: reference)
    window, conv, dense = Window((3, 3), pads=SQUARE), bank_of(18, 5), bank_of(40, 30)
    x, photos = np.full((3, 40), value, np.float32), np.full((2, 2, 6, 5), value, np.float32)
    x[1, ::2], photos[1, :, ::2] = 1.0, -1.0
    for converters in (FULL, Converters(0, 127, adc_full=2.0)):
        y = tile.read(x, dense, converters=converters)
        z = tile.read(photos, conv, window=window, converters=converters)
        noisy = tile.read(x, dense, converters=converters, noise=noise_for(dense, 8))
        hazy = tile.read(photos, conv, window=window, converters=converters, noise=noise_for(conv, 9))
        d, e = np.resize(x, (3, 30)), np.resize(photos, z.shape)
        back = tile.read_transposed(d, dense, converters=converters)
        scattered = tile.read_transposed(e, conv, window=window, image=(6, 5), converters=converters)
        assert all(np.isfinite(a).all() for a in (y, z, noisy, hazy, back, scattered))
        if value == 0.0:
            assert not tile.read_transposed(np.zeros_like(d), dense, converters=converters).any()


def test_variances_are_rounded_to_the_nearest_of_eight_bits_ties_to_even():
    bank = bank_of(18, 4)
    n, bit, tiny, largest = bank.cells.size, 2.0**-7, 2.0**-133, (2 - 2.0**-7) * 2.0**127
    wanted = {
        0: 0, 1: 1, 2.0**-40: 2.0**-40, 0.75: 0.75, 1 + bit: 1 + bit,
        1 + bit / 2: 1, 1 + 1.5 * bit: 1 + 2 * bit, 1 + 0.51 * bit: 1 + bit, 1 + 0.49 * bit: 1,
        2 - bit / 2: 2, 0.5 * tiny: 0, 1.5 * tiny: 2 * tiny, largest: largest, np.inf: np.inf,
    }  # fmt: skip
    given = np.resize(np.array(list(wanted), np.float32), n)
    kept = bank.with_variances(given)
    assert kept.halves.nbytes == 2 * n
    np.testing.assert_array_equal(kept.values, np.resize(np.array(list(wanted.values()), np.float32), n))
    assert not np.signbit(bank.with_variances(np.zeros(n, np.float32)).values).any()


def test_variances_are_off_by_one_part_in_256_at_most_and_not_at_all_in_the_mean():
    """Of variances over two octaves; the mean of n errors is known to their deviation / sqrt(n)."""
    n = 1 << 18
    bank = tile.make_bank(np.zeros(n, np.float32), np.array([[0, 0, 512, 512, 0, 0]]), 512, 512)
    given = seeded("variances").uniform(0.01, 0.04, n).astype(np.float32)
    kept = bank.with_variances(given).values
    error = kept / given.astype(float) - 1
    assert np.abs(error).max() <= 2.0**-8
    deviation = 2.0**-7 / np.sqrt(12)  # of a value of 1, of which all others are larger
    assert deviation / 2 < error.std() < deviation
    assert abs(error.mean()) < 4.5 * deviation / np.sqrt(n)
    np.testing.assert_array_equal(bank.with_variances(kept).values, kept)


def test_a_noise_that_does_not_fit_is_refused():
    bank, other = bank_of(18, 4), bank_of(20, 4)
    x = np.zeros((2, 18), np.float32)
    for bad in (-1e-9, np.nan):
        with pytest.raises(ValueError, match="negative or NaN"):
            bank.with_variances(np.where(np.arange(bank.cells.size) == 3, bad, 1).astype(np.float32))
    with pytest.raises(ValueError, match="of another bank"):
        tile.read(x, bank, noise=Noise(other.with_variances(np.abs(other.cells)), (1, 2)))
    for bad in (np.ones(3, np.float32), np.ones(bank.cells.size)):
        with pytest.raises(ValueError, match=r"should be float32 \(76,\)"):
            bank.with_variances(bad)
    variances = bank.with_variances(np.abs(bank.cells))
    with pytest.raises(ValueError, match="power of a noise is 3"):
        Noise(variances, (1, 2), power=3)
    with pytest.raises(ValueError, match="64 bits each"):
        Noise(variances, (1 << 64, 2))
    with pytest.raises(ValueError, match="not within"):
        tile.read(x, bank, noise=Noise(variances, (1, 2), first=tile.MOST_ITEMS - 1))


GOOD = (0, 0, 4, 3, 0, 0)  # fills the matrix of 4 x 3 and its 12 cells


@pytest.mark.parametrize(
    "block",
    [
        (1, 0, 4, 3, 0, 0), (0, 1, 4, 3, 0, 0), (0, 0, 5, 3, 0, 0), (0, 0, 4, 4, 0, 0), (0, 0, 4, 3, 0, 1),
        (-1, 0, 4, 3, 0, 0), (0, -1, 4, 3, 0, 0), (0, 0, 4, 3, 0, -1), (0, 0, 0, 3, 0, 0), (0, 0, 4, 0, 0, 0),
        (0, 0, 4, 3, 2, 0), (0, 0, -4, -3, 0, 0), (0, 0, 4, 3, -1, 0), (2**63 - 1, 0, 4, 3, 0, 0),
        (0, 0, 2**62, 4, 0, 0), (0, 0, 4, 2**62, 0, 0), (0, 0, 4, 3, 0, 2**63 - 1), (5, 0, 1, 3, 1, 0),
    ],
)  # fmt: skip
def test_a_table_that_points_outside_is_refused(block):
    cells = np.zeros(12, np.float32)
    assert tile.make_bank(cells, np.array([GOOD]), 4, 3).blocks.tolist() == [list(GOOD)]
    with pytest.raises(ValueError, match=r"block 1 .*lies outside of the matrix of 4 x 3 or of its 12 cells"):
        tile.make_bank(cells, np.array([GOOD, block]), 4, 3)


def test_arguments_that_do_not_fit_are_refused():
    bank, x = bank_of(18, 4), np.zeros((2, 18), np.float32)
    photos, window = np.zeros((1, 2, 5, 5), np.float32), Window((3, 3))
    with pytest.raises(ValueError, match="17 values, but the bank 18 rows"):
        tile.read(x[:, :17], bank)
    with pytest.raises(ValueError, match="float64 with 2 dimensions, should be float32 with 2"):
        tile.read(x.astype(float), bank)
    with pytest.raises(ValueError, match="1 channels of 3 x 3 windows are 9 values, but the bank has"):
        tile.read(photos[:, :1], bank, window=window)
    with pytest.raises(ValueError, match="does not fit an image of 2 x 5"):
        tile.read(photos[:, :, :2], bank, window=window)
    with pytest.raises(ValueError, match="errors have 18 values, but the bank 4 columns"):
        tile.read_transposed(x, bank)
    with pytest.raises(ValueError, match=r"errors of \(5, 5\) don't come from"):
        tile.read_transposed(np.zeros((1, 4, 5, 5), np.float32), bank, window=window, image=(5, 5))
    with pytest.raises(ValueError, match=r"should be float32 \(76,\) as in the bank"):
        bank.with_cells(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="dac_levels is -1"):
        Converters(dac_levels=-1)
    with pytest.raises(ValueError, match=r"adc_full is 0\.0"):
        Converters(adc_levels=7)
    with pytest.raises(ValueError, match="strides of a window"):
        Window((3, 3), (0, 1))


def test_a_read_changes_neither_its_inputs_nor_takes_their_memory_order():
    bank, x = bank_of(18, 4), seeded(8).standard_normal((18, 6), np.float32)
    before = x.copy()
    np.testing.assert_array_equal(tile.read(x.T, bank), tile.read(np.ascontiguousarray(x.T), bank))
    np.testing.assert_array_equal(x, before)


def test_other_cells_under_the_same_table():
    bank = bank_of(18, 4)
    x = seeded(9).standard_normal((3, 18), np.float32)
    double = bank.with_cells(2 * bank.cells)
    np.testing.assert_array_equal(tile.read(x, double), 2 * tile.read(x, bank))


def test_without_compiled_kernels_numpy_takes_over_with_one_warning():
    """In a process that can't import the extension: the same numbers, one warning with the cure."""
    code = (
        "import sys, warnings; sys.modules['pcmc.accel._kernels'] = None\n"
        "import numpy as np; from pcmc.accel import tile\n"
        "bank = tile.make_bank(np.arange(6, dtype=np.float32), np.array([[0, 0, 3, 2, 0, 0]]), 3, 2)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2): y = tile.read(np.ones((1, 3), np.float32), bank)\n"
        "print(y.tolist(), len(caught), caught[0].message if caught else '')\n"
    )
    for forced, says in (("", "1 the compiled kernels of pcmc are missing"), ("numpy", "0")):
        env = os.environ | {"PCMC_KERNELS": forced}
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert run.stdout.startswith(f"[[6.0, 9.0]] {says}"), run.stdout
        assert ("Install a C compiler" in run.stdout) == (not forced)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_gets_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(tile, "WORTH_A_THREAD", 1)
    bank, x = bank_of(18, 4), np.ones((8, 18), np.float32)
    expected = tile.read(x, bank, threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(tile.read(x, bank, threads=2), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
