"""Energy-based models by maximum likelihood   (LeCun 2006; Xie 2016, https://arxiv.org/abs/1602.03264; Tieleman 2008, the
persistent chains, https://doi.org/10.1145/1390156.1390290; Du & Mordatch 2019, https://arxiv.org/abs/1903.08689).

A network f gives every x one number, and the density is whatever that makes of it:

    p(x) = exp(-E(x))/Z,     E(x) = f(x) + |x - c|²/(2 s²),     Z = ∫ exp(-E(x)) dx                     (Xie 2016, eqs. 1, 2)

E low is likely. The quadratic is a Gaussian that f tilts, and keeps Z finite. Z is unknown, but its gradient is not:

    ∇_θ E[-log p(x)] = E_data[∇_θ E(x)] - E_p[∇_θ E(x)]                                                     (Xie 2016, eq. 3)

so each step lowers the energy of data and raises that of the model's own samples, drawn by Langevin chains (langevin.py) that
persist from step to step. Start at `EBM.train_step`. In the plane quadrature.py computes Z, so log p is exact.

Images are seen in [-1, 1] with Gaussian noise of standard deviation σ added, and E is the energy of those: a smooth density,
in which honest chains move. Samples jump back to clean images along the score   (Saremi & Hyvärinen 2019, arXiv 1903.02334).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..autograd.backend import move
from ..nn import Conv2d, Known, Linear, Sequential, init
from ..optim import Adam, Optimizer
from ..random import Generator
from . import langevin
from .model import Diverged, Model, ModelConfig, option, register
from .quadrature import log_partition

REFERENCES = ("data", "noise", "none")
GAIN = 1.7  # of SiLU: keeps the size of activations, without which the network takes long to make out modes


@dataclass(frozen=True)
class EBMConfig(ModelConfig):
    batch_size: int = option(64, "samples, and chains, in one training step", low=1)
    lr: float = option(5e-4, "learning rate of Adam", low=0.0)
    steps: int = option(2000, "training steps, where nothing else is said", low=1)
    ema: float = option(0.99, "decay of the averaged parameters that are evaluated; 0 for none", low=0.0, high=0.999999)
    sampler: str = option("langevin", "how chains move", choices=("langevin", "mala", "igebm"))
    chain_steps: int = option(30, "steps of each chain in one training step", low=1)
    step: float = option(0.125, "size η of a Langevin step, in units of s²", low=1e-9)
    noise: float | None = option(None, "noise of a Langevin step, in units of s; left out: √(2η), the honest one", low=0.0)
    chains: int = option(1024, "chains that persist: the replay buffer", low=1)
    restart: float = option(0.05, "share of chains that begin anew in each training step", low=0.0, high=1.0)
    sampling_steps: int = option(200, "further steps of a chain before it is a sample", low=0)
    data_noise: float = option(0.4, "noise σ on the data, which are seen in [-1, 1]", low=0.0)
    reference: str = option("noise", "the Gaussian in E: as wide as the data, as their noise, or none", choices=REFERENCES)
    penalty: float = option(0.0, "weight of the mean of E², which holds energies near 0", low=0.0)
    clip_norm: float = option(0.0, "largest norm of the gradient; 0 for any", low=0.0)
    guard: float = option(10.0, "nats per value between the energies of data and chains that stop a run", low=0.0)
    hidden: int = option(32, "channels of the first convolution", low=1)


class EBM(Model):
    """network(x): Tensor (N, *data_shape) -> (N, 1), f of the formula above.

    Raises ValueError for options that do not go together.
    """

    config: EBMConfig
    notes: ClassVar[dict[str, str]] = {"log_prob": "for points in the plane only, where Z is computed by quadrature"}
    not_captured = "it reads the energies in the middle of a step, and changes nothing where they have run apart"

    def __init__(self, network: Callable, data_shape: tuple[int, ...], config: EBMConfig):
        if config.chains < config.batch_size:
            raise ValueError(f"{config.chains} chains for batches of {config.batch_size}: there must be as many, or more")
        if config.noise is not None and config.sampler != "langevin":
            raise ValueError(f"--noise is for --sampler langevin; the noise of {config.sampler} follows from its step")
        if config.noise == 0:
            raise ValueError("--noise 0 is gradient descent: not a sampler; leave it out for Langevin dynamics")
        self.network, self.data_shape, self.config = network, data_shape, config
        self.images = len(data_shape) == 3
        if config.reference == "none" and not self.images:
            raise ValueError("--reference none: nothing would keep the density of points normalisable; choose data")
        if config.reference == "noise" and not config.data_noise:
            raise ValueError("--reference noise needs a --data-noise above 0, to be as wide as")
        self.centre = Tensor(np.zeros(data_shape, np.float32))  # c, and s: buffers, which the first batch sets
        self.spread = Tensor(np.ones((), np.float32))
        self.chains = Tensor(np.zeros((config.chains, *data_shape), np.float32))  # a buffer too: a run resumes with its chains
        self.started = Tensor(np.zeros((), np.float32))
        self.has_started, self.width = Known(self.started), Known(self.spread)

    def preprocess(self, x: np.ndarray, rng: Generator) -> np.ndarray:
        x = 2 * x - 1 if self.images else x
        sigma = self.config.data_noise
        return x + x.dtype.type(sigma) * rng.normal(x.shape, dtype=x.dtype) if sigma else x

    # ---- the density

    def energy(self, x: np.ndarray | Tensor) -> Tensor:
        """E(x), low where x is likely.     x: preprocessed (N, *data_shape) -> (N,) nats, up to a constant"""
        x = x if isinstance(x, Tensor) else Tensor(x)
        f = self.network(x).reshape(len(x))
        if self.config.reference == "none":
            return f
        squares = ops.square((x - self.centre) / self.spread).sum(axis=tuple(range(1, x.ndim)))  # (N,)
        return f + 0.5 * squares

    def score(self, x: np.ndarray) -> np.ndarray:
        """∇ log p(x) = -∇E(x): Z has no part in it.     x: preprocessed (N, *data_shape) -> the same"""
        return -langevin.energy_and_gradient(self.energy, x)[1]

    def log_partition(self) -> tuple[float, float]:
        """log Z, and the error of its last digits, by quadrature: for points in the plane.     nats

        Raises Diverged where it does not settle; see quadrature.py.
        """
        if self.data_shape != (2,):
            raise TypeError(f"log Z by quadrature is for points in the plane, not for data of shape {self.data_shape}")
        device = self.centre.device
        centre = move(self.centre.data, "cpu").astype(np.float64)
        with no_grad():
            return log_partition(
                lambda x: move(self.energy(move(x, device)).data, "cpu"), centre, 5 * float(self.spread.data)
            )

    def log_prob(self, x: np.ndarray, log_z: float | None = None) -> np.ndarray:
        """log p(x) = -E(x) - log Z, for points in the plane.     x: (N, 2) -> (N,) nats     log_z: where it is known already"""
        log_z = self.log_partition()[0] if log_z is None else log_z
        with no_grad():
            return -self.energy(x).data.astype(np.float64) - log_z  # proved by: truth entropy-floor

    def estimators(self, k: int) -> dict[str, Callable[[np.ndarray, Generator], np.ndarray]]:
        """The exact value for points; of images log p is not known: it would take Z."""
        if self.images:
            return {}
        known: list[float] = []

        def exact(x: np.ndarray, rng: Generator) -> np.ndarray:
            if not known:
                known.append(self.log_partition()[0])
            return self.log_prob(x, known[0])

        return {"exact, Z by quadrature": exact}

    # ---- training

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam without momentum: what it would carry on with was measured against chains that have moved on."""
        return {"adam": Adam(self.parameters(), self.config.lr, betas=(0.0, 0.999))}

    def train_step(
        self, x: np.ndarray, rng: Generator, optimizers: dict[str, Optimizer], **labels: np.ndarray
    ) -> dict[str, float]:
        """Walk some of the persistent chains, then lower E on data and raise it on the chains   (Tieleman 2008, sec. 3).

            loss = mean E(data) - mean E(chains) + penalty · mean (E(data)² + E(chains)²)                  (Xie 2016, eq. 3)

        Raises Diverged, and changes nothing then, for energies that are not finite or too far apart, by `guard`.
        """
        (optimizer,) = optimizers.values()
        data = self.preprocess(x, rng)
        if not self.has_started():
            self._start(data, rng)
        which = rng.permutation(len(self.chains))[: len(data)]
        chains, accepted = self.walk(self._some_anew(self.chains.data[which], rng), self.config.chain_steps, rng)
        both = self.energy(np.concatenate([data, chains]))  # (2 N,)
        e_data, e_chains = both[: len(data)].mean(), both[len(data) :].mean()
        near, far = e_data.item(), e_chains.item()  # of which the guard is told, and the report
        self._require_near(near, far)
        loss = e_data - e_chains
        if self.config.penalty:
            loss = loss + self.config.penalty * 2 * ops.square(both).mean()
        optimizer.zero_grad()
        loss.backward()
        if self.config.clip_norm:
            optimizer.clip_grad_norm(self.config.clip_norm)
        optimizer.step()
        self.chains.data[which] = chains
        self.chains.mark_written()
        terms = {"gap": near - far, "energy_data": near, "energy_chains": far}
        return terms | {"temperature": self.temperature} | accepted

    def walk(self, x: np.ndarray, steps: int, rng: Generator) -> tuple[np.ndarray, dict[str, float]]:
        """Move chains by so many steps of the sampler, without a graph that outlives a step.   truths: ula

        x: (N, *data_shape) -> the same, and the share of proposals that were accepted where there are such
        """
        config = self.config
        if config.sampler == "igebm":
            return langevin.igebm(self.energy, x, steps, rng), {}
        step = config.step * self.width() ** 2
        if config.sampler == "mala":
            x, accepted = langevin.mala(self.energy, x, steps, step, rng)
            return x, {"accepted": accepted}
        return langevin.ula(self.energy, x, steps, step, rng, self.temperature), {}

    @property
    def temperature(self) -> float:
        """T = noise²/(2 · step) of the sampler: 1 where chains follow p(x) = exp(-E(x))/Z."""
        if self.config.sampler == "igebm":
            return langevin.temperature(langevin.IGEBM_NOISE, langevin.IGEBM_STEP)
        noise = self.config.noise
        return 1.0 if noise is None else langevin.temperature(noise, self.config.step)

    def remarks(self) -> list[str]:
        config, t = self.config, self.temperature
        size, unit = (langevin.IGEBM_STEP, "") if config.sampler == "igebm" else (config.step, " s")
        noise = f"{math.sqrt(2 * size * t):.3g}{unit}"
        what = f"sampler {config.sampler}: step {size:g}{unit and ' s²'}, noise {noise}, temperature {t:.3g}"
        return [what if t > 0.5 else f"{what}: next to no noise, so it finds minima of E and does not sample exp(-E)"]

    def _start(self, data: np.ndarray, rng: Generator) -> None:
        """Set c and s from the first batch, and all chains to draws from where they begin."""
        self.centre.data[...] = data.mean(axis=0, dtype=np.float64)
        width = self.config.data_noise if self.config.reference == "noise" else (data - self.centre.data).std(dtype=np.float64)
        self.spread.data[...] = width
        self.chains.data[...] = self._beginnings(len(self.chains), rng)
        self.started.data[...] = 1
        for buffer in (self.centre, self.spread, self.chains, self.started):
            buffer.mark_written()

    def _beginnings(self, n: int, rng: Generator) -> np.ndarray:
        """Where chains begin: draws from the Gaussian N(c, s²), or from U(-1, 1) where there is none.  -> (n, *data_shape)"""
        if self.config.reference == "none":
            return rng.uniform((n, *self.data_shape), -1, 1)
        return self.centre.data + self.spread.data * rng.normal((n, *self.data_shape))

    def _some_anew(self, chains: np.ndarray, rng: Generator) -> np.ndarray:
        """Chains, of which a share `restart` begins again.     (N, *data_shape) -> the same"""
        anew = rng.bernoulli(self.config.restart, (len(chains), *[1] * len(self.data_shape)))
        return np.where(anew, self._beginnings(len(chains), rng), chains)

    def _require_near(self, e_data: float, e_chains: float) -> None:
        most = self.config.guard * math.prod(self.data_shape)
        if not abs(e_data - e_chains) <= most:  # a NaN is not
            raise Diverged(
                f"the mean energies of data, {e_data:.4g}, and of chains, {e_chains:.4g}, are more than {most:g} nats apart "
                f"(--guard {self.config.guard:g} for each value), so the chains no longer follow the model"
            )

    # ---- use

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n of the persistent chains, `sampling_steps` further.     -> (n, *data_shape)

        Images: the clean image that is expected behind the noise,  E[clean|x] = x + σ² ∇ log p(x)        (Saremi 2019, eq. 8)
        """
        start = self.chains.data[rng.integers(0, len(self.chains), (n,))] if self.started.data else self._beginnings(n, rng)
        x, _ = self.walk(start, self.config.sampling_steps, rng)
        if not self.images:
            return x
        sigma = np.float32(self.config.data_noise)
        return np.clip((x + sigma**2 * self.score(x) + 1) / 2, 0, 1)


# ---- the two networks


@dataclass(frozen=True)
class EBM2dConfig(EBMConfig):
    batch_size: int = option(256, "samples, and chains, in one training step", low=1)
    ema: float = option(0.997, "decay of the averaged parameters that are evaluated; 0 for none", low=0.0, high=0.999999)
    sampler: str = option("mala", "how chains move", choices=("langevin", "mala", "igebm"))
    chain_steps: int = option(10, "steps of each chain in one training step", low=1)
    lr: float = option(1e-3, "learning rate of Adam", low=0.0)
    step: float = option(0.02, "size η of a Langevin step, in units of s²", low=1e-9)
    chains: int = option(256, "chains that persist: the replay buffer", low=1)
    restart: float = option(0.01, "share of chains that begin anew in each training step", low=0.0, high=1.0)
    data_noise: float = option(0.0, "noise σ on the points", low=0.0)
    reference: str = option("data", "the Gaussian in E: as wide as the data, as their noise, or none", choices=REFERENCES)
    hidden: int = option(128, "units of each of the three hidden layers", low=1)


@register("ebm2d", EBM, EBM2dConfig, "energy of points in the plane, with an exact density")
def mlp_ebm(data_shape: tuple[int, ...], config: EBM2dConfig, rng: Generator) -> EBM:
    """For points only. Raises ValueError for images."""
    if len(data_shape) != 1:
        raise ValueError(f"ebm2d models points, not data of shape {data_shape}; ebm takes images")
    h = config.hidden
    layer = partial(Linear, rng=rng, weight_init=partial(init.kaiming_normal, gain=GAIN))
    network = Sequential(
        layer(data_shape[0], h, activation="silu"),
        layer(h, h, activation="silu"),
        layer(h, h, activation="silu"),
        layer(h, 1),
    )
    return EBM(network, data_shape, config)


@register("ebm", EBM, EBMConfig, "energy of images, by Langevin chains")
def conv_ebm(data_shape: tuple[int, ...], config: EBMConfig, rng: Generator) -> EBM:
    """Convolutions of stride 2 down to 3 x 3 or less, each but the fourth with twice the channels; SiLU; one hidden layer.

    28 -> 16 -> 8 -> 4 -> 2 and 492,641 parameters;  14 -> 9 -> 4 -> 2;  8 -> 6 -> 3
    Raises ValueError for points, and for images below 4 x 4.
    """
    if len(data_shape) != 3 or min(data_shape[:2]) < 4:
        raise ValueError(f"ebm needs images of at least 4 x 4, not data of shape {data_shape}; ebm2d takes points")
    height, width, c_in = data_shape
    layers: list[Callable] = []
    c, padding = config.hidden, 3
    while not layers or min(height, width) >= 4:
        layers += [Conv2d(c_in, c, 4, stride=2, padding=padding, rng=rng), ops.silu]
        height, width = ((side + 2 * padding - 4) // 2 + 1 for side in (height, width))
        c_in, c, padding = c, min(2 * c, 4 * config.hidden), 1
    size = height * width * c_in
    flatten = lambda x: x.reshape(len(x), size)
    network = Sequential(*layers, flatten, Linear(size, 128, rng=rng, activation="silu"), Linear(128, 1, rng=rng))
    return EBM(network, data_shape, config)
