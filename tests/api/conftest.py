"""Calling the `pcmc` command inside the test's own process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pcmc import cli


@dataclass(frozen=True)
class Result:
    """What a command gave back: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_chdir: Path
) -> Callable[..., Result]:
    """Call `pcmc WORDS` in this process, in a fresh folder."""

    def call(*words: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["pcmc", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call


@pytest.fixture
def done(run: Callable[..., Result]) -> Callable[..., str]:
    """Call `pcmc WORDS`, which must succeed without a word on standard error; what it prints."""

    def call(*words: str | Path) -> str:
        result = run(*words)
        assert result.err == ""
        assert result.code == 0
        return result.out

    return call


@pytest.fixture
def refused(run: Callable[..., Result]) -> Callable[..., str]:
    """Call `pcmc WORDS`, which must be refused as a user's mistake: exit code 2 and one line; that line."""

    def call(*words: str | Path) -> str:
        result = run(*words)
        assert result.code == 2, result
        assert result.out == ""
        assert result.err.startswith("pcmc: ")
        assert result.err.endswith("\n")
        assert len(result.err.splitlines()) == 1
        assert "Traceback" not in result.err
        assert len(result.err) < 1000
        return result.err.removeprefix("pcmc: ").rstrip("\n")

    return call
