"""What every model has in common: a configuration, one training step, and a list of what it can do. Start at `Model`.

    MODELS["vae"]                      an Entry: how to build it, its configuration, one line about it
    Model.preprocess(x, rng)           raw data in [0, 1], or points -> what the model sees (the only place for it)
    Model.loss(x, rng)                 -> Loss: the number to minimise, and the terms to report
    Model.train_step(x, rng, optims)   one update; the default minimises `loss`, a GAN writes its own
    Model.sample(n, rng)               -> n new samples as raw arrays, in the range of the data

and, where the model really has them, `log_prob` (exact), `log_prob_bound` (a lower bound), `encode`, `energy`, `score`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..autograd import Tensor
from ..autograd.backend import on_gpu
from ..nn import Module
from ..optim import Adam, Optimizer
from ..random import Generator

CAPABILITIES = {
    "sample": "draws new samples",
    "log_prob": "log-likelihood, exact but for what is noted below",
    "log_prob_bound": "lower bound on the log-likelihood",
    "encode": "latent code of a sample",
    "energy": "minus the log-density, up to a constant: low is likely",
    "score": "gradient of the log-density",
}


class Diverged(ArithmeticError):
    """Training has left what can be mended by going on: a number is not finite, or a model's own guard was passed."""


class Loss(NamedTuple):
    """total: scalar Tensor to minimise.     terms: what to report, by name, in nats per sample unless the name says else.

    Terms stay scalar Tensors until a step is done: to read each as a number would be to wait for a GPU each time.
    """

    total: Tensor
    terms: dict[str, Any]


def option(default: Any, help: str, low: float | None = None, high: float | None = None, choices: tuple = ()) -> Any:
    """A field of a configuration, with what the command line needs to know: a help text, and a closed range or the choices."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


def other_default(config: Any, name: str, default: Any) -> Any:
    """The field `name` of a configuration, for one that inherits from it, with another default."""
    return field(default=default, metadata=config.__dataclass_fields__[name].metadata)


@dataclass(frozen=True)
class ModelConfig:
    """Options that every model has. A model's own configuration inherits these, and may change the defaults."""

    batch_size: int = option(100, "samples in one training step", low=1)
    lr: float = option(1e-3, "learning rate of Adam", low=0.0)
    steps: int = option(3000, "training steps, where nothing else is said", low=1)
    ema: float = option(0.0, "decay of the averaged parameters that are evaluated; 0 for none", low=0.0, high=0.999999)


class Model(Module):
    """A generative model of data of one shape: (H, W, C) images in [0, 1], or (2,) points."""

    config: ModelConfig
    data_shape: tuple[int, ...]
    levels: int | None = None  # grey levels that it gives probabilities of; None: it sees points, or black and white
    notes: ClassVar[dict[str, str]] = {}  # what must be said of one of CAPABILITIES of this class, by its name
    classes: int = 0  # classes that the model is conditioned on; where there are any, train_step and loss get labels
    no_likelihood: str | None = None  # why not even an estimate of log p can be had, in words; None where there is one
    not_captured: str | None = None  # why a step cannot be recorded as a CUDA graph, in words; None where it can
    curves: Mapping[str, str] = MappingProxyType({})  # for such a model: terms to draw over the steps, with their names,
    marks: Mapping[str, float] = MappingProxyType({})  # and values to compare them with, by name

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        """Raw data (N, *data_shape) -> what the model sees. Training and evaluation both go through here."""
        return x

    def loss(self, x: np.ndarray, rng: Generator, *args: Any, **labels: Any) -> Loss:
        """What a training step minimises, on a batch x that `preprocess` has made. A subclass defines it, or a `train_step`;
        raises TypeError where it has defined neither.
        """
        raise TypeError(f"{type(self).__name__} has no single loss: it writes its own train_step")

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers that train_step uses, by name. The default: Adam on all parameters."""
        return {"adam": Adam(self.parameters(), self.config.lr)}

    def train_step(
        self, x: np.ndarray, rng: Generator, optimizers: dict[str, Optimizer], **labels: np.ndarray
    ) -> dict[str, float]:
        """One update on a batch of raw data. Returns the terms to report.     labels: y=(N,) int, if the model has classes"""
        terms = self.update(x, rng, optimizers, **labels)
        return dict(zip(terms, gathered(terms.values()).tolist(), strict=True))

    def update(
        self, x: np.ndarray, rng: Generator, optimizers: dict[str, Optimizer], **labels: np.ndarray
    ) -> dict[str, Any]:
        """The same, with terms as Tensors: on a GPU nothing is waited for, so that the step can be captured."""
        (optimizer,) = optimizers.values()
        loss = self.loss(self.preprocess(x, rng), rng, **labels)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        return {"loss": loss.total, **loss.terms}

    def phase(self, optimizers: dict[str, Optimizer]) -> int:
        """Which kind of step the next one is, for a model that has several: each is captured on its own."""
        return 0

    def estimators(self, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
        """How log p can be estimated, the best way first and the cheapest last, where it is not by ELBO and importance samples:

        by name, functions (preprocessed data (N, *data_shape), generator) -> (N,) nats per sample

        k: how much work to put into an estimate that has a choice. A name that begins with "exact" is no bound.
        """
        return {}

    def remarks(self) -> list[str]:
        """What whoever trains it, or samples from it, should be told: a line each."""
        return []

    @classmethod
    def capabilities(cls) -> list[str]:
        """Which of CAPABILITIES this class has: read off its methods."""
        return [name for name in CAPABILITIES if callable(getattr(cls, name, None))]


def gathered(terms: Iterable[Any]) -> np.ndarray:
    """Scalar Tensors, and numbers, as one array where the Tensors are: to be read at once.     -> (n,)"""
    values = [t.data if isinstance(t, Tensor) else t for t in terms]
    first = next((v for v in values if isinstance(v, np.ndarray) or on_gpu(v)), np.zeros(()))
    out = np.empty_like(first, shape=len(values))
    for i, value in enumerate(values):
        out[i] = value
    return out


@dataclass(frozen=True)
class Entry:
    """A model that can be trained by name: build(data_shape, config, rng) -> Model."""

    name: str
    cls: type[Model]
    config: type[ModelConfig]
    build: Callable[[tuple[int, ...], Any, Generator], Model]
    summary: str


MODELS: dict[str, Entry] = {}


def register(name: str, cls: type[Model], config: type[ModelConfig], summary: str) -> Callable[[Callable], Callable]:
    """Decorator for a build function: makes the model known by name."""

    def add(build: Callable) -> Callable:
        MODELS[name] = Entry(name, cls, config, build, summary)
        return build

    return add
