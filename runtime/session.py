"""`Session`: run a Program, with the method names and the behaviour of onnxruntime's InferenceSession.

    session = pcmc.Session(program, physics="full", seed=0)
    outputs = session.run(None, {"x": x})

Ideal mode computes from the blocks of the program as they are cut; with physics on, from what the devices
hold.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.physics import Physics, resolve
from pcmc.errors import DataError
from pcmc.runtime.banks import COMPENSATIONS, LoadedBank, ideal_bank, physical_bank, read_bank
from pcmc.runtime.program import Bank, Program, Step, TensorInfo
from pcmc.runtime.program_check import check_state
from pcmc.runtime.regions import open_region, run_region
from pcmc.runtime.state import ChipState, program_chip
from pcmc.runtime.times import seconds

Array = npt.NDArray[Any]


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
        at: time since programming, in s or as "20s", "1h", "1d"; None is the cell's first read. With the
            effect `drift` conductances fall with it, and read noise grows.
        compensation: what the digital unit does about drift: "none", or a factor from reference reads at the
            first read and at `at`, one for each matrix ("global") or for each of its columns ("column").
        only: names of the banks that the physics applies to, the others being ideal; None: all.

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
    ) -> None:
        if not isinstance(program, Program):
            from pcmc.runtime.program_file import load

            program = load(program)
        if threads < 0:
            raise DataError(f"threads = {threads}: must be 0 (all processors) or more")
        self.program = program
        self.physics = resolve(physics, program.chip)
        self.seed = seed
        self.threads = threads or os.cpu_count() or 1
        self.at_s = None if at is None else seconds(at)
        if compensation not in COMPENSATIONS:
            raise DataError(f"compensation {compensation!r}: should be one of {', '.join(COMPENSATIONS)}")
        self.compensation = compensation
        unknown = sorted(set(only or ()) - program.banks.keys())
        if unknown:
            raise DataError(
                f"only: there is no bank '{unknown[0]}'; the program has {', '.join(program.banks)}"
            )
        self.state = state
        if state is not None:
            check_state(state, program)
        if state is None and not self.physics.is_ideal:
            self.state = program_chip(program, self.physics, seed, only)
        self._only = only
        self._reads = 0  # how many there were: each has fast noise of its own
        self._banks = {name: self._load_bank(bank) for name, bank in program.banks.items()}
        self._regions = {
            name: open_region(model, name, self.threads) for name, model in program.regions.items()
        }
        self._last_use = _last_uses(program)

    def _load_bank(self, bank: Bank) -> LoadedBank:
        if self.state is None or (self._only is not None and bank.name not in self._only):
            return ideal_bank(bank)
        state = self.state.banks[bank.name]
        return physical_bank(
            bank,
            state,
            self.program.chip,
            self.physics,
            self.seed,
            self.at_s,
            self.compensation,
            self.state.seed,
        )

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
        for index, step in enumerate(self.program.steps):
            self._run_step(step, values)
            for tensor in self._last_use.get(index, ()):
                values.pop(tensor, None)
        return [values[name] for name in names]

    def _run_step(self, step: Step, values: dict[str, Array]) -> None:
        if step.bank is not None and step.read is not None:
            x = values[step.inputs[0]]
            try:
                self._reads += 1
                values[step.outputs[0]] = read_bank(
                    x, self._banks[step.bank], step.read, self.threads, self._reads
                )
            except (ValueError, IndexError, TypeError) as error:  # open dimensions that do not fit the model
                raise DataError(
                    f"step '{step.name}': can't read '{step.bank}' for an input of shape "
                    f"{list(np.shape(x))}: {error}"
                ) from error
            return
        feeds = {name: values[name] for name in step.inputs}
        results = run_region(self._regions[step.name], step.name, step.outputs, feeds)
        values.update(zip(step.outputs, results, strict=True))


def _last_uses(program: Program) -> dict[int, tuple[str, ...]]:
    """Tensors that no step after a given one needs: they are dropped there, so that memory stays bounded."""
    last: dict[str, int] = {}
    for index, step in enumerate(program.steps):
        last.update(dict.fromkeys((*step.inputs, *step.outputs), index))
    kept = {info.name for info in program.outputs}
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
