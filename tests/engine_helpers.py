"""Shared by the tests of the engine: leaves, ops that are forgotten after a test, a list of what was recorded."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from minigen import Tensor
from minigen.autograd import tape
from minigen.autograd.cards import CARDS

engine = importlib.import_module("minigen.autograd.grad")  # the package shows the function of that name


@pytest.fixture(autouse=True)
def temporary_ops():
    """Ops and cards that a test defines are forgotten after it; and nobody keeps watching."""
    tables = tape.OPS, engine._VJP_OPS, CARDS
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)
    assert tape.OBSERVERS == []


def leaf(*values: float, dtype: type = np.float64) -> Tensor:
    return Tensor(np.array(values, dtype), requires_grad=True)


def scalar(value: float) -> Tensor:
    return Tensor(np.array(value, np.float64), requires_grad=True)


class _Recorder(tape.Observer):
    def __init__(self) -> None:
        self.names: list[str] = []

    def recorded(self, node: tape.Node) -> None:
        self.names.append(node.op.name)


@contextmanager
def recorded_ops() -> Iterator[list[str]]:
    """The names of the ops that are recorded in the block, in order."""
    watcher = _Recorder()
    tape.OBSERVERS.append(watcher)
    yield watcher.names
    tape.OBSERVERS.remove(watcher)
