"""`Session`: run a Program, with the method names and the behaviour of onnxruntime's InferenceSession.

    session = pcmc.Session(program, physics="full", seed=0)
    outputs = session.run(None, {"x": x})

Ideal mode computes from the blocks of the program as they are cut; with physics on, from what the devices
hold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel import tile
from pcmc.accel.physics import Physics, resolve
from pcmc.errors import DataError
from pcmc.runtime.program import Bank, Program, Read, Step, TensorInfo
from pcmc.runtime.program_check import check_state
from pcmc.runtime.regions import open_region, run_region
from pcmc.runtime.state import BankState, ChipState, program_chip, read_cells

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


@dataclass(frozen=True, slots=True)
class LoadedBank:
    """A bank ready to be read: its cells as the physics leaves them, its converters, its digital bias."""

    cells: tile.Bank
    bias_drive: float
    converters: tile.Converters
    bias: npt.NDArray[np.float32] | None


class Session:
    """A program loaded into a chip.

    Args:
        program: a Program, or the path of a `.pcmc` file.
        physics: "ideal", "full" (what the chip file states on), names of effects with commas between, or a
            Physics.
        seed: names all random streams: one seed, one result, whatever the number of threads.
        threads: threads of the tile reads and of onnxruntime; 0 takes all processors.
        state: devices to read, in place of newly programmed ones.

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
        self.state = state
        if state is not None:
            check_state(state, program)
        if state is None and not self.physics.is_ideal:
            self.state = program_chip(program, self.physics, seed)
        self._banks = {name: self._load_bank(bank) for name, bank in program.banks.items()}
        self._regions = {
            name: open_region(model, name, self.threads) for name, model in program.regions.items()
        }
        self._last_use = _last_uses(program)

    def _load_bank(self, bank: Bank) -> LoadedBank:
        blocks = np.stack(
            [bank.table[name] for name in ("row0", "col0", "rows", "cols", "bias", "offset")], axis=1
        )
        state = None if self.state is None else self.state.banks[bank.name]
        if state is None:
            cells, drive = bank.cells, 1.0
        else:
            cells, drive = (
                read_cells(bank, state, self.program.chip, self.physics, self.seed),
                state.bias_drive,
            )
        return LoadedBank(
            tile.make_bank(cells, blocks, bank.rows, bank.cols),
            drive,
            self._converters(bank, state),
            bank.bias,
        )

    def _converters(self, bank: Bank, state: BankState | None) -> tile.Converters:
        chip = self.program.chip
        return tile.Converters(
            dac_levels=2 ** (chip.dac.bits - 1) - 1 if self.physics.dac else 0,
            adc_levels=2 ** (chip.adc.bits - 1) - 1 if self.physics.adc else 0,
            adc_full=chip.adc.range_cells * (1.0 if state is None else state.w_max),
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
                values[step.outputs[0]] = self._read(x, self._banks[step.bank], step.read)
            except (ValueError, IndexError, TypeError) as error:  # open dimensions that do not fit the model
                raise DataError(
                    f"step '{step.name}': can't read '{step.bank}' for an input of shape "
                    f"{list(np.shape(x))}: {error}"
                ) from error
            return
        feeds = {name: values[name] for name in step.inputs}
        results = run_region(self._regions[step.name], step.name, step.outputs, feeds)
        values.update(zip(step.outputs, results, strict=True))

    def _read(self, x: Array, bank: LoadedBank, how: Read) -> Array:
        dtype = x.dtype
        x = np.ascontiguousarray(x, np.float32)
        if how.kind == "dense":
            y = self._read_vectors(x.reshape(-1, bank.cells.rows), bank)
            shape = x.shape[:-1] if how.vector_output else (*x.shape[:-1], bank.cells.cols)
            return y.reshape(shape).astype(dtype, copy=False)
        if how.kind == "columns":
            maps = x.reshape(-1, x.shape[-2], 1, x.shape[-1])
            y = self._read_windows(maps, bank, tile.Window((1, 1)))
            return y.reshape(*x.shape[:-2], bank.cells.cols, x.shape[-1]).astype(dtype, copy=False)
        maps = x if x.ndim == 4 else x[:, :, None, :]
        y = self._read_windows(maps, bank, how.window_for(*maps.shape[2:]))
        y = y if x.ndim == 4 else y[:, :, 0, :]
        return y.astype(dtype, copy=False)

    def _read_vectors(self, x: Array, bank: LoadedBank) -> Array:
        y = tile.read(
            x, bank.cells, bias_drive=bank.bias_drive, converters=bank.converters, threads=self.threads
        )
        return y if bank.bias is None else np.add(y, bank.bias, out=y)

    def _read_windows(self, x: Array, bank: LoadedBank, window: tile.Window) -> Array:
        y = tile.read(
            x,
            bank.cells,
            bias_drive=bank.bias_drive,
            converters=bank.converters,
            window=window,
            threads=self.threads,
        )
        return y if bank.bias is None else np.add(y, bank.bias[:, None, None], out=y)


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
