"""The program file `model.pcmc`: a zip of `program.json`, arrays as `.npy` and digital regions as ONNX.

Nothing in it is compressed, so that it can't unpack to more than it is; `program.json` lists the SHA-256 of
every other member. Large tensors of the models lie in `tensors/`, named by their hash, once for all that
share them. Reading never runs code from the file, never writes, and allocates no more than the file's size
(docs/security.md).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pcmc.accel.cells import Devices
from pcmc.accel.chip import chip_from_dict, chip_to_dict
from pcmc.accel.tile import Window
from pcmc.errors import PcmcError, ProgramError
from pcmc.runtime.calibration import BankCalibration, Calibration, check_calibration
from pcmc.runtime.files import replacing
from pcmc.runtime.onnx_walk import first_line
from pcmc.runtime.program import BLOCK, FLOW, Bank, Folding, Program, Read, Step, TensorInfo
from pcmc.runtime.program_check import check_program, check_region, check_text
from pcmc.runtime.state import BankState, ChipState, WiredBank, WiredChip

FORMAT = "pcmc program"
SCHEMA = 1
MAX_JSON_BYTES = 256 << 20
#: Tensors of at least this many bytes are kept outside of their ONNX model.
LARGE_TENSOR_BYTES = 1024
#: Tensors that several models share are stored once: a file may grow by this when it is read, and 16 times
#: its size.
MOST_SHARED_BYTES = 1 << 30

T = TypeVar("T")


def save(
    program: Program,
    path: str | os.PathLike[str],
    state: ChipState | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Write a program file, with the state of a chip and a calibration if they are given.

    Raises:
        OutputError: the path can't be written; whatever was there before is still there.
    """
    members: dict[str, bytes] = {}
    document = _program_document(program, members)
    if state is not None:
        document["state"] = _state_document(state, members)
    if calibration is not None:
        document["calibration"] = _calibration_document(calibration, members)
    document["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("program.json"), json.dumps(document, indent=1).encode())
        for name, data in members.items():
            archive.writestr(_entry(name), data)


def _entry(name: str) -> zipfile.ZipInfo:
    """A member with a fixed date: equal programs are equal files."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.external_attr = 0o644 << 16
    return entry


def _program_document(program: Program, members: dict[str, bytes]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "name": program.name,
        "chip": chip_to_dict(program.chip),
        "inputs": [dataclasses.asdict(info) for info in program.inputs],
        "outputs": [dataclasses.asdict(info) for info in program.outputs],
        "steps": [dataclasses.asdict(step) for step in program.steps],
        "banks": [_bank_document(index, bank, members) for index, bank in enumerate(program.banks.values())],
        "regions": {
            name: _add_model(f"regions/{index}.onnx", model, members)
            for index, (name, model) in enumerate(program.regions.items())
        },
        "flows": _add_array("flows.npy", program.flows, members),
        "flow_tensors": list(program.flow_tensors),
        "chips": program.chips,
        "tiles": program.tiles,
        "model": _add_model("model.onnx", program.model, members),
        "clean": _add_model("clean.onnx", program.clean, members),
        "sample_shapes": {name: list(shape) for name, shape in program.sample_shapes.items()},
        "digital": dict(program.digital),
        "options": dict(program.options),
    }


def _bank_document(index: int, bank: Bank, members: dict[str, bytes]) -> dict[str, Any]:
    where = f"banks/{index}"
    return {
        "name": bank.name,
        "rows": bank.rows,
        "cols": bank.cols,
        "groups": bank.groups,
        "initializer": bank.initializer,
        "computed_from": list(bank.computed_from),
        "transform": bank.transform,
        "table": _add_array(f"{where}/table.npy", bank.table, members),
        "cells": _add_array(f"{where}/cells.npy", bank.cells, members),
        "bias": None if bank.bias is None else _add_array(f"{where}/bias.npy", bank.bias, members),
        "foldings": [
            {
                "node": folding.node,
                "op_type": folding.op_type,
                "had_bias": folding.had_bias,
                "scale": _add_array(f"{where}/folding_{step}_scale.npy", folding.scale, members),
                "shift": _add_array(f"{where}/folding_{step}_shift.npy", folding.shift, members),
            }
            for step, folding in enumerate(bank.foldings)
        ],
    }


def _state_document(state: ChipState, members: dict[str, bytes]) -> dict[str, Any]:
    banks = {}
    for index, (name, bank) in enumerate(state.banks.items()):
        banks[name] = {
            "g_plus": _add_array(f"state/{index}/g_plus.npy", bank.devices.g_plus, members),
            "g_minus": _add_array(f"state/{index}/g_minus.npy", bank.devices.g_minus, members),
            "low": _add_array(f"state/{index}/low.npy", bank.devices.low, members),
            "w_max": _add_array(f"state/{index}/w_max.npy", bank.w_max, members),
            **{key: getattr(bank, key) for key in ("bias_drive", "polarity", "writes")},
        }
    return {
        "seed": state.seed,
        "clock_s": state.clock_s,
        "steps": dict(state.steps),
        "banks": banks,
        "wired": None if state.wired is None else _wired_document(state.wired, members),
    }


def _wired_document(wired: WiredChip, members: dict[str, bytes]) -> dict[str, Any]:
    banks = {
        name: {
            key: _add_array(f"state/wired_{index}_{key}.npy", getattr(bank, key), members)
            for key in ("weights", "damping")
        }
        for index, (name, bank) in enumerate(wired.banks.items())
    }
    facts = {key: getattr(wired, key) for key in ("key", "largest_drop", "solves", "seconds", "error")}
    return facts | {"banks": banks}


def _calibration_document(calibration: Calibration, members: dict[str, bytes]) -> dict[str, Any]:
    banks = {}
    for index, (name, bank) in enumerate(calibration.banks.items()):
        arrays = {key: getattr(bank, key) for key in ("adc_full", "gain", "shift")}
        banks[name] = {
            "input_full": bank.input_full,
            "active_fraction": bank.active_fraction,
            **{
                key: None if array is None else _add_array(f"calibration/{index}/{key}.npy", array, members)
                for key, array in arrays.items()
            },
        }
    return {
        "what": list(calibration.what),
        "samples": calibration.samples,
        "physics": list(calibration.physics),
        "seed": calibration.seed,
        "banks": banks,
    }


def _add_array(name: str, array: npt.NDArray[Any], members: dict[str, bytes]) -> str:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    members[name] = buffer.getvalue()
    return name


def _add_model(name: str, model: Any, members: dict[str, bytes]) -> str:
    """Store an ONNX model, its large tensors as members of their own."""
    import onnx

    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        if len(tensor.raw_data) >= LARGE_TENSOR_BYTES:
            member = f"tensors/{hashlib.sha256(tensor.raw_data).hexdigest()}"
            members[member] = tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=member)
    members[name] = light.SerializeToString(deterministic=True)
    return name


def load(path: str | os.PathLike[str]) -> Program:
    """Read a program file.

    Raises:
        ProgramError: no such file; it is no program file, truncated, altered, of a later version, or hostile.
    """
    with _Reader(path) as reader:
        program = reader.checked("program.json", lambda: _read_program(reader))
        reader.checked("program.json", lambda: check_program(program, reader.origin))
        return program


def load_state(path: str | os.PathLike[str]) -> ChipState | None:
    """The chip's state that was saved in a program file, None where there is none; errors as in `load`."""
    with _Reader(path) as reader:
        document = reader.document.get("state")
        return None if document is None else reader.checked("state", lambda: _read_state(reader, document))


def load_calibration(path: str | os.PathLike[str], program: Program | None = None) -> Calibration | None:
    """The calibration that was saved in a program file, None where there is none.

    Args:
        path: the file.
        program: what `load` made of it; None: it is read for the check of the calibration.

    Raises:
        ProgramError: as in `load`, and for a calibration that does not fit the program.
    """
    with _Reader(path) as reader:
        document = reader.document.get("calibration")
        if document is None:
            return None
        calibration = reader.checked("calibration", lambda: _read_calibration(reader, document))
        made = program or reader.checked("program.json", lambda: _read_program(reader))
        reader.checked("calibration", lambda: check_calibration(calibration, made))
        return calibration


class _Reader:
    """An open program file whose members have been checked: names, sizes, hashes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.origin = Path(path).name
        self._archive, self._size = _open(path)
        self._allowed = MOST_SHARED_BYTES + 16 * self._size
        try:
            self._check_members()
            self.document = self.checked("program.json", self._read_document)
        except BaseException:
            self._archive.close()
            raise

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def checked(self, part: str, read: Callable[[], T]) -> T:
        """Run a reading function; whatever is wrong with the data becomes one clear error."""
        try:
            return read()
        except ProgramError:
            raise
        except PcmcError as error:
            raise ProgramError(f"{self.origin}: {part}: {error}") from None
        except KeyError as error:
            raise ProgramError(
                f"{self.origin}: {part}: {error} is missing: it was altered, or not written by pcmc"
            ) from None
        except (
            Exception
        ) as error:  # zip, JSON, npy and protobuf raise any class for bytes that a stranger chose
            raise ProgramError(
                f"{self.origin}: {part}: was altered or not written by pcmc: {first_line(error)}"
            ) from error

    def _check_members(self) -> None:
        total = 0
        names = self._archive.namelist()
        if len(set(names)) < len(names):
            raise ProgramError(f"{self.origin}: has two members of one name: the file is hostile")
        for info in self._archive.infolist():
            parts = info.filename.split("/")
            if (
                info.filename.startswith("/")
                or "\\" in info.filename
                or any(part in ("", ".", "..") for part in parts)
            ):
                raise ProgramError(
                    f"{self.origin}: member '{info.filename}' has a name that leads outside: the file "
                    "is hostile"
                )
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                raise ProgramError(
                    f"{self.origin}: member '{info.filename}' is compressed; pcmc stores members as they are"
                )
            total += info.file_size
        if total > self._size:
            raise ProgramError(
                f"{self.origin}: has {self._size:,} bytes but would unpack to {total:,}: the file is hostile"
            )

    def _read_document(self) -> dict[str, Any]:
        size = self._archive.getinfo("program.json").file_size
        if size > MAX_JSON_BYTES:
            raise ProgramError(
                f"{self.origin}: program.json has {size:,} bytes, at most {MAX_JSON_BYTES:,} are read"
            )
        document = json.loads(self._archive.read("program.json"))
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ProgramError(f"{self.origin}: is not a pcmc program file")
        schema = document.get("schema")
        if not isinstance(schema, int) or schema < 1:
            raise ProgramError(f"{self.origin}: has no schema version, or a wrong one")
        if schema > SCHEMA:
            raise ProgramError(
                f"{self.origin}: has schema {schema}, this pcmc reads up to {SCHEMA}: update pcmc"
            )
        return document

    def member(self, name: str) -> bytes:
        """The bytes of a member that program.json lists, checked against its hash."""
        expected = self.document["members"][name]
        data = self._archive.read(name)
        if hashlib.sha256(data).hexdigest() != expected:
            raise ProgramError(
                f"{self.origin}: member '{name}' was altered: its hash is not the one in program.json"
            )
        return data

    def array(self, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A read-only array of a member `.npy`, of the given type and no larger than the member."""
        data = self.member(name)
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"'{name}' is .npy version {version}, should be (1, 0)")
        shape, fortran, found = np.lib.format.read_array_header_1_0(stream)
        if found != np.dtype(dtype) or fortran:
            raise ValueError(f"'{name}' is {found}, should be {np.dtype(dtype)} in C order")
        array: npt.NDArray[Any] = np.frombuffer(data, found, offset=stream.tell())
        return array.reshape(shape)

    def model(self, name: str) -> Any:
        """An ONNX model with its large tensors put back."""
        import onnx
        from google.protobuf.message import DecodeError

        model = onnx.ModelProto()
        try:
            model.ParseFromString(self.member(name))
        except DecodeError:
            raise ValueError(f"'{name}' is not an ONNX model") from None
        check_text(model, f"{self.origin}: {name}")
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                location = next(
                    (entry.value for entry in tensor.external_data if entry.key == "location"), ""
                )
                self._allowed -= self._archive.getinfo(location).file_size
                if self._allowed < 0:
                    raise ProgramError(
                        f"{self.origin}: its models share tensors so often that they grow without end"
                    )
                tensor.raw_data = self.member(location)
                del tensor.external_data[:]
                tensor.ClearField("data_location")
        check_region(model, f"{self.origin}: {name}")
        return model


def _open(path: str | os.PathLike[str]) -> tuple[zipfile.ZipFile, int]:
    """The archive and its size in bytes."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise ProgramError(f"{path}: is a folder, not a program file")
        if not stat.S_ISREG(status.st_mode):  # a pipe might never end
            raise ProgramError(f"{path}: is not a regular file")
        return zipfile.ZipFile(path), status.st_size
    except ProgramError:
        raise
    except FileNotFoundError:
        raise ProgramError(f"{path}: no such file") from None
    except PermissionError as error:
        raise ProgramError(f"{path}: can't be read: {error.strerror}") from None
    except Exception as error:  # zipfile raises any class for bytes that a stranger chose
        raise ProgramError(f"{path}: is not a pcmc program file, or is truncated") from error


def _read_program(reader: _Reader) -> Program:
    document = reader.document
    return Program(
        name=str(document["name"]),
        chip=chip_from_dict(document["chip"], f"{reader.origin}: chip"),
        inputs=_infos(document["inputs"]),
        outputs=_infos(document["outputs"]),
        steps=tuple(_read_step(step) for step in document["steps"]),
        banks={str(bank["name"]): _read_bank(reader, bank) for bank in document["banks"]},
        regions={str(name): reader.model(member) for name, member in document["regions"].items()},
        flows=reader.array(document["flows"], FLOW),
        flow_tensors=_texts(document["flow_tensors"]),
        chips=int(document["chips"]),
        tiles=int(document["tiles"]),
        model=reader.model(document["model"]),
        clean=reader.model(document["clean"]),
        sample_shapes={str(name): _sizes(shape) for name, shape in document["sample_shapes"].items()},
        digital={str(name): str(why) for name, why in document["digital"].items()},
        options=dict(document["options"]),
    )


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} should be a list of names")
    return tuple(str(value) for value in values)


def _sizes(values: Any, count: int | None = None) -> tuple[int, ...]:
    sizes = tuple(int(value) for value in values)
    if count is not None and len(sizes) != count:
        raise ValueError(f"{values!r} should be {count} numbers")
    return sizes


def _infos(documents: Any) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            str(info["name"]),
            None
            if info["shape"] is None
            else tuple(dim if isinstance(dim, int) else str(dim) for dim in info["shape"]),
            int(info["dtype"]),
        )
        for info in documents
    )


def _read_step(document: Mapping[str, Any]) -> Step:
    how = document["read"]
    return Step(
        name=str(document["name"]),
        kind=str(document["kind"]),
        inputs=_texts(document["inputs"]),
        outputs=_texts(document["outputs"]),
        layers=_texts(document["layers"]),
        needs=_sizes(document["needs"]),
        unit=int(document["unit"]),
        bank=None if document["bank"] is None else str(document["bank"]),
        read=None if how is None else _read_how(how),
        dtype=int(document["dtype"]),
    )


def _read_how(document: Mapping[str, Any]) -> Read:
    window = document["window"]
    return Read(
        kind=str(document["kind"]),
        vector_output=bool(document["vector_output"]),
        auto_pad=str(document["auto_pad"]),
        window=None if window is None else _read_window(window),
    )


def _read_window(document: Mapping[str, Any]) -> Window:
    counts = {"kernel": 2, "strides": 2, "dilations": 2, "pads": 4}
    return Window(**{key: _sizes(document[key], count) for key, count in counts.items()})  # type: ignore[arg-type]


def _read_bank(reader: _Reader, document: Mapping[str, Any]) -> Bank:
    foldings = tuple(
        Folding(
            str(folding["node"]),
            str(folding["op_type"]),
            reader.array(folding["scale"], np.float64),
            reader.array(folding["shift"], np.float64),
            bool(folding["had_bias"]),
        )
        for folding in document["foldings"]
    )
    return Bank(
        name=str(document["name"]),
        rows=int(document["rows"]),
        cols=int(document["cols"]),
        table=reader.array(document["table"], BLOCK),
        cells=reader.array(document["cells"], np.float32),
        bias=None if document["bias"] is None else reader.array(document["bias"], np.float32),
        initializer=str(document["initializer"]),
        computed_from=_texts(document["computed_from"]),
        transform=str(document["transform"]),
        groups=int(document["groups"]),
        foldings=foldings,
    )


def _read_state(reader: _Reader, document: Mapping[str, Any]) -> ChipState:
    banks = {
        str(name): BankState(
            Devices(*(reader.array(bank[name], np.float32) for name in ("g_plus", "g_minus", "low"))),
            reader.array(bank["w_max"], np.float32),
            float(bank["bias_drive"]),
            int(bank["polarity"]),
            int(bank["writes"]),
        )
        for name, bank in document["banks"].items()
    }
    steps = {str(effect): int(step) for effect, step in document["steps"].items()}
    held = document.get("wired")
    wired = None if held is None else _read_wired(reader, held)
    return ChipState(int(document["seed"]), banks, float(document["clock_s"]), steps, wired)


def _read_wired(reader: _Reader, document: Mapping[str, Any]) -> WiredChip:
    return WiredChip(
        str(document["key"]),
        {
            str(name): WiredBank(*(reader.array(bank[key], np.float32) for key in ("weights", "damping")))
            for name, bank in document["banks"].items()
        },
        float(document["largest_drop"]),
        int(document["solves"]),
        float(document["seconds"]),
        None if document["error"] is None else float(document["error"]),
    )


def _read_calibration(reader: _Reader, document: Mapping[str, Any]) -> Calibration:
    banks = {}
    for name, bank in document["banks"].items():
        arrays = {
            key: None if bank[key] is None else reader.array(bank[key], np.float32)
            for key in ("adc_full", "gain", "shift")
        }
        full = None if bank["input_full"] is None else float(bank["input_full"])
        active = bank.get("active_fraction")  # files of earlier versions have none
        banks[str(name)] = BankCalibration(
            input_full=full, active_fraction=None if active is None else float(active), **arrays
        )
    return Calibration(
        _texts(document["what"]),
        int(document["samples"]),
        _texts(document["physics"]),
        int(document["seed"]),
        banks,
    )
