"""Energy and area: counts of events and of parts, times the constants of the chip file.

The constants are those of a chip's `[costs]`; docs/chips.md says where the shipped ones come from, and what
they were calibrated to.
"""

from dataclasses import dataclass, fields

from pcmc.accel.chip import ChipSpec


@dataclass(frozen=True, slots=True)
class Events:
    """What happens on the chip, as counts per sample: add them over steps, multiply them by samples.

    `cell_reads` counts a cell once for each vector that it meets; `link_byte_hops` counts a byte once for
    each link of the mesh that it crosses; `buffer_bytes` counts bytes read and bytes written.
    """

    cell_reads: float = 0.0
    dac_conversions: float = 0.0
    adc_conversions: float = 0.0
    digital_ops: float = 0.0
    buffer_bytes: float = 0.0
    link_byte_hops: float = 0.0
    chip_link_bytes: float = 0.0

    def __add__(self, other: "Events") -> "Events":
        if not isinstance(other, Events):
            return NotImplemented
        return Events(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __mul__(self, times: float) -> "Events":
        if not isinstance(times, int | float):
            return NotImplemented
        return Events(*(getattr(self, field.name) * times for field in fields(self)))

    __rmul__ = __mul__


def energy_j(events: Events, chip: ChipSpec) -> dict[str, float]:
    """Energy of the events in J, by component; the total is the sum of the values.

    Only what an inference does is counted: no leakage, no programming, no training.
    """
    costs = chip.costs
    return {
        "cells": events.cell_reads * costs.cell_read_j,
        "dac": events.dac_conversions * costs.dac_conversion_j,
        "adc": events.adc_conversions * costs.adc_conversion_j,
        "digital": events.digital_ops * costs.digital_op_j,
        "buffer": events.buffer_bytes * costs.buffer_byte_j,
        "link": events.link_byte_hops * costs.link_byte_hop_j,
        "chip_link": events.chip_link_bytes * costs.chip_link_byte_j,
    }


def area_mm2(chip: ChipSpec, chips: int) -> dict[str, float]:
    """Area of `chips` chips in mm2, by component; the total is the sum of the values.

    A tile has an input converter a row, an output converter a column, and a router; a chip has one digital
    unit, whose area includes the buffers. Links between chips are not counted.
    """
    costs, tile = chip.costs, chip.tile
    tiles = chips * chip.chip.tiles
    um2 = 1e-6  # in mm2
    return {
        "cells": tiles * tile.rows * tile.cols * costs.cell_um2 * um2,
        "dac": tiles * tile.rows * costs.dac_um2 * um2,
        "adc": tiles * tile.cols * costs.adc_um2 * um2,
        "digital": chips * costs.digital_unit_mm2,
        "router": tiles * costs.router_mm2,
    }
