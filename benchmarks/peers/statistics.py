"""Statistics of devices and of a dense layer, pcmc's against aihwkit's, with everything matched first.

Matched: g_max 25 uS, the weight that full range stands for, one pair of devices a weight, converters off, no
compensation, no second weight noise, the clock (aihwkit's t_inference counts from 20 s after programming),
and what nu belongs to: the programmed conductance. aihwkit takes the target; that is shown beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.peers import ours
from benchmarks.peers.environment import ask
from benchmarks.peers.equivalence import (
    Verdict,
    same_covariance,
    same_distribution,
    same_mean,
    same_variance,
)

Row = dict[str, Any]
TARGETS_US = (0.0, 0.5, 2.5, 5.0, 10.0, 20.0, 25.0)
TIMES_S = {"25 s": 25.0, "1 h": 3600.0, "1 day": 86400.0, "1 year": 31_536_000.0}
DEVICES = 1_000_000
"""A target: the 90 % interval of a variance ratio is then +-0.3 % for Gaussians, of a mean +-0.0023 sd."""
MORE_DEVICES = {0.0: 6, 0.5: 2}
"""Targets at which conductances, half clipped away at 0 and spread by drift, have heavy tails: times more."""
PROGRAMMINGS = 640
OUTPUTS = 512
INPUTS = 128
LAYER_TIMES_S = {"20 s": 20.0, "1 day": 86400.0}
"""The first read of the fit, t_inference = 0, when drift has not begun; and when much has drifted away."""
SEED = 1


def device_rows(count: int = DEVICES) -> Iterator[Row]:
    """Keys: what, target, verdicts, must (whether both should agree), agrees; one target after the other.

    The last rows are negative controls on 5 uS devices.
    """
    times = list(TIMES_S.values())
    for i, target in enumerate(TARGETS_US):
        enough = count * MORE_DEVICES.get(target, 1)
        mine = ours.devices([target], times, enough, SEED + i)
        theirs = ask("devices", _given(target, times, enough, 100 + i))
        yield from _device_rows(target, mine, theirs)
        theirs = ask("devices", _given(target, times, enough, 300 + i, nu_of="target"))
        for j, label in enumerate(TIMES_S):
            verdicts = same_distribution(mine[f"read_0_{j}_0"], theirs[f"read_0_{j}_0"])
            yield _row(f"nu by target (aihwkit), G({label})", target, verdicts, None)
    target = 5.0
    mine = ours.devices([target], times, count, SEED + 50)
    theirs = ask("devices", _given(target, times, count, 150, nu_scale=1.1))
    yield _row("CONTROL nu, nu 10 % off", target, same_distribution(mine["nu_0"], theirs["nu_0"]), False)
    pair = mine["read_0_2_0"], theirs["read_0_2_0"]
    yield _row("CONTROL G(1 day), nu 10 % off", target, same_distribution(*pair), False)
    theirs = ask("devices", _given(target, times, count, 151, clock_s=20.0))
    pair = mine["read_0_0_0"], theirs["read_0_0_0"]
    yield _row("CONTROL G(25 s), t0 20 s off", target, same_distribution(*pair), False)


def _given(target: float, times: list[float], count: int, seed: int, **changed: Any) -> dict[str, Any]:
    plain = {"nu_of": "programmed", "nu_scale": 1.0, "clock_s": 0.0}
    return {"targets_us": [target], "times_s": times, "count": count, "seed": seed} | plain | changed


def _device_rows(target: float, mine: ours.Arrays, theirs: ours.Arrays) -> Iterator[Row]:
    yield _row("programmed G", target, same_distribution(mine["programmed_0"], theirs["programmed_0"]))
    yield _row("nu", target, same_distribution(mine["nu_0"], theirs["nu_0"]))
    for j, label in enumerate(TIMES_S):
        a, b = ([side[f"read_0_{j}_{turn}"] for turn in range(2)] for side in (mine, theirs))
        yield _row(f"G({label})", target, same_distribution(a[0], b[0]))
        yield _row(f"G({label}), between programmings", target, [_between_programmings(a, b)])
        yield _row(f"G({label}), between reads", target, [_between_reads(a, b)])


def _between_programmings(a: list[Any], b: list[Any]) -> Verdict:
    """Variance of what two reads of one device share: their covariance."""
    return same_covariance((a[0], a[1]), (b[0], b[1]))


def _between_reads(a: list[Any], b: list[Any]) -> Verdict:
    """Variance of the difference of two reads of one device."""
    return same_variance(a[0] - a[1], b[0] - b[1])


def layer_rows(programmings: int = PROGRAMMINGS) -> Iterator[Row]:
    """Outputs of a dense layer, many programmings, through each side's own layers; keys as `device_rows`.

    All columns have the same weights, so that each output of each programming is a sample of its own.
    """
    weights, x = layer_data()
    ideal = (x.astype(np.float64) @ weights[0].astype(np.float64)).tolist()
    for label, at_s in LAYER_TIMES_S.items():
        given = {"weights": weights, "x": x, "programmings": programmings, "at_s": at_s}
        mine = ours.layer(weights, x, programmings, at_s, SEED)
        kept = ask("layer", given | {"seed": 201, "pairs_kept": True})
        shipped = ask("layer", given | {"seed": 202, "pairs_kept": False})
        yield from _layer_rows(f"y({label})", mine, kept, ideal, True)
        a, b = _errors(mine, ideal), _errors(kept, ideal)
        b["second"] = (kept["redrawn"] - np.float32(ideal[1])).ravel()
        verdict = same_covariance((a["first"], a["second"]), (b["first"], b["second"]))
        yield _row(f"CONTROL y({label}), two inputs, redrawn", None, [verdict], False)
        yield from _layer_rows(f"aihwkit as shipped, y({label})", mine, shipped, ideal, None)


def layer_data() -> tuple[ours.Floats, ours.Floats]:
    """Weights [OUTPUTS, INPUTS], all rows the same, the largest 1, some 0; two inputs that overlap.

    Most weights are positive, so that the errors of devices at RESET, which are clipped at 0 and have a
    mean, show as a bias of the output.
    """
    rng = np.random.default_rng(7)
    column = rng.uniform(-0.3, 1, INPUTS)
    column[:8] = 0.0
    column[8] = 1.0
    first = rng.uniform(0, 1, INPUTS)
    second = 0.5 * first + 0.5 * rng.uniform(0, 1, INPUTS)
    weights = np.tile(column, (OUTPUTS, 1)).astype(np.float32)
    return weights, np.stack([first, second]).astype(np.float32)


def _errors(outputs: ours.Arrays, ideal: list[float]) -> dict[str, Any]:
    which = {"first": 0, "second": 1, "again": 0}
    return {name: outputs[name].ravel().astype(np.float64) - ideal[i] for name, i in which.items()}


def _layer_rows(
    name: str, mine: ours.Arrays, theirs: ours.Arrays, ideal: list[float], must: bool | None
) -> Iterator[Row]:
    a, b = _errors(mine, ideal), _errors(theirs, ideal)
    pairs = [[side["first"], side["again"]] for side in (a, b)]
    bias = {side: float(e["first"].mean() / e["first"].std()) for side, e in (("ours", a), ("peers", b))}
    yield _row(f"{name}, output bias", None, [same_mean(a["first"], b["first"])], must) | {"bias": bias}
    yield _row(f"{name}, output", None, same_distribution(a["first"], b["first"]), must)
    yield _row(f"{name}, between programmings", None, [_between_programmings(*pairs)], must)
    yield _row(f"{name}, between reads", None, [_between_reads(*pairs)], must)
    verdict = same_covariance((a["first"], a["second"]), (b["first"], b["second"]))
    yield _row(f"{name}, two inputs", None, [verdict], must)


def _row(what: str, target: float | None, verdicts: list[Verdict], must: bool | None = True) -> Row:
    """`must`: True should agree, False is a control that should not, None is a difference that is known."""
    agrees = all(verdict.agrees for verdict in verdicts)
    found = {verdict.quantity: verdict.as_dict() for verdict in verdicts}
    return {"what": what, "target": target, "must": must, "agrees": agrees, "verdicts": found}
