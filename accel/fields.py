"""What the fields of a chip description may hold, and the check of one section against its dataclass.

A section is a dataclass whose fields are `Annotated` with one of the rules below: type, range and unit stand
beside the name, and `take_section` checks all of them alike. Chip descriptions also travel inside program
files from strangers, so nothing that comes in is taken on trust, not even that it can be printed.
"""

import dataclasses
import difflib
import functools
import typing
from dataclasses import dataclass
from typing import Any, Protocol

from pcmc.errors import ChipError


class Rule(Protocol):
    """What a field may hold. `str(rule)` ends the sentence "must be ..."."""

    def take(self, value: object) -> object:
        """The value as the dataclass keeps it; ValueError if the field may not hold it."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`. A boolean is not a number, and 3.0 is not a whole one."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"a whole number from {self.low:,} to {self.high:,}"

    def take(self, value: object) -> int:
        """`value`; ValueError if it is of another type or out of range."""
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number from `low` to `high`, in `unit`; kept as a float."""

    low: float
    high: float
    unit: str = ""

    def __str__(self) -> str:
        return f"a number from {self.low:,g} to {self.high:,g} {self.unit}".rstrip()

    def take(self, value: object) -> float:
        """`value` as a float; ValueError if it is of another type, out of range or not finite."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError
        if not self.low <= value <= self.high:  # also refuses NaN, and integers too large for a float
            raise ValueError
        return float(value)


@dataclass(frozen=True, slots=True)
class Reals:
    """A list of `shortest` to `longest` finite numbers from `low` to `high`, in `unit`; kept as a tuple."""

    low: float
    high: float
    shortest: int
    longest: int
    unit: str = ""

    def __str__(self) -> str:
        span = f"from {self.low:,g} to {self.high:,g} {self.unit}".rstrip()
        return f"a list of {self.shortest} to {self.longest} numbers {span}"

    def take(self, value: object) -> tuple[float, ...]:
        """`value` as a tuple of floats; ValueError if it or one of its numbers may not stand here."""
        if not isinstance(value, list | tuple) or not self.shortest <= len(value) <= self.longest:
            raise ValueError
        number = Real(self.low, self.high)
        return tuple(number.take(item) for item in value)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def __str__(self) -> str:
        return "true or false"

    def take(self, value: object) -> bool:
        """`value`; ValueError if it is of another type."""
        if not isinstance(value, bool):
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return "one of " + ", ".join(f'"{word}"' for word in self.words)

    def take(self, value: object) -> str:
        """`value`; ValueError if it is none of the words."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """One line of printable text, of 1 to `longest` characters."""

    longest: int

    def __str__(self) -> str:
        return f"one line of text, 1 to {self.longest:,} characters"

    def take(self, value: object) -> str:
        """`value`; ValueError if it is of another type, empty, too long or has control characters."""
        if not isinstance(value, str) or not 1 <= len(value) <= self.longest or not value.isprintable():
            raise ValueError
        return value


@functools.cache
def rules(section: type) -> dict[str, Any]:
    """For each field of a dataclass its rule or, of a field that has none, its type."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {name: getattr(hint, "__metadata__", (hint,))[0] for name, hint in hints.items()}


@functools.cache
def optional(section: type) -> frozenset[str]:
    """The fields of a dataclass that have a default: a file may leave them out."""
    fields = dataclasses.fields(section)
    return frozenset(field.name for field in fields if field.default is not dataclasses.MISSING)


def take(rule: Rule, value: object, field: str) -> Any:
    """The value as the rule keeps it; ChipError that names field, value and rule otherwise."""
    try:
        return rule.take(value)
    except ValueError:
        raise ChipError(f"{field} = {shown(value)}: must be {rule}") from None


def take_section(section: type, name: str, table: object, origin: str) -> Any:
    """A checked instance of the dataclass `section`, from the table that `origin` has under `name`.

    Raises:
        ChipError: the table is none, or one of its fields is missing, unknown, of the wrong type or out of
        range.
    """
    if not isinstance(table, dict):
        raise ChipError(f"{origin}: {name} = {shown(table)}: must be a section, [{name}]")
    check_names(table, section, origin, f"[{name}] ")
    return section(
        **{
            key: take(rule, table[key], f"{origin}: [{name}] {key}")
            for key, rule in rules(section).items()
            if key in table
        }
    )


def check_names(table: dict[str, Any], section: type, origin: str, place: str = "") -> None:
    """ChipError if a name in `table` is no field of `section`, or a field without default is missing.

    Unknown names come first: a misspelt field is both, and the spelling is what the user wants to hear of.
    """
    known = rules(section)
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(str(key)[:100], list(known), 1)
            hint = f"did you mean {close[0]}?" if close else "known are " + ", ".join(known)
            name = key if isinstance(key, str) and key.isprintable() and len(key) <= 100 else shown(key)
            kind = "section" if isinstance(value, dict) else "field"
            raise ChipError(f"{origin}: {place}{name}: unknown {kind}; {hint}")
    for name, rule in known.items():
        if name not in table and name not in optional(section):
            wanted = f"{rule}" if hasattr(rule, "take") else f"a section, [{name}]"
            raise ChipError(f"{origin}: {place}{name}: missing; must be {wanted}")


def shown(value: object) -> str:
    """A value from outside, short enough for a message.

    Python refuses to print integers of thousands of digits, and strangers' lists may be nested without end.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length():,} bits"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list | tuple):
        items = ["[...]" if isinstance(item, list | tuple) else shown(item) for item in value[:8]]
        return "[" + ", ".join(items + ["..."] * (len(value) > 8)) + "]"
    text = f'"{repr(value[:200])[1:-1]}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
