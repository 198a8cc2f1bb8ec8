"""Truths of variational autoencoders, checked on linear ones, where all is known in closed form. Start at `linear_vae`.

Each check takes a class made like `minigen.models.VAE`: cls(encoder, decoder, likelihood, data_shape, config), with an encoder
x -> (N, 2D) of means and log-variances, `elbo`, `log_weights`, `log_prob_bound` and `loss`; and a likelihood class made like
`minigen.models.vae.Gaussian`. The linear VAE is that of probabilistic PCA: see linear.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..models.vae import Gaussian, VAEConfig
from ..nn import Linear, Module, parameter
from ..random import Generator
from .linear import LOG_2PI, Ppca
from .truth import Finding, Impulses, SigmaPoints, Truth, array

N = 250  # samples
ROUND_OFF = 1e-9


def linear_vae(cls: Any, likelihood: type = Gaussian, d: int = 6, q: int = 3, seed: int = 0) -> list[Finding]:
    """At the maximum-likelihood parameters of pPCA the ELBO is the log-likelihood, of each sample and so of all, and there
    the loss has no gradient: the best ELBO is the maximum of the log-likelihood   (Lucas 2019, theorem 1).

    Exact: the ELBO of a linear VAE is quadratic in the noise, so sigma points give its expectation.
    d, q: values per sample, and latent dimensions.     seed: of the data.
    """
    x = linear_data(N, d, seed)
    ppca = Ppca.fit(x, q)
    vae, noise = optimal_vae(ppca, cls, likelihood), SigmaPoints(q)
    elbo = np.mean([vae.elbo(x, noise)[0].data for _ in range(len(noise))], axis=0)  # (N,)
    for _ in range(len(noise)):
        vae.loss(x, noise).total.backward()
    mu, variance = ppca.posterior(x)  # (N, q), (q,)
    kl = float(0.5 * (mu**2 + variance - 1 - np.log(variance)).sum(axis=1).mean())
    best, round_off = ppca.log_likelihood, ROUND_OFF * max(1.0, 1 / ppca.variance)  # a loss this steep rounds as much more
    suspects = (
        (best + 0.5 * d * math.log(2 * math.pi), "log p(x|z) has no ½ log 2π"),
        (best + kl, "the KL term is left out"),
        (best + kl - kl / q, "the KL term is averaged over the code, where it must be summed"),
        (best + 0.5 * kl, "the KL term has a weight of ½"),
        (best - kl, "the KL term counts twice"),
        (best + 2 * kl, "the KL term has the wrong sign"),
        (best / d, "everything is averaged over the values, where it must be summed"),
        ((best + kl) / d - kl, "log p(x|z) is averaged over the values, where it must be summed"),
        (-best, "the ELBO has the wrong sign"),
    )
    return [
        Finding("mean ELBO at the optimum, nats", float(elbo.mean()), best, ROUND_OFF, suspects),
        Finding("largest |ELBO - log p| of a sample, nats", abs(elbo - ppca.log_prob(x)).max(), 0, ROUND_OFF),
        *(
            Finding(f"largest gradient of the loss for {name}", abs(_gradient(p)).max(), 0, round_off)
            for name, p in vae.named_parameters()
        ),
    ]


def iwae_bounds(cls: Any, likelihood: type = Gaussian, d: int = 6, q: int = 2, seed: int = 0) -> list[Finding]:
    """The weights of the exact posterior are all p(x). For another proposal q the mean weight is p(x), the bound with one
    sample is below log p(x) by KL(q ‖ posterior), and it rises to log p(x) with more   (Burda 2016, theorem 1).
    """
    x = linear_data(N, d, seed)
    ppca = Ppca.fit(x, q)
    log_p, (mu, variance) = ppca.log_prob(x), ppca.posterior(x)  # (N,), (N, q) and (q,)
    shift, factor = 0.5 * np.sqrt(variance), 1.5  # a proposal beside the posterior, and wider, so that weights are bounded
    kl = 0.5 * q * (factor - 1 - math.log(factor) + 0.5**2)  # the same for every x
    with no_grad():
        exact = optimal_vae(ppca, cls, likelihood).log_weights(x, 3, Generator(1)).data - log_p  # (3, N)
        vae = optimal_vae(ppca, cls, likelihood, shift, factor)
        log_w = vae.log_weights(x, 2 * q, SigmaPoints(q)).data.mean(axis=0)  # (N,)   quadratic in the noise
        mean_w = np.exp(vae.log_weights(x, 1000, Generator(2)).data - log_p).mean(axis=0)  # (N,)
        rng = Generator(3)
        gaps = {k: vae.log_prob_bound(x, k, rng) - log_p for k in (1, 5, 50, 2000)}  # (N,) each

    means = [gap.mean() for gap in gaps.values()]
    bias = gaps[2000].var()  # of the logarithm of a mean weight, about twice over
    wide = factor * variance
    log_pz = float(-0.5 * ((mu + shift) ** 2 + wide + LOG_2PI).sum(axis=1).mean())  # E_q log p(z), and E_q log q(z|x)
    log_qz, right = float(-0.5 * (LOG_2PI + np.log(wide) + 1).sum()), float(log_p.mean()) - kl
    suspects = (
        (right - 2 * (log_pz - log_qz), "log p(z) and log q(z|x) have each other's sign"),
        (right + 2 * log_qz, "log q(z|x) is added, where it must be subtracted"),
        (right + log_qz, "log q(z|x) is left out"),
        (right - log_pz, "log p(z) is left out"),
        (right - 0.5 * float(np.log(wide).sum()), "log q(z|x) has no log-variance: it is the density of ε, not of z"),
        (right + 0.5 * d * LOG_2PI, "log p(x|z) has no ½ log 2π"),
        (right + 0.5 * q * LOG_2PI, "log p(z) has no ½ log 2π, and log q(z|x) has it"),
        (-right, "the weights are inverted: 1/w for w"),
    )
    bound = (
        (-kl, "it is the mean of log w, where it must be the log of the mean of w"),
        (math.log(2000), "the log of the sum of the weights, without - log k"),
    )
    return [
        Finding("largest |log w - log p| with the exact posterior, nats", abs(exact).max(), 0, ROUND_OFF),
        Finding("E[log w] with another proposal, nats", float(log_w.mean()), right, ROUND_OFF, suspects),
        Finding("largest |E[log w] - log p + KL| of a sample, nats", abs(log_w - log_p + kl).max(), 0, ROUND_OFF),
        Finding("mean of w / p", mean_w.mean(), 1, _four_errors(mean_w)),
        Finding("gap of the bound with 1 sample, nats", means[0], -kl, _four_errors(gaps[1])),
        Finding(f"gaps with {', '.join(map(str, gaps))} samples that rise", float((np.diff(means) > 0).sum()), 3, 0),
        Finding("gap of the bound with 2000 samples, nats", means[-1], 0, _four_errors(gaps[2000]) + bias, bound),
    ]


def pathwise(cls: Any) -> list[Finding]:
    """Reparameterised gradients of E_q[Σ z²], q = N(mu, sigma²), are 2 mu and, for log sigma², sigma².

    Through the ELBO, with a decoder that passes z on and Σ z² in the place of the log-likelihood. Exact, by sigma points.
    """
    mu, logvar = parameter(np.array([[0.7, -1.2]])), parameter(np.array([[0.3, -0.8]]))
    second_moment = Module()
    second_moment.log_prob = lambda x, output: ops.square(output).sum(axis=1)  # type: ignore[attr-defined]
    vae = cls(lambda x: ops.concat([mu, logvar], axis=1), lambda z: z, second_moment, (2,), VAEConfig(latent=2))
    noise = SigmaPoints(2)
    for _ in range(len(noise)):
        moment = vae.elbo(np.zeros((1, 2)), noise)[1].sum() / len(noise)
        if moment.requires_grad:  # if not, no gradient comes, and the findings say so
            moment.backward()
    cut = ((0.0, "no gradient comes through the sample: it is cut off (by detach, for instance), or has no noise in it"),)
    variance = np.exp(logvar.data)
    squared = [((float(2 * v**2), "the noise is multiplied by sigma², where sigma is meant"), *cut) for v in variance[0]]
    return [
        Finding(f"gradient of E[z²] for {what}", 0.0 if p.grad is None else float(p.grad.data[0, i]), right[0, i], ROUND_OFF, s)
        for what, p, right, all_s in (("mu", mu, 2 * mu.data, [cut, cut]), ("log sigma²", logvar, variance, squared))
        for i, s in enumerate(all_s)
    ]


def vae_prior(cls: Any, likelihood: type = Gaussian, d: int = 5, q: int = 2) -> list[Finding]:
    """Samples of a linear VAE have its decoder's mean m, and the covariance W Wᵀ + σ² I: z ~ N(0, I), then x ~ p(x|z).

    Exact: a linear VAE's samples are linear in the noise, so impulses show their covariance, and a sample without noise m.
    """
    ppca = Ppca.fit(linear_data(N, d, 0), q)
    samples = np.asarray(array(optimal_vae(ppca, cls, likelihood).sample(q + d + 1, Impulses())), np.float64)
    mean, rows = samples[-1], samples - samples[-1]
    signal, noise = ppca.weight @ ppca.weight.T, ppca.variance * np.eye(d)
    trace = float(np.trace(signal + noise))
    suspects = (
        (float(np.trace(signal)), "samples are the means of p(x|z): its noise is left out"),
        (float(np.trace(noise)), "no code is drawn: all samples have the code 0"),
        (float(np.trace(signal) + d * ppca.variance**2), "the noise of p(x|z) is scaled by its variance, not its deviation"),
        (float(np.trace(signal) + d * ppca.variance**0.5), "the noise of p(x|z) is scaled by the root of its deviation"),
        (float(np.trace(signal) + d), "the noise of p(x|z) is not scaled"),
        (0.0, "nothing is drawn"),
    )
    return [
        Finding("variance of samples, summed over their values", float((rows**2).sum()), trace, 1e-6, suspects),
        Finding("largest error of their covariance", float(np.abs(rows.T @ rows - signal - noise).max()), 0, 1e-6),
        Finding("largest error of a sample without noise", float(np.abs(mean - ppca.mean).max()), 0, 1e-6),
    ]


def _four_errors(values: np.ndarray) -> float:
    """Four standard errors of the mean."""
    return 4 * float(values.std()) / math.sqrt(len(values))


def _gradient(p: Tensor) -> np.ndarray:
    """What backward has added up; NaN, which no truth accepts, if nothing has come."""
    return np.full(p.shape, math.nan) if p.grad is None else p.grad.data


# ---- linear VAEs


def linear_data(n: int, d: int, seed: int) -> np.ndarray:
    """Gaussian samples with a covariance of falling eigenvalues.     -> (n, d) float64"""
    rng = Generator(seed)
    mix = rng.normal((d, d), dtype=np.float64) * np.linspace(2, 0.3, d)[:, None]
    return rng.normal((n, d), dtype=np.float64) @ mix + rng.normal((d,), dtype=np.float64)


class LinearEncoder(Module):
    """mu = x A + b, log-variance a free vector: the form of pPCA's posterior.     (N, d) -> (N, 2q)"""

    def __init__(self, d: int, q: int, rng: Generator):
        self.mu = Linear(d, q, rng=rng)
        self.logvar = parameter(np.zeros(q, np.float32))

    def forward(self, x: Any) -> Tensor:
        mu = self.mu(x)
        return ops.concat([mu, ops.broadcast_to(self.logvar, mu.shape)], axis=1)


def optimal_vae(ppca: Ppca, cls: Any, likelihood: type = Gaussian, shift: Any = 0.0, factor: float = 1.0) -> Any:
    """The linear VAE with the parameters of `ppca`, in float64.

    shift, factor: move the means of q away from the posterior's, (q,), and multiply its variance.
    """
    d, q = ppca.weight.shape
    rng = Generator(0)
    encoder, decoder, scale = LinearEncoder(d, q, rng), Linear(q, d, rng=rng), likelihood()
    vae = cls(encoder, decoder, scale, (d,), VAEConfig(latent=q)).astype(np.float64)
    origin, variance = ppca.posterior(np.zeros((1, d)))
    encoder_values = [ppca.weight * (variance / ppca.variance), origin[0] + shift, np.log(factor * variance)]  # W M⁻¹, ...
    values = [*encoder_values, ppca.weight.T, ppca.mean, 0.5 * math.log(ppca.variance)]
    parameters = [*encoder.parameters(), *decoder.parameters(), *scale.parameters()]
    for p, value in zip(parameters, values, strict=True):
        p.data[...] = value
    return vae


# ---- the rows of the table


VAE = ("encoder", "decoder", "likelihood", "data_shape", "config")  # how the constructor of a class begins

TRUTHS = (
    Truth(
        "linear-vae",
        "the best ELBO of a linear VAE is the maximum log-likelihood of probabilistic PCA",
        "Lucas et al. 2019, arXiv 1911.02469, theorem 1",
        ("elbo", "loss", "astype"),
        linear_vae,
        made_of=VAE,
        mistakes="a KL that is not summed over the code or has a hidden weight, a missing ½ log 2π, or a mean for a sum",
    ),
    Truth(
        "iwae-bounds",
        "E[w] = p(x); with the exact posterior every weight is p(x); the bounds rise to log p(x)",
        "Burda et al. 2016, arXiv 1509.00519, theorem 1",
        ("log_weights", "log_prob_bound", "astype"),
        iwae_bounds,
        made_of=VAE,
        mistakes="log q(z|x) with the wrong sign or without its log-variance, or a mean of logarithms for log of a mean",
    ),
    Truth(
        "pathwise",
        "reparameterised gradients of E[z²] are 2 mu, and sigma² for log sigma²",
        "Kingma & Welling 2014, arXiv 1312.6114, section 2.4",
        ("elbo",),
        pathwise,
        made_of=VAE,
        mistakes="the sample is cut off from mu and sigma (by detach, for instance), or sigma is taken for its square",
    ),
    Truth(
        "vae-prior",
        "samples of a linear VAE have the covariance W Wᵀ + σ² I that codes from N(0, I) give",
        "Tipping & Bishop 1999: x = W z + m + σ ε",
        ("elbo", "sample", "astype"),
        vae_prior,
        made_of=VAE,
        mistakes="codes that are not from the prior N(0, I), or samples without the noise of p(x|z)",
    ),
)
