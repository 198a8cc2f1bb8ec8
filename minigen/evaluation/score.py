"""Numbers about samples that can be believed: each beside what other real data score in the samples' place. Start at `Score`.

`compare` scores vectors, `SCORES` is the table of what it computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..random import Generator
from .distances import frechet_distance, kid, median_distance, mmd, sliced_wasserstein
from .neighbours import density_coverage, precision_recall


@dataclass(frozen=True)
class Score:
    """A number about n samples of a model.

    floor: the same number for what `floor_of` says: n other real samples in their place, what a perfect model would score.
    data: which data, and which of their features.     Raises ValueError without a floor: such a number means nothing, since all
    of these depend on n.
    """

    name: str
    value: float
    floor: float
    n: int
    data: str
    floor_of: str = "real against real"

    def __post_init__(self) -> None:
        if self.floor is None or not math.isfinite(self.floor):
            raise ValueError(f"{self.name} means nothing alone: give the score of real data at the same n, not {self.floor}")

    def __str__(self) -> str:
        return f"{self.name} {_four(self.value)} (n = {self.n}, {self.data}); {self.floor_of} {_four(self.floor)}"


class Set(NamedTuple):
    """What is compared: n samples, n real ones, and all real ones that there are, for the moments.  (n, D), (n, D), (N, D)"""

    samples: np.ndarray
    real: np.ndarray
    all_real: np.ndarray


SCORES: dict[str, Callable[[Set], tuple[float, ...]]] = {  # names, with commas where there are several, and the function
    "LeNet-FID": lambda s: (frechet_distance(s.samples, s.all_real),),
    "KID": lambda s: (kid(s.samples, s.real),),
    "MMD²": lambda s: (mmd(s.samples, s.real, median_distance(s.real)),),
    "sliced W₂²": lambda s: (sliced_wasserstein(s.samples, s.real, Generator(0)),),
    "precision, recall": lambda s: precision_recall(s.real, s.samples),
    "density, coverage": lambda s: density_coverage(s.real, s.samples),
}
FOR_FEATURES = ("LeNet-FID", "KID", "precision, recall", "density, coverage")
FOR_POINTS = ("MMD²", "sliced W₂²", "precision, recall", "density, coverage")


def compare(samples: np.ndarray, real: np.ndarray, others: np.ndarray, names: tuple[str, ...], data: str) -> list[Score]:
    """Scores of samples (n, D) against real data (N, D), each beside that of other real data (at least n, D).

    The FID takes all N real vectors for its moments, the pairwise scores the first n of them. `others` must come from the same
    distribution and share no sample with `real`: training data, where `real` are test data.
    Raises ValueError where there are fewer than n of either.
    """
    n = len(samples)
    if min(len(real), len(others)) < n:
        raise ValueError(f"{n} samples against {len(real)} real ones, and {len(others)} for the floor: give at least as many")
    found = []
    for joint in names:
        values, floors = (SCORES[joint](Set(some, real[:n], real)) for some in (samples, others[:n]))
        for name, value, floor in zip(joint.split(", "), values, floors, strict=True):
            found.append(Score(name, value, floor, n, data))
    return found


def _four(value: float) -> str:
    """Four digits, and no exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{min(6, max(0, 3 - math.floor(math.log10(abs(value)))))}f}"
