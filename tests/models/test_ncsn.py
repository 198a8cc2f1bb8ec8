"""Score matching as it is trained. That its loss, its score and the annealing are right is proved in
tests/truths/test_energy_truths.py."""

import dataclasses

import numpy as np
import pytest

from minigen.models.ncsn import NCSN2dConfig, NCSNConfig, mlp_ncsn, unet_ncsn
from minigen.random import Generator

SMALL = NCSNConfig(base=8, noises=3, chain_steps=1, batch_size=4, sigma_max=1.0, sigma_min=0.1)
SMALL2D = NCSN2dConfig(base=32, noises=8, chain_steps=10, batch_size=128, sigma_max=2.0, sigma_min=0.2, lr=5e-3)


def test_a_trained_network_knows_the_score_and_samples_the_gaussian():
    """Data N(m, 0.25 I): the score at each level is (m - x)/(0.25 + σ²), and the variance of samples follows a recursion."""
    model, rng = mlp_ncsn((2,), SMALL2D, Generator(0)), Generator(1)
    optimizers, mean = model.optimizers(), np.array([0.5, -0.5], np.float32)
    for _ in range(400):
        model.train_step(mean + 0.5 * rng.normal((128, 2)), rng, optimizers)
    x = mean + 0.5 * rng.normal((500, 2))
    for sigma in (2.0, 0.2):
        at = x + np.float32(sigma) * rng.normal(x.shape)
        exact = (mean - at) / (0.25 + sigma**2)
        error = np.square(model.score(at, sigma) - exact).mean() / np.square(exact).mean()
        assert error < 0.1, (sigma, error)
    np.testing.assert_array_equal(model.score(x), model.score(x, 0.2))
    samples = model.sample(2000, rng)
    np.testing.assert_allclose(samples.mean(axis=0), mean, atol=0.1)
    variance = 2.0**2
    for sigma in model.sigmas:
        for _ in range(10):
            step = 0.1 * sigma**2  # α/2 for ε = 0.2
            variance = (1 - step / (0.25 + sigma**2)) ** 2 * variance + 2 * step
    variance *= (1 - 0.2**2 / (0.25 + 0.2**2)) ** 2
    assert abs(samples.std(axis=0).mean() / variance**0.5 - 1) < 0.1


def test_samples_are_images():
    model = unet_ncsn((8, 8, 1), SMALL, Generator(0))
    samples = model.sample(3, Generator(1))
    assert (samples.shape, samples.dtype) == ((3, 8, 8, 1), np.float32)
    assert samples.min() >= 0
    assert samples.max() <= 1
    np.testing.assert_array_equal(samples, model.sample(3, Generator(1)))


def test_the_last_step_denoises():
    """With a network that says 0 the last step does nothing; with the score of a point at 0 it goes there."""
    raw = unet_ncsn((8, 8, 1), dataclasses.replace(SMALL, denoise=False), Generator(0))
    clean = unet_ncsn((8, 8, 1), SMALL, Generator(0))
    np.testing.assert_array_equal(raw.sample(2, Generator(1)), clean.sample(2, Generator(1)))
    for model in (raw, clean):
        model.score = lambda x, sigma: -x / np.float32(sigma**2)
    assert np.abs(clean.sample(2, Generator(1))).max() < 1e-6
    assert np.abs(raw.sample(2, Generator(1))).max() > 0.01


def test_every_parameter_learns():
    model, rng = unet_ncsn((8, 8, 1), SMALL, Generator(0)), Generator(1)
    before, optimizers = model.state_dict(), model.optimizers()
    terms = [model.train_step(rng.uniform((4, 8, 8, 1)), rng, optimizers) for _ in range(4)]
    assert [k for k, v in model.state_dict().items() if (v == before[k]).all()] == []
    assert 0.2 < terms[0]["loss"] < 1  # ½ E n² for a network that says nothing yet
    assert "temperature 1" in model.remarks()[0]


def test_levels_are_a_geometric_progression():
    sigmas = mlp_ncsn((2,), NCSN2dConfig(sigma_max=8.0, sigma_min=0.5, noises=5), Generator(0)).sigmas
    np.testing.assert_allclose(sigmas, [8, 4, 2, 1, 0.5])
    with pytest.raises(ValueError, match="sides that 4 divides"):
        unet_ncsn((14, 14, 1), SMALL, Generator(0))
