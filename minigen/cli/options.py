"""Options made from the fields of configurations, and refusals that name what is known. Start at `add_fields`."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from .. import data
from ..training import config as rules
from ..training.config import BUDGET, ConfigError, RunConfig


class UsageError(ConfigError):
    """Arguments that are not understood."""


class Parser(argparse.ArgumentParser):
    """argparse that raises, names what it knows, and does not guess at abbreviations. Its subparsers are of this class too."""

    def __init__(self, **kwargs: Any):
        look = lambda prog: argparse.HelpFormatter(prog, max_help_position=32)
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=look)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        missing = message.removeprefix("the following arguments are required: ")
        if missing != message:
            choices = [", ".join(a.choices) for a in self._actions if a.choices and a.metavar == missing]
            message = f"{missing} is missing" + "".join(f": one of {names}" for names in choices)
        raise UsageError(f"{self.prog}: {message.removeprefix('argument ')} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A COMMAND or MODEL that does not exist: name the nearest one, and all."""
        if action.choices is not None and value not in action.choices:
            self.error(rules.unknown(str(action.metavar).lower(), value, list(action.choices)))

    def refuse_rest(self, argument: str) -> NoReturn:
        """An option that does not exist, or an argument too many."""
        if not argument.startswith("-"):
            self.error(f"{rules.short(argument)} is one argument too many")
        name = argument.split("=", 1)[0]
        near = difflib.get_close_matches(name, self._option_string_actions, n=1)
        self.error(f"unknown option {rules.short(name)}" + (f"; did you mean {near[0]}?" if near else ""))


def add_train_options(parser: Parser, config: type) -> None:
    """The options of `minigen train MODEL`: those of every run, and those of the model."""
    parser.usage = "%(prog)s [options]"
    run = parser.add_argument_group("run")
    add_fields(run, RunConfig, ["data"])
    shown = {"steps": config().steps, "threads": "all"}
    add_fields(run.add_mutually_exclusive_group(), RunConfig, BUDGET, shown)
    add_fields(run, RunConfig, ["seed", "threads", "backend", "device", "capture"], shown)
    run.add_argument("--out", type=a_folder, metavar="FOLDER", help="where the run goes (default: runs/MODEL-DATA)")
    run.add_argument("--resume", action="store_true", help="continue the run in --out, bit for bit as if never stopped")
    add_fields(run, RunConfig, ["checkpoint_every", "evaluate_every", "log_every"])
    run.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_fields(parser.add_argument_group("model"), config, [f.name for f in dataclasses.fields(config) if f.name not in BUDGET])


def add_fields(group: Any, config: type, names: Iterable[str], shown: Mapping[str, Any] = {}) -> None:
    """An option for each named field of a configuration; None stands for one that was not given.

    shown: what to call the default where it is not the field's.
    """
    by_name = {field.name: (field, kind) for field, kind in rules.fields(config)}
    for name in names:
        field, kind = by_name[name]
        default = shown.get(name, field.default)
        text = field.metadata["help"] + ("" if default is None else f" (default: {default})")
        choices = field.metadata["choices"]
        if kind is bool:
            group.add_argument(flag(name), action=argparse.BooleanOptionalAction, default=None, help=text)
            continue
        metavar = "{" + ",".join(choices) + "}" if choices else {int: "N", float: "X"}.get(kind, "NAME")
        limits = {"choices": data.DATASETS} if name == "data" else rules.bounds(field)
        group.add_argument(flag(name), type=value(kind, **limits), metavar=metavar, help=text)


def flag(name: str) -> str:
    """How a setting is called on the command line: batch_size is --batch-size."""
    return "--" + name.replace("_", "-")


def value(kind: type, low: Any = None, high: Any = None, choices: Collection[str] = ()) -> Callable[[str], Any]:
    """A parser of values of one kind, in a closed range or among choices. It raises ArgumentTypeError."""

    def parse_value(text: str) -> Any:
        with suppress(ValueError):
            parsed = kind(text)
            if rules.fits(parsed, kind, low, high, choices):
                return parsed
        if choices:
            raise argparse.ArgumentTypeError(rules.unknown("name", text, choices))
        raise argparse.ArgumentTypeError(f"needs {rules.allowed(kind, low, high)}, not {rules.short(text)}")

    return parse_value


def a_folder(text: str) -> Path:
    """A parser of folders: anything but nothing, which would be the current one. Raises ArgumentTypeError for an empty name."""
    if not text.strip():
        raise argparse.ArgumentTypeError("needs the name of a folder, not ''")
    return Path(text)


def a_name(text: str) -> Path:
    """A parser of the names of files, to which endings are added. Raises ArgumentTypeError for one that no file can have."""
    if text.endswith(("/", os.sep)) or Path(text).name in ("", ".."):
        raise argparse.ArgumentTypeError(f"needs a name that .png and .npy can be added to, not {rules.short(text)}")
    return Path(text)
