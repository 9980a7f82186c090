"""Runs in several processes, each on one thread; what is finished is kept at once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pcmc.workflows.reproduce.plan import Run
from pcmc.workflows.reproduce.results import Results
from pcmc.workflows.reproduce.work import execute

Facts = dict[str, Any]
Note = Callable[[Run, Mapping[str, Any]], None]
#: What BLAS libraries take their number of threads from.
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Workers:
    """Executes runs; a context, whose processes end with it.

    Args:
        jobs: processes; 1: this one.
        folder: of the arrays.
        results: where finished runs are kept.
        on_run: is told of each run that has just been finished.
    """

    def __init__(self, jobs: int, folder: Path, results: Results, on_run: Note) -> None:
        self._jobs, self._folder, self._results, self._on_run = jobs, folder, results, on_run
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self._jobs > 1:
            # not forked: onnxruntime's and BLAS's threads would not live on in a copy of this process
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._jobs, mp_context=context)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def finish(self, runs: Sequence[Run]) -> None:
        """Do those of the runs that are not done yet.

        Raises:
            KeyboardInterrupt: those that were finished meanwhile are kept.
        """
        pending = list(dict.fromkeys(run for run in runs if run not in self._results))
        if self._pool is None:
            for run in pending:
                self._keep(run, execute(run, self._folder))
            return
        with _one_thread_each():
            futures = {self._pool.submit(execute, run, self._folder): run for run in pending}
            self._collect(futures)

    def _collect(self, futures: Mapping[Future[Facts], Run]) -> None:
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    self._keep(futures[future], future.result())
        except BaseException:
            # those under way take minutes, unless they were interrupted, too
            wait([future for future in futures if not future.cancel()])
            for future, run in futures.items():
                if run not in self._results and not future.cancelled() and future.exception() is None:
                    self._keep(run, future.result())
            raise

    def _keep(self, run: Run, facts: Facts) -> None:
        self._results.add(run, facts)
        self._on_run(run, facts)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started within the block have BLAS libraries of one thread."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
