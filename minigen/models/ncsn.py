"""Noise-conditional score network   (Song & Ermon 2019, https://arxiv.org/abs/1907.05600, cited as S&E; Vincent 2011, denoising
score matching, https://doi.org/10.1162/NECO_a_00142).

The score ∇ log p(x) is all that Langevin dynamics needs, and has no Z in it. It cannot be learned where there are no data, so
data are blurred by noise of many widths σ_1 > ... > σ_L, and one network learns the score of each:

    s(x, σ) ≈ ∇ log p_σ(x),     p_σ(x) = ∫ p(t) N(x; t, σ² I) dt                                               (S&E sec. 3)

Start at `NCSN.loss`, then `NCSN.sample`. There is no energy here: s need not be the gradient of anything, so no log p either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..autograd.backend import alike, beside
from ..random import Generator
from . import langevin
from .ddpm import MLP
from .model import Loss, Model, ModelConfig, option, register
from .unet import UNet


@dataclass(frozen=True)
class NCSNConfig(ModelConfig):
    batch_size: int = option(64, "samples in one training step", low=1)
    ema: float = option(0.999, "decay of the averaged parameters that are evaluated; 0 for none", low=0.0, high=0.999999)
    sigma_max: float = option(5.0, "the widest noise σ_1: about the largest distance between two samples", low=1e-6)
    sigma_min: float = option(0.02, "the narrowest noise σ_L, which stays on the samples unless they are denoised", low=1e-6)
    noises: int = option(30, "levels of noise L, in geometric progression", low=2)
    chain_steps: int = option(5, "Langevin steps at each level", low=1)
    epsilon: float = option(0.2, "size of a Langevin step in units of the noise: α_i = ε σ_i²", low=1e-9)
    denoise: bool = option(True, "end with a step to the clean sample that is expected behind the last noise")
    base: int = option(16, "channels of the network at half resolution; four times as many at a quarter", low=8)


class NCSN(Model):
    """network(x, u, y): (N, *data_shape), level u (N,) from 0 (widest) to 1, None -> Tensor like x.

    Raises ValueError unless sigma_max is above sigma_min.
    """

    config: NCSNConfig

    def __init__(self, network: Callable, data_shape: tuple[int, ...], config: NCSNConfig):
        if config.sigma_max <= config.sigma_min:
            raise ValueError(f"--sigma-max {config.sigma_max:g} must be above --sigma-min {config.sigma_min:g}")
        self.network, self.data_shape, self.config = network, data_shape, config
        self.images = len(data_shape) == 3
        self.sigmas = np.geomspace(config.sigma_max, config.sigma_min, config.noises)  # (L,)

    def loss(self, x: np.ndarray, rng: Generator) -> Loss:
        """½ E σ² |s(x̃, σ) + (x̃ - x)/σ²|²,  x̃ = x + σ n,  averaged over levels and values         (S&E eqs. 2, 5, 6, λ(σ) = σ²)

        It is least where s is the score of p_σ   (Vincent 2011, eq. 11).                 proved by: truth denoising-score
        """
        i = rng.integers(0, len(self.sigmas), (len(x),))
        sigma = beside(self.sigmas, i)[i].astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))  # (N, 1, ...)
        n = rng.normal(x.shape, dtype=x.dtype)
        return Loss(0.5 * ops.square(self._scaled_score(x + sigma * n, i) + n).mean(), {})

    def _scaled_score(self, x: np.ndarray, i: np.ndarray) -> Tensor:
        """σ_i s(x, σ_i), a number of order 1, which is what the network says.     (N, *data_shape), (N,) levels -> like x"""
        sigma = beside(self.sigmas, i)[i].reshape(-1, *[1] * (x.ndim - 1))  # (N, 1, ...)
        scale = 1 / np.sqrt(1 + sigma**2)  # keeps its input of order 1 too
        return self.network(Tensor(x * scale.astype(x.dtype)), (i / (len(self.sigmas) - 1)).astype(x.dtype), None)

    def score(self, x: np.ndarray, sigma: float | None = None) -> np.ndarray:
        """∇ log p_σ(x) at the nearest of the levels; None: the narrowest.     (N, *data_shape) -> the same"""
        i = len(self.sigmas) - 1 if sigma is None else int(np.abs(np.log(self.sigmas / sigma)).argmin())
        with no_grad():
            return self._scaled_score(x, alike(np.full(len(x), i), x)).data / x.dtype.type(self.sigmas[i])

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """Annealed Langevin dynamics from N(0, σ_1²), which hides the data.     -> (n, *data_shape)     (S&E alg. 1)"""
        config, last = self.config, float(self.sigmas[-1])
        x = rng.normal((n, *self.data_shape), std=config.sigma_max)
        x = langevin.annealed(self.score, x, self.sigmas, config.chain_steps, config.epsilon * last**2, rng)
        if config.denoise:
            x = x + np.float32(last**2) * self.score(x, last)  # E[clean|x]   (Jolicoeur-Martineau 2020, sec. 3.1)
        return np.clip(x, 0, 1) if self.images else x

    def remarks(self) -> list[str]:
        config = self.config
        steps = f"{config.noises} levels of {config.chain_steps} Langevin steps"
        return [f"annealed sampler: {steps}, noise √α for steps of α/2, temperature 1 at each level"]


@dataclass(frozen=True)
class NCSN2dConfig(NCSNConfig):
    batch_size: int = option(512, "samples in one training step", low=1)
    lr: float = option(2e-3, "learning rate of Adam", low=0.0)
    sigma_max: float = option(8.0, "the widest noise σ_1: about the largest distance between two samples", low=1e-6)
    sigma_min: float = option(0.05, "the narrowest noise σ_L, which stays on the samples unless they are denoised", low=1e-6)
    chain_steps: int = option(20, "Langevin steps at each level", low=1)
    base: int = option(128, "units of each of the three hidden layers", low=8)


@register("ncsn2d", NCSN, NCSN2dConfig, "score of points in the plane at many levels of noise")
def mlp_ncsn(data_shape: tuple[int, ...], config: NCSN2dConfig, rng: Generator) -> NCSN:
    """For points only. Raises ValueError for images."""
    if len(data_shape) != 1:
        raise ValueError(f"ncsn2d models points, not data of shape {data_shape}; ncsn takes images")
    return NCSN(MLP(data_shape[0], config.base, 0, rng), data_shape, config)


@register("ncsn", NCSN, NCSNConfig, "score of images at many levels of noise")
def unet_ncsn(data_shape: tuple[int, ...], config: NCSNConfig, rng: Generator) -> NCSN:
    """For images whose sides are multiples of 4. Raises ValueError for points, and for sides that 4 does not divide."""
    if len(data_shape) != 3 or data_shape[0] % 4 or data_shape[1] % 4:
        raise ValueError(f"ncsn needs images with sides that 4 divides, not data of shape {data_shape}; ncsn2d takes points")
    return NCSN(UNet(data_shape[2], config.base, 0, rng), data_shape, config)
