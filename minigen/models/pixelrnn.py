"""PixelRNN with Row LSTM layers   (van den Oord 2016, https://arxiv.org/abs/1601.06759, sec. 3.1; cited as O16).

An LSTM that goes down the image row by row, all columns of a row at once. Its state at a position comes from the three states
above it, so the output depends on all rows above, however far, in a triangle; what lies to the left in the row comes in by a
masked convolution. Exact likelihoods like those of PixelCNN, but a pass takes H steps one after another. Start at `RowLSTM`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..autograd import Tensor, ops
from ..nn import Conv2d, Embedding, Linear, Module, Sequential, parameter
from ..random import Generator
from .autoregressive import ConvConfig, PixelByPixel, grey_or_binary
from .cached_sampling import draw_from_cache
from .model import option, other_default, register
from .pixelcnn import CausalConv

if TYPE_CHECKING:
    from .cached_sampling import Cache


class RowLSTM(Module):
    """(N, H, W, c_in) -> (N, H, W, c): the hidden states h of

        [o, f, i, g] = [σ, σ, σ, tanh](K_ss ⊛ h_{r-1} + K_is ⊛ x_r)                                             (O16 eq. 3)
        c_r = f ⊙ c_{r-1} + i ⊙ g,     h_r = o ⊙ tanh(c_r)

    at row r. K_ss, 1×3, sees the states of the row above; K_is, 1×3 with mask B, the inputs to the left and the position's own.
    """

    def __init__(self, c_in: int, c: int, rng: Generator):
        self.from_input = CausalConv(c_in, 4 * c, 0, 1, own=True, rng=rng)
        self.from_state = Conv2d(c, 4 * c, (1, 3), padding=(0, 1), rng=rng, bias=False)
        self.c = c

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        gates = self.from_input(x, cache)  # (N, H, W, 4 c)
        if cache is not None:
            return cache.recur(self, gates)
        h = cell = Tensor(np.zeros((len(x), 1, x.shape[2], self.c), x.dtype, like=x.data))  # (N, 1, W, c)
        rows = []
        for r in range(x.shape[1]):
            h, cell = self.step(gates[:, r : r + 1] + self.from_state(h), cell)
            rows.append(h)
        return ops.concat(rows, axis=1)

    def step(self, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the LSTM at some positions.     (..., 4 c), (..., c) -> h, cell (..., c)"""
        c = self.c
        o, f, i = ops.split(ops.sigmoid(gates[..., : 3 * c]), 3, axis=-1)
        cell = f * cell + i * ops.tanh(gates[..., 3 * c :])
        return o * ops.tanh(cell), cell


class PixelRNN(Module):
    """A 7×7 convolution of mask A, residual Row LSTMs, and two 1×1 layers   (O16 table 1).     -> (N, H, W, outputs)

    Each position may add a learned vector to its features, and each label.
    """

    def __init__(self, data_shape: tuple[int, ...], config: PixelRNNConfig, outputs: int, rng: Generator):
        c = config.channels
        self.label = Embedding(config.classes, 2 * c, rng=rng) if config.classes else None
        self.place = parameter(np.zeros((*data_shape[:2], 2 * c), np.float32)) if config.positions else None
        self.enter = CausalConv(1, 2 * c, 3, 3, own=False, rng=rng)
        self.layers = [(RowLSTM(2 * c, c, rng), Linear(c, 2 * c, rng=rng)) for _ in range(config.layers)]
        self.leave = Sequential(ops.relu, Linear(2 * c, 2 * c, rng=rng, activation="relu"), Linear(2 * c, outputs, rng=rng))

    def forward(self, x: Tensor, y: np.ndarray | None = None, cache: Cache | None = None) -> Tensor:
        h = self.enter(x, cache)  # (N, H, W, 2 c)
        if self.place is not None:
            h = h + (self.place if cache is None else cache.here(self.place))
        if self.label is not None:
            h = h + self.label(y).reshape(len(x), 1, 1, -1)
        for lstm, widen in self.layers:
            h = h + widen(lstm(h, cache))  # O16 fig. 5, right
        return self.leave(h)


@dataclass(frozen=True)
class PixelRNNConfig(ConvConfig):
    lr: float = other_default(ConvConfig, "lr", 2e-3)
    channels: int = option(16, "channels of the states; those between the layers are twice as many", low=1)
    layers: int = option(3, "Row LSTM layers", low=1)


@register("pixelrnn", PixelByPixel, PixelRNNConfig, "images pixel by pixel, with an LSTM that goes down the rows")
def pixelrnn(data_shape: tuple[int, ...], config: PixelRNNConfig, rng: Generator) -> PixelByPixel:
    """For images of one channel."""
    pixels = grey_or_binary("pixelrnn", data_shape, config)
    return PixelByPixel(PixelRNN(data_shape, config, pixels.outputs, rng), pixels, data_shape, config, draw_from_cache)
