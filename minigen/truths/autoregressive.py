"""Truths of autoregressive models: of a network whose output for value i may depend on the values before i only.

    ar-sum             `sum_over_images`    the probabilities of all images add up to 1
    causal             `sensitivity`        no output depends on its own value or a later one, and each on those it claims to
    ar-sampler         `chi_square`         samples come as often as their probability says
    logistic-mixture   `level_masses`       the masses of all grey levels add up to 1

Start at `sensitivity`, which the pictures of receptive fields are made from. Everything is computed in float64, by enumerating
images small enough for it, or from gradients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..autograd import Tensor, grad, no_grad
from ..random import Generator
from .truth import Finding, Truth

Network = Callable[[Tensor], Tensor]  # (N, ...) -> (N, ..., P), the outputs of each of the D values of a sample


def sensitivity(network: Network, x: np.ndarray) -> np.ndarray:
    """Truth causal: |∂ output_i / ∂ x_j|, summed over the outputs of value i, at one sample.     x: (...) float64 -> (D, D)

    Row i is 0 from i on: an output that saw its own value would copy it. One backward pass through D copies of the sample, in
    copy i from the outputs of value i alone. A derivative may be 0 by chance, behind a ReLU that is off: try several samples.
    """
    d = x.size
    copies = Tensor(np.broadcast_to(x, (d, *x.shape)).copy(), requires_grad=True)
    output = network(copies).reshape(d, d, -1)  # (copy, value, P)
    total = np.zeros((d, d))
    for p in range(output.shape[2]):
        weight = np.zeros(output.shape)
        weight[np.arange(d), np.arange(d), p] = 1  # in copy i, output p of value i
        (gradient,) = grad(output, [copies], grad_outputs=Tensor(weight))
        total += np.abs(gradient.data.reshape(d, d))
    return total


def seen_from(
    network: Network, shape: tuple[int, int], at: tuple[int, int], rng: np.random.Generator, draws: int = 4
) -> np.ndarray:
    """The receptive field of the output at one pixel: which pixels it depends on, in any of some random images.

    network: (N, H, W, 1) -> (N, H, W, P)     shape: (H, W)     at: (row, column)     -> (H, W) bool
    """
    row, column = at
    x = Tensor(rng.normal(size=(draws, *shape, 1)), requires_grad=True)
    output = network(x)
    weight = np.zeros(output.shape)
    weight[:, row, column] = rng.normal(size=output.shape[-1])
    (gradient,) = grad(output, [x], grad_outputs=Tensor(weight))
    return (gradient.data[..., 0] != 0).any(axis=0)


def composed(kernels: Iterable[np.ndarray], shape: tuple[int, int], at: tuple[int, int]) -> np.ndarray:
    """What convolutions one after another can see at most: the receptive field that their masks claim.

    kernels: (kh, kw) bool with odd sides, true where a weight is not masked, first layer first     -> (H, W) bool
    """
    seen = np.zeros(shape, bool)
    seen[at] = True
    for kernel in reversed(list(kernels)):
        up, left = (side // 2 for side in kernel.shape)
        reached = np.zeros((shape[0] + 2 * up, shape[1] + 2 * left), bool)
        for i, j in np.argwhere(kernel):
            reached[i : i + shape[0], j : j + shape[1]] |= seen
        seen = reached[up : up + shape[0], left : left + shape[1]]
    return seen


def all_images(shape: tuple[int, ...], levels: int = 2) -> np.ndarray:
    """Every image of this shape with so many levels.     -> (levels^D, *shape) float64"""
    images = np.array(list(itertools.product(range(levels), repeat=math.prod(shape))), np.float64)
    return images.reshape(-1, *shape)


def sum_over_images(log_prob: Callable[[np.ndarray], Tensor], shape: tuple[int, ...], levels: int = 2) -> float:
    """Truth ar-sum: Σ_x p(x) over all images: 1 for a distribution, to 1e-9 in float64.     log_prob: (N, *shape) -> (N,)"""
    with no_grad():
        return float(np.exp(log_prob(all_images(shape, levels)).data).sum())


def level_masses(log_levels: Callable[[np.ndarray, Tensor], Tensor], output: np.ndarray, levels: int) -> np.ndarray:
    """Truth logistic-mixture: the masses of all levels of a pixel, to add up to 1.     output: (N, P) -> (N, levels)"""
    every = np.broadcast_to(np.arange(levels, dtype=output.dtype), (len(output), levels))
    each = np.broadcast_to(output[:, None], (len(output), levels, output.shape[1]))
    with no_grad():
        return np.exp(log_levels(every, Tensor(each.copy())).data)


def chi_square(samples: np.ndarray, log_prob: Callable[[np.ndarray], Tensor], levels: int = 2, least: float = 5.0) -> float:
    """Truth ar-sampler: how far the counts of samples are from those expected, in standard deviations.

    samples: (N, *shape) of levels, from a model whose every image can be enumerated.     (χ² - df)/√(2 df), χ² over all images,
    those that are expected fewer than `least` times taken together. Within ±4 for a right sampler; N times the χ² divergence,
    and so as large as one likes, for a wrong one.
    """
    shape, n = samples.shape[1:], len(samples)
    with no_grad():
        expected = n * np.exp(log_prob(all_images(shape, levels)).data)  # (levels^D,), as all_images counts
    places = levels ** np.arange(math.prod(shape))[::-1]
    counts = np.bincount(samples.reshape(n, -1).astype(np.int64) @ places, minlength=len(expected))
    return pearson(counts, expected, least)


def pearson(counts: np.ndarray, expected: np.ndarray, least: float = 5.0) -> float:
    """(χ² - df)/√(2 df) of counts against those expected, (M,) each: within ±4 if they are what they are said to be."""
    rare = expected < least
    expected, counts = (np.append(a[~rare], a[rare].sum()) for a in (expected, counts))
    if expected[-1] < least:  # too few even together: they join the rest
        expected, counts = (np.append(a[:-2], a[-2] + a[-1]) for a in (expected, counts))
    df = len(expected) - 1
    return float((((counts - expected) ** 2 / expected).sum() - df) / math.sqrt(2 * df))


# ---- checks of a class, by its `example_images(rng)`: a model of 3 x 4 binary images with random parameters


def check_sum(cls: Any) -> list[Finding]:
    """Σ_x p(x) = 1 over all 4,096 images."""
    model = cls.example_images(Generator(0))
    total = sum_over_images(model.log_prob, model.data_shape)
    return [Finding("Σ p(x) over all images of 3 x 4 pixels", total, 1, 1e-9)]


def check_causal(cls: Any) -> list[Finding]:
    """∂ output_i/∂ x_j = 0 for j ≥ i, at several random inputs; and each output but the first sees something."""
    model, rng = cls.example_images(Generator(0)), np.random.default_rng(1)
    seen = np.max([sensitivity(model.network, rng.normal(size=model.data_shape)) for _ in range(4)], axis=0)  # (D, D)
    return [
        Finding("largest slope of an output in its own pixel", float(np.diag(seen).max()), 0, 0),
        Finding("largest slope of an output in a later pixel", float(np.triu(seen, 1).max()), 0, 0),
        Finding("outputs, but the first, that see no pixel", float((np.tril(seen, -1)[1:].max(axis=1) == 0).sum()), 0, 0),
    ]


def check_sampler(cls: Any, n: int = 10_000) -> list[Finding]:
    """Samples come as often as their probability says: χ² over all images, in standard deviations."""
    model = cls.example_images(Generator(0))
    samples = np.rint(model.astype(np.float32).sample(n, Generator(1)))  # in the precision that it samples in
    away = chi_square(samples, model.astype(np.float64).log_prob)
    return [Finding("(χ² - df)/√(2 df) of samples", away, 0, 4)]


def check_mixture(cls: Any) -> list[Finding]:
    """The masses of all levels add up to 1, wherever the components are."""
    rng, findings = np.random.default_rng(0), []
    for levels in (2, 17, 256):
        output = 3 * rng.normal(size=(200, 3 * 5))
        total = level_masses(cls(levels, 5).astype(np.float64).log_levels, output, levels).sum(axis=1)
        away = float(np.abs(total - 1).max())
        findings.append(Finding(f"farthest from 1 that the masses of {levels} levels add up to", away, 0, 1e-9))
    return findings


# ---- the rows of the table


PIXELS = ("log_prob", "complete", "example_images")

TRUTHS = (
    Truth(
        "ar-sum",
        "the probabilities of all images add up to 1",
        "the chain rule: Σ_x Π_i p(x_i | x_<i) = 1",
        PIXELS,
        check_sum,
        mistakes="a mask that lets a pixel see itself or later ones, or logits averaged where probabilities should be",
    ),
    Truth(
        "causal",
        "no output depends on its own pixel or a later one",
        "van den Oord et al. 2016, arXiv 1601.06759, sec. 3.4",
        PIXELS,
        check_causal,
        mistakes="mask B in the first layer, where it must be A, or a shift the wrong way",
    ),
    Truth(
        "ar-sampler",
        "samples come as often as their probability says",
        "Pearson's χ² over all images",
        (*PIXELS, "sample"),
        check_sampler,
        mistakes="pixels drawn in another order, all from one pass, or a cache that is not kept up",
    ),
    Truth(
        "logistic-mixture",
        "the masses of all grey levels add up to 1",
        "Salimans et al. 2017, arXiv 1701.05517, sec. 2.1",
        ("log_levels", "below"),
        check_mixture,
        made_of=("levels", "components"),
        mistakes="the first and the last level, which must reach to infinity, or the width of a level",
    ),
)
