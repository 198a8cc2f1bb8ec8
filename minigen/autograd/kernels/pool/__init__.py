"""Pooling and nearest-neighbour upsampling of channels-last images, with their adjoints. Start at `reference`.

    max_pool2d(x, kernel, stride, padding, out=None)                         x (N, H, W, C) -> (N, Ho, Wo, C)
    max_pool2d_gradient(x, g, kernel, stride, padding, out=None)             -> (N, H, W, C), ties share g evenly
    max_pool2d_tangent(x, v, kernel, stride, padding, out=None)              -> (N, Ho, Wo, C), adjoint to it in g
    avg_pool2d(x, kernel, stride, padding, out=None)                         padding counts, as zeros
    avg_pool2d_adjoint(g, input_hw, kernel, stride, padding, out=None)
    upsample_nearest(x, scale, out=None)                                     (N, H, W, C) -> (N, H sh, W sw, C)
    upsample_nearest_adjoint(g, scale, out=None)                             the sum of each block

Each pair is closed under differentiation, to any order (the maximum away from its ties).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...backend import Card, Kernel
from ..conv.geometry import Pair
from . import reference

FAMILY = "minigen.autograd.kernels.pool"

WINDOWS: list[tuple[tuple[int, int, int, int], Pair, Pair, Pair]] = [  # (N, H, W, C), kernel, stride, padding
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)),
    ((0, 4, 4, 3), (2, 2), (2, 2), (0, 0)),
    ((2, 4, 4, 0), (2, 2), (2, 2), (0, 0)),
    ((2, 4, 6, 3), (2, 2), (2, 2), (0, 0)),
    ((2, 5, 7, 5), (3, 2), (2, 1), (1, 0)),  # overlapping windows
    ((1, 7, 5, 17), (2, 3), (3, 2), (1, 1)),  # gaps between windows
    ((3, 3, 4, 1), (3, 4), (1, 1), (0, 0)),  # one window
    ((2, 6, 5, 4), (4, 4), (2, 3), (2, 2)),
    ((4, 14, 14, 32), (2, 2), (2, 2), (0, 0)),
]
SCALES: list[tuple[tuple[int, int, int, int], Pair]] = [  # (N, H, W, C) of the small image, scale
    ((1, 1, 1, 1), (1, 1)),
    ((0, 2, 2, 3), (2, 2)),
    ((2, 2, 2, 0), (2, 2)),
    ((1, 0, 3, 2), (2, 3)),
    ((2, 3, 4, 5), (2, 2)),
    ((3, 2, 1, 17), (1, 3)),
    ((2, 7, 7, 32), (2, 2)),
]


def _images(rng: np.random.Generator, shape: tuple[int, ...], dtype: type, ties: bool = False) -> np.ndarray:
    values = rng.integers(-2, 3, shape) if ties else rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def _window_cases(second: str | None, ties: bool) -> Callable[[np.random.Generator, type], list]:
    """Calls with an image and, as `second`, an array like the "input_shape" or the "output_shape"."""

    def cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
        calls: list[tuple[tuple, dict]] = []
        for shape, *parameters in WINDOWS:
            geo = reference.windows("case", shape, *parameters)
            arrays = [_images(rng, shape, dtype, ties)]
            if second:
                arrays.append(_images(rng, getattr(geo, second), dtype))
            calls.append(((*arrays, *parameters), {}))
        return calls

    return cases


def _adjoint_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    geometries = [reference.windows("case", *row) for row in WINDOWS]
    return [
        ((_images(rng, geo.output_shape, dtype), geo.input_hw, geo.kernel_hw, geo.stride, geo.padding), {})
        for geo in geometries
    ]


def _upsample_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    return [((_images(rng, shape, dtype), scale), {}) for shape, scale in SCALES]


def _block_cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
    shapes = [(reference.upsampled("case", shape, scale), scale) for shape, scale in SCALES]
    return [((_images(rng, shape, dtype), scale), {}) for shape, scale in shapes]


def _outputs(x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, out: np.ndarray | None = None) -> int:
    """How many numbers a pool of x returns, one per window and channel."""
    return math.prod(reference.windows("pool", x.shape, kernel, stride, padding).output_shape)


def _kernel(
    name: str,
    cases: Callable[[np.random.Generator, type], list],
    outputs: Callable[..., int],
    flops: Callable[..., int],
    ulp: float = 0,
    linear_in: int | None = None,
    note: str = "",
) -> Kernel:
    """outputs(*args): numbers returned.   linear_in: the argument whose magnitudes the rounding is relative to."""
    exact = getattr(reference, name)

    def nbytes(*args: Any, **kwargs: Any) -> int:
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        return arrays[0].itemsize * (sum(a.size for a in arrays) + outputs(*args))

    def scale(*args: Any, **kwargs: Any) -> np.ndarray:
        return exact(*(np.abs(a) if n == linear_in else a for n, a in enumerate(args)))

    return Kernel(name, FAMILY, Card(cases, flops, nbytes, ulp, None if linear_in is None else scale, note=note))


max_pool2d = _kernel(
    "max_pool2d",
    _window_cases(None, ties=False),
    outputs=_outputs,
    flops=lambda x, kernel, *rest: math.prod(kernel) * _outputs(x, kernel, *rest),
    note="Selects, never rounds.",
)
max_pool2d_gradient = _kernel(
    "max_pool2d_gradient",
    _window_cases("output_shape", ties=True),
    outputs=lambda x, g, *rest: x.size,
    flops=lambda x, g, kernel, *rest: 4 * math.prod(kernel) * g.size,  # largest, count, share, sum
    ulp=4,
    linear_in=1,
)
max_pool2d_tangent = _kernel(
    "max_pool2d_tangent",
    _window_cases("input_shape", ties=True),
    outputs=lambda x, v, *rest: _outputs(x, *rest),
    flops=lambda x, v, kernel, *rest: 3 * math.prod(kernel) * _outputs(x, kernel, *rest),  # largest, count, sum
    ulp=4,
    linear_in=1,
)
avg_pool2d = _kernel(
    "avg_pool2d",
    _window_cases(None, ties=False),
    outputs=_outputs,
    flops=lambda x, kernel, *rest: math.prod(kernel) * _outputs(x, kernel, *rest),
    ulp=4,
    linear_in=0,
)
avg_pool2d_adjoint = _kernel(
    "avg_pool2d_adjoint",
    _adjoint_cases,
    outputs=lambda g, input_hw, *rest: g.shape[0] * math.prod(input_hw) * g.shape[3],
    flops=lambda g, input_hw, kernel, *rest: 2 * math.prod(kernel) * g.size,
    ulp=4,
    linear_in=0,
)
upsample_nearest = _kernel(
    "upsample_nearest",
    _upsample_cases,
    outputs=lambda x, scale, *rest: x.size * math.prod(scale),
    flops=lambda x, scale, *rest: 0,
    note="Copies, never rounds.",
)
upsample_nearest_adjoint = _kernel(
    "upsample_nearest_adjoint",
    _block_cases,
    outputs=lambda g, scale, *rest: g.size // math.prod(scale),
    flops=lambda g, scale, *rest: g.size,
    ulp=4,
    linear_in=0,
)
