"""Whether a program that came from a file holds together: nothing in it may point outside of what is
there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pcmc.accel.mesh import board_side
from pcmc.errors import ProgramError
from pcmc.runtime.onnx_walk import KNOWN_DOMAINS, nodes_of, tensors_of
from pcmc.runtime.program import Bank, Program
from pcmc.runtime.state import ChipState

#: A larger board, size or number of bytes per value is none that a model asks for.
MOST_TILES = 1 << 24
MOST_ELEMENTS = 1 << 31
MOST_BYTES_PER_COUNT = 2.0**40


def check_program(program: Program, origin: str) -> None:
    """Check steps, banks and flows of a program against each other and against its chip.

    Raises:
        ProgramError: naming the step, bank or table that does not fit.
    """
    for index, step in enumerate(program.steps):
        if step.bank is not None and (
            step.bank not in program.banks or step.read is None or len(step.inputs) != 1
        ):
            raise ProgramError(
                f"{origin}: step '{step.name}' reads the bank '{step.bank}', which is not there"
            )
        if step.bank is None and step.name not in program.regions:
            raise ProgramError(f"{origin}: step '{step.name}' has no region")
        if step.read is not None and (
            step.read.kind not in ("dense", "window", "columns")
            or (step.read.kind == "window") != (step.read.window is not None)
        ):
            raise ProgramError(f"{origin}: step '{step.name}' reads in an unknown way, '{step.read.kind}'")
        if any(not 0 <= need < index for need in step.needs) or not 0 <= step.unit < program.chips:
            raise ProgramError(
                f"{origin}: step '{step.name}' needs a step or a digital unit that is not there"
            )
    _check_tensors(program, origin)
    _check_inputs(program, origin)
    for bank in program.banks.values():
        _check_bank(bank, program, origin)
    _check_board(program, origin)
    _check_flows(program, origin)
    _check_options(program, origin)


def _check_tensors(program: Program, origin: str) -> None:
    known = {info.name for info in program.inputs}
    for step in program.steps:
        missing = [tensor for tensor in step.inputs if tensor not in known]
        if missing or (len(step.outputs) == 0 and step.bank is not None):
            raise ProgramError(
                f"{origin}: step '{step.name}' uses '{missing[0] if missing else ''}', which no step "
                "before it makes"
            )
        known.update(step.outputs)
    for info in program.outputs:
        if info.name not in known:
            raise ProgramError(f"{origin}: no step makes the output '{info.name}'")
    if program.sample_shapes.keys() != {info.name for info in program.inputs}:
        raise ProgramError(f"{origin}: sample_shapes does not name the inputs")


def _check_inputs(program: Program, origin: str) -> None:
    """Inputs have a type that numpy knows, and sample shapes that fit them."""
    from onnx import TensorProto, helper

    for info in (*program.inputs, *program.outputs):
        if info.dtype not in TensorProto.DataType.values():
            raise ProgramError(f"{origin}: '{info.name}' is of an unknown type, {info.dtype}")
    for info in program.inputs:
        if info.dtype not in helper.get_all_tensor_dtypes():
            raise ProgramError(f"{origin}: input '{info.name}' has no type")
        shape, sample = info.shape, program.sample_shapes[info.name]
        fits = shape is None or (
            len(shape) == len(sample)
            and all(isinstance(dim, str) or dim == size for dim, size in zip(shape, sample, strict=True))
        )
        if not fits or any(not 0 <= size < MOST_ELEMENTS for size in sample):
            raise ProgramError(
                f"{origin}: the sample shape of input '{info.name}' does not fit it, or is out of range"
            )


def _check_bank(bank: Bank, program: Program, origin: str) -> None:
    table, tile = bank.table, program.chip.tile
    where = f"{origin}: bank '{bank.name}'"
    if (
        table.ndim != 1
        or bank.cells.ndim != 1
        or not len(table)
        or min(bank.rows, bank.cols, bank.groups) < 1
    ):
        raise ProgramError(f"{where}: has no blocks, or tables of the wrong shape")
    if max(bank.rows, bank.cols) > bank.cells.size:  # each row and each column has a cell at least
        raise ProgramError(
            f"{where}: a matrix of {bank.rows} x {bank.cols} has more than {bank.cells.size} cells"
        )
    columns = {name: table[name] for name in table.dtype.names or ()}
    if (
        any(values.min() < 0 for values in columns.values())
        or max(int(v.max()) for v in columns.values()) > 2**40
    ):
        raise ProgramError(f"{where}: its table has values out of range")
    inside = (
        (columns["x"] + columns["cols"] <= tile.cols)
        & (columns["y"] + columns["rows"] <= tile.rows)
        & (columns["chip"] < program.chips)
        & (columns["tile"] < program.chip.chip.tiles)
        & (columns["bias"] <= 1)
        & (columns["rows"] > 0)
        & (columns["cols"] > 0)
        & (columns["phase"] <= len(table))
        & (columns["row0"] + columns["rows"] - columns["bias"] <= bank.rows)
        & (columns["col0"] + columns["cols"] <= bank.cols)
        & (columns["offset"] + columns["rows"] * columns["cols"] <= bank.cells.size)
    )
    if not inside.all():
        raise ProgramError(
            f"{where}: block {int(np.argmin(inside))} lies outside of its tile, its matrix or its cells"
        )
    if not np.isfinite(bank.cells).all():
        raise ProgramError(f"{where}: its cells are not all finite")
    if bank.bias is not None and bank.bias.shape != (bank.cols,):
        raise ProgramError(f"{where}: its bias has shape {bank.bias.shape}, should be ({bank.cols},)")
    if any(f.scale.shape != (bank.cols,) or f.shift.shape != (bank.cols,) for f in bank.foldings):
        raise ProgramError(f"{where}: a folding does not have {bank.cols} columns")


def _check_board(program: Program, origin: str) -> None:
    """No more chips than tiles in use: what is reported of the board takes memory for each tile of each
    chip.
    """
    places = [np.stack([bank.table["chip"], bank.table["tile"]], axis=1) for bank in program.banks.values()]
    used = len(np.unique(np.concatenate([*places, np.zeros((0, 2), np.int64)]), axis=0))
    if (
        program.tiles != used
        or not 1 <= program.chips <= used
        or program.chips * program.chip.chip.tiles > MOST_TILES
    ):
        raise ProgramError(
            f"{origin}: says {program.tiles} tiles on {program.chips} chips, its banks use {used} tiles"
        )


def _check_flows(program: Program, origin: str) -> None:
    flows, layout = program.flows, program.chip.chip
    if flows.ndim != 1:
        raise ProgramError(f"{origin}: its flows are no table")
    side = board_side(program.chips)
    width, height = side * layout.mesh_x, -(-program.chips // side) * layout.mesh_y
    limits = {
        "x0": width,
        "x1": width,
        "y0": height,
        "y1": height,
        "kind": 2,
        "step": len(program.steps),
        "per": 3,
        "tensor": max(1, len(program.flow_tensors)),
    }
    for name, limit in limits.items():
        if len(flows) and (flows[name].min() < 0 or flows[name].max() >= limit):
            raise ProgramError(f"{origin}: flows: '{name}' is out of range 0..{limit - 1}")
    for name in ("scale", "width"):
        if not ((flows[name] >= 0) & (flows[name] <= MOST_BYTES_PER_COUNT)).all():  # refuses NaN, too
            raise ProgramError(f"{origin}: flows: '{name}' is out of range")


def _check_options(program: Program, origin: str) -> None:
    """Frozen inputs, which a comparison feeds to the original model, are inputs of it."""
    from onnx import helper

    frozen = program.options.get("freeze", {})
    types = {value.name: value.type.tensor_type.elem_type for value in program.model.graph.input}
    if not isinstance(frozen, dict) or not frozen.keys() <= types.keys():
        raise ProgramError(f"{origin}: options: 'freeze' does not name inputs of the model")
    for name, value in frozen.items():
        np.asarray(value, helper.tensor_dtype_to_np_dtype(types[name]))


def check_state(state: ChipState, program: Program) -> None:
    """Check that the devices of a state are those of a program.

    Raises:
        ProgramError: naming the bank that does not fit.
    """
    for name, bank in program.banks.items():
        held = state.banks.get(name)
        if held is None:
            raise ProgramError(f"{program.name}: the state has no bank '{name}': it is of another program")
        plus, minus = held.devices.g_plus, held.devices.g_minus
        cells = plus.shape[0] if plus.ndim else 0
        if cells != bank.cells.size or plus.ndim > 2 or minus.shape not in (plus.shape, (0,)):
            raise ProgramError(
                f"{program.name}: the state of bank '{name}' has {cells} cells, it has {bank.cells.size}"
            )
        low, conversions = held.devices.low, int(bank.table["cols"].sum())
        if held.w_max.shape != (conversions,) or low.shape not in ((bank.cells.size,), (0,)):
            raise ProgramError(
                f"{program.name}: the state of bank '{name}' has {held.w_max.size} scales for its "
                f"{conversions} columns of blocks, or {low.size} low tiers for its {bank.cells.size} cells"
            )
        scales = np.append(held.w_max, held.bias_drive)
        finite = all(np.isfinite(array).all() for array in (plus, minus, low, scales))
        if not finite or not (scales > 0).all():
            raise ProgramError(
                f"{program.name}: the state of bank '{name}' has values that are not positive and finite"
            )
        behind = None if state.wired is None else state.wired.banks.get(name)
        if behind is None:
            continue
        sizes = behind.weights.ndim == 2 and behind.weights.shape[1] == bank.cells.size
        if not sizes or behind.damping.shape != (conversions,):
            raise ProgramError(
                f"{program.name}: the solved wires of bank '{name}' are {list(behind.weights.shape)} and "
                f"{list(behind.damping.shape)}, should be [columns, {bank.cells.size}] and [{conversions}]"
            )
        if not (np.isfinite(behind.weights).all() and ((behind.damping >= 0) & (behind.damping <= 1)).all()):
            raise ProgramError(f"{program.name}: the solved wires of bank '{name}' are not finite")


def check_text(message: Any, name: str) -> None:
    """Refuse an ONNX message, or one inside it, with names that are not UTF-8 text: protobuf lets them pass.

    Raises:
        ProgramError: beginning with `name`.
    """
    try:
        fields = message.ListFields()
        words = [word for field, value in fields if field.type == field.TYPE_STRING for word in _items(value)]
        inner = [
            item for field, value in fields if field.type == field.TYPE_MESSAGE for item in _items(value)
        ]
    except UnicodeDecodeError:
        words, inner = [b""], []
    if not all(isinstance(word, str) for word in words):
        raise ProgramError(f"{name}: a name is not UTF-8 text")
    for item in inner:
        check_text(item, name)


def _items(value: Any) -> list[Any]:
    """The items of a repeated field, or the one of a single field."""
    return [value] if isinstance(value, str | bytes) or hasattr(value, "ListFields") else list(value)


def check_region(model: Any, name: str) -> None:
    """Refuse an ONNX model that names files or operators of unknown domains.

    Raises:
        ProgramError: beginning with `name`.
    """
    import onnx

    local = {(function.domain, function.name) for function in model.functions}
    for part in (model.graph, *model.functions):
        for tensor in tensors_of(part):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise ProgramError(
                    f"{name}: tensor '{tensor.name}' points to a file: a program file holds all its data"
                )
        for node in nodes_of(part):
            if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in local:
                raise ProgramError(
                    f"{name}: node '{node.name}' ({node.domain}:{node.op_type}) is of an unknown domain"
                )
