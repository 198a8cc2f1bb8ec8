"""Evaluation: every number beside what it must be compared with. Start at likelihood.py, then score.py.

    likelihood         `NLL`, which cannot be made without a floor or a baseline; bounds, active units; `baselines` has some
    score              `Score`, which cannot be made without the score of real data; `compare` computes the scores of samples
    distances          Fréchet distance, KID, MMD, sliced Wasserstein; `neighbours`: precision and recall, density and coverage
    classifier         the LeNet whose features stand for images
    disentanglement    whether a code tells the factors of the data apart
"""

from .ais import LogZ, ais_estimators, log_partition
from .baselines import bernoulli_mixture, chow_liu_tree, histogram_bits_per_dim, independent_bernoulli
from .classifier import LeNet, classify, features, train_classifier, weights_sha256
from .disentanglement import mig
from .distances import frechet_distance, kid, median_distance, mmd, sliced_wasserstein
from .likelihood import NLL, active_units, bound, mean_and_stderr
from .neighbours import density_coverage, precision_recall
from .score import FOR_FEATURES, FOR_POINTS, Score, compare

__all__ = [
    "FOR_FEATURES",
    "FOR_POINTS",
    "NLL",
    "LeNet",
    "LogZ",
    "Score",
    "active_units",
    "ais_estimators",
    "bernoulli_mixture",
    "bound",
    "chow_liu_tree",
    "classify",
    "compare",
    "density_coverage",
    "features",
    "frechet_distance",
    "histogram_bits_per_dim",
    "independent_bernoulli",
    "kid",
    "log_partition",
    "mean_and_stderr",
    "median_distance",
    "mig",
    "mmd",
    "precision_recall",
    "sliced_wasserstein",
    "train_classifier",
    "weights_sha256",
]
