"""How CUDA kernels are compiled and launched: what jit.py is for Numba. Start at `Source`.

The text of a family's kernels is cuda.cu, beside the cuda.py that launches them. It is compiled at first use, by NVRTC
through CuPy, which keeps the result on disk: once for float32, where `real` in the text is float, once for float64.

Every launch goes through `Source.launch`, because CuPy passes whatever it is given: a Python float as 8 bytes, a
transposed view as a bare pointer. There, arrays are checked and scalars typed, and empty launches are left out.
Nothing here waits for the device.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import backend, dials

__all__ = ["OPTIONS", "TEAM", "THREADS", "Source", "contiguous", "empty", "grid", "result", "set_words", "team"]

Array = Any  # a cupy.ndarray

THREADS = 256  # of a block, where nothing else is said
TEAM = 32  # threads that share a short row: a warp
LONG_ROW = 1024  # from here on a whole block shares a row
MAX_BLOCKS = 1 << 16  # elementwise kernels loop beyond
LIMIT = 1 << 31  # elements of an array: kernels count in int
NULL = np.uintp(0)  # a pointer to nothing

OPTIONS = ("--std=c++17",)
TYPES = {"float32": ("-DREAL=float", "-DREAL_BITS=32"), "float64": ("-DREAL=double", "-DREAL_BITS=64")}


class Source:
    """A .cu file.

    path: of the Python file beside it.      exact: never round a*b + c once where the text rounds it twice, so that the
    bits are those of the other backends.
    """

    def __init__(self, path: str, exact: bool = False):
        self.path = Path(path).with_suffix(".cu")
        self.exact = exact
        self.modules: dict[Any, Any] = {}  # by dtype
        self.functions: dict[tuple[str, Any], Any] = {}  # by name and dtype
        backend.FORGETS.append(self.forget)

    def text(self) -> str:
        """What the compiler gets: the file, with the files that it includes put in their place, and where each line is from."""
        return _expanded(self.path)

    def forget(self) -> None:
        """Compile anew at the next launch, for another device."""
        self.modules.clear()
        self.functions.clear()

    def options(self, dtype: Any) -> tuple[str, ...]:
        """Compiler options for a dtype. Raises TypeError unless it is float32 or float64."""
        name = np.dtype(dtype).name
        if name not in TYPES:
            raise TypeError(f"CUDA kernels take float32 or float64 arrays, not {name}")
        return (*OPTIONS, *TYPES[name], *(("-fmad=false",) if self.exact else ()))

    def launch(self, name: str, dtype: Any, blocks: Any, threads: Any, *args: Any) -> None:
        """Start kernel `name` for `dtype` on a grid of `blocks` (an int or a tuple) of `threads` each.

        args: contiguous cupy arrays, floating ones of this dtype; int, bool (passed as int) and float (as this dtype);
        None for a null pointer; and NumPy scalars as they are. Raises TypeError or ValueError for others.
        """
        blocks, threads = (size if isinstance(size, tuple) else (size,) for size in (blocks, threads))
        if 0 in blocks:
            return
        dtype = np.dtype(dtype)
        function = self.functions.get((name, dtype)) or self._function(name, dtype)
        arguments = tuple(_argument(name, dtype, a) for a in args)
        if dials.recording is not None:
            numbers = [a for a in arguments if isinstance(a, np.generic)]
            dials.recording.launches.append((name, blocks, threads, *numbers))
        function(blocks, threads, arguments)

    def _function(self, name: str, dtype: np.dtype) -> Any:
        if dtype not in self.modules:
            self.modules[dtype] = backend.cupy().RawModule(code=self.text(), options=self.options(dtype))
        self.functions[name, dtype] = function = self.modules[dtype].get_function(name)
        return function


def _argument(kernel: str, dtype: np.dtype, value: Any) -> Any:
    """A checked array, or a scalar of the type that the kernel declares."""
    if isinstance(value, backend.cupy().ndarray):
        if not value.flags.c_contiguous:
            raise ValueError(f"CUDA kernel {kernel}: an array {value.dtype}{value.shape} is not in C order")
        if value.dtype.kind == "f" and value.dtype != dtype:
            raise TypeError(f"CUDA kernel {kernel} for {dtype}: an array is {value.dtype}; convert it with .astype")
        if value.size >= LIMIT:
            raise ValueError(f"CUDA kernel {kernel}: {value.size} elements are too many, kernels count to 2^31 - 1")
        return value
    if isinstance(value, np.generic):
        return value
    if isinstance(value, int):  # bool too
        return np.int32(value)
    if isinstance(value, float):
        return dtype.type(value)
    if value is None:
        return NULL
    raise TypeError(
        f"CUDA kernel {kernel}: an argument is a {type(value).__name__}, not an array on the GPU; "
        "move all inputs to one device with .to(device)"
    )


def _expanded(path: Path) -> str:
    name = f"{path.parent.name}/{path.name}"  # as messages of the compiler give it
    parts = [f'#line 1 "{name}"']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        included = re.match(r'#include "([^"]+)"', line)
        parts += [_expanded((path.parent / included[1]).resolve()), f'#line {number + 1} "{name}"'] if included else [line]
    return "\n".join(parts) + "\n"


# ---- sizes of launches


def grid(n: int, threads: int = THREADS) -> int:
    """Blocks for n elements, one to a thread as far as MAX_BLOCKS go."""
    return min(-(-n // threads), MAX_BLOCKS)


def team(rows: int, n: int) -> tuple[Any, Any]:
    """Blocks and threads for rows of n numbers, a team to each: a warp for short rows, a block for long ones."""
    if n >= LONG_ROW:
        return rows, (THREADS, 1)
    per_block = THREADS // TEAM
    return -(-rows // per_block), (TEAM, per_block)


# ---- arrays


def empty(shape: Any, dtype: Any) -> Array:
    """A new array on the GPU, not set to anything."""
    return backend.cupy().empty(shape, dtype)


def contiguous(*arrays: Array) -> list[Array]:
    """The arrays in C order, copied where they are not."""
    return [backend.cupy().ascontiguousarray(a) for a in arrays]


def result(out: Array | None, shape: Sequence[int], dtype: Any) -> Array:
    """`out` if it can hold the result, a new array if it is None. Raises ValueError for an unfit one."""
    if out is None:
        return empty(tuple(shape), dtype)
    if out.shape != tuple(shape) or out.dtype != dtype or not out.flags.c_contiguous:
        order = "" if out.flags.c_contiguous else " that is not in C order"
        raise ValueError(f"the result is {dtype}{tuple(shape)}, which does not fit into out, {out.dtype}{out.shape}{order}")
    return out


# ---- numbers that change from step to step

source = Source(__file__)
AT_ONCE = 8  # words of a launch


def set_words(words: np.ndarray, out: Array) -> None:
    """Write a few words, (n,) uint64, to the device, as arguments of launches.     out: (n,) or more of the same, there"""
    for i in range(0, len(words), AT_ONCE):
        some = words[i : i + AT_ONCE]
        filled = np.concatenate([some, np.zeros(AT_ONCE - len(some), np.uint64)])
        source.launch("set_words_kernel", np.float32, 1, TEAM, len(some), *filled, out[i : i + len(some)])
