"""The errors that a user can cause: one family, so that one `except` catches them all.

This module imports nothing, so that every room of the house may raise from it. A message names the file, node
or field, says what is wrong, and what would be right.
"""


class PcmcError(Exception):
    """Base of every error that a user's input can cause; the command line turns it into one line and exit
    code 2.
    """


class ModelError(PcmcError):
    """The ONNX model can't be read, is invalid, or has something that pcmc does not map."""


class ChipError(PcmcError):
    """A chip description has a wrong, missing or unknown field, or is too small for the model."""


class ProgramError(PcmcError):
    """A `.pcmc` file is truncated, altered, of a later version, or hostile."""


class DataError(PcmcError):
    """Input arrays, labels or data sets have the wrong name, shape, type or contents."""


class OutputError(PcmcError):
    """A result can't be written where the user wants it."""
