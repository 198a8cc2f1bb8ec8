"""What a person sees while a run trains: a bar on a terminal, plain lines elsewhere. Start at `Progress`."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from ..autograd.kernels import compiled_before

PLAIN_SECONDS = 5.0  # between two plain lines


class Progress:
    """Reports on a run: loss in nats, samples per second, time left. Everything goes to standard error.

    On a terminal a bar (tqdm); elsewhere a plain line now and then. quiet: nothing at all.
    """

    def __init__(self, run: Any, quiet: bool):
        self.run, self.quiet = run, quiet
        self.batch_size = run.order.batch_size
        self.sums: dict[str, float] = {}
        self.seconds, self.count = 0.0, 0
        self.bar: tqdm | None = None
        self.last_line = 0.0
        self.begun = False

    def __enter__(self) -> Progress:
        config = self.run.config
        if not self.quiet and config.backend == "numba" and not compiled_before():
            self.say("Compiling kernels (first run on this machine; they are kept on disk) ...")
        if not self.quiet and sys.stderr.isatty():
            total = None if config.last_step == float("inf") else int(config.last_step)
            self.bar = tqdm(total=total, initial=self.run.step, unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        if not self.quiet:
            tqdm.write(text, file=sys.stderr)

    def update(self, terms: dict[str, float], seconds: float) -> None:
        """A step has been made, in so many seconds."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        if self.begun:
            self.seconds += seconds  # not the first one, which compiles
        elif seconds > 1.0:
            self.say(f"first step after {seconds:.1f} s")
        self.begun = True
        if self.quiet:
            return
        text = "  ".join(f"{name} {value:.2f}" for name, value in terms.items())
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix_str(f"{text}  {self.speed():.0f} samples/s", refresh=False)
        elif time.monotonic() - self.last_line > PLAIN_SECONDS:
            self.last_line = time.monotonic()
            self.say(f"step {self.run.step:>6}{self._of_total()}  {text}  {self.speed():.0f} samples/s{self._left()}")

    def speed(self) -> float:
        """Samples per second since the last interval began."""
        return self.batch_size * self.count / self.seconds if self.seconds else 0.0

    def averages(self) -> dict[str, float]:
        """The mean of each term since the last call, and the speed."""
        means = {name: total / self.count for name, total in self.sums.items()} if self.count else {}
        means["samples_per_second"] = self.speed()
        self.sums, self.count, self.seconds = {}, 0, 0.0
        return means

    def scores(self, scores: dict[str, float]) -> None:
        """An evaluation has been made."""
        self.say(f"step {self.run.step:>6}  " + "  ".join(f"{name} {value:.2f}" for name, value in scores.items()))

    def _of_total(self) -> str:
        last = self.run.config.last_step
        return "" if last == float("inf") else f"/{int(last)}"

    def _left(self) -> str:
        """Time left, judged by the step limit."""
        last, speed = self.run.config.last_step, self.speed()
        if last == float("inf") or not speed:
            return ""
        seconds = int((last - self.run.step) * self.batch_size / speed)
        return f"  {seconds // 60}:{seconds % 60:02d} left"
