"""Convolutions whose result has very few channels, such as the one-channel image at the end of a decoder.

A vector of channels would be nearly empty there, so the kernel taps take the place of the channels: one product with a
1 x 1 kernel gives every pixel its contribution to each of the kh * kw pixels around it, and `spread` adds these up.
`collect` is the adjoint of `spread`, which the weight gradient needs.
"""

from __future__ import annotations

import numpy as np

from ..arrays import contiguous
from ..jit import jit
from .direct import vectors_for
from .geometry import Geometry, Pair

Targets = tuple[np.ndarray, np.ndarray]  # (kh, h) and (kw, w): where tap i of pixel y belongs, -1 for nowhere


def pays(geo: Geometry, source_hw: Pair, channels: int, dtype: np.dtype) -> bool:
    """Whether a product at each source pixel, for all taps at once, is less work than one at each output pixel and tap.

    channels: those of the result. Counted in vectors; a factor of two is left for the second pass over memory.
    """
    _, lanes = vectors_for(channels, dtype)
    taps = geo.kernel_hw[0] * geo.kernel_hw[1]
    output_pixels, source_pixels = (h * w for h, w in (geo.output_hw, source_hw))
    by_tap = source_pixels * -(-taps * channels // lanes)
    by_output = output_pixels * taps * -(-channels // lanes)
    return geo.groups == 1 and 0 not in (geo.batch, source_pixels, geo.c_in, geo.c_out) and 2 * by_tap < by_output


def targets_of_inputs(geo: Geometry) -> Targets:
    """Which output pixel each tap connects an input pixel with."""
    return _targets(geo, geo.input_hw, geo.output_hw, forward=True)


def targets_of_outputs(geo: Geometry) -> Targets:
    """Which input pixel each tap connects an output pixel with."""
    return _targets(geo, geo.output_hw, geo.input_hw, forward=False)


def _targets(geo: Geometry, source_hw: Pair, target_hw: Pair, forward: bool) -> Targets:
    tables = []
    for axis in range(2):
        taps = np.arange(geo.kernel_hw[axis])[:, None] * geo.dilation[axis] - geo.padding[axis]  # (k, 1)
        pixels = np.arange(source_hw[axis])  # input = output * stride + tap
        if forward:
            target, rest = np.divmod(pixels - taps, geo.stride[axis])  # (k, size)
            target[rest != 0] = -1
        else:
            target = pixels * geo.stride[axis] + taps
        tables.append(np.where((target >= 0) & (target < target_hw[axis]), target, -1))
    return tables[0], tables[1]


def spread(columns: np.ndarray, targets: Targets, out: np.ndarray) -> None:
    """out (N, H', W', C) = sum of columns (N, H, W, taps * C), each at the target of its pixel and tap."""
    out[...] = 0
    _spread(contiguous(columns).reshape(*columns.shape[:3], -1, out.shape[3]), *targets, out)


def collect(image: np.ndarray, targets: Targets) -> np.ndarray:
    """The adjoint of `spread`: (N, H', W', C) -> columns (N, H, W, taps * C), zero where a tap has no target."""
    rows, cols = targets
    shape = (len(image), rows.shape[1], cols.shape[1], len(rows) * len(cols), image.shape[3])
    columns = np.empty(shape, image.dtype)
    _collect(contiguous(image), rows, cols, columns)
    return columns.reshape(*shape[:3], -1)


@jit()
def _spread(columns, rows, cols, out):
    for n in range(columns.shape[0]):
        for y in range(columns.shape[1]):
            for x in range(columns.shape[2]):
                for i in range(len(rows)):
                    to_y = rows[i, y]
                    if to_y >= 0:
                        for j in range(len(cols)):
                            to_x = cols[j, x]
                            if to_x >= 0:
                                for c in range(columns.shape[4]):
                                    out[n, to_y, to_x, c] += columns[n, y, x, i * len(cols) + j, c]


@jit()
def _collect(image, rows, cols, columns):
    for n in range(columns.shape[0]):
        for y in range(columns.shape[1]):
            for x in range(columns.shape[2]):
                for i in range(len(rows)):
                    to_y = rows[i, y]
                    for j in range(len(cols)):
                        to_x = cols[j, x]
                        for c in range(columns.shape[4]):
                            if to_y >= 0 and to_x >= 0:
                                columns[n, y, x, i * len(cols) + j, c] = image[n, to_y, to_x, c]
                            else:
                                columns[n, y, x, i * len(cols) + j, c] = 0
