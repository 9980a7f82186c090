"""Steps come after what they need, reads alone, digital operations in as few regions as there can be."""

from dataclasses import replace

import builders
import numpy as np
import pytest
from builders import node, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from pcmc.compiler.schedule import check_schedule


def program_of(nodes, outputs=("y",), constants=("w",), inputs=("x",)):
    """All tensors are [N, 4]; constants are 4 x 4."""
    arrays = {name: weights(4, 4, seed=i) for i, name in enumerate(constants)}
    proto = builders.model(
        nodes, {name: ["N", 4] for name in inputs}, {name: ["N", 4] for name in outputs}, arrays
    )
    return builders.compiled_like_onnxruntime(proto)


def kinds(program):
    return [(step.kind, set(step.layers)) for step in program.steps]


def test_digital_operations_between_two_reads_are_one_region():
    nodes = [
        node("Abs", ["x"], ["a"], name="abs"),
        node("MatMul", ["a", "w"], ["b"], name="first"),
        node("Relu", ["b"], ["c"], name="relu"),
        node("Neg", ["c"], ["d"], name="neg"),
        node("MatMul", ["d", "v"], ["e"], name="second"),
        node("Tanh", ["e"], ["y"], name="tanh"),
    ]
    assert kinds(program_of(nodes, constants=("w", "v"))) == [
        ("digital", {"abs"}),
        ("read", {"first"}),
        ("digital", {"relu", "neg"}),
        ("read", {"second"}),
        ("digital", {"tanh"}),
    ]


def test_an_operation_waits_for_the_longest_way():
    """The addition takes x and the second product: it stands after two reads."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="relu"),
        node("MatMul", ["b", "v"], ["c"], name="second"),
        node("Add", ["x", "c"], ["y"], name="add"),
    ]
    program = program_of(nodes, constants=("w", "v"))
    assert kinds(program)[-1] == ("digital", {"add"})
    assert program.steps[-1].needs == (2,)


def test_only_what_is_needed_elsewhere_leaves_a_region():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="read"),
        node("Relu", ["a"], ["b"]),
        node("Neg", ["b"], ["c"]),
        node("Abs", ["b"], ["y"]),
        node("Add", ["c", "b"], ["z"]),
    ]
    program = program_of(nodes, outputs=("y", "z"))
    assert set(program.steps[1].inputs) == {"a"}
    assert set(program.steps[1].outputs) == {"y", "z"}


def test_an_inner_tensor_that_is_an_output_leaves_its_region():
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["b"]), node("Neg", ["b"], ["y"])]
    program = program_of(nodes, outputs=("y", "b", "a"))
    assert set(program.steps[1].outputs) == {"y", "b"}


def test_an_operation_that_nobody_needs_is_dropped():
    nodes = [
        node("MatMul", ["x", "w"], ["y"], name="read"),
        node("Relu", ["y"], ["b"], name="unused"),
        node("MatMul", ["b", "v"], ["c"], name="unused2"),
    ]
    program = program_of(nodes, constants=("w", "v"))
    assert kinds(program) == [("read", {"read"})]
    assert list(program.banks) == ["read"]


@pytest.mark.parametrize("name", ["digital_0", "digital_1", "digital_2"])
def test_a_layer_may_go_by_the_name_of_a_region(name):
    nodes = [
        node("Abs", ["x"], ["a"]),
        node("MatMul", ["a", "w"], ["b"], name="one"),
        node("Relu", ["b"], ["c"]),
        node("MatMul", ["c", "w"], ["d"], name=name),
        node("Relu", ["d"], ["y"]),
    ]
    program = program_of(nodes)
    names = [step.name for step in program.steps]
    assert len(set(names)) == len(names)
    assert name in names


def test_a_branch_without_reads_runs_before_all():
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="read"),
        node("Neg", ["z"], ["b"], name="neg"),
        node("Add", ["a", "b"], ["y"]),
    ]
    program = program_of(nodes, inputs=("x", "z"))
    assert kinds(program)[0] == ("digital", {"neg"})


def test_an_input_that_is_an_output_and_a_constant_that_is_one():
    nodes = [node("MatMul", ["x", "w"], ["y"], name="read")]
    proto = builders.model(
        nodes, {"x": ["N", 4]}, {"y": ["N", 4], "x": ["N", 4], "w": [4, 4]}, {"w": weights(4, 4)}
    )
    program = builders.compiled_like_onnxruntime(proto)
    assert builders.placed_on_tiles(program) == {"read"}


def test_the_unit_of_a_read_is_that_of_its_first_block():
    program = builders.compiled_like_onnxruntime(builders.mlp([20, 20, 20]), builders.chip(8, 8, mesh=(1, 1)))
    for step in program.steps:
        if step.bank is not None:
            assert step.unit == program.banks[step.bank].table["chip"][0]


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_every_operation_runs_once_after_what_it_needs(data):
    """Random graphs of products and additions."""
    tensors, nodes = ["x"], []
    for index in range(data.draw(st.integers(1, 8))):
        a, b = (data.draw(st.sampled_from(tensors)) for _ in range(2))
        kind = data.draw(st.sampled_from(("MatMul", "Add", "Relu")))
        inputs = {"MatMul": [a, "w"], "Add": [a, b], "Relu": [a]}[kind]
        nodes.append(node(kind, inputs, [f"t{index}"], name=f"n{index}"))
        tensors.append(f"t{index}")
    nodes.append(node("MatMul", [tensors[-1], "w"], ["y"], name="last"))
    program = program_of(nodes, outputs=("y", *tensors[1:]))
    check_schedule(program.steps)
    layers = [layer for step in program.steps for layer in step.layers]
    assert sorted(layers) == sorted(one.name for one in nodes)
    made = {"x"}
    for step in program.steps:
        assert set(step.inputs) <= made
        made |= set(step.outputs)
        maker = {program.steps[need].name for need in step.needs}
        assert maker == {other.name for other in program.steps if set(other.outputs) & set(step.inputs)}


def test_the_check_finds_a_step_that_comes_too_early():
    program = builders.compiled_like_onnxruntime(builders.mlp([6, 5, 4]))
    check_schedule(program.steps)
    broken = (replace(program.steps[0], needs=(1,)), *program.steps[1:])
    with pytest.raises(ValueError, match="comes after it"):
        check_schedule(broken)
    assert np.all([step.unit == 0 for step in program.steps])
