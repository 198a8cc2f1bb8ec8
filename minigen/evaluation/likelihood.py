"""Likelihoods that can be believed: each number with its estimator, its spread, and what it must be compared with.

Start at `NLL`: it cannot be made, hence not printed, without a floor (the entropy of the data, where it is known) or a
baseline (a trivial model of the same data). `bound` evaluates a model; baselines are in baselines.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..autograd.backend import move
from ..random import Generator


@dataclass(frozen=True)
class NLL:
    """A negative log-likelihood, or an upper bound on it, in nats per sample.

    value, stderr: mean over n samples, and its standard error.     estimator: "exact ...", "ELBO", "IWAE-50", "AIS", ...
        All but the exact ones are upper bounds; but AIS tends to be too low: its log Z is, on average.
    data: which samples, and how they were binarised or quantised.
    floor: entropy of the data in nats, if known.     baseline: (name, nats) of a trivial model.     dims: values per sample.
    levels: grey levels, where it is they that the model gives probabilities of: told in bits per dimension too.
    Raises ValueError without floor and baseline, and for a value more than 4 standard errors below the floor: such a number
    is wrong, not good.
    """

    value: float
    stderr: float
    n: int
    estimator: str
    data: str
    dims: int
    floor: float | None = None
    baseline: tuple[str, float] | None = None
    levels: int | None = None

    def __post_init__(self) -> None:
        if self.floor is None and self.baseline is None:
            raise ValueError("a likelihood means nothing alone: give the entropy of the data (floor), or a baseline")
        if math.isnan(self.value) or math.isnan(self.stderr):
            raise ValueError(f"{self.value} ± {self.stderr} nats is no likelihood: the model, or its estimate, gives NaN")
        if self.floor is not None and self.value < self.floor - 4 * self.stderr:
            raise ValueError(
                f"{self.value:.4f} nats is below the entropy of the data, {self.floor:.4f}: the estimate is wrong, not good"
            )

    @property
    def bits_per_dim(self) -> float:
        """The same in bits per dimension: nats / (dimensions · ln 2)."""
        return self.value / self.dims / math.log(2)

    def __str__(self) -> str:
        sign = "" if self.estimator.startswith("exact") else "≈ " if self.estimator.startswith("AIS") else "≤ "
        digits = 2 if self.dims > 10 else 4  # points are told apart by thousandths of a nat
        text = f"NLL {sign}{self.value:.{digits}f} ± {self.stderr:.{digits}f} nats"
        if self.levels is not None:
            text += f" = {self.bits_per_dim:.3f} bits/dim"
        text += f" ({self.estimator}, n = {self.n}, {self.data})"
        if self.floor is not None:
            text += f"; floor {self.floor:.{digits}f}"
        if self.baseline is not None:
            name, nats = self.baseline
            text += f"; {name} {nats:.{digits}f}"
            if self.levels is not None:
                text += f" = {nats / self.dims / math.log(2):.3f} bits/dim"
        return text


def bound(model: Any, x: np.ndarray, k: int, rng: Generator, batch_size: int = 500) -> np.ndarray:
    """The model's lower bound on log p with k importance samples, k = 1 the ELBO, for raw data x.     -> (N,) nats

    x is preprocessed by the model itself, with fresh noise (dynamic binarisation).
    """
    parts = []
    for i in range(0, len(x), batch_size):
        seen = model.preprocess(x[i : i + batch_size], rng)
        if k == 1:
            with no_grad():
                parts.append(model.elbo(seen, rng)[0].data)
        else:
            parts.append(model.log_prob_bound(seen, k, rng))
    return np.concatenate(parts)


def mean_and_stderr(values: np.ndarray) -> tuple[float, float]:
    """Mean of independent values, and the standard error of that mean."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def active_units(encode: Callable[[np.ndarray], Any], x: np.ndarray, threshold: float = 0.01) -> int:
    """How many latent dimensions are used: those with Var_x(E_q[z|x]) > threshold   (Burda 2016, sec. 5.2).

    encode(x) -> (mean, log-variance) of q(z|x), (N, D) each.
    """
    with no_grad():
        mu, _ = encode(x)
    return int((np.asarray(move(mu.data, "cpu"), np.float64).var(axis=0) > threshold).sum())
