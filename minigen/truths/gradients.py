"""Two estimators of the gradient of an expectation with respect to the distribution's parameters. Start at `reparameterised`.

Both are unbiased for the gradient of E[f(z)], z ~ N(mu, sigma²). Truth pathwise: for f = z² they average to (2 mu, 2 sigma).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..autograd import Tensor, grad, ops

Function = Callable[[Tensor], Tensor]  # (n,) -> (n,)


def reparameterised(f: Function, mu: float, sigma: float, eps: np.ndarray) -> np.ndarray:
    """d f(mu + sigma eps) / d(mu, sigma), for each eps ~ N(0, 1): through the sample   (Kingma & Welling 2014, sec. 2.4).

    eps: (n,) -> (n, 2). Needs a differentiable f; that is the price of its small variance.
    """
    m, s = _each(mu, eps), _each(sigma, eps)
    return _columns(grad(f(m + s * eps).sum(), [m, s]))


def score_function(f: Function, mu: float, sigma: float, eps: np.ndarray) -> np.ndarray:
    """f(z) d log N(z; mu, sigma²) / d(mu, sigma), z = mu + sigma eps held fixed: REINFORCE   (Williams 1992, eq. 4).

    eps: (n,) -> (n, 2). Needs no derivative of f.
    """
    m, s = _each(mu, eps), _each(sigma, eps)
    z = Tensor(mu + sigma * eps)
    log_q = -0.5 * ops.square((z - m) / s) - ops.log(s)
    return _columns(grad((f(z) * log_q).sum(), [m, s]))


def _each(value: float, eps: np.ndarray) -> Tensor:
    """A parameter of its own for every sample, so that a gradient is one for each sample."""
    return Tensor(np.full(eps.shape, value, eps.dtype), requires_grad=True)


def _columns(gradients: list[Tensor]) -> np.ndarray:
    return np.stack([g.data for g in gradients], axis=-1)
