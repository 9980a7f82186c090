"""Where finished runs are kept: a file of JSON lines, so that an interrupted reproduction goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcmc.errors import DataError, OutputError
from pcmc.workflows.reproduce.plan import Run

Facts = Mapping[str, Any]
FILE = "runs.jsonl"


class Results:
    """The finished runs of a folder, by `Run.key`.

    A line is written in one piece and flushed to the disk; one that a killed process left unfinished is not
    read, and its run is done again.

    Args:
        folder: is made if it is not there.

    Raises:
        OutputError: the folder can't be made or written.
        DataError: its file of runs can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._found: dict[str, Facts] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: can't be made: {error.strerror or error}") from None
        try:
            text = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise DataError(f"{self._path}: can't be read: {error.strerror or error}") from None
        for line in text.splitlines():
            self._take(line)
        self._torn = bool(text) and not text.endswith(b"\n")

    def __contains__(self, run: Run) -> bool:
        return run.key in self._found

    def __len__(self) -> int:
        return len(self._found)

    def facts(self, run: Run) -> Facts:
        """What a finished run came to; KeyError if it is not there."""
        return self._found[run.key]

    def add(self, run: Run, facts: Facts) -> None:
        """Keep what a run came to.

        Raises:
            OutputError: the file can't be written.
        """
        line = json.dumps({"key": run.key, "run": run.as_dict(), "facts": facts}) + "\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _write_all(descriptor, ("\n" + line if self._torn else line).encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise OutputError(f"{self._path}: can't be written: {error.strerror or error}") from None
        self._torn = False
        self._found[run.key] = facts

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self._found[entry["key"]] = dict(entry["facts"])
        except (ValueError, KeyError, TypeError):
            return


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
