"""Truths of energy-based models: ula, ncsn-weights, denoising-score, rbm-z, rbm-gradient, entropy-floor.

Each check is also run on mistakes, put into our own code, all of which it catches. Estimates may be off by 4 standard errors.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import plant

from minigen import Tensor, grad, ops
from minigen.data import TOYS
from minigen.evaluation import ais, log_partition
from minigen.models import Diverged, ebm, langevin, quadrature, rbm
from minigen.models.ebm import EBM2dConfig, mlp_ebm
from minigen.models.ncsn import NCSN, NCSN2dConfig
from minigen.models.rbm import RBM, AnnealedRBM, RBMConfig
from minigen.random import Generator
from minigen.truths import EnumeratedRBM, TwoModes, cross_entropy, total_probability, ula_variance

CURVATURE, STEP, CHAINS = 2.0, 0.15, 20_000  # a step η = ε/2 for the ε = 0.3 of the usual notation
GRID = ((-12.0, 12.0), (-12.0, 12.0))


def quadratic(x):
    return 0.5 * CURVATURE * ops.square(x).sum(axis=1)


def near(value, truth, stderr):
    assert abs(value - truth) < 4 * stderr, (value, truth, stderr)


# ---- the checks


def check_ula():
    """The variance is 1/(λ(1 - ηλ/2)) = .58824, not .5; at another temperature T it is T times that."""
    rng = Generator(0)
    for temperature in (1.0, 0.3):
        start = rng.normal((CHAINS, 1), dtype=np.float64)
        x = langevin.ula(quadratic, start, 25, STEP, rng, temperature)
        truth = temperature * ula_variance(CURVATURE, STEP)
        near(x.var(), truth, truth * math.sqrt(2 / CHAINS))


def check_mala():
    """The variance is 1/λ, whatever the step; and most, though not all, proposals are accepted."""
    rng = Generator(0)
    for step, temperature in ((0.15, 1.0), (0.6, 1.0), (0.6, 0.5)):
        start = rng.normal((CHAINS // 2, 2), dtype=np.float64)
        x, accepted = langevin.mala(quadratic, start, 25, step, rng, temperature)
        near(x.var(), temperature / CURVATURE, temperature / CURVATURE * math.sqrt(2 / CHAINS))
        assert 0.3 < accepted < 1


def check_weights():
    """Plain Langevin gives each mode what was near it at the start, annealed Langevin its weight."""
    modes, rng, n = TwoModes(), Generator(1), 2000
    start = rng.uniform((n, 2), -8, 8)
    plain = langevin.annealed(modes.score, start, np.array([1e-3]), 300, 0.1, rng)
    near(modes.share(plain), 0.51, 0.011)
    sigmas = np.geomspace(10, 0.1, 10)
    x = langevin.annealed(modes.score, start, sigmas, 100, 0.01, rng)
    assert 0.77 - 4 * 0.009 < modes.share(x) < 0.80 + 4 * 0.009
    near(np.abs(x.mean(axis=1)).mean(), 5.0, 0.7 / math.sqrt(n) + 0.01)
    near(x[x.sum(axis=1) > 0].var(axis=0).mean(), 1 + 0.1**2, 0.04)


def check_denoising():
    """Of Gaussian data the best σ s(x) is -σ x/(s² + σ²), and its loss mean_σ ½ s²/(s² + σ²); a scaled one has more."""
    s2, n = 0.49, 50_000

    def model(factor):
        def network(x, u, y):
            sigma = sigmas[np.rint(u * (len(sigmas) - 1)).astype(int)][:, None]
            return Tensor(factor * -sigma * (x.data * np.sqrt(1 + sigma**2)) / (s2 + sigma**2))

        return NCSN(network, (1,), NCSN2dConfig(sigma_max=2.0, sigma_min=0.1, noises=5))

    sigmas = np.geomspace(2.0, 0.1, 5)
    x = math.sqrt(s2) * Generator(2).normal((n, 1), dtype=np.float64)
    least = (0.5 * s2 / (s2 + sigmas**2)).mean()
    loss = {factor: model(factor).loss(x, Generator(3)).total.item() for factor in (0.9, 1.0, 1.1)}
    near(loss[1.0], least, math.sqrt(2) * 0.5 / math.sqrt(n))
    assert loss[1.0] < min(loss[0.9], loss[1.1])
    at = np.linspace(-1, 1, 5)[:, None]
    for sigma in sigmas:
        np.testing.assert_allclose(model(1.0).score(at, sigma), -at / (s2 + sigma**2), rtol=1e-6)
    np.testing.assert_allclose(model(1.0).score(at), -at / (s2 + 0.01), rtol=1e-6)


def small_rbm(seed=0, d=(2, 3, 1), k=5, scale=1.0):
    """An RBM with random parameters in float64, and the same one with all states listed."""
    rng = np.random.default_rng(seed)
    model = RBM(d, RBMConfig(hidden=k, chains=8, batch_size=8), Generator(0)).astype("float64")
    for p in model.parameters():
        p.data[...] = scale * rng.normal(size=p.shape)
    model.base.data[...] = 0.5 * rng.normal(size=model.base.shape)
    model.started.data[...] = 1
    return model, EnumeratedRBM(model.weight.data, model.visible_bias.data, model.hidden_bias.data)


def check_rbm_z():
    """log Z over visible states is that over hidden ones and that over pairs; AIS agrees within 4 standard errors."""
    for seed in (0, 1):
        model, truth = small_rbm(seed)
        for over in ("visible", "hidden", None):
            assert math.isclose(model.log_partition(over), truth.log_z(), rel_tol=1e-12)
        v = truth.visible.reshape(-1, 2, 3, 1)
        np.testing.assert_allclose(model.log_prob(v), truth.log_p(), atol=1e-9)
        found = log_partition(model.annealed(), np.linspace(0, 1, 31), 1500, Generator(seed))
        near(found.value, truth.log_z(), found.stderr)
        assert found.stderr < 0.05
        assert 100 < found.effective < 1500


def check_rbm_gradient():
    """The gradient of F(data) - F(model) is the exact one of -log p, with the model's states weighted by their probability."""
    model, truth = small_rbm(2)
    data = truth.visible[np.random.default_rng(0).integers(0, 64, 10)]
    p = np.exp(truth.log_p())
    loss = model.energy(data).mean() - (model.energy(truth.visible) * p).sum()
    for own, exact in zip(grad(loss, model.parameters()), truth.gradient(data), strict=True):
        np.testing.assert_allclose(own.data, -exact, atol=1e-12)


def check_gibbs():
    """A Gibbs step leaves the model's distribution as it is: χ² of the states of chains that start with it."""
    model, truth = small_rbm(3, scale=1.5)
    n, p = 20_000, np.exp(truth.log_p())
    rng = Generator(0)
    start = truth.visible[np.random.default_rng(1).choice(64, n, p=p)]
    for chains in (model.gibbs(start, 2, rng), model.annealed().transition(start, 1.0, rng)):
        counts = np.bincount((chains @ 2 ** np.arange(6)[::-1]).astype(int), minlength=64)
        seen = counts.sum() * p > 5
        chi2 = ((counts[seen] - n * p[seen]) ** 2 / (n * p[seen])).sum()
        assert chi2 < seen.sum() + 4 * math.sqrt(2 * seen.sum()), chi2


def check_density():
    """exp(log_prob) integrates to 1, for energies of any shape, and no cross-entropy is below the entropy of the data.

    With a loose tolerance, too, log Z is right: what is not refined is then a part that would be missed.
    """
    normal = lambda x: 0.5 * (x**2).sum(axis=1)
    assert abs(ebm.log_partition(normal, np.zeros(2), 7.0, tolerance=0.1)[0] - math.log(2 * math.pi)) < 1e-3
    for name in ("8gaussians", "moons"):
        toy = TOYS[name]
        model = mlp_ebm((2,), EBM2dConfig(hidden=16, batch_size=64, chains=64, chain_steps=2), Generator(1))
        rng = Generator(2)
        model.train_step(toy.sample(64, rng), rng, model.optimizers())
        for p in model.parameters():
            p.data[...] *= 0.6
        log_z, error = model.log_partition()
        assert error < 1e-4
        log_prob = lambda x, model=model, log_z=log_z: model.log_prob(x.astype(np.float32), log_z)
        assert abs(total_probability(log_prob, GRID, 0.05) - 1) < 1e-3
        assert cross_entropy(toy, log_prob, 0.05) > toy.entropy


CHECKS = (
    *(check_ula, check_mala, check_weights, check_denoising),
    *(check_rbm_z, check_rbm_gradient, check_gibbs, check_density),
)


@pytest.mark.parametrize("check", CHECKS)
def test_truth(check):
    check()


# ---- the same, with mistakes


MISTAKES = {  # what it is: who catches it, where it is made, what is replaced, by what
    "twice the step": (check_ula, langevin, "ula", "x.dtype), step,", "x.dtype), 2 * step,"),
    "noise without its square root": (check_ula, langevin, "ula", "step, temperature)", "step, 2 * step * temperature)"),
    "the ½ left out: √η for √(2η)": (check_ula, langevin, "ula", "step, temperature)", "step, temperature / 2)"),
    "no noise": (check_ula, langevin, "ula", "rng.normal(x.shape, dtype=x.dtype)", "np.zeros_like(x)"),
    "always the same noise": (check_ula, langevin, "ula", "rng.normal(x.shape", "Generator(0).normal(x.shape"),
    "temperature left out": (check_ula, langevin, "ula", "step, temperature)", "step, 1.0)"),
    "everything accepted": (check_mala, langevin, "mala", "< log_a ", "< np.inf + 0 * log_a "),
    "proposals taken for symmetric": (check_mala, langevin, "mala", "(forth - back)", "0 * (forth - back)"),
    "the ratio of proposals upside down": (check_mala, langevin, "mala", "(forth - back)", "(back - forth)"),
    "a gradient kept that was not accepted": (check_mala, langevin, "mala", "(g_y, g))", "(g_y, g_y))"),
    "an energy kept that was not accepted": (check_mala, langevin, "mala", "e = np.where(take, e_y, e)", "e = e_y"),
    "the energy the wrong way round": (check_mala, langevin, "mala", "np.float64) - e_y)", "np.float64) * -1 + e_y)"),
    "temperature left out of the test": (check_mala, langevin, "mala", "- e_y) / temperature", "- e_y)"),
    "the same step at all levels": (check_weights, langevin, "annealed", "float(sigma / sigmas[-1]) ** 2", "1"),
    "levels the wrong way round": (check_weights, langevin, "annealed", "in sigmas:", "in sigmas[::-1]:"),
    "the step in proportion to σ": (check_weights, langevin, "annealed", "sigmas[-1]) ** 2", "sigmas[-1])"),
    "α for α/2": (check_weights, langevin, "annealed", "noise, alpha / 2, 1.0)", "noise, alpha, 0.5)"),
    "annealed without noise": (check_weights, langevin, "annealed", "alpha / 2, 1.0)", "alpha / 2, 0.0)"),
    "down the score": (check_weights, langevin, "annealed", "-score(x", "score(x"),
    "the noise added back": (check_denoising, NCSN, "loss", ", i) + n)", ", i) - n)"),
    "the score not divided by σ": (check_denoising, NCSN, "score", "/ x.dtype.type(self.sigmas[i])", "* 1"),
    "divided by σ²": (check_denoising, NCSN, "score", "type(self.sigmas[i])", "type(self.sigmas[i] ** 2)"),
    "the widest for the narrowest": (check_denoising, NCSN, "score", "len(self.sigmas) - 1 if", "0 if"),
    "no ½": (check_denoising, NCSN, "loss", "0.5 * ops", "1.0 * ops"),
    "noise of one level": (check_denoising, NCSN, "loss", "beside(self.sigmas, i)[i]", "self.sigmas[0 * i]"),
    "the free energy of mean hidden units": (
        check_rbm_z, RBM, "energy",
        "ops.softplus(ops.linear(v, self.weight, self.hidden_bias))",
        "(lambda z: z * ops.sigmoid(z))(ops.linear(v, self.weight, self.hidden_bias))",
    ),
    "the free energy without the visible bias": (check_rbm_gradient, RBM, "energy", "-(v * self", "-0 * (v * self"),
    "the free energy with the wrong sign": (check_rbm_gradient, RBM, "energy", "- ops.softplus", "+ ops.softplus"),
    "hidden units off left out": (check_rbm_z, RBM, "log_partition", "np.logaddexp(0, v @ w + c)", "(v @ w + c)"),
    "a bias left out of Z": (check_rbm_z, RBM, "log_partition", "v @ b + np", "np"),
    "some states left out": (check_rbm_z, rbm, "_states", "np.arange(2**n)", "np.arange(1, 2**n)"),
    "AIS: weights the wrong way round": (
        check_rbm_z, ais, "log_partition",
        "beta) - path.log_f(x, before)",
        "before) - path.log_f(x, beta)",
    ),
    "AIS: weighed after the step": (
        check_rbm_z, ais, "log_partition",
        "log_w += move(path",
        "x = path.transition(x, beta, rng) if beta < 1 else x; log_w += move(path",
    ),
    "AIS: the mean of logs": (check_rbm_z, ais, "log_partition", "log_w.max() + math.log(w.mean())", "log_w.mean()"),
    "AIS: the sum for the mean": (check_rbm_z, ais, "log_partition", "math.log(w.mean())", "math.log(w.sum())"),
    "AIS: Z_0 left out": (check_rbm_z, ais, "log_partition", "path.log_z0 + float", "float"),
    "AIS: not started at f_0": (check_rbm_z, AnnealedRBM, "start", "ops.sigmoid(self.base)", "0.5 + 0 * self.base"),
    "AIS: a step too hot": (check_rbm_z, AnnealedRBM, "transition", "np.float32(beta)", "np.float32(0.3 * beta)"),
    "AIS: β outside of the softplus": (
        check_rbm_z, AnnealedRBM, "log_f",
        "ops.softplus(np.float32(beta) * inputs)",
        "beta * ops.softplus(inputs)",
    ),
    "Gibbs with mean hidden units": (check_gibbs, RBM, "_hidden", "rng.bernoulli(ops", "(ops"),
    "Gibbs without the hidden bias": (check_gibbs, RBM, "_hidden", "+ self.hidden_bias.data", ""),
    "Gibbs without the visible bias": (check_gibbs, RBM, "_visible", "+ self.visible_bias.data", ""),
    "E high is likely": (check_density, ebm.EBM, "log_prob", "return -self", "return self"),
    "Z added": (check_density, ebm.EBM, "log_prob", "- log_z  #", "+ log_z  #"),
    "cells for their side": (check_density, quadrature, "_masses", "2 * np.log(side)", "np.log(side)"),
    "coarse cells forgotten": (check_density, quadrature, "log_partition", "(log_mass), *done]", "(log_mass)]"),
    "cut cells counted at their old size": (check_density, quadrature, "log_partition", "side / SPLIT\n", "side\n"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_caught(mistake, monkeypatch):
    check, owner, name, text, new = MISTAKES[mistake]
    wrong = plant(monkeypatch, owner, name, text, new)
    if name == "log_partition" and owner is ais:
        monkeypatch.setitem(globals(), name, wrong)  # these two know it by a name of their own
    if name == "log_partition" and owner is quadrature:
        monkeypatch.setattr(ebm, name, wrong)
    with pytest.raises((AssertionError, Diverged)):
        check()


# ---- numbers that were computed elsewhere, and the rest


def test_variance_of_the_usual_example():
    """ε = .3, λ = 2 in the notation x - (ε/2)λx + √ε n: .58824, where .5 would be right."""
    assert abs(ula_variance(2.0, 0.15) - 0.58824) < 5e-6
    with pytest.raises(ValueError, match="does not settle"):
        ula_variance(2.0, 1.0)


@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 6))
def test_both_ways_of_enumerating_agree(seed, d, k):
    model, truth = small_rbm(seed, (d, 1, 1), k)
    assert math.isclose(model.log_partition("visible"), model.log_partition("hidden"), rel_tol=1e-10, abs_tol=1e-10)
    assert math.isclose(np.exp(truth.log_p()).sum(), 1, rel_tol=1e-9)


def test_a_larger_layer_is_enumerated_in_slices():
    model, _ = small_rbm(0, (15, 1, 1), 3, 0.3)
    assert math.isclose(model.log_partition("visible"), model.log_partition("hidden"), rel_tol=1e-11)


def test_the_score_of_two_modes_is_the_gradient_of_their_density():
    modes, x, h = TwoModes(), np.random.default_rng(0).normal(size=(20, 2)) * 4, 1e-6
    for sigma in (0.5, 4.0):

        def log_p(x, sigma=sigma):
            v = 1 + sigma**2
            parts = [-0.5 * ((x - c) ** 2).sum(axis=1) / v + math.log(w) for c, w in ((5.0, 0.8), (-5.0, 0.2))]
            return np.logaddexp(*parts)

        for axis in np.eye(2):
            slope = (log_p(x + h * axis) - log_p(x - h * axis)) / (2 * h)
            np.testing.assert_allclose((modes.score(x, sigma) * axis).sum(axis=1), slope, atol=1e-7)
