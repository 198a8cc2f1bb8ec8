"""The classifier whose features judge images: a LeNet, trained by this engine. Start at `train_classifier`.

Inception, the network behind the published FID, is trained on photographs and is of no use for digits. This one is small enough
to be trained anywhere in a minute, and its weights follow from the data and the seed alone, bit for bit on one machine. So a
LeNet-FID is comparable with others of the same weights, told by their SHA-256, and with nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..data import BatchOrder, Dataset
from ..nn import Conv2d, Linear, Module
from ..optim import Adam
from ..random import Generator

FEATURES = 64
BATCH, STEPS = 64, 2000  # about two passes over MNIST
PIECE = 250  # images that are looked at together


class LeNet(Module):
    """conv 5×5 16 - pool - conv 5×5 32 - pool - 64 - classes   (after LeCun 1998, with ReLU and max-pooling).

    data_shape: (H, W, C) of at least 8 × 8. Images smaller than 16 × 16 are padded, so that something is left of them.
    """

    def __init__(self, data_shape: tuple[int, int, int], classes: int, rng: Generator):
        height, width, channels = data_shape
        if min(height, width) < 8:
            raise ValueError(f"LeNet needs images of at least 8 x 8, not of shape {data_shape}")
        padding = 2 if min(height, width) < 16 else 0
        after = lambda side: ((side - 4 + 2 * padding) // 2 - 4 + 2 * padding) // 2  # 28 -> 12 -> 4,  8 -> 4 -> 2
        self.first = Conv2d(channels, 16, 5, padding=padding, rng=rng)
        self.second = Conv2d(16, 32, 5, padding=padding, rng=rng)
        self.hidden = Linear(32 * after(height) * after(width), FEATURES, rng=rng, activation="relu")
        self.output = Linear(FEATURES, classes, rng=rng)

    def features(self, x: np.ndarray | Tensor) -> Tensor:
        """What the last hidden layer says.     (N, H, W, C) in [0, 1] -> (N, 64)"""
        h = ops.max_pool2d(ops.relu(self.first(x)), 2)
        h = ops.max_pool2d(ops.relu(self.second(h)), 2)
        return self.hidden(h.reshape(len(h), -1))

    def forward(self, x: np.ndarray | Tensor) -> Tensor:
        """Logits of the classes.     (N, H, W, C) -> (N, classes)"""
        return self.output(self.features(x))


def train_classifier(data: Dataset, seed: int, steps: int = STEPS, said: Callable[[int], object] = lambda n: None) -> LeNet:
    """Minimise the cross-entropy on a labelled training set, by Adam at 1e-3, falling to 0 over the last half.

    said: is told after every step how many steps have been made.     Raises ValueError for data without labels.
    """
    if data.y is None or data.x.ndim != 4:
        raise ValueError(f"a classifier needs labelled images; {data.name} has {'points' if data.x.ndim == 2 else 'no labels'}")
    weights, order = Generator(seed).split(2)
    net = LeNet(data.x.shape[1:], int(data.y.max()) + 1, weights)
    batches = BatchOrder(len(data), min(BATCH, len(data)), order)
    optimizer = Adam(net.parameters(), lambda step: 1e-3 * min(1.0, 2 * (1 - step / steps)))
    for step in range(steps):
        chosen = next(batches)
        optimizer.zero_grad()
        ops.cross_entropy(net(data.x[chosen]), data.y[chosen]).backward()
        optimizer.step()
        said(step + 1)
    net.eval()
    return net


def features(net: LeNet, x: np.ndarray) -> np.ndarray:
    """(N, H, W, C) in [0, 1] -> (N, 64) float64"""
    return _in_pieces(net.features, x).astype(np.float64)


def classify(net: LeNet, x: np.ndarray) -> np.ndarray:
    """The likeliest class of each image.     (N, H, W, C) -> (N,) int"""
    return _in_pieces(net, x).argmax(axis=1)


def weights_sha256(net: Module) -> str:
    """Hexadecimal SHA-256 over the names, shapes and values of all parameters: equal digests mean equal features."""
    digest = hashlib.sha256()
    for name, p in net.named_parameters():
        digest.update(f"{name} {p.data.dtype.str} {p.shape}\n".encode())
        digest.update(np.ascontiguousarray(p.data).data)
    return digest.hexdigest()


def _in_pieces(function: Callable, x: np.ndarray) -> np.ndarray:
    with no_grad():
        return np.concatenate([function(Tensor(x[i : i + PIECE])).data for i in range(0, len(x), PIECE)])
