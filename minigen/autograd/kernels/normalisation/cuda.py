"""Normalisation on the GPU: launches of cuda.cu. Start at `group_norm`."""

from __future__ import annotations

from typing import Any

from ..cuda import THREADS, Source, contiguous, empty, grid, result, team
from ..fused.cuda import number_of
from ..reduction.cuda import sum_rows

Array = Any

source = Source(__file__)

LENGTH = 64  # positions that a block sums, at least
CHUNKS = 256  # parts that the positions are cut into, at most
DEEPEST = 65535  # samples of one launch: what a grid may have along its third axis


def group_norm(
    x: Array, weight: Array, bias: Array, groups: int, eps: float,
    activation: str | None = None, slope: float = 0.01, out: tuple | None = None,
) -> tuple[Array, Array, Array]:
    """f(weight (x - mean) / √(std² + eps) + bias) of each group of channels.      x: (N, P, C)      weight, bias: (C,)

    Returns y (N, P, C), mean (N, groups), std (N, groups).
    """
    x, weight, bias = contiguous(x, weight, bias)
    n, positions, channels = x.shape
    y, mean, std = out or (None,) * 3
    y = result(y, x.shape, x.dtype)
    mean, std = (result(a, (n, groups), x.dtype) for a in (mean, std))
    if not x.size:
        mean.fill(0)
        std.fill(0)
        return y, mean, std
    chunks, length = _chunks(positions)
    sizes: tuple[int, ...]
    arrays: tuple[Array, ...]
    means, squares = (empty((n, chunks, channels), x.dtype) for _ in range(2))
    for some in _batches(n):
        shape = (-(-channels // 32), chunks, len(x[some]))
        arrays = (x[some], means[some], squares[some])
        source.launch("chunk_statistics_kernel", x.dtype, shape, (32, 8), positions, channels, chunks, length, *arrays)
    arrays = (means, squares, mean, std)
    sizes = (n * groups, groups, positions, channels, chunks, length)
    source.launch("group_statistics_kernel", x.dtype, *team(n * groups, chunks * channels // groups), *sizes, *arrays)
    sizes = (x.size, positions, channels, groups)
    options = (float(eps), number_of(activation, slope), float(slope))
    source.launch("group_norm_kernel", x.dtype, grid(x.size), THREADS, *sizes, x, weight, bias, mean, std, *options, y)
    return y, mean, std


def group_norm_vjp(
    g: Array, x: Array, weight: Array, bias: Array, mean: Array, std: Array,
    eps: float, activation: str | None = None, slope: float = 0.01, out: tuple | None = None,
) -> tuple[Array, Array, Array]:
    """The gradients of `group_norm` with respect to x (N, P, C), weight (C,) and bias (C,).      mean, std: (N, groups)"""
    g, x, weight, bias, mean, std = contiguous(g, x, weight, bias, mean, std)
    n, positions, channels = x.shape
    groups = mean.shape[1]
    gx, gweight, gbias = out or (None,) * 3
    gx = result(gx, x.shape, x.dtype)
    gweight, gbias = (result(a, (channels,), x.dtype) for a in (gweight, gbias))
    if not x.size:
        gweight.fill(0)
        gbias.fill(0)
        return gx, gweight, gbias
    chunks, length = _chunks(positions)
    sizes: tuple[int, ...]
    options = (float(eps), number_of(activation, slope), float(slope))
    parts = [empty((n, chunks, channels), x.dtype) for _ in range(2)]
    for some in _batches(n):
        shape = (-(-channels // 32), chunks, len(x[some]))
        arrays = (g[some], x[some], weight, bias, mean[some], std[some])
        targets = (part[some] for part in parts)
        sizes = (positions, channels, groups, chunks, length)
        source.launch("chunk_gradients_kernel", x.dtype, shape, (32, 8), *sizes, *arrays, *options, *targets)
    first, second = (sum_rows(part) for part in parts)  # (N, C)
    averages = [empty((n, groups), x.dtype) for _ in range(2)]
    sizes = (n * groups, groups, positions, channels)
    teams = team(n * groups, channels // groups)
    source.launch("group_gradients_kernel", x.dtype, *teams, *sizes, first, second, weight, *averages)
    arrays = (g, x, weight, bias, mean, std)
    sizes = (x.size, positions, channels, groups)
    source.launch("group_norm_vjp_kernel", x.dtype, grid(x.size), THREADS, *sizes, *arrays, *options, *averages, gx)
    sum_rows(second[None], out=gweight[None])
    sum_rows(first[None], out=gbias[None])
    return gx, gweight, gbias


def layer_norm(
    x: Array, weight: Array, bias: Array, eps: float, out: tuple | None = None
) -> tuple[Array, Array, Array]:
    """weight (x - mean) / √(std² + eps) + bias of each row.      x: (rows, n) -> y (rows, n), mean (rows,), std (rows,)."""
    x, weight, bias = contiguous(x, weight, bias)
    rows, n = x.shape
    y, mean, std = out or (None,) * 3
    y, mean, std = result(y, x.shape, x.dtype), result(mean, (rows,), x.dtype), result(std, (rows,), x.dtype)
    if n == 0:
        mean.fill(0)
        std.fill(0)
        return y, mean, std
    source.launch("layer_norm_kernel", x.dtype, *team(rows, n), rows, n, x, weight, bias, float(eps), y, mean, std)
    return y, mean, std


def layer_norm_vjp(
    g: Array, x: Array, weight: Array, mean: Array, std: Array, eps: float, out: tuple | None = None
) -> tuple[Array, Array, Array]:
    """The gradients of `layer_norm` with respect to x (rows, n), weight (n,) and bias (n,)."""
    g, x, weight, mean, std = contiguous(g, x, weight, mean, std)
    rows, n = x.shape
    gx, gweight, gbias = out or (None,) * 3
    gx, gweight, gbias = result(gx, x.shape, x.dtype), result(gweight, (n,), x.dtype), result(gbias, (n,), x.dtype)
    if not x.size:
        gweight.fill(0)
        gbias.fill(0)
        return gx, gweight, gbias
    source.launch("layer_norm_vjp_kernel", x.dtype, *team(rows, n), rows, n, g, x, weight, mean, std, float(eps), gx)
    chunks, length = _chunks(rows)
    first, second = (empty((1, chunks, n), x.dtype) for _ in range(2))
    shape = (-(-n // 32), chunks)
    sizes = (rows, n, chunks, length)
    source.launch("row_gradients_kernel", x.dtype, shape, (32, 8), *sizes, g, x, mean, std, float(eps), first, second)
    sum_rows(second, out=gweight[None])
    sum_rows(first, out=gbias[None])
    return gx, gweight, gbias


def _chunks(positions: int) -> tuple[int, int]:
    """How many chunks, none of them empty, and how long."""
    length = max(LENGTH, -(-positions // CHUNKS))
    return -(-positions // length), length


def _batches(n: int) -> list[slice]:
    return [slice(first, first + DEEPEST) for first in range(0, n, DEEPEST)]
