"""Truths linear-vae and iwae-bounds: a linear VAE against probabilistic PCA, where every quantity is known exactly."""

import math

import numpy as np
import pytest

from minigen import Tensor, no_grad
from minigen.models.vae import VAE, Gaussian, VAEConfig
from minigen.nn import Linear, Module, parameter
from minigen.optim import Adam
from minigen.random import Generator
from minigen.truths import Ppca

D, Q, N = 6, 2, 4000


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(D, D)) * np.array([2.0, 1.5, 0.6, 0.5, 0.4, 0.3])[:, None]
    return rng.normal(size=(N, D)) @ mix + rng.normal(size=D)


class LinearEncoder(Module):
    """mu = (x - m) A, log-variance a free vector: the form of the exact posterior."""

    def __init__(self, rng):
        self.mu = Linear(D, Q, rng=rng)
        self.logvar = parameter(np.zeros(Q, np.float32))

    def forward(self, x):
        from minigen import ops

        mu = self.mu(x)
        return ops.concat([mu, ops.broadcast_to(self.logvar, mu.shape)], axis=1)


class ExactEncoder(Module):
    def __init__(self, ppca):
        self.ppca = ppca

    def forward(self, x):
        mu, var = self.ppca.posterior(x)
        return Tensor(np.concatenate([mu, np.broadcast_to(np.log(var), mu.shape)], axis=1))


def optimal_vae(ppca):
    """The linear VAE at its optimum: exact posterior, maximum-likelihood decoder, in float64."""
    config = VAEConfig(latent=Q)
    likelihood = Gaussian()
    likelihood.log_scale = Tensor(np.array(0.5 * math.log(ppca.variance)), requires_grad=True)
    return VAE(ExactEncoder(ppca), lambda z: z @ ppca.weight.T + ppca.mean, likelihood, (D,), config)


def test_closed_form_is_the_likelihood_of_the_data(data):
    ppca = Ppca.fit(data, Q)
    assert math.isclose(ppca.log_prob(data).mean(), ppca.log_likelihood, rel_tol=1e-12)


def test_with_the_exact_posterior_every_weight_is_log_p(data):
    """log w = log p(x), whatever z was drawn: so std(log w) = 0."""
    ppca = Ppca.fit(data, Q)
    with no_grad():
        log_w = optimal_vae(ppca).log_weights(data[:200], 7, Generator(1)).data
    assert log_w.dtype == np.float64
    np.testing.assert_allclose(log_w, np.broadcast_to(ppca.log_prob(data[:200]), log_w.shape), rtol=1e-10)


def test_elbo_at_the_optimum_is_the_log_likelihood(data):
    """A diagonal encoder has no gap at the optimum: E[ELBO] is the maximum log-likelihood, within 4 standard errors."""
    ppca = Ppca.fit(data, Q)
    vae, rng = optimal_vae(ppca), Generator(2)
    with no_grad():
        elbos = np.mean([vae.elbo(data, rng)[0].data for _ in range(50)], axis=0)  # (N,), noise of z averaged
        repeated = [vae.elbo(data, rng)[0].data.mean() for _ in range(50)]
    stderr = np.std(repeated) / math.sqrt(50)
    assert abs(elbos.mean() - ppca.log_likelihood) < 4 * stderr
    assert stderr < 0.01  # tight enough to see a missing ½ log 2π (0.9 nats), a wrong KL, or a sum taken for a mean


def test_bounds_are_ordered(data):
    """L_1 ≤ L_5 ≤ L_50 ≤ log p(x) for a proposal that is not the posterior, and log E[w] = log p(x)."""
    ppca = Ppca.fit(data, Q)
    vae, rng = optimal_vae(ppca), Generator(3)
    exact = vae.encoder

    def wider(x):
        encoded = exact(x).data.copy()
        encoded[:, Q:] += 0.8  # log-variance too large
        encoded[:, :Q] += 0.2  # and the mean off
        return Tensor(encoded)

    vae.encoder = wider
    x = data[:1500]
    l1, l5, l50, l2000 = (vae.log_prob_bound(x, k, rng).mean() for k in (1, 5, 50, 2000))
    log_p = ppca.log_prob(x).mean()
    assert l1 < l5 - 0.02 < l50 - 0.04 < log_p
    assert abs(l2000 - log_p) < 0.002 < log_p - l50


def test_training_reaches_the_closed_form(data):
    """A short training ends within 0.02 nats of the best possible ELBO, and never above it."""
    x = data.astype(np.float32)
    ppca, rng = Ppca.fit(x, Q), Generator(4)
    vae = VAE(LinearEncoder(rng), Linear(Q, D, rng=rng), Gaussian(), (D,), VAEConfig(latent=Q))
    optimizer = Adam(vae.parameters(), lr=lambda step: 0.02 if step < 900 else 0.002)
    for _ in range(1500):
        optimizer.zero_grad()
        vae.loss(x[rng.permutation(N)[:500]], rng).total.backward()
        optimizer.step()
    with no_grad():
        elbo = np.mean([vae.elbo(x, rng)[0].data.mean() for _ in range(200)])
    assert ppca.log_likelihood - 0.02 < elbo < ppca.log_likelihood + 0.003
