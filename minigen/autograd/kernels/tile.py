"""The micro-kernel under convolutions and matrix products: a small product that stays in registers. Start at `tiles`.

ROWS x (1 or 2) vectors of sums are held in registers while a reduction runs through memory. Each step loads one or two
vectors of b, broadcasts one number of a per row, and issues ROWS x (1 or 2) fused multiply-adds: about two loads for
three multiply-adds, so that the arithmetic units set the pace and not the caches.

Numba has no vector type, so the product is written once in LLVM's intermediate language (`_product`). Vector width and
number of rows follow the host's registers. Every sum is added up in the order of the loops.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from .jit import jit


@jit(contract=True)
def tiles(vectors, extent, a, a_start, a_step, a_rows, rows, b, b_start, b_step, out, out_start, out_rows, accumulate):
    """Sums of products for `rows` rows, ROWS at a time, and `vectors` (1 or 2) vectors of columns:

        out[out_start + out_rows[r] + c]  =  sum over i, j, k of
            a[a_start + a_rows[r] + (i, j, k) . a_step]  *  b[b_start + (i, j, k) . b_step + c]

    for r < rows and c < vectors * lanes, where (i, j, k) runs below `extent`. a, b, out: flat arrays of one dtype.
    a_rows, out_rows: int64. Up to ROWS - 1 entries beyond `rows` are used too, so that no tile is smaller than others: let them
    repeat the last one. A row that is listed twice in a tile has the same effect as one listed once.
    accumulate: add to what `out` holds instead of overwriting it.
    """
    if vectors == 1:
        _product1(extent, a, a_start, a_step, a_rows, rows, b, b_start, b_step, out, out_start, out_rows, accumulate)
    else:
        _product2(extent, a, a_start, a_step, a_rows, rows, b, b_start, b_step, out, out_start, out_rows, accumulate)


@jit(contract=True)
def wide_tiles(extent, a, a_start, a_step, a_rows, rows, b, b_start, b_step, out, out_start, out_rows, accumulate):
    """`tiles` for two vectors: half of the code to compile, for a caller that needs no narrower ones."""
    _product2(extent, a, a_start, a_step, a_rows, rows, b, b_start, b_step, out, out_start, out_rows, accumulate)


def vector_registers(machine: str, features: set[str]) -> tuple[int, int]:
    """Bytes of one vector register and how many there are, for a processor of this kind."""
    if "avx512f" in features:
        return 64, 32
    if "avx" in features:
        return 32, 16
    return 16, 32 if machine in ("aarch64", "arm64") else 16


def _host_features() -> set[str]:
    """What Numba compiles for: the features of this processor, unless NUMBA_CPU_FEATURES names others."""
    chosen = config.CPU_FEATURES  # type: ignore[attr-defined]
    if chosen is not None:
        return {feature[1:] for feature in chosen.split(",") if feature.startswith("+")}
    return {name for name, present in llvmlite.binding.get_host_cpu_features().items() if present}


VECTOR_BYTES, REGISTERS = vector_registers(platform.machine(), _host_features())
ROWS = (REGISTERS - 3) // 2  # two vectors of sums per row, two of b, one of a: 14 rows with 32 registers, 6 with 16


def _product(vectors: int) -> Callable[..., Any]:
    """The body of `tiles` for 1 or 2 vectors: its types, and a function that emits it as LLVM instructions."""

    def product(context, extent, a, a_start, a_step, a_rows, rows, b, b_start, b_step, out, out_start, out_rows, accumulate):
        arguments = (extent, a, a_start, a_step, a_rows, rows, b, b_start, b_step, out, out_start, out_rows, accumulate)
        return types.void(*arguments), emit

    def emit(context, builder, signature, values):
        def data(index):  # the address of the first element of an array
            return context.make_array(signature.args[index])(context, builder, values[index]).data

        extent, _, a_start, a_step, _, count, _, b_start, b_step, _, out_start, _, accumulate = values
        a, a_rows, b, out, out_rows = (data(index) for index in (1, 4, 6, 9, 11))
        extent, a_step, b_step = (cgutils.unpack_tuple(builder, t) for t in (extent, a_step, b_step))
        size = signature.args[1].dtype.bitwidth // 8
        lanes = VECTOR_BYTES // size
        vector = ir.VectorType(context.get_value_type(signature.args[1].dtype), lanes)
        zeros, undefined = ir.Constant(vector, None), ir.Constant(vector, ir.Undefined)
        first_lane = ir.Constant(ir.VectorType(ir.IntType(32), lanes), None)
        int64 = ir.IntType(64)
        tile_of_sums = [(r, v) for r in range(ROWS) for v in range(vectors)]

        def at(pointer, *offsets):
            for offset in offsets:
                pointer = builder.gep(pointer, [offset])
            return pointer

        def vector_at(pointer, v):
            return builder.bitcast(at(pointer, int64(v * lanes)), vector.as_pointer())

        def entry(table, first, r):
            return builder.load(at(table, first, int64(r)))

        def dot(step, *indices):
            products = [builder.mul(s, i) for s, i in zip(step, indices, strict=False)]
            return products[0] if len(products) == 1 else builder.add(*products)

        def add_to(slot, value):
            builder.store(builder.fadd(builder.load(slot), value, flags=("contract",)), slot)

        sums = {rv: cgutils.alloca_once(builder, vector) for rv in tile_of_sums}  # LLVM puts them into registers
        with cgutils.for_range_slice(builder, int64(0), count, int64(ROWS), int64) as (first, _):
            for slot in sums.values():
                builder.store(zeros, slot)
            rows = [at(a, a_start, entry(a_rows, first, r)) for r in range(ROWS)]
            with cgutils.for_range(builder, extent[0]) as i, cgutils.for_range(builder, extent[1]) as j:
                a_ij, b_ij = dot(a_step, i.index, j.index), dot(b_step, i.index, j.index)
                with cgutils.for_range(builder, extent[2]) as k:
                    a_ijk, b_ijk = builder.add(a_ij, dot(a_step[2:], k.index)), builder.add(b_ij, dot(b_step[2:], k.index))
                    right = [builder.load(vector_at(at(b, b_start, b_ijk), v), align=size) for v in range(vectors)]
                    for r in range(ROWS):
                        number = builder.insert_element(undefined, builder.load(at(rows[r], a_ijk)), ir.IntType(32)(0))
                        left = builder.shuffle_vector(number, undefined, first_lane)
                        for v in range(vectors):
                            add_to(sums[r, v], builder.fmul(left, right[v], flags=("contract",)))

            targets = {(r, v): vector_at(at(out, out_start, entry(out_rows, first, r)), v) for r, v in tile_of_sums}
            with builder.if_then(accumulate):  # all loads come before the first store, so a repeated row is added once
                for rv in tile_of_sums:
                    add_to(sums[rv], builder.load(targets[rv], align=size))
            for rv in tile_of_sums:
                builder.store(builder.load(sums[rv]), targets[rv], align=size)
        return context.get_dummy_value()

    return product


_product1 = intrinsic(_product(1))
_product2 = intrinsic(_product(2))
