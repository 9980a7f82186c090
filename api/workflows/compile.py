"""`pcmc.compile`: the compiler, with the models that ship with pcmc by name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pcmc.errors import ModelError

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec
    from pcmc.runtime.program import Program


def compile(
    model: Any,
    chip: str | os.PathLike[str] | ChipSpec = "nature2018",
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    freeze: Mapping[str, Any] | None = None,
    digital: Sequence[str] = (),
    check: bool = False,
) -> Program:
    """Compile an ONNX model onto a chip.

    Args:
        model: a path, the name of a shipped model ("digits-cnn"), the bytes of a file, or an onnx.ModelProto.
        chip: name of a shipped chip, path of a chip file, or a ChipSpec.
        shapes: sizes of inputs with open dimensions, by input name; a leading batch dimension stays open all
            the same.
        freeze: values of inputs that become constants, by input name.
        digital: layers that stay off the tiles and run in onnxruntime, named as in `pcmc where`: by an
            operation, by one that its matrix would absorb, or by an initializer of its weights. An operator
            that is refused may be named too, and so what holds one in its bodies: all of it stays digital.
        check: run the checks of every stage's result.

    Raises:
        ModelError: the model can't be read, has what pcmc does not map, or no layer of a name in `digital`.
        ChipError: the chip file is wrong, or the board too small.
    """
    from pcmc.compiler import compile as compile_model

    source = model_path(model) if isinstance(model, str | os.PathLike) else model
    return compile_model(source, chip, shapes=shapes, freeze=freeze, digital=digital, check=check)


def model_path(model: str | os.PathLike[str]) -> Path:
    """The path of a model that is named by its file or, where there is no such file, as one that ships with
    pcmc.

    Raises:
        ModelError: neither.
    """
    from pcmc.models import zoo

    path = Path(model)
    if not path.exists() and zoo.is_name(os.fspath(model)):
        return zoo.path(os.fspath(model))
    if not path.exists() and not path.suffix:
        raise ModelError(f"{path}: no such file, and no shipped model: those are {', '.join(zoo.names())}")
    return path
