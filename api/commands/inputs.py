"""What a user names on the command line, as objects: models, programs, shapes, arrays; and files that are
written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError, ProgramError
from pcmc.runtime.onnx_walk import first_line
from pcmc.workflows.compile import compile, model_path

if TYPE_CHECKING:
    from pcmc.runtime.calibration import Calibration
    from pcmc.runtime.program import Program
    from pcmc.runtime.state import ChipState

Array = npt.NDArray[Any]
DEFAULT_CHIP = "nature2018"
MOST_ELEMENTS = 1 << 31


def shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """`["x=1,3,32,32"]` as `{"x": (1, 3, 32, 32)}`."""
    found = {}
    for text in texts or ():
        name, separator, sizes = text.rpartition("=")
        try:
            found[name] = tuple(int(size) for size in sizes.split(","))
        except ValueError:
            separator = ""
        if not separator or not name or not all(1 <= size < MOST_ELEMENTS for size in found.get(name, (0,))):
            raise DataError(f"--shape {_short(text)}: should be NAME=1,3,32,32 with whole sizes from 1 on")
    return found


def frozen(texts: Sequence[str] | None) -> dict[str, Any]:
    """`["sr=16000"]` as `{"sr": 16000}`; a list in brackets for arrays."""
    found: dict[str, Any] = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            separator = ""
        if not separator or not name or not isinstance(found[name], int | float | list):
            raise DataError(f"--freeze {_short(text)}: should be NAME=16000, or NAME=[1,2] for an array")
    return found


def layers(texts: Sequence[str] | None) -> list[str]:
    """`["conv1,fc", "conv2"]` as `["conv1", "fc", "conv2"]`."""
    names = [name.strip() for text in texts or () for name in text.split(",")]
    if not all(names):
        raise DataError(f"--digital {_short(','.join(texts or ()))}: should be LAYER,LAYER, no name empty")
    return names


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."


def compiled(
    source: Path,
    chip: str | None,
    shape: Sequence[str] | None,
    freeze: Sequence[str] | None,
    digital: Sequence[str] | None = None,
    check: bool = False,
) -> Program:
    """Compile a model file."""
    return compile(
        source,
        chip or DEFAULT_CHIP,
        shapes=shapes(shape),
        freeze=frozen(freeze),
        digital=layers(digital),
        check=check,
    )


def program(
    name: str,
    chip: str | None,
    shape: Sequence[str] | None,
    freeze: Sequence[str] | None,
    digital: Sequence[str] | None = None,
) -> Program:
    """A program: read from a .pcmc file, or compiled from a model.

    Raises:
        DataError: a flag of the compiler for a program that is compiled already.
    """
    if not name.endswith(".pcmc"):
        return compiled(model_path(name), chip, shape, freeze, digital)
    flags = (("--chip", chip), ("--shape", shape), ("--freeze", freeze), ("--digital", digital))
    for flag, value in flags:
        if value:
            raise DataError(
                f"{name}: {flag} is for models; this program is compiled already: compile the model again"
            )
    from pcmc.runtime.program_file import load

    return load(name)


def stored_calibration(name: str, loaded: Program) -> Calibration | None:
    """The calibration in a .pcmc file; None for a model."""
    if not name.endswith(".pcmc"):
        return None
    from pcmc.runtime.program_file import load_calibration

    return load_calibration(name, loaded)


def stored_state(path: Path | None, calibrating_too: bool) -> ChipState | None:
    """The devices in a .pcmc file; None without one.

    Raises:
        ProgramError: there are none in it.
        DataError: the chip is to be calibrated, too, which takes one of its own.
    """
    if path is None:
        return None
    if calibrating_too:
        raise DataError("--state and --calibrate: a calibration is that of a newly programmed chip; take one")
    from pcmc.runtime.program_file import load_state

    state = load_state(path)
    if state is None:
        raise ProgramError(f"{path}: holds no devices; pcmc run --save-state writes some")
    return state


def calibration_data(path: Path | None, test: Path | None, loaded: Program) -> dict[str, Array] | None:
    """The inputs that a chip is calibrated with, of an .npz file; labels in it are ignored.

    Raises:
        DataError: it is the file with the test data, or as in `arrays`.
    """
    if path is None:
        return None
    if test is not None and test.exists() and path.exists() and path.samefile(test):
        raise DataError(f"--calibrate {path}: these are the test data; calibrate with others")
    return arrays(path, loaded)


def write_graph(
    source: Path,
    shape: Sequence[str] | None,
    freeze: Sequence[str] | None,
    digital: Sequence[str] | None,
    target: Path,
) -> None:
    """Write a model's lowered OpGraph as Graphviz (.dot, .gv) or JSON."""
    from pcmc.compiler.frontend import load
    from pcmc.compiler.graph import opgraph_as_dict, opgraph_as_dot
    from pcmc.compiler.lowering import lower

    if target.suffix not in (".dot", ".gv", ".json"):
        raise DataError(f"--graph {target}: the name should end in .dot, .gv or .json")
    clean = load(source, shapes(shape), frozen(freeze))
    graph = lower(clean.graph, clean.computed_from, clean.origin, layers(digital))
    if target.suffix == ".json":
        write_json(opgraph_as_dict(graph), target)
    else:
        _write_text(opgraph_as_dot(graph), target)


def write_json(document: Any, target: Path) -> None:
    """Write plain data as JSON."""
    _write_text(json_text(document) + "\n", target)


def json_text(document: Any) -> str:
    """Plain data as JSON; a number that is not finite, which JSON does not have, as null."""
    return json.dumps(_finite(document), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_text(text: str, target: Path) -> None:
    from pcmc.runtime.files import replacing

    with replacing(target) as file:
        file.write(text.encode())


def write_arrays(values: Mapping[str, Array], target: Path) -> None:
    """Write arrays by name as .npz."""
    from pcmc.runtime.files import replacing

    with replacing(target) as file:
        np.savez(file, **values)  # type: ignore[arg-type]  # numpy's stubs take the names for its own option


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of an .npz file.

    Raises:
        DataError: no such file, not .npz, or an array of Python objects.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.lib.npyio.NpzFile):
            with archive:
                return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # zip and npy raise any class for strange bytes; MemoryError for huge shapes
        raise DataError(f"{path}: is not an .npz file of plain arrays: {first_line(error)}") from error
    raise DataError(f"{path}: holds one array; save it with a name: numpy.savez('{path.stem}.npz', x=array)")


def arrays(path: Path, loaded: Program) -> dict[str, Array]:
    """The inputs of a program from an .npz file; one array of any name serves a program with one input."""
    found = read_arrays(path)
    found.pop("y", None) if "y" not in {info.name for info in loaded.inputs} else None
    if len(loaded.inputs) == 1 and len(found) == 1:
        return {loaded.inputs[0].name: next(iter(found.values()))}
    return found


def labelled(path: Path, loaded: Program) -> tuple[dict[str, Array], Array | None]:
    """Inputs and, under `y`, labels from an .npz file."""
    names = {info.name for info in loaded.inputs}
    labels = None if "y" in names else read_arrays(path).get("y")
    return arrays(path, loaded), labels


def shipped_data(model: str) -> tuple[Array, Array] | None:
    """The test data of a shipped model; None for any other model."""
    from pcmc.models import zoo

    return zoo.test_data(model) if zoo.is_name(model) else None
