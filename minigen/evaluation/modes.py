"""Does a model find all modes of the data, and hit them? For data whose modes are known. Start at `count_modes`.

A count of modes alone says little: among 10,000 scattered points some lie near every mode. So three numbers stand together,
each beside what the data themselves would get, and `ModeReport` prints no one of them without the others:

    high-quality share   how much of what is drawn lies on a mode at all
    modes hit            how many modes have at least HITS such samples
    reverse KL           how unevenly samples fall to the modes

`spread` puts the reports of several seeds together; one seed of a GAN says little too. For images a classifier takes the
place of the modes: `count_classes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

HITS = 20  # high-quality samples that make a mode a hit
SIGMAS = 3.0  # how far from its mode a sample of high quality may be
SAMPLES = 2500  # as in the papers that count modes: VEEGAN (Srivastava 2017), PacGAN (Lin 2018)


@dataclass(frozen=True)
class ModeReport:
    """What n samples have done to K modes.

    share: of the samples within `sigmas` of a mode.     ideal: the same for samples of the data.
    hit: modes with at least HITS high-quality samples, of `modes`.     reverse_kl: in nats, 0 to log K; see `reverse_kl`.
    """

    n: int
    share: float
    ideal: float
    hit: int
    modes: int
    reverse_kl: float
    sigmas: float

    def __str__(self) -> str:
        return _told(self, f"{self.share:.3f}", f"{self.hit}", f"{self.reverse_kl:.3f}")


def count_modes(samples: np.ndarray, centres: np.ndarray, sigma: float, sigmas: float = SIGMAS) -> ModeReport:
    """Samples (n, 2) against an equal mixture of Gaussians N(centre, sigma² I) at centres (K, 2).

    Each sample belongs to the mode nearest to it. Of the data, 1 - exp(-sigmas²/2) lie within `sigmas` of their own centre
    (a Rayleigh distribution). Raises ValueError for samples of another shape, or none, and where circles of that size overlap,
    so that the share of the data would not be that number.
    """
    if samples.ndim != 2 or samples.shape[1:] != centres.shape[1:] or len(samples) == 0:
        raise ValueError(f"count_modes: needs samples (n, 2) and centres (K, 2), not {samples.shape} and {centres.shape}")
    apart = _distances(centres, centres) + np.diag(np.full(len(centres), math.inf))
    if apart.min() < 2 * sigmas * sigma:
        raise ValueError(
            f"count_modes: two modes are {apart.min():.3g} apart, and circles of radius {sigmas:g} sigma = "
            f"{sigmas * sigma:.3g} around them overlap: choose fewer sigmas"
        )
    distances = _distances(samples, centres)  # (n, K)
    nearest = distances.argmin(axis=1)  # (n,)
    good = distances.min(axis=1) <= sigmas * sigma  # (n,); a NaN is not good
    hits = np.bincount(nearest[good], minlength=len(centres))  # (K,)
    return ModeReport(
        n=len(samples),
        share=float(good.mean()),
        ideal=1 - math.exp(-0.5 * sigmas**2),
        hit=int((hits >= HITS).sum()),
        modes=len(centres),
        reverse_kl=reverse_kl(np.bincount(nearest, minlength=len(centres))),
        sigmas=sigmas,
    )


def reverse_kl(counts: np.ndarray) -> float:
    """KL(q ‖ uniform) = log K - H(q) in nats, q the frequencies of K modes or classes: 0 for even ones, log K for a single one.

    Samples of a uniform distribution get about (K - 1)/(2n), not 0: their frequencies are not quite even.
    """
    q = counts[counts > 0] / counts.sum()
    return float(math.log(len(counts)) + (q * np.log(q)).sum())


def spread(reports: Sequence[ModeReport], what: str = "seeds") -> str:
    """Several of `what` in one line: mean ± standard deviation of each number.

    Raises ValueError for fewer than two reports, or for unlike ones.
    """
    first = reports[0] if reports else None
    alike = first and all((r.n, r.modes, r.sigmas) == (first.n, first.modes, first.sigmas) for r in reports)
    if first is None or len(reports) < 2 or not alike:
        raise ValueError(f"spread: {len(reports)} reports; at least 2, with equal n, modes and sigmas, have a spread to tell")

    def told(name: str, digits: int) -> str:
        values = np.array([getattr(r, name) for r in reports], np.float64)
        return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"

    return f"{_told(first, told('share', 3), told('hit', 1), told('reverse_kl', 3))}, {len(reports)} {what}"


def _told(like: ModeReport, share: str, hit: str, kl: str) -> str:
    even = (like.modes - 1) / (2 * like.n)
    return (
        f"high-quality share {share} within {like.sigmas:g} sigma (data: {like.ideal:.3f}); "
        f"modes with at least {HITS} hits {hit} of {like.modes}; "
        f"reverse KL {kl} nats (data: {even:.3f}, one mode: {math.log(like.modes):.3f}); n = {like.n}"
    )


# ---- images: classes in the place of modes


@dataclass(frozen=True)
class ClassReport:
    """How samples spread over classes.     share: (K,), of the samples.     data: (K,), of the data, to compare with.

    missing: classes that the data have and no sample.     kl: KL(share ‖ data) in nats.
    """

    n: int
    share: np.ndarray
    data: np.ndarray

    @property
    def missing(self) -> list[int]:
        """Classes of the data of which there is no sample."""
        return np.flatnonzero((self.share == 0) & (self.data > 0)).tolist()

    @property
    def kl(self) -> float:
        """KL(classes of the samples ‖ classes of the data), in nats."""
        there = self.share > 0
        with np.errstate(divide="ignore"):  # a class that the data have not: infinitely far
            return float((self.share[there] * np.log(self.share[there] / self.data[there])).sum())

    def __str__(self) -> str:
        percent = " ".join(f"{100 * s:.1f}" for s in self.share)
        gone = f"; none of class {', '.join(map(str, self.missing))}" if self.missing else "; no class is missing"
        return f"classes in percent {percent}{gone}; KL to the data's {self.kl:.4f} nats; n = {self.n}"


def count_classes(
    samples: np.ndarray, classify: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, batch_size: int = 500
) -> ClassReport:
    """What a classifier takes samples for.

    samples: (n, H, W, C) in [0, 1].     classify: such images -> (n,) int, or (n, K) scores of which the largest counts.
    labels: (N,) int, those of the data, from 0 to K - 1.     Raises ValueError for a class that is none of those.
    """
    found = []
    for i in range(0, len(samples), batch_size):
        said = np.asarray(classify(samples[i : i + batch_size]))
        found.append(said if said.ndim == 1 else said.argmax(axis=1))
    classes, k = np.concatenate(found), int(labels.max()) + 1
    if classes.min() < 0 or classes.max() >= k:
        raise ValueError(f"count_classes: the classifier knows a class {classes.max()}, the labels go from 0 to {k - 1}")
    share, data = (np.bincount(c, minlength=k) / len(c) for c in (classes, labels))
    return ClassReport(len(samples), share, data)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 2), (K, 2) -> (N, K) float64"""
    return np.linalg.norm(a[:, None].astype(np.float64) - b, axis=2)
