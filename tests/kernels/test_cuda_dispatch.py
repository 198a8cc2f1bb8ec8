"""Which kernels run for arrays on a GPU, and what is checked before a launch. Needs no GPU, and not CuPy.

A stand-in for CuPy's array class is enough: dispatch looks at the class only, and a launch is refused before it happens.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

from minigen.autograd import backend, kernels
from minigen.autograd.backend import DeviceError, Kernel
from minigen.autograd.kernels import cuda
from minigen.autograd.kernels.elementwise import exp
from minigen.random import Generator


class Foreign:
    """As much of a GPU array as is looked at before a launch."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.dtype, self.shape, self.size, self.flags = array.dtype, array.shape, array.size, array.flags


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("cupy")
    module.ndarray = Foreign  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_arrays_choose_the_version(device: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(exp, "cuda", lambda *args: calls.append(args))
    exp(Foreign(np.ones(3)))
    assert len(calls) == 1
    assert exp(np.zeros(3))[0] == 1
    assert exp(np.float32(0)[None])[0] == 1
    assert len(calls) == 1


def test_the_version_is_loaded_at_the_first_call(device: types.ModuleType) -> None:
    assert exp.implementation("cuda").__module__ == "minigen.autograd.kernels.elementwise.cuda"
    assert exp.on("cuda") is exp.cuda
    assert exp.on("cpu") is exp.active


def test_a_missing_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "KERNELS", {})
    for family in ("minigen.autograd.kernels.elementwise", "minigen.autograd"):
        lonely = Kernel("lonely", family, exp.card)
        with pytest.raises(DeviceError, match=r"kernel 'lonely' of minigen.autograd.* has no CUDA version"):
            lonely.implementation("cuda")
        backend.KERNELS.clear()


def test_an_error_inside_a_version_is_not_taken_for_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Kernel("broken", "minigen.autograd.kernels.broken", exp.card)
    monkeypatch.delitem(backend.KERNELS, "broken")

    def load(name: str) -> None:
        raise ModuleNotFoundError("no module named 'elsewhere'", name="elsewhere")

    monkeypatch.setattr(backend.importlib, "import_module", load)
    with pytest.raises(ModuleNotFoundError, match="elsewhere"):
        broken.implementation("cuda")


def test_draws_without_a_gpu_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    with pytest.raises(DeviceError, match="CuPy is not installed: pip install"):
        Generator(0, "cuda").normal(3)
    with pytest.raises(ValueError, match="unknown device 'gpu'"):
        Generator(0, "gpu")
    assert [g.device for g in Generator(0, "cuda").split(2)] == ["cuda", "cuda"]


def test_arguments_are_checked_and_typed(device: types.ModuleType) -> None:
    real = np.dtype(np.float32)

    def typed(value: Any) -> Any:
        return cuda._argument("some_kernel", real, value)

    assert isinstance(typed(3), np.int32)
    assert isinstance(typed(True), np.int32)
    assert isinstance(typed(0.5), np.float32)
    assert isinstance(typed(np.uint64(7)), np.uint64)
    good = Foreign(np.ones((2, 3), np.float32))
    assert typed(good) is good
    assert typed(labels := Foreign(np.ones(3, np.int64))) is labels
    with pytest.raises(ValueError, match=r"some_kernel: an array float32\(3, 2\) is not in C order"):
        typed(Foreign(np.ones((2, 3), np.float32).T))
    with pytest.raises(TypeError, match=r"some_kernel for float32: an array is float64"):
        typed(Foreign(np.ones(3)))
    with pytest.raises(TypeError, match=r"a ndarray, not an array on the GPU; .* \.to\(device\)"):
        typed(np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"2147483648 elements are too many"):
        typed(Foreign(np.broadcast_to(np.int8(0), (1 << 31,)).view(Large)))


class Large(np.ndarray):
    """So many numbers without their memory, said to be contiguous."""

    flags = types.SimpleNamespace(c_contiguous=True)  # type: ignore[assignment]


def test_an_empty_launch_is_left_out() -> None:
    source = cuda.Source(kernels.__file__)  # has no .cu beside it: it would fail if it were compiled
    source.launch("nothing", np.float32, 0, 256)
    source.launch("nothing", np.float32, (3, 0), (32, 8))
    assert (cuda.grid(0), cuda.grid(1), cuda.grid(256), cuda.grid(257)) == (0, 1, 1, 2)
    assert cuda.team(0, 7)[0] == 0
    assert cuda.team(9, 7) == (2, (32, 8))
    assert cuda.team(9, 5000) == (9, (256, 1))


def test_sources_take_real_numbers_only() -> None:
    from minigen.autograd.kernels.optim.cuda import source

    assert "-DREAL=double" in source.options(np.float64)
    assert "-fmad=false" in source.options(np.float32)
    assert "#include" not in source.text()
    with pytest.raises(TypeError, match="float32 or float64 arrays, not int64"):
        source.options(np.int64)
