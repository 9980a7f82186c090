"""Data sets are read as published, whole or in part; a bad file is a DataError that names it."""

import gzip
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real
from pcmc.errors import DataError
from pcmc.models import datasets

PIXELS = 28 * 28


def idx(array, magic=None):
    """Return the bytes of an IDX file of a uint8 array."""
    magic = 0x0800 + array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def some_images(count, channels, side, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def write_mnist(folder, count=5, split="test", zipped=True):
    stem = {"test": "t10k", "train": "train"}[split]
    x, y = some_images(count, 1, 28), np.arange(count, dtype=np.uint8) % 10
    for name, content in (("images-idx3", idx(x[:, 0])), ("labels-idx1", idx(y))):
        file = folder / f"{stem}-{name}-ubyte{'.gz' if zipped else ''}"
        file.write_bytes(gzip.compress(content) if zipped else content)
    return x, y


def write_cifar(file, count, labels=1, seed=1):
    x = some_images(count, 3, 32, seed)
    y = np.arange(count * labels, dtype=np.uint8).reshape(count, labels) % 10
    file.write_bytes(np.concatenate([y, x.reshape(count, -1)], axis=1).tobytes())
    return x, y


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("subfolder", ["mnist", "."])
@pytest.mark.parametrize("split", ["test", "train"])
def test_mnist_is_read_zipped_or_not_in_its_folder_or_by_itself(tmp_path, zipped, subfolder, split):
    (tmp_path / subfolder).mkdir(exist_ok=True)
    x, y = write_mnist(tmp_path / subfolder, split=split, zipped=zipped)
    images, labels = datasets.load("mnist", split, tmp_path)
    np.testing.assert_array_equal(images, x)
    np.testing.assert_array_equal(labels, y)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64


def test_the_images_may_be_changed_by_their_owner(tmp_path):
    write_mnist(tmp_path)
    write_cifar(tmp_path / "test_batch.bin", 2)
    for name in ("mnist", "cifar10"):
        images, labels = datasets.load(name, folder=tmp_path)
        images += 1
        labels += 1


def test_cifar10_training_images_are_those_of_the_batches_that_are_there_in_their_order(tmp_path):
    x2, y2 = write_cifar(tmp_path / "data_batch_2.bin", 3, seed=2)
    x1, y1 = write_cifar(tmp_path / "data_batch_1.bin", 2, seed=1)
    images, labels = datasets.load("cifar10", "train", tmp_path)
    np.testing.assert_array_equal(images, np.concatenate([x1, x2]))
    np.testing.assert_array_equal(labels, np.concatenate([y1, y2])[:, 0])


def test_cifar100_has_fine_labels_unless_coarse_ones_are_asked_for(tmp_path):
    x, y = write_cifar(tmp_path / "test.bin", 4, labels=2)
    images, fine = datasets.load("cifar100", "test", tmp_path)
    np.testing.assert_array_equal(images, x)
    np.testing.assert_array_equal(fine, y[:, 1])
    np.testing.assert_array_equal(datasets.load("cifar100", "test", tmp_path, coarse=True)[1], y[:, 0])


def test_the_folder_given_goes_before_the_environment(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_mnist(tmp_path / "a", count=1)
    write_mnist(tmp_path / "b", count=2)
    monkeypatch.setenv("PCMC_DATA", str(tmp_path / "b"))
    assert len(datasets.load("mnist")[1]) == 2
    assert len(datasets.load("mnist", folder=tmp_path / "a")[1]) == 1


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [
        ("mnist", "test", "t10k-images-idx3-ubyte"),
        ("cifar10", "train", "data_batch_1.bin"),
        ("cifar100", "test", "test.bin"),
    ],
)
def test_a_missing_file_is_named_and_never_downloaded(tmp_path, monkeypatch, name, split, file):
    monkeypatch.setenv("PCMC_DATA", str(tmp_path))
    # Were anything downloaded, it would be from a port that answers nobody, with another message.
    monkeypatch.setenv("PCMC_DATA_URL", "http://127.0.0.1:9/")
    with pytest.raises(DataError, match=file) as caught:
        datasets.load(name, split)
    assert "PCMC_DATA" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        datasets.load("mnist", folder=tmp_path / "nowhere")
    with pytest.raises(DataError, match="no folder"):
        datasets.load("mnist", folder="nul\0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "imagenet"}, "'imagenet'.*mnist, cifar10, cifar100"),
        ({"name": "mnist", "split": "validation"}, "'validation'.*test and train"),
        ({"name": "cifar10", "coarse": True}, "no coarse labels"),
    ],
)
def test_a_wrong_request_is_answered_with_the_right_ones(arguments, message):
    with pytest.raises(DataError, match=message):
        datasets.load(**arguments)


BAD_IDX = {
    "empty": (b"", "too few"),
    "header only in part": (struct.pack(">2I", 0x0803, 5), "too few"),
    "labels for images": (idx(np.zeros(20, np.uint8)), "0x00000801.*0x00000803"),
    "floats": (idx(np.zeros((1, 28, 28), np.uint8), magic=0x0D03), "0x00000d03"),
    "other shape": (idx(np.zeros((1, 32, 32), np.uint8)), "32x32.*28x28"),
    "no images": (idx(np.zeros((0, 28, 28), np.uint8)), "0 records"),
    "truncated": (idx(np.zeros((5, 28, 28), np.uint8))[:-1], "says it has 5 records"),
    "too long": (idx(np.zeros((5, 28, 28), np.uint8)) + b"\0", "says it has 5 records"),
    "absurd count": (struct.pack(">4I", 0x0803, 2**32 - 1, 28, 28) + bytes(PIXELS), "4,294,967,295 records"),
    "absurd sides": (struct.pack(">4I", 0x0803, 2**31, 2**31, 2**31), "28x28"),
}


@pytest.mark.parametrize("case", BAD_IDX)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_bad_image_file_is_refused_and_named(tmp_path, case, zipped):
    content, message = BAD_IDX[case]
    write_mnist(tmp_path, zipped=zipped)
    file = tmp_path / f"t10k-images-idx3-ubyte{'.gz' if zipped else ''}"
    file.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match=message) as caught:
        datasets.load("mnist", folder=tmp_path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda b: b[:-9], lambda b: b[:12], lambda b: b"not gzip" + b, lambda b: b""]
)
def test_a_gzip_file_that_is_cut_or_is_none_is_refused_and_named(tmp_path, change):
    write_mnist(tmp_path)
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz"):
        datasets.load("mnist", folder=tmp_path)


def test_more_labels_than_images_are_refused(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(6, np.uint8))))
    with pytest.raises(DataError, match=r"5 images, but .* 6 labels"):
        datasets.load("mnist", folder=tmp_path)


def test_a_label_that_is_no_class_is_refused_with_its_place(tmp_path):
    write_mnist(tmp_path)
    labels = np.array([0, 1, 2, 3, 10], np.uint8)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    with pytest.raises(DataError, match="record 4 has the label 10; labels are 0 to 9"):
        datasets.load("mnist", folder=tmp_path)


@pytest.mark.slow
def test_a_header_or_a_bomb_takes_no_more_memory_than_the_largest_real_file(tmp_path):
    write_mnist(tmp_path)
    bound = 16 + datasets.MAX_RECORDS * PIXELS
    bomb = gzip.compress(struct.pack(">4I", 0x0803, 2**20, 28, 28) + bytes(3 * bound), 1)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more than 78,400,016 bytes"):
            datasets.load("mnist", folder=tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A growing bytearray may hold an eighth more than it needs, and an old copy while it moves.
    assert peak < 2.3 * bound


@pytest.mark.parametrize("size", [0, 1, 3072, 3074, 2 * 3073 - 1, 2 * 3073 + 1])
def test_a_cifar_file_of_no_whole_number_of_records_is_refused(tmp_path, size):
    (tmp_path / "test_batch.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=r"test_batch\.bin has .* not a whole number .* 3,073 bytes"):
        datasets.load("cifar10", folder=tmp_path)


def test_a_cifar_file_far_larger_than_any_published_one_is_refused_unread(tmp_path):
    with (tmp_path / "test.bin").open("wb") as file:
        file.truncate(3074 * (datasets.MAX_RECORDS + 1))  # sparse: takes no room
    with pytest.raises(DataError, match="100,001 records"):
        datasets.load("cifar100", folder=tmp_path)


def test_cifar100_files_are_not_taken_for_cifar10(tmp_path):
    x = np.full((3073, 3074), 255, np.uint8)  # 3073 * 3074 bytes are whole records of either
    (tmp_path / "test_batch.bin").write_bytes(x.tobytes())
    with pytest.raises(DataError, match="record 0 has the label 255"):
        datasets.load("cifar10", folder=tmp_path)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_mutation_of_a_file_raises_anything_but_data_errors(data):
    """Files, zipped or not, are cut, lengthened and overwritten; loading works or is a DataError."""
    # A folder of its own for each example: hypothesis may stop one halfway, and leave its files.
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        name = data.draw(st.sampled_from(datasets.names()))
        if name == "mnist":
            write_mnist(folder, count=2, zipped=data.draw(st.booleans()))
        else:
            file = {"cifar10": "test_batch.bin", "cifar100": "test.bin"}[name]
            write_cifar(folder / file, 2, labels=1 if name == "cifar10" else 2)
        file = data.draw(st.sampled_from(sorted(folder.iterdir())))
        file.write_bytes(mutated(data, file.read_bytes()))
        message = None
        try:
            images, labels = datasets.load(name, folder=folder)
        except DataError as error:
            message = str(error)
    if message is None:
        assert len(images) == len(labels) > 0
        assert labels.max() < 100
    else:
        assert "t10k-" in message or ".bin" in message


def mutated(data, content):
    """Replace up to four stretches of `content`, half of them in the first 32 bytes: the headers."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        end = min(len(changed), data.draw(st.sampled_from([32, len(content)])))
        start = data.draw(st.integers(0, max(end - 1, 0)))
        stop = start + data.draw(st.sampled_from([0, 1, 4, len(content)]))
        changed[start:stop] = data.draw(st.binary(max_size=8))
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "shape", "first", "last"),
    [
        # First and last labels, from the authors' files.
        ("mnist", "test", (10_000, 1, 28, 28), [7, 2, 1, 0, 4], [5, 6]),
        ("mnist", "train", (60_000, 1, 28, 28), [5, 0, 4, 1, 9], [6, 8]),
        ("cifar10", "test", (10_000, 3, 32, 32), [3, 8, 8, 0, 6], [1, 7]),
    ],
)
def test_the_published_files_are_read(name, split, shape, first, last):
    images, labels = datasets.load(name, split, real.data_folder())
    assert images.shape == shape
    assert labels[:5].tolist() == first
    assert labels[-2:].tolist() == last
    # Digits are light on dark, in the middle; photographs are not.
    if name == "mnist":
        assert images[:, :, 10:18, 10:18].mean() > 4 * images[:, :, :4].mean()


@pytest.mark.slow
def test_cifar100_classes_belong_to_their_superclasses():
    folder = real.data_folder()
    _, fine = datasets.load("cifar100", "train", folder)
    _, coarse = datasets.load("cifar100", "train", folder, coarse=True)
    pairs = set(zip(fine.tolist(), coarse.tolist(), strict=True))
    # Each of the 100 classes has one superclass, and each of the 20 superclasses five classes.
    assert len(pairs) == 100
    assert np.bincount([c for _, c in pairs]).tolist() == [5] * 20


# --- made of them, or shipped


def test_a_random_background_is_seeded_uniform_and_behind_the_digit():
    images = some_images(40, 1, 28)
    images[images < 200] = 0
    before = images.copy()
    made = datasets.random_background(images, seed=3)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(made[images > 0], images[images > 0])
    np.testing.assert_array_equal(made, datasets.random_background(images, seed=3))
    assert not np.array_equal(made, datasets.random_background(images, seed=4))
    assert made.dtype == np.uint8
    # Each of 256 values is expected n / 256 times, with a deviation of the root of that.
    counts = np.bincount(made[images == 0], minlength=256)
    expected = counts.sum() / 256
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_digits_are_the_shipped_test_images_in_two_parts():
    x_train, y_train, x_test, y_test = datasets.digits()
    assert (x_train.shape, x_test.shape) == ((300, 1, 8, 8), (150, 1, 8, 8))
    # Every class is in both parts, in fair numbers.
    assert np.bincount(y_train).min() >= 20
    assert np.bincount(y_test).min() >= 10
