"""The shapes of a convolution: what is allowed, what comes out, and which pixels a kernel tap connects.

Start at `check`, which every implementation calls first; then `Phase`, the one idea that the fast kernels add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """The sizes of one convolution x (N, H, W, C_in) * w (kh, kw, C_in / groups, C_out) -> (N, Ho, Wo, C_out)."""

    batch: int
    input_hw: Pair
    c_in: int
    kernel_hw: Pair
    output_hw: Pair
    c_out: int
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, H, W, C_in)."""
        return (self.batch, *self.input_hw, self.c_in)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(kh, kw, C_in / groups, C_out)."""
        return (*self.kernel_hw, self.c_in // self.groups, self.c_out)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(N, Ho, Wo, C_out)."""
        return (self.batch, *self.output_hw, self.c_out)

    @property
    def multiplications(self) -> int:
        """Multiply-adds of any of the three kernels, those with padding included."""
        return self.batch * math.prod(self.output_hw) * math.prod(self.weight_shape)


def check(
    op: str,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Geometry:
    """The geometry of a convolution, or a ValueError that names what does not fit.

    input_shape: (N, H, W, C_in)      weight_shape: (kh, kw, C_in / groups, C_out)
    stride, dilation: pairs >= 1      padding: pair >= 0
    """
    if len(input_shape) != 4:
        raise ValueError(f"{op}: images must have shape (N, H, W, C), got {input_shape}")
    if len(weight_shape) != 4:
        raise ValueError(f"{op}: weights must have shape (kh, kw, C_in / groups, C_out), got {weight_shape}")
    stride, padding, dilation = (
        pair(op, name, value, least)
        for name, value, least in (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1))
    )
    batch, height, width, c_in = input_shape
    kh, kw, c_in_group, c_out = weight_shape
    if groups < 1 or c_in != groups * c_in_group or c_out % groups:
        raise ValueError(
            f"{op}: images of {c_in} channels, weights {weight_shape} and {groups} groups do not fit together: weights "
            f"must have shape (kh, kw, C_in / groups, C_out), and groups must divide both C_in and C_out"
        )
    output_hw = (
        output_size(op, height, kh, stride[0], padding[0], dilation[0]),
        output_size(op, width, kw, stride[1], padding[1], dilation[1]),
    )
    return Geometry(batch, (height, width), c_in, (kh, kw), output_hw, c_out, stride, padding, dilation, groups)


def pair(op: str, name: str, value: Sequence[int], least: int) -> Pair:
    """Two integers that are at least `least`, as a tuple; raises ValueError that names the parameter."""
    if len(value) != 2 or min(value) < least or any(int(v) != v for v in value):
        raise ValueError(f"{op}: {name} must be two integers >= {least}, got {value}")
    return int(value[0]), int(value[1])


def output_size(op: str, size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many positions a window takes along one axis; raises ValueError when it fits nowhere."""
    extent = dilation * (kernel - 1) + 1
    if kernel < 1 or size + 2 * padding < extent:
        raise ValueError(
            f"{op}: a kernel of size {kernel} with dilation {dilation} spans {extent} pixels and does not fit into "
            f"{size} pixels padded by {padding} on both sides"
        )
    return (size + 2 * padding - extent) // stride + 1


def check_array(op: str, name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise unless `array` has this shape and dtype."""
    if array.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        raise TypeError(f"{op}: {name} is {array.dtype}, the other arrays are {dtype}: convert one of them")


def result(op: str, out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array to write the result into: `out` once it is checked, or a new one."""
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"{op}: arrays must be float32 or float64, got {dtype}")
    if out is None:
        return np.empty(shape, dtype)
    check_array(op, "out", out, shape, dtype)
    if not out.flags.carray:
        raise ValueError(f"{op}: out must be writable and C-contiguous")
    return out


class Phase(NamedTuple):
    """Along one axis: destination pixels whose sums use the same kernel taps at the same relative source positions.

    Destination pixel `to + m * to_step` is the sum over t = 0 .. taps - 1 of

        source pixel (start + m * step + t * gap)   times   weight (tap + t * tap_step)        m = 0 .. pixels - 1
    """

    pixels: int
    to: int
    to_step: int
    start: int
    step: int
    taps: int
    gap: int
    tap: int
    tap_step: int


def forward_phases(output: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Phase]:
    """A convolution is one phase: every output pixel sees all taps."""
    return [Phase(output, 0, 1, -padding, stride, kernel, dilation, 0, 1)]


def adjoint_phases(size: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Phase]:
    """The adjoint is one phase per residue of the input pixel modulo the stride.

    Input pixel y receives g[o] w[k] wherever o * stride + k * dilation - padding = y. So k * dilation must be congruent
    to y + padding modulo the stride, which holds for every (stride / gcd(stride, dilation))-th tap or for none, and o
    falls as k rises: within a phase the taps run backwards, as in the textbook's "flipped kernel".
    """
    every = stride // math.gcd(stride, dilation)
    phases = []
    for y in range(min(stride, size)):
        pixels = (size - y + stride - 1) // stride
        fitting = [k for k in range(min(every, kernel)) if (y + padding - k * dilation) % stride == 0]
        if not fitting:
            phases.append(Phase(pixels, y, stride, 0, 1, 0, 1, 0, 1))
            continue
        taps = (kernel - fitting[0] + every - 1) // every
        last = fitting[0] + (taps - 1) * every
        start = (y + padding - last * dilation) // stride
        phases.append(Phase(pixels, y, stride, start, 1, taps, every * dilation // stride, last, -every))
    return phases


def by_residue(phase: Phase) -> list[Phase]:
    """The same sums as several phases, whose taps lie one step of their pixels apart: one per residue of the tap's number.

    With d = step / gap, tap t = a d + b reads source pixel (start + b gap) + (m + a) step. So a kernel of 4 taps with stride
    2 is two of 2 taps on every other pixel, to be added up. Where the gap does not divide the step, that cannot be, and the
    list is empty.
    """
    if phase.step % phase.gap:
        return []
    d = phase.step // phase.gap
    return [
        phase._replace(
            start=phase.start + b * phase.gap,
            taps=(phase.taps - b + d - 1) // d,
            gap=phase.step,
            tap=phase.tap + b * phase.tap_step,
            tap_step=d * phase.tap_step,
        )
        for b in range(min(d, phase.taps))
    ]


def of_taps(phases: list[Phase], first: int, stop: int) -> list[Phase]:
    """The phases with the taps first .. stop - 1 of the kernel only."""
    chosen = []
    for phase in phases:
        among = [t for t in range(phase.taps) if first <= phase.tap + t * phase.tap_step < stop]
        t = among[0] if among else 0
        start, tap = phase.start + t * phase.gap, phase.tap + t * phase.tap_step
        chosen.append(phase._replace(start=start, taps=len(among), tap=tap))
    return chosen


def span(phases: list[Phase]) -> Pair:
    """First and one past the last source pixel that the phases of one axis use; may lie outside the image."""
    used = [p for p in phases if p.taps and p.pixels]
    if not used:
        return 0, 0
    return min(p.start for p in used), max(p.start + (p.pixels - 1) * p.step + (p.taps - 1) * p.gap for p in used) + 1


def window(phases: list[list[Phase]], source_hw: tuple[int, ...]) -> tuple[bool, tuple[int, int, int, int]]:
    """Whether pixels outside the source image are used, and the box to read: top, bottom, left and right edge.

    The box is what the phases use if they reach beyond the image, and the image itself if they do not.
    """
    (top, bottom), (left, right) = (span(axis) for axis in phases)
    height, width = source_hw
    if top < 0 or left < 0 or bottom > height or right > width:
        return True, (top, bottom, left, right)
    return False, (0, height, 0, width)
