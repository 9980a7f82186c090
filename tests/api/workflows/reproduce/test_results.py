"""Finished runs are kept, whatever happens to the process that did them."""

import dataclasses

import pytest

from pcmc.errors import OutputError
from pcmc.workflows.reproduce.arms import Settings
from pcmc.workflows.reproduce.plan import Run
from pcmc.workflows.reproduce.results import FILE, Results

RUN = Run("mnist", "A", "final", 0, 20, Settings(), (12, 6, 3))
OTHER = dataclasses.replace(RUN, seed=1)


def test_what_was_added_is_read_again(tmp_path):
    results = Results(tmp_path / "new" / "folder")
    assert RUN not in results
    results.add(RUN, {"test": {"on_chip": 0.5}})
    again = Results(tmp_path / "new" / "folder")
    assert RUN in again
    assert OTHER not in again
    assert again.facts(RUN) == {"test": {"on_chip": 0.5}}


@pytest.mark.parametrize("left", [1, 20, -1])
def test_a_line_that_was_cut_off_is_done_again_and_harms_no_other(tmp_path, left):
    results = Results(tmp_path)
    results.add(RUN, {"a": 1})
    results.add(OTHER, {"a": 2})
    whole = (tmp_path / FILE).read_bytes()
    first = whole.index(b"\n") + 1
    (tmp_path / FILE).write_bytes(whole[:first] + whole[first:][:left])
    torn = Results(tmp_path)
    assert RUN in torn
    if OTHER not in torn:
        torn.add(OTHER, {"a": 3})
        assert Results(tmp_path).facts(OTHER) == {"a": 3}
    assert Results(tmp_path).facts(RUN) == {"a": 1}


@pytest.mark.parametrize("change", [{"epochs": 21}, {"settings": Settings(rate=0.02)}, {"arm": "two-tier"}])
def test_a_run_with_anything_else_is_another_run(change):
    assert dataclasses.replace(RUN, **change).key != RUN.key


def test_a_run_with_another_constant_of_its_chip_is_another_run():
    keys = {dataclasses.replace(RUN, arm=arm).key for arm in ("two-tier", "tau x0.5", "tau x2")}
    assert len(keys) == 3


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        Results(tmp_path / "file" / "folder")
