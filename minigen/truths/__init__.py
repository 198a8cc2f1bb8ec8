"""Truths: analytic facts that a correct model meets and a wrong one does not.

    for name, truth in TRUTHS.items():
        if truth.fits(MyVAE):
            for finding in truth.check(MyVAE):
                print(name, finding)

Start at vae.py, whose truths are checked on a linear VAE; linear.py has the closed forms that they rest on. gan.py has games
that can be solved. Facts as functions, which are not in the table:

    gan          spectral_norm, for a class made like minigen.nn.SpectralNorm
    flow         of an exact density: flow-density, gaussian-mle, actnorm, dequantise, entropy-floor
    diffusion    of a diffusion model of Gaussian data, or of a few points: ddpm-gaussian, ddpm-vlb, sampler-std
"""

from . import gan, vae
from .diffusion import FinitePoints, GaussianData
from .flow import (
    bijection_errors,
    bits_per_dim,
    cross_entropy,
    gaussian_mle,
    log_det_by_differences,
    moments,
    on_grid,
    total_probability,
)
from .gradients import reparameterised, score_function
from .linear import Ppca, autoencoder_error
from .truth import Finding, SigmaPoints, Truth

TRUTHS = {
    truth.name: truth
    for truth in (
        Truth(
            "linear-vae",
            "the best ELBO of a linear VAE is the maximum log-likelihood of probabilistic PCA",
            "Lucas et al. 2019, arXiv 1911.02469, theorem 1",
            ("elbo", "loss", "astype"),
            vae.linear_vae,
        ),
        Truth(
            "iwae-bounds",
            "E[w] = p(x); with the exact posterior every weight is p(x); the bounds rise to log p(x)",
            "Burda et al. 2016, arXiv 1509.00519, theorem 1",
            ("log_weights", "log_prob_bound", "astype"),
            vae.iwae_bounds,
        ),
        Truth(
            "pathwise",
            "reparameterised gradients of E[z²] are 2 mu, and sigma² for log sigma²",
            "Kingma & Welling 2014, arXiv 1312.6114, section 2.4",
            ("elbo",),
            vae.pathwise,
        ),
        Truth(
            "optimal-d",
            "against the best discriminator a game is worth 2 JSD - log 4, 2 (1 - TV), or minus a Wasserstein distance",
            "Goodfellow et al. 2014, arXiv 1406.2661, theorem 1",
            ("discriminator_loss", "generator_loss", "generate"),
            gan.optimal_d,
        ),
        Truth(
            "dirac-gan",
            "near the equilibrium simultaneous steps circle outwards without R1, and come in with it",
            "Mescheder et al. 2018, arXiv 1801.04406, lemma 2.3 and theorem 4.1",
            ("discriminator_loss", "generator_loss", "generate"),
            gan.dirac_gan,
        ),
        Truth(
            "gradient-penalty",
            "for a quadratic discriminator both penalties, and their own gradients, have closed forms",
            "Gulrajani et al. 2017, arXiv 1704.00028, eq. 3",
            ("discriminator_loss", "generator_loss", "generate"),
            gan.gradient_penalty,
        ),
    )
}

__all__ = [
    "TRUTHS",
    "Finding",
    "FinitePoints",
    "GaussianData",
    "Ppca",
    "SigmaPoints",
    "Truth",
    "autoencoder_error",
    "bijection_errors",
    "bits_per_dim",
    "cross_entropy",
    "gaussian_mle",
    "log_det_by_differences",
    "moments",
    "on_grid",
    "reparameterised",
    "score_function",
    "total_probability",
]
