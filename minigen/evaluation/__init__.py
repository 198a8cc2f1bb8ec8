"""Evaluation: likelihoods with their floors and baselines. Start at likelihood.py."""

from .baselines import bernoulli_mixture, chow_liu_tree, histogram_bits_per_dim, independent_bernoulli
from .likelihood import NLL, active_units, bound, mean_and_stderr

__all__ = [
    "NLL",
    "active_units",
    "bernoulli_mixture",
    "bound",
    "chow_liu_tree",
    "histogram_bits_per_dim",
    "independent_bernoulli",
    "mean_and_stderr",
]
