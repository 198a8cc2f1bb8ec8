"""What is particular to the elementwise kernels: the polynomials, the machine code, the loop around them.

That every kernel agrees with its reference within its card is tested for all kernels alike, from their cards.
"""

import re

import numba
import numpy as np
import pytest
from scipy import special

from minigen.autograd import set_backend
from minigen.autograd.kernels import elementwise
from minigen.autograd.kernels.elementwise import cpu, loop, polynomial

NAMES = elementwise.__all__
DTYPES = [np.float32, np.float64]

# name: function in float64, largest error in ulp (the docstrings have what was measured; without FMA it is a little more)
POLYNOMIALS = {
    "exp": (np.exp, 1.5),
    "expm1": (np.expm1, 2.0),
    "log": (np.log, 1.5),
    "log1p": (np.log1p, 2.0),
    "tanh": (np.tanh, 2.0),
    "sigmoid": (special.expit, 3.0),
    "erf": (special.erf, 2.0),
    "normal_tail": (lambda x: special.ndtr(-np.abs(x)), 7.0),
    "decay": (lambda x: np.exp(-np.abs(x)), 1.5),
}


@numba.njit(error_model="numpy", fastmath={"contract"})
def evaluate_all(x, out):
    for i in range(x.size):
        out[0, i] = polynomial.exp(x[i])
    for i in range(x.size):
        out[1, i] = polynomial.expm1(x[i])
    for i in range(x.size):
        out[2, i] = polynomial.log(x[i])
    for i in range(x.size):
        out[3, i] = polynomial.log1p(x[i])
    for i in range(x.size):
        out[4, i] = polynomial.tanh(x[i])
    for i in range(x.size):
        out[5, i] = polynomial.sigmoid(x[i])
    for i in range(x.size):
        out[6, i] = polynomial.erf(x[i])
    for i in range(x.size):
        out[7, i] = polynomial.normal_tail(x[i])[1]
    for i in range(x.size):
        out[8, i] = polynomial.decay(abs(x[i]))


def float32_numbers(step):
    """Every step-th float32, of either sign, denormal and infinite ones too, and the extreme ones in any case."""
    some = np.arange(0, 2**32, step, dtype=np.uint32).view(np.float32)
    edges = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 88.72283, 88.7229, -87.4, -103.9, -104, 3.4e38, 1e-45])
    return np.concatenate([some, edges])


@pytest.mark.parametrize("step", [40_009, pytest.param(61, marks=pytest.mark.slow)])
@np.errstate(all="ignore")
def test_polynomials_over_the_whole_range(step):
    for x in np.array_split(float32_numbers(step), 1 + 2**22 // step // 64):
        out = np.empty((len(POLYNOMIALS), x.size), np.float32)
        evaluate_all(x, out)
        for y, (name, (function, ulp)) in zip(out, POLYNOMIALS.items(), strict=True):
            exact = function(x.astype(np.float64))
            rounded = exact.astype(np.float32)
            finite = np.isfinite(rounded) & np.isfinite(y)
            np.testing.assert_array_equal(y[~finite], rounded[~finite], err_msg=name)
            spacing = np.spacing(np.abs(rounded[finite])).astype(np.float64)
            error = np.abs(y[finite] - exact[finite]) / spacing
            assert error.max(initial=0) <= ulp, f"{name}: {error.max():.2f} ulp at {x[finite][error.argmax()]!r}"


def test_signed_zeros():
    x = np.float32([-0.0, 0.0] * 10)
    out = np.empty((len(POLYNOMIALS), x.size), np.float32)
    evaluate_all(x, out)
    for name in ("expm1", "log1p", "tanh", "erf"):
        np.testing.assert_array_equal(np.signbit(out[list(POLYNOMIALS).index(name)]), np.signbit(x), err_msg=name)


# ---- the machine code


def code_of(function, *args):
    """The LLVM code of a function for these arguments, without its Python wrapper."""
    function(*args)
    return function.inspect_llvm(function.signatures[0]).partition("@_ZN7cpython")[0]


def afresh(kernel):
    """A kernel's loop, to be compiled here and now: code from the cache cannot be looked at."""
    return numba.njit(error_model="numpy", fastmath={"contract"})(kernel.loop.py_func)


def check_code(text, what):
    assert "fpext" not in text, f"{what} widens float32 to float64"
    assert not re.search(r"\b(fmul|fadd|fdiv|fsub) .*double", text), f"{what} computes in float64"
    assert re.search(r"<\d+ x float>", text), f"{what} was not vectorised"
    call = re.search(r"call .*@(?!llvm\.|NRT_)\w+\(|@llvm\.(exp|log|sin|cos|tan|pow)", text)
    assert not call, f"{what} calls a function for each element: {call[0]}"


def test_float32_loops_are_vectorised_and_stay_in_float32():
    x = np.ones(4, np.float32)
    check_code(code_of(evaluate_all, x, np.empty((len(POLYNOMIALS), 4), np.float32)), "a polynomial")
    check_code(code_of(afresh(cpu.gelu_vjp), x, x, x.copy()), "gelu_vjp")


def test_the_checks_of_machine_code_can_fail():
    x = np.ones(4, np.float32)
    with pytest.raises(AssertionError, match="widens float32"):
        check_code(code_of(widened, x, x.copy()), "it")
    with pytest.raises(AssertionError, match="for each element"):
        check_code(code_of(called, x, x.copy()), "it")


@numba.njit
def widened(x, out):
    for i in range(x.size):
        out[i] = 0.1 * x[i]


@numba.njit
def called(x, out):
    for i in range(x.size):
        out[i] = np.tanh(x[i])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_float32_loop_is_vectorised(name):
    function = afresh(getattr(cpu, name))
    args, _ = getattr(elementwise, name).card.cases(np.random.default_rng(0), np.float32)[3]
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    scalars = [np.float32(a) for a in args if not isinstance(a, np.ndarray)]
    check_code(code_of(function, *arrays, arrays[0].copy(), *scalars), name)


# ---- the loop around them


def call_of(name, dtype, size):
    """The kernel, and its arguments for arrays of `size` numbers."""
    kernel = getattr(elementwise, name)
    args, _ = kernel.card.cases(np.random.default_rng(1), dtype)[-1]
    return kernel, [a[:size] if isinstance(a, np.ndarray) else a for a in args]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_number_gives_the_same_bits_wherever_it_stands(name, dtype, monkeypatch):
    """In a whole vector, in what is left over at the end, alone, and on several threads."""
    kernel, args = call_of(name, dtype, 101)
    whole = kernel(*args)
    for i in (0, 1, 64, 100):
        alone = kernel(*(a[i : i + 1] if isinstance(a, np.ndarray) else a for a in args))
        np.testing.assert_array_equal(alone, whole[i : i + 1])
    monkeypatch.setattr(loop, "PARALLEL", 50)
    monkeypatch.setattr(loop, "CHUNK", 7)
    np.testing.assert_array_equal(kernel(*args), whole)


@pytest.mark.parametrize("name", ["exp", "tanh_vjp", "elu"])
def test_any_shape_any_strides_and_a_given_result(name):
    kernel, args = call_of(name, np.float64, 60)
    flat = kernel(*args)
    for reshaped in (
        lambda a: np.asfortranarray(a.reshape(3, 4, 5)),
        lambda a: np.repeat(a, 2)[::2].reshape(3, 4, 5),
        lambda a: a[::-1].copy()[::-1].reshape(3, 4, 5),
        lambda a: np.broadcast_to(a.reshape(3, 4, 5), (1, 3, 4, 5))[0],
    ):
        arranged = [reshaped(a) if isinstance(a, np.ndarray) else a for a in args]
        np.testing.assert_array_equal(kernel(*arranged), flat.reshape(3, 4, 5))
        out = np.empty((3, 4, 5))
        assert kernel(*arranged, out=out) is out
        np.testing.assert_array_equal(out, flat.reshape(3, 4, 5))
    assert kernel(*(a[3] if isinstance(a, np.ndarray) else a for a in args)).shape == ()


def test_refusals():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"exp: out must be a C-contiguous float32\(2, 3\), not float64\(2, 3\)"):
        elementwise.exp(x, out=np.empty((2, 3)))
    with pytest.raises(ValueError, match="exp: out must be a C-contiguous"):
        elementwise.exp(x, out=np.empty((3, 2), np.float32).T)
    with pytest.raises(ValueError, match=r"silu_vjp: float32\(2, 3\) and float64\(2, 3\), but the arrays must be alike"):
        elementwise.silu_vjp(x, x.astype(np.float64))
    with pytest.raises(TypeError, match="tanh works on float32 and float64, not on int64"):
        elementwise.tanh(np.arange(3))


def test_references_take_complex_numbers_for_complex_steps():
    """Each analytic definition, near the real line: value and derivative."""
    g, x = np.random.default_rng(0).normal(0, 1, (2, 20))
    with set_backend("numpy"):
        for name in ("exp", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "erf"):
            kernel = getattr(elementwise, name)
            stepped = kernel(x + 1e-30j)
            np.testing.assert_allclose(stepped.real, kernel(x), rtol=1e-13, atol=1e-16)
            vjp = getattr(elementwise, f"{name}_vjp", None)
            if vjp is not None:
                slope = vjp(g, kernel(x) if name in ("tanh", "sigmoid") else x)
                np.testing.assert_allclose(g * stepped.imag / 1e-30, slope, rtol=1e-11, atol=1e-13)
