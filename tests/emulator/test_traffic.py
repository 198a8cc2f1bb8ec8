"""Sectors per request and bank conflicts, on transposes whose numbers are known."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from minigen.emulator import Program, Traffic, compiler, running

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, compiler.COMPILERS)), reason="no C++ compiler to run CUDA kernels with: install g++"
)

SIDE = 64
TEXT = r"""
#define KERNEL extern "C" __global__ void
#define SIDE 64

KERNEL copy(const float* x, float* out) {
    int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.y;
    out[row * SIDE + column] = x[row * SIDE + column];
}

KERNEL naive(const float* x, float* out) {
    int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 32 + threadIdx.y;
    out[column * SIDE + row] = x[row * SIDE + column];
}

template <int PAD>
__device__ void tiled(const float* x, float* out) {
    __shared__ float tile[32][32 + PAD];
    int column = blockIdx.x * 32, row = blockIdx.y * 32;
    tile[threadIdx.y][threadIdx.x] = x[(row + threadIdx.y) * SIDE + column + threadIdx.x];
    __syncthreads();
    out[(column + threadIdx.y) * SIDE + row + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
}
KERNEL conflicts(const float* x, float* out) { tiled<0>(x, out); }
KERNEL padded(const float* x, float* out) { tiled<1>(x, out); }

KERNEL strided(const float* x, float* out) { out[threadIdx.x] = x[8 * threadIdx.x]; }
KERNEL broadcast(const float* x, float* out) {
    __shared__ float one[2];
    if (threadIdx.x < 2) one[threadIdx.x] = x[0];
    __syncthreads();
    out[threadIdx.x] = one[threadIdx.x / 16];
}
KERNEL wide(const float* x, float* out) {
    __shared__ float4 four[32];
    four[threadIdx.x] = ((const float4*)x)[threadIdx.x];
    __syncthreads();
    ((float4*)out)[threadIdx.x] = four[31 - threadIdx.x];
}
"""
PROGRAM = Program(TEXT)


def traffic(name: str, blocks: object = (2, 2), threads: object = (32, 32)) -> dict[tuple[str, str], Traffic]:
    """What was counted, by kind of memory and direction."""
    x, out = np.arange(SIDE * SIDE, dtype=np.float32), np.zeros(SIDE * SIDE, np.float32)
    with running(check=True, measure=True) as mode:
        PROGRAM.launch(name, blocks, threads, (x, out))
    if name in ("naive", "conflicts", "padded"):
        assert np.array_equal(out.reshape(SIDE, SIDE), x.reshape(SIDE, SIDE).T)
    found = mode.traffic[name]
    rows = {("shared" if t.shared else "global", "write" if t.write else "read"): t for t in found}
    assert len(rows) == len(found)
    return rows


REQUESTS = SIDE * SIDE // 32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("copy", {("global", "read"): 4, ("global", "write"): 4}),
        ("naive", {("global", "read"): 4, ("global", "write"): 32}),
        ("conflicts", {("global", "read"): 4, ("global", "write"): 4, ("shared", "write"): 1, ("shared", "read"): 32}),
        ("padded", {("global", "read"): 4, ("global", "write"): 4, ("shared", "write"): 1, ("shared", "read"): 1}),
    ],
)
def test_transposes(name: str, expected: dict[tuple[str, str], int]) -> None:
    found = traffic(name)
    assert {key: t.per_request for key, t in found.items()} == expected
    assert all(t.requests == REQUESTS for t in found.values())
    assert all(t.ideal == (1 if t.shared else 4) for t in found.values())


def test_strides_broadcasts_and_vectors() -> None:
    strided = traffic("strided", 1, 32)
    assert strided["global", "read"].per_request == 32
    assert strided["global", "read"].ideal == 4
    broadcast = traffic("broadcast", 1, 32)
    assert broadcast["shared", "read"].per_request == 1  # one word for many, and two words of two banks
    assert broadcast["global", "read"].per_request == 1
    wide = traffic("wide", 1, 32)
    assert wide["global", "read"].per_request == wide["global", "read"].ideal == 16
    assert wide["shared", "read"].per_request == wide["shared", "write"].per_request == 1


def test_places_are_lines_of_the_text() -> None:
    line = next(i for i, text in enumerate(TEXT.splitlines(), 1) if "KERNEL strided" in text)
    assert {t.place for t in traffic("strided", 1, 32).values()} == {f"kernel.cu:{line}"}


def test_nothing_is_counted_unasked() -> None:
    with running(check=True) as mode:
        PROGRAM.launch("strided", 1, 32, (np.zeros(256, np.float32), np.zeros(32, np.float32)))
    assert mode.traffic == {}
