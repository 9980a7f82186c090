"""What users install works: sdist and wheel, in the repository and elsewhere, with a C compiler and without.

Builds and installs for real, from the package index; about a minute.
"""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow

MISSING = "the compiled kernels of pcmc are missing"
SMOKE = """
import numpy as np, onnxruntime, pcmc
from pcmc.accel import tile
from pcmc.models import zoo

x, y = zoo.test_data("digits-mlp")
program = pcmc.compile(zoo.path("digits-mlp"))
outputs, = pcmc.Session(program).run(None, {"x": x})
outputs, = pcmc.Session(program).run(None, {"x": x})
wanted, = onnxruntime.InferenceSession(zoo.path("digits-mlp")).run(None, {"x": x})
np.testing.assert_allclose(outputs, wanted, atol=1e-4)
print(tile.kernels().__name__, round(100 * float(np.mean(outputs.argmax(axis=1) == y)), 2), pcmc.__file__)
"""


class Place:
    """An empty virtual environment, and what was built for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        venv.create(folder / "venv", with_pip=True)
        self.run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT)
        (self.sdist,) = (folder / "dist").glob("*.tar.gz")
        (self.wheel,) = (folder / "dist").glob("*.whl")

    def run(
        self, *command: object, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; a failure shows what it printed."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PCMC_"))}
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd or self.folder, env=clean | (env or {}),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def pip_install(self, *what: object, cc: str | None = None) -> None:
        env = {"CC": cc} if cc else {}
        self.run(
            self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what, env=env
        )

    def commands_work(self, folder: Path) -> str:
        """Compile, report and compare on the command line in `folder`; returns compare's stderr."""
        pcmc = self.python.with_name("pcmc")
        program = self.folder / "smoke.pcmc"
        program.unlink(missing_ok=True)
        self.run(pcmc, "compile", "digits-mlp", "-o", program, cwd=folder)
        assert program.stat().st_size > 10_000
        assert "nature2018" in self.run(pcmc, "report", program, cwd=folder).stdout
        compared = self.run(pcmc, "compare", "digits-mlp", "--seeds", "1", cwd=folder)
        assert "onnxruntime" in compared.stdout
        return compared.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("packaging"))


def test_sdist_holds_all_that_a_build_and_the_tests_need(place):
    with tarfile.open(place.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kernels = {"_kernels.pyx", "_tile_read.c", "_tile_read.h", "_tile_read_isa.h"}
    wanted = {f"accel/{name}" for name in kernels} | {
        "LICENSE", "CHANGELOG.md", "README.md", "Makefile", "pyproject.toml", "setup.py", "api/py.typed",
        "accel/chips/nature2018.toml", "models/digits-cnn.onnx", "models/digits-test.npz", "tests/real.py",
        ".ci/run", "tools/make_venv.sh", "tools/check_types.py",
    }  # fmt: skip
    for folder in ("api", "compiler", "runtime", "accel", "models", "tests", "benchmarks", "tools"):
        wanted |= {str(path.relative_to(ROOT)) for path in ROOT.glob(f"{folder}/**/*.py")}
    assert wanted - names == set()
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name == "accel/_kernels.c"]


def test_wheel_holds_the_packages_their_data_and_nothing_else(place):
    with zipfile.ZipFile(place.wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("dist-info/METADATA"))).decode()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"pcmc"}
    assert {"pcmc/py.typed", "pcmc/accel/chips/nature2018.toml", "pcmc/models/digits-mlp.onnx"} <= names
    assert [name for name in names if name.startswith("pcmc/accel/_kernels.") and name.endswith(".so")]
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx"))]
    assert "License-Expression: Apache-2.0" in metadata
    required = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)  # extras have a ;
    assert sorted(required) == ["networkx", "numpy", "onnx", "onnxruntime", "scipy", "typer"]


def test_installed_pcmc_works_from_everywhere_and_without_a_compiler(place, tmp_path):
    """One test, because the second half installs over the first."""
    place.pip_install(place.wheel)
    for folder in (ROOT, tmp_path):
        module, accuracy, file = place.run(place.python, "-c", SMOKE, cwd=folder).stdout.split()
        assert (module, accuracy) == ("pcmc.accel._kernels", "98.44")
        assert Path(file).is_relative_to(place.folder)
        assert place.commands_work(folder).count(MISSING) == 0

    place.pip_install("--force-reinstall", "--no-deps", "--no-cache-dir", place.sdist, cc="/bin/false")
    done = place.run(place.python, "-c", SMOKE, cwd=tmp_path)
    assert done.stdout.split()[:2] == ["pcmc.accel.reference", "98.44"]
    assert done.stderr.count(MISSING) == 1
    assert "slow" in done.stderr
    assert place.commands_work(tmp_path).count(MISSING) == 1
