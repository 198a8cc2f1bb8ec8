"""PixelCNN   (van den Oord 2016, Pixel recurrent neural networks, https://arxiv.org/abs/1601.06759; cited as O16).

A convolutional network whose kernels are masked, so that the output at a pixel depends on earlier pixels only (sec. 3.4). All
conditional probabilities of an image come from one pass; autoregressive.py makes them a likelihood and samples.

Start at `CausalConv`, then read `PixelCNN`. Its masks leave a blind spot: pixels above and to the right that no path of masked
kernels reaches (`plots.receptive_field` draws it). gated_pixelcnn.py has none.
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
from .model import option, register

if TYPE_CHECKING:
    from .cached_sampling import Cache


class CausalConv(Module):
    """A convolution that sees positions before its own in raster order only.     (N, H, W, c_in) -> (N, H, W, c_out)

    above, side: how many rows up and how many columns to each side it sees.     own: whether a position sees itself: not in the
    first layer, where that is the pixel to be predicted (mask A), but in all others, where it is a feature of earlier pixels
    (mask B)   (O16 sec. 3.4). Of a kernel of 2 above + 1 by 2 side + 1 only the rows and columns that are not masked as a whole
    are kept: weight (above + 1, 2 side + 1, c_in, c_out), the end of its last row masked; or (1, side + own, ...) without rows
    above, and no mask.
    """

    def __init__(self, c_in: int, c_out: int, above: int, side: int, own: bool, *, rng: Generator):
        kernel = (above + 1, 2 * side + 1 if above else side + own)
        self.weight = parameter(init.fan_in_uniform((*kernel, c_in, c_out), rng))
        self.bias = parameter(np.zeros(c_out, np.float32))
        mask = np.ones((*kernel, 1, 1), np.float32)
        mask[above, side + own :] = 0
        self.mask = Tensor(mask)
        self.above, self.side, self.own = above, side, own

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """cache: where the rest of the image is known from, when x is one position, (N, 1, 1, c_in)."""
        if cache is not None:
            return cache.convolve(self, x)
        y = ops.conv2d(x, self.weight * self.mask, self.bias, padding=(self.above, self.side))  # larger than x: below, right
        return y[:, : x.shape[1], : x.shape[2]]  # (N, H, W, c_out)                                 proved by: truth causal


class PixelCNN(Module):
    """A 7×7 convolution of mask A, blocks of mask B, and two 1×1 layers   (O16 table 1).     -> (N, H, W, outputs)

    Each position adds a learned vector to its features, since convolutions alone do not know where in the image they are, and
    each label, where there are classes, one to all features.
    """

    def __init__(self, data_shape: tuple[int, ...], config: PixelCNNConfig, outputs: int, rng: Generator):
        c, block = config.channels, GatedBlock if config.gates else ResidualBlock
        self.label = Embedding(config.classes, c, rng=rng) if config.classes else None
        self.place = parameter(np.zeros((*data_shape[:2], c), np.float32)) if config.positions else None
        self.enter = CausalConv(1, c, 3, 3, own=False, rng=rng)
        self.blocks = [block(c, rng) for _ in range(config.blocks)]
        self.leave = Sequential(
            ops.relu, Linear(c, config.head, rng=rng, activation="relu"), Linear(config.head, outputs, rng=rng)
        )

    def forward(self, x: Tensor, y: np.ndarray | None = None, cache: Cache | None = None) -> Tensor:
        h = self.enter(x, cache)  # (N, H, W, c)
        if self.place is not None:
            h = h + (self.place if cache is None else cache.here(self.place))
        if self.label is not None:
            h = h + self.label(y).reshape(len(x), 1, 1, -1)
        for block in self.blocks:
            h = block(h, cache)
        return self.leave(h)


class ResidualBlock(Module):
    """h + conv_B(relu(h))   (after O16 fig. 5, in one layer).     (N, H, W, c) -> the same"""

    def __init__(self, c: int, rng: Generator):
        self.conv = CausalConv(c, c, 1, 1, own=True, rng=rng)

    def forward(self, h: Tensor, cache: Cache | None) -> Tensor:
        return h + self.conv(ops.relu(h), cache)


class GatedBlock(Module):
    """h + W [tanh(a) ⊙ σ(b)],  (a, b) = conv_B(h)   (van den Oord 2016b, arXiv 1606.05328, eq. 2).     -> like h"""

    def __init__(self, c: int, rng: Generator):
        self.conv = CausalConv(c, 2 * c, 1, 1, own=True, rng=rng)
        self.mix = Linear(c, c, rng=rng)

    def forward(self, h: Tensor, cache: Cache | None) -> Tensor:
        return h + self.mix(ops.gated_tanh(self.conv(h, cache)))


@dataclass(frozen=True)
class PixelCNNConfig(ConvConfig):
    channels: int = option(32, "channels of all convolutions", low=1)
    blocks: int = option(7, "blocks", low=0)
    gates: bool = option(False, "blocks with gates in place of ReLUs")
    head: int = option(64, "channels of the 1x1 layer before the output", low=1)


@register("pixelcnn", PixelByPixel, PixelCNNConfig, "images pixel by pixel, with masked convolutions")
def pixelcnn(data_shape: tuple[int, ...], config: PixelCNNConfig, rng: Generator) -> PixelByPixel:
    """For images of one channel."""
    pixels = grey_or_binary("pixelcnn", data_shape, config)
    return PixelByPixel(PixelCNN(data_shape, config, pixels.outputs, rng), pixels, data_shape, config, draw_from_cache)
