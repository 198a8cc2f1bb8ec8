"""Cards of ops/activation.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from ..ops import activation as ops
from .card import Draw, Kink, OpCard


def _activation(
    name: str, reference: Callable, options: dict[str, list] | None = None, at_zero: float | None = None, **card: Any
) -> None:
    """A card of an activation. options: values to draw each keyword from.      at_zero: the derivative agreed on there."""

    def sample(draw: Draw) -> tuple[tuple, dict]:
        kwargs = {key: draw.choice(values) for key, values in (options or {}).items()}
        return (draw.floats(draw.shape(), -3.0, 3.0, away_from=() if at_zero is None else (0.0,)),), kwargs

    kinks = [] if at_zero is None else [Kink((np.array([0.0, -0.0]),), {}, np.full(2, 3.0), (np.full(2, 3 * at_zero),))]
    OpCard(name, getattr(ops, name), sample, wrt=(0,), reference=reference, kinks=kinks, **card)


def _gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    if approximate == "none":
        return x * special.ndtr(x)
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


_activation("sigmoid", special.expit)
_activation("log_sigmoid", special.log_expit)
_activation("softplus", lambda x, beta: np.logaddexp(0, beta * x) / beta, {"beta": [1.0, 0.5, 3.0, -2.0]})
_activation("silu", lambda x: x * special.expit(x))
_activation("gelu", _gelu, {"approximate": ["none", "tanh"]})
_activation("relu", lambda x: np.fmax(x, 0), at_zero=0.0)
_activation(
    "leaky_relu",
    lambda x, negative_slope: np.where(x > 0, x, negative_slope * x),
    {"negative_slope": [0.01, 0.2, 0.0]},
    at_zero=0.01,
)
_activation("elu", lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)), {"alpha": [1.0, 0.3]}, at_zero=1.0)
