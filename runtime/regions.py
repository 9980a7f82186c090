"""Digital regions: parts of the model that onnxruntime runs between the reads of banks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcmc.errors import DataError, ProgramError
from pcmc.runtime.onnx_walk import first_line, tensors_used

#: Operators of quantized models: onnxruntime's own fusions would round elsewhere than the model says.
QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


def open_region(model: Any, name: str, threads: int) -> Any:
    """An onnxruntime session for a digital region.

    Raises:
        ProgramError: onnxruntime does not take the region.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Our own threads read tiles between the regions: onnxruntime's must not spin meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = onnxruntime.GraphOptimizationLevel
    quantized = any(node.op_type in QUANTIZED for node in model.graph.node)
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if quantized else levels.ORT_ENABLE_EXTENDED
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises its own, undocumented classes
        raise ProgramError(f"region '{name}': onnxruntime does not take it: {first_line(error)}") from None


def run_region(session: Any, name: str, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
    """Run an open region.

    Raises:
        DataError: onnxruntime can't compute it from these inputs, for example because their sizes do not fit.
    """
    try:
        return list(session.run(list(outputs), dict(feeds)))
    except MemoryError:
        raise
    except Exception as error:  # onnxruntime raises its own, undocumented classes
        raise DataError(f"step '{name}': onnxruntime can't compute it: {first_line(error)}") from error


def cut_region(
    model: Any,
    nodes: Sequence[Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    inner: Mapping[str, int] | None = None,
) -> Any:
    """Some nodes of a region as a region of their own.

    `inner` gives the element types of tensors inside of the region that become inputs or outputs; without,
    they are float32.
    """
    import onnx

    types = dict(inner or {})
    types |= {
        value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)
    }
    used = {tensor for node in nodes for tensor in tensors_used(node)}

    def infos(names: Sequence[str]) -> list[Any]:
        default = onnx.TensorProto.FLOAT
        return [onnx.helper.make_tensor_value_info(name, types.get(name, default), None) for name in names]

    graph = onnx.helper.make_graph(
        nodes,
        model.graph.name,
        infos(inputs),
        infos(outputs),
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    return onnx.helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )
