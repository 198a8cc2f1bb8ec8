"""Cards of ops/loss.py. Reductions to a mean are drawn only where there is something to average."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special, stats

from ..ops import loss as ops
from .card import Draw, Kink, OpCard

Sample = tuple[tuple, dict]


def _reduction(draw: Draw, size: int) -> str:
    return draw.choice(["none", "sum", "mean"] if size else ["none", "sum"])


def _reduced(losses: np.ndarray, reduction: str) -> np.ndarray:
    return losses if reduction == "none" else getattr(np, reduction)(losses)


def _pair(draw: Draw, difference: Callable[[tuple[int, ...]], np.ndarray]) -> Sample:
    input = draw.floats(draw.shape())
    return (input, np.asarray(input + difference(input.shape))), {"reduction": _reduction(draw, input.size)}


OpCard(
    "mse_loss",
    ops.mse_loss,
    lambda draw: _pair(draw, draw.floats),
    wrt=(0, 1),
    reference=lambda x, y, reduction: _reduced((x - y) ** 2, reduction),
)
OpCard(
    "l1_loss",
    ops.l1_loss,
    lambda draw: _pair(draw, lambda shape: draw.floats(shape, away_from=(0.0,))),
    wrt=(0, 1),
    reference=lambda x, y, reduction: _reduced(np.abs(x - y), reduction),
    analytic=False,
    kinks=[
        Kink(
            (np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0])),
            {"reduction": "none"},
            np.full(3, 2.0),
            (np.array([0.0, -2.0, 2.0]), np.array([0.0, 2.0, -2.0])),
        )
    ],
)


# ---- classes


def _logits(draw: Draw) -> np.ndarray:
    return draw.floats((*draw.shape(max_dims=2), draw.integer(1, 4)), -3.0, 3.0)


def _classes(draw: Draw, x: np.ndarray) -> np.ndarray:
    return draw.rng().integers(0, x.shape[-1], x.shape[:-1])


def _cross_entropy(draw: Draw) -> Sample:
    x = _logits(draw)
    probabilities = np.exp(draw.floats(x.shape))
    target = _classes(draw, x) if draw.boolean() else probabilities / probabilities.sum(-1, keepdims=True)
    smoothing = draw.choice([0.0, 0.0, 0.2, 1.0])
    return (x, target), {"reduction": _reduction(draw, x[..., 0].size), "label_smoothing": smoothing}


def _cross_entropy_reference(x: np.ndarray, target: np.ndarray, reduction: str, label_smoothing: float) -> np.ndarray:
    classes = x.shape[-1]
    wanted = np.eye(classes)[target] if target.dtype.kind == "i" else target
    wanted = (1 - label_smoothing) * wanted + label_smoothing / classes
    log_p = special.log_softmax(x, axis=-1) if x.size else x
    return _reduced(-(wanted * log_p).sum(-1), reduction)


def _nll(draw: Draw) -> Sample:
    x = _logits(draw)
    return (x, _classes(draw, x)), {"reduction": _reduction(draw, x[..., 0].size)}


OpCard(
    "cross_entropy",
    ops.cross_entropy,
    _cross_entropy,
    wrt=(0,),
    reference=_cross_entropy_reference,
    note="The gradient by probabilities as targets is that of log_softmax and multiply; tests/ops/test_loss.py checks it.",
)
OpCard(
    "nll_loss",
    ops.nll_loss,
    _nll,
    wrt=(0,),
    reference=lambda x, target, reduction: _reduced(-np.take_along_axis(x, target[..., None], -1)[..., 0], reduction),
    linear=(0,),
)


# ---- Bernoulli and normal variables


def _bernoulli(draw: Draw) -> Sample:
    x = draw.floats(draw.shape(), -4.0, 4.0, away_from=(0.0,))
    return (x, draw.floats(x.shape, 0.05, 0.95)), {"reduction": _reduction(draw, x.size)}


def _gaussian(draw: Draw) -> Sample:
    input = draw.floats(draw.shape())
    shape = (*input.shape[:-1], 1) if input.ndim and draw.boolean() else input.shape
    kwargs = {"full": draw.boolean(), "eps": 0.1, "reduction": _reduction(draw, input.size)}
    return (input, draw.floats(input.shape), draw.floats(shape, 0.3, 2.0)), kwargs


def _gaussian_reference(input, target, var, full, eps, reduction):
    losses = -stats.norm.logpdf(target, input, np.sqrt(var)) - (0 if full else 0.5 * np.log(2 * np.pi))
    return _reduced(losses, reduction)


def _normals(draw: Draw) -> Sample:
    shape = draw.shape()
    return tuple(draw.floats(shape) for _ in range(4)), {"reduction": _reduction(draw, int(np.prod(shape)))}


def _kl_reference(mu, logvar, prior_mu, prior_logvar, reduction):
    ratio = np.exp(logvar - prior_logvar)
    return _reduced(0.5 * ((mu - prior_mu) ** 2 / np.exp(prior_logvar) + ratio - 1 - np.log(ratio)), reduction)


OpCard(
    "binary_cross_entropy_with_logits",
    ops.binary_cross_entropy_with_logits,
    _bernoulli,
    wrt=(0, 1),
    reference=lambda x, y, reduction: _reduced(-y * special.log_expit(x) - (1 - y) * special.log_expit(-x), reduction),
)
OpCard(
    "gaussian_nll_loss",
    ops.gaussian_nll_loss,
    _gaussian,
    wrt=(0, 1, 2),
    reference=_gaussian_reference,
    kinks=[  # below eps the gradient by var is that at eps
        Kink(
            (np.array([1.0]), np.array([1.0]), np.array([0.0])),
            {"eps": 0.25, "reduction": "sum"},
            1.0,
            (np.array([0.0]), np.array([0.0]), np.array([2.0])),
        )
    ],
)
OpCard("kl_normal", ops.kl_normal, _normals, wrt=(0, 1, 2, 3), reference=_kl_reference)
