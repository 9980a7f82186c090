"""Constant tensors as arrays."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt


def constant_shape(tensor: Any) -> tuple[int, ...] | None:
    """Dimensions of a constant (a TensorProto), None where there is none."""
    return None if tensor is None else tuple(tensor.dims)


def constant_array(graph: nx.MultiDiGraph, name: str) -> npt.NDArray[Any] | None:
    """The value of a constant of the graph; None where `name` is empty or not a constant."""
    tensor = graph.graph["constants"].get(name)
    if tensor is None:
        return None
    from onnx import numpy_helper

    return np.asarray(numpy_helper.to_array(tensor))


def float_constant(graph: nx.MultiDiGraph, name: str) -> npt.NDArray[np.float64] | None:
    """The value of a constant of any float type, as float64; None where it is not a constant, or not of a
    float type.
    """
    tensor = graph.graph["constants"].get(name)
    from onnx import TensorProto

    if tensor is None or tensor.data_type not in (
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.DOUBLE,
        TensorProto.BFLOAT16,
    ):
        return None
    array = constant_array(graph, name)
    with np.errstate(
        invalid="ignore"
    ):  # signalling NaNs; NaN weights are refused later, with the node's name
        return None if array is None else array.astype(np.float64)


def single_precision(graph: nx.MultiDiGraph, tensor: str) -> bool:
    """Whether a tensor is float32 or float64.

    Only there may an operation be folded into the matrix before it: narrower types round between the two.
    """
    info = graph.graph["tensors"].get(tensor)
    from onnx import TensorProto

    return info is not None and info.dtype in (TensorProto.FLOAT, TensorProto.DOUBLE)
