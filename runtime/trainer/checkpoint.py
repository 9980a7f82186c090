"""Checkpoints: a zip of `checkpoint.json` and arrays, never pickle; written whole or not at all.

The document names the program (its weights as compiled, its chip), the settings and the data by hashes, so
that a checkpoint of something else is refused, and has the SHA-256 of every array, so that an altered one is.
Random streams are named and counted: their places are whole numbers in it, and nothing else is needed to go
on.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import chip_to_dict
from pcmc.errors import ProgramError
from pcmc.runtime.files import replacing
from pcmc.runtime.onnx_walk import first_line
from pcmc.runtime.trainer.checkpoint_reader import DOCUMENT, FORMAT, SCHEMA, check_fits, read

if TYPE_CHECKING:
    from pcmc.runtime.trainer.trainer import Trainer

Array = npt.NDArray[Any]


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
        archive.writestr(DOCUMENT, json.dumps(document, indent=1))
        for name, data in members.items():
            archive.writestr(name, data)


def restore(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Give a trainer the state of a checkpoint; it is as before if that fails.

    Raises:
        ProgramError: no such file, no checkpoint, an altered one, or one of another program or setting.
    """
    document, arrays = read(path)
    found = document.get("identity")
    for what, value in identity(trainer).items():
        other = found.get(what) if isinstance(found, dict) else None
        if other != value:
            raise ProgramError(f"{os.fspath(path)}: is a checkpoint of {_other(what, other, value)}")
    before = trainer.state()
    try:
        check_fits(trainer, document, arrays)
        trainer.take_state(document, arrays)
    except Exception as error:  # whatever was not looked for in a document that somebody made up
        trainer.take_state(*before)
        raise ProgramError(f"{os.fspath(path)}: does not fit this training: {first_line(error)}") from None


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
        digest.update(b"" if bank.bias is None else bank.bias.tobytes())
    for step in program.steps:
        digest.update(repr((step.name, step.inputs, step.outputs)).encode())
    for region in program.regions.values():
        for part in (*region.graph.node, *region.graph.initializer):
            digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _other(what: str, found: Any, expected: Any) -> str:
    if what == "program":
        return "another program: give the model and the chip that it was made with"
    return f"a training with {what} = {found!r:.100}, this one has {expected!r:.100}: give the same"


def _as_npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()
