"""What this machine can do at best, measured in the same run: the roof that kernels are held against. Start at `measured`."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from minigen.autograd.kernels import linalg
from minigen.autograd.kernels.threads import spread

SIDE = 1536  # of the square matrices
NUMBERS = 1 << 25  # of the array that is copied: larger than any cache


def measured() -> dict[str, float]:
    """copy: bytes a second read and written by copying a large array; product: operations a second of a float32 product."""
    source, target = np.ones(NUMBERS, np.float32), np.zeros(NUMBERS, np.float32)
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)

    def copy() -> None:
        spread(lambda first, stop: np.copyto(target[first:stop], source[first:stop]), NUMBERS, NUMBERS)

    return {"copy": 2 * source.nbytes / best(copy), "product": 2 * SIDE**3 / best(lambda: linalg.matmul(a, a))}


def best(call: Callable[[], object], repeats: int = 7) -> float:
    """The shortest time of a call: for a rate that is to be a limit, what disturbs it does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
