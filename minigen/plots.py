"""Every figure that the program draws. Start at `image_grid`.

Each function takes plain arrays and returns a PNG as bytes, to be written wherever it is wanted:

    Path("samples.png").write_bytes(plots.image_grid(model.sample(64, rng)))

matplotlib is imported at the first figure, and only drawn with, never switched: a notebook keeps its backend and its style.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

INK, DATA, MUTED, LINES = "#1f2430", "#6b7482", "#8a93a3", "#dfe3e9"
SERIES = ("#3b6ea8", "#c1663a", "#4c8c4a", "#8a5aa8", "#b09a2c")  # told apart also by lightness
DPI = 120
CELL = 0.55  # inches that a small image takes, and
PIXELS = 64  # about as many pixels, with
GAP = 3  # pixels between two


def image_grid(images: np.ndarray, title: str = "", columns: int | None = None) -> bytes:
    """Images (N, H, W, C) in [0, 1], C = 1 or 3, in rows from the top left. Grey ones are drawn dark on white."""
    picture = _tile(images, columns or int(np.ceil(np.sqrt(len(images)))))
    height, width = (CELL * pixels / PIXELS for pixels in picture.shape[:2])
    fig, ax = _figure(width, height, title)
    _show(ax, picture)
    return _png(fig)


def image_rows(rows: Mapping[str, np.ndarray], title: str = "") -> bytes:
    """Rows of as many images (N, H, W, C) each, with their names at the left: the data and their reconstructions, say."""
    picture = _tile(np.concatenate(list(rows.values())), len(next(iter(rows.values()))))
    height, width = (CELL * pixels / PIXELS for pixels in picture.shape[:2])
    fig, ax = _figure(width + 0.8, height, title)
    _show(ax, picture)
    for row, name in enumerate(rows):
        y = (row + 0.5) / len(rows) * len(picture)
        ax.text(-0.2 * PIXELS, y, name, ha="right", va="center", fontsize=9, color=INK)
    return _png(fig)


def latent_scatter(codes: np.ndarray, labels: np.ndarray | None, title: str = "", axes: Sequence[str] = ()) -> bytes:
    """2-D codes (N, 2), coloured by label, each class named at its median."""
    from matplotlib import colormaps

    fig, ax = _figure(5.4, 5.0, title)
    if labels is None:
        ax.scatter(*codes.T, s=5, color=SERIES[0], alpha=0.5, linewidths=0)
    else:
        colours = colormaps["tab10" if labels.max(initial=0) < 10 else "tab20"]
        order = np.random.default_rng(0).permutation(len(codes))  # no class is always drawn over another
        ax.scatter(*codes[order].T, s=9, color=colours(labels[order] % colours.N), alpha=0.6, linewidths=0)
        for label in np.unique(labels):
            x, y = np.median(codes[labels == label], axis=0)
            ax.text(x, y, str(label), ha="center", va="center", fontsize=11, weight="bold", color=INK, bbox=_BADGE)
    for set_label, name in zip((ax.set_xlabel, ax.set_ylabel), axes, strict=False):
        set_label(name, fontsize=9, color=INK)
    _axes(ax)
    return _png(fig)


def points(samples: np.ndarray, data: np.ndarray, title: str = "") -> bytes:
    """2-D samples (N, 2) of a model beside the data (N, 2), at one scale, which is that of the data."""
    low, high = np.quantile(data, [0.001, 0.999], axis=0)
    margin = 0.12 * (high - low).max()
    wide, tall = high - low + 2 * margin
    fig, axs = _figure(8.0, 0.4 + 3.6 * tall / wide, title, columns=2)
    for ax, xy, name, colour in zip(axs, (data, samples), ("data", "model"), (DATA, SERIES[0]), strict=True):
        ax.scatter(*xy.T, s=3, color=colour, alpha=0.4, linewidths=0)
        ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
        ax.set_title(name, fontsize=9, color=INK)
        _axes(ax)
    return _png(fig)


def point_panels(panels: Mapping[str, np.ndarray], title: str = "") -> bytes:
    """2-D points (N, 2) by name, one panel each, at one scale, which is that of the first: the data."""
    first = next(iter(panels.values()))
    low, high = np.quantile(first, [0.001, 0.999], axis=0)
    margin = 0.12 * (high - low).max()
    wide, tall = high - low + 2 * margin
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    fig, axs = _figure(2.5 * columns, rows * (0.6 + 2.3 * tall / wide), title, columns, rows)
    for i, ax in enumerate(np.ravel(axs)):
        if i >= len(panels):
            ax.set_axis_off()
            continue
        name = list(panels)[i]
        ax.scatter(*panels[name].T, s=2, color=DATA if i == 0 else SERIES[0], alpha=0.35, linewidths=0)
        ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), aspect="equal")
        ax.set_title(name, fontsize=8, color=INK)
        _axes(ax)
    return _png(fig)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    xlabel: str = "step",
    ylabel: str = "nats per sample",
    lines: Mapping[str, float] | None = None,
) -> bytes:
    """Curves by name, (x values, y values) each, with horizontal lines such as a floor or a baseline drawn in.

    The vertical range follows the last three quarters of the curves and the lines, so that the start does not hide the rest.
    """
    fig, ax = _figure(6.4, 3.8, title)
    settled: list[float] = []
    for i, (name, (x, y)) in enumerate(series.items()):
        dots = {"marker": "o", "markersize": 3} if len(x) < 12 else {}
        ax.plot(x, y, color=SERIES[i % len(SERIES)], linewidth=1.4, label=name, **dots)
        settled += list(np.asarray(y, float)[len(y) // 4 :])
    for i, (name, value) in enumerate((lines or {}).items()):
        label = f"{name}: {value:.2f}".replace("-", "−")
        ax.axhline(value, color=MUTED, linewidth=1.2, linestyle=("--", ":", "-.")[i % 3], label=label)
        settled.append(value)
    low, high = min(settled), max(settled)
    margin = 0.08 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    ax.set_xlabel(xlabel, fontsize=9, color=INK)
    ax.set_ylabel(ylabel, fontsize=9, color=INK)
    ax.grid(True, color="#e6e8ec", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(fontsize=8, frameon=False)
    _axes(ax)
    return _png(fig)


def receptive_fields(seen: Mapping[str, np.ndarray], at: tuple[int, int], reach: int, title: str = "") -> bytes:
    """What an autoregressive model sees for the pixel `at`, (row, column): boolean images (H, W) by name, side by side.

    reach: how many rows up and columns to each side the kernels go; an earlier pixel within that is blind if it is not seen.
    """
    fig, axs = _figure(2.6 * len(seen), 3.0, title, columns=len(seen))
    for ax, (name, field) in zip(np.atleast_1d(axs), seen.items(), strict=True):
        row, column = np.indices(field.shape)
        earlier = (row < at[0]) | ((row == at[0]) & (column < at[1]))
        near = (row >= at[0] - reach) & (np.abs(column - at[1]) <= reach)
        kinds = {"this pixel": (row == at[0]) & (column == at[1]), "seen": field, "blind spot": earlier & near & ~field}
        picture = np.full((*field.shape, 3), _rgb("#f3f4f6"))
        picture[earlier] = _rgb(LINES)
        for (kind, where), colour in zip(kinds.items(), (INK, SERIES[0], SERIES[1]), strict=True):
            picture[where] = _rgb(colour)
            ax.plot([], [], "s", color=colour, label=f"{kind}, {where.sum()}" if kind != "this pixel" else kind)
        ax.imshow(picture)
        ax.set_xticks(np.arange(field.shape[1] + 1) - 0.5, labels=[])
        ax.set_yticks(np.arange(field.shape[0] + 1) - 0.5, labels=[])
        ax.grid(True, color="white", linewidth=1.0)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(name, fontsize=9, color=INK)
        ax.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, handletextpad=0.1)
    return _png(fig)


_BADGE = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}


def _figure(width: float, height: float, title: str, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """A figure with a title above rows of `columns` plots, of about so many inches without the title."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    fig = Figure(figsize=(width, height + (0.35 if title else 0.0)), dpi=DPI, layout="constrained")
    if title:
        fig.suptitle(title, fontsize=10, color=INK)
    return fig, fig.subplots(rows, columns)


def _tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (N, H, W, C) in one picture (rows, columns, 3), each pixel a square of pixels, with lines between and around."""
    n, h, w, c = images.shape
    scale = max(1, round(PIXELS / max(h, w)))
    h, w, rows = h * scale, w * scale, -(-n // columns)
    picture = np.full((rows * (h + GAP) + GAP, columns * (w + GAP) + GAP, 3), _rgb(LINES), np.float32)
    for i in range(rows * columns):
        y, x = i // columns * (h + GAP) + GAP, i % columns * (w + GAP) + GAP
        if i < n:
            image = images[i].repeat(scale, axis=0).repeat(scale, axis=1)
            picture[y : y + h, x : x + w] = 1 - image if c == 1 else image
        else:
            picture[y : y + h + GAP, x : x + w + GAP] = 1.0  # an empty place
    return picture


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _show(ax: Any, picture: np.ndarray) -> None:
    ax.imshow(np.clip(picture, 0, 1), interpolation="antialiased")
    ax.set_axis_off()


def _axes(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, colors=INK)


def _png(fig: Any) -> bytes:
    """The figure as a file: grown where a title or a label would be cut off."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.1, facecolor="white")
    return buffer.getvalue()
