"""The RBM as it is trained, and AIS as it is called. That they are right is proved in tests/truths/test_energy_truths.py."""

import math
import re

import numpy as np
import pytest

from minigen import cli
from minigen.evaluation import NLL, LogZ, ais_estimators, log_partition
from minigen.evaluation.ais import denser_towards_one
from minigen.models.rbm import RBM, RBMConfig, rbm
from minigen.random import Generator
from minigen.training import figures

STRIPES = np.zeros((4, 4, 4, 1), np.float32)
STRIPES[range(4), range(4)] = 1  # four images, each with one white row


def trained(steps=300, **options):
    config = RBMConfig(**{"hidden": 8, "batch_size": 20, "chains": 20, "lr": 0.02, **options})
    model, rng = rbm((4, 4, 1), config, Generator(0)), Generator(1)
    optimizers = model.optimizers()
    return model, [model.train_step(STRIPES[rng.integers(0, 4, (20,))], rng, optimizers) for _ in range(steps)]


@pytest.mark.parametrize("algorithm", ["pcd", "cd"])
def test_training_comes_near_to_the_entropy_of_four_images(algorithm):
    """-log p of each of four images that come equally often is at least log 4; independent pixels have 16 H(1/4)."""
    model, _ = trained(400, algorithm=algorithm, gibbs_steps=5, chains=100, lr=0.01)
    nll = -model.log_prob(STRIPES).mean()
    assert math.log(4) < nll < 5, nll
    independent = 16 * (math.log(4) - 0.75 * math.log(3))
    assert nll < independent - 3
    samples = model.sample(50, Generator(2))
    assert (samples.shape, samples.dtype) == ((50, 4, 4, 1), np.float32)
    rows = samples[..., 0].mean(axis=2)  # (50, 4)
    assert (rows.max(axis=1) > 0.8).mean() > 0.6


def test_all_states_of_a_trained_model_sum_to_one():
    model, _ = trained(20)
    states = (np.arange(2**16)[:, None] >> np.arange(16) & 1).astype(np.float32).reshape(-1, 4, 4, 1)
    assert abs(np.exp(model.log_prob(states)).sum() - 1) < 1e-4


def test_pcd_keeps_its_chains_and_cd_has_none():
    model, _ = trained(1)
    assert set(np.unique(model.chains.data)) == {0.0, 1.0}
    before = model.chains.data.copy()
    model.sample(3, Generator(0))
    np.testing.assert_array_equal(model.chains.data, before)
    model.loss(STRIPES, Generator(2))
    assert (model.chains.data != before).any()
    other, _ = trained(1, algorithm="cd")
    start = other.chains.data.copy()
    other.loss(STRIPES, Generator(2))
    np.testing.assert_array_equal(other.chains.data, start)


def test_every_parameter_learns_and_the_same_seed_gives_the_same():
    (one, terms), (two, again) = trained(3), trained(3)
    assert terms == again
    assert set(terms[0]) == {"loss", "gap", "energy_data", "energy_chains"}
    fresh = RBM((4, 4, 1), one.config, Generator(0)).state_dict()
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(array, two.state_dict()[name])
        assert (array != fresh[name]).any(), name


def test_z_of_a_large_model_is_not_enumerated():
    model = RBM((8, 8, 1), RBMConfig(hidden=21), Generator(0))
    assert model.estimators(5) == {}
    with pytest.raises(ValueError, match="a layer of 64 units has too many states"):
        model.log_partition("visible")
    assert list(ais_estimators(model, 5)) == ["AIS, 100 chains, 100 temperatures"]
    assert list(RBM((8, 8, 1), RBMConfig(hidden=15), Generator(0)).estimators(5)) == ["exact, Z by enumeration"]
    assert ais_estimators(object(), 5) == {}


def test_ais_says_how_sure_it_is():
    model, _ = trained(50)
    betas = denser_towards_one(30)
    assert (betas[0], betas[-1], len(betas)) == (0, 1, 31)
    assert np.diff(betas)[0] > np.diff(betas)[-1] > 0
    found = log_partition(model.annealed(), betas, 50, Generator(0))
    assert isinstance(found, LogZ)
    assert 0 < found.stderr < 1
    assert 1 < found.effective <= 50
    for betas, chains in ((np.array([0.0, 0.5]), 50), (np.array([0.0, 0.6, 0.4, 1.0]), 50), (np.array([0.0, 1.0]), 1)):
        with pytest.raises(ValueError, match="rise from 0 to 1"):
            log_partition(model.annealed(), betas, chains, Generator(0))
    (log_prob,) = ais_estimators(model, 2).values()
    assert log_prob.detail == "not run"
    values = log_prob(STRIPES, Generator(3))
    np.testing.assert_allclose(values, model.log_prob(STRIPES, log_prob.found.value))
    assert log_prob.shared_stderr == log_prob.found.stderr
    assert str(NLL(1.0, 0.1, 4, "AIS, 100 chains", "stripes", 16, baseline=("a", 2.0))).startswith("NLL ≈ ")


def test_evaluate_by_ais_and_by_enumeration(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "FIGURES", {})
    for hidden, said in (("25", r"NLL ≈ .*AIS, 100 chains, 40 temperatures, log Z = \S+ ± \S+, \d+ chains effective, n = 50"),
                         ("6", r"NLL \d.*exact, Z by enumeration, n = 50")):  # fmt: skip
        out = str(tmp_path / hidden)
        assert cli.main(["train", "rbm", "--hidden", hidden, "--steps", "5", "--out", out, "--quiet", "--threads", "1"]) == 0
        assert cli.main(["evaluate", out, "-n", "50", "-k", "2"]) == 0
        told = capsys.readouterr().out
        assert re.search(said + ".*independent Bernoullis", told), told
