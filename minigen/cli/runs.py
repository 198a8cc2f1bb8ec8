"""Commands that do something with runs: train, sample, evaluate, compare, classifier. One function each."""

from __future__ import annotations

import argparse
import dataclasses
import io
from pathlib import Path
from typing import Any

from ..models import MODELS
from ..training.config import BUDGET, CHANGEABLE, ConfigError, RunConfig, read_config
from ..training.files import write_atomically
from ..training.run import load_run, train
from .options import flag

FEWEST = 10  # samples that can be scored: each has its five nearest neighbours among the others
IN_PICTURE = {4: 400, 2: 5000}  # how many images (N, H, W, C), or points (N, 2), fit into a picture


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
        changes |= {name: given[name] for name in CHANGEABLE if name in given}
        if "lr" in options:
            changes["options"] = dataclasses.replace(saved.options, lr=options["lr"])
        config = dataclasses.replace(saved, **changes)
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
    """A resumed run continues as it was: only its budget, its number of threads and its learning rate may change."""
    for values, config in ((given, saved), (options, saved.options)):
        for name, wanted in values.items():
            was = getattr(config, name, None)
            if name not in CHANGEABLE and wanted != was:
                raise ConfigError(
                    f"{'the model' if name == 'model' else flag(name)} of this run is {was}, not {wanted}: with --resume only "
                    f"{', '.join(map(flag, CHANGEABLE))} may change; for a new run choose another --out"
                )


def sample_command(args: argparse.Namespace) -> None:
    """minigen sample RUN"""
    import numpy as np

    from .. import plots
    from ..random import Generator
    from ..training.figures import looking_at
    from ..training.progress import Progress, say_when_compiling
    from ..training.quality import draw

    run = load_run(args.run, args.device)
    for text in run.model.remarks():
        print(text, flush=True)
    with looking_at(run) as model, say_when_compiling(Progress().say):
        samples = draw(model, args.n, Generator(args.seed, run.looked_on))
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
    """minigen evaluate RUN     Raises ConfigError for too few samples to score, or more than there are."""
    from ..training.figures import count_active_units, estimate, estimators, has_active_units, likelihood, mode_line, some
    from ..training.progress import Progress, say_when_compiling
    from ..training.quality import code_score

    run = load_run(args.run, args.device)
    for option, n in (("-n", args.n), ("--samples", args.samples)):
        if n is not None and n > len(run.test):
            raise ConfigError(f"{option} {n}: {run.test.name} has {len(run.test)} test samples; choose at most as many")
    if args.samples is not None and 0 < args.samples < FEWEST:
        raise ConfigError(f"--samples {args.samples}: scores need at least {FEWEST} samples; or choose 0, for none")
    x = some(run.test, args.n or len(run.test))[0]
    print(_summary(run), flush=True)
    with say_when_compiling(Progress().say):
        own = estimators(run.model, args.k)
        for name, log_prob in own.items():
            with _bar(len(x), name) as bar:
                nll = estimate(run, x, name, log_prob, said=bar.update)
            print(nll, flush=True)
        if not own and "log_prob_bound" in run.model.capabilities():
            for k in dict.fromkeys((1, args.k)):
                with _bar(len(x), f"k = {k}") as bar:
                    nll = likelihood(run, x, k, said=bar.update)
                print(nll, flush=True)
        if run.model.no_likelihood:
            print(f"no likelihood: {run.model.no_likelihood}")
        elif not own and "log_prob_bound" not in run.model.capabilities():
            print(f"no likelihood: {run.config.model} gives {run.config.data} no probabilities that could be compared")
        if line := mode_line(run):
            print(line, flush=True)
        if has_active_units(run.model):
            print("active units: {} of {}".format(*count_active_units(run)))
        told = code_score(run)
        if told is not None:
            print(told)
        if args.samples != 0:
            _print_sample_scores(run, args.samples)


def _print_sample_scores(run: Any, n: int | None) -> None:
    from ..training.figures import looking_at
    from ..training.progress import Progress
    from ..training.quality import class_report, draw, sample_scores, usual_number

    n = n or usual_number(run.test)
    with _bar(n, "samples") as bar, looking_at(run) as model:
        samples = draw(model, n, run.evaluation_rng(), bar.update)
    for score in sample_scores(run, samples, Progress().say):
        print(score)
    if samples.ndim == 4:
        print(f"by the classifier: {class_report(run, samples)}")


def _bar(total: int | None, what: str) -> Any:
    """A bar that is gone when it is full."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=" samples", leave=False, disable=None)


def compare_command(args: argparse.Namespace) -> None:
    """minigen compare"""
    from ..training.compare import Comparison, compare
    from ..training.progress import Progress

    families = tuple(name.strip() for name in args.families.split(",") if name.strip())
    wanted = Comparison(args.data, args.minutes, families, args.seed, args.threads, args.tests)
    folder = args.out or Path("comparisons") / f"{args.data}-{args.minutes:g}min"
    text = compare(wanted, folder, args.resume, args.quiet, Progress(args.quiet).say)
    print(text, end="")
    if not args.quiet:
        print(f"\nwritten to {folder}: table.md, table.json, table.png")


def classifier_command(args: argparse.Namespace) -> None:
    """minigen classifier --data NAME     Raises ConfigError for data without classes."""
    import time

    from ..data import load
    from ..evaluation import classify, weights_sha256
    from ..training.progress import Progress, say_when_compiling
    from ..training.quality import kept_classifier

    train_split, test = load(args.data, "train"), load(args.data, "test")
    if train_split.y is None:
        raise ConfigError(f"--data {args.data}: points or images without labels; a classifier needs classes")
    start = time.process_time()
    with say_when_compiling(Progress().say), _bar(None, "steps") as bar:
        kept = kept_classifier(train_split, args.seed, args.anew, Progress().say, lambda step: bar.update(1))
    spent = f"trained in {time.process_time() - start:.0f} CPU-seconds" if kept.new else "kept from before"
    right = float((classify(kept.net, test.x) == test.y).mean())
    print(f"LeNet for {args.data}, seed {args.seed}, {spent}: {100 * right:.2f} % of {len(test)} test images right")
    print(f"SHA-256 of the weights: {weights_sha256(kept.net)}")
    print(f"in {kept.path}")
