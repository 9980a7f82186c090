"""Every real model that compiles: as compiled it comes back to the bit, and with other weights onnxruntime
makes of the exported model what the program makes.
"""

import functools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from exporting import retrained, skeleton
from test_real_models import REFUSED, SHAPES, filenames  # type: ignore[import-not-found]

import pcmc
import real
from pcmc.runtime.export import Export, exported
from pcmc.runtime.onnx_walk import nodes_of
from pcmc.workflows.runs import reference_session
from pcmc.workflows.samples import random_inputs

MAPPED = [filename for filename in filenames() if filename not in REFUSED]
# Models in which BatchNormalization is constant arithmetic on the weights: these become initializers.
COMPUTED = ("cifar10_resnet56_akamaster_dynamo20_ext.onnx",)
HALF = onnx.TensorProto.FLOAT16


@functools.cache
def compiled(filename: str) -> pcmc.Program:
    return pcmc.compile(real.model_path(filename), shapes=SHAPES.get(filename))


@functools.cache
def trained(filename: str) -> tuple[pcmc.Program, Export]:
    program = retrained(compiled(filename))
    return program, exported(program)


def is_quantized(filename: str) -> bool:
    return any(node.op_type == "DequantizeLinear" for node in nodes_of(compiled(filename).model.graph))


def bound(filename: str) -> float:
    """Rounding to single precision; a model of float16 rounds the weights to that."""
    half = any(tensor.data_type == HALF for tensor in compiled(filename).model.graph.initializer)
    return 5e-3 if half else 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("filename", MAPPED)
def test_real_model_as_compiled_comes_back_to_the_bit(filename: str) -> None:
    program = compiled(filename)
    result = exported(program)
    assert result.model.SerializeToString() == program.model.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("filename", MAPPED)
def test_real_model_with_other_weights_keeps_its_graph(filename: str) -> None:
    _, result = trained(filename)
    onnx.checker.check_model(result.model)
    if filename in COMPUTED:
        assert all(name.endswith("/trained") for name in result.added)
    else:
        assert skeleton(result.model) == skeleton(compiled(filename).model)


@pytest.mark.slow
@pytest.mark.parametrize("filename", MAPPED)
def test_onnxruntime_makes_of_it_what_the_program_makes(filename: str, tmp_path: Path) -> None:
    program, result = trained(filename)
    names = [info.name for info in program.outputs]
    feeds = random_inputs(program, 4, seed=1)
    wanted = pcmc.Session(program, threads=2).run(names, feeds)
    session = reference_session(compiled(filename), 2)
    before = session.run(names, feeds)
    if is_quantized(filename):
        check_steps(filename, result)
        return
    pcmc.export_onnx(program, tmp_path / "a.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    runner = onnxruntime.InferenceSession(tmp_path / "a.onnx", options, providers=["CPUExecutionProvider"])
    got = runner.run(names, feeds)
    for ours, theirs, old in zip(wanted, got, before, strict=True):
        size = float(np.abs(theirs.astype(np.float64)).max())
        assert np.abs(ours.astype(np.float64) - theirs).max() <= bound(filename) * size
        assert np.abs(ours.astype(np.float64) - old).max() > bound(filename) * size


def check_steps(filename: str, result: Export) -> None:
    """Quantized weights: within half a step of what they should be, but for those that were clipped. (A step
    is at most 1/127 of the largest weight.)
    """
    program, _ = trained(filename)
    again = pcmc.compile(result.model, shapes=SHAPES.get(filename))
    far = cells = 0
    for name, bank in program.banks.items():
        wanted, got = bank.matrix()[0], again.banks[name].matrix()[0]
        largest = float(np.abs(compiled(filename).banks[name].cells).max())
        far += int((np.abs(got - wanted) > 0.501 * largest / 127).sum())
        cells += bank.cells.size
    clipped = sum(result.clipped.values())
    assert far <= clipped < 0.05 * cells
