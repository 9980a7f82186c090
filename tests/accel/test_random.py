"""Random streams: named, repeatable, independent, and apart from numpy's global generator."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pcmc.accel import tile
from pcmc.accel.random import gaussian_key, generator, stream

FIRST_WORDS = [10787154158772067751, 1863285316152316999]
FIRST_NORMAL_BITS = [1052792938, 1059447731, 1051980396, 1059432154]
FIRST_UNIFORM_BITS = [1065024669, 1058386859, 1055976360, 1036967360]
N = 100_000


def draws(*name, n=8):
    return stream(*name).normal(n)


def bits(numbers):
    return numbers.view(np.int32).tolist()


def test_equal_names_give_equal_numbers():
    assert np.array_equal(draws(1, (2, 3), "read_noise", 4), draws(1, (2, 3), "read_noise", 4))


def test_numbers_are_the_same_on_every_machine_and_in_every_release():
    # These were made by these functions when they were written: a change here changes every seeded result of
    # every user. numpy promises the bits of its bit generators for ever, and their floats are kept here.
    name = (0, (0,), "programming_error")
    assert [int(word) for word in generator(*name).bit_generator.random_raw(2)] == FIRST_WORDS
    assert bits(stream(*name).normal(4)) == FIRST_NORMAL_BITS
    assert bits(stream(*name).uniform(4)) == FIRST_UNIFORM_BITS


def test_every_part_of_the_name_matters():
    names = [
        (0, (0, 0), "read_noise", 0),
        (1, (0, 0), "read_noise", 0),
        (-1, (0, 0), "read_noise", 0),
        (0, (1, 0), "read_noise", 0),
        (0, (0, 1), "read_noise", 0),
        (0, (0,), "read_noise", 0),
        (0, (), "read_noise", 0),
        (0, (0, 0), "programming_error", 0),
        (0, (0, 0), "read_noise", 1),
    ]
    numbers = [tuple(draws(*name)) for name in names]
    assert len(set(numbers)) == len(names)


def test_names_that_look_alike_when_joined_are_different_streams():
    assert not np.array_equal(draws(1, (11,), "x"), draws(11, (1,), "x"))
    assert not np.array_equal(draws(0, (1, 2), "x"), draws(0, (12,), "x"))
    assert not np.array_equal(draws(0, (0,), "x', 1"), draws(0, (0,), "x", 1))


def test_drawing_from_one_stream_leaves_the_others_alone():
    expected = draws(0, (7,), "read_noise")
    other = stream(0, (6,), "read_noise")
    other.normal(1000)
    other.uniform(1000)
    assert np.array_equal(draws(0, (7,), "read_noise"), expected)


def test_numpy_integers_name_the_same_stream_as_python_integers():
    numpy_name = (np.int64(5), (np.int32(1), np.uint8(2)), "dac", np.int16(3))
    assert np.array_equal(draws(*numpy_name), draws(5, (1, 2), "dac", 3))


@pytest.mark.parametrize("make", [stream, generator, gaussian_key])
@pytest.mark.parametrize("name", [(0.5, (0,), "x"), (0, (1.0,), "x"), (0, (0,), "x", 2.0), ("0", (0,), "x")])
def test_a_fraction_or_text_as_number_is_refused(make, name):
    with pytest.raises(TypeError):
        make(*name)


def test_streams_of_neighbouring_names_are_uncorrelated():
    n = 10_000
    names = itertools.product((0, 1), repeat=3)
    rows = np.stack([draws(seed, (tile,), "x", step, n=n) for seed, tile, step in names])
    correlation = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    # A correlation of independent samples has a standard deviation of 1 / sqrt(n); five of them allowed.
    assert np.abs(correlation).max() < 5 / math.sqrt(n)


def test_first_numbers_of_many_streams_are_normally_distributed():
    first = [float(draws(0, (place,), "x", n=1)[0]) for place in range(2000)]
    assert stats.kstest(first, "norm").pvalue > 1e-3


def test_first_uniform_numbers_of_many_streams_are_uniform():
    first = [float(stream(0, (place,), "x").uniform(1)[0]) for place in range(2000)]
    assert stats.kstest(first, "uniform").pvalue > 1e-3


# --- normal and uniform numbers ---


def test_normal_numbers_are_those_of_the_counter_based_gaussians_from_zero_on():
    expected = np.empty(1000, np.float32)
    tile.fill_gaussian(expected, gaussian_key(3, (1, 2), "x"))
    assert bits(stream(3, (1, 2), "x").normal(1000)) == bits(expected)


@pytest.mark.parametrize("cuts", [[1000], [1] * 1000, [0, 1, 63, 0, 64, 65, 500, 307], [999, 1]])
@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_numbers_go_on_where_the_last_call_ended_however_calls_are_cut(draw, cuts):
    whole = getattr(stream(0, (0,), "x"), draw)(1000)
    numbers = stream(0, (0,), "x")
    parts = [getattr(numbers, draw)(n) for n in cuts]
    assert [len(part) for part in parts] == cuts
    assert bits(np.concatenate(parts)) == bits(whole)


def test_normal_and_uniform_numbers_of_one_stream_do_not_disturb_each_other():
    mixed, alone = stream(0, (0,), "x"), stream(0, (0,), "x")
    normal, uniform = [], []
    for n in (1, 7, 100):
        normal.append(mixed.normal(n))
        uniform.append(mixed.uniform(n))
    assert bits(np.concatenate(normal)) == bits(alone.normal(108))
    assert bits(np.concatenate(uniform)) == bits(alone.uniform(108))


def test_normal_and_uniform_numbers_of_one_stream_are_uncorrelated():
    numbers = stream(0, (0,), "x")
    ranks = stats.norm.cdf(numbers.normal(N).astype(float))
    uniform = numbers.uniform(N)
    assert abs(np.corrcoef(ranks, uniform)[0, 1]) < 5 / math.sqrt(N)
    assert abs(np.corrcoef(np.abs(ranks - 0.5), uniform)[0, 1]) < 5 / math.sqrt(N)


def test_normal_numbers_are_standard_normal():
    sample = stream(0, (0,), "x").normal(N).astype(float)
    assert sample.mean() == pytest.approx(0.0, abs=5 / math.sqrt(N))
    assert sample.var() == pytest.approx(1.0, abs=5 * math.sqrt(2 / N))
    assert stats.kstest(sample[:20_000], "norm").pvalue > 1e-3


def test_uniform_numbers_are_uniform_from_zero_to_below_one():
    sample = stream(0, (0,), "x").uniform(N)
    assert sample.min() >= 0.0
    assert sample.max() < 1.0
    assert sample.mean(dtype=float) == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / N))
    assert stats.kstest(sample[:20_000].astype(float), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_no_numbers_are_an_empty_array_of_the_same_type(draw):
    for n in (0, 3):
        numbers = getattr(stream(0, (0,), "x"), draw)(n)
        assert numbers.shape == (n,)
        assert numbers.dtype == np.float32


def test_the_global_generator_is_neither_read_nor_changed():
    before = np.random.get_state()  # noqa: NPY002
    drawn, uniform = draws(0, (0,), "x"), stream(0, (0,), "x").uniform(8)
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    np.random.seed(99)  # noqa: NPY002
    assert np.array_equal(draws(0, (0,), "x"), drawn)
    assert np.array_equal(stream(0, (0,), "x").uniform(8), uniform)


def test_the_key_of_gaussians_follows_from_the_whole_name_too():
    name = (0, (1, 2), "fast_noise", 3)
    key = gaussian_key(*name)
    assert key == gaussian_key(*name)
    assert all(0 <= word < 1 << 64 for word in key)
    others = {gaussian_key(1, *name[1:]), gaussian_key(0, (1,), *name[2:]), gaussian_key(*name[:3], 4)}
    assert len(others | {key, gaussian_key(0, (1, 2), "slow_noise", 3)}) == 5
    with pytest.raises(TypeError):
        gaussian_key(0.5, (1,), "x")


def test_key_and_generator_of_one_name_are_the_same_128_bits():
    low, high = gaussian_key(4, (5,), "x")
    words = generator(4, (5,), "x").bit_generator.state["state"]["key"]
    assert [int(word) for word in words] == [low, high]


def test_uniform_numbers_are_those_of_the_generator_of_the_same_name():
    expected = generator(4, (5,), "x").random(9, np.float32)
    assert bits(stream(4, (5,), "x").uniform(9)) == bits(expected)
