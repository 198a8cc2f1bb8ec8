"""Forward convolution and input gradient: direct, without im2col. Start at `convolve_images`; `convolve` prepares it.

Weights are packed into panels of one or two vectors of target channels, [panel][tap][source channel][lane], so that the
innermost loop reads them in order. Images are padded, a few at a time, into a scratch buffer that stays in the cache.
The pixels of those images, row after row, image after image, are cut into tiles of ROWS pixels; where each one begins
in the scratch buffer and where its sums belong is looked up in two tables, so that a tile may cross the end of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from ..arrays import contiguous
from ..jit import get_num_threads, jit
from ..threads import run
from ..tile import ROWS, VECTOR_BYTES, tiles
from .geometry import Pair, Phase, of_taps, window

SCRATCH_BYTES = 1 << 19  # images padded at a time: half of a small second-level cache, which leaves room for weights
UNIT_PIXELS = 512  # target pixels of one unit of work, at most, unless a single image has more
PARTS = 16  # that the units are cut into for several threads, which take one after the other
PARALLEL_MULTIPLICATIONS = 1 << 21  # a smaller convolution is done before a second thread has woken up

PHASE = np.dtype([(f"{name}_{axis}", np.int64) for axis in "yx" for name in Phase._fields] + [("panels", np.int64)])


def convolve(
    src: np.ndarray,
    w: np.ndarray,
    w_steps: tuple[int, int, int, int, int],
    phases: list[list[Phase]],
    groups: int,
    dst: np.ndarray,
) -> bool:
    """Fill dst (N, H', W', C') from src (N, H, W, C) by the phases of the two axes; False if this needs the reference.

    w_steps: how far apart in memory the weights are for the next group, tap row, tap column, source and target channel.
    It is False where a weight that is NaN or infinite would meet padding.
    """
    kh, kw = w.shape[:2]
    masked = masked_taps(w)
    if masked == 0 or kh == 1 or not all_finite(src):
        return add_taps(src, w, w_steps, phases, groups, dst, False)
    above = [of_taps(phases[0], 0, kh - 1), phases[1]]
    last = [of_taps(phases[0], kh - 1, kh), of_taps(phases[1], 0, kw - masked)]
    return add_taps(src, w, w_steps, above, groups, dst, False) and add_taps(src, w, w_steps, last, groups, dst, True)


def masked_taps(w: np.ndarray) -> int:
    """How many taps at the end of the kernel's last row are zero for all channels, as in a masked convolution.

    They need no multiplication, if what they would be multiplied with is finite. (Only there is it worth looking for them.)
    """
    masked = 0
    while masked < w.shape[1] and not w[-1, -1 - masked].any():
        masked += 1
    return masked


@np.errstate(all="ignore")
def all_finite(x: np.ndarray) -> bool:
    """False if a number of x is NaN or infinite, or if their sum is: the sum is one pass that writes nothing."""
    return bool(np.isfinite(x.sum()))


def add_taps(
    src: np.ndarray,
    w: np.ndarray,
    w_steps: tuple[int, int, int, int, int],
    phases: list[list[Phase]],
    groups: int,
    dst: np.ndarray,
    accumulate: bool,
) -> bool:
    """`convolve` for the taps that the phases have. accumulate: add to what dst holds."""
    if dst.size == 0:
        return True
    padded, box = window(phases, src.shape[1:3])
    if padded and not np.isfinite(w).all():
        return False
    batch, _, _, c_src = src.shape
    channels = (groups, c_src // groups, dst.shape[3] // groups)
    vectors, lanes = vectors_for(channels[2], src.dtype)
    columns = vectors * lanes
    panels = groups * -(-channels[2] // columns)

    table = np.empty(len(phases[0]) * len(phases[1]), PHASE)
    size = 0
    for n, (y, x) in enumerate((y, x) for y in phases[0] for x in phases[1]):
        table[n] = (*y, *x, size)
        size += panels * y.taps * x.taps * channels[1] * columns
    packed = np.empty(size, src.dtype)
    pack(flat(w), w_steps, table, channels, columns, packed)

    pixels = max(y.pixels * x.pixels for y in phases[0] for x in phases[1])
    scratch = (box[1] - box[0]) * (box[3] - box[2]) * c_src * src.itemsize if padded else 1
    units = -(-batch // max(1, min(UNIT_PIXELS // pixels, SCRATCH_BYTES // max(1, scratch))))
    images = -(-batch // units)  # of each unit, evenly
    arrays = flat(src), src.shape, padded, box, table, packed, vectors, columns, groups, flat(dst), dst.shape
    run_units(partial(convolve_units, images, *arrays, accumulate), units, batch * pixels * size)
    return True


def vectors_for(channels: int, dtype: np.dtype) -> Pair:
    """How many vectors of channels a tile computes, 1 or 2, and the lanes of a vector."""
    lanes = VECTOR_BYTES // dtype.itemsize
    return (1 if channels <= lanes else 2), lanes


def flat(array: np.ndarray) -> np.ndarray:
    """The elements in C order, in one dimension; a copy only where the array is not laid out so."""
    return contiguous(array).reshape(-1)


def run_units(call: Callable[[int, int], object], units: int, multiplications: int) -> None:
    """call(first, stop) for all units of work, on several threads if that pays: what a unit gives depends on the unit alone."""
    if not parallel(units, multiplications):
        call(0, units)
        return
    cuts = [units * part // PARTS for part in range(PARTS + 1)]
    run([partial(call, *cut) for cut in pairwise(cuts) if cut[0] < cut[1]])


def parallel(units: int, multiplications: int) -> bool:
    """Whether several threads are worth their start, for independent units of work."""
    return units > 1 and multiplications >= PARALLEL_MULTIPLICATIONS and get_num_threads() > 1


@jit(contract=True)
def convolve_units(
    images, src, src_shape, padded, box, table, packed, vectors, columns, groups, dst, dst_shape, accumulate, first, stop
):
    """Units of work first .. stop - 1."""
    for unit in range(first, stop):
        convolve_images(
            unit, images, src, src_shape, padded, box, table, packed, vectors, columns, groups, dst, dst_shape, accumulate
        )


@jit(contract=True)
def convolve_images(
    unit, images, src, src_shape, padded, box, table, packed, vectors, columns, groups, dst, dst_shape, accumulate
):
    """One unit of work: all phases of images unit * images, unit * images + 1, ...

    src, packed, dst: flat      box: the window of `pad` when padded, else the whole image      table: PHASE records
    accumulate: add to what dst holds
    """
    batch, _, _, c_src = src_shape
    _, dst_height, dst_width, c_dst = dst_shape
    top, bottom, left, right = box
    rows, row = bottom - top, (right - left) * c_src  # of the window: its rows, and numbers in each
    first = unit * images
    count = min(images, batch - first)
    if padded:
        source, origin = np.empty(count * rows * row, src.dtype), 0
        pad(src, src_shape, first, count, box, source)
    else:
        source, origin = src, first * rows * row

    most = 0
    for phase in table:
        most = max(most, count * phase.pixels_y * phase.pixels_x)
    source_at = np.empty(most + ROWS, np.int64)
    target_at = np.empty(most + ROWS, np.int64)
    group_src, group_dst = c_src // groups, c_dst // groups
    buffered = most + ROWS if group_dst % columns else 0
    buffer = np.empty(buffered * columns, dst.dtype)
    buffer_at = np.arange(buffered) * columns
    for phase in table:
        pixels = 0
        for image in range(count):
            for y in range(phase.pixels_y):
                source_y = image * rows + phase.start_y + y * phase.step_y - top
                target_y = (first + image) * dst_height + phase.to_y + y * phase.to_step_y
                for x in range(phase.pixels_x):
                    source_at[pixels] = source_y * row + (phase.start_x + x * phase.step_x - left) * c_src
                    target_at[pixels] = (target_y * dst_width + phase.to_x + x * phase.to_step_x) * c_dst
                    pixels += 1
        for n in range(pixels, pixels + ROWS):  # the last tile repeats the last pixel instead of branching
            source_at[n] = source_at[pixels - 1]
            target_at[n] = target_at[pixels - 1]

        if groups == 1 and phase.gap_x == 1:  # taps side by side are contiguous in memory: one loop over both
            extent = (phase.taps_y, np.int64(1), phase.taps_x * c_src)
        else:
            extent = (phase.taps_y, phase.taps_x, group_src)
        source_step = (phase.gap_y * row, phase.gap_x * c_src, np.int64(1))
        panel_step = (phase.taps_x * group_src * columns, group_src * columns, columns)
        panel = phase.panels
        for group in range(groups):
            start = origin + group * group_src
            for channel in range(0, group_dst, columns):
                to = group * group_dst + channel
                if channel + columns <= group_dst:
                    tiles(
                        vectors, extent, source, start, source_step, source_at, pixels, packed, panel, panel_step,
                        dst, to, target_at, accumulate,
                    )
                else:  # the panel is wider than what is left of the channels: its sums go through a buffer
                    tiles(
                        vectors, extent, source, start, source_step, source_at, pixels, packed, panel, panel_step,
                        buffer, np.int64(0), buffer_at, np.bool_(False),
                    )
                    for p in range(pixels):
                        for c in range(group_dst - channel):
                            at = target_at[p] + to + c
                            if accumulate:
                                dst[at] += buffer[p * columns + c]
                            else:
                                dst[at] = buffer[p * columns + c]
                panel += phase.taps_y * phase.taps_x * group_src * columns


@jit()
def pack(w, w_steps, table, channels, columns, packed):
    """Copy weights into panels [phase][group][panel][tap i][tap j][source channel][column], filled up with zeros."""
    step_group, step_i, step_j, step_src, step_dst = w_steps
    groups, c_src, c_dst = channels
    to = 0
    for phase in table:
        for group in range(groups):
            for first in range(0, c_dst, columns):
                width = min(columns, c_dst - first)
                start = group * step_group + first * step_dst
                for i in range(phase.taps_y):
                    row = start + (phase.tap_y + i * phase.tap_step_y) * step_i
                    for j in range(phase.taps_x):
                        tap = row + (phase.tap_x + j * phase.tap_step_x) * step_j
                        transpose(w[tap:], step_src, step_dst, c_src, width, columns, packed[to : to + c_src * columns])
                        to += c_src * columns


@jit()
def transpose(matrix, step_row, step_column, rows, width, columns, out):
    """out (rows, columns) from a matrix with any steps, of which `width` columns exist: blocks of rows stay in cache."""
    for first in range(0, rows, 16):
        last = min(first + 16, rows)
        if step_column == 1:
            for r in range(first, last):
                source, target = matrix[r * step_row : r * step_row + width], out[r * columns : (r + 1) * columns]
                for c in range(width):
                    target[c] = source[c]
        else:  # step_row == 1
            for c in range(width):
                source, target = matrix[first + c * step_column : last + c * step_column], out[first * columns + c :]
                for r in range(last - first):
                    target[r * columns] = source[r]
        for r in range(first, last):
            for c in range(width, columns):
                out[r * columns + c] = 0


@jit()
def pad(src, src_shape, first, count, box, padded):
    """Copy `count` images from `first` on, cut and filled up with zeros to box: top, bottom, left and right edge."""
    _, height, width, channels = src_shape
    top, bottom, left, right = box
    low, high = min(max(left, 0), right), max(min(right, width), left)  # the columns that exist
    row, before, copied = (right - left) * channels, (low - left) * channels, max(high - low, 0) * channels
    to = 0
    for image in range(first, first + count):
        for y in range(top, bottom):
            target = padded[to : to + row]
            to += row
            if 0 <= y < height:
                at = ((image * height + y) * width + low) * channels
                for n in range(before):
                    target[n] = 0
                source, existing = src[at : at + copied], target[before : before + copied]
                for n in range(copied):
                    existing[n] = source[n]
                for n in range(before + copied, row):
                    target[n] = 0
            else:
                for n in range(row):
                    target[n] = 0
