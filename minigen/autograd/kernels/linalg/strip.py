"""The micro-kernel under matrix products: a column strip of a product, a few vectors wide. Start at `strip`.

It is ../tile.py for matrices, whose rows are evenly spaced: the loop over tiles of rows is part of it, so that a tile costs
no call (50 ns, as long as the arithmetic of 100 terms), and neighbours in a row of `a` are neighbours in memory, so that
one register counts for all rows of a tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..jit import jit
from ..tile import ROWS, VECTOR_BYTES

WIDE = 8  # vectors of a strip of one row: as many sums at a time as it takes to wait for none


@jit(contract=True)
def strip(vectors, a, a_start, a_row, b, b_start, b_k, out, out_start, out_row, rows, terms, accumulate):
    """out[m, c] = sum over k < terms of a[m, k] b[k, c], for m < rows and c < vectors * lanes, with

        a[m, k]: a[a_start + m a_row + k]      b[k, c]: b[b_start + k b_k + c]      out[m, c]: out[out_start + m out_row + c]

    vectors: 1 or 2, or WIDE, which goes row by row      a, b, out: flat arrays of one dtype      rows: at least 1
    accumulate: add to what `out` holds instead of overwriting it.
    """
    if vectors == 1:
        _strip1(a, a_start, a_row, b, b_start, b_k, out, out_start, out_row, rows, terms, accumulate)
    elif vectors == 2:
        _strip2(a, a_start, a_row, b, b_start, b_k, out, out_start, out_row, rows, terms, accumulate)
    else:
        _strip_wide(a, a_start, a_row, b, b_start, b_k, out, out_start, out_row, rows, terms, accumulate)


def _strip(tall: int, vectors: int) -> Callable[..., Any]:
    """The body of `strip` for tiles of `tall` rows: its types, and a function that emits it as LLVM instructions."""

    def product(context, a, a_start, a_row, b, b_start, b_k, out, out_start, out_row, rows, terms, accumulate):
        return types.void(a, a_start, a_row, b, b_start, b_k, out, out_start, out_row, rows, terms, accumulate), emit

    def emit(context, builder, signature, values):
        def data(index, start):  # the address of a number of an array
            array = context.make_array(signature.args[index])(context, builder, values[index])
            return builder.gep(array.data, [start])

        _, a_start, a_row, _, b_start, b_k, _, out_start, out_row, rows, terms, accumulate = values
        a, b, out = data(0, a_start), data(3, b_start), data(6, out_start)
        size = signature.args[0].dtype.bitwidth // 8
        lanes = VECTOR_BYTES // size
        integer = rows.type
        vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), lanes)
        zeros, undefined = ir.Constant(vector, None), ir.Constant(vector, ir.Undefined)
        first_lane = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
        tile = [(r, v) for r in range(tall) for v in range(vectors)]

        def vector_at(pointer, v):
            return builder.bitcast(builder.gep(pointer, [integer(v * lanes)]), vector.as_pointer())

        def add_to(slot, value):
            builder.store(builder.fadd(builder.load(slot), value, flags=("contract",)), slot)

        sums = {rv: cgutils.alloca_once(builder, vector) for rv in tile}  # LLVM puts them into registers
        last = builder.sub(rows, integer(1))
        tiles = builder.sdiv(builder.add(last, integer(tall)), integer(tall))
        with cgutils.for_range(builder, tiles) as count:
            first = builder.mul(count.index, integer(tall))
            lines = []
            for r in range(tall):  # the last tile repeats the last row instead of branching
                m = builder.add(first, integer(r))
                lines.append(builder.select(builder.icmp_signed("<", m, last), m, last))
            left = [builder.gep(a, [builder.mul(m, a_row)]) for m in lines]
            for rv in tile:
                builder.store(zeros, sums[rv])
            with cgutils.for_range(builder, terms) as k:
                pointer = builder.gep(b, [builder.mul(k.index, b_k)])
                right = [builder.load(vector_at(pointer, v), align=size) for v in range(vectors)]
                for r in range(tall):
                    number = builder.load(builder.gep(left[r], [k.index]))
                    filled = builder.insert_element(undefined, number, ir.IntType(32)(0))
                    filled = builder.shuffle_vector(filled, undefined, first_lane)
                    for v in range(vectors):
                        add_to(sums[r, v], builder.fmul(filled, right[v], flags=("contract",)))
            target = [builder.gep(out, [builder.mul(m, out_row)]) for m in lines]
            with builder.if_then(accumulate):  # all loads come before the first store, so a repeated row is added once
                for r, v in tile:
                    add_to(sums[r, v], builder.load(vector_at(target[r], v), align=size))
            for r, v in tile:
                builder.store(builder.load(sums[r, v]), vector_at(target[r], v), align=size)
        return context.get_dummy_value()

    return product


_strip1 = intrinsic(_strip(ROWS, 1))
_strip2 = intrinsic(_strip(ROWS, 2))
_strip_wide = intrinsic(_strip(1, WIDE))
