"""Compare a model on the chip with onnxruntime: ideal mode first, then with the chip's physics over
several seeds; and what each effect and each matrix costs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.physics import Physics, resolve
from pcmc.errors import DataError
from pcmc.workflows import costs
from pcmc.workflows.costs import EffectCost, LayerCost
from pcmc.workflows.metrics import Metric, chosen_metrics, interval
from pcmc.workflows.runs import Bench, Job, Judge, Scores
from pcmc.workflows.samples import batches, inputs_and_labels, sample_count

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec
    from pcmc.runtime.program import Program

Array = npt.NDArray[Any]


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
class Comparison:
    """What `compare` found.

    `metrics` are by name: onnxruntime's value, ideal mode's, and that of the physics over seeds. `at` and
    `compensation` are as they were asked for. `ablation` and `layers` are what each effect and each matrix
    costs, the dearest first, where that was asked for.
    """

    model: str
    chip: str
    physics: tuple[str, ...]
    seeds: tuple[int, ...]
    ideal: tuple[Error, ...]
    with_physics: tuple[Error, ...]
    samples: int = 0
    data: str = "random"
    at: float | str | None = None
    compensation: str = "none"
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ablation: tuple[EffectCost, ...] = ()
    layers: tuple[LayerCost, ...] = ()

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
    digital: Sequence[str] = (),
    samples: int = 16,
    seed: int = 0,
    threads: int = 0,
    at: float | str | None = None,
    compensation: str = "none",
    ablate: bool = False,
    by_layer: bool = False,
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
        digital: layers that stay off the tiles, as in `compile`.
        samples: random samples, where there is no data.
        seed: first seed, and that of random input.
        threads: as in Session.
        at: time since programming, as in Session.
        compensation: of drift, as in Session.
        ablate: measure each effect that is on by what is gained without it, and lost with it alone.
        by_layer: measure each matrix by what is lost with the physics in its tiles only.

    Raises:
        DataError: data that does not fit the model, or an unknown metric.
        ModelError, ChipError: as in `compile`.
    """
    from pcmc.runtime.program import Program
    from pcmc.workflows.compile import compile

    numbers = tuple(range(seed, seed + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not numbers:
        raise DataError(f"seeds = {seeds}: at least one is needed")
    program = (
        model
        if isinstance(model, Program)
        else compile(model, chip, shapes=shapes, freeze=freeze, digital=digital)
    )
    feeds, labels = inputs_and_labels(program, data, samples, seed)
    metrics = chosen_metrics(metric, labels)
    bench = Bench(program, batches(feeds, program), threads, at, compensation)
    effects = resolve(physics, program.chip)
    judge = Judge(metrics, labels, bench.reference())
    found, exact, scores = _against_onnxruntime(bench, judge, effects, numbers)
    ablated = costs.ablate(bench, judge, effects, numbers, exact, scores) if ablate and scores else ()
    layers = costs.by_layer(bench, judge, effects, numbers, exact) if by_layer and scores else ()
    return replace(
        found,
        samples=sample_count(feeds, program),
        data="given" if data is not None else "random",
        at=at,
        compensation=compensation,
        ablation=ablated,
        layers=layers,
    )


def _against_onnxruntime(
    bench: Bench, judge: Judge, effects: Physics, seeds: Sequence[int]
) -> tuple[Comparison, Scores, list[Scores]]:
    """Ideal mode and the physics against onnxruntime, and the scores of the former and of each seed."""
    program = bench.program
    ((_, ideal),) = bench.run([Job(Physics())], "ideal")
    jobs = [] if effects.is_ideal else [Job(effects, seed) for seed in seeds]
    runs = [outputs for _, outputs in bench.run(jobs, "physics")]
    exact: Scores = judge.scores(ideal)
    scores: list[Scores] = [judge.scores(outputs) for outputs in runs]
    ends = [
        (info.name, output_step(program, info.name, want))
        for info, want in zip(program.outputs, judge.wanted, strict=True)
    ]
    found = Comparison(
        model=program.name,
        chip=program.chip.name,
        physics=effects.names(),
        seeds=tuple(seeds) if runs else (),
        ideal=_worst(ends, [ideal], judge.wanted),
        with_physics=_worst(ends, runs, judge.wanted),
        metrics=_measured(judge, exact, scores),
    )
    return found, exact, scores


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


def _measured(judge: Judge, ideal: Scores, runs: Sequence[Scores]) -> dict[str, dict[str, Any]]:
    """Each metric of onnxruntime, of ideal mode, and of the runs with physics."""
    return {
        name: {
            "onnxruntime": float(function(judge.wanted, judge.labels, judge.wanted)),
            "ideal": ideal[name],
            "physics": asdict(interval([one[name] for one in runs])) if runs else None,
        }
        for name, function in judge.metrics.items()
    }
