"""Truths: analytic facts that a correct model meets and a wrong one does not. Start at linear.py.

    linear     linear-Gaussian models: linear-vae, iwae-bounds, linear-ae
    flow       exact densities: flow-density, gaussian-mle, actnorm, dequantise, entropy-floor
"""

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
from .linear import Ppca, autoencoder_error

__all__ = [
    "Ppca",
    "autoencoder_error",
    "bijection_errors",
    "bits_per_dim",
    "cross_entropy",
    "gaussian_mle",
    "log_det_by_differences",
    "moments",
    "on_grid",
    "total_probability",
]
