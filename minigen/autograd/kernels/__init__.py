"""Kernels, a folder per family: reference.py (NumPy, the definition), cpu.py (Numba), and their cards in __init__.py.

The contract that all keep is in autograd/backend.py; how they are compiled, in jit.py.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@cache
def compiled_folder() -> Path | None:
    """Where compiled kernels are kept: a folder named after a digest of the source of all kernels. None if there is none.

    Numba by itself looks at the file of a function only, so a kernel would go on with old helpers from other files. The
    folder is made in NUMBA_CACHE_DIR if that is set, else beside the kernels, else in ~/.cache/minigen.
    """
    digest = hashlib.sha256()
    for file in sorted(HERE.rglob("*.py")):
        digest.update(file.read_bytes())
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    places = [Path(chosen)] if chosen else [HERE / "__pycache__", Path("~/.cache/minigen").expanduser()]
    for place in places:
        folder = place / f"kernels-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # a place that cannot be written; jit.py says so if all are like that
            continue
        if os.access(folder, os.W_OK):
            return folder
    return None


def compiled_before() -> bool:
    """Whether compiled kernels are on disk already, so that the first step will not have to wait for the compiler."""
    folder = compiled_folder()
    return folder is not None and any(folder.rglob("*.nbi"))
