"""Truths of models with an exact density, checked on an example of the class, and of parts of a flow. Start at `flow_density`.

What is asked of a class is its `example(rng)`: a model of points in the plane with random parameters, for models start near the
identity, where most mistakes are hidden. For the built-in models checking.py makes one. The tools are in flow.py.
"""

from __future__ import annotations

import math
from inspect import signature
from typing import Any

import numpy as np
from scipy.special import ndtri

from ..autograd import Tensor, no_grad
from ..data import TOYS
from ..models.dequantise import Uniform
from ..models.flow import ActNorm, Bijection, Chain, FlowConfig, InvertibleLinear
from ..models.glow import GlowConfig
from ..models.maf import Autoregressive, MaskedNetwork
from ..optim import Adam
from ..random import Generator
from .flow import LOG_2PI, cross_entropy, gaussian_mle, log_det_by_differences, moments, on_grid
from .truth import Finding, Truth, array

STEP, REACH = 0.1, 16.0  # of the grid for integrals: finer than a model's details, wider than its mass


def flow_density(cls: Any) -> list[Finding]:
    """∫ p = 1; log p is what the change of variables says, with the Jacobian by differences; samples follow p.

    Needs of an example: encode(x) -> (z, log |det ∂z/∂x|), log_prob(x) and sample(n, rng).
    """
    model = cls.example(Generator(0))
    x = 1.5 * np.random.default_rng(1).normal(size=(40, 2))
    with no_grad():
        z, own = (array(a) for a in model.encode(x))
        own = np.broadcast_to(own, (len(x),))
        jacobian = log_det_by_differences(lambda x: array(model.encode(x)[0]), x)
        log_p = array(model.log_prob(x))
        grid = on_grid(((-REACH, REACH), (-REACH, REACH)), STEP)
        log_grid = np.concatenate([array(model.log_prob(part)) for part in np.array_split(grid, 16)])
        drawn = np.asarray(array(model.sample(10_000, Generator(3))), np.float64)
        log_drawn = array(model.log_prob(drawn))
    total = float(np.exp(log_grid).sum() * STEP**2)
    mean_log = float((np.exp(log_grid) * log_grid).sum() * STEP**2)
    base = -0.5 * (z**2).sum(axis=1) - LOG_2PI  # log N(z; 0, I)
    slope = float((own * jacobian).sum() / (jacobian**2).sum())
    counted, offset = np.polyfit(own, log_p - base, 1) if np.ptp(own) > 1e-6 else (1.0, float(np.mean(log_p - base - own)))
    farthest = float(np.abs(log_p - base - own).max())
    spread = 4 * float(log_drawn.std()) / math.sqrt(len(drawn)) + 2e-3
    return [
        Finding(
            "log |det| of the model over that by differences",
            slope,
            1,
            1e-4,
            (
                (-1, "the log-determinant has the wrong sign"),
                (0, "the log-determinant is left out"),
                (2, "the log-determinant is added to each of the 2 dimensions and then summed, or counted twice"),
                (0.5, "the log-determinant is averaged over the dimensions, where it must be summed"),
            ),
        ),
        Finding("largest error of log |det|, nats", float(np.abs(own - jacobian).max()), 0, 2e-6),
        Finding(
            "how often log p - log N(z; 0, I) counts log |det|",
            float(counted),
            1,
            1e-6,
            (
                (2, "log |det| is added to the log-density of each of the 2 dimensions, and then summed: it counts twice"),
                (-1, "log |det| is subtracted where it must be added"),
                (0, "log |det| is left out of log p"),
                (0.5, "log |det| is averaged over the dimensions in log p"),
            ),
        ),
        Finding(
            "what else is in log p, nats",
            float(offset),
            0,
            1e-6,
            (
                (LOG_2PI, "log N(z; 0, I) has no ½ log 2π"),
                (0.5 * LOG_2PI, "log N(z; 0, I) has ½ log 2π once, where it must have it for each dimension"),
            ),
        ),
        Finding("largest |log p - log N(z; 0, I) - log |det||, nats", farthest, 0, 1e-6),
        Finding("total probability, on a grid", total, 1, 1e-3),
        Finding("E log p of samples, against ∫ p log p, nats", float(log_drawn.mean()), mean_log, spread),
    ]


def entropy_floor(cls: Any, steps: int = 150) -> list[Finding]:
    """A short training on two moons, and then E[-log p] by quadrature over the data's density: never below their entropy."""
    toy, rng = TOYS["moons"], Generator(0)
    model = cls.example(Generator(0))
    dtype = model.parameters()[0].dtype
    optimizers = model.optimizers()
    model.train()
    for _ in range(steps):
        model.train_step(toy.sample(256, rng).astype(dtype), rng, optimizers)
    model.eval()
    extra = {"rng": rng} if "rng" in signature(model.log_prob).parameters else {}
    with no_grad():
        found = cross_entropy(toy, lambda x: array(model.log_prob(x.astype(dtype), **extra)), 0.05)
    below = max(0.0, toy.entropy - found) if math.isfinite(found) else math.nan
    return [Finding("nats by which the cross-entropy is below the entropy of the data", below, 0, 1e-3)]


def linear_flow(cls: Any) -> list[Finding]:
    """A linear flow, trained on Gaussian data, reaches the maximum-likelihood fit ½ log det(2πe S), and nothing is below it."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3)) + [1.0, -2.0, 0.5]).astype(np.float32)
    flow = cls(Chain(ActNorm(3), InvertibleLinear(3, rng=Generator(0)), ActNorm(3)), (3,), FlowConfig())
    optimizer = Adam(flow.parameters(), lr=lambda step: 0.02 * 0.995**step)
    for _ in range(800):
        optimizer.zero_grad()
        loss = flow.loss(x, Generator(0)).total
        loss.backward()
        optimizer.step()
    best = gaussian_mle(x)
    shape = best - 1.5 * (1 + LOG_2PI)  # ½ log det S
    least = lambda often: 1.5 * (LOG_2PI + often - often * math.log(often)) + often * shape  # log |det| counted so often
    suspects = (
        (best - 1.5 * LOG_2PI, "log N(z; 0, I) has no ½ log 2π"),
        (best / 3, "the loss is per dimension, where it should be per sample"),
        (least(3), "log |det| is added to the log-density of each of the 3 dimensions, and then summed"),
        (least(2), "log |det| counts twice"),
        (least(1 / 3), "log |det| is averaged over the dimensions, where it must be summed"),
    )
    return [Finding("loss after training, nats", float(loss.item()), best, 1e-3, suspects)]


def actnorm(cls: Any) -> list[Finding]:
    """The first batch leaves with mean 0 and variance 1 in each channel; later ones do not set anything."""
    findings, again = [], ((1.0, "every batch starts it again"),)
    for shape in ((300, 2), (40, 3, 5, 4)):
        x = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[-1] + 1) + 3
        norm = cls(shape[-1]).astype(np.float64)
        with no_grad():
            mean, variance = moments(array(norm(Tensor(x))[0]))
            later = moments(array(norm(Tensor(2 * x))[0]))[1]
            z, log_det = norm(Tensor(x))
        expected = shape[1] * shape[2] if len(shape) == 4 else 1
        scale = np.log(array(z).reshape(-1, shape[-1]).std(axis=0) / x.reshape(-1, shape[-1]).std(axis=0)).sum()
        named = f"x of shape {shape}"
        findings += [
            Finding(f"largest mean of a channel, {named}", float(np.abs(mean).max()), 0, 1e-9),
            Finding(f"least variance of a channel, {named}", float(variance.min()), 1, 1e-5),
            Finding(f"variance of twice the batch, {named}", float(later.mean()), 4, 1e-4, again),
            Finding(
                f"log |det|, {named}",
                float(np.ravel(array(log_det))[0]),
                float(expected * scale),
                1e-6,
                ((float(scale), "the positions of an image are not counted: it must be H W times the sum over channels"),),
            ),
        ]
    return findings


def turned_round(cls: Any) -> list[Finding]:
    """An inverse autoregressive map is the masked one, backwards: it carries f(x) to x, with -log |det ∂f/∂x|."""
    maf = Autoregressive(MaskedNetwork(4, 12, 2, False, rng=Generator(1))).astype(np.float64)
    maf.eval()
    noise = np.random.default_rng(0)
    for p in maf.parameters():
        p.data[...] += 0.3 * noise.normal(size=p.shape) / math.sqrt(max(1, p.shape[0] if p.ndim > 1 else 1))
    x, turned = noise.normal(size=(50, 4)), cls(maf)
    with no_grad():
        z, log_det = (array(a) for a in maf(Tensor(x)))
        back, own = (array(a) for a in turned(Tensor(z)))
        forth = array(turned.inverse(Tensor(x)))
    slope = float((own * -log_det).sum() / (log_det**2).sum())
    return [
        Finding("largest error of the map", float(np.abs(back - x).max()), 0, 1e-9),
        Finding("largest error of its inverse", float(np.abs(forth - z).max()), 0, 1e-9),
        Finding("log |det| over what it must be", slope, 1, 1e-9, ((-1, "the log-determinant keeps its sign"),)),
        Finding("largest error of log |det|, nats", float(np.abs(own + log_det).max()), 0, 1e-9),
    ]


class Probit(Bijection):
    """z = Φ⁻¹(y): from the uniform distribution on the unit cube to the normal one. So log p(y) = 0."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = ndtri(np.clip(np.asarray(x.data, np.float64), 1e-12, 1 - 1e-12))
        log_det = (0.5 * z**2 + 0.5 * LOG_2PI).reshape(len(z), -1).sum(axis=1)
        return Tensor(z.reshape(len(z), -1)), Tensor(log_det)


class Ramp(Probit):
    """z = Φ⁻¹(y²): from the density p(y) = 2y on the unit cube."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = np.clip(np.asarray(x.data, np.float64), 1e-9, 1 - 1e-9)
        z, log_det = super().forward(Tensor(y * y))
        return z, log_det + np.log(2 * y).reshape(len(y), -1).sum(axis=1)


class Midpoints:
    """A generator whose uniform numbers are evenly spaced over the batch: a mean over it is an integral."""

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
        """The middles of equal parts of low .. high, one for each sample."""
        u = (np.arange(shape[0]) + 0.5) / shape[0]
        return np.broadcast_to((low + (high - low) * u).reshape(-1, *[1] * (len(shape) - 1)), shape).astype(dtype)


def ramp(cls: Any, levels: int = 8, copies: int = 4096) -> list[Finding]:
    """With the density 2y the bound of level k is ∫_0^1 log 2(k + u)/L du - log L: it shows where a level is looked up.

    In training and in evaluation alike: to train on one range and evaluate on another is a mistake that has been made.
    """
    flow, findings = cls(Ramp(), Uniform(), (1, 1, 1), GlowConfig(levels=levels)), []
    u = (np.arange(copies) + 0.5) / copies
    for k in (0, levels // 2, levels - 1):
        mean = lambda y: float(np.log(2 * np.clip(y, 1e-9, 1 - 1e-9)).mean()) - math.log(levels)
        suspects = (
            (mean((k + u) / (levels - 1)), f"(x + u) is divided by {levels - 1}, where there are {levels} levels"),
            (mean(k / (levels - 1) + u / levels), f"levels are {levels - 1} steps apart, and their noise is of {levels}"),
            (mean((k + 0 * u) / levels), "no noise is added"),
            (mean((k + u - 0.5) / levels), "the noise is around the level, where it must be above it"),
            (mean(2 * (k + u) / levels - 1), "levels are looked up in [-1, 1], where it must be [0, 1]"),
            (mean((k + u) / levels - 0.5), "levels are looked up in [-½, ½], where it must be [0, 1]"),
            (mean(k + u), "levels are not scaled to [0, 1]"),
        )
        image = np.full((copies, 1, 1, 1), k / (levels - 1), np.float32)
        for mode in ("training", "evaluation"):
            flow.train(mode == "training")
            with no_grad():
                found = float(np.mean(array(flow.elbo(flow.preprocess(image, Generator(0)), Midpoints())[0]), dtype=np.float64))
            what = f"bound of level {k} of {levels} for the density 2y, in {mode}, nats"
            findings.append(Finding(what, found, mean((k + u) / levels), 1e-4, suspects))
    return findings


def dequantise(cls: Any) -> list[Finding]:
    """With a uniform density every image has log2(levels) bits per value, whatever it shows, and no noise is left; `ramp`."""
    findings = []
    for levels in (2, 17, 256):
        flow = cls(Probit(), Uniform(), (2, 2, 1), GlowConfig(levels=levels))
        images = np.linspace(0, 1, levels).repeat(4).reshape(-1, 2, 2, 1).astype(np.float32)
        with no_grad():
            bound = array(flow.elbo(flow.preprocess(images, Generator(0)), Generator(1))[0])
        bits = -np.asarray(bound, np.float64) / 4 / math.log(2)
        suspects = (
            (math.log2(levels - 1) if levels > 2 else -1.0, f"levels are scaled by {levels - 1}, where there are {levels}"),
            (0.0, "the volume of a cell, log2(levels) for each value, is left out"),
            (-math.log2(levels), "the volume of a cell has the wrong sign"),
        )
        findings.append(Finding(f"bits per value at {levels} levels", float(bits.mean()), math.log2(levels), 1e-5, suspects))
        findings.append(Finding(f"largest difference between images at {levels} levels", float(np.ptp(bits)), 0, 1e-5))
    return [*findings, *ramp(cls)]


# ---- the rows of the table


TRUTHS = (
    Truth(
        "flow-density",
        "the density is a density, the log-determinant that of the Jacobian, and samples follow it",
        "Papamakarios et al. 2021, arXiv 1912.02762, eq. 5",
        ("encode", "log_prob", "sample", "example"),
        flow_density,
        mistakes="a log-determinant, an inverse that is none, or another base in the sampler than in the density",
    ),
    Truth(
        "entropy-floor",
        "no density has a cross-entropy with the data below their entropy, also when it is trained to",
        "Gibbs' inequality: E[-log p] = H(data) + KL(data ‖ p)",
        ("log_prob", "train_step", "optimizers", "example"),
        entropy_floor,
        mistakes="log p is that of no normalised density: a constant, a log-determinant or log Z is missing",
    ),
    Truth(
        "gaussian-mle",
        "a linear flow's best likelihood is that of the Gaussian with the data's covariance",
        "the maximum-likelihood fit: ½ log det(2πe S)",
        ("log_prob", "loss", "encode"),
        linear_flow,
        made_of=("bijection", "data_shape", "config"),
        mistakes="below it, a term of the density is missing; above it, the training does not reach all parameters",
    ),
    Truth(
        "actnorm",
        "the first batch leaves with mean 0 and variance 1, and log |det| counts every position",
        "Kingma & Dhariwal 2018, arXiv 1807.03039, sec. 3.1",
        ("forward", "inverse"),
        actnorm,
        made_of=("channels",),
        mistakes="the axes of the mean, a standard deviation for its logarithm, or a start at every batch",
    ),
    Truth(
        "iaf-maf",
        "a map turned round has the old one's outputs for inputs, and minus its log-determinant there",
        "Kingma et al. 2016, arXiv 1606.04934; Papamakarios et al. 2017, arXiv 1705.07057, sec. 3.4",
        ("forward", "inverse"),
        turned_round,
        made_of=("bijection",),
        mistakes="the log-determinant taken at the wrong end, or its sign",
    ),
    Truth(
        "dequantise",
        "a uniform density gives log2(levels) bits per value, whatever the image, and a ramp shows where levels are looked up",
        "Theis et al. 2016, arXiv 1511.01844, sec. 3.1",
        ("elbo", "preprocess", "sample"),
        dequantise,
        made_of=("bijection", "dequantiser", "data_shape", "config"),
        mistakes="255 for 256 levels, the Jacobian of the scale, or another range in training than in evaluation",
    ),
)
