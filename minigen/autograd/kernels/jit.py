"""How Numba kernels are compiled: the one place that imports numba. Start at `jit`.

* `error_model="numpy"`: Python's check for division by zero would keep loops from being vectorised.
* never `fastmath=True`: it turns `isnan` into a constant and deletes compensated sums. `contract=True` allows fused
  multiply-adds only, which keep NaN and Inf.
* compiled code is cached on disk. Functions have no explicit signature, so nothing is compiled at import.
* `prange` only above a measured size, over fixed chunks whose partial results are combined in a fixed order, so that
  results are bit for bit the same for any number of threads. Hence two functions where it pays: serial and parallel.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

# GNU OpenMP spins while it waits; on a busy machine an empty parallel loop then costs milliseconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numba
from numba import prange  # noqa: F401 - kernels import it from here

__all__ = ["jit", "prange"]


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
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:  # neither the package's folder nor the user's cache folder can be written
            if "cannot cache function" not in str(error):
                raise
            warnings.warn(
                "compiled kernels cannot be kept on disk, so every run compiles them again; "
                "set NUMBA_CACHE_DIR to a folder that can be written",
                RuntimeWarning,
                stacklevel=2,
            )
            return numba.njit(**options)(function)

    return compile_lazily
