"""Autoregressive models of images: a probability for every pixel, given those before it.

An image is a sequence: its pixels row by row, from the top left. Its probability is a product of conditional ones, exactly:

    p(x) = Π_i p(x_i | x_1, ..., x_{i-1})                     (van den Oord 2016, arXiv 1601.06759, eq. 1; cited as O16)

One network gives all the factors in one pass, if its output for pixel i depends on the pixels before i only. What such a
network looks like is the subject of made.py, pixelcnn.py, gated_pixelcnn.py and pixelrnn.py; what its outputs mean, of
pixels.py. Here is what is done with it, whichever it is. Start at `PixelByPixel.log_prob`. Sampling goes pixel by pixel:
`draw_in_order` by the definition, cached_sampling.py much faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..autograd.backend import alike, move
from ..random import Generator
from .model import Loss, Model, ModelConfig, option, other_default
from .pixels import Binary, LogisticMixture


@dataclass(frozen=True)
class PixelConfig(ModelConfig):
    """What every autoregressive model of images needs to know."""

    pixels: str = option("binary", "black and white pixels, drawn anew each time, or grey levels", choices=("binary", "grey"))
    levels: int = option(0, "grey levels of the images; 0: those of the data set", low=0, high=65536)
    components: int = option(5, "logistic distributions in the mixture of a grey pixel", low=1)
    classes: int = option(0, "classes to be conditioned on, for labelled data; 0: none", low=0)


@dataclass(frozen=True)
class ConvConfig(PixelConfig):
    """What those made of convolutions need to know besides. Small batches: many steps for the same work."""

    batch_size: int = other_default(ModelConfig, "batch_size", 16)
    lr: float = other_default(ModelConfig, "lr", 3e-3)
    steps: int = other_default(ModelConfig, "steps", 4000)
    ema: float = other_default(ModelConfig, "ema", 0.999)
    positions: bool = option(True, "a learned vector for each position of the image")


class PixelByPixel(Model):
    """A model of images (H, W, 1) that gives a probability to every pixel, given those before it.

    network(inputs (N, H, W, 1), labels (N,) or None) -> Tensor (N, H, W, P): the outputs of pixel i depend on pixels before i
    only, and pixels (see pixels.py) says what the P outputs of a pixel mean.     draw: how pixels are drawn one after another,
    `draw_in_order` or what draws the same faster.
    """

    config: PixelConfig
    classes = 0

    def __init__(
        self,
        network: Callable,
        pixels: Binary | LogisticMixture,
        data_shape: tuple[int, ...],
        config: PixelConfig,
        draw: Callable | None = None,
    ):
        self.network, self.pixels, self.draw = network, pixels, draw or draw_in_order
        self.data_shape, self.config, self.classes = data_shape, config, config.classes
        self.levels = None if isinstance(pixels, Binary) else pixels.levels

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        """Images in [0, 1] -> their levels: 0 and 1, drawn anew, or 0 ... L-1."""
        return self.pixels.preprocess(x, rng)

    def log_prob(self, x: np.ndarray, y: np.ndarray | None = None) -> Tensor:
        """log p(x) = Σ_i log p(x_i | x_<i).     x: (N, H, W, 1) levels -> (N,) nats                            (O16 eq. 1)

        y: (N,) labels, for log p(x | y). A model that knows labels and gets none adds over them: log Σ_y p(x | y)/classes.
        """
        if self.classes and y is None:
            each = [self.log_prob(x, alike(np.full(len(x), label), x)) for label in range(self.classes)]
            return ops.logsumexp(ops.stack(each), axis=0) - math.log(self.classes)
        output = self.network(Tensor(self.pixels.inputs(x)), y)  # (N, H, W, P)
        return self.pixels.log_prob(x, output)  # proved by: truths ar-sum, causal

    def loss(self, x: np.ndarray, rng: Generator, y: np.ndarray | None = None) -> Loss:
        """What is minimised: -log p(x), or -log p(x | y), averaged over the batch."""
        log_prob = self.log_prob(x, y).mean()
        return Loss(-log_prob, {"log_prob": log_prob})

    def estimators(self, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
        """The exact value, of which there is one."""

        def exact(x: np.ndarray, rng: Generator) -> np.ndarray:
            with no_grad():
                return self.log_prob(x).data

        return {"exact": exact}

    # ---- sampling

    def sample(self, n: int, rng: Generator, y: np.ndarray | None = None) -> np.ndarray:
        """n new images in [0, 1].     y: (n,) labels; None: drawn evenly where the model knows labels     -> (n, H, W, 1)"""
        return self.complete(np.zeros((n, *self.data_shape), np.float32), np.zeros(self.data_shape[:2], bool), rng, y)

    def complete(self, x: np.ndarray, known: np.ndarray, rng: Generator, y: np.ndarray | None = None) -> np.ndarray:
        """Images in [0, 1] whose pixels are those of x where they are known, and drawn where they are not.

        x: (N, H, W, 1) in [0, 1], binarised as in training where the model is of binary pixels.     known: (H, W) bool.
        A pixel is drawn given those before it: exact conditional samples, if what is known comes first (an upper half).
        Raises ValueError for a mask of another shape.
        """
        if known.shape != self.data_shape[:2]:
            raise ValueError(f"complete: known {known.shape} must be (H, W) = {self.data_shape[:2]}, true for pixels to keep")
        if self.classes and y is None:
            y = rng.integers(0, self.classes, (len(x),))
        seen = self.preprocess(move(x, rng.device), rng) * move(known[..., None].astype(np.float32), rng.device)
        u = rng.uniform((len(x), math.prod(self.data_shape)), dtype=np.float64)
        with no_grad():
            self.draw(self, seen.reshape(u.shape), known.reshape(-1), u, y)
        return self.pixels.images(seen)


def draw_in_order(model: PixelByPixel, x: np.ndarray, known: np.ndarray, u: np.ndarray, y: np.ndarray | None) -> None:
    """The sampler by the definition, a whole pass of the network for every pixel.

    x: (N, D) levels, changed in place, where not known (D,).     u: (N, D) uniform numbers, one to draw each pixel with
    """
    for i in map(int, np.flatnonzero(~known)):
        x[:, i] = pick(model.pixels.below(outputs(model, x, i, y)), u[:, i])  # proved by: truth ar-sampler


def outputs(model: PixelByPixel, x: np.ndarray, i: int, y: np.ndarray | None) -> np.ndarray:
    """The network's outputs for pixel i.     x: (N, D) levels -> (N, P)"""
    output = model.network(Tensor(model.pixels.inputs(x).reshape(-1, *model.data_shape)), y)
    return output.data.reshape(*x.shape, -1)[:, i]


def pick(below: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The first level k with u < F(k), the last if there is none.     (N, L-1), (N,) -> (N,)"""
    return (u[:, None] >= below).sum(axis=1)


def grey_or_binary(name: str, data_shape: tuple[int, ...], config: PixelConfig) -> Binary | LogisticMixture:
    """The distribution of a pixel that a configuration asks for. Raises ValueError for what is no image of one channel."""
    if len(data_shape) != 3 or data_shape[2] != 1:
        other = "made2d takes points" if len(data_shape) == 1 else "colours would need an order of the channels"
        raise ValueError(f"{name} models images of one channel, (H, W, 1), not data of shape {data_shape}: {other}")
    if config.pixels == "binary":
        return Binary()
    if config.levels < 2:
        raise ValueError(f"{name} with grey pixels must know how many levels the images have: levels=256")
    return LogisticMixture(config.levels, config.components)
