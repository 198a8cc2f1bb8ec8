"""The stand-in for CuPy is as strict as CuPy, counts what costs time, and offers nothing that CuPy does not have."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest

from minigen.autograd import Tensor, backend
from minigen.emulator import cupy

A = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def x() -> cupy.ndarray:
    array = cupy.asarray(A)
    cupy.counts.clear()
    return array


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed: pip install cupy-cuda13x")
@pytest.mark.filterwarnings("ignore")
def test_every_name_exists_in_cupy() -> None:
    """With the real package; a device is not needed."""
    real = importlib.import_module("cupy")
    offered = (*cupy.UFUNCS, *cupy.FUNCTIONS, *cupy.WAITING, *cupy.MAKERS, *cupy.FACTS)
    arrays = ("ndarray", "array", "asarray", "ascontiguousarray", "empty", "empty_like", "asnumpy")
    assert [name for name in (*offered, *arrays, "RawModule", "RawKernel") if not hasattr(real, name)] == []
    assert [name for name in cupy.LINALG if not hasattr(real.linalg, name)] == []
    assert [name for name in cupy.UFUNCS if not isinstance(getattr(real, name), real.ufunc)] == []
    assert [name for name in dir(cupy.ndarray) if name not in dir(real.ndarray) and not _of_python(name)] == []
    assert [part for part in vars(cupy.cuda) if not hasattr(real.cuda, part)] == []
    for kind in (cupy.cuda.Stream, cupy.cuda.Graph, cupy.cuda.Event, cupy.cuda.MemoryPool):
        there = getattr(real.cuda, kind.__name__)
        offered = [name for name, value in vars(kind).items() if callable(value) or name == "null"]
        assert [name for name in offered if not hasattr(there, name)] == [], kind
    assert "non_blocking" in real.cuda.Stream.__doc__
    assert "streamCaptureModeRelaxed" in real.cuda.Stream.begin_capture.__doc__  # the default, which lets memory be allocated
    assert [name for name in vars(cupy.cuda.runtime) if not hasattr(real.cuda.runtime, name)] == []
    assert callable(importlib.import_module("cupyx").allow_synchronize)


def _of_python(name: str) -> bool:
    return name in ("__dict__", "__weakref__") or name in dir(object)


def test_the_two_kinds_do_not_mix(x: cupy.ndarray) -> None:
    calls = [
        lambda: x + A,
        lambda: A + x,
        lambda: np.add(x, A),
        lambda: np.matmul(A, x.T),
        lambda: np.concatenate([x, A]),
        lambda: np.where(x > 0, A, x),
        lambda: np.add(x, x, out=np.zeros_like(A)),
        lambda: x.__setitem__(0, A[0]),
        lambda: x.__iadd__(A),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"Unsupported type|unsupported operand"):
            call()
    assert np.array_equal(x.get(), A)


def test_no_silent_way_to_numpy(x: cupy.ndarray) -> None:
    for call in (lambda: np.asarray(x), lambda: np.array(x), lambda: A.__setitem__(0, x[0]), lambda: np.linalg.eig(x)):
        with pytest.raises(TypeError, match=r"Implicit conversion|no implementation found"):
            call()
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        range(x[0, 0])  # CuPy's arrays are no indices
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)


def test_results_are_on_the_device(x: cupy.ndarray) -> None:
    for result in (x.sum(), x[0, 1], x[1], -x, 2 - x, x**2, np.sqrt(x), np.float32(2) * x, x.max(axis=0), np.zeros_like(x)):
        assert isinstance(result, cupy.ndarray)
    assert x.sum().shape == ()
    assert x.sum().dtype == np.float32
    assert (2.5 * x).dtype == np.float32
    np.add(x, x, out=x)
    assert np.array_equal(x.get(), 2 * A)
    x[x > 4] = 0
    x += 1
    assert x.get().tolist() == [[1, 3, 5], [1, 1, 1]]
    assert isinstance(np.linalg.slogdet(x[:, :2])[1], cupy.ndarray)
    assert isinstance(np.split(x, 3, axis=1)[2], cupy.ndarray)


def test_views_share_memory(x: cupy.ndarray) -> None:
    x[1:].reshape(3)[...] = 7
    assert x.get()[1].tolist() == [7, 7, 7]
    assert not x.T.flags.c_contiguous
    assert x.T.flags.f_contiguous
    assert cupy.ascontiguousarray(x) is x


def test_counts(x: cupy.ndarray) -> None:
    """Copies and waits are seen where they happen, and only there."""
    assert not cupy.counts
    (x * 2 + x.sum()).reshape(3, 2).max(axis=0)
    x[:, 1:] = 3
    assert not cupy.counts
    for read in (float, int, bool, cupy.ndarray.item, cupy.ndarray.tolist, cupy.ndarray.get, cupy.asnumpy):
        cupy.counts.clear()
        read(x[0, 0])
        assert cupy.counts == {"wait": 1, "to host": 1}, read
    cupy.counts.clear()
    _ = x[x > 2], np.nonzero(x)
    assert cupy.counts == {"wait": 2}
    _ = x[[0, 1]], x[np.array([1, 0])], cupy.asarray(A), cupy.array(x)
    assert cupy.counts == {"wait": 2, "to device": 3}


def test_waiting_can_be_forbidden(x: cupy.ndarray) -> None:
    with cupy.allow_synchronize(False):
        _ = x.sum()
        with pytest.raises(RuntimeError, match="synchronisation"):
            x.sum().item()
        with cupy.allow_synchronize(True):
            assert x.sum().item() == 15
    assert float(x.sum()) == 15


def test_new_memory_is_poisoned() -> None:
    assert np.isnan(cupy.empty((2, 3), np.float32).get()).all()
    assert cupy.empty(3, np.int64).get().tolist() == [77] * 3
    assert np.isnan(cupy.empty_like(cupy.zeros(3)).get()).all()
    assert not cupy.zeros(3).get().any()


def test_raw_kernels(x: cupy.ndarray) -> None:
    text = 'extern "C" __global__ void f(float a, float* x) { extern __shared__ float t[]; t[0] = a; x[threadIdx.x] *= t[0]; }'
    kernel = cupy.RawKernel(text, "f")
    kernel((1,), (6,), (np.float32(3), x), shared_mem=4)
    assert np.array_equal(x.get(), 3 * A)
    assert cupy.counts["launch"] == 1
    with pytest.raises(TypeError, match="Unsupported type"):
        kernel((1,), (6,), (np.float32(3), A))
    with pytest.raises(AttributeError, match="no kernel 'g'"):
        cupy.RawModule(text).get_function("g")


def test_it_takes_the_place_of_cupy() -> None:
    assert not backend.emulated()
    with backend.emulate():
        assert backend.emulated()
        assert backend.cupy() is cupy
        assert backend.cuda_problem() is None
        moved = Tensor(A).to("cuda")
        assert moved.device == "cuda"
        assert backend.on_gpu(moved.data)
        assert np.array_equal(moved.to("cpu").data, A)
    assert not backend.emulated()
    assert not backend.on_gpu(moved.data)
