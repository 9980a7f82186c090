"""`pcmc train`: a model and data in, a trained model out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pcmc.commands.options import AsJson, Chip, Digital, Freeze, Model, Output, Seed, Shapes, Threads
from pcmc.errors import DataError

if TYPE_CHECKING:
    from pcmc.runtime.trainer.trainer import Trainer
    from pcmc.workflows.training_data import TrainingData

#: Exit code after Ctrl-C, as of a command that SIGINT ended (128 + 2): the state and the model are written.
INTERRUPTED = 130

Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="NAME|FILE.npz", help="mnist, cifar10, ..., or an .npz file with x and y."
    ),
]
Epochs = Annotated[int, typer.Option("--epochs", metavar="N", min=1)]
Lr = Annotated[float, typer.Option("--lr", metavar="RATE", help="Learning rate.")]
Decay = Annotated[float, typer.Option("--decay", metavar="X", help="Factor of the rate after each epoch.")]
Batch = Annotated[int, typer.Option("--batch", metavar="N", min=1, help="1 is the chip's way.")]
Momentum = Annotated[float, typer.Option("--momentum", metavar="X", help="Of ideal cells.")]
Loss = Annotated[
    str | None,
    typer.Option("--loss", metavar="NAME", help="cross_entropy, mse, bce, ... [what the model implies]."),
]
TrainLayers = Annotated[
    list[str] | None,
    typer.Option("--train-layers", metavar="LAYER,LAYER", help="Which matrices are trained [all]."),
]
Head = Annotated[
    int | None, typer.Option("--head", metavar="N", help="Train a new classifier of N classes alone.")
]
HeadAfter = Annotated[
    str | None,
    typer.Option("--head-after", metavar="TENSOR", help="Where it is put [in place of the old one]."),
]
Physics = Annotated[
    str, typer.Option("--physics", metavar="ideal|full|NAME,NAME", help="Effects that are on.")
]
WeightRange = Annotated[
    float | None,
    typer.Option("--weight-range", metavar="X", help="Weight that a cell's full range stands for."),
]
Patience = Annotated[
    int, typer.Option("--patience", metavar="N", min=0, help="Epochs without progress; 0: go on.")
]
Log = Annotated[
    Path | None, typer.Option("--log", metavar="FILE.jsonl", help="A line of JSON for each epoch.")
]
Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", metavar="FILE", help="Keep the state there.")
]
Mode = Annotated[
    str,
    typer.Option(
        "--mode", metavar="on-chip|noise-aware", help="In place, or in software with the chip's noise."
    ),
]
WeightNoise = Annotated[
    float | None,
    typer.Option("--weight-noise", metavar="X", help="Of noise-aware training [what the chip's cells have]."),
]
CheckpointEvery = Annotated[
    float,
    typer.Option(
        "--checkpoint-every", metavar="S", min=0.0, help="Seconds between two states within an epoch."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from --checkpoint, if it is there.")]


def train(
    model: Model,
    data: Data = None,
    epochs: Epochs = 20,
    output: Output = None,
    lr: Lr = 0.01,
    decay: Decay = 0.9,
    batch: Batch = 1,
    momentum: Momentum = 0.0,
    loss: Loss = None,
    train_layers: TrainLayers = None,
    head: Head = None,
    head_after: HeadAfter = None,
    physics: Physics = "full",
    weight_range: WeightRange = None,
    mode: Mode = "on-chip",
    weight_noise: WeightNoise = None,
    patience: Patience = 10,
    log: Log = None,
    checkpoint: Checkpoint = None,
    checkpoint_every: CheckpointEvery = 60.0,
    resume: Resume = False,
    chip: Chip = None,
    shape: Shapes = None,
    freeze: Freeze = None,
    digital: Digital = None,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Train a model on the simulated chip and write it back as .onnx."""
    from pcmc.commands import inputs, train_text
    from pcmc.runtime.export import export_onnx
    from pcmc.runtime.trainer.trainer import Trainer
    from pcmc.workflows.compile import model_path
    from pcmc.workflows.train import HEAD, check_target, model_with_head
    from pcmc.workflows.training_data import training_data

    if data is None:
        raise DataError("pcmc train needs --data: mnist, cifar10, digits, or an .npz file with x and y")
    if resume and checkpoint is None:
        raise DataError("--resume needs --checkpoint FILE, the file that an earlier run wrote")
    source = model_path(model)
    target = output or Path(f"{source.stem}-trained.onnx")
    for path in filter(None, (target, checkpoint, log)):
        check_target(path)
    with tempfile.TemporaryDirectory(prefix="pcmc-") as folder:
        headed = model_with_head(source, head, head_after, seed, folder)
        program = inputs.compiled(headed, chip, shape, freeze, digital)
    layers = inputs.layers(train_layers) if train_layers else None
    trainer = Trainer(
        program,
        lr,
        seed=seed,
        physics=physics,
        loss=loss,
        decay=decay,
        layers=layers if head is None else layers or [HEAD],
        batch=batch,
        momentum=momentum,
        weight_range=weight_range,
        threads=threads,
        mode=mode,
        weight_noise=weight_noise,
    )
    given = training_data(data, program)
    if resume and checkpoint is not None and checkpoint.exists():
        trainer.resume(checkpoint)
    keeping = {"log": log, "checkpoint": checkpoint, "checkpoint_every": checkpoint_every}
    facts = _trained(trainer, given, epochs, quiet=as_json, patience=patience, **keeping)
    export_onnx(trainer.program, target)
    facts |= {"output": str(target), "seed": seed}
    typer.echo(inputs.json_text(facts) if as_json else train_text.summary(facts))
    if facts["ended"] == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _trained(trainer: Trainer, given: TrainingData, epochs: int, quiet: bool, **how: Any) -> dict[str, Any]:
    """Train, saying how it goes if not `quiet`; what it came to, as plain data. `how`: for `run_training`."""
    from pcmc.commands import train_text
    from pcmc.workflows.train import run_training

    def say(line: str) -> None:
        if not quiet:
            typer.echo(line)

    test = None if given.x_test is None or given.y_test is None else (given.x_test, given.y_test)
    say(given.note)
    if trainer.examples:
        say(f"resumed after {trainer.examples:,} examples")
    with train_text.live() as show:
        result = run_training(
            trainer,
            (given.x_train, given.y_train),
            test,
            epochs,
            on_progress=show,
            on_epoch=lambda epoch: say(train_text.epoch_line(epoch)),
            **how,
        )
    return result.as_dict() | {
        "physics": list(trainer.physics.names()),
        "tested": test is not None,
        "note": given.note,
    }
