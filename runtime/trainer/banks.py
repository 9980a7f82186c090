"""Banks in training: what is programmed to begin with, and the program that their read-out makes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.physics import Physics
from pcmc.accel.training.arrays import TrainedBank, trained_bank
from pcmc.runtime.program import Bank, Program
from pcmc.runtime.state import place
from pcmc.runtime.trainer.plan import TrainingPlan

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def load_banks(
    program: Program, plan: TrainingPlan, physics: Physics, seed: int, weight_range: float | None
) -> tuple[dict[str, TrainedBank], dict[str, Floats], dict[str, float]]:
    """Program the banks of a path.

    Args:
        program: what is programmed.
        plan: its path; the banks that it does not train are programmed, too, and then stay as they are.
        physics: the effects that are on.
        seed: names the streams.
        weight_range: the weight that the full range of a cell stands for; None: that of the chip file or,
            if it gives none, see `range_of`.

    Returns:
        the banks by name; the biases that the digital unit adds to trained or frozen ones; and the drive of
        each bank's bias rows, whose cells hold bias / drive.
    """
    banks: dict[str, TrainedBank] = {}
    biases: dict[str, Floats] = {}
    drives: dict[str, float] = {}
    for name in plan.banks:
        bank = program.banks[name]
        weights = bank.cells.copy()
        full = weight_range or program.chip.training.weight_range or range_of(bank)
        drives[name] = _bias_drive(bank, full) if physics.of_cells else 1.0  # exact cells hold anything
        scale_bias_rows(bank, weights, 1.0 / drives[name])
        banks[name] = trained_bank(
            program.chip,
            physics,
            bank.blocks(),
            tuple(place(block) for block in bank.table),
            bank.rows,
            bank.cols,
            weights,
            bias_drive=drives[name],
            weight_range=full,
            seed=seed,
            trainable=name in plan.trained,
        )
        if bank.bias is not None:
            biases[name] = bank.bias.copy()
    return banks, biases, drives


def range_of(bank: Bank) -> float:
    """The weight that the full range of a cell stands for, if nobody says so.

    The largest weight, and room for what training will make of small random ones: 6 / sqrt(inputs) is 2.4
    times the bound of Glorot and Bengio's initial weights (AISTATS 2010) for a square matrix (our choice).
    Weights that are far smaller belong to inputs that are far larger, pixels of 0 to 255 for example: then 12
    times their root mean square is room enough (our choice; without effect on a matrix of Glorot and Bengio's
    with up to seven times as many outputs as inputs).
    """
    parts = [rows for rows, _ in _cells_of(bank, bank.cells)]
    largest = max((float(np.abs(rows).max(initial=0.0)) for rows in parts), default=0.0)
    squares = sum(float(np.square(rows, dtype=np.float64).sum()) for rows in parts)
    usual = math.sqrt(squares / max(1, sum(rows.size for rows in parts)))
    room = 6.0 / math.sqrt(max(1, bank.rows // max(1, bank.groups)))
    return max(largest, min(room, 12.0 * usual) if usual else room)


def packed_gradient(bank: Bank, x: Floats, d: Floats) -> Floats:
    """The gradient of a bank's cells, packed as they are: sum over vectors of x d^T, and of d for the cells
    of bias rows, which are driven with 1. `x` is `[vectors, rows]`, `d` `[vectors, cols]`.
    """
    whole, bias = x.T @ d, d.sum(axis=0)
    packed = np.empty(bank.cells.size, np.float32)
    for (weights, biases), block in zip(_cells_of(bank, packed), bank.table, strict=True):
        columns = slice(int(block["col0"]), int(block["col0"]) + int(block["cols"]))
        weights[:] = whole[int(block["row0"]) : int(block["row0"]) + len(weights), columns]
        biases[:] = bias[columns]
    return packed


def trained_program(
    program: Program,
    banks: Mapping[str, TrainedBank],
    biases: Mapping[str, Floats],
    drives: Mapping[str, float],
    statistics: Mapping[str, Array],
    pair_only: bool = False,
) -> Program:
    """The program with the weights that the banks' read-out gives, and running statistics, if there are.

    With `pair_only` the weights are those of the high tier alone.
    """
    changed: dict[str, Bank] = dict(program.banks)
    for name, trained in banks.items():
        if not trained.trainable:
            continue
        bank = program.banks[name]
        cells = trained.pair_only() if pair_only else trained.read_out()
        scale_bias_rows(bank, cells, drives[name])
        cells.flags.writeable = False
        bias = biases[name].copy() if name in biases else None
        if bias is not None:
            bias.flags.writeable = False
        changed[name] = replace(bank, cells=cells, bias=bias)
    program = replace(program, banks=changed)
    return _with_statistics(program, statistics) if statistics else program


def _cells_of(bank: Bank, cells: Floats) -> list[tuple[Floats, Floats]]:
    """For each block its weights `[rows, cols]` and its bias row `[0 or 1, cols]`, as views of `cells`."""
    parts = []
    for block in bank.table:
        rows, cols = int(block["rows"]), int(block["cols"])
        own = cells[block["offset"] : block["offset"] + rows * cols].reshape(rows, cols)
        inputs = rows - int(block["bias"])
        parts.append((own[:inputs], own[inputs:]))
    return parts


def scale_bias_rows(bank: Bank, cells: Floats, factor: float) -> None:
    """Multiply the cells of bias rows, in place."""
    if factor != 1.0:
        for _, bias in _cells_of(bank, cells):
            bias *= np.float32(factor)


def _bias_drive(bank: Bank, full: float) -> float:
    """How hard bias rows are driven: 1, or more where a bias would not fit into a cell otherwise."""
    largest = max(
        (float(np.abs(bias).max(initial=0.0)) for _, bias in _cells_of(bank, bank.cells)), default=0.0
    )
    return max(1.0, largest / full)


def _with_statistics(program: Program, statistics: Mapping[str, Array]) -> Program:
    """The program with other values of some constants of its digital operations."""
    import onnx

    def patched(model: Any) -> Any:
        held = {tensor.name for tensor in model.graph.initializer}
        made = {name for node in model.graph.node for name in node.output}
        ours = statistics.keys() & (held | made)
        if not ours:
            return model
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for tensor in copy.graph.initializer:
            if tensor.name in ours:
                value = statistics[tensor.name].astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        for name in sorted(ours & made):  # a Constant, or what is computed of constants, becomes a number
            copy.graph.node.remove(next(node for node in copy.graph.node if name in node.output))
            copy.graph.initializer.append(onnx.numpy_helper.from_array(statistics[name], name))
        return copy

    return replace(
        program,
        model=patched(program.model),
        clean=patched(program.clean),
        regions={name: patched(region) for name, region in program.regions.items()},
    )
