"""Untrained networks: the layers that are asked for, initial weights of the published laws."""

import builders
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pcmc.errors import ModelError
from pcmc.models.networks import lenet5, perceptron


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def op_types(model):
    return [node.op_type for node in model.graph.node]


def shape_of(value):
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


def assert_uniform(array, bound):
    """Within five deviations of mean and variance of a uniform law within +-bound, and never outside."""
    n = array.size
    assert np.abs(array).max() <= bound
    assert abs(array.mean()) < 5 * bound / np.sqrt(3 * n)
    assert array.var() == pytest.approx(bound**2 / 3, rel=5 * np.sqrt(0.8 / n))


def test_a_perceptron_has_the_layers_that_are_asked_for():
    model = perceptron([528, 250, 125, 10])
    onnx.checker.check_model(model, full_check=True)
    assert op_types(model) == ["Gemm", "Tanh", "Gemm", "Tanh", "Gemm"]
    shapes = {name: array.shape for name, array in constants(model).items()}
    assert shapes == {
        "layer1.weight": (528, 250),
        "layer1.bias": (250,),
        "layer2.weight": (250, 125),
        "layer2.bias": (125,),
        "layer3.weight": (125, 10),
        "layer3.bias": (10,),
    }
    (entry,), (exit_,) = model.graph.input, model.graph.output
    assert (entry.name, shape_of(entry)) == ("x", ["batch", 528])
    assert (exit_.name, shape_of(exit_)) == ("logits", ["batch", 10])


@pytest.mark.parametrize(("activation", "function"), [
    ("tanh", np.tanh), ("sigmoid", lambda z: 1 / (1 + np.exp(-z))), ("relu", lambda z: np.maximum(z, 0)),
])  # fmt: skip
def test_a_perceptron_computes_what_its_weights_say(activation, function):
    model = perceptron([6, 5, 4], activation, seed=3)
    given, inputs = constants(model), builders.feeds(model)
    hidden = function(inputs["x"] @ given["layer1.weight"])
    want = (hidden @ given["layer2.weight"]).astype(np.float32)
    builders.assert_close(builders.reference(model, inputs), [want])
    builders.compiled_like_onnxruntime(model)


def test_biases_are_zero_at_first_or_left_out():
    assert not any(array.any() for name, array in constants(perceptron([4, 3, 2])).items() if "bias" in name)
    model = perceptron([4, 3, 2], bias=False)
    assert set(constants(model)) == {"layer1.weight", "layer2.weight"}
    builders.compiled_like_onnxruntime(model)


@pytest.mark.parametrize(("activation", "bound"), [
    ("tanh", np.sqrt(6 / 500)), ("sigmoid", np.sqrt(6 / 500)), ("relu", np.sqrt(6 / 200)),
])  # fmt: skip
def test_initial_weights_of_a_perceptron_have_the_published_law(activation, bound):
    assert_uniform(constants(perceptron([200, 300, 2], activation))["layer1.weight"], bound)


def test_equal_seeds_give_equal_bytes_and_others_do_not():
    for build in (lambda seed: perceptron([5, 4], seed=seed), lambda seed: lenet5(seed)):
        one, same, other = (build(seed).SerializeToString() for seed in (1, 1, 2))
        assert one == same
        assert one != other


def test_the_layers_do_not_share_their_random_numbers():
    given = constants(perceptron([5, 5, 5]))
    assert not np.array_equal(given["layer1.weight"], given["layer2.weight"])


def test_the_global_generator_is_neither_read_nor_changed():
    np.random.seed(1)  # noqa: NPY002 - it is what the test is about
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    perceptron([4, 3])
    lenet5()
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize(("sizes", "text"), [
    ([10], "two or more sizes from 1 on"), ([], "two or more sizes"), ([4, 0, 2], "sizes from 1 on"),
    ([4, -1], "sizes from 1 on"), ([100_000, 100_000], "a layer of 10,000,000,000 weights"),
])  # fmt: skip
def test_sizes_that_make_no_network_are_refused(sizes, text):
    with pytest.raises(ModelError, match=text):
        perceptron(sizes)


def test_an_unknown_activation_pool_or_seed_is_refused():
    with pytest.raises(ModelError, match="no activation is called 'swish'; there are tanh, sigmoid, relu"):
        perceptron([4, 3], "swish")
    with pytest.raises(ModelError, match="no activation is called 'Tanh'"):
        lenet5(activation="Tanh")
    with pytest.raises(ModelError, match="no pool is called 'min'; there are average, max"):
        lenet5(pool="min")
    with pytest.raises(ModelError, match="a seed of -1: should be a whole number from 0 on"):
        perceptron([4, 3], seed=-1)


@pytest.mark.parametrize(("activation", "pool", "op_type", "pool_type"), [
    ("tanh", "average", "Tanh", "AveragePool"), ("relu", "max", "Relu", "MaxPool"),
])  # fmt: skip
def test_lenet5_has_its_published_layers(activation, pool, op_type, pool_type):
    model = lenet5(0, activation, pool)
    onnx.checker.check_model(model, full_check=True)
    stage = ["Conv", op_type, pool_type]
    assert op_types(model) == [*stage, *stage, "Flatten", "Gemm", op_type, "Gemm", op_type, "Gemm"]
    # LeCun et al. 1998, section II.B: 6 and 16 maps of 5x5, 120, 84 and 10 units; maps of 28, 14, 10 and 5.
    shapes = {name: array.shape for name, array in constants(model).items() if name.endswith("weight")}
    assert list(shapes.values()) == [(6, 1, 5, 5), (16, 6, 5, 5), (400, 120), (120, 84), (84, 10)]
    assert sum(array.size for array in constants(model).values()) == 61_706
    maps = {
        value.name: shape_of(value)[1:] for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    assert maps["conv1/output"] == [6, 28, 28]
    assert maps["conv1.pool/output"] == [6, 14, 14]
    assert maps["conv2/output"] == [16, 10, 10]
    assert maps["conv2.pool/output"] == [16, 5, 5]
    assert shape_of(model.graph.output[0]) == ["batch", 10]


def test_initial_weights_of_lenet5_count_the_window():
    given = constants(lenet5())
    assert_uniform(given["conv2.weight"], np.sqrt(6 / (25 * 6 + 25 * 16)))
    assert_uniform(given["fc1.weight"], np.sqrt(6 / 520))
    assert_uniform(constants(lenet5(0, "relu"))["conv2.weight"], np.sqrt(6 / 150))


def test_lenet5_compiles_and_equals_onnxruntime():
    program = builders.compiled_like_onnxruntime(lenet5())
    assert set(program.banks) == {"conv1", "conv2", "fc1", "fc2", "fc3"}
