"""Truths train-step and train-game: they hold for every model, and each mistake is caught, and named.

Mistakes are put into one model of each kind: a VAE for those with a loss, an energy-based model, and a GAN.
"""

from contextlib import contextmanager

import numpy as np
import pytest

from minigen import no_grad, ops
from minigen.autograd import grad
from minigen.models import EBM, GAN, LISTED, MODELS, VAE
from minigen.nn import Linear
from minigen.optim import EMA, Adam
from minigen.random import Generator
from minigen.truths import TRUTHS, check
from minigen.truths.checking import built_in


def verdict(cls, name):
    (found,) = check(cls, [TRUTHS[name]])
    return found


def mutated(model, mutant):
    """The built-in model's class, whose examples are of the class of the mutant."""
    cls = built_in(MODELS[model])

    def example(rng):
        made = cls.example(rng)
        made.__class__ = mutant
        if hasattr(mutant, "spoil"):
            made.spoil()
        return made

    mutant.example = staticmethod(example)
    return mutant


@pytest.mark.parametrize("name", LISTED)
def test_a_step_of_every_model_is_along_its_gradient(name):
    truth = "train-game" if "gan" in name else "train-step"
    found = verdict(built_in(MODELS[name]), truth)
    assert found.state == "holds", str(found)


# ---- models that have a loss


class Idle(VAE):
    def train_step(self, x, rng, optimizers, **labels):
        return {"loss": self.loss(self.preprocess(x, rng), rng).total.item()}


class Uphill(VAE):
    def train_step(self, x, rng, optimizers, **labels):
        (optimizer,) = optimizers.values()
        optimizer.zero_grad()
        (-self.loss(self.preprocess(x, rng), rng).total).backward()
        optimizer.step()


class NeverZeroed(VAE):
    def train_step(self, x, rng, optimizers, **labels):
        (optimizer,) = optimizers.values()
        self.loss(self.preprocess(x, rng), rng).total.backward()
        optimizer.step()


class ZeroedTooLate(VAE):
    """Between the backward pass and the step."""

    def train_step(self, x, rng, optimizers, **labels):
        (optimizer,) = optimizers.values()
        self.loss(self.preprocess(x, rng), rng).total.backward()
        optimizer.zero_grad()
        optimizer.step()


class BackwardTwice(VAE):
    def train_step(self, x, rng, optimizers, **labels):
        (optimizer,) = optimizers.values()
        optimizer.zero_grad()
        loss = self.loss(self.preprocess(x, rng), rng).total
        loss.backward()
        loss.backward()
        optimizer.step()


class SummedOverTheBatch(VAE):
    def train_step(self, x, rng, optimizers, **labels):
        (optimizer,) = optimizers.values()
        optimizer.zero_grad()
        (len(x) * self.loss(self.preprocess(x, rng), rng).total).backward()
        optimizer.step()


class DecoderOnly(VAE):
    def optimizers(self):
        return {"adam": Adam(self.decoder.parameters(), self.config.lr)}


class Hidden(VAE):
    """A layer where nobody looks for parameters: what a plain list is to other libraries, a closure is here."""

    def spoil(self):
        layer, decoder = Linear(2, 2, rng=Generator(5)), self.decoder
        self.decoder, self.inner = (lambda z: ops.tanh(layer.astype(z.dtype)(decoder(z)))), decoder


class AnotherLoss(VAE):
    """beta in the training only."""

    def train_step(self, x, rng, optimizers, **labels):
        (optimizer,) = optimizers.values()
        optimizer.zero_grad()
        _, log_px, kl = self.elbo(x, rng)
        (0.5 * kl - log_px).mean().backward()
        optimizer.step()


LOSS_MISTAKES = {
    Idle: "train_step changes nothing",
    Uphill: "it goes up the gradient",
    NeverZeroed: "the gradients of the step before are not set to zero",
    ZeroedTooLate: "train_step changes nothing",
    BackwardTwice: "the gradient counts twice",
    SummedOverTheBatch: "the loss is summed over the batch",
    DecoderOnly: "just what comes out if optimizers() leaves them out, so they are never trained",
    Hidden: "their layers are where `parameters()` does not find them, so they are never trained",
    AnotherLoss: "likely: another loss than `loss` gives",
}


@pytest.mark.parametrize("mutant", LOSS_MISTAKES, ids=lambda cls: cls.__name__)
def test_a_mistake_in_a_step_is_named(mutant):
    found = verdict(mutated("vae-mlp", mutant), "train-step")
    assert found.state == "fails"
    assert LOSS_MISTAKES[mutant] in str(found)


# ---- energies


class ChainsBeforeTheirWalk(EBM):
    def walk(self, x, steps, rng):
        self.began = x
        return super().walk(x, steps, rng)

    def energy(self, x):
        if hasattr(self, "began") and len(x) == 2 * len(self.began) and not hasattr(x, "node"):
            x = np.concatenate([x[: len(self.began)], self.began])
        return super().energy(x)


class DataForChains(EBM):
    """The energy of data is raised, and that of chains lowered."""

    def train_step(self, x, rng, optimizers, **labels):
        (optimizer,) = optimizers.values()
        chains, _ = self.walk(x, 3, rng)
        optimizer.zero_grad()
        (self.energy(chains).mean() - self.energy(x).mean()).backward()
        optimizer.step()


class NoContrast(EBM):
    """The chains' energy without its gradient: the energy of data falls for ever."""

    def train_step(self, x, rng, optimizers, **labels):
        (optimizer,) = optimizers.values()
        chains, _ = self.walk(x, 3, rng)
        optimizer.zero_grad()
        with no_grad():
            pushed = self.energy(chains).mean()
        (self.energy(x).mean() - pushed.item()).backward()
        optimizer.step()


@pytest.mark.parametrize("mutant", [ChainsBeforeTheirWalk, DataForChains, NoContrast], ids=lambda cls: cls.__name__)
def test_a_mistake_in_the_step_of_an_energy_is_caught(mutant):
    found = verdict(mutated("ebm2d", mutant), "train-step")
    assert found.state == "fails"
    if mutant is DataForChains:
        assert "it goes up the gradient" in str(found)


# ---- games


class GeneratorCutOff(GAN):
    def generate(self, n, rng):
        return super().generate(n, rng).detach()


class GeneratorIdle(GAN):
    def train_step(self, x, rng, optimizers, **labels):
        with no_grad():
            fake = self.generate(len(x), rng).data
        loss = self.discriminator_loss(x, fake, rng).total
        optimizers["discriminator"].step(grad(loss, self.discriminator.parameters()))


class GeneratorUphill(GAN):
    def generator_loss(self, n, rng):
        return -super().generator_loss(n, rng)


class Minimax(GAN):
    """The loss that saturates, where the other is asked for."""

    def generator_loss(self, n, rng):
        return -ops.softplus(self.discriminator(self.generate(n, rng))).mean()


class GradientsShared(GAN):
    """backward() of the generator's loss leaves its traces in the discriminator too."""

    def train_step(self, x, rng, optimizers, **labels):
        with no_grad():
            fake = self.generate(len(x), rng).data
        optimizers["generator"].zero_grad()
        self.generator_loss(len(x), rng).backward()
        optimizers["generator"].step()
        self.discriminator_loss(x, fake, rng).total.backward()
        optimizers["discriminator"].step()
        optimizers["discriminator"].zero_grad()


GAME_MISTAKES = {
    GeneratorIdle: "the generator is not trained",
    GeneratorUphill: "the generator goes up its loss",
    GradientsShared: "the other player's loss moves it too",
    Minimax: "step 1 of the generator, over the rate",
    GeneratorCutOff: "raised",
}


@pytest.mark.parametrize("mutant", GAME_MISTAKES, ids=lambda cls: cls.__name__)
def test_a_mistake_in_a_game_is_named(mutant):
    found = verdict(mutant, "train-game")
    assert found.state == "fails"
    assert GAME_MISTAKES[mutant] in str(found)


class BothAtOnce(GAN):
    """No mistake: the generator's gradient is taken against the old discriminator."""

    def train_step(self, x, rng, optimizers, **labels):
        with no_grad():
            fake = self.generate(len(x), rng).data
        g = grad(self.generator_loss(len(x), rng), self.generator.parameters())
        d = grad(self.discriminator_loss(x, fake, rng).total, self.discriminator.parameters())
        optimizers["generator"].step(g)
        optimizers["discriminator"].step(d)


def test_another_order_of_the_players_is_no_mistake():
    assert verdict(BothAtOnce, "train-game").state == "holds"


# ---- averages of parameters


class NoWarmUp(EMA):
    def update(self):
        self.average[...] = self.decay * self.average + (1 - self.decay) * self.flat.data


class Exchanged(EMA):
    def update(self):
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.average[...] = (1 - d) * self.average + d * self.flat.data
        self.steps += 1


class NeverEnds(EMA):
    def update(self):
        d = (1 + self.steps) / (10 + self.steps)
        self.average[...] = d * self.average + (1 - d) * self.flat.data
        self.steps += 1


class FromZero(EMA):
    def __init__(self, flat, decay=0.999):
        super().__init__(flat, decay)
        self.average[...] = 0


class NotPutBack(EMA):
    @contextmanager
    def applied(self):
        self.flat.data[...] = self.average
        yield


def test_the_average_follows_its_recursion():
    assert verdict(EMA, "ema").state == "holds"


AVERAGES = {
    NoWarmUp: "there is no warm-up",
    Exchanged: "decay and 1 - decay are exchanged",
    NeverEnds: "the warm-up never ends",
    FromZero: "the average starts at 0",
    NotPutBack: "largest change of the parameters put back",
}


@pytest.mark.parametrize("mutant", AVERAGES, ids=lambda cls: cls.__name__)
def test_a_mistake_in_an_average_is_named(mutant):
    found = verdict(mutant, "ema")
    assert found.state == "fails"
    assert AVERAGES[mutant] in str(found)
