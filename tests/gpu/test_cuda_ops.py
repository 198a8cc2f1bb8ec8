"""Every op on a GPU against itself on the CPU, value and gradients, from the ops' cards. Start at `test_op`.

Needs a GPU: python -m pytest tests/gpu -m gpu
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minigen.autograd import Tensor, grad, ops
from minigen.autograd.backend import move, on_gpu
from minigen.autograd.cards import CARDS, Draw, OpCard
from minigen.emulator import running
from minigen.random import Generator

EXAMPLES = 12
ROUNDINGS = 1024  # of the largest number in a result


def placed(value: Any, device: str) -> Any:
    """Arrays, also inside lists, tuples and dicts, on a device."""
    if isinstance(value, dict):
        return {name: placed(v, device) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(placed(v, device) for v in value)
    return move(value, device) if isinstance(value, np.ndarray) else value


def run(card: OpCard, args: tuple, kwargs: dict, device: str, orders: int) -> list[np.ndarray]:
    """Values, then gradients of their sum weighted with cosines, for two orders also those of these, as NumPy arrays.

    The first order of one is what training uses, made by the kernels; of two, it is recorded, from the specs of fused ops.
    """
    args, kwargs = placed(args, device), placed(kwargs, device)
    full = [Tensor(a, requires_grad=True) if i in card.wrt else a for i, a in enumerate(args)]
    result = card.function(*full, **kwargs)
    results = list(result) if isinstance(result, tuple | list) else [result]
    raw = [r.data if isinstance(r, Tensor) else r for r in results]
    if device == "cuda":
        assert all(on_gpu(r) for r in raw), f"{card.name}: the result is not on the GPU"
    found = [np.asarray(move(r, "cpu")) for r in raw]
    inputs = [full[i] for i in card.wrt]
    for _ in range(orders):
        tracked = [r for r in results if isinstance(r, Tensor) and r.requires_grad]
        if not (tracked and inputs):
            break
        cotangents = [placed(np.cos(np.arange(r.size, dtype=np.float64)).reshape(r.shape), device) for r in tracked]
        gradients = grad(tracked, inputs, cotangents, allow_unused=True, create_graph=orders > 1)
        results = [g for g in gradients if g is not None]
        found += [np.asarray(move(g.data, "cpu")) for g in results]
    return found


APART = {"to_device", "dropout"}  # the card of one moves arrays itself, that of the other draws on the CPU


@pytest.mark.parametrize("name", sorted(set(CARDS) - APART))
def test_op(name: str) -> None:
    card = CARDS[name]
    rng = np.random.default_rng(11)
    for i in range(EXAMPLES):
        args, kwargs = card.sample(Draw(lambda low, high: int(rng.integers(low, high + 1))))
        with running(check=True):
            here, there = (run(card, args, kwargs, device, 2 if i % 4 == 3 else 1) for device in ("cpu", "cuda"))
        assert len(here) == len(there)
        for a, b in zip(here, there, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            tolerance = ROUNDINGS * np.finfo(np.float64).eps * np.abs(a[np.isfinite(a)]).max(initial=1e-300)
            np.testing.assert_allclose(b, a, rtol=0, atol=tolerance, err_msg=f"{name}, {kwargs}")


def test_dropout() -> None:
    x = np.linspace(1, 2, 1000, dtype=np.float32)
    here, there = (ops.dropout(move(x, device), 0.3, Generator(4, device)) for device in ("cpu", "cuda"))
    assert move(there, "cpu").tobytes() == here.tobytes()
