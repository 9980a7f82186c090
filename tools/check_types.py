"""Run mypy over every Python file of the project, and fail if it left one out.

The folders install under other names (`api` is `pcmc`), which mypy does not see through an editable
installation. So this lays out a tree of links under build/types, in which they have the names that they are
imported by, runs mypy there, and compares the number of files that mypy says it checked with what there is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "types"
CACHE = ROOT / "build" / "types-cache"
CHECKED = re.compile(r"(?:no issues found in|checked) (\d+) source files?")


def main() -> int:
    """Check everything; the exit status."""
    files = sources()
    links = lay_out(files)
    options = [f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={CACHE}", "--explicit-package-bases"]
    command = [sys.executable, "-m", "mypy", *options, *links]
    run = subprocess.run(command, cwd=TREE, stdout=subprocess.PIPE, text=True, check=False)
    for line in run.stdout.splitlines():
        name, colon, rest = line.partition(":")
        print(f"{links.get(name, name)}{colon}{rest}")
    found = CHECKED.search(run.stdout)
    checked = int(found[1]) if found else 0
    if checked != len(files):
        print(f"mypy checked {checked} files, the project has {len(files)}")
    return run.returncode or int(checked != len(files))


def sources() -> list[Path]:
    """Every Python file of the project, relative to its root."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ("build", "dist") and not name.startswith(".")]
        found += [Path(folder, name).relative_to(ROOT) for name in names if name.endswith(".py")]
    return sorted(found)


def lay_out(files: list[Path]) -> dict[str, Path]:
    """Link each file into TREE under its imported name.

    Returns {link: file}, relative to TREE and to ROOT.
    """
    shutil.rmtree(TREE, ignore_errors=True)
    renamed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    folders = {folder: Path(*package.split(".")) for package, folder in renamed.items()}
    links = {}
    for file in files:
        first, *rest = file.parts
        link = folders.get(first, Path(first)).joinpath(*rest)
        if file.parent == Path("tests") and not file.name.startswith("test_"):
            link = Path(file.name)  # pytest has tests/ on its path
        (TREE / link).parent.mkdir(parents=True, exist_ok=True)
        (TREE / link).symlink_to(ROOT / file)
        links[str(link)] = file
    return links


if __name__ == "__main__":
    sys.exit(main())
