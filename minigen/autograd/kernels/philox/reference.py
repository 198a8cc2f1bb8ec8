"""Philox4x32-10 in NumPy: the definition of every random bit of minigen. Start at `philox4x32`, then `box_muller`.

`cpu.py` (and any other implementation) returns the same bits. That is possible because nothing here depends on a
mathematics library: integer operations, conversions, and + - * / sqrt, each of which IEEE 754 rounds in one way only.
An implementation keeps the bits if it keeps the order of operations and does not contract a*b + c into one rounding.
Below, a stream is given by two 64-bit integers: `key`, and `stream`, the upper half of Philox's 128-bit counter.
`block` is the lower half at the start of the call, and a block holds four words of 32 bits.
"""

from __future__ import annotations

import numpy as np

from minigen.autograd.kernels.philox.formats import FORMATS, Format

__all__ = [
    "box_muller", "buffer", "philox4x32", "philox_bernoulli", "philox_bits", "philox_integers", "philox_normal",
    "philox_uniform",
]

ROUNDS = 10
M0, M1 = 0xD2511F53, 0xCD9E8D57  # multipliers, chosen by Salmon et al. for the fastest mixing
W0, W1 = 0x9E3779B9, 0xBB67AE85  # steps of the key: the golden ratio and √3 - 1, as fractions of 2^32
LOW = 0xFFFFFFFF  # the lower 32 bits
RETRY = 1 << 56  # the k-th retry of a rejected integer reads block + k * RETRY, where no first attempt reads


def philox4x32(counter: tuple, key: tuple) -> tuple:
    """Encrypt 128-bit counters with a 64-bit key into 128 random bits each (Salmon et al. 2011, section 3.3).

    counter: four, key: two words of 32 bits, in uint64 arrays (or scalars) that broadcast. Returns four such words.
    For a fixed key this is a bijection: different counters give different results.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0, p1 = M0 * c0, M1 * c2  # 32 x 32 -> 64 bits, exact
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW, (p0 >> 32) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3


def philox_bits(key: int, stream: int, block: int, n: int, out: np.ndarray | None = None) -> np.ndarray:
    """The first n words of 32 bits from `block` on, (n,) uint32: block after block, four words each."""
    blocks = np.uint64(block) + np.arange(-(-n // 4), dtype=np.uint64)
    counter = (blocks & LOW, blocks >> 32, np.uint64(stream & LOW), np.uint64(stream >> 32))
    words = philox4x32(counter, (np.uint64(key & LOW), np.uint64(key >> 32)))
    return _write(np.stack(words, axis=1).astype(np.uint32).reshape(-1)[:n], out)  # (blocks, 4) -> (n,)


def philox_uniform(
    key: int, stream: int, block: int, n: int, low: float, high: float, dtype: type, out: np.ndarray | None = None
) -> np.ndarray:
    """n draws from [low, high): low + (high - low) u, where u is the top 24 bits of a word (float32) or the top 53 of
    two words (float64) as a fraction; what rounding lifts to `high` becomes the largest number below it."""
    real, format = np.dtype(dtype).type, FORMATS[np.dtype(dtype)]
    digits = format.mantissa + 1
    u = (_uints(key, stream, block, n, format) >> (format.bits - digits)).astype(real) * real(2.0**-digits)
    low, high = real(low), real(high)
    return _write(np.minimum(low + (high - low) * u, np.nextafter(high, low)), out)


def philox_normal(
    key: int, stream: int, block: int, n: int, mean: float, std: float, dtype: type, out: np.ndarray | None = None
) -> np.ndarray:
    """n draws from N(mean, std²): mean + std z, where draws 2i and 2i + 1 are the Box-Muller pair of words 2i and
    2i + 1 (float32), or of the 64-bit integers that words 4i … 4i + 3 make (float64)."""
    real, format = np.dtype(dtype).type, FORMATS[np.dtype(dtype)]
    uints = _uints(key, stream, block, n + n % 2, format).reshape(-1, 2)  # (pairs, 2)
    z = np.stack(box_muller(uints[:, 0], uints[:, 1], format), axis=1)  # (pairs, 2)
    return _write(real(mean) + real(std) * z.reshape(-1)[:n], out)


def box_muller(u: np.ndarray, v: np.ndarray, format: Format) -> tuple[np.ndarray, np.ndarray]:
    """Two independent standard normals from two uniform integers: √(-2 log U) (cos 2πV, sin 2πV)  (Box & Muller 1958)

    u, v: (pairs,) unsigned integers of the format's width. Returns two (pairs,) arrays of the format.
    Range: |z| <= 6.661 in float32, 9.420 in float64, and never 0. Each z is right to 3 eps, relative to its own size.
    """
    real, integer = type(format.one), type(format.swap)

    # -- radius: U = u 2^-bits in (0, 1), made odd so that it is never 0. U = m 2^(e - bits) with m in [√½, √2)
    u = u | 1
    pattern = u.astype(real).view(integer)
    e = (pattern - format.sqrt_half) >> format.mantissa
    m = (pattern - (e << format.mantissa)).view(real)
    # log m = log(1 + f) = log((1+s)/(1-s)) with s = f / (2 + f). Where e = bits, f = U - 1 is small and m has lost
    # its lower digits; there the integer, read as negative, has them all.
    f = np.where(e == format.bits, u.view(integer).astype(real) * format.unit, m - format.one)
    s = f / (format.two + f)
    z = s * s
    log_m = s * (format.two + z * _horner(z, format.log))
    log_u = (e - format.bits).astype(real) * format.ln2 + log_m
    radius = np.sqrt(-format.two * log_u)

    # -- direction: the top two bits of v choose the quarter of the circle, the others an angle π/2 t within it,
    # t in [-1/2, 1/2], set to the middle of its step so that it is never 0
    t = ((v << 2) | 2).view(integer).astype(real) * format.unit
    z = t * t
    sine = t * _horner(z, format.sin)
    cosine = format.one + z * _horner(z, format.cos)
    radius = np.where(v.view(integer) < 0, -radius, radius)
    swap = (v.view(integer) & format.swap) != 0
    return radius * np.where(swap, sine, cosine), radius * np.where(swap, cosine, sine)


def philox_integers(
    key: int, stream: int, block: int, n: int, low: int, high: int, out: np.ndarray | None = None
) -> np.ndarray:
    """n integers from low … high - 1, (n,) int64, each exactly as likely as any other (Lemire 2019).

    Draw x of 64 bits; of the 128-bit product x (high - low) the upper half is the result. Some results would come once
    too often: such draws are the ones whose lower half is under 2^64 mod (high - low). They are rejected, and draw i
    tries again with x from `RETRY` blocks further on, so that it never depends on its neighbours.
    """
    span = high - low
    x = _uints(key, stream, block, n, FORMATS[np.dtype(np.float64)])
    if span == 1 << 64:
        return _write(x.view(np.int64) + np.int64(low), out)  # wraps around: every integer is a result
    result, rest = _multiply(x, span)
    rejected = np.flatnonzero(rest < np.uint64((1 << 64) % span))
    retry = 0
    while rejected.size:
        retry += 1
        for i in rejected:
            words = philox_bits(key, stream, block + int(i) // 2 + retry * RETRY, 4).astype(np.uint64)
            first = 2 * (i % 2)
            result[i], rest[i] = _multiply(words[first] | words[first + 1] << 32, span)
        rejected = rejected[rest[rejected] < np.uint64((1 << 64) % span)]
    return _write(result.view(np.int64) + np.int64(low), out)


def _multiply(x: np.ndarray, y: int) -> tuple[np.ndarray, np.ndarray]:
    """The upper and the lower 64 bits of x y, by schoolbook multiplication in digits of 32 bits."""
    x0, x1, y0, y1 = x & LOW, x >> 32, np.uint64(y & LOW), np.uint64(y >> 32)
    middle = x1 * y0 + (x0 * y0 >> 32)  # < 2^64
    other = x0 * y1 + (middle & LOW)
    return x1 * y1 + (middle >> 32) + (other >> 32), (other << 32) | (x0 * y0 & LOW)


def philox_bernoulli(
    key: int, stream: int, block: int, n: int, p: np.ndarray, dtype: type, out: np.ndarray | None = None
) -> np.ndarray:
    """n zeros and ones: 1 where word i, as a fraction of 2^32, is less than p[i] rounded down to a multiple of 2^-32.

    p: (n,) probabilities in [0, 1], or (1,) for one that all draws share.
    """
    threshold = (p * p.dtype.type(2.0**32)).astype(np.uint64)  # up to 2^32 inclusive, so that p = 1 is certain
    return _write((philox_bits(key, stream, block, n) < threshold).astype(dtype), out)


def buffer(out: np.ndarray | None, n: int, dtype: type | np.dtype) -> np.ndarray:
    """Where n results go: into `out`, which must fit, or into a new array. Raises ValueError."""
    if out is None:
        return np.empty(n, dtype)
    if out.shape != (n,) or out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"out has shape {out.shape}, dtype {out.dtype} and strides {out.strides}, but this call writes {n} values "
            f"of {np.dtype(dtype)}: pass a contiguous array of shape ({n},), or leave it out"
        )
    return out


def _write(values: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """`values`, in `out` where it is given."""
    out = buffer(out, values.size, values.dtype)
    out[...] = values
    return out


def _uints(key: int, stream: int, block: int, n: int, format: Format) -> np.ndarray:
    """n unsigned integers of the format's width: words as they come, or two at a time, the lower one first."""
    if format.bits == 32:
        return philox_bits(key, stream, block, n)
    words = philox_bits(key, stream, block, 2 * n).astype(np.uint64)
    return words[0::2] | words[1::2] << 32


def _horner(z: np.ndarray, coefficients: tuple) -> np.ndarray:
    """coefficients[0] + coefficients[1] z + …"""
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * z + coefficient
    return value
