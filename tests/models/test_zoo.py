"""The shipped networks load in onnxruntime, score what is said of them, and hold no trace of a machine."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from pcmc.errors import ModelError
from pcmc.models import zoo

NAMES = zoo.names()


def run(name, x):
    session = onnxruntime.InferenceSession(zoo.path(name), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": x})
    return logits


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_reaches_its_stated_accuracy(name):
    (stated,) = (d for d in zoo.describe() if d["name"] == name)
    x, y = zoo.test_data(name)
    assert len(x) == len(y) == stated["test_images"]
    right = np.argmax(run(name, x), axis=1) == y
    # Another onnxruntime may round differently: one image of 450 may change sides.
    assert 100 * right.mean() == pytest.approx(stated["accuracy"], abs=100 / len(y))
    assert stated["accuracy"] >= 97


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_dimension_is_open_and_images_do_not_depend_on_each_other(name):
    x, _ = zoo.test_data(name)
    many = run(name, x[:7])
    assert many.shape == (7, 10)
    np.testing.assert_allclose(run(name, x[3:4]), many[3:4], rtol=1e-5, atol=1e-5)
    shape = onnx.load(zoo.path(name)).graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [d.dim_value for d in shape[1:]] == [1, 8, 8]


@pytest.mark.parametrize("name", NAMES)
def test_the_description_agrees_with_the_file(name):
    (stated,) = (d for d in zoo.describe() if d["name"] == name)
    model = onnx.load(zoo.path(name))
    size = zoo.path(name).stat().st_size
    assert stated["bytes"] == size < 200_000
    statistics = ("running_mean", "running_var", "val_")
    trained = [t for t in model.graph.initializer if not any(s in t.name for s in statistics)]
    assert stated["parameters"] == sum(int(np.prod(t.dims)) for t in trained)
    assert stated["inputs"].startswith(f"{model.graph.input[0].name}: float32 [batch, 1, 8, 8]")
    assert stated["outputs"].startswith(f"{model.graph.output[0].name}: float32 [batch, 10]")


def test_the_convolutional_network_keeps_its_batch_normalization():
    kinds = [node.op_type for node in onnx.load(zoo.path("digits-cnn")).graph.node]
    assert kinds.count("Conv") == kinds.count("BatchNormalization") == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_holds_no_path_and_no_trace_of_the_machine_that_made_it(name):
    model = onnx.load(zoo.path(name))
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        assert not part.doc_string
        assert not part.metadata_props
    content = zoo.path(name).read_bytes()
    for trace in (b"/home/", b"/root", b"/tmp/", b"/usr/", b"site-packages", b".py"):
        assert trace not in content


def test_the_test_images_are_what_the_networks_expect():
    x, y = zoo.test_data("digits-mlp")
    assert x.dtype == np.float32
    assert x.shape == (450, 1, 8, 8)
    assert y.dtype == np.int64
    assert x.min() == 0
    assert x.max() == 1
    # Drawn by class: about 45 of each digit.
    assert np.bincount(y, minlength=10).min() >= 43


def test_the_descriptions_can_be_written_as_json():
    assert json.loads(json.dumps(zoo.describe())) == zoo.describe()
    assert [d["name"] for d in zoo.describe()] == NAMES == ["digits-mlp", "digits-cnn"]
    for description in zoo.describe():
        assert all(description.values())


def test_a_name_is_told_from_a_path():
    assert zoo.is_name("digits-cnn")
    for text in ("digits-cnn.onnx", "./digits-cnn", "DIGITS-CNN", "", "model.onnx"):
        assert not zoo.is_name(text)


@pytest.mark.parametrize("call", [zoo.path, zoo.test_data])
@pytest.mark.parametrize("name", ["resnet50", "", "../digits-mlp", "digits-mlp.onnx"])
def test_an_unknown_name_is_answered_with_the_known_ones(call, name):
    with pytest.raises(ModelError, match=r"digits-mlp, digits-cnn") as caught:
        call(name)
    assert repr(name) in str(caught.value)
