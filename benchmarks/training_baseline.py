"""The network that training is timed on, its data, and the software that it is measured against.

528-250-125-10: MNIST cut from 28 x 28 to 24 x 22, tanh, softmax and cross-entropy, float32, one example at a
time. The software is plain C (`plain_sgd.c`), numpy and PyTorch; all start from the same weights and take
the same examples in the same order. Needs numpy alone, so that a peer's environment can import it.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
WIDTHS = (528, 250, 125, 10)
RATE = 0.01
EXAMPLES, TESTS = 60_000, 10_000
# MNIST loses 2 rows above and below and 3 columns left and right, all but empty.
CROP = (slice(2, 26), slice(3, 25))
ZERO_SHARE = 0.717
"""Of the pixels of MNIST's training images so cut, for data that stand in for them."""
SOURCE = Path(__file__).with_name("plain_sgd.c")
OPTIONS = ("-O3", "-march=native", "-ffast-math")


@dataclass(frozen=True, slots=True)
class Data:
    """Images in 0..1, float32 [n, 528], and labels, int64 [n], of training and test; `name` is whose."""

    x: Floats
    labels: Integers
    test_x: Floats
    test_labels: Integers
    name: str


def load() -> Data:
    """MNIST from the folder that PCMC_DATA names, else random numbers with as many zeros."""
    from pcmc.errors import DataError
    from pcmc.models import datasets

    if not os.environ.get("PCMC_DATA"):
        return substitute()
    try:
        (x, labels), (test_x, test_labels) = (datasets.load("mnist", split) for split in ("train", "test"))
    except DataError:
        return substitute()
    return Data(_cut(x), labels, _cut(test_x), test_labels, "MNIST")


def _cut(images: npt.NDArray[np.uint8]) -> Floats:
    kept = images[:, 0, *CROP].reshape(len(images), WIDTHS[0])
    return kept.astype(np.float32) / np.float32(255)


def substitute(examples: int = EXAMPLES, tests: int = TESTS) -> Data:
    """Ten random pictures, each pixel of which is lit with a chance of its own, zeros as many as in MNIST."""
    rng = np.random.default_rng(0)
    chances = rng.beta(0.35, 0.35 * ZERO_SHARE / (1 - ZERO_SHARE), (WIDTHS[-1], WIDTHS[0]))
    labels = rng.integers(WIDTHS[-1], size=examples + tests)
    lit = rng.random((len(labels), WIDTHS[0]), np.float32) < chances[labels]
    x = np.where(lit, rng.random(lit.shape, np.float32), np.float32(0))
    name = "random data, zeros as in MNIST"
    return Data(x[:examples], labels[:examples], x[examples:], labels[examples:], name)


def zero_share(data: Data) -> float:
    """Of the inputs of training."""
    return float((data.x == 0).mean())


def start(seed: int = 0) -> list[Floats]:
    """First weights of each layer, [rows + 1, cols], uniform in +-sqrt(6 / (rows + cols)), biases 0."""
    rng = np.random.default_rng(seed)
    found = []
    for rows, cols in itertools.pairwise(WIDTHS):
        bound = np.sqrt(6 / (rows + cols))
        weights = rng.uniform(-bound, bound, (rows + 1, cols)).astype(np.float32)
        weights[-1] = 0
        found.append(weights)
    return found


def shuffled(count: int) -> Integers:
    """The order of the first epoch, int64 [count]: that of a Trainer with seed 0, so that all sides share it.

    At this rate the order alone moves the accuracy after an epoch by some 0.5 points.
    """
    from pcmc.accel.random import generator

    return generator(0, (0,), "order").permutation(count).astype(np.int64)


class PlainC:
    """`plain_sgd.c`, compiled by the system's compiler when this is made; `about` says by which and how.

    `options` are the compiler's, beside those that make a library.

    Raises:
        FileNotFoundError: there is no compiler.
        subprocess.CalledProcessError: it failed; its output says why.
    """

    def __init__(self, options: Sequence[str] = OPTIONS) -> None:
        named = os.environ.get("CC", "").split()
        compiler = named or [path for path in map(shutil.which, ("cc", "gcc", "clang")) if path][:1]
        if not compiler:
            raise FileNotFoundError("no C compiler; name one in CC")
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "plain_sgd.so")
            command = [*compiler, *options, "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-lm"]
            subprocess.run(command, check=True)
            self._sgd = ctypes.CDLL(str(library)).sgd
        self._sgd.restype = ctypes.c_double
        said = subprocess.run([*compiler, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.about = " ".join([said.splitlines()[0], *options])

    def train(
        self,
        weights: Sequence[Floats],
        x: Floats,
        labels: Integers,
        order: Integers,
        rate: float,
        skip: bool = True,
    ) -> tuple[float, float]:
        """One pass over `order`, changing `weights` in place; returns mean loss and share of right answers.

        With `skip`, inputs that are 0 are passed over in the first layer.
        """
        sizes = [*(len(layer) - 1 for layer in weights), weights[-1].shape[1]]
        pointers = (ctypes.c_void_p * len(weights))(*(layer.ctypes.data for layer in weights))
        widths = (ctypes.c_int32 * len(sizes))(*sizes)
        right = ctypes.c_int64()
        loss = self._sgd(
            ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(labels.ctypes.data),
            ctypes.c_void_p(order.ctypes.data), ctypes.c_int64(len(order)), pointers, widths,
            ctypes.c_int32(len(weights)), ctypes.c_float(rate), ctypes.c_int32(skip), ctypes.byref(right),
        )  # fmt: skip
        return loss / len(order), right.value / len(order)

    def accuracy(self, weights: Sequence[Floats], x: Floats, labels: Integers) -> float:
        """Share of right answers, nothing changed."""
        return self.train(weights, x, labels, np.arange(len(labels)), 0.0)[1]


def check(plain: PlainC, data: Data, examples: int = 500) -> None:
    """Check that C does the same as numpy.

    Raises:
        AssertionError: after so many examples a weight differs by more than rounding explains.
    """
    order = shuffled(len(data.x))[:examples]
    found, expected = start(), start()
    plain.train(found, data.x, data.labels, order, RATE)
    numpy_sgd(expected, data.x, data.labels, order, RATE)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
    if difference > 1e-5:
        raise AssertionError(f"plain C and numpy differ by {difference:.2g} after {examples} examples")


def numpy_sgd(weights: Sequence[Floats], x: Floats, labels: Integers, order: Integers, rate: float) -> None:
    """The same in numpy, operation by operation, changing `weights` in place."""
    for n in order:
        outputs = [x[n]]
        for layer in weights:
            z = outputs[-1] @ layer[:-1] + layer[-1]
            outputs.append(np.tanh(z))
        shares = np.exp(z - z.max())
        d = shares / shares.sum()
        d[labels[n]] -= 1
        for i in range(len(weights) - 1, -1, -1):
            layer, y = weights[i], outputs[i]
            before = (layer[:-1] @ d) * (1 - y * y) if i else d
            layer[:-1] -= np.outer(rate * y, d)
            layer[-1] -= rate * d
            d = before
