"""Every figure that the program draws. Start at `image_grid`.

Each function takes plain arrays and a path, writes one PNG, and returns the path. matplotlib is imported at the first figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

INK, ACCENT, MUTED = "#1f2430", "#3b6ea8", "#8a93a3"
SERIES = ("#3b6ea8", "#c1663a", "#4c8c4a", "#8a5aa8", "#b09a2c")  # told apart also by lightness


def image_grid(images: np.ndarray, path: Path, title: str = "", columns: int | None = None) -> Path:
    """Images (N, H, W, C) in [0, 1], C = 1 or 3, in rows from the top left. Grey ones are drawn dark on white."""
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    tiled = _tile(images, columns)
    height, width = tiled.shape[:2]
    size = max(4.0, columns * 0.55)
    fig, ax = _figure(size, size * height / width + (0.45 if title else 0.0))
    _show(ax, tiled)
    _title(fig, ax, title)
    return _save(fig, path)


def reconstructions(originals: np.ndarray, seen: np.ndarray, rebuilt: np.ndarray, path: Path, title: str = "") -> Path:
    """Three rows of images (N, H, W, C): the data, what the model saw of it (binarised, say), and its reconstruction."""
    n, tall, wide = originals.shape[:3]
    fig, ax = _figure(1.6 + n * 0.62, 3 * 0.62 * tall / wide + 0.5)
    _show(ax, _tile(np.concatenate([originals, seen, rebuilt]), n))
    for row, name in enumerate(("data", "as seen", "rebuilt")):
        ax.text(-2, (row + 0.5) * (tall + 1), name, ha="right", va="center", fontsize=9, color=INK)
    _title(fig, ax, title)
    return _save(fig, path)


def latent_scatter(codes: np.ndarray, labels: np.ndarray | None, path: Path, title: str = "", axes: Sequence[str] = ()) -> Path:
    """2-D codes (N, 2), coloured by label, each class named at its median."""
    import matplotlib.pyplot as plt

    fig, ax = _figure(5.2, 5.0)
    if labels is None:
        ax.scatter(*codes.T, s=4, color=ACCENT, alpha=0.5, linewidths=0)
    else:
        colours = plt.get_cmap("tab10")
        for label in np.unique(labels):
            chosen = codes[labels == label]
            ax.scatter(*chosen.T, s=5, color=colours(int(label) % 10), alpha=0.55, linewidths=0)
        for label in np.unique(labels):
            x, y = np.median(codes[labels == label], axis=0)
            ax.text(x, y, str(label), ha="center", va="center", fontsize=11, weight="bold", color=INK, bbox=_BADGE)
    for set_label, name in zip((ax.set_xlabel, ax.set_ylabel), axes, strict=False):
        set_label(name, fontsize=9, color=INK)
    _plain_axes(ax)
    _title(fig, ax, title)
    return _save(fig, path)


def points(samples: np.ndarray, data: np.ndarray, path: Path, title: str = "") -> Path:
    """2-D samples (N, 2) of a model beside the data (N, 2), at one scale."""
    fig, axs = _figure(8.0, 4.2, columns=2)
    low, high = np.quantile(data, [0.001, 0.999], axis=0)
    margin = 0.15 * (high - low)
    for ax, xy, name in zip(axs, (data, samples), ("data", "model"), strict=True):
        ax.scatter(*xy.T, s=3, color=ACCENT, alpha=0.4, linewidths=0)
        ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
        ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
        ax.set_title(name, fontsize=10, color=INK)
        _plain_axes(ax)
    fig.suptitle(title, fontsize=11, color=INK)
    return _save(fig, path)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: Path,
    title: str = "",
    xlabel: str = "step",
    ylabel: str = "nats per sample",
    lines: Mapping[str, float] | None = None,
) -> Path:
    """Curves by name, (x values, y values) each, with horizontal lines such as a floor or a baseline drawn in.

    The vertical range follows the last three quarters of the curves and the lines, so that the start does not hide the rest.
    """
    fig, ax = _figure(6.4, 4.0)
    settled: list[float] = []
    for colour, (name, (x, y)) in zip(SERIES * len(series), series.items(), strict=False):
        ax.plot(x, y, color=colour, linewidth=1.4, label=name)
        settled += list(np.asarray(y, float)[len(y) // 4 :])
    for style, (name, value) in zip((":", "--", "-."), (lines or {}).items(), strict=False):
        ax.axhline(value, color=MUTED, linewidth=1.2, linestyle=style, label=f"{name}: {value:.2f}")
        settled.append(value)
    finite = [v for v in settled if np.isfinite(v)]
    if finite:
        low, high = min(finite), max(finite)
        margin = 0.08 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)
    ax.set_xlabel(xlabel, fontsize=9, color=INK)
    ax.set_ylabel(ylabel, fontsize=9, color=INK)
    ax.grid(True, color="#e6e8ec", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(fontsize=8, frameon=False)
    _plain_axes(ax)
    _title(fig, ax, title)
    return _save(fig, path)


_BADGE = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")  # figures go to files: no window, no display needed
    import matplotlib.pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), dpi=110, layout="constrained")


def _tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (N, H, W, C) in one picture (rows (H+1), columns (W+1), C), with a line of NaN between them."""
    n, h, w, c = images.shape
    rows = -(-n // columns)
    tiled = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, c), np.nan, np.float32)
    for i, image in enumerate(images):
        y, x = i // columns * (h + 1), i % columns * (w + 1)
        tiled[y : y + h, x : x + w] = image
    return tiled


def _show(ax: Any, picture: np.ndarray) -> None:
    if picture.shape[-1] == 1:
        ax.imshow(picture[..., 0], cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    else:
        ax.imshow(np.where(np.isnan(picture), 1.0, np.clip(picture, 0, 1)), interpolation="nearest")
    ax.set_axis_off()


def _title(fig: Any, ax: Any, title: str) -> None:
    if title:
        ax.set_title(title, fontsize=10, color=INK, loc="left")


def _plain_axes(ax: Any) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)


def _save(fig: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    fig.savefig(path)
    plt.close(fig)
    return path
