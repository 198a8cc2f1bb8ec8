"""Kernels compiled before they are wanted: one step of each model, thrown away. Start at `warm_up`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ..autograd.kernels import jit
from ..models import MODELS
from .config import ConfigError, RunConfig
from .run import Run


def warm_up(names: Iterable[str], say: Callable[[str], object]) -> None:
    """Take a training step and draw two samples with each model, so that the kernels for it are on disk. Nothing else is kept.

    names: of models; KeyError for an unknown one.     say: is told a line for each.
    """
    for name in names:
        start, before = time.perf_counter(), jit.compiling_seconds()
        run = _smallest(name)
        run.advance()
        model: Any = run.model
        with run.averaged():
            model.sample(2, run.evaluation_rng())
        seconds, compiling = time.perf_counter() - start, jit.compiling_seconds() - before
        say(f"{name}: {seconds:.1f} s, compiling took {compiling:.1f} s of processor time")


def _smallest(name: str) -> Run:
    """A run of the model on data that need no download: images, or points for a model that takes no images."""
    options = MODELS[name].config()
    try:
        return Run(RunConfig(model=name, data="digits", options=options), load=True)
    except ConfigError:
        return Run(RunConfig(model=name, data="moons", options=options), load=True)
