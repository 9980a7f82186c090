"""A program in which anything points outside of what is there is refused, with what and where."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import pcmc
from pcmc.errors import ProgramError
from pcmc.runtime.program import Bank, Program, Step
from pcmc.runtime.program_check import check_program, check_region, check_state, check_text
from pcmc.runtime.state import ChipState, program_chip


@cache
def program() -> Program:
    """Two banks of several blocks with a region between them, on several tiles."""
    return pcmc.compile(builders.mlp([20, 12, 5]), builders.chip(rows=8, cols=4))


def with_bank(**changes: Any) -> Program:
    bank = dataclasses.replace(program().banks["dense0"], **changes)
    return dataclasses.replace(program(), banks={**program().banks, "dense0": bank})


def with_block(column: str, value: int, block: int = 0) -> Program:
    table = program().banks["dense0"].table.copy()
    table[column][block] = value
    return with_bank(table=table)


def with_step(index: int, **changes: Any) -> Program:
    steps = list(program().steps)
    steps[index] = dataclasses.replace(steps[index], **changes)
    return dataclasses.replace(program(), steps=tuple(steps))


def with_flow(column: str, value: float, flow: int = 0) -> Program:
    flows = program().flows.copy()
    flows[column][flow] = value
    return dataclasses.replace(program(), flows=flows)


def with_input(**changes: Any) -> Program:
    return dataclasses.replace(program(), inputs=(dataclasses.replace(program().inputs[0], **changes),))


def read_of(step: Step, **changes: Any) -> Any:
    assert step.read is not None
    return dataclasses.replace(step.read, **changes)


def bank() -> Bank:
    return program().banks["dense0"]


def test_what_the_compiler_makes_passes():
    check_program(program(), "a.pcmc")
    for spec in (
        builders.chip(sharing="exclusive"),
        builders.chip(bias_row=False),
        builders.chip(mesh=(1, 1)),
    ):
        check_program(pcmc.compile(builders.mlp([600, 120, 5]), spec), "a.pcmc")


BLOCKS = [
    ("row0", -1),
    ("row0", 20),
    ("col0", -1),
    ("col0", 12),
    ("rows", 0),
    ("rows", 9),
    ("cols", 0),
    ("cols", 5),
    ("bias", 2),
    ("bias", -1),
    ("offset", -1),
    ("offset", 10**6),
    ("chip", -1),
    ("chip", 100),
    ("tile", 4),
    ("tile", -1),
    ("x", 1),
    ("x", -1),
    ("y", 1),
    ("y", -1),
    ("phase", -1),
    ("phase", 10**6),
    ("rows", 2**62),
    ("offset", 2**62),
    ("cols", 2**62),
    ("row0", 2**62),
]


@pytest.mark.parametrize(("column", "value"), BLOCKS)
def test_blocks_outside_of_tile_matrix_or_cells_are_refused(column, value):
    with pytest.raises(ProgramError, match=r"a\.pcmc: bank 'dense0': (block 0|its table)"):
        check_program(with_block(column, value), "a.pcmc")


WRONG: dict[str, tuple[Callable[[], Program], str]] = {
    "no blocks": (lambda: with_bank(table=bank().table[:0]), "has no blocks"),
    "cells in two dimensions": (lambda: with_bank(cells=bank().cells[None]), "tables of the wrong shape"),
    "NaN in a cell": (lambda: with_bank(cells=bank().cells * np.float32(np.nan)), "not all finite"),
    "fewer cells": (lambda: with_bank(cells=bank().cells[:-1]), "lies outside"),
    "matrix of no rows": (lambda: with_bank(rows=0), "has no blocks"),
    "matrix far larger than its cells": (lambda: with_bank(cols=10**9), "has more than"),
    "matrix smaller than its blocks": (lambda: with_bank(cols=11), "lies outside"),
    "digital bias of other size": (lambda: with_bank(bias=np.zeros(3, np.float32)), "its bias has shape"),
    "unknown bank": (lambda: with_step(0, bank="nobody"), "reads the bank 'nobody'"),
    "read without a way": (lambda: with_step(0, read=None), "which is not there"),
    "read of two inputs": (lambda: with_step(0, inputs=("x", "x")), "which is not there"),
    "unknown way to read": (
        lambda: with_step(0, read=read_of(program().steps[0], kind="magic")),
        "in an unknown way, 'magic'",
    ),
    "window that is missing": (
        lambda: with_step(0, read=read_of(program().steps[0], kind="window")),
        "unknown way",
    ),
    "region that is missing": (lambda: dataclasses.replace(program(), regions={}), "has no region"),
    "step that needs itself": (lambda: with_step(1, needs=(1,)), "that is not there"),
    "step that needs a later one": (lambda: with_step(0, needs=(2,)), "that is not there"),
    "digital unit beyond the board": (lambda: with_step(0, unit=99), "that is not there"),
    "tensor that nobody makes": (lambda: with_step(0, inputs=("nothing",)), "uses 'nothing'"),
    "read that makes nothing": (lambda: with_step(0, outputs=()), "dense0"),
    "output that nobody makes": (
        lambda: dataclasses.replace(
            program(), outputs=(dataclasses.replace(program().outputs[0], name="z"),)
        ),
        "no step makes the output 'z'",
    ),
    "sample shape of another input": (
        lambda: dataclasses.replace(program(), sample_shapes={"z": (1, 20)}),
        "sample_shapes",
    ),
    "sample shape that does not fit": (
        lambda: dataclasses.replace(program(), sample_shapes={"x": (1, 21)}),
        "does not fit",
    ),
    "sample shape of another rank": (
        lambda: dataclasses.replace(program(), sample_shapes={"x": (1,)}),
        "does not fit",
    ),
    "negative sample shape": (
        lambda: dataclasses.replace(program(), sample_shapes={"x": (-1, 20)}),
        "out of range",
    ),
    "endless sample shape": (
        lambda: dataclasses.replace(program(), sample_shapes={"x": (2**40, 20)}),
        "out of range",
    ),
    "input of unknown type": (lambda: with_input(dtype=999), "unknown type, 999"),
    "input of no type": (lambda: with_input(dtype=0), "has no type"),
    "no chips": (lambda: dataclasses.replace(program(), chips=0), "digital unit|chips|outside"),
    "more chips than tiles": (lambda: dataclasses.replace(program(), chips=10**6), "on 1000000 chips"),
    "other number of tiles": (
        lambda: dataclasses.replace(program(), tiles=program().tiles + 1),
        "its banks use",
    ),
    "flows in two dimensions": (
        lambda: dataclasses.replace(program(), flows=program().flows[None]),
        "no table",
    ),
    "frozen input that is none": (
        lambda: dataclasses.replace(program(), options={"freeze": {"z": 1}}),
        "'freeze'",
    ),
    "frozen inputs as a list": (lambda: dataclasses.replace(program(), options={"freeze": [1]}), "'freeze'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_programs_that_do_not_hold_together_are_refused(kind):
    make, message = WRONG[kind]
    with pytest.raises(ProgramError, match=message) as caught:
        check_program(make(), "a.pcmc")
    assert str(caught.value).startswith("a.pcmc: ")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("x0", -1),
        ("x1", 10**6),
        ("y0", -1),
        ("y1", 10**6),
        ("kind", 2),
        ("step", 3),
        ("step", -1),
        ("per", 3),
        ("tensor", 5),
        ("scale", np.inf),
        ("scale", np.nan),
        ("scale", -1.0),
        ("scale", 1e300),
        ("width", np.nan),
        ("width", -1.0),
    ],
)
def test_flows_off_the_board_or_of_endless_bytes_are_refused(column, value):
    with pytest.raises(ProgramError, match=f"flows: '{column}' is out of range"):
        check_program(with_flow(column, value), "a.pcmc")


def test_a_board_beyond_all_memory_is_refused():
    small = pcmc.compile(builders.mlp([20, 12, 5]), builders.chip(rows=4, cols=2))
    vast = dataclasses.replace(
        small.chip, chip=dataclasses.replace(small.chip.chip, mesh_x=1024, mesh_y=1024)
    )
    one = dataclasses.replace(small, chip=vast, chips=small.tiles)
    assert one.chips * 1024**2 > 2**24
    with pytest.raises(ProgramError, match="tiles on"):
        check_program(one, "a.pcmc")


# Regions.


def external(name: str = "t") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external())


def in_attribute(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.append(helper.make_attribute("value", external()))


def in_list_of_tensors(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.add(name="values", type=onnx.AttributeProto.TENSORS).tensors.append(external())


def in_sparse_initializer(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(external())


def in_sparse_attribute(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.add(
        name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR
    ).sparse_tensor.indices.CopyFrom(external())


def in_body(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "body", [], [], [external()])
    model.graph.node.add(op_type="If", input=["x"], output=["c"]).attribute.append(
        helper.make_attribute("then_branch", inner)
    )


def in_default_of_a_function(model: onnx.ModelProto) -> None:
    relu = helper.make_node("Relu", ["a"], ["b"])
    function = helper.make_function("local", "f", ["a"], ["b"], [relu], [helper.make_opsetid("", 17)])
    function.attribute_proto.append(helper.make_attribute("value", external()))
    model.functions.append(function)


def in_function(model: onnx.ModelProto) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=external())
    model.functions.append(
        helper.make_function("local", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    )


@pytest.mark.parametrize(
    "put",
    [
        in_initializer,
        in_attribute,
        in_list_of_tensors,
        in_sparse_initializer,
        in_sparse_attribute,
        in_body,
        in_function,
        in_default_of_a_function,
    ],
)
def test_a_tensor_that_points_to_a_file_is_refused_wherever_it_stands(put):
    model = builders.mlp([3, 2])
    check_region(model, "a.pcmc: m.onnx")
    put(model)
    with pytest.raises(ProgramError, match=r"a\.pcmc: m\.onnx: tensor 't' points to a file"):
        check_region(model, "a.pcmc: m.onnx")


def test_operators_of_unknown_domains_are_refused_in_bodies_and_functions_too():
    evil = helper.make_node("Evil", [], ["e"], name="bad", domain="evil")
    plain, nested, local = builders.mlp([3, 2]), builders.mlp([3, 2]), builders.mlp([3, 2])
    plain.graph.node.append(evil)
    branch = helper.make_attribute("then_branch", helper.make_graph([evil], "body", [], []))
    nested.graph.node.add(op_type="If", input=["x"], output=["c"]).attribute.append(branch)
    local.functions.append(
        helper.make_function("local", "f", [], ["e"], [evil], [helper.make_opsetid("evil", 1)])
    )
    for model in (plain, nested, local):
        with pytest.raises(ProgramError, match=r"m: node 'bad' \(evil:Evil\) is of an unknown domain"):
            check_region(model, "m")


def test_functions_of_the_model_itself_are_known():
    model = builders.mlp([3, 2])
    relu = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(
        helper.make_function("local", "f", ["a"], ["b"], [relu], [helper.make_opsetid("", 17)])
    )
    model.graph.node.append(helper.make_node("f", ["y"], ["z"], domain="local"))
    check_region(model, "m")


@pytest.mark.parametrize("text", [b"dense0", b"x", b"w0", b"y"])
def test_names_that_are_not_text_are_refused(text):
    model = onnx.ModelProto()
    data = builders.mlp([3, 2]).SerializeToString()
    check_text(builders.mlp([3, 2]), "m")
    model.ParseFromString(data.replace(text, b"\xff" * len(text)))
    with pytest.raises(ProgramError, match="m: a name is not UTF-8 text"):
        check_text(model, "m")


# States.


def state() -> ChipState:
    return program_chip(program(), pcmc.Physics(programming_error=True), 0)


def with_held(**changes: Any) -> ChipState:
    held = dataclasses.replace(state().banks["dense1"], **changes)
    return dataclasses.replace(state(), banks={**state().banks, "dense1": held})


def test_a_state_fits_its_program():
    check_state(state(), program())


def test_states_of_another_program_or_of_nonsense_are_refused():
    devices = state().banks["dense1"].devices
    short = dataclasses.replace(devices, g_plus=devices.g_plus[:-1])
    broken = dataclasses.replace(devices, g_minus=devices.g_minus * np.float32(np.nan))
    wrong = {
        "has no bank 'dense1'": dataclasses.replace(state(), banks={"dense0": state().banks["dense0"]}),
        "cells, it has": with_held(devices=short),
        "not positive and finite": with_held(devices=broken),
    }
    for message, one in wrong.items():
        with pytest.raises(ProgramError, match=message):
            check_state(one, program())
    w_max = state().banks["dense1"].w_max
    zero, none = (np.full_like(w_max, value) for value in (0.0, np.nan))
    for name, value in (("w_max", zero), ("w_max", none), ("bias_drive", np.inf), ("bias_drive", -1.0)):
        with pytest.raises(ProgramError, match="not positive and finite"):
            check_state(with_held(**{name: value}), program())
