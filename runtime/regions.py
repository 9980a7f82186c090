"""Digital regions: parts of the model that onnxruntime runs between the reads of banks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pcmc.errors import DataError, ProgramError
from pcmc.runtime.onnx_walk import first_line

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
