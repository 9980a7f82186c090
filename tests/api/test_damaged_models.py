"""A model damaged at random compiles to a program that runs, or is refused with one of our own errors."""

import contextlib
import warnings
from functools import cache

import builders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import pcmc
from pcmc.errors import PcmcError


@cache
def small_models() -> tuple[bytes, ...]:
    """A convolution, folding, control flow and dense layers in a few hundred bytes each."""
    branch = {
        name: builders.body([builders.node(kind, ["g"], [f"{name}_y"])], {f"{name}_y": ["N", 5]}, name=name)
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    nodes = [
        builders.node("Conv", ["x", "filters"], ["c"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        builders.node("BatchNormalization", ["c", "one", "zero", "zero", "one"], ["n"], name="norm"),
        builders.node("Relu", ["n"], ["r"]),
        builders.node("Reshape", ["r", "rows"], ["f"]),
        builders.node("Gemm", ["f", "w", "b"], ["g"], name="dense", alpha=0.5, transB=1),
        builders.node("ReduceMax", ["g"], ["top"], keepdims=0),
        builders.node("Greater", ["top", "limit"], ["large"]),
        builders.node("If", ["large"], ["y"], name="branch", **branch),
    ]
    constants = {
        "filters": builders.weights(3, 2, 3, 3),
        "one": np.ones(3, np.float32),
        "zero": np.zeros(3, np.float32),
        "rows": np.array([0, -1]),
        "w": builders.weights(5, 27),
        "b": builders.weights(5),
        "limit": np.float32(0),
    }
    whole = builders.model(nodes, {"x": ["N", 2, 5, 5]}, {"y": ["N", 5]}, constants)
    return whole.SerializeToString(), builders.mlp([6, 4, 3]).SerializeToString()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(small_models())))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(["flip", "set", "insert", "delete"]))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=6))
        else:
            del data[at : at + draw(st.integers(1, 8))]
    return bytes(data)


def compiles_or_is_refused(data: bytes) -> None:
    """Compile, report, run: nothing but our own errors, and no warning."""
    with warnings.catch_warnings(), contextlib.suppress(PcmcError):
        warnings.simplefilter("error")
        program = pcmc.compile(data)
        program.report()
        feeds = {
            info.name: np.zeros(program.sample_shapes[info.name], helper.tensor_dtype_to_np_dtype(info.dtype))
            for info in program.inputs
        }
        if sum(array.size for array in feeds.values()) < 100_000:
            pcmc.Session(program, threads=1).run(None, feeds)


def test_the_models_to_be_damaged_compile():
    for data in small_models():
        assert pcmc.compile(data, check=True).banks


@pytest.mark.slow
@settings(max_examples=150)
@given(damaged())
def test_a_damaged_model_compiles_or_is_refused(data):
    compiles_or_is_refused(data)


@pytest.mark.slow
@settings(max_examples=3000)
@given(damaged())
def test_many_damaged_models_compile_or_are_refused(data):
    compiles_or_is_refused(data)
