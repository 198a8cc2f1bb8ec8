"""Sums, products and maxima of one row, compiled, for kernels whose rows are contiguous. Start at `row_sum`.

A float sum in a single variable waits for each addition before the next one, and the compiler must not reorder it. Here
LANES interleaved sums are written as one vector (in LLVM's language, for Numba has none), which becomes as many registers
as the processor needs for it: eight times as fast, and more accurate. Their order is fixed by the program text: the same
bits on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from minigen.autograd.kernels.jit import jit

__all__ = ["row_dot", "row_max", "row_squares", "row_sum"]

LANES, FEW = 32, 8  # sums of a row; and of what is left at its end, numbers at a time


@jit()
def row_sum(x):
    """Σ x, in float64."""
    return _sums(x, x, 0.0, x.size)


@jit(contract=True)
def row_dot(x, y):
    """Σ x y, in float64."""
    return _products(x, y, 0.0, x.size)


@jit(contract=True)
def row_squares(x, centre):
    """Σ (x - centre)², in float64."""
    return _squares(x, x, centre, x.size)


def _interleaved(term: Callable[..., Any]) -> Any:
    """A function (x, y, centre, n) of compiled code: the sum of term(x[i], y[i], centre) over i < n, in float64.

    Number i goes to sum i mod LANES, and at the end neighbouring sums are added up, pair by pair. x, y: contiguous.
    """

    def total(context, x, y, centre, n):
        return types.float64(x, y, types.float64, types.int64), emit

    def emit(context, builder, signature, values):
        x, y, centre, n = values
        double, integer = ir.DoubleType(), ir.IntType(64)

        def add_terms(slot, i, count):  # slot <- slot + the terms from i on, `count` of them
            kind = ir.VectorType(double, count)
            wide = [numbers(array, argument, i, count, kind) for argument, array in enumerate((x, y))]
            centres = builder.insert_element(ir.Constant(kind, ir.Undefined), centre, ir.IntType(32)(0))
            value = term(builder, *wide, part(centres, [0] * count))
            added = builder.fadd(builder.load(slot, align=8), value, flags=("contract",))
            builder.store(added, slot, align=8)

        def numbers(array, argument, i, count, kind):
            number = signature.args[argument].dtype
            data = builder.gep(context.make_array(signature.args[argument])(context, builder, array).data, [i])
            vector = ir.VectorType(context.get_value_type(number), count)
            loaded = builder.load(builder.bitcast(data, vector.as_pointer()), align=number.bitwidth // 8)
            return loaded if number == types.float64 else builder.fpext(loaded, kind)

        def part(vector, indices):
            return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), len(indices)), indices))

        def multiple(of):
            return builder.mul(builder.sdiv(n, integer(of)), integer(of))

        lanes = ir.VectorType(double, LANES)
        sums = cgutils.alloca_once_value(builder, ir.Constant(lanes, None))
        with cgutils.for_range_slice(builder, integer(0), multiple(LANES), integer(LANES), integer) as (i, _):
            add_terms(sums, i, LANES)
        in_memory = cgutils.alloca_once(builder, lanes)
        builder.store(builder.load(sums), in_memory)
        start = multiple(LANES)
        for count, stop in ((FEW, multiple(FEW)), (1, n)):  # the rest
            with cgutils.for_range_slice(builder, start, stop, integer(count), integer) as (i, _):
                lane = builder.srem(i, integer(LANES))
                slot = builder.gep(builder.bitcast(in_memory, double.as_pointer()), [lane])
                add_terms(builder.bitcast(slot, ir.VectorType(double, count).as_pointer()), i, count)
            start = stop
        folded, size = builder.load(in_memory), LANES
        while size > 1:
            size //= 2
            folded = builder.fadd(part(folded, list(range(0, 2 * size, 2))), part(folded, list(range(1, 2 * size, 2))))
        return builder.extract_element(folded, ir.IntType(32)(0))

    return intrinsic(total)


def _number(builder: Any, x: Any, y: Any, centre: Any) -> Any:
    return x


def _product(builder: Any, x: Any, y: Any, centre: Any) -> Any:
    return builder.fmul(x, y, flags=("contract",))


def _square(builder: Any, x: Any, y: Any, centre: Any) -> Any:
    difference = builder.fsub(x, centre)
    return builder.fmul(difference, difference, flags=("contract",))


_sums, _products, _squares = _interleaved(_number), _interleaved(_product), _interleaved(_square)


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
