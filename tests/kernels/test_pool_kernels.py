"""The pooling kernels: the reference against loops over windows, Numba against the reference, and the adjoints."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minigen.autograd.kernels import pool
from minigen.autograd.kernels.pool import cpu, reference

KERNELS = [
    pool.max_pool2d,
    pool.max_pool2d_gradient,
    pool.max_pool2d_tangent,
    pool.avg_pool2d,
    pool.avg_pool2d_adjoint,
    pool.upsample_nearest,
    pool.upsample_nearest_adjoint,
]
IMPLEMENTATIONS = [reference, cpu]


@st.composite
def problems(draw, ties=False):
    """(x, g, v, parameters): an image, arrays like the output and like the input, and (kernel, stride, padding)."""

    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    kernel, stride = pair(1, 4), pair(1, 4)
    padding = draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))
    hw = pair(1, 8)
    assume(all(s + 2 * p >= k for s, p, k in zip(hw, padding, kernel, strict=True)))
    shape = (draw(st.integers(0, 2)), *hw, draw(st.integers(0, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = rng.integers(-1, 2, shape).astype(float) if ties else rng.standard_normal(shape)
    geo = reference.windows("test", shape, kernel, stride, padding)
    return x, rng.standard_normal(geo.output_shape), rng.standard_normal(shape), (kernel, stride, padding)


def each_window(x, kernel, stride, padding):
    """Every window: its position (n, y, z) in the output, and the part of the image that it covers."""
    geo = reference.windows("test", x.shape, kernel, stride, padding)
    for n, y, z in np.ndindex(geo.output_shape[:3]):
        rows, columns = (
            slice(max(0, at * s - p), at * s - p + k)
            for at, s, p, k in zip((y, z), stride, padding, kernel, strict=True)
        )
        yield (n, y, z), (n, rows, columns)


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
@given(problem=problems())
def test_pools_are_what_a_loop_over_windows_gives(kernels, problem):
    x, _, _, parameters = problem
    largest, mean = kernels.max_pool2d(x, *parameters), kernels.avg_pool2d(x, *parameters)
    for at, window in each_window(x, *parameters):
        np.testing.assert_array_equal(largest[at], x[window].max(axis=(0, 1)))
        expected = x[window].sum(axis=(0, 1)) / np.prod(parameters[0])  # padding counts, as zeros
        np.testing.assert_allclose(mean[at], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
@given(problem=problems(ties=True))
def test_ties_share_the_gradient_evenly(kernels, problem):
    x, g, v, parameters = problem
    gradient, tangent = np.zeros_like(x), np.zeros_like(g)
    for at, window in each_window(x, *parameters):
        share = x[window] == x[window].max(axis=(0, 1))
        share = share / share.sum(axis=(0, 1))
        gradient[window] += share * g[at]
        tangent[at] = (share * v[window]).sum(axis=(0, 1))
    np.testing.assert_allclose(kernels.max_pool2d_gradient(x, g, *parameters), gradient, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(kernels.max_pool2d_tangent(x, v, *parameters), tangent, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
@given(problem=problems(ties=True))
def test_adjoint_pairs(kernels, problem):
    x, g, v, parameters = problem
    pairs = [
        (kernels.max_pool2d_tangent(x, v, *parameters), kernels.max_pool2d_gradient(x, g, *parameters)),
        (kernels.avg_pool2d(v, *parameters), kernels.avg_pool2d_adjoint(g, v.shape[1:3], *parameters)),
    ]
    for forward, backward in pairs:
        assert forward.shape == g.shape
        assert backward.shape == v.shape
        assert abs(np.vdot(forward, g) - np.vdot(v, backward)) <= 1e-13 * (1 + np.vdot(abs(forward), abs(g)))
    scale = parameters[1]
    large = np.random.default_rng(0).standard_normal((v.shape[0], v.shape[1] * scale[0], v.shape[2] * scale[1], v.shape[3]))
    forward, backward = kernels.upsample_nearest(v, scale), kernels.upsample_nearest_adjoint(large, scale)
    assert abs(np.vdot(forward, large) - np.vdot(v, backward)) <= 1e-13 * (1 + np.vdot(abs(forward), abs(large)))


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
def test_upsampling_repeats_blocks(kernels):
    x = np.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    expected = [[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4], [3, 3, 3, 4, 4, 4]]
    np.testing.assert_array_equal(kernels.upsample_nearest(x, (2, 3))[0, ..., 0], expected)
    np.testing.assert_array_equal(kernels.upsample_nearest_adjoint(np.ones((1, 4, 6, 1)), (2, 3)), np.full_like(x, 6))


def in_float64(values):
    return [v.astype(np.float64) if isinstance(v, np.ndarray) else v for v in values]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_both_implementations_keep_the_error_budget(kernel, dtype):
    for args, kwargs in kernel.card.cases(np.random.default_rng(1), dtype):
        before = [v.copy() for v in args if isinstance(v, np.ndarray)]
        expected = kernel.implementation("numpy")(*in_float64(args), **kwargs)
        scale = kernel.card.scale(*in_float64(args), **kwargs) if kernel.card.scale else abs(expected)
        for backend in ("numpy", "numba"):
            result = kernel.implementation(backend)(*args, **kwargs)
            assert result.dtype == dtype
            assert result.shape == expected.shape
            assert (abs(result - expected) <= kernel.card.ulp * np.finfo(dtype).eps * scale).all(), (backend, args)
        for array, copy in zip(args, before, strict=False):
            np.testing.assert_array_equal(array, copy)  # inputs are never changed
        assert kernel.card.bytes(*args, **kwargs) == expected.size * before[0].itemsize + sum(a.nbytes for a in before)
        assert kernel.card.flops(*args, **kwargs) >= 0


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_memory_layout_does_not_matter(kernel, backend):
    run = kernel.implementation(backend)
    tolerance = 0 if backend == "numba" else 1e-6  # NumPy's order of summation follows the memory layout
    for args, kwargs in kernel.card.cases(np.random.default_rng(2), np.float32)[3:6]:
        expected = run(*args, **kwargs)
        for layout in (np.asfortranarray, lambda a: a[::-1].copy()[::-1], lambda a: np.repeat(a, 2, -1)[..., ::2]):
            changed = [layout(v) if isinstance(v, np.ndarray) else v for v in args]
            np.testing.assert_allclose(run(*changed, **kwargs), expected, rtol=0, atol=tolerance)
        out = np.full_like(expected, np.nan)
        assert run(*args, **kwargs, out=out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
def test_nan_and_infinity(kernels):
    """NaN counts as larger than any number and takes the window's gradient; a window of -inf is a tie like any other."""
    x = np.zeros((1, 2, 6, 1))
    x[0, :, :, 0] = [[1, np.nan, -np.inf, -np.inf, 5, np.inf], [2, np.nan, -np.inf, -np.inf, 7, 7]]
    parameters = (2, 2), (2, 2), (0, 0)
    np.testing.assert_array_equal(kernels.max_pool2d(x, *parameters)[0, 0, :, 0], [np.nan, -np.inf, np.inf])
    gradient = kernels.max_pool2d_gradient(x, np.full((1, 1, 3, 1), 4.0), *parameters)
    np.testing.assert_array_equal(gradient[0, ..., 0], [[0, 2, 1, 1, 0, 4], [0, 2, 1, 1, 0, 0]])
    np.testing.assert_array_equal(kernels.avg_pool2d(x, *parameters)[0, 0, :, 0], [np.nan, -np.inf, np.inf])
    edge = kernels.max_pool2d(np.full((1, 1, 1, 1), -np.inf), (2, 2), (1, 1), (1, 1))
    np.testing.assert_array_equal(edge, np.full((1, 2, 2, 1), -np.inf))
    alone = kernels.max_pool2d_gradient(np.full((1, 1, 1, 1), -np.inf), np.ones((1, 2, 2, 1)), (2, 2), (1, 1), (1, 1))
    np.testing.assert_array_equal(alone, [[[[4]]]])  # padding takes no share
    g = np.array([np.nan, np.inf, 1.0]).reshape(1, 1, 3, 1)
    small = kernels.upsample_nearest_adjoint(kernels.upsample_nearest(g, (2, 2)), (2, 2))
    np.testing.assert_array_equal(small[0, 0, :, 0], [np.nan, np.inf, 4])
    routed = kernels.max_pool2d_gradient(np.zeros((1, 2, 6, 1)), g, *parameters)
    np.testing.assert_array_equal(routed[0, 0, :, 0], [np.nan, np.nan, np.inf, np.inf, 0.25, 0.25])


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
def test_errors_say_what_does_not_fit(kernels):
    x = np.zeros((1, 4, 5, 2))
    with pytest.raises(ValueError, match=r"max_pool2d: a kernel of size 5 .* does not fit into 4 pixels"):
        kernels.max_pool2d(x, (5, 2), (1, 1), (0, 0))
    with pytest.raises(ValueError, match=r"avg_pool2d: padding \(0, 2\) is more than half of the kernel \(2, 3\)"):
        kernels.avg_pool2d(x, (2, 3), (1, 1), (0, 2))
    with pytest.raises(ValueError, match=r"max_pool2d_gradient: g must have shape \(1, 2, 2, 2\), got \(1, 2, 3, 2\)"):
        kernels.max_pool2d_gradient(x, np.zeros((1, 2, 3, 2)), (2, 2), (2, 2), (0, 0))
    with pytest.raises(TypeError, match="max_pool2d_tangent: v is float32, the other arrays are float64"):
        kernels.max_pool2d_tangent(x, x.astype(np.float32), (2, 2), (2, 2), (0, 0))
    with pytest.raises(ValueError, match=r"avg_pool2d_adjoint: g must have shape \(1, 2, 2, 2\)"):
        kernels.avg_pool2d_adjoint(x, (4, 5), (2, 2), (2, 2), (0, 0))
    with pytest.raises(ValueError, match=r"upsample_nearest: scale must be two integers >= 1, got \(0, 2\)"):
        kernels.upsample_nearest(x, (0, 2))
    with pytest.raises(ValueError, match=r"upsample_nearest: images must have shape \(N, H, W, C\), got \(4, 5, 2\)"):
        kernels.upsample_nearest(x[0], (2, 2))
    with pytest.raises(ValueError, match=r"an image of \(4, 5\) pixels is not made of whole blocks of \(2, 2\)"):
        kernels.upsample_nearest_adjoint(x, (2, 2))
    with pytest.raises(ValueError, match=r"max_pool2d: stride must be two integers >= 1"):
        kernels.max_pool2d(x, (2, 2), (0, 1), (0, 0))
