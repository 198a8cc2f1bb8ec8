"""What a truth is: a check of a class against analytic facts. Start at `Truth`; the table of them is in __init__.py.

Exact truths about Gaussian noise need no sampling: `SigmaPoints` stands in for the generator that a model draws its noise
from, and makes averages of everything quadratic in the noise exact; `Impulses` shows what a sampler makes of each draw.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Tensor

FLOAT32 = 2e-6  # what single precision may well lose in a sum


@dataclass(frozen=True)
class Finding:
    """A value of a model beside the one that it must have.

    what: the quantity and its unit.     tolerance: 4 standard errors of an estimate, or the round-off of an exact value.
    suspects: (value, mistake): what known mistakes would give in the place of `expected`, and the mistake in words.
    """

    what: str
    value: float
    expected: float
    tolerance: float
    suspects: tuple[tuple[float, str], ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the value is as near to the expected one as the tolerance asks. A NaN is not."""
        return abs(self.value - self.expected) <= self.tolerance  # a NaN does not hold

    @property
    def mistake(self) -> str | None:
        """The mistake that would give just this value, to four digits of what it is off by, or None."""
        near = [(abs(self.value - wrong), mistake) for wrong, mistake in self.suspects]
        off = abs(self.value - self.expected)
        room = max(self.tolerance, 1e-4 * off)
        return min((m for m in near if m[0] <= room), default=(math.nan, None))[1]

    @property
    def rounded(self) -> bool:
        """Whether it is off by no more than single precision rounds, and so may just have been computed in it."""
        return not self.holds and abs(self.value - self.expected) <= FLOAT32 * max(abs(self.expected), 1.0)

    def __str__(self) -> str:
        sign = "=" if self.holds else "≠"
        return f"{self.what}: {self.value:.10g} {sign} {self.expected:.10g} ± {self.tolerance:.1e}"


@dataclass(frozen=True)
class Truth:
    """An analytic fact that a correct model meets and a wrong one does not.

    claim: one line.     source: where the fact is proved.     needs: the methods that a class must have to be checked, "a|b|c"
    for any of these.
    check(cls) -> findings, all of which must hold.
    made_of: how the parameters of its constructor must begin, by name; () for any.
    without: methods by which other kinds of models are known, that are made in the same way.
    mistakes: what is likely to be wrong with a class that fails, where its findings do not tell more.
    """

    name: str
    claim: str
    source: str
    needs: tuple[str, ...]
    check: Callable[[type], list[Finding]]
    made_of: tuple[str, ...] = ()
    mistakes: str = ""
    without: tuple[str, ...] = ()

    def fits(self, cls: type) -> bool:
        """Whether it can be checked for this class."""
        return not self.lacks(cls)

    def lacks(self, cls: type) -> str:
        """What the class would need to be checked, in words; "" where it lacks nothing."""
        has = lambda name: callable(getattr(cls, name, None))
        missing = [need for need in self.needs if not any(has(name) for name in need.split("|"))]
        if missing:
            return f"it has no {' and no '.join(missing)}".replace("|", " or ")
        others = [name for name in self.without if callable(getattr(cls, name, None))]
        if others:
            return f"it is another kind of model: it has {' and '.join(others)}"
        if self.made_of and parameters_of(cls)[: len(self.made_of)] != self.made_of:
            return f"it is not made as {cls.__name__}({', '.join(self.made_of)}, ...)"
        return ""


def parameters_of(cls: type) -> tuple[str, ...]:
    """The names of the parameters of a class's constructor."""
    return tuple(inspect.signature(cls).parameters)


def supported(cls: Any, option: str, every: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a class says in `supports` that it knows of an option; all that there is, where it says nothing."""
    return tuple(getattr(cls, "supports", {}).get(option, every))


def array(x: Any) -> np.ndarray:
    """The raw array of a Tensor, or of what is one already."""
    return x.data if isinstance(x, Tensor) else np.asarray(x)


class Impulses:
    """A generator each of whose draws, value for value, is 1 for one sample and 0 for all others.

    Of draws (N, D) the first D samples get one value each, those of the next draws the samples after them. What a sampler that
    is linear in its noise makes of it are then the columns of its matrix: the sum of their squares is its variance, for noise
    of variance 1. With a sample to spare there is one without noise. scale: of the impulses, in the place of 1.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.values, self.scale = 0, scale

    def normal(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, dtype: Any = None) -> np.ndarray:
        """(N, ...) float64. Raises ValueError where there are more values to draw than samples to show them."""
        size = math.prod(shape[1:])
        if self.values + size > shape[0]:
            raise ValueError(f"more noise is drawn than it takes: {self.values + size} values for each of {shape[0]} samples")
        unit = np.zeros((shape[0], size))
        unit[self.values + np.arange(size), np.arange(size)] = self.scale
        self.values += size
        return mean + std * unit.reshape(shape)


class SigmaPoints:
    """A generator whose noise is one of 2D fixed points, ±√D e_i, which together have mean 0 and covariance I.

    The average of a polynomial of second degree over them is exactly its expectation over N(0, I). Point i of each is what
    call i of `normal` returns, for every sample of the batch; a shape (2D, N, D) gets all of them at once.
    """

    def __init__(self, dimension: int):
        axes = np.sqrt(dimension) * np.eye(dimension)
        self.points = np.concatenate([axes, -axes])  # (2D, D)
        self.calls = 0

    def __len__(self) -> int:
        return len(self.points)

    def normal(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
        """(N, D) -> the next point, N times.     (2D, N, D) -> point i in row i.     Raises ValueError for other shapes."""
        if shape[-1] != self.points.shape[1] or len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != len(self)):
            raise ValueError(f"SigmaPoints: noise of shape (N, D) or (2D, N, D) for D = {self.points.shape[1]}, not {shape}")
        points = self.points[:, None] if len(shape) == 3 else self.points[self.calls % len(self)]
        self.calls += 1
        return (mean + std * np.broadcast_to(points, shape)).astype(dtype)
