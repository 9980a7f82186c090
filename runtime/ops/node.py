"""What a rule is handed beside its arrays: the node, with its attributes as Python values, and the context of
the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from pcmc.errors import ModelError

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Node:
    """One node of an ONNX graph.

    `attributes` has only those that the node states: numbers, strings, tuples of them, tensors as numpy
    arrays. `inputs` and `outputs` are value names, '' for one that is left out. `opset` is the version of the
    default domain that the model imports: several operators changed their inputs or their meaning with it.
    """

    name: str
    op_type: str
    domain: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def title(self) -> str:
        """The node as errors name it: `conv1 (Conv)`; without a name, its first output stands for it."""
        return f"{self.name or next(filter(None, self.outputs), 'a node')} ({self.op_type})"

    def get(self, attribute: str, default: Any = None) -> Any:
        """The value of an attribute, `default` if the node does not state it."""
        return self.attributes.get(attribute, default)


@dataclass(slots=True)
class Context:
    """What a rule may need to know of the step that it is part of.

    `training` is False in evaluation: Dropout is the identity, BatchNormalization uses its running
    statistics. `stream(node name)` gives a generator that is fresh at each call and the same within a step,
    so that the backward rule of a Dropout draws the mask of its forward rule again. `updates` receives the
    running statistics that a BatchNormalization wants written: name of the initializer -> new value.
    `needed` has the names of the values whose gradient somebody wants (None: of all); the costly rules leave
    the others out.
    """

    training: bool
    stream: Callable[[str], np.random.Generator]
    updates: dict[str, Array] = field(default_factory=dict)
    needed: frozenset[str] | None = None

    def needs(self, node: Node, index: int) -> bool:
        """Whether somebody wants the gradient of this input of the node."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return False
        return self.needed is None or node.inputs[index] in self.needed


def node_from_onnx(node: onnx.NodeProto, opset: int) -> Node:
    """The node with its attributes as Python values.

    `opset` is the imported version of the node's own domain. Raises ModelError for an attribute that only a
    function's body may have (a reference to an attribute of the function).
    """
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            raise ModelError(
                f"{node.name or node.op_type} ({node.op_type}): attribute {attribute.name} refers to one of "
                "a function; inline the model's functions first"
            )
        attributes[attribute.name] = _python_value(attribute)
    return Node(
        name=node.name,
        op_type=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        opset=opset,
        attributes=attributes,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
    )


def fail(node: Node, problem: str) -> NoReturn:
    """Raise the ModelError that names the node."""
    raise ModelError(f"{node.title}: {problem}")


def _python_value(attribute: Any) -> Any:
    """Strings as str, lists as tuples, tensors as arrays, all else as onnx gives it."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if attribute.type == onnx.AttributeProto.STRINGS:
        return tuple(text.decode("utf-8", errors="replace") for text in value)
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return tuple(value)
    return value
