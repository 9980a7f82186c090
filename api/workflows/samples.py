"""The samples of a comparison: what the user gives or random input, in pieces that the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.random import generator
from pcmc.errors import DataError

if TYPE_CHECKING:
    from pcmc.runtime.program import Program

Array = npt.NDArray[Any]
BATCH = 64


def random_inputs(program: Program, samples: int, seed: int) -> dict[str, Array]:
    """Normal numbers, or small whole ones for integer inputs, for each input of a program; an open batch
    takes `samples`.
    """
    import onnx

    rng = generator(seed, (), "random input")
    feeds: dict[str, Array] = {}
    batch = {info.shape[0] for info in program.inputs if info.shape and isinstance(info.shape[0], str)}
    for info in program.inputs:
        sizes = program.sample_shapes[info.name]
        shape = tuple(
            samples if dim in batch else size for dim, size in zip(info.shape or sizes, sizes, strict=True)
        )
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(info.dtype))
        if dtype.kind in "iu":
            low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.itemsize == 1 else (0, 1)
            feeds[info.name] = rng.integers(low, high, shape, endpoint=True).astype(dtype)
        elif dtype.kind == "b":
            feeds[info.name] = rng.random(shape) < 0.5
        else:
            feeds[info.name] = rng.standard_normal(shape).astype(dtype)
    return feeds


def inputs_and_labels(
    program: Program, data: Any, samples: int, seed: int
) -> tuple[dict[str, Array], Array | None]:
    """The arrays that the model takes, and labels, of what the user gave; random input where that is None.

    Raises:
        DataError: data that does not fit the model's inputs, or labels that do not fit the data.
    """
    if data is None:
        return random_inputs(program, samples, seed), None
    inputs, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if not isinstance(inputs, Mapping):
        if len(program.inputs) != 1:
            raise DataError(
                f"the model has inputs {', '.join(i.name for i in program.inputs)}: give a dict of "
                "arrays by input name"
            )
        inputs = {program.inputs[0].name: inputs}
    missing = [info.name for info in program.inputs if info.name not in inputs]
    if missing:
        raise DataError(f"data: input '{missing[0]}' is missing; given was {', '.join(inputs) or 'nothing'}")
    feeds = {info.name: np.asarray(inputs[info.name]) for info in program.inputs}
    lengths = (
        {len(array) if array.ndim else 0 for array in feeds.values()} if _counts_samples(program) else set()
    )
    if labels is not None:
        labels = np.asarray(labels)
        if labels.size != (len(labels) if labels.ndim else 0):
            raise DataError(
                f"data: labels have shape {list(labels.shape)}, should be one class number for each sample"
            )
        lengths.add(len(labels))
    if len(lengths) > 1 or 0 in lengths:
        raise DataError(f"data: inputs and labels have different or no samples: {sorted(lengths)}")
    return feeds, labels


def _counts_samples(program: Program) -> bool:
    """Whether the first axis of every input counts samples: all are open, or all of one fixed size."""
    first = {info.shape[0] if info.shape else None for info in program.inputs}
    return all(isinstance(dim, str) for dim in first) or (len(first) == 1 and None not in first)


def sample_count(feeds: Mapping[str, Array], program: Program) -> int:
    """Samples in the data: the length of the inputs whose first axis is open, or counts samples all the
    same.
    """
    counting = [
        len(feeds[info.name])
        for info in program.inputs
        if info.shape and (isinstance(info.shape[0], str) or _counts_samples(program))
    ]
    return max(counting, default=1)


def batches(feeds: Mapping[str, Array], program: Program) -> list[dict[str, Array]]:
    """The data in pieces that the model takes; in one where the first axis of an input is something else
    than samples.
    """
    if not feeds or not _counts_samples(program):
        return [dict(feeds)]
    total, first = sample_count(feeds, program), (program.inputs[0].shape or (BATCH,))[0]
    size = first if isinstance(first, int) else BATCH
    if total % size and isinstance(first, int):
        raise DataError(f"data: {total} samples do not divide into the model's fixed batch of {size}")
    return [{name: array[i : i + size] for name, array in feeds.items()} for i in range(0, total, size)]
