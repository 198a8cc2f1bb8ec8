"""Reductions. Start at `sum` and `spread`, its adjoint.

`axis` is an axis, a tuple of axes (none of them twice), or None for all; `keepdims` leaves axes of size 1 behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..backend import on_gpu
from ..kernels import reduction as kernels
from ..tape import Array, op
from .elementwise import divide, exp, log, where
from .shape import broadcast_to, reshape

Axis = int | tuple[int, ...] | None

LARGE = 1 << 15  # elements from which on the kernel for sums over leading axes pays

quiet = np.errstate(all="ignore")


@op
def sum(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Σ x over `axis`; 0 for no elements."""
    return _total(x, axis, keepdims)


sum.vjp(x=lambda g, x_shape, axis: spread(g, x_shape, axis))


def spread(g: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """Repeat a reduced array along the axes it was reduced over: the adjoint of `sum`, with keepdims or without."""
    return broadcast_to(_kept(g, shape, axis), shape)


def _kept(reduced: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """A reduced array with size 1 where `shape` was reduced, as keepdims=True gives."""
    return reshape(reduced, _shape(shape, axis, keepdims=True))


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes meant by `axis`, counted from the front, in order. Raises AxisError or ValueError for impossible ones."""
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    for a in given:
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(a, ndim)
    axes = tuple(sorted({a % ndim for a in given}))
    if len(axes) < len(given):
        raise ValueError(f"axis {axis} names an axis of {ndim} twice: name each once")
    return axes


def _shape(shape: tuple[int, ...], axis: Axis, keepdims: bool) -> tuple[int, ...]:
    """The shape that is left of `shape`."""
    axes = _axes(axis, len(shape))
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes)


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    """How many elements each result is made from."""
    return math.prod(shape[a] for a in _axes(axis, len(shape)))


def _total(x: Array, axis: Axis, keepdims: bool) -> Array:
    """Σ x. Adding up leading axes of images, a bias' gradient say, is what NumPy does slowly and naively: a kernel does."""
    if axis is not None and x.size >= LARGE and x.flags.c_contiguous:
        axes = _axes(axis, x.ndim)
        first, stop = (axes[0], axes[-1] + 1) if axes else (0, 0)
        n = math.prod(x.shape[stop:])
        if n > 1 and len(axes) == stop - first > 0 and x.dtype.char in "fd":
            total = kernels.sum_rows(x.reshape(math.prod(x.shape[:first]), -1, n))
            return total.reshape(_shape(x.shape, axis, keepdims))
    return np.sum(x, axis=axis, keepdims=keepdims)


@op
@quiet
def mean(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The mean over `axis`; NaN for no elements. Finite for finite numbers, also where their sum would not be."""
    return _mean(x, axis, keepdims)


mean.vjp(x=lambda g, x_shape, axis: spread(g / (_count(x_shape, axis) or 1), x_shape, axis))


@op
@quiet
def var(x: Array, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """The variance Σ (x - mean)² / (n - correction) over the n elements along `axis`; NaN where n <= correction.

    correction: 0 for the population's variance, 1 for an unbiased estimate from a sample.
    """
    inverse = _inverse(x.shape, axis, correction)
    result = np.multiply(_squares(x, axis, keepdims), inverse)
    if _finite(result):
        return result
    scale = _scale(x, axis)
    return np.where(np.isfinite(result), result, _squares(x * scale, axis, keepdims) * inverse / scale / scale)


var.vjp(
    x=lambda g, x, x_shape, axis, correction: (
        _kept(g * (2 * _inverse(x_shape, axis, correction)), x_shape, axis) * (x - mean(x, axis, keepdims=True))
    )
)


@op
@quiet
def std(x: Array, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """The standard deviation, √var, also where var is too large for the dtype. Where it is 0, its gradient is 0
    (PyTorch's convention).
    """
    inverse = _inverse(x.shape, axis, correction)
    result = np.sqrt(_squares(x, axis, keepdims) * inverse)
    if _finite(result):
        return result
    scale = _scale(x, axis)
    return np.where(np.isfinite(result), result, np.sqrt(_squares(x * scale, axis, keepdims) * inverse) / scale)


std.vjp(
    x=lambda g, x, x_shape, out, axis, correction: (
        _kept(where(out == 0, 0.0, divide(g * _inverse(x_shape, axis, correction), out)), x_shape, axis)
        * (x - mean(x, axis, keepdims=True))
    )
)


def _squares(x: Array, axis: Axis, keepdims: bool) -> Array:
    """Σ (x - mean)²."""
    deviation = x - _mean(x, axis, True)
    return _total(np.square(deviation, out=deviation), axis, keepdims)


def _mean(x: Array, axis: Axis, keepdims: bool) -> Array:
    """Σ x / n."""
    result = np.divide(_total(x, axis, keepdims), _count(x.shape, axis))
    if _finite(result):
        return result
    scale = _scale(x, axis)
    return np.where(np.isfinite(result), result, _total(x * scale, axis, keepdims) / _count(x.shape, axis) / scale)


def _finite(result: Array) -> bool:
    """Whether a result needs no second look. On a GPU that is not asked: one would have to wait for the answer."""
    return on_gpu(result) or (math.isfinite(result.real) if result.ndim == 0 else bool(np.isfinite(result).all()))


def _scale(x: Array, axis: Axis) -> float:
    """A power of two, so exact, that keeps sums over `axis` of the numbers and of their squares in the range of the dtype."""
    exponent = np.finfo(np.result_type(x, np.float32)).maxexp
    return 2.0 ** -(exponent // 2 + _count(x.shape, axis).bit_length())


def _inverse(shape: tuple[int, ...], axis: Axis, correction: float) -> float:
    """1 / (n - correction), NaN where that is not positive."""
    freedom = _count(shape, axis) - correction
    return 1 / freedom if freedom > 0 else math.nan


@op
def max(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The largest element along `axis`, NaN if there is one. Elements that tie share the gradient evenly.

    Raises ValueError where there are no elements to choose from.
    """
    _nonempty("max", x, axis)
    return np.max(x, axis=axis, keepdims=keepdims)


@op
def min(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The smallest element along `axis`, NaN if there is one. Elements that tie share the gradient evenly.

    Raises ValueError where there are no elements to choose from.
    """
    _nonempty("min", x, axis)
    return np.min(x, axis=axis, keepdims=keepdims)


def _nonempty(name: str, x: Array, axis: Axis) -> None:
    if x.size == 0 and _count(x.shape, axis) == 0:
        raise ValueError(f"{name}: there is nothing to choose from along axis {axis} of shape {x.shape}; check x.size first")


def _shared(g: Array, x: Array, x_shape: tuple[int, ...], out: Array, axis: Axis) -> Array:
    """g, in equal parts, to the elements that equal the result; NaN counts as equal to NaN."""
    chosen = (x == _kept(out, x_shape, axis)) | (x != x)
    count = np.sum(chosen, axis=axis, keepdims=True, dtype=g.dtype)
    return where(chosen, _kept(g, x_shape, axis) / count, 0.0)


max.vjp(x=_shared)
min.vjp(x=_shared)


def _logsumexp_spec(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """max + log Σ exp(x - max); the gradients through the two max cancel."""
    highest = max(x, axis, keepdims=True)
    total = log(sum(exp(x - highest), axis, keepdims))
    return total + reshape(highest, total.shape)


@op(spec=_logsumexp_spec)
def logsumexp(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """log Σ exp(x) over `axis`, without overflow; -inf for no elements.

    Its gradient is the softmax of x. Where x is -inf throughout, softmax has no limit: the gradient is 0 there. Several
    elements of +inf share it evenly. Raises TypeError for others than float32 and float64.
    """
    if x.dtype.char not in "fdFD":
        raise TypeError(f"float32 or float64 needed, got {x.dtype}: convert with astype")
    rows, _ = _as_rows(x, axis)
    return kernels.logsumexp(rows).reshape(_shape(x.shape, axis, keepdims))


def _logsumexp_vjp(g: Array, x: Array, out: Array, axis: Axis) -> Array:
    rows, restored = _as_rows(x, axis)
    return restored(kernels.logsumexp_vjp(g.reshape(-1), rows, out.reshape(-1)))


logsumexp.vjp(x=_logsumexp_vjp)


def _as_rows(x: Array, axis: Axis) -> tuple[Array, Callable[[Array], Array]]:
    """x as (rows, n), where each row is reduced to one number; and the function that puts such rows back in place."""
    axes = _axes(axis, x.ndim)
    order = tuple(i for i in range(x.ndim) if i not in axes) + axes
    moved = x.transpose(order)
    back = tuple(order.index(i) for i in range(x.ndim))
    rows = moved.reshape(math.prod(_shape(x.shape, axis, keepdims=False)), _count(x.shape, axis))
    return rows, lambda result: result.reshape(moved.shape).transpose(back)


@op
def cumulative_sum(x: Array, axis: int | None = None, include_initial: bool = False) -> Array:
    """Sums of the first 1, 2, … n elements along `axis`; with include_initial of the first 0, 1, … n.

    `axis` may be None for an x with a single axis. Raises ValueError for None with another number of axes.
    """
    axis = _axis(x, axis)
    total = np.cumsum(x, axis=axis)
    if not include_initial:
        return total
    one = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return np.concatenate([np.zeros_like(total, shape=one), total], axis=axis)


cumulative_sum.vjp(x=lambda g, axis, include_initial: _sums_from(g, axis=axis, drop_first=include_initial))


@op
def _sums_from(g: Array, axis: int | None, drop_first: bool) -> Array:
    """Sums of the last n, … 2, 1 elements, the first of them dropped or not: the adjoint of `cumulative_sum`."""
    axis = _axis(g, axis)
    total = np.flip(np.cumsum(np.flip(g, axis), axis=axis), axis)
    return np.take(total, range(1, g.shape[axis]), axis=axis) if drop_first else total


_sums_from.vjp(g=lambda v, axis, drop_first: cumulative_sum(v, axis=axis, include_initial=drop_first))


def _axis(x: Array, axis: int | None) -> int:
    """The axis meant, counted from the front."""
    if axis is None and x.ndim != 1:
        raise ValueError(f"an axis is needed for an array of shape {x.shape}: axis=0, or reshape it to (-1,) first")
    return _axes(axis, x.ndim)[0]
