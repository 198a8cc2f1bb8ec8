"""A training run: its configuration, its folder, its loop. Start at `train`.

    runs/vae-digits/
      config.json         what was asked for: enough to build the same run again
      environment.json    with what it ran: versions, processor, threads
      metrics.jsonl       one line of numbers per interval, and per evaluation
      checkpoints/        the whole state, written atomically (checkpoint.py): `--resume` continues bit for bit
      figures/            pictures, drawn anew at each evaluation

Everything random comes from three generators that are split from one seed: the parameters' start, the order of the data, and
the noise of the steps. Evaluation uses a fourth one, made anew each time, so that looking at a run does not change it.
"""

from __future__ import annotations

import dataclasses
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from ..autograd import backend
from ..models import MODELS, Model, ModelConfig
from ..optim import EMA
from ..random import Generator
from . import files
from .checkpoint import Checkpoints, Latest, require_same
from .progress import Progress


@dataclass(frozen=True)
class RunConfig:
    """What a run is: `options` are the model's own, the rest every run has.

    steps, epochs, minutes: when to stop, the first that is reached; None does not count. Minutes are of processor time of this
    process, so that a budget means the same on a busy machine; if all are None the model's own default of steps counts.
    threads: CPU threads, None for all. The results do not depend on it, bit for bit.
    """

    model: str = "vae"
    data: str = "digits"
    options: ModelConfig = field(default_factory=ModelConfig)
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    seed: int = 0
    threads: int | None = None
    backend: str = "numba"
    device: str = "cpu"
    checkpoint_every: int = 500
    evaluate_every: int = 500
    log_every: int = 20

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunConfig:
        """The inverse of `to_json`. Raises ValueError for fields that do not exist, naming them."""
        values = dict(values)
        model = values.get("model")
        if model not in MODELS:
            raise ValueError(f"unknown model {model!r}; known are {', '.join(MODELS)}")
        options = values.pop("options", {})
        for kind, given in ((cls, values), (MODELS[model].config, options)):
            unknown = sorted(set(given) - {f.name for f in dataclasses.fields(kind)})
            if unknown:
                raise ValueError(f"unknown setting {', '.join(unknown)} of {kind.__name__}")
        return cls(options=MODELS[model].config(**options), **values)

    @property
    def last_step(self) -> float:
        """The step to stop at, not counting epochs and minutes."""
        if self.steps is not None:
            return self.steps
        return self.options.steps if self.epochs is None and self.minutes is None else float("inf")


class Run:
    """A model in training: everything that a checkpoint holds."""

    def __init__(self, config: RunConfig):
        if config.device != "cpu":
            problem = backend.cuda_problem() or "this version trains on the CPU only: leave out --device"
            raise backend.DeviceError(f"cannot use device {config.device!r}: {problem}")
        self.config = config
        self.data = data.load(config.data, "train")
        self.test = data.load(config.data, "test")
        weights, order, self.rng = Generator(config.seed).split(3)
        self.model: Model = MODELS[config.model].build(self.data.x.shape[1:], config.options, weights)
        self.optimizers = self.model.optimizers()
        first = next(iter(self.optimizers.values()))
        self.ema = EMA(first.flat, config.options.ema) if config.options.ema else None
        self.order = data.BatchOrder(len(self.data), config.options.batch_size, order)
        self.step = 0
        self.cpu_seconds = 0.0

    def advance(self) -> dict[str, float]:
        """One training step. Returns the terms that the model reports."""
        batch = self.data.x[next(self.order)]
        terms = self.model.train_step(batch, self.rng, self.optimizers)
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        return terms

    def averaged(self) -> Any:
        """`with run.averaged():` the model has its averaged parameters, where the run keeps an average."""
        return self.ema.applied() if self.ema is not None else nullcontext()

    def evaluation_rng(self) -> Generator:
        """A generator for looking at the model at this step, independent of those that training uses."""
        return Generator(self.config.seed + 0x9E3779B97F4A7C15 * (self.step + 1) % 2**64)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "ema": None if self.ema is None else self.ema.state_dict(),
            "rng": self.rng.state,
            "order": self.order.state,
            "cpu_seconds": self.cpu_seconds,
        }

    def restore(self, latest: Latest) -> None:
        """Take over the state of a checkpoint. Raises CheckpointError if it is that of another model."""
        state = latest.state
        require_same(state["model"], self.model.state_dict(), latest.path)
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.rng.state = state["rng"]
        self.order.state = state["order"]
        self.cpu_seconds = state["cpu_seconds"]
        self.step = latest.step


def load_run(folder: Path) -> Run:
    """The run in `folder` at its newest good checkpoint. Raises CheckpointError, saying what is wrong and what to do."""
    config = read_config(folder)
    latest = Checkpoints(folder / "checkpoints").latest()
    backend.set_backend(config.backend)
    run = Run(config)
    run.restore(latest)
    return run


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run in `folder`."""
    path = folder / "config.json"
    values = files.read_json(path)
    try:
        return RunConfig.from_json(values)
    except (TypeError, ValueError) as error:
        raise files.FileError(path, str(error), "use the version of minigen that wrote it, or start a new run") from error


def train(config: RunConfig, folder: Path, resume: bool = False, quiet: bool = False) -> Run:
    """Train until the budget of `config` is spent, or until Ctrl-C: it lets the step finish, saves, raises KeyboardInterrupt.

    folder: the run's folder. A new run refuses one that holds a run already; resume continues it from its newest good
    checkpoint, and ends bit for bit where an uninterrupted run would have.
    """
    from ..autograd.kernels import jit  # imports numba, which takes a moment
    from .figures import evaluate_and_draw

    backend.set_backend(config.backend)
    jit.set_threads(config.threads)
    checkpoints = Checkpoints(folder / "checkpoints")
    latest = checkpoints.latest() if resume else None
    if not resume and (folder / "config.json").exists():
        raise files.FileError(folder, "there is a run in this folder already", "add --resume, or choose another --out")
    run = Run(config)
    files.make_folder(folder / "figures")
    progress = Progress(run, quiet)
    metrics = folder / "metrics.jsonl"
    if latest is not None:
        run.restore(latest)
        for error in latest.rejected:
            progress.say(f"warning: {error}")
        progress.say(f"resuming {folder} at step {run.step}")
        if metrics.exists():  # a killed run may have written lines beyond its last checkpoint
            files.write_lines(metrics, [line for line in files.read_lines(metrics) if line["step"] <= run.step])
    files.write_json(folder / "config.json", config.to_json())
    files.write_json(folder / "environment.json", environment(run))

    def save() -> None:
        checkpoints.save(run.step, run.state(), {"version": environment(run)["minigen"]})

    def finished() -> bool:
        epochs = run.step / run.order.batches_per_epoch
        return (
            run.step >= config.last_step
            or (config.epochs is not None and epochs >= config.epochs)
            or (config.minutes is not None and run.cpu_seconds >= 60 * config.minutes)
        )

    saved = run.step if latest is not None else -1
    with _finish_the_step() as interrupted, progress:
        while not finished() and not interrupted:
            start, start_cpu = time.perf_counter(), time.process_time()
            terms = run.advance()
            run.cpu_seconds += time.process_time() - start_cpu
            progress.update(terms, time.perf_counter() - start)
            last = finished() or bool(interrupted)
            if run.step % config.log_every == 0 or last:
                files.append_line(metrics, {"step": run.step, "cpu_seconds": run.cpu_seconds, **progress.averages()})
            if run.step % config.checkpoint_every == 0 or last:
                save()
                saved = run.step
            if run.step % config.evaluate_every == 0 or (last and not interrupted):
                scores = evaluate_and_draw(run, folder)
                files.append_line(metrics, {"step": run.step, **scores})
                progress.scores(scores)
    if saved < run.step:
        save()
    if interrupted:
        progress.say(f"interrupted: saved step {run.step} in {folder}; continue with --resume")
        raise KeyboardInterrupt
    return run


@contextmanager
def _finish_the_step() -> Iterator[list]:
    """Within it, Ctrl-C and SIGTERM add to the list that it yields; a second one interrupts at once."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment(run: Run) -> dict[str, Any]:
    """With what a run was computed: versions, processor, threads, data."""
    from .. import __version__
    from ..autograd.kernels import jit

    return {
        "minigen": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": jit.numba.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": jit.get_threads(),
        "data_sha256": run.data.sha256,
        "parameters": run.model.num_parameters(),
        "command": sys.argv,
    }


def _processor() -> str:
    """The processor's model name, as the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
