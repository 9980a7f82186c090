"""Read a model from a file, bytes or a ModelProto, and refuse what is broken, hostile or unknown before
anything uses it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pcmc.errors import ModelError
from pcmc.runtime.onnx_walk import KNOWN_DOMAINS, first_line, nodes_of, tensors_of


def read_model(source: Any) -> tuple[Any, str]:
    """Read an ONNX model, its external data included.

    Args:
        source: a path, the bytes of a file, or an onnx.ModelProto (which is copied, not changed).

    Returns:
        the ModelProto with all weights inside, and the name to use in messages.

    Raises:
        ModelError: no such file, not ONNX, truncated, missing or unsafe external data, an invalid graph, or
            an operator of a domain that onnxruntime does not know.
    """
    import onnx

    if isinstance(source, onnx.ModelProto):
        model, origin, folder = onnx.ModelProto(), source.graph.name or "model", None
        model.CopyFrom(source)
    elif isinstance(source, bytes):
        model, origin, folder = _parse(source, "model"), "model", None
    else:
        path = Path(os.fspath(source))
        model, origin, folder = _parse(_read_bytes(path), path.name), path.name, path.resolve().parent
    with readable_names(origin):
        _load_external_data(model, origin, folder)
        _check_data(model, origin)
        _check(model, origin)
    return model, origin


@contextmanager
def readable_names(origin: str) -> Iterator[None]:
    """Names are text, which protobuf finds out only when one is looked at; ModelError where one is not."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{origin}: is not a valid ONNX model: a name is not UTF-8 text: {error.reason}"
        ) from None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from None


def _parse(data: bytes, origin: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{origin}: is not an ONNX model, or is truncated") from None
    if not model.HasField("graph") or not model.opset_import or not model.ir_version:
        raise ModelError(f"{origin}: is not an ONNX model: it has no graph, no opset or no IR version")
    return model


def _load_external_data(model: Any, origin: str, folder: Path | None) -> None:
    """Fill tensors that keep their data in files beside the model; the location may not leave the model's
    folder.
    """
    import onnx

    for tensor in (tensor for part in (model.graph, *model.functions) for tensor in tensors_of(part)):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        where = f"{origin}: tensor '{tensor.name}' keeps its data in '{entries.get('location', '')}'"
        if folder is None:
            raise ModelError(f"{where}, but the model was not given as a file: give its path")
        tensor.raw_data = _external_bytes(entries, folder, where)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT


def _external_bytes(entries: dict[str, str], folder: Path, where: str) -> bytes:
    location = entries.get("location", "")
    path = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(folder):
        raise ModelError(f"{where}, which is outside the model's folder: only files in that folder are read")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError:
        raise ModelError(f"{where} with an offset or length that is not a whole number") from None
    if not path.is_file():
        raise ModelError(f"{where}, which is missing: put that file beside the model")
    size = path.stat().st_size
    length = size - offset if length < 0 else length
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(f"{where} at {offset} + {length} bytes, but that file has {size:,}: it is truncated")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _check_data(model: Any, origin: str) -> None:
    """Every tensor holds as many values as its dimensions say, which onnx's checker leaves open."""
    from onnx import numpy_helper

    for tensor in (tensor for part in (model.graph, *model.functions) for tensor in tensors_of(part)):
        try:
            numpy_helper.to_array(tensor)
        except UnicodeDecodeError:
            raise
        except Exception as error:  # TypeError, ValueError, KeyError: as the broken field has it
            raise ModelError(
                f"{origin}: tensor '{tensor.name}' {list(tensor.dims)}: its data does not fit its type "
                "and dimensions: "
                f"{first_line(error)}"
            ) from None


def _check(model: Any, origin: str) -> None:
    """Refuse unknown domains, a later opset, and what onnx's own checker finds.

    The checker wants a shape, if only of no dimensions, for each input and output; ONNX and onnxruntime do
    not.
    """
    import onnx

    local = {(function.domain, function.name) for function in model.functions}
    for node in (node for part in (model.graph, *model.functions) for node in nodes_of(part)):
        if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in local:
            raise ModelError(
                f"{origin}: node '{node.name or next(iter(node.output), '')}' "
                f"({node.domain}:{node.op_type}): the operator domain '{node.domain}' is not one that "
                "onnxruntime knows; export the model without it"
            )
    for value in model.graph.input:
        element = value.type.tensor_type.elem_type
        if value.type.HasField("tensor_type") and element not in onnx.helper.get_all_tensor_dtypes():
            raise ModelError(f"{origin}: input '{value.name}' is of an unknown type, {element}")
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ModelError(
                f"{origin}: has opset {opset.version}, the installed onnx knows up to {newest}: update onnx"
            )
    values = [
        value.type.tensor_type
        for value in (*model.graph.input, *model.graph.output)
        if value.type.HasField("tensor_type")
    ]
    shapeless = [value for value in values if not value.HasField("shape")]
    for value in shapeless:
        value.shape.SetInParent()
    try:
        if _fits_checker(model):
            onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(f"{origin}: is not a valid ONNX model: {first_line(error)}") from None
    for value in shapeless:
        value.ClearField("shape")


def _fits_checker(model: Any) -> bool:
    """Whether the model is below the 2 GiB that the checker, as all of protobuf, can take."""
    from google.protobuf.message import EncodeError

    try:
        return bool(model.ByteSize() < 2**31)
    except EncodeError:
        return False
