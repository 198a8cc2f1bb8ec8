"""Every CUDA kernel compiles, for five generations of GPU, within its budget. Needs no GPU, but nvidia-cuda-nvrtc.

What is looked at is what costs speed in silence: warnings, registers spilled to memory, double arithmetic in a float kernel,
and more registers or shared memory than leaves room for two blocks on a multiprocessor. Start at `check`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_cards import NAMES

from minigen.autograd.backend import KERNELS
from minigen.autograd.kernels.cuda import Source
from minigen.emulator.nvrtc import compile, library

SHARED_TEXT = "minigen.autograd.kernels"  # kernels of no family: cuda.cu beside cuda.py
FAMILIES = sorted({KERNELS[name].family for name in NAMES} | {SHARED_TEXT})
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_120")
FIRST = [pytest.param(a, marks=() if a in ("sm_75", "sm_120") else pytest.mark.slow) for a in ARCHITECTURES]
REGISTERS = 128  # of a thread: two blocks of 256 have room in the 65,536 of a multiprocessor
SHARED = 32 * 1024  # bytes of a block: two have room in the 64 KiB of the smallest architecture

needs_compiler = pytest.mark.skipif(library() is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc")


def source(family: str) -> Source:
    return importlib.import_module(f"{family}.cuda").source


def check(family: str, dtype: type, architecture: str) -> None:
    own = source(family)
    done = compile(own.text(), [*own.options(dtype), f"--gpu-architecture={architecture}"])
    where = f"{family} for {np.dtype(dtype)} on {architecture}"
    assert done.usage, f"{where}: no kernel in it"
    assert "warning" not in done.log, f"{where}: {done.log}"
    assert dtype is np.float64 or ".f64" not in done.ptx, f"{where}: double arithmetic in a float kernel"
    for name, usage in done.usage.items():
        assert usage.spilled == 0, f"{where}: {name} spills {usage.spilled} bytes"
        assert usage.shared <= SHARED, f"{where}: {name} takes {usage.shared} bytes of shared memory"
        assert usage.registers <= REGISTERS, f"{where}: {name} takes {usage.registers} registers"


@needs_compiler
@pytest.mark.parametrize("architecture", FIRST)
def test_float_kernels_compile_within_budget(architecture: str) -> None:
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda family: check(family, np.float32, architecture), FAMILIES))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_double_kernels_compile(architecture: str) -> None:
    for family in FAMILIES:
        own = source(family)
        done = compile(own.text(), [*own.options(np.float64), f"--gpu-architecture={architecture}"])
        assert "warning" not in done.log
        assert all(usage.spilled == 0 for usage in done.usage.values()), family


@needs_compiler
def test_the_check_finds_what_it_looks_for() -> None:
    text = 'extern "C" __global__ void f(float* x) { int unused; x[threadIdx.x] *= 0.1; }'
    done = compile(text, ["--gpu-architecture=sm_80"])
    assert "warning" in done.log
    assert ".f64" in done.ptx
    assert done.usage["f"].registers > 0
    with pytest.raises(RuntimeError, match="identifier"):
        compile("__global__ void f() { g(); }", ["--gpu-architecture=sm_80"])


def test_every_kernel_has_a_cuda_version() -> None:
    """Found by name, so a kernel added without one is noticed here and not on the first GPU."""
    missing = [name for name in NAMES if importlib.util.find_spec(f"{KERNELS[name].family}.cuda") is None]
    assert not missing
    for name in NAMES:
        assert callable(KERNELS[name].implementation("cuda")), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_launch_names_a_kernel_that_exists(family: str) -> None:
    """The names that cuda.py launches, where they are written out, stand in cuda.cu."""
    python = source(family).path.with_suffix(".py").read_text(encoding="utf-8")
    launched = set(re.findall(r'launch\(\s*"(\w+)"', python))
    text = source(family).text()
    assert all(re.search(rf"\b{name}\b", text) for name in launched), launched
    assert "atomicAdd" not in text, "sums would depend on which thread comes first"
