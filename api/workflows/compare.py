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
from pcmc.runtime.calibration import active_fractions
from pcmc.workflows import calibrate as calibrating
from pcmc.workflows import costs
from pcmc.workflows.costs import EffectCost, LayerCost
from pcmc.workflows.metrics import Interval, Metric, chosen_metrics, interval
from pcmc.workflows.runs import Bench, Fitting, Job, Judge, Run, Scores
from pcmc.workflows.samples import batches, inputs_and_labels, sample_count

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec
    from pcmc.runtime.calibration import Calibration
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
class Clipping:
    """Conversions of a bank over all seeds, and those of them that clipped."""

    conversions: int
    clipped: int


@dataclass(frozen=True, slots=True)
class CalibrationGain:
    """What calibration gains: metrics (and `output_error`), by name, over seeds.

    `what` was calibrated with so many `samples`; `of_each_chip`: for each seed by itself, else once with the
    program. `active` is the part of the rows of banks that are driven at a time, with the first seed. `gain`
    is the difference between the runs with it and those `without`, seed by seed, positive where it helps;
    `saturation` is that without.
    """

    what: tuple[str, ...]
    samples: int
    of_each_chip: bool
    without: Mapping[str, Interval]
    calibrated: Mapping[str, Interval]
    gain: Mapping[str, Interval]
    saturation: Mapping[str, Clipping]
    active: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found.

    `metrics` are by name: onnxruntime's value, ideal mode's, and that of the physics over seeds. `at` and
    `compensation` are as they were asked for. `saturation` is by bank, where there are output converters.
    `calibration` is its gain; all else is with it. `ablation` and `layers` are what each effect and each
    matrix costs, the dearest first, where that was asked for. `wires` are those of the first seed, where they
    have resistance.
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
    saturation: Mapping[str, Clipping] = field(default_factory=dict)
    calibration: CalibrationGain | None = None
    wires: Mapping[str, float | int | None] | None = None

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
    calibrate: Any = None,
    calibrate_what: str | Sequence[str] = calibrating.DEFAULT,
    calibration: Calibration | None = None,
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
        calibrate: inputs, not those of `data`, that the chip of each seed is calibrated with.
        calibrate_what: what is calibrated, as in `pcmc.calibrate`.
        calibration: one that there is already, for all seeds, in place of `calibrate`.

    Raises:
        DataError: data that does not fit the model, an unknown metric, nothing to calibrate, calibration
            data that are the test data, or `ablate` or `by_layer` without any effect to measure.
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
    effects = resolve(physics, program.chip)
    _check_effects(effects, ablate=ablate, by_layer=by_layer)
    fitting = _fitting(program, calibrate, calibrate_what, effects, feeds)
    used = None if fitting else calibrating.checked_chip(calibration, effects, numbers)
    bench = Bench(program, batches(feeds, program), threads, at, compensation, fitting, used)
    judge = Judge(metrics, labels, bench.reference())
    found, exact, scores = _against_onnxruntime(bench, judge, effects, numbers)
    ablated = costs.ablate(bench, judge, effects, numbers, exact, scores) if ablate else ()
    layers = costs.by_layer(bench, judge, effects, numbers, exact) if by_layer else ()
    return replace(
        found,
        samples=sample_count(feeds, program),
        data="given" if data is not None else "random",
        at=at,
        compensation=compensation,
        ablation=ablated,
        layers=layers,
    )


def _check_effects(physics: Physics, **asked: bool) -> None:
    """DataError if the cost of effects is asked for where there are none."""
    for name, wanted in asked.items():
        if wanted and physics.is_ideal:
            raise DataError(
                f"compare: {name} measures what effects cost, and the physics has none: name some, as in "
                "physics = 'full', or leave it out"
            )


def _fitting(
    program: Program, data: Any, what: str | Sequence[str], physics: Physics, test: Mapping[str, Array]
) -> Fitting | None:
    """What chips are calibrated with."""
    if data is None:
        return None
    kinds = calibrating.checked_kinds(what, physics, program.chip)
    feeds, _ = inputs_and_labels(program, data, 1, 0)
    if feeds and all(np.array_equal(array, test[name]) for name, array in feeds.items()):
        raise DataError("calibrate: these are the test data: results on them would say too much; take others")
    return Fitting(feeds, kinds)


def _against_onnxruntime(
    bench: Bench, judge: Judge, effects: Physics, seeds: Sequence[int]
) -> tuple[Comparison, Scores, list[Scores]]:
    """Ideal mode and the physics against onnxruntime, and the scores of the former and of each seed."""
    program = bench.program
    (ideal,) = bench.runs([Job(Physics())], "ideal")
    jobs = [] if effects.is_ideal else [Job(effects, seed) for seed in seeds]
    runs = list(bench.runs(jobs, "physics"))
    exact: Scores = judge.scores(ideal.outputs)
    scores: list[Scores] = [judge.scores(run.outputs) for run in runs]
    ends = [
        (info.name, output_step(program, info.name, want))
        for info, want in zip(program.outputs, judge.wanted, strict=True)
    ]
    found = Comparison(
        model=program.name,
        chip=program.chip.name,
        physics=effects.names(),
        seeds=tuple(seeds) if runs else (),
        ideal=_worst(ends, [ideal.outputs], judge.wanted),
        with_physics=_worst(ends, [run.outputs for run in runs], judge.wanted),
        metrics=_measured(judge, exact, scores),
        saturation=_clipping(runs),
        wires=runs[0].wires.facts() if runs and runs[0].wires else None,
        calibration=_calibration_gain(bench, judge, jobs, runs, scores),
    )
    return found, exact, scores


def _calibration_gain(
    bench: Bench, judge: Judge, jobs: Sequence[Job], runs: Sequence[Run], scores: Sequence[Scores]
) -> CalibrationGain | None:
    """The same jobs without the calibration, and what that loses."""
    used = next((run.calibration for run in runs if run.calibration is not None), None)
    if used is None:
        return None
    plain = list(bench.runs([replace(job, calibrated=False) for job in jobs], "uncalibrated"))
    before = [judge.scores(run.outputs) for run in plain]
    return CalibrationGain(
        used.what,
        used.samples,
        bench.fitting is not None,
        costs.intervals(before),
        costs.intervals(scores),
        costs.losses(scores, before),
        _clipping(plain),
        active_fractions(used.banks),
    )


def _clipping(runs: Sequence[Run]) -> dict[str, Clipping]:
    """Conversions and clipped ones of each bank, over all runs."""
    names = runs[0].saturation if runs else ()
    return {
        name: Clipping(
            sum(run.saturation[name].conversions for run in runs),
            sum(run.saturation[name].clipped for run in runs),
        )
        for name in names
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
