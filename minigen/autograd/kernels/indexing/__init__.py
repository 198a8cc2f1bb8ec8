"""Adding into rows by index: the adjoint of reading rows by index. Start at `reference.scatter_add`.

    scatter_add(values, rows, size, out=None)     values (B, N, K), rows (N,) integers in [-size, size) -> (B, size, K)
"""

from __future__ import annotations

import numpy as np

from ...backend import Card, Kernel
from . import reference

__all__ = ["scatter_add"]

CASES = [  # B, N, K, size
    (1, 0, 3, 4),
    (0, 2, 3, 4),
    (2, 3, 0, 4),
    (1, 0, 2, 0),
    (1, 1, 1, 1),
    (1, 9, 1, 3),
    (2, 5, 3, 4),
    (3, 50, 7, 2),  # many additions into each row
    (2, 300, 257, 31),  # several strips of columns
]


def _cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    return [
        ((rng.standard_normal((b, n, k)).astype(dtype), rng.integers(-size, size, n) if n else np.zeros(0, np.int64), size), {})
        for b, n, k, size in CASES
    ]


scatter_add = Kernel(
    "scatter_add",
    "minigen.autograd.kernels.indexing",
    Card(
        cases=_cases,
        flops=lambda values, rows, size, out=None: values.size,
        bytes=lambda values, rows, size, out=None: (
            values.nbytes + rows.nbytes + values.shape[0] * size * values.shape[2] * values.itemsize
        ),
        ulp=8,
        scale=lambda values, rows, size: reference.scatter_add(np.abs(values), rows, size),
        note="Each element adds its contributions in the order of the rows: the same bits as the reference in the same dtype.",
    ),
)
