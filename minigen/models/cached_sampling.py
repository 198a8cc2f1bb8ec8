"""Sampling from an autoregressive model of images with cached activations: the same samples, without computing anything twice.

`autoregressive.draw_in_order` runs the whole network for every pixel, of which it needs the outputs at one position. Here a
pass of the network is for that position alone, (N, 1, 1, C): layers that act on each position by itself need nothing else, and
a convolution finds what it has seen of earlier positions in a `Cache`. On an image of H W pixels that is H W times less work.
(The idea: Ramachandran 2017, Fast generation for convolutional autoregressive models, https://arxiv.org/abs/1704.06001.)

Start at `draw_from_cache`. The networks do not change: they pass the cache on to their convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd import Tensor
from .autoregressive import outputs, pick

if TYPE_CHECKING:
    from .autoregressive import PixelByPixel
    from .gated_pixelcnn import VerticalLayer
    from .pixelcnn import CausalConv
    from .pixelrnn import RowLSTM

CLOSE = 1e-5  # of the uniform number to a threshold: then rounding, which is a hundred times smaller, might tell


def draw_from_cache(model: PixelByPixel, x: np.ndarray, known: np.ndarray, u: np.ndarray, y: np.ndarray | None) -> None:
    """Draws what `draw_in_order` draws.     x: (N, D) levels, changed in place, where not known (D,).     u: (N, D) uniform

    Sums in another order round otherwise, by some 1e-7 of a probability. That matters where a uniform number lies so close to a
    threshold that the other side would be another pixel. Within `CLOSE` of one, which for two levels happens once in 50,000
    pixels, an image is drawn by the definition: a whole pass, whose result for an image has the same bits in every batch.
    """
    width = model.data_shape[1]
    cache = Cache(len(x), width, like=x)
    for i in range(int(np.flatnonzero(~known).max(initial=-1)) + 1):
        cache.move(*divmod(i, width))
        output = model.network(Tensor(cache.unknown), y, cache).data[:, 0, 0]  # (N, P)
        if not known[i]:
            below = model.pixels.below(output)  # (N, L-1)
            close = (np.abs(below - u[:, i, None]) < CLOSE).any(axis=1)
            if close.any():
                these = np.flatnonzero(close)
                below[these] = model.pixels.below(outputs(model, x[these], i, None if y is None else y[these]))
            x[:, i] = pick(below, u[:, i])  # proved by: truth ar-sampler
        cache.tell(model.pixels.inputs(x[:, i]))


class Cache:
    """What the layers of a network have seen of n images, up to a position (row, column).

    Each layer that looks beyond its own position keeps what it needs here, under its own name: itself.
    like: an array on the device where that is to be.
    """

    def __init__(self, n: int, width: int, like: np.ndarray):
        self.n, self.width, self.like = n, width, like
        self.unknown = self._zeros((n, 1, 1, 1), np.float32)  # the input at the position: not yet drawn, and seen by no layer
        self.image_row = self._zeros((n, 1, width, 1), np.float32)  # of inputs: the row above, until the first pixel is drawn
        self.layers: dict[Any, SimpleNamespace] = {}
        self.row = self.column = 0

    def _zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros_like(self.like, shape=shape, dtype=dtype)

    def move(self, row: int, column: int) -> None:
        """The position to be computed next: they come in raster order."""
        self.row, self.column = row, column

    def tell(self, value: np.ndarray) -> None:
        """The input at the position, (N,), now that its pixel is drawn."""
        for memory in self.layers.values():
            if memory.sees_image:
                memory.seen[-1, self.column + memory.side] = value[:, None]
        self.image_row[:, 0, self.column, 0] = value

    def here(self, place: Tensor) -> np.ndarray:
        """What an array (H, W, c) has for the position: (c,)."""
        return place.data[self.row, self.column]

    def convolve(self, layer: CausalConv, x: Tensor) -> Tensor:
        """A causal convolution at the position.     x: (N, 1, 1, c_in) -> (N, 1, 1, c_out)

        The part that comes from the rows above is computed once a row, for all of it.
        """
        memory = self.layers.get(layer)
        if memory is None:
            memory = self.layers[layer] = self._empty(layer, x.shape[-1])
        if self.column == 0:
            memory.seen[:-1] = memory.seen[1:]  # the row that is finished moves up
            memory.seen[-1] = 0
            memory.from_above = self._from_above(layer, memory)  # (W, N, c_out)
        if layer.own:
            memory.seen[-1, self.column + layer.side] = x.data[:, 0, 0]
        y = memory.from_above[self.column]
        for j, weight in enumerate(memory.left):
            y = y + memory.seen[-1, self.column + j] @ weight
        return Tensor(y[:, None, None])

    def _empty(self, layer: CausalConv, c_in: int) -> SimpleNamespace:
        """seen: (rows above and the own one, W and the padding, N, c_in): a position of all images lies together."""
        weight = layer.weight.data * layer.mask.data
        return SimpleNamespace(
            seen=self._zeros((layer.above + 1, self.width + 2 * layer.side, self.n, c_in), weight.dtype),
            left=weight[-1, : layer.side + layer.own],  # of the last row, what is not masked
            above=weight[:-1],
            sees_image=not layer.own,
            side=layer.side,
        )

    def _from_above(self, layer: CausalConv, memory: SimpleNamespace) -> np.ndarray:
        """Bias and rows above, for the row.     -> (W, N, c_out)"""
        y = self._zeros((self.width, self.n, layer.weight.shape[-1]), memory.seen.dtype) + layer.bias.data
        for seen, weights in zip(memory.seen[:-1], memory.above, strict=True):
            for j, weight in enumerate(weights):
                y += seen[j : j + self.width] @ weight
        return y

    # ---- for layers that work on whole rows

    def of_row(self, compute: Callable[[Tensor, Cache], list[Tensor]]) -> list[Tensor]:
        """What compute(the row above of the image, (N, 1, W, 1), cache) has at this column; it is run once a row."""
        memory = self.memory(compute.__self__)  # type: ignore[attr-defined]
        if self.column == 0:
            memory.row = compute(Tensor(self.image_row), self)
        return [part[:, :, self.column : self.column + 1] for part in memory.row]

    def with_rows_above(self, layer: VerticalLayer, x: Tensor) -> Tensor:
        """The row x, (N, 1, W, c), under the rows above it that the layer sees.     -> (N, above + 1, W, c)"""
        memory = self.memory(layer)
        if self.row == 0:
            memory.rows = self._zeros((self.n, layer.above, *x.shape[2:]), x.dtype)
        rows = np.concatenate([memory.rows, x.data], axis=1)
        memory.rows = rows[:, 1:]
        return Tensor(rows)

    def memory(self, layer: Any) -> SimpleNamespace:
        """A place for a layer to keep things in."""
        return self.layers.setdefault(layer, SimpleNamespace(sees_image=False))

    def recur(self, layer: RowLSTM, gates: Tensor) -> Tensor:
        """The step of a Row LSTM at the position.     gates: (N, 1, 1, 4 c), those from its input -> h (N, 1, 1, c)"""
        memory, here = self.memory(layer), slice(self.column, self.column + 1)
        if self.row == self.column == 0:
            memory.h, memory.cell = (self._zeros((self.n, 1, self.width, layer.c), gates.dtype) for _ in range(2))
        if self.column == 0:
            memory.gates = layer.from_state(Tensor(memory.h))  # (N, 1, W, 4 c): of the whole row above
        h, cell = layer.step(gates + memory.gates[:, :, here], Tensor(memory.cell[:, :, here]))
        memory.h[:, :, here], memory.cell[:, :, here] = h.data, cell.data
        return h
