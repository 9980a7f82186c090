"""The switches of the physics: which effects a run includes, each by its name.

| name              | what it switches on                                                     | where |
| ----------------- | ----------------------------------------------------------------------- | --- |
| dac               | inputs are rounded to the levels of the input converters                | tile |
| adc               | outputs are rounded to the levels of the output converters, and clipped | tile |
| programming_error | devices end up beside their targets, once per programming               | cells |
| read_noise        | conductances as reads find them; which reads share it, its kind says    | cells, tile |
| drift             | conductances change with the time since programming                     | cells |
| stuck             | some devices hold one level whatever is programmed                      | cells |

Kinds of read noise: "frozen" is drawn once per session and time, "fast" anew at each read, and "split" has
the part that is slower than a batch of reads frozen and the rest fast.
"""

from dataclasses import dataclass, fields
from typing import Literal

from pcmc.accel.chip import ChipSpec, IdealCellSpec
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
        """The part of the read noise that is drawn once: the `part` of a cell's `read`; None: nothing."""
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

CELL_EFFECTS = ("programming_error", "read_noise", "drift", "stuck")
"""The effects of cells; which of them a chip's cell can have, `CellSpec.effects` says."""


def resolve(choice: "str | Physics", chip: ChipSpec) -> Physics:
    """The effects that a user's choice means on a chip.

    Args:
        choice: "ideal" (none), "full" (those that the chip file states on), names of effects with commas
            between them ("dac,adc"; on whatever the chip file says), or a Physics. "read_noise" is of the
            kind that the chip file names, or frozen if it says "off"; "read_noise=fast" says which.
        chip: the chip; its `dac.on`, `adc.on` and `effects` say what "full" is.

    Raises:
        ChipError: an unknown name, or an effect that the chip's cell doesn't have.
    """
    noise = None if chip.effects.read_noise == "off" else chip.effects.read_noise
    if isinstance(choice, Physics):
        physics = choice
    elif choice == "ideal":
        return Physics()
    elif choice == "full":
        effects = chip.effects
        physics = Physics(
            chip.dac.on, chip.adc.on, effects.programming_error, noise, effects.drift, effects.stuck
        )
    else:
        physics = _from_names(choice, noise or READ_NOISE_KINDS[0])
    for name in physics.names():
        if name in CELL_EFFECTS and name not in chip.cell.effects:
            none = (
                "which have none"
                if isinstance(chip.cell, IdealCellSpec)
                else f"and its [cell] gives no law of {name}"
            )
            cells = f"chip {chip.name} has {chip.cell.kind} cells"
            raise ChipError(f"physics {name}: {cells}, {none}; leave it out")
    return physics


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
                f"{name} must stand alone"
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
    return "known are ideal, full, or some of " + ", ".join(EFFECTS) + " with commas between them"
