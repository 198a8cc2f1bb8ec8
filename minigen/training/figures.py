"""Looking at a run: the numbers and pictures of one evaluation. Start at `evaluate_and_draw`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import plots
from ..autograd import no_grad
from ..evaluation import NLL, active_units, bound, independent_bernoulli, mean_and_stderr
from . import files

HELD_OUT = 500  # test samples that are looked at during training


def evaluate_and_draw(run: Any, folder: Path) -> dict[str, float]:
    """Evaluate the run's model on held-out data, and draw what it can show. Returns the numbers, in nats per sample."""
    run.model.eval()
    scores: dict[str, float] = {}
    with run.averaged():
        for look in (_likelihood, _samples, _reconstructions, _latent):
            scores |= look(run, folder / "figures")
    run.model.train()
    _curves(run, folder, scores)
    return scores


def likelihood(run: Any, x: np.ndarray, k: int, seed_offset: int = 0) -> NLL:
    """The model's bound on raw data x with k samples (1: the ELBO), beside its floor or baseline."""
    rng = run.evaluation_rng()
    value, stderr = mean_and_stderr(-bound(run.model, x, k, rng))
    points = run.test.x.ndim == 2
    return NLL(
        value,
        stderr,
        len(x),
        "ELBO" if k == 1 else f"IWAE-{k}",
        f"{run.test.name} test" + ("" if points else ", dynamic binarisation"),
        int(np.prod(x.shape[1:])),
        floor=run.test.entropy,
        baseline=None if points else ("independent Bernoullis", independent_bernoulli(run.data.x, x)),
    )


def _likelihood(run: Any, folder: Path) -> dict[str, float]:
    if not hasattr(run.model, "elbo"):
        return {}
    nll = likelihood(run, run.test.x[:HELD_OUT], 1)
    return {"test_elbo": -nll.value}


def _samples(run: Any, folder: Path) -> dict[str, float]:
    points = run.test.x.ndim == 2
    samples = run.model.sample(2000 if points else 64, run.evaluation_rng())
    title = f"{run.config.model} on {run.config.data}, step {run.step}"
    if points:
        plots.points(samples, run.test.x[:2000], folder / "samples.png", title)
    else:
        plots.image_grid(samples, folder / "samples.png", f"{title}: samples")
    return {}


def _reconstructions(run: Any, folder: Path) -> dict[str, float]:
    if not hasattr(run.model, "reconstruct") or run.test.x.ndim == 2:
        return {}
    originals = run.test.x[:16]
    seen = run.model.preprocess(originals, run.evaluation_rng())
    title = f"{run.config.model} on {run.config.data}, step {run.step}: test images"
    plots.reconstructions(originals, seen, run.model.reconstruct(seen), folder / "reconstructions.png", title)
    return {}


def _latent(run: Any, folder: Path) -> dict[str, float]:
    """Codes of the test set along their two directions of largest variance, and a walk through the latent space."""
    if not hasattr(run.model, "encode"):
        return {}
    x = run.model.preprocess(run.test.x[:2000], run.evaluation_rng())
    with no_grad():
        codes = np.asarray(run.model.encode(x)[0].data, np.float64)  # (N, D)
    centred = codes - codes.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]  # (2, D)
    plane = centred @ directions.T if codes.shape[1] > 1 else np.stack([codes[:, 0], np.zeros(len(codes))], axis=1)
    labels = None if run.test.y is None else run.test.y[:2000]
    names = ("first principal direction of the codes", "second")
    plots.latent_scatter(plane, labels, folder / "latent.png", f"latent codes of test data, step {run.step}", names)
    if run.test.x.ndim == 4 and codes.shape[1] > 1 and hasattr(run.model, "likelihood"):
        _walk(run, codes, directions, folder / "traversal.png")
    return {"active_units": float(active_units(run.model.encode, x))}


def _walk(run: Any, codes: np.ndarray, directions: np.ndarray, path: Path, side: int = 11) -> None:
    """Decode a grid of codes in the plane of the two principal directions, ±2 standard deviations around the mean."""
    spread = (codes @ directions.T).std(axis=0)  # (2,)
    steps = np.linspace(-2, 2, side)
    grid = np.stack([(a * spread[0], b * spread[1]) for b in -steps for a in steps])  # (side², 2)
    z = (codes.mean(axis=0) + grid @ directions).astype(np.float32)  # (side², D)
    with no_grad():
        images = run.model.likelihood.mean(run.model.decode(z))
    plots.image_grid(images, path, f"latent traversal, step {run.step}: ±2 standard deviations both ways", columns=side)


def _curves(run: Any, folder: Path, scores: dict[str, float]) -> None:
    """The bound over the steps, in training and on held-out data, with the floor or the baseline drawn in."""
    lines = files.read_lines(folder / "metrics.jsonl")
    series = {
        "training ELBO": [(line["step"], line["elbo"]) for line in lines if "elbo" in line],
        "held-out ELBO": [(line["step"], line["test_elbo"]) for line in lines if "test_elbo" in line]
        + ([(run.step, scores["test_elbo"])] if "test_elbo" in scores else []),
    }
    drawn = {name: tuple(zip(*points, strict=True)) for name, points in series.items() if points}
    if not drawn:
        return
    marks = {}
    if run.test.entropy is not None:
        marks["minus the entropy of the data"] = -run.test.entropy
    if run.test.x.ndim == 4:
        marks["independent Bernoullis"] = -independent_bernoulli(run.data.x, run.test.x[:HELD_OUT])
    plots.curves(drawn, folder / "figures" / "curves.png", f"{run.config.model} on {run.config.data}", lines=marks)


