"""The data sets of a reproduction, made once and kept as .npy files that all processes map into memory."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pcmc.errors import OutputError
from pcmc.workflows.reproduce.plan import Experiment

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: What features are divided by, in every arm: their vectors then are about as long as those of MNIST's
#: pixels, and rates mean about the same.
FEATURE_DIVISOR = 8.0


class Arrays(NamedTuple):
    """Inputs float32 `[n, inputs]` and class numbers int64 `[n]`, for training and for testing."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def make(experiment: Experiment, features_model: Path | None, cache: Path, threads: int) -> Arrays:
    """The arrays of a data set.

    Args:
        experiment: which.
        features_model: the network whose maps are features of CIFAR images.
        cache: a folder for features.
        threads: of onnxruntime, for features.

    Raises:
        DataError: the files of the data set are missing or wrong.
        ModelError: a network that gives no features.
    """
    from pcmc.models import datasets
    from pcmc.workflows.training_data import BACKGROUND_SEEDS

    published = experiment.name.removesuffix("-backrand")
    made = published != experiment.name
    parts: list[Array] = []
    for split, seed in zip(("train", "test"), BACKGROUND_SEEDS, strict=True):
        images, labels = datasets.load(published, split)
        if experiment.has_features:
            assert features_model is not None
            x = _features(images, features_model, cache, threads)
        else:
            x = _pixels(datasets.random_background(images, seed) if made else images)
        parts += [x, labels]
    return Arrays(*parts)


def store(experiment: Experiment, arrays: Arrays, folder: Path) -> str:
    """Keep arrays in a folder, and return a hash that stands for them.

    Raises:
        OutputError: the folder can't be written.
    """
    from pcmc.runtime.files import replacing

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: can't be made: {error.strerror or error}") from None
    digest = hashlib.blake2b(digest_size=12)
    for name, array in arrays._asdict().items():
        digest.update(np.ascontiguousarray(array).data)
        with replacing(_path(folder, experiment.name, name)) as file:
            np.save(file, array)
    return digest.hexdigest()


def mapped(name: str, folder: Path) -> Arrays:
    """The arrays that `store` kept, mapped into memory."""
    found = (np.load(_path(folder, name, field), mmap_mode="r") for field in Arrays._fields)
    return Arrays(*(np.asarray(array) for array in found))


def _path(folder: Path, name: str, field: str) -> Path:
    return folder / f"{name}-{field}.npy"


def _pixels(images: npt.NDArray[np.uint8]) -> Floats:
    """The 24 x 22 pixels that fit 528 rows of a chip, 0..1."""
    from pcmc.workflows.training_data import CROP

    cropped = images[:, 0, CROP[0], CROP[1]]
    pixels: Floats = cropped.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    return pixels


def _features(images: npt.NDArray[np.uint8], model: Path, cache: Path, threads: int) -> Floats:
    from pcmc.workflows.features import cifar_features

    return cifar_features(model, images, cache, threads) / np.float32(FEATURE_DIVISOR)
