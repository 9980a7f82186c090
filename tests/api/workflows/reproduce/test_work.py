"""A run: what is paired, what it is trained on, and what is measured of it."""

import dataclasses

import numpy as np
import pytest
from tiny_experiment import TINY, arrays

import pcmc
from pcmc.workflows.reproduce import data, measure
from pcmc.workflows.reproduce.arms import ARMS, Settings
from pcmc.workflows.reproduce.plan import Run
from pcmc.workflows.reproduce.work import examples, execute, network

RUN = Run("mnist", "two-tier", "final", 0, 2, Settings(), TINY.sizes)


@pytest.fixture
def folder(tmp_path):
    data.store(TINY, arrays(), tmp_path)
    return tmp_path


def start(run):
    program = network(run, ARMS[run.arm])
    return np.concatenate([bank.matrix()[0].ravel() for bank in program.banks.values()])


def test_a_seed_gives_all_arms_the_same_start_and_order():
    for seed in (0, 7):
        runs = [dataclasses.replace(RUN, arm=arm, seed=seed) for arm in ("A", "B", "C", "3t1c", "2pcm")]
        orders = [
            pcmc.Trainer(network(run, ARMS[run.arm]), seed=seed, physics=ARMS[run.arm].physics)._order(50)
            for run in runs
        ]
        for run, order in zip(runs, orders, strict=True):
            assert np.array_equal(start(run), start(dataclasses.replace(RUN, seed=seed)))
            assert np.array_equal(order, orders[0])
    assert not np.array_equal(start(RUN), start(dataclasses.replace(RUN, seed=1)))


def test_the_scale_of_the_start_multiplies_all_weights():
    doubled = dataclasses.replace(RUN, settings=Settings(start=2.0))
    assert start(doubled) == pytest.approx(2 * start(RUN))


def test_settings_are_chosen_without_a_look_at_the_test_set():
    made = arrays(120)
    tune = examples(dataclasses.replace(RUN, role="tune"), ARMS["A"], made)
    assert np.array_equal(np.concatenate([tune.x_train, tune.x_test]), made.x_train)
    assert len(tune.y_test) == 10
    final = examples(RUN, ARMS["A"], made)
    assert np.array_equal(final.x_test, made.x_test)
    assert len(final.y_train) == 120


def test_examples_are_limited_by_the_extent_and_by_the_arm():
    made = arrays(120, 40)
    limited = dataclasses.replace(RUN, train=50, test=20)
    assert [len(one) for one in examples(limited, ARMS["A"], made)] == [50, 50, 20, 20]
    few = dataclasses.replace(ARMS["A"], first=(30, 10))
    assert [len(one) for one in examples(limited, few, made)] == [30, 30, 10, 10]


def test_a_run_repeats_and_measures_all_that_the_tables_have(folder):
    facts = execute(RUN, folder)
    again = execute(RUN, folder)
    assert {**facts, "seconds": 0} == {**again, "seconds": 0}
    assert set(facts["test"]) == {"on_chip", *measure.MEASURED}
    assert all(0 <= facts["test"][name] <= 1 for name in measure.MEASURED)
    assert facts["devices"]["synapses"] == 13 * 6 + 7 * 3
    assert facts["devices"]["writes_mean"] == 1
    assert len(facts["curve"]) == 2
    assert facts["stopped"] == ""


def test_arms_without_pairs_have_no_accuracy_of_pairs(folder):
    facts = execute(dataclasses.replace(RUN, arm="A"), folder)
    assert [name for name in measure.MEASURED if facts["test"][name] is not None] == ["exported"]
    assert facts["test"]["exported"] == facts["test"]["on_chip"]
    assert facts["devices"]["weight_error"] is None
    assert facts["clipped_low"] is None


def test_pairs_are_read_as_training_left_them(folder):
    made = arrays()
    trainer = pcmc.Trainer(network(RUN, ARMS["two-tier"]), threads=1)
    trainer.fit(made.x_train, made.y_train, 1)
    program, state = trainer.pair_program(), measure.pair_state(trainer)
    held = pcmc.Session(program, "programming_error", state=state, threads=1).run(None, {"x": made.x_test})
    exact = pcmc.Session(program, "ideal", threads=1).run(None, {"x": made.x_test})
    assert held[0] == pytest.approx(exact[0], abs=1e-4)
    trained = pcmc.Session(trainer.program, "ideal", threads=1).run(None, {"x": made.x_test})
    assert np.abs(trained[0] - exact[0]).max() > 0.01


def test_a_training_that_breaks_down_says_so_instead_of_failing(folder):
    run = dataclasses.replace(RUN, arm="A", settings=Settings(start=2e38))
    facts = execute(run, folder)
    assert "not finite" in facts["stopped"]
