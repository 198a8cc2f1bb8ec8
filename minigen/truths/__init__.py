"""Truths: analytic facts that a correct model meets and a wrong one does not. Start at linear.py."""

from .linear import Ppca, autoencoder_error

__all__ = ["Ppca", "autoencoder_error"]
