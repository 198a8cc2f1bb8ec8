"""The command line, thin: it parses, calls, prints. Start at `main`, and at `build_parser`, which has every command and option.

    runs       train, sample, evaluate: what is done with a run
    lists      data, models, kernels, check, gradcheck, warmup, bench, doctor: what is known here, and whether it is right
    options    how options are made from the fields of configurations, and how arguments are refused
    printing   tables, complaints, and streams of any encoding

Options of a run and of a model come from the fields of their configurations (frozen dataclasses), with their help texts, ranges
and defaults: see `options.add_fields`. A refusal is one line on standard error that says what is wrong and how to mend it, and
exit status 2; nothing has been written then.
"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__, data
from ..autograd import backend
from ..models import FAMILIES, MODELS
from ..training.config import ConfigError, Diverged, RunConfig
from ..training.files import FileError
from .lists import (
    bench_command,
    check_command,
    data_command,
    doctor_command,
    gradcheck_command,
    kernels_command,
    models_command,
    warmup_command,
)
from .options import Parser, a_folder, a_name, add_train_options, value
from .printing import complain, leave_streams, prepare_streams, sentence
from .runs import classifier_command, compare_command, evaluate_command, sample_command, train_command

REFUSALS = (ConfigError, data.DataError, backend.DeviceError, FileError, OSError, MemoryError)
DATA_HELP = "data set; see: minigen data (default: digits)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `minigen ARGUMENTS...`. Returns the exit status: 0; 1 for a failed check or a training that diverged; 2 for what
    cannot be done; 128 + the number of the signal that ended it, which is 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug, arguments = "--debug" in arguments, [a for a in arguments if a != "--debug"]
    try:
        prepare_streams()
        args = parse(arguments)
        status = args.command(args) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `| head` for instance, has seen enough
        return 0
    except KeyboardInterrupt as stop:
        complain(stop)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except (*REFUSALS, Diverged) as error:
        if debug:
            traceback.print_exc()
        complain(error)
        return 1 if isinstance(error, Diverged) else 2
    finally:
        leave_streams()
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
    """The command line as a whole: each command, with the options of its models taken from their configurations."""
    about = "Deep generative models on a from-scratch engine."
    parser = Parser(prog="minigen", description=about, epilog="Start with: minigen train vae")
    parser.add_argument("--version", action="version", version=f"minigen {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error, with any command")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")

    def command(run: Callable[[argparse.Namespace], int | None], summary: str) -> Parser:
        sub = commands.add_parser(run.__name__.removesuffix("_command"), help=summary, description=sentence(summary))
        sub.set_defaults(command=run)
        return sub

    training = command(train_command, "train a model")
    training.epilog = "The options of each: minigen train MODEL --help"
    models = training.add_subparsers(metavar="MODEL", required=True, title="models", dest="model")
    for family, (for_points, for_images) in FAMILIES.items():
        if family not in MODELS:
            models.add_parser(family, help=f"{for_points} for points, {for_images} for images")
    for entry in MODELS.values():
        add_train_options(models.add_parser(entry.name, help=entry.summary, description=sentence(entry.summary)), entry.config)

    sample = command(sample_command, "draw samples from a trained run, as a picture and as arrays")
    devices = value(str, choices=backend.DEVICES)
    where = "where: cpu, cuda, or cuda-emu, a GPU emulated by the CPU (default: cpu)"
    sample.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/vae-digits")
    sample.add_argument("-n", type=value(int, 1, 1_000_000), default=64, metavar="N", help="how many (default: 64)")
    sample.add_argument("--seed", type=value(int, 0, 2**63 - 1), default=0, metavar="N", help="their seed (default: 0)")
    sample.add_argument("--device", type=devices, default="cpu", metavar="NAME", help=where)
    sample.add_argument("--out", type=a_name, metavar="NAME", help="write NAME.png and NAME.npy (default: RUN/samples)")

    evaluate = command(evaluate_command, "evaluate a trained run on test data")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/vae-digits")
    evaluate.add_argument("-n", type=value(int, 2), metavar="N", help="how many test samples, at random (default: all)")
    evaluate.add_argument("-k", type=value(int, 1), default=50, metavar="K", help="importance samples of a bound (default: 50)")
    how_many = "how many samples are scored; 0: none (default: 1000 images, or 2000 points)"
    evaluate.add_argument("--device", type=devices, default="cpu", metavar="NAME", help=where)
    evaluate.add_argument("--samples", type=value(int, 0), metavar="N", help=how_many)

    compared = command(compare_command, "train one model of each family at one budget, and put them into one table")
    names = value(str, choices=data.DATASETS)
    compared.add_argument("--data", type=names, default="digits", metavar="NAME", help=DATA_HELP)
    minutes = "minutes of processor time for each (default: 2)"
    compared.add_argument("--minutes", type=value(float, 0.001), default=2.0, metavar="X", help=minutes)
    which = "names of families, with commas (default: all)"
    compared.add_argument("--families", default=",".join(FAMILIES), metavar="NAMES", help=which)
    compared.add_argument("--seed", type=value(int, 0, 2**63 - 1), default=0, metavar="N", help="seed of each (default: 0)")
    compared.add_argument("--threads", type=value(int, 1), default=1, metavar="N", help="CPU threads (default: 1)")
    tests = "test samples for the likelihoods (default: 500 images, or 5000 points)"
    compared.add_argument("--tests", type=value(int, 2), metavar="N", help=tests)
    where = "where it goes (default: comparisons/DATA-MINUTESmin)"
    compared.add_argument("--out", type=a_folder, metavar="FOLDER", help=where)
    compared.add_argument("--resume", action="store_true", help="continue the comparison in --out")
    compared.add_argument("--quiet", action="store_true", help="print the table only")

    judge = command(classifier_command, "train the classifier that judges images, and tell its hash")
    judge.add_argument("--data", type=value(str, choices=data.DATASETS), default="digits", metavar="NAME", help=DATA_HELP)
    judge.add_argument("--seed", type=value(int, 0, 2**63 - 1), default=0, metavar="N", help="its seed (default: 0)")
    judge.add_argument("--anew", action="store_true", help="train it even if it has been kept")

    show = command(data_command, "list the data sets, or tell about one")
    names = value(str, choices=data.DATASETS)
    show.add_argument("name", nargs="?", type=names, metavar="NAME", help="a data set (default: all)")
    command(models_command, "list the models, and what each can do")
    kernels = command(kernels_command, "list the kernels, show the versions of one, or explain what it costs on a GPU")
    kernels.add_argument("action", type=value(str, choices=("list", "show", "explain")), metavar="list|show|explain")
    kernels.add_argument("name", nargs="?", metavar="NAME", help="a kernel, for show and explain")
    judged = command(check_command, "check a model, built in or your own, against analytic truths")
    judged.add_argument("subject", metavar="MODEL", help="a model or family, or your own class as my_module:MyModel")
    judged.add_argument("--only", metavar="TRUTH", help="one truth (default: all that apply)")
    check = command(gradcheck_command, "check the gradients of ops, to second order")
    check.add_argument("ops", nargs="*", metavar="OP", help="names of ops (default: all)")
    check.add_argument("--examples", type=value(int, 1), default=20, metavar="N", help="random cases of each (default: 20)")
    check.add_argument("--seed", type=value(int, 0, 2**32 - 1), default=0, metavar="N", help="seed of the cases (default: 0)")
    warmed = command(warmup_command, "compile the kernels of models before they are wanted")
    warmed.add_argument("models", nargs="*", metavar="MODEL", help="names of models (default: all)")
    bench = command(bench_command, "measure: kernels, engine, whole training steps, against PyTorch and JAX")
    bench.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="see: minigen bench --help")
    command(doctor_command, "say what this installation can do, and how to mend what it cannot")
    return parser
