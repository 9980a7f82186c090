"""Whether a program that came from a file holds together: nothing in it may point outside of what is there."""

from __future__ import annotations

from typing import Any

import numpy as np

from pcmc.accel.mesh import board_side
from pcmc.errors import ProgramError
from pcmc.runtime.program import Bank, Program
from pcmc.runtime.regions import KNOWN_DOMAINS

def check_program(program: Program, origin: str) -> None:
    """Check steps, banks and flows of a program against each other and against its chip.

    Raises:
        ProgramError: naming the step, bank or table that does not fit.
    """
    for index, step in enumerate(program.steps):
        if step.bank is not None and (step.bank not in program.banks or step.read is None or len(step.inputs) != 1):
            raise ProgramError(f"{origin}: step '{step.name}' reads the bank '{step.bank}', which is not there")
        if step.bank is None and step.name not in program.regions:
            raise ProgramError(f"{origin}: step '{step.name}' has no region")
        if step.read is not None and (step.read.kind not in ("dense", "window", "columns")
                                      or (step.read.kind == "window") != (step.read.window is not None)):
            raise ProgramError(f"{origin}: step '{step.name}' reads in an unknown way, '{step.read.kind}'")
        if any(not 0 <= need < index for need in step.needs) or not 0 <= step.unit < program.chips:
            raise ProgramError(f"{origin}: step '{step.name}' needs a step or a digital unit that is not there")
    _check_tensors(program, origin)
    for bank in program.banks.values():
        _check_bank(bank, program, origin)
    _check_flows(program, origin)


def _check_tensors(program: Program, origin: str) -> None:
    known = {info.name for info in program.inputs}
    for step in program.steps:
        missing = [tensor for tensor in step.inputs if tensor not in known]
        if missing or len(step.outputs) == 0 and step.bank is not None:
            raise ProgramError(f"{origin}: step '{step.name}' uses '{missing[0] if missing else ''}', which no step before it makes")
        known.update(step.outputs)
    for info in program.outputs:
        if info.name not in known:
            raise ProgramError(f"{origin}: no step makes the output '{info.name}'")
    if program.sample_shapes.keys() != {info.name for info in program.inputs}:
        raise ProgramError(f"{origin}: sample_shapes does not name the inputs")


def _check_bank(bank: Bank, program: Program, origin: str) -> None:
    table, tile = bank.table, program.chip.tile
    where = f"{origin}: bank '{bank.name}'"
    if table.ndim != 1 or bank.cells.ndim != 1 or not len(table) or min(bank.rows, bank.cols, bank.groups) < 1:
        raise ProgramError(f"{where}: has no blocks, or tables of the wrong shape")
    columns = {name: table[name] for name in table.dtype.names or ()}
    if any(values.min() < 0 for values in columns.values()) or max(int(v.max()) for v in columns.values()) > 2**40:
        raise ProgramError(f"{where}: its table has values out of range")
    inside = (
        (columns["x"] + columns["cols"] <= tile.cols) & (columns["y"] + columns["rows"] <= tile.rows)
        & (columns["chip"] < program.chips) & (columns["tile"] < program.chip.chip.tiles) & (columns["bias"] <= 1)
        & (columns["rows"] > 0) & (columns["cols"] > 0) & (columns["phase"] <= len(table))
        & (columns["row0"] + columns["rows"] - columns["bias"] <= bank.rows) & (columns["col0"] + columns["cols"] <= bank.cols)
        & (columns["offset"] + columns["rows"] * columns["cols"] <= bank.cells.size)
    )
    if not inside.all():
        raise ProgramError(f"{where}: block {int(np.argmin(inside))} lies outside of its tile, its matrix or its cells")
    if not np.isfinite(bank.cells).all():
        raise ProgramError(f"{where}: its cells are not all finite")
    if bank.bias is not None and bank.bias.shape != (bank.cols,):
        raise ProgramError(f"{where}: its bias has shape {bank.bias.shape}, should be ({bank.cols},)")
    if any(f.scale.shape != (bank.cols,) or f.shift.shape != (bank.cols,) for f in bank.foldings):
        raise ProgramError(f"{where}: a folding does not have {bank.cols} columns")


def _check_flows(program: Program, origin: str) -> None:
    flows, layout = program.flows, program.chip.chip
    if not 1 <= program.chips <= 1 << 24 or flows.ndim != 1:
        raise ProgramError(f"{origin}: {program.chips} chips, or its flows, are out of range")
    side = board_side(program.chips)
    width, height = side * layout.mesh_x, -(-program.chips // side) * layout.mesh_y
    limits = {
        "x0": width, "x1": width, "y0": height, "y1": height, "kind": 2, "step": len(program.steps), "per": 3,
        "tensor": max(1, len(program.flow_tensors)),
    }
    for name, limit in limits.items():
        if len(flows) and (flows[name].min() < 0 or flows[name].max() >= limit):
            raise ProgramError(f"{origin}: flows: '{name}' is out of range 0..{limit - 1}")
    if not (np.isfinite(flows["scale"]).all() and np.isfinite(flows["width"]).all()):
        raise ProgramError(f"{origin}: flows: bytes are not finite")


def check_region(model: Any, name: str) -> None:
    """Refuse an ONNX model that names files or operators of unknown domains.

    Raises:
        ProgramError: with the member's name.
    """
    import onnx

    for graph in _graphs(model.graph):
        for tensor in [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.HasField("t"))]:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ProgramError(f"'{name}': tensor '{tensor.name}' points to a file: a program file holds all its data")
        for node in graph.node:
            local = any(node.domain == f.domain and node.op_type == f.name for f in model.functions)
            if node.domain not in KNOWN_DOMAINS and not local:
                raise ProgramError(f"'{name}': node '{node.name}' ({node.domain}:{node.op_type}) is of an unknown domain")


def _graphs(graph: Any) -> list[Any]:
    found = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found.extend(_graphs(attribute.g))
            for inner in attribute.graphs:
                found.extend(_graphs(inner))
    return found
