"""The command line, thin: it parses, calls, prints. Start at `main`; each command is a function below it.

Options of a model come from the fields of its configuration (a frozen dataclass), with their help texts, ranges and defaults;
see `add_fields`. Every refusal is one line on standard error that says what is wrong and how to mend it, and exit status 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from . import __version__, data
from .autograd import backend
from .models import CAPABILITIES, MODELS
from .training.files import FileError
from .training.run import RunConfig

BUDGET = ("steps", "epochs", "minutes")  # what a resumed run may change


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `minigen ARGUMENTS...`. Returns the exit status: 0, 1 for a failed check, 2 for bad input, 130 after Ctrl-C."""
    args = build_parser().parse_args(arguments)
    try:
        status = args.command(args)
        sys.stdout.flush()
        return status or 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe, `| head` for instance, has gone
        sys.stderr.close()
        return 0
    except (ValueError, FileError, OSError, backend.DeviceError) as error:
        if args.debug:
            raise
        print(f"minigen: {_one_line(error)}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="minigen",
        description="Deep generative models on a from-scratch engine.",
        epilog="Start with: minigen train vae",
    )
    parser.add_argument("--version", action="version", version=f"minigen {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int | None], summary: str) -> Any:
        sub = commands.add_parser(name, help=summary, description=_sentence(summary))
        sub.set_defaults(command=run)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return sub

    train = command("train", train_command, "train a model; see the options of each with: minigen train MODEL --help")
    models = train.add_subparsers(metavar="MODEL", required=True, parser_class=Parser, dest="model")
    for entry in MODELS.values():
        add_train_options(models.add_parser(entry.name, help=entry.summary, description=_sentence(entry.summary)), entry)

    sample = command("sample", sample_command, "draw samples from a trained run, as a picture and as arrays")
    sample.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/vae-digits")
    sample.add_argument("-n", type=integer(1), default=64, help="how many (64)")
    sample.add_argument("--seed", type=integer(0), default=0, help="seed of the samples (0)")
    sample.add_argument("--out", type=Path, default=None, help="where to write: NAME.png and NAME.npy (RUN/samples)")

    evaluate = command("evaluate", evaluate_command, "evaluate a trained run on test data")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/vae-digits")
    evaluate.add_argument("-n", type=integer(2), default=None, help="how many test samples (all)")
    evaluate.add_argument("-k", type=integer(1), default=50, help="importance samples of the bound (50)")

    command("data", data_command, "list the data sets, and which of them are here")
    command("models", models_command, "list the models, and what each can do")
    check = command("gradcheck", gradcheck_command, "check the gradients of ops, to second order")
    check.add_argument("ops", nargs="*", metavar="OP", help="names of ops (all)")
    check.add_argument("--examples", type=integer(1), default=20, help="random cases of each (20)")
    check.add_argument("--seed", type=integer(0), default=0, help="seed of the cases (0)")
    command("doctor", doctor_command, "say what this installation can do, and how to mend what it cannot")
    return parser


# ---- commands


def train_command(args: argparse.Namespace) -> None:
    """minigen train MODEL ..."""
    from .training.run import read_config, train

    entry = MODELS[args.model]
    names = {f.name for f in dataclasses.fields(RunConfig)}
    given = {name: value for name, value in vars(args).items() if name in names and value is not None}
    names = {f.name for f in dataclasses.fields(entry.config)} - set(BUDGET)
    options = {name: value for name, value in vars(args).items() if name in names and value is not None}
    folder = args.out or Path("runs") / f"{args.model}-{args.data or RunConfig.data}"
    if args.resume:
        saved = read_config(folder)
        _refuse_changes(saved, given, options)
        config = dataclasses.replace(saved, **{k: v for k, v in given.items() if k in (*BUDGET, "threads")})
    else:
        config = RunConfig(options=entry.config(**options), **given)
    run = train(config, folder, resume=args.resume, quiet=args.quiet)
    if not args.quiet:
        print(f"{args.model} on {config.data}: {run.step} steps, {run.cpu_seconds:.0f} CPU-seconds. Look at {folder}/figures")


def _refuse_changes(saved: RunConfig, given: dict[str, Any], options: dict[str, Any]) -> None:
    """A resumed run continues as it was: only its budget and its number of threads may change."""
    for values, config in ((given, saved), (options, saved.options)):
        for name, value in values.items():
            if name not in (*BUDGET, "threads", "options") and value != getattr(config, name):
                flag = "the model" if name == "model" else "--" + name.replace("_", "-")
                raise ValueError(
                    f"the run has {flag} {getattr(config, name)}, not {value}; with --resume only --steps, --epochs, --minutes "
                    "and --threads may change; choose another --out for a new run"
                )


def sample_command(args: argparse.Namespace) -> None:
    """minigen sample RUN"""
    import numpy as np

    from . import plots
    from .random import Generator
    from .training.run import load_run

    run = load_run(args.run)
    run.model.eval()
    with run.averaged():
        samples = run.model.sample(args.n, Generator(args.seed))
    stem = args.out.with_suffix("") if args.out else args.run / "samples"
    title = f"{run.config.model} on {run.config.data}, step {run.step}, seed {args.seed}"
    np.save(stem.with_suffix(".npy"), samples)
    if samples.ndim == 4:
        plots.image_grid(samples, stem.with_suffix(".png"), title)
    else:
        plots.points(samples, run.test.x[: len(samples)], stem.with_suffix(".png"), title)
    print(f"{len(samples)} samples of shape {samples.shape[1:]}: {stem.with_suffix('.png')}, {stem.with_suffix('.npy')}")


def evaluate_command(args: argparse.Namespace) -> None:
    """minigen evaluate RUN"""
    from .evaluation import active_units
    from .training.figures import likelihood
    from .training.run import load_run

    run = load_run(args.run)
    if args.n is not None and args.n > len(run.test):
        raise ValueError(f"-n {args.n}: {run.test.name} has {len(run.test)} test samples")
    x = run.test.x[: args.n]
    run.model.eval()
    with run.averaged():
        print(f"{run.config.model} on {run.config.data}, step {run.step}, {run.cpu_seconds:.0f} CPU-seconds of training")
        if "log_prob_bound" in run.model.capabilities():
            for k in dict.fromkeys((1, args.k)):
                print(likelihood(run, x, k))
        if "encode" in run.model.capabilities():
            seen = run.model.preprocess(x, run.evaluation_rng())
            units = active_units(run.model.encode, seen)
            print(f"active units: {units} of {run.config.options.latent}")


def data_command(args: argparse.Namespace) -> None:
    """minigen data"""
    rows = []
    for entry in data.DATASETS.values():
        shape = "points" if entry.levels is None else " x ".join(map(str, entry.shape))
        sizes = " + ".join(f"{n:,}" for n in entry.sizes.values())
        where = entry.where(None) or "to be downloaded"
        rows.append((entry.name, shape, str(entry.levels or "-"), sizes, where, entry.licence))
    table(("name", "shape", "levels", "train + test", "where", "licence"), rows)


def models_command(args: argparse.Namespace) -> None:
    """minigen models"""
    rows = [(e.name, e.summary, ", ".join(e.cls.capabilities())) for e in MODELS.values()]
    table(("name", "what it is", "what it can do"), rows)
    print()
    for name, meaning in CAPABILITIES.items():
        print(f"  {name:<15} {meaning}")


def gradcheck_command(args: argparse.Namespace) -> int:
    """minigen gradcheck [OP ...]"""
    from .autograd.gradcheck import check_all

    return 1 if check_all(args.ops, examples=args.examples, seed=args.seed) else 0


def doctor_command(args: argparse.Namespace) -> None:
    """minigen doctor"""
    import platform

    import numpy as np
    from threadpoolctl import threadpool_info

    from .autograd.kernels import compiled_before, jit

    blas = next((i for i in threadpool_info() if i["user_api"] == "blas"), None)
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, Numba {jit.numba.__version__}"
    print(f"minigen {__version__}, {versions}")
    print(f"threads: {jit.numba.config.NUMBA_NUM_THREADS}")
    if blas is None:
        print("matrix products: no BLAS found; they will be slow: pip install --force-reinstall numpy")
    else:
        print(f"matrix products: {blas['internal_api']} {blas['version']}, core type {blas.get('architecture', 'unknown')}")
    print(f"compiled kernels: {'on disk' if compiled_before() else 'none yet; the first run compiles them'}")
    problem = backend.cuda_problem()
    print(f"GPU: {problem or 'CuPy and a device are there'}")
    folder = data.DATASETS["mnist"].where(None)
    print(f"MNIST: {folder or 'downloaded at first use; or put its files into mnist/ of a folder named by MINIGEN_DATA'}")


# ---- options


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, and no guessing at abbreviated options."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {_one_line(message)}; see {self.prog} --help\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """A choice that does not exist: name it, the nearest one, and all."""
        if action.choices is not None and value not in action.choices:
            import difflib

            names = [str(c) for c in action.choices]
            near = difflib.get_close_matches(str(value), names, n=1)
            hint = f"; did you mean {near[0]}? " if near else ""
            raise argparse.ArgumentError(action, f"unknown {value!r}{hint or '; '}known are {', '.join(names)}")


def add_train_options(parser: argparse.ArgumentParser, entry: Any) -> None:
    """The options of `minigen train MODEL`: those of every run, and those of the model."""
    run = parser.add_argument_group("run")
    run.add_argument("--data", choices=list(data.DATASETS), metavar="NAME", help="data set, see: minigen data (digits)")
    run.add_argument("--steps", type=integer(1), help=f"stop after so many steps ({entry.config().steps})")
    run.add_argument("--epochs", type=number(0.0, exclusive=True), help="stop after so many passes over the data")
    run.add_argument("--minutes", type=number(0.0, exclusive=True), help="stop after so many minutes of processor time")
    run.add_argument("--seed", type=integer(0), help="seed of everything random (0)")
    run.add_argument("--threads", type=integer(1), help="CPU threads; results do not depend on it (all)")
    run.add_argument("--backend", choices=list(backend.BACKENDS), metavar="NAME", help="kernels: numba, or numpy to read along")
    run.add_argument("--device", choices=("cpu", "cuda"), metavar="NAME", help="cpu or cuda (cpu)")
    run.add_argument("--out", type=Path, metavar="FOLDER", help="where the run goes (runs/MODEL-DATA)")
    run.add_argument("--resume", action="store_true", help="continue the run in --out, bit for bit as if never stopped")
    run.add_argument("--checkpoint-every", type=integer(1), metavar="STEPS", help="save every so many steps (500)")
    run.add_argument("--evaluate-every", type=integer(1), metavar="STEPS", help="evaluate and draw as often (500)")
    run.add_argument("--log-every", type=integer(1), metavar="STEPS", help="write numbers as often (20)")
    run.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_fields(parser.add_argument_group("model"), entry.config)


def add_fields(group: Any, config: type) -> None:
    """An option for each field of a configuration; fields that the run has (steps) are left out. Default None: not given."""
    types = get_type_hints(config)
    for field in dataclasses.fields(config):
        if field.name in BUDGET:
            continue
        meta, kind = field.metadata, types[field.name]
        flag, text = "--" + field.name.replace("_", "-"), f"{meta['help']} ({field.default})"
        if kind is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif meta["choices"]:
            group.add_argument(flag, choices=meta["choices"], metavar="NAME", help=f"{text}: {', '.join(meta['choices'])}")
        else:
            parse = integer(meta["low"], meta["high"]) if kind is int else number(meta["low"], meta["high"])
            group.add_argument(flag, type=parse, metavar=kind.__name__.upper(), help=text)


def integer(low: float | None = None, high: float | None = None) -> Callable[[str], int]:
    """A parser of integers in a closed range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"needs {_range('a whole number', low, high)}, not {text!r}") from None
        if not _within(value, low, high):
            raise argparse.ArgumentTypeError(f"needs {_range('a whole number', low, high)}, not {value}")
        return value

    return parse


def number(low: float | None = None, high: float | None = None, exclusive: bool = False) -> Callable[[str], float]:
    """A parser of finite numbers in a closed range, or one open below."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not _within(value, low, high) or (exclusive and value == low):
            raise argparse.ArgumentTypeError(f"needs {_range('a finite number', low, high, exclusive)}, not {text!r}")
        return value

    return parse


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _range(what: str, low: float | None, high: float | None, exclusive: bool = False) -> str:
    if low is not None and high is not None:
        return f"{what} from {low} to {high}"
    if low is not None:
        return f"{what} {'above' if exclusive else 'of at least'} {low}"
    return what if high is None else f"{what} of at most {high}"


# ---- printing


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * w for w in widths], *rows]:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
