"""Truths: analytic facts that a correct model meets and a wrong one does not.

    for name, truth in TRUTHS.items():
        if truth.fits(MyVAE):
            for finding in truth.check(MyVAE):
                print(name, finding)

Start at vae.py, whose truths are checked on a linear VAE; linear.py has the closed forms that they rest on. Facts as functions,
which are not in the table:

    flow         of an exact density: flow-density, gaussian-mle, actnorm, dequantise, entropy-floor
    autoregressive   of a model that goes value by value: ar-sum, causal, ar-sampler, logistic-mixture
    diffusion    of a diffusion model of Gaussian data, or of a few points: ddpm-gaussian, ddpm-vlb, sampler-std
"""

from . import vae
from .autoregressive import all_images, chi_square, composed, level_masses, seen_from, sensitivity, sum_over_images
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
    "all_images",
    "autoencoder_error",
    "bijection_errors",
    "bits_per_dim",
    "chi_square",
    "composed",
    "cross_entropy",
    "gaussian_mle",
    "level_masses",
    "log_det_by_differences",
    "moments",
    "on_grid",
    "reparameterised",
    "score_function",
    "seen_from",
    "sensitivity",
    "sum_over_images",
    "total_probability",
]
