"""exp, log, tanh … to call inside Numba kernels, on float32 and float64. Start at `exp32`.

Numba's own `math.exp` is a call of libm for each element, which keeps a float32 loop from being vectorised. The float32
functions here are straight-line code (choices are selects, not branches), so LLVM turns a loop over them into SIMD. For
float64, which serves proofs and not speed, libm it is. A kernel writes `exp(x[i])` and gets the one for its type:

    exp  decay  expm1  log  log1p  tanh  sigmoid  erf  normal_tail

The method is everywhere the same: reduce the argument to a small interval exactly, evaluate a minimax polynomial there
(weighted for relative error, coefficients rounded to float32 one after another, lowest power first), undo the reduction.
The largest error in ulp over the whole range stands in each docstring (of every 37th float32, against float64).
Infinities, signed zeros, denormal numbers and NaN come out as the mathematical limit; nothing raises.

Numba freezes this code into its callers and looks at the caller's file only: after an edit here, delete the
`__pycache__` folders of the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ..jit import jit

OPTIONS: Any = {"error_model": "numpy", "nogil": True, "forceinline": True, "fastmath": {"contract"}}

f32, i32 = np.float32, np.int32  # every number below is typed: one Python float would turn the loop into float64

ZERO, HALF, ONE, TWO, INF, NAN = f32(0), f32(0.5), f32(1), f32(2), f32(math.inf), f32(math.nan)
LOG2_E = f32(1 / math.log(2))
LN2_HIGH, LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)  # their sum is ln 2; n times the first is exact
ROUNDER = f32(1.5 * 2**23)  # x + ROUNDER has no bits below 1: rounds to an integer, found in the low bits of the pattern
ROUNDER_BITS = i32(ROUNDER.view(i32))
EXP_LOW, EXP_HIGH = f32(-104), f32(89)  # beyond these exp32 is 0 and infinite
EXPM1_LOW = f32(-20)  # expm1 is -1 from here on
TANH_HIGH = f32(20)  # tanh is 1 where 2x is more
SQRT_HALF_BITS = i32(f32(math.sqrt(0.5)).view(i32))
SMALLEST_NORMAL, DENORMAL_SCALE = f32(2.0**-126), f32(2.0**25)
SQRT_2 = f32(math.sqrt(2))
NORMAL_SCALE = f32(17 / 64)
MANTISSA, BIAS = i32(23), i32(127)
LIFT, LOWER = i32(64), f32(2.0**-64)
UPPER_BITS = i32(-4096)  # the mask that leaves 12 significant bits


@jit(contract=True, inline=True)
def exp32(x):
    """e^x.  1.0 ulp."""
    x = EXP_LOW if x < EXP_LOW else x
    n, r = _reduce(EXP_HIGH if x > EXP_HIGH else x)
    return (_expm1_small(r) + ONE) * _power_of_2(n >> i32(1)) * _power_of_2(n - (n >> i32(1)))


@jit(contract=True, inline=True)
def decay32(a):
    """e^-a for a >= 0, with fewer instructions than `exp32`: one power of 2, not two, and one bound.  1.0 ulp."""
    return _decay_sum(-a, ZERO)


@jit(contract=True, inline=True)
def _decay_sum(x, small):
    """e^(x + small) for x <= 0, where |small| < 0.1 holds digits that x has no room for.

    Where one power of 2 would be too small for a float32, 2^64 times as much is not, and the last product rounds once.
    """
    n, r = _reduce(EXP_LOW if x < EXP_LOW else x)
    return (_expm1_small(r + small) + ONE) * _power_of_2(n + LIFT) * LOWER


@jit(contract=True, inline=True)
def _reduce(x):
    """n (int32) and r with x = n ln 2 + r, |r| <= ½ ln 2, for EXP_LOW <= x <= EXP_HIGH."""
    shifted = x * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    return i32(f32(shifted).view(i32) - ROUNDER_BITS), (x - n * LN2_HIGH) - n * LN2_LOW


@jit(contract=True, inline=True)
def _expm1_small(r):
    """e^r - 1 for |r| <= ½ ln 2: r + r² q(r), polynomial error 1.4e-8."""
    q = f32(0.0013937921) * r + f32(0.008366556)
    q = q * r + f32(0.041666433)
    q = q * r + f32(0.16666543)
    q = q * r + HALF
    return r * r * q + r


@jit(inline=True)
def _power_of_2(n):
    """2^n for -127 < n < 128. A range twice as wide is reached by two factors, which round once, in the last product."""
    return f32(i32(i32(n + BIAS) << MANTISSA).view(f32))


@jit(contract=True, inline=True)
def expm1_32(x):
    """e^x - 1.  1.5 ulp."""
    cut = EXPM1_LOW if x < EXPM1_LOW else x
    n, r = _reduce(EXP_HIGH if cut > EXP_HIGH else cut)
    a, b = _power_of_2(n >> i32(1)), _power_of_2(n - (n >> i32(1)))
    value = (_expm1_small(r) * a + (a - ONE / b)) * b
    return x if x == ZERO else value  # -0 stays -0


@jit(contract=True, inline=True)
def log32(x):
    """Natural logarithm; -inf at 0, NaN below.  0.8 ulp."""
    tiny = x < SMALLEST_NORMAL
    n, mantissa = _split(x * DENORMAL_SCALE if tiny else x)
    value = _log(n - i32(25) if tiny else n, mantissa - ONE)
    value = value if x < INF else x + x  # also where x is NaN
    return value if x > ZERO or x != x else (NAN if x < ZERO else -INF)


@jit(contract=True, inline=True)
def log1p_32(x):
    """log(1 + x); -inf at -1, NaN below.  1.4 ulp."""
    s = ONE + x
    n, mantissa = _split(s)
    scale = _power_of_2(-n if n < BIAS else i32(-126))
    f = x * scale + (scale - ONE)  # 2^-n (1 + x) - 1, with x's own digits
    value = _log(n, f if n < i32(30) else mantissa - ONE)
    value = value if s < INF else s
    value = value if s > ZERO or x != x else (NAN if s < ZERO else -INF)
    return x if x == ZERO else value  # -0 stays -0


@jit(inline=True)
def _split(x):
    """n (int32) and m with x = 2^n m, √½ <= m < √2, for positive normal x."""
    bits = f32(x).view(i32)  # Numba allows `view` on a visible constructor only
    n = i32(i32(bits - SQRT_HALF_BITS) >> MANTISSA)
    return n, f32(i32(bits - i32(n << MANTISSA)).view(f32))


@jit(contract=True, inline=True)
def _log(n, f):
    """n ln 2 + log(1 + f) for √½ - 1 <= f <= √2 - 1: f - f²/2 + f³ p(f), polynomial error 8e-10."""
    p = f32(0.06803063) * f + f32(-0.117219046)
    p = p * f + f32(0.11885235)
    p = p * f + f32(-0.12396164)
    p = p * f + f32(0.1421873)
    p = p * f + f32(-0.16668652)
    p = p * f + f32(0.20002201)
    p = p * f + f32(-0.24999994)
    p = p * f + f32(0.3333331)
    n, z = f32(n), f * f
    return (n * LN2_LOW + (z * f * p - HALF * z)) + f + n * LN2_HIGH


@jit(contract=True, inline=True)
def tanh32(x):
    """Hyperbolic tangent: x + x³ p(x²) up to 0.55, and 1 - 2 / (e^(2|x|) + 1) beyond.  1.4 ulp."""
    z = x * x
    p = f32(-0.006295665) * z + f32(0.021088311)
    p = p * z + f32(-0.05385685)
    p = p * z + f32(0.13332637)
    p = p * z + f32(-0.3333332)
    twice = TWO * abs(x)
    n, r = _reduce(TANH_HIGH if twice > TANH_HIGH else twice)
    e = (_expm1_small(r) + ONE) * _power_of_2(n)
    y = x + x * (z * p) if abs(x) < f32(0.55) else ONE - TWO / (e + ONE)
    return math.copysign(y, x)


@jit(contract=True, inline=True)
def sigmoid32(x):
    """1 / (1 + e^-x).  2.4 ulp."""
    e = decay32(abs(x))
    return (e if x < ZERO else ONE) / (ONE + e)


@jit(contract=True, inline=True)
def erf32(x):
    """Error function: x + x q(x²) up to 1, and 1 - 2 Q(√2 |x|) beyond.  1.4 ulp."""
    z = x * x
    q = f32(7.806904e-05) * z + f32(-0.0007997853)
    q = q * z + f32(0.005187162)
    q = q * z + f32(-0.026853347)
    q = q * z + f32(0.11283579)
    q = q * z + f32(-0.37612626)
    q = q * z + f32(0.12837917)
    _, tail = normal_tail32(SQRT_2 * x)
    return x + x * q if abs(x) < ONE else math.copysign(ONE - TWO * tail, x)


@jit(contract=True, inline=True)
def normal_tail32(x):
    """e^(-x²/2), and Q(|x|), the probability that a standard normal variable exceeds |x|.  Q: 5.7 ulp.

    Q(a) = e^(-a²/2) w S(w) with w = 1 / (1 + 17/64 a), polynomial error 1.3e-8.
    The square is split into 24 exact bits and a rest, because e^x multiplies a rounding of x by x.
    """
    a = abs(x)
    a = f32(15) if a > f32(15) else a  # both are 0 from here on
    head = f32(i32(f32(a).view(i32) & UPPER_BITS).view(f32))
    e = _decay_sum(-HALF * head * head, -HALF * (a - head) * (a + head))
    d = ONE + NORMAL_SCALE * a
    w = ONE / d
    w = w - w * w * (NORMAL_SCALE * a - (d - ONE))  # what rounding took from d, since S is three times as steep as w
    s = f32(0.03066958) * w + f32(-0.14230946)
    s = s * w + f32(0.21215327)
    s = s * w + f32(-0.11062183)
    s = s * w + f32(0.13418889)
    s = s * w + f32(0.061820526)
    s = s * w + f32(0.10257328)
    s = s * w + f32(0.10553704)
    s = s * w + f32(0.1059887)
    return e, e * w * s


@jit(inline=True)
def decay64(a):
    """e^-a."""
    return math.exp(-a)


@jit(inline=True)
def sigmoid64(x):
    """1 / (1 + e^-x), without overflow."""
    e = math.exp(-abs(x))
    return (e if x < 0.0 else 1.0) / (1.0 + e)


@jit(inline=True)
def normal_tail64(x):
    """As `normal_tail32`."""
    return math.exp(-0.5 * x * x), 0.5 * math.erfc(abs(x) * math.sqrt(0.5))


# -- one name for both types: these are what kernels call. They exist in compiled code only.


def exp(x: Any) -> Any:
    """e^x."""


def decay(x: Any) -> Any:
    """e^-x for x >= 0."""


def expm1(x: Any) -> Any:
    """e^x - 1."""


def log(x: Any) -> Any:
    """Natural logarithm."""


def log1p(x: Any) -> Any:
    """log(1 + x)."""


def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""


def erf(x: Any) -> Any:
    """Error function."""


def normal_tail(x: Any) -> Any:
    """(e^(-x²/2), Q(|x|)), where Q(a) is the probability that a standard normal variable exceeds a."""


def _both(name: Callable, single: Callable, double: Callable) -> None:
    @overload(name, jit_options=OPTIONS)
    def choose(x):  # no annotations: Numba compares the two signatures
        if x == types.float32:
            return lambda x: single(x)
        return (lambda x: double(x)) if x == types.float64 else None


_both(exp, exp32, math.exp)
_both(decay, decay32, decay64)
_both(expm1, expm1_32, math.expm1)
_both(log, log32, math.log)
_both(log1p, log1p_32, math.log1p)
_both(tanh, tanh32, math.tanh)
_both(sigmoid, sigmoid32, sigmoid64)
_both(erf, erf32, math.erf)
_both(normal_tail, normal_tail32, normal_tail64)
