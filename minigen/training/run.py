"""A training run: its state and its loop. Start at `train`. The folder of a run:

    runs/vae-digits/
      config.json         what was asked for: enough to build the same run again (config.py)
      environment.json    with what it ran: versions, processor, threads, data (recorder.py)
      metrics.jsonl       a line of training means every log_every steps, and a line of scores for each evaluation
      checkpoints/        the whole state, written atomically: `--resume` continues bit for bit (checkpoint.py)
      figures/            pictures, drawn anew at each evaluation (figures.py)

Everything random comes from three generators that are split from one seed: the parameters' start, the order of the data, and
the noise of the steps. Evaluation uses a fourth one, made anew each time, so that looking at a run does not change it.

What a run does after a step depends on its state alone, and the state is saved last. So wherever it is stopped or killed, the
newest checkpoint is one whose metrics are complete, and the resumed run writes what an uninterrupted one would have written.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from ..autograd import backend
from ..autograd.capture import CaptureError
from ..data import DATASETS, BatchOrder, Dataset
from ..data import load as load_data
from ..models import MODELS, Diverged, Model, ModelConfig
from ..optim import EMA
from ..random import Generator
from . import files
from .batches import Batches
from .captured import CapturedSteps
from .checkpoint import CheckpointError, Checkpoints, Latest, require_same
from .config import ConfigError, RunConfig, read_config, require_finite
from .interrupt import interruption
from .progress import Progress, say_when_compiling
from .recorder import Recorder


def train(config: RunConfig, folder: Path, resume: bool = False, quiet: bool = False) -> Run:
    """Train until the budget of `config` is spent. Returns the run.

    folder: the run's folder. A new run wants one that is empty or does not exist; resume continues the run that is there
    from its newest good checkpoint, and ends bit for bit where an uninterrupted run would have.     quiet: print nothing.

    After Ctrl-C or SIGTERM the step is finished, the state saved, and `Interrupted` raised; after a second one it is raised at
    once. Raises ConfigError, DataError, DeviceError, FileError or CheckpointError, before anything is written, for what cannot
    be done; FileError for what cannot be written later, having saved the state if that can be; Diverged. What a resumed run is
    given anew, its learning rate say, stays in config.json once a checkpoint was made with it, and not before.
    """
    progress = Progress(quiet)
    with interruption(quiet) as stop, progress, say_when_compiling(progress.say):
        run, checkpoints, news = _resumed(config, folder) if resume else _begun(config, folder)
        recorder = Recorder(run, folder, checkpoints, progress)
        for text in (*news, *run.model.remarks()):
            progress.say(text)
        if backend.emulated() and run.device == "cuda":
            progress.say("a GPU emulated by the CPU: the first step compiles its kernels, and every step takes long")
        recorder.start()
        progress.start(run)
        stop.patient = True
        with _rolled_back(run, recorder):
            while run.spent < 1 and not stop.signal:
                start = time.perf_counter()
                terms = run.advance()
                progress.update(terms, time.perf_counter() - start)
                recorder.after_step()
            recorder.save()
        stop.news = f"interrupted: saved step {run.step} in {folder}; continue with --resume"
        if not stop.signal:
            with _rolled_back(run, recorder):
                recorder.finish()
    return run


@contextmanager
def _rolled_back(run: Run, recorder: Recorder) -> Iterator[None]:
    """Inside this block, a divergence takes the run back to its last good checkpoint, and says how to go on from there.

    A checkpoint is good if the step after it was, with the same learning rate: one that the next step failed at is deleted.
    Where none is left of those made since the run was resumed, it also has its settings of before.
    """
    checkpoints, lr = recorder.checkpoints, run.config.options.lr
    before = lr if recorder.settings is None else RunConfig.from_json(recorder.settings).options.lr
    try:
        yield
    except Diverged as error:
        if run.step in checkpoints.steps() and (run.step > recorder.begun or lr == before):
            checkpoints.delete(run.step)
        steps = checkpoints.steps()
        where = f"its last good checkpoint, step {steps[-1]}" if steps else "its beginning, for there is no good checkpoint"
        if recorder.take_back() and before != lr:
            way = f"the run is back at {where}, and at its learning rate of before, {before:g}: go on with --resume"
        else:
            way = f"the run is back at {where}: go on with --resume --lr {lr / 2:g}, or less"
        raise Diverged(f"{error}; {way}") from error


def load_run(folder: Path, device: str = "cpu") -> Run:
    """The run in `folder` at its newest good checkpoint, to look at on a device.

    A newer checkpoint that is damaged is passed over with a warning on standard error. Raises CheckpointError, FileError or
    DeviceError.
    """
    config = read_config(folder)
    latest = Checkpoints(folder / "checkpoints").latest()
    _warn(latest)
    backend.set_backend(config.backend)
    run = Run(dataclasses.replace(config, device=device, capture=False))  # whatever it was trained on
    run.looked_on = run.device
    run.restore_model(latest)
    return run


class Run:
    """A model in training: everything that a checkpoint holds.

    load: have the data in memory before the model is made; otherwise they are loaded when they are asked for.
    Raises ConfigError, DataError or DeviceError for what cannot be had.
    """

    def __init__(self, config: RunConfig, load: bool = False):
        self.config = config
        self.device = backend.use_device(config.device)
        if load:
            _ = self.data, self.test
        weights, self._order_rng, self.rng = Generator(config.seed).split(3)
        self.model = _built(config, weights)
        self.model.to(self.device)
        self.rng.device = self.device
        self.optimizers = self.model.optimizers()
        first = next(iter(self.optimizers.values()))
        self.ema = EMA(first.flat, config.options.ema) if config.options.ema else None
        parts = self.model, self.rng, self.optimizers, self.ema
        self.captured = CapturedSteps(*parts) if config.capture else None
        self.step = 0
        self.cpu_seconds = 0.0
        self.sums: dict[str, float] = {}  # of the terms that the steps report, since the last line of metrics,
        self.count = 0  # and the number of these steps
        self.evaluated = 0  # the step of the last evaluation
        self.looked_on = "cpu"  # where the model is looked at

    @cached_property
    def data(self) -> Dataset:
        """The training split."""
        found, size = load_data(self.config.data, "train"), self.config.options.batch_size
        if size > len(found):
            raise ConfigError(f"--batch-size {size}: {found.name} has {len(found)} training samples; choose at most as many")
        return found

    @cached_property
    def test(self) -> Dataset:
        """The test split."""
        return load_data(self.config.data, "test")

    @cached_property
    def order(self) -> BatchOrder:
        """Which samples come when."""
        return BatchOrder(len(self.data), self.config.options.batch_size, self._order_rng)

    @cached_property
    def batches(self) -> Batches:
        """The training samples, in that order, on the device of the run."""
        return Batches(self.data, self.order, self.device, labelled=bool(self.model.classes))

    def advance(self) -> dict[str, float]:
        """One training step. Returns the terms that the model reports. Raises Diverged, also for one that is not finite."""
        from ..autograd.kernels import jit

        start, compiled = time.process_time(), jit.compiling_seconds()  # what is compiled once is no part of a budget
        x, labels = self.batches()
        try:
            terms = self._step(x, labels)
        except Diverged as error:
            raise Diverged(f"step {self.step + 1}: {error}") from error
        require_finite(terms, self.step + 1)
        self.step += 1
        self.cpu_seconds += time.process_time() - start - (jit.compiling_seconds() - compiled)
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        return terms

    def _step(self, x: Any, labels: dict[str, Any]) -> dict[str, float]:
        """Update the parameters, and their average, on a batch. Returns the terms."""
        if self.captured is not None:
            try:
                return self.captured(x, labels)
            except CaptureError as error:
                raise ConfigError(f"--capture: {error}; leave it out, with --resume if there is a checkpoint") from error
        terms = self.model.train_step(x, self.rng, self.optimizers, **labels)
        if self.ema is not None:
            self.ema.update()
        return terms

    def means(self) -> dict[str, float]:
        """The mean of each term over the steps since the last line of metrics."""
        return {name: total / self.count for name, total in self.sums.items()}

    @property
    def last_step(self) -> int | None:
        """The step to stop at; None where processor time decides."""
        config = self.config
        if config.minutes is not None:
            return None
        if config.epochs is not None:
            return math.ceil(config.epochs * self.order.batches_per_epoch)
        return config.steps or config.options.steps

    @property
    def spent(self) -> float:
        """How much of the budget is spent: 1 when the run is done."""
        if self.last_step is not None:
            return self.step / self.last_step
        return self.cpu_seconds / (60 * (self.config.minutes or math.inf))

    def averaged(self) -> AbstractContextManager[None]:
        """`with run.averaged():` the model has its averaged parameters, where the run keeps an average."""
        return self.ema.applied() if self.ema is not None else nullcontext()

    @contextmanager
    def looked_at(self) -> Iterator[Model]:
        """The model in evaluation mode, with its averaged parameters: a copy on the CPU, if the run trains on a GPU."""
        model = self.model
        model.eval()
        try:
            with self.averaged():
                if self.device != self.looked_on:
                    self.model = _built(self.config, Generator(0))
                    self.model.load_state_dict(model.state_dict())
                    self.model.eval()
                yield self.model
        finally:
            self.model = model
            model.train()

    def evaluation_rng(self) -> Generator:
        """A generator for looking at the model at this step, independent of those that training uses."""
        return Generator(self.config.seed << 64 | self.step + 1, self.looked_on)

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, as a checkpoint holds it: `restore` takes it over."""
        return {
            "config": self.config.fixed(),
            "model": self.model.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "ema": None if self.ema is None else self.ema.state_dict(),
            "rng": self.rng.state,
            "order": self.order.state,
            "sums": dict(self.sums),
            "count": self.count,
            "evaluated": self.evaluated,
            "cpu_seconds": self.cpu_seconds,
        }

    def restore(self, latest: Latest) -> None:
        """Take over the state of a checkpoint, to go on with. Raises CheckpointError if it is that of another run."""
        self.restore_model(latest)
        state = latest.state
        with _fitting(latest):
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            self.rng.state = state["rng"]
            self.order.state = state["order"]
            self.sums, self.count = dict(state["sums"]), state["count"]
            self.evaluated = state["evaluated"]

    def restore_model(self, latest: Latest) -> None:
        """Take over what looking at the model needs: parameters and their average."""
        with _fitting(latest):
            _require_config(latest, self.config)
            require_same(latest.state["model"], self.model.state_dict(), latest.path)
            self.model.load_state_dict(latest.state["model"])
            if self.ema is not None:
                self.ema.load_state_dict(latest.state["ema"])
            self.step, self.cpu_seconds = latest.step, latest.state["cpu_seconds"]


def _require_config(latest: Latest, config: RunConfig) -> None:
    """Raise CheckpointError if the checkpoint was written under another configuration than that of config.json."""
    saved = latest.state.get("config", {})
    for name, value in config.fixed().items():
        if name != "device" and name in saved and saved[name] != value:  # a run is looked at on the CPU: see load_run
            reason = f"it was written with {name} = {saved[name]!r}, and config.json says {value!r}"
            raise CheckpointError(latest.path, reason, "undo the change in config.json, or start a new run with --out")


@contextmanager
def _fitting(latest: Latest) -> Iterator[None]:
    """Inside this block, a state that does not fit is a CheckpointError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it does not fit this run: {type(error).__name__}: {error}"
        raise CheckpointError(latest.path, reason, "delete it if it came from elsewhere, or start a new run") from error


def _built(config: RunConfig, rng: Generator) -> Model:
    """A new model. Raises ConfigError where it does not go with the data."""
    try:
        return MODELS[config.model].build(DATASETS[config.data].shape, _with_levels(config), rng)
    except ValueError as error:
        raise ConfigError(f"{config.model} on {config.data}: {error}") from error


def _with_levels(config: RunConfig) -> ModelConfig:
    """The options of the model; one of grey levels that leaves open how many (0) is told the data's. Raises ConfigError."""
    options: Any = config.options
    given = DATASETS[config.data].levels or 0  # 0: points
    if not hasattr(options, "levels"):
        return options
    if options.levels not in (0, given):
        have = f"images of {given} grey levels" if given else "points"
        raise ConfigError(f"--levels {options.levels}: {config.data} are {have}; leave the option out")
    return dataclasses.replace(options, levels=given)


# ---- the beginning of a run: everything is refused here that can be, before anything is written


def _begun(config: RunConfig, folder: Path) -> tuple[Run, Checkpoints, list[str]]:
    """A new run, in a folder that is empty or not yet there."""
    with files.explained(folder, "cannot be read"):
        others = sorted(set(os.listdir(folder)) if folder.is_dir() else ())
    if "config.json" in others:
        raise files.FileError(folder, "there is a run in this folder already", "add --resume, or choose another --out")
    for name in others:
        if not files.ORPHAN.fullmatch(name):
            reason = f"not empty, and holds no run: there is {name!r}"
            raise files.FileError(folder, reason, "choose an empty or a new folder with --out")
    return _ready(config), Checkpoints(folder / "checkpoints"), []


def _resumed(config: RunConfig, folder: Path) -> tuple[Run, Checkpoints, list[str]]:
    """The run in `folder`, at its newest good checkpoint, or at the start if it was stopped before the first one.

    Also what there is to say about it.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    latest = checkpoints.latest() if checkpoints.steps() else None
    run = _ready(config)
    if latest is not None:
        run.restore(latest)
        _warn(latest)
    if run.last_step is not None and run.step > run.last_step:
        raise ConfigError(f"the run in {folder} is at step {run.step} already, beyond {run.last_step}: give it a larger budget")
    done = "; it is complete: for more, give it a larger budget" if run.spent >= 1 else ""
    news, before = [f"resuming {folder} at step {run.step}{done}"], read_config(folder).options.lr
    if config.options.lr != before:
        news.append(f"learning rate {config.options.lr:g} from here on, {before:g} so far")
    return run, checkpoints, news


def _warn(latest: Latest) -> None:
    """Say which newer checkpoints cannot be used, however quiet the run: the step shown is not the newest."""
    for error in latest.rejected:
        print(f"minigen: warning: {error}; using step {latest.step} instead", file=sys.stderr, flush=True)


def _ready(config: RunConfig) -> Run:
    """A run at its first step, with its data in memory."""
    from ..autograd.kernels import jit  # imports numba, which takes a moment

    try:
        jit.set_threads(config.threads)
    except ValueError as error:
        raise ConfigError(f"--threads {config.threads}: {error}") from error
    backend.set_backend(config.backend)
    run = Run(config, load=True)
    known = 0 if run.data.y is None else int(run.data.y.max()) + 1
    if run.model.classes not in (0, known):
        raise ConfigError(f"--classes {run.model.classes}: {config.data} has {known or 'no'} classes; give as many, or none")
    return run
