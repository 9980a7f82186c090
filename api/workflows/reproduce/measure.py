"""What is measured of a trainer at the end of its training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pcmc.accel.cells import Devices
from pcmc.accel.training.bank import PulseLaw
from pcmc.accel.training.bfloat16 import widened
from pcmc.runtime.session import Session
from pcmc.runtime.state import BankState, ChipState

if TYPE_CHECKING:
    from pcmc.runtime.program import Program
    from pcmc.runtime.trainer.trainer import Trainer

Array = npt.NDArray[Any]

#: When PCM pairs alone are read, and what is done about their drift.
READINGS = {"20s": ("20s", "none"), "1h": ("1h", "none"), "1h_scaled": ("1h", "global")}
#: All accuracies but the one on the chip in training.
MEASURED = (
    "exported",
    *(f"left_{reading}" for reading in READINGS),
    *(f"written_{reading}" for reading in READINGS),
)
_BATCH = 2000


def accuracies(trainer: Trainer, x: Array, y: Array) -> dict[str, float | None]:
    """Shares of right answers, None where the cells have no such thing.

    `on_chip`: read as in training. `exported`: of the weights as the chip's read-out gives them, computed
    exactly. `left_*`: of the PCM pairs of two tiers as training left them, without the low tier, at the times
    of `READINGS`; each still lacks the offset that its last transfer left to the capacitor. `written_*`: of
    the trained weights after one more programming, into pairs alone, as for a run.
    """
    found: dict[str, float | None] = {
        "on_chip": trainer.evaluate(x, y).accuracy,
        "exported": _accuracy(Session(trainer.program, "ideal", threads=1), x, y),
    }
    return found | _left(trainer, x, y) | _written(trainer, x, y)


def _left(trainer: Trainer, x: Array, y: Array) -> dict[str, float | None]:
    """The physics is what the chip file states for a run. Frozen read noise is that of the last write, which
    the devices of training hold already; it would be counted twice.
    """
    program, state = trainer.pair_program(), pair_state(trainer)
    if program is None or state is None:
        return {f"left_{reading}": None for reading in READINGS}
    physics = "full,-read_noise" if trainer.physics.frozen_part == "all" else "full"
    return _read(trainer, program, physics, state, "left", x, y)


def _written(trainer: Trainer, x: Array, y: Array) -> dict[str, float | None]:
    has_pairs = trainer.physics.programming_error and "pcm" in trainer.compiled.chip.cell.kind
    if not has_pairs:
        return {f"written_{reading}": None for reading in READINGS}
    return _read(trainer, trainer.program, "full", None, "written", x, y)


def _read(
    trainer: Trainer, program: Program, physics: str, state: ChipState | None, what: str, x: Array, y: Array
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, (at, compensation) in READINGS.items():
        session = Session(
            program,
            physics,
            seed=trainer.seed,
            threads=1,
            state=state,
            at=at,
            compensation=compensation,
        )
        found[f"{what}_{name}"] = _accuracy(session, x, y)
    return found


def pair_state(trainer: Trainer) -> ChipState | None:
    """The PCM devices of a trainer with two tiers, as a Session takes them; None for other cells."""
    from pcmc.accel.training.two_tier import TwoTierCells

    program = trainer.compiled
    banks: dict[str, BankState] = {}
    for name, bank in trainer.banks.items():
        if not isinstance(bank, TwoTierCells):
            return None
        arrays = bank.arrays()
        conversions = int(program.banks[name].table["cols"].sum())
        banks[name] = BankState(
            Devices(arrays["g_plus"], arrays["g_minus"]),
            np.full(conversions, bank.layout.weight_range, np.float32),
            bank.layout.bias_drive,
        )
    return ChipState(trainer.seed, banks)


def clipped_share(trainer: Trainer) -> float | None:
    """The share of low tiers that are at an end of their range; None where no cell has one."""
    at_end = cells = 0
    for bank in trainer.banks.values():
        law = bank.bank.law
        if not isinstance(law, PulseLaw):
            return None
        at_end += int(np.count_nonzero((law.low <= widened(law.low_min)) | (law.low >= widened(law.low_max))))
        cells += law.low.size
    return at_end / cells


def device_facts(trainer: Trainer) -> dict[str, float | None]:
    """What happened to the devices of all banks together.

    `weight_error`: rms error that programming left, over the weight range; `out_of_reach`: the share of
    transfers whose weight tuning could not reach; `beyond_range`: that of those asked of the pair that are
    beyond its range; `writes_mean`, `writes_max`: programmings of a cell. None: the cells have no such thing.
    """
    counters = trainer.counters()
    sizes = {name: bank.bank.weights.size for name, bank in trainer.banks.items()}
    cells = sum(sizes.values())
    transfers = [one.get("transfers", 0) for one in counters.values()]
    facts: dict[str, float | None] = {
        "synapses": cells,
        "pulses": _sum(counters, "pulses_up") + _sum(counters, "pulses_down"),
        "transfers": max(transfers),
        **dict.fromkeys(("weight_error", "out_of_reach", "beyond_range", "writes_mean", "writes_max")),
    }
    if all("weight_error" in one for one in counters.values()):
        squares = (
            (one["weight_error"] / _range(trainer, name), sizes[name]) for name, one in counters.items()
        )
        facts["weight_error"] = math.sqrt(sum(size * error**2 for error, size in squares) / cells)
    if all("writes_mean" in one for one in counters.values()):
        facts["writes_mean"] = sum(one["writes_mean"] * sizes[name] for name, one in counters.items()) / cells
        facts["writes_max"] = max(one["writes_max"] for one in counters.values())
    if all("out_of_reach" in one for one in counters.values()):
        written = sum((done + 1) * size for done, size in zip(transfers, sizes.values(), strict=True))
        facts["out_of_reach"] = _sum(counters, "out_of_reach") / written
        facts["beyond_range"] = (_sum(counters, "clipped_low") + _sum(counters, "clipped_high")) / written
    return facts


def _range(trainer: Trainer, name: str) -> float:
    layout = getattr(trainer.banks[name], "layout", None)
    return float(layout.weight_range) if layout is not None else 1.0


def _sum(counters: Mapping[str, Mapping[str, float]], name: str) -> float:
    return sum(one.get(name, 0) for one in counters.values())


def _accuracy(session: Session, x: Array, y: Array) -> float:
    name = session.get_inputs()[0].name
    right = 0
    for start in range(0, len(x), _BATCH):
        part = slice(start, start + _BATCH)
        found = session.run(None, {name: x[part]})[0]
        right += int(np.count_nonzero(found.argmax(axis=1) == y[part]))
    return right / len(x)
