"""Compiled loops made into kernels on whole arrays: any shape, any strides, several threads. Start at `unary`.

A loop is written for flat contiguous arrays: `loop(x, out, *scalars)`, or `loop(g, x, out, *scalars)`. What is the same for
all of them stands here: checking dtypes, flattening, allocating the result, and running it on several threads. The loops
release Python's global lock, so ordinary threads serve; a second version of every loop, parallel by `prange`, would take
longer to compile than all the rest.

Chunks are fixed parts of the array, and no element depends on another: the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..threads import run

__all__ = ["CHUNK", "PARALLEL", "binary", "unary"]

CHUNK = 1 << 16  # elements that a thread takes at a time
PARALLEL = 1 << 18  # elements from which on two threads beat one: handing over costs about 20 µs, a loop .3 to 1 ns each

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

Array = np.ndarray
Out = np.ndarray | None


def unary(loop: Callable) -> Callable[..., Array]:
    """Make a compiled `loop(x, out, *scalars)` the kernel `call(x, *scalars, out=None)`."""

    def call(x: Array, *scalars: float, out: Out = None) -> Array:
        if type(x) is not np.ndarray:
            x = np.asarray(x)
        dtype = x.dtype
        if dtype is not FLOAT32 and dtype is not FLOAT64:
            _check_dtype(loop, x)
        out = np.empty(x.shape, dtype) if out is None else _checked(loop, out, x)
        if scalars:
            scalars = tuple(map(dtype.type, scalars))
        if x.size < PARALLEL:
            loop(x.ravel(), out.ravel(), *scalars)
        else:
            _on_threads(loop, (x.ravel(), out.ravel()), scalars)
        return out

    return _named_like(loop, call)


def binary(loop: Callable) -> Callable[..., Array]:
    """Make a compiled `loop(g, x, out, *scalars)` the kernel `call(g, x, *scalars, out=None)`."""

    def call(g: Array, x: Array, *scalars: float, out: Out = None) -> Array:
        if type(g) is not np.ndarray or type(x) is not np.ndarray:
            g, x = np.asarray(g), np.asarray(x)
        dtype = x.dtype
        if dtype is not FLOAT32 and dtype is not FLOAT64:
            _check_dtype(loop, x)
        if g.shape != x.shape or g.dtype != dtype:
            raise ValueError(f"{loop.__name__}: {g.dtype}{g.shape} and {x.dtype}{x.shape}, but the arrays must be alike")
        out = np.empty(x.shape, dtype) if out is None else _checked(loop, out, x)
        if scalars:
            scalars = tuple(map(dtype.type, scalars))
        if x.size < PARALLEL:
            loop(g.ravel(), x.ravel(), out.ravel(), *scalars)
        else:
            _on_threads(loop, (g.ravel(), x.ravel(), out.ravel()), scalars)
        return out

    return _named_like(loop, call)


def _on_threads(loop: Callable, arrays: Sequence[Array], scalars: Sequence) -> None:
    """The loop over large flat arrays, chunk by chunk."""
    starts = range(0, arrays[0].size, CHUNK)
    run([partial(loop, *[a[i : i + CHUNK] for a in arrays], *scalars) for i in starts])


def _check_dtype(loop: Callable, x: Array) -> None:
    """The complete check, for an array whose dtype is not one of NumPy's own two objects: few are."""
    if x.dtype not in (FLOAT32, FLOAT64):
        advice = 'complex numbers need set_backend("numpy")' if x.dtype.kind == "c" else "convert with astype"
        raise TypeError(f"{loop.__name__} works on float32 and float64, not on {x.dtype}: {advice}")


def _checked(loop: Callable, out: Array, x: Array) -> Array:
    """The caller's buffer."""
    if out.shape != x.shape or out.dtype != x.dtype or not out.flags.c_contiguous:
        raise ValueError(f"{loop.__name__}: out must be a C-contiguous {x.dtype}{x.shape}, not {out.dtype}{out.shape}")
    return out


def _named_like(loop: Callable, call: Callable) -> Callable[..., Array]:
    call.__name__ = call.__qualname__ = loop.__name__
    call.__doc__ = loop.__doc__
    call.loop = loop  # type: ignore[attr-defined]  # for those who want to look at the compiled code
    return call
