"""The convolution kernels: the reference against a seven-loop oracle, Numba against the reference, and the adjoints.

Start at `test_reference_is_the_definition`, then `test_the_three_kernels_are_adjoint`.
"""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import scipy.signal
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minigen.autograd.kernels import conv
from minigen.autograd.kernels.conv import cpu, few, geometry, reference
from minigen.autograd.kernels.tile import vector_registers

KERNELS = [conv.conv2d, conv.conv2d_input, conv.conv2d_weight]
IMPLEMENTATIONS = [reference, cpu]


def naive_conv2d(x, w, stride, padding, dilation, groups):
    """The sum of products, one number at a time; a pixel outside the image is no term of the sum."""
    geo = geometry.check("naive", x.shape, w.shape, stride, padding, dilation, groups)
    out = np.zeros(geo.output_shape)
    c_in, c_out = geo.c_in // groups, geo.c_out // groups
    for n, y, z, o in np.ndindex(out.shape):
        for i, j, c in np.ndindex(w.shape[:3]):
            row = y * stride[0] + i * dilation[0] - padding[0]
            column = z * stride[1] + j * dilation[1] - padding[1]
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                out[n, y, z, o] += x[n, row, column, o // c_out * c_in + c] * w[i, j, c, o]
    return out


@st.composite
def problems(draw, max_channels=3):
    """(x, w, g, parameters) in float64 for geometries that fit: every stride, padding, dilation and grouping mixed."""

    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    groups = draw(st.integers(1, 3))
    c_in, c_out = (groups * c for c in (draw(st.integers(1, max_channels)), draw(st.integers(1, max_channels))))
    batch, hw, kernel = draw(st.integers(0, 3)), pair(1, 8), pair(1, 4)
    parameters = pair(1, 3), pair(0, 3), pair(1, 3), groups
    assume(all(s + 2 * p > d * (k - 1) for s, k, p, d in zip(hw, kernel, parameters[1], parameters[2], strict=True)))
    geo = geometry.check("test", (batch, *hw, c_in), (*kernel, c_in // groups, c_out), *parameters)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x, w, g = (rng.standard_normal(shape) for shape in (geo.input_shape, geo.weight_shape, geo.output_shape))
    return x, w, g, parameters


@settings(max_examples=30)
@given(problems(max_channels=2))
def test_reference_is_the_definition(problem):
    x, w, _, parameters = problem
    np.testing.assert_allclose(
        reference.conv2d(x, w, *parameters), naive_conv2d(x, w, *parameters), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
def test_conv2d_is_scipys_correlate(kernels):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 9, 8, 3)), rng.standard_normal((4, 3, 3, 5))
    for padding in ((0, 0), (1, 2)):
        padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
        expected = [[scipy.signal.correlate(image, w[..., o], "valid")[..., 0] for o in range(5)] for image in padded]
        result = kernels.conv2d(x, w, (1, 1), padding, (1, 1), 1)
        np.testing.assert_allclose(result, np.moveaxis(expected, 1, 3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
@given(problem=problems(max_channels=5))
def test_the_three_kernels_are_adjoint(kernels, problem):
    x, w, g, parameters = problem
    y = kernels.conv2d(x, w, *parameters)
    value = np.vdot(y, g)
    magnitude = np.vdot(reference.conv2d(abs(x), abs(w), *parameters), abs(g))
    gx = kernels.conv2d_input(g, w, x.shape[1:3], *parameters)
    gw = kernels.conv2d_weight(x, g, w.shape[:2], *parameters)
    assert gx.shape == x.shape
    assert gw.shape == w.shape
    assert abs(np.vdot(x, gx) - value) <= 1e-14 * magnitude
    assert abs(np.vdot(w, gw) - value) <= 1e-14 * magnitude


def in_float64(values):
    return [v.astype(np.float64) if isinstance(v, np.ndarray) else v for v in values]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_numba_keeps_the_error_budget(kernel, dtype):
    fast, exact = kernel.implementation("numba"), kernel.implementation("numpy")
    for args, kwargs in kernel.card.cases(np.random.default_rng(1), dtype):
        before = [v.copy() for v in args if isinstance(v, np.ndarray)]
        result, expected = fast(*args, **kwargs), exact(*in_float64(args), **kwargs)
        assert result.dtype == dtype
        assert result.shape == expected.shape
        budget = kernel.card.ulp * np.finfo(dtype).eps * kernel.card.scale(*in_float64(args), **kwargs)
        assert (abs(result - expected) <= budget).all(), (args[0].shape, args[1].shape, *args[2:])
        for array, copy in zip(args, before, strict=False):
            np.testing.assert_array_equal(array, copy)  # inputs are never changed


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_reference_stays_in_float32(kernel):
    for args, kwargs in kernel.card.cases(np.random.default_rng(2), np.float32):
        result = kernel.implementation("numpy")(*args, **kwargs)
        assert result.dtype == np.float32
        budget = kernel.card.ulp * np.finfo(np.float32).eps * kernel.card.scale(*in_float64(args), **kwargs)
        assert (abs(result - kernel.implementation("numpy")(*in_float64(args), **kwargs)) <= budget).all()


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_memory_layout_does_not_matter(kernel, backend):
    run = kernel.implementation(backend)
    tolerance = 0 if backend == "numba" else 1e-13  # BLAS adds in another order for a transposed matrix
    for args, kwargs in kernel.card.cases(np.random.default_rng(3), np.float64)[4:12]:
        expected = run(*args, **kwargs)
        for layout in (np.asfortranarray, reversed_twice, every_second, read_only):
            a, b, *rest = args
            result = run(layout(a), layout(b), *rest, **kwargs)
            np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)
        out = np.full_like(expected, np.nan)
        assert run(*args, **kwargs, out=out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_nothing_outside_the_arrays_is_touched(kernel):
    """Arrays that lie between NaN, and a result between guards, in one block of memory."""
    for args, kwargs in kernel.card.cases(np.random.default_rng(8), np.float32):
        expected = kernel.implementation("numba")(*args, **kwargs)
        left, right = (between(np.nan, a)[1] for a in args[:2])
        block, out = between(7, np.zeros_like(expected))
        kernel.implementation("numba")(left, right, *args[2:], **kwargs, out=out)
        np.testing.assert_array_equal(out, expected)
        assert (block[:GUARD] == 7).all()
        assert (block[-GUARD:] == 7).all()


GUARD = 64


def between(guard, array):
    """A block of memory, and a copy of the array in its middle, between guards."""
    block = np.full(array.size + 2 * GUARD, guard, array.dtype)
    inner = block[GUARD:-GUARD].reshape(array.shape)
    inner[...] = array
    return block, inner


def reversed_twice(array):
    """The same numbers with negative strides."""
    return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]


def every_second(array):
    """The same numbers with gaps between the channels."""
    return np.repeat(array, 2, axis=-1)[..., ::2]


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_nan_and_infinity_go_where_the_sum_sends_them(kernel, bad):
    """A zero times NaN is NaN, infinities follow IEEE arithmetic, and padding contributes nothing, not even to them."""
    rng = np.random.default_rng(4)
    for args, kwargs in kernel.card.cases(rng, np.float32):
        for position in (0, 1):
            if args[position].size == 0:
                continue
            arrays = [a.copy() for a in args[:2]]
            arrays[1 - position][rng.random(arrays[1 - position].shape) < 0.3] = 0
            arrays[position].flat[rng.integers(arrays[position].size)] = bad
            result = kernel.implementation("numba")(*arrays, *args[2:], **kwargs)
            expected = kernel.implementation("numpy")(*arrays, *args[2:], **kwargs)
            finite = np.isfinite(expected)
            np.testing.assert_array_equal(result[~finite], expected[~finite])
            np.testing.assert_allclose(result[finite], expected[finite], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
@given(kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), c_out=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_masked_taps_are_left_out_only_where_that_changes_nothing(bad, kernel, c_out, seed):
    """Zeros at the end of the last row, as masks leave them: zero times a NaN is still NaN, and times infinity."""
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, 5, 6, 3)), rng.standard_normal((*kernel, 3, c_out))
    w[-1, rng.integers(kernel[1]) :] = 0
    parameters = (1, 1), (int(rng.integers(3)), int(rng.integers(3))), (1, 1), 1
    x.flat[rng.integers(x.size)] += bad
    with np.errstate(invalid="ignore"):
        expected = reference.conv2d(x, w, *parameters)
    np.testing.assert_allclose(cpu.conv2d(x, w, *parameters), expected, rtol=1e-12, atol=1e-12)
    g = rng.standard_normal(expected.shape)
    g.flat[rng.integers(g.size)] += bad
    with np.errstate(invalid="ignore"):
        expected = reference.conv2d_input(g, w, (5, 6), *parameters)
    np.testing.assert_allclose(cpu.conv2d_input(g, w, (5, 6), *parameters), expected, rtol=1e-12, atol=1e-12)


def test_infinities_that_cancel_make_nan_without_a_warning():
    """Pixels of different images, so that the infinities meet where partial weight gradients are added."""
    x, g = np.ones((8, 16, 16, 2), np.float32), np.ones((8, 16, 16, 8), np.float32)
    x[0, 0, 0, 0], x[7, 0, 0, 0] = np.inf, -np.inf
    for kernels in IMPLEMENTATIONS:
        result = kernels.conv2d_weight(x, g, (1, 1), (1, 1), (0, 0), (1, 1), 1)
        np.testing.assert_array_equal(result[0, 0], [[np.nan] * 8, [2048] * 8])


def test_padding_is_not_multiplied():
    x, w = np.ones((1, 3, 3, 1)), np.ones((3, 3, 1, 1))
    w[0, 0] = np.inf  # this tap meets padding for the first row and column of the output
    expected = np.full((3, 3), np.inf)
    expected[0], expected[:, 0] = [4, 6, 4], [4, 6, 4]
    for kernels in IMPLEMENTATIONS:
        np.testing.assert_array_equal(kernels.conv2d(x, w, (1, 1), (1, 1), (1, 1), 1)[0, ..., 0], expected)


THREADS = """
import hashlib, numba, numpy as np
from minigen.autograd.kernels import conv
from minigen.autograd.kernels.conv import direct
direct.PARALLEL_MULTIPLICATIONS = 0  # so that small cases are split too
digests = {}
for threads in (1, 2, 3, 8):
    numba.set_num_threads(threads)
    for kernel in (conv.conv2d, conv.conv2d_input, conv.conv2d_weight):
        for n, (args, kwargs) in enumerate(kernel.card.cases(np.random.default_rng(5), np.float32)):
            digest = hashlib.sha256(kernel(*args, **kwargs).tobytes()).hexdigest()
            digests.setdefault((kernel.name, n), set()).add(digest)
print([case for case, seen in digests.items() if len(seen) > 1], direct.parallel(2, 1))
"""


def test_results_are_the_same_for_any_number_of_threads():
    assert run_python(THREADS, NUMBA_NUM_THREADS="8").strip() == "[] True"


def run_python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


OTHER_VECTORS = """
import numpy as np
from minigen.autograd.kernels import conv
from minigen.autograd.kernels.tile import VECTOR_BYTES, ROWS
print(VECTOR_BYTES, ROWS)
for kernel in (conv.conv2d, conv.conv2d_input, conv.conv2d_weight):
    for args, kwargs in kernel.card.cases(np.random.default_rng(6), np.float32):
        expected = kernel.implementation("numpy")(*args, **kwargs)
        scale = kernel.card.scale(*args, **kwargs)
        assert (abs(kernel(*args, **kwargs) - expected) <= 2 * kernel.card.ulp * np.finfo(np.float32).eps * scale).all()
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 features")
@pytest.mark.parametrize(("features", "expected"), [("+avx,+avx2,+fma", "32 6"), ("+sse2", "16 6")])
def test_other_vector_widths(features, expected, tmp_path):
    output = run_python(OTHER_VECTORS, NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path))
    assert output.strip() == expected


def test_vector_registers_of_each_kind_of_processor():
    assert vector_registers("x86_64", {"avx512f", "avx2", "avx"}) == (64, 32)
    assert vector_registers("AMD64", {"avx2", "avx"}) == (32, 16)
    assert vector_registers("x86_64", {"sse2"}) == (16, 16)
    assert vector_registers("aarch64", {"neon"}) == (16, 32)
    assert vector_registers("arm64", set()) == (16, 32)
    assert vector_registers("riscv64", set()) == (16, 16)


def test_the_cases_reach_the_path_for_few_channels():
    """Each of the three kernels has a case on either side of the choice, on any processor."""
    chosen = {(op, which) for op in range(3) for which in (True, False)}
    seen = set()
    for args, _ in conv.conv2d.card.cases(np.random.default_rng(0), np.float32):
        x, w, *parameters = args
        geo = geometry.check("test", x.shape, w.shape, *parameters)
        seen.add((0, few.pays(geo, geo.input_hw, geo.c_out, x.dtype)))
        seen.add((1, few.pays(geo, geo.output_hw, geo.c_in, x.dtype)))
        seen.add((2, few.pays(geo, geo.input_hw, geo.c_out, x.dtype)))
    assert seen == chosen


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((4, 4, 3))}, ValueError, r"conv2d: images must have shape \(N, H, W, C\), got \(4, 4, 3\)"),
        ({"w": np.zeros((3, 3, 3))}, ValueError, r"conv2d: weights must have shape \(kh, kw, C_in / groups, C_out\)"),
        ({"w": np.zeros((3, 3, 2, 4))}, ValueError, "images of 3 channels, weights .* and 1 groups do not fit"),
        ({"groups": 3}, ValueError, "3 groups do not fit"),
        ({"groups": 0}, ValueError, "0 groups do not fit"),
        ({"w": np.zeros((3, 3, 1, 4)), "groups": 3}, ValueError, "3 groups do not fit"),
        ({"w": np.zeros((5, 3, 3, 4))}, ValueError, "kernel of size 5 .* does not fit into 4 pixels padded by 0"),
        ({"w": np.zeros((0, 3, 3, 4))}, ValueError, "kernel of size 0"),
        ({"dilation": (1, 2)}, ValueError, "size 3 with dilation 2 spans 5 pixels"),
        ({"stride": (1, 0)}, ValueError, r"stride must be two integers >= 1, got \(1, 0\)"),
        ({"padding": (-1, 0)}, ValueError, r"padding must be two integers >= 0, got \(-1, 0\)"),
        ({"dilation": (1,)}, ValueError, r"dilation must be two integers >= 1, got \(1,\)"),
        ({"w": np.zeros((3, 3, 3, 4), np.float32)}, TypeError, "w is float32, the other arrays are float64"),
        ({"out": np.zeros((1, 2, 2, 3))}, ValueError, r"out must have shape \(1, 2, 2, 4\), got \(1, 2, 2, 3\)"),
        ({"out": np.zeros((1, 2, 2, 4), np.float32)}, TypeError, "out is float32"),
        ({"out": np.zeros((4, 2, 2, 1)).T}, ValueError, "out must be writable and C-contiguous"),
    ],
)
def test_errors_say_what_does_not_fit(kernels, change, error, message):
    call = {"x": np.zeros((1, 4, 4, 3)), "w": np.zeros((3, 3, 3, 4)), "stride": (1, 1), "padding": (0, 0)}
    call |= {"dilation": (1, 1), "groups": 1} | change
    with pytest.raises(error, match=message):
        kernels.conv2d(**call)


@pytest.mark.parametrize("kernels", IMPLEMENTATIONS)
def test_adjoints_refuse_a_gradient_of_another_shape(kernels):
    x, w, g = np.zeros((1, 4, 4, 3)), np.zeros((3, 3, 3, 4)), np.zeros((1, 3, 2, 4))
    parameters = (1, 1), (0, 0), (1, 1), 1
    with pytest.raises(ValueError, match=r"conv2d_input: g must have shape \(1, 2, 2, 4\), got \(1, 3, 2, 4\)"):
        kernels.conv2d_input(g, w, (4, 4), *parameters)
    with pytest.raises(ValueError, match=r"conv2d_weight: g must have shape \(1, 2, 2, 4\), got \(1, 3, 2, 4\)"):
        kernels.conv2d_weight(x, g, (3, 3), *parameters)
    with pytest.raises(TypeError, match="arrays must be float32 or float64, got int64"):
        kernels.conv2d(x.astype(int), w.astype(int), *parameters)


def test_parameters_may_be_any_pair_of_integers():
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal((2, 6, 5, 3)), rng.standard_normal((3, 2, 3, 4))
    expected = reference.conv2d(x, w, (2, 1), (1, 0), (1, 2), 1)
    for kernels in IMPLEMENTATIONS:
        lists = [2, 1], np.array([1, 0]), [1, 2], 1
        np.testing.assert_allclose(kernels.conv2d(x, w, *lists), expected, rtol=1e-12, atol=1e-12)
        assert kernels.conv2d_input(expected, w, [6, 5], *lists).shape == x.shape
        assert kernels.conv2d_weight(x, expected, [3, 2], *lists).shape == w.shape
        with pytest.raises(ValueError, match=r"stride must be two integers >= 1, got \(1.5, 1\)"):
            kernels.conv2d(x, w, (1.5, 1), (1, 0), (1, 1), 1)


def test_cards_count_work_and_traffic():
    args = np.zeros((2, 5, 5, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32), (1, 1), (1, 1), (1, 1), 1
    assert conv.conv2d.card.flops(*args) == 2 * (2 * 5 * 5 * 4) * (3 * 3 * 3)
    assert conv.conv2d.card.bytes(*args) == 4 * (2 * 5 * 5 * 3 + 3 * 3 * 3 * 4 + 2 * 5 * 5 * 4)
    g = np.zeros((2, 5, 5, 4), np.float32)
    assert conv.conv2d_input.card.flops(g, args[1], (5, 5), *args[2:]) == conv.conv2d.card.flops(*args)
    assert conv.conv2d_weight.card.bytes(args[0], g, (3, 3), *args[2:]) == conv.conv2d.card.bytes(*args)
