"""Kernels, a folder per family: reference.py (NumPy, the definition), cpu.py (Numba), and their cards in __init__.py.

The contract that all keep is in autograd/backend.py; how they are compiled, in jit.py.
"""

from __future__ import annotations

import os
from pathlib import Path


def compiled_before() -> bool:
    """Whether compiled kernels are on disk already, so that the first step will not have to wait for the compiler."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return any((Path(chosen) if chosen else Path(__file__).parent).rglob("*.nbi"))
