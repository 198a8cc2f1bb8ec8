"""One BLAS thread for the whole process, and threads of our own around it. Start at `run`.

Why. A threaded BLAS splits a product differently for every number of threads, and the parts round differently. Measured
with NumPy's OpenBLAS 0.3.31: of 2,000 random products (float32 and float64; matrix by matrix with each operand plain or
transposed, matrix by vector, dot; sides 1 to 1024, some up to 50,000) one in eight changed its bits between 1, 2, 3, 4
and 8 threads, among them everyday ones such as (100, 784) @ (784, 50). On a single thread none did, wherever in memory
the operands lay. A threaded OpenBLAS also spins while it waits: on a busy two-core machine a product that takes .2 ms on
one thread took 3 to 80 times as long on two.

So importing this module tells every BLAS that is loaded to use one thread. That holds for the process: NumPy called
directly is single-threaded too, and stays reproducible, `np.linalg` included. Large products are cut into chunks that
depend on the shapes only (see cpu.py), and `run` spreads the chunks over as many threads as Numba may use. Which thread
works on which chunk does not matter: each chunk is one call of a single-threaded BLAS.

macOS' Accelerate cannot be told its number of threads; there the promise does not hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits

threadpool_limits(limits=1, user_api="blas")

MAX_WORKERS = 32  # beside the calling thread

_pool: ThreadPoolExecutor | None = None


def run(tasks: Sequence[Callable[[], object]], threads: int) -> None:
    """Call every task, on up to `threads` threads with the calling one; an exception of a task is raised here.

    Tasks must release the global lock to gain anything, and must not depend on each other's order.
    """
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
        _pool = ThreadPoolExecutor(MAX_WORKERS, thread_name_prefix="minigen-blas")
    return _pool


def _forget_pool() -> None:
    """A forked child has none of its parent's threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
