"""`Program`: a model mapped onto a chip, as compiled. Immutable; what devices hold is a `ChipState`, apart.

A program is a list of steps. A `read` step sends the vectors of a tensor through a bank, a `digital` step
runs a region of the model in onnxruntime. All tables are numpy arrays that are marked read-only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import ChipSpec
from pcmc.accel.tile import Window

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]

#: One row a block. `row0, col0, rows, cols`: which part of the matrix; `rows` counts the bias row, which is
#: the block's last where `bias` is 1. `offset`: where its cells start in `Bank.cells`. `chip, tile, x, y`:
#: where it lies; x is the first column and y the first row in the tile. `phase`: blocks of a bank that share
#: rows or columns of a tile are read in turns.
BLOCK = np.dtype(
    [
        (name, np.int64)
        for name in ("row0", "col0", "rows", "cols", "bias", "offset", "chip", "tile", "x", "y", "phase")
    ]
)

#: One row a stream of bytes over the mesh: from (x0, y0) to (x1, y1) in tiles of the whole board, `kind` 0
#: activation or 1 partial sum; bytes per sample = `scale` * the count of its step (`per`: 0 vectors of the
#: step, 1 positions of its input map, 2 elements of tensor number `tensor`). `width` is the bytes of one
#: value.
FLOW = np.dtype(
    [
        ("x0", np.int32),
        ("y0", np.int32),
        ("x1", np.int32),
        ("y1", np.int32),
        ("kind", np.int32),
        ("step", np.int32),
        ("per", np.int32),
        ("tensor", np.int32),
        ("scale", np.float64),
        ("width", np.float64),
    ]
)
#: Values of FLOW's `kind` and `per`.
ACTIVATION, PARTIAL_SUM = 0, 1
VECTORS, POSITIONS, ELEMENTS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Folding:
    """An operation after a matrix that became part of it: `y * scale + shift` for each output column.

    `had_bias` says whether the matrix had a bias before this folding.
    """

    node: str
    op_type: str
    scale: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    had_bias: bool


@dataclass(frozen=True, slots=True)
class Read:
    """How an operation sends its input through a bank.

    kind `dense`: the last axis of x is the vector (`[..., rows] -> [..., cols]`); with `vector_output` the
    matrix has one column and that axis is dropped. kind `window`: x is `[N, channels, H, W]` or `[N,
    channels, W]`, each window a vector; `auto_pad` SAME_UPPER or SAME_LOWER makes the padding depend on the
    input's size. kind `columns`: x is `[..., rows, n]`, each column of its last two axes a vector (a constant
    on the left).
    """

    kind: str
    window: Window | None = None
    vector_output: bool = False
    auto_pad: str = ""

    def window_for(self, height: int, width: int) -> Window:
        """The window with its padding for an input of this size: ONNX's auto_pad SAME_* makes `ceil(size /
        stride)` outputs.
        """
        if self.window is None:
            raise ValueError("a dense read has no window")
        if not self.auto_pad:
            return self.window
        before, after = [], []
        for axis, size in enumerate((height, width)):
            stride, extent = (
                self.window.strides[axis],
                (self.window.kernel[axis] - 1) * self.window.dilations[axis] + 1,
            )
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            before.append((total + 1) // 2 if self.auto_pad == "SAME_LOWER" else total // 2)
            after.append(total - before[-1])
        return replace(self.window, pads=(before[0], before[1], after[0], after[1]))

    def output_shape(self, shape: Sequence[int], cols: int) -> tuple[int, ...]:
        """The shape of what a read of a bank with so many columns gives for an input of this shape.

        Raises:
            ValueError: the window does not fit the input, or there is no such input.
        """
        if self.kind == "dense":
            return tuple(shape[:-1]) if self.vector_output else (*shape[:-1], cols)
        if self.kind == "columns":
            return (*shape[:-2], cols, shape[-1])
        height, width = shape[2:] if len(shape) == 4 else (1, *shape[2:])
        size = self.window_for(height, width).output_size(height, width)
        return (shape[0], cols, *(size if len(shape) == 4 else size[1:]))


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output: open dimensions are strings; `dtype` is the number of
    onnx.TensorProto.DataType.
    """

    name: str
    shape: tuple[int | str, ...] | None
    dtype: int


@dataclass(frozen=True, slots=True)
class Bank:
    """All blocks of one copy of a matrix.

    `cells` are the blocks' weights one after the other, each row-major `[rows, cols]`, float32. `bias` is the
    part that the digital unit adds, where the chip has no bias row. The other fields say where the matrix
    comes from.
    """

    name: str
    rows: int
    cols: int
    table: npt.NDArray[Any]
    cells: Floats
    bias: Floats | None
    initializer: str
    computed_from: tuple[str, ...]
    transform: str
    groups: int
    foldings: tuple[Folding, ...]

    def blocks(self) -> npt.NDArray[np.int64]:
        """The table as kernels take it: row0, col0, rows, cols, bias, offset; int64 `[blocks, 6]`."""
        columns = ("row0", "col0", "rows", "cols", "bias", "offset")
        return np.stack([self.table[name] for name in columns], axis=1)

    @property
    def phases(self) -> int:
        """Turns that one vector takes: 1 where all blocks are read at once."""
        return int(self.table["phase"].max(initial=0)) + 1

    def matrix(self) -> tuple[Floats, Floats | None]:
        """The matrix put together again from its blocks: `[rows, cols]` (zero where no block is) and its
        bias.
        """
        weights = np.zeros((self.rows, self.cols), np.float32)
        bias = None if self.bias is None else self.bias.copy()
        for block in self.table:
            rows, cols = int(block["rows"]), int(block["cols"])
            cells = self.cells[block["offset"] : block["offset"] + rows * cols].reshape(rows, cols)
            inputs = rows - int(block["bias"])
            columns = slice(int(block["col0"]), int(block["col0"]) + cols)
            weights[int(block["row0"]) : int(block["row0"]) + inputs, columns] = cells[:inputs]
            if block["bias"]:
                bias = np.zeros(self.cols, np.float32) if bias is None else bias
                bias[columns] = cells[-1]
        return weights, bias


@dataclass(frozen=True, slots=True)
class Step:
    """One bank or one digital region in the order of the schedule.

    `needs` are the steps whose results it uses, `unit` the chip whose digital unit runs or collects it,
    `layers` the names of the user's operations that it stands for, `dtype` the element type of a read step's
    output.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    needs: tuple[int, ...]
    unit: int
    bank: str | None = None
    read: Read | None = None
    dtype: int = 1


@dataclass(frozen=True, slots=True)
class Program:
    """A model mapped onto a chip.

    `model` is the user's own graph, `clean` the one after folding from which shapes and digital counts are
    computed, `regions` the digital steps as ONNX by step name, `sample_shapes` the input shapes (batch 1)
    that counts are given for, `options` what the compiler was asked for, `digital` the operations that stay
    digital and why.
    """

    name: str
    chip: ChipSpec
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    steps: tuple[Step, ...]
    banks: Mapping[str, Bank]
    regions: Mapping[str, onnx.ModelProto]
    flows: npt.NDArray[Any]
    flow_tensors: tuple[str, ...]
    chips: int
    tiles: int
    model: onnx.ModelProto
    clean: onnx.ModelProto
    sample_shapes: Mapping[str, tuple[int, ...]]
    digital: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program file: to a temporary name, then renamed, so that no half file is left.

        Raises:
            OutputError: the path can't be written.
        """
        from pcmc.runtime.program_file import save

        save(self, path)

    def report(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
        """What the program uses and costs, as plain data; for other input shapes than the compiled ones if
        given.

        Raises:
            DataError: `shapes` names an unknown input or does not fit it.
        """
        from pcmc.runtime.report import report

        return report(self, shapes)
