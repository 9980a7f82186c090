"""The likelihood of measured pulses: what `pcmc.accel.pulse_fit` maximizes, in conductances z of the range.

A pulse adds a step and noise to z, a measured point y is z with noise of its own:

    z' = z + f(z) + c N(0, 1),    y = z + m N(0, 1)
    f(z) = a (1 - n z)  "linear",    f(z) = a exp(-n z)  "exponential"

From point to point, with F the law over the pulses between them, Phi = F', and Q the variance for c = 1,

    e_k = y_{k+1} - F(y_k) = c sqrt(Q_k) N + m N_{k+1} - Phi_k m N_k

have a tridiagonal covariance V, and -ln L = (e V^-1 e + ln det V) / 2 + constant. It is exact for the linear
law, given the first point, and first order in the noise for the exponential one. It tells the noise of steps,
which stays, from that of the read-out, which the next point no longer has. (Least squares on the curve would
take the wander of the steps' noise for a bend, a regression of steps on y the read-out noise for one.)

c and m are those of all devices together, where L is largest after a and n of each have been fitted (its
restricted form: with ln det (J V^-1 J), J the derivatives of F by both): one device alone has too few pulses
to tell the two noises apart, and fitting a and n takes some of the wander away.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.cells.measured import step_shape

Float64 = NDArray[np.float64]

_BOUNDS = ((-14.0, 1.3), (-8.0, 8.0), (-14.0, 14.0))  # ln a, n, and the log odds of c^2 to m^2
_LEAST_VARIANCE = 1e-16  # of z: below what differences of measured values resolve
_NOWHERE = 1e12  # stands for an infinite -ln L, which a search can't take


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """All steps of one device in one direction, sweep after sweep, [n] each.

    Points before and after as z, the pulses between, and whether the next step begins where this one ends.
    """

    before: Float64
    after: Float64
    pulses: NDArray[np.int64]
    joined: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Found:
    """A maximum of the likelihood of one device in one direction, with all four parameters free."""

    a: float
    n: float
    c2: float
    m2: float
    minus_log_likelihood: float


@dataclass(frozen=True, slots=True)
class StepLaw:
    """a and n of one device in one direction at given noise, with their squared standard errors."""

    a: float
    n: float
    a_variance: float
    n_variance: float


def step_at(law: str, a: float, n: float, z: Float64) -> tuple[Float64, Float64]:
    """f(z) and 1 + f'(z), [n] each."""
    step = a * step_shape(law, n, z)
    return step, 1 - n * (np.full_like(z, a) if law == "linear" else step)


def maximum(steps: Steps, law: str) -> Found:
    """The parameters that the steps of one device in one direction are likeliest with."""
    from scipy.optimize import minimize

    size = len(steps.before)

    def scale(p: Float64) -> tuple[float, float]:
        """The c^2 + m^2 that is likeliest with the shares of `p`, and -ln L there."""
        share = 1 / (1 + math.exp(-p[2]))
        square, log_det = _terms(steps, law, math.exp(p[0]), p[1], share, 1 - share)
        total = max(square / size, _LEAST_VARIANCE)
        return total, (square / total + log_det + size * math.log(2 * math.pi * total)) / 2

    def minus_log(p: Float64) -> float:
        return min(scale(p)[1], _NOWHERE)

    start = _start(steps, law)
    tries = [
        minimize(minus_log, np.array((*start, odds)), method="L-BFGS-B", bounds=_BOUNDS)
        for odds in (3.0, -3.0)
    ]
    best = min(tries, key=lambda one: float(one.fun))
    total, share = scale(best.x)[0], 1 / (1 + math.exp(-best.x[2]))
    return Found(math.exp(best.x[0]), float(best.x[1]), share * total, (1 - share) * total, float(best.fun))


def common_noise(
    groups: Sequence[Sequence[Steps]], law: str, found: Sequence[Sequence[Found]]
) -> tuple[Float64, Float64]:
    """c^2 of each group (a direction) and, last, m^2 of all: their values and squared standard errors.

    Args:
        groups: for each direction the steps of its devices.
        law: of the steps.
        found: what `maximum` gave for each.
    """
    from scipy.optimize import minimize

    traces = [
        [_Linear.at(one, law, best.a, best.n) for one, best in zip(group, bests, strict=True)]
        for group, bests in zip(groups, found, strict=True)
    ]

    def minus_log(variances: Float64) -> float:
        """-ln of the restricted likelihood of all."""
        m2 = float(variances[-1])
        pairs = zip(variances[:-1].tolist(), traces, strict=True)
        return min(sum(one.minus_log(c2, m2) for c2, group in pairs for one in group), _NOWHERE)

    def of_logs(p: Float64) -> float:
        return minus_log(np.exp(p))

    start = [float(np.mean([best.c2 for best in bests])) for bests in found]
    start.append(float(np.mean([best.m2 for bests in found for best in bests])))
    unit = max(*start, _LEAST_VARIANCE)
    bounds = [(math.log(unit * 1e-8), math.log(unit * 1e3))] * len(start)
    logs = np.log(np.clip(start, unit * 1e-3, unit))
    best = minimize(of_logs, logs, method="L-BFGS-B", bounds=bounds)
    variances: Float64 = np.exp(best.x)
    widths = 0.05 * (variances + 0.02 * float(variances.max()))
    middle = np.maximum(variances, 2 * widths)
    return variances, _inverse_curvature(minus_log, middle, widths)


def at_noise(steps: Steps, law: str, start: Found, c2: float, m2: float) -> StepLaw:
    """The likeliest a and n of one device in one direction where noise is known, searched from `start`."""
    from scipy.optimize import minimize

    def minus_log(p: Float64) -> float:
        return min(sum(_terms(steps, law, math.exp(p[0]), p[1], c2, m2)) / 2, _NOWHERE)

    found = minimize(minus_log, (math.log(start.a), start.n), method="L-BFGS-B", bounds=_BOUNDS[:2])
    log_a, n = float(found.x[0]), float(found.x[1])
    variances = _inverse_curvature(minus_log, found.x, np.array(_widths(minus_log, found.x)))
    a = math.exp(log_a)
    return StepLaw(a, n, float(variances[0]) * a**2, float(variances[1]))


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """The steps of one device about given a and n: errors e and the derivatives of F as columns [n, 3]."""

    columns: Float64
    phi: Float64
    q: Float64
    joined: NDArray[np.bool_]

    @classmethod
    def at(cls, steps: Steps, law: str, a: float, n: float) -> "_Linear":
        forward, phi, q = _over(steps, law, a, n)
        by_a = (_over(steps, law, a * 1.0001, n)[0] - _over(steps, law, a * 0.9999, n)[0]) / 2e-4
        by_n = (_over(steps, law, a, n + 1e-4)[0] - _over(steps, law, a, n - 1e-4)[0]) / 2e-4
        return cls(np.stack([steps.after - forward, by_a, by_n], axis=1), phi, q, steps.joined)

    def minus_log(self, c2: float, m2: float) -> float:
        """-ln of the restricted likelihood, the constant left out."""
        solved, log_det = _solved(self.phi, self.q, self.joined, c2, m2, self.columns)
        if solved is None:
            return math.inf
        products = self.columns.T @ solved
        information = products[1:, 1:]
        sign, log_information = np.linalg.slogdet(information)
        if not (sign > 0 and math.isfinite(log_information)):
            return math.inf
        fitted = products[0, 1:] @ np.linalg.solve(information, products[1:, 0])
        return float(products[0, 0] - fitted + log_det + log_information) / 2


def _over(steps: Steps, law: str, a: float, n: float) -> tuple[Float64, Float64, Float64]:
    """F, Phi and Q of each step: where its pulses lead, the derivative, and the variance for c = 1."""
    with np.errstate(all="ignore"):
        step, phi = step_at(law, a, n, steps.before)
        z, q = steps.before + step, np.ones_like(phi)
        for pulse in range(1, int(steps.pulses.max())):
            on = steps.pulses > pulse
            step, slope = step_at(law, a, n, z)
            z = np.where(on, z + step, z)
            phi = np.where(on, phi * slope, phi)
            q = np.where(on, slope**2 * q + 1, q)
    return z, phi, q


def _terms(steps: Steps, law: str, a: float, n: float, c2: float, m2: float) -> tuple[float, float]:
    """The two terms of -2 ln L, e V^-1 e and ln det V; infinite where numbers overflow."""
    forward, phi, q = _over(steps, law, a, n)
    e = steps.after - forward
    solved, log_det = _solved(phi, q, steps.joined, c2, m2, e)
    return (math.inf, math.inf) if solved is None else (float(e @ solved), log_det)


def _solved(
    phi: Float64, q: Float64, joined: NDArray[np.bool_], c2: float, m2: float, right: Float64
) -> tuple[Float64 | None, float]:
    """V^-1 `right` and ln det V; None where V or `right` is not finite, or V has no inverse."""
    from scipy.linalg.lapack import dpttrf, dpttrs  # of tridiagonal matrices, V = L D L'

    with np.errstate(all="ignore"):
        diagonal = c2 * q + m2 * (1 + phi**2)
        beside = -m2 * phi[1:] * joined[:-1]
        d, e, failed = dpttrf(diagonal, beside)
        if failed:
            return None, math.inf
        solved: Float64 = dpttrs(d, e, right)[0]
        log_det = float(np.log(d).sum())
    return (solved, log_det) if np.isfinite(solved).all() and math.isfinite(log_det) else (None, math.inf)


def _start(steps: Steps, law: str) -> tuple[float, float]:
    """Where to begin the search, as (ln a, n): least squares of single steps, found from equal ones."""
    from scipy.optimize import least_squares

    mean = float(np.sum(steps.after - steps.before) / np.sum(steps.pulses))
    equal = (math.log(min(max(mean, 1e-6), 3.0)), 0.0)

    def errors(p: Float64) -> Float64:
        e = steps.after - _over(steps, law, math.exp(p[0]), p[1])[0]
        return np.clip(np.nan_to_num(e, nan=1e6), -1e6, 1e6)

    low, high = zip(*_BOUNDS[:2], strict=True)
    found = least_squares(errors, equal, bounds=(low, high))
    return float(found.x[0]), float(found.x[1])


def _widths(objective: Callable[[Float64], float], at: Float64) -> list[float]:
    """For each parameter a distance at which -ln L has grown by about 0.01: a seventh of its error."""
    widths, middle = [], objective(at)
    for i in range(len(at)):
        width = 0.1
        for _ in range(40):
            moved = at.copy()
            moved[i] += width
            growth = objective(moved) - middle
            if growth < 0.02:
                break
            width *= max(0.1, math.sqrt(0.01 / growth))
        widths.append(width)
    return widths


def _inverse_curvature(objective: Callable[[Float64], float], at: Float64, width: Float64) -> Float64:
    """The diagonal of the inverse of the second derivatives of -ln L: squared standard errors, [n].

    A direction that the likelihood does not feel is left out of it, and says nothing of the others.
    """
    size, middle, unit = len(at), objective(at), np.diag(width)
    curvature = np.empty((size, size))
    for i in range(size):
        for j in range(i):
            corners = [objective(at + s * unit[i] + t * unit[j]) for s in (1, -1) for t in (1, -1)]
            curvature[i, j] = curvature[j, i] = (corners[0] - corners[1] - corners[2] + corners[3]) / 4
        curvature[i, i] = objective(at + unit[i]) - 2 * middle + objective(at - unit[i])
    values, vectors = np.linalg.eigh(curvature)
    known = values > 1e-6
    inverse = (vectors[:, known] / values[known]) @ vectors[:, known].T
    variances: Float64 = np.diag(inverse) * width**2
    return variances
