"""Reading a checkpoint as if a stranger had written it: nothing in it is trusted before it was looked at.

Members are stored as they are, so that nothing unpacks to more than the file; hashes are checked, arrays are
plain numbers of the size that the member has, and everything has the type, shape and range of what the
trainer itself would have written.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.errors import ProgramError
from pcmc.runtime.onnx_walk import first_line
from pcmc.runtime.trainer.progress import Epoch, Evaluation

if TYPE_CHECKING:
    from pcmc.runtime.trainer.trainer import Trainer

Array = npt.NDArray[Any]

FORMAT = "pcmc checkpoint"
SCHEMA = 1
DOCUMENT = "checkpoint.json"
MAX_JSON_BYTES = 64 << 20
#: Counts are no larger; more examples than anybody will ever train on.
MOST = 1 << 62


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The document and the arrays of a file.

    Raises:
        ProgramError: no such file, no checkpoint, or one that was altered or truncated.
    """
    name = os.fspath(path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe might never end
            raise ProgramError(f"{name}: is not a regular file")
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, status.st_size, name)
            document = _document(archive, name)
            members = document["arrays"].values()
            if len(set(members)) < len(document["arrays"]):
                raise ProgramError(f"{name}: two of its arrays are one member: it was altered")
            arrays = {
                key: _array(archive, member, document["members"][member], name)
                for key, member in document["arrays"].items()
            }
    except ProgramError:
        raise
    except FileNotFoundError:
        raise ProgramError(f"{name}: no such file") from None
    except OSError as error:
        raise ProgramError(f"{name}: can't be read: {error.strerror or error}") from None
    except Exception as error:  # zip, JSON and npy raise any class for bytes that a stranger chose
        raise ProgramError(f"{name}: is no checkpoint, or damaged: {first_line(error)}") from None
    return document, arrays


def _check_members(archive: zipfile.ZipFile, size: int, name: str) -> None:
    infos = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ProgramError(f"{name}: is no checkpoint: its members are compressed")
    if sum(info.file_size for info in infos) > size:
        raise ProgramError(f"{name}: has {size:,} bytes, but would unpack to more: the file is hostile")
    if not any(info.filename == DOCUMENT for info in infos):
        raise ProgramError(f"{name}: is no checkpoint: it has no {DOCUMENT}")


def _document(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(DOCUMENT).file_size > MAX_JSON_BYTES:
        raise ProgramError(f"{name}: {DOCUMENT} has more than {MAX_JSON_BYTES:,} bytes")
    document = json.loads(archive.read(DOCUMENT))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ProgramError(f"{name}: is no checkpoint of pcmc")
    if document.get("schema") != SCHEMA:
        raise ProgramError(f"{name}: has schema {document.get('schema')!r}, this version reads {SCHEMA}")
    return document


def _array(archive: zipfile.ZipFile, member: str, expected: str, name: str) -> Array:
    data = archive.read(member)
    if hashlib.sha256(data).hexdigest() != expected:
        raise ProgramError(f"{name}: '{member}' was altered: its hash is not the one that was written")
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"'{member}' is .npy version {version}, should be (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran or dtype.kind not in "iuf":
        raise ValueError(f"'{member}' is of type {dtype}, should be plain numbers in C order")
    array: Array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
    return array


def check_fits(trainer: Trainer, document: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """ValueError or KeyError if this is not what the trainer could have written."""
    wanted, like = trainer.state()
    for what in ("examples", "data", "streams", "running"):
        _check_like(document[what], wanted[what], what)
    for epoch in document["running"]["finished"]:
        _check_epoch(epoch)
    optional = {f"velocity/{name}": bank.cells for name, bank in trainer.compiled.banks.items()}
    optional |= {f"statistics/{name}": array for name, array in trainer.plan.constants.items()}
    for name in like.keys() - optional.keys() - arrays.keys():
        raise ValueError(f"array '{name}' is missing")
    for name, array in arrays.items():
        shaped = like[name] if name in like else optional[name]
        if array.dtype != shaped.dtype or array.shape != shaped.shape:
            raise ValueError(
                f"array '{name}' is {array.dtype} {list(array.shape)}, should be {shaped.dtype} "
                f"{list(shaped.shape)}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"array '{name}' has values that are not finite")


def _check_like(found: Any, like: Any, where: str) -> None:
    """ValueError if plain data differ in keys or types, or numbers are out of range."""
    if isinstance(like, dict):
        if not isinstance(found, dict) or found.keys() != like.keys():
            raise ValueError(f"{where} should have the entries {', '.join(like)}")
        for key, value in like.items():
            _check_like(found[key], value, f"{where}.{key}")
    elif isinstance(like, int):
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < MOST:
            raise ValueError(f"{where} is {found!r:.50}, should be a whole number from 0 on")
    elif isinstance(like, float):
        if not _is_finite(found):
            raise ValueError(f"{where} is {found!r:.50}, should be a finite number")
    elif type(found) is not type(like):
        raise ValueError(f"{where} is a {type(found).__name__}, should be a {type(like).__name__}")


def _check_epoch(found: Any) -> None:
    nothing = Evaluation(0.0, None, 0)
    like = Epoch(0, 0.0, 0.0, None, nothing, 0.0, {}).as_dict()
    if not isinstance(found, dict) or found.keys() != like.keys():
        raise ValueError(f"an epoch should have the entries {', '.join(like)}")
    parts = [found] if found["validation"] is None else [found, found["validation"]]
    for part, wanted in zip(parts, (like, like["validation"]), strict=False):
        if not isinstance(part, dict) or part.keys() != wanted.keys():
            raise ValueError(f"an epoch should have the entries {', '.join(wanted)}")
        for key, value in wanted.items():
            if key == "accuracy" and part[key] is not None:
                _check_like(part[key], 0.0, key)
            elif isinstance(value, int | float):
                _check_like(part[key], value, key)
    if not isinstance(found["counters"], dict) or not all(map(_is_finite, found["counters"].values())):
        raise ValueError("counters of an epoch should be finite numbers")


def _is_finite(found: Any) -> bool:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return abs(found) < MOST if isinstance(found, int) else math.isfinite(found)


def epoch_from(document: Mapping[str, Any]) -> Epoch:
    """An epoch as a checkpoint has it."""
    facts = dict(document)
    if facts["validation"] is not None:
        facts["validation"] = Evaluation(**facts["validation"])
    return Epoch(**facts)
