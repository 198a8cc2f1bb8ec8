"""Every op on a GPU against itself on the CPU, value and gradients, from the ops' cards. Start at `test_op`.

What the cards draw has axes of size 0 and 1, and broadcasts. Here it is run in float64 and, against the CPU's float32, in
float32; in four layouts of memory; and with the numbers at which float32 overflows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.autograd import Tensor, grad, ops
from minigen.autograd.backend import move, on_gpu
from minigen.autograd.cards import CARDS, Draw, OpCard
from minigen.emulator import running
from minigen.random import Generator

sys.path.insert(0, str(Path(__file__).parent.parent / "ops"))

from checks import EXTREME, assert_no_overflow, cast, over_arrays
from test_properties import PRODUCTS, SOLVERS

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
        weights = [np.cos(np.arange(r.size, dtype=np.float64)).reshape(r.shape).astype(r.dtype) for r in tracked]
        cotangents = placed(weights, device)
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


def examples(card: OpCard, seed: int, count: int) -> list[tuple[tuple, dict]]:
    rng = np.random.default_rng(seed)
    return [card.sample(Draw(lambda low, high: int(rng.integers(low, high + 1)))) for _ in range(count)]


def close_at_all(actual: list, expected: list, roundings: float, what: str) -> None:
    """Each number within so many roundings of the largest one of its result; the same shape, dtype, infinities and NaN."""
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert (a.shape, a.dtype) == (e.shape, e.dtype), what
        eps = np.finfo(e.dtype).eps if e.dtype.kind == "f" else 0.0
        largest = np.abs(e[np.isfinite(e)]).max(initial=1e-300)
        np.testing.assert_allclose(a, e, rtol=0, atol=float(roundings * eps * largest), err_msg=what)


@pytest.mark.parametrize("name", sorted(set(CARDS) - APART))
def test_float32(name: str) -> None:
    """The dtype law, and the CPU's results in float64 to rounding in float32, of two orders."""
    card = CARDS[name]
    for i, (args, kwargs) in enumerate(examples(card, 12, 6)):
        small, options = cast((args, kwargs), np.float32)
        exact, wide = cast((small, options), np.float64)
        orders = 2 if i % 3 == 2 else 1
        with running(check=True):
            there, here = run(card, small, options, "cuda", orders), run(card, small, options, "cpu", orders)
            known = run(card, exact, wide, "cpu", orders)
        assert [a.dtype for a in there] == [a.dtype for a in here]
        for a, own, e in zip(there, here, known, strict=True):
            if e.dtype.kind != "f":
                assert np.array_equal(a, own)
                continue
            off = np.abs(own[np.isfinite(own)] - e[np.isfinite(own)]).max(initial=0)  # an ill-conditioned example: the CPU, too
            largest = np.abs(e[np.isfinite(e)]).max(initial=1e-30)
            tolerance = ROUNDINGS * np.finfo(np.float32).eps * largest + 8 * off
            np.testing.assert_allclose(a, e, rtol=0, atol=float(tolerance), err_msg=f"{name}, {kwargs}")


def across(a: np.ndarray) -> Any:
    return move(np.array(a.T, order="C"), "cuda").T


def backwards(a: np.ndarray) -> Any:
    return move(np.flip(a).copy(), "cuda")[(slice(None, None, -1),) * a.ndim]


def with_gaps(a: np.ndarray) -> Any:
    """Every other number of a larger array; the others are large, so that one that was taken for a neighbour shows."""
    wide = np.full([2 * n for n in a.shape], 1e30, a.dtype)
    gaps = (slice(1, None, 2),) * a.ndim
    wide[gaps] = a
    return move(wide, "cuda")[gaps]


@pytest.mark.parametrize("layout", [across, backwards, with_gaps])
@pytest.mark.parametrize("name", sorted(set(CARDS) - APART))
def test_layouts(name: str, layout: Callable) -> None:
    """How the numbers lie in memory does not matter."""
    card = CARDS[name]
    for args, kwargs in examples(card, 13, 3):
        plain = run(card, args, kwargs, "cuda", 1)
        moved, options = over_arrays(layout, (args, kwargs))
        close_at_all(run(card, moved, options, "cuda", 1), plain, 16, f"{name}, {layout.__name__}, {kwargs}")


# What the CPU mends after a look at the numbers, for which a GPU would have to be waited for: infinite weights that meet
# padding, and numbers whose squares overflow in a variance. docs/gpu.md says so.
PADDED = {"conv1d": 1, "conv2d": 1, "conv_transpose2d": 1}
SQUARED = ("std", "batch_norm", "group_norm", "group_norm_silu", "instance_norm", "layer_norm")


@pytest.mark.parametrize("name", [n for n in sorted(set(CARDS) - APART) if CARDS[n].wrt and n not in SOLVERS])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_extreme_values(name: str) -> None:
    """±Inf, ±max, ±1e30, ±104, ±89, ±88, ±20, ±1e-8, ±0 in float32: no overflow on the way, in values and gradients."""
    card, rng = CARDS[name], np.random.default_rng(14)
    for args, kwargs in examples(card, 14, 8):
        position = card.wrt[rng.integers(len(card.wrt))]
        values = [v for v in EXTREME if position not in PRODUCTS.get(name, ()) or abs(v) < 88 or np.isinf(v)]
        small, options = cast((args, kwargs), np.float32)
        if not small[position].size:
            continue
        if name in PADDED and position == PADDED[name]:
            values = [v for v in values if np.isfinite(v)]
        if name in SQUARED and position == 0:
            values = [v for v in values if abs(v) < 1e30 or np.isinf(v)]
        value = values[rng.integers(len(values))]
        small[position].flat[rng.integers(small[position].size)] = value
        exact, wide = cast((small, options), np.float64)
        try:
            expected = run(card, exact, wide, "cpu", 1)
        except ValueError:  # outside the domain, which the CPU sees
            continue
        assert_no_overflow(run(card, small, options, "cuda", 1), expected, f"{name}, {value} at argument {position}, {kwargs}")


def test_dropout() -> None:
    x = np.linspace(1, 2, 1000, dtype=np.float32)
    here, there = (ops.dropout(move(x, device), 0.3, Generator(4, device)) for device in ("cpu", "cuda"))
    assert move(there, "cpu").tobytes() == here.tobytes()
