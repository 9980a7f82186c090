"""When every step runs, in cycles of one tile read: the dependency schedule for given counts.

A step takes the longest of its reads (vectors x phases), its digital operations, and the bytes that it moves
through the digital unit's port. It starts when all that it needs is there, and when its tiles (or its digital
unit) are free. No two samples overlap in `latency`; `interval` is the busiest resource, which a full pipeline
waits for.

Two things are otherwise on some chips. Drivers without a sign send each vector twice, negative values by
themselves, unless the model has none there (`pcmc.runtime.signs`). And the digital unit of a chip with axons
are its neurons, which work in each tick of the window in which their spikes come in: what they do with the
values of an earlier step takes no time after it, as long as it is no more than they can do in one window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pcmc.accel.mesh import chip_links, crossings, link_loads
from pcmc.runtime.counts import Counts, StepCount
from pcmc.runtime.program import ACTIVATION, PARTIAL_SUM, Program, Step
from pcmc.runtime.signs import non_negative


@dataclass(frozen=True, slots=True)
class Timing:
    """Start and end of each step in cycles, and what limits the pipeline."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    latency_cycles: int
    interval_cycles: int
    bottleneck: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes per sample of each flow, its hops within and between chips, and the load of each link."""

    bytes: npt.NDArray[np.float64]
    hops: npt.NDArray[np.int64]
    chip_hops: npt.NDArray[np.int64]
    links: Mapping[str, npt.NDArray[np.float64]]


def traffic(program: Program, counts: Counts) -> Traffic:
    """What flows over the mesh for one sample."""
    flows = program.flows
    per_step = np.array([[c.vectors, c.positions] for c in counts.steps]).reshape(-1, 2)
    elements = np.array([*counts.flow_elements, 0.0])
    amount = np.choose(
        flows["per"], [per_step[flows["step"], 0], per_step[flows["step"], 1], elements[flows["tensor"]]]
    )
    sizes = amount * flows["scale"] * flows["width"]
    start = np.stack([flows["x0"], flows["y0"]], axis=1).astype(np.int64)
    end = np.stack([flows["x1"], flows["y1"]], axis=1).astype(np.int64)
    within, between = crossings(start, end, program.chip.chip)
    return Traffic(sizes, within, between, link_loads(start, end, sizes, program.chips, program.chip.chip))


def step_cycles(
    program: Program, step: Step, counted: StepCount, moved: tuple[float, float], turns: int = 1
) -> int:
    """Cycles that a step keeps its resources busy.

    Args:
        program: where the step is.
        step: the step.
        counted: what it does.
        moved: bytes that enter and leave its digital unit.
        turns: how often its drivers send each vector.
    """
    chip = program.chip
    digital = counted.digital_ops / chip.digital.ops_per_cycle
    port = max(moved) / chip.link.bytes_per_cycle
    if step.bank is not None:
        reads = counted.vectors * program.banks[step.bank].phases * turns
        return max(1, math.ceil(max(reads, digital, port)))
    cycles = math.ceil(max(digital, port))
    if chip.cell.kind != "axon":
        return max(1, cycles)
    return max(0, cycles - 1) if step.needs else cycles  # there is the window in which its values come in


def sending_turns(program: Program) -> tuple[int, ...]:
    """How often each step's drivers send a vector: twice where they have no sign and its values may have."""
    if program.chip.dac.signed:
        return (1,) * len(program.steps)
    positive = non_negative(program.clean)
    return tuple(1 if step.bank is None or step.inputs[0] in positive else 2 for step in program.steps)


def timing(program: Program, counts: Counts, flowing: Traffic) -> Timing:
    """The dependency schedule: steps in the program's order, each as early as its needs and its resources
    allow.
    """
    free: dict[tuple[str, int, int], int] = {}
    busy: dict[tuple[str, int, int], int] = {}
    start: list[int] = []
    end: list[int] = []
    turns = sending_turns(program)
    for index, (step, counted) in enumerate(zip(program.steps, counts.steps, strict=True)):
        resources = _resources(program, step)
        cycles = step_cycles(program, step, counted, _moved(program, flowing, index), turns[index])
        begin = max(
            [end[need] for need in step.needs] + [free.get(resource, 0) for resource in resources], default=0
        )
        start.append(begin)
        end.append(begin + cycles)
        for resource in resources:
            free[resource] = begin + cycles
            busy[resource] = busy.get(resource, 0) + cycles
    loads = {
        **{_resource_name(resource): cycles for resource, cycles in busy.items()},
        **_link_cycles(program, flowing),
    }
    bottleneck = max(loads, key=lambda name: loads[name], default="")
    return Timing(tuple(start), tuple(end), max(end, default=0), loads.get(bottleneck, 0), bottleneck)


def _resources(program: Program, step: Step) -> list[tuple[str, int, int]]:
    if step.bank is None:
        return [("digital unit", step.unit, 0)]
    table = program.banks[step.bank].table
    places = np.unique(np.stack([table["chip"], table["tile"]], axis=1), axis=0)
    return [("tile", int(chip), int(tile)) for chip, tile in places]


def _resource_name(resource: tuple[str, int, int]) -> str:
    kind, chip, tile = resource
    return f"tile {tile} of chip {chip}" if kind == "tile" else f"digital unit of chip {chip}"


def _moved(program: Program, flowing: Traffic, index: int) -> tuple[float, float]:
    mine = program.flows["step"] == index
    kind = program.flows["kind"]
    sent = float(flowing.bytes[mine & (kind == ACTIVATION)].max(initial=0.0))
    returned = float(flowing.bytes[mine & (kind == PARTIAL_SUM)].sum())
    return sent, returned


def _link_cycles(program: Program, flowing: Traffic) -> dict[str, int]:
    """Cycles that the fullest link of each direction and class takes for one sample."""
    link, found = program.chip.link, {}
    for direction, loads in flowing.links.items():
        between = chip_links(loads.shape, 1 if direction in ("east", "west") else 0, program.chip.chip)
        for name, mask, rate in (
            (f"a link {direction}", ~between, link.bytes_per_cycle),
            (f"a chip link {direction}", between, link.chip_bytes_per_cycle),
        ):
            if mask.any():
                found[name] = math.ceil(float(loads[mask].max(initial=0.0)) / rate)
    return found
