"""Cards of ops/shape.py. All are linear, and NumPy's own functions are the references."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ops import shape as ops
from .card import Draw, OpCard

Sample = tuple[tuple, dict]


def _linear(name: str, sample: Any, reference: Any) -> None:
    """A card of an op with one differentiable argument, the first, in which it is linear."""
    OpCard(name, getattr(ops, name), sample, wrt=(0,), reference=reference, linear=(0,))


def _reshape(draw: Draw) -> Sample:
    x = draw.floats(draw.shape())
    sides = list(x.shape)
    target = draw.choice([(-1,) if x.size else (0,), (*sides, 1), (1, *sides), tuple(reversed(sides)), (x.size,)])
    return (x,), {"shape": target}


def _permute_dims(draw: Draw) -> Sample:
    x = draw.floats(draw.shape())
    axes = draw.rng().permutation(x.ndim)
    return (x,), {"axes": tuple(int(a) - x.ndim * draw.integer(0, 1) for a in axes)}


def _expand_dims(draw: Draw) -> Sample:
    x = draw.floats(draw.shape())
    return (x,), {"axis": draw.choice([draw.axis(x.ndim + 1), (0, -1)])}


def _squeeze(draw: Draw) -> Sample:
    sides = [draw.choice([1, 1, 0, 2, 3]) for _ in range(draw.integer(1, 4))]
    single = [i for i, n in enumerate(sides) if n == 1]
    if not single:
        return (draw.floats(tuple(sides)),), {"axis": ()}
    axis = draw.choice(single) - len(sides) * draw.integer(0, 1)
    return (draw.floats(tuple(sides)),), {"axis": draw.choice([axis, tuple(single)])}


def _broadcast_to(draw: Draw) -> Sample:
    full = draw.shape()
    small = tuple(draw.choice([1, n, n]) for n in full[draw.integer(0, min(1, len(full))) :])
    return (draw.floats(small),), {"shape": full}


def _flip(draw: Draw) -> Sample:
    x = draw.floats(draw.shape())
    return (x,), {"axis": draw.axes(x.ndim)}


def _roll(draw: Draw) -> Sample:
    x = draw.floats(draw.shape(min_dims=1))
    if draw.boolean():
        return (x,), {"shift": draw.integer(-5, 5), "axis": draw.choice([None, draw.axis(x.ndim)])}
    axes = tuple(range(x.ndim))
    return (x,), {"shift": tuple(draw.integer(-5, 5) for _ in axes), "axis": axes}


def _pad(draw: Draw) -> Sample:
    x = draw.floats(draw.shape(max_side=3))
    each = tuple((draw.integer(0, 2), draw.integer(0, 2)) for _ in x.shape)
    return (x,), {"widths": draw.choice([each, (1, 2), 1])}


def _concat(draw: Draw) -> Sample:
    sides = list(draw.shape(min_dims=1))
    axis = draw.choice([None, draw.axis(len(sides))])
    arrays = []
    for _ in range(3):
        if axis is not None:
            sides[axis] = draw.integer(0, 3)
        arrays.append(draw.floats(tuple(sides)))
    return tuple(arrays), {"axis": axis}


def _stack(draw: Draw) -> Sample:
    shape = draw.shape()
    return tuple(draw.floats(shape) for _ in range(3)), {"axis": draw.axis(len(shape) + 1)}


def _split(draw: Draw) -> Sample:
    sides = list(draw.shape(min_dims=1))
    axis = draw.axis(len(sides))
    sections: int | list[int] = draw.integer(1, 3)
    if draw.boolean():
        sections = [draw.integer(0, 2) for _ in range(draw.integer(1, 3))]
    sides[axis] = sections * draw.integer(0, 2) if isinstance(sections, int) else sum(sections)
    return (draw.floats(tuple(sides)),), {"sections_or_sizes": sections, "axis": axis}


def _split_reference(x: np.ndarray, sections_or_sizes: Any, axis: int) -> list[np.ndarray]:
    equal = isinstance(sections_or_sizes, int)
    return np.split(x, sections_or_sizes if equal else np.cumsum(sections_or_sizes)[:-1], axis)


_linear("reshape", _reshape, lambda x, shape: np.reshape(x, shape))
_linear("permute_dims", _permute_dims, lambda x, axes: np.transpose(x, axes))
_linear("expand_dims", _expand_dims, lambda x, axis: np.expand_dims(x, axis))
_linear("squeeze", _squeeze, lambda x, axis: np.squeeze(x, axis))
_linear("broadcast_to", _broadcast_to, lambda x, shape: np.broadcast_to(x, shape))
_linear("flip", _flip, lambda x, axis: np.flip(x, axis))
_linear("roll", _roll, lambda x, shift, axis: np.roll(x, shift, axis))
_linear("pad", _pad, lambda x, widths: np.pad(x, widths) if x.ndim else x)
OpCard(
    "concat",
    lambda *arrays, axis: ops.concat(arrays, axis),
    _concat,
    wrt=(0, 1, 2),
    reference=lambda *arrays, axis: np.concatenate(arrays, axis),
)
OpCard(
    "stack",
    lambda *arrays, axis: ops.stack(arrays, axis),
    _stack,
    wrt=(0, 1, 2),
    reference=lambda *arrays, axis: np.stack(arrays, axis),
)
OpCard("split", ops.split, _split, wrt=(0,), reference=_split_reference)
