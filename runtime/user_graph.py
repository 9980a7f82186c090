"""The user's own graph with other constants: where a tensor of weights is kept, and how it is changed there.

A new value goes to where the graph keeps the old one: an initializer, a Constant node, and through the
operations that only move or convert weights (`STORING`) to what they start from. Where the old value serves
somebody else too, or is computed in another way, the nodes concerned get an initializer of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.runtime.onnx_walk import bodies_of, nodes_of
from pcmc.runtime.shapes import Shape, infer
from pcmc.runtime.storing import LIMITS, STORING, Stored

Array = npt.NDArray[Any]
Slot = tuple[int, int]  # number of a node, number of its input


@dataclass(frozen=True, slots=True)
class _Wish:
    """A value that some inputs of nodes should have, where they now read one tensor."""

    slots: tuple[Slot, ...]
    stored: Stored


@dataclass(slots=True)
class UserGraph:
    """A model whose constants are being changed, in place.

    Usage: `want` for each input of a node that should have another value, then `settle` once. `changed` has
    the names of tensors that got new values, `added` those that are new, `clipped` how many values did not
    fit the type that holds them.
    """

    model: Any
    changed: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    clipped: dict[str, int] = field(default_factory=dict)
    _wishes: dict[str, list[_Wish]] = field(default_factory=dict)
    _uses: Counter[str] = field(default_factory=Counter)
    _made_by: dict[str, int] = field(default_factory=dict)
    _initializers: dict[str, Any] = field(default_factory=dict)
    _sparse: dict[str, Any] = field(default_factory=dict)
    _types: dict[str, tuple[int, Shape | None]] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _behind: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self._uses = Counter(name for node in graph.node for name in names_read(node))
        self._uses.update(value.name for value in graph.output)
        self._made_by = {out: number for number, node in enumerate(graph.node) for out in node.output if out}
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}
        self._types = infer(self.model)
        self._names = set(_all_names(graph))

    def node_making(self, tensor: str) -> int | None:
        """The number of the node that makes a tensor, None where there is none."""
        return self._made_by.get(tensor)

    def want(self, node: int, index: int, value: Array, changed: Array) -> None:
        """Ask for another value of an input of a node; `changed` marks the elements that differ."""
        tensor = self.model.graph.node[node].input[index]
        self._wishes.setdefault(tensor, []).append(_Wish(((node, index),), Stored(value, changed)))

    def settle(self) -> None:
        """Give every input that was asked for its value; whoever was not asked for keeps what it had."""
        for number in reversed(range(len(self.model.graph.node))):
            for tensor in self.model.graph.node[number].output:
                if tensor in self._wishes:
                    self._settle_tensor(tensor)
        for tensor in list(self._wishes):
            self._settle_tensor(tensor)

    def _settle_tensor(self, tensor: str) -> None:
        first, *others = _merged(self._wishes.pop(tensor))
        for wish in others:
            self._give_own(tensor, wish)
        nobody_else = len(first.slots) == self._uses[tensor]
        if not nobody_else or not self._store(tensor, first.stored):
            self._give_own(tensor, first)

    def _store(self, tensor: str, stored: Stored) -> bool:
        """Change a tensor where it is kept; False where that can't be done."""
        if tensor in self._initializers:
            kept = self._initializers[tensor]
            if tuple(kept.dims) != stored.value.shape or kept.data_type not in LIMITS:
                return False
            self._write(kept, tensor, stored)
            return True
        if tensor in self._sparse:
            return self._make_dense(tensor, stored)
        number = self._made_by.get(tensor)
        if number is None:
            return False
        node = self.model.graph.node[number]
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            return self._change_constant(node, tensor, stored)
        undo = STORING.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if (
            undo is None
            or len(node.output) > 1
            or self._types.get(tensor, (0, None))[1] != stored.value.shape
        ):
            return False
        before = undo(node, stored, self._types.get(node.input[0], (0, None)), self.constant)
        if before is None:
            return False
        self._wishes.setdefault(node.input[0], []).append(_Wish(((number, 0),), before))
        return True

    def _type(self, tensor: str) -> tuple[int, Shape | None]:
        """Element type and shape of a tensor; 0 and None where they are not known."""
        return self._types.get(tensor, (0, None))

    def constant(self, tensor: str) -> Array | None:
        """The value of an initializer or of a Constant node that holds a tensor; None for all others."""
        from onnx import numpy_helper

        if tensor in self._initializers:
            return np.asarray(numpy_helper.to_array(self._initializers[tensor]))
        number = self._made_by.get(tensor)
        node = None if number is None else self.model.graph.node[number]
        if node is not None and node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    return np.asarray(numpy_helper.to_array(attribute.t))
        return None

    def _write(self, kept: Any, name: str, stored: Stored) -> None:
        """Put new values in a TensorProto; its name, dimensions, documentation and metadata stay."""
        from onnx import helper, numpy_helper

        old = np.asarray(numpy_helper.to_array(kept))
        values = np.where(stored.changed, self._rounded(name, stored, kept.data_type), old)
        values = values.astype(helper.tensor_dtype_to_np_dtype(kept.data_type))
        raw = numpy_helper.from_array(np.ascontiguousarray(values)).raw_data
        for data in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            kept.ClearField(data)
        kept.raw_data = raw
        self.changed.append(name)

    def _rounded(self, name: str, stored: Stored, data_type: int) -> Array:
        """Values rounded to a type and clipped to what it can hold."""
        from onnx import helper

        kind = helper.tensor_dtype_to_np_dtype(data_type)
        low, high = LIMITS[data_type]
        wide = stored.value.astype(np.float64, copy=False)
        outside = stored.changed & ((wide < low) | (wide > high))
        if outside.any():
            self.clipped[name] = self.clipped.get(name, 0) + int(outside.sum())
        return np.clip(wide, low, high).astype(kind)

    def _make_dense(self, tensor: str, stored: Stored) -> bool:
        """A sparse initializer becomes a dense one of the same name."""
        sparse = self._sparse[tensor]
        if tuple(sparse.dims) != stored.value.shape:
            return False
        self.model.graph.sparse_initializer.remove(sparse)
        del self._sparse[tensor]
        self._append(tensor, stored, sparse.values.data_type)
        self.changed.append(tensor)
        return True

    def _change_constant(self, node: Any, tensor: str, stored: Stored) -> bool:
        """A Constant node gets another value; one that says it in numbers or sparsely says it as a tensor."""
        from onnx import AttributeProto

        data_type, shape = self._type(tensor)
        if shape != stored.value.shape or data_type not in LIMITS:
            return False
        for attribute in node.attribute:
            if attribute.name == "value":
                self._write(attribute.t, tensor, stored)
                return True
        del node.attribute[:]
        made = self._tensor("", stored, data_type)
        node.attribute.add(name="value", type=AttributeProto.TENSOR, t=made)
        self.changed.append(tensor)
        return True

    def _give_own(self, tensor: str, wish: _Wish) -> None:
        """Let some inputs read an initializer of their own; what nobody reads any more goes."""
        name = self.free_name(f"{tensor}/trained")
        self._append(name, wish.stored, self._own_type(tensor, wish.stored))
        for number, index in wish.slots:
            self.model.graph.node[number].input[index] = name
        self._uses[name] = len(wish.slots)
        self._uses[tensor] -= len(wish.slots)
        self.added.append(name)

    def _own_type(self, tensor: str, stored: Stored) -> int:
        from onnx import helper

        return self._types.get(tensor, (0, None))[0] or int(
            helper.np_dtype_to_tensor_dtype(stored.value.dtype)
        )

    def _tensor(self, name: str, stored: Stored, data_type: int) -> Any:
        from onnx import numpy_helper

        values = self._rounded(name, replace(stored, changed=np.ones_like(stored.changed)), data_type)
        return numpy_helper.from_array(np.ascontiguousarray(values), name or None)

    def _append(self, name: str, stored: Stored, data_type: int) -> None:
        from onnx import helper

        graph = self.model.graph
        graph.initializer.append(self._tensor(name, stored, data_type))
        self._initializers[name] = graph.initializer[-1]
        self._names.add(name)
        inputs = {value.name for value in graph.input}
        if self.model.ir_version < 4 and name not in inputs:  # every initializer is an input there
            dims = list(stored.value.shape)
            graph.input.append(helper.make_tensor_value_info(name, data_type, dims))

    def free_name(self, base: str) -> str:
        """A name like `base` that nothing in the model has."""
        count, name = 1, base
        while name in self._names:
            name, count = f"{base}_{count}", count + 1
        self._names.add(name)
        return name

    def add_to_input(self, node: int, index: int, value: Array, data_type_of: str) -> None:
        """Give a node an input that it did not have: `value`, in the type of the tensor `data_type_of`."""
        target = self.model.graph.node[node]
        stored = Stored(value, np.ones(value.shape, bool))
        name = self.free_name(f"{target.output[0]}/bias")
        self._append(name, stored, self._own_type(data_type_of, stored))
        while len(target.input) <= index:
            target.input.append("")
        target.input[index] = name
        self.added.append(name)

    def add_behind(self, node: int, value: Array, data_type_of: str) -> None:
        """Add `value` to the result of a node, by an Add behind it; the name stays that of the sum."""
        from onnx import helper

        made = self.model.graph.node[node]
        stored = Stored(value, np.ones(value.shape, bool))
        result = made.output[0]
        name, product = self.free_name(f"{result}/bias"), self.free_name(f"{result}/product")
        self._append(name, stored, self._own_type(data_type_of, stored))
        made.output[0] = product
        self.added.append(name)
        self._behind[node] = helper.make_node(
            "Add", [product, name], [result], name=self.free_name(f"{result}/Add")
        )

    def finish(self) -> None:
        """Drop constants that were replaced everywhere and the nodes that only computed them; put new nodes
        in their place.
        """
        graph = self.model.graph
        kept = {value.name for value in (*graph.input, *graph.output)}
        gone = self._unread_nodes()
        unread = {name for name, count in self._uses.items() if count <= 0} - kept
        for number in reversed(range(len(graph.initializer))):
            if graph.initializer[number].name in unread:
                del graph.initializer[number]
        for number in reversed(range(len(graph.node))):
            if number in self._behind:
                graph.node.insert(number + 1, self._behind[number])
            if number in gone:
                del graph.node[number]

    def _unread_nodes(self) -> set[int]:
        """Nodes whose results nobody reads any more since a constant was replaced."""
        nodes = self.model.graph.node
        dead = [name for name, count in self._uses.items() if count <= 0]
        gone: set[int] = set()
        while dead:
            number = self._made_by.get(dead.pop())
            if number is None or number in gone or any(self._uses[out] > 0 for out in nodes[number].output):
                continue
            gone.add(number)
            for read in names_read(nodes[number]):
                self._uses[read] -= 1
                if self._uses[read] <= 0:
                    dead.append(read)
        return gone


def _merged(wishes: Iterable[_Wish]) -> list[_Wish]:
    """Wishes for the same values as one."""
    merged: list[_Wish] = []
    for wish in wishes:
        for number, other in enumerate(merged):
            if np.array_equal(other.stored.value, wish.stored.value) and np.array_equal(
                other.stored.changed, wish.stored.changed
            ):
                merged[number] = replace(other, slots=(*other.slots, *wish.slots))
                break
        else:
            merged.append(wish)
    return merged


def names_read(node: Any) -> list[str]:
    """Every tensor that a node reads, once for each of its inputs; for what its bodies take from outside
    once more.
    """
    names = [name for name in node.input if name]
    for body in bodies_of(node).values():
        names.extend(_captured(body))
    return names


def _captured(body: Any) -> set[str]:
    inside = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    inside.update(name for node in body.node for name in node.output)
    used = {name for node in body.node for name in names_read(node)} | {value.name for value in body.output}
    return used - inside


def _all_names(graph: Any) -> Iterable[str]:
    """Names of tensors and nodes anywhere in a graph."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.value_info))
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in nodes_of(graph):
        yield node.name
        yield from (*node.input, *node.output)
        for body in bodies_of(node).values():
            yield from (value.name for value in body.input)
            yield from (tensor.name for tensor in body.initializer)
