"""The classifier behind the LeNet-FID: it learns, its weights follow from the seed, and what is kept is what was trained."""

import dataclasses

import numpy as np
import pytest

from minigen.data import load
from minigen.evaluation import LeNet, classifier, classify, features, train_classifier, weights_sha256
from minigen.random import Generator
from minigen.training import checkpoint
from minigen.training.quality import classifier_path, kept_classifier


def test_it_learns_digits_and_follows_from_its_seed():
    train, test = load("digits"), load("digits", "test")
    steps: list[int] = []
    net = train_classifier(train, seed=0, steps=150, said=steps.append)
    assert steps == list(range(1, 151))
    assert (classify(net, test.x) == test.y).mean() > 0.8  # chance is 0.1
    seen = features(net, test.x)
    assert (seen.shape, seen.dtype) == ((360, 64), np.float64)
    assert (seen >= 0).all()
    short = [train_classifier(train, seed, steps=3) for seed in (0, 0, 1)]
    digests = [weights_sha256(net) for net in short]
    assert digests[0] == digests[1] != digests[2]
    short[0].output.bias.data[0] += 1e-6
    assert weights_sha256(short[0]) != digests[0]


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])
def test_shapes(shape):
    net = LeNet(shape, 7, Generator(0))
    x = Generator(1).uniform((3, *shape))
    assert net.features(x).shape == (3, 64)
    assert net(x).shape == (3, 7)


def test_refusals():
    with pytest.raises(ValueError, match=r"at least 8 x 8, not of shape \(7, 8, 1\)"):
        LeNet((7, 8, 1), 2, Generator(0))
    with pytest.raises(ValueError, match="moons has points"):
        train_classifier(load("moons"), seed=0, steps=1)
    with pytest.raises(ValueError, match="digits has no labels"):
        train_classifier(dataclasses.replace(load("digits"), y=None), seed=0, steps=1)


def test_it_is_kept_by_data_seed_and_recipe(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(classifier, "STEPS", 2)
    train = load("digits")
    said: list[str] = []
    first = kept_classifier(train, say=said.append)
    assert first.new
    assert first.path.is_relative_to(tmp_path)
    assert len(said) == 1
    second = kept_classifier(train, say=said.append)
    assert not second.new
    assert len(said) == 1
    assert weights_sha256(second.net) == weights_sha256(first.net)
    assert not second.net.training
    others = [classifier_path(train, 1), classifier_path(dataclasses.replace(train, x=1 - train.x), 0)]
    monkeypatch.setattr(classifier, "STEPS", 3)
    assert len({first.path, *others, classifier_path(train, 0)}) == 4
    monkeypatch.setattr(classifier, "STEPS", 2)
    whole = first.path.read_bytes()
    first.path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(checkpoint.CheckpointError, match="SHA-256"):
        kept_classifier(train)
    assert kept_classifier(train, anew=True).new
    assert first.path.read_bytes() == whole
