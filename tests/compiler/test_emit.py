"""The program holds the matrices as blocks, the digital regions as ONNX, and why an operation is digital."""

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

import pcmc


@given(
    st.integers(1, 40), st.integers(1, 30), st.booleans(), st.booleans(), st.sampled_from(builders.SHARINGS)
)
@settings(max_examples=10, deadline=None)
def test_a_bank_put_together_again_is_the_matrix(rows, cols, bias, bias_row, sharing):
    program = pcmc.compile(
        builders.mlp([rows, cols], bias=bias),
        builders.chip(9, 7, bias_row=bias_row, sharing=sharing),
        check=True,
    )
    (bank,) = program.banks.values()
    matrix, added = bank.matrix()
    np.testing.assert_array_equal(matrix, weights(rows, cols))
    if bias:
        np.testing.assert_array_equal(added, weights(cols, seed=100))
    else:
        assert added is None
    assert (bank.bias is not None) == (bias and not bias_row)
    assert bank.cells.size == rows * cols + (cols if bias and bias_row else 0)


def test_a_grouped_bank_is_block_diagonal():
    program = pcmc.compile(builders.conv((6, 2, 3, 3), (5, 5), group=3), builders.chip(12, 2))
    (bank,) = program.banks.values()
    matrix, bias = bank.matrix()
    filters = weights(6, 2, 3, 3).reshape(3, 2, 18)
    for group in range(3):
        block = matrix[18 * group : 18 * (group + 1)]
        np.testing.assert_array_equal(block[:, 2 * group : 2 * group + 2], filters[group].T)
        assert np.count_nonzero(block) == filters[group].size
    np.testing.assert_array_equal(bias, weights(6, seed=1))


def test_regions_are_valid_models_that_hold_no_matrix():
    program = pcmc.compile(builders.mlp([20, 10, 5], activation="Sigmoid"))
    assert len(program.regions) == 1
    for region in program.regions.values():
        onnx.shape_inference.infer_shapes(region, check_type=True, strict_mode=True)
        assert not region.graph.initializer
        assert [one.op_type for one in region.graph.node] == ["Sigmoid"]


def test_a_region_holds_only_the_constants_that_it_uses():
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Pow", ["a", "two"], ["b"]),
        node("MatMul", ["b", "v"], ["c"]),
        node("Pow", ["c", "three"], ["y"]),
    ]
    arrays = {"w": weights(6, 6), "v": weights(6, 6), "two": np.float32(2), "three": np.float32(3)}
    program = builders.compiled_like_onnxruntime(
        builders.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, arrays)
    )
    held = [[tensor.name for tensor in region.graph.initializer] for region in program.regions.values()]
    assert held == [["two"], ["three"]]


@pytest.mark.parametrize(
    ("nodes", "digital", "why"),
    [
        ([node("MatMul", ["h", "h"], ["y"], name="n")], "n", "product of two activations"),
        ([node("Relu", ["h"], ["y"], name="n")], "n", "not a product with a matrix"),
        ([node("Gather", ["h", "index"], ["y"], name="n")], "n", "a look-up, not a product"),
    ],
)
def test_the_program_says_what_stays_digital_and_why(nodes, digital, why):
    first = node("MatMul", ["x", "w"], ["h"], name="product")
    proto = builders.model(
        [first, *nodes], {"x": [4, 4]}, {"y": [4, 4]}, {"w": weights(4, 4), "index": np.arange(4)}
    )
    program = builders.compiled_like_onnxruntime(proto)
    assert list(program.digital) == [digital]
    assert why in program.digital[digital]


def test_inputs_and_outputs_keep_name_type_shape_and_order():
    nodes = [node("MatMul", ["b", "w"], ["y2"]), node("Cast", ["a"], ["y1"], to=TensorProto.INT32)]
    proto = builders.model(
        nodes,
        {"a": (["N", 3], TensorProto.DOUBLE), "b": ["N", 4]},
        {"y1": (["N", 3], TensorProto.INT32), "y2": ["N", 5]},
        {"w": weights(4, 5)},
    )
    program = builders.compiled_like_onnxruntime(proto)
    assert [(info.name, info.shape, info.dtype) for info in program.inputs] == [
        ("a", ("N", 3), TensorProto.DOUBLE),
        ("b", ("N", 4), TensorProto.FLOAT),
    ]
    assert [(info.name, info.dtype) for info in program.outputs] == [
        ("y1", TensorProto.INT32),
        ("y2", TensorProto.FLOAT),
    ]


def test_types_that_inference_leaves_open_are_found_by_running_the_model():
    """onnx knows nothing of this domain's operators: the type of what one makes is found by onnxruntime."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Gelu", ["a"], ["b"], domain="com.microsoft"),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    proto = builders.model(
        nodes, {"x": ["N", 6]}, {"y": ["N", 6]}, {"w": weights(6, 6)}, domains={"com.microsoft": 1}
    )
    program = builders.compiled_like_onnxruntime(proto)
    (region,) = program.regions.values()
    assert region.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_counts_of_tiles_and_chips_are_those_of_the_blocks():
    program = pcmc.compile(builders.mlp([300, 90, 40, 10]), builders.chip(64, 32), check=True)
    places = {(int(b["chip"]), int(b["tile"])) for bank in program.banks.values() for b in bank.table}
    assert program.tiles == len(places)
    assert program.chips == 1 + max(chip for chip, _ in places)
