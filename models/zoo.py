"""The networks that ship with pcmc: small `.onnx` files that PyTorch exported, with images to test them on.

They stand in for a user's own model in examples and first steps, so that `pcmc compare digits-cnn` works on a
fresh installation without a download. `train_digits.py` is the script that made them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcmc.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent

_DIGITS = (
    "Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, doi:10.24432/C50P49, CC BY 4.0), "
    "the 1,797 8x8 images in scikit-learn"
)


@dataclass(frozen=True, slots=True)
class ZooModel:
    """What is known of a shipped network without opening its file.

    `inputs` and `outputs` give name, shape and type as text; `accuracy` is the float32 network's in
    onnxruntime, in percent of the images in `test_file`; `parameters` counts the trained numbers.
    """

    name: str
    file: str
    description: str
    inputs: str
    outputs: str
    parameters: int
    data: str
    test_file: str
    test_images: int
    accuracy: float
    exporter: str
    licence: str


_MODELS = (
    ZooModel(
        name="digits-mlp",
        file="digits-mlp.onnx",
        description="multilayer perceptron 64-128-64-10 with ReLU: Reshape and three Gemm",
        inputs="x: float32 [batch, 1, 8, 8], 0..1",
        outputs="logits: float32 [batch, 10]",
        parameters=17_226,
        data=_DIGITS,
        test_file="digits-test.npz",
        test_images=450,
        accuracy=98.44,
        exporter="PyTorch 2.13.0, opset 18",
        licence="Apache-2.0",
    ),
    ZooModel(
        name="digits-cnn",
        file="digits-cnn.onnx",
        description=(
            "convolutional network: two 3x3 Conv of 16 and 32 channels, each with BatchNormalization and "
            "ReLU, MaxPool, Gemm; the batch size is computed inside the graph (Shape, Concat, Reshape)"
        ),
        inputs="x: float32 [batch, 1, 8, 8], 0..1",
        outputs="logits: float32 [batch, 10]",
        parameters=10_026,
        data=_DIGITS,
        test_file="digits-test.npz",
        test_images=450,
        accuracy=99.33,
        exporter="PyTorch 2.13.0, opset 18",
        licence="Apache-2.0",
    ),
)


def names() -> list[str]:
    """Return the names of the shipped networks."""
    return [model.name for model in _MODELS]


def is_name(text: str) -> bool:
    """Say whether `text` is the name of a shipped network (and so not the path of a file)."""
    return any(model.name == text for model in _MODELS)


def path(name: str) -> Path:
    """Return the `.onnx` file of the network `name`.

    Raises ModelError, listing the names, where there is no such network.
    """
    return FOLDER / _find(name).file


def describe() -> list[dict[str, Any]]:
    """Return a JSON-able dict for each network: the fields of `ZooModel`, and `bytes`, its file's size."""
    return [asdict(model) | {"bytes": (FOLDER / model.file).stat().st_size} for model in _MODELS]


def test_data(name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the labelled test images of the network `name`, ready to be fed to it.

    The images are float32 [n, 1, 8, 8] between 0 and 1, the labels int64 [n]. Raises ModelError, listing the
    names, where there is no such network.
    """
    with np.load(FOLDER / _find(name).test_file, allow_pickle=False) as arrays:
        return arrays["x"], arrays["y"]


def _find(name: str) -> ZooModel:
    for model in _MODELS:
        if model.name == name:
            return model
    raise ModelError(f"no shipped model is called {name!r}; there are {', '.join(names())}")
