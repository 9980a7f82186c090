"""What the devices of a chip hold: alike for one seed, named by place, saved and read back exactly."""

import dataclasses
from functools import cache

import builders
import numpy as np
import pytest

import pcmc
from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_to_dict
from pcmc.errors import ProgramError
from pcmc.runtime import program_file
from pcmc.runtime.program import Program
from pcmc.runtime.reads import Reading, read_bank_cells
from pcmc.runtime.state import ChipState, blocks_of, program_chip

NOISY = pcmc.Physics(programming_error=True, read_noise="frozen")
EXACT = pcmc.Physics(adc=True)


def read_cells(bank, held, chip):
    """The weights of a bank, as reads without noise find them."""
    return read_bank_cells(bank, held, chip, Reading(EXACT, 0, 0)).weights


@cache
def program() -> Program:
    return pcmc.compile(builders.mlp([40, 30, 7]), builders.chip(16, 12))


def ideal_chip() -> ChipSpec:
    tables = chip_to_dict(builders.chip(16, 12))
    del tables["pulses"]
    return chip_from_dict(
        {**tables, "cell": {"kind": "ideal"}, "effects": {"programming_error": False, "read_noise": "off"}},
        "test",
    )


def same_devices(one: ChipState, other: ChipState) -> bool:
    return one.banks.keys() == other.banks.keys() and all(
        np.array_equal(one.banks[name].devices.g_plus, other.banks[name].devices.g_plus)
        and np.array_equal(one.banks[name].devices.g_minus, other.banks[name].devices.g_minus)
        for name in one.banks
    )


def x(count: int = 5) -> dict[str, np.ndarray]:
    return {"x": builders.rng(3).standard_normal((count, 40)).astype(np.float32)}


def test_programming_twice_with_one_seed_gives_equal_devices():
    assert same_devices(program_chip(program(), NOISY, 7), program_chip(program(), NOISY, 7))


def test_another_seed_gives_other_devices_in_every_bank():
    one, other = program_chip(program(), NOISY, 7), program_chip(program(), NOISY, 8)
    for name in one.banks:
        assert not np.array_equal(one.banks[name].devices.g_plus, other.banks[name].devices.g_plus)


def test_without_programming_error_devices_are_on_target_whatever_the_seed():
    one = program_chip(program(), EXACT, 7)
    assert same_devices(one, program_chip(program(), EXACT, 8))
    for name, bank in program().banks.items():
        held = one.banks[name]
        assert held.devices.g_plus.max() == pytest.approx(
            20.0
        ) or held.devices.g_minus.max() == pytest.approx(20.0)
        assert np.all(np.minimum(held.devices.g_plus, held.devices.g_minus) == 0)
        cells = read_cells(bank, held, program().chip)
        for block in bank.table:  # the bias row holds bias / bias_drive
            part = slice(int(block["offset"]), int(block["offset"] + block["rows"] * block["cols"]))
            want = bank.cells[part].reshape(block["rows"], block["cols"]).copy()
            if block["bias"]:
                want[-1] /= held.bias_drive
            assert np.allclose(cells[part], want.ravel(), atol=held.w_max[0] * 1e-6)


def test_the_largest_weight_and_the_largest_bias_use_the_whole_range():
    bank, held = program().banks["dense0"], program_chip(program(), EXACT, 0).banks["dense0"]
    weights, bias = bank.matrix()
    assert bias is not None
    assert held.w_max == pytest.approx(np.full(held.w_max.shape, np.abs(weights).max()))
    assert held.bias_drive == pytest.approx(np.abs(bias).max() / np.abs(weights).max())


def test_blocks_of_one_bank_err_apart():
    """Equal targets in two tiles get different errors: the stream is named by the place."""
    model = builders.mlp([32, 12], bias=False)
    model.graph.initializer[0].raw_data = np.ones((32, 12), np.float32).tobytes()
    spec = builders.chip(16, 12)
    held = program_chip(pcmc.compile(model, spec), NOISY, 0).banks["dense0"].devices.g_plus
    first, second = held[:192], held[192:]
    assert not np.any(first == second)


def test_streams_are_named_by_place_effect_and_step():
    block, other = list(blocks_of(program().banks["dense0"]))[:2]
    draw = block.stream(1, "read_noise").normal(4)
    assert np.array_equal(draw, block.stream(1, "read_noise").normal(4))
    for stream in (
        other.stream(1, "read_noise"), block.stream(2, "read_noise"),
        block.stream(1, "programming_error"), block.stream(1, "read_noise", 1),
    ):  # fmt: skip
        assert not np.any(draw == stream.normal(4))


def test_ideal_cells_hold_the_weights_themselves():
    one = pcmc.compile(builders.mlp([40, 30, 7], bias=False), ideal_chip())
    state = program_chip(one, EXACT, 0)
    for name, bank in one.banks.items():
        assert np.array_equal(read_cells(bank, state.banks[name], one.chip), bank.cells)


def test_a_saved_state_is_read_back_exactly(tmp_path):
    state = dataclasses.replace(
        program_chip(program(), NOISY, 7), clock_s=12.5, steps={"programming_error": 1, "read": 3}
    )
    program_file.save(program(), tmp_path / "a.pcmc", state)
    loaded = program_file.load_state(tmp_path / "a.pcmc")
    assert loaded is not None
    assert same_devices(loaded, state)
    assert (loaded.seed, loaded.clock_s, loaded.steps) == (7, 12.5, {"programming_error": 1, "read": 3})
    for name, held in state.banks.items():
        back = loaded.banks[name]
        assert np.array_equal(back.w_max, held.w_max)
        for field in ("bias_drive", "polarity", "writes"):
            assert getattr(back, field) == getattr(held, field)
    assert pcmc.load(tmp_path / "a.pcmc").report() == program().report()


def test_a_session_on_a_saved_state_gives_the_same_bits(tmp_path):
    session = pcmc.Session(program(), "full", seed=7)
    assert session.state is not None
    program_file.save(program(), tmp_path / "a.pcmc", session.state)
    again = pcmc.Session(
        tmp_path / "a.pcmc", "full", seed=7, state=program_file.load_state(tmp_path / "a.pcmc")
    )
    assert np.array_equal(session.run(None, x())[0], again.run(None, x())[0])


def test_ideal_cells_can_be_saved_too(tmp_path):
    one = pcmc.compile(builders.mlp([40, 30, 7]), ideal_chip())
    state = program_chip(one, EXACT, 0)
    program_file.save(one, tmp_path / "a.pcmc", state)
    loaded = program_file.load_state(tmp_path / "a.pcmc")
    assert loaded is not None
    assert same_devices(loaded, state)
    assert np.array_equal(
        pcmc.Session(one, "adc", state=loaded).run(None, x())[0], pcmc.Session(one, "adc").run(None, x())[0]
    )


def test_a_program_without_a_state_has_none(tmp_path):
    program().save(tmp_path / "a.pcmc")
    assert program_file.load_state(tmp_path / "a.pcmc") is None


def test_a_session_refuses_the_state_of_another_program():
    other = pcmc.compile(builders.mlp([40, 30]), builders.chip(16, 12))
    with pytest.raises(ProgramError, match="the state has no bank 'dense1'"):
        pcmc.Session(program(), "full", state=program_chip(other, NOISY, 0))
    wider = pcmc.compile(builders.mlp([40, 31, 7]), builders.chip(16, 12))
    with pytest.raises(ProgramError, match="the state of bank 'dense0' has"):
        pcmc.Session(program(), "full", state=program_chip(wider, NOISY, 0))


def test_devices_are_read_only():
    held = program_chip(program(), NOISY, 0).banks["dense0"].devices
    assert not held.g_plus.flags.writeable
    assert not held.g_minus.flags.writeable


def test_a_matrix_of_zeros_and_one_of_zeros_with_a_bias_are_programmed_and_read():
    model = builders.mlp([6, 3])
    for name in ("w0",), ("w0", "b0"):
        for tensor in model.graph.initializer:
            if tensor.name in name:
                tensor.raw_data = bytes(len(tensor.raw_data))
        one = pcmc.compile(model)
        y = pcmc.Session(one, pcmc.Physics(dac=True, adc=True)).run(None, {"x": np.ones((2, 6), np.float32)})[
            0
        ]
        bias = next(builders.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "b0")
        assert np.allclose(y, bias, atol=20 * (np.abs(bias).max() or 1) / 255)


def test_biases_far_smaller_or_larger_than_the_weights_use_the_whole_range_too():
    for scale in (1e-30, 1e30):
        model = builders.mlp([6, 3])
        bias = (builders.weights(3, seed=1) * np.float32(scale)).astype(np.float32)
        next(t for t in model.graph.initializer if t.name == "b0").raw_data = bias.tobytes()
        one = pcmc.compile(model)
        held = program_chip(one, EXACT, 0).banks["dense0"]
        assert held.bias_drive == pytest.approx(np.abs(bias).max() / held.w_max[0])
        cells = read_cells(one.banks["dense0"], held, one.chip).reshape(7, 3)
        assert np.allclose(cells[-1], bias / held.bias_drive, rtol=1e-5)


def test_clipped_conductances_stay_in_range():
    held = program_chip(program(), NOISY, 0).banks["dense0"].devices
    assert held.g_plus.min() >= 0
    assert held.g_minus.min() >= 0
