"""What is refused before a kernel runs. A real device answers some of it with an error, and most of it with wrong numbers.

Start at `check_arguments`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .report import KernelError

Size = tuple[int, int, int]

MOST_THREADS = 1024  # of a block
LARGEST_BLOCK = (1024, 1024, 64)
LARGEST_GRID = ((1 << 31) - 1, 65535, 65535)
MOST_SHARED = 48 * 1024  # bytes of a block


def check_sizes(name: str, grid: Size, block: Size, static: int, dynamic: int) -> None:
    """Raise KernelError for what a real device calls an "invalid configuration argument".

    static, dynamic: bytes of shared memory that the kernel declares, and that the launch adds.
    """
    for what, sizes, largest in (("grid", grid, LARGEST_GRID), ("block", block, LARGEST_BLOCK)):
        if not all(1 <= size <= most for size, most in zip(sizes, largest, strict=True)):
            raise KernelError("limit", f"kernel {name}: no device has a {what} of {sizes}; each axis has 1 to {largest}")
    threads = math.prod(block)
    if threads > MOST_THREADS:
        raise KernelError("limit", f"kernel {name}: a block of {block} is {threads} threads, more than {MOST_THREADS}")
    check_shared(f"kernel {name}: shared memory, {dynamic} bytes of it dynamic,", static + dynamic)


def check_shared(what: str, size: int) -> None:
    """Raise KernelError for more shared memory than a block has."""
    if size > MOST_SHARED:
        raise KernelError("limit", f"{what} of {size} bytes, where a block has {MOST_SHARED}")


def check_arguments(name: str, signature: list[str], args: Sequence[Any], parameters: list[str]) -> None:
    """Raise KernelError unless arguments are as many, and of the types, that the kernel declares, and arrays in C order.

    signature: as Program.signature gives it.     parameters: their names.
    """
    if len(args) != len(signature):
        message = f"kernel {name} takes {len(signature)} arguments ({', '.join(parameters)}), not {len(args)}"
        raise KernelError("arguments", message)
    for wanted, value, parameter in zip(signature, args, parameters, strict=True):
        problem = _problem(wanted, value)
        if problem:
            given = f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
            raise KernelError("arguments", f"kernel {name}, {parameter}: {given} {problem}")


def _problem(wanted: str, value: Any) -> str | None:
    """What is wrong with an argument, in words that follow what it is."""
    pointer, wanted = wanted.startswith("*"), wanted.lstrip("*")
    if pointer and isinstance(value, np.uintp) and value == 0:
        return None  # a null pointer
    if pointer != isinstance(value, np.ndarray):
        return f"where the kernel has {'a pointer' if pointer else 'a number'}"
    if not isinstance(value, np.ndarray | np.generic):
        return "goes as 8 bytes, whatever the kernel has: pass a NumPy scalar such as np.int32(...)"
    if not _same_type(wanted, value.dtype):
        return f"where the kernel has {np.dtype(wanted)}: it would read the bytes as other numbers"
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        return "is not in C order: the kernel would take its numbers for others"
    return None


def _same_type(wanted: str, given: np.dtype) -> bool:
    """Whether a number of type `given` has the size and kind that a kernel expects; signs are the kernel's business."""
    if wanted == "struct":
        return True
    kinds = [{"u": "i"}.get(dtype.kind, dtype.kind) for dtype in (np.dtype(wanted), given)]
    return kinds[0] == kinds[1] and np.dtype(wanted).itemsize == given.itemsize
