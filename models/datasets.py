"""MNIST, CIFAR-10 and CIFAR-100 from the files that their authors publish, read whole or in part; and what is
made of them or ships with pcmc.

Where the files come from, in this order:

1. the folder given, else the one in the environment variable `PCMC_DATA`. Nothing is downloaded then: a
   missing file is an error;
2. the user's cache, into which they are downloaded once (`pip install pcmc[data]`), each checked against its
   SHA-256.

Formats: MNIST is four IDX files (http://yann.lecun.com/exdb/mnist), gzipped or not. A CIFAR file
(https://www.cs.toronto.edu/~kriz/cifar.html) is a row of records without a header, each of one label byte
(CIFAR-100: coarse, then fine) and 3,072 bytes of image in planes of red, green and blue.

A file is never trusted: nothing is allocated for more than it holds, whatever its header says, and everything
wrong with one is a DataError that names it.
"""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pcmc.errors import DataError
from pcmc.models import download

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    Images: TypeAlias = NDArray[np.uint8]
    Labels: TypeAlias = NDArray[np.int64]

# The largest published file of these sets has 60,000 records; one that says or holds far more is another.
MAX_RECORDS = 100_000

_MNIST_SIDE = 28
_CIFAR_SHAPE = (3, 32, 32)
_CHUNK = 1 << 20
# Of the 450 digits that ship, for training where there are no others; the order of the file is a random one.
_DIGITS_TRAIN = 300


@dataclass(frozen=True, slots=True)
class DataSet:
    """What the loader knows of a data set: its folder, its files by split, and how its labels are stored.

    `files` has the names in the order of their records; with `in_part`, those that are missing are left out
    as long as one is there. `labels` gives, for each label byte of a record, the number of classes.
    """

    subfolder: str
    files: dict[str, tuple[str, ...]]
    labels: tuple[int, ...]
    in_part: bool = False


_SETS = {
    "mnist": DataSet(
        "mnist",
        {
            "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
            "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        },
        labels=(10,),
    ),
    "cifar10": DataSet(
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        labels=(10,),
        in_part=True,
    ),
    "cifar100": DataSet(
        "cifar-100-binary", {"train": ("train.bin",), "test": ("test.bin",)}, labels=(20, 100)
    ),
}


def names() -> list[str]:
    """Return the names of the data sets."""
    return list(_SETS)


def load(
    name: str,
    split: str = "test",
    folder: str | os.PathLike[str] | None = None,
    *,
    coarse: bool = False,
    url: str | None = None,
) -> tuple[Images, Labels]:
    """Return images, uint8 [n, channels, height, width], and labels, int64 [n], in their published order.

    `name` is one of `names()`, `split` "test" or "train". `folder` holds the files, in the subfolder that
    their archive makes (`mnist`, `cifar-10-batches-bin`, `cifar-100-binary`) or by themselves; without it the
    environment variable PCMC_DATA names the folder, and without that they are downloaded once into the user's
    cache. `url` is where to download from in place of the published addresses; without it, the environment
    variable PCMC_DATA_URL. `coarse` asks for the 20 superclasses of CIFAR-100.

    Raises DataError for an unknown name or split, for a file that is missing, truncated or not of its format,
    and for a download that fails or has the wrong hash.
    """
    _check_request(name, split, coarse)
    data = _SETS[name]
    if folder is not None:
        paths = _find(name, split, Path(folder), "the folder given")
    elif named := os.environ.get("PCMC_DATA"):
        paths = _find(name, split, Path(named), "PCMC_DATA; unset it to download the files")
    else:
        paths = _find(name, split, download.fetch(name, split, url), "the cache")
    if name == "mnist":
        return _read_mnist(*paths)
    return _read_cifar(paths, data.labels, column=0 if coarse else len(data.labels) - 1)


def random_background(images: Images, seed: int = 0) -> Images:
    """Return `images`, uint8 of any shape, with every background pixel (0) replaced by a random one.

    A reconstruction of the backgrounds of "mnist-back-rand" (H. Larochelle et al., "An empirical evaluation
    of deep architectures on problems with many factors of variation", ICML 2007): uniform in 0..255, the
    digit on top as it is. The published set has 12,000 training and 50,000 test images of its own choice;
    this one has the digits of `images`. `seed`, from 0 on, names the random numbers.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    noise = rng.integers(0, 256, images.shape, np.uint8)
    return np.where(images == 0, noise, images)


def digits() -> tuple[NDArray[np.float32], Labels, NDArray[np.float32], Labels]:
    """Return 8x8 digits that the shipped networks have not seen: training images and labels, test images and
    labels.

    Images are float32 [n, 1, 8, 8] between 0 and 1. They are the 450 test images that pcmc ships: the first
    300 of them are for training, the other 150 for testing.
    """
    from pcmc.models import zoo

    images, labels = zoo.test_data("digits-mlp")
    return images[:_DIGITS_TRAIN], labels[:_DIGITS_TRAIN], images[_DIGITS_TRAIN:], labels[_DIGITS_TRAIN:]


def _check_request(name: str, split: str, coarse: bool) -> None:
    if name not in _SETS:
        raise DataError(f"no data set is called {name!r}; there are {', '.join(names())}")
    if split not in _SETS[name].files:
        raise DataError(f"{name} has no split {split!r}; it has {' and '.join(sorted(_SETS[name].files))}")
    if coarse and len(_SETS[name].labels) < 2:
        raise DataError(f"{name} has no coarse labels; cifar100 has")


def _find(name: str, split: str, root: Path, origin: str) -> list[Path]:
    """Return the files of one split under `root`, which `origin` named; DataError says what is missing."""
    data = _SETS[name]
    # os.path rather than Path: it answers no, and does not raise, where a folder may not be read.
    if not os.path.isdir(root):
        raise DataError(f"{name}: there is no folder {root} ({origin})")
    found = {}
    for file in data.files[split]:
        spellings = (file, f"{file}.gz") if name == "mnist" else (file,)
        places = [root / data.subfolder / s for s in spellings] + [root / s for s in spellings]
        present = [place for place in places if os.path.isfile(place)]
        if present:
            found[file] = present[0]
        elif not data.in_part:
            raise DataError(
                f"{name}: no {' or '.join(spellings)} in {root / data.subfolder} or in {root} ({origin})"
            )
    if not found:
        wanted = " or ".join(data.files[split])
        raise DataError(f"{name}: no {wanted} in {root / data.subfolder} or in {root} ({origin})")
    return list(found.values())


def _read_mnist(image_file: Path, label_file: Path) -> tuple[Images, Labels]:
    pixels = _read_idx(image_file, (_MNIST_SIDE, _MNIST_SIDE))
    labels = _read_idx(label_file, ())
    if len(pixels) != len(labels):
        raise DataError(
            f"{image_file} has {len(pixels):,} images, but {label_file} has {len(labels):,} labels"
        )
    _check_labels(labels, 10, label_file)
    return pixels[:, np.newaxis], labels.astype(np.int64)


def _read_idx(file: Path, item: tuple[int, ...]) -> Images:
    """Return the items of an IDX file of unsigned bytes, uint8 [n, *item].

    The header is two zero bytes, the type (8: unsigned byte), the number of dimensions, then each dimension
    as four bytes, the most significant first.
    """
    magic = 0x0800 + 1 + len(item)
    header = 4 * (2 + len(item))
    bound = header + MAX_RECORDS * int(np.prod(item, dtype=np.int64))
    content = _read(file, bound)
    if len(content) < header:
        raise DataError(f"{file} has {len(content)} bytes, too few for the {header} of an IDX header")
    fields = np.frombuffer(content, ">u4", count=2 + len(item)).tolist()
    if fields[0] != magic:
        raise DataError(
            f"{file} begins with 0x{fields[0]:08x}; an IDX file of unsigned bytes in {1 + len(item)} "
            f"dimension{'s' if item else ''} begins with 0x{magic:08x}"
        )
    count, *shape = fields[1:]
    if tuple(shape) != item:
        raise DataError(f"{file} says its images are {'x'.join(map(str, shape))}; MNIST's are 28x28")
    size = int(np.prod(item, dtype=np.int64))
    if count == 0 or count * size != len(content) - header:
        raise DataError(
            f"{file} says it has {count:,} records of {size} byte{'s' if item else ''}, but "
            f"{len(content) - header:,} bytes follow its header; the file is truncated, altered or empty"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(count, *item)


def _read_cifar(files: list[Path], label_sizes: tuple[int, ...], column: int) -> tuple[Images, Labels]:
    """Return the records of `files`, one file after the other, with the label byte in `column`."""
    head = len(label_sizes)
    record = head + int(np.prod(_CIFAR_SHAPE))
    counts = [_count_records(file, record) for file in files]
    images = np.empty((sum(counts), *_CIFAR_SHAPE), np.uint8)
    labels = np.empty(sum(counts), np.int64)
    start = 0
    for file, count in zip(files, counts, strict=True):
        content = _read(file, count * record)
        if len(content) != count * record:
            raise DataError(f"{file} changed its size while it was read")
        records = np.frombuffer(content, np.uint8).reshape(count, record)
        for byte, classes in enumerate(label_sizes):
            _check_labels(records[:, byte], classes, file)
        images[start : start + count] = records[:, head:].reshape(count, *_CIFAR_SHAPE)
        labels[start : start + count] = records[:, column]
        start += count
    return images, labels


def _count_records(file: Path, record: int) -> int:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}") from error
    count, rest = divmod(size, record)
    if rest or count == 0:
        raise DataError(
            f"{file} has {size:,} bytes, not a whole number (1 or more) of records of {record:,} bytes; "
            f"{max(count, 1) * record:,} would be"
        )
    if count > MAX_RECORDS:
        raise DataError(f"{file} has {count:,} records; a file of this set has at most {MAX_RECORDS:,}")
    return count


def _check_labels(labels: Images, classes: int, file: Path) -> None:
    """Check labels, uint8 [n], against the number of classes."""
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise DataError(
            f"{file}: record {wrong[0]:,} has the label {labels[wrong[0]]}; labels are 0 to {classes - 1}: "
            "this is another data set or the file is altered"
        )


def _read(file: Path, bound: int) -> bytearray:
    """Return the bytes of `file`, unpacked where its name ends in .gz, as long as they are at most `bound`.

    It is read by the piece, so that a small file that unpacks to gigabytes is given up at the bound.
    """
    content = bytearray()
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            while piece := stream.read(min(_CHUNK, bound + 1 - len(content))):
                content += piece
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is not a whole gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}") from error
    if len(content) > bound:
        raise DataError(f"{file} unpacks to more than {bound:,} bytes, more than {MAX_RECORDS:,} records")
    return content
