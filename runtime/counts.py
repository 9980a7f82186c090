"""What one sample makes each step do: vectors, positions, elements and digital operations, for given input
shapes.

Digital operations are counted as simple arithmetic: one for each output element of an element-wise operator,
the window for each output element of a pool, two for each multiply-add of a product of activations, none for
what only moves data. A node with a body (If, Loop, Scan) counts its output elements; trips are not known
here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pcmc.errors import DataError
from pcmc.runtime.program import Program, Step
from pcmc.runtime.shapes import concrete_shapes

Shape = tuple[int, ...]

MOVES_ONLY = frozenset(
    {
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Concat",
        "Split",
        "Gather",
        "GatherND",
        "GatherElements",
        "Identity",
        "Cast",
        "CastLike",
        "Shape",
        "Size",
        "Constant",
        "ConstantOfShape",
        "Pad",
        "Expand",
        "DepthToSpace",
        "SpaceToDepth",
        "Tile",
        "Dropout",
        "EyeLike",
        "Range",
        "NonZero",
        "OneHot",
        "ScatterND",
        "ScatterElements",
        "Compress",
        "ReverseSequence",
        "SequenceAt",
        "SequenceConstruct",
        "SplitToSequence",
        "ConcatFromSequence",
    }
)
#: Operations for each output element where it is more than one: exp, division and sums of a softmax, and so
#: on.
PER_ELEMENT: Mapping[str, int] = {
    "BatchNormalization": 2,
    "Softmax": 4,
    "LogSoftmax": 5,
    "LayerNormalization": 8,
    "InstanceNormalization": 8,
    "GroupNormalization": 8,
    "Sigmoid": 4,
    "Tanh": 4,
    "Gelu": 8,
    "Erf": 4,
    "Exp": 2,
    "LRN": 8,
    "QuantizeLinear": 3,
    "DequantizeLinear": 2,
    "HardSwish": 4,
    "Mish": 8,
    "Elu": 3,
    "Selu": 3,
    "Celu": 3,
    "Resize": 4,
    "Upsample": 1,
}


#: Which input of a convolution holds its filters.
FILTERS: Mapping[str, int] = {"Conv": 1, "ConvTranspose": 1, "ConvInteger": 1, "QLinearConv": 3}


@dataclass(frozen=True, slots=True)
class StepCount:
    """One step, one sample: input vectors of a read, positions of its input map, values in and out,
    digital operations.
    """

    vectors: float
    positions: float
    values_in: float
    values_out: float
    digital_ops: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of all steps, and elements of the tensors that flows name."""

    steps: tuple[StepCount, ...]
    flow_elements: tuple[float, ...]
    shapes: Mapping[str, Shape]


def count(program: Program, shapes: Mapping[str, Sequence[int]] | None = None) -> Counts:
    """Count what every step does for one sample.

    Args:
        program: the program.
        shapes: input shapes other than the compiled ones; an open leading dimension counts as 1.

    Raises:
        DataError: a shape names no input, contradicts the model, or does not run.
    """
    inputs = sample_inputs(program, shapes or {})
    nodes = [node for model in program.regions.values() for node in model.graph.node]
    wanted = {name for step in program.steps for name in (*step.inputs, *step.outputs)}
    wanted |= {name for node in nodes for name in (*node.input, *node.output) if name}
    constants = {tensor.name: tuple(tensor.dims) for tensor in program.clean.graph.initializer}
    found = {**constants, **concrete_shapes(program.clean, inputs, sorted(wanted - constants.keys()))}
    missing = [step for step in program.steps if step.bank is not None and step.inputs[0] not in found]
    if missing:
        raise DataError(
            f"the shape of '{missing[0].inputs[0]}' can't be found for inputs {inputs}: does the model "
            "run on them?"
        )
    return Counts(
        tuple(_count_step(program, step, found) for step in program.steps),
        tuple(float(math.prod(found.get(name, ()))) for name in program.flow_tensors),
        inputs,
    )


def sample_inputs(program: Program, shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Input shapes of one sample: the compiled ones, replaced where others are given."""
    known = {info.name: info for info in program.inputs}
    inputs = {name: tuple(shape) for name, shape in program.sample_shapes.items()}
    for name, given in shapes.items():
        if name not in known:
            raise DataError(f"shapes: there is no input '{name}'; the model has {', '.join(known)}")
        model = known[name].shape or ()
        if len(model) != len(given) or any(
            isinstance(dim, int) and dim != size for dim, size in zip(model, given, strict=True)
        ):
            raise DataError(
                f"shapes: input '{name}' is {list(model)} in the model, {list(given)} does not fit"
            )
        if any(size < 1 for size in given):
            raise DataError(f"shapes: input '{name}': {list(given)} has a size below 1")
        batch = bool(model) and isinstance(model[0], str)
        inputs[name] = (1, *map(int, given[1:])) if batch else tuple(map(int, given))
    return inputs


def _count_step(program: Program, step: Step, shapes: Mapping[str, Shape]) -> StepCount:
    values_in = sum(math.prod(shapes.get(name, ())) for name in step.inputs if name in shapes)
    values_out = sum(math.prod(shapes[name]) for name in step.outputs if name in shapes)
    if step.bank is None or step.read is None:
        ops = sum(operations_of(node, shapes) for node in program.regions[step.name].graph.node)
        return StepCount(0.0, 0.0, float(values_in), float(values_out), float(ops))
    bank = program.banks[step.bank]
    vectors, positions = vectors_of(step, shapes[step.inputs[0]])
    sums = int(bank.table["cols"].sum()) - bank.cols + (0 if bank.bias is None else bank.cols)
    return StepCount(
        float(vectors), float(positions), float(values_in), float(vectors * bank.cols), float(vectors * sums)
    )


def vectors_of(step: Step, shape: Shape) -> tuple[int, int]:
    """Input vectors of a read step for an input of this shape, and positions of its input map."""
    how = step.read
    if how is None or how.kind == "dense":
        vectors = math.prod(shape[:-1])
        return vectors, vectors
    if how.kind == "columns":
        vectors = math.prod(shape[:-2]) * shape[-1]
        return vectors, vectors
    height, width = (shape[2], shape[3]) if len(shape) == 4 else (1, shape[2])
    try:
        out = how.window_for(height, width).output_size(height, width)
    except ValueError as error:
        raise DataError(f"step '{step.name}': {error}") from None
    return shape[0] * out[0] * out[1], shape[0] * height * width


def operations_of(node: Any, shapes: Mapping[str, Shape]) -> int:
    """Simple arithmetic operations of one digital node; 0 where the shape of its output is not known."""
    elements = sum(math.prod(shapes[name]) for name in node.output if name in shapes)
    kind = node.op_type
    if kind in MOVES_ONLY:
        return 0
    first = shapes.get(node.input[0], ()) if node.input else ()
    if kind in ("MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "QLinearMatMul"):
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return 2 * elements * (first[-2 if turned else -1] if first else 1)
    if kind == "Einsum":
        return _einsum_operations(node, shapes, elements)
    if kind in FILTERS:
        filters = shapes.get(node.input[FILTERS[kind]], ())
        return 2 * (math.prod(first) if kind == "ConvTranspose" else elements) * math.prod(filters[1:])
    if kind in ("LSTM", "GRU", "RNN"):
        # both weight matrices once for each step of each sequence, all gates and directions in them
        weights = sum(math.prod(shapes.get(name, (0,))) for name in node.input[1:3])
        return 2 * weights * math.prod(first[:2])
    if kind in ("MaxPool", "AveragePool", "LpPool"):
        kernel = next(
            (attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape"), [1]
        )
        return elements * math.prod(kernel)
    if kind.startswith(("Reduce", "Global", "ArgM", "TopK", "CumSum")):
        return math.prod(first)
    return elements * PER_ELEMENT.get(kind, 1)


def _einsum_operations(node: Any, shapes: Mapping[str, Shape], elements: int) -> int:
    """A multiply-add for each combination of indices; of the output's only, where an ellipsis hides some."""
    equation = next(attribute.s.decode() for attribute in node.attribute if attribute.name == "equation")
    terms = equation.replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=False):
        sizes.update(zip(term, shapes.get(name, ()), strict=False))
    return 2 * (elements if "." in equation else math.prod(sizes.values()))
