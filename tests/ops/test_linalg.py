"""Linear algebra: the same bits for any number of threads, einsum against NumPy's, refusals, the kernels' budgets.

Start at `test_same_bits_for_any_number_of_threads`.
"""

import functools
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from minigen.autograd import Tensor, grad, set_backend
from minigen.autograd.gradcheck import gradcheck
from minigen.autograd.kernels import linalg as kernels
from minigen.autograd.kernels import threads
from minigen.autograd.kernels.linalg import cpu
from minigen.autograd.ops import linalg as ops

KERNELS = [kernels.matmul, kernels.solve_triangular]
BACKENDS = ["numpy", "numba"]

DIGESTS = """
import hashlib, sys
import numba, numpy as np
from minigen.autograd import get_backend, set_backend
from minigen.autograd.kernels.indexing import scatter_add
from minigen.autograd.ops import linalg as ops

rng = np.random.default_rng(0)

def random(*shape):
    return rng.standard_normal(shape).astype(np.float32)

x, y, tall, wide = random(100, 784), random(784, 200), random(2048, 64), random(64, 2048)
batch, square = random(6, 128, 200), random(300, 300).astype(np.float64)
triangle = np.tril(square) + 30 * np.eye(300)
values, rows = random(1, 3000, 64), rng.integers(0, 5, 3000)
calls = [
    lambda: ops.matmul(x, y), lambda: ops.matmul(y.T, x.T), lambda: ops.matmul(x, y[:, :50]), lambda: ops.matmul(tall, wide),
    lambda: ops.matmul(wide, tall), lambda: ops.matmul(square, square), lambda: ops.matmul(tall, wide[:, 0]),
    lambda: ops.matmul(tall[:, 0], tall), lambda: ops.matmul(batch, random(200, 300)), lambda: ops.matmul(batch, batch.mT),
    lambda: ops.einsum("bik,bjk,jl->bil", batch, batch, random(128, 100)), lambda: ops.inv(square),
    lambda: ops.slogdet(square)[1], lambda: ops.solve_triangular(triangle, square, lower=True),
    lambda: scatter_add(values, rows, 5),
]
for backend in ("numba", "numpy"):
    set_backend(backend)
    for threads in (1, 2, 3, 4, 8):
        numba.set_num_threads(threads)
        rng = np.random.default_rng(1)
        print(backend, hashlib.sha256(b"".join(np.asarray(call()).tobytes() for call in calls)).hexdigest())
"""


def test_same_bits_for_any_number_of_threads():
    """Ours (1, 2, 3, 4, 8 threads), and whatever BLAS was told by its environment."""
    runs = []
    for count in ("1", "4"):
        environment = {"NUMBA_NUM_THREADS": "8", "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
        command = [sys.executable, "-c", DIGESTS]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        runs.append(subprocess.Popen(command, env={**os.environ, **environment}, **pipes))
    lines = []
    for run in runs:
        out, error = run.communicate(timeout=300)
        assert run.returncode == 0, error
        lines += out.splitlines()
    assert len(lines) == 20
    assert len(set(lines)) == 2, lines  # one digest for each backend


def test_every_task_runs_once_and_errors_are_not_lost():
    def fail():
        raise ValueError("in a chunk")

    for count in (1, 2, 5, 100):
        done = []
        threads.run([functools.partial(done.append, i) for i in range(20)], count)
        assert sorted(done) == list(range(20))
        with pytest.raises(ValueError, match="in a chunk"):
            threads.run([fail] * 20, count)
    threads.run([], 4)


# ---- the kernels


def in_float64(args):
    return [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_kernels_keep_their_error_budget(kernel, dtype, backend):
    exact = kernel.implementation("numpy")
    for args, kwargs in kernel.card.cases(np.random.default_rng(0), dtype):
        before = [np.copy(a) for a in args]
        result, expected = kernel.implementation(backend)(*args, **kwargs), exact(*in_float64(args), **kwargs)
        assert result.dtype == dtype
        assert np.shape(result) == np.shape(expected)
        budget = kernel.card.ulp * np.finfo(dtype).eps * kernel.card.scale(*in_float64(args), **kwargs)
        assert (abs(result - expected) <= budget).all(), [np.shape(a) for a in args]
        for array, copy in zip(args, before, strict=True):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("backend", BACKENDS)
def test_matmul_writes_into_a_buffer_and_takes_any_strides(backend):
    run = kernels.matmul.implementation(backend)
    for (a, b), _ in kernels.matmul.card.cases(np.random.default_rng(0), np.float64):
        expected = np.matmul(a, b)
        if expected.ndim:
            out = np.full_like(expected, np.nan)
            assert np.shares_memory(run(a, b, out=out), out) or not out.size
            np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
        wide = np.repeat(a, 2, axis=-1)[..., ::2]
        np.testing.assert_allclose(run(np.flip(np.flip(wide).copy()), np.array(b, order="F")), expected, 1e-12, 1e-12)


def test_matmul_costs():
    a, b = np.ones((2, 1, 3, 4), np.float32), np.ones((5, 4, 6), np.float32)
    assert kernels.matmul.card.flops(a, b) == 2 * (2 * 5 * 3 * 6) * 4
    assert kernels.matmul.card.bytes(a, b) == 4 * (24 + 120 + 180)
    assert kernels.matmul.card.flops(np.ones(7), np.ones(7)) == 14


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinities_make_nan_without_a_warning(backend):
    x = np.array([[np.inf, 1.0], [np.nan, 0.0]])
    with set_backend(backend):
        for a, b in ((x, np.zeros((2, 2))), (x, np.zeros(2)), (x[None], np.zeros((1, 2, 2))), (x[0], np.zeros(2))):
            assert np.isnan(ops.matmul(a, b)).all()


# ---- matmul


def test_gradient_of_matmul_reads_transposed_operands_in_place(monkeypatch):
    calls = []

    def spy(a, b):
        calls.append((a, b))
        return np.matmul(a, b)

    monkeypatch.setattr(kernels.matmul, "active", spy)
    x, w = Tensor(np.ones((5, 3)), requires_grad=True), Tensor(np.ones((3, 4)), requires_grad=True)
    grad((x @ w).sum(), [x, w])
    _, (_, w_transposed), (x_transposed, _) = calls
    assert np.shares_memory(w_transposed, w.data)
    assert np.shares_memory(x_transposed, x.data)


def test_gradient_of_a_matrix_under_a_batch_is_one_product(monkeypatch):
    calls = []

    def spy(a, b):
        calls.append((a.shape, b.shape))
        return np.matmul(a, b)

    monkeypatch.setattr(kernels.matmul, "active", spy)
    x, w = np.ones((2, 5, 3)), Tensor(np.ones((3, 4)), requires_grad=True)
    grad((x @ w).sum(), w)
    assert calls[1] == ((3, 10), (10, 4))


X = np.ones((2, 3))
REFUSED = {
    "matmul: x1 (2, 3) and x2 (2, 3) do not fit: the last axis of x1 must be as long as the last but one axis of x2": (
        lambda: ops.matmul(X, X)
    ),
    "matmul: x1 (2, 3) and x2 (2,) do not fit: the last axis of x1 must be as long as the only axis of x2": (
        lambda: ops.matmul(X, np.ones(2))
    ),
    "matmul: x1 (2, 3) and x2 () do not fit": lambda: ops.matmul(X, np.float64(2)),
    "matmul: (2, 2, 3) and (3, 3, 2): the batch axes": lambda: ops.matmul(np.ones((2, 2, 3)), np.ones((3, 3, 2))),
    "einsum: 'ij,jk' for shapes (2, 3), (2, 3): axis 'j' has sizes 3 and 2": lambda: ops.einsum("ij,jk", X, X),
    "einsum: 'ij' for shapes (2, 3), (2, 3): subscripts for 1 operands, but 2 are given": lambda: ops.einsum("ij", X, X),
    "einsum: 'ijk' for shapes (2, 3): 'ijk' names 3 axes of an operand with 2": lambda: ops.einsum("ijk", X),
    "einsum: 'ij->ik' for shapes (2, 3): the result 'ik' must name letters": lambda: ops.einsum("ij->ik", X),
    "einsum: 'ij->ii' for shapes (2, 3): the result 'ii' must name letters": lambda: ops.einsum("ij->ii", X),
    "einsum: '..j->j' for shapes (2, 3): subscripts are letters, commas, '->', and '...'": lambda: ops.einsum("..j->j", X),
    "einsum: '...jkl->l' for shapes (2, 3): 'jkl' names 3 axes of an operand with 2": lambda: ops.einsum("...jkl->l", X),
    "einsum: 'ij->...i' for shapes (2, 3): subscripts are letters": lambda: ops.einsum("ij->...i", X),
    "solve_triangular: a must be square matrices (..., N, N), got (2, 3)": lambda: ops.solve_triangular(X, X),
    "solve_triangular: b (2, 3) does not fit a (3, 3): it must be (..., 3, K)": (
        lambda: ops.solve_triangular(np.eye(3), X)
    ),
    "solve_triangular: b (2,) does not fit a (2, 2, 2)": lambda: ops.solve_triangular(np.ones((2, 2, 2)), X[:, 0]),
    "solve_triangular: b () does not fit a (2, 2)": lambda: ops.solve_triangular(np.eye(2), np.float64(1)),
    "solve_triangular: a (2, 2) is singular: there is a 0 on its diagonal": lambda: ops.solve_triangular(np.eye(2, k=1), X),
    "inv: a matrix of x (2, 2) is singular": lambda: ops.inv(np.zeros((2, 2))),
    "inv: x must be square matrices (..., N, N), got (2, 3)": lambda: ops.inv(X),
}


@pytest.mark.parametrize(("message", "call"), REFUSED.items())
def test_refusals_name_the_op_and_the_shapes(message, call):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()


# ---- einsum

SUBSCRIPTS = """
    ab,bc,cd->ad   ab,bc,ca   ab,b,bc->ca   abc,cd,bd->a   aab,bc,c->   a,b,c->cab   ab,ab,ab->b   ab->ba   aabb->ab
"""


@pytest.mark.parametrize("subscripts", SUBSCRIPTS.split())
def test_einsum_of_one_or_three_operands(subscripts):
    rng = np.random.default_rng(0)
    sizes = dict(zip("abcd", (2, 3, 4, 1), strict=True))
    operands = [rng.standard_normal([sizes[c] for c in own]) for own in subscripts.partition("->")[0].split(",")]
    np.testing.assert_allclose(ops.einsum(subscripts, *operands), np.einsum(subscripts, *operands), rtol=1e-13)
    gradcheck(lambda *xs: ops.einsum(subscripts, *xs), operands, analytic=True)


@given(st.data())
def test_einsum_is_numpys(data):
    letters = st.text("abcd", max_size=3)
    operands = data.draw(st.lists(letters, min_size=1, max_size=3))
    known = sorted(set("".join(operands)))
    result = data.draw(st.permutations(known).map(lambda p: p[: data.draw(st.integers(0, len(known)))]))
    subscripts = ",".join(operands) + data.draw(st.sampled_from(["", "->" + "".join(result)]))
    sizes = {c: data.draw(st.integers(0, 3)) for c in known}
    arrays = [np.random.default_rng(i).integers(-3, 4, [sizes[c] for c in own]).astype(float) for i, own in enumerate(operands)]
    np.testing.assert_array_equal(ops.einsum(subscripts, *arrays), np.einsum(subscripts, *arrays))  # exact: small integers


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("...i->...", [(2, 3, 4)]),
        ("...ij,...jk->...ik", [(5, 2, 3), (3, 4)]),
        ("...ij,...jk->...ik", [(5, 1, 2, 3), (6, 3, 4)]),
        ("...ij,...j", [(4, 2, 3), (1, 3)]),
        ("...i,i...->...", [(2, 3), (3, 2)]),
        ("i...j,...k->...kij", [(2, 1, 3), (4, 2)]),
        ("...,...", [(), (3,)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("...,...->...", [(1, 0), (3, 1)]),
        ("b...a", [(2, 3, 4)]),
        ("..., i -> i ...", [(1,), (3,)]),
    ],
)
def test_einsum_with_axes_left_unnamed(subscripts, shapes):
    rng = np.random.default_rng(0)
    operands = [rng.integers(-9, 9, shape).astype(float) for shape in shapes]
    expected = np.einsum(subscripts, *operands)
    found = ops.einsum(subscripts, *operands)
    assert np.shape(found) == expected.shape
    np.testing.assert_array_equal(found, expected)
    if expected.size:
        gradcheck(lambda *xs: ops.einsum(subscripts, *xs), operands, analytic=True)


def test_einsum_contracts_by_matmul(monkeypatch):
    shapes = []

    def spy(a, b):
        shapes.append((a.shape, b.shape))
        return np.matmul(a, b)

    monkeypatch.setattr(kernels.matmul, "active", spy)
    ops.einsum("bqhd,bkhd->bhqk", np.ones((2, 5, 3, 4)), np.ones((2, 6, 3, 4)))
    assert shapes == [((2, 3, 5, 4), (2, 3, 4, 6))]


# ---- square matrices


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_large_triangular_systems_are_scipys(lower, transposed, dtype):
    """Larger than a block, so that halves and products are used; the other triangle is not read."""
    n = 2 * cpu.BLOCK + 7
    rng = np.random.default_rng(0)
    a = (rng.standard_normal((n, n)) / n + np.diag(rng.uniform(1, 2, n))).astype(dtype)
    b = rng.standard_normal((2, n, 5)).astype(dtype)
    a[np.triu_indices(n, 1) if lower else np.tril_indices(n, -1)] = np.nan
    x = ops.solve_triangular(a, b, lower=lower, transposed=transposed)
    assert x.dtype == dtype
    for xi, bi in zip(x, b, strict=True):
        expected = scipy.linalg.solve_triangular(np.nan_to_num(a), bi, trans=int(transposed), lower=lower)
        np.testing.assert_allclose(xi, expected, rtol=0, atol=200 * np.finfo(dtype).eps)


def test_sign_of_the_determinant_carries_no_gradient():
    x = Tensor(np.diag([2.0, -3.0]), requires_grad=True)
    sign, logabsdet = ops.slogdet(x)
    assert (sign.item(), logabsdet.item()) == (-1.0, pytest.approx(np.log(6.0)))
    np.testing.assert_array_equal(grad(sign, x).data, np.zeros((2, 2)))
    np.testing.assert_allclose(grad(ops.slogdet(x)[1], x).data, np.diag([1 / 2, -1 / 3]))


def test_slogdet_of_a_singular_matrix():
    x = Tensor(np.zeros((2, 2)), requires_grad=True)
    sign, logabsdet = ops.slogdet(x)
    assert (sign.item(), logabsdet.item()) == (0.0, -np.inf)
    with pytest.raises(np.linalg.LinAlgError, match=r"inv: a matrix of x \(2, 2\) is singular"):
        grad(logabsdet, x)


@pytest.mark.parametrize("where", [(0, 0), (1, 0), (2, 2)])
def test_a_nan_is_not_lost_between_pivots(where):
    x = np.stack([np.eye(3), np.eye(3)])
    x[1][where] = np.nan
    sign, logabsdet = ops.slogdet(x)
    for result in (ops.inv(x), sign, logabsdet):
        assert np.isfinite(result[0]).all()
        assert np.isnan(result[1]).all()
