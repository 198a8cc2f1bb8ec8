"""Generative adversarial network   (Goodfellow 2014, https://arxiv.org/abs/1406.2661; their equations are cited as G14).

A generator turns noise z ~ N(0, I) into samples G(z). A discriminator says of a sample, by a number D(x), whether it looks
real. Each is trained against the other, in turn. With D a logit, and σ the logistic function, the game is

    min_G max_D  V(D, G) = E_x[log σ(D(x))] + E_z[log(1 - σ(D(G(z))))]                                           (G14 eq. 1)

For a fixed G the best D is log p_data - log p_G, and V is then 2 JSD(p_data ‖ p_G) - log 4   (G14 prop. 1, th. 1). There
is no density: a GAN can draw samples, and cannot say how probable one is.

Start at `GAN.train_step`; then `LOSSES`, and the two penalties that keep D smooth. The networks come last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor, grad, no_grad, ops
from ..nn import BatchNorm, Conv2d, ConvTranspose2d, Linear, Module, Sequential, SpectralConv2d, SpectralLinear, init
from ..optim import Adam, Optimizer
from ..random import Generator
from .model import Loss, Model, ModelConfig, option, other_default, register

SLOPE = 0.2  # of the discriminator's leaky ReLU   (Radford 2016, sec. 3)


class Game(NamedTuple):
    """What the two players minimise, given logits: discriminator(D(x), D(G(z))) and generator(D(G(z))), each (N,) -> ().

    balance: the discriminator's loss when generated samples are distributed like the data, and it does its best.
    norm: what keeps the discriminator in bounds, unless told otherwise.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    balance: float
    norm: str


def cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """-V = -E[log σ(real)] - E[log(1 - σ(fake))], by softplus(-d) = -log σ(d)                                  (G14 eq. 1)"""
    return ops.softplus(-real).mean() + ops.softplus(fake).mean()  # proved by: truth optimal-d


LOSSES = {
    # E[log(1 - σ(D(G(z))))]: the game as it stands. Where D is sure, its slope is nearly zero
    "minimax": Game(cross_entropy, lambda fake: -ops.softplus(fake).mean(), math.log(4), "batch"),
    # -E[log σ(D(G(z)))]: the same fixed point, and a slope where D is sure   (G14 sec. 3)
    "non-saturating": Game(cross_entropy, lambda fake: ops.softplus(-fake).mean(), math.log(4), "batch"),
    # E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))], and -E[D(G(z))]   (Miyato 2018, eqs. 16, 17)
    "hinge": Game(
        lambda real, fake: ops.relu(1 - real).mean() + ops.relu(1 + fake).mean(), lambda fake: -fake.mean(), 2.0, "spectral"
    ),
    # E[D(G(z))] - E[D(x)]: minus a Wasserstein distance, if |∇D| ≤ 1; hence the penalty   (Gulrajani 2017, eq. 3)
    "wgan-gp": Game(lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean(), 0.0, "none"),
}


@dataclass(frozen=True)
class GANConfig(ModelConfig):
    latent: int = option(64, "dimension of the noise", low=1)
    loss: str = option("hinge", "what the two networks minimise", choices=tuple(LOSSES))
    norm: str = option(
        "auto",
        "of the discriminator; auto: spectral for hinge, none for wgan-gp, batch for the others",
        choices=("auto", "spectral", "batch", "none"),
    )
    gp: float = option(10.0, "weight of the gradient penalty of wgan-gp", low=0.0)
    r1: float | None = option(0.0, "weight gamma of the R1 penalty, with any loss", low=0.0)
    discriminator_steps: int = option(1, "steps of the discriminator for each of the generator", low=1)
    beta1: float = option(0.0, "decay of Adam's mean gradient", low=0.0, high=0.999999)
    beta2: float = option(0.9, "decay of Adam's mean square", low=0.0, high=0.999999)
    batch_size: int = other_default(ModelConfig, "batch_size", 64)
    lr: float = other_default(ModelConfig, "lr", 5e-4)
    steps: int = other_default(ModelConfig, "steps", 3000)
    ema: float = other_default(ModelConfig, "ema", 0.99)

    @property
    def discriminator_norm(self) -> str:
        """What `norm` means: "spectral", "batch" or "none"."""
        return LOSSES[self.loss].norm if self.norm == "auto" else self.norm

    @property
    def r1_weight(self) -> float:
        """What `r1` means: the weight gamma, 0 for no penalty."""
        return self.r1 or 0.0


class GAN(Model):
    """Two networks.     generator(z): (N, latent) -> (N, *data_shape).     discriminator(x): (N, *data_shape) -> (N,) logits.

    Images are seen in [-1, 1], where the generator's tanh ends; points as they are.
    """

    config: GANConfig
    no_likelihood = "a GAN draws samples, and gives no density of any"

    def __init__(self, generator: Module, discriminator: Module, data_shape: tuple[int, ...], config: GANConfig):
        self.generator, self.discriminator = generator, discriminator
        self.data_shape, self.config, self.game = data_shape, config, LOSSES[config.loss]
        self.curves = {"discriminator": "discriminator loss", "generator": "generator loss"}
        self.marks = {"discriminator's, at its best against perfect samples": self.game.balance}

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        return 2 * x - 1 if len(self.data_shape) == 3 else x

    def optimizers(self) -> dict[str, Optimizer]:
        """The generator's comes first: it is the one that is averaged and sampled."""
        betas = (self.config.beta1, self.config.beta2)
        parts = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: Adam(part.parameters(), self.config.lr, betas) for name, part in parts.items()}

    # ---- the game

    def update(
        self, x: np.ndarray, rng: Generator, optimizers: dict[str, Optimizer], **labels: np.ndarray
    ) -> dict[str, Any]:
        """A step of the discriminator, and, after every `discriminator_steps` of those, one of the generator   (G14 alg. 1).

        Each takes the gradients of its own parameters only: the other's are neither computed nor touched.
        """
        x, judge = self.preprocess(x, rng), optimizers["discriminator"]
        with no_grad():
            fake = self.generate(len(x), rng).data
        loss = self.discriminator_loss(x, fake, rng)
        judge.step(grad(loss.total, self.discriminator.parameters()))
        if judge.steps % self.config.discriminator_steps == 0:
            optimizers["generator"].step(grad(self.generator_loss(len(x), rng), self.generator.parameters()))
        return loss.terms

    def phase(self, optimizers: dict[str, Optimizer]) -> int:
        """1 where the next step is one of the generator, too."""
        return int((optimizers["discriminator"].steps + 1) % self.config.discriminator_steps == 0)

    def discriminator_loss(self, x: np.ndarray, fake: np.ndarray, rng: Generator) -> Loss:
        """What the discriminator minimises, penalties included. Reports both losses, as they are before either step.

        x, fake: (N, *data_shape), real and generated, as the discriminator sees them.
        """
        real_logit, fake_logit = self.discriminator(x), self.discriminator(fake)  # (N,), (N,)
        loss = self.game.discriminator(real_logit, fake_logit)
        terms = {"discriminator": loss, "generator": self.game.generator(fake_logit)}
        if self.config.loss == "wgan-gp":
            penalty = gradient_penalty(self.discriminator, x, fake, rng)
            loss, terms["penalty"] = loss + self.config.gp * penalty, penalty
        if self.config.r1_weight:
            r1 = r1_penalty(self.discriminator, x)
            loss, terms["r1"] = loss + self.config.r1_weight * r1, r1
        return Loss(loss, terms)

    def generator_loss(self, n: int, rng: Generator) -> Tensor:
        """What the generator minimises, over n new samples."""
        return self.game.generator(self.discriminator(self.generate(n, rng)))

    # ---- use

    def generate(self, n: int, rng: Generator) -> Tensor:
        """G(z) for n codes z ~ N(0, I), as the discriminator sees them.     -> (n, *data_shape)"""
        return self.generator(Tensor(rng.normal((n, self.config.latent))))

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n new samples, in the range of the data.     -> (n, *data_shape)"""
        with no_grad():
            x = self.generate(n, rng).data
        return 0.5 * (x + 1) if len(self.data_shape) == 3 else x


# ---- penalties on the slope of D: gradients in the loss, so differentiated a second time


def gradient_penalty(discriminator: Callable, x: np.ndarray, fake: np.ndarray, rng: Generator) -> Tensor:
    """E[(‖∇D(x̂)‖ - 1)²], x̂ = u x + (1 - u) G(z), one u ~ U(0, 1) for each sample        (Gulrajani 2017, eq. 3, alg. 1)"""
    u = rng.uniform((len(x),) + (1,) * (x.ndim - 1), dtype=x.dtype)  # (N, 1, ...)
    squared = slopes(discriminator, u * x + (1 - u) * fake)  # (N,)
    return ops.square(ops.sqrt(squared + 1e-12) - 1).mean()  # proved by: truth gradient-penalty; 1e-12: ‖g‖ has no slope at 0


def r1_penalty(discriminator: Callable, x: np.ndarray) -> Tensor:
    """½ E[‖∇D(x)‖²] over real samples, to be weighted by γ                                        (Mescheder 2018, eq. 9)"""
    return 0.5 * slopes(discriminator, x).mean()  # proved by: truths dirac-gan, gradient-penalty


def slopes(discriminator: Callable, x: np.ndarray) -> Tensor:
    """‖∇D(x)‖² of each sample, part of a graph.     (N, ...) -> (N,)     D(x_i) must not depend on the other samples."""
    at = Tensor(x, requires_grad=True)
    g = grad(discriminator(at).sum(), at, create_graph=True)  # (N, ...)
    return ops.square(g).sum(axis=tuple(range(1, x.ndim)))


# ---- the networks


@dataclass(frozen=True)
class GAN2dConfig(GANConfig):
    latent: int = other_default(GANConfig, "latent", 4)
    hidden: int = option(128, "units of each of the three hidden layers, in both networks", low=1)
    loss: str = other_default(GANConfig, "loss", "non-saturating")
    norm: str = option(
        "auto",
        "of the discriminator; auto: spectral for hinge, none for the others",
        choices=("auto", "spectral", "batch", "none"),
    )
    r1: float | None = option(None, "weight gamma of the R1 penalty; left out: 0.1, but 0 for hinge and wgan-gp", low=0.0)
    beta1: float = other_default(GANConfig, "beta1", 0.5)
    beta2: float = other_default(GANConfig, "beta2", 0.999)
    batch_size: int = other_default(ModelConfig, "batch_size", 256)
    lr: float = other_default(ModelConfig, "lr", 1e-3)
    steps: int = other_default(ModelConfig, "steps", 10_000)
    ema: float = other_default(ModelConfig, "ema", 0.995)

    @property
    def discriminator_norm(self) -> str:
        """Batch norm is not for points, so without a norm the cross-entropies have R1 to keep the discriminator in bounds."""
        return ("spectral" if self.loss == "hinge" else "none") if self.norm == "auto" else self.norm

    @property
    def r1_weight(self) -> float:
        return (0.0 if self.loss in ("hinge", "wgan-gp") else 0.1) if self.r1 is None else self.r1


@register("gan2d", GAN, GAN2dConfig, "GAN of points in the plane, with small networks")
def mlp_gan(data_shape: tuple[int, ...], config: GAN2dConfig, rng: Generator) -> GAN:
    """Three hidden layers in each network. For points only.

    The second and third start as He 2015 says: with smaller weights a discriminator is too smooth for narrow modes for long.
    Raises ValueError for images.
    """
    if len(data_shape) != 1:
        raise ValueError(f"gan2d models points, not data of shape {data_shape}; dcgan takes images")
    h, norm = config.hidden, _checked_norm("gan2d", config)
    layer = SpectralLinear if norm == "spectral" else Linear
    leaky: dict[str, Any] = {"activation": "leaky_relu", "negative_slope": SLOPE}
    generator = Sequential(
        Linear(config.latent, h, rng=rng, activation="relu"),
        *(Linear(h, h, rng=rng, activation="relu", weight_init=init.kaiming_uniform) for _ in range(2)),
        Linear(h, data_shape[0], rng=rng),
    )
    discriminator = Sequential(
        layer(data_shape[0], h, rng=rng, **leaky),
        *(layer(h, h, rng=rng, weight_init=init.kaiming_uniform, **leaky) for _ in range(2)),
        layer(h, 1, rng=rng),
        _logit,
    )
    return GAN(generator, discriminator, data_shape, config)


@dataclass(frozen=True)
class DCGANConfig(GANConfig):
    channels: int = option(32, "channels at half the resolution; at a quarter there are twice as many", low=1)


@register("dcgan", GAN, DCGANConfig, "convolutional GAN of images")
def dcgan(data_shape: tuple[int, ...], config: DCGANConfig, rng: Generator) -> GAN:
    """Convolutions of stride 2, and transposed ones   (Radford 2016, https://arxiv.org/abs/1511.06434, sec. 3).

    Batch norm in all layers of the generator but the last. Height and width must be multiples of 4.
    Raises ValueError for points, and for sides that 4 does not divide.
    """
    if len(data_shape) != 3 or data_shape[0] % 4 or data_shape[1] % 4:
        raise ValueError(f"dcgan needs images with sides that 4 divides, not data of shape {data_shape}; gan2d takes points")
    height, width, channels = data_shape
    c, norm = config.channels, _checked_norm("dcgan", config)
    inner = (height // 4, width // 4, 2 * c)  # 28 -> 14 -> 7,  8 -> 4 -> 2
    conv, linear = (SpectralConv2d, SpectralLinear) if norm == "spectral" else (Conv2d, Linear)

    def norm_relu(features: int) -> BatchNorm:
        """Its running averages have the window of the averaged parameters, so that they are, nearly, those of the average."""
        passes = 1 + 1 / config.discriminator_steps  # of the generator, in a training step
        return BatchNorm(features, momentum=(1 - config.ema) / passes if config.ema else 0.1, activation="relu")

    def leaky(x: Tensor) -> Tensor:
        return ops.leaky_relu(x, SLOPE)

    generator = Sequential(
        Linear(config.latent, math.prod(inner), rng=rng, bias=False),
        lambda x: x.reshape(len(x), *inner),
        norm_relu(2 * c),
        ConvTranspose2d(2 * c, c, 4, stride=2, padding=1, rng=rng, bias=False),  # (N, H/2, W/2, c)
        norm_relu(c),
        ConvTranspose2d(c, channels, 4, stride=2, padding=1, rng=rng),  # (N, H, W, C)
        ops.tanh,
    )
    discriminator = Sequential(
        conv(channels, c, 4, stride=2, padding=1, rng=rng),  # (N, H/2, W/2, c)
        leaky,  # no batch norm where the pixels come in   (Radford 2016, sec. 3)
        conv(c, 2 * c, 4, stride=2, padding=1, rng=rng),  # (N, H/4, W/4, 2c)
        BatchNorm(2 * c, activation="leaky_relu", negative_slope=SLOPE) if norm == "batch" else leaky,
        lambda x: x.reshape(len(x), -1),
        linear(math.prod(inner), 1, rng=rng),
        _logit,
    )
    return GAN(generator, discriminator, data_shape, config)


def _logit(x: Tensor) -> Tensor:
    """(N, 1) -> (N,)"""
    return x.reshape(len(x))


def _checked_norm(name: str, config: GANConfig) -> str:
    """The norm of the discriminator. Raises ValueError for one that does not go with the rest."""
    norm = config.discriminator_norm
    if norm == "batch" and name == "gan2d":
        raise ValueError("batch norm is for images: add --norm none or --norm spectral")
    if norm == "batch" and (config.loss == "wgan-gp" or config.r1_weight):
        why = "a penalty is on the slope at each sample, and batch norm mixes the samples"
        raise ValueError(f"{why}: add --norm none or --norm spectral")
    return norm
