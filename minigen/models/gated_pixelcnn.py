"""Gated PixelCNN   (van den Oord 2016, Conditional image generation with PixelCNN decoders, https://arxiv.org/abs/1606.05328;
cited as G16).

Two stacks of convolutions. The vertical one sees the rows above, all of their width, with kernels that need no mask; the
horizontal one sees the row to the left, and is told at each layer what the vertical one knows. So the output at a pixel depends
on all earlier pixels in reach: no blind spot (sec. 2.2). Both have gates in place of ReLUs. Start at `GatedPixelCNN.forward`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..autograd import Tensor, ops
from ..nn import Embedding, Linear, Module, Sequential, init, parameter
from ..random import Generator
from .autoregressive import ConvConfig, PixelByPixel, grey_or_binary
from .cached_sampling import draw_from_cache
from .model import option, other_default, register
from .pixelcnn import CausalConv

if TYPE_CHECKING:
    from .cached_sampling import Cache


class GatedPixelCNN(Module):
    """The first layer sees 3 rows up and 3 columns to each side, and each of `layers` more one further.  -> (N, H, W, outputs)

    classes: 0 for none; otherwise each label adds its own vector before every gate   (G16 eq. 4). With `positions` each
    position of the image adds one before the first gate, since convolutions do not know where they are.
    """

    def __init__(self, data_shape: tuple[int, ...], config: GatedConfig, outputs: int, rng: Generator):
        channels, classes = config.channels, config.classes
        sizes = [(1, 3, 3)] + config.layers * [(channels, 1, 1)]  # channels in, rows up, columns to each side
        self.place = parameter(np.zeros((*data_shape[:2], 2 * channels), np.float32)) if config.positions else None
        self.vertical = [VerticalLayer(c_in, channels, rows, side, rng) for c_in, rows, side in sizes]
        self.horizontal = [HorizontalLayer(c_in, channels, side, classes, rng) for c_in, _, side in sizes]
        self.leave = Sequential(ops.relu, Linear(channels, 2 * channels, rng=rng, activation="relu"))
        self.output = Linear(2 * channels, outputs, rng=rng)

    def forward(self, x: Tensor, y: np.ndarray | None = None, cache: Cache | None = None) -> Tensor:
        above = self.rows_above(down(x)) if cache is None else cache.of_row(self.rows_above)
        if self.place is not None:
            above[0] = above[0] + (self.place if cache is None else cache.here(self.place))
        h = x
        for layer, v in zip(self.horizontal, above, strict=True):
            h = layer(h, v, y, cache)
        return self.output(self.leave(h))

    def rows_above(self, x: Tensor, cache: Cache | None = None) -> list[Tensor]:
        """What the rows above a position tell, at each layer.     x: (N, H, W, 1), shifted down -> (N, H, W, 2 c) each"""
        told = []
        for layer in self.vertical:
            before = layer(x, cache)  # (N, H, W, 2 c)
            told.append(before)
            x = ops.gated_tanh(before)  # (N, H, W, c)
        return told


class VerticalLayer(Module):
    """A convolution with the rows up to its own, of all their width.     (N, H, W, c_in) -> (N, H, W, 2 c), before the gate"""

    def __init__(self, c_in: int, c: int, above: int, side: int, rng: Generator):
        above -= c_in == 1  # the first layer's input has been shifted down already
        shape = (above + 1, 2 * side + 1, c_in, 2 * c)
        self.weight, self.bias = parameter(init.fan_in_uniform(shape, rng)), parameter(np.zeros(2 * c, np.float32))
        self.above, self.side = above, side

    def forward(self, x: Tensor, cache: Cache | None) -> Tensor:
        """cache: where the rows above are known from, when x is one row, (N, 1, W, c_in)."""
        if cache is not None:
            return ops.conv2d(cache.with_rows_above(self, x), self.weight, self.bias, padding=(0, self.side))
        return ops.conv2d(x, self.weight, self.bias, padding=(self.above, self.side))[:, : x.shape[1]]


class HorizontalLayer(Module):
    """h + W₂ [tanh(a) ⊙ σ(b)],  (a, b) = conv_left(h) + W₁ v + V_y   (G16 eq. 4, fig. 2).     (N, H, W, c_in) -> (N, H, W, c)

    v: what the vertical stack has before its gate.     The first layer sees the pixel itself not, and adds no h.
    """

    def __init__(self, c_in: int, c: int, side: int, classes: int, rng: Generator):
        self.first = c_in == 1
        self.conv = CausalConv(c_in, 2 * c, 0, side, own=not self.first, rng=rng)
        self.link = Linear(2 * c, 2 * c, rng=rng, bias=False)
        self.label = Embedding(classes, 2 * c, rng=rng) if classes else None
        self.mix = Linear(c, c, rng=rng)

    def forward(self, h: Tensor, v: Tensor, y: np.ndarray | None, cache: Cache | None) -> Tensor:
        before = self.conv(h, cache) + self.link(v)  # (N, H, W, 2 c)
        if self.label is not None:
            before = before + self.label(y).reshape(len(h), 1, 1, -1)
        new = self.mix(ops.gated_tanh(before))
        return new if self.first else h + new


def down(x: Tensor) -> Tensor:
    """Shifted down by one row: a position then holds what was above it, the first row zeros."""
    return ops.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


@dataclass(frozen=True)
class GatedConfig(ConvConfig):
    lr: float = other_default(ConvConfig, "lr", 2e-3)
    channels: int = option(24, "channels of all layers", low=1)
    layers: int = option(6, "gated layers after the first", low=0)


@register("gated-pixelcnn", PixelByPixel, GatedConfig, "the same without a blind spot, with gates")
def gated_pixelcnn(data_shape: tuple[int, ...], config: GatedConfig, rng: Generator) -> PixelByPixel:
    """For images of one channel."""
    pixels = grey_or_binary("gated-pixelcnn", data_shape, config)
    return PixelByPixel(GatedPixelCNN(data_shape, config, pixels.outputs, rng), pixels, data_shape, config, draw_from_cache)
