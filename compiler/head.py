"""A new classifier on a stock network: cut it at a tensor, keep what is before, put a Gemm behind."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.random import generator
from pcmc.compiler.frontend import MAX_CONSTANT_BYTES, RANDOM_OPERATORS
from pcmc.compiler.lowering.unmapped import REFUSED
from pcmc.compiler.onnx_file import read_model, readable_names
from pcmc.errors import DataError, ModelError
from pcmc.runtime.onnx_walk import bodies_of, first_line, nodes_of, tensors_used
from pcmc.runtime.shapes import Shape, infer, probe

#: Inputs of each operator that may hold a matrix; those that have no place on tiles are among them.
WEIGHTS = REFUSED
#: Numbers of the float types in onnx.TensorProto: float32, float16, float64, bfloat16.
FLOATS = (1, 10, 11, 16)
#: Open dimensions are tried with two sizes where only running the model tells a shape: batch, others.
TRIED_SIZES = ((2, 32), (3, 48))


@dataclass(frozen=True, slots=True)
class Features:
    """The tensor that a head reads: its name, element type, shape without the batch, and the batch's size
    (a name where it is open).
    """

    tensor: str
    dtype: int
    shape: tuple[int, ...]
    batch: int | str

    @property
    def count(self) -> int:
        """Features of one sample."""
        return math.prod(self.shape)


def with_head(model: Any, classes: int, after: str | None = None, seed: int = 0) -> Any:
    """Cut a network at a tensor and put a new, untrained classifier behind it.

    What is kept is as it was: names, opset, metadata, functions, and external data, which is inside the model
    that is returned. Nodes, initializers and inputs that the tensor does not need are gone, and so are all
    outputs but the new one. A function is inlined only where the tensor lies inside of one.

    Behind the tensor `[N, ...]` come a Cast to float32 where it is of another float type, a Flatten where it
    has not two dimensions, and the Gemm "head": weights "head.weight" [features, classes], uniform within
    +-sqrt(6 / (features + classes)) (Glorot and Bengio, AISTATS 2010, eq. 16), bias "head.bias" zero, result
    "logits" [N, classes]. Where the part that is kept has one of these names, a number is added to the new
    one.

    Args:
        model: path, bytes of a file, or an onnx.ModelProto, which is left as it is.
        classes: outputs of the new head, 2 or more.
        after: the tensor to cut at; without it, the input of the last operation that multiplies by constant
            weights: the features of the network's classifier.
        seed: names the stream of random numbers of the weights.

    Returns:
        a new onnx.ModelProto.

    Raises:
        ModelError: the model can't be read, has no tensor `after` (in its outer graph) or no matrix; the
            tensor is constant, not of floats, without a batch axis, has an open number of features or none.
        DataError: `classes` is not a whole number from 2 on.
    """
    import onnx

    classes = _whole(classes)
    original, origin = read_model(model)
    with readable_names(origin):
        whole, tensor = _where_to_cut(original, origin, after)
        result = onnx.ModelProto()
        result.CopyFrom(whole)
        keep_before(result, tensor)
        features = _features(result, tensor, origin)
        _append_head(result, features, classes, seed, origin)
        return result


def _whole(classes: int) -> int:
    try:
        number = operator.index(classes)
    except TypeError:
        number = 0
    if number < 2:
        raise DataError(f"a head of {classes} classes: should be a whole number from 2 on")
    return number


def _where_to_cut(original: Any, origin: str, after: str | None) -> tuple[Any, str]:
    """The model to cut, with its functions where possible, and the tensor."""
    if after is not None:
        _check_named(original, origin, after)
        return original, after
    model = _inlined(original, origin) if original.functions else original
    tensor = _classifier_input(model.graph, origin)
    return (original if tensor in _outer_tensors(original.graph) else model), tensor


def _inlined(model: Any, origin: str) -> Any:
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{origin}: its functions can't be inlined: {first_line(error)}") from None


def _check_named(model: Any, origin: str, after: str) -> None:
    """Check that a head can follow the tensor that the user named."""
    graph = model.graph
    there = _outer_tensors(graph)
    if after in there:
        if after in _constants(graph):
            raise ModelError(f"{origin}: tensor '{after}' is a constant: a head needs one that is computed")
        return
    for node in graph.node:
        if any(after in _made_in(body) for body in bodies_of(node).values()):
            outputs = ", ".join(f"'{name}'" for name in node.output if name)
            raise ModelError(
                f"{origin}: tensor '{after}' lies inside node '{node.name}' ({node.op_type}): cut at one "
                f"outside, such as its output {outputs}"
            )
        if node.name == after:
            outputs = ", ".join(f"'{name}'" for name in node.output if name)
            raise ModelError(
                f"{origin}: has no tensor '{after}'; there is a node of that name ({node.op_type}), which "
                f"makes the tensor {outputs}"
            )
    computed = [name for name in there if name not in _constants(graph)]
    close = difflib.get_close_matches(after, computed, 3, 0.5) or computed[-3:]
    raise ModelError(
        f"{origin}: has no tensor '{after}'; among its tensors are "
        + ", ".join(f"'{name}'" for name in close)
    )


def _outer_tensors(graph: Any) -> list[str]:
    """Every tensor of the outer graph, in the order of the nodes that make them."""
    names = [value.name for value in graph.input]
    names += [tensor.name for tensor in graph.initializer]
    names += [sparse.values.name for sparse in graph.sparse_initializer]
    names += [name for node in graph.node for name in node.output if name]
    return list(dict.fromkeys(names))


def _made_in(body: Any) -> set[str]:
    """Every tensor that belongs to a body or to one within it."""
    names = set(_outer_tensors(body))
    for node in body.node:
        for inner in bodies_of(node).values():
            names |= _made_in(inner)
    return names


def _constants(graph: Any) -> set[str]:
    """Initializers, and what is computed from them alone."""
    known = {tensor.name for tensor in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    for node in graph.node:
        random = node.op_type in RANDOM_OPERATORS and node.op_type != "Dropout"
        if not random and all(name in known for name in tensors_used(node)):
            known.update(name for name in node.output if name)
    return known


def _classifier_input(graph: Any, origin: str) -> str:
    """What the last operation with constant weights multiplies them by."""
    constants = _constants(graph)
    for node in reversed(graph.node):
        domain = "" if node.domain == "ai.onnx" else node.domain
        places = WEIGHTS.get((domain, node.op_type), ())
        computed = [name for name in node.input if name and name not in constants]
        if computed and any(index < len(node.input) and node.input[index] in constants for index in places):
            return str(computed[0])
    inner = [node for outer in graph.node for body in bodies_of(outer).values() for node in nodes_of(body)]
    hint = ""
    if any((node.domain, node.op_type) in WEIGHTS for node in inner):
        hint = " outside of its If, Loop and Scan nodes"
    raise ModelError(
        f"{origin}: has no constant matrix (Gemm, MatMul or Conv with constant weights){hint}: name the "
        "tensor that the head should follow"
    )


def keep_before(model: Any, tensor: str) -> None:
    """Remove from a model, in place, all outputs and what a tensor does not need: nodes, constants, inputs.

    Args:
        model: an onnx.ModelProto that the caller owns; its functions stay.
        tensor: one of its outer graph.
    """
    graph = model.graph
    needed, kept = {tensor}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(tensors_used(node))
    kept.reverse()
    made = needed | {name for node in kept for name in node.output}
    _replace(graph.node, kept)
    _replace(graph.initializer, [constant for constant in graph.initializer if constant.name in needed])
    sparse = [constant for constant in graph.sparse_initializer if constant.values.name in needed]
    _replace(graph.sparse_initializer, sparse)
    _replace(graph.input, [value for value in graph.input if value.name in needed])
    _replace(graph.value_info, [value for value in graph.value_info if value.name in made])
    quantized = [note for note in graph.quantization_annotation if note.tensor_name in made]
    _replace(graph.quantization_annotation, quantized)
    del graph.output[:]


def _replace(field: Any, kept: list[Any]) -> None:
    """Let a repeated field of a protobuf hold some of its own entries only."""
    if len(kept) < len(field):
        copies = [type(entry)() for entry in kept]
        for copy, entry in zip(copies, kept, strict=True):
            copy.CopyFrom(entry)
        del field[:]
        field.extend(copies)


def _features(model: Any, tensor: str, origin: str) -> Features:
    """The tensor that the head reads, from a model that ends with it."""
    found = infer(model)
    dtype, shape = found.get(tensor, (0, None))
    if not dtype or shape is None or any(isinstance(size, str) for size in shape[1:]):
        dtype, shape = _by_running(model, tensor, found) or (dtype, shape)
    where = f"{origin}: a head after tensor '{tensor}'"
    if not dtype or shape is None:
        raise ModelError(f"{where}: its type and shape are unknown, and running the model does not tell them")
    if dtype not in FLOATS:
        import onnx

        kind = onnx.TensorProto.DataType.Name(dtype).lower()
        raise ModelError(f"{where}: its values are of type {kind}; cut at a tensor of floats")
    if len(shape) < 2:
        raise ModelError(f"{where}: its shape is {_text(shape)}; it should be [N, features] or [N, ...]")
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if len(sizes) < len(shape) - 1:
        raise ModelError(
            f"{where}: its shape is {_text(shape)}, so the number of features is open; cut where it is "
            "fixed, or fix the sizes of the model's inputs"
        )
    if 0 in sizes:
        raise ModelError(f"{where}: its shape is {_text(shape)}: there are no features")
    return Features(tensor, dtype, tuple(sizes), _batch(model, shape[0], found))


def _by_running(
    model: Any, tensor: str, types: dict[str, tuple[int, Shape | None]]
) -> tuple[int, Shape] | None:
    """Element type and shape of a tensor, as two runs of the model on zeros show them; None where onnxruntime
    can't run it.

    The open dimensions of the inputs have other sizes in the second run: a dimension of the tensor that
    follows them is open too.
    """
    import onnx

    constants = {constant.name for constant in model.graph.initializer}
    inputs = {value.name: types.get(value.name, (0, None))[1] for value in model.graph.input}
    runs = []
    for batch, other in TRIED_SIZES:
        sizes = {
            name: tuple(
                size if isinstance(size, int) else (other if axis else batch)
                for axis, size in enumerate(shape)
            )
            for name, shape in inputs.items()
            if name not in constants and shape is not None
        }
        value = probe(model, sizes, [tensor]).get(tensor)
        if not isinstance(value, np.ndarray):
            return None
        runs.append(value)
    first, second = runs
    if first.ndim != second.ndim:
        return None
    pairs = zip(first.shape, second.shape, strict=True)
    shape: Shape = tuple(a if a == b else f"{tensor}_{axis}" for axis, (a, b) in enumerate(pairs))
    return int(onnx.helper.np_dtype_to_tensor_dtype(first.dtype)), shape


def _batch(model: Any, size: int | str, types: dict[str, tuple[int, Shape | None]]) -> int | str:
    """The batch of the output: where it is open, by the name that the model's inputs give it."""
    if isinstance(size, int):
        return size
    constants = {constant.name for constant in model.graph.initializer}
    for value in model.graph.input:
        shape = types.get(value.name, (0, None))[1]
        if value.name not in constants and shape and isinstance(shape[0], str):
            return value.type.tensor_type.shape.dim[0].dim_param or "N"
    return size


def _text(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _append_head(model: Any, features: Features, classes: int, seed: int, origin: str) -> None:
    """Add the head's nodes, constants and output to a model that ends with the features."""
    from onnx import TensorProto, helper, numpy_helper

    if 4 * features.count * classes > MAX_CONSTANT_BYTES:
        raise ModelError(
            f"{origin}: a head of {classes:,} classes after tensor '{features.tensor}' "
            f"{_text((features.batch, *features.shape))} would have {features.count * classes:,} weights; at "
            f"most {MAX_CONSTANT_BYTES // 4:,} are possible: cut at a smaller tensor"
        )
    graph, version = model.graph, _opset(model)
    tensors, nodes = _made_in(graph), {node.name for node in nodes_of(graph)}
    source = features.tensor
    if features.dtype != TensorProto.FLOAT:
        target = _free("head/float32", tensors)
        name = _free("head/Cast", nodes)
        graph.node.append(helper.make_node("Cast", [source], [target], name=name, to=TensorProto.FLOAT))
        source = target
    if len(features.shape) != 1:
        target = _free("head/features", tensors)
        graph.node.append(
            helper.make_node("Flatten", [source], [target], name=_free("head/Flatten", nodes), axis=1)
        )
        source = target
    weight, bias, output = (_free(name, tensors) for name in ("head.weight", "head.bias", "logits"))
    # Gemm broadcasts its bias by itself from opset 7 on.
    older = {"broadcast": 1} if version < 7 else {}
    graph.node.append(
        helper.make_node("Gemm", [source, weight, bias], [output], name=_free("head", nodes), **older)
    )
    initial = _initial_weights(features.count, classes, seed)
    constants = {weight: initial, bias: np.zeros(classes, np.float32)}
    for name, array in constants.items():
        graph.initializer.append(numpy_helper.from_array(array, name))
        if model.ir_version < 4:  # before, initializers had to be inputs too
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(array.shape)))
    shape = [features.batch, classes]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))


def _opset(model: Any) -> int:
    """The model's version of ONNX's own operators; one is added where it uses none of them."""
    import onnx

    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            return int(entry.version)
    model.opset_import.append(onnx.helper.make_opsetid("", 13))
    return 13


def _free(name: str, taken: set[str]) -> str:
    """A name of its own, which is taken from then on."""
    free = next(one for one in _candidates(name) if one not in taken)
    taken.add(free)
    return free


def _candidates(name: str) -> Iterator[str]:
    yield name
    count = 1
    while True:
        yield f"{name}_{count}"
        count += 1


def _initial_weights(features: int, classes: int, seed: int) -> npt.NDArray[np.float32]:
    bound = math.sqrt(6 / (features + classes))
    drawn = generator(seed, (features, classes), "weights of a new head").uniform(
        -bound, bound, (features, classes)
    )
    return drawn.astype(np.float32)
