"""What counts towards a budget of processor time: training steps, and not the compilation of kernels."""

import importlib.util
import time
from pathlib import Path

import pytest

from minigen.autograd.kernels import jit
from minigen.models import MODELS
from minigen.training import progress
from minigen.training.config import RunConfig
from minigen.training.run import Run

_spec = importlib.util.spec_from_file_location("run_harness", Path(__file__).parent / "run_harness.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)


def compile_something():
    """A kernel, and one that it calls. Returns its processor time."""
    inner = jit.numba.njit(lambda x: x * x + 1.0)
    outer = jit.numba.njit(lambda x: inner(x) + inner(2.0 * x))
    start = time.process_time()
    assert outer(3.0) == 47.0
    return time.process_time() - start


def test_compiling_is_timed_once_however_deep():
    compile_something()  # what Numba does at its first compilation
    before = jit.compiling_seconds()
    took = compile_something()
    counted = jit.compiling_seconds() - before
    assert 0.5 * took < counted <= 1.05 * took
    assert jit.compiling_seconds() == before + counted


def test_a_step_that_compiles_does_not_count_what_that_took(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", harness.TINY)
    run = Run(RunConfig(model="tiny"), load=True)
    run.advance()
    before, took = run.cpu_seconds, []
    own = run.model.train_step
    monkeypatch.setattr(run.model, "train_step", lambda *args, **more: took.append(compile_something()) or own(*args, **more))
    run.advance()
    assert 0 < run.cpu_seconds - before < 0.6 * took[0]


@pytest.mark.parametrize(("terms", "said"), [
    ({"loss": 1.0, "elbo": -3.0, "bits_per_dim": 1.2345}, "elbo -3.00 nats  bits_per_dim 1.234"),
    ({"loss": 1.0, "elbo": -3.0, "kl": 2.0}, "elbo -3.00  kl 2.00 nats"),
    ({"loss": 1.0}, "loss 1.00"),
])  # fmt: skip
def test_terms_are_told_in_their_units(terms, said):
    assert progress._in_words(terms, in_nats=True) == said
