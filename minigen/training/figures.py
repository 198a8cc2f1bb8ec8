"""Looking at a run: the scores and the pictures of one evaluation. Start at `scores` and `draw`.

Nothing here changes a run: the model is looked at in evaluation mode, with its averaged parameters, and with a generator of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from ..autograd import no_grad
from ..autograd.backend import move
from ..data import TOYS, Dataset, quantize
from ..evaluation import (
    NLL,
    active_units,
    ais_estimators,
    bound,
    histogram_bits_per_dim,
    independent_bernoulli,
    mean_and_stderr,
)
from ..evaluation.modes import SAMPLES, ModeReport, count_modes, spread
from ..random import Generator
from . import files

HELD_OUT = 500  # test samples that are scored during training
SHOWN = 2000  # points, or codes, in a scatter plot
QUICK = 20  # how much work goes into a bound during training: see Model.estimators
WEIGHTS = 5000  # importance samples that are decoded at a time: bounds the memory, to about 0.7 GB for 28 x 28 images


def scores(run: Any) -> dict[str, float]:
    """Numbers on held-out data, in nats per sample unless the name says else."""
    found: dict[str, float] = {}
    with looking_at(run) as model:
        if hasattr(model, "elbo"):
            found["test_elbo"] = mean_and_stderr(_bounds(run, some(run.test, HELD_OUT)[0], 1))[0]
        elif own := estimators(model, QUICK):
            name, log_prob = list(own.items())[-1]  # the cheapest
            kind = "log_prob" if name.startswith("exact") else "estimate" if name.startswith("AIS") else "bound"
            found[f"test_{kind}"] = mean_and_stderr(_estimates(run, some(run.test, HELD_OUT)[0], log_prob))[0]
    if run.model.no_likelihood and (report := mode_report(run, run.evaluation_rng())) is not None:
        found |= {"high_quality_share": report.share, "modes_hit": float(report.hit), "reverse_kl": report.reverse_kl}
    if has_active_units(run.model):
        found["active_units"] = float(count_active_units(run)[0])
    return found


def mode_report(run: Any, rng: Generator) -> ModeReport | None:
    """How samples of the model meet the modes of its data; None where there are none that are known."""
    toy = TOYS.get(run.config.data)
    if toy is None or toy.modes is None or toy.sigma is None:
        return None
    with looking_at(run) as model:
        return count_modes(move(model.sample(SAMPLES, rng), "cpu"), toy.modes, toy.sigma)


def mode_line(run: Any, times: int = 5) -> str | None:
    """The same for several sets of samples, with their spread, to be printed. Runs with other seeds differ by more."""
    reports = [report for rng in run.evaluation_rng().split(times) if (report := mode_report(run, rng)) is not None]
    return spread(reports, "sets of samples") if reports else None


def draw(run: Any, folder: Path) -> None:
    """All figures that the model and its data allow, into `folder`/figures. Raises FileError."""
    with looking_at(run):
        for name, figure in FIGURES.items():
            png = figure(run, folder)
            if png is not None:
                files.write_atomically(folder / "figures" / f"{name}.png", png)


def likelihood(run: Any, x: np.ndarray, k: int, said: Callable[[int], Any] = lambda n: None) -> NLL:
    """The model's bound on raw data x with k samples (1: the ELBO), beside its floor or baseline.

    said: is told after every piece how many samples it had.
    """
    with looking_at(run):
        values = _bounds(run, x, k, said)
    return _judged(run, x, "ELBO" if k == 1 else f"IWAE-{k}", values)


def estimators(model: Any, k: int) -> dict[str, Callable]:
    """How log p of this model can be estimated: by its own means (Model.estimators), or by AIS where it has a path for it."""
    return model.estimators(k) or ais_estimators(model, k)


def estimate(run: Any, x: np.ndarray, name: str, log_prob: Callable, said: Callable[[int], Any] = lambda n: None) -> NLL:
    """The likelihood of raw data x by one of `estimators`, beside its floor or baseline."""
    with looking_at(run):
        values = _estimates(run, x, log_prob, said)
    detail = getattr(log_prob, "detail", "")  # what only the finished estimate can tell
    shared = getattr(log_prob, "shared_stderr", 0.0)
    return _judged(run, x, f"{name}, {detail}" if detail else name, values, shared)


def _judged(run: Any, x: np.ndarray, estimator: str, values: np.ndarray, shared_stderr: float = 0.0) -> NLL:
    """log p of raw data x, (N,) nats, beside the floor or the baseline.     shared_stderr: of all of them together"""
    value, stderr = mean_and_stderr(-values)
    stderr = math.hypot(stderr, shared_stderr)
    seen, compared = ("", None) if x.ndim == 2 else baseline(run, x)
    data, dims = f"{run.test.name} test{seen}", math.prod(x.shape[1:])
    floor, levels = run.test.entropy, run.model.levels
    return NLL(value, stderr, len(x), estimator, data, dims, floor=floor, baseline=compared, levels=levels)


def beside(run: Any) -> str:
    """What the likelihoods of `scores` must be compared with, in words: the floor, or a trivial model of the same samples."""
    if run.test.entropy is not None:
        return f"nats; best possible {-run.test.entropy:.2f}"
    if run.test.x.ndim != 4:
        return "nats"
    x = some(run.test, HELD_OUT)[0]
    name, nats = baseline(run, x)[1]
    return f"nats, n = {len(x)}; {name} {-nats:.2f}"


def baseline(run: Any, x: np.ndarray) -> tuple[str, tuple[str, float]]:
    """How the model sees images x, in words, and a trivial model of the same thing: its name, and nats per image."""
    levels = run.model.levels
    if levels is None:
        return ", dynamic binarisation", ("independent Bernoullis", independent_bernoulli(run.data.x, x))
    train, test = (quantize(images, levels) for images in (run.data.x, x))
    nats = histogram_bits_per_dim(train, test, levels) * math.prod(x.shape[1:]) * math.log(2)
    return f", {levels} grey levels", ("histogram of each pixel", nats)


def has_active_units(model: Any) -> bool:
    """Whether it rebuilds data from a code, of which a part may then go unused. The code of a flow is the data themselves."""
    return hasattr(model, "encode") and hasattr(model, "reconstruct")


def count_active_units(run: Any) -> tuple[int, int]:
    """How many latent dimensions are used, and of how many."""
    x = _seen(run, some(run.test, SHOWN)[0])
    with looking_at(run) as model:
        return active_units(model.encode, x), model.encode(x[:1])[0].shape[1]


def some(dataset: Dataset, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """n random samples of a data set with their labels, or all; the same ones every time. The order in files is no accident."""
    rows = np.sort(chosen(dataset, n))
    return dataset.x[rows], None if dataset.y is None else dataset.y[rows]


def chosen(dataset: Dataset, n: int) -> np.ndarray:
    """Which n samples, in random order; the first of them are those of any smaller n."""
    return Generator(0).permutation(len(dataset))[:n]


@contextmanager
def looking_at(run: Any) -> Iterator[Any]:
    """The model of a run, in evaluation mode, with its averaged parameters; `run.model` is that one inside."""
    with run.looked_at() as model:
        yield model


def _bounds(run: Any, x: np.ndarray, k: int, said: Callable[[int], Any] = lambda n: None) -> np.ndarray:
    """The bound of each sample, in pieces that fit into memory.     -> (N,) nats"""
    rng, size = run.evaluation_rng(), max(1, WEIGHTS // min(k, 50))  # log_prob_bound decodes 50 at a time
    pieces = []
    for i in range(0, len(x), size):
        pieces.append(move(bound(run.model, move(x[i : i + size], run.looked_on), k, rng), "cpu"))
        said(len(pieces[-1]))
    return np.concatenate(pieces)


def _estimates(run: Any, x: np.ndarray, log_prob: Callable, said: Callable[[int], Any] = lambda n: None) -> np.ndarray:
    """log p of raw data x by one of the model's own estimators, in pieces that fit into memory.     -> (N,) nats"""
    rng, pieces = run.evaluation_rng(), []
    for i in range(0, len(x), HELD_OUT):
        seen = run.model.preprocess(move(x[i : i + HELD_OUT], run.looked_on), rng)
        pieces.append(move(log_prob(seen, rng), "cpu"))
        said(len(pieces[-1]))
    return np.concatenate(pieces)


def _seen(run: Any, x: np.ndarray) -> np.ndarray:
    """Raw data as the model sees them."""
    return run.model.preprocess(move(x, run.looked_on), run.evaluation_rng())


def _title(run: Any, what: str) -> str:
    return f"{run.config.model} on {run.config.data}, step {run.step}: {what}"


# ---- the figures: each a function of a run and its folder -> PNG, or None where there is nothing to show


def _samples(run: Any, folder: Path) -> bytes:
    if run.test.x.ndim == 2:
        samples = run.model.sample(SHOWN, run.evaluation_rng())
        return plots.points(samples, some(run.test, SHOWN)[0], _title(run, "samples"))
    return plots.image_grid(run.model.sample(64, run.evaluation_rng()), _title(run, "samples"))


def _reconstructions(run: Any, folder: Path) -> bytes | None:
    if not hasattr(run.model, "reconstruct") or run.test.x.ndim == 2:
        return None
    originals = some(run.test, 16)[0]
    seen = _seen(run, originals)
    rows = {"data": originals, "as seen": seen, "rebuilt": run.model.reconstruct(seen)}
    return plots.image_rows(rows, _title(run, "test images"))


def _completions(run: Any, folder: Path, columns: int = 12) -> bytes | None:
    """Upper halves of test images, and several ways in which the model goes on."""
    if not hasattr(run.model, "complete"):
        return None
    originals, labels = some(run.test, columns)
    known = np.zeros(originals.shape[1:3], bool)
    known[: len(known) // 2] = True
    rng, y = run.evaluation_rng(), labels if run.model.classes else None
    seen = run.model.complete(originals, np.ones_like(known), rng, y)  # every pixel known: the data as the model sees them
    rows = {"data": seen, "given": np.where(known[..., None], seen, np.float32(0))}
    again = np.tile(seen, (3, 1, 1, 1))
    drawn = run.model.complete(again, known, rng, None if y is None else np.tile(y, 3))
    rows |= {f"drawn {i + 1}": part for i, part in enumerate(np.split(drawn, 3))}
    return plots.image_rows(rows, _title(run, "lower halves drawn, given the upper ones"))


def _latent(run: Any, folder: Path) -> bytes | None:
    """Codes of test data along their two directions of largest variance."""
    if not hasattr(run.model, "encode"):
        return None
    codes = _codes(run)
    labels = some(run.test, SHOWN)[1]
    axes = ("first principal direction of the codes", "second principal direction")
    return plots.latent_scatter(_plane(codes)[1], labels, _title(run, "codes of test data"), axes)


def _traversal(run: Any, folder: Path, side: int = 11) -> bytes | None:
    """A walk in the plane of those two directions, decoded: ±2 standard deviations around the mean."""
    if not (hasattr(run.model, "encode") and hasattr(run.model, "likelihood")) or run.test.x.ndim == 2:
        return None
    codes = _codes(run)
    directions, plane = _plane(codes)
    steps = np.linspace(-2, 2, side)
    grid = np.array([(a, b) for b in -steps for a in steps]) * plane.std(axis=0)  # (side², 2)
    z = (codes.mean(axis=0) + grid @ directions).astype(np.float32)  # (side², D)
    with no_grad():
        images = run.model.likelihood.mean(run.model.decode(z))
    return plots.image_grid(images, _title(run, "latent traversal, ±2 standard deviations"), columns=side)


def _curves(run: Any, folder: Path) -> bytes | None:
    """The bound over the steps, in training and on held-out data, with the floor or the baseline drawn in.

    For a model without a likelihood the terms that it names itself.
    """
    lines = _metrics(folder)
    names = {
        "elbo": "training ELBO",
        "bound": "training bound",
        "log_prob": "training log-likelihood",
        "test_elbo": "held-out ELBO",
        "test_log_prob": "held-out log-likelihood",
        "test_bound": "held-out bound",
        "test_estimate": "held-out estimate",
    }
    title, model = f"{run.config.model} on {run.config.data}", run.model
    series = _series(lines, model.curves if model.no_likelihood else names)
    if series and model.no_likelihood:
        return plots.curves(series, title, ylabel="loss", lines=model.marks)
    marks = {}
    if run.test.entropy is not None:
        marks["best possible: minus the entropy of the data"] = -run.test.entropy
    if run.test.x.ndim == 4:
        name, nats = baseline(run, some(run.test, HELD_OUT)[0])[1]
        marks[f"{name}, to be beaten"] = -nats
    return plots.curves(series, title, ylabel="nats per sample", lines=marks) if series else None


def _energies(run: Any, folder: Path) -> bytes | None:
    """The energies of data and of the model's own chains over the steps: they stay together where the chains follow."""
    series = _series(_metrics(folder), {"energy_data": "data", "energy_chains": "chains of the model"})
    title = f"{run.config.model} on {run.config.data}: mean energies in training"
    return plots.curves(series, title, ylabel="energy, nats") if series else None


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return files.read_lines(path) if path.exists() else []


def _series(lines: list[dict[str, Any]], names: dict[str, str]) -> dict[str, Any]:
    """Those of the named values that there are: by what they are called in a legend, (steps, values)."""
    series: dict[str, Any] = {}
    for key, name in names.items():
        points = [(line["step"], line[key]) for line in lines if key in line]
        if points:
            series[name] = tuple(zip(*points, strict=True))
    return series


FIGURES: dict[str, Callable[[Any, Path], bytes | None]] = {
    "samples": _samples,
    "reconstructions": _reconstructions,
    "completions": _completions,
    "latent": _latent,
    "traversal": _traversal,
    "curves": _curves,
    "energies": _energies,
}


def _codes(run: Any) -> np.ndarray:
    """Mean codes of test data.     -> (N, D) float64"""
    with no_grad():
        return np.asarray(run.model.encode(_seen(run, some(run.test, SHOWN)[0]))[0].data, np.float64)


def _plane(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions of largest variance, (2, D), and the centred codes in their plane, (N, 2). For D = 1, 0 beside it."""
    centred = codes - codes.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]  # (min(D, 2), D)
    directions = np.concatenate([directions, np.zeros((2 - len(directions), codes.shape[1]))])
    return directions, centred @ directions.T
