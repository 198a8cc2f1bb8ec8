"""Denoising diffusion   (Ho 2020, https://arxiv.org/abs/2006.11239; his equations are cited by their number alone).

Data are drowned in noise in T small steps, which noise.py describes exactly. A network learns to undo one step. Sampling
starts from pure noise and undoes them all:

    p(x_0..T) = p(x_T) Π_t p(x_{t-1} | x_t),     p(x_T) = N(0, I),     p(x_{t-1} | x_t) = N(μ(x_t, t), σ_t² I)           (eq. 1)

Read `DDPM.loss`, then `DDPM.sample`, then `DDPM.log_prob_bound`; the exact likelihood of the deterministic sampler is in
probability_flow.py, the network for images in unet.py. N is the batch; log-likelihoods are in nats per sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..autograd.backend import alike, beside, move
from ..nn import Embedding, Linear, Module, init
from ..optim import Adam, Optimizer, constant, cosine
from ..random import Generator
from . import probability_flow
from .model import Loss, Model, ModelConfig, option, register
from .noise import PREDICTIONS, Schedule, shaped, target, x0_and_eps
from .unet import UNet, time_embedding

LOG_2PI = math.log(2 * math.pi)
TIME = 32  # size of the embedded time in the network for points


@dataclass(frozen=True)
class DDPMConfig(ModelConfig):
    batch_size: int = option(64, "samples in one training step", low=1)
    anneal: int = option(0, "steps over which the learning rate falls to a fiftieth, to stay there; 0: none", low=0)
    ema: float = option(0.9999, "decay of the averaged parameters that are evaluated; 0 for none", low=0.0, high=0.999999)
    schedule: str = option("cosine", "how noise grows", choices=("linear", "cosine"))
    timesteps: int = option(1000, "steps from data to noise", low=1, high=100_000)
    prediction: str = option("v", "what the network says: the noise, the data, or v", choices=PREDICTIONS)
    times: str = option("even", "how training draws t: evenly, or evenly in log t, for a likelihood", choices=("even", "log"))
    sampler: str = option("ddim", "how samples are drawn", choices=("ancestral", "ddim"))
    sampling_steps: int = option(50, "steps of the sampler; 0: all", low=0)
    eta: float = option(0.0, "noise of the DDIM sampler: 0 none, 1 ancestral", low=0.0, high=1.0)
    variance: str = option("large", "variance of an ancestral step", choices=("small", "large"))
    clip: bool = option(True, "keep the denoised image inside the range of images while sampling")
    levels: int = option(0, "grey levels of the images; 0: those of the data set", low=0, high=65536)
    classes: int = option(0, "classes to be conditioned on, for labelled data; 0: none", low=0)
    drop_label: float = option(0.1, "share of labels that training hides, for guidance", low=0.0, high=1.0)
    guidance: float = option(1.0, "weight of classifier-free guidance: 0 none", low=0.0)


class DDPM(Model):
    """A diffusion model of points, or of images, which it sees in [-1, 1].

    network(x_t, u, y): (N, *data_shape), u = t/T (N,) in [0, 1], labels (N,) int or None -> Tensor like x_t. Label number
    `classes` stands for "no label".
    Raises ValueError for more sampling steps than steps.
    """

    config: DDPMConfig
    notes: ClassVar[dict[str, str]] = {
        "log_prob": "of the probability-flow ODE: exact for points, up to the steps of its solver; for images an estimate of a "
        "lower bound on the probability of the grey levels"
    }

    def __init__(self, network: Callable, data_shape: tuple[int, ...], config: DDPMConfig):
        self.network, self.data_shape, self.config = network, data_shape, config
        self.schedule = Schedule.named(config.schedule, config.timesteps)
        self.path = self.schedule.subset(config.sampling_steps or config.timesteps)  # the steps that the sampler takes
        self.sigma2 = self.schedule.variance(config.variance)  # (T+1,)
        self.classes = config.classes
        self.images = len(data_shape) == 3
        self.levels = config.levels or None

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        return 2 * x - 1 if self.images else x

    # ---- training

    def loss(self, x: np.ndarray, rng: Generator, y: np.ndarray | None = None) -> Loss:
        """L_simple = E_{t, ε} mean (target - network(x_t, t))²                                                   (eq. 14)

        t is uniform on 1..T, and the target ε, x_0 or v. As errors of x_0 these count SNR_t = ᾱ_t/(1 - ᾱ_t), 1, and SNR_t + 1.
        """
        config, n = self.config, len(x)
        t = self.spread_times(n, rng)
        eps = rng.normal(x.shape, dtype=x.dtype)
        a, b = self.schedule.signal_and_noise(t, x)  # (N, 1, ...) each
        if y is not None:
            y = np.where(rng.bernoulli(config.drop_label, (n,)) > 0, self.classes, y)  # Ho & Salimans 2022, alg. 1
        output = self.network(self.schedule.q_sample(x, t, eps), self.time(t, x), y)
        return Loss(ops.mse_loss(output, target(config.prediction, x, eps, a, b)), {})  # truth ddpm-gaussian

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam with a short memory for the size of gradients, which falls fast at first; its rate rises over 100 steps."""
        config, warmup = self.config, 100
        falls = config.anneal > warmup
        lr = cosine(config.lr, config.anneal, warmup, floor=0.02) if falls else constant(config.lr, warmup)
        return {"adam": Adam(self.parameters(), lr, betas=(0.9, 0.99))}

    def spread_times(self, n: int, rng: Generator) -> np.ndarray:
        """A step for each sample: n of them evenly over 1..T, from a random start, so that batches differ less.     -> (n,)

        Each is uniform on 1..T, which keeps the loss's mean; not independent   (Kingma 2021, arXiv 2107.00630, app. I.1).
        With times="log" log t is uniform, P(t) = log((t + 1)/t)/log(T + 1): near the data, where log SNR falls by 2/t in a
        step, that weighs errors of ε as the bound does.
        """
        steps = self.schedule.T
        if self.config.times == "log":
            start = rng.uniform((1,), dtype=np.float64)
            t = np.floor((steps + 1) ** ((start + np.arange(n, like=start) / n) % 1))
            return np.minimum(t, steps).astype(np.int64)
        start = rng.integers(0, steps, (1,))
        return 1 + (start + np.arange(n, like=start) * steps // n) % steps

    def time(self, t: float | np.ndarray, x: np.ndarray | Tensor) -> np.ndarray:
        """u = t/T for each sample, as the network wants it.     -> (N,)"""
        u = np.broadcast_to(shaped(t / self.schedule.T, x).reshape(-1), (len(x),))
        return alike(u, x.data if isinstance(x, Tensor) else x)

    # ---- one step back

    def output(self, x: np.ndarray, t: int | np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """What the network says of x at step t, without a graph. With labels: guided by them.     -> like x

        (1 + w) network(x, t, y) - w network(x, t, no label)                                  (Ho & Salimans 2022, eq. 6)
        """
        if not self.classes:
            return self._run(x, t, None)
        none = alike(np.full(len(x), self.classes), x)
        if y is None or not self.config.guidance:
            return self._run(x, t, none if y is None else y)
        w = self.config.guidance
        with_label, without = np.split(self._run(np.concatenate([x, x]), t, np.concatenate([y, none])), 2)
        return (1 + w) * with_label - w * without

    def _run(self, x: np.ndarray, t: int | np.ndarray, y: np.ndarray | None) -> np.ndarray:
        with no_grad():
            return self.network(Tensor(x), self.time(t, x), y).data

    def denoise(
        self, x: np.ndarray, t: int | np.ndarray, y: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The model's idea of x_0 and of ε, given x_t.     -> like x, like x        For images x_0 is kept in [-1, 1]."""
        a, b = self.schedule.signal_and_noise(t, x)
        x0, eps = x0_and_eps(self.config.prediction, self.output(x, t, y), x, a, b)
        if self.images and self.config.clip:
            x0 = np.clip(x0, -1, 1)
            eps = (x - a * x0) / b
        return x0, eps

    def score(self, x: np.ndarray, t: int = 1) -> np.ndarray:
        """∇ log p_t(x) = -ε(x, t)/√(1 - ᾱ_t), of the data with the noise of step t.   -> like x   (Song 2021, SDE, sec. 3.3)"""
        a, b = self.schedule.signal_and_noise(t, x)
        return -x0_and_eps(self.config.prediction, self.output(x, t), x, a, b)[1] / b

    # ---- sampling

    def sample(self, n: int, rng: Generator, y: np.ndarray | None = None) -> np.ndarray:
        """n new samples, in `sampling_steps` steps.     y: (n,) labels; None: drawn evenly where the model knows labels

        Ancestral:  x_{t-1} = μ(x_t, t) + σ_t z,  z ~ N(0, I), and none at the last step                                (alg. 2)
        DDIM:       Song 2021, eq. 12; see Schedule.ddim_step
        """
        config, path = self.config, self.path
        if self.classes and y is None:
            y = rng.integers(0, self.classes, (n,))
        sigma = np.sqrt(path.variance(config.variance))
        x = rng.normal((n, *self.data_shape))
        for i in range(path.T, 0, -1):
            x0, eps = self.denoise(x, path.times[i], y)
            noisy = i > 1 and (config.sampler == "ancestral" or config.eta > 0)
            z = rng.normal(x.shape) if noisy else np.zeros_like(x)
            if config.sampler == "ddim":
                x = path.ddim_step(x0, eps, i, config.eta, z)
            else:
                x = path.posterior_mean(x0, x, i) + shaped(sigma[i], x) * z  # proved by: truth sampler-std
        return np.clip((x + 1) / 2, 0, 1) if self.images else x

    # ---- the bound

    def log_prob_bound(self, x: np.ndarray, k: int, rng: Generator) -> np.ndarray:
        """The variational bound on log p(x), an unbiased estimate from k of its T terms.     x: preprocessed -> (N,) nats

            log p(x_0)  ≥  -L_T - Σ_{t=2}^T L_{t-1} - L_0                                                              (eq. 5)
            L_T = KL(q(x_T | x_0) ‖ N(0, I)),   L_{t-1} = KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)),  L_0 = -log p(x_0 | x_1)

        L_T and L_0 are always among the k; the others are spread evenly over t, and k ≥ T + 1 takes them all.
        For images it is the probability of the grey levels, for points the density.   Proved by: truth ddpm-vlb.
        """
        schedule, n = self.schedule, len(x)
        left = schedule.alpha_bar[-1]
        bound = -0.5 * _sum(left * np.square(x, dtype=np.float64) - left - math.log1p(-left))  # -L_T
        bound += self._log_decoder(x, rng)
        middle = schedule.T - 1
        k = min(max(k - 2, 1), middle)
        start = rng.uniform((n,), dtype=np.float64)
        for j in range(k):
            t = np.minimum(2 + np.floor((j + start) * middle / k).astype(int), schedule.T)  # (N,)
            bound -= middle / k * self._kl(x, t, rng)
        return bound

    def _kl(self, x: np.ndarray, t: np.ndarray, rng: Generator) -> np.ndarray:
        """L_{t-1} = Σ ½ (log σ_t²/β̃_t - 1 + β̃_t/σ_t² + (μ̃ - μ)²/σ_t²) of two Gaussians, at one x_t.  -> (N,)  (eq. 8)"""
        schedule = self.schedule
        x_t = schedule.q_sample(x, t, rng.normal(x.shape, dtype=x.dtype))
        x0, _ = self.denoise(x_t, t)
        miss = _sum(np.square(schedule.posterior_mean(x, x_t, t) - schedule.posterior_mean(x0, x_t, t), dtype=np.float64))
        right, own = (beside(table, t)[t] for table in (schedule.beta_tilde, self.sigma2))  # (N,)
        return 0.5 * (math.prod(self.data_shape) * (np.log(own / right) - 1 + right / own) + miss / own)

    def _log_decoder(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        """-L_0 = log p(x_0 | x_1): a Gaussian density, or for grey levels its mass in a level's interval.  -> (N,)  (eq. 13)"""
        x_1 = self.schedule.q_sample(x, 1, rng.normal(x.shape, dtype=x.dtype))
        mean = self.denoise(x_1, 1)[0]  # x_0 itself: the posterior mean of step 1
        sigma = math.sqrt(self.sigma2[1])
        if self.images and self.levels:
            x, mean = move(x, "cpu"), move(mean, "cpu")  # the tails of a normal distribution are SciPy's
            return move(_sum(log_discretised_normal(x, mean, sigma, self.levels)), rng.device)
        return _sum(-0.5 * (np.square((x - mean) / sigma, dtype=np.float64) + LOG_2PI) - math.log(sigma))

    def estimators(self, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
        """The bound from k of its terms for images, from all for points; and for points the ODE's exact density."""
        terms = k if self.images else self.schedule.T + 1
        name = f"variational bound, {min(terms, self.schedule.T + 1)} terms"
        bound = {name: lambda x, rng: self.log_prob_bound(x, terms, rng)}
        return bound if self.images else {"exact, probability-flow ODE": self.log_prob, **bound}

    # ---- the likelihood of the deterministic sampler

    def log_prob(self, x: np.ndarray, rng: Generator, steps: int = 200) -> np.ndarray:
        """log p(x) of the probability-flow ODE from step 1 to T, in `steps` midpoint steps.     x: preprocessed -> (N,) nats

        Points: the density, with the exact trace. Images: noise of the width of a grey level is added, and the trace estimated:
        an unbiased estimate of a lower bound on the log-probability of the levels   (Song 2021, SDE, sec. 4.3).
        """
        volume = 0.0
        if self.images and self.levels:
            half = 1 / (self.levels - 1)  # of a level's interval in [-1, 1]
            x = x + rng.uniform(x.shape, -half, half)
            volume = math.prod(self.data_shape) * math.log(2 * half)

        def eps(x: Tensor, t: float, a: float, b: float) -> Tensor:
            y = alike(np.full(len(x), self.classes), x.data) if self.classes else None
            return x0_and_eps(self.config.prediction, self.network(x, self.time(t, x), y), x, a, b)[1]

        return volume + probability_flow.log_prob(eps, self.schedule, x, steps, rng)


def log_discretised_normal(x: np.ndarray, mean: np.ndarray, sigma: float, levels: int) -> np.ndarray:
    """log ∫ N(mean, sigma²) over the interval of each grey level; the first and the last reach to infinity.  -> like x (eq. 13)

    x: levels in [-1, 1], 2/(levels - 1) apart.     Sums to 1 over the levels, also where one is far off.
    """
    from scipy.special import log_ndtr

    half = 1 / (levels - 1)
    z = (np.asarray(x, np.float64) - mean) / sigma
    low, high = z - half / sigma, z + half / sigma
    low, high = np.where(z > 0, -high, low), np.where(z > 0, -low, high)  # by symmetry, where the smaller tail is
    first, last = np.asarray(x) < -1 + half, np.asarray(x) > 1 - half
    low = np.where(np.where(z > 0, last, first), -np.inf, low)
    high = np.where(np.where(z > 0, first, last), np.inf, high)
    top = log_ndtr(high)
    return top + np.log1p(-np.exp(log_ndtr(low) - top))


def _sum(per_value: np.ndarray) -> np.ndarray:
    """(N, *data_shape) -> (N,)"""
    return per_value.reshape(len(per_value), -1).sum(axis=1)


# ---- the two networks


class MLP(Module):
    """Three residual layers for points:  h ← h + silu(W silu(h + time + label)).     (N, size), (N,), (N,) -> (N, size)"""

    def __init__(self, size: int, hidden: int, classes: int, rng: Generator):
        self.label = Embedding(classes + 1, hidden, rng=rng) if classes else None
        self.enter = Linear(size, hidden, rng=rng)
        self.times = [Linear(TIME, hidden, rng=rng) for _ in range(3)]
        self.layers = [Linear(hidden, hidden, rng=rng, activation="silu") for _ in range(3)]
        self.leave = Linear(hidden, size, rng=rng, weight_init=init.zeros)

    def forward(self, x: Tensor | np.ndarray, u: np.ndarray, y: np.ndarray | None = None) -> Tensor:
        emb = time_embedding(u, TIME)  # (N, TIME)
        h = self.enter(x)  # (N, hidden)
        if self.label is not None:
            h = h + self.label(y)
        for time, layer in zip(self.times, self.layers, strict=True):
            h = h + layer(ops.silu(h + time(emb)))
        return self.leave(ops.silu(h))


@dataclass(frozen=True)
class DDPM2dConfig(DDPMConfig):
    batch_size: int = option(512, "samples in one training step", low=1)
    lr: float = option(2e-3, "learning rate of Adam", low=0.0)
    timesteps: int = option(100, "steps from data to noise", low=1, high=100_000)
    sampler: str = option("ancestral", "how samples are drawn", choices=("ancestral", "ddim"))
    sampling_steps: int = option(0, "steps of the sampler; 0: all", low=0)
    base: int = option(128, "units of each of the three hidden layers", low=8)


@register("ddpm2d", DDPM, DDPM2dConfig, "diffusion of points in the plane, with a small network")
def mlp_ddpm(data_shape: tuple[int, ...], config: DDPM2dConfig, rng: Generator) -> DDPM:
    """For points only. Raises ValueError for images."""
    if len(data_shape) != 1:
        raise ValueError(f"ddpm2d models points, not data of shape {data_shape}; ddpm takes images")
    return DDPM(MLP(data_shape[0], config.base, config.classes, rng), data_shape, config)


@dataclass(frozen=True)
class UNetDDPMConfig(DDPMConfig):
    batch_size: int = option(32, "samples in one training step", low=1)
    lr: float = option(5e-3, "learning rate of Adam", low=0.0)
    base: int = option(16, "channels of the network at half resolution; four times as many at a quarter", low=8)
    depth: int = option(2, "residual blocks of the network at a quarter of the resolution", low=1)
    attention: bool = option(True, "attention at a quarter of the resolution")
    fourier: bool = option(False, "show the network where between two grey levels a pixel lies: for a better likelihood")


@register("ddpm", DDPM, UNetDDPMConfig, "diffusion of images, with a U-Net")
def unet_ddpm(data_shape: tuple[int, ...], config: UNetDDPMConfig, rng: Generator) -> DDPM:
    """For images whose sides are multiples of 4. Raises ValueError for others, and for Fourier features without levels."""
    if len(data_shape) != 3 or data_shape[0] % 4 or data_shape[1] % 4:
        raise ValueError(f"ddpm needs images with sides that 4 divides, not data of shape {data_shape}; ddpm2d takes points")
    if config.fourier and config.levels < 2:
        raise ValueError("ddpm with Fourier features must know how many grey levels the images have: levels=256")
    levels = config.levels if config.fourier else 0
    network = UNet(data_shape[2], config.base, config.classes, rng, config.depth, config.attention, levels)
    return DDPM(network, data_shape, config)
