"""One-node models, at least one for each operator that training knows, and what runs them.

A case names the operator and its inputs: a shape is filled from the rule's domain, an array is used as it is.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from pcmc.runtime.ops.node import Context, Node, node_from_onnx
from pcmc.runtime.ops.table import RULES, Domain

Array = NDArray[Any]

NOT_IN_ONNXRUNTIME = {"SwiGLU"}


@dataclass(frozen=True)
class Case:
    """A node to run. `inputs` are shapes, arrays, or None for one that is left out."""

    op: str
    inputs: tuple[tuple[int, ...] | Array | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 21
    outputs: int = 1
    training: bool = False

    @property
    def title(self) -> str:
        shapes = [None if x is None else x if isinstance(x, tuple) else x.shape for x in self.inputs]
        said = ",".join(f"{name}={value}" for name, value in self.attributes.items())
        return f"{self.op}-{self.opset}({said})" + "".join(str(shape).replace(" ", "") for shape in shapes)


def onnx_node(case: Case) -> onnx.NodeProto:
    names = ["" if x is None else f"x{index}" for index, x in enumerate(case.inputs)]
    outputs = [f"y{index}" for index in range(case.outputs)]
    return helper.make_node(case.op, names, outputs, name=f"the_{case.op}", **case.attributes)


def node_of(case: Case) -> Node:
    return node_from_onnx(onnx_node(case), case.opset)


def context_of(case: Case) -> Context:
    """Random streams by node name, the same at each call."""
    return Context(case.training, lambda name: np.random.default_rng(zlib.crc32(name.encode())))


def values_of(case: Case, dtype: type[np.floating[Any]]) -> list[Any]:
    """The inputs; the same numbers for every type and in every run."""
    rng = np.random.default_rng(zlib.crc32(case.title.encode()))
    domains = RULES[case.op].domains
    found: list[Any] = []
    for index, x in enumerate(case.inputs):
        if isinstance(x, tuple):
            found.append(drawn(rng, x, domains[min(index, len(domains) - 1)]).astype(dtype))
        elif x is not None and x.dtype.kind == "f":
            found.append(x.astype(dtype))
        else:
            found.append(x)
    return found


def drawn(rng: np.random.Generator, shape: tuple[int, ...], domain: Domain) -> Array:
    """Different values of the domain, each more than a hundredth away from its kinks."""
    count = int(np.prod(shape))
    grid = np.linspace(domain.low, domain.high, max(4 * count, 64))
    grid = grid[
        np.all([np.abs(grid - kink) > 0.01 for kink in domain.kinks] or [np.full(len(grid), True)], axis=0)
    ]
    return rng.choice(grid, count, replace=False).astype(np.float32).astype(np.float64).reshape(shape)


def judged(case: Case, values: Sequence[Any]) -> list[Array]:
    """What onnxruntime makes of the node; ONNX's reference evaluator for what it does not have."""
    node = onnx_node(case)
    feeds = {name: x for name, x in zip(node.input, values, strict=True) if name}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feeds.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "one", infos, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10)
    if case.op in NOT_IN_ONNXRUNTIME:
        return list(onnx.reference.ReferenceEvaluator(model).run(None, feeds))
    session = onnxruntime.InferenceSession(model.SerializeToString(), _quiet())
    found: list[Array] = session.run(None, feeds)
    return found


@functools.cache
def _quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


_IMAGE = (2, 3, 5, 6)
_ONE = (3, 4)

_PLAIN = [
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf"),
    *("Exp", "Floor", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "IsNaN", "LeakyRelu", "Log"),
    *("LogSoftmax", "Mish", "Neg", "NonZero", "Reciprocal", "Relu", "Round", "Selu", "Shape", "Shrink"),
    *("Sigmoid", "Sign", "Sin", "Sinh", "Size", "Softmax", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"),
    *("ThresholdedRelu", "Transpose", "Flatten", "Dropout", "IsInf", "ArgMax", "ArgMin", "Gelu", "Clip"),
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare", "LpNormalization", "Trilu", "EyeLike", "Squeeze"),
]

ACTIVATIONS = [
    *(Case(op, ((),)) for op in ("Relu", "Tanh", "Sigmoid", "Gelu", "Softplus")),
    *(Case(op, ((0, 3),)) for op in ("Relu", "Tanh", "Sigmoid")),
    Case("Celu", (_ONE,), {"alpha": 0.6}),
    Case("Clip", (_ONE, scalar(-0.7), scalar(0.9))),
    Case("Clip", (_ONE, None, scalar(0.9))),
    Case("Clip", (_ONE,), {"min": -0.7, "max": 0.9}, opset=7),
    Case("Elu", (_ONE,), {"alpha": 0.6}),
    Case("Gelu", (_ONE,), {"approximate": "tanh"}),
    Case("HardSigmoid", (_ONE,), {"alpha": 0.2, "beta": 0.4}),
    Case("LeakyRelu", (_ONE,), {"alpha": 0.3}, opset=7),
    Case("PRelu", (_IMAGE, (3, 1, 1))),
    Case("PRelu", (_ONE, (1,))),
    Case("PRelu", (_ONE, (4,)), opset=7),
    Case("Selu", (_ONE,), {"alpha": 1.5, "gamma": 0.9}),
    Case("Shrink", (_ONE,), {"bias": 0.2, "lambd": 0.5}),
    Case("SwiGLU", (_ONE, _ONE), opset=28),
    Case("Swish", (_ONE,), opset=24),
    Case("Swish", (_ONE,), {"alpha": 1.7}, opset=24),
    Case("Softmax", (_IMAGE,), {"axis": 1}),
    Case("Softmax", (_IMAGE,), {"axis": 2}, opset=11),
    Case("Softmax", (_IMAGE,), {"axis": -1}, opset=11),
    Case("Softmax", (_IMAGE,), opset=9),
    Case("LogSoftmax", (_IMAGE,), {"axis": 0}),
    Case("LogSoftmax", (_IMAGE,), opset=11),
    Case("Hardmax", (_IMAGE,), opset=11),
]

ARITHMETIC = [
    *(Case(op, ((2, 3, 4), (3, 1))) for op in ("Add", "Div", "Mul", "Pow", "Sub")),
    *(Case(op, ((3, 1), (2, 1, 4)), opset=7) for op in ("Add", "Div", "Mul", "Pow", "Sub")),
    *(Case(op, (ints(7, -7, 9), ints(2, 2, -4))) for op in ("Add", "Div", "Mul", "Sub", "Mod")),
    Case("Mod", (_ONE, (4,)), {"fmod": 1}),
    Case("Pow", (_ONE, np.array(3, np.int64))),
    Case("Pow", (_ONE, floats(2.0))),
    *(Case(op, (_ONE, (4,), (2, 3, 1))) for op in ("Max", "Mean", "Min", "Sum")),
    *(Case(op, (_ONE,)) for op in ("Max", "Mean", "Min", "Sum")),
    Case("Where", (np.array([[True], [False], [True]]), _ONE, (2, 1, 4))),
]

CONSTANTS = [
    *(Case(op, (np.array([True, False]), np.array([[True], [False]]))) for op in ("And", "Or", "Xor")),
    *(Case(op, (floats(1, 2, 3), floats(2, 2, 2))) for op in ("Equal", "Greater", "Less")),
    *(Case(op, (floats(1, 2, 3), floats(2, 2, 2))) for op in ("GreaterOrEqual", "LessOrEqual")),
    Case("Not", (np.array([True, False]),)),
    Case("Constant", (), {"value": helper.make_tensor("c", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])}),
    Case("Constant", (), {"value_float": 1.5}),
    Case("Constant", (), {"value_ints": [1, 2]}),
    Case("ConstantOfShape", (ints(2, 3),)),
    Case("ConstantOfShape", (ints(2),), {"value": helper.make_tensor("c", onnx.TensorProto.INT64, [1], [5])}),
    Case("EyeLike", (_ONE,), {"k": 1, "dtype": onnx.TensorProto.INT64}),
    Case("IsInf", (floats(np.inf, 1, -np.inf),), {"detect_negative": 0}),
    Case("OneHot", (ints(0, 2, -1, 7), ints(3), floats(0, 5))),
    Case("OneHot", (ints(0, 2), ints(3), floats(0, 5)), {"axis": 0}),
    Case("Range", (np.array(1, np.int64), np.array(8, np.int64), np.array(3, np.int64))),
    Case("Range", (scalar(2), scalar(0), scalar(-0.5))),
    Case("Shape", (_IMAGE,), {"start": 1, "end": -1}),
    *(Case("Cast", (_ONE,), {"to": to}) for to in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)),
    Case("Cast", (_ONE,), {"to": onnx.TensorProto.INT64}),
    Case("CastLike", (_ONE, floats(1.0))),
    Case("QuantizeLinear", (_ONE, scalar(0.01))),
    Case(
        "QuantizeLinear",
        (_ONE, floats(0.01, 0.02, 0.03, 0.04), np.array([0, 3, -5, 9], np.int8)),
        {"axis": -1},
    ),
    Case("QuantizeLinear", (_ONE, scalar(0.01)), {"output_dtype": onnx.TensorProto.INT16}),
    Case("DequantizeLinear", (np.array([[1, 200], [7, 0]], np.uint8), scalar(0.3), np.array(128, np.uint8))),
    Case("DequantizeLinear", (np.array([[1, -9], [7, 0]], np.int8), floats(0.3, 2.0)), {"axis": 0}),
    Case(
        "DequantizeLinear",
        (
            np.array([[1, -9, 3, 4]], np.int8),
            np.array([[0.3, 2.0]], np.float32),
            np.array([[1, -1]], np.int8),
        ),
        {"block_size": 2},
    ),
    Case("ArgMax", (_IMAGE,), {"axis": 1, "keepdims": 0}),
    Case("ArgMin", (floats(3, 1, 1, 2),), {"select_last_index": 1}),
    Case("ArgMax", (floats(3, 1, 3, 2),), {"select_last_index": 1, "axis": -1}),
]

_READ_TWICE = np.array([[0, 2], [-1, 0]], np.int64)

INDEXING = [
    Case("Gather", (_IMAGE, _READ_TWICE), {"axis": 1}),
    Case("Gather", (_IMAGE, np.array(1, np.int64)), {"axis": -1}),
    Case("Gather", (_ONE, ints(2, 2, 0)), opset=9),
    Case("GatherElements", ((3, 3), np.array([[0, 2, 0], [-1, 0, 0]], np.int64)), {"axis": 0}),
    Case("GatherElements", ((3, 3), np.array([[0, 0], [1, 2], [-3, 1]], np.int64)), {"axis": 1}),
    Case("GatherND", (_IMAGE, np.array([[0, 1], [1, 2], [0, 1]], np.int64))),
    Case("GatherND", (_IMAGE, np.array([[[0, 1]], [[2, -1]]], np.int64)), {"batch_dims": 1}),
    Case("Scatter", ((3, 3), np.array([[0, 2]], np.int64), (1, 2)), {"axis": 1}, opset=9),
    Case("ScatterElements", ((3, 3), np.array([[0, 2]], np.int64), (1, 2)), {"axis": 1}),
    Case("ScatterElements", ((3, 3), np.array([[1, 1]], np.int64), (1, 2)), {"axis": 1, "reduction": "add"}),
    Case("ScatterND", (_ONE, np.array([[0], [-1]], np.int64), (2, 4))),
    Case("ScatterND", (_ONE, np.array([[1], [1]], np.int64), (2, 4)), {"reduction": "add"}),
    Case("TopK", (_IMAGE, ints(2)), {"axis": 1}, outputs=2),
    Case("TopK", (_IMAGE, ints(3)), {"largest": 0}, outputs=2),
    Case("TopK", (_ONE,), {"k": 2}, opset=9, outputs=2),
]

NORMALIZATION = [
    *(Case("BatchNormalization", (_IMAGE, *[(3,)] * 4), opset=opset) for opset in (7, 9, 15)),
    Case("BatchNormalization", ((4, 3), *[(3,)] * 4), {"epsilon": 0.01}),
    Case("BatchNormalization", (_IMAGE, *[(3,)] * 4), {"training_mode": 1}, outputs=3, training=True),
    Case(
        "BatchNormalization",
        ((4, 3), *[(3,)] * 4),
        {"training_mode": 1, "momentum": 0.3},
        outputs=3,
        training=True,
    ),
    Case("GroupNormalization", ((2, 6, 3), (6,), (6,)), {"num_groups": 3}),
    Case("GroupNormalization", ((2, 6, 3, 2), (2,), (2,)), {"num_groups": 2}, opset=18),
    Case("InstanceNormalization", (_IMAGE, (3,), (3,)), {"epsilon": 0.001}),
    Case("InstanceNormalization", ((2, 3, 7), (3,), (3,)), opset=7),
    Case("LRN", ((2, 6, 3, 2),), {"size": 3, "alpha": 0.4, "beta": 0.6, "bias": 1.5}),
    Case("LRN", ((2, 6, 3, 2),), {"size": 5, "alpha": 0.4}),
    Case("LayerNormalization", ((2, 3, 4), (4,), (4,))),
    Case("LayerNormalization", ((2, 3, 4), (3, 4)), {"axis": 1, "epsilon": 0.01}, outputs=3),
    Case("LayerNormalization", ((2, 3, 4), (4,), (4,)), {"axis": -1}, opset=17),
    Case("LpNormalization", ((2, 3, 4),), {"p": 1, "axis": 1}),
    Case("LpNormalization", ((2, 3, 4),), {"p": 2, "axis": -1}, opset=7),
    Case("MeanVarianceNormalization", (_IMAGE,)),
    Case("MeanVarianceNormalization", (_IMAGE,), {"axes": [1, 2]}),
    Case("RMSNormalization", ((2, 3, 4), (4,)), opset=23),
    Case("RMSNormalization", ((2, 3, 4), (3, 4)), {"axis": 1}, opset=23),
]

_POOLS: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "VALID"},
]

POOLING = [
    *(Case(op, (_IMAGE,), pool, opset=12) for op in ("MaxPool", "AveragePool") for pool in _POOLS[:4]),
    *(Case(op, (_IMAGE,), pool, opset=7) for op in ("MaxPool", "AveragePool") for pool in _POOLS[4:]),
    *(Case("LpPool", (_IMAGE,), {**pool, "p": p}) for pool in _POOLS[:2] for p in (1, 2, 3)),
    *(
        Case(op, (_IMAGE,), {"kernel_shape": [2, 2], "dilations": [2, 3]})
        for op in ("MaxPool", "AveragePool")
    ),
    *(Case(op, ((2, 2, 7),), {"kernel_shape": [3], "strides": [2]}) for op in ("MaxPool", "AveragePool")),
    *(Case(op, ((1, 2, 3, 4, 4),), {"kernel_shape": [2, 2, 2]}) for op in ("MaxPool", "AveragePool")),
    Case("AveragePool", (_IMAGE,), {**_POOLS[1], "count_include_pad": 1}),
    Case("AveragePool", (_IMAGE,), {**_POOLS[2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", (_IMAGE,), {**_POOLS[2], "pads": [1, 1, 1, 1]}),
    *(Case("AveragePool", (_IMAGE,), {**_POOLS[3], "count_include_pad": pad}, opset=22) for pad in (0, 1)),
    Case("MaxPool", (_IMAGE,), _POOLS[1], outputs=2),
    Case("MaxPool", (_IMAGE,), {**_POOLS[0], "storage_order": 1}, outputs=2),
    *(Case(op, ((2, 3, 4, 5),)) for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
    *(Case(op, ((2, 3, 4),), opset=7) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    Case("GlobalLpPool", (_IMAGE,), {"p": 3}),
    Case(
        "MaxUnpool",
        ((1, 1, 2, 2), ints(5, 7, 13, 15).reshape(1, 1, 2, 2)),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    Case(
        "MaxUnpool",
        ((1, 1, 2, 2), ints(5, 7, 13, 15).reshape(1, 1, 2, 2), ints(1, 1, 5, 5)),
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
]

CONVOLUTION = [
    Case("Conv", (_IMAGE, (4, 3, 3, 3), (4,)), {"pads": [1, 1, 1, 1]}),
    Case("Conv", (_IMAGE, (4, 3, 1, 1)), opset=7),
    Case("Conv", (_IMAGE, (4, 3, 2, 3)), {"strides": [2, 3], "pads": [0, 1, 2, 0]}),
    Case("Conv", (_IMAGE, (4, 3, 2, 2), (4,)), {"dilations": [2, 3]}),
    Case("Conv", ((2, 4, 5, 5), (6, 2, 3, 3), (6,)), {"group": 2}),
    Case("Conv", ((2, 4, 5, 5), (4, 1, 3, 3)), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", (_IMAGE, (4, 3, 2, 2)), {"auto_pad": "SAME_LOWER"}),
    Case("Conv", ((2, 3, 8), (4, 3, 3), (4,)), {"strides": [2]}),
    Case("Conv", ((1, 2, 4, 4, 3), (3, 2, 2, 2, 2)), {"pads": [1, 0, 0, 0, 1, 0]}),
]

PRODUCTS = [
    Case("Gemm", ((3, 4), (4, 2), (2,))),
    Case("Gemm", ((4, 3), (2, 4), (3, 1)), {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", ((3, 4), (4, 2)), {"alpha": 1.5}),
    Case("Gemm", ((3, 4), (2, 4), (1, 2)), {"transB": 1}, opset=7),
    Case("MatMul", ((3, 4), (4, 2))),
    Case("MatMul", ((2, 3, 4), (4, 5))),
    Case("MatMul", ((2, 1, 3, 4), (5, 4, 2))),
    Case("MatMul", ((4,), (4, 2))),
    Case("MatMul", ((2, 3, 4), (4,))),
    Case("MatMul", ((4,), (4,))),
    Case("MatMul", ((3, 4), (2, 4, 5)), opset=7),
    Case("Einsum", ((2, 3), (3, 4)), {"equation": "ij,jk->ik"}),
    Case("Einsum", ((2, 5, 3, 4), (2, 5, 6, 4)), {"equation": "bhid, bhjd -> bhij"}),
    Case("Einsum", ((2, 3, 4), (1, 4, 5)), {"equation": "...ij,...jk->...ik"}),
    Case("Einsum", ((2, 3), (3,)), {"equation": "ij,j"}),
    Case("Einsum", ((2, 3),), {"equation": "ij->j"}),
]

RESIZING = [
    *(
        Case(
            "Resize",
            (_IMAGE, None, floats(1, 1, *scale)),
            {"mode": mode, "coordinate_transformation_mode": how},
        )
        for mode in ("nearest", "linear", "cubic")
        for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for scale in ((2, 2), (0.6, 1.5))
    ),
    *(
        Case(
            "Resize",
            (_IMAGE, None, None, ints(2, 3, 7, 4)),
            {"nearest_mode": how, "mode": "nearest"},
            opset=13,
        )
        for how in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    Case(
        "Resize",
        (_IMAGE, None, None, ints(2, 3, 7, 1)),
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
    Case(
        "Resize",
        (_IMAGE, None, None, ints(2, 3, 7, 4)),
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
    ),
    Case("Resize", (_IMAGE, None, None, ints(3, 4)), {"mode": "linear", "antialias": 1, "axes": [2, 3]}),
    Case("Resize", (_IMAGE, None, None, ints(3, 4)), {"mode": "cubic", "antialias": 1, "axes": [2, 3]}),
    Case(
        "Resize",
        (_IMAGE, None, None, ints(3, 9)),
        {"mode": "linear", "antialias": 1, "exclude_outside": 1, "axes": [2, 3]},
    ),
    Case(
        "Resize",
        (_IMAGE, None, floats(1, 1, 0.8, 0.8)),
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    ),
    *(
        Case(
            "Resize",
            (_IMAGE, None, None, ints(8, 8)),
            {"mode": "linear", "axes": [2, 3], "keep_aspect_ratio_policy": how},
        )
        for how in ("not_larger", "not_smaller")
    ),
    Case(
        "Resize",
        (_IMAGE, floats(0, 0, 0.2, -0.31, 1, 1, 0.8, 0.9), None, ints(2, 3, 4, 5)),
        {
            "mode": "linear",
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "extrapolation_value": 7.0,
        },
    ),
    Case(
        "Resize",
        (_IMAGE, floats(), floats(1, 1, 2, 2)),
        {"mode": "nearest", "coordinate_transformation_mode": "tf_half_pixel_for_nn"},
        opset=11,
    ),
    Case("Resize", (_IMAGE, floats(1, 1, 2, 1.5)), {"mode": "nearest"}, opset=10),
    Case("Resize", (_IMAGE, floats(1, 1, 0.5, 0.6)), {"mode": "nearest"}, opset=10),
    Case("Resize", (_IMAGE, floats(1, 1, 2, 2)), {"mode": "linear"}, opset=10),
    Case("Upsample", (_IMAGE,), {"scales": [1.0, 1.0, 2.0, 3.0]}, opset=7),
    Case("Upsample", (_IMAGE, floats(1, 1, 2, 2)), {"mode": "linear"}, opset=9),
]

SHAPES = [
    Case("Concat", (_ONE, (3, 2), (3, 1)), {"axis": 1}),
    Case("Concat", (_ONE, (2, 4)), {"axis": -2}, opset=7),
    *(Case("DepthToSpace", ((2, 8, 2, 3),), {"blocksize": 2, "mode": mode}) for mode in ("DCR", "CRD")),
    Case("SpaceToDepth", ((2, 3, 4, 6),), {"blocksize": 2}),
    Case("Expand", ((3, 1), ints(2, 1, 4))),
    Case("Expand", ((2, 3, 4), ints(1, 4))),
    Case("Flatten", (_IMAGE,), {"axis": 2}),
    Case("Flatten", (_IMAGE,), {"axis": -1}),
    Case("Flatten", (_IMAGE,), {"axis": 0}, opset=7),
    *(
        Case("Pad", ((3, 4), ints(1, 2, 0, 1)), {"mode": mode})
        for mode in ("constant", "reflect", "edge", "wrap")
    ),
    Case("Pad", ((3, 4), ints(1, -1, 0, 2), scalar(1.5))),
    Case("Pad", ((3, 4), ints(2, 1), scalar(1.5), ints(-1))),
    Case("Pad", ((3, 4),), {"pads": [1, 0, 2, 1], "value": 0.5}, opset=7),
    Case("Pad", ((3, 4),), {"pads": [1, 0, 2, 1], "mode": "reflect"}, opset=7),
    Case("Reshape", ((2, 3, 4), ints(0, -1))),
    Case("Reshape", ((0, 3), ints(3, 0)), {"allowzero": 1}),
    Case("Slice", (_IMAGE, ints(1, -1), ints(9, -99), ints(1, 3), ints(1, -2))),
    Case("Slice", (_IMAGE, ints(0, 1), ints(1, 3))),
    Case("Slice", (_IMAGE,), {"starts": [1, 0], "ends": [3, -1], "axes": [2, 3]}, opset=9),
    Case("Split", (_ONE,), {"num_outputs": 3, "axis": 1}, outputs=3),
    Case("Split", (_ONE, ints(1, 3)), {"axis": 1}, outputs=2),
    Case("Split", (_ONE,), {"axis": 1}, opset=13, outputs=2),
    Case("Split", (_ONE,), {"split": [1, 2]}, opset=7, outputs=2),
    Case("Squeeze", ((1, 3, 1), ints(-1))),
    Case("Squeeze", ((1, 3, 1), ints(0, 2))),
    Case("Squeeze", ((1, 3, 1),), {"axes": [0]}, opset=11),
    Case("Unsqueeze", (_ONE, ints(0, -1))),
    Case("Unsqueeze", (_ONE,), {"axes": [0, 3]}, opset=9),
    Case("Tile", (_ONE, ints(2, 3))),
    Case("Transpose", ((2, 3, 4),), {"perm": [2, 0, 1]}),
    Case("Trilu", ((2, 3, 4), np.array(1, np.int64))),
    Case("Trilu", ((3, 3), np.array(-1, np.int64)), {"upper": 0}),
    Case("Dropout", (_ONE, scalar(0.3), np.array(False))),
    Case("Dropout", (_ONE, scalar(0.3)), outputs=2),
    Case("Dropout", (_ONE,), {"ratio": 0.3}, opset=7, outputs=2),
    Case("Dropout", (_ONE,), {"ratio": 0.3}, opset=10, outputs=2),
]

REDUCTIONS = [
    *(
        case
        for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
        for case in (
            Case(f"Reduce{op}", ((2, 3, 4), ints(-1, 0)), {"keepdims": 0}),
            Case(f"Reduce{op}", ((2, 3, 4),), {"axes": [1]}, opset=11),
        )
    ),
    Case("ReduceSum", (_ONE,), {"noop_with_empty_axes": 1}),
    Case("ReduceSum", ((2, 3, 4), ints(1)), opset=13),
    Case("ReduceProd", (floats(2, 0, 3),)),
    *(
        Case("CumSum", (_ONE, np.array(axis, np.int64)), {"exclusive": exclusive, "reverse": reverse})
        for axis, exclusive, reverse in ((0, 0, 0), (1, 1, 0), (-1, 0, 1), (0, 1, 1))
    ),
]

CASES: list[Case] = [
    *(Case(op, (_ONE,)) for op in _PLAIN),
    *(ACTIVATIONS + ARITHMETIC + CONSTANTS + INDEXING + NORMALIZATION + POOLING + CONVOLUTION),
    *(PRODUCTS + RESIZING + SHAPES + REDUCTIONS),
]
