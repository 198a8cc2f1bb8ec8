"""Truths: analytic facts that a correct model meets and a wrong one does not. Start at linear.py."""

from .diffusion import FinitePoints, GaussianData
from .linear import Ppca, autoencoder_error

__all__ = ["FinitePoints", "GaussianData", "Ppca", "autoencoder_error"]
