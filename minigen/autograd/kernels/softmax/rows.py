"""Sums, products and maxima of one row, compiled, for kernels whose rows are contiguous. Start at `row_sum`.

A float sum in a single variable waits for each addition before the next one. Eight interleaved ones keep the processor
busy, are eight times more accurate, and their order is fixed by the program text: the same bits on every machine.
"""

from __future__ import annotations

import numpy as np

from minigen.autograd.kernels.jit import jit

__all__ = ["row_dot", "row_max", "row_squares", "row_sum"]


@jit()
def row_sum(x):
    """Σ x, in float64."""
    wide = np.float64
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = x.size - x.size % 8
    for i in range(0, whole, 8):
        s0 += wide(x[i])
        s1 += wide(x[i + 1])
        s2 += wide(x[i + 2])
        s3 += wide(x[i + 3])
        s4 += wide(x[i + 4])
        s5 += wide(x[i + 5])
        s6 += wide(x[i + 6])
        s7 += wide(x[i + 7])
    for i in range(whole, x.size):
        s0 += wide(x[i])
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@jit(contract=True)
def row_dot(x, y):
    """Σ x y, in float64."""
    wide = np.float64
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = x.size - x.size % 8
    for i in range(0, whole, 8):
        s0 += wide(x[i]) * y[i]
        s1 += wide(x[i + 1]) * y[i + 1]
        s2 += wide(x[i + 2]) * y[i + 2]
        s3 += wide(x[i + 3]) * y[i + 3]
        s4 += wide(x[i + 4]) * y[i + 4]
        s5 += wide(x[i + 5]) * y[i + 5]
        s6 += wide(x[i + 6]) * y[i + 6]
        s7 += wide(x[i + 7]) * y[i + 7]
    for i in range(whole, x.size):
        s0 += wide(x[i]) * y[i]
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@jit(contract=True)
def row_squares(x, centre):
    """Σ (x - centre)², in float64."""
    wide = np.float64
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = x.size - x.size % 8
    for i in range(0, whole, 8):
        s0 += (wide(x[i]) - centre) ** 2
        s1 += (wide(x[i + 1]) - centre) ** 2
        s2 += (wide(x[i + 2]) - centre) ** 2
        s3 += (wide(x[i + 3]) - centre) ** 2
        s4 += (wide(x[i + 4]) - centre) ** 2
        s5 += (wide(x[i + 5]) - centre) ** 2
        s6 += (wide(x[i + 6]) - centre) ** 2
        s7 += (wide(x[i + 7]) - centre) ** 2
    for i in range(whole, x.size):
        s0 += (wide(x[i]) - centre) ** 2
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@jit()
def row_max(x):
    """The largest element, -∞ for an empty row. NaN is passed over: who needs it meets it in the sum that follows."""
    lowest = x.dtype.type(-np.inf)
    m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = lowest
    whole = x.size - x.size % 8
    for i in range(0, whole, 8):
        m0 = x[i] if x[i] > m0 else m0
        m1 = x[i + 1] if x[i + 1] > m1 else m1
        m2 = x[i + 2] if x[i + 2] > m2 else m2
        m3 = x[i + 3] if x[i + 3] > m3 else m3
        m4 = x[i + 4] if x[i + 4] > m4 else m4
        m5 = x[i + 5] if x[i + 5] > m5 else m5
        m6 = x[i + 6] if x[i + 6] > m6 else m6
        m7 = x[i + 7] if x[i + 7] > m7 else m7
    for i in range(whole, x.size):
        m0 = x[i] if x[i] > m0 else m0
    return max(max(max(m0, m1), max(m2, m3)), max(max(m4, m5), max(m6, m7)))
