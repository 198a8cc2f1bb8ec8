"""Two-dimensional toy distributions whose density is known, so that a model can be measured and not only looked at.

Start at `Toy`, then at the table `TOYS` at the end. Four constructions cover all of them, each a pair of functions that
draw samples and give the density:

    gaussians       a mixture of Gaussians                                  density in closed form
    noisy_curves    a point on a curve, plus Gaussian noise                 density by quadrature along the curve
    pinwheel        a mixture of Gaussians, turned but nowhere stretched    density in closed form
    checkerboard    uniform on squares                                      density in closed form

Each entropy in the table was integrated from the density by `integrate`, and a test does so again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from minigen.random import Generator

CHUNK = 2048  # points whose distances to all components are in memory at once

Draw = Callable[[int, "Generator"], np.ndarray]  # n, rng -> (n, 2)
Density = Callable[[np.ndarray], np.ndarray]  # finite (N, 2) float64 -> (N,) log density
Curve = Callable[[np.ndarray], np.ndarray]  # s in [0, 1], (N,) -> (N, 2)


@dataclass(frozen=True, eq=False)
class Toy:
    """A distribution in the plane: `sample(n, rng)`, `log_density(x)`, and its differential `entropy` in nats.

    box: (low, high) of each coordinate; less than 1e-6 of the probability lies outside.
    sigma: standard deviation of the Gaussian noise, None where there is none or more than one.
    modes: (K, 2) centres of a plain mixture of Gaussians, else None.
    draw, density: what `sample` and `log_density` rest on.
    """

    name: str
    description: str
    draw: Draw
    density: Density
    entropy: float
    box: tuple[tuple[float, float], tuple[float, float]]
    sigma: float | None = None
    modes: np.ndarray | None = None

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """(n, 2) float32: independent draws."""
        return self.draw(n, rng).astype(np.float32)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """ln p(x) for points x (N, 2) of any float type: (N,) float64. -inf where p = 0 and at infinity, NaN for NaN.

        Raises ValueError for any other shape.
        """
        if x.ndim != 2 or x.shape[1] != 2:
            raise ValueError(f"{self.name}.log_density: x has shape {x.shape}, expected (N, 2)")
        result = np.where(np.isnan(x).any(axis=1), np.nan, -np.inf)  # (N,)
        finite = np.flatnonzero(np.isfinite(x).all(axis=1))
        for start in range(0, len(finite), CHUNK):
            rows = finite[start : start + CHUNK]
            result[rows] = self.density(x[rows].astype(np.float64))
        return result


def integrate(toy: Toy, step: float) -> tuple[float, float]:
    """Total probability and entropy in nats, by the midpoint rule with square cells of side `step` over `toy.box`.

    For the smooth densities here the error falls faster than any power of the step once that is below sigma.
    """
    axes = [np.arange(low + step / 2, high, step) for low, high in toy.box]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)  # (N, 2)
    log_p = toy.log_density(grid)
    p = np.exp(log_p)
    return float(p.sum() * step**2), float(-np.sum(p * np.where(p > 0, log_p, 0)) * step**2)


def gaussians(centres: np.ndarray, sigma: float) -> tuple[Draw, Density]:
    """Equal mixture of round Gaussians at `centres` (K, 2)."""
    log_weights = np.full(len(centres), -np.log(len(centres)))

    def draw(n: int, rng: Generator) -> np.ndarray:
        return centres[rng.integers(0, len(centres), (n,))] + sigma * rng.normal((n, 2))

    return draw, lambda x: _log_mixture(x, centres, log_weights, sigma)


def noisy_curves(curves: tuple[Curve, ...], sigma: float, nodes: int, power: int = 1) -> tuple[Draw, Density]:
    """x = c(s) + sigma n: a curve c chosen at random, s with density power * s^(power - 1) on [0, 1], n normal.

    p(x) = mean over c of  integral of power s^(power - 1) N(x; c(s), sigma^2 I) ds.   Gauss-Legendre quadrature with
    `nodes` nodes on each curve turns that into a mixture of Gaussians. Where p matters it is exact to 1e-10 once the
    nodes lie less than sigma apart.
    """

    def draw(n: int, rng: Generator) -> np.ndarray:
        which = rng.integers(0, len(curves), (n,))
        s = rng.uniform((n,)) ** (1 / power)
        points = np.stack([curve(s) for curve in curves])[which, np.arange(n)]  # (curves, n, 2) -> (n, 2)
        return points + sigma * rng.normal((n, 2))

    def density(x: np.ndarray) -> np.ndarray:
        s, weights = _gauss_legendre(nodes)
        centres = np.concatenate([curve(s) for curve in curves])  # (curves * nodes, 2)
        log_weights = np.log(weights * power * s ** (power - 1) / len(curves))  # (nodes,)
        return _log_mixture(x, centres, np.tile(log_weights, len(curves)), sigma)

    return draw, density


def pinwheel(arms: int, radial: float, tangential: float, rate: float) -> tuple[Draw, Density]:
    """Gaussian arms around the origin, at radius 1 before scaling by 2, each bent by a turn that grows with the radius.

    An arm is f ~ N((1, 0), diag(radial^2, tangential^2)), turned to its direction, then turned by rate * exp(|f|). A
    turn by a function of the radius keeps areas, so p needs no Jacobian but the scale's. (Johnson et al. 2016, arXiv
    1603.06277, turn by rate * exp(f_1) instead, which looks the same and has no closed-form density.)
    """
    directions = 2 * np.pi * np.arange(arms) / arms
    spread = np.array([radial, tangential])

    def draw(n: int, rng: Generator) -> np.ndarray:
        arm = rng.integers(0, arms, (n,))
        features = np.array([1.0, 0.0]) + spread * rng.normal((n, 2))
        return 2 * _turn(features, -directions[arm] - _twist(features))

    def _twist(y: np.ndarray) -> np.ndarray:
        radius = np.sqrt((y**2).sum(axis=1))  # (N,)
        return rate * np.exp(np.minimum(radius, 100))  # far outside of every arm any angle will do

    def density(x: np.ndarray) -> np.ndarray:
        untwisted = _turn(x / 2, _twist(x / 2))  # (N, 2)
        features = np.stack([_turn(untwisted, angle) for angle in directions], axis=1)  # (N, arms, 2)
        standard = (features - np.array([1.0, 0.0])) / spread
        log_arm = -0.5 * (standard**2).sum(axis=2) - np.log(2 * np.pi * radial * tangential)  # (N, arms)
        return _logsumexp(log_arm) - np.log(arms) - np.log(4)  # 4: the area of a unit square scaled by 2

    return draw, density


def checkerboard() -> tuple[Draw, Density]:
    """Uniform on the 8 dark squares, of side 2, of a 4 x 4 board over [-4, 4)^2; the lower left one is dark."""

    def draw(n: int, rng: Generator) -> np.ndarray:
        column = rng.integers(0, 4, (n,))
        row = 2 * rng.integers(0, 2, (n,)) + column % 2
        corner = (2 * np.stack([column, row], axis=1) - 4).astype(np.float32)  # (n, 2)
        above = np.nextafter(corner + 2, np.float32(-np.inf))  # float32 would round 2 + 1.9999999 into the next square
        return np.minimum(corner + 2 * rng.uniform((n, 2)), above)

    def density(x: np.ndarray) -> np.ndarray:
        square = np.floor((x + 4) / 2)  # (N, 2) column and row
        on_board = ((square >= 0) & (square < 4)).all(axis=1)
        return np.where(on_board & (square.sum(axis=1) % 2 == 0), -np.log(32), -np.inf)

    return draw, density


def _log_mixture(x: np.ndarray, centres: np.ndarray, log_weights: np.ndarray, sigma: float) -> np.ndarray:
    """ln sum_k w_k N(x; centre_k, sigma^2 I): x (N, 2), centres (K, 2), log_weights (K,) -> (N,)."""
    squares = (x[:, None, 0] - centres[:, 0]) ** 2 + (x[:, None, 1] - centres[:, 1]) ** 2  # (N, K)
    return _logsumexp(log_weights - squares / (2 * sigma**2)) - np.log(2 * np.pi * sigma**2)


def _logsumexp(a: np.ndarray) -> np.ndarray:
    """Over the last axis of finite a (N, K)."""
    top = a.max(axis=1)
    return top + np.log(np.exp(a - top[:, None]).sum(axis=1))


@functools.cache
def _gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1]."""
    s, weights = np.polynomial.legendre.leggauss(nodes)
    return (s + 1) / 2, weights / 2


def _turn(x: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Rotate points (N, 2) counter-clockwise by `angle`, radians, one or (N,)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x[:, 0] * cos - x[:, 1] * sin, x[:, 0] * sin + x[:, 1] * cos], axis=1)


def _arc(radius: float, turns: float, centre: tuple[float, float] = (0.0, 0.0), start: float = 0.0) -> Curve:
    """Part of a circle, from the angle `start` counter-clockwise through `turns` full turns."""

    def curve(s: np.ndarray) -> np.ndarray:
        angle = start + 2 * np.pi * turns * s
        return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], axis=-1)

    return curve


def _spiral(sign: int) -> Curve:
    """One and a half turns outwards from the origin, to the radius pi."""

    def curve(s: np.ndarray) -> np.ndarray:
        angle = 3 * np.pi * s
        return sign * angle[..., None] / 3 * np.stack([-np.cos(angle), np.sin(angle)], axis=-1)

    return curve


def _ring(count: int, radius: float) -> np.ndarray:
    angle = 2 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _grid(side: int, spacing: float) -> np.ndarray:
    axis = spacing * (np.arange(side) - (side - 1) / 2)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def _mixture(name: str, description: str, centres: np.ndarray, sigma: float, entropy: float) -> Toy:
    reach = float(np.abs(centres).max() + 6 * sigma)
    box = ((-reach, reach), (-reach, reach))
    return Toy(name, description, *gaussians(centres, sigma), entropy, box, sigma, centres)


def _moons(name: str, sigma: float, entropy: float) -> Toy:
    upper, lower = _arc(1.0, 0.5), _arc(1.0, 0.5, centre=(1.0, 0.5), start=np.pi)
    box = ((-1 - 6 * sigma, 2 + 6 * sigma), (-0.5 - 6 * sigma, 1 + 6 * sigma))
    draw, density = noisy_curves((upper, lower), sigma, nodes=200)
    return Toy(name, f"two interleaved half circles, noise {sigma}", draw, density, entropy, box, sigma)


TOYS = {  # entropies in nats, rounded to six decimals
    toy.name: toy
    for toy in (
        _moons("moons", 0.1, entropy=1.007585),
        _moons("moons-fine", 0.05, entropy=0.289234),
        Toy(
            "circles",
            "two concentric circles, noise 0.08",
            *noisy_curves((_arc(1.0, 1.0), _arc(0.5, 1.0)), 0.08, nodes=200),
            entropy=1.070911,
            box=((-1.5, 1.5), (-1.5, 1.5)),
            sigma=0.08,
        ),
        Toy(
            "spirals",
            "two spiral arms of one and a half turns, noise 0.1",
            *noisy_curves((_spiral(1), _spiral(-1)), 0.1, nodes=400, power=2),
            entropy=2.540618,
            box=((-4.0, 4.0), (-4.0, 4.0)),
            sigma=0.1,
        ),
        Toy(
            "pinwheel",
            "five bent arms",
            *pinwheel(arms=5, radial=0.3, tangential=0.1, rate=0.25),
            entropy=2.320588,
            box=((-5.6, 5.6), (-5.6, 5.6)),
        ),
        Toy("checkerboard", "dark squares of a 4 x 4 board", *checkerboard(), 3.465736, ((-4.0, 4.0), (-4.0, 4.0))),
        _mixture("8gaussians", "eight Gaussians on a circle, just overlapping", _ring(8, 8**0.5), 8**-0.5, 2.831578),
        _mixture("25gaussians", "a 5 x 5 grid of narrow Gaussians", _grid(5, 2.0), 0.05, 0.065288),
        _mixture("ring-8", "eight needle-sharp Gaussians on a circle", _ring(8, 2.0), 0.02, -2.906727),
        _mixture("grid-9", "a 3 x 3 grid of narrow Gaussians", _grid(3, 2.0), 0.05, -0.956363),
    )
}
