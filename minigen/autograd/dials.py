"""What a recorded step does anew each time it is replayed, though no Python runs then but this. Start at `again`.

A graph of launches (capture.py) has its arguments written in: addresses of arrays, and numbers. A number that is another one
in each step (the position in a stream of random numbers, Adam's correction, a learning rate that falls) is written to the
device before each replay instead, and read from there: a `Dial`.

    block = again(self._move_on)                    self._move_on(), now and before each replay; while recording, a Dial
    scalars = turned(adam_scalars, step, lr)        adam_scalars(step, lr), also where step and lr are Dials

Where nothing is recorded both are plain calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

WORD = 8  # bytes: dials lie in words of 64 bits on the device
WORDS = 1 << 12  # of one recording: as many dials as a step has draws


class Dial:
    """A number, or a tuple of them, that is another at each replay.

    now: in this step.     where: on the device, once a kernel has asked for it: see `Recording.place`.
    """

    def __init__(self, function: Callable[..., Any], *args: Any):
        self.function, self.args = function, args
        self.where: Any = None
        self.first, self.dtype = 0, np.dtype(np.uint64)
        self.now: Any = None
        self.turn()

    def turn(self) -> None:
        """Move on to the next step."""
        self.now = self.function(*(a.now if isinstance(a, Dial) else a for a in self.args))

    def words(self) -> np.ndarray:
        """Its numbers as the device holds them, (n,) uint64."""
        numbers = np.atleast_1d(np.array(self.now, self.dtype))
        whole = np.zeros(-(-numbers.nbytes // WORD), np.uint64)
        whole.view(np.uint8)[: numbers.nbytes] = numbers.view(np.uint8)
        return whole


class Recording:
    """One recording of a step: what has to be done before each replay, and what was launched with which numbers.

    words: (WORDS,) uint64 on the device, where the dials are.
    """

    def __init__(self, words: Any):
        self.words, self.used = words, 0
        self.dials: list[Dial] = []
        self.launches: list[tuple] = []  # name, blocks, threads and the numbers among its arguments, of each launch

    def add(self, dial: Dial) -> Dial:
        """One more dial of this recording."""
        self.dials.append(dial)
        return dial

    def place(self, dial: Dial, dtype: Any) -> Any:
        """Where a kernel finds the numbers of a dial, as an array of `dtype` on the device.

        Raises ValueError where there are more numbers than a recording has room for.
        """
        if dial.where is None:
            dial.first, dial.dtype = self.used, np.dtype(dtype)
            self.used += len(dial.words())
            if self.used > len(self.words):
                raise ValueError(f"more than {len(self.words)} numbers change from step to step: record a shorter step")
            dial.where = self.words[dial.first : self.used].view(dial.dtype)
        return dial.where

    def values(self) -> np.ndarray:
        """All dials as they are now, (used,) uint64."""
        values = np.zeros(self.used, np.uint64)
        for dial in self.dials:
            if dial.where is not None:
                words = dial.words()
                values[dial.first : dial.first + len(words)] = words
        return values


recording: Recording | None = None  # the one that is under way
own_kernels = False  # whether products must be kernels of this project, because the step is, or will be, recorded


def again(function: Callable[[], Any]) -> Any:
    """function(): now, and before each replay of the step that is being recorded, if one is. Its result, or a Dial of it."""
    return function() if recording is None else recording.add(Dial(function))


def turned(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), where some of args may be Dials: then it is one, too."""
    if recording is None or not any(isinstance(a, Dial) for a in args):
        return function(*args)
    return recording.add(Dial(function, *args))


def by_value_or_place(numbers: Any, dtype: Any) -> tuple:
    """What is passed to a kernel that takes n numbers and a pointer: (*numbers, None), or, for a Dial, (0, ..., its place)."""
    if not isinstance(numbers, Dial):
        return (*numbers, None) if isinstance(numbers, tuple) else (numbers, None)
    assert recording is not None, "a Dial outlives its recording only inside it"
    real = np.dtype(dtype).type
    count = len(numbers.now) if isinstance(numbers.now, tuple) else 1
    return (*[real(0)] * count, recording.place(numbers, dtype))
