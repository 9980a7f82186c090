"""Every arm has the same number of trials, each of something new."""

import pytest

from pcmc.workflows.reproduce.arms import ARMS, Settings
from pcmc.workflows.reproduce.tuning import STAGES, TRIALS, best_of, candidates


@pytest.mark.parametrize("arm", ARMS.values(), ids=lambda arm: arm.name)
def test_all_arms_have_as_many_trials_each_of_something_new(arm):
    tried = [arm.settings]
    for stage in STAGES:
        tried += candidates(stage, arm.settings, arm.own)
    assert len(tried) == len(set(tried)) == TRIALS


def test_no_arm_asks_for_an_unknown_stage():
    assert {arm.own for arm in ARMS.values()} == {"range", "rate", "batch"}


def test_of_equals_the_earliest_is_kept():
    one, two, three = (Settings(rate=rate) for rate in (0.1, 0.2, 0.3))
    assert best_of([one, two, three], {one: 0.5, two: 0.9, three: 0.9}) is two
