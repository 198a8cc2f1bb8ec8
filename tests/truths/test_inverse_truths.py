"""Truth linear-inverse: it holds for posterior sampling, and mistakes in it are caught, and named."""

import numpy as np
import pytest
from planted import plant

from minigen.models import MODELS, LinearInverse, deblurring, inpainting, super_resolution
from minigen.models.ddpm import DDPM2dConfig
from minigen.random import Generator
from minigen.truths import TRUTHS, check
from minigen.truths.inverse import LinearGaussian


def verdict():
    (found,) = check(LinearInverse, [TRUTHS["linear-inverse"]])
    return found


def test_it_holds():
    found = verdict()
    assert found.state == "holds", str(found)


MISTAKES = {  # what it is: where it is made, what is replaced, by what, and what is then said
    "the noise's scale ignored": ("denoise", "self.sigma**2 * np.eye", "np.eye", "enters S as 1: its scale is ignored"),
    "a deviation for a variance": ("denoise", "self.sigma**2", "self.sigma", "enters S as σ, where it must be σ²"),
    "no covariance of x_0": ("denoise", "+ b**2 / a * (rows", "+ 0 * (rows", "the guidance is too strong"),
    "the wrong sign": ("denoise", "residual = y - x0 @ self.matrix.T", "residual = x0 @ self.matrix.T - y", "the wrong way"),
    "no guidance": ("denoise", "x0 + b**2 / a * score", "x0 + 0 * score", "y does nothing"),
    "b for b²": ("denoise", "x0 + b**2 / a * score", "x0 + b / a * score", "likely: the covariance of y given x_t"),
    "ε of the unguided x_0": ("denoise", "(a) * guided)", "(a) * x0.reshape(x.shape))", "of ε that goes with it"),
    "the samples do not see y": (
        "sample",
        "self.denoise(x, int(path.times[i]), y)",
        "self.model.denoise(x, int(path.times[i]))",
        "samples do not know of y",
    ),
    "a step too few": ("sample", "range(path.T, 0, -1)", "range(path.T, 1, -1)", "variance of samples"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake, monkeypatch):
    name, text, new, said = MISTAKES[mistake]
    plant(monkeypatch, LinearInverse, name, text, new)
    found = verdict()
    assert found.state == "fails"
    assert said in str(found)


# ---- the parts


def test_the_wiener_filter_is_the_conditional_of_the_joint_distribution():
    """By conditioning (x, y) in one dimension after another, with no matrix inverted but numbers."""
    rng = np.random.default_rng(0)
    root, a = rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    prior, y = LinearGaussian(rng.normal(size=3), root @ root.T), rng.normal(size=2)
    one = LinearGaussian(prior.mean, prior.covariance)
    for row, value in zip(a, y, strict=True):  # independent noise: one measurement after the other
        one = one.given(row[None], 0.5, np.array([value]))
    both = prior.given(a, 0.5, y)
    np.testing.assert_allclose(both.mean, one.mean, atol=1e-12)
    np.testing.assert_allclose(both.covariance, one.covariance, atol=1e-12)


def test_ways_of_seeing():
    image = np.arange(48.0).reshape(1, 4, 6, 2)
    flat = image.reshape(1, -1)
    known = np.zeros((4, 6), bool)
    known[1, 2] = known[3, 5] = True
    np.testing.assert_array_equal(flat @ inpainting(known, 2).T, [[*image[0, 1, 2], *image[0, 3, 5]]])
    coarse = (flat @ super_resolution((4, 6, 2)).T).reshape(2, 3, 2)
    np.testing.assert_allclose(coarse, image[0].reshape(2, 2, 3, 2, 2).mean(axis=(1, 3)))
    blurred = (flat @ deblurring((4, 6, 2)).T).reshape(4, 6, 2)
    around = lambda i, j: image[0, i - 1 : i + 2, j - 1 : j + 2].mean(axis=(0, 1))
    np.testing.assert_allclose(blurred[1:3, 1:5], [[around(i, j) for j in range(1, 5)] for i in (1, 2)])
    with pytest.raises(ValueError, match="do not cover images"):
        super_resolution((4, 5, 1))


def test_it_refuses_what_does_not_fit_and_measures_what_it_says():
    model = MODELS["ddpm2d"].build((2,), DDPM2dConfig(base=8, timesteps=5), Generator(0))
    with pytest.raises(ValueError, match=r"a matrix \(M, 2\) .* not \(1, 3\) and 0.1"):
        LinearInverse(model, np.ones((1, 3)), 0.1)
    with pytest.raises(ValueError, match="a sigma above 0"):
        LinearInverse(model, np.ones((1, 2)), 0.0)
    inverse = LinearInverse(model, np.array([[1.0, 2.0]]), 0.25)
    y = inverse.measure(np.tile(np.array([[1.0, -1.0]], np.float32), (20_000, 1)), Generator(1))
    assert y.dtype == np.float32
    assert abs(y.mean() + 1) < 4 * 0.25 / np.sqrt(20_000)
    assert abs(y.std() - 0.25) < 0.01
    samples = inverse.sample(np.array([[0.5], [1.0]], np.float32), Generator(2))
    assert samples.shape == (2, 2)
    assert samples.dtype == np.float32


def test_images_through_a_network_are_held_to_what_was_seen():
    """With random weights the prior is nothing, but what is known, with little noise, is kept."""
    model = MODELS["ddpm"].build((8, 8, 1), MODELS["ddpm"].config(base=8, timesteps=20, sampling_steps=5), Generator(0))
    known = np.zeros((8, 8), bool)
    known[2:4, 3:6] = True
    inverse = LinearInverse(model, inpainting(known), 0.05)
    x = np.where(Generator(1).normal((3, 8, 8, 1)) > 0, 0.5, -0.5).astype(np.float32)
    y = inverse.measure(x, Generator(2))
    samples = inverse.sample(y, Generator(3))
    assert samples.shape == x.shape
    assert np.abs(samples[:, known, 0] - y).max() < 0.3
    assert np.abs(samples[:, ~known] - x[:, ~known]).max() > 0.5
