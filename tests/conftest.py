"""What all tests share: how hypothesis runs, and a folder of one's own."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no failure. Continuous integration tries the same examples each time.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture
def tmp_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder that is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
