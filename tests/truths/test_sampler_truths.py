"""Truths of samplers: they hold, and mistakes in our own samplers are caught, and named where their value can be computed."""

import numpy as np
import pytest
from planted import plant

from minigen import no_grad
from minigen.models import EBM, MADE, MODELS, NCSN, RBM, VAE, Flow, langevin
from minigen.models.vae import Gaussian
from minigen.truths import TRUTHS, check, pearson
from minigen.truths.checking import built_in
from minigen.truths.truth import Impulses

HOLDING = {
    "density-sampler": ("realnvp", "spline", "maf", "iaf", "made2d", "ebm2d"),
    "energy-sampler": ("ebm2d", "ebm"),
    "ncsn-sampler": ("ncsn2d",),
    "ncsn-weights": ("ncsn2d",),
    "rbm-gibbs": ("rbm",),
    "vae-prior": ("vae",),
}


def verdict(model, truth):
    (found,) = check(built_in(MODELS[model]), [TRUTHS[truth]])
    return found


@pytest.mark.parametrize(("truth", "model"), [(truth, model) for truth, models in HOLDING.items() for model in models])
def test_they_hold(truth, model):
    found = verdict(model, truth)
    assert found.state == "holds", str(found)


MISTAKES = {  # what it is: the truth and the model, where it is made, what is replaced, by what, and what is then said
    "component of the mean weights": (
        "density-sampler", "made2d", MADE, "sample",
        "np.exp(log_weight.astype(np.float64))",
        "np.full(log_weight.shape, 1 / log_weight.shape[1])",
        "df) of samples in",
    ),
    "variance for a deviation": (
        "density-sampler", "made2d", MADE, "sample",
        "np.exp(chosen_log_s) * rng",
        "np.exp(2 * chosen_log_s) * rng",
        "df) of samples in",
    ),
    "coordinates from one pass": (
        "density-sampler", "made2d", MADE, "sample",
        "self._mixtures(Tensor(z)))",
        "self._mixtures(Tensor(0 * z)))",
        "df) of samples in",
    ),
    "not brought back": (
        "density-sampler", "made2d", MADE, "sample",
        "self.normalise.inverse(Tensor(z)).data",
        "z",
        "df) of samples in",
    ),
    "coordinates exchanged": (
        "density-sampler", "realnvp", Flow, "sample",
        "math.prod(self.data_shape))))).data",
        "math.prod(self.data_shape))))).data[:, ::-1]",
        "df) of samples in",
    ),
    "chains too short": (
        "density-sampler", "ebm2d", EBM, "sample",
        "self.config.sampling_steps, rng",
        "10, rng",
        "chains that are too short",
    ),
    "no steps": ("energy-sampler", "ebm2d", EBM, "sample", "self.config.sampling_steps, rng", "0, rng", "takes no steps"),
    "a step less": (
        "energy-sampler", "ebm2d", EBM, "sample",
        "self.config.sampling_steps, rng",
        "self.config.sampling_steps - 1, rng",
        "it takes a step too few",
    ),
    "a jump of σ": ("energy-sampler", "ebm", EBM, "sample", "sigma**2 *", "sigma *", "the last jump is σ times the score"),
    "a jump away": ("energy-sampler", "ebm", EBM, "sample", "x + sigma**2", "x - sigma**2", "goes the wrong way"),
    "no jump": ("energy-sampler", "ebm", EBM, "sample", "sigma**2 *", "0 *", "to the clean image, is left out"),
    "half the noise": ("energy-sampler", "ebm", EBM, "walk", "rng, self.temperature)", "rng, 0.5)", "temperature ½"),
    "gradient descent": ("energy-sampler", "ebm", EBM, "walk", "rng, self.temperature)", "rng, 0.0)", "gradient descent"),
    "not denoised": ("ncsn-sampler", "ncsn2d", NCSN, "sample", "if config.denoise", "if 0", "to the clean sample, is left out"),
    "from N(0, 1)": ("ncsn-sampler", "ncsn2d", NCSN, "sample", "std=config.sigma_max", "std=1", "chains start from N(0, 1)"),
    "the same step everywhere": (
        "ncsn-sampler", "ncsn2d", langevin, "annealed",
        "float(sigma / sigmas[-1]) ** 2",
        "1",
        "the same at all levels",
    ),
    "a step in proportion to σ": (
        "ncsn-sampler", "ncsn2d", langevin, "annealed",
        "sigmas[-1]) ** 2",
        "sigmas[-1])",
        "the step grows as σ",
    ),
    "levels the wrong way round": (
        "ncsn-sampler", "ncsn2d", langevin, "annealed",
        "in sigmas:",
        "in sigmas[::-1]:",
        "from the narrowest to the widest",
    ),
    "α for α/2": ("ncsn-sampler", "ncsn2d", langevin, "annealed", "alpha / 2, 1.0)", "alpha, 0.5)", "temperature ½"),
    "annealed without noise": ("ncsn-sampler", "ncsn2d", langevin, "annealed", "2, 1.0)", "2, 0.0)", "no noise"),
    "the narrowest level only": (
        "ncsn-weights", "ncsn2d", langevin, "annealed",
        "in sigmas:",
        "in sigmas[-1:].repeat(5):",
        "share of samples at the mode",
    ),
    "hidden units not drawn": (
        "rbm-gibbs", "rbm", RBM, "_hidden",
        "rng.bernoulli(ops",
        "(ops",
        "hidden units that are not drawn",
    ),
    "without the hidden bias": ("rbm-gibbs", "rbm", RBM, "_hidden", "+ self.hidden_bias.data", "", "after 1 Gibbs steps"),
    "without the visible bias": ("rbm-gibbs", "rbm", RBM, "_visible", "+ self.visible_bias.data", "", "after 1 Gibbs steps"),
    "chains that stay": ("rbm-gibbs", "rbm", RBM, "gibbs", "range(steps)", "range(0)", "after 1 Gibbs steps"),
    "a step too few": ("rbm-gibbs", "rbm", RBM, "gibbs", "range(steps)", "range(max(1, steps - 1))", "after 2 Gibbs steps"),
    "samples of the independent pixels": (
        "rbm-gibbs", "rbm", RBM, "sample",
        "self.gibbs(v, self.config.sampling_steps - 1, rng)",
        "v",
        "E[v_i v_j] of samples",
    ),
    "codes of another width": (
        "vae-prior", "vae", VAE, "sample",
        "rng.normal((n, self.config.latent))",
        "0.5 * rng.normal((n, self.config.latent))",
        "codes that are not from the prior",
    ),
    "no codes": (
        "vae-prior", "vae", VAE, "sample",
        "rng.normal((n, self.config.latent))",
        "0 * rng.normal((n, self.config.latent))",
        "all samples have the code 0",
    ),
    "codes from a cube": (
        "vae-prior", "vae", VAE, "sample",
        "rng.normal((n, self.config.latent))",
        "rng.uniform((n, self.config.latent), -1, 1)",
        "raised AttributeError",
    ),
    "means for samples": (
        "vae-prior", "vae", Gaussian, "sample",
        "np.exp(self.log_scale.data) *",
        "0 *",
        "samples are the means of p(x|z)",
    ),
    "the variance for the deviation": (
        "vae-prior", "vae", Gaussian, "sample",
        "np.exp(self.log_scale.data)",
        "np.exp(2 * self.log_scale.data)",
        "scaled by its variance",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_caught(mistake, monkeypatch):
    truth, model, owner, name, text, new, said = MISTAKES[mistake]
    plant(monkeypatch, owner, name, text, new)
    found = verdict(model, truth)
    assert found.state == "fails"
    assert said in str(found)


def test_gibbs_that_never_leaves_is_caught_though_it_leaves_the_distribution_as_it_is():
    """Which is why steps are counted from one state, and not from a draw."""
    model = "rbm"

    class Stays(built_in(MODELS[model])):
        def gibbs(self, v, steps, rng):
            return v

    (found,) = check(Stays, [TRUTHS["rbm-gibbs"]])
    assert found.state == "fails"


# ---- the tools


def test_impulses_show_the_matrix_of_a_linear_sampler():
    rng = np.random.default_rng(0)
    a, b, m = rng.normal(size=(2, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
    noise = Impulses()
    samples = noise.normal((6, 2)) @ a + noise.normal((6, 3)) @ b + m
    np.testing.assert_allclose(samples[:-1] - samples[-1], np.concatenate([a, b]), atol=1e-15)
    np.testing.assert_allclose(samples[-1], m)
    with pytest.raises(ValueError, match="7 values for each of 6 samples"):
        noise.normal((6, 2))
    np.testing.assert_array_equal(Impulses(0.5).normal((2, 1), mean=1, std=2), [[2], [1]])


def test_pearson_is_within_four_for_counts_that_are_as_expected():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(50))
    for _ in range(20):
        assert abs(pearson(rng.multinomial(5000, p), 5000 * p)) < 4
    assert pearson(rng.multinomial(5000, np.ones(50) / 50), 5000 * p) > 100


def test_a_mala_energy_is_sampled_without_bias():
    """What density-sampler sees of ebm2d is its default, with a Metropolis test; without one the bias of a long step shows."""
    cls = built_in(MODELS["ebm2d"])

    class LongSteps(cls):
        def walk(self, x, steps, rng):
            return langevin.ula(self.energy, x, 40, 0.4, rng), {}

    def example(rng):
        made = cls.example(rng)
        made.__class__ = LongSteps
        return made

    LongSteps.example = staticmethod(example)
    with no_grad():
        (found,) = check(LongSteps, [TRUTHS["density-sampler"]])
    assert found.state == "fails"
