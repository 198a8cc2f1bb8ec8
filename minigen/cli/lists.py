"""Commands that tell what is known here, and whether it is right: data, models, kernels, checks, doctor. One function each."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from .. import __version__, data
from ..autograd import backend
from ..models import CAPABILITIES, MODELS
from ..training import config as rules
from ..training.config import ConfigError
from .options import UsageError
from .printing import table


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
    notes: dict[tuple[str, str], list[str]] = {}
    for e in MODELS.values():
        for capability, note in e.cls.notes.items():
            notes.setdefault((capability, note), []).append(e.name)
    if notes:
        print()
        table(("note", ""), [(f"{what} of {', '.join(names)}", note) for (what, note), names in notes.items()])


def check_command(args: argparse.Namespace) -> int:
    """minigen check MODEL     Raises ConfigError for an unknown truth, and for a class that there is none of."""
    from ..training.progress import Progress, say_when_compiling
    from ..truths import TRUTHS, SubjectError, check, subjects

    if args.only is not None and args.only not in TRUTHS:
        raise ConfigError(rules.unknown("truth", args.only, TRUTHS))
    try:
        found = subjects(args.subject)
    except SubjectError as error:
        raise ConfigError(str(error)) from error
    failed = applied = 0
    for name, cls in found:
        print(f"{name}, a {cls.__module__}.{cls.__qualname__}" if ":" not in name else name)
        others = []
        with say_when_compiling(Progress().say):
            for verdict in check(cls, TRUTHS.values() if args.only is None else [TRUTHS[args.only]]):
                if verdict.state == "does not apply":
                    others.append(verdict)
                    continue
                print(verdict, flush=True)
                applied += 1
                failed += verdict.state == "fails"
        for verdict in others:
            print(verdict)
    if not applied:
        raise ConfigError(f"no truth applies to {args.subject}: docs/truths.md tells what a class must have to be checked")
    print(f"{applied - failed} of {applied} truths hold")
    return 1 if failed else 0


def kernels_command(args: argparse.Namespace) -> None:
    """minigen kernels list | show NAME | explain NAME

    Raises ConfigError for an unknown kernel, UsageError for a name too many or none.
    """
    from ..emulator import explain, listing

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
    """minigen gradcheck [OP ...]     Raises ConfigError for an unknown op."""
    from ..autograd.cards import CARDS
    from ..autograd.gradcheck import check_all

    for name in args.ops:
        if name not in CARDS:
            raise ConfigError(rules.unknown("op", name, sorted(CARDS)))
    return 1 if check_all(args.ops, examples=args.examples, seed=args.seed) else 0


def warmup_command(args: argparse.Namespace) -> None:
    """minigen warmup [MODEL ...]     Raises ConfigError for an unknown model."""
    from ..training.warmup import warm_up

    for name in args.models:
        if name not in MODELS:
            raise ConfigError(rules.unknown("model", name, MODELS))
    warm_up(args.models or MODELS, lambda text: print(text, flush=True))


def bench_command(args: argparse.Namespace) -> int:
    """minigen bench ...     Raises ConfigError outside the repository."""
    import importlib.util

    if importlib.util.find_spec("benchmarks") is None:
        raise ConfigError(
            "the benchmarks are not in the installed package but in the repository: clone it, and run this in its folder"
        )
    from benchmarks.__main__ import main

    return main(args.arguments or ["--help"])


def doctor_command(args: argparse.Namespace) -> None:
    """minigen doctor"""
    import platform

    import numpy as np
    from threadpoolctl import threadpool_info

    from ..autograd.kernels import compiled_before, jit
    from ..emulator import compiler

    blas = next((i for i in threadpool_info() if i["user_api"] == "blas"), None)
    no_blas = "none found, so they will be slow; mend it with: python -m pip install --force-reinstall numpy"
    facts = {
        "minigen": f"{__version__}, in {Path(__file__).parents[1]}",
        "versions": f"Python {platform.python_version()}, NumPy {np.__version__}, Numba {jit.numba.__version__}",
        "threads": f"{jit.numba.get_num_threads()}, all of which are used unless --threads says otherwise",
        "BLAS, for np.linalg": f"{blas['internal_api']} {blas['version']}, {blas.get('architecture')}" if blas else no_blas,
        "compiled kernels": "on disk" if compiled_before() else "none yet: the first run compiles them, which takes a while",
        "GPU": backend.cuda_problem() or backend.gpu_name(),
        "GPU emulator": compiler.status(),
        "data sets here": ", ".join(e.name for e in data.DATASETS.values() if e.where(None)),
        "to be downloaded": ", ".join(e.name for e in data.DATASETS.values() if not e.where(None)) or "none",
        "MINIGEN_DATA": os.environ.get("MINIGEN_DATA") or "not set; it can name a folder with mnist/, cifar10/ and so on",
    }
    table(("", ""), list(facts.items()))
