"""Matrix products: a number has the same bits whatever stands beside it. Start at `test_bits_depend_on_nothing_else`."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen.autograd.kernels.jit import whole_vectors
from minigen.autograd.kernels.linalg import cpu, multiply
from minigen.autograd.kernels.linalg.product import BLOCK, PACKED
from minigen.autograd.kernels.linalg.transpose import transpose

DTYPES = [np.float32, np.float64]
SIZES = st.one_of(st.integers(1, 4), st.integers(5, 80), st.just(PACKED + 1))
DEPTHS = st.one_of(st.integers(1, 80), st.integers(BLOCK - 1, 3 * BLOCK))
ORDERS = st.sampled_from("CF")


def random(seed: int, *shape: int, dtype: type = np.float32, order: str = "C") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype, order=order)


@given(SIZES, DEPTHS, SIZES, st.sampled_from(DTYPES), ORDERS, ORDERS, st.data())
def test_bits_depend_on_nothing_else(rows, depth, columns, dtype, left, right, data):
    """A part of the rows or columns, copied or in place, in either order, gives that part of the product, bit for bit."""
    a, b = random(0, rows, depth, dtype=dtype, order=left), random(1, depth, columns, dtype=dtype, order=right)
    product = cpu.matmul(a, b)
    some = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in product.shape]
    m, n = (slice(*cut) for cut in some)
    np.testing.assert_array_equal(cpu.matmul(a[m], b), product[m])
    np.testing.assert_array_equal(cpu.matmul(a, b[:, n]), product[:, n])
    np.testing.assert_array_equal(cpu.matmul(np.asfortranarray(a[m]), np.ascontiguousarray(b[:, n])), product[m, n])
    np.testing.assert_array_equal(cpu.matmul(b.T, a.T), product.T)
    np.testing.assert_array_equal(cpu.matmul(a[None], b[None])[0], product)
    np.testing.assert_array_equal(cpu.matmul(np.stack([a, a]), np.stack([b, b]))[1], product)
    if rows:
        np.testing.assert_array_equal(cpu.matmul(a[0], b), product[0])
        np.testing.assert_array_equal(cpu.matmul(a, b[:, 0]), product[:, 0])


@given(SIZES, DEPTHS, SIZES, st.sampled_from(DTYPES), ORDERS, ORDERS)
def test_small_integers_are_exact(rows, depth, columns, dtype, left, right):
    """Sums below 2^24 are: what NumPy's integers give, so that no row, column or term is lost or counted twice."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 10, (rows, depth)), rng.integers(-9, 10, (depth, columns))
    found = cpu.matmul(a.astype(dtype, order=left), b.astype(dtype, order=right))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, a @ b)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(300, 40, 9), (9, 40, 300), (1, 500, 200), (33, 1, 33)])
def test_parts_for_threads_make_the_whole(monkeypatch, shape, threads):
    a, b = random(0, *shape[:2]), random(1, *shape[1:])
    whole = cpu.matmul(a, b), cpu.matmul(np.stack([a] * 5), b.T.copy().T[None])
    monkeypatch.setattr(multiply, "PARALLEL_TERMS", 0)
    monkeypatch.setattr(multiply, "get_num_threads", lambda: threads)
    for order in "CF":
        left, right = np.array(a, order=order), np.array(b, order=order)
        np.testing.assert_array_equal(cpu.matmul(left, right), whole[0])
        np.testing.assert_array_equal(cpu.matmul(np.stack([left] * 5), right[None]), whole[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(1, 3, 1), (3, 5, 2), (7, 4, 19), (40, 6, 21), (2, 3, 150)])
def test_nan_and_infinity_as_in_ieee_arithmetic(shape, order, dtype):
    """Every pair of one special number in a and one in b: what sums of products in a plain loop give, nothing beside it."""
    rows, depth, columns = shape
    special = [np.nan, np.inf, -np.inf, 0.0, 1.0]
    for x in special:
        for y in special:
            a, b = np.ones((rows, depth), dtype, order), np.ones((depth, columns), dtype, order)
            a[-1, depth // 2], b[depth // 2, -1] = x, y
            with np.errstate(invalid="ignore"):
                expected = (a[:, :, None] * b).sum(axis=1)
            np.testing.assert_array_equal(cpu.matmul(a, b), expected)


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from(DTYPES))
def test_transpose(rows, columns, dtype):
    x, out = random(0, rows + 1, columns + 2, dtype=dtype), np.zeros((columns + 1, rows + 3), dtype)
    expected = out.copy()
    expected[1:, 2 : 2 + rows] = x[1:, 1 : 1 + columns].T
    transpose(x.reshape(-1), columns + 3, columns + 2, rows, columns, out.reshape(-1), rows + 5, rows + 3)
    np.testing.assert_array_equal(out, expected)


def test_what_does_not_fit_is_refused():
    for a, b in [((2, 3), (2, 3)), ((2,), (3,)), ((5, 2, 3), (5, 2, 3)), ((5, 2, 3), (2, 4))]:
        with pytest.raises(ValueError, match="do not fit"):
            cpu.matmul(np.ones(a, np.float32), np.ones(b, np.float32))
    with pytest.raises(ValueError, match="does not fit into out"):
        cpu.matmul(np.ones((2, 3)), np.ones((3, 2)), out=np.ones((2, 3)))


OTHER_VECTORS = """
import sys
from minigen.autograd.kernels import tile
tile.VECTOR_BYTES, tile.ROWS = map(int, sys.argv[1:])
import numpy as np
from minigen.autograd.kernels.linalg import cpu
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for rows, depth, columns in [(1, 9, 300), (5, 3, 33), (70, 1100, 50), (17, 40, 2)]:
        a, b = rng.integers(-9, 10, (rows, depth)), rng.integers(-9, 10, (depth, columns))
        for left in (a.astype(dtype), a.astype(dtype, order="F")):
            for right in (b.astype(dtype), b.astype(dtype, order="F")):
                np.testing.assert_array_equal(cpu.matmul(left, right), a @ b)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("vector_bytes", "rows"), [(16, 6), (16, 14), (32, 6), (64, 14)])
def test_other_processors_tiles(vector_bytes, rows, tmp_path):
    """Those of NEON, AVX2 and AVX-512: LLVM makes do with the vectors that there are."""
    command = [sys.executable, "-c", OTHER_VECTORS, str(vector_bytes), str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr


def test_whole_vectors_are_asked_for_where_there_are_wide_ones():
    assert whole_vectors("+avx2,+avx512f,-amx") == "+avx2,+avx512f,-amx,-prefer-256-bit"
    assert whole_vectors("+avx2,-avx512f") is None
    assert whole_vectors("") is None


def test_a_result_may_be_written_over_an_operand():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 20, 20))
    expected = multiply.matmul(a, b)
    for k in range(2):
        arrays = [a.copy(), b.copy()]
        assert multiply.matmul(*arrays, arrays[k]) is arrays[k]
        np.testing.assert_array_equal(arrays[k], expected)


@pytest.mark.parametrize("operands", [((20, 20), (20, 20)), ((20,), (20, 20)), ((3, 20, 20), (20, 20))])
def test_a_result_that_does_not_fit_is_refused(operands):
    a, b = (np.ones(shape) for shape in operands)
    fitting = multiply.matmul(a, b)
    fixed = fitting.copy()
    fixed.flags.writeable = False
    for out in (np.empty((5, *fitting.shape)), fitting.astype(np.float32), fixed):
        with pytest.raises(ValueError, match=r"does not fit into out|cannot be written"):
            multiply.matmul(a, b, out)
