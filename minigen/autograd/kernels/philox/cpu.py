"""Philox4x32-10 and its distributions, compiled by Numba. Start at `_fill`, then `_normal`; `reference.py` explains.

Every kernel works through tiles of 256 blocks: it fills a scratch array with random words, which stay in the
first-level cache, and turns them into draws with loops that the compiler vectorises. The words are made in lanes of 64
bits because Philox multiplies 32 x 32 -> 64 bits; a view as 32-bit words is free (Numba's machines are little-endian).
A draw depends on its own position only, so the parallel versions give the same bits whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minigen.autograd.kernels.jit import jit, prange
from minigen.autograd.kernels.philox.formats import FORMATS
from minigen.autograd.kernels.philox.reference import LOW, M0, M1, RETRY, ROUNDS, W0, W1, buffer

__all__ = ["philox_bernoulli", "philox_bits", "philox_integers", "philox_normal", "philox_uniform"]

TILE = 256  # blocks
CHUNK = 64 * TILE  # draws that one parallel task makes; a multiple of the draws in a tile
PARALLEL = 1 << 17  # draws from which on two threads beat one (measured: 0.2 ms of work)

_M0, _M1, _W0, _W1, _LOW = np.uint64(M0), np.uint64(M1), np.uint64(W0), np.uint64(W1), np.uint64(LOW)
_HALF = np.uint64(32)
_RETRY = np.uint64(RETRY)
_ONE, _TWO = np.uint64(1), np.uint64(2)
FLOAT32, FLOAT64 = FORMATS[np.dtype(np.float32)], FORMATS[np.dtype(np.float64)]
INT32, INT64 = np.empty(0, np.int32), np.empty(0, np.int64)  # stand for their types in compiled code
UINT32, UINT64 = np.empty(0, np.uint32), np.empty(0, np.uint64)


@jit()
def _fill(words: np.ndarray, key: np.uint64, stream: np.uint64, block: np.uint64, blocks: int) -> None:
    """Philox blocks block … block + blocks - 1 into words, (2 blocks,) uint64: two 32-bit words each, lower first."""
    for i in range(blocks):
        b = block + np.uint64(i)
        c0, c1, c2, c3 = b & _LOW, b >> _HALF, stream & _LOW, stream >> _HALF
        k0, k1 = key & _LOW, key >> _HALF
        for _ in range(ROUNDS):
            p0, p1 = _M0 * c0, _M1 * c2
            c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
        words[2 * i] = c0 | (c1 << _HALF)
        words[2 * i + 1] = c2 | (c3 << _HALF)


@jit()
def _fill_tile(uints, first, stop, key, stream, block):
    """Random integers for draws first … stop - 1 (or as many as fit) into uints; returns how many."""
    n = min(uints.size, stop - first)
    per_block = 16 // uints.itemsize
    _fill(uints.view(np.uint64), key, stream, block + np.uint64(first // per_block), (n + per_block - 1) // per_block)
    return n


@jit()
def _bits(out, start, stop, key, stream, block):
    uints = np.empty(4 * TILE, np.uint32)
    for first in range(start, stop, uints.size):
        n = _fill_tile(uints, first, stop, key, stream, block)
        out[first : first + n] = uints[:n]


@jit()
def _uniform(out, start, stop, key, stream, block, low, high, below, step, shift, uint):
    """step: 2^-24 or 2^-53.      below: the largest number under `high`.      uint: an array of the integers' type."""
    real = out.dtype.type
    uints = np.empty(2 * TILE, np.uint64).view(uint.dtype)
    width = high - low
    for first in range(start, stop, uints.size):
        n = _fill_tile(uints, first, stop, key, stream, block)
        draws = out[first : first + n]  # a loop over range(n) is vectorised; an index like first + j would prevent it
        for j in range(n):
            value = low + width * (real(uints[j] >> shift) * step)
            draws[j] = below if value > below else value


@jit()
def _normal(out, start, stop, key, stream, block, mean, std, format, uint, int_):
    real, integer = out.dtype.type, int_.dtype.type
    one, two = format.one, format.two
    uints = np.empty(2 * TILE, np.uint64).view(uint.dtype)
    pairs = uints.size // 2
    m = np.empty(pairs, out.dtype)
    pattern = m.view(int_.dtype)
    exponent = np.empty(pairs, int_.dtype)
    draws = np.empty(2 * pairs, out.dtype)
    for first in range(start, stop, uints.size):
        n = _fill_tile(uints, first, stop, key, stream, block)
        pairs = (n + 1) // 2
        # three loops, because `m` and `pattern` are the same memory: in one loop it could not be vectorised
        for j in range(pairs):
            uints[2 * j] |= 1
            m[j] = real(uints[2 * j])
        for j in range(pairs):
            exponent[j] = integer(pattern[j] - format.sqrt_half) >> format.mantissa
            pattern[j] -= integer(exponent[j] << format.mantissa)
        for j in range(pairs):
            u, v, e = integer(uints[2 * j]), integer(uints[2 * j + 1]), exponent[j]
            f = real(u) * format.unit if e == format.bits else m[j] - one
            s = f / (two + f)
            z = s * s
            log_m = s * (two + z * _horner(z, format.log))
            log_u = real(integer(e - format.bits)) * format.ln2 + log_m
            radius = np.sqrt(-two * log_u)

            t = real(integer((v << 2) | 2)) * format.unit
            z = t * t
            sine = t * _horner(z, format.sin)
            cosine = one + z * _horner(z, format.cos)
            radius = -radius if v < 0 else radius
            swap = (v & format.swap) != 0
            draws[2 * j] = mean + std * (radius * (sine if swap else cosine))
            draws[2 * j + 1] = mean + std * (radius * (cosine if swap else sine))
        out[first : first + n] = draws[:n]


@jit(inline=True)
def _horner(z, coefficients):
    value = coefficients[len(coefficients) - 1]
    for i in range(len(coefficients) - 2, -1, -1):
        value = value * z + coefficients[i]
    return value


@jit()
def _integers(out, key, stream, block, low, span, reject):
    """low, span, reject: uint64, where span 0 stands for 2^64 and reject for 2^64 mod span."""
    uints = np.empty(2 * TILE, np.uint64)
    again = np.empty(2, np.uint64)
    for first in range(0, out.size, uints.size):
        n = _fill_tile(uints, first, out.size, key, stream, block)
        for j in range(n):
            result, rest = _multiply(uints[j], span)
            if span == 0:
                result, rest = uints[j], reject
            at = block + np.uint64((first + j) // 2)
            while rest < reject:
                at += _RETRY
                _fill(again, key, stream, at, 1)
                result, rest = _multiply(again[j % 2], span)
            out[first + j] = np.int64(result + low)


@jit(inline=True)
def _multiply(x, y):
    """The upper and the lower 64 bits of x y."""
    x0, x1, y0, y1 = x & _LOW, x >> _HALF, y & _LOW, y >> _HALF
    middle = x1 * y0 + (x0 * y0 >> _HALF)
    other = x0 * y1 + (middle & _LOW)
    return x1 * y1 + (middle >> _HALF) + (other >> _HALF), x * y


@jit()
def _bernoulli(out, key, stream, block, p):
    uints = np.empty(4 * TILE, np.uint32)
    zero, one, scale = out.dtype.type(0), out.dtype.type(1), p.dtype.type(4294967296.0)
    shared = p.size == 1
    for first in range(0, out.size, uints.size):
        n = _fill_tile(uints, first, out.size, key, stream, block)
        draws = out[first : first + n]
        if shared:
            threshold = np.uint64(p[0] * scale)
            for j in range(n):
                draws[j] = one if uints[j] < threshold else zero
        else:
            chance = p[first : first + n]
            for j in range(n):
                draws[j] = one if uints[j] < np.uint64(chance[j] * scale) else zero


# -- parallel versions: the same functions over fixed chunks -----------------------------------------------------------


@jit(parallel=True)
def _uniform_parallel(out, key, stream, block, low, high, below, step, shift, uint):
    for c in prange((out.size + CHUNK - 1) // CHUNK):
        stop = min((c + 1) * CHUNK, out.size)
        _uniform(out, c * CHUNK, stop, key, stream, block, low, high, below, step, shift, uint)


@jit()
def _normal32(out, key, stream, block, mean, std):
    _normal(out, 0, out.size, key, stream, block, mean, std, FLOAT32, UINT32, INT32)


@jit()
def _normal64(out, key, stream, block, mean, std):
    _normal(out, 0, out.size, key, stream, block, mean, std, FLOAT64, UINT64, INT64)


@jit(parallel=True)
def _normal32_parallel(out, key, stream, block, mean, std):
    for c in prange((out.size + CHUNK - 1) // CHUNK):
        stop = min((c + 1) * CHUNK, out.size)
        _normal(out, c * CHUNK, stop, key, stream, block, mean, std, FLOAT32, UINT32, INT32)


@jit(parallel=True)
def _normal64_parallel(out, key, stream, block, mean, std):
    for c in prange((out.size + CHUNK - 1) // CHUNK):
        stop = min((c + 1) * CHUNK, out.size)
        _normal(out, c * CHUNK, stop, key, stream, block, mean, std, FLOAT64, UINT64, INT64)


# -- what the rest of the program calls --------------------------------------------------------------------------------

_NORMAL: dict[tuple[np.dtype, bool], Callable[..., Any]] = {
    (np.dtype(np.float32), False): _normal32,
    (np.dtype(np.float64), False): _normal64,
    (np.dtype(np.float32), True): _normal32_parallel,
    (np.dtype(np.float64), True): _normal64_parallel,
}


def philox_bits(key: int, stream: int, block: int, n: int, out: np.ndarray | None = None) -> np.ndarray:
    out = buffer(out, n, np.uint32)
    _bits(out, 0, n, np.uint64(key), np.uint64(stream), np.uint64(block))
    return out


def philox_uniform(
    key: int, stream: int, block: int, n: int, low: float, high: float, dtype: type, out: np.ndarray | None = None
) -> np.ndarray:
    out = buffer(out, n, dtype)
    real, format = out.dtype.type, FORMATS[out.dtype]
    digits = format.mantissa + 1
    low, high = real(low), real(high)
    address = (np.uint64(key), np.uint64(stream), np.uint64(block))
    uint = UINT32 if format.bits == 32 else UINT64
    rest = (low, high, np.nextafter(high, low), real(2.0**-digits), uint.dtype.type(format.bits - digits), uint)
    if n < PARALLEL:
        _uniform(out, 0, n, *address, *rest)
    else:
        _uniform_parallel(out, *address, *rest)
    return out


def philox_normal(
    key: int, stream: int, block: int, n: int, mean: float, std: float, dtype: type, out: np.ndarray | None = None
) -> np.ndarray:
    out = buffer(out, n, dtype)
    real = out.dtype.type
    run = _NORMAL[out.dtype, n >= PARALLEL]
    run(out, np.uint64(key), np.uint64(stream), np.uint64(block), real(mean), real(std))
    return out


def philox_integers(
    key: int, stream: int, block: int, n: int, low: int, high: int, out: np.ndarray | None = None
) -> np.ndarray:
    out = buffer(out, n, np.int64)
    span = high - low
    mask = (1 << 64) - 1
    numbers = (low & mask, span & mask, (1 << 64) % span)
    _integers(out, np.uint64(key), np.uint64(stream), np.uint64(block), *(np.uint64(x) for x in numbers))
    return out


def philox_bernoulli(
    key: int, stream: int, block: int, n: int, p: np.ndarray, dtype: type, out: np.ndarray | None = None
) -> np.ndarray:
    if p.shape not in ((n,), (1,)):
        raise ValueError(f"p has shape {p.shape}, but {n} draws need ({n},) or (1,)")
    out = buffer(out, n, dtype)
    _bernoulli(out, np.uint64(key), np.uint64(stream), np.uint64(block), np.ascontiguousarray(p))
    return out
