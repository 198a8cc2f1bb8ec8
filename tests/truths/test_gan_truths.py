"""Truths optimal-d, dirac-gan, gradient-penalty and spectral-norm: they hold, and see the mistakes that are made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen import Tensor, grad, ops
from minigen.models import VAE, Loss
from minigen.models.gan import GAN, LOSSES, GANConfig
from minigen.nn import SpectralNorm
from minigen.random import Generator
from minigen.truths import TRUTHS
from minigen.truths import gan as truths


def broken(findings):
    return [str(f) for f in findings if not f.holds]


CHECKS = {name: TRUTHS[name].check for name in ("optimal-d", "dirac-gan", "gradient-penalty")}


@pytest.mark.parametrize("name", CHECKS)
def test_every_truth_holds_for_the_gan(name):
    assert TRUTHS[name].fits(GAN)
    assert not TRUTHS[name].fits(VAE)
    assert broken(CHECKS[name](GAN)) == []


def test_spectral_norm_holds():
    assert broken(truths.spectral_norm(SpectralNorm)) == []


def test_the_values_that_are_known():
    """-log 4 + 2 JSD, from -log 4 for equal distributions to 0 for distant ones."""
    values = [truths.value_of_the_game(m) for m in (0, 1, 2, 4)]
    np.testing.assert_allclose(values, [-1.3863, -1.1635, -0.7126, -0.1209], atol=5e-5)
    moduli = [truths.dirac_modulus(0.5, gamma, 0.1) for gamma in (0, 0.5, 1)]
    np.testing.assert_allclose(moduli, [1.00125, 0.976, 0.95], atol=5e-5)


@settings(max_examples=10)
@given(h=st.floats(0.01, 1), gamma=st.floats(0, 3))
def test_the_modulus_is_that_of_the_matrix(h, gamma):
    """Mescheder's J = [[0, -s], [s, -gamma]], here with s = ½: in numbers, instead of by its eigenvalues' formula."""
    step = np.eye(2) + h * np.array([[0, -0.5], [0.5, -gamma]])
    assert abs(abs(np.linalg.eigvals(step)).max() - truths.dirac_modulus(0.5, gamma, h)) < 1e-6


@settings(max_examples=10)
@given(d=st.integers(1, 5), n=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_penalties_of_any_size(d, n, seed):
    assert broken(truths.gradient_penalty(GAN, d, n, seed)[:6]) == []


def test_a_short_training_of_the_discriminator_lands_at_the_optimum():
    """N(0, 1) against N(1, 1), the generator left alone: D(x) comes to ½ - x, and V to -1.1635."""
    config = GANConfig(loss="minimax", norm="none", latent=1, lr=0.02, ema=0, discriminator_steps=10**6)
    model, rng = GAN(truths.Shift(1.0), truths.Line(0, 0), (1,), config).astype("float32"), Generator(0)
    optimizers = model.optimizers()
    for _ in range(400):
        model.train_step(rng.normal((500, 1)), rng, optimizers)
    assert abs(model.discriminator.a.item() - 0.5) < 0.1
    assert abs(model.discriminator.b.item() + 1) < 0.1
    assert model.generator.shift.item() == 1
    x = truths._quantiles()
    assert abs(model.discriminator_loss(x, x + 1, rng).total.item() - 1.1635) < 2e-3


# ---- mutants of the game: (what is wrong, the truths that notice)


class Exchanged(GAN):
    """Real for generated."""

    def discriminator_loss(self, x, fake, rng):
        return super().discriminator_loss(fake, x, rng)


class TwiceALogit(GAN):
    """A discriminator that ends in a sigmoid, in a loss that wants logits."""

    def discriminator_loss(self, x, fake, rng):
        loss = super().discriminator_loss(x, fake, rng)
        real, generated = (ops.sigmoid(self.discriminator(a)) for a in (x, fake))
        return loss._replace(total=self.game.discriminator(real, generated))


class Half(GAN):
    """The mean of the two terms: half of V. Common, harmless to Adam, and no longer V."""

    def discriminator_loss(self, x, fake, rng):
        loss = super().discriminator_loss(x, fake, rng)
        return loss._replace(total=0.5 * loss.total)


class OnlyReal(GAN):
    def discriminator_loss(self, x, fake, rng):
        loss = super().discriminator_loss(x, fake, rng)
        return loss._replace(total=loss.total - ops.softplus(self.discriminator(fake)).mean())


class Uphill(GAN):
    """A generator that helps the discriminator."""

    def generator_loss(self, n, rng):
        return -super().generator_loss(n, rng)


class AlwaysSaturating(GAN):
    def generator_loss(self, n, rng):
        return LOSSES["minimax"].generator(self.discriminator(self.generate(n, rng)))


class Deaf(GAN):
    """A generator whose samples are cut off from it."""

    def generator_loss(self, n, rng):
        return super().generator_loss(n, rng) + 0.0 * self.generator.parameters()[0]

    def generate(self, n, rng):
        return Tensor(super().generate(n, rng).data)


# ---- mutants of the penalties


class Penalised(GAN):
    """The GAN with its two penalties computed here, each from the slopes (N, ...) of D."""

    def discriminator_loss(self, x, fake, rng):
        own = self.config
        self.config = GANConfig(loss="minimax" if own.loss == "wgan-gp" else own.loss, norm="none", latent=own.latent)
        loss = super().discriminator_loss(x, fake, rng).total
        self.config = own
        if own.loss == "wgan-gp" and own.gp:
            u = self.weights(x, rng)
            loss = loss + own.gp * self.gp(self.slopes(u * x + (1 - u) * fake))
        if own.r1:
            loss = loss + own.r1 * self.r1(self.slopes(self.where(x, fake)))
        return Loss(loss, {})

    def weights(self, x, rng):
        return rng.uniform((len(x), 1), dtype=x.dtype)

    def where(self, x, fake):
        return x

    def slopes(self, x):
        at = Tensor(x, requires_grad=True)
        return grad(self.discriminator(at).sum(), at, create_graph=True)

    def gp(self, g):
        return ops.square(ops.sqrt(ops.square(g).sum(axis=1) + 1e-12) - 1).mean()

    def r1(self, g):
        return 0.5 * ops.square(g).sum(axis=1).mean()


def test_the_ground_of_the_mutants_is_right():
    assert broken(truths.dirac_gan(Penalised)) == []
    assert broken(truths.gradient_penalty(Penalised)) == []


class WithoutHalf(Penalised):
    def r1(self, g):
        return ops.square(g).sum(axis=1).mean()


class Unsquared(Penalised):
    def r1(self, g):
        return 0.5 * ops.sqrt(ops.square(g).sum(axis=1) + 1e-12).mean()


class AtGenerated(Penalised):
    def where(self, x, fake):
        return fake


class WithoutGraph(Penalised):
    """The slope as a number: the penalty is reported, and changes nothing."""

    def slopes(self, x):
        return Tensor(super().slopes(x).data)


class OfTheMean(Penalised):
    """D averaged before it is differentiated: slopes N times too small."""

    def slopes(self, x):
        at = Tensor(x, requires_grad=True)
        return grad(self.discriminator(at).mean(), at, create_graph=True)


class OfTheBatch(Penalised):
    """One norm for all samples."""

    def gp(self, g):
        return ops.square(ops.sqrt(ops.square(g).sum() + 1e-12) - 1)


class SquaredNorm(Penalised):
    def gp(self, g):
        return ops.square(ops.square(g).sum(axis=1) - 1).mean()


class OneSided(Penalised):
    def gp(self, g):
        return ops.square(ops.relu(ops.sqrt(ops.square(g).sum(axis=1) + 1e-12) - 1)).mean()


class InABox(Penalised):
    """A number u for each value, not for each sample: points in a box, not on a line."""

    def weights(self, x, rng):
        return rng.uniform(x.shape, dtype=x.dtype)


class AtTheEnds(Penalised):
    def weights(self, x, rng):
        return (rng.uniform((len(x), 1), dtype=x.dtype) > 0.5).astype(x.dtype)


MUTANTS = [
    (Exchanged, {"optimal-d"}),
    (TwiceALogit, {"optimal-d"}),
    (Half, {"optimal-d"}),
    (OnlyReal, {"optimal-d"}),
    (Uphill, {"optimal-d", "dirac-gan"}),
    (AlwaysSaturating, {"optimal-d"}),
    (Deaf, {"optimal-d"}),
    (WithoutHalf, {"dirac-gan", "gradient-penalty"}),
    (Unsquared, {"dirac-gan", "gradient-penalty"}),
    (AtGenerated, {"gradient-penalty"}),
    (WithoutGraph, {"dirac-gan", "gradient-penalty"}),
    (OfTheMean, {"dirac-gan", "gradient-penalty"}),
    (OfTheBatch, {"gradient-penalty"}),
    (SquaredNorm, {"gradient-penalty"}),
    (OneSided, {"gradient-penalty"}),
    (InABox, {"gradient-penalty"}),
    (AtTheEnds, {"gradient-penalty"}),
]


@pytest.mark.parametrize(("cls", "noticed_by"), MUTANTS, ids=[cls.__name__ for cls, _ in MUTANTS])
def test_mutants_are_noticed(cls, noticed_by):
    for name in noticed_by:
        assert broken(CHECKS[name](cls)), name


# ---- mutants of the spectral norm


class Frobenius(SpectralNorm):
    def forward(self, weight):
        return weight / ops.sqrt(ops.square(weight).sum())


class Forgetful(SpectralNorm):
    """A power iteration that starts anew each time."""

    def forward(self, weight):
        kept = self.u.data.copy()
        result = super().forward(weight)
        self.u.data[...] = kept
        return result


class Constant(SpectralNorm):
    """σ as a number: no gradient goes through it."""

    def forward(self, weight):
        return weight * (super().forward(weight).data / weight.data)


class ByFirstAxis(SpectralNorm):
    """The kernel cut into a matrix (kh, rest)."""

    def __init__(self, weight, *, rng):
        super().__init__(Tensor(weight.data.reshape(weight.shape[0], -1)), rng=rng)

    def forward(self, weight):
        return super().forward(weight.reshape(weight.shape[0], -1)).reshape(weight.shape)


@pytest.mark.parametrize("cls", [Frobenius, Forgetful, Constant, ByFirstAxis])
def test_mutants_of_the_spectral_norm_are_noticed(cls):
    assert broken(truths.spectral_norm(cls))
