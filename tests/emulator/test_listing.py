"""`minigen kernels`: every kernel is listed with what it launches, shown in its versions, and explained."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from minigen import cli
from minigen.autograd import backend
from minigen.emulator import compiler, explain, listing
from minigen.emulator.listing import load_all

KERNELS = load_all()
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, compiler.COMPILERS)), reason="no C++ compiler to run CUDA kernels with: install g++"
)


def test_all_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["kernels", "list"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == len(KERNELS) + 2
    assert not backend.emulated()
    lines = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert "max_pool2d_kernel, max_pool2d_share_kernel, max_pool2d_gradient_kernel" in lines["max_pool2d_gradient"]
    assert "matrix product of cuBLAS" in lines["matmul"]
    assert "The gradient of max_pool2d" in lines["max_pool2d_gradient"]


@pytest.mark.parametrize("name", KERNELS)
def test_each_is_shown(name: str) -> None:
    """Each version with the function itself, and the text of each kernel that is launched."""
    shown = listing.show(name)
    heads = [line for line in shown.splitlines() if line.endswith((".py)", ".cu)"))]
    assert [head.partition(" (")[0] for head in heads] == list(listing.HEADS.values())
    numpy, rest = shown.split("\nNumba (", 1)
    numba, cuda = rest.split("\nCUDA (", 1)
    for version in (numpy, numba, cuda):
        assert f"def {name}(" in version or f"{name} = " in version
    for launch in listing.launches(KERNELS[name]):
        assert f"{launch.name}" in cuda
    assert "{" in cuda or name == "matmul"


def test_versions_stand_beside_each_other_where_there_is_room() -> None:
    narrow, wide = listing.show("relu_vjp", 299), listing.show("relu_vjp", 300)
    assert len(wide.splitlines()) < len(narrow.splitlines())
    first = wide.splitlines()[0]
    assert [first.index(head) for head in listing.HEADS.values()] == [0, 100, 200]


def test_templates_and_what_they_use_are_shown() -> None:
    text = listing.show("conv2d")
    assert text.index("KERNEL convolve_64x64") < text.index("inline void convolve(") < text.index("inline void multiply(")
    assert "weight_gradient" not in text


def test_reading_needs_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    compiler.find_compiler.cache_clear()
    try:
        assert cli.main(["kernels", "list"]) == cli.main(["kernels", "show", "group_norm"]) == 0
        assert "KERNEL chunk_statistics_kernel" in capsys.readouterr().out
        assert cli.main(["kernels", "explain", "group_norm"]) == 2
        assert re.fullmatch(r"minigen: .* needs a C\+\+ compiler, and there is none: .*\n", capsys.readouterr().err)
    finally:
        compiler.find_compiler.cache_clear()


@needs_compiler
def test_explained(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["kernels", "explain", "softmax_vjp"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("softmax_vjp(float32[")
    assert "FLOP per byte; below about 14 a large GPU waits for memory" in out
    assert "softmax_vjp_kernel\n" in out
    assert re.search(r"softmax/cuda\.cu:\d+ +global read +1,800 +2\.0 sectors +2\.0\n", out)
    assert "The checker found no race" in out


@needs_compiler
def test_traffic_of_our_own_kernels() -> None:
    """Neighbours read neighbours: a pass over memory takes no more sectors than its bytes need."""
    for name in ("silu", "adam", "bias_act"):
        page = explain.explain(name)
        assert "not coalesced" not in page, page
        assert "bank conflicts" not in page, page
    assert "cuBLAS" in explain.explain("matmul")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("kernels", "list|show|explain is missing"),
        ("kernels show", "needs the name of a kernel"),
        ("kernels list silu", "takes no name"),
        ("kernels show sliu", "unknown kernel 'sliu'; did you mean silu?"),
        ("kernels print silu", "unknown name 'print'"),
    ],
)
def test_refusals(arguments: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
