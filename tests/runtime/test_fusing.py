"""Additions and ReLUs go into the reads that they follow, and nobody can tell but by the time it takes."""

import dataclasses
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from builders import node
from numpy.typing import NDArray
from onnx import TensorProto

import pcmc
import real
from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_to_dict
from pcmc.errors import DataError
from pcmc.runtime import fusing
from pcmc.runtime.banks import ideal_bank, read_bank
from pcmc.runtime.calibration import BankCalibration
from pcmc.runtime.fusing import Plan, Task
from pcmc.runtime.program import Program

Array = NDArray[Any]


def as_compiled(program: Program) -> Plan:
    """The steps of a program as they are, nothing fused."""
    return Plan(tuple(Task(step, step.inputs, step.outputs) for step in program.steps), program.regions)


def fused(program: Program) -> dict[str, tuple[str | None, bool]]:
    """What the reads that have something to finish add, and whether they have a ReLU, by name."""
    return {
        task.step.name: (task.finish.addend, task.finish.relu)
        for task in fusing.plan(program).tasks
        if task.finish is not None
    }


def operators(program: Program) -> list[list[str]]:
    """The operators that are left in each digital region."""
    return [[node.op_type for node in model.graph.node] for model in fusing.plan(program).regions.values()]


def both_ways(
    program: Program, feeds: dict[str, Array], monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any
) -> tuple[list[Array], list[Array]]:
    """All outputs, fused and not."""
    ours = pcmc.Session(program, *args, **options).run(None, feeds)
    with monkeypatch.context() as patch:
        patch.setattr(fusing, "plan", as_compiled)
        return ours, pcmc.Session(program, *args, **options).run(None, feeds)


def assert_same_bits(pair: tuple[list[Array], list[Array]]) -> None:
    for ours, theirs in zip(*pair, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()


def residual(rank: int = 2, *, bias: bool = True) -> onnx.ModelProto:
    """Two blocks of two convolutions with a shortcut, the second with a convolution on it; pooled, dense."""
    kernel, size = (3,) * rank, (6,) * rank
    constants: dict[str, Any] = {"dense_w": builders.weights(5, 3, seed=9), "one": np.array([-1, 5])}
    nodes: list[onnx.NodeProto] = []

    def conv(name: str, x: str, y: str, channels: tuple[int, int], point: bool = False) -> None:
        extent = (1,) * rank if point else kernel
        constants[f"{name}_w"] = builders.weights(*channels, *extent, seed=len(nodes))
        inputs = [x, f"{name}_w"]
        if bias:
            constants[f"{name}_b"] = builders.weights(channels[0], seed=len(nodes) + 50)
            inputs.append(f"{name}_b")
        pads = [0 if point else 1] * (2 * rank)
        nodes.append(node("Conv", inputs, [y], name=name, pads=pads))

    conv("a", "x", "a0", (4, 2))
    nodes.append(node("Relu", ["a0"], ["a1"], name="a_relu"))
    conv("b", "a1", "b0", (4, 4))
    nodes.append(node("Add", ["b0", "a1"], ["b1"], name="b_add"))
    nodes.append(node("Relu", ["b1"], ["b2"], name="b_relu"))
    conv("short", "b2", "s0", (5, 4), point=True)
    conv("c", "b2", "c0", (5, 4))
    nodes.append(node("Relu", ["c0"], ["c1"], name="c_relu"))
    conv("d", "c1", "d0", (5, 5))
    nodes.append(node("Add", ["s0", "d0"], ["d1"], name="d_add"))
    nodes.append(node("Relu", ["d1"], ["d2"], name="d_relu"))
    nodes.append(node("GlobalAveragePool", ["d2"], ["p"], name="pool"))
    nodes.append(node("Reshape", ["p", "one"], ["f"], name="flat"))
    nodes.append(node("MatMul", ["f", "dense_w"], ["y"], name="dense"))
    return builders.model(nodes, {"x": ["N", 2, *size]}, {"y": ["N", 3]}, constants)


def after_a_read(
    nodes: list[onnx.NodeProto],
    outputs: dict[str, builders.Value],
    constants: dict[str, Any] | None = None,
    u: builders.Shape = ("M", 4),
) -> Program:
    """`t` = x W, and some operations after it, perhaps with the input `u` or the second matrix `v`."""
    constants = {"w": builders.weights(6, 4), "v": builders.weights(4, 4, seed=1), **(constants or {})}
    used = {name for one in nodes for name in one.input} | {"w"}
    inputs: dict[str, builders.Value] = {"x": ["N", 6]}
    if "u" in used:
        inputs["u"] = u
    first = node("MatMul", ["x", "w"], ["t"], name="first")
    held = {name: value for name, value in constants.items() if name in used}
    return pcmc.compile(builders.model([first, *nodes], inputs, outputs, held))


def feeds(program: Program, batch: int = 7) -> dict[str, Array]:
    return builders.feeds(program.model, batch=batch)


# What goes into a read.


def test_a_residual_net_keeps_only_its_pooling():
    program = pcmc.compile(residual())
    assert fused(program) == {
        "a": (None, True),
        "b": ("a1", True),
        "c": (None, True),
        "d": ("s0", True),
    }
    assert operators(program) == [["GlobalAveragePool", "Reshape"]]
    assert len(program.steps) == 10  # as it was


def test_operations_that_stay_run_without_those_that_went():
    nodes = [
        node("Add", ["t", "u"], ["a"], name="sum"),
        node("Relu", ["a"], ["r"], name="relu"),
        node("Sigmoid", ["r"], ["s"], name="sigmoid"),
        node("Tanh", ["u"], ["z"], name="tanh"),
    ]
    program = after_a_read(nodes, {"r": ["N", 4], "s": ["N", 4], "z": ["N", 4]})
    assert fused(program) == {"first": ("u", True)}
    inputs = {"x": builders.weights(5, 6, seed=3), "u": builders.weights(5, 4, seed=4)}
    builders.assert_close(pcmc.Session(program).run(None, inputs), builders.reference(program.model, inputs))
    kept = [task for task in fusing.plan(program).tasks if task.step.bank is None and "s" in task.outputs]
    assert [(task.inputs, task.outputs) for task in kept] == [(("r",), ("s",))]


def test_of_two_reads_that_are_added_the_later_one_adds():
    nodes = [
        node("MatMul", ["x", "w2"], ["t2"], name="second"),
        node("Add", ["t2", "t"], ["a"], name="sum"),
    ]
    program = after_a_read(nodes, {"a": ["N", 4]}, {"w2": builders.weights(6, 4, seed=5)})
    reads = [step for step in program.steps if step.bank is not None]
    assert fused(program) == {reads[1].name: (reads[0].outputs[0], False)}
    assert operators(program) == []


def test_a_relu_of_each_of_two_reads_goes_and_then_their_sum_stays():
    nodes = [
        node("Relu", ["t"], ["r"], name="relu"),
        node("MatMul", ["x", "w2"], ["t2"], name="second"),
        node("Relu", ["t2"], ["r2"], name="relu2"),
        node("Add", ["r", "r2"], ["a"], name="sum"),
    ]
    program = after_a_read(nodes, {"a": ["N", 4]}, {"w2": builders.weights(6, 4, seed=5)})
    assert fused(program) == {"first": (None, True), "second": (None, True)}
    assert operators(program) == [["Add"]]


def test_a_relu_goes_first_and_then_a_sum_with_it_into_a_later_read():
    nodes = [
        node("Relu", ["t"], ["r"], name="relu"),
        node("MatMul", ["x", "w2"], ["t2"], name="second"),
        node("Add", ["t2", "r"], ["a"], name="sum"),
    ]
    program = after_a_read(nodes, {"a": ["N", 4]}, {"w2": builders.weights(6, 4, seed=5)})
    assert fused(program) == {"first": (None, True), "second": ("r", False)}
    assert operators(program) == []


def test_a_read_ends_at_a_sum_that_is_an_output():
    nodes = [node("Add", ["t", "u"], ["a"], name="sum"), node("Relu", ["a"], ["r"], name="relu")]
    program = after_a_read(nodes, {"a": ["N", 4], "r": ["N", 4]})
    assert fused(program) == {"first": ("u", False)}
    assert operators(program) == [["Relu"]]


RELU = node("Relu", ["t"], ["r"], name="relu")
TRUE = builders.body([node("Relu", ["t"], ["one"], name="inner")], {"one": ["N", 4]}, name="yes")
FALSE = builders.body([node("Sigmoid", ["t"], ["two"], name="inner2")], {"two": ["N", 4]}, name="no")


@pytest.mark.parametrize(
    ("nodes", "outputs", "constants"),
    [
        pytest.param([RELU], {"r": ["N", 4], "t": ["N", 4]}, {}, id="the result is an output"),
        pytest.param(
            [RELU, node("Sigmoid", ["t"], ["s"])], {"r": ["N", 4], "s": ["N", 4]}, {}, id="used twice"
        ),
        pytest.param(
            [RELU, node("MatMul", ["t", "v"], ["s"])], {"r": ["N", 4], "s": ["N", 4]}, {}, id="read again"
        ),
        pytest.param([node("Add", ["t", "t"], ["r"])], {"r": ["N", 4]}, {}, id="added to itself"),
        pytest.param([node("Sigmoid", ["t"], ["r"])], {"r": ["N", 4]}, {}, id="another operator"),
        pytest.param(
            [node("Sigmoid", ["x"], ["s"]), node("MatMul", ["s", "w2"], ["b"]),
             node("Sigmoid", ["b"], ["c"]), node("Add", ["t", "c"], ["r"])],
            {"r": ["N", 4]},
            {"w2": builders.weights(6, 4, seed=2)},
            id="what is added comes later",
        ),
        pytest.param(
            [RELU, node("ReduceSum", ["x"], ["x0"], keepdims=0), node("Greater", ["x0", "zero"], ["which"]),
             node("If", ["which"], ["s"], then_branch=TRUE, else_branch=FALSE)],
            {"r": ["N", 4], "s": ["N", 4]},
            {"zero": np.float32(0)},
            id="used inside of a branch",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_into_a_read_stays(nodes, outputs, constants):
    program = after_a_read(nodes, outputs, constants)
    assert "first" not in fused(program)


def test_other_types_are_left_alone():
    constants = {"w": builders.weights(6, 4, dtype=np.float64)}
    nodes = [node("MatMul", ["x", "w"], ["t"], name="first"), RELU]
    double = TensorProto.DOUBLE
    model = builders.model(nodes, {"x": (["N", 6], double)}, {"r": (["N", 4], double)}, constants)
    program = pcmc.compile(model)
    assert builders.placed_on_tiles(program) == {"first"}
    assert fused(program) == {}


def test_a_sum_before_a_normalization_stays_with_it():
    """onnxruntime makes one operation of both, which rounds in another way."""
    nodes = [
        node("Add", ["t", "u"], ["a"], name="sum"),
        node("LayerNormalization", ["a", "scale"], ["r"], name="norm"),
    ]
    program = after_a_read(nodes, {"r": ["N", 4]}, {"scale": np.ones(4, np.float32)})
    assert fused(program) == {}


# The same bits.


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("physics", ["ideal", "full", "dac,adc"])
@pytest.mark.parametrize("bias_row", [True, False])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_residual_net_has_the_same_bits(rank, bias_row, physics, threads, monkeypatch):
    program = pcmc.compile(residual(rank), builders.chip(30, 5, bias_row=bias_row))
    assert len(fused(program)) == 4
    for batch in (1, 9):
        options = {"seed": 2, "threads": threads}
        assert_same_bits(both_ways(program, feeds(program, batch), monkeypatch, physics, **options))


def test_a_residual_net_computes_what_onnxruntime_does():
    builders.compiled_like_onnxruntime(residual(), builders.chip(30, 5, bias_row=False))


def vector_output() -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["x", "w"], ["t"], name="first"),
        node("Add", ["u", "t"], ["a"], name="sum"),
        node("Relu", ["a"], ["r"], name="relu"),
    ]
    shapes: dict[str, builders.Value] = {"x": ["N", 3, 6], "u": ["N", 3]}
    return builders.model(nodes, shapes, {"r": ["N", 3]}, {"w": builders.weights(6)})


def columns() -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["w", "x"], ["t"], name="first"),
        node("Add", ["u", "t"], ["a"], name="sum"),
        node("Relu", ["a"], ["r"], name="relu"),
    ]
    shapes: dict[str, builders.Value] = {"x": ["N", 6, 8], "u": ["N", 4, 8]}
    return builders.model(nodes, shapes, {"r": ["N", 4, 8]}, {"w": builders.weights(4, 6)})


@pytest.mark.parametrize("model", [vector_output(), columns()], ids=["vector_output", "columns"])
@pytest.mark.parametrize("physics", ["ideal", "full"])
def test_vectors_that_lie_in_another_way_have_the_same_bits(model, physics, monkeypatch):
    program = pcmc.compile(model)
    assert fused(program) == {"first": ("u", True)}
    assert_same_bits(both_ways(program, feeds(program), monkeypatch, physics))


@pytest.mark.parametrize("shape", [(7, 4), (7, 1), (1, 4), (1, 1)])
def test_what_is_added_may_turn_out_to_be_broadcast(shape, monkeypatch):
    nodes = [node("Add", ["t", "u"], ["a"], name="sum"), node("Relu", ["a"], ["r"], name="relu")]
    program = after_a_read(nodes, {"r": ["N", 4]}, u=("M", shape[1]))
    assert fused(program) == {"first": ("u", True)}
    inputs = {"x": builders.weights(7, 6, seed=3), "u": builders.weights(*shape, seed=4)}
    assert_same_bits(both_ways(program, inputs, monkeypatch))
    inputs = {"x": builders.weights(1, 6, seed=3), "u": builders.weights(5, shape[1], seed=4)}
    assert pcmc.Session(program).run(None, inputs)[0].shape == (5, 4)


def test_a_sum_of_shapes_that_do_not_fit_is_refused_as_before(monkeypatch):
    nodes = [node("Add", ["t", "u"], ["a"], name="sum"), node("Relu", ["a"], ["r"], name="relu")]
    program = after_a_read(nodes, {"r": ["N", 4]})
    inputs = {"x": builders.weights(7, 6), "u": builders.weights(3, 4)}
    with pytest.raises(DataError, match="step 'digital_1': onnxruntime can't compute it"):
        pcmc.Session(program).run(None, inputs)
    inputs = {"x": builders.weights(4, 7, seed=3), "u": builders.weights(7, 4)}
    program = dataclasses.replace(
        program, inputs=tuple(dataclasses.replace(info, shape=("N", "K")) for info in program.inputs)
    )
    with pytest.raises(DataError, match=r"step 'first': can't read 'first' for an input of shape \[4, 7\]"):
        pcmc.Session(program).run(None, inputs)


def test_a_bank_refuses_what_it_can_not_do():
    program = pcmc.compile(vector_output())
    (step,) = (step for step in program.steps if step.bank is not None)
    assert step.read is not None
    bank = ideal_bank(program.banks["first"])
    x, addend = builders.weights(2, 3, 6), builders.weights(2, 3)
    exact = read_bank(x, bank, step.read, 1, 1)
    assert np.array_equal(read_bank(x, bank, step.read, 1, 1, addend=addend), exact + addend)
    with pytest.raises(ValueError, match=r"is added has the shape \[3, 2\], the result \[2, 3\]"):
        read_bank(x, bank, step.read, 1, 1, addend=addend.T)
    gained = dataclasses.replace(bank, gain=np.ones(1, np.float32))
    assert np.array_equal(read_bank(x, gained, step.read, 1, 1), exact)
    for finish in ({"relu": True}, {"addend": addend}):
        with pytest.raises(ValueError, match="a gain"):
            read_bank(x, gained, step.read, 1, 1, **finish)


def other_chip(**sections: dict[str, Any]) -> ChipSpec:
    tables = chip_to_dict(builders.chip(30, 5, bias_row=False))
    for section, fields in sections.items():
        tables[section].update(fields)
    return chip_from_dict(tables, "test chip")


@pytest.mark.parametrize(
    "dac", [{"input": "bits"}, {"signed": False}, {"input": "pulse"}], ids=["bits", "unsigned", "pulse"]
)
def test_reads_of_several_phases_have_the_same_bits(dac, monkeypatch):
    program = pcmc.compile(residual(), other_chip(dac=dac))
    session = pcmc.Session(program, "dac,adc")
    assert not any(bank.is_plain for bank in session._banks.values())
    assert_same_bits(both_ways(program, feeds(program), monkeypatch, "dac,adc", seed=1))


@pytest.mark.parametrize("compensation", ["global", "column"])
def test_reads_that_make_up_for_drift_have_the_same_bits(compensation, monkeypatch):
    program = pcmc.compile(residual(), builders.chip(30, 5, bias_row=False))
    options = {"at": "1d", "compensation": compensation, "seed": 1}
    assert all(bank.gain is not None for bank in pcmc.Session(program, "drift", **options)._banks.values())
    assert_same_bits(both_ways(program, feeds(program), monkeypatch, "drift,adc", **options))


def test_calibrated_reads_have_the_same_bits(monkeypatch):
    program = pcmc.compile(residual(), builders.chip(30, 5, bias_row=False))
    found = {
        name: BankCalibration(
            gain=builders.weights(bank.cols, seed=1) + np.float32(1),
            shift=builders.weights(bank.cols, seed=2),
        )
        for name, bank in program.banks.items()
        if name != "c"
    }
    assert_same_bits(both_ways(program, feeds(program), monkeypatch, "full", calibration=found))


def test_a_session_that_waits_has_the_same_bits(monkeypatch):
    program = pcmc.compile(residual(), builders.chip(30, 5, bias_row=False))
    x = feeds(program)

    def results() -> list[Array]:
        session = pcmc.Session(program, "drift,read_noise,adc", seed=4, interval="1h")
        found = [*session.run(None, x), *session.run(None, x)]
        session.reprogram()
        return [*found, *session.run(None, x)]

    ours = results()
    monkeypatch.setattr(fusing, "plan", as_compiled)
    assert_same_bits((ours, results()))
    assert not np.array_equal(ours[0], ours[1])


# What else a session shows.


def test_reads_are_watched_in_the_same_order_and_conversions_counted(monkeypatch):
    program = pcmc.compile(residual(), other_chip(adc={"range_cells": 0.5}))

    def seen() -> tuple[list[tuple[Any, bytes]], dict[str, tuple[int, int]]]:
        session = pcmc.Session(program, "adc")
        watched: list[tuple[Any, bytes]] = []
        session.watch = lambda step, x: watched.append((step, x.tobytes()))
        session.run(None, feeds(program))
        counts = {name: (one.conversions, one.clipped) for name, one in session.saturation.items()}
        return watched, counts

    ours, counts = seen()
    monkeypatch.setattr(fusing, "plan", as_compiled)
    theirs, wanted = seen()
    assert [step for step, _ in ours] == [step for step in program.steps if step.bank is not None]
    assert all(one is other for (one, _), (other, _) in zip(ours, theirs, strict=True))
    assert [x for _, x in ours] == [x for _, x in theirs]
    assert counts == wanted
    assert sum(clipped for _, clipped in counts.values()) > 0


def test_a_tensor_is_dropped_after_the_read_that_adds_it(monkeypatch):
    session = pcmc.Session(pcmc.compile(residual()))
    held: list[set[str]] = []
    step = session._run_step

    def watched(task: Any, values: dict[str, Any]) -> None:
        step(task, values)
        held.append(set(values))

    monkeypatch.setattr(session, "_run_step", watched)
    session.run(None, feeds(session.program))
    assert len(held) == 7  # six reads and the pooling
    assert max(map(len, held)) == 3
    assert held[-1] - {"y"} <= {"f"}


def test_regions_of_operations_that_reads_do_are_not_opened():
    session = pcmc.Session(pcmc.compile(residual()))
    session.run(None, feeds(session.program))
    assert [region.get_outputs()[0].name for region in session._regions.values()] == ["f"]
    assert session._finishes == {}


# Real models.


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("physics", ["ideal", "full"])
@pytest.mark.parametrize(
    ("filename", "least"),
    [
        ("cifar10_resnet8_mlperftiny.onnx", 7),
        ("cifar10_resnet32_akamaster_ts11.onnx", 31),
        ("cifar10_resnet20_crosssim_fp16.onnx", 19),
        ("kws_dscnn_mlperftiny_int8_qdq.onnx", 9),
        ("squeezenet_fp16_opset7.onnx", 26),
        ("vww_mobilenetv1_025_mlperftiny.onnx", 27),
    ],
)
def test_real_models_have_the_same_bits(filename, least, physics, threads, monkeypatch):
    path = real.model_path(filename)
    program = pcmc.compile(path)
    assert len(fused(program)) >= least
    x: Array
    if filename in real.MODELS_WITH_DATA:
        x, _ = real.inputs(filename, 3)
        inputs = {program.inputs[0].name: x}
    else:
        inputs = feeds(program, 3)
    assert_same_bits(both_ways(program, inputs, monkeypatch, physics, seed=1, threads=threads))
