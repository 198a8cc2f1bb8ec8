"""Random numbers: a generator whose draws are the same bits on every backend. Start at `Generator`.

    rng = Generator(seed=0)
    x = rng.normal((64, 50))                    # (64, 50) float32
    data_rng, model_rng = rng.split(2)          # independent streams, one for each purpose
    saved = rng.state                           # a small dict; `rng.state = saved` continues bit for bit

There is no global generator: whatever needs randomness is given a `Generator`, so the numbers of a program follow from
the seeds that it names. The generator is counter-based (Philox4x32-10: J. Salmon, M. Moraes, R. Dror and D. Shaw,
Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011): block i of a stream is the encryption of the number i. A draw is
a function of the seed and of its position, so it depends neither on the number of threads nor on the processor.
Normals, too, are made of exactly rounded operations only (+ - * / sqrt): the logarithms and cosines of mathematics
libraries differ between machines in the last digit, and training would soon differ in the first. The details are in
`autograd/kernels/philox/reference.py`.

How 128-bit counters are spent: the upper half tells streams of one key apart, the lower half counts blocks,

    seed     =  stream (upper 64 bits) · key (lower 64 bits)
    counter  =  stream (64 bits) · purpose (8 bits) · block (56 bits)    purpose: 0 draws, 1 … 254 retries, 255 children

so draws, the retries of rejected integers, and the seeds of children never use the same counter.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from minigen.autograd import dials
from minigen.autograd.backend import cupy, on_gpu
from minigen.autograd.dials import again
from minigen.autograd.kernels.philox import (
    philox_bernoulli,
    philox_bits,
    philox_integers,
    philox_normal,
    philox_uniform,
)

__all__ = ["Generator"]

Shape = int | tuple[int, ...]

ALGORITHM = "philox4x32-10"
BLOCKS = 1 << 56  # blocks of a stream
CHILDREN = 255 << 56  # the block from which the seeds of children are drawn
HALF = (1 << 64) - 1
LARGEST: dict[type, float] = {real: float(np.finfo(real).max) for real in (np.float32, np.float64)}


class Generator:
    """A stream of random numbers, given by a seed and a position in it.

    seed: 0 … 2^128 - 1. Different seeds are different streams; small ones are as good as any.
    device: "cpu", or "cuda": draws are then arrays on the GPU, of the same bits. It may be changed at any time, and is not part
        of the state.

    Every call takes the next whole blocks of 128 bits, however they are used, so what it returns depends on the seed
    and on the amounts drawn before. A shape is an int, a tuple, or () for an array without axes. Do not draw from one
    generator in two threads: `split` it. Raises TypeError for a seed that is no integer, ValueError outside the range.
    """

    def __init__(self, seed: int, device: str = "cpu"):
        self.device = device
        self._seed = _integer("seed", seed, 0, 1 << 128)
        self._block = 0
        self._children = 0

    # -- distributions -------------------------------------------------------------------------------------------------

    def uniform(self, shape: Shape, low: float = 0.0, high: float = 1.0, dtype: DTypeLike = np.float32) -> np.ndarray:
        """Draws from [low, high), of shape `shape`: low + (high - low) u for u in steps of 2^-24 (float64: 2^-53).

        `high` is never returned, `low` may be. Raises ValueError where low < high does not hold in this dtype.
        """
        shape, n = _shape(shape)
        real = _real_type(dtype)
        low, high = _number("low", low, real), _number("high", high, real)
        if not low < high:
            raise ValueError(f"uniform: low must be less than high, but as {real.__name__} low={low!s}, high={high!s}")
        if not float(high) - float(low) <= LARGEST[real]:
            raise ValueError(f"uniform: high - low exceeds the largest {real.__name__}; low={low!s}, high={high!s}")
        return philox_uniform.on(self.device)(*self._take(n, real), low, high, real).reshape(shape)

    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: DTypeLike = np.float32) -> np.ndarray:
        """Draws from N(mean, std²), of shape `shape`. Standard ones lie within ±6.661 (float32) or ±9.420 (float64).

        Raises ValueError for a negative std. For a mean or std that varies, scale standard draws: mean + std * z.
        """
        shape, n = _shape(shape)
        real = _real_type(dtype)
        mean, std = _number("mean", mean, real), _number("std", std, real)
        if std < 0:
            raise ValueError(f"normal: std={std!s} is negative; it is a standard deviation, so give one of at least 0")
        return philox_normal.on(self.device)(*self._take(n, real), mean, std, real).reshape(shape)

    def integers(self, low: int, high: int, shape: Shape) -> np.ndarray:
        """Integers from low … high - 1, int64, of shape `shape`, each exactly as likely as any other.

        Unbiased by multiplication and rejection (D. Lemire, Fast Random Integer Generation in an Interval, 2019): the
        upper half of x (high - low) for 64 random bits x; the few x that would favour some results are drawn again.
        Raises ValueError unless -2^63 <= low < high <= 2^63.
        """
        shape, n = _shape(shape)
        low, high = _integer("low", low, -(1 << 63), 1 << 63), _integer("high", high, -(1 << 63), (1 << 63) + 1)
        if low >= high:
            raise ValueError(f"integers: low must be less than high (which is not drawn), got low={low}, high={high}")
        return philox_integers.on(self.device)(*self._take(n, np.int64), low, high).reshape(shape)

    def bernoulli(self, p: ArrayLike, shape: Shape | None = None, dtype: DTypeLike = np.float32) -> np.ndarray:
        """Ones with probability p and zeros otherwise, of shape `shape` (None: that of p), as float32 or float64.

        p: a number or an array in [0, 1] that broadcasts to `shape`; it is rounded down to a multiple of 2^-32, so 0
        never gives a one and 1 always does. Raises ValueError for a p outside [0, 1] or NaN; but a p on a GPU is not looked
        at, for that would mean to wait for the device.
        """
        p = _probabilities(p)
        real = _real_type(dtype)
        shape, n = _shape(p.shape if shape is None else shape)
        try:
            each = p.reshape(1) if p.size == 1 and p.ndim <= len(shape) else np.broadcast_to(p, shape).reshape(n)
        except ValueError:
            message = f"bernoulli: p of shape {p.shape} does not broadcast to shape {shape}; leave shape out to use p's"
            raise ValueError(message) from None
        return philox_bernoulli.on(self.device)(*self._take(n, np.float32), self._own(each), real).reshape(shape)

    def permutation(self, n: int) -> np.ndarray:
        """0 … n - 1 in random order, (n,) int64: the order in which n random integers of 64 bits are sorted.

        Equal integers (probability below n² / 2^65) keep their order, so the result is the same everywhere.
        """
        n = _integer("n", n, 0, 1 << 62)
        keys = philox_integers.on(self.device)(*self._take(n, np.int64), -(1 << 63), 1 << 63)
        return np.argsort(keys, kind="stable").astype(np.int64, copy=False)

    def bits(self, n: int) -> np.ndarray:
        """n words of 32 random bits, (n,) uint32: Philox's output as it comes."""
        n = _integer("n", n, 0, 1 << 62)
        return philox_bits.on(self.device)(*self._take(n, np.uint32))

    @property
    def device(self) -> str:
        """Where draws are made. Raises ValueError for another than "cpu" and "cuda"; whether there is a GPU shows at the first
        draw, as a DeviceError."""
        return self._device

    @device.setter
    def device(self, device: str) -> None:
        if device not in ("cpu", "cuda"):
            raise ValueError(f"unknown device {device!r}: choose 'cpu' or 'cuda'")
        self._device = device

    # -- streams -------------------------------------------------------------------------------------------------------

    def split(self, n: int = 1) -> list[Generator]:
        """n new generators, independent of this one, of each other and of all other children. Always a list.

        The seed of child i is this stream's Philox output at a counter that draws never use. Philox is a bijection of
        counters, so siblings always differ; two other relatives coincide with probability 2^-128. Splitting does not
        change what this generator draws. Raises RuntimeError in a step that is recorded: its children would be the same ones
        at each replay.
        """
        if dials.recording is not None:
            raise RuntimeError("split: in a recorded step the children would be the same at each replay; split before it")
        n = _integer("n", n, 0, BLOCKS - self._children + 1)
        words = philox_bits(self._seed & HALF, self._seed >> 64, CHILDREN + self._children, 4 * n)
        self._children += n
        seeds = [sum(int(word) << 32 * k for k, word in enumerate(four)) for four in words.reshape(n, 4)]
        return [Generator(seed, self.device) for seed in seeds]

    @property
    def state(self) -> dict[str, int | str]:
        """Everything that later draws and splits depend on: a new dict of integers and strings, fit for JSON.

        Setting it continues bit for bit. What is not such a state raises ValueError or TypeError and changes nothing.
        """
        return {"algorithm": ALGORITHM, "seed": self._seed, "block": self._block, "children": self._children}

    @state.setter
    def state(self, state: dict[str, int | str]) -> None:
        limits = {"seed": 1 << 128, "block": BLOCKS + 1, "children": BLOCKS + 1}
        if not isinstance(state, dict) or state.keys() != {"algorithm", *limits}:
            raise ValueError(f"state must be a dict of algorithm, {', '.join(limits)}, as it was saved, "
                             f"got {state!r}")
        if state["algorithm"] != ALGORITHM:
            raise ValueError(f"state is of the algorithm {state['algorithm']!r}, but this generator is {ALGORITHM!r}; "
                             "continue with the version of minigen that saved it")
        seed, block, children = (_integer(f"state[{name!r}]", state[name], 0, limit) for name, limit in limits.items())
        self._seed, self._block, self._children = seed, block, children

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, block={self._block}, children={self._children})"

    def _own(self, p: np.ndarray) -> np.ndarray:
        """p on the device of the draws: one number is taken along, an array must be there. Raises TypeError."""
        if on_gpu(p) == (self.device == "cuda"):
            return p
        if p.size == 1 and self.device == "cuda":
            return cupy().full(p.shape, p.item(), p.dtype)  # made there: nothing has to be copied
        raise TypeError(f"bernoulli: p is an array on another device than the draws, {self.device}: move one of them with .to")

    def _take(self, n: int, dtype: type) -> tuple[int, int, Any, int]:
        """(key, stream, block, n) for n draws as wide as dtype; the position moves past them, also when they are replayed."""
        return self._seed & HALF, self._seed >> 64, again(lambda: self._move_past(n, dtype)), n

    def _move_past(self, n: int, dtype: type) -> int:
        """The block at which n draws begin."""
        block, per_block = self._block, 16 // np.dtype(dtype).itemsize
        after = block - (-n // per_block)
        if after > BLOCKS:
            raise ValueError(f"{n} draws do not fit: the stream has 2^56 blocks and is at {block}; split off a new one")
        self._block = after
        return block


# -- checks of arguments: each returns the argument in the form that kernels take --------------------------------------


def _integer(name: str, value: Any, low: int, high: int) -> int:
    """An int in low … high - 1."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        integer = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}") from None
    if not low <= integer < high:
        raise ValueError(f"{name} must be at least {low:.6g} and less than {high:.6g}, got {integer}")
    return integer


def _number(name: str, value: Any, real: type) -> Any:
    """A finite number, in the dtype of the draws."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r} of type {type(value).__name__}") from None
    if not abs(number) <= LARGEST[real]:
        raise ValueError(f"{name} must be finite in {real.__name__}, got {number}")
    return real(number)


def _shape(shape: Any) -> tuple[tuple[int, ...], int]:
    """A tuple of sizes, and their product."""
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    sizes = tuple(_integer(f"an axis of shape {shape!r}", size, 0, 1 << 62) for size in sizes)
    return sizes, math.prod(sizes)


def _real_type(dtype: DTypeLike) -> Any:
    """np.float32 or np.float64."""
    real = np.dtype(dtype).type
    if real not in LARGEST:
        raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}; convert the draws with .astype")
    return real


def _probabilities(p: Any) -> np.ndarray:
    """p as a float32 or float64 array, in [0, 1]."""
    p = p if on_gpu(p) else np.asarray(p)
    if p.dtype.kind in "biu":
        p = p.astype(np.float64)
    if p.dtype.type not in LARGEST:
        raise TypeError(f"bernoulli: p must be float32 or float64, got an array of {p.dtype}; convert it with .astype")
    if not on_gpu(p) and p.size and not (p.min() >= 0 and p.max() <= 1):  # NaN compares false
        k = tuple(int(i) for i in np.argwhere(~((p >= 0) & (p <= 1)))[0])
        raise ValueError(f"bernoulli: p must lie in [0, 1], got {p[k]!s} at index {k}; for logits, pass their sigmoid")
    return p
