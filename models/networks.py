"""Networks to train from scratch: plain ONNX models with seeded initial weights, no framework needed.

The weights are drawn from NumPy's Philox generator (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC 2011), layer by layer: equal arguments give equal bytes.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pcmc.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

OPSET = 17
IR_VERSION = 8
#: Activations by name: the operator of ONNX, and the law of the weights before it.
ACTIVATIONS = {"tanh": ("Tanh", "xavier"), "sigmoid": ("Sigmoid", "xavier"), "relu": ("Relu", "he")}
POOLS = {"average": "AveragePool", "max": "MaxPool"}
#: More weights than these in one layer, 1 GB, are a slip of the pen; a model can hold 2 GB.
MOST_WEIGHTS = 1 << 28


def perceptron(sizes: Sequence[int], activation: str = "tanh", seed: int = 0, bias: bool = True) -> Any:
    """Return an untrained multilayer perceptron, an onnx.ModelProto: "x" [batch, sizes[0]] -> "logits"
    [batch, sizes[-1]], both float32.

    Each layer is a Gemm "layer1", "layer2", ... with weights "layer1.weight" [inputs, outputs] and, with
    `bias`, "layer1.bias", zero at first. `activation`, "tanh", "sigmoid" or "relu", follows all but the last.

    Initial weights are uniform: for tanh and sigmoid within +-sqrt(6 / (inputs + outputs)) (X. Glorot and Y.
    Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010, eq.
    16), for ReLU within +-sqrt(6 / inputs), which has the variance 2 / inputs of K. He et al., "Delving deep
    into rectifiers", ICCV 2015, eq. 10.

    Raises ModelError for fewer than two sizes, a size below 1, an unknown activation or a negative seed.
    """
    widths = [operator.index(size) for size in sizes]
    if len(widths) < 2 or min(widths) < 1:
        raise ModelError(f"a perceptron of sizes {widths}: should be two or more sizes from 1 on, as 784, 10")
    largest = max(a * b for a, b in itertools.pairwise(widths))
    if largest > MOST_WEIGHTS:
        raise ModelError(
            f"a perceptron of sizes {widths}: a layer of {largest:,} weights; at most {MOST_WEIGHTS:,} are "
            "possible"
        )
    network = _Network(activation, seed)
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
        last = index == len(widths) - 1
        network.dense(f"layer{index}", inputs, outputs, bias)
        if not last:
            network.activate(f"layer{index}")
    return network.model("perceptron", ["batch", widths[0]], widths[-1])


def lenet5(seed: int = 0, activation: str = "tanh", pool: str = "average") -> Any:
    """Return an untrained LeNet-5, an onnx.ModelProto: "x" [batch, 1, 28, 28] -> "logits" [batch, 10], both
    float32; 61,706 weights and biases.

    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition",
    Proc. IEEE 86 (1998), section II.B: Conv "conv1" 6@5x5 (padded by 2, where the paper has images of 32 x
    32), pool 2x2, Conv "conv2" 16@5x5, pool 2x2, then dense layers "fc1" 120 (the paper's C5), "fc2" 84 and
    "fc3" 10. As commonly built, and unlike the paper: pools have no weights, conv2 sees all six maps, the
    last layer is dense instead of radial basis functions, and tanh is not scaled by 1.7159.

    `activation` is as in `perceptron`, and so are the initial weights, with the inputs and outputs of one
    window counted as the kernel's size times the channels; `pool` is "average", as in the paper, or "max".

    Raises ModelError for an unknown activation or pool, or a negative seed.
    """
    if pool not in POOLS:
        raise ModelError(f"lenet5: no pool is called {pool!r}; there are {', '.join(POOLS)}")
    network = _Network(activation, seed)
    for name, channels, filters, pad in (("conv1", 1, 6, 2), ("conv2", 6, 16, 0)):
        network.convolution(name, channels, filters, 5, pad)
        network.activate(name)
        network.apply(f"{name}.pool", POOLS[pool], kernel_shape=[2, 2], strides=[2, 2])
    network.apply("flatten", "Flatten", axis=1)
    for name, inputs, outputs in (("fc1", 400, 120), ("fc2", 120, 84)):
        network.dense(name, inputs, outputs, bias=True)
        network.activate(name)
    network.dense("fc3", 84, 10, bias=True)
    return network.model("lenet5", ["batch", 1, 28, 28], 10)


class _Network:
    """A chain of layers as it grows: each is put behind the one before."""

    def __init__(self, activation: str, seed: int) -> None:
        if activation not in ACTIVATIONS:
            raise ModelError(f"no activation is called {activation!r}; there are {', '.join(ACTIVATIONS)}")
        if operator.index(seed) < 0:
            raise ModelError(f"a seed of {seed}: should be a whole number from 0 on")
        self._activation, self._law = ACTIVATIONS[activation]
        self._rng = np.random.Generator(np.random.Philox(seed))
        self._nodes: list[Any] = []
        self._constants: dict[str, NDArray[np.float32]] = {}
        self._tensor = "x"

    def dense(self, name: str, inputs: int, outputs: int, bias: bool) -> None:
        """Put a Gemm with weights [inputs, outputs] behind."""
        self._constants[f"{name}.weight"] = self._drawn((inputs, outputs), inputs, outputs)
        if bias:
            self._constants[f"{name}.bias"] = np.zeros(outputs, np.float32)
        self._matrix(name, "Gemm")

    def convolution(self, name: str, channels: int, filters: int, kernel: int, pad: int) -> None:
        """Put a Conv with a square kernel and weights [filters, channels, kernel, kernel] behind."""
        window = kernel * kernel
        weights = self._drawn((filters, channels, kernel, kernel), channels * window, filters * window)
        self._constants[f"{name}.weight"] = weights
        self._constants[f"{name}.bias"] = np.zeros(filters, np.float32)
        self._matrix(name, "Conv", kernel_shape=[kernel, kernel], pads=[pad] * 4)

    def activate(self, name: str) -> None:
        """Put the activation behind layer `name`."""
        self.apply(f"{name}.{self._activation.lower()}", self._activation)

    def apply(self, name: str, op_type: str, **attributes: Any) -> None:
        """Put an operator without weights behind."""
        self._append(name, op_type, [self._tensor], attributes)

    def model(self, name: str, shape: Sequence[int | str], outputs: int) -> Any:
        """Return the network as a model; the last layer's result becomes "logits"."""
        from onnx import TensorProto, helper, numpy_helper

        self._nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])],
            [numpy_helper.from_array(array, key) for key, array in self._constants.items()],
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="pcmc")

    def _drawn(self, shape: tuple[int, ...], inputs: int, outputs: int) -> NDArray[np.float32]:
        fan = inputs + outputs if self._law == "xavier" else inputs
        bound = math.sqrt(6 / fan)
        return self._rng.uniform(-bound, bound, shape).astype(np.float32)

    def _matrix(self, name: str, op_type: str, **attributes: Any) -> None:
        own = [key for key in (f"{name}.weight", f"{name}.bias") if key in self._constants]
        self._append(name, op_type, [self._tensor, *own], attributes)

    def _append(self, name: str, op_type: str, inputs: list[str], attributes: dict[str, Any]) -> None:
        from onnx import helper

        self._tensor = f"{name}/output"
        self._nodes.append(helper.make_node(op_type, inputs, [self._tensor], name=name, **attributes))
