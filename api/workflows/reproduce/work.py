"""One run: a network is made, compiled, trained and measured. This is what worker processes do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcmc.workflows.reproduce.arms import ARMS, Arm
from pcmc.workflows.reproduce.data import Arrays, mapped
from pcmc.workflows.reproduce.plan import HELD_OUT, Run

if TYPE_CHECKING:
    from pcmc.runtime.program import Program


def execute(run: Run, folder: Path) -> dict[str, Any]:
    """Train and measure.

    Args:
        run: what.
        folder: where `data.store` kept the arrays.

    Returns:
        plain data: `test` and `train` with accuracies, `devices`, `curve` (loss and accuracy met in each
        epoch), `clipped_low` (None: no low tiers), `seconds`, and `stopped`, why it ended early, or "".

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    from pcmc.runtime.trainer.trainer import Trainer
    from pcmc.workflows.reproduce import measure

    arm, began = ARMS[run.arm], time.monotonic()
    data = examples(run, arm, mapped(run.experiment, folder))
    trainer = Trainer(
        network(run, arm),
        run.settings.step_rate,
        seed=run.seed,
        physics=arm.physics,
        decay=run.settings.decay,
        batch=run.settings.batch,
        momentum=run.settings.momentum,
        weight_range=run.settings.weight_range,
        threads=1,
    )
    clipped: list[float] = []

    def note(_: object) -> None:
        share = measure.clipped_share(trainer)
        if share is not None:
            clipped.append(share)

    history = trainer.fit(data.x_train, data.y_train, run.epochs, patience=0, on_epoch=note)
    if history.stopped.startswith("interrupted"):
        raise KeyboardInterrupt
    facts: dict[str, Any] = {
        "test": {"on_chip": trainer.evaluate(data.x_test, data.y_test).accuracy},
        "curve": [{"loss": epoch.loss, "accuracy": epoch.accuracy} for epoch in history.epochs],
        "stopped": history.stopped,
    }
    if run.role == "final":
        facts["test"] = measure.accuracies(trainer, data.x_test, data.y_test)
        facts["train"] = {"on_chip": trainer.evaluate(data.x_train, data.y_train).accuracy}
        facts["devices"] = measure.device_facts(trainer)
        facts["clipped_low"] = float(np.mean(clipped)) if clipped else None
    return facts | {"seconds": time.monotonic() - began}


def examples(run: Run, arm: Arm, data: Arrays) -> Arrays:
    """What a run is trained on, and what it is measured with: when settings are tuned, the last of every
    `HELD_OUT` parts of the training examples; the test set otherwise.
    """
    train = min(one for one in (run.train, arm.first and arm.first[0], len(data.y_train)) if one)
    test = min(one for one in (run.test, arm.first and arm.first[1], len(data.y_test)) if one)
    if run.role == "final":
        return Arrays(data.x_train[:train], data.y_train[:train], data.x_test[:test], data.y_test[:test])
    kept = train - train // HELD_OUT
    return Arrays(
        data.x_train[:kept], data.y_train[:kept], data.x_train[kept:train], data.y_train[kept:train]
    )


def network(run: Run, arm: Arm) -> Program:
    """The untrained network on the chip of an arm; equal seeds give equal weights, times `settings.start`."""
    from onnx import numpy_helper

    from pcmc.models.networks import perceptron
    from pcmc.workflows.compile import compile

    model = perceptron(run.sizes, "tanh", run.seed)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight") and run.settings.start != 1.0:
            scaled = numpy_helper.to_array(tensor) * np.float32(run.settings.start)
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
    return compile(model, arm.chip)
