"""log ∫ exp(-E) over the plane, by quadrature that refines itself where the mass is. Start at `log_partition`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .model import Diverged

SPLIT = 3  # a cell is cut into 3 x 3: its middle stays one
PIECE = 1 << 16  # points that are evaluated at a time
MOST = 1_000_000  # points in one refinement


def log_partition(
    energy: Callable[[np.ndarray], np.ndarray],
    centre: np.ndarray,
    half: float,
    cells: int = 160,
    tolerance: float = 1e-4,
    rounds: int = 6,
) -> tuple[float, float]:
    """log Z = log ∫ exp(-E(x)) dx, and by how much the last refinement changed it.     nats

    energy: (N, 2) float32 -> (N,).     centre, half: the square to start with, which is widened while mass lies at its rim.
    The midpoint rule on cells² squares. Cells that hold nearly all of the mass, all but `tolerance`, are cut into 3 x 3 again
    and again, until log Z moves by less than `tolerance`. No peak may be so narrow that all midpoints miss it: a first cell
    should be about as wide as the narrowest one.
    Raises Diverged where mass reaches out without end, or the refinement does not settle.
    """
    for _ in range(rounds):
        x, side = _grid(centre, half, cells)
        log_mass = _masses(energy, x, side)
        rim = np.abs(x - centre).max(axis=1) > half - 2 * side
        if not np.isfinite(log_mass).all():
            raise Diverged(f"log Z cannot be had: the energy is not finite everywhere within {half:g} of {centre}")
        if _log_sum(log_mass[rim]) < _log_sum(log_mass) + np.log(tolerance / 100):
            break
        half *= 1.5
        cells = round(1.5 * cells)
    else:
        raise Diverged(f"log Z cannot be had: there is mass {half:g} away from {centre}; does the energy rise far out?")
    done: list[float] = []  # log masses of what is cut no further
    log_z = _log_sum(log_mass)
    for _ in range(rounds):
        heavy = _heaviest(log_mass, 1 - tolerance / 2)
        if SPLIT**2 * heavy.sum() > MOST:
            break
        done.append(_log_sum(log_mass[~heavy]))
        x, side = _cut(x[heavy], side), side / SPLIT
        log_mass = _masses(energy, x, side)
        before, log_z = log_z, float(np.logaddexp.reduce([_log_sum(log_mass), *done]))
        if abs(log_z - before) < tolerance:
            return log_z, abs(log_z - before)
    raise Diverged(f"log Z cannot be had: it has not settled within {tolerance:.1e} nats in cells of {side:.1e}")


def _grid(centre: np.ndarray, half: float, cells: int) -> tuple[np.ndarray, float]:
    """Midpoints of the cells of a square, and their side.     -> (cells², 2) float64"""
    side = 2 * half / cells
    axis = side * (np.arange(cells) + 0.5) - half
    return centre + np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2), side


def _cut(x: np.ndarray, side: float) -> np.ndarray:
    """Midpoints of the 3 x 3 parts of each cell.     (N, 2) -> (9 N, 2)"""
    return (x[:, None] + _grid(np.zeros(2), side / 2, SPLIT)[0]).reshape(-1, 2)


def _masses(energy: Callable[[np.ndarray], np.ndarray], x: np.ndarray, side: float) -> np.ndarray:
    """log of the mass of each cell.     (N, 2) -> (N,) float64"""
    pieces = [energy(x[i : i + PIECE].astype(np.float32)) for i in range(0, len(x), PIECE)]
    return 2 * np.log(side) - np.concatenate(pieces).astype(np.float64)


def _heaviest(log_mass: np.ndarray, share: float) -> np.ndarray:
    """The fewest cells that hold this share of the mass.     -> (N,) bool"""
    order = np.argsort(-log_mass)
    mass = np.cumsum(np.exp(log_mass[order] - log_mass[order[0]]))
    heavy = np.zeros(len(log_mass), bool)
    heavy[order[: int(np.searchsorted(mass, share * mass[-1])) + 1]] = True
    return heavy


def _log_sum(a: np.ndarray) -> float:
    """log Σ exp a; -inf for none."""
    return float(np.logaddexp.reduce(a)) if len(a) else -np.inf
