"""Closed forms of linear-Gaussian models, and a VAE that is trained towards them (truth linear-vae)."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minigen import no_grad, ops
from minigen.models.vae import VAE, Gaussian, VAEConfig
from minigen.nn import Linear
from minigen.optim import Adam, cosine
from minigen.random import Generator
from minigen.truths import Ppca, autoencoder_error
from minigen.truths.vae import LinearEncoder, linear_data


@given(d=st.integers(2, 8), data=st.data())
def test_ppca(d, data):
    """Its likelihood is that of the data; its model's covariance has their spectrum, the discarded part averaged."""
    q = data.draw(st.integers(1, d - 1))
    x = linear_data(200, d, data.draw(st.integers(0, 2**32)))
    ppca = Ppca.fit(x, q)
    assert math.isclose(ppca.log_prob(x).mean(), ppca.log_likelihood, rel_tol=1e-9)
    covariance = ppca.weight @ ppca.weight.T + ppca.variance * np.eye(d)
    spectrum = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    spectrum[: d - q] = spectrum[: d - q].mean()
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance), spectrum, rtol=1e-8)


def test_ppca_is_a_maximum():
    """Any small change of W, m or σ² lowers the likelihood."""
    x = linear_data(200, 5, 0)
    best = Ppca.fit(x, 2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        change = 1e-3 * rng.normal(size=(5, 2)), 1e-3 * rng.normal(size=5), 1e-3 * rng.normal()
        other = Ppca(best.weight + change[0], best.mean + change[1], best.variance * (1 + change[2]), math.nan)
        assert other.log_prob(x).mean() < best.log_likelihood


def test_posterior_by_bayes():
    """log p(x|z) + log p(z) - log p(z|x) is log p(x), whatever z."""
    x, z = linear_data(50, 4, 1), np.random.default_rng(0).normal(size=(50, 2))
    ppca = Ppca.fit(x, 2)
    mean, variance = ppca.posterior(x)

    def log_normal(x, mean, variance):
        return (-0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))).sum(axis=1)

    log_pz_x = log_normal(z, mean, np.broadcast_to(variance, z.shape))
    log_px_z = log_normal(x, z @ ppca.weight.T + ppca.mean, np.full(x.shape, ppca.variance))
    np.testing.assert_allclose(log_px_z + log_normal(z, 0, np.ones(z.shape)) - log_pz_x, ppca.log_prob(x), rtol=1e-10)


def test_autoencoder_error_is_that_of_pca():
    x = linear_data(100, 6, 2)
    centred = x - x.mean(axis=0)
    u = np.linalg.svd(centred, full_matrices=False)[2][:2]
    error = ((centred - centred @ u.T @ u) ** 2).sum(axis=1).mean()
    assert math.isclose(autoencoder_error(x, 2), error, rel_tol=1e-9)


def test_training_reaches_the_closed_form():
    """A short training, in float32 as in real life, ends within 0.01 nats of the best possible ELBO, and not above it."""
    d, q, n = 6, 2, 1000
    x = linear_data(n, d, 0).astype(np.float32)
    ppca, rng = Ppca.fit(x, q), Generator(4)
    vae = VAE(LinearEncoder(d, q, rng), Linear(q, d, rng=rng), Gaussian(), (d,), VAEConfig(latent=q))
    optimizer = Adam(vae.parameters(), cosine(0.1, steps=1000))
    for _ in range(1000):
        optimizer.zero_grad()
        vae.loss(x[rng.permutation(n)[:250]], rng).total.backward()
        optimizer.step()
    with no_grad():
        elbos = [vae.elbo(x, rng)[0].data.mean(dtype=float) for _ in range(200)]
    stderr = np.std(elbos) / math.sqrt(len(elbos))
    assert stderr < 0.003
    assert ppca.log_likelihood - 0.01 - 4 * stderr < np.mean(elbos) < ppca.log_likelihood + 4 * stderr


def test_a_linear_autoencoder_is_trained_to_the_discarded_eigenvalues_and_never_below():
    """Truth linear-ae: by our own layers and optimiser."""
    x = linear_data(200, 6, 2)
    x = (x - x.mean(axis=0)).astype(np.float32)
    least, rng = autoencoder_error(x, 2), Generator(0)
    encoder, decoder = Linear(6, 2, rng=rng, bias=False), Linear(2, 6, rng=rng, bias=False)
    optimizer = Adam([*encoder.parameters(), *decoder.parameters()], cosine(0.05, steps=600))
    for _ in range(600):
        optimizer.zero_grad()
        loss = ops.square(decoder(encoder(x)) - x).sum(axis=1).mean()
        loss.backward()
        optimizer.step()
        assert loss.item() > least - 1e-4
    assert loss.item() < least + 1e-3
