"""The command line, thin: it parses, calls, prints. Start at `main`; each command is a function below it.

Options of a run and of a model come from the fields of their configurations (frozen dataclasses), with their help texts, ranges
and defaults: see `add_fields`. A refusal is one line on standard error that says what is wrong and how to mend it, and exit
status 2; nothing has been written then.
"""

from __future__ import annotations

import argparse
import codecs
import dataclasses
import difflib
import io
import os
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, data
from .autograd import backend
from .models import CAPABILITIES, FAMILIES, MODELS
from .training import config as rules
from .training.config import BUDGET, CHANGEABLE, ConfigError, Diverged, RunConfig, read_config
from .training.files import FileError, write_atomically
from .training.run import load_run, train

REFUSALS = (ConfigError, data.DataError, backend.DeviceError, FileError, OSError, MemoryError)
PIECE = 500  # samples that are drawn at a time
IN_PICTURE = {4: 400, 2: 5000}  # how many images (N, H, W, C), or points (N, 2), fit into a picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `minigen ARGUMENTS...`. Returns the exit status: 0; 1 for a failed check or a training that diverged; 2 for what
    cannot be done; 128 + the number of the signal that ended it, which is 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug, arguments = "--debug" in arguments, [a for a in arguments if a != "--debug"]
    try:
        _prepare_streams()
        args = parse(arguments)
        status = args.command(args) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `| head` for instance, has seen enough
        return 0
    except KeyboardInterrupt as stop:
        _complain(stop)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except (*REFUSALS, Diverged) as error:
        if debug:
            traceback.print_exc()
        _complain(error)
        return 1 if isinstance(error, Diverged) else 2
    finally:
        _leave_streams()
    return status


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments, with the function to run as `command`. Raises UsageError."""
    args, rest = build_parser().parse_known_args(_model_for_data(arguments))
    if rest:
        args.parser.refuse_rest(rest[0])
    return args


def _model_for_data(arguments: Sequence[str]) -> list[str]:
    """`train FAMILY ...` with the family's model for the data that is asked for, which has options of its own."""
    command, family, *options = [*arguments, "", ""]
    if command != "train" or family not in FAMILIES:
        return list(arguments)
    data_option = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    data_option.add_argument("--data", default=RunConfig.data, nargs="?")
    chosen = data.DATASETS.get(data_option.parse_known_args(options)[0].data)
    points = chosen is not None and chosen.levels is None
    return [command, FAMILIES[family][0 if points else 1], *arguments[2:]]


def build_parser() -> Parser:
    about = "Deep generative models on a from-scratch engine."
    parser = Parser(prog="minigen", description=about, epilog="Start with: minigen train vae")
    parser.add_argument("--version", action="version", version=f"minigen {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error, with any command")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")

    def command(run: Callable[[argparse.Namespace], int | None], summary: str) -> Parser:
        sub = commands.add_parser(run.__name__.removesuffix("_command"), help=summary, description=_sentence(summary))
        sub.set_defaults(command=run)
        return sub

    training = command(train_command, "train a model")
    training.epilog = "The options of each: minigen train MODEL --help"
    models = training.add_subparsers(metavar="MODEL", required=True, title="models", dest="model")
    for family, (for_points, for_images) in FAMILIES.items():
        if family not in MODELS:
            models.add_parser(family, help=f"{for_points} for points, {for_images} for images")
    for entry in MODELS.values():
        add_train_options(models.add_parser(entry.name, help=entry.summary, description=_sentence(entry.summary)), entry.config)

    sample = command(sample_command, "draw samples from a trained run, as a picture and as arrays")
    sample.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/vae-digits")
    sample.add_argument("-n", type=value(int, 1, 1_000_000), default=64, metavar="N", help="how many (default: 64)")
    sample.add_argument("--seed", type=value(int, 0, 2**63 - 1), default=0, metavar="N", help="their seed (default: 0)")
    sample.add_argument("--out", type=a_name, metavar="NAME", help="write NAME.png and NAME.npy (default: RUN/samples)")

    evaluate = command(evaluate_command, "evaluate a trained run on test data")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/vae-digits")
    evaluate.add_argument("-n", type=value(int, 2), metavar="N", help="how many test samples, at random (default: all)")
    evaluate.add_argument("-k", type=value(int, 1), default=50, metavar="K", help="importance samples of a bound (default: 50)")

    show = command(data_command, "list the data sets, or tell about one")
    names = value(str, choices=data.DATASETS)
    show.add_argument("name", nargs="?", type=names, metavar="NAME", help="a data set (default: all)")
    command(models_command, "list the models, and what each can do")
    kernels = command(kernels_command, "list the kernels, show the versions of one, or explain what it costs on a GPU")
    kernels.add_argument("action", type=value(str, choices=("list", "show", "explain")), metavar="list|show|explain")
    kernels.add_argument("name", nargs="?", metavar="NAME", help="a kernel, for show and explain")
    check = command(gradcheck_command, "check the gradients of ops, to second order")
    check.add_argument("ops", nargs="*", metavar="OP", help="names of ops (default: all)")
    check.add_argument("--examples", type=value(int, 1), default=20, metavar="N", help="random cases of each (default: 20)")
    check.add_argument("--seed", type=value(int, 0, 2**32 - 1), default=0, metavar="N", help="seed of the cases (default: 0)")
    command(doctor_command, "say what this installation can do, and how to mend what it cannot")
    return parser


# ---- commands


def train_command(args: argparse.Namespace) -> None:
    """minigen train MODEL ..."""
    kind = MODELS[args.model].config
    given = _given(args, RunConfig) | {"model": args.model}
    options = {name: v for name, v in _given(args, kind).items() if name not in BUDGET}
    folder = args.out or Path("runs") / f"{args.model}-{given.get('data', RunConfig.data)}"
    if args.resume:
        saved = read_config(folder)
        _refuse_changes(saved, given, options)
        anew = any(name in given for name in BUDGET)  # a new budget replaces the old one, whatever that was
        changes: dict[str, Any] = dict.fromkeys(BUDGET) if anew else {}
        config = dataclasses.replace(saved, **changes | {name: given[name] for name in CHANGEABLE if name in given})
    else:
        config = RunConfig(**given, options=kind(**options))
    run = train(config, folder, resume=args.resume, quiet=args.quiet)
    if not args.quiet:
        print(f"{_summary(run)}. Look at {folder / 'figures'}")


def _summary(run: Any) -> str:
    return f"{run.config.model} on {run.config.data}: {run.step} steps, {run.cpu_seconds:.0f} CPU-seconds of training"


def _given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """Fields of a configuration that were given as options."""
    return {f.name: getattr(args, f.name) for f in dataclasses.fields(config) if getattr(args, f.name, None) is not None}


def _refuse_changes(saved: RunConfig, given: dict[str, Any], options: dict[str, Any]) -> None:
    """A resumed run continues as it was: only its budget and its number of threads may change."""
    for values, config in ((given, saved), (options, saved.options)):
        for name, wanted in values.items():
            was = getattr(config, name, None)
            if name not in CHANGEABLE and wanted != was:
                raise ConfigError(
                    f"{'the model' if name == 'model' else _flag(name)} of this run is {was}, not {wanted}: with --resume only "
                    f"{', '.join(map(_flag, CHANGEABLE))} may change; for a new run choose another --out"
                )


def sample_command(args: argparse.Namespace) -> None:
    """minigen sample RUN"""
    import numpy as np

    from . import plots
    from .random import Generator
    from .training.figures import looking_at
    from .training.progress import Progress, say_when_compiling

    run, rng = load_run(args.run), Generator(args.seed)
    with looking_at(run) as model, say_when_compiling(Progress().say):
        samples = np.concatenate([model.sample(min(PIECE, args.n - i), rng) for i in range(0, args.n, PIECE)])
    shown = samples[: IN_PICTURE[samples.ndim]]
    title = f"{run.config.model} on {run.config.data}, step {run.step}, seed {args.seed}"
    png = plots.image_grid(shown, title) if samples.ndim == 4 else plots.points(shown, run.test.x[: len(shown)], title)
    array = io.BytesIO()
    np.save(array, samples)
    stem = str(args.out or args.run / "samples").removesuffix(".png").removesuffix(".npy")
    for suffix, content in ((".npy", array.getvalue()), (".png", png)):
        write_atomically(stem + suffix, content)
    print(f"{len(samples)} samples of shape {samples.shape[1:]}: {stem}.png, {stem}.npy")


def evaluate_command(args: argparse.Namespace) -> None:
    """minigen evaluate RUN"""
    from tqdm import tqdm

    from .training.figures import count_active_units, estimate, has_active_units, likelihood, some
    from .training.progress import Progress, say_when_compiling

    run = load_run(args.run)
    if args.n is not None and args.n > len(run.test):
        raise ConfigError(f"-n {args.n}: {run.test.name} has {len(run.test)} test samples; choose at most as many")
    x = some(run.test, args.n or len(run.test))[0]
    print(_summary(run), flush=True)
    with say_when_compiling(Progress().say):
        own = run.model.estimators(args.k)
        for name, log_prob in own.items():
            with tqdm(total=len(x), desc=name, unit=" samples", leave=False, disable=None) as bar:
                nll = estimate(run, x, name, log_prob, said=bar.update)
            print(nll, flush=True)
        if not own and "log_prob_bound" in run.model.capabilities():
            for k in dict.fromkeys((1, args.k)):
                with tqdm(total=len(x), desc=f"k = {k}", unit=" samples", leave=False, disable=None) as bar:
                    nll = likelihood(run, x, k, said=bar.update)
                print(nll, flush=True)
        if has_active_units(run.model):
            print("active units: {} of {}".format(*count_active_units(run)))


def data_command(args: argparse.Namespace) -> None:
    """minigen data [NAME]"""
    entries = data.DATASETS.values()
    if args.name is None:
        columns = ("name", "one sample", "train + test", "where it comes from")
        table(columns, [(e.name, _shape(e), _sizes(e), e.where(None) or "to be downloaded") for e in entries])
        return
    entry = data.DATASETS[args.name]
    entropy = data.TOYS[entry.name].entropy if entry.name in data.TOYS else None
    facts = {
        "what": entry.description,
        "one sample": _shape(entry) + ("" if entry.levels is None else f", {entry.levels} grey levels"),
        "train + test": _sizes(entry),
        "entropy": "not known" if entropy is None else f"{entropy:.4f} nats per sample",
        "source": entry.source,
        "licence": entry.licence,
        "here": entry.where(None) or "no: it will be downloaded at first use",
    }
    table((entry.name, ""), list(facts.items()))


def _shape(entry: data.Entry) -> str:
    return "a point in the plane" if entry.levels is None else " x ".join(map(str, entry.shape))


def _sizes(entry: data.Entry) -> str:
    return " + ".join(f"{n:,}" for n in entry.sizes.values())


def models_command(args: argparse.Namespace) -> None:
    """minigen models"""
    rows = [(e.name, e.summary, ", ".join(e.cls.capabilities())) for e in MODELS.values()]
    table(("name", "what it is", "what it can do"), rows)
    print()
    table(("capability", "meaning"), list(CAPABILITIES.items()))


def kernels_command(args: argparse.Namespace) -> None:
    """minigen kernels list | show NAME | explain NAME"""
    from .emulator import explain, listing

    if (args.name is None) != (args.action == "list"):
        raise UsageError(f"minigen kernels {args.action}: " + ("takes no name" if args.name else "needs the name of a kernel"))
    if args.action == "list":
        table(("kernel", "family", "on a GPU", "what it computes"), listing.rows())
    elif args.name not in listing.load_all():
        raise ConfigError(rules.unknown("kernel", args.name, listing.load_all()))
    else:
        width = shutil.get_terminal_size().columns
        print(listing.show(args.name, width) if args.action == "show" else explain.explain(args.name))


def gradcheck_command(args: argparse.Namespace) -> int:
    """minigen gradcheck [OP ...]"""
    from .autograd.cards import CARDS
    from .autograd.gradcheck import check_all

    for name in args.ops:
        if name not in CARDS:
            raise ConfigError(rules.unknown("op", name, sorted(CARDS)))
    return 1 if check_all(args.ops, examples=args.examples, seed=args.seed) else 0


def doctor_command(args: argparse.Namespace) -> None:
    """minigen doctor"""
    import platform

    import numpy as np
    from threadpoolctl import threadpool_info

    from .autograd.kernels import compiled_before, jit
    from .emulator import compiler

    blas = next((i for i in threadpool_info() if i["user_api"] == "blas"), None)
    no_blas = "none found, so they will be slow; mend it with: python -m pip install --force-reinstall numpy"
    facts = {
        "minigen": f"{__version__}, in {Path(__file__).parent}",
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, Numba {jit.numba.__version__}",
        "threads": f"{jit.numba.get_num_threads()}, all of which are used unless --threads says otherwise",
        "matrix products": f"{blas['internal_api']} {blas['version']}, {blas.get('architecture')}" if blas else no_blas,
        "compiled kernels": "on disk" if compiled_before() else "none yet: the first run compiles them, which takes a while",
        "GPU": backend.cuda_problem() or "CuPy and a device are there",
        "GPU emulator": compiler.status(),
        "data sets here": ", ".join(e.name for e in data.DATASETS.values() if e.where(None)),
        "to be downloaded": ", ".join(e.name for e in data.DATASETS.values() if not e.where(None)) or "none",
        "MINIGEN_DATA": os.environ.get("MINIGEN_DATA") or "not set; it can name a folder with mnist/, cifar10/ and so on",
    }
    table(("", ""), list(facts.items()))


# ---- options


class UsageError(ConfigError):
    """Arguments that are not understood."""


class Parser(argparse.ArgumentParser):
    """argparse that raises, names what it knows, and does not guess at abbreviations. Its subparsers are of this class too."""

    def __init__(self, **kwargs: Any):
        look = lambda prog: argparse.HelpFormatter(prog, max_help_position=30)
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
    add_fields(run, RunConfig, ["seed", "threads", "backend", "device"], shown)
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
            group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, default=None, help=text)
            continue
        metavar = "{" + ",".join(choices) + "}" if choices else {int: "N", float: "X"}.get(kind, "NAME")
        limits = {"choices": data.DATASETS} if name == "data" else rules.bounds(field)
        group.add_argument(_flag(name), type=value(kind, **limits), metavar=metavar, help=text)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def value(kind: type, low: Any = None, high: Any = None, choices: Collection[str] = ()) -> Callable[[str], Any]:
    """A parser of values of one kind, in a closed range or among choices."""

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
    """A parser of folders: anything but nothing, which would be the current one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("needs the name of a folder, not ''")
    return Path(text)


def a_name(text: str) -> Path:
    """A parser of the names of files, to which endings are added."""
    if text.endswith(("/", os.sep)) or Path(text).name in ("", ".."):
        raise argparse.ArgumentTypeError(f"needs a name that .png and .npy can be added to, not {rules.short(text)}")
    return Path(text)


# ---- printing


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be. On a terminal the last one is wrapped, so that nothing runs over its edge."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    left = sum(widths[:-1]) + 2 * (len(widths) - 1)
    width = max(20, shutil.get_terminal_size().columns - left) if sys.stdout.isatty() else sys.maxsize
    widths[-1] = min(widths[-1], width)
    for row in [header, ["-" * w for w in widths], *rows] if any(header) else rows:
        first = "  ".join(cell.ljust(w) for cell, w in zip(row[:-1], widths[:-1], strict=True))
        for i, line in enumerate(textwrap.wrap(row[-1], width) or [""]):
            print(f"{first if i == 0 else ' ' * len(first)}  {line}".rstrip())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _complain(error: BaseException) -> None:
    """One line on standard error."""
    text = " ".join(str(error).split()) or ("interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__)
    if isinstance(error, MemoryError):
        text = f"out of memory ({text}): choose a smaller --batch-size or a smaller model"
    with suppress(OSError):
        print(text if isinstance(error, UsageError) else f"minigen: {text}", file=sys.stderr, flush=True)


SPELLED = {"±": "+/-", "≤": "<=", "≥": ">=", "…": "...", "–": "-", "—": "-", "−": "-", "²": "^2", "’": "'"}


def _prepare_streams() -> None:
    """Print what a terminal's encoding lacks in other words, and live without standard streams."""
    spell = lambda error: ("".join(SPELLED.get(c, "?") for c in error.object[error.start : error.end]), error.end)
    codecs.register_error("minigen", spell)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="minigen")


def _leave_streams() -> None:
    """What cannot be printed any longer would be tried again, and complained about, when Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
