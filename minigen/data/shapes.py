"""Rendered shapes whose generative factors are known, for models that should find them. Start at `render`.

In the spirit of dSprites (Matthey et al. 2017), with one change: no shape here looks the same after a turn, so that
every combination of factors is another image and the rotation can be told from it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minigen.data.dataset import Dataset

FACTOR_NAMES = ("shape", "scale", "rotation", "x", "y")
STEP = 2  # pixels between neighbouring positions
SAMPLES = 8  # subpixels per pixel and axis; their mean is one of 65 grey levels
LEVELS = SAMPLES**2 + 1
SIZES = {"train": 8_192, "test": 1_024}  # of the 9,216 combinations that render() gives by default
SPLIT_SEED = 9216


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Isosceles: (0, 1) and (-0.6, -0.8), (0.6, -0.8)."""
    return (v > -0.8) & (np.abs(u) < (1 - v) / 3)


def _half_disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The lower half of the unit disc, moved up to the middle."""
    return (v < 0.4) & (u**2 + (v - 0.4) ** 2 < 0.84)


def _ell(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Three of the four quarters of a square."""
    return (np.maximum(np.abs(u), np.abs(v)) < 0.7) & ((u < 0) | (v < 0))


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # inside or not, all within the unit disc
    "triangle": _triangle,
    "half disc": _half_disc,
    "ell": _ell,
}


def render(scales: int = 4, rotations: int = 12, positions: int = 8, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Every combination of shape, scale, rotation, x and y, white on black.

    scales: number of radii, evenly spaced.   rotations: number of angles, evenly over the full turn, counter-clockwise.
    positions: number of places in x (to the right) and in y (downwards), 2 pixels apart.   size: side in pixels.

    Returns images (N, size, size, 1) float32, multiples of 1/64 in [0, 1], and factors (N, 5) int64 in the order of
    FACTOR_NAMES, the last fastest: the image with factors f is images[np.ravel_multi_index(f, counts)] with
    counts = (3, scales, rotations, positions, positions).
    Raises ValueError where the positions leave less than 8 pixels for the shape.
    """
    tile = size - STEP * (positions - 1)  # side of the window that a shape is drawn in, and that moves
    if min(scales, rotations, positions) < 1 or tile < 8:
        raise ValueError(
            f"render: scales = {scales}, rotations = {rotations}, positions = {positions} in {size} pixels leave a "
            f"window of {tile} pixels; all have to be at least 1, and the window at least 8"
        )
    sprites = _render_sprites(tile, scales, rotations)  # (S, C, R, tile, tile)
    counts = (*sprites.shape[:3], positions, positions)
    images = np.zeros((*counts, size, size), np.float32)
    for i in range(positions):
        for j in range(positions):
            left, top = STEP * i, STEP * j
            images[..., i, j, top : top + tile, left : left + tile] = sprites
    factors = np.indices(counts, dtype=np.int64).reshape(5, -1).T  # (5, S, C, R, X, Y) -> (N, 5)
    return images.reshape(-1, size, size, 1), np.ascontiguousarray(factors)


def load_split(split: str) -> Dataset:
    """The default combinations of `render`, of which 1,024, drawn with a fixed seed, are the test split.

    x (8192 or 1024, 32, 32, 1), y (N,) the shape, factors (N, 5).
    """
    from minigen.random import Generator

    images, factors = render()
    order = Generator(SPLIT_SEED).permutation(len(images))
    chosen = np.sort(order[: SIZES["test"]] if split == "test" else order[SIZES["test"] :])
    return Dataset(
        name="shapes",
        split=split,
        x=images[chosen],
        y=factors[chosen, 0],
        levels=LEVELS,
        entropy=None,
        source="rendered by minigen.data.shapes",
        description=f"{', '.join(SHAPES)}: 4 scales, 12 rotations, 8 x 8 positions",
        factors=factors[chosen],
        factor_names=FACTOR_NAMES,
    )


def _render_sprites(tile: int, scales: int, rotations: int) -> np.ndarray:
    """(shapes, scales, rotations, tile, tile) float32: each pixel the fraction of its subpixels inside the shape."""
    centre = tile / 2
    middle = (np.arange(tile * SAMPLES) + 0.5) / SAMPLES - centre  # pixels from the centre
    right, up = middle[None, :], -middle[:, None]  # rows count downwards
    sprites = np.empty((len(SHAPES), scales, rotations, tile, tile), np.float32)
    for r, angle in enumerate(2 * np.pi * np.arange(rotations) / rotations):
        cos, sin = np.cos(angle), np.sin(angle)
        along, across = right * cos + up * sin, up * cos - right * sin  # turned back, (tile * 8, tile * 8)
        for c, radius in enumerate(centre * np.linspace(0.45, 0.95, scales)):
            for s, inside in enumerate(SHAPES.values()):
                hits = inside(along / radius, across / radius).reshape(tile, SAMPLES, tile, SAMPLES)
                sprites[s, c, r] = hits.mean(axis=(1, 3))  # (tile, tile)
    return sprites
