"""Convolution of channels-last images, and its two adjoints. Start at `reference.conv2d`, the definition.

The three are closed under differentiation: the convolution is linear in the image and in the weights, and the gradient
of each kernel with respect to either of its arrays is another one of the three. So no order of derivative needs a
fourth kernel. `conv2d_input` is also the forward pass of the transposed convolution.

    conv2d(x, w, stride, padding, dilation, groups, out=None)                       -> (N, Ho, Wo, C_out)
    conv2d_input(g, w, input_hw, stride, padding, dilation, groups, out=None)       -> (N, H, W, C_in)
    conv2d_weight(x, g, kernel_hw, stride, padding, dilation, groups, out=None)     -> (kh, kw, C_in / groups, C_out)

    x (N, H, W, C_in)    w (kh, kw, C_in / groups, C_out)    g (N, Ho, Wo, C_out)    the others are pairs of integers
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...backend import Card, Kernel
from . import geometry, reference
from .geometry import Geometry, Pair

FAMILY = "minigen.autograd.kernels.conv"

Row = tuple[int, int, int, int, int, Pair, Pair, Pair, Pair, int]

SMALL: list[Row] = [  # N, H, W, C_in, C_out, (kh, kw), stride, padding, dilation, groups
    (1, 1, 1, 1, 1, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (0, 4, 4, 3, 2, (3, 3), (1, 1), (1, 1), (1, 1), 1),  # no images
    (1, 0, 3, 2, 1, (1, 1), (1, 1), (1, 1), (1, 1), 1),  # images of nothing but padding
    (2, 3, 4, 0, 2, (2, 2), (1, 1), (0, 0), (1, 1), 1),  # no input channels: a sum of nothing
    (2, 3, 4, 2, 0, (2, 2), (1, 1), (0, 0), (1, 1), 1),
    (2, 5, 4, 3, 5, (3, 2), (1, 1), (1, 0), (1, 1), 1),
    (3, 5, 5, 5, 3, (1, 1), (1, 1), (0, 0), (1, 1), 1),
    (2, 5, 7, 3, 17, (1, 1), (3, 2), (0, 0), (1, 1), 1),  # a stride larger than the kernel: some inputs are not used
    (1, 7, 5, 2, 3, (2, 2), (3, 4), (4, 5), (1, 1), 1),  # the same, and padding that no tap of some phases reaches
    (2, 4, 4, 17, 5, (4, 4), (1, 1), (0, 0), (1, 1), 1),  # the kernel covers the image
    (2, 6, 7, 3, 17, (3, 3), (1, 2), (2, 1), (2, 1), 1),
    (1, 9, 8, 5, 3, (3, 3), (2, 1), (0, 3), (2, 3), 1),
    (1, 7, 9, 3, 5, (2, 3), (3, 2), (1, 2), (3, 2), 1),  # dilation and stride with a common factor
    (1, 2, 3, 1, 2, (3, 3), (1, 1), (1, 1), (1, 1), 1),  # an image smaller than the kernel
    (2, 4, 5, 4, 6, (3, 3), (1, 1), (1, 1), (1, 1), 2),
    (2, 5, 5, 6, 6, (3, 3), (2, 2), (1, 1), (1, 1), 6),  # depthwise
    (1, 5, 4, 3, 6, (3, 2), (1, 1), (2, 1), (2, 1), 3),  # depthwise with two outputs per channel, dilated
    (3, 8, 8, 1, 17, (4, 4), (2, 2), (1, 1), (1, 1), 1),  # a first layer
    (3, 8, 8, 17, 1, (3, 3), (1, 1), (1, 1), (1, 1), 1),  # a last layer
    (3, 4, 4, 1, 5, (4, 4), (2, 2), (1, 1), (1, 1), 1),  # its input gradient: a last transposed layer
]
LARGE: list[Row] = [  # whole and partial panels of channels, several units of work, several chunks of the weight gradient
    (2, 5, 6, 15, 31, (3, 3), (1, 1), (1, 1), (1, 1), 1),  # one channel less than whole vectors
    (5, 14, 14, 17, 33, (3, 3), (1, 1), (1, 1), (1, 1), 1),  # units of two images, and one that is left
    (9, 14, 14, 16, 32, (4, 4), (2, 2), (1, 1), (1, 1), 1),
    (3, 12, 30, 32, 64, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    (2, 9, 14, 96, 32, (3, 3), (1, 1), (1, 1), (1, 1), 1),  # Winograd's algorithm, also in the weight gradient
    (3, 16, 12, 32, 64, (4, 4), (2, 2), (1, 1), (1, 1), 1),
]


def _cases(left: str, right: str, size: str | None = None) -> Callable[[np.random.Generator, type], list]:
    """Calls with random arrays of the two shapes, the size that the kernel cannot know from them, and the parameters."""

    def cases(rng: np.random.Generator, dtype: type) -> list[tuple[tuple, dict]]:
        calls: list[tuple[tuple, dict]] = []
        for n, h, w, c_in, c_out, kernel, stride, padding, dilation, groups in SMALL + LARGE:
            parameters = stride, padding, dilation, groups
            geo = geometry.check("conv2d", (n, h, w, c_in), (*kernel, c_in // groups, c_out), *parameters)
            arrays = [rng.standard_normal(getattr(geo, shape)).astype(dtype) for shape in (left, right)]
            calls.append(((*arrays, *([getattr(geo, size)] if size else []), *parameters), {}))
        return calls

    return cases


def _forward_geometry(x, w, stride, padding, dilation, groups, out=None) -> Geometry:
    return geometry.check("conv2d", x.shape, w.shape, stride, padding, dilation, groups)


def _input_geometry(g, w, input_hw, stride, padding, dilation, groups, out=None) -> Geometry:
    shape = reference.input_shape(g, w, input_hw, groups)
    return geometry.check("conv2d_input", shape, w.shape, stride, padding, dilation, groups)


def _weight_geometry(x, g, kernel_hw, stride, padding, dilation, groups, out=None) -> Geometry:
    shape = reference.weight_shape(x, g, kernel_hw, groups)
    return geometry.check("conv2d_weight", x.shape, shape, stride, padding, dilation, groups)


def _card(cases, geometry_of, kernel, ulp: float, note: str) -> Card:
    """Cost and accuracy in common: a sum of products, whose rounding is relative to the sum of their magnitudes."""

    def flops(*args, **kwargs) -> int:
        return 2 * geometry_of(*args, **kwargs).multiplications

    def nbytes(*args, **kwargs) -> int:
        geo = geometry_of(*args, **kwargs)
        sizes = (np.prod(shape, dtype=int) for shape in (geo.input_shape, geo.weight_shape, geo.output_shape))
        return int(sum(sizes)) * args[0].dtype.itemsize

    def scale(a, b, *args, **kwargs) -> np.ndarray:
        return kernel(np.abs(a), np.abs(b), *args)

    return Card(cases=cases, flops=flops, bytes=nbytes, ulp=ulp, scale=scale, note=note)


conv2d = Kernel(
    "conv2d",
    FAMILY,
    _card(
        _cases("input_shape", "weight_shape"),
        _forward_geometry,
        reference.conv2d,
        ulp=8,
        note="One running sum over kh * kw * C_in products per output, in the dtype of the arrays. In float32, 3 x 3 kernels "
        "and 4 x 4 ones of stride 2 by Winograd's algorithm, whose errors are relative to the magnitudes in a tile.",
    ),
)
conv2d_input = Kernel(
    "conv2d_input",
    FAMILY,
    _card(
        _cases("output_shape", "weight_shape", "input_hw"),
        _input_geometry,
        reference.conv2d_input,
        ulp=8,
        note="One running sum over the taps that reach a pixel and C_out, in the dtype of the arrays; Winograd's as conv2d.",
    ),
)
conv2d_weight = Kernel(
    "conv2d_weight",
    FAMILY,
    _card(
        _cases("input_shape", "output_shape", "kernel_hw"),
        _weight_geometry,
        reference.conv2d_weight,
        ulp=8,
        note="Pixels are summed in bands of about 128, bands in chunks of the batch, chunks in order; Winograd's as conv2d.",
    ),
)
