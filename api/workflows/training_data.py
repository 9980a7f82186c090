"""What a network is trained on: a data set by name, an .npz file or arrays, in the layout that it takes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError

if TYPE_CHECKING:
    from pcmc.runtime.program import Program, TensorInfo

Array = npt.NDArray[Any]

#: Names that `--data` knows, beside those of .npz files.
NAMES = ("mnist", "mnist-backrand", "cifar10", "cifar100", "digits")
#: Training and test images as published.
PUBLISHED = {"mnist": (60_000, 10_000), "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000)}
#: The part of MNIST's 28 x 28 pixels that fits 528 rows of a chip: rows 2 to 25, columns 3 to 24 from 0.
CROP = (slice(2, 26), slice(3, 25))
#: Seeds of the random backgrounds of the training and of the test images.
BACKGROUND_SEEDS = (2018, 2019)


class TrainingData(NamedTuple):
    """Samples and their labels, for training and, where there are any, for testing.

    `x_*` are as the model takes them, with the samples on the first axis; `y_*` are class numbers, int64 [n],
    or targets, float32 of the shape of the model's output. `note` says in one line what the data are.
    """

    x_train: Array
    y_train: Array
    x_test: Array | None
    y_test: Array | None
    note: str


def training_data(spec: Any, program: Program) -> TrainingData:
    """The data that a program is to be trained on.

    A data set of images is brought into the layout of the model's input: [N, channels, height, width] or
    channels last, flat ([N, 784], for CIFAR plane after plane [N, 3072]), with an axis of one more at the end
    or without the axis of one channel; MNIST also cropped to 24 x 22 pixels ([N, 528]). Pixels are scaled to
    0..1 for float inputs and left as they are, 0..255, for uint8. A model that wants other numbers (mean and
    deviation of its training set, for example) takes them from an .npz file of the user's own.

    An .npz file has the samples under `x`, or the name of the model's input, and the labels under `y`; and,
    if wanted, `x_test` (or input name and `_test`) and `y_test`. Its values are taken as they are. Labels are
    class numbers [N], or targets (one-hot, or any numbers) in the shape of the model's first output.

    Args:
        spec: one of `NAMES`, the path of an .npz file, a mapping of arrays named as in such a file, or a
            tuple (x, y) or (x, y, x_test, y_test).
        program: the compiled model.

    Raises:
        DataError: an unknown name, a file that can't be read, data that do not fit the model's input or
            output, x and y of different lengths, no samples, values that are not finite.
    """
    if len(program.inputs) != 1:
        names = ", ".join(info.name for info in program.inputs) or "none"
        raise DataError(f"{program.name}: training takes a model with one input; this one has {names}")
    if isinstance(spec, str) and spec in NAMES:
        return _named(spec, program)
    if isinstance(spec, Mapping):
        return _from_arrays(spec, program, "data")
    if isinstance(spec, tuple | list):
        if len(spec) not in (2, 4):
            raise DataError(f"data: {len(spec)} arrays; should be (x, y) or (x, y, x_test, y_test)")
        keys = ("x", "y", "x_test", "y_test")
        given = {key: value for key, value in zip(keys, spec, strict=False) if value is not None}
        return _from_arrays(given, program, "data")
    if isinstance(spec, str | os.PathLike):
        return _from_file(spec, program)
    raise DataError(f"data: {type(spec).__name__}; should be a name, an .npz file, or (x, y)")


def _from_file(spec: str | os.PathLike[str], program: Program) -> TrainingData:
    from pcmc.commands.inputs import read_arrays

    path = Path(spec)
    if not path.suffix and not path.exists():
        raise DataError(
            f"no data set is called '{path}'; there are {', '.join(NAMES)}; or give an .npz file with x and y"
        )
    return _from_arrays(read_arrays(path), program, str(path))


# --- data sets by name


def _named(name: str, program: Program) -> TrainingData:
    (info,) = program.inputs
    sets, note = _digits() if name == "digits" else _images(name)
    (x_train, y_train), (x_test, y_test) = sets
    arranged = [_arranged(images, info, name) for images in (x_train, x_test)]
    for labels in (y_train, y_test):
        _check_labels(labels, _output_shape(program), f"{name}: labels")
    layout = "" if arranged[0].shape[1:] == x_train.shape[1:] else f" as {_text(arranged[0].shape[1:])}"
    if math.prod(arranged[0].shape[1:]) < math.prod(x_train.shape[1:]):
        layout += " (cropped to 24 x 22 pixels)"
    scale = "0..255" if arranged[0].dtype == np.uint8 else "0..1"
    return TrainingData(arranged[0], y_train, arranged[1], y_test, f"{name}: {note}{layout}, pixels {scale}")


def _images(name: str) -> tuple[list[tuple[Array, Array]], str]:
    """Training and test images, uint8 [n, channels, height, width], with labels; and what they are."""
    from pcmc.models import datasets

    published = name.removesuffix("-backrand")
    sets = [datasets.load(published, split) for split in ("train", "test")]
    counts = [
        f"{len(labels):,} {kind} images" + (f" (of {whole:,} published)" if len(labels) != whole else "")
        for (_, labels), kind, whole in zip(sets, ("training", "test"), PUBLISHED[published], strict=True)
    ]
    note = " and ".join(counts)
    if name == published:
        return list(sets), note
    made = [
        (datasets.random_background(images, seed), labels)
        for (images, labels), seed in zip(sets, BACKGROUND_SEEDS, strict=True)
    ]
    return made, note + " of MNIST with uniform random backgrounds: a reconstruction, not the published set"


def _digits() -> tuple[list[tuple[Array, Array]], str]:
    from pcmc.models import datasets

    x_train, y_train, x_test, y_test = datasets.digits()
    note = f"{len(y_train)} training and {len(y_test)} test images, both of the shipped networks' test images"
    return [(x_train, y_train), (x_test, y_test)], note


def _arranged(images: Array, info: TensorInfo, name: str) -> Array:
    """Images [n, channels, height, width], uint8 0..255 or float32 0..1, as a model takes them."""
    import onnx

    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(info.dtype))
    if dtype.kind != "f" and dtype != np.uint8:
        raise DataError(
            f"{name}: the model's input '{info.name}' is of type {dtype}; images are given as floats or "
            "uint8: make an .npz file with the numbers that it wants"
        )
    wanted = None if info.shape is None else info.shape[1:]
    found = next((view for view in _layouts(images) if wanted is not None and _fits(view, wanted)), None)
    if found is None:
        known = ", ".join(dict.fromkeys(_text(view.shape[1:]) for view in _layouts(images[:1])))
        raise DataError(
            f"{name}: the model's input '{info.name}' is {_text(info.shape)}; the images are [N, ...] of "
            f"{known}: make an .npz file with what it takes"
        )
    counts = images.dtype == np.uint8
    if dtype == np.uint8:
        return np.ascontiguousarray(found if counts else np.rint(found * 255).astype(np.uint8))
    scaled = found / np.float32(255) if counts else found
    return np.ascontiguousarray(scaled, dtype)


def _layouts(images: Array) -> Iterator[Array]:
    """Views or copies of images [n, channels, height, width] in every layout that models take, likelier ones
    first.
    """
    n, channels, height, width = images.shape
    parts = [images]
    if (channels, height, width) == (1, 28, 28):
        parts.append(images[:, :, CROP[0], CROP[1]])
    for part in parts:
        yield part
        yield part.transpose(0, 2, 3, 1)
        flat = part.reshape(n, -1)
        yield flat
        yield flat[:, :, np.newaxis]
        yield flat[:, np.newaxis]
        if channels == 1:
            yield part[:, 0]


def _fits(array: Array, wanted: tuple[int | str, ...]) -> bool:
    sizes = array.shape[1:]
    return len(sizes) == len(wanted) and all(
        isinstance(want, str) or want == size for want, size in zip(wanted, sizes, strict=True)
    )


# --- the user's own arrays


def _from_arrays(arrays: Mapping[str, Any], program: Program, where: str) -> TrainingData:
    (info,) = program.inputs
    found = {name: _array(array, f"{where}: {name}") for name, array in arrays.items()}
    x_name = _samples_name(found, info.name, where)
    test_names = [name for name in (f"{info.name}_test", "x_test") if name in found]
    if "y" not in found:
        raise DataError(f"{where}: has no labels: they should be named y; it has {', '.join(found)}")
    if bool(test_names) != ("y_test" in found):
        there, missing = ("y_test", "x_test") if "y_test" in found else (test_names[0], "y_test")
        raise DataError(f"{where}: has {there}, but no {missing}: give both or neither")
    output = _output_shape(program)
    x, y = _pair(found, x_name, "y", info, output, where)
    note = f"{where}: {len(x):,} training samples"
    if not test_names:
        return TrainingData(x, y, None, None, f"{note}, no test samples (x_test and y_test)")
    x_test, y_test = _pair(found, test_names[0], "y_test", info, output, where)
    if y.ndim != y_test.ndim:
        raise DataError(f"{where}: y has class numbers and y_test has targets, or the other way around")
    return TrainingData(x, y, x_test, y_test, f"{note} and {len(x_test):,} test samples")


def _array(value: Any, where: str) -> Array:
    try:
        return np.asarray(value)
    except ValueError:
        raise DataError(f"{where}: is no array: its rows have different lengths") from None


def _samples_name(found: Mapping[str, Array], input_name: str, where: str) -> str:
    """The array with the samples: named as the input or x; or the only one beside labels and test data."""
    labels = {"y", "y_test", "x_test", f"{input_name}_test"}
    for name in (input_name, "x"):
        if name in found and name not in labels:
            return name
    others = [name for name in found if name not in labels]
    if len(others) == 1:
        return others[0]
    raise DataError(
        f"{where}: has no samples: they should be named x or {input_name}; it has "
        f"{', '.join(found) or 'nothing'}"
    )


def _pair(
    found: Mapping[str, Array],
    x_name: str,
    y_name: str,
    info: TensorInfo,
    output: tuple[int | str, ...] | None,
    where: str,
) -> tuple[Array, Array]:
    x = _samples(found[x_name], info, f"{where}: {x_name}")
    y = found[y_name]
    count = len(y) if y.ndim else 0
    if len(x) != count:
        raise DataError(f"{where}: {x_name} has {len(x):,} samples, {y_name} has {count:,} labels")
    return x, _labels(y, output, f"{where}: {y_name}")


def _samples(x: Array, info: TensorInfo, where: str) -> Array:
    """Samples in the type of the model's input, checked."""
    import onnx

    wanted = None if info.shape is None else info.shape[1:]
    if x.dtype.kind not in "biuf":
        raise DataError(f"{where}: its values are of type {x.dtype}; should be numbers")
    if wanted is not None and (not x.ndim or not _fits(x, wanted)):
        raise DataError(
            f"{where}: has shape {_text(x.shape)}; the model's input '{info.name}' takes "
            f"{_text(('N', *wanted))}"
        )
    if not x.size:
        raise DataError(f"{where}: has shape {_text(x.shape)}: there is nothing in it")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(info.dtype))
    with np.errstate(over="ignore", invalid="ignore"):  # what is out of range is found below
        typed = np.ascontiguousarray(x, dtype)
    if dtype.kind in "biu":
        if x.dtype != dtype and not np.array_equal(typed.astype(np.float64), x.astype(np.float64)):
            raise DataError(f"{where}: the model takes {dtype}; {x.dtype} values do not all fit")
        return typed
    wrong = np.flatnonzero(~np.isfinite(typed).reshape(len(typed), -1).all(axis=1))
    if len(wrong):
        raise DataError(
            f"{where}: sample {wrong[0]:,} has values that are NaN or infinite as {dtype} ({len(wrong):,} of "
            f"{len(typed):,} samples have)"
        )
    return typed


def _labels(y: Array, output: tuple[int | str, ...] | None, where: str) -> Array:
    """Class numbers, int64 [n], or targets, float32 [n, ...], checked against the output's shape."""
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: labels are of type {y.dtype}; should be numbers: class numbers or targets")
    wrong = np.flatnonzero(~np.isfinite(y).reshape(len(y), -1).all(axis=1))
    if len(wrong):
        raise DataError(f"{where}: label {wrong[0]:,} is NaN or infinite ({len(wrong):,} of {len(y):,} are)")
    single = _classes(output) == 1
    column = y.ndim == 2 and y.shape[1] == 1
    if (y.ndim == 1 or column) and not single:
        return _check_labels(y.reshape(-1), output, where)
    if y.ndim == 1 and output is not None:
        y = y.reshape(len(y), *(1 for _ in output))
    if output is not None and not _fits(y, output):
        raise DataError(
            f"{where}: has shape {_text(y.shape)}; should be class numbers [N] or targets "
            f"{_text(('N', *output))}, as the model's output"
        )
    return np.ascontiguousarray(y, np.float32)


def _check_labels(y: Array, output: tuple[int | str, ...] | None, where: str) -> Array:
    """Class numbers [n] as int64, checked against the number of outputs."""
    with np.errstate(invalid="ignore"):  # numbers that no integer can hold are found below
        numbers = y.astype(np.int64)
    uneven = np.flatnonzero(numbers != y)
    if len(uneven):
        raise DataError(f"{where}: label {uneven[0]:,} is {y[uneven[0]]}; class numbers are whole")
    classes = _classes(output)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= (classes or np.iinfo(np.int64).max)))
    if len(wrong):
        fitting = (
            f"the model has {classes:,} outputs, so they are 0 to {classes - 1:,}"
            if classes
            else "class numbers start at 0"
        )
        raise DataError(f"{where}: label {wrong[0]:,} is {numbers[wrong[0]]}; {fitting}")
    return numbers


def _output_shape(program: Program) -> tuple[int | str, ...] | None:
    """What the model's first output has for each sample; None where that is unknown."""
    shape = program.outputs[0].shape
    return None if shape is None else shape[1:]


def _classes(output: tuple[int | str, ...] | None) -> int | None:
    sizes = [size for size in output or () if isinstance(size, int)]
    return math.prod(sizes) if output is not None and len(sizes) == len(output) else None


def _text(shape: tuple[int | str, ...] | None) -> str:
    return "of unknown shape" if shape is None else f"[{', '.join(map(str, shape))}]"
