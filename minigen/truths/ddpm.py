"""Truths of diffusion models, checked on Gaussian data, and on a few points, for which the best denoiser is known.

Start at `ddpm_gaussian`; the rows of the table are at the end. Each check takes a class made like `minigen.models.DDPM`:

    cls(network, data_shape, config)     network(x_t, u, y): (N, *data_shape), u = t/T (N,), None -> as config.prediction says
    loss(x, rng), sample(n, rng), log_prob_bound(x, k, rng), log_prob(x, rng, steps) and denoise(x, t) -> (x_0, ε)

and makes it with several configurations. A class that knows fewer of them says so: `supports = {"prediction": ("eps",)}`; what
may be restricted is in `OPTIONS`. The closed forms, which use nothing of the model, are in diffusion.py.

For Gaussian data every loss is a quadratic and every sampler linear in the noise. So noise need not be drawn: two points ±1
have the moments that a quadratic sees, and an impulse shows what a sampler makes of each draw.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..models.ddpm import DDPM2dConfig
from ..models.noise import Schedule
from ..random import Generator
from .diffusion import (
    FinitePoints,
    GaussianData,
    bound_suspects,
    error_of_noise,
    loss_suspects,
    ode_mistakes,
    reverse_variance,
    sampler_suspects,
)
from .truth import Finding, Impulses, Truth, array, supported

S2 = 0.25  # variance of the data
POINTS = np.array([[1.0, 0.2], [-0.7, 0.9], [0.1, -1.1]])
OPTIONS = {
    "prediction": ("eps", "x0", "v"),
    "schedule": ("linear", "cosine"),
    "sampler": ("ancestral", "ddim"),
    "variance": ("small", "large"),
    "sampling_steps": (0, 10),  # 0: all
}
STEPS = {"linear": 1000, "cosine": 100}  # with 1000, the linear schedule is that of the paper: β from 1e-4 to 0.02


# ---- the truths


def ddpm_gaussian(cls: Any) -> list[Finding]:
    """The loss of the best network is the least loss.   With errors of ε as e, those of x_0 are e b²/a², those of v e/a²."""
    findings = []
    for schedule, prediction in _all(cls, "schedule", "prediction"):
        steps = STEPS[schedule]
        model, truth = _best(cls, schedule=schedule, timesteps=steps, prediction=prediction)
        found = _number(model.loss(_signs(steps), Signs()))
        a2 = truth.alpha_bar[1:]
        weight = {"eps": 1.0, "x0": (1 - a2) / a2, "v": 1 / a2}[prediction]
        expected = float((weight * error_of_noise(truth, a2, 1 - a2)).mean())
        what = f"loss of the best network, {schedule} schedule, it says {prediction}"
        suspects = loss_suspects(truth) if prediction == "eps" else ()
        findings.append(Finding(what, found, expected, 1e-9 * expected, suspects))
    return findings


def ddpm_vlb(cls: Any) -> list[Finding]:
    """The bound is the least one with the best variances, and costs the known gap with the fixed ones."""
    findings = []
    for schedule, prediction in _all(cls, "schedule", "prediction"):
        steps = STEPS[schedule] if schedule == "linear" else 10
        for kind in (*_supported(cls, "variance"), "best"):
            options = {"variance": kind} if kind != "best" else {}
            model, truth = _best(cls, schedule=schedule, timesteps=steps, prediction=prediction, **options)
            if kind == "best":
                if not hasattr(model, "sigma2"):
                    continue
                model.sigma2 = truth.best_variance()
            sigma2 = truth.best_variance() if kind == "best" else reverse_variance(truth.alpha_bar, kind)
            found = -float(np.mean(array(model.log_prob_bound(_signs(1), steps + 1, Signs()))))
            expected = truth.least_bound() + float(truth.gaps(sigma2).sum())
            what = f"variational bound, {steps} steps, {schedule} schedule, {kind} variance, it says {prediction}, nats"
            findings.append(Finding(what, found, expected, 1e-8, bound_suspects(truth, sigma2, expected)))
    return findings


def sampler_std(cls: Any) -> list[Finding]:
    """The standard deviation of samples is that of a linear recursion, for all steps and for some of them."""
    findings = []
    for schedule, sampler, steps in _all(cls, "schedule", "sampler", "sampling_steps"):
        kinds = [*_supported(cls, "variance")] if sampler == "ancestral" else [""]
        for kind in kinds:
            options = {"variance": kind} if kind else {"eta": 0.0}
            timesteps = 100 if schedule == "cosine" or len(_supported(cls, "sampling_steps")) > 1 else 1000
            model, truth = _best(
                cls, schedule=schedule, timesteps=timesteps, sampler=sampler, sampling_steps=steps, prediction="eps", **options
            )
            path = _subset(truth.alpha_bar, steps or timesteps)
            found = math.sqrt(float((array(model.sample(len(path.alpha_bar), Impulses())) ** 2).sum()))
            right = path.ddim_std() if sampler == "ddim" else path.ancestral_std(reverse_variance(path.alpha_bar, kind))
            what = f"standard deviation of {sampler} samples, {kind + ' variance, ' if kind else ''}{schedule} schedule, "
            what += f"{steps or 'all'} of {timesteps} steps"
            findings.append(Finding(what, found, right, 1e-12, sampler_suspects(path, sampler, kind)))
    return findings


def pf_ode(cls: Any) -> list[Finding]:
    """The likelihood along the probability-flow ODE is that of the Gaussian, but for the prior, which is not quite p_T."""
    findings = []
    for (prediction,) in _all(cls, "prediction"):
        schedule = Schedule.linear(1000)
        truth = GaussianData(S2, schedule.alpha_bar)

        def network(x: Any, u: np.ndarray, y: Any = None, schedule: Any = schedule, prediction: str = prediction) -> Any:
            alpha_bar, _ = schedule.between(float(u[0]) * schedule.T)
            a, b, v = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar), alpha_bar * S2 + 1 - alpha_bar
            return {"eps": b / v, "x0": a * S2 / v, "v": a * b * (1 - S2) / v}[prediction] * x

        config = DDPM2dConfig(schedule="linear", timesteps=1000, prediction=prediction)
        for shape, steps in (((7, 2), 600), ((3, 10), 200)):  # the exact trace; the estimate, exact for a diagonal Jacobian
            x = 0.7 * np.random.default_rng(0).normal(size=shape)
            v = truth.alpha_bar * S2 + 1 - truth.alpha_bar
            at_end = x * math.sqrt(v[-1] / v[1])
            trace = 0.5 * shape[1] * math.log(v[-1] / v[1])  # ∫ ∇·f dt, the same for every x
            right = _log_normal(at_end, 1.0) + trace
            found = array(cls(network, shape[1:], config).log_prob(x, Generator(0), steps=steps))
            excess, error = found - right, 1e-6 * (2000 / steps) ** 2 * shape[1]  # a midpoint rule's falls as steps⁻²
            suspects = (
                (-trace, "the trace is left out"),
                (-2 * trace, "the trace has the wrong sign"),
                (-trace * (shape[1] - 1) / shape[1], "the trace counts one dimension only"),
                *(
                    (float((_log_normal(times * x, 1.0) + shape[1] * rate - right).mean()), mistake)
                    for times, rate, mistake in ode_mistakes(truth, schedule.between, steps)
                ),
            )
            size = f"{steps} steps, {shape[1]} dimensions, it says {prediction}, nats"
            findings.append(Finding(f"mean of log p minus the exact value, {size}", float(excess.mean()), 0, error, suspects))
            findings.append(Finding(f"largest error of log p, {size}", float(np.abs(excess).max()), 0, 2 * error))
    return findings


def memorise(cls: Any) -> list[Finding]:
    """With a few points for data, each DDIM sample is one of them, and each of them is sampled."""
    if "ddim" not in _supported(cls, "sampler"):
        return []
    findings = []
    alpha_bar, data = Schedule.cosine(1000).alpha_bar, FinitePoints(POINTS)
    for (prediction,) in _all(cls, "prediction"):
        config = DDPM2dConfig(
            timesteps=1000, schedule="cosine", sampler="ddim", sampling_steps=50, prediction=prediction, variance="small"
        )

        def network(x: Any, u: np.ndarray, y: Any = None, prediction: str = prediction) -> Any:
            a2 = alpha_bar[round(float(u[0]) * 1000)]
            x = array(x)
            x0, eps = data.x0(x, a2), data.eps(x, a2)
            return Tensor({"eps": eps, "x0": x0, "v": math.sqrt(a2) * eps - math.sqrt(1 - a2) * x0}[prediction])

        samples = array(cls(network, (2,), config).sample(200, Generator(0)))
        distance = np.sqrt(((samples[:, None] - POINTS) ** 2).sum(axis=2))  # (200, 3)
        least = np.bincount(distance.argmin(axis=1), minlength=3).min()
        far = float(distance.min(axis=1).max())
        findings.append(Finding(f"farthest DDIM sample from the training points, it says {prediction}", far, 0, 1e-4))
        findings.append(Finding(f"points with fewer than 30 of 200 samples, it says {prediction}", float(least < 30), 0, 0))
    return findings


def ddim_eta1(cls: Any) -> list[Finding]:
    """DDIM with η = 1 is ancestral sampling with the small variance, draw by draw: the same response to every impulse."""
    if set(_supported(cls, "sampler")) != {"ancestral", "ddim"} or "small" not in _supported(cls, "variance"):
        return []
    common = {"schedule": "cosine", "timesteps": 20, "variance": "small", "prediction": "eps", "sampling_steps": 0}
    ancestral, _ = _best(cls, sampler="ancestral", **common)
    ddim, _ = _best(cls, sampler="ddim", eta=1.0, **common)
    gap = np.abs(array(ancestral.sample(21, Impulses())) - array(ddim.sample(21, Impulses()))).max()
    return [Finding("largest difference between DDIM with eta = 1 and ancestral samples", float(gap), 0, 1e-9)]


def param_round_trip(cls: Any) -> list[Finding]:
    """A network that says ε, x_0 or v of a known x_t = a x_0 + b ε: the model must read x_0 and ε off it."""
    rng, findings = np.random.default_rng(0), []
    x0, eps = rng.normal(size=(2, 5, 3))
    for schedule, prediction in _all(cls, "schedule", "prediction"):
        alpha_bar = Schedule.named(schedule, STEPS[schedule]).alpha_bar
        for t in (1, STEPS[schedule] // 2):
            a, b = math.sqrt(alpha_bar[t]), math.sqrt(1 - alpha_bar[t])
            says = {"eps": eps, "x0": x0, "v": a * eps - b * x0}[prediction]
            config = DDPM2dConfig(schedule=schedule, timesteps=STEPS[schedule], prediction=prediction)
            model = cls(lambda x, u, y=None, says=says: Tensor(says), (3,), config)
            found = model.denoise(a * x0 + b * eps, t)
            for name, value, right in zip(("x_0", "ε"), found, (x0, eps), strict=True):
                error = float(np.abs(array(value) - right).max())
                what = f"largest error of {name}, {schedule} schedule, t = {t}, it says {prediction}"
                findings.append(Finding(what, error, 0, 1e-6))
    return findings


# ---- a stand-in for the generator


class Signs:
    """A generator whose normal draws are ±1, and whose times are all times: the same for each of the 4 signs of (x_0, ε)."""

    def normal(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, dtype: Any = None) -> np.ndarray:
        """mean ± std: +, +, -, - and so on down the first axis, the same in all others."""
        return mean + std * np.resize([1.0, 1.0, -1.0, -1.0], shape[0]).reshape(-1, 1)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        """Each number from low to high - 1 four times in a row, and then again from the start: (N,)."""
        return low + (np.arange(shape[0]) // 4) % (high - low)

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: Any = None) -> np.ndarray:
        """The lower end, everywhere."""
        return np.full(shape, low)


# ---- the best model, and what surrounds it


def _best(cls: Any, **options: Any) -> tuple[Any, GaussianData]:
    """A model of N(0, S2) with the best network, and the truth about it; the truth has a copy of ᾱ."""
    config = DDPM2dConfig(**options)
    truth = GaussianData(S2, np.array(Schedule.named(config.schedule, config.timesteps).alpha_bar))

    def network(x: Any, u: np.ndarray, y: Any = None) -> Tensor:
        t = np.rint(np.asarray(u) * config.timesteps).astype(int)
        alpha_bar = truth.alpha_bar[t][:, None]
        x = array(x)
        eps = truth.eps(x, alpha_bar)
        x0 = np.sqrt(alpha_bar) * S2 * x / (alpha_bar * S2 + 1 - alpha_bar)
        return Tensor({"eps": eps, "x0": x0, "v": np.sqrt(alpha_bar) * eps - np.sqrt(1 - alpha_bar) * x0}[config.prediction])

    return cls(network, (1,), config), truth


def _signs(times: int) -> np.ndarray:
    """x_0 = ±s, each with ε = ±1, at each time.     -> (4 times, 1)"""
    return math.sqrt(S2) * np.resize([1.0, -1.0], 4 * times).reshape(-1, 1)


def _supported(cls: Any, option: str) -> tuple[Any, ...]:
    return supported(cls, option, OPTIONS[option])


def _all(cls: Any, *options: str) -> Iterator[tuple[Any, ...]]:
    """All combinations of what the class supports."""
    return itertools.product(*(_supported(cls, option) for option in options))


def _subset(alpha_bar: np.ndarray, steps: int) -> GaussianData:
    kept = [0, *sorted(round(t) for t in np.linspace(1, len(alpha_bar) - 1, steps))]
    return GaussianData(S2, alpha_bar[kept])


def _log_normal(x: np.ndarray, variance: float) -> np.ndarray:
    return (-0.5 * (x**2 / variance + math.log(2 * math.pi * variance))).sum(axis=1)


def _number(loss: Any) -> float:
    """A loss as a number, be it a `Loss`, a Tensor or a number."""
    return float(np.asarray(array(getattr(loss, "total", loss))).item())


# ---- the rows of the table


DDPM = ("network", "data_shape", "config")  # how the constructor of a class begins

TRUTHS = (
    Truth(
        "ddpm-gaussian",
        "on Gaussian data the best network has the loss mean_t of the variance that is left",
        "Ho et al. 2020, arXiv 2006.11239, eq. 14, for Gaussian data",
        ("loss", "denoise"),
        ddpm_gaussian,
        made_of=DDPM,
        mistakes="what the network is compared with, the schedule, or which t are drawn",
    ),
    Truth(
        "ddpm-vlb",
        "with the best mean the variational bound is the entropy, plus what the prior and the variances cost",
        "Ho et al. 2020, arXiv 2006.11239, eqs. 5-8",
        ("log_prob_bound", "denoise"),
        ddpm_vlb,
        made_of=DDPM,
        mistakes="a term of the bound (L_T, L_t or L_0), a mean for a sum over t, or the KL the other way round",
    ),
    Truth(
        "sampler-std",
        "on Gaussian data the standard deviation of samples follows a linear recursion",
        "Ho et al. 2020, arXiv 2006.11239, alg. 2; Song et al. 2021, arXiv 2010.02502, eq. 12",
        ("sample", "denoise"),
        sampler_std,
        made_of=DDPM,
        mistakes="the posterior mean, the first or last step, the time that the network is told, or the steps of a subset",
    ),
    Truth(
        "pf-ode",
        "the likelihood along the probability-flow ODE is the exact one",
        "Song et al. 2021, arXiv 2011.13456, eqs. 13, 39",
        ("log_prob", "denoise"),
        pf_ode,
        made_of=DDPM,
        mistakes="g in place of g², the factor ½, ε for the score, or the sign of the trace",
    ),
    Truth(
        "memorise",
        "with a few points for data, DDIM samples are these points",
        "De Bortoli 2022, arXiv 2208.05314; the best denoiser is a softmax mean of the points",
        ("sample", "denoise"),
        memorise,
        made_of=DDPM,
        mistakes="the DDIM step: ᾱ of this step for that of the one before, or a noise term that is not there",
    ),
    Truth(
        "ddim-eta1",
        "DDIM with eta = 1 is ancestral sampling with the small variance",
        "Song et al. 2021, arXiv 2010.02502, sec. 4.1",
        ("sample", "denoise"),
        ddim_eta1,
        made_of=DDPM,
        mistakes="σ² = η² β̃_t, which the coefficient of ε must make room for: √(1 - ᾱ_{t-1} - σ²)",
    ),
    Truth(
        "param-round-trip",
        "ε, x_0 and v say the same of x_t",
        "Salimans & Ho 2022, arXiv 2202.00512, sec. 4",
        ("denoise",),
        param_round_trip,
        made_of=DDPM,
        mistakes="v = √ᾱ ε - √(1 - ᾱ) x_0: a sign, or its two parts exchanged",
    ),
)
