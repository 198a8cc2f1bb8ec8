"""Truths of energies, of the chains that sample them, and of scores. Start at `ula_variance`.

What a chain, a partition function or a gradient must be, in closed form or by going through all states one by one, in float64.
Nothing here uses a model's own way of computing it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np


def ula_variance(curvature: float, step: float) -> float:
    """Truth ula: the variance in which x ← x - η λ x + √(2η) n ends, for E = λx²/2:  1/(λ (1 - η λ/2)), where 1/λ is right.

    From Var = (1 - ηλ)² Var + 2η. A Metropolis test removes the difference.     Raises ValueError for a step that diverges.
    """
    if not 0 < step * curvature < 2:
        raise ValueError(f"a step of {step:g} at a curvature of {curvature:g} does not settle: stay below {2 / curvature:g}")
    return 1 / (curvature * (1 - step * curvature / 2))


@dataclass(frozen=True)
class EnumeratedRBM:
    """An RBM p(v, h) = exp(b·v + c·h + v W h)/Z whose states are all listed.   Truths rbm-z and rbm-gradient

    weight: (D, K), visible_bias: (D,), hidden_bias: (K,), with D + K up to about 16.
    """

    weight: np.ndarray
    visible_bias: np.ndarray
    hidden_bias: np.ndarray

    @property
    def visible(self) -> np.ndarray:
        """All states of the visible units.     -> (2^D, D)"""
        return _states(len(self.visible_bias))

    def log_joint(self) -> np.ndarray:
        """-E(v, h) of every pair of states.     -> (2^D, 2^K) nats"""
        v, h = self.visible, _states(len(self.hidden_bias))
        return (v @ self.visible_bias)[:, None] + h @ self.hidden_bias + v @ self.weight @ h.T

    def log_z(self) -> float:
        """log Σ_v Σ_h exp(-E(v, h))"""
        return float(np.logaddexp.reduce(self.log_joint(), axis=None))

    def log_p(self) -> np.ndarray:
        """log p(v) of every visible state.     -> (2^D,)"""
        return np.logaddexp.reduce(self.log_joint(), axis=1) - self.log_z()

    def gradient(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """∂/∂(W, b, c) of the mean log p(v) over data (N, D):  E_data[...] - E_p[...] of (v hᵀ, v, h), h ~ p(h|v).

        By the joint distribution p(v, h) itself, without any formula for p(h|v) or for the free energy.
        """
        v, h = self.visible, _states(len(self.hidden_bias))
        joint = np.exp(self.log_joint() - self.log_z())  # (2^D, 2^K)
        index = (data.astype(int) * 2 ** np.arange(data.shape[1])[::-1]).sum(axis=1)  # the row of each of the data in v
        seen = np.bincount(index, minlength=len(v)) / len(data)  # (2^D,)
        difference = joint * (seen / joint.sum(axis=1) - 1)[:, None]  # of the two joint distributions
        return v.T @ difference @ h, difference.sum(axis=1) @ v, difference.sum(axis=0) @ h


@dataclass(frozen=True)
class TwoModes:
    """Truth ncsn-weights: 0.8 N((5, 5), I) + 0.2 N((-5, -5), I)   (Song & Ermon 2019, sec. 3.2.2 and fig. 3).

    Plain Langevin dynamics from a uniform start ends with about half of the points at each; annealed keeps the weights.
    """

    weight: float = 0.8
    centre: float = 5.0

    def score(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """∇ log p_σ(x) of the mixture with noise σ added: two Gaussians of variance 1 + σ².     (N, 2) -> (N, 2)"""
        variance = 1 + sigma**2
        logit = math.log(self.weight / (1 - self.weight)) + 2 * self.centre * x.sum(axis=1) / variance  # of the first mode
        share = 0.5 * (1 + np.tanh(logit / 2))[:, None]
        return (((2 * share - 1) * self.centre - x) / variance).astype(x.dtype)

    def share(self, x: np.ndarray) -> float:
        """How many of the points lie on the side of the first mode."""
        return float((x.sum(axis=1) > 0).mean())


def _states(n: int) -> np.ndarray:
    """All states of n binary units, in the order of the numbers that they spell.     -> (2^n, n)"""
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))
