"""Worker processes: what was finished is kept, whatever stops the others."""

import os
from concurrent.futures import Future

import pytest
from tiny_experiment import TINY

from pcmc.workflows.reproduce import pool
from pcmc.workflows.reproduce.arms import Settings
from pcmc.workflows.reproduce.plan import Run
from pcmc.workflows.reproduce.results import Results

RUNS = [Run("mnist", "A", "final", seed, 1, Settings(), TINY.sizes) for seed in range(4)]
FACTS = {"test": {"on_chip": 0.5}, "seconds": 1.0}


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), MemoryError()])
def test_runs_that_were_finished_are_kept_when_another_is_stopped(tmp_path, fault):
    results = Results(tmp_path)
    workers = pool.Workers(1, tmp_path, results, lambda *_: None)
    futures: list[Future] = [Future() for _ in RUNS]
    futures[0].set_exception(fault)
    for future in futures[1:3]:
        future.set_running_or_notify_cancel()
        future.set_result(FACTS)
    with pytest.raises(type(fault)):
        workers._collect(dict(zip(futures, RUNS, strict=True)))
    assert [run in results for run in RUNS] == [False, True, True, False]
    assert futures[3].cancelled()


def test_a_run_that_is_asked_for_twice_is_done_once(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(pool, "execute", lambda run, folder: done.append(run) or FACTS)
    with pool.Workers(1, tmp_path, Results(tmp_path), lambda *_: None) as workers:
        workers.finish([RUNS[0], RUNS[1], RUNS[0]])
        workers.finish(RUNS)
    assert done == RUNS


def test_processes_are_told_to_use_one_thread_each_and_this_one_is_not(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with pool._one_thread_each():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
