"""Random streams: named, repeatable, independent, and apart from numpy's global generator."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from pcmc.accel.random import gaussian_key, stream

FIRST_WORDS = [10787154158772067751, 1863285316152316999]


def draws(*name, n=8):
    return stream(*name).standard_normal(n)


def test_equal_names_give_equal_numbers():
    assert np.array_equal(draws(1, (2, 3), "read_noise", 4), draws(1, (2, 3), "read_noise", 4))


def test_numbers_are_the_same_on_every_machine_and_in_every_release():
    # numpy promises the bits of its bit generators for ever. These were made by this function when it was
    # written: a change here changes every seeded result of every user.
    first = stream(0, (0,), "programming_error").bit_generator.random_raw(2)
    assert [int(word) for word in first] == FIRST_WORDS


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
    stream(0, (6,), "read_noise").standard_normal(1000)
    assert np.array_equal(draws(0, (7,), "read_noise"), expected)


def test_numpy_integers_name_the_same_stream_as_python_integers():
    numpy_name = (np.int64(5), (np.int32(1), np.uint8(2)), "dac", np.int16(3))
    assert np.array_equal(draws(*numpy_name), draws(5, (1, 2), "dac", 3))


@pytest.mark.parametrize("name", [(0.5, (0,), "x"), (0, (1.0,), "x"), (0, (0,), "x", 2.0), ("0", (0,), "x")])
def test_a_fraction_or_text_as_number_is_refused(name):
    with pytest.raises(TypeError):
        stream(*name)


def test_streams_of_neighbouring_names_are_uncorrelated():
    n = 10_000
    names = itertools.product((0, 1), repeat=3)
    rows = np.stack([draws(seed, (tile,), "x", step, n=n) for seed, tile, step in names])
    correlation = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    # A correlation of independent samples has a standard deviation of 1 / sqrt(n); five of them allowed.
    assert np.abs(correlation).max() < 5 / math.sqrt(n)


def test_first_numbers_of_many_streams_are_normally_distributed():
    first = [stream(0, (tile,), "x").standard_normal() for tile in range(2000)]
    assert stats.kstest(first, "norm").pvalue > 1e-3


def test_the_global_generator_is_neither_read_nor_changed():
    before = np.random.get_state()  # noqa: NPY002
    drawn = draws(0, (0,), "x")
    after = np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    np.random.seed(99)  # noqa: NPY002
    assert np.array_equal(draws(0, (0,), "x"), drawn)


def test_the_key_of_gaussians_follows_from_the_whole_name_too():
    name = (0, (1, 2), "fast_noise", 3)
    key = gaussian_key(*name)
    assert key == gaussian_key(*name)
    assert all(0 <= word < 1 << 64 for word in key)
    others = {gaussian_key(1, *name[1:]), gaussian_key(0, (1,), *name[2:]), gaussian_key(*name[:3], 4)}
    assert len(others | {key, gaussian_key(0, (1, 2), "slow_noise", 3)}) == 5
    with pytest.raises(TypeError):
        gaussian_key(0.5, (1,), "x")


def test_key_and_stream_of_one_name_are_the_same_128_bits():
    low, high = gaussian_key(4, (5,), "x")
    words = stream(4, (5,), "x").bit_generator.state["state"]["key"]
    assert [int(word) for word in words] == [low, high]
