"""Annealed importance sampling: an estimate of log Z for models that only know exp(-E)   (Neal 2001, AIS,
https://doi.org/10.1023/A:1008923215028; Salakhutdinov & Murray 2008 for RBMs). Start at `log_partition`.

A chain walks from a distribution f_0/Z_0 whose constant is known to f_1/Z through others in between, and collects the weight

    log w = Σ_t log f_{β_t}(x_t) - log f_{β_{t-1}}(x_t),     E[w] = Z/Z_0                             (Neal 2001, eqs. 10 to 12)

E[w] is right for any number of steps; log of the mean is too low on average, so a log-likelihood comes out too high: more
chains, and more temperatures above all, show whether that matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from ..autograd.backend import move
from ..random import Generator

CHAINS = 100
TEMPERATURES = 20  # times k


class Path(Protocol):
    """Unnormalised densities f_β between f_0, which can be drawn from and has the constant exp(log_z0), and f_1."""

    @property
    def log_z0(self) -> float:
        """log of the integral of f_0, in nats."""
        ...

    def start(self, n: int, rng: Generator) -> np.ndarray:
        """n draws from f_0."""
        ...

    def log_f(self, x: np.ndarray, beta: float) -> np.ndarray:
        """(N, ...) -> (N,) float64"""
        ...

    def transition(self, x: np.ndarray, beta: float, rng: Generator) -> np.ndarray:
        """A step of a Markov chain that leaves f_β as it is."""
        ...


@dataclass(frozen=True)
class LogZ:
    """value: the estimate of log Z in nats.     stderr: of it, by the spread of the weights (the delta method).

    effective: of how many equal weights the chains are worth; few chains carry all of it where this is small.
    """

    value: float
    stderr: float
    effective: float


def log_partition(path: Path, betas: np.ndarray, chains: int, rng: Generator) -> LogZ:
    """log Z of f_1.     betas: 0 = β_0 < ... < β_T = 1.     Raises ValueError for others, and for fewer than 2 chains."""
    if len(betas) < 2 or betas[0] != 0 or betas[-1] != 1 or (np.diff(betas) <= 0).any() or chains < 2:
        raise ValueError(f"AIS needs temperatures that rise from 0 to 1 and at least 2 chains, not {betas} and {chains}")
    x, log_w = path.start(chains, rng), np.zeros(chains)
    for before, beta in pairwise(betas):
        log_w += move(path.log_f(x, beta) - path.log_f(x, before), "cpu")
        if beta < 1:
            x = path.transition(x, beta, rng)
    w = np.exp(log_w - log_w.max())
    value = path.log_z0 + float(log_w.max() + math.log(w.mean()))
    return LogZ(value, float(w.std(ddof=1) / w.mean() / math.sqrt(chains)), float(w.sum() ** 2 / (w**2).sum()))


def denser_towards_one(count: int) -> np.ndarray:
    """0 = β_0 < ... < β_count = 1, closer together near 1, where log f changes most: β = 1 - (1 - t/T)²"""
    return 1 - (1 - np.arange(count + 1) / count) ** 2


class AISLogProb:
    """log p(x) = -E(x) - log Z for preprocessed x, with log Z by AIS, run when it is first needed.     (N, ...) -> (N,) nats

    model: has `annealed() -> Path` and `log_prob(x, log_z)`.     shared_stderr: what all values are uncertain by together.
    """

    def __init__(self, model: Any, temperatures: int, chains: int):
        self.model, self.temperatures, self.chains = model, temperatures, chains
        self.found: LogZ | None = None

    def __call__(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        if self.found is None:
            self.found = log_partition(self.model.annealed(), denser_towards_one(self.temperatures), self.chains, rng)
        return self.model.log_prob(x, self.found.value)

    @property
    def shared_stderr(self) -> float:
        """Standard error of log Z, which all log p have in common; 0 before the first call."""
        return self.found.stderr if self.found else 0.0

    @property
    def detail(self) -> str:
        """What to know of it once it has run."""
        found = self.found
        return f"log Z = {found.value:.2f} ± {found.stderr:.2f}, {found.effective:.0f} chains effective" if found else "not run"


def ais_estimators(model: Any, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
    """What Model.estimators returns, for a model of which only -E and a path for AIS are known; nothing for any other."""
    if not hasattr(model, "annealed"):
        return {}
    temperatures = TEMPERATURES * k
    return {f"AIS, {CHAINS} chains, {temperatures} temperatures": AISLogProb(model, temperatures, CHAINS)}
