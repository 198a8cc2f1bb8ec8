"""Kernels on several threads. Start at `spread`: ordinary threads, since compiled kernels release Python's global lock.

A second version of every loop, parallel by `prange`, would take longer to compile than all the rest; only where the work
of a unit differs much is `prange` used. What a thread computes depends on its chunk alone, and chunks depend on sizes
alone: so results are the same bits for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .jit import get_num_threads

__all__ = ["run", "spread"]

PARALLEL = 1 << 17  # numbers from which on two threads beat one: waking a thread costs 20 µs, a number 0.3 to 1 ns
PARALLEL_GRAIN = 1 << 16  # numbers that a thread takes at a time, about
MAX_WORKERS = 32  # beside the calling thread

_pool: ThreadPoolExecutor | None = None


def spread(call: Callable[[int, int], object], units: int, size: int) -> None:
    """Have `call(first, stop)` work on all of the units 0 … units - 1: at once, or for large arrays on several threads.

    size: numbers in the array.      A call must release Python's global lock, as compiled kernels do. What it computes
    for a unit must not depend on the other units of the call: then results do not depend on the number of threads.
    """
    if size == 0 or size < PARALLEL or get_num_threads() == 1:
        call(0, units)
        return
    step = max(1, units * PARALLEL_GRAIN // size)
    run([partial(call, first, min(first + step, units)) for first in range(0, units, step)])


def run(tasks: Sequence[Callable[[], object]], threads: int | None = None) -> None:
    """Call every task, on up to `threads` threads with the calling one (None: as many as set_threads allows).

    An exception of a task is raised here.

    Tasks must release the global lock to gain anything, and must not depend on each other's order.
    """
    threads = get_num_threads() if threads is None else threads
    remaining = iter(tasks)

    def work() -> None:
        for task in remaining:  # next() of a list iterator is atomic, so each task is taken once
            task()

    workers = min(threads, len(tasks)) - 1
    helpers = [_workers().submit(work) for _ in range(workers)]
    work()
    for helper in helpers:
        if not helper.cancel():  # one that has not begun has nothing left to do
            helper.result()


def _workers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="minigen")
    return _pool


def _forget_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
