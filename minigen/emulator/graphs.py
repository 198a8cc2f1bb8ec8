"""CUDA graphs for the stand-in of CuPy: work that is recorded instead of done, and done at each launch. Start at `Graph`.

As strict as the real thing, and stricter where that would be wrong without a word. A graph knows addresses, not arrays: memory
that was given back by the time of a launch is an error here. What cannot be recorded is refused: to wait, to copy between host
and device, to call a library that CuPy does not let be recorded, to allocate memory from a pool that others use, too.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

LIBRARIES = {  # functions that a library does, and what CuPy 14 says, or CUDA, when it is called while a stream is capturing
    "matmul": "calling cuBLAS API during stream capture is currently unsupported",
    "sort": "Thrust waits for the device",
    "argsort": "Thrust waits for the device",
}
LIBRARIES |= dict.fromkeys(
    ("cholesky", "det", "eigh", "inv", "qr", "slogdet", "solve", "svd"),
    "calling cuSOLVER API during stream capture is currently unsupported",
)


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


class Place(NamedTuple):
    """Where an array is: an address, as a graph has it."""

    owner: weakref.ref  # of the array that the memory belongs to
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self, node: str) -> np.ndarray:
        """What is there. Raises CUDARuntimeError for memory that was given back."""
        owner = self.owner()
        if owner is None:
            what = f"{self.dtype}{self.shape}"
            raise CUDARuntimeError(f"{node} of a graph uses memory that was given back: an array {what} that nobody holds")
        return np.ndarray(self.shape, self.dtype, owner.ravel(order="K").data, self.offset, self.strides)


class Graph:
    """Recorded work: made by Stream.end_capture."""

    def __init__(self) -> None:
        self.nodes: list[tuple[str, Callable[..., Any], Any]] = []
        self.broken = ""  # why it cannot be used

    def launch(self, stream: Any = None) -> None:
        """Do the work."""
        for name, work, args in self.nodes:
            work(*_arrays(args, name))

    def upload(self, stream: Any = None) -> None:
        """Would spare the first launch its preparations."""


_graph: Graph | None = None  # that is being recorded


def recording() -> bool:
    """Whether a graph is being recorded."""
    return _graph is not None


def refuse(what: str) -> None:
    """Raise CUDARuntimeError, and spoil the graph, if one is being recorded."""
    if _graph is not None:
        _graph.broken = what
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing: {what}")


def refuse_library(name: str) -> None:
    """The same for functions that are done by a library."""
    if name in LIBRARIES:
        refuse(f"{name}: {LIBRARIES[name]}")


def record(name: str, work: Callable[..., Any], args: Any) -> None:
    """A node: work(*args), with the arrays that are then where those of args are now."""
    assert _graph is not None
    _graph.nodes.append((name, work, _places(args)))


def keep(array: np.ndarray) -> None:
    """An array was allocated while recording: that has to be from a pool, which keeps it."""
    pool = getattr(_allocator, "__self__", None)
    if isinstance(pool, MemoryPool):
        pool.kept.append(_owner(array))
    else:
        refuse("memory is allocated from the common pool, which gives it to others before the graph is launched")


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _places(value: Any) -> Any:
    """With places instead of arrays."""
    if isinstance(value, np.ndarray):
        owner = _owner(value)
        return Place(weakref.ref(owner), value.ctypes.data - owner.ctypes.data, value.shape, value.strides, value.dtype)
    if isinstance(value, dict):
        return {key: _places(v) for key, v in value.items()}
    return type(value)(map(_places, value)) if type(value) in (tuple, list) else value


def _arrays(value: Any, node: str) -> Any:
    """With arrays instead of places."""
    if isinstance(value, Place):
        return value.array(node)
    if isinstance(value, dict):
        return {key: _arrays(v, node) for key, v in value.items()}
    return type(value)(_arrays(v, node) for v in value) if type(value) in (tuple, list) else value


# ---- what CuPy offers


class Stream:
    """An order of work. Here all work is done at once, so only what is recorded matters."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False):
        self.is_null, self.non_blocking = null, non_blocking

    def __enter__(self) -> Stream:
        _streams.append(self)
        return self

    def __exit__(self, *args: Any) -> None:
        _streams.pop()

    def begin_capture(self, mode: int | None = None) -> None:
        """From now on work is recorded. Raises CUDARuntimeError for a stream that waits for others, or that others wait for."""
        global _graph
        if not self.non_blocking:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the stream to record has to be a non-blocking one")
        if _graph is not None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is capturing already")
        _graph = Graph()

    def end_capture(self) -> Graph:
        """What was recorded. Raises CUDARuntimeError if something was refused."""
        global _graph
        if _graph is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the stream is not capturing")
        graph, _graph = _graph, None
        if graph.broken:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureInvalidated: {graph.broken}")
        return graph

    def is_capturing(self) -> bool:
        """Whether this stream's work is being recorded."""
        return _graph is not None

    def synchronize(self) -> None:
        """Nothing is left to wait for; refused while a graph is recorded."""
        refuse("the stream is waited for")

    def record(self, event: Event | None = None) -> Event:
        """The event, a new one if None is given, happens now."""
        event = event or Event()
        event.record()
        return event

    def wait_event(self, event: Event) -> None:
        """The work so far is done."""


Stream.null = Stream(null=True)
_streams: list[Stream] = [Stream.null]


def get_current_stream() -> Stream:
    """The stream that work goes to."""
    return _streams[-1]


class Event:
    """A moment in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False):
        self.time = 0.0

    def record(self, stream: Stream | None = None) -> None:
        """The moment is now."""
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        """It is over; refused while a graph is recorded."""
        refuse("an event is waited for")


def get_elapsed_time(start: Event, stop: Event) -> float:
    """Milliseconds between two events."""
    return 1e3 * (stop.time - start.time)


class MemoryPool:
    """Memory of its own, for `using_allocator(pool.malloc)`: what a graph allocates stays while the pool does."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def malloc(self, size: int) -> Any:
        """Names this pool for using_allocator. Raises TypeError where it is called."""
        raise TypeError("the stand-in allocates with NumPy: pass this function to using_allocator")


_allocator: Callable[[int], Any] | None = None


@contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """Inside this block, memory comes from there."""
    global _allocator
    before, _allocator = _allocator, allocator
    try:
        yield
    finally:
        _allocator = before
