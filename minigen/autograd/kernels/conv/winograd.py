"""Winograd's minimal filtering: the same convolution with 1.8 or 2.25 times fewer multiplications. Start at `convolve`.

Two neighbouring outputs of a filter with two taps take four multiplications, or three. With d the pixels, g the weights, y
the two outputs, and m the products:

    r = 2 taps      m0 = (d0 - d1)  g0                      y0 = m0 + m1          stored as:  [D1, 0]
                    m1 =  d1       (g0 + g1)                y1 = m1 + m2                      [d,  1]
                    m2 = (d1 - d2) (-g1)                                                      [D1, 1]

    r = 3 taps      m0 = (d0 - d2)  g0                      y0 = m0 + m1 + m2                 [D2, 0]
                    m1 = (d1 + d2) (g0 + g1 + g2) / 2       y1 = m1 - m2 - m3                 [S1, 1]
                    m2 = (d2 - d1) (g0 - g1 + g2) / 2                                         [B1, 1]
                    m3 = (d1 - d3)  g2                                                        [D2, 1]

In an image the trick works along both axes: 2 x 2 outputs of a 2 x 2 kernel take 9 products instead of 16, those of a 3 x 3
kernel 16 instead of 36. The sums of pixels do not depend on the target channel, nor those of weights on the pixel. So what is
left for each of the 9 or 16 pairs (i, j), called points, is a matrix product over the source channels, and `wide_tiles` does
it.

No sum of pixels is copied for the sake of a point. A row D1[x] = d[x] - d[x + 1], for all x at once, holds both d0 - d1 of a
tile (from its pixel 0) and d1 - d2 (from its pixel 1), and the micro-kernel reads it with a stride of two pixels from either:
the last column tells which row and where. (D2[x] = d[x] - d[x + 2], S1[x] = d[x] + d[x + 1], B1[x] = d[x + 1] - d[x].)

A 4 x 4 kernel of stride 2 is four 2 x 2 kernels of stride 1: its forward pass adds up four of them, over the pixels of even and
odd rows and columns (`geometry.by_residue`); in its input gradient each computes a fourth of the pixels. A list of `Phase`s
says which, as for the direct kernels. The weight gradient is in winograd_weight.py.

A pixel that an output does not see has no influence on it, as in the definition: no term of y0 contains the last d. Errors are
some 1e-7 of the sum of magnitudes in the tile, where the direct kernels have them of the output's own; float64 is left to
those.

Source: Winograd 1980, Arithmetic complexity of computations; Lavin & Gray 2016, arXiv 1509.09308, section 4.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..jit import jit
from ..tile import ROWS, VECTOR_BYTES, wide_tiles
from .direct import all_finite, flat, run_units, transpose
from .geometry import Phase, by_residue

ROW = np.array([[1, 0, 1, 0], [0, 1, 2, 0]])  # [r - 2, i]: which of the rows [d, D1] or [D2, S1, B1] holds a point's sums
SHIFT = np.array([[0, 1, 1, 0], [0, 1, 1, 1]])  # and from which pixel of the tile on

COLUMNS = 2 * VECTOR_BYTES // 4  # target channels of a panel
UNIT_TILES = 48  # tiles of 2 x 2 outputs of one unit of work, about: what it keeps, 9 or 16 sums of each, stays in the cache
# Where it is faster than the direct kernels, as measured:
CHANNELS = 16  # source channels, at least
SMALLEST = 1 << 20  # multiplications of the direct kernel for an image: of fewer, a short run ends before this is compiled
SHARE = 0.6  # of the direct kernel's multiplications, at most

AXIS = np.dtype([(name, np.int64) for name in Phase._fields])


def axis_table(phases: list[Phase]) -> np.ndarray | None:
    """The phases of one axis, (phases, terms) AXIS, each a sum of terms with `taps` = 2 or 3; None where that cannot be."""
    terms = [by_residue(phase) for phase in phases]
    kinds = {(term.taps, term.step) for phase in terms for term in phase}
    if len(kinds) != 1 or kinds.pop()[0] not in (2, 3) or any(len(phase) != len(terms[0]) for phase in terms):
        return None
    return np.array(terms, AXIS)


def axis_tables(
    phases: list[list[Phase]], source_channels: int, target_channels: int, dtype: np.dtype, share: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """The tables of both axes if Winograd's algorithm fits this convolution of one group and pays, else None.

    share: of the direct kernel's multiplications, how many it may take at most. (At the lower and right edge of an odd size,
    a part of the last tiles is thrown away.)

    The two axes may not differ: kernels like 2 x 3, with a mask in their last row, are those of autoregressive models, where
    a masked tap must not have the influence of a rounding error, and here g2 = 0 does not keep d2 out of y0.
    """
    if dtype != np.float32 or source_channels < CHANNELS or target_channels == 0 or target_channels % COLUMNS:
        return None
    ys, xs = (axis_table(axis) for axis in phases)
    if ys is None or xs is None or ys["taps"][0, 0] != xs["taps"][0, 0]:
        return None
    (before_y, after_y), (before_x, after_x) = products(ys), products(xs)
    if before_y * before_x * source_channels * target_channels < SMALLEST or after_y * after_x > share * before_y * before_x:
        return None
    return ys, xs


def products(axis: np.ndarray) -> tuple[int, int]:
    """How many there are along one axis: of the direct kernel, and of this one."""
    outputs, taps = axis["pixels"], axis["taps"]
    return int((outputs * taps).sum()), int(((outputs + 1) // 2 * (taps + 1)).sum())


def has_masked_taps(w: np.ndarray) -> bool:
    """Whether a tap is zero for all channels: pixels behind a mask must not have the influence of even a rounding error.

    Here they would: of three taps, g2 = 0 does not keep d2 out of y0. So such kernels are left to the direct kernels.
    """
    return any(not w[tap][0].any() and not w[tap].any() for tap in np.ndindex(w.shape[:2]))


def convolve(
    src: np.ndarray, w: np.ndarray, w_steps: tuple[int, int, int, int, int], phases: list[list[Phase]], dst: np.ndarray
) -> bool:
    """`direct.convolve` for one group: fill dst (N, H', W', C') from src (N, H, W, C). False where that is left to it.

    So it is for numbers that are not finite, or sums that are not: an infinity spreads further here than in the definition.
    """
    tables = axis_tables(phases, src.shape[3], dst.shape[3], src.dtype, SHARE)
    if tables is None or 0 in (src.size, dst.size) or has_masked_taps(w):
        return False
    ys, xs = tables
    columns = COLUMNS
    points = (ys["taps"][0, 0] + 1) * (xs["taps"][0, 0] + 1)
    panels = dst.shape[3] // columns
    u = np.empty((ys.shape[0] * xs.shape[0], points * panels, ys.shape[1] * xs.shape[1] * src.shape[3] * columns), src.dtype)
    transform_weights(flat(w), w_steps[1:], ys, xs, src.shape[3], columns, u)
    tiles_y, tiles_x = (int(table["pixels"].max() + 1) // 2 for table in (ys, xs))
    tile_rows = len(src) * tiles_y
    rows = max(1, UNIT_TILES // tiles_x)
    units = -(-tile_rows // rows)
    call = partial(convolve_units, rows, flat(src), src.shape, ys, xs, u, columns, flat(dst), dst.shape)
    run_units(call, units, src.size * u[0].size)
    return all_finite(dst)


@jit(contract=True)
def convolve_units(rows, src, src_shape, ys, xs, u, columns, dst, dst_shape, first_unit, stop_unit):
    """Units of `rows` rows of tiles.      src, dst: flat      u: (phases, points * panels, terms * C * columns)"""
    c_src, c_dst, taps = src_shape[3], dst_shape[3], ys[0, 0].taps
    n, panels = taps + 1, c_dst // columns
    tiles_x = 0
    for px in range(len(xs)):
        tiles_x = max(tiles_x, (xs[px, 0].pixels + 1) // 2)
    left, width = row_extent(xs)
    v = np.zeros((rows * ys.shape[1] * n * taps, width * c_src), src.dtype)  # [tile row][term y][i][stored row]
    m = np.empty((n * n, rows * tiles_x * c_dst), dst.dtype)
    plain = np.empty(width * c_src, src.dtype)
    source_at = np.empty(rows * tiles_x + ROWS, np.int64)
    target_at = np.empty(rows * tiles_x + ROWS, np.int64)
    v_row = v.shape[1]
    for unit in range(first_unit, stop_unit):
        for py in range(len(ys)):
            tiles_y = (ys[py, 0].pixels + 1) // 2
            first = unit * rows
            count = min(rows, src_shape[0] * tiles_y - first)
            if count <= 0:
                continue
            for r in range(count):
                image, tile_y = divmod(first + r, tiles_y)
                for q in range(ys.shape[1]):
                    at = (r * ys.shape[1] + q) * n * taps
                    start = ys[py, q].start + 2 * tile_y * ys[py, q].step
                    steps = ys[py, q].step, xs[0, 0].step
                    transform_rows(src, src_shape, image, start, steps, left, taps, plain, v[at : at + n * taps])
            for px in range(len(xs)):
                across = (xs[px, 0].pixels + 1) // 2
                number = count * across
                for t in range(number + ROWS - 1):
                    tile = min(t, number - 1)
                    r, tile_x = divmod(tile, across)
                    pixel = xs[px, 0].start + 2 * tile_x * xs[px, 0].step - left
                    source_at[t] = r * ys.shape[1] * n * taps * v_row + pixel * c_src
                    target_at[t] = tile * c_dst
                apart = xs[px, 1].start - xs[px, 0].start if xs.shape[1] > 1 else 0
                extent = (ys.shape[1], xs.shape[1], c_src)
                v_step = (n * taps * v_row, apart * c_src, np.int64(1))
                u_step = (xs.shape[1] * c_src * columns, c_src * columns, columns)
                weights = u[py * len(xs) + px].reshape(-1)
                for point in range(n * n):
                    i, j = divmod(point, n)
                    v_start = (i * taps + ROW[taps - 2, j]) * v_row + SHIFT[taps - 2, j] * xs[0, 0].step * c_src
                    for panel in range(panels):
                        u_start = (point * panels + panel) * u.shape[2]
                        wide_tiles(
                            extent, v.reshape(-1), v_start, v_step, source_at, number, weights, u_start, u_step,
                            m[point], panel * columns, target_at, np.bool_(False),
                        )
                add_up(m, taps, number * c_dst)
                store(m, taps, first, count, tiles_y, across, ys[py, 0], xs[px, 0], dst, dst_shape)


@jit(inline=True)
def row_extent(xs):
    """The first pixel that the tiles of a row read, and how many: for all phases, terms and tiles; a last one for odd sizes."""
    left, right = xs[0, 0].start, xs[0, 0].start
    for px in range(xs.shape[0]):
        for q in range(xs.shape[1]):
            x = xs[px, q]
            left = min(left, x.start)
            right = max(right, x.start + ((x.pixels + 1) // 2 * 2 + x.taps - 2) * x.step)
    return left, right + 1 - left


@jit()
def transform_rows(src, src_shape, image, start, steps, left, taps, plain, v):
    """v [i][stored row]: the sums of pixels along both axes for one row of tiles, whose first source row is `start`.

    plain: room for a row of sums along y. Two taps need it among the stored rows, three only what is made of it.
    """
    for i in range(taps + 1):
        rows = v[i * taps : (i + 1) * taps]
        sums = rows[0] if taps == 2 else plain
        if taps == 2:
            a, b, sign = ((0, 1, -1), (1, 1, 0), (1, 2, -1), (0, 0, 0))[i]
        else:
            a, b, sign = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (1, 3, -1))[i]
        add_rows(src, src_shape, image, start + a * steps[0], start + b * steps[0], sign, left, sums)
        transform_columns(sums, steps[1] * src_shape[3], taps, rows)


@jit()
def add_rows(src, src_shape, image, a, b, sign, left, out):
    """out = row a + sign * row b of an image, from column `left` on; zeros where there is no image."""
    height, width, channels = src_shape[1], src_shape[2], src_shape[3]
    low, high = max(left, 0), max(left, 0, min(left + len(out) // channels, width))
    for k in range((low - left) * channels):
        out[k] = 0
    after = out[(high - left) * channels :]
    for k in range(len(after)):
        after[k] = 0
    size = (high - low) * channels
    inner = out[(low - left) * channels :][:size]
    has_a, has_b = 0 <= a < height, sign != 0 and 0 <= b < height
    row_a = src[((image * height + (a if has_a else 0)) * width + low) * channels :][:size]
    row_b = src[((image * height + (b if has_b else 0)) * width + low) * channels :][:size]
    if has_a and has_b and sign > 0:
        for k in range(size):
            inner[k] = row_a[k] + row_b[k]
    elif has_a and has_b:
        for k in range(size):
            inner[k] = row_a[k] - row_b[k]
    elif has_a or (has_b and sign > 0):
        row = row_a if has_a else row_b
        for k in range(size):
            inner[k] = row[k]
    elif has_b:
        for k in range(size):
            inner[k] = -row_b[k]
    else:
        for k in range(size):
            inner[k] = 0


@jit()
def transform_columns(plain, step, taps, rows):
    """The stored rows, for all x at once: [d, D1] for two taps, where d is there already, [D2, S1, B1] for three."""
    size = len(plain) - step
    here, there = plain[:size], plain[step:]
    if taps == 2:
        difference = rows[1][:size]
        for k in range(size):
            difference[k] = here[k] - there[k]
    else:
        far, second, added, difference = plain[2 * step :], rows[0], rows[1], rows[2]
        for k in range(size - step):
            second[k] = here[k] - far[k]
        for k in range(size):
            added[k] = here[k] + there[k]
        for k in range(size):
            difference[k] = there[k] - here[k]


@jit()
def add_up(m, taps, size):
    """From products to outputs, along both axes and in place: output (a, b) of all tiles is in m[a * (taps + 1) + b]."""
    n = taps + 1
    for j in range(n):
        add_products(m[j][:size], m[n + j][:size], m[2 * n + j][:size], m[(n - 1) * n + j][:size], taps)
    for a in range(2):
        r = a * n
        add_products(m[r][:size], m[r + 1][:size], m[r + 2][:size], m[r + n - 1][:size], taps)


@jit()
def add_products(m0, m1, m2, m3, taps):
    """m0 becomes y0, m1 becomes y1."""
    if taps == 2:
        for k in range(len(m0)):
            m0[k] += m1[k]
            m1[k] += m2[k]
    else:
        for k in range(len(m0)):
            m0[k] += m1[k] + m2[k]
            m1[k] -= m2[k] + m3[k]


@jit()
def store(m, taps, first, count, tiles_y, across, y, x, dst, dst_shape):
    """Outputs of rows first, first + 1, ... of tiles to the pixels of dst that the phases y and x name."""
    _, height, width, channels = dst_shape
    for r in range(count):
        image, tile_y = divmod(first + r, tiles_y)
        for a in range(min(2, y.pixels - 2 * tile_y)):
            row = image * height + y.to + (2 * tile_y + a) * y.to_step
            for b in range(2):
                outputs = m[a * (taps + 1) + b]
                for tile_x in range((x.pixels + 1 - b) // 2):
                    source = outputs[(r * across + tile_x) * channels :][:channels]
                    target = dst[(row * width + x.to + (2 * tile_x + b) * x.to_step) * channels :][:channels]
                    for c in range(channels):
                        target[c] = source[c]


@jit()
def transform_weights(w, w_steps, ys, xs, c_src, columns, u):
    """u [phase][point][panel][term y][term x][source channel][column] from weights with any steps."""
    step_i, step_j, step_src, step_dst = w_steps
    taps, size = ys[0, 0].taps, c_src * columns
    n, terms = taps + 1, ys.shape[1] * xs.shape[1]
    panels = u.shape[1] // (n * n)
    plain = np.empty((taps * taps, size), w.dtype)
    half = np.empty((n * taps, size), w.dtype)
    for phase in range(len(u)):
        for panel in range(panels):
            for term in range(terms):
                y, x = ys[phase // len(xs), term // xs.shape[1]], xs[phase % len(xs), term % xs.shape[1]]
                for a in range(taps):
                    for b in range(taps):
                        tap = (y.tap + a * y.tap_step) * step_i + (x.tap + b * x.tap_step) * step_j
                        start = tap + panel * columns * step_dst
                        transpose(w[start:], step_src, step_dst, c_src, columns, columns, plain[a * taps + b])
                for i in range(n):
                    for b in range(taps):
                        add_weights(i, plain[b], plain[taps + b], plain[(taps - 1) * taps + b], taps, half[i * taps + b])
                    for j in range(n):
                        out = u[phase, (i * n + j) * panels + panel][term * size : (term + 1) * size]
                        add_weights(j, half[i * taps], half[i * taps + 1], half[i * taps + taps - 1], taps, out)


@jit()
def add_weights(i, g0, g1, g2, taps, out):
    """The i-th sum of weights. (Of two taps, g2 is g1.)"""
    if i == 0:
        for k in range(len(out)):
            out[k] = g0[k]
    elif taps == 2 and i == 1:
        for k in range(len(out)):
            out[k] = g0[k] + g1[k]
    elif taps == 2:
        for k in range(len(out)):
            out[k] = -g1[k]
    elif i == 1:
        for k in range(len(out)):
            out[k] = (g0[k] + g1[k] + g2[k]) / 2
    elif i == 2:
        for k in range(len(out)):
            out[k] = (g0[k] - g1[k] + g2[k]) / 2
    else:
        for k in range(len(out)):
            out[k] = g2[k]
