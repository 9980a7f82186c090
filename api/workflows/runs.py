"""Runs of a program over all samples: in onnxruntime, and in Sessions with any physics and seed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.physics import Physics
from pcmc.errors import ModelError
from pcmc.progress import progress
from pcmc.runtime.banks import Saturation
from pcmc.runtime.calibration import Calibration
from pcmc.runtime.onnx_walk import first_line
from pcmc.runtime.regions import run_region
from pcmc.runtime.session import Session, check_input
from pcmc.runtime.state import WiredChip
from pcmc.workflows.calibrate import applicable, calibrate
from pcmc.workflows.metrics import OUTPUT_ERROR, Metric, output_error

if TYPE_CHECKING:
    from pcmc.runtime.program import Program

Array = npt.NDArray[Any]
Scores = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Job:
    """One run over all samples: the physics, its seed, and the banks that it applies to (None: all).

    `calibrated` = False leaves out the calibration of the bench.
    """

    physics: Physics
    seed: int = 0
    only: tuple[str, ...] | None = None
    calibrated: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """What a job gave: outputs for all samples, how many conversions of each bank clipped, the
    calibration of the chip, and its solved wires.
    """

    job: Job
    outputs: list[Array]
    saturation: Mapping[str, Saturation]
    calibration: Calibration | None
    wires: WiredChip | None


@dataclass(frozen=True, slots=True)
class Fitting:
    """What each chip of a comparison is calibrated with: samples, and names as in `calibrate`."""

    data: Any
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all runs of a comparison share: the program, its samples in batches, when and how it is read.

    `at` and `compensation` are those of Session. With `fitting`, each chip is calibrated by itself;
    `calibration` is one for all.
    """

    program: Program
    batches: Sequence[Mapping[str, Array]]
    threads: int = 0
    at: float | str | None = None
    compensation: str = "none"
    fitting: Fitting | None = None
    calibration: Calibration | None = None

    def calibrated(self, job: Job) -> Calibration | None:
        """The calibration of a job's chip; None where there is none, or where it would change nothing."""
        if job.physics.is_ideal or not job.calibrated:
            return None
        if self.fitting is None:
            return self.calibration
        what = applicable(self.fitting.what, job.physics, self.program.chip)
        if not what:
            return None
        return calibrate(
            self.program,
            self.fitting.data,
            physics=job.physics,
            what=what,
            seed=job.seed,
            threads=self.threads,
            at=self.at,
            compensation=self.compensation,
            only=job.only,
        )

    def session(self, job: Job, calibration: Calibration | None) -> Session:
        """The Session of a job."""
        return Session(
            self.program,
            job.physics,
            seed=job.seed,
            threads=self.threads,
            at=self.at,
            compensation=self.compensation,
            only=job.only,
            calibration=None if calibration is None else calibration.banks,
        )

    def run(self, jobs: Sequence[Job], label: str) -> Iterator[tuple[Job, list[Array]]]:
        """Each job with its outputs for all samples; one progress bar for all of them."""
        return ((run.job, run.outputs) for run in self.runs(jobs, label))

    def runs(self, jobs: Sequence[Job], label: str) -> Iterator[Run]:
        """As `run`, with all that there is to know of each."""
        names = [info.name for info in self.program.outputs]
        session: Session | None = None
        found: Calibration | None = None
        parts: list[list[Array]] = []
        work = [(job, index) for job in jobs for index in range(len(self.batches))]
        for job, index in progress(work, label):
            if session is None:
                found = self.calibrated(job)
                session = self.session(job, found)
            parts.append(session.run(names, self.batches[index]))
            if index == len(self.batches) - 1:
                yield Run(job, _joined(parts), session.saturation, found, session.wires)
                session, parts = None, []

    def reference(self) -> list[Array]:
        """What onnxruntime makes of the user's own model, with the weights that the program holds."""
        program = self.program
        session, extra = reference_session(program, self.threads), _frozen_feeds(program)
        names = [info.name for info in program.outputs]
        parts = []
        for batch in progress(self.batches, "onnxruntime"):
            for info in program.inputs:
                check_input(info, batch)
            parts.append(run_region(session, "onnxruntime", names, {**batch, **extra}))
        return _joined(parts)


@dataclass(frozen=True, slots=True)
class Judge:
    """What outputs are measured with: metrics, labels, and onnxruntime's outputs."""

    metrics: Mapping[str, Metric]
    labels: Array | None
    wanted: list[Array]

    def scores(self, outputs: list[Array]) -> dict[str, float]:
        """Every metric, and the output error, by name."""
        found = {
            name: float(metric(outputs, self.labels, self.wanted)) for name, metric in self.metrics.items()
        }
        return found | {OUTPUT_ERROR: output_error(outputs, self.wanted)}


def _joined(parts: Sequence[Sequence[Array]]) -> list[Array]:
    """Outputs of all batches, joined along the first axis."""
    if len(parts) == 1:
        return [np.asarray(output) for output in parts[0]]
    return [np.concatenate([np.atleast_1d(part) for part in outputs]) for outputs in zip(*parts, strict=True)]


def reference_session(program: Program, threads: int = 0) -> Any:
    """The user's own model in onnxruntime, with the weights that the program holds: what every result is
    compared with.

    Narrow and quantized types round where the model says, so onnxruntime's optimizations, which round
    elsewhere, are off for them.
    """
    import onnx
    import onnxruntime

    from pcmc.runtime.export import trained_model

    model = trained_model(program)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    narrow = {
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
    }
    if any(tensor.data_type in narrow for tensor in model.graph.initializer):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises its own, undocumented classes
        raise ModelError(
            f"{program.name}: onnxruntime does not take the model: {first_line(error)}"
        ) from error


def _frozen_feeds(program: Program) -> dict[str, Array]:
    import onnx

    values = program.options.get("freeze", {})
    inputs = {value.name: value.type.tensor_type.elem_type for value in program.model.graph.input}
    return {
        name: np.asarray(value, onnx.helper.tensor_dtype_to_np_dtype(inputs[name]))
        for name, value in values.items()
    }
