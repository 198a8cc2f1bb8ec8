"""Launching kernels on the CPU: what they compute, in every schedule, and what is refused before they run."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigen.emulator import SCHEDULES, CompileError, KernelError, NoCompiler, Program, compiler, find_compiler, running

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, compiler.COMPILERS)), reason="no C++ compiler to run CUDA kernels with: install g++"
)

TEXT = r"""
#define KERNEL extern "C" __global__ void

KERNEL scale(int n, float a, const float* x, float* y) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = a * x[i];
}

KERNEL reverse(int n, float* x) {  // each block its own n numbers
    extern __shared__ float tile[];
    x += blockIdx.x * n;
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[n - 1 - threadIdx.x];
}

KERNEL places(unsigned* out) {
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}

KERNEL lanes(int* out) {
    int lane = threadIdx.x, *own = out + 8 * lane;
    own[0] = __shfl_sync(0xffffffffu, lane, 5);
    own[1] = __shfl_up_sync(0xffffffffu, lane, 3);
    own[2] = __shfl_down_sync(0xffffffffu, lane, 3);
    own[3] = __shfl_xor_sync(0xffffffffu, lane, 16);
    own[4] = __shfl_down_sync(0xffffffffu, lane, 1, 8);
    own[5] = __ballot_sync(0xffffffffu, lane % 3 == 0);
    own[6] = __any_sync(0xffffffffu, lane == 31) + 2 * __all_sync(0xffffffffu, lane < 31);
    if (lane < 16) own[7] = __shfl_xor_sync(0x0000ffffu, lane, 1);
    else own[7] = -__shfl_xor_sync(0xffff0000u, lane, 1);
}

KERNEL histogram(int n, const int* x, int* bins) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&bins[x[i]], 1);
}

KERNEL poisoned(float* out, int* whole) {
    __shared__ float tile[4];
    __shared__ int other[4];
    if (threadIdx.x > 9) tile[0] = other[0] = 0;  // never
    out[threadIdx.x] = tile[threadIdx.x];
    whole[threadIdx.x] = other[threadIdx.x];
}

KERNEL order(int* out) { out[0] = threadIdx.x; }  // whoever comes last

KERNEL kinds(char a, short b, long long c, unsigned long long d, double e, bool f, const double* g, bool* h) { *h = f; }
"""
PROGRAM = Program(TEXT)


def launch(name: str, blocks: Any, threads: Any, *args: Any, shared: int = 0) -> None:
    PROGRAM.launch(name, blocks, threads, args, shared)


@pytest.fixture(params=[(s, check) for s in SCHEDULES for check in (False, True)], ids=lambda p: f"{p[0]}-{p[1]}")
def any_mode(request: pytest.FixtureRequest):
    schedule, check = request.param
    with running(schedule=schedule, check=check):
        yield


def test_results(any_mode: None) -> None:
    x = np.arange(1000, dtype=np.float32)
    y = np.full(1000, np.nan, np.float32)
    launch("scale", 3, 64, np.int32(1000), np.float32(0.5), x, y)
    assert np.array_equal(y, x / 2)
    launch("reverse", 10, 100, np.int32(100), x, shared=400)
    assert np.array_equal(x.reshape(10, 100), np.arange(1000).reshape(10, 100)[:, ::-1])
    places = np.zeros(2 * 3 * 4 * 30, np.uint32)
    launch("places", (2, 3, 4), (5, 3, 2), places)
    assert np.array_equal(places.reshape(24, 30), 1000 * np.arange(24)[:, None] + np.arange(30))
    bins = np.zeros(7, np.int32)
    launch("histogram", 4, 256, np.int32(1000), np.arange(1000, dtype=np.int32) % 7, bins)
    assert bins.tolist() == [143] * 6 + [142]


def test_lanes(any_mode: None) -> None:
    """Shuffles and votes as the CUDA C++ Programming Guide defines them, also in halves of a warp that have parted."""
    out = np.zeros((32, 8), np.int32)
    launch("lanes", 1, 32, out)
    lane = np.arange(32)
    assert (out[:, 0] == 5).all()
    assert np.array_equal(out[:, 1], np.where(lane < 3, lane, lane - 3))
    assert np.array_equal(out[:, 2], np.where(lane > 28, lane, lane + 3))
    assert np.array_equal(out[:, 3], lane ^ 16)
    assert np.array_equal(out[:, 4], np.where(lane % 8 == 7, lane, lane + 1))
    assert (out[:, 5].view(np.uint32) == sum(1 << k for k in range(0, 32, 3))).all()
    assert (out[:, 6] == 1).all()
    assert np.array_equal(out[:, 7], np.where(lane < 16, lane ^ 1, -(lane ^ 1)))


def test_shared_memory_starts_with_nan() -> None:
    out, whole = np.zeros(4, np.float32), np.zeros(4, np.int32)
    launch("poisoned", 1, 4, out, whole)
    assert np.isnan(out).all()
    assert (whole == -1).all()


def test_the_schedule_decides_who_comes_last() -> None:
    last = {}
    for schedule in SCHEDULES:
        out = np.zeros(1, np.int32)
        with running(schedule=schedule):
            launch("order", 1, 256, out)
        last[schedule] = int(out[0])
    assert last["forward"] == 255
    assert last["backward"] == 0
    assert last["shuffled"] not in (0, 255)
    with pytest.raises(ValueError, match="unknown schedule 'random': choose one of forward, backward, shuffled"), running(
        schedule="random"
    ):
        pass


def test_signatures() -> None:
    assert PROGRAM.signature("scale") == ["i4", "f4", "*f4", "*f4"]
    assert PROGRAM.signature("kinds") == ["i1", "i2", "i8", "u8", "f8", "b1", "*f8", "*b1"]
    with pytest.raises(AttributeError, match=r"no kernel 'scales' in this text, which has .*scale"):
        PROGRAM.signature("scales")


X = np.zeros((4, 6), np.float32)
GOOD = (np.int32(24), np.float32(1), X, X.copy())


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, 24, r"n: int goes as 8 bytes, whatever the kernel has: pass a NumPy scalar"),
        (0, np.int64(24), r"n: int64 where the kernel has int32: it would read the bytes as other numbers"),
        (1, 0.5, r"a: float goes as 8 bytes"),
        (1, np.float64(0.5), r"a: float64 where the kernel has float32"),
        (1, np.int32(1), r"a: int32 where the kernel has float32"),
        (1, X, r"a: float32\[4, 6\] where the kernel has a number"),
        (2, np.float32(1), r"x: float32 where the kernel has a pointer"),
        (2, X.astype(np.float64), r"x: float64\[4, 6\] where the kernel has float32"),
        (2, X.T, r"x: float32\[6, 4\] is not in C order"),
        (3, X[:, ::2], r"y: float32\[4, 3\] is not in C order"),
    ],
)
def test_arguments_are_refused(position: int, value: Any, message: str) -> None:
    args = [*GOOD[:position], value, *GOOD[position + 1 :]]
    with pytest.raises(KernelError, match="kernel scale, " + message) as error:
        launch("scale", 1, 32, *args)
    assert error.value.kind == "arguments"


def test_their_number_is_checked() -> None:
    with pytest.raises(KernelError, match=r"kernel scale takes 4 arguments \(n, a, x, y\), not 3"):
        launch("scale", 1, 32, *GOOD[:3])


@pytest.mark.parametrize(
    ("blocks", "threads", "shared", "message"),
    [
        (0, 32, 0, r"no device has a grid of \(0, 1, 1\)"),
        ((1, 65536), 32, 0, r"no device has a grid of \(1, 65536, 1\); each axis has 1 to \(2147483647, 65535, 65535\)"),
        (1, 1025, 0, r"no device has a block of \(1025, 1, 1\)"),
        (1, (1, 1, 65), 0, r"no device has a block of \(1, 1, 65\)"),
        (1, (32, 33), 0, r"a block of \(32, 33, 1\) is 1056 threads, more than 1024"),
        (1, 32, 49153, r"shared memory, 49153 bytes of it dynamic, of 49153 bytes, where a block has 49152"),
    ],
)
def test_the_limits_of_a_device(blocks: Any, threads: Any, shared: int, message: str) -> None:
    with pytest.raises(KernelError, match=message) as error:
        launch("scale", blocks, threads, *GOOD, shared=shared)
    assert error.value.kind == "limit"


def test_static_shared_memory_has_a_limit() -> None:
    text = 'extern "C" __global__ void f() { __shared__ double tile[6145]; tile[threadIdx.x] = 0; }'
    with pytest.raises(KernelError, match="f::tile, a shared variable of 49160 bytes, where a block has 49152"):
        Program(text).launch("f", 1, 1, ())
    two = 'extern "C" __global__ void f() { __shared__ double a[4000], b[3000]; a[0] = b[0] = 0; }'
    with pytest.raises(KernelError, match="kernel f: shared memory, 0 bytes of it dynamic, of 56000 bytes"):
        Program(two).launch("f", 1, 1, ())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x[0] = INFINITY;", r"kernel.cu:2:.*INFINITY"),  # NVRTC does not know it
        ("x[0] = y;", r"kernel.cu:2:.* error: .y. was not declared"),
        ("threadIdx.x = 3;", r"kernel.cu:2:.*read-only"),
    ],
)
def test_mistakes_in_a_text_are_located(body: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        Program(f'extern "C" __global__ void f(float* x) {{\n{body}\n}}').signature("f")


def test_a_kernel_may_use_any_name() -> None:
    """The emulator's own names are out of the way."""
    text = """
    struct Place { int line; };
    __device__ int shuffle(Place p) { return p.line; }
    __device__ inline int call(int run) { return shuffle({run}); }
    extern "C" __global__ void __launch_bounds__(32) where(int* block) { block[0] = call(7); }
    """
    out = np.zeros(1, np.int32)
    Program(text).launch("where", 1, 1, (out,))
    assert out[0] == 7


def test_options() -> None:
    out = np.zeros(1, np.float32)
    text = 'extern "C" __global__ void f(float* x) { x[0] = VALUE; }'
    Program(text, ("-DVALUE=3.5f", "--std=c++17", "-fmad=false")).launch("f", 1, 1, (out,))
    assert out[0] == 3.5
    with pytest.raises(ValueError, match="does not know the compiler option '-O7'"):
        Program(text, ("-O7",)).signature("f")


def test_a_text_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiler.build(TEXT)
    monkeypatch.setattr(compiler, "translated", lambda *args: pytest.fail("compiled again"))
    assert compiler.build(TEXT) == path
    assert path.parent == compiler.folder()


def test_what_nobody_uses_is_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler, "folder", lambda: tmp_path)
    old, new = tmp_path / "old.so", tmp_path / "new.so"
    for path, age in ((old, 31), (new, 29)):
        path.touch()
        then = time.time() - age * 24 * 3600
        os.utime(path, (then, then))
    compiler._forget_old()
    assert [path.name for path in tmp_path.iterdir()] == ["new.so"]


def test_the_example_of_the_guide() -> None:
    guide = Path(__file__).parents[2].joinpath("docs", "gpu.md").read_text(encoding="utf-8")
    code, message = re.search(r"```python\n((?:(?!```).)*)```\s+```\nKernelError: (.*?)```", guide, re.DOTALL).groups()
    with pytest.raises(KernelError) as error:
        exec(code, {})
    assert str(error.value) == " ".join(message.split())


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    find_compiler.cache_clear()
    try:
        with pytest.raises(NoCompiler, match=r"needs a C.. compiler, and there is none: install g"):
            find_compiler()
    finally:
        find_compiler.cache_clear()


def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.sys, "platform", "darwin")
    find_compiler.cache_clear()
    with pytest.raises(NoCompiler, match="under Linux only, not on darwin"):
        find_compiler()


def test_the_fibers_of_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """ucontext, which is used where there is no switch of our own."""
    plain = compiler._object
    monkeypatch.setattr(compiler, "_object", lambda name, *flags: plain(name, *flags, "-DUSE_UCONTEXT"))
    out = np.zeros((32, 8), np.int32)
    library = Program(TEXT + "\n").library()  # a text of its own
    assert "makecontext" in compiler._run(["nm", "-D", str(library.path)])
    Program(TEXT + "\n").launch("lanes", 1, 32, (out,))
    assert np.array_equal(out[:, 3], np.arange(32) ^ 16)
    x = np.arange(300, dtype=np.float32)
    Program(TEXT + "\n").launch("reverse", 3, 100, (np.int32(100), x), 400)
    assert np.array_equal(x.reshape(3, 100), np.arange(300).reshape(3, 100)[:, ::-1])
