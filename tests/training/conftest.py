"""Fixtures for runs; the model `tiny` and the comparisons are in run_harness.py."""

import pytest
import run_harness

from minigen.autograd.backend import get_backend, set_backend
from minigen.models import MODELS
from minigen.training import figures


@pytest.fixture
def tiny(monkeypatch):
    """The model `tiny` is known, and the backend is afterwards what it was."""
    monkeypatch.setitem(MODELS, "tiny", run_harness.TINY)
    with set_backend(get_backend()):
        yield


@pytest.fixture
def bare(tiny, monkeypatch):
    """As `tiny`, and runs draw no figures, which would take most of their time."""
    monkeypatch.setattr(figures, "FIGURES", {})
