"""How Numba kernels are compiled: the one place that imports numba. Start at `jit`.

* `error_model="numpy"`: Python's check for division by zero would keep loops from being vectorised.
* never `fastmath=True`: it turns `isnan` into a constant and deletes compensated sums. `contract=True` allows fused
  multiply-adds only, which keep NaN and Inf.
* compiled code is cached on disk. Functions have no explicit signature, so nothing is compiled at import.
* `prange` only above a measured size, over fixed chunks whose partial results are combined in a fixed order, so that
  results are bit for bit the same for any number of threads. Mostly ordinary threads do (threads.py).
* on processors with AVX-512, loops use its whole vectors, unless NUMBA_CPU_FEATURES says otherwise: LLVM by itself takes half
  of their width on Intel's. This holds for everything that Numba compiles in the process.
* loops that are to be vectorised run over `range(n)` of a slice: in `for i in range(first, stop): x[i]` the compiler has to
  allow for negative indices, and gives up.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

# GNU OpenMP spins while it waits; on a busy machine an empty parallel loop then costs milliseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numba
from numba import get_num_threads, prange
from numba.core.codegen import get_host_cpu_features

from . import compiled_folder, freed

freed.keep_freed_memory()

settings: Any = numba.config  # a module that is filled from the environment, which type checkers cannot see


def whole_vectors(features: str) -> str | None:
    """What Numba is to compile for on a processor with these features ("+avx,-fma,..."); None: what it does by itself."""
    return f"{features},-prefer-256-bit" if "+avx512f" in features.split(",") else None


if settings.CPU_FEATURES is None:
    settings.CPU_FEATURES = whole_vectors(get_host_cpu_features())

__all__ = ["compiling_seconds", "get_num_threads", "get_threads", "jit", "prange", "set_threads"]


def jit(*, parallel: bool = False, contract: bool = False, inline: bool = False) -> Callable[[Callable], Any]:
    """Compile a kernel at its first call, and keep the code on disk.

    parallel: `prange` loops run on several threads.      contract: a*b + c may be rounded once (fused multiply-add).
    inline: compile into every caller (for small helpers such as a polynomial exp).
    """
    options: dict[str, Any] = {
        "error_model": "numpy",
        "nogil": True,
        "parallel": parallel,
        "fastmath": {"contract"} if contract else False,
    }
    if inline:
        options["inline"] = "always"

    def compile_lazily(function: Callable) -> Any:
        folder = compiled_folder()
        if folder is None:
            warnings.warn(
                "compiled kernels cannot be kept on disk, so every run compiles them again; "
                "set NUMBA_CACHE_DIR to a folder that can be written",
                RuntimeWarning,
                stacklevel=2,
            )
            return numba.njit(**options)(function)
        before = settings.CACHE_DIR
        settings.CACHE_DIR = str(folder)  # read when a function is decorated; other users of numba keep theirs
        try:
            return numba.njit(cache=True, **options)(function)
        finally:
            settings.CACHE_DIR = before

    return compile_lazily


class _Clock(numba.core.event.Listener):
    """Adds up the processor time from when Numba takes its compiler's lock to when it gives it back."""

    def __init__(self) -> None:
        self.seconds, self.since, self.depth = 0.0, 0.0, 0  # depth: compiling a kernel compiles what it calls

    def on_start(self, event: Any) -> None:
        if self.depth == 0:
            self.since = time.process_time()
        self.depth += 1

    def on_end(self, event: Any) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.process_time() - self.since


_clock = _Clock()
numba.core.event.register("numba:compiler_lock", _clock)


def compiling_seconds() -> float:
    """Processor time that this process has spent on compiling kernels, and on reading compiled ones from disk."""
    return _clock.seconds


_threads: int | None = None


def set_threads(count: int | None) -> None:
    """Use this many CPU threads, in kernels and in matrix products; None for as many as the process may use.

    Results do not depend on it, bit for bit. Raises ValueError for a number that the machine does not allow. BLAS itself
    always has one thread: kernels/linalg/blas.py says why.
    """
    global _threads
    limit = settings.NUMBA_NUM_THREADS
    count = limit if count is None else count
    if not 1 <= count <= limit:
        raise ValueError(f"threads must be between 1 and {limit} (NUMBA_NUM_THREADS sets the limit), not {count}")
    numba.set_num_threads(count)
    _threads = count


def get_threads() -> int | None:
    """The number of CPU threads that was set; None if it was left to the libraries."""
    return _threads
