"""The whole of a small reproduction: tables, numbers, curves, and going on after an interruption."""

import dataclasses
import json
import xml.etree.ElementTree as ET

import pytest
from tiny_experiment import EXTENT, TINY, arrays

from pcmc.errors import DataError
from pcmc.workflows.reproduce import plan, pool, tuning, work, workflow
from pcmc.workflows.reproduce.results import FILE
from pcmc.workflows.reproduce.workflow import reproduce


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(plan.EXPERIMENTS, "mnist", TINY)


def run(folder, extent=EXTENT, **options):
    return reproduce(folder, extent, "tiny", make=lambda _: arrays(), **options)


def stable(found):
    """Results without the times that runs took."""
    facts = found.as_dict()
    for row in facts["data"]["mnist"]["rows"]:
        del row["seconds"]
    return facts


def test_a_reproduction_leaves_tables_numbers_and_curves(tmp_path):
    said = []
    found = run(tmp_path, say=said.append)
    text = (tmp_path / "table.md").read_text()
    assert text == found.text()
    assert "| two-tier, inversion " in text
    assert "tiny: 96 training and 30 test examples, network 12-6-3, 2 seeds x 2 epochs" in text
    facts = json.loads((tmp_path / "results.json").read_text())
    rows = {row["arm"]: row for row in facts["data"]["mnist"]["rows"]}
    assert list(rows) == ["A", "C", "two-tier"]
    assert rows["A"]["difference"] is None
    assert rows["C"]["difference"]["count"] == 2
    mean = rows["two-tier"]["test"]["mean"] - rows["A"]["test"]["mean"]
    assert rows["two-tier"]["difference"]["mean"] == pytest.approx(mean)
    picture = ET.parse(tmp_path / "curves-mnist.svg").getroot()
    assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == 3
    assert len(said) == 1 + 3 * 2


def test_an_interrupted_reproduction_goes_on_and_ends_as_if_nothing_had_been(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    done = []

    def interrupted(one, folder):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(one)
        return work.execute(one, folder)

    monkeypatch.setattr(pool, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part")
    assert len((tmp_path / "part" / FILE).read_text().splitlines()) == 4
    rest = []
    monkeypatch.setattr(pool, "execute", lambda one, folder: rest.append(one) or work.execute(one, folder))
    assert stable(run(tmp_path / "part")) == stable(whole)
    assert len(rest) == 2
    assert not set(rest) & set(done)


def test_runs_are_done_seed_by_seed_so_that_pairs_are_whole(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(
        pool, "execute", lambda one, folder: order.append((one.seed, one.arm)) or work.execute(one, folder)
    )
    run(tmp_path)
    assert order == [(seed, arm) for seed in (0, 1) for arm in ("A", "C", "two-tier")]


def test_tuning_spends_the_same_trials_on_each_arm_and_keeps_the_best(tmp_path):
    extent = dataclasses.replace(EXTENT, seeds=1, epochs=1, tuned=True, arms=("A", "B"))
    found = run(tmp_path, extent)
    trials = found.trials["mnist"]
    assert {name: len(tried) for name, tried in trials.items()} == dict.fromkeys("AB", tuning.TRIALS)
    for row in found.rows["mnist"]:
        best = max(one["accuracy"] for one in trials[row.arm])
        chosen = next(one for one in trials[row.arm] if one["settings"] == dataclasses.asdict(row.settings))
        assert chosen["accuracy"] == best
        assert row.trials == tuning.TRIALS
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert {one["run"]["seed"] for one in lines if one["run"]["role"] == "tune"} == {plan.TUNING_SEED}


def test_sensitivities_are_compared_with_the_arm_that_they_vary(tmp_path):
    extent = dataclasses.replace(EXTENT, arms=("A", "two-tier", "tau x0.5", "tau x2"))
    text = run(tmp_path, extent).text()
    assert "difference to two-tier" in text
    assert "| tau x 0.5 " in text


def test_data_sets_that_are_missing_are_left_out_and_said(tmp_path, monkeypatch):
    extent = dataclasses.replace(EXTENT, experiments=("mnist", "cifar10", "cifar100"))

    def make(experiment, *_):
        if experiment.name == "mnist":
            return arrays()
        raise DataError(f"no files of {experiment.name}")

    monkeypatch.setattr(workflow.data, "make", make)
    found = reproduce(tmp_path, extent, "tiny", features_model=tmp_path / "net.onnx")
    assert [one.partition(": ")[2] for one in found.left_out] == [
        "no files of cifar10",
        "no files of cifar100",
    ]
    assert "Left out: CIFAR-10 features (a check, not transfer): no files of cifar10" in found.text()
    without = reproduce(tmp_path, extent, "tiny")
    assert all("--features-model FILE" in one for one in without.left_out)
    with pytest.raises(DataError, match=r"nothing to reproduce: .*cifar100"):
        reproduce(
            tmp_path,
            dataclasses.replace(extent, experiments=("cifar100",)),
            "tiny",
            features_model=tmp_path / "net.onnx",
        )


@pytest.mark.slow
def test_several_processes_give_the_same_results_as_one(tmp_path):
    assert stable(run(tmp_path / "two", jobs=2)) == stable(run(tmp_path / "one"))
