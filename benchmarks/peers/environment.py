"""The peer's own environment: made by `python -m benchmarks.peers --setup`, asked by `ask`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks import environment as measured_environment

FOLDER = ROOT / "build" / "peers-venv"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PEER = "aihwkit==1.2.0"
CONFIGS = (
    "converters alone",
    "converters alone, torch tiles",
    "InferenceRPUConfig",
    "StandardHWATrainingPreset",
)
"""What of aihwkit is timed; `aihwkit_tasks` says what each is."""


def python() -> Path:
    """The peer's interpreter; it need not exist."""
    return FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def set_up() -> None:
    """Make the environment, or bring it up to date. Compiles aihwkit: some minutes.

    Raises:
        subprocess.CalledProcessError: pip could not install something; its output says what.
    """
    if not python().exists():
        venv.create(FOLDER, with_pip=True)
    install = [str(python()), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
    # Without isolation it is compiled against the torch that it will run with; mypy, which it names, is not
    # needed.
    env = os.environ | {"PATH": f"{python().parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    headers = next(Path("/usr/include").glob("*-linux-gnu/openblas_config.h"), None)
    if headers:  # where Debian keeps them; aihwkit's search does not look there
        env |= {"OpenBLAS_HOME": str(headers.parent)}
    subprocess.run([*install, "--no-build-isolation", "--no-deps", PEER], check=True, env=env)


def ask(task: str, given: Mapping[str, Any], threads: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    """Run a task of `aihwkit_tasks` in a process of its own.

    Args:
        task: its name.
        given: arrays, or what numpy makes arrays of, by name.
        threads: of torch's and OpenBLAS's; handed on as `threads`.

    Returns:
        the arrays of its answer.

    Raises:
        RuntimeError: it failed; with the last line of its standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "given.npz"), Path(folder, "found.npz")
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in given.items()}
        np.savez(source, **arrays, threads=np.asarray(threads))
        command = [str(python()), "-m", "benchmarks.peers.aihwkit_tasks", task, str(source), str(target)]
        env = measured_environment() | thread_variables(threads)
        run = subprocess.run(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines()
            raise RuntimeError(f"aihwkit, {task}: {lines[-1] if lines else run.returncode}")
        with np.load(target, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that bound the threads of OpenMP and OpenBLAS."""
    return {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}


def require() -> None:
    """Exit with one line where the environment is missing."""
    if not python().exists():
        sys.exit("the peer's environment is missing: run 'python -m benchmarks.peers --setup' first")
