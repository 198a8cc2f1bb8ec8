"""Products of matrices in registers. Start at `products`; cpu.py prepares its arguments and spreads it over threads.

Every number of a product is made in one way, whatever the shape, the strides, the other rows and columns, the threads:

    out[m, n] = (sum of the first terms) + (sum of the next terms) + ...        in equal blocks of at most BLOCK terms
    each sum:   0, then for each k in order   sum <- a[m, k] b[k, n] + sum, rounded once (a fused multiply-add)

So its bits depend on row m of a and column n of b alone. A library that looks for the fastest way for each shape does not
promise that: OpenBLAS' kernels for AVX2 round a row differently in a product of one row and in one of ten, so that an
image of a batch would depend on how many others there are.
"""

from __future__ import annotations

import numpy as np

from ..jit import jit
from ..tile import ROWS, VECTOR_BYTES
from .strip import WIDE, strip
from .transpose import transpose

BLOCK = 1024  # terms that are summed up in registers; of long sums, blocks also round less
LEFT_BYTES = 1 << 18  # of a: a block that stays in a small second-level cache while all panels of b pass by
FEW = 2  # rows that are computed one by one, since a tile would be mostly empty
PACKED = 4 * ROWS  # rows from which on it pays to pack b


@jit(contract=True)
def products(a, a_next, a_row, a_k, b, b_next, b_k, b_column, out, out_next, out_row, matrices, rows, depth, columns):
    """out = a b for each of `matrices` pairs of a (rows, depth) and b (depth, columns), depth at least 1.

    a, b, out: in C order, of any shape, and beginning with the first number of the first matrix. How far apart in memory
    neighbours are: a_row, a_k, b_k, b_column and out_row along the axes (1 for those of a row of out), and the matrices
    a_next, b_next and out_next. One of a_row and a_k is 1, and one of b_k and b_column.
    """
    a, b, out = a.reshape(-1), b.reshape(-1), out.reshape(-1)
    lanes = VECTOR_BYTES // out.itemsize
    width = 2 * lanes  # of a panel
    in_place = b_column == 1 and rows <= PACKED  # but for a last vector that is not whole
    first_packed = columns // lanes * lanes if in_place else 0
    blocks = (depth + BLOCK - 1) // BLOCK
    most = (depth + blocks - 1) // blocks  # terms of a block
    tall = min(rows, max(ROWS, LEFT_BYTES // (most * a.itemsize) // ROWS * ROWS))
    packed = np.empty((columns - first_packed + width - 1) // width * most * width, b.dtype)
    turned_row = most + width  # not a power of two, for which rows would fall on the same lines of the cache
    turned = np.empty(0 if a_k == 1 else tall * turned_row, a.dtype)
    narrow = np.empty(0 if columns % lanes == 0 else tall * width, out.dtype)

    for i in range(matrices):
        for k in range(0, depth, most):
            terms = min(most, depth - k)
            for n in range(first_packed, columns, width):
                _pack(
                    b,
                    i * b_next + k * b_k + n * b_column,
                    b_k,
                    b_column,
                    terms,
                    min(width, columns - n),
                    width,
                    packed,
                    (n - first_packed) * most,
                )
            for top in range(0, rows, tall):
                height = min(tall, rows - top)
                left, left_at, left_row = a, i * a_next + top * a_row + k, a_row
                if a_k != 1:
                    transpose(a, i * a_next + k * a_k + top, a_k, terms, height, turned, 0, turned_row)
                    left, left_at, left_row = turned, 0, turned_row
                n = 0
                while n < columns:
                    if n < first_packed:
                        right, right_at, right_k = b, i * b_next + k * b_k + n, b_k
                        vectors = min(2, (first_packed - n) // lanes)
                        if rows <= FEW and first_packed - n >= WIDE * lanes:
                            vectors = WIDE
                    else:
                        right, right_at, right_k = packed, (n - first_packed) * most, width
                        vectors = 2 if columns - n > lanes else 1
                    at = i * out_next + top * out_row + n
                    whole = columns - n >= vectors * lanes
                    target, target_at, target_row = out, at, out_row
                    if not whole:  # wider than what is left of the columns: its sums go through a buffer
                        target, target_at, target_row = narrow, 0, width
                    strip(
                        vectors,
                        left,
                        left_at,
                        left_row,
                        right,
                        right_at,
                        right_k,
                        target,
                        target_at,
                        target_row,
                        height,
                        terms,
                        k > 0 and whole,
                    )
                    if not whole:
                        for m in range(height):
                            for c in range(columns - n):
                                sum, to = narrow[m * width + c], at + m * out_row + c
                                out[to] = out[to] + sum if k > 0 else sum
                    n += vectors * lanes


@jit()
def _pack(b, start, b_k, b_column, terms, columns, width, packed, to):
    """Copy a panel of b (terms, columns) to packed[to:], as (terms, width), filled up with zeros."""
    if columns < width:
        packed[to : to + terms * width] = 0
    if b_column != 1:
        transpose(b, start, b_column, columns, terms, packed, to, width)
    else:
        for k in range(terms):
            source, target = b[start + k * b_k :], packed[to + k * width :]
            if columns == width:
                for c in range(width):
                    target[c] = source[c]
            else:
                for c in range(columns):
                    target[c] = source[c]
