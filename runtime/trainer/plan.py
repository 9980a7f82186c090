"""Plan: which operations lie on the path from trained weights to the loss, and what comes before them.

The front, everything that no trained weight reaches, runs as in a `Session`: it is a program of its own. What
trained weights reach and what leads to the loss is the path; it needs rules, forward and backward.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError, ModelError
from pcmc.runtime.ops.node import Node, node_from_onnx
from pcmc.runtime.ops.normalization import writes_statistics
from pcmc.runtime.ops.table import RULES, rule
from pcmc.runtime.program import Program, Read, Step, TensorInfo
from pcmc.runtime.regions import cut_region

Array = npt.NDArray[Any]

#: What a network may end with that its loss takes in: the loss is computed from what goes into it.
_OUTPUT_LAYERS = {"Softmax": "cross_entropy", "LogSoftmax": "cross_entropy", "Sigmoid": "bce"}


@dataclass(frozen=True, slots=True)
class ReadNode:
    """A read of a bank on the path."""

    step: Step
    bank: str
    how: Read

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensor that is sent through the bank."""
        return self.step.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """The tensor that comes out."""
        return self.step.outputs


PathNode: TypeAlias = ReadNode | Node


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What is trained and how.

    `front` is a program whose outputs are `boundary`, the tensors that the path takes from it (those that are
    inputs of the model stand in `boundary`, too); None: the path begins at the model's inputs. `path` are its
    nodes in order, `constants` their constant tensors, `trained` the names of the banks to be updated.
    `logits` is the tensor that the loss is computed from, `implied` the loss that the network's end implies.
    `needed` are the tensors whose gradient is wanted.
    """

    front: Program | None
    boundary: tuple[str, ...]
    path: tuple[PathNode, ...]
    constants: Mapping[str, Array]
    trained: tuple[str, ...]
    logits: str
    implied: str
    needed: frozenset[str]

    @property
    def banks(self) -> tuple[str, ...]:
        """The banks on the path, trained or frozen, in order of their first read."""
        return tuple(dict.fromkeys(node.bank for node in self.path if isinstance(node, ReadNode)))


def plan_training(program: Program, layers: Sequence[str] | None = None) -> TrainingPlan:
    """Find the path.

    Args:
        program: what is trained.
        layers: names of layers (of the user's graph) or of banks whose matrices are trained; None: all.

    Raises:
        DataError: no such layer, or one without a matrix on tiles.
        ModelError: nothing to train, more than one output, or an operation without a rule on the path.
    """
    trained = _trained_banks(program, layers)
    nodes, constants = _all_nodes(program)
    output, implied = _loss_input(program, nodes)
    reached, needed = _reached(nodes, trained, smoothly=False), _reached(nodes, trained, smoothly=True)
    wanted = _leading_to(nodes, output)
    path = tuple(node for node in nodes if reached & set(node.outputs) and wanted & set(node.outputs))
    for node in path:
        if isinstance(node, Node):
            _check_rule(node, program, needed, output)
            _check_statistics(node, program)
    if output not in needed:
        raise ModelError(f"{program.name}: no weight that is to be trained reaches the output '{output}'")
    made = {tensor for node in path for tensor in node.outputs}
    used = dict.fromkeys(tensor for node in path for tensor in node.inputs if tensor)
    boundary = tuple(tensor for tensor in used if tensor not in made and tensor not in constants)
    return TrainingPlan(
        front=_front(program, boundary),
        boundary=boundary,
        path=path,
        constants={name: value for name, value in constants.items() if name in used},
        trained=tuple(name for name in program.banks if name in trained),
        logits=output,
        implied=implied,
        needed=frozenset(needed),
    )


def _trained_banks(program: Program, layers: Sequence[str] | None) -> set[str]:
    """The banks of some layers, which may be named as in the user's graph, as the bank or as its weights."""
    if not program.banks:
        raise ModelError(f"{program.name}: there is no matrix on the chip, so nothing can be trained")
    if layers is None:
        return set(program.banks)
    names: dict[str, str] = {}
    for step in program.steps:
        if step.bank is not None:
            names |= dict.fromkeys(step.layers, step.bank)
    names |= {bank.initializer: name for name, bank in program.banks.items() if bank.initializer}
    names |= {name: name for name in program.banks}
    if not layers:
        raise DataError("layers: none is named, so nothing would be trained")
    for layer in layers:
        if layer not in names:
            close = get_close_matches(layer, names, 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise DataError(
                f"layers: there is no layer '{layer}' with a matrix on the chip{hint}; there are "
                + ", ".join(f"'{name}'" for name in program.banks)
            )
    return {names[layer] for layer in layers}


def _all_nodes(program: Program) -> tuple[list[PathNode], dict[str, Array]]:
    """All operations in order, and the constants of the digital ones."""
    import onnx

    nodes: list[PathNode] = []
    constants: dict[str, Array] = {}
    for step in program.steps:
        if step.bank is not None and step.read is not None:
            nodes.append(ReadNode(step, step.bank, step.read))
            continue
        region = program.regions[step.name]
        opsets = {entry.domain: entry.version for entry in region.opset_import}
        for tensor in region.graph.initializer:
            constants[tensor.name] = onnx.numpy_helper.to_array(tensor)
        for proto in region.graph.node:
            nodes.append(node_from_onnx(proto, opsets.get(proto.domain, opsets.get("", 1))))
    return nodes, constants


def _loss_input(program: Program, nodes: Sequence[PathNode]) -> tuple[str, str]:
    """The tensor that the loss takes, and which loss the end of the network implies."""
    if len(program.outputs) != 1:
        names = ", ".join(info.name for info in program.outputs)
        raise ModelError(
            f"{program.name}: has {len(program.outputs)} outputs ({names}); training takes a model with one"
        )
    output = program.outputs[0].name
    last = next((node for node in nodes if output in node.outputs), None)
    if isinstance(last, Node) and last.op_type in _OUTPUT_LAYERS and not last.domain:
        used = sum(last.inputs[0] in node.inputs for node in nodes)
        if used == 1:
            return last.inputs[0], _OUTPUT_LAYERS[last.op_type]
    return output, "cross_entropy"


def _reached(nodes: Sequence[PathNode], trained: Collection[str], smoothly: bool) -> set[str]:
    """The tensors that trained weights reach; only those that change `smoothly` with them, or also those that
    depend on their shape, or their order.
    """
    reached: set[str] = set()
    for node in nodes:
        inputs = _carrying(node) if smoothly else node.inputs
        if (isinstance(node, ReadNode) and node.bank in trained) or reached & set(inputs):
            reached |= {tensor for tensor in node.outputs if tensor}
    return reached


def _carrying(node: PathNode) -> tuple[str, ...]:
    """The inputs whose values the outputs follow: not those of which only the shape counts, for example."""
    through = None
    if isinstance(node, Node) and not node.domain and node.op_type in RULES:
        through = rule(node).through
    return node.inputs if through is None else tuple(node.inputs[i] for i in through if i < len(node.inputs))


def _leading_to(nodes: Sequence[PathNode], output: str) -> set[str]:
    """The tensors that an output is computed from, itself included."""
    wanted = {output}
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            wanted |= set(node.inputs)
    return wanted


def _check_rule(node: Node, program: Program, needed: set[str], output: str) -> None:
    """ModelError if a node has no rule, or a gradient would have to pass it that can't."""
    try:
        found = rule(node)
    except ModelError as error:
        raise ModelError(f"{program.name}: {error}") from None
    dead_end = needed & set(_carrying(node)) or (output not in needed and needed & set(node.inputs))
    if found.backward is None and dead_end:
        raise ModelError(
            f"{program.name}: {node.title}: no gradient passes this operator, but trained weights lie before "
            "it; train layers behind it (--train-layers), or put a new head before it (--head-after)"
        )


def _check_statistics(node: Node, program: Program) -> None:
    """ModelError if running statistics would find no place in the user's own model."""
    if node.op_type != "BatchNormalization" or not writes_statistics(node):
        return
    graph = program.model.graph
    places = {tensor.name for tensor in graph.initializer}
    places |= {made.output[0] for made in graph.node if len(made.output) == 1}
    for name in node.inputs[3:5]:
        if name not in places:
            raise ModelError(
                f"{program.name}: {node.title}: its running statistics '{name}' are no tensor of the model's "
                "own graph, so there is no place for new ones: export the model with training_mode = 0"
            )


def _front(program: Program, boundary: Collection[str]) -> Program | None:
    """The program that makes the boundary from the model's inputs; None if they are the same."""
    inputs = {info.name for info in program.inputs}
    if set(boundary) <= inputs:
        return None
    wanted = set(boundary)
    steps: list[Step] = []
    regions: dict[str, Any] = {}
    for step in reversed(program.steps):
        if step.bank is not None:
            if wanted & set(step.outputs):
                steps.append(step)
                wanted |= set(step.inputs)
            continue
        cut = _front_region(step, program.regions[step.name], wanted)
        if cut is not None:
            wanted |= set(cut[0].inputs)
            steps.append(cut[0])
            regions[step.name] = cut[1]
    steps.reverse()
    banks = {step.bank for step in steps}
    types = _types(program)
    return replace(
        program,
        steps=tuple(replace(step, needs=()) for step in steps),
        banks={name: bank for name, bank in program.banks.items() if name in banks},
        regions=regions,
        outputs=tuple(TensorInfo(name, None, types.get(name, 1)) for name in boundary if name not in inputs),
    )


def _types(program: Program) -> dict[str, int]:
    """Element types of the tensors of all regions."""
    types: dict[str, int] = {}
    for region in program.regions.values():
        for value in (*region.graph.input, *region.graph.output, *_inner(region)):
            types[value.name] = value.type.tensor_type.elem_type
    return types


def _inner(region: Any) -> Sequence[Any]:
    """Type information of the tensors inside of a region."""
    import onnx

    inferred: Sequence[Any] = onnx.shape_inference.infer_shapes(region).graph.value_info
    return inferred


def _front_region(step: Step, region: Any, wanted: Collection[str]) -> tuple[Step, Any] | None:
    """The part of a digital step that makes what is wanted; None: nothing is."""
    from pcmc.runtime.onnx_walk import tensors_used

    needed, kept = set(wanted), []
    for node in reversed(region.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(tensors_used(node))
    if not kept:
        return None
    kept.reverse()
    made = [tensor for node in kept for tensor in node.output if tensor]
    outputs = tuple(tensor for tensor in made if tensor in wanted)
    inputs = tuple(value.name for value in region.graph.input if value.name in needed)
    inner = {value.name: value.type.tensor_type.elem_type for value in _inner(region)}
    model = cut_region(region, kept, inputs, outputs, inner)
    return replace(step, inputs=inputs, outputs=outputs), model


def checked_finite(name: str, array: Array) -> Array:
    """The array; DataError if it has a NaN or an infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"'{name}' has values that are not finite (NaN or infinite)")
    return array
