"""The sections of a chip file that training in place needs: `[pulses]`, `[training]` and `[backward]`.

docs/chips.md explains every field, docs/training.md the physics.
"""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pcmc.accel.fields import Choice, Flag, Real, Whole
from pcmc.errors import ChipError

_SPREAD = Real(0.0, 1.0)
_MICROSIEMENS = Real(0.0, 10_000.0, "uS")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearPulseSpec:
    """Kind "linear": pulses that add nearly the same everywhere, of the capacitor cells.

    Steps, bounds and their spreads are those of aihwkit's LinearStep device with additive noise: see
    `pcmc.accel.training.devices`. Spreads are standard deviations between devices, relative to the mean step,
    to half of the range or to the time constant; `noise` is one from pulse to pulse.
    """

    kind: Annotated[str, Choice(("linear",))]
    step_spread: Annotated[float, _SPREAD] = 0.0
    up_down_mismatch: Annotated[float, _SPREAD] = 0.0
    noise: Annotated[float, Real(0.0, 10.0)] = 0.0
    nonlinearity: Annotated[float, _SPREAD] = 0.0
    nonlinearity_spread: Annotated[float, _SPREAD] = 0.0
    range_spread: Annotated[float, Real(0.0, 0.3)] = 0.0
    leak_spread: Annotated[float, Real(0.0, 0.3)] = 0.0
    reset_spread_us: Annotated[float, _MICROSIEMENS] = 0.0
    leak_to_us: Annotated[float, _MICROSIEMENS]

    #: The effects of training that such pulses give a law of.
    effects = ("pulses", "step_mismatch", "pulse_noise", "leak")
    #: The kinds of cell that take them.
    cells = ("2pcm+3t1c", "3t1c")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPulseSpec:
    """Kind "set": SET pulses of PCM devices in pairs, which only raise a conductance, and occasional RESET.

    The law is that of aihwkit's PCM preset: see `pcmc.accel.training.set_devices`. All is relative to the
    cell's `g_max_us`: a step is `step` (1 + `growth` exp(-`decay` g)), its standard deviation `noise` (the
    step + `noise_offset` + `noise_slope` g). Spreads are standard deviations between devices: of steps and
    of the end of the range relative to their means, of the level after RESET relative to the range. Every
    `reset_every` examples pairs of which one device is above `reset_above` and the other above
    `reset_other_above` are programmed again.
    """

    kind: Annotated[str, Choice(("set",))]
    step: Annotated[float, Real(1e-6, 1.0)]
    growth: Annotated[float, Real(0.0, 1e4)]
    decay: Annotated[float, Real(0.0, 50.0)]
    noise: Annotated[float, Real(0.0, 10.0)] = 0.0
    noise_offset: Annotated[float, _SPREAD] = 0.0
    noise_slope: Annotated[float, Real(0.0, 10.0)] = 0.0
    step_spread: Annotated[float, _SPREAD] = 0.0
    up_down_mismatch: Annotated[float, _SPREAD] = 0.0
    range_spread: Annotated[float, Real(0.0, 0.3)] = 0.0
    reset_level: Annotated[float, Real(0.0, 0.5)] = 0.0
    reset_spread: Annotated[float, Real(0.0, 0.5)] = 0.0
    reset_every: Annotated[int, Whole(1, 1_000_000_000)] = 100
    reset_above: Annotated[float, _SPREAD] = 0.75
    reset_other_above: Annotated[float, _SPREAD] = 0.25

    #: The effects of training that such pulses give a law of.
    effects = ("pulses", "step_mismatch", "pulse_noise")
    #: The kinds of cell that take them.
    cells = ("2pcm", "4pcm")


PulseSpec: TypeAlias = LinearPulseSpec | SetPulseSpec
"""What one pulse does to a device; which parameters there are depends on its `kind`."""

PULSE_KINDS: dict[str, type[PulseSpec]] = {"linear": LinearPulseSpec, "set": SetPulseSpec}


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """How the chip trains: trains of pulses, the time of an example, and the transfer to the high tier.

    `train`: pulses of the lines fire at random ("stochastic"), or in an order that is always the same
    ("deterministic"), at most `most_pulses` for a vector. A `transfer` takes the whole "array" every
    `transfer_every` examples (0: never), or its "columns" one by one in that time. With `inversion` the low
    tier changes its sign at each. `offset_us` and `offset_sigmas` standard deviations of the programming
    error are left to the low tier. With more than one of `program_iterations`, pairs that missed by more than
    `verify_us` are programmed again. `weight_range` is the weight that the full conductance range stands for;
    0: found for each matrix.
    """

    train: Annotated[str, Choice(("stochastic", "deterministic"))] = "stochastic"
    most_pulses: Annotated[int, Whole(1, 31)] = 31
    example_time_s: Annotated[float, Real(1e-12, 1.0, "s")] = 240e-9
    transfer_every: Annotated[int, Whole(0, 1_000_000_000)] = 8000
    transfer: Annotated[str, Choice(("array", "columns"))] = "array"
    inversion: Annotated[bool, Flag()] = True
    offset_us: Annotated[float, _MICROSIEMENS] = 2.0
    offset_sigmas: Annotated[float, Real(0.0, 100.0)] = 0.0
    program_iterations: Annotated[int, Whole(1, 1000)] = 1
    verify_us: Annotated[float, _MICROSIEMENS] = 0.0
    weight_range: Annotated[float, Real(0.0, 1e6)] = 0.0


@dataclass(frozen=True, slots=True)
class BackwardSpec:
    """The converters of backward reads: inputs at the columns, outputs at the rows; 0: as `[dac]`, `[adc]`.

    `adc_offset_lsb`: standard deviation, from row to row, of an offset that does not change.
    """

    dac_bits: Annotated[int, Whole(0, 16)] = 0
    adc_bits: Annotated[int, Whole(0, 16)] = 0
    adc_range_cells: Annotated[float, Real(0.0, 1e6)] = 0.0
    adc_offset_lsb: Annotated[float, Real(0.0, 1000.0, "LSB")] = 0.0


def check_training(pulses: PulseSpec | None, backward: BackwardSpec, cell_kind: str, origin: str) -> None:
    """ChipError, beginning with `origin` and the field, if two fields contradict each other."""
    if pulses is not None and cell_kind not in pulses.cells:
        kinds = ", ".join(f'"{kind}"' for kind in pulses.cells)
        raise ChipError(
            f'{origin}: [pulses] kind = "{pulses.kind}": must be left out, or go with cells of kind {kinds}; '
            f'[cell] kind is "{cell_kind}"'
        )
    for name in ("dac_bits", "adc_bits"):
        if getattr(backward, name) == 1:
            raise ChipError(f"{origin}: [backward] {name} = 1: must be 0 or at least 2, sign included")
