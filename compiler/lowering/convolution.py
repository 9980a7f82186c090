"""Lowering of Conv, 1-D and 2-D: each window of the input is a vector, each filter a column."""

from __future__ import annotations

import networkx as nx
import numpy as np

from pcmc.accel.tile import Window
from pcmc.compiler.graph import Matrix, Op
from pcmc.compiler.lowering.weights import float_constant
from pcmc.runtime.program import Read


def lower_conv(op: Op, graph: nx.MultiDiGraph) -> tuple[Matrix, Read, str] | None:
    """Conv with constant filters `[outputs, inputs / groups, kernel...]` and a constant bias or none.

    Row `(channel * kernel_h + ky) * kernel_w + kx` of the matrix takes that element of the window. Padding
    that depends on the size of the input (auto_pad SAME_*) stays a mode of the window, resolved for each
    size.
    """
    filters = float_constant(graph, op.inputs[1])
    if filters is None or filters.ndim not in (3, 4) or 0 in filters.shape:
        return None
    bias = None
    if len(op.inputs) > 2 and op.inputs[2]:
        addend = float_constant(graph, op.inputs[2])
        if addend is None:
            return None
        bias = addend.reshape(-1).astype(np.float32)
    groups = int(op.attributes.get("group", 1))
    outputs = filters.shape[0]
    by_group = filters.reshape(groups, outputs // groups, -1).transpose(0, 2, 1)
    weights = np.ascontiguousarray(by_group if groups > 1 else by_group[0], dtype=np.float32)
    matrix = Matrix(op.name, weights, bias, op.inputs[1], (op.inputs[1],), "filters as columns", groups)
    auto_pad = op.attributes.get("auto_pad", b"NOTSET").decode()
    window = _window(op, filters.shape[2:], auto_pad)
    return (
        matrix,
        Read("window", window, auto_pad=auto_pad if auto_pad.startswith("SAME") else ""),
        op.inputs[0],
    )


def _window(op: Op, kernel: tuple[int, ...], auto_pad: str) -> Window:
    axes = len(kernel)
    strides = tuple(op.attributes.get("strides", [1] * axes))
    dilations = tuple(op.attributes.get("dilations", [1] * axes))
    pads = tuple(op.attributes.get("pads", [0] * (2 * axes)))
    if auto_pad != "NOTSET":
        pads = (0,) * (2 * axes)
    if axes == 1:
        kernel, strides, dilations, pads = (
            (1, *kernel),
            (1, *strides),
            (1, *dilations),
            (0, pads[0], 0, pads[1]),
        )
    return Window(
        kernel=(kernel[0], kernel[1]),
        strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]),
        pads=(pads[0], pads[1], pads[2], pads[3]),
    )
