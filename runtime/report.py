"""The report of a program: what it uses of the chip, what flows, how long it takes, what it costs, and what
stays digital.

Costs are events counted by the schedule times constants of the chip file (`pcmc.accel.costs`). Each layer's
energy is given by component, so that sums over layers equal sums over components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pcmc.accel.costs import Events, area_mm2, energy_j
from pcmc.runtime.counts import Counts, count
from pcmc.runtime.program import ACTIVATION, PARTIAL_SUM, Bank, Program, Step
from pcmc.runtime.timing import Timing, Traffic, timing, traffic


def report(program: Program, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, Any]:
    """What a program uses and costs, as plain data that JSON can hold.

    Args:
        program: the program.
        shapes: input shapes other than the compiled ones.

    Returns:
        among others `chips`, `tiles`, `cells`, `utilization` (used, available), `matrices`, `layers`,
        `digital`, `traffic_bytes`, `cycles`, `latency_s`, `interval_s`, `energy_j` (by component, with
        `total`), `area_mm2` (likewise). Energy, traffic and times are those of one sample.

    Raises:
        DataError: `shapes` does not fit the model.
    """
    counts = count(program, shapes)
    flowing = traffic(program, counts)
    timed = timing(program, counts, flowing)
    layers = [_layer(program, index, counts, flowing, timed) for index in range(len(program.steps))]
    energy = {
        part: sum(layer["energy_j"][part] for layer in layers) for part in energy_j(Events(), program.chip)
    }
    area = area_mm2(program.chip, program.chips)
    cycle = program.chip.tile.read_time_s
    weights = sum(bank.cells.size - _bias_cells(bank) for bank in program.banks.values())
    return {
        "model": program.name,
        "chip": program.chip.name,
        "shapes": {name: list(s) for name, s in counts.shapes.items()},
        "weights": weights,
        "cells": sum(bank.cells.size for bank in program.banks.values()),
        "blocks": sum(len(bank.table) for bank in program.banks.values()),
        "chips": program.chips,
        "tiles": program.tiles,
        "utilization": utilization(program),
        "matrices": [_matrix(bank) for bank in program.banks.values()],
        "layers": layers,
        "digital": dict(program.digital),
        "traffic_bytes": _traffic_summary(program, flowing),
        "cycles": {"latency": timed.latency_cycles, "interval": timed.interval_cycles},
        "bottleneck": timed.bottleneck,
        "latency_s": timed.latency_cycles * cycle,
        "interval_s": timed.interval_cycles * cycle,
        "energy_j": {**energy, "total": sum(energy.values())},
        "area_mm2": {**area, "total": sum(area.values())},
    }


def utilization(program: Program) -> dict[str, list[int]]:
    """(used, available) cells of the used tiles and of the used chips, tiles of the used chips, chips of
    the board.
    """
    chip = program.chip
    cells = sum(bank.cells.size for bank in program.banks.values())
    per_tile = chip.tile.rows * chip.tile.cols
    return {
        "cells": [cells, program.tiles * per_tile],
        "chip_cells": [cells, program.chips * chip.chip.tiles * per_tile],
        "tiles": [program.tiles, program.chips * chip.chip.tiles],
        "chips": [program.chips, chip.board.max_chips or program.chips],
    }


def _bias_cells(bank: Bank) -> int:
    return int(bank.table["cols"][bank.table["bias"] == 1].sum())


def _matrix(bank: Bank) -> dict[str, Any]:
    places = np.unique(np.stack([bank.table["chip"], bank.table["tile"]], axis=1), axis=0)
    return {
        "name": bank.name,
        "rows": bank.rows,
        "cols": bank.cols,
        "groups": bank.groups,
        "weights": bank.cells.size - _bias_cells(bank),
        "bias": "row" if _bias_cells(bank) else ("digital" if bank.bias is not None else "none"),
        "blocks": len(bank.table),
        "tiles": len(places),
        "phases": bank.phases,
        "initializer": bank.initializer,
        "computed_from": list(bank.computed_from),
        "transform": bank.transform,
        "foldings": [f"{folding.node} ({folding.op_type})" for folding in bank.foldings],
    }


def step_events(program: Program, index: int, counts: Counts, flowing: Traffic) -> Events:
    """What one step makes the chip do for one sample."""
    step, counted, chip = program.steps[index], counts.steps[index], program.chip
    mine = program.flows["step"] == index
    moved = {
        "link_byte_hops": float((flowing.bytes * flowing.hops)[mine].sum()),
        "chip_link_bytes": float((flowing.bytes * flowing.chip_hops)[mine].sum()),
        "buffer_bytes": (counted.values_in + counted.values_out) * chip.digital.bytes_per_value,
        "digital_ops": counted.digital_ops,
    }
    if step.bank is None:
        return Events(**moved)
    bank = program.banks[step.bank]
    return Events(
        cell_reads=counted.vectors * bank.cells.size,
        dac_conversions=counted.vectors * float(bank.table["rows"].sum()),
        adc_conversions=counted.vectors * float(bank.table["cols"].sum()),
        **moved,
    )


def _layer(program: Program, index: int, counts: Counts, flowing: Traffic, timed: Timing) -> dict[str, Any]:
    step, counted = program.steps[index], counts.steps[index]
    energy = energy_j(step_events(program, index, counts, flowing), program.chip)
    return {
        "name": step.name,
        "kind": step.kind,
        "matrix": step.bank,
        "operations": list(step.layers),
        "vectors": counted.vectors,
        "phases": _phases(program, step),
        "digital_ops": counted.digital_ops,
        "start_cycle": timed.start[index],
        "end_cycle": timed.end[index],
        "energy_j": {**energy, "total": sum(energy.values())},
    }


def _phases(program: Program, step: Step) -> int:
    return program.banks[step.bank].phases if step.bank is not None else 0


def _traffic_summary(program: Program, flowing: Traffic) -> dict[str, float]:
    kind = program.flows["kind"]
    return {
        "activations": float(flowing.bytes[kind == ACTIVATION].sum()),
        "partial_sums": float(flowing.bytes[kind == PARTIAL_SUM].sum()),
        "total": float(flowing.bytes.sum()),
        "byte_hops": float((flowing.bytes * (flowing.hops + flowing.chip_hops)).sum()),
        "chip_to_chip": float((flowing.bytes * flowing.chip_hops).sum()),
        "fullest_link": max((float(loads.max(initial=0.0)) for loads in flowing.links.values()), default=0.0),
    }
