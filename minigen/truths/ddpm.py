"""Truths of diffusion models, checked on Gaussian data, and on a few points, for which the best denoiser is known.

Start at `ddpm_gaussian`. Each check takes a class made like `minigen.models.DDPM`:

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
from .diffusion import FinitePoints, GaussianData
from .truth import Finding

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
        expected = float((weight * _error(truth, a2, 1 - a2)).mean())
        what = f"loss of the best network, {schedule} schedule, it says {prediction}"
        suspects = _loss_suspects(truth) if prediction == "eps" else ()
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
            sigma2 = truth.best_variance() if kind == "best" else _reverse_variance(truth.alpha_bar, kind)
            found = -float(np.mean(_array(model.log_prob_bound(_signs(1), steps + 1, Signs()))))
            expected = truth.least_bound() + float(truth.gaps(sigma2).sum())
            what = f"variational bound, {steps} steps, {schedule} schedule, {kind} variance, it says {prediction}, nats"
            findings.append(Finding(what, found, expected, 1e-8, _bound_suspects(truth, sigma2, expected)))
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
            found = math.sqrt(float((_array(model.sample(len(path.alpha_bar), Impulses())) ** 2).sum()))
            right = path.ddim_std() if sampler == "ddim" else path.ancestral_std(_reverse_variance(path.alpha_bar, kind))
            what = f"standard deviation of {sampler} samples, {kind + ' variance, ' if kind else ''}{schedule} schedule, "
            what += f"{steps or 'all'} of {timesteps} steps"
            findings.append(Finding(what, found, right, 1e-12, _sampler_suspects(path, sampler, kind)))
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
            found = _array(cls(network, shape[1:], config).log_prob(x, Generator(0), steps=steps))
            excess, error = found - right, 1e-6 * (2000 / steps) ** 2 * shape[1]  # a midpoint rule's falls as steps⁻²
            suspects = (
                (-trace, "the trace is left out"),
                (-2 * trace, "the trace has the wrong sign"),
                (-trace * (shape[1] - 1) / shape[1], "the trace counts one dimension only"),
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
            x = _array(x)
            x0, eps = data.x0(x, a2), data.eps(x, a2)
            return Tensor({"eps": eps, "x0": x0, "v": math.sqrt(a2) * eps - math.sqrt(1 - a2) * x0}[prediction])

        samples = _array(cls(network, (2,), config).sample(200, Generator(0)))
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
    gap = np.abs(_array(ancestral.sample(21, Impulses())) - _array(ddim.sample(21, Impulses()))).max()
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
                error = float(np.abs(_array(value) - right).max())
                what = f"largest error of {name}, {schedule} schedule, t = {t}, it says {prediction}"
                findings.append(Finding(what, error, 0, 1e-6))
    return findings


# ---- stand-ins for the generator


class Signs:
    """A generator whose normal draws are ±1, and whose times are all times: the same for each of the 4 signs of (x_0, ε)."""

    def normal(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, dtype: Any = None) -> np.ndarray:
        return mean + std * np.resize([1.0, 1.0, -1.0, -1.0], shape[0]).reshape(-1, 1)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        return low + (np.arange(shape[0]) // 4) % (high - low)

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: Any = None) -> np.ndarray:
        return np.full(shape, low)


class Impulses:
    """A generator whose draw number i is 1 for sample i and 0 for all others."""

    def __init__(self) -> None:
        self.calls = 0

    def normal(self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, dtype: Any = None) -> np.ndarray:
        self.calls += 1
        unit = (np.arange(shape[0]) == self.calls - 1).astype(np.float64)[:, None]
        return mean + std * unit


# ---- the best model, and what surrounds it


def _best(cls: Any, **options: Any) -> tuple[Any, GaussianData]:
    """A model of N(0, S2) with the best network, and the truth about it; the truth has a copy of ᾱ."""
    config = DDPM2dConfig(**options)
    truth = GaussianData(S2, np.array(Schedule.named(config.schedule, config.timesteps).alpha_bar))

    def network(x: Any, u: np.ndarray, y: Any = None) -> Tensor:
        t = np.rint(np.asarray(u) * config.timesteps).astype(int)
        alpha_bar = truth.alpha_bar[t][:, None]
        x = _array(x)
        eps = truth.eps(x, alpha_bar)
        x0 = np.sqrt(alpha_bar) * S2 * x / (alpha_bar * S2 + 1 - alpha_bar)
        return Tensor({"eps": eps, "x0": x0, "v": np.sqrt(alpha_bar) * eps - np.sqrt(1 - alpha_bar) * x0}[config.prediction])

    return cls(network, (1,), config), truth


def _signs(times: int) -> np.ndarray:
    """x_0 = ±s, each with ε = ±1, at each time.     -> (4 times, 1)"""
    return math.sqrt(S2) * np.resize([1.0, -1.0], 4 * times).reshape(-1, 1)


def _supported(cls: Any, option: str) -> tuple[Any, ...]:
    return tuple(getattr(cls, "supports", {}).get(option, OPTIONS[option]))


def _all(cls: Any, *options: str) -> Iterator[tuple[Any, ...]]:
    """All combinations of what the class supports."""
    return itertools.product(*(_supported(cls, option) for option in options))


def _subset(alpha_bar: np.ndarray, steps: int) -> GaussianData:
    kept = [0, *sorted(round(t) for t in np.linspace(1, len(alpha_bar) - 1, steps))]
    return GaussianData(S2, alpha_bar[kept])


def _reverse_variance(alpha_bar: np.ndarray, kind: str) -> np.ndarray:
    """σ_t² of the reverse steps: "large" β_t, "small" β̃_t, and at t = 1 always β_1.     (T+1,)"""
    before, now = alpha_bar[:-1], alpha_bar[1:]
    beta = 1 - now / before
    sigma2 = beta * ((1 - before) / (1 - now) if kind == "small" else 1.0)
    sigma2[0] = beta[0]
    return np.concatenate([[0.0], sigma2])


def _log_normal(x: np.ndarray, variance: float) -> np.ndarray:
    return (-0.5 * (x**2 / variance + math.log(2 * math.pi * variance))).sum(axis=1)


def _array(x: Any) -> np.ndarray:
    return x.data if isinstance(x, Tensor) else np.asarray(x)


def _number(loss: Any) -> float:
    """A loss as a number, be it a `Loss`, a Tensor or a number."""
    return float(np.asarray(_array(getattr(loss, "total", loss))).item())


# ---- what known mistakes would give


def _error(truth: GaussianData, signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """E (ε* - ε)² at each t where x_t has been made with these squares of the two coefficients, and the network knows ᾱ."""
    a2 = truth.alpha_bar[1:]
    slope = np.sqrt(1 - a2) / (a2 * S2 + 1 - a2)  # ε* = slope x
    return slope**2 * (signal * S2 + noise) - 2 * slope * np.sqrt(noise) + 1


def _loss_suspects(truth: GaussianData) -> tuple[tuple[float, str], ...]:
    """Where fewer than T times are drawn, `Signs` begins again at the first of them."""
    a2, before = truth.alpha_bar[1:], truth.alpha_bar[:-1]
    right = _error(truth, a2, 1 - a2)
    a, b, v = np.sqrt(a2), np.sqrt(1 - a2), a2 * S2 + 1 - a2
    return tuple(
        (float(np.mean(wrong)), mistake)
        for wrong, mistake in (
            (np.append(right[:-1], right[0]), "t is drawn from 1..T-1: step T, where the sampler starts, is never trained"),
            (np.append(right[:-1], 1.0), "t is drawn from 0..T-1, where the steps are 1..T"),
            (_error(truth, before, 1 - before), "x_t is noised with ᾱ of the step before: the schedule is off by one"),
            (_error(truth, a2, (1 - a2) ** 2), "the noise is scaled by 1 - ᾱ, which is its variance, where √(1 - ᾱ) is meant"),
            (_error(truth, a2**2, 1 - a2), "the data are scaled by ᾱ where √ᾱ is meant"),
            (_error(truth, a2 / before, 1 - a2 / before), "x_t is noised with α_t = 1 - β_t, one step's, where ᾱ_t is meant"),
            (b**2 / v - 2 * a * b * S2 / v + S2, "the network says ε, and is compared with x_0"),
            (b**2 / v * 3 + 1, "the target is -ε: a wrong sign"),
            (2 * right, "the loss counts everything twice"),
            (right / 2, "the loss has a factor ½"),
        )
    )


def _bound_suspects(truth: GaussianData, sigma2: np.ndarray, right: float) -> tuple[tuple[float, str], ...]:
    v = truth.alpha_bar * S2 + 1 - truth.alpha_bar
    left = truth.alpha_bar[-1]
    prior = 0.5 * (left * S2 - left - math.log1p(-left))  # E L_T
    last = 0.5 * (math.log(2 * math.pi * sigma2[1]) + S2 * (1 - truth.alpha_bar[1]) / v[1] / sigma2[1])  # E L_0
    middle = right - prior - last
    return (
        (right - prior, "L_T, the KL of the last step from the prior, is left out"),
        (right - last, "L_0, the likelihood of the last step back, is left out"),
        (right - middle, "the terms L_1 ... L_{T-1} are left out"),
        (prior + last + middle / max(1, len(sigma2) - 2), "the terms over t are averaged where they should be summed"),
        (right - 0.5 * math.log(2 * math.pi), "½ log 2π is missing from L_0"),
        (-right, "the sign: this is minus the bound"),
    )


def _sampler_suspects(path: GaussianData, sampler: str, kind: str) -> tuple[tuple[float, str], ...]:
    small, large = (_reverse_variance(path.alpha_bar, name) for name in ("small", "large"))
    found = [
        (path.ancestral_std(small), "this is ancestral sampling with the small variance, β̃_t"),
        (path.ancestral_std(large), "this is ancestral sampling with the large variance, β_t"),
        (path.ancestral_std(0 * small), "no noise is added between the steps"),
        (path.ddim_std(), "this is deterministic DDIM sampling"),
    ]
    if sampler == "ancestral":
        own = small if kind == "small" else large
        found = [entry for entry in found if abs(entry[0] - path.ancestral_std(own)) > 1e-9]
        found += [
            (math.sqrt(path.ancestral_std(own) ** 2 + own[1]), "noise is added at the last step too"),
            (GaussianData(S2, path.alpha_bar[:-1]).ancestral_std(own[:-1]), "it starts at step T - 1 instead of T"),
            (path.ancestral_std(own**2), "the noise is scaled by the variance σ², where σ is meant"),
        ]
    return tuple(found)
