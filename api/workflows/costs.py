"""What the physics of a chip costs in accuracy: by effect (`ablate`), and by matrix (`by_layer`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pcmc.accel.physics import Physics
from pcmc.workflows.metrics import OUTPUT_ERROR, Interval, cost, interval
from pcmc.workflows.runs import Bench, Job, Judge, Scores

OFF = Physics()
#: Effects of the output converters: they go off with them, and are never on without them.
OF_ADC = ("readout_noise", "mismatch")


@dataclass(frozen=True, slots=True)
class EffectCost:
    """One effect: the metrics (and `output_error`), by name, without it and with it alone, over seeds.

    `cost` is what it takes away from the run without it, `cost_alone` what it takes away from ideal mode;
    both are differences seed by seed, in which all other noise is the same, and positive where they are a
    loss.
    """

    effect: str
    without: Mapping[str, Interval]
    alone: Mapping[str, Interval]
    cost: Mapping[str, Interval]
    cost_alone: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One matrix: the metrics (and `output_error`), by name, with the physics in its tiles only.

    `cost` is what is lost from ideal mode. `share` is its part in the sum of all matrices' squared output
    errors: what it adds to the error of the whole chip, as long as errors are small and independent.
    """

    layer: str
    operations: tuple[str, ...]
    rows: int
    cols: int
    alone: Mapping[str, Interval]
    cost: Mapping[str, Interval]
    share: float


def ablate(
    bench: Bench,
    judge: Judge,
    physics: Physics,
    seeds: Sequence[int],
    ideal: Scores,
    full: Sequence[Scores],
) -> tuple[EffectCost, ...]:
    """What each effect that is on costs, the dearest first.

    Random streams are named by effect, so a seed draws the same programming error, say, whatever else is on:
    runs of one seed differ by the one effect alone. What the output converters have of themselves (`OF_ADC`)
    goes off with `adc`, and is "alone" with it. Where the bench calibrates, each chip is calibrated anew.

    Args:
        bench: runs sessions.
        judge: measures outputs.
        physics: the effects.
        seeds: those of `full`.
        ideal: scores of ideal mode.
        full: scores with all effects, seed by seed.
    """
    names = physics.names()
    without = {name: _switched(physics, OFF, (name, *(OF_ADC if name == "adc" else ()))) for name in names}
    alone = {name: _switched(OFF, physics, (name, *(("adc",) if name in OF_ADC else ()))) for name in names}
    scores: dict[Physics, list[Scores]] = {OFF: [ideal] * len(seeds), physics: list(full)}
    missing = [one for one in dict.fromkeys([*without.values(), *alone.values()]) if one not in scores]
    jobs = [Job(one, seed) for one in missing for seed in seeds]
    for job, outputs in bench.run(jobs, "ablation"):
        scores.setdefault(job.physics, []).append(judge.scores(outputs))
    costs = [
        EffectCost(
            name,
            intervals(scores[without[name]]),
            intervals(scores[alone[name]]),
            losses(scores[without[name]], full),
            losses(scores[OFF], scores[alone[name]]),
        )
        for name in physics.names()
    ]
    return tuple(sorted(costs, key=lambda one: _dearest_first(one.cost)))


def by_layer(
    bench: Bench, judge: Judge, physics: Physics, seeds: Sequence[int], ideal: Scores
) -> tuple[LayerCost, ...]:
    """What the physics in each matrix costs with all other matrices ideal, the dearest first.

    That, rather than one matrix ideal and all others not: only one bank is programmed for each run, a small
    error is not lost in that of all others, and the shares add up.

    Args: as in `ablate`.
    """
    scores: dict[str, list[Scores]] = {name: [] for name in bench.program.banks}
    jobs = [Job(physics, seed, (name,)) for name in scores for seed in seeds]
    for job, outputs in bench.run(jobs, "layers"):
        scores[(job.only or ("",))[0]].append(judge.scores(outputs))
    squares = {name: sum(one[OUTPUT_ERROR] ** 2 for one in measured) for name, measured in scores.items()}
    total = sum(squares.values())
    layers = [
        LayerCost(
            name,
            tuple(dict.fromkeys(op for s in bench.program.steps if s.bank == name for op in s.layers)),
            bank.rows,
            bank.cols,
            intervals(scores[name]),
            losses([ideal] * len(seeds), scores[name]),
            squares[name] / total if total else 0.0,
        )
        for name, bank in bench.program.banks.items()
    ]
    return tuple(sorted(layers, key=lambda one: _dearest_first(one.cost)))


def _switched(physics: Physics, source: Physics, names: Sequence[str]) -> Physics:
    """A Physics with the named effects of another one."""
    return replace(physics, **{name: getattr(source, name) for name in names})


def intervals(scores: Sequence[Scores]) -> dict[str, Interval]:
    """Each metric over the seeds, by name."""
    return {name: interval([one[name] for one in scores]) for name in scores[0]}


def losses(better: Sequence[Scores], worse: Sequence[Scores]) -> dict[str, Interval]:
    """What is lost of each metric from `better` to `worse`, seed by seed; positive where it is a loss."""
    return {
        name: cost(name, [one[name] for one in better], [one[name] for one in worse]) for name in better[0]
    }


def _dearest_first(costs: Mapping[str, Interval]) -> tuple[float, ...]:
    """Sorts by the first metric, then by the next ones and the output error; without a number by the rest."""
    means = [one.mean for one in costs.values()]
    return tuple(0.0 if math.isnan(mean) else -mean for mean in means)
