"""Truths linear-vae, iwae-bounds and pathwise: they hold for the VAE, and fail for VAEs with the bugs that people ship."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen import ops
from minigen.models.vae import VAE, Bernoulli, Gaussian
from minigen.nn import Linear
from minigen.random import Generator
from minigen.truths import TRUTHS, Finding, SigmaPoints, reparameterised, score_function
from minigen.truths import vae as truths


def broken(findings):
    return [str(f) for f in findings if not f.holds]


@pytest.mark.parametrize("truth", [TRUTHS[name] for name in ("linear-vae", "iwae-bounds", "pathwise")], ids=lambda t: t.name)
def test_every_truth_holds_for_the_vae(truth):
    assert truth.fits(VAE)
    assert not truth.fits(Linear)
    assert broken(truth.check(VAE)) == []


@settings(max_examples=10)
@given(d=st.integers(2, 7), data=st.data())
def test_the_exact_ones_hold_for_any_size(d, data):
    sizes = {"d": d, "q": data.draw(st.integers(1, d - 1)), "seed": data.draw(st.integers(0, 2**32))}
    assert broken(truths.linear_vae(VAE, **sizes)) == []


# ---- mutants: (what is wrong, the class, its likelihood, the truths that notice)


class HiddenBeta(VAE):
    def elbo(self, x, rng):
        _, log_px, kl = super().elbo(x, rng)
        return log_px - 0.99 * kl, log_px, 0.99 * kl


class BetaInTheLossOnly(VAE):
    def loss(self, x, rng):
        _, log_px, kl = self.elbo(x, rng)
        return super().loss(x, rng)._replace(total=(0.99 * kl - log_px).mean())


class KlOfTheStandardDeviation(VAE):
    """log-variance taken for log-deviation in the noise, not in the KL."""

    def elbo(self, x, rng):
        mu, logvar = self.encode(x)
        _, kl = ops.sample_normal_kl(mu, logvar, np.zeros(mu.shape))
        log_px = self.likelihood.log_prob(x, self.decode(mu + ops.exp(logvar) * rng.normal(mu.shape)))
        return log_px - kl, log_px, kl


class MeanOverDimensions(VAE):
    """The KL averaged over the code where it should be summed."""

    def elbo(self, x, rng):
        _, log_px, kl = super().elbo(x, rng)
        return log_px - kl / self.config.latent, log_px, kl / self.config.latent


class NoGradientThroughTheSample(VAE):
    def decode(self, z):
        return super().decode(z.detach())


class NoMinusInWeights(VAE):
    """log p(x|z) - log p(z) + log q(z|x)."""

    def log_weights(self, x, k, rng):
        mu, logvar = self.encode(x)
        eps = rng.normal((k, *mu.shape), dtype=mu.dtype)
        z = mu + ops.exp(0.5 * logvar) * eps
        log_px = self.likelihood.log_prob(
            np.broadcast_to(x, (k, *x.shape)).reshape(-1, x.shape[1]), self.decode(z.reshape(-1, mu.shape[1]))
        )
        return log_px.reshape(k, len(x)) - 0.5 * (eps * eps + logvar - ops.square(z)).sum(axis=-1)


class InvertedWeights(VAE):
    def log_weights(self, x, k, rng):
        return -super().log_weights(x, k, rng)


class NoJacobian(VAE):
    """log q(z|x) without its log-variance: the density of eps instead of z."""

    def log_weights(self, x, k, rng):
        return super().log_weights(x, k, rng) - 0.5 * self.encode(x)[1].sum(axis=1)


class MeanOfLogs(VAE):
    """1/k Σ log w, where log 1/k Σ w is meant: the ELBO again, for any k."""

    def log_prob_bound(self, x, k, rng, chunk=50):
        return self.log_weights(x, k, rng).data.mean(axis=0)


class NoLogK(VAE):
    def log_prob_bound(self, x, k, rng, chunk=50):
        return super().log_prob_bound(x, k, rng, chunk) + math.log(k)


class MeanOfChunks(VAE):
    """The bounds of the chunks averaged: L_50 for any larger k."""

    def log_prob_bound(self, x, k, rng, chunk=5):
        return np.mean([super(MeanOfChunks, self).log_prob_bound(x, min(chunk, k), rng) for _ in range(-(-k // chunk))], axis=0)


class WithoutTwoPi(Gaussian):
    def log_prob(self, x, output):
        return super().log_prob(x, output) + 0.5 * x.shape[1] * math.log(2 * math.pi)


class MeanOverValues(Gaussian):
    def log_prob(self, x, output):
        return super().log_prob(x, output) * (1 / x.shape[1])


class WithoutLogScale(Gaussian):
    def log_prob(self, x, output):
        return super().log_prob(x, output) + self.log_scale * x.shape[1]


MUTANTS = [
    (HiddenBeta, Gaussian, {"linear-vae"}),
    (BetaInTheLossOnly, Gaussian, {"linear-vae"}),
    (KlOfTheStandardDeviation, Gaussian, {"linear-vae", "pathwise"}),
    (MeanOverDimensions, Gaussian, {"linear-vae"}),
    (NoGradientThroughTheSample, Gaussian, {"linear-vae", "pathwise"}),
    (NoMinusInWeights, Gaussian, {"iwae-bounds"}),
    (InvertedWeights, Gaussian, {"iwae-bounds"}),
    (NoJacobian, Gaussian, {"iwae-bounds"}),
    (MeanOfLogs, Gaussian, {"iwae-bounds"}),
    (NoLogK, Gaussian, {"iwae-bounds"}),
    (MeanOfChunks, Gaussian, {"iwae-bounds"}),
    (VAE, WithoutTwoPi, {"linear-vae", "iwae-bounds"}),
    (VAE, MeanOverValues, {"linear-vae", "iwae-bounds"}),
    (VAE, WithoutLogScale, {"linear-vae", "iwae-bounds"}),
]


NAMES = [f"{cls.__name__}-{likelihood.__name__}" for cls, likelihood, _ in MUTANTS]


@pytest.mark.parametrize(("cls", "likelihood", "noticed_by"), MUTANTS, ids=NAMES)
def test_mutants_are_noticed(cls, likelihood, noticed_by):
    """Each by the truths that are about it, and by no other: a truth that fails says where to look."""
    failing = {
        "linear-vae": broken(truths.linear_vae(cls, likelihood)),
        "iwae-bounds": broken(truths.iwae_bounds(cls, likelihood)),
        "pathwise": broken(truths.pathwise(cls)),
    }
    assert {name for name, findings in failing.items() if findings} == noticed_by


# ---- the two estimators of a gradient


@pytest.mark.parametrize(("mu", "sigma"), [(0.7, 0.5), (-1.3, 1.1), (0.0, 2.0)])
@pytest.mark.parametrize("estimator", [reparameterised, score_function])
def test_truth_pathwise_by_sampling(estimator, mu, sigma):
    """Both average to (2 mu, 2 sigma), within 4 standard errors."""
    gradients = estimator(ops.square, mu, sigma, Generator(5).normal((200_000,), dtype=np.float64))  # (n, 2)
    stderr = gradients.std(axis=0) / math.sqrt(len(gradients))
    assert (abs(gradients.mean(axis=0) - [2 * mu, 2 * sigma]) < 4 * stderr).all()
    assert stderr.max() < 0.06


def test_the_reparameterised_gradient_varies_less():
    eps = Generator(6).normal((50_000,), dtype=np.float64)
    small, large = (f(ops.square, 0.7, 0.5, eps).var(axis=0) for f in (reparameterised, score_function))
    assert (small < large).all()


# ---- the tools


def test_sigma_points_have_the_moments_of_noise():
    points = SigmaPoints(3)
    together = points.normal((6, 1, 3), dtype=np.float64)[:, 0]
    np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(together.T @ together / 6, np.eye(3), atol=1e-15)
    points = SigmaPoints(3)
    np.testing.assert_array_equal([points.normal((2, 3), dtype=np.float64)[1] for _ in range(6)], together)
    with pytest.raises(ValueError, match=r"not \(5, 2, 3\)"):
        points.normal((5, 2, 3))


def test_a_finding_reads_well_and_nan_does_not_hold():
    assert str(Finding("ELBO, nats", 1.5, 1.25, 1e-3)) == "ELBO, nats: 1.5 ≠ 1.25 ± 1.0e-03"
    assert Finding("ELBO, nats", 1.2504, 1.25, 1e-3).holds
    assert not Finding("ELBO, nats", math.nan, 1.25, 1e-3).holds


def test_likelihoods_are_normalised():
    """Bernoulli over all binary images, Gaussian by quadrature."""
    logits = Generator(0).normal((1, 3), dtype=np.float64)
    images = np.array([[i >> b & 1 for b in range(3)] for i in range(8)], np.float64)
    log_p = Bernoulli().log_prob(images, np.repeat(logits, 8, axis=0))
    assert math.isclose(np.exp(log_p).sum(), 1, rel_tol=1e-12)
    grid = np.linspace(-30, 30, 6001)[:, None]
    gaussian = Gaussian(scale=1.7).astype(np.float64)
    log_p = gaussian.log_prob(grid, np.full(grid.shape, 0.4)).data
    assert math.isclose(np.exp(log_p).sum() * 0.01, 1, rel_tol=1e-9)
