"""Cards of ops/elementwise.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from ..ops import elementwise as ops
from .card import Draw, Kink, OpCard

Sample = tuple[tuple, dict]


# ---- one input


def _unary(
    name: str, reference: Callable, low: float = -2.0, high: float = 2.0, away_from: Sequence[float] = (), **options: Any
) -> None:
    """A card of an op of one array, drawn between `low` and `high`."""

    def sample(draw: Draw) -> Sample:
        return (draw.floats(draw.shape(), low, high, away_from),), {}

    OpCard(name, getattr(ops, name), sample, wrt=(0,), reference=reference, **options)


_unary("negative", np.negative, linear=(0,))
_unary("square", np.square)
_unary("sqrt", np.sqrt, 0.1, 3.0)
_unary("exp", np.exp)
_unary("expm1", np.expm1)
_unary("log", np.log, 0.1, 3.0)
_unary("log1p", np.log1p, -0.8, 3.0)
_unary("sin", np.sin, -4.0, 4.0)
_unary("cos", np.cos, -4.0, 4.0)
_unary("tanh", np.tanh)
_unary("erf", special.erf)
_unary(
    "abs",
    np.abs,
    away_from=(0.0,),
    analytic=False,
    kinks=[Kink((np.array([0.0, -0.0]),), {}, np.array([3.0, 3.0]), (np.zeros(2),))],
    note="The absolute value of a complex number is not analytic.",
)

OpCard(
    "astype",
    lambda x: ops.astype(x, x.dtype),
    lambda draw: ((draw.floats(draw.shape()),), {}),
    wrt=(0,),
    reference=lambda x: x,
    linear=(0,),
    note="To the dtype that x has; conversions between dtypes have a test of their own.",
)


# ---- two inputs


def _binary(name: str, sample: Callable[[Draw], Sample], reference: Callable, **options: Any) -> None:
    OpCard(name, getattr(ops, name), sample, wrt=(0, 1), reference=reference, **options)


def _pair(draw: Draw) -> Sample:
    """Two arrays that broadcast together, or an array and a number."""
    first, second = draw.broadcastable(2)
    return (draw.floats(first), draw.floats(second)), {}


def _quotient(draw: Draw) -> Sample:
    first, second = draw.broadcastable(2)
    return (draw.floats(first), draw.floats(second, away_from=(0.0,), margin=0.3)), {}


def _power(draw: Draw) -> Sample:
    first, second = draw.broadcastable(2)
    return (draw.floats(first, 0.2, 2.0), draw.floats(second)), {}


def _different(draw: Draw) -> Sample:
    """Two arrays without ties: one near even, one near odd multiples of 0.1."""
    rng, shapes = draw.rng(), draw.broadcastable(2)
    tenths = [2 * rng.integers(-5, 5, s) + i + rng.uniform(-0.2, 0.2, s) for i, s in enumerate(shapes)]
    return tuple(np.asarray(t / 10) for t in tenths), {}


_TIE = Kink((np.array([2.0, 0.0]), np.array([2.0, -0.0])), {}, np.array([3.0, 4.0]), (np.array([1.5, 2.0]),) * 2)

_binary("add", _pair, np.add)
_binary("subtract", _pair, np.subtract)
_binary("multiply", _pair, np.multiply, linear=(0, 1))
_binary("divide", _quotient, np.divide, linear=(0,))
_binary("pow", _power, np.power, note="Of positive numbers; a test has zeros, and integer powers of negative numbers.")
_binary("maximum", _different, np.maximum, kinks=[_TIE])
_binary("minimum", _different, np.minimum, kinks=[_TIE])


# ---- choices


def _clip(draw: Draw) -> Sample:
    low = draw.choice([None, -0.5, np.array(-0.5, np.float32)])
    high = draw.choice([None, 0.75, np.array([0.75], np.float32)])
    vectors = isinstance(low, np.ndarray) or isinstance(high, np.ndarray)
    x = draw.floats(draw.shape(min_dims=1 if vectors else 0), away_from=(-0.5, 0.75))
    return (x,), {"min": low, "max": high}


OpCard(
    "clip",
    ops.clip,
    _clip,
    wrt=(0,),
    reference=lambda x, min, max: np.fmin(np.fmax(x, -np.inf if min is None else min), np.inf if max is None else max),
    kinks=[Kink((np.array([-1.0, -0.5, 0.75]),), {"min": -0.5, "max": 0.75}, np.full(3, 3.0), (np.array([0.0, 3.0, 3.0]),))],
)


def _where(draw: Draw) -> Sample:
    condition, first, second = draw.broadcastable(3)
    if draw.boolean():
        first = second = np.broadcast_shapes(condition, first, second)
    return (draw.rng().random(condition) < 0.5, draw.floats(first), draw.floats(second)), {}


OpCard("where", ops.where, _where, wrt=(1, 2), reference=lambda c, x1, x2: np.choose(c, [x2, x1]))
