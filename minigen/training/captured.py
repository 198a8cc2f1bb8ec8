"""Training steps of a run that are recorded as CUDA graphs and replayed: what `minigen train --capture` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.capture import Captured
from ..models import Model
from ..models.model import gathered
from ..optim import EMA, Optimizer
from ..random import Generator


class CapturedSteps:
    """steps(x, labels) does what model.train_step and ema.update do, and returns the same terms.

    A model with several kinds of step has a graph of each: see Model.phase. Raises CaptureError at a recording.
    """

    def __init__(self, model: Model, rng: Generator, optimizers: dict[str, Optimizer], ema: EMA | None):
        self.model, self.rng, self.optimizers, self.ema = model, rng, optimizers, ema
        self.kinds: dict[int, tuple[Captured, list[str]]] = {}  # by phase: the step, and the names of its terms

    def __call__(self, x: Any, labels: dict[str, Any]) -> dict[str, float]:
        phase = self.model.phase(self.optimizers)
        if phase not in self.kinds:
            names: list[str] = []
            self.kinds[phase] = Captured(self._step(list(labels), names)), names
        captured, names = self.kinds[phase]
        return dict(zip(names, captured(x, *labels.values()).tolist(), strict=True))

    def _step(self, given: list[str], names: list[str]) -> Callable[..., Any]:
        """A function of the batch and its labels, called `given`, to its terms in one array; it notes their names."""

        def step(x: Any, *labels: Any) -> Any:
            terms = self.model.update(x, self.rng, self.optimizers, **dict(zip(given, labels, strict=True)))
            if self.ema is not None:
                self.ema.update()
            names[:] = terms
            return gathered(terms.values())

        return step
