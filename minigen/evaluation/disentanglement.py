"""Whether a code tells the factors of the data apart: the mutual information gap. Start at `mig`."""

from __future__ import annotations

import numpy as np

BINS = 20  # of each dimension of a code


def mig(codes: np.ndarray, factors: np.ndarray, bins: int = BINS) -> float:
    """Mean over factors v of (I(z_a; v) - I(z_b; v))/H(v), z_a and z_b the two code dimensions that know most of v.

    codes: (N, D) with D at least 2.     factors: (N, F) integers.     -> about 0 to 1              (Chen 2018, eq. 6)
    1 where each factor has one code dimension of its own; near 0 where codes share factors, or know nothing. Codes are
    cut into `bins` equal intervals, as by Locatello 2019; mutual information is then biased upwards, by much the same for all
    dimensions. A factor that does not vary does not count.     proved by: truth mig
    Raises ValueError for other shapes, and for factors none of which varies.
    """
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or codes.shape[1] < 2:
        raise ValueError(f"mig: codes (N, D), D at least 2, and factors (N, F), not {codes.shape} and {factors.shape}")
    cells = [_binned(z, bins) for z in codes.T]
    gaps = []
    for column in factors.T:
        v = np.unique(column, return_inverse=True)[1]
        entropy = _entropy(np.bincount(v))
        if entropy > 0:
            first, second = sorted((_mutual_information(z, v) for z in cells), reverse=True)[:2]
            gaps.append((first - second) / entropy)
    if not gaps:
        raise ValueError("mig: none of the factors varies")
    return float(np.mean(gaps))


def _binned(z: np.ndarray, bins: int) -> np.ndarray:
    """Which of `bins` equal intervals from the lowest to the highest value.     (N,) -> (N,) int"""
    edges = np.linspace(z.min(), z.max(), bins + 1)[1:-1]
    return np.digitize(z, edges)


def _mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """I = H(a) + H(b) - H(a, b) of integers.     nats"""
    joint = np.bincount(a * (b.max() + 1) + b)
    return _entropy(np.bincount(a)) + _entropy(np.bincount(b)) - _entropy(joint)


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
