"""Right chip descriptions as dictionaries, one for each kind of cell, for tests that make them wrong."""

import copy
from typing import Any

from pcmc.accel.chip import chip_to_dict, load_chip

PCM = {key: value for key, value in chip_to_dict(load_chip("pcm2014"))["cell"].items() if key != "kind"}
CELLS = {
    "2pcm": PCM,
    "1pcm": PCM,
    "4pcm": PCM,
    "3t1c": {"g_low_us": 4.0, "g_high_us": 20.0, "g_reference_us": 12.0, "steps": 400, "leak_tau_s": 5.16e-3},
    "rram": {
        "g_min_us": 1.0,
        "g_max_us": 39.0,
        "g_max_fit_us": 39.26,
        "programming_error_us": [1.053, 0.2374, -1.167e-2, 1.536e-4],
    },
    "sram": {"bits": 8},
    "levels": {"bits": 16},
    "axon": {"axons": 4},
    "measured": {"g_max_us": 20.0},
    "ideal": {},
}
"""A right [cell] of each kind, beside that of nature2018; fields that have a default may be absent."""


def tables(kind: str = "2pcm+3t1c") -> dict[str, Any]:
    """A right description, as fresh dictionaries, with a cell of the kind asked for and its effects off."""
    right = chip_to_dict(load_chip("nature2018")) | {"wires": {}}
    if kind != "2pcm+3t1c":
        right["cell"] = {"kind": kind, **copy.deepcopy(CELLS[kind])}
        right["effects"] = {"programming_error": False, "read_noise": "off"}
        del right["pulses"]  # those of its cells
    if kind in ("2pcm", "4pcm"):
        right["pulses"] = chip_to_dict(load_chip("pcm2014"))["pulses"]
    assert right["cell"]["kind"] == kind
    return right
