"""Truths flow-density, gaussian-mle, iaf-maf, actnorm and entropy-floor: flows against differences, grids and closed forms.

`test_mutants` re-creates the mistakes that have really been made, and shows that these truths see each of them.
"""

import math

import numpy as np
import pytest

from minigen import Tensor, no_grad, ops
from minigen.data import TOYS
from minigen.models import MODELS
from minigen.models.coupling import AffineCoupling, SplineCoupling, halves, mlp
from minigen.models.flow import (
    ActNorm,
    Bijection,
    Chain,
    Flow,
    FlowConfig,
    Inverse,
    InvertibleLinear,
    standard_normal,
    sum_values,
)
from minigen.models.maf import Autoregressive, MaskedNetwork
from minigen.optim import Adam
from minigen.random import Generator
from minigen.truths import bijection_errors, cross_entropy, gaussian_mle, moments, on_grid, total_probability

POINT_FLOWS = ("realnvp", "spline", "maf", "iaf")


def rough(module, seed=0, scale=0.5):
    """In float64, with random numbers in all parameters: flows start as the identity, where nearly every mistake is hidden."""
    rng = np.random.default_rng(seed)
    module.astype("float64").eval()
    for p in module.parameters():
        p.data[...] += scale * rng.normal(size=p.shape) / math.sqrt(max(1, p.shape[0] if p.ndim > 1 else 1))
    return module


def rough_flow(name):
    """A flow of points, the box that holds its mass, and a step finer than its details."""
    flow = rough(MODELS[name].build((2,), MODELS[name].config(hidden=16), Generator(0)), scale=0.1)
    reach = 16.0 if name == "iaf" else 7.0  # an IAF's density has the heavier tails
    return flow, ((-reach, reach), (-reach, reach)), 0.1


def affine(d, flip, rng):
    kept, changed = halves(d, flip)
    return AffineCoupling(mlp(kept, 8, 2 * changed, rng), d, flip)


def bent(d, flip, rng):
    kept, changed = halves(d, flip)
    return SplineCoupling(mlp(kept, 8, 14 * changed, rng), d, flip, bins=5)


def autoregressive(d, reverse, rng):
    return Autoregressive(MaskedNetwork(d, 12, 2, reverse, rng=rng))


BIJECTIONS = {
    "actnorm": lambda d, rng: ActNorm(d),
    "linear": lambda d, rng: InvertibleLinear(d, rng=rng),
    "affine": lambda d, rng: affine(d, False, rng),
    "affine, flipped": lambda d, rng: affine(d, True, rng),
    "spline": lambda d, rng: bent(d, False, rng),
    "spline, flipped": lambda d, rng: bent(d, True, rng),
    "maf": lambda d, rng: autoregressive(d, False, rng),
    "maf, reversed": lambda d, rng: autoregressive(d, True, rng),
    "iaf": lambda d, rng: Inverse(autoregressive(d, False, rng)),
    "chain": lambda d, rng: Chain(ActNorm(d), affine(d, False, rng), InvertibleLinear(d, rng=rng), bent(d, True, rng)),
}


def errors(bijection, x, h=1e-5):
    with no_grad():
        return bijection_errors(
            lambda x: bijection(Tensor(x))[0].data,
            lambda z: bijection.inverse(Tensor(z)).data,
            lambda x: bijection(Tensor(x))[1].data,
            x,
            h,
        )


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("name", BIJECTIONS)
def test_a_bijection_is_one_and_its_log_det_is_that_of_its_jacobian(name, d):
    bijection = rough(BIJECTIONS[name](d, Generator(d)), seed=d)
    x = 1.5 * np.random.default_rng(1).normal(size=(40, d))
    found = errors(bijection, x)
    assert found["log_det"] < 2e-6, found
    assert found["inverse_log_det"] < 2e-6, found
    assert found["round_trip"] < 1e-9, found
    with no_grad():
        log_det = bijection(Tensor(x))[1].data
    assert np.abs(log_det).max() > 0.02  # something to be wrong about


@pytest.mark.parametrize("name", POINT_FLOWS)
def test_the_density_of_a_flow_integrates_to_one(name):
    flow, box, step = rough_flow(name)
    with no_grad():
        total = total_probability(lambda x: flow.log_prob(x).data, box, step)
    assert abs(total - 1) < 1e-3


def test_samples_follow_the_density():
    """E_samples[log p] = ∫ p log p: fails where the sampler's base is not that of the density, or f⁻¹ is not f's inverse."""
    for name in POINT_FLOWS:
        flow, box, step = rough_flow(name)
        with no_grad():
            log_p = flow.log_prob(flow.sample(10_000, Generator(3)).astype(np.float64)).data
            grid = flow.log_prob(on_grid(box, step)).data
        minus_entropy = (np.exp(grid) * grid).sum() * step**2
        assert abs(log_p.mean() - minus_entropy) < 4 * log_p.std() / math.sqrt(len(log_p)) + 2e-3


def test_iaf_is_the_inverse_maf():
    """Samples of one are codes of the other, and log p_iaf(x) = log N(f⁻¹(x)) - log |det ∂f/∂z|, f the MAF's map."""
    maf = rough(autoregressive(4, False, Generator(1)))
    iaf = Flow(Inverse(maf), (4,), FlowConfig())
    z = np.random.default_rng(0).normal(size=(50, 4))
    with no_grad():
        x, log_det = maf(Tensor(z))
        np.testing.assert_allclose(iaf.bijection.inverse(Tensor(z)).data, x.data, rtol=1e-12)
        np.testing.assert_allclose(iaf.log_prob(x).data, standard_normal(Tensor(z)).data - log_det.data, rtol=1e-9)


def test_a_value_depends_on_those_before_it_alone():
    for reverse in (False, True):
        network = rough(MaskedNetwork(5, 24, 2, reverse, rng=Generator(0)))
        x = np.random.default_rng(0).normal(size=(30, 5))  # a ReLU that is off at one of them is on at another
        with no_grad():
            base = network(Tensor(x)).data
            moved = np.stack([network(Tensor(x + 0.1 * np.eye(5)[j])).data - base for j in range(5)])  # (input, N, 2 * value)
        seen = moved.reshape(5, 30, 2, 5).any(axis=(1, 2))  # (input, value)
        expected = np.triu(np.ones((5, 5), bool), 1)
        assert (seen == (expected.T if reverse else expected)).all()


@pytest.mark.parametrize("shape", [(300, 2), (40, 3, 5, 4)])
def test_actnorm_leaves_the_first_batch_with_mean_0_and_variance_1(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[-1] + 1) + 3
    norm = ActNorm(shape[-1]).astype("float64")
    mean, variance = moments(norm(Tensor(x))[0].data)
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(variance, 1, atol=1e-5)
    np.testing.assert_allclose(moments(norm(Tensor(2 * x))[0].data)[1], 4, atol=1e-4)  # and later ones as they are


def test_actnorm_starts_once_in_training_only_and_stays_started():
    x = Tensor(np.random.default_rng(0).normal(size=(100, 2)) + 5)
    norm = ActNorm(2)
    norm.eval()
    np.testing.assert_array_equal(norm(x)[0].data, x.data)
    norm.train()
    norm(x)
    other = ActNorm(2)
    other.load_state_dict(norm.state_dict())
    np.testing.assert_array_equal(other(3 * x)[0].data, norm(3 * x)[0].data)


def test_a_linear_flow_reaches_the_gaussian_maximum_likelihood_fit():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 3)) + [1.0, -2.0, 0.5]).astype(np.float32)
    flow = Flow(Chain(ActNorm(3), InvertibleLinear(3, rng=Generator(0)), ActNorm(3)), (3,), FlowConfig())
    optimizer = Adam(flow.parameters(), lr=lambda step: 0.02 * 0.995**step)
    for _ in range(800):
        optimizer.zero_grad()
        loss = flow.loss(x, Generator(0)).total
        loss.backward()
        optimizer.step()
    best = gaussian_mle(x)
    assert best - 1e-5 < loss.item() < best + 1e-3


@pytest.mark.parametrize(("name", "near"), [("realnvp", 0.4), ("spline", 0.1)])
def test_a_short_training_comes_near_the_floor_and_never_below(name, near):
    toy, rng = TOYS["moons"], Generator(0)
    flow = MODELS[name].build((2,), MODELS[name].config(hidden=32), rng)
    optimizers = flow.optimizers()
    start = None
    for _ in range(150):
        terms = flow.train_step(toy.sample(256, rng), rng, optimizers)
        start = start or terms["loss"]
    flow.eval()
    with no_grad():
        gap = cross_entropy(toy, lambda x: flow.log_prob(x.astype(np.float32)).data, 0.05) - toy.entropy
    assert 0 < gap < near < start - toy.entropy - 0.1


# ---- mutants: mistakes that have been made, and what sees them


class PerDimension(AffineCoupling):
    """The log-determinant added to every dimension, and then summed."""

    def forward(self, x):
        z, log_det = super().forward(x)
        return z, x.shape[1] * log_det


class WrongSign(AffineCoupling):
    def forward(self, x):
        z, log_det = super().forward(x)
        return z, -log_det


class NotInverted(AffineCoupling):
    """The inverse multiplies by e^s where it must divide."""

    def transform(self, b, parameters, inverse):
        s, t = 3 * ops.tanh(parameters[..., 0]), parameters[..., 1]
        return ((b - t) * ops.exp(s), -s) if inverse else (b * ops.exp(s) + t, s)


class LookingAtItself(Autoregressive):
    """A mask that lets a value see itself: the Jacobian is no longer what the formula says."""

    def __init__(self, network):
        super().__init__(network)
        for layer in network.layers:
            layer.mask[...] = 1


class OnePosition(ActNorm):
    """The positions of an image forgotten in the log-determinant."""

    def forward(self, x):
        return super().forward(x)[0], self.log_scale.sum()


class HalfSlope(SplineCoupling):
    """log |slope| of the squared denominator taken once."""

    def transform(self, b, parameters, inverse):
        y, log_slope = super().transform(b, parameters, inverse)
        return y, 0.5 * log_slope


class Scaled(Bijection):
    """Both directions stretch, and both log-determinants agree that nothing does: comparing only these two sees nothing."""

    def forward(self, x):
        return 2 * x, 0 * sum_values(x)

    def inverse(self, z):
        return z / 2


MUTANTS = {
    "log-det once per dimension": lambda rng: PerDimension(mlp(1, 8, 2, rng), 2),
    "sign of the log-det": lambda rng: WrongSign(mlp(1, 8, 2, rng), 2),
    "inverse that is none": lambda rng: NotInverted(mlp(1, 8, 2, rng), 2),
    "mask with the diagonal": lambda rng: LookingAtItself(MaskedNetwork(2, 8, 2, False, rng=rng)),
    "spline's slope": lambda rng: HalfSlope(mlp(1, 8, 14, rng), 2, bins=5),
    "scale without log-det": lambda rng: Scaled(),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(name):
    x = np.random.default_rng(1).normal(size=(40, 2))
    found = errors(rough(MUTANTS[name](Generator(0))), x)
    assert max(found.values()) > 0.05, f"{name} was not caught: {found}"


def test_mutant_positions():
    x = np.random.default_rng(1).normal(size=(2, 3, 2, 2))
    assert max(errors(rough(OnePosition(2), seed=2), x).values()) > 0.05
    assert max(errors(rough(ActNorm(2)), x).values()) < 1e-6


def test_mutant_another_base_in_the_sampler():
    """A logistic prior in the likelihood, and a normal one in the sampler: samples do not follow the density."""
    flow = rough_flow("realnvp")[0]

    def log_prob(x):
        z, log_det = flow.bijection(Tensor(x))
        return (-z - 2 * ops.softplus(-z)).sum(axis=1) + log_det  # standard logistic

    with no_grad():
        log_p = log_prob(flow.sample(20_000, Generator(3)).astype(np.float64)).data
        grid = log_prob(on_grid(((-30.0, 30.0), (-30.0, 30.0)), 0.1)).data
    entropy = (np.exp(grid) * grid).sum() * 0.1**2
    assert abs(log_p.mean() - entropy) > 20 * log_p.std() / math.sqrt(len(log_p))


def test_mutant_a_density_below_the_floor():
    """A density that was never divided by its integral scores below the entropy of the data."""
    toy = TOYS["8gaussians"]
    assert cross_entropy(toy, lambda x: toy.log_density(x) + 0.1, 0.1) < toy.entropy - 0.09
    assert abs(cross_entropy(toy, toy.log_density, 0.1) - toy.entropy) < 1e-6
