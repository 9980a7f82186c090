"""How long until pcmc is there: wall time of fresh processes, files in the disk cache."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import ROOT, environment

RUNS = 11
IMPORT_BAR_S = 0.5
HELP_BAR_S = 0.7


def rows() -> Iterator[dict[str, Any]]:
    """Keys: name, s, bar (s, or None for what is only there to compare with), met."""
    script = shutil.which("pcmc", path=str(Path(sys.executable).parent))
    command = [script] if script else [sys.executable, "-m", "pcmc"]
    measured = {
        "python, nothing imported": ([sys.executable, "-c", "pass"], None),
        "import numpy": ([sys.executable, "-c", "import numpy"], None),
        "import pcmc": ([sys.executable, "-c", "import pcmc"], IMPORT_BAR_S),
        "import pcmc, all its names": ([sys.executable, "-c", "from pcmc import *"], None),
        "pcmc --help": ([*command, "--help"], HELP_BAR_S),
    }
    options: dict[str, Any] = {
        "cwd": ROOT.anchor,
        "env": environment(),
        "check": True,
        "stdout": subprocess.DEVNULL,
    }
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for run in range(RUNS + 1):
        for name, (arguments, _) in measured.items():
            start = time.perf_counter()
            subprocess.run(arguments, **options)
            if run:  # the first fills the disk cache
                taken[name].append(time.perf_counter() - start)
    for name, (_, bar) in measured.items():
        seconds = statistics.median(taken[name])
        yield {"name": name, "s": seconds, "bar": bar, "met": None if bar is None else seconds <= bar}
