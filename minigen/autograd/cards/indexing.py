"""Cards of ops/indexing.py. NumPy's indexing is the reference; its np.add.at is that of the adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops import indexing as ops
from .card import Draw, OpCard

Sample = tuple[tuple, dict]


def _index(draw: Draw, shape: tuple[int, ...]) -> Any:
    """An index into an array of `shape`: any mixture of slices, integers, None, Ellipsis, and arrays or masks."""
    rng = draw.rng()
    parts: list[Any] = []
    arrays = draw.shape(max_dims=2, max_side=3)  # index arrays broadcast together
    masks = 0
    for n in shape[: draw.integer(0, len(shape))]:
        kind = draw.integer(0, 4)
        if kind == 0:
            start, stop, step = draw.choice([None, -2, 1]), draw.choice([None, -1, 2]), draw.choice([None, -1, 2])
            parts.append(slice(start, stop, step))
        elif kind == 1 and n:
            parts.append(draw.integer(-n, n - 1))
        elif kind == 2 and n and masks == 0:
            parts.append(rng.integers(-n, n, arrays))
        elif kind == 3 and not any(isinstance(p, np.ndarray) for p in parts):
            parts.append(rng.random(n) < 0.6)
            masks = 1
        else:
            parts.append(slice(None))
        if draw.integer(0, 5) == 0:
            parts.append(None)
    if draw.integer(0, 3) == 0:
        parts.append(Ellipsis)
    return tuple(parts) if len(parts) != 1 or draw.boolean() else parts[0]


def _getitem(draw: Draw) -> Sample:
    x = draw.floats(draw.shape())
    return (x,), {"index": _index(draw, x.shape)}


def _scatter_add(draw: Draw) -> Sample:
    shape = draw.shape()
    index = _index(draw, shape)
    return (draw.floats(np.empty(shape)[index].shape),), {"index": index, "shape": shape}


def _add_at(values: np.ndarray, index: Any, shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, values.dtype)
    np.add.at(out, index, values)
    return out


def _take(draw: Draw) -> Sample:
    shape = list(draw.shape(min_dims=1))
    axis = draw.axis(len(shape))
    indices = draw.shape(max_dims=2)
    if 0 not in indices:
        shape[axis] = max(1, shape[axis])
    return (draw.floats(tuple(shape)), draw.rng().integers(-shape[axis], max(shape[axis], 1), indices)), {"axis": axis}


def _take_along_axis(draw: Draw) -> Sample:
    shape = draw.shape(min_dims=1)
    axis = draw.axis(len(shape))
    wanted = [draw.choice([1, n, n]) for n in shape]  # the other axes broadcast
    wanted[axis] = draw.integer(0, 3) if shape[axis] else 0
    n = max(shape[axis], 1)
    return (draw.floats(shape), draw.rng().integers(-n, n, wanted)), {"axis": axis}


def _embedding(draw: Draw) -> Sample:
    rows = draw.integer(1, 5)
    indices = draw.rng().integers(0, rows, draw.shape(max_dims=2))
    return (indices, draw.floats((rows, draw.count(3)))), {}


def _one_hot(draw: Draw) -> Sample:
    classes = draw.integer(1, 5)
    return (draw.rng().integers(0, classes, draw.shape()),), {"num_classes": classes}


def _searchsorted(draw: Draw) -> Sample:
    batch = draw.shape(max_dims=2)
    knots = np.sort(np.round(draw.floats((*batch, draw.integer(0, 5))), 1), axis=-1)
    values = np.round(draw.floats((*batch, draw.integer(0, 4))), 1)  # rounded, so that some meet a knot
    return (knots, values), {"side": draw.choice(["left", "right"])}


def _search_rows(x1: np.ndarray, x2: np.ndarray, side: Any) -> np.ndarray:
    out = np.empty(x2.shape, np.int64)
    for row in np.ndindex(x1.shape[:-1]):
        out[row] = np.searchsorted(x1[row], x2[row], side)
    return out


OpCard("getitem", ops.getitem, _getitem, wrt=(0,), reference=lambda x, index: x[index], linear=(0,))
OpCard("scatter_add", ops.scatter_add, _scatter_add, wrt=(0,), reference=_add_at, linear=(0,))
OpCard("take", ops.take, _take, wrt=(0,), reference=np.take, linear=(0,))
OpCard("take_along_axis", ops.take_along_axis, _take_along_axis, wrt=(0,), reference=np.take_along_axis, linear=(0,))
OpCard("embedding", ops.embedding, _embedding, wrt=(1,), reference=lambda indices, weight: weight[indices], linear=(1,))
OpCard(
    "one_hot",
    ops.one_hot,
    _one_hot,
    wrt=(),
    reference=lambda indices, num_classes: np.eye(num_classes, dtype=bool)[indices],
)
OpCard("searchsorted", ops.searchsorted, _searchsorted, wrt=(), reference=_search_rows)
