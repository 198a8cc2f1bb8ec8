"""What each kernel is timed on: the largest call of its own card that is not too large, grown to size. Start at `grown`.

So a new kernel is in the benchmark as soon as it has a card. Growing repeats the samples, along the first axis: the rows of a
softmax, the images of a convolution. Where that is not what a kernel needs, `SPECIAL` says what is.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np

from minigen.autograd import kernels
from minigen.autograd.backend import KERNELS, Kernel

Call = tuple[tuple, dict]


def every_kernel() -> dict[str, Kernel]:
    """All kernels of the project, by name."""
    for module in pkgutil.iter_modules(kernels.__path__):
        if module.ispkg:
            importlib.import_module(f"{kernels.__name__}.{module.name}")
    return KERNELS


def grown(kernel: Kernel, numbers: int) -> Call:
    """Arguments for a call that moves about so many float32 numbers. Philox's kernels draw that many."""
    rng = np.random.default_rng(0)
    if kernel.name in SPECIAL:
        return SPECIAL[kernel.name](rng, numbers)
    size = lambda call: kernel.card.bytes(*call[0], **call[1])
    calls = sorted((call for call in kernel.card.cases(rng, np.float32) if size(call) > 0), key=size)
    args, kwargs = next((call for call in reversed(calls) if size(call) <= 4 * numbers), calls[0])
    samples = next(a for a in args if isinstance(a, np.ndarray)).shape[0]
    times = max(1, round(numbers * 4 / kernel.card.bytes(*args, **kwargs)))
    return tuple(_repeated(a, samples, times) for a in args), kwargs


def _repeated(a: Any, samples: int, times: int) -> Any:
    """An argument for `times` as many samples: arrays with an entry for each are repeated, others stay."""
    if not isinstance(a, np.ndarray) or a.ndim == 0 or a.shape[0] != samples:
        return a
    return np.concatenate([a] * times)


def _square(numbers: int) -> int:
    return max(8, int((numbers / 3) ** 0.5))


def _product(rng: np.random.Generator, numbers: int) -> Call:
    n = _square(numbers)
    return (rng.standard_normal((n, n), np.float32), rng.standard_normal((n, n), np.float32)), {}


def _system(rng: np.random.Generator, numbers: int) -> Call:
    n = _square(numbers)
    a = np.tril(rng.standard_normal((1, n, n), np.float32) / n) + np.eye(n, dtype=np.float32)
    return (a, rng.standard_normal((1, n, n), np.float32), True, False), {}


def _convolution(kind: str) -> Callable[[np.random.Generator, int], Call]:
    """A layer in the middle of a U-Net: 3 x 3, 64 channels, images 14 x 14."""

    def call(rng: np.random.Generator, numbers: int) -> Call:
        n = max(1, numbers // (2 * 14 * 14 * 64))
        image, weight = rng.standard_normal((n, 14, 14, 64), np.float32), rng.standard_normal((3, 3, 64, 64), np.float32)
        layer = ((1, 1), (1, 1), (1, 1), 1)
        arguments: dict[str, tuple] = {
            "conv2d": (image, weight),
            "conv2d_input": (image, weight, (14, 14)),
            "conv2d_weight": (image, image, (3, 3)),
        }
        return (*arguments[kind], *layer), {}

    return call


def _group_norm(rng: np.random.Generator, numbers: int) -> Call:
    """Eight groups of eight channels, images 14 x 14, with SiLU: what a U-Net does before each convolution."""
    x = rng.standard_normal((max(1, numbers // (2 * 196 * 64)), 196, 64), np.float32)
    return (x, np.ones(64, np.float32), np.zeros(64, np.float32), 8, 1e-5), {"activation": "silu"}


def _group_norm_vjp(rng: np.random.Generator, numbers: int) -> Call:
    (x, weight, bias, groups, eps), options = _group_norm(rng, numbers)
    mean, rstd = np.zeros((len(x), groups), np.float32), np.ones((len(x), groups), np.float32)
    return (x, x, weight, bias, mean, rstd, eps), options


def _philox(*more: Any) -> Callable[[np.random.Generator, int], Call]:
    return lambda rng, numbers: ((1, 2, 3, numbers, *more), {})


def _bernoulli(rng: np.random.Generator, numbers: int) -> Call:
    return (1, 2, 3, numbers, rng.random(numbers, np.float32), np.float32), {}


SPECIAL: dict[str, Callable[[np.random.Generator, int], Call]] = {
    "matmul": _product,
    "solve_triangular": _system,
    **{name: _convolution(name) for name in ("conv2d", "conv2d_input", "conv2d_weight")},
    "group_norm": _group_norm,
    "group_norm_vjp": _group_norm_vjp,
    "philox_bits": _philox(),
    "philox_uniform": _philox(0.0, 1.0, np.float32),
    "philox_normal": _philox(0.0, 1.0, np.float32),
    "philox_integers": _philox(0, 256),
    "philox_bernoulli": _bernoulli,
}
