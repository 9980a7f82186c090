from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from builders import conv, model, node, weights

import pcmc
from pcmc.errors import ChipError, DataError, ModelError
from pcmc.runtime.trainer.trainer import Trainer

from .nets import convolutional, dense_program, matrix_of, spread_classes


def _softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def _float_sgd(program, x, y, order, lr):
    """Batch-1 SGD of a tanh network with softmax cross-entropy in float64, written from the formulas."""
    layers = [
        [m.astype(np.float64), b.astype(np.float64)] for m, b in (p.matrix() for p in program.banks.values())
    ]
    for index in order:
        signals = [x[index].astype(np.float64)]
        for number, (w, b) in enumerate(layers):
            z = signals[-1] @ w + b
            signals.append(z if number == len(layers) - 1 else np.tanh(z))
        delta = _softmax(signals[-1])
        delta[y[index]] -= 1
        for number in range(len(layers) - 1, -1, -1):
            w, b = layers[number]
            back = (w @ delta) * (1 - signals[number] ** 2) if number else None
            w -= lr * np.outer(signals[number], delta)
            b -= lr * delta
            delta = back
    return layers


@pytest.mark.parametrize("fast", [True, False])
def test_ideal_training_is_float_sgd_to_rounding(fast):
    program = dense_program()
    x, y = spread_classes(300, 12, 4)
    trainer = Trainer(program, lr=0.05, physics="ideal", seed=3, fast=fast)
    order = trainer._order(300)
    trainer.fit(x, y, epochs=1)
    expected = _float_sgd(program, x, y, order, 0.05)
    for name, (w, b) in zip(program.banks, expected, strict=True):
        found, bias = matrix_of(trainer.program, name)
        np.testing.assert_allclose(found, w, atol=2e-5)
        np.testing.assert_allclose(bias, b, atol=2e-5)


@pytest.mark.parametrize("physics", ["ideal", "full", "pulses,leak", "adc,dac,read_noise=fast"])
@pytest.mark.parametrize("activation", ["Tanh", "Relu", "Sigmoid"])
def test_fast_and_general_path_give_the_same_bits(physics, activation):
    program = dense_program(activation=activation)
    x, y = spread_classes(200, 12, 4)
    trainers = [Trainer(program, lr=0.05, physics=physics, seed=1, fast=fast) for fast in (True, False)]
    histories = [trainer.fit(x, y, epochs=2) for trainer in trainers]
    assert [trainer.is_fast for trainer in trainers] == [True, False]
    for name in program.banks:
        np.testing.assert_array_equal(*(t.program.banks[name].cells for t in trainers))
    assert histories[0].last.loss == pytest.approx(histories[1].last.loss, rel=1e-6)
    assert histories[0].last.accuracy == histories[1].last.accuracy


@pytest.mark.parametrize("physics", ["ideal", "full"])
def test_training_learns(physics):
    program = dense_program()
    x, y = spread_classes(1000, 12, 4)
    trainer = Trainer(program, lr=0.05, physics=physics, seed=0)
    before = trainer.evaluate(x, y).accuracy
    history = trainer.fit(x, y, epochs=3)
    assert before < 0.6
    assert trainer.evaluate(x, y).accuracy > 0.95
    assert history.stopped == ""
    assert [epoch.loss for epoch in history.epochs] == sorted((e.loss for e in history.epochs), reverse=True)


def test_a_convolutional_network_learns_on_the_chip():
    program = pcmc.compile(convolutional())
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = rng.standard_normal((600, 1, 8, 8)).astype(np.float32) * 0.3
    for index, label in enumerate(y):
        x[index, 0, 2 * label : 2 * label + 3] += 1.0
    trainer = Trainer(program, lr=0.02, physics="full", seed=0)
    trainer.fit(x, y, epochs=3)
    assert trainer.evaluate(x, y).accuracy > 0.95


def test_one_seed_gives_one_result_and_another_another():
    program, (x, y) = dense_program(), spread_classes(100, 12, 4)
    cells = []
    for seed in (5, 5, 6):
        trainer = Trainer(program, lr=0.05, seed=seed)
        trainer.fit(x, y)
        cells.append(trainer.program.banks["dense0"].cells)
    np.testing.assert_array_equal(cells[0], cells[1])
    assert (cells[0] != cells[2]).any()


def test_batches_average_gradients():
    program, (x, y) = dense_program(), spread_classes(64, 12, 4)
    whole = Trainer(program, lr=0.1, physics="ideal", batch=64)
    whole.fit(x, y)
    doubled = Trainer(program, lr=0.1, physics="ideal", batch=128)
    doubled.fit(np.concatenate([x, x]), np.concatenate([y, y]))
    for name in program.banks:
        np.testing.assert_allclose(
            whole.program.banks[name].cells, doubled.program.banks[name].cells, atol=1e-5
        )


def test_momentum_is_that_of_sutskever_s_formula_and_only_for_exact_cells():
    program, (x, y) = dense_program(), spread_classes(8, 12, 4)
    plain = Trainer(program, lr=0.1, physics="ideal", batch=8)
    plain.fit(x, y)
    first = plain.program.banks["dense1"].cells - program.banks["dense1"].cells
    moved = Trainer(program, lr=0.1, physics="ideal", batch=8, momentum=0.9)
    moved.fit(x, y)
    np.testing.assert_allclose(
        moved.program.banks["dense1"].cells - program.banks["dense1"].cells, first, atol=1e-6
    )
    moved.fit(x, y, epochs=2)
    plain.fit(x, y, epochs=2)
    second = plain.program.banks["dense1"].cells - program.banks["dense1"].cells - first
    np.testing.assert_allclose(
        moved.program.banks["dense1"].cells - program.banks["dense1"].cells - first,
        second + 0.9 * first,
        atol=1e-5,
    )
    with pytest.raises(DataError, match=r"momentum = 0\.9: must be 0 where pulses"):
        Trainer(program, momentum=0.9, physics="full")


def test_only_named_layers_are_trained():
    program, (x, y) = dense_program(), spread_classes(100, 12, 4)
    trainer = Trainer(program, lr=0.05, physics="ideal", layers=["dense1"])
    trainer.fit(x, y)
    np.testing.assert_array_equal(trainer.program.banks["dense0"].cells, program.banks["dense0"].cells)
    assert (trainer.program.banks["dense1"].cells != program.banks["dense1"].cells).any()


def test_frozen_layers_behind_trained_ones_pass_the_gradient_and_stay():
    program, (x, y) = dense_program((12, 9, 7, 4)), spread_classes(400, 12, 4)
    trainer = Trainer(program, lr=0.05, physics="ideal", layers=["dense0"])
    before = trainer.evaluate(x, y).loss
    trainer.fit(x, y, epochs=2)
    assert trainer.evaluate(x, y).loss < 0.9 * before
    for name in ("dense1", "dense2"):
        np.testing.assert_array_equal(trainer.program.banks[name].cells, program.banks[name].cells)


def test_evaluation_leaves_training_alone():
    program, (x, y) = dense_program(), spread_classes(100, 12, 4)
    results = []
    for looks in (0, 3):
        trainer = Trainer(program, lr=0.05, seed=2)
        for _ in range(looks):
            trainer.evaluate(x, y)
        trainer.fit(x, y)
        results.append(trainer.program.banks["dense0"].cells)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("batch", [1, 7])
def test_a_resumed_training_equals_the_uninterrupted_one(tmp_path, batch):
    program, (x, y) = dense_program(), spread_classes(150, 12, 4)
    settings: dict[str, Any] = {"lr": 0.05, "seed": 4, "batch": batch, "decay": 0.9}
    through = Trainer(program, **settings)
    history = through.fit(x, y, epochs=3)
    first = Trainer(program, **settings)
    first.fit(x, y, epochs=1)
    first.save(tmp_path / "state")
    second = Trainer(program, **settings)
    second.resume(tmp_path / "state")
    resumed = second.fit(x, y, epochs=3)
    for name in program.banks:
        np.testing.assert_array_equal(through.program.banks[name].cells, second.program.banks[name].cells)
    assert [e.loss for e in resumed.epochs] == [e.loss for e in history.epochs]
    assert second.counters() == through.counters()


def test_training_stops_where_the_loss_is_not_finite():
    program, (x, y) = dense_program(activation="Relu"), spread_classes(200, 12, 4)
    history = Trainer(program, lr=1e5, physics="ideal").fit(x, y, epochs=5)
    assert "the loss is not finite in epoch" in history.stopped
    assert "lower learning rate" in history.stopped


def test_training_stops_without_progress():
    program, (x, y) = dense_program(), spread_classes(50, 12, 4)
    history = Trainer(program, lr=1e-30, physics="ideal").fit(x, y, epochs=50, patience=2)
    assert "no progress" in history.stopped
    assert len(history.epochs) < 50


def test_the_log_has_a_line_for_each_epoch(tmp_path):
    program, (x, y) = dense_program(), spread_classes(50, 12, 4)
    log = tmp_path / "log.jsonl"
    Trainer(program, lr=0.05).fit(x, y, epochs=2, validation=(x, y), log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert 0 <= lines[1]["validation"]["accuracy"] <= 1
    assert lines[1]["counters"]["pulses_up"] > 0


def test_a_final_softmax_belongs_to_the_loss():
    program = pcmc.compile(
        model(
            [
                node("Gemm", ["x", "w", "b"], ["z"], name="dense"),
                node("Softmax", ["z"], ["y"], name="softmax"),
            ],
            {"x": ["N", 12]},
            {"y": ["N", 4]},
            {"w": weights(12, 4), "b": weights(4)},
        )
    )
    x, y = spread_classes(300, 12, 4)
    trainer = Trainer(program, lr=0.05, physics="ideal")
    assert (trainer.plan.logits, trainer.loss, trainer.is_fast) == ("z", "cross_entropy", True)
    trainer.fit(x, y)
    assert trainer.evaluate(x, y).accuracy > 0.9


def test_regression_is_trained_with_mse():
    program = dense_program((6, 5, 2))
    x = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    y = np.stack([x[:, 0] - x[:, 1], 0.5 * x[:, 2]], axis=1)
    trainer = Trainer(program, lr=0.02, physics="ideal", loss="mse")
    before = trainer.evaluate(x, y).loss
    trainer.fit(x, y, epochs=5)
    assert trainer.evaluate(x, y).loss < 0.3 * before
    assert trainer.evaluate(x, y).accuracy is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, r"lr = 0: must be more than 0"),
        ({"lr": float("inf")}, r"lr = inf: must be more than 0, at most 1e\+06, and finite"),
        ({"lr": float("nan")}, r"lr = nan"),
        ({"decay": 1.5}, r"decay = 1.5"),
        ({"batch": 0}, r"batch = 0"),
        ({"momentum": 1.0, "physics": "ideal"}, r"momentum = 1"),
        ({"loss": "hinge"}, r"loss 'hinge': should be one of cross_entropy"),
        ({"layers": ["dens1"]}, r"no layer 'dens1' with a matrix on the chip; did you mean 'dense1'"),
        ({"layers": []}, r"none is named"),
        ({"weight_range": 0.0}, r"weight_range = 0"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(DataError, match=message):
        Trainer(dense_program(), **settings)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            np.zeros((3, 12), np.float32),
            np.array([0, 1, 4]),
            r"label 4 of example 2 is out of range: .* 4 classes",
        ),
        (np.zeros((3, 12), np.float32), np.array([0, -1, 1]), r"label -1 of example 1"),
        (np.zeros((3, 11), np.float32), np.zeros(3, int), r"'x' has shape \[3, 11\]"),
        (np.zeros((0, 12), np.float32), np.zeros(0, int), r"'x' is empty"),
        (np.full((3, 12), np.nan, np.float32), np.zeros(3, int), r"'x' has values that are not finite"),
        (
            np.zeros((3, 12), np.float32),
            np.zeros(4, int),
            r"there are 3 examples, but targets of shape \[4\]",
        ),
        (np.zeros((3, 12), np.float32), np.zeros((3, 2), np.float32), r"targets"),
        (np.zeros((3, 12)), np.zeros(3, int), r"'x' is float64, the model takes float32"),
        ({"z": np.zeros((3, 12), np.float32)}, np.zeros(3, int), r"there is no input 'z'"),
    ],
)
def test_wrong_data_are_named(x, y, message):
    with pytest.raises(DataError, match=message):
        Trainer(dense_program(), lr=0.1).fit(x, y)


def test_an_operator_without_a_gradient_on_the_path_is_named():
    program = pcmc.compile(
        model(
            [
                node("Gemm", ["x", "w"], ["z"], name="dense"),
                node("ArgMax", ["z"], ["a"], name="winner", axis=1),
                node("Cast", ["a"], ["y"], name="cast", to=1),
            ],
            {"x": ["N", 12]},
            {"y": ["N", 1]},
            {"w": weights(12, 4)},
        )
    )
    with pytest.raises(ModelError, match=r"winner \(ArgMax\): no gradient passes this operator"):
        Trainer(program)


def test_the_shape_of_a_trained_tensor_may_be_taken():
    program = pcmc.compile(
        model(
            [
                node("Gemm", ["x", "w"], ["h"], name="dense"),
                node("Shape", ["h"], ["s"], name="shape"),
                node("Reshape", ["h", "s"], ["g"], name="reshape"),
                node("Tanh", ["g"], ["t"], name="tanh"),
                node("Gemm", ["t", "v"], ["y"], name="last"),
            ],
            {"x": ["N", 12]},
            {"y": ["N", 4]},
            {"w": weights(12, 9), "v": weights(9, 4, seed=1)},
        )
    )
    x, y = spread_classes(300, 12, 4)
    trainer = Trainer(program, lr=0.05, physics="ideal")
    before = trainer.evaluate(x, y).loss
    trainer.fit(x, y)
    assert trainer.evaluate(x, y).loss < 0.7 * before
    assert (trainer.program.banks["dense"].cells != program.banks["dense"].cells).any()


def test_chips_without_pulses_say_why_they_are_not_trained():
    with pytest.raises(ChipError, match="binary synapses"):
        Trainer(dense_program(chip="truenorth"))


def test_a_fixed_batch_of_one_works_with_operations_before_the_first_matrix():
    program = pcmc.compile(
        model(
            [node("Neg", ["x"], ["z"], name="neg"), node("Gemm", ["z", "w"], ["y"], name="dense")],
            {"x": [1, 12]},
            {"y": [1, 4]},
            {"w": weights(12, 4)},
        )
    )
    x, y = spread_classes(200, 12, 4)
    trainer = Trainer(program, lr=0.05, physics="ideal")
    before = trainer.evaluate(x, y).loss
    trainer.fit(x, y)
    assert trainer.evaluate(x, y).loss < 0.7 * before


def test_a_model_with_a_fixed_batch_of_one_is_trained_one_by_one():
    net = conv((3, 1, 3, 3), (8, 8), batch=1)
    program = pcmc.compile(net)
    x = np.random.default_rng(0).standard_normal((20, 1, 8, 8)).astype(np.float32)
    shape = pcmc.Session(program).run(None, {"x": x[:1]})[0].shape
    y = np.zeros((20, *shape[1:]), np.float32)
    trainer = Trainer(program, lr=0.01, physics="ideal", loss="mse")
    before = trainer.evaluate(x, y).loss
    trainer.fit(x, y)
    assert trainer.evaluate(x, y).loss < before
    with pytest.raises(DataError, match="batch = 2: must be 1"):
        Trainer(program, batch=2, physics="ideal")
