"""Truths of diffusion, all exact: ddpm-gaussian, ddpm-vlb, sampler-std, pf-ode, memorise, ddim-eta1, param-round-trip.

For Gaussian data every loss is a quadratic and every sampler linear in the noise. So noise need not be drawn: two points ±1
have the moments that a quadratic sees, and an impulse shows what a sampler makes of each draw. `Signs` and `Impulses` stand in
for the generator. Each check is then run on mistakes, put into our own code, all of which it has to catch.
"""

import inspect
import math
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigen import Tensor
from minigen.models import ddpm, probability_flow
from minigen.models.ddpm import DDPM, DDPM2dConfig, log_discretised_normal
from minigen.models.noise import PREDICTIONS, Schedule, target, x0_and_eps
from minigen.random import Generator
from minigen.truths import FinitePoints, GaussianData

S2 = 0.25
POINTS = np.array([[1.0, 0.2], [-0.7, 0.9], [0.1, -1.1]])


class Signs:
    """A generator whose normal draws are ±1, and whose times are all times: the same for each of the 4 signs of (x_0, ε)."""

    def normal(self, shape, dtype=None):
        return np.resize([1.0, 1.0, -1.0, -1.0], shape[0]).reshape(-1, 1)

    def integers(self, low, high, shape):
        return low + (np.arange(shape[0]) // 4) % (high - low)

    def uniform(self, shape, dtype=None):
        return np.zeros(shape)


class Impulses:
    """A generator whose draw number i is 1 for sample i and 0 for all others."""

    def __init__(self):
        self.calls = 0

    def normal(self, shape, dtype=None):
        self.calls += 1
        return np.eye(shape[0])[:, [self.calls - 1]]


def gaussian(**options):
    """A model of N(0, S2) with the best network, and the truth about it; the truth has a copy of ᾱ."""
    config = DDPM2dConfig(**{"prediction": "eps", **options})
    truth = GaussianData(S2, np.array(Schedule.named(config.schedule, config.timesteps).alpha_bar))

    def network(x, u, y):
        t = np.rint(u * config.timesteps).astype(int)
        alpha_bar = truth.alpha_bar[t][:, None]
        x = x.data if isinstance(x, Tensor) else x
        eps = truth.eps(x, alpha_bar)
        x0 = np.sqrt(alpha_bar) * S2 * x / (alpha_bar * S2 + 1 - alpha_bar)
        return Tensor({"eps": eps, "x0": x0, "v": np.sqrt(alpha_bar) * eps - np.sqrt(1 - alpha_bar) * x0}[config.prediction])

    return DDPM(network, (1,), config), truth


def signs(times):
    """x_0 = ±s, each with ε = ±1, at each time.     -> (4 times, 1)"""
    return math.sqrt(S2) * np.resize([1.0, -1.0], 4 * times).reshape(-1, 1)


def close(a, b, rtol=1e-9):
    assert math.isclose(a, b, rel_tol=rtol), (a, b)


# ---- the checks


def check_loss():
    """The loss of the best network is the least loss.   With errors of ε as e: those of x_0 are e b²/a², those of v e/a²."""
    for schedule in ("linear", "cosine"):
        for prediction in PREDICTIONS:
            model, truth = gaussian(schedule=schedule, timesteps=50, prediction=prediction)
            a2 = truth.alpha_bar[1:]
            per_time = a2 * S2 / (a2 * S2 + 1 - a2)
            weight = {"eps": 1.0, "x0": (1 - a2) / a2, "v": 1 / a2}[prediction]
            close(model.loss(signs(50), Signs()).total.item(), float((weight * per_time).mean()))


def check_bound():
    """The bound is the least one with the best variances, and costs the known gap with the fixed ones."""
    for timesteps in (2, 10, 100):
        for prediction in PREDICTIONS:
            model, truth = gaussian(schedule="cosine", timesteps=timesteps, prediction=prediction)
            for sigma2 in (truth.best_variance(), model.schedule.variance("small"), model.schedule.variance("large")):
                model.sigma2 = sigma2
                bound = -model.log_prob_bound(signs(1), timesteps + 1, Signs()).mean()
                close(bound, truth.least_bound() + truth.gaps(sigma2).sum())


def check_samplers():
    """The standard deviation of samples is that of the recursion, for all steps and for some of them."""
    for schedule, steps in (("linear", 100), ("linear", 10), ("cosine", 7)):
        for variance in ("small", "large"):
            model, _ = gaussian(
                schedule=schedule, timesteps=100, sampler="ancestral", variance=variance, sampling_steps=steps
            )
            path = subset(model.schedule.alpha_bar, steps)
            close(spread(model), path.ancestral_std(np.array(reverse_variance(path.alpha_bar, variance))))
        model, _ = gaussian(schedule=schedule, timesteps=100, sampler="ddim", sampling_steps=steps)
        close(spread(model), path.ddim_std())
        model, _ = gaussian(schedule=schedule, timesteps=100, sampler="ddim", eta=1.0, sampling_steps=steps)
        close(spread(model), path.ancestral_std(np.array(reverse_variance(path.alpha_bar, "small"))))


def spread(model):
    return math.sqrt((model.sample(model.path.T + 1, Impulses()) ** 2).sum())


def subset(alpha_bar, steps):
    kept = [0, *sorted(round(t) for t in np.linspace(1, len(alpha_bar) - 1, steps))]
    return GaussianData(S2, alpha_bar[kept])


def reverse_variance(alpha_bar, kind):
    pairs = list(zip(alpha_bar[1:], alpha_bar[:-1], strict=True))
    return [0.0] + [(1 - now / before) * ((1 - before) / (1 - now) if kind == "small" else 1) for now, before in pairs]


def check_flow():
    """The likelihood along the probability-flow ODE is that of the Gaussian, but for the prior, which is not quite p_T."""
    for prediction in PREDICTIONS:
        schedule = Schedule.linear(1000)
        truth = GaussianData(S2, schedule.alpha_bar)

        def network(x, u, y, schedule=schedule, prediction=prediction):
            alpha_bar, _ = schedule.between(float(u[0]) * schedule.T)
            a, b, v = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar), alpha_bar * S2 + 1 - alpha_bar
            return {"eps": b / v * x, "x0": a * S2 / v * x, "v": a * b * (1 - S2) / v * x}[prediction]

        config = DDPM2dConfig(schedule="linear", timesteps=1000, prediction=prediction)
        for shape in ((7, 2), (3, 10)):  # the exact trace, and the estimate, which is exact for a diagonal Jacobian
            x = 0.7 * np.random.default_rng(0).normal(size=shape)
            v = truth.alpha_bar * S2 + 1 - truth.alpha_bar
            at_end = x * math.sqrt(v[-1] / v[1])
            exact = log_normal(x, v[1]) + log_normal(at_end, 1.0) - log_normal(at_end, v[-1])
            found = DDPM(network, shape[1:], config).log_prob(x, Generator(0), steps=2000)
            np.testing.assert_allclose(found, exact, atol=1e-6, rtol=1e-6)


def log_normal(x, variance):
    return (-0.5 * (x**2 / variance + math.log(2 * math.pi * variance))).sum(axis=1)


def check_memory():
    """With a few points for data, each DDIM sample is one of them, and each of them is sampled."""
    for prediction in PREDICTIONS:
        config = DDPM2dConfig(timesteps=1000, sampler="ddim", sampling_steps=50, prediction=prediction)
        alpha_bar, data = Schedule.cosine(1000).alpha_bar, FinitePoints(POINTS)

        def network(x, u, y, config=config, alpha_bar=alpha_bar, data=data):
            a2 = alpha_bar[round(float(u[0]) * 1000)]
            x0, eps = data.x0(x.data, a2), data.eps(x.data, a2)
            return Tensor({"eps": eps, "x0": x0, "v": math.sqrt(a2) * eps - math.sqrt(1 - a2) * x0}[config.prediction])

        samples = DDPM(network, (2,), config).sample(200, Generator(0))
        distance = np.sqrt(((samples[:, None] - POINTS) ** 2).sum(axis=2))  # (200, 3)
        assert distance.min(axis=1).max() < 1e-4, distance.min(axis=1).max()
        assert (np.bincount(distance.argmin(axis=1), minlength=3) > 30).all()


def check_eta1():
    """DDIM with η = 1 is the ancestral step with the small variance, draw by draw."""
    schedule, rng = Schedule.cosine(20), np.random.default_rng(0)
    t = rng.integers(1, 21, 50)
    x, x0, z = rng.normal(size=(3, 50, 2))
    a, b = schedule.signal_and_noise(t, x)
    ancestral = schedule.posterior_mean(x0, x, t) + np.sqrt(schedule.beta_tilde[t])[:, None] * z
    np.testing.assert_allclose(schedule.ddim_step(x0, (x - a * x0) / b, t, 1.0, z), ancestral, rtol=1e-9, atol=1e-12)


CHECKS = (check_loss, check_bound, check_samplers, check_flow, check_memory, check_eta1)


@pytest.mark.parametrize("check", CHECKS)
def test_truth(check):
    check()


# ---- the same, with mistakes


MISTAKES = {  # what it is: who catches it, where it is made, what is replaced, by what
    "times from 1 to T-1": (check_loss, DDPM, "loss", "self.schedule.T + 1", "self.schedule.T"),
    "times from 0 to T-1": (check_loss, DDPM, "loss", "rng.integers(1, self.schedule.T + 1", "rng.integers(0, self.schedule.T"),
    "noised to the step before": (check_loss, Schedule, "q_sample", "signal_and_noise(t,", "signal_and_noise(t - 1,"),
    "variance for a standard deviation": (
        check_loss, Schedule, "signal_and_noise",
        "np.sqrt(1 - alpha_bar)",
        "(1 - alpha_bar)",
    ),
    "v with the wrong sign": (check_loss, ddpm, "target", "a * eps - b * x0", "a * eps + b * x0"),
    "v and x_0 exchanged": (
        check_bound, ddpm, "x0_and_eps",
        "a * x - b * output, b * x + a * output",
        "b * x + a * output, a * x - b * output",
    ),
    "without L_T": (check_bound, DDPM, "log_prob_bound", "bound = -0.5", "bound = -0.0"),
    "L_T without its logarithm": (check_bound, DDPM, "log_prob_bound", " - math.log1p(-left)", ""),
    "without L_0": (check_bound, DDPM, "log_prob_bound", "bound += self", "bound += 0 * self"),
    "a mean for a sum over steps": (check_bound, DDPM, "log_prob_bound", "middle / k *", "1 / k *"),
    "L_1 left out": (check_bound, DDPM, "log_prob_bound", "2 + np.floor", "3 + np.floor"),
    "KL the other way round": (
        check_bound, DDPM, "_kl",
        "np.log(own / right) - 1 + right / own",
        "np.log(right / own) - 1 + own / right",
    ),
    "KL without the variances": (check_bound, DDPM, "_kl", "np.log(own / right) - 1 + right / own", "0"),
    "means compared in units of β̃": (check_bound, DDPM, "_kl", "miss / own", "miss / right"),
    "decoder without 2π": (check_bound, DDPM, "_log_decoder", " + LOG_2PI", ""),
    "the posterior's β misplaced": (
        check_bound, Schedule, "posterior_mean",
        "np.sqrt(before) * self.beta[t]",
        "np.sqrt(now) * self.beta[t]",
    ),
    "no noise": (check_samplers, DDPM, "sample", "shaped(sigma[i], x) * z", "0 * z"),
    "variance for a standard deviation, sampling": (
        check_samplers, DDPM, "sample",
        "np.sqrt(path.variance(config.variance))",
        "path.variance(config.variance)",
    ),
    "noise at the last step": (check_samplers, DDPM, "sample", "i > 1 and", ""),
    "starts at T-1": (check_samplers, DDPM, "sample", "range(path.T,", "range(path.T - 1,"),
    "ends at 1": (check_samplers, DDPM, "sample", "path.T, 0, -1", "path.T, 1, -1"),
    "told the wrong time": (check_samplers, DDPM, "sample", "path.times[i]", "path.times[i - 1]"),
    "variances of the whole process on a part of it": (
        check_samplers, DDPM, "sample",
        "np.sqrt(path.variance",
        "np.sqrt(self.schedule.variance",
    ),
    "leading spacing": (
        check_samplers, Schedule, "subset",
        "np.linspace(self.T, 1, count)",
        "np.arange(count, 0, -1) * (self.T // count)",
    ),
    "DDIM that forgets σ": (check_samplers, Schedule, "ddim_step", "1 - before - sigma2", "1 - before"),
    "DDIM's η twice": (check_eta1, Schedule, "ddim_step", "eta**2", "2 * eta**2"),
    "DDIM with ᾱ of this step": (check_memory, Schedule, "ddim_step", "self.alpha_bar[t - 1]", "self.alpha_bar[t]"),
    "β for β̃": (check_eta1, Schedule, "posterior_mean", "(1 - before) / (1 - now)", "(1 - now) / (1 - before + 1e-9)"),
    "g for g²": (
        check_flow, probability_flow, "log_prob",
        "alpha_bar, beta = schedule.between(t)",
        "alpha_bar, beta = schedule.between(t)[0], math.sqrt(schedule.between(t)[1])",
    ),
    "g² without the ½": (
        check_flow, probability_flow, "log_prob",
        "-0.5 * beta * (x - noise / b)",
        "-0.5 * beta * (x - 2 * noise / b)",
    ),
    "the wrong sign of the trace": (check_flow, probability_flow, "log_prob", "total += h", "total -= h"),
    "no trace": (check_flow, probability_flow, "log_prob", "total += h", "total += 0 * h"),
    "trace of one dimension": (check_flow, probability_flow, "_with_divergence", "divergence += row", "divergence = row"),
    "score for ε": (check_flow, probability_flow, "log_prob", "x - noise / b", "x - noise"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_caught(mistake, monkeypatch):
    check, owner, name, text, new = MISTAKES[mistake]
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert text in source, f"{name} has no {text!r}: mend the mistake"
    scope = dict(vars(inspect.getmodule(function)))
    exec(compile(source.replace(text, new), f"<{name} with a mistake>", "exec"), scope)
    monkeypatch.setattr(owner, name, scope[name])
    with pytest.raises(AssertionError):
        check()


# ---- numbers that were computed elsewhere


@pytest.mark.parametrize(("name", "steps", "loss"), [
    ("linear", 1000, 0.17305), ("linear", 100, 0.17080), ("cosine", 1000, 0.32765), ("cosine", 100, 0.32315),
])  # fmt: skip
def test_least_losses(name, steps, loss):
    assert abs(GaussianData(S2, Schedule.named(name, steps).alpha_bar).least_loss() - loss) < 6e-6


@pytest.mark.parametrize(("steps", "small", "large"), [(10, 0.567, 0.0553), (100, 0.735, 0.0061), (1000, 0.402, 0.0006)])
def test_gaps_of_the_fixed_variances(steps, small, large):
    """Of the steps before the last one, which has a variance of its own."""
    schedule = Schedule.cosine(steps)
    truth = GaussianData(S2, schedule.alpha_bar)
    assert abs(truth.gaps(schedule.variance("small"))[1:].sum() - small) < 6e-4
    assert abs(truth.gaps(schedule.variance("large"))[1:].sum() - large) < 6e-5


def test_spreads_of_samplers():
    schedule = Schedule.linear(1000)
    truth = GaussianData(S2, schedule.alpha_bar)
    assert abs(truth.ancestral_std(schedule.beta) - 0.5008) < 6e-5
    assert abs(truth.ancestral_std(schedule.beta_tilde) - 0.4961) < 6e-5
    found = [GaussianData(S2, schedule.subset(steps).alpha_bar).ddim_std() for steps in (10, 50, 1000)]
    np.testing.assert_allclose(found, [0.3616, 0.4719, 0.4985], atol=6e-5)


# ---- and the rest


@given(st.integers(1, 100), st.sampled_from(PREDICTIONS), st.integers(0, 2**32 - 1))
def test_param_round_trip(t, kind, seed):
    x0, eps = np.random.default_rng(seed).normal(size=(2, 5, 3))
    a, b = Schedule.cosine(100).signal_and_noise(t, x0)
    back = x0_and_eps(kind, target(kind, x0, eps, a, b), a * x0 + b * eps, a, b)
    np.testing.assert_allclose(back, (x0, eps), rtol=1e-7, atol=1e-7)  # ᾱ_T = 2.4e-7: x_0 = x_T/a loses four digits


@given(st.floats(-3, 3), st.floats(1e-3, 10), st.sampled_from([2, 17, 256]))
def test_discretised_normal_sums_to_one(mean, sigma, levels):
    x = np.linspace(-1, 1, levels)
    log_p = log_discretised_normal(x.astype(np.float32), np.full(levels, mean), sigma, levels)
    assert abs(np.exp(log_p).sum() - 1) < 2e-4  # float32 levels are off by 6e-8, and sigma may be 1e-3
    assert np.isfinite(log_p).all()
    log_p = log_discretised_normal(x, np.full(levels, mean), sigma, levels)
    assert abs(np.exp(log_p).sum() - 1) < 1e-12


def test_the_bound_counts_each_term_once_from_any_number_of_them(monkeypatch):
    """Σ_t t² from k terms: exact as the mean over all positions of the comb, though not for each."""
    model, _ = gaussian(schedule="cosine", timesteps=30)
    monkeypatch.setattr(model, "_kl", lambda x, t, rng: t.astype(float) ** 2)
    n = 29 * 50

    class Comb(Signs):
        def uniform(self, shape, dtype=None):
            return (np.arange(n) + 0.5) / n

    rest = model.log_prob_bound(np.ones((n, 1)), 31, Comb()).mean() + sum(t**2 for t in range(2, 31))
    for k in (1, 3, 7, 20, 30, 31, 1000):
        bound = model.log_prob_bound(np.ones((n, 1)), k, Comb())
        close(rest - bound.mean(), sum(t**2 for t in range(2, 31)))


def test_score_of_a_gaussian():
    model, truth = gaussian(schedule="linear", timesteps=50)
    x = np.linspace(-2, 2, 9)[:, None]
    for t in (1, 20, 50):
        v = truth.alpha_bar[t] * S2 + 1 - truth.alpha_bar[t]
        np.testing.assert_allclose(model.score(x, t), -x / v, rtol=1e-9)


def test_schedules():
    for name in ("linear", "cosine"):
        for steps in (30, 1000):
            schedule = Schedule.named(name, steps)
            assert len(schedule.beta) == steps + 1
            assert schedule.alpha_bar[0] == 1
            assert (np.diff(schedule.alpha_bar) < 0).all()
            assert schedule.alpha_bar[-1] < 1e-4
            for t in (1, 7, steps):
                assert math.isclose(schedule.between(t)[0], schedule.alpha_bar[t], rel_tol=1e-12)
            whole = schedule.subset(steps)
            np.testing.assert_array_equal(whole.alpha_bar, schedule.alpha_bar)
            assert schedule.subset(1).times.tolist() == [0, steps]
    with pytest.raises(ValueError, match="more than 20 steps"):
        Schedule.linear(20)
    with pytest.raises(ValueError, match="has no 31"):
        Schedule.cosine(30).subset(31)
