"""`pcmc reproduce`: what it prints, and what it refuses."""

import dataclasses
import json

import pytest
from tiny_experiment import TINY, arrays

from pcmc.commands.reproduce import heading
from pcmc.workflows.reproduce import plan, pool, workflow


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(plan.EXPERIMENTS, "mnist", TINY)
    monkeypatch.setattr(workflow.data, "make", lambda *_: arrays())


QUICK = ("reproduce", "nature2018", "--quick", "--only", "mnist", "--jobs", "1", "--arms", "A,two-tier")


def test_quick_prints_the_table_and_says_that_it_is_a_look(tiny, run):
    result = run(*QUICK, "-o", "here", "--seeds", "2")
    assert result.code == 0
    assert result.out.startswith("# nature2018, quick: 2 seeds, 4 epochs of 8,000 examples; a look at")
    assert "| A: float, batch 1 " in result.out
    assert "written to here: table.md, results.json, curves" in result.err


def test_json_is_all_that_goes_to_standard_output(tiny, run):
    facts = json.loads(run(*QUICK, "--seeds", "1", "--epochs", "1", "--json").out)
    assert [row["arm"] for row in facts["data"]["mnist"]["rows"]] == ["A", "two-tier"]
    assert facts["extent"]["epochs"] == 1
    assert {row["settings"]["decay"] for row in facts["data"]["mnist"]["rows"]} == {0.6}


def test_an_interruption_says_how_to_go_on(tiny, run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "execute", interrupted)
    result = run(*QUICK, "-o", "here")
    assert result.code == 130
    assert "interrupted; here has the runs that are finished: the same command goes on" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nature2019",), "no experiment is called 'nature2019'; there is nature2018"),
        (
            ("nature2018", "--only", "mnist,imagenet"),
            "--only 'imagenet': must be one of mnist, mnist-backrand, cifar10",
        ),
        (("nature2018", "--only", ","), "--only: names none"),
        (("nature2018", "--arms", "D"), "--arms 'D': must be one of A, B, C, two-tier"),
        (("nature2018", "--features-model", "none.onnx"), "--features-model none.onnx: no such file"),
    ],
)
def test_what_is_unknown_is_refused_with_what_there_is(run, words, message):
    result = run("reproduce", *words)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_without_data_there_is_nothing_to_reproduce(run, monkeypatch, tmp_path):
    monkeypatch.setenv("PCMC_DATA", str(tmp_path))
    result = run("reproduce", "nature2018", "--quick", "--only", "mnist", "-o", "here")
    assert result.code == 2
    assert "nothing to reproduce: MNIST: " in result.err
    assert "PCMC_DATA" in result.err


def test_a_folder_that_is_a_file_is_refused(tiny, run, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(*QUICK, "-o", tmp_path / "file")
    assert result.code == 2
    assert "file" in result.err


def test_only_the_full_plan_has_the_bare_name():
    assert heading(plan.FULL, quick=False) == "nature2018"
    for less in ({"seeds": 3}, {"epochs": 5}, {"tuned": False}):
        assert heading(dataclasses.replace(plan.FULL, **less), quick=False) == "nature2018, in part"
