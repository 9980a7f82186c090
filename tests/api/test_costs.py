"""What an effect or a matrix costs is the difference of two runs of one seed, and the dearest comes first."""

import dataclasses
import json
import math
from functools import cache
from typing import Any

import builders
import numpy as np
import pytest

import pcmc
from pcmc.accel.chip import load_chip
from pcmc.accel.physics import Physics
from pcmc.errors import DataError
from pcmc.models import zoo
from pcmc.workflows import runs
from pcmc.workflows.costs import ablate
from pcmc.workflows.metrics import OUTPUT_ERROR, cost, interval, output_error
from pcmc.workflows.runs import Bench, Job, Judge

SEEDS = (3, 8)
EFFECTS = ("dac", "adc", "programming_error", "read_noise", "drift")


@cache
def program() -> pcmc.Program:
    return pcmc.compile("digits-mlp")


@cache
def images() -> tuple[Any, Any]:
    x, y = zoo.test_data("digits-mlp")
    return x[:40], y[:40]


@cache
def found() -> Any:
    """The shipped MLP by effect and by layer, two seeds, two metrics that count in opposite ways."""
    return pcmc.compare(
        program(), data=images(), seeds=SEEDS, metric="mse,accuracy", ablate=True, by_layer=True
    )


def scores(seed: int, physics: str | Physics, only: tuple[str, ...] | None = None) -> dict[str, float]:
    """mse and accuracy of one Session, by hand."""
    x, y = images()
    got = pcmc.Session(program(), physics, seed=seed, only=only).run(None, {"x": x})[0].astype(np.float64)
    wanted = runs.reference_session(program()).run(None, {"x": x})[0].astype(np.float64)
    return {
        "mse": float(np.mean((got - wanted) ** 2)),
        "accuracy": float(np.mean(got.argmax(1) == y)),
        OUTPUT_ERROR: float(np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2))),
    }


# Effects.


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_is_measured_off_and_alone(effect):
    (one,) = (one for one in found().ablation if one.effect == effect)
    others = ",".join(name for name in EFFECTS if name != effect)
    for index, seed in enumerate(SEEDS):
        without, alone, full, ideal = (scores(seed, physics) for physics in (others, effect, "full", "ideal"))
        for name, sign in (("mse", 1), ("accuracy", -1), (OUTPUT_ERROR, 1)):
            assert one.without[name].values[index] == pytest.approx(without[name])
            assert one.alone[name].values[index] == pytest.approx(alone[name])
            lost = sign * (full[name] - without[name])
            assert one.cost[name].values[index] == pytest.approx(lost, abs=1e-9)
            lost = sign * (alone[name] - ideal[name])
            assert one.cost_alone[name].values[index] == pytest.approx(lost, abs=1e-9)


def test_the_interval_is_that_of_the_paired_differences():
    one = found().ablation[0]
    full = found().metrics["mse"]["physics"]["values"]
    differences = [a - b for a, b in zip(full, one.without["mse"].values, strict=True)]
    assert one.cost["mse"] == interval(differences)


def test_effects_are_sorted_by_what_they_cost_in_the_first_metric():
    costs = [one.cost["mse"].mean for one in found().ablation]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 2 * costs[-1]
    by_accuracy = pcmc.compare(program(), data=images(), seeds=2, metric="accuracy,mse", ablate=True)
    costs = [one.cost["accuracy"].mean for one in by_accuracy.ablation]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("metric", ["accuracy", "agreement", "mae", "mse"])
def test_an_effect_that_spoils_everything_comes_first_and_its_cost_is_positive(metric):
    """Converters of two bits at the outputs, in every metric, whichever way it counts."""
    chip = load_chip("nature2018")
    chip = dataclasses.replace(chip, adc=dataclasses.replace(chip.adc, bits=2))
    first = pcmc.compare("digits-mlp", chip, data=images(), seeds=2, metric=metric, ablate=True).ablation[0]
    assert first.effect == "adc"
    assert first.cost[metric].mean > 0.05
    assert first.cost_alone[metric].mean > 0.05


def test_only_effects_that_are_on_are_listed():
    result = pcmc.compare(program(), data=images(), seeds=1, physics="adc,programming_error", ablate=True)
    assert {one.effect for one in result.ablation} == {"adc", "programming_error"}
    assert {one.effect for one in found().ablation} == set(EFFECTS)


@pytest.mark.parametrize("asked", ["ablate", "by_layer"])
def test_without_any_effect_there_is_nothing_to_measure(asked):
    with pytest.raises(
        DataError, match=f"compare: {asked} measures what effects cost, and the physics has none"
    ):
        pcmc.compare(program(), data=images(), physics="ideal", **{asked: True})


def test_nothing_is_measured_that_was_not_asked_for():
    plain = pcmc.compare(program(), data=images(), seeds=1)
    assert (plain.ablation, plain.layers) == ((), ())
    one = pcmc.compare(program(), data=images(), seeds=1, ablate=True)
    assert one.ablation
    assert not one.layers
    other = pcmc.compare(program(), data=images(), seeds=1, by_layer=True)
    assert other.layers
    assert not other.ablation


class FakeBench:
    """In place of sessions: outputs that say which effects were on."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, jobs: Any, label: str) -> Any:
        self.jobs += jobs
        for job in jobs:
            yield job, [np.array([float(len(job.physics.names()))])]


@pytest.mark.parametrize("kind", ["fast", "split"])
def test_the_kind_of_an_effect_stays_as_it_was_chosen(kind):
    bench, judge = FakeBench(), Judge({}, None, [np.ones(1)])
    physics = Physics(adc=True, dac=True, read_noise=kind)
    ablate(bench, judge, physics, (5,), {OUTPUT_ERROR: 0.0}, [{OUTPUT_ERROR: 0.0}])
    assert {job.physics.read_noise for job in bench.jobs} == {None, kind}
    assert {job.seed for job in bench.jobs} == {5}
    assert all(job.only is None for job in bench.jobs)
    assert len(bench.jobs) == len(set(bench.jobs)) == 6


@pytest.mark.parametrize(("physics", "sessions"), [(Physics(adc=True), 0), (Physics(adc=True, dac=True), 4)])
def test_no_run_is_made_twice(physics, sessions):
    """The only effect off is ideal mode and alone is all; of two effects, one off is the other alone."""
    bench, judge = FakeBench(), Judge({}, None, [np.ones(1)])
    known = {OUTPUT_ERROR: 0.5}
    found = ablate(bench, judge, physics, (1, 2), {OUTPUT_ERROR: 0.0}, [known] * 2)
    assert len(bench.jobs) == sessions
    if not sessions:
        assert found[0].cost[OUTPUT_ERROR].values == found[0].cost_alone[OUTPUT_ERROR].values == (0.5, 0.5)


# Matrices.


@pytest.mark.parametrize("layer", ["node_linear", "node_linear_1", "node_linear_2"])
def test_a_matrix_is_measured_with_all_others_ideal(layer):
    (one,) = (one for one in found().layers if one.layer == layer)
    for index, seed in enumerate(SEEDS):
        only, ideal = scores(seed, "full", (layer,)), scores(seed, "ideal")
        for name, sign in (("mse", 1), ("accuracy", -1), (OUTPUT_ERROR, 1)):
            assert one.alone[name].values[index] == pytest.approx(only[name])
            assert one.cost[name].values[index] == pytest.approx(sign * (only[name] - ideal[name]), abs=1e-9)
    bank = program().banks[layer]
    assert (one.rows, one.cols) == (bank.rows, bank.cols)
    assert layer in one.operations


def test_the_parts_are_those_of_the_squared_errors():
    layers = found().layers
    assert math.fsum(one.share for one in layers) == pytest.approx(1)
    squares = [np.sum(np.square(one.alone[OUTPUT_ERROR].values)) for one in layers]
    assert [one.share for one in layers] == pytest.approx(list(squares / np.sum(squares)))


def test_errors_of_single_matrices_add_up_to_that_of_the_chip():
    """Root of the sum of squares, as long as errors are small: here converters of 12 bits alone."""
    chip = load_chip("nature2018")
    bits = {"adc": dataclasses.replace(chip.adc, bits=12), "dac": dataclasses.replace(chip.dac, bits=12)}
    result = pcmc.compare(
        "digits-mlp", dataclasses.replace(chip, **bits), data=images(), seeds=1, physics="dac,adc",
        metric="mse", by_layer=True,
    )  # fmt: skip
    alone = [one.alone["mse"].mean for one in result.layers]
    assert math.fsum(alone) == pytest.approx(result.metrics["mse"]["physics"]["mean"], rel=0.25)


def outlier(layer: int) -> Any:
    """Three layers, one of which has a weight thirty times as large: its noise, a part of the largest weight,
    drowns all others.
    """
    proto = builders.mlp([24, 24, 24, 24], activation="Tanh")
    tensor = next(one for one in proto.graph.initializer if one.name == f"w{layer}")
    w = np.frombuffer(tensor.raw_data, np.float32).reshape(24, 24).copy()
    w[0, 0] = 30 * np.abs(w).max()
    tensor.raw_data = w.tobytes()
    return proto


@pytest.mark.parametrize("metric", ["agreement", "mse"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_matrix_with_the_most_noise_comes_first(layer, metric):
    first, *others = pcmc.compare(
        outlier(layer), seeds=3, physics="programming_error", metric=metric, samples=200, by_layer=True
    ).layers
    assert first.layer == f"dense{layer}"
    assert all(first.cost[metric].mean > one.cost[metric].mean for one in others)
    assert first.share > 0.5 > max(one.share for one in others)


def test_a_matrix_that_is_kept_digital_costs_nothing_and_is_not_listed():
    result = pcmc.compare(outlier(1), seeds=2, physics="programming_error", digital=["dense1"], by_layer=True)
    assert {one.layer for one in result.layers} == {"dense0", "dense2"}
    whole = pcmc.compare(outlier(1), seeds=2, physics="programming_error")
    assert result.with_physics[0].mean < 0.5 * whole.with_physics[0].mean


def test_without_a_number_the_output_error_decides():
    """One output has no classes, so there is no agreement; still sorted, and still JSON."""
    result = pcmc.compare(builders.mlp([6, 8, 1]), seeds=2, ablate=True, by_layer=True)
    for costs in (result.ablation, result.layers):
        assert math.isnan(costs[0].cost["agreement"].mean)
        errors = [one.cost[OUTPUT_ERROR].mean for one in costs]
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > errors[-1]


# The pieces.


def test_the_output_error_is_relative_and_the_mean_over_outputs():
    wanted = [np.array([3.0, -4.0]), np.array([[2.0], [2.0]])]
    got = [np.array([3.0, -3.0]), np.array([[2.0], [4.0]])]
    assert output_error(got, wanted) == pytest.approx((1 / 5 + 2 / math.sqrt(8)) / 2)
    assert output_error(wanted, wanted) == 0
    assert output_error([np.ones(4)], [np.zeros(4)]) == 1
    assert output_error([np.zeros(0)], [np.zeros(0)]) == 0


def test_a_loss_is_positive_whichever_way_the_metric_counts():
    assert cost("accuracy", [0.9, 0.8], [0.7, 0.7]).values == pytest.approx((0.2, 0.1))
    assert cost("anything", [0.9], [0.7]).mean == pytest.approx(0.2)
    for name in ("mae", "mse", OUTPUT_ERROR):
        assert cost(name, [0.1], [0.3]).mean == pytest.approx(0.2)


def test_one_bar_shows_all_runs(monkeypatch):
    shown = []

    def counted(items: Any, label: str) -> Any:
        shown.append((label, len(items)))
        return iter(items)

    monkeypatch.setattr(runs, "progress", counted)
    x, y = zoo.test_data("digits-mlp")
    pcmc.compare(program(), data=(x[:150], y[:150]), seeds=2, physics="dac,adc", ablate=True, by_layer=True)
    assert shown == [("onnxruntime", 3), ("ideal", 3), ("physics", 6), ("ablation", 12), ("layers", 18)]


def test_a_bench_joins_batches_and_starts_each_job_anew():
    x, _ = images()
    bench = Bench(program(), [{"x": x[:25]}, {"x": x[25:]}])
    jobs = [Job(Physics(programming_error=True), seed) for seed in SEEDS]
    results = list(bench.run(jobs, "physics"))
    assert [job for job, _ in results] == jobs
    for job, (output,) in results:
        whole = pcmc.Session(program(), job.physics, seed=job.seed).run(None, {"x": x})[0]
        assert np.array_equal(output, whole)


def test_time_and_compensation_reach_every_session():
    x, y = images()
    physics = Physics(programming_error=True, drift=True)
    result = pcmc.compare(
        program(), data=(x, y), seeds=[4], physics=physics, metric="mse", at="1d", compensation="global",
        ablate=True, by_layer=True,
    )  # fmt: skip
    wanted = runs.reference_session(program()).run(None, {"x": x})[0].astype(np.float64)

    def mse(physics: Physics, **options: Any) -> float:
        session = pcmc.Session(program(), physics, seed=4, at="1d", compensation="global", **options)
        return float(np.mean((session.run(None, {"x": x})[0].astype(np.float64) - wanted) ** 2))

    assert (result.at, result.compensation) == ("1d", "global")
    assert result.metrics["mse"]["physics"]["mean"] == pytest.approx(mse(physics))
    without = {one.effect: one.without["mse"].mean for one in result.ablation}
    assert without["programming_error"] == pytest.approx(mse(Physics(drift=True)))
    assert without["programming_error"] != pytest.approx(scores(4, Physics(drift=True))["mse"], rel=0.01)
    for one in result.layers:
        assert one.alone["mse"].mean == pytest.approx(mse(physics, only=(one.layer,)))


def test_the_result_is_plain_data():
    again = json.loads(json.dumps(found().as_dict()))
    assert {one["effect"] for one in again["ablation"]} == set(EFFECTS)
    assert again["ablation"][0]["cost"]["mse"]["values"] == list(found().ablation[0].cost["mse"].values)
    assert {one["layer"] for one in again["layers"]} == set(program().banks)
