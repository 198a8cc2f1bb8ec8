"""Depth and memory: long chains, and loops that must leave nothing behind although the cycle collector is off."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import numpy as np
import pytest

from minigen import Tensor, grad, no_grad, ops

DEPTH = 100_000


@pytest.mark.parametrize("backward", ["grad", "backward", "create_graph"])
def test_a_chain_of_100000_ops(backward: str) -> None:
    """Built, walked and freed without recursion (Python's and C's)."""
    x = Tensor(np.ones(2), requires_grad=True)
    y = x
    for _ in range(DEPTH):
        y = y + 1.0
    if backward == "backward":
        y.sum().backward()
        g = x.grad
    else:
        g = grad(y.sum(), x, create_graph=backward == "create_graph")
    np.testing.assert_array_equal(g.data, [1.0, 1.0])
    del y, g


def test_a_long_chain_of_recorded_gradients_is_freed() -> None:
    x = Tensor(np.array(0.5), requires_grad=True)
    y = x
    for _ in range(DEPTH // 10):
        y = y * 1.0001
    g = grad(y, x, create_graph=True)
    np.testing.assert_allclose(g.data, 1.0001 ** (DEPTH // 10), rtol=1e-9)
    del y, g


def test_a_wide_graph_takes_linear_time() -> None:
    """x used n times: its cotangents are added into one sum, not n times copied or searched."""

    def seconds(n: int) -> float:
        x = Tensor(np.ones(2), requires_grad=True)
        y = x * 0.0
        for _ in range(n):
            y = y + x
        start = time.process_time()
        grad(y.sum(), x)
        return time.process_time() - start

    seconds(100)
    assert seconds(16_000) < 40 * max(min(seconds(2_000) for _ in range(3)), 1e-3), "8 times the work took 40 times as long"


# ---- leaks


def resident() -> float:
    """The memory of this process, in MB; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if statm.exists() else 0.0


class Loop:
    """A small network, its training step, a gradient penalty and a Langevin chain, each as a function of nothing."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.w1 = Tensor(rng.normal(size=(64, 64)) / 8, requires_grad=True)
        self.w2 = Tensor(rng.normal(size=(64,)) / 8, requires_grad=True)
        self.x = rng.normal(size=(64, 64))

    def energy(self, x: Tensor) -> Tensor:
        h = ops.linear(x, self.w1, self.w2, activation="tanh")  # a fused op
        first, second = ops.split(h * self.w2, 2, axis=1)  # an op with several results
        return (first * second).sum()

    def training_step(self) -> None:
        loss = self.energy(Tensor(self.x))
        loss = loss * loss
        loss.backward()
        for w in (self.w1, self.w2):
            with no_grad():
                w.data -= 1e-6 * w.grad.data
                w.mark_written()
            w.grad = None

    def gradient_penalty(self) -> None:
        x = Tensor(self.x, requires_grad=True)
        g = grad(self.energy(x), x, create_graph=True)
        (g * g).sum().backward()
        self.w1.grad = self.w2.grad = None

    def langevin_chain(self) -> None:
        x = Tensor(self.x)
        for _ in range(60):
            x = x.detach()
            x.requires_grad = True
            x = x - grad(self.energy(x), x) * 1e-3
        self.last = x.detach()


@pytest.mark.parametrize(("body", "times"), [("training_step", 1000), ("gradient_penalty", 300), ("langevin_chain", 10)])
def test_nothing_is_left_behind_without_the_cycle_collector(body: str, times: int) -> None:
    loop = Loop()
    run = getattr(loop, body)
    for _ in range(3):
        run()
    gc.collect()
    gc.disable()
    try:
        objects, memory = len(gc.get_objects()), resident()
        for _ in range(times):
            run()
        grown = len(gc.get_objects()) - objects
        memory = resident() - memory
        garbage = gc.collect()
    finally:
        gc.enable()
    assert grown <= 5, f"{grown} more objects after {times} times {body}"
    assert garbage == 0, f"{garbage} objects in reference cycles"
    assert memory < 8, f"{memory:.1f} MB more memory; one leaked array per step would be {times * 0.03:.0f} MB"


def test_a_graph_dies_with_its_output() -> None:
    """By reference counting alone, also the recorded backward pass and the gradient."""

    class Witness(np.ndarray):
        """An array that can be watched."""

    import weakref

    x = Tensor(np.ones(3), requires_grad=True)
    big = np.ones(3).view(Witness)
    gone = weakref.ref(big)
    gc.disable()
    try:
        y = (x * big * x).sum()
        g = grad(y, x, create_graph=True)
        h = grad(g.sum(), x)
        del big, y
        assert gone() is not None, "the recorded gradient still needs it"
        del g, h
        assert gone() is None
    finally:
        gc.enable()


def test_only_what_a_rule_names_is_kept() -> None:
    x = Tensor(np.ones(3), requires_grad=True)
    assert (x + x).node.saved == ()
    assert ops.sum(x).node.saved == ()
    saved = ops.tanh(x).node.saved
    assert saved[0] is None, "tanh's rule names the result, not x"
    product = (x * Tensor(np.ones(3))).node.saved
    assert product[0] is None, "the gradient by x needs the other factor only"
    assert product[1] is not None
