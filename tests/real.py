"""Finds the real models and data sets that tests run on, and says what the models score on them.

Neither is part of the repository. `PCMC_TEST_MODELS` names the folder of `.onnx` files, `PCMC_DATA` the
folder of data sets in their published layout. A test that needs what is missing skips and says so; with
`PCMC_REQUIRE_DATA=1`, as in continuous integration, it fails.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from pcmc.models import datasets

Images = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RealModel:
    """A model file with known accuracy.

    `prepare` makes the model's input of uint8 images [n, channels, height, width]; `fixed_batch` says that
    the model takes one image at a time; `accuracy` is in percent of the 10,000 test images of `data`, in
    onnxruntime on a CPU.
    """

    data: str
    prepare: Callable[[Images], NDArray[Any]]
    fixed_batch: bool
    accuracy: float


def models_folder() -> Path:
    """Return the folder of real models, or skip the test (fail it with PCMC_REQUIRE_DATA=1)."""
    return _folder("PCMC_TEST_MODELS", "real ONNX models")


def data_folder() -> Path:
    """Return the folder of real data sets, or skip the test (fail it with PCMC_REQUIRE_DATA=1)."""
    return _folder("PCMC_DATA", "the MNIST and CIFAR files")


def model_path(filename: str) -> Path:
    """Return the real model `filename`, or skip the test (fail it with PCMC_REQUIRE_DATA=1)."""
    path = models_folder() / filename
    if not path.is_file():
        missing(f"the folder in PCMC_TEST_MODELS has no {filename}")
    return path


def images(data: str, count: int) -> tuple[Images, NDArray[np.int64]]:
    """Return the first `count` test images of a data set, uint8 [n, channels, height, width], and labels."""
    x, y = _load(data, "test", str(data_folder()))
    return x[:count], y[:count]


def inputs(filename: str, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the first `count` test images as model `filename` wants them, and their labels.

    `filename` is one of MODELS_WITH_DATA. Where the model has a fixed batch, feed it one image
    (`x[i : i + 1]`) at a time.
    """
    model = MODELS_WITH_DATA[filename]
    x, y = images(model.data, count)
    return model.prepare(x), y


def accuracy(filename: str, run: Callable[[NDArray[Any]], NDArray[Any]], count: int = 10_000) -> float:
    """Return the percentage of the first `count` test images that `run` (input -> scores [n, 10]) gets right.

    `run` is given one image at a time where the model has a fixed batch, else 500.
    """
    x, y = inputs(filename, count)
    step = 1 if MODELS_WITH_DATA[filename].fixed_batch else 500
    scores = [np.asarray(run(x[i : i + step])).reshape(-1, 10) for i in range(0, len(x), step)]
    return 100.0 * float(np.mean(np.argmax(np.concatenate(scores), axis=1) == y))


def _folder(variable: str, what: str) -> Path:
    named = os.environ.get(variable)
    if not named:
        missing(f"{variable} is not set; this test needs {what}")
    folder = Path(named)
    if not folder.is_dir():
        missing(f"{variable} names a folder that is not there; this test needs {what}")
    return folder


def missing(message: str) -> NoReturn:
    """Skip the test, or fail it with PCMC_REQUIRE_DATA=1."""
    if os.environ.get("PCMC_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@functools.lru_cache(maxsize=4)
def _load(data: str, split: str, folder: str) -> tuple[Images, NDArray[np.int64]]:
    """Load once per test run; the arrays are shared, so they are read-only."""
    arrays = datasets.load(data, split, folder)
    for array in arrays:
        array.flags.writeable = False
    return arrays


def _counts(x: Images) -> NDArray[np.float32]:
    return x.astype(np.float32)


def _unit(x: Images) -> NDArray[np.float32]:
    return _counts(x) / np.float32(255)


def _rows(x: Images) -> NDArray[np.float32]:
    return _unit(x).reshape(len(x), -1, 1)


def _signed(x: Images) -> NDArray[np.int8]:
    return (x.astype(np.int16) - 128).astype(np.int8)


def _scaled(mean: tuple[float, ...], deviation: tuple[float, ...]) -> Callable[[Images], NDArray[np.float32]]:
    """Return a preparation: to 0..1, minus the mean of each channel, over its standard deviation."""
    m = np.array(mean, np.float32).reshape(-1, 1, 1)
    s = np.array(deviation, np.float32).reshape(-1, 1, 1)
    return lambda x: (_unit(x) - m) / s


def _centred(x: Images) -> NDArray[np.float32]:
    """Take off the mean of each pixel over the first 20,000 training images of CIFAR-10.

    The models were trained with the mean over all 50,000, of which not every folder has more than these; it
    costs 0.05 points.
    """
    return _unit(x) - _cifar10_mean(str(data_folder()))


@functools.lru_cache(maxsize=1)
def _cifar10_mean(folder: str) -> NDArray[np.float32]:
    x, _ = _load("cifar10", "train", folder)
    mean: NDArray[np.float32] = (x[:20_000].mean(axis=0, dtype=np.float64) / 255).astype(np.float32)
    return mean


def _last(prepare: Callable[[Images], NDArray[Any]]) -> Callable[[Images], NDArray[Any]]:
    """Return `prepare` followed by moving the channels last (NHWC)."""
    return lambda x: np.ascontiguousarray(prepare(x).transpose(0, 2, 3, 1))


def _half(prepare: Callable[[Images], NDArray[Any]]) -> Callable[[Images], NDArray[Any]]:
    return lambda x: prepare(x).astype(np.float16)


_IMAGENET = _scaled((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR = _scaled((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
_CIFAR_VIT = _scaled((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_MNIST = _scaled((0.1307,), (0.3081,))
_HALF = _scaled((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# Each accuracy was measured on all 10,000 test images with onnxruntime 1.32.0. The two `crosssim` ResNets
# have 0.05 points more with the mean that they were trained with (`_centred`).
MODELS_WITH_DATA = {
    "mnist_cntk_opset7.onnx": RealModel("mnist", _counts, True, 98.91),
    "mnist_cntk_opt_opset8.onnx": RealModel("mnist", _counts, True, 98.91),
    "mnistfc_256x2.onnx": RealModel("mnist", _rows, True, 98.08),
    "mnist_eran_sigmoid_6x200.onnx": RealModel("mnist", _MNIST, True, 97.07),
    "mnist_verivital_avgpool.onnx": RealModel("mnist", _unit, True, 97.95),
    "mnist_cnn6_crosssim.onnx": RealModel("mnist", _last(_unit), False, 98.57),
    "mnist_cnn6_crosssim_qdq_uint8.onnx": RealModel("mnist", _last(_unit), False, 98.58),
    "mnist_cnn6_crosssim_qoperator.onnx": RealModel("mnist", _last(_unit), False, 98.58),
    "cifar10_resnet32_akamaster_ts11.onnx": RealModel("cifar10", _IMAGENET, False, 92.63),
    "cifar10_resnet32_akamaster_ts17_bn.onnx": RealModel("cifar10", _IMAGENET, True, 92.63),
    "cifar10_resnet32_akamaster_dynamo21.onnx": RealModel("cifar10", _IMAGENET, True, 92.63),
    "cifar10_resnet32_akamaster_qdq_int8_perchannel.onnx": RealModel("cifar10", _IMAGENET, False, 92.35),
    "cifar10_resnet56_akamaster_dynamo20_ext.onnx": RealModel("cifar10", _IMAGENET, True, 93.39),
    "cifar10_resnet20_crosssim.onnx": RealModel("cifar10", _last(_centred), False, 91.24),
    "cifar10_resnet20_crosssim_fp16.onnx": RealModel("cifar10", _half(_last(_centred)), False, 91.26),
    "cifar10_resnet8_mlperftiny.onnx": RealModel("cifar10", _last(_counts), False, 87.21),
    "cifar10_resnet8_mlperftiny_int8_qdq.onnx": RealModel("cifar10", _last(_signed), False, 87.09),
    "cifar10_resnet_4b.onnx": RealModel("cifar10", _CIFAR, True, 77.20),
    "cifar10_biasfield_base.onnx": RealModel("cifar10", _CIFAR, True, 84.42),
    "cifar10_marabou_large.onnx": RealModel("cifar10", _last(_unit), False, 74.17),
    "cifar10_vit_pgd_2_3_16.onnx": RealModel("cifar10", _CIFAR_VIT, False, 59.78),
    "cifar10_winml_cnn.onnx": RealModel("cifar10", _HALF, False, 65.78),
}
