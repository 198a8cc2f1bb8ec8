"""Bugs that have really shipped in well-known teaching code, each put into our own code, and what catches it.

Start at `SHIPPED`. Those of a model are caught by a truth, as `minigen check` runs it, which names most of them; those of a
layer by what the layer must do: a residual block whose branch is 0 is the identity, and a normalised batch has variance 1.
"""

import math

import numpy as np
import pytest
from planted import plant

from minigen import Tensor, no_grad, ops
from minigen.models import DDPM, EBM, MODELS, VAE, Flow, gated_pixelcnn, langevin, pixelcnn, probability_flow, unet
from minigen.models.autoregressive import PixelByPixel
from minigen.models.flow import FlowConfig
from minigen.models.glow import ImageFlow
from minigen.nn import BatchNorm, Linear
from minigen.random import Generator
from minigen.truths import TRUTHS, check
from minigen.truths.checking import built_in


def verdict(cls, truth):
    (found,) = check(cls, [TRUTHS[truth]])
    return found


def examples(model, kind, change):
    """The built-in model's class, with examples that have been changed."""
    cls = built_in(MODELS[model])
    own = getattr(cls, kind)
    setattr(cls, kind, staticmethod(lambda rng: change(own(rng))))
    return cls


def never_trained(model):
    """Layers in a plain list, which other libraries do not look into; here a closure is such a place."""
    hidden, encoder = [Linear(16, 16, rng=Generator(1)).astype(np.float64)], model.encoder

    def encode(x):
        h = encoder(x)
        return ops.concat([h[:, :8] + hidden[0].astype(h.dtype)(h[:, :16])[:, :8], h[:, 8:]], axis=1)

    model.encoder, model.seen = encode, encoder
    return model


class LogDetForEachDimension(Flow):
    def log_prob(self, x):
        z, log_det = self.encode(x)
        return (-0.5 * ops.square(z) - 0.5 * math.log(2 * math.pi) + log_det.reshape(-1, 1)).sum(axis=1)


class LogisticLikelihood(Flow):
    """A logistic prior in the likelihood, and a normal one in the sampler."""

    def log_prob(self, x):
        z, log_det = self.encode(x)
        return (-z - 2 * ops.softplus(-z)).sum(axis=1) + log_det


def as_flow(kind):
    return lambda model: kind(model.bijection, (2,), FlowConfig())


def mean_of_logits(model):
    """An ensemble of two orders of the pixels, whose logits are averaged: Σ p is no longer 1."""
    network = model.network
    both = lambda x, y=None: 0.5 * (network(x, y) + network(x[:, ::-1, ::-1], y)[:, ::-1, ::-1])
    return PixelByPixel(both, model.pixels, model.data_shape, model.config).eval()


SHIPPED = {  # the bug: the class, the truth that catches it, and what is said
    "layers that are never trained": (
        lambda: examples("vae-mlp", "example", never_trained), "train-step",
        "their layers are where `parameters()` does not find them, so they are never trained",
    ),
    "a log-det added to every dimension, and then summed": (
        lambda: examples("realnvp", "example", as_flow(LogDetForEachDimension)), "flow-density",
        "log |det| is added to the log-density of each of the 2 dimensions, and then summed",
    ),
    "logits of an ensemble averaged, and called a likelihood": (
        lambda: examples("made", "example_images", mean_of_logits), "ar-sum",
        "logits averaged where probabilities should be",
    ),
    "a logistic prior in the likelihood, a normal one in the sampler": (
        lambda: examples("realnvp", "example", as_flow(LogisticLikelihood)), "density-sampler",
        "samples of another density",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", SHIPPED)
def test_a_bug_in_a_model_is_caught(bug):
    make, truth, said = SHIPPED[bug]
    found = verdict(make(), truth)
    assert found.state == "fails"
    assert said in str(found)


PLANTED = {  # the bug: the class, the truth; where it is made, what is replaced, by what; and what is said
    "importance weights with the wrong sign": (
        VAE, "iwae-bounds", VAE, "log_weights", "return log_px + log_pz_qz", "return -(log_px + log_pz_qz)",
        "the weights are inverted",
    ),
    "the proposal's weight with the wrong sign": (
        VAE, "iwae-bounds", VAE, "log_weights", "return log_px + log_pz_qz", "return log_px - log_pz_qz",
        "log p(z) and log q(z|x) have each other's sign",
    ),
    "g in place of g² in the probability-flow ODE": (
        DDPM, "pf-ode", probability_flow, "log_prob",
        "alpha_bar, beta = schedule.between(t)",
        "alpha_bar, beta = schedule.between(t)[0], math.sqrt(schedule.between(t)[1])",
        "β is replaced by its root: g for g²",
    ),
    "t from 1..T-1, while the sampler starts at T": (
        DDPM, "ddpm-gaussian", DDPM, "spread_times", "* steps // n) % steps", "* steps // n) % (steps - 1)",
        "step T, where the sampler starts, is never trained",
    ),
    "another dequantisation range in evaluation": (
        ImageFlow, "dequantise", ImageFlow, "elbo",
        "(u + x) / self.levels)",
        "(u + x) / self.levels if self.training else 2 * (u + x) / self.levels - 1)",
        "levels are looked up in [-1, 1], where it must be [0, 1]",
    ),
    "255 levels for 256 in evaluation": (
        ImageFlow, "dequantise", ImageFlow, "elbo",
        "(u + x) / self.levels)",
        "(u + x) / (self.levels - (not self.training)))",
        "is divided by 7, where there are 8 levels",
    ),
    "Langevin that is gradient descent": (
        EBM, "energy-sampler", EBM, "walk", "rng, self.temperature)", "rng, 1e-9)",
        "no noise is added: this is gradient descent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", PLANTED)
def test_a_bug_in_our_own_code_is_caught_and_named(bug, monkeypatch):
    cls, truth, owner, name, text, new, said = PLANTED[bug]
    plant(monkeypatch, owner, name, text, new)
    found = verdict(cls, truth)
    assert found.state == "fails"
    assert said in str(found)


def test_so_little_noise_that_it_is_ascent_is_told_by_its_temperature():
    """Of the code that is called Langevin: T = noise²/(2 · step) is printed with every run."""
    build, config = MODELS["ebm"].build, MODELS["ebm"].config
    honest, shipped = (build((8, 8, 1), config(sampler=name, hidden=8), Generator(0)) for name in ("langevin", "igebm"))
    assert "temperature 1" in honest.remarks()[0]
    assert "temperature 1.25e-06: next to no noise" in shipped.remarks()[0]
    assert shipped.temperature == langevin.temperature(langevin.IGEBM_NOISE, langevin.IGEBM_STEP)


# ---- a residual that is added twice


def at_zero(block, last):
    """Of a residual block whose branch ends in a layer of zeros: the largest difference between what it gives and x."""
    last.weight.data[...] = 0
    if last.bias is not None:
        last.bias.data[...] = 0
    x = Generator(1).normal((2, 4, 4, 16))
    with no_grad():
        return float(np.abs(block(Tensor(x)).data - x).max())


def unet_block():
    block = unet.ResidualBlock(16, 16, 8, Generator(0))
    return at_zero(lambda x: block(x, Tensor(np.ones((2, 8), np.float32))), block.conv2)


def attention_block():
    block = unet.AttentionBlock(16, Generator(0))
    return at_zero(block, block.attention.out)


def pixelcnn_block():
    block = pixelcnn.ResidualBlock(16, Generator(0))
    return at_zero(lambda x: block(x, None), block.conv)


def gated_block():
    block = pixelcnn.GatedBlock(16, Generator(0))
    return at_zero(lambda x: block(x, None), block.mix)


def horizontal_layer():
    block = gated_pixelcnn.HorizontalLayer(16, 16, 1, 0, Generator(0))
    return at_zero(lambda x: block(x, Tensor(np.ones((2, 4, 4, 32), np.float32)), None, None), block.mix)


RESIDUALS = {
    unet_block: (unet.ResidualBlock, "return h + (x", "return h + 2 * (x"),
    attention_block: (unet.AttentionBlock, "return x + self", "return x + x + self"),
    pixelcnn_block: (pixelcnn.ResidualBlock, "return h + self", "return h + h + self"),
    gated_block: (pixelcnn.GatedBlock, "return h + self", "return h + h + self"),
    horizontal_layer: (gated_pixelcnn.HorizontalLayer, "else h + new", "else h + h + new"),
}


@pytest.mark.parametrize("block", RESIDUALS, ids=lambda f: f.__name__)
def test_a_residual_is_added_once(block, monkeypatch):
    owner, text, new = RESIDUALS[block]
    assert block() < 1e-6
    plant(monkeypatch, owner, "forward", text, new)
    assert block() > 1


# ---- eps=0.8, where the author meant momentum


def variance_of_a_batch(norm):
    x = Generator(0).normal((500, 4)) * 3 + 1
    with no_grad():
        return norm(Tensor(x)).data.var(axis=0)


def test_a_normalised_batch_has_variance_1_and_not_with_eps_for_momentum():
    assert np.abs(variance_of_a_batch(BatchNorm(4, momentum=0.8)) - 1).max() < 1e-3
    assert np.abs(variance_of_a_batch(BatchNorm(4, 0.8)) - 1).max() > 0.05  # BatchNorm(features, eps, momentum)
