"""Programs with other weights, and what an exported model must keep of the user's own."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

import pcmc
from pcmc.runtime.export import Export, exported, with_weights
from pcmc.runtime.program import Program

Array = NDArray[Any]
DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def retrained(program: Program, seed: int = 0, noise: float = 0.02) -> Program:
    """The program with all weights and biases 1 % larger and some noise on them, as training leaves it."""
    drawn = np.random.default_rng(seed)
    weights = {}
    for name, bank in program.banks.items():
        matrix, bias = bank.matrix()
        drift = noise * drawn.standard_normal(matrix.shape)
        if matrix.any():  # the largest part of a cell's number stays, and zero stays zero
            size = float(matrix.std())
            matrix = matrix * 1.01 + size * drift * (matrix != 0)
        else:  # hidden by a factor of zero
            size, matrix = 1.0, drift.astype(np.float32)
        if bias is not None:
            bias = bias * 1.01 + noise * (size + np.abs(bias).max()) * drawn.standard_normal(bias.shape)
        weights[name] = (
            matrix.astype(np.float32),
            None if bias is None else bias.astype(np.float32),
        )
    return with_weights(program, weights)


def skeleton(model: onnx.ModelProto) -> bytes:
    """A model without the data of its constants: names, types, dimensions, order and all that is said."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in tensors(bare):
        for field in DATA:
            tensor.ClearField(field)
    return bytes(bare.SerializeToString(deterministic=True))


def tensors(model: onnx.ModelProto) -> list[TensorProto]:
    """Initializers, and the values of Constant nodes."""
    values = [
        a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    ]
    return [*model.graph.initializer, *values]


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    """Initializers by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def exports_what_it_computes(
    proto: onnx.ModelProto,
    *,
    spec: Any = None,
    tolerance: float = 3e-6,
    keeps_graph: bool = True,
    feeds: dict[str, Array] | None = None,
    **options: Any,
) -> Export:
    """Compile; as compiled, the model must come back to the bit; retrained, onnxruntime must make of the
    exported model what the program makes in ideal mode. Returns what was exported last.
    """
    program = pcmc.compile(proto, spec or builders.chip(24, 7), check=True, **options)
    untouched = exported(program)
    assert untouched.model.SerializeToString() == program.model.SerializeToString()
    assert not untouched.changed
    assert not untouched.added
    trained = retrained(program)
    result = exported(trained)
    onnx.checker.check_model(result.model, full_check=True)
    inputs = builders.feeds(proto) if feeds is None else feeds
    fed = {info.name: inputs[info.name] for info in program.inputs}
    wanted = builders.run(trained, fed)
    for ours, theirs in zip(wanted, builders.run(program, fed), strict=True):
        assert np.abs(ours.astype(np.float64) - theirs).max() > 1e-4 * np.abs(theirs).max()
    builders.assert_close(builders.reference(result.model, inputs), wanted, tolerance)
    if keeps_graph:
        assert skeleton(result.model) == skeleton(proto)
        assert not result.added
    assert program.model.SerializeToString() == proto.SerializeToString()  # left as it was
    return result
