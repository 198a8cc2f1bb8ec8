"""What the Python side of a compiled kernel needs: results to write into (`buffer`), and threads (`spread`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from minigen.autograd.kernels import jit
from minigen.autograd.kernels.linalg import blas

__all__ = ["buffer", "buffers", "flat", "spread"]

PARALLEL = 1 << 17  # numbers from which on two threads beat one: waking a thread costs 20 µs, a number 0.3 to 1 ns
PARALLEL_GRAIN = 1 << 16  # numbers that a thread takes at a time, about


def buffer(out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`out` if it can hold the result, a new array if it is None. Raises ValueError for an unfit one."""
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
        order = "" if out.flags.c_contiguous else " that is not in C order"
        raise ValueError(f"the result is {dtype}{shape}, which does not fit into out, {out.dtype}{out.shape}{order}")
    return out


def buffers(out: tuple | None, dtype: np.dtype, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The same for a kernel with several results: `out` is a tuple with an array for each."""
    given = (None,) * len(shapes) if out is None else out
    return tuple(buffer(o, shape, dtype) for o, shape in zip(given, shapes, strict=True))


def flat(array: np.ndarray) -> np.ndarray:
    """The numbers of an array in C order, along one axis; a view if they are in that order already."""
    return np.ascontiguousarray(array).reshape(-1)


def spread(call: Callable[[int, int], object], units: int, size: int) -> None:
    """Have `call(first, stop)` work on all of the units 0 … units - 1: at once, or for large arrays on several threads.

    size: numbers in the array.      A call must release Python's global lock, as compiled kernels do. What it computes
    for a unit must not depend on the other units of the call: then results do not depend on the number of threads.
    """
    threads = jit.numba.get_num_threads()
    if size == 0 or size < PARALLEL or threads == 1:
        call(0, units)
        return
    step = max(1, units * PARALLEL_GRAIN // size)
    blas.run([partial(call, first, min(first + step, units)) for first in range(0, units, step)], threads)
