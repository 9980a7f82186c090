"""Small ONNX models, chips and inputs for tests, and the comparison of a compiled model with onnxruntime.

Everything is drawn from named seeds, so that a test that fails once fails again.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import pcmc
from pcmc.accel.chip import ChipSpec, load_chip
from pcmc.runtime.program import Program

Array = NDArray[Any]
Shape = Sequence[int | str | None]
Value = Shape | tuple[Shape | None, int]

OPSET = 17
node = helper.make_node


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def weights(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Normal numbers whose products with a vector stay of the order of one."""
    fan_in = max(1, int(np.prod(shape)) // max(1, max(shape, default=1)))
    drawn: Array = rng(seed).standard_normal(shape) / np.sqrt(fan_in)
    return drawn.astype(dtype)


def value_info(name: str, value: Value) -> onnx.ValueInfoProto:
    """`value` is a shape (float32), or (shape, element type); a shape of None is an unknown one."""
    shape: Any = value
    dtype = TensorProto.FLOAT
    if (
        isinstance(value, tuple)
        and len(value) == 2
        and (value[0] is None or isinstance(value[0], list | tuple))
    ):
        shape, dtype = value
    return helper.make_tensor_value_info(name, dtype, None if shape is None else list(shape))


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Value],
    outputs: Mapping[str, Value],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = OPSET,
    ir_version: int = 8,
    constants_are_inputs: bool = False,
    name: str = "net",
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of these nodes; `constants` are numpy arrays by name, `domains` further opset imports."""
    tensors = [numpy_helper.from_array(np.asarray(array), key) for key, array in (constants or {}).items()]
    values = [value_info(key, value) for key, value in inputs.items()]
    if constants_are_inputs:  # as IR version 3 demands
        values += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors]
    graph = helper.make_graph(
        list(nodes), name, values, [value_info(key, value) for key, value in outputs.items()], tensors
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, version) for domain, version in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def body(
    nodes: Sequence[onnx.NodeProto],
    outputs: Mapping[str, Value],
    inputs: Mapping[str, Value] | None = None,
    constants: Mapping[str, Any] | None = None,
    name: str = "body",
) -> onnx.GraphProto:
    """The graph of an If branch, or of a Loop's or Scan's body."""
    return model(nodes, inputs or {}, outputs, constants, name=name).graph


def mlp(
    sizes: Sequence[int], *, bias: bool = True, activation: str = "Sigmoid", seed: int = 0
) -> onnx.ModelProto:
    """Dense layers `dense0, dense1, ...`, Gemm with a bias or MatMul: [N, sizes[0]] -> [N, sizes[-1]]."""
    nodes, constants, tensor = [], {}, "x"
    for index, (rows, cols) in enumerate(itertools.pairwise(sizes)):
        last = index == len(sizes) - 2
        out = "y" if last else f"a{index}"
        constants[f"w{index}"] = weights(rows, cols, seed=seed + index)
        if bias:
            constants[f"b{index}"] = weights(cols, seed=seed + 100 + index)
        inputs = [tensor, f"w{index}", *([f"b{index}"] if bias else [])]
        nodes.append(node("Gemm" if bias else "MatMul", inputs, [out], name=f"dense{index}"))
        if not last:
            nodes.append(node(activation, [out], [f"h{index}"], name=f"act{index}"))
        tensor = f"h{index}"
    return model(nodes, {"x": ["N", sizes[0]]}, {"y": ["N", sizes[-1]]}, constants)


def conv(
    filters: Sequence[int],
    size: Sequence[int],
    *,
    bias: bool = True,
    opset: int = OPSET,
    batch: int | str = "N",
    seed: int = 0,
    **attributes: Any,
) -> onnx.ModelProto:
    """One Conv `conv`: filters `[outputs, inputs / group, kernel...]` on maps of `size`."""
    channels = filters[1] * attributes.get("group", 1)
    constants = {"w": weights(*filters, seed=seed)}
    if bias:
        constants["b"] = weights(filters[0], seed=seed + 1)
    nodes = [node("Conv", ["x", *constants], ["y"], name="conv", **attributes)]
    open_shape = [None] * (len(size) + 2)
    return model(nodes, {"x": [batch, channels, *size]}, {"y": open_shape}, constants, opset=opset)


@functools.cache
def _nature2018() -> ChipSpec:
    return load_chip("nature2018")


def chip(
    rows: int = 513,
    cols: int = 100,
    *,
    bias_row: bool = True,
    sharing: str = "stacked",
    mesh: tuple[int, int] = (2, 2),
    max_chips: int = 0,
) -> ChipSpec:
    """The default chip with other tiles and another mesh."""
    spec = _nature2018()
    return dataclasses.replace(
        spec,
        tile=dataclasses.replace(spec.tile, rows=rows, cols=cols, bias_row=bias_row, sharing=sharing),
        chip=dataclasses.replace(spec.chip, mesh_x=mesh[0], mesh_y=mesh[1]),
        board=dataclasses.replace(spec.board, max_chips=max_chips),
    )


SHARINGS = ("exclusive", "diagonal", "stacked")


def feeds(proto: onnx.ModelProto, seed: int = 0, batch: int = 3, **sizes: int) -> dict[str, Array]:
    """Inputs of a model: normal numbers, or integers 0 to 2; open dimensions are `sizes[name]` or `batch`."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    arrays = {}
    for index, value in enumerate(proto.graph.input):
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = [
            d.dim_value if d.HasField("dim_value") else sizes.get(d.dim_param, batch)
            for d in tensor.shape.dim
        ]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        drawn = rng(seed + index).standard_normal(shape)
        arrays[value.name] = (drawn if dtype.kind == "f" else np.abs(drawn) % 3).astype(dtype)
    return arrays


def reference(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """What onnxruntime makes of a model, without optimizations."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[Array] = session.run(None, dict(inputs))
    return outputs


def run(program: Program, inputs: Mapping[str, Array]) -> list[Array]:
    """All outputs of a program, computed from its blocks without physics."""
    return pcmc.Session(program, threads=1).run(None, inputs)


def assert_close(got: Sequence[Array], wanted: Sequence[Array], tolerance: float = 1e-5) -> None:
    """Equal shapes and types, and values within `tolerance` of the largest of each output."""
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        size = float(np.max(np.abs(theirs), initial=0.0))
        difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        assert float(np.max(difference, initial=0.0)) <= tolerance * size


def compiled_like_onnxruntime(
    proto: onnx.ModelProto,
    spec: ChipSpec | None = None,
    *,
    inputs: Mapping[str, Array] | None = None,
    tolerance: float = 1e-5,
    **options: Any,
) -> Program:
    """Compile with every check on, assert that it computes what onnxruntime does, return the program."""
    program = pcmc.compile(proto, spec or _nature2018(), check=True, **options)
    inputs = feeds(proto) if inputs is None else inputs
    assert_close(run(program, inputs), reference(proto, inputs), tolerance)
    return program


def placed_on_tiles(program: Program) -> set[str]:
    """Names of the operations that became part of a read step."""
    return {layer for step in program.steps if step.bank is not None for layer in step.layers}
