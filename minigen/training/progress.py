"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere. Start at `Progress.update`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PLAIN_SECONDS = 5.0  # between two plain lines
BAR_SECONDS = 0.1  # between two looks of the bar
OTHER_UNITS = ("bits_per_dim",)  # terms that say their unit themselves, and are not in nats


class Progress:
    """Reports on a run, on standard error: loss in nats, samples per second, time left.

    Use it as a context: `say` works from the beginning, the bar appears with `start`. quiet: nothing at all.
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.run: Any = None
        self.bar: Any = None
        self.terms: dict[str, float] = {}  # of the last step
        self.shown = float("-inf")  # when the last look was
        self.seconds, self.steps = 0.0, 0  # of this lap
        self.speed = 0.0  # of the last one
        self.began: tuple[float, float] | None = None  # time, and budget spent, after the first step

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            if self.terms:
                self._look()  # at where it ended
            self.bar.close()
            self.bar = None

    def say(self, text: str) -> None:
        """One line, above the bar if there is one. Where nobody reads any longer, the run goes on in silence."""
        if self.quiet:
            return
        try:
            if self.bar is None:
                print(text, file=sys.stderr, flush=True)
            else:
                self.bar.write(text, file=sys.stderr)
        except BrokenPipeError:
            self.quiet = True

    def start(self, run: Any) -> None:
        """The first step of `run` follows."""
        self.run = run
        if not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            look = "{percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt}{postfix}"
            self.bar = tqdm(total=self._total(), initial=run.step, bar_format=look, dynamic_ncols=True, file=sys.stderr)

    def update(self, terms: dict[str, float], seconds: float) -> None:
        """A step has been made in so many seconds, with these terms. The first step, which may compile, is not timed."""
        now = time.monotonic()
        if self.began is None:
            self.began = (now, self.run.spent)
        else:
            self.seconds, self.steps = self.seconds + seconds, self.steps + 1
        self.terms = terms
        if not self.quiet and now - self.shown >= (PLAIN_SECONDS if self.bar is None else BAR_SECONDS):
            self.shown = now
            self._look()

    def _look(self) -> None:
        rest = "".join(f"  {text}" for text in (self._speed(), self._left()) if text)
        if self.bar is None:
            self.say(f"step {self.run.step}/{self._total()}  {self._told()}{rest}")
        else:
            self.bar.n, self.bar.total = self.run.step, self._total()
            self.bar.set_postfix_str(self._told(1) + rest)  # this draws it

    def _told(self, count: int | None = None) -> str:
        return _in_words(self.terms, self.run.model.no_likelihood is None, count)

    def scores(self, step: int, scores: dict[str, float], beside: str = "") -> None:
        """An evaluation has been made. There may be nothing that can be told in numbers: say nothing then.

        beside: what likelihoods among the scores must be compared with.
        """
        texts = (f"{name} {f'{value:.2f}'.removesuffix('.00')}" for name, value in scores.items())
        if scores:
            self.say(f"step {step}  " + "  ".join(texts) + (f"  ({beside})" if beside else ""))

    def lap(self) -> float:
        """Samples per second in training steps since the last lap, or in that one; 0.0 before any was timed."""
        self.speed = self._samples_per_second()
        self.seconds, self.steps = 0.0, 0
        return self.speed

    def _samples_per_second(self) -> float:
        return self.steps * self.run.order.batch_size / self.seconds if self.seconds else self.speed

    def _speed(self) -> str:
        speed = self._samples_per_second()
        return f"{speed:,.0f} samples/s" if speed else ""

    def _total(self) -> int:
        """The step at which the run will end; where processor time decides, judged by the pace so far."""
        if self.run.last_step is not None:
            return self.run.last_step
        return max(self.run.step, round(self.run.step / self.run.spent)) if self.run.spent else 1

    def _left(self) -> str:
        """Time left at the pace so far, evaluations included."""
        if self.began is None or self.run.spent <= self.began[1]:
            return ""
        seconds = round((time.monotonic() - self.began[0]) / (self.run.spent - self.began[1]) * max(0.0, 1 - self.run.spent))
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours}:{minutes:02d}:{seconds % 60:02d} left" if hours else f"{minutes}:{seconds % 60:02d} left"


def _in_words(terms: dict[str, float], in_nats: bool, count: int | None = None) -> str:
    """The first `count` terms in words, with their unit if it is nats, without the total loss where others explain it."""
    shown = [(name, value) for name, value in terms.items() if name != "loss" or len(terms) == 1][:count]
    nats = [f"{name} {value:.2f}" for name, value in shown if name not in OTHER_UNITS]
    others = [f"{name} {value:.3f}" for name, value in shown if name in OTHER_UNITS]
    unit = " nats" if in_nats and nats and len(terms) > 1 else ""  # a loss that nothing explains may be a mean square
    return "  ".join([*(["  ".join(nats) + unit] if nats else []), *others])


@contextmanager
def say_when_compiling(say: Callable[[str], None]) -> Iterator[None]:
    """Inside this block, the first kernel that must be compiled is announced by `say`, before the wait."""
    from ..autograd.kernels import jit  # imports numba, which takes a moment

    events = jit.numba.core.event

    class Announcement(events.Listener):
        said = False

        def on_start(self, event: Any) -> None:
            if not self.said:
                self.said = True
                say("Compiling kernels (first run; they are kept on disk) ...")

        def on_end(self, event: Any) -> None:
            """Numba asks for it."""

    with events.install_listener("numba:compile", Announcement()):
        yield
