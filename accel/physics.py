"""The switches of the physics: which effects a run includes, each by its name.

| name              | what it switches on                                                     | where |
| ----------------- | ----------------------------------------------------------------------- | --- |
| dac               | inputs are rounded to the levels of the input converters                | tile |
| adc               | outputs are rounded to the levels of the output converters, and clipped | tile |
| programming_error | devices end up beside their targets, once per programming               | cells |
| read_noise        | conductances as reads find them; which reads share it, its kind says    | cells, tile |
| drift             | conductances change with the time since programming                     | cells |
| stuck             | some devices hold one level whatever is programmed                      | cells |
| ir_drop           | wires, drivers and read-outs have resistance                            | wires |
| thermal_noise     | Johnson noise of the devices, new at each read                          | tile |
| nonlinearity      | currents are not proportional to inputs, and differ with their sign     | tile |
| reference_error   | the reference that the cells of a column share is off                   | cells |
| readout_noise     | noise of the output converters, new at each conversion                  | tile |
| mismatch          | offset and gain of the output converter of each column                  | tile |

In training in place (`resolve` with `training`) there are four more, and of those above only the first four
and `stuck`:

| name              | what it switches on                                                     | where |
| ----------------- | ----------------------------------------------------------------------- | --- |
| pulses            | updates are whole pulses, fired by chance; else each is made exactly    | training |
| step_mismatch     | steps, bounds and voltages after a reset differ between devices         | training |
| pulse_noise       | each pulse adds another amount                                          | training |
| leak              | capacitors leak, each at its own rate                                   | training |

Kinds of read noise: "frozen" is drawn once per session and time, "fast" anew at each read, and "split" has
the part that is slower than a batch of reads frozen and the rest fast.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal

from pcmc.accel.chip import ChipSpec, EffectsSpec, no_law
from pcmc.errors import ChipError

READ_NOISE_KINDS = ("frozen", "fast", "split")
"""The kinds of read noise that there are: "frozen" as aihwkit draws it, "fast", and "split" between them."""


@dataclass(frozen=True, slots=True)
class Physics:
    """Which effects are on; all off is the ideal machine, exact to float32 rounding.

    Raises:
        ChipError: a switch is not True or False, or `read_noise` is neither None nor a known kind.
    """

    dac: bool = False
    adc: bool = False
    programming_error: bool = False
    read_noise: str | None = None
    drift: bool = False
    stuck: bool = False
    ir_drop: bool = False
    thermal_noise: bool = False
    nonlinearity: bool = False
    reference_error: bool = False
    readout_noise: bool = False
    mismatch: bool = False
    pulses: bool = False
    step_mismatch: bool = False
    pulse_noise: bool = False
    leak: bool = False

    def __post_init__(self) -> None:
        for field in fields(Physics):
            value = getattr(self, field.name)
            if field.name != "read_noise" and not isinstance(value, bool):
                raise ChipError(f"physics: {field.name} = {value!r}: must be True or False")
        if self.read_noise is not None and self.read_noise not in READ_NOISE_KINDS:
            known = ", ".join(f'"{kind}"' for kind in READ_NOISE_KINDS)
            raise ChipError(f"physics: read_noise = {self.read_noise!r}: must be None or one of {known}")

    @property
    def is_ideal(self) -> bool:
        """Whether all effects are off."""
        return not self.names()

    @property
    def frozen_part(self) -> Literal["all", "slow"] | None:
        """The part of the read noise that is drawn once: the `part` of a cell's `age`; None: nothing."""
        return "all" if self.read_noise == "frozen" else "slow" if self.read_noise == "split" else None

    @property
    def fast_part(self) -> Literal["all", "fast"] | None:
        """The part that is new at each read: the `part` of a cell's `noise_variance`; None: nothing."""
        return "all" if self.read_noise == "fast" else "fast" if self.read_noise == "split" else None

    @property
    def in_inference(self) -> "Physics":
        """Without the effects of training in place: what a run can have of these."""
        return replace(self, pulses=False, step_mismatch=False, pulse_noise=False, leak=False)

    @property
    def of_cells(self) -> tuple[str, ...]:
        """The names of the effects that are on and take place in cells, not in converters."""
        return tuple(name for name in self.names() if name not in ("dac", "adc", "readout_noise", "mismatch"))

    def names(self) -> tuple[str, ...]:
        """The names of the effects that are on, in the order of the fields."""
        return tuple(name for name in (*EFFECTS, *TRAINING_EFFECTS) if getattr(self, name))


TRAINING_EFFECTS = ("pulses", "step_mismatch", "pulse_noise", "leak")
"""The names of the effects that there are in training in place only."""

EFFECTS = tuple(field.name for field in fields(Physics) if field.name not in TRAINING_EFFECTS)
"""The names of all effects of a run."""

RUN_AND_TRAINING = ("dac", "adc", "programming_error", "read_noise", "stuck")
"""The names of the effects of a run that there are in training in place, too."""

_ALL = (*EFFECTS, *TRAINING_EFFECTS)
# Why training in place is without an effect; of the others there is no reason but that it is not modelled.
_NOT_IN_TRAINING = {
    "drift": "nothing published covers PCM before t0_s, and pairs are programmed again within milliseconds; "
    "that of capacitors is leak",
    "ir_drop": "conductances change at each pulse, and the wires would have to be solved after each",
    "mismatch": "that of the rows' converters, which biases weights, is [backward] adc_offset_lsb, with adc",
}


def resolve(choice: "str | Physics", chip: ChipSpec, training: bool = False) -> Physics:
    """The effects that a user's choice means on a chip.

    Args:
        choice: "ideal" (none), "full" (those that the chip file states on), names of effects with commas
            between them ("dac,adc"; on whatever the chip file says), "full" and then names, each on as well
            or, with a minus sign, off ("full,ir_drop,-drift"), or a Physics. "read_noise" is of the kind that
            the chip file names, or frozen if it says "off"; "read_noise=fast" says which.
        chip: the chip; its `dac.on`, `adc.on` and `effects` say what "full" is.
        training: the effects of training in place. "full" then has those of `RUN_AND_TRAINING` as the file
            states them, and, where the chip has [pulses], all that those give a law of. Nothing published
            covers drift and noise of PCM within milliseconds, and no cheap law the wires of an array that
            changes at each pulse: such effects are left out of "full", and refused by name.

    Raises:
        ChipError: an unknown name, or an effect that the chip has no law of, or that there is only in
            training or only without.
    """
    noise = None if chip.effects.read_noise == "off" else chip.effects.read_noise
    if isinstance(choice, Physics):
        physics = choice
    elif choice == "ideal":
        return Physics()
    elif isinstance(choice, str) and choice.partition(",")[0].strip() == "full":
        physics = _changed(_full(chip, noise, training), choice, noise or READ_NOISE_KINDS[0], training)
    else:
        physics = _from_names(choice, noise or READ_NOISE_KINDS[0], training)
    for name in physics.names():
        _check(name, physics, chip, training)
    return physics


def _full(chip: ChipSpec, noise: str | None, training: bool) -> Physics:
    """What "full" is on a chip; `noise` is the kind of its read noise."""
    on = {field.name: getattr(chip.effects, field.name) for field in fields(EffectsSpec)}
    on |= {"dac": chip.dac.on, "adc": chip.adc.on, "read_noise": noise}
    if training:
        on = {name: on[name] for name in RUN_AND_TRAINING} | dict.fromkeys(chip.training_effects, True)
    return Physics(**on)


def _check(name: str, physics: Physics, chip: ChipSpec, training: bool) -> None:
    """ChipError if an effect that is on can't be: it has no law, or none here, or it needs another."""
    if name in TRAINING_EFFECTS and not training:
        raise ChipError(f"physics {name}: it is one of training in place, not of a run; leave it out")
    if training and name not in (*RUN_AND_TRAINING, *TRAINING_EFFECTS):
        why = _NOT_IN_TRAINING.get(name, "it is modelled in runs only")
        raise ChipError(f"physics {name}: training in place is without it: {why}; leave it out")
    there = ("dac", "adc", *(chip.training_effects if name in TRAINING_EFFECTS else chip.available_effects))
    if name not in there:
        raise ChipError(f"physics {name}: chip {chip.name} can't have it: {no_law(chip, name)}; leave it out")
    if name in ("readout_noise", "mismatch") and not physics.adc:
        raise ChipError(f"physics {name}: it is one of the output converters; switch adc on, too")
    if name == "pulse_noise" and not physics.pulses:
        raise ChipError(f"physics {name}: it is noise of single pulses; switch pulses on, too")


def _changed(full: Physics, choice: str, noise: str, training: bool) -> Physics:
    """The effects of a `full` with the names that follow it switched on or, with a minus sign, off."""
    names = [name.strip() for name in choice.split(",")[1:]]
    added = ",".join(name for name in names if not name.startswith("-"))
    on = _from_names(added, noise, training) if added else Physics()
    switches = {name: getattr(on, name) for name in on.names()}
    for name in names:
        if name.startswith("-"):
            off = name[1:].strip()
            if off not in _ALL:
                raise ChipError(f"physics {choice!r}: no effect of the name {off!r}; {_known(training)}")
            switches[off] = None if off == "read_noise" else False
    return replace(full, **switches)


def _from_names(choice: object, noise: str, training: bool) -> Physics:
    """The effects in a list of names with commas between them; `noise` is the kind of "read_noise"."""
    if not isinstance(choice, str):
        raise ChipError(f"physics {choice!r}: must be a text or a Physics; {_known(training)}")
    switches: dict[str, bool] = {}
    kind = None
    for item in choice.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in _ALL or (equals and name != "read_noise"):
            alone = (
                f"{name} must stand {'alone' if name == 'ideal' else 'first'}"
                if name in ("ideal", "full")
                else f"no effect of the name {item.strip()!r}"
            )
            raise ChipError(f"physics {choice!r}: {alone}; {_known(training)}")
        if name == "read_noise":
            kind = value if equals else noise
        else:
            switches[name] = True
    return Physics(read_noise=kind, **switches)


def _known(training: bool) -> str:
    names = (*RUN_AND_TRAINING, *TRAINING_EFFECTS) if training else EFFECTS
    example = "full,-leak" if training else "full,ir_drop,-drift"
    return (
        "known are ideal, full, or some of "
        + ", ".join(names)
        + f" with commas between them, after full, too ({example})"
    )
