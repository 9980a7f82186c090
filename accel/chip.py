"""Chip descriptions: what a chip file says, checked field by field.

A chip file is TOML with one section for each dataclass below; docs/chips.md explains every field. The type,
range and unit of a field stand beside it, as the `Annotated` rule of `pcmc.accel.fields` that is checked.
"""

import dataclasses
import difflib
import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pcmc.accel.cell_specs import CELL_KINDS, CONDUCTIVE_KINDS, CellSpec, IdealCellSpec, TwoTierCellSpec
from pcmc.accel.fields import (
    Choice,
    Flag,
    Real,
    Text,
    Whole,
    check_names,
    rules,
    shown,
    take,
    take_section,
)
from pcmc.accel.text_files import UnreadableTextError, read_text
from pcmc.accel.training_spec import PULSE_KINDS, BackwardSpec, PulseSpec, TrainingSpec, check_training
from pcmc.accel.wires import Wires
from pcmc.errors import ChipError

__all__ = [
    "CELL_KINDS",
    "MAX_FILE_BYTES",
    "AdcSpec",
    "BackwardSpec",
    "BoardSpec",
    "CellSpec",
    "ChipSpec",
    "CostSpec",
    "DacSpec",
    "DigitalSpec",
    "EffectsSpec",
    "IdealCellSpec",
    "LayoutSpec",
    "LinkSpec",
    "PulseSpec",
    "TileSpec",
    "TrainingSpec",
    "TwoTierCellSpec",
    "WeightSpec",
    "chip_from_dict",
    "chip_names",
    "chip_to_dict",
    "load_chip",
    "no_law",
]

MAX_FILE_BYTES = 1_000_000
"""A chip file is a page or two of text; anything larger is something else."""

_SECONDS = Real(1e-12, 1.0, "s")
_JOULES = Real(0.0, 1e-3, "J")
_SQUARE_MICROMETRES = Real(0.0, 1e9, "um2")
_SQUARE_MILLIMETRES = Real(0.0, 1e6, "mm2")
_PER_CYCLE = Real(1e-6, 1e12)


@dataclass(frozen=True, slots=True)
class TileSpec:
    """One array: `rows` x `cols` cells (the bias row is one of the rows), and the time of one read."""

    rows: Annotated[int, Whole(1, 65_536)]
    cols: Annotated[int, Whole(1, 65_536)]
    bias_row: Annotated[bool, Flag()]
    sharing: Annotated[str, Choice(("exclusive", "diagonal", "stacked"))]
    read_time_s: Annotated[float, _SECONDS]


@dataclass(frozen=True, slots=True)
class LayoutSpec:
    """The mesh of one chip: tile t is at x = t % mesh_x, y = t // mesh_x; the digital unit is at tile 0."""

    mesh_x: Annotated[int, Whole(1, 1024)]
    mesh_y: Annotated[int, Whole(1, 1024)]

    @property
    def tiles(self) -> int:
        """Tiles on one chip."""
        return self.mesh_x * self.mesh_y


@dataclass(frozen=True, slots=True)
class BoardSpec:
    """How many chips there may be; 0 is as many as the model needs."""

    max_chips: Annotated[int, Whole(0, 1_000_000)]


@dataclass(frozen=True, slots=True)
class WeightSpec:
    """How weights become conductances: what has a scale of its own, and the percentile that is the largest.

    `scale`: "matrix", all blocks of a matrix; "tile", each block; "column", each column of each block. The
    digital unit multiplies results accordingly. Weights beyond the `percentile` of magnitudes are clipped.
    """

    scale: Annotated[str, Choice(("matrix", "tile", "column"))] = "matrix"
    percentile: Annotated[float, Real(50.0, 100.0, "%")] = 100.0


_ONE_SCALE = WeightSpec()
_NO_WIRES = Wires()
_TRAINING = TrainingSpec()
_BACKWARD = BackwardSpec()
_KINDS: dict[str, dict[str, Any]] = {"cell": CELL_KINDS, "pulses": PULSE_KINDS}


def _codes_of_a_sign(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


@dataclass(frozen=True, slots=True)
class DacSpec:
    """The input converters, one a row: bits with sign; `on` says whether physics "full" quantizes inputs.

    `input`: values as "voltage", as the width of a "pulse", or bit-serial ("bits"), `slice_bits` at a time.
    `signed` = false: positive and negative inputs are sent in two phases. `range`: full scale is the largest
    input of each "vector" (image, for convolutions), or "fixed": `full`, unless calibration finds another.
    """

    bits: Annotated[int, Whole(2, 16)]
    on: Annotated[bool, Flag()]
    input: Annotated[str, Choice(("voltage", "pulse", "bits"))] = "voltage"
    slice_bits: Annotated[int, Whole(1, 15)] = 1
    signed: Annotated[bool, Flag()] = True
    range: Annotated[str, Choice(("vector", "fixed"))] = "vector"
    full: Annotated[float, Real(1e-6, 1e6)] = 1.0

    @property
    def levels(self) -> int:
        """Codes of each sign, 2^(bits - 1) - 1."""
        return _codes_of_a_sign(self.bits)


@dataclass(frozen=True, slots=True)
class AdcSpec:
    """The output converters, one a column: bits with sign; full scale in units of w_max * input range.

    `range`: "fixed", `range_cells`; "bank" or "column": calibration data set it, at `percentile` of the
    sums, for each matrix or each column of each block (without calibration, `range_cells`). `sample`: each
    "slice" of bit-serial inputs is converted, or their "sum". `subtract`: G+ and G- currents are subtracted
    before conversion ("analog"), or each is converted ("digital"); `slices`, likewise, for cells in bit
    slices. Mismatch between converters: standard deviations `offset_lsb` and `gain_error`; `corrected`, the
    digital unit undoes both. `noise_lsb`: standard deviation of the read-out noise.
    """

    bits: Annotated[int, Whole(2, 16)]
    range_cells: Annotated[float, Real(1e-3, 1e6)]
    on: Annotated[bool, Flag()]
    range: Annotated[str, Choice(("fixed", "bank", "column"))] = "fixed"
    percentile: Annotated[float, Real(50.0, 100.0, "%")] = 100.0
    sample: Annotated[str, Choice(("slice", "sum"))] = "slice"
    subtract: Annotated[str, Choice(("analog", "digital"))] = "analog"
    slices: Annotated[str, Choice(("analog", "digital"))] = "digital"
    noise_lsb: Annotated[float, Real(0.0, 1000.0, "LSB")] = 0.0
    offset_lsb: Annotated[float, Real(0.0, 1000.0, "LSB")] = 0.0
    gain_error: Annotated[float, Real(0.0, 0.25)] = 0.0
    corrected: Annotated[bool, Flag()] = False

    @property
    def levels(self) -> int:
        """Codes of each sign, 2^(bits - 1) - 1."""
        return _codes_of_a_sign(self.bits)


@dataclass(frozen=True, slots=True)
class EffectsSpec:
    """What physics "full" switches on, together with `dac.on` and `adc.on`; see `pcmc.accel.physics`."""

    programming_error: Annotated[bool, Flag()]
    read_noise: Annotated[str, Choice(("frozen", "fast", "split", "off"))]
    drift: Annotated[bool, Flag()] = False
    stuck: Annotated[bool, Flag()] = False
    ir_drop: Annotated[bool, Flag()] = False
    thermal_noise: Annotated[bool, Flag()] = False
    nonlinearity: Annotated[bool, Flag()] = False
    reference_error: Annotated[bool, Flag()] = False
    readout_noise: Annotated[bool, Flag()] = False
    mismatch: Annotated[bool, Flag()] = False


@dataclass(frozen=True, slots=True)
class DigitalSpec:
    """The digital unit of a chip: operations in a cycle (one tile read), and bytes of an activation."""

    ops_per_cycle: Annotated[float, _PER_CYCLE]
    bytes_per_value: Annotated[int, Whole(1, 8)]


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Bytes in one cycle over a link of the mesh, and over a link between neighbouring chips."""

    bytes_per_cycle: Annotated[float, _PER_CYCLE]
    chip_bytes_per_cycle: Annotated[float, _PER_CYCLE]


@dataclass(frozen=True, slots=True)
class CostSpec:
    """Energy of one event of each sort in J, and area of one part of each sort in um2 or mm2."""

    cell_read_j: Annotated[float, _JOULES]
    dac_conversion_j: Annotated[float, _JOULES]
    adc_conversion_j: Annotated[float, _JOULES]
    digital_op_j: Annotated[float, _JOULES]
    buffer_byte_j: Annotated[float, _JOULES]
    link_byte_hop_j: Annotated[float, _JOULES]
    chip_link_byte_j: Annotated[float, _JOULES]
    cell_um2: Annotated[float, _SQUARE_MICROMETRES]
    dac_um2: Annotated[float, _SQUARE_MICROMETRES]
    adc_um2: Annotated[float, _SQUARE_MICROMETRES]
    digital_unit_mm2: Annotated[float, _SQUARE_MILLIMETRES]
    router_mm2: Annotated[float, _SQUARE_MILLIMETRES]


@dataclass(frozen=True, slots=True)
class ChipSpec:
    """A chip, as its file describes it. `load_chip` and `chip_from_dict` make one that has been checked."""

    name: Annotated[str, Text(100)]
    description: Annotated[str, Text(1000)]
    source: Annotated[str, Text(1000)]
    cell: CellSpec
    tile: TileSpec
    chip: LayoutSpec
    board: BoardSpec
    dac: DacSpec
    adc: AdcSpec
    effects: EffectsSpec
    digital: DigitalSpec
    link: LinkSpec
    costs: CostSpec
    weights: WeightSpec = _ONE_SCALE
    wires: Wires = _NO_WIRES
    pulses: PulseSpec | None = None
    training: TrainingSpec = _TRAINING
    backward: BackwardSpec = _BACKWARD

    @property
    def training_effects(self) -> tuple[str, ...]:
        """The effects of training in place that the file gives a law of."""
        return () if self.pulses is None else self.pulses.effects

    @property
    def available_effects(self) -> tuple[str, ...]:
        """The effects that the file gives a law of, in the order of `EffectsSpec`."""
        cell = self.cell
        there = {
            "ir_drop": not self.wires.is_ideal and cell.kind in CONDUCTIVE_KINDS,
            "thermal_noise": getattr(cell, "read_voltage_v", 0.0) > 0,
            "nonlinearity": getattr(cell, "current_cubic", 0.0) != 0
            or getattr(cell, "polarity_loss", 0.0) != 0,
            "reference_error": getattr(cell, "reference_error_us", 0.0) > 0,
            "readout_noise": self.adc.noise_lsb > 0,
            "mismatch": self.adc.offset_lsb > 0 or self.adc.gain_error > 0,
        }
        names = [field.name for field in dataclasses.fields(EffectsSpec)]
        return tuple(name for name in names if name in cell.effects or there.get(name, False))


def chip_names() -> list[str]:
    """The names of the shipped chips, sorted."""
    files = resources.files("pcmc.accel.chips").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_chip(name_or_path: str | os.PathLike[str]) -> ChipSpec:
    """Read and check a chip description.

    Args:
        name_or_path: the name of a shipped chip (see `chip_names`), or the path of a TOML file. A file may
            say `extends = "nature2018"`, or name a file beside it; it then gives its own `name` and what
            differs.

    Raises:
        ChipError: no such chip or file, not TOML, or a field that is missing, unknown, of the wrong type, out
            of range or at odds with another; the message names the file and the field.
    """
    try:
        name = os.fsdecode(name_or_path)
    except TypeError:
        raise ChipError(f"chip {shown(name_or_path)}: must be a chip's name or a file's path") from None
    return chip_from_dict(*_read_tables(name, None, ()))


def chip_to_dict(spec: ChipSpec) -> dict[str, Any]:
    """The description as nested dictionaries of JSON's types; `chip_from_dict` undoes it exactly."""
    tables = dataclasses.asdict(spec)
    if spec.pulses is None:
        del tables["pulses"]
    for section in tables.values():
        if isinstance(section, dict):
            section.update((key, list(value)) for key, value in section.items() if isinstance(value, tuple))
    return tables


def chip_from_dict(d: dict[str, Any], origin: str) -> ChipSpec:
    """The checked description that nested dictionaries hold, as read from TOML or from a program file.

    Args:
        d: top-level fields and sections, named like the fields of ChipSpec. Not changed.
        origin: what messages call it, for example the file's name.

    Raises:
        ChipError: a field or section is missing, unknown, of the wrong type, out of range or at odds with
            another.
    """
    if not isinstance(d, dict):
        raise ChipError(f"{origin}: must be a table of sections, not {shown(d)}")
    check_names(d, ChipSpec, origin)
    values: dict[str, Any] = {}
    for name, rule in rules(ChipSpec).items():
        if name not in d:  # a section with defaults
            continue
        if hasattr(rule, "take"):
            values[name] = take(rule, d[name], f"{origin}: {name}")
        else:
            section = _class_of_kind(name, d[name], origin) if name in _KINDS else rule
            values[name] = take_section(section, name, d[name], origin)
    spec = ChipSpec(**values)
    _check_consistency(spec, origin)
    return spec


def _class_of_kind(name: str, table: object, origin: str) -> type:
    """The class that holds the parameters of the kind that a section names."""
    if not isinstance(table, dict):
        raise ChipError(f"{origin}: {name} = {shown(table)}: must be a section, [{name}]")
    kinds = Choice(tuple(_KINDS[name]))
    if "kind" not in table:
        raise ChipError(f"{origin}: [{name}] kind: missing; must be {kinds}")
    found: type = _KINDS[name][take(kinds, table["kind"], f"{origin}: [{name}] kind")]
    return found


def _check_consistency(spec: ChipSpec, origin: str) -> None:
    """ChipError if two fields contradict each other, each being within its own range."""
    if spec.tile.bias_row and spec.tile.rows == 1:
        raise ChipError(f"{origin}: [tile] rows = 1: must be at least 2 where bias_row = true")
    try:
        spec.cell.check()
    except ChipError as error:
        raise ChipError(f"{origin}: [cell] {error}") from None
    check_training(spec.pulses, spec.backward, spec.cell.kind, origin)
    if spec.dac.input == "bits" and spec.dac.slice_bits >= spec.dac.bits:
        raise ChipError(
            f"{origin}: [dac] slice_bits = {spec.dac.slice_bits}: must be less than bits = {spec.dac.bits}"
        )
    for name, most in (("word_segments", spec.tile.cols), ("bit_segments", spec.tile.rows)):
        if getattr(spec.wires, name) > most:
            raise ChipError(
                f"{origin}: [wires] {name} = {getattr(spec.wires, name):,}: must be at most {most:,}, "
                "the cells of a line in a tile"
            )
    if spec.wires.active_fraction < 1 and spec.wires.idle_row == "grounded":
        raise ChipError(
            f"{origin}: [wires] active_fraction = {spec.wires.active_fraction:g}: must be 1 where idle_row = "
            '"grounded": it matters where idle rows are "cut" or "floating"'
        )
    if spec.wires.differential == "shared" and spec.adc.subtract == "digital":
        raise ChipError(
            f'{origin}: [adc] subtract = "digital": must be "analog" where [wires] differential = '
            '"shared": a shared bit line carries the difference only'
        )
    if spec.cell.kind == "1pcm":
        if spec.adc.subtract == "digital" and spec.weights.scale != "matrix":
            raise ChipError(
                f'{origin}: [adc] subtract = "digital": must be "analog" with 1pcm cells, or [weights] scale '
                '"matrix": there is one offset for all columns'
            )
    elif spec.adc.subtract == "digital" and spec.cell.kind not in CONDUCTIVE_KINDS:
        raise ChipError(
            f'{origin}: [adc] subtract = "digital": must be "analog" with {spec.cell.kind} cells, '
            "which are no pairs of conductors"
        )
    for name in ("readout_noise", "mismatch"):
        if getattr(spec.effects, name) and not spec.adc.on:
            raise ChipError(f"{origin}: [effects] {name} = true: must be false where [adc] on = false")
    for field in dataclasses.fields(EffectsSpec):
        value = getattr(spec.effects, field.name)
        if value in (False, "off") or field.name in spec.available_effects:
            continue
        off = "false" if value is True else '"off"'
        raise ChipError(
            f"{origin}: [effects] {field.name} = {shown(value)}: must be {off}: {no_law(spec, field.name)}"
        )


#: What gives the law of an effect that is not one of the devices' statistics.
_LAWS = {
    "ir_drop": "[wires] with resistances, and cells that are pairs of conductors",
    "thermal_noise": "[cell] read_voltage_v",
    "nonlinearity": "[cell] current_cubic or polarity_loss",
    "reference_error": "[cell] reference_error_us",
    "readout_noise": "[adc] noise_lsb",
    "mismatch": "[adc] offset_lsb or gain_error",
    **dict.fromkeys(("pulses", "step_mismatch", "pulse_noise", "leak"), "[pulses] of a kind that has it"),
}


def no_law(spec: ChipSpec, effect: str) -> str:
    """Why a chip can't have an effect, as the end of a message."""
    if effect in _LAWS:
        return f"it takes {_LAWS[effect]}"
    if isinstance(spec.cell, IdealCellSpec):
        return f"{spec.cell.kind} cells have none"
    return f"the [cell] of kind {spec.cell.kind} gives no law of it"


def _read_tables(name: str, beside: Path | None, seen: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """The tables of a chip file, merged into those that it extends, and the file's name for messages.

    `beside` is the folder of the file that extends this one; `seen` names the files on the way here.
    """
    folder = None
    if name in chip_names():
        origin, text = name, (resources.files("pcmc.accel.chips") / f"{name}.toml").read_text("utf-8")
    else:
        path = Path(name) if beside is None else beside / name
        origin, text, folder = str(path), _read_text(path), path.parent
    if origin in seen:
        raise ChipError(f"{seen[0]}: extends goes in a circle: {' -> '.join((*seen, origin))}")
    tables = _parse(text, origin)
    if "extends" not in tables:
        return tables, origin
    parent = tables.pop("extends")
    if not isinstance(parent, str) or parent in ("", "..") or Path(parent).name != parent:
        raise ChipError(f"{origin}: extends = {shown(parent)}: must be a shipped chip or a file beside it")
    base, base_origin = _read_tables(parent, folder, (*seen, origin))
    chip_from_dict(base, base_origin)  # so that a mistake is blamed on the file that has it
    original = base.pop("name")  # a changed chip must not go by the name of the original
    if tables.get("name") == original:
        raise ChipError(f"{origin}: name = {shown(original)}: must differ from that of the chip it extends")
    return _merged(base, tables), origin


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the fields of `changes` put in, section by section."""
    merged = {**base, **changes}
    for key, old in base.items():
        new = changes.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            # A cell of another kind shares no parameters with the old one: it replaces it whole.
            same_kind = key not in _KINDS or new.get("kind", old["kind"]) == old["kind"]
            merged[key] = {**old, **new} if same_kind else new
    cell = changes.get("cell")
    if "pulses" not in changes and isinstance(cell, dict) and merged["cell"] is cell:
        merged.pop("pulses", None)  # they are those of other devices
    return merged


def _read_text(path: Path) -> str:
    """The text of a chip file; ChipError if it is missing, not a regular file, too large or not UTF-8."""
    shipped = "shipped chips: " + ", ".join(chip_names())
    try:
        return read_text(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        close = difflib.get_close_matches(str(path), chip_names(), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ChipError(f"{path}: no such file, and no chip of that name{hint} ({shipped})") from None
    except UnreadableTextError as error:
        name = str(path) if str(path).isprintable() else shown(str(path))
        raise ChipError(
            f"{name}: {error}; must be a chip description in TOML, or a name ({shipped})"
        ) from None


def _parse(text: str, origin: str) -> dict[str, Any]:
    """The tables of a TOML text; ChipError with line and column if it is not TOML."""
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer with too many digits
        raise ChipError(f"{origin}: not valid TOML: {error}") from None
    except RecursionError:
        raise ChipError(f"{origin}: not valid TOML: nested too deeply") from None
