"""Transposing in registers, for what a product has to read in the other order. Start at `transpose`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..jit import jit
from ..tile import VECTOR_BYTES


@jit()
def transpose(x, x_start, x_row, rows, columns, out, out_start, out_row):
    """out[out_start + c out_row + r] = x[x_start + r x_row + c], for r < rows and c < columns. x, out: flat, of one dtype.

    A loop moves a number at a time, and either reads or writes a line of the cache for each. Here a square of vectors
    is loaded, turned and stored: .5 cycles a number instead of 1 to 3.
    """
    lanes = VECTOR_BYTES // x.itemsize
    whole_rows, whole_columns = rows // lanes * lanes, columns // lanes * lanes
    for r in range(0, whole_rows, lanes):
        for c in range(0, whole_columns, lanes):
            _square(x, x_start + r * x_row + c, x_row, out, out_start + c * out_row + r, out_row)
    for r in range(rows):  # what is left, to the right of the squares and below
        for c in range(whole_columns if r < whole_rows else 0, columns):
            out[out_start + c * out_row + r] = x[x_start + r * x_row + c]


def _transpose_square(context, x, x_start, x_row, out, out_start, out_row):
    """A square of one vector by one vector: ever smaller blocks change places across the diagonal. Types, and LLVM code."""

    def emit(context, builder, signature, values):
        x, x_start, x_row, out, out_start, out_row = values
        size = signature.args[0].dtype.bitwidth // 8
        lanes = VECTOR_BYTES // size
        vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), lanes)

        def vector_at(array: Any, argument: int, start: Any, row: Any, i: int) -> Any:
            data = context.make_array(signature.args[argument])(context, builder, array).data
            offset = builder.add(start, builder.mul(row, row.type(i)))
            return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

        def shuffle(first: Any, second: Any, lanes_of_both: list[int]) -> Any:
            return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(ir.IntType(32), lanes), lanes_of_both))

        square = [builder.load(vector_at(x, 0, x_start, x_row, i), align=size) for i in range(lanes)]
        block = lanes // 2
        while block:
            upper = [j if not j & block else lanes + j - block for j in range(lanes)]
            lower = [j + block if not j & block else lanes + j for j in range(lanes)]
            for i in range(lanes):
                if not i & block:
                    first, second = square[i], square[i + block]
                    square[i], square[i + block] = shuffle(first, second, upper), shuffle(first, second, lower)
            block //= 2
        for i in range(lanes):
            builder.store(square[i], vector_at(out, 3, out_start, out_row, i), align=size)
        return context.get_dummy_value()

    return types.void(x, x_start, x_row, out, out_start, out_row), emit


_square: Any = intrinsic(_transpose_square)
