"""Digital regions run in onnxruntime as the model says, and its errors become ours."""

import builders
import numpy as np
import onnx
import onnxruntime
import pytest

from pcmc.errors import DataError, ProgramError
from pcmc.runtime.onnx_walk import KNOWN_DOMAINS, first_line
from pcmc.runtime.regions import open_region, run_region


def doubling(name: str = "x") -> onnx.ModelProto:
    return builders.model([builders.node("Add", [name, name], ["y"])], {name: ["N", 3]}, {"y": ["N", 3]})


def test_a_region_computes_what_its_nodes_say():
    session = open_region(doubling(), "r", 1)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (y,) = run_region(session, "r", ["y"], {"x": x})
    assert np.array_equal(y, 2 * x)


def test_outputs_come_in_the_order_asked_for():
    nodes = [builders.node("Relu", ["x"], ["a"]), builders.node("Neg", ["x"], ["b"])]
    session = open_region(builders.model(nodes, {"x": ["N"]}, {"a": ["N"], "b": ["N"]}), "r", 1)
    x = np.array([-1, 2], np.float32)
    b, a = run_region(session, "r", ["b", "a"], {"x": x})
    assert b.tolist() == [1, -2]
    assert a.tolist() == [0, 2]


def test_what_onnxruntime_does_not_take_is_named():
    unknown = builders.model([builders.node("NoSuch", ["x"], ["y"])], {"x": ["N"]}, {"y": ["N"]})
    with pytest.raises(
        ProgramError, match=r"region 'digital_3': onnxruntime does not take it: .*NoSuch"
    ) as caught:
        open_region(unknown, "digital_3", 1)
    assert "\n" not in str(caught.value)


def test_inputs_that_do_not_fit_each_other_are_a_data_error_of_one_line():
    nodes = [builders.node("Add", ["x", "z"], ["y"])]
    session = open_region(builders.model(nodes, {"x": ["N"], "z": ["M"]}, {"y": ["K"]}), "r", 1)
    feeds = {"x": np.zeros(2, np.float32), "z": np.zeros(3, np.float32)}
    with pytest.raises(DataError, match="step 'r': onnxruntime can't compute it") as caught:
        run_region(session, "r", ["y"], feeds)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="step 'r'"):
        run_region(session, "r", ["y"], {"x": feeds["x"], "z": np.zeros(2)})


def test_too_little_memory_stays_that():
    class Hungry:
        def run(self, *_):
            raise MemoryError

    with pytest.raises(MemoryError):
        run_region(Hungry(), "r", ["y"], {})


def test_quantized_regions_are_not_optimized_and_others_are():
    constants = {"scale": np.float32(0.5), "zero": np.int8(0)}
    nodes = [builders.node("QuantizeLinear", ["x", "scale", "zero"], ["y"])]
    quantized = builders.model(nodes, {"x": ["N"]}, {"y": (["N"], onnx.TensorProto.INT8)}, constants)
    levels = onnxruntime.GraphOptimizationLevel
    assert (
        open_region(quantized, "q", 1).get_session_options().graph_optimization_level
        == levels.ORT_DISABLE_ALL
    )
    assert (
        open_region(doubling(), "r", 1).get_session_options().graph_optimization_level
        == levels.ORT_ENABLE_EXTENDED
    )


def test_threads_of_a_region_are_those_of_the_session():
    assert open_region(doubling(), "r", 3).get_session_options().intra_op_num_threads == 3


def test_onnx_own_domains_are_known_and_others_are_not():
    assert {"", "ai.onnx", "com.microsoft"} <= KNOWN_DOMAINS
    assert "custom" not in KNOWN_DOMAINS


def test_the_first_line_says_something():
    assert first_line(ValueError("\n\n  first \nsecond")) == "first"
    assert first_line(KeyError()) == "KeyError"
