"""A Session behaves as onnxruntime's, computes from the program's blocks, and its physics has its laws."""

import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from scipy.stats import norm

import pcmc
import real
from pcmc.accel import reference, tile
from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_to_dict
from pcmc.errors import ChipError, DataError, ProgramError
from pcmc.models import zoo
from pcmc.runtime.program import Program

Floats = NDArray[np.float64]
SHIPPED = tuple(zoo.names())


@cache
def shipped(name: str) -> Program:
    return pcmc.compile(zoo.path(name))


def images(count: int = 64) -> NDArray[np.float32]:
    return zoo.test_data("digits-mlp")[0][:count]


def onnxruntime_session(name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(zoo.path(name), providers=["CPUExecutionProvider"])


def changed_chip(spec: ChipSpec | None = None, **sections: dict[str, Any]) -> ChipSpec:
    """A chip with other values of some fields, by section."""
    tables = chip_to_dict(spec or builders.chip())
    for section, fields in sections.items():
        tables[section].update(fields)
    return chip_from_dict(tables, "test chip")


def one_matrix(
    rows: int, cols: int, *, bias: bool = False, spec: ChipSpec | None = None, seed: int = 0
) -> tuple[Program, Floats, Floats]:
    """A program of one dense layer, with its matrix and its bias as float64."""
    weights = builders.weights(rows, cols, seed=seed)
    constants = {"w": weights, **({"b": builders.weights(cols, seed=seed + 1)} if bias else {})}
    nodes = [builders.node("Gemm", ["x", *constants], ["y"], name="dense")]
    model = builders.model(nodes, {"x": ["N", rows]}, {"y": ["N", cols]}, constants)
    shift = constants.get("b", np.zeros(cols)).astype(np.float64)
    return pcmc.compile(model, spec or builders.chip(rows + 1, cols)), weights.astype(np.float64), shift


def vectors(count: int, rows: int, seed: int = 5) -> NDArray[np.float32]:
    return builders.rng(seed).standard_normal((count, rows)).astype(np.float32)


def output(program: Program, x: NDArray[Any], physics: Any = "ideal", **options: Any) -> Floats:
    (name,) = [info.name for info in program.inputs]
    result: Floats = pcmc.Session(program, physics, **options).run(None, {name: x})[0]
    return result.astype(np.float64) if result.dtype == np.float32 else result


# As onnxruntime.


@pytest.mark.parametrize("name", SHIPPED)
def test_ideal_session_equals_onnxruntime(name):
    x, labels = zoo.test_data(name)
    wanted = onnxruntime_session(name).run(None, {"x": x})[0]
    got = pcmc.Session(shipped(name)).run(None, {"x": x})[0]
    builders.assert_close([got], [wanted], 2e-6)
    assert np.mean(got.argmax(1) == labels) == np.mean(wanted.argmax(1) == labels)


@pytest.mark.parametrize("name", SHIPPED)
def test_inputs_and_outputs_are_described_as_by_onnxruntime(name):
    ours, theirs = pcmc.Session(shipped(name)), onnxruntime_session(name)
    for get in ("get_inputs", "get_outputs"):
        for mine, wanted in zip(getattr(ours, get)(), getattr(theirs, get)(), strict=True):
            assert (mine.name, mine.shape, mine.type) == (wanted.name, wanted.shape, wanted.type)


def typed(element: int, *shape: int | str) -> builders.Value:
    """A tensor of another type than float32."""
    return list(shape), element


def several() -> onnx.ModelProto:
    """Three outputs of two inputs of different types."""
    nodes = [
        builders.node("MatMul", ["x", "w"], ["a"], name="first"),
        builders.node("Where", ["keep", "a", "zero"], ["b"], name="chosen"),
        builders.node("MatMul", ["b", "v"], ["c"], name="second"),
        builders.node("Cast", ["c"], ["d"], name="whole", to=TensorProto.INT64),
    ]
    constants = {"w": builders.weights(6, 4), "v": builders.weights(4, 3, seed=1), "zero": np.float32(0)}
    outputs: dict[str, builders.Value] = {"c": ["N", 3], "a": ["N", 4], "d": typed(TensorProto.INT64, "N", 3)}
    inputs: dict[str, builders.Value] = {"x": ["N", 6], "keep": typed(TensorProto.BOOL, "N", 4)}
    return builders.model(nodes, inputs, outputs, constants)


def test_outputs_come_in_the_order_asked_for_and_all_for_none():
    model = several()
    session, feeds = pcmc.Session(pcmc.compile(model)), builders.feeds(model)
    c, a, d = session.run(None, feeds)
    builders.assert_close([c, a, d], builders.reference(model, feeds))
    assert d.dtype == np.int64
    for names in ([], ["c", "a", "d"]):
        assert all(map(np.array_equal, session.run(names, feeds), [c, a, d]))
    for names, wanted in ((["d", "c"], [d, c]), (["a"], [a]), (["a", "a"], [a, a]), (("c",), [c])):
        got = session.run(names, feeds)
        assert len(got) == len(wanted)
        assert all(map(np.array_equal, got, wanted))
    assert np.array_equal(session.run(["c"], feeds, None)[0], c)
    assert [info.type for info in session.get_inputs()] == ["tensor(float)", "tensor(bool)"]
    assert session.get_providers()[-1] == "CPUExecutionProvider"


def test_a_script_for_onnxruntime_runs_with_the_class_exchanged():
    def script(session: Any) -> Any:
        feed = {
            info.name: np.ones([1 if isinstance(d, str) else d for d in info.shape], np.float32)
            for info in session.get_inputs()
        }
        return session.run([info.name for info in session.get_outputs()], feed)[0]

    builders.assert_close(
        [script(pcmc.Session(shipped("digits-cnn")))], [script(onnxruntime_session("digits-cnn"))]
    )


def test_inputs_that_the_model_does_not_take_are_named():
    session = pcmc.Session(pcmc.compile(several()))
    good = builders.feeds(several())
    wrong = [
        ({"x": good["x"]}, "input 'keep' is missing; given was 'x'"),
        ({}, "input 'x' is missing; given was nothing"),
        ({**good, "extra": good["x"]}, "there is no input 'extra'; the model has x, keep"),
        (
            {**good, "x": good["x"].astype(np.float64)},
            r"'x' is float64, the model takes float32: convert it with .astype",
        ),
        ({**good, "keep": good["x"]}, "'keep' is float32, the model takes bool"),
        ({**good, "x": good["x"][:, :5]}, r"'x' has shape \[3, 5\], the model takes \['N', 6\]"),
        ({**good, "x": good["x"][0]}, r"'x' has shape \[6\]"),
        ({**good, "x": "hello"}, "'x' is "),
        ({**good, "x": np.array([object()])}, "'x' is object"),
    ]
    for feed, message in wrong:
        with pytest.raises(DataError, match=message):
            session.run(None, feed)
    with pytest.raises(DataError, match="there is no output 'z'; the model has c, a, d"):
        session.run(["c", "z"], good)
    assert len(session.run(None, good)) == 3  # and the session still works


def test_sizes_that_the_model_can_not_take_are_named_with_the_step():
    """Open dimensions take any size until a step says no, in a read or in onnxruntime."""
    nodes = [
        builders.node("Reshape", ["x", "shape"], ["f"], name="flat"),
        builders.node("MatMul", ["f", "w"], ["y"], name="dense"),
    ]
    constants = {"shape": np.array([0, -1]), "w": builders.weights(12, 3)}
    model = builders.model(nodes, {"x": ["N", 2, "W"]}, {"y": ["N", 3]}, constants)
    session = pcmc.Session(pcmc.compile(model, shapes={"x": (1, 2, 6)}))
    assert session.run(None, {"x": np.zeros((1, 2, 6), np.float32)})[0].shape == (1, 3)
    with pytest.raises(DataError, match=r"'x' has shape \[1, 2, 7\]"):
        session.run(None, {"x": np.zeros((1, 2, 7), np.float32)})
    model = builders.model(
        [builders.node("MatMul", ["x", "w"], ["y"], name="dense")],
        {"x": ["N", "W"]},
        {"y": ["N", 3]},
        constants,
    )
    session = pcmc.Session(pcmc.compile(model, shapes={"x": (1, 12)}))
    with pytest.raises(DataError, match=r"'x' has shape \[1, 13\]"):
        session.run(None, {"x": np.zeros((1, 13), np.float32)})
    session = pcmc.Session(pcmc.compile(builders.conv((2, 1, 3, 3), ("H", "W")), shapes={"x": (1, 1, 5, 5)}))
    with pytest.raises(DataError, match=r"'x' has shape|step 'conv'"):
        session.run(None, {"x": np.zeros((1, 1, 2, 2), np.float32)})


def test_a_step_that_does_not_fit_is_a_data_error_in_a_read_too():
    program = pcmc.compile(builders.mlp([6, 4, 3]))
    inputs = (dataclasses.replace(program.inputs[0], shape=("N", "W")),)
    session = pcmc.Session(dataclasses.replace(program, inputs=inputs))
    with pytest.raises(DataError, match=r"step 'dense0': can't read 'dense0' for an input of shape \[2, 7\]"):
        session.run(None, {"x": np.zeros((2, 7), np.float32)})


def test_an_empty_batch_gives_an_empty_result():
    for physics in ("ideal", "full"):
        assert output(shipped("digits-cnn"), images(0), physics).shape == (0, 10)


def test_a_session_can_be_made_from_a_path(tmp_path):
    shipped("digits-mlp").save(tmp_path / "a.pcmc")
    for path in (tmp_path / "a.pcmc", str(tmp_path / "a.pcmc")):
        assert np.array_equal(
            output(shipped("digits-mlp"), images()), pcmc.Session(path).run(None, {"x": images()})[0]
        )
    with pytest.raises(ProgramError, match="no such file"):
        pcmc.Session(tmp_path / "b.pcmc")


def test_wrong_settings_are_refused():
    with pytest.raises(DataError, match="threads = -1"):
        pcmc.Session(shipped("digits-mlp"), threads=-1)
    with pytest.raises(ChipError, match="known are ideal, full"):
        pcmc.Session(shipped("digits-mlp"), "fulll")


# Computed from the blocks.


def test_one_changed_cell_changes_its_column_and_no_other():
    program, _, _ = one_matrix(20, 6, spec=builders.chip(8, 4))
    bank = program.banks["dense"]
    cells = bank.cells.copy()
    block = bank.table[1]  # of the second four columns
    assert block["col0"] == 4
    cells[block["offset"]] += 1
    other = dataclasses.replace(program, banks={"dense": dataclasses.replace(bank, cells=cells)})
    x = vectors(3, 20)
    difference = output(other, x) - output(program, x)
    assert np.allclose(difference[:, 4], x[:, 0], atol=1e-5)
    assert np.all(np.delete(difference, 4, axis=1) == 0)


@pytest.mark.parametrize("column", ["row0", "col0"])
def test_a_block_in_another_part_of_the_matrix_changes_the_output(column):
    program, _, _ = one_matrix(20, 8, spec=builders.chip(8, 4))
    table = program.banks["dense"].table.copy()
    table[column][-1] -= 4
    bank = dataclasses.replace(program.banks["dense"], table=table)
    moved = dataclasses.replace(program, banks={"dense": bank})
    x = vectors(3, 20)
    assert np.max(np.abs(output(moved, x) - output(program, x))) > 0.01


CHIPS = [(sharing, bias) for sharing in builders.SHARINGS for bias in (True, False)]


@pytest.mark.parametrize(("sharing", "bias_row"), CHIPS)
def test_every_sharing_with_or_without_a_bias_row_gives_the_same_ideal_result(tmp_path, sharing, bias_row):
    path = tmp_path / "mine.toml"
    path.write_text(
        f'extends = "nature2018"\nname = "mine"\n[tile]\nrows = 24\ncols = 10\nsharing = "{sharing}"\n'
        f"bias_row = {str(bias_row).lower()}\n"
    )
    for model in (builders.mlp([40, 30, 7]), builders.conv((6, 1, 3, 3), (6, 5), group=3, pads=[1, 1, 1, 1])):
        program = builders.compiled_like_onnxruntime(model, pcmc.load_chip(path), tolerance=2e-6)
        assert program.chip.tile.sharing == sharing
        assert all((bank.bias is None) == bias_row for bank in program.banks.values())


def test_half_precision_rounds_as_onnxruntime_does():
    """Sums are made in single precision and rounded once: at most one step of float16 from onnxruntime."""
    half = TensorProto.FLOAT16
    constants = {
        "w": builders.weights(30, 20, dtype=np.float16),
        "v": builders.weights(20, 5, seed=1, dtype=np.float16),
    }
    nodes = [
        builders.node("MatMul", ["x", "w"], ["a"]),
        builders.node("Relu", ["a"], ["b"]),
        builders.node("MatMul", ["b", "v"], ["y"]),
    ]
    model = builders.model(nodes, {"x": (["N", 30], half)}, {"y": (["N", 5], half)}, constants)
    feeds = builders.feeds(model, batch=40)
    got, wanted = builders.run(pcmc.compile(model), feeds)[0], builders.reference(model, feeds)[0]
    assert got.dtype == np.float16
    step = np.spacing(np.abs(wanted).max())
    assert np.max(np.abs(got.astype(np.float32) - wanted.astype(np.float32))) <= step


def test_double_precision_is_kept_outside_and_single_inside():
    double = TensorProto.DOUBLE
    constants = {"w": builders.weights(30, 5, dtype=np.float64)}
    model = builders.model(
        [builders.node("MatMul", ["x", "w"], ["y"])],
        {"x": (["N", 30], double)},
        {"y": (["N", 5], double)},
        constants,
    )
    feeds = builders.feeds(model)
    builders.assert_close(builders.run(pcmc.compile(model), feeds), builders.reference(model, feeds), 1e-6)


def quantized() -> onnx.ModelProto:
    """A dense layer in the QDQ form: int8 weights with a scale for each column, int8 input and output."""
    draw = builders.rng(1)
    constants = {
        "s": np.float32(0.02),
        "z": np.int8(0),
        "w": draw.integers(-127, 128, (30, 6)).astype(np.int8),
        "ws": (draw.random(6) * 0.01 + 0.01).astype(np.float32),
        "wz": np.zeros(6, np.int8),
        "b": builders.weights(6),
        "ys": np.float32(0.05),
        "yz": np.int8(3),
    }
    nodes = [
        builders.node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        builders.node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        builders.node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        builders.node("MatMul", ["xd", "wd"], ["m"], name="dense"),
        builders.node("Add", ["m", "b"], ["a"]),
        builders.node("QuantizeLinear", ["a", "ys", "yz"], ["y"]),
    ]
    return builders.model(nodes, {"x": ["N", 30]}, {"y": typed(TensorProto.INT8, "N", 6)}, constants)


def test_quantized_models_give_the_same_integers():
    model = quantized()
    feeds = builders.feeds(model, batch=200)
    program = pcmc.compile(model)
    assert builders.placed_on_tiles(program) >= {"dense"}
    got, wanted = builders.run(program, feeds)[0], builders.reference(model, feeds)[0]
    assert got.dtype == np.int8
    difference = np.abs(got.astype(int) - wanted.astype(int))
    assert difference.max() <= 1  # a sum that falls on a tie of the rounding
    assert np.mean(difference != 0) < 0.005


@pytest.mark.slow
@pytest.mark.parametrize(
    "filename", ["cifar10_resnet20_crosssim_fp16.onnx", "cifar10_resnet8_mlperftiny_int8_qdq.onnx"]
)
def test_real_narrow_models_give_the_same_classes(filename):
    path = real.model_path(filename)
    x, _ = real.inputs(filename, 100)
    program = pcmc.compile(path)
    wanted = builders.reference(program.model, {program.inputs[0].name: x})[0]
    assert np.mean(output(program, x).argmax(1) == wanted.argmax(1)) >= 0.99


# Physics: the same bits.


@pytest.mark.parametrize("physics", ["ideal", "full"])
@pytest.mark.parametrize("name", SHIPPED)
def test_one_seed_gives_the_same_bits_for_any_number_of_threads(name, physics):
    results = [output(shipped(name), images(), physics, seed=3, threads=threads) for threads in (1, 2, 8)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.mark.parametrize("physics", ["programming_error", "read_noise"])
def test_another_seed_gives_another_result(physics):
    program = shipped("digits-mlp")
    one, same, other = (output(program, images(), physics, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.any(one == other)


@pytest.mark.parametrize("physics", ["dac", "adc", "dac,adc"])
def test_converters_do_not_depend_on_the_seed(physics):
    program = shipped("digits-mlp")
    assert np.array_equal(
        output(program, images(), physics, seed=3), output(program, images(), physics, seed=4)
    )


@pytest.mark.parametrize("physics", ["ideal", "full"])
@pytest.mark.parametrize("name", SHIPPED)
def test_samples_do_not_depend_on_their_batch(name, physics):
    session = pcmc.Session(shipped(name), physics, seed=1)
    together = session.run(None, {"x": images(12)})[0]
    alone = np.concatenate([session.run(None, {"x": images(12)[i : i + 1]})[0] for i in range(12)])
    if tile.kernels() is reference:  # numpy's products round as their sizes have it
        assert np.allclose(alone, together, rtol=1e-4, atol=1e-4)
    else:
        assert np.array_equal(alone, together)


def test_all_effects_off_is_ideal_to_the_bit():
    spec = changed_chip(
        dac={"on": False},
        adc={"on": False},
        effects={"programming_error": False, "read_noise": "off", "drift": False},
    )
    program = pcmc.compile(zoo.path("digits-cnn"), spec)
    ideal = output(program, images())
    assert np.array_equal(output(program, images(), "full"), ideal)
    assert np.array_equal(output(program, images(), pcmc.Physics()), ideal)


def test_noise_is_frozen_within_a_session():
    session = pcmc.Session(shipped("digits-mlp"), "read_noise", seed=1)
    first, second = (session.run(None, {"x": images()})[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_one_more_layer_leaves_the_noise_of_the_others_alone():
    """The same tiles hold the same cells, so they err alike, whatever else is on the chip."""
    spec = builders.chip(33, 16, sharing="exclusive")
    constants = {"w": builders.weights(32, 16), "v": builders.weights(32, 8, seed=1)}
    one, two = (
        builders.node("MatMul", ["x", "w"], ["y"], name="one"),
        builders.node("MatMul", ["x", "v"], ["z"], name="two"),
    )
    alone = builders.model([one], {"x": ["N", 32]}, {"y": ["N", 16]}, {"w": constants["w"]})
    both = builders.model([one, two], {"x": ["N", 32]}, {"y": ["N", 16], "z": ["N", 8]}, constants)
    x = vectors(4, 32)
    y = pcmc.Session(pcmc.compile(alone, spec), "full", seed=2).run(["y"], {"x": x})[0]
    session = pcmc.Session(pcmc.compile(both, spec), "full", seed=2)
    assert np.array_equal(session.run(["y"], {"x": x})[0], y)
    assert not np.array_equal(session.run(["z"], {"x": x})[0], x @ constants["v"])


def test_the_global_random_generator_is_neither_read_nor_changed():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one = output(pcmc.compile(zoo.path("digits-mlp")), images(), "full")
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(output(shipped("digits-mlp"), images(), "full"), one)


# Physics: the laws, each effect alone.


def dac(x: Floats, scale: Floats, bits: int = 8) -> Floats:
    levels = 2 ** (bits - 1) - 1
    rounded: Floats = np.clip(np.rint(x / scale * levels), -levels, levels) * scale / levels
    return rounded


def test_dac_rounds_inputs_to_the_levels_of_each_vector():
    program, weights, _ = one_matrix(40, 9)
    x = vectors(50, 40)
    scale = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    got, exact = output(program, x, "dac"), x @ weights
    bound = scale / (2 * 127) * np.abs(weights).sum(axis=0)
    assert np.all(np.abs(got - exact) <= bound + 1e-5)
    assert np.abs(got - exact).max() > 1e-3  # it does round
    # A value half-way between two levels may go either way in float32: checked is where there is none.
    levels = x / scale * 127
    clear = np.all(np.abs(levels - np.floor(levels) - 0.5) > 1e-4, axis=1)
    assert clear.sum() > 30
    assert np.allclose(got[clear], dac(x, scale)[clear] @ weights, atol=1e-5)


def test_fewer_bits_of_the_dac_err_more_and_as_their_step():
    """Rounding errors are uniform over a step q of the input, so the output errs by q sqrt(sum w^2 / 12)."""
    x = vectors(400, 64)
    for bits in (4, 6, 8):
        program, weights, _ = one_matrix(64, 16, spec=changed_chip(builders.chip(65, 16), dac={"bits": bits}))
        step = np.abs(x).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        ratio = (output(program, x, "dac") - x @ weights) / (step * np.sqrt(np.sum(weights**2, axis=0) / 12))
        # 6400 errors, correlated within a vector: 400 alone give the square a spread of sqrt(2 / 400) = 7 %
        assert np.mean(ratio**2) == pytest.approx(1, abs=4 * math.sqrt(2 / 400))


def test_bias_rows_are_driven_through_the_dac_too():
    """Cells of the bias row hold bias / drive, and the drive is one of the inputs of the DAC."""
    program, weights, bias = one_matrix(30, 8, bias=True)
    x = vectors(20, 30) * 0.01  # the drive, and not an input, sets the range
    drive = np.abs(bias).max() / np.abs(weights).max()
    scale = np.maximum(np.abs(x).max(axis=1, keepdims=True), drive)
    assert np.all(scale == drive)
    wanted = (
        dac(x.astype(np.float64), scale) @ weights + dac(np.full((20, 1), drive), scale) @ bias[None] / drive
    )
    assert np.allclose(output(program, x, "dac"), wanted, atol=1e-5)


def test_a_digital_bias_is_added_after_the_converters_exactly():
    program, _, bias = one_matrix(30, 8, bias=True, spec=builders.chip(30, 8, bias_row=False))
    x = vectors(20, 30)
    bare, _, _ = one_matrix(30, 8, spec=builders.chip(30, 8, bias_row=False))
    for physics in ("dac", "adc", "full"):
        assert np.allclose(output(program, x, physics) - output(bare, x, physics), bias, atol=1e-5)


def adc_step(weights: Floats, x: NDArray[Any], range_cells: float = 20.0, bits: int = 9) -> Floats:
    """The size of one code for each vector."""
    scale = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    step: Floats = range_cells * np.abs(weights).max() * scale / (2 ** (bits - 1) - 1)
    return step


def test_adc_gives_whole_codes_nearest_to_the_sum():
    program, weights, _ = one_matrix(40, 9)
    x = vectors(50, 40)
    step = adc_step(weights, x)
    codes = output(program, x, "adc") / step
    assert np.allclose(codes, np.rint(codes), atol=1e-3)
    assert np.all(np.abs(output(program, x, "adc") - x @ weights) <= step * 0.501)
    assert len(np.unique(np.rint(codes))) > 20


def test_adc_saturates_at_full_scale():
    spec = changed_chip(builders.chip(41, 9), adc={"range_cells": 0.5})
    program, weights, _ = one_matrix(40, 9, spec=spec)
    x = vectors(50, 40)
    full = adc_step(weights, x, range_cells=0.5) * 255
    exact, got = x @ weights, output(program, x, "adc")
    beyond = np.abs(exact) > full
    assert 0.1 < beyond.mean() < 0.9
    assert np.allclose(np.abs(got)[beyond], np.broadcast_to(full, got.shape)[beyond], rtol=1e-4)
    assert np.array_equal(np.sign(got)[beyond], np.sign(exact)[beyond])
    assert np.all(np.abs(got) <= full * 1.0001)


def test_every_block_is_digitized_by_itself():
    """Sums of 40 rows in blocks of 8 are 5 codes added, not one code: errors add, too."""
    program, weights, _ = one_matrix(40, 9, spec=builders.chip(8, 9))
    x = vectors(50, 40)
    step = adc_step(weights, x)
    parts = [x[:, row : row + 8] @ weights[row : row + 8] / step for row in range(0, 40, 8)]
    codes = output(program, x, "adc") / step
    assert np.allclose(codes, np.rint(codes), atol=1e-2)
    assert np.mean(np.rint(codes) == sum(np.rint(part) for part in parts)) > 0.98  # but for ties in float32
    assert np.mean(np.rint(codes) == np.rint(x @ weights / step)) < 0.9


def clipped_normal(mean: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of max(0, N(mean, spread)); where spread is 0 it is the mean itself."""
    safe = np.where(spread > 0, spread, 1.0)
    a = mean / safe
    first = mean * norm.cdf(a) + safe * norm.pdf(a)
    second = (mean**2 + safe**2) * norm.cdf(a) + mean * safe * norm.pdf(a)
    return np.where(spread > 0, first, mean), np.where(spread > 0, second - first**2, 0.0)


def sigma_programming(g: Floats) -> Floats:
    """Published closed-loop programming error in uS, g in uS."""
    x = g / 25
    return 0.26348 + 1.9650 * x - 1.1731 * x**2


def sigma_read(g: Floats) -> Floats:
    """Published read noise in uS 20 s after programming, read for 250 ns."""
    x = np.where(g > 0, g, 1.0) / 25
    spread = np.sqrt(np.log((20 + 250e-9) / (2 * 250e-9)))
    return np.where(g > 0, g * np.minimum(0.0088 * x**-0.65, 0.2) * spread, 0.0)


@pytest.mark.parametrize(
    ("physics", "sigma"), [("programming_error", sigma_programming), ("read_noise", sigma_read)]
)
def test_device_errors_have_their_published_law_at_the_output(physics, sigma):
    """An output errs by sum_i x_i dW_ij, dW = (dG+ - dG-) w_max / g_max: means and variances add."""
    rows, cols = 60, 4000
    program, weights, _ = one_matrix(rows, cols, spec=builders.chip(rows + 1, cols))
    x = vectors(1, rows)
    per_us = np.abs(weights).max() / 20.0  # significance cancels: W = F (G+ - G-), and F g_max is w_max
    mean, variance = 0.0, 0.0
    for sign in (1, -1):
        target = np.clip(sign * weights, 0, None) / per_us
        first, second = clipped_normal(target, sigma(target))
        mean = mean + sign * (x @ ((first - target) * per_us))
        variance = variance + (x**2) @ (second * per_us**2)
    error = output(program, x, physics, seed=1) - x @ weights
    z = ((error - mean) / np.sqrt(variance)).ravel()
    assert np.mean(z) == pytest.approx(0, abs=4 / math.sqrt(cols))
    assert np.var(z) == pytest.approx(1, abs=4 * math.sqrt(2 / cols))
    assert np.mean(np.abs(z) < 1) == pytest.approx(norm.cdf(1) - norm.cdf(-1), abs=4 * math.sqrt(0.25 / cols))


def test_errors_of_both_kinds_add():
    program, weights, _ = one_matrix(60, 2000, spec=builders.chip(61, 2000))
    x = vectors(1, 60)
    spread = {
        physics: np.var(output(program, x, physics, seed=1) - x @ weights)
        for physics in ("programming_error", "read_noise", "programming_error,read_noise")
    }
    together = spread.pop("programming_error,read_noise")
    # a variance of 2000 errors is known to sqrt(2 / 2000) = 3 %; noise of an erring device is a bit larger
    assert together == pytest.approx(sum(spread.values()), rel=0.15)


# Memory.


def test_a_tensor_is_dropped_after_its_last_use(monkeypatch):
    session = pcmc.Session(pcmc.compile(builders.mlp([8] * 12)))
    held: list[set[str]] = []
    step = session._run_step

    def watched(one: Any, values: dict[str, Any]) -> None:
        step(one, values)
        held.append(set(values))

    monkeypatch.setattr(session, "_run_step", watched)
    (y,) = session.run(None, {"x": np.zeros((1, 8), np.float32)})
    assert len(held) == 21  # eleven reads, and ten activations between them
    assert all(len(names) <= 2 for names in held)
    assert held[-1] - {"y"} <= {"h9"}
    assert y.shape == (1, 8)


def test_an_output_that_is_used_again_is_kept():
    model = several()
    feeds = builders.feeds(model)
    a = pcmc.Session(pcmc.compile(model)).run(["a"], feeds)[0]
    builders.assert_close([a], [builders.reference(model, feeds)[1]])


def test_inputs_are_left_as_they_are():
    x = images()
    before = x.copy()
    x.flags.writeable = False
    for physics in ("ideal", "full"):
        pcmc.Session(shipped("digits-cnn"), physics).run(None, {"x": x})
    assert np.array_equal(x, before)


def test_no_file_is_opened_and_none_written_by_a_run(tmp_chdir: Path):
    output(shipped("digits-mlp"), images(), "full")
    assert list(tmp_chdir.iterdir()) == []
