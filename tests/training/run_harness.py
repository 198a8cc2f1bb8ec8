"""A model small enough to be trained a thousand times, and ways to compare and to disturb runs. Start at `Tiny`.

    python run_harness.py kills FOLDER COUNT SEED PICTURES MODEL [OPTION ...]   a run killed at COUNT random moments
    python run_harness.py threads FOLDER MODELS COUNTS [OPTION ...]             a run for each, with so many threads
    python run_harness.py train MODEL [OPTION ...]                              minigen train, where the model `tiny` is known
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minigen import cli
from minigen.autograd import Tensor
from minigen.data import load
from minigen.models import MODELS, Loss, Model, ModelConfig
from minigen.models.model import Entry
from minigen.nn import parameter
from minigen.random import Generator
from minigen.training import checkpoint, figures, files
from minigen.training.recorder import TIMINGS
from minigen.training.run import Run


class Tiny(Model):
    """p(x) = N(mean, I): one learned image. Its two first values serve as a code, so that all figures can be drawn."""

    def __init__(self, data_shape: tuple[int, ...], config: ModelConfig, rng: Generator):
        self.data_shape, self.config = data_shape, config
        self.mean = parameter(rng.normal(data_shape))

    def loss(self, x: np.ndarray, rng: Generator) -> Loss:
        error = self.mean - (x + 0.1 * rng.normal(x.shape))  # noise, so that resuming needs the generator too
        total = (error * error).sum() * (1 / len(x))
        return Loss(total, {"elbo": -total.item()})

    def elbo(self, x: np.ndarray, rng: Generator) -> tuple[Tensor, ...]:
        error = Tensor(x) - self.mean
        return ((error * error).sum(axis=tuple(range(1, x.ndim))) * -1.0,)

    def encode(self, x: np.ndarray) -> tuple[Tensor, Tensor]:
        return Tensor(x.reshape(len(x), -1)[:, -2:].copy()), Tensor(np.zeros((len(x), 2), np.float32))

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.mean.data, x.shape)

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        return self.mean.data + 0.1 * rng.normal((n, *self.data_shape))


TINY = Entry("tiny", Tiny, ModelConfig, Tiny, "one learned image")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics of a run, without what differs between two equal runs."""
    lines = files.read_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def digest(folder: Path) -> tuple[int, str]:
    """Step and SHA-256 of the newest checkpoint: of every array, and of everything else but the time it took."""
    latest = checkpoint.Checkpoints(folder / "checkpoints").latest()
    if latest.rejected:
        raise AssertionError(f"a damaged checkpoint: {latest.rejected[0]}")
    sha = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key in value:
                add(f"{name}/{key}", value[key])
        elif isinstance(value, np.ndarray):
            sha.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
        elif name.split("/")[-1] not in TIMINGS:
            sha.update(f"{name} {value!r}".encode())

    add("", latest.state)
    return latest.step, sha.hexdigest()


def in_a_child(*arguments: str, seconds: float | None = None) -> int:
    """The exit status of `minigen ARGUMENTS...` in a forked process, or minus the signal, if killed after some seconds.

    Forked, not started anew: what takes a second to import is in memory already. No parallel kernel may have run here.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(cli.main(arguments))
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kills(folder: Path, count: int, seed: int, pictures: str, *arguments: str) -> dict[str, int]:
    """Kill a run at `count` random moments, each time resumed; compare each run that ends with one that was left alone.

    pictures: "none" leaves out the figures, which take most of the time of a short run.
    Returns how many kills came before the first checkpoint, how many runs ended, and the most steps that a kill has cost.
    """
    if pictures == "none":
        figures.FIGURES.clear()
    load("digits")  # these take the time of a run, and children have what is in memory
    importlib.import_module("minigen.autograd.kernels.jit")
    rng = random.Random(seed)
    whole, out = folder / "whole", folder / "killed"
    for path in (folder / "warm", whole):  # the first one may have to compile kernels, which is not to be waited for again
        began = time.monotonic()
        if in_a_child("train", *arguments, "--quiet", "--out", str(path)):
            raise SystemExit("the run that is left alone has failed")
        duration = time.monotonic() - began
    killed = early = ended = lost = 0
    while killed < count or out.exists():
        resume = ["--resume"] if (out / "config.json").exists() else []
        seconds = rng.uniform(0, duration) if killed < count else None
        status = in_a_child("train", *arguments, "--quiet", "--out", str(out), *resume, seconds=seconds)
        if status == -signal.SIGKILL:
            killed += 1
            steps = checkpoint.Checkpoints(out / "checkpoints").steps()
            early += not steps
            written = [line["step"] for line in metrics(out)] if (out / "metrics.jsonl").exists() else []
            lost = max(lost, max(written, default=0) - max(steps, default=0))
        elif status:
            raise SystemExit(f"a resumed run failed with status {status}")
        else:
            ended += 1
            if digest(out) != digest(whole) or metrics(out) != metrics(whole):
                raise SystemExit(f"a run killed before has come to another result: see {folder}")
            shutil.rmtree(out)
    return {"early": early, "ended": ended, "lost": lost}


def digests(folder: Path, models: str, counts: str, *options: str) -> dict[str, dict[str, str]]:
    """model -> number of threads -> digest after training; both are given as lists with commas."""
    figures.FIGURES.clear()
    found: dict[str, dict[str, str]] = {}
    for model in models.split(","):
        for count in counts.split(","):
            out = folder / model / count
            if cli.main(["train", model, *options, "--quiet", "--threads", count, "--out", str(out)]):
                raise SystemExit(f"training {model} with {count} threads has failed")
            found.setdefault(model, {})[count] = digest(out)[1]
    return found


@contextmanager
def signal_at(call: int | None, number: int = signal.SIGINT, times: int = 1) -> Iterator[dict[str, int]]:
    """Inside this block, `number` arrives at the call-th call of a Python function, and `times` - 1 calls after it too.

    Yields counts that grow: of all calls, and of those before the first training step. The cycle collector is off: what its
    callbacks raise, such as those that hypothesis installs, Python prints and forgets.
    """
    counts = {"calls": 0, "before": 0}

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            counts["calls"] += 1
            if frame.f_code is Run.advance.__code__ and not counts["before"]:
                counts["before"] = counts["calls"]
            if call is not None and call <= counts["calls"] < call + times:
                signal.raise_signal(number)

    gc.disable()
    sys.setprofile(profile)
    try:
        yield counts
    finally:
        sys.setprofile(None)
        gc.enable()


def main(program: str, *arguments: str) -> int:
    MODELS["tiny"] = TINY
    if program == "train":
        return cli.main(["train", *arguments])
    if program == "kills":
        folder, count, seed, *rest = arguments
        print(json.dumps(kills(Path(folder), int(count), int(seed), *rest)))
        return 0
    if program == "threads":
        folder, models, counts, *rest = arguments
        print(json.dumps(digests(Path(folder), models, counts, *rest)))
        return 0
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
