"""Convolution whose weights each sample scales for itself   (Karras 2020, StyleGAN2, https://arxiv.org/abs/1912.04958).

Start at `ModulatedConv2d`.
"""

from __future__ import annotations

import numpy as np

from ..autograd import Tensor, ops
from ..random import Generator
from .convolution import Size
from .init import Initialisation, normal
from .layers import parameter
from .module import Module


class ModulatedConv2d(Module):
    """Input channels count as much as a style says, and outputs keep their size.     (N, H, W, C_in) -> (N, H', W', C_out)

        w'_{n i j c o} = s_{n c} w_{i j c o},     w'' = w'/√(Σ_{i j c} w'² + ε)                   (Karras 2020, eqs. 1 and 3)

    s: (N, C_in), from a linear layer of the style, with a bias that starts at 1.     demodulate: the second step; without it a
    large style makes large outputs.     padding: see `ops.conv2d`.     weight: (k, k, C_in, C_out), N(0, 1) at the start.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        padding: Size | str = "same",
        *,
        rng: Generator,
        demodulate: bool = True,
        weight_init: Initialisation = lambda shape, rng: normal(shape, rng, 1.0),
        eps: float = 1e-8,
    ):
        self.weight = parameter(weight_init((kernel_size, kernel_size, in_channels, out_channels), rng))
        self.bias = parameter(np.zeros(out_channels, np.float32))
        self.padding, self.demodulate, self.eps = padding, demodulate, eps

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: (N, H, W, C_in), style: (N, C_in) -> (N, H', W', C_out). Raises ValueError for a style of another shape.

        A factor of an input channel can as well be taken by the input, and one of an output channel by the output: so the
        weights are the same for all samples, and it is one convolution.                            proved by: truth demodulate
        """
        n, c_in = len(x), self.weight.shape[2]
        if style.shape != (n, c_in):
            raise ValueError(f"ModulatedConv2d: style {style.shape} must be (N, C_in) = {(n, c_in)}, a factor for each channel")
        y = ops.conv2d(x * style.reshape(n, 1, 1, c_in), self.weight, padding=self.padding)
        if self.demodulate:
            y = y * self._factors(style).reshape(n, 1, 1, -1)
        return y + self.bias

    def weights(self, style: Tensor) -> Tensor:
        """The weights of each sample, w'' (or w'), which `forward` never makes.     (N, C_in) -> (N, k, k, C_in, C_out)"""
        modulated = style.reshape(len(style), 1, 1, -1, 1) * self.weight
        return modulated * self._factors(style).reshape(len(style), 1, 1, 1, -1) if self.demodulate else modulated

    def _factors(self, style: Tensor) -> Tensor:
        """1/√(Σ_{i j c} (s_c w_{i j c o})² + ε).     (N, C_in) -> (N, C_out)"""
        squares = ops.square(self.weight).sum(axis=(0, 1))  # (C_in, C_out)
        return (ops.matmul(ops.square(style), squares) + self.eps) ** -0.5
