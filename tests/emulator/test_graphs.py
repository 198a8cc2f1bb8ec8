"""Graphs of the stand-in for CuPy: nothing is done while they are recorded; what a GPU would do wrong is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minigen.emulator import cupy
from minigen.emulator.graphs import CUDARuntimeError

A = np.arange(6, dtype=np.float32).reshape(2, 3)
Recorder = Callable[[Callable[[], Any]], tuple[Any, Any]]


@pytest.fixture
def record() -> Recorder:
    """A function that records another: its graph, and what it returned. The pool lives as long as the test."""
    stream, pool = cupy.Stream(non_blocking=True), cupy.MemoryPool()

    def run(work: Callable[[], Any]) -> tuple[Any, Any]:
        with stream, cupy.using_allocator(pool.malloc):
            stream.begin_capture()
            try:
                result = work()
            except BaseException:
                with pytest.raises(CUDARuntimeError, match="Invalidated"):
                    stream.end_capture()
                raise
            return stream.end_capture(), result

    run.pool = pool  # type: ignore[attr-defined]
    return run


def test_nothing_is_done_before_the_launch(record: Recorder) -> None:
    x, y = cupy.asarray(A), cupy.zeros((2, 3), np.float32)

    def work() -> Any:
        y[...] = x * 2
        y[0] += 1
        return (x.T.reshape(6) + y.sum()).max()

    graph, result = record(work)
    assert not y.get().any()
    assert np.isnan(result.get())
    graph.launch()
    assert y.get().tolist() == [[1, 3, 5], [6, 8, 10]]
    assert float(result) == 5 + 33
    x[...] = 0
    graph.launch()
    assert float(result) == 3


def test_new_memory_is_poisoned_at_each_launch(record: Recorder) -> None:
    """A kernel that does not fill its result is seen, though the launch before may have filled it."""
    graph, result = record(lambda: cupy.empty(3, np.float32))
    result[...] = 1
    graph.launch()
    assert np.isnan(result.get()).all()


def test_memory_that_was_given_back(record: Recorder) -> None:
    x = cupy.asarray(A)
    graph, _ = record(lambda: x + 1)
    graph.launch()
    del x
    with pytest.raises(CUDARuntimeError, match=r"add of a graph uses memory that was given back: an array float32\(2, 3\)"):
        graph.launch()
    x = cupy.asarray(A)
    graph = record(lambda: x + 1)[0]
    record.pool.kept.clear()  # type: ignore[attr-defined]  # as if the pool were gone
    with pytest.raises(CUDARuntimeError, match="memory that was given back"):
        graph.launch()


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda x: x.get(), "copied to the host"),
        (lambda x: float(x[0, 0]), "copied to the host"),
        (lambda x: x[x > 1], "device is waited for"),
        (lambda x: x[[0, 1]], "copied from the host"),
        (lambda x: cupy.asarray(A), "copied from the host"),
        (lambda x: np.matmul(x, x.T), "matmul: calling cuBLAS API during stream capture is currently unsupported"),
        (lambda x: np.sort(x), "sort: Thrust waits for the device"),
        (lambda x: np.linalg.inv(x[:, :2]), "inv: calling cuSOLVER API during stream capture"),
        (lambda x: np.concatenate([x] * 9), "copied from the host"),
        (lambda x: cupy.Device().synchronize(), "device is waited for"),
        (lambda x: cupy.get_current_stream().synchronize(), "stream is waited for"),
    ],
)
def test_what_cannot_be_recorded(work: Callable, message: str, record: Recorder) -> None:
    x = cupy.asarray(A)
    with pytest.raises(CUDARuntimeError, match=f"operation not permitted when stream is capturing: .*{message}"):
        record(lambda: work(x))
    assert float(x.sum()) == 15


def test_memory_of_the_common_pool_is_refused() -> None:
    x, stream = cupy.asarray(A), cupy.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        with pytest.raises(CUDARuntimeError, match="memory is allocated from the common pool"):
            _ = x + 1
        with pytest.raises(CUDARuntimeError, match="Invalidated"):
            stream.end_capture()
    with pytest.raises(CUDARuntimeError, match="non-blocking"):
        cupy.Stream.null.begin_capture()
    with pytest.raises(CUDARuntimeError, match="not capturing"):
        stream.end_capture()
