"""Print the packages of an extra in pyproject.toml, for pip: python tools/requirements.py lint."""

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

if __name__ == "__main__":
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    print(*extras[sys.argv[1]], sep="\n")
