"""Likelihoods that can be believed: none without a floor or a baseline, none below the floor, and bounds that are bounds."""

import math

import numpy as np
import pytest

from minigen import Tensor
from minigen.evaluation import NLL, active_units, bound, mean_and_stderr
from minigen.random import Generator


def nll(**changes):
    given = {"value": 3.0, "stderr": 0.1, "n": 100, "estimator": "exact", "data": "moons test", "dims": 2, "floor": 1.0}
    return NLL(**given | changes)


def test_a_likelihood_alone_cannot_be_made():
    with pytest.raises(ValueError, match="means nothing alone"):
        nll(floor=None)
    assert nll(floor=None, baseline=("independent Bernoullis", 205.78))


def test_a_likelihood_below_the_floor_is_wrong_not_good():
    assert nll(value=0.61, stderr=0.1)  # within 4 standard errors
    with pytest.raises(ValueError, match=r"0\.5900 nats is below the entropy of the data, 1\.0000"):
        nll(value=0.59, stderr=0.1)


def test_bits_per_dim():
    assert nll(value=784 * math.log(2) * 1.5, dims=784).bits_per_dim == pytest.approx(1.5, rel=1e-15)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "NLL 3.0000 ± 0.1000 nats (exact, n = 100, moons test); floor 1.0000"),
        ({"estimator": "ELBO"}, "NLL ≤ 3.0000 ± 0.1000 nats (ELBO, n = 100, moons test); floor 1.0000"),
        ({"estimator": "exact, ODE"}, "NLL 3.0000 ± 0.1000 nats (exact, ODE, n = 100, moons test); floor 1.0000"),
        (
            {"estimator": "IWAE-50", "dims": 64, "floor": None, "baseline": ("independent Bernoullis", 205.781)},
            "NLL ≤ 3.00 ± 0.10 nats (IWAE-50, n = 100, moons test); independent Bernoullis 205.78",
        ),
        (
            {"value": 64 * math.log(2), "dims": 64, "floor": None, "baseline": ("histogram", 128 * math.log(2)), "levels": 17},
            "NLL 44.36 ± 0.10 nats = 1.000 bits/dim (exact, n = 100, moons test); histogram 88.72 = 2.000 bits/dim",
        ),
    ],
)
def test_it_prints_what_it_must_be_compared_with(changes, text):
    assert str(nll(**changes)) == text


def test_mean_and_standard_error():
    values = np.random.default_rng(0).normal(3.0, 2.0, 10_000).astype(np.float32)
    mean, stderr = mean_and_stderr(values)
    assert mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-12)
    assert stderr == pytest.approx(0.02, rel=0.05)
    assert mean_and_stderr(np.array([1.0, 3.0])) == (2.0, 1.0)  # divided by n - 1, then by √n


class Gaussian:
    """p(x, z) = N(z; 0, 1) N(x; z, 1) with q(z|x) = N(x/2 + shift, 1/2): exact for shift 0.   x: (N, 1)"""

    def __init__(self, shift: float):
        self.shift = shift
        self.seen: list[int] = []

    def preprocess(self, x, rng):
        self.seen.append(len(x))
        return x

    def log_weights(self, x, k, rng):
        eps = rng.normal((k, len(x)), dtype=np.float64)
        z = x[:, 0] / 2 + self.shift + math.sqrt(0.5) * eps
        log_p = -0.5 * z**2 - 0.5 * (x[:, 0] - z) ** 2 - math.log(2 * math.pi)
        return log_p + 0.5 * eps**2 + 0.5 * math.log(math.pi)  # - log q, of variance 1/2

    def elbo(self, x, rng):
        return (Tensor(self.log_weights(x, 1, rng)[0]),)

    def log_prob_bound(self, x, k, rng):
        return np.logaddexp.reduce(self.log_weights(x, k, rng), axis=0) - math.log(k)


X = np.random.default_rng(1).normal(0, math.sqrt(2), (4000, 1))
LOG_P = -0.25 * X[:, 0] ** 2 - 0.5 * math.log(4 * math.pi)  # x ~ N(0, 2)


def test_a_bound_with_the_exact_posterior_is_the_likelihood():
    for k in (1, 7):
        assert bound(Gaussian(0.0), X, k, Generator(0)) == pytest.approx(LOG_P, abs=1e-12)


def test_bounds_rise_with_k_and_stay_below_the_likelihood():
    """The ELBO of this posterior is exactly shift² below log p(x): its KL from the true one."""
    shift = 0.7
    gaps = {k: mean_and_stderr(LOG_P - bound(Gaussian(shift), X, k, Generator(k))) for k in (1, 5, 50)}
    assert abs(gaps[1][0] - shift**2) < 4 * gaps[1][1]
    assert gaps[1][0] > gaps[5][0] > gaps[50][0] > 0


def test_a_bound_is_computed_in_batches_and_in_order():
    model = Gaussian(0.0)
    assert bound(model, X, 1, Generator(0), batch_size=1500) == pytest.approx(LOG_P, abs=1e-12)
    assert model.seen == [1500, 1500, 1000]


def test_active_units_are_those_whose_code_varies():
    x = np.random.default_rng(2).normal(size=(5000, 3))
    encode = lambda x: (Tensor(x * [1.0, 0.101, 0.099] + 7.0), None)
    assert active_units(encode, x) == 2
    assert active_units(encode, x, threshold=0.5) == 1
