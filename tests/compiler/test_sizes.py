"""Open dimensions: asked for where they fix a number of vectors, left open where they do not."""

import builders
import numpy as np
import pytest
from builders import node, weights

import pcmc
from pcmc.errors import ModelError


def conv_on(shape, out=None):
    nodes = [node("Conv", ["x", "w"], ["y"], name="conv")]
    return builders.model(nodes, {"x": shape}, {"y": out or [None] * len(shape)}, {"w": weights(4, 3, 3, 3)})


def test_a_leading_batch_dimension_stays_open_and_counts_as_one():
    program = pcmc.compile(conv_on(["batch", 3, 8, 8]))
    assert program.sample_shapes == {"x": (1, 3, 8, 8)}
    assert program.inputs[0].shape == ("batch", 3, 8, 8)


def test_an_open_dimension_that_matters_is_asked_for_with_its_name_and_the_cure():
    with pytest.raises(ModelError) as error:
        pcmc.compile(conv_on(["N", 3, "height", "width"]))
    assert "input 'x' has open dimensions 2 ('height'), 3 ('width')" in str(error.value)
    assert "--shape x=1,3,N,N" in str(error.value)


def test_the_cure_that_the_message_gives_works():
    proto = conv_on(["N", 3, "height", "width"])
    program = builders.compiled_like_onnxruntime(
        proto, shapes={"x": (1, 3, 9, 7)}, inputs=builders.feeds(proto, batch=2, height=9, width=7)
    )
    assert program.sample_shapes == {"x": (1, 3, 9, 7)}
    assert program.inputs[0].shape == ("N", 3, 9, 7)


def test_a_zero_leaves_a_dimension_as_the_model_has_it():
    program = pcmc.compile(conv_on(["N", 3, "height", 7]), shapes={"x": (0, 0, 9, 0)})
    assert program.inputs[0].shape == ("N", 3, 9, 7)


def test_a_given_batch_leaves_the_batch_open():
    program = pcmc.compile(conv_on(["N", 3, 8, 8]), shapes={"x": (5, 3, 8, 8)})
    assert program.inputs[0].shape[0] == "N"
    assert program.sample_shapes == {"x": (1, 3, 8, 8)}


def test_a_fixed_batch_stays_fixed():
    program = pcmc.compile(conv_on([4, 3, 8, 8]))
    assert program.sample_shapes == {"x": (4, 3, 8, 8)}


def test_an_open_dimension_that_does_not_matter_stays_open():
    """The open axis is averaged away before the matrix: it has one vector a sample, whatever the length."""
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=0),
        node("MatMul", ["m", "w"], ["y"], name="product"),
    ]
    proto = builders.model(nodes, {"x": ["N", "length", 6]}, {"y": ["N", 5]}, {"w": weights(6, 5)})
    program = builders.compiled_like_onnxruntime(proto, inputs=builders.feeds(proto, length=11))
    assert program.inputs[0].shape == ("N", "length", 6)


def test_one_open_sequence_dimension_is_asked_for():
    nodes = [node("MatMul", ["x", "w"], ["y"], name="product")]
    proto = builders.model(nodes, {"x": ["N", "length", 6]}, {"y": ["N", "length", 5]}, {"w": weights(6, 5)})
    with pytest.raises(ModelError, match=r"1 \('length'\): give them with --shape x=1,N,6"):
        pcmc.compile(proto)
    program = builders.compiled_like_onnxruntime(
        proto, shapes={"x": (1, 7, 6)}, inputs=builders.feeds(proto, length=7)
    )
    assert program.report()["layers"][0]["vectors"] == 7


@pytest.mark.parametrize(
    ("shapes", "part"),
    [
        ({"z": (1, 3, 8, 8)}, "--shape z: there is no such input; it has x"),
        ({"x": (1, 3, 8)}, "--shape x: the input has 4 dimensions, 3 were given"),
        ({"x": (1, 4, 8, 8)}, "--shape x: dimension 1 is 3 in the model, 4 was given"),
    ],
)
def test_a_shape_that_contradicts_the_model_is_refused(shapes, part):
    with pytest.raises(ModelError) as error:
        pcmc.compile(conv_on(["N", 3, "height", "width"]), shapes=shapes)
    assert part in str(error.value)


def test_an_input_without_a_shape_is_asked_for_and_can_be_given():
    nodes = [node("Conv", ["x", "w"], ["y"], name="conv")]
    proto = builders.model(nodes, {"x": None}, {"y": None}, {"w": weights(4, 3, 3, 3)})
    with pytest.raises(ModelError, match="input 'x' has no shape: give it with --shape x="):
        pcmc.compile(proto)
    inputs = {"x": builders.rng().standard_normal((2, 3, 6, 5)).astype(np.float32)}
    builders.compiled_like_onnxruntime(proto, shapes={"x": (1, 3, 6, 5)}, inputs=inputs)


def test_an_image_smaller_than_the_window_is_refused():
    with pytest.raises(pcmc.PcmcError, match="conv"):
        pcmc.compile(conv_on(["N", 3, "height", "width"]), shapes={"x": (1, 3, 2, 2)}).report()
