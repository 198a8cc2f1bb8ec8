"""What a training run writes into its folder, and when. Start at `Recorder.after_step`.

Metrics are due at fixed steps, and written before the checkpoint of the step. So a checkpoint is always one whose metrics are
complete, and a run that is killed anywhere and resumed writes the same lines as one that was not.
"""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..autograd import backend
from ..models import Diverged
from . import figures, files
from .checkpoint import CheckpointError, Checkpoints
from .config import require_finite
from .progress import Progress

TIMINGS = ("cpu_seconds", "samples_per_second")  # all that differs between the metrics of two equal runs
CHANGES_BITS = ("minigen", "numpy", "numba", "processor", "gpu", "data_sha256")  # what results depend on in the environment


class Recorder:
    """Writes the folder of a run: `start` once, then `after_step`; at the end `save` and `finish`.

    Making one only reads. Raises FileError for a folder that was tampered with.
    """

    def __init__(self, run: Any, folder: Path, checkpoints: Checkpoints, progress: Progress):
        self.run, self.folder, self.checkpoints, self.progress = run, folder, checkpoints, progress
        self.metrics = folder / "metrics.jsonl"
        self.environment = folder / "environment.json"
        self.saved = run.step or None  # the step whose state, as it is, has been saved
        self.before = files.read_json(self.environment) if self.environment.exists() else {}
        config = folder / "config.json"
        self.settings = files.read_json(config) if config.exists() else None  # with which the run was made that is resumed
        self.begun = run.step  # where it is resumed
        self.found = files.read_lines(self.metrics) if self.metrics.exists() else []
        self.lines = [line for i, line in enumerate(self.found) if self._stays(line, i + 1)]

    def start(self) -> None:
        """Prepare the folder. What was written after the checkpoint that is resumed from will be written again.

        The new settings of a resumed run, its learning rate say, are written with the first checkpoint that was made with them.
        """
        folder, now = self.folder, environment(self.run)
        files.make_folder(folder)
        files.remove_orphans(folder)
        if self.settings is None:
            self._write_settings(self.run.config.to_json())  # first: with it, the run can be resumed
        files.remove_orphans(files.make_folder(folder / "figures"))
        for name in CHANGES_BITS:
            if isinstance(self.before, dict) and self.before.get(name, now[name]) != now[name]:
                self.progress.say(f"warning: {name} was {self.before[name]}, is {now[name]}: the last digits may differ")
        files.write_json(self.environment, now)
        if self.metrics.exists():
            files.write_lines(self.metrics, self.lines)
        self._duties()

    def _stays(self, line: Any, number: int) -> bool:
        """Whether a line of metrics was due by now, and counts as written in the state that is resumed from.

        The last lines of a run that now goes on were not due; one whose writing failed at the very end does not count.
        """
        if not isinstance(line, dict) or type(line.get("step")) is not int:
            raise files.FileError(self.metrics, f"line {number} has no step", "correct it, or delete the file")
        step, run = line["step"], self.run
        means = "samples_per_second" in line
        every = run.config.log_every if means else run.config.evaluate_every
        counts = run.count == 0 if means else run.evaluated == run.step
        return step % every == 0 and (step < run.step or (step == run.step and counts))

    def after_step(self) -> None:
        """What is due, then the checkpoint. Where something cannot be written, save what has been learned, and stop."""
        try:
            self._duties()
        except (OSError, files.FileError):
            with suppress(CheckpointError, Diverged):  # the first failure is the one to report
                self.save()
            raise
        if self.run.step % self.run.config.checkpoint_every == 0:
            self.save()

    def _duties(self) -> None:
        """The lines and figures that are due at this step. After a resume: those that could not be written before."""
        run, config = self.run, self.run.config
        if run.step % config.log_every == 0 and run.count:
            self._write_means()
            run.sums, run.count, self.saved = {}, 0, None
        if run.step % config.evaluate_every == 0 and run.evaluated < run.step:
            self._write_scores()
            run.evaluated, self.saved = run.step, None
            figures.draw(run, self.folder)

    def finish(self) -> None:
        """The last lines and figures, where they were not due anyway. They leave no trace in the state, saved before."""
        if self.run.count:
            self._write_means()
        if self.run.evaluated < self.run.step:
            self._write_scores()
            figures.draw(self.run, self.folder)

    def save(self) -> None:
        """A checkpoint of the state as it is, unless there is one. Raises Diverged rather than save what cannot go on."""
        if self.saved != self.run.step:
            state = self.run.state()
            _require_sound(state["model"], self.run.step)
            if self.settings is not None:
                self._write_settings(self.run.config.to_json())
            self.checkpoints.save(self.run.step, state, {"minigen": __version__})
            self.saved = self.run.step

    def take_back(self) -> bool:
        """The settings and metrics of before the run was resumed, if no good checkpoint was made since. Returns whether so."""
        if self.settings is None or self.checkpoints.steps()[-1:] > [self.begun]:
            return False
        self._write_settings(self.settings)
        files.write_lines(self.metrics, self.found)
        return True

    def _write_settings(self, settings: Any) -> None:
        files.write_json(self.folder / "config.json", settings)

    def _write_means(self) -> None:
        timings = dict(zip(TIMINGS, (self.run.cpu_seconds, self.progress.lap()), strict=True))
        files.append_line(self.metrics, {"step": self.run.step, **self.run.means(), **timings})

    def _write_scores(self) -> None:
        scores = figures.scores(self.run)
        require_finite(scores, self.run.step)
        files.append_line(self.metrics, {"step": self.run.step, **scores})
        likelihood = any(name.startswith("test_") for name in scores)
        self.progress.scores(self.run.step, scores, self._beside if likelihood else "")

    @cached_property
    def _beside(self) -> str:
        return figures.beside(self.run)


def _require_sound(arrays: dict[str, np.ndarray], step: int) -> None:
    """Raise Diverged for a NaN or an infinity, which a last update may have put into a model whose loss was still finite."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Diverged(f"step {step}: {name} is no longer finite: training has diverged")


def environment(run: Any) -> dict[str, Any]:
    """With what a run was computed: versions, processor, threads, GPU, data."""
    from ..autograd.kernels import jit

    return {
        "minigen": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": jit.numba.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": jit.get_threads(),
        "gpu": backend.gpu_name() if run.device == "cuda" else None,
        "data_source": run.data.source,
        "data_sha256": run.data.sha256,
        "parameters": run.model.num_parameters(),
        "command": sys.argv,
    }


def _processor() -> str:
    """The processor's model name, as the system calls it."""
    with suppress(OSError):  # a file of Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
