"""Emit: everything that the runtime needs, in one Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from pcmc.accel.chip import ChipSpec
from pcmc.compiler.frontend import CleanModel
from pcmc.compiler.graph import Matrix, Op
from pcmc.errors import ModelError
from pcmc.runtime.program import Bank, Program, Step, TensorInfo
from pcmc.runtime.shapes import probe

Table = npt.NDArray[np.void]


def emit(
    clean: CleanModel,
    graph: nx.MultiDiGraph,
    matrices: Mapping[str, Matrix],
    tables: Mapping[str, Table],
    steps: tuple[Step, ...],
    regions: Mapping[str, Sequence[Op]],
    flows: npt.NDArray[np.void],
    flow_tensors: tuple[str, ...],
    chip: ChipSpec,
    sample_shapes: Mapping[str, tuple[int, ...]],
    options: Mapping[str, Any],
) -> Program:
    """Put the results of all stages together.

    Raises:
        ModelError: the element type of a tensor between two steps can't be found.
    """
    banks = {name: _bank(matrix, tables[name], chip) for name, matrix in matrices.items()}
    types = _types(clean, graph, steps, sample_shapes)
    steps_by_name = {step.name: step for step in steps}
    places = np.unique(
        np.concatenate([np.stack([t["chip"], t["tile"]], axis=1) for t in tables.values()]), axis=0
    )
    return Program(
        name=clean.origin,
        chip=chip,
        inputs=_infos(clean.model.graph.input, graph),
        outputs=_infos(clean.model.graph.output, graph),
        steps=steps,
        banks=banks,
        regions={
            name: _region(steps_by_name[name], ops, clean.model, types) for name, ops in regions.items()
        },
        flows=_frozen(flows),
        flow_tensors=flow_tensors,
        chips=int(places[:, 0].max()) + 1,
        tiles=len(places),
        model=clean.original,
        clean=clean.model,
        sample_shapes=dict(sample_shapes),
        digital={op.name: f"{op.op_type}: {_why_digital(op)}" for ops in regions.values() for op in ops},
        options=dict(options),
    )


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


def _bank(matrix: Matrix, table: Table, chip: ChipSpec) -> Bank:
    cells = np.empty(int((table["rows"] * table["cols"]).sum()), np.float32)
    inputs, cols = matrix.rows // matrix.groups, matrix.cols // matrix.groups
    weights = matrix.weights if matrix.groups > 1 else matrix.weights[None]
    for block in table:
        group = int(block["col0"]) // cols
        row, col, width = (
            int(block["row0"]) - group * inputs,
            int(block["col0"]) - group * cols,
            int(block["cols"]),
        )
        height = int(block["rows"]) - int(block["bias"])
        target = cells[block["offset"] : block["offset"] + block["rows"] * width].reshape(-1, width)
        target[:height] = weights[group, row : row + height, col : col + width]
        if block["bias"] and matrix.bias is not None:
            target[-1] = matrix.bias[block["col0"] : block["col0"] + width]
    digital_bias = matrix.bias if matrix.bias is not None and not chip.tile.bias_row else None
    return Bank(
        matrix.name,
        matrix.rows,
        matrix.cols,
        _frozen(table.copy()),
        _frozen(cells),
        digital_bias,
        matrix.initializer,
        matrix.computed_from,
        matrix.transform,
        matrix.groups,
        matrix.foldings,
    )


def _infos(values: Any, graph: nx.MultiDiGraph) -> tuple[TensorInfo, ...]:
    tensors = graph.graph["tensors"]
    infos = []
    for value in values:
        shape = tensors[value.name].shape if value.name in tensors else None
        infos.append(TensorInfo(value.name, shape, value.type.tensor_type.elem_type))
    return tuple(infos)


def _types(
    clean: CleanModel,
    graph: nx.MultiDiGraph,
    steps: Sequence[Step],
    sample_shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, int]:
    """Element type of every tensor between steps; of what inference leaves open, by running the model
    once.
    """
    import onnx

    types = {name: tensor.dtype for name, tensor in graph.graph["tensors"].items() if tensor.dtype}
    between = {tensor for step in steps for tensor in (*step.inputs, *step.outputs)}
    missing = sorted(between - types.keys())
    if missing:
        for name, value in probe(clean.model, sample_shapes, missing).items():
            types[name] = onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
    unknown = sorted(between - types.keys())
    if unknown:
        raise ModelError(f"{clean.origin}: the element type of tensor '{unknown[0]}' can't be inferred")
    return types


def _region(step: Step, ops: Sequence[Op], model: Any, types: Mapping[str, int]) -> Any:
    """A digital step as an ONNX model of its own: nodes and constants cut out of the clean model."""
    import onnx

    used = {tensor for op in ops for tensor in op.inputs}
    graph = onnx.helper.make_graph(
        [op.node for op in ops],
        step.name,
        [onnx.helper.make_tensor_value_info(name, types[name], None) for name in step.inputs],
        [onnx.helper.make_tensor_value_info(name, types[name], None) for name in step.outputs],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name="pcmc"
    )


def _why_digital(op: Op) -> str:
    if op.on_request:
        return "kept digital on request"
    if op.bodies:
        return "control flow without a constant matrix"
    if op.op_type in ("MatMul", "Gemm", "Einsum"):
        return "product of two activations"
    if op.op_type in ("Conv", "ConvTranspose"):
        return "filters are computed"
    if op.op_type in ("Gather", "GatherElements", "GatherND"):
        return "a look-up, not a product"
    return "not a product with a matrix"
