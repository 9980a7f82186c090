"""Shapes and types of a model's tensors for given input shapes: onnx's inference, and onnxruntime where it
does not reach.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

Shape = tuple[int | str, ...]

#: Tensors above this many bytes are left out of the copy that shape inference sees: only small ones say
#: anything of shapes.
SMALL_TENSOR_BYTES = 4096


def set_input_shapes(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """A copy of a model whose inputs have the given shapes; recorded shapes of inner values and outputs
    are dropped.
    """
    changed = light_copy(model)
    for value in changed.graph.input:
        if value.name in shapes:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for size in shapes[value.name]:
                shape.dim.add().dim_value = size
    for value in changed.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return changed


def light_copy(model: Any) -> Any:
    """A copy without the data of large initializers (type and dimensions stay) and without recorded inner
    values.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.ir_version = model.ir_version
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    copy.graph.name = model.graph.name
    copy.graph.node.extend(model.graph.node)
    copy.graph.input.extend(model.graph.input)
    copy.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= SMALL_TENSOR_BYTES:
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.initializer.append(
                onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            )
    return copy


def infer(model: Any) -> dict[str, tuple[int, Shape | None]]:
    """Element type (0 where unknown) and shape (None where unknown, open dimensions as strings) of each
    tensor by name.

    Only the outer graph's tensors are listed. `model` is left as it is.
    """
    import onnx

    copy = light_copy(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        inferred = copy
    found: dict[str, tuple[int, Shape | None]] = {}
    for value in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]:
        if value.type.HasField("tensor_type"):
            found[value.name] = (value.type.tensor_type.elem_type, _shape(value.type.tensor_type, value.name))
    found.update((tensor.name, (tensor.data_type, tuple(tensor.dims))) for tensor in model.graph.initializer)
    return found


def _shape(tensor_type: Any, name: str) -> Shape | None:
    if not tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value
        if dim.HasField("dim_value") and dim.dim_value >= 0
        else dim.dim_param or f"{name}_{axis}"
        for axis, dim in enumerate(tensor_type.shape.dim)
    )


def is_static(shape: Shape | None) -> bool:
    """Whether every dimension is a number."""
    return shape is not None and all(isinstance(dim, int) for dim in shape)


def concrete_shapes(
    model: Any, input_shapes: Mapping[str, tuple[int, ...]], wanted: Collection[str]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the wanted tensors when the inputs have the given shapes.

    What inference leaves open (shapes computed from values, operators that onnx does not know) is found by
    running the model once on zeros in onnxruntime. A tensor that neither can tell is missing in the answer.
    """
    found = infer(set_input_shapes(model, input_shapes))
    shapes = {name: found[name][1] for name in wanted if name in found and is_static(found[name][1])}
    missing = [name for name in wanted if name not in shapes]
    if missing:
        values = probe(model, input_shapes, missing)
        shapes.update(
            {name: value.shape for name, value in values.items() if hasattr(value, "shape")}
        )  # no sequences
    return {name: tuple(int(dim) for dim in shape) for name, shape in shapes.items() if shape is not None}


def probe(model: Any, input_shapes: Mapping[str, tuple[int, ...]], names: Collection[str]) -> dict[str, Any]:
    """Values of inner tensors when the model runs on zeros; empty where onnxruntime can't run it so."""
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        session = onnxruntime.InferenceSession(
            copy.SerializeToString(), quiet_options(), providers=["CPUExecutionProvider"]
        )
        feeds = {
            value.name: np.zeros(
                input_shapes[value.name],
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
            )
            for value in model.graph.input
            if value.name in input_shapes
        }
        return dict(zip(names, session.run(list(names), feeds), strict=True))
    except Exception:  # onnxruntime raises its own, undocumented classes; the caller says what is missing
        return {}


def quiet_options(threads: int = 1) -> Any:
    """Options of an onnxruntime session that prints nothing below errors and changes nothing in the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
