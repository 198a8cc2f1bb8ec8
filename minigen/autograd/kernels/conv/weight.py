"""The weight gradient of a convolution. Start at `sum_chunk`.

Rows of the product are (tap, input channel), columns are output channels, and the sum runs over pixels. The batch is
cut into a number of chunks that depends on the shapes only; each has a partial sum of its own, and these are added in
order, so that the result is bit for bit the same for any number of threads. Within a chunk, a band of pixels whose
images fit into the first-level cache is summed in registers for all weights before the next one is looked at.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..jit import jit
from ..tile import ROWS, tiles
from .direct import flat, pad, run_units, vectors_for
from .geometry import Geometry, Phase, window

CHUNK_PIXELS = 512  # output pixels of a chunk, at least: a partial sum costs as much as about 50 pixels
MAX_CHUNKS = 8  # of the batch
BAND_PIXELS = 128  # output pixels whose products are summed in registers
GATHERED = 128  # weights of an output channel from which on a panel of g, read once for every ROWS of them, is copied first


def gradient(x: np.ndarray, g: np.ndarray, geo: Geometry, phases: list[list[Phase]], out: np.ndarray) -> bool:
    """Fill out (kh, kw, C_in / groups, C_out) from x (N, H, W, C_in) and g (N, Ho, Wo, C_out); True if x was padded."""
    if 0 in (x.size, g.size, out.size):
        out[...] = 0
        return False
    padded, box = window(phases, geo.input_hw)
    kh, kw, c_in, c_out = out.shape
    vectors, lanes = vectors_for(c_out // geo.groups, x.dtype)
    columns = vectors * lanes
    width = -(-c_out // geo.groups // columns) * columns  # output channels of a group, in whole panels
    pixels = geo.batch * geo.output_hw[0] * geo.output_hw[1]
    chunks = min(geo.batch, MAX_CHUNKS, max(1, pixels // CHUNK_PIXELS))
    partials = np.empty((chunks, kh * kw * c_in, geo.groups, width), x.dtype)
    arrays = partials.reshape(chunks, -1), flat(x), x.shape, padded, box, flat(g), g.shape
    sizes = geo.kernel_hw, geo.stride, geo.dilation, geo.groups, vectors, columns
    run_units(partial(sum_chunks, *arrays, *sizes), chunks, geo.multiplications)
    with np.errstate(all="ignore"):  # infinities of opposite signs make NaN, without a warning
        total = partials.sum(axis=0) if chunks > 1 else partials[0]  # in the order of the chunks
    out.reshape(kh * kw * c_in, geo.groups, -1)[...] = total[..., : c_out // geo.groups]
    return padded


@jit(contract=True)
def sum_chunks(
    partials, x, x_shape, padded, box, g, g_shape, kernel, stride, dilation, groups, vectors, columns, first, stop
):
    """Chunks first .. stop - 1."""
    for chunk in range(first, stop):
        sum_chunk(
            chunk, partials, x, x_shape, padded, box, g, g_shape, kernel, stride, dilation, groups, vectors, columns
        )


@jit(contract=True)
def sum_chunk(chunk, partials, x, x_shape, padded, box, g, g_shape, kernel, stride, dilation, groups, vectors, columns):
    """partials[chunk] = the sums over a len(partials)-th part of the batch: [tap][input channel][group][column].

    x, g: flat      box: the window of `pad` when padded, else the whole image
    """
    batch, _, _, c_in = x_shape
    _, out_height, out_width, c_out = g_shape
    top, bottom, left, right = box
    rows, row = bottom - top, (right - left) * c_in  # of the window: its rows, and numbers in each
    group_in, group_out = c_in // groups, c_out // groups
    width = -(-group_out // columns) * columns
    whole = width == group_out  # then g is read in place; otherwise it is copied into rows of whole panels
    g_pixel = c_out if whole else groups * width

    weights = kernel[0] * kernel[1] * group_in
    x_at = np.empty(weights + ROWS, np.int64)
    sum_at = np.empty(weights + ROWS, np.int64)
    n = 0
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            for c in range(group_in):
                x_at[n] = i * dilation[0] * row + j * dilation[1] * c_in + c
                sum_at[n] = n * groups * width
                n += 1
    for repeat in range(weights, weights + ROWS):  # the last tile repeats the last weight instead of branching
        x_at[repeat] = x_at[weights - 1]
        sum_at[repeat] = sum_at[weights - 1]

    start, last = batch * chunk // len(partials), batch * (chunk + 1) // len(partials)
    band_images = min(last - start, max(1, BAND_PIXELS // (out_height * out_width)))
    band_rows = max(1, BAND_PIXELS // out_width)
    x_step = (rows * row, stride[0] * row, stride[1] * c_in)
    g_step = (out_height * out_width * g_pixel, out_width * g_pixel, g_pixel)
    x_scratch = np.empty(band_images * rows * row if padded else 0, x.dtype)
    g_scratch = np.empty(0 if whole else band_images * g_step[0], g.dtype)
    gathers = weights >= GATHERED
    panel = np.empty(band_images * min(band_rows, out_height) * out_width * columns, g.dtype)
    sums = partials[chunk]
    for first in range(start, last, band_images):
        images = min(band_images, last - first)
        left_factor, x_origin = x, first * x_step[0]
        if padded:
            left_factor, x_origin = x_scratch, 0
            pad(x, x_shape, first, images, box, x_scratch)
        right_factor, g_origin = g, first * g_step[0]
        if not whole:
            right_factor, g_origin = g_scratch, 0
            runs = out_height * out_width * groups
            widen(g, first * runs * group_out, images * runs, group_out, width, g_scratch)
        for y in range(0, out_height, band_rows):
            extent = (images, min(band_rows, out_height - y), out_width)
            for group in range(groups):
                x_start = x_origin + y * x_step[1] + group * group_in
                for column in range(group * width, (group + 1) * width, columns):
                    columns_of, columns_at, columns_step = right_factor, g_origin + y * g_step[1] + column, g_step
                    if gathers:
                        gather(right_factor, columns_at, g_step, extent, columns, panel)
                        columns_of, columns_at = panel, np.int64(0)
                        columns_step = (extent[1] * out_width * columns, out_width * columns, columns)
                    tiles(
                        vectors, extent, left_factor, x_start, x_step, x_at, weights, columns_of, columns_at, columns_step,
                        sums, column, sum_at, first > start or y > 0,
                    )


@jit()
def gather(src, start, step, extent, columns, panel):
    """panel [i][j][k][column] from the `columns` numbers at src[start + (i, j, k) . step].

    The micro-kernel reads the panel once for every few rows. Where its parts lie in src, as far apart as the channels are
    many, they would drive each other out of the first-level cache.
    """
    to = 0
    for i in range(extent[0]):
        for j in range(extent[1]):
            for k in range(extent[2]):
                at = start + i * step[0] + j * step[1] + k * step[2]
                source, target = src[at : at + columns], panel[to : to + columns]
                for c in range(columns):
                    target[c] = source[c]
                to += columns


@jit()
def widen(src, start, count, narrow, wide, dst):
    """Copy `count` runs of `narrow` numbers from src[start:] to runs of `wide` ones in dst, filled up with zeros."""
    for n in range(count):
        source, target = src[start + n * narrow : start + (n + 1) * narrow], dst[n * wide : (n + 1) * wide]
        for c in range(narrow):
            target[c] = source[c]
        for c in range(narrow, wide):
            target[c] = 0
