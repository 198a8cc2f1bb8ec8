"""How good the samples of a run are: scores beside those of real data. Start at `sample_scores`.

Points are compared as they are, images by the features of a classifier, which is trained when it is first wanted and kept in

    ~/.cache/minigen/classifiers/     (the cache folder of the operating system; see `data.files.cache_folder`)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..autograd.backend import move
from ..data import Dataset
from ..data.files import cache_folder
from ..evaluation import (
    FOR_FEATURES,
    FOR_POINTS,
    LeNet,
    Score,
    classifier,
    classify,
    compare,
    features,
    mig,
    train_classifier,
    weights_sha256,
)
from ..evaluation.modes import ClassReport, count_classes
from ..random import Generator
from . import checkpoint, figures, files

PIECE = 500  # samples that are drawn at a time
SAMPLES = {2: 2000, 4: 1000}  # see usual_number, by the number of axes: points (N, 2), images (N, H, W, C)

Say = Callable[[str], Any]


def sample_scores(run: Any, samples: np.ndarray, say: Say = lambda text: None) -> list[Score]:
    """Scores of samples of a run against its test data, beside those of as many training samples.

    say: is told if a classifier is trained.
    Raises ValueError for more samples than test samples, and for images without labels, for which there is no classifier.
    """
    test, train, n = run.test, run.data, len(samples)
    if n > len(test):
        raise ValueError(f"{n} samples: {test.name} has {len(test)} test samples; choose at most as many")
    real, others = test.x[figures.chosen(test, len(test))], train.x[figures.chosen(train, n)]
    if test.x.ndim == 2:
        return compare(samples, real, others, FOR_POINTS, f"{test.name} test")
    net = kept_classifier(train, say=say).net
    seen = f"{test.name} test, LeNet {weights_sha256(net)[:8]}"
    samples_seen, real_seen, others_seen = (features(net, x) for x in (samples, real, others))
    return compare(samples_seen, real_seen, others_seen, FOR_FEATURES, seen)


def usual_number(test: Dataset) -> int:
    """How many samples are scored where nothing else is said: 2,000 points, 1,000 images, or as many as there are tests."""
    return min(SAMPLES[test.x.ndim], len(test))


def draw(model: Any, n: int, rng: Generator, said: Callable[[int], Any] = lambda n: None) -> np.ndarray:
    """n samples of a model, some at a time.     -> (n, *data_shape)"""
    pieces = []
    for i in range(0, n, PIECE):
        pieces.append(move(model.sample(min(PIECE, n - i), rng), "cpu"))
        said(len(pieces[-1]))
    return np.concatenate(pieces)


def class_report(run: Any, samples: np.ndarray) -> ClassReport:
    """What the classifier takes samples (N, H, W, C) for, beside the classes of the test data."""
    net = kept_classifier(run.data).net
    return count_classes(samples, lambda x: classify(net, x), run.test.y)


def code_score(run: Any) -> Score | None:
    """The mutual information gap of the codes of test data with known factors, beside that of shuffled codes; else None."""
    if run.test.factors is None or not figures.has_active_units(run.model):
        return None
    chosen = figures.chosen(run.test, figures.SHOWN)
    seen = run.model.preprocess(move(run.test.x[chosen], run.looked_on), run.evaluation_rng())
    with figures.looking_at(run) as model, no_grad():
        codes = np.asarray(move(model.encode(seen)[0].data, "cpu"), np.float64)
    if codes.shape[1] < 2:
        return None
    known = run.test.factors[chosen]
    shuffled = codes[Generator(1).permutation(len(codes))]
    return Score("MIG", mig(codes, known), mig(shuffled, known), len(codes), f"{run.test.name} test", "codes shuffled")


# ---- the classifier, kept


@dataclass(frozen=True)
class Kept:
    """A classifier, the file that it is in, and whether it has just been trained."""

    net: LeNet
    path: Path
    new: bool


def kept_classifier(
    train: Dataset,
    seed: int = 0,
    anew: bool = False,
    say: Say = lambda text: None,
    said: Callable[[int], Any] = lambda step: None,
) -> Kept:
    """The classifier of a training set: from the cache, or trained and put there.

    anew: train it even if it is there.     say: is told before a training begins.     said: is told every step.
    Raises ValueError for a data set without labels, CheckpointError or FileError for a cache that cannot be used.
    """
    path = classifier_path(train, seed)
    if path.exists() and not anew:
        state, _ = checkpoint.load(path)
        net = LeNet(train.x.shape[1:], len(state["output.bias"]), Generator(0))
        checkpoint.require_same(state, net.state_dict(), path)
        net.load_state_dict(state)
        net.eval()
        return Kept(net, path, new=False)
    say(f"training the classifier that judges {train.name} ({classifier.STEPS} steps, once: it is kept in {path.parent})")
    net = train_classifier(train, seed, classifier.STEPS, said)
    files.make_folder(path.parent)
    checkpoint.save(path, net.state_dict(), meta={"data": train.name, "data_sha256": train.sha256, "seed": seed})
    return Kept(net, path, new=True)


def classifier_path(train: Dataset, seed: int) -> Path:
    """Its name follows from all that its weights follow from, but for the machine."""
    recipe = f"{classifier.BATCH} {classifier.STEPS} {train.sha256} {seed}"
    return cache_folder(None) / "classifiers" / f"{train.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.ckpt"
