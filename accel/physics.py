"""The switches of the physics: which effects a run includes, each by its name.

| name              | what it switches on                                                     | where |
| ----------------- | ----------------------------------------------------------------------- | --- |
| dac               | inputs are rounded to the levels of the input converters                | tile |
| adc               | outputs are rounded to the levels of the output converters, and clipped | tile |
| programming_error | devices end up beside their targets, once per programming               | cells |
| read_noise        | "frozen": conductances as one read finds them, drawn once per session   | cells |
"""

from dataclasses import dataclass, fields

from pcmc.accel.chip import ChipSpec, IdealCellSpec
from pcmc.errors import ChipError

READ_NOISE_KINDS = ("frozen",)
"""The kinds of read noise that there are: "frozen", as aihwkit draws it."""


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

    def __post_init__(self) -> None:
        for name in ("dac", "adc", "programming_error"):
            if not isinstance(getattr(self, name), bool):
                raise ChipError(f"physics: {name} = {getattr(self, name)!r}: must be True or False")
        if self.read_noise is not None and self.read_noise not in READ_NOISE_KINDS:
            known = ", ".join(f'"{kind}"' for kind in READ_NOISE_KINDS)
            raise ChipError(f"physics: read_noise = {self.read_noise!r}: must be None or one of {known}")

    @property
    def is_ideal(self) -> bool:
        """Whether all effects are off."""
        return not self.names()

    def names(self) -> tuple[str, ...]:
        """The names of the effects that are on, in the order of the fields."""
        return tuple(name for name in EFFECTS if getattr(self, name))


EFFECTS = tuple(field.name for field in fields(Physics))
"""The names of all effects."""

CELL_EFFECTS = ("programming_error", "read_noise")
"""The effects that an ideal cell doesn't have."""


def resolve(choice: "str | Physics", chip: ChipSpec) -> Physics:
    """The effects that a user's choice means on a chip.

    Args:
        choice: "ideal" (none), "full" (those that the chip file states on), names of effects with commas
            between them ("dac,adc"; on whatever the chip file says), or a Physics.
        chip: the chip; its `dac.on`, `adc.on` and `effects` say what "full" is.

    Raises:
        ChipError: an unknown name, or an effect that the chip's cell doesn't have.
    """
    if isinstance(choice, Physics):
        physics = choice
    elif choice == "ideal":
        return Physics()
    elif choice == "full":
        frozen = None if chip.effects.read_noise == "off" else chip.effects.read_noise
        physics = Physics(chip.dac.on, chip.adc.on, chip.effects.programming_error, frozen)
    else:
        physics = _from_names(choice)
    if isinstance(chip.cell, IdealCellSpec):
        for name in physics.names():
            if name in CELL_EFFECTS:
                raise ChipError(
                    f"physics {name}: chip {chip.name} has ideal cells, which have none; leave it out"
                )
    return physics


def _from_names(choice: object) -> Physics:
    """The effects in a list of names with commas between them."""
    if not isinstance(choice, str):
        raise ChipError(f"physics {choice!r}: must be a text or a Physics; {_known()}")
    names = [name.strip() for name in choice.split(",")]
    for name in names:
        if name not in EFFECTS:
            alone = (
                f"{name} must stand alone" if name in ("ideal", "full") else f"no effect of the name {name!r}"
            )
            raise ChipError(f"physics {choice!r}: {alone}; {_known()}")
    return Physics(
        "dac" in names,
        "adc" in names,
        "programming_error" in names,
        READ_NOISE_KINDS[0] if "read_noise" in names else None,
    )


def _known() -> str:
    return "known are ideal, full, or some of " + ", ".join(EFFECTS) + " with commas between them"
