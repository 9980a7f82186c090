"""`Session`: run a Program, with the method names and the behaviour of onnxruntime's InferenceSession.

    session = pcmc.Session(program, physics="full", seed=0)
    outputs = session.run(None, {"x": x})

Ideal mode computes from the blocks of the program as they are cut; with physics on, from what the devices
hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.cells import make_cell
from pcmc.accel.physics import Physics, resolve
from pcmc.errors import DataError, PcmcError
from pcmc.runtime import fusing
from pcmc.runtime.banks import (
    LoadedBank,
    Saturation,
    check_compensation,
    drift_gains,
    ideal_bank,
    physical_bank,
    read_bank,
    unreadable,
)
from pcmc.runtime.calibration import BankCalibration, active_fractions
from pcmc.runtime.fusing import Finish, Task
from pcmc.runtime.program import Program, Read, Step, TensorInfo
from pcmc.runtime.program_check import check_state
from pcmc.runtime.reads import Reading, read_chip, solve_wires
from pcmc.runtime.regions import open_region, run_region
from pcmc.runtime.state import ChipState, WiredChip, program_chip
from pcmc.runtime.times import seconds

Array = npt.NDArray[Any]


MOST_THREADS = 1024


@dataclass(frozen=True, slots=True)
class NodeArg:
    """Name, shape (open dimensions as strings) and type of an input or output, as onnxruntime gives them."""

    name: str
    shape: list[int | str]
    type: str


@dataclass(frozen=True, slots=True)
class ModelMeta:
    """What a model says of itself, with the names that onnxruntime gives it."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: Mapping[str, str]


class Session:
    """A program loaded into a chip.

    Args:
        program: a Program, or the path of a `.pcmc` file.
        physics: "ideal", "full" (what the chip file states on), names of effects with commas between, or a
            Physics.
        seed: names all random streams: one seed, one result, whatever the number of threads.
        threads: threads of the tile reads and of onnxruntime; 0 takes all processors.
        state: devices to read, in place of newly programmed ones.
        at: time since programming, in s or as "20s", "1h", "1d"; None is the cell's first read, or when the
            `state` was saved. With the
            effect `drift` conductances fall with it, and read noise grows.
        compensation: what the digital unit does about drift: "none", or a factor from reference reads at the
            first read and at `at`, one for each matrix ("global") or for each of its columns ("column").
        only: names of the banks that the physics applies to, the others being ideal; None: all.
        interval: time from one run to the next, in s or as "1ms", "1h": see `wait`.
        calibration: what `pcmc.calibrate` found, by name of bank; None: nothing.

    Raises:
        ChipError: an unknown effect, or one that the chip's cell does not have.
        ProgramError: the file can't be read, or the state does not fit the program.
    """

    def __init__(
        self,
        program: Program | str | os.PathLike[str],
        physics: str | Physics = "ideal",
        *,
        seed: int = 0,
        threads: int = 0,
        state: ChipState | None = None,
        at: float | str | None = None,
        compensation: str = "none",
        only: Collection[str] | None = None,
        interval: float | str = 0.0,
        calibration: Mapping[str, BankCalibration] | None = None,
    ) -> None:
        if not isinstance(program, Program):
            from pcmc.runtime.program_file import load

            program = load(program)
        if not 0 <= threads <= MOST_THREADS:
            raise DataError(f"threads = {threads}: must be 0 (all processors) to {MOST_THREADS:,}")
        self.program = program
        self.physics = resolve(physics, program.chip)
        self.seed = seed
        self.threads = threads or os.cpu_count() or 1
        held_s = 0.0 if state is None else state.clock_s
        self.at_s = held_s or None if at is None else seconds(at)
        check_compensation(compensation)
        self.compensation = compensation
        only = None if only is None else (only,) if isinstance(only, str) else tuple(only)
        for given, names in (("only", only or ()), ("calibration", calibration or ())):
            unknown = sorted(set(names) - program.banks.keys())
            if unknown:
                raise DataError(
                    f"{given}: there is no bank '{unknown[0]}'; the program has {', '.join(program.banks)}"
                )
        if state is not None:
            check_state(state, program)
        self._given_state = state
        self._writes = 1
        self._first_read_s = self.at_s
        self.calibration = calibration or {}
        self.saturation = {name: Saturation() for name in program.banks if self.physics.adc}
        self._only = only
        self._interval_s = seconds(interval)
        self._wired: WiredChip | None = None  # the wires as they were solved last
        self._runs, self._waits, self._clock_s = 0, 0, 0.0
        self.watch: Callable[[Step, Array], None] | None = None  # is shown the input of each read
        self._reads = 0  # how many there were: each has fast noise of its own
        self._banks = self._load_banks()
        self._plan = fusing.plan(program)
        self._regions = {
            name: open_region(model, name, self.threads) for name, model in self._plan.regions.items()
        }
        self._finishes: dict[str, Any] = {}  # regions of operations that reads can't do, by name of the read
        self._last_use = _last_uses(self._plan.tasks, {info.name for info in program.outputs})

    def _load_banks(self) -> dict[str, LoadedBank]:
        """All banks, as they are read from now on."""
        program, state = self.program, self.state
        if state is None:
            return {name: ideal_bank(bank) for name, bank in program.banks.items()}
        if self._only is not None:
            state = replace(state, banks={name: state.banks[name] for name in self._only})
        reading = Reading(
            self.physics,
            self.seed,
            state.seed,
            self.at_s,
            self._waits,
            self.threads,
            self._clock_s,
            active_fractions(self.calibration),
        )
        if self.physics.ir_drop:
            self._wired = solve_wires(program, state, reading)
            state = replace(state, wired=self._wired)
        found = read_chip(program, state, reading)
        gains = drift_gains(program, state, reading, found, self.compensation)
        return {
            name: ideal_bank(bank)
            if name not in found
            else physical_bank(
                bank,
                state.banks[name],
                found[name],
                program.chip,
                reading,
                drift_gain=gains.get(name),
                calibration=self.calibration.get(name),
            )
            for name, bank in program.banks.items()
        }

    @property
    def wires(self) -> WiredChip | None:
        """The solved wires; None without `ir_drop`."""
        return self._wired

    @property
    def state(self) -> ChipState | None:
        """What the devices hold; None in ideal mode.

        Devices that this session programmed are not kept: their random numbers have names, so that they can
        be made again, and so they are.
        """
        if self.physics.is_ideal and self._given_state is None:
            return None
        if self._given_state is not None:
            wired = self._wired or self._given_state.wired
            return replace(self._given_state, wired=wired, clock_s=self._time_s())
        made = program_chip(
            self.program, self.physics, self.seed, self._only, self._first_read_s, self.threads, self._writes
        )
        return replace(made, wired=self._wired, clock_s=self._time_s())

    def _time_s(self) -> float:
        """Seconds since programming; 0 where no time was said, and none has gone by."""
        return 0.0 if self.at_s is None else self.at_s

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program with its devices as they are; `pcmc.load_state` reads them, `state=` takes them.

        Raises:
            DataError: in ideal mode there are no devices.
            OutputError: the path can't be written.
        """
        from pcmc.runtime.program_file import save

        state = self.state
        if state is None:
            raise DataError("a session in ideal mode has no devices to save: switch physics on")
        if self._only is not None:
            raise DataError("only: devices of some banks can't be saved, there would be none for the others")
        save(self.program, path, state)

    def reprogram(self) -> None:
        """Write the program into the devices once more: they miss their targets in another way, and time
        since programming begins again. A state that was given stays as it is, and is not read any more.
        """
        if self.physics.is_ideal:
            return
        if self._given_state is not None:
            self.seed = self._given_state.seed
            self._writes = max((bank.writes for bank in self._given_state.banks.values()), default=0)
            self._given_state = None
        self._writes += 1
        self._waits += 1
        self.at_s = self._first_read_s
        self._banks = self._load_banks()

    def wait(self, time: float | str) -> None:
        """Let time go by: with `drift` conductances fall on, slow read noise wanders, frozen noise is drawn
        anew.

        Args:
            time: in s or as "1ms", "1h".

        Raises:
            DataError: no time.
        """
        waited = seconds(time)
        if self.physics.is_ideal or waited == 0:
            return
        before = self.at_s, self._clock_s, self._waits
        first = make_cell(self.program.chip.cell).t0_s
        self.at_s = (first if self.at_s is None else self.at_s) + waited
        self._clock_s += waited
        self._waits += 1
        try:
            self._banks = self._load_banks()
        except PcmcError:  # no read can take place then: time stands still
            self.at_s, self._clock_s, self._waits = before
            raise

    def get_inputs(self) -> list[NodeArg]:
        """The graph's inputs."""
        return [_node_arg(info) for info in self.program.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The graph's outputs."""
        return [_node_arg(info) for info in self.program.outputs]

    def get_overridable_initializers(self) -> list[NodeArg]:
        """None: initializers are constants here, and those of matrices lie in tiles."""
        return []

    def get_modelmeta(self) -> ModelMeta:
        """What the user's model says of itself."""
        model = self.program.model
        return ModelMeta(
            producer_name=model.producer_name,
            graph_name=model.graph.name,
            domain=model.domain,
            description=model.doc_string,
            graph_description=model.graph.doc_string,
            version=model.model_version,
            custom_metadata_map={entry.key: entry.value for entry in model.metadata_props},
        )

    def get_providers(self) -> list[str]:
        """Who computes: the simulated chip, and onnxruntime's CPU for digital regions."""
        return ["PcmcExecutionProvider", "CPUExecutionProvider"]

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Array]:
        """Compute outputs.

        Args:
            output_names: which, in which order; None or empty: all.
            input_feed: an array for each input, of its type; open dimensions may have any size.
            run_options: taken and ignored, as in a script written for onnxruntime.

        Returns:
            one array for each name.

        Raises:
            DataError: an input of the wrong name, shape or type, or an unknown output.
        """
        known = [info.name for info in self.program.outputs]
        names = list(output_names or known)
        for name in names:
            if name not in known:
                raise DataError(f"there is no output '{name}'; the model has {', '.join(known)}")
        values = {info.name: check_input(info, input_feed) for info in self.program.inputs}
        unknown = sorted(set(input_feed) - values.keys())
        if unknown:
            raise DataError(f"there is no input '{unknown[0]}'; the model has {', '.join(values) or 'none'}")
        if self._runs:
            self.wait(self._interval_s)
        self._runs += 1
        for index, task in enumerate(self._plan.tasks):
            self._run_step(task, values)
            for tensor in self._last_use.get(index, ()):
                values.pop(tensor, None)
        return [values[name] for name in names]

    def _run_step(self, task: Task, values: dict[str, Array]) -> None:
        step = task.step
        if step.bank is not None and step.read is not None:
            x = values[task.inputs[0]]
            if self.watch is not None:
                self.watch(step, x)
            self._reads += 1
            values[task.outputs[0]] = self._read(step, step.bank, step.read, x, task.finish, values)
            return
        feeds = {name: values[name] for name in task.inputs}
        results = run_region(self._regions[step.name], step.name, task.outputs, feeds)
        values.update(zip(task.outputs, results, strict=True))

    def _read(
        self, step: Step, name: str, how: Read, x: Array, finish: Finish | None, values: Mapping[str, Array]
    ) -> Array:
        """What a read gives, with the operations that follow it done, if there are any."""
        bank, saturated = self._banks[name], self.saturation.get(name)
        addend = None if finish is None or finish.addend is None else values[finish.addend]
        try:
            fits = addend is None or addend.shape == how.output_shape(np.shape(x), bank.cols)
            if finish is None or (fits and bank.is_plain):
                relu = finish is not None and finish.relu
                return read_bank(x, bank, how, self.threads, self._reads, saturated, addend=addend, relu=relu)
            y = read_bank(x, bank, how, self.threads, self._reads, saturated)
        except (ValueError, IndexError, TypeError) as error:
            raise unreadable(step, x, error) from error
        if step.name not in self._finishes:
            self._finishes[step.name] = open_region(finish.model, finish.region, self.threads)
        feeds = {step.outputs[0]: y}
        if finish.addend is not None:
            feeds[finish.addend] = values[finish.addend]
        result: Array
        (result,) = run_region(self._finishes[step.name], finish.region, (finish.output,), feeds)
        return result


def _last_uses(tasks: Sequence[Task], kept: Collection[str]) -> dict[int, tuple[str, ...]]:
    """Tensors that no task after a given one needs: they are dropped there, so that memory stays bounded."""
    last: dict[str, int] = {}
    for index, task in enumerate(tasks):
        last.update(dict.fromkeys((*task.inputs, *task.outputs), index))
    uses: dict[int, list[str]] = {}
    for tensor, index in last.items():
        if tensor not in kept:
            uses.setdefault(index, []).append(tensor)
    return {index: tuple(tensors) for index, tensors in uses.items()}


def check_input(info: TensorInfo, feed: Mapping[str, Any]) -> Array:
    """The array that is fed to an input, if its type and shape are those of the model; DataError if not."""
    import onnx

    if info.name not in feed:
        given = ", ".join(f"'{name}'" for name in feed) or "nothing"
        raise DataError(f"input '{info.name}' is missing; given was {given}")
    array = np.asarray(feed[info.name])
    expected = onnx.helper.tensor_dtype_to_np_dtype(info.dtype)
    if array.dtype != expected:
        raise DataError(
            f"input '{info.name}' is {array.dtype}, the model takes {expected}: convert it with "
            f".astype('{expected}')"
        )
    if info.shape is None:
        return array
    fits = array.ndim == len(info.shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(info.shape, array.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"input '{info.name}' has shape {list(array.shape)}, the model takes {list(info.shape)}"
        )
    return array


def _node_arg(info: TensorInfo) -> NodeArg:
    import onnx

    name = onnx.TensorProto.DataType.Name(info.dtype).lower()
    return NodeArg(info.name, list(info.shape or ()), f"tensor({name})")
