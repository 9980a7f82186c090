"""`compare` says how far the chip is from onnxruntime: errors, metrics and intervals are what they say."""

import dataclasses
import json
import math
from functools import cache
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from onnx import TensorProto

import pcmc
from pcmc.errors import DataError, ModelError
from pcmc.models import zoo
from pcmc.runtime.program import Program
from pcmc.workflows.metrics import METRICS, interval
from pcmc.workflows.runs import reference_session
from pcmc.workflows.samples import random_inputs


@cache
def program() -> Program:
    return pcmc.compile("digits-mlp")


def images(count: int = 40) -> tuple[Any, Any]:
    x, y = zoo.test_data("digits-mlp")
    return x[:count], y[:count]


def reference(x: Any) -> Any:
    return reference_session(program()).run(None, {"x": x})[0]


# Numbers.


def test_ideal_errors_are_those_of_the_two_runs():
    x, y = images()
    found = pcmc.compare(program(), data=(x, y), physics="ideal")
    wanted, got = (
        reference(x).astype(np.float64),
        pcmc.Session(program()).run(None, {"x": x})[0].astype(np.float64),
    )
    (error,) = found.ideal
    assert error.output == "logits"
    assert error.largest == np.abs(got - wanted).max() <= 1e-5 * error.scale
    assert error.mean == np.abs(got - wanted).mean()
    assert error.scale == np.abs(wanted).max()
    assert error.relative == error.largest / error.scale
    assert (found.with_physics, found.seeds, found.physics) == ((), (), ())
    assert found.metrics["accuracy"]["physics"] is None


def test_errors_with_physics_are_the_worst_and_the_mean_over_seeds():
    x, y = images()
    found = pcmc.compare(program(), data=(x, y), seeds=[3, 8], physics="programming_error")
    wanted = reference(x).astype(np.float64)
    distances = [
        np.abs(
            pcmc.Session(program(), "programming_error", seed=seed).run(None, {"x": x})[0].astype(np.float64)
            - wanted
        )
        for seed in (3, 8)
    ]
    (error,) = found.with_physics
    assert error.largest == max(one.max() for one in distances)
    assert error.mean == pytest.approx(np.mean([one.mean() for one in distances]))
    assert found.seeds == (3, 8)
    assert found.physics == ("programming_error",)


def test_accuracy_and_agreement_are_counted_by_hand():
    x, y = images()
    found = pcmc.compare(program(), data=(x, y), seeds=[3, 8], physics="full")
    classes = [pcmc.Session(program(), "full", seed=seed).run(None, {"x": x})[0].argmax(1) for seed in (3, 8)]
    assert found.metrics["accuracy"]["onnxruntime"] == np.mean(reference(x).argmax(1) == y)
    assert found.metrics["accuracy"]["physics"]["values"] == tuple(np.mean(one == y) for one in classes)
    assert found.metrics["agreement"]["physics"]["values"] == tuple(
        np.mean(one == reference(x).argmax(1)) for one in classes
    )
    assert found.metrics["agreement"]["onnxruntime"] == found.metrics["agreement"]["ideal"] == 1


def test_the_interval_is_students_t():
    """Mean 3, standard deviation sqrt(2.5); t of 4 degrees of freedom at 97.5 % is 2.776 (any table)."""
    found = interval([1, 2, 3, 4, 5])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert found.mean == 3
    assert found.low == pytest.approx(3 - half, rel=1e-6)
    assert found.high == pytest.approx(3 + half, rel=1e-6)
    pair = interval([0.0, 2.0])
    assert pair.high == pytest.approx(
        1 + 12.7062047, rel=1e-6
    )  # sd sqrt(2) over sqrt(2), t of 1 degree 12.706
    assert interval([0.5]) == interval([0.5]).__class__(0.5, None, None, (0.5,))
    assert interval([0.7] * 4).low == pytest.approx(0.7)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).standard_normal((400, 5))
    inside = np.mean([found.low <= 0 <= found.high for found in map(interval, draws)])
    assert inside == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 400))


# Metrics.


def test_a_metric_may_be_a_function():
    seen = []

    def spread(outputs: Any, labels: Any, wanted: Any) -> float:
        seen.append((outputs[0].shape, labels.shape, wanted[0].shape))
        return float(np.ptp(outputs[0]))

    x, y = images()
    found = pcmc.compare(program(), data=(x, y), seeds=2, metric=spread)
    assert list(found.metrics) == ["spread"]
    assert found.metrics["spread"]["onnxruntime"] == np.ptp(reference(x))
    assert seen == [((40, 10), (40,), (40, 10))] * 4  # two seeds, onnxruntime, ideal


def test_metrics_may_be_named():
    x, y = images()
    found = pcmc.compare(program(), data=(x, y), seeds=1, physics="adc", metric="mse,mae,agreement")
    got = pcmc.Session(program(), "adc").run(None, {"x": x})[0].astype(np.float64)
    assert list(found.metrics) == ["mse", "mae", "agreement"]
    assert found.metrics["mse"]["physics"]["mean"] == pytest.approx(np.mean((got - reference(x)) ** 2))
    assert found.metrics["mae"]["physics"]["mean"] == pytest.approx(np.mean(np.abs(got - reference(x))))
    assert found.metrics["mae"]["onnxruntime"] == 0
    assert found.metrics["mse"]["physics"]["low"] is None
    with pytest.raises(DataError, match=r"metric 'f1' is unknown; there are accuracy, agreement, mae, mse"):
        pcmc.compare(program(), metric="mae,f1")
    assert set(METRICS) == {"accuracy", "agreement", "mae", "mse"}


def test_accuracy_needs_labels_and_classes():
    with pytest.raises(DataError, match="needs labels"):
        pcmc.compare(program(), metric="accuracy", seeds=1)
    model = builders.mlp([6, 1])
    with pytest.raises(DataError, match="scores for classes"):
        pcmc.compare(model, data=(builders.feeds(model), np.zeros(3)), seeds=1)


def test_without_classes_there_is_no_agreement_and_still_json():
    found = pcmc.compare(builders.mlp([6, 1]), seeds=1)
    assert math.isnan(found.metrics["agreement"]["ideal"])
    json.dumps(found.as_dict())


# Data.


def test_data_in_batches_gives_what_it_gives_at_once():
    x, y = zoo.test_data("digits-mlp")
    whole = pcmc.compare(program(), data=(x[:150], y[:150]), seeds=1)
    assert whole.samples == 150
    (error,) = whole.with_physics
    got = pcmc.Session(program(), "full").run(None, {"x": x[:150]})[0].astype(np.float64)
    assert error.largest == np.abs(got - reference(x[:150])).max()


def test_a_fixed_batch_is_fed_as_the_model_wants_it():
    model = builders.mlp([6, 4])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    x = builders.rng(0).standard_normal((12, 6)).astype(np.float32)
    found = pcmc.compare(model, data=x, seeds=1)
    assert found.samples == 12
    assert found.ideal[0].relative < 1e-5
    with pytest.raises(DataError, match="13 samples do not divide into the model's fixed batch of 3"):
        pcmc.compare(model, data=np.zeros((13, 6), np.float32), seeds=1)
    assert pcmc.compare(model, seeds=1).samples == 3


def test_inputs_may_be_an_array_or_a_dict_with_or_without_labels():
    x, y = images()
    variants = [(x, y), ({"x": x}, y), (x, list(y)), (x, y.reshape(-1, 1))]
    results = [pcmc.compare(program(), data=data, seeds=1).as_dict() for data in variants]
    assert all(result == results[0] for result in results)
    for data in (x, {"x": x}, (x, None)):
        assert list(pcmc.compare(program(), data=data, seeds=1).metrics) == ["agreement"]


WRONG_DATA = {
    "other type": ((images()[0].astype(np.float64), images()[1]), "'x' is float64, the model takes float32"),
    "other shape": (np.zeros((4, 1, 9, 9), np.float32), r"'x' has shape \[4, 1, 9, 9\]"),
    "fewer labels": ((images()[0], images()[1][:-1]), r"different or no samples: \[39, 40\]"),
    "no samples": (images(0), r"no samples: \[0\]"),
    "scores for labels": ((images()[0], np.eye(10)[images()[1]]), r"labels have shape \[40, 10\]"),
    "one number for labels": ((images()[0], 3), r"labels have shape \[\]"),
    "other name": ({"z": images()[0]}, "input 'x' is missing; given was z"),
    "nothing": ({}, "input 'x' is missing; given was nothing"),
    "a word": ("hello", "'x' is|no samples"),
}


@pytest.mark.parametrize("kind", WRONG_DATA)
def test_data_that_does_not_fit_is_named(kind):
    data, message = WRONG_DATA[kind]
    with pytest.raises(DataError, match=message):
        pcmc.compare(program(), data=data, seeds=1)


def test_at_least_one_seed_is_needed():
    for seeds in (0, []):
        with pytest.raises(DataError, match="at least one"):
            pcmc.compare(program(), seeds=seeds)


# Models of several inputs and outputs.


def typed(element: int, *shape: int | str) -> builders.Value:
    """A tensor of another type than float32."""
    return list(shape), element


def mixed() -> onnx.ModelProto:
    """Inputs of five types and two outputs, one of them whole numbers."""
    nodes = [
        builders.node("MatMul", ["x", "w"], ["a"], name="dense"),
        builders.node("Where", ["keep", "a", "zero"], ["b"]),
        builders.node("Cast", ["count"], ["c"], to=TensorProto.FLOAT),
        builders.node("Cast", ["code"], ["d"], to=TensorProto.FLOAT),
        builders.node("Cast", ["half"], ["e"], to=TensorProto.FLOAT),
        builders.node("Sum", ["b", "c", "d", "e"], ["y"]),
        builders.node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
    ]
    inputs: dict[str, builders.Value] = {
        "x": ["N", 6],
        "keep": typed(TensorProto.BOOL, "N", 4),
        "count": typed(TensorProto.INT64, "N", 1),
        "code": typed(TensorProto.INT8, "N", 4),
        "half": typed(TensorProto.FLOAT16, "N", 1),
    }
    outputs: dict[str, builders.Value] = {"y": ["N", 4], "best": typed(TensorProto.INT64, "N")}
    return builders.model(nodes, inputs, outputs, {"w": builders.weights(6, 4), "zero": np.float32(0)})


def test_random_input_suits_every_type():
    feeds = random_inputs(pcmc.compile(mixed()), 200, 3)
    assert {name: (array.dtype.name, array.shape) for name, array in feeds.items()} == {
        "x": ("float32", (200, 6)),
        "keep": ("bool", (200, 4)),
        "count": ("int64", (200, 1)),
        "code": ("int8", (200, 4)),
        "half": ("float16", (200, 1)),
    }
    assert feeds["x"].std() == pytest.approx(1, abs=4 / math.sqrt(2 * 1200))
    assert 0.3 < feeds["keep"].mean() < 0.7
    assert set(np.unique(feeds["count"])) == {0, 1}
    assert feeds["code"].min() < -100
    assert feeds["code"].max() > 100
    again, other = (random_inputs(pcmc.compile(mixed()), 200, seed) for seed in (3, 4))
    assert all(np.array_equal(again[name], feeds[name]) for name in feeds)
    assert not np.array_equal(other["x"], feeds["x"])


def test_several_inputs_and_outputs_are_compared_each():
    found = pcmc.compare(mixed(), seeds=2, physics="full")
    assert [error.output for error in found.ideal] == ["y", "best"]
    assert found.ideal[0].relative < 1e-5
    assert [error.output for error in found.with_physics] == ["y", "best"]
    assert found.data == "random"
    assert found.samples == 16


def test_a_state_beside_the_batch_is_fed_whole():
    """The first axis of the state is not the batch: the data goes in one piece, whatever its size."""
    nodes = [
        builders.node("MatMul", ["x", "w"], ["a"], name="dense"),
        builders.node("ReduceSum", ["h"], ["s"], keepdims=0),
        builders.node("Add", ["a", "s"], ["y"]),
    ]
    model = builders.model(
        nodes, {"x": ["N", 8], "h": [2, "N", 4]}, {"y": ["N", 3]}, {"w": builders.weights(8, 3)}
    )
    one = pcmc.compile(model)
    feeds = random_inputs(one, 5, 0)
    assert (feeds["x"].shape, feeds["h"].shape) == ((5, 8), (2, 5, 4))
    found = pcmc.compare(
        one, data={"x": np.ones((100, 8), np.float32), "h": np.ones((2, 100, 4), np.float32)}, seeds=1
    )
    assert found.samples == 100
    assert found.ideal[0].relative < 1e-5


def test_data_that_onnxruntime_can_not_run_on_is_a_clear_error():
    nodes = [
        builders.node("MatMul", ["x", "w"], ["a"], name="dense"),
        builders.node("Reshape", ["a", "fives"], ["y"]),
    ]
    constants = {"w": builders.weights(6, 4), "fives": np.array([5, -1])}
    model = builders.model(nodes, {"x": ["N", 6]}, {"y": [5, None]}, constants)
    assert pcmc.compare(model, data=np.ones((5, 6), np.float32), seeds=1).ideal[0].relative < 1e-5
    with pytest.raises(DataError, match="step 'onnxruntime': onnxruntime can't compute it"):
        pcmc.compare(model, data=np.ones((4, 6), np.float32), seeds=1)


def test_frozen_inputs_are_fed_to_onnxruntime_alone():
    nodes = [
        builders.node("MatMul", ["x", "w"], ["a"], name="dense"),
        builders.node("Mul", ["a", "factor"], ["y"]),
    ]
    model = builders.model(
        nodes, {"x": ["N", 6], "factor": []}, {"y": ["N", 3]}, {"w": builders.weights(6, 3)}
    )
    found = pcmc.compare(model, freeze={"factor": 3.0}, seeds=1)
    assert found.ideal[0].relative < 1e-5
    assert found.ideal[0].scale > 0


def test_narrow_outputs_say_their_step():
    half = TensorProto.FLOAT16
    model = builders.model(
        [builders.node("MatMul", ["x", "w"], ["y"], name="dense")],
        {"x": (["N", 6], half)},
        {"y": (["N", 3], half)},
        {"w": builders.weights(6, 3, dtype=np.float16)},
    )
    (error,) = pcmc.compare(model, seeds=1).ideal
    assert error.step == np.spacing(np.float16(error.scale))
    assert error.largest <= error.step
    assert pcmc.compare(program(), seeds=1).ideal[0].step is None


def test_a_model_that_onnxruntime_refuses_is_a_clear_error():
    broken = onnx.ModelProto()
    broken.CopyFrom(program().model)
    broken.graph.node[-1].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"digits-mlp\.onnx: onnxruntime does not take the model"):
        pcmc.compare(dataclasses.replace(program(), model=broken), seeds=1)


# The result.


def test_one_seed_one_result_for_any_number_of_threads():
    x, y = images()
    results = [
        pcmc.compare(program(), data=(x, y), seeds=2, threads=threads).with_physics for threads in (1, 2)
    ]
    assert results[0] == results[1]


def test_the_result_is_plain_data():
    found = pcmc.compare(program(), data=images(), seeds=2)
    again = json.loads(json.dumps(found.as_dict()))
    assert again["model"] == "digits-mlp.onnx"
    assert again["chip"] == "nature2018"
    assert again["samples"] == 40
    assert again["seeds"] == [0, 1]
    assert again["physics"] == ["dac", "adc", "programming_error", "read_noise", "drift"]
    assert again["metrics"]["accuracy"]["physics"]["mean"] == pytest.approx(
        np.mean(again["metrics"]["accuracy"]["physics"]["values"])
    )


def test_effects_of_the_output_converters_are_ablated_with_them():
    """Without converters there is neither their noise nor their mismatch; alone each has the converters."""
    spec = pcmc.load_chip("nature2018")
    spec = dataclasses.replace(spec, adc=dataclasses.replace(spec.adc, noise_lsb=4.0, gain_error=0.1))
    physics = "adc,readout_noise,mismatch,programming_error"
    found = pcmc.compare("digits-mlp", spec, data=images(), seeds=2, physics=physics, ablate=True)
    by_name = {one.effect: one for one in found.ablation}
    assert by_name.keys() == {"adc", "readout_noise", "mismatch", "programming_error"}
    only = pcmc.compare("digits-mlp", spec, data=images(), seeds=2, physics="programming_error", metric="mse")
    without = pcmc.compare(
        "digits-mlp", spec, data=images(), seeds=2, physics=physics, metric="mse", ablate=True
    )
    adc = next(one for one in without.ablation if one.effect == "adc")
    assert adc.without["mse"].values == only.metrics["mse"]["physics"]["values"]
    for name in ("readout_noise", "mismatch"):
        assert by_name[name].alone["output_error"].mean > by_name["adc"].alone["output_error"].mean


# Programs with other weights.


def test_a_trained_program_is_compared_with_its_own_weights():
    """The reference is the model with the weights that the program holds, not as it was compiled."""
    from exporting import retrained

    trained = retrained(program(), noise=0.5)
    x, y = images()
    found = pcmc.compare(trained, data=(x, y), physics="ideal")
    assert found.ideal[0].relative < 1e-5
    untrained = reference(x)
    assert np.abs(reference_session(trained).run(None, {"x": x})[0] - untrained).max() > 0.1
