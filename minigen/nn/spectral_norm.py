"""Layers of spectral norm 1   (Miyato 2018, https://arxiv.org/abs/1802.05957). Start at `SpectralNorm`.

With its weight divided by its largest singular value, a linear layer stretches no difference between two inputs: it is
1-Lipschitz. A convolution multiplies by a larger matrix, in which the kernel stands once for each position. What is divided by
here is the norm of the kernel as a matrix (kh·kw·C_in, C_out), the convention of the paper and of PyTorch. The two norms are
equal where patches do not overlap (stride = kernel size). Where they do, the layer's can be above 1, up to √(⌈kh/s⌉ ⌈kw/s⌉): a
bound that never changes, and that is what training needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, ops
from ..random import Generator
from .convolution import Conv2d
from .layers import Linear
from .module import Module

WARM_UP = 15  # iterations before the first step, so that it divides by nearly the right number


class SpectralNorm(Module):
    """W / σ(W), σ the largest singular value of W as a matrix (all axes but the last, last).

    Power iteration, one in each training step, is enough, since W moves little between two steps   (Miyato 2018, alg. 1):

        v ← W u / |W u|,   u ← Wᵀ v / |Wᵀ v|,   σ = vᵀ W u                                              truth: spectral-norm

    u is a buffer (C_out,), part of the state of the module. Gradients go through σ, with u and v held fixed: at the singular
    vectors that is the derivative of σ, v uᵀ   (their sec. 2.3).     weight: at the start, for its size and first iterations.
    """

    def __init__(self, weight: Tensor, *, rng: Generator, eps: float = 1e-12):
        self.u, self.eps = Tensor(_unit(rng.normal((weight.shape[-1],)), eps)), eps
        for _ in range(WARM_UP):
            self.u.data[...] = self._iterate(weight.data.reshape(-1, weight.shape[-1]))[1]

    def forward(self, weight: Tensor) -> Tensor:
        matrix = weight.reshape(-1, weight.shape[-1])  # (M, C_out)
        v, u = self._iterate(matrix.data)  # new arrays: a graph that was recorded before keeps its own
        if self.training:
            self.u.data[...] = u
            self.u.mark_written()
        sigma = (ops.matmul(matrix, u) * v).sum()  # ()
        return weight / sigma  # proved by: truth spectral-norm

    def _iterate(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One iteration from u.     (M, C_out) -> v: (M,), u: (C_out,)"""
        v = _unit(ops.matmul(matrix, self.u.data), self.eps)
        return v, _unit(ops.matmul(matrix.T, v), self.eps)


class SpectralLinear(Linear):
    """y = f(x W/σ(W) + b).     Options: see Linear."""

    def __init__(self, in_features: int, out_features: int, *, rng: Generator, **options: Any):
        super().__init__(in_features, out_features, rng=rng, **options)
        self.norm = SpectralNorm(self.weight, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.norm(self.weight), self.bias, self.activation, self.negative_slope)


class SpectralConv2d(Conv2d):
    """Convolution with W/σ(W).     Options: see Conv2d."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, *args: Any, rng: Generator, **options: Any):
        super().__init__(in_channels, out_channels, kernel_size, *args, rng=rng, **options)
        self.norm = SpectralNorm(self.weight, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.norm(self.weight), self.bias, **self.options)


def _unit(vector: np.ndarray, eps: float) -> np.ndarray:
    return vector / (np.sqrt((vector * vector).sum()) + eps)
