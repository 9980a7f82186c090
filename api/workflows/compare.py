"""Compare a model on the chip with onnxruntime: ideal mode first, then with the chip's physics over
several seeds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.random import stream
from pcmc.errors import DataError, ModelError
from pcmc.progress import progress
from pcmc.runtime.onnx_walk import first_line
from pcmc.runtime.regions import run_region
from pcmc.runtime.session import Session, check_input

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec
    from pcmc.accel.physics import Physics
    from pcmc.runtime.program import Program

Array = npt.NDArray[Any]
Metric = Callable[[list[Array], "Array | None", list[Array]], float]
BATCH = 64


@dataclass(frozen=True, slots=True)
class Error:
    """Distance of one output from onnxruntime's: largest and mean absolute error, and the largest value
    there.

    `step` is the distance between neighbouring values that the output can take, where the model rounds it;
    else None.
    """

    output: str
    largest: float
    mean: float
    scale: float
    step: float | None = None

    @property
    def relative(self) -> float:
        """Largest error over the largest output."""
        return self.largest / self.scale if self.scale else self.largest


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and its 95 % confidence interval by Student's t; without an interval for one seed."""

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found. `metrics` are by name: onnxruntime's value, ideal mode's, and that of the
    physics over seeds.
    """

    model: str
    chip: str
    samples: int
    data: str
    physics: tuple[str, ...]
    seeds: tuple[int, ...]
    ideal: tuple[Error, ...]
    with_physics: tuple[Error, ...]
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def compare(
    model: Any,
    chip: str | os.PathLike[str] | ChipSpec = "nature2018",
    *,
    data: Any = None,
    seeds: int | Sequence[int] = 5,
    physics: str | Physics = "full",
    metric: str | Metric | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    freeze: Mapping[str, Any] | None = None,
    samples: int = 16,
    seed: int = 0,
    threads: int = 0,
) -> Comparison:
    """Run a model in onnxruntime, in ideal mode, and with the chip's physics once for each seed.

    Args:
        model: as in `pcmc.compile`, or a Program.
        chip: name, path or ChipSpec; a Program brings its own.
        data: `(inputs, labels)` with an array or a dict of arrays by input name, and labels or None; without
            data, random input.
        seeds: how many seeds, counted from `seed`, or which.
        physics: as in Session; "ideal" leaves that part out.
        metric: beside the error: a name of `METRICS`, or a function `(outputs, labels, reference outputs) ->
            number`. The default is the accuracy where there are labels, and the agreement of the top class.
        shapes: sizes of open dimensions, as in `compile`.
        freeze: values of inputs that become constants, as in `compile`.
        samples: random samples, where there is no data.
        seed: first seed, and that of random input.
        threads: as in Session.

    Raises:
        DataError: data that does not fit the model, or an unknown metric.
        ModelError, ChipError: as in `compile`.
    """
    from pcmc.runtime.program import Program
    from pcmc.workflows.compile import compile

    numbers = tuple(range(seed, seed + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not numbers:
        raise DataError(f"seeds = {seeds}: at least one is needed")
    program = model if isinstance(model, Program) else compile(model, chip, shapes=shapes, freeze=freeze)
    feeds, labels = _inputs(program, data, samples, seed)
    metrics = _metrics(metric, labels)
    reference = reference_session(program, threads)
    wanted = _run(reference, feeds, program, "onnxruntime", frozen=True)
    ideal = _run(Session(program, threads=threads), feeds, program, "ideal")
    opened = [Session(program, physics, seed=number, threads=threads) for number in numbers[:1]]
    effects = opened[0].physics.names()
    runs = []
    for number in numbers if effects else ():
        session = opened.pop() if opened else Session(program, physics, seed=number, threads=threads)
        runs.append(_run(session, feeds, program, f"physics, seed {number}"))
    ends = [
        (info.name, output_step(program, info.name, want))
        for info, want in zip(program.outputs, wanted, strict=True)
    ]
    return Comparison(
        model=program.name,
        chip=program.chip.name,
        samples=_samples(feeds, program),
        data="given" if data is not None else "random",
        physics=effects,
        seeds=numbers if effects else (),
        ideal=tuple(_error(*end, got, want) for end, got, want in zip(ends, ideal, wanted, strict=True)),
        with_physics=_worst(ends, runs, wanted),
        metrics={
            name: _measured(function, wanted, ideal, runs, labels) for name, function in metrics.items()
        },
    )


def reference_session(program: Program, threads: int = 0) -> Any:
    """The user's own model in onnxruntime: what every result is compared with.

    Narrow and quantized types round where the model says, so onnxruntime's optimizations, which round
    elsewhere, are off for them.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    narrow = {
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
    }
    if any(tensor.data_type in narrow for tensor in program.model.graph.initializer):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            program.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises its own, undocumented classes
        raise ModelError(
            f"{program.name}: onnxruntime does not take the model: {first_line(error)}"
        ) from error


def random_inputs(program: Program, samples: int, seed: int) -> dict[str, Array]:
    """Normal numbers, or small whole ones for integer inputs, for each input of a program; an open batch
    takes `samples`.
    """
    import onnx

    rng = stream(seed, (), "random input")
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


def _inputs(program: Program, data: Any, samples: int, seed: int) -> tuple[dict[str, Array], Array | None]:
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


def _samples(feeds: Mapping[str, Array], program: Program) -> int:
    """Samples in the data: the length of the inputs whose first axis is open, or counts samples all the
    same.
    """
    counting = [
        len(feeds[info.name])
        for info in program.inputs
        if info.shape and (isinstance(info.shape[0], str) or _counts_samples(program))
    ]
    return max(counting, default=1)


def _batches(feeds: Mapping[str, Array], program: Program) -> list[dict[str, Array]]:
    """The data in pieces that the model takes; in one where the first axis of an input is something else
    than samples.
    """
    if not feeds or not _counts_samples(program):
        return [dict(feeds)]
    total, first = _samples(feeds, program), (program.inputs[0].shape or (BATCH,))[0]
    size = first if isinstance(first, int) else BATCH
    if total % size and isinstance(first, int):
        raise DataError(f"data: {total} samples do not divide into the model's fixed batch of {size}")
    return [{name: array[i : i + size] for name, array in feeds.items()} for i in range(0, total, size)]


def _run(
    session: Any, feeds: Mapping[str, Array], program: Program, label: str, frozen: bool = False
) -> list[Array]:
    """Outputs for all samples, batch by batch, joined along the first axis."""
    extra = _frozen_feeds(program) if frozen else {}
    names = [info.name for info in program.outputs]
    parts = []
    for batch in progress(_batches(feeds, program), label):
        for info in program.inputs:
            check_input(info, batch)
        parts.append(
            run_region(session, label, names, {**batch, **extra}) if frozen else session.run(names, batch)
        )
    if len(parts) == 1:
        return [np.asarray(output) for output in parts[0]]
    return [np.concatenate([np.atleast_1d(part[index]) for part in parts]) for index in range(len(names))]


def _frozen_feeds(program: Program) -> dict[str, Array]:
    import onnx

    values = program.options.get("freeze", {})
    inputs = {value.name: value.type.tensor_type.elem_type for value in program.model.graph.input}
    return {
        name: np.asarray(value, onnx.helper.tensor_dtype_to_np_dtype(inputs[name]))
        for name, value in values.items()
    }


def _error(name: str, step: float | None, got: Array, want: Array) -> Error:
    if got.shape != want.shape:
        raise DataError(f"output '{name}' has shape {got.shape}, onnxruntime gives {want.shape}")
    if not want.size:
        return Error(name, 0.0, 0.0, 0.0, step)
    distance = np.abs(got.astype(np.float64) - want.astype(np.float64))
    scale = float(np.abs(want.astype(np.float64)).max())
    return Error(name, float(distance.max()), float(distance.mean()), scale, step)


def output_step(program: Program, name: str, values: Array) -> float | None:
    """The distance between neighbouring values of an output near its largest; None where the model does not
    round it.

    1 for integers, that of float16 for such an output, and the scale where the output comes from a
    DequantizeLinear.
    """
    from onnx import numpy_helper

    if values.dtype.kind in "iub":
        return 1.0
    if values.dtype == np.float16:
        return float(np.spacing(np.abs(values).max()))
    graph = program.clean.graph
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] == name:
            scales = [numpy_helper.to_array(t) for t in graph.initializer if t.name == node.input[1]]
            return float(np.max(scales[0])) if scales else None
    return None


def _worst(
    ends: Sequence[tuple[str, float | None]], runs: Sequence[list[Array]], wanted: list[Array]
) -> tuple[Error, ...]:
    """The largest and the mean error of each output over all seeds."""
    found = []
    for index, end in enumerate(ends if runs else ()):
        errors = [_error(*end, run[index], wanted[index]) for run in runs]
        mean = sum(error.mean for error in errors) / len(errors)
        found.append(
            Error(end[0], max(error.largest for error in errors), mean, errors[0].scale, errors[0].step)
        )
    return tuple(found)


def _measured(
    function: Metric,
    wanted: list[Array],
    ideal: list[Array],
    runs: Sequence[list[Array]],
    labels: Array | None,
) -> dict[str, Any]:
    values = tuple(float(function(run, labels, wanted)) for run in runs)
    return {
        "onnxruntime": float(function(wanted, labels, wanted)),
        "ideal": float(function(ideal, labels, wanted)),
        "physics": asdict(interval(values)) if values else None,
    }


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % confidence interval (Student's t) of independent values."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, None, None, tuple(values))
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values)) * float(t.ppf(0.975, len(values) - 1))
    return Interval(mean, mean - spread, mean + spread, tuple(values))


def _classes(outputs: list[Array]) -> Iterator[Array]:
    """Each output that has scores for classes: its top class for each sample."""
    for output in outputs:
        if (
            output.ndim >= 2
            and output.shape[-1 if output.ndim == 2 else 1] > 1
            and output.dtype.kind in "fiu"
        ):
            yield np.argmax(output.reshape(len(output), -1), axis=1) if output.size else np.zeros(0, np.int64)


def _agreement(outputs: list[Array], labels: Array | None, reference: list[Array]) -> float:
    pairs = list(zip(_classes(outputs), _classes(reference), strict=True))
    return float(np.mean([np.mean(got == want) for got, want in pairs])) if pairs else math.nan


def _accuracy(outputs: list[Array], labels: Array | None, reference: list[Array]) -> float:
    if labels is None:
        raise DataError("metric 'accuracy' needs labels: give data with 'y'")
    top = next(_classes(outputs), None)
    if top is None:
        raise DataError("metric 'accuracy' needs an output with scores for classes, [samples, classes]")
    if len(top) != labels.size:
        raise DataError(f"metric 'accuracy': the model gives {len(top)} results for {labels.size} labels")
    return float(np.mean(top == labels.reshape(-1)))


def _distance(power: int) -> Metric:
    def distance(outputs: list[Array], labels: Array | None, reference: list[Array]) -> float:
        parts = [
            np.abs(o.astype(np.float64) - r.astype(np.float64)) ** power
            for o, r in zip(outputs, reference, strict=True)
        ]
        return float(np.mean(np.concatenate([part.ravel() for part in parts])))

    return distance


METRICS: Mapping[str, Metric] = {
    "accuracy": _accuracy,
    "agreement": _agreement,
    "mae": _distance(1),
    "mse": _distance(2),
}


def _metrics(metric: str | Metric | None, labels: Array | None) -> dict[str, Metric]:
    if callable(metric):
        return {getattr(metric, "__name__", "metric"): metric}
    if metric is None:
        return {**({"accuracy": _accuracy} if labels is not None else {}), "agreement": _agreement}
    chosen = metric.split(",")
    unknown = [name for name in chosen if name not in METRICS]
    if unknown:
        raise DataError(
            f"metric '{unknown[0]}' is unknown; there are {', '.join(METRICS)}, or give a function"
        )
    return {name: METRICS[name] for name in chosen}
