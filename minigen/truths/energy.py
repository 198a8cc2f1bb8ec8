"""Truths of energies, of the chains that sample them, and of scores. Start at `ula_variance`.

What a chain, a partition function or a gradient must be, in closed form or by going through all states one by one, in float64.
The closed forms use nothing of a model. At the end are the checks of a class that rest on them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor, grad, ops
from ..models.ebm import EBM2dConfig
from ..models.ncsn import NCSN2dConfig
from ..models.rbm import RBMConfig
from ..random import Generator
from .ddpm import Signs
from .truth import Finding, Truth, array


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


# ---- checks of a class


def ula(cls: Any, curvature: float = 2.0, step: float = 0.15, chains: int = 20_000) -> list[Finding]:
    """On E = λx²/2 unadjusted Langevin chains end in the variance 1/(λ(1 - ηλ/2)), and a Metropolis test makes it 1/λ.

    The energy of the model is that of its network, f = (λ - 1) x²/2, and of its reference, x²/2.
    """
    network = lambda x: 0.5 * (curvature - 1) * ops.square(x).sum(axis=1)
    right = ula_variance(curvature, step)
    suspects = {
        "langevin": (
            (right / 2, "the noise is √η where it must be √(2η): temperature ½"),
            (2 * right, "the noise is too large by √2: temperature 2"),
            (ula_variance(curvature, step / 2), "the gradient is multiplied by η/2 and the noise by √η: that is half the step"),
            (0.0, "no noise is added: this is gradient descent"),
        ),
        "mala": ((right, "every proposal is accepted"),),
    }
    findings = []
    for sampler, expected in (("langevin", right), ("mala", 1 / curvature)):
        config = EBM2dConfig(sampler=sampler, step=step, data_noise=0.0, reference="data")
        model, rng = cls(network, (1,), config).astype(np.float64), Generator(0)
        x = model.walk(rng.normal((chains, 1), dtype=np.float64), 25, rng)[0]
        error = 4 * expected * math.sqrt(2 / chains)
        findings.append(Finding(f"variance of {sampler} chains", float(np.var(x)), expected, error, suspects[sampler]))
    return findings


def rbm_z(cls: Any, d: int = 6, k: int = 5) -> list[Finding]:
    """log Z over visible states, hidden ones and pairs; log p of every state; the gradient of the free energies."""
    rng, findings = np.random.default_rng(0), []
    model = cls((2, 3, 1), RBMConfig(hidden=k, chains=8, batch_size=8), Generator(0)).astype(np.float64)
    for p in model.parameters():
        p.data[...] = rng.normal(size=p.shape)
    truth = EnumeratedRBM(model.weight.data, model.visible_bias.data, model.hidden_bias.data)
    for over in ("visible", "hidden"):
        findings.append(Finding(f"log Z over {over} states, nats", float(model.log_partition(over)), truth.log_z(), 1e-9))
    v = truth.visible.reshape(-1, 2, 3, 1)
    findings.append(Finding("largest error of log p, nats", float(np.abs(model.log_prob(v) - truth.log_p()).max()), 0, 1e-9))
    inputs, v_b = truth.visible @ truth.weight + truth.hidden_bias, truth.visible @ truth.visible_bias  # (2^D, K), (2^D,)
    free = -np.logaddexp.reduce(truth.log_joint(), axis=1)  # (2^D,), by the sum over hidden states
    suspects = (
        (-float(free.mean()), "the energy has the wrong sign: low must be likely"),
        (float((free + v_b).mean()), "the visible bias is left out of F"),
        (float((free - v_b).mean()), "the visible bias counts twice in F"),
        (float((free + 2 * v_b).mean()), "the visible bias has the wrong sign in F"),
        (float((-2 * v_b - free).mean()), "the softplus has the wrong sign in F"),
        (float((-v_b - np.logaddexp(0, inputs - truth.hidden_bias).sum(axis=1)).mean()), "the hidden bias is left out of F"),
        (float((-v_b - inputs.sum(axis=1)).mean()), "the hidden units enter F without their softplus"),
    )
    energies = float(np.mean(array(model.energy(v))))
    findings.append(Finding("mean of F(v) over all states, nats", energies, float(free.mean()), 1e-9, suspects))
    data, p = truth.visible[rng.integers(0, 2**d, 10)], np.exp(truth.log_p())
    loss = model.energy(data).mean() - (model.energy(truth.visible) * Tensor(p)).sum()
    error = max(
        float(np.abs(own.data + exact).max())
        for own, exact in zip(grad(loss, model.parameters()), truth.gradient(data), strict=True)
    )
    findings.append(Finding("largest error of the gradient of F(data) - F(model)", error, 0, 1e-9))
    return findings


def denoising_score(cls: Any) -> list[Finding]:
    """Of data N(0, s²) the best network's loss is mean_σ ½ s²/(s² + σ²), and its score -x/(s² + σ²)."""
    s2, sigmas = 0.49, np.geomspace(2.0, 0.1, 5)

    def network(x: Any, u: np.ndarray, y: Any = None) -> Tensor:
        sigma = sigmas[np.rint(u * (len(sigmas) - 1)).astype(int)][:, None]
        return Tensor(-sigma * (x.data * np.sqrt(1 + sigma**2)) / (s2 + sigma**2))  # it sees x/√(1 + σ²), and says σ s(x)

    model = cls(network, (1,), NCSN2dConfig(sigma_max=2.0, sigma_min=0.1, noises=5))
    data = math.sqrt(s2) * np.resize([1.0, -1.0], 4 * len(sigmas)).reshape(-1, 1)
    loss = model.loss(data, Signs()).total.item()  # at each level once for each of the signs of data and noise: exact
    least = float((0.5 * s2 / (s2 + sigmas**2)).mean())
    x = np.linspace(-1, 1, 5)[:, None]
    error = max(float(np.abs(model.score(x, sigma) + x / (s2 + sigma**2)).max()) for sigma in sigmas)
    share = s2 / (s2 + sigmas**2)  # what of a level's ½ E n² is left
    suspects = (
        (2 * least, "the factor ½ is left out"),
        (0.5 * float((share / sigmas**2).mean()), "the levels have no weight σ²"),
        (0.5 * float((share / sigmas).mean()), "the levels have a weight of σ, where it must be σ²"),
        (0.5 * float((share * sigmas**2).mean()), "the levels have a weight of σ⁴, where it must be σ²"),
        (0.5 * float((4 - 3 * share).mean()), "the target has the wrong sign: it is -n/σ, for x̃ = x + σ n"),
        (0.5 * float((share * len(sigmas)).mean()), "the levels are summed, where they must be averaged"),
    )
    return [
        Finding("loss of the best network", float(loss), least, 1e-6, suspects),
        Finding("largest error of its score", error, 0, 1e-6),
    ]


# ---- the rows of the table


TRUTHS = (
    Truth(
        "ula",
        "chains on a quadratic energy end in a known variance, and with a Metropolis test in the right one",
        "Roberts & Tweedie 1996; Var = (1 - ηλ)² Var + 2η",
        ("energy", "walk"),
        ula,
        made_of=("network", "data_shape", "config"),
        mistakes="the ½ of the step, √(2η), the sign of the gradient, the temperature, or a missing test of acceptance",
    ),
    Truth(
        "denoising-score",
        "of Gaussian data the best network's loss and score are known at every level of noise",
        "Song & Ermon 2019, arXiv 1907.05600, eqs. 5-6",
        ("loss", "score", "sample"),
        denoising_score,
        made_of=("network", "data_shape", "config"),
        mistakes="the weight σ² of a level, the noise for the score, or their sign",
        without=("energy", "denoise"),
    ),
    Truth(
        "rbm-z",
        "log Z by enumerating visible states is that by enumerating hidden ones, and so are log p and its gradient",
        "Hinton 2012, A practical guide to training restricted Boltzmann machines",
        ("energy", "log_partition", "gibbs"),
        rbm_z,
        made_of=("data_shape", "config"),
        mistakes="the free energy: a softplus for each hidden unit, and the visible bias outside of it",
    ),
)
