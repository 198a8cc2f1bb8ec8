"""Cards of ops/convolution.py. The references are written with sliding windows, or one kernel tap at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..ops import convolution as ops
from .card import Draw, Kink, OpCard

Sample = tuple[tuple, dict]
NOT_COMPLEX = "The kernels take real numbers only; differences are exact for a function that is linear in each input."


# ---- references


def _connections(image: tuple, out: tuple, kernel: tuple, stride: tuple, padding: tuple, dilation: tuple) -> Any:
    """Each output pixel (y, z) and kernel tap (i, j) with the image's pixel (row, column) under it, where there is one."""
    for y, z, i, j in np.ndindex(*out, *kernel):
        row, column = y * stride[0] + i * dilation[0] - padding[0], z * stride[1] + j * dilation[1] - padding[1]
        if 0 <= row < image[0] and 0 <= column < image[1]:
            yield (y, z), (i, j), (row, column)


def _conv2d(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: tuple, padding: tuple, dilation: tuple, groups: int
) -> np.ndarray:
    spans = (d * (k - 1) + 1 for d, k in zip(dilation, w.shape[:2], strict=True))
    out_hw = [(n + 2 * p - e) // s + 1 for n, p, e, s in zip(x.shape[1:3], padding, spans, stride, strict=True)]
    out = np.zeros((len(x), *out_hw, w.shape[3])) + b
    for at, tap, pixel in _connections(x.shape[1:3], tuple(out_hw), w.shape[:2], stride, padding, dilation):
        parts = zip(np.split(x[:, *pixel], groups, 1), np.split(w[tap], groups, 1), strict=True)
        out[:, *at] += np.concatenate([xk @ wk for xk, wk in parts], 1)  # (N, C_out)
    return out


def _conv_transpose2d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    stride: tuple,
    padding: tuple,
    output_padding: tuple,
    groups: int,
    dilation: tuple,
) -> np.ndarray:
    spans = (d * (k - 1) + 1 for d, k in zip(dilation, w.shape[:2], strict=True))
    sizes = zip(x.shape[1:3], stride, spans, padding, output_padding, strict=True)
    out_hw = [(n - 1) * s + span - 2 * p + extra for n, s, span, p, extra in sizes]
    out = np.zeros((len(x), *out_hw, groups * w.shape[2])) + b
    for at, tap, pixel in _connections(tuple(out_hw), x.shape[1:3], w.shape[:2], stride, padding, dilation):
        parts = zip(np.split(x[:, *at], groups, 1), np.split(w[tap], groups, 1), strict=True)
        out[:, *pixel] += np.concatenate([xk @ wk.T for xk, wk in parts], 1)  # (N, C_out)
    return out


def _in_a_row(reference: Any) -> Any:
    """The reference of a one-dimensional convolution: an image of one row."""

    def one(x: np.ndarray, w: np.ndarray, b: np.ndarray, **parameters: int) -> np.ndarray:
        neutral = {"stride": 1, "dilation": 1}
        pairs = {k: v if k == "groups" else (neutral.get(k, 0), v) for k, v in parameters.items()}
        return reference(x[:, None], w[None], b, **pairs)[:, 0]

    return one


def _pool(reduce: Any, fill: float) -> Any:
    def pool(x: np.ndarray, kernel_size: tuple, stride: tuple | None, padding: tuple) -> np.ndarray:
        down, right = stride or kernel_size
        x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)), constant_values=fill)
        windows = sliding_window_view(x, kernel_size, (1, 2))[:, ::down, ::right]  # (N, Ho, Wo, C, kh, kw)
        return reduce(windows, axis=(4, 5))

    return pool


def _space_to_depth(x: np.ndarray, block: int) -> np.ndarray:
    return np.concatenate([x[:, i::block, j::block] for i in range(block) for j in range(block)], 3)


def _depth_to_space(x: np.ndarray, block: int) -> np.ndarray:
    n, h, w, depth = x.shape
    out = np.empty((n, h * block, w * block, depth // block**2))
    for k, part in enumerate(np.split(x, block**2, 3)):
        out[:, k // block :: block, k % block :: block] = part
    return out


# ---- examples


def _pair(draw: Draw, low: int, high: int) -> tuple[int, int]:
    return draw.integer(low, high), draw.integer(low, high)


def _channels(draw: Draw) -> tuple[int, int, int]:
    """groups, and how many input and output channels there are in each."""
    return draw.integer(1, 2), draw.count(2), draw.integer(1, 3)


def _small(draw: Draw) -> tuple[int, ...]:
    """(N, H, W, C): sides of 1 to 3, and now and then 0."""
    return tuple(draw.choice([0, 1, 2, 1, 2, 3, 1, 2]) for _ in range(4))


def _conv(draw: Draw) -> Sample:
    groups, c_in, c_out = _channels(draw)
    kernel, stride, padding, dilation = _pair(draw, 1, 3), _pair(draw, 1, 3), _pair(draw, 0, 2), _pair(draw, 1, 2)
    hw = [max(1, d * (k - 1) + 1 - 2 * p) + draw.integer(0, 3) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    x = draw.floats((draw.count(2), *hw, groups * c_in))
    w = draw.floats((*kernel, c_in, groups * c_out))
    parameters = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (x, w, draw.floats((groups * c_out,))), parameters


def _conv_transpose(draw: Draw) -> Sample:
    groups, c_out, c_in = _channels(draw)
    kernel, stride, dilation = _pair(draw, 1, 3), _pair(draw, 1, 3), _pair(draw, 1, 2)
    hw = _pair(draw, 1, 3)
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(hw, stride, dilation, kernel, strict=True)]
    padding = tuple(draw.integer(0, min(2, (f - 1) // 2)) for f in full)  # at least one pixel is left
    extra = tuple(draw.integer(0, s - 1) for s in stride)
    x = draw.floats((draw.count(2), *hw, groups * c_in))
    w = draw.floats((*kernel, c_out, groups * c_in))
    parameters = {"stride": stride, "padding": padding, "output_padding": extra, "groups": groups, "dilation": dilation}
    return (x, w, draw.floats((groups * c_out,))), parameters


def _first_row(sample: Any) -> Any:
    """The one-dimensional example in a two-dimensional one: the columns of its first row."""

    def one(draw: Draw) -> Sample:
        (x, w, b), parameters = sample(draw)
        return (x[:, 0].copy(), w[0].copy(), b), {k: v if k == "groups" else v[1] for k, v in parameters.items()}

    return one


def _pooled(make: Any) -> Any:
    def sample(draw: Draw) -> Sample:
        kernel = _pair(draw, 1, 3)
        padding = tuple(draw.integer(0, k // 2) for k in kernel)
        hw = [max(1, k - 2 * p) + draw.integer(0, 3) for k, p in zip(kernel, padding, strict=True)]
        stride = draw.choice([None, _pair(draw, 1, 3)])
        x = make(draw)((draw.count(2), *hw, draw.count(3)))
        return (x,), {"kernel_size": kernel, "stride": stride, "padding": padding}

    return sample


def _upsample(draw: Draw) -> Sample:
    return (draw.floats(_small(draw)),), {"scale_factor": draw.choice([_pair(draw, 1, 3), 2])}


def _blocks(draw: Draw) -> Sample:
    block = draw.integer(1, 3)
    n, h, w, c = _small(draw)
    return (draw.floats((n, h * block, w * block, c)),), {"block": block}


def _depths(draw: Draw) -> Sample:
    block = draw.integer(1, 3)
    n, h, w, c = _small(draw)
    return (draw.floats((n, h, w, c * block**2)),), {"block": block}


# ---- cards


def _convolution(name: str, sample: Any, reference: Any) -> None:
    OpCard(name, getattr(ops, name), sample, wrt=(0, 1, 2), reference=reference, analytic=False, note=NOT_COMPLEX)


def _linear(name: str, sample: Any, reference: Any, analytic: bool) -> None:
    note = "" if analytic else NOT_COMPLEX
    OpCard(name, getattr(ops, name), sample, (0,), reference, analytic=analytic, linear=(0,), note=note)


_convolution("conv2d", _conv, _conv2d)
_convolution("conv_transpose2d", _conv_transpose, _conv_transpose2d)
_convolution("conv1d", _first_row(_conv), _in_a_row(_conv2d))
_convolution("conv_transpose1d", _first_row(_conv_transpose), _in_a_row(_conv_transpose2d))

OpCard(
    "max_pool2d",
    ops.max_pool2d,
    _pooled(lambda draw: draw.distinct),
    wrt=(0,),
    reference=_pool(np.max, -np.inf),
    analytic=False,
    kinks=[
        Kink(
            (np.array([1.0, 3.0, 3.0, 2.0]).reshape(1, 2, 2, 1),),  # one window, the largest value twice
            {"kernel_size": 2},
            np.ones((1, 1, 1, 1)),
            (np.array([0.0, 0.5, 0.5, 0.0]).reshape(1, 2, 2, 1),),
        )
    ],
)
_linear("avg_pool2d", _pooled(lambda draw: draw.floats), _pool(np.mean, 0), analytic=False)
_linear(
    "upsample_nearest",
    _upsample,
    lambda x, scale_factor: np.kron(x, np.ones((1, *np.broadcast_to(scale_factor, 2), 1))),
    analytic=False,
)
_linear("space_to_depth", _blocks, _space_to_depth, analytic=True)
_linear("depth_to_space", _depths, _depth_to_space, analytic=True)
