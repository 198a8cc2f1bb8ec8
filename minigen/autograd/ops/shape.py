"""Ops that rearrange, join and cut. Start at `reshape`.

Each is linear, and its rule is the op that puts everything back where it came from. Those with `view=True` may return
memory of their input, so that an in-place write to one is known to be a write to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tape import Array, op
from .indexing import getitem

Axes = int | tuple[int, ...]


@op(view=True)
def reshape(x: Array, shape: tuple[int, ...]) -> Array:
    """The same elements, in C order, in another shape; one axis may be -1. Raises ValueError if it does not fit."""
    try:
        return x.reshape(shape)
    except (ValueError, TypeError):
        raise ValueError(
            f"reshape: {x.size} elements of shape {x.shape} do not fit shape {shape}: its integers must multiply to {x.size}, "
            "where one of them may be -1"
        ) from None


reshape.vjp(x=lambda g, x_shape: reshape(g, x_shape))


@op(view=True)
def permute_dims(x: Array, axes: tuple[int, ...]) -> Array:
    """The axes of x in another order: axis i of the result is axis axes[i] of x.

    Raises ValueError unless each axis is named once.
    """
    try:
        return x.transpose(axes)
    except (ValueError, TypeError):
        raise ValueError(
            f"permute_dims: axes {axes} of shape {x.shape}: each of 0 to {x.ndim - 1} must be named once"
        ) from None


permute_dims.vjp(x=lambda g, axes: permute_dims(g, _inverse(axes)))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(np.argsort([a % len(axes) for a in axes]).tolist())


@op(view=True)
def expand_dims(x: Array, axis: Axes = 0) -> Array:
    """A new axis of size 1, at position `axis` of the result."""
    return np.expand_dims(x, axis)


expand_dims.vjp(x=lambda g, x_shape: reshape(g, x_shape))


@op(view=True)
def squeeze(x: Array, axis: Axes) -> Array:
    """x without the axes of size 1 named by `axis`. Raises ValueError where the size is not 1."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    if any(-x.ndim <= a < x.ndim and x.shape[a] != 1 for a in axes):
        raise ValueError(f"squeeze: axis {axis} of shape {x.shape} is not of size 1: sum over it, or index it")
    return np.squeeze(x, axis)


squeeze.vjp(x=lambda g, x_shape: reshape(g, x_shape))


@op(view=True)
def broadcast_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x repeated to a larger shape, without a copy. Raises ValueError where an axis of x is neither of its size nor 1."""
    try:
        return np.broadcast_to(x, shape)
    except ValueError:
        raise ValueError(
            f"broadcast_to: shape {x.shape} cannot become {shape}: from the last axis on, sizes must be equal, or 1 in x"
        ) from None


broadcast_to.vjp(x=lambda g: g)  # grad.py's gate sums it down


@op(view=True)
def flip(x: Array, axis: Axes | None = None) -> Array:
    """x in reverse order along `axis` (all axes if None)."""
    return np.flip(x, axis)


flip.vjp(x=lambda g, axis: flip(g, axis))


@op
def roll(x: Array, shift: Axes, axis: Axes | None = None) -> Array:
    """x moved by `shift` places along `axis`; what leaves at one end enters at the other. None: x as one long row."""
    return np.roll(x, shift, axis)


roll.vjp(x=lambda g, shift, axis: roll(g, tuple(-s for s in shift) if isinstance(shift, tuple) else -shift, axis))


# ---- joining and cutting


def concat(arrays: Sequence[Array], axis: int | None = 0) -> Array:
    """The arrays one after another along an existing axis; None joins them flattened. Raises ValueError for none at all,
    or for shapes that differ on another axis."""
    if len(arrays) == 0:
        raise ValueError("concat: needs at least one array, got none")
    if axis is None:
        arrays, axis = [reshape(a, (-1,)) for a in arrays], 0
    return _concat(*arrays, axis=axis, sizes=_sizes(arrays, axis))


def _sizes(arrays: Sequence[Array], axis: int) -> tuple[int, ...]:
    """The arrays' sizes along the axis; 0 where there is no such axis, about which NumPy then complains."""
    return tuple(a.shape[axis] if -a.ndim <= axis < a.ndim else 0 for a in arrays)


@op
def _concat(*arrays: Array, axis: int, sizes: tuple[int, ...]) -> Array:
    """concat, knowing the size of each array along the axis, which the rule needs."""
    try:
        return np.concatenate(arrays, axis)
    except np.exceptions.AxisError:
        raise
    except ValueError:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise ValueError(f"concat: shapes {shapes} must be equal but for axis {axis}; stack makes a new axis") from None


_concat.vjp(lambda g, axis, sizes, needs: _parts(g, axis, sizes, needs))


def _parts(g: Array, axis: int, sizes: tuple[int, ...], needs: Sequence[bool]) -> list:
    """The slice of g that belongs to each array, None for those that want no gradient."""
    return [getitem(g, part) if need else None for part, need in zip(_cuts(g.ndim, axis, sizes), needs, strict=True)]


def _cuts(ndim: int, axis: int, sizes: Sequence[int]) -> list[tuple[slice, ...]]:
    """The index of each of the consecutive parts of these sizes along the axis."""
    before = (slice(None),) * (axis % ndim)
    ends = np.cumsum(sizes).tolist()
    return [(*before, slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]


def stack(arrays: Sequence[Array], axis: int = 0) -> Array:
    """The arrays side by side along a new axis, at position `axis` of the result. Raises ValueError for none at all, or
    for different shapes."""
    shapes = [a.shape for a in arrays]
    if not shapes or any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"stack: needs at least one array, all of one shape, got {shapes}")
    return concat([expand_dims(a, axis) for a in arrays], axis)


@op(outputs=0)
def split(x: Array, sections_or_sizes: int | Sequence[int], axis: int = 0) -> tuple:
    """x cut along an axis, as a tuple of copies: into n equal parts (an integer), or into parts of the given sizes.

    Slices (x[:, :n]) are views; here each part is contiguous, and the rule is a single concat.
    Raises ValueError if n does not divide the axis, or the sizes do not sum to it.
    """
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"split: axis {axis} is out of bounds for an x of shape {x.shape}: it must be below {x.ndim}")
    length = x.shape[axis]
    if isinstance(sections_or_sizes, int | np.integer):
        count = int(sections_or_sizes)
        if count < 1 or length % count:
            raise ValueError(f"split: axis {axis} of shape {x.shape} cannot be cut into {count} equal parts; give the sizes")
        sizes = [length // count] * count
    else:
        sizes = list(sections_or_sizes)
        if not sizes or min(sizes) < 0 or sum(sizes) != length:
            raise ValueError(f"split: sizes {sizes} must be at least 0 and sum to {length}, axis {axis} of shape {x.shape}")
    return tuple(x[part].copy() for part in _cuts(x.ndim, axis, sizes))


split.vjp(x=lambda g, axis: concat(g, axis))


Widths = int | Sequence[int] | Sequence[Sequence[int]]


@op
def pad(x: Array, widths: Widths, value: float = 0.0) -> Array:
    """x with a border of `value`.

    widths: as in NumPy, ((before, after), ...) for each axis; one pair, or one integer, stands for all axes. For channels-
    last images with a border of 1: ((0, 0), (1, 1), (1, 1), (0, 0)). Raises ValueError for negative widths.
    """
    pairs = _pairs(widths, x.shape)
    out = np.full_like(x, value, shape=tuple(b + n + a for n, (b, a) in zip(x.shape, pairs, strict=True)), order="C")
    out[_inside(x.shape, pairs)] = x
    return out


pad.vjp(x=lambda g, x_shape, widths: getitem(g, _inside(x_shape, _pairs(widths, x_shape))))


def _pairs(widths: Widths, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """(before, after) for each axis."""
    given: Any = np.asarray(widths)
    if given.size == 0:
        given = given.reshape(0, 2)
    if (given.size and given.dtype.kind not in "iu") or given.shape not in ((), (2,), (1, 2), (len(shape), 2)):
        raise ValueError(f"pad: widths must be integers, ((before, after), ...) for each axis of {shape}, got {widths}")
    if given.size and given.min() < 0:
        raise ValueError(f"pad: widths must be at least 0, got {widths}; to cut a border off, use slices")
    return [(b, a) for b, a in np.broadcast_to(given, (len(shape), 2)).tolist()]


def _inside(shape: tuple[int, ...], pairs: list[tuple[int, int]]) -> tuple[slice, ...]:
    """Where x lies in its padded copy."""
    return tuple(slice(before, before + n) for n, (before, _) in zip(shape, pairs, strict=True))
