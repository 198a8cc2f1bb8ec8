"""Evaluation: likelihoods with their floors and baselines. Start at likelihood.py."""

from .ais import LogZ, ais_estimators, log_partition
from .baselines import bernoulli_mixture, chow_liu_tree, histogram_bits_per_dim, independent_bernoulli
from .likelihood import NLL, active_units, bound, mean_and_stderr

__all__ = [
    "NLL",
    "LogZ",
    "active_units",
    "ais_estimators",
    "bernoulli_mixture",
    "bound",
    "chow_liu_tree",
    "histogram_bits_per_dim",
    "independent_bernoulli",
    "log_partition",
    "mean_and_stderr",
]
