"""What a session keeps for each weight: what a counter can make again is not stored."""

import builders
import numpy as np
import pytest

import pcmc
from pcmc.runtime.state import program_chip

CHIP = pcmc.load_chip("nature2018")


def bytes_per_weight(session: pcmc.Session, program: pcmc.Program) -> float:
    """The arrays of all banks as they are read, and of solved wires."""
    arrays: list[np.ndarray | None] = []
    for bank in session._banks.values():
        for part in bank.parts:
            arrays.append(part.bank.cells)
            if part.noise is not None:
                arrays += [part.noise.floor] + ([part.noise.variances.halves] if part.noise.variances else [])
            if part.converters.columns is not None:
                arrays += [
                    getattr(part.converters.columns, name) for name in ("gain", "offset", "step", "shift")
                ]
    if session.wires is not None:
        arrays += [array for bank in session.wires.banks.values() for array in (bank.weights, bank.damping)]
    total = sum(array.nbytes for array in arrays if array is not None)
    return total / sum(bank.cells.size for bank in program.banks.values())


@pytest.mark.parametrize(
    "physics", ["full", "full,read_noise=fast", "full,read_noise=split", "full,read_noise=split,ir_drop"]
)
def test_a_session_keeps_at_most_ten_bytes_for_each_weight(physics):
    program = pcmc.compile(builders.mlp([1000, 300, 100]), CHIP)
    session = pcmc.Session(program, physics, at="1d")
    session.run(None, {"x": np.zeros((1, 1000), np.float32)})
    assert bytes_per_weight(session, program) <= 10.1  # a scale and a damping a column, beside


def test_the_devices_of_a_pair_take_eight_bytes():
    program = pcmc.compile(builders.mlp([1000, 300]), CHIP)
    state = program_chip(program, pcmc.Physics(programming_error=True), 0)
    (held,) = state.banks.values()
    arrays = (held.devices.g_plus, held.devices.g_minus, held.devices.low, held.w_max)
    assert sum(array.nbytes for array in arrays) <= 8.1 * program.banks["dense0"].cells.size
