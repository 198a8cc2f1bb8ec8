"""Commands that do something with a run: train, sample, evaluate. One function each."""

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

PIECE = 500  # samples that are drawn at a time
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

    from ..training.figures import count_active_units, estimate, has_active_units, likelihood, some
    from ..training.progress import Progress, say_when_compiling

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
