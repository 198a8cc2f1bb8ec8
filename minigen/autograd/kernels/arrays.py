"""What the Python side of a compiled kernel needs: arrays in the layout it was compiled for, and results to write into."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["buffer", "buffers", "contiguous", "flat"]


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array in the one memory layout that kernels are compiled for: C order, aligned, writable; else a copy."""
    return array if array.flags.carray else np.require(array, requirements=["C", "A", "W"])


def buffer(out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`out` if it can hold the result, a new array if it is None. Raises ValueError for an unfit one."""
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype or not out.flags.carray:
        order = " that cannot be written" if not out.flags.writeable else "" if out.flags.carray else " that is not in C order"
        raise ValueError(f"the result is {dtype}{shape}, which does not fit into out, {out.dtype}{out.shape}{order}")
    return out


def buffers(out: tuple | None, dtype: np.dtype, *shapes: tuple[int, ...]) -> Any:
    """The same for a kernel with several results: `out` and what is returned are tuples with an array for each."""
    given = (None,) * len(shapes) if out is None else out
    return tuple(buffer(o, shape, dtype) for o, shape in zip(given, shapes, strict=True))


def flat(array: np.ndarray) -> np.ndarray:
    """The numbers of an array in C order, along one axis; a view if they are in that order already."""
    return np.ascontiguousarray(array).reshape(-1)
