"""Freed memory stays with the process: what the next training step needs is what the last one has given back.

Every step makes the same temporaries anew. The C library hands large ones back to the operating system as they are freed, and
asks for them again, page by page, each of which is cleared first: measured on eight training steps, 1 to 19 % of their time.
jit.py, which every compiled kernel imports, tells it to keep them. The price is that a process stays as large as it once was.
It holds for arrays below 32 MB, on Linux with the GNU library. Whoever sets MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_
decides.
"""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 32 << 20  # bytes: the most that the library takes for the second


def keep_freed_memory() -> bool:
    """Tell the C library so. Returns whether it was told, and understood."""
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))

