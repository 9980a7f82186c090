"""Frontend: any ONNX model -> a clean one, and its OpGraph.

Clean means: functions inlined, every node named, inputs with the shapes that the user gave, constants
computed, the types and shapes of its tensors inferred.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx

from pcmc.compiler.graph import Op, Tensor, build_opgraph
from pcmc.compiler.half import widen_half
from pcmc.compiler.lowering.gemm import split_gemms
from pcmc.compiler.onnx_file import read_model, readable_names
from pcmc.errors import ModelError
from pcmc.runtime.onnx_walk import bodies_of, first_line, nodes_of
from pcmc.runtime.shapes import infer, is_static, quiet_options

#: Operators whose result is not a function of their inputs.
RANDOM_OPERATORS = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
    }
)
#: Operators whose result is not a tensor, and so can't be an initializer.
NO_TENSOR_OPERATORS = frozenset(
    {
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceMap",
        "SplitToSequence",
        "Optional",
    }
)
#: A computed constant may not be larger than this: a small file can ask for any size.
MAX_CONSTANT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class CleanModel:
    """What the frontend hands on: the user's own graph, the clean one, its OpGraph, and each constant's
    origin.
    """

    origin: str
    original: Any
    model: Any
    graph: nx.MultiDiGraph
    computed_from: Mapping[str, tuple[str, ...]]


def load(
    source: Any, shapes: Mapping[str, tuple[int, ...]] | None = None, freeze: Mapping[str, Any] | None = None
) -> CleanModel:
    """Read, check and clean a model.

    Args:
        source: path, bytes or onnx.ModelProto.
        shapes: sizes of inputs by name; 0 leaves a dimension as it is.
        freeze: values by input name; such an input becomes a constant.

    Raises:
        ModelError: the model can't be read or is invalid, or a shape or value names no input or contradicts
            the model.
    """
    original, origin = read_model(source)
    with readable_names(origin):
        return _cleaned(original, origin, shapes or {}, freeze or {})


def _cleaned(
    original: Any, origin: str, shapes: Mapping[str, tuple[int, ...]], freeze: Mapping[str, Any]
) -> CleanModel:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(original)
    if model.functions:
        model = _inlined(model, origin)
    # names of graph inputs and outputs in the OpGraph are not free
    _name_nodes(
        model.graph,
        {f"input:{v.name}" for v in model.graph.input} | {f"output:{v.name}" for v in model.graph.output},
    )
    _make_dense(model.graph, origin)
    _drop_initializer_inputs(model)
    _set_shapes(model, shapes, origin)
    for name, value in freeze.items():
        _freeze_input(model, name, value, origin)
    widen_half(model)
    computed_from: dict[str, tuple[str, ...]] = {}
    while _fold_once(model, computed_from, origin):
        pass
    _make_outputs_by_nodes(model, computed_from)
    _drop_unused_nodes(model)
    split_gemms(model, computed_from)
    return CleanModel(origin, original, model, _opgraph(model), computed_from)


def _inlined(model: Any, origin: str) -> Any:
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{origin}: its functions can't be inlined: {first_line(error)}") from None


def _name_nodes(graph: Any, taken: set[str]) -> None:
    """Give every node a name of its own, nested ones too: the user's where there is one."""
    for node in graph.node:
        base = node.name or f"{node.op_type}_{next(iter(filter(None, node.output)), '')}"
        name, count = base, 1
        while name in taken:
            name, count = f"{base}_{count}", count + 1
        node.name = name
        taken.add(name)
        for body in bodies_of(node).values():
            _name_nodes(body, taken)


def _make_dense(graph: Any, origin: str) -> None:
    """Turn sparse initializers, nested ones too, into dense ones."""
    import numpy as np
    from onnx import numpy_helper

    for sparse in graph.sparse_initializer:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        if math.prod(sparse.dims) * values.itemsize > MAX_CONSTANT_BYTES:
            raise ModelError(
                f"{origin}: sparse tensor '{sparse.values.name}' {list(sparse.dims)} is too large made dense"
            )
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        try:
            dense[np.unravel_index(indices, dense.shape) if indices.ndim == 1 else tuple(indices.T)] = values
        except (IndexError, ValueError) as error:
            raise ModelError(f"{origin}: sparse tensor '{sparse.values.name}': {first_line(error)}") from None
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]
    for node in graph.node:
        for body in bodies_of(node).values():
            _make_dense(body, origin)


def _drop_initializer_inputs(model: Any) -> None:
    """Before IR version 4 initializers had to be inputs too; here an initializer is a constant."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)


def _set_shapes(model: Any, shapes: Mapping[str, tuple[int, ...]], origin: str) -> None:
    inputs = {value.name: value for value in model.graph.input}
    for name, sizes in shapes.items():
        if name not in inputs:
            raise ModelError(f"{origin}: --shape {name}: there is no such input; it has {', '.join(inputs)}")
        shape = inputs[name].type.tensor_type.shape
        if not inputs[name].type.tensor_type.HasField("shape"):
            for axis in range(len(sizes)):
                shape.dim.add(dim_param=f"{name}_{axis}")
        if len(shape.dim) != len(sizes):
            raise ModelError(
                f"{origin}: --shape {name}: the input has {len(shape.dim)} dimensions, {len(sizes)} "
                "were given"
            )
        for axis, (dim, size) in enumerate(zip(shape.dim, sizes, strict=True)):
            if dim.HasField("dim_value") and dim.dim_value > 0 and size not in (0, dim.dim_value):
                raise ModelError(
                    f"{origin}: --shape {name}: dimension {axis} is {dim.dim_value} in the model, "
                    f"{size} was given"
                )
            if size > 0 and (
                axis > 0 or dim.HasField("dim_value")
            ):  # a leading batch dimension always stays open
                dim.dim_value = size


def _freeze_input(model: Any, name: str, value: Any, origin: str) -> None:
    """Make an input a constant of the given value."""
    import numpy as np
    from onnx import helper, numpy_helper

    inputs = {info.name: info for info in model.graph.input}
    if name not in inputs:
        raise ModelError(f"{origin}: --freeze {name}: there is no such input; it has {', '.join(inputs)}")
    tensor_type = inputs[name].type.tensor_type
    dims = [dim.dim_value if dim.dim_value > 0 else None for dim in tensor_type.shape.dim]
    try:
        with np.errstate(over="raise", invalid="raise"):  # beyond the range of the type
            array = np.asarray(value).astype(helper.tensor_dtype_to_np_dtype(tensor_type.elem_type))
    except (TypeError, ValueError, OverflowError, FloatingPointError):
        raise ModelError(
            f"{origin}: --freeze {name}: {str(value)[:60]} is not a value of the input's type"
        ) from None
    if array.ndim != len(dims) or any(
        dim not in (None, size) for dim, size in zip(dims, array.shape, strict=True)
    ):
        raise ModelError(
            f"{origin}: --freeze {name}: the value has shape {list(array.shape)}, the input {dims}"
        )
    model.graph.input.remove(inputs[name])
    model.graph.initializer.append(numpy_helper.from_array(array, name))


def _fold_once(model: Any, computed_from: dict[str, tuple[str, ...]], origin: str) -> bool:
    """Replace what is constant by its value; True where that may have made more of it constant."""
    from onnx import numpy_helper

    types = infer(model)
    _resolve_cast_like(model, types)
    constants = {tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    foldable, shape_values = _foldable_nodes(model, constants, types)
    if not foldable and not shape_values:
        return False
    gone = {id(node) for node in foldable}
    kept = [node for node in model.graph.node if id(node) not in gone and node.output[0] not in shape_values]
    used = {name for node in kept for name in _used_names(node)} | outputs
    values = {**_evaluate(model, foldable, used, origin), **shape_values}
    ancestors = dict(computed_from)
    for node in foldable:
        sources = [source for name in node.input if name for source in ancestors.get(name, (name,))]
        ancestors.update((name, tuple(dict.fromkeys(sources))) for name in node.output)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for name, value in values.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
            computed_from[name] = ancestors.get(name, ())
    _drop_unused_initializers(model, used)
    return True


def _resolve_cast_like(model: Any, types: Mapping[str, Any]) -> None:
    """CastLike needs only the type of its second input, which is known where its value is not: make it a
    Cast.
    """
    import onnx

    for node in model.graph.node:
        dtype = (
            types.get(node.input[1], (0, None))[0] if node.op_type == "CastLike" and not node.domain else 0
        )
        if dtype:
            node.CopyFrom(
                onnx.helper.make_node("Cast", [node.input[0]], list(node.output), name=node.name, to=dtype)
            )


def _foldable_nodes(
    model: Any, constants: set[str], types: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Nodes whose inputs are all constant, and the values of Shape and Size nodes of tensors of a known
    shape.
    """
    import numpy as np

    known, foldable, shapes = set(constants), [], {}
    for node in model.graph.node:
        if any(inner.op_type in RANDOM_OPERATORS | NO_TENSOR_OPERATORS for inner in _with_inner(node)):
            continue
        shape = types.get(node.input[0], (0, None))[1] if node.input else None
        if (
            node.op_type in ("Shape", "Size")
            and node.domain in ("", "ai.onnx")
            and is_static(shape)
            and shape is not None
        ):
            ends = {attribute.name: attribute.i for attribute in node.attribute}
            dims = np.array(shape[slice(ends.get("start", 0), ends.get("end"))], np.int64)
            shapes[node.output[0]] = dims if node.op_type == "Shape" else np.array(dims.prod(), np.int64)
        elif all(name in known for name in _used_names(node)) and not _too_large(node, types):
            foldable.append(node)
            known.update(node.output)
    return foldable, shapes


def _with_inner(node: Any) -> list[Any]:
    return [node, *(inner for body in bodies_of(node).values() for inner in nodes_of(body))]


def _too_large(node: Any, types: Mapping[str, Any]) -> bool:
    sizes = [types.get(name, (0, None))[1] for name in node.output]
    elements = 0
    for shape in sizes:
        if shape is not None and is_static(shape):
            count = 1
            for dim in shape:
                count *= int(dim)
            elements += count
    return elements * 8 > MAX_CONSTANT_BYTES


def _used_names(node: Any) -> list[str]:
    """Names that a node reads: its inputs, and what its bodies take from outside."""
    names = [name for name in node.input if name]
    for body in bodies_of(node).values():
        names.extend(_captured(body))
    return list(dict.fromkeys(names))


def _captured(body: Any) -> list[str]:
    inside = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    inside.update(name for node in body.node for name in node.output)
    used = [name for node in body.node for name in _used_names(node)] + [value.name for value in body.output]
    return [name for name in used if name not in inside]


def _evaluate(model: Any, nodes: list[Any], used: set[str], origin: str) -> dict[str, Any]:
    """Values of those outputs of the nodes that are used, by onnxruntime without optimizations."""
    import onnx
    import onnxruntime

    made = {name for node in nodes for name in node.output}
    names = sorted(made & used)
    if not names:
        return {}
    needed = {name for node in nodes for name in _used_names(node)} - made
    graph = onnx.helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in names],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        session = onnxruntime.InferenceSession(
            part.SerializeToString(), quiet_options(), providers=["CPUExecutionProvider"]
        )
        return dict(zip(names, session.run(names, {}), strict=True))
    except Exception as error:  # onnxruntime raises its own, undocumented classes
        raise ModelError(f"{origin}: its constants can't be computed: {first_line(error)}") from None


def _drop_unused_initializers(model: Any, used: set[str]) -> None:
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _make_outputs_by_nodes(model: Any, computed_from: dict[str, tuple[str, ...]]) -> None:
    """Let an Identity make each output of the graph that is a constant: every output is made by a node."""
    import onnx

    outputs = {value.name for value in model.graph.output}
    for tensor in model.graph.initializer:
        if tensor.name not in outputs:
            continue
        output, constant = tensor.name, f"{tensor.name}/constant"
        tensor.name = constant
        computed_from[constant] = computed_from.pop(output, (output,))
        for node in model.graph.node:
            node.input[:] = [constant if name == output else name for name in node.input]
        made = onnx.helper.make_node("Identity", [constant], [output], name=f"{output}/Identity")
        model.graph.node.insert(0, made)


def _drop_unused_nodes(model: Any) -> None:
    """Drop the nodes that no output of the graph depends on, as onnxruntime does."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_used_names(node))
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    _drop_unused_initializers(model, needed)


def _opgraph(model: Any) -> nx.MultiDiGraph:
    tensors = {name: Tensor(name, shape, dtype) for name, (dtype, shape) in infer(model).items()}
    return _graph_of(model.graph, tensors)


def _graph_of(graph: Any, tensors: Mapping[str, Tensor]) -> nx.MultiDiGraph:
    ops = [_op(node) for node in graph.node]
    return build_opgraph(
        ops,
        [value.name for value in graph.input],
        [value.name for value in graph.output],
        tensors,
        {tensor.name: tensor for tensor in graph.initializer},
        graph.name,
    )


def _op(node: Any) -> Op:
    import onnx

    bodies = bodies_of(node)
    return Op(
        name=node.name,
        op_type=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        inputs=tuple(node.input) + tuple(name for name in _used_names(node) if name not in node.input),
        outputs=tuple(node.output),
        node=node,
        attributes={
            attribute.name: onnx.helper.get_attribute_value(attribute)
            for attribute in node.attribute
            if attribute.name not in bodies
        },
        bodies={name: _graph_of(body, {}) for name, body in bodies.items()},
    )
