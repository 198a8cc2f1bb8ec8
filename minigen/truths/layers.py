"""Truth demodulate: a modulated convolution against its definition, sample by sample. Start at `demodulate`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad
from ..random import Generator
from .truth import Finding, Truth, array

N, SIDE, IN, OUT, KERNEL = 3, 5, 4, 3, 3


def demodulate(cls: Any) -> list[Finding]:
    """Weights scaled by s, and divided by their norm, for each sample; and noise of variance 1 that leaves with variance 1.

    The convolution is taken by its definition, from the layer's `weight` alone: a sum over the kernel, in NumPy.
    """
    rng = np.random.default_rng(0)
    layer = cls(IN, OUT, KERNEL, rng=Generator(0)).astype(np.float64)
    w, style, x = layer.weight.data, rng.uniform(0.3, 3, (N, IN)), rng.normal(size=(N, SIDE, SIDE, IN))
    modulated = style[:, None, None, :, None] * w  # (N, k, k, C_in, C_out)
    norm = np.sqrt((modulated**2).sum(axis=(1, 2, 3), keepdims=True))
    right = convolved(x, modulated / norm)
    with no_grad():
        found = array(layer(Tensor(x), Tensor(style)))
        own = array(layer.weights(Tensor(style)))
        pulses = np.eye(SIDE * SIDE * IN).reshape(-1, SIDE, SIDE, IN)  # noise of variance 1, value by value
        response = array(layer(Tensor(pulses), Tensor(np.tile(style[:1], (len(pulses), 1)))))[:, SIDE // 2, SIDE // 2]
    along = lambda y: float((y * right).sum() / (right * right).sum())
    plain, bare = np.broadcast_to(w, modulated.shape), np.sqrt((w**2).sum(axis=(0, 1, 2)))  # the norm without the style
    inputs = np.sqrt((modulated**2).sum(axis=(1, 2, 4), keepdims=True))
    suspects = (
        (along(convolved(x, modulated)), "the weights are not demodulated"),
        (along(convolved(x, plain / bare)), "the weights are not modulated: the style does nothing"),
        (along(convolved(x, modulated / bare)), "the norm is that of the weights without the style"),
        (along(convolved(x, modulated / norm**2)), "it is divided by the sum of squares, without the root"),
        (along(right * np.sqrt(KERNEL * KERNEL * IN)), "it is divided by the root of the mean square, where the sum is meant"),
        (along(convolved(x, modulated / inputs)), "the norm is taken over the output channels, where the input's are meant"),
    )
    size = float((response**2).sum(axis=0).mean())
    too_large = ((float((norm[0] ** 2).mean()), "the weights are not demodulated"),)
    return [
        Finding("output along that of the definition", along(found), 1, 1e-6, suspects),
        Finding("largest error of the output", float(np.abs(found - right).max()), 0, 1e-6),
        Finding("largest error of a sample's weights", float(np.abs(own - modulated / norm).max()), 0, 1e-6),
        Finding("variance of the output for noise of variance 1", size, 1, 1e-6, too_large),
    ]


def convolved(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The convolution of each sample with weights of its own, black around it.     (N, H, W, C_in) -> (N, H, W, C_out)"""
    pad = weights.shape[1] // 2
    wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    parts = np.lib.stride_tricks.sliding_window_view(wide, weights.shape[1:3], axis=(1, 2))  # (N, H, W, C_in, k, k)
    return np.einsum("nyxcij,nijco->nyxo", parts, weights)


# ---- the row of the table


TRUTHS = (
    Truth(
        "demodulate",
        "scaling inputs, convolving and scaling outputs is the convolution with modulated weights, and keeps variance 1",
        "Karras et al. 2020, arXiv 1912.04958, section 2.2, eqs. 1-3",
        ("forward", "weights"),
        demodulate,
        made_of=("in_channels", "out_channels", "kernel_size"),
        mistakes="the axes of the norm, its root, or a style that scales the wrong channels",
    ),
)
