"""The networks that aihwkit runs, in PyTorch, and layers with its converters; in its own environment.

`ResNet` is built of the arrays that `ours.network_arrays` reads from the ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Arrays = dict[str, Any]
ROWS = 288
"""Inputs of a tile with converters: aihwkit cuts a layer into equal parts, 576 inputs into two of 288."""
DAC_LEVELS, ADC_LEVELS = 127, 255
"""8 and 9 bits with sign."""
ADC_CELLS = 20.0
"""Full scale of an output, in units of the largest weight times the input range."""


class ResNet(nn.Module):  # type: ignore[misc]
    """ResNet for CIFAR-10, batch norm folded into its convolutions.

    A shortcut between stages is a convolution of its own where `arrays` has one (`shortcut_weight_I`, I being
    the first convolution of its block); otherwise it skips every second pixel and pads channels.
    """

    def __init__(self, arrays: Arrays) -> None:
        super().__init__()
        count = sum(name.startswith("conv_weight_") for name in arrays)
        self.convolutions = nn.ModuleList(_convolution(arrays, "conv", i) for i in range(count))
        self.pads = [tuple(int(pad) for pad in arrays[f"conv_pads_{i}"]) for i in range(count)]
        self.shortcuts = nn.ModuleDict(
            {
                str(i): _convolution(arrays, "shortcut", i)
                for i in range(count)
                if f"shortcut_weight_{i}" in arrays
            }
        )
        weight, bias = (torch.from_numpy(arrays[name]) for name in ("dense_weight", "dense_bias"))
        self.dense = nn.Linear(weight.shape[1], weight.shape[0])
        self.dense.weight.data.copy_(weight)
        self.dense.bias.data.copy_(bias)

    def forward(self, x: Any) -> Any:
        """Logits [n, classes] of images [n, 3, 32, 32]."""
        x = functional.relu(self._convolve(0, x))
        for i in range(1, len(self.convolutions), 2):
            y = self._convolve(i + 1, functional.relu(self._convolve(i, x)))
            if str(i) in self.shortcuts:
                x = self.shortcuts[str(i)](x)
            elif y.shape != x.shape:
                side = (y.shape[1] - x.shape[1]) // 2
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
            x = functional.relu(y + x)
        return self.dense(x.mean((2, 3)))

    def _convolve(self, i: int, x: Any) -> Any:
        top, left, bottom, right = self.pads[i]
        if len({top, left, bottom, right}) > 1:
            x = functional.pad(x, (left, right, top, bottom))
        return self.convolutions[i](x)

    def layers(self) -> list[Any]:
        """All layers with weights, always in the same order."""
        return [*self.convolutions, *self.shortcuts.values(), self.dense]

    def replace_layers(self, make: Callable[[Any], Any]) -> ResNet:
        """Put `make` of each layer in its place."""
        for i, layer in enumerate(self.convolutions):
            self.convolutions[i] = make(layer)
        for name, layer in self.shortcuts.items():
            self.shortcuts[name] = make(layer)
        self.dense = make(self.dense)
        return self


def _convolution(arrays: Arrays, kind: str, i: int) -> Any:
    """A convolution; where padding differs between sides, which torch's own can't, `ResNet` pads instead."""
    weight, bias = (torch.from_numpy(arrays[f"{kind}_{part}_{i}"]) for part in ("weight", "bias"))
    pads = {int(pad) for pad in arrays[f"{kind}_pads_{i}"]}
    padding = pads.pop() if len(pads) == 1 else 0
    stride = int(arrays[f"{kind}_stride_{i}"])
    made = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], stride, padding)
    made.weight.data.copy_(weight)
    made.bias.data.copy_(bias)
    return made


class Ranged(nn.Module):  # type: ignore[misc]
    """A layer whose inputs are scaled by the largest of each image, as pcmc does it.

    aihwkit scales each vector of a tile, and so each patch of an image. With this around a layer and
    its noise management off, DACs have the range of the image. The bias is added behind it.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.bias = layer.bias.detach().clone()
        layer.bias = None
        self.inner = layer

    def forward(self, x: Any) -> Any:
        """As the layer itself."""
        ranges = image_ranges(x)
        return self.inner(x / ranges) * ranges + across(self.bias, x)


class Digitized(nn.Module):  # type: ignore[misc]
    """What an aihwkit layer with converters gives, of torch's products: faster, as it makes no windows.

    Converters as in its IOParameters: inputs in steps of 1 / DAC_LEVELS of the largest of each image, sums of
    each tile of at most ROWS inputs in steps of 1 / ADC_LEVELS of ADC_CELLS times the tile's largest weight.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.bias = layer.bias.detach().clone()
        self.window = (layer.stride, layer.padding) if isinstance(layer, nn.Conv2d) else None
        weight = layer.weight.detach()
        tiles = -(-weight[0].numel() // ROWS)
        if weight.shape[1] % tiles:
            raise ValueError(f"a layer of {tuple(weight.shape)} is not cut between channels")
        self.parts = weight.chunk(tiles, dim=1)
        self.full = [ADC_CELLS * float(part.abs().max()) for part in self.parts]

    def set_weights(self, weight: Any) -> None:
        """Take weights as programmed; the converters keep the ranges of the intended ones."""
        shape = (weight.shape[0], sum(part.shape[1] for part in self.parts), *self.parts[0].shape[2:])
        self.parts = weight.reshape(shape).chunk(len(self.parts), dim=1)

    def forward(self, x: Any) -> Any:
        """As the layer itself."""
        ranges = image_ranges(x)
        inputs = torch.round(x / ranges * DAC_LEVELS) / DAC_LEVELS
        total = across(self.bias, x)
        start = 0
        for part, full in zip(self.parts, self.full, strict=True):
            some = inputs[:, start : start + part.shape[1]]
            start += part.shape[1]
            if self.window is None:
                sums = functional.linear(some, part)
            else:
                sums = functional.conv2d(some, part, None, *self.window)
            codes = torch.round(sums * (ADC_LEVELS / full)).clamp(-ADC_LEVELS, ADC_LEVELS)
            total = total + codes * (full / ADC_LEVELS) * ranges
        return total


def image_ranges(x: Any) -> Any:
    """The largest magnitude of each image or vector, 1 where all are 0; [n, 1, ...]."""
    ranges = x.abs().amax(tuple(range(1, x.ndim)), keepdim=True)
    return torch.where(ranges > 0, ranges, torch.ones_like(ranges))


def across(bias: Any, x: Any) -> Any:
    """A bias for each channel, in the shape that is added to outputs of images or vectors."""
    return bias.reshape(1, -1, *[1] * (x.ndim - 2))
