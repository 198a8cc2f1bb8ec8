"""Restricted Boltzmann machine   (Smolensky 1986; Hinton 2012, "A practical guide", cited as H12; Salakhutdinov & Murray 2008,
"On the quantitative analysis of deep belief networks", cited as S&M).

Binary pixels v and binary hidden units h, with connections only between the two layers:

    p(v, h) = exp(-E(v, h))/Z,     E(v, h) = -b·v - c·h - v W h                                                  (H12 eqs. 1, 2)

Given one layer the units of the other are independent, so both can be drawn at once (`gibbs`), and h can be summed out:

    p(v) = exp(-F(v))/Z,     F(v) = -b·v - Σ_j log(1 + exp(c_j + (v W)_j))     the free energy               (H12 sec. 16.1)

Start at `RBM.energy`, which is F: low is likely; then `RBM.loss`. Z is a sum over 2^min(D, K) states: `log_partition` takes it
where that is possible, and `AnnealedRBM` is the path along which annealed importance sampling estimates it (evaluation/ais.py).

v: (N, D) with D pixels,     h: (N, K),     W: (D, K).     Log-probabilities are in nats per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..autograd.backend import move
from ..nn import Known, init, parameter
from ..random import Generator
from .model import Loss, Model, ModelConfig, option, register

ENUMERABLE = 20  # units of the smaller layer up to which all its states are taken: a million
SLICE = 12  # of these units are enumerated at a time, to bound the memory


@dataclass(frozen=True)
class RBMConfig(ModelConfig):
    hidden: int = option(500, "hidden units", low=1)
    algorithm: str = option("pcd", "chains that persist, or that start at the data: pcd or cd", choices=("pcd", "cd"))
    gibbs_steps: int = option(1, "Gibbs steps in one training step", low=1)
    chains: int = option(100, "chains that persist", low=1)
    sampling_steps: int = option(1000, "further Gibbs steps before a sample", low=1)
    ema: float = option(0.99, "decay of the averaged parameters that are evaluated; 0 for none", low=0.0, high=0.999999)


class RBM(Model):
    """data_shape: (H, W, C) images, which are seen as D = H W C pixels that are black or white."""

    config: RBMConfig
    notes: ClassVar[dict[str, str]] = {"log_prob": f"for up to {ENUMERABLE} units in the smaller layer; else AIS estimates it"}

    def __init__(self, data_shape: tuple[int, ...], config: RBMConfig, rng: Generator):
        d, k = math.prod(data_shape), config.hidden
        self.data_shape, self.config = data_shape, config
        self.weight = parameter(init.normal((d, k), rng, std=0.01))  # W                                          (H12 sec. 8)
        self.visible_bias = parameter(np.zeros(d, np.float32))  # b
        self.hidden_bias = parameter(np.zeros(k, np.float32))  # c
        self.base = Tensor(np.zeros(d, np.float32))  # logits of the first batch's pixels: where b, chains and AIS begin
        self.chains = Tensor(np.zeros((config.chains, d), np.float32))  # buffers: a run resumes with its chains
        self.started = Tensor(np.zeros((), np.float32))
        self.has_started = Known(self.started)

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        """Grey values in [0, 1] are drawn black or white anew each time they are seen: dynamic binarisation."""
        return rng.bernoulli(x)

    # ---- the density

    def energy(self, x: np.ndarray | Tensor) -> Tensor:
        """The free energy F(v) = -b·v - Σ_j softplus(c_j + (v W)_j).     (N, *data_shape) or (N, D) -> (N,) nats"""
        v = (x if isinstance(x, Tensor) else Tensor(x)).reshape(len(x), -1)  # (N, D)
        return -(v * self.visible_bias).sum(axis=1) - ops.softplus(ops.linear(v, self.weight, self.hidden_bias)).sum(axis=1)

    def log_partition(self, over: str | None = None) -> float:
        """log Z, by enumerating all states of one layer, "visible" or "hidden"; None: the smaller one.    nats, in float64

            Z = Σ_v exp(b·v) Π_j (1 + exp(c_j + (v W)_j)) = Σ_h exp(c·h) Π_i (1 + exp(b_i + (W h)_i))          truth: rbm-z

        Raises ValueError for a layer of more than 20 units.
        """
        w, b, c = (move(t.data, "cpu").astype(np.float64) for t in (self.weight, self.visible_bias, self.hidden_bias))
        if over == "hidden" or (over is None and len(c) <= len(b)):
            w, b, c = w.T, c, b
        if len(b) > ENUMERABLE:
            raise ValueError(f"log Z: a layer of {len(b)} units has too many states; up to {ENUMERABLE} can be enumerated")
        low, high = _states(min(SLICE, len(b))), _states(max(0, len(b) - SLICE))  # (2^low, low), (2^high, high)
        parts = []
        for rest in high:
            v = np.concatenate([low, np.broadcast_to(rest, (len(low), len(rest)))], axis=1)
            parts.append(np.logaddexp.reduce(v @ b + np.logaddexp(0, v @ w + c).sum(axis=1)))
        return float(np.logaddexp.reduce(parts))

    def log_prob(self, x: np.ndarray, log_z: float | None = None) -> np.ndarray:
        """log p(v) = -F(v) - log Z.     x: black or white (N, *data_shape) -> (N,) nats     log_z: where it is known already"""
        log_z = self.log_partition() if log_z is None else log_z
        with no_grad():
            return -self.energy(x).data.astype(np.float64) - log_z

    def estimators(self, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
        """The exact value where Z can be enumerated; otherwise see `annealed`."""
        if min(self.weight.shape) > ENUMERABLE:
            return {}
        known: list[float] = []

        def exact(x: np.ndarray, rng: Generator) -> np.ndarray:
            if not known:
                known.append(self.log_partition())
            return self.log_prob(x, known[0])

        return {"exact, Z by enumeration": exact}

    def annealed(self) -> AnnealedRBM:
        """The path from independent pixels to this model, for annealed importance sampling."""
        return AnnealedRBM(*(t.data for t in (self.weight, self.visible_bias, self.hidden_bias, self.base)))

    # ---- training

    def loss(self, x: np.ndarray, rng: Generator) -> Loss:
        """F(data) - F(chains), averaged: its gradient estimates that of -log p   (H12 eq. 5), for

            ∇ E[-log p(v)] = E_data[∇F(v)] - E_p[∇F(v)]                                         proved by: truth rbm-gradient

        Chains move by `gibbs_steps`, from where they were (PCD: Tieleman 2008), or from the data (CD-k: Hinton 2002).
        """
        data = x.reshape(len(x), -1)  # (N, D)
        if not self.has_started():
            self._start(data, rng)
        chains = self.gibbs(self.chains.data if self.config.algorithm == "pcd" else data, self.config.gibbs_steps, rng)
        if self.config.algorithm == "pcd":
            self.chains.data[...] = chains
            self.chains.mark_written()
        e_data, e_chains = self.energy(data).mean(), self.energy(chains).mean()
        terms = {"gap": e_data - e_chains, "energy_data": e_data, "energy_chains": e_chains}
        return Loss(e_data - e_chains, terms)

    def gibbs(self, v: np.ndarray, steps: int, rng: Generator) -> np.ndarray:
        """h ~ p(h|v), v ~ p(v|h), so many times.     (N, D) -> (N, D)

        p(h_j = 1|v) = σ(c_j + (v W)_j),     p(v_i = 1|h) = σ(b_i + (W h)_i)                                     (H12 eqs. 7, 8)
        """
        for _ in range(steps):
            v = rng.bernoulli(self._visible(self._hidden(v, rng)))
        return v

    def _hidden(self, v: np.ndarray, rng: Generator) -> np.ndarray:
        """A draw of the hidden units.     (N, D) -> (N, K)"""
        return rng.bernoulli(ops.sigmoid(ops.matmul(v, self.weight.data) + self.hidden_bias.data))

    def _visible(self, h: np.ndarray) -> np.ndarray:
        """Probabilities of the pixels.     (N, K) -> (N, D)"""
        return ops.sigmoid(ops.matmul(h, self.weight.data.T) + self.visible_bias.data)

    def _start(self, data: np.ndarray, rng: Generator) -> None:
        """b becomes the logits of the pixels of the first batch   (H12 sec. 8.1), and chains start as independent pixels."""
        p = (data.sum(axis=0) + 1) / (len(data) + 2)  # (D,)
        self.base.data[...] = np.log(p) - np.log1p(-p)
        self.visible_bias.data[...] = self.base.data
        self.chains.data[...] = rng.bernoulli(p, self.chains.shape)
        self.started.data[...] = 1
        for tensor in (self.base, self.visible_bias, self.chains, self.started):
            tensor.mark_written()

    # ---- use

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n of the persistent chains (of independent pixels, for CD), `sampling_steps` further.     -> (n, *data_shape)

        Probabilities of the pixels given the last hidden units; drawing them would only add grain.
        """
        if self.config.algorithm == "pcd" and self.started.data:
            v = self.chains.data[rng.integers(0, len(self.chains), (n,))]
        else:
            v = rng.bernoulli(ops.sigmoid(self.base.data), (n, self.base.size))
        h = self._hidden(self.gibbs(v, self.config.sampling_steps - 1, rng), rng)
        return self._visible(h).reshape(n, *self.data_shape)


@dataclass(frozen=True)
class AnnealedRBM:
    """RBMs between independent pixels, at β = 0, and the one with these parameters, at β = 1:               (S&M eqs. 15 to 18)

        log f_β(v) = ((1 - β) a + β b)·v + Σ_j softplus(β (c_j + (v W)_j)),     a: (D,) logits of the independent pixels
    """

    weight: np.ndarray
    visible_bias: np.ndarray
    hidden_bias: np.ndarray
    base: np.ndarray

    @property
    def log_z0(self) -> float:
        """log Σ_v f_0(v) = Σ_i softplus(a_i) + K log 2"""
        return float(np.logaddexp(0.0, self.base.astype(np.float64)).sum() + len(self.hidden_bias) * math.log(2))

    def start(self, n: int, rng: Generator) -> np.ndarray:
        """Draws from f_0.     -> (n, D)"""
        return rng.bernoulli(ops.sigmoid(self.base), (n, len(self.base)))

    def log_f(self, v: np.ndarray, beta: float) -> np.ndarray:
        """(N, D) -> (N,) float64"""
        bias = (1 - beta) * self.base + beta * self.visible_bias
        inputs = ops.matmul(v, self.weight) + self.hidden_bias  # (N, K)
        return (v @ bias).astype(np.float64) + ops.softplus(np.float32(beta) * inputs).sum(axis=1, dtype=np.float64)

    def transition(self, v: np.ndarray, beta: float, rng: Generator) -> np.ndarray:
        """A Gibbs step that leaves f_β as it is.     (N, D) -> (N, D)"""
        h = rng.bernoulli(ops.sigmoid(np.float32(beta) * (ops.matmul(v, self.weight) + self.hidden_bias)))
        bias = (1 - beta) * self.base + beta * self.visible_bias
        return rng.bernoulli(ops.sigmoid(np.float32(beta) * ops.matmul(h, self.weight.T) + bias))


def _states(n: int) -> np.ndarray:
    """All states of n binary units.     -> (2^n, n) float64"""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)


@register("rbm", RBM, RBMConfig, "restricted Boltzmann machine of black and white images")
def rbm(data_shape: tuple[int, ...], config: RBMConfig, rng: Generator) -> RBM:
    """For images only. Raises ValueError for points."""
    if len(data_shape) != 3:
        raise ValueError(f"rbm models black and white images, not data of shape {data_shape}; ebm2d takes points")
    return RBM(data_shape, config, rng)
