"""Data for training: in the layout that the model takes, or one clear line on what does not fit."""

import gzip
import struct

import builders
import numpy as np
import pytest
from builders import node, weights
from onnx import TensorProto

import pcmc
from pcmc.errors import DataError
from pcmc.workflows.training_data import training_data


def program(shape, classes=10, dtype=TensorProto.FLOAT, name="x"):
    """A compiled model that takes `[N, *shape]` and gives `[N, classes]`, by way of a Flatten and a Gemm."""
    nodes = [
        node("Cast", [name], ["c"], to=TensorProto.FLOAT),
        node("Flatten", ["c"], ["f"]),
        node("Gemm", ["f", "w"], ["out"]),
    ]
    given = {"w": weights(int(np.prod(shape)), classes)}
    return pcmc.compile(builders.model(nodes, {name: (["N", *shape], dtype)}, {"out": ["N", classes]}, given))


def mnist_file(folder, stem, images, labels):
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
        (folder / f"{stem}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Five training and three test images of MNIST's format, whose pixels outside of the middle are zero."""
    monkeypatch.setenv("PCMC_DATA", str(tmp_path))
    sets = {}
    for stem, count in (("train", 5), ("t10k", 3)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 6:20, 8:18] = builders.rng(count).integers(1, 256, (count, 14, 10))
        labels = np.arange(count, dtype=np.uint8)
        mnist_file(tmp_path, stem, images, labels)
        sets[stem] = images, labels
    return sets["train"][0], sets["train"][1], sets["t10k"][0], sets["t10k"][1]


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Four training and two test images of CIFAR-10 and CIFAR-100."""
    monkeypatch.setenv("PCMC_DATA", str(tmp_path))
    x = builders.rng(7).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)
    for name, count, labels in (
        ("data_batch_1", 4, 1),
        ("test_batch", 2, 1),
        ("train", 4, 2),
        ("test", 2, 2),
    ):
        y = np.full((count, labels), 9, np.uint8)
        y[:, -1] = 9 if labels == 1 else 99
        (tmp_path / f"{name}.bin").write_bytes(np.concatenate([y, x[:count].reshape(count, -1)], 1).tobytes())
    return x


# --- data sets by name


@pytest.mark.parametrize("shape", [
    (1, 28, 28), (28, 28, 1), (784,), (784, 1), (1, 784), (28, 28),
])  # fmt: skip
def test_mnist_comes_in_the_layout_that_the_model_takes(mnist, shape):
    x, y, _, _ = mnist
    data = training_data("mnist", program(shape))
    assert data.x_train.shape == (5, *shape)
    np.testing.assert_array_equal(data.x_train.reshape(5, 784), x.reshape(5, 784) / np.float32(255))
    np.testing.assert_array_equal(data.y_train, y)
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int64)
    assert data.x_train.flags.c_contiguous


@pytest.mark.parametrize(("shape", "want"), [((1, "h", "w"), (1, 28, 28)), (("n",), (784,))])
def test_an_open_size_takes_the_whole_image(mnist, shape, want):
    nodes = [
        node("ReduceMean", ["x"], ["m"], axes=list(range(1, len(shape) + 1)), keepdims=0),
        node("Reshape", ["m", "column"], ["c"]),
        node("Gemm", ["c", "w"], ["y"]),
    ]
    given = {"column": np.array([-1, 1]), "w": weights(1, 10)}
    model = pcmc.compile(builders.model(nodes, {"x": ["N", *shape]}, {"y": ["N", 10]}, given))
    assert training_data("mnist", model).x_train.shape == (5, *want)


@pytest.mark.parametrize("shape", [(528,), (528, 1), (1, 24, 22), (24, 22, 1)])
def test_mnist_is_cropped_for_528_rows(mnist, shape):
    _, _, x, y = mnist
    data = training_data("mnist", program(shape))
    np.testing.assert_array_equal(
        data.x_test.reshape(3, 24, 22), x[:, 2:26, 3:25].astype(np.float32) / np.float32(255)
    )
    np.testing.assert_array_equal(data.y_test, y)
    assert "cropped to 24 x 22" in data.note


def test_the_note_says_what_there_is(mnist):
    assert training_data("mnist", program((1, 28, 28))).note == (
        "mnist: 5 training images (of 60,000 published) and 3 test images (of 10,000 published), pixels 0..1"
    )
    assert "as [784], pixels 0..1" in training_data("mnist", program((784,))).note


def test_bytes_stay_bytes_and_half_precision_is_given_as_such(mnist):
    counts = training_data("mnist", program((784,), dtype=TensorProto.UINT8))
    np.testing.assert_array_equal(counts.x_train, mnist[0].reshape(5, 784))
    assert counts.x_train.dtype == np.uint8
    assert "pixels 0..255" in counts.note
    half = training_data("mnist", program((784,), dtype=TensorProto.FLOAT16))
    assert half.x_train.dtype == np.float16


def test_random_backgrounds_are_behind_the_digit_and_said_to_be_a_reconstruction(mnist):
    x, y, x_test, _ = mnist
    data = training_data("mnist-backrand", program((28, 28)))
    again = training_data("mnist-backrand", program((28, 28)))
    digit = x > 0
    pixels = np.rint(data.x_train * 255)
    np.testing.assert_array_equal(pixels[digit], x[digit])
    np.testing.assert_array_equal(data.y_train, y)
    np.testing.assert_array_equal(data.x_train, again.x_train)
    assert "a reconstruction, not the published set" in data.note
    background = pixels[~digit]
    # Uniform over 0..255: mean 127.5, deviation 73.9.
    assert abs(background.mean() - 127.5) < 5 * 73.9 / np.sqrt(background.size)
    assert background.std() == pytest.approx(73.9, rel=0.05)
    common = (~digit)[:3] & (x_test == 0)
    assert np.mean(pixels[:3][common] == np.rint(data.x_test * 255)[common]) < 0.05, "test has its own noise"


@pytest.mark.parametrize(("shape", "order"), [
    ((3, 32, 32), (0, 1, 2, 3)), ((32, 32, 3), (0, 2, 3, 1)), ((3072,), (0, 1, 2, 3)),
])  # fmt: skip
def test_cifar_comes_channels_first_last_or_flat(cifar, shape, order):
    data = training_data("cifar10", program(shape))
    want = cifar.transpose(order).reshape(4, *shape) / np.float32(255)
    np.testing.assert_array_equal(data.x_train, want)
    np.testing.assert_array_equal(data.x_test, want[:2])
    np.testing.assert_array_equal(data.y_test, [9, 9])
    np.testing.assert_array_equal(training_data("cifar100", program(shape, 100)).y_test, [99, 99])


def test_more_classes_than_outputs_are_refused(cifar):
    with pytest.raises(
        DataError, match="cifar100: labels: label 0 is 99; the model has 10 outputs, so they are 0 to 9"
    ):
        training_data("cifar100", program((3072,), 10))


def test_a_model_of_other_images_is_told_what_there_is(cifar):
    with pytest.raises(
        DataError, match=r"input 'x' is \[N, 3, 8, 8\]; .* \[3, 32, 32\], \[32, 32, 3\], \[3072\]"
    ):
        training_data("cifar10", program((3, 8, 8)))


def test_a_model_of_signed_bytes_wants_a_file(mnist):
    with pytest.raises(DataError, match="input 'x' is of type int8; images are given as floats or uint8"):
        training_data("mnist", program((784,), dtype=TensorProto.INT8))


def test_digits_are_the_shipped_ones_in_two_parts():
    data = training_data("digits", pcmc.compile("digits-cnn"))
    assert (data.x_train.shape, data.x_test.shape) == ((300, 1, 8, 8), (150, 1, 8, 8))
    assert set(data.y_train) == set(data.y_test) == set(range(10))
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    assert not any((image == data.x_train).all(axis=(1, 2, 3)).any() for image in data.x_test)
    assert "both of the shipped networks' test images" in data.note
    assert training_data("digits", program((64,))).x_train.shape == (300, 64)


# --- the user's own arrays


def samples(count=6, size=4):
    return builders.rng(3).standard_normal((count, size)).astype(np.float32)


def test_a_file_has_samples_labels_and_test_data(tmp_path):
    path, x, y = tmp_path / "own.npz", samples(), np.arange(6) % 3
    np.savez(path, x=x, y=y, x_test=x[:2], y_test=y[:2])
    data = training_data(str(path), program((4,), 3))
    for got, want in zip(data[:4], (x, y, x[:2], y[:2]), strict=True):
        np.testing.assert_array_equal(got, want)
    assert data.note == f"{path}: 6 training samples and 2 test samples"


@pytest.mark.parametrize("name", ["x", "pixels", "anything"])
def test_samples_may_go_by_the_name_of_the_input_or_any(tmp_path, name):
    path = tmp_path / "own.npz"
    np.savez(path, **{name: samples(), "y": np.zeros(6, int), "pixels_test": samples(2), "y_test": [0, 1]})
    data = training_data(path, program((4,), 3, name="pixels"))
    assert (len(data.x_train), len(data.x_test)) == (6, 2)


def test_an_input_called_y_leaves_that_name_to_the_labels():
    data = training_data({"x": samples(), "y": np.zeros(6, int)}, program((4,), 3, name="y"))
    assert data.x_train.shape == (6, 4)
    assert data.y_train.shape == (6,)


def test_arrays_are_as_good_as_a_file():
    x, y, model = samples(), np.arange(6) % 3, program((4,), 3)
    two, four = training_data((x, y), model), training_data((x, y, x, y), model)
    named = training_data({"x": x, "y": y}, model)
    assert two.x_test is None
    assert two.y_test is None
    assert "no test samples" in two.note
    np.testing.assert_array_equal(four.x_test, x)
    np.testing.assert_array_equal(named.x_train, two.x_train)
    assert training_data((x, y, None, None), model).x_test is None


def test_values_are_taken_as_they_are_in_the_type_of_the_input():
    model = program((4,), 3)
    x = np.arange(24, dtype=np.uint8).reshape(6, 4)
    data = training_data((x, np.zeros(6)), model)
    np.testing.assert_array_equal(data.x_train, x.astype(np.float32))
    assert data.x_train.dtype == np.float32
    assert training_data((x.astype(np.float64), np.zeros(6)), model).x_train.dtype == np.float32


@pytest.mark.parametrize("y", [
    np.array([0, 1, 2, 2, 1, 0]), np.array([0, 1, 2, 2, 1, 0], np.uint8),
    np.array([[0], [1], [2], [2], [1], [0]]), np.array([0.0, 1.0, 2.0, 2.0, 1.0, 0.0]), [0, 1, 2, 2, 1, 0],
])  # fmt: skip
def test_labels_of_any_numbers_become_class_numbers(y):
    got = training_data((samples(), y), program((4,), 3)).y_train
    np.testing.assert_array_equal(got, [0, 1, 2, 2, 1, 0])
    assert got.dtype == np.int64


def test_targets_have_the_shape_of_the_output():
    one_hot = np.eye(3, dtype=int)[[0, 1, 2, 2, 1, 0]]
    got = training_data((samples(), one_hot), program((4,), 3)).y_train
    np.testing.assert_array_equal(got, one_hot)
    assert got.dtype == np.float32
    single = training_data((samples(), np.array([0, 1, 0, 1, 0, 1])), program((4,), 1)).y_train
    assert (single.shape, single.dtype) == ((6, 1), np.float32)


def bad(text, x=None, y=None, classes=3, **more):
    """A case: arrays, and what the message says."""
    given = {"x": samples() if x is None else x, "y": np.zeros(6, int) if y is None else y, **more}
    return pytest.param(
        {name: array for name, array in given.items() if array is not ...}, classes, text, id=text[:40]
    )


def with_value(value, sample=4):
    x = samples()
    x[sample, 1] = value
    return x


@pytest.mark.parametrize(("arrays", "classes", "text"), [
    bad("data: y: label 2 is 3; the model has 3 outputs, so they are 0 to 2", y=np.array([0, 1, 3, 0, 0, 5])),
    bad("y: label 0 is -1; the model has 3 outputs", y=np.array([-1, 0, 0, 0, 0, 0])),
    bad("y: label 1 is 0.5; class numbers are whole", y=np.array([0, 0.5, 0, 0, 0, 0])),
    bad(r"y: label 1 is 1e\+300; class numbers are whole", y=np.array([0, 1e300, 0, 0, 0, 0])),
    bad("y: label 3 is NaN or infinite", y=np.array([0, 0, 0, np.nan, 0, 0])),
    bad(r"y: has shape \[6, 2\]; should be class numbers \[N\] or targets \[N, 3\]", y=np.zeros((6, 2))),
    bad("y: labels are of type <U3", y=np.array(["cat"] * 6)),
    bad(r"x: has shape \[6, 5\]; the model's input 'x' takes \[N, 4\]", x=samples(6, 5)),
    bad(r"x: has shape \[\]; the model's input 'x' takes \[N, 4\]", x=np.float32(1)),
    bad(r"x: has shape \[0, 4\]: there is nothing in it", x=samples(0), y=np.zeros(0, int)),
    bad("x has 6 samples, y has 5 labels", y=np.zeros(5, int)),
    bad("x has 6 samples, y has 0 labels", y=np.array(1)),
    bad("x: sample 4 has values that are NaN or infinite as float32", x=with_value(np.nan)),
    bad("x: sample 4 has values that are NaN or infinite", x=with_value(-np.inf)),
    bad("x: sample 0 has values .* infinite as float32", x=samples().astype(float) * 1e300),
    bad("x: its values are of type complex64", x=samples().astype(np.complex64)),
    bad("x: is no array: its rows have different lengths", x=[[1, 2, 3, 4], [1, 2]]),
    bad("has no labels: they should be named y; it has x", y=...),
    bad("has no samples: they should be named x or x; it has y", x=...),
    bad("has x_test, but no y_test", x_test=samples(2)),
    bad("has y_test, but no x_test", y_test=np.zeros(2, int)),
    bad("x_test has 2 samples, y_test has 3 labels", x_test=samples(2), y_test=np.zeros(3, int)),
    bad("y has class numbers and y_test has targets", x_test=samples(2), y_test=np.zeros((2, 3))),
])  # fmt: skip
def test_data_that_do_not_fit_are_refused_in_one_line(arrays, classes, text):
    with pytest.raises(DataError, match=text) as refusal:
        training_data(arrays, program((4,), classes))
    assert "\n" not in str(refusal.value)


def test_numbers_that_an_integer_input_can_not_hold_are_refused():
    model = program((4,), 3, dtype=TensorProto.UINT8)
    for value in (-1, 256, 0.5):
        with pytest.raises(DataError, match=r"the model takes uint8; .* values do not all fit"):
            training_data((np.full((6, 4), value), np.zeros(6)), model)
    assert training_data((np.full((6, 4), 255), np.zeros(6)), model).x_train.dtype == np.uint8


def test_an_unknown_name_is_answered_with_those_that_there_are(tmp_path):
    model = program((4,), 3)
    with pytest.raises(
        DataError, match="no data set is called 'minst'; there are mnist, mnist-backrand, cifar10"
    ):
        training_data("minst", model)
    with pytest.raises(DataError, match=r"nowhere\.npz: no such file"):
        training_data(tmp_path / "nowhere.npz", model)
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"bad\.npz: is not an \.npz file"):
        training_data(tmp_path / "bad.npz", model)


@pytest.mark.parametrize("spec", [None, 3, np.zeros((6, 4)), (np.zeros((6, 4)),)])
def test_what_is_no_data_is_refused(spec):
    with pytest.raises(DataError, match=r"^data: "):
        training_data(spec, program((4,), 3))


def test_a_model_of_two_inputs_is_refused():
    nodes = [node("Add", ["a", "b"], ["s"]), node("MatMul", ["s", "w"], ["y"])]
    model = pcmc.compile(
        builders.model(nodes, {"a": ["N", 4], "b": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)})
    )
    with pytest.raises(DataError, match="takes a model with one input; this one has a, b"):
        training_data("mnist", model)
