"""A user's text file, read whole: what is taken on trust is that there is a name."""

import os
import stat

from pcmc.errors import DataError


class UnreadableTextError(DataError):
    """A file that is no text of bounded size; the message says why, without the file's name."""


def read_text(path: str | os.PathLike[str], most_bytes: int, encoding: str = "utf-8") -> str:
    """The text of a regular file of at most so many bytes.

    Raises:
        FileNotFoundError: there is none.
        UnreadableTextError: it is no regular file, too large, not in `encoding`, or can't be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a directory; or a pipe, which might never end
            raise UnreadableTextError("not a regular file")
        with open(path, "rb") as file:
            raw = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise UnreadableTextError(f"can't be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > most_bytes:
        raise UnreadableTextError(f"larger than {most_bytes:,} bytes")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableTextError(f"byte {error.start:,} is not UTF-8 text") from None
