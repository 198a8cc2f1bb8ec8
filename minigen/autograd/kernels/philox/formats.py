"""What float32 and float64 need to turn random integers into numbers: the table `FORMATS`, one row per format.

The polynomials are minimax fits (Remez exchange, weighted for relative error, then rounded to the format), so that
`log`, `sin` and `cos` need only + - * and integer operations, which every IEEE 754 machine rounds alike:

    log((1+s)/(1-s)) = s (2 + z L(z)),  z = s²,  |s| <= 3 - 2√2      relative error 9e-10 (float32), 2e-18 (float64)
    sin(π/2 t)       = t S(z),          z = t²,  |t| <= 1/2                         4e-8             5e-17
    cos(π/2 t)       = 1 + z C(z),      z = t²,  |t| <= 1/2                         2e-8             3e-17

These are the errors of the rounded polynomials in exact arithmetic; half an eps is 6e-8 and 1e-16.

Numba freezes the numbers into the compiled kernels and notices changes of cpu.py only: after an edit here, delete the
`__pycache__` folder beside this file.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["FORMATS", "Format"]


class Format(NamedTuple):
    """One floating-point format; draws are made from unsigned integers of the same width."""

    bits: int  # width of the format
    mantissa: int  # stored bits of the significand
    sqrt_half: np.signedinteger  # the bit pattern of √½: mantissas are taken from [√½, √2)
    swap: np.signedinteger  # the second highest bit
    unit: np.floating  # 2^-bits: an integer of this width times `unit` lies in [0, 1)
    one: np.floating
    two: np.floating
    ln2: np.floating
    log: tuple  # coefficients of L, lowest power first
    sin: tuple  # of S
    cos: tuple  # of C


def _format(real: type, integer: type, bits: int, mantissa: int, log: tuple, sin: tuple, cos: tuple) -> Format:
    """A row of the table, every number in the type in which it is used."""
    sqrt_half = real(math.sqrt(0.5)).view(integer)
    polynomials = (tuple(real(c) for c in polynomial) for polynomial in (log, sin, cos))
    return Format(
        bits, mantissa, sqrt_half, integer(1 << (bits - 2)), real(2.0**-bits), real(1), real(2), real(math.log(2)),
        *polynomials,
    )


FORMATS = {
    np.dtype(np.float32): _format(
        np.float32, np.int32, bits=32, mantissa=23,
        log=(0.66666776, 0.39977542, 0.29871732),
        sin=(1.5707964, -0.6459635, 0.07968003, -0.004601658),
        cos=(-1.2337005, 0.25366923, -0.020860165, 0.00090376654),
    ),
    np.dtype(np.float64): _format(
        np.float64, np.int64, bits=64, mantissa=52,
        log=(0.6666666666666734, 0.39999999999414654, 0.28571428742391597, 0.22222198572840465,
             0.18183564342221895, 0.15314050162244672, 0.1479595352520824),
        sin=(1.5707963267948966, -0.6459640975062443, 0.07969262624603954, -0.004681754132282172,
             0.000160441150290026, -3.5986417491803493e-06, 5.6337203462028334e-08),
        cos=(-1.2337005501361697, 0.2536695079010468, -0.02086348076331257, 0.0009192602741910826,
             -2.5202036788364266e-05, 4.7106096711099197e-07, -6.321202225895778e-09),
    ),
}
