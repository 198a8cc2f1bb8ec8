"""Truths: analytic facts that a correct model meets and a wrong one does not.

    for verdict in check(MyVAE, TRUTHS.values()):
        print(verdict)

Start at vae.py, whose truths are checked on a linear VAE. checking.py runs them, and finds the class that a name means.

    vae, gan, ddpm, density, energy, autoregressive     checks of a class, and rows that say what it must have to be checked
    linear, diffusion, flow, gradients                  the closed forms and tools that they rest on
"""

from . import autoregressive, ddpm, density, energy, gan, inverse, layers, quantised, sampling, training, vae
from .autoregressive import all_images, chi_square, composed, level_masses, pearson, seen_from, sensitivity, sum_over_images
from .checking import SubjectError, Verdict, check, subjects
from .diffusion import FinitePoints, GaussianData
from .energy import EnumeratedRBM, TwoModes, ula_variance
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

FILES = (vae, quantised, gan, layers, ddpm, inverse, density, energy, autoregressive, sampling, training)
TRUTHS = {truth.name: truth for file in FILES for truth in file.TRUTHS}

__all__ = [
    "TRUTHS",
    "EnumeratedRBM",
    "Finding",
    "FinitePoints",
    "GaussianData",
    "Ppca",
    "SigmaPoints",
    "SubjectError",
    "Truth",
    "TwoModes",
    "Verdict",
    "all_images",
    "autoencoder_error",
    "bijection_errors",
    "bits_per_dim",
    "check",
    "chi_square",
    "composed",
    "cross_entropy",
    "gaussian_mle",
    "level_masses",
    "log_det_by_differences",
    "moments",
    "on_grid",
    "pearson",
    "reparameterised",
    "score_function",
    "seen_from",
    "sensitivity",
    "subjects",
    "sum_over_images",
    "total_probability",
    "ula_variance",
]
