"""Pulsed devices drawn from a known law, so that a fit can be held against it, and CSV files of them.

Nothing here was measured. A device has its own ends of the range, step and nonlinearity; a pulse adds the
step at the conductance that it finds, and noise; a point adds noise that the next pulse does not see:

    G' = G +- (s f(z) + c N(0, 1)),  f(z) = 1 - n z or exp(-n z),  y = G + m N(0, 1)

z runs from -1, where pulses of the direction begin, to 1, where they end. Sweeps go from one end of a
device's range to the other, up and then down, as near to it as whole pulses get.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pcmc.accel.pulses import DIRECTIONS, Direction, Sweep


@dataclass(frozen=True)
class Way:
    """Pulses of one direction; step and noise in uS, the deviation of the step relative."""

    step: float
    nonlinearity: float
    noise: float = 0.0
    step_deviation: float = 0.0
    nonlinearity_deviation: float = 0.0


@dataclass(frozen=True)
class Truth:
    """What devices are drawn from; conductances in uS."""

    law: str = "linear"
    low: float = 2.0
    high: float = 22.0
    low_deviation: float = 0.4
    high_deviation: float = 0.8
    read_noise: float = 0.1
    ways: dict[Direction, Way] = field(
        default_factory=lambda: {
            "up": Way(0.2, 0.5, 0.05, 0.1, 0.1),
            "down": Way(0.25, 0.3, 0.06, 0.1, 0.1),
        }
    )

    def step(self, direction: Direction, step: float, n: float, g: float) -> float:
        """The mean step at a conductance."""
        z = (2 * g - self.low - self.high) / (self.high - self.low) * (1 if direction == "up" else -1)
        return step * max(0.0, 1 - n * z if self.law == "linear" else float(np.exp(-n * z)))


EXACT = Truth(
    low_deviation=0.0,
    high_deviation=0.0,
    read_noise=0.0,
    ways={"up": Way(0.4, 0.5), "down": Way(0.5, 0.25)},
)
"""Devices that are all alike, without any noise."""


def drawn(truth: Truth, seed: int = 0, devices: int = 5, cycles: int = 1, every: int = 1) -> list[Sweep]:
    """Sweeps of devices drawn from a law; of each only every so manieth point."""
    rng = np.random.default_rng(seed)
    sweeps = []
    for device in range(devices):
        ends = {
            "down": truth.low + truth.low_deviation * rng.standard_normal(),
            "up": truth.high + truth.high_deviation * rng.standard_normal(),
        }
        laws = {
            way: (
                one.step * (1 + one.step_deviation * rng.standard_normal()),
                one.nonlinearity + one.nonlinearity_deviation * rng.standard_normal(),
            )
            for way, one in truth.ways.items()
        }
        g = ends["down" if "up" in laws else "up"]
        for _ in range(cycles):
            for way in (one for one in DIRECTIONS if one in laws):
                sign, path = 1 if way == "up" else -1, [g]
                while len(path) < 3000:
                    step = truth.step(way, *laws[way], g)
                    if sign * (ends[way] - g) < step / 2 or step == 0:
                        break
                    g += sign * (step + truth.ways[way].noise * rng.standard_normal())
                    path.append(g)
                y = np.array(path) + truth.read_noise * rng.standard_normal(len(path))
                sweeps.append(Sweep(f"d{device}", way, np.arange(len(y))[::every], y[::every]))
    return sweeps


def as_csv(sweeps: Sequence[Sweep]) -> str:
    """Sweeps as `pcmc.accel.pulses.read_pulses` takes them."""
    rows = [
        f"{sweep.device},{sweep.direction},{pulse},{g!r}"
        for sweep in sweeps
        for pulse, g in zip(sweep.pulse.tolist(), sweep.g_us.tolist(), strict=True)
    ]
    return "\n".join(["# drawn from a law, not measured", "device,direction,pulse,conductance_us", *rows, ""])


def write_csv(path: Path, sweeps: Sequence[Sweep]) -> Path:
    """Write sweeps to a CSV file; the file's path."""
    path.write_text(as_csv(sweeps))
    return path
