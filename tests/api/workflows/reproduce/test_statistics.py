"""Statistics of paired runs, held against scipy's own tests."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pcmc.workflows.reproduce.statistics import paired, spread

DIFFERENCES = st.lists(st.floats(-2, 2).map(lambda x: round(x, 2)), min_size=2, max_size=12)


@pytest.mark.parametrize("margin", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("mean", [-0.9, -0.25, 0.0, 0.2, 1.4])
def test_the_p_value_is_the_larger_of_two_one_sided_t_tests(mean, margin):
    values = mean + np.random.Generator(np.random.Philox(3)).normal(0, 0.2, 10)
    above = scipy.stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(values, margin, alternative="less").pvalue
    found = paired(values.tolist(), margin)
    assert found.p_equivalent == pytest.approx(max(above, below), rel=1e-9)
    interval = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.90)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


@given(DIFFERENCES)
def test_equivalent_means_that_the_interval_lies_within_the_margin(values):
    found = paired(values, 0.5)
    if found.deviation > 1e-6:
        # exactly at the margin either answer is right
        if max(abs(found.low), abs(found.high)) < 0.5 - 1e-9:
            assert found.equivalent
        if max(abs(found.low), abs(found.high)) > 0.5 + 1e-9:
            assert not found.equivalent


def test_differences_that_are_all_the_same_decide_by_their_mean():
    assert paired([0.25, 0.25], 0.3).p_equivalent == 0.0
    assert paired([0.5, 0.5], 0.3).p_equivalent == 1.0


def test_one_pair_proves_nothing():
    found = paired([0.0], 0.3)
    assert math.isnan(found.p_equivalent)
    assert not found.equivalent
    assert math.isnan(spread([98.0]).deviation)


def test_deviation_is_that_of_a_sample():
    assert spread([1.0, 2.0, 4.0]).deviation == pytest.approx(math.sqrt(7 / 3))
