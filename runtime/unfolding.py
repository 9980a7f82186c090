"""What the weights of banks mean in the clean graph: foldings undone, for each input of a node that holds
weights the values that it should have now.

Only cells that are not as compiled get new values; all others keep what the graph has, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.runtime.program import Bank, Folding, Program, Read

Array = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class NewConstant:
    """What input `index` of a node of the clean graph should be: `value`, in which `changed` marks the
    elements that are not what they were. A `value` of another shape than the old one broadcasts in its place.

    Where the node has no such input (`missing`), the value is to be added to its result, in the type of input
    `like`. `restart` names an attribute that has to be 1 (an alpha or beta of zero hides all weights).
    """

    node: Any
    index: int
    value: Array
    changed: Mask
    missing: bool = False
    like: int = 0
    restart: str = ""


@dataclass(frozen=True, slots=True)
class _Reader:
    """A node that reads a bank, with what its tensors hold: `weights` and `bias` are numbers of its inputs,
    `tail` the axes behind that of the columns in its result.
    """

    node: Any
    weights: int
    bias: int | None
    shape: tuple[int, ...]
    tail: int
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alpha(self) -> float:
        return float(self.attributes.get("alpha", 1.0)) if self.node.op_type == "Gemm" else 1.0

    @property
    def beta(self) -> float:
        return float(self.attributes.get("beta", 1.0)) if self.node.op_type == "Gemm" else 1.0


def new_constants(program: Program) -> Iterator[NewConstant]:
    """New values of the clean graph's constants, for those weights of the banks that are not as compiled.

    Raises:
        ValueError, KeyError, IndexError, TypeError: a bank that does not fit the program's own graph, which
            can only be in an altered file.
    """
    nodes = {node.name: node for node in program.clean.graph.node}
    tensors = {tensor.name: tensor for tensor in program.clean.graph.initializer}
    for step in program.steps:
        if step.bank is None or step.read is None:
            continue
        bank = program.banks[step.bank]
        reader = _reader(nodes[step.layers[0]], bank, step.read, tensors)
        followers = [nodes[folding.node] for folding in bank.foldings]
        yield from _of_bank(bank, reader, followers, tensors)


def _array(tensors: Mapping[str, Any], name: str) -> Array:
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensors[name]))


def _reader(node: Any, bank: Bank, read: Read, tensors: Mapping[str, Any]) -> _Reader:
    from onnx import helper

    weights = list(node.input).index(bank.initializer)
    has_bias = node.op_type in ("Gemm", "Conv") and len(node.input) > 2 and bool(node.input[2])
    shape = tuple(tensors[bank.initializer].dims)
    tail = {"dense": 0, "columns": 1, "window": len(shape) - 2}[read.kind]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return _Reader(node, weights, 2 if has_bias else None, shape, tail, attributes)


def _of_bank(
    bank: Bank, reader: _Reader, followers: list[Any], tensors: Mapping[str, Any]
) -> Iterator[NewConstant]:
    original = _array(tensors, bank.initializer)
    weights, bias = _held(bank, original.size)
    before = None if reader.bias is None else _array(tensors, reader.node.input[2])
    compiled, compiled_bias = _folded(*_lowered(original, before, reader, bank), bank.foldings)
    changed = weights != compiled
    if changed.any():
        scale = np.ones(bank.cols)
        for folding in bank.foldings:
            scale *= folding.scale
        undone = weights / (scale.reshape(bank.groups, 1, -1) * (reader.alpha or 1.0))
        mask = _as_constant(changed, reader) | (reader.alpha == 0.0)
        value = np.where(mask, _as_constant(undone, reader), original.astype(np.float64))
        value = _narrowed(value, original)
        yield NewConstant(reader.node, reader.weights, value, mask, restart="" if reader.alpha else "alpha")
    if bias is not None and compiled_bias is not None and (bias != compiled_bias).any():
        yield _new_bias(
            bias.astype(np.float64), bias != compiled_bias, reader, bank.foldings, followers, tensors
        )


def _narrowed(value: Array, old: Array) -> Array:
    """New values of a constant in double precision where it is double, else single; what is too large for
    that is infinite here, and clipped where it is written.
    """
    with np.errstate(over="ignore"):
        return value.astype(np.float64 if old.dtype == np.float64 else np.float32, copy=False)


def _held(bank: Bank, size: int) -> tuple[Array, Array | None]:
    """What the cells of a bank hold: `size` weights as `[groups, rows / groups, cols / groups]`, and the
    bias.
    """
    rows, cols = bank.rows // bank.groups, bank.cols // bank.groups
    if bank.groups * rows * cols != size:
        raise ValueError(f"bank '{bank.name}' has {bank.groups * rows * cols} weights, the model {size}")
    weights = np.zeros((bank.groups, rows, cols), np.float32)
    bias = None if bank.bias is None else bank.bias.copy()
    for block in bank.table:
        height, width, column = int(block["rows"]), int(block["cols"]), int(block["col0"])
        cells = bank.cells[block["offset"] : block["offset"] + height * width].reshape(height, width)
        inputs, group = height - int(block["bias"]), column // cols
        row, col = int(block["row0"]) - group * rows, column - group * cols
        weights[group, row : row + inputs, col : col + width] = cells[:inputs]
        if block["bias"]:
            bias = np.zeros(bank.cols, np.float32) if bias is None else bias
            bias[column : column + width] = cells[-1]
    return weights, bias


def _lowered(weights: Array, bias: Array | None, reader: _Reader, bank: Bank) -> tuple[Array, Array | None]:
    """The matrix `[groups, rows / groups, cols / groups]` and the bias as the lowering makes them of the
    constants of a node, before foldings.
    """
    wide = weights.astype(np.float64)
    row = None if bias is None else bias.astype(np.float64).reshape(-1) * reader.beta
    if reader.node.op_type == "Conv":
        matrix = wide.reshape(bank.groups, bank.cols // bank.groups, -1).transpose(0, 2, 1)
    elif reader.node.op_type == "Gemm":
        matrix = (wide.T if reader.attributes.get("transB", 0) else wide) * reader.alpha
    else:
        matrix = wide.T if reader.weights == 0 else wide
    matrix = matrix.reshape(bank.groups, bank.rows // bank.groups, bank.cols // bank.groups)
    addend = None if row is None else np.broadcast_to(row, (bank.cols,)).astype(np.float32)
    return matrix.astype(np.float32), addend


def _as_constant(matrix: Array, reader: _Reader) -> Array:
    """The inverse of `_lowered`, without factors: a matrix by groups in the shape of the node's constant."""
    turned = reader.node.op_type == "Gemm" and reader.attributes.get("transB", 0)
    if reader.node.op_type == "Conv" or turned or (reader.node.op_type == "MatMul" and reader.weights == 0):
        matrix = matrix.transpose(0, 2, 1)
    constant: Array = matrix.reshape(reader.shape)
    return constant


def _folded(weights: Array, bias: Array | None, foldings: tuple[Folding, ...]) -> tuple[Array, Array | None]:
    """Weights and bias after the foldings, each rounded to single precision as the compiler does."""
    groups = len(weights)
    for folding in foldings:
        scale = folding.scale.reshape(groups, 1, -1)
        weights = (weights.astype(np.float64) * scale).astype(np.float32)
        start = np.zeros(folding.scale.shape) if bias is None else bias.astype(np.float64)
        bias = (start * folding.scale + folding.shift).astype(np.float32)
    return weights, bias


def _new_bias(
    bias: Doubles,
    changed: Mask,
    reader: _Reader,
    foldings: tuple[Folding, ...],
    followers: list[Any],
    tensors: Mapping[str, Any],
) -> NewConstant:
    """Where a new bias goes: to the reader's own, else to the first constant that is added behind it, else
    beside the reader.
    """
    count = 0 if reader.bias is not None else _first_addition(foldings)
    for folding in reversed(foldings[count:]):
        bias = (bias - folding.shift) / folding.scale
    if reader.bias is not None:
        value, restart = bias / (reader.beta or 1.0), "" if reader.beta else "beta"
        changed = changed | (reader.beta == 0.0)
        old = _array(tensors, reader.node.input[2])
        return _shaped(NewConstant(reader.node, 2, value, changed, restart=restart), old, reader.tail)
    if count == 0:
        value = bias.reshape(-1, *[1] * reader.tail)
        value, every = value.astype(np.float32), np.ones(value.shape, bool)
        return NewConstant(reader.node, 2, value, every, missing=True, like=reader.weights)
    follower, folding = followers[count - 1], foldings[count - 1]
    index = _added_input(follower, tensors)
    old = _array(tensors, follower.input[index])
    if follower.op_type == "BatchNormalization":
        bias = old.astype(np.float64) + (bias - folding.shift)
    elif follower.op_type == "Sub" and index == 1:
        bias = -bias
    return _shaped(NewConstant(follower, index, bias, changed), old, reader.tail)


def _first_addition(foldings: tuple[Folding, ...]) -> int:
    """One more than the number of the first folding that adds something; 0 where none does. Foldings before
    it only scale, so that what they make of no bias is none.
    """
    return next(
        (
            number
            for number, folding in enumerate(foldings, 1)
            if folding.op_type in ("Add", "Sub", "BatchNormalization")
        ),
        0,
    )


def _added_input(follower: Any, tensors: Mapping[str, Any]) -> int:
    """Which input of a folded operation is the constant that it adds."""
    if follower.op_type == "BatchNormalization":
        return 2
    return [name in tensors for name in follower.input].index(True)


def _shaped(constant: NewConstant, old: Array, tail: int) -> NewConstant:
    """A value for each column in the shape of the constant it replaces; in a larger one where that was a
    single number and the columns now differ.
    """
    value, changed = constant.value, constant.changed
    if old.size != value.size:
        value = np.where(changed, value, old.astype(np.float64).reshape(-1))
        same = bool((value == value[0]).all())
        shape = old.shape if same else (value.size, *[1] * tail)
        value = np.full(shape, value[0]) if same else value.reshape(shape)
        changed = np.ones(shape, bool)
    else:
        changed = changed.reshape(old.shape)
        value = np.where(changed, value.reshape(old.shape), old.astype(np.float64))
    return NewConstant(
        constant.node, constant.index, _narrowed(value, old), changed, restart=constant.restart
    )
