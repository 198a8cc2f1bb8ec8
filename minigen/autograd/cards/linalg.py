"""Cards of ops/linalg.py. The references are those of NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from ..ops import linalg as ops
from .card import Draw, OpCard

Sample = tuple[tuple, dict]


def _matmul(draw: Draw) -> Sample:
    m, k, n = draw.shape(3, 3)
    left, right = draw.broadcastable(2, max_dims=2)
    x1 = draw.choice([(*left, m, k), (*left, m, k), (k,)])
    x2 = draw.choice([(*right, k, n), (*right, k, n), (k, n), (k,)])
    return (draw.floats(x1), draw.floats(x2)), {}


EINSUMS = [
    "ij,jk->ik",
    "bij,bjk->bik",
    "bqhd,bkhd->bhqk",
    "ij,kj",
    "i,i->",
    "bi,bi->b",
    "i,j->ji",
    "ij,ij->ij",
    "ij,j->",  # i in one operand only
    "iij,jk->ik",  # a diagonal
    "ii,ii->i",
]


def _einsum(draw: Draw) -> Sample:
    subscripts = draw.choice(EINSUMS)
    sizes = {c: draw.count(3) for c in "bijkqhd"}
    operands = subscripts.partition("->")[0].split(",")
    return tuple(draw.floats(tuple(sizes[c] for c in own)) for own in operands), {"subscripts": subscripts}


def _matrices(draw: Draw, batch: tuple[int, ...], min_side: int = 0) -> np.ndarray:
    """Well-conditioned square matrices (*batch, N, N), of either sign of the determinant."""
    n = draw.integer(min_side, 4)
    x = draw.floats((*batch, n, n), -1, 1)
    signs = np.where(np.arange(n) % 2, -1.0, 1.0)
    return x + (n + 1) * np.diag(signs)


def _square(draw: Draw) -> Sample:
    return (_matrices(draw, draw.shape(max_dims=2)),), {}


def _solve_triangular(draw: Draw) -> Sample:
    left, right = draw.broadcastable(2, max_dims=2)
    a = _matrices(draw, left)
    b = draw.floats((*right, a.shape[-1], draw.count(3)))
    if a.ndim == 2 and draw.boolean():
        b = draw.floats((a.shape[-1],))
    return (a, b), {name: draw.boolean() for name in ("lower", "transposed", "unit_diagonal")}


def _solve_each(a: np.ndarray, b: np.ndarray, lower: bool, transposed: bool, unit_diagonal: bool) -> np.ndarray:
    def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        if 0 in right.shape:
            return np.zeros(right.shape)
        return scipy.linalg.solve_triangular(
            matrix, right, transposed, lower, unit_diagonal=unit_diagonal, check_finite=False
        )

    if b.ndim == 1:
        return solve(a, b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = np.empty((*batch, *b.shape[-2:]))
    a, b = np.broadcast_to(a, (*batch, *a.shape[-2:])), np.broadcast_to(b, out.shape)
    for i in np.ndindex(batch):
        out[i] = solve(a[i], b[i])
    return out


def _matrix_part(draw: Draw) -> Sample:
    return (draw.floats(draw.shape(min_dims=2, max_dims=4)),), {"k": draw.integer(-3, 3)}


def _diagonal(draw: Draw) -> Sample:
    (x,), parameters = _matrix_part(draw)
    return (x,), {"offset": parameters["k"]}


def _part(name: str, sample: Any, reference: Any) -> None:
    OpCard(name, getattr(ops, name), sample, wrt=(0,), reference=reference, linear=(0,))


OpCard("matmul", ops.matmul, _matmul, wrt=(0, 1), reference=np.matmul, linear=(0, 1))
OpCard(
    "einsum",
    lambda *arrays, subscripts: ops.einsum(subscripts, *arrays),
    _einsum,
    wrt=(0, 1),
    reference=lambda *arrays, subscripts: np.einsum(subscripts, *arrays),
    linear=(0, 1),
)
OpCard("solve_triangular", ops.solve_triangular, _solve_triangular, wrt=(0, 1), reference=_solve_each, linear=(1,))
OpCard("inv", ops.inv, _square, wrt=(0,), reference=np.linalg.inv)
OpCard(
    "slogdet",
    ops.slogdet,
    _square,
    wrt=(0,),
    reference=np.linalg.slogdet,
    analytic=False,
    note="log |det x| is analytic, but NumPy's slogdet splits a complex determinant into modulus and phase.",
)
_part("diagonal", _diagonal, lambda x, offset: np.diagonal(x, offset, -2, -1))
_part("tril", _matrix_part, np.tril)
_part("triu", _matrix_part, np.triu)
