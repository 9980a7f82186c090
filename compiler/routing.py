"""Routing: every edge of the TileGraph becomes streams of bytes over the mesh, each with its XY route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import ChipSpec
from pcmc.accel.mesh import positions
from pcmc.runtime.program import FLOW, Step

Table = npt.NDArray[np.void]
ACTIVATION, PARTIAL_SUM = 0, 1
VECTORS, POSITIONS, ELEMENTS = 0, 1, 2

Row = tuple[tuple[int, int], tuple[int, int], int, int, int, int, float, float]


def route(
    steps: Sequence[Step], tables: Mapping[str, Table], outputs: Sequence[str], chip: ChipSpec, chips: int
) -> tuple[npt.NDArray[np.void], tuple[str, ...]]:
    """Streams between digital units and tiles.

    A tensor is sent from the unit that made it to each tile that holds rows for it (a map of a convolution
    once, not once for each window), partial sums from each tile to the unit that adds them, and a tensor that
    a digital region takes from another chip from unit to unit. Inputs enter and outputs leave the board at
    the unit of chip 0.

    Args:
        steps: the schedule.
        tables: placed blocks by bank.
        outputs: names of the graph's outputs.
        chip: its converters give the bytes of a value.
        chips: chips in use.

    Returns:
        a FLOW table and the tensors that its `tensor` column numbers.
    """
    unit_of = {tensor: step.unit for step in steps for tensor in step.outputs}
    numbers: dict[str, int] = {}
    rows: list[Row] = []
    for index, step in enumerate(steps):
        if step.bank is not None:
            source = _unit(unit_of.get(step.inputs[0], 0), chips, chip)
            rows.extend(_bank_streams(index, step, tables[step.bank], source, chip, chips))
            continue
        rows.extend(
            _unit_stream(index, tensor, unit_of.get(tensor, 0), step.unit, numbers, chip, chips)
            for tensor in step.inputs
            if unit_of.get(tensor, 0) != step.unit
        )
    last = len(steps) - 1
    rows.extend(
        _unit_stream(last, tensor, unit_of[tensor], 0, numbers, chip, chips)
        for tensor in outputs
        if unit_of.get(tensor, 0) != 0
    )
    flows = np.zeros(len(rows), FLOW)
    for flow, (start, end, *rest) in zip(flows, rows, strict=True):
        flow["x0"], flow["y0"], flow["x1"], flow["y1"] = *start, *end
        for name, value in zip(("kind", "step", "per", "tensor", "scale", "width"), rest, strict=True):
            flow[name] = value
    return flows, tuple(numbers)


def _unit(number: int, chips: int, chip: ChipSpec) -> tuple[int, int]:
    x, y = positions(number, 0, chips, chip.chip)
    return int(x), int(y)


def _unit_stream(
    index: int, tensor: str, start: int, end: int, numbers: dict[str, int], chip: ChipSpec, chips: int
) -> Row:
    number = numbers.setdefault(tensor, len(numbers))
    width = float(chip.digital.bytes_per_value)
    return _unit(start, chips, chip), _unit(end, chips, chip), ACTIVATION, index, ELEMENTS, number, 1.0, width


def _bank_streams(
    index: int, step: Step, table: Table, source: tuple[int, int], chip: ChipSpec, chips: int
) -> list[Row]:
    home = _unit(step.unit, chips, chip)
    window = step.read.window if step.read is not None else None
    elements = 1 if window is None else window.kernel[0] * window.kernel[1]
    per = VECTORS if window is None else POSITIONS
    activation_bytes, sum_bytes = -(-chip.dac.bits // 8), -(-chip.adc.bits // 8)
    rows: list[Row] = []
    for where in np.unique(np.stack([table["chip"], table["tile"]], axis=1), axis=0):
        blocks = table[(table["chip"] == where[0]) & (table["tile"] == where[1])]
        x, y = (int(axis) for axis in positions(where[0], where[1], chips, chip.chip))
        inputs = _channels(blocks, elements)
        if inputs:
            rows.append((source, (x, y), ACTIVATION, index, per, 0, float(inputs), float(activation_bytes)))
        rows.append(
            ((x, y), home, PARTIAL_SUM, index, VECTORS, 0, float(blocks["cols"].sum()), float(sum_bytes))
        )
    return rows


def _channels(blocks: Table, elements: int) -> int:
    """Different inputs (of a convolution: channels) that the blocks of one tile take."""
    first = blocks["row0"] // elements
    last = -(-(blocks["row0"] + blocks["rows"] - blocks["bias"]) // elements)
    covered = 0
    reach = -1
    for start, stop in sorted(set(zip(first.tolist(), last.tolist(), strict=True))):
        covered += max(0, stop - max(start, reach))
        reach = max(reach, stop)
    return covered
