"""Losses. Start at `cross_entropy`.

Every loss refuses arrays of unequal shapes: broadcast silently, (N, 1) against (N,) would compare every sample with every
other one. `reduction` is "mean" (over all losses), "sum" or "none". Logarithms are natural: losses are in nats.
"""

from __future__ import annotations

import math

import numpy as np

from ..kernels import loss as kernels
from ..tape import Array, op
from .activation import softplus
from .elementwise import abs, chain, exp, expm1, log, square, where
from .indexing import _check_range, _integers, take_along_axis
from .normalisation import floats, log_softmax
from .reduction import mean, sum
from .shape import expand_dims, squeeze


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """(input - target)².      input, target: of one shape, else ValueError."""
    _check_shapes("mse_loss", input=input, target=target)
    return _reduce("mse_loss", square(input - target), reduction)


def l1_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """|input - target|, whose gradient is 0 where they are equal.      input, target: of one shape, else ValueError."""
    _check_shapes("l1_loss", input=input, target=target)
    return _reduce("l1_loss", abs(input - target), reduction)


# ---- classes


def cross_entropy(input: Array, target: Array, reduction: str = "mean", label_smoothing: float = 0.0) -> Array:
    """-log softmax(input)_target along the last axis, where the classes are.

    input: logits (..., C).
    target: integers (...), the classes 0 … C - 1; or probabilities (..., C), for  -Σ_c target_c log softmax(input)_c.
    label_smoothing: s in [0, 1]: the target becomes (1 - s) target + s / C (Szegedy et al. 2016).

    Returns (...) for reduction="none". An infinite logit gives the limit: a class that is impossible (-∞) and has no weight
    costs nothing, one that is certain (+∞) and right neither. Raises ValueError if the shapes do not fit, IndexError for a
    class outside the range. Unlike PyTorch's, the last axis and not the second one holds the classes.
    """
    _check_arrays("cross_entropy", input=input, target=target)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing={label_smoothing} is not in [0, 1]")
    if np.dtype(target.dtype).kind in "fc":
        _check_shapes("cross_entropy", input=input, target=target)
        log_p = log_softmax(input)
        if label_smoothing:
            target = target * (1 - label_smoothing) + label_smoothing / input.shape[-1]
        impossible = (target == 0) & (log_p == -math.inf)
        return _reduce("cross_entropy", -sum(target * where(impossible, 0.0, log_p), -1), reduction)
    _check_classes("cross_entropy", input, target)
    return _reduce("cross_entropy", _cross_entropy(input, target, label_smoothing=label_smoothing), reduction)


def cross_entropy_spec(input: Array, target: Array, label_smoothing: float) -> Array:
    """What `cross_entropy` computes for classes, without reduction."""
    log_p = log_softmax(input)
    chosen = squeeze(take_along_axis(log_p, expand_dims(target, -1), -1), -1)
    return -(1 - label_smoothing) * chosen - label_smoothing * mean(log_p, -1) if label_smoothing else -chosen


@op(spec=cross_entropy_spec, aux=("highest", "inverse"))
def _cross_entropy(input: Array, target: Array, label_smoothing: float) -> tuple:
    (input,) = floats(input)
    classes = _integers(target)
    _check_range("cross_entropy", classes, input.shape[-1], "classes")
    loss, highest, inverse = kernels.cross_entropy(*_rows(input, classes), label_smoothing)
    return loss.reshape(classes.shape), (highest, inverse)


def _cross_entropy_vjp(g, input, target, highest, inverse, label_smoothing):
    g, input, highest, inverse = floats(g, input, highest, inverse)
    rows, classes = _rows(input, _integers(target))
    gx = kernels.cross_entropy_vjp(g.reshape(-1), rows, classes, highest, inverse, label_smoothing)
    return gx.reshape(input.shape)


_cross_entropy.vjp(input=_cross_entropy_vjp)


def nll_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """-input_target: the negative log-likelihood of classes.

    input: log-probabilities (..., C), from `log_softmax` for instance.      target: integers (...) in 0 … C - 1.
    Raises ValueError if the shapes do not fit, IndexError for a class outside the range.
    """
    _check_classes("nll_loss", input, target)
    _check_range("nll_loss", _integers(_raw(target)), input.shape[-1], "classes")
    return _reduce("nll_loss", -squeeze(take_along_axis(input, expand_dims(target, -1), -1), -1), reduction)


# ---- Bernoulli and normal variables


def binary_cross_entropy_with_logits(input: Array, target: Array, reduction: str = "mean") -> Array:
    """-target log σ(input) - (1 - target) log σ(-input): the negative log-likelihood of a Bernoulli variable.

    input: logits.      target: probabilities in [0, 1] of the same shape, else ValueError; a gradient flows to it too.
    An infinite logit gives the limit, which is 0 where the target agrees with it.
    """
    _check_shapes("binary_cross_entropy_with_logits", input=input, target=target)
    return _reduce("binary_cross_entropy_with_logits", _binary_cross_entropy_with_logits(input, target), reduction)


def bce_spec(input: Array, target: Array) -> Array:
    """What `binary_cross_entropy_with_logits` computes, without reduction."""
    return softplus(input) - input * target


@op(spec=bce_spec)
def _binary_cross_entropy_with_logits(input: Array, target: Array) -> Array:
    input, target = floats(input, target)
    return kernels.bce_with_logits(input, target)


_binary_cross_entropy_with_logits.vjp(
    input=lambda g, input, target: kernels.bce_with_logits_vjp(*floats(g, input, target)),
    target=lambda g, input: chain(g, -input),  # no cotangent, no gradient: not 0 times an infinite logit
)


def gaussian_nll_loss(
    input: Array, target: Array, var: Array, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Array:
    """½ (log var + (input - target)² / var): the negative log-likelihood of a normal variable, apart from ½ log 2π.

    input: means.      target: like input.      var: variances, like input, or with a last axis of size 1.
    full: add the constant ½ log 2π.
    eps: variances below it count as eps. As in PyTorch, the gradient does not know: it is that of the formula at eps, so
        that a variance that has become too small can grow again.
    Raises ValueError if the shapes do not fit, or for a negative variance.
    """
    _check_shapes("gaussian_nll_loss", input=input, target=target)
    if tuple(var.shape) not in (tuple(input.shape), (*input.shape[:-1], 1)):
        raise ValueError(f"gaussian_nll_loss: var {tuple(var.shape)} must be like input {tuple(input.shape)}, or end in 1")
    value = _raw(var)
    if (value.real < 0).any():
        raise ValueError(f"gaussian_nll_loss: var has negative entries, down to {value.real.min()}; pass exp(logvar), say")
    var = var + np.maximum(eps - value.real, 0).astype(value.dtype)
    loss = 0.5 * (log(var) + square(input - target) / var)
    return _reduce("gaussian_nll_loss", loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def kl_normal(
    mu: Array,
    logvar: Array,
    prior_mu: Array | None = None,
    prior_logvar: Array | None = None,
    reduction: str = "none",
) -> Array:
    """KL(N(mu, e^logvar) | N(prior_mu, e^prior_logvar)) of each element, in nats (Kingma & Welling 2014, appendix B).

        ½ ((mu - prior_mu)² e^-prior_logvar + e^d - 1 - d),   d = logvar - prior_logvar

    All of one shape, else ValueError; None for a prior of mean 0 and log-variance 0. For the divergence of two diagonal
    Gaussians sum over their dimensions. That is why nothing is reduced here unless asked for: a mean over dimensions is
    not a divergence. Exact near 0; an infinite logvar gives the limit, +∞.
    """
    given = {"mu": mu, "logvar": logvar, "prior_mu": prior_mu, "prior_logvar": prior_logvar}
    _check_shapes("kl_normal", **{name: a for name, a in given.items() if a is not None})
    square_distance = square(mu if prior_mu is None else mu - prior_mu)
    if prior_logvar is not None:
        square_distance = square_distance * exp(-prior_logvar)
        logvar = logvar - prior_logvar
    return _reduce("kl_normal", 0.5 * (square_distance + _exp_minus_tangent(logvar)), reduction)


@op
def _exp_minus_tangent(x: Array) -> Array:
    """e^x - 1 - x, which is ∞ at both ends."""
    with np.errstate(invalid="ignore"):
        return np.where(x.real == math.inf, x, expm1(x) - x)


_exp_minus_tangent.vjp(x=lambda g, x: chain(g, expm1(x)))


# ---- what they share


def _reduce(name: str, losses: Array, reduction: str) -> Array:
    if reduction == "mean":
        return mean(losses)
    if reduction == "sum":
        return sum(losses)
    if reduction == "none":
        return losses
    raise ValueError(f"{name}: unknown reduction {reduction!r}: choose 'mean', 'sum' or 'none'")


def _check_arrays(name: str, **arrays: Array) -> None:
    for what, a in arrays.items():
        if not hasattr(a, "dtype"):
            raise TypeError(f"{name}: {what} is a {type(a).__name__}, and must be an array or a Tensor: np.asarray({what}) is")


def _check_shapes(name: str, **arrays: Array) -> None:
    """Raise ValueError unless all arrays have the same shape, TypeError unless they are arrays."""
    _check_arrays(name, **arrays)
    shapes = [tuple(a.shape) for a in arrays.values()]
    if any(s != shapes[0] for s in shapes):
        given = ", ".join(f"{what} {shape}" for what, shape in zip(arrays, shapes, strict=True))
        raise ValueError(f"{name}: {given}: shapes must be equal, losses do not broadcast; reshape one of them")


def _check_classes(name: str, input: Array, target: Array) -> None:
    """Raise unless input is (..., C) and target (...) of integers."""
    _check_arrays(name, input=input, target=target)
    if np.dtype(target.dtype).kind not in "iu":
        raise TypeError(f"{name}: target must hold classes, integers, not {target.dtype}")
    if input.ndim == 0 or tuple(target.shape) != tuple(input.shape[:-1]):
        raise ValueError(
            f"{name}: input {tuple(input.shape)}, target {tuple(target.shape)}: for logits (..., C) classes must be (...)"
        )


def _rows(input: Array, classes: Array) -> tuple[np.ndarray, np.ndarray]:
    """Logits (rows, C) and classes (rows,)."""
    return input.reshape(classes.size, input.shape[-1]), classes.reshape(classes.size)


def _raw(x: Array) -> np.ndarray:
    """The plain array of a Tensor."""
    return x.data if hasattr(x, "node") else x
