"""What a run is measured with: metrics by name, the error of its outputs, means with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pcmc.errors import DataError

Array = npt.NDArray[Any]
Metric = Callable[[list[Array], "Array | None", list[Array]], float]

#: The name under which costs list the error of the outputs, beside those of the metrics.
OUTPUT_ERROR = "output_error"


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and its 95 % confidence interval by Student's t; without an interval for one seed."""

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % confidence interval (Student's t) of independent values."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, None, None, tuple(values))
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values)) * float(t.ppf(0.975, len(values) - 1))
    return Interval(mean, mean - spread, mean + spread, tuple(values))


def _classes(outputs: list[Array]) -> Iterator[Array]:
    """Each output that has scores for classes: its top class for each sample."""
    for output in outputs:
        if (
            output.ndim >= 2
            and output.shape[-1 if output.ndim == 2 else 1] > 1
            and output.dtype.kind in "fiu"
        ):
            yield np.argmax(output.reshape(len(output), -1), axis=1) if output.size else np.zeros(0, np.int64)


def _agreement(outputs: list[Array], labels: Array | None, reference: list[Array]) -> float:
    pairs = list(zip(_classes(outputs), _classes(reference), strict=True))
    return float(np.mean([np.mean(got == want) for got, want in pairs])) if pairs else math.nan


def _accuracy(outputs: list[Array], labels: Array | None, reference: list[Array]) -> float:
    if labels is None:
        raise DataError("metric 'accuracy' needs labels: give data with 'y'")
    top = next(_classes(outputs), None)
    if top is None:
        raise DataError("metric 'accuracy' needs an output with scores for classes, [samples, classes]")
    if len(top) != labels.size:
        raise DataError(f"metric 'accuracy': the model gives {len(top)} results for {labels.size} labels")
    return float(np.mean(top == labels.reshape(-1)))


def _distance(power: int) -> Metric:
    def distance(outputs: list[Array], labels: Array | None, reference: list[Array]) -> float:
        parts = [
            np.abs(o.astype(np.float64) - r.astype(np.float64)) ** power
            for o, r in zip(outputs, reference, strict=True)
        ]
        return float(np.mean(np.concatenate([part.ravel() for part in parts])))

    return distance


METRICS: Mapping[str, Metric] = {
    "accuracy": _accuracy,
    "agreement": _agreement,
    "mae": _distance(1),
    "mse": _distance(2),
}

#: Metrics of which less is better; of all others, and of a user's function, more is.
LESS_IS_BETTER = frozenset({"mae", "mse", OUTPUT_ERROR})


def chosen_metrics(metric: str | Metric | None, labels: Array | None) -> dict[str, Metric]:
    """Metrics by name: those that the user names, the one that the user gives, or the default: accuracy
    where there are labels, and agreement.

    Raises:
        DataError: an unknown name.
    """
    if callable(metric):
        return {getattr(metric, "__name__", "metric"): metric}
    if metric is None:
        return {**({"accuracy": _accuracy} if labels is not None else {}), "agreement": _agreement}
    chosen = metric.split(",")
    unknown = [name for name in chosen if name not in METRICS]
    if unknown:
        raise DataError(
            f"metric '{unknown[0]}' is unknown; there are {', '.join(METRICS)}, or give a function"
        )
    return {name: METRICS[name] for name in chosen}


def output_error(outputs: Sequence[Array], reference: Sequence[Array]) -> float:
    """Root mean square of the distance from onnxruntime's outputs over that of those, the mean over outputs.

    Errors of independent sources add in squares.
    """
    found = []
    for got, want in zip(outputs, reference, strict=True):
        exact = want.astype(np.float64)
        size = float(np.sqrt(np.mean(exact**2))) if exact.size else 0.0
        distance = float(np.sqrt(np.mean((got.astype(np.float64) - exact) ** 2))) if exact.size else 0.0
        found.append(distance / size if size else distance)
    return math.fsum(found) / len(found)


def cost(metric: str, better: Sequence[float], worse: Sequence[float]) -> Interval:
    """What is lost from `better` to `worse`, value by value (paired): positive where it is a loss, whichever
    way the metric counts.
    """
    sign = -1.0 if metric in LESS_IS_BETTER else 1.0
    return interval([sign * (a - b) for a, b in zip(better, worse, strict=True)])
