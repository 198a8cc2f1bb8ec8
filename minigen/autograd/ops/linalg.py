"""Linear algebra. Start at `matmul`. Leading axes are batch axes throughout, and broadcast.

Rules are full of transposes, which cost nothing: `x.mT` is a view, and the kernel reads either order. They call `matmul`,
not `@`, which on raw arrays is NumPy's own product, without the promises of ours.
"""

from __future__ import annotations

from math import prod
from string import ascii_letters

import numpy as np

from ..backend import on_gpu
from ..kernels import linalg as kernels
from ..tape import Array, op
from .indexing import scatter_add
from .reduction import sum
from .shape import expand_dims, permute_dims, reshape, squeeze


@op
def matmul(x1: Array, x2: Array) -> Array:
    """x1 @ x2: (..., M, K), (..., K, N) -> (..., M, N). A vector (K,) is a row on the left and a column on the right.

    The same bits for any number of threads, and in each row for any number of other rows.
    Raises ValueError if the inner sizes differ, or for arrays without axes.
    """
    if x1.ndim == 0 or x2.ndim == 0 or x1.shape[-1] != x2.shape[-2 if x2.ndim > 1 else 0]:
        raise ValueError(
            f"matmul: x1 {x1.shape} and x2 {x2.shape} do not fit: the last axis of x1 must be as long as the "
            f"{'last but one' if x2.ndim > 1 else 'only'} axis of x2"
        )
    if x1.ndim > 2 and x2.ndim > 2 and x1.shape[:-2] != x2.shape[:-2]:
        _broadcast("matmul", x1, x2)
    return kernels.matmul(x1, x2)


def _broadcast(name: str, x1: Array, x2: Array) -> tuple[int, ...]:
    """The batch axes of two arrays of matrices; ValueError if they do not broadcast."""
    try:
        return np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    except ValueError:
        raise ValueError(
            f"{name}: {x1.shape} and {x2.shape}: the batch axes, all but the last two, must be equal or 1"
        ) from None


def _check_square(name: str, x: Array) -> None:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ValueError(f"{name}: x must be square matrices (..., N, N), got {x.shape}")
    if x.dtype.char not in "fdFD":
        raise TypeError(f"{name}: float32 or float64 needed, got {x.dtype}: convert with astype")


matmul.vjp(
    x1=lambda g, x2: _matmul_left(g, x2),
    x2=lambda g, x1, x2_shape: _matmul_right(g, x1, x2_shape),
)


def _matmul_left(g: Array, x2: Array) -> Array:
    """g x2ᵀ, and its forms for vectors."""
    if x2.ndim == 1:  # g (..., M), or () if x1 is a vector too
        return g * x2 if g.ndim == 0 else expand_dims(g, -1) * x2  # (..., M, K)
    if g.ndim == 1:  # x1 (K,), x2 (K, N)
        return matmul(x2, g)  # (K,)
    if g.ndim < x2.ndim:  # x1 (K,), x2 (..., K, N), g (..., N)
        return squeeze(matmul(x2, expand_dims(g, -1)), -1)  # (..., K)
    return matmul(g, x2.mT)


def _matmul_right(g: Array, x1: Array, shape: tuple[int, ...]) -> Array:
    """x1ᵀ g, and its forms for vectors. shape: of x2.

    A single matrix x2 under a batch has the sum over the batch as its gradient: one product of two tall matrices.
    """
    if x1.ndim == 1:  # g (..., N) or ()
        return g * x1 if len(shape) == 1 else expand_dims(x1, -1) * expand_dims(g, -2)  # (..., K, N)
    if x1.ndim > 2 and len(shape) <= 2:
        rows = prod(x1.shape[:-1])
        x1 = reshape(x1, (rows, x1.shape[-1]))
        g = reshape(g, (rows, *shape[1:]))
    return matmul(x1.mT, g)


# ---- einsum


def einsum(subscripts: str, *arrays: Array) -> Array:
    """Einstein summation: einsum("bik,bkj->bij", x, y)[b, i, j] = Σ_k x[b, i, k] y[b, k, j].

    subscripts: one letter for each axis, operands separated by commas; letters that the part after "->" leaves out are
    summed over. Without "->" the result has the letters that occur once, in alphabetical order. A letter twice in one
    operand takes its diagonal. "..." stands for the axes that are left, which broadcast together: einsum("...ij,...j->...i").

    Operands are contracted from left to right, two at a time, by `matmul` where there is something to sum over. Raises
    ValueError for subscripts that do not fit the operands, naming them.
    """
    named, arrays = _name_every_axis(subscripts, arrays)
    labels, result = _parse(named, [x.shape for x in arrays], subscripts)
    terms = [_on_diagonal(x, own) for x, own in zip(arrays, labels, strict=True)]
    x, own = terms[0]
    for i, (y, other) in enumerate(terms[1:], start=1):
        later = result + "".join(labels[i + 1 :])
        x, own = _sum_except(x, own, other + later)
        y, other = _sum_except(y, other, own + later)
        x, own = _contract(x, own, y, other, later)
    x, own = _sum_except(x, own, result)
    return _arranged(x, own, result)


def _name_every_axis(subscripts: str, arrays: tuple) -> tuple[str, tuple]:
    """Subscripts with letters in place of each "...", counted from the right; and the arrays, without the axes of size 1
    among these that broadcast with longer ones. What does not fit is left for `_parse` to refuse.
    """
    left, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if "..." not in left or len(terms) != len(arrays):
        return subscripts, arrays
    counts = [max(x.ndim - len(t) + 3, 0) if "..." in t else 0 for t, x in zip(terms, arrays, strict=True)]
    names = "".join(c for c in ascii_letters if c not in subscripts)[: max(counts)]
    labels = [t.replace("...", names[len(names) - k :], 1) for t, k in zip(terms, counts, strict=True)]
    sizes = [pair for own, x in zip(labels, arrays, strict=True) for pair in zip(own, x.shape, strict=False)]
    long = {c for c, n in sizes if c in names and n != 1}
    kept = []
    for i, x in enumerate(arrays):
        ones = tuple(j for j, c in enumerate(labels[i]) if c in long and j < x.ndim and x.shape[j] == 1)
        kept.append(squeeze(x, ones) if ones else x)
        labels[i] = "".join(c for j, c in enumerate(labels[i]) if j not in ones)
    once = sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1)
    result = result.replace("...", names, 1) if arrow else names + "".join(once)
    return f"{','.join(labels)}->{result}", tuple(kept)


def _parse(subscripts: str, shapes: list[tuple[int, ...]], shown: str) -> tuple[list[str], str]:
    """The letters of each operand and of the result, checked against the operands' shapes. shown: as the caller wrote it."""
    left, arrow, result = subscripts.replace(" ", "").partition("->")
    labels = left.split(",")
    letters = left.replace(",", "")

    def refuse(why: str) -> ValueError:
        return ValueError(f"einsum: {shown!r} for shapes {', '.join(map(str, shapes))}: {why}")

    if not (letters + result).isalpha() and letters + result:
        raise refuse("subscripts are letters, commas, '->', and '...' once in an operand")
    if len(labels) != len(shapes):
        raise refuse(f"subscripts for {len(labels)} operands, but {len(shapes)} are given")
    if not arrow:
        result = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    if len(set(result)) != len(result) or not set(result) <= set(letters):
        raise refuse(f"the result {result!r} must name letters of the operands, each once")
    sizes: dict[str, int] = {}
    for own, shape in zip(labels, shapes, strict=True):
        if len(own) != len(shape):
            raise refuse(f"{own!r} names {len(own)} axes of an operand with {len(shape)}")
        for c, n in zip(own, shape, strict=True):
            if sizes.setdefault(c, n) != n:
                raise refuse(f"axis {c!r} has sizes {sizes[c]} and {n}")
    return labels, result


def _on_diagonal(x: Array, labels: str) -> tuple[Array, str]:
    """x with each letter once: where two axes have the same letter, their diagonal."""
    for c in labels:
        while labels.count(c) > 1:
            i, j = labels.index(c), labels.rindex(c)
            rest = [a for a in range(len(labels)) if a not in (i, j)]
            x = diagonal(permute_dims(x, (*rest, i, j)))
            labels = "".join(labels[a] for a in rest) + c
    return x, labels


def _sum_except(x: Array, labels: str, kept: str) -> tuple[Array, str]:
    """Sum x over the axes whose letters are not needed any more."""
    gone = tuple(i for i, c in enumerate(labels) if c not in kept)
    return (sum(x, axis=gone), "".join(c for c in labels if c in kept)) if gone else (x, labels)


def _contract(x: Array, own: str, y: Array, other: str, kept: str) -> tuple[Array, str]:
    """The product of two operands, summed over the letters that they share and nobody needs later."""
    shared = [c for c in own if c in other]
    batch = "".join(c for c in shared if c in kept)
    summed = "".join(c for c in shared if c not in kept)
    rows = "".join(c for c in own if c not in shared)
    columns = "".join(c for c in other if c not in shared)
    if not summed or (batch and not rows + columns):  # nothing for a product to do: no sum, or only dot products
        labels = batch + rows + columns + summed
        return _sum_except(_arranged(x, own, labels) * _arranged(y, other, labels), labels, kept)
    sizes = dict(zip(own + other, x.shape + y.shape, strict=True))

    def matrices(z: Array, labels: str, left: str, right: str) -> Array:
        shape = [sizes[c] for c in batch] + [prod(sizes[c] for c in part) for part in (left, right)]
        return reshape(_arranged(z, labels, batch + left + right), shape)  # (batch ..., left, right)

    product = matmul(matrices(x, own, rows, summed), matrices(y, other, summed, columns))
    labels = batch + rows + columns
    return reshape(product, tuple(sizes[c] for c in labels)), labels


def _arranged(x: Array, labels: str, wanted: str) -> Array:
    """x with its axes in the order `wanted`, and axes of size 1 for the letters that it does not have."""
    order = tuple(labels.index(c) for c in wanted if c in labels)
    if order != tuple(range(len(order))):
        x = permute_dims(x, order)
    if len(order) == len(wanted):
        return x
    sizes = dict(zip((c for c in wanted if c in labels), x.shape, strict=True))
    return reshape(x, tuple(sizes.get(c, 1) for c in wanted))


# ---- square matrices


@op
def solve_triangular(
    a: Array, b: Array, lower: bool = False, transposed: bool = False, unit_diagonal: bool = False
) -> Array:
    """x with a x = b for a triangular a.   a (..., N, N), b (..., N, K) or (N,) -> x like b, batch axes broadcast

    lower: a is a lower triangle, else an upper one; the other half is not read.   transposed: solve aᵀ x = b instead.
    unit_diagonal: the diagonal of a counts as 1 and is not read.
    Raises ValueError for shapes that do not fit, LinAlgError for a 0 on the diagonal.
    """
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"solve_triangular: a must be square matrices (..., N, N), got {a.shape}")
    n = a.shape[-1]
    if b.shape[-2 if b.ndim > 1 else 0 :][:1] != (n,) or (b.ndim == 1 and a.ndim > 2):
        raise ValueError(
            f"solve_triangular: b {b.shape} does not fit a {a.shape}: it must be (..., {n}, K), or ({n},) for a single matrix a"
        )
    if not unit_diagonal and (np.diagonal(a, axis1=-2, axis2=-1) == 0).any():
        raise np.linalg.LinAlgError(
            f"solve_triangular: a {a.shape} is singular: there is a 0 on its diagonal; unit_diagonal=True takes it for 1"
        )
    if b.ndim == 1:
        return solve_triangular.forward(a, b[:, None], lower, transposed, unit_diagonal)[:, 0]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if prod(a.shape[:-2]) != 1:  # one matrix for the whole batch is not copied
        a = np.broadcast_to(a, (*batch, n, n))
    b = np.broadcast_to(b, (*batch, *b.shape[-2:]))
    dtype = np.result_type(a, b)
    x = kernels.solve_triangular(
        (a.mT if transposed else a).reshape(prod(a.shape[:-2]), n, n).astype(dtype, copy=False),
        b.reshape(prod(batch), *b.shape[-2:]).astype(dtype, copy=False),
        lower != transposed,
        unit_diagonal,
    )
    return x.reshape(b.shape)


solve_triangular.vjp(
    a=lambda g, a, out, lower, transposed, unit_diagonal: _solve_left(g, a, out, lower, transposed, unit_diagonal),
    b=lambda g, a, lower, transposed, unit_diagonal: solve_triangular(a, g, lower, not transposed, unit_diagonal),
)


def _solve_left(g: Array, a: Array, x: Array, lower: bool, transposed: bool, unit_diagonal: bool) -> Array:
    """From a dx = -da x: the cotangent of a is -a⁻ᵀ g xᵀ, and only the triangle that was read has one."""
    u = solve_triangular(a, g, lower, not transposed, unit_diagonal)
    if transposed:
        u, x = x, u
    if x.ndim == 1:
        u, x = expand_dims(u, -1), expand_dims(x, -1)
    strict = 1 if unit_diagonal else 0
    product = -matmul(u, x.mT)
    return tril(product, -strict) if lower else triu(product, strict)


@op
def inv(x: Array) -> Array:
    """x⁻¹ of square matrices (..., N, N). Raises LinAlgError for a singular one, ValueError for others than square ones."""
    _check_square("inv", x)
    try:
        inverse = np.linalg.inv(x)
    except np.linalg.LinAlgError:
        raise np.linalg.LinAlgError(
            f"inv: a matrix of x {x.shape} is singular: add a small multiple of the identity to it, or find out why"
        ) from None
    inverse[_has_nan(x)] = np.nan
    return inverse


inv.vjp(x=lambda g, out: -matmul(matmul(out.mT, g), out.mT))


@op(outputs=2)
def slogdet(x: Array) -> tuple:
    """(sign, log |det x|) of square matrices (..., N, N), both of shape (...). The sign carries no gradient.

    A singular matrix gives (0, -inf); its gradient does not exist, and asking for it raises LinAlgError.
    Raises ValueError for others than square matrices.
    """
    _check_square("slogdet", x)
    with np.errstate(invalid="ignore"):
        sign, logabsdet = (part if on_gpu(part) else np.asarray(part) for part in np.linalg.slogdet(x))
    sign[_has_nan(x)] = logabsdet[_has_nan(x)] = np.nan
    return sign, logabsdet


def _has_nan(x: Array) -> Array:
    """Which matrices of a batch contain a NaN: LAPACK's search for pivots passes over it, and may lose it."""
    return np.isnan(x).any(axis=(-2, -1))


slogdet.vjp(x=lambda g, x: expand_dims(g[1], (-2, -1)) * inv(x).mT)


# ---- parts of matrices


def _check_matrices(name: str, x: Array, parameter: str, value: int) -> None:
    if x.ndim < 2:
        raise ValueError(f"{name}: x must be matrices (..., M, N), got {x.shape}; expand_dims makes a row of a vector")
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name}: {parameter} must be an integer, the number of a diagonal, got {value!r}")


@op(view=True)
def diagonal(x: Array, offset: int = 0) -> Array:
    """The diagonal of the last two axes, as the last axis; `offset` to the right, or to the left if negative.

    x: (..., M, N), else ValueError.
    """
    _check_matrices("diagonal", x, "offset", offset)
    return np.diagonal(x, offset, axis1=-2, axis2=-1)


diagonal.vjp(x=lambda g, x_shape, offset: scatter_add(g, _diagonal_index(x_shape, offset), x_shape))


def _diagonal_index(shape: tuple[int, ...], offset: int) -> tuple:
    """The index that reads the diagonal of the last two axes."""
    rows, columns = np.nonzero(np.eye(shape[-2], shape[-1], offset, bool))
    return (..., rows, columns)


@op
def tril(x: Array, k: int = 0) -> Array:
    """x with zeros above the k-th diagonal of the last two axes (0: the main one, positive: to the right).

    x: (..., M, N), else ValueError.
    """
    _check_matrices("tril", x, "k", k)
    return np.tril(x, k)


tril.vjp(x=lambda g, k: tril(g, k))


@op
def triu(x: Array, k: int = 0) -> Array:
    """x with zeros below the k-th diagonal of the last two axes (0: the main one, positive: to the right).

    x: (..., M, N), else ValueError.
    """
    _check_matrices("triu", x, "k", k)
    return np.triu(x, k)


triu.vjp(x=lambda g, k: triu(g, k))
