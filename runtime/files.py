"""Write files so that nothing is lost: to a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pcmc.errors import OutputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends, and is removed if it fails.

    Whoever is killed meanwhile leaves the old file, or none, under that name.

    Raises:
        OutputError: the folder is missing or can't be written, or the disk is full.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        if "\0" in str(target):
            raise OutputError(f"{str(target)!r}: can't be written: a name has no null character")
        if target.is_dir():
            raise OutputError(f"{target}: is a folder: give the name of a file")
        if (
            target.exists() and not target.is_file()
        ):  # a rename would put a plain file in the place of a device
            raise OutputError(f"{target}: is not a regular file: give the name of a file")
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise OutputError(f"{target}: can't be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
