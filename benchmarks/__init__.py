"""How fast pcmc is: `python -m benchmarks` prints tables and writes JSON. The figures: docs/benchmarks.md.

Everything is measured in processes of its own, with the figures of one row taken in turns, so that a busy
machine slows all of them alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """The environment of measured processes: OpenBLAS finds out by itself which processor this is, and its
    threads sleep soon after a product. Else they spin for longer than a turn, on a processor of whoever comes
    next; its products take as long either way.
    """
    overrides = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    kept = {key: value for key, value in os.environ.items() if key not in overrides}
    return kept | {"OPENBLAS_THREAD_TIMEOUT": "4"}


def in_process(module: str, *arguments: str) -> Any:
    """What a module of benchmarks prints as JSON in a process of its own.

    Raises:
        RuntimeError: the process failed; with the last line of its standard error.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if run.returncode:
        lines = run.stderr.strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"ended with {run.returncode}")
    return json.loads(run.stdout)
