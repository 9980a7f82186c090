"""Steps, nonlinearity, asymmetry and their spread, fitted to measured pulses.

**Law.** z is the conductance relative to the range, from -1 at its beginning to 1 at its end in the direction
of travel. A pulse adds a step that depends on where it starts, and noise that does not:

    f(z) = a (1 - n z)      "linear":       n = 0: equal steps; n = 1: the step vanishes at the end
    f(z) = a exp(-n z)      "exponential"

"linear" is the linear-step device of aihwkit with additive noise, and with n = 1 its soft bounds. Without
noise its curve is B (1 - exp(-P / A)) + G_min, NeuroSim's (Chen, Peng and Yu, IEDM 2017), with A = -1 / ln(1
- a n): the two published models are one law, once as a step and once as a curve. "exponential" is aihwkit's
ExpStepDevice where its exponential outweighs its constant; its curve grows as a logarithm. Of the two the
one with the lower Akaike information criterion over all devices, four parameters each, is taken.

**Fit.** By maximum likelihood (`pcmc.accel.pulse_likelihood`): a and n of each device and direction, the
noise c of steps in each direction, and the noise m of measured points.

**Spread.** Over D devices: mean and standard deviation of what was found, the mean of its squared standard
errors subtracted from the square of the latter. Intervals hold 95 %: Student's t for means, chi squared for
deviations, normal ones (of c^2 and m^2) for noise. Of a single device its own standard error is all there is,
which takes the noise for known: 85 % of such intervals held the truth where devices were drawn from a law.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pcmc.accel.measured_spec import PULSE_LAWS
from pcmc.accel.pulse_likelihood import Float64, StepLaw, Steps, at_noise, common_noise, maximum
from pcmc.accel.pulses import DIRECTIONS, Direction, Sweep
from pcmc.errors import DataError

_PARAMETERS = 4  # a, n, c, m
_LEAST_RANGE = 0.01  # of what points span: between lower ends nothing was swept
_Key: TypeAlias = tuple[str, Direction]
_NORMAL = 1.959963984540054  # 97.5 % of a normal distribution


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the ends of its 95 % interval; the ends are NaN where nothing is known of them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that each device has: its mean over devices, and its standard deviation between them."""

    mean: Estimate
    deviation: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What was fitted to one device in one direction.

    `curves` has float64 [n] in uS for each of `sweeps`: the law without noise, from the start that fits best.
    `r2` is the share of the variance that they explain. The step is at mid range.
    """

    device: str
    direction: Direction
    sweeps: tuple[Sweep, ...]
    curves: tuple[Float64, ...]
    r2: float
    step_us: float
    nonlinearity: float


@dataclass(frozen=True, slots=True)
class DirectionFit:
    """Pulses of one direction over all devices.

    `step_us` is the step at mid range, with its deviation in uS, too. `steps`: the range over that step.
    `curve_pulses`: A of NeuroSim's curve, in pulses; infinite where steps are equal, NaN for another law.
    """

    direction: Direction
    step_us: Quantity
    nonlinearity: Quantity
    step_noise_us: Estimate
    steps: Estimate
    curve_pulses: float


@dataclass(frozen=True, slots=True, eq=False)
class PulseFit:
    """The law of all devices, and what was fitted to each.

    `aic` is by law, the lowest one's taken. `asymmetry` is 2 (up - down) / (up + down) of a device's steps at
    mid range, None where all pulses go one way. `g_min_us` and `g_max_us` are the ends that sweeps begin and
    end at. `read_noise_us` is what measured points err by, the instrument included.
    """

    law: str
    aic: dict[str, float]
    devices: tuple[str, ...]
    points: int
    g_min_us: Quantity
    g_max_us: Quantity
    directions: tuple[DirectionFit, ...]
    asymmetry: Quantity | None
    read_noise_us: Estimate
    traces: tuple[Trace, ...]


def fit_pulses(sweeps: Sequence[Sweep]) -> PulseFit:
    """Fit the law to measured sweeps, as `pcmc.accel.pulses.read_pulses` gives them.

    Raises:
        DataError: the ends of the sweeps leave no range.
    """
    traces: dict[_Key, list[Sweep]] = {}
    for sweep in sweeps:
        traces.setdefault((sweep.device, sweep.direction), []).append(sweep)
    devices = tuple(dict.fromkeys(device for device, _ in traces))
    ends = [_ends([sweep for sweep in sweeps if sweep.device == device]) for device in devices]
    low, high = (float(np.mean([np.mean(one[end]) for one in ends])) for end in (0, 1))
    points = np.concatenate([sweep.g_us for sweep in sweeps])
    if not high - low > max(_LEAST_RANGE * float(np.ptp(points)), 1e-6 * max(abs(high), abs(low), 1e-3)):
        raise DataError(
            f"sweeps have their low ends at {low:.5g} uS and their high ones at {high:.5g}, points lie from "
            f"{points.min():.5g} to {points.max():.5g}: no range that pulses lead over"
        )
    middle, half = (low + high) / 2, (high - low) / 2
    steps = {key: _steps(found, middle, half) for key, found in traces.items()}
    law, aic, laws, noise = _fitted(steps)
    noises = [_root(c2 * half**2, variance * half**4) for c2, variance in noise.values()]
    read2 = noise["read"][0] * half**2
    ranges = [
        _quantity([float(np.mean(one[end])) for one in ends], [read2 / len(one[end]) for one in ends])
        for end in (0, 1)
    ]
    directions = tuple(
        _direction(way, [one for key, one in laws.items() if key[1] == way], law, half, found, ranges)
        for way, found in zip(_ways(steps), noises, strict=False)
    )
    return PulseFit(
        law,
        aic,
        devices,
        sum(len(sweep.pulse) for sweep in sweeps),
        ranges[0],
        ranges[1],
        directions,
        _asymmetry(laws, devices),
        noises[-1],
        tuple(_trace(found, laws[key], law, middle, half) for key, found in traces.items()),
    )


def _ways(steps: Mapping[_Key, Steps]) -> list[Direction]:
    """The directions that there are, up before down."""
    there = {direction for _, direction in steps}
    return [way for way in DIRECTIONS if way in there]


def _fitted(
    steps: Mapping[_Key, Steps],
) -> tuple[str, dict[str, float], dict[_Key, StepLaw], dict[str, tuple[float, float]]]:
    """The better law, the criterion of each, a and n of each trace, and the variances of the noise in z.

    The last are by direction and, last, under "read"; each with its squared standard error.
    """
    free = {law: {key: maximum(one, law) for key, one in steps.items()} for law in PULSE_LAWS}
    aic = {
        law: 2 * sum(one.minus_log_likelihood + _PARAMETERS for one in found.values())
        for law, found in free.items()
    }
    law = min(aic, key=lambda one: aic[one])
    ways = _ways(steps)
    groups = [[key for key in steps if key[1] == way] for way in ways]
    values, variances = common_noise(
        [[steps[key] for key in group] for group in groups],
        law,
        [[free[law][key] for key in group] for group in groups],
    )
    names = (*ways, "read")
    noise = {name: (float(v), float(u)) for name, v, u in zip(names, values, variances, strict=True)}
    laws = {
        key: at_noise(one, law, free[law][key], noise[key[1]][0], noise["read"][0])
        for key, one in steps.items()
    }
    return law, aic, laws, noise


def _ends(sweeps: Sequence[Sweep]) -> tuple[list[float], list[float]]:
    """Where a device's sweeps have their low and their high ends, in uS."""
    low = [float(s.g_us[0 if s.direction == "up" else -1]) for s in sweeps]
    high = [float(s.g_us[-1 if s.direction == "up" else 0]) for s in sweeps]
    return low, high


def _relative(sweep: Sweep, middle: float, half: float) -> Float64:
    """Conductances as z, in the direction of travel."""
    return (sweep.g_us - middle) / half * (1.0 if sweep.direction == "up" else -1.0)


def _steps(sweeps: Sequence[Sweep], middle: float, half: float) -> Steps:
    y = [_relative(sweep, middle, half) for sweep in sweeps]
    joined = [np.arange(1, len(one)) < len(one) - 1 for one in y]
    return Steps(
        np.concatenate([one[:-1] for one in y]),
        np.concatenate([one[1:] for one in y]),
        np.concatenate([np.diff(sweep.pulse) for sweep in sweeps]),
        np.concatenate(joined),
    )


def _trace(sweeps: Sequence[Sweep], found: StepLaw, law: str, middle: float, half: float) -> Trace:
    """The fit of one device and direction in uS, with the curves that it draws."""
    sign = 1.0 if sweeps[0].direction == "up" else -1.0
    curves = [
        middle + sign * half * _curve(sweep.pulse, _relative(sweep, middle, half), law, found.a, found.n)
        for sweep in sweeps
    ]
    measured = np.concatenate([sweep.g_us for sweep in sweeps])
    left = float(np.sum((measured - np.concatenate(curves)) ** 2))
    whole = float(np.sum((measured - measured.mean()) ** 2))
    return Trace(
        sweeps[0].device,
        sweeps[0].direction,
        tuple(sweeps),
        tuple(curves),
        1 - left / whole,
        found.a * half,
        found.n,
    )


def _curve(pulse: NDArray[np.int64], y: Float64, law: str, a: float, n: float) -> Float64:
    """Noiseless z after each number of pulses, from the start with the least squared distance to `y`."""
    from scipy.optimize import least_squares

    gaps = np.diff(pulse).tolist()

    def curve(start: float) -> Float64:
        z, values = start, [start]
        for gap in gaps:
            if law == "linear":
                z += a * (1 - n * z) * (gap if a * n == 0 else (1 - (1 - a * n) ** gap) / (a * n))
            else:
                for _ in range(gap):
                    z += a * math.exp(min(-n * z, 50.0))
            values.append(z)
        return np.array(values)

    def distance(start: Float64) -> Float64:
        return curve(float(start[0])) - y

    return curve(float(least_squares(distance, y[:1]).x[0]))


def _direction(
    direction: Direction,
    found: Sequence[StepLaw],
    law: str,
    half: float,
    noise: Estimate,
    ranges: Sequence[Quantity],
) -> DirectionFit:
    """What the devices have in common in one direction, in uS."""
    step = _quantity([one.a * half for one in found], [one.a_variance * half**2 for one in found])
    shape = _quantity([one.n for one in found], [one.n_variance for one in found])
    steps = 2 * half / step.mean.value
    error = math.hypot(
        _half_width(step.mean) / step.mean.value, *(_half_width(end.mean) / (2 * half) for end in ranges)
    )
    curve = math.nan
    kept = 1 - step.mean.value / half * shape.mean.value
    if law == "linear" and kept > 0:
        curve = math.inf if kept == 1 else -1 / math.log(kept)
    return DirectionFit(
        direction, step, shape, noise, Estimate(steps, steps * (1 - error), steps * (1 + error)), curve
    )


def _asymmetry(laws: Mapping[_Key, StepLaw], devices: Sequence[str]) -> Quantity | None:
    """2 (up - down) / (up + down) of the steps at mid range, over devices with pulses of both directions."""
    values, variances = [], []
    for device in devices:
        up, down = laws.get((device, "up")), laws.get((device, "down"))
        if up is None or down is None:
            continue
        total = up.a + down.a
        values.append(2 * (up.a - down.a) / total)
        slope = 4 / total**2
        variances.append(slope**2 * (down.a**2 * up.a_variance + up.a**2 * down.a_variance))
    return _quantity(values, variances) if values else None


def _half_width(one: Estimate) -> float:
    return (one.high - one.low) / 2


def _quantity(values: Sequence[float], variances: Sequence[float]) -> Quantity:
    """Mean and standard deviation over devices of what was found with such squared standard errors."""
    from scipy import stats

    size, mean, own = len(values), float(np.mean(values)), float(np.mean(variances))
    if size == 1:
        width = _NORMAL * math.sqrt(own)
        return Quantity(Estimate(mean, mean - width, mean + width), Estimate(*(math.nan,) * 3))
    square = float(np.var(values, ddof=1))
    width = float(stats.t.ppf(0.975, size - 1)) * math.sqrt(square / size)
    ends = [(size - 1) * square / float(stats.chi2.ppf(q, size - 1)) for q in (0.975, 0.025)]
    between = [math.sqrt(max(one - own, 0.0)) for one in (square, *ends)]
    return Quantity(Estimate(mean, mean - width, mean + width), Estimate(*between))


def _root(square: float, variance: float) -> Estimate:
    """The root of a square that was found with such a squared standard error."""
    width = _NORMAL * math.sqrt(variance)
    return Estimate(*(math.sqrt(max(one, 0.0)) for one in (square, square - width, square + width)))
