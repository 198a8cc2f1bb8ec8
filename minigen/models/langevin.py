"""Langevin dynamics: samples of exp(-E(x)/T)/Z from the gradient of E alone. Start at `ula`.

    x ← x - η ∇E(x) + √(2 η T) n,     n ~ N(0, I)                    (Roberts & Tweedie 1996, sec. 1.4; Welling & Teh 2011)

The noise belongs to the step size η. Whoever chooses the two apart has chosen the temperature T = noise²/(2 η): at T = 1 the
chain samples p(x) = exp(-E(x))/Z, far below it is gradient descent with a little noise (`temperature` tells).

    ula        the plain step, unadjusted: right up to a bias of order η
    mala       with a Metropolis test after each step: no bias
    igebm      thirty steps of clipped descent, as in much code that is called Langevin: T is about 10^-6
    annealed   from the score at falling levels of noise   (Song & Ermon 2019, https://arxiv.org/abs/1907.05600, alg. 1)

E is low where x is likely. An energy is a function of a Tensor (N, ...) -> Tensor (N,) nats, a score one of arrays (N, ...) ->
(N, ...). Chains are raw arrays, and each step has a graph of its own, which is gone when the step is done.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..autograd import Tensor, enable_grad, grad
from ..autograd.kernels.optim import langevin_step
from ..random import Generator
from .model import gathered

Energy = Callable[[Tensor], Tensor]
Score = Callable[[np.ndarray, float], np.ndarray]


def temperature(noise: float, step: float) -> float:
    """T of a step x - step ∇E + noise n."""
    return noise**2 / (2 * step)


def ula(energy: Energy, x: np.ndarray, steps: int, step: float, rng: Generator, temperature: float = 1.0) -> np.ndarray:
    """Unadjusted Langevin:  x ← x - η ∇E + √(2 η T) n.     x: (N, ...) starts -> (N, ...)

    For E = λx²/2 and T = 1 the variance becomes 1/(λ(1 - ηλ/2)), and not 1/λ; a step η above 2/λ diverges.     truth: ula
    """
    for _ in range(steps):
        g = energy_and_gradient(energy, x)[1]
        x = langevin_step(x, g, rng.normal(x.shape, dtype=x.dtype), step, temperature)
    return x


def mala(
    energy: Energy, x: np.ndarray, steps: int, step: float, rng: Generator, temperature: float = 1.0
) -> tuple[np.ndarray, float]:
    """The Metropolis-adjusted step. Returns the chains, and the share of proposals that was accepted.

    A proposal y ~ q(y|x), one step of `ula`, is taken with probability min(1, a)                (Roberts & Tweedie 1996, eq. 3)

        log a = (E(x) - E(y))/T + log q(x|y) - log q(y|x),     log q(y|x) = -|y - x + η ∇E(x)|²/(4 η T)

    The stationary distribution is exact for any η. Efficient where 0.5 to 0.6 are accepted.                truth: ula
    """
    shares = []  # of proposals that were accepted in each step
    e, g = energy_and_gradient(energy, x)
    for _ in range(steps):
        y = langevin_step(x, g, rng.normal(x.shape, dtype=x.dtype), step, temperature)
        e_y, g_y = energy_and_gradient(energy, y)
        forth, back = _squares(y - x + step * g), _squares(x - y + step * g_y)  # (N,)
        log_a = (e.astype(np.float64) - e_y) / temperature + (forth - back) / (4 * step * temperature)
        take = np.log(1 - rng.uniform((len(x),), dtype=np.float64)) < log_a  # false for a NaN: it is never gone to
        x, g = (np.where(take.reshape(-1, *[1] * (x.ndim - 1)), new, old) for new, old in ((y, x), (g_y, g)))
        e = np.where(take, e_y, e)
        shares.append(take.mean())
    known = gathered(shares).tolist()  # read at the end: a GPU is waited for once
    return x, sum(share / steps for share in known)


IGEBM_STEP, IGEBM_NOISE, IGEBM_CLIP = 10.0, 0.005, 0.03


def igebm(energy: Energy, x: np.ndarray, steps: int, rng: Generator) -> np.ndarray:
    """x ← clamp(x + 0.005 n),  x ← clamp(x - 10 clip(∇E, ±0.03)),  both to [-1, 1]    (as Du & Mordatch 2019, arXiv 1903.08689)

    At T = 0.005²/(2 · 10) = 1.25e-6 this finds minima of E; it does not sample exp(-E), and E is then no log-density.
    """
    for _ in range(steps):
        x = np.clip(x + x.dtype.type(IGEBM_NOISE) * rng.normal(x.shape, dtype=x.dtype), -1, 1)
        g = energy_and_gradient(energy, x)[1]
        x = np.clip(x - x.dtype.type(IGEBM_STEP) * np.clip(g, -IGEBM_CLIP, IGEBM_CLIP), -1, 1)
    return x


def annealed(score: Score, x: np.ndarray, sigmas: np.ndarray, steps: int, epsilon: float, rng: Generator) -> np.ndarray:
    """Annealed Langevin: `steps` steps at each noise level σ_1 > ... > σ_L      (Song & Ermon 2019, alg. 1)

        x ← x + α_i/2 s(x, σ_i) + √α_i n,     α_i = ε σ_i²/σ_L²

    Each level is at temperature 1, with steps in proportion to its width. At the first levels chains cross freely between
    modes, so the modes get their weights, which plain Langevin never sees.                         truth: ncsn-weights
    """
    for sigma in sigmas:
        alpha = epsilon * float(sigma / sigmas[-1]) ** 2
        for _ in range(steps):
            noise = rng.normal(x.shape, dtype=x.dtype)
            x = langevin_step(x, -score(x, float(sigma)), noise, alpha / 2, 1.0)
    return x


def energy_and_gradient(energy: Energy, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E(x), and ∇E(x).     (N, ...) -> (N,), (N, ...)     The parameters get no gradient."""
    with enable_grad():
        at = Tensor(x, requires_grad=True)
        e = energy(at)
        return e.data, grad(e, at, np.ones_like(e.data)).data


def _squares(x: np.ndarray) -> np.ndarray:
    """|x|² of each sample.     (N, ...) -> (N,) float64"""
    return np.square(x, dtype=np.float64).reshape(len(x), -1).sum(axis=1)
