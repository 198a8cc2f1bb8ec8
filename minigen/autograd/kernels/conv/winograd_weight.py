"""The weight gradient by Winograd's algorithm. Start at `gradient`, after winograd.py.

The three steps of the forward pass turned round. Along one axis y = A [(G g) ⊙ (B d)], where B, G and A make the sums of
pixels, of weights and of products. With dy the gradient of y, the weights g receive G' [(B d) ⊙ (A' dy)], added up over all
tiles of outputs. So the rows of each point's product are source channels, its columns target channels, and its sum runs over
tiles. Along one axis A' dy is, with rows stored for all x at once as in winograd.py (S1[x] = dy[x] + dy[x + 1], D1[x] = dy[x]
- dy[x + 1]):

    r = 2 taps      dy0, dy0 + dy1, dy1                     stored as:  [dy, 0]  [S1, 0]  [dy, 1]
    r = 3 taps      dy0, dy0 + dy1, dy0 - dy1, -dy1                     [dy, 0]  [S1, 0]  [D1, 0]  [dy, 1], without the minus
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..jit import jit
from ..tile import ROWS, wide_tiles
from .direct import all_finite, flat, run_units
from .geometry import Geometry, Phase
from .weight import gather
from .winograd import COLUMNS, ROW, SHIFT, UNIT_TILES, add_rows, axis_tables, row_extent, transform_rows

G_ROW = np.array([[0, 1, 0, 0], [0, 1, 2, 0]])  # [r - 2, i]: the stored row of a point, and the pixel from which on it is read
G_SHIFT = np.array([[0, 0, 1, 0], [0, 0, 0, 1]])

TRANSPOSED_G = {  # [tap, i]: G', with the minus that A' dy leaves out in its last column
    2: np.array([[1, 1, 0], [0, 1, -1]]),
    3: np.array([[1, 0.5, 0.5, 0], [0, 0.5, -0.5, 0], [0, 0.5, 0.5, -1]]),
}

# Where it is faster than the direct kernel, as measured:
SHARE = 0.57  # of the multiplications, at most
WEIGHTS = 96  # rows of the weight gradient's products, at least

PACKED = 128  # source channels from which on both factors of the weight gradient are copied: else their tiles lie too far apart
CHUNK_TILES = 128  # of a chunk of the weight gradient, at least
MAX_CHUNKS = 8


def gradient(x: np.ndarray, g: np.ndarray, geo: Geometry, phases: list[list[Phase]], out: np.ndarray) -> bool:
    """`weight.gradient` for one group: fill out (kh, kw, C_in, C_out) from x (N, H, W, C_in) and g (N, Ho, Wo, C_out).

    False where that is left to the direct kernel. The rows of tiles are cut into chunks that depend on the shapes only, and
    the sums of the chunks are added in order, so the result is bit for bit the same for any number of threads.
    """
    tables = axis_tables(phases, geo.c_in, geo.c_out, x.dtype, SHARE)
    if tables is None or 0 in (x.size, g.size) or geo.c_in * tables[0].shape[1] * tables[1].shape[1] < WEIGHTS:
        return False
    ys, xs = tables
    taps, terms = int(ys["taps"][0, 0]), (ys.shape[1], xs.shape[1])
    tiles_y, tiles_x = ((size + 1) // 2 for size in geo.output_hw)
    chunks = min(MAX_CHUNKS, geo.batch * tiles_y, max(1, geo.batch * tiles_y * tiles_x // CHUNK_TILES))
    sums = np.empty((chunks, (taps + 1) ** 2, terms[0] * terms[1] * geo.c_in * geo.c_out), x.dtype)
    rows = max(1, UNIT_TILES // tiles_x)
    call = partial(sum_chunks, rows, flat(x), x.shape, ys, xs, flat(g), g.shape, COLUMNS, sums)
    run_units(call, chunks, geo.multiplications)
    back = np.kron(TRANSPOSED_G[taps], TRANSPOSED_G[taps]).astype(x.dtype)  # (taps * taps, points)
    with np.errstate(all="ignore"):
        total = sums.sum(axis=0) if chunks > 1 else sums[0]  # in the order of the chunks
        weights = (back @ total).reshape(taps, taps, *terms, geo.c_in, geo.c_out)
    for q, r in np.ndindex(*terms):
        y, x_ = ys[0, q], xs[0, r]
        out[y["tap"] :: y["tap_step"], x_["tap"] :: x_["tap_step"]] = weights[:, :, q, r]
    return all_finite(out)


@jit(contract=True)
def sum_chunks(rows, x, x_shape, ys, xs, g, g_shape, columns, sums, first_chunk, stop_chunk):
    """sums [chunk][point][term y][term x][input channel][output channel]: a chunk of the rows of tiles each.      x, g: flat"""
    c_in, c_out, taps = x_shape[3], g_shape[3], ys[0, 0].taps
    n, terms_y, terms_x = taps + 1, ys.shape[1], xs.shape[1]
    tiles_y, tiles_x = (g_shape[1] + 1) // 2, (g_shape[2] + 1) // 2
    left, width = row_extent(xs)
    v = np.zeros((rows * terms_y * n * taps, width * c_in), x.dtype)  # [tile row][term y][i][stored row]
    w = np.zeros((rows * n * taps, (2 * tiles_x + 1) * c_out), g.dtype)  # [tile row][i][stored row]
    plain = np.empty(width * c_in, x.dtype)
    v_row, w_row = v.shape[1], w.shape[1]
    zero, one = np.int64(0), np.int64(1)  # for each literal, Numba would compile another version of what it is passed to
    apart = xs[0, 1].start - xs[0, 0].start if terms_x > 1 else 0
    weights = terms_y * terms_x * c_in
    x_at, sum_at = np.empty(weights + ROWS, np.int64), np.empty(weights + ROWS, np.int64)
    packed_at = np.empty(weights + ROWS, np.int64)
    for k in range(weights + ROWS):
        last = min(k, weights - 1)
        term, c = divmod(last, c_in)
        x_at[k] = term // terms_x * n * taps * v_row + term % terms_x * apart * c_in + c
        packed_at[k] = last // ROWS * rows * tiles_x * ROWS + last % ROWS
        sum_at[k] = last * c_out
    packs = weights >= PACKED
    left_factor = np.empty((weights + ROWS) * rows * tiles_x if packs else 0, x.dtype)  # [ROWS channels][tile][channel]
    right_factor = np.empty(rows * tiles_x * columns if packs else 0, g.dtype)  # [tile][column]
    for chunk in range(first_chunk, stop_chunk):
        begin, end = x_shape[0] * tiles_y * chunk // len(sums), x_shape[0] * tiles_y * (chunk + 1) // len(sums)
        for first in range(begin, end, rows):
            count = min(rows, end - first)
            for r in range(count):
                image, tile_y = divmod(first + r, tiles_y)
                for q in range(terms_y):
                    at = (r * terms_y + q) * n * taps
                    start = ys[0, q].start + 2 * tile_y * ys[0, q].step
                    steps = ys[0, q].step, xs[0, 0].step
                    transform_rows(x, x_shape, image, start, steps, left, taps, plain, v[at : at + n * taps])
                transform_outputs(g, g_shape, image, 2 * tile_y, taps, w[r * n * taps : (r + 1) * n * taps])
            extent = (count, one, tiles_x)
            v_step = (terms_y * n * taps * v_row, zero, 2 * xs[0, 0].step * c_in)
            w_step = (n * taps * w_row, zero, 2 * c_out)
            for point in range(n * n):
                i, j = divmod(point, n)
                v_start = (i * taps + ROW[taps - 2, j]) * v_row
                v_start += (xs[0, 0].start - left + SHIFT[taps - 2, j] * xs[0, 0].step) * c_in
                w_start = (i * taps + G_ROW[taps - 2, j]) * w_row + G_SHIFT[taps - 2, j] * c_out
                if packs:
                    pack_channels(v.reshape(-1)[v_start:], v_step, count, tiles_x, x_at, packed_at, weights, left_factor)
                for column in range(0, c_out, columns):
                    if packs:
                        gather(w.reshape(-1), w_start + column, w_step, extent, columns, right_factor)
                        wide_tiles(
                            (one, one, count * tiles_x), left_factor, zero, (zero, zero, zero + ROWS), packed_at, weights,
                            right_factor, zero, (zero, zero, columns), sums[chunk, point], column, sum_at, first > begin,
                        )
                        continue
                    wide_tiles(
                        extent, v.reshape(-1), v_start, v_step, x_at, weights, w.reshape(-1), w_start + column, w_step,
                        sums[chunk, point], column, sum_at, first > begin,
                    )


@jit()
def pack_channels(v, v_step, count, tiles_x, at, packed_at, weights, packed):
    """packed[packed_at[k] + tile * ROWS] = v[at[k]] of each tile."""
    to = 0
    for r in range(count):
        for tile_x in range(tiles_x):
            source, target = v[r * v_step[0] + tile_x * v_step[2] :], packed[to:]
            for k in range(weights):
                target[packed_at[k]] = source[at[k]]
            to += ROWS


@jit()
def transform_outputs(g, g_shape, image, row, taps, w):
    """w [i][stored row]: what each point's product receives from the gradients of one row of tiles, outputs `row` and row + 1.

    Along one axis, with g0 and g1 the gradients of y0 and y1: g0, g0 + g1, g1 for two taps; g0, g0 + g1, g0 - g1, -g1 for
    three, where the minus of the last is left to WEIGHTS_OF_OUTPUTS.
    """
    n, channels = taps + 1, g_shape[3]
    size = w.shape[1] - channels
    for i in range(n):
        sign = (0, 1, 0, 0)[i] if taps == 2 else (0, 1, -1, 0)[i]
        here = w[i * taps]
        add_rows(g, g_shape, image, row + (i == n - 1), row + 1, sign, np.int64(0), here)
        there, added = here[channels:], w[i * taps + 1]
        for k in range(size):
            added[k] = here[k] + there[k]
        if taps == 3:
            difference = w[i * taps + 2]
            for k in range(size):
                difference[k] = here[k] - there[k]
