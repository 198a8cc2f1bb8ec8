"""Truths of samplers: what is drawn is what the density says. Start at `density_sampler`; the rows of the table are at the end.

    density-sampler   points in the plane, counted in cells, against the density on a grid
    energy-sampler    Langevin chains on a quadratic energy, from the start to the sample
    ncsn-sampler      annealed Langevin dynamics with the exact score of Gaussian data
    ncsn-weights      the same with two modes: how many samples go to each
    rbm-gibbs         Gibbs steps of an RBM whose states can be listed

Where a sampler is linear in its noise it is followed exactly: `Impulses` show what becomes of each draw.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad, ops
from ..models.ebm import EBM2dConfig, EBMConfig
from ..models.ncsn import NCSN2dConfig
from ..models.rbm import RBMConfig
from ..random import Generator
from .autoregressive import pearson
from .density import REACH, STEP
from .energy import EnumeratedRBM, TwoModes
from .flow import on_grid
from .truth import Finding, Impulses, Truth, array, supported

CELLS = 12  # columns of cells in the plane, and cells in each


def density_sampler(cls: Any) -> list[Finding]:
    """∫ p = 1, and samples fall into cells of about equal mass as often as p says: Pearson's χ², in standard deviations.

    The cells are columns, cut by the first coordinate, and each column is cut by the second: their sides are those of the grid.
    """
    model, n = cls.example(Generator(0)), 10_000 if hasattr(cls, "walk") else 40_000  # chains take their time
    grid = on_grid(((-REACH, REACH), (-REACH, REACH)), STEP)
    with no_grad():
        mass = np.exp(array(model.log_prob(grid)).astype(np.float64)) * STEP**2
        drawn = np.asarray(array(model.sample(n, Generator(3))), np.float64)
    side = round(2 * REACH / STEP)
    mass = mass.reshape(side, side)  # (first coordinate, second)
    at = np.clip(np.floor((drawn + REACH) / STEP).astype(int), 0, side - 1)  # (n, 2)
    column = _cut(mass.sum(axis=1))  # (side,) which column a row of the grid is in
    counts, expected = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for i in range(CELLS):
        cell = _cut(mass[column == i].sum(axis=0))  # (side,)
        expected[i] = np.bincount(cell, mass[column == i].sum(axis=0), CELLS)
        counts[i] = np.bincount(cell[at[column[at[:, 0]] == i, 1]], minlength=CELLS)
    away = pearson(counts.reshape(-1), n * expected.reshape(-1) / mass.sum())
    return [
        Finding("total probability, on a grid", float(mass.sum()), 1, 1e-3),
        Finding(f"(χ² - df)/√(2 df) of samples in {CELLS**2} cells", away, 0, 4),
    ]


def _cut(mass: np.ndarray) -> np.ndarray:
    """Cut a row of masses into CELLS parts of about equal mass.     (M,) -> which part each is in, (M,) int"""
    before = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    return np.minimum((before * CELLS).astype(int), CELLS - 1)


# ---- energies


def energy_sampler(cls: Any, curvature: float = 2.0, step: float = 0.1, steps: int = 5) -> list[Finding]:
    """Samples on E = λx²/2 after k unadjusted steps from N(0, 1) have the variance v_k,  v_{i+1} = (1 - ηλ)² v_i + 2η.

    Of images a sample is the clean one that is expected behind noise σ, x - σ² ∇E, brought from [-1, 1] to [0, 1].
    """
    network = lambda x: 0.5 * (curvature - 1) * ops.square(x).reshape(len(x), -1).sum(axis=1)  # and x²/2 from the reference
    common: dict[str, Any] = {"sampler": "langevin", "step": step, "sampling_steps": steps, "reference": "data"}
    spread = lambda steps, noise=1.0: math.sqrt(_langevin_variance(curvature, step, steps, noise))
    right, findings = spread(steps), []
    suspects = (
        (spread(0), "it takes no steps from the start"),
        (spread(steps - 1), "it takes a step too few"),
        (spread(steps + 1), "it takes a step too many"),
        (spread(steps, 0.0), "no noise is added: this is gradient descent"),
        (spread(steps, 0.5), "the noise is √η where it must be √(2η): temperature ½"),
        (spread(steps, 2.0), "the noise is too large by √2: temperature 2"),
    )
    if "points" in supported(cls, "data", ("points", "images")):
        model = cls(network, (1,), EBM2dConfig(data_noise=0.0, **common)).astype(np.float64)
        found = math.sqrt(float((array(model.sample(steps + 3, Impulses())) ** 2).sum()))
        findings.append(Finding(f"standard deviation of points after {steps} steps", found, right, 1e-9, suspects))
    if "images" in supported(cls, "data", ("points", "images")):
        sigma, small = 0.4, 1e-3  # of the noise; of the impulses, so that no pixel leaves [0, 1]
        model = cls(network, (1, 1, 1), EBMConfig(data_noise=sigma, **common)).astype(np.float64)
        pixels = array(model.sample(steps + 3, Impulses(small)))
        found = math.sqrt(float(((2 * pixels - 1) ** 2).sum())) / small
        clean = abs(1 - sigma**2 * curvature)
        also = (
            (right, "the last jump, to the clean image, is left out"),
            (right * (1 + sigma**2 * curvature), "the last jump goes the wrong way"),
            (right * abs(1 - sigma * curvature), "the last jump is σ times the score, where it must be σ² times"),
            *((clean * value, mistake) for value, mistake in suspects),
        )
        what = f"standard deviation of images after {steps} steps, seen in [-1, 1]"
        findings.append(Finding(what, found, clean * right, 1e-6, also))  # float32 in the constant σ²
    return findings


def _langevin_variance(curvature: float, step: float, steps: int, noise: float) -> float:
    """noise: times what it must be, as a variance."""
    variance = 1.0
    for _ in range(steps):
        variance = (1 - step * curvature) ** 2 * variance + 2 * step * noise
    return variance


# ---- scores


def ncsn_sampler(cls: Any, s2: float = 0.49) -> list[Finding]:
    """Annealed samples of N(0, s²) have a standard deviation that follows a linear recursion   (Song & Ermon 2019, alg. 1):

        v ← (1 - α_i/2/(s² + σ_i²))² v + α_i,   α_i = ε σ_i²,   from v = σ_1²; and then √v s²/(s² + σ_L²), the clean sample
    """
    config = NCSN2dConfig(sigma_max=2.0, sigma_min=0.1, noises=5, chain_steps=3, epsilon=0.2)
    sigmas = np.geomspace(config.sigma_max, config.sigma_min, config.noises)

    def network(x: Any, u: np.ndarray, y: Any = None) -> Tensor:
        sigma = sigmas[np.rint(u * (len(sigmas) - 1)).astype(int)][:, None]
        return Tensor(-sigma * (array(x) * np.sqrt(1 + sigma**2)) / (s2 + sigma**2))

    def spread(levels: Any = sigmas, start: float = 2.0, drift: float = 0.5, denoise: bool = True, **other: Any) -> float:
        size, noise = other.get("size", lambda sigma: sigma**2), other.get("noise", lambda alpha: alpha)
        variance = start**2
        for sigma in levels:
            alpha = config.epsilon * size(sigma)
            for _ in range(config.chain_steps):
                variance = (1 - drift * alpha / (s2 + sigma**2)) ** 2 * variance + noise(alpha)
        last = config.sigma_min**2
        return math.sqrt(variance) * (s2 / (s2 + last) if denoise else 1.0)

    suspects = (
        (spread(denoise=False), "the last step, to the clean sample, is left out"),
        (spread(start=1.0), "chains start from N(0, 1), where it must be N(0, σ_1²)"),
        (spread(start=0.0), "chains start at 0, where it must be N(0, σ_1²)"),
        (spread(noise=lambda alpha: 0.0), "no noise is added between the steps"),
        (spread(noise=lambda alpha: alpha**2), "the noise is α, where it must be √α"),
        (spread(noise=lambda alpha: 2 * alpha), "the noise is √(2α) for a step of α/2: temperature 2"),
        (spread(drift=1.0), "the score is multiplied by α for a noise of √α, where it must be α/2: temperature ½"),
        (spread(sigmas[::-1]), "the levels go from the narrowest to the widest"),
        (spread(size=lambda sigma: config.sigma_min**2), "the step is the same at all levels, where it grows as σ²"),
        (spread(size=lambda sigma: sigma * config.sigma_min), "the step grows as σ, where it must as σ²"),
    )
    draws = 1 + config.noises * config.chain_steps
    samples = array(cls(network, (1,), config).sample(draws + 2, Impulses()))
    found = math.sqrt(float((samples**2).sum()))
    return [Finding("standard deviation of annealed samples", found, spread(), 1e-6, suspects)]


def ncsn_weights(cls: Any, n: int = 2000) -> list[Finding]:
    """Data with 0.8 of their mass at one place and 0.2 at another: annealed samples keep that   (Song & Ermon 2019, fig. 3).

    The chains take finite steps, which leaves .77 to .80 at the first: the interval is that, and 4 standard errors.
    """
    modes, sigmas = TwoModes(), np.geomspace(10, 0.1, 10)

    def network(x: Any, u: np.ndarray, y: Any = None) -> Tensor:
        sigma = float(sigmas[round(float(u[0]) * (len(sigmas) - 1))])
        return Tensor(sigma * modes.score(array(x) * math.sqrt(1 + sigma**2), sigma))

    config = NCSN2dConfig(sigma_max=10.0, sigma_min=0.1, noises=10, chain_steps=100, epsilon=1.0)
    x = np.asarray(array(cls(network, (2,), config).sample(n, Generator(1))), np.float64)
    error = 0.015 + 4 * math.sqrt(0.8 * 0.2 / n)
    suspects = (
        (0.5, "chains do not cross between the modes: plain Langevin dynamics, or levels that are too narrow"),
        (1 - 0.785, "the weights are exchanged: a wrong sign of the score, or of its input"),
    )
    near = float((np.abs(np.abs(x).mean(axis=1) - modes.centre) < 4).mean())
    return [
        Finding("share of samples at the mode of weight 0.8", modes.share(x), 0.785, error, suspects),
        Finding("share of samples near a mode", near, 1, 0.01),
    ]


# ---- restricted Boltzmann machines


def rbm_gibbs(cls: Any, d: int = 6, k: int = 5, n: int = 20_000) -> list[Finding]:
    """From one state a Gibbs step goes to each other as often as Σ_h p(h|v) p(v'|h) says, and two steps as its square; and
    after many steps pixels, and pairs of pixels, are on as often as p says."""
    rng = np.random.default_rng(0)
    config = RBMConfig(hidden=k, chains=8, batch_size=8, sampling_steps=30)
    model = cls((2, 3, 1), config, Generator(0)).astype(np.float64)
    for p in model.parameters():
        p.data[...] = rng.normal(size=p.shape)
    truth = EnumeratedRBM(model.weight.data, model.visible_bias.data, model.hidden_bias.data)
    joint = np.exp(truth.log_joint() - truth.log_z())  # (2^D, 2^K)
    step = (joint / joint.sum(axis=1, keepdims=True)) @ (joint / joint.sum(axis=0)).T  # (2^D, 2^D), rows add up to 1
    start, findings = np.repeat(truth.visible[13:14], n, axis=0), []
    for steps in (1, 2):
        moved = np.rint(array(model.gibbs(start, steps, Generator(steps)))).astype(int)
        counts = np.bincount(moved @ 2 ** np.arange(d)[::-1], minlength=2**d)
        away = pearson(counts, n * np.linalg.matrix_power(step, steps)[13])
        findings.append(Finding(f"(χ² - df)/√(2 df) of states after {steps} Gibbs steps from one", away, 0, 4))
    drawn = np.asarray(array(model.sample(n, Generator(3))), np.float64).reshape(n, d)
    first, second = np.triu_indices(d)
    of = lambda v: np.where(first == second, v[:, first], v[:, first] * v[:, second])  # (N, D (D + 1)/2)
    error = of(drawn).std(axis=0) / math.sqrt(n)
    away = np.abs(of(drawn).mean(axis=0) - joint.sum(axis=1) @ of(truth.visible)) / error
    findings.append(Finding("largest error of E[v_i] and E[v_i v_j] of samples, in standard errors", float(away.max()), 0, 4))
    return findings


# ---- the rows of the table


TRUTHS = (
    Truth(
        "density-sampler",
        "points fall into the cells of a grid as often as the density says",
        "Pearson's χ² over cells of equal mass",
        ("log_prob", "sample", "example"),
        density_sampler,
        mistakes="samples of another density: another base, scale or order of the coordinates, or chains that are too short",
        without=("denoise",),
    ),
    Truth(
        "energy-sampler",
        "samples by Langevin steps on a quadratic energy have a variance that follows a linear recursion",
        "Roberts & Tweedie 1996; Saremi & Hyvärinen 2019, arXiv 1903.02334, eq. 8, for the jump to clean images",
        ("energy", "walk", "sample"),
        energy_sampler,
        made_of=("network", "data_shape", "config"),
        mistakes="the start, the number of steps, the noise, or the jump to the clean image",
    ),
    Truth(
        "ncsn-sampler",
        "annealed samples of Gaussian data have a standard deviation that follows a linear recursion",
        "Song & Ermon 2019, arXiv 1907.05600, algorithm 1",
        ("loss", "score", "sample"),
        ncsn_sampler,
        made_of=("network", "data_shape", "config"),
        mistakes="the start, the step α_i = ε σ_i² of a level, its noise √α_i, or the order of the levels",
        without=("energy", "denoise"),
    ),
    Truth(
        "ncsn-weights",
        "annealed samples of two far modes keep the weights of the modes, which plain Langevin dynamics loses",
        "Song & Ermon 2019, arXiv 1907.05600, section 3.2.2 and figure 3",
        ("loss", "score", "sample"),
        ncsn_weights,
        made_of=("network", "data_shape", "config"),
        mistakes="a widest level that is too narrow, or steps that do not grow with the level",
        without=("energy", "denoise"),
    ),
    Truth(
        "rbm-gibbs",
        "a Gibbs step goes from a state to others as often as p(h|v) and p(v|h) say, and samples have the model's moments",
        "Hinton 2012, A practical guide to training restricted Boltzmann machines, eqs. 7-8",
        ("gibbs", "energy", "log_partition", "sample"),
        rbm_gibbs,
        made_of=("data_shape", "config"),
        mistakes="hidden units that are not drawn but passed on as probabilities, a bias that is left out, or W for Wᵀ",
    ),
)
