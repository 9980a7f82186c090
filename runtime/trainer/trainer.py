"""`Trainer`: trains a Program on the simulated chip, in place.

    trainer = pcmc.Trainer(program, lr=0.01, seed=0, physics="full")
    trainer.fit(x_train, y_train, epochs=20, validation=(x_test, y_test))
    pcmc.export_onnx(trainer.program, "trained.onnx")

Forward and backward reads and updates take place in the tiles, everything between in the digital unit. One
seed gives one result. Networks that are a chain of matrices and element-wise operations are trained without
Python inside; others operation by operation, with the same numbers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.physics import Physics, resolve
from pcmc.accel.random import generator
from pcmc.accel.training.arrays import TrainedBank
from pcmc.errors import DataError
from pcmc.runtime.ops.losses import LOSSES
from pcmc.runtime.ops.node import Context
from pcmc.runtime.program import Program
from pcmc.runtime.trainer.banks import load_banks, packed_gradient, trained_program
from pcmc.runtime.trainer.clock import Clock
from pcmc.runtime.trainer.fast import FastPath, find_chain
from pcmc.runtime.trainer.front import Front
from pcmc.runtime.trainer.interrupt import interrupts_noted
from pcmc.runtime.trainer.noise_aware import NoiseAwareBank
from pcmc.runtime.trainer.plan import plan_training
from pcmc.runtime.trainer.progress import Ended, Epoch, Evaluation, History, Progress, append_line
from pcmc.runtime.trainer.settings import check_mode, check_numbers, loss_name, no_progress
from pcmc.runtime.trainer.tape import OuterProduct, backward, forward
from pcmc.runtime.trainer.targets import Targets, check_targets
from pcmc.runtime.trainer.watch import Watch, check_same_data, data_hash

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Data = Array | Mapping[str, Array]

_EVALUATED = 256  # examples that are evaluated at once
_PART = 2000  # examples between two looks at the clock, the keyboard and the losses, at most
_GENERAL_PART = 50  # on the general path, where one takes milliseconds


@dataclass(slots=True)
class _Running:
    """The epoch that is under way: where it is, and its sums so far."""

    epoch: int = 0
    position: int = 0
    loss: float = 0.0
    right: int = 0
    seconds: float = 0.0
    finished: list[Epoch] = field(default_factory=list)


class Trainer:
    """A program in training on a chip.

    Args:
        program: a Program, or the path of a `.pcmc` file.
        lr: learning rate; `decay` multiplies it after each epoch.
        seed: names all random streams, of devices, pulses, noise and the order of examples.
        physics: "ideal" (float SGD), "full" (what the chip file states on, and the physics of updates), names
            of effects with commas between, or a Physics.
        loss: "cross_entropy", "mse", "bce", ...; None: what the end of the network implies.
        decay: factor of the learning rate from epoch to epoch.
        layers: names of the layers that are trained; None: all matrices.
        batch: examples whose gradients are of the same weights; 1 is the chip's way.
        momentum: of cells that hold weights exactly; 0: none.
        weight_range: the weight that the full range of a cell stands for; None: for each matrix what its
            weights and its size ask for.
        threads: of the operations before the trained path; 0: all processors.
        mode: "on-chip"; or "noise-aware", in software for chips that only run: float updates, with what the
            chip would make of the weights in the forward pass.
        weight_noise: in noise-aware training, Gaussian noise of this deviation over the largest weight in
            place of the chip's own errors and noise.
        fast: False: never the fast path, for comparison.

    Raises:
        DataError: a rate, decay, batch or momentum out of range, an unknown layer or loss.
        ModelError: an operation on the trained path that has no backward rule, or nothing to train.
        ChipError: cells that can't be trained, or an unknown effect.
    """

    def __init__(
        self,
        program: Program | str | os.PathLike[str],
        lr: float = 0.01,
        *,
        seed: int = 0,
        physics: str | Physics = "full",
        loss: str | None = None,
        decay: float = 1.0,
        layers: Sequence[str] | None = None,
        batch: int = 1,
        momentum: float = 0.0,
        weight_range: float | None = None,
        threads: int = 0,
        mode: str = "on-chip",
        weight_noise: float | None = None,
        fast: bool = True,
    ) -> None:
        if not isinstance(program, Program):
            from pcmc.runtime.program_file import load

            program = load(program)
        check_numbers(lr=lr, decay=decay, batch=batch, momentum=momentum, weight_range=weight_range)
        check_mode(mode, weight_noise)
        self.mode, self._weight_noise, self._weight_range = mode, weight_noise, weight_range
        self.physics = resolve(physics, program.chip, training=mode == "on-chip")
        self.seed, self.lr, self.decay, self.batch, self.momentum = seed, lr, decay, batch, momentum
        self.plan = plan_training(program, layers)
        self.loss = loss_name(loss, self.plan.implied)
        self._noise_aware: list[NoiseAwareBank] = []
        self.banks: dict[str, TrainedBank]
        if self.mode == "on-chip":
            self.banks, self.biases, self._drives = load_banks(
                program, self.plan, self.physics, seed, weight_range
            )
        else:
            self._load_noise_aware(program, weight_noise)
        if momentum and not all(self.banks[name].bank.law is None for name in self.plan.trained):
            raise DataError(
                f"momentum = {momentum:g}: must be 0 where pulses update devices, which keep no velocity; it "
                'is for physics="ideal"'
            )
        self._program = program
        self._front = Front(
            program, self.plan, self.physics.in_inference, seed, threads or os.cpu_count() or 1
        )
        if self._front.fixed and batch != 1:
            raise DataError(f"batch = {batch}: must be 1, the model takes one example at a time")
        self._fast: FastPath | None = None
        if fast and batch == 1 and not momentum and not self.biases and mode == "on-chip":
            self._fast = find_chain(self.plan, self.banks, self.loss)
        self._clock = Clock(self.banks, program.chip)
        self._velocity: dict[str, Floats] = {}
        self._statistics: dict[str, Array] = {}  # running statistics that operations wrote
        self._running = _Running()
        self._data = ""  # hash of the data of the last fit
        self._resumed_data = ""  # of those that a checkpoint wants to go on with

    def _load_noise_aware(self, program: Program, weight_noise: float | None) -> None:
        """Float weights that are read as the chip would read them."""
        for name in self.plan.banks:
            bank = program.banks[name]
            trainable = name in self.plan.trained
            made = NoiseAwareBank(bank, program.chip, self.physics, self.seed, trainable, weight_noise)
            self._noise_aware.append(made)
        self.banks = dict(zip(self.plan.banks, self._noise_aware, strict=True))
        banks = {name: program.banks[name] for name in self.plan.banks}
        self.biases = {name: bank.bias.copy() for name, bank in banks.items() if bank.bias is not None}
        self._drives = dict.fromkeys(self.plan.banks, 1.0)

    # ---- what a trainer gives -----------------------------------------------------------------------------

    @property
    def program(self) -> Program:
        """The program with the trained weights, as the chip's read-out gives them now."""
        return trained_program(self._program, self.banks, self.biases, self._drives, self._statistics)

    @property
    def examples(self) -> int:
        """How many examples have been trained on."""
        return self._clock.examples

    @property
    def is_fast(self) -> bool:
        """Whether the network is a chain that is trained without Python inside."""
        return self._fast is not None

    def pair_program(self) -> Program | None:
        """The program with the weights of the high tier alone, what is left when capacitors have leaked; None
        where no bank has two tiers.
        """
        if not any(bank.transfer_every for bank in self.banks.values()):
            return None
        return trained_program(
            self._program, self.banks, self.biases, self._drives, self._statistics, pair_only=True
        )

    def counters(self) -> dict[str, dict[str, float]]:
        """What happened to the cells of each bank: pulses, transfers, writes, clipped and missed targets."""
        return {name: dict(bank.counters()) for name, bank in self.banks.items()}

    def fit(
        self,
        x: Data,
        y: Array,
        epochs: int = 1,
        *,
        validation: tuple[Data, Array] | None = None,
        patience: int = 10,
        log: str | os.PathLike[str] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 60.0,
        on_progress: Callable[[Progress], None] | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> History:
        """Train until so many epochs are over, counted from the first.

        Args:
            x: the inputs of the examples; a dict by name where the model has several.
            y: labels `[n]`, or targets shaped as the output.
            epochs: passes over all examples.
            validation: inputs and targets that are evaluated after each epoch.
            patience: epochs without a lower loss after which training stops; 0: never.
            log: a file that gets a line of JSON for each epoch.
            checkpoint: a file that gets the state after each epoch, and when training is interrupted.
            checkpoint_every: seconds after which it gets the state within an epoch, too.
            on_progress: is told where training is, every so often.
            on_epoch: is told of each finished epoch.

        Returns:
            the epochs, and why it stopped early, if it did: a loss that is not finite, no progress, Ctrl-C.

        Raises:
            DataError: data that do not fit the model.
            OutputError: the log or the checkpoint can't be written.
        """
        if epochs < 1 or patience < 0:
            raise DataError(f"epochs = {epochs}, patience = {patience}: must be at least 1, and 0")
        feeds = self._front.checked(x)
        targets = self._targets(feeds, y)
        held_out = None
        if validation is not None:
            tested = self._front.checked(validation[0])
            held_out = (tested, self._targets(tested, validation[1]))
        self._data = data_hash(feeds, targets.values)
        check_same_data(self._resumed_data, self._data)
        self._resumed_data = ""
        kept = self._front.kept(feeds)
        run = self._running
        ended: Ended = "done"
        why = ""
        save = None if checkpoint is None else lambda: self.save(checkpoint)
        with interrupts_noted() as interrupted:
            watch = Watch(interrupted, save, checkpoint_every, on_progress)
            while run.epoch < epochs and not why:
                ended = self._epoch(feeds, kept, targets, epochs, watch)
                if ended == "done":
                    epoch = self._close_epoch(targets, held_out)
                    if log is not None:
                        append_line(log, epoch.as_dict())
                    if on_epoch is not None:
                        on_epoch(epoch)
                    why = no_progress(run.finished, patience) if run.epoch < epochs else ""
                    ended = "no progress" if why else "done"
                else:
                    why = self._why(ended)
                if ended != "diverged":
                    watch.keep()
        return History(tuple(run.finished), why, ended)

    def evaluate(self, x: Data, y: Array) -> Evaluation:
        """Loss and accuracy of the weights as they are, read as in training; nothing changes by it."""
        feeds = self._front.checked(x)
        targets = self._targets(feeds, y)
        with self._streams_kept():
            return self._evaluate(feeds, targets)

    def predict(self, x: Data) -> Array:
        """What the loss is computed from (logits), for each example; read as in training."""
        feeds = self._front.checked(x)
        with self._streams_kept():
            return self._forward_only(feeds)

    # ---- a state that can be saved ------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint: `resume` goes on from it as if nothing had happened.

        Raises:
            OutputError: the path can't be written; a file that was there is still there.
        """
        from pcmc.runtime.trainer.checkpoint import save

        save(self, path)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take the state of a checkpoint that a trainer with the same program and settings wrote.

        Raises:
            ProgramError: no checkpoint, one of another program or other settings, or an altered one.
        """
        from pcmc.runtime.trainer.checkpoint import restore

        restore(self, path)

    @property
    def compiled(self) -> Program:
        """The program as it was before any training."""
        return self._program

    def settings(self) -> dict[str, Any]:
        """What has to be the same for a training to go on with a checkpoint."""
        return {
            "seed": self.seed,
            "physics": list(self.physics.names()),
            "read_noise": self.physics.read_noise,
            "loss": self.loss,
            "lr": self.lr,
            "decay": self.decay,
            "batch": self.batch,
            "momentum": self.momentum,
            "mode": self.mode,
            "weight_noise": self._weight_noise,
            "weight_range": self._weight_range,
            "layers": list(self.plan.trained),
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """All that training has changed: plain data, and arrays by name."""
        run = self._running
        arrays: dict[str, Array] = {}
        streams = {}
        for name, bank in self.banks.items():
            arrays |= {f"bank/{name}/{key}": array for key, array in bank.arrays().items()}
            streams[name] = bank.bank.state()
        arrays |= {f"bias/{name}": bias.copy() for name, bias in self.biases.items()}
        arrays |= {f"velocity/{name}": velocity for name, velocity in self._velocity.items()}
        arrays |= {f"statistics/{name}": value for name, value in self._statistics.items()}
        document = {
            "examples": self._clock.examples,
            "data": self._data,
            "streams": streams,
            "running": {
                "epoch": run.epoch,
                "position": run.position,
                "loss": run.loss,
                "right": run.right,
                "seconds": run.seconds,
                "finished": [epoch.as_dict() for epoch in run.finished],
            },
        }
        return document, arrays

    def take_state(self, document: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Become what `state` gave.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or does not fit.
        """
        from pcmc.runtime.trainer.checkpoint_reader import epoch_from

        for name, bank in self.banks.items():
            bank.restore(_under(arrays, f"bank/{name}/"))
            bank.bank.restore(document["streams"][name])
        for name, bias in self.biases.items():
            bias[:] = arrays[f"bias/{name}"]
        self._velocity = _under(arrays, "velocity/")
        self._statistics = _under(arrays, "statistics/")
        run = dict(document["running"])
        run["finished"] = [epoch_from(epoch) for epoch in run["finished"]]
        self._running = _Running(**run)
        self._clock.restore(document["examples"])
        self._data = self._resumed_data = document["data"]

    # ---- one epoch ----------------------------------------------------------------------------------------

    def _rate(self) -> float:
        return float(self.lr * self.decay**self._running.epoch)

    def _order(self, n: int) -> npt.NDArray[np.int64]:
        return generator(self.seed, (self._running.epoch,), "order").permutation(n).astype(np.int64)

    def _epoch(
        self,
        feeds: Mapping[str, Array],
        kept: Mapping[str, Array] | None,
        targets: Targets,
        epochs: int,
        watch: Watch,
    ) -> Ended:
        """Train on the rest of an epoch; "done", or why it ended before its last example."""
        run = self._running
        n, order, began, at_first = len(targets), self._order(len(targets)), time.monotonic(), run.position
        before = run.seconds
        while run.position < n:
            if watch.interrupted():
                return "interrupted"
            rest = order[run.position : run.position + self._clock.until_event()]
            if self._fast is not None and kept is not None and self._fast.fits(kept, targets):
                part = rest[:_PART]
                loss, right = self._fast.train(kept, targets, part, self._rate(), self._clock)
            else:
                part = rest[: max(1, _GENERAL_PART // self.batch) * self.batch]
                loss, right = self._general(feeds, kept, targets, part)
            run.position += len(part)
            run.loss += loss
            run.right += right
            self._clock.transfer_if_due()
            if not self._is_finite():
                return "diverged"
            run.seconds = before + time.monotonic() - began
            watch.keep_if_due()
            if watch.on_progress is not None:
                watch.on_progress(self._progress(n, epochs, targets, time.monotonic() - began, at_first))
        return "done"

    def _is_finite(self) -> bool:
        """Whether the losses met so far are, and the weights: an update may overflow before any loss does."""
        return math.isfinite(self._running.loss) and all(
            np.isfinite(bank.bank.weights).all() for bank in self.banks.values() if bank.trainable
        )

    def _why(self, ended: Ended) -> str:
        """Why an epoch ended before its last example, as a user reads it."""
        run = self._running
        if ended == "interrupted":
            return f"interrupted in epoch {run.epoch + 1}, after {run.position:,} examples of it"
        return (
            f"the loss is not finite in epoch {run.epoch + 1}: a lower learning rate than {self._rate():g} "
            "may help"
        )

    def _progress(self, n: int, epochs: int, targets: Targets, seconds: float, at_first: int) -> Progress:
        run = self._running
        rate = seconds / max(1, run.position - at_first)
        left = (n - run.position + (epochs - run.epoch - 1) * n) * rate
        accuracy = run.right / run.position if targets.has_classes else None
        return Progress(run.epoch, epochs, run.position, n, run.loss / run.position, accuracy, seconds, left)

    def _close_epoch(self, targets: Targets, held_out: tuple[Mapping[str, Array], Targets] | None) -> Epoch:
        run, n = self._running, len(targets)
        accuracy = run.right / n if targets.has_classes else None
        validation = None if held_out is None else self._evaluate(*held_out)
        totals: dict[str, float] = {}
        for bank in self.banks.values():
            for name, value in bank.counters().items():
                totals[name] = (
                    max(totals.get(name, 0), value) if "max" in name else totals.get(name, 0) + value
                )
        epoch = Epoch(run.epoch, self._rate(), run.loss / n, accuracy, validation, run.seconds, totals)
        run.finished.append(epoch)
        run.epoch, run.position, run.loss, run.right, run.seconds = run.epoch + 1, 0, 0.0, 0, 0.0
        return epoch

    # ---- the general path ---------------------------------------------------------------------------------

    def _general(
        self,
        feeds: Mapping[str, Array],
        kept: Mapping[str, Array] | None,
        targets: Targets,
        order: npt.NDArray[np.int64],
    ) -> tuple[float, int]:
        """Train batch by batch; the sum of the losses, and how many answers were right."""
        loss, right = 0.0, 0
        for start in range(0, len(order), self.batch):
            indices = order[start : start + self.batch]
            batch_loss, batch_right = self._step(
                self._front.batch(feeds, kept, indices), targets.of(indices), targets
            )
            loss += batch_loss
            right += batch_right
            self._clock.count(len(indices))
        return loss, right

    def _context(self, training: bool) -> Context:
        step = self._clock.examples
        seed = self.seed

        def drawn(node: str) -> np.random.Generator:
            return generator(seed, (step,), f"operation {node}")

        return Context(training=training, stream=drawn, needed=self.plan.needed)

    def _step(self, feeds: Mapping[str, Array], wanted: Array, targets: Targets) -> tuple[float, int]:
        context = self._context(training=True)
        for noisy in self._noise_aware:
            noisy.perturb(self._clock.examples)
        tape = forward(self.plan, self.banks, self.biases, {**feeds, **self._statistics}, context)
        logits = tape.values[self.plan.logits]
        losses, gradient = targets.loss_and_grad(logits, wanted)
        if len(losses) > 1:
            gradient = gradient / np.asarray(len(losses), gradient.dtype)
        products = backward(self.plan, self.banks, tape, gradient, context)
        for noisy in self._noise_aware:
            noisy.calm()
        for product in products:
            self._update(product)
        self._statistics.update(context.updates)
        return float(losses.sum(dtype=np.float64)), targets.right(logits, wanted)

    def _update(self, product: OuterProduct) -> None:
        """Update one bank: pulses, or what its exact cells take."""
        rate = self._rate()
        if product.bank in self.biases:
            self.biases[product.bank] -= np.float32(rate) * product.d.sum(axis=0)
        bank = self.banks[product.bank]
        if not self.momentum:
            bank.bank.update(product.x, product.d, rate)
            return
        gradient = packed_gradient(self._program.banks[product.bank], product.x, product.d)
        velocity = self._velocity.setdefault(product.bank, np.zeros_like(gradient))
        velocity *= np.float32(self.momentum)
        velocity += gradient
        bank.bank.weights[: len(velocity)] -= np.float32(rate) * velocity

    # ---- evaluation ---------------------------------------------------------------------------------------

    def _targets(self, feeds: Mapping[str, Array], y: Array) -> Targets:
        """The targets of a data set, checked against what the network gives for its first example."""
        n = len(next(iter(feeds.values())))
        with self._streams_kept():
            logits = self._forward_only({name: array[:1] for name, array in feeds.items()})
        return check_targets(y, n, logits, LOSSES[self.loss])

    @contextmanager
    def _streams_kept(self) -> Iterator[None]:
        """Within the block reads count for nothing: random streams and counters are as before afterwards."""
        before = {name: bank.bank.state() for name, bank in self.banks.items()}
        try:
            yield
        finally:
            for name, state in before.items():
                self.banks[name].bank.restore(state)

    def _forward_only(self, feeds: Mapping[str, Array]) -> Array:
        """The logits of all examples; the random streams of training stay where they are."""
        n = len(next(iter(feeds.values())))
        step = 1 if self._front.fixed else _EVALUATED
        parts = []
        for start in range(0, n, step):
            indices = np.arange(start, min(n, start + step))
            values = {**self._front.batch(feeds, None, indices), **self._statistics}
            tape = forward(self.plan, self.banks, self.biases, values, self._context(training=False))
            parts.append(tape.values[self.plan.logits])
        return np.concatenate(parts)

    def _evaluate(self, feeds: Mapping[str, Array], targets: Targets) -> Evaluation:
        logits = self._forward_only(feeds)
        everything = np.arange(len(targets))
        losses, _ = targets.loss_and_grad(logits, targets.of(everything))
        right = targets.right(logits, targets.of(everything))
        accuracy = right / len(targets) if targets.has_classes else None
        return Evaluation(float(losses.mean(dtype=np.float64)), accuracy, len(targets))


def _under(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): array.copy() for name, array in arrays.items() if name.startswith(prefix)
    }
