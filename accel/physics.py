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

    def names(self) -> tuple[str, ...]:
        """The names of the effects that are on, in the order of the fields."""
        return tuple(name for name in EFFECTS if getattr(self, name))


EFFECTS = tuple(field.name for field in fields(Physics))
"""The names of all effects."""


def resolve(choice: "str | Physics", chip: ChipSpec) -> Physics:
    """The effects that a user's choice means on a chip.

    Args:
        choice: "ideal" (none), "full" (those that the chip file states on), names of effects with commas
            between them ("dac,adc"; on whatever the chip file says), "full" and then names, each on as well
            or, with a minus sign, off ("full,ir_drop,-drift"), or a Physics. "read_noise" is of the kind that
            the chip file names, or frozen if it says "off"; "read_noise=fast" says which.
        chip: the chip; its `dac.on`, `adc.on` and `effects` say what "full" is.

    Raises:
        ChipError: an unknown name, or an effect that the chip has no law of.
    """
    noise = None if chip.effects.read_noise == "off" else chip.effects.read_noise
    if isinstance(choice, Physics):
        physics = choice
    elif choice == "ideal":
        return Physics()
    elif isinstance(choice, str) and choice.partition(",")[0].strip() == "full":
        on = {field.name: getattr(chip.effects, field.name) for field in fields(EffectsSpec)}
        physics = Physics(dac=chip.dac.on, adc=chip.adc.on, **on | {"read_noise": noise})
        physics = _changed(physics, choice, noise or READ_NOISE_KINDS[0])
    else:
        physics = _from_names(choice, noise or READ_NOISE_KINDS[0])
    for name in physics.names():
        if name not in ("dac", "adc") and name not in chip.available_effects:
            raise ChipError(
                f"physics {name}: chip {chip.name} can't have it: {no_law(chip, name)}; leave it out"
            )
        if name in ("readout_noise", "mismatch") and not physics.adc:
            raise ChipError(f"physics {name}: it is one of the output converters; switch adc on, too")
    return physics


def _changed(full: Physics, choice: str, noise: str) -> Physics:
    """The effects of a `full` with the names that follow it switched on or, with a minus sign, off."""
    names = [name.strip() for name in choice.split(",")[1:]]
    added = ",".join(name for name in names if not name.startswith("-"))
    on = _from_names(added, noise) if added else Physics()
    switches = {name: getattr(on, name) for name in on.names()}
    for name in names:
        if name.startswith("-"):
            off = name[1:].strip()
            if off not in EFFECTS:
                raise ChipError(f"physics {choice!r}: no effect of the name {off!r}; {_known()}")
            switches[off] = None if off == "read_noise" else False
    return replace(full, **switches)


def _from_names(choice: object, noise: str) -> Physics:
    """The effects in a list of names with commas between them; `noise` is the kind of "read_noise"."""
    if not isinstance(choice, str):
        raise ChipError(f"physics {choice!r}: must be a text or a Physics; {_known()}")
    switches: dict[str, bool] = {}
    kind = None
    for item in choice.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in EFFECTS or (equals and name != "read_noise"):
            alone = (
                f"{name} must stand {'alone' if name == 'ideal' else 'first'}"
                if name in ("ideal", "full")
                else f"no effect of the name {item.strip()!r}"
            )
            raise ChipError(f"physics {choice!r}: {alone}; {_known()}")
        if name == "read_noise":
            kind = value if equals else noise
        else:
            switches[name] = True
    return Physics(read_noise=kind, **switches)


def _known() -> str:
    return (
        "known are ideal, full, or some of "
        + ", ".join(EFFECTS)
        + " with commas between them, after full, too (full,ir_drop,-drift)"
    )
