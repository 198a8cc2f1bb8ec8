"""Reading by index, and its adjoint. Start at `getitem` and `scatter_add`: each is the gradient rule of the other.

An index that names an element twice reads it twice, so its gradient is added twice. The additions happen in the order of
the index, whatever the number of threads (kernels/indexing), never by racing.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from ..backend import move, on_gpu
from ..kernels.indexing import scatter_add as scatter_add_kernel
from ..tape import Array, op


@op(view=True)
def getitem(x: Array, index: Any) -> Array:
    """x[index], as in NumPy: integers, slices, None, Ellipsis, integer arrays, boolean masks, and tuples of these.

    Slices give views; arrays and masks give copies. Raises IndexError for an index out of range.
    """
    return x[index]


getitem.vjp(x=lambda g, x_shape, index: scatter_add(g, index, x_shape))


@op
def scatter_add(values: Array, index: Any, shape: tuple[int, ...]) -> Array:
    """zeros(shape) with `values` added at `index`: the adjoint of `x[index]` for x of that shape.

    values: of the shape of x[index].   index: whatever `getitem` takes; a position named twice receives both values.
    Raises IndexError for an index out of range, ValueError for values of another shape.
    """
    keys = index if isinstance(index, tuple) else (index,)
    if not any(_is_integer_array(key) for key in keys):  # slices and masks name no element twice
        out = np.zeros_like(values, shape=shape, order="C")
        target = out[index]
        _check_values(values.shape, target.shape)
        out[index] = values
        return out
    axis = _only_indexed_axis(keys)
    if axis is None:
        positions = np.arange(math.prod(shape), like=values).reshape(shape)[index]
        outer, size, inner = 1, math.prod(shape), 1
    else:
        positions = move(_array(keys[axis]), "cuda") if on_gpu(values) else _array(keys[axis])
        outer, size, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    expected = positions.shape if axis is None else (*shape[:axis], *positions.shape, *shape[axis + 1 :])
    _check_values(values.shape, expected)
    rows = positions.reshape(positions.size)
    return scatter_add_kernel(values.reshape(outer, rows.size, inner), rows, size).reshape(shape)


scatter_add.vjp(values=lambda g, index: getitem(g, index))


def _check_values(given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if given != expected:
        raise ValueError(f"scatter_add: values have shape {given}, but the index names elements of shape {expected}")


def _is_integer_array(key: Any) -> bool:
    """Whether a part of an index is an array (or list) of integers, which may name an element twice."""
    if isinstance(key, list | tuple | range):
        key = np.asarray(key)
    return hasattr(key, "dtype") and key.dtype.kind in "iu" and key.ndim > 0


def _only_indexed_axis(keys: tuple) -> int | None:
    """The axis that an integer array at the end of the index reads, if there are only full slices before it. Else None."""
    *before, last = keys
    whole = all(isinstance(key, slice) and key == slice(None) for key in before)
    return len(before) if whole and _is_integer_array(last) else None


@op
def take(x: Array, indices: Array, axis: int | None = None) -> Array:
    """The slices of x at integer `indices` along `axis`: shape[:axis] + indices.shape + shape[axis + 1:].

    axis: may be left out only for a 1-D x. Raises IndexError for an index outside [-n, n).
    """
    return np.take(x, _integers(indices), axis=_take_axis(x.shape, axis))


take.vjp(x=lambda g, indices, x_shape, axis: scatter_add(g, _along(x_shape, indices, axis), x_shape))


def _take_axis(shape: tuple[int, ...], axis: int | None) -> int:
    if axis is None and len(shape) != 1:
        raise ValueError(f"take: an x of shape {shape} needs an axis, 0 to {len(shape) - 1}")
    axis = axis or 0
    if not -len(shape) <= axis < len(shape):
        raise IndexError(f"take: axis {axis} is out of bounds for an x of shape {shape}: it must be below {len(shape)}")
    return axis % len(shape)


def _along(shape: tuple[int, ...], indices: Array, axis: int | None) -> tuple:
    return (*[slice(None)] * _take_axis(shape, axis), _array(indices))


def _array(indices: Any) -> np.ndarray:
    """Lists as arrays; arrays, on whichever device, as they are."""
    return indices if hasattr(indices, "dtype") else np.asarray(indices)


def _integers(indices: Array) -> np.ndarray:
    """The indices as an array of integers; TypeError for others, booleans among them."""
    indices = _array(indices)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"indices must be integers, not {indices.dtype}; for a boolean mask write x[mask]")
    return indices


@op
def take_along_axis(x: Array, indices: Array, axis: int = -1) -> Array:
    """out[.., i, ..] = x[.., indices[.., i, ..], ..] along `axis`; the other axes of x and indices broadcast.

    Reads what `argsort` or `argmax` with keepdims found. Raises IndexError for an index outside [-n, n), ValueError
    for different numbers of axes.
    """
    return x[_each_along(x.shape, _integers(indices), axis)]


take_along_axis.vjp(x=lambda g, indices, x_shape, axis: scatter_add(g, _each_along(x_shape, indices, axis), x_shape))


def _each_along(shape: tuple[int, ...], indices: Array, axis: int) -> tuple:
    """The index tuple of take_along_axis: along the other axes, each position stands for itself."""
    ndim = len(shape)
    if indices.ndim != ndim:
        raise ValueError(f"take_along_axis: indices of shape {indices.shape} need as many axes as x of shape {shape}")
    if not -ndim <= axis < ndim:
        raise IndexError(f"take_along_axis: axis {axis} is out of bounds for an x of shape {shape}: it must be below {ndim}")
    counts = [np.arange(n, like=indices) for n in shape]
    grids = [count.reshape([-1 if j == i else 1 for j in range(ndim)]) for i, count in enumerate(counts)]
    return tuple(indices if i == axis % ndim else grid for i, grid in enumerate(grids))


@op
def embedding(indices: Array, weight: Array) -> Array:
    """The rows of a table at integer `indices`.   indices (...), weight (K, D) -> (..., D)

    Raises IndexError for an index outside [0, K).
    """
    indices = _integers(indices)
    _check_range("embedding", indices, len(weight), "rows of weight")
    return np.take(weight, indices, axis=0)


embedding.vjp(weight=lambda g, indices, weight_shape: scatter_add(g, (_array(indices),), weight_shape))


@op(constant=True)
def one_hot(indices: Array, num_classes: int, dtype: Any = np.float32) -> Array:
    """1 at the class, 0 elsewhere.   indices (...) integers in [0, num_classes) -> (..., num_classes). No gradient.

    Raises IndexError for a class outside the range.
    """
    indices = _integers(indices)
    if not isinstance(num_classes, int | np.integer) or num_classes < 0:
        raise ValueError(f"one_hot: num_classes={num_classes!r} must be an integer of at least 0")
    _check_range("one_hot", indices, num_classes, "classes")
    return np.equal(indices[..., None], np.arange(num_classes, like=indices)).astype(dtype)


def _check_range(name: str, indices: np.ndarray, size: int, what: str) -> None:
    """Raise IndexError unless 0 <= indices < size. (A label of -1 is a mistake more often than the last class.)

    Indices on a GPU are not looked at, for that would mean to wait for the device: kernels answer wrong ones with NaN.
    """
    if not on_gpu(indices) and indices.size and (indices.min() < 0 or indices.max() >= size):
        wrong = indices[(indices < 0) | (indices >= size)][0]
        raise IndexError(f"{name}: index {wrong} is outside 0 .. {size - 1} ({size} {what})")


@op(constant=True)
def searchsorted(x1: Array, x2: Array, side: Literal["left", "right"] = "left") -> Array:
    """Where x2 would be inserted into sorted x1 to keep it sorted. No gradient.

    x1 (K,), x2 (...) -> (...) int64: x1[i - 1] < x2 <= x1[i] for side "left", x1[i - 1] <= x2 < x1[i] for "right".
    x1 (..., K), x2 (..., M) -> (..., M): one search per row, the leading axes broadcasting; needs K·M comparisons a row.
    NaN sorts last. Raises ValueError for another side.
    """
    if side not in ("left", "right"):
        raise ValueError(f"searchsorted: side must be 'left' or 'right', not {side!r}")
    if x1.ndim == 1:
        return np.searchsorted(x1, x2, side=side)
    if x1.ndim == 0 or x2.ndim == 0:
        raise ValueError(f"searchsorted: x1 {x1.shape} and x2 {x2.shape} need an axis to search along")
    knots, values = x1[..., None, :], x2[..., :, None]  # (..., 1, K), (..., M, 1)
    unordered = np.isnan(values)
    before = knots < values if side == "left" else knots <= values
    before |= unordered & ~np.isnan(knots) if side == "left" else unordered
    return before.sum(axis=-1)
