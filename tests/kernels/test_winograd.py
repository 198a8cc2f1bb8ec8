"""Winograd's algorithm against the reference: the same sums, the same support, and numbers that are not finite left to others.

Start at `test_the_three_kernels_are_the_convolution`.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minigen.autograd.kernels.conv import conv2d, cpu, geometry, reference, winograd, winograd_weight

EPS = np.finfo(np.float32).eps
CHANNELS = winograd.COLUMNS


@st.composite
def problems(draw):
    """(x, w, g, geometry) in float32 of any size and padding: one term an axis, two, and more, as strides above 2 have."""
    size, stride = draw(st.sampled_from([(3, 1), (4, 2), (6, 3), (9, 3), (8, 4)]))
    hw, padding = ((draw(st.integers(low, high)), draw(st.integers(low, high))) for low, high in ((1, 25), (0, 3)))
    assume(all(h + 2 * p >= size for h, p in zip(hw, padding, strict=True)))
    batch, c_in, c_out = (draw(st.integers(1, high)) for high in (5, 2, 2))
    parameters = (stride, stride), padding, (1, 1), 1
    shapes = (batch, *hw, c_in * CHANNELS), (size, size, c_in * CHANNELS, c_out * CHANNELS)
    geo = geometry.check("test", *shapes, *parameters)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x, w, g = (rng.standard_normal(shape).astype(np.float32) for shape in (*shapes, geo.output_shape))
    return x, w, g, geo


@pytest.fixture(autouse=True)
def whatever_pays(monkeypatch):
    """Small images, odd sizes and few weights too, where a direct kernel would be faster."""
    monkeypatch.setattr(winograd, "SHARE", np.inf)
    monkeypatch.setattr(winograd, "SMALLEST", 0)
    monkeypatch.setattr(winograd_weight, "SHARE", np.inf)
    monkeypatch.setattr(winograd_weight, "WEIGHTS", 0)


def by_winograd(x, w, g, geo):
    """The results of the three kernels, None where the algorithm does not fit."""
    kernel, c_in, c_out = geo.kernel_hw[1], geo.c_in, geo.c_out
    forward = [geometry.forward_phases(*axis) for axis in cpu.axes(geo, geo.output_hw)]
    adjoint = [geometry.adjoint_phases(*axis) for axis in cpu.axes(geo, geo.input_hw)]
    y, gx, gw = (np.full(shape, np.nan, np.float32) for shape in (geo.output_shape, geo.input_shape, geo.weight_shape))
    done = (
        winograd.convolve(x, w, (0, kernel * c_in * c_out, c_in * c_out, c_out, 1), forward, y),
        winograd.convolve(g, w, (0, kernel * c_in * c_out, c_in * c_out, 1, c_out), adjoint, gx),
        winograd_weight.gradient(x, g, geo, forward, gw),
    )
    return [result if d else None for result, d in zip((y, gx, gw), done, strict=True)]


def by_definition(x, w, g, geo):
    parameters = geo.stride, geo.padding, geo.dilation, geo.groups
    x, w, g = (a.astype(np.float64) for a in (x, w, g))
    return [
        reference.conv2d(x, w, *parameters),
        reference.conv2d_input(g, w, geo.input_hw, *parameters),
        reference.conv2d_weight(x, g, geo.kernel_hw, *parameters),
    ]


def around(a, taps):
    """The largest magnitude within `taps` pixels, at each pixel of a (N, H, W, C)."""
    padded = np.pad(abs(a), ((0, 0), (taps, taps), (taps, taps), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * taps + 1, 2 * taps + 1), axis=(1, 2))
    return windows.max(axis=(-1, -2))


@settings(max_examples=40)
@given(problems())
def test_the_three_kernels_are_the_convolution(problem):
    """Within 8 units of rounding of the sum of magnitudes, taken over the tile: of pixels nearby, and of all taps."""
    x, w, g, geo = problem
    largest = np.broadcast_to(abs(w).max(axis=(0, 1)), w.shape)
    scales = by_definition(around(x, 2 * w.shape[0]), largest, around(g, 4), geo)
    scales[2] = scales[2].max(axis=(0, 1))  # a tap that meets only padding has a part in the sums of others
    for result, expected, scale in zip(by_winograd(*problem), by_definition(*problem), scales, strict=True):
        if result is None:  # an axis so short that a residue of the stride has no tap, or another number of them
            assert min(geo.input_hw) < 3 or geo.stride != (1, 1)
            continue
        assert (abs(result - expected) <= 8 * EPS * scale).all()


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (4, 2, 1)])
def test_it_is_what_runs(size, stride, padding, monkeypatch):
    """The kernels of the package take it for the shapes it is meant for, and not for float64."""
    ran = []
    monkeypatch.setattr(winograd, "convolve_units", lambda *args: ran.append("convolve"))
    monkeypatch.setattr(winograd_weight, "sum_chunks", lambda *args: ran.append("weight"))
    for dtype in (np.float32, np.float64):
        x, w = np.ones((2, 8, 8, CHANNELS), dtype), np.ones((size, size, CHANNELS, CHANNELS), dtype)
        parameters = (stride, stride), (padding, padding), (1, 1), 1
        g = np.ones((2, 8 // stride, 8 // stride, CHANNELS), dtype)
        cpu.conv2d(x, w, *parameters)
        cpu.conv2d_input(g, w, (8, 8), *parameters)
        cpu.conv2d_weight(x, g, (size, size), *parameters)
    assert ran == ["convolve", "convolve", "weight"]


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (4, 2)])
def test_what_is_not_seen_has_no_influence(size, stride):
    """Not even that of a rounding error: a huge pixel changes no bit of an output that does not see it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 8, 8, CHANNELS)).astype(np.float32)
    w = rng.standard_normal((size, size, CHANNELS, CHANNELS)).astype(np.float32)
    parameters = (stride, stride), (1, 1), (1, 1), 1
    before = conv2d.implementation("numba")(x, w, *parameters)
    for row, column in np.ndindex(8, 8):
        changed = x.copy()
        changed[0, row, column] = 1e30
        seen = reference.conv2d((changed != x).astype(float), np.ones(w.shape), *parameters) != 0
        after = conv2d.implementation("numba")(changed, w, *parameters)
        np.testing.assert_array_equal(after[~seen], before[~seen])
        assert (after[seen] != before[seen]).all()


@pytest.mark.parametrize("masked", [np.s_[2], np.s_[:, 2], np.s_[1, 2], np.s_[0, 0]])
def test_what_is_behind_a_mask_has_no_influence(masked):
    """Forward and backward, for masks of any taps: a causal network must be causal to the last bit."""
    rng = np.random.default_rng(2)
    x, g = (rng.standard_normal((1, 8, 8, CHANNELS)).astype(np.float32) for _ in range(2))
    w = rng.standard_normal((3, 3, CHANNELS, CHANNELS)).astype(np.float32)
    w[masked] = 0
    parameters = (1, 1), (1, 1), (1, 1), 1
    changed = np.zeros((1, 8, 8, 1))
    changed[0, 3, 4] = 1
    by_tap = w.any(axis=(2, 3), keepdims=True).astype(float)
    seen = np.broadcast_to(reference.conv2d(changed, by_tap, *parameters) != 0, x.shape)
    before, after = (cpu.conv2d(x + 1e4 * c, w, *parameters) for c in (0, changed.astype(np.float32)))
    np.testing.assert_array_equal(after[~seen], before[~seen])
    assert (after[seen] != before[seen]).all()
    seen = np.broadcast_to(reference.conv2d_input(changed, by_tap, (8, 8), *parameters) != 0, x.shape)
    before, after = (cpu.conv2d_input(g + 1e4 * c, w, (8, 8), *parameters) for c in (0, changed.astype(np.float32)))
    np.testing.assert_array_equal(after[~seen], before[~seen])
    assert (after[seen] != before[seen]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_numbers_that_are_not_finite_are_left_to_the_direct_kernels(bad, where):
    """And sums that are not: twice 3e38 overflows in a sum of pixels, but not in the definition."""
    rng = np.random.default_rng(1)
    geo = geometry.check("test", (2, 8, 8, CHANNELS), (3, 3, CHANNELS, CHANNELS), (1, 1), (1, 1), (1, 1), 1)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in (geo.input_shape, geo.weight_shape, geo.output_shape)]
    assert all(result is not None for result in by_winograd(*arrays, geo))
    arrays[where][...] = np.sign(arrays[where]) * bad if bad == 3e38 else arrays[where]
    arrays[where].flat[5] = bad
    results = by_winograd(*arrays, geo)
    used = {0: (0, 2), 1: (0, 1), 2: (1, 2)}[where]
    assert [results[k] is None for k in range(3)] == [k in used for k in range(3)]


@given(
    st.integers(1, 12), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3), st.integers(0, 2**32)
)
def test_phases_by_residue_are_the_same_sums(output, kernel, stride, padding, dilation, seed):
    rng = np.random.default_rng(seed)
    (phase,) = geometry.forward_phases(output, kernel, stride, padding, dilation)
    parts = geometry.by_residue(phase)
    if stride % dilation:
        assert parts == []
        return
    assert all(part.gap == stride for part in parts)
    assert {part.tap + t * part.tap_step for part in parts for t in range(part.taps)} == set(range(kernel))
    source, weights = rng.standard_normal(200), rng.standard_normal(kernel)

    def value(phases, m):
        taps = [(p.start + m * p.step + t * p.gap, p.tap + t * p.tap_step) for p in phases for t in range(p.taps)]
        return sum(source[100 + pixel] * weights[tap] for pixel, tap in taps)

    for m in range(output):
        assert value(parts, m) == pytest.approx(value([phase], m), abs=1e-12)
