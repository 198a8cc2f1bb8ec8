"""OpCard: what the tests know about an op. Every public op has one; property tests are generated from them.

A card says how to draw arguments (`sample`), which of them are differentiable (`wrt`), what the value should be
(`reference`, in NumPy or SciPy and independent of our code), whether the complex step applies (`analytic`), in which
arguments the op is linear (`linear`), and which gradient is agreed on where there is no derivative (`kinks`).

Sampling goes through `Draw`, whose single source is a function integer(low, high). `minigen gradcheck` gives it a
random one; the tests give it hypothesis', so that failing examples shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

CARDS: dict[str, OpCard] = {}


class Kink(NamedTuple):
    """A point without derivative, and the gradient that is agreed on there: vjp(g) at args == expected, per `wrt`."""

    args: tuple
    kwargs: dict
    g: Any
    expected: tuple


@dataclass(frozen=True)
class OpCard:
    """See the top of the file.

    name: in `minigen.ops`.
    function: takes the sampled arguments; `ops.concat` takes a list, so its card has a lambda.
    sample(draw) -> (args, kwargs): float64 arrays inside the domain and at least 1e-2 away from every non-smooth point;
        shapes drawn to include axes of size 0 and 1, no axes at all, and broadcasting, wherever the op allows them.
    wrt: positions in args of the differentiable inputs; () for an op without gradient.
    reference(*args, **kwargs) -> the value in float64.
    analytic: the NumPy backend computes it on complex arrays as an analytic function, forward and in its rules.
    linear: positions of the inputs in which it is linear, each for itself (adjoint identities are tested).
    """

    name: str
    function: Callable[..., Any]
    sample: Callable[[Draw], tuple[tuple, dict]]
    wrt: tuple[int, ...]
    reference: Callable[..., Any]
    analytic: bool = True
    linear: tuple[int, ...] = ()
    kinks: Sequence[Kink] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if self.name in CARDS:
            raise ValueError(f"op {self.name!r} has two cards")
        CARDS[self.name] = self


class Draw:
    """Draws arguments from one source of integers (see the top of the file)."""

    def __init__(self, integer: Callable[[int, int], int]):
        self.integer = integer  # integer(low, high): low <= result <= high

    def boolean(self) -> bool:
        """True or False, evenly."""
        return bool(self.integer(0, 1))

    def choice(self, options: Sequence) -> Any:
        """One of the options, evenly."""
        return options[self.integer(0, len(options) - 1)]

    def shape(self, min_dims: int = 0, max_dims: int = 3, min_side: int = 0, max_side: int = 4) -> tuple[int, ...]:
        """Most shapes have numbers in them; an axis of size 0 comes now and then."""
        sides = [self.integer(max(min_side, 1), max_side) for _ in range(self.integer(min_dims, max_dims))]
        if min_side == 0 and sides and self.integer(0, 7) == 7:
            sides[self.integer(0, len(sides) - 1)] = 0
        return tuple(sides)

    def broadcastable(self, count: int, max_dims: int = 3, min_side: int = 0) -> list[tuple[int, ...]]:
        """`count` shapes that broadcast together: axes left out in front, or of size 1."""
        full = self.shape(max_dims=max_dims, min_side=min_side)
        shapes = []
        for _ in range(count):
            cut = max(self.integer(-len(full) - 1, len(full)), 0)  # axes left out in front: more often none
            shapes.append(tuple(1 if self.integer(0, 3) == 3 else n for n in full[cut:]))
        return shapes

    def count(self, high: int) -> int:
        """A side of 1 to `high`, now and then 0."""
        return 0 if self.integer(0, 9) == 9 else self.integer(1, high)

    def axis(self, ndim: int) -> int:
        """A valid axis, counted from the front or from the back."""
        return self.integer(-ndim, ndim - 1)

    def axes(self, ndim: int) -> int | tuple[int, ...] | None:
        """None, one axis, or several different ones."""
        kind = self.integer(0, 2)
        if kind == 0 or ndim == 0:
            return None
        if kind == 1:
            return self.axis(ndim)
        return tuple(a - ndim * self.integer(0, 1) for a in range(ndim) if self.boolean())

    def rng(self) -> np.random.Generator:
        """A NumPy generator with a drawn seed: numbers that need not shrink come from it."""
        return np.random.default_rng(self.integer(0, 2**32 - 1))

    def floats(
        self,
        shape: tuple[int, ...],
        low: float = -2.0,
        high: float = 2.0,
        away_from: Sequence[float] = (),
        margin: float = 0.02,
    ) -> np.ndarray:
        """Uniform float64 in [low, high], at least `margin` away from each of the points `away_from`."""
        x = self.rng().uniform(low, high, shape)
        for point in away_from:
            close = np.abs(x - point) < margin
            x = np.where(close, point + np.where(x < point, -margin, margin) * 1.5, x)
        return x

    def distinct(self, shape: tuple[int, ...], spacing: float = 0.1) -> np.ndarray:
        """Values that all differ by at least about `spacing`, in random order (for max, min and sorting)."""
        rng = self.rng()
        n = int(np.prod(shape))
        return ((rng.permutation(n) - n / 2) * spacing + rng.uniform(-0.2, 0.2, n) * spacing).reshape(shape)

    def indices(self, shape: tuple[int, ...], n: int) -> np.ndarray:
        """int64 indices in [-n, n)."""
        return self.rng().integers(-n, n, shape)
