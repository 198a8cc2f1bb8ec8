"""What a run is asked to do, and what may be asked. Start at `RunConfig`.

Every field, here and in the configuration of each model, says with `option` what it may hold: a help text, and a closed
range or the choices. The command line makes its flags from that. `check` holds a configuration to it, whether it comes
from flags, from a file or from Python, so that a configuration that exists is one that can be used.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from .. import data
from ..autograd.backend import BACKENDS, DEVICES
from ..models import MODELS, Diverged, ModelConfig
from ..models.model import option
from . import files

BUDGET = ("steps", "epochs", "minutes")  # at most one of them is given
CHANGEABLE = (*BUDGET, "threads", "capture", "lr")  # what a resumed run may change; lr after it has diverged


class ConfigError(ValueError):
    """What was asked for cannot be done. One line: what it is, why not, and the way out."""


@dataclass(frozen=True)
class RunConfig:
    """What a run is: `options` are the model's own (None: its defaults), the rest every run has.

    steps, epochs, minutes: when to stop, at most one of them; without any, the model's own number of steps counts, which is
    `options.steps` (so in config.json `steps` is null unless it was asked for). Minutes are of processor time in training
    steps, without the compilation of kernels: a budget means the same on a busy machine, and on one that has never run this.
    threads: CPU threads, None for all. The results do not depend on it, bit for bit.

    Raises ConfigError, naming the field, for a value that is not allowed.
    """

    model: str = option("vae", "what to train; see: minigen models")
    data: str = option("digits", "data set; see: minigen data")
    options: ModelConfig = option(None, "options of the model")  # noqa: RUF009  it returns a dataclass field
    steps: int | None = option(None, "stop after N steps", low=1)
    epochs: float | None = option(None, "stop after X passes over the training data", low=0.01)
    minutes: float | None = option(None, "stop after X minutes of processor time", low=0.001)
    seed: int = option(0, "seed of everything random", low=0, high=2**63 - 1)
    threads: int | None = option(None, "CPU threads; the results do not depend on it", low=1)
    backend: str = option("numba", "kernels to use: numba, or numpy to read along", choices=tuple(BACKENDS))
    device: str = option("cpu", "where to train: cpu, cuda, or cuda-emu, a GPU emulated by the CPU", choices=DEVICES)
    capture: bool = option(False, "record the training step as a CUDA graph, and replay it")
    checkpoint_every: int = option(500, "save after every N steps", low=1)
    evaluate_every: int = option(500, "evaluate and draw figures after every N steps", low=1)
    log_every: int = option(20, "write a line of metrics after every N steps", low=1)

    def __post_init__(self) -> None:
        for name, table in (("model", MODELS), ("data", data.DATASETS)):
            if getattr(self, name) not in list(table):
                raise ConfigError(unknown(name, getattr(self, name), table))
        kind = MODELS[self.model].config
        if self.options is None:
            object.__setattr__(self, "options", kind())
        if type(self.options) is not kind:
            raise ConfigError(f"options of {self.model} are a {kind.__name__}, not a {type(self.options).__name__}")
        check(self, skip=("model", "data", "options"))
        check(self.options)
        if self.capture and self.device == "cpu":
            raise ConfigError("--capture records what a GPU does: add --device cuda, or cuda-emu, or leave it out")
        reason = MODELS[self.model].cls.not_captured
        if self.capture and reason:
            raise ConfigError(f"--capture: a step of {self.model} cannot be recorded: {reason}; leave it out")
        given = [name for name in BUDGET if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"a run has one budget, not {' and '.join(given)}: leave out all but one")

    def to_json(self) -> dict[str, Any]:
        """All settings by name, as config.json holds them; the options of the model are a dict of their own."""
        return dataclasses.asdict(self)

    def fixed(self) -> dict[str, Any]:
        """The settings that may not change when a run is resumed, those of the model as `options.name`."""
        values = self.to_json()
        options = {f"options.{name}": value for name, value in values.pop("options").items() if name not in CHANGEABLE}
        return {name: value for name, value in values.items() if name not in CHANGEABLE} | options

    @classmethod
    def from_json(cls, values: Any) -> RunConfig:
        """The inverse of `to_json`; what is missing has its default. Raises ConfigError for anything else."""
        values = _settings(cls, values)
        model = values.get("model", cls.model)
        if model not in list(MODELS):
            raise ConfigError(unknown("model", model, MODELS))
        kind = MODELS[model].config
        return cls(**{**values, "options": kind(**_settings(kind, values.get("options", {})))})


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run in `folder`. Raises FileError if there is none, or none that this version can use."""
    path = folder / "config.json"
    with files.explained(folder, "cannot be read"):
        there, a_run = folder.exists(), path.exists()
    if not a_run:
        remedy = "give the folder of a run, which has a config.json, or start one with: minigen train MODEL --out FOLDER"
        raise files.FileError(folder, "no run here" if there else "no such folder", remedy)
    try:
        return RunConfig.from_json(files.read_json(path))
    except ConfigError as error:
        remedy = "restore it, or use the version of minigen that wrote it"
        raise files.FileError(path, f"not the configuration of a run: {error}", remedy) from error


def require_finite(numbers: Mapping[str, float], step: int) -> None:
    """Raise Diverged for a number that is not finite."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise Diverged(f"step {step}: {name} is {value}: training has diverged")


# ---- what a field may hold


def fields(config: type) -> Iterable[tuple[dataclasses.Field, type]]:
    """Each field of a configuration, with the type of its values: int for `int | None`."""
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        yield field, get_args(hint)[0] if isinstance(hint, types.UnionType) else hint


def check(config: Any, skip: Iterable[str] = ()) -> None:
    """Raise ConfigError for the first field of a configuration whose value is not allowed."""
    for field, kind in fields(type(config)):
        value = getattr(config, field.name)
        if field.name not in skip and not (value is None and field.default is None) and not fits(value, kind, **bounds(field)):
            raise ConfigError(f"{field.name} needs {allowed(kind, **bounds(field))}, not {short(value)}")


def bounds(field: dataclasses.Field) -> dict[str, Any]:
    """low, high and choices of a field."""
    return {name: field.metadata[name] for name in ("low", "high", "choices")}


def fits(value: Any, kind: type, low: Any = None, high: Any = None, choices: Collection[str] = ()) -> bool:
    """Whether a value is of its kind (int, float, bool or str), finite, and in its closed range or among its choices."""
    if not (type(value) is kind or (kind is float and type(value) is int)):  # JSON and people write 1 for 1.0
        return False
    if isinstance(value, int | float) and kind is not bool:
        in_range = (low is None or value >= low) and (high is None or value <= high)
        return in_range and (kind is int or abs(value) <= sys.float_info.max)  # false for NaN
    return not choices or value in choices


def allowed(kind: type, low: Any = None, high: Any = None, choices: Collection[str] = ()) -> str:
    """What `fits`, in words: "a whole number of at least 1", "one of numba, numpy"."""
    if choices:
        return f"one of {', '.join(choices)}"
    what = {int: "a whole number", float: "a finite number", bool: "true or false"}.get(kind, "a text")
    if low is not None and high is not None:
        return f"{what} from {low} to {high}"
    return f"{what} of at least {low}" if low is not None else f"{what} of at most {high}" if high is not None else what


def unknown(what: str, value: Any, known: Iterable[str]) -> str:
    """A name that does not exist: the nearest one, and all."""
    near = difflib.get_close_matches(str(value), list(known), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown {what} {short(value)}; {hint}known are {', '.join(known)}"


def short(value: Any) -> str:
    """A value as Python writes it, cut off where it gets long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _settings(kind: type, values: Any) -> dict[str, Any]:
    """Values by name of field. Raises ConfigError for what is no such thing."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{kind.__name__} needs settings by name, not {short(values)}")
    names = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in names:
            raise ConfigError(unknown(f"setting of {kind.__name__}", name, names))
    return dict(values)
