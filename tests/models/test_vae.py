"""The VAE: shapes, formulas by hand, gradients, bounds, and what it refuses. That its numbers are right is proved by the
truths, in tests/truths/test_vae_truths.py."""

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest

from minigen import Tensor, grad, no_grad, ops
from minigen.autograd.gradcheck import gradcheck
from minigen.evaluation import active_units, bound
from minigen.models import CAPABILITIES, MODELS, VAE
from minigen.models.vae import Bernoulli, Gaussian, Likelihood, MLPConfig, VAEConfig
from minigen.nn import Linear
from minigen.random import Generator

SMALL = {
    "vae": ((8, 12, 2), VAEConfig(latent=3, hidden=6, channels=2)),
    "vae-mlp": ((3, 3, 1), MLPConfig(latent=3, hidden=6)),
    "vae-mlp of points": ((2,), MLPConfig(latent=3, hidden=6)),
}


def small(name="vae-mlp", **options):
    shape, config = SMALL[name]
    return MODELS[name.split(" ")[0]].build(shape, dataclasses.replace(config, **options), Generator(0))


def some_data(vae, n=5, seed=1, dtype=np.float32):
    rng = Generator(seed)  # one generator: with its twin, the noise of binarisation would be the grey values
    return vae.preprocess(rng.uniform((n, *vae.data_shape)), rng).astype(dtype)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.data))


@pytest.mark.parametrize("name", SMALL)
def test_shapes(name):
    vae = small(name)
    x = some_data(vae)
    mu, logvar = vae.encode(x)
    assert mu.shape == logvar.shape == (5, 3)
    assert vae.decode(mu).shape == x.shape
    assert [t.shape for t in vae.elbo(x, Generator(2))] == [(5,)] * 3
    assert vae.log_weights(x, 4, Generator(2)).shape == (4, 5)
    assert vae.log_prob_bound(x, 4, Generator(2)).shape == (5,)
    assert vae.sample(7, Generator(2)).shape == (7, *vae.data_shape)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.loss(x, Generator(2)).total.shape == ()
    assert {t.dtype for t in (mu, vae.elbo(x, Generator(2))[0], vae.log_weights(x, 2, Generator(2)))} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", SMALL)
def test_training_lowers_the_loss_and_reaches_every_parameter(name):
    vae, rng = small(name), Generator(3)
    x, before, optimizers = some_data(vae, 20), vae.state_dict(), vae.optimizers()
    steps = [vae.train_step(x, rng, optimizers) for _ in range(60)]
    assert set(steps[0]) == {"loss", "elbo", "reconstruction", "kl"}
    assert np.mean([s["loss"] for s in steps[-20:]]) < np.mean([s["loss"] for s in steps[:20]])
    assert [name for name, p in vae.named_parameters() if np.array_equal(p.data, before[name])] == []


def test_the_same_seed_gives_the_same_model_and_the_same_steps():
    states = []
    for _ in range(2):
        vae, rng = small(), Generator(3)
        optimizers = vae.optimizers()
        for _ in range(3):
            vae.train_step(rng.uniform((5, 3, 3, 1)), rng, optimizers)
        states.append(vae.state_dict())
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name])


def test_the_network_of_the_iwae_paper():
    vae = MODELS["vae-mlp"].build((28, 28, 1), MLPConfig(), Generator(0))
    shapes = [p.shape for name, p in vae.named_parameters() if name.endswith("weight")]
    assert shapes == [(784, 200), (200, 200), (200, 100), (50, 200), (200, 200), (200, 784)]


def test_capabilities_are_read_off_the_methods():
    assert VAE.capabilities() == ["sample", "log_prob_bound", "encode"]
    assert set(VAE.capabilities()) <= set(CAPABILITIES)


# ---- the terms of the bound


def test_elbo_by_hand():
    vae = small().astype(np.float64)
    x = some_data(vae, dtype=np.float64)
    elbo, log_px, kl = (t.data for t in vae.elbo(x, Generator(7)))
    mu, logvar = (t.data for t in vae.encode(x))
    z = mu + np.exp(logvar / 2) * Generator(7).normal(mu.shape, dtype=np.float64)
    p = sigmoid(vae.decode(z))
    np.testing.assert_allclose(log_px, np.log(np.where(x == 1, p, 1 - p)).sum((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(kl, -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(1), rtol=1e-12)
    np.testing.assert_array_equal(elbo, log_px - kl)


def test_kl_by_sampling():
    """KL(q ‖ p) = E_q[log q(z) - log p(z)], within 4 standard errors."""
    vae = small().astype(np.float64)
    x, n = some_data(vae, 1, dtype=np.float64), 200_000
    with no_grad():
        (mu,), (logvar,) = (t.data for t in vae.encode(x))
        kl = vae.elbo(x, Generator(2))[2].item()
    logvar, mu = logvar - 0.5, mu + 0.7  # farther from the prior than an untrained encoder is
    eps = Generator(3).normal((n, 3), dtype=np.float64)
    z = mu + np.exp(logvar / 2) * eps
    ratio = 0.5 * (z**2 - eps**2 - logvar).sum(axis=1)
    _, moved = ops.sample_normal_kl(mu[None], logvar[None], eps[:1])
    assert abs(ratio.mean() - moved[0]) < 4 * ratio.std() / math.sqrt(n)
    assert ratio.std() / math.sqrt(n) < 0.01 * moved[0]
    assert 0 < kl < moved[0]


def test_with_the_prior_for_a_posterior_the_kl_is_zero():
    vae = small()
    for p in (vae.encoder[3].weight, vae.encoder[3].bias):
        with no_grad():
            p[...] = 0.0
    elbo, log_px, kl = vae.elbo(some_data(vae), Generator(2))
    assert not kl.data.any()
    np.testing.assert_array_equal(elbo.data, log_px.data)


def test_weights_average_to_the_elbo():
    """E_q[log w] is the ELBO: the two are estimates of one quantity."""
    vae = small().astype(np.float64)
    x = some_data(vae, 3, dtype=np.float64)
    with no_grad():
        log_w = vae.log_weights(x, 20_000, Generator(4)).data  # (k, N)
        elbos = vae.elbo(np.tile(x, (20_000, 1, 1, 1)), Generator(5))[0].data.reshape(-1, 3)  # (k, N)
    stderr = np.hypot(log_w.std(axis=0), elbos.std(axis=0)) / math.sqrt(20_000)
    assert (abs(log_w.mean(axis=0) - elbos.mean(axis=0)) < 4 * stderr).all()
    assert stderr.max() < 0.02


# ---- the bound with many samples


def test_chunks_do_not_matter():
    vae = small().astype(np.float64)
    x = some_data(vae, 4, dtype=np.float64)
    whole, parts, uneven = (vae.log_prob_bound(x, 100, Generator(1), chunk) for chunk in (100, 10, 30))
    np.testing.assert_allclose(parts, whole, rtol=1e-12)  # the noise comes in the same order
    np.testing.assert_allclose(uneven, whole, rtol=1e-12)
    log_w = vae.log_weights(x, 100, Generator(1)).data
    np.testing.assert_allclose(whole, np.log(np.exp(log_w).mean(axis=0)), rtol=1e-12)


def test_memory_is_bounded_by_the_chunk():
    vae = small()
    x = some_data(vae, 50)
    peaks = []
    for k in (50, 1000):
        vae.log_prob_bound(x, k, Generator(1))
        tracemalloc.start()
        vae.log_prob_bound(x, k, Generator(1))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_nothing_is_recorded_by_what_only_looks():
    vae = small()
    x = some_data(vae)
    assert isinstance(vae.log_prob_bound(x, 3, Generator(1)), np.ndarray)
    assert isinstance(vae.sample(3, Generator(1)), np.ndarray)
    assert isinstance(vae.reconstruct(x), np.ndarray)


@pytest.mark.parametrize("options", [(0, 50), (5, 0)])
def test_a_bound_needs_samples(options):
    vae = small()
    with pytest.raises(ValueError, match=r"log_prob_bound: k=. samples in chunks of .*at least 1"):
        vae.log_prob_bound(some_data(vae), options[0], Generator(1), chunk=options[1])


# ---- the objectives


def test_the_loss_is_minus_the_elbo():
    vae = small()
    x = some_data(vae)
    loss, elbo = vae.loss(x, Generator(5)), vae.elbo(x, Generator(5))[0].data.mean()
    assert math.isclose(loss.total.item(), -elbo, rel_tol=1e-6)
    assert math.isclose(loss.terms["elbo"], elbo, rel_tol=1e-6)
    assert math.isclose(loss.terms["elbo"], loss.terms["reconstruction"] - loss.terms["kl"], rel_tol=1e-5)


def test_beta_and_free_bits_by_hand():
    vae = small().astype(np.float64)
    x = some_data(vae, dtype=np.float64)
    plain = vae.loss(x, Generator(5))
    mu, logvar = (t.data for t in vae.encode(x))
    kl_d = -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).mean(axis=0)  # (D,)
    floor = float(np.median(kl_d))  # one dimension is below it, one above
    for beta, free_bits in ((4.0, 0.0), (1.0, floor), (4.0, floor)):
        vae.config = dataclasses.replace(vae.config, beta=beta, free_bits=free_bits)
        loss = vae.loss(x, Generator(5))
        expected = beta * np.maximum(kl_d, free_bits).sum() - plain.terms["reconstruction"]
        assert math.isclose(loss.total.item(), expected, rel_tol=1e-12)
        assert loss.terms == plain.terms  # what is reported is the ELBO all the same


def test_free_bits_cost_nothing():
    """Below the floor the KL has no gradient; the reconstruction still has."""
    vae = small(free_bits=100.0)
    x = some_data(vae)
    with_floor = grad(vae.loss(x, Generator(5)).total, vae.parameters())
    vae.config = dataclasses.replace(vae.config, free_bits=0.0, beta=0.0)
    for a, b in zip(with_floor, grad(vae.loss(x, Generator(5)).total, vae.parameters()), strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-5, atol=1e-7)


def test_the_iwae_objective_is_minus_the_bound():
    vae = small(samples=7)
    x = some_data(vae)
    loss = vae.loss(x, Generator(5))
    assert math.isclose(loss.total.item(), -vae.log_prob_bound(x, 7, Generator(5)).mean(), rel_tol=1e-5)
    assert loss.terms == {"bound": -loss.total.item()}


@pytest.mark.parametrize("options", [{"beta": 2.0}, {"free_bits": 0.1}])
def test_weights_of_the_kl_need_the_elbo(options):
    with pytest.raises(ValueError, match="beta and free_bits weigh the KL term of the ELBO"):
        small(samples=5, **options)


@pytest.mark.parametrize(
    ("name", "options", "order"),
    [
        ("vae-mlp", {}, 2),
        ("vae-mlp of points", {}, 2),
        ("vae-mlp", {"samples": 3}, 1),
        ("vae-mlp", {"beta": 3.0, "free_bits": 0.01}, 1),
    ],
)
def test_gradcheck_of_the_loss(name, options, order):
    """All parameters at once, in float64, with the noise fixed."""
    vae = small(name, **options).astype(np.float64)
    x, tensors = some_data(vae, 2, dtype=np.float64), dict(vae.named_tensors())

    def loss(*values):
        for t, value in zip(tensors.values(), values, strict=True):
            t.data, t.node = value.data, value.node
        return vae.loss(x, Generator(5)).total

    gradcheck(loss, [t.data.copy() for t in tensors.values()], order=order)


# ---- data and pictures


def test_binarisation_is_dynamic():
    """Drawn anew each time, with the grey value for a probability."""
    vae, x = small(), np.full((4000, 3, 3, 1), 0.3, np.float32)
    rng = Generator(1)
    first, second = vae.preprocess(x, rng), vae.preprocess(x, rng)
    assert set(np.unique(first)) == {0.0, 1.0}
    assert not np.array_equal(first, second)
    assert abs(first.mean() - 0.3) < 4 * math.sqrt(0.21 / first.size)


def test_samples_and_reconstructions_are_means():
    vae = small()
    x = some_data(vae)
    for images in (vae.sample(5, Generator(2)), vae.reconstruct(x)):
        assert ((images > 0) & (images < 1)).all()
    z = Generator(2).normal((5, 3))
    np.testing.assert_allclose(vae.sample(5, Generator(2)), sigmoid(vae.decode(z)), rtol=1e-5)
    np.testing.assert_allclose(vae.reconstruct(x), sigmoid(vae.decode(vae.encode(x)[0])), rtol=1e-5)


def test_samples_of_points_are_drawn():
    points = small("vae-mlp of points")
    points.likelihood.log_scale.data[...] = math.log(0.3)
    rng, twin = Generator(2), Generator(2)
    z = twin.normal((4000, 3))
    noise = points.sample(4000, rng) - points.decode(z).data
    assert abs(noise.std() - 0.3) < 4 * 0.3 / math.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 * 0.3 / math.sqrt(noise.size)


def test_gaussian_by_hand():
    likelihood, rng = Gaussian(scale=0.7).astype(np.float64), np.random.default_rng(0)
    x, m = rng.normal(size=(2, 4, 3))
    expected = (-0.5 * ((x - m) / 0.7) ** 2 - math.log(0.7) - 0.5 * math.log(2 * math.pi)).sum(axis=1)
    np.testing.assert_allclose(likelihood.log_prob(x, Tensor(m)).data, expected, rtol=1e-7)


def test_a_likelihood_needs_its_two_methods():
    for method in ("log_prob", "mean"):
        with pytest.raises(TypeError, match=rf"Likelihood defines no {method}\(\)"):
            getattr(Likelihood(), method)(*[np.zeros(1)] * (2 if method == "log_prob" else 1))


@pytest.mark.parametrize("shape", [(2,), (10, 8, 1), (8, 6, 3)])
def test_the_convolutional_one_wants_sides_that_are_multiples_of_four(shape):
    with pytest.raises(ValueError, match=r"sides are multiples of 4.*vae-mlp takes any"):
        MODELS["vae"].build(shape, VAEConfig(), Generator(0))


def test_active_units():
    """A unit is active if its mean moves with x."""
    vae = small()
    layer: Linear = vae.encoder[3]
    with no_grad():
        layer.weight[:, 1] = 0.0  # the mean of the second unit is constant
        layer.weight[:, 0] = 30.0
        layer.weight[:, 2] = -30.0
    assert active_units(vae.encode, some_data(vae, 200)) == 2


def test_bound_of_raw_data_uses_fresh_binarisation():
    vae = small()
    grey = Generator(9).uniform((6, 3, 3, 1))
    one, other = bound(vae, grey, 1, Generator(1)), bound(vae, grey, 1, Generator(2))
    assert one.shape == (6,)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(bound(vae, grey, 3, Generator(1)), bound(vae, grey, 3, Generator(1)))
    assert isinstance(vae.likelihood, Bernoulli)
