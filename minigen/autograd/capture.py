"""A step recorded as a CUDA graph, and replayed by one launch. Start at `Captured`.

To launch a kernel takes the host some microseconds. A step of a small model is hundreds of them, each over before the next one
has begun. A graph holds them all with their arguments: addresses, and numbers as they were. For a step to be recorded,

    nothing may be waited for, and nothing copied between host and device: CaptureError names who does it
    memory has to stay where it is: a pool of the graph's own holds it, and inputs are copied into arrays of its own
    what is another number in each step has to be read from the device (dials.py): places in streams of random numbers, the
        correction of Adam, learning rates; what the host does beside, counting steps for instance, is done by `again`
    it has to be the same launches each time: a step is recorded twice, and what differs is an error, not frozen

What Python does in a step otherwise happens at the recording only.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import backend, dials
from .dials import WORDS, Recording
from .kernels.cuda import set_words
from .tape import Op

Array = Any  # a cupy.ndarray

REHEARSALS = 2  # until kernels are compiled, the pool is filled, and layers that start from data have started


class CaptureError(RuntimeError):
    """A step that cannot be recorded: who is in the way, and why."""


class Captured:
    """A step that launches a graph.

    step: a function of arrays on the GPU that returns one, in memory that it makes or changes in place.
    rehearsals: the first calls, which run it as it is; the two after that record it; all others replay.

    captured(*arrays) does what step(*arrays) does, and returns an array whose numbers the next call replaces. Raises
    CaptureError at a recording; ValueError for arrays of another shape or dtype than the first call's.
    """

    def __init__(self, step: Callable[..., Array], rehearsals: int = REHEARSALS):
        cuda = backend.cupy().cuda
        self.step, self.rehearsals, self.calls = step, rehearsals, 0
        self.stream, self.pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        self.words = backend.cupy().zeros(WORDS, np.uint64)
        self.inputs: list[Array] = []
        self.recordings: list[Recording] = []
        self.graphs: list[Any] = []
        self.result: Array = None

    def __call__(self, *arrays: Array) -> Array:
        self._take(arrays)
        self.calls += 1
        if self.calls <= self.rehearsals:
            with self._own_memory():
                self.result = self.step(*self.inputs)
            return self.result
        if len(self.graphs) < 2:
            self._record()
            self._require_the_same()
        else:
            for dial in self.recordings[-1].dials:
                dial.turn()
        set_words(self.recordings[-1].values(), self.words)
        self.graphs[-1].launch()
        return self.result

    def _take(self, arrays: tuple[Array, ...]) -> None:
        """Copy inputs to where the graph reads them."""
        if not self.inputs:
            self.inputs = [a.copy() for a in arrays]
            return
        shapes, own = ([f"{a.dtype}{a.shape}" for a in given] for given in (arrays, self.inputs))
        if shapes != own:
            raise ValueError(f"a captured step of {', '.join(own)} was given {', '.join(shapes)}: capture another for those")
        for mine, given in zip(self.inputs, arrays, strict=True):
            mine[...] = given

    @contextlib.contextmanager
    def _own_memory(self) -> Iterator[None]:
        """Work goes to a stream of its own, its memory comes from a pool of its own, its products from kernels of ours."""
        cuda, before = backend.cupy().cuda, dials.own_kernels
        cuda.get_current_stream().synchronize()  # what it reads is there
        dials.own_kernels = True
        try:
            with self.stream, cuda.using_allocator(self.pool.malloc):
                yield
        finally:
            dials.own_kernels = before
        self.stream.synchronize()

    def _record(self) -> None:
        recording = Recording(self.words)
        with self._own_memory():
            self.stream.begin_capture()
            dials.recording = recording
            try:
                self.result = self.step(*self.inputs)
            except BaseException as error:
                with contextlib.suppress(Exception):  # a recording that was spoiled cannot end well
                    self.stream.end_capture()
                if not isinstance(error, Exception):
                    raise
                raise CaptureError(f"{_who(error)} cannot be part of a captured step: {error}") from error
            finally:
                dials.recording = None
            self.graphs.append(self.stream.end_capture())
        self.recordings.append(recording)

    def _require_the_same(self) -> None:
        """Raise CaptureError unless both recordings are the same launches with the same numbers, but for what dials hold."""
        first, last = self.recordings[0].launches, self.recordings[-1].launches
        if len(first) != len(last):
            raise CaptureError(f"the step launched {len(first)} kernels, then {len(last)}: what differs would not be replayed")
        for (kernel, *before), (_, *now) in zip(first, last, strict=True):
            if before != now:
                raise CaptureError(
                    f"kernel {kernel} was launched with {_numbers(before)}, then with {_numbers(now)}: the step has a number "
                    "that changes, which a replay would keep; have it made by minigen.autograd.dials.again"
                )


def _numbers(launch: list) -> str:
    return ", ".join(map(str, launch))


def _who(error: Exception) -> str:
    """The op that an error comes from, or else the innermost line of the program that is not in CuPy or the stand-in."""
    frames = list(traceback.walk_tb(error.__traceback__))
    for frame, _ in reversed(frames):
        if isinstance(op := frame.f_locals.get("self"), Op):
            return f"op {op.name}"
    ours = [(f, line) for f, line in frames if not str(f.f_globals.get("__name__")).startswith(("minigen.emulator", "cupy"))]
    frame, line = (ours or frames)[-1]
    return f"{frame.f_code.co_qualname}, {frame.f_globals.get('__name__')}:{line},"
