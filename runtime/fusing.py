"""Fusing: additions and ReLUs that follow a read, done by the read itself.

A tile read can add a tensor to its results and set what is below 0 to 0 while they are in cache, which is
cheaper than another pass over memory in a digital region. `plan` finds, for each read, the operations of the
regions that are nothing else. A region that is left without operations is gone, another is made anew from
those that stay. Results have the same bits: both are one rounding to float32, or none, of each value by
itself. The program, and so its report, stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pcmc.runtime.onnx_walk import bodies_of, nodes_of, tensors_used
from pcmc.runtime.program import Program, Step
from pcmc.runtime.regions import QUANTIZED, cut_region

FLOAT = 1  # onnx.TensorProto.FLOAT

#: Operators that may follow in the region what is taken out of it: onnxruntime does not merge them with it,
#: so that their results have the same bits without.
APART = frozenset(
    {
        "AveragePool", "Cast", "Concat", "DepthToSpace", "Flatten", "GlobalAveragePool", "GlobalMaxPool",
        "Identity", "MaxPool", "Pad", "Relu", "Reshape", "Resize", "Shape", "Slice", "SpaceToDepth", "Split",
        "Squeeze", "Transpose", "Unsqueeze", "Upsample",
    }
)  # fmt: skip
#: More of them after a ReLU. After a sum they could be part of a normalization, which takes it in.
APART_FROM_RELU = APART | {"Add", "Div", "Mul", "ReduceMean", "Sigmoid", "Softmax", "Sub", "Sum", "Tanh"}


@dataclass(frozen=True, slots=True)
class Finish:
    """What a read does to its results: `addend`, the name of a tensor, is added, then `relu`.

    `region` is the digital step that the operations come from, and `model` they alone, from the read's own
    tensor to `output`: for the reads that can't do it themselves.
    """

    output: str
    addend: str | None
    relu: bool
    region: str
    model: Any


@dataclass(frozen=True, slots=True)
class Task:
    """A step as it is run: with the tensors that it takes and makes."""

    step: Step
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a session runs, in order; `regions` are the digital tasks as ONNX, by step name."""

    tasks: tuple[Task, ...]
    regions: Mapping[str, Any]


def plan(program: Program) -> Plan:
    """The program's steps, with additions and ReLUs in the reads that they follow.

    An operation goes into a read if it is in float32, the only one that uses the read's result, which is no
    output of the program, and if what it adds is computed before the read. Shapes may still be open: whether
    the two are of one shape, and nothing is broadcast, shows when the program runs.
    """
    uses = Counter(tensor for step in program.steps for tensor in set(step.inputs))
    uses.update(info.name for info in program.outputs)
    made = {info.name: -1 for info in program.inputs}
    made |= {tensor: index for index, step in enumerate(program.steps) for tensor in step.outputs}
    readers = {
        step.outputs[0]: index
        for index, step in enumerate(program.steps)
        if step.bank is not None and step.dtype == FLOAT
    }
    tasks = {index: Task(step, step.inputs, step.outputs) for index, step in enumerate(program.steps)}
    regions = dict(program.regions)
    for index, step in enumerate(program.steps):
        if step.bank is not None:
            continue
        region = _Region(step, program.regions[step.name])
        for tensor in sorted(set(step.inputs) & readers.keys(), key=readers.__getitem__):
            reader = readers[tensor]
            finish = region.take(tensor, made, reader) if uses[tensor] == 1 else None
            if finish is not None:
                made[finish.output] = reader
                extra = () if finish.addend is None else (finish.addend,)
                read = program.steps[reader]
                tasks[reader] = Task(read, (*read.inputs, *extra), (finish.output,), finish)
        if not region.taken:
            continue
        rest = region.rest()
        if rest is None:
            del tasks[index], regions[step.name]
        else:
            tasks[index], regions[step.name] = rest
    return Plan(tuple(tasks[index] for index in sorted(tasks)), regions)


class _Region:
    """A digital region, and which of its operations have been taken out of it."""

    def __init__(self, step: Step, model: Any) -> None:
        self.step = step
        self.model = model
        self.nodes = list(model.graph.node)
        self.taken: set[int] = set()
        self.finished: list[str] = []  # tensors that reads make in its place
        self._kept_whole = any(node.op_type in QUANTIZED for node in nodes_of(model.graph))
        self._users: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for tensor in tensors_used(node):
                self._users.setdefault(tensor, []).append(index)

    def take(self, tensor: str, made: Mapping[str, int], reader: int) -> Finish | None:
        """Take out what follows the result of a read, if anything can be; `made` says which step makes a
        tensor, `reader` is the read.
        """
        addend, last, chain = None, tensor, []
        node = self._only_user(tensor, "Add")
        if node is not None:
            first, second = self.nodes[node].input
            addend = second if first == tensor else first
            if made.get(addend, reader) >= reader:
                return None
            chain.append(node)
            last = self.nodes[node].output[0]
        # A sum that others want, too, is where the read ends.
        node = None if chain and last in self.step.outputs else self._only_user(last, "Relu")
        if node is not None:
            chain.append(node)
            last = self.nodes[node].output[0]
        relu = node is not None
        if not chain or not self._is_apart(last, APART_FROM_RELU if relu else APART):
            return None
        self.taken.update(chain)
        self.finished.append(last)
        inputs = [tensor] if addend is None else [tensor, addend]
        model = cut_region(self.model, [self.nodes[index] for index in chain], inputs, [last])
        return Finish(last, addend, relu, self.step.name, model)

    def rest(self) -> tuple[Task, Any] | None:
        """What is left, as a task and as a model; None: nothing."""
        nodes = [node for index, node in enumerate(self.nodes) if index not in self.taken]
        outputs = [tensor for tensor in self.step.outputs if tensor not in self.finished]
        if not outputs:
            return None
        used = {tensor for node in nodes for tensor in tensors_used(node)}
        inputs = [tensor for tensor in (*self.step.inputs, *self.finished) if tensor in used]
        task = Task(self.step, tuple(inputs), tuple(outputs))
        return task, cut_region(self.model, nodes, inputs, outputs)

    def _only_user(self, tensor: str, op_type: str) -> int | None:
        """The operation that uses a tensor, if it is the only one and such a one as reads can do."""
        users = self._users.get(tensor, [])
        if len(users) != 1:
            return None
        node = self.nodes[users[0]]
        return users[0] if node.op_type == op_type and node.domain in ("", "ai.onnx") else None

    def _is_apart(self, tensor: str, operators: frozenset[str]) -> bool:
        """Whether the operations that stay give the same bits without those before `tensor`."""
        users = [self.nodes[index] for index in self._users.get(tensor, [])]
        return self._kept_whole or all(node.op_type in operators and not bodies_of(node) for node in users)
