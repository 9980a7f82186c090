"""Trained weights back into the user's own graph, and programs with other weights.

The graph stays the user's: names, operator sets, metadata, documentation and the order of what it holds.
Foldings are undone (`runtime.unfolding`) and each value goes to where the graph keeps it
(`runtime.user_graph`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError, ProgramError
from pcmc.runtime.files import replacing
from pcmc.runtime.onnx_walk import first_line
from pcmc.runtime.program import Bank, Program
from pcmc.runtime.unfolding import NewConstant, new_constants
from pcmc.runtime.user_graph import UserGraph

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]

#: A model with more bytes of weights keeps them in a file beside it: protobuf's limit is 2 GiB, of which this
#: leaves 64 MiB to all the rest.
MOST_WEIGHT_BYTES = (2 << 30) - (64 << 20)
#: Tensors of at least this many bytes go there.
LARGE_TENSOR_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Export:
    """The user's model with the weights of a program, and what became different in it.

    `changed` are the tensors with new values and `added` those that are new, by name; `clipped` says how many
    values of a tensor lay outside of what its type can hold (float16, quantized weights) and were clipped.
    """

    model: onnx.ModelProto
    changed: tuple[str, ...]
    added: tuple[str, ...]
    clipped: Mapping[str, int]


def trained_model(program: Program) -> onnx.ModelProto:
    """The user's own model with the weights that the banks of a program hold.

    Weights that are as compiled keep their bits. All others are rounded to the type in which the model keeps
    them: to float16, or, behind a DequantizeLinear, to the steps of its scale and zero point, which stay as
    they are, and clipped to its range. A constant that serves others too, or is computed in a way that can't
    be turned round, gets a sibling `NAME/trained` that only the nodes of the bank read. Where the weights
    changed, the model's local functions are inlined.

    Raises:
        ProgramError: the banks do not fit the program's own graph.
    """
    return exported(program).model


def exported(program: Program) -> Export:
    """As `trained_model`, with what became different."""
    try:
        return _exported(program)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:  # what an altered file does
        raise ProgramError(
            f"{program.name}: its banks do not fit its model, it was altered: {first_line(error)}"
        ) from error


def _exported(program: Program) -> Export:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(program.model)
    constants = list(new_constants(program))
    if not constants:
        return Export(model, (), (), {})
    if model.functions:
        model = _inlined(model, program.name)
    graph = UserGraph(model)
    clean = {node.name: node for node in program.clean.graph.node}
    for constant in constants:
        _place(constant, graph, clean, program.name)
    graph.settle()
    graph.finish()
    return Export(model, tuple(graph.changed), tuple(graph.added), dict(graph.clipped))


def export_onnx(program: Program | str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the user's own model with the weights that a program holds, see `trained_model`.

    Args:
        program: a Program, or the path of a `.pcmc` file.
        path: the file to write: to a temporary name, then renamed. A model of nearly 2 GiB and more keeps its
            large tensors in a second file beside it, `NAME.HASH.data`; a smaller one holds all of them
            itself, also where the original did not.

    Raises:
        ProgramError: no such program file, or not a sound one.
        OutputError: the path can't be written; whatever was there before is still there.
    """
    from pcmc.runtime.program_file import load

    write_model(trained_model(program if isinstance(program, Program) else load(program)), path)


def write_model(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write an ONNX model in one piece, or, where it is too large for that, in two.

    `model` is changed in the second case: its large tensors move out of it.

    Raises:
        OutputError: the path can't be written; whatever was there before is still there.
    """
    beside: Path | None = None
    try:
        with replacing(path) as file:
            if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > MOST_WEIGHT_BYTES:
                beside = _write_data(model, Path(path))
            file.write(model.SerializeToString())
    except BaseException:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise


def _write_data(model: onnx.ModelProto, path: Path) -> Path | None:
    """Move large tensors to a file named by its content, so that an old model keeps an old file of its own
    if this one is never finished. Returns that file, None where it had been there before.
    """
    import onnx

    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= LARGE_TENSOR_BYTES]
    digest = hashlib.sha256()
    for tensor in large:
        digest.update(tensor.raw_data)
    beside = path.parent / f"{path.name}.{digest.hexdigest()[:16]}.data"
    known = beside.exists()
    with replacing(beside) as file:
        for tensor in large:
            offset, length = file.tell(), file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", beside.name), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
    return None if known else beside


def _inlined(model: onnx.ModelProto, origin: str) -> onnx.ModelProto:
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        raise ProgramError(f"{origin}: its functions can't be inlined: {first_line(error)}") from None


def _place(constant: NewConstant, graph: UserGraph, clean: Mapping[str, Any], origin: str) -> None:
    """Say what a constant of the clean graph is in the user's graph, and ask for its new value there.

    The two differ where a Gemm was split into MatMul and Add: there the user's operand is transposed and
    scaled.
    """
    number = _user_node(constant.node, graph, clean, origin)
    node = graph.model.graph.node[number]
    index, value, changed, restart = constant.index, constant.value, constant.changed, constant.restart
    if constant.missing:
        _add_bias(constant, number, graph)
        return
    if node.op_type == "Gemm" and constant.node.op_type == "Add":
        index = 2
    elif node.op_type == "Gemm" and constant.node.op_type == "MatMul":
        factors = {attribute.name: attribute for attribute in node.attribute}
        alpha = factors["alpha"].f if "alpha" in factors else 1.0
        flag = factors.get("transB" if index else "transA")
        if alpha != 1.0:
            restart, changed = ("", changed) if alpha else ("alpha", np.ones_like(changed))
            value = (value.astype(np.float64) / (alpha or 1.0)).astype(value.dtype)
        if flag is not None and flag.i:
            value, changed = value.T, changed.T
    if index >= len(node.input) or not node.input[index]:
        raise ProgramError(f"{origin}: node '{node.name}' of its model has no input {index}")
    if restart:
        _set_to_one(node, restart)
    graph.want(number, index, value, changed)


def _add_bias(constant: NewConstant, number: int, graph: UserGraph) -> None:
    """Put a bias where the user's graph has none: the optional input of Conv and Gemm, an Add behind a
    MatMul.
    """
    node = graph.model.graph.node[number]
    kept_type = node.input[constant.like]
    if node.op_type == "MatMul":
        graph.add_behind(number, constant.value, kept_type)
        return
    value = constant.value.reshape(-1) if node.op_type == "Conv" else constant.value
    graph.add_to_input(number, 2, value, kept_type)
    if any(attribute.name == "beta" for attribute in node.attribute):
        _set_to_one(node, "beta")


def _set_to_one(node: Any, name: str) -> None:
    next(attribute for attribute in node.attribute if attribute.name == name).f = 1.0


def _user_node(node: Any, graph: UserGraph, clean: Mapping[str, Any], origin: str) -> int:
    """The number of the user's node that a node of the clean graph stands for: they make the same tensor.

    The frontend gave other names to two kinds of results: outputs of a float16 model (`NAME/float32`), and
    the product of a Gemm that it split (`NODE/product`, with an Add `NODE/Add` behind it).
    """
    result = next(name for name in node.output if name)
    if result == f"{node.name}/product" and f"{node.name}/Add" in clean:
        sum_of_it = clean[f"{node.name}/Add"]
        result = sum_of_it.output[0] if result in sum_of_it.input else result
    for name in (result, result.removesuffix("/float32")):
        number = graph.node_making(name)
        if number is not None:
            return number
    raise ProgramError(f"{origin}: nothing in its model makes '{result}': the file was altered")


def with_weights(program: Program, banks: Mapping[str, tuple[Floats, Floats | None]]) -> Program:
    """A new program whose banks hold other weights; where each cell lies does not change.

    Args:
        program: left as it is.
        banks: by bank name, what `Bank.matrix()` gives: the matrix `[rows, cols]` (zero outside of the blocks
            of a grouped convolution) and its bias `[cols]`, None where the bank has none. Banks that are not
            named keep their weights.

    Raises:
        DataError: an unknown bank, a wrong shape, a bias where the bank has no place for one or none where it
            has, values that are not finite, or a number where a grouped matrix has no cell.
    """
    unknown = sorted(banks.keys() - program.banks.keys())
    if unknown:
        raise DataError(
            f"{program.name}: has no bank '{unknown[0]}'; it has {', '.join(list(program.banks)[:20])}"
        )
    changed = {
        name: _bank_with(program.banks[name], matrix, bias, program.name)
        for name, (matrix, bias) in banks.items()
    }
    return replace(program, banks={name: changed.get(name, bank) for name, bank in program.banks.items()})


def _bank_with(bank: Bank, matrix: Floats, bias: Floats | None, origin: str) -> Bank:
    matrix = np.asarray(matrix, np.float32)
    bias = None if bias is None else np.asarray(bias, np.float32)
    in_cells = bool(bank.table["bias"].any())
    _check_weights(bank, matrix, bias, in_cells or bank.bias is not None, f"{origin}: bank '{bank.name}'")
    cells = np.empty(bank.cells.shape, np.float32)
    kept = 0
    for block in bank.table:
        rows, cols = int(block["rows"]), int(block["cols"])
        inputs = rows - int(block["bias"])
        row, column = int(block["row0"]), int(block["col0"])
        target = cells[block["offset"] : block["offset"] + rows * cols].reshape(rows, cols)
        target[:inputs] = matrix[row : row + inputs, column : column + cols]
        kept += int(np.count_nonzero(target[:inputs]))
        if block["bias"] and bias is not None:
            target[-1] = bias[column : column + cols]
    if kept != np.count_nonzero(matrix):
        raise DataError(
            f"{origin}: bank '{bank.name}': the matrix has numbers between its {bank.groups} groups, where "
            "there is no cell: they must be zero"
        )
    cells.flags.writeable = False
    if bank.bias is None or bias is None:
        return replace(bank, cells=cells)
    digital = bias.copy()
    digital.flags.writeable = False
    return replace(bank, cells=cells, bias=digital)


def _check_weights(bank: Bank, matrix: Floats, bias: Floats | None, has_bias: bool, where: str) -> None:
    if matrix.shape != (bank.rows, bank.cols):
        raise DataError(f"{where}: a matrix of {list(matrix.shape)}, should be [{bank.rows}, {bank.cols}]")
    if bias is None and has_bias:
        raise DataError(f"{where}: has a bias of {bank.cols} numbers, none was given")
    if bias is not None and not has_bias:
        raise DataError(f"{where}: has no place for a bias: give None")
    if bias is not None and bias.shape != (bank.cols,):
        raise DataError(f"{where}: a bias of {list(bias.shape)}, should be [{bank.cols}]")
    arrays: list[npt.NDArray[Any]] = [matrix] if bias is None else [matrix, bias]
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataError(f"{where}: weights that are NaN or infinite: cells hold finite weights only")
