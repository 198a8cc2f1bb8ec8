"""Ctrl-C and SIGTERM in a run: the step is finished, the state saved, then `Interrupted` raised. Start at `interruption`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or SIGTERM, has ended a run. signal: its number."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = signal


class Stop:
    """What the signals have asked for, and how they are to be taken.

    signal: the one that was received, 0 for none.     patient: whether the first one lets the step finish.
    news: what to say of it then.
    """

    signal = 0
    patient = False
    news = "interrupted"


@contextmanager
def interruption(quiet: bool) -> Iterator[Stop]:
    """Inside this block, Ctrl-C and SIGTERM raise `Interrupted`; while `patient`, the first one does so at its end."""
    stop = Stop()

    def receive(number: int, frame: Any) -> None:
        again, stop.signal = stop.signal, number
        if again or not stop.patient:
            when = "at once: continue with --resume from the last checkpoint" if stop.patient else "before the first step"
            raise Interrupted(number, f"interrupted {when}")
        if not quiet:
            with suppress(OSError):  # not print(): it may be what was interrupted
                os.write(2, b"\nfinishing this step, then saving; once more to stop at once\n")

    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread is told of signals
        return
    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stop.signal:  # looked at last, so that none is overlooked
        raise Interrupted(stop.signal, stop.news)
