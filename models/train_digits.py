"""Trains and exports the two digit classifiers that ship with pcmc, and writes their test images.

    python models/train_digits.py            # needs torch, onnx, onnxscript, onnxruntime, scikit-learn

Writes `digits-mlp.onnx`, `digits-cnn.onnx` and `digits-test.npz` beside this file and prints the accuracy of
each network on the test images, as PyTorch and as onnxruntime see it. pcmc itself needs neither PyTorch nor
scikit-learn.

The files in this folder were made with Python 3.11.7, torch 2.13.0 (CPU), onnx 1.23.2, onnxscript 0.7.2,
onnxruntime 1.32.0, scikit-learn 1.9.1 and numpy 2.4.6. The seeds are fixed: the same versions on the same
kind of processor make the same bytes.

Data: the 1,797 8x8 images of scikit-learn's `load_digits`, which are the test part of "Optical Recognition of
Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, doi:10.24432/C50P49,
CC BY 4.0). A quarter of each class, drawn at random, is the test set; writers are in both parts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 2018
EPOCHS = 60
BATCH = 32
OPSET = 18
FOLDER = Path(__file__).resolve().parent


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Return training images and labels, then test images and labels.

    Images are float32 [n, 1, 8, 8] between 0 and 1 (the published counts of 0 to 16, over 16), labels are
    int64 [n].
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    published = load_digits()
    images = (published.images / 16.0).astype(np.float32)[:, np.newaxis]
    labels = published.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=0.25, stratify=labels, random_state=SEED
    )
    return x_train, y_train, x_test, y_test


def networks() -> dict[str, Any]:
    """Return the untrained networks by name, as `torch.nn.Sequential`."""
    from torch import nn

    return {
        "digits-mlp": nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(64, 10),
        ),
        "digits-cnn": nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 10),
        ),
    }


def train(network: Any, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Train `network` in place with AdamW and a cosine of learning rates; leave it in evaluation mode."""
    import torch

    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
        schedule.step()
    network.eval()


def export(network: Any, file: Path, optimize: bool) -> None:
    """Write `network` to `file` with an open batch dimension and without traces of the machine that made it.

    `optimize` runs the exporter's optimizer, which also folds BatchNormalization into convolutions.
    """
    import onnx
    import torch

    program = torch.onnx.export(
        network,
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        optimize=optimize,
        opset_version=OPSET,
        input_names=["x"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    model = program.model_proto
    graph = model.graph
    # The exporter writes stack traces, with their file names, into the metadata of nodes and values.
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the share of rows of `logits` [n, classes] whose largest value is at the label, in percent."""
    return 100.0 * float(np.mean(np.argmax(logits, axis=1) == labels))


def main() -> None:
    """Make the three files and print what the networks score."""
    import onnxruntime
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    x_train, y_train, x_test, y_test = digits()
    np.savez_compressed(FOLDER / "digits-test.npz", x=x_test, y=y_test)
    for name in ("digits-mlp", "digits-cnn"):
        torch.manual_seed(SEED)
        network = networks()[name]
        train(network, x_train, y_train)
        with torch.no_grad():
            in_torch = accuracy(network(torch.from_numpy(x_test)).numpy(), y_test)
        file = FOLDER / f"{name}.onnx"
        # The small convolutional network keeps its BatchNormalization, for the compiler to fold.
        export(network, file, optimize=name == "digits-mlp")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"x": x_test})
        print(
            f"{name}: {len(y_test)} test images, {in_torch:.2f} % in PyTorch, "
            f"{accuracy(logits, y_test):.2f} % in onnxruntime, {file.stat().st_size:,} bytes"
        )


if __name__ == "__main__":
    main()
