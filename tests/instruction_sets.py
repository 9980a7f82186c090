"""The tests of a file once more, in a process that is held to one instruction set."""

import os
import re
import subprocess
import sys

import pytest

SETS = ("plain", "avx2", "avx512")


def check_again(file: str, chosen: str, simd: str) -> None:
    """Run tests of a file held to an instruction set; skip where that process is this one, or there is none.

    Args:
        file: of the tests.
        chosen: which of them, as for `pytest -k`; more than a hundred must run, and pass.
        simd: one of SETS.
    """
    if os.environ.get("PCMC_SIMD"):
        pytest.skip("this is that process")
    env = os.environ | {"PCMC_SIMD": simd}
    asked = subprocess.run(
        [sys.executable, "-c", "from pcmc.accel._kernels import SIMD; print(SIMD)"],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if asked.stdout.strip() != simd:
        pytest.skip(f"this machine has no {simd}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", chosen, file]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) > 100
