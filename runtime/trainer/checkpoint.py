"""Checkpoints: a zip of `checkpoint.json` and arrays, never pickle; written whole or not at all.

The document names the program (its weights as compiled, its chip) and the settings by a hash, so that a
checkpoint of something else is refused, and has the SHA-256 of every array, so that an altered one is. Random
streams are named and counted: their places are whole numbers in it, and nothing else is needed to go on.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import chip_to_dict
from pcmc.errors import ProgramError
from pcmc.runtime.files import replacing
from pcmc.runtime.trainer.progress import Epoch, Evaluation

if TYPE_CHECKING:
    from pcmc.runtime.trainer.trainer import Trainer

Array = npt.NDArray[Any]

FORMAT = "pcmc checkpoint"
SCHEMA = 1
MAX_JSON_BYTES = 64 << 20


def save(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint.

    Raises:
        OutputError: the path can't be written; whatever was there before is still there.
    """
    document, arrays = trainer.state()
    members = {f"{index}.npy": _as_npy(array) for index, array in enumerate(arrays.values())}
    document |= {
        "format": FORMAT,
        "schema": SCHEMA,
        "identity": identity(trainer),
        "arrays": dict(zip(arrays, members, strict=True)),
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("checkpoint.json", json.dumps(document, indent=1))
        for name, data in members.items():
            archive.writestr(name, data)


def restore(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Give a trainer the state of a checkpoint.

    Raises:
        ProgramError: no such file, no checkpoint, an altered one, or one of another program or setting.
    """
    document, arrays = _read(path)
    expected = identity(trainer)
    for what, value in expected.items():
        found = document["identity"].get(what) if isinstance(document.get("identity"), dict) else None
        if found != value:
            raise ProgramError(f"{os.fspath(path)}: is a checkpoint of {_other(what, found, value)}")
    try:
        trainer.take_state(document, arrays)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ProgramError(f"{os.fspath(path)}: does not fit this training: {error}") from None


def identity(trainer: Trainer) -> dict[str, Any]:
    """What has to be the same for a training to go on: the program, by a hash, and the settings."""
    return {"program": _program_hash(trainer), **trainer.settings()}


def _program_hash(trainer: Trainer) -> str:
    program = trainer.compiled
    digest = hashlib.sha256(json.dumps(chip_to_dict(program.chip), sort_keys=True).encode())
    for name, bank in program.banks.items():
        digest.update(name.encode())
        digest.update(bank.cells.tobytes())
        digest.update(np.ascontiguousarray(bank.table).tobytes())
    for step in program.steps:
        digest.update(repr((step.name, step.inputs, step.outputs)).encode())
    return digest.hexdigest()


def _other(what: str, found: Any, expected: Any) -> str:
    if what == "program":
        return "another program: give the model and the chip that it was made with"
    return f"a training with {what} = {found!r}, this one has {expected!r}: give the same"


def _as_npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
    return buffer.getvalue()


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The document and the arrays of a file, checked against their hashes."""
    name = os.fspath(path)
    try:
        size = os.path.getsize(path)
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            if any(info.compress_type or info.file_size > size for info in infos.values()):
                raise ProgramError(f"{name}: is no checkpoint: its members are compressed or too large")
            if "checkpoint.json" not in infos or infos["checkpoint.json"].file_size > MAX_JSON_BYTES:
                raise ProgramError(f"{name}: is no checkpoint: it has no checkpoint.json")
            document = json.loads(archive.read("checkpoint.json"))
            if not isinstance(document, dict) or document.get("format") != FORMAT:
                raise ProgramError(f"{name}: is no checkpoint of pcmc")
            if document.get("schema") != SCHEMA:
                raise ProgramError(
                    f"{name}: has schema {document.get('schema')!r}, this version reads {SCHEMA}"
                )
            arrays = {
                key: _array(archive, member, document["members"][member], name)
                for key, member in document["arrays"].items()
            }
    except FileNotFoundError:
        raise ProgramError(f"{name}: no such file") from None
    except OSError as error:
        raise ProgramError(f"{name}: can't be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError,
            NotImplementedError) as error:  # fmt: skip
        raise ProgramError(f"{name}: is no checkpoint, or damaged: {error}") from None
    return document, arrays


def _array(archive: zipfile.ZipFile, member: str, expected: str, name: str) -> Array:
    data = archive.read(member)
    if hashlib.sha256(data).hexdigest() != expected:
        raise ProgramError(f"{name}: '{member}' was altered: its hash is not the one that was written")
    array: Array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


def epoch_from(document: Mapping[str, Any]) -> Epoch:
    """An epoch as a checkpoint has it."""
    facts = dict(document)
    if facts["validation"] is not None:
        facts["validation"] = Evaluation(**facts["validation"])
    return Epoch(**facts)
